"""The straight line: `source -> decode -> verify -> changes -> replay -> map -> sink`.

For one channel and one database.

One run takes a source from the stored checkpoint to its present end. Consecutive blocks are committed together while
catching up; each commit moves the checkpoint by compare-and-set in the same database transaction as the rows. When a
block fails, the good blocks before it are committed and its error is raised; nothing of it is applied.

A long run gives ranges of blocks to worker processes (`kvr_sync.worker_pool`), which do everything that needs neither
the database nor the state of the chain. What they leave, and every error, is the engine's own.

With an archive, the verified blocks of a run are flushed there before the database is asked to commit them.
"""

import functools
import itertools
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from kvr_sync import errors
from kvr_sync.archive.block_archive import BlockArchive
from kvr_sync.archive.completion import complete_archive
from kvr_sync.archive.frame import ArchivedBlock
from kvr_sync.changes import extract_changes
from kvr_sync.decode import decode_block
from kvr_sync.definitions import Definitions
from kvr_sync.mapping.definition import Mapping as TableMapping
from kvr_sync.mapping.map import map_block
from kvr_sync.membership import Membership
from kvr_sync.model import Checkpoint, ConfigFacts, DecodedBlock, PrivateChanges, RawBlock, ReplayedBlock, RowBatch
from kvr_sync.observation import Observer
from kvr_sync.preparation import PreparedRange, RangeContext, accept_range
from kvr_sync.private_data import match_private_data
from kvr_sync.replay_state import StateReplay, check_commit_hash
from kvr_sync.source.block_source import BlockSource
from kvr_sync.store.rows import Run
from kvr_sync.store.sink import AnchorName, PrivateCounts, Sink
from kvr_sync.verify import ChainVerifier, VerifiedBlock, matches_pin
from kvr_sync.worker_pool import WorkerPool
from network.protocol import errors as protocol_errors
from network.protocol.block import header_hash
from network.protocol.validation_code import VALID, validation_code_name

logger = logging.getLogger(__name__)


class RunLimits(NamedTuple):
    """How much one database transaction holds at the most while catching up; a single larger block still goes alone."""

    blocks: int = 1_000
    transactions: int = 2_000
    size_bytes: int = 16 * 1024 * 1024
    range_bytes: int = 6 * 1024 * 1024
    """Blocks that a worker process takes at once; they are committed together."""
    workers: int = 0
    """Worker processes beside the engine."""
    alone_bytes: int = 2 * 1024 * 1024
    """Blocks that are applied before workers are started: a short run does without."""


DEFAULT_LIMITS = RunLimits()

SETTLE_ATTEMPTS = 5
"""How often a lost COMMIT acknowledgement is looked up before the run gives up."""
SETTLE_PAUSE_SECONDS = 1.0


class Progress(NamedTuple):
    """Where a run is: totals so far, and the fraction of the source read (None: unknown)."""

    blocks: int
    transactions: int
    fraction: float | None


@dataclass(frozen=True)
class RunSummary:
    """What one run did. `codes` counts the run's transactions by validation code name."""

    channel: str
    anchor: AnchorName
    checkpoint: Checkpoint
    blocks: int
    transactions: int
    codes: Mapping[str, int]
    quarantined: int
    commit_hashes_verified: int
    seconds: float
    private: PrivateCounts | None = None
    """What the database holds of the private state; None where it is to hold nothing."""

    @property
    def transactions_per_second(self) -> float:
        """Rate of the run; 0 when it had nothing to do."""
        return self.transactions / self.seconds if self.seconds > 0 else 0.0


@dataclass
class _Totals:
    blocks: int = 0
    transactions: int = 0
    quarantined: int = 0
    commit_hashes_verified: int = 0
    codes: Counter[int] = field(default_factory=Counter)


@dataclass
class _Position:
    """Where a run is: what is committed, and the two machines that go on from there."""

    checkpoint: Checkpoint | None
    anchor: AnchorName
    verifier: ChainVerifier
    replay: StateReplay
    definitions: Definitions
    membership: Membership | None = None
    """Of the organisation whose private data is held; None: no private data."""
    totals: _Totals = field(default_factory=_Totals)


def first_block(source: BlockSource) -> tuple[RawBlock, DecodedBlock]:
    """Read and decode the first block that a source holds, to learn its channel; nothing of it is trusted yet.

    Raises SourceUnavailableError when there is none, DecodeError when it is no block.
    """
    raw = next(source.blocks(0), None)
    if raw is None:
        message = f"{source.name}: no block yet"
        raise errors.SourceUnavailableError(message)
    return raw, _decode(raw)


def channel_of(block: DecodedBlock) -> str:
    """Give the channel a block names, unverified; ChannelMismatchError when it names none."""
    for transaction in block.transactions:
        if transaction.channel_id:
            return transaction.channel_id
    message = f"block {block.header.number} names no channel"
    raise errors.ChannelMismatchError(message, block_number=block.header.number)


class Engine:
    """Brings one channel's tables up to a source."""

    def __init__(  # noqa: PLR0913  # what one line is made of
        self,
        source: BlockSource,
        sink: Sink,
        mapping: TableMapping,
        *,
        channel: str,
        pin: bytes | None = None,
        private_member: str | None = None,
        archive: BlockArchive | None = None,
        limits: RunLimits = DEFAULT_LIMITS,
        observer: Observer | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], int] = time.time_ns,
        sleep: Callable[[float], None] = time.sleep,  # noqa: TID251 - the sleeper that is handed in by default
    ) -> None:
        self._source = source
        self._sink = sink
        self._mapping = mapping
        self._sequenced = sorted({table.namespace for table in mapping.tables if table.sequences is not None})
        """Chaincodes whose sequence decides what a table takes."""
        self._channel = channel
        self._pin = pin
        self._private_member = private_member
        self._archive = archive
        self._limits = limits
        self._observer = observer or Observer()
        self._clock = clock
        self._wall_clock = wall_clock
        self._sleep = sleep

    def run(
        self,
        *,
        on_progress: Callable[[Progress], None] = lambda _: None,
        should_stop: Callable[[], bool] = lambda: False,
        is_waiting: Callable[[], bool] = lambda: False,
    ) -> RunSummary:
        """Apply every block from the checkpoint to the source's present end; stop early, at a block, when asked to.

        `is_waiting`: whether the source would have to wait for its next block, so that what it gave is committed now.
        Raises the errors of `kvr_sync.errors`; the database then stands after some whole block.
        """
        started = self._clock()
        checkpoint = self._sink.checkpoint()
        self._observer.run_began(checkpoint.block_number + 1 if checkpoint else 0)
        membership = Membership(self._private_member, self._sink.read_values) if self._private_member else None
        definitions = Definitions(self._sink.read_values)
        position = _Position(checkpoint, self._anchor(checkpoint), *self._begin(checkpoint), definitions, membership)

        def report() -> None:
            on_progress(Progress(position.totals.blocks, position.totals.transactions, self._source.progress()))

        is_ready = self._archive is None or complete_archive(
            self._archive, self._source, checkpoint, report=report, should_stop=should_stop
        )
        raws = self._new_blocks(checkpoint) if is_ready else iter(())
        if self._limits.workers:
            # A generator that stops at a limit of its own: what it did not take stays in `raws`.
            self._apply(position, _up_to(raws, self._limits.alone_bytes), report, should_stop)
            first = None if should_stop() or position.checkpoint is None else next(raws, None)
            if first is not None:
                self._apply_with_workers(position, itertools.chain([first], raws), report, should_stop)
        else:
            self._apply(position, raws, report, should_stop, is_waiting)
        if position.checkpoint is None:
            message = f"{self._source.name}: no block yet"
            raise errors.SourceUnavailableError(message)
        totals = position.totals
        return RunSummary(
            self._channel,
            position.anchor,
            position.checkpoint,
            totals.blocks,
            totals.transactions,
            {validation_code_name(code): count for code, count in sorted(totals.codes.items())},
            totals.quarantined,
            totals.commit_hashes_verified,
            self._clock() - started,
            self._sink.count_private() if position.membership else None,
        )

    def _apply(
        self,
        position: "_Position",
        raws: Iterable[RawBlock],
        report: Callable[[], None],
        should_stop: Callable[[], bool],
        is_waiting: Callable[[], bool] = lambda: False,
    ) -> None:
        """Take blocks through the line one by one; all good ones are committed when it returns or raises."""
        pending: list[RowBatch] = []
        pending_raws: list[RawBlock] = []
        pending_bytes = pending_transactions = 0
        timed = self._observer.timed

        def flush() -> None:
            nonlocal pending_bytes, pending_transactions
            if pending:
                batches, raws = pending[:], pending_raws[:]
                pending.clear()  # an error of the commit itself is not answered with another commit
                pending_raws.clear()
                pending_bytes = pending_transactions = 0
                self._commit_batches(position, batches, raws)
                position.replay.committed(len(batches))
                report()

        try:
            for raw in raws:
                self._observer.tick()
                block = timed("decode", _decode, raw)
                verified = timed("verify", position.verifier.verify, block, raw.content)
                replayed = timed("replay", _replay, position.replay, verified, block.commit_hash)
                private = _private_changes(position.membership, replayed, raw)
                # A definition rules the blocks above its own.
                sequences = position.definitions.sequences(self._sequenced)
                batch = timed("map", map_block, replayed, self._mapping, private, sequences)._replace(
                    definitions=position.definitions.derive(replayed), first_seen=raw.first_seen
                )
                pending.append(batch)
                pending_raws.append(raw)
                _count(position.totals, batch)
                pending_bytes += len(raw.content)
                pending_transactions += len(block.transactions)
                if (
                    len(pending) >= self._limits.blocks
                    or pending_transactions >= self._limits.transactions
                    or pending_bytes >= self._limits.size_bytes
                    or is_waiting()
                ):
                    flush()
                if should_stop():
                    break
        except (errors.VerificationError, errors.DecodeError, errors.SourceError):
            flush()
            raise
        flush()

    def _apply_with_workers(
        self,
        position: "_Position",
        raws: Iterator[RawBlock],
        report: Callable[[], None],
        should_stop: Callable[[], bool],
    ) -> None:
        """Take ranges of blocks through worker processes, and what they leave through `_apply`."""
        ranges = _ranges(raws, self._limits)
        with WorkerPool(self._limits.workers, self._context(position.definitions)) as workers:
            for part, prepared in workers.prepare(ranges):
                self._observer.tick()
                applied = self._commit_range(position, part, prepared) if prepared else 0
                if applied:
                    report()
                if applied < len(part) and not should_stop():
                    rules = position.verifier.config_block, position.definitions.changes
                    self._apply(position, part[applied:], report, should_stop)
                    if (position.verifier.config_block, position.definitions.changes) != rules:
                        workers.context = self._context(position.definitions)
                if should_stop():
                    break
                del part, prepared  # before the next ones come

    def _commit_range(self, position: "_Position", part: list[RawBlock], prepared: PreparedRange) -> int:
        """Commit what a worker prepared, if it follows where we are; give the number of blocks applied."""
        if position.checkpoint is None:
            return 0
        rows = accept_range(
            prepared,
            position.checkpoint,
            position.verifier.config_block,
            position.definitions.changes,
            [raw.first_seen for raw in part],
        )
        if rows is None:
            return 0
        last = rows[-1]
        expected, new = position.checkpoint, Checkpoint(last.block_number, last.header_hash, last.commit_hash)
        run = Run(rows, prepared.rows)
        commit = functools.partial(self._sink.commit_run, expected, run, new, anchor=position.anchor)
        self._commit(expected, new, part[: len(rows)], commit)
        position.checkpoint = new
        self._observer.committed(new.block_number, len(rows), prepared.quarantined)
        position.verifier = position.verifier.moved_to(new)
        position.replay = StateReplay(self._sink.read_values, new.commit_hash)
        totals = position.totals
        totals.blocks += len(rows)
        totals.transactions += sum(row.transaction_count for row in rows)
        for block in prepared.blocks:
            totals.codes.update(block.flags)
        totals.quarantined += sum(prepared.quarantined.values())
        totals.commit_hashes_verified += sum(row.commit_hash_verified for row in rows)
        return len(rows)

    def _context(self, definitions: Definitions) -> RangeContext:
        config_block, facts = self._stored_config()
        sink = self._sink
        return RangeContext(
            self._channel,
            config_block,
            facts.envelope,
            dict(definitions.sequences(self._sequenced)),
            definitions.changes,
            self._mapping,
            sink.kind,
            sink.copy_types,
        )

    def _begin(self, checkpoint: Checkpoint | None) -> tuple[ChainVerifier, StateReplay]:
        commit_hash = checkpoint.commit_hash if checkpoint else None
        replay = StateReplay(self._sink.read_values, commit_hash)
        if checkpoint is None:
            return ChainVerifier(channel=self._channel, pin=self._pin), replay
        config_block, facts = self._stored_config()
        return ChainVerifier.resume(self._channel, checkpoint, facts.envelope, config_block), replay

    def _stored_config(self) -> tuple[int, ConfigFacts]:
        stored = self._sink.read_config()
        if stored is None:
            message = f"the database has a checkpoint of channel {self._channel} but no configuration"
            raise errors.SchemaDriftError(message)
        return stored

    def _anchor(self, checkpoint: Checkpoint | None) -> AnchorName:
        """Say what block 0 rests on: `pinned` once a run was given its hash, `unpinned` until then."""
        if checkpoint is None:
            return "pinned" if self._pin else "unpinned"
        anchor = self._sink.anchor()
        if self._pin is None:
            return "pinned" if anchor.name == "pinned" else "unpinned"
        if self._pin == anchor.genesis_hash:
            return "pinned"
        raw, block = first_block(self._source)
        if block.header.number != 0:
            message = f"{self._source.name} does not hold block 0, so the pin cannot be compared; pin its header hash"
            raise errors.ConfigurationError(message)
        if header_hash(block.header) != anchor.genesis_hash or not matches_pin(raw.content, block, self._pin):
            message = (
                "the database was not built from the pinned block 0: "
                f"pinned {self._pin.hex()}, it holds {anchor.genesis_hash.hex()}"
            )
            raise errors.ConfigurationError(message)
        return "pinned"

    def _new_blocks(self, checkpoint: Checkpoint | None) -> Iterator[RawBlock]:
        """Yield the blocks above the checkpoint, once the source was found to agree with it; each has a first time."""
        for raw in self._blocks_above(checkpoint):
            yield raw if raw.first_seen else raw._replace(first_seen=self._wall_clock())

    def _blocks_above(self, checkpoint: Checkpoint | None) -> Iterator[RawBlock]:
        if checkpoint is None:
            yield from self._source.blocks(0)
            return
        remaining = self._source.blocks(checkpoint.block_number)
        first = next(remaining, None)
        if first is None:
            message = f"{self._source.name} ends below block {checkpoint.block_number}, which is already applied"
            raise errors.SourceBehindError(message)
        block = _decode(first)
        if block.header.number == checkpoint.block_number:
            _check_same_block(block, checkpoint, self._channel, first.origin)
        else:
            if block.header.number > checkpoint.block_number + 1:
                needed = checkpoint.block_number + 1
                message = f"{self._source.name} begins at block {block.header.number}, block {needed} is needed"
                raise errors.BlocksNotHeldError(message)
            yield first
        yield from remaining

    def _commit_batches(self, position: "_Position", batches: list[RowBatch], raws: list[RawBlock]) -> None:
        last = batches[-1].block
        expected = position.checkpoint
        new = Checkpoint(last.changes.header.number, last.changes.header_hash, last.commit_hash)
        commit = functools.partial(self._sink.commit, expected, batches, new, anchor=position.anchor)
        self._commit(expected, new, raws, commit)
        position.checkpoint = new
        quarantined = Counter(entry.reason for batch in batches for entry in batch.quarantined)
        self._observer.committed(new.block_number, len(batches), quarantined)

    def _commit(
        self, expected: Checkpoint | None, new: Checkpoint, raws: list[RawBlock], commit: Callable[[], None]
    ) -> None:
        """Archive verified blocks, then commit their rows; `raws` are the blocks from `expected` to `new`."""
        if self._archive is not None:
            first = new.block_number - len(raws) + 1
            self._archive.append(
                [ArchivedBlock(number, raw.content, raw.first_seen) for number, raw in enumerate(raws, first)]
            )
        try:
            self._observer.timed("commit", commit)
        except errors.CommitOutcomeUnknownError:
            self._observer.commit_unknown()
            logger.warning("commit_outcome_unknown", extra={"channel": self._channel, "block_number": new.block_number})
            if not self._settle(expected, new):
                self._observer.timed("commit", commit)
        logger.debug("blocks_committed", extra={"channel": self._channel, "block_number": new.block_number})

    def _settle(self, expected: Checkpoint | None, new: Checkpoint) -> bool:
        """Learn from the checkpoint whether a COMMIT without acknowledgement happened; never guess."""
        for attempt in itertools.count(1):
            try:
                return self._sink.settle(expected, new)
            except errors.SinkUnavailableError:
                if attempt == SETTLE_ATTEMPTS:
                    raise
                self._sleep(SETTLE_PAUSE_SECONDS)
        raise AssertionError  # pragma: no cover - the loop above ends by return or raise


def _replay(replay: StateReplay, verified: VerifiedBlock, recorded: bytes | None) -> ReplayedBlock:
    return check_commit_hash(replay.replay(extract_changes(verified)), recorded)


def _private_changes(membership: Membership | None, replayed: ReplayedBlock, raw: RawBlock) -> PrivateChanges | None:
    """Prove the private data of a block; PrivateDataHashError when a part of it is not what the chain vouches for."""
    if membership is None:
        return None
    flags = replayed.changes.flags
    # Peers hand over what refused transactions would have written, too (`core/ledger/kvledger/kv_ledger.go`).
    private_sets = {
        tx_number: content
        for tx_number, content in raw.private_sets.items()
        if tx_number >= len(flags) or flags[tx_number] == VALID
    }
    private = match_private_data(replayed.changes, private_sets)
    if private.rejected:
        number = replayed.changes.header.number
        message = f"{raw.origin}: {private.rejected} private writes of block {number} have no such hash on the chain"
        raise errors.PrivateDataHashError(message, block_number=number)
    return membership.derive(replayed, private)


def _up_to(raws: Iterator[RawBlock], size_bytes: int) -> Iterator[RawBlock]:
    """Yield blocks until they make up a size; always the first one."""
    seen = 0
    for raw in raws:
        yield raw
        seen += len(raw.content)
        if seen >= size_bytes:
            return


def _ranges(raws: Iterator[RawBlock], limits: RunLimits) -> Iterator[list[RawBlock]]:
    """Cut blocks into ranges; an error of the source is raised after the range before it."""
    part: list[RawBlock] = []
    size = 0
    failure: errors.KvrSyncError | None = None
    try:
        for raw in raws:
            part.append(raw)
            size += len(raw.content)
            if size >= limits.range_bytes or len(part) >= limits.blocks:
                yield part
                part, size = [], 0
    except (errors.SourceError, errors.DecodeError) as error:
        failure = error
    if part:
        yield part
    if failure is not None:
        raise failure


def _decode(raw: RawBlock) -> DecodedBlock:
    try:
        return decode_block(raw.content)
    except protocol_errors.DecodeError as error:
        message = f"{raw.origin}: {error}"
        raise errors.DecodeError(message) from error


def _check_same_block(block: DecodedBlock, checkpoint: Checkpoint, channel: str, origin: str) -> None:
    found = header_hash(block.header)
    if found == checkpoint.header_hash:
        return
    number = checkpoint.block_number
    named = {transaction.channel_id for transaction in block.transactions if transaction.channel_id}
    if named and channel not in named:
        message = f"{origin}: block {number} is of another channel than {channel!r}"
        raise errors.ChannelMismatchError(message, block_number=number)
    message = (
        f"{origin}: this is another chain: its block {number} has header hash {found.hex()}, "
        f"the one already applied has {checkpoint.header_hash.hex()}"
    )
    raise errors.PreviousHashError(message, block_number=number)


def _count(totals: _Totals, batch: RowBatch) -> None:
    changes = batch.block.changes
    totals.blocks += 1
    totals.transactions += len(changes.transactions)
    totals.codes.update(changes.flags)
    totals.quarantined += len(batch.quarantined)
    totals.commit_hashes_verified += batch.block.commit_hash_verified
