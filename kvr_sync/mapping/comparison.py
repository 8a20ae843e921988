"""What a new mapping changes in the tables of an old one, and whether the tables can take it where they stand. Pure.

In place is what adds and what loosens: readers' queries and views stay valid, and no row that is there goes away.
Everything else needs tables of their own.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from kvr_sync.mapping.definition import (
    ChildMapping,
    ColumnMapping,
    ColumnType,
    CompositeSelector,
    Mapping,
    TableMapping,
)

Verdict = Literal["nothing", "in place", "new schema"]


@dataclass(frozen=True, slots=True)
class PartChange:
    """What changes in one table, mapped or child. Names are of columns; `indexes` are columns of new ones."""

    name: str
    is_new: bool = False
    columns: tuple[str, ...] = ()
    nullable: tuple[str, ...] = ()
    """Columns that were required and are not any more."""
    indexes: tuple[tuple[str, ...], ...] = ()
    comments: tuple[str | None, ...] = ()
    """Columns whose comment changes; None: the table itself."""
    rules: tuple[str, ...] = ()
    """Rules that are loosened or that the database does not know, in words."""
    obstacles: tuple[str, ...] = ()
    """What cannot be done in place, in words."""


@dataclass(frozen=True, slots=True)
class TableChange:
    """The same for a mapped table, with its child tables after it."""

    table: str
    parts: tuple[PartChange, ...]
    is_made_again: bool = False
    """Whether its rows can come out differently."""

    @property
    def obstacles(self) -> tuple[str, ...]:
        """What cannot be done in place."""
        return tuple(obstacle for part in self.parts for obstacle in part.obstacles)

    @property
    def verdict(self) -> Verdict:
        """Say what has to be done."""
        if self.obstacles:
            return "new schema"
        nothing = all(part == PartChange(part.name) for part in self.parts)
        return "nothing" if nothing and not self.is_made_again else "in place"


def compare_mappings(old: Mapping, new: Mapping) -> tuple[TableChange, ...]:
    """Compare two mappings table by table, in the order of the new one; tables that it has not come last."""
    before = {table.name: table for table in old.tables}
    parts_before = {part.name for part in old.parts()}
    added = [table for table in new.tables if table.name not in before]
    changes = []
    for table in new.tables:
        known = before.pop(table.name, None)
        if known is None:
            changes.append(_new_table(table, parts_before))
        else:
            changes.append(_compare(known, table, is_made_again=any(_shares_type(table, other) for other in added)))
    gone = [TableChange(name, (PartChange(name, obstacles=(f"table {name} is gone",)),)) for name in before]
    return (*changes, *gone)


def _shares_type(table: TableMapping, other: TableMapping) -> bool:
    """Whether keys that one table would refuse, for the number of their attributes, are now taken by another one."""
    return (
        isinstance(table.key, CompositeSelector)
        and isinstance(other.key, CompositeSelector)
        and (table.collections == other.collections or not set(table.collections).isdisjoint(other.collections))
        and table.key.object_type == other.key.object_type
        and table.namespace == other.namespace
    )


def _new_table(table: TableMapping, parts_before: set[str]) -> TableChange:
    parts: tuple[TableMapping | ChildMapping, ...] = (table, *table.children)
    changes = [
        PartChange(part.name, is_new=True)
        if part.name not in parts_before
        else PartChange(part.name, obstacles=(f"table {part.name} belongs to another table now",))
        for part in parts
    ]
    return TableChange(table.name, tuple(changes), is_made_again=True)


def _compare(old: TableMapping, new: TableMapping, *, is_made_again: bool) -> TableChange:
    obstacles = [
        f"{what} of table {new.name} changes"
        for what, before, after in (
            ("the namespace", old.namespace, new.namespace),
            ("the key", old.key, new.key),
            ("the private data collections", old.collections, new.collections),
            ("the sequence", old.sequences, new.sequences),
        )
        if before != after
    ]
    rules = []
    if old.refuses_unknown and not new.refuses_unknown:
        rules.append("members that the mapping does not know are taken")
    if new.refuses_unknown and not old.refuses_unknown:
        obstacles.append(f"table {new.name} refuses unknown members now")
    parts = [_compare_parts(old, new, rules, obstacles)]
    children = {child.name: child for child in old.children}
    for child in new.children:
        known = children.pop(child.name, None)
        if known is None:
            parts.append(PartChange(child.name, is_new=True))
        else:
            moved = [f"the array of table {child.name} changes"] if known.each != child.each else []
            parts.append(_compare_parts(known, child, [], moved))
    parts += [PartChange(name, obstacles=(f"table {name} is gone",)) for name in children]
    is_filled = any(part.is_new or part.columns or part.indexes for part in parts)
    return TableChange(new.name, tuple(parts), is_made_again or is_filled)


def _compare_parts(
    old: TableMapping | ChildMapping, new: TableMapping | ChildMapping, rules: list[str], obstacles: list[str]
) -> PartChange:
    before = {column.name: column for column in old.columns}
    added: list[str] = []
    nullable: list[str] = []
    told: list[str | None] = [None] if old.comment != new.comment else []
    rules, obstacles = list(rules), list(obstacles)
    for column in new.columns:
        known = before.pop(column.name, None)
        if known is None:
            added.append(column.name)
            if column.required:
                obstacles.append(f"column {new.name}.{column.name} is new and required")
            continue
        if known.required and not column.required:
            nullable.append(column.name)
        if known.comment != column.comment:
            told.append(column.name)
        rules += _loosened(known, column)
        obstacles += [f"{what} of column {new.name}.{column.name} changes" for what in _changed(known, column)]
    obstacles += [f"column {new.name}.{name} is gone" for name in before]
    old_indexes, new_indexes = indexed(old), indexed(new)
    obstacles += [
        f"the index of table {new.name} over {', '.join(columns)} is gone"
        for columns in old_indexes
        if columns not in new_indexes
    ]
    indexes = tuple(columns for columns in new_indexes if columns not in old_indexes)
    return PartChange(
        new.name,
        columns=tuple(added),
        nullable=tuple(nullable),
        indexes=indexes,
        comments=tuple(told),
        rules=tuple(rules),
        obstacles=tuple(obstacles),
    )


def indexed(part: TableMapping | ChildMapping) -> tuple[tuple[str, ...], ...]:
    """Give the columns of each index of a table."""
    single = [(column.name,) for column in part.columns if column.index]
    return tuple(dict.fromkeys([*single, *part.indexes]))


def _loosened(old: ColumnMapping, new: ColumnMapping) -> Iterator[str]:
    if old.required and not new.required:
        yield f"{new.name} is not required any more"
    if old.type is ColumnType.ENUM and set(new.values) > set(old.values):
        yield f"{new.name} may have {len(set(new.values) - set(old.values))} more values"
    if old.references != new.references:
        yield f"{new.name} refers to something else"


def _changed(old: ColumnMapping, new: ColumnMapping) -> Iterator[str]:
    for what, before, after in (
        ("the type", old.type, new.type),
        ("the source", old.source, new.source),
        ("precision or scale", (old.precision, old.scale), (new.precision, new.scale)),
        ("the collation", old.collation, new.collation),
        ("what it repeats of the document", old.equals_json, new.equals_json),
    ):
        if before != after:
            yield what
    if new.required and not old.required:
        yield "whether a value is required"
    if set(old.values) - set(new.values):
        yield "the enumeration"
