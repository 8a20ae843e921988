"""What the writes of a block did to the world state, and the commit hash that follows from it.

Most writes say their effect themselves. Two kinds need the state before: metadata-only writes (the value stays, the
version moves, a missing key stays missing) and keys written twice in one transaction. Their values are read through a
key reader for what is committed, and an overlay for the blocks of the run that are not committed yet. Pure apart from
that reader.

The commit hash that a peer put into a block is not an input: it is derived here, and compared with the peer's only in
`check_commit_hash`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

from kvr_sync.errors import CommitHashError
from kvr_sync.model import BlockChanges, Effect, EffectiveWrite, LedgerKey, ReplayedBlock, StateValue, Write, WriteKind
from network.protocol.commit_hash import commit_hash
from network.protocol.errors import DecodeError
from network.protocol.private_data import (
    LIFECYCLE_NAMESPACE,
    collections_field_key,
    decode_block_to_live,
    has_expired,
)
from network.protocol.read_write_set import MetadataEntry, Version
from network.protocol.state_update import Operation, merge_operations

KeyReader = Callable[[Iterable[LedgerKey]], Mapping[LedgerKey, StateValue]]
"""Gives the committed state of keys; a key that does not exist is not in the answer."""

Updates = dict[LedgerKey, tuple[bytes | None, Version]]

Outcome = tuple[Effect, bytes | None, tuple[MetadataEntry, ...] | None]
"""Effect, value after it and new metadata, as an `EffectiveWrite` has them."""

_OPERATIONS = {
    WriteKind.PUT: Operation.UPSERT,
    WriteKind.DELETE: Operation.DELETE,
    WriteKind.PURGE: Operation.DELETE,
    WriteKind.METADATA: Operation.METADATA_UPDATE,
    WriteKind.METADATA_REMOVED: Operation.METADATA_DELETE,
}
_METADATA_KINDS = frozenset({WriteKind.METADATA, WriteKind.METADATA_REMOVED})
_PUT, _EFFECT_PUT, _EFFECT_DELETE = WriteKind.PUT, Effect.PUT, Effect.DELETE
_NONE: Outcome = (Effect.NONE, None, None)


class StateReplay:
    """The world state as far as replaying blocks needs it.

    Committed keys behind `read_keys`, newer ones in an overlay.
    """

    def __init__(self, read_keys: KeyReader, commit_hash_before: bytes | None) -> None:
        self._read_keys = read_keys
        self._commit_hash = commit_hash_before
        self._overlay: list[Updates] = []

    def committed(self, blocks: int) -> None:
        """Forget the overlay of the oldest `blocks` replayed blocks: the key reader sees them now."""
        del self._overlay[:blocks]

    def replay(self, changes: BlockChanges) -> ReplayedBlock:
        """Derive effects and commit hash of the next block."""
        writes, updates = self.effects(changes)
        derived = None
        if changes.header.number > 0:  # Block 0 has none (`core/ledger/kvledger/kv_ledger.go`).
            derived = self._commit_hash = commit_hash(changes.flags, updates, self._commit_hash)
        return ReplayedBlock(changes, writes, derived, commit_hash_verified=False)

    def effects(self, changes: BlockChanges) -> tuple[tuple[EffectiveWrite, ...], Updates]:
        """Derive what the writes of the next block do, and the state updates that its commit hash is made of."""
        block_number = changes.header.number
        updates: Updates = {}
        writes: list[EffectiveWrite] = []
        all_writes = changes.writes
        position = 0
        count = len(all_writes)
        while position < count:
            tx_number = all_writes[position].tx_number
            end = position + 1
            while end < count and all_writes[end].tx_number == tx_number:
                end += 1
            self._replay_transaction(all_writes[position:end], Version(block_number, tx_number), updates, writes)
            position = end
        self._overlay.append(updates)
        return tuple(writes), updates

    def _replay_transaction(
        self, written: Sequence[Write], version: Version, updates: Updates, out: list[EffectiveWrite]
    ) -> None:
        if not _needs_merge(written):
            for tx_number, write_number, key, kind, content, _ in written:
                if kind is _PUT:
                    updates[key] = (content, version)
                    out.append(EffectiveWrite(tx_number, write_number, key, kind, _EFFECT_PUT, content, content))
                else:
                    updates[key] = (None, version)
                    out.append(EffectiveWrite(tx_number, write_number, key, kind, _EFFECT_DELETE, None, b""))
            return
        by_key: dict[LedgerKey, list[Write]] = {}
        for write in written:
            by_key.setdefault(write.key, []).append(write)
        outcomes: dict[int, Outcome] = {}
        for key, key_writes in by_key.items():
            outcome = self._merge(key, key_writes, version, updates)
            outcomes[_carrier(key_writes, outcome[0]).write_number] = outcome
        for write in written:
            effect, value, metadata = outcomes.get(write.write_number, _NONE)
            out.append(
                EffectiveWrite(
                    write.tx_number,
                    write.write_number,
                    write.key,
                    write.kind,
                    effect,
                    value,
                    write.value,
                    write.entries,
                    metadata,
                )
            )

    def _merge(self, key: LedgerKey, key_writes: Sequence[Write], version: Version, updates: Updates) -> Outcome:
        """Apply all writes of one key in one transaction."""
        update = merge_operations(
            (_OPERATIONS[write.kind], write.value if write.kind == WriteKind.PUT else write.entries)
            for write in key_writes
        )
        if update.is_delete:
            updates[key] = (None, version)
            return Effect.DELETE, None, None
        metadata = None if update.keeps_metadata else update.metadata
        if update.value is not None:
            updates[key] = (update.value, version)
            return Effect.PUT, update.value, metadata
        retained = self._state(key, version.block_number, updates)
        if retained is None:
            return _NONE
        updates[key] = (retained, version)
        return Effect.VERSION, retained, metadata

    def _state(self, key: LedgerKey, block_number: int, updates: Updates) -> bytes | None:
        """Give the value a key has before this transaction, None when it does not exist."""
        found = self._lookup(key, updates)
        if found is None:
            return None
        value, version = found
        if value is None:
            return None
        if key.collection:
            live = self._block_to_live(key, updates)
            if has_expired(written_in=version.block_number, block_to_live=live, at_block=block_number):
                return None
        return value

    def _block_to_live(self, key: LedgerKey, updates: Updates) -> int:
        # An upgrade cannot change a collection's block-to-live, so the definition of today answers for every height.
        found = self._lookup(LedgerKey(LIFECYCLE_NAMESPACE, "", collections_field_key(key.namespace)), updates)
        if found is None or found[0] is None:
            return 0
        try:
            return decode_block_to_live(found[0], key.collection)
        except DecodeError:
            return 0  # A peer that cannot read the definition has no expiry for it either.

    def _lookup(self, key: LedgerKey, updates: Updates) -> tuple[bytes | None, Version] | None:
        if key in updates:
            return updates[key]
        for block_updates in reversed(self._overlay):
            if key in block_updates:
                return block_updates[key]
        committed = self._read_keys([key]).get(key)
        return None if committed is None else (committed.value, committed.version)


def _needs_merge(written: Sequence[Write]) -> bool:
    if len(written) == 1:  # nearly every transaction
        return written[0].kind in _METADATA_KINDS
    if any(write.kind in _METADATA_KINDS for write in written):
        return True
    return len({write.key for write in written}) != len(written)


def _carrier(key_writes: Sequence[Write], effect: Effect) -> Write:
    """Choose the write that stands for the merged effect.

    The one that wrote the final value or deleted it, else the last.
    """
    kinds = {Effect.PUT: {WriteKind.PUT}, Effect.DELETE: {WriteKind.DELETE, WriteKind.PURGE}}.get(effect, set())
    return next((write for write in reversed(key_writes) if write.kind in kinds), key_writes[-1])


def check_commit_hash(replayed: ReplayedBlock, recorded: bytes | None) -> ReplayedBlock:
    """Compare the derived commit hash with the one the peer recorded in the block; None: it recorded none.

    A ledger from before commit hashes never has any; that is accepted and stays visible as "not verified". Raises
    CommitHashError when the two differ: the verdicts or the writes are not those the peer applied.
    """
    if recorded is None:
        return replayed
    if replayed.commit_hash != recorded:
        number = replayed.changes.header.number
        derived = replayed.commit_hash.hex() if replayed.commit_hash else "none"
        message = (
            f"block {number}: commit hash {recorded.hex()} recorded by the peer, {derived} follows from its content"
        )
        raise CommitHashError(message, block_number=number)
    return replayed._replace(commit_hash_verified=True)
