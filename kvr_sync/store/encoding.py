"""How values of the mapping are handed to each kind of database. Pure.

SQLite gets exact decimals, dates, times and UUIDs as text. PostgreSQL gets times, exact decimals and JSON in the binary
form of its own types, made here and not where rows are written, so that worker processes can do it: a time is the
integer of microseconds since 2000 that `timestamptz` is on the wire (`src/backend/utils/adt/timestamp.c`,
timestamptz_recv), JSON is version 1 and its text (`src/backend/utils/adt/jsonb.c`, jsonb_recv).
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from functools import cache, lru_cache

from kvr_sync.mapping.conversion import REMEMBERED_TIMES
from kvr_sync.mapping.definition import ColumnMapping, ColumnType
from kvr_sync.mapping.definition import Mapping as TableMappings
from kvr_sync.store.rows import ColumnEncoding, Encoder, Encoding, TableEncoding

_POSTGRESQL_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
REMEMBERED_NUMBERS = 4096
_MAX_REMEMBERED_NUMBER = 40
"""Characters."""


class DatabaseKind(StrEnum):
    """The databases there are sinks for."""

    SQLITE = "sqlite"
    POSTGRESQL = "postgresql"


def encoding_for(kind: DatabaseKind, mapping: TableMappings) -> Encoding:
    """Give the encoding of a mapping's tables for a kind of database."""
    encoders = _encoders(kind)
    return Encoding(
        encoders[ColumnType.TIMESTAMP],
        tuple(
            TableEncoding(
                table.name,
                _columns(encoders, table.columns),
                tuple(_columns(encoders, child.columns) for child in table.children),
            )
            for table in mapping.tables
        ),
    )


def encoder_for(kind: DatabaseKind, column: ColumnMapping) -> Encoder | None:
    """Give the encoder of one column's values; None: they are taken as they are."""
    return _encoders(kind).get(column.type)


def _encoders(kind: DatabaseKind) -> Mapping[ColumnType, Encoder]:
    return _sqlite_encoders() if kind is DatabaseKind.SQLITE else _postgresql_encoders()


def _columns(encoders: Mapping[ColumnType, Encoder], columns: Sequence[ColumnMapping]) -> ColumnEncoding:
    return ColumnEncoding(
        tuple((place, encoders[column.type]) for place, column in enumerate(columns) if column.type in encoders),
        (None,) * len(columns),
    )


def time_text(time: datetime) -> str:
    """Give a time as `YYYY-MM-DDTHH:MM:SS.ffffffZ`, in UTC: text of one width, so that it sorts as time does."""
    return f"{time.astimezone(UTC).replace(tzinfo=None).isoformat(timespec='microseconds')}Z"


def stored_time(kind: DatabaseKind, time: datetime | None) -> object:
    """Give a time as the driver of a kind of database takes it, one value at a time; None stays None."""
    return time if time is None or kind is DatabaseKind.POSTGRESQL else time_text(time)


def _decimal_text(value: Decimal) -> str:
    return format(value, "f")


def _sqlite_encoders() -> Mapping[ColumnType, Encoder]:
    return {
        ColumnType.DECIMAL: _decimal_text,
        ColumnType.TIMESTAMP: _known_time_text,
        ColumnType.DATE: date.isoformat,
        ColumnType.UUID: str,
    }


def _postgresql_encoders() -> Mapping[ColumnType, Encoder]:
    return {ColumnType.DECIMAL: _numeric(), ColumnType.TIMESTAMP: _microseconds, ColumnType.JSON: _jsonb}


_known_time_text = lru_cache(maxsize=REMEMBERED_TIMES)(time_text)


@lru_cache(maxsize=REMEMBERED_TIMES)
def _microseconds(time: datetime) -> int:
    return (time - _POSTGRESQL_EPOCH) // _MICROSECOND


def _jsonb(text: str) -> bytes:
    return b"\x01" + text.encode()


@cache
def _numeric() -> Callable[[Decimal], bytes]:
    from psycopg import adapters  # noqa: PLC0415  who writes to SQLite does not wait for it
    from psycopg.adapt import PyFormat  # noqa: PLC0415

    dump = adapters.get_dumper(Decimal, PyFormat.BINARY)(Decimal).dump

    @lru_cache(maxsize=REMEMBERED_NUMBERS)
    def known(text: str) -> bytes:
        return bytes(dump(Decimal(text)) or b"")

    def encode(value: Decimal) -> bytes:
        # By the text, since numbers that are equal can have different scales.
        text = str(value)
        return known(text) if len(text) <= _MAX_REMEMBERED_NUMBER else bytes(dump(value) or b"")

    return encode
