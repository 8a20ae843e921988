"""All nodes of a network in one process: who gets which block when, and who gives whom private data.

Peers commit each block a little later than it was made, every one at its own time: so endorsers are at different
heights now and then, as they are on every real network. `chance` decides how much; the same seed, clock and requests
give the same chain.

A node can be paused or ended: a peer commits nothing more and endorses nothing, an orderer takes part in no block.
"""

import asyncio
from functools import partial
from random import Random
from typing import Final

from fabric_protos.common import common_pb2

from network.embedded.ledger.admission import BAD_REQUEST, AdmissionError, read_channel_id
from network.embedded.ledger.clock import Clock
from network.embedded.ledger.dissemination import Dissemination
from network.embedded.ledger.node_state import NodeState
from network.embedded.ledger.ordering import Orderer, OrderingService
from network.embedded.ledger.peer import Peer
from network.embedded.ledger.peer_channel import PeerChannel
from network.errors import LedgerError

MAX_SKEW_SECONDS: Final = 0.02
RECONCILE_SECONDS: Final = 60.0
"""Between attempts to find private data that is missing (`core.yaml`, peer.gossip.pvtData.reconcileSleepInterval).

A real peer leaves what it did not find for an hour then; here each attempt looks for everything.
"""


class EmbeddedLedger:
    """Peers and orderers of a network; every orderer serves every channel.

    `max_skew_seconds` 0: every peer commits at once. Nodes are added first, then channels are opened, then it runs.
    """

    def __init__(self, clock: Clock, chance: Random, max_skew_seconds: float = MAX_SKEW_SECONDS) -> None:
        self.clock = clock
        self.chance = chance
        self.peers: list[Peer] = []
        self.orderers: list[Orderer] = []
        self.channels: dict[str, OrderingService] = {}
        self.dissemination = Dissemination(self.peers, chance)
        self._max_skew_seconds = max_skew_seconds
        self._joined: asyncio.Queue[tuple[Peer, PeerChannel]] = asyncio.Queue()

    def open_channel(self, channel_id: str, genesis: common_pb2.Block, peers: list[Peer]) -> None:
        """Open a channel at all orderers and the peers named, or join it where its first block is not there yet.

        Raises LedgerError when what they keep is damaged, of another channel, or of orderers that lost blocks.
        """
        service = OrderingService(channel_id, self.orderers, self.clock, self.chance)
        service.join(genesis)
        self.channels[channel_id] = service
        for peer in peers:
            peer.open_channel(channel_id).join(genesis)
        for peer in peers:
            channel = peer.channels[channel_id]
            channel.catch_up(partial(self.dissemination.pull, channel))
            if channel.height > service.height:
                raise LedgerError(f"{peer.node.name} has {channel.height} blocks of {channel_id}, the orderers fewer")

    def reopen_joined(self) -> None:
        """Open again what peers were made to join while the network ran; raises LedgerError for what is damaged."""
        for peer in self.peers:
            for channel_id in peer.kept_channels():
                if channel_id in peer.channels:
                    continue
                channel = peer.open_channel(channel_id)
                if channel.has_first_block:
                    channel.catch_up(partial(self.dissemination.pull, channel))
                else:  # the process died before the first block was kept: it is not joined
                    peer.leave(channel)

    def joined(self, peer: Peer, channel: PeerChannel) -> None:
        """Have a channel followed that a peer was just made to join."""
        self._joined.put_nowait((peer, channel))

    async def run(self) -> None:
        """Order and commit until cancelled; raises LedgerError when a peer cannot commit a block."""
        self._joined = asyncio.Queue()
        for peer in self.peers:
            for channel in peer.channels.values():
                self.joined(peer, channel)
        try:
            async with asyncio.TaskGroup() as tasks:
                for service in self.channels.values():
                    tasks.create_task(service.run())
                while True:
                    peer, channel = await self._joined.get()
                    if self._is_served(channel):
                        tasks.create_task(self._follow(peer, channel))
                        tasks.create_task(self._reconcile(peer, channel))
        except* LedgerError as group:
            raise group.exceptions[0] from None

    def _is_served(self, channel: PeerChannel) -> bool:
        """Tell whether the orderers would give a peer the blocks of its channel: the same one, which it may read."""
        service = self.channels.get(channel.channel_id)
        if service is None or service.block(0, 0).header != channel.files.block(0).header:
            return False
        return channel.msp_id in service.rules.msps.by_id

    async def broadcast(self, envelope: common_pb2.Envelope, orderer: int | None = None) -> None:
        """Give an envelope to an orderer, by its position, or to one that runs; raises AdmissionError."""
        service = self.channels.get(read_channel_id(envelope))
        if service is None:
            raise AdmissionError(BAD_REQUEST, "channel does not exist")
        await service.broadcast(envelope, next(iter(service.running), 0) if orderer is None else orderer)

    def close(self) -> None:
        """Close all files."""
        for peer in self.peers:
            peer.close()
        for orderer in self.orderers:
            orderer.close()

    # --- nodes

    def node_state(self, name: str) -> NodeState:
        """Give the state of a node; raises KeyError for one that does not exist."""
        states = {peer.node.name: peer.state for peer in self.peers}
        states |= {orderer.name: orderer.state for orderer in self.orderers}
        return states[name]

    async def resume_node(self, name: str) -> None:
        """Let a node that was paused or ended go on; raises KeyError for one that does not exist."""
        self.node_state(name).run()
        for orderer in self.orderers:
            if orderer.name == name:
                for service in self.channels.values():
                    await service.resume(orderer)

    async def _follow(self, peer: Peer, channel: PeerChannel) -> None:
        service = self.channels[channel.channel_id]
        while True:
            await service.wait_for_height(channel.height)
            if self._max_skew_seconds:
                await self.clock.sleep(self.chance.uniform(0, self._max_skew_seconds))
            await peer.state.wait_until_running()
            orderer = self.chance.choice(await service.wait_for_running())
            states = (peer.state, self.orderers[orderer].state)
            while channel.height < service.height and all(state.is_running for state in states):
                await channel.before_commit()
                block = service.block(orderer, channel.height)
                await channel.commit(block, partial(self.dissemination.pull, channel))

    async def _reconcile(self, peer: Peer, channel: PeerChannel) -> None:
        while True:
            await channel.wait_for_missing()
            await self.clock.sleep(RECONCILE_SECONDS)
            await peer.state.wait_until_running()
            await channel.reconcile(partial(self.dissemination.pull, channel))
