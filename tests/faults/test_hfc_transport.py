"""The transport on hfc when peers refuse, differ or stay silent, and when hfc is not there."""

import asyncio
import logging
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from fabric_protos.common import common_pb2
from fabric_protos.gateway import gateway_pb2
from fabric_protos.orderer import ab_pb2
from fabric_protos.peer import events_pb2, proposal_response_pb2, transaction_pb2

from gateway.client.errors import (
    CommitError,
    CommitStatusError,
    EndorseError,
    EvaluateError,
    InvalidRequestError,
    PreparedTransactionError,
    SubmitError,
)
from gateway.client.hfc_transport import HfcTimeouts, HfcTransport, open_hfc_transport
from tests.support.fake_fabric import FakeFabric, RefusalError, running_fabric
from tests.support.older_client import hfc_modules

CHANNEL = "ch"


@pytest.fixture(autouse=True)
def _hfc() -> None:
    hfc_modules()


@asynccontextmanager
async def opened(
    timeouts: HfcTimeouts | None = None,
) -> AsyncIterator[tuple[tuple[FakeFabric, FakeFabric], HfcTransport]]:
    """Run two peers, the first of which is the orderer as well."""
    async with running_fabric() as (one, member), running_fabric() as (other, another):
        for fabric in (one, other):
            fabric.answer("endorser", endorsed(fabric))
            fabric.deliver = no_more_blocks
        nodes = {"one": member.endpoint, "other": another.endpoint}
        async with open_hfc_transport(
            member.identity, CHANNEL, peers=nodes, orderers={"orderer": member.endpoint}, timeouts=timeouts
        ) as transport:
            yield (one, other), transport


def endorsed(
    fabric: FakeFabric, result: bytes = b"done", change: Callable[[Any], None] = lambda _: None
) -> Callable[[Any], Any]:
    """Answer as an endorsing peer does, after a change of the action that is endorsed."""

    def answer(signed: Any) -> Any:
        prepared = fabric.prepared(gateway_pb2.EndorseRequest(proposed_transaction=signed), result)
        payload = common_pb2.Payload.FromString(prepared.prepared_transaction.payload)
        (action,) = transaction_pb2.Transaction.FromString(payload.data).actions
        content = transaction_pb2.ChaincodeActionPayload.FromString(action.payload).action
        change(content)
        response = proposal_response_pb2.Response(status=200, payload=result)
        return proposal_response_pb2.ProposalResponse(
            response=response, payload=content.proposal_response_payload, endorsement=content.endorsements[0]
        )

    return answer


def refused(status: int, message: str, payload: bytes = b"") -> Callable[[Any], Any]:
    response = proposal_response_pb2.Response(status=status, message=message)
    return lambda _: proposal_response_pb2.ProposalResponse(response=response, payload=payload)


async def silent(_: Any) -> Any:
    await asyncio.Event().wait()


def newest_block() -> bytes:
    """Give the block that a peer sends at once to whoever asks from the newest one on."""
    block = events_pb2.FilteredBlock(channel_id=CHANNEL, number=6)
    block.filtered_transactions.add(txid="another", tx_validation_code=0)
    return bytes(events_pb2.DeliverResponse(filtered_block=block).SerializeToString())


async def no_more_blocks(_: Any) -> AsyncIterator[bytes]:
    yield newest_block()
    await asyncio.Event().wait()


def blocks_with(fabric: FakeFabric, code: int) -> Callable[[Any], AsyncIterator[bytes]]:
    """Give the newest block, and once something was broadcast a block with it."""
    ordered: asyncio.Queue[Any] = asyncio.Queue()

    def take(envelope: Any) -> Any:
        ordered.put_nowait(envelope)
        return ab_pb2.BroadcastResponse(status=common_pb2.SUCCESS)

    fabric.answer("broadcast", take)

    async def deliver(_: Any) -> AsyncIterator[bytes]:
        yield newest_block()
        payload = common_pb2.Payload.FromString((await ordered.get()).payload)
        tx_id = common_pb2.ChannelHeader.FromString(payload.header.channel_header).tx_id
        block = events_pb2.FilteredBlock(channel_id=CHANNEL, number=7)
        block.filtered_transactions.add(txid="another", tx_validation_code=11)
        block.filtered_transactions.add(txid=tx_id, tx_validation_code=code)
        yield events_pb2.DeliverResponse(filtered_block=block).SerializeToString()
        await asyncio.Event().wait()

    return deliver


async def submitted(transport: HfcTransport) -> Any:
    return await transport.submit_transaction("cc", "f", "a", peers=["one", "other"])


def test_the_verdict_is_that_of_the_first_peers_blocks() -> None:
    async def test() -> None:
        async with opened() as ((one, _), transport):
            one.deliver = blocks_with(one, 0)
            done = await submitted(transport)
            assert (done.result, done.status.code, done.status.block_number) == (b"done", "VALID", 7)
        async with opened() as ((one, _), transport):
            one.deliver = blocks_with(one, 11)
            with pytest.raises(CommitError) as caught:
                await submitted(transport)
            assert caught.value.validation_code == "MVCC_READ_CONFLICT"

    asyncio.run(test())


def test_what_peers_refuse_is_told_by_peer_and_never_ordered() -> None:
    async def test() -> None:
        async with opened() as ((one, other), transport):
            other.scripts["endorser"] = [refused(404, "not here", b"payload")]
            with pytest.raises(EndorseError) as caught:
                await submitted(transport)
            assert [detail[::2] for detail in caught.value.details] == [("other", "chaincode response 404, not here")]
            assert not one.requests("broadcast")

    asyncio.run(test())


def test_results_that_differ_are_never_ordered() -> None:
    async def test() -> None:
        async with opened() as ((one, other), transport):
            other.scripts["endorser"] = [endorsed(other, b"something else")]
            with pytest.raises(EndorseError) as caught:
                await submitted(transport)
            assert [detail[::2] for detail in caught.value.details] == [
                ("other", "ProposalResponsePayloads do not match")
            ]
            assert not one.requests("broadcast")

    asyncio.run(test())


def test_peers_get_no_signature_for_what_was_not_proposed() -> None:
    def another_proposal(action: Any) -> None:
        response = proposal_response_pb2.ProposalResponsePayload.FromString(action.proposal_response_payload)
        response.proposal_hash = bytes(32)
        action.proposal_response_payload = response.SerializeToString()

    def another_signature(action: Any) -> None:
        action.endorsements[0].signature = b"none"

    async def test() -> None:
        for change in (another_proposal, another_signature):
            async with opened() as ((one, other), transport):
                for fabric in (one, other):
                    fabric.scripts["endorser"] = [endorsed(fabric, change=change)]
                with pytest.raises(PreparedTransactionError):
                    await submitted(transport)
                assert not one.requests("broadcast")

    asyncio.run(test())


def test_each_kind_of_refusal_has_the_code_of_a_gateway() -> None:
    async def test() -> None:
        async with opened() as ((one, _), transport):
            for answer, code in (
                (refused(404, "not here"), "UNKNOWN"),
                (refused(500, "broken", b"payload"), "UNKNOWN"),
                (refused(500, "no such chaincode"), "ABORTED"),
                (RefusalError(grpc.StatusCode.UNAVAILABLE, "too busy"), "UNAVAILABLE"),
            ):
                one.scripts["endorser"] = [answer]
                with pytest.raises(EvaluateError) as caught:
                    await transport.evaluate("cc", "f", peer="one")
                assert caught.value.grpc_code == code

    asyncio.run(test())


def test_a_silent_peer_is_given_up() -> None:
    async def test() -> None:
        async with opened(HfcTimeouts(proposal=2)) as ((_, other), transport):
            other.scripts["endorser"] = [silent]
            with pytest.raises(EndorseError) as caught:
                await submitted(transport)
            assert [detail.message for detail in caught.value.details] == ["the peer did not answer in time"]

    asyncio.run(test())


def test_only_an_orderers_refusal_is_proof_of_failure() -> None:
    async def test() -> None:
        for answer, outcome in (
            (lambda _: ab_pb2.BroadcastResponse(status=common_pb2.FORBIDDEN, info="why"), "not_applied"),
            (lambda _: ab_pb2.BroadcastResponse(status=common_pb2.SERVICE_UNAVAILABLE, info="no leader"), "unknown"),
            (RefusalError(grpc.StatusCode.INTERNAL), "unknown"),
            (silent, "unknown"),
        ):
            async with opened(HfcTimeouts(submit=2)) as ((one, _), transport):
                one.scripts["broadcast"] = [answer]
                with pytest.raises(SubmitError) as caught:
                    await submitted(transport)
                assert caught.value.outcome == outcome

    asyncio.run(test())


def test_without_a_verdict_the_outcome_is_unknown() -> None:
    async def broken(_: Any) -> AsyncIterator[bytes]:
        yield newest_block()
        raise RefusalError(grpc.StatusCode.UNAVAILABLE, "shutting down")

    async def ended(_: Any) -> AsyncIterator[bytes]:
        yield newest_block()
        yield events_pb2.DeliverResponse(status=common_pb2.SERVICE_UNAVAILABLE).SerializeToString()

    async def test() -> None:
        for deliver in (no_more_blocks, broken, ended):
            async with opened(HfcTimeouts(commit=2)) as ((one, _), transport):
                one.deliver = deliver
                with pytest.raises(CommitStatusError) as caught:
                    await submitted(transport)
                assert caught.value.outcome == "unknown"
                assert caught.value.tx_id

    asyncio.run(test())


def test_nothing_is_ordered_before_the_peers_blocks_come() -> None:
    async def forbidden(_: Any) -> AsyncIterator[bytes]:
        yield events_pb2.DeliverResponse(status=common_pb2.FORBIDDEN).SerializeToString()

    async def silence(_: Any) -> AsyncIterator[bytes]:
        await asyncio.Event().wait()
        yield b""

    async def test() -> None:
        for deliver in (forbidden, silence):
            async with opened(HfcTimeouts(commit=2)) as ((one, _), transport):
                one.deliver = deliver
                with pytest.raises(CommitStatusError) as caught:
                    await submitted(transport)
                assert caught.value.outcome == "not_applied"
                assert not one.requests("broadcast")

    asyncio.run(test())


@pytest.mark.parametrize("peers", [[], ["nobody"], ["one", "nobody"]])
def test_peers_that_are_not_there_are_refused(peers: list[str]) -> None:
    async def test() -> None:
        async with opened() as ((one, _), transport):
            with pytest.raises(InvalidRequestError):
                await transport.submit_transaction("cc", "f", peers=peers)
            assert not one.asked

    asyncio.run(test())


def test_transient_data_goes_to_peers_and_to_no_orderer() -> None:
    async def test() -> None:
        async with opened() as ((one, other), transport):
            one.deliver = blocks_with(one, 0)
            transient = {"secret": b"transient canary"}
            await transport.submit_transaction("cc", "f", peers=["one", "other"], transient=transient)
            assert all(b"transient canary" in it.requests("endorser")[0].proposal_bytes for it in (one, other))
            assert b"transient canary" not in one.requests("broadcast")[0].payload

    asyncio.run(test())


def test_nothing_of_a_proposal_is_logged(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> None:
    async def test() -> None:
        async with opened() as ((one, _), transport):
            one.deliver = blocks_with(one, 0)
            with caplog.at_level(logging.DEBUG):
                await transport.submit_transaction(
                    "cc", "f", "canary", peers=["one", "other"], transient={"secret": b"canary"}
                )

    asyncio.run(test())

    written = capfd.readouterr()
    assert "canary" not in caplog.text + written.out + written.err
    assert not any(record.name.startswith("hfc") for record in caplog.records)


def test_its_import_changes_no_environment() -> None:
    code = (
        "import os; before = dict(os.environ)\n"
        "from gateway.client.hfc_transport import import_hfc; import_hfc()\n"
        "assert dict(os.environ) == before"
    )
    settings = {**os.environ, "GRPC_SSL_CIPHER_SUITES": "mine"}
    done = subprocess.run([sys.executable, "-P", "-c", code], env=settings, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr


def test_without_hfc_the_error_says_how_to_install_it() -> None:
    code = (
        "import sys; sys.modules['hfc'] = None\n"
        "from gateway.client.errors import TransportMissingError\n"
        "from gateway.client.hfc_transport import import_hfc\n"
        "try: import_hfc()\n"
        "except TransportMissingError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=False)

    assert "requirements/hfc.txt" in done.stdout, done.stderr
