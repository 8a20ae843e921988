"""`--archive`: what the database holds, the archive holds, and all public tables come back from it without a peer."""

import json
import signal
import sqlite3
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from fabric_protos.peer.lifecycle import db_pb2
from typer.testing import CliRunner

from kvr_sync import errors
from kvr_sync.archive.archive_source import ArchiveSource
from kvr_sync.engine import Engine, Progress, RunLimits, RunSummary
from kvr_sync.jobs import SyncSettings, sync_once
from kvr_sync.main import sync
from kvr_sync.mapping.mapping_file import read_mapping_file
from kvr_sync.service import ScheduledChannel, SyncService
from kvr_sync.source.block_file import open_block_file
from kvr_sync.store.opening import open_store
from kvr_sync.store.sink import BEFORE_COMMIT, Hook, no_hook
from network.protocol.collection import CollectionConfig, encode_collections, members_policy
from network.protocol.private_data import collections_field_key
from tests.support.archived import (
    CHANNEL,
    archived_contents,
    opened,
    segment_files,
    write_archive,
)
from tests.support.chain_factory import ChainFactory, TransactionSpec, private_set, put
from tests.support.command import kvr, kvr_running
from tests.support.comparison import assert_tables_equal_oracle
from tests.support.evidence import wait_until
from tests.support.recorded_chain import ALL_CHAINS, load_chain, write_records
from tests.support.recorded_peer import Fault, command_options, peer_settings, recorded_peer
from tests.support.tables import applied, holds, query

ROOT = Path(__file__).parents[2]
OUTCOMES = ROOT / "tests" / "support" / "outcomes.mapping.yaml"
SERVICE_WEEK = ROOT / "network" / "demo_data" / "service-week.mapping.yaml"
CHAIN = load_chain("fabric-3.1.5-raft")
BLOCKS = CHAIN.blocks


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Give a directory that is not there yet."""
    return tmp_path / "archive"


@pytest.fixture
def other_url(tmp_path: Path) -> str:
    """Give a second database."""
    return f"sqlite:///{tmp_path / 'other.db'}"


def replay(blocks: Sequence[bytes], url: str, archive: Path | None, folder: Path, **options: Any) -> RunSummary:
    """Bring the tables up to the end of these blocks."""
    source = write_records(folder / "blocks", tuple(blocks))
    return sync_once(SyncSettings(source, url, OUTCOMES, archive=archive), **options)


def run(
    source: Path, url: str, archive: Path, *, limits: RunLimits, hook: Hook = no_hook, wall_clock: int = 0
) -> RunSummary:
    """Run the engine itself."""
    mapping = read_mapping_file(OUTCOMES)
    with opened(archive) as kept, closing(open_store(url, CHANNEL, mapping=mapping, hook=hook)) as sink:
        engine = Engine(
            open_block_file(source),
            sink,
            mapping,
            channel=CHANNEL,
            archive=kept,
            limits=limits,
            wall_clock=lambda: wall_clock,
        )
        return engine.run()


# --- all of it comes back


@pytest.mark.parametrize("name", ALL_CHAINS)
def test_the_archive_of_a_run_gives_the_same_tables_without_the_source(
    name: str, database_url: str, archive: Path, other_url: str
) -> None:
    chain = load_chain(name)
    mapping = SERVICE_WEEK if name.endswith("week") else OUTCOMES
    sync_once(SyncSettings(chain.path, other_url, mapping, archive=archive))

    summary = sync_once(
        SyncSettings(archive, database_url, mapping, pin=bytes.fromhex(chain.expected["genesis_sha256"]))
    )

    assert archived_contents(archive / CHANNEL) == list(chain.blocks)
    assert (summary.blocks, summary.anchor) == (len(chain.blocks), "pinned")
    assert_tables_equal_oracle(database_url, chain.blocks, mapping)


def test_blocks_that_workers_prepared_are_kept_too(database_url: str, archive: Path) -> None:
    limits = RunLimits(alone_bytes=1, range_bytes=30_000, workers=2)

    run(CHAIN.path, database_url, archive, limits=limits)

    assert archived_contents(archive / CHANNEL) == list(BLOCKS)
    assert_tables_equal_oracle(database_url, BLOCKS, OUTCOMES)


def test_the_blocks_of_each_commit_are_one_frame_and_are_there_before_it(sqlite_url: str, archive: Path) -> None:
    heights: list[tuple[int, int]] = []

    def look(point: str) -> None:
        if point == BEFORE_COMMIT:
            heights.append((len(archived_contents(archive / CHANNEL)), applied(sqlite_url)))

    run(CHAIN.path, sqlite_url, archive, limits=RunLimits(blocks=30), hook=look)

    assert heights == [(30, 0), (60, 30), (75, 60)]
    facts = json.loads(CliRunner().invoke(sync, ["archive", "verify", str(archive), "--json"]).stdout)
    assert facts[0]["frames"] == 3


@pytest.mark.parametrize("workers", [0, 2])
def test_when_a_block_was_first_seen_is_kept_through_a_replay(
    workers: int, database_url: str, other_url: str, archive: Path
) -> None:
    first, second = archive / "first", archive / "second"
    limits = RunLimits(alone_bytes=1, range_bytes=100_000, workers=workers)
    run(CHAIN.path, other_url, first, limits=limits, wall_clock=1_793_000_000_123_456_789)

    run(first, database_url, second, limits=limits, wall_clock=2_000_000_000_000_000_000)

    times = "SELECT block_number, first_seen_at FROM ledger_block ORDER BY block_number"
    rebuilt = [(number, str(time)[:19].replace("T", " ")) for number, time in query(database_url, times)]
    assert rebuilt == [(number, "2026-10-26 07:33:20") for number in range(len(BLOCKS))]

    for folder in (first, second):
        seen = {raw.first_seen for raw in ArchiveSource(folder / CHANNEL).blocks(0)}
        assert seen == {1_793_000_000_123_456_789}


def test_a_peer_is_kept_as_it_is_followed(sqlite_url: str, other_url: str, archive: Path, tmp_path: Path) -> None:
    with recorded_peer(BLOCKS[:20]) as peer:
        options = command_options(peer_settings(tmp_path, [peer]))
        run_once = kvr(
            "sync", "run", *options, "--into", sqlite_url, "--mapping", str(OUTCOMES), "--archive", str(archive)
        )
        assert run_once.returncode == 0, run_once.stderr
        log = tmp_path / "log"
        with kvr_running(log, "sync", "follow", *options, "--into", sqlite_url, "--archive", str(archive)) as follower:
            for height in range(21, 25):
                peer.append(BLOCKS[height - 1])
                wait_until(partial(holds, sqlite_url, height), f"block {height}; {log.read_text()}")
                assert len(archived_contents(archive / CHANNEL)) == height
            follower.send_signal(signal.SIGTERM)
            assert follower.wait(30) == 0

    sync_once(SyncSettings(archive, other_url, OUTCOMES))

    assert_tables_equal_oracle(other_url, BLOCKS[:24], OUTCOMES)


def test_a_service_on_an_archive_goes_on_as_it_grows(database_url: str, archive: Path, tmp_path: Path) -> None:
    write_archive(archive, BLOCKS[:10])
    log = tmp_path / "log"
    options = ("--database", database_url, "--mapping", str(OUTCOMES), "--every", "200ms")
    with kvr_running(log, "sync", "serve", str(archive), *options) as service:
        wait_until(lambda: applied(database_url) == 10, f"the first blocks; {log.read_text()}")
        write_archive(archive, BLOCKS[:14])
        wait_until(lambda: applied(database_url) == 14, f"the next blocks; {log.read_text()}")
        service.terminate()

        assert service.wait(30) == 0
    assert_tables_equal_oracle(database_url, BLOCKS[:14], OUTCOMES)


def test_a_service_keeps_an_archive(sqlite_url: str, archive: Path, tmp_path: Path) -> None:
    source = write_records(tmp_path / "blocks", BLOCKS[:10])
    log = tmp_path / "log"
    options = ("--database", sqlite_url, "--every", "200ms", "--archive", str(archive))
    with kvr_running(log, "sync", "serve", str(source), *options) as service:
        wait_until(lambda: applied(sqlite_url) == 10, f"the first blocks; {log.read_text()}")
        service.terminate()
        assert service.wait(30) == 0

    assert archived_contents(archive / CHANNEL) == list(BLOCKS[:10])


# --- the database decides


@pytest.mark.parametrize("ahead", [1, 15])
def test_blocks_beyond_the_checkpoint_stay_where_the_source_gives_the_same(
    ahead: int, database_url: str, archive: Path, tmp_path: Path
) -> None:
    replay(BLOCKS[:30], database_url, archive, tmp_path)
    write_archive(archive, BLOCKS[: 30 + ahead], per_frame=4)
    (file,) = segment_files(archive / CHANNEL)
    before = file.read_bytes()

    replay(BLOCKS, database_url, archive, tmp_path)

    assert file.read_bytes().startswith(before)
    assert archived_contents(archive / CHANNEL) == list(BLOCKS)
    assert_tables_equal_oracle(database_url, BLOCKS, OUTCOMES)


def test_a_lost_database_is_built_again_beside_its_archive(other_url: str, archive: Path, tmp_path: Path) -> None:
    replay(BLOCKS[:40], f"sqlite:///{tmp_path / 'lost.db'}", archive, tmp_path)
    (file,) = segment_files(archive / CHANNEL)
    before = file.read_bytes()

    replay(BLOCKS[:40], other_url, archive, tmp_path)

    assert file.read_bytes() == before
    assert_tables_equal_oracle(other_url, BLOCKS[:40], OUTCOMES)


def forked(end: bytes) -> list[bytes]:
    """Give a validly signed chain that is the same for every end, but for its last block."""
    factory = ChainFactory()
    factory.block([TransactionSpec([put("a", b"1")])])
    factory.block([TransactionSpec([put("a", end)])])
    return factory.blocks


@pytest.mark.parametrize("applied_before", [0, 2])
def test_a_fork_beyond_the_checkpoint_stops_the_engine_and_nothing_of_it_is_applied(
    applied_before: int, database_url: str, archive: Path, tmp_path: Path
) -> None:
    one, two = forked(b"2"), forked(b"3")
    assert (one[:2], one[2] != two[2]) == (two[:2], True)
    if applied_before:
        replay(one[:2], database_url, None, tmp_path)
    write_archive(archive, one)

    with pytest.raises(errors.ForkError, match="both were verified") as fork:
        replay(two, database_url, archive, tmp_path)

    assert fork.value.block_number == 2
    assert_tables_equal_oracle(database_url, one[:applied_before], OUTCOMES)
    assert archived_contents(archive / CHANNEL) == one


def test_an_archive_of_another_chain_is_refused_before_anything_is_applied(
    database_url: str, archive: Path, tmp_path: Path
) -> None:
    write_archive(archive, load_chain("fabric-3.1.5-bft").blocks)

    with pytest.raises(errors.ArchiveMismatchError, match="another chain"):
        replay(BLOCKS, database_url, archive, tmp_path)

    assert applied(database_url) == 0


@pytest.mark.parametrize("held", [0, 12])
def test_what_an_archive_lacks_below_the_checkpoint_is_fetched_again(
    held: int, database_url: str, archive: Path, tmp_path: Path
) -> None:
    replay(BLOCKS[:40], database_url, None, tmp_path)
    write_archive(archive, BLOCKS[:held])
    reports: list[Progress] = []

    summary = replay(BLOCKS, database_url, archive, tmp_path, on_progress=reports.append)

    assert summary.blocks == len(BLOCKS) - 40
    assert reports[0].blocks == 0
    assert archived_contents(archive / CHANNEL) == list(BLOCKS)
    assert_tables_equal_oracle(database_url, BLOCKS, OUTCOMES)


def test_a_peer_is_asked_for_what_an_archive_lacks(sqlite_url: str, archive: Path, tmp_path: Path) -> None:
    replay(BLOCKS[:40], sqlite_url, None, tmp_path)
    with recorded_peer(BLOCKS) as peer:
        peer.faults.append(Fault(7, "cut"))

        sync_once(SyncSettings(peer_settings(tmp_path, [peer]), sqlite_url, archive=archive))

    assert archived_contents(archive / CHANNEL) == list(BLOCKS)
    assert_tables_equal_oracle(sqlite_url, BLOCKS, OUTCOMES)


def test_where_the_source_lacks_it_too_nothing_is_applied(sqlite_url: str, archive: Path, tmp_path: Path) -> None:
    replay(BLOCKS[:40], sqlite_url, None, tmp_path)

    with pytest.raises(errors.BlocksNotHeldError, match="go on without the archive"):
        replay(BLOCKS[30:], sqlite_url, archive, tmp_path)

    assert_tables_equal_oracle(sqlite_url, BLOCKS[:40], OUTCOMES)
    replay(BLOCKS[30:], sqlite_url, None, tmp_path)
    assert_tables_equal_oracle(sqlite_url, BLOCKS, OUTCOMES)


def test_a_run_that_is_stopped_while_it_fetches_applies_nothing(sqlite_url: str, archive: Path, tmp_path: Path) -> None:
    replay(BLOCKS[:40], sqlite_url, None, tmp_path)

    summary = replay(BLOCKS, sqlite_url, archive, tmp_path, should_stop=lambda: True)

    assert (summary.blocks, applied(sqlite_url)) == (0, 40)
    assert query(sqlite_url, "SELECT outcome FROM sync_run ORDER BY run_id") == [("ok",), ("stopped",)]


def test_a_tail_that_a_crash_tore_is_fetched_again(database_url: str, archive: Path, tmp_path: Path) -> None:
    replay(BLOCKS[:40], database_url, archive, tmp_path)
    (file,) = segment_files(archive / CHANNEL)
    file.write_bytes(file.read_bytes()[:-100])

    replay(BLOCKS, database_url, archive, tmp_path)

    assert archived_contents(archive / CHANNEL) == list(BLOCKS)
    assert_tables_equal_oracle(database_url, BLOCKS, OUTCOMES)


def test_an_older_database_goes_on_with_a_newer_archive(sqlite_url: str, archive: Path, tmp_path: Path) -> None:
    """A restored backup: rows go back, the archive does not."""
    replay(BLOCKS[:20], sqlite_url, archive, tmp_path)
    path = sqlite_url.removeprefix("sqlite:///")
    with closing(sqlite3.connect(path)) as now, closing(sqlite3.connect(tmp_path / "backup.db")) as backup:
        now.backup(backup)
    replay(BLOCKS[:50], sqlite_url, archive, tmp_path)

    replay(BLOCKS, f"sqlite:///{tmp_path / 'backup.db'}", archive, tmp_path)

    assert archived_contents(archive / CHANNEL) == list(BLOCKS)
    assert_tables_equal_oracle(f"sqlite:///{tmp_path / 'backup.db'}", BLOCKS, OUTCOMES)


# --- what is refused


def test_a_second_engine_is_refused_before_it_makes_anything(sqlite_url: str, archive: Path, tmp_path: Path) -> None:
    with opened(archive), pytest.raises(errors.ArchiveInUseError, match="in use by process"):
        replay(BLOCKS, sqlite_url, archive, tmp_path)

    assert not Path(sqlite_url.removeprefix("sqlite:///")).exists()


@pytest.mark.parametrize("named_as", ["directory", "folder", "link", "dots"])
def test_an_archive_is_not_replayed_into_itself(named_as: str, sqlite_url: str, archive: Path, tmp_path: Path) -> None:
    folder = write_archive(archive, BLOCKS[:3])
    (tmp_path / "link").symlink_to(archive)
    source = {
        "directory": archive,
        "folder": folder,
        "link": tmp_path / "link",
        "dots": archive / ".." / "archive",
    }[named_as]

    with pytest.raises(errors.ConfigurationError, match="is the archive that is replayed; name another directory"):
        sync_once(SyncSettings(source, sqlite_url, archive=archive))

    assert not Path(sqlite_url.removeprefix("sqlite:///")).exists()
    assert archived_contents(folder) == list(BLOCKS[:3])


def test_a_damaged_archive_stops_the_run_before_anything_is_applied(
    sqlite_url: str, archive: Path, tmp_path: Path
) -> None:
    folder = write_archive(archive, BLOCKS[:20], per_frame=5)
    (file,) = segment_files(folder)
    file.write_bytes(b"spoilt" + file.read_bytes()[6:])

    with pytest.raises(errors.ArchiveDamagedError, match=f"{file}, byte 0: "):
        replay(BLOCKS, sqlite_url, archive, tmp_path)

    assert applied(sqlite_url) == -1


def test_a_bad_block_is_not_kept_and_the_good_ones_before_it_are(
    database_url: str, archive: Path, tmp_path: Path
) -> None:
    spoilt = bytearray(BLOCKS[40])
    spoilt[len(spoilt) // 2] ^= 1

    with pytest.raises(errors.VerificationError):
        replay([*BLOCKS[:40], bytes(spoilt), *BLOCKS[41:]], database_url, archive, tmp_path)

    assert archived_contents(archive / CHANNEL) == list(BLOCKS[:40])
    assert_tables_equal_oracle(database_url, BLOCKS[:40], OUTCOMES)


def test_a_service_goes_on_when_the_archive_is_free_again(
    sqlite_url: str, archive: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = write_records(tmp_path / "blocks", BLOCKS[:10])
    service = SyncService([ScheduledChannel(SyncSettings(source, sqlite_url, growing=True, archive=archive), 0.05)])
    with ThreadPoolExecutor(1) as pool:
        with opened(archive):
            running = pool.submit(service.serve)
            wait_until(
                lambda: [record for record in caplog.records if record.__dict__.get("code") == "archive_in_use"],
                "a run has come upon the lock",
            )
            assert not running.done()
        wait_until(lambda: applied(sqlite_url) == 10 or running.done(), "the blocks are applied")
        service.stop()

    running.result(0)
    assert archived_contents(archive / CHANNEL) == list(BLOCKS[:10])


# --- never private values

CANARY = b"canary-private-0f3c1e"


def test_no_private_value_gets_into_an_archive(sqlite_url: str, archive: Path, tmp_path: Path) -> None:
    factory = ChainFactory()
    config = CollectionConfig("secrets", members_policy("EnterpriseMSP"))
    state = db_pb2.StateData(Bytes=encode_collections([config])).SerializeToString()
    factory.block([TransactionSpec([put(collections_field_key("ext").decode(), state, namespace="_lifecycle")])])
    secret = TransactionSpec(
        [put("public", b"seen by all"), put("key-" + CANARY.decode(), CANARY, collection="secrets")]
    )
    factory.block([secret])
    with recorded_peer(factory.blocks, {2: {0: private_set(secret)}}) as peer:
        settings = peer_settings(tmp_path, [peer], private_data=True)
        sync_once(SyncSettings(settings, sqlite_url, archive=archive))

    held = query(sqlite_url, "SELECT value FROM ledger_private_value")
    assert [bytes(row[0]) for row in held] == [CANARY]
    kept = b"".join(archived_contents(archive / CHANNEL))
    files = b"".join(path.read_bytes() for path in archive.rglob("*") if path.is_file())
    assert kept == b"".join(factory.blocks)
    assert b"seen by all" in kept
    assert CANARY not in kept + files


# --- commands


def command(*arguments: str | Path) -> tuple[int, str, str]:
    result = CliRunner().invoke(sync, [*map(str, arguments)], env={"COLUMNS": "200"})
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


def test_verify_and_status_tell_in_words_and_for_machines(archive: Path) -> None:
    folder = write_archive(archive, BLOCKS)
    size = segment_files(folder)[0].stat().st_size

    status, words, _ = command("archive", "verify", archive)
    assert status == 0
    assert words.startswith(
        f"{folder}: channel consortium, 75 blocks, 79 transactions in 15 frames, 1 file, {size:,} bytes"
    )
    (facts,) = json.loads(command("archive", "verify", archive, "--json")[1])
    assert (facts["folder"], facts["channel"], facts["blocks"]) == (str(folder), "consortium", 75)
    assert command("archive", "status", archive)[1] == (
        f"{folder}: blocks 0 to 74, 1 file, {size:,} bytes; no engine writes to it\n"
    )
    (facts,) = json.loads(command("archive", "status", archive, "--json")[1])
    assert facts == {
        "folder": str(folder),
        "segments": 1,
        "size_bytes": size,
        "first_block": 0,
        "last_block": 74,
        "torn_bytes": 0,
        "holder": None,
    }


@pytest.mark.parametrize("verb", ["verify", "status"])
def test_a_place_without_an_archive_is_named(verb: str, tmp_path: Path) -> None:
    message = f"{tmp_path}: there is no archive of blocks"

    assert command("archive", verb, tmp_path) == (1, "", f"error[configuration_error]: {message}\n")
    machine = json.loads(command("archive", verb, tmp_path, "--json")[1])
    assert machine == {"error": {"code": "configuration_error", "message": message, "outcome": "not_applied"}}


def test_verify_ends_with_the_damage_and_status_1(archive: Path) -> None:
    folder = write_archive(archive, BLOCKS)
    (file,) = segment_files(folder)
    content = bytearray(file.read_bytes())
    content[200] ^= 1
    file.write_bytes(content)

    status, words, said = command("archive", "verify", archive)

    assert (status, words) == (1, "")
    assert said.startswith(f"error[archive_damaged]: {file}, byte 0: the content of the frame is not what was written")
