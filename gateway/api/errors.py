"""What a request to the service can end in, each with its HTTP status and a stable code.

GatewayServiceError
+- SettingsError              the service does not start
+- InvalidRequestError  400   the request is not what the route takes
+- AuthenticationError  401   no token, or none that counts
+- AccessDeniedError    403   the user, or the contract, does not allow it
+- NotFoundError        404
+- ConflictError        409   state of the ledger stands against it
+- CommitRejectedError  409   a block holds the transaction, refused: somebody else was first. Try again
|  +- PolicyRejectedError 502 a block holds it, refused for another reason. Trying again does not help
+- PayloadTooLargeError 413
+- EndorsementError     502   endorsers failed, disagreed or refused for reasons of their own
+- UpstreamUnavailableError 503
+- DeadlineError        504   reads only: a write whose outcome is unknown answers 202 with a place to ask
"""

from typing import ClassVar


class GatewayServiceError(Exception):
    """Base; `detail` goes to the caller and holds ids and codes, never values of the ledger or names of peers."""

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    title: ClassVar[str] = "Internal error"

    def __init__(self, detail: str = "", *, tx_id: str | None = None) -> None:
        super().__init__(detail or self.title)
        self.detail = detail
        self.tx_id = tx_id


class SettingsError(GatewayServiceError):
    """The settings are incomplete or contradict each other; the service does not start. The text says what to mend."""

    code = "settings"
    title = "Settings cannot be used"


class InvalidRequestError(GatewayServiceError):
    """The request, or what it asks the contract, is not acceptable in this form."""

    code = "invalid_request"
    status = 400
    title = "The request is not acceptable"


class AuthenticationError(GatewayServiceError):
    """There is no token, or none that counts; why is not said."""

    code = "authentication"
    status = 401
    title = "A valid token is needed"


class AccessDeniedError(GatewayServiceError):
    """The user may not do this."""

    code = "access_denied"
    status = 403
    title = "Not allowed"


class NotFoundError(GatewayServiceError):
    """What is asked for does not exist, or not for this user."""

    code = "not_found"
    status = 404
    title = "Not found"


class ConflictError(GatewayServiceError):
    """The state of the ledger, or a transaction that came first, stands against it."""

    code = "conflict"
    status = 409
    title = "In conflict with the present state"


class CommitRejectedError(GatewayServiceError):
    """A block holds the transaction and refuses it: another one changed what it had read. A new try may pass."""

    code = "commit_rejected"
    status = 409
    title = "Another transaction came first"

    def __init__(self, detail: str, *, tx_id: str, validation_code: str, block_number: int | None) -> None:
        super().__init__(detail, tx_id=tx_id)
        self.validation_code = validation_code
        self.block_number = block_number


class PolicyRejectedError(CommitRejectedError):
    """A block holds the transaction and refuses it for a reason that no new try mends; operators look into it."""

    code = "commit_refused"
    status = 502
    title = "The channel refused the transaction"


class PayloadTooLargeError(GatewayServiceError):
    """The body is larger than the service takes."""

    code = "payload_too_large"
    status = 413
    title = "The body is too large"


class EndorsementError(GatewayServiceError):
    """Endorsing organisations failed, disagreed or refused; nothing was ordered. Operators find details in the log."""

    code = "endorsement"
    status = 502
    title = "The organisations did not endorse it"


class UpstreamUnavailableError(GatewayServiceError):
    """The network does not answer; nothing was ordered. Try again later."""

    code = "upstream_unavailable"
    status = 503
    title = "The network does not answer"


class DeadlineError(GatewayServiceError):
    """A read took too long."""

    code = "deadline"
    status = 504
    title = "The network took too long"
