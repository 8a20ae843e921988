"""Contract: a chaincode on a channel; the whole flow of a write in one call."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from gateway.client.errors import ClientError, CommitStatusError, InvalidRequestError, SubmitError
from gateway.client.retry import RetryPolicy
from gateway.client.transaction import Proposal, Status, Transaction
from network.protocol.proposal import build_proposal

if TYPE_CHECKING:
    from gateway.client.gateway import Gateway


class Committed(NamedTuple):
    """A valid transaction: the chaincode's answer, the verdict, and the ids of all attempts, its own last."""

    result: bytes
    status: Status
    attempts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Contract:
    """A chaincode by name."""

    gateway: "Gateway"
    channel_name: str
    chaincode: str

    def proposal(
        self,
        function: str,
        *arguments: str | bytes,
        transient: Mapping[str, bytes] | None = None,
        endorsing_organizations: Sequence[str] = (),
    ) -> Proposal:
        """Make a proposal with a fresh nonce; text is sent as UTF-8. Nothing is sent."""
        chance = self.gateway.chance
        message = build_proposal(
            channel_id=self.channel_name,
            chaincode=self.chaincode,
            arguments=[_encode(argument) for argument in (function, *arguments)],
            transient=transient,
            creator=self.gateway.identity.creator,
            nonce=chance.nonce(),
            nanoseconds=chance.nanoseconds(),
        )
        return Proposal(self.gateway, message, tuple(endorsing_organizations))

    async def evaluate(
        self,
        function: str,
        *arguments: str | bytes,
        transient: Mapping[str, bytes] | None = None,
        target_organizations: Sequence[str] = (),
    ) -> bytes:
        """Have one peer run a function; nothing is written. Raises EvaluateError.

        Transient data needs `target_organizations`, as in `endorse`.
        """
        _check_transient(transient, target_organizations)
        proposal = self.proposal(
            function, *arguments, transient=transient, endorsing_organizations=target_organizations
        )
        return await proposal.evaluate()

    async def endorse(
        self,
        function: str,
        *arguments: str | bytes,
        transient: Mapping[str, bytes] | None = None,
        endorsing_organizations: Sequence[str] = (),
    ) -> Transaction:
        """Propose and collect endorsements. Raises InvalidRequestError, and what `Proposal.endorse` raises.

        Transient data goes to every endorser, so with it their organisations have to be named.
        """
        _check_transient(transient, endorsing_organizations)
        proposal = self.proposal(
            function, *arguments, transient=transient, endorsing_organizations=endorsing_organizations
        )
        return await proposal.endorse()

    async def submit_transaction(
        self,
        function: str,
        *arguments: str | bytes,
        transient: Mapping[str, bytes] | None = None,
        endorsing_organizations: Sequence[str] = (),
        retry: RetryPolicy | None = None,
    ) -> Committed:
        """Endorse, submit, wait for the verdict; try again as `retry_class` says, within `retry`.

        Never proposes anew while an earlier attempt may still commit. Raises what the last attempt ended in, with
        `attempts` filled: CommitError (invalid), SubmitError or CommitStatusError with outcome "unknown" (ask
        `Network.commit(tx_id)`), EndorseError, PreparedTransactionError, InvalidRequestError.
        """
        _check_transient(transient, endorsing_organizations)
        policy, chance = retry or RetryPolicy(), self.gateway.chance
        deadline = chance.monotonic() + policy.total_seconds
        attempts: list[str] = []
        while True:
            proposal = self.proposal(
                function, *arguments, transient=transient, endorsing_organizations=endorsing_organizations
            )
            attempts.append(proposal.tx_id)
            try:
                transaction = await proposal.endorse()
                status = await _commit(transaction)
            except ClientError as error:
                error.attempts = tuple(attempts)
                pause = policy.pause(len(attempts), chance.jitter())
                if (
                    not policy.allows(error)
                    or len(attempts) >= policy.attempts
                    or chance.monotonic() + pause >= deadline
                ):
                    raise
            else:
                return Committed(transaction.result, status, tuple(attempts))
            await chance.sleep(pause)


async def _commit(transaction: Transaction) -> Status:
    """Submit and wait; a lost answer to the submit is settled by the verdict, when there is one."""
    try:
        await transaction.submit()
    except SubmitError as error:
        if error.outcome == "not_applied":
            raise
        try:
            return await transaction.commit.valid()
        except CommitStatusError:
            raise error from None
    return await transaction.commit.valid()


def _check_transient(transient: Mapping[str, bytes] | None, organizations: Sequence[str]) -> None:
    if transient and not organizations:
        raise InvalidRequestError("transient data without named organisations: it would go to peers not chosen")


def _encode(argument: str | bytes) -> bytes:
    try:
        return argument.encode() if isinstance(argument, str) else argument
    except UnicodeEncodeError:
        raise InvalidRequestError("an argument is not text that UTF-8 can hold") from None
