"""Which envelopes go into a block together: by count and by size; by time is the orderer's. Pure.

Rules: `orderer/common/blockcutter/blockcutter.go`.
"""

from typing import NamedTuple


class BatchLimits(NamedTuple):
    """Limits of the channel's configuration; sizes are of payload and signature, in bytes."""

    max_messages: int
    preferred_max_bytes: int
    absolute_max_bytes: int
    timeout_seconds: float


class BlockCutter:
    """Envelopes that wait for their block."""

    def __init__(self) -> None:
        self._pending: list[bytes] = []
        self._pending_bytes = 0

    @property
    def has_pending(self) -> bool:
        """Tell whether envelopes wait."""
        return bool(self._pending)

    def add(self, envelope: bytes, size: int, limits: BatchLimits) -> list[list[bytes]]:
        """Add an envelope; give the batches that are full now: none, one, or two when it needs a block of its own."""
        if size > limits.preferred_max_bytes:
            return [*self.cut(), [envelope]]
        batches = self.cut() if self._pending_bytes + size > limits.preferred_max_bytes else []
        self._pending.append(envelope)
        self._pending_bytes += size
        if len(self._pending) >= limits.max_messages:
            batches += self.cut()
        return batches

    def cut(self) -> list[list[bytes]]:
        """Give what waits as a batch; none when nothing does."""
        batch, self._pending, self._pending_bytes = self._pending, [], 0
        return [batch] if batch else []
