"""Whether the tables of a database are those that migrations and mapping make."""

from collections.abc import Iterator

from sqlalchemy import Connection, Inspector, MetaData, Table, UniqueConstraint, inspect
from sqlalchemy.engine.interfaces import ReflectedColumn

REVISION_TABLE = "alembic_version"


def first_difference(connection: Connection, metadata: MetaData, *, strangers: bool = True) -> str | None:
    """Compare the channel's schema with `metadata`; give the first difference in words, by table and column, or None.

    Compared are tables, columns with type and nullability, primary keys, unique constraints, and that every index is
    there; with `strangers`, also that there is no other table. Further plain indexes and views are the owner's
    business.
    """
    return next(_differences(connection, metadata, strangers=strangers), None)


def _differences(connection: Connection, metadata: MetaData, *, strangers: bool) -> Iterator[str]:
    inspector = inspect(connection)
    for schema in dict.fromkeys(table.schema for table in metadata.tables.values()):
        expected = {table.name: table for table in metadata.tables.values() if table.schema == schema}
        where = "" if schema == metadata.schema else f"in schema {schema}, "
        for text in _schema_differences(connection, inspector, schema, expected, strangers=strangers):
            yield f"{where}{text}"


def _schema_differences(
    connection: Connection, inspector: Inspector, schema: str | None, expected: dict[str, Table], *, strangers: bool
) -> Iterator[str]:
    found = set(inspector.get_table_names(schema=schema)) - {REVISION_TABLE}
    for name in sorted(expected.keys() - found):
        yield f"table {name} is missing"
    for name in sorted(found - expected.keys()) if strangers else ():
        yield f"table {name} is not one of ours"
    names = sorted(expected.keys() & found)
    columns = inspector.get_multi_columns(schema=schema, filter_names=names)
    keys = inspector.get_multi_pk_constraint(schema=schema, filter_names=names)
    for name in names:
        table = expected[name]
        yield from _column_differences(connection, table, columns[schema, name])
        key = [column.name for column in table.primary_key.columns]
        if keys[schema, name]["constrained_columns"] != key:
            yield f"the primary key of {name} is not ({', '.join(key)})"
    yield from _index_differences(inspector, [expected[name] for name in names], schema)


def _column_differences(connection: Connection, table: Table, found: list[ReflectedColumn]) -> Iterator[str]:
    dialect = connection.dialect
    there = {column["name"]: column for column in found}
    for column in table.columns:
        place = f"{table.name}.{column.name}"
        other = there.pop(column.name, None)
        if other is None:
            yield f"column {place} is missing"
            continue
        # Collations are not reflected: how texts sort is looked at by nobody but those who read.
        kind = column.type.compile(dialect=dialect).partition(" COLLATE ")[0]
        other_kind = other["type"].compile(dialect=dialect).partition(" COLLATE ")[0]
        if kind != other_kind:
            yield f"column {place} is {other_kind}, not {kind}"
        if bool(column.nullable) != other["nullable"]:
            yield f"column {place} {'may not' if column.nullable else 'may'} be NULL"
    for name in there:
        yield f"column {table.name}.{name} is not one of ours"


def _index_differences(inspector: Inspector, tables: list[Table], schema: str | None) -> Iterator[str]:
    names = [table.name for table in tables]
    indexes = inspector.get_multi_indexes(schema=schema, filter_names=names)
    uniques = inspector.get_multi_unique_constraints(schema=schema, filter_names=names)
    for table in tables:
        unique_there = {tuple(entry["column_names"]) for entry in uniques[schema, table.name]}
        unique = {
            tuple(column.name for column in constraint.columns)
            for constraint in table.constraints
            if isinstance(constraint, UniqueConstraint)
        }
        for columns in sorted(unique - unique_there):
            yield f"the unique constraint of {table.name} ({', '.join(columns)}) is missing"
        for columns in sorted(unique_there - unique):
            yield f"a unique constraint of {table.name} ({', '.join(columns)}) is not one of ours"
        for entry in indexes[schema, table.name]:
            if entry["unique"] and tuple(entry["column_names"]) not in unique:
                yield f"the unique index {entry['name']} of {table.name} is not one of ours"
        indexed_there = {tuple(entry["column_names"]) for entry in indexes[schema, table.name]}
        for index in sorted(table.indexes, key=lambda index: str(index.name)):
            columns = tuple(column.name for column in index.columns)
            if columns not in indexed_there:
                yield f"the index of {table.name} ({', '.join(columns)}) is missing"
