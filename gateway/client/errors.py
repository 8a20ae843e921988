"""What a call to a Fabric network can end in, apart from a value.

ClientError
+- CredentialError             certificate, key or MSP folder cannot be used
+- ProfileError                a connection profile cannot be used
+- InvalidRequestError         refused here, before anything was sent
|  +- TransactionTooLargeError no orderer would take it
+- TransportMissingError       a library that is not in the extras is needed
+- DialError                   no TLS connection to the address
+- PreparedTransactionError    the gateway gave something else to sign than was asked for; nothing was signed
+- CallError                   a step failed: transaction id, gRPC code, what each peer said
|  +- EvaluateError
|  +- EndorseError
|  +- SubmitError              not proof of failure, unless `outcome` says so
|  +- CommitStatusError        the outcome stays unknown
|  +- EndorserError            a peer's own service refused
+- CommitError                 the transaction is in a block, and invalid
+- BroadcastError              an orderer refused an envelope
+- BlockStreamError            the block stream ended before its end
   +- BlocksNotFoundError      no such channel, or no such block
   +- BlocksForbiddenError     the identity may not read the channel, or has expired
   +- BlocksBadRequestError    the peer cannot use the request; often a clock that is off by more than 15 minutes
   +- BlocksUnavailableError   the peer cannot serve now, or the connection was lost
   +- BlocksStalledError       nothing came for the time the caller gave
+- EventStreamError            the event stream ended, or gave what it should not
   +- EventsForbiddenError     no such channel, or the identity may not read it
   +- EventsUnreadableError    the peer cannot read a block of its own
   +- EventsUnavailableError   the peer cannot serve now, or the connection was lost
   +- EventsStalledError       nothing came for the time the caller gave
   +- EventCheckpointError     the checkpoint names no event of this chaincode
"""

from typing import ClassVar, Literal, NamedTuple

Outcome = Literal["not_applied", "applied", "unknown"]


class PeerDetail(NamedTuple):
    """What one node said. `message` may hold words of a chaincode, so it belongs in no log."""

    address: str
    msp_id: str
    message: str


class ClientError(Exception):
    """Base; the text names ids, codes and addresses, never values. `attempts`: ids of all transactions proposed."""

    code: ClassVar[str] = "client_error"
    retryable: ClassVar[bool] = False
    outcome: Outcome = "not_applied"
    attempts: tuple[str, ...] = ()


class CredentialError(ClientError):
    """Certificate, key or MSP folder cannot be used; the text says which file and why."""

    code = "credential"


class ProfileError(ClientError):
    """A connection profile cannot be used; the text says file and field."""

    code = "profile"


class InvalidRequestError(ClientError):
    """The request was refused here, before anything was sent."""

    code = "invalid_request"


class TransactionTooLargeError(InvalidRequestError):
    """The transaction is larger than orderers accept."""

    code = "transaction_too_large"


class TransportMissingError(ClientError):
    """The transport needs a library that is not installed; the text says how to install it."""

    code = "transport_missing"


class DialError(ClientError):
    """No TLS connection to the address; the text says what the connection ended in."""

    code = "dial"
    retryable = True


class PreparedTransactionError(ClientError):
    """The gateway returned something else than the endorsed proposal. Nothing was signed. Distrust this peer."""

    code = "prepared_transaction"

    def __init__(self, message: str, tx_id: str) -> None:
        super().__init__(f"prepared transaction {tx_id}: {message}")
        self.tx_id = tx_id


class CallError(ClientError):
    """A call failed.

    `grpc_code` is the code's name, `message` the server's text and `details` what each peer said; both may hold words
    of a chaincode and are kept out of `str()`.
    """

    code = "call"
    step: ClassVar[str] = "call"

    def __init__(
        self, grpc_code: str, message: str = "", details: tuple[PeerDetail, ...] = (), tx_id: str = ""
    ) -> None:
        where = ", ".join(f"{detail.address} ({detail.msp_id})" for detail in details)
        super().__init__(
            f"{self.step} of {tx_id or 'no transaction'}: {grpc_code}" + (f" from {where}" if where else "")
        )
        self.grpc_code = grpc_code
        self.message = message
        self.details = details
        self.tx_id = tx_id

    @property
    def timed_out(self) -> bool:
        """Whether the time that the call was given was over before an answer came.

        A peer keeps the deadline as well. When its clock is the first, it resets the stream, and gRPC says CANCELLED;
        a call that is cancelled on this side raises asyncio.CancelledError instead.
        Source: grpc-go internal/transport/http2_server.go, where the deadline of a stream ends.
        """
        return self.grpc_code in {"DEADLINE_EXCEEDED", "CANCELLED"}


class EvaluateError(CallError):
    """A query failed; nothing was to be written."""

    code = "evaluate"
    step = "evaluate"


class EndorseError(CallError):
    """The endorsements were not given; nothing was ordered."""

    code = "endorse"
    step = "endorse"


_NOT_APPLIED = frozenset(("INVALID_ARGUMENT", "FAILED_PRECONDITION", "UNIMPLEMENTED", "UNAUTHENTICATED"))
_REFUSALS = ("status=BAD_REQUEST", "status=FORBIDDEN", "status=REQUEST_ENTITY_TOO_LARGE")


class SubmitError(CallError):
    """The gateway did not confirm that an orderer took the transaction.

    `outcome` is "not_applied" when the gateway refused the call or an orderer the envelope (every orderer judges the
    same bytes alike), else "unknown": ask for the commit status of the same transaction id.
    """

    code = "submit"
    step = "submit"

    def __init__(
        self, grpc_code: str, message: str = "", details: tuple[PeerDetail, ...] = (), tx_id: str = ""
    ) -> None:
        super().__init__(grpc_code, message, details, tx_id)
        refused = grpc_code == "ABORTED" and any(status in message for status in _REFUSALS)
        self.outcome = "not_applied" if refused or grpc_code in _NOT_APPLIED else "unknown"


class CommitStatusError(CallError):
    """No verdict was given; the transaction may be committed, or may yet be. Ask again."""

    code = "commit_status"
    step = "commit status"
    retryable = True
    outcome: Outcome = "unknown"


class EndorserError(CallError):
    """A peer's endorser service refused; `status` is the response's status, 0 when there was none."""

    code = "endorser"
    step = "proposal"

    def __init__(self, grpc_code: str, message: str = "", tx_id: str = "", status: int = 0) -> None:
        super().__init__(grpc_code if not status else f"status {status}", message, (), tx_id)
        self.status = status


class CommitError(ClientError):
    """The transaction is in a block, and invalid: it wrote nothing."""

    code = "commit"

    def __init__(self, tx_id: str, validation_code: str, block_number: int) -> None:
        super().__init__(f"transaction {tx_id} in block {block_number}: {validation_code}")
        self.tx_id = tx_id
        self.validation_code = validation_code
        self.block_number = block_number


class BroadcastError(ClientError):
    """An orderer did not take an envelope. `status` is the name of its status, "" when the connection failed."""

    code = "broadcast"

    def __init__(self, address: str, status: str, info: str, *, outcome: Outcome) -> None:
        super().__init__(f"orderer {address}: {status or 'no answer'}")
        self.status = status
        self.info = info
        self.outcome = outcome


class BlockStreamError(ClientError):
    """The block stream ended before its end; `next_block` is the first number not received."""

    code = "block_stream"

    def __init__(self, message: str, next_block: int) -> None:
        super().__init__(f"blocks from {next_block}: {message}")
        self.next_block = next_block


class BlocksNotFoundError(BlockStreamError):
    """No such channel on this peer, or no such block (yet, or not held)."""

    code = "blocks_not_found"


class BlocksForbiddenError(BlockStreamError):
    """The identity may not read the channel, or its certificate has expired."""

    code = "blocks_forbidden"


class BlocksBadRequestError(BlockStreamError):
    """The peer cannot use the request; often a clock that is off by more than 15 minutes."""

    code = "blocks_bad_request"


class BlocksUnavailableError(BlockStreamError):
    """The peer cannot serve now, or the connection was lost. Go on from `next_block`."""

    code = "blocks_unavailable"
    retryable = True


class BlocksStalledError(BlockStreamError):
    """Nothing came for the time the caller gave. Go on from `next_block`, perhaps at another peer."""

    code = "blocks_stalled"
    retryable = True


class EventPosition(NamedTuple):
    """Where a stream of events goes on: behind the event of a transaction in a block; without one, at the block."""

    block_number: int
    tx_id: str = ""


class EventStreamError(ClientError):
    """The event stream ended, or gave what it should not. `position` is where to go on.

    `grpc_code` is the code's name, "" where there was none; `message`, the server's text, is kept out of `str()`.
    """

    code = "event_stream"

    def __init__(self, reason: str, position: EventPosition, grpc_code: str = "", message: str = "") -> None:
        behind = f" behind transaction {position.tx_id}" if position.tx_id else ""
        super().__init__(f"events from block {position.block_number}{behind}: {reason}")
        self.position = position
        self.grpc_code = grpc_code
        self.message = message


class EventsForbiddenError(EventStreamError):
    """No such channel on this peer, or the identity may not read its events."""

    code = "events_forbidden"


class EventsUnreadableError(EventStreamError):
    """The peer's stream ended at a block that it cannot read: somebody wrote a malformed transaction.

    It ends there again; read that block with a BlockStream, and go on with the events from the next one.
    """

    code = "events_unreadable"


class EventsUnavailableError(EventStreamError):
    """The peer cannot serve now, or the connection was lost. Go on from `position`."""

    code = "events_unavailable"
    retryable = True


class EventsStalledError(EventStreamError):
    """Nothing came for the time the caller gave. Go on from `position`, perhaps at another peer."""

    code = "events_stalled"
    retryable = True


class EventCheckpointError(EventStreamError):
    """The block of the checkpoint has no event of this chaincode by its transaction: wrong block, chaincode or id."""

    code = "event_checkpoint"
