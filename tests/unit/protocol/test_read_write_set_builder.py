"""The builder of read-write sets; what real peers wrote is compared in tests/conformance."""

from hashlib import sha256

import pytest
from fabric_protos.ledger.rwset import rwset_pb2
from fabric_protos.ledger.rwset.kvrwset import kv_rwset_pb2

from network.protocol.private_read_write_set import decode_private_writes
from network.protocol.range_query import MAX_DEGREE, RangeReads
from network.protocol.read_write_set import (
    HashedMetadataWrite,
    HashedRead,
    HashedWrite,
    KeyRead,
    KeyWrite,
    MetadataEntry,
    MetadataWrite,
    NamespaceSet,
    RangeQuery,
    Version,
    decode_read_write_set,
)
from network.protocol.read_write_set_builder import ReadWriteSetBuilder

EARLY = Version(3, 0)
LATE = Version(7, 2)


@pytest.fixture
def builder() -> ReadWriteSetBuilder:
    return ReadWriteSetBuilder()


def only_namespace(builder: ReadWriteSetBuilder) -> NamespaceSet:
    (found,) = decode_read_write_set(builder.public_bytes())
    return found


def hash_of(text: str | bytes) -> bytes:
    return sha256(text.encode() if isinstance(text, str) else text).digest()


def private_set(builder: ReadWriteSetBuilder, namespace: str, collection: str) -> kv_rwset_pb2.KVRWSet:
    return kv_rwset_pb2.KVRWSet.FromString(builder.private_bytes_by_collection()[namespace, collection])


def test_nothing_recorded_is_no_bytes(builder: ReadWriteSetBuilder) -> None:
    assert builder.public_bytes() == b""
    assert builder.private_bytes_by_collection() == {}
    assert builder.private_rwset() is None


def test_keys_and_namespaces_stand_in_the_order_of_their_text(builder: ReadWriteSetBuilder) -> None:
    for namespace in ("ext", "_lifecycle"):
        for key in ("é", "b", "\x00a", "\U00010000", "\uffff"):
            builder.read(namespace, key, EARLY)
            builder.write(namespace, key, b"value")
            builder.write_metadata(namespace, key, {})

    found = decode_read_write_set(builder.public_bytes())

    in_order = ["\x00a", "b", "é", "\uffff", "\U00010000"]
    assert [part.namespace for part in found] == ["_lifecycle", "ext"]
    for part in found:
        assert [read.key for read in part.reads] == in_order
        assert [write.key for write in part.writes] == in_order
        assert [write.key for write in part.metadata_writes] == in_order


def test_the_first_read_and_the_last_write_of_a_key_count(builder: ReadWriteSetBuilder) -> None:
    builder.read("ext", "key", EARLY)
    builder.read("ext", "key", LATE)
    builder.write("ext", "key", b"first")
    builder.write_metadata("ext", "key", {"A": b"1"})
    builder.write("ext", "key", b"last")
    builder.write_metadata("ext", "key", {"B": b"2"})

    found = only_namespace(builder)

    assert found.reads == (KeyRead("key", EARLY),)
    assert found.writes == (KeyWrite("key", is_delete=False, value=b"last"),)
    assert found.metadata_writes == (MetadataWrite("key", (MetadataEntry("B", b"2"),)),)


def test_an_absent_key_and_a_key_of_the_first_position_differ(builder: ReadWriteSetBuilder) -> None:
    builder.read("ext", "absent", None)
    builder.read("ext", "first", Version(0, 0))
    builder.private_read_hash("ext", "deals", "absent", None)
    builder.private_read_hash("ext", "deals", "first", Version(0, 0))

    found = only_namespace(builder)

    assert found.reads == (KeyRead("absent", None), KeyRead("first", Version(0, 0)))
    assert found.collections[0].reads == (
        HashedRead(hash_of("absent"), None),
        HashedRead(hash_of("first"), Version(0, 0)),
    )


@pytest.mark.parametrize("value", [None, b""])
def test_none_and_the_empty_value_delete(builder: ReadWriteSetBuilder, value: bytes | None) -> None:
    builder.write("ext", "key", b"value")
    builder.write("ext", "key", value)
    builder.private_write("ext", "deals", "key", b"value")
    builder.private_write("ext", "deals", "key", value)

    (entry,) = rwset_pb2.TxReadWriteSet.FromString(builder.public_bytes()).ns_rwset
    (part,) = entry.collection_hashed_rwset
    assert list(kv_rwset_pb2.KVRWSet.FromString(entry.rwset).writes) == [
        kv_rwset_pb2.KVWrite(key="key", is_delete=True)
    ]
    assert list(kv_rwset_pb2.HashedRWSet.FromString(part.hashed_rwset).hashed_writes) == [
        kv_rwset_pb2.KVWriteHash(key_hash=hash_of("key"), is_delete=True)
    ]
    assert list(private_set(builder, "ext", "deals").writes) == [kv_rwset_pb2.KVWrite(key="key", is_delete=True)]


def test_metadata_entries_stand_in_the_order_of_their_names(builder: ReadWriteSetBuilder) -> None:
    builder.write_metadata("ext", "key", {"VALIDATION_PARAMETER_V2": b"2", "VALIDATION_PARAMETER": b"1"})
    builder.private_write_metadata("ext", "deals", "key", {"b": b"2", "a": b"1"})

    found = only_namespace(builder)

    assert [entry.name for entry in found.metadata_writes[0].entries] == [
        "VALIDATION_PARAMETER",
        "VALIDATION_PARAMETER_V2",
    ]
    assert found.collections[0].metadata_writes == (
        HashedMetadataWrite(hash_of("key"), (MetadataEntry("a", b"1"), MetadataEntry("b", b"2"))),
    )


def test_later_changes_of_the_given_entries_change_nothing(builder: ReadWriteSetBuilder) -> None:
    entries = {"a": b"1"}
    builder.write_metadata("ext", "key", entries)
    builder.private_write_metadata("ext", "deals", "key", entries)

    entries["a"] = b"2"

    found = only_namespace(builder)
    assert found.metadata_writes[0].entries == (MetadataEntry("a", b"1"),)
    assert found.collections[0].metadata_writes[0].entries == (MetadataEntry("a", b"1"),)


# --- ranges


def reads(count: int) -> list[KeyRead]:
    return [KeyRead(f"key{number:04}", Version(1, number)) for number in range(count)]


def test_a_range_of_few_results_is_recorded_as_it_is(builder: ReadWriteSetBuilder) -> None:
    builder.range_query("ext", "a", "z", exhausted=True, reads=reads(MAX_DEGREE))

    assert only_namespace(builder).range_queries == (RangeQuery("a", "z", True, tuple(reads(MAX_DEGREE)), None),)


def test_a_range_of_many_results_is_recorded_as_a_summary(builder: ReadWriteSetBuilder) -> None:
    builder.range_query("ext", "a", "key0050", exhausted=False, reads=reads(MAX_DEGREE + 1))

    (record,) = only_namespace(builder).range_queries

    message = kv_rwset_pb2.QueryReads()
    for key, version in reads(MAX_DEGREE + 1):
        message.kv_reads.add(key=key).version.MergeFrom(
            kv_rwset_pb2.Version(block_num=version.block_number, tx_num=version.tx_number) if version else None
        )
    leaf = hash_of(message.SerializeToString())
    assert record == RangeQuery("a", "key0050", False, None, (MAX_DEGREE, 1, (leaf,)))


def test_a_range_condensed_on_the_way_is_recorded_the_same(builder: ReadWriteSetBuilder) -> None:
    results = RangeReads()
    for read in reads(3 * MAX_DEGREE):
        results.add(read)
    other = ReadWriteSetBuilder()

    builder.recorded_range_query("ext", RangeQuery("a", "z", True, *results.finish()))
    other.range_query("ext", "a", "z", exhausted=True, reads=reads(3 * MAX_DEGREE))

    assert builder.public_bytes() == other.public_bytes()


def test_a_range_without_results_names_none(builder: ReadWriteSetBuilder) -> None:
    builder.range_query("ext", "a", "z", exhausted=True, reads=[])

    (entry,) = rwset_pb2.TxReadWriteSet.FromString(builder.public_bytes()).ns_rwset
    (record,) = kv_rwset_pb2.KVRWSet.FromString(entry.rwset).range_queries_info
    assert record.WhichOneof("reads_info") is None


def test_ranges_keep_their_order_and_the_first_of_the_same_bounds(builder: ReadWriteSetBuilder) -> None:
    builder.range_query("ext", "m", "z", exhausted=True, reads=reads(1))
    builder.range_query("ext", "a", "c", exhausted=True, reads=[])
    builder.range_query("ext", "m", "z", exhausted=True, reads=reads(2))
    builder.range_query("ext", "m", "z", exhausted=False, reads=reads(2))

    found = only_namespace(builder).range_queries

    assert [(record.start_key, record.exhausted, len(record.raw_reads or ())) for record in found] == [
        ("m", True, 1),
        ("a", True, 0),
        ("m", False, 2),
    ]


# --- private data


def test_hashes_stand_in_the_order_of_the_keys_behind_them(builder: ReadWriteSetBuilder) -> None:
    keys = [f"key{number}" for number in range(20)]
    assert sorted(keys, key=hash_of) != sorted(keys)
    for key in reversed(keys):
        builder.private_read_hash("ext", "deals", key, EARLY)
        builder.private_write("ext", "deals", key, b"value")
        builder.private_write_metadata("ext", "deals", key, {})

    (part,) = only_namespace(builder).collections

    in_order = [hash_of(key) for key in sorted(keys)]
    assert [read.key_hash for read in part.reads] == in_order
    assert [write.key_hash for write in part.writes] == in_order
    assert [write.key_hash for write in part.metadata_writes] == in_order
    assert [write.key for write in private_set(builder, "ext", "deals").writes] == sorted(keys)
    assert [write.key for write in private_set(builder, "ext", "deals").metadata_writes] == sorted(keys)


def test_a_private_write_shows_its_hashes_only(builder: ReadWriteSetBuilder) -> None:
    builder.private_write("ext", "deals", "secret key", b"secret value")

    (part,) = only_namespace(builder).collections

    assert part.writes == (HashedWrite(hash_of("secret key"), False, hash_of("secret value"), False),)
    assert part.private_set_hash == hash_of(builder.private_bytes_by_collection()["ext", "deals"])
    assert b"secret" not in builder.public_bytes()


def test_the_first_private_read_and_the_last_private_write_of_a_key_count(builder: ReadWriteSetBuilder) -> None:
    builder.private_read_hash("ext", "deals", "key", EARLY)
    builder.private_read_hash("ext", "deals", "key", LATE)
    builder.private_write("ext", "deals", "key", b"first")
    builder.private_write("ext", "deals", "key", b"last")
    builder.private_write_metadata("ext", "deals", "key", {"A": b"1"})
    builder.private_write_metadata("ext", "deals", "key", {})

    (part,) = only_namespace(builder).collections

    assert part.reads == (HashedRead(hash_of("key"), EARLY),)
    assert part.writes == (HashedWrite(hash_of("key"), False, hash_of("last"), False),)
    assert part.metadata_writes == (HashedMetadataWrite(hash_of("key"), ()),)


def test_a_purge_is_a_marked_delete_and_bare_in_the_private_set(builder: ReadWriteSetBuilder) -> None:
    builder.private_write("ext", "deals", "gone", b"value")
    builder.purge("ext", "deals", "gone")
    builder.purge("ext", "deals", "kept")
    builder.private_write("ext", "deals", "kept", b"value")

    (part,) = only_namespace(builder).collections

    assert part.writes == (
        HashedWrite(hash_of("gone"), True, b"", is_purge=True),
        HashedWrite(hash_of("kept"), False, hash_of("value"), is_purge=False),
    )
    assert list(private_set(builder, "ext", "deals").writes) == [
        kv_rwset_pb2.KVWrite(key="gone", is_delete=True),
        kv_rwset_pb2.KVWrite(key="kept", value=b"value"),
    ]


def test_private_metadata_leaves_the_bare_key_in_the_private_set(builder: ReadWriteSetBuilder) -> None:
    builder.private_write_metadata("ext", "deals", "key", {"VALIDATION_PARAMETER": b"policy"})

    (part,) = only_namespace(builder).collections

    assert part.private_set_hash == hash_of(builder.private_bytes_by_collection()["ext", "deals"])
    assert private_set(builder, "ext", "deals") == kv_rwset_pb2.KVRWSet(
        metadata_writes=[kv_rwset_pb2.KVMetadataWrite(key="key")]
    )


def test_a_collection_that_was_only_read_has_no_private_set(builder: ReadWriteSetBuilder) -> None:
    builder.private_read_hash("ext", "deals", "key", EARLY)

    (part,) = only_namespace(builder).collections

    assert part.private_set_hash == b""
    assert builder.private_bytes_by_collection() == {}
    assert builder.private_rwset() is None


def test_private_sets_are_handed_over_by_namespace_and_collection(builder: ReadWriteSetBuilder) -> None:
    builder.private_write("other", "deals", "key", b"3")
    builder.private_write("ext", "offers", "key", b"2")
    builder.private_write("ext", "deals", "key", b"1")

    content = builder.private_rwset()

    assert content is not None
    assert [(part.namespace, part.collection, part.writes[0].value) for part in decode_private_writes(content)] == [
        ("ext", "deals", b"1"),
        ("ext", "offers", b"2"),
        ("other", "deals", b"3"),
    ]
    assert [entry.namespace for entry in rwset_pb2.TxPvtReadWriteSet.FromString(content).ns_pvt_rwset] == [
        "ext",
        "other",
    ]
    assert [part.collection for part in decode_read_write_set(builder.public_bytes())[0].collections] == [
        "deals",
        "offers",
    ]
