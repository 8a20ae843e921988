"""Migrations make exactly the tables that the code expects, and nothing else is accepted."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from threading import Barrier

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, select
from sqlalchemy.schema import CreateSchema

from kvr_sync.errors import SchemaDriftError
from kvr_sync.store.database import open_database
from kvr_sync.store.drift import first_difference
from kvr_sync.store.ledger_sink import LedgerSink
from kvr_sync.store.migration import NEWEST_REVISION, stored_revision
from kvr_sync.store.opening import open_store
from network.protocol.validation_code import REASONS, validation_code_name
from tests.support.row_batch import request_mapping

CHANNEL = "service-channel"


@pytest.fixture
def sink(database_url: str) -> Iterator[LedgerSink]:
    with closing(open_store(database_url, CHANNEL, mapping=request_mapping())) as opened:
        yield opened


def test_the_newest_revision_is_the_last_script() -> None:
    config = Config()
    config.set_main_option("script_location", "kvr_sync.store:migrations")

    assert ScriptDirectory.from_config(config).get_current_head() == NEWEST_REVISION


def change(url: str, *statements: str) -> None:
    """Run statements as somebody else would; `@` stands for the schema and its dot. Views go with their tables."""
    database = open_database(url, CHANNEL)
    prefix = f'"{database.schema}".' if database.schema else ""
    with database.engine.begin() as connection:
        for statement in statements:
            cascade = " CASCADE" if prefix and statement.startswith("DROP TABLE") else ""
            connection.exec_driver_sql(statement.replace("@", prefix) + cascade)


def of_our_schema(connection: Connection, sink: LedgerSink) -> MigrationContext:
    schema = sink.tables.metadata.schema

    def include(name: str | None, kind: str, _parents: object) -> bool:
        return name == schema if kind == "schema" else name != "alembic_version"

    options = {"include_schemas": schema is not None, "include_name": include, "compare_type": True}
    return MigrationContext.configure(connection, opts=options)


def test_migrations_make_the_tables_of_the_code(sink: LedgerSink) -> None:
    with sink.database.engine.connect() as connection:
        differences = compare_metadata(of_our_schema(connection, sink), sink.tables.metadata)
        changes = [change for entry in differences for change in (entry if isinstance(entry, list) else [entry])]
        assert [change for change in changes if "comment" not in change[0]] == []  # comments are the database's alone
        assert first_difference(connection, sink.tables.metadata) is None


def test_validation_codes_are_those_of_the_protocol(sink: LedgerSink) -> None:
    table = sink.tables.validation_code
    with sink.database.engine.connect() as connection:
        found = connection.execute(select(table.c.code, table.c.name, table.c.reason)).all()

    assert [tuple(row) for row in found] == [
        (code, validation_code_name(code), REASONS[validation_code_name(code)]) for code, _, _ in found
    ]
    assert {row.name for row in found} == set(REASONS)


def test_all_tables_and_columns_carry_comments(postgresql_url: str) -> None:
    with (
        closing(open_store(postgresql_url, CHANNEL, mapping=request_mapping())) as sink,
        sink.database.engine.connect() as connection,
    ):
        inspector = inspect(connection)
        schema = sink.tables.metadata.schema
        ours = {table.name for table in sink.tables.metadata.sorted_tables}
        without = {name for name in ours if not inspector.get_table_comment(name, schema)["text"]}
        without |= {
            f"{name}.{column['name']}"
            for name in ours
            for column in inspector.get_columns(name, schema)
            if not column["comment"] and name not in {"request", "request_history"}
        }
    assert without == set()


def test_channels_of_one_server_have_tables_of_their_own(postgresql_url: str) -> None:
    for channel in ("consortium", "service-channel", "public"):
        open_store(postgresql_url, channel).close()

    with open_database(postgresql_url, CHANNEL).engine.connect() as connection:
        schemas = [
            name
            for name in inspect(connection).get_schema_names()
            if inspect(connection).has_table("ledger_block", schema=name)
        ]
    assert len(schemas) == 3
    assert "public" not in schemas


@pytest.mark.parametrize(
    ("statement", "difference"),
    [
        ("ALTER TABLE @ledger_transaction DROP COLUMN function", "column ledger_transaction.function is missing"),
        ("ALTER TABLE @ledger_block ADD COLUMN note TEXT", "column ledger_block.note is not one of ours"),
        ("DROP TABLE @ledger_event", "table ledger_event is missing"),
        ("CREATE TABLE @mine (a INTEGER)", "table mine is not one of ours"),
        ("DROP INDEX @ledger_transaction_tx_id_idx", r"the index of ledger_transaction \(tx_id\) is missing"),
        ("ALTER TABLE @request DROP COLUMN a_json", "column request.a_json is missing"),
        ("ALTER TABLE @request_history ADD COLUMN note TEXT", "column request_history.note is not one of ours"),
        ("ALTER TABLE @request_history RENAME TO mine", "table request_history is missing"),
        ("DROP TABLE @sync_mapping", "table sync_mapping is missing"),
        ("CREATE UNIQUE INDEX mine ON @request (a_integer)", "unique index mine of request"),
    ],
)
def test_rejects_tables_changed_by_hand(sink: LedgerSink, database_url: str, statement: str, difference: str) -> None:
    sink.close()
    change(database_url, statement)

    with pytest.raises(SchemaDriftError, match=difference):
        open_store(database_url, CHANNEL)


@pytest.mark.parametrize(
    ("statement", "difference"),
    [
        (
            "ALTER TABLE @ledger_block ALTER COLUMN transaction_count TYPE bigint",
            "transaction_count is BIGINT, not INTEGER",
        ),
        ("ALTER TABLE @request ALTER COLUMN a_decimal TYPE text", "column request.a_decimal is TEXT, not NUMERIC"),
        ("ALTER TABLE @request ALTER COLUMN title DROP NOT NULL", "column request.title may be NULL"),
        ("ALTER TABLE @request DROP CONSTRAINT request_pkey", "primary key of request is not"),
        ("ALTER TABLE @ledger_key DROP CONSTRAINT ledger_key_digest_key", "unique constraint of ledger_key"),
    ],
)
def test_rejects_columns_changed_by_hand(postgresql_url: str, statement: str, difference: str) -> None:
    open_store(postgresql_url, CHANNEL, mapping=request_mapping()).close()
    change(postgresql_url, statement)

    with pytest.raises(SchemaDriftError, match=difference):
        open_store(postgresql_url, CHANNEL)


def test_rejects_column_of_other_type_in_sqlite(sqlite_url: str) -> None:
    open_store(sqlite_url, CHANNEL, mapping=request_mapping()).close()
    change(sqlite_url, "ALTER TABLE request DROP COLUMN a_bytes", "ALTER TABLE request ADD COLUMN a_bytes TEXT")

    with pytest.raises(SchemaDriftError, match=r"column request\.a_bytes is TEXT, not BLOB"):
        open_store(sqlite_url, CHANNEL)


def test_tables_of_several_channels_are_made_at_once(postgresql_url: str) -> None:
    barrier = Barrier(4)

    def make(channel: str) -> int:
        barrier.wait(20)
        with closing(open_store(postgresql_url, channel, mapping=request_mapping())) as opened:
            return len(opened.status().runs)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(make, ["one", "two", "three", "four"])) == [0] * 4


def test_further_indexes_and_views_are_accepted(sink: LedgerSink, database_url: str) -> None:
    sink.close()
    change(database_url, "CREATE INDEX mine ON @request (a_integer)", "CREATE VIEW @open AS SELECT title FROM @request")

    open_store(database_url, CHANNEL).close()


def test_rejects_tables_of_a_newer_version(sink: LedgerSink, database_url: str) -> None:
    sink.close()
    change(database_url, "UPDATE @alembic_version SET version_num = '9999'")

    with pytest.raises(SchemaDriftError, match="at revision 9999, which this version does not know"):
        open_store(database_url, CHANNEL)


def test_rejects_place_that_holds_tables_of_others(sqlite_url: str) -> None:
    change(sqlite_url, "CREATE TABLE customer (id INTEGER)")

    with pytest.raises(SchemaDriftError, match="there is a table customer"):
        open_store(sqlite_url, CHANNEL)


def test_table_dropped_while_the_sink_is_open_is_drift(sink: LedgerSink, database_url: str) -> None:
    change(database_url, "DROP TABLE @ledger_checkpoint")

    with pytest.raises(SchemaDriftError):
        sink.checkpoint()


def test_failed_creation_leaves_nothing(database_url: str) -> None:
    open_store(database_url, CHANNEL).close()
    change(database_url, "DROP TABLE @sync_run")
    with pytest.raises(SchemaDriftError):
        open_store(database_url, CHANNEL, mapping=request_mapping())

    with open_database(database_url, CHANNEL).engine.connect() as connection:
        assert not inspect(connection).has_table("request", schema=open_database(database_url, CHANNEL).schema)


@pytest.mark.parametrize("revision", ["0001", "0002", "0003", "0004"])
def test_tables_of_an_older_version_are_brought_up_and_keep_their_rows(revision: str, database_url: str) -> None:
    database = open_database(database_url, CHANNEL)
    database.check(create=True)
    with database.engine.begin() as connection:
        if database.schema is not None:
            connection.execute(CreateSchema(database.schema))
        config = Config(attributes={"connection": connection, "schema": database.schema})
        config.set_main_option("script_location", "kvr_sync.store:migrations")
        command.upgrade(config, revision)
    run = (
        "INSERT INTO @sync_run (started_at, outcome, blocks, transactions) VALUES ('2026-01-02T03:04:05Z', 'ok', 0, 0)"
    )
    change(database_url, run)

    with closing(open_store(database_url, CHANNEL)) as opened:
        with opened.database.engine.connect() as connection:
            assert stored_revision(connection, database.schema) == NEWEST_REVISION
            assert first_difference(connection, opened.tables.metadata) is None
        assert len(opened.status().runs) == 1
        assert opened.count_private() == (0, 0)
