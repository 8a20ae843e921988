"""Recording a channel from peers that disagree, fail or are slow: an error, and nothing half written."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from fabric_protos.common import ledger_pb2

from gateway.client.channel import NodeChannel
from gateway.client.endorser import Endorser
from gateway.client.errors import BlocksForbiddenError
from network.errors import RecordingError
from network.protocol.block import header_hash
from network.protocol.decode import decode_block
from network.recording import record_channel
from tests.support.recorded_chain import CHAINS, change_block, load_chain
from tests.support.recorded_peer import CHANNEL, Fault, RecordedPeer, reader_identity, recorded_peer

BLOCKS = load_chain(CHAINS[0]).blocks[:6]


class TellingEndorser(Endorser):
    """A peer that says of itself what its blocks say; nothing else can be asked."""

    blocks: Sequence[bytes] = ()

    async def call(self, chaincode: str, arguments: Sequence[bytes], **_: Any) -> bytes:  # type: ignore[override]  # a double
        assert (chaincode, arguments) == ("qscc", [b"GetChainInfo", CHANNEL.encode()])
        tip = header_hash(decode_block(self.blocks[-1]).header)
        return bytes(ledger_pb2.BlockchainInfo(height=len(self.blocks), currentBlockHash=tip).SerializeToString())


@asynccontextmanager
async def connected(peer: RecordedPeer) -> AsyncIterator[Endorser]:
    class Telling(TellingEndorser):
        blocks = tuple(peer.blocks)

    async with NodeChannel(peer.endpoint) as channel:
        yield Telling(reader_identity(), channel)


def recorded(folder: Path, *chains: Sequence[bytes], fault: Fault | None = None) -> None:
    async def story(peers: Sequence[RecordedPeer]) -> None:
        async with connected(peers[0]) as first, connected(peers[-1]) as last:
            await record_channel([first, last], CHANNEL, folder, lambda _: None)

    with ExitStack() as stack:
        peers = [stack.enter_context(recorded_peer(chain)) for chain in chains]
        if fault is not None:
            peers[0].faults.append(fault)
        asyncio.run(story(peers))


def other_flags(block: Any) -> None:
    block.metadata.metadata[2] = b"\x0b"


def other_number(block: Any) -> None:
    block.header.number = 7


def other_previous(block: Any) -> None:
    block.header.previous_hash = bytes(32)


def at(number: int, change: Callable[[Any], None]) -> list[bytes]:
    return [change_block(content, change) if place == number else content for place, content in enumerate(BLOCKS)]


@pytest.mark.parametrize(
    ("chain", "words"),
    [
        (at(5, other_previous), "has another block 5"),
        (BLOCKS[:4] + load_chain(CHAINS[1]).blocks[4:5], "has another block 4"),
    ],
    ids=["height", "lower"],
)
def test_a_peer_whose_last_block_is_another_one_is_named(tmp_path: Path, chain: Any, words: str) -> None:
    with pytest.raises(RecordingError, match=words):
        recorded(tmp_path / "out", BLOCKS, chain)

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("change", [other_number, other_previous], ids=["number", "previous hash"])
def test_blocks_that_do_not_follow_each_other_are_not_recorded(tmp_path: Path, change: Any) -> None:
    with pytest.raises(RecordingError, match="block 3 does not follow"):
        recorded(tmp_path / "out", at(3, change))

    assert list(tmp_path.iterdir()) == []


def test_what_is_no_block_is_not_recorded(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="block 2: "):
        recorded(tmp_path / "out", [*BLOCKS[:2], b"\xff", *BLOCKS[3:]])

    assert list(tmp_path.iterdir()) == []


def test_a_peer_that_forbids_it_ends_the_recording(tmp_path: Path) -> None:
    with pytest.raises(BlocksForbiddenError):
        recorded(tmp_path / "out", BLOCKS, fault=Fault(2, "", 403))

    assert list(tmp_path.iterdir()) == []


def test_verdicts_of_two_peers_have_to_be_the_same(tmp_path: Path) -> None:
    """The first of the organisation's peers is asked for private data; here it answers otherwise the second time."""

    async def story(peer: RecordedPeer) -> None:
        async with connected(peer) as endorser:
            deliver = peer.deliver

            def changing(service: str, requests: Any, context: Any) -> Any:
                if service == "DeliverWithPrivateData":
                    peer.blocks[4] = change_block(BLOCKS[4], other_flags)
                return deliver(service, requests, context)

            peer.deliver = changing  # type: ignore[method-assign]  # a double
            await record_channel([endorser], CHANNEL, tmp_path / "out", lambda _: None)

    with recorded_peer(BLOCKS) as peer, pytest.raises(RecordingError, match="has another block 4"):
        asyncio.run(story(peer))

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_is_there_already_is_left_as_it_is(tmp_path: Path, kind: str) -> None:
    place = tmp_path / "out"
    kept = place / "kept" if kind == "folder" else place
    kept.parent.mkdir(exist_ok=True)
    kept.write_text("kept")

    with pytest.raises(RecordingError, match="not an empty folder"):
        recorded(place, BLOCKS)

    assert kept.read_text() == "kept"
    assert list(tmp_path.iterdir()) == [place]
