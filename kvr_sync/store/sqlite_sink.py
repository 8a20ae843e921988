"""The sink on SQLite: prepared statements run over many rows at once."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import Column, Connection, Table, delete, select
from sqlalchemy import insert as plain_insert
from sqlalchemy.dialects.sqlite import dialect, insert
from sqlalchemy.sql import bindparam
from sqlalchemy.sql.elements import BindParameter

from kvr_sync.store.encoding import DatabaseKind, time_text
from kvr_sync.store.ledger_sink import LOOKUP_SIZE, LedgerSink, chunks
from kvr_sync.store.rows import Row

_DIALECT = dialect()


class SqliteSink(LedgerSink):
    """A `Sink` on an SQLite file. Exact decimals and times are text there, flags 0 and 1."""

    kind = DatabaseKind.SQLITE

    def _encode_time(self, time: datetime) -> object:
        return time_text(time)

    def _prepare(self, connection: Connection) -> None:
        """A session needs nothing beyond what the connection has."""

    def _insert_once(self, connection: Connection, table: Table, values: Mapping[str, object]) -> bool:
        statement = insert(table).values(**values).on_conflict_do_nothing().returning(*table.primary_key)
        return connection.execute(statement).first() is not None

    def _insert(self, connection: Connection, table: Table, rows: Sequence[Row]) -> None:
        connection.exec_driver_sql(_insert_statement(table), list(rows))

    def _write_current(self, connection: Connection, table: int, current: Mapping[int, Row | None]) -> None:
        target = self._mapped[table].current
        upserts = [row for row in current.values() if row is not None]
        deletes = [(key_id,) for key_id, row in current.items() if row is None]
        if upserts:
            connection.exec_driver_sql(_upsert_statement(target), upserts)
        if deletes:
            connection.exec_driver_sql(_delete_statement(target), deletes)

    def _find(
        self, connection: Connection, number: Column[Any], digest: Column[Any], digests: Sequence[bytes]
    ) -> dict[bytes, int]:
        found: dict[bytes, int] = {}
        for chunk in chunks(digests, LOOKUP_SIZE):
            statement = _find_statement(number, digest, len(chunk))
            found.update((row[0], row[1]) for row in connection.exec_driver_sql(statement, tuple(chunk)))
        return found


@cache
def _insert_statement(table: Table) -> str:
    return str(plain_insert(table).compile(dialect=_DIALECT))


@cache
def _upsert_statement(table: Table) -> str:
    statement = insert(table)
    changed: dict[str, Any] = {c.name: statement.excluded[c.name] for c in table.columns if not c.primary_key}
    upsert = statement.on_conflict_do_update(index_elements=[*table.primary_key], set_=changed)
    return str(upsert.compile(dialect=_DIALECT))


@cache
def _find_statement(number: Column[Any], digest: Column[Any], count: int) -> str:
    marks: list[BindParameter[bytes]] = [bindparam(f"digest_{position}") for position in range(count)]
    return str(select(digest, number).where(digest.in_(marks)).compile(dialect=_DIALECT))


@cache
def _delete_statement(table: Table) -> str:
    return str(delete(table).where(table.c.kvr_key_id == bindparam("key_id")).compile(dialect=_DIALECT))
