"""One HTTP request to the admin or operations port of a node, and its whole answer.

Requests are HTTP/1.0: the answer ends with the connection, in one piece.
"""

import asyncio
import ssl
from contextlib import suppress
from typing import Final, NamedTuple

from network.errors import ReadinessError

TIMEOUT_SECONDS: Final = 20.0
MAX_ANSWER_BYTES: Final = 16 * 1024 * 1024


class Answer(NamedTuple):
    """Status and content; nothing else of an answer is looked at."""

    status: int
    content: bytes


async def ask(
    address: str,
    method: str,
    path: str,
    *,
    tls: ssl.SSLContext | None = None,
    content_type: str = "",
    content: bytes = b"",
) -> Answer:
    """Send a request to host:port, over TLS if a context is given, and read the answer.

    Raises OSError when there is no connection, or none any more; ReadinessError for what is no answer in HTTP, is too
    large, or comes too late.
    """
    head = [f"{method} {path} HTTP/1.0", f"Host: {address}", f"Content-Length: {len(content)}"]
    if content_type:
        head.append(f"Content-Type: {content_type}")
    request = "\r\n".join((*head, "\r\n")).encode() + content
    host, _, port = address.rpartition(":")
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            reader, writer = await asyncio.open_connection(host, int(port), ssl=tls)
            try:
                writer.write(request)
                await writer.drain()
                answer = await _whole(reader, address)
            finally:
                writer.close()
                with suppress(OSError):  # the answer is there, or its loss is told already
                    await writer.wait_closed()
    except TimeoutError as error:
        raise ReadinessError(f"{address} did not answer in {TIMEOUT_SECONDS:.0f} s") from error
    return _parsed(answer, address)


async def _whole(reader: asyncio.StreamReader, address: str) -> bytes:
    answer = bytearray()
    while part := await reader.read(64 * 1024):
        answer += part
        if len(answer) > MAX_ANSWER_BYTES:
            raise ReadinessError(f"{address} answers more than {MAX_ANSWER_BYTES} bytes")
    return bytes(answer)


def _parsed(answer: bytes, address: str) -> Answer:
    head, end, content = answer.partition(b"\r\n\r\n")
    protocol, _, rest = head.partition(b" ")
    status = rest[:3]
    if not end or not protocol.startswith(b"HTTP/") or not status.isdigit():
        raise ReadinessError(f"{address} does not answer in HTTP")
    return Answer(int(status), content)
