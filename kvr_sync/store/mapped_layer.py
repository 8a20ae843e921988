"""The mapped layer brought to what ledger layer and mapping say, inside one transaction.

Everything is made again beside the tables, from the ledger layer, in tables of the session alone; then the rows that
differ are taken out and the right ones put in. So readers, views and replication see what changed and nothing else, and
nobody waits: until COMMIT they read what was there before. Nothing is dropped or truncated.

The change feed tells of each key whose current row, or any version of whose past, was put right: one change, of the row
as it is now. A reader who keeps nothing but its last number ends with the table, whatever was wrong when it read.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    MetaData,
    Select,
    Table,
    and_,
    case,
    delete,
    exists,
    func,
    insert,
    literal,
    or_,
    select,
    true,
    union_all,
    update,
)
from sqlalchemy.sql.dml import UpdateBase

from kvr_sync.store.change_feed import ChangeKind
from kvr_sync.store.ledger_layer import LayerPart, LedgerLayer
from kvr_sync.store.ledger_sink import LedgerSink
from kvr_sync.store.mapped_table import ERASED_BLOCK, ERASED_BY, VERSION_COLUMNS, ChildTable, MappedTable
from kvr_sync.store.private_layer import erased_versions, is_erased
from kvr_sync.store.quarantine_closing import KEPT_CLOSINGS, derived_closing
from kvr_sync.store.schema import FIRST_COLUMNS, INT16, INT32, INT64, LATER_COLUMNS, TEXT

Report = Callable[[int, int], None]
"""Called with the number of writes read so far, and of all there are to read."""

_VERSION = VERSION_COLUMNS[1:]
_GONE = (int(ChangeKind.DELETE), int(ChangeKind.ERASURE))
_IN_FORCE = ("put", "metadata")
"""Kinds of versions with values; those of all others have none."""


class Mended(NamedTuple):
    """What was done to one mapped table.

    `versions`: rows of its history and of those of its child tables that were put in or taken out; `rows`: the same of
    current rows; `changes`: of its feed; `released`: entries that left the quarantine; `quarantined`: open ones now.
    """

    table: str
    versions: int
    rows: int
    changes: int
    released: int
    quarantined: int

    def followed_by(self, later: "Mended") -> "Mended":
        """Give what was done in two steps."""
        return Mended(
            self.table,
            self.versions + later.versions,
            self.rows + later.rows,
            self.changes + later.changes,
            self.released + later.released,
            later.quarantined,
        )


class MappedLayer:
    """The mapped tables of a sink, in a transaction that holds the fence (`LedgerSink.fenced`).

    Of private versions that were erased the ledger layer knows neither key nor value, and so not which tables of their
    collection had a row of them, nor which of them refused the value (`private_layer.erased_versions`). Such rows and
    entries of the quarantine stay where they are, and where somebody took one out it does not come back. Whatever else
    stands in them is made again: no value, no key, no child row, but when and why they were erased.
    """

    def __init__(self, sink: LedgerSink, connection: Connection, closing_block: int | None) -> None:
        """`closing_block`: the checkpoint, with which entries of the quarantine are closed."""
        self._sink = sink
        self._connection = connection
        self._tables = sink.tables
        self._closing_block = closing_block

    def make_again(
        self,
        chosen: Sequence[int],
        *,
        keys: Select[Any] | None = None,
        fresh: Collection[int] = (),
        announced_as: Literal[ChangeKind.RELEASE] | None = None,
        report: Report = lambda _done, _all: None,
    ) -> list[Mended]:
        """Make the chosen tables (by their place in the mapping) equal to what ledger layer and mapping give.

        `keys`: selects the numbers of the keys that are looked at; None: all. `fresh`: those of the tables that never
        were filled: a private one gets a row of every erased version of its collections, whatever it was of.
        `announced_as`: the kind of the changes of rows that are there afterwards; None: insert or update, as a reader
        of the feed will find it.
        """
        if self._connection.dialect.name == "postgresql":
            self._connection.exec_driver_sql("SET LOCAL statement_timeout = 0")  # one statement mends a whole table
        with _workbench(self._connection, [(number, self._sink.mapped[number]) for number in chosen]) as bench:
            scope = None
            if keys is not None:
                self._connection.execute(insert(bench.scope).from_select(["key_id"], keys))
                scope = select(bench.scope.c.key_id)
            self._fill(bench, chosen, scope, report)
            for number in chosen:
                self._keep_erased(bench, number, scope, is_fresh=number in fresh)
            return [self._mend(bench, number, scope, announced_as) for number in chosen]

    def _fill(self, bench: "_Workbench", chosen: Sequence[int], scope: Select[Any] | None, report: Report) -> None:
        """Make all rows again, beside the tables."""
        sink, connection = self._sink, self._connection
        layer = LedgerLayer(connection, self._tables, sink.mapping, sink.encoding, chosen, scope)
        total, done = layer.count(), 0
        for part in layer.parts():
            self._insert(bench, part)
            done += part.writes
            report(done, total)
        if connection.dialect.name == "postgresql":
            for table in bench.filled():
                connection.exec_driver_sql(f"ANALYZE {table.schema}.{table.name}")

    def _insert(self, bench: "_Workbench", part: LayerPart) -> None:
        insert_rows, connection, keys = self._sink.insert, self._connection, part.keys
        for number, again in bench.tables.items():
            rows = part.rows.mapped[number]
            insert_rows(connection, again.versions, rows.history, keys)
            for child, child_rows in zip(again.children, rows.children, strict=True):
                insert_rows(connection, child.versions, child_rows.rows, keys)
        insert_rows(connection, bench.quarantine, part.rows.ledger.quarantine, keys)

    def _keep_erased(self, bench: "_Workbench", number: int, scope: Select[Any] | None, *, is_fresh: bool) -> None:
        """Write down the versions that were erased, of which the tables alone know."""
        definition, versions = self._sink.mapping.tables[number], bench.tables[number].versions
        if definition.collections:
            mapped = self._sink.mapped[number]
            rows = erased_versions(self._tables, definition, mapped, scope, is_fresh=is_fresh)
            self._connection.execute(insert(versions).from_select(rows.selected_columns.keys(), rows))

    def _mend(
        self,
        bench: "_Workbench",
        number: int,
        scope: Select[Any] | None,
        announced_as: ChangeKind | None,
    ) -> Mended:
        mapped, again = self._sink.mapped[number], bench.tables[number]
        connection = self._connection
        bench.empty(connection)
        self._remember_known(bench, mapped, scope)
        versions = rows = 0
        versions += self._replace(bench, mapped.history, again.versions, scope)
        newest = _newest(again.versions)
        connection.execute(insert(again.current).from_select(newest.selected_columns.keys(), newest))
        for child, child_again in zip(mapped.children, again.children, strict=True):
            versions += self._replace(bench, child.history, child_again.versions, scope)
            newest = _of_current(child_again.versions, again.current)
            connection.execute(insert(child_again.current).from_select(newest.selected_columns.keys(), newest))
            rows += self._replace(bench, child.current, child_again.current, scope)
        changes = self._announce(bench, mapped, again.current, announced_as)
        rows += self._replace(bench, mapped.current, again.current, scope)
        released = self._close_released(mapped.name, again.versions, scope)
        self._mend_quarantine(bench, mapped, again.versions, scope)
        return Mended(mapped.name, versions, rows, changes, released, self._count_open(mapped.name))

    def _remember_known(self, bench: "_Workbench", mapped: MappedTable, scope: Select[Any] | None) -> None:
        """Write down which keys a reader of the feed has a row of, and the last change it has read of each."""
        change, current = self._tables.change, mapped.current
        if scope is None:
            of_table = change.c.table_id == self._table_id(mapped.name)
            newest = select(func.max(change.c.change_id).label("change_id")).where(of_table)
            last = newest.group_by(change.c.key_id).subquery()
            known = (
                select(change.c.key_id, change.c.change_id)
                .join(last, last.c.change_id == change.c.change_id)
                .where(of_table, change.c.kind.not_in(_GONE))
            )
        else:  # looking through the whole feed for a few keys would take long; their rows say the same
            known = select(current.c.kvr_key_id, current.c.kvr_change_id).where(current.c.kvr_key_id.in_(scope))
        self._connection.execute(insert(bench.known).from_select(["key_id", "change_id"], known))

    def _replace(self, bench: "_Workbench", target: Table, source: Table, scope: Select[Any] | None) -> int:
        """Make the rows of a table those of another one that has its columns; give how many were taken out or put in.

        Keys of such rows are written down.
        """
        connection, keys = self._connection, [column.name for column in source.primary_key.columns]
        same_key = and_(*(source.c[name] == target.c[name] for name in keys))
        others = [name for name in target.c.keys() if name not in keys]  # noqa: SIM118  columns, not a dictionary
        same = and_(same_key, *(source.c[name].is_not_distinct_from(target.c[name]) for name in others))
        wrong = and_(_within(target, scope), ~exists().where(same))
        wrong_keys = select(target.c.kvr_key_id).where(wrong).distinct()
        connection.execute(insert(bench.mended).from_select(["key_id"], wrong_keys))
        taken_out = self._count(delete(target).where(wrong))
        missing = ~exists().where(same_key)
        missing_keys = select(source.c.kvr_key_id).where(missing).distinct()
        connection.execute(insert(bench.mended).from_select(["key_id"], missing_keys))
        names = target.c.keys()
        rows = select(*(source.c[name] for name in names)).where(missing)
        return taken_out + self._count(insert(target).from_select(names, rows))

    def _announce(self, bench: "_Workbench", mapped: MappedTable, again: Table, announced_as: ChangeKind | None) -> int:
        """Add to the feed what a reader of it has to learn, and give current rows the numbers of their last changes."""
        connection, feed, change = self._connection, self._tables.mapped_table, self._tables.change
        table_id = self._table_id(mapped.name)
        last = connection.scalar(select(feed.c.last_change_id).where(feed.c.table_id == table_id)) or 0
        gone: ColumnElement[int] = literal(int(ChangeKind.DELETE))
        if mapped.is_private:
            gone = case((is_erased(self._tables, change), literal(int(ChangeKind.ERASURE))), else_=gone)
        news = union_all(
            _put_right(bench, mapped.current, again, announced_as), _gone(bench, change, table_id, again, gone)
        )
        found = news.subquery()
        order = (*(found.c[name] for name in _VERSION), found.c.kvr_key_id)
        number = last + func.row_number().over(order_by=order)
        rows = select(found.c.kvr_key_id, number, found.c.kind, *(found.c[name] for name in _VERSION))
        count = self._count(insert(bench.changes).from_select(bench.changes.c.keys(), rows))
        made = bench.changes.c
        announced = select(literal(table_id), made.change_id, made.kind, made.key_id, *(made[n] for n in _VERSION))
        connection.execute(insert(change).from_select([column.name for column in _feed_columns(change)], announced))
        connection.execute(update(feed).where(feed.c.table_id == table_id).values(last_change_id=last + count))
        of_new = select(made.change_id).where(made.key_id == again.c.kvr_key_id).scalar_subquery()
        known = bench.known.c
        of_old = select(known.change_id).where(known.key_id == again.c.kvr_key_id).scalar_subquery()
        connection.execute(update(again).values(kvr_change_id=func.coalesce(of_new, of_old)))
        return count

    def _close_released(self, name: str, versions: Table, scope: Select[Any] | None) -> int:
        """Close the entries whose version fits now."""
        entry = self._tables.quarantine
        fits = exists().where(_is_version(entry, versions), versions.c.kvr_kind.in_(_IN_FORCE))
        closed = entry.c.closed_by
        statement = (
            update(entry)
            .where(entry.c.table_name == name, _within_entries(entry, scope), fits)
            .where(or_(closed.is_(None), closed.not_in(KEPT_CLOSINGS)))
            .values(closed_block=self._closing_block, closed_by="released")
        )
        return self._count(statement)

    def _mend_quarantine(
        self, bench: "_Workbench", mapped: MappedTable, versions: Table, scope: Select[Any] | None
    ) -> None:
        """Make the other entries what mapping and later versions say."""
        connection, entry, again = self._connection, self._tables.quarantine, bench.quarantine
        of_table = again.c.table_name == mapped.name
        connection.execute(update(again).where(of_table).values(derived_closing(again, versions)))
        keys = [column.name for column in entry.primary_key.columns]
        same_key = and_(*(again.c[name] == entry.c[name] for name in keys))
        same = and_(*(again.c[name].is_not_distinct_from(entry.c[name]) for name in entry.c.keys()))  # noqa: SIM118
        is_derived = or_(entry.c.closed_by.is_(None), entry.c.closed_by.not_in(KEPT_CLOSINGS))
        wrong = and_(or_(is_derived, exists().where(same_key)), ~exists().where(same))
        if mapped.is_private:
            self._close_erased(mapped.name, scope)
            wrong = and_(wrong, ~is_erased(self._tables, entry))
        connection.execute(delete(entry).where(entry.c.table_name == mapped.name, _within_entries(entry, scope), wrong))
        names = entry.c.keys()
        missing = select(*(again.c[name] for name in names)).where(of_table, ~exists().where(same_key))
        connection.execute(insert(entry).from_select(names, missing))

    def _close_erased(self, name: str, scope: Select[Any] | None) -> None:
        """Let the entries of erased versions be closed, and hold nothing."""
        entry, value = self._tables.quarantine, self._tables.private_value
        erased_block = select(value.c.erased_block).where(
            *(value.c[name] == entry.c[name] for name in value.primary_key.columns.keys())  # noqa: SIM118
        )
        of_erased = (entry.c.table_name == name, _within_entries(entry, scope), is_erased(self._tables, entry))
        kept = {
            "value": b"",
            "closed_block": func.coalesce(entry.c.closed_block, erased_block.scalar_subquery()),
            "closed_by": func.coalesce(entry.c.closed_by, "erased"),
        }
        self._connection.execute(update(entry).where(*of_erased).values(kept))

    def _count_open(self, name: str) -> int:
        entry = self._tables.quarantine
        is_open = (entry.c.table_name == name) & entry.c.closed_block.is_(None)
        return self._connection.scalar(select(func.count()).select_from(entry).where(is_open)) or 0

    def _count(self, statement: UpdateBase) -> int:
        """Give the number of rows that a statement writes or takes out."""
        return self._connection.execute(statement, execution_options={"preserve_rowcount": True}).rowcount

    def _table_id(self, name: str) -> int:
        table = self._tables.mapped_table
        return int(self._connection.execute(select(table.c.table_id).where(table.c.name == name)).scalar_one())


# What is compared, as queries.


def _within(table: Table, scope: Select[Any] | None) -> ColumnElement[bool]:
    return true() if scope is None else table.c.kvr_key_id.in_(scope)


def _within_entries(entry: Table, scope: Select[Any] | None) -> ColumnElement[bool]:
    return true() if scope is None else entry.c.key_id.in_(scope)


def _is_version(entry: Table, versions: Table) -> ColumnElement[bool]:
    return and_(
        versions.c.kvr_key_id == entry.c.key_id,
        *(versions.c[name] == entry.c[name.removeprefix("kvr_")] for name in _VERSION),
    )


def _newest(versions: Table) -> Select[Any]:
    """Current rows: the newest version of each key, if it has values."""
    order = [versions.c[name].desc() for name in _VERSION]
    place = func.row_number().over(partition_by=versions.c.kvr_key_id, order_by=order).label("kvr_place")
    numbered = select(*versions.c, place).subquery()
    names = [name for name in versions.c.keys() if name not in ("kvr_kind", ERASED_BLOCK, ERASED_BY)]  # noqa: SIM118
    columns = [numbered.c[name] for name in names]
    return select(*columns).where(numbered.c.kvr_place == 1, numbered.c.kvr_kind.in_(_IN_FORCE))


def _of_current(versions: Table, current: Table) -> Select[Any]:
    """Child rows: those of the version that is current."""
    return select(*versions.c).join(current, and_(*(versions.c[name] == current.c[name] for name in VERSION_COLUMNS)))


def _put_right(bench: "_Workbench", current: Table, again: Table, announced_as: ChangeKind | None) -> Select[Any]:
    """Rows that a reader of the feed has not, or not as they are."""
    known = bench.known
    others = [name for name in current.c.keys() if name not in ("kvr_key_id", "kvr_change_id")]  # noqa: SIM118
    same = and_(
        current.c.kvr_key_id == again.c.kvr_key_id,
        current.c.kvr_change_id == known.c.change_id,
        *(current.c[name].is_not_distinct_from(again.c[name]) for name in others),
    )
    was_there = case((known.c.key_id.is_(None), int(ChangeKind.INSERT)), else_=int(ChangeKind.UPDATE))
    kind = was_there if announced_as is None else literal(int(announced_as))
    return (
        select(again.c.kvr_key_id, kind.label("kind"), *(again.c[name] for name in _VERSION))
        .select_from(again)
        .outerjoin(known, known.c.key_id == again.c.kvr_key_id)
        .outerjoin(current, same)
        .where(or_(current.c.kvr_key_id.is_(None), again.c.kvr_key_id.in_(select(bench.mended.c.key_id))))
    )


def _gone(bench: "_Workbench", change: Table, table_id: int, again: Table, kind: ColumnElement[int]) -> Select[Any]:
    """Rows that a reader of the feed has and should not, with the version that it has."""
    known = bench.known
    return (
        select(known.c.key_id, kind)
        .add_columns(*(change.c[name.removeprefix("kvr_")] for name in _VERSION))
        .select_from(known)
        .join(change, (change.c.table_id == table_id) & (change.c.change_id == known.c.change_id))
        .outerjoin(again, again.c.kvr_key_id == known.c.key_id)
        .where(again.c.kvr_key_id.is_(None))
    )


def _feed_columns(change: Table) -> list[Column[Any]]:
    names = ("table_id", "change_id", "kind", "key_id", "block_number", "tx_number", "write_number")
    return [change.c[name] for name in names]


# Tables of the session alone, where everything is made again.


class _Again(NamedTuple):
    """Rows made again of one table; those of child tables have no kind and no children."""

    versions: Table
    current: Table
    children: "tuple[_Again, ...]" = ()


class _Workbench(NamedTuple):
    tables: dict[int, _Again]
    """By place in the mapping."""
    quarantine: Table
    scope: Table
    """Keys to look at."""
    known: Table
    """Keys that a reader of the feed has, with the last change it has read of each."""
    mended: Table
    """Keys of rows that were put right; one may come more than once."""
    changes: Table

    def empty(self, connection: Connection) -> None:
        """Forget what was written down of the table before."""
        for table in (self.known, self.mended, self.changes):
            connection.execute(delete(table))

    def filled(self) -> Iterator[Table]:
        """Yield the tables that rows are made in."""
        for again in self.tables.values():
            yield again.versions
            yield from (child.versions for child in again.children)
        yield self.quarantine


@contextmanager
def _workbench(connection: Connection, chosen: Sequence[tuple[int, MappedTable]]) -> Iterator[_Workbench]:
    """Make the tables, and drop them at the end; after an error the transaction takes them away."""
    metadata = MetaData(schema="pg_temp" if connection.dialect.name == "postgresql" else "temp")
    tables = {number: _again(mapped, f"kvr_again_{number}", metadata) for number, mapped in chosen}
    source = chosen[0][1].current.metadata
    quarantine = source.tables[f"{source.schema}.ledger_quarantine" if source.schema else "ledger_quarantine"]
    version = [(name, INT64 if name == "kvr_block_number" else INT32) for name in _VERSION]
    bench = _Workbench(
        tables,
        _copy(quarantine, "kvr_again_quarantine", metadata, quarantine.primary_key.columns.keys()),
        _plain("kvr_again_scope", metadata, ("key_id", INT64)),
        _plain("kvr_again_known", metadata, ("key_id", INT64), ("change_id", INT64)),
        Table("kvr_again_mended", metadata, Column("key_id", INT64, index=True)),
        _plain("kvr_again_change", metadata, ("key_id", INT64), ("change_id", INT64), ("kind", INT16), *version),
    )
    metadata.create_all(connection, checkfirst=False)
    yield bench
    metadata.drop_all(connection, checkfirst=False)


def _again(mapped: MappedTable, name: str, metadata: MetaData) -> _Again:
    current = mapped.current
    kind = Column("kvr_kind", TEXT)
    others = [column for column in current.columns if column.name not in ("kvr_key_id", "kvr_change_id")]
    of_erasure = [mapped.history.c[name] for name in (ERASED_BLOCK, ERASED_BY)] if mapped.is_private else []
    versions = Table(
        f"{name}_versions",
        metadata,
        *_columns([current.c.kvr_key_id, kind, *others, *of_erasure], VERSION_COLUMNS),
        info={FIRST_COLUMNS: ("kvr_key_id", "kvr_kind"), LATER_COLUMNS: (ERASED_BLOCK, ERASED_BY)},
    )
    children = tuple(
        _again_child(child, f"{name}_child_{place}", metadata) for place, child in enumerate(mapped.children)
    )
    return _Again(versions, _copy(current, name, metadata, ("kvr_key_id",)), children)


def _again_child(child: ChildTable, name: str, metadata: MetaData) -> _Again:
    versions = _copy(child.current, f"{name}_versions", metadata, (*VERSION_COLUMNS, "kvr_position"))
    return _Again(versions, _copy(child.current, name, metadata, ("kvr_key_id", "kvr_position")))


def _copy(table: Table, name: str, metadata: MetaData, keys: Sequence[str]) -> Table:
    return Table(name, metadata, *_columns(table.columns, keys), info=table.info)


def _columns(columns: Any, keys: Sequence[str]) -> list[Column[Any]]:  # noqa: ANN401  of a table, or chosen ones
    return [
        Column(column.name, column.type, primary_key=column.name in keys, autoincrement=False, nullable=True)
        for column in columns
    ]


def _plain(name: str, metadata: MetaData, *columns: tuple[str, Any]) -> Table:
    (key, kind), *others = columns
    first = Column(key, kind, primary_key=True, autoincrement=False)
    return Table(name, metadata, first, *(Column(*column) for column in others))
