"""`kvr sync doctor`: sound tables pass every look, and each thing that can be wrong is found and named."""

import json
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml
from sqlalchemy import make_url
from typer.testing import CliRunner

from kvr_sync import errors
from kvr_sync.doctor import Finding, examine, judge_lag, judge_version
from kvr_sync.jobs import SyncSettings, sync_once
from kvr_sync.main import sync
from kvr_sync.read import SyncStatus
from kvr_sync.store.database import open_database, refuse_old_server
from tests.support.evidence import wait_until
from tests.support.postgresql import connect, fresh_database
from tests.support.recorded_chain import load_chain, write_records
from tests.support.tables import query

ROOT = Path(__file__).parents[2]
OUTCOMES = ROOT / "tests" / "support" / "outcomes.mapping.yaml"
CHAIN = load_chain("fabric-3.1.5-raft")
CHANNEL = "consortium"
NOW = datetime(2026, 5, 6, tzinfo=UTC)


def findings(url: str, **options: Any) -> dict[str, Finding]:
    return {finding.check: finding for finding in examine(url, CHANNEL, **options)}


def verdicts(url: str, verdict: str) -> set[str]:
    return {name for name, finding in findings(url).items() if finding.verdict == verdict}


@pytest.fixture
def synced(database_url: str, tmp_path: Path) -> str:
    sync_once(SyncSettings(write_records(tmp_path / "blocks", CHAIN.blocks[:60]), database_url, OUTCOMES))
    return database_url


def change(url: str, *statements: str) -> None:
    """Run statements as somebody else would; `@` stands for the schema and its dot."""
    database = open_database(url, CHANNEL)
    with database.engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement.replace("@", f"{CHANNEL}." if database.schema else ""))


def test_sound_tables_pass_every_look(synced: str) -> None:
    assert verdicts(synced, "fail") == set()
    # The server of the tests runs without fsync and by a superuser, on purpose.
    assert verdicts(synced, "warn") <= {"durability", "user", "disk"}
    assert {"version", "schema", "position", "validity", "state", "writes", "roles", "disk", "schedule", "lag"} <= set(
        findings(synced)
    )


SOME = "kvr_key_id = (SELECT min(kvr_key_id) FROM @TABLE)"
BROKEN = {
    "a checkpoint set back": ("position", "UPDATE @ledger_checkpoint SET block_number = 50"),
    "a checkpoint of another hash": ("position", "UPDATE @ledger_checkpoint SET header_hash = genesis_hash"),
    "a missing block": ("position", "DELETE FROM @ledger_block WHERE block_number = 17"),
    "a block on another one": ("position", "UPDATE @ledger_block SET previous_hash = data_hash WHERE block_number = 9"),
    "a verdict turned": ("validity", "UPDATE @ledger_transaction SET validation_code = 11 WHERE validation_code = 0"),
    "a current row removed": ("state", "DELETE FROM @TABLE WHERE SOME"),
    "a current row of another version": ("state", "UPDATE @TABLE SET kvr_write_number = 900 WHERE SOME"),
    "a history row removed": ("state", "DELETE FROM @TABLE_history WHERE SOME"),
    "a history row that nobody wrote": (
        "writes",
        "UPDATE @TABLE_history SET kvr_write_number = kvr_write_number + 900 WHERE SOME",
    ),
    "a row that is in quarantine": (
        "writes",
        """INSERT INTO @ledger_quarantine
           (table_name, key_id, block_number, tx_number, write_number, reason, detail, value)
           SELECT 'TABLE', kvr_key_id, kvr_block_number, kvr_tx_number, kvr_write_number, 'wrong_type', 'x', header_hash
           FROM @TABLE_history, @ledger_checkpoint WHERE SOME""",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_was_changed_by_hand_is_found(case: str, synced: str) -> None:
    check, statement = BROKEN[case]
    table = next(name for name in mapped_tables() if query(synced, f"SELECT count(*) FROM {name}")[0][0])  # noqa: S608
    change(synced, statement.replace("SOME", SOME).replace("TABLE", table))

    found = findings(synced)[check]

    assert found.verdict == "fail", found
    assert found.advice


def mapped_tables() -> list[str]:
    return list(yaml.safe_load(OUTCOMES.read_text())["tables"])


def test_tables_of_another_shape_are_told_and_not_looked_into(synced: str) -> None:
    change(synced, "ALTER TABLE @ledger_block ADD COLUMN note TEXT")

    assert "ledger_block.note is not one of ours" in findings(synced)["schema"].text
    assert "position" not in findings(synced)


def test_tables_of_another_version_name_the_command(synced: str) -> None:
    change(synced, "UPDATE @alembic_version SET version_num = '0003'")

    assert "kvr sync migrate" in findings(synced)["schema"].advice


def test_a_place_without_tables_is_told(postgresql_url: str) -> None:
    assert findings(postgresql_url)["tables"].verdict == "fail"


def test_a_database_that_cannot_be_reached_is_told_without_password(postgresql_url: str) -> None:
    url = make_url(postgresql_url).set(database="nowhere", password="open-sesame").render_as_string(hide_password=False)  # noqa: S106

    found = list(examine(url, CHANNEL))

    assert [(finding.check, finding.verdict) for finding in found] == [("database", "fail")]
    assert "open-sesame" not in found[0].text


def test_a_failed_run_and_no_run_at_all_are_told(synced: str) -> None:
    change(synced, "UPDATE @sync_run SET outcome = 'failed', error_code = 'data_hash'")
    assert (findings(synced)["schedule"].verdict, "data_hash" in findings(synced)["schedule"].text) == ("warn", True)

    change(synced, "DELETE FROM @sync_run")
    assert findings(synced)["schedule"].verdict == "warn"


def test_durability_switched_off_fails_in_production_and_is_told_elsewhere(postgresql_url: str) -> None:
    """The server of the tests runs without fsync, unless it was given."""
    with connect(make_url(postgresql_url)) as session:
        off = session.execute("SHOW fsync").fetchone() == ("off",)

    assert findings(postgresql_url)["durability"].verdict == ("warn" if off else "ok")
    assert findings(postgresql_url, is_production=True)["durability"].verdict == ("fail" if off else "ok")


def test_a_database_of_another_encoding_fails(postgresql_server: Any) -> None:
    with fresh_database(postgresql_server, encoding="LATIN1") as url:
        found = findings(url.render_as_string(hide_password=False))

    assert found["encoding"].verdict == "fail"


@pytest.mark.parametrize(("major", "verdict"), [(14, "fail"), (15, "ok"), (18, "ok"), (19, "warn")])
def test_versions_of_the_server_are_judged(major: int, verdict: str) -> None:
    assert judge_version(major).verdict == verdict


def test_a_right_given_to_everybody_is_told(synced: str) -> None:
    if synced.startswith("sqlite"):
        assert findings(synced)["roles"].verdict == "ok"
        return
    change(synced, "GRANT SELECT ON @ledger_private_value TO PUBLIC")

    assert (findings(synced)["roles"].verdict, findings(synced)["roles"].advice) == ("warn", "run `kvr sync roles`")


def test_what_may_not_be_looked_at_is_told_and_the_rest_looked_at(postgresql_url: str, tmp_path: Path) -> None:
    sync_once(SyncSettings(write_records(tmp_path / "blocks", CHAIN.blocks[:5]), postgresql_url, OUTCOMES))
    role = f"blind_{tmp_path.name[-20:]}".lower()
    with connect(make_url(postgresql_url)) as session:
        session.execute(f"CREATE ROLE \"{role}\" LOGIN PASSWORD 'x'")
        session.execute(f'GRANT USAGE ON SCHEMA {CHANNEL} TO "{role}"')
        session.execute(f'GRANT SELECT ON ALL TABLES IN SCHEMA {CHANNEL} TO "{role}"')
        session.execute(f'REVOKE SELECT ON {CHANNEL}.ledger_quarantine, {CHANNEL}.sync_run FROM "{role}"')  # noqa: S608
    try:
        url = make_url(postgresql_url).set(username=role, password="x").render_as_string(hide_password=False)  # noqa: S106
        found = findings(url)
    finally:
        with connect(make_url(postgresql_url)) as session:
            session.execute(f'DROP OWNED BY "{role}"')
            session.execute(f'DROP ROLE "{role}"')

    assert {name: found[name].verdict for name in ("writes", "schedule", "state", "lag")} == {
        "writes": "warn",
        "schedule": "warn",
        "state": "ok",
        "lag": "ok",
    }
    assert "could not be looked at" in found["writes"].text


STATUS = SyncStatus(CHANNEL, 9, 10, 12, NOW, 2, 5.0, NOW, 1, 0, 0)


@pytest.mark.parametrize(
    ("change_of_status", "age", "verdict"),
    [
        ({}, 0, "ok"),
        ({"lag_seconds": 61.0}, 0, "warn"),
        ({}, 121, "warn"),
        ({}, -3600, "ok"),
        ({"peer_height": None, "peer_seen_at": None}, 0, "ok"),
        ({"quarantined": 10**6}, 0, "ok"),
    ],
)
def test_lag_is_judged_by_what_was_seen_and_when(change_of_status: dict[str, Any], age: float, verdict: str) -> None:
    assert judge_lag(STATUS._replace(**change_of_status), NOW + timedelta(seconds=age)).verdict == verdict


def test_the_command_ends_in_1_where_something_fails(sqlite_url: str, tmp_path: Path) -> None:
    sync_once(SyncSettings(write_records(tmp_path / "blocks", CHAIN.blocks[:20]), sqlite_url, OUTCOMES))
    good = CliRunner().invoke(sync, ["doctor", "--database", sqlite_url])
    assert good.exit_code == 0, good.output
    assert "ok   position: block 19; 20 blocks without a gap" in good.output

    change(sqlite_url, "DELETE FROM ledger_block WHERE block_number = 7")
    bad = CliRunner().invoke(sync, ["doctor", "--database", sqlite_url, "--json"])

    assert bad.exit_code == 1
    (position,) = [each for each in json.loads(bad.output) if each["check"] == "position"]
    assert (position["verdict"], position["text"]) == ("fail", "of blocks 0 to 19 only 19 have a row")


def test_an_engine_refuses_a_server_that_is_too_old() -> None:
    refuse_old_server(150_000, "a place")
    with pytest.raises(errors.ConfigurationError, match="a place: PostgreSQL 14 is too old; supported are 15 to 18"):
        refuse_old_server(149_999, "a place")


def test_nothing_is_written(synced: str) -> None:
    if synced.startswith("sqlite"):
        before = Path(synced.removeprefix("sqlite:///")).read_bytes()
        findings(synced)
        assert Path(synced.removeprefix("sqlite:///")).read_bytes() == before
        return
    address = make_url(synced).set(drivername="postgresql").render_as_string(hide_password=False)
    with closing(psycopg.connect(address, autocommit=True)) as session:
        counted = "SELECT sum(n_tup_ins + n_tup_upd + n_tup_del) FROM pg_stat_user_tables"
        others = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        wait_until(lambda: session.execute(others).fetchone() is None, "the end of the writer's session, which counts")
        before_rows = session.execute(counted).fetchone()
        findings(synced)
        assert session.execute(counted).fetchone() == before_rows
