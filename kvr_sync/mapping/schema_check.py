"""What `mapping.schema.json` finds wrong, said for people: place, mistake, and what is allowed instead."""

import difflib
import json
from collections.abc import Iterable, Iterator
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any, NamedTuple

from kvr_sync.mapping.yaml_text import Path, Plain

if TYPE_CHECKING:
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import ValidationError

_KINDS = {
    "object": "a mapping of names to options",
    "array": "a list",
    "string": "text (in quotes where it looks like something else)",
    "integer": "an integer",
    "boolean": "true or false",
}
_BOUNDS = {
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minimum": "{} or more",
    "maximum": "{} or less",
    "minProperties": "at least {} entry",
    "maxProperties": "at most {} entries",
    "minItems": "at least {} entry",
    "maxItems": "at most {} entries",
}


class MappingMistake(NamedTuple):
    """What is wrong at a place in a mapping, and what is allowed there."""

    path: Path
    text: str


def schema_mistakes(value: Plain) -> tuple[list[MappingMistake], frozenset[Path]]:
    """Check a value against the schema: mistakes, and the paths of the values that do not fit it."""
    mistakes: list[MappingMistake] = []
    broken: set[Path] = set()
    for error in _validator().iter_errors(value):
        path: Path = tuple(error.absolute_path)
        broken.add(path)
        mistakes += _told(path, error)
    return list(dict.fromkeys(mistakes)), frozenset(broken)


def place(path: Path) -> str:
    """Name a place of a mapping in words, for the beginning of a sentence."""
    match path:
        case ("tables", table, "children", child, "columns", column, *rest):
            words = f"table {table!r}, child {child!r}, column {column!r}"
        case ("tables", table, "children", child, *rest):
            words = f"table {table!r}, child {child!r}"
        case ("tables", table, "columns", column, *rest):
            words = f"table {table!r}, column {column!r}"
        case ("tables", table, *rest):
            words = f"table {table!r}"
        case _:
            rest = list(path)
            words = "" if rest else "the mapping"
    option = "".join(f"[{step}]" if isinstance(step, int) else f" {step}" for step in rest).strip()
    return ", ".join(part for part in (words, option and f"option {option!r}") if part)


def suggestion(word: str, allowed: Iterable[str]) -> str:
    """Give "; did you mean ...?" when a word is close to an allowed one, else ""."""
    close = difflib.get_close_matches(word[:100], list(allowed), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


@cache
def _validator() -> "Draft202012Validator":
    from jsonschema import Draft202012Validator  # noqa: PLC0415  a start that reads no mapping file does without

    text = resources.files("kvr_sync.mapping").joinpath("mapping.schema.json").read_text(encoding="utf-8")
    return Draft202012Validator(json.loads(text))


def _told(path: Path, error: "ValidationError") -> Iterator[MappingMistake]:
    rule = str(error.validator)
    found: Any = error.instance
    limit: Any = error.validator_value
    where = place(path)
    if rule == "additionalProperties":
        allowed = sorted(error.schema["properties"]) if isinstance(error.schema, dict) else []
        for option in found:
            if option not in allowed:
                text = (
                    f"{where}: unknown option {option!r}{suggestion(option, allowed)}; allowed are {', '.join(allowed)}"
                )
                yield MappingMistake((*path, option), text)
    elif rule == "required":
        for option in limit:
            if option not in found:
                yield MappingMistake(path, f"{where}: option {option!r} is missing")
    elif rule == "enum":
        close = suggestion(found, limit) if isinstance(found, str) else ""
        yield MappingMistake(path, f"{where}: not allowed{close}; allowed are {', '.join(limit)}")
    elif rule == "type":
        yield MappingMistake(path, f"{where} must be {_KINDS.get(limit, limit)}")
    elif rule in _BOUNDS:
        yield MappingMistake(path, f"{where}: {_BOUNDS[rule].format(limit)} allowed")
    elif rule == "uniqueItems":
        yield MappingMistake(path, f"{where}: each name once is allowed")
    else:
        yield MappingMistake(
            path, f"{where}: a small letter a-z, then small letters, digits and underscores are allowed"
        )
