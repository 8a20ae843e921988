"""kill -9 inside a run of blocks.

Before COMMIT nothing of it is there, after COMMIT all of it, and the next run goes on. An archive of the blocks
holds at least what the tables hold.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from sqlalchemy import make_url

from kvr_sync.archive.block_archive import AFTER_APPEND, ARCHIVE_CRASH_POINTS, BEFORE_FLUSH, INSIDE_APPEND
from kvr_sync.archive.verification import verify_archive
from kvr_sync.engine import Engine, RunLimits
from kvr_sync.jobs import SyncSettings, sync_once
from kvr_sync.mapping.mapping_file import read_mapping_file
from kvr_sync.source.block_file import open_block_file
from kvr_sync.store.opening import open_store
from kvr_sync.store.sink import AFTER_COMMIT, BEFORE_COMMIT, CRASH_POINTS
from tests.support.archived import archived_contents
from tests.support.comparison import assert_tables_equal_oracle
from tests.support.emptied_store import EmptiedPostgresql, EmptiedSqlite
from tests.support.evidence import wait_until
from tests.support.invariants import read_content
from tests.support.postgresql import connect
from tests.support.recorded_chain import load_chain
from tests.support.tables import NO_TABLES, one_session, query

ROOT = Path(__file__).parents[2]
OUTCOMES = ROOT / "tests" / "support" / "outcomes.mapping.yaml"
KILLED_REPLAY = ROOT / "tests" / "support" / "killed_replay.py"
KILLED_ROUNDS = ROOT / "tests" / "support" / "killed_rounds.py"
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


ROUNDS = 100
"""Of each database: 200 in one run."""
MOST_POINTS = 80
"""Of sink and archive, passed before a kill; a block passes nine."""


@pytest.mark.timeout(300)
def test_kills_at_random_moments_end_in_the_whole_chain(database_url: str, tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    seed = random.randrange(2**32)  # noqa: S311 - as below
    choose = random.Random(seed)  # noqa: S311 - moments, not secrets
    stops: list[int | None] = []
    with killed_rounds(database_url, archive) as take_round:
        take_away(database_url, archive)
        expected = contents_block_by_block(database_url)
        begin = emptied(database_url, tmp_path)
        take_away(database_url, archive)
        for number in range(ROUNDS):
            before = stops[-1] if stops else None
            how = "open" if before is None or choose.random() < 0.1 else "ready"
            passes, pause = choose.randint(0, MOST_POINTS), choose.randint(0, 20_000)
            if how == "open" and choose.random() < 0.5:
                passes, pause = 0, choose.randint(0, 400_000)  # perhaps while tables are made or looked at
            status = take_round(f"{passes} {pause} {how}")
            applied, content = stored(database_url)
            assert content == expected[applied], f"round {number}, after {applied} blocks (seed {seed})"
            stops.append(applied)
            if status == 0:
                assert applied == len(CHAIN.blocks)
                assert archived_contents(archive / "consortium") == list(CHAIN.blocks)
                assert begin() == database_url
                shutil.rmtree(archive)
                stops.append(0)
            else:
                assert status == -signal.SIGKILL, f"round {number} (seed {seed})"

    sync_once(SyncSettings(CHAIN.path, database_url, OUTCOMES, archive=archive))

    assert_tables_equal_oracle(database_url, CHAIN.blocks, OUTCOMES)
    assert read_content(database_url) == expected[len(CHAIN.blocks)]
    assert archived_contents(archive / "consortium") == list(CHAIN.blocks)
    assert len(set(stops)) > ROUNDS // 5, f"always at the same places (seed {seed})"


Contents = dict[str, list[tuple[Any, ...]]]


def stored(url: str) -> tuple[int | None, Contents]:
    """Give the number of blocks and all rows, of one moment."""
    try:
        with one_session(url):
            applied = applied_blocks(url)
            return applied, {} if applied is None else read_content(url)
    except NO_TABLES:  # nor a file
        return None, {}


def contents_block_by_block(url: str) -> dict[int | None, Contents]:
    """Give what a run that nothing disturbs leaves after each number of blocks; None: before there are tables."""
    mapping = read_mapping_file(OUTCOMES)
    contents: dict[int | None, Contents] = {None: {}}

    def remember(point: str) -> None:
        if point == AFTER_COMMIT:
            contents[len(contents) - 1] = read_content(url)

    with closing(open_store(url, "consortium", mapping=mapping, hook=remember)) as sink:
        remember(AFTER_COMMIT)
        limits = RunLimits(blocks=1)
        Engine(open_block_file(CHAIN.path), sink, mapping, channel="consortium", limits=limits).run()
    assert_tables_equal_oracle(url, CHAIN.blocks, OUTCOMES)
    assert len(contents) == len(CHAIN.blocks) + 2
    return contents


def emptied(url: str, folder: Path) -> Callable[[], str]:
    mapping = read_mapping_file(OUTCOMES)
    return EmptiedSqlite(folder, mapping) if url.startswith("sqlite") else EmptiedPostgresql(url, mapping)


def take_away(url: str, archive: Path) -> None:
    """Leave nothing of tables and archive."""
    shutil.rmtree(archive, ignore_errors=True)
    address = make_url(url)
    if url.startswith("sqlite"):
        for path in Path(str(address.database)).parent.glob("kvr.db*"):
            path.unlink()
        return
    with connect(address) as session:
        session.execute("DROP SCHEMA consortium CASCADE")


@contextmanager
def killed_rounds(url: str, archive: Path) -> Iterator[Callable[[str], int]]:
    """Start what starts and kills replays; give a function that takes a round and gives the exit status.

    It has replayed the chain once by then.
    """
    arguments = [sys.executable, str(KILLED_ROUNDS), str(CHAIN.path), url, str(OUTCOMES), str(archive)]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        given, told = process.stdin, process.stdout

        def take_round(asked: str) -> int:
            print(asked, file=given, flush=True)
            return int(told.readline())

        assert told.readline() == "0\n"
        yield take_round


def applied_blocks(url: str) -> int | None:
    try:
        rows = query(url, "SELECT block_number FROM ledger_checkpoint")
    except NO_TABLES:  # killed before they were made
        return None
    return int(rows[0][0]) + 1 if rows else 0


def assert_tables_equal_oracle_so_far(url: str, applied: int | None) -> None:
    if applied is not None:
        assert_tables_equal_oracle(url, CHAIN.blocks[:applied], OUTCOMES)
