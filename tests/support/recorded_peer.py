"""A peer that serves recorded blocks by its Deliver services, over TLS on the loopback, and breaks as told.

It runs on threads, as the line it is read by does. Signatures of requests are not looked at.
"""

import json
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from fabric_protos.common import common_pb2
from fabric_protos.ledger.rwset import rwset_pb2
from fabric_protos.orderer import ab_pb2
from fabric_protos.peer import events_pb2

from gateway.client.channel import Endpoint
from gateway.client.identity import SigningIdentity
from kvr_sync.source.peer_source import PeerSettings
from tests.support.tls_credential import TlsAuthority

MSP_ID = "EnterpriseMSP"
CHANNEL = "consortium"
_TLS = TlsAuthority()
_SERVER = _TLS.issue("peer0")
_READER = _TLS.issue("reader")
_UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


@dataclass(frozen=True)
class Fault:
    """What happens to a stream of blocks after `after` of them."""

    after: int
    kind: str
    """cut, silent, or skip: the next block is left out."""
    status: int = 0
    """Instead: a status ends the stream."""


@dataclass
class RecordedPeer:
    """What it has and what it was asked; blocks may be added while it serves."""

    blocks: list[bytes]
    private_sets: Mapping[int, Mapping[int, bytes]]
    channel: str = CHANNEL
    first: int = 0
    """The first block it holds, as a peer that began with a snapshot."""
    newest_status: int = 0
    """Answered to the question for the newest block, instead of it."""
    faults: deque[Fault] = field(default_factory=deque)
    asked: list[tuple[str, int]] = field(default_factory=list)
    """Service and first number of every stream of blocks."""
    sent: list[int] = field(default_factory=list)
    address: str = ""
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _ended: bool = False

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(self.address, _TLS.certificate)

    def append(self, *blocks: bytes) -> None:
        with self._changed:
            self.blocks.extend(blocks)
            self._changed.notify_all()

    def end(self) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def deliver(self, service: str, requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        """Answer as `common/deliver/deliver.go` does."""
        context.add_callback(self._wake)
        envelope = common_pb2.Envelope.FromString(next(requests))
        payload = common_pb2.Payload.FromString(envelope.payload)
        header = common_pb2.ChannelHeader.FromString(payload.header.channel_header)
        seek = ab_pb2.SeekInfo.FromString(payload.data)
        if header.channel_id != self.channel:
            yield _status(common_pb2.NOT_FOUND)
            return
        if seek.start.WhichOneof("Type") == "newest":
            if self.newest_status:
                yield _status(self.newest_status)
                return
            yield self._answer(service, len(self.blocks) - 1)
            yield _status(common_pb2.SUCCESS)
            return
        start = seek.start.specified.number
        stop = len(self.blocks) - 1 if seek.stop.WhichOneof("Type") == "newest" else seek.stop.specified.number
        self.asked.append((service, start))
        fault = self.faults.popleft() if self.faults else None
        if start < self.first:
            yield _status(common_pb2.NOT_FOUND)
            return
        number = start
        while number <= stop:
            if fault is not None and number - start == fault.after:
                if fault.status:
                    yield _status(fault.status)
                    return
                if fault.kind == "cut":
                    context.abort(grpc.StatusCode.UNAVAILABLE, "the connection is cut")
                if fault.kind == "silent":
                    self._wait(context, len(self.blocks) + 1_000_000)
                    return
                number += 1
                fault = None
                continue
            if not self._wait(context, number):
                return
            self.sent.append(number)
            yield self._answer(service, number)
            number += 1
        yield _status(common_pb2.SUCCESS)

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _wait(self, context: Any, number: int) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._ended or not context.is_active() or len(self.blocks) > number)
        return not self._ended and bool(context.is_active())

    def _answer(self, service: str, number: int) -> bytes:
        content = self.blocks[number]
        if service == "Deliver":
            return _field(2, content)
        message = b"".join(
            (
                _field(1, content),
                *(
                    # An entry of a map is a message of key and value.
                    _field(
                        2,
                        events_pb2.BlockAndPrivateData.PrivateDataMapEntry(
                            key=tx_number, value=rwset_pb2.TxPvtReadWriteSet.FromString(private)
                        ).SerializeToString(),
                    )
                    for tx_number, private in self.private_sets.get(number, {}).items()
                ),
            )
        )
        return _field(4, message)


def _field(number: int, content: bytes) -> bytes:
    length, size = b"", len(content)
    while size > 127:
        length += bytes((size & 127 | 128,))
        size >>= 7
    return bytes((number << 3 | 2,)) + length + bytes((size,)) + content


def _status(status: int) -> bytes:
    return bytes(events_pb2.DeliverResponse(status=status).SerializeToString())


@contextmanager
def recorded_peer(
    blocks: Sequence[bytes],
    private_sets: Mapping[int, Mapping[int, bytes]] | None = None,
    *,
    address: str = "127.0.0.1:0",
) -> Iterator[RecordedPeer]:
    """Run a peer on a port the kernel chooses, or at the address given."""
    peer = RecordedPeer(list(blocks), private_sets or {})
    executor = ThreadPoolExecutor(16)
    server = grpc.server(executor, options=[*_UNLIMITED, ("grpc.so_reuseport", 0)])

    def handler(service: str) -> Any:
        return grpc.stream_stream_rpc_method_handler(lambda requests, context: peer.deliver(service, requests, context))

    handlers = {name: handler(name) for name in ("Deliver", "DeliverWithPrivateData")}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("protos.Deliver", handlers),))
    credentials = grpc.ssl_server_credentials([(_SERVER.key, _SERVER.certificate)])
    port = server.add_secure_port(address, credentials)
    peer.address = f"127.0.0.1:{port}"
    server.start()
    try:
        yield peer
    finally:
        peer.end()
        server.stop(None).wait()
        executor.shutdown()


def reader_identity() -> SigningIdentity:
    """Give an identity to read with."""
    return SigningIdentity.from_pem(MSP_ID, _READER.certificate, _READER.key)


def peer_settings(
    folder: Path,
    peers: Iterable[RecordedPeer],
    *,
    channel: str = CHANNEL,
    private_data: bool = False,
    msp_id: str = MSP_ID,
) -> PeerSettings:
    """Write a connection profile and an MSP folder, and give the settings that name them."""
    nodes = {f"peer{number}": peer for number, peer in enumerate(peers)}
    profile = {
        "organizations": {"Enterprise": {"mspid": msp_id, "peers": list(nodes)}},
        "peers": {
            name: {"url": f"grpcs://{peer.address}", "tlsCACerts": {"pem": _TLS.certificate.decode()}}
            for name, peer in nodes.items()
        },
    }
    path = folder / "profile.json"
    path.write_text(json.dumps(profile))
    identity = folder / "msp"
    for name, content in (("signcerts", _READER.certificate), ("keystore", _READER.key)):
        (identity / name).mkdir(parents=True, exist_ok=True)
        (identity / name / "part.pem").write_bytes(content)
    return PeerSettings(path, msp_id, identity, channel, private_data=private_data)


def command_options(settings: PeerSettings) -> tuple[str, ...]:
    """Give the options of a command for these settings."""
    where = ("--profile", str(settings.profile), "--identity", str(settings.identity))
    options = (*where, "--msp-id", settings.msp_id, "--channel", settings.channel)
    return (*options, "--private-data") if settings.private_data else options
