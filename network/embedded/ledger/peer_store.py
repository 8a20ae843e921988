"""What one peer keeps of one channel, but for the blocks themselves: a SQLite file, one transaction per block.

State and hashed private state are one key space (`commit_hash.StateKey`); private values stand beside it, in the stores
of members alone. Beside them: history, ids of transactions, private write sets by block and position (what Deliver
gives members), those that are missing, keys that were purged, collections by the block that set them, and the transient
store of endorsed private writes.

Rules: `core/ledger/kvledger/kv_ledger.go`, `core/ledger/pvtdatastorage/store.go`, `core/transientstore/store.go`.
"""

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from fabric_protos.ledger.rwset.kvrwset import kv_rwset_pb2

from network.errors import LedgerError
from network.protocol.commit_hash import StateKey
from network.protocol.read_write_set import KeyRead, MetadataEntry, Version
from network.protocol.state import StateUpdate, StateValue

FORMAT: Final = 2
TRANSIENT_BLOCKS: Final = 20_000
"""Endorsed private writes are forgotten this many blocks later (`core.yaml`, transientBlockRetention)."""

_SCHEMA: Final = """
CREATE TABLE fact (name TEXT PRIMARY KEY, value BLOB) WITHOUT ROWID;
CREATE TABLE state (
    namespace TEXT, collection TEXT, key BLOB, value BLOB NOT NULL, metadata BLOB, block INTEGER, tx INTEGER,
    PRIMARY KEY (namespace, collection, key)) WITHOUT ROWID;
CREATE TABLE private_state (
    namespace TEXT, collection TEXT, key TEXT, key_hash BLOB, value BLOB NOT NULL, block INTEGER, tx INTEGER,
    PRIMARY KEY (namespace, collection, key)) WITHOUT ROWID;
CREATE INDEX private_state_hash ON private_state (namespace, collection, key_hash);
CREATE TABLE expiry (block INTEGER, namespace TEXT, collection TEXT, key_hash BLOB, written INTEGER);
CREATE INDEX expiry_block ON expiry (block);
CREATE TABLE history (
    namespace TEXT, key BLOB, block INTEGER, tx INTEGER,
    PRIMARY KEY (namespace, key, block, tx)) WITHOUT ROWID;
CREATE TABLE tx_id (tx_id TEXT PRIMARY KEY, block INTEGER, tx INTEGER, code INTEGER) WITHOUT ROWID;
CREATE TABLE block_hash (hash BLOB PRIMARY KEY, block INTEGER) WITHOUT ROWID;
CREATE TABLE private_writes (
    block INTEGER, tx INTEGER, namespace TEXT, collection TEXT, content BLOB, expires INTEGER,
    PRIMARY KEY (block, tx, namespace, collection)) WITHOUT ROWID;
CREATE INDEX private_writes_expires ON private_writes (expires) WHERE expires IS NOT NULL;
CREATE TABLE private_write_key (
    namespace TEXT, collection TEXT, key_hash BLOB, block INTEGER, tx INTEGER, expires INTEGER,
    PRIMARY KEY (namespace, collection, key_hash, block, tx)) WITHOUT ROWID;
CREATE INDEX private_write_key_expires ON private_write_key (expires) WHERE expires IS NOT NULL;
CREATE TABLE missing_private_writes (
    block INTEGER, tx INTEGER, namespace TEXT, collection TEXT, is_member INTEGER, expires INTEGER,
    PRIMARY KEY (block, tx, namespace, collection)) WITHOUT ROWID;
CREATE INDEX missing_private_writes_wanted ON missing_private_writes (block) WHERE is_member = 1;
CREATE INDEX missing_private_writes_expires ON missing_private_writes (expires) WHERE expires IS NOT NULL;
CREATE TABLE purge (
    namespace TEXT, collection TEXT, key_hash BLOB, block INTEGER, tx INTEGER,
    PRIMARY KEY (namespace, collection, key_hash)) WITHOUT ROWID;
CREATE TABLE collections (
    namespace TEXT, block INTEGER, content BLOB, PRIMARY KEY (namespace, block)) WITHOUT ROWID;
CREATE TABLE transient (tx_id TEXT, height INTEGER, content BLOB, PRIMARY KEY (tx_id, content)) WITHOUT ROWID;
CREATE INDEX transient_height ON transient (height);
"""

_WRITES_OF_KEY_UP_TO: Final = """
SELECT content, block, tx, namespace, collection
FROM private_write_key JOIN private_writes USING (namespace, collection, block, tx)
WHERE namespace = ? AND collection = ? AND key_hash = ? AND (block, tx) <= (?, ?)
"""


class TransactionPlace(NamedTuple):
    """Where the first transaction that claimed an id is, and what became of it."""

    block_number: int
    tx_number: int
    code: int


class PrivateValue(NamedTuple):
    """A private key as a member holds it."""

    value: bytes
    version: Version


class PrivateWriteSet(NamedTuple):
    """The private writes (KVRWSet bytes) of one transaction to one collection."""

    tx_number: int
    namespace: str
    collection: str
    content: bytes


class MissingPrivateWrites(NamedTuple):
    """The private writes of one transaction to one collection, as far as they are not held; `expires`: None, never."""

    tx_number: int
    namespace: str
    collection: str
    expires: int | None


class PeerStore:
    """The store of one peer and channel; reads see the last committed block, or the block being committed."""

    def __init__(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        self._file = file
        self._connection = sqlite3.connect(file, isolation_level=None, cached_statements=256)
        try:
            # Whoever kills the process loses nothing; for power cuts there are real networks.
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = NORMAL")
            (version,) = self._connection.execute("PRAGMA user_version").fetchone()
            if version == 0:
                self._connection.executescript(f"BEGIN;{_SCHEMA}PRAGMA user_version = {FORMAT};COMMIT;")
            elif version != FORMAT:
                raise LedgerError(f"{file} is of format {version}; this version reads {FORMAT}")
        except sqlite3.DatabaseError as error:
            self._connection.close()
            raise LedgerError(f"{file} cannot be read as a peer's store") from error

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Write all that follows or, when it raises, nothing."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    # --- facts

    @property
    def height(self) -> int:
        """Number of the next block."""
        return int.from_bytes(self._fact("height") or b"")

    @property
    def commit_hash(self) -> bytes | None:
        """Give the commit hash of the last block, None before block 1."""
        return self._fact("commit_hash")

    def set_tip(self, height: int, commit_hash: bytes | None) -> None:
        """Note how far the store is."""
        self._set_fact("height", height.to_bytes(8))
        if commit_hash is not None:
            self._set_fact("commit_hash", commit_hash)

    def _fact(self, name: str) -> bytes | None:
        row = self._connection.execute("SELECT value FROM fact WHERE name = ?", (name,)).fetchone()
        return None if row is None else row[0]

    def _set_fact(self, name: str, value: bytes) -> None:
        self._connection.execute("INSERT OR REPLACE INTO fact VALUES (?, ?)", (name, value))

    # --- state (`network.protocol.state.StateReader`)

    def value(self, key: StateKey) -> StateValue | None:
        """Give a key, public or hashed."""
        row = self._connection.execute(
            "SELECT value, block, tx, metadata FROM state WHERE namespace = ? AND collection = ? AND key = ?", key
        ).fetchone()
        return None if row is None else StateValue(row[0], Version(row[1], row[2]), _decode_metadata(row[3]))

    def range(self, namespace: str, start_key: str, end_key: str) -> Iterator[KeyRead]:
        """Give the public keys of a range with their versions, in order."""
        for key, _, version in self.rows(namespace, start_key, end_key):
            yield KeyRead(key, version)

    def rows(self, namespace: str, start_key: str, end_key: str) -> Iterator[tuple[str, bytes, Version]]:
        """Give keys, values and versions of a range; an empty `end_key` is no end."""
        query = "SELECT key, value, block, tx FROM state WHERE namespace = ? AND collection = '' AND key >= ?"
        parameters: list[object] = [namespace, start_key.encode()]
        if end_key:
            query += " AND key < ?"
            parameters.append(end_key.encode())
        for key, value, block, tx in self._connection.execute(query + " ORDER BY key", parameters):
            yield key.decode(), value, Version(block, tx)

    def has_transaction(self, tx_id: str) -> bool:
        """Tell whether a transaction of an earlier block claimed this id."""
        return self.transaction_place(tx_id) is not None

    def write_state(self, updates: Iterable[tuple[StateKey, StateUpdate]]) -> None:
        """Write the last state of every key that a block touched."""
        written, deleted = [], []
        for key, update in updates:
            if update.value is None:
                deleted.append(key)
            else:
                written.append((*key, update.value, _encode_metadata(update.metadata), *update.version))
        self._connection.executemany("INSERT OR REPLACE INTO state VALUES (?, ?, ?, ?, ?, ?, ?)", written)
        self._connection.executemany("DELETE FROM state WHERE namespace = ? AND collection = ? AND key = ?", deleted)

    # --- private state

    def private_value(self, namespace: str, collection: str, key: str) -> PrivateValue | None:
        """Give a private value that this peer holds."""
        row = self._connection.execute(
            "SELECT value, block, tx FROM private_state WHERE namespace = ? AND collection = ? AND key = ?",
            (namespace, collection, key),
        ).fetchone()
        return None if row is None else PrivateValue(row[0], Version(row[1], row[2]))

    def private_rows(
        self, namespace: str, collection: str, start_key: str, end_key: str
    ) -> Iterator[tuple[str, bytes, Version]]:
        """Give the private keys of a range that this peer holds, in order."""
        query = "SELECT key, value, block, tx FROM private_state WHERE namespace = ? AND collection = ? AND key >= ?"
        parameters = [namespace, collection, start_key]
        if end_key:
            query += " AND key < ?"
            parameters.append(end_key)
        for key, value, block, tx in self._connection.execute(query + " ORDER BY key", parameters):
            yield key, value, Version(block, tx)

    def write_private(  # the columns
        self, namespace: str, collection: str, key: str, key_hash: bytes, value: bytes, version: Version
    ) -> None:
        """Write a private value."""
        self._connection.execute(
            "INSERT OR REPLACE INTO private_state VALUES (?, ?, ?, ?, ?, ?, ?)",
            (namespace, collection, key, key_hash, value, *version),
        )

    def delete_private(self, namespace: str, collection: str, key_hash: bytes) -> None:
        """Delete a private value by the hash of its key, if this peer holds it."""
        self._connection.execute(
            "DELETE FROM private_state WHERE namespace = ? AND collection = ? AND key_hash = ?",
            (namespace, collection, key_hash),
        )

    # --- block-to-live

    def plan_expiry(self, at_block: int, key: StateKey, written: int) -> None:
        """Note that a hashed key written by block `written` expires with another, unless it is written again."""
        self._connection.execute("INSERT INTO expiry VALUES (?, ?, ?, ?, ?)", (at_block, *key, written))

    def expire(self, block_number: int) -> None:
        """Delete what expires with this block: hashes, values, private write sets, and what is missing of them.

        A value may be older than its hash, where what was written later is missing; each goes when its own time is up.
        """
        due = self._connection.execute(
            "SELECT namespace, collection, key_hash, written FROM expiry WHERE block = ?", (block_number,)
        ).fetchall()
        self._connection.executemany(
            "DELETE FROM state WHERE namespace = ? AND collection = ? AND key = ? AND block = ?", due
        )
        self._connection.executemany(
            "DELETE FROM private_state WHERE namespace = ? AND collection = ? AND key_hash = ? AND block = ?", due
        )
        self._connection.execute("DELETE FROM expiry WHERE block <= ?", (block_number,))
        for table in ("private_writes", "private_write_key", "missing_private_writes"):
            self._connection.execute(f"DELETE FROM {table} WHERE expires <= ?", (block_number,))  # noqa: S608  # a constant

    # --- blocks and transactions

    def add_block(self, number: int, header_hash: bytes, tx_ids: Iterable[str], flags: bytes) -> None:
        """Index a block; of several transactions with one id the first counts."""
        self._connection.execute("INSERT INTO block_hash VALUES (?, ?)", (header_hash, number))
        self._connection.executemany(
            "INSERT OR IGNORE INTO tx_id VALUES (?, ?, ?, ?)",
            [(tx_id, number, tx_number, flags[tx_number]) for tx_number, tx_id in enumerate(tx_ids) if tx_id],
        )

    def block_number(self, header_hash: bytes) -> int | None:
        """Find a block by the hash of its header."""
        row = self._connection.execute("SELECT block FROM block_hash WHERE hash = ?", (header_hash,)).fetchone()
        return None if row is None else row[0]

    def transaction_place(self, tx_id: str) -> TransactionPlace | None:
        """Find a transaction."""
        row = self._connection.execute("SELECT block, tx, code FROM tx_id WHERE tx_id = ?", (tx_id,)).fetchone()
        return None if row is None else TransactionPlace(*row)

    # --- history

    def add_history(self, namespace: str, keys: Iterable[str], version: Version) -> None:
        """Note that a valid transaction wrote public keys."""
        self._connection.executemany(
            "INSERT OR IGNORE INTO history VALUES (?, ?, ?, ?)", [(namespace, key.encode(), *version) for key in keys]
        )

    def history(self, namespace: str, key: str, limit: int) -> list[Version]:
        """Give the transactions that wrote a key, newest first, so many of them at most."""
        rows = self._connection.execute(
            "SELECT block, tx FROM history WHERE namespace = ? AND key = ? ORDER BY block DESC, tx DESC LIMIT ?",
            (namespace, key.encode(), limit),
        )
        return [Version(*row) for row in rows]

    # --- private write sets

    def add_private_writes(
        self, block_number: int, writes: PrivateWriteSet, key_hashes: Iterable[bytes], expires: int | None
    ) -> None:
        """Keep private writes, found from now on by the hashes of their keys; `expires` is the block that ends them."""
        self._connection.execute(
            "INSERT OR REPLACE INTO private_writes VALUES (?, ?, ?, ?, ?, ?)", (block_number, *writes, expires)
        )
        tx_number, namespace, collection, _ = writes
        self._connection.executemany(
            "INSERT OR REPLACE INTO private_write_key VALUES (?, ?, ?, ?, ?, ?)",
            [(namespace, collection, key_hash, block_number, tx_number, expires) for key_hash in key_hashes],
        )

    def private_writes(self, block_number: int) -> list[PrivateWriteSet]:
        """Give the private writes of a block that this peer holds."""
        rows = self._connection.execute(
            "SELECT tx, namespace, collection, content FROM private_writes WHERE block = ?", (block_number,)
        )
        return [PrivateWriteSet(*row) for row in rows]

    def private_writes_of(self, block_number: int, tx_number: int, namespace: str, collection: str) -> bytes | None:
        """Give the private writes of one transaction to one collection, if this peer holds them."""
        row = self._connection.execute(
            "SELECT content FROM private_writes WHERE block = ? AND tx = ? AND namespace = ? AND collection = ?",
            (block_number, tx_number, namespace, collection),
        ).fetchone()
        return None if row is None else row[0]

    # --- what is missing of them

    def add_missing(self, block_number: int, missing: MissingPrivateWrites, *, is_member: bool) -> None:
        """Note private writes that were nowhere to be found, or that are none of this peer's business."""
        tx_number, namespace, collection, expires = missing
        self._connection.execute(
            "INSERT OR REPLACE INTO missing_private_writes VALUES (?, ?, ?, ?, ?, ?)",
            (block_number, tx_number, namespace, collection, is_member, expires),
        )

    def remove_missing(self, block_number: int, tx_number: int, namespace: str, collection: str) -> None:
        """Note that private writes are not missing any more."""
        self._connection.execute(
            "DELETE FROM missing_private_writes WHERE block = ? AND tx = ? AND namespace = ? AND collection = ?",
            (block_number, tx_number, namespace, collection),
        )

    def join_collection(self, namespace: str, collection: str) -> None:
        """Make what was none of this peer's business in a collection missing: it is a member now."""
        self._connection.execute(
            "UPDATE missing_private_writes SET is_member = 1 WHERE namespace = ? AND collection = ?",
            (namespace, collection),
        )

    def missing(self, *, is_member: bool) -> list[tuple[int, int, str, str]]:
        """Give what is missing: block, transaction, namespace, collection."""
        return self._connection.execute(
            "SELECT block, tx, namespace, collection FROM missing_private_writes WHERE is_member = ?", (is_member,)
        ).fetchall()

    def missing_blocks(self) -> list[int]:
        """Give the blocks of which something is missing that this peer is to hold, newest first."""
        rows = self._connection.execute(
            "SELECT DISTINCT block FROM missing_private_writes WHERE is_member = 1 ORDER BY block DESC"
        )
        return [block for (block,) in rows]

    def missing_of(self, block_number: int) -> set[tuple[int, str, str]]:
        """Give what is missing of a block that this peer is to hold: transaction, namespace, collection."""
        rows = self._connection.execute(
            "SELECT tx, namespace, collection FROM missing_private_writes WHERE block = ? AND is_member = 1",
            (block_number,),
        )
        return set(rows.fetchall())

    # --- purged keys

    def purge(
        self, namespace: str, collection: str, key_hash: bytes, version: Version, trim: Callable[[bytes], bytes]
    ) -> None:
        """Note that a key was purged, and trim every private write set up to then that holds it."""
        self._connection.execute(
            "INSERT OR REPLACE INTO purge VALUES (?, ?, ?, ?, ?)", (namespace, collection, key_hash, *version)
        )
        place = (namespace, collection, key_hash, *version)
        rows = self._connection.execute(_WRITES_OF_KEY_UP_TO, place).fetchall()
        self._connection.executemany(
            "UPDATE private_writes SET content = ? WHERE block = ? AND tx = ? AND namespace = ? AND collection = ?",
            [(trim(content), *where) for content, *where in rows],
        )
        self._connection.execute(
            "DELETE FROM private_write_key "
            "WHERE namespace = ? AND collection = ? AND key_hash = ? AND (block, tx) <= (?, ?)",
            place,
        )

    def purged_at(self, namespace: str, collection: str, key_hash: bytes) -> Version | None:
        """Give the last transaction that purged a key."""
        row = self._connection.execute(
            "SELECT block, tx FROM purge WHERE namespace = ? AND collection = ? AND key_hash = ?",
            (namespace, collection, key_hash),
        ).fetchone()
        return None if row is None else Version(*row)

    # --- collections by block

    def add_collections(self, namespace: str, block_number: int, content: bytes) -> None:
        """Note the collections of a chaincode as a block set them."""
        self._connection.execute(
            "INSERT OR REPLACE INTO collections VALUES (?, ?, ?)", (namespace, block_number, content)
        )

    def collections_below(self, namespace: str, block_number: int) -> bytes | None:
        """Give the collections (CollectionConfigPackage) in force for a block: those set last before it."""
        row = self._connection.execute(
            "SELECT content FROM collections WHERE namespace = ? AND block < ? ORDER BY block DESC LIMIT 1",
            (namespace, block_number),
        ).fetchone()
        return None if row is None else row[0]

    # --- transient store

    def add_transient(self, tx_id: str, content: bytes, height: int) -> None:
        """Keep endorsed private writes (TxPvtReadWriteSet) until their transaction is committed."""
        self._connection.execute("INSERT OR IGNORE INTO transient VALUES (?, ?, ?)", (tx_id, height, content))

    def transient(self, tx_id: str) -> list[bytes]:
        """Give the endorsed private writes of a transaction."""
        rows = self._connection.execute("SELECT content FROM transient WHERE tx_id = ?", (tx_id,))
        return [content for (content,) in rows]

    def forget_transient(self, tx_ids: Iterable[str], height: int) -> None:
        """Forget what is committed, and what is too old to be."""
        self._connection.executemany("DELETE FROM transient WHERE tx_id = ?", [(tx_id,) for tx_id in tx_ids])
        self._connection.execute("DELETE FROM transient WHERE height < ?", (height - TRANSIENT_BLOCKS,))


def _encode_metadata(metadata: tuple[MetadataEntry, ...]) -> bytes | None:
    if not metadata:
        return None
    message = kv_rwset_pb2.KVMetadataWrite()
    for entry in metadata:
        message.entries.add(name=entry.name, value=entry.value)
    return bytes(message.SerializeToString())


def _decode_metadata(content: bytes | None) -> tuple[MetadataEntry, ...]:
    if content is None:
        return ()
    message = kv_rwset_pb2.KVMetadataWrite.FromString(content)
    return tuple([MetadataEntry(entry.name, entry.value) for entry in message.entries])
