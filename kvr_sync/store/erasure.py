"""Private values that are due for erasure leave every table, inside the transaction of the block they are due with.

What stays is the record of it: version, hash, block and cause (`purge` or `expiry`). What stays physically is described
in README.md beside this file.
"""

from typing import Any

from sqlalchemy import ColumnElement, Connection, Table, delete, func, select, update

from kvr_sync.store.mapped_table import MappedTable
from kvr_sync.store.private_rows import EXPIRY
from kvr_sync.store.schema import LedgerTables


class Erasure:
    """Erases what is due up to a block; the mapped tables first, then the values themselves."""

    def __init__(self, connection: Connection, tables: LedgerTables, last_block: int) -> None:
        self._connection = connection
        self._value = tables.private_value
        self._is_due = self._value.c.expiring_block <= last_block

    def erase_rows(self, mapped: MappedTable) -> list[tuple[int, int, int, int]]:
        """Take the rows of what is due out of a mapped table and its children; give key and version of each."""
        current = mapped.current
        facts = (current.c.kvr_block_number, current.c.kvr_tx_number, current.c.kvr_write_number)
        is_gone = self._is_due_in_force(current)
        gone = sorted(map(tuple, self._connection.execute(select(current.c.kvr_key_id, *facts).where(is_gone))))
        if gone:
            for part in (*(child.current for child in mapped.children), current):
                self._connection.execute(delete(part).where(self._is_due_in_force(part)))
        return gone

    def _is_due_in_force(self, table: Table) -> ColumnElement[bool]:
        value = self._value
        due = select(value.c.key_id).where(self._is_due, value.c.ended_block.is_(None))
        return table.c.kvr_key_id.in_(due)

    def erase_values(self) -> None:
        """Take the values themselves, and the keys; the hashes stay."""
        value = self._value
        blank: dict[str, Any] = dict.fromkeys(("key", "value", "expiring_block", "attempts", "due_at"))
        self._connection.execute(
            update(value)
            .where(self._is_due)
            .values(
                **blank,
                erased_block=value.c.expiring_block,
                erased_by=func.coalesce(value.c.erased_by, EXPIRY),
                ended_block=func.coalesce(value.c.ended_block, value.c.expiring_block),
            )
        )
