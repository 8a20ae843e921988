"""Intervals of time as operators write them: a number and a unit."""

import re

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def seconds_of(text: str) -> float:
    """Read `500ms`, `10s`, `5m` or `1h`; gives 0 for anything else, and for nothing."""
    match = re.fullmatch(r"(\d{1,6})(ms|s|m|h)", text, re.ASCII)
    return int(match[1]) * _UNITS[match[2]] if match else 0.0
