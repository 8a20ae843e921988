"""What a contract sees of the ledger and does to it during one transaction: reads of committed state, recorded writes.

Nothing is written; the result is the read-write set that the peer endorses, and the private writes behind its hashes.
No write is read back. The state does not change during a simulation (`state_lock`).

Rules: `core/ledger/kvledger/txmgmt/txmgr/{tx_simulator,query_executor,collection_val}.go`,
`core/chaincode/handler.go` and `core/common/privdata/store.go` (who may read and write private data).
"""

from collections.abc import Iterator, Sequence
from hashlib import sha256
from typing import Final, NamedTuple

from fabric_protos.common import policies_pb2

from network.embedded.ledger.peer_channel import PeerChannel
from network.protocol.collection import CollectionConfig, find_collection, implicit_collection_owner, is_member
from network.protocol.commit_hash import StateKey
from network.protocol.endorsement_policy import VALIDATION_PARAMETER
from network.protocol.errors import DecodeError
from network.protocol.identity import Identity
from network.protocol.interest import ChaincodeCall, WrittenKey, interest_of
from network.protocol.lifecycle import field_key, read_definition
from network.protocol.private_data import LIFECYCLE_NAMESPACE
from network.protocol.range_query import RangeReads
from network.protocol.read_write_set import KeyRead, MetadataEntry, RangeQuery, Version
from network.protocol.read_write_set_builder import ReadWriteSetBuilder
from network.protocol.state import StateValue
from network.protocol.wire import parse

TOTAL_QUERY_LIMIT: Final = 100_000
"""Results of one query; more are left out without a word (`core.yaml`, ledger.state.totalQueryLimit)."""

Row = tuple[str, bytes, Version]


class SimulationError(Exception):
    """What was asked is refused; the text is Fabric's."""


class SimulationResult(NamedTuple):
    """`public`: TxReadWriteSet bytes. `private`: TxPvtReadWriteSet bytes, None when nothing private was written."""

    public: bytes
    private: bytes | None


class RangeCursor:
    """The rows of one range, fetched one by one; what was fetched is what is recorded."""

    def __init__(self, rows: Iterator[Row], start_key: str, end_key: str, limit: int = TOTAL_QUERY_LIMIT) -> None:
        self._rows = rows
        self._start_key, self._end_key = start_key, end_key
        self._reads = RangeReads()
        self._left = limit
        self.last_key: str | None = None
        self.is_exhausted = False

    def fetch(self) -> tuple[str, bytes] | None:
        """Give the next key and value; None at the end, and at the limit."""
        if self.is_exhausted or self._left == 0:
            return None
        row = next(self._rows, None)
        if row is None:
            self.is_exhausted = True
            return None
        key, value, version = row
        self._left -= 1
        self.last_key = key
        self._reads.add(KeyRead(key, version))
        return key, value

    def record(self) -> RangeQuery:
        """Say what was read of the range."""
        raw, summary = self._reads.finish()
        end = self._end_key if self.is_exhausted else (self.last_key or "")
        return RangeQuery(self._start_key, end, self.is_exhausted, raw, summary)


class Simulation:
    """One transaction on one channel of one peer. `creator` is whoever signed the proposal."""

    def __init__(self, channel: PeerChannel, tx_id: str, creator: Identity) -> None:
        self.channel = channel
        self.tx_id = tx_id
        self._creator = creator
        self._store = channel.store
        self._builder = ReadWriteSetBuilder()
        self._ranges: list[tuple[str, RangeCursor]] = []
        self._has_written = False
        self._has_paged = False
        self._has_queried_private = False
        self._allowed: dict[tuple[str, str], CollectionConfig] = {}
        self._touched: set[str] = set()
        self._written: set[tuple[str, str, str]] = set()
        self._private_reads: set[tuple[str, str]] = set()

    # --- public state

    def get_state(self, namespace: str, key: str) -> bytes | None:
        """Read a key; None: it does not exist."""
        found = self._read(namespace, key)
        return None if found is None else found.value

    def get_metadata(self, namespace: str, key: str) -> tuple[MetadataEntry, ...]:
        """Read a key's metadata; recorded as a read of the key."""
        found = self._read(namespace, key)
        return () if found is None else found.metadata

    def put_state(self, namespace: str, key: str, value: bytes) -> None:
        """Write a key; the empty value deletes it."""
        self._begin_writing()
        self._builder.write(namespace, key, value)
        self._note_write(namespace, "", key)

    def put_metadata(self, namespace: str, key: str, name: str, value: bytes) -> None:
        """Give a key this one entry of metadata, in place of all it had; raises SimulationError as `check_metadata`."""
        check_metadata(name, value)
        self._begin_writing()
        self._builder.write_metadata(namespace, key, {name: value})
        self._note_write(namespace, "", key)

    def open_range(self, namespace: str, start_key: str, end_key: str) -> RangeCursor:
        """Read the keys from `start_key` up to `end_key`, not included; empty bounds are open."""
        cursor = RangeCursor(self._store.rows(namespace, start_key, end_key), start_key, end_key)
        self._ranges.append((namespace, cursor))
        self._touched.add(namespace)
        return cursor

    def begin_page(self) -> None:
        """Note that pages are read; raises SimulationError when the transaction has written."""
        if self._has_written:
            raise SimulationError(
                f"txid [{self.tx_id}]: unsuppored transaction. Paginated queries are supported only in a read-only "
                "transaction"
            )
        self._has_paged = True

    def open_page(self, namespace: str, start_key: str, end_key: str, page_size: int) -> RangeCursor:
        """Read one page of a range; the transaction may not write then."""
        self.begin_page()
        limit = min(page_size, TOTAL_QUERY_LIMIT) if page_size > 0 else TOTAL_QUERY_LIMIT
        cursor = RangeCursor(self._store.rows(namespace, start_key, end_key), start_key, end_key, limit)
        self._ranges.append((namespace, cursor))
        self._touched.add(namespace)
        return cursor

    def key_after(self, namespace: str, page: RangeCursor, end_key: str) -> str:
        """Give the bookmark behind a page: the next key of the range, empty at its end."""
        if page.is_exhausted or page.last_key is None:
            return ""
        after = page.last_key + "\0"  # the smallest key behind it
        return next((key for key, _, _ in self._store.rows(namespace, after, end_key)), "")

    # --- private data

    def get_private(self, namespace: str, collection: str, key: str) -> bytes | None:
        """Read a private value; raises SimulationError where this peer does not hold the value that the hash names."""
        self._check_access(namespace, collection, "read")
        found = self._store.private_value(namespace, collection, key)
        hashed = self._store.value(_hashed_key(namespace, collection, key))
        mine, theirs = (None if it is None else it.version for it in (found, hashed))
        if mine != theirs:
            raise SimulationError(
                "private data matching public hash version is not available. Public hash version = "
                f"{_version_text(theirs)}, Private data version = {_version_text(mine)}"
            )
        self._touched.add(namespace)
        self._private_reads.add((namespace, collection))
        self._builder.private_read_hash(namespace, collection, key, theirs)
        return None if found is None else found.value

    def get_several_private(self, namespace: str, collection: str, keys: Sequence[str]) -> list[bytes | None]:
        """Read private values as this peer holds them; that their hashes have gone on, validation finds out."""
        self._check_access(namespace, collection, "read")
        self._touched.add(namespace)
        values = []
        for key in keys:
            found = self._store.private_value(namespace, collection, key)
            self._private_reads.add((namespace, collection))
            self._builder.private_read_hash(namespace, collection, key, None if found is None else found.version)
            values.append(None if found is None else found.value)
        return values

    def get_private_hash(self, namespace: str, collection: str, key: str) -> bytes | None:
        """Read the hash of a private value; every peer has it."""
        self._check_known(namespace, collection)
        found = self._store.value(_hashed_key(namespace, collection, key))
        self._touched.add(namespace)
        self._builder.private_read_hash(namespace, collection, key, None if found is None else found.version)
        return None if found is None else found.value

    def get_private_metadata(self, namespace: str, collection: str, key: str) -> tuple[MetadataEntry, ...]:
        """Read the metadata of a private key."""
        self._check_access(namespace, collection, "read")
        found = self._store.value(_hashed_key(namespace, collection, key))
        self._touched.add(namespace)
        self._builder.private_read_hash(namespace, collection, key, None if found is None else found.version)
        return () if found is None else found.metadata

    def put_private(self, namespace: str, collection: str, key: str, value: bytes) -> None:
        """Write a private value; the empty value deletes it."""
        self._begin_private_write(namespace, collection, key)
        self._builder.private_write(namespace, collection, key, value)

    def purge_private(self, namespace: str, collection: str, key: str) -> None:
        """Remove a private value and its history."""
        if "V2_5" not in self.channel.rules.configuration.application_capabilities:
            raise SimulationError(
                "purge private data is not enabled, channel application capability of V2_5 or later is required"
            )
        self._begin_private_write(namespace, collection, key)
        self._builder.purge(namespace, collection, key)

    def put_private_metadata(self, namespace: str, collection: str, key: str, name: str, value: bytes) -> None:
        """Give a private key this one entry of metadata; raises SimulationError as `check_metadata`."""
        check_metadata(name, value)
        self._begin_private_write(namespace, collection, key)
        self._builder.private_write_metadata(namespace, collection, key, {name: value})

    def begin_private_query(self, namespace: str, collection: str) -> None:
        """Note that private data is queried; raises SimulationError when it may not be."""
        self._check_access(namespace, collection, "read")
        if self._has_written:
            raise SimulationError(
                f"txid [{self.tx_id}]: unsuppored transaction. Queries on pvt data is supported only in a read-only "
                "transaction"
            )
        self._has_queried_private = True

    def open_private_range(self, namespace: str, collection: str, start_key: str, end_key: str) -> RangeCursor:
        """Read private keys that this peer holds; nothing of it is recorded, and the transaction may not write."""
        self.begin_private_query(namespace, collection)
        rows = self._store.private_rows(namespace, collection, start_key, end_key)
        return RangeCursor(rows, start_key, end_key)

    # --- results

    def result(self) -> SimulationResult:
        """Give what was read and written; to be called once, at the end."""
        for namespace, cursor in self._ranges:
            self._builder.recorded_range_query(namespace, cursor.record())
        self._ranges = []
        return SimulationResult(self._builder.public_bytes(), self._builder.private_rwset())

    def interest(self) -> tuple[ChaincodeCall, ...]:
        """Say who has to endorse this: the chaincodes, collections and keys that were touched."""
        written = [
            WrittenKey(namespace, collection, self._key_policy(namespace, collection, key))
            for namespace, collection, key in sorted(self._written)
        ]
        return interest_of(sorted(self._touched), written, sorted(self._private_reads))

    def _key_policy(self, namespace: str, collection: str, key: str) -> bytes | None:
        state_key = _hashed_key(namespace, collection, key) if collection else (namespace, "", key.encode())
        found = self._store.value(state_key)
        entries = () if found is None else found.metadata
        return next((entry.value for entry in entries if entry.name == VALIDATION_PARAMETER), None)

    def read_lifecycle(self, key: str) -> bytes | None:
        """Read the public state of `_lifecycle`; recorded, so a change of the definition conflicts."""
        return self.get_state(LIFECYCLE_NAMESPACE, key)

    def read_sequence(self, chaincode: str) -> None:
        """Record that the chaincode was resolved: a transaction conflicts with a change of the definition."""
        self.read_lifecycle(field_key(chaincode, "Sequence"))

    # --- inside

    def _read(self, namespace: str, key: str) -> StateValue | None:
        found = self._store.value((namespace, "", key.encode()))
        self._builder.read(namespace, key, None if found is None else found.version)
        self._touched.add(namespace)
        return found

    def _begin_writing(self) -> None:
        if self._has_paged:
            raise SimulationError(
                f"txid [{self.tx_id}]: unsuppored transaction. Transaction has already performed a paginated query. "
                "Writes are not allowed"
            )
        if self._has_queried_private:
            raise SimulationError(
                f"txid [{self.tx_id}]: unsuppored transaction. Transaction has already performed queries on pvt data. "
                "Writes are not allowed"
            )
        self._has_written = True

    def _begin_private_write(self, namespace: str, collection: str, key: str) -> None:
        self._check_access(namespace, collection, "write")
        self._begin_writing()
        self._note_write(namespace, collection, key)

    def _note_write(self, namespace: str, collection: str, key: str) -> None:
        self._touched.add(namespace)
        self._written.add((namespace, collection, key))

    def _check_access(self, namespace: str, collection: str, kind: str) -> None:
        """Raise SimulationError unless the creator may read or write private data here."""
        config = self._known(namespace, collection)
        if config is None:
            place = f"{self.channel.channel_id}/{namespace}/{collection}"
            raise SimulationError(f"collection {place} could not be found")
        if not (config.member_only_read or config.member_only_write):
            return
        if is_member(config, self._creator, self.channel.rules.msps):
            return
        if config.member_only_read if kind == "read" else config.member_only_write:
            raise SimulationError(
                f"tx creator does not have {kind} access permission on privatedata in chaincodeName:{namespace} "
                f"collectionName: {collection}"
            )

    def _check_known(self, namespace: str, collection: str) -> None:
        if self._known(namespace, collection) is None:
            raise SimulationError(
                f"collection [{collection}] not defined in the collection config for chaincode [{namespace}]"
            )

    def _known(self, namespace: str, collection: str) -> CollectionConfig | None:
        place = (namespace, collection)
        if place not in self._allowed:
            definition = None
            if namespace != LIFECYCLE_NAMESPACE:
                definition = read_definition(namespace, self.read_lifecycle)
            owner = implicit_collection_owner(collection)
            if owner is not None and owner not in self.channel.rules.application_msp_ids:
                return None
            found = find_collection(() if definition is None else definition.collection_configs(), collection)
            if found is None:
                return None
            self._allowed[place] = found
        return self._allowed[place]


def check_metadata(name: str, value: bytes) -> None:
    """Raise SimulationError for a policy of a key that nobody could judge by; real peers refuse it too late."""
    if name != VALIDATION_PARAMETER:
        return
    try:
        parse(policies_pb2.SignaturePolicyEnvelope, value, "SignaturePolicyEnvelope")
    except DecodeError as error:
        raise SimulationError(
            f"{VALIDATION_PARAMETER} is no SignaturePolicyEnvelope ({error}): nobody could judge writes by it"
        ) from error


def _hashed_key(namespace: str, collection: str, key: str) -> StateKey:
    return namespace, collection, sha256(key.encode()).digest()


def _version_text(version: Version | None) -> str:
    return "<nil>" if version is None else f"{{BlockNum: {version.block_number}, TxNum: {version.tx_number}}}"
