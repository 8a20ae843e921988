"""`kvr sync serve`: tables that keep up with a growing file, on a schedule, until told to stop."""

import json
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from threading import Event
from typing import Any

import psycopg
import pytest
from sqlalchemy import make_url

from kvr_sync import errors
from kvr_sync.jobs import SyncSettings, sync_once
from kvr_sync.mapping.mapping_file import read_mapping_file
from kvr_sync.service import ScheduledChannel, SyncService
from kvr_sync.store.opening import open_store
from tests.support.command import kvr, kvr_running
from tests.support.comparison import assert_tables_equal_oracle
from tests.support.evidence import wait_until
from tests.support.postgresql import fresh_database, own_server
from tests.support.postgresql_proxy import Fault, PostgresqlProxy, postgresql_proxy
from tests.support.recorded_chain import load_chain, write_records
from tests.support.tables import applied, holds, query

ROOT = Path(__file__).parents[2]
OUTCOMES = ROOT / "tests" / "support" / "outcomes.mapping.yaml"
CHAIN = load_chain("fabric-3.1.5-raft")
EVERY = 0.2


@dataclass
class Service:
    """A service that runs, its file, its database and its log."""

    process: "subprocess.Popen[str]"
    source: Path
    url: str
    log: Path

    def append(self, *blocks: bytes) -> None:
        with self.source.open("ab") as file:
            for block in blocks:
                file.write(struct.pack(">I", len(block)) + block)

    def wait_for_blocks(self, height: int) -> None:
        wait_until(lambda: applied(self.url) == height, f"{height} blocks are applied; log: {self.log.read_text()}")

    def end(self) -> int:
        return self.process.wait(30)

    def events(self) -> list[dict[str, Any]]:
        """Give the lines of the log; the line that a person gets at the end is no JSON."""
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]


@contextmanager
def serving(source: Path, url: str, log: Path) -> Iterator[Service]:
    options = ("--database", url, "--mapping", str(OUTCOMES), "--every", f"{EVERY * 1000:.0f}ms")
    with kvr_running(log, "sync", "serve", str(source), *options) as process:
        yield Service(process, source, url, log)


def runs(url: str) -> list[tuple[Any, ...]]:
    return query(
        url,
        "SELECT outcome, first_block, last_block, blocks, transactions, error_code FROM sync_run ORDER BY run_id",
    )


def transactions(blocks: Sequence[tuple[int, int]]) -> int:
    """Count the recorded transactions of the blocks in these ranges."""
    numbers = {number for first, last in blocks for number in range(first, last + 1)}
    return sum(entry["block"] in numbers for entry in CHAIN.expected["transactions"])


def test_blocks_appended_to_the_file_show_up_until_it_is_told_to_stop(database_url: str, tmp_path: Path) -> None:
    source = write_records(tmp_path / "blocks", CHAIN.blocks[:10])
    with serving(source, database_url, tmp_path / "log") as service:
        service.wait_for_blocks(10)
        service.append(*CHAIN.blocks[10:13])
        service.wait_for_blocks(13)
        service.append(CHAIN.blocks[13])
        service.wait_for_blocks(14)

        service.process.terminate()

        assert service.end() == 0
    assert_tables_equal_oracle(database_url, CHAIN.blocks[:14], OUTCOMES)
    working = [run for run in runs(database_url) if run[3]]
    assert [run[1:4] for run in working] == [(0, 9, 10), (10, 12, 3), (13, 13, 1)]
    assert [run[4] for run in working] == [transactions([(first, last)]) for _, first, last, *_ in working]
    assert {run[0] for run in runs(database_url)} <= {"ok", "stopped"}
    assert [event["event"] for event in service.events()][-1] == "service_stopped"


def test_a_record_is_taken_when_all_of_it_is_there(sqlite_url: str, tmp_path: Path) -> None:
    source = write_records(tmp_path / "blocks", CHAIN.blocks[:5])
    torn = struct.pack(">I", len(CHAIN.blocks[5])) + CHAIN.blocks[5]
    with serving(source, sqlite_url, tmp_path / "log") as service:
        service.wait_for_blocks(5)
        with source.open("ab") as file:
            file.write(torn[:900])
        before = len(runs(sqlite_url))
        wait_until(lambda: len(runs(sqlite_url)) > before + 2, "two more runs have seen the torn record")
        assert applied(sqlite_url) == 5
        with source.open("ab") as file:
            file.write(torn[900:])
        service.wait_for_blocks(6)

        service.process.terminate()

        assert service.end() == 0
    assert_tables_equal_oracle(sqlite_url, CHAIN.blocks[:6], OUTCOMES)


def test_it_waits_for_a_file_that_is_not_there_yet(sqlite_url: str, tmp_path: Path) -> None:
    with serving(tmp_path / "blocks", sqlite_url, tmp_path / "log") as service:
        wait_until(
            lambda: [event for event in service.events() if event["event"] == "source_unavailable"], "it has looked"
        )
        write_records(tmp_path / "complete", CHAIN.blocks[:4]).rename(tmp_path / "blocks")
        service.wait_for_blocks(4)

        service.process.send_signal(signal.SIGINT)  # Ctrl-C

        assert service.end() == 0


def test_a_tampered_block_ends_it_with_the_error_and_the_good_blocks_stay(database_url: str, tmp_path: Path) -> None:
    source = write_records(tmp_path / "blocks", CHAIN.blocks[:10])
    spoiled = bytearray(CHAIN.blocks[12])
    spoiled[len(spoiled) // 2] ^= 1
    with serving(source, database_url, tmp_path / "log") as service:
        service.wait_for_blocks(10)

        service.append(*CHAIN.blocks[10:12], bytes(spoiled))

        assert service.end() == 1
    assert_tables_equal_oracle(database_url, CHAIN.blocks[:12], OUTCOMES)
    last_line = service.log.read_text().splitlines()[-1]
    assert last_line.startswith("error[data_hash]: block 12")
    assert runs(database_url)[-1][0::5] == ("failed", "data_hash")
    assert [event["event"] for event in service.events()][-2:] == ["run_stopped", "service_stopped"]


def test_a_failed_run_records_what_it_applied_before_it_failed(database_url: str, tmp_path: Path) -> None:
    spoiled = bytearray(CHAIN.blocks[12])
    spoiled[len(spoiled) // 2] ^= 1
    sync_once(SyncSettings(write_records(tmp_path / "first", CHAIN.blocks[:5]), database_url, OUTCOMES))
    source = write_records(tmp_path / "blocks", [*CHAIN.blocks[:12], bytes(spoiled)])

    for _ in range(2):
        with pytest.raises(errors.DataHashError):
            sync_once(SyncSettings(source, database_url, OUTCOMES))

    assert runs(database_url)[1:] == [
        ("failed", 5, 11, 7, transactions([(5, 11)]), "data_hash"),
        ("failed", None, None, 0, 0, "data_hash"),
    ]


def test_a_run_that_is_asked_to_stop_ends_at_a_whole_block(database_url: str, tmp_path: Path) -> None:
    source = write_records(tmp_path / "blocks", CHAIN.blocks[:20])
    asked = iter([False] * 6)

    summary = sync_once(SyncSettings(source, database_url, OUTCOMES), should_stop=lambda: next(asked, True))

    assert summary.blocks == 7
    assert_tables_equal_oracle(database_url, CHAIN.blocks[:7], OUTCOMES)
    assert runs(database_url) == [("stopped", 0, 6, 7, transactions([(0, 6)]), None)]
    sync_once(SyncSettings(source, database_url, OUTCOMES))
    assert_tables_equal_oracle(database_url, CHAIN.blocks[:20], OUTCOMES)


@contextmanager
def writers_locked_out(url: str, table: str) -> Iterator["psycopg.Connection[Any]"]:
    """Hold a lock that lets readers of a table through and keeps writers waiting."""
    address = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(address) as session:
        session.execute(f"LOCK TABLE consortium.{table} IN SHARE MODE")
        yield session


def waiting_sessions(url: str) -> list[tuple[str | None]]:
    return query(
        url,
        "SELECT wait_event_type FROM pg_stat_activity"
        " WHERE datname = current_database() AND application_name = 'kvr-sync'",
    )


def has_fired(proxy: PostgresqlProxy, times: int) -> bool:
    return proxy.fired >= times


def terminate_inside_a_transaction(service: Service, url: str) -> None:
    wait_until(lambda: ("Lock",) in waiting_sessions(url), "the rows of a run are on their way")
    service.process.terminate()
    with pytest.raises(subprocess.TimeoutExpired):
        service.process.wait(5 * EVERY)


def test_a_signal_inside_a_transaction_lets_it_end(postgresql_url: str, tmp_path: Path) -> None:
    open_store(postgresql_url, "consortium", mapping=read_mapping_file(OUTCOMES)).close()
    source = write_records(tmp_path / "blocks", CHAIN.blocks[:10])
    with serving(source, postgresql_url, tmp_path / "log") as service:
        with writers_locked_out(postgresql_url, "ledger_block"):
            terminate_inside_a_transaction(service, postgresql_url)

        assert service.end() == 0

    assert_tables_equal_oracle(postgresql_url, CHAIN.blocks[:10], OUTCOMES)
    assert runs(postgresql_url) == [("stopped", 0, 9, 10, transactions([(0, 9)]), None)]
    # Intervals that a long run sits out are no news.
    told = [event["event"] for event in service.events() if event["event"] != "database_not_durable"]
    assert told == ["service_settings", "service_started", "run_done", "service_stopped"]


INTERRUPTED = """
import logging, os, signal, sys, threading
from pathlib import Path
from kvr_sync.jobs import SyncSettings
from kvr_sync.service import ScheduledChannel, SyncService

remaining = 0

def interrupt(frame, event, argument):
    global interrupted, remaining
    if event == "line":
        remaining -= 1
        if remaining == 0:
            interrupted = late.is_alive()
            signal.raise_signal(signal.SIGTERM)
    return interrupt

class Begin(logging.Handler):
    def emit(self, record):
        if record.msg == "service_started":
            sys.settrace(interrupt)
            sys._getframe(4).f_trace = interrupt  # of `serve`, which is waiting for this line to be logged

logging.getLogger("kvr_sync.service").addHandler(Begin())
logging.getLogger("kvr_sync.service").setLevel(logging.INFO)
for moment in range(1, 16):
    remaining, interrupted = moment, False
    service = SyncService([ScheduledChannel(SyncSettings(Path("missing"), "sqlite:///missing.db"), 60)])
    signal.signal(signal.SIGTERM, lambda *_: service.stop())
    late = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM))
    late.start()
    service.serve()
    sys.settrace(None)
    late.cancel()
    print(moment, "interrupted" if interrupted else "later", flush=True)
"""


def test_a_signal_at_any_moment_of_waiting_stops_it() -> None:
    """A signal handler runs between any two lines of the main thread, those among them where it holds a lock."""
    found = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, timeout=40, check=False)

    assert found.returncode == 0, found.stderr
    assert found.stdout.splitlines()[0] == "1 interrupted"
    assert len(found.stdout.splitlines()) == 15


def test_there_are_never_two_runs_at_once(postgresql_url: str, tmp_path: Path) -> None:
    sync_once(SyncSettings(write_records(tmp_path / "first", CHAIN.blocks[:3]), postgresql_url))
    source = write_records(tmp_path / "blocks", CHAIN.blocks[:10])
    service = SyncService([ScheduledChannel(SyncSettings(source, postgresql_url, growing=True), 0.02)])
    pause = Event()
    with ThreadPoolExecutor(1) as pool:
        with writers_locked_out(postgresql_url, "ledger_block"):
            serving_thread = pool.submit(service.serve)
            wait_until(lambda: ("Lock",) in waiting_sessions(postgresql_url), "a run is in its transaction")
            seen = []
            for _ in range(20):  # as long as fifty intervals
                seen.append(len(waiting_sessions(postgresql_url)))
                pause.wait(0.05)
            running = [run for run in runs(postgresql_url) if run[0] == "running"]
        wait_until(lambda: applied(postgresql_url) == 10, "the run went on")
        service.stop()
        serving_thread.result(30)

    assert set(seen) == {1}
    assert len(running) == 1
    spans = query(postgresql_url, "SELECT started_at, ended_at FROM sync_run ORDER BY run_id")
    assert all(ended <= started for (_, ended), (started, _) in pairwise(spans))


def test_a_database_that_goes_away_for_a_while_does_not_end_it(postgresql_url: str, tmp_path: Path) -> None:
    source = write_records(tmp_path / "blocks", CHAIN.blocks[:5])
    with postgresql_proxy(postgresql_url) as proxy, serving(source, proxy.url, tmp_path / "log") as service:
        wait_until(lambda: applied(postgresql_url) == 5, "the first blocks are applied")
        proxy.refuse(True)
        proxy.cut()
        service.append(*CHAIN.blocks[5:8])
        wait_until(
            lambda: [event for event in service.events() if event.get("code") == "sink_unavailable"],
            "a run has failed for want of a database",
        )
        assert applied(postgresql_url) == 5

        proxy.refuse(False)

        wait_until(lambda: applied(postgresql_url) == 8, "it went on by itself")
        service.process.terminate()
        assert service.end() == 0
    assert_tables_equal_oracle(postgresql_url, CHAIN.blocks[:8], OUTCOMES)


def test_a_lost_answer_to_any_commit_of_a_run_does_not_end_it(postgresql_url: str, tmp_path: Path) -> None:
    begin, end = "INSERT INTO consortium.sync_run", "UPDATE consortium.sync_run"
    blocks = "UPDATE consortium.ledger_checkpoint"
    hit = [begin, end, blocks, *[""] * 9]  # then the first COMMIT from now, the second, ...: more than a run has
    source = write_records(tmp_path / "blocks", CHAIN.blocks[:5])
    with postgresql_proxy(postgresql_url) as proxy, serving(source, proxy.url, tmp_path / "log") as service:
        wait_until(lambda: applied(postgresql_url) == 5, "the first blocks are applied")
        for times, statement in enumerate(hit, start=1):
            proxy.break_commit(Fault.SWALLOW_ANSWER, nth=1 if statement else times - 3, of=statement)
            if statement == blocks:
                service.append(CHAIN.blocks[4 + times])
            wait_until(partial(has_fired, proxy, times), "an answer is lost")
            if statement != blocks:
                service.append(CHAIN.blocks[4 + times])
            wait_until(partial(holds, postgresql_url, 5 + times), "it went on by itself")
        service.process.terminate()

        assert service.end() == 0
        events = service.events()
    failures = [event["code"] for event in events if event["event"] == "run_failed"]
    assert failures.count("commit_outcome_unknown") >= 2, "the records of a run's begin and end were not hit"
    assert [event["event"] for event in events].count("commit_outcome_unknown") >= 1, "no run of blocks was hit"
    assert_tables_equal_oracle(postgresql_url, CHAIN.blocks[: 5 + len(hit)], OUTCOMES)


# --- several channels, from a settings file

OTHER = load_chain("kvr-3.1.5-raft")


def settings_file(folder: Path, text: str) -> Path:
    path = folder / "kvr.yaml"
    path.write_text(text)
    return path


def test_channels_of_one_service_go_their_own_ways(sqlite_url: str, tmp_path: Path) -> None:
    """One is wrong and stops with its error; the other goes on until it is told to stop."""
    spoiled = bytearray(CHAIN.blocks[6])
    spoiled[len(spoiled) // 2] ^= 1
    good = write_records(tmp_path / "good", OTHER.blocks[:5])
    write_records(tmp_path / "bad", [*CHAIN.blocks[:6], bytes(spoiled)])
    other_url = f"sqlite:///{tmp_path / 'other.db'}"
    settings = settings_file(
        tmp_path,
        f"""\
metrics: {{port: 0}}
channels:
  - {{file: bad, database: "{sqlite_url}", every: 200ms}}
  - {{file: good, database: "{other_url}", every: 200ms}}
""",
    )
    log = tmp_path / "log"
    with kvr_running(log, "sync", "serve", "--settings", str(settings)) as process:
        wait_until(lambda: "run_stopped" in log.read_text(), "the wrong one has stopped")
        wait_until(lambda: applied(other_url) == 5, "the other has begun")
        with good.open("ab") as file:
            file.write(struct.pack(">I", len(OTHER.blocks[5])) + OTHER.blocks[5])
        wait_until(lambda: applied(other_url) == 6, "the other goes on")
        process.terminate()

        assert process.wait(30) == 1

    assert applied(sqlite_url) == 6
    assert log.read_text().splitlines()[-1].startswith("error[data_hash]: block 6")
    told = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    assert [entry["event"] for entry in told].count("run_stopped") == 1
    assert told[0]["event"] == "service_settings"
    assert [channel["every"] for channel in told[0]["settings"]["channels"]] == ["200ms", "200ms"]


def test_a_second_signal_ends_it_at_once_and_without_damage(postgresql_url: str, tmp_path: Path) -> None:
    open_store(postgresql_url, "consortium", mapping=read_mapping_file(OUTCOMES)).close()
    source = write_records(tmp_path / "blocks", CHAIN.blocks[:10])
    with serving(source, postgresql_url, tmp_path / "log") as service:
        with writers_locked_out(postgresql_url, "ledger_block"):
            terminate_inside_a_transaction(service, postgresql_url)
            service.process.terminate()

            assert service.end() == 128 + signal.SIGTERM
        wait_until(lambda: not waiting_sessions(postgresql_url), "the server has noticed")

    assert applied(postgresql_url) == 0
    sync_once(SyncSettings(source, postgresql_url, OUTCOMES))
    assert_tables_equal_oracle(postgresql_url, CHAIN.blocks[:10], OUTCOMES)


def test_production_refuses_a_server_that_may_lose_commits(tmp_path: Path) -> None:
    with own_server(durable=False) as server, fresh_database(server) as database:
        url = database.render_as_string(hide_password=False)
        settings = settings_file(
            tmp_path,
            f"""\
environment: production
database: "{url}"
metrics: {{port: 0}}
channels:
  - {{file: blocks, channel: consortium, mapping: service, pin: "{"00" * 32}"}}
""",
        )

        done = kvr("sync", "serve", "--settings", str(settings))

        assert done.returncode == 1
        assert "fsync, full_page_writes off: what was acknowledged may be lost" in done.stderr
        assert applied(url) == -1


def test_options_and_a_settings_file_are_not_mixed(tmp_path: Path) -> None:
    done = kvr("sync", "serve", "blocks", "--settings", str(settings_file(tmp_path, "channels: []")))

    assert "--settings has the channels; leave out file" in done.stderr


def test_jobs_that_are_due_are_done_beside_the_runs(sqlite_url: str, tmp_path: Path) -> None:
    source = write_records(tmp_path / "blocks", CHAIN.blocks[:3])
    for _ in range(5):
        sync_once(SyncSettings(source, sqlite_url))
    channel = ScheduledChannel(SyncSettings(source, sqlite_url, growing=True), 0.1, kept_runs=2)
    service = SyncService([channel], due_seconds=0.1)
    with ThreadPoolExecutor(1) as pool:
        serving_thread = pool.submit(service.serve)
        wait_until(lambda: query(sqlite_url, "SELECT succeeded_at FROM sync_job") not in ([], [(None,)]), "it is done")
        service.stop()
        serving_thread.result(30)

    assert query(sqlite_url, "SELECT job, error_code FROM sync_job") == [("retention", None)]
    assert query(sqlite_url, "SELECT min(run_id) FROM sync_run")[0][0] > 2
