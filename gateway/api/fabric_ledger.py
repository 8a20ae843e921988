"""The ledger of the routes on a real gateway: users sign with their own identities, refusals become HTTP's words."""

import logging
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final

from gateway.api.errors import (
    AccessDeniedError,
    ConflictError,
    DeadlineError,
    EndorsementError,
    GatewayServiceError,
    InvalidRequestError,
    NotFoundError,
    PayloadTooLargeError,
    UpstreamUnavailableError,
)
from gateway.api.ledger import Outcome, WriteResult
from gateway.client.channel import Endpoint, NodeChannel
from gateway.client.contract import Contract
from gateway.client.errors import (
    CallError,
    ClientError,
    CommitError,
    CommitStatusError,
    CredentialError,
    SubmitError,
    TransactionTooLargeError,
)
from gateway.client.gateway import Gateway, Timeouts
from gateway.client.retry import RetryPolicy
from gateway.wallet.folder_wallet import FolderWallet

STATUS_SECONDS: Final = 1.0
"""How long a question for a transaction waits for a verdict that is not there yet."""
UNTIL_ORDERED: Final = RetryPolicy(attempts=8, total_seconds=15, longest_pause=1, conflicts=False)
"""Peers at different heights disagree now and then; nothing was ordered then, so the proposal is made anew."""
TIMEOUTS: Final = Timeouts(evaluate=10, endorse=20, submit=10, commit_status=20)

_REFUSAL = re.compile(r"chaincode response (\d{3}), (.*)", re.DOTALL)
_BY_STATUS: Mapping[int, type[GatewayServiceError]] = {
    400: InvalidRequestError,
    403: AccessDeniedError,
    404: NotFoundError,
    409: ConflictError,
    413: PayloadTooLargeError,
}

logger = logging.getLogger(__name__)


class FabricLedger:
    """A `Ledger` at one peer of the organisation."""

    def __init__(self, channel: NodeChannel, wallet: FolderWallet, channel_name: str, chaincode: str) -> None:
        self._channel = channel
        self._wallet = wallet
        self._channel_name = channel_name
        self._chaincode = chaincode

    @classmethod
    @asynccontextmanager
    async def connect(
        cls, endpoint: Endpoint, wallet: FolderWallet, channel_name: str, chaincode: str
    ) -> AsyncIterator["FabricLedger"]:
        """Give the ledger of a peer for as long as the context lasts."""
        async with NodeChannel(endpoint) as channel:
            yield cls(channel, wallet, channel_name, chaincode)

    async def evaluate(self, user: str, function: str, arguments: Sequence[str]) -> bytes:
        """Ask the contract, without writing."""
        try:
            return await self._contract(user).evaluate(function, *arguments)
        except ClientError as error:
            raise _service_error(error) from error

    async def submit(
        self,
        user: str,
        function: str,
        arguments: Sequence[str],
        *,
        transient: Mapping[str, bytes] | None = None,
        endorsing_organizations: Sequence[str] = (),
        retry: RetryPolicy = UNTIL_ORDERED,
    ) -> WriteResult:
        """Have the contract write, and wait for the verdict."""
        try:
            committed = await self._contract(user).submit_transaction(
                function,
                *arguments,
                transient=transient,
                endorsing_organizations=endorsing_organizations,
                retry=retry,
            )
        except CommitError as error:
            return WriteResult(Outcome.REJECTED, error.tx_id, error.validation_code, error.block_number)
        except (SubmitError, CommitStatusError) as error:
            if error.outcome == "unknown":
                logger.warning("outcome_unknown", extra={"tx_id": error.tx_id, "code": error.code})
                return WriteResult(Outcome.UNKNOWN, error.tx_id)
            raise _service_error(error) from error
        except ClientError as error:
            raise _service_error(error) from error
        status = committed.status
        return WriteResult(Outcome.COMMITTED, status.tx_id, status.code, status.block_number, committed.result)

    async def transaction(self, user: str, tx_id: str) -> WriteResult:
        """Say how a transaction stands; a verdict that does not come soon is "unknown"."""
        gateway = self._gateway(user)
        try:
            status = await gateway.network(self._channel_name).commit(tx_id).status(STATUS_SECONDS)
        except CommitStatusError as error:
            if error.timed_out:
                return WriteResult(Outcome.UNKNOWN, tx_id)
            raise _service_error(error) from error
        outcome = Outcome.COMMITTED if status.is_valid else Outcome.REJECTED
        return WriteResult(outcome, tx_id, status.code, status.block_number)

    def _contract(self, user: str) -> Contract:
        return self._gateway(user).network(self._channel_name).contract(self._chaincode)

    def _gateway(self, user: str) -> Gateway:
        try:
            identity = self._wallet.identity(user)
        except CredentialError as error:
            logger.error("identity_unusable", extra={"code": error.code})  # noqa: TRY400  # our error says all
            raise UpstreamUnavailableError("the service cannot sign for this user at present") from error
        if identity is None:
            raise AccessDeniedError("the user has no identity on this channel")
        return Gateway(identity, self._channel, TIMEOUTS)


def _service_error(error: ClientError) -> GatewayServiceError:
    """Give HTTP's word for a failed call; what peers said stays in the log, but for the contract's own refusals."""
    if isinstance(error, TransactionTooLargeError):
        return PayloadTooLargeError("the transaction would be larger than orderers take")
    if not isinstance(error, CallError):
        logger.error("call_failed", extra={"code": error.code, "reason": str(error)})
        return EndorsementError()
    refusal = _refusal(error)
    if refusal is not None:
        return refusal
    extra = {"code": error.code, "tx_id": error.tx_id, "grpc_code": error.grpc_code, "peers": len(error.details)}
    logger.warning("call_failed", extra=extra)
    if error.grpc_code == "UNAVAILABLE":
        return UpstreamUnavailableError(tx_id=error.tx_id)
    if error.timed_out:
        return DeadlineError(tx_id=error.tx_id)
    if error.grpc_code == "PERMISSION_DENIED" or "access denied" in error.message:
        return AccessDeniedError("the channel does not admit this user", tx_id=error.tx_id)
    return EndorsementError(tx_id=error.tx_id)


def _refusal(error: CallError) -> GatewayServiceError | None:
    """Give what the contract refused with, where every peer that answered says the same."""
    found = [match for text in (error.message, *(d.message for d in error.details)) if (match := _REFUSAL.search(text))]
    statuses = {int(match[1]) for match in found}
    if len(statuses) != 1:
        return None
    kind = _BY_STATUS.get(statuses.pop())
    return None if kind is None else kind(found[0][2], tx_id=error.tx_id)
