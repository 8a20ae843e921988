"""Progress of long work, on stderr, from the third second on: a bar on a terminal, a line now and then elsewhere."""

import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from kvr_sync.engine import Progress as RunProgress

QUIET_SECONDS = 2.0
"""Work that is done by then shows nothing."""
LINE_SECONDS = 5.0
"""Pause between two lines where there is no terminal."""
_STEPS = 1_000


class ProgressDisplay:
    """Shows blocks, transactions, rate and remaining time of a run; give `update` to the engine."""

    def __init__(
        self, label: str, *, clock: Callable[[], float] = time.monotonic, console: Console | None = None
    ) -> None:
        self._label = label
        self._clock = clock
        self._started = clock()
        self._last_line = self._started
        self._console = console or Console(stderr=True)
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        """Begin; nothing is shown yet."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Leave the terminal as it was."""
        if self._bar is not None:
            self._bar.stop()

    def update(self, progress: RunProgress) -> None:
        """Take a report; shows it when the work has become long."""
        counted = f"{progress.blocks:,} blocks, {progress.transactions:,} transactions"
        rate = progress.transactions / max(self._clock() - self._started, QUIET_SECONDS)
        self.tell(f"{counted}, {rate:,.0f}/s", progress.fraction)

    def share(self, done: int, total: int) -> None:
        """Take a report of work whose end is known: so many writes of so many are read."""
        rate = done / max(self._clock() - self._started, QUIET_SECONDS)
        self.tell(f"{done:,} of {total:,} writes, {rate:,.0f}/s", done / total if total else None)

    def tell(self, facts: str, fraction: float | None) -> None:
        """Take a report in words, and how much of the work is done (None: unknown)."""
        now = self._clock()
        if now - self._started < QUIET_SECONDS:
            return
        if self._console.is_terminal:
            self._show_bar(facts, fraction)
        elif now - self._last_line >= LINE_SECONDS:
            self._last_line = now
            self._console.file.write(f"{self._label}: {facts}{self._remaining(fraction, now)}\n")

    def count(self, done: int) -> None:
        """Take a report of work that is counted in one number, and whose end nobody knows."""
        now = self._clock()
        if now - self._last_line >= LINE_SECONDS:
            self._last_line = now
            self._console.file.write(f"{self._label}: {done:,}, {done / (now - self._started):,.0f}/s\n")

    def _show_bar(self, facts: str, fraction: float | None) -> None:
        if self._bar is None:
            self._bar = Progress(
                TextColumn("{task.description}", markup=False),  # file names may look like markup
                BarColumn(),
                TextColumn("{task.fields[facts]}", markup=False),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                console=self._console,
            )
            self._bar.start()
            total = _STEPS if fraction is not None else None
            self._task = self._bar.add_task(self._label, total=total, facts=facts)
        if self._task is not None:
            self._bar.update(self._task, completed=int((fraction or 0) * _STEPS), facts=facts)

    def _remaining(self, fraction: float | None, now: float) -> str:
        if not fraction:
            return ""
        elapsed = now - self._started
        return f", {fraction:.0%}, about {elapsed / fraction - elapsed:,.0f} s left"
