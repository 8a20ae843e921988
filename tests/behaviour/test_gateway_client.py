"""The client's flow on a network: what an application sees, step by step."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from fabric_protos.common import common_pb2
from fabric_protos.orderer import ab_pb2
from fabric_protos.peer import events_pb2, proposal_response_pb2

from gateway.client.blocks import BlockOutline, BlockStream, ReceivedBlock, Stop, TransactionOutline, Witness
from gateway.client.broadcast import broadcast
from gateway.client.endorser import Endorser
from gateway.client.errors import (
    BlocksBadRequestError,
    BlocksForbiddenError,
    BlocksNotFoundError,
    BlocksStalledError,
    BlockStreamError,
    BlocksUnavailableError,
    BroadcastError,
    CommitError,
    CommitStatusError,
    EndorseError,
    EndorserError,
    EvaluateError,
    InvalidRequestError,
    PeerDetail,
    SubmitError,
)
from gateway.client.gateway import Timeouts
from gateway.client.retry import RetryPolicy
from network.protocol.block import BlockHeader, header_hash
from tests.support.fake_fabric import RefusalError, connected, status_response

MISMATCH = RefusalError(
    grpc.StatusCode.ABORTED, "failed to collect", (("p:1", "OrgMSP", "ProposalResponsePayloads do not match"),)
)
MVCC, PHANTOM, POLICY = 11, 12, 10


def test_transaction_commits_step_by_step() -> None:
    async def test() -> None:
        async with connected() as (fabric, gateway, _):
            transaction = await gateway.network("ch").contract("service").endorse("open", "客户", b"\x00")
            assert transaction.result == b"endorsed"
            status = await (await transaction.submit()).status()

        assert (status.is_valid, status.code, status.block_number) == (True, "VALID", 1)
        sent = fabric.requests("submit")[0].prepared_transaction
        key = gateway.identity.certificate.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        key.verify(sent.signature, sent.payload, ec.ECDSA(hashes.SHA256()))

    asyncio.run(test())


def test_evaluate_gives_the_answer_and_height_asks_qscc() -> None:
    async def test() -> None:
        async with connected() as (fabric, gateway, _):
            assert await gateway.network("ch").height() == 7
            assert await Endorser(gateway.identity, gateway.channel).height("ch") == 7
            assert b"GetChainInfo" in fabric.requests("evaluate")[0].proposed_transaction.proposal_bytes
            assert b"GetChainInfo" in fabric.requests("endorser")[0].proposal_bytes

    asyncio.run(test())


def test_each_step_fails_in_its_own_class_with_id_code_and_peers() -> None:
    refusal = RefusalError(grpc.StatusCode.ABORTED, "no", (("peer0:7051", "OrgMSP", "because"),))

    async def test() -> None:
        async with connected() as (fabric, gateway, _):
            contract = gateway.network("ch").contract("service")
            for step in ("evaluate", "endorse", "submit", "commit_status"):
                fabric.answer(step, refusal)
            with pytest.raises(EvaluateError) as evaluated:
                await contract.evaluate("read")
            with pytest.raises(EndorseError) as endorsed:
                await contract.endorse("open")
            transaction = await contract.endorse("open")
            with pytest.raises(SubmitError) as submitted:
                await transaction.submit()
            with pytest.raises(CommitStatusError) as asked:
                await transaction.commit.status()

            for caught in (evaluated, endorsed, submitted, asked):
                assert caught.value.grpc_code == "ABORTED"
                assert caught.value.details == (PeerDetail("peer0:7051", "OrgMSP", "because"),)
                assert len(caught.value.tx_id) == 64
            assert asked.value.tx_id == submitted.value.tx_id == transaction.tx_id
            assert fabric.requests("endorse")[0].transaction_id == endorsed.value.tx_id

    asyncio.run(test())


@pytest.mark.parametrize("verdict", [MVCC, PHANTOM])
def test_conflict_is_proposed_anew_with_growing_pauses(verdict: int) -> None:
    async def test() -> None:
        async with connected() as (fabric, gateway, pauses):
            fabric.verdicts = [verdict, verdict, 0]
            done = await gateway.network("ch").contract("service").submit_transaction("open")

            assert len(set(done.attempts)) == 3
            assert done.attempts[-1] == done.status.tx_id
            assert pauses == [0.05, 0.1]

    asyncio.run(test())


@pytest.mark.parametrize(
    "refusal",
    [
        MISMATCH,
        RefusalError(grpc.StatusCode.UNAVAILABLE, "starting"),
        RefusalError(grpc.StatusCode.UNKNOWN, "too many requests for /g, exceeding concurrency limit (500)"),
        RefusalError(grpc.StatusCode.FAILED_PRECONDITION, "no combination of peers can be derived which satisfy"),
    ],
    ids=["mismatch", "unavailable", "overload", "no-combination"],
)
def test_passing_trouble_of_endorsing_is_tried_again(refusal: RefusalError) -> None:
    async def test() -> None:
        async with connected() as (fabric, gateway, _):
            fabric.answer("endorse", refusal)
            done = await gateway.network("ch").contract("service").submit_transaction("open")
            assert len(done.attempts) == 2

    asyncio.run(test())


@pytest.mark.parametrize(
    "refusal",
    [
        RefusalError(grpc.StatusCode.ABORTED, "failed", (("p:1", "OrgMSP", "chaincode response 500, no"),)),
        RefusalError(grpc.StatusCode.FAILED_PRECONDITION, "access denied"),
        RefusalError(grpc.StatusCode.RESOURCE_EXHAUSTED, "larger than max"),
    ],
    ids=["chaincode", "access", "size"],
)
def test_lasting_refusals_are_not_tried_again(refusal: RefusalError) -> None:
    async def test() -> None:
        async with connected() as (fabric, gateway, _):
            fabric.answer("endorse", refusal)
            with pytest.raises(EndorseError) as caught:
                await gateway.network("ch").contract("service").submit_transaction("open")
            assert len(caught.value.attempts) == 1
            assert len(fabric.requests("endorse")) == 1

    asyncio.run(test())


def test_policy_failure_is_a_commit_error_and_final() -> None:
    async def test() -> None:
        async with connected() as (fabric, gateway, _):
            fabric.verdicts = [POLICY]
            with pytest.raises(CommitError) as caught:
                await gateway.network("ch").contract("service").submit_transaction("open")
            assert (caught.value.validation_code, caught.value.block_number) == ("ENDORSEMENT_POLICY_FAILURE", 1)

    asyncio.run(test())


def test_attempts_are_bounded() -> None:
    async def test() -> None:
        async with connected() as (fabric, gateway, _):
            fabric.verdicts = [MVCC] * 5
            with pytest.raises(CommitError) as caught:
                await gateway.network("ch").contract("service").submit_transaction("open", retry=RetryPolicy(3))
            assert len(caught.value.attempts) == 3

    asyncio.run(test())


def test_transient_data_needs_named_organisations() -> None:
    async def test() -> None:
        async with connected() as (fabric, gateway, _):
            contract = gateway.network("ch").contract("service")
            for call in (contract.endorse, contract.submit_transaction, contract.evaluate):
                with pytest.raises(InvalidRequestError):
                    await call("open", transient={"profile": b"secret"})
            assert fabric.asked == []

            transaction = await contract.endorse(
                "open", transient={"profile": b"secret"}, endorsing_organizations=["OrgMSP"]
            )
            assert fabric.requests("endorse")[0].endorsing_organizations == ["OrgMSP"]
            assert b"secret" not in transaction.envelope

    asyncio.run(test())


def test_lost_answer_to_submit_is_settled_by_the_verdict() -> None:
    async def test() -> None:
        async with connected() as (fabric, gateway, _):

            def take_and_fail(request: object) -> None:
                fabric.commit(request)
                raise RuntimeError("the connection is gone")

            fabric.answer("submit", take_and_fail)
            done = await gateway.network("ch").contract("service").submit_transaction("open")
            assert done.status.is_valid
            assert len(done.attempts) == 1

    asyncio.run(test())


def test_refused_submit_is_final_and_asks_for_no_verdict() -> None:
    async def test() -> None:
        async with connected() as (fabric, gateway, _):
            refusal = "received unsuccessful response from orderer: status=BAD_REQUEST, info=too large"
            fabric.answer("submit", RefusalError(grpc.StatusCode.ABORTED, refusal))
            with pytest.raises(SubmitError) as caught:
                await gateway.network("ch").contract("service").submit_transaction("open")
            assert caught.value.outcome == "not_applied"
            assert fabric.requests("commit_status") == []

    asyncio.run(test())


@pytest.mark.parametrize(
    ("stop", "behavior"),
    [(Stop.NEWEST, ab_pb2.SeekInfo.FAIL_IF_NOT_READY), (Stop.NEVER, ab_pb2.SeekInfo.BLOCK_UNTIL_READY)],
    ids=["newest", "never"],
)
def test_only_an_endless_stream_waits(stop: Stop, behavior: int) -> None:
    async def test() -> None:
        async with connected() as (fabric, gateway, _):

            async def deliver(_: object) -> AsyncIterator[bytes]:
                yield status_response(common_pb2.SUCCESS)

            fabric.deliver = deliver
            blocks = BlockStream(gateway.identity, gateway.channel, "ch").blocks(9, stop=stop)
            assert [block async for block in blocks] == []
            payload = common_pb2.Payload.FromString(fabric.requests("Deliver")[0].payload)
            assert ab_pb2.SeekInfo.FromString(payload.data).behavior == behavior

    asyncio.run(test())


def test_the_newest_block_is_asked_for_without_a_number() -> None:
    async def test() -> None:
        async with connected() as (fabric, gateway, _):

            async def deliver(_: object) -> AsyncIterator[bytes]:
                yield b"\x12\x04\x0a\x02\x08\x05"
                yield status_response(common_pb2.SUCCESS)

            fabric.deliver = deliver
            newest = await BlockStream(gateway.identity, gateway.channel, "ch").newest(idle_seconds=5)
            assert newest == b"\x0a\x02\x08\x05"
            payload = common_pb2.Payload.FromString(fabric.requests("Deliver")[0].payload)
            seek = ab_pb2.SeekInfo.FromString(payload.data)
            assert (seek.start.WhichOneof("Type"), seek.stop.WhichOneof("Type")) == ("newest", "newest")

    asyncio.run(test())


def test_a_peer_without_newest_block_is_unavailable_and_a_silent_one_stalls() -> None:
    async def test() -> None:
        async with connected() as (fabric, gateway, _):

            async def deliver(_: object) -> AsyncIterator[bytes]:
                if len(fabric.requests("Deliver")) > 1:
                    await asyncio.Event().wait()
                yield status_response(common_pb2.SUCCESS)

            fabric.deliver = deliver
            stream = BlockStream(gateway.identity, gateway.channel, "ch")
            with pytest.raises(BlocksUnavailableError):
                await stream.newest()
            with pytest.raises(BlocksStalledError):
                await stream.newest(idle_seconds=0.05)

    asyncio.run(test())


def test_unknown_outcome_is_said_and_never_proposed_anew() -> None:
    async def test() -> None:
        async with connected(Timeouts(commit_status=0.2)) as (fabric, gateway, _):
            fabric.answer("submit", RefusalError(grpc.StatusCode.UNAVAILABLE, "cut"))
            with pytest.raises(SubmitError) as caught:
                await gateway.network("ch").contract("service").submit_transaction("open")
            assert caught.value.outcome == "unknown"
            assert len(fabric.requests("endorse")) == 1

    asyncio.run(test())


def test_blocks_come_byte_for_byte_with_private_data() -> None:
    content = b"\x0a\x02\x08\x05\x9a\x06\x03new"  # field 99 is known to nobody
    entry = b"\x12\x04\x12\x02\x0a\x00"  # number 0 is left out
    inner = b"\x0a" + bytes([len(content)]) + content + entry
    responses = {
        "Deliver": b"\x12" + bytes([len(content)]) + content,
        "DeliverWithPrivateData": b"\x22" + bytes([len(inner)]) + inner,
    }

    async def test() -> None:
        async with connected() as (fabric, gateway, _):
            stream = BlockStream(gateway.identity, gateway.channel, "ch")
            for method, response in responses.items():

                async def deliver(_: object, response: bytes = response) -> AsyncIterator[bytes]:
                    yield response
                    yield status_response(common_pb2.SUCCESS)

                fabric.deliver = deliver
                with_private = method == "DeliverWithPrivateData"
                got = [block async for block in stream.blocks(5, stop=5, private_data=with_private)]
                assert got == [ReceivedBlock(5, content, {0: b"\x0a\x00"} if with_private else {})]
                request = fabric.requests(method)[0]
                seek = ab_pb2.SeekInfo.FromString(common_pb2.Payload.FromString(request.payload).data)
                assert (seek.start.specified.number, seek.stop.specified.number) == (5, 5)

    asyncio.run(test())


def test_a_witness_has_hashes_and_verdicts_and_is_asked_for_without_transactions() -> None:
    header = common_pb2.BlockHeader(number=5, previous_hash=b"before", data_hash=b"data")
    metadata = common_pb2.BlockMetadata(
        metadata=[b"", b"", b"\x00\x0b", b"", common_pb2.Metadata(value=b"commit").SerializeToString()]
    )
    block = common_pb2.Block(header=header, metadata=metadata)

    async def test() -> None:
        async with connected() as (fabric, gateway, _):
            fabric.deliver = delivering(events_pb2.DeliverResponse(block=block))
            stream = BlockStream(gateway.identity, gateway.channel, "ch")
            (witness,) = [found async for found in stream.witnesses(5, stop=5)]

            expected = header_hash(BlockHeader(5, b"before", b"data"))
            assert witness == Witness(5, expected, b"before", b"\x00\x0b", b"commit")
            payload = common_pb2.Payload.FromString(fabric.requests("Deliver")[0].payload)
            assert ab_pb2.SeekInfo.FromString(payload.data).content_type == ab_pb2.SeekInfo.HEADER_WITH_SIG

    asyncio.run(test())


def test_a_witness_without_metadata_names_no_commit_hash() -> None:
    block = common_pb2.Block(header=common_pb2.BlockHeader(number=5))

    async def test() -> None:
        async with connected() as (fabric, gateway, _):
            fabric.deliver = delivering(events_pb2.DeliverResponse(block=block))
            stream = BlockStream(gateway.identity, gateway.channel, "ch")
            (witness,) = [found async for found in stream.witnesses(5, stop=5)]
            assert (witness.flags, witness.commit_hash) == (b"", None)

    asyncio.run(test())


def test_an_outline_has_every_transaction_by_id_and_verdict() -> None:
    outline = events_pb2.FilteredBlock(number=5)
    outline.filtered_transactions.add(txid="a", type=3, tx_validation_code=11)
    opened = outline.filtered_transactions.add(txid="b", type=3).transaction_actions.chaincode_actions.add()
    opened.chaincode_event.chaincode_id, opened.chaincode_event.event_name = "service", "opened"

    async def test() -> None:
        async with connected() as (fabric, gateway, _):
            fabric.deliver = delivering(events_pb2.DeliverResponse(filtered_block=outline))
            stream = BlockStream(gateway.identity, gateway.channel, "ch")
            (found,) = [found async for found in stream.outlines(5, stop=5)]

            assert found == BlockOutline(
                5,
                (
                    TransactionOutline("a", "MVCC_READ_CONFLICT", ()),
                    TransactionOutline("b", "VALID", (("service", "opened"),)),
                ),
            )
            assert len(fabric.requests("DeliverFiltered")) == 1

    asyncio.run(test())


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (events_pb2.DeliverResponse(block=common_pb2.Block(header={"number": 6})).SerializeToString(), "block 6 came"),
        (events_pb2.DeliverResponse(filtered_block={"number": 6}).SerializeToString(), "block 6 came"),
        (b"\x12\x01\xff", "not a block"),
        (b"\x1a\x01\xff", "not a block in outline"),
        (events_pb2.DeliverResponse(block_and_private_data={}).SerializeToString(), "field 4"),
    ],
    ids=["another block", "another outline", "no block", "no outline", "what was not asked for"],
)
def test_witnesses_and_outlines_that_are_none_are_refused(answer: bytes, words: str) -> None:
    async def test() -> None:
        async with connected() as (fabric, gateway, _):

            async def deliver(_: object) -> AsyncIterator[bytes]:
                yield answer

            fabric.deliver = deliver
            stream = BlockStream(gateway.identity, gateway.channel, "ch")
            received = stream.outlines(5) if answer.startswith(b"\x1a") else stream.witnesses(5)
            with pytest.raises(BlockStreamError, match=words):
                await anext(received)

    asyncio.run(test())


def delivering(*answers: Any) -> Callable[[object], AsyncIterator[bytes]]:
    async def deliver(_: object) -> AsyncIterator[bytes]:
        for answer in answers:
            yield answer.SerializeToString()
        yield status_response(common_pb2.SUCCESS)

    return deliver


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (404, BlocksNotFoundError),
        (403, BlocksForbiddenError),
        (400, BlocksBadRequestError),
        (503, BlocksUnavailableError),
    ],
)
def test_statuses_of_the_stream_are_named(status: int, kind: type[Exception]) -> None:
    async def test() -> None:
        async with connected() as (fabric, gateway, _):

            async def deliver(_: object) -> AsyncIterator[bytes]:
                yield status_response(status)

            fabric.deliver = deliver
            with pytest.raises(kind):
                async for _ in BlockStream(gateway.identity, gateway.channel, "ch").blocks(3, stop=Stop.NEWEST):
                    pass

    asyncio.run(test())


def test_endorser_and_orderer_say_why_they_refuse() -> None:
    async def test() -> None:
        async with connected() as (fabric, gateway, _):
            response = proposal_response_pb2.Response(status=500, message="access denied")
            fabric.answer("endorser", lambda _: proposal_response_pb2.ProposalResponse(response=response))
            with pytest.raises(EndorserError) as refused:
                await Endorser(gateway.identity, gateway.channel).join(b"")
            assert (refused.value.status, refused.value.message) == (500, "access denied")

            envelope = common_pb2.Envelope(payload=b"p", signature=b"s").SerializeToString()
            await broadcast(gateway.channel, envelope)
            fabric.answer("broadcast", lambda _: ab_pb2.BroadcastResponse(status=403, info="policy"))
            with pytest.raises(BroadcastError) as rejected:
                await broadcast(gateway.channel, envelope)
            assert (rejected.value.status, rejected.value.info) == ("FORBIDDEN", "policy")
            assert rejected.value.outcome == "not_applied"

    asyncio.run(test())
