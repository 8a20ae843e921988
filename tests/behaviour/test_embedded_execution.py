"""Contracts that are run, that call each other, and that answer anything at all."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fabric_protos.peer import chaincode_event_pb2, chaincode_shim_pb2, proposal_pb2, proposal_response_pb2
from fabric_protos.peer.lifecycle import lifecycle_pb2

from network.embedded.ledger.chaincode import ChaincodeError, ChaincodeResult, RequestRefusedError
from network.protocol.collection import encode_collections
from network.protocol.lifecycle import ChaincodeDefinition, field_key
from network.protocol.read_write_set import NamespaceSet, decode_read_write_set
from network.protocol.validation_code import MVCC_READ_CONFLICT, VALID
from tests.support.embedded_ledger import (
    BILLING,
    BOTH,
    CUSTOMER,
    SECOND,
    SERVICE,
    Behaviour,
    LedgerNetwork,
    Stub,
    collection,
    definition,
    deployed,
    get,
    put,
    with_second_channel,
)
from tests.support.generated_network import GeneratedNetwork

Message = chaincode_shim_pb2.ChaincodeMessage
STRANGER = ("BillingMSP", "agent")
INVALID = "invalid invocation: chaincode"
NOT_INITIALIZED = "has not been initialized for this version, must call as init first"


@pytest.fixture
def two_channels(generated: GeneratedNetwork, tmp_path: Path) -> Iterator[LedgerNetwork]:
    """Give a network whose second channel has chaincodes of the same names as the first."""
    with deployed(with_second_channel(generated), tmp_path / "network") as made:

        async def deploy() -> None:
            await made.deploy("other", definition(), BOTH, SECOND)
            await made.deploy("asset", definition(), BOTH, SECOND)

        made.run(deploy())
        yield made


def sets_of(response: Any) -> dict[str, NamespaceSet]:
    """Read the read-write set of an endorsement, by namespace."""
    payload = proposal_response_pb2.ProposalResponsePayload.FromString(response.payload)
    action = proposal_pb2.ChaincodeAction.FromString(payload.extension)
    return {found.namespace: found for found in decode_read_write_set(action.results)}


def endorsed(network: LedgerNetwork, behaviour: Behaviour) -> dict[str, NamespaceSet]:
    """Give the read-write set that a behaviour comes to."""
    response = network.run(network.propose(SERVICE, behaviour))
    assert response.response.status == 200, response.response.message
    return sets_of(response)


def failure(network: LedgerNetwork, behaviour: Behaviour, **fields: Any) -> str:
    """Give the words of a peer that could not run a contract, without the id in them."""

    async def story() -> str:
        proposal = network.proposal([network.behaviours.add(behaviour)], **fields)
        response = await network.ask(SERVICE, proposal)
        assert (response.response.status, response.payload) == (500, b"")
        return str(response.response.message).replace(proposal.tx_id, "ID")

    return network.run(story())


def refused(network: LedgerNetwork, name: str, *arguments: bytes, **fields: Any) -> str:
    """Give the words in which a call of a chaincode is refused."""

    async def behave(stub: Stub) -> bytes:
        with pytest.raises(RequestRefusedError) as raised:
            await stub.invoke_chaincode(name, *arguments, **fields)
        return str(raised.value).replace(stub.call.tx_id, "ID").encode()

    return network.run(network.evaluate(behave)).decode()


def calling(network: LedgerNetwork, called: Behaviour, name: str = "other") -> Behaviour:
    argument = network.behaviours.add(called)

    async def behave(stub: Stub) -> proposal_response_pb2.Response:
        await stub.put("caller", b"1")
        found: proposal_response_pb2.Response = await stub.call_chaincode(name, argument)
        return found

    return behave


# --- answers of any kind


def result(payload: bytes, **fields: Any) -> Behaviour:
    async def behave(stub: Stub) -> ChaincodeResult:
        del stub
        return ChaincodeResult(payload, **fields)

    return behave


def test_an_error_message_fails_the_transaction(network: LedgerNetwork) -> None:
    words = failure(network, result(b"init failed \xff", is_error=True))

    assert words == "error in simulation: transaction returned with failure: init failed \ufffd"


def test_an_answer_that_is_no_response_fails_the_transaction(network: LedgerNetwork) -> None:
    words = failure(network, result(b"\xff"))

    assert words.startswith("error in simulation: failed to unmarshal response for transaction ID: Response")


def test_an_empty_answer_is_a_response_of_status_0(network: LedgerNetwork) -> None:
    response = network.run(network.propose(SERVICE, result(b"")))

    assert (response.response.status, response.endorsement.signature != b"") == (0, True)


def test_a_contract_that_gives_no_answer_fails_the_transaction(network: LedgerNetwork) -> None:
    async def lose(stub: Stub) -> None:
        del stub
        raise ChaincodeError("error sending: chaincode stream terminated")

    assert failure(network, lose) == (
        "error in simulation: failed to execute transaction ID: error sending: chaincode stream terminated"
    )


def test_a_failed_transaction_leaves_nothing_behind(network: LedgerNetwork) -> None:
    """Neither its writes nor its place: the peer commits on, and takes the next one."""

    async def write_and_fail(stub: Stub) -> None:
        await stub.put("a", b"1")
        await stub.range("", "")
        raise ChaincodeError("error sending: timeout expired while executing transaction")

    async def story() -> bytes:
        answer = await network.propose(SERVICE, write_and_fail)
        assert answer.response.status == 500
        assert network.peers[SERVICE].running == set()
        assert await network.commit(put("b", b"1")) == VALID
        return await network.evaluate(get("a"))

    assert network.run(story()) == b""


def test_one_proposal_does_not_run_twice_at_once(network: LedgerNetwork) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def wait(stub: Stub) -> bytes:
        begun.set()
        await go_on.wait()
        return await stub.get("a")

    async def story() -> list[str]:
        proposal = network.proposal([network.behaviours.add(wait)])
        first = asyncio.create_task(network.ask(SERVICE, proposal))
        await begun.wait()
        second = await network.ask(SERVICE, proposal)
        go_on.set()
        assert (await first).response.status == 200
        third = await network.ask(SERVICE, proposal)
        assert third.response.status == 200
        return [second.response.message.replace(proposal.tx_id, "ID")]

    assert network.run(story()) == [
        "error in simulation: failed to execute transaction ID: error sending: txid: ID(consortium) exists"
    ]


# --- chaincodes that call chaincodes


@pytest.mark.parametrize("name", ["other", "other:9.9", "other/consortium", "other:/"])
def test_a_called_chaincode_writes_in_its_own_namespace(network: LedgerNetwork, name: str) -> None:
    async def called(stub: Stub) -> bytes:
        assert stub.call.proposal is not None
        await stub.get("read")
        await stub.put("called", b"2")
        stub.event = ("ignored", b"")
        return b"answer"

    async def story() -> bytes:
        response = await network.propose(SERVICE, calling(network, called, name))
        sets = sets_of(response)
        assert sets["asset"].writes == (("caller", False, b"1"),)
        assert sets["other"].writes == (("called", False, b"2"),)
        assert [read.key for read in sets["_lifecycle"].reads] == [
            field_key("asset", "Sequence"),
            field_key("other", "Sequence"),
        ]
        payload = proposal_response_pb2.ProposalResponsePayload.FromString(response.payload)
        assert proposal_pb2.ChaincodeAction.FromString(payload.extension).events == b""
        assert await network.commit(calling(network, called, name)) == VALID
        return await network.evaluate(get("called"), chaincode="other")

    assert network.run(story()) == b"2"


def test_a_called_chaincode_that_refuses_leaves_the_decision_to_its_caller(network: LedgerNetwork) -> None:
    async def refuse(stub: Stub) -> proposal_response_pb2.Response:
        del stub
        return proposal_response_pb2.Response(status=404, message="none")

    argument = network.behaviours.add(refuse)

    async def behave(stub: Stub) -> bytes:
        found = await stub.call_chaincode("other", argument)
        return b"%d %s" % (found.status, found.message.encode())

    assert network.run(network.evaluate(behave)) == b"404 none"


def test_whatever_a_called_chaincode_answers_reaches_its_caller(network: LedgerNetwork) -> None:
    """An error is an answer too; only what keeps it from answering is refused."""
    event = chaincode_event_pb2.ChaincodeEvent(event_name="made")
    answers = [
        network.behaviours.add(result(b"no good", is_error=True)),
        network.behaviours.add(result(b"\xff", event=event)),
    ]

    async def behave(stub: Stub) -> bytes:
        error = await stub.invoke_chaincode("other", answers[0])
        garbage = await stub.invoke_chaincode("other", answers[1])
        assert (error.payload, error.txid, error.channel_id) == (b"no good", stub.call.tx_id, "consortium")
        assert (garbage.payload, garbage.chaincode_event) == (b"\xff", event)
        return b"%d %d" % (error.type, garbage.type)

    assert network.run(network.evaluate(behave)) == b"%d %d" % (Message.ERROR, Message.COMPLETED)


def test_a_call_that_gets_no_answer_is_refused_in_the_words_of_a_real_peer(network: LedgerNetwork) -> None:
    async def lose(stub: Stub) -> None:
        del stub
        raise ChaincodeError("error sending: timeout expired while executing transaction")

    words = refused(network, "other", network.behaviours.add(lose))

    assert words == "execute failed: error sending: timeout expired while executing transaction"


def test_a_chaincode_that_does_not_exist_is_not_called(network: LedgerNetwork) -> None:
    async def behave(stub: Stub) -> None:
        with pytest.raises(RequestRefusedError) as raised:
            await stub.invoke_chaincode("none")
        assert str(raised.value) == (
            "execute failed: invalid invocation: [channel consortium] failed to get chaincode container info for none: "
            "chaincode none not found"
        )

    # Whoever goes on after that conflicts with the definition of that chaincode, in either place of definitions.
    sets = endorsed(network, behave)
    assert [read.key for read in sets["_lifecycle"].reads] == [
        field_key("asset", "Sequence"),
        field_key("none", "Sequence"),
    ]
    assert [read.key for read in sets["lscc"].reads] == ["none"]


def test_a_chaincode_does_not_call_itself(network: LedgerNetwork) -> None:
    own = refused(network, "asset", network.behaviours.add(get("a")))

    assert own == "execute failed: error sending: txid: ID(consortium) exists"


def test_a_chaincode_does_not_call_itself_through_another(network: LedgerNetwork) -> None:
    back = network.behaviours.add(get("a"))

    async def call_back(stub: Stub) -> bytes:
        with pytest.raises(RequestRefusedError) as raised:
            await stub.invoke_chaincode("asset", back)
        return str(raised.value).replace(stub.call.tx_id, "ID").encode()

    found = network.run(network.evaluate(calling(network, call_back)))

    assert found == b"execute failed: error sending: txid: ID(consortium) exists"


def test_a_chaincode_may_call_another_one_twice(network: LedgerNetwork) -> None:
    argument = network.behaviours.add(put("a", b"1"))

    async def behave(stub: Stub) -> None:
        for _ in range(2):
            assert (await stub.call_chaincode("other", argument)).status == 200

    assert endorsed(network, behave)["other"].writes == (("a", False, b"1"),)


@pytest.mark.parametrize("chaincode", ["qscc", "cscc"])
def test_system_chaincodes_reject_calls_of_others(network: LedgerNetwork, chaincode: str) -> None:
    because = " because of potential for deadlocks" if chaincode == "qscc" else ""

    async def behave(stub: Stub) -> None:
        found = await stub.call_chaincode(chaincode, b"GetChainInfo", b"consortium")
        assert (found.status, found.message) == (
            500,
            f"Rejecting invoke of {chaincode.upper()} from another chaincode{because}, original invocation for 'asset'",
        )
        found = await stub.call_chaincode(chaincode)
        assert (found.status, found.message) == (500, "Incorrect number of arguments, 0")

    endorsed(network, behave)


def test_the_lifecycle_may_be_asked_by_a_chaincode(network: LedgerNetwork) -> None:
    argument = lifecycle_pb2.QueryChaincodeDefinitionArgs(name="other").SerializeToString()

    async def behave(stub: Stub) -> None:
        found = await stub.call_chaincode("_lifecycle", b"QueryChaincodeDefinition", argument)
        assert lifecycle_pb2.QueryChaincodeDefinitionResult.FromString(found.payload).version == "1.0"
        found = await stub.call_chaincode("_lifecycle", b"InstallChaincode", b"")
        assert found.message.startswith("Failed to authorize invocation due to failed ACL check: ")

    assert "_lifecycle" in endorsed(network, behave)


def test_the_chaincode_of_fabric_1_is_not_there_to_be_called(network: LedgerNetwork) -> None:
    assert refused(network, "lscc").startswith("execute failed: could not launch chaincode lscc.syscc: ")


# --- on other channels


def test_what_is_written_on_another_channel_is_dropped(two_channels: LedgerNetwork) -> None:
    network = two_channels

    async def called(stub: Stub) -> bytes:
        assert stub.call.channel_id == SECOND
        before = await stub.get("a")
        await stub.put("a", b"dropped")
        return before

    async def story() -> None:
        assert await network.commit(put("a", b"there"), chaincode="other", channel_id=SECOND) == VALID
        height = network.channel(SERVICE, SECOND).height
        response = await network.propose(SERVICE, calling(network, called, f"other/{SECOND}"))
        assert (response.response.status, response.response.payload) == (200, b"there")
        sets = sets_of(response)
        assert sets["asset"].writes == (("caller", False, b"1"),)
        assert "other" not in sets
        assert await network.commit(calling(network, called, f"other/{SECOND}")) == VALID
        assert network.channel(SERVICE, SECOND).height == height
        assert await network.evaluate(get("a"), chaincode="other", channel_id=SECOND) == b"there"

    network.run(story())


def test_what_is_read_on_another_channel_is_validated_by_nobody(two_channels: LedgerNetwork) -> None:
    network = two_channels

    async def story() -> list[int]:
        elsewhere = await network.endorse(calling(network, get("a"), f"other/{SECOND}"))
        here = await network.endorse(calling(network, get("a")))
        assert await network.commit(put("a", b"1"), chaincode="other", channel_id=SECOND) == VALID
        assert await network.commit(put("a", b"1"), chaincode="other") == VALID
        codes = []
        for it in (elsewhere, here):
            await network.order(it)
            codes.append(await network.wait(it.proposal.tx_id))
        return codes

    assert network.run(story()) == [VALID, MVCC_READ_CONFLICT]


def test_a_chaincode_may_call_the_one_of_its_name_on_another_channel(two_channels: LedgerNetwork) -> None:
    network = two_channels

    response = network.run(network.propose(SERVICE, calling(network, get("a"), f"asset/{SECOND}")))

    assert response.response.status == 200


def test_who_may_not_write_on_another_channel_calls_nothing_there(two_channels: LedgerNetwork) -> None:
    network = two_channels
    call = calling(network, get("a"), f"other/{SECOND}")

    async def story() -> str:
        return str((await network.propose(CUSTOMER, call, client=STRANGER)).response.message)

    assert network.run(story()) == (
        "Failed evaluating policy on signed data during check policy on channel [second] with policy "
        "[/Channel/Application/Writers]: [implicit policy evaluation failed - 0 sub-policies were satisfied, but this "
        "policy requires 1 of the 'Writers' sub-policies to be satisfied]"
    )


def test_a_channel_that_the_peer_does_not_have_is_refused(network: LedgerNetwork) -> None:
    assert refused(network, "other/elsewhere") == "Failed to get policy manager for channel [elsewhere]"
    assert refused(network, "qscc/elsewhere") == "failed to find ledger for channel: elsewhere"


def test_a_call_on_another_channel_keeps_its_state_as_it_is(two_channels: LedgerNetwork) -> None:
    """A block of the other channel waits until the call is over."""
    network = two_channels
    reading, go_on = asyncio.Event(), asyncio.Event()

    async def read_twice(stub: Stub) -> bytes:
        first = await stub.get("a")
        reading.set()
        await go_on.wait()
        return first + b"/" + await stub.get("a")

    async def story() -> bytes:
        assert await network.commit(put("a", b"1"), chaincode="other", channel_id=SECOND) == VALID
        prepared = await network.endorse(put("a", b"2"), chaincode="other", channel_id=SECOND)
        call = network.propose(SERVICE, calling(network, read_twice, f"other/{SECOND}"))
        running = asyncio.create_task(call)
        await reading.wait()
        await network.order(prepared)
        there = network.channel(CUSTOMER, SECOND)
        await there.wait_for_height(there.height)
        go_on.set()
        payload = bytes((await running).response.payload)
        assert await network.wait(prepared.proposal.tx_id, SECOND) == VALID
        return payload

    assert network.run(story()) == b"1/1"


# --- init

PAIR = encode_collections([collection("pair", "ServiceMSP", "BillingMSP")])


async def approve_and_commit(network: LedgerNetwork, name: str, wanted: ChaincodeDefinition) -> None:
    """Commit a definition that runs by the package of the one before it."""
    peers = (SERVICE, BILLING, CUSTOMER)
    for peer in peers:
        package_id = network.peers[peer].endorsable(network.channel(peer), name).package_id
        assert await network.approve(peer, name, wanted, package_id) == VALID
    await network.commit_definition(name, wanted, peers)


def test_a_chaincode_that_wants_an_init_gets_it_first_and_once_a_version(network: LedgerNetwork) -> None:
    async def begin(stub: Stub) -> None:
        assert stub.call.is_init
        await stub.put("begun", b"1")

    async def begin_privately(stub: Stub) -> None:
        await stub.get("a", "pair")

    def words(behaviour: Behaviour, **fields: Any) -> str:
        return failure(network, behaviour, **fields)

    prefix = f"error in simulation: failed to execute transaction ID: {INVALID} "
    begun = {"chaincode": "begun"}
    assert (
        words(get("a"), **begun)
        == f"{prefix}'begun' has not been initialized for this version, must call as init first"
    )
    assert network.run(network.refusal(begin_privately, **begun, is_init=True)) == (
        "private data APIs are not allowed in chaincode Init()"
    )
    assert network.run(network.commit(begin, **begun, is_init=True)) == VALID
    assert network.run(network.evaluate(get("begun"), **begun)) == b"1"
    assert words(get("a"), **begun, is_init=True) == f"{prefix}'begun' is already initialized but called as init"
    assert words(get("a"), is_init=True) == f"{prefix}'asset' does not require initialization but called as init"


def test_a_new_version_wants_its_own_init_and_a_new_sequence_of_the_same_does_not(network: LedgerNetwork) -> None:
    async def story() -> list[str]:
        begun = {"chaincode": "begun"}
        assert await network.commit(put("a", b"1"), **begun, is_init=True) == VALID
        await network.deploy("begun", definition(2, "1.1", init_required=True))
        refused = await network.propose(SERVICE, get("a"), **begun)
        assert await network.commit(put("a", b"2"), **begun, is_init=True) == VALID
        await approve_and_commit(network, "begun", definition(3, "1.1", init_required=True, collections=PAIR))
        assert await network.evaluate(get("a"), **begun) == b"2"
        return [refused.response.message]

    (words,) = network.run(story())
    assert words.endswith(f"{INVALID} 'begun' {NOT_INITIALIZED}")


def test_a_call_initialises_a_chaincode_as_a_proposal_does(network: LedgerNetwork) -> None:
    argument = network.behaviours.add(put("a", b"1"))
    words = refused(network, "begun", argument)
    assert (
        words == f"execute failed: {INVALID} 'begun' has not been initialized for this version, must call as init first"
    )

    async def begin(stub: Stub) -> None:
        called = await stub.invoke_chaincode("begun", argument, is_init=True)
        assert called.type == Message.COMPLETED

    async def story() -> bytes:
        assert await network.commit(begin) == VALID
        return await network.evaluate(get("a"), chaincode="begun")

    assert network.run(story()) == b"1"
