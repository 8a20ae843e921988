"""A run of blocks as rows, table by table. Pure.

Rows are tuples of plain values in the order of `schema.row_columns`. Keys, identities and chaincodes are named by their
position in the run's own lists; rows begin with them, and the sink, which holds the dictionaries of the database, puts
the database's numbers in their place. So a run can be made where there is no database, by another process too.
"""

from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Final, Generic, NamedTuple, Protocol, TypeAlias, TypeVar

from kvr_sync.decode import msp_id_of
from kvr_sync.mapping.conversion import moment
from kvr_sync.model import (
    CollectionMembership,
    Effect,
    LedgerKey,
    PrivateChanges,
    QuarantinedWrite,
    RowBatch,
    TransactionFacts,
    WriteKind,
)
from kvr_sync.store.dictionary import key_digests
from kvr_sync.store.storable import MAX_SENTENCE_BYTES, storable_function, storable_text
from network.protocol.transaction import ChaincodeId

Row = tuple[Any, ...]
"""Values as a driver takes them."""

Encoder = Callable[[Any], object]
"""From a mapped value, never None, to what a driver takes."""

ChaincodeName = tuple[str, str]
"""Storable name and version."""

_KIND_NAMES = {
    Effect.PUT: "put",
    Effect.DELETE: "delete",
    Effect.VERSION: "metadata",
    Effect.PURGE: "purge",
    Effect.MISSING: "missing",
}
_INTEGERS = tuple(range(max(*WriteKind, *Effect) + 1))
"""The plain integer of an enumeration's value, cheaper than `int`."""
_PUT = WriteKind.PUT
_EFFECT_PUT = Effect.PUT
_EFFECT_PURGE = Effect.PURGE


class Encoding(NamedTuple):
    """How one kind of database takes values; see `kvr_sync.store.encoding`."""

    time: Encoder
    tables: tuple["TableEncoding", ...]
    """By mapped table."""


class ColumnEncoding(NamedTuple):
    """The same for the columns of one table: encoders by position; other values are taken as they are."""

    encoders: tuple[tuple[int, Encoder], ...]
    blank: tuple[None, ...]
    """A row without values."""

    def encode(self, values: Sequence[object]) -> Sequence[object]:
        """Give the values of a row; None stays None."""
        if not self.encoders:
            return values
        encoded = list(values)
        for column, encode in self.encoders:
            value = encoded[column]
            if value is not None:
                encoded[column] = encode(value)
        return encoded


class TableEncoding(NamedTuple):
    """The same for one mapped table and its child tables."""

    name: str
    columns: ColumnEncoding
    children: tuple[ColumnEncoding, ...]


class Holes(NamedTuple):
    """A column of positions: where in the content each of its numbers goes, and the position that says which."""

    offsets: list[int]
    positions: list[int]


class PackedRows(NamedTuple):
    """Rows of one table as PostgreSQL takes them (`copy_rows`), with `holes` for each leading column of positions."""

    content: bytes
    holes: tuple[Holes, ...]


Rows: TypeAlias = list[Row] | PackedRows
"""Rows of one table; no rows at all are an empty list."""

R_co = TypeVar("R_co", covariant=True)


class LedgerRows(NamedTuple, Generic[R_co]):
    """Rows of the ledger layer; the field names are those of `schema.LedgerTables`.

    Those of transactions begin with the positions of identity, chaincode and endorser set (or None), those of events,
    configurations and definitions with none, all others with the position of a key.
    """

    transaction: R_co
    key_history: R_co
    private_hash: R_co
    key_metadata: R_co
    refused_write: R_co
    event: R_co
    config: R_co
    chaincode_definition: R_co
    collection_definition: R_co
    quarantine: R_co


LEDGER_POSITIONS: Final = (3, 1, 1, 1, 1, 0, 0, 0, 0, 1)
"""With how many positions the rows of each field of `LedgerRows` begin."""


class ChildRows(NamedTuple, Generic[R_co]):
    """What a run does to one child table: the rows of every version of its documents, in order.

    Rows begin with the position of the key; history and current rows are alike.
    """

    rows: R_co
    starts: Sequence[int]
    """Where in `rows` those of each version of the document begin; one more at the end."""


KEPT: Final = 0
DELETED: Final = 1
PURGED: Final = 2
MISSED: Final = 3
_GONE = {Effect.PURGE: PURGED, Effect.MISSING: MISSED}
"""What becomes of a row with an effect that leaves none; DELETED with all others."""


class MappedRows(NamedTuple, Generic[R_co]):
    """What a run does to one mapped table: every version in order, and the last word on each key it touched.

    Rows begin with the position of the key and the kind of the write, in whose place current rows have the number of
    their last change.
    """

    history: R_co
    current: dict[int, int | None]
    """By key position: which of `history` is the row to have now; None: the key is gone."""
    steps: Sequence[int]
    """For each row of `history` five numbers, one after the other: position of the key, whether the row goes with it
    (KEPT, DELETED, PURGED or MISSED), block, transaction, write."""
    children: Sequence[ChildRows[R_co]]


class PrivateRows(NamedTuple):
    """What a run does to the private rows; keys by position."""

    versions: list[Row]
    """Of `ledger_private_value`: each value that came into force. Rows begin with the key's position."""
    standing: dict[int, int | None]
    """Which of `versions` is in force afterwards; None: the key is gone."""
    ended: dict[int, int]
    """Keys whose value of before the run came out of force, and with which block."""
    moved: dict[int, int | None]
    """Keys whose value of before the run got another block of expiry."""
    purges: list[tuple[int, int, int]]
    """Key, block and transaction of each purge."""
    memberships: list[tuple[CollectionMembership, int]]
    """With the block of the definition."""
    last_block: int


class RunRows(NamedTuple, Generic[R_co]):
    """Everything the blocks of a run write, apart from the rows of `ledger_block`."""

    keys: list[tuple[str, str, bytes, bytes]]
    """Storable namespace and collection, key, digest; a position is an index into this list."""
    identities: list[tuple[bytes, str, bytes]]
    """Digest, MSP id, serialised identity."""
    chaincodes: list[ChaincodeName]
    endorser_sets: list[tuple[int, ...]]
    """Positions of identities."""
    ledger: LedgerRows[R_co]
    mapped: Sequence[MappedRows[R_co]]
    private: PrivateRows | None = None
    """None where no private data is held."""


class BlockRow(NamedTuple):
    """A row of `ledger_block`."""

    block_number: int
    header_hash: bytes
    previous_hash: bytes
    data_hash: bytes
    commit_hash: bytes | None
    commit_hash_verified: bool
    transaction_count: int
    first_seen: int
    """Nanoseconds since 1970; 0: not known."""


class MappedTypes(NamedTuple):
    """Names of PostgreSQL's types for one mapped table, in the order of the rows that are packed."""

    history: tuple[str, ...]
    children: tuple[tuple[str, ...], ...]


class CopyTypes(NamedTuple):
    """Names of PostgreSQL's types for the rows of a run, in the order of their columns."""

    ledger: tuple[tuple[str, ...], ...]
    """By field of `LedgerRows`."""
    mapped: tuple[MappedTypes, ...]
    """By mapped table."""


class Run(NamedTuple):
    """Consecutive blocks, ready to be written in one database transaction."""

    blocks: list[BlockRow]
    rows: RunRows[Rows]


def block_rows(batches: Sequence[RowBatch]) -> list[BlockRow]:
    """Make the rows of `ledger_block`."""
    rows = []
    for batch in batches:
        block = batch.block
        changes = block.changes
        header = changes.header
        rows.append(
            BlockRow(
                header.number,
                changes.header_hash,
                header.previous_hash,
                header.data_hash,
                block.commit_hash,
                block.commit_hash_verified,
                len(changes.transactions),
                batch.first_seen,
            )
        )
    return rows


class RowStore(Protocol):
    """Takes the rows of one table, in order: a list, or what packs them at once (`copy_rows.RowPacker`)."""

    def extend(self, rows: list[Row], /) -> None:
        """Add rows."""

    def __len__(self) -> int:
        """Count the rows so far."""


S = TypeVar("S", bound=RowStore)


def run_rows(batches: Iterable[RowBatch], encoding: Encoding) -> RunRows[list[Row]]:
    """Make the rows of a run, in ledger order."""
    builder = list_builder(encoding)
    for batch in batches:
        builder.add(batch)
    return builder.run()


def list_builder(encoding: Encoding) -> "RunBuilder[list[Row]]":
    """Give a builder whose rows are lists."""
    ledger: LedgerRows[list[Row]] = LedgerRows(*([] for _ in LedgerRows._fields))
    return RunBuilder(encoding, ledger, [MappedStores([], [[] for _ in table.children]) for table in encoding.tables])


class MappedStores(NamedTuple, Generic[S]):
    """What takes the rows of one mapped table and of its child tables."""

    history: S
    children: list[S]


class RunBuilder(Generic[S]):
    """Makes the rows of a run block by block, so that nothing but rows is kept of a block."""

    def __init__(self, encoding: Encoding, ledger: LedgerRows[S], mapped: Sequence[MappedStores[S]]) -> None:
        """`ledger` and `mapped` take the rows; they are empty."""
        self._encoding = encoding
        self._ledger = ledger
        self._mapped = mapped
        self._current: list[dict[int, int | None]] = [{} for _ in mapped]
        self._steps = [array("q") for _ in mapped]
        self._starts = [[array("q", [0]) for _ in table.children] for table in mapped]
        self._keys: dict[LedgerKey, int] = {}
        self._names = _Names({}, {}, {}, {}, {}, {})
        self._private: PrivateRows | None = None

    def add(self, batch: RowBatch) -> None:
        """Add the next block."""
        number = batch.block.changes.header.number
        senders = _append_transactions(self._ledger, batch, self._names, self._encoding.time)
        _append_writes(self._ledger, batch, self._keys)
        _append_definitions(self._ledger, batch)
        for table in {row.table for row in batch.mapped}:
            self._append_mapped(batch, table, senders)
        if batch.quarantined:
            self._ledger.quarantine.extend([self._quarantine_row(number, entry) for entry in batch.quarantined])
        if batch.private is not None:
            due = self._encoding.time(NEVER_ASKED)
            self._private = _with_private(self._private, batch.private, number, self._keys, due)

    def add_mapped(self, batch: RowBatch) -> None:
        """Add the mapped and quarantined rows of the next block alone; it may be one that came before."""
        number = batch.block.changes.header.number
        senders = {row.tx_number: _sender(batch.block.changes.transactions[row.tx_number]) for row in batch.mapped}
        for table in {row.table for row in batch.mapped}:
            self._append_mapped(batch, table, senders)
        if batch.quarantined:
            self._ledger.quarantine.extend([self._quarantine_row(number, entry) for entry in batch.quarantined])

    @property
    def keys(self) -> Iterable[LedgerKey]:
        """The keys of the run so far, by position."""
        return self._keys

    def run(self) -> RunRows[S]:
        """Give what was made; the builder ends with it."""
        names = {name: storable_text(name) for name in {name for key in self._keys for name in key[:2]}}
        return RunRows(
            [
                (names[namespace], names[collection], key, digest)
                for (namespace, collection, key), digest in zip(self._keys, key_digests(self._keys), strict=True)
            ],
            [(sha256(creator).digest(), msp_id, creator) for creator, (_, msp_id) in self._names.identities.items()],
            list(self._names.chaincodes),
            list(self._names.endorser_sets),
            self._ledger,
            [self._mapped_rows(table) for table in range(len(self._mapped))],
            self._private,
        )

    def _mapped_rows(self, table: int) -> MappedRows[S]:
        history, children = self._mapped[table]
        starts = self._starts[table]
        return MappedRows(
            history,
            self._current[table],
            self._steps[table],
            [ChildRows(rows, start) for rows, start in zip(children, starts, strict=True)],
        )

    def _append_mapped(
        self, batch: RowBatch, table: int, senders: Sequence[tuple[str, str]] | Mapping[int, tuple[str, str]]
    ) -> None:
        number = batch.block.changes.header.number
        encode, blank = self._encoding.tables[table].columns.encode, self._encoding.tables[table].columns.blank
        history, current, steps, keys = (
            self._mapped[table].history,
            self._current[table],
            self._steps[table],
            self._keys,
        )
        index = len(history)
        rows: list[Row] = []
        has_children = bool(self._starts[table])
        for row in batch.mapped:
            row_table, key, tx_number, write_number, effect, values, external_id, _ = row
            if row_table != table:
                continue
            position = keys.setdefault(key, len(keys))
            is_deleted = values is None or effect is Effect.DELETE
            encoded = blank if values is None or is_deleted else encode(values)
            current[position] = None if is_deleted else index + len(rows)
            facts = (number, tx_number, write_number, *senders[tx_number])
            rows.append((position, _KIND_NAMES[effect], external_id, *encoded, *facts))
            gone = _GONE.get(effect, DELETED) if is_deleted else KEPT
            steps.extend((position, gone, number, tx_number, write_number))
            if has_children:
                self._append_children(table, position, () if is_deleted else row.children, facts)
        history.extend(rows)

    def _append_children(
        self, table: int, position: int, children: Sequence[Sequence[tuple[object, ...]]], facts: Row
    ) -> None:
        """Append the child rows of one version of a document, none where it is deleted."""
        encodings = self._encoding.tables[table].children
        stores = self._mapped[table].children
        for child, (encoding, store, starts) in enumerate(zip(encodings, stores, self._starts[table], strict=True)):
            if children and children[child]:
                store.extend(
                    [
                        (position, place, *encoding.encode(values), *facts)
                        for place, values in enumerate(children[child])
                    ]
                )
            starts.append(len(store))

    def _quarantine_row(self, number: int, entry: QuarantinedWrite) -> Row:
        return (
            self._keys.setdefault(entry.key, len(self._keys)),
            self._encoding.tables[entry.table].name,
            number,
            entry.tx_number,
            entry.write_number,
            storable_text(entry.reason),
            storable_text(entry.detail, MAX_SENTENCE_BYTES),
            entry.value,
            None,
            None,
        )


class _Names(NamedTuple):
    """What the transactions of a run have in common, with its stored form, found once."""

    identities: dict[bytes, tuple[int, str]]
    """Position and MSP id by serialised identity."""
    chaincodes: dict[ChaincodeName, int]
    chaincode_ids: dict[ChaincodeId, int]
    functions: dict[bytes | None, str | None]
    endorser_sets: dict[tuple[int, ...], int]
    endorsers: dict[tuple[bytes, ...], int]
    """Position of the set by its serialised identities."""

    def endorser_set(self, endorsers: tuple[bytes, ...]) -> int:
        """Give the position of a set of endorsers."""
        known = self.endorsers.get(endorsers)
        if known is None:
            members = tuple([self.identity(endorser, msp_id_of(endorser))[0] for endorser in endorsers])
            known = self.endorsers[endorsers] = self.endorser_sets.setdefault(members, len(self.endorser_sets))
        return known

    def identity(self, serialized: bytes, msp_id: str) -> tuple[int, str]:
        """Give the position of an identity, and its MSP id as it is stored."""
        known = self.identities.get(serialized)
        if known is None:
            known = self.identities[serialized] = (len(self.identities), storable_text(msp_id))
        return known


def _append_transactions(rows: LedgerRows[S], batch: RowBatch, names: _Names, time: Encoder) -> list[tuple[str, str]]:
    """Append what is not a write; give id and MSP id of each transaction, as they are stored."""
    changes = batch.block.changes
    number = changes.header.number
    chaincodes, chaincode_ids, functions = names.chaincodes, names.chaincode_ids, names.functions
    made: list[Row] = []
    append = made.append
    senders = []
    for (
        tx_number,
        tx_id,
        header_type,
        code,
        creator,
        msp_id,
        chaincode,
        function,
        seconds,
        nanos,
        defect,
        endorsers,
    ) in changes.transactions:
        stored_id = storable_text(tx_id)
        creator_position: int | None = None
        if creator:
            creator_position, stored_msp_id = names.identity(creator, msp_id)
        else:
            stored_msp_id = storable_text(msp_id)
        senders.append((stored_id, stored_msp_id))
        chaincode_position = None
        if chaincode is not None:
            chaincode_position = chaincode_ids.get(chaincode)
            if chaincode_position is None:
                chaincode_position = chaincodes.setdefault(_chaincode(chaincode), len(chaincodes))
                chaincode_ids[chaincode] = chaincode_position
        if function not in functions:
            functions[function] = storable_function(function)
        claimed = None if seconds is None else moment(seconds, nanos)
        append(
            (
                creator_position,
                chaincode_position,
                names.endorser_set(endorsers) if endorsers else None,
                number,
                tx_number,
                stored_id,
                header_type,
                code,
                functions[function],
                seconds,
                nanos,
                None if claimed is None else time(claimed),
                None if defect is None else storable_text(defect, MAX_SENTENCE_BYTES),
            )
        )
    rows.transaction.extend(made)
    if changes.events:
        rows.event.extend(
            [
                (number, event.tx_number, storable_text(event.chaincode), storable_text(event.name), event.payload)
                for event in changes.events
            ]
        )
    if changes.config is not None:
        rows.config.extend([(number, changes.config.sequence, changes.config.envelope)])
    return senders


def _sender(facts: TransactionFacts) -> tuple[str, str]:
    return storable_text(facts.tx_id), storable_text(facts.msp_id)


def _chaincode(chaincode: ChaincodeId) -> ChaincodeName:
    return storable_text(chaincode.name), storable_text(chaincode.version)


def _append_writes(rows: LedgerRows[S], batch: RowBatch, keys: dict[LedgerKey, int]) -> None:
    changes = batch.block.changes
    number = changes.header.number
    public: list[Row] = []
    private: list[Row] = []
    metadata: list[Row] = []
    for tx_number, write_number, key, kind, effect, value, written, entries, _ in batch.block.writes:
        # Where a value came into force it is stored with the row that brought it, whatever the other writes of the
        # key were.
        kept = value if effect is _EFFECT_PUT else written if kind is _PUT else None
        (private if key.collection else public).append(
            (keys.setdefault(key, len(keys)), number, tx_number, write_number, _INTEGERS[kind], _INTEGERS[effect], kept)
        )
        if entries:
            position = keys[key]
            metadata += [
                (position, number, tx_number, write_number, place, storable_text(entry.name), entry.value)
                for place, entry in enumerate(entries)
            ]
    rows.key_history.extend(public)
    if private:
        rows.private_hash.extend(private)
    if metadata:
        rows.key_metadata.extend(metadata)
    if changes.refused:
        rows.refused_write.extend(
            [
                (
                    keys.setdefault(key, len(keys)),
                    number,
                    tx_number,
                    write_number,
                    _INTEGERS[kind],
                    value if kind is _PUT else None,
                )
                for tx_number, write_number, key, kind, value, _ in changes.refused
            ]
        )


def _append_definitions(rows: LedgerRows[S], batch: RowBatch) -> None:
    number = batch.block.changes.header.number
    for chaincode, definition, collections in batch.definitions:
        name = storable_text(chaincode)
        terms: Row = (None,) * 6
        if definition is not None:
            terms = (
                definition.sequence,
                storable_text(definition.version),
                definition.init_required,
                storable_text(definition.endorsement_plugin),
                storable_text(definition.validation_plugin),
                definition.validation_parameter,
            )
        rows.chaincode_definition.extend([(name, number, *terms)])
        if collections:
            rows.collection_definition.extend(
                [
                    (
                        name,
                        number,
                        storable_text(collection.name),
                        collection.member_policy,
                        collection.required_peer_count,
                        collection.maximum_peer_count,
                        collection.block_to_live,
                        collection.member_only_read,
                        collection.member_only_write,
                        collection.endorsement_policy,
                    )
                    for collection in collections
                ]
            )


NEVER_ASKED: Final = datetime(1970, 1, 1, tzinfo=UTC)
"""When a value that is missing is due to be asked for: at once."""
_EXPIRING, _ENDED = 7, 8
"""Where these stand in a row of `ledger_private_value`."""


def _with_private(
    rows: PrivateRows | None, private: PrivateChanges, number: int, keys: dict[LedgerKey, int], due: object
) -> PrivateRows:
    """Add what a block does to the private rows. `due`: NEVER_ASKED, as it is stored."""
    rows = PrivateRows([], {}, {}, {}, [], [], number) if rows is None else rows._replace(last_block=number)
    versions, standing = rows.versions, rows.standing
    for tx_number, write_number, key, effect, private_key, value, value_hash, expiring in private.changes:
        position = keys.setdefault(key, len(keys))
        before = standing.get(position)
        if effect is Effect.VERSION:
            if before is not None:
                versions[before] = _replaced(versions[before], _EXPIRING, expiring)
            elif position not in standing:
                rows.moved[position] = expiring
            continue
        if before is not None:
            versions[before] = _replaced(versions[before], _ENDED, number)
        elif position not in standing:
            rows.ended[position] = number
        standing[position] = None
        if effect is _EFFECT_PURGE:
            rows.purges.append((position, number, tx_number))
        elif effect is not Effect.DELETE:
            asked = (0, due) if effect is Effect.MISSING else (None, None)
            standing[position] = len(versions)
            version = (position, number, tx_number, write_number)
            versions.append((*version, private_key, value, value_hash, expiring, None, None, None, *asked))
    rows.memberships.extend((membership, number) for membership in private.memberships)
    return rows


def _replaced(row: Row, place: int, value: object) -> Row:
    return (*row[:place], value, *row[place + 1 :])
