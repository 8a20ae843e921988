"""A database restored from a backup holds what was erased since: nobody relies on it before that is erased again."""

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from kvr_sync import errors
from kvr_sync.follower import SyncFollower
from kvr_sync.jobs import SyncSettings
from kvr_sync.metrics import ChannelWatch, Metrics
from kvr_sync.read import TableQuery, open_tables, read_sync_status, read_table, status_facts
from kvr_sync.store.opening import open_store
from kvr_sync.store.peer_heights import PeerHeights
from tests.support.chain_factory import purge
from tests.support.evidence import wait_until
from tests.support.private_chain import PROFILES, Chain, bring, secret
from tests.support.recorded_peer import Fault, peer_settings, recorded_peer
from tests.support.tables import query

CHANNEL, MEMBER = "consortium", "EnterpriseMSP"
CANARY = "canary-of-the-backup"


@pytest.fixture
def mapping(tmp_path: Path) -> Path:
    path = tmp_path / "secrets.yaml"
    path.write_text(PROFILES.replace("entCust", "secrets"))
    return path


def names(url: str, as_of: int | None = None) -> list[Any]:
    with open_tables(url, CHANNEL) as synced:
        return [row["name"] for row in read_table(synced, TableQuery("customer_profiles", as_of=as_of)).rows]


def refuses(read: Callable[[], object]) -> bool:
    try:
        read()
    except errors.TablesBehindError:
        return True
    return False


def test_a_restored_backup_is_not_ready_before_it_has_passed_where_the_peers_stood(
    sqlite_url: str, mapping: Path, tmp_path: Path
) -> None:
    chain = Chain()
    written = chain.write(secret("a", json.dumps({"name": CANARY}).encode()))
    bring(tmp_path, sqlite_url, chain.blocks, chain.private, mapping=mapping)
    file, backup = tmp_path / "kvr.db", tmp_path / "backup.db"
    shutil.copy(file, backup)
    chain.write(purge("a", collection="secrets"))
    chain.pad(2)
    bring(tmp_path, sqlite_url, chain.blocks, chain.private, mapping=mapping)
    for part in tmp_path.glob("kvr.db*"):
        part.unlink()
    shutil.copy(backup, file)
    watch = ChannelWatch(CHANNEL, Metrics())
    assert watch.unready(60) == ["database", "source"]

    with recorded_peer(chain.blocks, {}) as peer, ThreadPoolExecutor(1) as pool:
        peer.faults.extend(Fault(0, "cut") for _ in range(10_000))
        source = peer_settings(tmp_path, [peer], private_data=True)
        follower = SyncFollower(SyncSettings(source, sqlite_url, mapping, growing=True), observer=watch)
        following = pool.submit(follower.follow)
        try:
            wait_until(lambda: refuses(lambda: names(sqlite_url)), "private rows are refused")
            assert refuses(lambda: names(sqlite_url, as_of=written))
            assert "catching_up" in watch.unready(60)
            with open_tables(sqlite_url, CHANNEL) as synced:
                assert status_facts(synced)["private_ready"] is False
            peer.faults.clear()
            wait_until(lambda: not refuses(lambda: names(sqlite_url)), "private rows are read again", seconds=40)
            wait_until(lambda: watch.unready(60) == [], "it is ready")
        finally:
            follower.stop()
            following.result(30)

    assert (names(sqlite_url), names(sqlite_url, as_of=written)) == ([], [None])
    with open_tables(sqlite_url, CHANNEL) as synced:
        assert read_sync_status(synced).private_ready
    assert CANARY.encode() not in b"".join(path.read_bytes() for path in tmp_path.glob("kvr.db*"))


def test_where_the_peers_stood_is_kept_and_never_taken_back(database_url: str, mapping: Path, tmp_path: Path) -> None:
    chain = Chain()
    chain.write(secret("a", b'{"name": "one"}'))
    bring(tmp_path, database_url, chain.blocks, chain.private, mapping=mapping)
    last = chain.factory.height - 1
    assert names(database_url) == ["one"]

    with (
        closing(open_store(database_url, CHANNEL, private_member=MEMBER)) as sink,
        closing(PeerHeights(sink)) as heights,
    ):
        heights.expect_block(last + 1)
        heights.expect_block(last)

    assert query(database_url, "SELECT ready_block FROM ledger_private_member") == [(last + 1,)]
    assert refuses(lambda: names(database_url))
    with open_tables(database_url, CHANNEL) as synced:
        assert not read_sync_status(synced).private_ready
    chain.pad(1)
    bring(tmp_path, database_url, chain.blocks, chain.private, mapping=mapping)
    assert names(database_url) == ["one"]
