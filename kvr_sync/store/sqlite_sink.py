"""The sink on SQLite: prepared statements run over many rows at once."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import Column, Connection, Table, delete
from sqlalchemy.dialects.sqlite import dialect, insert
from sqlalchemy.sql import bindparam

from kvr_sync.model import Checkpoint
from kvr_sync.store.encoding import DatabaseKind
from kvr_sync.store.ledger_sink import CACHED_STATEMENTS, LOOKUP_SIZE, K, LedgerSink, Place, Touched, chunks
from kvr_sync.store.rows import MappedRows, PackedRows, Row, Rows
from kvr_sync.store.schema import row_columns

_DIALECT = dialect()
_PREPARER = _DIALECT.identifier_preparer


class SqliteSink(LedgerSink):
    """A `Sink` on an SQLite file. Exact decimals and times are text there, flags 0 and 1."""

    kind = DatabaseKind.SQLITE
    copy_types = None

    def _prepare(self, connection: Connection) -> None:
        """A session needs nothing beyond what the connection has."""

    def _announce(self, connection: Connection, channel: str, new: Checkpoint) -> None:
        """Nobody listens at a file; its readers look again."""

    def _insert_once(self, connection: Connection, table: Table, values: Mapping[str, object]) -> bool:
        statement = insert(table).values(**values).on_conflict_do_nothing().returning(*table.primary_key)
        return connection.execute(statement).first() is not None

    def _insert(self, connection: Connection, table: Table, rows: Rows, *numbers: Sequence[int]) -> None:
        connection.exec_driver_sql(_insert_statement(table), _numbered(rows, numbers))

    def _write_versions(
        self, connection: Connection, table: int, rows: MappedRows[Rows], keys: Sequence[int], touch: Touched
    ) -> None:
        mapped = self.mapped[table]
        numbered = _numbered(rows.history, (keys,))
        connection.exec_driver_sql(_insert_statement(mapped.history), numbered)
        target = mapped.current
        changed = touch.last_change
        upserts = [
            (numbered[index][0], changed[position], *numbered[index][2:])  # the last change for the kind of the write
            for position, index in rows.current.items()
            if index is not None
        ]
        deletes = [(keys[p],) for p, index in rows.current.items() if index is None and keys[p] in touch.existing]
        if upserts:
            connection.exec_driver_sql(_upsert_statement(target), upserts)
        if deletes:
            connection.exec_driver_sql(_delete_statement(target), deletes)
        outdated = [(keys[position],) for position in rows.current if keys[position] in touch.existing]
        for child, child_rows in zip(mapped.children, rows.children, strict=True):
            numbered = _numbered(child_rows.rows, (keys,))
            if numbered:
                connection.exec_driver_sql(_insert_statement(child.history), numbered)
            if outdated:
                connection.exec_driver_sql(_delete_statement(child.current), outdated)
            starts = child_rows.starts
            newest = [
                row
                for index in rows.current.values()
                if index is not None
                for row in numbered[starts[index] : starts[index + 1]]
            ]
            if newest:
                connection.exec_driver_sql(_insert_statement(child.current), newest)

    def _find(
        self,
        connection: Connection,
        number: Column[Any],
        given: Column[Any],
        wanted: Sequence[K],
        place: Place | None = None,
    ) -> dict[K, int]:
        found: dict[K, int] = {}
        column = None if place is None else place[0]
        there: tuple[object, ...] = () if place is None else (place[1],)
        for chunk in chunks(wanted, LOOKUP_SIZE):
            statement = _find_statement(number, given, len(chunk), column)
            rows = connection.exec_driver_sql(statement, tuple(chunk) + there)
            found.update((row[0], row[1]) for row in rows)
        return found


def _numbered(rows: Rows, numbers: Sequence[Sequence[int]]) -> list[Row]:
    """Put numbers in the place of the positions that rows begin with."""
    if isinstance(rows, PackedRows):
        raise TypeError("rows that were packed for another kind of database")
    match numbers:
        case ():
            return rows
        case (by_position,):
            return [(by_position[row[0]], *row[1:]) for row in rows]
        case _:
            count = len(numbers)
            return [
                (*(None if p is None else n[p] for n, p in zip(numbers, row, strict=False)), *row[count:])
                for row in rows
            ]


@lru_cache(maxsize=CACHED_STATEMENTS)
def _insert_statement(table: Table) -> str:
    columns = [_PREPARER.quote(column.name) for column in row_columns(table)]
    marks = ", ".join("?" * len(columns))
    return f"INSERT INTO {_PREPARER.format_table(table)} ({', '.join(columns)}) VALUES ({marks})"  # noqa: S608  names, quoted


@lru_cache(maxsize=CACHED_STATEMENTS)
def _upsert_statement(table: Table) -> str:
    names = [_PREPARER.quote(column.name) for column in table.columns if not column.primary_key]
    changes = ", ".join(f"{name} = excluded.{name}" for name in names)
    return f"{_insert_statement(table)} ON CONFLICT (kvr_key_id) DO UPDATE SET {changes}"


def _find_statement(number: Column[Any], given: Column[Any], count: int, place: Column[Any] | None) -> str:
    """Written here, not by SQLAlchemy: the count is another each time, and compiling costs more than looking up."""
    names = f"{_PREPARER.quote(given.name)}, {_PREPARER.quote(number.name)}"
    table = _PREPARER.format_table(given.table)
    there = f" AND {_PREPARER.quote(place.name)} = ?" if place is not None else ""
    wanted = ", ".join("?" * count)
    return f"SELECT {names} FROM {table} WHERE {_PREPARER.quote(given.name)} IN ({wanted}){there}"  # noqa: S608  names, quoted


@lru_cache(maxsize=CACHED_STATEMENTS)
def _delete_statement(table: Table) -> str:
    return str(delete(table).where(table.c.kvr_key_id == bindparam("key_id")).compile(dialect=_DIALECT))
