"""Reading the configuration of a live channel, and handing an update to its orderers. Everything else is pure.

Orderers are those that the connection profile names; where it names none, those that the configuration names, with
the TLS CAs of their organisations.
"""

import asyncio
from collections.abc import Sequence
from typing import Final, NamedTuple

from fabric_protos.common import common_pb2
from fabric_protos.msp import msp_config_pb2

from gateway.client.broadcast import broadcast
from gateway.client.channel import Endpoint, NodeChannel
from gateway.client.errors import BroadcastError, ClientError, DialError
from gateway.client.gateway import Network
from network.errors import ReadinessError
from network.protocol.config_group import ConfigGroup
from network.protocol.config_transition import BFT
from network.protocol.configuration import ChannelConfiguration, decode_config_envelope
from network.protocol.errors import DecodeError
from network.protocol.msp import TYPE_FABRIC
from network.protocol.wire import parse

IN_FORCE_SECONDS: Final = 90.0
"""How long an accepted update may take to be in force at the peer asked: BFT orderers replace a leader in 20 s."""
REFUSED_SECONDS: Final = 5.0
"""How long it is looked for after every orderer refused it: the answer of one that took it may have been lost."""
POLL_SECONDS: Final = 0.2
_PASSING: Final = frozenset(("SERVICE_UNAVAILABLE", ""))
"""Statuses after which another orderer may take the very same update."""


class FetchedConfiguration(NamedTuple):
    """The configuration in force, and the number of the block that brought it."""

    block_number: int
    configuration: ChannelConfiguration


async def fetch_configuration(network: Network) -> FetchedConfiguration:
    """Read the configuration in force as a peer has it (`cscc.GetConfigBlock`).

    Raises EvaluateError, and DecodeError or ConfigurationError for an answer that is none.
    """
    answer = await network.contract("cscc").evaluate("GetConfigBlock", network.channel_name)
    block = parse(common_pb2.Block, answer, "Block")
    if not block.data.data:
        raise DecodeError("Block: no configuration")
    payload = parse(common_pb2.Envelope, block.data.data[0], "Envelope").payload
    configuration = decode_config_envelope(parse(common_pb2.Payload, payload, "Payload").data)
    return FetchedConfiguration(block.header.number, configuration)


def orderer_endpoints(configured: Sequence[Endpoint], configuration: ChannelConfiguration) -> list[Endpoint]:
    """Give the orderers to turn to: those that were configured, else those of the channel."""
    if configured:
        return list(configured)
    found = []
    for organization in configuration.orderer_organizations.values():
        if organization.msp.msp_type != TYPE_FABRIC:
            continue
        msp = parse(msp_config_pb2.FabricMSPConfig, organization.msp.content, "FabricMSPConfig")
        roots = b"\n".join((*msp.tls_root_certs, *msp.tls_intermediate_certs))
        found += [Endpoint(address, roots) for address in organization.endpoints]
    return found


async def submit_update(
    network: Network,
    orderers: Sequence[Endpoint],
    envelope: common_pb2.Envelope,
    before: ChannelConfiguration,
    wanted: ConfigGroup,
) -> FetchedConfiguration:
    """Hand an update to the orderers and wait until what it makes is in force at the peer.

    `before`: the configuration that it was made for; `wanted`: what it makes. Raises BroadcastError when every orderer
    refuses it, ReadinessError when it is not in force in time.
    """
    refusal = await _hand_over(orderers, envelope.SerializeToString(), is_bft=before.consensus_type == BFT)
    try:
        async with asyncio.timeout(IN_FORCE_SECONDS if refusal is None else REFUSED_SECONDS):
            while True:
                found = await _newer(network, before.sequence)
                if found is not None and found.configuration.root == wanted:
                    return found
                await asyncio.sleep(POLL_SECONDS)
    except TimeoutError as error:
        if refusal is not None:
            raise refusal from error
        raise ReadinessError(
            f"the orderers took the update, but it is not in force at the peer after {IN_FORCE_SECONDS:.0f} s"
        ) from error


async def _newer(network: Network, sequence: int) -> FetchedConfiguration | None:
    try:
        found = await fetch_configuration(network)
    except ClientError:
        return None  # a peer that is busy with the very change
    return found if found.configuration.sequence > sequence else None


async def _hand_over(orderers: Sequence[Endpoint], envelope: bytes, *, is_bft: bool) -> ClientError | None:
    """Give the update to one orderer of Raft, to every one of BFT; None: it was taken, else why not."""
    if is_bft:
        answers = await asyncio.gather(*[_broadcast(endpoint, envelope) for endpoint in orderers])
        return None if None in answers else next(iter(answers), None)
    refusal: ClientError | None = DialError("the channel names no orderer")
    for endpoint in orderers:
        refusal = await _broadcast(endpoint, envelope)
        if refusal is None or (isinstance(refusal, BroadcastError) and refusal.status not in _PASSING):
            break
    return refusal


async def _broadcast(endpoint: Endpoint, envelope: bytes) -> ClientError | None:
    try:
        async with NodeChannel(endpoint) as channel:
            await broadcast(channel, envelope)
    except ClientError as error:
        return error
    return None
