"""Writes what the peers were seen to have, while a run reads from them: on a thread and a connection of its own.

So a reader of `sync_status` sees that the peers are ahead also while the engine is stuck, and a health check learns
that the database is away also while no block comes.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from kvr_sync.errors import KvrSyncError
from kvr_sync.lag import PeerSight
from kvr_sync.observation import Observer
from kvr_sync.store.ledger_sink import LedgerSink
from kvr_sync.store.peer_heights import PeerHeights

logger = logging.getLogger(__name__)

BEAT_SECONDS = 1.0
"""Pause between two looks at what was seen; what is new is written."""
FIRST_BEAT_SECONDS = 0.05
"""The same until it is written where the chain stood at the beginning: readers of private rows wait for that."""
LONGEST_SILENCE_SECONDS = 10.0
"""Written so often even where nothing is new."""
COUNT_SECONDS = 30.0
"""Pause between two counts of the missing private values."""


@contextmanager
def heartbeat(
    sink: LedgerSink, observer: Observer, peers: Sequence[str], *, counts_private: bool = False
) -> Iterator[None]:
    """Record heights while the block runs, and once more at its end; trouble with the database ends nothing here."""
    beat = _Heartbeat(sink, observer, peers, counts_private=counts_private)
    beat.restore()
    thread = threading.Thread(target=beat.run, name="kvr-heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        beat.ended.set()
        thread.join()


class _Heartbeat:
    def __init__(
        self,
        sink: LedgerSink,
        observer: Observer,
        peers: Sequence[str],
        *,
        counts_private: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.ended = threading.Event()
        self._table = PeerHeights(sink)
        self._observer = observer
        self._peers = peers
        self._counts_private = counts_private
        self._clock = clock
        self._written: list[PeerSight] = []
        self._written_at = self._counted_at = float("-inf")
        self._is_away = self._is_expected = False

    def restore(self) -> None:
        """Take over since when the tables have been behind, from the process before."""
        heights = self._observer.heights
        if heights.height is None:
            self._attempt(self._restore)

    def run(self) -> None:
        while not self.ended.wait(
            BEAT_SECONDS if self._is_expected or not self._counts_private else FIRST_BEAT_SECONDS
        ):
            self._attempt(self._beat)
        self._attempt(self._record)
        self._table.close()

    def _restore(self) -> None:
        behind = self._table.behind_since()
        if behind is not None:
            self._observer.heights.restore(*behind)

    def _beat(self) -> None:
        now = self._clock()
        if now - self._written_at >= LONGEST_SILENCE_SECONDS or self._observer.heights.peers() != self._written:
            self._record()
        if self._counts_private and now - self._counted_at >= COUNT_SECONDS:
            self._observer.private_counted(self._table.count_missing())
            self._counted_at = now

    def _record(self) -> None:
        start = self._observer.heights.start_height
        if self._counts_private and start is not None and not self._is_expected:
            self._table.expect_block(start - 1)
            self._is_expected = True
        sights = self._observer.heights.peers()
        self._table.record(sights, self._peers)
        self._written, self._written_at = sights, self._clock()

    def _attempt(self, step: Callable[[], None]) -> None:
        try:
            step()
        except KvrSyncError as error:
            self._table.close()
            if not self._is_away:
                logger.warning("heights_not_recorded", extra={"code": error.code, "reason": str(error)})
            self._is_away = True
            self._observer.database_answered(answers=False)
        else:
            self._is_away = False
            self._observer.database_answered(answers=True)
