"""Views and functions beside the mapped tables: the change feed, periods of validity, and rows as of a block. Pure.

They are made from the same parts on both databases; functions there are in PostgreSQL only.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from sqlalchemy import Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql.compiler import IdentifierPreparer

from kvr_sync.store.change_feed import ChangeKind
from kvr_sync.store.mapped_table import ERASED_BLOCK, VERSION_COLUMNS, ChildTable, MappedTable
from kvr_sync.store.schema import LedgerTables

_VERSION = VERSION_COLUMNS[1:]

VIEW_ENDINGS = ("_changes", "_validity")
"""Of the views that are made beside a mapped table."""


def view_statements(dialect: str, tables: LedgerTables, mapped: Iterable[tuple[int, MappedTable]]) -> Iterator[str]:
    """Yield the statements that make them. `dialect`: "postgresql" or "sqlite"; `mapped`: each with its `table_id`."""
    writer = _Writer(dialect, tables)
    for table_id, table in mapped:
        yield from writer.statements(table_id, table)


def replaced_views(
    dialect: str, tables: LedgerTables, table_id: int, table: MappedTable, before: Mapping[str, Sequence[str]]
) -> Iterator[str]:
    """Yield the statements that give the views of a table its new columns, after those that they have.

    `before`: the columns that each view has. Nothing that depends on a view is touched.
    """
    writer = _Writer(dialect, tables)
    feed, validity = beside(table.current, "_changes"), beside(table.current, "_validity")
    yield from writer.replaced(feed, writer.changes(table_id, table, before[feed.name]))
    yield from writer.replaced(validity, writer.validity(table.current, table.history, before[validity.name]))


class ViewName(NamedTuple):
    """Where a view or function stands."""

    schema: str | None
    name: str


def beside(table: Table, ending: str) -> ViewName:
    """Give the place of a view or function that belongs to a table."""
    return ViewName(table.schema, f"{table.name}{ending}")


def views_of(table: MappedTable) -> tuple[ViewName, ...]:
    """Give the views that are made beside a mapped table."""
    return tuple(beside(table.current, ending) for ending in VIEW_ENDINGS)


def functions_of(table: MappedTable) -> tuple[ViewName, ...]:
    """Give the functions that are made beside it in PostgreSQL, each after those that call it."""
    return (*(beside(child.current, "_asof") for child in table.children), beside(table.current, "_asof"))


class _Writer:
    def __init__(self, dialect: str, tables: LedgerTables) -> None:
        self._is_postgresql = dialect == "postgresql"
        known = postgresql.dialect() if self._is_postgresql else sqlite.dialect()  # type: ignore[no-untyped-call]  # constructors have no annotations
        self._prepare: IdentifierPreparer = known.identifier_preparer
        self._change = self._prepare.format_table(tables.change)

    def statements(self, table_id: int, table: MappedTable) -> Iterator[str]:
        yield self.changes(table_id, table)
        yield from self._comment(
            "VIEW",
            beside(table.current, "_changes"),
            "What happened to the current rows, by kvr_change_id; read it in that order.",
        )
        yield self.validity(table.current, table.history)
        yield from self._comment(
            "VIEW",
            beside(table.current, "_validity"),
            "Every version that was not a delete, with the block it came with and the block it was replaced by.",
        )
        if self._is_postgresql:
            yield self._as_of(table.current, table.history)
            for child in table.children:
                yield self._child_as_of(table.current, child)

    def _name(self, name: ViewName) -> str:
        quoted = self._prepare.quote(name.name)
        return f"{self._prepare.quote_schema(name.schema)}.{quoted}" if name.schema else quoted

    def _comment(self, kind: str, name: ViewName, text: str) -> Iterator[str]:
        if self._is_postgresql:
            yield f"COMMENT ON {kind} {self._name(name)} IS '{text}'"

    def replaced(self, name: ViewName, create: str) -> Iterator[str]:
        """Yield what replaces a view; SQLite knows views by their names alone."""
        if self._is_postgresql:
            yield create.replace("CREATE VIEW", "CREATE OR REPLACE VIEW", 1)
        else:
            yield f"DROP VIEW {self._name(name)}"
            yield create

    def changes(self, table_id: int, table: MappedTable, before: Sequence[str] = ()) -> str:
        """Values come from the history, where erased ones are NULL."""
        words = " ".join(f"WHEN {kind.value} THEN '{kind.name.lower()}'" for kind in ChangeKind)
        columns = {
            "kvr_change_id": "c.change_id",
            "kvr_change": f"CASE c.kind {words} END",
            "kvr_key_id": "c.key_id",
            **{name: f"c.{name.removeprefix('kvr_')}" for name in _VERSION},
        }
        for column in table.current.columns:
            columns.setdefault(column.name, f"h.{self._prepare.quote(column.name)}")
        return (
            f"CREATE VIEW {self._name(beside(table.current, '_changes'))} AS SELECT {self._listed(columns, before)}"  # noqa: S608  names, quoted
            f" FROM {self._change} c LEFT JOIN {self._prepare.format_table(table.history)} h ON h.kvr_key_id = c.key_id"
            " AND h.kvr_block_number = c.block_number AND h.kvr_tx_number = c.tx_number"
            f" AND h.kvr_write_number = c.write_number WHERE c.table_id = {table_id}"
        )

    def validity(self, current: Table, history: Table, before: Sequence[str] = ()) -> str:
        """Every version that was not a delete, up to the next one of its key."""
        own = {column.name: self._prepare.quote(column.name) for column in history.columns}
        columns = {
            **own,
            "kvr_valid_from_block": "kvr_block_number",
            "kvr_valid_to_block": "kvr_valid_to_block",
        }
        order = ", ".join(_VERSION)
        if ERASED_BLOCK in history.c:  # an expired key was not in force any more, and no write says so
            ends_first = f"kvr_valid_to_block IS NULL OR {ERASED_BLOCK} < kvr_valid_to_block"
            columns["kvr_valid_to_block"] = f"CASE WHEN {ends_first} THEN {ERASED_BLOCK} ELSE kvr_valid_to_block END"
        return (
            f"CREATE VIEW {self._name(beside(current, '_validity'))} AS SELECT {self._listed(columns, before)}"  # noqa: S608  names, quoted
            f" FROM (SELECT {', '.join(own.values())}, lead(kvr_block_number)"
            f" OVER (PARTITION BY kvr_key_id ORDER BY {order})"
            f" AS kvr_valid_to_block FROM {self._prepare.format_table(history)}) v"
            " WHERE kvr_kind NOT IN ('delete', 'purge')"
        )

    def _listed(self, columns: Mapping[str, str], before: Sequence[str]) -> str:
        """List columns for SELECT, by name and expression: first those that were there, in the order they had."""
        names = [*before, *(name for name in columns if name not in before)]
        return ", ".join(f"{columns[name]} AS {self._prepare.quote(name)}" for name in names)

    def _as_of(self, current: Table, history: Table) -> str:
        # By number: a column may be called like the parameter, and would be taken for it.
        table = self._prepare.format_table(history)
        lives = f" AND (h.{ERASED_BLOCK} IS NULL OR h.{ERASED_BLOCK} > $1)" if ERASED_BLOCK in history.c else ""
        return (
            f"CREATE FUNCTION {self._name(beside(current, '_asof'))}(block bigint) RETURNS SETOF {table}"  # noqa: S608  names, quoted
            " LANGUAGE sql STABLE PARALLEL SAFE AS $kvr$"
            f" SELECT h.* FROM {table} h WHERE h.kvr_block_number <= $1"
            f" AND h.kvr_kind NOT IN ('delete', 'purge'){lives}"
            f" AND NOT EXISTS (SELECT FROM {table} later WHERE later.kvr_key_id = h.kvr_key_id"
            " AND later.kvr_block_number <= $1"
            " AND (later.kvr_block_number, later.kvr_tx_number, later.kvr_write_number)"
            " > (h.kvr_block_number, h.kvr_tx_number, h.kvr_write_number)) $kvr$"
        )

    def _child_as_of(self, parent: Table, child: ChildTable) -> str:
        table = self._prepare.format_table(child.history)
        return (
            f"CREATE FUNCTION {self._name(beside(child.current, '_asof'))}(block bigint) RETURNS SETOF {table}"  # noqa: S608  names, quoted
            " LANGUAGE sql STABLE PARALLEL SAFE AS $kvr$"
            f" SELECT c.* FROM {self._name(beside(parent, '_asof'))}($1) p JOIN {table} c USING (kvr_key_id,"
            " kvr_block_number, kvr_tx_number, kvr_write_number) $kvr$"
        )
