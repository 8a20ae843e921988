"""Which envelopes go into a block together, by count and size."""

import pytest

from network.embedded.ledger.block_cutter import BatchLimits, BlockCutter

LIMITS = BatchLimits(max_messages=3, preferred_max_bytes=100, absolute_max_bytes=1000, timeout_seconds=2)


def fed(*sizes: int) -> tuple[list[list[list[bytes]]], BlockCutter]:
    """Add envelopes of these sizes, named by their position; give what each of them completed."""
    cutter = BlockCutter()
    return [cutter.add(b"%d" % number, size, LIMITS) for number, size in enumerate(sizes)], cutter


@pytest.mark.parametrize(
    ("sizes", "batches", "waiting"),
    [
        ((1, 1), [[], []], [b"0", b"1"]),
        ((1, 1, 1), [[], [], [[b"0", b"1", b"2"]]], []),
        ((50, 50), [[], []], [b"0", b"1"]),
        ((50, 51), [[], [[b"0"]]], [b"1"]),
        ((100,), [[]], [b"0"]),
        ((101,), [[[b"0"]]], []),
        ((1, 101), [[], [[b"0"], [b"1"]]], []),
        ((101, 1), [[[b"0"]], []], [b"1"]),
        ((60, 60, 40), [[], [[b"0"]], []], [b"1", b"2"]),
        ((1, 1, 99, 1, 1), [[], [], [[b"0", b"1"]], [], [[b"2", b"3"]]], [b"4"]),
    ],
    ids=[
        "below every limit",
        "by count",
        "just the preferred size",
        "above the preferred size",
        "one of the preferred size",
        "a large one alone",
        "a large one after others",
        "others after a large one",
        "sizes count from the last cut",
        "counts begin again with a cut",
    ],
)
def test_cuts_by_count_and_size(sizes: tuple[int, ...], batches: list[list[list[bytes]]], waiting: list[bytes]) -> None:
    found, cutter = fed(*sizes)

    assert found == batches
    assert cutter.has_pending == bool(waiting)
    assert cutter.cut() == ([waiting] if waiting else [])
    assert not cutter.has_pending
    assert cutter.cut() == []


def test_one_message_a_block() -> None:
    limits = LIMITS._replace(max_messages=1)
    cutter = BlockCutter()

    assert [cutter.add(b"%d" % number, 60, limits) for number in range(2)] == [[[b"0"]], [[b"1"]]]
