"""Running a contract, as the ledger sees it: what it is given, what it may ask, what it answers.

Who runs it is not said here: a server behind a stream (`services.chaincode_stream`), or a contract in this process.
"""

from typing import Any, NamedTuple, Protocol

from fabric_protos.peer import chaincode_pb2, proposal_pb2

from network.protocol.proposal import Response


class ChaincodeError(Exception):
    """The chaincode gave no answer; the text is what a real peer says behind `failed to execute transaction <id>: `."""


class RequestRefusedError(Exception):
    """A request of the chaincode is answered with ERROR; the text is the reason, without what the peer puts before."""


def text_of(argument: bytes) -> str:
    """Read an argument as text; what is no UTF-8 stays in it as surrogates, which `writable` finds."""
    return argument.decode("utf-8", "surrogateescape")


def is_text(text: str) -> bool:
    """Tell whether text is made of characters alone, so that it can be written."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def writable(response: Response) -> Response:
    """Give an answer of the peer's own chaincodes; raises ChaincodeError where its message cannot be written."""
    if not is_text(response.message):
        words = "transaction returned with failure: failed to marshal response: string field contains invalid UTF-8"
        raise ChaincodeError(words)
    return response


class ChaincodeCall(NamedTuple):
    """One transaction for a chaincode. `proposal` is a SignedProposal message, or None; `is_init` asks for Init."""

    channel_id: str
    tx_id: str
    chaincode_input: chaincode_pb2.ChaincodeInput
    proposal: proposal_pb2.SignedProposal | None
    is_init: bool = False


class ChaincodeResult(NamedTuple):
    """What a chaincode answered, not looked at yet.

    `payload`: bytes that are to be a `peer.Response`, or a text when it answered ERROR (`is_error`). `event`: a
    `ChaincodeEvent` message, or None.
    """

    payload: bytes
    event: Any = None
    is_error: bool = False


class Conversation(Protocol):
    """What a running transaction may ask its peer."""

    async def answer(self, message_type: int, payload: bytes) -> bytes:
        """Give the payload of the RESPONSE; raises RequestRefusedError."""


class ContractRunner(Protocol):
    """Runs contracts by the package that holds them."""

    async def execute(self, package_id: str, call: ChaincodeCall, conversation: Conversation) -> ChaincodeResult:
        """Run one transaction; raises ChaincodeError. No package is given the same transaction twice at once."""
