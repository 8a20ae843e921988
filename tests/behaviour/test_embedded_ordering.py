"""Ordering: what orderers of the embedded network take, and when they cut a block."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from fabric_protos.common import common_pb2

from network.embedded.ledger.admission import AdmissionError
from network.protocol.validation_code import BAD_COMMON_HEADER
from tests.support.embedded_ledger import (
    BOTH,
    CHANNEL,
    SERVICE,
    Endorsed,
    LedgerNetwork,
    deployed,
    put,
)
from tests.support.generated_network import GeneratedNetwork, generate_network

TIMEOUT = 0.2
"""Seconds, of the topology."""
FOREVER = timedelta(days=365 * 100).total_seconds()


@pytest.fixture
def narrow(generated: GeneratedNetwork, tmp_path: Path) -> Iterator[LedgerNetwork]:
    """Give a network whose blocks hold three messages, or 20,000 bytes; no message is above 60,000."""
    batch = replace(generated.topology.batch, max_messages=3, preferred_max_bytes=20_000, absolute_max_bytes=60_000)
    topology = replace(generated.topology, batch=batch)
    made = generate_network(topology, tmp_path / "credentials")
    with deployed(made, tmp_path / "network") as opened:
        yield opened


# --- cutting


def sizes(network: LedgerNetwork, height: int) -> list[int]:
    service = network.ledger.channels[CHANNEL]
    return [len(service.block(0, number).data.data) for number in range(height, service.height)]


async def cuts(network: LedgerNetwork, steps: list[tuple[float, int]]) -> list[tuple[float, int]]:
    """Write values of these sizes after these pauses; gives when, in seconds, blocks of how many messages came."""
    service, start = network.ledger.channels[CHANNEL], network.clock.now()
    found: list[tuple[float, int]] = []

    async def watch() -> None:
        height = service.height
        while True:
            await service.wait_for_height(height)
            found.extend((round(network.clock.now() - start, 3), count) for count in sizes(network, height))
            height = service.height

    watching = asyncio.create_task(watch())
    for pause, size in steps:
        await network.clock.sleep(pause)
        await network.submit(put("a", b"x" * size))
    await network.clock.sleep(TIMEOUT * 3)
    watching.cancel()
    return found


def test_a_block_is_cut_when_its_first_message_has_waited_long_enough(network: LedgerNetwork) -> None:
    assert network.run(cuts(network, [(0, 1), (0.09, 1), (0.09, 1), (0.09, 1)])) == [(0.2, 3), (0.47, 1)]


def test_a_block_is_cut_when_it_is_full(narrow: LedgerNetwork) -> None:
    assert narrow.run(cuts(narrow, [(0, 1)] * 7)) == [(0.0, 3), (0.0, 3), (0.2, 1)]


def test_the_timer_begins_again_after_a_full_block(narrow: LedgerNetwork) -> None:
    assert narrow.run(cuts(narrow, [(0, 1), (0.1, 1), (0, 1), (0.05, 1)])) == [(0.1, 3), (0.35, 1)]


def test_a_block_is_cut_before_it_becomes_too_large(narrow: LedgerNetwork) -> None:
    """Then the timer goes on as it was: the second message waits only for what is left of it."""
    assert narrow.run(cuts(narrow, [(0, 10_000), (0.1, 10_000)])) == [(0.1, 1), (0.2, 1)]


def test_a_large_message_is_alone_and_sends_away_what_waits(narrow: LedgerNetwork) -> None:
    assert narrow.run(cuts(narrow, [(0, 1), (0.1, 30_000), (0, 1)])) == [(0.1, 1), (0.1, 1), (0.3, 1)]


# --- what is taken


def changed(change: Callable[[Any, Any], None]) -> Callable[[LedgerNetwork, Endorsed], Any]:
    """Change the header of a transaction and sign it again."""

    def make(network: LedgerNetwork, endorsed: Endorsed) -> Any:
        payload = common_pb2.Payload.FromString(network.envelope(endorsed).payload)
        channel_header = common_pb2.ChannelHeader.FromString(payload.header.channel_header)
        change(payload, channel_header)
        payload.header.channel_header = channel_header.SerializeToString()
        content = payload.SerializeToString()
        signature = network.client("ServiceMSP", "agent").sign(content)
        return common_pb2.Envelope(payload=content, signature=signature)

    return make


def header_type(number: int) -> Callable[[LedgerNetwork, Endorsed], Any]:
    return changed(lambda _, header: setattr(header, "type", number))


REFUSED: dict[str, tuple[Callable[[LedgerNetwork, Endorsed], Any], int, str]] = {
    "no message": (
        lambda _, __: common_pb2.Envelope(payload=b"\xff"),
        400,
        "could not determine channel ID: ",
    ),
    "another channel": (
        changed(lambda _, header: setattr(header, "channel_id", "other")),
        400,
        "channel does not exist",
    ),
    "a configuration": (header_type(1), 400, "message is of type that cannot be processed directly"),
    "no update": (header_type(2), 400, "error applying config update to existing channel 'consortium'"),
    "of the orderers": (header_type(4), 400, "message is of type that is no longer supported"),
    "no signature": (
        lambda network, endorsed: common_pb2.Envelope(payload=network.envelope(endorsed).payload),
        403,
        ": permission denied",
    ),
    "the signature of another": (
        lambda network, endorsed: network.envelope(endorsed, ("BillingMSP", "agent")),
        403,
        ": permission denied",
    ),
    "too large": (
        changed(lambda payload, _: setattr(payload, "data", bytes(60_000))),
        400,
        "bytes and exceeds maximum allowed 60000 bytes",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refuses_with_the_status_and_words_of_real_orderers(case: str, narrow: LedgerNetwork) -> None:
    make, status, words = REFUSED[case]

    async def story() -> AdmissionError:
        endorsed = await narrow.endorse(put("a", b"1"))
        with pytest.raises(AdmissionError) as caught:
            await narrow.ledger.broadcast(make(narrow, endorsed))
        await narrow.clock.sleep(TIMEOUT * 2)
        return caught.value

    height = narrow.ledger.channels[CHANNEL].height
    error = narrow.run(story())

    assert (error.status, words in error.info) == (status, True), error.info
    assert narrow.ledger.channels[CHANNEL].height == height


def test_an_expired_client_is_refused(network: LedgerNetwork) -> None:
    async def story() -> AdmissionError:
        endorsed = await network.endorse(put("a", b"1"))
        network.clock.offset += FOREVER
        with pytest.raises(AdmissionError) as caught:
            await network.order(endorsed)
        return caught.value

    error = network.run(story())

    assert (error.status, error.info) == (400, "broadcast client identity expired")


def test_who_may_read_and_not_write_is_refused(network: LedgerNetwork) -> None:
    """Auditors evaluate by the channel's rule for proposals; ordering asks for Writers all the same."""
    auditor = ("AuditorMSP", "auditor")

    async def story() -> AdmissionError:
        endorsed = await network.endorse(put("a", b"1"), client=auditor)
        with pytest.raises(AdmissionError) as caught:
            await network.order(endorsed, auditor)
        return caught.value

    error = network.run(story())

    assert (error.status, error.info.endswith(": permission denied")) == (403, True)


def test_any_other_type_is_ordered_and_found_wrong_by_peers(network: LedgerNetwork) -> None:
    async def story() -> int:
        endorsed = await network.endorse(put("a", b"1"), BOTH)
        await network.ledger.broadcast(header_type(77)(network, endorsed))
        channel = network.channel(SERVICE)
        await channel.wait_for_height(channel.height)
        return int(channel.files.block(channel.height - 1).metadata.metadata[2][0])

    assert network.run(story()) == BAD_COMMON_HEADER


def test_an_envelope_is_written_in_its_one_canonical_form(network: LedgerNetwork) -> None:
    async def story() -> bytes:
        envelope = network.envelope(await network.endorse(put("a", b"1")))
        reversed_fields = common_pb2.Envelope(signature=envelope.signature).SerializeToString()
        reversed_fields += common_pb2.Envelope(payload=envelope.payload).SerializeToString()
        await network.ledger.broadcast(common_pb2.Envelope.FromString(reversed_fields))
        channel = network.channel(SERVICE)
        await channel.wait_for_height(channel.height)
        assert channel.files.block(channel.height - 1).metadata.metadata[2] == b"\0"
        return bytes(envelope.SerializeToString())

    envelope = network.run(story())

    channel = network.channel(SERVICE)
    assert list(channel.files.block(channel.height - 1).data.data) == [envelope]
