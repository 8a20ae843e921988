"""Lists as PostgreSQL's binary arrays: byte for byte what the driver makes of them, which the server reads."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg import adapters
from psycopg.adapt import AdaptersMap, PyFormat, Transformer
from psycopg.types.numeric import Int8BinaryDumper
from psycopg.types.string import BytesBinaryDumper

from kvr_sync.store.binary_array import DigestArray, NumberArray


class _Context:
    connection = None

    def __init__(self) -> None:
        self.adapters = AdaptersMap(adapters)
        self.adapters.register_dumper(int, Int8BinaryDumper)
        self.adapters.register_dumper(bytes, BytesBinaryDumper)


def _of_the_driver(values: list[int] | list[bytes]) -> bytes:
    transformer = Transformer(_Context())
    (dumped,) = transformer.dump_sequence([values], [PyFormat.BINARY])
    assert dumped is not None
    return bytes(dumped)


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=50))
def test_numbers_are_as_the_driver_has_them(numbers: list[int]) -> None:
    assert NumberArray(numbers).content == _of_the_driver(numbers)


@given(st.lists(st.binary(min_size=32, max_size=32), min_size=1, max_size=50))
def test_digests_are_as_the_driver_has_them(digests: list[bytes]) -> None:
    assert DigestArray(digests).content == _of_the_driver(digests)


def test_digests_of_several_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="one length"):
        DigestArray([bytes(32), bytes(31)])


def test_a_number_beyond_64_bits_is_refused() -> None:
    with pytest.raises(struct.error):
        NumberArray([2**63])
