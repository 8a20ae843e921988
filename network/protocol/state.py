"""The world state as judging reads it, and what a block changes in it.

One key space for public and private state: `commit_hash.StateKey`, where a collection's keys and values are hashes.
Private values are none of it.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple, Protocol

from network.protocol.commit_hash import StateKey
from network.protocol.read_write_set import KeyRead, MetadataEntry, Version

CONFIG_KEY: StateKey = ("", "", b"CHANNEL_CONFIG_ENV_BYTES")
"""Where a peer keeps the configuration (`core/peer/configtx_processor.go`); no part of the commit hash."""


class StateValue(NamedTuple):
    """A key that exists: its value (in a collection: the value's SHA-256), last version, metadata."""

    value: bytes
    version: Version
    metadata: tuple[MetadataEntry, ...] = ()


class StateUpdate(NamedTuple):
    """What a key is after a block; `value` None: it was deleted, `version` then tells by whom."""

    value: bytes | None
    version: Version
    metadata: tuple[MetadataEntry, ...] = ()


class StateReader(Protocol):
    """What judging asks of committed state, that is, of the state before the block.

    Private keys whose block-to-live is over are gone from it (`private_data.has_expired`).
    """

    def value(self, key: StateKey) -> StateValue | None:
        """Give a key, public or hashed; None: it does not exist."""

    def range(self, namespace: str, start_key: str, end_key: str) -> Iterable[KeyRead]:
        """Give the public keys with `start_key` <= key < `end_key` in the order of their UTF-8 bytes, with versions.

        An empty `end_key` is no end. Read only as far as needed: a generator is best.
        """

    def has_transaction(self, tx_id: str) -> bool:
        """Tell whether any transaction in an earlier block, valid or not, claimed this id."""


class BlockState:
    """Committed state with the updates of the block's valid transactions so far laid over it."""

    def __init__(self, committed: StateReader) -> None:
        self._committed = committed
        self._read: dict[StateKey, StateValue | None] = {}
        self._updates: dict[StateKey, StateUpdate] = {}
        self._names: dict[str, list[bytes]] = {}
        self._is_sorted: dict[str, bool] = {}

    @property
    def updates(self) -> Mapping[StateKey, StateUpdate]:
        """Every key touched so far, with its last state."""
        return MappingProxyType(self._updates)

    def is_touched(self, key: StateKey) -> bool:
        """Tell whether a valid transaction of this block wrote the key."""
        return key in self._updates

    def committed(self, key: StateKey) -> StateValue | None:
        """Give a key as it was before the block; each key is asked for once."""
        if key not in self._read:
            self._read[key] = self._committed.value(key)
        return self._read[key]

    def value(self, key: StateKey) -> StateValue | None:
        """Give a key as it is now."""
        update = self._updates.get(key)
        if update is None:
            return self.committed(key)
        return None if update.value is None else StateValue(update.value, update.version, update.metadata)

    def update(self, key: StateKey, update: StateUpdate) -> None:
        """Lay one key over committed state."""
        namespace, collection, name = key
        if not collection and key not in self._updates:
            self._names.setdefault(namespace, []).append(name)
            self._is_sorted[namespace] = False
        self._updates[key] = update

    def range(self, namespace: str, start_key: str, end_key: str, *, with_end_key: bool) -> Iterator[KeyRead]:
        """Give the keys of a range as they are now, in order, deleted ones left out.

        `with_end_key`: the end key, where it exists, comes last, also when the range itself is empty
        (`core/ledger/kvledger/txmgmt/validation/combined_iterator.go`).
        """
        touched = self._touched_in(namespace, start_key, end_key)
        position = 0
        for read in self._committed.range(namespace, start_key, end_key):
            name = read.key.encode()
            while position < len(touched) and touched[position] < name:
                yield from self._existing(namespace, touched[position])
                position += 1
            if position < len(touched) and touched[position] == name:
                yield from self._existing(namespace, name)
                position += 1
            else:
                yield read
        for name in touched[position:]:
            yield from self._existing(namespace, name)
        if with_end_key:
            yield from self._existing(namespace, end_key.encode())

    def _existing(self, namespace: str, name: bytes) -> Iterator[KeyRead]:
        found = self.value((namespace, "", name))
        if found is not None:
            yield KeyRead(name.decode(), found.version)

    def _touched_in(self, namespace: str, start_key: str, end_key: str) -> Sequence[bytes]:
        names = self._names.get(namespace, [])
        if not self._is_sorted.get(namespace, True):
            names.sort()  # linear but for what was added since, so many ranges in one block stay cheap
            self._is_sorted[namespace] = True
        start = bisect_left(names, start_key.encode())
        return names[start : bisect_left(names, end_key.encode()) if end_key else None]
