"""What a sink promises: rows and checkpoint commit together, by compare-and-set."""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Final, Literal, NamedTuple, Protocol

from kvr_sync.mapping.definition import Mapping
from kvr_sync.model import Checkpoint, ConfigFacts, LedgerKey, RowBatch, StateValue
from kvr_sync.store.encoding import DatabaseKind
from kvr_sync.store.rows import CopyTypes, Run

BEFORE_BEGIN: Final = "before_begin"
AFTER_CHECKPOINT: Final = "after_checkpoint"
AFTER_HALF_OF_ROWS: Final = "after_half_of_rows"
AFTER_ROWS: Final = "after_rows"
BEFORE_COMMIT: Final = "before_commit"
AFTER_COMMIT: Final = "after_commit"
CRASH_POINTS: Final = (BEFORE_BEGIN, AFTER_CHECKPOINT, AFTER_HALF_OF_ROWS, AFTER_ROWS, BEFORE_COMMIT, AFTER_COMMIT)
"""Where `commit` calls its hook, in order; the database must be whole wherever the process ends."""

Hook = Callable[[str], None]
"""Called with the name of a crash point; production gives one that does nothing."""

AnchorName = Literal["pinned", "unpinned"]
RunOutcome = Literal["running", "ok", "stopped", "failed"]


class Anchor(NamedTuple):
    """What the chain rests on: the header hash of its block 0, and whether an operator vouched for it."""

    name: str
    genesis_hash: bytes


class RunResult(NamedTuple):
    """How a run of the engine ended; `first_block` and `last_block` are None when it applied none."""

    outcome: RunOutcome
    first_block: int | None
    last_block: int | None
    blocks: int
    transactions: int
    error_code: str | None
    error_text: str | None


class RunRecord(NamedTuple):
    """A run as recorded; `result.outcome` is "running" for one that runs, or was killed."""

    run_id: int
    started_at: datetime
    ended_at: datetime | None
    result: RunResult


class PrivateCounts(NamedTuple):
    """Private keys that live now and whose value is held; values that should be held and are not, outdated ones too."""

    held: int
    missing: int


class StoreStatus(NamedTuple):
    """What a database holds. `codes` counts transactions by validation code; `runs` are newest first."""

    checkpoint: Checkpoint | None
    anchor: Anchor | None
    updated_at: datetime | None
    codes: dict[int, int]
    quarantined: int
    runs: tuple[RunRecord, ...]


class Sink(Protocol):
    """The tables of one channel in one database, for one thread at a time; every call may raise `SinkError`."""

    mapping: Mapping
    """The mapping that the tables were made from; without tables when there is none."""
    kind: DatabaseKind
    """What kind of database it writes to; `kvr_sync.store.encoding` says how values go there."""
    copy_types: CopyTypes | None
    """Types of the columns, for rows that are packed elsewhere; None where they are not packed."""

    def checkpoint(self) -> Checkpoint | None:
        """Give the last block applied; None before the first."""

    def anchor(self) -> Anchor:
        """Give what the chain rests on. Raises CheckpointConflictError before the first block."""

    def read_config(self) -> tuple[int, ConfigFacts] | None:
        """Give the configuration in force after the checkpoint, after the block that brought it; None: none."""

    def read_values(self, keys: Iterable[LedgerKey]) -> dict[LedgerKey, StateValue]:
        """Give what the world state holds at the checkpoint; a key that does not exist is not in the answer."""

    def commit(
        self, expected: Checkpoint | None, batches: Sequence[RowBatch], new: Checkpoint, *, anchor: AnchorName
    ) -> None:
        """Move the checkpoint from `expected` to `new` and write the rows of the blocks between, in one transaction.

        Raises CheckpointConflictError where the database is not at `expected`, or the blocks do not lead from it to
        `new`; CommitOutcomeUnknownError where the answer to COMMIT was lost: call `settle`. After any other error
        nothing of the run is applied. `anchor` "pinned" is kept for ever; "unpinned" does not undo it.
        """

    def commit_run(self, expected: Checkpoint | None, run: Run, new: Checkpoint, *, anchor: AnchorName) -> None:
        """Do the same with rows that are made already, by this sink's `encoding`."""

    def settle(self, expected: Checkpoint | None, new: Checkpoint) -> bool:
        """Learn on a fresh connection whether a `commit` of unknown outcome was applied.

        Waits for the lost session to end first, SinkUnavailableError (retryable) where that takes too long. Raises
        CheckpointConflictError where the checkpoint is neither of the two.
        """

    def count_private(self) -> PrivateCounts:
        """Count what is held of the private state."""

    def begin_run(self) -> int:
        """Record that a run of the engine begins; give its number."""

    def end_run(self, run_id: int, result: RunResult) -> None:
        """Record how it ended."""

    def status(self, *, runs: int = 10) -> StoreStatus:
        """Count what the database holds, with the newest `runs` runs."""

    def close(self) -> None:
        """Give the connection back; a later call opens a new one."""


def no_hook(point: str) -> None:
    """Do nothing at any crash point."""
