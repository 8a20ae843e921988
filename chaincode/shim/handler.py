"""One stream to one peer: registration, transactions side by side, and one request of each at a time.

Everything sent goes through one queue and one writer, since gRPC takes one write at a time. A peer answers one request
per transaction and drops a second one in silence, so requests of a transaction wait for each other here. Source:
`core/chaincode/handler.go` of Fabric 3.1.5.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol

from fabric_protos.peer import chaincode_pb2, chaincode_shim_pb2, proposal_response_pb2

from chaincode.errors import PeerRefusedError, ShimError, StreamEndedError, TransactionOverError
from chaincode.shim.proposal import ProposalError, decode_proposal
from chaincode.shim.stub import Stub

logger = logging.getLogger(__name__)

Message = chaincode_shim_pb2.ChaincodeMessage
MAX_MESSAGE_BYTES: Final = 100 * 1024 * 1024
"""Largest message in either direction; Fabric's peers and shims have the same limit."""
TX_ID_SHOWN: Final = 8
"""Characters of a transaction id in the log."""


class Answer(NamedTuple):
    """What a transaction ends in; a status below 400 is endorsed. `function`, a registered name, is for the log."""

    status: int = 200
    payload: bytes = b""
    message: str = ""
    function: str = ""


class Invoke(Protocol):
    """A chaincode: from one transaction to its answer. Whatever it raises is answered with status 500."""

    def __call__(self, stub: Stub, /) -> Awaitable[Answer]:
        """Run one transaction."""


@dataclass(frozen=True)
class RuntimeParameters:
    """What the peer offered when it said READY; 0 is: not offered."""

    write_batch_size: int = 0
    get_multiple_size: int = 0


class _Running:
    """A transaction that has not been answered."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.reply: asyncio.Future[Any] | None = None
        """Of the last request: the peer's message, or None when the stream ended."""
        self.over = False


class Handler:
    """One stream. `serve` runs it to its end."""

    def __init__(self, invoke: Invoke, package_id: str, msp_id: str, transaction_seconds: float) -> None:
        self._invoke = invoke
        self._package_id = package_id
        self._msp_id = msp_id
        self._transaction_seconds = transaction_seconds
        self._outgoing: asyncio.Queue[Any] = asyncio.Queue()
        self._running: dict[tuple[str, str], _Running] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._parameters = RuntimeParameters()
        self._ready = False
        self._draining = False
        self._ended = False
        self._close = asyncio.Event()

    async def serve(self, messages: AsyncIterator[Any], write: Callable[[Any], Awaitable[None]]) -> None:
        """Register, then serve transactions until the peer ends the stream, breaks it, or `drain` is done."""
        name = chaincode_pb2.ChaincodeID(name=self._package_id).SerializeToString()
        self._outgoing.put_nowait(Message(type=Message.REGISTER, payload=name))
        ends = {
            asyncio.create_task(self._read(messages)),
            asyncio.create_task(self._write(write)),
            asyncio.create_task(self._close.wait()),
        }
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._ended = True
            for running in self._running.values():
                if running.reply is not None and not running.reply.done():
                    running.reply.set_result(None)
            for task in ends:
                task.cancel()
            if self._tasks:  # each sees its request fail, and may clean up, before it is cancelled
                await asyncio.wait(self._tasks, timeout=_CANCEL_SECONDS)
            tasks = [*ends, *self._tasks]
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=_CANCEL_SECONDS)
            for task in ends:
                if task.done() and not task.cancelled() and task.exception() is not None:
                    logger.warning("stream_broken", extra={"reason": type(task.exception()).__name__})

    async def drain(self, grace_seconds: float) -> None:
        """Take no further transaction, let the running ones be answered within the grace period, and end the stream."""
        self._draining = True
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace_seconds)
        if not self._ended:
            try:
                await asyncio.wait_for(self._outgoing.join(), timeout=_FLUSH_SECONDS)
            except TimeoutError:
                logger.warning("answers_not_taken")
        self._close.set()

    async def ask(self, key: tuple[str, str], running: "_Running", kind: int, payload: bytes) -> bytes:
        """Send one request and give the payload of its response.

        Raises PeerRefusedError on ERROR, StreamEndedError when the stream ends first, TransactionOverError when the
        transaction has been answered, ShimError for a request above the limit of a message.
        """
        if len(payload) > MAX_MESSAGE_BYTES - _ENVELOPE_BYTES:
            raise ShimError(f"{Message.Type.Name(kind)} is larger than a message may be")
        async with running.lock:
            # A caller that gave up (a timeout in the contract) leaves its request with the peer: it is waited for.
            if running.reply is not None and not running.reply.done():
                await asyncio.wait({running.reply})
            if running.over:
                raise TransactionOverError("the transaction has been answered already")
            if self._ended:
                raise StreamEndedError("the stream to the peer has ended")
            running.reply = asyncio.get_running_loop().create_future()
            channel_id, tx_id = key
            self._outgoing.put_nowait(Message(type=kind, payload=payload, txid=tx_id, channel_id=channel_id))
            reply = await asyncio.shield(running.reply)
        if reply is None:
            raise StreamEndedError("the stream to the peer has ended")
        if reply.type == Message.ERROR:
            raise PeerRefusedError(Message.Type.Name(kind), reply.payload.decode(errors="replace"))
        return bytes(reply.payload)

    async def _write(self, write: Callable[[Any], Awaitable[None]]) -> None:
        while True:
            message = await self._outgoing.get()
            await write(message)
            self._outgoing.task_done()

    async def _read(self, messages: AsyncIterator[Any]) -> None:
        async for message in messages:
            if message.type == Message.KEEPALIVE:
                self._outgoing.put_nowait(Message(type=Message.KEEPALIVE))
            elif message.type == Message.REGISTERED:
                logger.info("registered")
            elif message.type == Message.READY:
                self._parameters = _decode_parameters(message.payload)
                self._ready = True
                logger.info("ready")
            elif message.type in (Message.TRANSACTION, Message.INIT) and self._ready:
                self._start(message)
            elif message.type in (Message.RESPONSE, Message.ERROR) and self._ready:
                self._answered(message)
            else:
                logger.error("unexpected_message", extra={"type": message.type, "ready": self._ready})
                return

    def _answered(self, message: Any) -> None:  # noqa: ANN401  # generated without types
        running = self._running.get((message.channel_id, message.txid))
        # A reply may come after the transaction timed out and was answered; nobody waits for it then.
        if running is not None and running.reply is not None and not running.reply.done():
            running.reply.set_result(message)

    def _start(self, message: Any) -> None:  # noqa: ANN401  # generated without types
        key = (message.channel_id, message.txid)
        if key in self._running:
            logger.error("duplicate_transaction", extra={"tx_id": message.txid[:TX_ID_SHOWN]})
            return
        self._running[key] = running = _Running()
        task = asyncio.create_task(self._transact(message, key, running))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _transact(self, message: Any, key: tuple[str, str], running: _Running) -> None:  # noqa: ANN401
        loop = asyncio.get_running_loop()
        started = loop.time()
        event: tuple[str, bytes] | None = None
        if self._draining:
            answer = Answer(500, message="the chaincode is shutting down")
        else:
            try:
                proposal = decode_proposal(message)
            except ProposalError as error:
                answer = Answer(500, message=str(error))
            else:

                async def ask(kind: int, payload: bytes) -> bytes:
                    return await self.ask(key, running, kind, payload)

                stub = Stub(proposal, ask, self._parameters, self._msp_id)
                answer = await self._run(stub)
                event = stub.event
        running.over = True
        del self._running[key]
        self._outgoing.put_nowait(_encode_answer(answer, event, key))
        logger.info(
            "transaction",
            extra={
                "tx_id": key[1][:TX_ID_SHOWN],
                "function": answer.function,
                "status": answer.status,
                "duration_ms": round((loop.time() - started) * 1000),
            },
        )

    async def _run(self, stub: Stub) -> Answer:
        """Give an answer whatever the contract does: returns, raises, exits, or never comes back."""
        task = asyncio.create_task(_guard(self._invoke, stub))
        try:
            done, _ = await asyncio.wait({task}, timeout=self._transaction_seconds)
        except asyncio.CancelledError:
            task.cancel()
            raise
        if not done:
            task.cancel()
            return Answer(500, message="the transaction took too long")
        return Answer(500, message="internal error") if task.cancelled() else task.result()


async def _guard(invoke: Invoke, stub: Stub) -> Answer:
    try:
        answer = await invoke(stub)
    except asyncio.CancelledError:
        raise
    except BaseException as error:  # noqa: BLE001  # also SystemExit: a contract must not end the server
        logger.error("transaction_failed", extra={"tx_id": stub.tx_id[:TX_ID_SHOWN], "error": type(error).__name__})  # noqa: TRY400  # a trace can hold values
        return Answer(500, message="internal error")
    if not isinstance(answer, Answer):
        return Answer(500, message="internal error")
    return answer


def _encode_answer(answer: Answer, event: tuple[str, bytes] | None, key: tuple[str, str]) -> Any:  # noqa: ANN401
    channel_id, tx_id = key
    if not _FIRST_STATUS <= answer.status <= _LAST_STATUS:
        answer = Answer(500, message="internal error")
    # What goes into a protobuf string must be UTF-8.
    text = answer.message.encode(errors="replace").decode()
    response = proposal_response_pb2.Response(status=answer.status, message=text, payload=answer.payload)
    message = Message(type=Message.COMPLETED, payload=response.SerializeToString(), txid=tx_id, channel_id=channel_id)
    if event is not None and answer.status < _FIRST_REFUSED:
        message.chaincode_event.event_name, message.chaincode_event.payload = event
    if message.ByteSize() > MAX_MESSAGE_BYTES - _ENVELOPE_BYTES:
        return _encode_answer(Answer(500, message="the result is too large"), None, key)
    return message


def _decode_parameters(payload: bytes) -> RuntimeParameters:
    try:
        offered = chaincode_pb2.ChaincodeAdditionalParams.FromString(payload)
    except ValueError:  # an older peer that says READY with other contents offers nothing
        return RuntimeParameters()
    return RuntimeParameters(
        offered.max_size_write_batch if offered.use_write_batch else 0,
        offered.max_size_get_multiple_keys if offered.use_get_multiple_keys else 0,
    )


_FIRST_STATUS = 200
_FIRST_REFUSED = 400
_LAST_STATUS = 599
_ENVELOPE_BYTES = 64 * 1024
"""Room for ids, types and lengths around a payload."""
_CANCEL_SECONDS = 1.0
_FLUSH_SECONDS = 5.0
