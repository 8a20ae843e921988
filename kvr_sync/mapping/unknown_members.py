"""Members of a document that no column and no child table reads. Pure.

Objects that are read in part are looked into; what is read whole, and arrays of which anything is read, are known.
"""

from typing import TypeAlias

from kvr_sync.mapping.definition import FromJson, TableMapping
from kvr_sync.mapping.document import JsonValue
from kvr_sync.mapping.json_path import JsonPath

KnownMembers: TypeAlias = "dict[str, KnownMembers | None]"
"""By name; None: known with all that is in it."""


def known_members(table: TableMapping) -> KnownMembers:
    """Give the members that a table reads."""
    paths = [column.source.path for column in table.columns if isinstance(column.source, FromJson)]
    paths += [column.equals_json for column in table.columns if column.equals_json is not None]
    paths += [child.each for child in table.children]
    known: KnownMembers = {}
    for path in paths:
        _add(known, path)
    return known


def _add(known: KnownMembers, path: JsonPath) -> None:
    for step, following in zip(path, (*path[1:], None), strict=True):
        if not isinstance(step, str):
            return
        inner = known.get(step, {})
        if following is None or isinstance(following, int) or inner is None:
            known[step] = None
            return
        known[step] = inner
        known = inner


def unknown_members(document: JsonValue, known: KnownMembers) -> JsonValue:
    """Give the unknown members of a document as a document of its own, in their order; None where there are none.

    A document that is no object has none: whoever reads members of it will say so.
    """
    if not isinstance(document, dict):
        return None
    unknown: dict[str, JsonValue] = {}
    for name, member in document.items():
        if name not in known:
            unknown[name] = member
            continue
        inner = known[name]
        if inner is not None:
            found = unknown_members(member, inner)
            if found is not None:
                unknown[name] = found
    return unknown or None
