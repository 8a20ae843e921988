"""`kvr sync run`, `follow` and `serve` on a peer: the same tables as from a file, and new blocks as they come."""

import json
import random
import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from fabric_protos.common import common_pb2

from kvr_sync import errors
from kvr_sync.engine import Engine, RunLimits
from kvr_sync.jobs import SyncSettings, sync_once
from kvr_sync.mapping.mapping_file import read_mapping_file
from kvr_sync.source.peer_source import open_peer_source
from kvr_sync.store.opening import open_store
from tests.support.command import kvr, kvr_running
from tests.support.comparison import assert_tables_equal_oracle
from tests.support.evidence import wait_until
from tests.support.recorded_chain import change_block, load_chain, write_records
from tests.support.recorded_peer import Fault, RecordedPeer, command_options, peer_settings, recorded_peer
from tests.support.tables import applied, query

ROOT = Path(__file__).parents[2]
OUTCOMES = ROOT / "tests" / "support" / "outcomes.mapping.yaml"
CHAIN = load_chain("fabric-3.1.5-raft")


def has_more_than(url: str, height: int) -> bool:
    return applied(url) > height


def wait_for_blocks(url: str, height: int, log: Path) -> None:
    wait_until(lambda: applied(url) == height, f"{height} blocks are applied; log: {log.read_text()}")


@contextmanager
def following(peers: tuple[RecordedPeer, ...], url: str, folder: Path) -> Iterator[tuple[Any, Path]]:
    log = folder / "follow.log"
    options = command_options(peer_settings(folder, peers))
    with kvr_running(log, "sync", "follow", *options, "--into", url, "--mapping", str(OUTCOMES)) as process:
        yield process, log


def events(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]


def test_run_to_the_tip_equals_the_replay_of_a_file(database_url: str, tmp_path: Path) -> None:
    with recorded_peer(CHAIN.blocks[:60]) as peer:
        settings = SyncSettings(peer_settings(tmp_path, [peer]), database_url, OUTCOMES)

        first = sync_once(settings)
        peer.append(*CHAIN.blocks[60:])
        second = sync_once(settings)
        third = sync_once(settings)

    assert (first.blocks, second.blocks, third.blocks) == (60, len(CHAIN.blocks) - 60, 0)
    assert_tables_equal_oracle(database_url, CHAIN.blocks, OUTCOMES)
    assert query(database_url, "SELECT outcome, blocks FROM sync_run ORDER BY run_id") == [
        ("ok", 60),
        ("ok", len(CHAIN.blocks) - 60),
        ("ok", 0),
    ]


def test_worker_processes_take_the_blocks_of_a_peer_too(sqlite_url: str, tmp_path: Path) -> None:
    mapping = read_mapping_file(OUTCOMES)
    limits = RunLimits(alone_bytes=1, range_bytes=100_000, workers=2)
    with (
        recorded_peer(CHAIN.blocks) as peer,
        open_peer_source(peer_settings(tmp_path, [peer])) as source,
        closing(open_store(sqlite_url, "consortium", mapping=mapping)) as sink,
    ):
        summary = Engine(source, sink, mapping, channel="consortium", limits=limits).run()

    assert summary.blocks == len(CHAIN.blocks)
    assert_tables_equal_oracle(sqlite_url, CHAIN.blocks, OUTCOMES)


def test_a_file_and_a_peer_take_turns(sqlite_url: str, tmp_path: Path) -> None:
    file = write_records(tmp_path / "blocks", CHAIN.blocks[:30])
    sync_once(SyncSettings(file, sqlite_url, OUTCOMES))
    with recorded_peer(CHAIN.blocks) as peer:
        sync_once(SyncSettings(peer_settings(tmp_path, [peer]), sqlite_url))

    assert peer.sent[0] == 29
    assert_tables_equal_oracle(sqlite_url, CHAIN.blocks, OUTCOMES)


def test_the_command_reports_as_replay_does(sqlite_url: str, tmp_path: Path) -> None:
    with recorded_peer(CHAIN.blocks) as peer:
        options = command_options(peer_settings(tmp_path, [peer]))
        pin = CHAIN.expected["genesis_sha256"]
        done = kvr("sync", "run", *options, "--into", sqlite_url, "--mapping", str(OUTCOMES), "--pin", pin, "--json")

    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert (facts["channel"], facts["anchor"], facts["blocks"]) == ("consortium", "pinned", len(CHAIN.blocks))
    assert "private" not in facts
    assert set(peer.asked) == {("Deliver", 0)}
    assert_tables_equal_oracle(sqlite_url, CHAIN.blocks, OUTCOMES)


def test_a_wrong_pin_is_refused_and_nothing_is_applied(sqlite_url: str, tmp_path: Path) -> None:
    with recorded_peer(CHAIN.blocks) as peer:
        settings = SyncSettings(peer_settings(tmp_path, [peer]), sqlite_url, OUTCOMES, pin=bytes(32))

        with pytest.raises(errors.KvrSyncError, match="pin"):
            sync_once(settings)

    assert applied(sqlite_url) == 0


def test_a_broken_connection_applies_every_block_once(database_url: str, tmp_path: Path) -> None:
    seed = random.randrange(2**32)  # noqa: S311  moments, not secrets
    moments = random.Random(seed)  # noqa: S311
    with recorded_peer(CHAIN.blocks) as one, recorded_peer(CHAIN.blocks) as two:
        for peer in (one, two):
            peer.faults.extend(Fault(moments.randrange(1, 30), "cut") for _ in range(2))

        sync_once(SyncSettings(peer_settings(tmp_path, [one, two]), database_url, OUTCOMES))

        assert len(one.asked) + len(two.asked) > 1, f"seed {seed}"
    assert_tables_equal_oracle(database_url, CHAIN.blocks, OUTCOMES)


def test_a_peer_that_leaves_a_block_out_stops_the_line_before_it(sqlite_url: str, tmp_path: Path) -> None:
    with recorded_peer(CHAIN.blocks) as peer:
        peer.faults.append(Fault(20, "skip"))

        with pytest.raises(errors.BlockNumberError, match="block 20 was expected, block 21 came"):
            sync_once(SyncSettings(peer_settings(tmp_path, [peer]), sqlite_url, OUTCOMES))

    assert_tables_equal_oracle(sqlite_url, CHAIN.blocks[:20], OUTCOMES)


def test_a_tampered_block_stops_the_line_before_it(sqlite_url: str, tmp_path: Path) -> None:
    def tamper(block: Any) -> None:
        block.data.data[0] = common_pb2.Block.FromString(CHAIN.blocks[19]).data.data[0]

    blocks = [*CHAIN.blocks[:20], change_block(CHAIN.blocks[20], tamper), *CHAIN.blocks[21:]]
    with recorded_peer(blocks) as peer:
        options = command_options(peer_settings(tmp_path, [peer]))
        done = kvr("sync", "run", *options, "--into", sqlite_url, "--mapping", str(OUTCOMES))

    assert done.returncode == 1
    assert "error[data_hash]: block 20" in done.stderr
    assert_tables_equal_oracle(sqlite_url, CHAIN.blocks[:20], OUTCOMES)


def test_a_peer_behind_the_tables_is_not_taken_for_the_tip(sqlite_url: str, tmp_path: Path) -> None:
    with recorded_peer(CHAIN.blocks[:40]) as peer:
        sync_once(SyncSettings(peer_settings(tmp_path, [peer]), sqlite_url, OUTCOMES))
        del peer.blocks[30:]

        with pytest.raises(errors.SourceBehindError):
            sync_once(SyncSettings(peer_settings(tmp_path, [peer]), sqlite_url, OUTCOMES))

    assert_tables_equal_oracle(sqlite_url, CHAIN.blocks[:40], OUTCOMES)


@pytest.mark.parametrize(
    ("status", "code"), [(common_pb2.FORBIDDEN, "access_denied"), (common_pb2.NOT_FOUND, "channel_not_found")]
)
@pytest.mark.parametrize("command", ["run", "follow"])
def test_a_refusal_ends_the_command_with_its_name(
    command: str, status: int, code: str, sqlite_url: str, tmp_path: Path
) -> None:
    with recorded_peer(CHAIN.blocks) as peer:
        peer.newest_status = status
        done = kvr("sync", command, *command_options(peer_settings(tmp_path, [peer])), "--into", sqlite_url)

    assert done.returncode == 1
    assert f"error[{code}]: channel consortium at {peer.address}" in done.stderr


def test_what_cannot_be_used_is_told_before_anything_is_made(sqlite_url: str, tmp_path: Path) -> None:
    with recorded_peer(CHAIN.blocks) as peer:
        good = peer_settings(tmp_path, [peer])
    cases = {
        "profile.json: No such file": good.__class__(tmp_path / "gone" / "profile.json", *_rest(good)),
        "no peer of OtherMSP": good.__class__(good.profile, "OtherMSP", good.identity, good.channel),
        "signcerts: No such file": good.__class__(good.profile, good.msp_id, tmp_path / "gone", good.channel),
        "has no peer peer9": good.__class__(good.profile, good.msp_id, good.identity, good.channel, "peer9"),
    }
    for text, settings in cases.items():
        with pytest.raises(errors.ConfigurationError, match=text):
            sync_once(SyncSettings(settings, sqlite_url, OUTCOMES))

    assert applied(sqlite_url) == -1


def _rest(settings: Any) -> tuple[Any, ...]:
    return settings.msp_id, settings.identity, settings.channel


def test_follow_applies_blocks_as_they_come_until_it_is_told_to_stop(database_url: str, tmp_path: Path) -> None:
    with (
        recorded_peer(CHAIN.blocks[:50]) as peer,
        following((peer,), database_url, tmp_path) as (process, log),
    ):
        wait_for_blocks(database_url, 50, log)
        for height in range(50, 55):
            peer.append(CHAIN.blocks[height])
            wait_for_blocks(database_url, height + 1, log)
        peer.append(*CHAIN.blocks[55:])
        wait_for_blocks(database_url, len(CHAIN.blocks), log)
        process.send_signal(signal.SIGTERM)

        assert process.wait(20) == 0, log.read_text()

    assert_tables_equal_oracle(database_url, CHAIN.blocks, OUTCOMES)
    found = events(log)
    assert [entry["event"] for entry in found if entry["event"].startswith("follower")] == [
        "follower_started",
        "follower_stopped",
    ]
    assert [entry["blocks"] for entry in found if entry["event"] == "blocks_followed"][-1] == len(CHAIN.blocks)
    assert query(database_url, "SELECT outcome, blocks FROM sync_run") == [("stopped", len(CHAIN.blocks))]


def test_follow_outlives_its_connections(sqlite_url: str, tmp_path: Path) -> None:
    with recorded_peer(CHAIN.blocks[:40]) as peer:
        peer.faults.extend([Fault(3, "cut"), Fault(9, "cut"), Fault(2, "", common_pb2.SERVICE_UNAVAILABLE)])
        address = peer.address
        with following((peer,), sqlite_url, tmp_path) as (process, log):
            wait_for_blocks(sqlite_url, 40, log)
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 0

    assert {entry["logger"].partition(".")[0] for entry in events(log)} == {"kvr_sync"}
    left = [entry for entry in events(log) if entry["event"] == "peer_left"]
    assert [(entry["peer"], entry["block_number"]) for entry in left] == [(address, 3), (address, 12), (address, 14)]
    assert_tables_equal_oracle(sqlite_url, CHAIN.blocks[:40], OUTCOMES)


def test_follow_waits_for_a_peer_that_is_not_there_yet_and_can_be_stopped(sqlite_url: str, tmp_path: Path) -> None:
    with recorded_peer(CHAIN.blocks) as peer:
        pass
    with following((peer,), sqlite_url, tmp_path) as (process, log):
        wait_until(lambda: "peer_left" in log.read_text(), "the absence is told")
        process.send_signal(signal.SIGTERM)

        assert process.wait(20) == 0, log.read_text()
    assert "run_failed" not in log.read_text()


def test_a_bad_block_ends_follow_with_its_error(sqlite_url: str, tmp_path: Path) -> None:
    with (
        recorded_peer(CHAIN.blocks[:10]) as peer,
        following((peer,), sqlite_url, tmp_path) as (process, log),
    ):
        wait_for_blocks(sqlite_url, 10, log)
        peer.append(CHAIN.blocks[11])

        assert process.wait(20) == 1

    assert "error[block_number]" in log.read_text()
    assert_tables_equal_oracle(sqlite_url, CHAIN.blocks[:10], OUTCOMES)


def test_kills_in_the_middle_of_following_lose_and_double_nothing(database_url: str, tmp_path: Path) -> None:
    with recorded_peer(CHAIN.blocks[:10]) as peer:
        for height in (10, 31, 52):
            with following((peer,), database_url, tmp_path) as (process, log):
                wait_for_blocks(database_url, height, log)
                peer.append(*CHAIN.blocks[height : height + 21])
                wait_until(partial(has_more_than, database_url, height), "some block is applied")
                process.kill()
                process.wait()
            so_far = applied(database_url)
            assert_tables_equal_oracle(database_url, CHAIN.blocks[:so_far], OUTCOMES)

        sync_once(SyncSettings(peer_settings(tmp_path, [peer]), database_url))

    assert_tables_equal_oracle(database_url, CHAIN.blocks[:73], OUTCOMES)


def test_serve_takes_peers_too(sqlite_url: str, tmp_path: Path) -> None:
    log = tmp_path / "serve.log"
    with recorded_peer(CHAIN.blocks[:20]) as peer:
        options = command_options(peer_settings(tmp_path, [peer]))
        rest = ("--into", sqlite_url, "--mapping", str(OUTCOMES), "--every", "200ms")
        with kvr_running(log, "sync", "serve", *options, *rest) as process:
            wait_for_blocks(sqlite_url, 20, log)
            peer.append(*CHAIN.blocks[20:40])
            wait_for_blocks(sqlite_url, 40, log)
            process.send_signal(signal.SIGTERM)

            assert process.wait(20) == 0, log.read_text()

    assert_tables_equal_oracle(sqlite_url, CHAIN.blocks[:40], OUTCOMES)


@pytest.mark.parametrize("options", [(), ("FILE", "--channel", "consortium"), ("--channel", "consortium")])
def test_serve_asks_for_a_file_or_for_peers(options: tuple[str, ...], sqlite_url: str) -> None:
    done = kvr("sync", "serve", *options, "--into", sqlite_url)

    assert done.returncode == 1
    assert "either FILE, or all of --profile, --msp-id, --identity and --channel" in done.stderr
