"""Metrics of the engine for Prometheus, and the observer that keeps them with a channel's health.

Labels are channel, peer (addresses of the profile), code, reason and stage: sets that an operator's settings and our
own code bound. Ids, keys and values are never labels.
"""

import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from kvr_sync.errors import KvrSyncError, SinkError, SourceError, VerificationError
from kvr_sync.health import Health
from kvr_sync.observation import Observer
from kvr_sync.store.ledger_sink import utc_now

STAGE_BUCKETS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0)
"""Upper bounds in seconds: a block takes parts of a millisecond in one stage, a commit of many blocks seconds."""


class Metrics:
    """The metrics of one process, in a registry of their own."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        channel = ["channel"]
        self.checkpoint = Gauge("kvr_sync_checkpoint_block", "Last block applied.", channel, registry=registry)
        self.source_height = Gauge(
            "kvr_sync_source_height",
            "Blocks that a peer was last seen to have.",
            ["channel", "peer"],
            registry=registry,
        )
        self.lag_blocks = Gauge(
            "kvr_sync_lag_blocks", "Blocks that the peers have and the tables lack.", channel, registry=registry
        )
        self.oldest_unapplied = Gauge(
            "kvr_sync_oldest_unapplied_seconds",
            "How long the oldest block that is not applied has been known; 0: all are applied.",
            channel,
            registry=registry,
        )
        self.blocks = Counter(
            "kvr_sync_blocks_committed", "Blocks applied by this process.", channel, registry=registry
        )
        self.stage = Histogram(
            "kvr_sync_stage_seconds",
            "Time of one pass through a stage of the line, where the engine itself does it.",
            ["channel", "stage"],
            buckets=STAGE_BUCKETS,
            registry=registry,
        )
        self.verification_failures = Counter(
            "kvr_sync_verification_failures",
            "Blocks that did not check out, by the code of the error.",
            ["channel", "code"],
            registry=registry,
        )
        self.quarantined = Counter(
            "kvr_sync_quarantined",
            "Values that did not fit their mapping, by reason.",
            ["channel", "reason"],
            registry=registry,
        )
        self.private_missing = Gauge(
            "kvr_sync_private_missing", "Private values that should be held and are not.", channel, registry=registry
        )
        self.unknown_commits = Counter(
            "kvr_sync_unknown_commits", "COMMITs whose answer was lost.", channel, registry=registry
        )
        self.last_success = Gauge(
            "kvr_sync_last_success_timestamp_seconds",
            "When a run last ended without an error, or a block was applied.",
            channel,
            registry=registry,
        )


class ChannelWatch(Observer):
    """Keeps the metrics and the health of one channel."""

    def __init__(
        self,
        channel: str,
        metrics: Metrics,
        *,
        clock: Callable[[], datetime] = utc_now,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(clock=clock)
        self.channel = channel
        self.health = Health(monotonic)
        self._clock = clock
        self._metrics = metrics
        # All that have no further label are there from the beginning, so that a rise from nothing can be seen.
        self._checkpoint = metrics.checkpoint.labels(channel)
        self._blocks = metrics.blocks.labels(channel)
        self._unknown = metrics.unknown_commits.labels(channel)
        self._missing = metrics.private_missing.labels(channel)
        self._success = metrics.last_success.labels(channel)
        metrics.lag_blocks.labels(channel).set_function(lambda: self.heights.lag_blocks() or 0)
        metrics.oldest_unapplied.labels(channel).set_function(self.heights.lag_seconds)

    def unready(self, limit_seconds: float) -> list[str]:
        """Give what makes the tables unready, as `Health.unready` does, with `catching_up`.

        They catch up until they have passed where the peers stood when this process began: however new the blocks they
        lack were to it, tables of a restored backup hold what was erased since.
        """
        reasons = self.health.unready(self.heights.lag_seconds(), limit_seconds)
        return reasons if self.heights.has_caught_up() else [*reasons, "catching_up"]

    def tick(self) -> None:
        """Keep the loop alive."""
        self.health.tick()

    def stage_done(self, stage: str, seconds: float) -> None:
        """Count the time of a stage."""
        self._metrics.stage.labels(self.channel, stage).observe(seconds)

    def run_began(self, height: int) -> None:
        """Show where the tables stand."""
        super().run_began(height)
        self._checkpoint.set(height - 1)
        self.health.note_database(answers=True)

    def committed(self, block_number: int, blocks: int, quarantined: Mapping[str, int]) -> None:
        """Count what was applied."""
        super().committed(block_number, blocks, quarantined)
        self._checkpoint.set(block_number)
        self._blocks.inc(blocks)
        for reason, count in quarantined.items():
            self._metrics.quarantined.labels(self.channel, reason).inc(count)
        self._success.set(self._clock().timestamp())
        self.health.note_database(answers=True)

    def commit_unknown(self) -> None:
        """Count it."""
        self._unknown.inc()

    def run_done(self) -> None:
        """Note that source and database served a whole run."""
        self._success.set(self._clock().timestamp())
        self.health.note_database(answers=True)
        self.health.note_source(answers=True)

    def run_failed(self, error: KvrSyncError) -> None:
        """Count blocks that did not check out, and note which of the two sides did not serve."""
        if isinstance(error, VerificationError):
            self._metrics.verification_failures.labels(self.channel, error.code).inc()
        if not error.may_run_again:
            self.health.note_stopped()
        if isinstance(error, SinkError):
            self.health.note_database(answers=False)
        elif isinstance(error, SourceError):
            self.health.note_source(answers=False)

    def peer_seen(self, peer: str, height: int, *, is_newest: bool = False) -> None:
        """Show the height of a peer."""
        super().peer_seen(peer, height, is_newest=is_newest)
        self._metrics.source_height.labels(self.channel, peer).set(height)

    def peer_connected(self, *, connected: bool) -> None:
        """Note that blocks can be read, or cannot."""
        self.health.note_source(answers=connected)

    def private_counted(self, missing: int) -> None:
        """Show how much is missing."""
        self._missing.set(missing)

    def database_answered(self, *, answers: bool) -> None:
        """Note it."""
        self.health.note_database(answers=answers)
