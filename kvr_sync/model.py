"""The nouns of the line.

One immutable type for each arrow of `source -> decode -> verify -> changes -> map -> sink`.
"""

from collections.abc import Mapping
from enum import IntEnum
from types import MappingProxyType
from typing import NamedTuple

from network.protocol.block import BlockHeader
from network.protocol.collection import CollectionConfig
from network.protocol.lifecycle import ChaincodeDefinition
from network.protocol.read_write_set import MetadataEntry, Version
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
    transaction). On private rows alone there are PURGE: the key is gone, and whatever value it had is to be erased, and
    MISSING: the key has this write's value, and the value is not there.
    """

    NONE = 0
    PUT = 1
    DELETE = 2
    VERSION = 3
    PURGE = 4
    MISSING = 5


class Write(NamedTuple):
    """One write of a transaction.

    `value`: public value, or value hash in a collection; b"" for deletes and metadata. `entries`: the whole new
    metadata of the key, in the order of the message, for METADATA; () for all others.
    """

    tx_number: int
    write_number: int
    key: LedgerKey
    kind: WriteKind
    value: bytes
    entries: tuple[MetadataEntry, ...] = ()


class EffectiveWrite(NamedTuple):
    """A write and what it did.

    `value`: the value the key has after it (the retained one for VERSION); None when none. `written` and `entries` are
    the write's own. `metadata`: what the key's metadata became with this effect, all writes of the key in the
    transaction taken together as Fabric does; () for none left, None where it stayed. A key that is deleted loses it.
    """

    tx_number: int
    write_number: int
    key: LedgerKey
    kind: WriteKind
    effect: Effect
    value: bytes | None
    written: bytes
    entries: tuple[MetadataEntry, ...] = ()
    metadata: tuple[MetadataEntry, ...] | None = None


class TransactionFacts(NamedTuple):
    """One transaction as the ledger layer records it, whatever its verdict.

    `creator` is a serialised identity or b"". `endorsers` are serialised identities, one for each endorsement of the
    action in its order, as they stand there: nothing here says that they signed. () where there is no readable action.
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
    endorsers: tuple[bytes, ...]


class EventFacts(NamedTuple):
    """The chaincode event of a transaction."""

    tx_number: int
    chaincode: str
    name: str
    payload: bytes


class ConfigFacts(NamedTuple):
    """A channel configuration that came into force with this block; `envelope` are ConfigEnvelope bytes."""

    sequence: int
    envelope: bytes


class DecodedTransaction(NamedTuple):
    """One envelope of a block, decoded as far as it goes; nothing in it is verified.

    `facts` hold the verdict that the block's flags show. `channel_id` is "" and there are no writes and no event where
    reading stopped before. `config`: ConfigEnvelope bytes of a configuration transaction without defect. `malformed`:
    why Fabric refuses the form of the envelope itself (`network.protocol.wire.envelope_defect`); None: it does not.
    """

    facts: TransactionFacts
    channel_id: str
    writes: tuple[Write, ...]
    event: EventFacts | None
    config: bytes | None
    malformed: str | None


class DecodedBlock(NamedTuple):
    """A block with its transactions decoded; fields as in `network.protocol.block.Block`."""

    header: BlockHeader
    envelopes: tuple[bytes, ...]
    metadata: tuple[bytes, ...]
    transactions: tuple[DecodedTransaction, ...]
    flags: bytes
    commit_hash: bytes | None


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

    `table` is the index in the mapping. `effect` is none but NONE; `values` are the column values in the order of the
    mapping (None after DELETE, PURGE and MISSING). `external_id`: the key as a text that is unique in its table
    (None: of a private key that is not known).
    `children`: for each child table the values of its rows, in the order of the array.
    """

    table: int
    key: LedgerKey
    tx_number: int
    write_number: int
    effect: Effect
    values: tuple[object, ...] | None
    external_id: str | None
    children: tuple[tuple[tuple[object, ...], ...], ...] = ()


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

    `effect`: any but NONE; `private_key` and `value` are there after PUT alone. `expiring_block`: with it the key
    leaves the state; None: never by itself.
    """

    tx_number: int
    write_number: int
    key: LedgerKey
    effect: Effect
    private_key: bytes | None
    value: bytes | None
    value_hash: bytes
    expiring_block: int | None


class MissingValue(NamedTuple):
    """A private value that should be held and is not: of key number `key_id`, asked for in vain `attempts` times.

    `key` as the tables hold it: namespace and collection as texts, and the hash of the private key.
    """

    key_id: int
    key: LedgerKey
    block_number: int
    tx_number: int
    write_number: int
    value_hash: bytes
    attempts: int


class LateValue(NamedTuple):
    """A value that was missing, and the private key that it belongs to; both are those of the hashes."""

    missing: MissingValue
    private_key: bytes
    value: bytes


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


class DefinitionFacts(NamedTuple):
    """A chaincode definition that a block brought; `definition` None: what was written there is none."""

    chaincode: str
    definition: ChaincodeDefinition | None
    collections: tuple[CollectionConfig, ...]


class RowBatch(NamedTuple):
    """All rows of one block, for the sink.

    Keys, identities and chaincodes still by value, dictionaries belong to the sink. `private`: None where no private
    data is held. `first_seen` as in `RawBlock`.
    """

    block: ReplayedBlock
    mapped: tuple[MappedRow, ...]
    quarantined: tuple[QuarantinedWrite, ...]
    private: PrivateChanges | None = None
    definitions: tuple[DefinitionFacts, ...] = ()
    first_seen: int = 0
