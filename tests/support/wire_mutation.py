"""Messages spoilt on purpose: one change somewhere in the tree of a message's fields, or bytes that are none. Pure.

The tree is that of the wire format: whatever reads as fields counts as a message, so layers that one message carries as
bytes in another are reached as well. The same seed and message give the same change.
"""

from collections.abc import Callable
from random import Random
from typing import Final

from network.protocol.errors import DecodeError
from network.protocol.wire import Field, scan_fields, varint

BYTES: Final = 2
MAX_DEPTH: Final = 12
_LONG: Final = 5_000

Change = Callable[[Random, list[Field]], bytes]


def mutated(chance: Random, content: bytes) -> bytes:
    """Give a message with one change, at any depth."""
    return _mutated(chance, content, MAX_DEPTH)


def _mutated(chance: Random, content: bytes, depth: int) -> bytes:
    try:
        fields = list(scan_fields(content))
    except DecodeError:
        fields = []
    if not fields:
        return _spoilt(chance, content)
    inner = [number for number, field in enumerate(fields) if field.wire_type == BYTES and field.content]
    if inner and depth and chance.random() < 0.75:
        number = chance.choice(inner)
        below = _mutated(chance, fields[number].content, depth - 1)
        return b"".join(
            [encoded(*fields[:number]), length_delimited(fields[number].number, below), encoded(*fields[number + 1 :])]
        )
    return chance.choice(_CHANGES)(chance, fields)


def encoded(*fields: Field) -> bytes:
    """Write fields as they were."""
    return b"".join([varint(field.number << 3 | field.wire_type) + field.raw for field in fields])


def length_delimited(number: int, content: bytes) -> bytes:
    """Write a field of bytes."""
    return varint(number << 3 | BYTES) + varint(len(content)) + content


def _spoilt(chance: Random, content: bytes) -> bytes:
    """Change bytes that are no message: text, a number, a signature."""
    kind = chance.randrange(6)
    if kind == 0 or not content:
        return chance.randbytes(chance.choice((1, 2, 24, 64)))
    if kind == 1:
        return b""
    if kind == 2:
        return content[: chance.randrange(len(content))]
    if kind == 3:
        return content + chance.randbytes(3)
    if kind == 4:
        return chance.choice(_TEXTS)
    place = chance.randrange(len(content))
    return content[:place] + bytes([content[place] ^ 1 << chance.randrange(8)]) + content[place + 1 :]


_TEXTS: Final = (
    b"\xff\xfe",
    b"\x00",
    "\U0010ffff".encode(),
    b"../../etc",
    b"a" * _LONG,
    b"'; DROP TABLE state; --",
    b"%s%n{0}{{x}}",
    "\u202e\u0000\ud7ff".encode(),
    b"\xed\xa0\x80",
)


def _without(chance: Random, fields: list[Field]) -> bytes:
    number = chance.randrange(len(fields))
    return encoded(*fields[:number], *fields[number + 1 :])


def _twice(chance: Random, fields: list[Field]) -> bytes:
    return encoded(*fields, chance.choice(fields))


def _shuffled(chance: Random, fields: list[Field]) -> bytes:
    return encoded(*chance.sample(fields, len(fields)))


def _renumbered(chance: Random, fields: list[Field]) -> bytes:
    number = chance.randrange(len(fields))
    other = fields[number]._replace(number=chance.choice((1, 2, 3, 4, 5, 7, 15, 99, 2**29 - 1)))
    return encoded(*fields[:number], other, *fields[number + 1 :])


def _retyped(chance: Random, fields: list[Field]) -> bytes:
    number = chance.randrange(len(fields))
    kind = chance.choice((0, 1, 2, 3, 4, 5, 6, 7))
    return b"".join(
        [
            encoded(*fields[:number]),
            varint(fields[number].number << 3 | kind) + fields[number].raw,
            encoded(*fields[number + 1 :]),
        ]
    )


def _spoilt_field(chance: Random, fields: list[Field]) -> bytes:
    number = chance.randrange(len(fields))
    field = fields[number]
    if field.wire_type == BYTES:
        changed = length_delimited(field.number, _spoilt(chance, field.content))
    else:
        value = chance.choice((0, 1, 2**31 - 1, 2**31, 2**63 - 1, 2**63, 2**64 - 1))
        changed = varint(field.number << 3) + varint(value)
    return b"".join([encoded(*fields[:number]), changed, encoded(*fields[number + 1 :])])


def _lying_length(chance: Random, fields: list[Field]) -> bytes:
    field = chance.choice(fields)
    length = chance.choice((len(field.content) + 1, 2**31 - 1, 2**32, 2**63))
    return encoded(*fields) + varint(field.number << 3 | BYTES) + varint(length) + field.content


def _cut(chance: Random, fields: list[Field]) -> bytes:
    content = encoded(*fields)
    return content[: chance.randrange(len(content))]


def _nested(chance: Random, fields: list[Field]) -> bytes:
    """Put a message into itself, deeper than any reader should follow."""
    content = encoded(*fields)[:200]
    number = chance.choice(fields).number
    for _ in range(chance.choice((5, 70, 150))):
        content = length_delimited(number, content)
    return encoded(*fields) + content


def _grouped(chance: Random, fields: list[Field]) -> bytes:
    """Add groups of proto2, which readers have to skip."""
    depth = chance.choice((1, 200, 12_000))
    number = chance.choice((99, fields[0].number))
    return encoded(*fields) + varint(number << 3 | 3) * depth + varint(number << 3 | 4) * depth


_CHANGES: Final[tuple[Change, ...]] = (
    _without,
    _without,
    _twice,
    _shuffled,
    _renumbered,
    _retyped,
    _spoilt_field,
    _spoilt_field,
    _spoilt_field,
    _lying_length,
    _cut,
    _nested,
    _grouped,
)
