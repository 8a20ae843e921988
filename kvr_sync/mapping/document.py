r"""Strict JSON (RFC 8259, with RFC 7493's demand of unique names): bytes to exact values, in bounded time and memory.

Values: dict, list, str, bool, None, int, and Decimal for every number with fraction or exponent, and for integers with
more digits than Python converts in linear time. No float, no NaN, no infinity, no lone surrogate, no duplicate name.

Most documents take the fast path: cheap counts show that depth, escapes and long integers cannot do harm, and that no
name stands twice. Everything else, and everything that fails, is read with all checks, so that the outcome does not
depend on the path.
"""

import json
import re
from decimal import Decimal, InvalidOperation
from typing import NoReturn, TypeAlias

import msgspec

from kvr_sync.mapping import quarantine
from kvr_sync.mapping.limits import (
    MAX_DIGITS_AFTER_POINT,
    MAX_DIGITS_BEFORE_POINT,
    MAX_DOCUMENT_BYTES,
    MAX_DOCUMENT_DEPTH,
)
from kvr_sync.mapping.quarantine import UnfitValueError

JsonValue: TypeAlias = "dict[str, JsonValue] | list[JsonValue] | str | bool | int | Decimal | None"

_MAX_INT_DIGITS = 600
"""Longer integers become Decimal: below the least limit Python lets a process set on int(text), so none can fail."""

_MAX_FAST_BYTES = 64 * 1024
"""Bounds the fast path's integers too, where a process has lifted Python's own limit on int(text)."""

_WHITESPACE = " \t\n\r"

_TOKEN = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[\[{]|[\]}]', re.DOTALL)
"""Strings as a whole (also a last one that is never closed), and brackets. Possessive: linear on any input."""


def read_document(content: bytes) -> JsonValue:
    """Read one JSON value exactly.

    Raises `UnfitValueError` with one of the reasons too_large, not_utf8, not_json, too_deep, duplicate_name,
    lone_surrogate, out_of_range.
    """
    if len(content) > MAX_DOCUMENT_BYTES:
        raise UnfitValueError(quarantine.TOO_LARGE, f"more than {MAX_DOCUMENT_BYTES} bytes of JSON")
    if (
        len(content) <= _MAX_FAST_BYTES
        and b"\\" not in content
        and content.count(b"{") + content.count(b"[") <= MAX_DOCUMENT_DEPTH
    ):
        try:
            document: JsonValue = _fast_decode(content)
        except (ValueError, InvalidOperation, msgspec.DecodeError):
            return _read_checked(content)
        # Of a name that stands twice one member is left. Without escapes every quote opens or closes a name or a text.
        if _fast_encode(document).count(b'"') == content.count(b'"'):
            return document
    return _read_checked(content)


def write_document(value: JsonValue) -> str:
    """Give compact JSON text: names in their order, characters as themselves, numbers numerically as they were.

    Raises `UnfitValueError` for what PostgreSQL's jsonb cannot hold: U+0000 in a text, numbers beyond its numeric.
    """
    if type(value) is list and _PLAIN_TYPES.issuperset(map(type, value)):
        text = _fast_encode(value).decode()
    else:
        try:
            text = _ENCODER.encode(value)
        except _DecimalInsideError:
            text = "".join(_pieces(value))
    # An escaped backslash followed by "u0000" looks the same, so only a closer look decides.
    if "\\u0000" in text and _holds_nul(value):
        raise UnfitValueError(quarantine.NOT_STORABLE, "JSON without U+0000 expected")
    return text


def is_storable(number: Decimal) -> bool:
    """Whether PostgreSQL's numeric holds the number exactly."""
    exponent = number.as_tuple().exponent
    return (
        isinstance(exponent, int)  # not so for NaN and infinities
        and -exponent <= MAX_DIGITS_AFTER_POINT
        and (number.adjusted() < MAX_DIGITS_BEFORE_POINT if number else exponent < MAX_DIGITS_BEFORE_POINT)
    )


class _DuplicateNameError(ValueError):
    pass


class _DecimalInsideError(TypeError):
    pass


def _refuse_constant(_name: str) -> NoReturn:
    raise ValueError("not a JSON number")


def _unique(pairs: list[tuple[str, JsonValue]]) -> dict[str, JsonValue]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise _DuplicateNameError
    return members


def _integer(digits: str) -> int | Decimal:
    return int(digits) if len(digits) <= _MAX_INT_DIGITS else Decimal(digits)


def _refuse_default(_value: object) -> NoReturn:
    raise _DecimalInsideError


_PLAIN_TYPES = frozenset({str, bool, int, type(None)})
_fast_decode = msgspec.json.Decoder(float_hook=Decimal).decode
_fast_encode = msgspec.json.Encoder(decimal_format="number").encode
_checked_scan = json.JSONDecoder(
    parse_float=Decimal, parse_int=_integer, parse_constant=_refuse_constant, object_pairs_hook=_unique
).raw_decode
_ENCODER = json.JSONEncoder(
    ensure_ascii=False, check_circular=False, allow_nan=False, separators=(",", ":"), default=_refuse_default
)


def _read_checked(content: bytes) -> JsonValue:
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise UnfitValueError(quarantine.NOT_UTF8, "UTF-8 text expected") from None
    _check_depth(text)
    text = text.strip(_WHITESPACE)
    try:
        document, end = _checked_scan(text, 0)
    except _DuplicateNameError:
        raise UnfitValueError(quarantine.DUPLICATE_NAME, "each name once in an object expected") from None
    except InvalidOperation:
        raise UnfitValueError(quarantine.OUT_OF_RANGE, "numbers with smaller exponents expected") from None
    except ValueError:
        raise UnfitValueError(quarantine.NOT_JSON, "JSON expected") from None
    if end != len(text):
        raise UnfitValueError(quarantine.NOT_JSON, "one JSON value and nothing after it expected")
    if "\\u" in text:
        _check_surrogates(document)
    return document  # type: ignore[no-any-return]  # json is typed as Any; the decoder's hooks give JsonValue


def _check_depth(text: str) -> None:
    depth = 0
    for token in _TOKEN.finditer(text):
        character = text[token.start()]
        if character in "[{":
            depth += 1
            if depth > MAX_DOCUMENT_DEPTH:
                raise UnfitValueError(quarantine.TOO_DEEP, f"at most {MAX_DOCUMENT_DEPTH} nested levels expected")
        elif character != '"':
            depth -= 1


def _check_surrogates(value: JsonValue) -> None:
    for text in _texts(value):
        try:
            text.encode()
        except UnicodeEncodeError:
            raise UnfitValueError(quarantine.LONE_SURROGATE, "complete characters expected") from None


def _holds_nul(value: JsonValue) -> bool:
    return any("\x00" in text for text in _texts(value))


def _texts(value: JsonValue) -> list[str]:
    """All names and texts inside a value."""
    texts: list[str] = []
    pending = [value]
    while pending:
        current = pending.pop()
        if isinstance(current, str):
            texts.append(current)
        elif isinstance(current, dict):
            texts.extend(current)
            pending.extend(current.values())
        elif isinstance(current, list):
            pending.extend(current)
    return texts


def _pieces(value: JsonValue) -> list[str]:
    """Compact JSON of a value with decimals inside. Recursion is bounded by the depth that was read."""
    if isinstance(value, Decimal):
        if not is_storable(value):
            raise UnfitValueError(quarantine.OUT_OF_RANGE, "JSON numbers within PostgreSQL's numeric expected")
        return [str(value)]
    pieces: list[str] = []
    if isinstance(value, dict):
        separator = "{"
        for name, member in value.items():
            pieces += (separator, _ENCODER.encode(name), ":", *_pieces(member))
            separator = ","
        pieces.append("}" if value else "{}")
    elif isinstance(value, list):
        separator = "["
        for member in value:
            pieces += (separator, *_pieces(member))
            separator = ","
        pieces.append("]" if value else "[]")
    else:
        pieces.append(_ENCODER.encode(value))
    return pieces
