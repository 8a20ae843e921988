"""Merging of several writes of one key in one transaction, by Fabric's flag arithmetic (`tx_ops.go`)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from network.protocol.read_write_set import MetadataEntry
from network.protocol.state_update import KeyUpdate, Operation, merge_operations

ENTRIES = (MetadataEntry("VALIDATION_PARAMETER", b"policy"),)
UPSERT, DELETE = Operation.UPSERT, Operation.DELETE
METADATA, NO_METADATA = Operation.METADATA_UPDATE, Operation.METADATA_DELETE

GONE = KeyUpdate(is_delete=True, value=None, keeps_metadata=False, metadata=())


def put(value: bytes, *, keeps_metadata: bool, metadata: tuple[MetadataEntry, ...] = ()) -> KeyUpdate:
    return KeyUpdate(is_delete=False, value=value, keeps_metadata=keeps_metadata, metadata=metadata)


def retained(metadata: tuple[MetadataEntry, ...] = ()) -> KeyUpdate:
    return KeyUpdate(is_delete=False, value=None, keeps_metadata=False, metadata=metadata)


@pytest.mark.parametrize(
    ("operations", "expected"),
    [
        pytest.param([(UPSERT, b"a")], put(b"a", keeps_metadata=True), id="write"),
        pytest.param([(DELETE, b"")], GONE, id="delete"),
        pytest.param([(METADATA, ENTRIES)], retained(ENTRIES), id="metadata only"),
        pytest.param([(NO_METADATA, ())], retained(), id="metadata removed"),
        pytest.param(
            [(UPSERT, b"a"), (METADATA, ENTRIES)],
            put(b"a", keeps_metadata=False, metadata=ENTRIES),
            id="write, metadata",
        ),
        pytest.param(
            [(UPSERT, b"a"), (NO_METADATA, ())], put(b"a", keeps_metadata=False), id="write, metadata removed"
        ),
        pytest.param([(DELETE, b""), (METADATA, ENTRIES)], GONE, id="delete beats metadata"),
        pytest.param([(UPSERT, b"a"), (DELETE, b"")], GONE, id="write, delete"),
        pytest.param([(DELETE, b""), (UPSERT, b"a")], GONE, id="delete, write: still a delete"),
        pytest.param([(UPSERT, b"a"), (UPSERT, b"b")], retained(), id="two writes: the old value, metadata dropped"),
        pytest.param(
            [(UPSERT, b"a")] * 2 + [(UPSERT, b"c")], put(b"c", keeps_metadata=False), id="three writes: the last"
        ),
        pytest.param([(DELETE, b"")] * 2, retained(), id="two deletes: the key stays"),
        pytest.param([(DELETE, b"")] * 3, GONE, id="three deletes"),
        pytest.param([(UPSERT, b"a")] * 8, GONE, id="eight writes add up to a delete"),
        pytest.param([(UPSERT, b"a")] * 256, put(b"a", keeps_metadata=True), id="256 writes: the flag wraps to zero"),
        pytest.param([(METADATA, ENTRIES)] * 2, retained(ENTRIES), id="metadata twice"),
    ],
)
def test_merges_as_fabric_does(operations: list[tuple[Operation, bytes]], expected: KeyUpdate) -> None:
    assert merge_operations(operations) == expected


@given(st.lists(st.sampled_from([(UPSERT, b"x"), (DELETE, b""), (METADATA, ENTRIES), (NO_METADATA, ())]), min_size=1))
def test_only_the_sum_of_flags_decides(operations: list[tuple[Operation, bytes]]) -> None:
    forward = merge_operations(operations)
    backward = merge_operations(reversed(operations))

    assert forward == backward  # All upserts carry one value here, so order cannot show.
