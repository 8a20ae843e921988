"""`kvr sync doctor`: looks whether a database is as the engine needs it, and whether its tables hold together.

Nothing is written, and all is read at one moment. Each finding says what to do about it. What holds is stated as
queries that find nothing: the invariants are those that every commit keeps, so a row that breaks one was changed by
something else than the engine.
"""

import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal, NamedTuple

from sqlalchemy import Connection, Table, and_, func, select, text
from sqlalchemy.sql import Select

from kvr_sync.errors import KvrSyncError
from kvr_sync.read import SyncedTables, SyncStatus, open_place, open_tables, read_sync_status
from kvr_sync.store.database import NEWEST_POSTGRESQL, OLDEST_POSTGRESQL, undurable_settings
from kvr_sync.store.database_error import driver_errors
from kvr_sync.store.drift import first_difference
from kvr_sync.store.ledger_sink import Clock, utc_now
from kvr_sync.store.mapped_table import VERSION_COLUMNS, MappedTable, mapped_tables, standing
from kvr_sync.store.migration import NEWEST_REVISION, stored_revision
from kvr_sync.store.opening import check_position
from kvr_sync.store.status import is_mapping_unfinished, read_status, recorded_mappings

Verdict = Literal["ok", "warn", "fail"]

SEEN_SECONDS = 120.0
"""A follower asks a quiet peer more often than this."""
LAG_SECONDS = 60.0
LEAST_FREE_BYTES = 1024**3
LEAST_FREE_FRACTION = 0.05


class Finding(NamedTuple):
    """What one look showed. `advice` is empty where there is nothing to do."""

    check: str
    verdict: Verdict
    text: str
    advice: str = ""


def examine(url: str, channel: str | None, *, is_production: bool = False, clock: Clock = utc_now) -> Iterator[Finding]:
    """Yield the findings on a database and the tables of one channel in it; total: trouble is a finding, too."""
    try:
        with open_place(url) as place:
            yield Finding("database", "ok", f"{place.name} answers")
            yield from _server(place.connection, is_production=is_production)
    except KvrSyncError as error:
        yield Finding("database", "fail", str(error), "check the URL, the server and the password")
        return
    try:
        with open_tables(url, channel) as synced:
            yield from _tables(synced, clock)
    except KvrSyncError as error:
        yield Finding("tables", "fail", str(error), "run `kvr sync migrate`, or start the engine; name the channel")


def _server(connection: Connection, *, is_production: bool) -> Iterator[Finding]:
    if connection.dialect.name == "sqlite":
        version = connection.scalar(text("SELECT sqlite_version()"))
        yield Finding("version", "ok", f"SQLite {version}")
        return
    number = int(connection.scalar(text("SELECT current_setting('server_version_num')")) or 0) // 10_000
    yield judge_version(number)
    encoding = connection.scalar(text("SHOW server_encoding"))
    if encoding == "UTF8":
        yield Finding("encoding", "ok", "UTF8")
    else:
        yield Finding("encoding", "fail", f"the database is encoded in {encoding}", "create one in UTF8")
    off = undurable_settings(connection)
    if off:
        advice = "switch it on: what was acknowledged may be lost, and the tables torn, when the server's machine fails"
        yield Finding("durability", "fail" if is_production else "warn", f"{', '.join(off)} off", advice)
    else:
        yield Finding("durability", "ok", "fsync and full_page_writes are on; the engine waits for its COMMITs")
    if connection.scalar(text("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")):
        advice = "let the engine connect as the writer of `kvr sync roles`, and this command as the auditor"
        yield Finding("user", "warn", "connected as a superuser, whom no right is kept from", advice)


def judge_version(major: int) -> Finding:
    """Judge the major version of a PostgreSQL server."""
    supported = f"PostgreSQL {major}; supported are {OLDEST_POSTGRESQL} to {NEWEST_POSTGRESQL}"
    if major < OLDEST_POSTGRESQL:
        return Finding("version", "fail", supported, "upgrade the server")
    if major > NEWEST_POSTGRESQL:
        return Finding("version", "warn", supported, "this version of kvr was not tested with it")
    return Finding("version", "ok", f"PostgreSQL {major}")


class _Examination(NamedTuple):
    synced: SyncedTables
    mapped: tuple[MappedTable, ...]
    clock: Clock

    @property
    def connection(self) -> Connection:
        return self.synced.connection


def _tables(synced: SyncedTables, clock: Clock) -> Iterator[Finding]:
    schema = synced.tables.metadata.schema
    revision, newest = stored_revision(synced.connection, schema), NEWEST_REVISION
    if revision != newest:
        what = f"tables at revision {revision}, this version makes {newest}"
        yield Finding("schema", "fail", what, "run `kvr sync migrate` as the owner, or use the version that made them")
        return
    recorded = recorded_mappings(synced.connection, synced.tables, synced.place)
    examination = _Examination(synced, mapped_tables(recorded.combined, synced.tables), clock)
    if is_mapping_unfinished(synced.connection, synced.tables):
        advice = "run `kvr sync apply` with the same mapping; until then no engine writes"
        yield Finding("mapping", "fail", "the newest mapping is recorded and its tables are not filled", advice)
        return
    building = recorded.building
    if building is not None:
        mapped_tables(building.qualified, synced.tables)  # ours, though nobody keeps them up yet
        number = building.api_version
        advice = f"if no `kvr sync apply` runs, run it again with the same mapping, or `kvr sync retire {number}`"
        yield Finding("mapping", "warn", f"version {number} of the API is being filled, or that broke off", advice)
    difference = first_difference(synced.connection, synced.tables.metadata)
    if difference is not None:
        advice = "undo what was changed by hand, or restore a backup"
        yield Finding("schema", "fail", f"revision {revision}, but {difference}", advice)
        return
    yield Finding("schema", "ok", f"revision {revision}, {len(examination.mapped)} mapped tables")
    for name, check in _CHECKS.items():
        yield _look(name, check, examination)


def _look(name: str, check: "Callable[[_Examination], Finding]", examination: _Examination) -> Finding:
    """Take one look; an error of it is a finding, and the others go on."""
    try:
        with driver_errors(examination.synced.place), examination.connection.begin_nested():
            return check(examination)
    except KvrSyncError as error:
        advice = "connect as the owner or the auditor (`kvr sync roles`)"
        return Finding(name, "warn", f"could not be looked at: {error}", advice)


def _position(examination: _Examination) -> Finding:
    synced = examination.synced
    advice = "restore a backup, or build the tables anew: nothing is mended by machine"
    try:
        number = check_position(synced.connection, synced.place, synced.tables, synced.channel)
    except KvrSyncError as error:
        return Finding("position", "fail", str(error), advice)
    block, before = synced.tables.block, synced.tables.block.alias("before")
    counted = select(func.count(), func.min(block.c.block_number), func.max(block.c.block_number))
    count, first, last = synced.connection.execute(counted).one()
    if count and count != last - first + 1:
        return Finding("position", "fail", f"of blocks {first} to {last} only {count:,} have a row", advice)
    torn = (
        select(func.min(block.c.block_number))
        .join(before, before.c.block_number == block.c.block_number - 1)
        .where(before.c.header_hash != block.c.previous_hash)
    )
    broken = synced.connection.scalar(torn)
    if broken is not None:
        return Finding("position", "fail", f"block {broken} does not follow from the row of the one before", advice)
    return Finding("position", "ok", f"block {number}; {count:,} blocks without a gap, each on the hash of its own")


def _validity(examination: _Examination) -> Finding:
    """Nothing of a refused transaction came into force (I5)."""
    tables = examination.synced.tables
    layers = [tables.key_history, tables.private_hash, tables.event]
    layers += [entry.history for entry in examination.mapped]
    for table in layers:
        names = ("block_number", "tx_number")
        if "kvr_block_number" in table.c:
            names = ("kvr_block_number", "kvr_tx_number")
        transaction = tables.transaction
        joined = and_(
            transaction.c.block_number == table.c[names[0]],
            transaction.c.tx_number == table.c[names[1]],
            transaction.c.validation_code == 0,
        )
        wrong = select(func.min(table.c[names[0]])).select_from(table.outerjoin(transaction, joined))
        block = examination.connection.scalar(wrong.where(transaction.c.block_number.is_(None)))
        if block is not None:
            what = f"{table.name} has rows of block {block} that no valid transaction wrote"
            return Finding("validity", "fail", what, _BY_HAND)
    return Finding("validity", "ok", "every write in force is of a valid transaction")


_BY_HAND = (
    "rows were changed by hand: compare with `kvr audit history`; `kvr sync rebuild` puts mapped tables right,"
    " those of the ledger layer have to be built anew"
)
_VERSION = VERSION_COLUMNS[1:]


def _state(examination: _Examination) -> Finding:
    """Current rows are the newest of their history (I3)."""
    for entry in examination.mapped:
        newest = _newest(entry.history)
        for what, query in (
            ("current rows that are not the newest of their history", _not_matched(entry.current, newest)),
            ("keys whose newest version is no current row", _without_current(newest, entry.current)),
        ):
            count = examination.connection.scalar(query) or 0
            if count:
                return Finding("state", "fail", f"{entry.name} has {count:,} {what}", _BY_HAND)
    return Finding("state", "ok", "current rows are the newest of their histories")


def _newest(history: Table) -> Select[tuple[object, ...]]:
    return select(*(history.c[name] for name in VERSION_COLUMNS)).where(*standing(history))


def _not_matched(current: Table, newest: Select[tuple[object, ...]]) -> Select[int]:
    found = newest.subquery()
    same = and_(*(found.c[name] == current.c[name] for name in VERSION_COLUMNS))
    return select(func.count()).select_from(current.outerjoin(found, same)).where(found.c.kvr_key_id.is_(None))


def _without_current(newest: Select[tuple[object, ...]], current: Table) -> Select[int]:
    found = newest.subquery()
    same = found.c.kvr_key_id == current.c.kvr_key_id
    return select(func.count()).select_from(found.outerjoin(current, same)).where(current.c.kvr_key_id.is_(None))


def _writes(examination: _Examination) -> Finding:
    """A version of a mapped table is in its history or in quarantine, and never in both (I4)."""
    tables = examination.synced.tables
    quarantine = tables.quarantine
    for entry in examination.mapped:
        history = entry.history
        same = and_(
            quarantine.c.key_id == history.c.kvr_key_id,
            *(quarantine.c[name.removeprefix("kvr_")] == history.c[name] for name in _VERSION),
        )
        both = (
            select(func.count())
            .select_from(history.join(quarantine, same))
            .where(
                quarantine.c.table_name == entry.name,
                quarantine.c.closed_block.is_(None),
                history.c.kvr_kind != "delete",  # as which a private value in quarantine takes the row before it
            )
        )
        count = examination.connection.scalar(both) or 0
        if count:
            return Finding("writes", "fail", f"{entry.name}: {count:,} versions stand in quarantine too", _BY_HAND)
        written = tables.private_hash if entry.is_private else tables.key_history
        known = and_(
            written.c.key_id == history.c.kvr_key_id,
            *(written.c[name.removeprefix("kvr_")] == history.c[name] for name in _VERSION),
        )
        unknown = select(func.count()).select_from(history.outerjoin(written, known)).where(written.c.key_id.is_(None))
        count = examination.connection.scalar(unknown) or 0
        if count:
            return Finding("writes", "fail", f"{entry.name}: {count:,} versions that the ledger has not", _BY_HAND)
    return Finding("writes", "ok", "every version of a mapped row is a write of the ledger, and not in quarantine")


def _roles(examination: _Examination) -> Finding:
    connection = examination.connection
    if connection.dialect.name == "sqlite":
        return Finding("roles", "ok", "an SQLite file: who may read the file may read everything in it")
    schemas = sorted({str(table.schema) for table in examination.synced.tables.metadata.tables.values()})
    open_to_all = (
        "SELECT relname FROM pg_class c, LATERAL aclexplode(c.relacl) a, pg_namespace n WHERE a.grantee = 0"
        " AND n.oid = c.relnamespace AND n.nspname = ANY(:schemas) ORDER BY relname LIMIT 1"
    )
    name = connection.scalar(text(open_to_all), {"schemas": schemas})
    if name is not None:
        return Finding("roles", "warn", f"everybody who can connect may use {name}", "run `kvr sync roles`")
    return Finding("roles", "ok", "no right is given to everybody")


def _disk(examination: _Examination) -> Finding:
    connection = examination.connection
    if connection.dialect.name == "postgresql":
        size = connection.scalar(text("SELECT pg_database_size(current_database())")) or 0
        what = f"the database has {size / 1024**2:,.0f} MiB; the server's disk is not to be seen from here"
        return Finding("disk", "ok", what)
    path = connection.execute(text("PRAGMA database_list")).one()[2]
    usage = shutil.disk_usage(Path(path).parent)
    what = f"{usage.free / 1024**3:,.1f} GiB free beside the file"
    if usage.free < LEAST_FREE_BYTES or usage.free < usage.total * LEAST_FREE_FRACTION:
        return Finding("disk", "warn", what, "make room before it is full; work then goes on by itself")
    return Finding("disk", "ok", what)


def _schedule(examination: _Examination) -> Finding:
    runs = read_status(examination.connection, examination.synced.tables, runs=1).runs
    if not runs:
        return Finding("schedule", "warn", "no run is recorded", "start `kvr sync follow` or `kvr sync serve`")
    run = runs[0]
    when = f"run {run.run_id} began {run.started_at:%Y-%m-%d %H:%M:%S}Z"
    if run.result.outcome == "failed":
        advice = f"what {run.result.error_code} asks of an operator stands in kvr_sync/errors.py"
        return Finding("schedule", "warn", f"{when} and failed: {run.result.error_code}", advice)
    if run.result.outcome == "running":
        return Finding("schedule", "ok", f"{when}; it runs, or was killed")
    return Finding("schedule", "ok", f"{when} and ended: {run.result.outcome}")


def _lag(examination: _Examination) -> Finding:
    return judge_lag(read_sync_status(examination.synced), examination.clock())


def judge_lag(status: SyncStatus, now: datetime) -> Finding:
    """Judge how far the tables are behind; a clock that is behind the database's makes nothing worse."""
    if status.peer_height is None or status.peer_seen_at is None:
        return Finding("lag", "ok", "blocks come from files: no peer to be behind of")
    age = max(timedelta(0), now - status.peer_seen_at.astimezone(UTC))
    behind = f"{status.lag_blocks:,} blocks behind, for {status.lag_seconds or 0:.1f} s"
    if age.total_seconds() > SEEN_SECONDS:
        what = f"no peer has been seen for {age.total_seconds():,.0f} s; then {behind}"
        return Finding("lag", "warn", what, "see whether an engine runs and its peers answer (its log: peer_left)")
    if (status.lag_seconds or 0) > LAG_SECONDS:
        return Finding("lag", "warn", behind, "see what the engine waits for: its log, or kvr_sync_stage_seconds")
    return Finding("lag", "ok", behind)


_CHECKS: dict[str, Callable[[_Examination], Finding]] = {
    "position": _position,
    "validity": _validity,
    "state": _state,
    "writes": _writes,
    "roles": _roles,
    "disk": _disk,
    "schedule": _schedule,
    "lag": _lag,
}
