"""The schedule that lasts: when each job of a channel last ran, in the channel's own database (`sync_job`).

A job is claimed under the checkpoint's lock, so that of two services only one does it, and each finds what is due from
what is written there, not from when it started itself. A job whose process died is due again after its interval.
"""

from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta

from sqlalchemy import Connection, delete, func, insert, select, update

from kvr_sync.errors import KvrSyncError
from kvr_sync.store.database_error import driver_errors
from kvr_sync.store.encoding import stored_time
from kvr_sync.store.ledger_sink import Clock, LedgerSink, utc_now
from kvr_sync.store.status import read_time


def run_when_due(
    sink: LedgerSink,
    name: str,
    every_seconds: float,
    work: Callable[[Connection], None],
    *,
    clock: Clock = utc_now,
) -> bool:
    """Do a job if its interval is over since it last began, in any process; say whether it was done.

    `work` gets a connection in a transaction of its own and commits with it. Raises what `work` raises, after its code
    was written down, and SinkError. A time of last beginning that lies ahead of the clock counts as long ago.
    """

    def in_transaction() -> None:
        with driver_errors(sink.database.place), sink.database.engine.begin() as connection:
            work(connection)

    return call_when_due(sink, name, every_seconds, in_transaction, clock=clock)


def call_when_due(
    sink: LedgerSink, name: str, every_seconds: float, work: Callable[[], None], *, clock: Clock = utc_now
) -> bool:
    """Do the same with work that has transactions of its own, as one does that waits for the network between them."""
    record = _JobRecord(sink, name, clock)
    if not record.claim(every_seconds):
        return False
    try:
        work()
    except KvrSyncError as error:
        with suppress(KvrSyncError):  # the first error is the one to tell
            record.end(error.code)
        raise
    record.end(None)
    return True


def keep_runs(sink: LedgerSink, count: int) -> Callable[[Connection], None]:
    """Give the job that forgets all but the newest `count` rows of `sync_run`."""
    run = sink.tables.run

    def work(connection: Connection) -> None:
        newest = connection.scalar(select(func.max(run.c.run_id))) or 0
        connection.execute(delete(run).where(run.c.run_id <= newest - count))

    return work


class _JobRecord:
    def __init__(self, sink: LedgerSink, name: str, clock: Clock) -> None:
        self._sink = sink
        self._name = name
        self._clock = clock

    def claim(self, every_seconds: float) -> bool:
        """Write down that the job begins, if it is due; False if it is not, or another process was first."""
        database, table = self._sink.database, self._sink.tables.job
        with driver_errors(database.place), database.engine.begin() as connection:
            database.lock_for_settling(connection)
            now = self._clock()
            started = read_time(connection.scalar(select(table.c.started_at).where(table.c.job == self._name)))
            if started is not None and started <= now < started + timedelta(seconds=every_seconds):
                return False
            values = {"started_at": stored_time(self._sink.kind, now), "ended_at": None}
            if started is None:
                connection.execute(insert(table).values(job=self._name, **values))
            else:
                connection.execute(update(table).where(table.c.job == self._name).values(**values))
            return True

    def end(self, error_code: str | None) -> None:
        database, table = self._sink.database, self._sink.tables.job
        ended = stored_time(self._sink.kind, self._clock())
        values = {"ended_at": ended, "error_code": error_code} | ({} if error_code else {"succeeded_at": ended})
        with driver_errors(database.place), database.engine.begin() as connection:
            connection.execute(update(table).where(table.c.job == self._name).values(**values))
