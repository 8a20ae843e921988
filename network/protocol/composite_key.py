"""Composite keys: an object type and attributes in one key of the world state.

Form: U+0000 type U+0000 attribute U+0000 ..., every part closed by U+0000, in UTF-8. No part holds U+0000 or U+10FFFF.
Rules: `fabric-chaincode-go/v2/shim/stub.go` (CreateCompositeKey, validateCompositeKeyAttribute).

The raw bytes are the identity of a key. Splitting is a view of them that may fail; no two keys have the same parts.
"""

from collections.abc import Sequence

from network.protocol.errors import CompositeKeyError

_MIN_RUNE = "\x00"
_MAX_RUNE = "\U0010ffff"
_MAX_RUNE_BYTES = b"\xf4\x8f\xbf\xbf"


def encode_composite_key(object_type: str, attributes: Sequence[str]) -> bytes:
    """Build the key that a chaincode's CreateCompositeKey builds; empty parts are legal there and here.

    Raises `CompositeKeyError` when a part is not Unicode text (a lone surrogate) or holds U+0000 or U+10FFFF.
    """
    parts = (object_type, *attributes)
    for position, part in enumerate(parts):
        if _MIN_RUNE in part or _MAX_RUNE in part:
            raise CompositeKeyError(f"part {position} of a composite key holds U+0000 or U+10FFFF")
    try:
        return b"\x00" + b"".join(part.encode() + b"\x00" for part in parts)
    except UnicodeEncodeError as error:
        raise CompositeKeyError("a part of a composite key is not Unicode text") from error


def split_composite_key(key: bytes) -> tuple[str, tuple[str, ...]] | None:
    """Give object type and attributes, exactly when `encode_composite_key` builds these bytes from them; else None.

    Stricter than the shim's own splitting, which trusts its input: a simple key that merely starts with U+0000, a last
    part that is not closed, invalid UTF-8 and parts with U+10FFFF all give None.
    """
    if len(key) < 2 or key[0] != 0 or key[-1] != 0 or _MAX_RUNE_BYTES in key:
        return None
    try:
        object_type, *attributes = key[1:-1].decode().split(_MIN_RUNE)
    except UnicodeDecodeError:
        return None
    return object_type, tuple(attributes)
