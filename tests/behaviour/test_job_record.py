"""The schedule that lasts: what is due follows from the database, and of two services one does it."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from threading import Barrier
from typing import Any

import pytest
from sqlalchemy import Connection

from kvr_sync.errors import SinkFullError
from kvr_sync.store.job_record import keep_runs, run_when_due
from kvr_sync.store.ledger_sink import LedgerSink
from kvr_sync.store.opening import open_store
from kvr_sync.store.sink import RunResult
from tests.support.tables import query

CHANNEL = "consortium"
HOUR = 3600.0
RESULT = RunResult("ok", None, None, 0, 0, None, None)


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2026, 5, 6, 7, 8, 9, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def sink(database_url: str) -> Iterator[LedgerSink]:
    with closing(open_store(database_url, CHANNEL)) as opened:
        yield opened


def nothing(_connection: Connection) -> None:
    """Do no work."""


def job(url: str) -> tuple[Any, ...]:
    (row,) = query(url, "SELECT started_at, ended_at IS NULL, succeeded_at IS NULL, error_code FROM sync_job")
    return row[1:]


def test_a_job_is_done_once_in_its_interval_by_whoever_asks(sink: LedgerSink, database_url: str, clock: Clock) -> None:
    assert run_when_due(sink, "retention", HOUR, nothing, clock=clock)
    clock.now += timedelta(seconds=HOUR - 1)
    with closing(open_store(database_url, CHANNEL)) as another:
        assert not run_when_due(another, "retention", HOUR, nothing, clock=clock)
        assert run_when_due(another, "other", HOUR, nothing, clock=clock)
        clock.now += timedelta(seconds=1)
        assert run_when_due(another, "retention", HOUR, nothing, clock=clock)


def test_two_at_the_same_moment_do_it_once(sink: LedgerSink, database_url: str, clock: Clock) -> None:
    barrier = Barrier(2)

    def attempt() -> bool:
        with closing(open_store(database_url, CHANNEL)) as own:
            barrier.wait(20)
            return run_when_due(own, "retention", HOUR, nothing, clock=clock)

    assert sink.checkpoint() is None
    with ThreadPoolExecutor(2) as pool:
        done = [future.result(30) for future in [pool.submit(attempt) for _ in range(2)]]

    assert sorted(done) == [False, True]


@pytest.mark.parametrize("hours", [-5, 5])
def test_a_clock_that_jumps_holds_nothing_up(hours: int, sink: LedgerSink, clock: Clock) -> None:
    assert run_when_due(sink, "retention", HOUR, nothing, clock=clock)
    clock.now += timedelta(hours=hours)

    assert run_when_due(sink, "retention", HOUR, nothing, clock=clock)
    assert not run_when_due(sink, "retention", HOUR, nothing, clock=clock)


def test_a_job_that_fails_is_told_undone_and_tried_again(sink: LedgerSink, database_url: str, clock: Clock) -> None:
    for _ in range(3):
        sink.end_run(sink.begin_run(), RESULT)

    def fail(connection: Connection) -> None:
        keep_runs(sink, 1)(connection)
        message = "no space"
        raise SinkFullError(message)

    with pytest.raises(SinkFullError):
        run_when_due(sink, "retention", HOUR, fail, clock=clock)

    assert job(database_url) == (False, True, "sink_full")
    assert query(database_url, "SELECT count(*) FROM sync_run") == [(3,)]
    clock.now += timedelta(hours=1)
    assert run_when_due(sink, "retention", HOUR, keep_runs(sink, 1), clock=clock)
    assert job(database_url) == (False, False, None)
    assert query(database_url, "SELECT count(*) FROM sync_run") == [(1,)]


def test_a_job_whose_process_dies_is_due_again(sink: LedgerSink, database_url: str, clock: Clock) -> None:
    def die(_connection: Connection) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_when_due(sink, "retention", HOUR, die, clock=clock)
    assert job(database_url) == (True, True, None)
    clock.now += timedelta(hours=1)

    assert run_when_due(sink, "retention", HOUR, nothing, clock=clock)


def test_the_newest_records_of_runs_stay(sink: LedgerSink, database_url: str, clock: Clock) -> None:
    for _ in range(7):
        sink.end_run(sink.begin_run(), RESULT)

    run_when_due(sink, "retention", HOUR, keep_runs(sink, 3), clock=clock)

    assert query(database_url, "SELECT run_id FROM sync_run ORDER BY run_id") == [(5,), (6,), (7,)]
