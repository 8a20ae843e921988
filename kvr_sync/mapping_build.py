"""Tables of a new version of the API, filled from the ledger layer beside those that engines keep up.

Blocks go on arriving meanwhile. Keys are made in parts, each in a transaction of its own, which waits for no engine and
no reader; then those that were written since, again and again, until few blocks are left. The rest is made under the
fence of the checkpoint, in the transaction that puts the mapping in force: engines begin anew after it, and keep up the
tables of both. What breaks off is begun again by applying the same mapping, and finds the rows that are right already.

Tables of private data are made in that last transaction alone: nobody would erase a value that stood in them before.
"""

from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any, NamedTuple

from sqlalchemy import Connection, Select, func, select, update

from kvr_sync.errors import MappingChangedError
from kvr_sync.model import Checkpoint
from kvr_sync.store.database import Database
from kvr_sync.store.ledger_layer import written_after
from kvr_sync.store.ledger_sink import LedgerSink, Store
from kvr_sync.store.mapped_layer import MappedLayer, Mended, Report
from kvr_sync.store.mapped_table import mapped_tables
from kvr_sync.store.opening import sink_for
from kvr_sync.store.operation_log import Operation, append_operation
from kvr_sync.store.schema import ledger_tables
from kvr_sync.store.sink import Hook, no_hook
from kvr_sync.store.status import RecordedMapping

PART_KEYS = 5_000
"""Keys of one part: in SQLite an engine waits as long as one takes."""
FEW_BLOCKS = 20
"""So many may be left for the time in which no block is applied."""
MOST_ROUNDS = 50
"""Where blocks come faster than they are made, engines wait in the end."""


class Built(NamedTuple):
    """The tables that were filled, and the block from which on engines keep them up; None: there is none yet."""

    block_number: int | None
    tables: list[Mended]
    quarantined: int


def fill_beside(
    database: Database,
    channel: str,
    new: RecordedMapping,
    operation: Operation,
    *,
    report: Report = lambda _done, _all: None,
    on_part: Callable[[], None] = lambda: None,
    hook: Hook = no_hook,
) -> Built:
    """Fill the tables of a mapping that is recorded as being built, and put it in force.

    Raises MappingChangedError where somebody else finished it or took it back meanwhile, or rewound the tables.
    """
    tables = ledger_tables(database.schema)
    mapping = new.qualified
    store = Store(channel, database, tables, mapping, mapped_tables(mapping, tables), new.version)
    with closing(sink_for(store, hook=hook)) as sink:
        return _Build(sink, on_part).run(operation, new, report)


class _Build:
    def __init__(self, sink: LedgerSink, on_part: Callable[[], None]) -> None:
        self._sink = sink
        self._tables = sink.tables
        self._on_part = on_part
        numbered = [*enumerate(sink.mapping.tables)]
        self._public = [number for number, table in numbered if not table.collections]
        self._private = [number for number, table in numbered if table.collections]
        self._made: dict[str, Mended] = {}
        """By table, what was done so far. Nothing is counted at the end, where blocks wait."""

    def run(self, operation: Operation, new: RecordedMapping, report: Report) -> Built:
        with self._sink.beside() as (connection, checkpoint):
            reached = _number(checkpoint)
            last_key = connection.scalar(select(func.max(self._tables.key.c.key_id))) or 0
            rewound = self._last_rewind(connection)
        for first in range(0, last_key + 1, PART_KEYS):
            with self._sink.beside() as (connection, _):
                self._make(connection, self._public, self._between(first, first + PART_KEYS))
            report(min(first + PART_KEYS, last_key), last_key)
            self._on_part()
        for _ in range(MOST_ROUNDS):
            with self._sink.beside() as (connection, checkpoint):
                number = _number(checkpoint)
                if number - reached <= FEW_BLOCKS:
                    break
                self._make(connection, self._public, written_after(self._tables, reached))
            reached = number
            self._on_part()
        with self._sink.fenced(building=True) as (connection, checkpoint):
            if self._last_rewind(connection) != rewound:
                raise MappingChangedError(
                    f"{self._sink.database.place}: the tables were rewound meanwhile: apply again"
                )
            self._make(connection, self._public, written_after(self._tables, reached))
            self._make(connection, self._private, None)
            return self._put_in_force(connection, checkpoint, operation, new)

    def _make(self, connection: Connection, chosen: Sequence[int], keys: Select[Any] | None) -> None:
        if not chosen:
            return
        # Not closed with a block: entries are as a replay of all blocks leaves them.
        layer = MappedLayer(self._sink, connection, None)
        for one in layer.make_again(chosen, keys=keys, fresh=self._private):
            before = self._made.get(one.table)
            self._made[one.table] = one if before is None else before.followed_by(one)

    def _between(self, first: int, end: int) -> Select[tuple[int]]:
        key = self._tables.key.c.key_id
        return select(key).where(key >= first, key < end)

    def _last_rewind(self, connection: Connection) -> int:
        log = self._tables.operation
        return connection.scalar(select(func.max(log.c.operation_id)).where(log.c.operation == "rewind")) or 0

    def _put_in_force(
        self, connection: Connection, checkpoint: Checkpoint | None, operation: Operation, new: RecordedMapping
    ) -> Built:
        tables = self._tables
        number = checkpoint.block_number if checkpoint else None
        recorded = tables.mapping.c.version == new.version
        connection.execute(update(tables.mapping).where(recorded).values(applied_at_block=number or 0))
        connection.execute(update(tables.mapped_table).values(mapping_version=new.version))
        detail = {"version": new.version, "digest": new.mapping.digest, "api_version": new.api_version}
        append_operation(connection, tables, operation._replace(detail={**operation.detail, **detail}), checkpoint)
        made = [self._made[mapped.name] for mapped in self._sink.mapped]
        return Built(number, made, sum(one.quarantined for one in made))


def _number(checkpoint: Checkpoint | None) -> int:
    return -1 if checkpoint is None else checkpoint.block_number
