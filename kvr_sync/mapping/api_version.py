"""Tables of several mappings beside each other: each has a version of the API, by which its tables are called. Pure.

Those of the first are called as their mapping calls them. Those of a later one are called `v2.request`: table
`request` of the schema `<schema>_v2` in PostgreSQL, `v2_request` in SQLite, which has no schemas.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from kvr_sync.mapping.definition import ChildMapping, ColumnMapping, Mapping, TableMapping

FIRST_API = 1

_QUALIFIED = re.compile(r"v([1-9][0-9]{0,8})\.(.+)")


def qualified_name(api_version: int, name: str) -> str:
    """Give what a table of a version of the API is called beside those of others."""
    return name if api_version == FIRST_API else f"v{api_version}.{name}"


def split_name(name: str) -> tuple[int, str]:
    """Give the version of the API that a table is of, and its name there."""
    match = _QUALIFIED.fullmatch(name)
    return (FIRST_API, name) if match is None else (int(match[1]), match[2])


def qualify(mapping: Mapping, api_version: int) -> Mapping:
    """Call the tables of a mapping, and what refers to them, as those of a version of the API."""
    if api_version == FIRST_API:
        return mapping
    return replace(mapping, tables=tuple(_table(table, api_version) for table in mapping.tables))


def combine(mappings: Sequence[Mapping]) -> Mapping:
    """Give one mapping with the tables of all; a key feeds those of each."""
    if len(mappings) == 1:
        return mappings[0]
    return replace(mappings[0], tables=tuple(table for mapping in mappings for table in mapping.tables))


def find_name(name: str, known: Iterable[str]) -> str | None:
    """Give the table that somebody means: the one called so, else the one of the oldest version that has it; or None.

    So who asks for `request` goes on reading the same rows while there is a newer version beside it.
    """
    names = list(known)
    asked = name.removeprefix(f"v{FIRST_API}.")
    if asked in names:
        return asked
    return min((one for one in names if split_name(one)[1] == name), key=split_name, default=None)


def _table(table: TableMapping, api_version: int) -> TableMapping:
    children = tuple(_child(child, api_version) for child in table.children)
    name = qualified_name(api_version, table.name)
    return replace(table, name=name, columns=_columns(table.columns, api_version), children=children)


def _child(child: ChildMapping, api_version: int) -> ChildMapping:
    return replace(child, name=qualified_name(api_version, child.name), columns=_columns(child.columns, api_version))


def _columns(columns: tuple[ColumnMapping, ...], api_version: int) -> tuple[ColumnMapping, ...]:
    return tuple(_column(column, api_version) for column in columns)


def _column(column: ColumnMapping, api_version: int) -> ColumnMapping:
    reference = column.references
    if reference is None:
        return column
    return replace(column, references=replace(reference, table=qualified_name(api_version, reference.table)))
