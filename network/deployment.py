"""Putting the chaincodes of a topology on its channels, through the services of its nodes: the same on every network.

Ready means: the definition is committed, every peer of a member runs it, and a transaction of it was VALID.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Final, NamedTuple, TypeVar

from gateway.client.channel import Endpoint, NodeChannel
from gateway.client.endorser import Endorser
from gateway.client.errors import ClientError
from gateway.client.gateway import Gateway, Network
from gateway.client.identity import SigningIdentity
from network.creation import CreatedNetwork
from network.errors import ReadinessError
from network.lifecycle import approve, commit, committed_sequence, definition_of, install
from network.protocol.lifecycle import ChaincodeDefinition
from network.running.plan import ServedChaincode, served_chaincodes
from network.topology.definition import Chaincode, Channel, Organization, UserRole

READY_SECONDS: Final = 45.0
"""How long each step may be tried: peers of a network that just started do not know each other yet."""
POLL_SECONDS: Final = 0.05
METADATA_FUNCTION: Final = "org.hyperledger.fabric:GetMetadata"
"""Every contract of Fabric's contract APIs, and of ours, answers it."""

Progress = Callable[[str], None]
T = TypeVar("T")


class _NotYetError(ClientError):
    """Asked too early."""


class _Member(NamedTuple):
    """An organisation with peers on a channel, and its admin at each of them."""

    organization: Organization
    peers: Sequence[Endorser]
    admin: Network


async def deploy(network: CreatedNetwork, progress: Progress, before_commit: Callable[[], None] | None = None) -> None:
    """Install, approve and commit every chaincode that is not there yet in this sequence, and wait until it answers.

    `before_commit` is called before each commit, in a thread: where an upgrade exchanges the processes that serve.
    Raises ReadinessError, naming chaincode and step, when that fails or takes too long.
    """
    for channel in network.topology.channels:
        async with _members(network, channel) as members:
            await _each_member_is_there(channel, members)
            for chaincode in channel.chaincodes:
                await _deploy(network, chaincode, members, progress, before_commit)


async def _deploy(
    network: CreatedNetwork,
    chaincode: Chaincode,
    members: Sequence[_Member],
    progress: Progress,
    before_commit: Callable[[], None] | None,
) -> None:
    definition = definition_of(chaincode)
    place = f"chaincode {chaincode.name} on {members[0].admin.channel_name}"
    sequence = await _trying(f"{place}: query", lambda: committed_sequence(members[0].admin, chaincode.name))
    served = [found for found in served_chaincodes(network.topology) if found.chaincode is chaincode]
    if sequence < chaincode.sequence:
        progress(f"{place}: install and approve")
        steps = [_install_and_approve(network, it, members, definition) for it in served]
        await asyncio.gather(*steps)
        progress(f"{place}: commit")
        if before_commit is not None:
            await asyncio.to_thread(before_commit)
        await _trying(f"{place}: commit", lambda: commit(members[0].admin, chaincode.name, definition))
    progress(f"{place}: first transaction")
    await asyncio.gather(*[_is_known(place, member, chaincode) for member in members])
    contract = _client(network, members[0]).contract(chaincode.name)
    await _trying(f"{place}: first transaction", lambda: contract.submit_transaction(METADATA_FUNCTION))


async def _install_and_approve(
    network: CreatedNetwork, served: ServedChaincode, members: Sequence[_Member], definition: ChaincodeDefinition
) -> None:
    member = next(it for it in members if it.organization is served.organization)
    place = f"chaincode {served.chaincode.name} at {served.organization.msp_id}"
    package = network.package(served)
    for peer in member.peers:
        await _trying(f"{place}: install", partial(install, peer, package, served.label))
    package_id = network.package_id(served)
    msp_id, name = served.organization.msp_id, served.chaincode.name
    await _trying(f"{place}: approve", lambda: approve(member.admin, msp_id, name, definition, package_id))


async def _is_known(place: str, member: _Member, chaincode: Chaincode) -> None:
    """Wait until the member's peer has the block with the definition."""

    async def known() -> None:
        if await committed_sequence(member.admin, chaincode.name) < chaincode.sequence:
            raise _NotYetError(f"{member.organization.msp_id} has not committed the definition yet")

    await _trying(f"{place}: query", known)


async def _each_member_is_there(channel: Channel, members: Sequence[_Member]) -> None:
    for member in members:
        for peer in member.peers:
            place = f"peer {peer.channel.address} on {channel.name}"
            await _trying(place, partial(peer.height, channel.name))


async def _trying(step: str, action: Callable[[], Awaitable[T]]) -> T:
    """Do a step, again and again while it fails: nodes that just started refuse for reasons that pass."""
    last = "no answer"
    try:
        async with asyncio.timeout(READY_SECONDS):
            while True:
                try:
                    return await action()
                except ClientError as error:
                    last = str(error)
                    await asyncio.sleep(POLL_SECONDS)
    except TimeoutError as error:
        raise ReadinessError(f"{step}: not done in {READY_SECONDS:.0f} s: {last}") from error


@asynccontextmanager
async def _members(network: CreatedNetwork, channel: Channel) -> AsyncIterator[Sequence[_Member]]:
    """Open a connection to each peer of the channel."""
    async with AsyncExitStack() as stack:
        members = []
        for msp_id in channel.members:
            organization = network.topology.organization(msp_id)
            if not organization.nodes:
                continue
            admin = _identity(network, organization, UserRole.ADMIN)
            tls_roots = network.credentials.tls_ca_pem(msp_id)
            peers = []
            for node in organization.nodes:
                endpoint = Endpoint(network.address(node.name), tls_roots)
                peers.append(Endorser(admin, await stack.enter_async_context(NodeChannel(endpoint))))
            gateway = Gateway(admin, peers[0].channel)
            members.append(_Member(organization, peers, gateway.network(channel.name)))
        yield members


def _client(network: CreatedNetwork, member: _Member) -> Network:
    """Give a client of the organisation, at its first peer; its admin where it has no client."""
    role = UserRole.CLIENT if any(it.role is UserRole.CLIENT for it in member.organization.users) else UserRole.ADMIN
    identity = _identity(network, member.organization, role)
    return Gateway(identity, member.peers[0].channel).network(member.admin.channel_name)


def _identity(network: CreatedNetwork, organization: Organization, role: UserRole) -> SigningIdentity:
    user = next(user for user in organization.users if user.role is role)
    folder = network.credentials.user_msp(organization.msp_id, user.name)
    return SigningIdentity.from_msp_folder(organization.msp_id, folder)
