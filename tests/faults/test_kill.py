"""kill -9 inside a run of blocks.

Before COMMIT nothing of it is there, after COMMIT all of it, and the next run goes on.
"""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from kvr_sync.jobs import SyncSettings, sync_once
from kvr_sync.store.sink import AFTER_COMMIT, CRASH_POINTS
from tests.support.comparison import assert_tables_equal_oracle
from tests.support.evidence import wait_until
from tests.support.recorded_chain import load_chain
from tests.support.tables import NO_TABLES, query

ROOT = Path(__file__).parents[2]
OUTCOMES = ROOT / "tests" / "support" / "outcomes.mapping.yaml"
KILLED_REPLAY = ROOT / "tests" / "support" / "killed_replay.py"
CHAIN = load_chain("fabric-3.1.5-raft")


def start(url: str, blocks: int, point: str, passes: int, workers: int = 0) -> "subprocess.Popen[bytes]":
    arguments = [str(CHAIN.path), url, str(OUTCOMES), str(blocks), point, str(passes), str(workers)]
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


def test_kills_at_random_moments_end_in_the_whole_chain(database_url: str) -> None:
    seed = random.randrange(2**32)  # noqa: S311 - as below
    moments = random.Random(seed)  # noqa: S311 - moments, not secrets
    killed = 0
    for _ in range(12):
        process = start(database_url, 1, "never", 0)
        try:
            process.wait(moments.uniform(0.3, 1.6))
        except subprocess.TimeoutExpired:
            process.kill()
            killed += process.wait() == -signal.SIGKILL
        else:
            assert process.returncode == 0
        applied = applied_blocks(database_url)
        assert_tables_equal_oracle_so_far(database_url, applied)

    sync_once(SyncSettings(CHAIN.path, database_url, OUTCOMES))

    assert_tables_equal_oracle(database_url, CHAIN.blocks, OUTCOMES)
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
