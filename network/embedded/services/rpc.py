"""What every server and channel of the embedded network agrees on: limits, keepalive, and the form of failures.

Rules: `internal/pkg/comm/config.go`, `sampleconfig/core.yaml` (limits), `internal/pkg/gateway/apiutils.go` (details).
"""

from collections.abc import Awaitable, Callable, Sequence
from functools import wraps
from typing import Any, Final, NamedTuple, NoReturn, TypeVar

import grpc
from fabric_protos.gateway import gateway_pb2
from google.rpc import status_pb2  # type: ignore[import-untyped]  # ships no types

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

Service = TypeVar("Service")
Request = TypeVar("Request")
Answer = TypeVar("Answer")
_Handler = Callable[[Service, Request, grpc.aio.ServicerContext[Any, Any]], Awaitable[Answer]]


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


async def abort(context: grpc.aio.ServicerContext[Any, Any], error: RpcError) -> NoReturn:
    """End a call with the error; its details go into the trailing metadata, as every client of Fabric expects them."""
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


def aborting(handler: _Handler[Service, Request, Answer]) -> _Handler[Service, Request, Answer]:
    """End the call with the RpcError that its handler raises."""

    @wraps(handler)
    async def call(service: Service, request: Request, context: grpc.aio.ServicerContext[Any, Any]) -> Answer:
        try:
            return await handler(service, request, context)
        except RpcError as error:
            await abort(context, error)

    return call
