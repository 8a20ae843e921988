"""The follower: runs of the line one after the other, so that blocks are applied as they come."""

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue

from kvr_sync.due_jobs import DUE_SECONDS, DueJobs, done_when_due
from kvr_sync.engine import Progress
from kvr_sync.errors import KvrSyncError, SourceError
from kvr_sync.jobs import SyncSettings, source_name, sync_once
from kvr_sync.observation import Observer
from kvr_sync.source.peer_source import PeerSource

logger = logging.getLogger(__name__)

TOLD_SECONDS = 10.0
"""Pause between two lines of a follower's log about its progress."""

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0
"""After a run that ended in an error that may pass; each pause is twice the one before."""


class SyncFollower:
    """Applies the blocks of peers as they come, until it is stopped or an error comes that no repetition mends."""

    def __init__(
        self,
        settings: SyncSettings,
        *,
        observer: Observer | None = None,
        on_open: Callable[[], None] = lambda: None,
        due_seconds: float = DUE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare; `on_open` is called whenever the tables were opened."""
        self._settings = settings
        self._on_open = on_open
        self._observer = observer or Observer()
        self._due_seconds = due_seconds
        self._clock = clock
        self._stopping = False
        self._source: PeerSource | None = None
        self._channel: str | None = None
        """The channel's name, once its tables are there."""
        self._woken: SimpleQueue[None] = SimpleQueue()  # as in SyncService
        self._applied = self._blocks = self._failures = 0
        self._told_at = clock()

    def stop(self) -> None:
        """End at the next block boundary; may be called from a signal handler."""
        self._stopping = True
        if self._source is not None:
            self._source.stop()
        self._woken.put(None)

    def follow(self) -> None:
        """Run until stopped; source and database are opened afresh after an error that may pass.

        What is due beside applying blocks is done meanwhile. Raises the error that ended it.
        """
        logger.info("follower_started", extra={"source": source_name(self._settings)})
        due = DueJobs(self._settings, observer=self._observer, should_stop=lambda: self._stopping)

        def do_what_is_due() -> None:
            if self._channel is not None and not self._stopping:
                due.do(self._channel)

        with done_when_due(do_what_is_due, seconds=self._due_seconds):
            try:
                self._follow()
            finally:
                self._stopping = True
        self._tell()
        logger.info("follower_stopped", extra={"source": source_name(self._settings)})

    def _follow(self) -> None:
        while not self._stopping:
            self._applied = 0
            self._observer.tick()
            try:
                sync_once(
                    self._settings,
                    on_progress=self._count,
                    should_stop=lambda: self._stopping,
                    on_source=self._remember,
                    on_open=self._opened,
                    observer=self._observer,
                )
            except KvrSyncError as error:
                if self._stopping and isinstance(error, SourceError):
                    break  # stopped before the first block came
                if not error.may_run_again:
                    raise
                self._rest(error)

    def _remember(self, source: PeerSource) -> None:
        self._source = source
        if self._stopping:
            source.stop()

    def _opened(self, channel: str) -> None:
        self._channel = channel
        self._on_open()

    def _count(self, progress: Progress) -> None:
        self._blocks += progress.blocks - self._applied
        self._applied = progress.blocks
        self._failures = 0
        if self._clock() - self._told_at >= TOLD_SECONDS:
            self._tell()

    def _tell(self) -> None:
        self._told_at = self._clock()
        logger.info("blocks_followed", extra={"source": source_name(self._settings), "blocks": self._blocks})

    def _rest(self, error: KvrSyncError) -> None:
        pause = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(self._failures, 10))
        self._failures += 1
        facts = {"code": error.code, "reason": str(error), "pause_seconds": pause, "failures": self._failures}
        logger.warning("run_failed", extra=facts)
        with suppress(Empty):
            self._woken.get(timeout=pause)
