"""Where a channel's tables stand, read from them; the sink and the readers ask the same questions."""

from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, Select, desc, func, select

from kvr_sync.mapping.api_version import combine, qualify
from kvr_sync.mapping.definition import Mapping
from kvr_sync.mapping.validation import from_json
from kvr_sync.model import Checkpoint
from kvr_sync.store.channel_name import api_schema_name
from kvr_sync.store.schema import LedgerTables
from kvr_sync.store.sink import Anchor, RunRecord, RunResult, StoreStatus

NO_MAPPING = Mapping("none", ())
"""The mapping of a database that has the ledger layer alone."""


UNFINISHED = -1
"""`sync_mapping.applied_at_block` of a mapping whose tables are there and not filled; no engine writes till then."""
BUILDING = -2
"""The same of one whose tables are being filled beside others, which engines keep up meanwhile."""
RETIRED = ""
"""`sync_mapping.content` of the version with which the tables of a version of the API were taken away."""


class RecordedMapping(NamedTuple):
    """A mapping by the names of its file. `version`: of the record; `api_version`: that its tables are of."""

    version: int
    api_version: int
    applied_at_block: int
    mapping: Mapping

    @property
    def qualified(self) -> Mapping:
        """The mapping by what its tables are called beside those of others."""
        return qualify(self.mapping, self.api_version)

    def schema(self, of_channel: str | None) -> str | None:
        """Give the schema of its tables in PostgreSQL, by that of the channel."""
        return None if of_channel is None else api_schema_name(of_channel, self.api_version)


class RecordedMappings(NamedTuple):
    """What a database has tables of. `in_force`: the newest mapping of each version of the API, oldest first.

    `newest_version` and `newest_api`: the highest numbers that were ever given.
    """

    in_force: tuple[RecordedMapping, ...]
    building: RecordedMapping | None
    newest_version: int
    newest_api: int

    @property
    def combined(self) -> Mapping:
        """All tables that an engine keeps up; NO_MAPPING where there are none."""
        return combine([one.qualified for one in self.in_force]) if self.in_force else NO_MAPPING


def recorded_mappings(connection: Connection, tables: LedgerTables, place: str) -> RecordedMappings:
    """Read the mappings that the mapped tables were made from; `place` names the database in errors."""
    table = tables.mapping
    newest: dict[int, RecordedMapping] = {}
    building: RecordedMapping | None = None
    newest_version = newest_api = 0
    columns = (table.c.version, table.c.api_version, table.c.applied_at_block, table.c.content)
    is_building = table.c.applied_at_block == BUILDING
    of_each = select(func.max(table.c.version)).where(~is_building).group_by(table.c.api_version)
    wanted = table.c.version.in_(of_each) | is_building
    for version, api_version, block, content in connection.execute(
        select(*columns).where(wanted).order_by(table.c.api_version)
    ):
        newest_version, newest_api = max(newest_version, version), max(newest_api, api_version)
        if content == RETIRED:
            continue
        mapping = from_json(content, f"{place}: the recorded mapping")
        recorded = RecordedMapping(version, api_version, block, mapping)
        if block == BUILDING:
            building = recorded
        else:
            newest[api_version] = recorded
    return RecordedMappings(tuple(newest.values()), building, newest_version, newest_api)


def recorded_mapping(connection: Connection, tables: LedgerTables, place: str) -> Mapping:
    """Give the mapping of all tables that an engine keeps up; NO_MAPPING where there are none."""
    return recorded_mappings(connection, tables, place).combined


def is_mapping_unfinished(connection: Connection, tables: LedgerTables) -> bool:
    """Whether the newest mapping is still being applied where the tables stand, or its application broke off."""
    table = tables.mapping
    unfinished = select(table.c.version).where(table.c.applied_at_block == UNFINISHED)
    return connection.scalar(unfinished.limit(1)) is not None


def mapping_version(connection: Connection, tables: LedgerTables) -> int:
    """Give the version of the mapping in force; 0 where there is none."""
    return int(connection.scalar(version_in_force(tables)) or 0)


def version_in_force(tables: LedgerTables) -> Select[Any]:
    """Select the version that engines work with; it changes with every change of what they keep up."""
    table = tables.mapping
    return select(func.max(table.c.version)).where(table.c.applied_at_block != BUILDING)


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
