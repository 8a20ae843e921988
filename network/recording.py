"""Recording a channel: its blocks as a peer delivers them, members' private data, and what peers say of both.

A recording holds the private values that the recorded members have, and no key, token or certificate beside those in
the blocks. Written into an empty folder (format 1):

- `blocks.zst`: zstandard; per block a 4-byte big-endian length and the `common.Block` as the peer sent it, flags and
  commit hash included. `kvr sync replay` reads it.
- `private-<MSP id>.zst`: in the same way `protos.BlockAndPrivateData`, of those blocks alone for which that
  organisation's peer had private data.
- `answers.json`: height, header hash of the last block, number of the configuration in force, committed definitions
  with their approvals; what each peer said of its own height.
"""

import json
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

import zstandard
from fabric_protos.common import ledger_pb2

from gateway.client.blocks import BlockStream, ReceivedBlock
from gateway.client.channel import Endpoint, NodeChannel
from gateway.client.endorser import Endorser
from gateway.client.gateway import Gateway
from gateway.client.identity import SigningIdentity
from network.administration import committed_chaincodes
from network.channel.submission import fetch_configuration
from network.creation import CreatedNetwork
from network.errors import RecordingError
from network.protocol.block import header_hash
from network.protocol.decode import decode_block
from network.protocol.errors import DecodeError
from network.protocol.wire import parse, varint

FORMAT: Final = 1
LEVEL: Final = 19
"""Recordings are made once and kept: certificates, which are most of a block, compress well."""
IDLE_SECONDS: Final = 60.0
"""How long a peer may take to the next block; one that is behind catches up meanwhile."""
_BLOCK, _PRIVATE_DATA = b"\x0a", b"\x12"
"""Fields of protos.BlockAndPrivateData: a block, and an entry of the map by number of transaction."""

Progress = Callable[[str], None]


class Recording(NamedTuple):
    """What was recorded. `private`: number of blocks with private data, by MSP id."""

    channel: str
    height: int
    header_hash: bytes
    private: Mapping[str, int]


class _Seen(NamedTuple):
    """What every peer has to say alike of a block."""

    header_hash: bytes
    flags: bytes
    commit_hash: bytes | None


class _Tip(NamedTuple):
    height: int
    header_hash: bytes


@asynccontextmanager
async def connected_members(network: CreatedNetwork, channel_name: str) -> AsyncIterator[Sequence[Endorser]]:
    """Connect to every peer on a channel of a network of ours, as its organisation's admin.

    Raises RecordingError for a channel that the topology does not have.
    """
    channel = next((it for it in network.topology.channels if it.name == channel_name), None)
    if channel is None:
        raise RecordingError(f"{network.root.path} has no channel {channel_name}")
    async with AsyncExitStack() as stack:
        peers = []
        for organization in map(network.topology.organization, channel.members):
            folder = network.credentials.user_msp(organization.msp_id, organization.admins[0].name)
            admin = SigningIdentity.from_msp_folder(organization.msp_id, folder)
            for node in organization.nodes:
                endpoint = Endpoint(network.address(node.name), network.credentials.tls_ca_pem(organization.msp_id))
                connection = await stack.enter_async_context(NodeChannel(endpoint))
                await connection.dial()
                peers.append(Endorser(admin, connection))
        yield peers


async def record_channel(
    peers: Sequence[Endorser],
    channel_name: str,
    folder: Path,
    progress: Progress,
    network_facts: Mapping[str, object] | None = None,
) -> Recording:
    """Record a channel up to the highest block that one of the peers has now; the folder must be empty or absent.

    Blocks come from the first peer, private data from the first of each organisation; all must agree on every block.
    `network_facts` go into `answers.json` as they are. After an error nothing is in the folder.

    Raises RecordingError: the folder is in use, or peers disagree or send what is no block; ClientError: a peer cannot
    be reached, does not allow it, or does not get on.
    """
    with _made_whole(folder) as work:
        tips = {peer.channel.address: await _tip(peer, channel_name) for peer in peers}
        height = max(tip.height for tip in tips.values())
        progress(f"{channel_name}: {height} blocks from {peers[0].channel.address}")
        seen = await _record_blocks(peers[0], channel_name, height, work / "blocks.zst")
        _check_tips(tips, seen)
        private = {}
        for msp_id, peer in {peer.identity.msp_id: peer for peer in reversed(peers)}.items():
            progress(f"{channel_name}: private data of {msp_id} from {peer.channel.address}")
            path = work / f"private-{msp_id}.zst"
            private[msp_id] = await _record_private_data(peer, channel_name, seen, path)
        recording = Recording(channel_name, height, seen[-1].header_hash, dict(sorted(private.items())))
        answers = {
            "format": FORMAT,
            **await _answers(peers[0], recording),
            "peers": [
                {"address": it.channel.address, "msp_id": it.identity.msp_id, **_shown(tips[it.channel.address])}
                for it in peers
            ],
            **(network_facts or {}),
        }
        (work / "answers.json").write_text(json.dumps(answers, indent=1) + "\n", encoding="utf-8")
    return recording


async def _tip(peer: Endorser, channel_name: str) -> _Tip:
    answer = await peer.call("qscc", [b"GetChainInfo", channel_name.encode()], channel_name=channel_name)
    try:
        info = parse(ledger_pb2.BlockchainInfo, answer, "BlockchainInfo")
    except DecodeError as error:
        raise RecordingError(f"{peer.channel.address}: {error}") from error
    return _Tip(info.height, info.currentBlockHash)


def _shown(tip: _Tip) -> dict[str, object]:
    return {"height": tip.height, "header_hash": tip.header_hash.hex()}


def _check_tips(tips: Mapping[str, _Tip], seen: Sequence[_Seen]) -> None:
    """Of an organisation's further peers nothing else is asked: what each has last has to be ours."""
    for address, tip in tips.items():
        if not 0 < tip.height <= len(seen) or seen[tip.height - 1].header_hash != tip.header_hash:
            raise RecordingError(f"{address} has another block {tip.height - 1} than the peer that is recorded")


async def _record_blocks(peer: Endorser, channel_name: str, height: int, path: Path) -> list[_Seen]:
    seen: list[_Seen] = []
    stream = BlockStream(peer.identity, peer.channel, channel_name)
    with _records(path) as write:
        async for received in stream.blocks(0, stop=height - 1, idle_seconds=IDLE_SECONDS):
            write(received.content)
            seen.append(_seen(peer, received, seen[-1].header_hash if seen else b""))
    return seen


async def _record_private_data(peer: Endorser, channel_name: str, seen: Sequence[_Seen], path: Path) -> int:
    count = 0
    stream = BlockStream(peer.identity, peer.channel, channel_name)
    with _records(path) as write:
        async for received in stream.blocks(0, stop=len(seen) - 1, private_data=True, idle_seconds=IDLE_SECONDS):
            previous = seen[received.number - 1].header_hash if received.number else b""
            if _seen(peer, received, previous) != seen[received.number]:
                raise RecordingError(
                    f"{peer.channel.address} has another block {received.number} than the peer that is recorded"
                )
            if received.private_data:
                write(_block_and_private_data(received))
                count += 1
    return count


def _seen(peer: Endorser, received: ReceivedBlock, previous_hash: bytes) -> _Seen:
    place = f"{peer.channel.address}: block {received.number}"
    try:
        block = decode_block(received.content)
    except DecodeError as error:
        raise RecordingError(f"{place}: {error}") from error
    if (block.header.number, block.header.previous_hash) != (received.number, previous_hash):
        raise RecordingError(f"{place} does not follow the block before it")
    return _Seen(header_hash(block.header), block.flags, block.commit_hash)


def _block_and_private_data(received: ReceivedBlock) -> bytes:
    """Write the message again as it came: its parts are kept as bytes."""
    entries = [
        b"\x08" + varint(tx_number) + _field(_PRIVATE_DATA, content)
        for tx_number, content in sorted(received.private_data.items())
    ]
    return _field(_BLOCK, received.content) + b"".join(_field(_PRIVATE_DATA, entry) for entry in entries)


def _field(tag: bytes, content: bytes) -> bytes:
    return tag + varint(len(content)) + content


async def _answers(peer: Endorser, recording: Recording) -> dict[str, object]:
    network = Gateway(peer.identity, peer.channel).network(recording.channel)
    fetched = await fetch_configuration(network)
    configuration = fetched.configuration
    return {
        "channel": recording.channel,
        "height": recording.height,
        "header_hash": recording.header_hash.hex(),
        "consensus": configuration.consensus_type,
        "configuration": configuration.sequence,
        "configuration_block": fetched.block_number,
        "capabilities": {
            "Channel": sorted(configuration.channel_capabilities),
            "Orderer": sorted(configuration.orderer_capabilities),
            "Application": sorted(configuration.application_capabilities),
        },
        "chaincodes": [found._asdict() for found in await committed_chaincodes(network)],
        "blocks_with_private_data": dict(recording.private),
    }


@contextmanager
def _records(path: Path) -> Iterator[Callable[[bytes], None]]:
    """Open a file of records; private data are for the user alone."""
    with ExitStack() as stack:
        file: BinaryIO = stack.enter_context(path.open("wb"))
        path.chmod(0o600)
        writer: Any = stack.enter_context(zstandard.ZstdCompressor(level=LEVEL).stream_writer(file))

        def write(content: bytes) -> None:
            writer.write(len(content).to_bytes(4, "big") + content)

        yield write


@contextmanager
def _made_whole(folder: Path) -> Iterator[Path]:
    """Give a folder to work in, which takes the place of the one that is asked for when all is in it."""
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise RecordingError(f"{folder} is there already and not an empty folder; name another one")
        folder.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    except OSError as error:
        raise RecordingError(f"{folder}: {error.strerror}") from error
    try:
        yield work
        work.replace(folder)
    except OSError as error:
        raise RecordingError(f"{folder}: {error.strerror}") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
