"""The peer's half of the chaincode protocol: one stream to each chaincode server, many transactions on it.

Messages: `peer/chaincode_shim.proto`. Rules: `core/chaincode/{handler,chaincode_support,runtime_launcher,
handler_registry}.go`, `core/chaincode/extcc/extcc_handler.go`. What a request means for the state is not decided
here: each transaction brings a conversation that answers them.

Unlike a real peer, which waits five minutes for a server that registers under another package id, this one fails at
once, in the same words, and logs what happened.
"""

import asyncio
import logging
from typing import Any, Final, NamedTuple

import grpc
from fabric_protos.peer import (
    chaincode_pb2,
    chaincode_shim_pb2,
)

from network.embedded.ledger.chaincode import (
    ChaincodeCall,
    ChaincodeError,
    ChaincodeResult,
    Conversation,
    RequestRefusedError,
)
from network.embedded.services.chaincode_connection import ChaincodeConnection
from network.embedded.services.rpc import CHAINCODE_CHANNEL_OPTIONS
from network.protocol.errors import DecodeError
from network.protocol.wire import parse

logger = logging.getLogger(__name__)

_Call = grpc.aio.StreamStreamCall[Any, Any]
Message = chaincode_shim_pb2.ChaincodeMessage
Type = chaincode_shim_pb2.ChaincodeMessage.Type

CONNECT: Final = "/protos.Chaincode/Connect"
EXECUTE_TIMEOUT_SECONDS: Final = 30.0
STARTUP_TIMEOUT_SECONDS: Final = 10.0
"""From the open connection to REGISTER. A real peer waits 300 s; nobody wants that while developing."""
STREAM_TERMINATED: Final = "chaincode stream terminated"

_REQUESTS: Final = frozenset(
    (
        Message.GET_STATE,
        Message.GET_STATE_MULTIPLE,
        Message.PUT_STATE,
        Message.DEL_STATE,
        Message.PURGE_PRIVATE_DATA,
        Message.GET_PRIVATE_DATA_HASH,
        Message.GET_STATE_METADATA,
        Message.PUT_STATE_METADATA,
        Message.WRITE_BATCH_STATE,
        Message.GET_STATE_BY_RANGE,
        Message.GET_QUERY_RESULT,
        Message.GET_HISTORY_FOR_KEY,
        Message.QUERY_STATE_NEXT,
        Message.QUERY_STATE_CLOSE,
        Message.INVOKE_CHAINCODE,
    )
)


class RuntimeParameters(NamedTuple):
    """What the peer offers chaincode servers (`chaincode.runtimeParams`); older peers offer neither."""

    use_write_batch: bool = True
    max_size_write_batch: int = 1000
    use_get_multiple_keys: bool = True
    max_size_get_multiple_keys: int = 1000


class _Running:
    def __init__(self, conversation: Conversation) -> None:
        self.conversation = conversation
        self.answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.request: asyncio.Task[None] | None = None


class ChaincodeStream:
    """A registered stream. Made by `connect`."""

    def __init__(self, package_id: str, channel: grpc.aio.Channel, call: _Call) -> None:
        self.package_id = package_id
        self._channel = channel
        self._call = call
        self._running: dict[tuple[str, str], _Running] = {}
        # One writer: a gRPC call takes one message at a time, and a cancelled write would cancel the whole stream.
        self._outgoing: asyncio.Queue[Any] = asyncio.Queue()
        self._tasks = [asyncio.create_task(self._write()), asyncio.create_task(self._read())]
        self.ended = asyncio.Event()

    async def execute(
        self, call: ChaincodeCall, conversation: Conversation, timeout_seconds: float = EXECUTE_TIMEOUT_SECONDS
    ) -> ChaincodeResult:
        """Run one transaction, which does not run here already; raises ChaincodeError."""
        key = (call.channel_id, call.tx_id)
        if self.ended.is_set():
            raise ChaincodeError(f"error sending: {STREAM_TERMINATED}")
        running = self._running[key] = _Running(conversation)
        try:
            message = Message(
                type=Message.INIT if call.is_init else Message.TRANSACTION,
                payload=call.chaincode_input.SerializeToString(),
                txid=call.tx_id,
                channel_id=call.channel_id,
            )
            if call.proposal is not None:
                message.proposal.CopyFrom(call.proposal)
            self._outgoing.put_nowait(message)
            async with asyncio.timeout(timeout_seconds):
                answer = await running.answer
        except TimeoutError:
            raise ChaincodeError("error sending: timeout expired while executing transaction") from None
        finally:
            del self._running[key]
            if running.request is not None:
                running.request.cancel()
        if answer is None:
            raise ChaincodeError(f"error sending: {STREAM_TERMINATED}")
        event = answer.chaincode_event if answer.HasField("chaincode_event") else None
        return ChaincodeResult(answer.payload, event, answer.type == Message.ERROR)

    async def close(self) -> None:
        """End the stream and its connection."""
        self._call.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._end()
        await self._channel.close()

    async def _write(self) -> None:
        try:
            while True:
                await self._call.write(await self._outgoing.get())
        except (grpc.RpcError, asyncio.InvalidStateError):
            self._end()

    async def _read(self) -> None:
        try:
            while isinstance(content := await self._call.read(), bytes):
                if not self._take(parse(Message, content, "ChaincodeMessage")):
                    break
        except grpc.RpcError:
            pass  # the server is gone; whoever waits is told so below
        except DecodeError:
            logger.warning("chaincode_message_unreadable", extra={"package_id": self.package_id})
        finally:
            self._end()

    def _take(self, message: chaincode_shim_pb2.ChaincodeMessage) -> bool:
        """Handle one message; False ends the stream."""
        kind = message.type
        if kind == Message.KEEPALIVE:
            return True
        running = self._running.get((message.channel_id, message.txid))
        if kind in (Message.COMPLETED, Message.ERROR):
            if running is not None and not running.answer.done():
                running.answer.set_result(message)
            return True  # late answers are dropped
        if kind not in _REQUESTS:
            logger.warning("chaincode_message_refused", extra={"package_id": self.package_id, "message_type": kind})
            return False
        if running is None:
            self._refuse(message, "no ledger context")
        elif running.request is None or running.request.done():
            running.request = asyncio.create_task(self._serve(message, running.conversation))
        else:  # a real peer does not answer it either, ever
            logger.warning("chaincode_request_dropped", extra={"tx_id": message.txid, "message_type": kind})
        return True

    async def _serve(self, message: chaincode_shim_pb2.ChaincodeMessage, conversation: Conversation) -> None:
        try:
            payload = await conversation.answer(message.type, message.payload)
        except RequestRefusedError as error:
            self._refuse(message, str(error))
        except DecodeError as error:
            self._refuse(message, f"unmarshal failed: {error}")
        else:
            self._reply(message, Message.RESPONSE, payload)

    def _refuse(self, message: chaincode_shim_pb2.ChaincodeMessage, why: str) -> None:
        text = f"{Type.Name(message.type)} failed: transaction ID: {message.txid}: {why}"
        self._reply(message, Message.ERROR, text.encode())

    def _reply(self, message: chaincode_shim_pb2.ChaincodeMessage, kind: int, payload: bytes) -> None:
        self._outgoing.put_nowait(Message(type=kind, payload=payload, txid=message.txid, channel_id=message.channel_id))

    def _end(self) -> None:
        """Tell every waiting transaction that no answer will come."""
        self.ended.set()
        for running in self._running.values():
            if not running.answer.done():
                running.answer.set_result(None)


async def connect(
    package_id: str,
    connection: ChaincodeConnection,
    parameters: RuntimeParameters,
    startup_timeout_seconds: float = STARTUP_TIMEOUT_SECONDS,
) -> ChaincodeStream:
    """Dial a chaincode server and take its registration; raises ChaincodeError: the words behind "could not launch".

    Fails at once when nobody listens; otherwise within the connection's dial timeout.
    """
    channel = _channel(connection)
    # Messages are read here, not by gRPC, which would hand on nothing in place of bytes that are none.
    call: _Call = channel.stream_stream(CONNECT, request_serializer=Message.SerializeToString)()
    try:
        await _dial(package_id, connection, call)
        await _register(package_id, call, parameters, startup_timeout_seconds)
    except BaseException:
        call.cancel()
        await channel.close()
        raise
    return ChaincodeStream(package_id, channel, call)


def _channel(connection: ChaincodeConnection) -> grpc.aio.Channel:
    if not connection.tls_required:
        return grpc.aio.insecure_channel(connection.address, options=CHAINCODE_CHANNEL_OPTIONS)
    credentials = grpc.ssl_channel_credentials(
        connection.root_certificates, connection.client_key or None, connection.client_certificate or None
    )
    return grpc.aio.secure_channel(connection.address, credentials, options=CHAINCODE_CHANNEL_OPTIONS)


async def _dial(package_id: str, connection: ChaincodeConnection, call: _Call) -> None:
    try:
        async with asyncio.timeout(connection.dial_timeout_seconds):
            await call.wait_for_connection()
    except TimeoutError as error:
        raise _not_dialled(package_id, connection, "context deadline exceeded") from error
    except grpc.aio.AioRpcError as error:
        why = error.details() or error.code().name
        if "Connection refused" in why:  # in the words of Go's library, as every client of Fabric knows them
            refused = f"dial tcp {connection.address}: connect: connection refused"
            why = f'connection error: desc = "transport: error while dialing: {refused}"'
        raise _not_dialled(package_id, connection, why) from error


def _not_dialled(package_id: str, connection: ChaincodeConnection, why: str) -> ChaincodeError:
    return ChaincodeError(
        f"connection to {package_id} failed: error cannot create connection for {package_id}: "
        f"error creating grpc connection to {connection.address}: failed to create new connection: {why}"
    )


async def _register(
    package_id: str, call: _Call, parameters: RuntimeParameters, startup_timeout_seconds: float
) -> None:
    expired = ChaincodeError(f"timeout expired while starting chaincode {package_id} for transaction")
    try:
        async with asyncio.timeout(startup_timeout_seconds):
            message = Message(type=Message.KEEPALIVE)
            while message.type == Message.KEEPALIVE:
                content = await call.read()
                if not isinstance(content, bytes):
                    raise ChaincodeError(f"connection to {package_id} failed: {STREAM_TERMINATED}")
                message = parse(Message, content, "ChaincodeMessage")
            if message.type != Message.REGISTER:
                logger.warning("chaincode_not_registered", extra={"package_id": package_id, "type": message.type})
                raise expired
            registered = parse(chaincode_pb2.ChaincodeID, message.payload, "ChaincodeID").name
            if registered != package_id:
                logger.warning("chaincode_is_another", extra={"package_id": package_id, "registered": registered})
                raise expired
            await call.write(Message(type=Message.REGISTERED))
            ready = chaincode_pb2.ChaincodeAdditionalParams(**parameters._asdict())
            await call.write(Message(type=Message.READY, payload=ready.SerializeToString()))
    except (TimeoutError, DecodeError) as error:
        raise expired from error
    except (grpc.aio.AioRpcError, asyncio.InvalidStateError) as error:
        raise ChaincodeError(f"connection to {package_id} failed: {STREAM_TERMINATED}") from error


class ChaincodeLauncher:
    """The streams of one peer: at most one per package id, opened by the first transaction that needs it."""

    def __init__(
        self,
        parameters: RuntimeParameters | None = None,
        *,
        execute_timeout_seconds: float = EXECUTE_TIMEOUT_SECONDS,
        startup_timeout_seconds: float = STARTUP_TIMEOUT_SECONDS,
    ) -> None:
        self._parameters = parameters or RuntimeParameters()
        self._execute_timeout_seconds = execute_timeout_seconds
        self._startup_timeout_seconds = startup_timeout_seconds
        self._streams: dict[str, ChaincodeStream] = {}
        self._launches: dict[str, asyncio.Task[ChaincodeStream]] = {}

    async def execute(
        self, package_id: str, connection: ChaincodeConnection, call: ChaincodeCall, conversation: Conversation
    ) -> ChaincodeResult:
        """Run one transaction on the package's server, dialling it when there is no stream; raises ChaincodeError."""
        stream = await self._stream(package_id, connection)
        return await stream.execute(call, conversation, self._execute_timeout_seconds)

    async def close(self) -> None:
        """End every stream."""
        launches, self._launches = list(self._launches.values()), {}
        for launch in launches:
            launch.cancel()
        await asyncio.gather(*launches, return_exceptions=True)
        streams, self._streams = list(self._streams.values()), {}
        await asyncio.gather(*[stream.close() for stream in streams])

    async def _stream(self, package_id: str, connection: ChaincodeConnection) -> ChaincodeStream:
        stream = self._streams.get(package_id)
        if stream is not None and not stream.ended.is_set():
            return stream
        failed = f"could not launch chaincode {package_id}: "
        launch = self._launches.get(package_id)
        waits_for_another = launch is not None
        if launch is None:
            launch = self._launches[package_id] = asyncio.create_task(self._launch(package_id, connection))
        try:
            # A transaction that is cancelled does not take the launch away from the others that wait for it.
            return await asyncio.shield(launch)
        except ChaincodeError as error:
            why = f"chaincode registration failed: {error}" if waits_for_another else str(error)
            raise ChaincodeError(failed + why) from error

    async def _launch(self, package_id: str, connection: ChaincodeConnection) -> ChaincodeStream:
        try:
            old = self._streams.pop(package_id, None)
            if old is not None:
                await old.close()
            stream = await connect(package_id, connection, self._parameters, self._startup_timeout_seconds)
            self._streams[package_id] = stream
            return stream
        finally:
            self._launches.pop(package_id, None)
