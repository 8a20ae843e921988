"""What the engine counts: each figure moves when what it counts happens, and only names and numbers are shown."""

import json
import re
import signal
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from kvr_sync import errors
from kvr_sync.engine import Engine, RunLimits
from kvr_sync.health import LIVE_SECONDS
from kvr_sync.jobs import SyncSettings, sync_once
from kvr_sync.mapping.mapping_file import read_mapping_file
from kvr_sync.metrics import ChannelWatch, Metrics
from kvr_sync.observation import STAGES
from kvr_sync.probe import probes
from kvr_sync.source.block_file import open_block_file
from kvr_sync.store.opening import open_store
from kvr_sync.store.sink import AFTER_COMMIT, BEFORE_COMMIT
from tests.support.command import kvr_running
from tests.support.evidence import wait_until
from tests.support.recorded_chain import load_chain, write_records
from tests.support.recorded_peer import command_options, peer_settings, recorded_peer
from tests.support.tables import query

ROOT = Path(__file__).parents[2]
OUTCOMES = ROOT / "tests" / "support" / "outcomes.mapping.yaml"
CHAIN = load_chain("fabric-3.1.5-raft")
CHANNEL = "consortium"
LIMIT = 60.0


class Seconds:
    """A clock that moves when it is told to, as seconds and as a time of day."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now

    def time(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.now)


@pytest.fixture
def seconds() -> Seconds:
    return Seconds()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def watch(metrics: Metrics, seconds: Seconds) -> ChannelWatch:
    return ChannelWatch(CHANNEL, metrics, clock=seconds.time, monotonic=seconds)


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"kvr_sync_{name}", {"channel": CHANNEL, **labels})


def test_names_and_labels_are_the_published_ones(metrics: Metrics) -> None:
    found = {
        metric.describe()[0].name: tuple(metric._labelnames)  # noqa: SLF001  told nowhere else
        for metric in vars(metrics).values()
        if hasattr(metric, "describe") and metric is not metrics.registry
    }

    assert found == {
        "kvr_sync_checkpoint_block": ("channel",),
        "kvr_sync_source_height": ("channel", "peer"),
        "kvr_sync_lag_blocks": ("channel",),
        "kvr_sync_oldest_unapplied_seconds": ("channel",),
        "kvr_sync_blocks_committed": ("channel",),
        "kvr_sync_stage_seconds": ("channel", "stage"),
        "kvr_sync_verification_failures": ("channel", "code"),
        "kvr_sync_quarantined": ("channel", "reason"),
        "kvr_sync_private_missing": ("channel",),
        "kvr_sync_unknown_commits": ("channel",),
        "kvr_sync_last_success_timestamp_seconds": ("channel",),
    }


@pytest.mark.parametrize("workers", [0, 2])
def test_blocks_stages_and_quarantine_are_counted(
    workers: int, sqlite_url: str, tmp_path: Path, metrics: Metrics, watch: ChannelWatch
) -> None:
    source = write_records(tmp_path / "blocks", CHAIN.blocks)
    mapping = read_mapping_file(OUTCOMES)
    limits = RunLimits(alone_bytes=1, range_bytes=100_000, workers=workers)

    with closing(open_store(sqlite_url, CHANNEL, mapping=mapping)) as sink:
        Engine(open_block_file(source), sink, mapping, channel=CHANNEL, limits=limits, observer=watch).run()

    assert value(metrics, "checkpoint_block") == len(CHAIN.blocks) - 1
    assert value(metrics, "blocks_committed_total") == len(CHAIN.blocks)
    by_reason = dict(query(sqlite_url, "SELECT reason, count(*) FROM ledger_quarantine GROUP BY reason"))
    assert by_reason
    assert {reason: value(metrics, "quarantined_total", reason=reason) for reason in by_reason} == by_reason
    for stage in STAGES:
        assert (value(metrics, "stage_seconds_count", stage=stage) or 0) > 0
        assert (value(metrics, "stage_seconds_sum", stage=stage) or 0) > 0


def test_a_block_that_does_not_check_out_is_counted_by_its_code(
    sqlite_url: str, tmp_path: Path, metrics: Metrics, watch: ChannelWatch
) -> None:
    spoiled = bytearray(CHAIN.blocks[12])
    spoiled[len(spoiled) // 2] ^= 1
    source = write_records(tmp_path / "blocks", [*CHAIN.blocks[:12], bytes(spoiled)])

    with pytest.raises(errors.DataHashError):
        sync_once(SyncSettings(source, sqlite_url, OUTCOMES), observer=watch)

    assert value(metrics, "verification_failures_total", code="data_hash") == 1
    assert value(metrics, "blocks_committed_total") == 12
    assert "stopped" in watch.health.unready(0, LIMIT)


def test_an_error_that_is_no_verdict_on_a_block_counts_as_none(
    sqlite_url: str, tmp_path: Path, metrics: Metrics, watch: ChannelWatch
) -> None:
    with pytest.raises(errors.SourceUnavailableError):
        sync_once(SyncSettings(tmp_path / "missing", sqlite_url, OUTCOMES), observer=watch)

    assert [sample for family in metrics.verification_failures.collect() for sample in family.samples] == []
    assert watch.health.unready(0, LIMIT) == ["database", "source"]


@pytest.mark.parametrize("point", [BEFORE_COMMIT, AFTER_COMMIT])
def test_lost_answers_to_commit_are_counted_and_blocks_once(
    point: str, sqlite_url: str, tmp_path: Path, metrics: Metrics, watch: ChannelWatch
) -> None:
    mapping = read_mapping_file(OUTCOMES)
    lost = 0

    def lose_the_second(name: str) -> None:
        nonlocal lost
        lost += name == point
        if name == point and lost == 2:
            message = "the answer to COMMIT was lost"
            raise errors.CommitOutcomeUnknownError(message)

    source = open_block_file(write_records(tmp_path / "blocks", CHAIN.blocks[:12]))
    assert value(metrics, "unknown_commits_total") == 0
    with closing(open_store(sqlite_url, CHANNEL, mapping=mapping, hook=lose_the_second)) as sink:
        limits = RunLimits(blocks=4)
        Engine(source, sink, mapping, channel=CHANNEL, limits=limits, observer=watch).run()

    assert value(metrics, "unknown_commits_total") == 1
    assert value(metrics, "blocks_committed_total") == 12


def test_heights_and_lag_follow_what_a_peer_has(
    sqlite_url: str, tmp_path: Path, metrics: Metrics, watch: ChannelWatch, seconds: Seconds
) -> None:
    with recorded_peer(CHAIN.blocks[:20]) as peer:
        sync_once(SyncSettings(peer_settings(tmp_path, [peer]), sqlite_url, OUTCOMES), observer=watch)

        assert value(metrics, "source_height", peer=peer.address) == 20
        assert (value(metrics, "lag_blocks"), value(metrics, "oldest_unapplied_seconds")) == (0, 0)
        assert value(metrics, "last_success_timestamp_seconds") == seconds.time().timestamp()

        watch.peer_seen(peer.address, 23, is_newest=True)
        seconds.now += 7

    assert value(metrics, "source_height", peer=peer.address) == 23
    assert (value(metrics, "lag_blocks"), value(metrics, "oldest_unapplied_seconds")) == (3, 7)


def test_missing_private_values_are_counted(
    sqlite_url: str, tmp_path: Path, metrics: Metrics, watch: ChannelWatch
) -> None:
    """The chain has private data of collections that the organisation is a member of; the peer hands out none."""
    with recorded_peer(CHAIN.blocks) as peer:
        settings = peer_settings(tmp_path, [peer], private_data=True)
        sync_once(SyncSettings(settings, sqlite_url, OUTCOMES), observer=watch)

    (missing,) = query(sqlite_url, "SELECT count(*) FROM ledger_private_value WHERE due_at IS NOT NULL")[0]
    assert missing > 0
    assert value(metrics, "private_missing") == missing


# --- health


def test_ready_when_source_and_database_serve_and_the_lag_is_small(watch: ChannelWatch, seconds: Seconds) -> None:
    def unready() -> list[str]:
        return watch.health.unready(watch.heights.lag_seconds(), LIMIT)

    assert unready() == ["database", "source"]
    watch.run_began(5)
    assert unready() == ["source"]
    watch.peer_connected(connected=True)
    watch.peer_seen("peer", 6)
    assert unready() == []
    seconds.now += LIMIT + 1
    assert unready() == ["lag"]
    watch.committed(5, 1, {"wrong_type": 1_000_000})
    assert unready() == []
    watch.database_answered(answers=False)
    assert unready() == ["database"]
    watch.database_answered(answers=True)
    watch.peer_connected(connected=False)
    assert unready() == ["source"]


def test_live_as_long_as_the_loop_goes_round(watch: ChannelWatch, seconds: Seconds) -> None:
    seconds.now += LIVE_SECONDS - 1
    assert watch.health.is_live()
    seconds.now += 2
    assert not watch.health.is_live()
    watch.tick()
    assert watch.health.is_live()


# --- the port


def get(port: int | None, path: str) -> tuple[int, str, Any]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers["Content-Type"], error.read().decode()


@contextmanager
def serving(metrics: Metrics, watch: ChannelWatch) -> Iterator[int | None]:
    with probes(metrics, [watch], host="127.0.0.1", port=0, ready_lag_seconds=LIMIT) as port:
        yield port


def test_the_port_answers_for_metrics_and_health(metrics: Metrics, watch: ChannelWatch, seconds: Seconds) -> None:
    with serving(metrics, watch) as port:
        status, kind, content = get(port, "/metrics")
        assert status == 200
        assert kind.startswith("text/plain; version=")
        assert f'kvr_sync_unknown_commits_total{{channel="{CHANNEL}"}} 0.0' in content

        unready = {"ready": False, "channels": {CHANNEL: ["database", "source"]}}
        assert (get(port, "/ready")[0], json.loads(get(port, "/ready")[2])) == (503, unready)
        watch.run_done()
        assert get(port, "/ready")[0] == 200
        assert get(port, "/live")[0] == 200
        seconds.now += LIVE_SECONDS + 1
        assert json.loads(get(port, "/live")[2]) == {"live": False, "channels": {CHANNEL: False}}
        assert get(port, "/live")[0] == 503

        assert get(port, "/")[0] == 404
        assert get(port, "/../../etc/passwd")[0] == 404


@pytest.mark.parametrize(
    "request_bytes", [b"\0" * 100, b"GET " + b"/" * 70_000, b"POST /metrics HTTP/1.1\r\n\r\n", b""]
)
def test_a_strange_client_ends_nothing(request_bytes: bytes, metrics: Metrics, watch: ChannelWatch) -> None:
    with serving(metrics, watch) as port:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
            client.sendall(request_bytes)
            client.shutdown(socket.SHUT_WR)
            while client.recv(65536):
                pass

        assert get(port, "/metrics")[0] == 200


def test_a_port_that_is_taken_is_named(metrics: Metrics, watch: ChannelWatch) -> None:
    with (
        serving(metrics, watch) as port,
        pytest.raises(errors.ConfigurationError, match=f"127.0.0.1:{port}"),
        probes(metrics, [watch], host="127.0.0.1", port=port, ready_lag_seconds=LIMIT),
    ):
        pass


def test_follow_opens_its_port_and_tells_how_it_stands(database_url: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with recorded_peer(CHAIN.blocks[:10]) as peer:
        options = command_options(peer_settings(tmp_path, [peer]))
        rest = ("--into", database_url, "--mapping", str(OUTCOMES), "--metrics-port", "0")
        with kvr_running(log, "sync", "follow", *options, *rest) as process:
            found = wait_until(
                lambda: re.search(r'"address": "127\.0\.0\.1:(\d+)"', log.read_text()), "the port is told"
            )
            port = int(found[1])
            wait_until(lambda: get(port, "/ready")[0] == 200, f"it is ready; log: {log.read_text()}")
            wait_until(lambda: "kvr_sync_blocks_committed_total" in get(port, "/metrics")[2], "blocks are counted")
            wait_until(
                lambda: f'kvr_sync_checkpoint_block{{channel="{CHANNEL}"}} 9.0' in get(port, "/metrics")[2],
                "all are applied",
            )
            assert get(port, "/live")[0] == 200
            peer.append(*CHAIN.blocks[10:12])
            wait_until(lambda: query(database_url, "SELECT max(height) FROM sync_peer") == [(12,)], "it is recorded")
            process.send_signal(signal.SIGTERM)

            assert process.wait(20) == 0, log.read_text()

    status = "SELECT channel, block_number, height, peer_height, lag_blocks, lag_seconds FROM sync_status"
    assert query(database_url, status) == [(CHANNEL, 11, 12, 12, 0, 0)]
