"""A verified block to its changes: who did what, and the writes of the valid transactions in ledger order. Pure.

Only transactions with the verdict VALID have writes and events here; every transaction has its facts. Reads, range
queries and responses change no state and are left where they are.
"""

from functools import lru_cache

from fabric_protos.msp import identities_pb2

from kvr_sync.model import BlockChanges, EventFacts, LedgerKey, TransactionFacts, Write, WriteKind
from kvr_sync.verify import VerifiedBlock
from network.protocol.errors import DecodeError
from network.protocol.limits import MAX_REMEMBERED_IDENTITY_BYTES
from network.protocol.read_write_set import HashedWrite, MetadataEntry, NamespaceWrites
from network.protocol.transaction import Transaction
from network.protocol.validation_code import VALID
from network.protocol.wire import parse


def extract_changes(verified: VerifiedBlock) -> BlockChanges:
    """Give everything a verified block says, in ledger order; total: a verified block always has changes."""
    block = verified.block
    transactions = []
    writes: list[Write] = []
    refused: list[Write] = []
    events = []
    for transaction, code in zip(block.transactions, block.flags, strict=True):
        transactions.append(_facts(transaction, code))
        if transaction.action is None:
            continue
        is_valid = code == VALID
        _append_writes(writes if is_valid else refused, transaction.tx_number, transaction.action.writes)
        event = transaction.action.event
        if is_valid and event is not None:
            events.append(EventFacts(transaction.tx_number, event.chaincode, event.name, event.payload))
    return BlockChanges(
        block.header,
        verified.header_hash,
        block.flags,
        tuple(transactions),
        tuple(writes),
        tuple(refused),
        tuple(events),
        verified.config,
    )


def _facts(transaction: Transaction, code: int) -> TransactionFacts:
    action = transaction.action
    defect = transaction.defect
    return TransactionFacts(
        transaction.tx_number,
        transaction.tx_id,
        transaction.header_type,
        code,
        transaction.creator,
        msp_id_of(transaction.creator),
        action.chaincode if action else None,
        action.function if action else None,
        transaction.seconds,
        transaction.nanos,
        f"{defect.place}: {defect.reason}" if defect else None,
        tuple([endorsement.endorser for endorsement in action.endorsements]) if action else (),
    )


def msp_id_of(creator: bytes) -> str:
    """Read the MSP id that a creator claims; "" when the creator of an invalid transaction is no identity."""
    # Creators of refused transactions can be anything, of any size, and never the same again.
    return _known_msp_id(creator) if len(creator) <= MAX_REMEMBERED_IDENTITY_BYTES else _read_msp_id(creator)


def _read_msp_id(creator: bytes) -> str:
    try:
        identity = parse(identities_pb2.SerializedIdentity, creator, "SerializedIdentity")
    except DecodeError:
        return ""
    return str(identity.mspid)


_known_msp_id = lru_cache(maxsize=4096)(_read_msp_id)


_PUT, _DELETE = WriteKind.PUT, WriteKind.DELETE


def _append_writes(writes: list[Write], tx_number: int, namespaces: tuple[NamespaceWrites, ...]) -> None:
    """Append one transaction's writes; `write_number` counts them in the order of the read-write set."""
    first = len(writes)
    for namespace, public, metadata, collections in namespaces:
        for key, is_delete, value in public:
            writes.append(
                Write(
                    tx_number,
                    len(writes) - first,
                    LedgerKey(namespace, "", key.encode()),
                    _DELETE if is_delete else _PUT,
                    b"" if is_delete else value,
                )
            )
        for key, entries in metadata:
            ledger_key = LedgerKey(namespace, "", key.encode())
            writes.append(Write(tx_number, len(writes) - first, ledger_key, _metadata_kind(entries), b"", entries))
        for collection in collections:
            for hashed in collection.writes:
                ledger_key = LedgerKey(namespace, collection.collection, hashed.key_hash)
                kind = _hashed_kind(hashed)
                value = hashed.value_hash if kind == WriteKind.PUT else b""
                writes.append(Write(tx_number, len(writes) - first, ledger_key, kind, value))
            for key_hash, entries in collection.metadata_writes:
                ledger_key = LedgerKey(namespace, collection.collection, key_hash)
                writes.append(Write(tx_number, len(writes) - first, ledger_key, _metadata_kind(entries), b"", entries))


def _metadata_kind(entries: tuple[MetadataEntry, ...]) -> WriteKind:
    return WriteKind.METADATA if entries else WriteKind.METADATA_REMOVED


def _hashed_kind(write: HashedWrite) -> WriteKind:
    if not write.is_delete:
        return WriteKind.PUT  # A purge flag on a write with a value hash does not make it a delete (`tx_ops.go`).
    return WriteKind.PURGE if write.is_purge else WriteKind.DELETE
