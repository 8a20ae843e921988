"""One run of the line from settings, and the follower that repeats it as blocks come.

A run opens source and database afresh, so that a restarted server, a replaced file or a moved checkpoint is simply
what the next run finds. Each run leaves a row in `sync_run`. Exclusion between processes is the
checkpoint's compare-and-set, not the schedule.
"""

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue

from kvr_sync.archive.archive_source import ArchiveSource
from kvr_sync.archive.block_archive import BlockArchive
from kvr_sync.archive.layout import channel_folder
from kvr_sync.engine import Engine, Progress, RunLimits, RunSummary, channel_of, first_block
from kvr_sync.errors import ConfigurationError, KvrSyncError, SourceError
from kvr_sync.heartbeat import heartbeat
from kvr_sync.mapping.mapping_file import read_mapping_file
from kvr_sync.observation import Observer
from kvr_sync.source.block_file import open_block_file
from kvr_sync.source.block_source import BlockSource
from kvr_sync.source.peer_source import PeerSettings, PeerSource, open_peer_source
from kvr_sync.store.ledger_sink import LedgerSink
from kvr_sync.store.opening import open_store
from kvr_sync.store.sink import RunOutcome, RunResult, Sink

logger = logging.getLogger(__name__)

MAX_WORKERS = 4
"""Beyond these the one process that writes to the database is what is waited for."""


@dataclass(frozen=True)
class SyncSettings:
    """What to bring where.

    `source`: a file or folder of blocks, or peers. `pin`: 32 bytes; `growing`: the file is still being written, or
    peers are followed without end; `workers`: processes of a long run, None: one for each core, up to MAX_WORKERS;
    `archive`: directory where the blocks are kept, None: nowhere.
    """

    source: Path | PeerSettings
    database: str
    mapping: Path | None = None
    pin: bytes | None = None
    growing: bool = False
    workers: int | None = None
    archive: Path | None = None


def sync_once(
    settings: SyncSettings,
    *,
    on_progress: Callable[[Progress], None] = lambda _: None,
    should_stop: Callable[[], bool] = lambda: False,
    on_source: Callable[[PeerSource], None] = lambda _: None,
    observer: Observer | None = None,
) -> RunSummary:
    """Apply everything the source holds now, and leave a row in `sync_run` about it.

    `on_source` gets a source that waits, to stop it by; `observer` is told what happens. Raises the errors of
    `kvr_sync.errors`.
    """
    observer = observer or Observer()
    try:
        summary = _sync(settings, observer, on_progress, should_stop, on_source)
    except KvrSyncError as error:
        observer.run_failed(error)
        raise
    observer.run_done()
    return summary


def _sync(
    settings: SyncSettings,
    observer: Observer,
    on_progress: Callable[[Progress], None],
    should_stop: Callable[[], bool],
    on_source: Callable[[PeerSource], None],
) -> RunSummary:
    mapping = read_mapping_file(settings.mapping) if settings.mapping else None
    with (
        _opened(settings, observer, on_source) as (source, channel, is_waiting),
        _opened_archive(settings, source, channel) as archive,
        closing(open_store(settings.database, channel, mapping=mapping, private_member=_member(settings))) as sink,
        _heights_recorded(settings, source, sink, observer),
    ):
        if archive is not None:
            observer.heights.expect(archive.next_number)
        engine = Engine(
            source,
            sink,
            sink.mapping,
            channel=channel,
            pin=settings.pin,
            private_member=_member(settings),
            archive=archive,
            limits=RunLimits(workers=_workers(settings)),
            observer=observer,
        )
        run_id = sink.begin_run()
        applied = Progress(0, 0, None)

        def remember(progress: Progress) -> None:
            nonlocal applied
            applied = progress
            on_progress(progress)

        try:
            summary = engine.run(on_progress=remember, should_stop=should_stop, is_waiting=is_waiting)
        except KvrSyncError as error:
            _record_failure(sink, run_id, applied, error)
            raise
        sink.end_run(run_id, _result(summary, stopped=should_stop()))
        if summary.private is not None:
            observer.private_counted(summary.private.missing)
        return summary


def _heights_recorded(
    settings: SyncSettings, source: BlockSource, sink: LedgerSink, observer: Observer
) -> AbstractContextManager[None]:
    if not isinstance(source, PeerSource):
        return nullcontext()
    return heartbeat(sink, observer, source.peers, counts_private=_member(settings) is not None)


def _member(settings: SyncSettings) -> str | None:
    """Give the organisation whose private data is asked for."""
    source = settings.source
    return source.msp_id if isinstance(source, PeerSettings) and source.private_data else None


def _workers(settings: SyncSettings) -> int:
    if _member(settings) is not None:
        return 0  # private data is proved and counted block by block
    return usable_workers() if settings.workers is None else settings.workers


@contextmanager
def _opened(
    settings: SyncSettings, observer: Observer, on_source: Callable[[PeerSource], None]
) -> Iterator[tuple[BlockSource, str, Callable[[], bool]]]:
    """Give the source, its channel, and whether it would have to wait for its next block."""
    if isinstance(settings.source, PeerSettings):
        with open_peer_source(settings.source, follow=settings.growing, observer=observer) as peers:
            on_source(peers)
            yield peers, peers.channel, peers.is_waiting
        return
    source = open_block_file(settings.source, growing=settings.growing)
    yield source, channel_of(first_block(source)[1]), lambda: False


@contextmanager
def _opened_archive(settings: SyncSettings, source: BlockSource, channel: str) -> Iterator[BlockArchive | None]:
    """Give the archive to write to, locked; refuses to write what is read to where it is read from."""
    if settings.archive is None:
        yield None
        return
    folder = channel_folder(settings.archive, channel)
    if isinstance(source, ArchiveSource) and folder.exists() and folder.samefile(source.folder):
        message = f"--archive: {folder} is the archive that is replayed; name another directory, or none"
        raise ConfigurationError(message)
    with BlockArchive(settings.archive, channel) as archive:
        yield archive


def usable_workers() -> int:
    """Give how many worker processes this machine is good for: one for each core we may use, none for a single one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, MAX_WORKERS) if cores > 1 else 0


def _result(summary: RunSummary, *, stopped: bool) -> RunResult:
    last = summary.checkpoint.block_number if summary.blocks else None
    first = None if last is None else last - summary.blocks + 1
    outcome: RunOutcome = "stopped" if stopped else "ok"
    return RunResult(outcome, first, last, summary.blocks, summary.transactions, None, None)


def _record_failure(sink: Sink, run_id: int, applied: Progress, error: KvrSyncError) -> None:
    """Write down how a run failed, with what it had applied by then."""
    try:
        checkpoint = sink.checkpoint() if applied.blocks else None
        last = checkpoint.block_number if checkpoint else None
        first = None if last is None else last - applied.blocks + 1
        result = RunResult("failed", first, last, applied.blocks, applied.transactions, error.code, str(error))
        sink.end_run(run_id, result)
    except KvrSyncError as second:
        # The error of the run is the one to report; its record stays "running", as after a kill.
        logger.warning("run_not_recorded", extra={"code": second.code})


def source_name(settings: SyncSettings) -> str:
    """Give what logs call the source: the path, or the channel."""
    source = settings.source
    return f"channel {source.channel}" if isinstance(source, PeerSettings) else str(source)


TOLD_SECONDS = 10.0
"""Pause between two lines of a follower's log about its progress."""

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0
"""After a run that ended in an error that may pass; each pause is twice the one before."""


class SyncFollower:
    """Applies the blocks of peers as they come, until it is stopped or an error comes that no repetition mends."""

    def __init__(
        self,
        settings: SyncSettings,
        *,
        observer: Observer | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._observer = observer or Observer()
        self._clock = clock
        self._stopping = False
        self._source: PeerSource | None = None
        self._woken: SimpleQueue[None] = SimpleQueue()  # as in SyncService
        self._applied = self._blocks = self._failures = 0
        self._told_at = clock()

    def stop(self) -> None:
        """End at the next block boundary; may be called from a signal handler."""
        self._stopping = True
        if self._source is not None:
            self._source.stop()
        self._woken.put(None)

    def follow(self) -> None:
        """Run until stopped; source and database are opened afresh after an error that may pass.

        Raises the error that ended it.
        """
        logger.info("follower_started", extra={"source": source_name(self._settings)})
        while not self._stopping:
            self._applied = 0
            self._observer.tick()
            try:
                sync_once(
                    self._settings,
                    on_progress=self._count,
                    should_stop=lambda: self._stopping,
                    on_source=self._remember,
                    observer=self._observer,
                )
            except KvrSyncError as error:
                if self._stopping and isinstance(error, SourceError):
                    break  # stopped before the first block came
                if not error.may_run_again:
                    raise
                self._rest(error)
        self._tell()
        logger.info("follower_stopped", extra={"source": source_name(self._settings)})

    def _remember(self, source: PeerSource) -> None:
        self._source = source
        if self._stopping:
            source.stop()

    def _count(self, progress: Progress) -> None:
        self._blocks += progress.blocks - self._applied
        self._applied = progress.blocks
        self._failures = 0
        if self._clock() - self._told_at >= TOLD_SECONDS:
            self._tell()

    def _tell(self) -> None:
        self._told_at = self._clock()
        logger.info("blocks_followed", extra={"source": source_name(self._settings), "blocks": self._blocks})

    def _rest(self, error: KvrSyncError) -> None:
        pause = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(self._failures, 10))
        self._failures += 1
        facts = {"code": error.code, "reason": str(error), "pause_seconds": pause, "failures": self._failures}
        logger.warning("run_failed", extra=facts)
        with suppress(Empty):
            self._woken.get(timeout=pause)
