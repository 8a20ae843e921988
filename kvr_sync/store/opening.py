"""Opening a store: from a URL to a sink whose tables are what they should be, or a refusal that says why."""

from collections.abc import Sequence

from sqlalchemy import Connection, func, insert, inspect, select, text

from kvr_sync.errors import CheckpointConflictError, ConfigurationError, MappingChangedError, SchemaDriftError
from kvr_sync.mapping.api_version import FIRST_API
from kvr_sync.mapping.definition import Mapping, to_json
from kvr_sync.store.database import Database, open_database
from kvr_sync.store.database_error import driver_errors
from kvr_sync.store.drift import first_difference
from kvr_sync.store.ledger_sink import Clock, LedgerSink, Store, utc_now
from kvr_sync.store.mapped_table import MappedTable, mapped_tables
from kvr_sync.store.mapped_view import view_statements
from kvr_sync.store.migration import refuse_without_ddl, upgrade
from kvr_sync.store.postgresql_sink import PostgresqlSink
from kvr_sync.store.schema import LedgerTables, ledger_tables
from kvr_sync.store.sink import Hook, no_hook
from kvr_sync.store.sqlite_sink import SqliteSink
from kvr_sync.store.status import RecordedMapping, is_mapping_unfinished, mapping_version, recorded_mappings

_FIRST_VERSION = 1


def open_store(
    url: str,
    channel: str,
    *,
    mapping: Mapping | None = None,
    private_member: str | None = None,
    create: bool = True,
    hook: Hook = no_hook,
    clock: Clock = utc_now,
) -> LedgerSink:
    """Open the tables of a channel, creating or upgrading them first; give the sink that writes them.

    The mapping given first is recorded and its tables are made; without `mapping` the recorded one is used.
    `private_member`: MSP ID of the organisation whose private data is held beside the rest, from the first block on or
    never. With `create` false nothing is made where no store is.

    Raises ConfigurationError: unusable URL, channel id or file, a database not in UTF-8, a file of another channel, a
    mapping or member that is not the recorded one, tables to make by who may not. SinkUnavailableError: no server.
    SinkReadOnlyError: no writes. SchemaDriftError: tables of a newer version, or changed by hand, by table and column.
    CheckpointConflictError: checkpoint and rows disagree. MappingChangedError (retryable): a mapping is being applied.
    """
    database = open_database(url, channel)
    database.check(create=create)
    tables = ledger_tables(database.schema)
    with driver_errors(database.place), database.engine.begin() as connection:
        database.lock_for_migration(connection)
        upgrade(connection, database.schema, place=database.place, create=create)
        _refuse_drift(connection, database, tables, strangers=False)
        applied = check_position(connection, database.place, tables, channel)
        if is_mapping_unfinished(connection, tables):
            raise MappingChangedError(
                f"{database.place}: a new mapping of channel {channel} is being applied; if no `kvr sync apply` runs,"
                " it broke off: run it again with the same mapping"
            )
        _check_member(connection, database, tables, applied, private_member)
        recorded = recorded_mappings(connection, tables, database.place)
        in_force = recorded.combined
        make = mapping is not None and mapping.digest not in {one.mapping.digest for one in recorded.in_force}
        if mapping is not None and make:
            if recorded.in_force or applied is not None:
                raise ConfigurationError(_other_mapping(database, mapping, recorded.in_force, applied))
            in_force = mapping
        mapped = mapped_tables(in_force, tables)
        if recorded.building is not None:
            mapped_tables(recorded.building.qualified, tables)  # ours, though others fill them
        if make:
            refuse_without_ddl(connection, database.schema, place=database.place, what="made for the mapping")
            check_collations(connection, database, in_force)
            _record(connection, tables, in_force, mapped)
        _refuse_drift(connection, database, tables, strangers=True)
        version = mapping_version(connection, tables)
    return sink_for(Store(channel, database, tables, in_force, mapped, version), hook=hook, clock=clock)


def sink_for(store: Store, *, hook: Hook = no_hook, clock: Clock = utc_now) -> LedgerSink:
    """Give the sink that writes to a store; nothing is checked, and nothing connected yet."""
    sink = PostgresqlSink if store.database.schema else SqliteSink
    return sink(store, hook=hook, clock=clock)


def recorded_member(url: str, channel: str) -> str | None:
    """Give the organisation whose private data a channel's tables hold; None: none, or there are no tables yet."""
    database = open_database(url, channel)
    database.check(create=True)
    table = ledger_tables(database.schema).private_member
    with driver_errors(database.place), database.engine.connect() as connection:
        if not inspect(connection).has_table(table.name, schema=database.schema):
            return None
        return connection.scalar(select(table.c.msp_id))


def _refuse_drift(connection: Connection, database: Database, tables: LedgerTables, *, strangers: bool) -> None:
    difference = first_difference(connection, tables.metadata, strangers=strangers)
    if difference is not None:
        where = f"{database.place}, schema {database.schema}" if database.schema else database.place
        raise SchemaDriftError(f"{where}: {difference}")


def check_position(connection: Connection, place: str, tables: LedgerTables, channel: str) -> int | None:
    """Give the number of the last block applied (None: none), after checking that checkpoint and rows agree on it.

    Raises ConfigurationError for another channel's tables, CheckpointConflictError where the two disagree.
    """
    checkpoint, block = tables.checkpoint, tables.block
    rows = connection.execute(select(checkpoint)).all()
    newest = connection.scalar(select(func.max(block.c.block_number)))
    strangers = sorted({row.channel for row in rows} - {channel})
    if strangers:
        raise ConfigurationError(f"{place} belongs to channel {strangers[0]}, not to {channel}; use another place")
    if not rows:
        if newest is not None:
            raise CheckpointConflictError(f"{place}: there are rows up to block {newest} but no checkpoint")
        return None
    number = rows[0].block_number
    header_hash = connection.scalar(select(block.c.header_hash).where(block.c.block_number == number))
    if newest != number or header_hash is None or bytes(header_hash) != bytes(rows[0].header_hash):
        raise CheckpointConflictError(
            f"{place}: the checkpoint is at block {number}, the newest row of ledger_block is {newest},"
            " and their hashes must agree: one of them was changed by hand"
        )
    return int(number)


def _check_member(
    connection: Connection, database: Database, tables: LedgerTables, applied: int | None, member: str | None
) -> None:
    """Hold private data from the first block on or never: rows that are not kept up would outlive a purge."""
    stored = connection.scalar(select(tables.private_member.c.msp_id))
    if stored == member:
        return
    if stored is not None:
        raise ConfigurationError(
            f"{database.place} holds the private data of {stored}: go on with that, or use an empty database"
        )
    if applied is not None:
        raise ConfigurationError(
            f"{database.place} was filled up to block {applied} without private data; use an empty database"
        )
    connection.execute(insert(tables.private_member).values(msp_id=member))


def check_collations(connection: Connection, database: Database, mapping: Mapping) -> None:
    """Refuse locales that the server does not have; SQLite sorts by bytes whatever the mapping says."""
    if connection.dialect.name != "postgresql":
        return
    locales = {column.collation: (part.name, column.name) for part in mapping.parts() for column in part.columns}
    locales.pop(None, None)
    known = set(connection.scalars(text("SELECT collname FROM pg_collation WHERE collprovider = 'i'")))
    for locale, (table_name, column_name) in locales.items():
        if f"{locale}-x-icu" not in known:
            raise ConfigurationError(
                f"{database.place}: this PostgreSQL has no ICU collation for the locale {locale!r} of column"
                f" {table_name}.{column_name}; pg_collation lists those it has"
            )


def _other_mapping(database: Database, given: Mapping, in_force: Sequence[RecordedMapping], applied: int | None) -> str:
    digests = f"given {given.digest[:16]}, recorded {', '.join(one.mapping.digest[:16] for one in in_force)}"
    if not in_force:
        return f"{database.place} was filled up to block {applied} without a mapping; use an empty database"
    return (
        f"{database.place} was made with another mapping ({digests}); use that one, or an empty database;"
        " `kvr sync plan` tells what another one would change"
    )


def _record(connection: Connection, tables: LedgerTables, mapping: Mapping, mapped: tuple[MappedTable, ...]) -> None:
    """Make the mapped tables and write the mapping down, so that names and columns never change by accident."""
    made = [table for entry in mapped for table in entry.tables]
    tables.metadata.create_all(connection, tables=made, checkfirst=False)
    for statement in view_statements(connection.dialect.name, tables, enumerate(mapped, start=1)):
        connection.exec_driver_sql(statement)
    connection.execute(
        insert(tables.mapping).values(
            version=_FIRST_VERSION,
            digest=mapping.digest,
            content=to_json(mapping),
            applied_at_block=0,
            api_version=FIRST_API,
        )
    )
    if mapped:
        rows = [
            {"table_id": number, "name": entry.name, "mapping_version": _FIRST_VERSION, "last_change_id": 0}
            for number, entry in enumerate(mapped, start=1)
        ]
        connection.execute(insert(tables.mapped_table), rows)
