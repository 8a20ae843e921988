"""Backups made as the page for operators says are restored, and the engine goes on from them."""

import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import URL, make_url

from kvr_sync.jobs import SyncSettings, sync_once
from tests.support.command import kvr
from tests.support.comparison import assert_tables_equal_oracle
from tests.support.postgresql import fresh_database, own_server, wheel_program
from tests.support.recorded_chain import RecordedChain, load_chain, write_records
from tests.support.tables import query

WEEK = Path(__file__).parents[2] / "network" / "demo_data" / "service-week.mapping.yaml"
COPIED_AT = 150


@pytest.fixture
def chain() -> RecordedChain:
    return load_chain("fabric-3.1.5-service-week")


def go_on(chain: RecordedChain, url: str) -> None:
    """Check that a restored database is as it was, and that the rest of the chain is added."""
    assert_tables_equal_oracle(url, chain.blocks[:COPIED_AT], WEEK)
    examined = kvr("sync", "doctor", "--database", url)
    assert examined.returncode == 0, examined.stdout

    summary = sync_once(SyncSettings(chain.path, url))

    assert summary.blocks == len(chain.blocks) - COPIED_AT
    assert_tables_equal_oracle(url, chain.blocks, WEEK)
    numbers = query(url, "SELECT kvr_change_id FROM service_requests_changes ORDER BY kvr_change_id")
    assert numbers == [(number,) for number in range(1, len(numbers) + 1)]


def test_a_dump_of_postgresql_is_restored_and_work_goes_on(chain: RecordedChain, tmp_path: Path) -> None:
    dump = tmp_path / "consortium.dump"
    with own_server(durable=False) as server, fresh_database(server) as live, fresh_database(server) as restored:
        url = live.render_as_string(hide_password=False)
        sync_once(SyncSettings(write_records(tmp_path / "blocks", chain.blocks[:COPIED_AT]), url, WEEK))
        program("pg_dump", "--format=custom", f"--file={dump}", address(live))
        sync_once(SyncSettings(chain.path, url))

        program("pg_restore", "--no-owner", "--exit-on-error", f"--dbname={address(restored)}", str(dump))

        go_on(chain, restored.render_as_string(hide_password=False))


def address(url: URL) -> str:
    return url.set(drivername="postgresql").render_as_string(hide_password=False)


def program(name: str, *arguments: str) -> None:
    subprocess.run([wheel_program(name), *arguments], check=True, capture_output=True, timeout=60)


@pytest.mark.parametrize("statement", ["backup", "VACUUM INTO"])
def test_a_copy_of_a_live_file_of_sqlite_goes_on(chain: RecordedChain, tmp_path: Path, statement: str) -> None:
    live, restored = (f"sqlite:///{tmp_path / name}" for name in ("live.db", "restored.db"))
    sync_once(SyncSettings(write_records(tmp_path / "blocks", chain.blocks[:COPIED_AT]), live, WEEK))
    target = str(make_url(restored).database)
    with closing(sqlite3.connect(str(make_url(live).database))) as session:
        if statement == "backup":
            with closing(sqlite3.connect(target)) as copy:
                session.backup(copy)
        else:
            session.execute("VACUUM INTO ?", (target,))
    sync_once(SyncSettings(chain.path, live))

    go_on(chain, restored)
