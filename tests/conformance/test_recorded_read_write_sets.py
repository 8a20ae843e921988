"""Read-write sets as real peers endorsed them, built again from what is in them: byte for byte."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from hashlib import sha256
from random import Random
from typing import NamedTuple

import pytest
from fabric_protos.ledger.rwset import rwset_pb2
from fabric_protos.ledger.rwset.kvrwset import kv_rwset_pb2

from network.protocol.decode import decode_block
from network.protocol.read_write_set import (
    CollectionSet,
    KeyRead,
    NamespaceSet,
    RangeQuery,
    Version,
    decode_read_write_set,
)
from network.protocol.read_write_set_builder import ReadWriteSetBuilder
from tests.conformance.test_recorded_private_data import ORGANIZATIONS, read_private_sets
from tests.support.envelope import endorsed_results
from tests.support.recorded_chain import CHAINS, load_chain

Call = tuple[str, tuple[object, ...]]


class Simulated(NamedTuple):
    block_number: int
    tx_number: int
    results: bytes


@cache
def simulated(chain: str) -> tuple[Simulated, ...]:
    return tuple(
        Simulated(block.header.number, transaction.tx_number, endorsed_results(envelope))
        for block in map(decode_block, load_chain(chain).blocks)
        for transaction, envelope in zip(block.transactions, block.envelopes, strict=True)
        if transaction.action is not None
    )


def build(calls: Iterable[Call]) -> ReadWriteSetBuilder:
    builder = ReadWriteSetBuilder()
    for name, arguments in calls:
        getattr(builder, name)(*arguments)
    return builder


def public_calls(part: NamespaceSet) -> Iterator[Call]:
    for key, version in part.reads:
        yield "read", (part.namespace, key, version)
    for key, is_delete, value in part.writes:
        yield "write", (part.namespace, key, None if is_delete else value)
    for key, entries in part.metadata_writes:
        yield "write_metadata", (part.namespace, key, dict(entries))


def range_calls(part: NamespaceSet) -> Iterator[Call]:
    for record in part.range_queries:
        yield "recorded_range_query", (part.namespace, record)


def shuffled(calls: Iterable[Call], seed: int) -> list[Call]:
    mixed = list(calls)
    Random(seed).shuffle(mixed)  # noqa: S311 - any order will do
    return mixed


# --- public data


@pytest.mark.parametrize("chain", CHAINS)
def test_public_sets_do_not_depend_on_the_order_of_the_calls(chain: str) -> None:
    for seed, (block_number, tx_number, results) in enumerate(simulated(chain)):
        parts = decode_read_write_set(results)
        calls = [call for part in parts for call in (*public_calls(part), *range_calls(part))]

        built = build(shuffled(calls, seed)).public_bytes()

        assert built == public_part(results), (block_number, tx_number)


def public_part(results: bytes) -> bytes:
    """The recorded set without what the public half cannot show: collections, and namespaces of nothing else."""
    recorded = rwset_pb2.TxReadWriteSet.FromString(results)
    kept = [entry for entry in recorded.ns_rwset if entry.rwset]
    for entry in kept:
        entry.ClearField("collection_hashed_rwset")
    return bytes(rwset_pb2.TxReadWriteSet(data_model=recorded.data_model, ns_rwset=kept).SerializeToString())


@pytest.mark.parametrize("chain", CHAINS[:2])
def test_ranges_are_condensed_as_the_peer_condensed_them(chain: str) -> None:
    """The keys that a range met are known from the blocks before, unless it was read too early to stay valid."""
    kinds: Counter[str] = Counter()
    states = states_before_each_block(chain)
    for block_number, tx_number, results in simulated(chain):
        if flags_of(chain)[block_number][tx_number] != 0:
            continue
        for part in decode_read_write_set(results):
            for record in part.range_queries:
                builder = ReadWriteSetBuilder()

                builder.range_query(
                    part.namespace,
                    record.start_key,
                    record.end_key,
                    exhausted=record.exhausted,
                    reads=met_by(record, states[block_number].get(part.namespace, {})),
                )

                recorded = kv_rwset_pb2.KVRWSet.FromString(raw_sets(results)[part.namespace]).range_queries_info
                (built,) = kv_rwset_pb2.KVRWSet.FromString(
                    raw_sets(builder.public_bytes())[part.namespace]
                ).range_queries_info
                assert built in recorded, (block_number, tx_number)
                kinds[built.WhichOneof("reads_info") or "nothing"] += 1

    assert kinds == {"reads_merkle_hashes": 1}


def flags_of(chain: str) -> list[bytes]:
    return [decode_block(content).flags for content in load_chain(chain).blocks]


def raw_sets(results: bytes) -> dict[str, bytes]:
    return {entry.namespace: entry.rwset for entry in rwset_pb2.TxReadWriteSet.FromString(results).ns_rwset}


def met_by(record: RangeQuery, state: Mapping[str, Version]) -> list[KeyRead]:
    return [
        KeyRead(key, version)
        for key, version in sorted(state.items())
        if record.start_key <= key and (key < record.end_key or (not record.exhausted and key == record.end_key))
    ]


def states_before_each_block(chain: str) -> list[dict[str, dict[str, Version]]]:
    """Versions by namespace and key, replayed with nothing but the peer's own flags."""
    state: dict[str, dict[str, Version]] = {}
    states = []
    for block in map(decode_block, load_chain(chain).blocks):
        states.append({namespace: dict(keys) for namespace, keys in state.items()})
        for transaction, flag in zip(block.transactions, block.flags, strict=True):
            if transaction.action is None or flag != 0:
                continue
            for part in transaction.action.writes:
                keys = state.setdefault(part.namespace, {})
                for key, is_delete, _ in part.writes:
                    keys.pop(key, None)
                    if not is_delete:
                        keys[key] = Version(block.header.number, transaction.tx_number)
                for key, _ in part.metadata_writes:
                    if key in keys:
                        keys[key] = Version(block.header.number, transaction.tx_number)
    return states


# --- private data

REBUILT = {
    "fabric-3.1.5-raft": Counter({"public": 50, "private": 18, "gone": 3}),
    "fabric-3.1.5-bft": Counter({"public": 49, "private": 18, "gone": 3}),
    "fabric-3.1.5-service-week": Counter({"public": 483, "private": 25, "gone": 1}),
}
"""Transactions by chain; gone: a value purged later (one each), or expired in the short-lived collection (the rest)."""


@pytest.mark.parametrize("chain", CHAINS)
def test_whole_sets_are_built_again_from_private_keys_and_values(chain: str) -> None:
    private = PrivateKnowledge.of(chain)
    kinds: Counter[str] = Counter()
    for seed, (block_number, tx_number, results) in enumerate(simulated(chain)):
        entries = decode_read_write_set(results)
        position = block_number, tx_number
        if not all(private.has(position, entry.namespace, part) for entry in entries for part in entry.collections):
            kinds["gone"] += 1
            continue
        calls = [call for entry in entries for call in (*public_calls(entry), *range_calls(entry))]
        calls += [
            call
            for entry in entries
            for part in entry.collections
            for call in private.calls(position, entry.namespace, part)
        ]

        builder = build(shuffled(calls, seed))

        assert builder.public_bytes() == results, position
        kinds["private" if any(entry.collections for entry in entries) else "public"] += 1

    assert kinds == REBUILT[chain]


class PrivateKnowledge(NamedTuple):
    """Private values by transaction, namespace, collection and hash of the key; private keys by their hash."""

    values: dict[tuple[tuple[int, int], str, str], dict[bytes, bytes]]
    keys: dict[bytes, str]

    @classmethod
    def of(cls, chain: str) -> "PrivateKnowledge":
        """Collect what some organisation's peer still held at the end, and the keys it was asked for then."""
        asked = {name.split("/", 2)[2] for name in load_chain(chain).expected["private_state_as_each_peer_answers"]}
        known = cls({}, {hash_of(key): key for key in asked})
        for organization in ORGANIZATIONS:
            for block_number, sets in read_private_sets(chain, organization).items():
                for tx_number, content in sets.items():
                    known._add((block_number, tx_number), content)
        return known

    def _add(self, position: tuple[int, int], content: bytes) -> None:
        for entry in rwset_pb2.TxPvtReadWriteSet.FromString(content).ns_pvt_rwset:
            for part in entry.collection_pvt_rwset:
                values = self.values.setdefault((position, entry.namespace, part.collection_name), {})
                for write in kv_rwset_pb2.KVRWSet.FromString(part.rwset).writes:
                    self.keys[hash_of(write.key)] = write.key
                    values[hash_of(write.key)] = write.value

    def has(self, position: tuple[int, int], namespace: str, part: CollectionSet) -> bool:
        values = self.values.get((position, namespace, part.collection), {})
        return all(read.key_hash in self.keys for read in part.reads) and all(
            write.key_hash in self.keys if write.is_purge else write.key_hash in values for write in part.writes
        )

    def calls(self, position: tuple[int, int], namespace: str, part: CollectionSet) -> Iterator[Call]:
        collection = part.collection
        for key_hash, version in part.reads:
            yield "private_read_hash", (namespace, collection, self.keys[key_hash], version)
        for write in part.writes:
            key = self.keys[write.key_hash]
            if write.is_purge:
                yield "purge", (namespace, collection, key)
            else:
                value = self.values[position, namespace, collection][write.key_hash]
                yield "private_write", (namespace, collection, key, value)


def hash_of(key: str) -> bytes:
    return sha256(key.encode()).digest()


@pytest.mark.parametrize("chain", CHAINS)
def test_a_private_set_is_written_as_a_peer_hands_it_over(chain: str) -> None:
    """Sets of which a peer dropped nothing: theirs is the hash in the chain."""
    compared = 0
    hashes = {
        (block_number, tx_number, entry.namespace, part.collection): part.private_set_hash
        for block_number, tx_number, results in simulated(chain)
        for entry in decode_read_write_set(results)
        for part in entry.collections
    }
    for block_number, sets in read_private_sets(chain, "Customer").items():
        for tx_number, content in sets.items():
            builder = ReadWriteSetBuilder()
            whole = True
            for entry in rwset_pb2.TxPvtReadWriteSet.FromString(content).ns_pvt_rwset:
                for part in entry.collection_pvt_rwset:
                    name = block_number, tx_number, entry.namespace, part.collection_name
                    whole &= sha256(part.rwset).digest() == hashes[name]
                    for write in reversed(kv_rwset_pb2.KVRWSet.FromString(part.rwset).writes):
                        builder.private_write(entry.namespace, part.collection_name, write.key, write.value)
            if whole:
                assert builder.private_rwset() == content, (block_number, tx_number)
                compared += 1

    assert compared > 0
