"""What the writes of one transaction do to one key of the world state.

Rules: `core/ledger/kvledger/txmgmt/validation/tx_ops.go`. Fabric adds one flag per write of a key (upsert 1, metadata
update 2, metadata delete 4, delete 8, in eight bits) and reads the sum, so the same key written twice in one
transaction, which no honest peer endorses, has odd but exact results; they are part of the commit hash and are
matched here.
"""

from collections.abc import Iterable
from enum import IntEnum
from typing import NamedTuple

from network.protocol.read_write_set import MetadataEntry


class Operation(IntEnum):
    """One write of a key; the number is Fabric's flag."""

    UPSERT = 1
    METADATA_UPDATE = 2
    METADATA_DELETE = 4
    DELETE = 8


class KeyUpdate(NamedTuple):
    """The merged effect on one key.

    `is_delete`: value and metadata are gone. Otherwise `value` None means: the value from before stays, and a key
    that did not exist stays absent. `keeps_metadata`: the metadata from before stays; else it becomes `metadata`
    (empty: none).
    """

    is_delete: bool
    value: bytes | None
    keeps_metadata: bool
    metadata: tuple[MetadataEntry, ...]


def merge_operations(operations: Iterable[tuple[Operation, bytes | tuple[MetadataEntry, ...]]]) -> KeyUpdate:
    """Merge all writes of one key in one transaction, in the order of the write set: writes, then metadata writes.

    Each operation comes with its payload: the value for UPSERT, the entries for METADATA_UPDATE, anything otherwise.
    """
    flags = 0
    value: bytes = b""
    metadata: tuple[MetadataEntry, ...] = ()
    for operation, payload in operations:
        flags = (flags + operation) & 0xFF
        if operation == Operation.UPSERT and isinstance(payload, bytes):
            value = payload
        elif operation == Operation.METADATA_UPDATE and isinstance(payload, tuple):
            metadata = payload
    if flags & Operation.DELETE:
        return KeyUpdate(is_delete=True, value=None, keeps_metadata=False, metadata=())
    if flags | Operation.UPSERT == Operation.UPSERT:
        return KeyUpdate(is_delete=False, value=value, keeps_metadata=True, metadata=())
    changes_metadata = flags & (Operation.METADATA_UPDATE | Operation.METADATA_DELETE)
    if flags & Operation.UPSERT and changes_metadata:
        return KeyUpdate(is_delete=False, value=value, keeps_metadata=False, metadata=metadata)
    return KeyUpdate(is_delete=False, value=None, keeps_metadata=False, metadata=metadata)
