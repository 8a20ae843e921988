"""Multi-version concurrency control: whether what a transaction read still holds, and what its writes do.

Rules: `core/ledger/kvledger/txmgmt/validation/{validator,rangequery_validator,tx_ops,types}.go`. Transactions are
looked at in the order of the block; each sees committed state with the writes of the valid ones before it.
"""

from network.protocol.commit_hash import StateKey
from network.protocol.range_query import includes_end_key, range_query_holds
from network.protocol.read_write_set import CollectionSet, MetadataEntry, NamespaceSet, Version
from network.protocol.state import BlockState, StateUpdate
from network.protocol.state_update import Operation, merge_operations
from network.protocol.validation_code import MVCC_READ_CONFLICT, PHANTOM_READ_CONFLICT, VALID

KeyOperation = tuple[Operation, bytes | tuple[MetadataEntry, ...]]


def judge_reads(read_write_set: tuple[NamespaceSet, ...], state: BlockState) -> int:
    """Give VALID when everything read is still as it was read, else the code of the first thing that is not.

    Per namespace in the order of the set: reads, ranges, reads of private keys by hash.
    """
    for entry in read_write_set:
        namespace = entry.namespace
        if not all(_is_current((namespace, "", read.key.encode()), read.version, state) for read in entry.reads):
            return MVCC_READ_CONFLICT
        for query in entry.range_queries:
            results = state.range(namespace, query.start_key, query.end_key, with_end_key=includes_end_key(query))
            if not range_query_holds(query, results):
                return PHANTOM_READ_CONFLICT
        for part in entry.collections:
            keys = [((namespace, part.collection, read.key_hash), read.version) for read in part.reads]
            if not all(_is_current(key, version, state) for key, version in keys):
                return MVCC_READ_CONFLICT
    return VALID


def _is_current(key: StateKey, version: Version | None, state: BlockState) -> bool:
    if state.is_touched(key):
        return False  # whatever was written, and even if the read names that version
    found = state.committed(key)
    return (None if found is None else found.version) == version


def apply_writes(read_write_set: tuple[NamespaceSet, ...], version: Version, state: BlockState) -> bool:
    """Lay the writes of a valid transaction over the state; `version` is its position.

    Tells whether only metadata was written to a key that an earlier transaction of the block deleted; it has no
    effect then.
    """
    is_metadata_of_deleted = False
    for key, operations in _operations(read_write_set).items():
        update = merge_operations(operations)
        if update.is_delete:
            state.update(key, StateUpdate(None, version))
            continue
        before = state.value(key) if update.value is None or update.keeps_metadata else None
        value = update.value if update.value is not None else (None if before is None else before.value)
        if value is None:  # only metadata was written, and there is no key to have it
            is_metadata_of_deleted |= state.is_touched(key)
            continue
        metadata = update.metadata
        if update.keeps_metadata:
            metadata = () if before is None else before.metadata
        state.update(key, StateUpdate(value, version, metadata))
    return is_metadata_of_deleted


def _operations(read_write_set: tuple[NamespaceSet, ...]) -> dict[StateKey, list[KeyOperation]]:
    """Gather what is done to each key: writes before metadata writes, as they stand in the set."""
    by_key: dict[StateKey, list[KeyOperation]] = {}
    for entry in read_write_set:
        namespace = entry.namespace
        for write in entry.writes:
            operation = (Operation.DELETE, b"") if write.is_delete else (Operation.UPSERT, write.value)
            by_key.setdefault((namespace, "", write.key.encode()), []).append(operation)
        for change in entry.metadata_writes:
            key = (namespace, "", change.key.encode())
            by_key.setdefault(key, []).append(_metadata_operation(change.entries))
        for part in entry.collections:
            _add_hashed(namespace, part, by_key)
    return by_key


def _add_hashed(namespace: str, part: CollectionSet, by_key: dict[StateKey, list[KeyOperation]]) -> None:
    for write in part.writes:
        operation = (Operation.DELETE, b"") if write.is_delete else (Operation.UPSERT, write.value_hash)
        by_key.setdefault((namespace, part.collection, write.key_hash), []).append(operation)
    for change in part.metadata_writes:
        key = (namespace, part.collection, change.key_hash)
        by_key.setdefault(key, []).append(_metadata_operation(change.entries))


def _metadata_operation(entries: tuple[MetadataEntry, ...]) -> KeyOperation:
    return (Operation.METADATA_UPDATE, entries) if entries else (Operation.METADATA_DELETE, ())
