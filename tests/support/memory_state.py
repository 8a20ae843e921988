"""A world state in memory that blocks are judged on: what a peer's database does, in the plainest way."""

from bisect import bisect_left, insort
from collections.abc import Iterator

from network.protocol.commit_hash import StateKey, commit_hash
from network.protocol.lifecycle import read_definition
from network.protocol.private_data import LIFECYCLE_NAMESPACE
from network.protocol.read_write_set import KeyRead
from network.protocol.state import StateUpdate, StateValue
from network.protocol.validation import BlockJudgement


class MemoryState:
    """Keys, used ids and the last commit hash after the blocks applied so far."""

    def __init__(self) -> None:
        self.keys: dict[StateKey, StateValue] = {}
        self.tx_ids: set[str] = set()
        self.commit_hash: bytes | None = None
        self.height = 0
        self._names: dict[str, list[bytes]] = {}
        self._expiring: dict[int, list[StateKey]] = {}

    # --- StateReader

    def value(self, key: StateKey) -> StateValue | None:
        return self.keys.get(key)

    def range(self, namespace: str, start_key: str, end_key: str) -> Iterator[KeyRead]:
        names = self._names.get(namespace, [])
        for name in names[bisect_left(names, start_key.encode()) :]:
            if end_key and name >= end_key.encode():
                return
            yield KeyRead(name.decode(), self.keys[namespace, "", name].version)

    def has_transaction(self, tx_id: str) -> bool:
        return tx_id in self.tx_ids

    # --- committing

    def apply(self, judgement: BlockJudgement) -> None:
        """Commit the next block: its updates, its ids, its commit hash, and what expires with it."""
        for key, update in judgement.updates.items():
            self.put(key, update)
        self.tx_ids.update(filter(None, judgement.tx_ids))
        if self.height > 0:
            self.commit_hash = commit_hash(judgement.flags, judgement.hashed_updates(), self.commit_hash)
        for key in self._expiring.pop(self.height, []):
            found = self.keys.get(key)
            if found is not None and found.version.block_number + self._block_to_live(key) + 1 <= self.height:
                self.put(key, StateUpdate(None, found.version))
        self.height += 1

    def put(self, key: StateKey, update: StateUpdate) -> None:
        """Write one key."""
        namespace, collection, name = key
        names = self._names.setdefault(namespace, [])
        if update.value is None:
            if self.keys.pop(key, None) is not None and not collection:
                names.remove(name)
            return
        if key not in self.keys and not collection:
            insort(names, name)
        self.keys[key] = StateValue(update.value, update.version, update.metadata)
        live = self._block_to_live(key) if collection else 0
        if live:
            self._expiring.setdefault(update.version.block_number + live + 1, []).append(key)

    def _block_to_live(self, key: StateKey) -> int:
        definition = read_definition(key[0], self.read_lifecycle)
        configs = () if definition is None else definition.collection_configs()
        return next((config.block_to_live for config in configs if config.name == key[1]), 0)

    def read_lifecycle(self, key: str) -> bytes | None:
        """Read the public namespace `_lifecycle`."""
        found = self.keys.get((LIFECYCLE_NAMESPACE, "", key.encode()))
        return None if found is None else found.value

    def read_hash(self, collection: str, key_hash: bytes) -> bytes | None:
        """Read the hash of a private value of `_lifecycle`."""
        found = self.keys.get((LIFECYCLE_NAMESPACE, collection, key_hash))
        return None if found is None else found.value
