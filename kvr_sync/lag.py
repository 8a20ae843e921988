"""How far the tables are behind the peers, in blocks and in seconds, from what was seen and when."""

import threading
from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple

MAX_SIGHTINGS = 10_000
"""Heights kept with their times; beyond, later ones get the last time kept, so that a lag is never too small."""


class PeerSight(NamedTuple):
    """What one peer was last seen to have, and since when that has been more than the tables have; None: it is not."""

    peer: str
    height: int
    seen_at: datetime
    behind_since: datetime | None


class SeenHeights:
    """Heights of the peers of one channel and the height applied; any thread may call any method.

    A height is a number of blocks. The clock may jump: only its readings are kept, nothing is ordered by them, and a
    lag is never negative.
    """

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._peers: dict[str, tuple[int, datetime]] = {}
        self._applied = 0
        self._start: int | None = None
        self._sightings: list[tuple[int, datetime]] = []
        """Growing heights above the applied one, each with the time when it was first seen."""

    def saw(self, peer: str, height: int, *, is_newest: bool = False) -> None:
        """Take that a peer has blocks up to `height`; `is_newest`: and none above, which may take back what it had."""
        with self._lock:
            now = self._clock()
            known = self._peers.get(peer, (0, now))[0]
            self._peers[peer] = (height if is_newest else max(known, height), now)
            self._sight(height, now)
            if is_newest:
                self._start = height if self._start is None else self._start
                self._forget_above(max(seen for seen, _ in self._peers.values()))

    def applied(self, height: int) -> None:
        """Take that the tables hold the blocks below `height`; those that held more before have to catch up again."""
        with self._lock:
            if height < self._applied:
                self._start = max(self._applied, self._start or 0)
            self._applied = height
            count = next((n for n, (seen, _) in enumerate(self._sightings) if seen > height), len(self._sightings))
            del self._sightings[:count]

    def expect(self, height: int) -> None:
        """Take that blocks up to `height` were there when this process began, whoever has them."""
        with self._lock:
            self._start = max(height, self._start or 0)

    def restore(self, height: int, behind_since: datetime) -> None:
        """Take from an earlier process that `height` had been seen by then; before anything is seen by this one."""
        with self._lock:
            self._sight(height, behind_since)

    def _sight(self, height: int, time: datetime) -> None:
        highest = self._sightings[-1][0] if self._sightings else self._applied
        if height <= highest:
            return
        if len(self._sightings) < MAX_SIGHTINGS:
            self._sightings.append((height, time))
        else:
            self._sightings[-1] = (height, self._sightings[-1][1])

    def _forget_above(self, height: int) -> None:
        """Take back heights that no peer has any more."""
        gone = [time for seen, time in self._sightings if seen > height]
        if gone:
            del self._sightings[-len(gone) :]
            self._sight(height, gone[0])

    @property
    def height(self) -> int | None:
        """The greatest height that a peer has; None: no peer was seen."""
        with self._lock:
            return max((height for height, _ in self._peers.values()), default=None)

    @property
    def start_height(self) -> int | None:
        """How many blocks there were when this process first asked, or the tables were brought back.

        None: nobody said so yet.
        """
        with self._lock:
            return self._start

    def has_caught_up(self) -> bool:
        """Tell whether the tables have passed where the chain stood when this process first asked.

        Until then they may be those of a backup, with values that were erased since. A standby that takes over, or a
        rewind, can make them older at any time.
        """
        with self._lock:
            return self._start is None or self._applied >= self._start

    def lag_blocks(self) -> int | None:
        """Give how many blocks the peers have beyond the tables; None where that is not known."""
        height = self.height
        return None if height is None else max(0, height - self._applied)

    def behind_since(self) -> datetime | None:
        """Give when a block that is not applied was first seen, the oldest of them; None: there is none."""
        with self._lock:
            return self._sightings[0][1] if self._sightings else None

    def lag_seconds(self) -> float:
        """Give how long the oldest block that is not applied has been known; 0 where all are applied."""
        since = self.behind_since()
        return 0.0 if since is None else max(0.0, (self._clock() - since).total_seconds())

    def peers(self) -> list[PeerSight]:
        """Give what each peer was last seen to have."""
        with self._lock:
            since = self._sightings[0][1] if self._sightings else None
            return [
                PeerSight(peer, height, seen_at, since if height > self._applied else None)
                for peer, (height, seen_at) in sorted(self._peers.items())
            ]
