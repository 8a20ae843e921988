import contextlib
from collections.abc import Callable
from types import MappingProxyType

import pytest
from fabric_protos.common import common_pb2, configtx_pb2, configuration_pb2
from fabric_protos.orderer import configuration_pb2 as orderer_configuration_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from network.protocol.block_signature import ChannelTrust
from network.protocol.configuration import decode_config_envelope
from network.protocol.errors import ConfigurationError, DecodeError, LimitExceededError
from network.protocol.msp import MspVersion
from tests.support.credential import ChannelDraft, config_envelope, msp_config, root_authority

ORDERER_CA, ORG_CA = root_authority("OrdererMSP"), root_authority("OrgMSP")


def draft(**changes: object) -> ChannelDraft:
    return ChannelDraft(
        {"OrdererOrg": msp_config("OrdererMSP", [ORDERER_CA])},
        {"Org": msp_config("OrgMSP", [ORG_CA])},
        **changes,  # type: ignore[arg-type]  # changes go through as they are
    )


def changed(change: Callable[[configtx_pb2.ConfigGroup], object]) -> bytes:
    config = draft().config()
    change(config.channel_group)
    return config_envelope(config)


def test_reads_the_whole_tree() -> None:
    configuration = decode_config_envelope(draft(sequence=7).envelope())
    orderer = configuration.root.groups["Orderer"]

    assert configuration.sequence == 7
    assert configuration.channel_id is None
    assert set(configuration.root.groups) == {"Orderer", "Application"}
    assert set(orderer.groups["OrdererOrg"].policies) == {"Readers", "Writers", "Admins", "Endorsement"}
    assert orderer.values["ConsensusType"].value == b"\x0a\x08etcdraft"
    assert orderer.values["ConsensusType"].mod_policy == "Admins"
    assert configuration.consensus_type == "etcdraft"
    assert configuration.consenters == ()
    assert configuration.orderer_organizations["OrdererOrg"].endpoints == ("orderer:7050",)
    assert set(configuration.application_organizations) == {"Org"}
    assert len(configuration.msp_definitions) == 2
    assert (configuration.channel_capabilities, configuration.orderer_capabilities) == ({"V3_0"}, {"V2_0"})
    assert configuration.application_capabilities == {"V2_5"}


def test_tree_cannot_be_changed() -> None:
    configuration = decode_config_envelope(draft().envelope())

    assert isinstance(configuration.root.groups, MappingProxyType)
    with pytest.raises(AttributeError):
        configuration.sequence = 1  # type: ignore[misc]  # that is the point


def test_reads_consenters_of_bft() -> None:
    credential = ORDERER_CA.issue(units=("orderer",))

    configuration = decode_config_envelope(draft(consenters=[(3, credential)]).envelope())

    assert configuration.consensus_type == "BFT"
    assert configuration.consenters == ((3, "OrdererMSP", credential.pem),)


def test_channel_id_is_the_one_that_the_last_update_was_signed_for() -> None:
    def envelope(channel_id: str) -> bytes:
        update = configtx_pb2.ConfigUpdate(channel_id=channel_id).SerializeToString()
        signed = configtx_pb2.ConfigUpdateEnvelope(config_update=update).SerializeToString()
        message = configtx_pb2.ConfigEnvelope(config=draft().config())
        message.last_update.payload = common_pb2.Payload(data=signed).SerializeToString()
        return bytes(message.SerializeToString())

    assert decode_config_envelope(envelope("consortium")).channel_id == "consortium"
    assert decode_config_envelope(envelope("Not A Channel")).channel_id is None


@pytest.mark.parametrize(
    ("capability", "version"),
    [
        ("V1_1", MspVersion.V1_1),
        ("V1_3", MspVersion.V1_3),
        ("V1_4_2", MspVersion.V1_3),
        ("V1_4_3", MspVersion.V1_4_3),
        ("V2_0", MspVersion.V1_4_3),
        ("V3_0", MspVersion.V3_0),
    ],
)
def test_capability_decides_the_rules_of_msps(capability: str, version: MspVersion) -> None:
    configuration = decode_config_envelope(draft(channel_capability=capability).envelope())

    assert configuration.msp_version == version
    assert configuration.names_consenters_by_id == (capability == "V3_0")


@pytest.mark.parametrize("path", ["/Channel", "/Channel/Application"])
def test_refuses_capability_of_the_future_by_name(path: str) -> None:
    def change(channel: configtx_pb2.ConfigGroup) -> None:
        group = channel if path == "/Channel" else channel.groups["Application"]
        message = configuration_pb2.Capabilities()
        message.capabilities["V4_0"].SetInParent()
        group.values["Capabilities"].value = message.SerializeToString()

    with pytest.raises(ConfigurationError, match=rf"^{path}: capability 'V4_0' is not supported$"):
        decode_config_envelope(changed(change))


def put(group: configtx_pb2.ConfigGroup, key: str, value: bytes = b"") -> None:
    group.values[key].value = value


NO_BATCH = orderer_configuration_pb2.BatchSize(
    max_message_count=1, absolute_max_bytes=1, preferred_max_bytes=2
).SerializeToString()
ADDRESSES = configuration_pb2.OrdererAddresses(addresses=["orderer:7050"]).SerializeToString()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(lambda c: put(c, "Novelty"), "value Novelty", id="unknown value of the channel"),
        pytest.param(lambda c: put(c.groups["Orderer"], "MSP"), "value MSP", id="unknown value of the orderers"),
        pytest.param(lambda c: put(c.groups["Application"], "BatchSize"), "value", id="unknown value of applications"),
        pytest.param(
            lambda c: put(c.groups["Application"].groups["Org"], "Endpoints"), "value", id="unknown value of an org"
        ),
        pytest.param(lambda c: c.groups["Novelty"].SetInParent(), "group Novelty", id="unknown group"),
        pytest.param(
            lambda c: c.groups["Orderer"].groups["OrdererOrg"].groups["X"].SetInParent(), "no groups", id="org's group"
        ),
        pytest.param(lambda c: c.groups.pop("Orderer"), "no Orderer group", id="no orderers"),
        pytest.param(lambda c: c.groups.pop("Application"), "no Application group", id="no applications"),
        pytest.param(lambda c: c.values.pop("HashingAlgorithm"), "HashingAlgorithm", id="no hash"),
        pytest.param(lambda c: put(c, "HashingAlgorithm", b"\x0a\x03MD5"), "HashingAlgorithm", id="unknown hash"),
        pytest.param(lambda c: put(c, "BlockDataHashingStructure", b"\x08\x01"), "width", id="other width"),
        pytest.param(lambda c: put(c, "OrdererAddresses", ADDRESSES), "OrdererAddresses", id="global addresses"),
        pytest.param(lambda c: c.values.pop("Capabilities"), "no OrdererAddresses", id="no addresses"),
        pytest.param(
            lambda c: c.groups["Orderer"].values.pop("Capabilities"), "no Capabilities", id="capabilities above only"
        ),
        pytest.param(lambda c: put(c.groups["Orderer"], "BatchSize", NO_BATCH), "BatchSize", id="impossible batch"),
        pytest.param(
            lambda c: c.groups["Orderer"].groups["OrdererOrg"].values.pop("Endpoints"),
            "no Endpoints",
            id="no endpoints",
        ),
        pytest.param(
            lambda c: (c.groups["Application"].values.pop("Capabilities"), put(c.groups["Application"], "ACLs")),
            "ACLs",
            id="rights without capability",
        ),
        pytest.param(lambda c: c.policies["Odd"].SetInParent(), "policy Odd is empty", id="empty policy"),
        pytest.param(lambda c: put(c, "no_name"), "no name", id="key with underscore"),
        pytest.param(lambda c: put(c, ".."), "no name", id="key of dots"),
        pytest.param(lambda c: put(c, ""), "no name", id="empty key"),
        pytest.param(lambda c: put(c, "x" * 250), "no name", id="long key"),
    ],
)
def test_refuses_what_fabric_refuses(change: Callable[[configtx_pb2.ConfigGroup], object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        decode_config_envelope(changed(change))


@pytest.mark.parametrize(
    "content", [b"", b"\x0a\x00", b"\x0a\x02\x08\x01"], ids=["nothing", "empty config", "no channel group"]
)
def test_refuses_envelope_without_configuration(content: bytes) -> None:
    with pytest.raises(ConfigurationError):
        decode_config_envelope(content)


def test_refuses_value_that_is_not_its_message() -> None:
    with pytest.raises(DecodeError, match="/Channel/Orderer/BatchSize"):
        decode_config_envelope(changed(lambda c: put(c.groups["Orderer"], "BatchSize", b"\xff")))


def test_bounds_the_nesting_of_groups() -> None:
    def change(channel: configtx_pb2.ConfigGroup) -> None:
        group = channel
        for _ in range(12):
            group = group.groups["deeper"]
        group.SetInParent()

    with pytest.raises(LimitExceededError):
        decode_config_envelope(changed(change))


def test_orderer_capability_of_the_future_does_not_stop_a_peer() -> None:
    def change(channel: configtx_pb2.ConfigGroup) -> None:
        message = configuration_pb2.Capabilities()
        message.capabilities["V4_0"].SetInParent()
        put(channel.groups["Orderer"], "Capabilities", message.SerializeToString())

    assert decode_config_envelope(changed(change)).orderer_capabilities == {"V4_0"}


def test_trust_needs_the_policy_for_blocks() -> None:
    configuration = decode_config_envelope(changed(lambda c: c.groups["Orderer"].policies.pop("BlockValidation")))

    with pytest.raises(ConfigurationError, match="/Channel/Orderer/BlockValidation"):
        ChannelTrust(configuration)


def test_consortiums_of_old_system_channels_are_read_for_their_msps() -> None:
    def change(channel: configtx_pb2.ConfigGroup) -> None:
        organization = channel.groups["Consortiums"].groups["Consortium"].groups["Org"]
        organization.CopyFrom(channel.groups["Application"].groups["Org"])

    configuration = decode_config_envelope(changed(change))

    assert [organization.name for organization in configuration.consortium_organizations] == ["Org"]
    assert set(ChannelTrust(configuration).msps.by_id) == {"OrdererMSP", "OrgMSP"}


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_random_bytes_raise_our_error(content: bytes) -> None:
    with contextlib.suppress(DecodeError, ConfigurationError):
        decode_config_envelope(content)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 255))
def test_changed_configurations_read_or_raise_our_error(position: int, value: int) -> None:
    content = bytearray(ENVELOPE)
    content[position % len(content)] = value

    with contextlib.suppress(DecodeError, ConfigurationError):
        ChannelTrust(decode_config_envelope(bytes(content)))


ENVELOPE = draft(consenters=[(1, ORDERER_CA.issue(units=("orderer",)))]).envelope()
