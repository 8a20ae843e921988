"""The HTTP port of a long-running command: `/metrics`, `/live`, `/ready`; nothing else, and no data of the ledger."""

import json
import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from kvr_sync.errors import ConfigurationError
from kvr_sync.metrics import ChannelWatch, Metrics

logger = logging.getLogger(__name__)

REQUEST_SECONDS = 5.0
"""Longest wait for a client that is slow to ask or to read."""
LOOPBACK = "127.0.0.1"


class ProbeServer(ThreadingHTTPServer):
    """Answers for the channels of one process."""

    daemon_threads = True
    block_on_close = False  # a client that is slow must not hold up the end of the process

    def __init__(
        self, address: tuple[str, int], metrics: Metrics, watches: Sequence[ChannelWatch], ready_lag_seconds: float
    ) -> None:
        self.metrics = metrics
        self.watches = watches
        self.ready_lag_seconds = ready_lag_seconds
        super().__init__(address, _Handler)

    def live(self) -> dict[str, bool]:
        """Tell of each channel whether its loop goes round."""
        return {watch.channel: watch.health.is_live() for watch in self.watches}

    def unready(self) -> dict[str, list[str]]:
        """Tell of each channel what makes it unready."""
        return {watch.channel: watch.unready(self.ready_lag_seconds) for watch in self.watches}

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of clients that go away: the text would name them, and they are no fault of ours."""


class _Handler(BaseHTTPRequestHandler):
    server: ProbeServer
    timeout = REQUEST_SECONDS
    server_version = "kvr"
    sys_version = ""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/metrics":
            self._answer(HTTPStatus.OK, CONTENT_TYPE_LATEST, generate_latest(self.server.metrics.registry))
        elif path == "/live":
            channels = self.server.live()
            self._answer_health({"live": all(channels.values()), "channels": channels}, ok=all(channels.values()))
        elif path == "/ready":
            reasons = self.server.unready()
            ok = not any(reasons.values())
            self._answer_health({"ready": ok, "channels": reasons}, ok=ok)
        else:
            self._answer(HTTPStatus.NOT_FOUND, "text/plain; charset=utf-8", b"/metrics, /live, /ready\n")

    def _answer_health(self, facts: dict[str, object], *, ok: bool) -> None:
        status = HTTPStatus.OK if ok else HTTPStatus.SERVICE_UNAVAILABLE
        self._answer(status, "application/json", json.dumps(facts).encode() + b"\n")

    def _answer(self, status: HTTPStatus, kind: str, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_arguments: object) -> None:
        """Log no request: they come every few seconds, and their paths are whatever a client sends."""


@contextmanager
def probes(
    metrics: Metrics, watches: Sequence[ChannelWatch], *, host: str, port: int | None, ready_lag_seconds: float
) -> Iterator[int | None]:
    """Serve while the block runs; gives the port, which the system chooses where `port` is 0. None: serve nothing.

    Raises ConfigurationError where the address cannot be used.
    """
    if port is None:
        yield None
        return
    try:
        server = ProbeServer((host, port), metrics, watches, ready_lag_seconds)
    except (OSError, OverflowError) as error:
        message = f"metrics: {host}:{port} cannot be listened on ({type(error).__name__})"
        raise ConfigurationError(message) from None
    thread = threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.1}, name="kvr-probes", daemon=True
    )
    thread.start()
    address, port = server.server_address[:2]
    logger.info("probes_started", extra={"address": f"{address!s}:{port}"})
    try:
        yield port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
