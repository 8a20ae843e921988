"""Tables of the mapped layer, from the mapping. Pure.

For a mapped table `t` there is `t` (current rows, primary key `kvr_key_id`) and `t_history` (every version,
append-only). The current row of a key is its newest history row, if that is not a delete. A child table `c` has `c` and
`c_history` with the rows of its documents, beside theirs. The history of a private data collection keeps no values that
were purged or have expired, and says so.
"""

from collections import Counter
from collections.abc import Container, Iterator, Sequence
from hashlib import sha256
from typing import Any, NamedTuple

from sqlalchemy import (
    Column,
    ColumnElement,
    Index,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    UniqueConstraint,
    exists,
    or_,
    tuple_,
)
from sqlalchemy.types import TypeEngine

from kvr_sync.errors import ConfigurationError
from kvr_sync.mapping.api_version import FIRST_API, split_name
from kvr_sync.mapping.definition import ChildMapping, ColumnMapping, ColumnType, Mapping, TableMapping
from kvr_sync.store.channel_name import api_schema_name
from kvr_sync.store.schema import (
    BYTES,
    DATE,
    DECIMAL,
    FIRST_COLUMNS,
    FLAG,
    INT32,
    INT64,
    JSON,
    LATER_COLUMNS,
    TEXT,
    TIME,
    UUID,
    LedgerTables,
    text_type,
)

FACT_COLUMNS = ("kvr_block_number", "kvr_tx_number", "kvr_write_number", "kvr_tx_id", "kvr_creator_msp_id")
"""The facts that every mapped row carries: which write made it, and who sent the transaction."""
VERSION_COLUMNS = ("kvr_key_id", "kvr_block_number", "kvr_tx_number", "kvr_write_number")
"""What names one version of one row."""

ERASED_BLOCK, ERASED_BY = "kvr_erased_block", "kvr_erased_by"
"""The record of an erasure, in histories of private tables."""
WITHOUT_VALUES = ("missing", "erased")
"""Kinds of versions in a private history that were in force, and whose values are not there."""

MAX_IDENTIFIER = 63
"""Characters; PostgreSQL cuts longer names silently."""
_TAG_DIGITS = 8

_TYPES: dict[ColumnType, TypeEngine[Any]] = {
    ColumnType.TEXT: TEXT,
    ColumnType.INTEGER: INT64,
    ColumnType.DECIMAL: DECIMAL,
    ColumnType.BOOLEAN: FLAG,
    ColumnType.DATE: DATE,
    ColumnType.TIMESTAMP: TIME,
    ColumnType.UUID: UUID,
    ColumnType.ENUM: text_type(None),
    ColumnType.JSON: JSON,
    ColumnType.BYTES: BYTES,
}


class ChildTable(NamedTuple):
    """The tables of one child entry of the mapping."""

    current: Table
    history: Table


class MappedTable:
    """The tables of one entry of the mapping; `children` are in its order."""

    def __init__(self, definition: TableMapping, metadata: MetaData, ambiguous: Container[str] = ()) -> None:
        """`ambiguous`: what more than one index of the mapping would be called."""
        self.name = definition.name
        """What it is called beside all others; in the database it is `current.name` of `current.schema`."""
        self.is_private = bool(definition.collections)
        for place in _places(definition, metadata):
            if (f"{place.schema}.{place.name}" if place.schema else place.name) in metadata.tables:
                raise ConfigurationError(f"the mapping needs a table {place.name}, and another table has that name")
        self.current = _current_table(definition, metadata, ambiguous)
        self.history = _history_table(definition, metadata)
        self.children = tuple(_child_table(child, metadata, ambiguous) for child in definition.children)
        self.child_names = tuple(child.name for child in definition.children)

    @property
    def tables(self) -> tuple[Table, ...]:
        """All tables of the entry."""
        return tuple(table for pair in ((self.current, self.history), *self.children) for table in pair)


def standing(history: Table, as_of: int | None = None) -> tuple[ColumnElement[bool], ...]:
    """Give the conditions on rows of a history that they are the newest of their key, and in force.

    `as_of`: the newest up to this block, those too whose values were erased since or are missing; None: the newest of
    all, as they are current rows.
    """
    later = history.alias("later")
    position, later_position = (tuple_(*(part.c[name] for name in VERSION_COLUMNS[1:])) for part in (history, later))
    follows = [later.c.kvr_key_id == history.c.kvr_key_id, later_position > position]
    kinds = ("put", "metadata") if as_of is None else ("put", "metadata", *WITHOUT_VALUES)
    conditions: list[ColumnElement[bool]] = [history.c.kvr_kind.in_(kinds)]
    if as_of is not None:
        follows.append(later.c.kvr_block_number <= as_of)
        conditions.append(history.c.kvr_block_number <= as_of)
        if ERASED_BLOCK in history.c:
            erased = history.c[ERASED_BLOCK]
            conditions.append(or_(erased.is_(None), erased > as_of))
    return (*conditions, ~exists().where(*follows))


class _Place(NamedTuple):
    """Where a table stands in the database."""

    schema: str | None
    name: str

    def beside(self, ending: str) -> "_Place":
        """Give the place of what belongs to the table."""
        return _Place(self.schema, f"{self.name}{ending}")


def _place(name: str, metadata: MetaData) -> _Place:
    """Give the place of a table by what it is called beside all others."""
    api_version, local = split_name(name)
    if metadata.schema is None:
        return _Place(None, local if api_version == FIRST_API else f"v{api_version}_{local}")
    return _Place(api_schema_name(metadata.schema, api_version), local)


def _places(definition: TableMapping, metadata: MetaData) -> list[_Place]:
    places = [_place(name, metadata) for name in (definition.name, *(child.name for child in definition.children))]
    return [*places, *(place.beside("_history") for place in places)]


def _current_table(definition: TableMapping, metadata: MetaData, ambiguous: Container[str]) -> Table:
    schema, name = _place(definition.name, metadata)
    return Table(
        name,
        metadata,
        _key_column(primary_key=True),
        Column("external_id", text_type(None), nullable=False, comment="The key as a text, unique in this table."),
        *_value_columns(definition.columns, current=True),
        *_fact_columns(),
        Column("kvr_change_id", INT64, nullable=False, comment=f"The row's last change in {name}_changes."),
        UniqueConstraint("external_id"),
        *_indexes(definition, name, ambiguous),
        schema=schema,
        info={FIRST_COLUMNS: ("kvr_key_id", "kvr_change_id")},
        comment=definition.comment or "Current rows: what the world state holds for each key, as the mapping reads it.",
    )


def _history_table(definition: TableMapping, metadata: MetaData) -> Table:
    schema, name = _place(definition.name, metadata).beside("_history")
    return Table(
        name,
        metadata,
        _key_column(primary_key=False),
        Column("external_id", text_type(None), nullable=True, comment="The key as a text; NULL: erased."),
        *_value_columns(definition.columns, current=False),
        Column("kvr_kind", TEXT, nullable=False, comment=_PRIVATE_KINDS if definition.collections else _KINDS),
        *_fact_columns(),
        *(_erasure_columns() if definition.collections else ()),
        PrimaryKeyConstraint(*VERSION_COLUMNS),
        schema=schema,
        info={FIRST_COLUMNS: ("kvr_key_id", "kvr_kind"), LATER_COLUMNS: (ERASED_BLOCK, ERASED_BY)},
        comment="Every version of every row, in order of (kvr_block_number, kvr_tx_number, kvr_write_number).",
    )


_KINDS = "put, delete (columns are NULL) or metadata (the value stayed, the version moved)."
_PRIVATE_KINDS = (
    "put; without columns: delete, purge, missing (the value is not there) and erased (a purge or expiry took it)."
)


def _erasure_columns() -> Iterator[Column[Any]]:
    comment = "Block with which key and values were erased; NULL: they were not."
    yield Column(ERASED_BLOCK, INT64, nullable=True, comment=comment)
    yield Column(ERASED_BY, TEXT, nullable=True, comment="What erased them: purge or expiry; NULL: not erased.")


def _child_table(definition: ChildMapping, metadata: MetaData, ambiguous: Container[str]) -> ChildTable:
    place = _place(definition.name, metadata)
    current = Table(
        place.name,
        metadata,
        _key_column(primary_key=False),
        _position_column(),
        *_value_columns(definition.columns, current=True),
        *_fact_columns(),
        PrimaryKeyConstraint("kvr_key_id", "kvr_position"),
        *_indexes(definition, place.name, ambiguous),
        schema=place.schema,
        comment=definition.comment or "One row for each element of an array of the document with this key.",
    )
    history = Table(
        place.beside("_history").name,
        metadata,
        _key_column(primary_key=False),
        _position_column(),
        *_value_columns(definition.columns, current=False),
        *_fact_columns(),
        PrimaryKeyConstraint(*VERSION_COLUMNS, "kvr_position"),
        schema=place.schema,
        comment="The rows of every version of the document.",
    )
    return ChildTable(current, history)


def _value_columns(columns: Sequence[ColumnMapping], *, current: bool) -> Iterator[Column[Any]]:
    """Yield the columns of a mapping; in a history a deleted row has none of the values."""
    for column in columns:
        kind = text_type(column.collation) if column.type is ColumnType.TEXT else _TYPES[column.type]
        yield Column(column.name, kind, nullable=not (current and column.required), comment=column.comment)


def _indexes(definition: TableMapping | ChildMapping, table: str, ambiguous: Container[str]) -> Iterator[Index]:
    """Yield the indexes; `table`: its name in the database."""
    for columns in _indexed(definition):
        name = _index_name(table, columns)
        if len(name) > MAX_IDENTIFIER or _index_name(definition.name, columns) in ambiguous:
            tag = sha256("\0".join((table, *columns)).encode()).hexdigest()[:_TAG_DIGITS]
            name = f"{name[: MAX_IDENTIFIER - _TAG_DIGITS - 5].removesuffix('_idx')}_{tag}_idx"
        yield Index(name, *columns)


def _indexed(definition: TableMapping | ChildMapping) -> list[tuple[str, ...]]:
    single = [(column.name,) for column in definition.columns if column.index]
    return list(dict.fromkeys([*single, *definition.indexes]))


def _index_name(table: str, columns: Sequence[str]) -> str:
    """Name an index as PostgreSQL would; names that are too long, or those of several, get a tag."""
    return "_".join((table, *columns, "idx"))


def mapped_tables(mapping: Mapping, tables: LedgerTables) -> tuple[MappedTable, ...]:
    """Make the tables of a mapping beside those of the ledger layer, in the order of the mapping.

    Raises ConfigurationError where two tables would have one name.
    """
    names = Counter(_index_name(part.name, columns) for part in mapping.parts() for columns in _indexed(part))
    ambiguous = {name for name, count in names.items() if count > 1}
    return tuple(MappedTable(definition, tables.metadata, ambiguous) for definition in mapping.tables)


def _key_column(*, primary_key: bool) -> Column[int]:
    return Column(
        "kvr_key_id",
        INT64,
        primary_key=primary_key,
        nullable=False,
        autoincrement=False,
        comment="The key of the ledger that this row stands for (ledger_key.key_id).",
    )


def _position_column() -> Column[int]:
    return Column("kvr_position", INT32, nullable=False, autoincrement=False, comment="Position in the array, from 0.")


def _fact_columns() -> tuple[Column[Any], ...]:
    types: tuple[TypeEngine[Any], ...] = (INT64, INT32, INT32, TEXT, TEXT)
    comments = (
        "Block of the write that made this row.",
        "Position of its transaction in the block (ledger_transaction).",
        "Position of the write in the transaction.",
        "Id of that transaction.",
        "MSP of the identity that sent it.",
    )
    return tuple(
        Column(name, kind, nullable=False, comment=comment)
        for name, kind, comment in zip(FACT_COLUMNS, types, comments, strict=True)
    )
