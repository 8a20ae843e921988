"""What the values of one group of keys look like: members of documents, their types, arrays. Pure.

Types are those that the values seen fit, but for a stray one here and there, which quarantine is for. Nothing is ever
taken for required, and no text for an enumeration: the next value decides that, and a proposal should not send it to
quarantine.
"""

from collections.abc import Iterator, Mapping
from decimal import Decimal

from kvr_sync.inference.limits import (
    MAX_DISTINCT,
    MAX_ELEMENTS_READ,
    MAX_MEMBERS,
    MAX_MISFITS_KEPT,
    MAX_NESTING,
    MAX_STRANGE_SHARE,
    MAX_STRAY_SHARE,
)
from kvr_sync.mapping.conversion import Converter, json_converter, text_converter
from kvr_sync.mapping.definition import ColumnMapping, ColumnType, FromElement, FromValue
from kvr_sync.mapping.document import JsonValue, read_document
from kvr_sync.mapping.quarantine import UnfitValueError

_NARROW = (
    ColumnType.BOOLEAN,
    ColumnType.INTEGER,
    ColumnType.DECIMAL,
    ColumnType.DATE,
    ColumnType.TIMESTAMP,
    ColumnType.UUID,
    ColumnType.TEXT,
)
"""From the narrowest to the widest: the first that takes every value is chosen."""

_OF_JSON = {kind: json_converter(ColumnMapping("c", FromElement(), kind)) for kind in _NARROW}
_OF_TEXT = {kind: text_converter(ColumnMapping("c", FromValue(), kind)) for kind in _NARROW}


class Scalar:
    """The values at one place that are neither object nor array; null counts as absent."""

    def __init__(self) -> None:
        self.count = 0
        self.misfits = dict.fromkeys(_NARROW, 0)
        """How many values a type does not take; types that too many do not fit are no longer looked at."""
        self.values: set[str] | None = set()
        """As texts; None: too many to remember."""

    def add(self, value: str | int | Decimal) -> None:
        """Take a value of a document (a bool is an int)."""
        self._add(value, _OF_JSON)
        self.remember(str(value))

    def add_text(self, text: str) -> None:
        """Take a text that is a whole value, or a part of a key."""
        self._add(text, _OF_TEXT)
        self.remember(text)

    def _add(self, value: object, converters: Mapping[ColumnType, Converter]) -> None:
        self.count += 1
        for kind in list(self.misfits):
            if not _fits(converters[kind], value):
                self.misfits[kind] += 1
                if self.misfits[kind] > MAX_MISFITS_KEPT and self.misfits[kind] > self.count * MAX_STRANGE_SHARE:
                    del self.misfits[kind]

    def remember(self, text: str) -> None:
        """Keep the value for comparisons."""
        if self.values is not None:
            self.values.add(text)
            if len(self.values) > MAX_DISTINCT:
                self.values = None

    @property
    def type(self) -> ColumnType | None:
        """The narrowest type that takes all values but a stray one here and there; None: nothing does."""
        allowed = self.count * MAX_STRAY_SHARE
        return next((kind for kind, misfits in self.misfits.items() if misfits <= allowed), None)


def _fits(convert: Converter, value: object) -> bool:
    try:
        convert(value)
    except UnfitValueError:
        return False
    return True


class Place:
    """What stands at one place of documents: scalars, objects or arrays, by what was seen."""

    def __init__(self, depth: int = 0) -> None:
        self.depth = depth
        self.scalar = Scalar()
        self.objects = 0
        self.arrays = 0
        self.members: dict[str, Place] = {}
        self.element: Place | None = None
        self.has_more = False
        """More members than are looked at."""

    def add(self, value: JsonValue) -> None:
        """Take what stands there in one document."""
        if value is None:
            return
        if isinstance(value, dict):
            self.objects += 1
            for name, member in value.items():
                place = self.members.get(name)
                if place is None:
                    if len(self.members) >= MAX_MEMBERS:
                        self.has_more = True
                        continue
                    place = self.members[name] = Place(self.depth + 1)
                place.add(member)
        elif isinstance(value, list):
            self.arrays += 1
            if self.element is None:
                self.element = Place(self.depth + 1)
            for element in value[:MAX_ELEMENTS_READ]:
                self.element.add(element)
        else:
            self.scalar.add(value)

    @property
    def is_object(self) -> bool:
        """Whether only objects were seen, shallow enough to be taken apart."""
        return bool(self.objects) and not self.arrays and not self.scalar.count and self.depth <= MAX_NESTING

    @property
    def is_array(self) -> bool:
        """Whether only arrays were seen, all of scalars of one type or all of objects."""
        if not self.arrays or self.objects or self.scalar.count or self.element is None:
            return False
        element = self.element
        if element.arrays or (element.objects and element.scalar.count):
            return False
        return bool(element.objects or (element.scalar.count and element.scalar.type))


class Values:
    """The values of one group of keys."""

    def __init__(self) -> None:
        self.count = 0
        self.document = Place()
        self.text = Scalar()
        self.not_documents = 0
        self.not_text = 0

    def add(self, value: bytes) -> JsonValue:
        """Take one more value; give its document, None where it is none."""
        self.count += 1
        try:
            document = read_document(value)
        except UnfitValueError:
            document = None
        if isinstance(document, dict):
            self.document.add(document)
            return document
        self.not_documents += 1
        try:
            text = value.decode()
        except UnicodeDecodeError:
            self.not_text += 1
            return None
        if "\x00" in text:
            self.not_text += 1
        else:
            self.text.add_text(text)
        return None

    @property
    def are_documents(self) -> bool:
        """Whether the values are JSON objects, but for a few."""
        return bool(self.count) and self.not_documents <= self.count * MAX_STRANGE_SHARE


def walk(place: Place, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Place]]:
    """Yield the places that become columns or child tables, with their paths, in the order they were met."""
    for name, member in place.members.items():
        if "\x00" in name:
            continue  # no path can name it, and no database can hold it
        if member.is_object:
            yield from walk(member, (*path, name))
        else:
            yield (*path, name), member
