"""The statements that bring the tables of one mapping to another where they stand. Nothing cascades.

The statements before `SchemaStep.afterwards` are quick whatever the size of the tables: new tables and columns are
empty, and the new mapping is recorded as one that is not filled yet. Indexes take their time, and no reader waits.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import (
    Column,
    Connection,
    Index,
    Table,
    bindparam,
    create_mock_engine,
    insert,
    inspect,
    literal,
    select,
    text,
    update,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.schema import CreateColumn, CreateIndex, SetColumnComment, SetTableComment
from sqlalchemy.sql import ClauseElement

from kvr_sync.mapping.comparison import PartChange, TableChange
from kvr_sync.mapping.definition import Mapping as TableMappings
from kvr_sync.mapping.definition import to_json
from kvr_sync.store.mapped_table import MappedTable, mapped_tables
from kvr_sync.store.mapped_view import replaced_views, view_statements
from kvr_sync.store.schema import TEXT, LedgerTables
from kvr_sync.store.status import UNFINISHED


class SchemaStep(NamedTuple):
    """Statements in their order. `locked`: tables and views, quoted, that are locked before `under_locks`."""

    first: list[str]
    locked: list[str]
    under_locks: list[str]
    afterwards: list[str]


class Dependent(NamedTuple):
    """A view of others that reads a mapped table, or a view of one: `view` is `schema.name`."""

    table: str
    view: str


def schema_step(
    connection: Connection, tables: LedgerTables, changes: Sequence[TableChange], mapping: TableMappings, version: int
) -> SchemaStep:
    """Give the statements for changes that have no obstacle; `tables` have no mapped table yet, and get those of it.

    `version`: that the new mapping gets.
    """
    mapped = {entry.name: entry for entry in mapped_tables(mapping, tables)}
    return _Writer(connection, tables, mapped).step(changes, mapping, version)


def missing_indexes(connection: Connection, mapped: Iterable[MappedTable]) -> Iterator[Index]:
    """Yield the indexes of mapped tables that are not there yet."""
    inspector = inspect(connection)
    for entry in mapped:
        for table in entry.tables:
            if not inspector.has_table(table.name, schema=table.schema):
                continue
            there = {tuple(index["column_names"]) for index in inspector.get_indexes(table.name, schema=table.schema)}
            for index in sorted(table.indexes, key=lambda index: str(index.name)):
                if tuple(column.name for column in index.columns) not in there:
                    yield index


def dependents(connection: Connection, schema: str | None, names: Sequence[str]) -> list[Dependent]:
    """Find the views of others that read these tables or our views of them; in SQLite nobody keeps account of that."""
    if connection.dialect.name != "postgresql":
        return []
    ours = {f"{name}{ending}": name for name in names for ending in ("", "_history", "_changes", "_validity")}
    rows = connection.execute(text(_DEPENDENTS), {"schema": schema, "names": list(ours)})
    return sorted(
        {Dependent(ours[row[0]], f"{row[1]}.{row[2]}") for row in rows if row[1] != schema or row[2] not in ours}
    )


_DEPENDENTS = """
    SELECT t.relname, n.nspname, c.relname FROM pg_depend d
    JOIN pg_rewrite r ON r.oid = d.objid JOIN pg_class c ON c.oid = r.ev_class
    JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_class t ON t.oid = d.refobjid JOIN pg_namespace s ON s.oid = t.relnamespace
    WHERE d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass AND c.oid <> t.oid
    AND s.nspname = :schema AND t.relname = ANY(:names)
"""


class _Writer:
    def __init__(self, connection: Connection, tables: LedgerTables, mapped: Mapping[str, MappedTable]) -> None:
        self._connection = connection
        self._is_postgresql = connection.dialect.name == "postgresql"
        # As text, for a script too: no parameters, and literals as this very server reads them.
        kind: Any = type(connection.dialect)
        self._dialect: Dialect = kind(paramstyle="named")
        self._dialect._backslash_escapes = getattr(connection.dialect, "_backslash_escapes", False)  # noqa: SLF001  known only of a server
        self._tables = tables
        self._mapped = mapped
        stored = tables.mapped_table
        self._ids: dict[str, int] = {
            row[1]: row[0] for row in connection.execute(select(stored.c.table_id, stored.c.name))
        }

    def step(self, changes: Sequence[TableChange], mapping: TableMappings, version: int) -> SchemaStep:
        first: list[str] = []
        locked: list[str] = []
        under_locks: list[str] = []
        for change in changes:
            entry = self._mapped[change.table]
            if change.parts[0].is_new:
                self._ids[entry.name] = max(self._ids.values(), default=0) + 1
                first += self._made(entry.tables)
                first += view_statements(self._dialect.name, self._tables, [(self._ids[entry.name], entry)])
                first.append(self._sql(insert(self._tables.mapped_table).values(self._feed(entry.name, version))))
                continue
            pairs = [(entry.current, entry.history), *entry.children]
            for part, (current, history) in zip(change.parts, pairs, strict=True):
                both = [current, history]
                if part.is_new:
                    first += self._made(both)
                    first += self._as_of(entry, current.name)
                    continue
                first += self._comments(part, current, both)
                under_locks += self._altered(part, current, both)
                if part.columns or part.nullable:
                    locked += [self._name(table) for table in both]
            if change.parts[0].columns:
                # Views before their tables: in this order those who read them lock, too.
                locked[:0] = [self._quoted(name) for name in self._views(entry)]
                under_locks += replaced_views(
                    self._dialect.name, self._tables, self._ids[entry.name], entry, self._view_columns(entry)
                )
        first += self._recorded(mapping, version)
        old = [self._mapped[change.table] for change in changes if not change.parts[0].is_new]
        indexes = [
            str(CreateIndex(index).compile(dialect=self._dialect)) for index in missing_indexes(self._connection, old)
        ]
        return SchemaStep(first, locked if self._is_postgresql else [], under_locks, indexes)

    def _made(self, made: Sequence[Table]) -> list[str]:
        """Make new tables, with indexes and comments."""
        statements: list[str] = []
        mock = create_mock_engine(
            f"{self._dialect.name}://",
            lambda element, *_, **__: statements.append(str(element.compile(dialect=self._dialect)).strip()),
        )
        self._tables.metadata.create_all(mock, tables=made, checkfirst=False)
        return statements

    def _altered(self, part: PartChange, current: Table, both: Sequence[Table]) -> Iterator[str]:
        for name in part.nullable:  # first of all: in SQLite this is written from the statement as it is now
            yield from self._nullable(current, current.c[name])
        for table in both:
            for name in part.columns:
                made = CreateColumn(table.c[name]).compile(dialect=self._dialect)
                yield f"ALTER TABLE {self._name(table)} ADD COLUMN {made}"
        if self._is_postgresql:
            for table in both:
                yield from (
                    self._sql(SetColumnComment(table.c[name])) for name in part.columns if table.c[name].comment
                )

    def _comments(self, part: PartChange, current: Table, both: Sequence[Table]) -> Iterator[str]:
        for changed in part.comments if self._is_postgresql else ():
            if changed is None:
                yield self._sql(SetTableComment(current))
            else:
                yield from (self._sql(SetColumnComment(table.c[changed])) for table in both)

    def _nullable(self, table: Table, column: Column[object]) -> Iterator[str]:
        quoted = self._dialect.identifier_preparer.quote(column.name)
        if self._is_postgresql:
            yield f"ALTER TABLE {self._name(table)} ALTER COLUMN {quoted} DROP NOT NULL"
            return
        # As sqlite.org/lang_altertable.html describes it for constraints that are taken away: no row changes its form.
        stored = self._connection.scalar(text("SELECT sql FROM sqlite_master WHERE name = :name"), {"name": table.name})
        kind = re.escape(str(column.type.compile(dialect=self._dialect)))
        loosened, count = re.subn(rf"(?m)^(\s*{re.escape(quoted)} {kind}) NOT NULL", r"\1", str(stored))
        if count != 1:
            raise ValueError(f"the statement that made table {table.name} is not ours")
        changed = text("UPDATE sqlite_schema SET sql = :sql WHERE type = 'table' AND name = :name")
        version = self._connection.scalar(text("PRAGMA schema_version")) or 0
        yield "PRAGMA writable_schema = ON"
        yield self._sql(
            changed.bindparams(bindparam("sql", loosened, type_=TEXT), bindparam("name", table.name, type_=TEXT))
        )
        yield f"PRAGMA schema_version = {version + 1_000}"  # of no other statement: all must look again
        yield "PRAGMA writable_schema = RESET"

    def _as_of(self, entry: MappedTable, name: str) -> Iterator[str]:
        """The function of a new child table, among the statements for all views of its parent."""
        numbered = [(self._ids[entry.name], entry)]
        wanted = f"{self._quoted(name + '_asof')}("
        yield from (s for s in view_statements(self._dialect.name, self._tables, numbered) if f"FUNCTION {wanted}" in s)

    def _views(self, entry: MappedTable) -> list[str]:
        return [f"{entry.name}_changes", f"{entry.name}_validity"]

    def _view_columns(self, entry: MappedTable) -> dict[str, list[str]]:
        inspector, schema = inspect(self._connection), self._tables.metadata.schema
        return {
            name: [column["name"] for column in inspector.get_columns(name, schema=schema)]
            for name in self._views(entry)
        }

    def _recorded(self, mapping: TableMappings, version: int) -> Iterator[str]:
        tables = self._tables
        yield self._sql(
            insert(tables.mapping).values(
                version=version, digest=mapping.digest, content=to_json(mapping), applied_at_block=UNFINISHED
            )
        )
        yield self._sql(update(tables.mapped_table).values(mapping_version=literal(version)))

    def _feed(self, name: str, version: int) -> dict[str, object]:
        return {"table_id": self._ids[name], "name": name, "mapping_version": version, "last_change_id": 0}

    def _sql(self, statement: ClauseElement) -> str:
        return str(statement.compile(dialect=self._dialect, compile_kwargs={"literal_binds": True}))

    def _name(self, table: Table) -> str:
        return self._dialect.identifier_preparer.format_table(table)

    def _quoted(self, name: str) -> str:
        preparer, schema = self._dialect.identifier_preparer, self._tables.metadata.schema
        quoted = preparer.quote(name)
        return f"{preparer.quote_schema(schema)}.{quoted}" if schema else quoted
