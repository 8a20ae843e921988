"""The configuration of a live channel on the embedded ledger: who may change it, when it rules, what keeps it."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from fabric_protos.common import common_pb2, configtx_pb2
from fabric_protos.orderer import configuration_pb2 as orderer_pb2
from fabric_protos.orderer.etcdraft import configuration_pb2 as raft_pb2

from network.channel.change import (
    BatchChange,
    publish_revocations,
    set_acls,
    set_batch,
    set_policy,
)
from network.channel.update_file import update_envelope
from network.embedded.ledger.admission import AdmissionError, propose_configuration
from network.embedded.ledger.peer import EndorserError
from network.protocol.block import SLOT_LAST_CONFIG, SLOT_SIGNATURES
from network.protocol.config_group import ConfigGroup
from network.protocol.config_update import SignedUpdate, encode_signed_update, read_update_envelope
from network.protocol.lifecycle import ChaincodeDefinition, policy_reference
from network.protocol.validation_code import BAD_CREATOR_SIGNATURE, ENDORSEMENT_POLICY_FAILURE, VALID
from tests.support.authority import revoked_users
from tests.support.embedded_ledger import (
    AGENT,
    BILLING,
    BOTH,
    CHANNEL,
    CUSTOMER,
    SERVICE,
    LedgerNetwork,
    deployed,
    get,
    put,
)
from tests.support.generated_network import START, GeneratedNetwork
from tests.support.service_request import signed_envelope

Change = Callable[[ConfigGroup], ConfigGroup]
CUSTOMER_ADMIN, SERVICE_ADMIN = ("CustomerMSP", "admin"), ("ServiceMSP", "admin")
BILLING_ADMIN, FIELD_ADMIN, ORDERER_ADMIN = ("BillingMSP", "admin"), ("FieldMSP", "admin"), ("OrdererMSP", "admin")


def batch(**changes: Any) -> Change:
    return lambda root: set_batch(root, BatchChange(**changes))


CONFIG_UPDATE = 2
ONE_MESSAGE = batch(max_messages=1)


def with_orderer_value(root: ConfigGroup, key: str, content: bytes) -> ConfigGroup:
    orderer = root.groups["Orderer"]
    group = orderer._replace(values={**orderer.values, key: orderer.values[key]._replace(value=content)})
    return root._replace(groups={**root.groups, "Orderer": group})


def consensus_of(root: ConfigGroup) -> Any:
    return orderer_pb2.ConsensusType.FromString(root.groups["Orderer"].values["ConsensusType"].value)


def config_block(network: LedgerNetwork, number: int, orderer: int = 0) -> Any:
    return network.ledger.channels[CHANNEL].block(orderer, number)


def opened(block: Any) -> tuple[Any, Any, Any, Any]:
    """Give the only envelope of a block, its two headers, and the configuration in it."""
    (content,) = block.data.data
    envelope = common_pb2.Envelope.FromString(content)
    payload = common_pb2.Payload.FromString(envelope.payload)
    header = common_pb2.ChannelHeader.FromString(payload.header.channel_header)
    signature_header = common_pb2.SignatureHeader.FromString(payload.header.signature_header)
    return envelope, header, signature_header, configtx_pb2.ConfigEnvelope.FromString(payload.data)


# --- the block


def test_an_update_becomes_a_configuration_that_its_orderer_signs(network: LedgerNetwork) -> None:
    update = network.update(ONE_MESSAGE)

    async def story() -> int:
        await network.ledger.broadcast(update, orderer=2)
        return network.ledger.channels[CHANNEL].height - 1

    number = network.run(story())
    envelope, header, signature_header, config = opened(config_block(network, number))
    orderer = network.ledger.orderers[2].identity

    assert (header.type, header.version, header.epoch, header.tx_id) == (1, 0, 0, "")
    assert (header.channel_id, header.timestamp.nanos) == (CHANNEL, 0)
    assert signature_header.creator == orderer.creator
    assert len(signature_header.nonce) == 24
    assert envelope.signature
    assert config.config.sequence == 1
    assert config.last_update == update


def test_its_block_names_itself_as_last_configuration_and_so_do_those_after_it(network: LedgerNetwork) -> None:
    async def story() -> int:
        number = await network.configure(ONE_MESSAGE)
        await network.commit(put("a", b"1"))
        return number

    number = network.run(story())

    for block_number in (number, number + 1):
        slots = config_block(network, block_number).metadata.metadata
        value = common_pb2.Metadata.FromString(slots[SLOT_SIGNATURES]).value
        signed = common_pb2.OrdererBlockMetadata.FromString(value).last_config.index
        unsigned = common_pb2.LastConfig.FromString(common_pb2.Metadata.FromString(slots[SLOT_LAST_CONFIG]).value)
        assert (signed, unsigned.index) == (number, number)


def test_what_waits_is_ordered_before_it_in_a_block_of_its_own(network: LedgerNetwork) -> None:
    async def story() -> tuple[str, int]:
        tx_id = await network.submit(put("a", b"1"))
        number = await network.configure(ONE_MESSAGE)
        assert await network.wait(tx_id) == VALID
        return tx_id, number

    tx_id, number = network.run(story())
    place = network.channel(SERVICE).transaction_place(tx_id)

    assert place is not None
    assert place.block_number == number - 1
    assert len(config_block(network, number).data.data) == 1


def test_every_peer_commits_it_as_valid_and_finds_it_under_its_computed_id(network: LedgerNetwork) -> None:
    number = network.run(network.configure(ONE_MESSAGE))

    for peer in network.peers:
        channel = network.channel(peer)
        assert channel.files.block(number).metadata.metadata[2] == b"\0"
        assert channel.config_sequence == 1
    assert network.ledger.channels[CHANNEL].config_sequence == 1


# --- when it rules


def test_batches_are_of_the_new_size_at_once(network: LedgerNetwork) -> None:
    async def story() -> list[int]:
        number = await network.configure(ONE_MESSAGE)
        for value in (b"1", b"2"):
            await network.submit(put("a", value))
        return [len(config_block(network, number + step).data.data) for step in (1, 2)]

    assert network.run(story()) == [1, 1]


def test_a_revoked_client_is_refused_by_orderers_and_peers(network: LedgerNetwork, generated: GeneratedNetwork) -> None:
    revoked = revoked_users(generated.credentials, "ServiceMSP", "agent", now=START)

    async def story() -> tuple[int, AdmissionError, str]:
        before = await network.endorse(put("a", b"1"))
        # What is ordered when the list comes into force was taken before it.
        await network.order(before)
        await network.configure(lambda root: publish_revocations(root, "ServiceMSP", [revoked]), [SERVICE_ADMIN])
        code = await network.wait(before.proposal.tx_id)
        with pytest.raises(AdmissionError) as refused:
            await network.order(before)
        with pytest.raises(EndorserError) as denied:
            await network.propose(SERVICE, put("a", b"2"))
        assert await network.commit(put("a", b"3"), client=("ServiceMSP", "supervisor")) == VALID
        return code, refused.value, str(denied.value)

    code, refused, denied = network.run(story())

    assert code == VALID
    assert refused.status == 403
    assert "access denied" in denied


def test_a_transaction_of_a_client_revoked_meanwhile_is_not_valid(
    network: LedgerNetwork, generated: GeneratedNetwork
) -> None:
    """An orderer that took it before the list came into force may order it after: peers find it."""
    revoked = revoked_users(generated.credentials, "ServiceMSP", "agent", now=START)

    async def story() -> bytes:
        endorsed = network.envelope(await network.endorse(put("a", b"1"))).SerializeToString()
        await network.configure(lambda root: publish_revocations(root, "ServiceMSP", [revoked]), [SERVICE_ADMIN])
        service = network.ledger.channels[CHANNEL]
        service._write_block([endorsed])  # noqa: SLF001  # what no orderer of ours would do
        await service.resume(service.orderers[0])
        channel = network.channel(SERVICE)
        await channel.wait_for_height(service.height - 1)
        return bytes(channel.files.block(service.height - 1).metadata.metadata[2])

    assert network.run(story()) == bytes((BAD_CREATOR_SIGNATURE,))


def test_endorsement_follows_the_new_policy_from_the_next_block_on(network: LedgerNetwork) -> None:
    own = "/Channel/Application/Endorsement"

    async def story() -> tuple[int, int]:
        await network.deploy("referring", ChaincodeDefinition(1, "1.0", policy_reference(own)))
        await network.configure(lambda root: set_policy(root, own, "OR('BillingMSP.peer')"))
        strangers = await network.commit(put("a", b"1"), BOTH, chaincode="referring")
        billing = await network.commit(put("a", b"2"), [BILLING], chaincode="referring")
        return strangers, billing

    assert network.run(story()) == (ENDORSEMENT_POLICY_FAILURE, VALID)


def test_access_follows_the_new_rules(network: LedgerNetwork) -> None:
    auditor = ("AuditorMSP", "auditor")

    async def story() -> str:
        await network.evaluate(get("a"), client=auditor)
        await network.configure(lambda root: set_acls(root, {"peer/Propose": "Writers"}))
        with pytest.raises(EndorserError) as denied:
            await network.propose(SERVICE, get("a"), client=auditor)
        return str(denied.value)

    assert "check policy [/Channel/Application/Writers]" in network.run(story())


def test_a_restart_keeps_it(generated: GeneratedNetwork, tmp_path: Path) -> None:
    with deployed(generated, tmp_path / "network") as network:
        number = network.run(network.configure(ONE_MESSAGE))
    again = LedgerNetwork(generated, tmp_path / "network")
    try:
        service = again.ledger.channels[CHANNEL]
        assert service.config_sequence == 1
        assert [again.channel(peer).config_sequence for peer in again.peers] == [1] * 4

        async def story() -> int:
            return await again.configure(batch(max_messages=7))

        assert again.run(story()) == number + 1
        assert service.config_sequence == 2
    finally:
        again.close()


# --- who may


def refusal(network: LedgerNetwork, make: Callable[[], Any]) -> AdmissionError:
    async def story() -> AdmissionError:
        with pytest.raises(AdmissionError) as caught:
            await network.ledger.broadcast(make())
        return caught.value

    height = network.ledger.channels[CHANNEL].height
    error = network.run(story())
    assert network.ledger.channels[CHANNEL].height == height
    assert network.ledger.channels[CHANNEL].config_sequence == 0
    return error


def test_what_the_administrators_have_not_signed_is_refused_in_the_words_of_real_orderers(
    network: LedgerNetwork,
) -> None:
    error = refusal(network, lambda: network.update(ONE_MESSAGE, [CUSTOMER_ADMIN, SERVICE_ADMIN]))

    assert error.status == 400
    assert error.info == (
        "error applying config update to existing channel 'consortium': error authorizing update: error validating "
        "DeltaSet: policy for [Value]  /Channel/Orderer/BatchSize not satisfied: implicit policy evaluation failed - 0 "
        "sub-policies were satisfied, but this policy requires 1 of the 'Admins' sub-policies to be satisfied"
    )


def test_the_departments_alone_change_nothing_of_the_members(network: LedgerNetwork) -> None:
    def change(root: ConfigGroup) -> ConfigGroup:
        return set_policy(root, "/Channel/Application/Admins", "OR('ServiceMSP.admin')")

    error = refusal(network, lambda: network.update(change, [SERVICE_ADMIN, BILLING_ADMIN, FIELD_ADMIN]))

    assert "policy for [Policy] /Channel/Application/Admins not satisfied" in error.info
    assert "signature set did not satisfy policy" in error.info


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            b"\xff",
            (
                "error converting envelope to config update: error unmarshalling message for type CONFIG_UPDATE: "
                "proto: cannot parse invalid wire-format data"
            ),
        ),
        (
            encode_signed_update(SignedUpdate(b"\xff", ())),
            "error authorizing update: proto: cannot parse invalid wire-format data",
        ),
    ],
    ids=["no envelope of an update", "no update"],
)
def test_bytes_that_are_no_update_are_refused_in_the_words_of_real_orderers(
    network: LedgerNetwork, content: bytes, words: str
) -> None:
    identity = network.client(*SERVICE_ADMIN)

    error = refusal(network, lambda: signed_envelope(identity, content, kind=CONFIG_UPDATE))

    assert (error.status, error.info) == (
        400,
        f"error applying config update to existing channel 'consortium': {words}",
    )


def test_whoever_submits_must_be_a_writer_whatever_the_signatures_say(network: LedgerNetwork) -> None:
    error = refusal(network, lambda: network.update(ONE_MESSAGE, submitter=("AuditorMSP", "admin")))

    assert error.status == 403
    assert error.info.startswith("config update for existing channel did not pass initial checks: implicit policy")
    assert error.info.endswith(": permission denied")


def test_an_update_of_an_older_configuration_is_refused(network: LedgerNetwork) -> None:
    async def story() -> AdmissionError:
        late = network.update(ONE_MESSAGE)
        await network.configure(batch(max_messages=5))
        with pytest.raises(AdmissionError) as caught:
            await network.ledger.broadcast(late)
        return caught.value

    error = network.run(story())

    assert error.status == 400
    assert "attempt to set key [Value]  /Channel/Orderer/BatchSize to version 1, but key is at version 1" in error.info


def test_a_configuration_that_no_node_could_use_is_refused(network: LedgerNetwork) -> None:
    error = refusal(network, lambda: network.update(lambda root: with_orderer_value(root, "BatchSize", b"")))

    assert error.status == 400
    assert "BatchSize that no orderer could keep to" in error.info


def test_consenters_change_one_at_a_time(network: LedgerNetwork) -> None:
    def remove_two(root: ConfigGroup) -> ConfigGroup:
        consensus = consensus_of(root)
        metadata = raft_pb2.ConfigMetadata.FromString(consensus.metadata)
        del metadata.consenters[1:]
        consensus.metadata = metadata.SerializeToString()
        return with_orderer_value(root, "ConsensusType", consensus.SerializeToString())

    error = refusal(network, lambda: network.update(remove_two))

    assert "consensus metadata update for channel config update is invalid: update of more than one" in error.info


def test_an_update_larger_than_a_message_may_be_is_refused(network: LedgerNetwork) -> None:
    async def story() -> AdmissionError:
        await network.configure(batch(absolute_max_bytes=20_000, preferred_max_bytes=20_000))
        with pytest.raises(AdmissionError) as caught:
            await network.ledger.broadcast(network.update(ONE_MESSAGE))
        return caught.value

    error = network.run(story())

    assert error.status == 400
    # The update itself is small; the configuration that it makes is not.
    assert error.info.startswith("config update for existing channel did not pass final checks: message payload is ")


@pytest.mark.parametrize("content", [b"", b"\xff", b"\x0a\x01\xff"], ids=["nothing", "no message", "no update"])
def test_bytes_that_are_no_update_are_refused(network: LedgerNetwork, content: bytes) -> None:
    def make() -> Any:
        now = datetime.fromtimestamp(network.clock.now(), UTC)
        return update_envelope(CHANNEL, SignedUpdate(content, ()), network.client(*SERVICE_ADMIN), bytes(24), now)

    error = refusal(network, make)

    assert error.status == 400
    assert error.info.startswith("error applying config update to existing channel 'consortium': ")


def test_maintenance_lets_only_orderers_through(network: LedgerNetwork) -> None:
    def maintain(root: ConfigGroup) -> ConfigGroup:
        consensus = consensus_of(root)
        consensus.state = orderer_pb2.ConsensusType.STATE_MAINTENANCE
        return with_orderer_value(root, "ConsensusType", consensus.SerializeToString())

    async def story() -> tuple[AdmissionError, AdmissionError]:
        endorsed = await network.endorse(put("a", b"1"))
        await network.configure(maintain)
        with pytest.raises(AdmissionError) as transaction:
            await network.order(endorsed)
        with pytest.raises(AdmissionError) as update:
            await network.ledger.broadcast(network.update(ONE_MESSAGE))
        await network.ledger.broadcast(network.update(ONE_MESSAGE, submitter=ORDERER_ADMIN))
        return transaction.value, update.value

    transaction, update = network.run(story())

    assert (transaction.status, transaction.info) == (503, "normal transactions are rejected: maintenance mode")
    assert update.status == 403
    assert network.ledger.channels[CHANNEL].config_sequence == 2


# --- what has no verdict


def test_a_configuration_that_was_not_authorised_does_not_come_into_force(network: LedgerNetwork) -> None:
    """No orderer of ours writes one; where there is one all the same, a code is given and the peer goes on."""
    service = network.ledger.channels[CHANNEL]

    async def story() -> tuple[bytes, int]:
        update = network.update(ONE_MESSAGE)
        proposed = propose_configuration(update, service.rules, 2**30, network.clock.now(), None)
        message = configtx_pb2.ConfigEnvelope.FromString(proposed.content)
        signed = read_update_envelope(message.last_update)._replace(signatures=())
        payload = common_pb2.Payload.FromString(message.last_update.payload)
        payload.data = encode_signed_update(signed)
        message.last_update.payload = payload.SerializeToString()
        # What no orderer of ours writes is written past its checks.
        wrapped = service._wrapped(message.SerializeToString(), service.orderers[0], 0)  # noqa: SLF001
        service._write_block([wrapped.SerializeToString()], service.rules)  # noqa: SLF001
        await service.resume(service.orderers[0])
        channel = network.channel(SERVICE)
        await channel.wait_for_height(service.height - 1)
        return bytes(channel.files.block(service.height - 1).metadata.metadata[2]), channel.config_sequence

    flags, sequence = network.run(story())

    assert (flags, sequence) == (b"\x06", 0)


def test_peers_that_stood_still_take_every_configuration_in_its_turn(network: LedgerNetwork) -> None:
    async def story() -> int:
        network.ledger.node_state(CUSTOMER).pause()
        for size in (3, 2, 1):
            await network.configure(batch(max_messages=size))
        assert network.channel(CUSTOMER).config_sequence == 0
        await network.ledger.resume_node(CUSTOMER)
        channel = network.channel(CUSTOMER)
        await channel.wait_for_height(network.ledger.channels[CHANNEL].height - 1)
        return channel.config_sequence

    assert network.run(story()) == 3


def test_an_update_with_the_signature_of_another_is_refused(network: LedgerNetwork) -> None:
    def make() -> Any:
        payload = network.update(ONE_MESSAGE).payload
        return common_pb2.Envelope(payload=payload, signature=network.client(*AGENT).sign(payload))

    assert refusal(network, make).status == 403
