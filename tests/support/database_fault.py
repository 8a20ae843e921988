"""Databases that fail at the n-th operation: a statement, a COPY, the begin, commit or rollback of a transaction.

An operation fails before it is executed, or after (its answer is lost), or by the end of the link; once, or from then
on. The database itself is a real one, and whatever was executed is there.
"""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from functools import cache
from typing import Any, Self, TypeVar

import psycopg
from sqlalchemy import make_url

from kvr_sync.mapping.definition import Mapping
from kvr_sync.store.database import Database, PostgresqlDatabase, SqliteDatabase
from kvr_sync.store.ledger_sink import LedgerSink, Store
from kvr_sync.store.mapped_table import MappedTable, mapped_tables
from kvr_sync.store.postgresql_sink import PostgresqlSink
from kvr_sync.store.schema import LedgerTables, ledger_tables
from kvr_sync.store.sqlite_sink import SqliteSink

T = TypeVar("T")


class Mode(StrEnum):
    """How an operation fails."""

    BEFORE = "not executed"
    AFTER = "executed, its answer lost"
    AWAY = "not executed, nor any other until the end of the run"
    CLOSED = "link closed"


SQLITE_MODES = (Mode.BEFORE, Mode.AFTER, Mode.AWAY)
"""There is no link to a file."""


class Faults:
    """Counts the operations of all connections and fails the n-th; `n` 0: none."""

    def __init__(self, n: int = 0, mode: Mode = Mode.BEFORE) -> None:
        self.n = n
        self.mode = mode
        self.count = 0
        self.failed: list[str] = []
        """Names of the operations that failed."""

    def clear(self) -> None:
        """Let everything work from now on."""
        self.n = 0
        self.failed.clear()

    def connect(self, connect: Callable[[], T], error: Callable[[], Exception]) -> T:
        """Open a connection, unless the database is away."""
        if self._is_away():
            self.failed.append("connect")
            raise error()
        return connect()

    def _is_away(self) -> bool:
        return bool(self.n and self.failed) and self.mode is Mode.AWAY

    def run(
        self, name: str, operation: Callable[[], T], close: Callable[[], None], error: Callable[[], Exception]
    ) -> T:
        """Execute one operation, or fail it as asked."""
        self.count += 1
        if self.count != self.n and not self._is_away():
            return operation()
        self.failed.append(name)
        if self.mode is Mode.AFTER:
            operation()
        elif self.mode is Mode.CLOSED:
            close()
        raise error()


def _sqlite_error() -> Exception:
    error = sqlite3.OperationalError("disk I/O error (made by a test)")
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR
    error.sqlite_errorname = "SQLITE_IOERR"
    return error


def _postgresql_error() -> Exception:
    return psycopg.OperationalError("the link is lost (made by a test)")


class _Cursor(sqlite3.Cursor):
    faults: Faults

    def execute(self, statement: str, parameters: Any = ()) -> Self:
        run = super().execute
        return self._run(statement, lambda: run(statement, parameters))

    def executemany(self, statement: str, parameters: Any) -> Self:
        run = super().executemany
        return self._run(statement, lambda: run(statement, parameters))

    def _run(self, statement: str, operation: Callable[[], T]) -> T:
        return self.faults.run(statement, operation, self.connection.close, _sqlite_error)


class _SqliteConnection:
    """A connection of SQLite whose cursors and ends of transactions can fail."""

    def __init__(self, connection: sqlite3.Connection, faults: Faults) -> None:
        self._connection = connection
        self._faults = faults
        self._cursor = type("Cursor", (_Cursor,), {"faults": faults})

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def cursor(self) -> sqlite3.Cursor:
        cursor: sqlite3.Cursor = self._connection.cursor(self._cursor)
        return cursor

    def commit(self) -> None:
        self._faults.run("COMMIT", self._connection.commit, self._connection.close, _sqlite_error)

    def rollback(self) -> None:
        self._faults.run("ROLLBACK", self._connection.rollback, self._connection.close, _sqlite_error)


class _PostgresqlCursor(psycopg.Cursor[Any]):
    def execute(self, query: Any, *arguments: Any, **options: Any) -> Any:
        run = super().execute
        return _run(self, str(query), lambda: run(query, *arguments, **options))

    def executemany(self, query: Any, *arguments: Any, **options: Any) -> None:
        run = super().executemany
        _run(self, str(query), lambda: run(query, *arguments, **options))

    @contextmanager
    def copy(self, statement: Any, *arguments: Any, **options: Any) -> Iterator[Any]:
        _run(self, f"begin of {statement}", lambda: None)
        with super().copy(statement, *arguments, **options) as copy:
            yield copy
        _run(self, f"end of {statement}", lambda: None)


class _PostgresqlConnection(psycopg.Connection[Any]):
    faults: Faults
    original: psycopg.Connection[Any]

    def commit(self) -> None:
        self.faults.run("COMMIT", super().commit, self.close, _postgresql_error)

    def rollback(self) -> None:
        self.faults.run("ROLLBACK", super().rollback, self.close, _postgresql_error)


def _run(cursor: "psycopg.Cursor[Any]", name: str, operation: Callable[[], T]) -> T:
    connection = cursor.connection
    assert isinstance(connection, _PostgresqlConnection)
    return connection.faults.run(name, operation, connection.close, _postgresql_error)


class FaultySqlite(SqliteDatabase):
    """An SQLite file as the product opens it, with faults."""

    def __init__(self, url: str, faults: Faults) -> None:
        self._faults = faults
        super().__init__(make_url(url))

    def _connect(self) -> Any:
        connection = self._faults.connect(super()._connect, _sqlite_error)
        return _SqliteConnection(connection, self._faults)


class FaultyPostgresql(PostgresqlDatabase):
    """A PostgreSQL database as the product connects to it, with faults."""

    def __init__(self, url: str, channel: str, faults: Faults) -> None:
        self._faults = faults
        super().__init__(make_url(url), channel)

    def _connect(self) -> Any:
        original = self._faults.connect(super()._connect, _postgresql_error)
        connection = _PostgresqlConnection(original.pgconn)
        connection.original = original  # the link is one; whoever goes first closes it
        connection.faults = self._faults
        connection.cursor_factory = _PostgresqlCursor
        return connection


def faulty_sink(url: str, channel: str, mapping: Mapping, faults: Faults) -> LedgerSink:
    """Give a sink on tables that `open_store` has made; its connections have the faults."""
    is_sqlite = url.startswith("sqlite")
    database: Database = FaultySqlite(url, faults) if is_sqlite else FaultyPostgresql(url, channel, faults)
    tables, mapped = _tables(database.schema, mapping)
    store = Store(channel, database, tables, mapping, mapped, 1)
    return SqliteSink(store) if is_sqlite else PostgresqlSink(store)


@cache
def _tables(schema: str | None, mapping: Mapping) -> tuple[LedgerTables, tuple[MappedTable, ...]]:
    tables = ledger_tables(schema)
    return tables, mapped_tables(mapping, tables)
