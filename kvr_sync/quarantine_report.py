"""What is in quarantine, and why: values that did not fit their mapping, told without showing them."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, func, select

from kvr_sync.errors import ConfigurationError
from kvr_sync.mapping.external_id import external_id
from kvr_sync.mapping.quarantine import REASONS
from kvr_sync.store.schema import LedgerTables
from network.protocol.composite_key import split_composite_key


class QuarantineEntry(NamedTuple):
    """One value. `key`: readable, as an `external_id` is; `bytes_kept`: 0 for a private value.

    `closed_by`: overwritten, deleted, released or erased, with block `closed_block`; None: it is open.
    """

    table: str
    key_id: int
    key: str
    block_number: int
    tx_number: int
    write_number: int
    tx_id: str
    reason: str
    detail: str
    bytes_kept: int
    closed_by: str | None
    closed_block: int | None


def read_quarantine(
    connection: Connection, tables: LedgerTables, *, table: str | None = None, closed: bool = False, limit: int = 100
) -> list[QuarantineEntry]:
    """Read the open entries, oldest first; with `closed` those that are closed, too. `table`: of this table alone."""
    entry = tables.quarantine
    conditions = [] if table is None else [entry.c.table_name == table]
    if not closed:
        conditions.append(entry.c.closed_block.is_(None))
    return list(_read(connection, tables, conditions, limit))


def count_quarantine(connection: Connection, tables: LedgerTables) -> dict[tuple[str, str], int]:
    """Count the open entries by table and reason."""
    entry = tables.quarantine
    columns = (entry.c.table_name, entry.c.reason)
    statement = select(*columns, func.count()).where(entry.c.closed_block.is_(None)).group_by(*columns)
    return {(row[0], row[1]): row[2] for row in connection.execute(statement.order_by(*columns))}


def explain_quarantine(connection: Connection, tables: LedgerTables, table: str, key: str) -> list[QuarantineEntry]:
    """Read every entry of one key of a table, open and closed; `key` is readable, or the number `key_id`.

    Raises ConfigurationError where there is none.
    """
    entry = tables.quarantine
    found = [
        one
        for one in _read(connection, tables, [entry.c.table_name == table], None)
        if key in (one.key, str(one.key_id))
    ]
    if not found:
        raise ConfigurationError(f"nothing of key {key!r} of table {table!r} was ever in quarantine")
    return found


def describe_entry(entry: QuarantineEntry) -> Iterator[str]:
    """Tell an entry in words."""
    where = f"block {entry.block_number}, transaction {entry.tx_number}, write {entry.write_number}"
    yield f"{entry.table}  {entry.key}  (key {entry.key_id}, {where}, {entry.tx_id})"
    yield f"  {entry.reason}: {REASONS.get(entry.reason, 'a reason this version does not know')}"
    yield f"  {entry.detail}; {entry.bytes_kept:,} bytes are kept"
    if entry.closed_by is not None:
        yield f"  closed: {entry.closed_by} with block {entry.closed_block}"
    else:
        yield "  open: a later good value of the key closes it; the row before it stays as it is"


def _read(
    connection: Connection, tables: LedgerTables, conditions: list[ColumnElement[bool]], limit: int | None
) -> Iterator[QuarantineEntry]:
    entry, key, transaction = tables.quarantine, tables.key, tables.transaction
    statement = (
        select(
            entry.c.table_name,
            entry.c.key_id,
            key.c.key,
            entry.c.block_number,
            entry.c.tx_number,
            entry.c.write_number,
            transaction.c.tx_id,
            entry.c.reason,
            entry.c.detail,
            func.length(entry.c.value),
            entry.c.closed_by,
            entry.c.closed_block,
        )
        .join(key, key.c.key_id == entry.c.key_id)
        .outerjoin(
            transaction,
            (transaction.c.block_number == entry.c.block_number) & (transaction.c.tx_number == entry.c.tx_number),
        )
        .where(*conditions)
        .order_by(entry.c.block_number, entry.c.tx_number, entry.c.write_number, entry.c.table_name)
        .limit(limit)
    )
    for row in connection.execute(statement):
        values: list[Any] = list(row)
        values[2] = _readable(bytes(values[2]))
        yield QuarantineEntry(*values)


def _readable(key: bytes) -> str:
    parts = split_composite_key(key)
    return external_id(key, () if parts is None else parts[1])
