"""What operators do to mapped tables beside following the chain: make them again, release values from the quarantine.

Each is one transaction under the fence of the checkpoint, with its entry in `operation_log`.
"""

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any, NamedTuple

from sqlalchemy import Connection, Select, or_, select

from kvr_sync.errors import ConfigurationError
from kvr_sync.mapping.api_version import find_name
from kvr_sync.mapping.definition import Mapping
from kvr_sync.mapping.quarantine import REASONS
from kvr_sync.model import Checkpoint
from kvr_sync.quarantine_report import count_quarantine, explain_quarantine
from kvr_sync.read import open_tables
from kvr_sync.store.change_feed import ChangeKind
from kvr_sync.store.ledger_sink import LedgerSink
from kvr_sync.store.mapped_layer import MappedLayer, Mended, Report
from kvr_sync.store.opening import open_store, recorded_member
from kvr_sync.store.operation_log import Operation, append_operation
from kvr_sync.store.quarantine_closing import KEPT_CLOSINGS
from kvr_sync.store.sink import Hook, no_hook


class TableOperation(NamedTuple):
    """What an operation did: table by table, at which block, and what is still in quarantine, by table and reason."""

    channel: str
    block_number: int | None
    tables: list[Mended]
    quarantined: dict[tuple[str, str], int]


def rebuild_tables(
    url: str,
    channel: str | None,
    names: Sequence[str],
    operation: Operation,
    *,
    report: Report = lambda _done, _all: None,
    hook: Hook = no_hook,
) -> TableOperation:
    """Make mapped tables (none named: all) again from the ledger layer, by the recorded mapping.

    Rows that differ are put right, whatever changed them, and announced in the feed. The quarantine is made again too.
    Of private versions that were erased, `MappedLayer` says what it keeps.
    Raises ConfigurationError: no such table, nothing there. Any other error of the sink leaves all as it was.
    """
    with _opened(url, channel, hook) as (sink, name), sink.fenced() as (connection, checkpoint):
        chosen = _chosen(sink.mapping, names, sink.database.place)
        layer = MappedLayer(sink, connection, checkpoint.block_number if checkpoint else None)
        mended = layer.make_again(chosen, report=report)
        return _logged(sink, connection, operation, name, checkpoint, mended)


def release_quarantine(
    url: str,
    channel: str | None,
    table: str | None,
    key: str | None,
    operation: Operation,
    *,
    report: Report = lambda _done, _all: None,
) -> TableOperation:
    """Apply the values in quarantine that fit the mapping now in force, each at its own version.

    `table`: of this table alone; `key`: of this key of it, readable or by its number. Those of closed entries take
    their places in the history, too. A row that changes, or whose past does, is announced as `release`. What still
    does not fit stays, with the reason of today. Raises as `rebuild_tables`; ConfigurationError for a key that never
    was in quarantine.
    """
    with _opened(url, channel) as (sink, name), sink.fenced() as (connection, checkpoint):
        chosen = _chosen(sink.mapping, [] if table is None else [table], sink.database.place)
        layer = MappedLayer(sink, connection, checkpoint.block_number if checkpoint else None)
        keys = _quarantined_keys(sink, [sink.mapping.tables[number].name for number in chosen])
        if table is not None and key is not None:
            entries = explain_quarantine(connection, sink.tables, sink.mapping.tables[chosen[0]].name, key)
            keys = keys.where(sink.tables.quarantine.c.key_id.in_({entry.key_id for entry in entries}))
        mended = layer.make_again(chosen, keys=keys, announced_as=ChangeKind.RELEASE, report=report)
        return _logged(sink, connection, operation, name, checkpoint, mended)


def operation_facts(done: TableOperation) -> dict[str, Any]:
    """Give what an operation did, for machines."""
    counts = [{"table": table, "reason": why, "open": count} for (table, why), count in done.quarantined.items()]
    return {
        "channel": done.channel,
        "block_number": done.block_number,
        "tables": [one._asdict() for one in done.tables],
        "quarantined": counts,
    }


def describe_rebuilt(done: TableOperation) -> Iterator[str]:
    """Tell in words what was made again."""
    yield f"channel {done.channel}: tables made again from the ledger layer, {_where(done)}"
    for one in done.tables:
        wrong = f"{one.versions + one.rows:,} rows put right, {one.changes:,} changes announced"
        yield f"  {one.table}: {wrong if one.versions or one.rows or one.changes else 'as it was'}"
    yield from _describe_quarantine(done)


def describe_released(done: TableOperation) -> Iterator[str]:
    """Tell in words what left the quarantine."""
    yield f"channel {done.channel}: {sum(one.released for one in done.tables):,} values released, {_where(done)}"
    for one in done.tables:
        if one.released:
            yield f"  {one.table}: {one.released:,} released, {one.changes:,} changes announced"
    yield from _describe_quarantine(done)


def _where(done: TableOperation) -> str:
    return "before the first block" if done.block_number is None else f"at block {done.block_number}"


def _describe_quarantine(done: TableOperation) -> Iterator[str]:
    for (table, why), count in done.quarantined.items():
        yield f"  {table}: {count:,} in quarantine: {REASONS.get(why, why)}"


@contextmanager
def _opened(url: str, channel: str | None, hook: Hook = no_hook) -> Iterator[tuple[LedgerSink, str]]:
    """Open the tables of a channel, or of the only one, for writing; without mapped tables there is nothing to do."""
    with open_tables(url, channel) as synced:
        name = synced.channel
    member = recorded_member(url, name)
    with closing(open_store(url, name, private_member=member, create=False, hook=hook)) as sink:
        if not sink.mapping.tables:
            raise ConfigurationError(f"{sink.database.place}: channel {name} has no mapped tables")
        yield sink, name


def _chosen(mapping: Mapping, names: Sequence[str], place: str) -> list[int]:
    """Give the places of tables in the mapping; none named: all of them."""
    known = {table.name: number for number, table in enumerate(mapping.tables)}
    # Of tables that are not there the error speaks below.
    names = [find_name(name, known) or name for name in names]
    for name in names:
        if name not in known:
            parents = [table.name for table in mapping.tables if name in {child.name for child in table.children}]
            told = f"its rows come with table {parents[0]}" if parents else f"there are {', '.join(known)}"
            raise ConfigurationError(f"{place}: no mapped table {name!r}: {told}")
    return sorted({known[name] for name in names} if names else known.values())


def _quarantined_keys(sink: LedgerSink, names: Sequence[str]) -> Select[tuple[int]]:
    entry = sink.tables.quarantine
    is_kept = or_(entry.c.closed_by.is_(None), entry.c.closed_by.not_in(KEPT_CLOSINGS))
    return select(entry.c.key_id).where(entry.c.table_name.in_(names), is_kept).distinct()


def _logged(
    sink: LedgerSink,
    connection: Connection,
    operation: Operation,
    channel: str,
    checkpoint: Checkpoint | None,
    mended: list[Mended],
) -> TableOperation:
    done = {one.table: {"changes": one.changes, "released": one.released} for one in mended}
    detail = {**operation.detail, "tables": done}
    append_operation(connection, sink.tables, operation._replace(detail=detail), checkpoint)
    counts = count_quarantine(connection, sink.tables)
    number = checkpoint.block_number if checkpoint else None
    names = {one.table for one in mended}
    return TableOperation(
        channel, number, mended, {place: count for place, count in counts.items() if place[0] in names}
    )
