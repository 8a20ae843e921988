"""What the sinks of both databases share: the order of a commit, the dictionaries, and every read.

The edges, bulk writing and types, are in `sqlite_sink` and `postgresql_sink`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any, NamedTuple

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

from kvr_sync.errors import CheckpointConflictError
from kvr_sync.mapping.definition import ColumnType
from kvr_sync.mapping.definition import Mapping as TableMappings
from kvr_sync.model import Checkpoint, ConfigFacts, Effect, LedgerKey, RowBatch, StateValue
from kvr_sync.store.database import READING, Database
from kvr_sync.store.database_error import DRIVER_ERRORS, driver_errors
from kvr_sync.store.dictionary import CACHED_KEYS, CACHED_NAMES, Dictionary, ledger_key_digest
from kvr_sync.store.mapped_table import MappedTable
from kvr_sync.store.rows import ChaincodeName, Encoder, Row, RunIds, ledger_rows, mapped_rows, run_names
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
    RunResult,
    StoreStatus,
    no_hook,
)
from kvr_sync.store.status import read_status, stored_anchor, stored_checkpoint
from kvr_sync.store.storable import storable_text
from network.protocol.read_write_set import Version

LOOKUP_SIZE = 1_000
"""Values compared in one look-up statement; both databases take many more parameters."""

Clock = Callable[[], datetime]
"""Gives the present time, in UTC."""


class Store(NamedTuple):
    """An opened and checked database with its tables: what a sink writes to."""

    channel: str
    database: Database
    tables: LedgerTables
    mapping: TableMappings
    mapped: tuple[MappedTable, ...]


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
        self._mapped = store.mapped
        self._encoders = tuple(tuple(self._encoder(kind) for kind in table.types) for table in store.mapped)
        self._hook = hook
        self._clock = clock
        self._connection: Connection | None = None
        self._keys: Dictionary[bytes] = Dictionary(CACHED_KEYS)
        self._identities: Dictionary[bytes] = Dictionary(CACHED_NAMES)
        self._chaincodes: Dictionary[ChaincodeName] = Dictionary(CACHED_NAMES)
        self._known_at: Checkpoint | None = None
        """The checkpoint at which the dictionaries were right; None: they are not."""

    # The edges.

    @abstractmethod
    def _encoder(self, kind: ColumnType) -> Encoder | None:
        """Give what turns a mapped value of a type into what the driver takes; None where it takes it as it is."""

    @abstractmethod
    def _encode_time(self, time: datetime) -> object:
        """Turn a time into what the driver takes."""

    @abstractmethod
    def _prepare(self, connection: Connection) -> None:
        """Make a new session ready to write."""

    @abstractmethod
    def _insert_once(self, connection: Connection, table: Table, values: Mapping[str, object]) -> bool:
        """Insert a row unless its primary key is there; say whether it was inserted."""

    @abstractmethod
    def _insert(self, connection: Connection, table: Table, rows: Sequence[Row]) -> None:
        """Insert rows, many at once."""

    @abstractmethod
    def _write_current(self, connection: Connection, table: int, current: Mapping[int, Row | None]) -> None:
        """Bring the current rows of a mapped table up to date: by key number the row to have, or None to have none."""

    @abstractmethod
    def _find(
        self, connection: Connection, number: Column[Any], digest: Column[Any], digests: Sequence[bytes]
    ) -> dict[bytes, int]:
        """Give the numbers of those digests that a dictionary table has."""

    # Writing.

    def commit(
        self, expected: Checkpoint | None, batches: Sequence[RowBatch], new: Checkpoint, *, anchor: AnchorName
    ) -> None:
        """Move the checkpoint from `expected` to `new` and write the rows of the blocks between, in one transaction."""
        self._check_run(expected, batches, new)
        self._hook(BEFORE_BEGIN)
        known, self._known_at = self._known_at, None
        with self._transaction() as connection:
            # First of all: a second writer fails here, or waits here for the end of ours and then fails.
            self._move_checkpoint(connection, expected, batches, new, anchor)
            self._hook(AFTER_CHECKPOINT)
            if known is None or known != expected:
                self._reload_dictionaries(connection)
            ids = self._resolve_names(connection, batches)
            names = [mapped.name for mapped in self._mapped]
            rows = ledger_rows(batches, ids, names, self._encode_time)
            for field, table_rows in zip(rows._fields, rows, strict=True):
                if table_rows:
                    self._insert(connection, getattr(self.tables, field), table_rows)
            self._hook(AFTER_HALF_OF_ROWS)
            for table, (history, current) in enumerate(mapped_rows(batches, ids.keys, self._encoders)):
                if history:
                    self._insert(connection, self._mapped[table].history, history)
                    self._write_current(connection, table, current)
            self._hook(AFTER_ROWS)
            self._hook(BEFORE_COMMIT)
        self._known_at = new
        self._hook(AFTER_COMMIT)

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
        raise CheckpointConflictError(
            f"{self._place}: the checkpoint of channel {self._channel} is {_where(stored)}, neither {_where(expected)}"
            f" nor {_where(new)}: another engine moved it"
        )

    def begin_run(self) -> int:
        """Record that a run of the engine begins; give its number."""
        run = self.tables.run
        with self._transaction() as connection:
            statement = insert(run).returning(run.c.run_id)
            started_at = self._encode_time(self._clock())
            values = {"started_at": started_at, "outcome": "running", "blocks": 0, "transactions": 0}
            return int(connection.execute(statement.values(**values)).scalar_one())

    def end_run(self, run_id: int, result: RunResult) -> None:
        """Record how it ended."""
        run = self.tables.run
        with self._transaction() as connection:
            connection.execute(
                update(run)
                .where(run.c.run_id == run_id)
                .values(ended_at=self._encode_time(self._clock()), **result._asdict())
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
            (private if key.collection else public)[ledger_key_digest(key)] = key
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

    def _check_run(self, expected: Checkpoint | None, batches: Sequence[RowBatch], new: Checkpoint) -> None:
        first = 0 if expected is None else expected.block_number + 1
        numbers = [batch.block.changes.header.number for batch in batches]
        last = batches[-1].block if batches else None
        if last is None or numbers != list(range(first, first + len(numbers))):
            raise CheckpointConflictError(f"the blocks of a run must follow {_where(expected)} one by one")
        if new != Checkpoint(numbers[-1], last.changes.header_hash, last.commit_hash):
            raise CheckpointConflictError(f"the new checkpoint is not that of the last block of the run, {numbers[-1]}")

    def _move_checkpoint(
        self,
        connection: Connection,
        expected: Checkpoint | None,
        batches: Sequence[RowBatch],
        new: Checkpoint,
        anchor: AnchorName,
    ) -> None:
        table = self.tables.checkpoint
        values: dict[str, object] = {**new._asdict(), "updated_at": self._encode_time(self._clock())}
        if expected is None:
            genesis_hash = batches[0].block.changes.header_hash
            values |= {"channel": self._channel, "genesis_hash": genesis_hash, "anchor": anchor}
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
            raise CheckpointConflictError(
                f"{self._place}: the checkpoint of channel {self._channel} is not {_where(expected)}:"
                " another engine moved it"
            )

    def _reload_dictionaries(self, connection: Connection) -> None:
        tables = self.tables
        for dictionary, number in (
            (self._keys, tables.key.c.key_id),
            (self._identities, tables.identity.c.identity_id),
            (self._chaincodes, tables.chaincode.c.chaincode_id),
        ):
            dictionary.forget(connection.scalar(select(func.max(number))) or 0)

    def _resolve_names(self, connection: Connection, batches: Sequence[RowBatch]) -> RunIds:
        """Give every key, identity and chaincode of a run its number, and write rows for the new ones."""
        tables = self.tables
        names = run_names(batches)
        keys = self._keys.resolve(
            names.keys.values(),
            lambda digests: self._find(connection, tables.key.c.key_id, tables.key.c.digest, digests),
        )
        if keys.fresh:
            key_of = {digest: key for key, digest in names.keys.items()}
            rows = [_key_row(number, key_of[digest], digest) for number, digest in keys.fresh]
            self._insert(connection, tables.key, rows)
        identities = self._identities.resolve(
            [digest for digest, _ in names.identities.values()],
            lambda digests: self._find(connection, tables.identity.c.identity_id, tables.identity.c.digest, digests),
        )
        if identities.fresh:
            content_of = {digest: (msp_id, content) for content, (digest, msp_id) in names.identities.items()}
            rows = [(number, digest, *content_of[digest]) for number, digest in identities.fresh]
            self._insert(connection, tables.identity, rows)
        chaincodes = self._chaincodes.resolve(names.chaincodes, lambda pairs: self._find_chaincodes(connection, pairs))
        if chaincodes.fresh:
            self._insert(connection, tables.chaincode, [(number, *pair) for number, pair in chaincodes.fresh])
        return RunIds(
            {key: keys.ids[digest] for key, digest in names.keys.items()},
            {content: identities.ids[digest] for content, (digest, _) in names.identities.items()},
            chaincodes.ids,
        )

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


def chunks(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    """Cut a sequence into parts of at most `size`."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _key_row(number: int, key: LedgerKey, digest: bytes) -> Row:
    return number, storable_text(key.namespace), storable_text(key.collection), key.key, digest


def _where(checkpoint: Checkpoint | None) -> str:
    if checkpoint is None:
        return "before block 0"
    return f"block {checkpoint.block_number} ({checkpoint.header_hash.hex()[:16]})"
