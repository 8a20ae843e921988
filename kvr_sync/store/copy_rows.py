"""Rows in the form of PostgreSQL's binary COPY, made where there is no database: by worker processes too.

A row is packed by psycopg's own C code, three times faster than it could be done with `struct`. What it begins with are
positions of keys, identities or chaincodes; the sink puts the database's numbers over them, in place.

Form: `src/backend/commands/copyfromparse.c`, CopyFromBinaryOneRow: a count of fields (2 bytes), and for
each field its length (4 bytes, -1: NULL) and its content.
"""

from collections.abc import Iterable, Iterator, Sequence
from struct import Struct
from typing import Final

from psycopg import adapters, pq
from psycopg._copy_base import format_row_binary  # no public function packs a row without a connection
from psycopg.adapt import AdaptersMap, Transformer
from psycopg.types.string import BytesBinaryDumper

from kvr_sync.store.rows import (
    LEDGER_POSITIONS,
    ChildRows,
    CopyTypes,
    Encoding,
    Holes,
    LedgerRows,
    MappedRows,
    MappedStores,
    PackedRows,
    Row,
    Rows,
    RunBuilder,
    RunRows,
)

HEADER: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
"""What binary COPY begins with: signature, no flags, no extension."""
TRAILER: Final = b"\xff\xff"

COUNT_BYTES: Final = 2
LENGTH_BYTES: Final = 4
NUMBER_BYTES: Final = 8
"""Of an int8, as every number is."""

_put_number: Final = Struct(">q").pack_into
_number_field: Final = Struct(">iq").pack


class _Context:
    """What psycopg asks for instead of a connection."""

    connection = None

    def __init__(self) -> None:
        self.adapters = AdaptersMap(adapters)
        # The last dumper registered for a type is taken; this one instead of the slow one for DB-API's Binary.
        self.adapters.register_dumper(bytes, BytesBinaryDumper)


class RowPacker:
    """Takes rows of one table and packs them. `types`: PostgreSQL's names, in the order of the columns.

    The first `positions` columns hold positions (or None).
    """

    def __init__(self, types: Sequence[str], positions: int) -> None:
        context = _Context()
        self._transformer = Transformer(context)
        oids = [context.adapters.types.get_oid(name) for name in types]
        self._transformer.set_dumper_types(oids, pq.Format.BINARY)
        self._content = bytearray()
        self._places: list[int] = []
        """Where the content of the first field of each row is."""
        self._positions: tuple[list[int | None], ...] = tuple([] for _ in range(positions))

    def __len__(self) -> int:
        """Count the rows so far."""
        return len(self._places)

    def extend(self, rows: list[Row], /) -> None:
        """Pack rows in their order."""
        content, transformer, places = self._content, self._transformer, self._places
        for row in rows:
            places.append(len(content) + COUNT_BYTES + LENGTH_BYTES)
            format_row_binary(row, transformer, content)
        for column, positions in enumerate(self._positions):
            positions += [row[column] for row in rows]

    def packed(self) -> PackedRows:
        """Give the rows."""
        return PackedRows(bytes(self._content), tuple(self._holes()))

    def _holes(self) -> Iterator[Holes]:
        places = self._places
        for positions in self._positions:
            given = [position for position in positions if position is not None]
            if len(given) == len(positions):
                yield Holes(places, given)
                places = [place + LENGTH_BYTES + NUMBER_BYTES for place in places]
                continue
            pairs = [(place, position) for place, position in zip(places, positions, strict=True)]
            yield Holes([place for place, position in pairs if position is not None], given)
            places = [place + LENGTH_BYTES + (0 if position is None else NUMBER_BYTES) for place, position in pairs]


class RunPacker:
    """Makes and packs the rows of one run."""

    def __init__(self, encoding: Encoding, types: CopyTypes) -> None:
        ledger = [RowPacker(*table) for table in zip(types.ledger, LEDGER_POSITIONS, strict=True)]
        mapped = [
            MappedStores(RowPacker(table.history, 1), [RowPacker(child, 1) for child in table.children])
            for table in types.mapped
        ]
        self._builder = RunBuilder(encoding, LedgerRows(*ledger), mapped)
        self.add = self._builder.add

    def run(self) -> RunRows[Rows]:
        """Give what was made; the packer ends with it."""
        made = self._builder.run()
        return RunRows(
            made.keys,
            made.identities,
            made.chaincodes,
            made.endorser_sets,
            LedgerRows(*map(_packed, made.ledger)),
            [_packed_table(table) for table in made.mapped],
            made.private,
        )


def _packed_table(table: MappedRows[RowPacker]) -> MappedRows[Rows]:
    children = [ChildRows(_packed(child.rows), child.starts) for child in table.children]
    return MappedRows(_packed(table.history), table.current, table.steps, children)


def _packed(table: RowPacker) -> Rows:
    return table.packed() if len(table) else []


def row_slices(content: bytes | bytearray, places: Sequence[int], ranges: Iterable[tuple[int, int]]) -> Iterator[bytes]:
    """Give the bytes of consecutive rows: from one index to before another; `places` as for `CurrentRows`."""
    for first, end in ranges:
        if first < end:
            start = places[first] - COUNT_BYTES - LENGTH_BYTES
            stop = places[end] - COUNT_BYTES - LENGTH_BYTES if end < len(places) else len(content)
            yield bytes(content[start:stop])


class CurrentRows:
    """Rows of a mapped table made from those of its history: the same bytes, but the last change for the kind."""

    def __init__(self, history: bytearray, places: Sequence[int]) -> None:
        """`places`: where the number of the key stands in each row."""
        self._history = history
        self._places = places

    def row(self, index: int, change_id: int) -> bytes:
        """Give the current row of a version."""
        history, place = self._history, self._places[index]
        after_key = place + NUMBER_BYTES
        kind_length = history[after_key + LENGTH_BYTES - 1]  # its last byte is all of it: a short name, never NULL
        end = len(history)
        if index + 1 < len(self._places):
            end = self._places[index + 1] - COUNT_BYTES - LENGTH_BYTES
        return b"".join(
            (
                history[place - COUNT_BYTES - LENGTH_BYTES : after_key],
                _number_field(NUMBER_BYTES, change_id),
                history[after_key + LENGTH_BYTES + kind_length : end],
            )
        )


def fill(packed: PackedRows, numbers: Sequence[Sequence[int]]) -> bytearray:
    """Give the content with numbers in the place of positions; `numbers`: for each column of them, by position."""
    content = bytearray(packed.content)
    for (offsets, positions), by_position in zip(packed.holes, numbers, strict=True):
        for offset, position in zip(offsets, positions, strict=True):
            _put_number(content, offset, by_position[position])
    return content
