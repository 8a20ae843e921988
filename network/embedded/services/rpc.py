"""What every server and channel of the embedded network agrees on: limits, keepalive, and the form of failures.

Rules: `internal/pkg/comm/config.go`, `sampleconfig/core.yaml` (limits), `internal/peer/node/grpc_limiters.go` (how
many requests at once), `internal/pkg/gateway/apiutils.go` (details), `google.golang.org/grpc/server.go` (what is no
request).
"""

import logging
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from typing import Any, Final, NamedTuple, NoReturn

import grpc
from fabric_protos.gateway import gateway_pb2
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc import status_pb2  # type: ignore[import-untyped]  # ships no types

from network.protocol.errors import DecodeError
from network.protocol.wire import parse_in_words_of_go

logger = logging.getLogger(__name__)

MAX_MESSAGE_BYTES: Final = 100 * 1024 * 1024
MAX_MESSAGE_OPTIONS: Final[list[tuple[str, Any]]] = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
]
SERVER_OPTIONS: Final[list[tuple[str, Any]]] = [
    *MAX_MESSAGE_OPTIONS,
    ("grpc.so_reuseport", 0),  # a port that another process listens on is an error, not a port shared with it
    ("grpc.keepalive_time_ms", 2 * 60 * 60 * 1000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 60_000),
    ("grpc.keepalive_permit_without_calls", 1),
]
CHAINCODE_CHANNEL_OPTIONS: Final[list[tuple[str, Any]]] = [
    *MAX_MESSAGE_OPTIONS,
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.use_local_subchannel_pool", 1),  # a server that came back is dialled at once, without another's back-off
    ("grpc.enable_http_proxy", 0),
]
DETAILS_HEADER: Final = "grpc-status-details-bin"
ENDORSER_REQUESTS: Final = 2500
DELIVER_REQUESTS: Final = 2500
GATEWAY_REQUESTS: Final = 500

_NO_MESSAGE: Final = "failed to unmarshal the received message"
_Context = grpc.aio.ServicerContext[Any, Any]


class ErrorDetail(NamedTuple):
    """What one node answered: its address, its organisation and its words."""

    address: str
    msp_id: str
    message: str


class RpcError(Exception):
    """A call ends with this code, these words, and what each node said."""

    def __init__(self, code: grpc.StatusCode, message: str, details: Sequence[ErrorDetail] = ()) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = tuple(details)


class Slots:
    """So many requests of a service may run at once, streams among them; None: any number."""

    def __init__(self, service: str, limit: int | None) -> None:
        self._service = service
        self._limit = limit
        self._taken = 0

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Hold a place; raises RpcError when there is none."""
        if self._limit is not None and self._taken >= self._limit:
            words = f"too many requests for /{self._service}, exceeding concurrency limit ({self._limit})"
            raise RpcError(grpc.StatusCode.UNKNOWN, words)
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1


def service_handler(description: ServiceDescriptor, service: object, limit: int | None = None) -> Any:  # noqa: ANN401
    """Serve a service by its description: its methods are those of `service`, and the others answer UNIMPLEMENTED.

    Methods take a message, or an iterator of messages, and give one message or an iterator of them; they raise
    RpcError. `limit`: requests at once.
    """
    slots = Slots(description.full_name, limit)
    handlers = {
        method.name: _method_handler(method, getattr(service, method.name), slots)
        for method in description.methods
        if hasattr(service, method.name)
    }
    return grpc.method_handlers_generic_handler(description.full_name, handlers)


class _Unreadable(NamedTuple):
    """What came is no message; the words are Go's."""

    words: str


def _method_handler(method: MethodDescriptor, handler: Callable[..., Any], slots: Slots) -> Any:  # noqa: ANN401  # gRPC has no types for it
    kind = GetMessageClass(method.input_type)

    def read(content: bytes) -> Message | _Unreadable:
        try:
            return parse_in_words_of_go(kind, content)
        except DecodeError as error:
            return _Unreadable(str(error))

    async def answer(request: Message | _Unreadable, context: _Context) -> Message:
        try:
            _check_readable(request, "error unmarshalling request")
            with slots.taken():
                found: Message = await handler(request)
                return found
        except Exception as error:  # noqa: BLE001  # the edge: whatever fails here ends one call and no other
            await _end(context, method, error)

    async def answer_many(requests: Any, context: _Context) -> AsyncIterator[Message]:  # noqa: ANN401  # what gRPC gives
        try:
            with slots.taken():
                if method.client_streaming:
                    requests = _readable(requests)
                else:
                    _check_readable(requests, _NO_MESSAGE)
                async with aclosing(handler(requests)) as answers:
                    async for found in answers:
                        yield found
        except Exception as error:  # noqa: BLE001  # as above
            await _end(context, method, error)

    def write(message: Message) -> bytes:
        return bytes(message.SerializeToString())

    if method.client_streaming:
        return grpc.stream_stream_rpc_method_handler(answer_many, read, write)
    if method.server_streaming:
        return grpc.unary_stream_rpc_method_handler(answer_many, read, write)
    return grpc.unary_unary_rpc_method_handler(answer, read, write)


def _check_readable(request: Message | _Unreadable, failed: str) -> None:
    if isinstance(request, _Unreadable):
        raise RpcError(grpc.StatusCode.INTERNAL, f"grpc: {failed}: {request.words}")


async def _readable(requests: AsyncIterator[Message | _Unreadable]) -> AsyncIterator[Message]:
    async for request in requests:
        _check_readable(request, _NO_MESSAGE)
        yield request  # type: ignore[misc]  # it is a message


async def _end(context: _Context, method: MethodDescriptor, error: Exception) -> NoReturn:
    """End a call: with its error, or, where the defect is ours, without the words of an exception."""
    if not isinstance(error, RpcError):
        place = error.__traceback__
        while place is not None and place.tb_next is not None:
            place = place.tb_next
        line = "" if place is None else f"{place.tb_frame.f_code.co_qualname}:{place.tb_lineno}"
        facts = {"method": method.full_name, "error": type(error).__name__, "place": line}
        logger.error("request_failed method=%(method)s error=%(error)s place=%(place)s", facts, extra=facts)
        error = RpcError(grpc.StatusCode.INTERNAL, "a defect of the embedded network; its log says where")
    # The details go into the trailing metadata, as every client of Fabric expects them.
    trailing: tuple[tuple[str, bytes], ...] = ()
    if error.details:
        status = status_pb2.Status(code=error.code.value[0], message=error.message)
        for detail in error.details:
            status.details.add().Pack(
                gateway_pb2.ErrorDetail(address=detail.address, msp_id=detail.msp_id, message=detail.message)
            )
        trailing = ((DETAILS_HEADER, status.SerializeToString()),)
    await context.abort(error.code, error.message, trailing)
    raise AssertionError  # abort always raises


class UnknownServices(grpc.GenericRpcHandler):
    """Answers for every service and method that a node does not have."""

    def __init__(self, services: Sequence[ServiceDescriptor]) -> None:
        self._methods = {service.full_name: {method.name for method in service.methods} for service in services}

    def service(self, handler_call_details: Any) -> Any:  # noqa: ANN401  # gRPC has no types for it
        """Give what ends the call."""
        service, _, method = handler_call_details.method.removeprefix("/").rpartition("/")
        if service in self._methods:
            words = f"unknown method {method} for service {service}"
        else:
            words = f"unknown service {service}"

        async def refuse(requests: object, context: _Context) -> AsyncIterator[bytes]:
            del requests
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, words)
            yield b""

        return grpc.stream_stream_rpc_method_handler(refuse)
