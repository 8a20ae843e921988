"""A process that keeps the tables of one or more channels up on a schedule, until it is told to stop.

Each channel has its jobs: applying blocks, asking for missing private values, forgetting old records of runs. What a
job did stands in the channel's own database, and the fence there keeps two services from doing the same twice; the
scheduler only wakes them. A channel whose chain or tables are wrong stops by itself, and the others go on.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from queue import SimpleQueue

from apscheduler.triggers.interval import IntervalTrigger

from kvr_sync.due_jobs import DUE_SECONDS, KEPT_RUNS, DueJobs, job_scheduler
from kvr_sync.errors import KvrSyncError, SourceUnavailableError
from kvr_sync.jobs import SyncSettings, source_name, sync_once
from kvr_sync.observation import Observer
from kvr_sync.source.peer_source import TICK_SECONDS, PeerSource
from kvr_sync.store.ledger_sink import utc_now

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ScheduledChannel:
    """A channel that a service keeps up, every so many seconds; `kept_runs`: records of runs that are not forgotten."""

    settings: SyncSettings
    every_seconds: float
    kept_runs: int = KEPT_RUNS
    observer: Observer = field(default_factory=Observer)


class SyncService:
    """Runs the jobs of channels until it is stopped, or each has ended in an error that no repetition mends."""

    def __init__(
        self,
        channels: Sequence[ScheduledChannel],
        *,
        due_seconds: float = DUE_SECONDS,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._clock = clock
        self._due_seconds = due_seconds
        self._runners = [_ChannelRunner(channel, self._ended) for channel in channels]
        # Not an Event: its `set` takes a lock that `wait` holds for moments, and a signal handler that comes in such
        # a moment would wait for ever for the very thread that it interrupted. The queue's `put` may interrupt `get`.
        self._woken: SimpleQueue[None] = SimpleQueue()

    def stop(self) -> None:
        """End the service at the next block boundaries; may be called from a signal handler."""
        for runner in self._runners:
            runner.stop()
        self._woken.put(None)

    def serve(self) -> None:
        """Run now and then every interval, no job twice at once; missed runs are made up by one.

        Raises the error that ended a channel, the first of them; returns when it was stopped before.
        """
        scheduler = job_scheduler(threads=3 * len(self._runners))
        now = self._clock()
        for runner in self._runners:
            every = IntervalTrigger(seconds=runner.channel.every_seconds)
            scheduler.add_job(runner.sync, every, next_run_time=now)
            scheduler.add_job(runner.tick, IntervalTrigger(seconds=TICK_SECONDS))
            scheduler.add_job(runner.do_what_is_due, IntervalTrigger(seconds=self._due_seconds))
        scheduler.start()
        logger.info("service_started", extra={"channels": [runner.facts() for runner in self._runners]})
        self._woken.get()
        scheduler.shutdown(wait=True)
        logger.info("service_stopped")
        for runner in self._runners:
            if runner.fatal is not None:
                raise runner.fatal

    def _ended(self) -> None:
        if all(runner.fatal is not None for runner in self._runners):
            self.stop()


class _ChannelRunner:
    """The jobs of one channel; each is called from a thread of the scheduler, none twice at once."""

    def __init__(self, channel: ScheduledChannel, on_end: Callable[[], None]) -> None:
        self.channel = channel
        self.fatal: KvrSyncError | None = None
        self._on_end = on_end
        self._stopping = False
        self._running = False
        self._source: PeerSource | None = None
        self._name: str | None = None
        """The channel's name, once a run has told it."""
        self._due = DueJobs(
            channel.settings,
            observer=channel.observer,
            should_stop=lambda: self._stopping,
            kept_runs=channel.kept_runs,
        )

    def facts(self) -> dict[str, object]:
        return {"source": source_name(self.channel.settings), "every_seconds": self.channel.every_seconds}

    def stop(self) -> None:
        self._stopping = True
        if self._source is not None:
            self._source.stop()

    def tick(self) -> None:
        """Tell that the scheduler goes round; a run tells for itself, so that one that hangs is seen."""
        if not self._running:
            self.channel.observer.tick()

    def sync(self) -> None:
        if self.fatal is not None or self._stopping:
            return
        self.channel.observer.tick()
        self._running = True
        try:
            self._sync()
        finally:
            self._running = False

    def _sync(self) -> None:
        settings = self.channel.settings
        try:
            summary = sync_once(
                settings,
                should_stop=lambda: self._stopping,
                on_source=self._remember,
                observer=self.channel.observer,
            )
        except SourceUnavailableError as error:
            logger.warning("source_unavailable", extra=self._trouble(error))
        except KvrSyncError as error:
            if error.may_run_again:
                logger.warning("run_failed", extra=self._trouble(error))
                return
            logger.error("run_stopped", extra=self._trouble(error))  # noqa: TRY400 - our errors say all
            self.fatal = error
            self._on_end()
        else:
            self._name = summary.channel
            if summary.blocks:
                logger.info(
                    "run_done",
                    extra={
                        "channel": summary.channel,
                        "block_number": summary.checkpoint.block_number,
                        "blocks": summary.blocks,
                        "transactions": summary.transactions,
                        "quarantined": summary.quarantined,
                    },
                )

    def do_what_is_due(self) -> None:
        """Do the jobs beside applying blocks, once a run has been through."""
        if self._name is not None and self.fatal is None and not self._stopping:
            self._due.do(self._name)

    def _remember(self, source: PeerSource) -> None:
        self._source = source
        if self._stopping:
            source.stop()

    def _trouble(self, error: KvrSyncError) -> dict[str, object]:
        return {"source": source_name(self.channel.settings), "code": error.code, "reason": str(error)}
