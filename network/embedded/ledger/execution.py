"""Running contracts for one transaction: the one that was called, and those that it calls.

Rules: `core/chaincode/chaincode_support.go` (init), `core/chaincode/handler.go` (HandleInvokeChaincode).
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from fabric_protos.peer import chaincode_pb2, chaincode_shim_pb2, proposal_pb2

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
from network.embedded.ledger.simulation import Simulation
from network.protocol.policy import SignedData

INITIALIZED: Final = "\0\U0010ffffinitialized"
"""The key in a chaincode's own namespace that says for which version it was initialised."""

_CALLED_NAME: Final = re.compile(r"(?P<name>[^:/]*)(?::(?P<version>[^/]*))?(?:/(?P<channel>.*))?", re.DOTALL)


@dataclass(frozen=True)
class Execution:
    """One transaction at one peer. `signed` is its proposal, `creator` the same as a signature to be judged."""

    simulation: Simulation
    runner: ContractRunner
    endorsable: Callable[[str], EndorsableChaincode]
    signed: proposal_pb2.SignedProposal
    creator: SignedData

    async def run(
        self, chaincode: str, found: EndorsableChaincode, chaincode_input: chaincode_pb2.ChaincodeInput
    ) -> ChaincodeResult:
        """Run the contract that the proposal names; raises ChaincodeError, SimulationError."""
        is_init = self._is_init(chaincode, found, is_init=chaincode_input.is_init)
        return await self._run(chaincode, found, chaincode_input, is_init=is_init)

    async def _run(
        self,
        chaincode: str,
        found: EndorsableChaincode,
        chaincode_input: chaincode_pb2.ChaincodeInput,
        *,
        is_init: bool,
    ) -> ChaincodeResult:
        simulation = self.simulation
        call = ChaincodeCall(
            simulation.channel.channel_id, simulation.tx_id, chaincode_input, self.signed, is_init=is_init
        )
        conversation = LedgerConversation(simulation, chaincode, is_init=is_init, call=self._call)
        return await self.runner.execute(found.package_id, call, conversation)

    def _is_init(self, chaincode: str, found: EndorsableChaincode, *, is_init: bool) -> bool:
        """Tell whether this is the call that initialises the chaincode, and note it."""
        refused = f"failed to execute transaction {self.simulation.tx_id}: invalid invocation: chaincode '{chaincode}'"
        definition = found.definition
        if not definition.init_required:
            if is_init:
                raise ChaincodeError(f"{refused} does not require initialization but called as init")
            return False
        version = self.simulation.get_state(chaincode, INITIALIZED)
        is_initialized = version == definition.version.encode()
        if is_init and is_initialized:
            raise ChaincodeError(f"{refused} is already initialized but called as init")
        if not is_init and not is_initialized:
            raise ChaincodeError(f"{refused} has not been initialized for this version, must call as init first")
        if is_init:
            self.simulation.put_state(chaincode, INITIALIZED, definition.version.encode())
        return is_init

    async def _call(self, name: str, chaincode_input: chaincode_pb2.ChaincodeInput) -> bytes:
        """Call another chaincode of the channel, in the same simulation; gives its ChaincodeMessage."""
        called = _CALLED_NAME.fullmatch(name)
        chaincode = called["name"] if called else name
        channel = self.simulation.channel
        if called and called["channel"] not in (None, "", channel.channel_id):
            raise RequestRefusedError(f"failed to find ledger for channel: {called['channel']}")
        try:
            check_access("peer/ChaincodeToChaincode", self.creator, channel.rules)
        except AccessError as error:
            raise RequestRefusedError(str(error)) from error
        self.simulation.read_sequence(chaincode)
        try:
            result = await self._run(chaincode, self.endorsable(chaincode), chaincode_input, is_init=False)
        except (ChaincodeError, NotEndorsableError) as error:
            raise RequestRefusedError(f"execute failed: {error}") from error
        message = chaincode_shim_pb2.ChaincodeMessage(
            type=chaincode_shim_pb2.ChaincodeMessage.COMPLETED,
            payload=result.response.SerializeToString(),
            txid=self.simulation.tx_id,
            channel_id=channel.channel_id,
        )
        return bytes(message.SerializeToString())
