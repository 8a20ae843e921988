"""Running contracts for one transaction: the one that was called, and those that it calls.

Rules: `core/chaincode/chaincode_support.go` (what may be invoked, init, texts), `core/chaincode/handler.go`
(HandleInvokeChaincode), `core/chaincode/lifecycle/endorsement_info.go`.
"""

import re
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple, Protocol

from fabric_protos.peer import chaincode_pb2, chaincode_shim_pb2, proposal_pb2, proposal_response_pb2

from network.embedded.ledger.access_control import AccessError, check_access
from network.embedded.ledger.chaincode import (
    ChaincodeCall,
    ChaincodeError,
    ChaincodeResult,
    ContractRunner,
    RequestRefusedError,
)
from network.embedded.ledger.conversation import LedgerConversation
from network.embedded.ledger.endorsable import EndorsableChaincode, NotEndorsableError
from network.embedded.ledger.peer_channel import PeerChannel
from network.embedded.ledger.simulation import Simulation
from network.protocol.errors import DecodeError, IdentityError
from network.protocol.identity import decode_serialized_identity
from network.protocol.interest import SYSTEM_NAMESPACES
from network.protocol.policy import SignedData
from network.protocol.proposal import Proposal, Response
from network.protocol.wire import parse

INITIALIZED: Final = "\0\U0010ffffinitialized"
"""The key in a chaincode's own namespace that says for which version it was initialised."""
LEGACY_NAMESPACE: Final = "lscc"
"""Where Fabric 1 kept definitions: what is not found in `_lifecycle` is looked for, and read, there."""

_Message: Final = chaincode_shim_pb2.ChaincodeMessage
_CALLED_NAME: Final = re.compile(r"(?P<name>[^:/]*)(?::(?P<version>[^/]*))?(?:/(?P<channel>.*))?", re.DOTALL)


class Executed(NamedTuple):
    """What a contract came to: a `peer.Response` message, and a `ChaincodeEvent` message or None."""

    response: Any
    event: Any


class ChaincodeHost(Protocol):
    """The peer at which a transaction runs."""

    channels: dict[str, PeerChannel]

    @property
    def runner(self) -> ContractRunner:
        """What runs contracts."""

    @property
    def running(self) -> set[tuple[str, str, str]]:
        """Package, channel and id of every transaction that a contract is at."""

    def endorsable(self, channel: PeerChannel, chaincode: str) -> EndorsableChaincode:
        """Give what is needed to run a chaincode; raises NotEndorsableError."""

    def ask_system_chaincode(
        self, chaincode: str, arguments: tuple[bytes, ...], proposal: Proposal, simulation: Simulation
    ) -> Response:
        """Run a system chaincode for another one; raises ChaincodeError."""


@dataclass(frozen=True)
class Execution:
    """One transaction at one peer, on the channel of its simulation; `signed` is its proposal as it came."""

    simulation: Simulation
    host: ChaincodeHost
    proposal: Proposal
    signed: proposal_pb2.SignedProposal

    async def run(self) -> Executed:
        """Run the contract that the proposal names; raises ChaincodeError with Fabric's whole text."""
        proposal, tx_id = self.proposal, self.simulation.tx_id
        chaincode_input = chaincode_pb2.ChaincodeInput(
            args=proposal.arguments, is_init=proposal.is_init, decorations=proposal.decorations
        )
        try:
            result = await self._invoke(proposal.chaincode, chaincode_input)
        except ChaincodeError as error:
            raise ChaincodeError(f"failed to execute transaction {tx_id}: {error}") from error
        if result.is_error:
            raise ChaincodeError(f"transaction returned with failure: {result.payload.decode('utf-8', 'replace')}")
        try:
            response = parse(proposal_response_pb2.Response, result.payload, "Response")
        except DecodeError as error:
            raise ChaincodeError(f"failed to unmarshal response for transaction {tx_id}: {error}") from error
        return Executed(response, result.event)

    async def _invoke(self, chaincode: str, chaincode_input: chaincode_pb2.ChaincodeInput) -> ChaincodeResult:
        """Run a chaincode and take its answer as it is; raises ChaincodeError."""
        if chaincode in SYSTEM_NAMESPACES:
            arguments = tuple(chaincode_input.args)
            response = self.host.ask_system_chaincode(chaincode, arguments, self.proposal, self.simulation)
            return ChaincodeResult(_encode_response(response))
        simulation = self.simulation
        channel = simulation.channel
        found = self._find(chaincode)
        is_init = self._is_init(chaincode, found, is_init=chaincode_input.is_init)
        place = (found.package_id, channel.channel_id, simulation.tx_id)
        if place in self.host.running:  # it calls itself, or the same proposal is here twice
            raise ChaincodeError(f"error sending: txid: {simulation.tx_id}({channel.channel_id}) exists")
        call = ChaincodeCall(channel.channel_id, simulation.tx_id, chaincode_input, self.signed, is_init=is_init)
        conversation = LedgerConversation(simulation, chaincode, is_init=is_init, call=self._call)
        self.host.running.add(place)
        try:
            return await self.host.runner.execute(found.package_id, call, conversation)
        finally:
            self.host.running.discard(place)

    def _find(self, chaincode: str) -> EndorsableChaincode:
        """Find a chaincode by its definition, which counts as read; raises ChaincodeError."""
        simulation = self.simulation
        simulation.read_sequence(chaincode)
        try:
            return self.host.endorsable(simulation.channel, chaincode)
        except NotEndorsableError as error:
            if error.is_unknown:
                simulation.get_state(LEGACY_NAMESPACE, chaincode)
            raise ChaincodeError(
                f"invalid invocation: [channel {simulation.channel.channel_id}] failed to get chaincode container info "
                f"for {chaincode}: {error}"
            ) from error

    def _is_init(self, chaincode: str, found: EndorsableChaincode, *, is_init: bool) -> bool:
        """Tell whether this is the call that initialises the chaincode, and note it."""
        refused = f"invalid invocation: chaincode '{chaincode}'"
        definition = found.definition
        is_initialized = True
        if definition.init_required:
            version = self.simulation.get_state(chaincode, INITIALIZED)
            is_initialized = version == definition.version.encode()
        if is_init and not definition.init_required:
            raise ChaincodeError(f"{refused} does not require initialization but called as init")
        if is_init and is_initialized:
            raise ChaincodeError(f"{refused} is already initialized but called as init")
        if is_init:
            self.simulation.put_state(chaincode, INITIALIZED, definition.version.encode())
        elif not is_initialized:
            raise ChaincodeError(f"{refused} has not been initialized for this version, must call as init first")
        return is_init

    # --- calls of other chaincodes

    async def _call(self, name: str, chaincode_input: chaincode_pb2.ChaincodeInput) -> bytes:
        """Call another chaincode; gives its ChaincodeMessage, raises RequestRefusedError."""
        called = _CALLED_NAME.fullmatch(name)
        chaincode, channel_id = (name, None) if called is None else (called["name"], called["channel"])
        own = self.simulation.channel
        channel_id = channel_id or own.channel_id
        channel = self.host.channels.get(channel_id)
        if chaincode not in SYSTEM_NAMESPACES:
            self._check_access(channel_id, channel)
        if channel is None:
            raise RequestRefusedError(f"failed to find ledger for channel: {channel_id}")
        try:
            if channel is own:
                return _message(await self._invoke(chaincode, chaincode_input), self.simulation)
            async with channel.lock.simulating():
                return await self._call_elsewhere(channel, chaincode, chaincode_input)
        except ChaincodeError as error:
            raise RequestRefusedError(f"execute failed: {error}") from error

    def _check_access(self, channel_id: str, channel: PeerChannel | None) -> None:
        if channel is None:
            raise RequestRefusedError(f"Failed to get policy manager for channel [{channel_id}]")
        try:
            check_access("peer/ChaincodeToChaincode", signed_data(self.proposal), channel.rules)
        except AccessError as error:
            raise RequestRefusedError(str(error)) from error

    async def _call_elsewhere(
        self, channel: PeerChannel, chaincode: str, chaincode_input: chaincode_pb2.ChaincodeInput
    ) -> bytes:
        """Call a chaincode of another channel: what it writes is dropped, and what it reads is validated by nobody."""
        try:
            creator = channel.rules.msps.identity(decode_serialized_identity(self.proposal.creator))
        except (DecodeError, IdentityError) as error:  # who may call system chaincodes, these say themselves
            raise ChaincodeError(str(error)) from error
        simulation = Simulation(channel, self.simulation.tx_id, creator)
        there = replace(self, simulation=simulation)
        return _message(await there._invoke(chaincode, chaincode_input), simulation)  # noqa: SLF001  # of the same class


def _message(result: ChaincodeResult, simulation: Simulation) -> bytes:
    message = _Message(
        type=_Message.ERROR if result.is_error else _Message.COMPLETED,
        payload=result.payload,
        txid=simulation.tx_id,
        channel_id=simulation.channel.channel_id,
    )
    if result.event is not None:
        message.chaincode_event.CopyFrom(result.event)
    return bytes(message.SerializeToString())


def _encode_response(response: Response) -> bytes:
    message = proposal_response_pb2.Response(status=response.status, message=response.message, payload=response.payload)
    return bytes(message.SerializeToString())


def signed_data(proposal: Proposal) -> SignedData:
    """Give the signature of a proposal as policies judge it."""
    return SignedData(proposal.creator, proposal.content, proposal.signature)
