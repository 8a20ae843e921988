"""The private data of one channel at one peer: what comes with a block, what is missing, and what is found later.

Private state follows from the private write sets that this peer holds, and from nothing else: where one is missing, a
value stays as it was while its hash goes on, and reading it fails until the missing set is found. Values leave the
state by deletes that this peer holds, by block-to-live, and by purges, for which the hash of the key is enough.

Rules: `gossip/privdata/{coordinator,pvtdataprovider,reconcile}.go`, `core/ledger/kvledger/kv_ledger.go`,
`core/ledger/kvledger/txmgmt/validation/batch_preparer.go`, `core/ledger/kvledger/txmgmt/txmgr/lockbased_txmgr.go`.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from hashlib import sha256
from typing import NamedTuple

from network.embedded.ledger.collection_history import CollectionHistory
from network.embedded.ledger.peer_store import MissingPrivateWrites, PeerStore, PrivateWriteSet
from network.embedded.ledger.private_data import (
    PrivatePart,
    PrivateWrites,
    acceptable_later,
    find_private_writes,
    key_hash,
    private_parts,
    read_private_writes,
    without_purged,
)
from network.protocol.commit_hash import StateKey
from network.protocol.errors import DecodeError
from network.protocol.read_write_set import Version
from network.protocol.state import StateUpdate
from network.protocol.transaction import Transaction
from network.protocol.validation_code import VALID

logger = logging.getLogger(__name__)


class ExpiresSoonError(Exception):
    """Nobody is asked for these private writes: they expire so soon that they count as gone already."""


Pull = Callable[[PrivatePart, int], bytes | None]
"""Asks other members of a collection for the private writes of a block; None: nobody has them.

Raises ExpiresSoonError.
"""


class CommittedBlock(NamedTuple):
    """A block whose private data is looked for later: its number, transactions and verdicts."""

    number: int
    transactions: Sequence[Transaction]
    flags: bytes


class _PrivateValue(NamedTuple):
    """What a private key is after some transaction; `value` None: deleted."""

    value: bytes | None
    version: Version


_PrivateKey = tuple[str, str, str]


class PrivateLedger:
    """The part of a peer's store that holds private data. Every method runs inside a transaction of the store."""

    def __init__(self, msp_id: str, store: PeerStore, collections: CollectionHistory) -> None:
        self._msp_id = msp_id
        self._store = store
        self._collections = collections

    def commit(
        self,
        number: int,
        transactions: Sequence[Transaction],
        flags: bytes,
        updates: Mapping[StateKey, StateUpdate],
        pull: Pull,
    ) -> None:
        """Keep what is found of a block's private writes, and bring private state in line with it.

        `updates`: what the block does to public and hashed state, which is written already.
        """
        held: dict[_PrivateKey, _PrivateValue] = {}
        with_metadata: list[_PrivateKey] = []
        purges: dict[StateKey, Version] = {}
        for part in private_parts(transactions):
            is_valid = flags[part.tx_number] == VALID
            version = Version(number, part.tx_number)
            if is_valid:
                purges.update(
                    {(part.namespace, part.collection, it.key_hash): version for it in part.writes if it.is_purge}
                )
            writes = self._keep(part, number, pull)
            if writes is None or not is_valid:
                continue
            place = part.namespace, part.collection
            held.update({(*place, key): _PrivateValue(value, version) for key, value in writes.values})
            with_metadata += [(*place, key) for key in writes.metadata_keys]
        self._follow_metadata(with_metadata, held, updates)
        self._purge(purges, held)
        self._write_state(held)
        self._plan_expiry(number, updates)

    def note_collections(self, number: int, updates: Mapping[StateKey, StateUpdate]) -> None:
        """Note the collections that a block sets; what was missing of those joined now is looked for from now on."""
        for chaincode in self._collections.note(updates, number):
            for collection in self._collections.joined(chaincode, self._msp_id, number):
                self._store.join_collection(chaincode, collection)

    # --- with the block

    def _keep(self, part: PrivatePart, number: int, pull: Pull) -> PrivateWrites | None:
        """Keep the private writes of one transaction to one collection; None: they are missing, or none can be read."""
        namespace, collection = part.namespace, part.collection
        expires = self._expires(namespace, collection, number)
        missing = MissingPrivateWrites(part.tx_number, namespace, collection, expires)
        if not self._collections.is_member(namespace, collection, self._msp_id, number):
            self._store.add_missing(number, missing, is_member=False)
            return None
        content = find_private_writes(part, self._store.transient(part.tx_id))
        if content is None:
            try:
                content = pull(part, number)
            except ExpiresSoonError:
                return None
        if content is None or sha256(content).digest() != part.content_hash:
            self._store.add_missing(number, missing, is_member=True)
            return None
        try:
            writes = read_private_writes(content)
        except DecodeError:
            logger.warning(
                "block_without_verdict",
                extra={
                    "block_number": number,
                    "tx_number": part.tx_number,
                    "reason": f"private writes of collection {collection} of chaincode {namespace} cannot be read",
                },
            )
            writes = None
        kept = PrivateWriteSet(part.tx_number, namespace, collection, content)
        hashes = () if writes is None else [key_hash(key) for key, _ in writes.values]
        self._store.add_private_writes(number, kept, hashes, expires)
        return writes

    def _expires(self, namespace: str, collection: str, number: int) -> int | None:
        live = self._collections.block_to_live(namespace, collection, number)
        return number + live + 1 if live else None

    def _follow_metadata(
        self,
        with_metadata: Sequence[_PrivateKey],
        held: dict[_PrivateKey, _PrivateValue],
        updates: Mapping[StateKey, StateUpdate],
    ) -> None:
        """Give values whose metadata alone was written the version of their hash."""
        for place in with_metadata:
            namespace, collection, key = place
            hashed = updates.get((namespace, collection, key_hash(key)))
            latest = held.get(place)
            if latest is None:
                stored = self._store.private_value(namespace, collection, key)
                latest = None if stored is None else _PrivateValue(stored.value, stored.version)
            if hashed is None or latest is None or latest.value is None or hashed.version == latest.version:
                continue
            if sha256(latest.value).digest() == hashed.value:
                held[place] = _PrivateValue(latest.value, hashed.version)

    def _purge(self, purges: Mapping[StateKey, Version], held: Mapping[_PrivateKey, _PrivateValue]) -> None:
        """Take purged keys out of state and of every private write set up to the purge, its own included."""
        written = {(namespace, collection, key_hash(key)): it for (namespace, collection, key), it in held.items()}
        for (namespace, collection, hashed), version in purges.items():
            trim = partial(without_purged, is_purged=hashed.__eq__)
            self._store.purge(namespace, collection, hashed, version, trim)
            after = written.get((namespace, collection, hashed))
            if after is None or after.version < version:
                self._store.delete_private(namespace, collection, hashed)

    def _write_state(self, held: Mapping[_PrivateKey, _PrivateValue]) -> None:
        for (namespace, collection, key), (value, version) in held.items():
            if value is None:
                self._store.delete_private(namespace, collection, key_hash(key))
            else:
                self._store.write_private(namespace, collection, key, key_hash(key), value, version)

    def _plan_expiry(self, number: int, updates: Mapping[StateKey, StateUpdate]) -> None:
        expires: dict[tuple[str, str], int | None] = {}
        for key, update in updates.items():
            namespace, collection, _ = key
            if not collection or update.value is None:
                continue
            place = namespace, collection
            if place not in expires:
                expires[place] = self._expires(*place, number)
            at = expires[place]
            if at is not None:
                self._store.plan_expiry(at, key, number)

    # --- later

    def reconcile(self, block: CommittedBlock, pull: Pull) -> int:
        """Look again for what is missing of a block; gives the number of private write sets that were found."""
        wanted = self._store.missing_of(block.number)
        found = 0
        for part in private_parts(block.transactions):
            place = (part.tx_number, part.namespace, part.collection)
            if place not in wanted:
                continue
            content = self._find_later(part, block.number, pull)
            if content is not None:
                self._keep_later(part, block, content)
                self._store.remove_missing(block.number, *place)
                found += 1
        return found

    def _find_later(self, part: PrivatePart, number: int, pull: Pull) -> bytes | None:
        try:
            content = pull(part, number)
        except ExpiresSoonError:
            return None
        if content is None:
            return None
        version = Version(number, part.tx_number)

        def is_purged(hashed: bytes) -> bool:
            purged = self._store.purged_at(part.namespace, part.collection, hashed)
            return purged is not None and version <= purged

        return acceptable_later(part, content, is_purged)

    def _keep_later(self, part: PrivatePart, block: CommittedBlock, content: bytes) -> None:
        namespace, collection = part.namespace, part.collection
        writes = read_private_writes(content)
        hashes = [key_hash(key) for key, _ in writes.values]
        kept = PrivateWriteSet(part.tx_number, namespace, collection, content)
        self._store.add_private_writes(block.number, kept, hashes, self._expires(namespace, collection, block.number))
        if block.flags[part.tx_number] != VALID:
            return
        version = Version(block.number, part.tx_number)
        for key, value in writes.values:
            current = self._current(namespace, collection, key, _PrivateValue(value, version))
            if current is not None:
                self._write_state({(namespace, collection, key): current})

    def _current(self, namespace: str, collection: str, key: str, found: _PrivateValue) -> _PrivateValue | None:
        """Give what a write that comes late makes of a key, None: nothing, for the key has gone on since."""
        hashed = self._store.value((namespace, collection, key_hash(key)))
        if hashed is None:
            return found if found.value is None else None
        if hashed.version == found.version:
            return found
        if found.value is not None and sha256(found.value).digest() == hashed.value:
            return _PrivateValue(found.value, hashed.version)  # only metadata was written since, or the same again
        return None
