"""Streams that break, servers told to stop, clients without a certificate: nothing hangs, nothing is plaintext."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest
from fabric_protos.peer import chaincode_shim_pb2

from chaincode.errors import ServerSettingsError
from chaincode.shim.handler import Answer
from chaincode.shim.server import ChaincodeServer, ServerSettings, TlsFiles
from chaincode.shim.stub import Stub
from tests.support.chaincode_peer import ChaincodePeer, RunningServer
from tests.support.tls_credential import TlsAuthority

Message = chaincode_shim_pb2.ChaincodeMessage
ROOT = Path(__file__).parents[2]


async def read_one(stub: Stub) -> Answer:
    return Answer(payload=await stub.get_state("k") or b"")


def tls_files(folder: Path, authority: TlsAuthority) -> TlsFiles:
    own = authority.issue("chaincode")
    for name, content in (("cert", own.certificate), ("key", own.key), ("ca", authority.certificate)):
        (folder / name).write_bytes(content)
    return TlsFiles(folder / "cert", folder / "key", folder / "ca")


def test_pending_requests_fail_when_the_stream_ends() -> None:
    seen: list[str] = []

    async def invoke(stub: Stub) -> Answer:
        try:
            await stub.get_state("k")
        except Exception as error:
            seen.append(type(error).__name__)
            raise
        finally:
            ended.set()
        return Answer()

    async def main() -> None:
        async with RunningServer(invoke) as peer:
            peer.hold.add("GET_STATE")
            peer.propose("f")
            await peer.held.get()
            await peer.cut()
            await asyncio.wait_for(ended.wait(), 10)
            assert seen == ["StreamEndedError"]

    ended = asyncio.Event()
    asyncio.run(main())


def test_a_second_stream_is_served_after_the_first_was_cut() -> None:
    async def main() -> None:
        server = RunningServer(read_one)
        async with server as peer:
            await peer.cut()
            async with ChaincodePeer(peer.address) as again:
                again.state["", "k"] = b"v"
                assert (await again.call("f")).payload == b"v"

    asyncio.run(main())


def test_a_message_that_fits_no_state_ends_the_stream() -> None:
    async def main() -> None:
        async with RunningServer(read_one) as peer:
            peer.send(Message(type=Message.REGISTER))
            await asyncio.wait_for(peer.ended.wait(), 10)

    asyncio.run(main())


def test_a_reply_nobody_waits_for_is_ignored() -> None:
    async def main() -> None:
        async with RunningServer(read_one) as peer:
            peer.send(Message(type=Message.RESPONSE, txid="unknown", channel_id="consortium"))
            assert (await peer.call("f")).status == 200

    asyncio.run(main())


def test_stopping_answers_what_runs_and_refuses_what_is_new() -> None:
    async def main() -> None:
        server = RunningServer(read_one)
        async with server as peer:
            peer.hold.add("GET_STATE")
            running = peer.propose("f")
            held = await peer.held.get()
            stopping = asyncio.create_task(server.server.stop())
            late = peer.propose("f")
            await asyncio.sleep(0)
            refused = await asyncio.wait_for(late, 10)
            assert (refused.status, refused.message) == (500, "the chaincode is shutting down")
            peer.release(held)
            assert (await asyncio.wait_for(running, 10)).status == 200
            await stopping

    asyncio.run(main())


def test_mutual_tls_serves_known_peers_and_nobody_else(tmp_path: Path) -> None:
    async def connect(port: int, credentials: Any) -> bytes:
        async with ChaincodePeer(f"127.0.0.1:{port}", credentials=credentials) as peer:
            return bytes((await peer.call("f")).status)

    async def main() -> None:
        authority, stranger = TlsAuthority(), TlsAuthority("stranger")
        settings = ServerSettings("127.0.0.1:0", "service:1", "ServiceMSP", tls_files(tmp_path, authority))
        server = ChaincodeServer(read_one, settings)
        port = await server.start()
        try:
            for issuer, is_served in ((authority, True), (stranger, False), (None, False)):
                own = issuer.issue("peer") if issuer else None
                credentials = grpc.ssl_channel_credentials(
                    authority.certificate, own.key if own else None, own.certificate if own else None
                )
                if is_served:
                    await connect(port, credentials)
                else:
                    with pytest.raises(ConnectionError):
                        await connect(port, credentials)
            with pytest.raises(ConnectionError):
                await connect(port, None)
        finally:
            await server.stop()

    asyncio.run(main())


@pytest.mark.parametrize("name", ["cert", "key", "ca"])
@pytest.mark.parametrize("content", [None, b"no PEM"])
def test_a_file_that_is_missing_or_unusable_stops_the_start(tmp_path: Path, name: str, content: bytes | None) -> None:
    files = tls_files(tmp_path, TlsAuthority())
    if content is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_bytes(content)

    with pytest.raises(ServerSettingsError, match=str(tmp_path / name)):
        files.credentials()


def test_a_key_of_another_certificate_stops_the_start(tmp_path: Path) -> None:
    authority = TlsAuthority()
    files = tls_files(tmp_path, authority)
    files.key.write_bytes(authority.issue("other").key)

    with pytest.raises(ServerSettingsError, match="is not the key of the certificate"):
        files.credentials()


COMMAND = [
    sys.executable,
    "-c",
    "from chaincode.main import chaincode; chaincode()",
    "serve",
    "chaincode.service:contract",
]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ([], "--tls-cert and --tls-key are needed"),
        (["--tls-cert", "a", "--tls-key", "b"], "--client-ca"),
        (["--tls-cert", "a", "--plaintext"], "contradicts"),
        (["--plaintext", "--msp-id", "ServiceMSP"], "the package id is missing"),
        (["--plaintext", "--package-id", "p:1"], "the organisation is missing"),
    ],
)
def test_the_command_refuses_what_is_left_open(options: list[str], reason: str) -> None:
    environment = {"PATH": os.environ["PATH"]}

    done = subprocess.run(
        [*COMMAND, *options], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=30, check=False
    )

    assert done.returncode == 1
    assert reason in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_serves_until_a_signal_and_exits_with_0(number: signal.Signals) -> None:
    environment = {"PATH": os.environ["PATH"], "CORE_CHAINCODE_ID_NAME": "p:1", "CORE_PEER_LOCALMSPID": "ServiceMSP"}
    command = [*COMMAND, "--plaintext", "--address", "127.0.0.1:0"]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            assert '"event": "serving"' in process.stderr.readline()
        finally:
            process.send_signal(number)
        assert process.wait(20) == 0


def test_a_taken_port_is_named() -> None:
    environment = {"PATH": os.environ["PATH"], "CHAINCODE_ID": "p:1", "CORE_PEER_LOCALMSPID": "ServiceMSP"}
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"

        done = subprocess.run(
            [*COMMAND, "--plaintext", "--address", address],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    assert done.returncode == 1
    assert f"cannot listen on {address}" in done.stderr
