"""The table `operation_log`: what operators did to the tables beside following the chain. Entries are only added.

A command appends its entry in the transaction that does the deed, so that there is no deed without an entry and no
entry without a deed.
"""

import getpass
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, desc, func, insert, select

from kvr_sync.errors import ConfigurationError
from kvr_sync.model import Checkpoint
from kvr_sync.store.encoding import DatabaseKind, stored_time
from kvr_sync.store.ledger_sink import Clock, utc_now
from kvr_sync.store.schema import LedgerTables
from kvr_sync.store.status import read_time, stored_checkpoint

MAX_REASON_CHARACTERS = 2_000


class Operation(NamedTuple):
    """What an operator asks for. `detail` goes to JSON: names and numbers, never values of the ledger."""

    name: str
    operator: str
    reason: str | None = None
    detail: Mapping[str, object] = {}


class LoggedOperation(NamedTuple):
    """An entry as it stands in the table; blocks are those of the checkpoint, None: before the first."""

    operation_id: int
    logged_at: datetime
    operation: str
    operator: str
    reason: str | None
    detail: Mapping[str, Any]
    before_block: int | None
    after_block: int | None


def asked_operation(
    name: str, reason: str | None, *, is_production: bool, detail: Mapping[str, object] | None = None
) -> Operation:
    """Make the operation that a command was asked for, by the user of the operating system that asks.

    Raises ConfigurationError without a reason in production, and for one that is too long or holds U+0000.
    """
    words = (reason or "").strip()
    if is_production and not words:
        raise ConfigurationError(f"{name}: in production say why, with --why; it is kept in operation_log")
    if len(words) > MAX_REASON_CHARACTERS or "\0" in words:
        raise ConfigurationError(f"--why: at most {MAX_REASON_CHARACTERS:,} characters of text")
    return Operation(name, _user(), words or None, detail or {})


def append_operation(
    connection: Connection,
    tables: LedgerTables,
    operation: Operation,
    before: Checkpoint | None,
    *,
    clock: Clock = utc_now,
) -> None:
    """Append an entry, in the caller's transaction; `before` is the checkpoint as it was, the one after is read now."""
    kind = DatabaseKind(connection.dialect.name)
    operator = operation.operator
    if kind is DatabaseKind.POSTGRESQL:
        operator = f"{operator}, database user {connection.scalar(select(func.session_user()))}"
    after = stored_checkpoint(connection, tables)
    connection.execute(
        insert(tables.operation).values(
            logged_at=stored_time(kind, clock()),
            operation=operation.name,
            operator=operator,
            reason=operation.reason,
            detail=json.dumps(operation.detail) if operation.detail else None,
            before_block=before.block_number if before else None,
            before_header_hash=before.header_hash if before else None,
            after_block=after.block_number if after else None,
            after_header_hash=after.header_hash if after else None,
        )
    )


def read_operations(connection: Connection, tables: LedgerTables, *, newest: int = 100) -> list[LoggedOperation]:
    """Read the newest entries, newest first."""
    table = tables.operation
    rows = connection.execute(select(table).order_by(desc(table.c.operation_id)).limit(newest))
    return [_entry(row) for row in rows]


def _entry(row: Any) -> LoggedOperation:  # noqa: ANN401  a row of a table that drift checking vouches for
    logged_at = read_time(row.logged_at)
    if logged_at is None:
        raise ValueError("operation_log.logged_at is NOT NULL")
    detail = json.loads(row.detail) if row.detail else {}
    return LoggedOperation(
        row.operation_id,
        logged_at,
        row.operation,
        row.operator,
        row.reason,
        detail,
        row.before_block,
        row.after_block,
    )


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        return "unknown user"
