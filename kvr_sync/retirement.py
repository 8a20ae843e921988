"""`kvr sync retire`: the tables of one version of the API taken away, where another one is in force beside it.

An old one whose readers have gone, or a new one that is not wanted after all, whether it is in force or its building
broke off. Nothing cascades: what others built on the tables is named, and nothing is done while it is there.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

from sqlalchemy import Connection, delete, insert, select, tuple_, update

from kvr_sync.errors import ConfigurationError
from kvr_sync.mapping.api_version import split_name
from kvr_sync.read import open_tables
from kvr_sync.store.database import Database, open_database
from kvr_sync.store.database_error import driver_errors
from kvr_sync.store.mapped_table import MappedTable, mapped_tables
from kvr_sync.store.mapping_ddl import dependents, retiring_step
from kvr_sync.store.migration import refuse_without_ddl
from kvr_sync.store.operation_log import Operation, append_operation
from kvr_sync.store.schema import LedgerTables, ledger_tables
from kvr_sync.store.schema_change import PATIENCE, Patience, change_tables, run_step
from kvr_sync.store.status import (
    BUILDING,
    RETIRED,
    RecordedMapping,
    RecordedMappings,
    is_mapping_unfinished,
    recorded_mappings,
    stored_checkpoint,
)

ROWS_AT_ONCE = 50_000
"""Of a feed that is deleted, in one transaction: in SQLite an engine waits as long."""


class Retired(NamedTuple):
    """What was taken away. No tables: they had gone before, and what they left behind was looked for."""

    channel: str
    api_version: int
    tables: tuple[str, ...]


def retire_api(
    url: str, channel: str | None, api_version: int, operation: Operation, *, patience: Patience = PATIENCE
) -> Retired:
    """Take the tables of a version of the API away, with views, histories, feeds and quarantine of them; by the owner.

    To be called again after any error. Raises ConfigurationError: no such version, the only one in force, one that
    views of others read (by name), a mapping that is being applied. SinkUnavailableError (retryable): there was no
    moment without readers of the tables.
    """
    with open_tables(url, channel) as synced:
        name = synced.channel
        recorded = recorded_mappings(synced.connection, synced.tables, synced.place)
    chosen = _chosen(recorded, api_version)
    database = open_database(url, name)
    database.check(create=False)
    gone: tuple[str, ...] = ()
    if chosen is not None:
        locked = [part.name for part in chosen.qualified.parts()]
        gone = change_tables(
            database, lambda connection: _drop(connection, database, api_version, operation), locked, patience
        )
    elif api_version > recorded.newest_api:
        there = ", ".join(str(one.api_version) for one in recorded.in_force)
        raise ConfigurationError(f"{database.place}: there is no version {api_version} of the API; in force: {there}")
    _forget(database)
    return Retired(name, api_version, gone)


def _chosen(recorded: RecordedMappings, api_version: int) -> RecordedMapping | None:
    there = [*recorded.in_force, *([] if recorded.building is None else [recorded.building])]
    return next((one for one in there if one.api_version == api_version), None)


def _drop(connection: Connection, database: Database, api_version: int, operation: Operation) -> tuple[str, ...]:
    """Take the tables away in one short transaction, in which no block is applied."""
    tables, place = ledger_tables(database.schema), database.place
    database.lock_for_settling(connection)
    recorded = recorded_mappings(connection, tables, place)
    chosen = _chosen(recorded, api_version)
    if chosen is None:
        return ()
    if is_mapping_unfinished(connection, tables):
        raise ConfigurationError(f"{place}: a mapping is being applied, or broke off; finish that first")
    if recorded.in_force == (chosen,):
        raise ConfigurationError(f"{place}: version {api_version} of the API is the only one in force")
    refuse_without_ddl(connection, database.schema, place=place, what="taken away", command="retire")
    mapped = mapped_tables(chosen.qualified, tables)
    names = tuple(part.name for part in chosen.qualified.parts())
    _refuse_readers(connection, mapped, names, place)
    # Its own tables anew: those of `mapped` are in `tables` already.
    run_step(connection, retiring_step(connection, ledger_tables(database.schema), chosen))
    own = [entry.name for entry in mapped]
    connection.execute(delete(tables.mapped_table).where(tables.mapped_table.c.name.in_(own)))
    checkpoint = stored_checkpoint(connection, tables)
    _record(connection, tables, chosen, recorded.newest_version + 1, checkpoint.block_number if checkpoint else 0)
    detail = {"api_version": api_version, "tables": own}
    append_operation(connection, tables, operation._replace(detail={**operation.detail, **detail}), checkpoint)
    return names


def _refuse_readers(
    connection: Connection, mapped: tuple[MappedTable, ...], names: tuple[str, ...], place: str
) -> None:
    found = dependents(connection, mapped, names)
    if found:
        told = ", ".join(f"{one.view} (of {one.table})" for one in found)
        raise ConfigurationError(f"{place}: views of others read these tables, and would go with them: {told}")


def _record(
    connection: Connection, tables: LedgerTables, chosen: RecordedMapping, version: int, block_number: int
) -> None:
    given = {"content": RETIRED, "applied_at_block": block_number}
    if chosen.applied_at_block == BUILDING:  # it was never in force
        version = chosen.version
        connection.execute(update(tables.mapping).where(tables.mapping.c.version == version).values(**given))
    else:
        new = {"version": version, "digest": chosen.mapping.digest, "api_version": chosen.api_version}
        connection.execute(insert(tables.mapping).values(**new, **given))
    connection.execute(update(tables.mapped_table).values(mapping_version=version))


def _forget(database: Database) -> None:
    """Delete what tables that are gone left in tables of ours: changes of their feeds, entries of their quarantine."""
    tables = ledger_tables(database.schema)
    change, feed, entry = tables.change, tables.mapped_table, tables.quarantine
    of_no_table = change.c.table_id.not_in(select(feed.c.table_id))
    some = select(change.c.table_id, change.c.change_id).where(of_no_table).limit(ROWS_AT_ONCE)
    deleted = delete(change).where(tuple_(change.c.table_id, change.c.change_id).in_(some))
    while True:
        with driver_errors(database.place), database.engine.begin() as connection:
            if connection.execute(deleted, execution_options={"preserve_rowcount": True}).rowcount == 0:
                break
    with driver_errors(database.place), database.engine.begin() as connection:
        known = select(feed.c.name)
        connection.execute(delete(entry).where(entry.c.table_name.not_in(known)))


def retired_facts(retired: Retired) -> dict[str, Any]:
    """Give what was taken away, for machines."""
    return retired._asdict()


def describe_retired(retired: Retired) -> Iterator[str]:
    """Tell in words what was taken away."""
    if not retired.tables:
        yield f"channel {retired.channel}: version {retired.api_version} of the API had been taken away before"
        return
    names = ", ".join(split_name(name)[1] for name in retired.tables)
    yield f"channel {retired.channel}: version {retired.api_version} of the API is taken away: {names}"
    yield "engines begin anew with what is left; a mapping that they are given has to be one of that"
