"""The client when connections stall, break or cannot be trusted."""

import asyncio
import hashlib
import ssl
from collections.abc import AsyncIterator
from dataclasses import replace

import grpc
import pytest
from fabric_protos.common import common_pb2

from gateway.api.errors import DeadlineError
from gateway.api.fabric_ledger import FabricLedger
from gateway.api.ledger import Outcome
from gateway.client.blocks import BlockStream
from gateway.client.broadcast import broadcast
from gateway.client.channel import NodeChannel
from gateway.client.errors import (
    BlocksStalledError,
    BlocksUnavailableError,
    BroadcastError,
    CommitStatusError,
    DialError,
    EndorseError,
    TransactionTooLargeError,
)
from gateway.client.gateway import Timeouts
from gateway.client.identity import SigningIdentity
from gateway.wallet.folder_wallet import FolderWallet
from tests.support.fake_fabric import RefusalError, connected, running_fabric, status_response
from tests.support.tls_credential import TlsAuthority

BLOCK = b"\x12\x04\x0a\x02\x08\x05"


class WalletOfOne(FolderWallet):
    """Has one user, whose identity is held in memory."""

    def __init__(self, user: str, identity: SigningIdentity) -> None:
        self._users = {user: identity}

    def identity(self, user: str) -> SigningIdentity | None:
        return self._users.get(user)


def test_stalled_stream_is_noticed_and_closed() -> None:
    async def test() -> None:
        async with connected() as (fabric, gateway, _):

            async def deliver(_: object) -> AsyncIterator[bytes]:
                yield BLOCK
                await asyncio.Event().wait()

            fabric.deliver = deliver
            blocks = BlockStream(gateway.identity, gateway.channel, "ch").blocks(5, idle_seconds=2)
            assert (await anext(blocks)).number == 5
            with pytest.raises(BlocksStalledError) as caught:
                await anext(blocks)
            assert caught.value.next_block == 6
            await asyncio.wait_for(fabric.cancelled.wait(), 10)

    asyncio.run(test())


def test_request_for_blocks_is_bound_to_the_client_certificate() -> None:
    async def test() -> None:
        async with running_fabric() as (fabric, member):
            certificate = TlsAuthority().issue("client")
            mutual = replace(member.endpoint, client_certificate=certificate.certificate, client_key=certificate.key)

            async def deliver(_: object) -> AsyncIterator[bytes]:
                yield status_response(200)

            fabric.deliver = deliver
            async with NodeChannel(mutual) as channel:
                assert [block async for block in BlockStream(member.identity, channel, "ch").blocks(0, stop=0)] == []
            payload = common_pb2.Payload.FromString(fabric.requests("Deliver")[0].payload)
            header = common_pb2.ChannelHeader.FromString(payload.header.channel_header)
            der = ssl.PEM_cert_to_DER_cert(certificate.certificate.decode())
            assert header.tls_cert_hash == hashlib.sha256(der).digest()

    asyncio.run(test())


def test_cut_stream_says_where_to_go_on() -> None:
    async def test() -> None:
        async with connected() as (fabric, gateway, _):

            async def deliver(_: object) -> AsyncIterator[bytes]:
                yield BLOCK
                raise RefusalError(grpc.StatusCode.UNAVAILABLE, "going down")

            fabric.deliver = deliver
            with pytest.raises(BlocksUnavailableError) as caught:
                async for _ in BlockStream(gateway.identity, gateway.channel, "ch").blocks(5):
                    pass
            assert caught.value.next_block == 6

    asyncio.run(test())


def test_cancelling_a_reader_closes_its_stream() -> None:
    async def test() -> None:
        async with connected() as (fabric, gateway, _):
            started = asyncio.Event()

            async def deliver(_: object) -> AsyncIterator[bytes]:
                started.set()
                await asyncio.Event().wait()
                yield b""

            async def read() -> None:
                async for _ in BlockStream(gateway.identity, gateway.channel, "ch").blocks(0):
                    pass

            fabric.deliver = deliver
            reader = asyncio.create_task(read())
            await asyncio.wait_for(started.wait(), 10)
            reader.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reader
            await asyncio.wait_for(fabric.cancelled.wait(), 10)

    asyncio.run(test())


def test_unknown_transaction_ends_at_the_deadline() -> None:
    async def test() -> None:
        async with connected(Timeouts(commit_status=0.2)) as (_, gateway, _):
            with pytest.raises(CommitStatusError) as caught:
                await gateway.network("ch").commit("00" * 32).status()
            assert (caught.value.timed_out, caught.value.outcome) == (True, "unknown")

    asyncio.run(test())


@pytest.mark.parametrize("code", [grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED])
def test_whose_clock_ends_a_deadline_makes_no_difference(code: grpc.StatusCode) -> None:
    async def test() -> None:
        async with connected() as (fabric, gateway, _):
            ledger = FabricLedger(gateway.channel, WalletOfOne("agent", gateway.identity), "ch", "probe")
            fabric.answer("evaluate", RefusalError(code))
            fabric.answer("commit_status", RefusalError(code))
            with pytest.raises(DeadlineError):
                await ledger.evaluate("agent", "get", [])
            assert (await ledger.transaction("agent", "00" * 32)).outcome is Outcome.UNKNOWN

    asyncio.run(test())


def test_authority_that_is_not_trusted_is_refused_and_named() -> None:
    async def test() -> None:
        async with running_fabric() as (fabric, member):
            stranger = replace(member.endpoint, tls_roots=TlsAuthority("stranger").certificate)
            async with NodeChannel(stranger) as channel:
                with pytest.raises(DialError, match=rf"{fabric.address}.*CERTIFICATE_VERIFY_FAILED"):
                    await channel.dial()

    asyncio.run(test())


def test_name_that_is_not_the_certificates_is_refused() -> None:
    async def test() -> None:
        async with running_fabric() as (_, member):
            async with NodeChannel(replace(member.endpoint, server_name="other.example")) as channel:
                with pytest.raises(DialError):
                    await channel.dial()
            async with NodeChannel(replace(member.endpoint, server_name="localhost")) as channel:
                await channel.dial()

    asyncio.run(test())


def test_nobody_listening_is_a_dial_error_and_every_call_ends() -> None:
    async def test() -> None:
        async with running_fabric() as (_, member):
            pass
        async with NodeChannel(member.endpoint) as channel:
            with pytest.raises(DialError):
                await channel.dial()
            with pytest.raises(BroadcastError) as caught:
                await broadcast(channel, b"")
            assert caught.value.outcome == "unknown"
            with pytest.raises(BlocksUnavailableError):
                async for _ in BlockStream(member.identity, channel, "ch").blocks(0):
                    pass

    asyncio.run(test())


def test_answers_of_more_than_four_mebibytes_arrive() -> None:
    async def test() -> None:
        async with connected() as (fabric, gateway, _):
            fabric.answer("endorse", lambda request: fabric.prepared(request, b"x" * 6_000_000))
            transaction = await gateway.network("ch").contract("service").endorse("read")
            assert len(transaction.result) == 6_000_000

    asyncio.run(test())


def test_transaction_too_large_for_orderers_is_refused_before_it_is_sent() -> None:
    async def test() -> None:
        async with connected() as (fabric, gateway, _):
            contract = gateway.network("ch").contract("service")
            with pytest.raises(TransactionTooLargeError):
                await contract.endorse("put", b"x" * 6_000_000)
            assert fabric.asked == []
            fabric.answer("endorse", lambda request: fabric.prepared(request, b"x" * 11_000_000))
            with pytest.raises(TransactionTooLargeError):
                await contract.submit_transaction("put")
            assert fabric.requests("submit") == []

    asyncio.run(test())


def test_network_that_never_endorses_ends_by_the_total_time() -> None:
    async def test() -> None:
        async with connected() as (fabric, gateway, pauses):
            seconds = iter([0.0, 50.0, 119.9])
            timed = replace(gateway, chance=replace(gateway.chance, monotonic=lambda: next(seconds)))
            fabric.answer("endorse", *[RefusalError(grpc.StatusCode.UNAVAILABLE)] * 8)
            with pytest.raises(EndorseError) as caught:
                await timed.network("ch").contract("service").submit_transaction("open")
            assert (len(caught.value.attempts), len(pauses)) == (2, 1)

    asyncio.run(test())
