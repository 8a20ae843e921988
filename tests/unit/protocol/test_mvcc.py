"""What was read must still be so, and what is written does to the state what it does in Fabric."""

from collections.abc import Iterable, Sequence

import pytest

from network.protocol.mvcc import apply_writes, judge_reads
from network.protocol.range_query import record_range_query
from network.protocol.read_write_set import (
    KeyRead,
    MetadataEntry,
    NamespaceSet,
    RangeQuery,
    Version,
    decode_read_write_set,
)
from network.protocol.state import BlockState, StateUpdate, StateValue
from network.protocol.validation_code import MVCC_READ_CONFLICT, PHANTOM_READ_CONFLICT, VALID
from tests.support.judged_channel import CHAINCODE, SetSpec, key_hash, read_write_set, write_set
from tests.support.memory_state import MemoryState

V1, V2, NOW, LATER = Version(1, 0), Version(2, 3), Version(9, 0), Version(9, 1)


def sets(spec: SetSpec) -> tuple[NamespaceSet, ...]:
    return decode_read_write_set(write_set(spec))


def committed(keys: Iterable[tuple[str, Version]], *, collection: str = "") -> MemoryState:
    state = MemoryState()
    for key, version in keys:
        name = key_hash(key) if collection else key.encode()
        state.put((CHAINCODE, collection, name), StateUpdate(b"value", version))
    return state


def write(state: BlockState, spec: SetSpec, version: Version = NOW) -> None:
    apply_writes(sets(spec), version, state)


# --- reads of keys


@pytest.mark.parametrize(
    ("read", "expected"),
    [
        (("a", V1), VALID),
        (("a", V2), MVCC_READ_CONFLICT),
        (("a", Version(1, 1)), MVCC_READ_CONFLICT),
        (("a", None), MVCC_READ_CONFLICT),
        (("b", None), VALID),
        (("b", V1), MVCC_READ_CONFLICT),
        (("b", Version(0, 0)), MVCC_READ_CONFLICT),
    ],
)
def test_read_holds_when_the_version_is_the_same(read: tuple[str, Version | None], expected: int) -> None:
    state = BlockState(committed([("a", V1)]))

    assert judge_reads(sets(SetSpec(reads=[read])), state) == expected


@pytest.mark.parametrize(
    ("read", "expected"),
    [(("a", V1), VALID), (("a", V2), MVCC_READ_CONFLICT), (("a", None), MVCC_READ_CONFLICT), (("b", None), VALID)],
)
def test_private_read_holds_when_the_hashs_version_is_the_same(read: tuple[str, Version | None], expected: int) -> None:
    state = BlockState(committed([("a", V1)], collection="coll"))
    spec = SetSpec(collections={"coll": SetSpec(reads=[read])})

    assert judge_reads(sets(spec), state) == expected


def test_public_and_private_keys_of_one_name_are_apart() -> None:
    state = BlockState(committed([("a", V1)]))

    assert judge_reads(sets(SetSpec(collections={"coll": SetSpec(reads=[("a", None)])})), state) == VALID


@pytest.mark.parametrize(
    "written",
    [
        SetSpec(writes=[("a", b"new")]),
        SetSpec(writes=[("a", b"value")]),
        SetSpec(writes=[("a", None)]),
        SetSpec(metadata=[("a", {"m": b"x"})]),
    ],
    ids=["written", "written alike", "deleted", "metadata"],
)
def test_key_touched_earlier_in_the_block_does_not_hold(written: SetSpec) -> None:
    state = BlockState(committed([("a", V1)]))

    write(state, written)

    assert judge_reads(sets(SetSpec(reads=[("a", V1)])), state) == MVCC_READ_CONFLICT
    assert judge_reads(sets(SetSpec(reads=[("a", NOW)])), state) == MVCC_READ_CONFLICT


def test_absent_key_deleted_earlier_in_the_block_does_not_hold_either() -> None:
    state = BlockState(committed([]))

    write(state, SetSpec(writes=[("a", None)]))

    assert judge_reads(sets(SetSpec(reads=[("a", None)])), state) == MVCC_READ_CONFLICT


def test_private_key_touched_earlier_in_the_block_does_not_hold() -> None:
    state = BlockState(committed([("a", V1)], collection="coll"))
    read = sets(SetSpec(collections={"coll": SetSpec(reads=[("a", V1)])}))

    write(state, SetSpec(writes=[("a", b"public")]))
    assert judge_reads(read, state) == VALID

    write(state, SetSpec(collections={"coll": SetSpec(writes=[("a", b"new")])}))
    assert judge_reads(read, state) == MVCC_READ_CONFLICT


def test_metadata_of_an_absent_key_touches_nothing() -> None:
    state = BlockState(committed([]))

    write(state, SetSpec(metadata=[("a", {"m": b"x"})]))

    assert state.updates == {}
    assert judge_reads(sets(SetSpec(reads=[("a", None)])), state) == VALID


def test_first_thing_that_does_not_hold_decides_the_code() -> None:
    state = BlockState(committed([("a", V1)]))
    phantom = RangeQuery("a", "z", exhausted=True, raw_reads=None, merkle_summary=None)
    stale = ("a", V2)
    hashed = {"coll": SetSpec(reads=[("p", V1)])}

    def judged(*namespaces: tuple[str, SetSpec]) -> int:
        return judge_reads(decode_read_write_set(read_write_set(namespaces)), state)

    assert judged((CHAINCODE, SetSpec(reads=[stale], ranges=[phantom]))) == MVCC_READ_CONFLICT
    assert judged((CHAINCODE, SetSpec(ranges=[phantom], collections=hashed))) == PHANTOM_READ_CONFLICT
    assert judged((CHAINCODE, SetSpec(ranges=[phantom])), ("z", SetSpec(reads=[stale]))) == PHANTOM_READ_CONFLICT
    assert judged(("z", SetSpec(reads=[stale])), (CHAINCODE, SetSpec(ranges=[phantom]))) == MVCC_READ_CONFLICT


# --- ranges

FEW = [(f"k{number}", V1) for number in range(5)]
MANY = [(f"k{number:03}", V1) for number in range(120)]


def recorded(
    keys: Sequence[tuple[str, Version]], *, end: str = "l", exhausted: bool = True
) -> tuple[NamespaceSet, ...]:
    reads = [KeyRead(key, version) for key, version in keys]
    return sets(SetSpec(ranges=[record_range_query("k", end, exhausted=exhausted, reads=reads)]))


CHANGES = {
    "value": SetSpec(writes=[("k1", b"new"), ("k050", b"new")]),
    "new first": SetSpec(writes=[("k", b"new")]),
    "new inside": SetSpec(writes=[("k11", b"new"), ("k0505", b"new")]),
    "new last": SetSpec(writes=[("kz", b"new")]),
    "deleted": SetSpec(writes=[("k1", None), ("k050", None)]),
    "deleted last": SetSpec(writes=[("k4", None), ("k119", None)]),
    "metadata": SetSpec(metadata=[("k1", {"m": b"x"}), ("k050", {"m": b"x"})]),
}


@pytest.mark.parametrize("keys", [FEW, MANY], ids=["raw", "summary"])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_range_does_not_hold_when_anything_in_it_changed(keys: list[tuple[str, Version]], change: SetSpec) -> None:
    query = recorded(keys)
    assert (query[0].range_queries[0].merkle_summary is None) == (keys is FEW)

    in_block = BlockState(committed(keys))
    assert judge_reads(query, in_block) == VALID
    write(in_block, change)
    assert judge_reads(query, in_block) == PHANTOM_READ_CONFLICT

    after = committed(keys)
    for key, update in in_block.updates.items():
        after.put(key, update)
    assert judge_reads(query, BlockState(after)) == PHANTOM_READ_CONFLICT


@pytest.mark.parametrize("keys", [FEW, MANY], ids=["raw", "summary"])
def test_range_holds_when_only_others_changed(keys: list[tuple[str, Version]]) -> None:
    state = BlockState(committed([*keys, ("l", V1)]))

    write(state, SetSpec(writes=[("j", b"new"), ("l", b"new"), ("m", b"new")]))
    write(state, SetSpec(collections={"coll": SetSpec(writes=[("k1", b"new")])}))
    apply_writes(decode_read_write_set(read_write_set([("z", SetSpec(writes=[("k1", b"new")]))])), NOW, state)
    write(state, SetSpec(writes=[("kz", None)]))

    assert judge_reads(recorded(keys), state) == VALID


def test_range_that_found_nothing_holds_while_there_is_nothing() -> None:
    state = BlockState(committed([]))

    assert judge_reads(recorded([]), state) == VALID
    write(state, SetSpec(writes=[("k", b"new")]))
    assert judge_reads(recorded([]), state) == PHANTOM_READ_CONFLICT
    write(state, SetSpec(writes=[("k", None)]), LATER)
    assert judge_reads(recorded([]), state) == VALID


def test_end_key_belongs_to_a_range_that_was_not_read_to_its_end() -> None:
    state = BlockState(committed([*FEW, ("k5", V1)]))

    assert judge_reads(recorded(FEW, end="k4", exhausted=False), state) == VALID
    assert judge_reads(recorded(FEW, end="k4"), state) == PHANTOM_READ_CONFLICT
    assert judge_reads(recorded(FEW, end="k5"), state) == VALID
    write(state, SetSpec(writes=[("k4", b"new")]))
    assert judge_reads(recorded(FEW, end="k4", exhausted=False), state) == PHANTOM_READ_CONFLICT


def test_range_without_end_reaches_the_last_key() -> None:
    state = BlockState(committed([*FEW, ("z", V1)]))

    assert judge_reads(recorded([*FEW, ("z", V1)], end=""), state) == VALID
    write(state, SetSpec(writes=[("zz", b"new")]))
    assert judge_reads(recorded([*FEW, ("z", V1)], end=""), state) == PHANTOM_READ_CONFLICT


def test_range_is_in_the_order_of_bytes() -> None:
    keys = [("k\uffee", V1), ("k\U0001f600", V1)]  # in UTF-16 they stand the other way round
    state = BlockState(committed(keys[:1]))

    write(state, SetSpec(writes=[(keys[1][0], b"new")]))

    assert [read.key for read in state.range(CHAINCODE, "k", "l", with_end_key=False)] == [key for key, _ in keys]


def test_ranges_see_committed_and_new_keys_merged() -> None:
    state = BlockState(committed(FEW))
    write(state, SetSpec(writes=[("k0", None), ("k2", b"new"), ("k25", b"new")]))
    first = list(state.range(CHAINCODE, "k", "l", with_end_key=False))
    write(state, SetSpec(writes=[("k0", b"again"), ("k9", b"new")]), LATER)

    second = list(state.range(CHAINCODE, "k", "k9", with_end_key=True))

    assert first == [KeyRead("k1", V1), KeyRead("k2", NOW), KeyRead("k25", NOW), KeyRead("k3", V1), KeyRead("k4", V1)]
    assert second == [KeyRead("k0", LATER), *first, KeyRead("k9", LATER)]


# --- writes

A = (CHAINCODE, "", b"a")
M, N = (MetadataEntry("m", b"x"),), (MetadataEntry("m", b"y"),)


def after(*specs: SetSpec, metadata: tuple[MetadataEntry, ...] = M, exists: bool = True) -> StateUpdate | None:
    """Give what becomes of the key "a" by transactions one after the other; None: nothing."""
    state = MemoryState()
    if exists:
        state.put(A, StateUpdate(b"value", V1, metadata))
    block = BlockState(state)
    for number, spec in enumerate(specs):
        write(block, spec, Version(9, number))
    return block.updates.get(A)


def test_write_keeps_metadata_and_moves_the_version() -> None:
    assert after(SetSpec(writes=[("a", b"new")])) == StateUpdate(b"new", NOW, M)
    assert after(SetSpec(writes=[("a", b"new")]), exists=False) == StateUpdate(b"new", NOW)


def test_metadata_write_keeps_the_value_and_moves_the_version() -> None:
    assert after(SetSpec(metadata=[("a", {"m": b"y"})])) == StateUpdate(b"value", NOW, N)
    assert after(SetSpec(metadata=[("a", {})])) == StateUpdate(b"value", NOW)


def test_value_and_metadata_may_be_written_at_once() -> None:
    assert after(SetSpec(writes=[("a", b"new")], metadata=[("a", {"m": b"y"})])) == StateUpdate(b"new", NOW, N)


def test_delete_beats_metadata() -> None:
    assert after(SetSpec(writes=[("a", None)], metadata=[("a", {"m": b"y"})])) == StateUpdate(None, NOW)


def test_metadata_written_earlier_in_the_block_is_kept() -> None:
    changes = SetSpec(metadata=[("a", {"m": b"y"})]), SetSpec(writes=[("a", b"new")])

    assert after(*changes) == StateUpdate(b"new", LATER, N)


def test_key_deleted_earlier_in_the_block_has_no_metadata_left() -> None:
    changes = SetSpec(writes=[("a", None)]), SetSpec(writes=[("a", b"new")])

    assert after(*changes) == StateUpdate(b"new", LATER)


def test_metadata_of_a_key_deleted_earlier_in_the_block_changes_nothing() -> None:
    changes = SetSpec(writes=[("a", None)]), SetSpec(metadata=[("a", {"m": b"y"})])

    assert after(*changes) == StateUpdate(None, NOW)


def test_two_writes_of_one_key_in_one_transaction_are_summed_as_in_fabric() -> None:
    assert after(SetSpec(writes=[("a", b"1"), ("a", b"2")])) == StateUpdate(b"value", NOW)
    assert after(SetSpec(writes=[("a", b"1"), ("a", b"2")]), exists=False) is None
    assert after(SetSpec(writes=[("a", b"1"), ("a", None)])) == StateUpdate(None, NOW)


def test_private_write_puts_the_hash() -> None:
    state = BlockState(committed([("a", V1), ("b", V1)], collection="coll"))

    write(state, SetSpec(collections={"coll": SetSpec(writes=[("a", b"new"), ("b", None)], metadata=[("a", {})])}))

    assert state.updates == {
        (CHAINCODE, "coll", key_hash("a")): StateUpdate(key_hash("new"), NOW),
        (CHAINCODE, "coll", key_hash("b")): StateUpdate(None, NOW),
    }


def test_value_now_and_value_before_the_block_are_told_apart() -> None:
    state = BlockState(committed([("a", V1)]))

    write(state, SetSpec(writes=[("a", None)]))

    assert state.value(A) is None
    assert state.committed(A) == StateValue(b"value", V1)
