"""Rows of a mapped table: as they are, or as they were after a block; by page, and as new as is asked for."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, MetaData, Select, cast, func, literal, select

from kvr_sync.errors import ConfigurationError, TablesBehindError
from kvr_sync.mapping.api_version import find_name
from kvr_sync.mapping.conversion import text_converter
from kvr_sync.mapping.definition import ColumnType, TableMapping
from kvr_sync.mapping.quarantine import UnfitValueError
from kvr_sync.mapping.schema_check import suggestion
from kvr_sync.store.encoding import DatabaseKind, encoder_for
from kvr_sync.store.mapped_table import FACT_COLUMNS, MappedTable, standing
from kvr_sync.store.schema import TEXT, LedgerTables
from kvr_sync.store.status import recorded_mapping, stored_checkpoint

MAX_PAGE_SIZE = 1_000
"""Most rows of one page."""

_EXTERNAL_ID = "external_id"
_POSITION = "kvr_position_in_pages"


@dataclass(frozen=True)
class TableQuery:
    """Which rows of which table. `table`: its name in the mapping, not that of a child table.

    With `v2.` before it, that of a version of the API; without, the oldest in force that has such a table.
    `wanted`: values by name of a column, or of `external_id`; texts are read as keys are (numbers as in JSON).
    `as_of`: rows as they stood after this block; None: as they stand. `minimum_block`: the tables must reach it.
    `after`: the `external_id` to go on after; pages are sorted by it.
    """

    table: str
    wanted: Mapping[str, str] = field(default_factory=dict)
    as_of: int | None = None
    minimum_block: int | None = None
    after: str | None = None
    limit: int = 100


class TablePage(NamedTuple):
    """Rows as of `block_number`: columns of the mapping by name, `external_id` and the facts (`kvr_...`).

    Values are int, str, bool, bytes, Decimal, datetime in UTC, date, UUID, parsed JSON, or None, whatever the database.
    As of a block, rows of private tables have `kvr_kind`, too: `erased` and `missing` ones have neither id nor columns.
    `next_after`: `after` of the next page; None: this is the last.
    """

    rows: list[dict[str, Any]]
    next_after: str | None
    block_number: int


def read_page(connection: Connection, tables: LedgerTables, query: TableQuery, *, place: str) -> TablePage:
    """Read one page; `place` names the database in errors.

    Raises ConfigurationError: no such table or column, a value that the column cannot hold;
    TablesBehindError: the tables do not reach the block that is asked for, or, for a private table, the newest that the
    peers had when an engine last began.
    """
    definition, mapped = _find_table(connection, tables, query.table, place)
    checkpoint = stored_checkpoint(connection, tables)
    reached = -1 if checkpoint is None else checkpoint.block_number
    needed = max(query.minimum_block or 0, query.as_of or 0)
    if reached < needed:
        message = f"the tables reach block {reached}, block {needed} is asked for"
        raise TablesBehindError(message)
    if mapped.is_private:
        _check_ready(connection, tables, reached)
    limit = max(1, min(query.limit, MAX_PAGE_SIZE))
    statement = _select(definition, mapped, query, connection.dialect.name).limit(limit + 1)
    decode = _decoders(definition, connection.dialect.name)
    rows = [
        {name: decode[name](value) if name in decode and value is not None else value for name, value in row.items()}
        for row in connection.execute(statement).mappings()
    ]
    positions = [row.pop(_POSITION) for row in rows]
    following = positions[limit - 1] if len(rows) > limit else None
    return TablePage(rows[:limit], following, reached if query.as_of is None else query.as_of)


def _check_ready(connection: Connection, tables: LedgerTables, reached: int) -> None:
    """Refuse private rows that may be those of a backup: what was erased since stands among them."""
    needed = connection.scalar(select(func.max(tables.private_member.c.ready_block)))
    if needed is not None and reached < needed:
        message = (
            f"the tables reach block {reached}; private rows are read from block {needed} on, which the peers have"
        )
        raise TablesBehindError(message)


def _find_table(
    connection: Connection, tables: LedgerTables, name: str, place: str
) -> tuple[TableMapping, MappedTable]:
    known = {table.name: table for table in recorded_mapping(connection, tables, place).tables}
    found = find_name(name, known)
    if found is None:
        message = f"there is no mapped table {name!r}{suggestion(name, known)}"
        raise ConfigurationError(message + (f"; there are {', '.join(known)}" if known else ""))
    return known[found], MappedTable(known[found], MetaData(schema=tables.metadata.schema))


def _select(definition: TableMapping, mapped: MappedTable, query: TableQuery, dialect: str) -> Select[Any]:
    names = [*(column.name for column in definition.columns), _EXTERNAL_ID, *FACT_COLUMNS]
    table = mapped.current if query.as_of is None else mapped.history
    position: ColumnElement[Any] = table.c.external_id
    if query.as_of is not None and mapped.is_private:
        names.append("kvr_kind")
        # Rows whose key is not known are paged by number; no id begins like this: "%" is always percent-encoded.
        position = func.coalesce(position, literal("%key:") + cast(table.c.kvr_key_id, TEXT))
    statement = select(*(table.c[name] for name in names), position.label(_POSITION))
    if query.as_of is not None:
        statement = statement.where(*standing(table, query.as_of))
    for name, text in query.wanted.items():
        value = _wanted_value(definition, name, text, dialect)
        statement = statement.where(table.c[name] == value)
    if query.after is not None:
        statement = statement.where(position > query.after)
    return statement.order_by(position)


def _wanted_value(definition: TableMapping, name: str, text: str, dialect: str) -> object:
    if name == _EXTERNAL_ID:
        return text
    columns = {column.name: column for column in definition.columns}
    column = columns.get(name)
    if column is None:
        raise ConfigurationError(f"table {definition.name} has no column {name!r}{suggestion(name, columns)}")
    if column.type in (ColumnType.JSON, ColumnType.BYTES):
        raise ConfigurationError(f"columns of type {column.type.value} cannot be compared: {name}")
    try:
        value = text_converter(column)(text)
    except UnfitValueError as error:
        raise ConfigurationError(f"column {name}: {error.detail}") from None
    if dialect == "sqlite":
        encoder = encoder_for(DatabaseKind.SQLITE, column)
        return value if encoder is None else encoder(value)
    return value


_FROM_SQLITE: dict[ColumnType, Any] = {
    ColumnType.DECIMAL: Decimal,
    ColumnType.TIMESTAMP: datetime.fromisoformat,
    ColumnType.DATE: date.fromisoformat,
    ColumnType.UUID: UUID,
    ColumnType.JSON: lambda text: json.loads(text, parse_float=Decimal),
}


def _decoders(definition: TableMapping, dialect: str) -> dict[str, Any]:
    """Give what turns a driver's values into those promised, by column; PostgreSQL's come as they should."""
    if dialect != "sqlite":
        return {}
    return {column.name: _FROM_SQLITE[column.type] for column in definition.columns if column.type in _FROM_SQLITE}
