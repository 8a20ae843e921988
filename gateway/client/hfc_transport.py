"""Peers without a Gateway service: the same steps through Hyperledger's older client, hfc (`fabric-sdk-py` 1.0.0).

hfc is in no extra (pyproject.toml says why) and is imported when a transport is opened. What of it does not work with
current libraries is repaired here: its bundled messages need a protobuf that is gone, so `fabric_protos` stands in for
them; its channels come from a library whose calls current stubs do not know, so it gets those of `grpc.aio`. It signs
with our own identity. Its loggers, which write whole proposals, are silenced.

There is no discovery: which peers endorse is the caller's choice.
"""

import asyncio
import importlib
import logging
import os
import secrets
import sys
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any, Final, TypeVar

import grpc
from fabric_protos.common import common_pb2

from gateway.client.channel import Endpoint, NodeChannel
from gateway.client.contract import Committed
from gateway.client.errors import (
    CommitError,
    CommitStatusError,
    EndorseError,
    EvaluateError,
    InvalidRequestError,
    Outcome,
    PeerDetail,
    PreparedTransactionError,
    SubmitError,
    TransportMissingError,
)
from gateway.client.identity import SigningIdentity
from gateway.client.message import check_prepared
from gateway.client.transaction import Status
from network.protocol.errors import DecodeError, ProposalError
from network.protocol.identity import decode_serialized_identity
from network.protocol.proposal import decode_proposal, sign_proposal

_FIRST_REFUSED: Final = 400
_SERVER_ERROR: Final = 500
T = TypeVar("T")
INSTALL: Final = "pip install --no-deps --require-hashes -r requirements/hfc.txt"


@dataclass(frozen=True, slots=True)
class HfcTimeouts:
    """Seconds that a step may take."""

    proposal: float = 30.0
    submit: float = 30.0
    commit: float = 60.0


@dataclass(frozen=True, slots=True)
class HfcTransport:
    """One identity on one channel, at peers and orderers by name. Made by `open_hfc_transport`.

    `client` is hfc's own, with all of these nodes; `user` is what it takes as requestor.
    """

    client: Any
    user: Any
    channel_name: str
    timeouts: HfcTimeouts

    async def evaluate(self, chaincode: str, function: str, *arguments: str | bytes, peer: str) -> bytes:
        """Have one peer run a function; nothing is written. Raises EvaluateError, InvalidRequestError."""
        proposal = self._propose(chaincode, function, arguments, None, [peer])
        (answer,) = await self._answers(proposal)
        if refusal := _refusal(answer):
            raise EvaluateError(*refusal, (), proposal.tx_id)
        return bytes(answer.response.payload)

    async def submit_transaction(
        self,
        chaincode: str,
        function: str,
        *arguments: str | bytes,
        peers: Sequence[str],
        transient: Mapping[str, bytes] | None = None,
    ) -> Committed:
        """Have peers endorse, hand it to an orderer, and wait for the verdict of the first peer.

        Whether these peers satisfy the policies is the verdict's affair. Raises EndorseError when one of them refuses
        or they differ, PreparedTransactionError when what they endorse is not what was proposed (nothing is signed
        then), SubmitError, CommitStatusError, CommitError (invalid), InvalidRequestError.
        """
        proposal = self._propose(chaincode, function, arguments, transient, peers)
        answers = await self._answers(proposal)
        _check_endorsements(proposal, answers)
        payload = _prepare(proposal, answers)
        async with self._watching(proposal.tx_id, peers[0]) as verdict:
            await self._broadcast(proposal, payload)
            status = await verdict()
        if not status.is_valid:
            raise CommitError(status.tx_id, status.code, status.block_number)
        return Committed(bytes(answers[0].response.payload), status, (proposal.tx_id,))

    def _propose(
        self,
        chaincode: str,
        function: str,
        arguments: Sequence[str | bytes],
        transient: Mapping[str, bytes] | None,
        peers: Sequence[str],
    ) -> "_Proposal":
        """Sign a proposal and send it."""
        hfc = import_hfc()
        found = [self.client.get_peer(name) for name in peers]
        if not found or None in found:
            raise InvalidRequestError("peers are named by the names that the transport was opened with, at least one")
        request = hfc.request.create_tx_prop_req(
            prop_type=hfc.request.CC_INVOKE,
            cc_name=chaincode,
            fcn=function,
            args=[argument.encode() if isinstance(argument, str) else argument for argument in arguments],
            transient_map=dict(transient or {}),
        )
        context = hfc.context.create_tx_context(self.user, self.user.cryptoSuite, request)
        calls, message, header = self.client.get_channel(self.channel_name).send_tx_proposal(context, found)
        return _Proposal(context, tuple(peers), calls, message, header)

    async def _answers(self, proposal: "_Proposal") -> list[Any]:
        """Give each peer's answer, in their order; an AioRpcError where a call failed."""
        calls = [asyncio.ensure_future(call) for call in proposal.calls]
        await asyncio.wait(calls, timeout=self.timeouts.proposal)
        for call in calls:
            call.cancel()
        answers = await asyncio.gather(*calls, return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException) and not isinstance(
                answer, (grpc.aio.AioRpcError, asyncio.CancelledError)
            ):
                raise answer
        return answers

    async def _broadcast(self, proposal: "_Proposal", payload: bytes) -> None:
        """Sign the transaction and hand it to one of the orderers; raises SubmitError."""
        envelope = import_hfc().utils.sign_tran_payload(proposal.context, payload)
        stream = secrets.choice(list(self.client.orderers.values())).broadcast(envelope)
        tx_id = proposal.tx_id
        try:
            async with asyncio.timeout(self.timeouts.submit):
                answer = await stream.read()
        except TimeoutError as error:
            raise SubmitError("DEADLINE_EXCEEDED", "no orderer answered in time", (), tx_id) from error
        except grpc.aio.AioRpcError as error:
            raise SubmitError(error.code().name, error.details() or "", (), tx_id) from error
        finally:
            stream.cancel()
        if answer is grpc.aio.EOF:
            raise SubmitError("UNAVAILABLE", "the orderer ended the stream without an answer", (), tx_id)
        if answer.status != common_pb2.SUCCESS:
            name = common_pb2.Status.Name(answer.status)
            words = f"received unsuccessful response from orderer: status={name}, info={answer.info}"
            raise SubmitError("ABORTED", words, (), tx_id)

    @asynccontextmanager
    async def _watching(self, tx_id: str, peer: str) -> AsyncIterator[Callable[[], Awaitable[Status]]]:
        """Read a peer's filtered blocks, from before anything is ordered; gives what waits for the verdict.

        Both raise CommitStatusError when the blocks do not come; on entry nothing was ordered, and it says so.
        """
        # Not by its channel's own call, which would keep every hub for ever.
        hub = import_hfc().events.ChannelEventHub(self.client.get_peer(peer), self.channel_name, self.user)
        loop = asyncio.get_running_loop()
        begun: asyncio.Future[bool] = loop.create_future()
        verdict: asyncio.Future[Status] = loop.create_future()
        hub.registerBlockEvent(unregister=True, onEvent=lambda _: begun.set_result(True))
        hub.registerTxEvent(
            tx_id, unregister=True, onEvent=lambda _, code, number: verdict.set_result(Status(tx_id, code, int(number)))
        )
        reading = asyncio.ensure_future(hub.connect())

        async def come(future: asyncio.Future[T], outcome: Outcome) -> T:
            await asyncio.wait([reading, future], timeout=self.timeouts.commit, return_when=asyncio.FIRST_COMPLETED)
            if future.done():
                return future.result()
            code, words = "DEADLINE_EXCEEDED", "the peer's blocks did not have it in time"
            if reading.done():
                code, words = "UNAVAILABLE", "the peer ended the stream of blocks"
                failure = None if reading.cancelled() else reading.exception()
                if isinstance(failure, grpc.aio.AioRpcError):
                    code, words = failure.code().name, failure.details() or ""
            error = CommitStatusError(code, words, (), tx_id)
            error.outcome = outcome
            raise error

        try:
            await come(begun, "not_applied")  # the newest block, which is sent at once
            yield lambda: come(verdict, "unknown")
        finally:
            reading.cancel()
            await asyncio.wait([reading])


@dataclass(frozen=True, slots=True)
class _Proposal:
    context: Any
    peers: tuple[str, ...]
    calls: Sequence[Any]
    message: Any
    header: Any

    @property
    def tx_id(self) -> str:
        return str(self.context.tx_id)


def _check_endorsements(proposal: _Proposal, answers: Sequence[Any]) -> None:
    """Raise EndorseError when a peer refused, or when they endorse different results."""
    details = []
    for name, answer in zip(proposal.peers, answers, strict=True):
        if refusal := _refusal(answer):
            details.append(PeerDetail(name, "", refusal[1]))
        elif answer.payload != answers[0].payload:
            details.append(PeerDetail(name, "", "ProposalResponsePayloads do not match"))
    if details:
        raise EndorseError(
            "ABORTED", "failed to collect enough transaction endorsements", tuple(details), proposal.tx_id
        )


def _prepare(proposal: _Proposal, answers: Sequence[Any]) -> bytes:
    """Give the payload of the transaction, after the checks of every client; raises PreparedTransactionError."""
    hfc = import_hfc()
    request = hfc.utils.build_tx_req((answers, proposal.message, proposal.header))
    payload = bytes(hfc.messages.create_tx_payload([answer.endorsement for answer in answers], request))
    try:
        check_prepared(payload, decode_proposal(sign_proposal(proposal.message.SerializeToString(), b"")), ())
    except (DecodeError, ProposalError) as error:
        raise PreparedTransactionError(str(error), proposal.tx_id) from error
    return payload


def _refusal(answer: Any) -> tuple[str, str] | None:  # noqa: ANN401  # a message of hfc's, or what its call ended in
    """Give code and words of an answer that is no endorsement, as a Gateway service does."""
    if isinstance(answer, grpc.aio.AioRpcError):
        return answer.code().name, answer.details() or ""
    if isinstance(answer, asyncio.CancelledError):
        return "DEADLINE_EXCEEDED", "the peer did not answer in time"
    response = answer.response
    if response.status < _FIRST_REFUSED:
        return None
    if response.status == _SERVER_ERROR and not answer.payload:
        return "ABORTED", response.message
    return "UNKNOWN", f"chaincode response {response.status}, {response.message}"


@asynccontextmanager
async def open_hfc_transport(
    identity: SigningIdentity,
    channel_name: str,
    *,
    peers: Mapping[str, Endpoint],
    orderers: Mapping[str, Endpoint],
    timeouts: HfcTimeouts | None = None,
) -> AsyncIterator[HfcTransport]:
    """Open a transport to nodes by name; connections are verified TLS, as everywhere here.

    Raises TransportMissingError when hfc is not installed, CredentialError.
    """
    hfc = import_hfc()
    client = hfc.client.Client()
    client.new_channel(channel_name)
    async with AsyncExitStack() as stack:
        for kind, nodes, endpoints in (
            (hfc.peer.Peer, client.peers, peers),
            (hfc.orderer.Orderer, client.orderers, orderers),
        ):
            for name, endpoint in endpoints.items():
                channel = await stack.enter_async_context(NodeChannel(endpoint))
                nodes[name] = kind(name=name, endpoint=channel.grpc)
        yield HfcTransport(client, _user(identity), channel_name, timeouts or HfcTimeouts())


def _user(identity: SigningIdentity) -> Any:  # noqa: ANN401  # what hfc asks of a user and of its signatures, and no more
    crypto = SimpleNamespace(
        generate_nonce=secrets.token_bytes, hash=sha256, sign=lambda _, message: identity.sign(message)
    )
    certificate = decode_serialized_identity(identity.creator).id_bytes
    enrollment = SimpleNamespace(cert=certificate, private_key=None)
    msp_id = identity.msp_id
    return SimpleNamespace(msp_id=msp_id, org=msp_id, enrollment=enrollment, cryptoSuite=crypto)


# --- the repairs


class _Messages(MetaPathFinder, Loader):
    """Imports `hfc.protos.X_pb2` as `fabric_protos.X_pb2`: one process can hold only one set of these messages."""

    def find_spec(self, fullname: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:  # noqa: ANN401
        del path, target
        is_message = fullname.startswith("hfc.protos.") and fullname.endswith(("_pb2", "_pb2_grpc"))
        return ModuleSpec(fullname, self) if is_message else None

    def exec_module(self, module: ModuleType) -> None:
        current = importlib.import_module(f"fabric_protos.{module.__name__.removeprefix('hfc.protos.')}")
        vars(module).update({name: value for name, value in vars(current).items() if not name.startswith("__")})


@cache
def import_hfc() -> Any:  # noqa: ANN401  # modules without types
    """Import hfc, once, and mend it: its modules by what they hold. Raises TransportMissingError."""
    environment = dict(os.environ)
    sys.meta_path.insert(0, _Messages())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its time: escapes in texts, names that libraries gave up
            hfc = SimpleNamespace(
                client=importlib.import_module("hfc.fabric.client"),
                events=importlib.import_module("hfc.fabric.channel.channel_eventhub"),
                blocks=importlib.import_module("hfc.fabric.block_decoder"),
                context=importlib.import_module("hfc.fabric.transaction.tx_context"),
                messages=importlib.import_module("hfc.protos.utils"),
                orderer=importlib.import_module("hfc.fabric.orderer"),
                peer=importlib.import_module("hfc.fabric.peer"),
                request=importlib.import_module("hfc.fabric.transaction.tx_proposal_request"),
                utils=importlib.import_module("hfc.util.utils"),
            )
    except ModuleNotFoundError as error:
        raise TransportMissingError(f"hfc cannot be imported ({error.name} is missing): {INSTALL}") from error
    finally:
        del sys.meta_path[0]
        _restore(environment)  # it sets ciphers for every connection of the process
    # Its nodes are given an open channel where they expect an address.
    hfc.peer.create_grpc_channel = hfc.orderer.create_grpc_channel = lambda channel, *_: channel
    for name, logger in logging.root.manager.loggerDict.items():
        if name.partition(".")[0] == "hfc" and isinstance(logger, logging.Logger):
            logger.handlers.clear()
            logger.setLevel(logging.CRITICAL + 1)
    return hfc


def _restore(environment: Mapping[str, str]) -> None:
    for name in [name for name in os.environ if name not in environment]:
        del os.environ[name]
    os.environ.update(environment)
