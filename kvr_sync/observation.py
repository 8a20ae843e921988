"""What the line tells of itself while it works: to metrics, to health checks, to the table of peers."""

import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import ParamSpec, TypeVar

from kvr_sync.errors import KvrSyncError
from kvr_sync.lag import SeenHeights
from kvr_sync.store.ledger_sink import utc_now

STAGES = ("decode", "verify", "replay", "map", "commit")
"""Parts of the line that are timed, where the engine itself does them: worker processes are not."""

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")


class Observer:
    """Keeps the heights seen and forgets the rest; whoever needs more overrides. Any thread may call any method.

    No call raises, blocks or takes values of the ledger: numbers, codes and addresses of peers are all there is.
    """

    def __init__(self, *, clock: Callable[[], datetime] = utc_now) -> None:
        self.heights = SeenHeights(clock)

    def tick(self) -> None:
        """The loop goes round; also when there is nothing to do."""

    def stage_done(self, stage: str, seconds: float) -> None:
        """A part of the line, one of STAGES, took so long once."""

    def run_began(self, height: int) -> None:
        """A run begins on tables that hold the blocks below `height`."""
        self.heights.applied(height)

    def committed(self, block_number: int, blocks: int, quarantined: Mapping[str, int]) -> None:
        """The tables now reach to a block, `blocks` more than before; `quarantined` counts their values by reason."""
        del blocks, quarantined
        self.heights.applied(block_number + 1)

    def commit_unknown(self) -> None:
        """The answer to a COMMIT was lost."""

    def run_done(self) -> None:
        """A run came to the end of its source without an error."""

    def run_failed(self, error: KvrSyncError) -> None:
        """A run ended in an error."""

    def peer_seen(self, peer: str, height: int, *, is_newest: bool = False) -> None:
        """A peer was seen to have `height` blocks; `is_newest`: it said that it has no more."""
        self.heights.saw(peer, height, is_newest=is_newest)

    def peer_connected(self, *, connected: bool) -> None:
        """Blocks can be read, or cannot since the connection is lost."""

    def private_counted(self, missing: int) -> None:
        """So many private values are missing."""

    def database_answered(self, *, answers: bool) -> None:
        """The database took a write, or did not."""

    def timed(
        self,
        stage: str,
        function: Callable[_Parameters, _Result],
        *arguments: _Parameters.args,
        **options: _Parameters.kwargs,
    ) -> _Result:
        """Call a function and report how long it took, also when it raises."""
        started = time.perf_counter()
        try:
            return function(*arguments, **options)
        finally:
            self.stage_done(stage, time.perf_counter() - started)
