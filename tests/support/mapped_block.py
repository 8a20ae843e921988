"""Blocks made of a few writes, for tests of the map stage."""

from kvr_sync.mapping.definition import Mapping
from kvr_sync.mapping.map import map_block
from kvr_sync.mapping.validation import read_mapping
from kvr_sync.model import (
    BlockChanges,
    Effect,
    EffectiveWrite,
    LedgerKey,
    QuarantinedWrite,
    ReplayedBlock,
    RowBatch,
    TransactionFacts,
    WriteKind,
)
from network.protocol.block import BlockHeader
from network.protocol.composite_key import encode_composite_key
from network.protocol.transaction import ChaincodeId

FACTS = TransactionFacts(
    tx_number=0,
    tx_id="ab" * 32,
    header_type=3,
    validation_code=0,
    creator=b"",
    msp_id="ServiceMSP",
    chaincode=ChaincodeId("service", "1.0"),
    function=b"open",
    seconds=1_795_386_155,
    nanos=920_004_999,
    defect=None,
    endorsers=(),
)


def composite(object_type: str, *attributes: str) -> bytes:
    return encode_composite_key(object_type, attributes)


def write(
    key: bytes, value: bytes | None, *, effect: Effect = Effect.PUT, namespace: str = "ext", collection: str = ""
) -> EffectiveWrite:
    kind = WriteKind.METADATA if effect is Effect.VERSION else WriteKind.PUT if value else WriteKind.DELETE
    return EffectiveWrite(0, 0, LedgerKey(namespace, collection, key), kind, effect, value, value or b"")


def replayed(*writes: EffectiveWrite, facts: TransactionFacts = FACTS) -> ReplayedBlock:
    changes = BlockChanges(BlockHeader(7, b"", b""), b"", b"\x00", (facts,), (), (), (), None)
    return ReplayedBlock(changes, writes, None, commit_hash_verified=False)


def one_column(options: str, key: str = "{composite: item, attributes: [id]}") -> Mapping:
    """A mapping of one table `items` with one column `c`."""
    text = (
        f"kvr_mapping: 1\ntables:\n  items:\n    namespace: ext\n    key: {key}\n    columns:\n      c: {{{options}}}\n"
    )
    return read_mapping(text.encode(), "test.yaml")


def map_value(mapping: Mapping, value: bytes, *, key: bytes | None = None, facts: TransactionFacts = FACTS) -> RowBatch:
    return map_block(replayed(write(composite("item", "1") if key is None else key, value), facts=facts), mapping)


def cell(mapping: Mapping, value: bytes, *, key: bytes | None = None, facts: TransactionFacts = FACTS) -> object:
    """The value of the one column of the one row."""
    batch = map_value(mapping, value, key=key, facts=facts)
    assert batch.quarantined == ()
    (row,) = batch.mapped
    assert row.values is not None
    (found,) = row.values
    return found


def refusal(
    mapping: Mapping, value: bytes, *, key: bytes | None = None, facts: TransactionFacts = FACTS
) -> QuarantinedWrite:
    """The one quarantine entry; no row was made."""
    batch = map_value(mapping, value, key=key, facts=facts)
    assert batch.mapped == ()
    (entry,) = batch.quarantined
    return entry
