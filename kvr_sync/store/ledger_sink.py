"""What the sinks of both databases share: the order of a commit, the dictionaries, and every read.

The edges, bulk writing and types, are in `sqlite_sink` and `postgresql_sink`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Select,
    Table,
    and_,
    desc,
    func,
    insert,
    select,
    tuple_,
    update,
)

from kvr_sync.errors import CheckpointConflictError, MappingChangedError, SinkError, TablesRewoundError
from kvr_sync.mapping.conversion import moment
from kvr_sync.mapping.definition import Mapping as TableMappings
from kvr_sync.model import (
    Checkpoint,
    ConfigFacts,
    Effect,
    LateValue,
    LedgerKey,
    MissingValue,
    RowBatch,
    StateValue,
)
from kvr_sync.store.change_feed import ChangeKind, number_changes
from kvr_sync.store.database import READING, Database
from kvr_sync.store.database_error import DRIVER_ERRORS, driver_errors
from kvr_sync.store.dictionary import CACHED_KEYS, CACHED_NAMES, Dictionary, key_digest
from kvr_sync.store.encoding import DatabaseKind, encoding_for, stored_time
from kvr_sync.store.erasure import Erasure
from kvr_sync.store.late_values import LONGEST_PAUSE, LateArrival, LateCounts, note_asked, read_missing
from kvr_sync.store.mapped_table import MappedTable
from kvr_sync.store.private_rows import add_missing, end_outdated, mark_purged
from kvr_sync.store.rows import (
    DELETED,
    KEPT,
    MISSED,
    NEVER_ASKED,
    PURGED,
    BlockRow,
    ChaincodeName,
    CopyTypes,
    MappedRows,
    PrivateRows,
    Row,
    Rows,
    Run,
    RunRows,
    block_rows,
    run_rows,
)
from kvr_sync.store.schema import LedgerTables
from kvr_sync.store.sink import (
    AFTER_CHECKPOINT,
    AFTER_COMMIT,
    AFTER_HALF_OF_ROWS,
    AFTER_ROWS,
    BEFORE_BEGIN,
    BEFORE_COMMIT,
    Anchor,
    AnchorName,
    Hook,
    PrivateCounts,
    RunResult,
    StoreStatus,
    no_hook,
)
from kvr_sync.store.status import BUILDING, read_status, stored_anchor, stored_checkpoint, version_in_force
from network.protocol.read_write_set import Version

K = TypeVar("K", bytes, int)

Place = tuple[Column[Any], str]
"""Rows of a table that have a value in a column."""

LOOKUP_SIZE = 1_000
"""Values compared in one look-up statement; both databases take many more parameters."""

CACHED_STATEMENTS = 512
"""Of each kind, by table; a service makes its tables anew for every run."""


_CLOSED_BY = {KEPT: "overwritten", DELETED: "deleted", PURGED: "erased", MISSED: "overwritten"}
"""A value that is missing is one that came after."""


class Touched(NamedTuple):
    """What the change feed knows of a run's keys of one table, for those who write its current rows."""

    existing: frozenset[int]
    """Numbers of keys that have a current row before the run."""
    last_change: Mapping[int, int]
    """By position of the key, for those that have a row afterwards."""


Clock = Callable[[], datetime]
"""Gives the present time, in UTC."""


class Store(NamedTuple):
    """An opened and checked database with its tables: what a sink writes to."""

    channel: str
    database: Database
    tables: LedgerTables
    mapping: TableMappings
    mapped: tuple[MappedTable, ...]
    mapping_version: int


def utc_now() -> datetime:
    """Give the time of the machine's clock."""
    return datetime.now(UTC)  # noqa: TID251  this is the clock that is handed in by default


class LedgerSink(ABC):
    """A `Sink`, apart from what depends on the database."""

    def __init__(self, store: Store, *, hook: Hook = no_hook, clock: Clock = utc_now) -> None:
        self.mapping = store.mapping
        self._channel = store.channel
        self.database = store.database
        self._place = store.database.place
        self.tables = store.tables
        self.mapped = store.mapped
        self._mapping_version = store.mapping_version
        self._feeds: list[_Feed] = []
        """By mapped table; like the dictionaries."""
        self._has_open_quarantine = True
        self.encoding = encoding_for(self.kind, store.mapping)
        self._hook = hook
        self._clock = clock
        self._connection: Connection | None = None
        self._keys: Dictionary[bytes] = Dictionary(CACHED_KEYS)
        self._identities: Dictionary[bytes] = Dictionary(CACHED_NAMES)
        self._chaincodes: Dictionary[ChaincodeName] = Dictionary(CACHED_NAMES)
        self._endorser_sets: Dictionary[bytes] = Dictionary(CACHED_NAMES)
        self._known_at: Checkpoint | None = None
        """The checkpoint at which the dictionaries were right; None: they are not."""
        self._known_operation = 0
        """The newest entry of `operation_log` then: what operators do changes tables at the same checkpoint."""

    # The edges.

    kind: DatabaseKind
    copy_types: CopyTypes | None

    @abstractmethod
    def _prepare(self, connection: Connection) -> None:
        """Make a new session ready to write."""

    @abstractmethod
    def _announce(self, connection: Connection, channel: str, new: Checkpoint) -> None:
        """Tell whoever listens at the database that the checkpoint has moved, with the COMMIT or not at all."""

    @abstractmethod
    def _insert_once(self, connection: Connection, table: Table, values: Mapping[str, object]) -> bool:
        """Insert a row unless its primary key is there; say whether it was inserted."""

    @abstractmethod
    def _insert(self, connection: Connection, table: Table, rows: Rows, *numbers: Sequence[int]) -> None:
        """Insert rows, many at once; `numbers`: what goes in the place of the positions that they begin with."""

    @abstractmethod
    def _write_versions(
        self,
        connection: Connection,
        table: int,
        rows: MappedRows[Rows],
        keys: Sequence[int],
        touch: "Touched",
    ) -> None:
        """Write the history of a mapped table and its children, where they have one, and bring their current rows up.

        `keys`: numbers by position.
        """

    @abstractmethod
    def _find(
        self,
        connection: Connection,
        number: Column[Any],
        given: Column[Any],
        wanted: Sequence[K],
        place: Place | None = None,
    ) -> dict[K, int]:
        """Give what stands beside those of `wanted` that a column of a table has, everywhere or in one place of it."""

    # Writing.

    def commit(
        self, expected: Checkpoint | None, batches: Sequence[RowBatch], new: Checkpoint, *, anchor: AnchorName
    ) -> None:
        """Move the checkpoint from `expected` to `new` and write the rows of the blocks between, in one transaction."""
        self.commit_run(expected, Run(block_rows(batches), run_rows(batches, self.encoding)), new, anchor=anchor)

    def commit_run(self, expected: Checkpoint | None, run: Run, new: Checkpoint, *, anchor: AnchorName) -> None:
        """Do the same with rows that are made already, by this sink's `encoding`."""
        self._check_run(expected, run.blocks, new)
        if len(run.rows.mapped) != len(self.mapped):
            raise CheckpointConflictError("the rows of a run are those of another mapping than the sink's")
        self._hook(BEFORE_BEGIN)
        known, self._known_at = self._known_at, None
        with self._transaction() as connection:
            # First of all: a second writer fails here, or waits here for the end of ours and then fails.
            self._move_checkpoint(connection, expected, run.blocks, new, anchor)
            self._hook(AFTER_CHECKPOINT)
            operation = self._check_mapping(connection)
            if known is None or known != expected or operation != self._known_operation:
                self._reload_dictionaries(connection)
                self._known_operation = operation
            elif run.rows.private is not None:
                self._reload_feeds(connection)  # values that came late moved them, and no checkpoint
            last_known = self._keys.last
            keys = self._write_ledger_layer(connection, run)
            self._hook(AFTER_HALF_OF_ROWS)
            if run.rows.private is not None:
                self._write_private(connection, run.rows.private, keys, last_known)
            changes: list[Row] = []
            for table, rows in enumerate(run.rows.mapped):
                if rows.history:
                    changes += self._write_mapped(connection, table, rows, keys, last_known)
            if run.rows.private is not None:
                changes += self._erase(connection, run.rows.private.last_block)
            self._write_changes(connection, changes)
            self._announce(connection, self._channel, new)
            self._hook(AFTER_ROWS)
            self._hook(BEFORE_COMMIT)
        self._known_at = new
        self._hook(AFTER_COMMIT)

    @contextmanager
    def fenced(self, *, building: bool = False) -> Iterator[tuple[Connection, Checkpoint | None]]:
        """Give a transaction in which nobody else applies a block, and the checkpoint at which it stands.

        What happens inside is committed at the end, or nothing of it. An engine that has something to commit
        meanwhile waits, and after `LOCK_SECONDS` tries again. MappingChangedError where the mapping is another one by
        now; with `building`, where it is not being built any more.
        """
        with self._transaction() as connection:
            self.database.lock_for_settling(connection)
            self._known_at = None
            if building:
                self._check_building(connection)
            else:
                self._check_mapping(connection)
            yield connection, stored_checkpoint(connection, self.tables)
            self._hook(BEFORE_COMMIT)
        self._hook(AFTER_COMMIT)

    @contextmanager
    def beside(self) -> Iterator[tuple[Connection, Checkpoint | None]]:
        """Give a transaction for filling tables of a mapping that is being built, and a checkpoint they will reach.

        Engines apply blocks meanwhile; of those who build, one at a time gets here. MappingChangedError where the
        mapping is not being built any more.
        """
        with self._transaction() as connection:
            self._check_building(connection)
            yield connection, stored_checkpoint(connection, self.tables)
            self._hook(BEFORE_COMMIT)
        self._hook(AFTER_COMMIT)

    def _check_building(self, connection: Connection) -> None:
        table = self.tables.mapping
        row = select(table.c.version).where(
            table.c.version == self._mapping_version, table.c.applied_at_block == BUILDING
        )
        if connection.execute(row.with_for_update()).first() is None:
            raise MappingChangedError(
                f"{self._place}: version {self._mapping_version} of the mapping of channel {self._channel} is not being"
                " built any more: somebody else finished it, or took it back"
            )

    def bring_back(self, connection: Connection, new: Checkpoint) -> None:
        """Set the checkpoint to an earlier block, inside `fenced`, and tell listeners of it as of any other."""
        values = {**new._asdict(), "updated_at": stored_time(self.kind, self._clock())}
        connection.execute(update(self.tables.checkpoint).values(**values))
        self._announce(connection, self._channel, new)

    def insert(self, connection: Connection, table: Table, rows: Rows, *numbers: Sequence[int]) -> None:
        """Insert rows in the order of `row_columns`; `numbers`: what goes in the place of leading positions."""
        if rows:
            self._insert(connection, table, rows, *numbers)

    def apply_late(self, values: Sequence[LateValue]) -> LateCounts:
        """Put values that were missing in their places, all in one transaction, and announce the rows they make.

        No block is applied meanwhile. To be called again after any error: what has come is not missing any more.
        """
        arrived = 0
        changes: list[Row] = []

        def announce(table: int, key_id: int, version: tuple[int, int, int]) -> int:
            feed = self._feeds[table]
            feed.last += 1
            changes.append((feed.table_id, feed.last, int(ChangeKind.LATE), key_id, *version))
            return feed.last

        with self._transaction() as connection:
            self.database.lock_for_settling(connection)
            self._reload_feeds(connection)
            arrival = LateArrival(
                connection, self.tables, self.mapping, self.mapped, self.encoding, self._insert, announce
            )
            for value in values:
                arrived += arrival.take(value)
            self._write_changes(connection, changes)
        return LateCounts(arrived, len(values) - arrived)

    def read_missing(self, *, due: bool, after: MissingValue | None = None, limit: int) -> list[MissingValue]:
        """Read private values that are missing, oldest first: all, or those `due` to be asked for again."""
        now = self._clock()
        times = (now, now + LONGEST_PAUSE) if due else (None, None)
        due_at, too_late = (stored_time(self.kind, time) for time in times)
        with self._transaction(reading=True) as connection:
            return read_missing(connection, self.tables, due_at=due_at, too_late=too_late, after=after, limit=limit)

    def note_asked(self, missing: Sequence[MissingValue]) -> None:
        """Write down that peers were asked for these in vain, so that they are asked less often."""
        with self._transaction() as connection:
            note_asked(connection, self.tables, self.kind, missing, self._clock())

    def settle(self, expected: Checkpoint | None, new: Checkpoint) -> bool:
        """Learn on a fresh connection whether a `commit` of unknown outcome was applied."""
        self.close()
        with self._transaction() as connection:
            self.database.lock_for_settling(connection)
            stored = stored_checkpoint(connection, self.tables)
        if stored == new:
            return True
        if stored == expected:
            return False
        raise self._moved(stored, expected)

    def count_private(self) -> PrivateCounts:
        """Count what is held of the private state."""
        table = self.tables.private_value
        held = select(func.count(table.c.value)).where(table.c.ended_block.is_(None))
        missing = select(func.count()).select_from(table).where(table.c.due_at.is_not(None))
        with self._transaction(reading=True) as connection:
            return PrivateCounts(connection.scalar(held) or 0, connection.scalar(missing) or 0)

    def begin_run(self) -> int:
        """Record that a run of the engine begins; give its number."""
        run = self.tables.run
        with self._transaction() as connection:
            statement = insert(run).returning(run.c.run_id)
            started_at = stored_time(self.kind, self._clock())
            values = {"started_at": started_at, "outcome": "running", "blocks": 0, "transactions": 0}
            return int(connection.execute(statement.values(**values)).scalar_one())

    def end_run(self, run_id: int, result: RunResult) -> None:
        """Record how it ended."""
        run = self.tables.run
        with self._transaction() as connection:
            connection.execute(
                update(run)
                .where(run.c.run_id == run_id)
                .values(ended_at=stored_time(self.kind, self._clock()), **result._asdict())
            )

    def close(self) -> None:
        """Give the connection back; a later call opens a new one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(*DRIVER_ERRORS):  # a broken link cannot be closed properly, and need not be
                connection.close()

    # Reading.

    def checkpoint(self) -> Checkpoint | None:
        """Give the last block applied; None before the first."""
        with self._transaction(reading=True) as connection:
            return stored_checkpoint(connection, self.tables)

    def anchor(self) -> Anchor:
        """Give what the chain rests on."""
        with self._transaction(reading=True) as connection:
            anchor = stored_anchor(connection, self.tables)
        if anchor is None:
            raise CheckpointConflictError(f"{self._place}: channel {self._channel} has no block yet")
        return anchor

    def read_config(self) -> tuple[int, ConfigFacts] | None:
        """Give the configuration in force after the checkpoint, and the block that brought it."""
        config = self.tables.config
        newest = select(config).order_by(desc(config.c.block_number)).limit(1)
        with self._transaction(reading=True) as connection:
            row = connection.execute(newest).one_or_none()
        return None if row is None else (row.block_number, ConfigFacts(row.sequence, bytes(row.content)))

    def read_values(self, keys: Iterable[LedgerKey]) -> dict[LedgerKey, StateValue]:
        """Give what the world state holds at the checkpoint, by history."""
        public: dict[bytes, LedgerKey] = {}
        private: dict[bytes, LedgerKey] = {}
        for key in keys:
            (private if key.collection else public)[key_digest(*key)] = key
        values: dict[LedgerKey, StateValue] = {}
        with self._transaction(reading=True) as connection:
            for wanted, history in ((public, self.tables.key_history), (private, self.tables.private_hash)):
                for chunk in chunks(list(wanted), LOOKUP_SIZE):
                    for digest, block, tx, effect, value in connection.execute(self._newest_values(history, chunk)):
                        if effect in (Effect.PUT, Effect.VERSION):
                            values[wanted[bytes(digest)]] = StateValue(bytes(value), Version(block, tx))
        return values

    def status(self, *, runs: int = 10) -> StoreStatus:
        """Count what the database holds, with the newest `runs` runs."""
        with self._transaction(reading=True) as connection:
            return read_status(connection, self.tables, runs=runs)

    # One transaction.

    @contextmanager
    def _transaction(self, *, reading: bool = False) -> Iterator[Connection]:
        """Commit what happens inside, or nothing of it; after any trouble the session is given up."""
        done = False
        try:
            with driver_errors(self._place):
                connection = self._connected()
                connection.execution_options(**{READING: reading})
                transaction = connection.begin()
                yield connection
            with driver_errors(self._place, committing=not reading):
                transaction.commit()
            done = True
        finally:
            if not done:
                self._give_up()

    def _connected(self) -> Connection:
        if self._connection is None:
            connection = self.database.engine.connect()
            try:
                self._prepare(connection)
            except DRIVER_ERRORS:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def _give_up(self) -> None:
        """End the session and whatever it had begun. The dictionaries may have learnt from it and are forgotten."""
        self._known_at = None
        connection, self._connection = self._connection, None
        if connection is None:
            return
        with suppress(*DRIVER_ERRORS):  # where even this fails, the database ends the transaction with the session
            connection.rollback()
        with suppress(*DRIVER_ERRORS):
            connection.invalidate()
            connection.close()

    # Parts of a commit.

    def _check_run(self, expected: Checkpoint | None, blocks: Sequence[BlockRow], new: Checkpoint) -> None:
        first = 0 if expected is None else expected.block_number + 1
        numbers = [block.block_number for block in blocks]
        if not blocks or numbers != list(range(first, first + len(numbers))):
            raise CheckpointConflictError(f"the blocks of a run must follow {_where(expected)} one by one")
        if new != Checkpoint(numbers[-1], blocks[-1].header_hash, blocks[-1].commit_hash):
            raise CheckpointConflictError(f"the new checkpoint is not that of the last block of the run, {numbers[-1]}")

    def _move_checkpoint(
        self,
        connection: Connection,
        expected: Checkpoint | None,
        blocks: Sequence[BlockRow],
        new: Checkpoint,
        anchor: AnchorName,
    ) -> None:
        table = self.tables.checkpoint
        values: dict[str, object] = {**new._asdict(), "updated_at": stored_time(self.kind, self._clock())}
        if expected is None:
            values |= {"channel": self._channel, "genesis_hash": blocks[0].header_hash, "anchor": anchor}
            moved = self._insert_once(connection, table, values)
        else:
            if anchor == "pinned":
                values["anchor"] = anchor
            result = connection.execute(
                update(table)
                .where(
                    table.c.channel == self._channel,
                    table.c.block_number == expected.block_number,
                    table.c.header_hash == expected.header_hash,
                )
                .values(**values)
            )
            moved = result.rowcount == 1
        if not moved:
            raise self._moved(stored_checkpoint(connection, self.tables), expected)

    def _moved(self, stored: Checkpoint | None, expected: Checkpoint | None) -> SinkError:
        """Give the error that tells who moved the checkpoint: another engine only moves it on."""
        channel = f"{self._place}: the checkpoint of channel {self._channel}"
        if expected is not None and (stored is None or stored.block_number < expected.block_number):
            return TablesRewoundError(
                f"{channel} was brought back from {_where(expected)} to {_where(stored)}: a new run goes on there"
            )
        return CheckpointConflictError(
            f"{channel} is {_where(stored)} and not {_where(expected)}: another engine moved it"
        )

    def _check_mapping(self, connection: Connection) -> int:
        """Refuse to go on under a mapping that is not in force any more; give the newest entry of `operation_log`.

        Asked while the checkpoint is locked, under which mappings change, too.
        """
        version = version_in_force(self.tables).scalar_subquery()
        operation = select(func.max(self.tables.operation.c.operation_id)).scalar_subquery()
        in_force, newest = connection.execute(select(version, operation)).one()
        if (in_force or 0) != self._mapping_version:
            raise MappingChangedError(
                f"{self._place}: the mapping of channel {self._channel} is at version {in_force} now, and this engine"
                f" began with version {self._mapping_version}: it has to begin anew"
            )
        return newest or 0

    def _reload_feeds(self, connection: Connection) -> None:
        feed, quarantine = self.tables.mapped_table, self.tables.quarantine
        stored = {
            name: _Feed(number, last)
            for number, name, last in connection.execute(
                select(feed.c.table_id, feed.c.name, feed.c.last_change_id).where(
                    feed.c.mapping_version == self._mapping_version
                )
            )
        }
        self._feeds = [stored[mapped.name] for mapped in self.mapped]
        is_open = select(quarantine.c.key_id).where(quarantine.c.closed_block.is_(None))
        self._has_open_quarantine = connection.execute(is_open.limit(1)).first() is not None

    def _reload_dictionaries(self, connection: Connection) -> None:
        self._reload_feeds(connection)
        tables = self.tables
        for dictionary, number in (
            (self._keys, tables.key.c.key_id),
            (self._identities, tables.identity.c.identity_id),
            (self._chaincodes, tables.chaincode.c.chaincode_id),
            (self._endorser_sets, tables.endorser_set.c.endorser_set_id),
        ):
            dictionary.forget(connection.scalar(select(func.max(number))) or 0)

    def _write_ledger_layer(self, connection: Connection, run: Run) -> list[int]:
        """Write the rows of the ledger layer; give the number of every key of the run, by its position."""
        tables, rows = self.tables, run.rows
        keys = self._key_numbers(connection, rows)
        identities = self._identity_numbers(connection, rows)
        chaincodes = self._chaincode_numbers(connection, rows)
        endorser_sets = self._endorser_set_numbers(connection, rows, identities)
        self._insert(connection, tables.block, [self._block_row(block) for block in run.blocks])
        ledger = rows.ledger
        for table, part, numbers in (
            (tables.transaction, ledger.transaction, (identities, chaincodes, endorser_sets)),
            (tables.key_history, ledger.key_history, (keys,)),
            (tables.private_hash, ledger.private_hash, (keys,)),
            (tables.key_metadata, ledger.key_metadata, (keys,)),
            (tables.refused_write, ledger.refused_write, (keys,)),
            (tables.event, ledger.event, ()),
            (tables.config, ledger.config, ()),
            (tables.chaincode_definition, ledger.chaincode_definition, ()),
            (tables.collection_definition, ledger.collection_definition, ()),
            (tables.quarantine, ledger.quarantine, (keys,)),
        ):
            if part:
                self._insert(connection, table, part, *numbers)
        if ledger.quarantine:
            self._has_open_quarantine = True
        return keys

    def _block_row(self, block: BlockRow) -> Row:
        *facts, first_seen = block
        seconds, nanos = divmod(first_seen, 1_000_000_000)
        time = moment(seconds, nanos) if first_seen else None
        return (*facts, None if time is None else self.encoding.time(time))

    def _write_mapped(
        self, connection: Connection, table: int, rows: MappedRows[Rows], keys: Sequence[int], last_known: int
    ) -> list[Row]:
        """Write what a run does to one mapped table; give the rows of its change feed.

        Keys above `last_known` are new, so there is no row of them yet.
        """
        mapped = self.mapped[table]
        known = [keys[position] for position in rows.current if keys[position] <= last_known]
        key_id = mapped.current.c.kvr_key_id
        before = frozenset(self._find(connection, key_id, key_id, known)) if known else frozenset()
        feed = self._feeds[table]
        changes = number_changes(feed.table_id, rows, keys, set(before), feed.last)
        feed.last = changes.last
        self._write_versions(connection, table, rows, keys, Touched(before, changes.last_of_key))
        if self._has_open_quarantine:
            self._close_quarantine(connection, mapped.name, rows, keys)
        return changes.rows

    def _write_changes(self, connection: Connection, changes: list[Row]) -> None:
        if not changes:
            return
        self._insert(connection, self.tables.change, changes)
        table = self.tables.mapped_table
        touched = {change[0] for change in changes}
        for feed in self._feeds:
            if feed.table_id in touched:
                connection.execute(
                    update(table).where(table.c.table_id == feed.table_id).values(last_change_id=feed.last)
                )

    def _close_quarantine(self, connection: Connection, name: str, rows: MappedRows[Rows], keys: Sequence[int]) -> None:
        """Close the entries of keys that have a later good version, or none any more."""
        table = self.tables.quarantine
        version = (table.c.block_number, table.c.tx_number, table.c.write_number)
        # Few keys ever have an entry; the plain look-up costs a small part of what comes after it.
        touched, of_table = [keys[position] for position in rows.current], (table.c.table_name, name)
        ever_quarantined = list(self._find(connection, table.c.key_id, table.c.key_id, touched, of_table))
        if not ever_quarantined:
            return
        steps: dict[int, list[tuple[tuple[int, int, int], int]]] = {}
        fields = iter(rows.steps)
        for place, gone, block, tx, write in zip(fields, fields, fields, fields, fields, strict=True):
            steps.setdefault(keys[place], []).append(((block, tx, write), gone))
        for chunk in chunks(ever_quarantined, LOOKUP_SIZE):
            open_entries = select(table.c.key_id, *version).where(
                table.c.table_name == name, table.c.closed_block.is_(None), table.c.key_id.in_(chunk)
            )
            for key_id, *position in connection.execute(open_entries).all():
                # The first one after it, so that it does not matter which blocks were committed together.
                later = next((step for step in steps[key_id] if step[0] > tuple(position)), None)
                if later is None:
                    continue
                (block, _, _), gone = later
                connection.execute(
                    update(table)
                    .where(table.c.table_name == name, table.c.key_id == key_id, tuple_(*version) == tuple(position))
                    .values(closed_block=block, closed_by=_CLOSED_BY[gone])
                )

    def _write_private(self, connection: Connection, rows: PrivateRows, keys: Sequence[int], last_known: int) -> None:
        """Write the private values, after the ledger layer: a member that joins misses what that holds hashes of."""
        tables = self.tables
        end_outdated(connection, tables, rows, keys, lambda number: number <= last_known)
        if rows.versions:
            self._insert(connection, tables.private_value, [(keys[row[0]], *row[1:]) for row in rows.versions])
        mark_purged(connection, tables, rows, keys)
        for membership, joined in rows.memberships:
            due_at = stored_time(self.kind, NEVER_ASKED)
            add_missing(connection, tables, membership, joined, rows.last_block, due_at)

    def _erase(self, connection: Connection, last_block: int) -> list[Row]:
        """Erase what is due up to the last block, and announce the rows that go with it."""
        changes: list[Row] = []
        erasure = Erasure(connection, self.tables, last_block)
        if not erasure.is_due():
            return changes
        for feed, mapped in zip(self._feeds, self.mapped, strict=True):
            if mapped.is_private:
                for key_id, *version in erasure.erase_rows(mapped):
                    feed.last += 1
                    changes.append((feed.table_id, feed.last, int(ChangeKind.ERASURE), key_id, *version))
        erasure.erase_values()
        return changes

    def _endorser_set_numbers(
        self, connection: Connection, rows: RunRows[Rows], identities: Sequence[int]
    ) -> list[int]:
        """Give the numbers of the endorser sets of a run, writing rows for the new ones."""
        table = self.tables.endorser_set
        digests = [
            sha256(b"".join(rows.identities[position][0] for position in members)).digest()
            for members in rows.endorser_sets
        ]
        resolved = self._endorser_sets.resolve(
            digests, lambda missing: self._find(connection, table.c.endorser_set_id, table.c.digest, missing)
        )
        if resolved.fresh:
            members_of = dict(zip(digests, rows.endorser_sets, strict=True))
            self._insert(connection, table, list(resolved.fresh))
            self._insert(
                connection,
                self.tables.endorser,
                [
                    (number, place, identities[position])
                    for number, digest in resolved.fresh
                    for place, position in enumerate(members_of[digest])
                ],
            )
        return [resolved.ids[digest] for digest in digests]

    def _key_numbers(self, connection: Connection, rows: RunRows[Rows]) -> list[int]:
        key = self.tables.key
        digests = [digest for _, _, _, digest in rows.keys]
        resolved = self._keys.resolve(
            digests, lambda missing: self._find(connection, key.c.key_id, key.c.digest, missing)
        )
        if resolved.fresh:
            positions = {digest: position for position, digest in enumerate(digests)}
            self._insert(
                connection, key, [(number, *rows.keys[positions[digest]]) for number, digest in resolved.fresh]
            )
        return [resolved.ids[digest] for digest in digests]

    def _identity_numbers(self, connection: Connection, rows: RunRows[Rows]) -> list[int]:
        identity = self.tables.identity
        digests = [digest for digest, _, _ in rows.identities]
        resolved = self._identities.resolve(
            digests, lambda missing: self._find(connection, identity.c.identity_id, identity.c.digest, missing)
        )
        if resolved.fresh:
            contents = {entry[0]: entry for entry in rows.identities}
            self._insert(connection, identity, [(number, *contents[digest]) for number, digest in resolved.fresh])
        return [resolved.ids[digest] for digest in digests]

    def _chaincode_numbers(self, connection: Connection, rows: RunRows[Rows]) -> list[int]:
        """Give the numbers of the chaincodes of a run, writing rows for the new ones."""
        resolved = self._chaincodes.resolve(rows.chaincodes, lambda pairs: self._find_chaincodes(connection, pairs))
        if resolved.fresh:
            self._insert(connection, self.tables.chaincode, [(number, *pair) for number, pair in resolved.fresh])
        return [resolved.ids[pair] for pair in rows.chaincodes]

    def _find_chaincodes(self, connection: Connection, pairs: Sequence[ChaincodeName]) -> dict[ChaincodeName, int]:
        table = self.tables.chaincode
        found: dict[ChaincodeName, int] = {}
        for chunk in chunks(pairs, LOOKUP_SIZE):
            condition = tuple_(table.c.name, table.c.version).in_(chunk)
            for number, name, version in connection.execute(
                select(table.c.chaincode_id, table.c.name, table.c.version).where(condition)
            ):
                found[name, version] = number
        return found

    # Parts of reading.

    def _newest_values(self, history: Table, digests: Sequence[bytes]) -> Select[Any]:
        """For each key: version and effect of its newest write that had an effect, and the value it was last given.

        Each column is a probe of its own into the primary key, from its newest end; so a key with a long history
        costs no more than one with a short.
        """
        key = self.tables.key
        value = history.c.value if "value" in history.c else history.c.value_hash
        newest = (desc(history.c.block_number), desc(history.c.tx_number), desc(history.c.write_number))

        def probe(column: Column[Any], *effects: Effect) -> ColumnElement[Any]:
            had_one = history.c.effect.in_([int(effect) for effect in effects])
            condition = and_(history.c.key_id == key.c.key_id, had_one)
            return select(column).where(condition).order_by(*newest).limit(1).scalar_subquery()

        return select(
            key.c.digest,
            probe(history.c.block_number, Effect.PUT, Effect.DELETE, Effect.VERSION),
            probe(history.c.tx_number, Effect.PUT, Effect.DELETE, Effect.VERSION),
            probe(history.c.effect, Effect.PUT, Effect.DELETE, Effect.VERSION),
            probe(value, Effect.PUT),
        ).where(key.c.digest.in_(digests))


@dataclass
class _Feed:
    """Number of a mapped table, and the last change of it."""

    table_id: int
    last: int


def chunks(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    """Cut a sequence into parts of at most `size`."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _where(checkpoint: Checkpoint | None) -> str:
    if checkpoint is None:
        return "before block 0"
    return f"block {checkpoint.block_number} ({checkpoint.header_hash.hex()[:16]})"
