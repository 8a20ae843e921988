"""Two engines on one channel of one database: the checkpoint lets one of them through, and rows are there once."""

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Barrier

import psutil
import pytest

from kvr_sync import errors
from kvr_sync.engine import Engine, RunLimits, RunSummary
from kvr_sync.jobs import SyncSettings, sync_once
from kvr_sync.mapping.mapping_file import read_mapping_file
from kvr_sync.source.block_file import open_block_file
from kvr_sync.store import database
from kvr_sync.store.opening import open_store
from kvr_sync.store.sink import AFTER_ROWS, BEFORE_BEGIN, Hook
from tests.support.comparison import assert_tables_equal_oracle
from tests.support.evidence import wait_until
from tests.support.recorded_chain import load_chain, write_records

ROOT = Path(__file__).parents[2]
OUTCOMES = ROOT / "tests" / "support" / "outcomes.mapping.yaml"
CHAIN = load_chain("fabric-3.1.5-raft")
BLOCKS = CHAIN.blocks[:20]

# A replay that stops itself as if its machine had been suspended: file, database, mapping, crash point, and how often
# the point is passed before. It prints the code of the error that ends it.
PAUSED_REPLAY = """
import os, signal, sys
from contextlib import closing
from pathlib import Path
from kvr_sync.engine import Engine, RunLimits
from kvr_sync.errors import KvrSyncError
from kvr_sync.mapping.mapping_file import read_mapping_file
from kvr_sync.source.block_file import open_block_file
from kvr_sync.store.opening import open_store

file, url, mapping_file, pause_at, passes = sys.argv[1:]
remaining = int(passes)

def hook(point):
    global remaining
    if point == pause_at:
        remaining -= 1
        if remaining == -1:
            os.kill(os.getpid(), signal.SIGSTOP)

mapping = read_mapping_file(Path(mapping_file))
with closing(open_store(url, "consortium", mapping=mapping, hook=hook)) as sink:
    engine = Engine(open_block_file(Path(file)), sink, mapping, channel="consortium", limits=RunLimits(blocks=6))
    try:
        engine.run()
    except KvrSyncError as error:
        print(error.code)
        sys.exit(1)
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_records(tmp_path / "blocks", BLOCKS)


def run(url: str, source: Path, hook: Hook, blocks_per_commit: int) -> RunSummary:
    mapping = read_mapping_file(OUTCOMES)
    with closing(open_store(url, "consortium", mapping=mapping, hook=hook)) as sink:
        limits = RunLimits(blocks=blocks_per_commit)
        return Engine(open_block_file(source), sink, mapping, channel="consortium", limits=limits).run()


@pytest.mark.parametrize(
    ("passes", "sizes"), [(0, (6, 6)), (2, (6, 5))], ids=["first block, same runs", "mid chain, different runs"]
)
def test_of_two_engines_at_one_checkpoint_one_goes_on_and_the_other_is_told(
    sizes: tuple[int, int], passes: int, database_url: str, tmp_path: Path
) -> None:
    applied = passes * 6
    if applied:
        sync_once(SyncSettings(write_records(tmp_path / "first", BLOCKS[:applied]), database_url, OUTCOMES))
    else:
        open_store(database_url, "consortium", mapping=read_mapping_file(OUTCOMES)).close()
    source = write_records(tmp_path / "blocks", BLOCKS)
    both = Barrier(2, timeout=30)
    met = []

    def meet_once() -> Hook:
        points: list[str] = []

        def hook(point: str) -> None:
            points.append(point)
            if points == [BEFORE_BEGIN]:
                both.wait()  # each has read the checkpoint, and neither has begun to write
                met.append(point)

        return hook

    with ThreadPoolExecutor(2) as pool:
        engines = [pool.submit(run, database_url, source, meet_once(), size) for size in sizes]
    outcomes = Counter(type(engine.exception(0)).__name__ for engine in engines)

    assert len(met) == 2
    assert outcomes == {"NoneType": 1, "CheckpointConflictError": 1}
    winner = next(engine for engine in engines if engine.exception(0) is None)
    assert winner.result(0).blocks == len(BLOCKS) - applied
    assert_tables_equal_oracle(database_url, BLOCKS, OUTCOMES)


@contextmanager
def paused_replay(url: str, source: Path, point: str, passes: int) -> Iterator["subprocess.Popen[str]"]:
    """Start a replay that pauses itself, and give it when it has."""
    arguments = [str(source), url, str(OUTCOMES), point, str(passes)]
    process = subprocess.Popen([sys.executable, "-c", PAUSED_REPLAY, *arguments], stdout=subprocess.PIPE, text=True)
    try:
        wait_until(lambda: psutil.Process(process.pid).status() == psutil.STATUS_STOPPED, "the engine has paused")
        yield process
    finally:
        process.kill()
        process.communicate()


def continued(process: "subprocess.Popen[str]") -> tuple[int, str]:
    """Let a paused process go on to its end; give its exit status and what it printed."""
    os.kill(process.pid, signal.SIGCONT)
    output, _ = process.communicate(timeout=40)
    return process.returncode, output.strip()


def test_an_engine_that_was_paused_while_another_worked_is_fenced_off(database_url: str, source: Path) -> None:
    with paused_replay(database_url, source, BEFORE_BEGIN, 1) as paused:
        assert_tables_equal_oracle(database_url, BLOCKS[:6], OUTCOMES)
        sync_once(SyncSettings(source, database_url, OUTCOMES))

        assert continued(paused) == (1, "checkpoint_conflict")

    assert_tables_equal_oracle(database_url, BLOCKS, OUTCOMES)


def test_an_engine_paused_inside_its_transaction_keeps_others_waiting_for_a_bounded_time(
    database_url: str, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with paused_replay(database_url, source, AFTER_ROWS, 1) as paused:
        monkeypatch.setattr(database, "LOCK_SECONDS", 1)

        with pytest.raises(errors.SinkUnavailableError) as waited:
            sync_once(SyncSettings(source, database_url, OUTCOMES))

        assert waited.value.retryable
        assert_tables_equal_oracle(database_url, BLOCKS[:6], OUTCOMES)
        assert continued(paused) == (0, "")
    assert_tables_equal_oracle(database_url, BLOCKS, OUTCOMES)


def test_two_processes_that_begin_with_an_empty_database_at_once_fill_it_once(database_url: str, source: Path) -> None:
    code = "from kvr_sync.main import sync; sync()"
    arguments = ["replay", str(source), "--database", database_url, "--mapping", str(OUTCOMES)]

    both = [
        subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    said = [process.communicate(timeout=50)[1] for process in both]

    assert all(
        process.returncode == 0 or (process.returncode == 1 and text.startswith("error[checkpoint_conflict]"))
        for process, text in zip(both, said, strict=True)
    ), said
    assert 0 in [process.returncode for process in both]
    assert_tables_equal_oracle(database_url, BLOCKS, OUTCOMES)
