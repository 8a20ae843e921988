"""Progress is shown when work is long: a bar on a terminal, a line now and then elsewhere, nothing at first."""

import io
from collections.abc import Iterator

import pytest
from rich.console import Console

from kvr_sync.engine import Progress
from kvr_sync.progress import LINE_SECONDS, QUIET_SECONDS, ProgressDisplay


class WorkError(Exception):
    """Stands for whatever ends a run."""


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def screen() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def display(clock: Clock, screen: io.StringIO) -> Iterator[ProgressDisplay]:
    """Give a display that writes to no terminal."""
    with ProgressDisplay("replay week.zst", clock=clock, console=Console(file=screen, width=200)) as opened:
        yield opened


def on_a_terminal(label: str, clock: Clock, screen: io.StringIO) -> ProgressDisplay:
    console = Console(file=screen, width=200, force_terminal=True, color_system=None)
    return ProgressDisplay(label, clock=clock, console=console)


def test_short_work_shows_nothing(display: ProgressDisplay, clock: Clock, screen: io.StringIO) -> None:
    for _ in range(10):
        clock.now += QUIET_SECONDS / 11
        display.update(Progress(10, 100, 0.5))

    assert screen.getvalue() == ""


def test_short_work_shows_nothing_on_a_terminal_either(clock: Clock, screen: io.StringIO) -> None:
    with on_a_terminal("replay", clock, screen) as display:
        clock.now += QUIET_SECONDS - 0.1
        display.update(Progress(10, 100, 0.5))

    assert screen.getvalue() == ""


def test_long_work_shows_a_line_now_and_then(display: ProgressDisplay, clock: Clock, screen: io.StringIO) -> None:
    for tenths in range(1, 101):  # ten seconds
        clock.now = 1000.0 + tenths / 10
        display.update(Progress(tenths * 10, tenths * 200, tenths / 200))

    lines = screen.getvalue().splitlines()
    assert len(lines) == int(10 / LINE_SECONDS)
    assert lines[0] == "replay week.zst: 500 blocks, 10,000 transactions, 2,000/s, 25%, about 15 s left"
    assert lines[1] == "replay week.zst: 1,000 blocks, 20,000 transactions, 2,000/s, 50%, about 10 s left"


@pytest.mark.parametrize("fraction", [None, 0.0])
def test_nothing_is_said_of_an_end_that_cannot_be_known(
    fraction: float | None, display: ProgressDisplay, clock: Clock, screen: io.StringIO
) -> None:
    clock.now += LINE_SECONDS

    display.update(Progress(5, 50, fraction))

    assert screen.getvalue() == "replay week.zst: 5 blocks, 50 transactions, 10/s\n"


def test_long_work_shows_a_bar_on_a_terminal(clock: Clock, screen: io.StringIO) -> None:
    with on_a_terminal("replay week.zst", clock, screen) as display:
        clock.now += 4
        display.update(Progress(100, 2000, 0.25))
        display.update(Progress(200, 4000, 0.5))

    assert "replay week.zst" in screen.getvalue()
    assert "200 blocks, 4,000 transactions, 1,000/s" in screen.getvalue()
    assert "left" in screen.getvalue()


def test_the_bar_is_taken_down_when_the_work_fails(clock: Clock, screen: io.StringIO) -> None:
    display = on_a_terminal("replay", clock, screen)

    def fail() -> None:
        with display:
            clock.now += 4
            display.update(Progress(100, 2000, None))
            raise WorkError

    with pytest.raises(WorkError):
        fail()

    assert screen.getvalue().endswith("\x1b[?25h")  # the cursor is there again


@pytest.mark.parametrize("label", ["replay [/bold].zst", "replay [red]week.zst", "replay :smile:.zst"])
def test_a_file_name_is_shown_as_it_is(label: str, clock: Clock, screen: io.StringIO) -> None:
    with on_a_terminal(label, clock, screen) as display:
        clock.now += 4
        display.update(Progress(1, 1, 0.5))

    assert label in screen.getvalue()
