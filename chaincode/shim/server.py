"""The chaincode as a service: a server that peers call, one stream per peer, with mutual TLS.

Source of the limits: Fabric 3.1.5 peers ping every 60 s and send up to 100 MiB.
"""

import asyncio
import logging
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from fabric_protos.peer import chaincode_shim_pb2_grpc

from chaincode.errors import ServerSettingsError
from chaincode.shim.handler import MAX_MESSAGE_BYTES, Handler, Invoke

logger = logging.getLogger(__name__)

_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # Peers ping every 60 s, also without a call; gRPC's own minimum of 5 minutes would cut them off.
    ("grpc.http2.min_ping_interval_without_data_ms", 30_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # A port that is taken is an error, not shared with whoever has it.
    ("grpc.so_reuseport", 0),
)


@dataclass(frozen=True)
class TlsFiles:
    """PEM files of the server; `client_authorities` None takes any client, which only somebody who says so gets."""

    certificate: Path
    key: Path
    client_authorities: Path | None

    def credentials(self) -> grpc.ServerCredentials:
        """Read and check the files; raises ServerSettingsError that names the file, never what it holds."""
        certificate, key = _read(self.certificate), _read(self.key)
        try:
            public = x509.load_pem_x509_certificates(certificate)[0].public_key()
        except ValueError as error:
            raise ServerSettingsError(f"{self.certificate} holds no certificate in PEM") from error
        try:
            own = load_pem_private_key(key, password=None).public_key()
        except (ValueError, TypeError) as error:
            raise ServerSettingsError(f"{self.key} holds no private key in PEM without a password") from error
        form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        if public.public_bytes(*form) != own.public_bytes(*form):
            raise ServerSettingsError(f"{self.key} is not the key of the certificate in {self.certificate}")
        if self.client_authorities is None:
            return grpc.ssl_server_credentials([(key, certificate)])
        authorities = _read(self.client_authorities)
        try:
            x509.load_pem_x509_certificates(authorities)
        except ValueError as error:
            raise ServerSettingsError(f"{self.client_authorities} holds no certificate in PEM") from error
        return grpc.ssl_server_credentials([(key, certificate)], authorities, require_client_auth=True)


@dataclass(frozen=True)
class ServerSettings:
    """How a chaincode is served; `tls` None is plaintext, which the caller must have been told to use."""

    address: str
    package_id: str
    msp_id: str
    tls: TlsFiles | None
    grace_seconds: float = 10.0
    """How long running transactions may go on after the order to stop."""
    transaction_seconds: float = 25.0
    """Longest transaction; below the peer's own limit (30 s), which would leave the client without a reason."""


class ChaincodeServer:
    """A server on one address. `start` and `stop` once each."""

    def __init__(self, invoke: Invoke, settings: ServerSettings) -> None:
        if not settings.package_id:
            raise ServerSettingsError("the package id is missing: --package-id, CHAINCODE_ID or CORE_CHAINCODE_ID_NAME")
        if not settings.msp_id:
            raise ServerSettingsError("the organisation is missing: --msp-id or CORE_PEER_LOCALMSPID")
        self._invoke = invoke
        self._settings = settings
        self._server: grpc.aio.Server | None = None
        self._servicer = _Servicer(self)
        self._handlers: set[Handler] = set()
        self._stopping = False

    async def start(self) -> int:
        """Listen; gives the port. Raises ServerSettingsError for unusable files or an address that cannot be had."""
        settings = self._settings
        credentials = settings.tls.credentials() if settings.tls is not None else None
        self._server = grpc.aio.server(options=_OPTIONS)
        chaincode_shim_pb2_grpc.add_ChaincodeServicer_to_server(self._servicer, self._server)
        try:
            if credentials is None:
                port = self._server.add_insecure_port(settings.address)
            else:
                port = self._server.add_secure_port(settings.address, credentials)
        except RuntimeError as error:
            await self._server.stop(None)
            raise ServerSettingsError(f"cannot listen on {settings.address}") from error
        await self._server.start()
        logger.info("serving", extra={"port": port, "tls": credentials is not None})
        return int(port)

    async def stop(self) -> None:
        """Take nothing new, let running transactions be answered within the grace period, then close."""
        self._stopping = True
        await asyncio.gather(*[handler.drain(self._settings.grace_seconds) for handler in self._handlers])
        if self._server is not None:
            await self._server.stop(_CLOSE_SECONDS)

    async def serve_stream(self, messages: AsyncIterator[Any], context: Any) -> None:  # noqa: ANN401  # of grpc.aio
        """Serve one peer's stream to its end."""
        if self._stopping:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the chaincode is shutting down")
        settings = self._settings
        handler = Handler(self._invoke, settings.package_id, settings.msp_id, settings.transaction_seconds)
        self._handlers.add(handler)
        try:
            await handler.serve(messages, context.write)
        finally:
            self._handlers.discard(handler)


class _Servicer(chaincode_shim_pb2_grpc.ChaincodeServicer):  # type: ignore[misc]  # generated without types
    def __init__(self, server: ChaincodeServer) -> None:
        self._chaincode = server

    async def Connect(self, request_iterator: AsyncIterator[Any], context: Any) -> None:  # noqa: ANN401, N802  # gRPC's
        """Serve the stream that a peer opened."""
        await self._chaincode.serve_stream(request_iterator, context)


async def serve(invoke: Invoke, settings: ServerSettings) -> None:
    """Serve until SIGTERM or SIGINT, then finish what runs."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    server = ChaincodeServer(invoke, settings)
    await server.start()
    await stop.wait()
    logger.info("stopping")
    await server.stop()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ServerSettingsError(f"cannot read {path}: {error.strerror}") from error


_CLOSE_SECONDS = 1.0
