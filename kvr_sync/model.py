"""The nouns of the line.

One immutable type for each arrow of `source -> decode -> verify -> changes -> map -> sink`.
"""

from collections.abc import Mapping
from enum import IntEnum
from types import MappingProxyType
from typing import NamedTuple

from network.protocol.block import BlockHeader
from network.protocol.read_write_set import Version
from network.protocol.transaction import ChaincodeId


class RawBlock(NamedTuple):
    """One block as a source gave it; `origin` says where from, for errors ("blocks.zst, record 12").

    `private_sets`: serialised TxPvtReadWriteSet by transaction number, as a peer handed them over beside the block.
    `first_seen`: when an engine first had it, nanoseconds since 1970; 0: not yet.
    """

    content: bytes
    origin: str
    private_sets: Mapping[int, bytes] = MappingProxyType({})
    first_seen: int = 0


class Checkpoint(NamedTuple):
    """The committed position of a channel.

    Last block applied, its header hash, and the commit hash after it (if any).
    """

    block_number: int
    header_hash: bytes
    commit_hash: bytes | None


class LedgerKey(NamedTuple):
    """A key of the world state. `key` are raw bytes; in a collection they are the SHA-256 of the private key.

    `collection` is "" for public keys.
    """

    namespace: str
    collection: str
    key: bytes


class StateValue(NamedTuple):
    """What the world state holds for a key.

    Its value (in a collection: the value's hash) and the version that wrote it.
    """

    value: bytes
    version: Version


class WriteKind(IntEnum):
    """What a transaction wrote. METADATA sets a key's metadata (key-level policy), METADATA_REMOVED takes it away."""

    PUT = 1
    DELETE = 2
    METADATA = 3
    PURGE = 4
    METADATA_REMOVED = 5


class Effect(IntEnum):
    """What a valid write did to the world state.

    PUT: the key has this write's value. DELETE: the key is gone. VERSION: the value stayed, the version moved
    (metadata-only writes). NONE: nothing by itself (metadata of a missing key, or overridden inside its own
    transaction).
    """

    NONE = 0
    PUT = 1
    DELETE = 2
    VERSION = 3


class Write(NamedTuple):
    """One write of a valid transaction.

    `value`: public value, or value hash in a collection; b"" for deletes and metadata.
    """

    tx_number: int
    write_number: int
    key: LedgerKey
    kind: WriteKind
    value: bytes


class EffectiveWrite(NamedTuple):
    """A write and what it did.

    `value`: the value the key has after it (the retained one for VERSION); None when none.
    """

    tx_number: int
    write_number: int
    key: LedgerKey
    kind: WriteKind
    effect: Effect
    value: bytes | None
    written: bytes


class TransactionFacts(NamedTuple):
    """One transaction as the ledger layer records it, whatever its verdict.

    `creator` is a serialised identity or b"".
    """

    tx_number: int
    tx_id: str
    header_type: int | None
    validation_code: int
    creator: bytes
    msp_id: str
    chaincode: ChaincodeId | None
    function: bytes | None
    seconds: int | None
    nanos: int | None
    defect: str | None


class EventFacts(NamedTuple):
    """The chaincode event of a valid transaction."""

    tx_number: int
    chaincode: str
    name: str
    payload: bytes


class ConfigFacts(NamedTuple):
    """A channel configuration that came into force with this block; `envelope` are ConfigEnvelope bytes."""

    sequence: int
    envelope: bytes


class BlockChanges(NamedTuple):
    """Everything one verified block says, in ledger order.

    `writes` are those of valid transactions, `refused` what the others would have written, as far as they can be
    read: kept for the audit of a key, never applied.
    """

    header: BlockHeader
    header_hash: bytes
    flags: bytes
    transactions: tuple[TransactionFacts, ...]
    writes: tuple[Write, ...]
    refused: tuple[Write, ...]
    events: tuple[EventFacts, ...]
    config: ConfigFacts | None


class ReplayedBlock(NamedTuple):
    """Changes with their effects on the world state. `commit_hash`: derived, None where Fabric has none (block 0)."""

    changes: BlockChanges
    writes: tuple[EffectiveWrite, ...]
    commit_hash: bytes | None
    commit_hash_verified: bool


class MappedRow(NamedTuple):
    """One version of one row of one mapped table.

    `table` is the index in the mapping. `effect` is PUT, DELETE or VERSION; `values` are the column values in the
    order of the mapping (None when the row is deleted).
    """

    table: int
    key: LedgerKey
    tx_number: int
    write_number: int
    effect: Effect
    values: tuple[object, ...] | None


class QuarantinedWrite(NamedTuple):
    """A value that does not fit its mapping: `reason` is a stable code, `detail` a sentence without the value."""

    table: int
    key: LedgerKey
    tx_number: int
    write_number: int
    reason: str
    detail: str
    value: bytes


class PrivateChange(NamedTuple):
    """What a valid write did to the private row of its key, whose hash `key` holds.

    `effect`: PUT, DELETE or VERSION. After PUT `private_key` and `value` are None where the value is missing.
    `expiring_block`: with it the key leaves the state; None: never by itself.
    """

    tx_number: int
    write_number: int
    key: LedgerKey
    effect: Effect
    private_key: bytes | None
    value: bytes | None
    value_hash: bytes
    expiring_block: int | None


class CollectionMembership(NamedTuple):
    """A collection that the organisation is a member of, by a definition that came into force; 0: keys live for ever.

    Where it was none before, it misses every value that lives already.
    """

    namespace: str
    collection: str
    block_to_live: int


class PrivateChanges(NamedTuple):
    """What one block does to the private rows of a member organisation."""

    changes: tuple[PrivateChange, ...]
    memberships: tuple[CollectionMembership, ...]


class RowBatch(NamedTuple):
    """All rows of one block, for the sink.

    Keys, identities and chaincodes still by value, dictionaries belong to the sink. `private`: None where no private
    data is held.
    """

    block: ReplayedBlock
    mapped: tuple[MappedRow, ...]
    quarantined: tuple[QuarantinedWrite, ...]
    private: PrivateChanges | None = None
