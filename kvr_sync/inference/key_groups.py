"""Keys sorted into groups that look alike: by object type and number of attributes, or by their shape. Pure.

A simple key is cut into words, numbers and what stands between. `asset17` and `asset18` have one shape, `order-1/l-2`
another. In each shape a part is fixed where it is the same in nearly all keys, and an attribute where it differs.
"""

import re
from collections.abc import Iterator

from kvr_sync.inference.limits import MAX_DISTINCT, MAX_SHAPES, MIN_LITERAL_SHARE
from kvr_sync.mapping.definition import CompositeSelector, KeySelector, PatternSelector, PrefixSelector
from network.protocol.composite_key import split_composite_key

_PIECE = re.compile(r"[A-Za-z]+|[0-9]+|[^A-Za-z0-9]+")
_UUID = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")
_HEX = re.compile(r"(?<![0-9A-Za-z])(?=[a-fA-F]*[0-9])[0-9a-fA-F]{12,}(?![0-9A-Za-z])")
_BASE64 = re.compile(
    r"(?<![0-9A-Za-z+/])(?=[A-Za-z+/]*[0-9])(?=[0-9a-z+/]*[A-Z])(?=[0-9A-Z+/]*[a-z])[0-9A-Za-z+/]{24,}={0,2}(?![0-9A-Za-z+/=])"
)
"""As client ids of Fabric's contract APIs are."""
_IDENTIFIERS = (_UUID, _HEX, _BASE64)

Shape = tuple[str, ...]
"""Pieces of a key: a word or number as `w` or `n`, an identifier in hexadecimal or base64 as `x`, all else as it is."""

OTHER: Shape = ("other",)
"""Keys that are not text, and those beyond the number of shapes kept apart."""


class _Part:
    """What stands at one place of a shape."""

    def __init__(self) -> None:
        self.values: dict[str, int] = {}
        self.is_open = False
        """More values than are remembered."""

    def add(self, value: str) -> None:
        if value in self.values:
            self.values[value] += 1
        elif len(self.values) < MAX_DISTINCT:
            self.values[value] = 1
        else:
            self.is_open = True


class KeyShapes:
    """The keys of one namespace, as they come."""

    def __init__(self) -> None:
        self.composites: dict[tuple[str, int], None] = {}
        self._shapes: dict[Shape, list[_Part]] = {}
        self._counts: dict[Shape, int] = {}

    def add(self, key: bytes) -> None:
        """Take one more key."""
        parts = split_composite_key(key)
        if parts is not None:
            self.composites[parts[0], len(parts[1])] = None
            return
        pieces = cut(key)
        shape = shape_of(pieces)
        if pieces is None or (shape not in self._shapes and len(self._shapes) >= MAX_SHAPES):
            self._counts[OTHER] = self._counts.get(OTHER, 0) + 1
            return
        known = self._shapes.setdefault(shape, [_Part() for _ in shape])
        self._counts[shape] = self._counts.get(shape, 0) + 1
        for part, piece in zip(known, pieces, strict=True):
            part.add(piece)

    def selectors(self) -> list[KeySelector]:
        """Give selectors that together take every key: exact ones first, a selector of everything last if needed."""
        found: dict[KeySelector, None] = {}
        for object_type, count in self.composites:
            found[CompositeSelector(object_type, tuple(f"key_{n + 1}" for n in range(count)))] = None
        simple: dict[KeySelector, None] = {}
        for shape, parts in self._shapes.items():
            for selector in _shape_selectors(shape, parts, self._counts[shape]):
                simple[selector] = None
        if self._counts.get(OTHER):
            simple[PrefixSelector("")] = None
        return [*found, *_merged(list(simple))]


def cut(key: bytes) -> list[str] | None:
    """Cut a simple key into its pieces; None: it is no text, or empty."""
    try:
        text = key.decode()
    except UnicodeDecodeError:
        return None
    if not text or text[0] == "\x00":
        return None
    pieces: list[str] = []
    position = 0
    for match in _identifiers(text):
        pieces += _PIECE.findall(text[position : match.start()])
        pieces.append(match[0])
        position = match.end()
    pieces += _PIECE.findall(text[position:])
    return pieces


def _identifiers(text: str) -> Iterator[re.Match[str]]:
    yield from next((found for pattern in _IDENTIFIERS if (found := [*pattern.finditer(text)])), [])


def shape_of(pieces: list[str] | None) -> Shape:
    """Give the shape of a key."""
    if pieces is None:
        return OTHER
    return tuple(
        "x"
        if any(pattern.fullmatch(piece) for pattern in _IDENTIFIERS)
        else "w"
        if piece.isalpha() and piece.isascii()
        else "n"
        if piece.isdigit() and piece.isascii()
        else piece
        for piece in pieces
    )


def _shape_selectors(shape: Shape, parts: list[_Part], count: int) -> Iterator[KeySelector]:
    """Give a selector for each fixed first word of a shape, or one for all of it."""
    first = parts[0]
    words = sorted(first.values)
    is_fixed = shape[0] == "w" and not first.is_open and (len(shape) > 1 or len(words) == 1)
    if is_fixed and len(words) > 1:
        is_fixed = count >= MIN_LITERAL_SHARE * len(words)
    if is_fixed:
        for word in words:
            yield _selector(shape, parts, word)
    else:
        yield _selector(shape, parts, None)


def _selector(shape: Shape, parts: list[_Part], first_word: str | None) -> KeySelector:
    literals = [""]
    attributes = 0
    is_variable = False
    for place, (kind, part) in enumerate(zip(shape, parts, strict=True)):
        fixed = None
        if kind not in ("w", "n", "x"):
            fixed = kind
        elif place == 0 and first_word is not None:
            fixed = first_word
        elif kind == "w" and place > 0 and len(part.values) == 1 and not part.is_open:
            fixed = next(iter(part.values))
        if fixed is not None:
            literals[-1] += fixed
            is_variable = False
        elif not is_variable:
            attributes += 1
            literals.append("")
            is_variable = True
    if attributes == 0:
        return PrefixSelector(literals[0])
    if not literals[0] and attributes == 1 and not literals[1]:
        return PrefixSelector("")
    return PatternSelector(tuple(literals), tuple(f"key_{n + 1}" for n in range(attributes)))


def _merged(selectors: list[KeySelector]) -> list[KeySelector]:
    """Leave out what another selector takes as well: a pattern without a fixed beginning is as good as everything."""
    if PrefixSelector("") not in selectors:
        loose = [s for s in selectors if isinstance(s, PatternSelector) and not s.literals[0]]
        if not loose:
            return selectors
        if len(loose) == 1 and len(selectors) == 1:
            return selectors
    kept = [s for s in selectors if not (isinstance(s, PatternSelector) and not s.literals[0])]
    kept = [s for s in kept if s != PrefixSelector("")]
    return [*kept, PrefixSelector("")]
