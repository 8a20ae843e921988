"""The first block of a channel: the whole configuration that a topology describes. Pure.

What goes where, and that every `mod_policy` is Admins: `internal/configtxgen/encoder/encoder.go`; the block's own form:
`common/genesis/genesis.go`. The same inputs give the same bytes.
"""

from collections.abc import Mapping
from datetime import datetime
from hashlib import sha256
from typing import Final, NamedTuple, Protocol

from fabric_protos.common import common_pb2, configtx_pb2, configuration_pb2, policies_pb2
from fabric_protos.msp import msp_config_pb2
from fabric_protos.orderer import configuration_pb2 as orderer_pb2
from fabric_protos.orderer.etcdraft import configuration_pb2 as raft_pb2
from fabric_protos.orderer.smartbft import configuration_pb2 as smartbft_pb2
from fabric_protos.peer import configuration_pb2 as peer_configuration_pb2
from google.protobuf.message import Message

from network.protocol.block import SLOTS, data_hash
from network.protocol.identity import SerializedIdentity
from network.protocol.policy import TYPE_IMPLICIT_META, TYPE_SIGNATURE
from network.protocol.policy_expression import encode_policy_expression
from network.protocol.quorum import block_validation_policy
from network.protocol.transaction import HEADER_CONFIG
from network.topology.definition import IMPLICIT_META, Channel, ConsensusType, Organization, Topology

ADMINS: Final = "Admins"
NONCE_BYTES: Final = 24
_WHOLE_DATA_WIDTH: Final = 2**32 - 1


class Endpoint(NamedTuple):
    """Where a node listens."""

    host: str
    port: int


class Certificates(Protocol):
    """What a configuration says of certificates, in PEM."""

    def ca_pem(self, msp_id: str) -> bytes:
        """Give the CA that issues an organisation's identities."""

    def tls_ca_pem(self, msp_id: str) -> bytes:
        """Give the CA that issues an organisation's TLS certificates."""

    def node_pem(self, msp_id: str, node: str) -> bytes:
        """Give the certificate that a node signs with."""

    def node_tls_pem(self, msp_id: str, node: str) -> bytes:
        """Give the TLS certificate of a node, for server and client."""


class _Consenter(NamedTuple):
    msp_id: str
    endpoint: Endpoint
    identity: bytes
    tls: bytes


def genesis_block(  # what the block is made of
    topology: Topology,
    channel: Channel,
    certificates: Certificates,
    endpoints: Mapping[str, Endpoint],
    *,
    nonce: bytes,
    timestamp: datetime,
) -> bytes:
    """Give block 0 of a channel as its orderers and peers join it.

    `endpoints` has every orderer, and every peer of the channel, by the node's name; `nonce` is 24 random bytes;
    `timestamp` counts in whole seconds. Raises KeyError for a node without an endpoint, ConfigurationError for a policy
    that does not read.
    """
    group = _channel_group(topology, channel, certificates, endpoints)
    channel_header = common_pb2.ChannelHeader(
        type=HEADER_CONFIG, version=1, channel_id=channel.name, tx_id=sha256(nonce).hexdigest()
    )
    channel_header.timestamp.seconds = int(timestamp.timestamp())
    header = common_pb2.Header(
        channel_header=_encoded(channel_header),
        signature_header=_encoded(common_pb2.SignatureHeader(nonce=nonce)),
    )
    config = configtx_pb2.ConfigEnvelope(config=configtx_pb2.Config(channel_group=group))
    payload = common_pb2.Payload(header=header, data=_encoded(config))
    envelope = _encoded(common_pb2.Envelope(payload=_encoded(payload)))
    block = common_pb2.Block(
        header=common_pb2.BlockHeader(number=0, data_hash=data_hash((envelope,))),
        data=common_pb2.BlockData(data=[envelope]),
    )
    # Orderers read the last configuration from slot 0 without asking whether it is there.
    orderer_metadata = common_pb2.OrdererBlockMetadata(last_config=common_pb2.LastConfig(index=0))
    slots = [_encoded(common_pb2.Metadata(value=_encoded(orderer_metadata)))]
    block.metadata.metadata.extend(slots + [b""] * (SLOTS - 1))
    return _encoded(block)


def policy_message(text: str) -> policies_pb2.Policy:
    """Give the message of a policy's text; raises ConfigurationError that names the column."""
    implicit = IMPLICIT_META.fullmatch(text)
    if implicit is None:
        return policies_pb2.Policy(type=TYPE_SIGNATURE, value=encode_policy_expression(text))
    rule = policies_pb2.ImplicitMetaPolicy.Rule.Value(implicit[1])
    meta = policies_pb2.ImplicitMetaPolicy(rule=rule, sub_policy=implicit[2])
    return policies_pb2.Policy(type=TYPE_IMPLICIT_META, value=_encoded(meta))


def _channel_group(
    topology: Topology, channel: Channel, certificates: Certificates, endpoints: Mapping[str, Endpoint]
) -> configtx_pb2.ConfigGroup:
    values: dict[str, Message] = {
        "HashingAlgorithm": configuration_pb2.HashingAlgorithm(name="SHA256"),
        "BlockDataHashingStructure": configuration_pb2.BlockDataHashingStructure(width=_WHOLE_DATA_WIDTH),
        "Capabilities": _capabilities(channel.capabilities.channel),
    }
    groups = {
        "Orderer": _orderer_group(topology, channel, certificates, endpoints),
        "Application": _application_group(topology, channel, certificates, endpoints),
    }
    return _group(groups, values, channel.channel_policies)


def _orderer_group(
    topology: Topology, channel: Channel, certificates: Certificates, endpoints: Mapping[str, Endpoint]
) -> configtx_pb2.ConfigGroup:
    consenters = [
        _Consenter(
            organization.msp_id,
            endpoints[node.name],
            certificates.node_pem(organization.msp_id, node.name),
            certificates.node_tls_pem(organization.msp_id, node.name),
        )
        for organization in topology.orderer_organizations
        for node in organization.nodes
    ]
    batch = topology.batch
    values: dict[str, Message] = {
        "BatchSize": orderer_pb2.BatchSize(
            max_message_count=batch.max_messages,
            absolute_max_bytes=batch.absolute_max_bytes,
            preferred_max_bytes=batch.preferred_max_bytes,
        ),
        "BatchTimeout": orderer_pb2.BatchTimeout(timeout=f"{batch.timeout_ms}ms"),
        "ChannelRestrictions": orderer_pb2.ChannelRestrictions(),
        "Capabilities": _capabilities(channel.capabilities.orderer),
    }
    is_bft = topology.consensus is ConsensusType.BFT
    if is_bft:
        values["ConsensusType"] = orderer_pb2.ConsensusType(type="BFT", metadata=_bft_options(batch.timeout_ms))
        values["Orderers"] = _consenter_mapping(consenters)
    else:
        values["ConsensusType"] = orderer_pb2.ConsensusType(
            type="etcdraft", metadata=_raft_metadata(consenters, topology.raft_tick_ms)
        )
    groups = {
        organization.msp_id: _group(
            {},
            {
                "MSP": _msp(organization, certificates),
                "Endpoints": configuration_pb2.OrdererAddresses(
                    addresses=[_address(endpoints[node.name]) for node in organization.nodes]
                ),
            },
            organization.policies,
        )
        for organization in topology.orderer_organizations
    }
    group = _group(groups, values, channel.orderer_policies)
    if is_bft:
        # The only one that orderers accept: a quorum of the very consenters.
        quorum = block_validation_policy([SerializedIdentity(it.msp_id, it.identity) for it in consenters])
        policy = policies_pb2.Policy(type=TYPE_SIGNATURE, value=quorum)
        group.policies["BlockValidation"].CopyFrom(configtx_pb2.ConfigPolicy(policy=policy, mod_policy=ADMINS))
    return group


def _application_group(
    topology: Topology, channel: Channel, certificates: Certificates, endpoints: Mapping[str, Endpoint]
) -> configtx_pb2.ConfigGroup:
    values: dict[str, Message] = {"Capabilities": _capabilities(channel.capabilities.application)}
    if channel.acls:
        acls = {resource: peer_configuration_pb2.APIResource(policy_ref=ref) for resource, ref in channel.acls.items()}
        values["ACLs"] = peer_configuration_pb2.ACLs(acls=acls)
    groups = {}
    for organization in [topology.organization(msp_id) for msp_id in channel.members]:
        organization_values: dict[str, Message] = {"MSP": _msp(organization, certificates)}
        if organization.nodes:
            anchors = [
                peer_configuration_pb2.AnchorPeer(**endpoints[node.name]._asdict()) for node in organization.nodes
            ]
            organization_values["AnchorPeers"] = peer_configuration_pb2.AnchorPeers(anchor_peers=anchors)
        groups[organization.msp_id] = _group({}, organization_values, organization.policies)
    return _group(groups, values, channel.application_policies)


def _group(
    groups: Mapping[str, configtx_pb2.ConfigGroup], values: Mapping[str, Message], policies: Mapping[str, str]
) -> configtx_pb2.ConfigGroup:
    return configtx_pb2.ConfigGroup(
        groups=groups,
        values={
            key: configtx_pb2.ConfigValue(value=_encoded(value), mod_policy=ADMINS) for key, value in values.items()
        },
        policies={
            name: configtx_pb2.ConfigPolicy(policy=policy_message(text), mod_policy=ADMINS)
            for name, text in policies.items()
        },
        mod_policy=ADMINS,
    )


def _capabilities(name: str) -> configuration_pb2.Capabilities:
    return configuration_pb2.Capabilities(capabilities={name: configuration_pb2.Capability()})


def _msp(organization: Organization, certificates: Certificates) -> msp_config_pb2.MSPConfig:
    ca = certificates.ca_pem(organization.msp_id)

    def unit(name: str) -> msp_config_pb2.FabricOUIdentifier:
        return msp_config_pb2.FabricOUIdentifier(certificate=ca, organizational_unit_identifier=name)

    config = msp_config_pb2.FabricMSPConfig(
        name=organization.msp_id,
        root_certs=[ca],
        crypto_config=msp_config_pb2.FabricCryptoConfig(
            signature_hash_family="SHA2", identity_identifier_hash_function="SHA256"
        ),
        tls_root_certs=[certificates.tls_ca_pem(organization.msp_id)],
        fabric_node_ous=msp_config_pb2.FabricNodeOUs(
            enable=True,
            client_ou_identifier=unit("client"),
            peer_ou_identifier=unit("peer"),
            admin_ou_identifier=unit("admin"),
            orderer_ou_identifier=unit("orderer"),
        ),
    )
    return msp_config_pb2.MSPConfig(type=0, config=_encoded(config))


def _raft_metadata(consenters: list[_Consenter], tick_ms: int) -> bytes:
    entries = [
        raft_pb2.Consenter(
            host=consenter.endpoint.host,
            port=consenter.endpoint.port,
            client_tls_cert=consenter.tls,
            server_tls_cert=consenter.tls,
        )
        for consenter in consenters
    ]
    options = raft_pb2.Options(
        tick_interval=f"{tick_ms}ms",
        election_tick=10,
        heartbeat_tick=1,
        max_inflight_blocks=5,
        snapshot_interval_size=16 * 1024 * 1024,
    )
    return _encoded(raft_pb2.ConfigMetadata(consenters=entries, options=options))


def _consenter_mapping(consenters: list[_Consenter]) -> configuration_pb2.Orderers:
    entries = [
        configuration_pb2.Consenter(
            id=number,
            host=consenter.endpoint.host,
            port=consenter.endpoint.port,
            msp_id=consenter.msp_id,
            identity=consenter.identity,
            client_tls_cert=consenter.tls,
            server_tls_cert=consenter.tls,
        )
        for number, consenter in enumerate(consenters, 1)
    ]
    return configuration_pb2.Orderers(consenter_mapping=entries)


def _bft_options(timeout_ms: int) -> bytes:
    """Give SmartBFT's settings as configtxgen ships them; what they say of batches is overruled by BatchSize."""
    options = smartbft_pb2.Options(
        request_batch_max_count=100,
        request_batch_max_bytes=10 * 1024 * 1024,
        request_batch_max_interval=f"{timeout_ms}ms",
        incoming_message_buffer_size=200,
        request_pool_size=100_000,
        request_forward_timeout="2s",
        request_complain_timeout="20s",
        request_auto_remove_timeout="3m0s",
        request_max_bytes=10 * 1024 * 1024,
        view_change_resend_interval="5s",
        view_change_timeout="20s",
        leader_heartbeat_timeout="1m0s",
        leader_heartbeat_count=10,
        collect_timeout="1s",
    )
    return _encoded(options)


def _address(endpoint: Endpoint) -> str:
    return f"{endpoint.host}:{endpoint.port}"


def _encoded(message: Message) -> bytes:
    return bytes(message.SerializeToString(deterministic=True))
