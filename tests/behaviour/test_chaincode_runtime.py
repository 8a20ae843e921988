"""Our chaincode runtime, judged by the peer's half of the stream over real sockets.

The names of the first tests follow the executed defects of the published Python shim: each is a thing ours must do.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest
from fabric_protos.peer import chaincode_shim_pb2, proposal_response_pb2

from chaincode.contract import Context, Contract
from chaincode.errors import ConflictError, InvalidKeyError, PeerRefusedError
from chaincode.shim.handler import Answer
from chaincode.shim.stub import Stub
from tests.support.chaincode_peer import BATCH, TIMESTAMP, RunningServer, issue_client
from tests.support.credential import root_authority

Message = chaincode_shim_pb2.ChaincodeMessage


def run(main: Coroutine[Any, Any, None]) -> None:
    asyncio.run(main)


def script(act: Callable[[Stub], Awaitable[object]]) -> Callable[[Stub], Awaitable[Answer]]:
    """Make a chaincode that answers what the function gives, as text."""

    async def invoke(stub: Stub) -> Answer:
        result = await act(stub)
        return Answer(payload=result if isinstance(result, bytes) else repr(result).encode())

    return invoke


async def called(act: Callable[[Stub], Awaitable[object]], *arguments: str, **offers: int) -> Any:
    async with RunningServer(script(act), **offers) as peer:
        return await peer.call(*(arguments or ("f",)))


def client() -> bytes:
    return issue_client(root_authority("ServiceMSP"), role="agent")


def test_registers_with_its_package_id() -> None:
    async def main() -> None:
        async with RunningServer(script(lambda stub: stub.get_state("k"))) as peer:
            assert peer.package_id == "service:0a1b"

    run(main())


def test_answers_many_transactions_in_flight() -> None:  # C1: one writer per stream
    async def act(stub: Stub) -> bytes:
        for number in range(5):
            await stub.put_state(f"{stub.tx_id}-{number}", b"v")
        return stub.tx_id.encode()

    async def main() -> None:
        async with RunningServer(script(act)) as peer:
            answers = await asyncio.gather(*[peer.call("f", tx_id=f"tx{number}") for number in range(100)])
            assert [answer.payload for answer in answers] == [f"tx{number}".encode() for number in range(100)]
            assert len(peer.state) == 500

    run(main())


def test_an_error_of_the_peer_is_raised_where_it_was_asked() -> None:  # C2
    async def act(stub: Stub) -> str:
        try:
            await stub.get_state("k")
        except PeerRefusedError as error:
            return f"{error.request} {error.text}"
        return "taken for a value"

    async def main() -> None:
        async with RunningServer(script(act)) as peer:
            peer.refuse["GET_STATE"] = "no such collection"
            assert (await peer.call("f")).payload == b"'GET_STATE no such collection'"

    run(main())


@pytest.mark.parametrize(("key", "value"), [("", b"v"), ("k", b""), ("k", "text"), ("k", None), ("\ud800", b"v")])
def test_refuses_writes_that_no_ledger_takes(key: str, value: Any) -> None:  # C2: put with an empty key
    async def act(stub: Stub) -> str:
        with pytest.raises(InvalidKeyError):
            await stub.put_state(key, value)
        return "refused"

    async def main() -> None:
        answer = await called(act)
        assert answer.payload == b"'refused'"
        assert answer.requests == []

    run(main())


def test_the_last_event_reaches_the_peer() -> None:  # C3
    async def act(stub: Stub) -> None:
        stub.set_event("first", b"1")
        stub.set_event("last", b"2")

    async def main() -> None:
        assert (await called(act)).event == ("last", b"2")

    run(main())


def test_a_refusal_carries_no_event() -> None:
    async def invoke(stub: Stub) -> Answer:
        stub.set_event("opened")
        return Answer(409)

    async def main() -> None:
        async with RunningServer(invoke) as peer:
            answer = await peer.call("f")
            assert (answer.status, answer.event) == (409, None)

    run(main())


def test_an_event_needs_a_name() -> None:
    async def act(stub: Stub) -> None:
        with pytest.raises(InvalidKeyError):
            stub.set_event("")

    async def main() -> None:
        assert (await called(act)).status == 200

    run(main())


def test_private_data_is_written_read_hashed_deleted_and_purged() -> None:  # C4
    async def act(stub: Stub) -> bytes:
        step = stub.arguments[1]
        if step == b"put":
            await stub.put_private_data("service", "k", stub.transient["value"])
        elif step == b"delete":
            await stub.delete_private_data("service", "k")
        elif step == b"purge":
            await stub.purge_private_data("service", "k")
        value = await stub.get_private_data("service", "k")
        digest = await stub.get_private_data_hash("service", "k")
        return repr((value, digest)).encode()

    async def main() -> None:
        async with RunningServer(script(act)) as peer:
            put = await peer.call("f", "put", transient={"value": b"secret"})
            assert put.payload == b"(None, None)"  # a transaction does not read its own writes
            read = await peer.call("f", "read")
            assert read.payload == repr((b"secret", hashlib.sha256(b"secret").digest())).encode()
            assert (await peer.call("f", "purge")).writes[0].type == chaincode_shim_pb2.WriteRecord.PURGE_PRIVATE_DATA
            assert (await peer.call("f", "delete")).writes[0].type == chaincode_shim_pb2.WriteRecord.DEL_STATE
            assert (await peer.call("f", "read")).payload == b"(None, None)"

    run(main())


def test_validation_parameters_are_set_and_read() -> None:  # C4
    async def act(stub: Stub) -> object:
        if stub.arguments[1] == b"set":
            await stub.set_state_validation_parameter("k", b"policy")
            await stub.set_private_data_validation_parameter("service", "k", b"private policy")
        return (
            await stub.get_state_validation_parameter("k"),
            await stub.get_private_data_validation_parameter("service", "k"),
        )

    async def main() -> None:
        async with RunningServer(script(act)) as peer:
            assert (await peer.call("f", "set")).payload == b"(None, None)"
            assert (await peer.call("f", "read")).payload == b"(b'policy', b'private policy')"

    run(main())


def test_gives_what_the_proposal_says() -> (
    None
):  # C4: arguments, binding, decorations, transient; C13: binary arguments
    async def act(stub: Stub) -> object:
        return (stub.arguments, stub.channel_id, stub.timestamp, dict(stub.decorations), stub.binding, stub.creator)

    async def main() -> None:
        async with RunningServer(script(act)) as peer:
            answer = await peer.call("f", b"\xff\x00", creator=b"me")
            binding = hashlib.sha256(b"nonce" + b"me" + bytes(8)).digest()
            decorations = {"decoration": b"of the peer"}
            expected = ((b"f", b"\xff\x00"), "consortium", TIMESTAMP, decorations, binding, b"me")
            assert answer.payload == repr(expected).encode()

    run(main())


def test_calls_another_chaincode() -> None:  # C5
    seen = []

    def other(name: str, arguments: Any) -> Any:
        seen.append((name, list(arguments)))
        response = proposal_response_pb2.Response(status=404, message="none", payload=b"p")
        return Message(type=Message.COMPLETED, payload=response.SerializeToString())

    async def act(stub: Stub) -> object:
        await stub.invoke_chaincode("other", [b"g"])
        response = await stub.invoke_chaincode("other", [b"g", b"\xff"], "elsewhere")
        return (response.status, response.message, response.payload)

    async def main() -> None:
        async with RunningServer(script(act)) as peer:
            peer.other_chaincode = other
            assert (await peer.call("f")).payload == b"(404, 'none', b'p')"
            assert seen == [("other", [b"g"]), ("other/elsewhere", [b"g", b"\xff"])]

    run(main())


@pytest.mark.parametrize("error", [ValueError("secret"), SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError()])
def test_answers_whatever_the_contract_raises(error: BaseException) -> None:  # C6
    async def act(_: Stub) -> None:
        raise error

    async def main() -> None:
        async with RunningServer(script(act)) as peer:
            answer = await peer.call("f")
            assert (answer.status, answer.message) == (500, "internal error")
            assert (await peer.call("f")).status == 500

    run(main())


def test_answers_when_the_contract_never_comes_back() -> None:
    async def act(_: Stub) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0)  # cleaning up of its own

    async def main() -> None:
        async with RunningServer(script(act), seconds=0.05) as peer:
            answer = await peer.call("f")
            assert (answer.status, answer.message) == (500, "the transaction took too long")

    run(main())


def test_arguments_of_twelve_megabytes_pass() -> None:  # C7
    async def act(stub: Stub) -> bytes:
        return b"%d" % len(stub.arguments[1])

    async def main() -> None:
        async with RunningServer(script(act)) as peer:
            assert (await peer.call("f", bytes(12_000_000))).payload == b"12000000"

    run(main())


def test_a_result_above_the_limit_is_refused_and_the_stream_lives() -> None:
    async def act(stub: Stub) -> bytes:
        return bytes(int(stub.arguments[1]))

    async def main() -> None:
        async with RunningServer(script(act)) as peer:
            assert (await peer.call("f", str(101 * 1024 * 1024))).message == "the result is too large"
            assert (await peer.call("f", "1")).payload == b"\x00"

    run(main())


def test_the_context_never_comes_from_the_client() -> None:  # C8
    contract = Contract("c", "1")

    async def f(context, key: str) -> str:  # type: ignore[no-untyped-def]  # noqa: ANN001  # as people write it
        assert isinstance(context, Context)
        return key

    contract.transaction(f)

    async def main() -> None:
        async with RunningServer(contract) as peer:
            creator = client()
            assert (await peer.call("f", "k", creator=creator)).payload == b'"k"'
            refused = await peer.call("f", "context", "k", creator=creator)
            assert (refused.status, refused.message) == (400, "f takes (key); it got 2 arguments")

    run(main())


def test_only_registered_functions_are_called_and_statuses_are_the_contracts() -> None:  # C9
    contract = Contract("c", "1")

    @contract.query
    async def conflict(_: Context) -> None:
        raise ConflictError("it stands against it")

    async def main() -> None:
        async with RunningServer(contract) as peer:
            creator = client()
            unknown = await peer.call("_find", creator=creator)
            assert (unknown.status, unknown.message) == (404, "there is no such function; there are: conflict")
            refused = await peer.call("conflict", creator=creator)
            assert (refused.status, refused.message) == (409, "it stands against it")

    run(main())


def test_an_open_range_leaves_composite_keys_out() -> None:  # C10
    async def act(stub: Stub) -> object:
        async with await stub.get_state_by_range("", "") as rows:
            return [row.key async for row in rows]

    async def main() -> None:
        async with RunningServer(script(act)) as peer:
            peer.state = {("", "\x00t\x00a\x00"): b"1", ("", "a"): b"1", ("", "钥"): b"1"}
            assert (await peer.call("f")).payload == repr(["a", "钥"]).encode()

    run(main())


def test_pages_have_a_bookmark_and_a_count() -> None:  # C11
    async def act(stub: Stub) -> object:
        page = await stub.get_composite_key_page("t", [], 2, stub.arguments[1].decode())
        return ([row.value for row in page.entries], page.fetched, page.bookmark)

    async def main() -> None:
        async with RunningServer(script(act)) as peer:
            peer.state = {("", f"\x00t\x00{number}\x00"): b"%d" % number for number in range(3)}
            peer.state["", "\x00u\x000\x00"] = b"other"
            assert (await peer.call("f", "")).payload == repr(([b"0", b"1"], 2, "\x00t\x002\x00")).encode()
            assert (await peer.call("f", "\x00t\x002\x00")).payload == repr(([b"2"], 1, "")).encode()
            assert (await peer.call("f", "\x00a\x00")).status == 500  # would show keys of another type

    run(main())


def test_a_bookmark_from_elsewhere_shows_no_other_keys() -> None:
    async def act(stub: Stub) -> object:
        page = await stub.get_state_page("b", "d", 2, stub.arguments[1].decode())
        return [row.key for row in page.entries]

    async def main() -> None:
        async with RunningServer(script(act)) as peer:
            peer.state = {("", key): b"1" for key in ("\x00t\x000\x00", "a", "b", "c", "d")}
            assert (await peer.call("f", "c")).payload == repr(["c"]).encode()
            for elsewhere in ("\x00t\x00", "a", "d", "e"):
                assert (await peer.call("f", elsewhere)).status == 500

    run(main())


def test_all_composite_keys_come_in_pages() -> None:
    async def act(stub: Stub) -> object:
        page = await stub.get_all_composite_keys_page(2, stub.arguments[1].decode())
        return ([row.key for row in page.entries], page.bookmark)

    async def main() -> None:
        async with RunningServer(script(act)) as peer:
            keys = [f"\x00{kind}\x000\x00" for kind in ("t", "u", "v")]
            peer.state = {("", key): b"1" for key in (*keys, "simple")}
            assert (await peer.call("f", "")).payload == repr((keys[:2], keys[2])).encode()
            assert (await peer.call("f", keys[2])).payload == repr((keys[2:], "")).encode()

    run(main())


@pytest.mark.parametrize(("rows", "fetches"), [(BATCH - 1, 0), (BATCH, 1), (2 * BATCH - 1, 1), (2 * BATCH, 2)])
def test_the_last_row_of_a_batch_comes_with_the_next_batch(rows: int, fetches: int) -> None:
    # What was fetched counts as read: endorsers on Go's shim and on ours have to fetch at the same rows.
    async def act(stub: Stub) -> object:
        async with await stub.get_state_by_range("", "") as entries:
            return [await anext(entries) for _ in range(rows)][-1].key

    async def main() -> None:
        async with RunningServer(script(act)) as peer:
            peer.state = {("", f"{number:04d}"): b"1" for number in range(3 * BATCH)}
            answer = await peer.call("f")
            assert answer.payload == repr(f"{rows - 1:04d}").encode()
            assert answer.requests.count("QUERY_STATE_NEXT") == fetches
            assert not peer.open_iterators

    run(main())


def test_queries_of_the_state_database_come_whole_and_in_pages() -> None:
    async def act(stub: Stub) -> object:
        found = [row.key async for row in await stub.get_query_result("1")]
        private = [row.key async for row in await stub.get_private_data_query_result("c", "1")]
        first = await stub.get_query_page("1", 2)
        second = await stub.get_query_page("1", 2, first.bookmark)
        return (found, private, [row.key for row in first.entries], [row.key for row in second.entries])

    async def main() -> None:
        async with RunningServer(script(act)) as peer:
            peer.state = {("", "a"): b"1a", ("", "b"): b"1b", ("", "c"): b"1c", ("", "d"): b"2", ("c", "p"): b"1"}
            expected = (["a", "b", "c"], ["p"], ["a", "b"], ["c"])
            assert (await peer.call("f")).payload == repr(expected).encode()
            peer.refuse["GET_QUERY_RESULT"] = "not supported for leveldb"
            assert (await peer.call("f")).status == 500

    run(main())


def test_the_client_has_a_name_as_in_go_and_attributes() -> None:  # C12
    contract = Contract("c", "1")

    @contract.query
    async def who(context: Context) -> list[str]:
        context.client.require_role("agent")
        return [context.client.msp_id, context.client.id]

    async def main() -> None:
        async with RunningServer(contract) as peer:
            issuer = root_authority("ServiceMSP")
            answer = await peer.call("who", creator=issue_client(issuer, "alice", role="agent"))
            name = issuer.certificate.subject.rfc4514_string()
            assert answer.json()[0] == "ServiceMSP"
            assert answer.json()[1].startswith("x509::CN=alice,OU=client::CN=")
            assert name.split(",")[0].split("=")[1] in answer.json()[1]
            refused = await peer.call("who", creator=issue_client(issuer, "mallory"))
            assert (refused.status, refused.message) == (403, "this needs one of the roles: agent")

    run(main())


def test_a_waiting_transaction_holds_up_no_other() -> None:  # C14
    async def act(stub: Stub) -> object:
        return await stub.get_state("k") if stub.arguments[0] == b"wait" else "quick"

    async def main() -> None:
        async with RunningServer(script(act)) as peer:
            peer.hold.add("GET_STATE")
            slow = peer.propose("wait")
            held = await peer.held.get()
            assert (await peer.call("quick")).payload == b"'quick'"
            assert not slow.done()
            peer.release(held)
            assert (await slow).status == 200

    run(main())


def test_a_plain_function_is_refused_at_registration() -> None:  # C14
    with pytest.raises(TypeError, match="f must be an `async def`"):

        @Contract("c", "1").transaction  # type: ignore[type-var]
        def f(_: Context) -> None: ...


def test_requests_of_one_transaction_wait_for_each_other() -> None:
    async def act(stub: Stub) -> object:
        return await asyncio.gather(*[stub.get_state(f"k{number}") for number in range(20)])

    async def main() -> None:
        async with RunningServer(script(act)) as peer:
            peer.state = {("", f"k{number}"): b"%d" % number for number in range(20)}
            assert (await peer.call("f")).payload == repr([b"%d" % number for number in range(20)]).encode()
            assert peer.dropped == 0

    run(main())


def test_a_request_that_was_given_up_is_waited_for_before_the_next() -> None:
    async def act(stub: Stub) -> object:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(stub.get_state("slow"), 0.01)
        gave_up.set()
        return await stub.get_state_validation_parameter("k")

    async def main() -> None:
        async with RunningServer(script(act)) as peer:
            peer.hold.add("GET_STATE")
            answer = peer.propose("f")
            held = await peer.held.get()
            await gave_up.wait()
            peer.release(held)
            assert (await asyncio.wait_for(answer, 10)).payload == b"None"
            assert peer.dropped == 0

    gave_up = asyncio.Event()
    run(main())


def test_the_stub_is_dead_after_the_answer() -> None:
    left: list[asyncio.Task[Any]] = []

    async def act(stub: Stub) -> str:
        async def later() -> object:
            await answered.wait()
            return await stub.get_state("k")

        left.append(asyncio.create_task(later()))
        return "answered"

    async def main() -> None:
        async with RunningServer(script(act)) as peer:
            await peer.call("f")
            answered.set()
            outcome = await asyncio.gather(*left, return_exceptions=True)
            assert [type(error).__name__ for error in outcome] == ["TransactionOverError"]

    answered = asyncio.Event()
    run(main())


def test_keepalive_is_echoed() -> None:
    async def main() -> None:
        async with RunningServer(script(lambda stub: stub.get_state("k"))) as peer:
            peer.send(Message(type=Message.KEEPALIVE))
            assert (await asyncio.wait_for(peer.keepalives.get(), 10)).type == Message.KEEPALIVE

    run(main())


async def write_five(stub: Stub) -> None:
    async with stub.write_batch():
        for number in range(5):
            await stub.put_state(f"k{number}", b"v")


def test_writes_go_in_batches_of_the_size_offered() -> None:
    async def main() -> None:
        answer = await called(write_five, write_batch=2)
        assert answer.requests == ["WRITE_BATCH_STATE"] * 3
        assert [record.key for record in answer.writes] == [f"k{number}" for number in range(5)]

    run(main())


def test_writes_go_one_by_one_when_no_batch_is_offered() -> None:
    async def main() -> None:
        assert (await called(write_five)).requests == ["PUT_STATE"] * 5

    run(main())


@pytest.mark.parametrize(("offered", "requests"), [(0, ["GET_STATE"] * 3), (2, ["GET_STATE_MULTIPLE"] * 2)])
def test_several_keys_are_read_as_offered(offered: int, requests: list[str]) -> None:
    async def act(stub: Stub) -> object:
        return await stub.get_states(["a", "b", "c"])

    async def main() -> None:
        async with RunningServer(script(act), get_multiple=offered) as peer:
            peer.state = {("", "a"): b"1", ("", "c"): b"3"}
            answer = await peer.call("f")
            assert answer.payload == b"[b'1', None, b'3']"
            assert answer.requests == requests

    run(main())


def test_a_long_range_is_read_to_its_end_and_closed() -> None:
    async def act(stub: Stub) -> object:
        async with await stub.get_state_by_range("k", "l") as rows:
            return len([row async for row in rows])

    async def main() -> None:
        async with RunningServer(script(act)) as peer:
            peer.state = {("", f"k{number:04}"): b"v" for number in range(250)}
            answer = await peer.call("f")
            assert answer.payload == b"250"
            assert answer.requests == ["GET_STATE_BY_RANGE", "QUERY_STATE_NEXT", "QUERY_STATE_NEXT"]

    run(main())


def test_a_range_left_early_is_closed_at_the_peer() -> None:
    async def act(stub: Stub) -> object:
        async with await stub.get_private_data_by_range("service", "", "") as rows:
            async for row in rows:
                return row.key
        return None

    async def main() -> None:
        async with RunningServer(script(act)) as peer:
            peer.state = {("service", f"k{number:04}"): b"v" for number in range(250)}
            answer = await peer.call("f")
            assert answer.payload == b"'k0000'"
            assert answer.requests == ["GET_STATE_BY_RANGE", "QUERY_STATE_CLOSE"]

    run(main())


def test_history_is_newest_first_with_deletes() -> None:
    async def act(stub: Stub) -> object:
        if stub.arguments[0] == b"put":
            await stub.put_state("k", b"v")
        elif stub.arguments[0] == b"delete":
            await stub.delete_state("k")
        async with await stub.get_history_for_key("k") as rows:
            return [(row.tx_id, row.value, row.timestamp) async for row in rows]

    async def main() -> None:
        async with RunningServer(script(act)) as peer:
            await peer.call("put", tx_id="t1")
            await peer.call("delete", tx_id="t2")
            assert (await peer.call("read")).payload == repr(
                [("t2", None, TIMESTAMP), ("t1", b"v", TIMESTAMP)]
            ).encode()

    run(main())


def test_a_query_cannot_write() -> None:
    contract = Contract("c", "1")

    @contract.query
    async def peek(context: Context) -> None:
        await context.stub.put_state("k", b"v")

    async def main() -> None:
        async with RunningServer(contract) as peer:
            answer = await peer.call("peek", creator=client())
            assert (answer.status, answer.message, answer.requests) == (500, "a query does not write", [])

    run(main())


def test_describes_its_functions() -> None:
    contract = Contract("c", "1")

    @contract.transaction
    async def put(_: Context, key: str, count: int = 0) -> None: ...

    async def main() -> None:
        async with RunningServer(contract) as peer:
            described = (await peer.call("org.hyperledger.fabric:GetMetadata")).json()
            assert described["contracts"]["c"]["transactions"] == [
                {
                    "name": "put",
                    "tag": ["SUBMIT"],
                    "parameters": [
                        {"name": "key", "schema": {"type": "string"}},
                        {"name": "count", "schema": {"type": "integer"}, "description": "may be left out"},
                    ],
                }
            ]

    run(main())


def test_a_proposal_that_cannot_be_read_is_answered() -> None:
    def spoil(message: Any) -> None:
        message.proposal.proposal_bytes = b"\xff"

    async def main() -> None:
        async with RunningServer(script(lambda stub: stub.get_state("k"))) as peer:
            answer = await peer.call("f", spoil=spoil)
            assert (answer.status, answer.message) == (500, "the proposal cannot be decoded")

    run(main())
