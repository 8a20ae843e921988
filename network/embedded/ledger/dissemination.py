"""How private writes reach the members of a collection: pushed when they are endorsed, pulled when they are missed.

Only members are ever given them. Rules: `gossip/privdata/distributor.go`, `gossip/privdata/pull.go`.
"""

from collections.abc import Sequence
from random import Random
from typing import Final, Protocol

from fabric_protos.ledger.rwset import rwset_pb2

from network.embedded.ledger.node_state import NodeState
from network.embedded.ledger.peer_channel import PeerChannel
from network.embedded.ledger.private_data import PrivatePart, find_private_writes, only_collections
from network.embedded.ledger.private_ledger import ExpiresSoonError
from network.protocol.wire import parse

PULL_MARGIN_BLOCKS: Final = 10
"""What a member has for so few blocks more counts as gone (`core.yaml`, peer.gossip.pvtData.btlPullMargin)."""


class DistributionError(Exception):
    """Private writes could not reach as many peers as their collection requires; the text is Fabric's."""


class Member(Protocol):
    """A peer, as far as private data goes."""

    channels: dict[str, PeerChannel]
    state: NodeState


class Dissemination:
    """All peers of a network; `chance` picks among those that could be asked."""

    def __init__(self, peers: Sequence[Member], chance: Random) -> None:
        self._peers = peers
        self._chance = chance

    async def distribute(self, channel: PeerChannel, tx_id: str, content: bytes) -> None:
        """Give endorsed private writes (TxPvtReadWriteSet) to their endorser and to other members.

        Raises DistributionError.
        """
        chosen: dict[PeerChannel, set[tuple[str, str]]] = {}
        message = parse(rwset_pb2.TxPvtReadWriteSet, content, "TxPvtReadWriteSet")
        for namespace in message.ns_pvt_rwset:
            for part in namespace.collection_pvt_rwset:
                place = (namespace.namespace, part.collection_name)
                for receiver in self._receivers(channel, tx_id, *place):
                    chosen.setdefault(receiver, set()).add(place)
        for receiver, places in chosen.items():
            if receiver is not channel and not channel.discloses_private_data:
                continue
            kept = only_collections(content, lambda *place, places=places: place in places)
            if kept is not None:
                receiver.store.add_transient(tx_id, kept, receiver.height)

    def _receivers(self, channel: PeerChannel, tx_id: str, namespace: str, name: str) -> list[PeerChannel]:
        config = channel.collection(namespace, name)
        own = [channel] if channel.is_member(namespace, name, channel.msp_id) else []
        if config is None:
            return own
        others = self._others(channel, namespace, name)
        if len(others) < config.required_peer_count:
            raise DistributionError(
                f"failed to distribute private collection, txID {tx_id}, channel {channel.channel_id}: could not build "
                f"private data dissemination plan for chaincode {namespace} and collection {name}: required to "
                f"disseminate to at least {config.required_peer_count} peers, but know of only {len(others)} eligible "
                "peers"
            )
        wanted = max(config.maximum_peer_count, config.required_peer_count)
        return own + self._chance.sample(others, min(wanted, len(others)))

    def pull(self, channel: PeerChannel, part: PrivatePart, block_number: int) -> bytes | None:
        """Ask the other members for private writes that a block names; None: nobody has them.

        Raises ExpiresSoonError where nobody is asked.
        """
        others = self._others(channel, part.namespace, part.collection)
        config = channel.collection(part.namespace, part.collection)
        live = 0 if config is None else config.block_to_live
        if live and any(other.height + PULL_MARGIN_BLOCKS >= block_number + live for other in others):
            raise ExpiresSoonError
        return next((found for other in others if (found := _held(other, part, block_number)) is not None), None)

    def _others(self, channel: PeerChannel, namespace: str, name: str) -> list[PeerChannel]:
        return [
            other
            for peer in self._peers
            if (other := peer.channels.get(channel.channel_id)) is not None
            and other is not channel
            and peer.state.is_running
            and channel.is_member(namespace, name, other.msp_id)
        ]


def _held(channel: PeerChannel, part: PrivatePart, block_number: int) -> bytes | None:
    """Give what a peer hands out of private writes: of a block that it has committed itself, what it kept of it."""
    if not channel.discloses_private_data:
        return None
    if channel.height <= block_number:
        return find_private_writes(part, channel.store.transient(part.tx_id))
    return channel.store.private_writes_of(block_number, part.tx_number, part.namespace, part.collection)
