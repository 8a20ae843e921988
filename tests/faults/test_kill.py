"""kill -9 inside a run of blocks.

Before COMMIT nothing of it is there, after COMMIT all of it, and the next run goes on. An archive of the blocks
holds at least what the tables hold.
"""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from kvr_sync.archive.block_archive import AFTER_APPEND, ARCHIVE_CRASH_POINTS, BEFORE_FLUSH, INSIDE_APPEND
from kvr_sync.archive.verification import verify_archive
from kvr_sync.jobs import SyncSettings, sync_once
from kvr_sync.store.sink import AFTER_COMMIT, BEFORE_COMMIT, CRASH_POINTS
from tests.support.archived import archived_contents
from tests.support.comparison import assert_tables_equal_oracle
from tests.support.evidence import wait_until
from tests.support.recorded_chain import load_chain
from tests.support.tables import NO_TABLES, query

ROOT = Path(__file__).parents[2]
OUTCOMES = ROOT / "tests" / "support" / "outcomes.mapping.yaml"
KILLED_REPLAY = ROOT / "tests" / "support" / "killed_replay.py"
CHAIN = load_chain("fabric-3.1.5-raft")


def start(
    url: str, blocks: int, point: str, passes: int, workers: int = 0, *archive: Path
) -> "subprocess.Popen[bytes]":
    arguments = [str(CHAIN.path), url, str(OUTCOMES), str(blocks), point, str(passes), str(workers), *map(str, archive)]
    return subprocess.Popen([sys.executable, str(KILLED_REPLAY), *arguments], start_new_session=True)


@pytest.mark.parametrize("point", CRASH_POINTS)
def test_a_killed_engine_takes_its_workers_along_and_loses_nothing(point: str, database_url: str) -> None:
    process = start(database_url, 9, point, 2, workers=2)
    workers: set[int] = set()

    while process.poll() is None:
        workers.update(group_members(process.pid) - {process.pid})

    assert process.returncode == -signal.SIGKILL
    assert workers, "no worker was ever seen"
    wait_until(lambda: not group_members(process.pid), "the end of every worker")
    applied = applied_blocks(database_url)
    assert_tables_equal_oracle_so_far(database_url, applied)
    sync_once(SyncSettings(CHAIN.path, database_url, OUTCOMES))
    assert_tables_equal_oracle(database_url, CHAIN.blocks, OUTCOMES)


def group_members(group: int) -> set[int]:
    """Living processes of a process group."""
    found = set()
    for process in psutil.process_iter():
        try:
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                found.add(process.pid)
        except (psutil.NoSuchProcess, ProcessLookupError):
            continue
    return found


@pytest.mark.parametrize("passes", [0, 3])
@pytest.mark.parametrize("point", CRASH_POINTS)
def test_a_kill_at_every_point_of_a_commit_loses_and_doubles_nothing(
    point: str, passes: int, database_url: str
) -> None:
    blocks_per_commit = 9

    assert start(database_url, blocks_per_commit, point, passes).wait(60) == -signal.SIGKILL

    commits = passes + (point == AFTER_COMMIT)
    assert_tables_equal_oracle(database_url, CHAIN.blocks[: commits * blocks_per_commit], OUTCOMES)
    sync_once(SyncSettings(CHAIN.path, database_url, OUTCOMES))
    assert_tables_equal_oracle(database_url, CHAIN.blocks, OUTCOMES)


@pytest.mark.parametrize("passes", [0, 3])
@pytest.mark.parametrize("point", [*ARCHIVE_CRASH_POINTS, BEFORE_COMMIT, AFTER_COMMIT])
def test_a_kill_around_an_append_leaves_an_archive_that_holds_what_the_tables_hold(
    point: str, passes: int, sqlite_url: str, tmp_path: Path
) -> None:
    archive = tmp_path / "archive"
    blocks_per_commit = 9

    assert start(sqlite_url, blocks_per_commit, point, passes, 0, archive).wait(60) == -signal.SIGKILL

    committed = (passes + (point == AFTER_COMMIT)) * blocks_per_commit
    # What was written and not flushed is there after a kill, and gone after a power cut: both are an older state.
    is_ahead = point in {BEFORE_FLUSH, AFTER_APPEND, BEFORE_COMMIT}
    kept = committed + is_ahead * blocks_per_commit
    assert applied_blocks(sqlite_url) == committed
    assert archived_contents(archive / "consortium") == list(CHAIN.blocks[:kept])
    sync_once(SyncSettings(CHAIN.path, sqlite_url, OUTCOMES, archive=archive))
    assert_tables_equal_oracle(sqlite_url, CHAIN.blocks, OUTCOMES)
    assert archived_contents(archive / "consortium") == list(CHAIN.blocks)
    assert verify_archive(archive / "consortium").torn_bytes == 0


@pytest.mark.parametrize("point", [INSIDE_APPEND, AFTER_APPEND, BEFORE_COMMIT])
def test_an_archive_and_postgresql_agree_after_a_kill_with_workers(
    point: str, postgresql_url: str, tmp_path: Path
) -> None:
    archive = tmp_path / "archive"
    assert start(postgresql_url, 9, point, 2, 2, archive).wait(60) == -signal.SIGKILL
    kept, applied = archived_contents(archive / "consortium"), applied_blocks(postgresql_url) or 0
    assert kept[:applied] == list(CHAIN.blocks[:applied])

    sync_once(SyncSettings(CHAIN.path, postgresql_url, OUTCOMES, archive=archive))

    assert archived_contents(archive / "consortium") == list(CHAIN.blocks)
    assert_tables_equal_oracle(postgresql_url, CHAIN.blocks, OUTCOMES)


def test_kills_at_random_moments_end_in_the_whole_chain(database_url: str, tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    seed = random.randrange(2**32)  # noqa: S311 - as below
    moments = random.Random(seed)  # noqa: S311 - moments, not secrets
    killed = 0
    for _ in range(12):
        process = start(database_url, 1, "never", 0, 0, archive)
        try:
            process.wait(moments.uniform(0.3, 1.6))
        except subprocess.TimeoutExpired:
            process.kill()
            killed += process.wait() == -signal.SIGKILL
        else:
            assert process.returncode == 0
        applied = applied_blocks(database_url)
        assert_tables_equal_oracle_so_far(database_url, applied)

    sync_once(SyncSettings(CHAIN.path, database_url, OUTCOMES, archive=archive))

    assert_tables_equal_oracle(database_url, CHAIN.blocks, OUTCOMES)
    assert archived_contents(archive / "consortium") == list(CHAIN.blocks)
    assert killed, f"no process was killed at all (seed {seed})"


def applied_blocks(url: str) -> int | None:
    try:
        rows = query(url, "SELECT block_number FROM ledger_checkpoint")
    except NO_TABLES:  # killed before they were made
        return None
    return int(rows[0][0]) + 1 if rows else 0


def assert_tables_equal_oracle_so_far(url: str, applied: int | None) -> None:
    if applied is not None:
        assert_tables_equal_oracle(url, CHAIN.blocks[:applied], OUTCOMES)
