"""A run of blocks as rows, table by table, with numbers for keys, identities and chaincodes. Pure.

Rows are tuples in the order of the columns in `schema` and `mapped_table`.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any, NamedTuple

from kvr_sync.model import Effect, LedgerKey, RowBatch, TransactionFacts, WriteKind
from kvr_sync.store.dictionary import key_digest
from kvr_sync.store.storable import MAX_SENTENCE_BYTES, storable_function, storable_text

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


class RunNames(NamedTuple):
    """What a run names, each once, in order of first appearance."""

    keys: dict[LedgerKey, bytes]
    """Keys with their digests."""
    identities: dict[bytes, tuple[bytes, str]]
    """Serialised identities with their digest and MSP id."""
    chaincodes: dict[ChaincodeName, None]


class RunIds(NamedTuple):
    """The numbers of what a run names."""

    keys: Mapping[LedgerKey, int]
    identities: Mapping[bytes, int]
    chaincodes: Mapping[ChaincodeName, int]


class LedgerRows(NamedTuple):
    """Rows of the ledger layer; the field names are those of `schema.LedgerTables`."""

    block: list[Row]
    transaction: list[Row]
    key_history: list[Row]
    private_hash: list[Row]
    refused_write: list[Row]
    event: list[Row]
    config: list[Row]
    quarantine: list[Row]


class MappedRows(NamedTuple):
    """What a run does to one mapped table: history rows in order, and the last word on each key it touched."""

    history: list[Row]
    current: dict[int, Row | None]
    """By key number: the row to have now, or None where the key is gone."""


def run_names(batches: Sequence[RowBatch]) -> RunNames:
    """Collect what the rows of a run will need numbers for."""
    keys: dict[LedgerKey, bytes] = {}
    identities: dict[bytes, tuple[bytes, str]] = {}
    chaincodes: dict[ChaincodeName, None] = {}
    for batch in batches:
        for facts in batch.block.changes.transactions:
            creator = facts.creator
            if creator and creator not in identities:
                identities[creator] = (sha256(creator).digest(), storable_text(facts.msp_id))
            if facts.chaincode is not None:
                chaincodes[_chaincode(facts)] = None
        for source in (batch.block.writes, batch.block.changes.refused, batch.mapped, batch.quarantined):
            for entry in source:
                key = entry.key
                if key not in keys:
                    keys[key] = key_digest(*key)
    return RunNames(keys, identities, chaincodes)


def ledger_rows(batches: Sequence[RowBatch], ids: RunIds, tables: Sequence[str], time: Encoder) -> LedgerRows:
    """Make the rows of the ledger layer; `tables` names the mapped tables, `time` encodes a datetime."""
    rows = LedgerRows([], [], [], [], [], [], [], [])
    for batch in batches:
        _append_block(rows, batch, ids, time)
        _append_writes(rows, batch, ids.keys)
        rows.refused_write.extend(_refused(batch, ids.keys))
        number = batch.block.changes.header.number
        for entry in batch.quarantined:
            rows.quarantine.append(
                (
                    tables[entry.table],
                    ids.keys[entry.key],
                    number,
                    entry.tx_number,
                    entry.write_number,
                    storable_text(entry.reason),
                    storable_text(entry.detail, MAX_SENTENCE_BYTES),
                    entry.value,
                )
            )
    return rows


def mapped_rows(
    batches: Sequence[RowBatch], keys: Mapping[LedgerKey, int], encoders: Sequence[Sequence[Encoder | None]]
) -> list[MappedRows]:
    """Make the rows of the mapped layer, for each mapped table; `encoders` has one for each column, or None."""
    results = [MappedRows([], {}) for _ in encoders]
    encoded = [any(columns) for columns in encoders]
    nothing = [(None,) * len(columns) for columns in encoders]
    for batch in batches:
        if not batch.mapped:
            continue
        changes = batch.block.changes
        number = changes.header.number
        senders = {
            facts.tx_number: (storable_text(facts.tx_id), storable_text(facts.msp_id)) for facts in changes.transactions
        }
        for table, key, tx_number, write_number, effect, values in batch.mapped:
            key_id = keys[key]
            facts = (number, tx_number, write_number, *senders[tx_number])
            history, current = results[table]
            if values is None or effect is Effect.DELETE:
                history.append((key_id, *nothing[table], _KIND_NAMES[effect], *facts))
                current[key_id] = None
                continue
            if encoded[table]:
                values = _encode(values, encoders[table])  # noqa: PLW2901  the same values, as a driver takes them
            history.append((key_id, *values, _KIND_NAMES[effect], *facts))
            current[key_id] = (key_id, *values, *facts)
    return results


def claimed_time(seconds: int | None, nanos: int | None) -> datetime | None:
    """Give a claimed time as a date with microseconds (further digits are dropped); None where it is none.

    Fabric does not look at the time of most transactions, so anything can stand there: seconds beyond the years 1 to
    9999, or nanoseconds that are no fraction of a second.
    """
    if seconds is None or not _FIRST_SECOND <= seconds <= _LAST_SECOND or not 0 <= (nanos or 0) < _NANOS:
        return None
    return _EPOCH + timedelta(seconds=seconds, microseconds=(nanos or 0) // 1000)


def _chaincode(facts: TransactionFacts) -> ChaincodeName:
    if facts.chaincode is None:
        raise ValueError("no chaincode")
    return storable_text(facts.chaincode.name), storable_text(facts.chaincode.version)


def _append_block(rows: LedgerRows, batch: RowBatch, ids: RunIds, time: Encoder) -> None:
    block = batch.block
    changes = block.changes
    header = changes.header
    number = header.number
    rows.block.append(
        (
            number,
            changes.header_hash,
            header.previous_hash,
            header.data_hash,
            block.commit_hash,
            block.commit_hash_verified,
            len(changes.transactions),
        )
    )
    for facts in changes.transactions:
        claimed = claimed_time(facts.seconds, facts.nanos)
        rows.transaction.append(
            (
                number,
                facts.tx_number,
                storable_text(facts.tx_id),
                facts.header_type,
                facts.validation_code,
                ids.identities[facts.creator] if facts.creator else None,
                ids.chaincodes[_chaincode(facts)] if facts.chaincode is not None else None,
                storable_function(facts.function),
                facts.seconds,
                facts.nanos,
                None if claimed is None else time(claimed),
                None if facts.defect is None else storable_text(facts.defect, MAX_SENTENCE_BYTES),
            )
        )
    for event in changes.events:
        rows.event.append(
            (number, event.tx_number, storable_text(event.chaincode), storable_text(event.name), event.payload)
        )
    if changes.config is not None:
        rows.config.append((number, changes.config.sequence, changes.config.envelope))


def _append_writes(rows: LedgerRows, batch: RowBatch, keys: Mapping[LedgerKey, int]) -> None:
    number = batch.block.changes.header.number
    public, private = rows.key_history, rows.private_hash
    for tx_number, write_number, key, kind, effect, value, written in batch.block.writes:
        # Where a value came into force it is stored with the row that brought it, whatever the other writes of the
        # key were.
        kept = value if effect is Effect.PUT else written if kind is WriteKind.PUT else None
        (private if key.collection else public).append(
            (keys[key], number, tx_number, write_number, int(kind), int(effect), kept)
        )


def _refused(batch: RowBatch, keys: Mapping[LedgerKey, int]) -> list[Row]:
    changes = batch.block.changes
    number = changes.header.number
    return [
        (keys[key], number, tx_number, write_number, int(kind), value if kind is WriteKind.PUT else None)
        for tx_number, write_number, key, kind, value in changes.refused
    ]


def _encode(values: Sequence[object], encoders: Sequence[Encoder | None]) -> tuple[object, ...]:
    return tuple(
        value if encoder is None or value is None else encoder(value)
        for value, encoder in zip(values, encoders, strict=True)
    )
