"""The ledger layer brought back to what it was after an earlier block, inside one transaction.

Rows of later blocks go, table by table. What is numbered once and for all (keys, identities, chaincodes, lists of
endorsers) stays: a number may stand in the change feed, and is given again when the same thing comes again.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from sqlalchemy import Column, Connection, MetaData, Select, Table, delete, func, insert, select, update

from kvr_sync.model import Checkpoint
from kvr_sync.store.ledger_layer import written_after
from kvr_sync.store.quarantine_closing import KEPT_CLOSINGS
from kvr_sync.store.schema import INT64, LedgerTables


class LaterBlocks(NamedTuple):
    """What there is of the blocks above one."""

    blocks: int
    transactions: int


def checkpoint_after(connection: Connection, tables: LedgerTables, block_number: int) -> Checkpoint | None:
    """Give the checkpoint as it was when a block had just been applied; None: that block has no row."""
    block = tables.block
    columns = select(block.c.block_number, block.c.header_hash, block.c.commit_hash)
    row = connection.execute(columns.where(block.c.block_number == block_number)).one_or_none()
    if row is None:
        return None
    return Checkpoint(row[0], bytes(row[1]), None if row[2] is None else bytes(row[2]))


def count_later(connection: Connection, tables: LedgerTables, block_number: int) -> LaterBlocks:
    """Count what `take_out_later` would take out."""
    block = tables.block.c
    counts = select(func.count(), func.coalesce(func.sum(block.transaction_count), 0))
    blocks, transactions = connection.execute(counts.where(block.block_number > block_number)).one()
    return LaterBlocks(blocks, int(transactions))


@contextmanager
def touched_keys(connection: Connection, tables: LedgerTables, block_number: int) -> Iterator[Select[Any]]:
    """Give a query for the numbers of the public keys that blocks above one wrote, also when their rows are gone.

    They are kept in a table of the session; after an error the transaction takes it away.
    """
    metadata = MetaData(schema="pg_temp" if connection.dialect.name == "postgresql" else "temp")
    touched = Table("kvr_rewound_key", metadata, Column("key_id", INT64, primary_key=True, autoincrement=False))
    metadata.create_all(connection, checkfirst=False)
    connection.execute(insert(touched).from_select(["key_id"], written_after(tables, block_number)))
    yield select(touched.c.key_id)
    metadata.drop_all(connection, checkfirst=False)


def take_out_later(connection: Connection, tables: LedgerTables, block_number: int) -> Iterator[tuple[str, int, int]]:
    """Take out every row of the blocks above one; yield each table before, with its place and their number."""
    layer = _tables_of_blocks(tables)
    for place, table in enumerate(layer):
        yield table.name, place, len(layer)
        connection.execute(delete(table).where(table.c.block_number > block_number))
    # What was released stays so, as the mapping that takes it does. Other entries are opened with the mapped layer.
    entry = tables.quarantine
    released = (entry.c.closed_block > block_number) & entry.c.closed_by.in_(KEPT_CLOSINGS)
    connection.execute(update(entry).where(released).values(closed_block=block_number))


def _tables_of_blocks(tables: LedgerTables) -> list[Table]:
    """Give the tables whose rows say which block brought them, but the checkpoint and the feed, which only grows."""
    layer = [table for table in tables if isinstance(table, Table) and "block_number" in table.c]
    return [table for table in layer if table not in (tables.checkpoint, tables.change)]
