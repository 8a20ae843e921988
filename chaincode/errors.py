"""What a transaction, or the start of a chaincode server, can fail with.

ChaincodeError
+- ServerSettingsError      the server does not start: a file is missing or unusable, or plaintext was not asked for
+- ShimError                the stub was misused, or the peer did not do what was asked; answered with status 500
|  +- InvalidKeyError        a key, part of a key, value or name that no ledger takes
|  +- PeerRefusedError       the peer answered ERROR to a request
|  +- StreamEndedError       the stream to the peer is gone; nothing can be asked any more
|  +- TransactionOverError   the transaction was answered; its stub is dead
|  +- ReadOnlyError          a query wrote
+- ContractError            what a contract refuses on purpose; its status and text go to the client
   +- InvalidArgumentError 400 · AccessDeniedError 403 · NotFoundError 404 · ConflictError 409
   +- LimitExceededError 413

The peer endorses statuses below 400. A text goes to whoever sent the proposal: it names ids and fields, never values.
"""

from typing import ClassVar


class ChaincodeError(Exception):
    """Base of everything raised here on purpose."""


class ServerSettingsError(ChaincodeError):
    """The server cannot start with these settings; the text says what to mend."""


class ShimError(ChaincodeError):
    """The stub was misused, or the exchange with the peer failed."""


class InvalidKeyError(ShimError):
    """A key, a part of one, a value or a name breaks the rules of the ledger; the text says which rule."""


class PeerRefusedError(ShimError):
    """The peer answered ERROR. `text` is its own; it may name keys, so it is neither logged nor handed to clients."""

    def __init__(self, request: str, text: str) -> None:
        super().__init__(f"the peer refused {request}")
        self.request = request
        self.text = text

    @property
    def is_access_denial(self) -> bool:
        """Tell whether the creator of the proposal is no member of the collection."""
        return "access permission on privatedata" in self.text


class StreamEndedError(ShimError):
    """The stream to the peer ended while something was asked, or before."""


class TransactionOverError(ShimError):
    """The transaction has been answered already."""


class ReadOnlyError(ShimError):
    """A function registered as a query tried to write."""


class ContractError(ChaincodeError):
    """A contract refuses; `status` and text go to the client."""

    status: ClassVar[int] = 500


class InvalidArgumentError(ContractError):
    """An argument is missing, too many, or not acceptable."""

    status = 400


class AccessDeniedError(ContractError):
    """The client may not do this."""

    status = 403


class NotFoundError(ContractError):
    """What is asked for does not exist."""

    status = 404


class ConflictError(ContractError):
    """The present state stands against it."""

    status = 409


class LimitExceededError(ContractError):
    """Something is larger than allowed."""

    status = 413
