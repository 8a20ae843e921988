"""The sink on PostgreSQL: binary COPY for every row, and one statement for the current rows that were there before."""

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, cast

import psycopg
from psycopg import sql
from sqlalchemy import Column, Connection, Table
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.dialects.postgresql.base import PGDialect

from kvr_sync.model import Checkpoint
from kvr_sync.store.binary_array import DigestArray, NumberArray, register
from kvr_sync.store.copy_rows import HEADER, TRAILER, CurrentRows, RowPacker, fill, row_slices
from kvr_sync.store.encoding import DatabaseKind
from kvr_sync.store.ledger_sink import CACHED_STATEMENTS, Clock, K, LedgerSink, Place, Store, Touched, utc_now
from kvr_sync.store.mapped_table import ChildTable, MappedTable
from kvr_sync.store.rows import ChildRows, CopyTypes, LedgerRows, MappedRows, MappedTypes, PackedRows, Rows
from kvr_sync.store.schema import LedgerTables, row_columns
from kvr_sync.store.sink import Hook, no_hook

_DIALECT = PGDialect()  # type: ignore[no-untyped-call]  # its constructor has no annotations

_WIRE_TYPES = {"timestamp with time zone": "int8", "numeric": "bytea", "jsonb": "bytea"}
"""What `kvr_sync.store.encoding` gives for a column of a type: its binary form, which the server takes as it is."""


NOTIFY_CHANNEL = "kvr_block"
"""Where each COMMIT of blocks is announced to sessions that LISTEN, as JSON: `{"channel": "…", "block": 17}`.

The payload has at most 300 bytes: a channel id is short (`kvr_sync.store.channel_name`), a number shorter.
"""


class PostgresqlSink(LedgerSink):
    """A `Sink` in a schema of a PostgreSQL database."""

    kind = DatabaseKind.POSTGRESQL

    def __init__(self, store: Store, *, hook: Hook = no_hook, clock: Clock = utc_now) -> None:
        super().__init__(store, hook=hook, clock=clock)
        self.copy_types = copy_types(store.tables, store.mapped)
        self._statements: dict[tuple[Table, int | None], bytes] = {}
        """COPY by table, and number of the staging table where it goes there first."""

    def _prepare(self, connection: Connection) -> None:
        """Make the session's staging tables; they empty themselves at each COMMIT."""
        driver = _driver(connection)
        register(driver)
        for number, mapped in enumerate(self.mapped):
            driver.execute(
                sql.SQL("CREATE TEMPORARY TABLE {} (LIKE {}) ON COMMIT DELETE ROWS").format(
                    _staging(number), _identifier(mapped.current)
                )
            )
        driver.commit()

    def _announce(self, connection: Connection, channel: str, new: Checkpoint) -> None:
        """NOTIFY inside the transaction: the server sends it after the COMMIT, and only then."""
        payload = json.dumps({"channel": channel, "block": new.block_number})
        _driver(connection).execute("SELECT pg_notify(%s, %s)", (NOTIFY_CHANNEL, payload))

    def _insert_once(self, connection: Connection, table: Table, values: Mapping[str, object]) -> bool:
        statement = insert(table).values(**values).on_conflict_do_nothing().returning(*table.primary_key)
        return connection.execute(statement).first() is not None

    def _insert(self, connection: Connection, table: Table, rows: Rows, *numbers: Sequence[int]) -> None:
        packed = _packed(rows, _row_types(table), len(numbers))
        self._copy(connection, table, None, fill(packed, numbers))

    def _write_versions(
        self, connection: Connection, table: int, rows: MappedRows[Rows], keys: Sequence[int], touch: Touched
    ) -> None:
        mapped = self.mapped[table]
        types = _mapped_types(mapped)
        packed = _packed(rows.history, types.history, 1)
        content = fill(packed, (keys,))
        self._copy(connection, mapped.history, None, content)
        versions = CurrentRows(content, packed.holes[0].offsets)
        fresh: list[bytes] = []
        others: list[bytes] = []
        deletes: list[int] = []
        for position, index in rows.current.items():
            is_there = keys[position] in touch.existing
            if index is not None:
                row = versions.row(index, touch.last_change[position])
                (others if is_there else fresh).append(row)
            elif is_there:
                deletes.append(keys[position])
        target = mapped.current
        if fresh:
            self._copy(connection, target, None, b"".join(fresh))
        if others:
            self._copy(connection, target, table, b"".join(others))
            _driver(connection).execute(_merge_statement(target, _staging(table)))
        if deletes:
            _delete_rows(connection, target, deletes)
        outdated = [keys[position] for position in rows.current if keys[position] in touch.existing]
        for child, child_types, child_rows in zip(mapped.children, types.children, rows.children, strict=True):
            if outdated:
                _delete_rows(connection, child.current, outdated)
            if child_rows.rows:
                self._write_children(connection, child, child_types, child_rows, rows.current.values(), keys)

    def _write_children(
        self,
        connection: Connection,
        child: ChildTable,
        types: Sequence[str],
        rows: ChildRows[Rows],
        current: Iterable[int | None],
        keys: Sequence[int],
    ) -> None:
        packed = _packed(rows.rows, types, 1)
        content = fill(packed, (keys,))
        self._copy(connection, child.history, None, content)
        ranges = ((rows.starts[index], rows.starts[index + 1]) for index in current if index is not None)
        newest = b"".join(row_slices(content, packed.holes[0].offsets, ranges))
        if newest:
            self._copy(connection, child.current, None, newest)

    def _copy(self, connection: Connection, table: Table, staging: int | None, content: bytes | bytearray) -> None:
        driver = _driver(connection)
        statement = self._statements.get((table, staging))
        if statement is None:
            target = _identifier(table) if staging is None else _staging(staging)
            statement = self._statements[table, staging] = _copy_statement(table, target).as_bytes(driver)
        with driver.cursor() as cursor, cursor.copy(statement) as copy:
            copy.write(HEADER)
            copy.write(content)
            copy.write(TRAILER)

    def _find(
        self,
        connection: Connection,
        number: Column[Any],
        given: Column[Any],
        wanted: Sequence[K],
        place: Place | None = None,
    ) -> dict[K, int]:
        statement = sql.SQL("SELECT {}, {} FROM {} WHERE {} = ANY(%b)").format(
            sql.Identifier(given.name),
            sql.Identifier(number.name),
            _identifier(given.table),
            sql.Identifier(given.name),
        )
        parameters: tuple[object, ...] = (_array(wanted),)
        if place is not None:
            statement += sql.SQL(" AND {} = %s").format(sql.Identifier(place[0].name))
            parameters = (*parameters, place[1])
        with _driver(connection).cursor(binary=True) as cursor:
            return dict(cursor.execute(statement, parameters))


def _copy_statement(table: Table, target: sql.Identifier) -> sql.Composed:
    columns = sql.SQL(", ").join(sql.Identifier(column.name) for column in row_columns(table))
    return sql.SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)").format(target, columns)


def _merge_statement(table: Table, staging: sql.Identifier) -> sql.Composed:
    names = [column.name for column in table.columns]
    columns = sql.SQL(", ").join(map(sql.Identifier, names))
    changes = sql.SQL(", ").join(
        sql.SQL("{0} = excluded.{0}").format(sql.Identifier(name)) for name in names if name != "kvr_key_id"
    )
    return sql.SQL("INSERT INTO {} ({}) SELECT {} FROM {} ON CONFLICT (kvr_key_id) DO UPDATE SET {}").format(
        _identifier(table), columns, columns, staging, changes
    )


def _packed(rows: Rows, types: Sequence[str], positions: int) -> PackedRows:
    if isinstance(rows, PackedRows):
        return rows
    packer = RowPacker(types, positions)
    packer.extend(rows)
    return packer.packed()


def copy_types(tables: LedgerTables, mapped: Sequence[MappedTable]) -> CopyTypes:
    """Give what other processes need to know to pack the rows of a run."""
    return CopyTypes(
        tuple(_row_types(getattr(tables, field)) for field in LedgerRows._fields),
        tuple(_mapped_types(table) for table in mapped),
    )


def _mapped_types(mapped: MappedTable) -> MappedTypes:
    key, _, *others = _row_types(mapped.current)
    # The kind of the write comes second, where current rows have their last change.
    return MappedTypes((key, "text", *others), tuple(_row_types(child.current) for child in mapped.children))


def _array(wanted: Sequence[int] | Sequence[bytes]) -> NumberArray | DigestArray:
    if wanted and isinstance(wanted[0], bytes):
        return DigestArray(cast("Sequence[bytes]", wanted))
    return NumberArray(cast("Sequence[int]", wanted))


def _delete_rows(connection: Connection, table: Table, keys: Sequence[int]) -> None:
    statement = sql.SQL("DELETE FROM {} WHERE kvr_key_id = ANY(%b)").format(_identifier(table))
    _driver(connection).execute(statement, (NumberArray(keys),))


@lru_cache(maxsize=CACHED_STATEMENTS)
def _row_types(table: Table) -> tuple[str, ...]:
    return tuple(_wire_type(column) for column in row_columns(table))


def _wire_type(column: Column[Any]) -> str:
    name = str(column.type.compile(dialect=_DIALECT)).lower().partition(" collate ")[0]
    return _WIRE_TYPES.get(name, name)


def _identifier(table: Table) -> sql.Identifier:
    return sql.Identifier(*(name for name in (table.schema, table.name) if name))


def _staging(number: int) -> sql.Identifier:
    return sql.Identifier("pg_temp", f"kvr_stage_{number}")


def _driver(connection: Connection) -> "psycopg.Connection[Any]":
    return cast("psycopg.Connection[Any]", connection.connection.driver_connection)
