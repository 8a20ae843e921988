"""The view `sync_status`, and `kvr sync status`, which shows the same."""

import json
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from kvr_sync import heartbeat as heartbeats
from kvr_sync.jobs import SyncSettings, sync_once
from kvr_sync.lag import PeerSight
from kvr_sync.observation import Observer
from kvr_sync.read import SyncStatus, open_tables, read_sync_status
from kvr_sync.store.opening import open_store
from kvr_sync.store.peer_heights import PeerHeights
from tests.support.command import kvr
from tests.support.recorded_chain import load_chain, write_records
from tests.support.recorded_peer import peer_settings, recorded_peer
from tests.support.tables import query

ROOT = Path(__file__).parents[2]
OUTCOMES = ROOT / "tests" / "support" / "outcomes.mapping.yaml"
CHAIN = load_chain("fabric-3.1.5-raft")
COLUMNS = ", ".join(SyncStatus._fields)


def shown(url: str) -> dict[str, Any]:
    return dict(zip(SyncStatus._fields, query(url, f"SELECT {COLUMNS} FROM sync_status")[0], strict=True))  # noqa: S608


def see(url: str, *sights: PeerSight) -> None:
    """Record what peers were seen to have, as an engine does."""
    with closing(open_store(url, "consortium")) as sink, closing(PeerHeights(sink)) as heights:
        heights.record(sights, [sight.peer for sight in sights])


def test_there_is_one_row_before_the_first_block(database_url: str) -> None:
    open_store(database_url, "consortium").close()

    assert shown(database_url) == {
        **dict.fromkeys(SyncStatus._fields),
        "height": 0,
        "quarantined": 0,
        "private_missing": 0,
        "private_ready": True,
    }


def test_blocks_from_a_file_have_no_peer_to_be_behind(database_url: str, tmp_path: Path) -> None:
    sync_once(SyncSettings(write_records(tmp_path / "blocks", CHAIN.blocks[:30]), database_url, OUTCOMES))

    row = shown(database_url)
    assert (row["channel"], row["block_number"], row["height"]) == ("consortium", 29, 30)
    assert (row["peer_height"], row["lag_blocks"], row["lag_seconds"]) == (None, None, None)
    assert row["mapping_version"] == 1
    ((entries, still_open),) = query(
        database_url, "SELECT count(*), count(*) - count(closed_block) FROM ledger_quarantine"
    )
    assert entries > still_open == row["quarantined"] > 0


def test_a_run_records_what_its_peer_has(database_url: str, tmp_path: Path) -> None:
    with recorded_peer(CHAIN.blocks[:30]) as peer:
        sync_once(SyncSettings(peer_settings(tmp_path, [peer]), database_url, OUTCOMES))

        assert query(database_url, "SELECT peer, height, behind_since FROM sync_peer") == [(peer.address, 30, None)]
    row = shown(database_url)
    assert (row["height"], row["peer_height"], row["lag_blocks"], row["lag_seconds"]) == (30, 30, 0, 0)
    assert row["peer_seen_at"] is not None


def test_lag_is_that_to_the_furthest_peer_since_its_block_was_seen(database_url: str, tmp_path: Path) -> None:
    sync_once(SyncSettings(write_records(tmp_path / "blocks", CHAIN.blocks[:30]), database_url, OUTCOMES))
    now = datetime.now(UTC)  # noqa: TID251  the database's own clock is compared with it
    see(
        database_url,
        PeerSight("near:1", 30, now, None),
        PeerSight("far:1", 33, now, now - timedelta(seconds=90)),
    )

    row = shown(database_url)
    assert (row["peer_height"], row["lag_blocks"]) == (33, 3)
    assert 90 <= row["lag_seconds"] < 150
    with open_tables(database_url) as synced:
        status = read_sync_status(synced)
    assert status.lag_blocks == 3
    assert status.peer_seen_at == now


def test_a_time_ahead_of_the_database_gives_no_negative_lag(database_url: str, tmp_path: Path) -> None:
    sync_once(SyncSettings(write_records(tmp_path / "blocks", CHAIN.blocks[:5]), database_url, OUTCOMES))
    ahead = datetime.now(UTC) + timedelta(hours=3)  # noqa: TID251
    see(database_url, PeerSight("peer:1", 6, ahead, ahead))

    assert (shown(database_url)["lag_blocks"], shown(database_url)["lag_seconds"]) == (1, 0)


def test_rows_of_peers_that_are_read_no_more_go(database_url: str) -> None:
    now = datetime.now(UTC)  # noqa: TID251
    open_store(database_url, "consortium").close()
    see(database_url, PeerSight("old:1", 9, now, None))
    see(database_url, PeerSight("new:1", 4, now, None))

    assert query(database_url, "SELECT peer, height FROM sync_peer") == [("new:1", 4)]


def test_a_restarted_engine_knows_since_when_it_has_been_behind(database_url: str) -> None:
    since = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    with closing(open_store(database_url, "consortium")) as sink:
        see(database_url, PeerSight("peer:1", 9, since, since))
        observer = Observer()

        with heartbeats.heartbeat(sink, observer, ["peer:1"]):
            assert observer.heights.behind_since() == since

        observer.heights.applied(9)
        assert observer.heights.behind_since() is None


def test_a_database_that_takes_no_writes_is_told_and_ends_nothing(sqlite_url: str, tmp_path: Path) -> None:
    told = []

    class Watching(Observer):
        def database_answered(self, *, answers: bool) -> None:
            told.append(answers)

    with closing(open_store(sqlite_url, "consortium")) as sink:
        (tmp_path / "kvr.db").rename(tmp_path / "away.db")
        (tmp_path / "kvr.db").mkdir()
        with heartbeats.heartbeat(sink, Watching(), ["peer:1"]):
            pass

    assert told == [False, False]


@pytest.mark.parametrize("as_json", [False, True])
def test_the_command_shows_what_the_view_says(as_json: bool, database_url: str, tmp_path: Path) -> None:
    with recorded_peer(CHAIN.blocks[:30]) as peer:
        sync_once(SyncSettings(peer_settings(tmp_path, [peer]), database_url, OUTCOMES))

    done = kvr("sync", "status", "--database", database_url, *(["--json"] if as_json else []))

    assert done.returncode == 0, done.stderr
    if as_json:
        facts = json.loads(done.stdout)
        assert (facts["height"], facts["peer_height"], facts["lag_blocks"], facts["lag_seconds"]) == (30, 30, 0, 0)
        assert (facts["mapping_version"], facts["private_missing"]) == (1, 0)
    else:
        assert "behind the peers by 0 blocks, 0.0 s; they had 30 blocks at" in done.stdout
