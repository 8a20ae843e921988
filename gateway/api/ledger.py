"""What the routes need of the ledger: one interface, and the outcomes a write can have.

The service on a real gateway is in `gateway.api.fabric_ledger`; tests give another one.
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple, Protocol


class Outcome(StrEnum):
    """How a write stands. There is no fourth."""

    COMMITTED = "committed"
    REJECTED = "rejected"
    UNKNOWN = "unknown"


class WriteResult(NamedTuple):
    """A write as far as it is known.

    COMMITTED and REJECTED by a block have `code` (validation code name) and `block_number`. UNKNOWN has neither: ask
    for the transaction again. `payload` is the contract's answer, from its endorsement.
    """

    outcome: Outcome
    tx_id: str
    code: str | None = None
    block_number: int | None = None
    payload: bytes = b""


class Ledger(Protocol):
    """The channel's contract as one user sees it. Errors are those of `gateway.api.errors`."""

    async def evaluate(self, user: str, function: str, arguments: Sequence[str]) -> bytes:
        """Ask the contract, without writing."""

    async def submit(
        self,
        user: str,
        function: str,
        arguments: Sequence[str],
        *,
        transient: Mapping[str, bytes] | None = None,
        endorsing_organizations: Sequence[str] = (),
    ) -> WriteResult:
        """Have the contract write, and wait for the verdict as long as the service allows."""

    async def transaction(self, user: str, tx_id: str) -> WriteResult:
        """Say how a transaction stands."""
