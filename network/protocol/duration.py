"""Durations as Go writes them, such as "1m30s" or "200ms".

Rules: Go's `time.ParseDuration`.
"""

import re
from fractions import Fraction
from typing import Final

from network.protocol.errors import DecodeError

_PART: Final = re.compile(r"([0-9]*)(?:\.([0-9]*))?(ns|us|µs|μs|ms|s|m|h)")
_NANOSECONDS: Final = {
    "ns": 1,
    "us": 1000,
    "µs": 1000,
    "μs": 1000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_MAX_CHARACTERS: Final = 100
_LARGEST: Final = 2**63 - 1


def decode_duration(text: str) -> int:
    """Give the nanoseconds of a duration; raises DecodeError for a text that is none."""
    sign, rest = (-1, text[1:]) if text.startswith("-") else (1, text.removeprefix("+"))
    if rest == "0":
        return 0
    total, position = Fraction(0), 0
    while position < len(rest) <= _MAX_CHARACTERS:
        part = _PART.match(rest, position)
        if part is None or not (part[1] or part[2]):
            break
        number = Fraction(int(part[1] or "0")) + Fraction(int(part[2] or "0"), 10 ** len(part[2] or ""))
        total += number * _NANOSECONDS[part[3]]
        position = part.end()
    if not rest or position < len(rest) or total > _LARGEST:
        raise DecodeError("duration: not a number with a unit, such as 2s or 200ms")
    return sign * int(total)
