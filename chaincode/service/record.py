"""Records as they stand in the ledger: JSON documents in one form, their keys, and the checks of their texts."""

import json
import re
import unicodedata
from datetime import UTC, datetime
from typing import Any

from chaincode.contract.codec import encode_json
from chaincode.errors import InvalidArgumentError
from chaincode.shim.composite_key import create_composite_key
from chaincode.shim.stub import Stub

Document = dict[str, Any]
SCHEMA = 1
"""Version of the records' form; readers take it and the one before."""
_IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", re.ASCII)
_REFERENCE = re.compile(r"[0-9a-f]{16,64}", re.ASCII)


def customer_key(customer_id: str) -> str:
    """Give the key of a customer's public record."""
    return create_composite_key("customer", [customer_id])


def request_key(request_id: str) -> str:
    """Give the key of a service request."""
    return create_composite_key("request", [request_id])


def profile_key(reference: str) -> str:
    """Give the key of a private profile in its collection."""
    return create_composite_key("profile", [reference])


def open_request_key(request: Document) -> str:
    """Give the key under which an open request waits: by the department in charge, oldest first."""
    return create_composite_key("open_request", [request["queue"], request["opened_at"], request["id"]])


def check_identifier(value: str, name: str) -> str:
    """Give an id; raises InvalidArgumentError for anything but 1 to 64 letters, digits, `_`, `.`, `-` in ASCII."""
    if not _IDENTIFIER.fullmatch(value):
        raise InvalidArgumentError(f"{name!r} has 1 to 64 letters, digits, '_', '.' or '-' and begins with no mark")
    return value


def check_reference(value: str, name: str) -> str:
    """Give a random reference or salt; raises InvalidArgumentError unless it is 16 to 64 hexadecimal digits."""
    if not _REFERENCE.fullmatch(value):
        raise InvalidArgumentError(f"{name!r} has 16 to 64 lower-case hexadecimal digits")
    return value


def check_line(value: str, name: str, longest: int = 200) -> str:
    """Give a line in any script; raises InvalidArgumentError when empty, too long, or with control characters."""
    if not value.strip() or len(value) > longest:
        raise InvalidArgumentError(f"{name!r} has 1 to {longest} characters")
    # Also what changes the direction of text, and halves of characters: what is shown must be what is stored.
    if any(unicodedata.category(character) in _REFUSED for character in value):
        raise InvalidArgumentError(f"{name!r} holds control characters")
    return value


def check_choice(value: str, choices: tuple[str, ...], name: str) -> str:
    """Give one of the choices; raises InvalidArgumentError."""
    if value not in choices:
        raise InvalidArgumentError(f"{name!r} is one of: {', '.join(choices)}")
    return value


def check_range(value: int, smallest: int, largest: int, name: str) -> int:
    """Give an integer between bounds; raises InvalidArgumentError."""
    if not smallest <= value <= largest:
        raise InvalidArgumentError(f"{name!r} is between {smallest} and {largest}")
    return value


def written_time(stub: Stub) -> str:
    """Give the transaction's time in ISO 8601, UTC, always six decimals: texts sort as times do."""
    seconds, nanoseconds = divmod(stub.timestamp, 1_000_000_000)
    try:
        moment = datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise InvalidArgumentError("the transaction's timestamp is out of range") from error
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{nanoseconds // 1000:06}+00:00"


def encode_record(document: Document) -> bytes:
    """Write a record."""
    return encode_json(document)


def decode_record(content: bytes) -> Document:
    """Read a record that this contract wrote."""
    document: Document = json.loads(content)
    return document


_REFUSED = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
