from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from itertools import combinations
from typing import Any

import pytest
from fabric_protos.common import common_pb2, configtx_pb2, policies_pb2
from fabric_protos.msp import msp_config_pb2
from fabric_protos.orderer import configuration_pb2 as orderer_pb2
from fabric_protos.orderer.etcdraft import configuration_pb2 as raft_pb2
from fabric_protos.orderer.smartbft import configuration_pb2 as smartbft_pb2
from fabric_protos.peer import configuration_pb2 as peer_configuration_pb2

from network.errors import CredentialError
from network.genesis import Endpoint, genesis_block, policy_message
from network.protocol.block import BlockHeader
from network.protocol.block_signature import ChannelTrust
from network.protocol.configuration import Consenter
from network.protocol.decode import decode_block
from network.protocol.errors import ConfigurationError, IdentityError
from network.protocol.policy import is_satisfied
from network.protocol.policy_expression import decode_policy_expression
from network.protocol.transaction import HEADER_CONFIG
from network.topology.definition import Node
from network.topology.topology_file import read_topology, shipped_topology
from tests.support.generated_network import NONCE, START, GeneratedNetwork, bft_topology, generate_network
from tests.support.recorded_chain import CHAINS, load_chain

MEMBERS = ("ServiceMSP", "BillingMSP", "FieldMSP", "CustomerMSP", "AuditorMSP")


@pytest.fixture(scope="module")
def raft(tmp_path_factory: pytest.TempPathFactory) -> GeneratedNetwork:
    return generate_network(read_topology(shipped_topology("dev")), tmp_path_factory.mktemp("raft") / "credentials")


@pytest.fixture(scope="module")
def bft(tmp_path_factory: pytest.TempPathFactory) -> GeneratedNetwork:
    folder = tmp_path_factory.mktemp("bft")
    return generate_network(bft_topology(folder), folder / "credentials")


@pytest.fixture(params=["raft", "bft"])
def network(request: pytest.FixtureRequest) -> GeneratedNetwork:
    made: GeneratedNetwork = request.getfixturevalue(request.param)
    return made


def config_of(block: bytes) -> Any:
    (envelope,) = common_pb2.Block.FromString(block).data.data
    payload = common_pb2.Payload.FromString(common_pb2.Envelope.FromString(envelope).payload)
    return configtx_pb2.ConfigEnvelope.FromString(payload.data).config


def groups_of(block: bytes) -> Iterator[tuple[str, Any]]:
    """Give every group by its path."""

    def below(path: str, group: Any) -> Iterator[tuple[str, Any]]:
        yield path, group
        for name, child in group.groups.items():
            yield from below(f"{path}/{name}", child)

    return below("/Channel", config_of(block).channel_group)


def value_of(network: GeneratedNetwork, path: str, name: str, kind: Any) -> Any:
    return kind.FromString(dict(groups_of(network.genesis()))[path].values[name].value)


# --- the block


def test_it_is_block_0_with_one_configuration_transaction_of_the_channel(network: GeneratedNetwork) -> None:
    block = decode_block(network.genesis())

    (transaction,) = block.transactions
    assert block.header == BlockHeader(0, b"", sha256(block.envelopes[0]).digest())
    assert (transaction.header_type, transaction.channel_id, transaction.defect) == (HEADER_CONFIG, "consortium", None)
    assert (transaction.seconds, transaction.nanos, transaction.creator) == (int(START.timestamp()), 0, b"")
    assert transaction.tx_id == sha256(NONCE).hexdigest()


def test_nobody_signed_it_and_the_last_configuration_is_itself(network: GeneratedNetwork) -> None:
    block = common_pb2.Block.FromString(network.genesis())

    first, *others = block.metadata.metadata
    metadata = common_pb2.Metadata.FromString(first)
    assert others == [b""] * 4
    assert list(metadata.signatures) == []
    orderer_metadata = common_pb2.OrdererBlockMetadata.FromString(metadata.value)
    assert (orderer_metadata.HasField("last_config"), orderer_metadata.last_config.index) == (True, 0)
    assert common_pb2.Envelope.FromString(block.data.data[0]).signature == b""


def test_the_same_inputs_give_the_same_bytes(network: GeneratedNetwork) -> None:
    topology = network.topology
    (channel,) = topology.channels
    acls = {**channel.acls, "qscc/GetChainInfo": "Readers"}
    turned = replace(
        channel,
        channel_policies=dict(reversed(list(channel.channel_policies.items()))),
        application_policies=dict(reversed(list(channel.application_policies.items()))),
        acls=dict(reversed(list(acls.items()))),
    )
    straight = replace(channel, acls=acls)

    first, second = (
        GeneratedNetwork(replace(topology, channels=(form,)), network.credentials).genesis()
        for form in (straight, turned)
    )

    assert first == second


def test_another_nonce_gives_another_block(raft: GeneratedNetwork) -> None:
    (channel,) = raft.topology.channels

    other = genesis_block(raft.topology, channel, raft.credentials, raft.endpoints, nonce=bytes(24), timestamp=START)

    assert decode_block(other).transactions[0].tx_id != decode_block(raft.genesis()).transactions[0].tx_id


# --- the configuration


def test_our_own_reader_takes_it_and_sets_all_of_it_up(network: GeneratedNetwork) -> None:
    configuration = network.configuration()

    trust = ChannelTrust(configuration)
    assert configuration.sequence == 0
    assert set(configuration.application_organizations) == set(MEMBERS)
    assert set(trust.msps.by_id) == {organization.msp_id for organization in network.topology.all_organizations}
    assert configuration.channel_capabilities == {"V3_0"}
    assert configuration.orderer_capabilities == {"V2_0"}
    assert configuration.application_capabilities == {"V2_5"}


def test_admins_may_change_everything_and_nobody_else(network: GeneratedNetwork) -> None:
    for _, group in groups_of(network.genesis()):
        owners = [group, *group.values.values(), *group.policies.values()]
        assert {owner.mod_policy for owner in owners} == {"Admins"}
        assert "Admins" in group.policies


def test_policies_are_those_of_the_topology(network: GeneratedNetwork) -> None:
    (channel,) = network.topology.channels
    groups = dict(groups_of(network.genesis()))

    for path, expected in (
        ("/Channel", channel.channel_policies),
        ("/Channel/Application", channel.application_policies),
        *((f"/Channel/Application/{member}", network.topology.organization(member).policies) for member in MEMBERS),
        *((f"/Channel/Orderer/{owner.msp_id}", owner.policies) for owner in network.topology.orderer_organizations),
    ):
        found = {name: entry.policy for name, entry in groups[path].policies.items()}
        assert found == {name: policy_message(text) for name, text in expected.items()}


def test_a_policy_is_the_message_of_its_text() -> None:
    signature, implicit = policy_message("AND('A.peer')"), policy_message("MAJORITY Admins")

    meta = policies_pb2.ImplicitMetaPolicy.FromString(implicit.value)
    assert signature.type == policies_pb2.Policy.SIGNATURE
    assert decode_policy_expression(signature.value) == "OR('A.peer')"
    assert implicit.type == policies_pb2.Policy.IMPLICIT_META
    assert (meta.rule, meta.sub_policy) == (policies_pb2.ImplicitMetaPolicy.MAJORITY, "Admins")


@pytest.mark.parametrize("text", ["", "SOME Admins", "ANY", "ANY Admins Writers", "AND('A.boss')"])
def test_a_policy_that_does_not_read_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"column 1|'MSP.role'"):
        policy_message(text)


def test_access_lists_are_written_when_there_are_some(raft: GeneratedNetwork) -> None:
    (channel,) = raft.topology.channels
    without = GeneratedNetwork(replace(raft.topology, channels=(replace(channel, acls={}),)), raft.credentials)

    acls = value_of(raft, "/Channel/Application", "ACLs", peer_configuration_pb2.ACLs).acls

    assert {resource: entry.policy_ref for resource, entry in acls.items()} == {
        "peer/Propose": "/Channel/Application/Readers"
    }
    assert "ACLs" not in dict(groups_of(without.genesis()))["/Channel/Application"].values


def test_peers_are_anchors_where_there_are_peers(raft: GeneratedNetwork) -> None:
    groups = dict(groups_of(raft.genesis()))

    anchors = value_of(raft, "/Channel/Application/FieldMSP", "AnchorPeers", peer_configuration_pb2.AnchorPeers)

    assert [(anchor.host, anchor.port) for anchor in anchors.anchor_peers] == [raft.endpoints["peer0.field"]]
    assert set(groups["/Channel/Application/AuditorMSP"].values) == {"MSP"}


def test_orderers_are_reached_through_their_organisations(bft: GeneratedNetwork) -> None:
    organizations = bft.configuration().orderer_organizations

    endpoints = {node: f"{host}:{port}" for node, (host, port) in bft.endpoints.items()}
    assert organizations["OrdererMSP"].endpoints == tuple([endpoints[f"orderer{number}"] for number in range(3)])
    assert organizations["SecondOrdererMSP"].endpoints == (endpoints["orderer3"],)


def test_batches_are_those_of_the_topology(raft: GeneratedNetwork) -> None:
    size = value_of(raft, "/Channel/Orderer", "BatchSize", orderer_pb2.BatchSize)
    timeout = value_of(raft, "/Channel/Orderer", "BatchTimeout", orderer_pb2.BatchTimeout)

    assert (size.max_message_count, size.preferred_max_bytes, size.absolute_max_bytes) == (100, 2097152, 10485760)
    assert timeout.timeout == "200ms"


def test_raft_knows_its_orderers_by_their_tls_certificates(raft: GeneratedNetwork) -> None:
    configuration = raft.configuration()

    metadata = raft_pb2.ConfigMetadata.FromString(configuration.consensus_metadata)
    assert (configuration.consensus_type, configuration.consenters) == ("etcdraft", ())
    assert [
        (entry.host, entry.port, entry.client_tls_cert, entry.server_tls_cert) for entry in metadata.consenters
    ] == [
        (*raft.endpoints[name], *[raft.credentials.node_tls_pem("OrdererMSP", name)] * 2)
        for name in ("orderer0", "orderer1", "orderer2")
    ]


def test_bft_knows_its_orderers_by_number_and_certificate(bft: GeneratedNetwork) -> None:
    configuration = bft.configuration()

    assert configuration.consensus_type == "BFT"
    assert configuration.consenters == tuple(
        [
            Consenter(number, msp_id, bft.credentials.node_pem(msp_id, f"orderer{number - 1}"))
            for number, msp_id in enumerate(["OrdererMSP"] * 3 + ["SecondOrdererMSP"], 1)
        ]
    )


def test_an_organisation_is_trusted_by_its_two_authorities(raft: GeneratedNetwork) -> None:
    value = value_of(raft, "/Channel/Application/FieldMSP", "MSP", msp_config_pb2.MSPConfig)

    msp = msp_config_pb2.FabricMSPConfig.FromString(value.config)
    assert (value.type, msp.name) == (0, "FieldMSP")
    assert list(msp.root_certs) == [raft.credentials.ca_pem("FieldMSP")]
    assert list(msp.tls_root_certs) == [raft.credentials.tls_ca_pem("FieldMSP")]


def test_raft_is_set_as_in_real_networks(raft: GeneratedNetwork) -> None:
    def options(block: bytes) -> Any:
        consensus = dict(groups_of(block))["/Channel/Orderer"].values["ConsensusType"].value
        return raft_pb2.ConfigMetadata.FromString(orderer_pb2.ConsensusType.FromString(consensus).metadata).options

    expected = options(load_chain("fabric-3.1.5-raft").blocks[0])
    assert expected.tick_interval == "500ms"
    expected.tick_interval = "200ms"  # as the topology says
    assert options(raft.genesis()) == expected


class NamedCertificates:
    """Certificates that are no more than names."""

    def ca_pem(self, msp_id: str) -> bytes:
        return f"ca of {msp_id}".encode()

    def tls_ca_pem(self, msp_id: str) -> bytes:
        return f"TLS CA of {msp_id}".encode()

    def node_pem(self, msp_id: str, node: str) -> bytes:
        return f"{node} of {msp_id}".encode()

    def node_tls_pem(self, msp_id: str, node: str) -> bytes:
        return f"TLS of {node} of {msp_id}".encode()


@pytest.mark.parametrize(("orderers", "quorum"), [(4, 3), (5, 4), (6, 4), (7, 5), (8, 6), (9, 6), (10, 7)])
def test_two_quorums_of_bft_orderers_have_an_honest_one_in_common(
    bft: GeneratedNetwork, orderers: int, quorum: int
) -> None:
    owner = replace(bft.topology.orderer_organizations[0], nodes=tuple([Node(f"o{n}", 0) for n in range(orderers)]))
    topology = replace(bft.topology, orderer_organizations=(owner,))
    endpoints = bft.endpoints | {node.name: Endpoint("127.0.0.1", 1) for node in owner.nodes}

    block = genesis_block(topology, topology.channels[0], NamedCertificates(), endpoints, nonce=NONCE, timestamp=START)

    policy = dict(groups_of(block))["/Channel/Orderer"].policies["BlockValidation"].policy
    rule = policies_pb2.SignaturePolicyEnvelope.FromString(policy.value).rule
    assert (rule.n_out_of.n, len(rule.n_out_of.rules)) == (quorum, orderers)
    assert 2 * quorum - orderers > (orderers - 1) // 3


def test_a_raft_block_is_valid_with_one_orderer_and_not_with_a_peer(raft: GeneratedNetwork) -> None:
    trust = ChannelTrust(raft.configuration())
    policy = trust.policies.by_path["/Channel/Orderer/BlockValidation"]

    orderer = trust.msps.identity(raft.node("OrdererMSP", "orderer2"))
    peer = trust.msps.identity(raft.node("ServiceMSP", "peer0.service"))

    assert is_satisfied(policy, [orderer], trust.msps)
    assert not is_satisfied(policy, [peer], trust.msps)


def test_a_bft_block_is_valid_with_any_three_of_the_four_orderers(bft: GeneratedNetwork) -> None:
    trust = ChannelTrust(bft.configuration())
    policy = trust.policies.by_path["/Channel/Orderer/BlockValidation"]
    consenters = [
        trust.msps.identity(bft.node(consenter.msp_id, f"orderer{consenter.consenter_id - 1}"))
        for consenter in bft.configuration().consenters
    ]

    assert all(is_satisfied(policy, three, trust.msps) for three in combinations(consenters, 3))
    assert not any(is_satisfied(policy, two, trust.msps) for two in combinations(consenters, 2))


def test_an_msp_vouches_for_what_its_ca_issued_in_its_role(raft: GeneratedNetwork) -> None:
    trust = ChannelTrust(raft.configuration())
    rule = trust.policies.by_path["/Channel/Application/ServiceMSP/Endorsement"]

    peer = trust.msps.identity(raft.node("ServiceMSP", "peer0.service"))
    agent = trust.msps.identity(raft.user("ServiceMSP", "agent"))

    assert [is_satisfied(rule, [somebody], trust.msps) for somebody in (peer, agent)] == [True, False]
    with pytest.raises(IdentityError):
        trust.msps.identity(raft.node("FieldMSP", "peer0.field")._replace(msp_id="ServiceMSP"))


def test_a_node_without_an_endpoint_is_no_block(raft: GeneratedNetwork) -> None:
    (channel,) = raft.topology.channels
    endpoints = raft.endpoints
    del endpoints["peer0.field"]

    with pytest.raises(KeyError, match=r"peer0\.field"):
        genesis_block(raft.topology, channel, raft.credentials, endpoints, nonce=NONCE, timestamp=START)


def test_a_missing_certificate_is_no_block(raft: GeneratedNetwork) -> None:
    other = replace(raft.topology.organizations[0], msp_id="GhostMSP")
    topology = replace(raft.topology, organizations=(other, *raft.topology.organizations))
    (channel,) = topology.channels

    with pytest.raises(CredentialError, match=r"GhostMSP/ca/ca\.crt"):
        GeneratedNetwork(
            replace(topology, channels=(replace(channel, members=("GhostMSP",)),)), raft.credentials
        ).genesis()


# --- beside first blocks of real networks


def shape(block: bytes) -> dict[str, Any]:
    """Say what each kind of group holds: names of values, types of policies; organisations without their names."""
    found: dict[str, Any] = {}
    for path, group in groups_of(block):
        kind = "/".join([*path.split("/")[:3], *["organisation" for _ in path.split("/")[3:]]])
        content = (
            group.version,
            {name: value.version for name, value in group.values.items()},
            {name: entry.policy.type for name, entry in group.policies.items()},
        )
        assert found.setdefault(kind, content) == content
    return found


def without_choices(network: GeneratedNetwork) -> GeneratedNetwork:
    """Give the network with the policies that the recorded ones have: auditors and access lists left out."""
    (channel,) = network.topology.channels
    plain = replace(
        channel,
        members=channel.members[:4],
        channel_policies={**channel.channel_policies, "Admins": "MAJORITY Admins"},
        application_policies={
            **channel.application_policies,
            "Admins": "MAJORITY Admins",
            "Endorsement": "MAJORITY Endorsement",
            "LifecycleEndorsement": "MAJORITY Endorsement",
        },
        acls={},
    )
    return GeneratedNetwork(replace(network.topology, channels=(plain,)), network.credentials)


@pytest.mark.parametrize("chain", CHAINS)
def test_groups_hold_what_those_of_real_networks_hold(
    chain: str, raft: GeneratedNetwork, bft: GeneratedNetwork
) -> None:
    recorded = load_chain(chain).blocks[0]

    made = without_choices(bft if "bft" in chain else raft).genesis()

    assert shape(made) == shape(recorded)


@pytest.mark.parametrize("chain", CHAINS)
def test_messages_have_the_fields_that_those_of_real_networks_have(
    chain: str, raft: GeneratedNetwork, bft: GeneratedNetwork
) -> None:
    def fields(block: bytes) -> dict[str, Any]:
        groups = dict(groups_of(block))
        orderer = groups["/Channel/Orderer"]
        member = next(group for path, group in groups.items() if path.startswith("/Channel/Application/"))
        msp = msp_config_pb2.MSPConfig.FromString(member.values["MSP"].value)
        consensus = orderer_pb2.ConsensusType.FromString(orderer.values["ConsensusType"].value)
        messages = {
            "MSP": msp_config_pb2.FabricMSPConfig.FromString(msp.config),
            "NodeOUs": msp_config_pb2.FabricMSPConfig.FromString(msp.config).fabric_node_ous,
            "Header": common_pb2.Payload.FromString(
                common_pb2.Envelope.FromString(common_pb2.Block.FromString(block).data.data[0]).payload
            ).header,
            "Channel header": common_pb2.ChannelHeader.FromString(
                common_pb2.Payload.FromString(
                    common_pb2.Envelope.FromString(common_pb2.Block.FromString(block).data.data[0]).payload
                ).header.channel_header
            ),
            "Consensus": consensus,
        }
        if consensus.type == "etcdraft":
            messages["Raft"] = raft_pb2.ConfigMetadata.FromString(consensus.metadata)
            messages["Consenter"] = messages["Raft"].consenters[0]
            messages["Options"] = messages["Raft"].options
        return {name: [field.name for field, _ in message.ListFields()] for name, message in messages.items()}

    made = (bft if "bft" in chain else raft).genesis()

    assert fields(made) == fields(load_chain(chain).blocks[0])


def test_the_quorum_of_four_orderers_is_written_as_in_a_real_network(bft: GeneratedNetwork) -> None:
    def rule(block: bytes) -> Any:
        policy = dict(groups_of(block))["/Channel/Orderer"].policies["BlockValidation"].policy
        envelope = policies_pb2.SignaturePolicyEnvelope.FromString(policy.value)
        kinds = [principal.principal_classification for principal in envelope.identities]
        return policy.type, envelope.rule, kinds

    assert rule(bft.genesis()) == rule(load_chain("fabric-3.1.5-bft").blocks[0])


def test_bft_has_every_setting_that_a_real_network_has(bft: GeneratedNetwork) -> None:
    def names(block: bytes) -> set[str]:
        consensus = dict(groups_of(block))["/Channel/Orderer"].values["ConsensusType"].value
        options = smartbft_pb2.Options.FromString(orderer_pb2.ConsensusType.FromString(consensus).metadata)
        return {field.name for field, _ in options.ListFields()}

    assert names(bft.genesis()) >= names(load_chain("fabric-3.1.5-bft").blocks[0])
