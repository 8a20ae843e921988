"""Worker processes change how fast a run is and nothing else: same tables, same summary, same errors."""

import logging
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from kvr_sync import errors
from kvr_sync.engine import Engine, Progress, RunLimits, RunSummary
from kvr_sync.mapping.mapping_file import read_mapping_file
from kvr_sync.model import Checkpoint, RowBatch
from kvr_sync.source.block_file import open_block_file
from kvr_sync.store.opening import open_store
from kvr_sync.store.rows import Run as BlockRows
from tests.support.comparison import assert_tables_equal_oracle
from tests.support.recorded_chain import ALL_CHAINS, RecordedChain, change_block, load_chain, write_records
from tests.support.tables import query

ROOT = Path(__file__).parents[2]
SERVICE_WEEK = ROOT / "network" / "demo_data" / "service-week.mapping.yaml"
OUTCOMES = ROOT / "tests" / "support" / "outcomes.mapping.yaml"
SMALL_RANGES = RunLimits(range_bytes=30_000, alone_bytes=1)


def mapping_of(chain: RecordedChain) -> Path:
    return SERVICE_WEEK if chain.name.endswith("week") else OUTCOMES


class Run:
    """One run of the engine, and how many of its blocks came from workers."""

    def __init__(self, source: Path, url: str, mapping: Path, *, workers: int = 2) -> None:
        self.prepared_blocks = 0
        self._open = lambda: open_store(url, "consortium", mapping=read_mapping_file(mapping))
        self._source = source
        self._workers = workers

    def run(
        self,
        on_progress: Callable[[Progress], None] = lambda _: None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> RunSummary:
        with closing(self._open()) as sink:
            commit, commit_run = sink.commit, sink.commit_run

            def counted(expected: Checkpoint | None, batches: Sequence[RowBatch], *rest: Any, **named: Any) -> None:
                commit(expected, batches, *rest, **named)
                self.prepared_blocks -= len(batches)

            def counted_run(expected: Checkpoint | None, rows: BlockRows, *rest: Any, **named: Any) -> None:
                commit_run(expected, rows, *rest, **named)
                self.prepared_blocks += len(rows.blocks)

            # Counted, not replaced; `commit` writes through `commit_run`.
            sink.commit, sink.commit_run = counted, counted_run
            engine = Engine(
                open_block_file(self._source),
                sink,
                sink.mapping,
                channel="consortium",
                limits=SMALL_RANGES._replace(workers=self._workers),
            )
            return engine.run(on_progress=on_progress, should_stop=should_stop)


@pytest.mark.parametrize("name", ALL_CHAINS)
def test_workers_give_the_same_tables_and_the_same_summary(name: str, database_url: str, tmp_path: Path) -> None:
    chain = load_chain(name)
    with_workers = Run(chain.path, database_url, mapping_of(chain))
    alone = Run(chain.path, f"sqlite:///{tmp_path / 'alone.db'}", mapping_of(chain), workers=0)

    summary, expected = with_workers.run(), alone.run()

    assert_tables_equal_oracle(database_url, chain.blocks, mapping_of(chain))
    assert replace(summary, seconds=0) == replace(expected, seconds=0)
    assert alone.prepared_blocks == 0
    assert with_workers.prepared_blocks > len(chain.blocks) // 3


def test_a_run_shorter_than_the_limit_starts_no_workers(sqlite_url: str) -> None:
    chain = load_chain("fabric-3.1.5-raft")
    seen: set[int] = set()
    with closing(open_store(sqlite_url, "consortium", mapping=read_mapping_file(OUTCOMES))) as sink:
        limits = RunLimits(workers=2)
        engine = Engine(open_block_file(chain.path), sink, sink.mapping, channel="consortium", limits=limits)
        engine.run(on_progress=lambda _: seen.update(_workers()))

    assert seen == set()


def test_a_later_run_goes_on_with_workers(database_url: str, tmp_path: Path) -> None:
    chain = load_chain("fabric-3.1.5-service-week")
    Run(write_records(tmp_path / "part", chain.blocks[:120]), database_url, SERVICE_WEEK).run()
    rest = Run(chain.path, database_url, SERVICE_WEEK)

    summary = rest.run()

    assert summary.blocks == len(chain.blocks) - 120
    assert rest.prepared_blocks > 200
    assert_tables_equal_oracle(database_url, chain.blocks, SERVICE_WEEK)


FAULTS: dict[str, tuple[type[errors.KvrSyncError], Callable[[bytes], bytes]]] = {
    "another data hash": (errors.DataHashError, lambda b: change_block(b, _change_data_hash)),
    "a flag": (errors.CommitHashError, lambda b: change_block(b, _flip_flag)),
    "no signature": (errors.BlockSignatureError, lambda b: change_block(b, _drop_signature)),
    "no block": (errors.DecodeError, lambda _: b"\xff\xff"),
}


def _change_data_hash(message: Any) -> None:
    message.header.data_hash = bytes(32)


def _flip_flag(message: Any) -> None:
    flags = bytearray(message.metadata.metadata[2])
    flags[0] = 10 if flags[0] == 0 else 0
    message.metadata.metadata[2] = bytes(flags)


def _drop_signature(message: Any) -> None:
    message.metadata.metadata[0] = b""


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_block_stops_the_run_with_the_same_error_after_the_same_blocks(
    fault: str, database_url: str, tmp_path: Path
) -> None:
    chain = load_chain("fabric-3.1.5-service-week")
    expected, spoil = FAULTS[fault]
    bad = 300
    blocks = [*chain.blocks[:bad], spoil(chain.blocks[bad]), *chain.blocks[bad + 1 :]]
    source = write_records(tmp_path / "blocks", blocks)
    alone = f"sqlite:///{tmp_path / 'alone.db'}"
    messages = []
    for url, workers in ((database_url, 2), (alone, 0)):
        with pytest.raises(expected) as raised:
            Run(source, url, SERVICE_WEEK, workers=workers).run()
        messages.append(str(raised.value))

    assert messages[0] == messages[1]
    assert_tables_equal_oracle(database_url, chain.blocks[:bad], SERVICE_WEEK)


def test_a_lost_worker_costs_time_and_nothing_else(database_url: str, caplog: pytest.LogCaptureFixture) -> None:
    chain = load_chain("fabric-3.1.5-service-week")
    run = Run(chain.path, database_url, SERVICE_WEEK)
    killed: list[int] = []

    def kill_one(_: Progress) -> None:
        for pid in _workers() if not killed else ():
            psutil.Process(pid).kill()
            killed.append(pid)
            break

    with caplog.at_level(logging.WARNING, "kvr_sync.worker_pool"):
        summary = run.run(kill_one)

    assert killed
    assert "worker_lost" in caplog.messages
    assert summary.blocks == len(chain.blocks)
    assert_tables_equal_oracle(database_url, chain.blocks, SERVICE_WEEK)


def test_a_stop_ends_the_workers_and_leaves_whole_blocks(database_url: str) -> None:
    chain = load_chain("fabric-3.1.5-service-week")
    run = Run(chain.path, database_url, SERVICE_WEEK)
    seen: set[int] = set()

    summary = run.run(lambda _: seen.update(_workers()), lambda: bool(seen))

    assert 1 < summary.blocks < len(chain.blocks)
    assert _workers() == []
    assert query(database_url, "SELECT block_number FROM ledger_checkpoint") == [(summary.checkpoint.block_number,)]
    assert_tables_equal_oracle(database_url, chain.blocks[: summary.blocks], SERVICE_WEEK)


def _workers() -> list[int]:
    """Processes of ours that are workers."""
    found = []
    for child in psutil.Process().children():
        try:
            if "kvr_sync.worker" in child.cmdline():
                found.append(child.pid)
        except psutil.NoSuchProcess:
            continue
    return found
