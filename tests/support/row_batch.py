"""Row batches made by hand, for tests of what comes after the mapping. Hashes chain, but nothing is signed."""

from collections.abc import Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from hashlib import sha256
from uuid import UUID

from kvr_sync.mapping.definition import ColumnMapping, ColumnType, FromValue, Mapping, PrefixSelector, TableMapping
from kvr_sync.model import (
    BlockChanges,
    Checkpoint,
    ConfigFacts,
    Effect,
    EffectiveWrite,
    EventFacts,
    LedgerKey,
    MappedRow,
    QuarantinedWrite,
    ReplayedBlock,
    RowBatch,
    TransactionFacts,
    Write,
    WriteKind,
)
from network.protocol.block import BlockHeader, header_hash
from network.protocol.transaction import ChaincodeId


def key(name: str | bytes, namespace: str = "service", collection: str = "") -> LedgerKey:
    """Make a key; in a collection `name` should be 32 bytes."""
    return LedgerKey(namespace, collection, name.encode() if isinstance(name, str) else name)


def facts(tx_number: int = 0, *, code: int = 0, **changes: object) -> TransactionFacts:
    """Make the facts of a transaction, with `changes` to what an ordinary one has."""
    ordinary = TransactionFacts(
        tx_number=tx_number,
        tx_id=f"tx-{tx_number}",
        header_type=3,
        validation_code=code,
        creator=b"identity of agent 7",
        msp_id="ServiceMSP",
        chaincode=ChaincodeId("service", "1.0"),
        function=b"Requests:open",
        seconds=1_700_000_000,
        nanos=123_456_789,
        defect=None,
        endorsers=(),
    )
    return ordinary._replace(**changes)  # type: ignore[arg-type]  # tests name fields and give their types


def put(ledger_key: LedgerKey, value: bytes, tx_number: int = 0, write_number: int = 0) -> EffectiveWrite:
    """Make a write of a value."""
    return EffectiveWrite(tx_number, write_number, ledger_key, WriteKind.PUT, Effect.PUT, value, value)


def delete(ledger_key: LedgerKey, tx_number: int = 0, write_number: int = 0) -> EffectiveWrite:
    """Make a delete."""
    return EffectiveWrite(tx_number, write_number, ledger_key, WriteKind.DELETE, Effect.DELETE, None, b"")


def metadata(ledger_key: LedgerKey, retained: bytes, tx_number: int = 0, write_number: int = 0) -> EffectiveWrite:
    """Make a metadata-only write of a key that has the value `retained`."""
    return EffectiveWrite(tx_number, write_number, ledger_key, WriteKind.METADATA, Effect.VERSION, retained, b"")


def mapped(write: EffectiveWrite, values: tuple[object, ...] | None, table: int = 0) -> MappedRow:
    """Make the mapped row of a write."""
    name = write.key.key.decode("utf-8", "backslashreplace")
    return MappedRow(table, write.key, write.tx_number, write.write_number, write.effect, values, name)


def quarantined(write: EffectiveWrite, reason: str = "not_json", table: int = 0) -> QuarantinedWrite:
    """Make the quarantine entry of a write."""
    return QuarantinedWrite(
        table, write.key, write.tx_number, write.write_number, reason, "the value is no JSON document", write.written
    )


class RowChain:
    """Makes consecutive batches, each on the one before; `position` is the checkpoint after the last."""

    def __init__(self) -> None:
        self.position: Checkpoint | None = None

    def block(
        self,
        *,
        transactions: Sequence[TransactionFacts] | None = None,
        writes: Sequence[EffectiveWrite] = (),
        rows: Sequence[MappedRow] = (),
        quarantine: Sequence[QuarantinedWrite] = (),
        events: Sequence[EventFacts] = (),
        refused: Sequence[Write] = (),
        config: ConfigFacts | None = None,
    ) -> RowBatch:
        """Make the next block; without `transactions` it has one ordinary transaction for each position written."""
        if transactions is None:
            transactions = [facts(number) for number in sorted({write.tx_number for write in writes} | {0})]
        before = self.position
        header = BlockHeader(
            0 if before is None else before.block_number + 1,
            b"" if before is None else before.header_hash,
            sha256(repr((transactions, writes)).encode()).digest(),
        )
        commit_hash = None if before is None else sha256(header.data_hash).digest()
        changes = BlockChanges(
            header=header,
            header_hash=header_hash(header),
            flags=bytes(transaction.validation_code for transaction in transactions),
            transactions=tuple(transactions),
            writes=(),
            refused=tuple(refused),
            events=tuple(events),
            config=config,
        )
        self.position = Checkpoint(header.number, changes.header_hash, commit_hash)
        block = ReplayedBlock(changes, tuple(writes), commit_hash, commit_hash is not None)
        return RowBatch(block, tuple(rows), tuple(quarantine))


def checkpoint_after(batch: RowBatch) -> Checkpoint:
    """Give the checkpoint that a block leads to."""
    return Checkpoint(batch.block.changes.header.number, batch.block.changes.header_hash, batch.block.commit_hash)


def request_mapping() -> Mapping:
    """Make a mapping of one table with every type of column."""
    columns = [("title", ColumnType.TEXT, True, True)]
    columns += [(f"a_{kind.value}", kind, False, False) for kind in ColumnType if kind is not ColumnType.TEXT]
    values = {ColumnType.ENUM: ("open", "closed")}
    return Mapping(
        "requests",
        (
            TableMapping(
                "request",
                "service",
                PrefixSelector("r"),
                tuple(
                    ColumnMapping(name, FromValue(), kind, required=required, index=index, values=values.get(kind, ()))
                    for name, kind, required, index in columns
                ),
            ),
        ),
    )


REQUEST_VALUES = (
    "Meter broken",
    2**63 - 1,
    Decimal("1234567890123456789.000000001"),
    True,
    date(2024, 2, 29),
    datetime(2024, 2, 29, 23, 59, 59, 999999, tzinfo=UTC),
    UUID("0b6e6a8e-0a4b-4c1d-9f5e-0123456789ab"),
    "open",
    '{"tags":["a"],"amount":0.1000}',
    b"\x00\xff",
)
"""Values for `request_mapping`'s columns, in order."""
