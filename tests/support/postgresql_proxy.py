"""A link to a real PostgreSQL that breaks when a test says so: at a COMMIT, before it or after it, or at once.

It understands as much of the protocol (PostgreSQL documentation, "Message Formats") as it takes to see a COMMIT go by
and its answer come back. The server behind it is real, so what happened to a transaction is what happens to one.
"""

import selectors
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from typing import Final

from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import make_url

_ENCRYPTION_REQUESTS: Final = (80877103, 80877104)
"""SSLRequest and GSSENCRequest; the proxy declines both, or it could not read along."""
_READ_BYTES: Final = 65536
_PATIENCE_SECONDS: Final = 20.0


class Fault(Enum):
    """What happens to a COMMIT."""

    SWALLOW_ANSWER = "delivered, and the link cut when the answer has come back"
    CUT_BEFORE = "not delivered, the link cut on both sides"
    FREEZE = "kept back, the client cut off, the server left with an open session"


@dataclass(slots=True)
class _Plan:
    fault: Fault
    of: bytes
    left: int


class PostgresqlProxy:
    """Passes links through on a loopback port; `url` is the address to give to the product.

    `commits` counts the COMMITs seen, `fired` those that were broken. One thread does all the work.
    """

    def __init__(self, url: str) -> None:
        parsed = make_url(url)
        plain = parsed.set(drivername="postgresql").render_as_string(hide_password=False)
        address = conninfo_to_dict(plain)
        self._server_host, self._server_port = str(address["host"]), int(address.get("port") or 5432)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = parsed.set(
            host="127.0.0.1",
            port=self._listener.getsockname()[1],
            query={name: value for name, value in parsed.query.items() if name not in {"host", "port"}},
        ).render_as_string(hide_password=False)
        self.commits = 0
        self.fired = 0
        self._lock = threading.Lock()
        self._plan: _Plan | None = None
        self._refusing = False
        self._frozen: list[_Link] = []
        self._links: set[_Link] = set()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._waker, self._woken = socket.socketpair()
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="postgresql-proxy", daemon=True)
        self._thread.start()

    # --- what a test asks for

    def break_commit(self, fault: Fault, *, nth: int = 1, of: str = "") -> None:
        """Break the n-th COMMIT from now, of those whose transaction sent a statement that begins with `of`."""
        with self._lock:
            self._plan = _Plan(fault, of.encode(), nth)

    def refuse(self, refusing: bool) -> None:
        """Let nobody in from now on, as a server that is down, or let them in again."""
        with self._lock:
            self._refusing = refusing

    def cut(self) -> None:
        """Cut every link now, in the middle of whatever it carries."""
        with self._lock:
            for link in self._links:
                link.shut()

    def deliver_frozen(self) -> None:
        """Hand over a COMMIT that was kept back, and wait until the server has done it."""
        with self._lock:
            link = self._frozen.pop()
        link.server.settimeout(_PATIENCE_SECONDS)
        link.server.sendall(link.kept)
        while not link.answered(link.server.recv(_READ_BYTES)):
            pass
        link.close()

    def drop_frozen(self) -> None:
        """End the session that was left open, without its COMMIT."""
        with self._lock:
            link = self._frozen.pop()
        link.close()

    def close(self) -> None:
        """Cut everything and end the thread."""
        self._closing = True
        self._waker.send(b"x")
        self._thread.join(_PATIENCE_SECONDS)
        for link in (*self._links, *self._frozen):
            link.close()
        for each in (self._listener, self._waker, self._woken):
            each.close()
        self._selector.close()

    # --- the thread

    def _run(self) -> None:
        while not self._closing:
            for ready, _ in self._selector.select():
                if ready.fileobj is self._listener:
                    self._accept()
                elif isinstance(ready.data, _Link):
                    self._pass_on(ready.data, from_client=ready.fileobj is ready.data.client)

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        with self._lock:
            if self._refusing:
                client.close()
                return
        link = _Link(client, self._connect_to_server())
        with self._lock:
            self._links.add(link)
        for end in (link.client, link.server):
            self._selector.register(end, selectors.EVENT_READ, link)

    def _connect_to_server(self) -> socket.socket:
        if self._server_host.startswith("/"):
            server = socket.socket(socket.AF_UNIX)
            server.connect(f"{self._server_host}/.s.PGSQL.{self._server_port}")
            return server
        return socket.create_connection((self._server_host, self._server_port))

    def _pass_on(self, link: "_Link", *, from_client: bool) -> None:
        if link not in self._links:
            return  # the other end, in the same round, ended it
        source, target = (link.client, link.server) if from_client else (link.server, link.client)
        try:
            content = source.recv(_READ_BYTES)
            if not content:
                self._end(link)
            elif not from_client:
                if not link.swallowing:
                    target.sendall(content)
                elif link.answered(content):
                    self._end(link)
            else:
                self._pass_messages(link, content)
        except OSError:
            self._end(link)

    def _pass_messages(self, link: "_Link", content: bytes) -> None:
        for message in link.messages(content):
            fault = self._fault_at(link, message)
            if fault is None:
                link.server.sendall(message)
            elif fault is Fault.SWALLOW_ANSWER:
                link.swallowing = True
                link.server.sendall(message)
            elif fault is Fault.CUT_BEFORE:
                self._end(link)
                return
            else:
                self._freeze(link, message)
                return

    def _fault_at(self, link: "_Link", message: bytes) -> Fault | None:
        text = _statement(message)
        if text.rstrip(b" ;").upper() != b"COMMIT":
            link.statements.append(text)
            return None
        statements = [*link.statements, text]
        link.statements.clear()
        with self._lock:
            self.commits += 1
            plan = self._plan
            if plan is None or not any(each.startswith(plan.of) for each in statements):
                return None
            plan.left -= 1
            if plan.left:
                return None
            self._plan = None
            self.fired += 1
            return plan.fault

    def _freeze(self, link: "_Link", message: bytes) -> None:
        for end in (link.client, link.server):
            self._selector.unregister(end)
        link.kept = message
        with self._lock:
            self._links.discard(link)
            self._frozen.append(link)
        link.client.close()

    def _end(self, link: "_Link") -> None:
        for end in (link.client, link.server):
            self._selector.unregister(end)
        with self._lock:
            self._links.discard(link)
        link.close()


def _statement(message: bytes) -> bytes:
    """Give the SQL text that a message brings; empty where it brings none, as one that runs what was prepared does."""
    if message[:1] == b"Q":
        return message[5:].rstrip(b"\0")
    if message[:1] == b"P":
        return message[5:].split(b"\0")[1]  # after the name it is prepared under
    return b""


class _Link:
    """A client's connection and the one made to the server for it."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client, self.server = client, server
        self.swallowing = False
        self.kept = b""
        self.statements: list[bytes] = []
        self._begun = False
        self._unread = bytearray()
        self._answer = bytearray()

    def messages(self, content: bytes) -> Iterator[bytes]:
        """Cut what the client sends into whole messages."""
        self._unread += content
        while True:
            start = 1 if self._begun else 0  # the first message has no type before its length
            if len(self._unread) < start + 4:
                return
            end = start + int.from_bytes(self._unread[start : start + 4], "big")
            if len(self._unread) < end:
                return
            message = bytes(self._unread[:end])
            del self._unread[:end]
            if not self._begun and end == 8 and int.from_bytes(message[4:], "big") in _ENCRYPTION_REQUESTS:
                self.client.sendall(b"N")
                continue
            self._begun = True
            yield message

    def answered(self, content: bytes) -> bool:
        """Take what the server sends after a COMMIT; tell whether it is ready for the next command."""
        if not content:
            return True
        self._answer += content
        while len(self._answer) >= 5:
            end = 1 + int.from_bytes(self._answer[1:5], "big")
            if len(self._answer) < end:
                return False
            kind = self._answer[:1]
            del self._answer[:end]
            if kind == b"Z":
                return True
        return False

    def shut(self) -> None:
        """Make both ends find the link broken; the thread then closes it."""
        for end in (self.client, self.server):
            with suppress(OSError):  # the other side may have been quicker
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close both ends."""
        self.client.close()
        self.server.close()


@contextmanager
def postgresql_proxy(url: str) -> Iterator[PostgresqlProxy]:
    """Give a proxy to the server of a database's address, for as long as the block runs."""
    proxy = PostgresqlProxy(url)
    try:
        yield proxy
    finally:
        proxy.close()
