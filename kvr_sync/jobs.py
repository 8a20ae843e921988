"""One run of the line from settings.

A run opens source and database afresh, so that a restarted server, a replaced file or a moved checkpoint is simply
what the next run finds. Each run leaves a row in `sync_run`. Exclusion between processes is the
checkpoint's compare-and-set, not the schedule.
"""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from kvr_sync.archive.archive_source import ArchiveSource
from kvr_sync.archive.block_archive import BlockArchive
from kvr_sync.archive.layout import channel_folder
from kvr_sync.engine import Engine, Progress, RunLimits, RunSummary, channel_of, first_block
from kvr_sync.errors import ConfigurationError, KvrSyncError
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
    on_open: Callable[[str], None] = lambda _: None,
    observer: Observer | None = None,
) -> RunSummary:
    """Apply everything the source holds now, and leave a row in `sync_run` about it.

    `on_source` gets a source that waits, to stop it by, `on_open` the channel when its tables are there; `observer` is
    told what happens. Raises the errors of `kvr_sync.errors`.
    """
    observer = observer or Observer()
    try:
        summary = _sync(settings, observer, on_progress, should_stop, on_source, on_open)
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
    on_open: Callable[[str], None],
) -> RunSummary:
    mapping = read_mapping_file(settings.mapping) if settings.mapping else None
    with (
        _opened(settings, observer, on_source) as (source, channel, is_waiting),
        _opened_archive(settings, source, channel) as archive,
        closing(open_store(settings.database, channel, mapping=mapping, private_member=_member(settings))) as sink,
        _heights_recorded(settings, source, sink, observer),
    ):
        on_open(channel)
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
