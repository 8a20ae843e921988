"""Rights on a channel's tables in PostgreSQL: an owner, an engine that writes rows alone, three kinds of readers."""

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml
from psycopg import sql
from psycopg.errors import InsufficientPrivilege
from sqlalchemy import make_url
from typer.testing import CliRunner

from kvr_sync import errors
from kvr_sync.jobs import SyncSettings, sync_once
from kvr_sync.main import audit, sync
from kvr_sync.mapping.definition import ColumnMapping, ColumnType, FromValue, Mapping, PrefixSelector, TableMapping
from kvr_sync.mapping.mapping_file import read_mapping_file
from kvr_sync.mapping.validation import read_mapping
from kvr_sync.mapping_change import apply_mapping, plan_mapping, plan_script
from kvr_sync.read import open_tables
from kvr_sync.rewinding import rewind_tables
from kvr_sync.store.opening import open_store
from kvr_sync.store.operation_log import Operation
from kvr_sync.store.roles import (
    AUDITOR_TABLES,
    PRIVATE_TABLES,
    READER_TABLES,
    RoleNames,
    channel_tables,
    grant_rights,
    grants,
)
from kvr_sync.store.schema import ledger_tables
from kvr_sync.table_operations import rebuild_tables
from tests.support.comparison import assert_tables_equal_oracle, check_tables
from tests.support.oracle import read_ledger
from tests.support.postgresql import connect
from tests.support.recorded_chain import load_chain, write_records
from tests.support.recorded_peer import peer_settings, recorded_peer
from tests.support.tables import query

ROOT = Path(__file__).parents[2]
OUTCOMES = ROOT / "tests" / "support" / "outcomes.mapping.yaml"
CHAIN = load_chain("fabric-3.1.5-raft")
CHANNEL = "consortium"
ASKED = Operation("roles", "a test")


class Roles:
    """An owner and the four others, each allowed to connect."""

    def __init__(self, url: str) -> None:
        self._url = make_url(url)
        tag = uuid.uuid4().hex[:8]
        self.owner = f"owner_{tag}"
        self.names = RoleNames(*(f"{name}_{tag}" for name in ("writer", "reader", "auditor", "private")))

    def url(self, role: str) -> str:
        return self._url.set(username=role, password=role).render_as_string(hide_password=False)

    def session(self, role: str) -> "psycopg.Connection[Any]":
        address = make_url(self.url(role)).set(drivername="postgresql").render_as_string(hide_password=False)
        return psycopg.connect(address, options=f"-c search_path={CHANNEL}", autocommit=True)

    def create(self) -> None:
        with connect(self._url) as session:
            for role in (self.owner, *self.names):
                made = sql.SQL("CREATE ROLE {} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE PASSWORD {}")
                session.execute(made.format(sql.Identifier(role), sql.Literal(role)))
            given = sql.SQL("GRANT CREATE ON DATABASE {} TO {}")
            session.execute(given.format(sql.Identifier(str(self._url.database)), sql.Identifier(self.owner)))

    def drop(self) -> None:
        with connect(self._url) as session:
            for role in (self.owner, *self.names):
                session.execute(sql.SQL("DROP OWNED BY {} CASCADE").format(sql.Identifier(role)))
                session.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))


@pytest.fixture
def roles(postgresql_url: str) -> Iterator[Roles]:
    made = Roles(postgresql_url)
    made.create()
    yield made
    made.drop()


def migrated(roles: Roles, *, private_member: str | None = None) -> None:
    mapping = with_private_table(read_mapping_file(OUTCOMES)) if private_member else read_mapping_file(OUTCOMES)
    url = roles.url(roles.owner)
    open_store(url, CHANNEL, mapping=mapping, private_member=private_member).close()
    grant_rights(url, CHANNEL, roles.names, ASKED)


def with_private_table(mapping: Mapping) -> Mapping:
    """Add a table of a private data collection to a mapping."""
    base = mapping.tables[0]
    columns = (ColumnMapping("content", FromValue(), ColumnType.TEXT, required=True, index=False),)
    private = TableMapping("secrets", base.namespace, PrefixSelector("s"), columns, collections=("secrets",))
    return Mapping(mapping.name, (*mapping.tables, private))


def may_read(roles: Roles, role: str, schema: str = CHANNEL) -> set[str]:
    """Try every table and view of a schema, as the role."""
    names = {
        row[0]
        for row in query(
            roles.url(roles.owner),
            "SELECT relname FROM pg_class WHERE relnamespace = to_regnamespace(?) AND relkind IN ('r', 'v')",
            [schema],
        )
    }
    allowed = set()
    with roles.session(role) as session:
        for name in names:
            try:
                session.execute(sql.SQL("SELECT * FROM {} LIMIT 1").format(sql.Identifier(schema, name)))
            except InsufficientPrivilege:
                continue
            allowed.add(name)
    return allowed


def mapped_names(mapping: Mapping) -> set[str]:
    names = {name for table in mapping.tables for name in (table.name, *(child.name for child in table.children))}
    tables = {table.name for table in mapping.tables}
    return {
        *names,
        *(f"{name}_history" for name in names),
        *(f"{name}{ending}" for name in tables for ending in ("_changes", "_validity")),
    }


def test_the_whole_line_runs_with_a_writers_rights(roles: Roles, tmp_path: Path) -> None:
    migrated(roles)
    url = roles.url(roles.names.writer)
    with recorded_peer(CHAIN.blocks) as peer:
        sync_once(SyncSettings(write_records(tmp_path / "blocks", CHAIN.blocks[:40]), url, OUTCOMES))
        sync_once(SyncSettings(peer_settings(tmp_path, [peer]), url, OUTCOMES))

    assert_tables_equal_oracle(url, CHAIN.blocks, OUTCOMES)
    assert query(url, "SELECT peer_height FROM sync_status") == [(len(CHAIN.blocks),)]


def test_a_writer_makes_tables_again_brings_them_back_and_fills_those_that_the_owner_changed(
    roles: Roles, tmp_path: Path
) -> None:
    migrated(roles)
    owner, writer = roles.url(roles.owner), roles.url(roles.names.writer)
    sync_once(SyncSettings(write_records(tmp_path / "blocks", CHAIN.blocks), writer, OUTCOMES))
    with roles.session(roles.owner) as session:
        session.execute("DELETE FROM requests")

    rebuild_tables(writer, CHANNEL, [], Operation("rebuild", "a test"))

    assert_tables_equal_oracle(writer, CHAIN.blocks, OUTCOMES)
    rewind_tables(writer, CHANNEL, 20, Operation("rewind", "a test"))
    assert_tables_equal_oracle(writer, CHAIN.blocks[:21], OUTCOMES)
    sync_once(SyncSettings(tmp_path / "blocks", writer, OUTCOMES))
    assert_tables_equal_oracle(writer, CHAIN.blocks, OUTCOMES)
    definition = yaml.safe_load(OUTCOMES.read_text())
    definition["tables"]["requests"]["columns"]["note"] = {"json": "note", "type": "json"}
    mapping = read_mapping(json.dumps(definition).encode(), "new")
    asked = Operation("apply", "a test")
    with pytest.raises(errors.ConfigurationError, match=r"changed for the mapping.*`kvr sync apply`"):
        apply_mapping(writer, CHANNEL, mapping, asked)
    with open_tables(owner) as synced:
        script = plan_script(plan_mapping(synced, mapping))
    with roles.session(roles.owner) as session:
        session.execute(script)  # type: ignore[call-overload]  # made of nothing but names
    apply_mapping(writer, CHANNEL, mapping, asked)
    check_tables(writer, read_ledger(CHAIN.blocks), len(CHAIN.blocks), definition)


def test_tables_of_a_new_version_have_the_rights_that_were_given_last(roles: Roles, tmp_path: Path) -> None:
    migrated(roles)
    owner, writer = roles.url(roles.owner), roles.url(roles.names.writer)
    sync_once(SyncSettings(write_records(tmp_path / "blocks", CHAIN.blocks[:40]), writer, OUTCOMES))
    definition = yaml.safe_load(OUTCOMES.read_text())
    del definition["tables"]["requests"]
    mapping = read_mapping(json.dumps(definition).encode(), "new")

    apply_mapping(owner, CHANNEL, mapping, Operation("apply", "a test"))

    sync_once(SyncSettings(write_records(tmp_path / "blocks", CHAIN.blocks), writer, OUTCOMES))
    ledger = read_ledger(CHAIN.blocks)
    assert_tables_equal_oracle(owner, CHAIN.blocks, OUTCOMES)
    check_tables(owner, ledger, len(CHAIN.blocks), definition, api_version=2)
    for role in (roles.names.reader, roles.names.auditor):
        assert may_read(roles, role, schema="consortium_v2") == mapped_names(mapping)
    assert may_read(roles, roles.names.private_reader, schema="consortium_v2") == set()
    again = grant_rights(owner, CHANNEL, roles.names, None)
    assert any('"consortium_v2"' in statement for statement in again)


def test_an_owner_who_may_make_no_schema_is_told_what_an_administrator_does(
    roles: Roles, postgresql_url: str, tmp_path: Path
) -> None:
    migrated(roles)
    source = write_records(tmp_path / "blocks", CHAIN.blocks[:3])
    sync_once(SyncSettings(source, roles.url(roles.names.writer), OUTCOMES))
    with connect(make_url(postgresql_url)) as session:
        database = sql.Identifier(str(make_url(postgresql_url).database))
        session.execute(sql.SQL("REVOKE CREATE ON DATABASE {} FROM {}").format(database, sql.Identifier(roles.owner)))
    mapping, asked = read_mapping_file(OUTCOMES), Operation("apply", "a test")
    less = Mapping(mapping.name, mapping.tables[1:])

    with pytest.raises(errors.ConfigurationError, match=r"CREATE SCHEMA consortium_v2 AUTHORIZATION") as refused:
        apply_mapping(roles.url(roles.owner), CHANNEL, less, asked)

    with connect(make_url(postgresql_url)) as session:
        session.execute(str(refused.value).rpartition("runs: ")[2])  # type: ignore[call-overload]  # as it says
    assert apply_mapping(roles.url(roles.owner), CHANNEL, less, asked).is_beside


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE mine (a integer)",
        "ALTER TABLE ledger_block ADD COLUMN a integer",
        "DROP TABLE ledger_block",
        "TRUNCATE ledger_block",
        "UPDATE operation_log SET reason = 'another'",
        "DELETE FROM operation_log",
        "UPDATE alembic_version SET version_num = '0001'",
        "GRANT SELECT ON ledger_block TO PUBLIC",
    ],
)
def test_a_writer_defines_nothing_and_rewrites_no_log(statement: str, roles: Roles) -> None:
    migrated(roles)
    with roles.session(roles.names.writer) as session:
        if statement.startswith("GRANT"):
            session.execute(statement)  # PostgreSQL warns, and grants nothing
            found = session.execute("SELECT has_table_privilege('public', 'ledger_block', 'SELECT')").fetchone()
            assert found == (False,)
            return
        with pytest.raises(InsufficientPrivilege):
            session.execute(statement)


def test_an_engine_that_may_not_make_tables_says_who_does(roles: Roles, tmp_path: Path) -> None:
    source = write_records(tmp_path / "blocks", CHAIN.blocks[:3])
    url = roles.url(roles.names.writer)
    with pytest.raises(errors.ConfigurationError, match=r"have to be made.*their owner runs `kvr sync migrate`"):
        sync_once(SyncSettings(source, url, OUTCOMES))

    open_store(roles.url(roles.owner), CHANNEL).close()
    grant_rights(roles.url(roles.owner), CHANNEL, roles.names, ASKED)
    with pytest.raises(errors.ConfigurationError, match=r"made for the mapping.*`kvr sync migrate`"):
        sync_once(SyncSettings(source, url, OUTCOMES))

    with roles.session(roles.owner) as session:
        session.execute("UPDATE alembic_version SET version_num = '0003'")
    with pytest.raises(errors.ConfigurationError, match=r"from revision 0003 to .*`kvr sync migrate`"):
        sync_once(SyncSettings(source, url))


def test_readers_see_mapped_public_tables_and_where_they_stand(roles: Roles) -> None:
    migrated(roles, private_member="EnterpriseMSP")

    assert may_read(roles, roles.names.reader) == mapped_names(read_mapping_file(OUTCOMES)) | set(READER_TABLES)
    assert not any(name.startswith(("ledger_private", "secrets", "ledger_key")) for name in READER_TABLES)


def test_auditors_see_everything_public(roles: Roles) -> None:
    migrated(roles, private_member="EnterpriseMSP")

    assert may_read(roles, roles.names.auditor) == mapped_names(read_mapping_file(OUTCOMES)) | set(AUDITOR_TABLES)


def test_private_values_are_for_their_own_readers(roles: Roles) -> None:
    migrated(roles, private_member="EnterpriseMSP")

    assert may_read(roles, roles.names.private_reader) == {
        *PRIVATE_TABLES,
        *(f"secrets{ending}" for ending in ("", "_history", "_changes", "_validity")),
    }


def test_readers_of_all_kinds_write_nothing(roles: Roles) -> None:
    migrated(roles, private_member="EnterpriseMSP")
    for role in roles.names[1:]:
        for name in may_read(roles, role):
            with roles.session(role) as session, pytest.raises(psycopg.Error) as refused:
                session.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier(name)))
            assert isinstance(refused.value, InsufficientPrivilege | psycopg.errors.ObjectNotInPrerequisiteState), name


def test_readers_wait_for_blocks_and_hear_of_them(roles: Roles, tmp_path: Path) -> None:
    migrated(roles)
    sync_once(
        SyncSettings(write_records(tmp_path / "blocks", CHAIN.blocks[:3]), roles.url(roles.names.writer), OUTCOMES)
    )
    for role in roles.names:
        with roles.session(role) as session:
            assert session.execute("SELECT kvr_wait_for_block(2, '1s')").fetchone() == (True,)
            session.execute("LISTEN kvr_block")


def test_rights_that_a_role_should_not_have_are_taken_away(roles: Roles) -> None:
    migrated(roles)
    with roles.session(roles.owner) as session:
        session.execute(f'GRANT ALL ON ledger_private_value TO "{roles.names.reader}", PUBLIC')
    assert "ledger_private_value" in may_read(roles, roles.names.reader)

    grant_rights(roles.url(roles.owner), CHANNEL, roles.names, ASKED)

    assert "ledger_private_value" not in may_read(roles, roles.names.reader)


def test_every_table_of_the_ledger_layer_has_somebody_who_may_read_it() -> None:
    tables = {table.name for table in ledger_tables("consortium").metadata.sorted_tables}

    assert tables - set(AUDITOR_TABLES) - set(PRIVATE_TABLES) == set()


def test_names_of_roles_are_quoted() -> None:
    tables = channel_tables("consortium", [], ["ledger_checkpoint", "operation_log", *PRIVATE_TABLES])
    statements = grants(tables, RoleNames('a"; DROP TABLE x; --'))

    assert any(statement.endswith('TO "a""; DROP TABLE x; --"') for statement in statements)
    with pytest.raises(errors.ConfigurationError, match="not a name"):
        grants(tables, RoleNames("a" * 64))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda roles: roles.names._replace(reader="nobody_there"), 'CREATE ROLE "nobody_there" NOLOGIN;'),
        (lambda roles: roles.names._replace(reader=roles.names.writer), "each needs a name of its own"),
        (lambda roles: roles.names._replace(reader=roles.owner), "who owns the tables"),
        (lambda roles: roles.names._replace(reader="postgres"), "is a superuser"),
    ],
)
def test_unfit_roles_are_refused(change: Any, message: str, roles: Roles) -> None:
    open_store(roles.url(roles.owner), CHANNEL).close()

    with pytest.raises(errors.ConfigurationError) as refused:
        grant_rights(roles.url(roles.owner), CHANNEL, change(roles), ASKED)

    assert message in str(refused.value)
    assert query(roles.url(roles.owner), "SELECT count(*) FROM operation_log") == [(0,)]


def test_who_is_not_the_owner_gives_no_rights(roles: Roles) -> None:
    migrated(roles)
    others = RoleNames(*roles.names[1:], roles.owner)

    with pytest.raises(errors.ConfigurationError, match="only its owner gives rights"):
        grant_rights(roles.url(roles.names.writer), CHANNEL, others, ASKED)


def test_files_have_no_roles(sqlite_url: str) -> None:
    with pytest.raises(errors.ConfigurationError, match="has no roles"):
        grant_rights(sqlite_url, CHANNEL, RoleNames(), ASKED)


def run(application: Any, *arguments: str, **variables: str) -> Any:
    return CliRunner().invoke(application, arguments, env=variables)


def test_the_commands_migrate_give_rights_and_log_it(roles: Roles) -> None:
    owner = ("--database", roles.url(roles.owner), "--channel", CHANNEL)
    options = [
        option for name, role in roles.names._asdict().items() for option in (f"--{name.replace('_', '-')}", role)
    ]

    early = run(sync, "roles", *owner, *options)
    assert early.exit_code == 1
    assert "first run `kvr sync migrate`" in early.stderr
    made = run(sync, "migrate", *owner, "--mapping", str(OUTCOMES), "--private-data-of", "EnterpriseMSP")
    assert made.exit_code == 0, made.stderr
    again = run(sync, "migrate", *owner)
    assert again.exit_code == 0, again.stderr

    script = run(sync, "roles", *owner, *options, "--sql")
    assert script.stdout.startswith("BEGIN;\nREVOKE ALL ON ")
    assert query(roles.url(roles.owner), "SELECT count(*) FROM operation_log") == [(0,)]
    silent = run(sync, "roles", *owner, *options, KVR_ENVIRONMENT="production")
    assert "in production say why, with --why" in silent.stderr
    done = run(sync, "roles", *owner, *options, "--why", "first installation", KVR_ENVIRONMENT="production")
    assert done.exit_code == 0, done.stderr

    assert query(roles.url(roles.owner), "SELECT reason FROM operation_log") == [("first installation",)]


def test_operations_are_told_to_auditors(roles: Roles, tmp_path: Path) -> None:
    migrated(roles)
    sync_once(
        SyncSettings(write_records(tmp_path / "blocks", CHAIN.blocks[:3]), roles.url(roles.names.writer), OUTCOMES)
    )
    grant_rights(roles.url(roles.owner), CHANNEL, roles.names, ASKED._replace(reason="a new auditor"))

    told = run(audit, "operations", "--database", roles.url(roles.names.auditor), "--json")

    assert told.exit_code == 0, told.stderr
    newest, first = json.loads(told.stdout)
    assert (newest["operation"], newest["reason"]) == ("roles", "a new auditor")
    assert newest["operator"] == f"a test, database user {roles.owner}"
    assert (newest["before_block"], newest["after_block"], first["before_block"]) == (2, 2, None)
    in_words = run(audit, "operations", "--database", roles.url(roles.names.auditor))
    assert "checkpoint before: block 2, after: block 2" in in_words.stdout
