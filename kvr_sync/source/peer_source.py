"""Blocks from the peers of one organisation, by their Deliver services, with or without private data.

The engine is synchronous and the client is not, so one background thread reads the stream and hands blocks over through
a queue that holds a bounded number of bytes. A lost connection, a silent peer or a peer that cannot serve is left for
the next peer of the list, after a pause that grows; reading goes on at the first number that was not received.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import NamedTuple, Self

from cryptography.x509 import load_pem_x509_certificates

from gateway.client.blocks import BlockStream, ReceivedBlock, Stop
from gateway.client.channel import Endpoint, NodeChannel
from gateway.client.errors import (
    BlocksForbiddenError,
    BlocksNotFoundError,
    BlocksStalledError,
    BlockStreamError,
    ClientError,
)
from gateway.client.gateway import Chance
from gateway.client.identity import SigningIdentity
from gateway.client.profile import read_profile
from kvr_sync import errors
from kvr_sync.model import RawBlock
from kvr_sync.observation import Observer
from kvr_sync.source.block_source import peek_block_number

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PeerSettings:
    """Which channel to read, as whom, and where.

    `profile`: connection profile file. `identity`: MSP folder with `signcerts/` and `keystore/`. `peer`: address, host
    or name of the one peer to read from; without it those of the organisation are tried in turn.
    """

    profile: Path
    msp_id: str
    identity: Path
    channel: str
    peer: str | None = None
    private_data: bool = False


@dataclass(frozen=True)
class Patience:
    """How long a source waits; seconds, and pauses that double from the first to the longest."""

    idle_seconds: float = 20.0
    """Between two blocks that the peer has, and for the answer to the question which is its newest."""
    quiet_seconds: float = 60.0
    """Without a new block while following; then the peer is asked whether it has one."""
    first_pause: float = 0.2
    longest_pause: float = 15.0
    attempts: int = 8
    """In a row without a block, on the way to the tip; following never gives up."""
    held_bytes: int = 32 * 1024 * 1024
    """Read ahead of the engine; a single larger block goes alone."""

    def pause(self, failures: int, jitter: float) -> float:
        """Give the seconds to wait after a number of failures in a row; `jitter` in [0, 1) halves them at most."""
        return min(self.longest_pause, self.first_pause * 2.0 ** min(failures - 1, 30)) * (0.5 + jitter / 2)


DEFAULT_PATIENCE = Patience()

TICK_SECONDS = 1.0
"""A reader that waits for a block looks up so often, to tell that it is there."""


def open_peer_source(settings: PeerSettings, *, follow: bool = False, observer: Observer | None = None) -> "PeerSource":
    """Read profile and credential, and give the source; nothing is connected yet.

    Raises ConfigurationError: a file that cannot be used, or no such peer in the profile.
    """
    identity, endpoints = read_peers(settings)
    return PeerSource(
        identity,
        endpoints,
        settings.channel,
        private_data=settings.private_data,
        follow=follow,
        observer=observer,
    )


def read_peers(settings: PeerSettings) -> tuple[SigningIdentity, tuple[Endpoint, ...]]:
    """Read profile and credential: who reads, and the peers in their order. Raises ConfigurationError, as above."""
    try:
        endpoints = read_profile(settings.profile).own_peers(settings.msp_id)
        identity = SigningIdentity.from_msp_folder(settings.msp_id, settings.identity)
    except ClientError as error:
        raise errors.ConfigurationError(str(error)) from error
    for endpoint in endpoints:
        try:
            load_pem_x509_certificates(endpoint.tls_roots)
        except ValueError:
            message = f"{settings.profile}: TLS roots of {endpoint.address} are no certificates in PEM"
            raise errors.ConfigurationError(message) from None
    if settings.peer is not None:
        endpoints = tuple(endpoint for endpoint in endpoints if settings.peer in _names(endpoint))
        if not endpoints:
            message = f"{settings.profile}: {settings.msp_id} has no peer {settings.peer}"
            raise errors.ConfigurationError(message)
    return identity, endpoints


def _names(endpoint: Endpoint) -> tuple[str, ...]:
    return endpoint.address, endpoint.address.rpartition(":")[0], endpoint.server_name


class PeerSource:
    """A `BlockSource` on peers, for one reader at a time. Close it, or use it as a context manager.

    Without `follow` a reading ends at the newest block that the peer had when the reading began; with it, when `stop`
    is called. Raises, besides what the protocol says: AccessDeniedError, ChannelNotFoundError, BlocksNotHeldError once
    every peer has refused for such a reason, and SourceUnavailableError once `Patience.attempts` are used up.
    """

    def __init__(
        self,
        identity: SigningIdentity,
        endpoints: Sequence[Endpoint],
        channel: str,
        *,
        private_data: bool = False,
        follow: bool = False,
        patience: Patience = DEFAULT_PATIENCE,
        chance: Chance | None = None,
        observer: Observer | None = None,
    ) -> None:
        if not endpoints:
            message = f"channel {channel}: no peer to read from"
            raise errors.ConfigurationError(message)
        self.channel = channel
        self._plan = _Plan(
            identity,
            tuple(endpoints),
            channel,
            private_data,
            follow,
            patience,
            chance or Chance(),
            observer or Observer(),
        )
        self._reading: _Reading | None = None
        self._stopped = False
        self._first = self._next = 0

    @property
    def name(self) -> str:
        """The channel and the addresses of the peers."""
        return f"channel {self.channel} at {', '.join(self.peers)}"

    @property
    def peers(self) -> tuple[str, ...]:
        """The addresses of the peers, as the observer is told them."""
        return tuple(endpoint.address for endpoint in self._plan.endpoints)

    def blocks(self, start: int) -> Iterator[RawBlock]:
        """Yield the blocks from `start` on; see `BlockSource`. A peer that ends below `start` yields none."""
        self.close()
        if self._stopped:
            return
        reading = self._reading = _Reading(self._plan, start)
        self._first = self._next = start
        try:
            while not self._stopped:
                raw = reading.take()
                if raw is None:
                    return
                self._next += 1
                yield raw
        finally:
            reading.close()

    def is_waiting(self) -> bool:
        """Tell whether a follower has all blocks there are, so that the next one would have to be waited for."""
        reading = self._reading
        return self._plan.follow and reading is not None and reading.is_empty and self._next > reading.newest

    def progress(self) -> float | None:
        """Fraction of the way to the newest block known; None before that is known."""
        newest = self._reading.newest if self._reading is not None else -1
        total = newest + 1 - self._first
        return min(1.0, (self._next - self._first) / total) if total > 0 else None

    def stop(self) -> None:
        """End the reading under way, and every later one at once; may be called from a signal handler."""
        self._stopped = True
        reading = self._reading
        if reading is not None:
            reading.wake()

    def close(self) -> None:
        """End the reading under way, with its thread and connection."""
        reading, self._reading = self._reading, None
        if reading is not None:
            reading.close()

    def __enter__(self) -> Self:
        """Give itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close."""
        self.close()


class _Plan(NamedTuple):
    identity: SigningIdentity
    endpoints: tuple[Endpoint, ...]
    channel: str
    private_data: bool
    follow: bool
    patience: Patience
    chance: Chance
    observer: Observer


class _End(NamedTuple):
    error: Exception | None


class _Reading:
    """One background thread that reads from a number on, and its queue. Made and used by one thread."""

    def __init__(self, plan: _Plan, start: int) -> None:
        # Not a bounded Queue: its `put` takes a lock, and `wake` is called by signal handlers.
        self._queue: SimpleQueue[RawBlock | _End] = SimpleQueue()
        self._tick = plan.observer.tick
        self._reader = _Reader(plan, start, self._queue.put)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="kvr-peer-source", daemon=True)
        self._thread.start()

    @property
    def is_empty(self) -> bool:
        return self._queue.empty()

    @property
    def newest(self) -> int:
        """The newest block that a peer was known to have; -1 before any was asked."""
        return self._reader.newest

    def take(self) -> RawBlock | None:
        """Wait for the next block; None at the end. Raises what ended the reading."""
        item = self._next_item()
        if isinstance(item, _End):
            if item.error is not None:
                raise item.error
            return None
        with suppress(RuntimeError):  # the thread has come to its end, and waits for no room
            self._loop.call_soon_threadsafe(self._reader.taken, _size(item))
        return item

    def _next_item(self) -> RawBlock | _End:
        while True:
            try:
                return self._queue.get(timeout=TICK_SECONDS)
            except Empty:
                if self._thread.is_alive():  # nothing comes from a thread that is gone, and nobody would know
                    self._tick()

    def wake(self) -> None:
        self._queue.put(_End(None))

    def close(self) -> None:
        with suppress(RuntimeError):  # the loop is closed already: the thread has come to its end
            self._loop.call_soon_threadsafe(self._reader.closing.set)
        self._thread.join()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._reader.run())


class _Reader:
    """What runs in the thread: connections, order of peers, pauses."""

    def __init__(self, plan: _Plan, start: int, put: Callable[[RawBlock | _End], None]) -> None:
        self.newest = -1
        self.closing = asyncio.Event()
        self._plan = plan
        self._next = start
        self._put = put
        self._held = 0
        self._room = asyncio.Event()
        self._connected: Endpoint | None = None

    def taken(self, size: int) -> None:
        """Learn that the engine took a block."""
        self._held -= size
        self._room.set()

    async def run(self) -> None:
        """Read until the end, an error that ends the reading, or `closing`; the queue gets an `_End` last."""
        reading = asyncio.create_task(self._read())
        closing = asyncio.create_task(self.closing.wait())
        await asyncio.wait({reading, closing}, return_when=asyncio.FIRST_COMPLETED)
        closing.cancel()
        reading.cancel()
        await asyncio.gather(reading, closing, return_exceptions=True)
        error = None if reading.cancelled() else reading.exception()
        self._put(_End(error if isinstance(error, Exception) else None))

    async def _read(self) -> None:
        plan = self._plan
        failures = position = 0
        refusals: set[int] = set()
        while True:
            endpoint = plan.endpoints[position]
            before = self._next
            try:
                if await self._read_from(endpoint):
                    return
                failure: errors.SourceError | None = None  # nothing new for a while: look again
            except (ClientError, errors.SourceError) as error:
                failure = source_failure(endpoint, plan.channel, error)
            if self._next > before or failure is None:
                failures, refusals = 0, set()
            if failure is None:
                continue
            failures += 1
            self._connected = None
            plan.observer.peer_connected(connected=False)
            if failure.retryable:
                refusals.clear()
            else:
                refusals.add(position)
            behind = isinstance(failure, errors.SourceBehindError)
            position = (position + 1) % len(plan.endpoints)
            if len(refusals) == len(plan.endpoints):
                raise failure
            if not plan.follow and behind and self.newest < self._next and failures >= len(plan.endpoints):
                return  # the engine says what it means to have no block at all
            if not plan.follow and failures >= plan.patience.attempts:
                raise failure
            pause = plan.patience.pause(failures, plan.chance.jitter())
            logger.warning(
                "peer_left",
                extra={
                    "channel": plan.channel,
                    "peer": endpoint.address,
                    "code": failure.code,
                    "reason": str(failure),
                    "block_number": self._next,
                    "failures": failures,
                    "pause_seconds": round(pause, 3),
                },
            )
            await plan.chance.sleep(pause)

    async def _read_from(self, endpoint: Endpoint) -> bool:
        """Read from one peer; True at the end of the source, False when a follower has seen nothing new for a while."""
        plan, patience = self._plan, self._plan.patience
        async with NodeChannel(endpoint) as channel:
            stream = BlockStream(plan.identity, channel, plan.channel, plan.chance)
            number = peek_block_number(await stream.newest(idle_seconds=patience.idle_seconds))
            if number is None:
                message = f"{endpoint.address}: what it gives as its newest block is no block"
                raise errors.SourceUnavailableError(message)
            plan.observer.peer_seen(endpoint.address, number + 1, is_newest=True)
            if number + 1 < self._next or (number < self._next and not plan.follow):
                message = f"{endpoint.address} has blocks up to {number}, block {self._next} is needed"
                raise errors.SourceBehindError(message)
            self.newest = max(self.newest, number)
            origin = f"channel {plan.channel} at {endpoint.address}, block "
            if self._connected is not endpoint:
                self._connected = endpoint
                facts = {"channel": plan.channel, "peer": endpoint.address, "block_number": number}
                logger.info("peer_connected", extra=facts)
            plan.observer.peer_connected(connected=True)
            while self._next <= number or plan.follow:
                # What is known to be there must come soon; what may come later has all the time.
                known = self._next <= number
                blocks = stream.blocks(
                    self._next,
                    stop=number if known else Stop.NEVER,
                    private_data=plan.private_data,
                    idle_seconds=patience.idle_seconds if known else patience.quiet_seconds,
                )
                try:
                    async for received in blocks:
                        plan.observer.peer_seen(endpoint.address, received.number + 1)
                        await self._hand_over(received, origin)
                except BlocksStalledError:
                    if known:
                        raise
                    return False
                finally:
                    await blocks.aclose()
        return True

    async def _hand_over(self, received: ReceivedBlock, origin: str) -> None:
        raw = RawBlock(received.content, f"{origin}{received.number}", received.private_data)
        size = _size(raw)
        while self._held and self._held + size > self._plan.patience.held_bytes:
            self._room.clear()
            await self._room.wait()
        self._held += size
        self._next = received.number + 1
        self._put(raw)


def _size(raw: RawBlock) -> int:
    return len(raw.content) + sum(len(content) for content in raw.private_sets.values())


def source_failure(endpoint: Endpoint, channel: str, error: ClientError | errors.SourceError) -> errors.SourceError:
    """Say what a failure means for the source; refusals that are final at one peer may be none at another."""
    if isinstance(error, errors.SourceError):
        return error
    where = f"channel {channel} at {endpoint.address}: "
    if isinstance(error, BlocksForbiddenError):
        return errors.AccessDeniedError(f"{where}the identity may not read it, or its certificate has expired")
    if isinstance(error, BlocksNotFoundError):
        if error.next_block < 0:  # that was the question for its newest block, which every channel has
            return errors.ChannelNotFoundError(f"{where}the peer does not know the channel")
        return errors.BlocksNotHeldError(f"{where}the peer does not hold block {error.next_block}")
    if error.retryable or not isinstance(error, BlockStreamError):
        return errors.SourceUnavailableError(f"{where}{error}")
    return errors.SourceError(f"{where}{error}")
