"""Proposal, Transaction, Commit, Status: the steps of a write, each of which fails in its own class.

Proposal --endorse--> Transaction --submit--> Commit --status--> Status
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import grpc
from fabric_protos.common import common_pb2
from fabric_protos.gateway import gateway_pb2
from fabric_protos.peer import proposal_pb2

from gateway.client.call import call_error
from gateway.client.errors import (
    CommitError,
    CommitStatusError,
    EndorseError,
    EvaluateError,
    PreparedTransactionError,
    SubmitError,
    TransactionTooLargeError,
)
from gateway.client.message import Prepared, check_prepared
from network.protocol.errors import DecodeError
from network.protocol.proposal import Proposal as ProposalMessage
from network.protocol.proposal import encode_envelope
from network.protocol.validation_code import VALID, validation_code_name

if TYPE_CHECKING:
    from gateway.client.gateway import Gateway

_ENVELOPE_OVERHEAD_BYTES = 16 * 1024
"""Headers, read set and a few endorsements, beside what the caller sends."""


class Status(NamedTuple):
    """The verdict on a transaction: name of its validation code and the block it is in."""

    tx_id: str
    code: str
    block_number: int

    @property
    def is_valid(self) -> bool:
        """Whether the transaction's writes took effect."""
        return self.code == validation_code_name(VALID)


@dataclass(frozen=True, slots=True)
class Proposal:
    """A signed proposal. Its arguments and transient data are in no repr."""

    gateway: "Gateway"
    message: ProposalMessage
    endorsing_organizations: tuple[str, ...]

    @property
    def tx_id(self) -> str:
        """The id of the transaction, should it become one."""
        return self.message.tx_id

    def __repr__(self) -> str:
        """Name it without content."""
        return f"Proposal({self.tx_id})"

    def _signed(self) -> proposal_pb2.SignedProposal:
        content = self.message.content
        return proposal_pb2.SignedProposal(proposal_bytes=content, signature=self.gateway.identity.sign(content))

    async def evaluate(self) -> bytes:
        """Have one peer run it and give the result; nothing is written. Raises EvaluateError."""
        request = gateway_pb2.EvaluateRequest(
            transaction_id=self.tx_id,
            channel_id=self.message.channel_id,
            proposed_transaction=self._signed(),
            target_organizations=self.endorsing_organizations,
        )
        try:
            response = await self.gateway.service.Evaluate(request, timeout=self.gateway.timeouts.evaluate)
        except grpc.aio.AioRpcError as error:
            raise call_error(EvaluateError, error, self.tx_id) from error
        return bytes(response.result.payload)

    async def endorse(self) -> "Transaction":
        """Collect endorsements. Raises TransactionTooLargeError (nothing sent), EndorseError, PreparedTransactionError.

        What is written usually holds the arguments a second time, so twice their size has to fit into an envelope.
        """
        size = 2 * len(self.message.payload) + _ENVELOPE_OVERHEAD_BYTES
        _check_size(size, self.gateway.max_envelope_bytes, self.tx_id)
        request = gateway_pb2.EndorseRequest(
            transaction_id=self.tx_id,
            channel_id=self.message.channel_id,
            proposed_transaction=self._signed(),
            endorsing_organizations=self.endorsing_organizations,
        )
        try:
            response = await self.gateway.service.Endorse(request, timeout=self.gateway.timeouts.endorse)
        except grpc.aio.AioRpcError as error:
            raise call_error(EndorseError, error, self.tx_id) from error
        return self._transaction(response.prepared_transaction, self.endorsing_organizations)

    def _transaction(self, envelope: common_pb2.Envelope, organizations: Sequence[str]) -> "Transaction":
        try:
            prepared = check_prepared(envelope.payload, self.message, organizations)
        except DecodeError as error:
            raise PreparedTransactionError(str(error), self.tx_id) from error
        signed = encode_envelope(prepared.payload, self.gateway.identity.sign(prepared.payload))
        _check_size(len(signed), self.gateway.max_envelope_bytes, self.tx_id)
        return Transaction(self.gateway, self.message.channel_id, self.tx_id, prepared, signed)


@dataclass(frozen=True, slots=True, repr=False)
class Transaction:
    """An endorsed and signed transaction. `envelope` may be kept and submitted again: it commits at most once."""

    gateway: "Gateway"
    channel_name: str
    tx_id: str
    prepared: Prepared
    envelope: bytes

    @property
    def result(self) -> bytes:
        """What the chaincode answered, as endorsed."""
        return self.prepared.result

    async def submit(self) -> "Commit":
        """Hand it to the orderers. Raises SubmitError, whose `outcome` says whether that is proof of failure."""
        request = gateway_pb2.SubmitRequest(
            transaction_id=self.tx_id,
            channel_id=self.channel_name,
            prepared_transaction=common_pb2.Envelope.FromString(self.envelope),
        )
        try:
            await self.gateway.service.Submit(request, timeout=self.gateway.timeouts.submit)
        except grpc.aio.AioRpcError as error:
            raise call_error(SubmitError, error, self.tx_id) from error
        return self.commit

    @property
    def commit(self) -> "Commit":
        """The transaction as something to ask the status of, submitted or not."""
        return Commit(self.gateway, self.channel_name, self.tx_id)


@dataclass(frozen=True, slots=True, repr=False)
class Commit:
    """A transaction by its id, whether or not it was ever submitted."""

    gateway: "Gateway"
    channel_name: str
    tx_id: str

    async def status(self, seconds: float | None = None) -> Status:
        """Wait for the verdict, at most `seconds`; an invalid transaction is an answer. Raises CommitStatusError."""
        identity = self.gateway.identity
        request = gateway_pb2.CommitStatusRequest(
            transaction_id=self.tx_id, channel_id=self.channel_name, identity=identity.creator
        ).SerializeToString()
        signed = gateway_pb2.SignedCommitStatusRequest(request=request, signature=identity.sign(request))
        timeout = self.gateway.timeouts.commit_status if seconds is None else seconds
        try:
            response = await self.gateway.service.CommitStatus(signed, timeout=timeout)
        except grpc.aio.AioRpcError as error:
            raise call_error(CommitStatusError, error, self.tx_id) from error
        return Status(self.tx_id, validation_code_name(response.result), int(response.block_number))

    async def valid(self, seconds: float | None = None) -> Status:
        """As `status`; raises CommitError as well, when the transaction is invalid."""
        status = await self.status(seconds)
        if not status.is_valid:
            raise CommitError(status.tx_id, status.code, status.block_number)
        return status


def _check_size(size: int, limit: int, tx_id: str) -> None:
    if size > limit:
        raise TransactionTooLargeError(f"transaction {tx_id}: about {size} bytes, orderers take {limit}")
