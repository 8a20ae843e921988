"""A run of blocks as rows, table by table. Pure.

Rows are tuples of plain values in the order of the columns in `schema` and `mapped_table`. Keys, identities and
chaincodes are named by their position in the run's own lists; the sink, which holds the dictionaries of the database,
puts the database's numbers in their place. So a run can be made where there is no database, by another process too.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any, NamedTuple

from kvr_sync.model import CollectionMembership, Effect, LedgerKey, RowBatch, WriteKind
from kvr_sync.store.dictionary import key_digest
from kvr_sync.store.storable import MAX_SENTENCE_BYTES, storable_function, storable_text
from network.protocol.transaction import ChaincodeId

Row = tuple[Any, ...]
"""Values as a driver takes them."""

Encoder = Callable[[Any], object]
"""From a mapped value, never None, to what a driver takes."""

ChaincodeName = tuple[str, str]
"""Storable name and version."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_SECOND = -62_135_596_800  # 0001-01-01T00:00:00Z, the first moment of `datetime`
_LAST_SECOND = 253_402_300_799  # 9999-12-31T23:59:59Z, the last
_NANOS = 1_000_000_000
_KIND_NAMES = {Effect.PUT: "put", Effect.DELETE: "delete", Effect.VERSION: "metadata"}
_PUT = WriteKind.PUT
_EFFECT_PUT = Effect.PUT


class Encoding(NamedTuple):
    """How one kind of database takes values; see `kvr_sync.store.encoding`."""

    time: Encoder
    columns: tuple[tuple[Encoder | None, ...], ...]
    """By mapped table, one for each column, or None where the value is taken as it is."""
    tables: tuple[str, ...]
    """The names of the mapped tables."""


class LedgerRows(NamedTuple):
    """Rows of the ledger layer; the field names are those of `schema.LedgerTables`.

    Positions stand where the tables have numbers: of keys in the first column of `key_history`, `private_hash` and
    `refused_write` and in the second of `quarantine`, of identity and chaincode in `transaction`.
    """

    transaction: list[Row]
    key_history: list[Row]
    private_hash: list[Row]
    refused_write: list[Row]
    event: list[Row]
    config: list[Row]
    quarantine: list[Row]


CREATOR_COLUMN = 5
CHAINCODE_COLUMN = 6
"""Where `LedgerRows.transaction` has positions, or None."""


class MappedRows(NamedTuple):
    """What a run does to one mapped table: history rows in order, and the last word on each key it touched."""

    history: list[Row]
    current: dict[int, Row | None]
    """By key position: the row to have now, or None where the key is gone. Rows begin with the key's position."""


class PrivateRows(NamedTuple):
    """What a run does to the private rows; keys by position."""

    current: dict[int, Row | None]
    """The row of `ledger_private_value` to have, or None to have none. Rows begin with the key's position."""
    moved: dict[int, Row]
    """Rows of before the run whose version moved: block, transaction, block of expiry."""
    memberships: list[CollectionMembership]
    last_block: int


class RunRows(NamedTuple):
    """Everything the blocks of a run write, apart from the rows of `ledger_block`."""

    keys: list[tuple[str, str, bytes, bytes]]
    """Storable namespace and collection, key, digest; a position is an index into this list."""
    identities: list[tuple[bytes, str, bytes]]
    """Digest, MSP id, serialised identity."""
    chaincodes: list[ChaincodeName]
    ledger: LedgerRows
    mapped: list[MappedRows]
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


class Run(NamedTuple):
    """Consecutive blocks, ready to be written in one database transaction."""

    blocks: list[BlockRow]
    rows: RunRows


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
            )
        )
    return rows


def run_rows(batches: Sequence[RowBatch], encoding: Encoding) -> RunRows:
    """Make the rows of a run, in ledger order."""
    keys: dict[LedgerKey, int] = {}
    identities: dict[bytes, tuple[int, str]] = {}
    chaincodes: dict[ChaincodeName, int] = {}
    ledger = LedgerRows([], [], [], [], [], [], [])
    mapped = [MappedRows([], {}) for _ in encoding.columns]
    for batch in batches:
        number = batch.block.changes.header.number
        senders = _append_transactions(ledger, batch, identities, chaincodes, encoding.time)
        _append_writes(ledger, batch, keys)
        for entry in batch.quarantined:
            ledger.quarantine.append(
                (
                    encoding.tables[entry.table],
                    keys.setdefault(entry.key, len(keys)),
                    number,
                    entry.tx_number,
                    entry.write_number,
                    storable_text(entry.reason),
                    storable_text(entry.detail, MAX_SENTENCE_BYTES),
                    entry.value,
                )
            )
        if batch.mapped:
            _append_mapped(mapped, batch, keys, senders, encoding.columns)
    private = _private_rows(batches, keys)
    return RunRows(
        [(storable_text(key.namespace), storable_text(key.collection), key.key, key_digest(*key)) for key in keys],
        [(sha256(creator).digest(), msp_id, creator) for creator, (_, msp_id) in identities.items()],
        list(chaincodes),
        ledger,
        mapped,
        private,
    )


def claimed_time(seconds: int | None, nanos: int | None) -> datetime | None:
    """Give a claimed time as a date with microseconds (further digits are dropped); None where it is none.

    Fabric does not look at the time of most transactions, so anything can stand there: seconds beyond the years 1 to
    9999, or nanoseconds that are no fraction of a second.
    """
    if seconds is None or not _FIRST_SECOND <= seconds <= _LAST_SECOND or not 0 <= (nanos or 0) < _NANOS:
        return None
    return _EPOCH + timedelta(0, seconds, (nanos or 0) // 1000)


def _append_transactions(
    rows: LedgerRows,
    batch: RowBatch,
    identities: dict[bytes, tuple[int, str]],
    chaincodes: dict[ChaincodeName, int],
    time: Encoder,
) -> list[tuple[str, str]]:
    """Append what is not a write; give id and MSP id of each transaction, as they are stored."""
    changes = batch.block.changes
    number = changes.header.number
    append = rows.transaction.append
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
    ) in changes.transactions:
        stored_id = storable_text(tx_id)
        if creator:
            known = identities.get(creator)
            if known is None:
                known = identities[creator] = (len(identities), storable_text(msp_id))
            creator_position: int | None = known[0]
            stored_msp_id = known[1]
        else:
            creator_position, stored_msp_id = None, storable_text(msp_id)
        senders.append((stored_id, stored_msp_id))
        claimed = claimed_time(seconds, nanos)
        append(
            (
                number,
                tx_number,
                stored_id,
                header_type,
                code,
                creator_position,
                None if chaincode is None else chaincodes.setdefault(_chaincode(chaincode), len(chaincodes)),
                storable_function(function),
                seconds,
                nanos,
                None if claimed is None else time(claimed),
                None if defect is None else storable_text(defect, MAX_SENTENCE_BYTES),
            )
        )
    for event in changes.events:
        rows.event.append(
            (number, event.tx_number, storable_text(event.chaincode), storable_text(event.name), event.payload)
        )
    if changes.config is not None:
        rows.config.append((number, changes.config.sequence, changes.config.envelope))
    return senders


def _chaincode(chaincode: ChaincodeId) -> ChaincodeName:
    return storable_text(chaincode.name), storable_text(chaincode.version)


def _append_writes(rows: LedgerRows, batch: RowBatch, keys: dict[LedgerKey, int]) -> None:
    changes = batch.block.changes
    number = changes.header.number
    public, private = rows.key_history, rows.private_hash
    for tx_number, write_number, key, kind, effect, value, written in batch.block.writes:
        # Where a value came into force it is stored with the row that brought it, whatever the other writes of the
        # key were.
        kept = value if effect is _EFFECT_PUT else written if kind is _PUT else None
        (private if key.collection else public).append(
            (keys.setdefault(key, len(keys)), number, tx_number, write_number, int(kind), int(effect), kept)
        )
    for tx_number, write_number, key, kind, value in changes.refused:
        rows.refused_write.append(
            (
                keys.setdefault(key, len(keys)),
                number,
                tx_number,
                write_number,
                int(kind),
                value if kind is _PUT else None,
            )
        )


def _append_mapped(
    results: Sequence[MappedRows],
    batch: RowBatch,
    keys: dict[LedgerKey, int],
    senders: Sequence[tuple[str, str]],
    encoders: Sequence[tuple[Encoder | None, ...]],
) -> None:
    number = batch.block.changes.header.number
    for table, key, tx_number, write_number, effect, values in batch.mapped:
        position = keys.setdefault(key, len(keys))
        facts = (number, tx_number, write_number, *senders[tx_number])
        history, current = results[table]
        if values is None or effect is Effect.DELETE:
            history.append((position, *(None,) * len(encoders[table]), _KIND_NAMES[effect], *facts))
            current[position] = None
            continue
        encoded = [
            value if encoder is None or value is None else encoder(value)
            for value, encoder in zip(values, encoders[table], strict=True)
        ]
        history.append((position, *encoded, _KIND_NAMES[effect], *facts))
        current[position] = (position, *encoded, *facts)


_PRIVATE_VALUE_COLUMNS = 4
"""Of a row of `ledger_private_value`: position of the key, key, value, hash; its version follows."""


def _private_rows(batches: Sequence[RowBatch], keys: dict[LedgerKey, int]) -> PrivateRows | None:
    """Make the last word of a run on each private key."""
    if not batches or batches[-1].private is None:
        return None
    rows = PrivateRows({}, {}, [], batches[-1].block.changes.header.number)
    for batch in batches:
        if batch.private is None:
            continue
        number = batch.block.changes.header.number
        for tx_number, write_number, key, effect, private_key, value, value_hash, expiring in batch.private.changes:
            position = keys.setdefault(key, len(keys))
            before = rows.current.get(position)
            if effect is not Effect.VERSION:
                rows.moved.pop(position, None)
                version = (number, tx_number, write_number, expiring)
                row = (position, private_key, value, value_hash, *version)
                rows.current[position] = row if effect is _EFFECT_PUT else None
            elif before is not None:
                written_by = before[_PRIVATE_VALUE_COLUMNS + 2]
                version = (number, tx_number, written_by, expiring)
                rows.current[position] = (*before[:_PRIVATE_VALUE_COLUMNS], *version)
            elif position not in rows.current:
                rows.moved[position] = (number, tx_number, expiring)
        rows.memberships.extend(batch.private.memberships)
    return rows
