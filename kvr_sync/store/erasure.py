"""Private values that are due for erasure leave every table, inside the transaction of the block they are due with.

Columns and keys become NULL wherever they stood, child rows and current rows go. What stays is the record: version,
hash, block and cause (`purge` or `expiry`). What stays physically is described in README.md beside this file.
"""

from typing import Any

from sqlalchemy import Connection, Table, and_, case, delete, func, null, or_, select, tuple_, update

from kvr_sync.store.mapped_table import ERASED_BLOCK, ERASED_BY, FACT_COLUMNS, VERSION_COLUMNS, MappedTable
from kvr_sync.store.private_rows import EXPIRY
from kvr_sync.store.schema import LedgerTables

_KEPT = (*VERSION_COLUMNS, *FACT_COLUMNS, "kvr_kind", ERASED_BLOCK, ERASED_BY)
"""Columns of a history that are no values."""


class Erasure:
    """Erases what is due up to a block; the mapped tables first, then the values themselves."""

    def __init__(self, connection: Connection, tables: LedgerTables, last_block: int) -> None:
        self._connection = connection
        value = self._value = tables.private_value
        self._quarantine = tables.quarantine
        self._is_due = value.c.expiring_block <= last_block
        self._cause = func.coalesce(value.c.erased_by, EXPIRY)
        self._version = (value.c.key_id, value.c.block_number, value.c.tx_number, value.c.write_number)

    def is_due(self) -> bool:
        """Tell whether there is anything to erase."""
        return self._connection.execute(select(self._value.c.key_id).where(self._is_due).limit(1)).first() is not None

    def erase_rows(self, mapped: MappedTable) -> list[tuple[int, int, int, int]]:
        """Take what is due out of a mapped table, its children and histories; give key and version of rows that go."""
        current = mapped.current
        facts = [current.c[name] for name in VERSION_COLUMNS]
        in_force = select(self._value.c.key_id).where(self._is_due, self._value.c.ended_block.is_(None))
        gone = self._connection.execute(select(*facts).where(current.c.kvr_key_id.in_(in_force))).all()
        for part in (*(child.current for child in mapped.children), current) if gone else ():
            self._connection.execute(delete(part).where(part.c.kvr_key_id.in_(in_force)))
        for child in mapped.children:
            version = tuple_(*(child.history.c[name] for name in VERSION_COLUMNS))
            due = select(*self._version).where(self._is_due)
            self._connection.execute(delete(child.history).where(version.in_(due)))
        self._erase_history(mapped.history)
        self._close_quarantine(mapped.name)
        return sorted((row[0], row[1], row[2], row[3]) for row in gone)

    def _erase_history(self, history: Table) -> None:
        blank: dict[str, Any] = {column.name: null() for column in history.columns if column.name not in _KEPT}
        had_value = history.c.kvr_kind.in_(("put", "missing"))
        same = and_(*(history.c[name] == own for name, own in zip(VERSION_COLUMNS, self._version, strict=True)))
        self._connection.execute(
            update(history)
            .where(same, self._is_due)
            .values(
                {
                    **blank,
                    "kvr_kind": case((had_value, "erased"), else_=history.c.kvr_kind),
                    ERASED_BLOCK: self._value.c.expiring_block,
                    ERASED_BY: self._cause,
                }
            )
        )

    def _close_quarantine(self, table_name: str) -> None:
        entry = self._quarantine
        place = (entry.c.key_id, entry.c.block_number, entry.c.tx_number, entry.c.write_number)
        same = and_(*(one == own for one, own in zip(place, self._version, strict=True)))
        # A later block of the same run may have closed it already, and came too late.
        is_open = or_(entry.c.closed_block.is_(None), entry.c.closed_block > self._value.c.expiring_block)
        self._connection.execute(
            update(entry)
            .where(same, self._is_due, entry.c.table_name == table_name, is_open)
            .values(closed_block=self._value.c.expiring_block, closed_by="erased")
        )

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
                erased_by=self._cause,
                ended_block=func.coalesce(value.c.ended_block, value.c.expiring_block),
            )
        )
