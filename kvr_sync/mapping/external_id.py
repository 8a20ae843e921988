"""The key of a row as a short text that people can read, write and put into an address. Pure.

No two keys of a table have the same. Attributes of a composite key are joined by slashes, a simple key stands as it
is; what is no text, would not print, or could be mistaken is percent-encoded (RFC 3986), in UTF-8. Long ones are cut
and end in a tilde and the SHA-256 of the key; as a tilde is always encoded elsewhere, no other key can end like it.
"""

import re
from collections.abc import Sequence
from hashlib import sha256

from kvr_sync.mapping.limits import MAX_EXTERNAL_ID_BYTES

_SIMPLE_SPECIAL = re.compile(r"[\x00-\x1f\x7f-\x9f%~\u2028\u2029\ud800-\udfff\ufeff]")
_ATTRIBUTE_SPECIAL = re.compile(r"[\x00-\x1f\x7f-\x9f%/~\u2028\u2029\ud800-\udfff\ufeff]")
_TAIL_BYTES = 65


def external_id(key: bytes, attributes: Sequence[str], collection: str = "") -> str:
    """Give the readable id of a key. `attributes`: of a composite key; none: the key is taken as a simple one.

    `collection`: where one table takes keys of several private data collections, the one of this key; "" otherwise.
    """
    if attributes:
        text = "/".join([_readable(attribute) for attribute in attributes])
    else:
        text = _SIMPLE_SPECIAL.sub(_encoded, key.decode("utf-8", "surrogateescape"))
    if collection:
        text = f"{_readable(collection)}/{text}"
    if len(text) * 4 > MAX_EXTERNAL_ID_BYTES and len(text.encode()) > MAX_EXTERNAL_ID_BYTES:
        start = text.encode()[: MAX_EXTERNAL_ID_BYTES - _TAIL_BYTES].decode("utf-8", "ignore")
        digest = sha256(collection.encode() + b"\x00" + key).hexdigest()
        text = f"{start}~{digest}"
    return text


def _readable(part: str) -> str:
    return _ATTRIBUTE_SPECIAL.sub(_encoded, part) if _ATTRIBUTE_SPECIAL.search(part) else part


def _encoded(match: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in match[0].encode("utf-8", "surrogateescape"))
