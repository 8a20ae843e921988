"""What every function of a contract is handed first."""

from dataclasses import dataclass

from chaincode.contract.identity import ClientIdentity
from chaincode.shim.stub import Stub


@dataclass(frozen=True)
class Context:
    """One transaction: the stub to ask the peer, who proposed it, and which function was named."""

    stub: Stub
    client: ClientIdentity
    function: str
