"""Worker processes of one run: ranges of blocks go out, prepared ranges come back in order."""

import logging
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from kvr_sync.errors import KvrSyncError
from kvr_sync.model import RawBlock
from kvr_sync.preparation import PreparedRange, RangeContext
from kvr_sync.worker import Request, decode_range, read_frame, write_request

logger = logging.getLogger(__name__)

END_TIMEOUT_SECONDS = 5.0


class _Worker:
    """One process; it is given a range only when it has none, so neither side ever waits to write."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "kvr_sync.worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._context: RangeContext | None = None
        self.is_lost = False

    def give(self, raws: list[RawBlock], context: RangeContext) -> None:
        """Send a range."""
        changed = context if context is not self._context else None
        self._context = context
        request = Request(changed, [raw.content for raw in raws])
        if self._process.stdin is None:
            raise ValueError("the worker has no input")
        try:
            write_request(self._process.stdin, request)
        except OSError:
            self.is_lost = True

    def take(self) -> PreparedRange | None:
        """Wait for the answer; None when the process ended without one."""
        if self.is_lost or self._process.stdout is None:
            return None
        content = read_frame(self._process.stdout)
        if content is None:
            self.is_lost = True
            return None
        return decode_range(content)

    def end(self) -> None:
        """End the process, busy or not."""
        self._process.kill()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                try:
                    stream.close()
                except OSError:  # what was buffered for a process that is gone
                    continue
        self._process.wait(END_TIMEOUT_SECONDS)


class WorkerPool:
    """Workers for one run; a context manager, which ends them."""

    def __init__(self, count: int, context: RangeContext) -> None:
        self.context = context
        self._workers = [_Worker() for _ in range(count)]

    def __enter__(self) -> Self:
        """Give the pool."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End every worker."""
        for worker in self._workers:
            worker.end()

    def prepare(self, ranges: Iterator[list[RawBlock]]) -> Iterator[tuple[list[RawBlock], PreparedRange | None]]:
        """Yield every range in order, prepared; None where a worker was lost: its ranges are then the caller's.

        Each worker has one range at a time, so no more than that many are in memory. An error of `ranges` is raised
        after what came before it was yielded.
        """
        given: deque[tuple[_Worker, list[RawBlock]]] = deque()
        failure: KvrSyncError | None = None

        def give(worker: _Worker) -> None:
            nonlocal failure
            try:
                raws = next(ranges, None)
            except KvrSyncError as error:
                failure, raws = error, None
            if raws is None:
                return
            if not worker.is_lost:
                worker.give(raws, self.context)
            given.append((worker, raws))

        for worker in self._workers:
            give(worker)
        while given:
            worker, raws = given.popleft()
            prepared = worker.take()
            if prepared is None:
                logger.warning("worker_lost")
            give(worker)
            yield raws, prepared
            del raws, prepared  # before the next ones come
        if failure is not None:
            raise failure
