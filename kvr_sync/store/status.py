"""Where a channel's tables stand, read from them; the sink and the readers ask the same questions."""

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, desc, func, select

from kvr_sync.mapping.definition import Mapping
from kvr_sync.mapping.validation import from_json
from kvr_sync.model import Checkpoint
from kvr_sync.store.schema import LedgerTables
from kvr_sync.store.sink import Anchor, RunRecord, RunResult, StoreStatus

NO_MAPPING = Mapping("none", ())
"""The mapping of a database that has the ledger layer alone."""


def recorded_mapping(connection: Connection, tables: LedgerTables, place: str) -> Mapping:
    """Give the mapping that the mapped tables were made from; NO_MAPPING where there are none."""
    newest = select(tables.mapping.c.content).order_by(tables.mapping.c.version.desc()).limit(1)
    content = connection.scalar(newest)
    return NO_MAPPING if content is None else from_json(content, f"{place}: the recorded mapping")


UNFINISHED = -1
"""`sync_mapping.applied_at_block` of a mapping whose columns and tables are there and not filled yet."""


def is_mapping_unfinished(connection: Connection, tables: LedgerTables) -> bool:
    """Whether the newest mapping is still being applied, or its application broke off."""
    table = tables.mapping
    newest = select(table.c.applied_at_block).order_by(table.c.version.desc()).limit(1)
    return connection.scalar(newest) == UNFINISHED


def mapping_version(connection: Connection, tables: LedgerTables) -> int:
    """Give the version of the mapping in force; 0 where there is none."""
    return int(connection.scalar(select(func.max(tables.mapping.c.version))) or 0)


def stored_checkpoint(connection: Connection, tables: LedgerTables) -> Checkpoint | None:
    """Read the last block applied; None before the first."""
    table = tables.checkpoint
    row = connection.execute(select(table.c.block_number, table.c.header_hash, table.c.commit_hash)).one_or_none()
    if row is None:
        return None
    commit_hash = None if row.commit_hash is None else bytes(row.commit_hash)
    return Checkpoint(row.block_number, bytes(row.header_hash), commit_hash)


def stored_anchor(connection: Connection, tables: LedgerTables) -> Anchor | None:
    """Read what the chain rests on; None before the first block."""
    table = tables.checkpoint
    row = connection.execute(select(table.c.anchor, table.c.genesis_hash)).one_or_none()
    return None if row is None else Anchor(row.anchor, bytes(row.genesis_hash))


def read_status(connection: Connection, tables: LedgerTables, *, runs: int = 10) -> StoreStatus:
    """Count what the tables hold, with the newest `runs` runs."""
    code = tables.transaction.c.validation_code
    counts = connection.execute(select(code, func.count()).group_by(code).order_by(code))
    newest_runs = select(tables.run).order_by(desc(tables.run.c.run_id)).limit(runs)
    return StoreStatus(
        stored_checkpoint(connection, tables),
        stored_anchor(connection, tables),
        read_time(connection.scalar(select(tables.checkpoint.c.updated_at))),
        {row[0]: row[1] for row in counts},
        connection.scalar(select(func.count()).select_from(tables.quarantine)) or 0,
        tuple(_run_record(row) for row in connection.execute(newest_runs)),
    )


def read_time(stored: Any) -> datetime | None:  # noqa: ANN401  what a driver gives: datetime, or ISO text in SQLite
    """Give the time that a column of type TIME holds; None for NULL."""
    return datetime.fromisoformat(stored) if isinstance(stored, str) else stored


def _run_record(row: Any) -> RunRecord:  # noqa: ANN401  a row of a table that drift checking vouches for
    result = RunResult(*(getattr(row, name) for name in RunResult._fields))
    started_at = read_time(row.started_at)
    if started_at is None:
        raise ValueError("sync_run.started_at is NOT NULL")
    return RunRecord(row.run_id, started_at, read_time(row.ended_at), result)
