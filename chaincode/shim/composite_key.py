"""Composite keys and the rules of simple ones, byte for byte as Fabric's own shims make them.

A composite key is U+0000, the object type, U+0000, then every attribute followed by U+0000. Source: fabric-chaincode-go
`shim/stub.go`.
"""

from collections.abc import Sequence
from typing import NamedTuple

from chaincode.errors import InvalidKeyError

_SEPARATOR = "\x00"
_LAST = "\U0010ffff"
FIRST_SIMPLE_KEY = "\x01"
"""Where an open range starts, so that it leaves composite keys out."""
ALL_COMPOSITE_KEYS = (_SEPARATOR, _SEPARATOR + _LAST)
"""Start (inclusive) and end (exclusive) of all composite keys."""


class CompositeKey(NamedTuple):
    """A composite key taken apart."""

    object_type: str
    attributes: tuple[str, ...]


def create_composite_key(object_type: str, attributes: Sequence[str]) -> str:
    """Give the key; raises InvalidKeyError when a part is no text or holds U+0000 or U+10FFFF."""
    for number, part in enumerate((object_type, *attributes)):
        _check_part(part, "object type" if number == 0 else f"attribute {number}")
    return _SEPARATOR + "".join(part + _SEPARATOR for part in (object_type, *attributes))


def split_composite_key(key: str) -> CompositeKey:
    """Take a composite key apart; raises InvalidKeyError when it is none."""
    if len(key) < 2 or key[0] != _SEPARATOR or key[-1] != _SEPARATOR:
        raise InvalidKeyError("this is no composite key")
    object_type, *attributes = key[1:-1].split(_SEPARATOR)
    return CompositeKey(object_type, tuple(attributes))


def composite_range(object_type: str, attributes: Sequence[str]) -> tuple[str, str]:
    """Give start (inclusive) and end (exclusive) of all composite keys that begin with these parts."""
    prefix = create_composite_key(object_type, attributes)
    return prefix, prefix + _LAST


def check_key(key: object) -> str:
    """Give the key of a write or read; raises InvalidKeyError when it is empty or not text that UTF-8 can hold."""
    if not isinstance(key, str):
        raise InvalidKeyError(f"a key is text, not {type(key).__name__}")
    if not key:
        raise InvalidKeyError("a key must not be empty")
    _check_text(key, "key")
    return key


def check_simple_range(start: str, end: str) -> tuple[str, str]:
    """Give the bounds to ask for; raises InvalidKeyError when one lies among the composite keys."""
    for bound in (start, end):
        _check_text(bound, "bound of a range")
        if bound.startswith(_SEPARATOR):
            raise InvalidKeyError("a bound of a range of simple keys must not begin with U+0000")
    return start or FIRST_SIMPLE_KEY, end


def _check_part(part: object, what: str) -> None:
    if not isinstance(part, str):
        raise InvalidKeyError(f"{what} of a composite key is text, not {type(part).__name__}")
    _check_text(part, what)
    if _SEPARATOR in part or _LAST in part:
        raise InvalidKeyError(f"{what} of a composite key must hold neither U+0000 nor U+10FFFF")


def _check_text(text: str, what: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidKeyError(f"{what} is not valid UTF-8") from error
