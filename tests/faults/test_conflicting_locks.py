"""S-10: PostgreSQL breaks the transaction of a block off, for the sake of another session; real sessions, real locks.

Each time the run ends with an error that a service and a follower repeat, nothing of the block is there, and the next
run ends with the tables of one that nobody disturbed.
"""

import re
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url

from kvr_sync.errors import SinkUnavailableError
from kvr_sync.jobs import SyncSettings, sync_once
from tests.support.evidence import wait_until
from tests.support.recorded_chain import load_chain, write_records
from tests.support.tables import query

BLOCKS = load_chain("fabric-3.1.5-raft").blocks[:20]
HELD_TABLE = "consortium.ledger_key_history"
POSITION = "SELECT block_number FROM ledger_checkpoint"
WAITS = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'ledger_key_history'::regclass"


@pytest.fixture
def begun(postgresql_url: str, tmp_path: Path) -> str:
    """A database that has the first ten blocks."""
    first = write_records(tmp_path / "first", BLOCKS[:10])
    sync_once(SyncSettings(first, postgresql_url, workers=0))
    assert query(postgresql_url, POSITION) == [(9,)]
    return postgresql_url


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_records(tmp_path / "all", BLOCKS)


@contextmanager
def table_held(url: str, *options: str) -> Iterator[psycopg.Connection]:
    """Give a session in whose transaction nobody else writes to one of the tables."""
    with psycopg.connect(make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)) as session:
        for option in options:
            session.execute(option.encode())
        session.execute(f"LOCK TABLE {HELD_TABLE} IN EXCLUSIVE MODE".encode())
        yield session
        session.rollback()


def check_broken_off(url: str, error: BaseException | None, sqlstate: str) -> None:
    assert isinstance(error, SinkUnavailableError)
    assert error.may_run_again
    assert re.search(rf"\({sqlstate}\)", str(error))
    assert query(url, POSITION) == [(9,)]
    (outcome,) = query(url, "SELECT outcome, error_code FROM sync_run ORDER BY run_id DESC LIMIT 1")
    assert outcome == ("failed", "sink_unavailable")


def check_goes_on(url: str, source: Path, tmp_path: Path) -> None:
    sync_once(SyncSettings(source, url, workers=0))
    undisturbed = f"sqlite:///{tmp_path / 'undisturbed.db'}"
    sync_once(SyncSettings(source, undisturbed, workers=0))
    for table in ("ledger_block", "ledger_transaction", "ledger_key_history", "ledger_key"):
        count = f"SELECT count(*) FROM {table}"  # noqa: S608  names of ours
        assert query(url, count) == query(undisturbed, count)
    hashes = "SELECT block_number, header_hash, commit_hash FROM ledger_block ORDER BY block_number"
    assert query(url, hashes) == query(undisturbed, hashes)
    assert len(query(url, hashes)) == len(BLOCKS)


@pytest.mark.parametrize(
    ("setting", "seconds", "sqlstate"),
    [("LOCK_SECONDS", 0.3, "55P03"), ("STATEMENT_SECONDS", 2, "57014")],
    ids=["lock timeout", "statement timeout"],
)
def test_a_wait_that_takes_too_long_breaks_the_block_off_and_it_comes_again(
    begun: str,
    source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    setting: str,
    seconds: float,
    sqlstate: str,
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(f"kvr_sync.store.database.{setting}", seconds)
        with table_held(begun), pytest.raises(SinkUnavailableError) as caught:
            sync_once(SyncSettings(source, begun, workers=0))

    check_broken_off(begun, caught.value, sqlstate)
    check_goes_on(begun, source, tmp_path)


def test_the_victim_of_a_deadlock_loses_nothing(begun: str, source: Path, tmp_path: Path) -> None:
    # The session that looks first is the victim: ours after three seconds, the other one not at all.
    ours = (
        make_url(begun).update_query_dict({"options": "-c deadlock_timeout=3s"}).render_as_string(hide_password=False)
    )
    with table_held(begun, "SET deadlock_timeout = '60s'") as other, ThreadPoolExecutor() as pool:
        run: Future[object] = pool.submit(sync_once, SyncSettings(source, ours, workers=0))
        wait_until(lambda: query(begun, WAITS) == [(1,)], "the engine waits for the table, the checkpoint locked")
        other.execute("SELECT block_number FROM consortium.ledger_checkpoint FOR UPDATE")  # until the engine is ended
        error = run.exception(timeout=30)

    check_broken_off(begun, error, "40P01")
    check_goes_on(begun, source, tmp_path)


def test_a_serialization_failure_is_repeated(begun: str, source: Path, tmp_path: Path) -> None:
    """A database whose transactions are serializable unless they say otherwise, and a checkpoint touched meanwhile."""
    strict = make_url(begun).update_query_dict({"options": "-c default_transaction_isolation=serializable"})
    with table_held(begun) as other, ThreadPoolExecutor() as pool:
        other.execute("SELECT block_number FROM consortium.ledger_checkpoint FOR UPDATE")
        settings = SyncSettings(source, strict.render_as_string(hide_password=False), workers=0)
        run: Future[object] = pool.submit(sync_once, settings)
        waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name = 'kvr-sync'"
        wait_until(lambda: query(begun, waits) == [(1,)], "the engine waits for the checkpoint")
        other.execute("UPDATE consortium.ledger_checkpoint SET updated_at = updated_at + interval '1 second'")
        other.commit()
        error = run.exception(timeout=30)

    check_broken_off(begun, error, "40001")
    check_goes_on(begun, source, tmp_path)
