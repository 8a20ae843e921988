"""Mapped tables made again from the ledger layer: what is right stays, what is wrong is put right.

The tables must equal those of a replay, and a reader of the change feed must end with the table.
"""

import json
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml
from click.testing import Result
from sqlalchemy import make_url
from typer.testing import CliRunner

from kvr_sync import errors
from kvr_sync.engine import Engine
from kvr_sync.jobs import SyncSettings, sync_once
from kvr_sync.main import audit, sync
from kvr_sync.mapping.mapping_file import read_mapping_file
from kvr_sync.source.block_file import open_block_file
from kvr_sync.store.mapped_layer import MappedLayer
from kvr_sync.store.opening import open_store
from kvr_sync.store.operation_log import Operation
from kvr_sync.store.sink import AFTER_COMMIT, BEFORE_COMMIT
from kvr_sync.table_operations import TableOperation, rebuild_tables
from tests.support.comparison import assert_tables_equal_oracle
from tests.support.evidence import wait_until
from tests.support.invariants import read_content
from tests.support.killed_rebuild import WHILE_READING
from tests.support.mapped_layer import (
    CHANNEL,
    FeedReader,
    by_hand,
    check_made_again,
    empty_mapped_layer,
    make_again,
    nobody_writes,
)
from tests.support.recorded_chain import ALL_CHAINS, load_chain, write_records
from tests.support.recorded_peer import peer_settings, recorded_peer
from tests.support.recorded_private_data import read_private_sets
from tests.support.small_chain import MAPPING, small_chain
from tests.support.tables import applied, check_feed, columns_of, query

ROOT = Path(__file__).parents[2]
SERVICE_WEEK = ROOT / "network" / "demo_data" / "service-week.mapping.yaml"
OUTCOMES = ROOT / "tests" / "support" / "outcomes.mapping.yaml"
KILLED_REBUILD = ROOT / "tests" / "support" / "killed_rebuild.py"
ASKED = Operation("rebuild", "a test")


CHAIN = small_chain()


@pytest.fixture
def mapping(tmp_path: Path) -> Path:
    path = tmp_path / "small.mapping.yaml"
    path.write_text(MAPPING)
    return path


@pytest.fixture
def synced(database_url: str, mapping: Path, tmp_path: Path) -> str:
    sync_once(SyncSettings(write_records(tmp_path / "blocks", CHAIN), database_url, mapping))
    return database_url


def rebuild(url: str, *names: str) -> TableOperation:
    return rebuild_tables(url, CHANNEL, names, ASKED)


def content(url: str) -> dict[str, list[tuple[Any, ...]]]:
    """Give every row, but for the log of what was done."""
    return {name: rows for name, rows in read_content(url).items() if name != "operation_log"}


@pytest.mark.parametrize("name", ALL_CHAINS)
def test_tables_made_from_the_ledger_layer_equal_those_of_a_replay(name: str, database_url: str) -> None:
    chain = load_chain(name)
    mapping = SERVICE_WEEK if name.endswith("week") else OUTCOMES
    sync_once(SyncSettings(chain.path, database_url, mapping, workers=0))
    before = content(database_url)

    with closing(open_store(database_url, CHANNEL)) as sink:
        untouched = make_again(sink)
        assert {(one.versions, one.rows, one.changes, one.released) for one in untouched} == {(0, 0, 0, 0)}
        assert content(database_url) == before
        empty_mapped_layer(database_url, yaml.safe_load(mapping.read_text()))
        make_again(sink)

    assert_tables_equal_oracle(database_url, chain.blocks, mapping)


@pytest.mark.parametrize("organization", ["Enterprise", "Partner"])
def test_private_tables_of_a_recorded_chain_are_made_again_by_the_command(
    organization: str, database_url: str, tmp_path: Path
) -> None:
    mapping = tmp_path / "profiles.yaml"
    mapping.write_text(PROFILES)
    chain = load_chain("fabric-3.1.5-service-week")
    with recorded_peer(chain.blocks, read_private_sets(chain.name, organization)) as peer:
        source = peer_settings(tmp_path, [peer], private_data=True, msp_id=f"{organization}MSP")
        sync_once(SyncSettings(source, database_url, mapping))
    names = ("profile", "profile_history", "profile_misfit", "profile_misfit_history", "ledger_quarantine")
    before = [rows_of(database_url, name) for name in names]
    assert bool(before[0]) == bool(before[4]) == (organization == "Enterprise")
    with by_hand(database_url) as connection:
        for statement in (
            "DELETE FROM profile",
            "DELETE FROM profile_history WHERE kvr_erased_block IS NULL",
            "DELETE FROM profile_misfit_history WHERE kvr_erased_block IS NULL",
            "DELETE FROM ledger_quarantine WHERE closed_by IS NULL",
        ):
            connection.exec_driver_sql(statement)

    done = told(database_url, "rebuild", "profile", "profile_misfit")

    assert done.exit_code == 0, done.stderr
    assert [rows_of(database_url, name) for name in names] == before
    check_made_again(database_url)
    for name in ("profile", "profile_misfit"):
        check_feed(database_url, name)


PROFILES = """\
kvr_mapping: 1
tables:
  profile:
    namespace: ext
    collections: [entCust]
    key: {prefix: ""}
    columns:
      reference: {from: key, type: text, required: true, index: true}
      name: {json: name, type: text, required: true}
      tx_id: {from: ledger.tx_id, type: text}
  profile_misfit:
    namespace: ext
    collections: [entCust]
    key: {prefix: ""}
    columns:
      name: {json: name, type: integer, required: true}
"""


def rows_of(url: str, name: str) -> list[tuple[Any, ...]]:
    listed = ", ".join(f'"{column}"' for column in columns_of(url, name) if column != "kvr_change_id")
    return sorted(query(url, f"SELECT {listed} FROM {name}"), key=repr)  # noqa: S608


TAMPERINGS = {
    "a value of a current row": "UPDATE request SET status = 'open' WHERE kvr_key_id = R1",
    "the id of a current row": "UPDATE request SET external_id = 'r9' WHERE kvr_key_id = R1",
    "a current row taken out": "DELETE FROM request WHERE kvr_key_id = R1",
    "a current row of nobody": "",
    "the number of a last change": "UPDATE request SET kvr_change_id = 1 WHERE kvr_key_id <> R1",
    "a value of a version": "UPDATE request_history SET amount = '7' WHERE kvr_key_id = R1",
    "a version taken out": "DELETE FROM request_history WHERE kvr_key_id = R1 AND kvr_kind = 'metadata'",
    "all versions taken out": "DELETE FROM request_history",
    "a version of nobody": "UPDATE request_history SET kvr_write_number = 90 WHERE kvr_key_id = R1",
    "the sender of a version": "UPDATE request_history SET kvr_creator_msp_id = 'Other' WHERE kvr_key_id = R1",
    "a child row": "UPDATE request_tag SET tag = 'z' WHERE kvr_key_id = R1",
    "a child row taken out": "DELETE FROM request_tag",
    "a child row of a version": "UPDATE request_tag_history SET tag = 'z' WHERE kvr_key_id = R1",
    "bytes in quarantine": "UPDATE ledger_quarantine SET value = detail WHERE closed_by IS NULL",
    "an entry closed": "UPDATE ledger_quarantine SET closed_by = 'overwritten', closed_block = 3",
    "an entry opened": "UPDATE ledger_quarantine SET closed_by = NULL, closed_block = NULL",
    "an entry of nobody": "UPDATE ledger_quarantine SET write_number = 70",
    "the quarantine emptied": "DELETE FROM ledger_quarantine",
}


@pytest.mark.parametrize("case", TAMPERINGS)
def test_what_was_changed_by_hand_is_put_right_and_every_reader_ends_with_the_table(
    case: str, synced: str, mapping: Path
) -> None:
    early = FeedReader(synced, "request").read()
    with by_hand(synced) as connection:
        statement = re.sub("R1", "(SELECT kvr_key_id FROM request WHERE external_id = 'r1')", TAMPERINGS[case])
        if "SET value = detail" in statement and connection.dialect.name == "postgresql":
            statement = statement.replace("= detail", "= convert_to(detail, 'UTF8')")
        if case == "a current row of nobody":
            columns = columns_of(synced, "request")
            listed = ", ".join(f'"{name}"' for name in columns)
            values = {"kvr_key_id": "9999", "external_id": "'r9'"}
            taken = ", ".join(values.get(name, f'"{name}"') for name in columns)
            statement = f"INSERT INTO request ({listed}) SELECT {taken} FROM request WHERE external_id = 'r1'"  # noqa: S608
        connection.exec_driver_sql(statement)
    misled = FeedReader(synced, "request").read()

    done = rebuild(synced)

    assert_tables_equal_oracle(synced, CHAIN, mapping)
    for reader in (early, misled):
        assert reader.read().rows == reader.table()
    note = next(one for one in done.tables if one.table == "note")
    assert (note.versions, note.rows, note.changes) == (0, 0, 0)
    assert sync_again(synced) == content(synced)


def sync_again(url: str) -> dict[str, list[tuple[Any, ...]]]:
    """Make the tables again once more: there is nothing left to do."""
    before = content(url)
    assert not any(one.versions or one.rows or one.changes or one.released for one in rebuild(url).tables)
    return before


def test_only_the_tables_that_are_named_are_made_again(synced: str) -> None:
    with by_hand(synced) as connection:
        connection.exec_driver_sql("DELETE FROM request")
        connection.exec_driver_sql("DELETE FROM note")

    done = rebuild(synced, "note")

    assert [one.table for one in done.tables] == ["note"]
    assert query(synced, "SELECT count(*) FROM note") == [(1,)]
    assert query(synced, "SELECT count(*) FROM request") == [(0,)]


def test_what_is_no_mapped_table_is_refused_by_name(synced: str) -> None:
    with pytest.raises(errors.ConfigurationError, match="no mapped table 'nothing': there are request, note"):
        rebuild(synced, "nothing")
    with pytest.raises(
        errors.ConfigurationError, match="no mapped table 'request_tag': its rows come with table request"
    ):
        rebuild(synced, "request_tag")


def test_an_engine_that_worked_before_goes_on_after_a_rebuild(database_url: str, mapping: Path, tmp_path: Path) -> None:
    tables = read_mapping_file(mapping)
    source = tmp_path / "blocks"
    with closing(open_store(database_url, CHANNEL, mapping=tables)) as sink:
        for cut in (4, len(CHAIN)):
            write_records(source, CHAIN[:cut])
            Engine(open_block_file(source), sink, tables, channel=CHANNEL).run()
            with by_hand(database_url) as connection:
                connection.exec_driver_sql("DELETE FROM request")
                connection.exec_driver_sql("UPDATE ledger_quarantine SET closed_block = 0, closed_by = 'deleted'")
            rebuild(database_url)

    assert_tables_equal_oracle(database_url, CHAIN, mapping)


def test_no_block_is_applied_while_tables_are_made_again(postgresql_url: str, mapping: Path, tmp_path: Path) -> None:
    sync_once(SyncSettings(write_records(tmp_path / "low", CHAIN[:4]), postgresql_url, mapping))
    rest = SyncSettings(write_records(tmp_path / "blocks", CHAIN), postgresql_url)

    with closing(open_store(postgresql_url, CHANNEL)) as sink, ThreadPoolExecutor(1) as engine:
        with sink.fenced() as (connection, _):
            MappedLayer(sink, connection, 3).make_again([0, 1])
            applying = engine.submit(sync_once, rest)
            wait_until(lambda: query(postgresql_url, WAITING) == [(1,)], "an engine that waits for the fence")
            assert applied(postgresql_url) == 4
        assert applying.result(timeout=50).blocks == len(CHAIN) - 4

    assert_tables_equal_oracle(postgresql_url, CHAIN, mapping)


WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%ledger_checkpoint%'"


@pytest.mark.parametrize("point", [WHILE_READING, BEFORE_COMMIT, AFTER_COMMIT])
def test_a_kill_leaves_the_tables_of_before_or_those_of_afterwards(point: str, synced: str, mapping: Path) -> None:
    with by_hand(synced) as connection:
        connection.exec_driver_sql("DELETE FROM request")
        connection.exec_driver_sql("DELETE FROM request_history")
    before = read_content(synced)

    killed = subprocess.run([sys.executable, str(KILLED_REBUILD), synced, point], check=False, timeout=50)

    assert killed.returncode == -signal.SIGKILL
    if point == AFTER_COMMIT:
        assert_tables_equal_oracle(synced, CHAIN, mapping)
        assert query(synced, "SELECT operation FROM operation_log") == [("rebuild",)]
    else:
        wait_until(lambda: nobody_writes(synced), "the end of the killed session")
        assert read_content(synced) == before
        rebuild(synced)
        assert_tables_equal_oracle(synced, CHAIN, mapping)


def test_readers_views_rights_and_publications_stay_and_nobody_waits(
    postgresql_url: str, mapping: Path, tmp_path: Path
) -> None:
    sync_once(SyncSettings(write_records(tmp_path / "blocks", CHAIN), postgresql_url, mapping))
    address = make_url(postgresql_url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(address, autocommit=True) as owner:
        owner.execute("CREATE VIEW public.open_requests AS SELECT id FROM consortium.request WHERE status = 'open'")
        owner.execute("GRANT SELECT ON consortium.request TO PUBLIC")
        owner.execute("COMMENT ON TABLE consortium.request IS 'mine'")
        owner.execute("CREATE PUBLICATION all_requests FOR TABLE consortium.request")
        owner.execute("DELETE FROM consortium.request")

    def standing(session: "psycopg.Connection[Any]") -> list[Any]:
        return [
            session.execute(statement).fetchall()
            for statement in (
                "SELECT relacl::text, obj_description(oid, 'pg_class'), oid FROM pg_class WHERE relname = 'request'",
                "SELECT schemaname, tablename FROM pg_publication_tables WHERE pubname = 'all_requests'",
                "SELECT pg_get_viewdef('public.open_requests'::regclass)",
            )
        ]

    with psycopg.connect(address, autocommit=True) as reader:
        before = standing(reader)
        reader.execute("SET lock_timeout = '200ms'")
        with closing(open_store(postgresql_url, CHANNEL)) as sink, sink.fenced() as (connection, _):
            MappedLayer(sink, connection, 6).make_again([0, 1])
            assert reader.execute("SELECT count(*) FROM public.open_requests").fetchone() == (0,)
        assert reader.execute("SELECT count(*) FROM public.open_requests").fetchone() == (2,)
        assert standing(reader) == before
        assert reader.execute("SELECT count(*) FROM pg_class WHERE relname LIKE 'kvr_again%'").fetchone() == (0,)


def told(url: str, *arguments: str) -> Result:
    return CliRunner().invoke(sync if arguments[0] != "operations" else audit, [*arguments, "--database", url])


def test_the_command_tells_what_it_did_and_leaves_an_entry(synced: str) -> None:
    with by_hand(synced) as connection:
        connection.exec_driver_sql("UPDATE request_tag SET tag = 'z'")

    refused = told(synced, "rebuild", "--environment", "production")
    done = told(synced, "rebuild", "request", "--environment", "production", "--why", "doctor said")
    again = told(synced, "rebuild", "--json")
    logged = json.loads(told(synced, "operations", "--json").stdout)

    assert (refused.exit_code, "in production say why" in refused.stderr) == (1, True)
    assert "request: 10 rows put right, 2 changes announced" in done.stdout
    assert "request: 1 in quarantine: a text is none of those that the column allows" in done.stdout
    facts = json.loads(again.stdout)
    assert (facts["channel"], facts["block_number"]) == (CHANNEL, len(CHAIN) - 1)
    assert facts["tables"][0] == {
        "table": "request", "versions": 0, "rows": 0, "changes": 0, "released": 0, "quarantined": 1
    }  # fmt: skip
    assert facts["quarantined"] == [{"table": "request", "reason": "not_in_enumeration", "open": 1}]
    newest, first = logged
    assert (first["operation"], first["reason"]) == ("rebuild", "doctor said")
    assert (first["before_block"], first["after_block"]) == (len(CHAIN) - 1, len(CHAIN) - 1)
    assert first["detail"]["tables"] == {"request": {"changes": 2, "released": 0}}
    assert newest["reason"] is None


def test_a_place_without_mapped_tables_is_refused(database_url: str, tmp_path: Path) -> None:
    sync_once(SyncSettings(write_records(tmp_path / "blocks", CHAIN), database_url))

    with pytest.raises(errors.ConfigurationError, match="has no mapped tables"):
        rebuild(database_url)
