"""The embedded ledger as a whole: what clients ask for, endorsers answer, orderers order and every peer commits."""

import asyncio
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from fabric_protos.common import common_pb2

from kvr_sync.decode import decode_block
from kvr_sync.verify import ChainVerifier
from network.errors import LedgerError
from network.protocol.block import BlockHeader
from network.protocol.identity import decode_serialized_identity
from network.protocol.validation_code import (
    DUPLICATE_TXID,
    ENDORSEMENT_POLICY_FAILURE,
    MVCC_READ_CONFLICT,
    PHANTOM_READ_CONFLICT,
    VALID,
)
from tests.support.embedded_ledger import (
    CHANNEL,
    CUSTOMER,
    PEERS,
    SERVICE,
    LedgerNetwork,
    Stub,
    deploy_all,
    deployed,
    get,
    get_and_put,
    put,
)
from tests.support.generated_network import GeneratedNetwork


def blocks_of(network: LedgerNetwork, peer: str) -> list[bytes]:
    channel = network.channel(peer)
    return [channel.files.content(number) for number in range(channel.height)]


def tables_of(network: LedgerNetwork, peer: str, *tables: str) -> list[Any]:
    connection = network.channel(peer).store._connection  # noqa: SLF001  # all rows, which the product never asks for
    return [connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall() for table in tables]  # noqa: S608


async def everything(network: LedgerNetwork) -> dict[str, int]:
    """Bring every verdict about, several of them in one block; gives the verdicts by what was done."""
    for key in "abc":
        assert await network.commit(put(key, b"1")) == VALID

    async def count(stub: Stub) -> None:
        found = await stub.range("a", "c")
        await stub.put("count", str(len(found.results)).encode())

    first = await network.endorse(get_and_put("a", b"2"))
    second = await network.endorse(get_and_put("a", b"3"))
    counted = await network.endorse(count)
    one_sided = await network.endorse(put("d", b"1"), [SERVICE])
    added = await network.endorse(put("ab", b"1"))
    for endorsed in (first, second, one_sided, added, counted):
        await network.order(endorsed)
    verdicts = {
        "first": await network.wait(first.proposal.tx_id),
        "second": await network.wait(second.proposal.tx_id),
        "one-sided": await network.wait(one_sided.proposal.tx_id),
        "counted": await network.wait(counted.proposal.tx_id),
    }
    await network.order(first)
    height = network.channel(SERVICE).height
    for peer in PEERS:
        await network.channel(peer).wait_for_height(height)
    verdicts["again"] = network.channel(SERVICE).files.block(height).metadata.metadata[2][0]
    return verdicts


def test_every_verdict_arises_and_stands_in_the_blocks_of_every_peer(network: LedgerNetwork) -> None:
    verdicts = network.run(everything(network))

    assert verdicts == {
        "first": VALID,
        "second": MVCC_READ_CONFLICT,
        "one-sided": ENDORSEMENT_POLICY_FAILURE,
        "counted": PHANTOM_READ_CONFLICT,
        "again": DUPLICATE_TXID,
    }
    for peer in PEERS:
        channel = network.channel(peer)
        flags = [
            bytes(channel.files.block(number).metadata.metadata[2])
            for number in range(channel.height - 2, channel.height)
        ]
        assert flags == [
            bytes((VALID, MVCC_READ_CONFLICT, ENDORSEMENT_POLICY_FAILURE, VALID, PHANTOM_READ_CONFLICT)),
            bytes((DUPLICATE_TXID,)),
        ]
        values = {key: value for key, value, _ in channel.store.rows("asset", "", "")}
        assert values == {"a": b"2", "ab": b"1", "b": b"1", "c": b"1"}


def test_all_peers_have_the_same_headers_verdicts_commit_hashes_and_state(network: LedgerNetwork) -> None:
    network.run(everything(network))

    shared = [
        [
            [
                (block.header.SerializeToString(), block.metadata.metadata[2], block.metadata.metadata[4])
                for block in read
            ]
            for read in [[common_pb2.Block.FromString(content) for content in blocks_of(network, peer)]]
        ]
        for peer in PEERS
    ]
    assert all(other == shared[0] for other in shared)
    assert len(shared[0][0]) > 15
    for peer in PEERS[1:]:
        assert tables_of(network, peer, "state", "history", "tx_id", "block_hash") == tables_of(
            network, SERVICE, "state", "history", "tx_id", "block_hash"
        )
        assert network.channel(peer).store.commit_hash == network.channel(SERVICE).store.commit_hash


def test_readers_of_blocks_accept_every_block_of_every_peer(network: LedgerNetwork) -> None:
    network.run(everything(network))

    for peer in PEERS:
        verifier = ChainVerifier(channel=CHANNEL)
        for content in blocks_of(network, peer):
            verifier.verify(decode_block(content), content)


def test_each_orderer_signs_its_own_copy(network: LedgerNetwork) -> None:
    network.run(everything(network))

    service = network.ledger.channels[CHANNEL]
    signatures = set()
    for index, orderer in enumerate(network.ledger.orderers):
        own = service.rules.msps.identity(decode_serialized_identity(orderer.identity.creator))
        for number in range(1, service.height):
            block = service.block(index, number)
            header = BlockHeader(number, block.header.previous_hash, block.header.data_hash)
            (signer,) = service.rules.trust.verify_block(header, tuple(block.metadata.metadata)).signers
            assert signer.identity_id == own.identity_id
            signatures.add(block.metadata.metadata[0])
    assert len(signatures) == len(network.ledger.orderers) * (service.height - 1)


# --- one seed, one chain


def chain(generated: GeneratedNetwork, folder: Path, seed: int) -> dict[str, bytes]:
    """Play the same requests with skew; gives the block files of every node."""
    with closing(LedgerNetwork(generated, folder / "network", seed=seed, max_skew_seconds=0.02)) as network:
        network.run(deploy_all(network))
        network.run(everything(network))
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("blockfile_*"))}


def test_one_seed_gives_one_chain_and_another_seed_another(generated: GeneratedNetwork, tmp_path: Path) -> None:
    first = chain(generated, tmp_path / "first", 1)
    second = chain(generated, tmp_path / "second", 1)
    other = chain(generated, tmp_path / "other", 2)

    assert len(first) == len(PEERS) + 3
    assert first == second
    assert all(other[name] != content for name, content in first.items())


@pytest.mark.parametrize(("skew", "differs"), [(0.0, False), (0.02, True)])
def test_peers_are_at_different_heights_now_and_then_and_only_with_skew(
    generated: GeneratedNetwork, tmp_path: Path, skew: float, differs: bool
) -> None:
    with deployed(generated, tmp_path / "network", max_skew_seconds=skew) as network:

        async def story() -> int:
            differing = 0
            for number in range(12):
                await network.submit(put("a", b"%d" % number))
                service = network.channel(SERVICE)
                await service.wait_for_height(service.height)
                differing += len((await network.endorse(get("a"))).payloads) - 1
            return differing

        assert (network.run(story()) > 0) is differs


def test_a_slow_contract_delays_the_commit_of_its_peer_only(network: LedgerNetwork) -> None:
    async def slow(stub: Stub) -> bytes:
        before = await stub.get("a")
        await network.clock.sleep(5)
        assert await stub.get("a") == before
        return before

    async def story() -> tuple[int, int, bytes]:
        reading = asyncio.create_task(network.evaluate(slow))
        await network.clock.sleep(1)
        endorsed = await network.endorse(put("a", b"1"), ["peer0.billing", CUSTOMER])
        await network.order(endorsed)
        customer = network.channel(CUSTOMER)
        await customer.wait_for_height(customer.height)
        heights = network.channel(SERVICE).height, customer.height
        found = await reading
        await network.wait(endorsed.proposal.tx_id)
        return (*heights, found)

    service, customer, found = network.run(story())

    assert customer == service + 1
    assert found == b""
    assert network.run(network.evaluate(get("a"))) == b"1"


def test_a_block_that_no_orderer_signed_ends_the_network_and_says_why(network: LedgerNetwork) -> None:
    for orderer in network.ledger.orderers:
        orderer.identity = network.client("ServiceMSP", "agent")

    with pytest.raises(LedgerError, match=r"block 13 of consortium: .*BlockValidation"):
        network.run(network.commit(put("a", b"1")))

    assert [network.channel(peer).height for peer in PEERS] == [13] * len(PEERS)
