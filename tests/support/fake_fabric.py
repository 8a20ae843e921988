"""A peer and an orderer that answer what a test scripts, over real sockets with TLS: the client's counterpart.

By default it endorses, orders and commits everything, one transaction per block, without any rule.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import grpc
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from fabric_protos.common import common_pb2, ledger_pb2
from fabric_protos.gateway import gateway_pb2, gateway_pb2_grpc
from fabric_protos.orderer import ab_pb2, ab_pb2_grpc
from fabric_protos.peer import (
    chaincode_pb2,
    events_pb2,
    peer_pb2_grpc,
    proposal_pb2,
    proposal_response_pb2,
    transaction_pb2,
)
from google.protobuf import any_pb2
from google.rpc import status_pb2  # type: ignore[import-untyped]  # ships no types

from gateway.client.channel import Endpoint, NodeChannel
from gateway.client.gateway import Chance, Gateway, Timeouts
from gateway.client.identity import SigningIdentity
from tests.support.credential import START, Authority, Credential, root_authority
from tests.support.tls_credential import TlsAuthority

NOW = START.timestamp() + 3600
_LIMIT = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


@dataclass
class RefusalError(Exception):
    """A gRPC status to answer, with details per peer: (address, MSP id, message)."""

    code: grpc.StatusCode
    message: str = ""
    details: tuple[tuple[str, str, str], ...] = ()

    async def abort(self, context: Any) -> None:
        """End the call so."""
        packed = []
        for address, msp_id, message in self.details:
            detail = any_pb2.Any()
            detail.Pack(gateway_pb2.ErrorDetail(address=address, msp_id=msp_id, message=message))
            packed.append(detail)
        status = status_pb2.Status(code=self.code.value[0], message=self.message, details=packed)
        metadata = (("grpc-status-details-bin", status.SerializeToString()),) if packed else ()
        await context.abort(self.code, self.message, metadata)


Script = Callable[[Any], Any]


@dataclass
class FakeFabric:
    """What was asked, and the answers in line: each an exception to raise or a function of the request."""

    endorser: Credential
    asked: list[tuple[str, Any]] = field(default_factory=list)
    scripts: dict[str, list[RefusalError | Script]] = field(default_factory=dict)
    verdicts: list[int] = field(default_factory=list)
    committed: dict[str, tuple[int, int]] = field(default_factory=dict)
    deliver: Callable[[Any], AsyncIterator[bytes]] | None = None
    events: Callable[[Any], AsyncIterator[Any]] | None = None
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    address: str = ""

    def answer(self, step: str, *answers: RefusalError | Script) -> None:
        """Line up answers for a step; after them it answers as it does by default."""
        self.scripts.setdefault(step, []).extend(answers)

    def requests(self, step: str) -> list[Any]:
        """Give what a step was asked."""
        return [request for name, request in self.asked if name == step]

    async def call(self, step: str, request: Any, context: Any, default: Script) -> Any:
        """Record a request and answer it."""
        self.asked.append((step, request))
        lined_up = self.scripts.get(step)
        script = lined_up.pop(0) if lined_up else default
        if isinstance(script, RefusalError):
            await script.abort(context)
            return None
        answer = script(request)
        return await answer if isinstance(answer, Awaitable) else answer

    def prepared(self, request: Any, result: bytes = b"endorsed") -> Any:
        """Endorse a proposal and give the EndorseResponse, as the Gateway service writes it."""
        proposal = proposal_pb2.Proposal.FromString(request.proposed_transaction.proposal_bytes)
        header = common_pb2.Header.FromString(proposal.header)
        content = proposal_pb2.ChaincodeProposalPayload.FromString(proposal.payload)
        stripped = proposal_pb2.ChaincodeProposalPayload(input=content.input).SerializeToString()
        invoked = chaincode_pb2.ChaincodeInvocationSpec.FromString(content.input).chaincode_spec.chaincode_id
        response = proposal_response_pb2.ProposalResponsePayload(
            proposal_hash=sha256(header.channel_header + header.signature_header + stripped).digest(),
            extension=proposal_pb2.ChaincodeAction(
                response=proposal_response_pb2.Response(status=200, payload=result), chaincode_id=invoked
            ).SerializeToString(),
        ).SerializeToString()
        endorsement = proposal_response_pb2.Endorsement(
            endorser=self.endorser.serialized, signature=self.endorser.sign(response + self.endorser.serialized)
        )
        action = transaction_pb2.ChaincodeActionPayload(
            chaincode_proposal_payload=stripped,
            action=transaction_pb2.ChaincodeEndorsedAction(
                proposal_response_payload=response, endorsements=[endorsement]
            ),
        ).SerializeToString()
        transaction = transaction_pb2.Transaction(
            actions=[transaction_pb2.TransactionAction(header=header.signature_header, payload=action)]
        ).SerializeToString()
        payload = common_pb2.Payload(header=header, data=transaction).SerializeToString()
        return gateway_pb2.EndorseResponse(prepared_transaction=common_pb2.Envelope(payload=payload))

    def commit(self, request: Any) -> Any:
        """Commit what is submitted, with the next verdict in line."""
        verdict = self.verdicts.pop(0) if self.verdicts else 0
        self.committed.setdefault(request.transaction_id, (verdict, len(self.committed) + 1))
        return gateway_pb2.SubmitResponse()


class _Gateway(gateway_pb2_grpc.GatewayServicer):  # type: ignore[misc]  # generated without types
    def __init__(self, fabric: FakeFabric) -> None:
        self._fabric = fabric

    async def Evaluate(self, request: Any, context: Any) -> Any:  # noqa: N802
        def default(_: Any) -> Any:
            payload = ledger_pb2.BlockchainInfo(height=7).SerializeToString()
            return gateway_pb2.EvaluateResponse(result=proposal_response_pb2.Response(status=200, payload=payload))

        return await self._fabric.call("evaluate", request, context, default)

    async def Endorse(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await self._fabric.call("endorse", request, context, self._fabric.prepared)

    async def Submit(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await self._fabric.call("submit", request, context, self._fabric.commit)

    async def CommitStatus(self, request: Any, context: Any) -> Any:  # noqa: N802
        async def default(signed: Any) -> Any:
            tx_id = gateway_pb2.CommitStatusRequest.FromString(signed.request).transaction_id
            if tx_id not in self._fabric.committed:
                await asyncio.Event().wait()  # as a peer does: only the client's deadline ends it
            result, number = self._fabric.committed[tx_id]
            return gateway_pb2.CommitStatusResponse(result=result, block_number=number)

        return await self._fabric.call("commit_status", request, context, default)

    async def ChaincodeEvents(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        asked = gateway_pb2.ChaincodeEventsRequest.FromString(request.request)
        self._fabric.asked += [("events", asked), ("signed events", request)]
        try:
            if self._fabric.events is not None:
                async for response in self._fabric.events(asked):
                    yield response
        except RefusalError as refusal:
            await refusal.abort(context)
        except (asyncio.CancelledError, GeneratorExit):  # the latter where it was about to send
            self._fabric.cancelled.set()
            raise


class _Endorser(peer_pb2_grpc.EndorserServicer):  # type: ignore[misc]  # generated without types
    def __init__(self, fabric: FakeFabric) -> None:
        self._fabric = fabric

    async def ProcessProposal(self, request: Any, context: Any) -> Any:  # noqa: N802
        def default(_: Any) -> Any:
            payload = ledger_pb2.BlockchainInfo(height=7).SerializeToString()
            response = proposal_response_pb2.Response(status=200, payload=payload)
            return proposal_response_pb2.ProposalResponse(response=response)

        return await self._fabric.call("endorser", request, context, default)


class _Orderer(ab_pb2_grpc.AtomicBroadcastServicer):  # type: ignore[misc]  # generated without types
    def __init__(self, fabric: FakeFabric) -> None:
        self._fabric = fabric

    async def Broadcast(self, requests: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        async for request in requests:
            yield await self._fabric.call(
                "broadcast", request, context, lambda _: ab_pb2.BroadcastResponse(status=common_pb2.SUCCESS)
            )


def _deliver_handler(fabric: FakeFabric, step: str) -> Any:
    async def deliver(requests: Any, context: Any) -> AsyncIterator[bytes]:
        try:
            async for request in requests:
                fabric.asked.append((step, common_pb2.Envelope.FromString(request)))
                if fabric.deliver is not None:
                    try:
                        async for content in fabric.deliver(request):
                            yield content
                    except RefusalError as refusal:
                        await refusal.abort(context)
        except (asyncio.CancelledError, GeneratorExit):  # the latter where it was about to send
            fabric.cancelled.set()
            raise

    return grpc.stream_stream_rpc_method_handler(deliver)


def status_response(status: int) -> bytes:
    """Give the DeliverResponse with a status."""
    return bytes(events_pb2.DeliverResponse(status=status).SerializeToString())


@dataclass(frozen=True)
class Member:
    """An organisation's CA, a user of it, and how to reach the fake."""

    authority: Authority
    identity: SigningIdentity
    endpoint: Endpoint


@asynccontextmanager
async def running_fabric() -> AsyncIterator[tuple[FakeFabric, Member]]:
    """Run the fake on a port the kernel chooses."""
    root, tls = root_authority("OrgMSP"), TlsAuthority()
    fabric = FakeFabric(root.issue("peer0", ("peer",)))
    server_certificate = tls.issue("peer0")
    server = grpc.aio.server(options=_LIMIT)
    gateway_pb2_grpc.add_GatewayServicer_to_server(_Gateway(fabric), server)
    peer_pb2_grpc.add_EndorserServicer_to_server(_Endorser(fabric), server)
    ab_pb2_grpc.add_AtomicBroadcastServicer_to_server(_Orderer(fabric), server)
    methods = ("Deliver", "DeliverFiltered", "DeliverWithPrivateData")
    handlers = {name: _deliver_handler(fabric, name) for name in methods}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("protos.Deliver", handlers),))
    credentials = grpc.ssl_server_credentials([(server_certificate.key, server_certificate.certificate)])
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    fabric.address = f"127.0.0.1:{port}"
    try:
        user = root.issue("user")
        yield fabric, Member(root, identity_of(user), Endpoint(fabric.address, tls.certificate))
    finally:
        await server.stop(None)


def key_pem(credential: Credential) -> bytes:
    """Give a credential's key in PEM."""
    return credential.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def identity_of(credential: Credential) -> SigningIdentity:
    """Give the signing identity of a credential."""
    return SigningIdentity.from_pem(credential.msp_id, credential.pem, key_pem(credential), clock=lambda: NOW)


@asynccontextmanager
async def connected(timeouts: Timeouts | None = None) -> AsyncIterator[tuple[FakeFabric, Gateway, list[float]]]:
    """Run the fake with a gateway on it; the list holds the pauses, none of which is slept."""
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    async with running_fabric() as (fabric, member), NodeChannel(member.endpoint) as channel:
        chance = Chance(jitter=lambda: 0.0, sleep=sleep)
        yield fabric, Gateway(member.identity, channel, timeouts or Timeouts(), chance), pauses
