"""Private values that were missing: which they are, and how one that has come takes its place.

Each is applied at its own version, once: what is not missing any more by then, because it came, was purged or has
expired, is left as it is.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import (
    ColumnElement,
    Connection,
    Table,
    and_,
    bindparam,
    delete,
    desc,
    or_,
    select,
    tuple_,
    update,
)

from kvr_sync.mapping.definition import Mapping
from kvr_sync.mapping.map import map_private_change
from kvr_sync.model import (
    Effect,
    LateValue,
    LedgerKey,
    MappedRow,
    MissingValue,
    PrivateChange,
    QuarantinedWrite,
    TransactionFacts,
)
from kvr_sync.store.encoding import DatabaseKind, stored_time
from kvr_sync.store.mapped_table import VERSION_COLUMNS, MappedTable
from kvr_sync.store.quarantine_closing import KEPT_CLOSINGS, derived_closing
from kvr_sync.store.rows import Encoding, Row
from kvr_sync.store.schema import LedgerTables
from kvr_sync.store.storable import MAX_SENTENCE_BYTES, storable_text
from kvr_sync.store.transaction_facts import stored_facts, with_facts

FIRST_PAUSE = timedelta(minutes=1)
"""Peers look for what they miss once a minute (`peer.gossip.pvtData.reconcileSleepInterval`)."""
LONGEST_PAUSE = timedelta(days=1)


class LateCounts(NamedTuple):
    """Values that took their place, and those that were not missing any more."""

    arrived: int
    outdated: int


InsertRows = Callable[[Connection, Table, list[Row]], None]


def read_missing(
    connection: Connection,
    tables: LedgerTables,
    *,
    due_at: object = None,
    too_late: object = None,
    after: MissingValue | None = None,
    limit: int,
) -> list[MissingValue]:
    """Read the missing values, oldest block first; those after `after`, where that is given.

    With `due_at` and `too_late`, as they are stored, those alone that are due by then; a time beyond `too_late` was
    written by a clock that went wrong, and counts as due.
    """
    value, key = tables.private_value, tables.key
    position = (value.c.block_number, value.c.tx_number, value.c.write_number, value.c.key_id)
    conditions: list[ColumnElement[bool]] = [value.c.due_at.is_not(None)]
    if due_at is not None:
        conditions.append(or_(value.c.due_at <= due_at, value.c.due_at > too_late))
    if after is not None:
        conditions.append(
            tuple_(*position) > tuple_(after.block_number, after.tx_number, after.write_number, after.key_id)
        )
    statement = (
        select(key.c.namespace, key.c.collection, key.c.key, *position, value.c.value_hash, value.c.attempts)
        .join(key, key.c.key_id == value.c.key_id)
        .where(*conditions)
        .order_by(*position)
        .limit(limit)
    )
    return [
        MissingValue(
            row.key_id,
            LedgerKey(row.namespace, row.collection, bytes(row.key)),
            row.block_number,
            row.tx_number,
            row.write_number,
            bytes(row.value_hash),
            row.attempts or 0,
        )
        for row in connection.execute(statement)
    ]


def note_asked(
    connection: Connection, tables: LedgerTables, kind: DatabaseKind, missing: Iterable[MissingValue], now: datetime
) -> None:
    """Write down that these were asked for in vain; each time the pause until the next is twice as long."""
    value = tables.private_value
    asked = [
        {
            "number": one.key_id,
            "block": one.block_number,
            "tx": one.tx_number,
            "write": one.write_number,
            "times": one.attempts + 1,
            "next": stored_time(kind, now + min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(one.attempts, 20))),
        }
        for one in missing
    ]
    if asked:
        statement = update(value).where(
            value.c.key_id == bindparam("number"),
            value.c.block_number == bindparam("block"),
            value.c.tx_number == bindparam("tx"),
            value.c.write_number == bindparam("write"),
            value.c.due_at.is_not(None),
        )
        connection.execute(statement.values(attempts=bindparam("times"), due_at=bindparam("next")), asked)


class LateArrival:
    """Puts late values in their places, inside one transaction that keeps blocks from being applied meanwhile."""

    def __init__(
        self,
        connection: Connection,
        tables: LedgerTables,
        mapping: Mapping,
        mapped: Sequence[MappedTable],
        encoding: Encoding,
        insert_rows: InsertRows,
        announce: Callable[[int, int, tuple[int, int, int]], int],
    ) -> None:
        """`announce` takes table, key and version of a row that came late, and gives the number of that change."""
        self._connection = connection
        self._tables = tables
        self._mapping = mapping
        self._mapped = mapped
        self._encoding = encoding
        self._insert = insert_rows
        self._announce = announce
        self._facts: dict[tuple[int, int], TransactionFacts] = {}

    def take(self, late: LateValue) -> bool:
        """Apply a value at its version; False: it is not missing any more."""
        one, value = late.missing, self._tables.private_value
        is_meant = and_(
            value.c.key_id == one.key_id,
            *_at(value, one, ("block_number", "tx_number", "write_number")),
            value.c.value_hash == one.value_hash,
            value.c.due_at.is_not(None),
        )
        row = self._connection.execute(select(value.c.ended_block).where(is_meant)).one_or_none()
        if row is None:
            return False
        given = {"key": late.private_key, "value": late.value, "attempts": None, "due_at": None}
        self._connection.execute(update(value).where(is_meant).values(**given))
        facts = self._read_facts(one)
        change = PrivateChange(
            one.tx_number, one.write_number, one.key, Effect.PUT, late.private_key, late.value, one.value_hash, None
        )
        sequence = self._sequence(one)
        rows, quarantined = map_private_change(change, self._mapping, sequence, one.block_number, facts)
        for entry in quarantined:
            self._quarantine(one, entry)
        by_table = {mapped.table: mapped for mapped in rows}
        for number, definition in enumerate(self._mapping.tables):
            if definition.namespace == one.key.namespace and one.key.collection in definition.collections:
                self._write(number, one, by_table.get(number), facts, is_in_force=row.ended_block is None)
                self._close_quarantine(number, one.key_id)
        return True

    def _write(
        self, number: int, one: MissingValue, row: MappedRow | None, facts: TransactionFacts, *, is_in_force: bool
    ) -> None:
        """Put a row in the place of what stands for the missing one in the history, and among the current ones."""
        mapped, encoding = self._mapped[number], self._encoding.tables[number]
        history = mapped.history
        is_meant = (history.c.kvr_key_id == one.key_id, *_at(history, one, VERSION_COLUMNS[1:]))
        self._connection.execute(delete(history).where(*is_meant))
        if row is None:
            return
        version = (one.block_number, one.tx_number, one.write_number)
        written_by = (*version, facts.tx_id, facts.msp_id)
        is_there = row.values is not None
        values = encoding.columns.blank if row.values is None else encoding.columns.encode(row.values)
        kind = "put" if is_there else "delete"
        self._insert(self._connection, history, [(one.key_id, kind, row.external_id, *values, *written_by)])
        if not is_there:
            return
        if is_in_force:
            change = self._announce(number, one.key_id, version)
            self._insert(
                self._connection, mapped.current, [(one.key_id, change, row.external_id, *values, *written_by)]
            )
        for child, child_encoding, elements in zip(mapped.children, encoding.children, row.children, strict=True):
            made: list[Row] = [
                (one.key_id, place, *child_encoding.encode(element), *written_by)
                for place, element in enumerate(elements)
            ]
            for table in (child.history, child.current if is_in_force else None):
                if made and table is not None:
                    self._insert(self._connection, table, made)

    def _quarantine(self, one: MissingValue, entry: QuarantinedWrite) -> None:
        """Put a value that does not fit there, without its bytes."""
        name = self._encoding.tables[entry.table].name
        version = (one.block_number, one.tx_number, one.write_number)
        reason = (storable_text(entry.reason), storable_text(entry.detail, MAX_SENTENCE_BYTES))
        row: Row = (one.key_id, name, *version, *reason, entry.value, None, None)
        self._insert(self._connection, self._tables.quarantine, [row])

    def _close_quarantine(self, number: int, key_id: int) -> None:
        """Close the entries of a key as if its values had come in their order."""
        entry, mapped = self._tables.quarantine, self._mapped[number]
        closed = entry.c.closed_by
        self._connection.execute(
            update(entry)
            .where(entry.c.table_name == mapped.name, entry.c.key_id == key_id)
            .where(or_(closed.is_(None), closed.not_in(KEPT_CLOSINGS)))
            .values(derived_closing(entry, mapped.history))
        )

    def _sequence(self, one: MissingValue) -> int:
        """Give the sequence of the definition in force for the value's block, 0 where there is none."""
        table = self._tables.chaincode_definition
        newest = (
            select(table.c.sequence)
            .where(table.c.chaincode == one.key.namespace, table.c.block_number < one.block_number)
            .order_by(desc(table.c.block_number))
            .limit(1)
        )
        return self._connection.scalar(newest) or 0

    def _read_facts(self, one: MissingValue) -> TransactionFacts:
        """Read what the ledger layer has of the transaction: all that a mapping can ask for."""
        place = (one.block_number, one.tx_number)
        if place not in self._facts:
            self._facts = {place: self._transaction_facts(one)}
        return self._facts[place]

    def _transaction_facts(self, one: MissingValue) -> TransactionFacts:
        table = self._tables.transaction
        statement = with_facts(select(table.c.tx_number), self._tables).where(
            table.c.block_number == one.block_number, table.c.tx_number == one.tx_number
        )
        return stored_facts(self._connection.execute(statement).one())


def _at(table: Table, one: MissingValue, names: Sequence[str]) -> Iterator[ColumnElement[bool]]:
    """Yield the conditions that a row is of the version of a value; `names` of block, transaction and write."""
    for name, number in zip(names, (one.block_number, one.tx_number, one.write_number), strict=True):
        yield table.c[name] == number
