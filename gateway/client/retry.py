"""Which failures of a write are worth another try, and which kind of try.

Pure: an error in, a class out. Texts are those of `internal/pkg/gateway`.
"""

from dataclasses import dataclass
from enum import Enum

from gateway.client.errors import ClientError, CommitError, EndorseError


class RetryClass(Enum):
    """What to do about a failure."""

    RE_PROPOSE = "re-propose"
    """The state moved under the transaction, or endorsers were at different heights: propose anew."""
    WAIT = "wait"
    """The network cannot endorse now."""
    NEVER = "never"
    """Policy, access, size, the chaincode's own refusal, or an outcome that is not known."""


_CONFLICTS = frozenset(("MVCC_READ_CONFLICT", "PHANTOM_READ_CONFLICT"))
_MISMATCH = "ProposalResponsePayloads do not match"
_NO_PEERS = ("no combination of peers can be derived", "failed to select a set of endorsers")
_OVERLOAD = "exceeding concurrency limit"


def retry_class(error: ClientError) -> RetryClass:
    """Say what to do about a failure of one attempt."""
    if isinstance(error, CommitError):
        return RetryClass.RE_PROPOSE if error.validation_code in _CONFLICTS else RetryClass.NEVER
    if not isinstance(error, EndorseError):
        return RetryClass.NEVER
    if error.grpc_code == "ABORTED" and any(_MISMATCH in detail.message for detail in error.details):
        return RetryClass.RE_PROPOSE
    if error.grpc_code == "UNAVAILABLE" or (error.grpc_code == "UNKNOWN" and _OVERLOAD in error.message):
        return RetryClass.WAIT
    if error.grpc_code == "FAILED_PRECONDITION" and any(text in error.message for text in _NO_PEERS):
        return RetryClass.WAIT
    return RetryClass.NEVER


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """At most `attempts` proposals within `total_seconds`; pauses in seconds, growing from first to longest.

    `conflicts`: also after a conflict that the ledger recorded, and not only when nothing was ordered.
    """

    attempts: int = 8
    total_seconds: float = 120.0
    first_pause: float = 0.1
    longest_pause: float = 5.0
    conflicts: bool = True

    def allows(self, error: ClientError) -> bool:
        """Say whether a failure is worth another try at all."""
        return retry_class(error) is not RetryClass.NEVER and (self.conflicts or not isinstance(error, CommitError))

    def pause(self, attempt: int, jitter: float) -> float:
        """Give the seconds to wait after attempt number `attempt` (from 1); `jitter` in [0, 1) halves it at most."""
        return min(self.longest_pause, self.first_pause * 2.0 ** min(attempt - 1, 30)) * (0.5 + jitter / 2)


ONCE = RetryPolicy(attempts=1)
