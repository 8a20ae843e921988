"""The straight line: `source -> decode -> verify -> changes -> replay -> map -> sink`.

For one channel and one database.

One run takes a source from the stored checkpoint to its present end. Consecutive blocks are committed together while
catching up; each commit moves the checkpoint by compare-and-set in the same database transaction as the rows. When a
block fails, the good blocks before it are committed and its error is raised; nothing of it is applied.
"""

import itertools
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from kvr_sync import errors
from kvr_sync.changes import extract_changes
from kvr_sync.mapping.definition import Mapping as TableMapping
from kvr_sync.mapping.map import map_block
from kvr_sync.model import Checkpoint, RawBlock, RowBatch
from kvr_sync.replay_state import StateReplay, check_commit_hash
from kvr_sync.source.block_source import BlockSource
from kvr_sync.store.sink import AnchorName, Sink
from kvr_sync.verify import ChainVerifier, matches_pin
from network.protocol import errors as protocol_errors
from network.protocol.block import Block, header_hash
from network.protocol.decode import decode_block
from network.protocol.validation_code import validation_code_name

logger = logging.getLogger(__name__)


class RunLimits(NamedTuple):
    """How much one database transaction holds at the most while catching up; a single larger block still goes alone."""

    blocks: int = 1_000
    transactions: int = 2_000
    size_bytes: int = 16 * 1024 * 1024


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


def first_block(source: BlockSource) -> tuple[RawBlock, Block]:
    """Read and decode the first block that a source holds, to learn its channel; nothing of it is trusted yet.

    Raises SourceUnavailableError when there is none, DecodeError when it is no block.
    """
    raw = next(source.blocks(0), None)
    if raw is None:
        message = f"{source.name}: no block yet"
        raise errors.SourceUnavailableError(message)
    return raw, _decode(raw)


def channel_of(block: Block) -> str:
    """Give the channel a block names, unverified; ChannelMismatchError when it names none."""
    for transaction in block.transactions:
        if transaction.channel_id:
            return transaction.channel_id
    message = f"block {block.header.number} names no channel"
    raise errors.ChannelMismatchError(message, block_number=block.header.number)


class Engine:
    """Brings one channel's tables up to a source."""

    def __init__(
        self,
        source: BlockSource,
        sink: Sink,
        mapping: TableMapping,
        *,
        channel: str,
        pin: bytes | None = None,
        limits: RunLimits = DEFAULT_LIMITS,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,  # noqa: TID251 - the sleeper that is handed in by default
    ) -> None:
        self._source = source
        self._sink = sink
        self._mapping = mapping
        self._channel = channel
        self._pin = pin
        self._limits = limits
        self._clock = clock
        self._sleep = sleep

    def run(
        self,
        *,
        on_progress: Callable[[Progress], None] = lambda _: None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> RunSummary:
        """Apply every block from the checkpoint to the source's present end; stop early, at a block, when asked to.

        Raises the errors of `kvr_sync.errors`; the database then stands after some whole block.
        """
        started = self._clock()
        totals = _Totals()
        checkpoint = self._sink.checkpoint()
        anchor = self._anchor(checkpoint)
        verifier, replay = self._begin(checkpoint)
        pending: list[RowBatch] = []
        pending_bytes = pending_transactions = 0

        def flush() -> None:
            nonlocal checkpoint, pending_bytes, pending_transactions
            if pending:
                checkpoint = self._commit(checkpoint, pending, anchor)
                replay.committed(len(pending))
                pending.clear()
                pending_bytes = pending_transactions = 0
                on_progress(Progress(totals.blocks, totals.transactions, self._source.progress()))

        try:
            for raw, block in self._new_blocks(checkpoint):
                verified = verifier.verify(block, raw.content)
                replayed = check_commit_hash(replay.replay(extract_changes(verified)), block.commit_hash)
                batch = map_block(replayed, self._mapping)
                pending.append(batch)
                _count(totals, batch)
                pending_bytes += len(raw.content)
                pending_transactions += len(block.transactions)
                if (
                    len(pending) >= self._limits.blocks
                    or pending_transactions >= self._limits.transactions
                    or pending_bytes >= self._limits.size_bytes
                ):
                    flush()
                if should_stop():
                    break
        except (errors.VerificationError, errors.DecodeError, errors.SourceError):
            flush()
            raise
        flush()
        if checkpoint is None:
            message = f"{self._source.name}: no block yet"
            raise errors.SourceUnavailableError(message)
        return RunSummary(
            self._channel,
            anchor,
            checkpoint,
            totals.blocks,
            totals.transactions,
            {validation_code_name(code): count for code, count in sorted(totals.codes.items())},
            totals.quarantined,
            totals.commit_hashes_verified,
            self._clock() - started,
        )

    def _begin(self, checkpoint: Checkpoint | None) -> tuple[ChainVerifier, StateReplay]:
        commit_hash = checkpoint.commit_hash if checkpoint else None
        replay = StateReplay(self._sink.read_values, commit_hash)
        if checkpoint is None:
            return ChainVerifier(channel=self._channel, pin=self._pin), replay
        stored = self._sink.read_config()
        if stored is None:
            message = f"the database has a checkpoint of channel {self._channel} but no configuration"
            raise errors.SchemaDriftError(message)
        config_block, facts = stored
        return ChainVerifier.resume(self._channel, checkpoint, facts.envelope, config_block), replay

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

    def _new_blocks(self, checkpoint: Checkpoint | None) -> Iterator[tuple[RawBlock, Block]]:
        """Yield decoded blocks above the checkpoint, once the source was found to agree with it."""
        if checkpoint is None:
            for raw in self._source.blocks(0):
                yield raw, _decode(raw)
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
            yield first, block
        for raw in remaining:
            yield raw, _decode(raw)

    def _commit(self, expected: Checkpoint | None, batches: list[RowBatch], anchor: AnchorName) -> Checkpoint:
        last = batches[-1].block
        new = Checkpoint(last.changes.header.number, last.changes.header_hash, last.commit_hash)
        try:
            self._sink.commit(expected, batches, new, anchor=anchor)
        except errors.CommitOutcomeUnknownError:
            logger.warning("commit_outcome_unknown", extra={"channel": self._channel, "block_number": new.block_number})
            if not self._settle(expected, new):
                self._sink.commit(expected, batches, new, anchor=anchor)
        logger.debug("blocks_committed", extra={"channel": self._channel, "block_number": new.block_number})
        return new

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


def _decode(raw: RawBlock) -> Block:
    try:
        return decode_block(raw.content)
    except protocol_errors.DecodeError as error:
        message = f"{raw.origin}: {error}"
        raise errors.DecodeError(message) from error


def _check_same_block(block: Block, checkpoint: Checkpoint, channel: str, origin: str) -> None:
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
