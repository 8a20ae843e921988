"""What an organisation should hold of the private state, and what each private write does to its rows. Pure.

Who is a member of a collection, and how long its keys live, stands in the chain itself: the definitions that the
`_lifecycle` state holds, as they were before the block.
"""

from collections.abc import Iterable
from typing import NamedTuple

from fabric_protos.peer.lifecycle import db_pb2

from kvr_sync.model import (
    CollectionMembership,
    Effect,
    LedgerKey,
    PrivateChange,
    PrivateChanges,
    ReplayedBlock,
    WriteKind,
)
from kvr_sync.private_data import PrivateData, PrivateValue
from kvr_sync.replay_state import KeyReader
from network.protocol.collection import CollectionConfig, decode_collections, find_collection, member_msp_ids
from network.protocol.errors import DecodeError
from network.protocol.private_data import LIFECYCLE_NAMESPACE, collections_field_key
from network.protocol.wire import parse

_FIELD = tuple(collections_field_key("\0").split(b"\0"))
"""What stands before and after the chaincode in the key of its collections."""


class _Terms(NamedTuple):
    is_member: bool
    block_to_live: int


class Membership:
    """The collections of one channel as one organisation sees them, block by block."""

    def __init__(self, msp_id: str, read_keys: KeyReader) -> None:
        """`read_keys` gives the public state before the first block that `derive` is given."""
        self.msp_id = msp_id
        self._read_keys = read_keys
        self._configs: dict[str, tuple[CollectionConfig, ...]] = {}

    def derive(self, replayed: ReplayedBlock, private: PrivateData) -> PrivateChanges:
        """Give what the next block does to the private rows; its definitions rule the blocks after it."""
        values = {(value.tx_number, value.write_number): value for value in private.values}
        number = replayed.changes.header.number
        changes = []
        joined: list[CollectionMembership] = []
        for write in replayed.writes:
            key = write.key
            if key.collection and write.effect is not Effect.NONE:
                terms = self._terms(key.namespace, key.collection)
                expiring = number + terms.block_to_live + 1 if terms.block_to_live else None
                value = values.get((write.tx_number, write.write_number))
                change = PrivateChange(
                    write.tx_number, write.write_number, key, write.effect, None, None, write.value or b"", expiring
                )
                if write.effect is Effect.PUT:
                    change = _put(change, value, is_member=terms.is_member)
                elif write.kind is WriteKind.PURGE:
                    change = change._replace(effect=Effect.PURGE)
                changes.append(change)
            elif key.namespace == LIFECYCLE_NAMESPACE and write.effect in (Effect.PUT, Effect.DELETE):
                joined += self._define(key.key, write.value)
        return PrivateChanges(tuple(changes), tuple(joined))

    def _terms(self, namespace: str, collection: str) -> _Terms:
        configs = self._configs.get(namespace)
        if configs is None:
            key = LedgerKey(LIFECYCLE_NAMESPACE, "", collections_field_key(namespace))
            state = self._read_keys([key]).get(key)
            configs = self._configs[namespace] = decode_definition(None if state is None else state.value)
        config = find_collection(configs, collection)
        if config is None:
            return _Terms(is_member=False, block_to_live=0)
        return _Terms(is_member(config, self.msp_id), config.block_to_live)

    def _define(self, field: bytes, value: bytes | None) -> Iterable[CollectionMembership]:
        """Take a new definition; give the collections of it that the organisation is a member of."""
        before, after = _FIELD
        if not (field.startswith(before) and field.endswith(after)):
            return
        try:
            namespace = field[len(before) : len(field) - len(after)].decode()
        except UnicodeDecodeError:
            return
        configs = self._configs[namespace] = decode_definition(value)
        for config in configs:
            if is_member(config, self.msp_id):
                yield CollectionMembership(namespace, config.name, config.block_to_live)


def is_member(config: CollectionConfig | None, msp_id: str) -> bool:
    """Tell whether an organisation is a member of a collection; of one that is not defined nobody is."""
    try:
        return config is not None and msp_id in member_msp_ids(config)
    except DecodeError:
        return False


def decode_definition(content: bytes | None) -> tuple[CollectionConfig, ...]:
    """Give the collections that a chaincode's field of the `_lifecycle` state defines; total."""
    if content is None:
        return ()
    try:
        return decode_collections(parse(db_pb2.StateData, content, "StateData").Bytes)
    except DecodeError:
        return ()  # A peer that cannot read the definition has no members and no expiry for it either.


def _put(change: PrivateChange, value: PrivateValue | None, *, is_member: bool) -> PrivateChange:
    if value is not None:
        return change._replace(private_key=value.private_key, value=value.value)
    # What a member's peer does not hand over is missing. Others hold nothing, and nothing that is outdated either.
    return change._replace(effect=Effect.MISSING if is_member else Effect.DELETE)
