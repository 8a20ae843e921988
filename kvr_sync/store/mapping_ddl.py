"""The statements that bring the tables of one mapping to another where they stand. Nothing cascades.

The statements before `SchemaStep.afterwards` are quick whatever the size of the tables: new tables and columns are
empty, and the new mapping is recorded as one that is not filled yet. Indexes take their time, and no reader waits.
"""

import re
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import (
    Column,
    Connection,
    Index,
    Table,
    bindparam,
    create_mock_engine,
    func,
    insert,
    inspect,
    literal,
    select,
    text,
    update,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.schema import CreateColumn, CreateIndex, CreateSchema, SetColumnComment, SetTableComment
from sqlalchemy.sql import ClauseElement

from kvr_sync.mapping.comparison import PartChange, TableChange
from kvr_sync.mapping.definition import to_json
from kvr_sync.store.mapped_table import MappedTable, mapped_tables
from kvr_sync.store.mapped_view import (
    VIEW_ENDINGS,
    ViewName,
    beside,
    functions_of,
    replaced_views,
    view_statements,
    views_of,
)
from kvr_sync.store.schema import TEXT, LedgerTables
from kvr_sync.store.status import BUILDING, RecordedMapping


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
    connection: Connection, tables: LedgerTables, changes: Sequence[TableChange], new: RecordedMapping
) -> SchemaStep:
    """Give the statements for changes that have no obstacle; `tables` have no mapped table yet, and get those of it.

    `new`: the mapping as it is to be recorded.
    """
    mapped = {entry.name: entry for entry in mapped_tables(new.qualified, tables)}
    return _Writer(connection, tables, mapped).step(changes, new)


def beside_step(connection: Connection, tables: LedgerTables, new: RecordedMapping) -> SchemaStep:
    """Give the statements that make the tables of a version of the API beside those that there are."""
    mapped = {entry.name: entry for entry in mapped_tables(new.qualified, tables)}
    return _Writer(connection, tables, mapped).beside(new)


def retiring_step(connection: Connection, tables: LedgerTables, old: RecordedMapping) -> SchemaStep:
    """Give the statements that take the tables of a version of the API away, with views and functions of ours."""
    mapped = {entry.name: entry for entry in mapped_tables(old.qualified, tables)}
    return _Writer(connection, tables, mapped).retired()


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


def dependents(connection: Connection, mapped: Iterable[MappedTable], names: Container[str]) -> list[Dependent]:
    """Find the views of others that read tables or our views of them; in SQLite nobody keeps account of that.

    `names`: of the mapped and child tables that are asked about.
    """
    if connection.dialect.name != "postgresql":
        return []
    ours: dict[tuple[str | None, str], str] = {}
    for entry in mapped:
        currents = [entry.current, *(child.current for child in entry.children)]
        for name, table in zip((entry.name, *entry.child_names), currents, strict=True):
            if name in names:
                ours |= {beside(table, ending): name for ending in ("", "_history", *VIEW_ENDINGS)}
    schemas = sorted({str(schema) for schema, _ in ours})
    rows = connection.execute(text(_DEPENDENTS), {"schemas": schemas, "names": sorted({name for _, name in ours})})
    return sorted(
        {
            Dependent(ours[row[0], row[1]], f"{row[2]}.{row[3]}")
            for row in rows
            if (row[0], row[1]) in ours and (row[2], row[3]) not in ours
        }
    )


_DEPENDENTS = """
    SELECT s.nspname, t.relname, n.nspname, c.relname FROM pg_depend d
    JOIN pg_rewrite r ON r.oid = d.objid JOIN pg_class c ON c.oid = r.ev_class
    JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_class t ON t.oid = d.refobjid JOIN pg_namespace s ON s.oid = t.relnamespace
    WHERE d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass AND c.oid <> t.oid
    AND s.nspname = ANY(:schemas) AND t.relname = ANY(:names)
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
        # The feed of a table that was taken away may not be deleted yet.
        of_feeds = connection.scalar(select(func.max(tables.change.c.table_id))) or 0
        self._last_id = max(of_feeds, *self._ids.values(), 0)

    def beside(self, new: RecordedMapping) -> SchemaStep:
        first: list[str] = []
        schema = next(iter(self._mapped.values())).current.schema if self._mapped else None
        # An administrator may have made it; IF NOT EXISTS asks for the right to make one all the same.
        if schema is not None and not inspect(self._connection).has_schema(schema):
            first.append(self._sql(CreateSchema(schema)))
        for entry in self._mapped.values():
            first += self._new_table(entry, new.version)
        first += self._recorded(new)
        return SchemaStep(first, [], [], [])

    def retired(self) -> SchemaStep:
        statements: list[str] = []
        locked: list[str] = []
        for entry in self._mapped.values():
            views = [self._quoted(view) for view in views_of(entry)]
            locked += [*views, *(self._name(table) for table in entry.tables)]
            if self._is_postgresql:
                statements += [f"DROP FUNCTION {self._quoted(name)}(bigint)" for name in functions_of(entry)]
            statements += [f"DROP VIEW {view}" for view in views]
            statements += [f"DROP TABLE {self._name(table)}" for table in entry.tables]
        schemas = {entry.current.schema for entry in self._mapped.values()} - {self._tables.metadata.schema}
        statements += [f"DROP SCHEMA {self._dialect.identifier_preparer.quote_schema(str(one))}" for one in schemas]
        return SchemaStep([], locked if self._is_postgresql else [], statements, [])

    def _new_table(self, entry: MappedTable, version: int) -> Iterator[str]:
        number = self._ids[entry.name] = self._last_id = self._last_id + 1
        yield from self._made(entry.tables)
        yield from view_statements(self._dialect.name, self._tables, [(number, entry)])
        feed = {"table_id": number, "name": entry.name, "mapping_version": version, "last_change_id": 0}
        yield self._sql(insert(self._tables.mapped_table).values(feed))

    def step(self, changes: Sequence[TableChange], new: RecordedMapping) -> SchemaStep:
        first: list[str] = []
        locked: list[str] = []
        under_locks: list[str] = []
        for change in changes:
            entry = self._mapped[change.table]
            if change.parts[0].is_new:
                first += self._new_table(entry, new.version)
                continue
            pairs = [(entry.current, entry.history), *entry.children]
            for part, (current, history) in zip(change.parts, pairs, strict=True):
                both = [current, history]
                if part.is_new:
                    first += self._made(both)
                    first += self._as_of(entry, current)
                    continue
                first += self._comments(part, current, both)
                under_locks += self._altered(part, current, both)
                if part.columns or part.nullable:
                    locked += [self._name(table) for table in both]
            if change.parts[0].columns:
                # Views before their tables: in this order those who read them lock, too.
                locked[:0] = [self._quoted(view) for view in views_of(entry)]
                under_locks += replaced_views(
                    self._dialect.name, self._tables, self._ids[entry.name], entry, self._view_columns(entry)
                )
        first += self._recorded(new)
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

    def _as_of(self, entry: MappedTable, child: Table) -> Iterator[str]:
        """The function of a new child table, among the statements for all views of its parent."""
        numbered = [(self._ids[entry.name], entry)]
        wanted = f"{self._quoted(beside(child, '_asof'))}("
        yield from (s for s in view_statements(self._dialect.name, self._tables, numbered) if f"FUNCTION {wanted}" in s)

    def _view_columns(self, entry: MappedTable) -> dict[str, list[str]]:
        inspector = inspect(self._connection)
        return {
            view.name: [column["name"] for column in inspector.get_columns(view.name, schema=view.schema)]
            for view in views_of(entry)
        }

    def _recorded(self, new: RecordedMapping) -> Iterator[str]:
        tables = self._tables
        yield self._sql(
            insert(tables.mapping).values(
                version=new.version,
                digest=new.mapping.digest,
                content=to_json(new.mapping),
                applied_at_block=new.applied_at_block,
                api_version=new.api_version,
            )
        )
        if new.applied_at_block != BUILDING:
            yield self._sql(update(tables.mapped_table).values(mapping_version=literal(new.version)))

    def _sql(self, statement: ClauseElement) -> str:
        return str(statement.compile(dialect=self._dialect, compile_kwargs={"literal_binds": True}))

    def _name(self, table: Table) -> str:
        return self._dialect.identifier_preparer.format_table(table)

    def _quoted(self, name: ViewName) -> str:
        preparer = self._dialect.identifier_preparer
        quoted = preparer.quote(name.name)
        return f"{preparer.quote_schema(name.schema)}.{quoted}" if name.schema else quoted
