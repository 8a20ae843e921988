"""Patterns of simple keys: literal texts with one attribute between each two, `order-{id}/line-{line}`."""

import re

from kvr_sync.mapping.definition import PatternSelector
from kvr_sync.mapping.limits import MAX_KEY_ATTRIBUTES

_PIECE = re.compile(r"\{\{|\}\}|\{([a-z][a-z0-9_]{0,62})\}|[^{}]+")


def parse_pattern(text: str) -> PatternSelector | str:
    """Read a pattern; a text is what is wrong with it and what is allowed.

    Braces of literals are doubled. Two attributes need a literal between them, or nobody could tell where one ends.
    """
    literals = [""]
    attributes: list[str] = []
    position = 0
    while position < len(text):
        piece = _PIECE.match(text, position)
        if piece is None:
            return "not a pattern; allowed are texts and {attribute}, braces of a text doubled"
        if piece[1] is None:
            literals[-1] += {"{{": "{", "}}": "}"}.get(piece[0], piece[0])
        elif piece[1] in attributes:
            return f"attribute {piece[1]!r} stands twice in the pattern"
        elif attributes and not literals[-1]:
            return f"a text between {attributes[-1]!r} and {piece[1]!r} is needed"
        else:
            attributes.append(piece[1])
            literals.append("")
        position = piece.end()
    if not attributes or len(attributes) > MAX_KEY_ATTRIBUTES:
        return f"1 to {MAX_KEY_ATTRIBUTES} attributes in a pattern are allowed"
    if literals[0].startswith("\x00"):
        return "a simple key does not begin with U+0000"
    return PatternSelector(tuple(literals), tuple(attributes))


def match_pattern(literals: tuple[str, ...], key: str) -> tuple[str, ...] | None:
    """Give the attributes of a key that a pattern selects, None where it does not; in linear time.

    An attribute is not empty. It ends where the literal after it is found first, the last one where the last literal
    begins at the end of the key: `{id}` takes a whole key.
    """
    first, last = literals[0], literals[-1]
    end = len(key) - len(last)
    position = len(first)
    if end <= position or not key.startswith(first) or not key.endswith(last):
        return None
    attributes = []
    for literal in literals[1:-1]:
        found = key.find(literal, position + 1, end)
        if found < 0:
            return None
        attributes.append(key[position:found])
        position = found + len(literal)
    if position >= end:
        return None
    attributes.append(key[position:end])
    return tuple(attributes)
