"""Reading the synced tables, for commands, services and reports: nothing is created, upgraded or written.

A reader needs no more rights than SELECT, and works beside a running engine.
"""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
from sqlalchemy import Connection, Engine, NullPool, column, create_engine, inspect, select, table, text
from sqlalchemy.engine import URL

from kvr_sync.errors import ConfigurationError, SinkUnavailableError

# For those who read through this module alone.
from kvr_sync.errors import KvrSyncError as KvrSyncError  # noqa: PLC0414
from kvr_sync.errors import TablesBehindError as TablesBehindError  # noqa: PLC0414
from kvr_sync.store.channel_name import schema_name
from kvr_sync.store.database import CONNECT_SECONDS, parse_url, shown_url
from kvr_sync.store.database_error import driver_errors
from kvr_sync.store.schema import LedgerTables, ledger_tables
from kvr_sync.store.sink import RunRecord
from kvr_sync.store.status import read_status, read_time
from kvr_sync.table_query import TablePage as TablePage  # noqa: PLC0414
from kvr_sync.table_query import TableQuery as TableQuery  # noqa: PLC0414
from kvr_sync.table_query import read_page
from network.protocol.validation_code import reason, validation_code_name

_MARK = "ledger_checkpoint"
"""The table by which a place is known to hold a channel."""
_KINDS = {
    "postgresql": "postgresql",
    "postgres": "postgresql",
    "postgresql+psycopg": "postgresql",
    "sqlite": "sqlite",
}


class SyncedTables(NamedTuple):
    """The tables of one channel, open for reading at one moment: all queries on `connection` see the same blocks."""

    place: str
    channel: str
    tables: LedgerTables
    connection: Connection


@contextmanager
def open_tables(url: str, channel: str | None = None) -> Iterator[SyncedTables]:
    """Open a channel's tables; without `channel`, the only channel there is.

    Raises ConfigurationError: an unusable URL, no tables there, or several channels to choose from;
    SinkUnavailableError: no server or no file.
    """
    with open_place(url) as place:
        name, schema = _find_channel(place.connection, place.name, channel)
        yield SyncedTables(place.name, name, ledger_tables(schema), place.connection)


class Place(NamedTuple):
    """A database that is open for reading; `name` is its URL without password."""

    name: str
    connection: Connection


@contextmanager
def open_place(url: str) -> Iterator[Place]:
    """Open a database for reading, whatever is in it. Raises as `open_tables` does, but for the tables."""
    parsed = _parse(url)
    name = shown_url(parsed)
    engine = _engine(parsed, name)
    try:
        with driver_errors(name), engine.connect() as connection:
            yield Place(name, connection)
    finally:
        engine.dispose()


def read_table(synced: SyncedTables, query: TableQuery) -> TablePage:
    """Read one page of a mapped table, as it is or as it was after a block.

    Raises ConfigurationError: no such table or column, a value that the column cannot hold;
    TablesBehindError (retryable): the tables do not reach the block that is asked for.
    """
    return read_page(synced.connection, synced.tables, query, place=synced.place)


def _parse(url: str) -> URL:
    parsed = parse_url(url)
    if parsed.drivername not in _KINDS:
        message = (
            "the database URL cannot be read: supported are postgresql://user@host:port/name and sqlite:///file.db"
        )
        raise ConfigurationError(message)
    return parsed.set(drivername=_KINDS[parsed.drivername])


def _engine(url: URL, place: str) -> Engine:
    if url.drivername == "sqlite":
        path = Path(url.database or "")
        if not path.is_file():
            message = f"{place}: there is no such file"
            raise ConfigurationError(message)
        address = path.absolute().as_uri() + "?mode=ro"

        def connect_file() -> sqlite3.Connection:
            connection = sqlite3.connect(address, uri=True, isolation_level=None)
            connection.execute("BEGIN")  # one moment for all queries
            return connection

        return create_engine("sqlite://", creator=connect_file, poolclass=NullPool, hide_parameters=True)

    def connect_server() -> psycopg.Connection[tuple[object, ...]]:
        address = url.render_as_string(hide_password=False)
        try:
            connection = psycopg.connect(address, connect_timeout=CONNECT_SECONDS, application_name="kvr-read")
        except psycopg.Error:
            message = f"{place}: no connection (server down, database missing, or access refused)"
            raise SinkUnavailableError(message) from None
        connection.execute("SELECT set_config('TimeZone', 'UTC', false)")
        connection.commit()
        connection.read_only = True
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ  # one moment for all queries
        return connection

    return create_engine(
        "postgresql+psycopg://",
        creator=connect_server,
        poolclass=NullPool,
        hide_parameters=True,
        json_deserializer=_read_json,
    )


def _read_json(text: str) -> object:
    return json.loads(text, parse_float=Decimal)


def _find_channel(connection: Connection, place: str, wanted: str | None) -> tuple[str, str | None]:
    """Give channel and SQL schema of the tables to read."""
    inspector = inspect(connection)
    schemas: list[str | None] = [None]
    if connection.dialect.name == "postgresql":
        schemas = [schema_name(wanted)] if wanted is not None else list(inspector.get_schema_names())
    found = {}
    for schema in schemas:
        if inspector.has_table(_MARK, schema=schema) and _may_read(connection, schema):
            channel = connection.scalar(select(ledger_tables(schema).checkpoint.c.channel))
            if channel is not None:
                found[str(channel)] = schema
    if wanted is not None and wanted in found:
        return wanted, found[wanted]
    if not found or wanted is not None:
        what = f"channel {wanted}" if wanted is not None else "any channel"
        message = f"{place} holds no blocks of {what}" + (f"; it holds {', '.join(sorted(found))}" if found else "")
        raise ConfigurationError(message)
    if len(found) > 1:
        message = f"{place} holds several channels, choose one with --channel: {', '.join(sorted(found))}"
        raise ConfigurationError(message)
    return next(iter(found.items()))


def _may_read(connection: Connection, schema: str | None) -> bool:
    """Tell whether these tables are open to who is connected: others' channels are none of theirs."""
    if schema is None:
        return True
    rights = "SELECT has_schema_privilege(:schema, 'USAGE') AND has_table_privilege(:name, 'SELECT')"
    preparer = connection.dialect.identifier_preparer
    name = f"{preparer.quote_schema(schema)}.{_MARK}"
    return bool(connection.scalar(text(rights), {"schema": schema, "name": name}))


def status_facts(synced: SyncedTables) -> dict[str, Any]:
    """Give what `kvr sync status` shows, for machines."""
    status = read_status(synced.connection, synced.tables)
    checkpoint, anchor = status.checkpoint, status.anchor
    standing = read_sync_status(synced)
    return {
        "database": synced.place,
        "channel": synced.channel,
        "anchor": anchor.name if anchor else None,
        "genesis_hash": anchor.genesis_hash.hex() if anchor else None,
        "checkpoint": {
            "block_number": checkpoint.block_number,
            "header_hash": checkpoint.header_hash.hex(),
            "commit_hash": checkpoint.commit_hash.hex() if checkpoint.commit_hash else None,
        }
        if checkpoint
        else None,
        "updated_at": _time(status.updated_at),
        "codes": {validation_code_name(code): count for code, count in status.codes.items()},
        "height": standing.height,
        "peer_height": standing.peer_height,
        "peer_seen_at": _time(standing.peer_seen_at),
        "lag_blocks": standing.lag_blocks,
        "lag_seconds": standing.lag_seconds,
        "mapping_version": standing.mapping_version,
        "quarantined": standing.quarantined,
        "private_missing": standing.private_missing,
        "private_ready": standing.private_ready,
        "runs": [_run_facts(run) for run in status.runs],
    }


class SyncStatus(NamedTuple):
    """The row of the view `sync_status`: README.md of `kvr_sync.store` says what each column means."""

    channel: str | None
    block_number: int | None
    height: int
    peer_height: int | None
    peer_seen_at: datetime | None
    lag_blocks: int | None
    lag_seconds: float | None
    updated_at: datetime | None
    mapping_version: int | None
    quarantined: int
    private_missing: int
    private_ready: bool = True


def read_sync_status(synced: SyncedTables) -> SyncStatus:
    """Read where the tables stand and how far they are behind the peers."""
    view = table("sync_status", *map(column, SyncStatus._fields), schema=synced.tables.metadata.schema)
    found = SyncStatus(*synced.connection.execute(select(view)).one())
    return found._replace(
        peer_seen_at=read_time(found.peer_seen_at),
        updated_at=read_time(found.updated_at),
        private_ready=bool(found.private_ready),
    )


def _run_facts(run: RunRecord) -> dict[str, Any]:
    return {
        "run_id": run.run_id,
        "started_at": _time(run.started_at),
        "ended_at": _time(run.ended_at),
        **run.result._asdict(),
    }


def _time(moment: datetime | None) -> str | None:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds") if moment else None


def describe_status(synced: SyncedTables) -> Iterator[str]:
    """Tell the status in words."""
    facts = status_facts(synced)
    yield f"{facts['database']}, channel {facts['channel']}"
    checkpoint = facts["checkpoint"]
    yield f"block {checkpoint['block_number']}, header hash {checkpoint['header_hash']}, applied {facts['updated_at']}"
    if facts["peer_height"] is not None:
        behind = f"{facts['lag_blocks']:,} blocks, {facts['lag_seconds']:.1f} s"
        yield f"behind the peers by {behind}; they had {facts['peer_height']:,} blocks at {facts['peer_seen_at']}"
    yield f"anchor: {facts['anchor']}, block 0 has header hash {facts['genesis_hash']}"
    yield f"{sum(facts['codes'].values()):,} transactions"
    for name, count in sorted(facts["codes"].items(), key=lambda item: (-item[1], item[0])):
        yield f"  {count:>8,}  {name}: {reason(name)}"
    yield f"{facts['quarantined']:,} values in quarantine"
    if facts["private_missing"]:
        yield f"{facts['private_missing']:,} private values missing"
    if not facts["private_ready"]:
        yield "private rows are not ready: the engine has not passed the newest block that the peers had when it began"
    for run in facts["runs"]:
        what = f"{run['blocks']} blocks, {run['transactions']} transactions"
        failure = f": {run['error_code']}: {run['error_text']}" if run["error_code"] else ""
        when = f"{run['started_at']} to {run['ended_at'] or 'now'}"
        yield f"run {run['run_id']} {run['outcome']} ({when}), {what}{failure}"
