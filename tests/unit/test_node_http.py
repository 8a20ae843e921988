"""Requests to a node's admin and operations port: whole answers, and an error for whatever is none."""

import asyncio

import pytest

from network.errors import ReadinessError
from network.native import node_http
from network.native.node_http import Answer, ask


def asked(answer: bytes) -> tuple[Answer, bytes]:
    """Ask a node that answers with these bytes and closes; give the answer, and the request as it came."""
    received = bytearray()

    async def answered(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received.extend(await reader.readuntil(b"\r\n\r\n") + await reader.read(4))
        writer.write(answer)
        writer.close()

    async def run() -> Answer:
        server = await asyncio.start_server(answered, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            return await ask(f"127.0.0.1:{port}", "POST", "/path", content_type="text/plain", content=b"body")

    return asyncio.run(run()), bytes(received)


def test_an_answer_is_read_to_its_end() -> None:
    answer, request = asked(b"HTTP/1.0 201 Created\r\nA: b\r\n\r\n" + b"x" * 200_000 + b"\r\n\r\ny")

    assert answer == Answer(201, b"x" * 200_000 + b"\r\n\r\ny")
    assert request.startswith(b"POST /path HTTP/1.0\r\n")
    assert b"\r\nContent-Length: 4\r\nContent-Type: text/plain\r\n\r\nbody" in request


@pytest.mark.parametrize(
    "answer",
    [b"", b"HTTP/1.0 200 OK\r\n", b"SSH-2.0-x\r\n\r\n", b"HTTP/1.0 abc\r\n\r\n", b"HTTP/1.0\r\n\r\n", b"\x15\x03\x01"],
    ids=["nothing", "no end of head", "another protocol", "no number", "no status", "TLS"],
)
def test_what_is_no_answer_in_http_is_said_to_be_none(answer: bytes) -> None:
    with pytest.raises(ReadinessError, match=r"127\.0\.0\.1:\d+ does not answer in HTTP"):
        asked(answer)


def test_a_node_that_answers_without_end_is_not_listened_to_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_http, "MAX_ANSWER_BYTES", 100_000)

    with pytest.raises(ReadinessError, match="answers more than 100000 bytes"):
        asked(b"HTTP/1.0 200 OK\r\n\r\n" + b"x" * 200_000)


def test_a_node_that_is_silent_is_waited_for_only_so_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_http, "TIMEOUT_SECONDS", 0.05)

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async def run() -> Answer:
        async with await asyncio.start_server(silent, "127.0.0.1", 0) as server:
            return await ask(f"127.0.0.1:{server.sockets[0].getsockname()[1]}", "GET", "/")

    with pytest.raises(ReadinessError, match="did not answer in"):
        asyncio.run(run())


def test_nobody_listening_is_told_as_it_is() -> None:
    with pytest.raises(ConnectionRefusedError):
        asyncio.run(ask("127.0.0.1:1", "GET", "/"))
