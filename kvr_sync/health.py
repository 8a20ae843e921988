"""Whether a channel's line is alive, and whether its tables can be relied on now.

Alive: its loop goes round. Ready: the database takes writes, the source can be read, and the lag is within a limit.
Values in quarantine make nothing unready: they are data, and stop nobody.
"""

import threading
from collections.abc import Callable

from kvr_sync.store.database import LOCK_SECONDS, STATEMENT_SECONDS

LIVE_SECONDS = STATEMENT_SECONDS + LOCK_SECONDS + 50.0
"""A loop that has not gone round for so long hangs: every wait for the database has ended by then."""


class Health:
    """The state of one channel; any thread may call any method. `clock` is monotonic, in seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._ticked_at = clock()
        self._database: bool | None = None
        self._source: bool | None = None
        self._stopped = False

    def tick(self) -> None:
        """Note that the loop goes round."""
        self._ticked_at = self._clock()

    def note_database(self, *, answers: bool) -> None:
        """Note that the database took a write, or did not."""
        with self._lock:
            self._database = answers

    def note_source(self, *, answers: bool) -> None:
        """Note that the source can be read, or cannot."""
        with self._lock:
            self._source = answers

    def note_stopped(self) -> None:
        """Note that an error ended the line that no repetition mends."""
        self._stopped = True

    def is_live(self) -> bool:
        """Tell whether the loop has gone round lately."""
        return self._clock() - self._ticked_at <= LIVE_SECONDS

    def unready(self, lag_seconds: float, limit_seconds: float) -> list[str]:
        """Give what makes it unready, of `stopped`, `database`, `source`, `lag`; nothing: it is ready."""
        with self._lock:
            reasons = ["stopped"] if self._stopped else []
            if not self._database:
                reasons.append("database")
            if not self._source:
                reasons.append("source")
        if lag_seconds > limit_seconds:
            reasons.append("lag")
        return reasons
