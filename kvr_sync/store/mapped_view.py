"""Views and functions beside the mapped tables: the change feed, periods of validity, and rows as of a block. Pure.

They are made from the same parts on both databases; functions there are in PostgreSQL only.
"""

from collections.abc import Iterator, Sequence

from sqlalchemy import Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql.compiler import IdentifierPreparer

from kvr_sync.store.change_feed import ChangeKind
from kvr_sync.store.mapped_table import ERASED_BLOCK, VERSION_COLUMNS, ChildTable, MappedTable
from kvr_sync.store.schema import LedgerTables

_VERSION = VERSION_COLUMNS[1:]


def view_statements(dialect: str, tables: LedgerTables, mapped: Sequence[MappedTable]) -> Iterator[str]:
    """Yield the statements that make them. `dialect`: "postgresql" or "sqlite"; tables are numbered from 1."""
    writer = _Writer(dialect, tables)
    for table_id, table in enumerate(mapped, start=1):
        yield from writer.statements(table_id, table)


class _Writer:
    def __init__(self, dialect: str, tables: LedgerTables) -> None:
        self._is_postgresql = dialect == "postgresql"
        known = postgresql.dialect() if self._is_postgresql else sqlite.dialect()  # type: ignore[no-untyped-call]  # constructors have no annotations
        self._prepare: IdentifierPreparer = known.identifier_preparer
        self._schema = tables.metadata.schema
        self._change = self._prepare.format_table(tables.change)

    def statements(self, table_id: int, table: MappedTable) -> Iterator[str]:
        yield self._changes(table_id, table)
        yield from self._comment(
            "VIEW",
            f"{table.name}_changes",
            "What happened to the current rows, by kvr_change_id; read it in that order.",
        )
        yield self._validity(table.name, table.history)
        yield from self._comment(
            "VIEW",
            f"{table.name}_validity",
            "Every version that was not a delete, with the block it came with and the block it was replaced by.",
        )
        if self._is_postgresql:
            yield self._as_of(table.name, table.history)
            for child in table.children:
                yield self._child_as_of(table.name, child, child.history)

    def _name(self, name: str) -> str:
        quoted = self._prepare.quote(name)
        return f"{self._prepare.quote_schema(self._schema)}.{quoted}" if self._schema else quoted

    def _comment(self, kind: str, name: str, text: str) -> Iterator[str]:
        if self._is_postgresql:
            yield f"COMMENT ON {kind} {self._name(name)} IS '{text}'"

    def _changes(self, table_id: int, table: MappedTable) -> str:
        """Values come from the history, where erased ones are NULL."""
        columns = [c.name for c in table.current.columns if c.name not in ("kvr_key_id", "kvr_change_id", *_VERSION)]
        words = " ".join(f"WHEN {kind.value} THEN '{kind.name.lower()}'" for kind in ChangeKind)
        return (
            f"CREATE VIEW {self._name(table.name + '_changes')} AS SELECT c.change_id AS kvr_change_id,"  # noqa: S608  names, quoted
            f" CASE c.kind {words} END AS kvr_change, c.key_id AS kvr_key_id,"
            f" c.block_number AS kvr_block_number, c.tx_number AS kvr_tx_number, c.write_number AS kvr_write_number,"
            f" {', '.join('h.' + self._prepare.quote(name) for name in columns)}"
            f" FROM {self._change} c LEFT JOIN {self._prepare.format_table(table.history)} h ON h.kvr_key_id = c.key_id"
            " AND h.kvr_block_number = c.block_number AND h.kvr_tx_number = c.tx_number"
            f" AND h.kvr_write_number = c.write_number WHERE c.table_id = {table_id}"
        )

    def _validity(self, name: str, history: Table) -> str:
        columns = ", ".join(self._prepare.quote(c.name) for c in history.columns)
        order = ", ".join(_VERSION)
        until = "kvr_valid_to_block"
        if ERASED_BLOCK in history.c:  # an expired key was not in force any more, and no write says so
            ends_first = f"kvr_valid_to_block IS NULL OR {ERASED_BLOCK} < kvr_valid_to_block"
            until = f"CASE WHEN {ends_first} THEN {ERASED_BLOCK} ELSE kvr_valid_to_block END AS kvr_valid_to_block"
        return (
            f"CREATE VIEW {self._name(name + '_validity')} AS SELECT {columns},"  # noqa: S608  names, quoted
            f" kvr_block_number AS kvr_valid_from_block, {until}"
            f" FROM (SELECT {columns}, lead(kvr_block_number) OVER (PARTITION BY kvr_key_id ORDER BY {order})"
            f" AS kvr_valid_to_block FROM {self._prepare.format_table(history)}) v"
            " WHERE kvr_kind NOT IN ('delete', 'purge')"
        )

    def _as_of(self, name: str, history: Table) -> str:
        # By number: a column may be called like the parameter, and would be taken for it.
        table = self._prepare.format_table(history)
        lives = f" AND (h.{ERASED_BLOCK} IS NULL OR h.{ERASED_BLOCK} > $1)" if ERASED_BLOCK in history.c else ""
        return (
            f"CREATE FUNCTION {self._name(name + '_asof')}(block bigint) RETURNS SETOF {table}"  # noqa: S608  names, quoted
            " LANGUAGE sql STABLE PARALLEL SAFE AS $kvr$"
            f" SELECT h.* FROM {table} h WHERE h.kvr_block_number <= $1"
            f" AND h.kvr_kind NOT IN ('delete', 'purge'){lives}"
            f" AND NOT EXISTS (SELECT FROM {table} later WHERE later.kvr_key_id = h.kvr_key_id"
            " AND later.kvr_block_number <= $1"
            " AND (later.kvr_block_number, later.kvr_tx_number, later.kvr_write_number)"
            " > (h.kvr_block_number, h.kvr_tx_number, h.kvr_write_number)) $kvr$"
        )

    def _child_as_of(self, parent: str, child: ChildTable, history: Table) -> str:
        table = self._prepare.format_table(history)
        return (
            f"CREATE FUNCTION {self._name(child.current.name + '_asof')}(block bigint) RETURNS SETOF {table}"  # noqa: S608  names, quoted
            " LANGUAGE sql STABLE PARALLEL SAFE AS $kvr$"
            f" SELECT c.* FROM {self._name(parent + '_asof')}($1) p JOIN {table} c USING (kvr_key_id,"
            " kvr_block_number, kvr_tx_number, kvr_write_number) $kvr$"
        )
