"""Long lists as parameters of a statement, in PostgreSQL's binary form of an array.

The driver would look at every element by itself, which takes longer than the server needs to find them.

Form: `src/backend/utils/adt/arrayfuncs.c`, array_recv: the number of dimensions, whether there are NULLs, the type of
the elements, for the one dimension its size and lower bound, and each element with its length before it.
"""

from collections.abc import Iterable, Sequence
from struct import Struct
from typing import Any, Final

import psycopg
from psycopg import adapters
from psycopg.adapt import Dumper
from psycopg.pq import Format

_INT8: Final = adapters.types["int8"]
_BYTEA: Final = adapters.types["bytea"]
_HEADER: Final = Struct(">iiIii").pack
_NO_ELEMENTS: Final = Struct(">iiI").pack
_LENGTH: Final = Struct(">i").pack
_NUMBER: Final = Struct(">q")


class NumberArray:
    """A `bigint[]`."""

    def __init__(self, numbers: Sequence[int]) -> None:
        self.content: bytes = _array(_INT8.oid, len(numbers), _NUMBER.size, map(_NUMBER.pack, numbers))


class DigestArray:
    """A `bytea[]` of digests, which are all of one length."""

    def __init__(self, digests: Sequence[bytes]) -> None:
        """Raises ValueError when one has another length than the first."""
        size = len(digests[0]) if digests else 0
        if any(len(digest) != size for digest in digests):
            raise ValueError("digests of one length expected")
        self.content: bytes = _array(_BYTEA.oid, len(digests), size, digests)


class _NumberArrayDumper(Dumper):
    format = Format.BINARY
    oid = _INT8.array_oid

    def dump(self, obj: NumberArray) -> bytes:
        return obj.content


class _DigestArrayDumper(Dumper):
    format = Format.BINARY
    oid = _BYTEA.array_oid

    def dump(self, obj: DigestArray) -> bytes:
        return obj.content


def register(connection: "psycopg.Connection[Any]") -> None:
    """Let a connection take them."""
    connection.adapters.register_dumper(NumberArray, _NumberArrayDumper)
    connection.adapters.register_dumper(DigestArray, _DigestArrayDumper)


def _array(element_type: int, count: int, size: int, elements: Iterable[bytes]) -> bytes:
    if not count:
        return _NO_ELEMENTS(0, 0, element_type)
    length = _LENGTH(size)
    return b"".join((_HEADER(1, 0, element_type, count, 1), length, length.join(elements)))
