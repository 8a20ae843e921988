"""A peer: the channels it joined, the chaincodes it holds, and its endorsements.

Rules: `core/endorser/endorser.go` (order of checks, answers), `core/handlers/auth/filter/*.go` (clock and expiry),
`core/chaincode/chaincode_support.go` (calls of chaincodes, init).
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from fabric_protos.peer import chaincode_pb2, proposal_pb2, proposal_response_pb2

from gateway.client.identity import SigningIdentity
from network.embedded.ledger.access_control import LOCAL_RESOURCES, AccessError, check_access, check_local_access
from network.embedded.ledger.chaincode import ChaincodeError, ContractRunner
from network.embedded.ledger.clock import Clock
from network.embedded.ledger.dissemination import DistributionError
from network.embedded.ledger.endorsable import EndorsableChaincode, NotEndorsableError, endorsable_chaincode
from network.embedded.ledger.execution import Execution
from network.embedded.ledger.expiry import has_expired
from network.embedded.ledger.lifecycle_chaincode import LifecycleCall
from network.embedded.ledger.lifecycle_chaincode import invoke as invoke_lifecycle
from network.embedded.ledger.node_state import NodeState
from network.embedded.ledger.package_store import PackageStore
from network.embedded.ledger.peer_channel import PeerChannel
from network.embedded.ledger.simulation import Simulation, SimulationError
from network.embedded.ledger.system_chaincode import query_configuration, query_ledger
from network.protocol.errors import DecodeError, ProposalError
from network.protocol.identity import Identity, decode_serialized_identity
from network.protocol.interest import ChaincodeCall as InterestingCall
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

TIME_WINDOW_SECONDS: Final = 15 * 60
SYSTEM_CHAINCODES: Final = frozenset(("cscc", "lscc", "qscc", LIFECYCLE_NAMESPACE))
SYSTEM_VERSION: Final = "syscc"
_REFUSED: Final = 400
_FAILED: Final = 500


class EndorserError(Exception):
    """The call itself fails: the proposal is not answered. The text is Fabric's."""


class RequestFilterError(EndorserError):
    """The proposal is of an expired identity, or of another time; no part of it was looked at."""


class _PeerFailureError(Exception):
    """The peer answers with status 500 and no payload; the text is Fabric's."""


class Outcome(NamedTuple):
    """What a chaincode answered, and with which version of its definition."""

    response: Response
    event: ChaincodeEvent | None
    version: str


Distribute = Callable[[PeerChannel, str, bytes], Awaitable[None]]
"""Gives endorsed private writes (channel, id, TxPvtReadWriteSet) to members; raises DistributionError."""


@dataclass(frozen=True)
class Node:
    """Who a peer is: its name, its organisation, the address that others know it by, and what it signs with."""

    name: str
    msp_id: str
    address: str
    identity: SigningIdentity


class Peer:
    """One peer. `system` runs its system chaincodes, `runner` the others."""

    def __init__(  # what a peer is made of
        self,
        node: Node,
        folder: Path,
        *,
        runner: ContractRunner,
        packages: PackageStore,
        distribute: Distribute,
        clock: Clock,
    ) -> None:
        self.node = node
        self.folder = folder
        self.packages = packages
        self.channels: dict[str, PeerChannel] = {}
        self.state = NodeState()
        self._endorsable: dict[tuple[str, str], tuple[tuple[int, int], EndorsableChaincode]] = {}
        self._runner = runner
        self._distribute = distribute
        self._clock = clock

    def open_channel(self, channel_id: str) -> PeerChannel:
        """Open a channel that this peer has joined, or is about to join."""
        channel = self.channels[channel_id] = PeerChannel(channel_id, self.node.msp_id, self.folder)
        return channel

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

    # --- endorsing

    async def process_proposal(self, signed: proposal_pb2.SignedProposal) -> proposal_response_pb2.ProposalResponse:
        """Answer a proposal; raises EndorserError where a real peer's call fails instead."""
        if self.state.is_paused:
            await self.state.wait_until_running()
        if not self.state.is_running:
            raise EndorserError(f"connection error: dial tcp {self.node.address}: connect: connection refused")
        proposal = self._read(signed)
        if not proposal.channel_id:
            creator = self._check(proposal, self.local_msps())
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
                check_access("peer/Propose", _signed_data(proposal), channel.rules)
            except AccessError as error:
                raise EndorserError(str(error)) from error
        return await self._answer(proposal, channel, creator, signed)

    def local_msps(self) -> ChannelMsps:
        """Give the MSPs that proposals without a channel are judged by: those of a channel, as its own is the same."""
        for channel in self.channels.values():
            return channel.rules.msps
        raise EndorserError("the peer has joined no channel")

    def _read(self, signed: proposal_pb2.SignedProposal) -> Proposal:
        try:
            proposal = decode_proposal(signed.SerializeToString())
        except ProposalError as error:
            raise EndorserError(str(error)) from error
        now = self._clock.now()
        if has_expired(proposal.creator, now):
            raise RequestFilterError("proposal client identity expired")
        seconds = (proposal.seconds or 0) + (proposal.nanos or 0) / 1e9
        if abs(now - seconds) > TIME_WINDOW_SECONDS:
            raise RequestFilterError(
                f"request unauthorized due to incorrect timestamp {_time_text(seconds)}, peer time {_time_text(now)}, "
                "peer.authentication.timewindow 15m0s"
            )
        return proposal

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
        except DistributionError as error:
            return _failure(f"error in simulation: {error}")

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
            return self._ask_lifecycle(proposal, channel, simulation)
        if proposal.chaincode in SYSTEM_CHAINCODES:
            raise _PeerFailureError(
                f"error in simulation: failed to execute transaction {proposal.tx_id}: could not launch chaincode "
                f"{proposal.chaincode}.{SYSTEM_VERSION}: no such chaincode"
            )
        simulation.read_sequence(proposal.chaincode)
        try:
            found = self.endorsable(channel, proposal.chaincode)
        except NotEndorsableError as error:
            raise _PeerFailureError(str(error)) from error
        execution = Execution(
            simulation, self._runner, lambda name: self.endorsable(channel, name), signed, _signed_data(proposal)
        )
        called = chaincode_pb2.ChaincodeInput(
            args=proposal.arguments, is_init=proposal.is_init, decorations=proposal.decorations
        )
        try:
            result = await execution.run(proposal.chaincode, found, called)
        except (ChaincodeError, SimulationError, DecodeError) as error:
            raise _PeerFailureError(f"error in simulation: {error}") from error
        response = Response(result.response.status, result.response.message, result.response.payload)
        event = None
        if result.event is not None and response.status < _REFUSED:
            # Which chaincode and which transaction, the peer says itself.
            event = ChaincodeEvent(proposal.chaincode, proposal.tx_id, result.event.event_name, result.event.payload)
        return Outcome(response, event, found.definition.version)

    def _ask_lifecycle(self, proposal: Proposal, channel: PeerChannel | None, simulation: Simulation | None) -> Outcome:
        rules = None if channel is None else channel.rules
        check = partial(self._authorize, proposal, channel)
        call = LifecycleCall(self.node.msp_id, self.packages, self._references, check, simulation, rules)
        return Outcome(invoke_lifecycle(proposal.arguments, call), None, SYSTEM_VERSION)

    def _ask_peer(self, proposal: Proposal, channel: PeerChannel | None) -> Outcome:
        """Run a system chaincode that needs no simulation."""
        if proposal.chaincode == LIFECYCLE_NAMESPACE:
            return self._ask_lifecycle(proposal, channel, None)
        if proposal.chaincode == "qscc":
            response = query_ledger(proposal.arguments, self.channels, _signed_data(proposal))
        elif proposal.chaincode == "cscc":
            response = query_configuration(
                proposal.arguments, self.channels, partial(self._authorize, proposal, None), _signed_data(proposal)
            )
        else:
            words = f"error in simulation: chaincode {proposal.chaincode} is not called without a channel"
            raise _PeerFailureError(words)
        return Outcome(response, None, SYSTEM_VERSION)

    def _authorize(self, proposal: Proposal, channel: PeerChannel | None, resource: str) -> None:
        signed = _signed_data(proposal)
        if resource in LOCAL_RESOURCES or channel is None:
            check_local_access(resource, signed, self.node.msp_id, self.local_msps())
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


def _signed_data(proposal: Proposal) -> SignedData:
    return SignedData(proposal.creator, proposal.content, proposal.signature)


def _failure(message: str) -> proposal_response_pb2.ProposalResponse:
    return _message(encode_proposal_response(Response(_FAILED, message, b"")))


def _message(content: bytes) -> proposal_response_pb2.ProposalResponse:
    return proposal_response_pb2.ProposalResponse.FromString(content)


def _time_text(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S.%f +0000 UTC")
