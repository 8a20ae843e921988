"""gRPC's health service, as orderers have it; peers of Fabric have none on this port.

Rules: `grpc/health/v1/health.proto`, `google.golang.org/grpc/health/server.go`. Of its messages one field each is used,
so they are read and written here.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

import grpc

from network.protocol.errors import DecodeError
from network.protocol.wire import scan_fields

SERVICE: Final = "grpc.health.v1.Health"
SERVING: Final = b"\x08\x01"
SERVICE_UNKNOWN: Final = b"\x08\x03"
_NAME_FIELD: Final = 1
_Context = grpc.aio.ServicerContext[Any, Any]


def health_handler() -> Any:  # noqa: ANN401  # gRPC has no types for it
    """Serve health: the server as a whole serves, and no service has a health of its own."""
    return grpc.method_handlers_generic_handler(
        SERVICE,
        {
            "Check": grpc.unary_unary_rpc_method_handler(_check),
            "Watch": grpc.unary_stream_rpc_method_handler(_watch),
        },
    )


async def _check(request: bytes, context: _Context) -> bytes:
    if await _service(request, context):
        await context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
    return SERVING


async def _watch(request: bytes, context: _Context) -> AsyncIterator[bytes]:
    yield SERVICE_UNKNOWN if await _service(request, context) else SERVING
    await asyncio.Event().wait()  # nothing changes while the process lives


async def _service(request: bytes, context: _Context) -> bytes:
    try:
        names = [field.content for field in scan_fields(request) if field.number == _NAME_FIELD]
    except DecodeError:
        words = "grpc: error unmarshalling request: proto: cannot parse invalid wire-format data"
        await context.abort(grpc.StatusCode.INTERNAL, words)
    return names[-1] if names else b""
