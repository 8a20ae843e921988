"""gRPC channels to nodes: TLS always, verified always; 100 MiB messages; keepalive no peer objects to.

A peer ends connections that ping more often than each 60 s (`internal/pkg/comm/config.go`).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from gateway.client.errors import CredentialError, DialError

MAX_MESSAGE_BYTES: Final = 100 * 1024 * 1024
KEEPALIVE_MILLISECONDS: Final = 75_000
KEEPALIVE_TIMEOUT_MILLISECONDS: Final = 20_000
FIRST_RECONNECT_MILLISECONDS: Final = 100
LONGEST_RECONNECT_MILLISECONDS: Final = 10_000
DIAL_SECONDS: Final = 10.0

Stub = TypeVar("Stub")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a node listens. `tls_roots`, `client_certificate` and `client_key` are PEM.

    `server_name`: the name the node's certificate must have, when it is not the address's; it is verified as well.
    """

    address: str
    tls_roots: bytes = field(repr=False)
    server_name: str = ""
    client_certificate: bytes = field(default=b"", repr=False)
    client_key: bytes = field(default=b"", repr=False)


class NodeChannel:
    """An open gRPC channel to one node. Close it, or use it as an async context manager."""

    def __init__(self, endpoint: Endpoint) -> None:
        if bool(endpoint.client_certificate) != bool(endpoint.client_key):
            raise CredentialError(f"{endpoint.address}: client certificate and client key go together")
        try:
            x509.load_pem_x509_certificates(endpoint.tls_roots)
        except (ValueError, x509.InvalidVersion):
            raise CredentialError(f"{endpoint.address}: TLS roots are no certificates in PEM") from None
        self.address = endpoint.address
        self.tls_certificate_hash = _certificate_hash(endpoint)
        credentials = grpc.ssl_channel_credentials(
            endpoint.tls_roots, endpoint.client_key or None, endpoint.client_certificate or None
        )
        options: list[tuple[str, str | int]] = [
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
            ("grpc.keepalive_time_ms", KEEPALIVE_MILLISECONDS),
            ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MILLISECONDS),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.max_pings_without_data", 0),
            ("grpc.initial_reconnect_backoff_ms", FIRST_RECONNECT_MILLISECONDS),
            ("grpc.max_reconnect_backoff_ms", LONGEST_RECONNECT_MILLISECONDS),
            ("grpc.enable_retries", 0),  # a call is repeated by who knows what it does, never below
        ]
        if endpoint.server_name:
            options.append(("grpc.ssl_target_name_override", endpoint.server_name))
        self.grpc = grpc.aio.secure_channel(endpoint.address, credentials, options=options)
        self._stubs: dict[Callable[[grpc.aio.Channel], Any], Any] = {}

    def stub(self, kind: Callable[[grpc.aio.Channel], Stub]) -> Stub:
        """Give the channel's stub of a service, made once: making one takes as long as signing."""
        if kind not in self._stubs:
            self._stubs[kind] = kind(self.grpc)
        found: Stub = self._stubs[kind]
        return found

    async def dial(self, seconds: float = DIAL_SECONDS) -> None:
        """Establish the connection now; raises DialError with what it ended in.

        Any answer at all will do, so this works on nodes without a health service.
        """
        check: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = self.grpc.unary_unary("/grpc.health.v1.Health/Check")
        try:
            await check(b"", timeout=seconds)
        except grpc.aio.AioRpcError as error:
            if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                raise DialError(f"{self.address}: {error.details()}") from error

    async def close(self) -> None:
        """Close; calls under way are cancelled."""
        await self.grpc.close()

    async def __aenter__(self) -> Self:
        """Give itself."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        await self.close()


def _certificate_hash(endpoint: Endpoint) -> bytes:
    """Give what messages to Deliver are bound to under mutual TLS: SHA-256 of the client certificate's DER."""
    if not endpoint.client_certificate:
        return b""
    try:
        certificate = x509.load_pem_x509_certificate(endpoint.client_certificate)
    except (ValueError, x509.InvalidVersion):
        raise CredentialError(f"{endpoint.address}: client certificate is not a certificate in PEM") from None
    return sha256(certificate.public_bytes(Encoding.DER)).digest()
