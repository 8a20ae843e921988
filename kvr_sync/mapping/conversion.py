"""Values of one column: from JSON and from text to the Python value that both databases store exactly.

A converter takes a value that is present (not None) and gives the column's value, or raises `UnfitValueError`, whose
text names what was expected and what kind of thing was found, never the value.
"""

import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Context, Decimal, Inexact, InvalidOperation
from functools import lru_cache
from typing import Any, TypeAlias
from uuid import UUID

from kvr_sync.mapping import quarantine
from kvr_sync.mapping.definition import ColumnMapping, ColumnType
from kvr_sync.mapping.document import is_storable, read_document, write_document
from kvr_sync.mapping.limits import MAX_INDEXED_DIGITS, MAX_INDEXED_TEXT_BYTES, MAX_PRECISION
from kvr_sync.mapping.quarantine import UnfitValueError

Converter: TypeAlias = Callable[[Any], object]

_MIN_INTEGER = -(2**63)
_MAX_INTEGER = 2**63 - 1

_INTEGER_TEXT = re.compile(r"-?(?:0|[1-9][0-9]*+)")
_DECIMAL_TEXT = re.compile(r"-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][-+]?[0-9]++)?")
_TIMESTAMP = re.compile(
    r"[0-9]{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])[Tt](?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]"
    r"(?:\.([0-9]{1,6})0*+)?(?:[Zz]|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
)
"""RFC 3339 date-time with a T, without the leap second; what follows six fractional digits must be zeros."""
_DATE = re.compile(r"[0-9]{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])")
"""RFC 3339 full-date."""
_UUID = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")
"""The text of RFC 9562, in either case."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MIN_SECONDS = -62_135_596_800
"""0001-01-01T00:00:00Z, as `google.protobuf.Timestamp` has it."""
_MAX_SECONDS = 253_402_300_799
"""9999-12-31T23:59:59Z."""
REMEMBERED_TIMES = 4096
"""Of each kind."""
_MAX_REMEMBERED_TIME = 40
"""Characters."""
_EXACT = Context(prec=MAX_PRECISION, traps=[Inexact, InvalidOperation])
"""Room for every number a column can declare; anything that would have to round is an error."""

MAX_PLAIN_TEXT = MAX_INDEXED_TEXT_BYTES // 4
"""Characters of a text that fits every text column, indexed or not: a character has at most four bytes."""

_KINDS = {
    str: "text",
    bool: "true or false",
    int: "an integer",
    Decimal: "a decimal number",
    dict: "an object",
    list: "an array",
}


def json_converter(column: ColumnMapping) -> Converter:
    """Give the converter of a column for values out of a JSON document."""
    match column.type:
        case ColumnType.TEXT:
            return _indexed_text_converter(column.index_share) if column.index_share else _text
        case ColumnType.DECIMAL:
            return _decimal_converter(column)
        case ColumnType.ENUM:
            return _enum_converter(frozenset(column.values))
        case _:
            # json last: a document has no bytes, and no mapping asks it for them
            return _PLAIN_CONVERTERS.get(column.type, write_document)


def text_converter(column: ColumnMapping) -> Converter:
    """Give the converter of a column for text: attributes of keys, whole values, facts of the ledger.

    Numbers are written as in JSON, booleans as `true` and `false`.
    """
    match column.type:
        case ColumnType.INTEGER:
            return _integer_of_text
        case ColumnType.DECIMAL:
            check = _decimal_converter(column)
            return lambda text: check(_decimal_of_text(text))
        case ColumnType.BOOLEAN:
            return _boolean_of_text
        case _:
            return json_converter(column)


def bytes_converter(column: ColumnMapping) -> Converter:
    """Give the converter of a column for raw bytes: keys, whole values, function names."""
    if column.type is ColumnType.BYTES:
        return _bytes
    if column.type is ColumnType.JSON:
        return _json_of_bytes
    convert = text_converter(column)
    return lambda content: convert(decode_text(content))


def decode_text(content: bytes) -> str:
    """Decode strict UTF-8, or raise `UnfitValueError`."""
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise UnfitValueError(quarantine.NOT_UTF8, "UTF-8 text expected") from None


@lru_cache(maxsize=REMEMBERED_TIMES)
def moment(seconds: int, nanos: int | None) -> datetime | None:
    """Give a claimed time, cut (not rounded) to microseconds; None: no calendar of the years 1 to 9999 has it.

    Fabric does not look at the time of most transactions, so anything can stand there: seconds beyond those years, or
    nanoseconds that are no fraction of a second.
    """
    nanos = nanos or 0
    if not (_MIN_SECONDS <= seconds <= _MAX_SECONDS and 0 <= nanos < 1_000_000_000):
        return None
    return _EPOCH + timedelta(0, seconds, nanos // 1000)


def claimed_time(seconds: int | None, nanos: int | None) -> datetime | None:
    """Give the time a submitter claimed; the ledger layer keeps the nanoseconds.

    Raises `UnfitValueError` for a time that is none.
    """
    if seconds is None:
        return None
    time = moment(seconds, nanos)
    if time is None:
        raise UnfitValueError(quarantine.OUT_OF_RANGE, "a time between the years 1 and 9999 expected")
    return time


def _wrong_type(expected: str, value: object) -> UnfitValueError:
    return UnfitValueError(
        quarantine.WRONG_TYPE, f"{expected} expected, {_KINDS.get(type(value), 'another type')} found"
    )


def _text(value: object) -> str:
    if type(value) is not str:
        raise _wrong_type("text", value)
    if "\x00" in value:
        raise UnfitValueError(quarantine.NOT_STORABLE, "text without U+0000 expected")
    return value


def _indexed_text_converter(share: int) -> Converter:
    most = MAX_INDEXED_TEXT_BYTES // share

    surely = most // 4

    def convert(value: object) -> str:
        if type(value) is str and len(value) <= surely and "\x00" not in value:
            return value
        text = _text(value)
        if len(text) > surely and len(text.encode()) > most:
            raise UnfitValueError(quarantine.OUT_OF_RANGE, f"text of at most {most} bytes expected (index)")
        return text

    return convert


def _enum_converter(values: frozenset[str]) -> Converter:
    def convert(value: object) -> str:
        if type(value) is not str:
            raise _wrong_type("text", value)
        if value not in values:
            raise UnfitValueError(quarantine.NOT_IN_ENUMERATION, f"one of {len(values)} texts expected")
        return value

    return convert


def _date(value: object) -> date:
    if type(value) is not str:
        raise _wrong_type("a date", value)
    if _DATE.fullmatch(value):
        try:
            return date.fromisoformat(value)
        except ValueError:
            pass  # a day its month does not have; the year 0
    raise UnfitValueError(quarantine.NOT_A_DATE, "a possible date YYYY-MM-DD expected")


def _uuid(value: object) -> UUID:
    if type(value) is not str:
        raise _wrong_type("a UUID", value)
    if not _UUID.fullmatch(value):
        raise UnfitValueError(quarantine.NOT_A_UUID, "a UUID of 32 hexadecimal digits and four hyphens expected")
    return UUID(value)


def _integer(value: object) -> int:
    if type(value) is not int:
        if type(value) is Decimal and value.adjusted() > 19:
            raise UnfitValueError(quarantine.OUT_OF_RANGE, "a 64-bit integer expected")
        raise _wrong_type("an integer", value)
    if not _MIN_INTEGER <= value <= _MAX_INTEGER:
        raise UnfitValueError(quarantine.OUT_OF_RANGE, "a 64-bit integer expected")
    return value


def _boolean(value: object) -> bool:
    if type(value) is not bool:
        raise _wrong_type("true or false", value)
    return value


def _timestamp(value: object) -> datetime:
    if type(value) is not str:
        raise _wrong_type("a timestamp", value)
    # Versions of one document mostly have the same times. Fractions can be of any length.
    return _known_timestamp(value) if len(value) <= _MAX_REMEMBERED_TIME else _read_timestamp(value)


def _read_timestamp(value: str) -> datetime:
    match = _TIMESTAMP.fullmatch(value)
    if match is not None:
        fraction = match[1]
        if fraction is not None:
            zone = "Z" if value[-1] in "Zz" else value[-6:]
            value = f"{value[:20]}{fraction:0<6}{zone}"
        try:
            return datetime.fromisoformat(value if value[10] == "T" else value.upper()).astimezone(UTC)
        except (ValueError, OverflowError):
            pass  # a day its month does not have; a year before 1 or after 9999 in UTC
    raise UnfitValueError(
        quarantine.NOT_A_TIMESTAMP, "a possible RFC 3339 timestamp with zone, at most microseconds, expected"
    )


_known_timestamp = lru_cache(maxsize=REMEMBERED_TIMES)(_read_timestamp)


def _bytes(content: bytes) -> bytes:
    return content


def _json_of_bytes(content: bytes) -> str | None:
    document = read_document(content)
    return None if document is None else write_document(document)


def _integer_of_text(text: str) -> int:
    if not _INTEGER_TEXT.fullmatch(text):
        raise UnfitValueError(quarantine.WRONG_TYPE, "an integer expected, other text found")
    return _integer(int(text) if len(text) <= 20 else Decimal(text))


def _decimal_of_text(text: str) -> Decimal:
    if not _DECIMAL_TEXT.fullmatch(text):
        raise UnfitValueError(quarantine.WRONG_TYPE, "a decimal number expected, other text found")
    try:
        return Decimal(text)
    except InvalidOperation:
        raise UnfitValueError(quarantine.OUT_OF_RANGE, "a number with a smaller exponent expected") from None


def _boolean_of_text(text: str) -> bool:
    if text not in ("true", "false"):
        raise UnfitValueError(quarantine.WRONG_TYPE, "true or false expected, other text found")
    return text == "true"


def _decimal_converter(column: ColumnMapping) -> Callable[[object], Decimal]:
    if column.precision is not None and column.scale is not None:
        return _fixed_decimal_converter(column.precision, column.scale)
    return _indexed_decimal_converter(column.index_share) if column.index_share else _decimal


def _fixed_decimal_converter(precision: int, scale: int) -> Callable[[object], Decimal]:
    """Numbers get exactly the scale of their column, as PostgreSQL shows them; only zeros may come or go for that."""
    unit = Decimal((0, (1,), -scale))
    digits_before = precision - scale

    def convert(value: object) -> Decimal:
        try:
            # `_number` asks the same, and more.
            number = (value if type(value) is Decimal else _number(value)).quantize(unit, context=_EXACT)
        except (Inexact, InvalidOperation):
            number = None
        if number is None or (number and number.adjusted() >= digits_before):
            raise UnfitValueError(
                quarantine.OUT_OF_RANGE, f"at most {precision} digits, {scale} after the point, expected"
            )
        return number or abs(number)  # zero has no sign in PostgreSQL

    return convert


def _number(value: object) -> Decimal:
    if type(value) is Decimal:
        return value
    if type(value) is int:
        return Decimal(value)
    raise _wrong_type("a decimal number", value)


def _decimal(value: object) -> Decimal:
    number = _number(value)
    if not number:
        # Zero has no sign in PostgreSQL; its exponent only says how many zeros were written.
        exponent = number.as_tuple().exponent
        number = Decimal((0, (0,), min(exponent, 0))) if isinstance(exponent, int) else number
    if not is_storable(number):
        raise UnfitValueError(quarantine.OUT_OF_RANGE, "a number that PostgreSQL's numeric holds expected")
    return number


def _indexed_decimal_converter(share: int) -> Callable[[object], Decimal]:
    most = MAX_INDEXED_DIGITS // share

    def convert(value: object) -> Decimal:
        number = _decimal(value)
        exponent = number.as_tuple().exponent
        before, after = max(number.adjusted() + 1, 0), -exponent if isinstance(exponent, int) else 0
        if before + max(after, 0) > most:
            raise UnfitValueError(quarantine.OUT_OF_RANGE, f"a number of at most {most} digits expected (index)")
        return number

    return convert


_PLAIN_CONVERTERS: dict[ColumnType, Converter] = {
    ColumnType.INTEGER: _integer,
    ColumnType.BOOLEAN: _boolean,
    ColumnType.DATE: _date,
    ColumnType.TIMESTAMP: _timestamp,
    ColumnType.UUID: _uuid,
}
