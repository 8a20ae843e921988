"""The peer's half of the chaincode stream, over real sockets with mutual TLS, against servers good and bad."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from fabric_protos.peer import chaincode_pb2, chaincode_shim_pb2, proposal_pb2, proposal_response_pb2

from network.embedded.ledger.chaincode import ChaincodeCall, ChaincodeError, ChaincodeResult, RequestRefusedError
from network.embedded.services.chaincode_connection import (
    ChaincodeConnection,
    ConnectionFileError,
    decode_connection,
)
from network.embedded.services.chaincode_stream import ChaincodeLauncher, RuntimeParameters
from tests.support.scripted_chaincode import Answered, PeerError, RunningTransaction, ScriptedChaincode
from tests.support.tls_credential import TlsAuthority

Message = chaincode_shim_pb2.ChaincodeMessage
PACKAGE_ID = "service_1:" + "ab" * 32


class Memory:
    """A conversation that keeps keys in memory."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.arrivals: asyncio.Queue[int] = asyncio.Queue()
        self.held_back = asyncio.Event()
        self.held_back.set()
        self.state: dict[str, bytes] = {}

    async def answer(self, message_type: int, payload: bytes) -> bytes:
        self.asked.append(message_type)
        self.arrivals.put_nowait(message_type)
        if message_type == Message.INVOKE_CHAINCODE:
            await self.held_back.wait()
            return b"called"
        if message_type == Message.PUT_STATE:
            put = chaincode_shim_pb2.PutState.FromString(payload)
            self.state[put.key] = put.value
            return b""
        get = chaincode_shim_pb2.GetState.FromString(payload)
        if get.key == "refused":
            raise RequestRefusedError("not for you")
        return self.state.get(get.key, b"")


def call(tx_id: str, *arguments: bytes, channel_id: str = "ch") -> ChaincodeCall:
    return ChaincodeCall(
        channel_id,
        tx_id,
        chaincode_pb2.ChaincodeInput(args=arguments),
        proposal_pb2.SignedProposal(proposal_bytes=b"", signature=b"signature of " + tx_id.encode()),
    )


def plain(address: str) -> ChaincodeConnection:
    return decode_connection(json.dumps({"address": address}).encode())


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(test())


async def executed(
    launcher: ChaincodeLauncher, server: ScriptedChaincode, tx_id: str = "tx1", conversation: Any = None
) -> ChaincodeResult:
    return await launcher.execute(PACKAGE_ID, plain(server.address), call(tx_id, b"f", b"x"), conversation or Memory())


def response(result: ChaincodeResult) -> Any:
    """Read the answer of a chaincode."""
    assert not result.is_error
    return proposal_response_pb2.Response.FromString(result.payload)


async def echo(transaction: RunningTransaction) -> Answered:
    await transaction.put("k", b"v")
    return Answered(payload=await transaction.get("k") + b"".join(transaction.arguments), event=("done", b"e"))


def test_a_transaction_reads_writes_and_answers_with_an_event_over_mutual_tls() -> None:
    async def test() -> None:
        authority = TlsAuthority()
        peer = authority.issue("peer")
        async with ScriptedChaincode(PACKAGE_ID, echo, authority=authority) as server:
            connection = decode_connection(
                json.dumps(
                    {
                        "address": server.address,
                        "dial_timeout": "10s",
                        "tls_required": True,
                        "client_auth_required": True,
                        "root_cert": authority.certificate.decode(),
                        "client_cert": peer.certificate.decode(),
                        "client_key": peer.key.decode(),
                    }
                ).encode()
            )
            launcher = ChaincodeLauncher()

            result = await launcher.execute(PACKAGE_ID, connection, call("tx1", b"f", b"x"), Memory())
            await launcher.close()

        assert (response(result).status, response(result).payload) == (200, b"vfx")
        assert (result.event.event_name, result.event.payload) == ("done", b"e")
        kinds = [message.type for message in server.received]
        assert kinds == [
            Message.REGISTERED,
            Message.READY,
            Message.TRANSACTION,
            Message.RESPONSE,
            Message.RESPONSE,
        ]
        assert server.received[2].proposal.signature == b"signature of tx1"

    run(test)


def test_a_server_with_mutual_tls_refuses_a_peer_of_another_authority() -> None:
    async def test() -> None:
        authority = TlsAuthority()
        stranger = TlsAuthority("stranger").issue("peer")
        async with ScriptedChaincode(PACKAGE_ID, echo, authority=authority) as server:
            connection = ChaincodeConnection(
                server.address, 5.0, True, authority.certificate, stranger.certificate, stranger.key
            )
            launcher = ChaincodeLauncher()
            with pytest.raises(ChaincodeError, match="could not launch chaincode"):
                await launcher.execute(PACKAGE_ID, connection, call("tx1"), Memory())
            await launcher.close()
        assert server.streams == 0

    run(test)


@pytest.mark.parametrize("offered", [True, False])
def test_ready_tells_what_the_peer_offers(offered: bool) -> None:
    async def test() -> None:
        launcher = ChaincodeLauncher(RuntimeParameters(use_write_batch=offered, use_get_multiple_keys=offered))
        async with ScriptedChaincode(PACKAGE_ID, echo) as server:
            await executed(launcher, server)
            await launcher.close()
        ready = chaincode_pb2.ChaincodeAdditionalParams.FromString(server.received[1].payload)
        assert (ready.use_write_batch, ready.use_get_multiple_keys) == (offered, offered)
        assert (ready.max_size_write_batch, ready.max_size_get_multiple_keys) == (1000, 1000)

    run(test)


def test_concurrent_transactions_share_one_stream() -> None:
    async def test() -> None:
        launcher = ChaincodeLauncher()
        async with ScriptedChaincode(PACKAGE_ID, echo) as server:
            results = await asyncio.gather(*[executed(launcher, server, f"tx{number}") for number in range(50)])
            await launcher.close()
        assert [response(result).payload for result in results] == [b"vfx"] * 50
        assert server.streams == 1

    run(test)


def test_a_refused_request_comes_back_as_error_in_fabrics_words() -> None:
    seen = []

    async def script(transaction: RunningTransaction) -> Answered:
        try:
            await transaction.get("refused")
        except PeerError as error:
            seen.append(str(error))
        return Answered()

    async def test() -> None:
        launcher = ChaincodeLauncher()
        async with ScriptedChaincode(PACKAGE_ID, script) as server:
            await executed(launcher, server)
            await launcher.close()

    run(test)
    assert seen == ["GET_STATE failed: transaction ID: tx1: not for you"]


def test_a_second_request_of_a_transaction_that_still_waits_is_never_answered() -> None:
    memory: list[Memory] = []
    replies = []

    async def script(transaction: RunningTransaction) -> Answered:
        if transaction.tx_id == "tx2":
            await transaction.ask(Message.INVOKE_CHAINCODE)
            return Answered()
        transaction.send(Message.INVOKE_CHAINCODE)
        transaction.send(Message.GET_STATE, chaincode_shim_pb2.GetState(key="k").SerializeToString())
        other = await transaction.ask(Message.GET_STATE, chaincode_shim_pb2.GetState(key="k"))  # dropped as well
        replies.append(other)
        return Answered()

    async def test() -> None:
        memory.append(Memory())
        memory[0].held_back.clear()
        launcher = ChaincodeLauncher()
        async with ScriptedChaincode(PACKAGE_ID, script) as server, ScriptedChaincode(PACKAGE_ID, echo):
            waiting = asyncio.create_task(executed(launcher, server, "tx1", memory[0]))
            await memory[0].arrivals.get()
            # A later transaction asks on the same stream: by then the peer has read the two requests before it.
            second = asyncio.create_task(executed(launcher, server, "tx2", memory[0]))
            await memory[0].arrivals.get()
            memory[0].held_back.set()
            await asyncio.gather(waiting, second)
            await launcher.close()

    run(test)
    assert memory[0].asked == [Message.INVOKE_CHAINCODE] * 2
    assert replies == [b"called"]


def test_a_request_of_no_running_transaction_is_refused() -> None:
    async def script(transaction: RunningTransaction) -> Answered:
        transaction.send(Message.GET_STATE, chaincode_shim_pb2.GetState(key="k").SerializeToString(), tx_id="gone")
        return Answered()

    async def test() -> None:
        launcher = ChaincodeLauncher()
        async with ScriptedChaincode(PACKAGE_ID, script) as server:
            await executed(launcher, server)
            await executed(launcher, server, "tx2")
            await launcher.close()
        errors = [message for message in server.received if message.type == Message.ERROR]
        assert errors[0].payload == b"GET_STATE failed: transaction ID: gone: no ledger context"

    run(test)


def test_a_transaction_without_answer_times_out_and_the_stream_stays() -> None:
    async def script(transaction: RunningTransaction) -> Answered | None:
        return None if transaction.tx_id == "silent" else Answered(payload=b"ok")

    async def test() -> None:
        launcher = ChaincodeLauncher(execute_timeout_seconds=2)
        async with ScriptedChaincode(PACKAGE_ID, script) as server:
            with pytest.raises(ChaincodeError) as raised:
                await executed(launcher, server, "silent")
            result = await executed(launcher, server, "tx2")
            await launcher.close()
        assert str(raised.value) == ("error sending: timeout expired while executing transaction")
        assert response(result).payload == b"ok"
        assert server.streams == 1

    run(test)


def test_an_error_of_the_chaincode_is_handed_on_as_one() -> None:
    async def script(transaction: RunningTransaction) -> None:
        transaction.send(Message.ERROR, b"init failed")

    async def test() -> None:
        launcher = ChaincodeLauncher()
        async with ScriptedChaincode(PACKAGE_ID, script) as server:
            result = await executed(launcher, server)
            await launcher.close()
        assert result == ChaincodeResult(b"init failed", None, is_error=True)

    run(test)


@pytest.mark.parametrize("payload", [b"", b"\xff", b"\x08"], ids=["nothing", "no message", "half a message"])
def test_an_answer_that_is_no_response_is_handed_on_as_it_is(payload: bytes) -> None:
    async def script(transaction: RunningTransaction) -> None:
        transaction.send(Message.COMPLETED, payload)

    async def test() -> None:
        launcher = ChaincodeLauncher()
        async with ScriptedChaincode(PACKAGE_ID, script) as server:
            result = await executed(launcher, server)
            await launcher.close()
        assert result == ChaincodeResult(payload)

    run(test)


def test_of_two_answers_the_first_counts_and_the_second_harms_nobody() -> None:
    async def script(transaction: RunningTransaction) -> Answered:
        if transaction.tx_id == "twice":
            transaction.send(Message.ERROR, b"the first answer")
        return Answered(payload=b"the last answer")

    async def test() -> None:
        launcher = ChaincodeLauncher()
        async with ScriptedChaincode(PACKAGE_ID, script) as server:
            first = await executed(launcher, server, "twice")
            other = await executed(launcher, server, "tx2")
            await launcher.close()
        assert first.payload == b"the first answer"
        assert response(other).payload == b"the last answer"
        assert server.streams == 1

    run(test)


def test_an_answer_to_a_transaction_that_timed_out_is_dropped_and_its_requests_are_refused() -> None:
    go_on = asyncio.Event()

    async def script(transaction: RunningTransaction) -> Answered:
        if transaction.tx_id == "slow":
            await go_on.wait()
            with pytest.raises(PeerError, match=r"^GET_STATE failed: transaction ID: slow: no ledger context$"):
                await transaction.get("k")
        return Answered(payload=transaction.tx_id.encode())

    async def test() -> None:
        launcher = ChaincodeLauncher(execute_timeout_seconds=2)
        async with ScriptedChaincode(PACKAGE_ID, script) as server:
            with pytest.raises(ChaincodeError, match="timeout expired"):
                await executed(launcher, server, "slow")
            go_on.set()
            result = await executed(launcher, server, "tx2")
            again = await executed(launcher, server, "tx3")
            await launcher.close()
        assert [response(it).payload for it in (result, again)] == [b"tx2", b"tx3"]
        refused = [message.payload for message in server.received if message.type == Message.ERROR]
        assert refused == [b"GET_STATE failed: transaction ID: slow: no ledger context"]
        assert server.streams == 1

    run(test)


@pytest.mark.parametrize("kind", [Message.REGISTER, Message.READY, Message.TRANSACTION, Message.RESPONSE, 4711])
def test_a_message_that_only_peers_send_ends_the_stream(kind: int) -> None:
    async def script(transaction: RunningTransaction) -> None:
        transaction.send(kind)

    async def test() -> None:
        launcher = ChaincodeLauncher()
        async with ScriptedChaincode(PACKAGE_ID, script) as server:
            with pytest.raises(ChaincodeError, match=r"^error sending: chaincode stream terminated$"):
                await executed(launcher, server)
            await launcher.close()

    run(test)


def test_late_answers_and_keepalive_are_ignored() -> None:
    async def script(transaction: RunningTransaction) -> Answered:
        transaction.send(Message.COMPLETED, b"", tx_id="long gone")
        transaction.send(Message.KEEPALIVE)
        return Answered(payload=b"ok")

    async def test() -> None:
        launcher = ChaincodeLauncher()
        async with ScriptedChaincode(PACKAGE_ID, script) as server:
            result = await executed(launcher, server)
            await launcher.close()
        assert (response(result).payload, server.streams) == (b"ok", 1)

    run(test)


def test_an_unknown_message_ends_the_stream_and_the_next_transaction_dials_anew() -> None:
    async def script(transaction: RunningTransaction) -> Answered | None:
        if transaction.tx_id == "bad":
            transaction.send(Message.REGISTERED)
            return None
        return Answered(payload=b"ok")

    async def test() -> None:
        launcher = ChaincodeLauncher()
        async with ScriptedChaincode(PACKAGE_ID, script) as server:
            with pytest.raises(ChaincodeError, match=r"^error sending: chaincode stream terminated$"):
                await executed(launcher, server, "bad")
            result = await executed(launcher, server, "tx2")
            await launcher.close()
        assert (response(result).payload, server.streams) == (b"ok", 2)

    run(test)


def test_nobody_listening_is_an_immediate_error_that_names_package_and_address() -> None:
    async def test() -> None:
        async with ScriptedChaincode(PACKAGE_ID, echo) as server:
            pass
        launcher = ChaincodeLauncher()
        async with asyncio.timeout(2.5):  # below the dial timeout
            with pytest.raises(ChaincodeError) as raised:
                await executed(launcher, server)
        await launcher.close()
        assert str(raised.value) == (
            f"could not launch chaincode {PACKAGE_ID}: connection to {PACKAGE_ID} failed: error cannot create "
            f"connection for {PACKAGE_ID}: error creating grpc connection to {server.address}: failed to create new "
            f'connection: connection error: desc = "transport: error while dialing: dial tcp {server.address}: '
            'connect: connection refused"'
        )

    run(test)


def test_a_failed_dial_is_not_remembered() -> None:
    async def test() -> None:
        async with ScriptedChaincode(PACKAGE_ID, echo) as gone:
            pass
        launcher = ChaincodeLauncher()
        with pytest.raises(ChaincodeError):
            await executed(launcher, gone)
        async with ScriptedChaincode(PACKAGE_ID, echo, address=gone.address) as server:
            result = await executed(launcher, server)
            await launcher.close()
        assert response(result).status == 200

    run(test)


def test_transactions_that_wait_for_anothers_launch_are_told_of_its_failure() -> None:
    async def test() -> None:
        async with ScriptedChaincode(PACKAGE_ID, echo) as server:
            pass
        launcher = ChaincodeLauncher()
        failures = await asyncio.gather(
            *[executed(launcher, server, f"tx{number}") for number in range(3)], return_exceptions=True
        )
        await launcher.close()
        texts = [str(failure) for failure in failures]
        assert ["chaincode registration failed: " in text for text in texts] == [False, True, True]

    run(test)


@pytest.mark.parametrize(
    "first",
    [
        Message(type=Message.REGISTER, payload=chaincode_pb2.ChaincodeID(name="another:id").SerializeToString()),
        Message(type=Message.REGISTER, payload=b"\xff"),
        Message(type=Message.COMPLETED),
    ],
    ids=["another package", "no chaincode id", "no registration"],
)
def test_a_server_that_does_not_register_as_the_package_gets_no_transaction(first: Any) -> None:
    async def test() -> None:
        launcher = ChaincodeLauncher()
        async with ScriptedChaincode(PACKAGE_ID, echo, first_message=first) as server:
            with pytest.raises(ChaincodeError) as raised:
                await executed(launcher, server)
            await launcher.close()
        assert str(raised.value).endswith(f"timeout expired while starting chaincode {PACKAGE_ID} for transaction")
        assert server.received == []

    run(test)


def test_a_server_that_says_nothing_is_given_up() -> None:
    async def test() -> None:
        launcher = ChaincodeLauncher(startup_timeout_seconds=0.1)
        silence = Message(type=Message.KEEPALIVE)
        async with ScriptedChaincode(PACKAGE_ID, echo, first_message=silence) as server:
            with pytest.raises(ChaincodeError, match="timeout expired while starting chaincode"):
                await executed(launcher, server)
            await launcher.close()

    run(test)


def test_arguments_far_above_the_default_limit_of_grpc_pass() -> None:
    async def script(transaction: RunningTransaction) -> Answered:
        return Answered(payload=transaction.arguments[0])

    async def test() -> None:
        launcher = ChaincodeLauncher()
        async with ScriptedChaincode(PACKAGE_ID, script) as server:
            large = bytes(12 * 1024 * 1024)
            result = await launcher.execute(PACKAGE_ID, plain(server.address), call("tx1", large), Memory())
            await launcher.close()
        assert response(result).payload == large

    run(test)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({}, "chaincode address not provided"),
        ({"address": 7}, "address of connection.json is no text"),
        ({"address": "{{.peername}}_cc:9999"}, "chaincode address is a template"),
        ({"address": "a:1", "tls_required": True}, "chaincode tls root cert not provided"),
        (
            {"address": "a:1", "tls_required": True, "root_cert": "r", "client_auth_required": True},
            "chaincode tls key not provided",
        ),
        (
            {
                "address": "a:1",
                "tls_required": True,
                "root_cert": "r",
                "client_auth_required": True,
                "client_key": "k",
            },
            "chaincode tls cert not provided",
        ),
        ({"address": "a:1", "dial_timeout": "soon"}, "dial_timeout of connection.json is no duration"),
    ],
)
def test_a_connection_file_that_cannot_be_used_is_refused(fields: dict[str, Any], text: str) -> None:
    with pytest.raises(ConnectionFileError, match=text):
        decode_connection(json.dumps(fields).encode())


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b"[" * 100_000])
def test_a_connection_file_that_is_no_object_is_refused(content: bytes) -> None:
    with pytest.raises(ConnectionFileError):
        decode_connection(content)


@pytest.mark.parametrize(
    ("text", "seconds"), [("", 3.0), ("10s", 10.0), ("1m30s", 60.0), ("250ms", 0.25), ("1.5s", 1.5)]
)
def test_dial_timeouts_are_read_as_go_writes_them_up_to_a_minute(text: str, seconds: float) -> None:
    connection = decode_connection(json.dumps({"address": "a:1", "dial_timeout": text}).encode())

    assert connection.dial_timeout_seconds == seconds


def test_a_connection_never_shows_its_key() -> None:
    assert "secret" not in repr(ChaincodeConnection("a:1", 1.0, True, b"", b"", b"secret"))
