"""BFT on the embedded ledger: quorum signatures, what differs between orderers, known requests, orderers down."""

from pathlib import Path
from typing import Any

import pytest
from fabric_protos.common import common_pb2

from network.channel.change import Address, BatchChange, OrdererCertificates, rotate_orderer, set_batch, set_policy
from network.embedded.ledger.admission import AdmissionError
from network.embedded.ledger.block_signing import NONCE_BYTES
from network.embedded.ledger.request_pool import REMEMBERED, RequestPool
from network.protocol.block import SLOT_SIGNATURES, BlockHeader, header_bytes
from network.protocol.config_group import ConfigGroup
from network.protocol.errors import PolicyError
from network.protocol.validation_code import VALID
from network.protocol.wire import read_varint, scan_fields
from tests.support.authority import new_node, new_tls
from tests.support.embedded_ledger import BOTH, CHANNEL, SERVICE, LedgerNetwork, deployed, generate_dev, put
from tests.support.generated_network import START, GeneratedNetwork

ORDERERS = ("EnterpriseOrdererMSP", "CustomerOrdererMSP", "RegulatorOrdererMSP", "NotaryOrdererMSP")
MEMBERS = (("CustomerMSP", "admin"), ("ServiceMSP", "admin"))
ALL = (*MEMBERS, *[(msp_id, "admin") for msp_id in ORDERERS])
QUORUM = 3


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> GeneratedNetwork:
    return generate_dev(tmp_path_factory.mktemp("generated") / "credentials", "bft")


def slot(block: Any) -> Any:
    return common_pb2.Metadata.FromString(block.metadata.metadata[SLOT_SIGNATURES])


def signers(block: Any) -> list[int]:
    entries = slot(block).signatures
    return [common_pb2.IdentifierHeader.FromString(entry.identifier_header).identifier for entry in entries]


def view(block: Any) -> dict[int, int]:
    """Give the ViewMetadata: 1 view, 2 sequence, 3 decisions in the view."""
    content = common_pb2.OrdererBlockMetadata.FromString(slot(block).value).consenter_metadata
    return {field.number: read_varint(field.raw, 0)[0] for field in scan_fields(content)}


def copies(network: LedgerNetwork, number: int) -> list[Any]:
    return [network.ledger.channels[CHANNEL].block(orderer, number) for orderer in range(4)]


def one_message(root: ConfigGroup) -> ConfigGroup:
    return set_batch(root, BatchChange(max_messages=1))


# --- blocks


def test_each_orderer_keeps_a_quorum_of_signatures_its_own_last(network: LedgerNetwork) -> None:
    service = network.ledger.channels[CHANNEL]

    for number in range(1, service.height):
        for position, block in enumerate(copies(network, number)):
            found = signers(block)
            assert len(set(found)) == len(found) == QUORUM
            assert found[-1] == position + 1


def test_orderers_differ_in_which_signatures_they_keep_and_agree_in_each(network: LedgerNetwork) -> None:
    service = network.ledger.channels[CHANNEL]
    subsets = set()

    for number in range(1, service.height):
        by_id: dict[int, set[bytes]] = {}
        for block in copies(network, number):
            subsets.add(tuple(signers(block)[:-1]))
            for identifier, entry in zip(signers(block), slot(block).signatures, strict=True):
                by_id.setdefault(identifier, set()).add(entry.signature)
        assert all(len(signatures) == 1 for signatures in by_id.values())

    assert len(subsets) > 4


def test_signatures_name_a_consenter_and_cover_value_name_and_header(network: LedgerNetwork) -> None:
    block = network.ledger.channels[CHANNEL].block(1, 1)
    header = BlockHeader(block.header.number, block.header.previous_hash, block.header.data_hash)
    value = slot(block).value

    for entry in slot(block).signatures:
        named = common_pb2.IdentifierHeader.FromString(entry.identifier_header)
        identity = network.ledger.orderers[named.identifier - 1].identity
        assert not entry.signature_header
        assert len(named.nonce) == NONCE_BYTES
        assert identity.sign(value + entry.identifier_header + header_bytes(header)) == entry.signature


def test_fewer_signatures_than_a_quorum_satisfy_nobody(network: LedgerNetwork) -> None:
    trust = network.ledger.channels[CHANNEL].rules.trust
    block = network.ledger.channels[CHANNEL].block(0, 1)
    header = BlockHeader(block.header.number, block.header.previous_hash, block.header.data_hash)
    metadata = slot(block)
    trust.verify_block(header, tuple(block.metadata.metadata))
    del metadata.signatures[0]
    block.metadata.metadata[SLOT_SIGNATURES] = metadata.SerializeToString()

    with pytest.raises(PolicyError):
        trust.verify_block(header, tuple(block.metadata.metadata))


def test_the_view_counts_its_decisions(network: LedgerNetwork) -> None:
    service = network.ledger.channels[CHANNEL]

    assert view(service.block(0, 1)) == {2: 1}
    assert view(service.block(2, 2)) == {2: 2, 3: 1}
    assert view(service.block(3, service.height - 1)) == {2: service.height - 1, 3: service.height - 2}


def test_peers_of_every_organisation_commit_them(network: LedgerNetwork) -> None:
    assert network.run(network.commit(put("a", b"1"), BOTH)) == VALID


# --- cutting


def test_blocks_are_cut_by_the_settings_of_bft(network: LedgerNetwork) -> None:
    """By count and its own interval; what a block should hold at most (of Raft) plays no role."""

    async def story() -> int:
        await network.configure(lambda root: set_batch(root, BatchChange(preferred_max_bytes=1, timeout="1h")), ALL)
        start, height = network.clock.now(), network.ledger.channels[CHANNEL].height
        for _ in range(3):
            await network.submit(put("a", b"1"))
        await network.ledger.channels[CHANNEL].wait_for_height(height)
        assert network.clock.now() - start == pytest.approx(0.2)
        return len(network.ledger.channels[CHANNEL].block(0, height).data.data)

    assert network.run(story()) == 3


# --- requests


def refused(network: LedgerNetwork, envelope: Any) -> Any:
    async def story() -> AdmissionError:
        with pytest.raises(AdmissionError) as caught:
            await network.ledger.broadcast(envelope, orderer=1)
        return caught.value

    return story()


def test_a_request_that_is_known_is_refused(network: LedgerNetwork) -> None:
    async def story() -> tuple[AdmissionError, AdmissionError]:
        endorsed = await network.endorse(put("a", b"1"))
        envelope = network.envelope(endorsed)
        await network.ledger.broadcast(envelope)
        waiting = await refused(network, envelope)
        await network.wait(endorsed.proposal.tx_id)
        return waiting, await refused(network, envelope)

    waiting, ordered = network.run(story())

    assert (waiting.status, waiting.info) == (503, "failed to submit request: request already exists")
    assert (ordered.status, ordered.info) == (503, "failed to submit request: request already processed")


def test_an_update_given_to_every_orderer_is_ordered_once(network: LedgerNetwork) -> None:
    async def story() -> AdmissionError:
        update = network.update(lambda root: set_policy(root, "/Channel/Application/New", "ANY Readers"), ALL)
        await network.ledger.broadcast(update, orderer=0)
        return await refused(network, update)

    height = network.ledger.channels[CHANNEL].height
    error = network.run(story())

    assert network.ledger.channels[CHANNEL].height == height + 1
    assert "is currently at version 1" in error.info or "but key is at version" in error.info


def test_only_so_many_requests_are_remembered() -> None:
    pool = RequestPool()
    for number in range(REMEMBERED + 1):
        pool.add(str(number))
        pool.order(str(number))

    pool.add("0")
    with pytest.raises(AdmissionError):
        pool.add("1")


def test_bft_orders_transactions_and_nothing_else(network: LedgerNetwork) -> None:
    async def story() -> AdmissionError:
        payload = common_pb2.Payload.FromString(network.envelope(await network.endorse(put("a", b"1"))).payload)
        header = common_pb2.ChannelHeader.FromString(payload.header.channel_header)
        header.type = 77
        payload.header.channel_header = header.SerializeToString()
        content = payload.SerializeToString()
        signature = network.client("ServiceMSP", "agent").sign(content)
        return await refused(network, common_pb2.Envelope(payload=content, signature=signature))

    assert network.run(story()).status == 400


# --- configurations


def test_blocks_are_signed_under_the_configuration_before_them(
    network: LedgerNetwork, generated: GeneratedNetwork
) -> None:
    """An orderer whose certificate was rotated signs its last block, and none until it has the new one."""
    certificate = new_node(generated.credentials, ORDERERS[0], "orderer0", START)
    tls = new_tls(generated.credentials, ORDERERS[0], "orderer0", START)
    endpoint = generated.endpoints["orderer0"]
    change = OrdererCertificates(tls.certificate_pem, tls.certificate_pem, certificate.certificate_pem)

    async def story() -> int:
        number = await network.configure(
            lambda root: rotate_orderer(root, Address(endpoint.host, endpoint.port), change), ALL
        )
        for value in (b"1", b"2", b"3"):
            assert await network.commit(put("a", value)) == VALID
        return number

    number = network.run(story())
    service = network.ledger.channels[CHANNEL]

    assert signers(service.block(0, number))[-1] == 1
    for later in range(number + 1, service.height):
        assert all(1 not in signers(block) for block in copies(network, later))


def test_a_quorum_that_is_not_the_consenters_is_refused(network: LedgerNetwork) -> None:
    def lower(root: ConfigGroup) -> ConfigGroup:
        return set_policy(root, "/Channel/Orderer/BlockValidation", "ANY Writers")

    error = network.run(refused(network, network.update(lower, ALL)))

    assert error.status == 503
    assert "block validation policy should be a signature policy" in error.info


def test_a_majority_of_the_orderers_organisations_must_agree(network: LedgerNetwork) -> None:
    def update(*orderers: str) -> Any:
        return network.update(one_message, [*MEMBERS, *[(msp_id, "admin") for msp_id in orderers]])

    assert "requires 3 of the 'Admins' sub-policies" in network.run(refused(network, update(*ORDERERS[:2]))).info
    network.run(network.configure(one_message, [*MEMBERS, *[(msp_id, "admin") for msp_id in ORDERERS[:3]]]))


# --- orderers down


def test_one_of_four_may_be_down_and_the_next_one_leads(network: LedgerNetwork) -> None:
    async def story() -> int:
        network.ledger.node_state("orderer0").end()
        assert await network.commit(put("a", b"1")) == VALID
        return network.ledger.channels[CHANNEL].height - 1

    number = network.run(story())
    service = network.ledger.channels[CHANNEL]
    block = service.block(1, number)

    assert sorted(signers(block)) == [2, 3, 4]
    assert view(block) == {1: 1, 2: number}


def test_with_two_of_four_down_nothing_is_ordered_until_one_is_back(network: LedgerNetwork) -> None:
    async def story() -> AdmissionError:
        waiting = await network.submit(put("a", b"1"))
        network.ledger.node_state("orderer0").end()
        network.ledger.node_state("orderer3").pause()
        endorsed = await network.endorse(put("b", b"1"))
        with pytest.raises(AdmissionError) as caught:
            await network.order(endorsed)
        await network.clock.sleep(5)
        assert network.channel(SERVICE).transaction_place(waiting) is None
        await network.ledger.resume_node("orderer3")
        assert await network.wait(waiting) == VALID
        assert await network.commit(put("b", b"2")) == VALID
        return caught.value

    error = network.run(story())

    assert (error.status, error.info) == (503, "no leader")


def test_an_orderer_that_comes_back_has_every_block(network: LedgerNetwork) -> None:
    service = network.ledger.channels[CHANNEL]

    async def story() -> None:
        network.ledger.node_state("orderer2").end()
        for value in (b"1", b"2"):
            await network.commit(put("a", value))
        await network.ledger.resume_node("orderer2")

    network.run(story())
    newest = service.block(2, service.height - 1)

    assert newest.header == service.block(0, service.height - 1).header
    assert 3 not in signers(newest)
    header = BlockHeader(newest.header.number, newest.header.previous_hash, newest.header.data_hash)
    service.rules.trust.verify_block(header, tuple(newest.metadata.metadata))


def test_a_restart_goes_on_in_the_same_view(generated: GeneratedNetwork, tmp_path: Path) -> None:
    with deployed(generated, tmp_path / "network") as network:
        before = view(network.ledger.channels[CHANNEL].block(0, network.ledger.channels[CHANNEL].height - 1))
    again = LedgerNetwork(generated, tmp_path / "network", behaviours=network.behaviours)
    try:
        assert again.run(again.commit(put("a", b"1"))) == VALID
        service = again.ledger.channels[CHANNEL]
        assert view(service.block(0, service.height - 1)) == {2: before[2] + 1, 3: before[3] + 1}
    finally:
        again.close()
