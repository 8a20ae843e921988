"""Tables of the mapped layer, from the mapping. Pure.

For a mapped table `t` there is `t` (current rows, primary key `kvr_key_id`) and `t_history` (every version,
append-only). The current row of a key is its newest history row, if that is not a delete. A table of a private data
collection has current rows alone.
"""

from typing import Any

from sqlalchemy import Column, Index, MetaData, PrimaryKeyConstraint, Table
from sqlalchemy.types import TypeEngine

from kvr_sync.errors import ConfigurationError
from kvr_sync.mapping.definition import ColumnType, Mapping, TableMapping
from kvr_sync.store.schema import BYTES, DECIMAL, FIRST_COLUMNS, FLAG, INT32, INT64, JSON, TEXT, TIME, LedgerTables

FACT_COLUMNS = ("kvr_block_number", "kvr_tx_number", "kvr_write_number", "kvr_tx_id", "kvr_creator_msp_id")
"""The facts that every mapped row carries: which write made it, and who sent the transaction."""

_TYPES: dict[ColumnType, TypeEngine[Any]] = {
    ColumnType.TEXT: TEXT,
    ColumnType.INTEGER: INT64,
    ColumnType.DECIMAL: DECIMAL,
    ColumnType.BOOLEAN: FLAG,
    ColumnType.TIMESTAMP: TIME,
    ColumnType.JSON: JSON,
    ColumnType.BYTES: BYTES,
}


class MappedTable:
    """The tables of one entry of the mapping; `types` are the mapping's types of `columns`, in its order.

    `history` is None for a private table.
    """

    def __init__(self, definition: TableMapping, tables: LedgerTables) -> None:
        metadata = tables.metadata
        for name in (definition.name, f"{definition.name}_history"):
            if (f"{metadata.schema}.{name}" if metadata.schema else name) in metadata.tables:
                raise ConfigurationError(f"the mapping needs a table {name}, and another table has that name")
        self.name = definition.name
        self.types = tuple(column.type for column in definition.columns)
        self.current = Table(
            definition.name,
            metadata,
            _key_column(primary_key=True),
            *(
                Column(column.name, _TYPES[column.type], nullable=not column.required, comment=column.comment)
                for column in definition.columns
            ),
            *_fact_columns(),
            comment=definition.comment
            or "Current rows: what the world state holds for each key, as the mapping reads it.",
        )
        for column in definition.columns:
            if column.index:
                Index(None, self.current.c[column.name])
        self.is_private = bool(definition.collections)
        # A history would keep what was purged, or has expired.
        self.history = None if self.is_private else _history_table(definition, metadata)


def _history_table(definition: TableMapping, metadata: MetaData) -> Table:
    return Table(
        f"{definition.name}_history",
        metadata,
        _key_column(primary_key=False),
        *(
            Column(column.name, _TYPES[column.type], nullable=True, comment=column.comment)
            for column in definition.columns
        ),
        Column(
            "kvr_kind",
            TEXT,
            nullable=False,
            comment="put, delete (columns are NULL) or metadata (the value stayed, the version moved).",
        ),
        *_fact_columns(),
        PrimaryKeyConstraint("kvr_key_id", "kvr_block_number", "kvr_tx_number", "kvr_write_number"),
        info={FIRST_COLUMNS: ("kvr_key_id", "kvr_kind")},
        comment="Every version of every row, in order of (kvr_block_number, kvr_tx_number, kvr_write_number).",
    )


def mapped_tables(mapping: Mapping, tables: LedgerTables) -> tuple[MappedTable, ...]:
    """Make the tables of a mapping beside those of the ledger layer, in the order of the mapping.

    Raises ConfigurationError where two tables would have one name.
    """
    return tuple(MappedTable(definition, tables) for definition in mapping.tables)


def _key_column(*, primary_key: bool) -> Column[int]:
    return Column(
        "kvr_key_id",
        INT64,
        primary_key=primary_key,
        nullable=False,
        autoincrement=False,
        comment="The key of the ledger that this row stands for (ledger_key.key_id).",
    )


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
