"""Rows of the mapped layer made a second time, from the ledger layer instead of from blocks.

The mapped layer is a pure function of ledger layer and mapping: `map_block` is asked again for every stored write, with
what the ledger layer knows of its transaction and of the chaincode definitions below its block. Writes are read key by
key, each key in ledger order, which is the order of the primary key, so memory does not grow with the chain. After the
public writes come the private ones (`private_layer`), but for those whose values were erased.
"""

from bisect import bisect_left
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, NamedTuple

from sqlalchemy import Column, ColumnElement, Connection, Row, Select, and_, func, select, true

from kvr_sync.definitions import Definitions
from kvr_sync.mapping.definition import Mapping as TableMappings
from kvr_sync.mapping.map import map_block, map_private_change
from kvr_sync.model import (
    BlockChanges,
    Effect,
    EffectiveWrite,
    LedgerKey,
    ReplayedBlock,
    RowBatch,
    WriteKind,
)
from kvr_sync.store.private_layer import PrivateLayer
from kvr_sync.store.rows import Encoding, RunRows, list_builder
from kvr_sync.store.rows import Row as TableRow
from kvr_sync.store.schema import LedgerTables
from kvr_sync.store.storable import storable_text
from kvr_sync.store.transaction_facts import stored_facts, with_facts
from network.protocol.block import BlockHeader
from network.protocol.private_data import LIFECYCLE_NAMESPACE

PART_WRITES = 2_000
PART_BYTES = 16 * 1024 * 1024
"""How much is read before its rows are handed on; a single larger value still goes alone."""
_FETCHED_ROWS = 200
"""Rows that are fetched at once; each can have a value as large as a block."""

Sequences = Callable[[int], Mapping[str, int]]
"""Gives the sequences of the chaincode definitions in force below a block, by chaincode."""


class LayerPart(NamedTuple):
    """Rows of some writes. `keys`: the number of each key by its position; `rows` has mapped rows and quarantine."""

    keys: list[int]
    rows: RunRows[list[TableRow]]
    writes: int


def written_after(tables: LedgerTables, block_number: int) -> Select[Any]:
    """Select the numbers of the public keys that blocks above one wrote; it reads the whole history of keys."""
    history = tables.key_history.c
    return select(history.key_id).where(history.block_number > block_number).distinct()


class LedgerLayer:
    """The ledger layer of one channel, read inside the caller's transaction."""

    def __init__(
        self,
        connection: Connection,
        tables: LedgerTables,
        mapping: TableMappings,
        encoding: Encoding,
        chosen: Collection[int],
        keys: Select[Any] | None = None,
    ) -> None:
        """`chosen`: the tables to make rows of; `keys`: selects the numbers of the keys to read, None: all."""
        self._connection = connection
        self._tables = tables
        self._mapping = mapping
        self._encoding = encoding
        self._chosen = frozenset(chosen)
        self._keys = keys
        chosen_tables = [table for number, table in enumerate(mapping.tables) if number in self._chosen]
        public = [table for table in chosen_tables if not table.collections]
        self._namespaces = {storable_text(table.namespace): table.namespace for table in public}
        """Namespaces of public tables by the form in which they are stored."""
        self._private = PrivateLayer(connection, tables, [table for table in chosen_tables if table.collections], keys)

    def count(self) -> int:
        """Count the writes that `parts` reads."""
        statement = self._public().with_only_columns(func.count(), maintain_column_froms=True).order_by(None)
        return (self._connection.scalar(statement) or 0) + self._private.count()

    def parts(self) -> Iterator[LayerPart]:
        """Yield the rows of every version of every key."""
        sequences = self._sequences()
        builder, numbers, writes, size = list_builder(self._encoding), dict[LedgerKey, int](), 0, 0
        for key, key_id, batch, value_size in self._batches(sequences):
            numbers[key] = key_id
            builder.add_mapped(batch)
            writes += 1
            size += value_size
            if writes >= PART_WRITES or size >= PART_BYTES:
                yield LayerPart([numbers[key] for key in builder.keys], builder.run(), writes)
                builder, numbers, writes, size = list_builder(self._encoding), {}, 0, 0
        if writes:
            yield LayerPart([numbers[key] for key in builder.keys], builder.run(), writes)

    def _batches(self, sequences: Sequences) -> Iterator[tuple[LedgerKey, int, RowBatch, int]]:
        for key, row, write in self._public_writes(self._public()):
            batch = map_block(_block(row, (write,)), self._mapping, None, sequences(row.block_number))
            yield key, row.key_id, self._of_chosen(batch), len(write.value or b"")
        for row, change in self._private.changes():
            number, sequence = row.block_number, sequences(row.block_number).get(change.key.namespace, 0)
            mapped, quarantined = map_private_change(change, self._mapping, sequence, number, stored_facts(row))
            batch = RowBatch(_block(row, ()), tuple(mapped), tuple(quarantined))
            yield change.key, row.key_id, self._of_chosen(batch), len(change.value or b"")

    def _of_chosen(self, batch: RowBatch) -> RowBatch:
        chosen = self._chosen
        return batch._replace(
            mapped=tuple([row for row in batch.mapped if row.table in chosen]),
            quarantined=tuple([entry for entry in batch.quarantined if entry.table in chosen]),
        )

    def _rows(self, statement: Select[Any]) -> Iterator[Row[Any]]:
        yield from self._connection.execute(statement.execution_options(yield_per=_FETCHED_ROWS))

    def _public_writes(self, statement: Select[Any]) -> Iterator[tuple[LedgerKey, Row[Any], EffectiveWrite]]:
        """Yield writes with the value that the key has afterwards; those of one key come in ledger order."""
        retained: tuple[int, bytes] | None = None
        for row in self._rows(statement):
            effect = Effect(row.effect)
            value: bytes | None = None
            if effect is Effect.PUT:
                value = bytes(row.value)
                retained = (row.key_id, value)
            elif effect is Effect.VERSION and retained is not None and retained[0] == row.key_id:
                value = retained[1]
            namespace = self._namespaces.get(row.namespace, row.namespace)
            key = LedgerKey(namespace, "", bytes(row.key))
            yield key, row, EffectiveWrite(row.tx_number, row.write_number, key, WriteKind.PUT, effect, value, b"")

    def _public(self) -> Select[Any]:
        """All effective writes to the public keys of the chosen tables, key by key."""
        key, history = self._tables.key, self._tables.key_history
        order = (history.c.key_id, history.c.block_number, history.c.tx_number, history.c.write_number)
        wanted = key.c.namespace.in_(list(self._namespaces))
        return self._writes(wanted & self._is_asked_for(history.c.key_id)).order_by(*order)

    def _writes(self, wanted: ColumnElement[bool]) -> Select[Any]:
        key, history, transaction = self._tables.key, self._tables.key_history, self._tables.transaction
        same = and_(*(transaction.c[name] == history.c[name] for name in ("block_number", "tx_number")))
        statement = (
            select(history.c.key_id, key.c.namespace, key.c.key, history.c.effect, history.c.value)
            .add_columns(history.c.block_number, history.c.tx_number, history.c.write_number)
            .join_from(history, key, key.c.key_id == history.c.key_id)
            .join(transaction, same)
            .where(key.c.collection == "", history.c.effect != int(Effect.NONE), wanted)
        )
        return with_facts(statement, self._tables)

    def _is_asked_for(self, key_id: Column[Any]) -> ColumnElement[bool]:
        return true() if self._keys is None else key_id.in_(self._keys)

    def _sequences(self) -> Sequences:
        """Read the definitions of the chaincodes whose sequence decides what a table takes."""
        chaincodes = sorted({table.namespace for table in self._mapping.tables if table.sequences is not None})
        definitions = Definitions(lambda _: {})  # read from the first block on: nothing was before
        starts: list[int] = []
        in_force = [dict(definitions.sequences(chaincodes))]
        for row, writes in self._lifecycle_blocks() if chaincodes else ():
            if definitions.derive(_block(row, tuple(writes))):
                starts.append(row.block_number)
                in_force.append(dict(definitions.sequences(chaincodes)))
        # A definition rules the blocks above its own.
        return lambda block_number: in_force[bisect_left(starts, block_number)]

    def _lifecycle_blocks(self) -> Iterator[tuple[Row[Any], list[EffectiveWrite]]]:
        history = self._tables.key_history
        by_key = (history.c.key_id, history.c.block_number, history.c.tx_number, history.c.write_number)
        statement = self._writes(self._tables.key.c.namespace == LIFECYCLE_NAMESPACE).order_by(*by_key)
        blocks: dict[int, tuple[Row[Any], list[EffectiveWrite]]] = {}
        for _, row, write in self._public_writes(statement):
            blocks.setdefault(row.block_number, (row, []))[1].append(write)
        for number in sorted(blocks):
            row, writes = blocks[number]
            yield row, sorted(writes, key=lambda write: (write.tx_number, write.write_number))


def _block(row: Row[Any], writes: tuple[EffectiveWrite, ...]) -> ReplayedBlock:
    """Give the block of a stored write, with what mapping it asks for: its number, and the facts of the transaction."""
    header = BlockHeader(row.block_number, b"", b"")
    transactions = (stored_facts(row),) * (row.tx_number + 1)  # found by number; nobody asks for another one
    return ReplayedBlock(BlockChanges(header, b"", b"", transactions, (), (), (), None), writes, None, False)  # noqa: FBT003
