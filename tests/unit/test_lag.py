"""How far the tables are behind, from heights that peers say and from blocks applied."""

from datetime import UTC, datetime, timedelta

from kvr_sync.lag import MAX_SIGHTINGS, SeenHeights

START = datetime(2026, 1, 1, tzinfo=UTC)


class Clock:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now

    def forward(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


def test_nothing_is_known_before_a_peer_was_seen() -> None:
    heights = SeenHeights(Clock())
    heights.applied(7)

    assert (heights.height, heights.lag_blocks(), heights.lag_seconds()) == (None, None, 0.0)
    assert heights.peers() == []


def test_lag_counts_from_when_the_oldest_missing_block_was_first_seen() -> None:
    clock = Clock()
    heights = SeenHeights(clock)
    heights.saw("a", 10)
    clock.forward(5)
    heights.saw("a", 12)
    clock.forward(3)

    assert (heights.lag_blocks(), heights.lag_seconds()) == (12, 8.0)
    heights.applied(10)
    assert (heights.lag_blocks(), heights.lag_seconds()) == (2, 3.0)
    heights.applied(12)
    assert (heights.lag_blocks(), heights.lag_seconds(), heights.behind_since()) == (0, 0.0, None)


def test_a_block_that_is_seen_again_is_no_younger_for_that() -> None:
    clock = Clock()
    heights = SeenHeights(clock)
    for _ in range(4):
        heights.saw("a", 1)
        clock.forward(1)

    assert heights.lag_seconds() == 4.0


def test_the_greatest_height_of_all_peers_counts() -> None:
    heights = SeenHeights(Clock())
    heights.saw("a", 5)
    heights.saw("b", 9)
    heights.applied(5)

    assert (heights.height, heights.lag_blocks()) == (9, 4)
    assert [(sight.peer, sight.height, sight.behind_since) for sight in heights.peers()] == [
        ("a", 5, None),
        ("b", 9, START),
    ]


def test_a_peer_that_was_set_back_takes_back_what_it_said() -> None:
    clock = Clock()
    heights = SeenHeights(clock)
    heights.applied(5)
    heights.saw("a", 20)
    clock.forward(10)

    heights.saw("a", 7, is_newest=True)

    assert (heights.height, heights.lag_blocks(), heights.lag_seconds()) == (7, 2, 10.0)
    heights.saw("a", 5, is_newest=True)
    assert (heights.lag_blocks(), heights.lag_seconds()) == (0, 0.0)


def test_a_block_that_came_does_not_lower_what_the_peer_said_it_has() -> None:
    heights = SeenHeights(Clock())
    heights.saw("a", 20, is_newest=True)
    heights.saw("a", 3)

    assert heights.height == 20


def test_a_clock_that_is_set_back_gives_no_negative_lag() -> None:
    clock = Clock()
    heights = SeenHeights(clock)
    heights.saw("a", 1)
    clock.forward(-3600)

    assert heights.lag_seconds() == 0.0


def test_what_an_earlier_process_saw_counts_from_then() -> None:
    heights = SeenHeights(Clock())
    heights.restore(8, START - timedelta(seconds=30))
    heights.applied(5)
    heights.saw("a", 9)

    assert heights.lag_seconds() == 30.0
    heights.applied(8)
    assert heights.lag_seconds() == 0.0
    assert heights.behind_since() == START


def test_what_is_remembered_is_bounded_and_a_lag_is_rather_too_long_than_too_short() -> None:
    clock = Clock()
    heights = SeenHeights(clock)
    for height in range(1, MAX_SIGHTINGS + 101):
        heights.saw("a", height)
        clock.forward(1)

    heights.applied(MAX_SIGHTINGS + 50)

    assert heights.lag_seconds() == 101.0


def test_tables_that_were_brought_back_have_to_catch_up_again() -> None:
    heights = SeenHeights(Clock())
    heights.applied(5)
    heights.saw("a", 6, is_newest=True)
    heights.applied(6)
    heights.applied(20)
    assert heights.has_caught_up()

    heights.applied(7)

    assert (heights.start_height, heights.has_caught_up()) == (20, False)
    heights.applied(19)
    assert not heights.has_caught_up()
    heights.applied(20)
    assert heights.has_caught_up()
