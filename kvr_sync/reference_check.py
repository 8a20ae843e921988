"""References of a mapping, looked up: rows whose counterpart is not there. A question, never a rule for the engine."""

from typing import NamedTuple

from sqlalchemy import Connection, Table, exists, func, select

from kvr_sync.mapping.definition import Reference
from kvr_sync.store.mapped_table import MappedTable
from kvr_sync.store.schema import LedgerTables, ledger_tables
from kvr_sync.table_query import recorded_mapping

MAX_EXAMPLES = 5
"""Ids that are named of the rows without counterpart."""


class CheckedReference(NamedTuple):
    """One reference. `missing`: rows with a value that no row of the other table has; `examples`: ids of some.

    Ids are those of the documents that the rows belong to.
    """

    table: str
    column: str
    target: str
    missing: int
    examples: list[str]


def check_references(connection: Connection, tables: LedgerTables) -> list[CheckedReference]:
    """Check every reference of the mapping in force, in its order; none where it has none."""
    mapping = recorded_mapping(connection, tables)
    if mapping is None:
        return []
    own = ledger_tables(tables.metadata.schema)
    made = {definition.name: MappedTable(definition, own) for definition in mapping.tables}
    checked = []
    for definition in mapping.tables:
        parent = made[definition.name].current
        parts = [(definition.name, parent, definition.columns)]
        children = zip(definition.children, made[definition.name].children, strict=True)
        parts += [(child.name, child_table.current, child.columns) for child, child_table in children]
        for name, table, columns in parts:
            for column in columns:
                if column.references is not None:
                    target = made[column.references.table].current
                    checked.append(_check(connection, (name, table, column.name), parent, target, column.references))
    return checked


def _check(
    connection: Connection, source: tuple[str, Table, str], parent: Table, target: Table, reference: Reference
) -> CheckedReference:
    name, table, column = source
    found = target.alias("found")  # a table may refer to itself
    dangling = table.c[column].is_not(None) & ~exists().where(found.c[reference.column] == table.c[column])
    missing = connection.scalar(select(func.count()).select_from(table).where(dangling)) or 0
    owner = parent.alias("owner")
    examples = (
        select(owner.c.external_id)
        .join(table, table.c.kvr_key_id == owner.c.kvr_key_id)
        .where(dangling)
        .order_by(owner.c.external_id)
        .limit(MAX_EXAMPLES)
    )
    ids = [row[0] for row in connection.execute(examples)] if missing else []
    return CheckedReference(name, column, f"{reference.table}.{reference.column}", missing, ids)
