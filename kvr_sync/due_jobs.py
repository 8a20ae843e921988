"""What is due beside applying blocks: asking for missing private values, forgetting old records of runs.

When each job last ran stands in the channel's own database, and the fence there keeps two processes from doing the
same twice. A further job is a further line of `DueJobs.do`.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Final

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.interval import IntervalTrigger

from kvr_sync.errors import KvrSyncError
from kvr_sync.jobs import SyncSettings, source_name
from kvr_sync.observation import Observer
from kvr_sync.reconciliation import reconcile
from kvr_sync.source.peer_source import PeerSettings
from kvr_sync.store.job_record import call_when_due, keep_runs, run_when_due
from kvr_sync.store.ledger_sink import LedgerSink
from kvr_sync.store.opening import open_store, recorded_member

logger = logging.getLogger(__name__)

KEPT_RUNS: Final = 10_000
RETENTION_SECONDS: Final = 3_600.0
"""Interval of the job that forgets old records of runs."""
RECONCILIATION_SECONDS: Final = 60.0
"""Interval of the job that asks for missing private values: that of the peers themselves."""
DUE_SECONDS: Final = 30.0
"""How often it is looked what is due."""


class DueJobs:
    """The jobs of one channel; `kept_runs`: records of runs that are not forgotten."""

    def __init__(
        self,
        settings: SyncSettings,
        *,
        observer: Observer,
        should_stop: Callable[[], bool],
        kept_runs: int = KEPT_RUNS,
    ) -> None:
        self._settings = settings
        self._observer = observer
        self._should_stop = should_stop
        self._kept_runs = kept_runs

    def do(self, channel: str) -> None:
        """Do the jobs whose interval is over, on the channel's tables; one that fails is told of, and due again."""
        database = self._settings.database
        try:
            member = recorded_member(database, channel)
            with closing(open_store(database, channel, private_member=member, create=False)) as sink:
                run_when_due(sink, "retention", RETENTION_SECONDS, keep_runs(sink, self._kept_runs))
                self._ask_for_missing_values(sink)
        except KvrSyncError as error:
            facts = {"source": source_name(self._settings), "code": error.code, "reason": str(error)}
            logger.warning("job_failed", extra=facts)

    def _ask_for_missing_values(self, sink: LedgerSink) -> None:
        source = self._settings.source
        if not isinstance(source, PeerSettings) or not source.private_data:
            return

        def work() -> None:
            done = reconcile(sink, source, due=True, should_stop=self._should_stop)
            self._observer.private_counted(done.missing)
            if done.asked:
                logger.info("missing_values_asked_for", extra={"channel": source.channel, **done._asdict()})

        call_when_due(sink, "private_data", RECONCILIATION_SECONDS, work)


def job_scheduler(*, threads: int) -> BackgroundScheduler:
    """Give a scheduler, not started: no job of it runs twice at once, and missed runs are made up by one."""
    return BackgroundScheduler(
        daemon=True,
        executors={"default": ThreadPoolExecutor(threads)},
        job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
    )


@contextmanager
def done_when_due(work: Callable[[], None], *, seconds: float = DUE_SECONDS) -> Iterator[None]:
    """Call `work` every so many seconds in a thread, never twice at once, while the block runs."""
    scheduler = job_scheduler(threads=1)
    scheduler.add_job(work, IntervalTrigger(seconds=seconds))
    scheduler.start()
    try:
        yield
    finally:
        scheduler.shutdown(wait=True)
