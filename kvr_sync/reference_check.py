"""References of a mapping, looked up: rows whose counterpart is not there. A question, never a rule for the engine."""

from typing import NamedTuple

from sqlalchemy import Connection, MetaData, Table, exists, func, select

from kvr_sync.mapping.definition import ChildMapping, Reference, TableMapping
from kvr_sync.store.mapped_table import MappedTable
from kvr_sync.store.schema import LedgerTables
from kvr_sync.store.status import recorded_mapping

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


def check_references(connection: Connection, tables: LedgerTables, *, place: str) -> list[CheckedReference]:
    """Check every reference of the mapping in force, in its order; `place` names the database in errors."""
    mapping = recorded_mapping(connection, tables, place)
    metadata = MetaData(schema=tables.metadata.schema)
    made = {definition.name: MappedTable(definition, metadata) for definition in mapping.tables}
    checked = []
    for definition in mapping.tables:
        parent = made[definition.name]
        parts: tuple[TableMapping | ChildMapping, ...] = (definition, *definition.children)
        currents = [parent.current, *(child.current for child in parent.children)]
        for part, table in zip(parts, currents, strict=True):
            for column in part.columns:
                if column.references is not None:
                    target = made[column.references.table].current
                    source = (part.name, table, column.name)
                    checked.append(_check(connection, source, parent.current, target, column.references))
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
