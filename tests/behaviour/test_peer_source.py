"""A peer's blocks as a source: in order, each once, whatever happens to the connection."""

import random
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from fabric_protos.common import common_pb2

from gateway.client.gateway import Chance
from kvr_sync import errors
from kvr_sync.model import RawBlock
from kvr_sync.source.peer_source import Patience, PeerSource, open_peer_source
from tests.support.evidence import wait_until
from tests.support.recorded_chain import load_chain
from tests.support.recorded_peer import Fault, RecordedPeer, peer_settings, reader_identity, recorded_peer

CHAIN = load_chain("fabric-3.1.5-raft").blocks[:40]
PATIENCE = Patience(idle_seconds=20, quiet_seconds=0.2, attempts=3)
"""Only a peer that stays silent is waited for as long as this: a slow machine must not look like one."""


class Pauses(list[float]):
    """The pauses asked for; none is slept."""

    async def sleep(self, seconds: float) -> None:
        self.append(seconds)


@contextmanager
def source_on(
    *peers: RecordedPeer, follow: bool = False, patience: Patience = PATIENCE, pauses: Pauses | None = None
) -> Iterator[PeerSource]:
    before = threading.active_count()
    chance = Chance(jitter=lambda: 0.0, sleep=(Pauses() if pauses is None else pauses).sleep)
    endpoints = [peer.endpoint for peer in peers]
    with PeerSource(reader_identity(), endpoints, "consortium", follow=follow, patience=patience, chance=chance) as it:
        yield it
    names = [thread.name for thread in threading.enumerate()]
    assert "kvr-peer-source" not in names, before


def contents(raws: Sequence[RawBlock]) -> list[bytes]:
    return [raw.content for raw in raws]


@pytest.mark.parametrize("start", [0, 17, 39])
def test_gives_the_blocks_from_a_number_to_the_tip(start: int) -> None:
    with recorded_peer(CHAIN) as peer, source_on(peer) as source:
        found = contents(list(source.blocks(start)))

        assert found == list(CHAIN[start:])
        assert source.progress() == 1.0


def test_a_reading_ends_at_the_tip_that_was_there_when_it_began() -> None:
    with recorded_peer(CHAIN[:10]) as peer, source_on(peer) as source:
        blocks = source.blocks(0)
        first = next(blocks)
        peer.append(*CHAIN[10:])

        assert contents([first, *blocks]) == list(CHAIN[:10])
        assert contents(list(source.blocks(10))) == list(CHAIN[10:])


def test_a_broken_connection_goes_on_at_the_next_number() -> None:
    seed = random.randrange(2**32)  # noqa: S311  moments, not secrets
    moments = random.Random(seed)  # noqa: S311
    with recorded_peer(CHAIN) as peer, source_on(peer) as source:
        peer.faults.extend(Fault(moments.randrange(1, 4), "cut") for _ in range(12))

        assert contents(list(source.blocks(0))) == list(CHAIN), f"seed {seed}"
        assert len(peer.asked) == 13


def test_a_peer_that_cannot_be_reached_is_left_for_the_next() -> None:
    with recorded_peer(CHAIN) as gone:
        pass
    with recorded_peer(CHAIN) as peer, source_on(gone, peer) as source:
        assert contents(list(source.blocks(0))) == list(CHAIN)


def test_pauses_double_and_the_source_gives_up() -> None:
    pauses = Pauses()
    with recorded_peer(CHAIN) as peer, source_on(peer, pauses=pauses) as source:
        peer.faults.extend(Fault(0, "cut") for _ in range(3))

        with pytest.raises(errors.SourceUnavailableError, match="UNAVAILABLE") as caught:
            list(source.blocks(0))

    assert caught.value.retryable
    assert pauses == [0.1, 0.2]  # half of each, as the jitter is none


def test_failures_are_counted_in_a_row() -> None:
    pauses = Pauses()
    with recorded_peer(CHAIN) as peer, source_on(peer, pauses=pauses) as source:
        peer.faults.extend(Fault(after, "cut") for after in (0, 5, 0, 5, 0))

        assert contents(list(source.blocks(0))) == list(CHAIN)

    assert pauses == [0.1, 0.1, 0.2, 0.1, 0.2]


def test_a_silent_peer_is_left_after_its_deadline() -> None:
    patience = replace(PATIENCE, idle_seconds=2)
    with recorded_peer(CHAIN) as silent, recorded_peer(CHAIN) as peer:
        silent.faults.append(Fault(7, "silent"))
        with source_on(silent, peer, patience=patience) as source:
            assert contents(list(source.blocks(0))) == list(CHAIN)

    assert peer.asked == [("Deliver", 7)]


@pytest.mark.parametrize(
    ("status", "expected", "retryable"),
    [
        (common_pb2.FORBIDDEN, errors.AccessDeniedError, False),
        (common_pb2.NOT_FOUND, errors.ChannelNotFoundError, False),
        (common_pb2.SERVICE_UNAVAILABLE, errors.SourceUnavailableError, True),
        (common_pb2.BAD_REQUEST, errors.SourceError, False),
    ],
)
def test_a_refusal_of_the_peer_has_a_name(status: int, expected: type[errors.SourceError], *, retryable: bool) -> None:
    with recorded_peer(CHAIN) as peer, source_on(peer) as source:
        peer.newest_status = status

        with pytest.raises(errors.SourceError) as caught:
            list(source.blocks(0))

    assert type(caught.value) is expected
    assert caught.value.retryable is retryable


def test_a_refusal_at_one_peer_is_final_only_when_all_refuse() -> None:
    with recorded_peer(CHAIN) as first, recorded_peer(CHAIN) as second, source_on(first, second) as source:
        first.newest_status = common_pb2.FORBIDDEN
        assert contents(list(source.blocks(0))) == list(CHAIN)

        second.newest_status = common_pb2.FORBIDDEN
        with pytest.raises(errors.AccessDeniedError):
            list(source.blocks(0))


def test_a_status_in_mid_stream_gives_the_blocks_before_it() -> None:
    with recorded_peer(CHAIN) as peer, source_on(peer) as source:
        peer.faults.extend(Fault(3 if number == 0 else 0, "", common_pb2.FORBIDDEN) for number in range(2))
        blocks = source.blocks(0)

        assert contents([next(blocks) for _ in range(3)]) == list(CHAIN[:3])
        with pytest.raises(errors.AccessDeniedError):
            next(blocks)


def test_a_peer_that_began_with_a_snapshot_does_not_hold_the_block() -> None:
    with recorded_peer(CHAIN) as peer, source_on(peer) as source:
        peer.first = 20

        with pytest.raises(errors.BlocksNotHeldError, match="does not hold block 5"):
            list(source.blocks(5))


def test_a_peer_that_is_behind_yields_nothing() -> None:
    with recorded_peer(CHAIN[:10]) as peer, source_on(peer) as source:
        assert list(source.blocks(30)) == []


@pytest.mark.parametrize("follow", [False, True])
def test_a_peer_that_is_behind_is_left_for_one_that_is_not(*, follow: bool) -> None:
    with recorded_peer(CHAIN[:10]) as behind, recorded_peer(CHAIN) as peer:
        with source_on(behind, peer, follow=follow) as source:
            assert next(source.blocks(30)).content == CHAIN[30]

        assert (behind.asked, peer.asked[0]) == ([], ("Deliver", 30))
        # A follower that is quick enough has asked for what comes after the newest block, too.
        assert set(peer.asked[1:]) <= ({("Deliver", len(CHAIN))} if follow else set())


def test_a_peer_that_is_behind_is_no_end_for_who_knows_of_more() -> None:
    with recorded_peer(CHAIN) as peer, recorded_peer(CHAIN[:3]) as behind, source_on(peer, behind) as source:
        peer.faults.append(Fault(5, "cut"))

        assert contents(list(source.blocks(0))) == list(CHAIN)


def test_a_follower_that_catches_up_is_not_waiting() -> None:
    patience = replace(PATIENCE, held_bytes=1)
    with recorded_peer(CHAIN) as peer, source_on(peer, follow=True, patience=patience) as source:
        blocks = source.blocks(0)
        waiting = [source.is_waiting() for _ in zip(range(len(CHAIN)), blocks, strict=False)]

    assert waiting == [False] * (len(CHAIN) - 1) + [True]


def test_a_follower_gets_new_blocks_and_ends_when_told() -> None:
    with recorded_peer(CHAIN[:10]) as peer, source_on(peer, follow=True) as source:
        blocks = source.blocks(8)
        assert contents([next(blocks), next(blocks)]) == list(CHAIN[8:10])
        assert source.is_waiting()

        peer.append(*CHAIN[10:13])
        assert contents([next(blocks) for _ in range(3)]) == list(CHAIN[10:13])

        timer = threading.Timer(0.05, source.stop)
        timer.start()
        assert list(blocks) == []
        assert list(source.blocks(0)) == []
        timer.join()


def test_a_quiet_follower_asks_again_and_loses_nothing() -> None:
    pauses = Pauses()
    with recorded_peer(CHAIN[:10]) as peer, source_on(peer, follow=True, pauses=pauses) as source:
        blocks = source.blocks(9)
        assert next(blocks).content == CHAIN[9]
        wait_until(lambda: len(peer.asked) > 3, "the stream is opened anew")
        peer.append(CHAIN[10])

        assert next(blocks).content == CHAIN[10]

    assert pauses == []


def test_a_follower_never_gives_up() -> None:
    with recorded_peer(CHAIN) as peer, source_on(peer, follow=True) as source:
        peer.faults.extend(Fault(0, "cut") for _ in range(20))

        assert next(source.blocks(0)).content == CHAIN[0]


def test_no_more_is_read_ahead_than_was_said() -> None:
    patience = replace(PATIENCE, held_bytes=len(CHAIN[0]) + len(CHAIN[1]))
    with recorded_peer(CHAIN) as peer, source_on(peer, patience=patience) as source:
        blocks = source.blocks(0)
        first = next(blocks)
        reading = source._reading  # noqa: SLF001
        assert reading is not None
        reader = reading._reader  # noqa: SLF001
        # What was sent and not taken into the queue shows that the reader waits for room.
        wait_until(lambda: len(peer.sent) > reader._next > 1, "the reader waits")  # noqa: SLF001
        assert reader._held <= patience.held_bytes  # noqa: SLF001

        assert contents([first, *blocks]) == list(CHAIN)


def test_leaving_a_reading_ends_its_thread() -> None:
    with recorded_peer(CHAIN) as peer, source_on(peer) as source:
        assert next(source.blocks(0)).content == CHAIN[0]

        assert "kvr-peer-source" not in [thread.name for thread in threading.enumerate()]


def test_settings_are_read_from_profile_and_folder(tmp_path: Path) -> None:
    with recorded_peer(CHAIN) as one, recorded_peer(CHAIN[:3]) as two:
        settings = peer_settings(tmp_path, (one, two))
        with open_peer_source(settings) as source:
            assert (one.address in source.name, two.address in source.name) == (True, True)
            assert len(list(source.blocks(0))) == len(CHAIN)
