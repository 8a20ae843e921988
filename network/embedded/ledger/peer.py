"""A peer: the channels it joined, the chaincodes it holds, and its endorsements.

Rules: `core/endorser/endorser.go` (order of checks, answers), `core/handlers/auth/filter/*.go` (clock and expiry),
`core/chaincode/chaincode_support.go` (calls of chaincodes, init).
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from fabric_protos.peer import proposal_pb2, proposal_response_pb2

from gateway.client.identity import SigningIdentity
from network.embedded.ledger.access_control import LOCAL_RESOURCES, AccessError, check_access, check_local_access
from network.embedded.ledger.chaincode import ChaincodeError, ContractRunner, writable
from network.embedded.ledger.channel_join import JoinError, check_joinable, read_first_block, unusable
from network.embedded.ledger.clock import Clock
from network.embedded.ledger.dissemination import DistributionError
from network.embedded.ledger.endorsable import EndorsableChaincode, NotEndorsableError, endorsable_chaincode
from network.embedded.ledger.execution import Execution, signed_data
from network.embedded.ledger.lifecycle_chaincode import LifecycleCall
from network.embedded.ledger.lifecycle_chaincode import invoke as invoke_lifecycle
from network.embedded.ledger.node_state import NodeState
from network.embedded.ledger.package_store import PackageStore
from network.embedded.ledger.peer_channel import PeerChannel
from network.embedded.ledger.request_filter import EndorserError, check_request
from network.embedded.ledger.simulation import Simulation, SimulationError
from network.embedded.ledger.system_chaincode import (
    ConfigurationCall,
    invoke_configuration,
    query_ledger,
    reject_call,
)
from network.protocol.errors import ConfigurationError, DecodeError, ProposalError
from network.protocol.identity import Identity, decode_serialized_identity
from network.protocol.interest import SYSTEM_NAMESPACES
from network.protocol.interest import ChaincodeCall as InterestingCall
from network.protocol.lifecycle import DEFAULT_ENDORSEMENT_PLUGIN
from network.protocol.msp import ChannelMsps
from network.protocol.policy import SignedData
from network.protocol.private_data import LIFECYCLE_NAMESPACE
from network.protocol.proposal import (
    Proposal,
    Response,
    check_proposal,
    decode_proposal,
    encode_proposal_response,
    endorsed_bytes,
    response_payload,
)
from network.protocol.transaction import ChaincodeEvent, Endorsement
from network.protocol.validation import judge_genesis

SYSTEM_CHAINCODES: Final = SYSTEM_NAMESPACES
SYSTEM_VERSION: Final = "syscc"
_REFUSED: Final = 400
_FAILED: Final = 500


class _PeerFailureError(Exception):
    """The peer answers with status 500 and no payload; the text is Fabric's."""


class Outcome(NamedTuple):
    """What a chaincode answered, and with which version of its definition, and who endorses it."""

    response: Response
    event: ChaincodeEvent | None
    version: str
    endorsement_plugin: str = DEFAULT_ENDORSEMENT_PLUGIN


Distribute = Callable[[PeerChannel, str, bytes], Awaitable[None]]
"""Gives endorsed private writes (channel, id, TxPvtReadWriteSet) to members; raises DistributionError."""


@dataclass(frozen=True)
class Node:
    """Who a peer is: its name, its organisation, the address that others know it by, and what it signs with.

    `local_msp`: its organisation's MSP alone, by which it judges what names no channel.
    """

    name: str
    msp_id: str
    address: str
    identity: SigningIdentity
    local_msp: ChannelMsps


class Peer:
    """One peer. `runner` runs the chaincodes that are not its own; `joined` is told of channels it was made to join."""

    def __init__(  # what a peer is made of
        self,
        node: Node,
        folder: Path,
        *,
        runner: ContractRunner,
        packages: PackageStore,
        distribute: Distribute,
        clock: Clock,
        joined: Callable[["Peer", PeerChannel], None],
    ) -> None:
        self.node = node
        self.folder = folder
        self.packages = packages
        self.channels: dict[str, PeerChannel] = {}
        self.runner = runner
        self.running: set[tuple[str, str, str]] = set()
        self.state = NodeState()
        self._endorsable: dict[tuple[str, str], tuple[tuple[int, int], EndorsableChaincode]] = {}
        self._distribute = distribute
        self._clock = clock
        self._joined = joined

    def open_channel(self, channel_id: str) -> PeerChannel:
        """Open a channel that this peer has joined, or is about to join."""
        channel = self.channels[channel_id] = PeerChannel(channel_id, self.node.msp_id, self.folder)
        return channel

    def leave(self, channel: PeerChannel) -> None:
        """Close a channel that has no first block."""
        del self.channels[channel.channel_id]
        channel.close()

    def kept_channels(self) -> list[str]:
        """Name the channels that this peer keeps blocks of, open or not."""
        return sorted([path.name for path in (self.folder / "chains").glob("*")])

    def close(self) -> None:
        """Close the files."""
        for channel in self.channels.values():
            channel.close()

    def endorsable(self, channel: PeerChannel, chaincode: str) -> EndorsableChaincode:
        """Give what this peer needs to run a chaincode; raises NotEndorsableError."""
        state = (channel.lifecycle_changes, self.packages.count)
        place = (channel.channel_id, chaincode)
        known = self._endorsable.get(place)
        if known is not None and known[0] == state:
            return known[1]
        found = endorsable_chaincode(channel, chaincode, self.packages)
        self._endorsable[place] = (state, found)
        return found

    def identity_in(self, channel: PeerChannel) -> Identity:
        """Give this peer's identity as the members of a channel know it."""
        return channel.rules.msps.identity(decode_serialized_identity(self.node.identity.creator))

    # --- joining

    def join(self, content: bytes, authorize: Callable[[], None]) -> None:
        """Join the channel of a first block, as JoinChain does; `authorize` raises AccessError. Raises JoinError."""
        first = read_first_block(content)
        try:
            authorize()
        except AccessError as error:
            raise JoinError(f"access denied for [JoinChain][{first.channel_id}]: [{error}]") from error
        check_joinable(first)
        if first.channel_id in self.channels:
            words = f"ledger [{first.channel_id}] already exists with state [ACTIVE]"
            raise JoinError(f"cannot create ledger from genesis block: {words}")
        try:
            rules = judge_genesis(tuple(first.block.data.data)).rules
        except (ConfigurationError, DecodeError) as error:
            raise JoinError(unusable(first.channel_id, f"Failed capabilities check: [{error}]")) from error
        if rules.channel_id != first.channel_id:
            raise JoinError(unusable(first.channel_id, "the configuration is another channel's"))
        channel = self.open_channel(first.channel_id)
        try:
            channel.join(first.block)
        except BaseException:
            self.leave(channel)
            raise
        self._joined(self, channel)

    # --- endorsing

    async def process_proposal(self, signed: proposal_pb2.SignedProposal) -> proposal_response_pb2.ProposalResponse:
        """Answer a proposal; raises EndorserError where a real peer's call fails instead."""
        if self.state.is_paused:
            await self.state.wait_until_running()
        if not self.state.is_running:
            raise EndorserError(f"connection error: dial tcp {self.node.address}: connect: connection refused")
        check_request(signed.proposal_bytes, self._clock.now())
        try:
            proposal = decode_proposal(signed.SerializeToString())
        except ProposalError as error:
            raise EndorserError(str(error)) from error
        if not proposal.channel_id:
            creator = self._check(proposal, self.node.local_msp)
            return await self._answer(proposal, None, creator, signed)
        channel = self.channels.get(proposal.channel_id)
        if channel is None:
            return _failure(f"channel '{proposal.channel_id}' not found")
        creator = self._check(proposal, channel.rules.msps)
        if channel.transaction_place(proposal.tx_id) is not None:
            words = f"duplicate transaction found [{proposal.tx_id}]. Creator [{proposal.creator.hex()}]"
            raise EndorserError(words)
        if proposal.chaincode not in SYSTEM_CHAINCODES:
            try:
                check_access("peer/Propose", signed_data(proposal), channel.rules)
            except AccessError as error:
                raise EndorserError(str(error)) from error
        return await self._answer(proposal, channel, creator, signed)

    def _check(self, proposal: Proposal, msps: ChannelMsps) -> Identity:
        try:
            return check_proposal(proposal, msps)
        except ProposalError as error:
            raise EndorserError(str(error)) from error

    async def _answer(
        self,
        proposal: Proposal,
        channel: PeerChannel | None,
        creator: Identity,
        signed: proposal_pb2.SignedProposal,
    ) -> proposal_response_pb2.ProposalResponse:
        try:
            if channel is None or proposal.chaincode in ("qscc", "cscc"):
                outcome = self._ask_peer(proposal, channel)
                return self._response(proposal, outcome, b"", None)
            async with channel.lock.simulating():
                simulation = Simulation(channel, proposal.tx_id, creator)
                outcome = await self._simulate(proposal, channel, simulation, signed)
                result = simulation.result()
                interest = simulation.interest()
            if result.private is not None:
                await self._distribute(channel, proposal.tx_id, result.private)
            return self._response(proposal, outcome, result.public, interest)
        except _PeerFailureError as failure:
            return _failure(str(failure))
        except (ChaincodeError, SimulationError, DistributionError) as error:
            return _failure(f"error in simulation: {error}")
        except DecodeError:  # a key that is written has a policy that nobody can read: no peer of ours let it pass
            words = "error unmarshalling SignaturePolicyEnvelope: proto: cannot parse invalid wire-format data"
            return _failure(f"error in simulation: {words}")

    def _response(
        self,
        proposal: Proposal,
        outcome: Outcome,
        results: bytes,
        interest: tuple[InterestingCall, ...] | None,
    ) -> proposal_response_pb2.ProposalResponse:
        """Sign what the chaincode did, or say that it refused (`core/endorser/endorser.go`, thresholds of the shim)."""
        response = outcome.response
        if _REFUSED <= response.status < _FAILED:
            return _message(encode_proposal_response(response))
        payload = b""
        if proposal.channel_id or response.status >= _FAILED:
            payload = response_payload(
                proposal, version=outcome.version, response=response, results=results, event=outcome.event
            )
        if response.status >= _FAILED:
            return _message(encode_proposal_response(response, payload=payload, interest=interest))
        if not proposal.channel_id:
            return _message(encode_proposal_response(response))
        plugin = outcome.endorsement_plugin
        if plugin != DEFAULT_ENDORSEMENT_PLUGIN:
            words = f"plugin with name {plugin} could not be used: plugin with name {plugin} wasn't found"
            raise _PeerFailureError(f"endorsing with plugin failed: {words}")
        endorser = self.node.identity.creator
        endorsement = Endorsement(endorser, self.node.identity.sign(endorsed_bytes(payload, endorser)))
        return _message(encode_proposal_response(response, payload=payload, endorsement=endorsement, interest=interest))

    # --- chaincodes

    async def _simulate(
        self,
        proposal: Proposal,
        channel: PeerChannel,
        simulation: Simulation,
        signed: proposal_pb2.SignedProposal,
    ) -> Outcome:
        if proposal.chaincode == LIFECYCLE_NAMESPACE:
            return self._ask_lifecycle(proposal.arguments, proposal.tx_id, signed_data(proposal), channel, simulation)
        version, plugin = SYSTEM_VERSION, DEFAULT_ENDORSEMENT_PLUGIN
        if proposal.chaincode not in SYSTEM_CHAINCODES:
            simulation.read_sequence(proposal.chaincode)
            try:
                definition = self.endorsable(channel, proposal.chaincode).definition
            except NotEndorsableError as error:
                raise _PeerFailureError(
                    f"make sure the chaincode {proposal.chaincode} has been successfully defined on channel "
                    f"{channel.channel_id} and try again: {error}"
                ) from error
            version, plugin = definition.version, definition.endorsement_plugin
        result = await Execution(simulation, self, proposal, signed).run()
        response = Response(result.response.status, result.response.message, result.response.payload)
        event = None
        if result.event is not None and response.status < _REFUSED:
            # Which chaincode and which transaction, the peer says itself.
            event = ChaincodeEvent(proposal.chaincode, proposal.tx_id, result.event.event_name, result.event.payload)
        return Outcome(response, event, version, plugin)

    def ask_system_chaincode(
        self, chaincode: str, arguments: tuple[bytes, ...], proposal: Proposal, simulation: Simulation
    ) -> Response:
        """Run a system chaincode for another chaincode; raises ChaincodeError for one that is not there."""
        if chaincode == LIFECYCLE_NAMESPACE:
            creator = signed_data(proposal)
            return self._ask_lifecycle(arguments, proposal.tx_id, creator, simulation.channel, simulation).response
        rejected = reject_call(chaincode, arguments, proposal.chaincode)
        if rejected is None:
            name = f"{chaincode}.{SYSTEM_VERSION}"
            raise ChaincodeError(
                f"could not launch chaincode {name}: error building chaincode: error building image: failed to get "
                f"chaincode package for external build: could not get legacy chaincode package '{name}': no such file "
                "or directory"
            )
        return rejected

    def _ask_lifecycle(
        self,
        arguments: tuple[bytes, ...],
        tx_id: str,
        creator: SignedData,
        channel: PeerChannel | None,
        simulation: Simulation | None,
    ) -> Outcome:
        rules = None if channel is None else channel.rules
        check = partial(self._authorize, creator, channel)
        call = LifecycleCall(self.node.msp_id, self.packages, self._references, check, simulation, rules, tx_id)
        return Outcome(writable(invoke_lifecycle(arguments, call)), None, SYSTEM_VERSION)

    def _ask_peer(self, proposal: Proposal, channel: PeerChannel | None) -> Outcome:
        """Run a system chaincode that needs no simulation."""
        if proposal.chaincode == LIFECYCLE_NAMESPACE:
            return self._ask_lifecycle(proposal.arguments, proposal.tx_id, signed_data(proposal), channel, None)
        if proposal.chaincode == "qscc":
            response = query_ledger(proposal.arguments, self.channels, signed_data(proposal))
        elif proposal.chaincode == "cscc":
            creator = signed_data(proposal)
            authorize = partial(self._authorize, creator, None)
            response = invoke_configuration(
                proposal.arguments, ConfigurationCall(self.channels, authorize, creator, self.join)
            )
        else:
            raise _PeerFailureError(
                f"make sure the chaincode {proposal.chaincode} has been successfully defined on channel  and try "
                "again: could not get channel config for channel ''"
            )
        return Outcome(writable(response), None, SYSTEM_VERSION)

    def _authorize(self, signed: SignedData, channel: PeerChannel | None, resource: str) -> None:
        if resource in LOCAL_RESOURCES or channel is None:
            check_local_access(resource, signed, self.node.msp_id, self.node.local_msp)
        else:
            check_access(resource, signed, channel.rules)

    def _references(self, package_id: str) -> dict[str, list[tuple[str, str]]]:
        """Give the chaincodes that run by a package, by channel."""
        found: dict[str, list[tuple[str, str]]] = {}
        for channel in self.channels.values():
            for chaincode in channel.chaincodes():
                try:
                    endorsable = self.endorsable(channel, chaincode)
                except NotEndorsableError:
                    continue
                if endorsable.package_id == package_id:
                    found.setdefault(channel.channel_id, []).append((chaincode, endorsable.definition.version))
        return found


def _failure(message: str) -> proposal_response_pb2.ProposalResponse:
    return _message(encode_proposal_response(Response(_FAILED, message, b"")))


def _message(content: bytes) -> proposal_response_pb2.ProposalResponse:
    return proposal_response_pb2.ProposalResponse.FromString(content)
