"""Rows packed for COPY, read back by a reader of its own."""

import struct
from typing import Any

import pytest

from kvr_sync.mapping.definition import Mapping
from kvr_sync.store.copy_rows import CurrentRows, RowPacker, RunPacker, fill
from kvr_sync.store.encoding import DatabaseKind, encoding_for
from kvr_sync.store.mapped_table import mapped_tables
from kvr_sync.store.postgresql_sink import copy_types
from kvr_sync.store.rows import LedgerRows, PackedRows, Row
from kvr_sync.store.schema import ledger_tables

TYPES = ("int8", "int8", "text", "int4", "bytea", "bool")
ROWS: list[Row] = [
    (0, 1, "ä", 7, b"\x00\xff", True),
    (None, 0, None, -1, b"", False),
    (1, None, "x" * 300, 2**31 - 1, None, None),
    (None, None, "", 0, b"", None),
]


def packed(rows: list[Row] = ROWS, types: tuple[str, ...] = TYPES, positions: int = 2) -> PackedRows:
    packer = RowPacker(types, positions)
    for row in rows:  # in more than one part
        packer.extend([row])
    return packer.packed()


def fields(content: bytes | bytearray) -> list[tuple[bytes | None, ...]]:
    """Read the rows of a binary COPY, apart from header and trailer."""
    rows = []
    position = 0
    while position < len(content):
        (count,) = struct.unpack_from(">h", content, position)
        position += 2
        row: list[bytes | None] = []
        for _ in range(count):
            (length,) = struct.unpack_from(">i", content, position)
            position += 4
            row.append(None if length < 0 else bytes(content[position : position + length]))
            position += max(length, 0)
        rows.append(tuple(row))
    return rows


def test_numbers_stand_where_positions_were_and_null_stays_null() -> None:
    found = fields(fill(packed(), ([10, 11], [20, 21])))

    assert found == [
        (struct.pack(">q", 10), struct.pack(">q", 21), "ä".encode(), struct.pack(">i", 7), b"\x00\xff", b"\x01"),
        (None, struct.pack(">q", 20), None, struct.pack(">i", -1), b"", b"\x00"),
        (struct.pack(">q", 11), None, b"x" * 300, struct.pack(">i", 2**31 - 1), None, None),
        (None, None, b"", struct.pack(">i", 0), b"", None),
    ]


def test_the_packed_rows_themselves_are_left_as_they_are() -> None:
    rows = packed()

    assert fill(rows, ([1, 2], [3, 4])) != fill(rows, ([5, 6], [7, 8]))


def test_numbers_for_another_count_of_columns_are_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        fill(packed(), ([10, 11],))


def test_a_current_row_is_its_version_with_the_last_change_for_the_kind() -> None:
    history: list[Row] = [(0, "put", "a", 5), (1, "metadata", None, 6), (0, "put", "", 7)]
    versions = packed(history, ("int8", "text", "text", "int8"), 1)
    content = fill(versions, ([30, 40],))
    rows = CurrentRows(content, versions.holes[0].offsets)

    expected = [(30, 100, "a", 5), (40, 101, None, 6), (30, 102, "", 7)]
    for index, row in enumerate(expected):
        assert rows.row(index, 100 + index) == packed([row], ("int8", "int8", "text", "int8"), 0).content


def test_a_run_without_rows_packs_none() -> None:
    mapping = Mapping("none", ())
    tables = ledger_tables("x")
    packer = RunPacker(
        encoding_for(DatabaseKind.POSTGRESQL, mapping), copy_types(tables, mapped_tables(mapping, tables))
    )

    run = packer.run()

    assert run.ledger == LedgerRows[Any](*([] for _ in LedgerRows._fields))
    assert (run.keys, run.mapped, run.private) == ([], [], None)
