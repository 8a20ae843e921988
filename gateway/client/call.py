"""A failed gRPC call as our error, with what each peer said (`grpc-status-details-bin`, `google.rpc.Status`)."""

from typing import Final, TypeVar

import grpc
from fabric_protos.gateway import gateway_pb2
from google.protobuf.message import DecodeError
from google.rpc import status_pb2  # type: ignore[import-untyped]  # ships no types

from gateway.client.errors import CallError, PeerDetail

E = TypeVar("E", bound=CallError)

_MAX_DETAILS: Final = 100


def call_error(kind: type[E], error: grpc.aio.AioRpcError, tx_id: str = "") -> E:
    """Make the error of a step from gRPC's."""
    return kind(error.code().name, error.details() or "", _details(error), tx_id)


def _details(error: grpc.aio.AioRpcError) -> tuple[PeerDetail, ...]:
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            return _decode_details(value)
    return ()


def _decode_details(content: bytes) -> tuple[PeerDetail, ...]:
    """Give the details that can be read; the call has failed either way."""
    details = []
    try:
        status = status_pb2.Status.FromString(content)
        for packed in status.details[:_MAX_DETAILS]:
            detail = gateway_pb2.ErrorDetail()
            if packed.Unpack(detail):
                details.append(PeerDetail(detail.address, detail.msp_id, detail.message))
    except DecodeError:
        pass
    return tuple(details)
