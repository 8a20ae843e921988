"""Paths into a JSON document: `a.b.c`, `items[0].name`, `"odd name".x`."""

import re
from typing import TypeAlias

from kvr_sync.mapping import quarantine
from kvr_sync.mapping.document import JsonValue, read_document
from kvr_sync.mapping.limits import MAX_PATH_STEPS
from kvr_sync.mapping.quarantine import UnfitValueError

JsonPath: TypeAlias = tuple[str | int, ...]
"""Member names and array indexes (from 0); the first step is a name, since a mapped document is an object."""

_NAME = re.compile(r'[^\s."\[\]]+|"[^"\\]*+(?:\\.[^"\\]*+)*+"')
_INDEX = re.compile(r"\[(0|[1-9][0-9]{0,6})\]")
_BARE = re.compile(r'[^\s."\[\]]+')


def parse_json_path(text: str) -> JsonPath | None:
    """Read a path; None when the text is not one.

    A name with white space, a dot, a bracket or a quote stands in quotes, written as a JSON string.
    """
    steps: list[str | int] = []
    position = 0
    while position < len(text):
        index = _INDEX.match(text, position) if steps else None
        if index:
            steps.append(int(index[1]))
            position = index.end()
        else:
            if steps and text[position] != ".":
                return None
            name = _NAME.match(text, position + 1 if steps else 0)
            if not name:
                return None
            step = _unquote(name[0])
            if step is None:
                return None
            steps.append(step)
            position = name.end()
    return tuple(steps) if 0 < len(steps) <= MAX_PATH_STEPS else None


def format_json_path(path: JsonPath) -> str:
    """Write a path in its one canonical form; `parse_json_path` gives the same path back."""
    pieces = []
    for step in path:
        if isinstance(step, int):
            pieces.append(f"[{step}]")
        else:
            pieces.append(("." if pieces else "") + (step if _BARE.fullmatch(step) else _quote(step)))
    return "".join(pieces)


def select(document: JsonValue, path: JsonPath) -> JsonValue:
    """Give what stands at the path; None where a member, an element or anything above it is missing or null.

    Raises `UnfitValueError` (wrong_type) where the path goes through a value that is not of the kind it needs.
    """
    value = document
    for step in path:
        if value is None:
            return None
        if isinstance(step, str):
            if not isinstance(value, dict):
                raise UnfitValueError(quarantine.WRONG_TYPE, "an object expected on the way to the value")
            value = value.get(step)
        else:
            if not isinstance(value, list):
                raise UnfitValueError(quarantine.WRONG_TYPE, "an array expected on the way to the value")
            value = value[step] if step < len(value) else None
    return value


def select_object(document: JsonValue, path: JsonPath) -> dict[str, JsonValue] | None:
    """Give the object at the path (the document itself for the empty one); None where it is missing or null.

    Raises `UnfitValueError`: not_an_object when the document is none, else wrong_type.
    """
    if type(document) is not dict:
        raise UnfitValueError(quarantine.NOT_AN_OBJECT, "a JSON object expected")
    if not path:
        return document
    value = select(document, path)
    if value is not None and not isinstance(value, dict):
        raise UnfitValueError(quarantine.WRONG_TYPE, "an object expected on the way to the value")
    return value


def _unquote(name: str) -> str | None:
    if not name.startswith('"'):
        return name
    try:
        value = read_document(name.encode())
    except (UnfitValueError, UnicodeEncodeError):
        return None
    return value if isinstance(value, str) else None


def _quote(name: str) -> str:
    escaped = name.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(character if character >= " " else f"\\u{ord(character):04x}" for character in escaped) + '"'
