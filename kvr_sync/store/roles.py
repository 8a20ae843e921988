"""Who may do what in a PostgreSQL database: five roles, none of them superuser, no extension.

owner           owns the schema of the channel; the only one that makes and changes tables
writer          the engine: reads and writes rows, makes nothing; adds to `operation_log` and cannot change it
reader          mapped tables of public state, and where they stand
auditor         everything public, the ledger layer and `operation_log` among it; writes nothing
private reader  what the organisation holds of private data, and where it stands

The rights are decided table by table, so that a table nobody has thought of is nobody's but the owner's.
"""

import json
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from sqlalchemy import Connection, Inspector, inspect, select, text

from kvr_sync.errors import ConfigurationError, SchemaDriftError
from kvr_sync.store.database import Database, open_database
from kvr_sync.store.database_error import driver_errors
from kvr_sync.store.drift import REVISION_TABLE, first_difference
from kvr_sync.store.mapped_table import MappedTable, mapped_tables
from kvr_sync.store.mapped_view import VIEW_ENDINGS, views_of
from kvr_sync.store.operation_log import Operation, append_operation
from kvr_sync.store.schema import ledger_tables
from kvr_sync.store.status import RecordedMapping, recorded_mappings, stored_checkpoint

STATUS_TABLES = ("ledger_checkpoint", "sync_status")
"""Where the tables stand; `kvr_wait_for_block` reads the first with the rights of its caller."""
READER_TABLES = (*STATUS_TABLES, "ledger_block", "ledger_transaction", "ledger_validation_code")
"""What a reader joins mapped rows with. No table with keys or raw values, nor with hashes of private ones."""
AUDITOR_TABLES = (
    *READER_TABLES,
    "alembic_version",
    "ledger_chaincode",
    "ledger_chaincode_definition",
    "ledger_collection_definition",
    "ledger_config",
    "ledger_endorser",
    "ledger_endorser_set",
    "ledger_event",
    "ledger_identity",
    "ledger_key",
    "ledger_key_history",
    "ledger_key_metadata",
    "ledger_private_hash",
    "ledger_quarantine",
    "ledger_refused_write",
    "operation_log",
    "sync_change",
    "sync_job",
    "sync_mapping",
    "sync_peer",
    "sync_run",
    "sync_table",
)
"""All that is public on the channel, and what the engine and its operators did."""
PRIVATE_TABLES = (*STATUS_TABLES, "ledger_private_value", "ledger_private_member")


class RoleNames(NamedTuple):
    """Names of the roles in one database; a channel can have roles of its own."""

    writer: str = "kvr_writer"
    reader: str = "kvr_reader"
    auditor: str = "kvr_auditor"
    private_reader: str = "kvr_private_reader"


class ChannelTables(NamedTuple):
    """The tables and views of one schema of a channel, by who may read them beside writer and owner."""

    schema: str
    public: tuple[str, ...]
    """Of the mapped layer, with histories, feeds and other views."""
    private: tuple[str, ...]
    names: frozenset[str]
    """All of the schema that are ours."""


def grant_rights(url: str, channel: str, names: RoleNames, operation: Operation | None) -> list[str]:
    """Give the roles their rights on a channel's schema, in one transaction, and give the statements that did it.

    With `operation` they are run and it is logged; with None nothing is changed. Raises ConfigurationError: not
    PostgreSQL, who connects is not the owner, a role that is missing or unfit, a channel that has no tables here.
    SchemaDriftError: the tables are not as this version makes them.
    """
    database = open_database(url, channel)
    if database.schema is None:
        raise ConfigurationError(f"{database.place}: an SQLite file has no roles; the file's own permissions count")
    tables = ledger_tables(database.schema)
    with driver_errors(database.place), database.engine.begin() as connection:
        database.lock_for_migration(connection)
        inspector = inspect(connection)
        if not inspector.has_table("ledger_checkpoint", schema=database.schema):
            raise ConfigurationError(f"{database.place}: no tables of channel {channel}; first run `kvr sync migrate`")
        recorded = recorded_mappings(connection, tables, database.place)
        mapped = mapped_tables(recorded.combined, tables)
        if recorded.building is not None:
            mapped += mapped_tables(recorded.building.qualified, tables)
        difference = first_difference(connection, tables.metadata)
        if difference is not None:
            raise SchemaDriftError(f"{database.place}, schema {database.schema}: {difference}")
        check_roles(connection, names, database.place)
        statements = []
        for schema in dict.fromkeys((database.schema, *(str(entry.current.schema) for entry in mapped))):
            _check_owner(connection, schema, database.place)
            own = [entry for entry in mapped if entry.current.schema == schema]
            statements += _schema_grants(inspector, schema, own, names)
        if operation is not None:
            for statement in statements:
                connection.exec_driver_sql(statement)
            detail = {**operation.detail, **names._asdict()}  # new tables get the same rights
            append_operation(
                connection, tables, operation._replace(detail=detail), stored_checkpoint(connection, tables)
            )
    return statements


def grant_on_new_tables(connection: Connection, database: Database, new: RecordedMapping) -> None:
    """Give the roles that were given rights last theirs on the tables of a version of the API that were just made."""
    schema, tables = new.schema(database.schema), ledger_tables(database.schema)
    if schema is None:
        return
    log = tables.operation
    last = select(log.c.detail).where(log.c.operation == "roles").order_by(log.c.operation_id.desc()).limit(1)
    detail = connection.scalar(last)
    if detail is None:
        return
    given = json.loads(detail)
    names = RoleNames(**{name: given[name] for name in RoleNames._fields if name in given})
    check_roles(connection, names, database.place)
    for statement in _schema_grants(inspect(connection), schema, mapped_tables(new.qualified, tables), names):
        connection.exec_driver_sql(statement)


def _schema_grants(inspector: Inspector, schema: str, mapped: Iterable[MappedTable], names: RoleNames) -> list[str]:
    there = [*inspector.get_table_names(schema), *inspector.get_view_names(schema)]
    return grants(channel_tables(schema, mapped, there), names)


def channel_tables(schema: str, mapped: Iterable[MappedTable], names: Iterable[str]) -> ChannelTables:
    """Sort the tables of a schema; `names`: the tables and views that there are, strangers' views among them."""
    public: list[str] = []
    private: list[str] = []
    there = set(names)
    for entry in mapped:
        own = [table.name for table in entry.tables]
        own += [view.name for view in views_of(entry) if view.name in there]
        (private if entry.is_private else public).extend(own)
    ours = (set(AUDITOR_TABLES) | set(PRIVATE_TABLES) | set(public) | set(private)) & there
    return ChannelTables(schema, tuple(public), tuple(private), frozenset(ours))


def grants(tables: ChannelTables, names: RoleNames) -> list[str]:
    """Give the statements that leave each role exactly its rights on a channel's schema; they may be repeated."""
    return [*_grants(tables, names)]


def _grants(tables: ChannelTables, names: RoleNames) -> Iterator[str]:
    schema = quoted(tables.schema)
    ours = ", ".join(f"{schema}.{quoted(name)}" for name in sorted(tables.names))
    roles = ", ".join(quoted(name) for name in names)
    # First everything is taken away, in the same transaction: a right that a role should not have any more goes.
    yield f"REVOKE ALL ON {ours} FROM PUBLIC, {roles}"
    yield f"REVOKE ALL ON SCHEMA {schema} FROM PUBLIC, {roles}"
    yield f"GRANT USAGE ON SCHEMA {schema} TO {roles}"
    if STATUS_TABLES[0] in tables.names:
        function = f"{schema}.kvr_wait_for_block(bigint, interval)"
        yield f"REVOKE ALL ON FUNCTION {function} FROM PUBLIC"
        yield f"GRANT EXECUTE ON FUNCTION {function} TO {roles}"
    views = {f"{name}{ending}" for name in (*tables.public, *tables.private) for ending in VIEW_ENDINGS}
    only_read = {REVISION_TABLE, "ledger_validation_code", "sync_status", *views} & tables.names
    for names_of, rights, role in (
        (tables.names - only_read - {"operation_log"}, "SELECT, INSERT, UPDATE, DELETE", names.writer),
        (only_read, "SELECT", names.writer),
        ({"operation_log"}, "SELECT, INSERT", names.writer),
        ({*READER_TABLES, *tables.public}, "SELECT", names.reader),
        ({*AUDITOR_TABLES, *tables.public}, "SELECT", names.auditor),
        ({*PRIVATE_TABLES, *tables.private}, "SELECT", names.private_reader),
    ):
        listed = ", ".join(f"{schema}.{quoted(name)}" for name in sorted(names_of & tables.names))
        if listed:
            yield f"GRANT {rights} ON {listed} TO {quoted(role)}"


def _check_owner(connection: Connection, schema: str, place: str) -> None:
    """Refuse who does not own the schema: to them PostgreSQL would say "no privileges were granted", and go on."""
    owns = text("SELECT pg_has_role(nspowner, 'USAGE') FROM pg_namespace WHERE nspname = :schema")
    if not connection.scalar(owns, {"schema": schema}):
        raise ConfigurationError(f"{place}, schema {schema}: only its owner gives rights on it; connect as the owner")


def check_roles(connection: Connection, names: RoleNames, place: str) -> None:
    """Refuse roles that are missing, that are one role twice, and one that no right can be kept from.

    Raises ConfigurationError, which says what a database administrator does.
    """
    if len(set(names)) < len(names):
        raise ConfigurationError(f"roles: {', '.join(names)}: each needs a name of its own")
    rows = connection.execute(text("SELECT rolname, rolsuper FROM pg_roles WHERE rolname = ANY(:n)"), {"n": [*names]})
    found = {row[0]: row[1] for row in rows}
    missing = [name for name in names if name not in found]
    if missing:
        statements = " ".join(f"CREATE ROLE {quoted(name)} NOLOGIN;" for name in missing)
        raise ConfigurationError(f"{place}: there is no role {', '.join(missing)}. An administrator runs: {statements}")
    powerful = [name for name in names if found[name]]
    if powerful:
        raise ConfigurationError(f"{place}: {', '.join(powerful)} is a superuser, whom no right is kept from")
    owner = connection.scalar(text("SELECT current_user"))
    if owner in names:
        raise ConfigurationError(f"{place}: {owner} is who owns the tables; connect as the owner, and name other roles")


def quoted(name: str) -> str:
    """Quote an identifier for PostgreSQL; raises ConfigurationError for what cannot be one."""
    if not name or "\0" in name or len(name.encode()) > 63:  # NAMEDATALEN
        raise ConfigurationError(f"{name[:64]!r} is not a name that PostgreSQL takes")
    return '"' + name.replace('"', '""') + '"'
