"""A chaincode server that does what a test tells it, right or wrong, over the real chaincode stream."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NamedTuple, Self

import grpc
from fabric_protos.peer import (
    chaincode_event_pb2,
    chaincode_pb2,
    chaincode_shim_pb2,
    chaincode_shim_pb2_grpc,
    proposal_pb2,
    proposal_response_pb2,
)

from tests.support.tls_credential import TlsAuthority

Message = chaincode_shim_pb2.ChaincodeMessage
_MAX_BYTES = 100 * 1024 * 1024
OPTIONS = [
    ("grpc.max_receive_message_length", _MAX_BYTES),
    ("grpc.max_send_message_length", _MAX_BYTES),
    ("grpc.http2.min_ping_interval_without_data_ms", 60_000),
    ("grpc.keepalive_permit_without_calls", 1),
]


class PeerError(Exception):
    """The peer answered a request with ERROR."""


class Answered(NamedTuple):
    """What a transaction answers; `event` is a name and a payload."""

    status: int = 200
    payload: bytes = b""
    message: str = ""
    event: tuple[str, bytes] | None = None


class RunningTransaction:
    """One transaction as the chaincode sees it."""

    def __init__(self, message: Any, send: Callable[[Any], None]) -> None:
        self.message = message
        self.tx_id: str = message.txid
        self.is_init = message.type == Message.INIT
        self.arguments = list(chaincode_pb2.ChaincodeInput.FromString(message.payload).args)
        self.replies: asyncio.Queue[Any] = asyncio.Queue()
        self._send = send

    @property
    def transient(self) -> dict[str, bytes]:
        """Give the transient data of the proposal that came along."""
        proposal = proposal_pb2.Proposal.FromString(self.message.proposal.proposal_bytes)
        return dict(proposal_pb2.ChaincodeProposalPayload.FromString(proposal.payload).TransientMap)

    def send(self, kind: int, payload: bytes = b"", *, tx_id: str | None = None) -> None:
        """Send any message of this transaction, without waiting for a reply."""
        message = Message(type=kind, payload=payload, channel_id=self.message.channel_id)
        message.txid = self.tx_id if tx_id is None else tx_id
        self._send(message)

    async def ask(self, kind: int, request: Any = None) -> bytes:
        """Send a request and give the payload of its RESPONSE; raises PeerError with the text of an ERROR."""
        self.send(kind, b"" if request is None else request.SerializeToString())
        reply = await self.replies.get()
        if reply.type == Message.ERROR:
            raise PeerError(reply.payload.decode())
        return bytes(reply.payload)

    async def get(self, key: str, collection: str = "") -> bytes:
        """Read a key."""
        return await self.ask(Message.GET_STATE, chaincode_shim_pb2.GetState(key=key, collection=collection))

    async def put(self, key: str, value: bytes, collection: str = "") -> None:
        """Write a key."""
        await self.ask(Message.PUT_STATE, chaincode_shim_pb2.PutState(key=key, value=value, collection=collection))


Script = Callable[[RunningTransaction], Awaitable[Answered | None]]
"""What a transaction does; None: it never answers."""


class ScriptedChaincode(chaincode_shim_pb2_grpc.ChaincodeServicer):  # type: ignore[misc]  # generated without types
    """A chaincode server on a port of the kernel's choice; use it as an asynchronous context."""

    def __init__(
        self,
        package_id: str,
        script: Script,
        *,
        authority: TlsAuthority | None = None,
        address: str = "127.0.0.1:0",
        first_message: Any = None,
    ) -> None:
        self.package_id = package_id
        self.streams = 0
        """Streams opened so far."""
        self.received: list[Any] = []
        """Every message of the peer's, in order."""
        self.address = address
        self._script = script
        self._authority = authority
        self._first_message = first_message
        self._server: grpc.aio.Server | None = None
        self._outgoing: asyncio.Queue[Any] = asyncio.Queue()

    async def __aenter__(self) -> Self:
        """Start the server; `address` then has its port."""
        self._server = grpc.aio.server(options=OPTIONS)
        chaincode_shim_pb2_grpc.add_ChaincodeServicer_to_server(self, self._server)
        if self._authority is None:
            port = self._server.add_insecure_port(self.address)
        else:
            own = self._authority.issue("chaincode")
            credentials = grpc.ssl_server_credentials(
                [(own.key, own.certificate)], self._authority.certificate, require_client_auth=True
            )
            port = self._server.add_secure_port(self.address, credentials)
        self.address = f"127.0.0.1:{port}"
        await self._server.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """End the server."""
        await self.stop()

    async def stop(self) -> None:
        """End the server with every stream on it, at once."""
        if self._server is not None:
            await self._server.stop(None)
            self._server = None

    def say(self, message: Any) -> None:
        """Send a message that belongs to no transaction."""
        self._outgoing.put_nowait(message)

    async def Connect(  # noqa: N802  # the name of the service's method
        self, request_iterator: AsyncIterator[Any], context: Any
    ) -> None:
        """Serve one stream."""
        self.streams += 1
        outgoing = self._outgoing = asyncio.Queue()
        register = Message(
            type=Message.REGISTER, payload=chaincode_pb2.ChaincodeID(name=self.package_id).SerializeToString()
        )
        outgoing.put_nowait(self._first_message or register)

        async def write() -> None:
            while True:
                await context.write(await outgoing.get())

        writer = asyncio.create_task(write())
        running: dict[tuple[str, str], RunningTransaction] = {}
        tasks: set[asyncio.Task[None]] = set()
        try:
            async for message in request_iterator:
                self.received.append(message)
                key = (message.channel_id, message.txid)
                if message.type in (Message.TRANSACTION, Message.INIT):
                    running[key] = RunningTransaction(message, outgoing.put_nowait)
                    task = asyncio.create_task(self._run(running[key]))
                    tasks.add(task)
                    task.add_done_callback(tasks.discard)
                elif message.type in (Message.RESPONSE, Message.ERROR) and key in running:
                    running[key].replies.put_nowait(message)
        finally:
            for task in [writer, *tasks]:
                task.cancel()
            await asyncio.gather(writer, *tasks, return_exceptions=True)

    async def _run(self, transaction: RunningTransaction) -> None:
        answered = await self._script(transaction)
        if answered is None:
            return
        response = proposal_response_pb2.Response(
            status=answered.status, message=answered.message, payload=answered.payload
        )
        message = Message(
            type=Message.COMPLETED,
            payload=response.SerializeToString(),
            txid=transaction.tx_id,
            channel_id=transaction.message.channel_id,
        )
        if answered.event is not None:
            name, payload = answered.event
            message.chaincode_event.CopyFrom(chaincode_event_pb2.ChaincodeEvent(event_name=name, payload=payload))
        transaction._send(message)  # noqa: SLF001  # the two are one double
