"""The tables of a channel brought back to an earlier block, so that a run goes on from there with any source.

One transaction under the fence of the checkpoint, with its entry in `operation_log`. The mapped tables follow from the
ledger layer as it is then; their feed goes on, and tells what was put right.
"""

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any, NamedTuple

from sqlalchemy import Connection

from kvr_sync.errors import ConfigurationError
from kvr_sync.model import Checkpoint
from kvr_sync.read import open_tables
from kvr_sync.store.ledger_sink import LedgerSink
from kvr_sync.store.mapped_layer import MappedLayer, Mended
from kvr_sync.store.opening import open_store, recorded_member
from kvr_sync.store.operation_log import Operation, append_operation
from kvr_sync.store.rewind import LaterBlocks, checkpoint_after, count_later, take_out_later, touched_keys
from kvr_sync.store.sink import Hook, no_hook

Report = Callable[[str, float], None]
"""Called with what is being done and how much of the work is, from 0 to 1."""


class Rewound(NamedTuple):
    """What a rewind did: from which block to which, what was taken out, and what that did to each mapped table."""

    channel: str
    before_block: int
    block_number: int
    blocks: int
    transactions: int
    tables: list[Mended]


def rewind_tables(
    url: str,
    channel: str | None,
    block_number: int,
    operation: Operation,
    *,
    report: Report = lambda _facts, _fraction: None,
    hook: Hook = no_hook,
) -> Rewound:
    """Bring all tables of a channel back to what they were after a block; where they are there already, do nothing.

    Raises ConfigurationError: a block that is not applied, a database that holds private data (what was erased since
    cannot come back), no tables there. Any other error of the sink leaves all as it was, unless its outcome is unknown.
    """
    with open_tables(url, channel) as synced:
        name = synced.channel
        place = synced.place
    member = recorded_member(url, name)
    if member is not None:
        raise ConfigurationError(
            f"{place}: channel {name} holds the private data of {member}, and values that were erased since block"
            f" {block_number} cannot come back: fill an empty database"
        )
    with closing(open_store(url, name, create=False, hook=hook)) as sink:
        return rewind_sink(sink, name, block_number, operation, report=report)


def rewind_sink(
    sink: LedgerSink,
    channel: str,
    block_number: int,
    operation: Operation,
    *,
    report: Report = lambda _facts, _fraction: None,
) -> Rewound:
    """Do that with tables that are open and hold no private data."""
    with sink.fenced() as (connection, checkpoint):
        target = checkpoint_after(connection, sink.tables, block_number)
        if checkpoint is None or target is None:
            height = checkpoint.block_number + 1 if checkpoint else 0
            raise ConfigurationError(
                f"{sink.database.place}: channel {channel} holds {height} blocks, from 0 on: block {block_number} is"
                " none of them"
            )
        later = count_later(connection, sink.tables, block_number)
        mended = []
        if target.block_number < checkpoint.block_number:
            mended = _bring_back(sink, connection, target, report)
            _log(sink, connection, operation, checkpoint, later, mended)
        return Rewound(channel, checkpoint.block_number, block_number, *later, mended)


def _bring_back(sink: LedgerSink, connection: Connection, target: Checkpoint, report: Report) -> list[Mended]:
    """Take the blocks above `target` out of ledger layer and mapped layer, and move the checkpoint there."""
    tables, number = sink.tables, target.block_number
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SET LOCAL statement_timeout = 0")  # one statement empties half a table
    with touched_keys(connection, tables, number) as keys:
        for name, place, count in take_out_later(connection, tables, number):
            report(f"taking rows out of {name}", place / count / 2)
        chosen = [place for place, table in enumerate(sink.mapped) if not table.is_private]

        def report_writes(done: int, total: int) -> None:
            report(f"{done:,} of {total:,} writes made rows again", 0.5 + done / max(total, 1) / 2)

        layer = MappedLayer(sink, connection, number)
        mended = layer.make_again(chosen, keys=keys, report=report_writes) if chosen else []
    sink.bring_back(connection, target)
    return mended


def _log(
    sink: LedgerSink,
    connection: Connection,
    operation: Operation,
    before: Checkpoint,
    later: LaterBlocks,
    mended: list[Mended],
) -> None:
    done = {one.table: {"changes": one.changes, "released": one.released} for one in mended}
    detail = {**operation.detail, **later._asdict(), "tables": done}
    append_operation(connection, sink.tables, operation._replace(detail=detail), before)


def rewound_facts(done: Rewound) -> dict[str, Any]:
    """Give what a rewind did, for machines."""
    return {**done._asdict(), "tables": [one._asdict() for one in done.tables]}


def describe_rewound(done: Rewound) -> Iterator[str]:
    """Tell in words what a rewind did."""
    if done.block_number == done.before_block:
        yield f"channel {done.channel}: stands at block {done.block_number}; nothing to do"
        return
    yield f"channel {done.channel}: brought back from block {done.before_block} to block {done.block_number}"
    yield f"  {done.blocks:,} blocks with {done.transactions:,} transactions taken out"
    for one in done.tables:
        if one.versions or one.rows or one.changes:
            yield f"  {one.table}: {one.versions + one.rows:,} rows put right, {one.changes:,} changes announced"
    yield f"the next run goes on with block {done.block_number + 1}"
