"""Arguments from bytes by their declared types, and results to bytes: one form on every peer.

Types of arguments: str (UTF-8), int (decimal, 64 bits), bool (`true`, `false`), bytes as they are, and frozen
dataclasses (a JSON object with exactly their fields: str, int, bool, tuples of them, or None where declared).
"""

import dataclasses
import json
import re
import types
from collections.abc import Mapping
from functools import cache
from typing import Any, Union, get_args, get_origin, get_type_hints

from chaincode.errors import InvalidArgumentError, LimitExceededError

MAX_ARGUMENT_BYTES = 64 * 1024
"""Largest single argument of a contract."""
_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,18}", re.ASCII)
_INT64 = range(-(2**63), 2**63)
_SCALARS = (str, int, bool)


def is_supported(kind: object) -> bool:
    """Tell whether arguments of this type can be decoded."""
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return all(_is_supported_field(hint) for hint in get_type_hints(kind).values())
    return kind in (*_SCALARS, bytes)


def decode_argument(content: bytes, kind: Any, name: str) -> Any:  # noqa: ANN401  # of the type asked for
    """Give the value; raises InvalidArgumentError or LimitExceededError that names the argument and never its value."""
    if len(content) > MAX_ARGUMENT_BYTES:
        raise LimitExceededError(f"argument {name!r} is larger than {MAX_ARGUMENT_BYTES} bytes")
    if kind is bytes:
        return content
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise InvalidArgumentError(f"argument {name!r} is not valid UTF-8") from error
    if kind is str:
        return text
    if kind is int:
        if _INTEGER.fullmatch(text) and int(text) in _INT64:
            return int(text)
        raise InvalidArgumentError(f"argument {name!r} is no integer of 64 bits")
    if kind is bool:
        if text in ("true", "false"):
            return text == "true"
        raise InvalidArgumentError(f"argument {name!r} is neither true nor false")
    return decode_document(text, kind, name)


def decode_document(text: str | bytes, kind: Any, name: str) -> Any:  # noqa: ANN401  # of the type asked for
    """Give a dataclass from a JSON object with exactly its fields; raises InvalidArgumentError that names the field."""
    try:
        content = json.loads(text, object_pairs_hook=_unique, parse_float=_refuse, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise InvalidArgumentError(
            f"{name!r} is no JSON of objects, lists, texts and integers, each name once"
        ) from error
    if not isinstance(content, dict):
        raise InvalidArgumentError(f"{name!r} is no JSON object")
    fields = {field.name: field for field in dataclasses.fields(kind)}
    unknown = sorted(content.keys() - fields.keys())
    if unknown:  # their names are the sender's: they are counted and not repeated
        raise InvalidArgumentError(
            f"{name!r} has {len(unknown)} unknown fields; known are: {', '.join(sorted(fields))}"
        )
    hints = _hints(kind)
    values = {}
    for field in fields.values():
        if field.name in content:
            values[field.name] = _decode_field(content[field.name], hints[field.name], f"{name}.{field.name}")
        elif field.default is dataclasses.MISSING:
            raise InvalidArgumentError(f"{name!r} lacks the field {field.name!r}")
    return kind(**values)


@cache  # one entry for each dataclass that a contract declares
def _hints(kind: Any) -> Mapping[str, Any]:  # noqa: ANN401  # a class
    return get_type_hints(kind)


def encode_result(result: object) -> bytes:
    """Give bytes as they are, None as nothing, anything else as JSON; raises TypeError or ValueError."""
    if result is None:
        return b""
    return result if isinstance(result, bytes) else encode_json(result)


def encode_json(value: object) -> bytes:
    """Write JSON in the one form that all peers agree on: UTF-8, names sorted, no spaces. Floats are refused."""
    _refuse_floats(value)
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def describe_type(kind: Any) -> dict[str, Any]:  # noqa: ANN401  # any supported type
    """Give the JSON schema of an argument."""
    if dataclasses.is_dataclass(kind):
        hints = get_type_hints(kind)
        fields = dataclasses.fields(kind)
        return {
            "type": "object",
            "properties": {field.name: _describe_field(hints[field.name]) for field in fields},
            "required": [field.name for field in fields if field.default is dataclasses.MISSING],
            "additionalProperties": False,
        }
    return _describe_field(kind)


def _describe_field(kind: Any) -> dict[str, Any]:  # noqa: ANN401
    if get_origin(kind) in (Union, types.UnionType):
        return _describe_field(next(member for member in get_args(kind) if member is not types.NoneType))
    if get_origin(kind) is tuple:
        return {"type": "array", "items": _describe_field(get_args(kind)[0])}
    names = {str: "string", int: "integer", bool: "boolean", bytes: "string"}
    return {"type": names[kind]}


def _is_supported_field(kind: object) -> bool:
    if get_origin(kind) in (Union, types.UnionType):
        members = [member for member in get_args(kind) if member is not types.NoneType]
        return len(members) == 1 and _is_supported_field(members[0])
    if get_origin(kind) is tuple:
        return get_args(kind)[1:] == (Ellipsis,) and get_args(kind)[0] in _SCALARS
    return kind in _SCALARS


def _decode_field(value: object, kind: Any, name: str) -> object:  # noqa: ANN401
    if get_origin(kind) in (Union, types.UnionType):
        if value is None:
            return None
        kind = next(member for member in get_args(kind) if member is not types.NoneType)
    if get_origin(kind) is tuple:
        if not isinstance(value, list):
            raise InvalidArgumentError(f"{name!r} is no list")
        return tuple(_decode_field(item, get_args(kind)[0], name) for item in value)
    if type(value) is not kind:  # a bool is an int to isinstance
        raise InvalidArgumentError(f"{name!r} is no {kind.__name__}")
    if isinstance(value, int) and value not in _INT64:
        raise InvalidArgumentError(f"{name!r} is no integer of 64 bits")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        raise ValueError("a name stands twice")
    return content


def _refuse(_: str) -> None:
    raise ValueError("a number that is no integer")


def _refuse_floats(value: object) -> None:
    if isinstance(value, float):
        raise TypeError("floats are written differently here and there")
    if isinstance(value, dict):
        for member in value.values():
            _refuse_floats(member)
    elif isinstance(value, (list, tuple)):
        for member in value:
            _refuse_floats(member)
