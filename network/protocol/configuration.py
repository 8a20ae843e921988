"""Channel configurations: the whole tree, and the view of it that trust is built on.

Messages: `common/configtx.proto`, `common/configuration.proto`, `orderer/configuration.proto`,
`peer/configuration.proto`. Rules: `common/channelconfig/*.go` (what a bundle refuses),
`common/configtx/{validator,configmap}.go` (names), `common/capabilities/*.go`, `core/peer/{channel,peer}.go` (what
makes a peer stop).

What orderers check besides, before they order a configuration, is in `config_transition`: consensus metadata, and
capabilities of the orderers, which a peer does not look at. Nobody checks restrictions, addresses' form and anchor
peers.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from fabric_protos.common import common_pb2, configtx_pb2, configuration_pb2, policies_pb2
from fabric_protos.msp import msp_config_pb2
from fabric_protos.orderer import configuration_pb2 as orderer_configuration_pb2
from fabric_protos.peer import configuration_pb2 as peer_configuration_pb2

from network.protocol.config_group import MAX_NAME_CHARACTERS, ConfigGroup, ConfigValue, decode_group
from network.protocol.duration import decode_duration
from network.protocol.errors import ConfigurationError, DecodeError
from network.protocol.msp import MspDefinition, MspVersion
from network.protocol.wire import parse

_CHANNEL_CAPABILITIES: Final = frozenset(("V1_1", "V1_3", "V1_4_2", "V1_4_3", "V2_0", "V3_0"))
_APPLICATION_CAPABILITIES: Final = frozenset(
    ("V1_1", "V1_2", "V1_3", "V1_4_2", "V2_0", "V2_5", "V1_1_PVTDATA_EXPERIMENTAL", "V1_1_RESOURCETREE_EXPERIMENTAL")
)
_CAPABILITIES_WITH_ACLS: Final = frozenset(("V1_2", "V1_3", "V1_4_2", "V2_0", "V2_5"))
_CAPABILITIES_WITH_ORGANIZATION_ENDPOINTS: Final = frozenset(("V1_4_2", "V1_4_3", "V2_0", "V3_0"))

CHANNEL_ID = re.compile(r"[a-z][a-z0-9.-]*")
_WHOLE_DATA_WIDTH: Final = 2**32 - 1

_CHANNEL_VALUES: Final = {
    "HashingAlgorithm": configuration_pb2.HashingAlgorithm,
    "BlockDataHashingStructure": configuration_pb2.BlockDataHashingStructure,
    "OrdererAddresses": configuration_pb2.OrdererAddresses,
    "Orderers": configuration_pb2.Orderers,
    "Consortium": configuration_pb2.Consortium,
    "Capabilities": configuration_pb2.Capabilities,
}
_ORDERER_VALUES: Final = {
    "ConsensusType": orderer_configuration_pb2.ConsensusType,
    "BatchSize": orderer_configuration_pb2.BatchSize,
    "BatchTimeout": orderer_configuration_pb2.BatchTimeout,
    "KafkaBrokers": orderer_configuration_pb2.KafkaBrokers,
    "ChannelRestrictions": orderer_configuration_pb2.ChannelRestrictions,
    "Orderers": configuration_pb2.Orderers,
    "Capabilities": configuration_pb2.Capabilities,
}
_APPLICATION_VALUES: Final = {
    "ACLs": peer_configuration_pb2.ACLs,
    "Capabilities": configuration_pb2.Capabilities,
}
_ORGANIZATION_VALUES: Final = {"MSP": msp_config_pb2.MSPConfig}
_ORDERER_ORGANIZATION_VALUES: Final = _ORGANIZATION_VALUES | {"Endpoints": configuration_pb2.OrdererAddresses}
_APPLICATION_ORGANIZATION_VALUES: Final = _ORGANIZATION_VALUES | {"AnchorPeers": peer_configuration_pb2.AnchorPeers}
_CONSORTIUM_VALUES: Final = {"ChannelCreationPolicy": policies_pb2.Policy}


class Consenter(NamedTuple):
    """A BFT orderer: its number in block signatures, and the identity (PEM certificate) that signs for it."""

    consenter_id: int
    msp_id: str
    certificate_pem: bytes


class Organization(NamedTuple):
    """An organisation's group: its key, its MSP, and where its orderers listen (orderer organisations only)."""

    name: str
    msp: MspDefinition
    endpoints: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ChannelConfiguration:
    """One configuration of a channel. `root` is the whole tree; the other fields are what trust is built on.

    `channel_id` is None where the envelope does not tell it (a first configuration). Organisations are by group key,
    which may differ from the MSP ID. `consenters` is empty unless the channel uses BFT.
    """

    sequence: int
    channel_id: str | None
    root: ConfigGroup
    channel_capabilities: frozenset[str]
    orderer_capabilities: frozenset[str]
    application_capabilities: frozenset[str]
    consensus_type: str
    consensus_metadata: bytes
    consensus_state: int
    consenters: tuple[Consenter, ...]
    orderer_organizations: Mapping[str, Organization]
    application_organizations: Mapping[str, Organization]
    consortium_organizations: tuple[Organization, ...]

    @property
    def msp_version(self) -> MspVersion:
        """Rule set of the channel's MSPs (`common/capabilities/channel.go` MSPVersion)."""
        names = self.channel_capabilities
        if "V3_0" in names:
            return MspVersion.V3_0
        if names & {"V1_4_3", "V2_0"}:
            return MspVersion.V1_4_3
        if names & {"V1_3", "V1_4_2"}:
            return MspVersion.V1_3
        return MspVersion.V1_1 if "V1_1" in names else MspVersion.V1_0

    @property
    def names_consenters_by_id(self) -> bool:
        """Whether a block signature may name its signer by consenter id: by capability, whatever the consensus."""
        return "V3_0" in self.channel_capabilities

    @property
    def msp_definitions(self) -> list[MspDefinition]:
        """MSPs of all organisations, with repetitions."""
        organizations = [*self.orderer_organizations.values(), *self.application_organizations.values()]
        return [organization.msp for organization in (*organizations, *self.consortium_organizations)]


def decode_config_envelope(content: bytes) -> ChannelConfiguration:
    """Read a ConfigEnvelope, the payload data of a configuration transaction.

    Raises DecodeError when the bytes are none, LimitExceededError beyond `limits.MAX_GROUP_DEPTH`, ConfigurationError
    for what makes Fabric refuse the configuration or a 3.1 peer stop at it, such as a capability of a later release.
    """
    envelope = parse(configtx_pb2.ConfigEnvelope, content, "ConfigEnvelope")
    if not envelope.HasField("config") or not envelope.config.HasField("channel_group"):
        raise ConfigurationError("ConfigEnvelope: no configuration, or no channel group")
    root = decode_group(envelope.config.channel_group, "/Channel")
    return view_configuration(envelope.config.sequence, _updated_channel(envelope), root)


def view_configuration(sequence: int, channel_id: str | None, root: ConfigGroup) -> ChannelConfiguration:
    """Read what trust is built on out of a tree; raises as `decode_config_envelope`."""
    _check_capability_levels(root)
    return _view(sequence, channel_id, root)


def _updated_channel(envelope: configtx_pb2.ConfigEnvelope) -> str | None:
    """Give the channel that the last update was signed for; None: there is none, or it does not read."""
    try:
        payload = parse(common_pb2.Payload, envelope.last_update.payload, "Payload")
        update = parse(configtx_pb2.ConfigUpdateEnvelope, payload.data, "ConfigUpdateEnvelope")
        channel_id: str = parse(configtx_pb2.ConfigUpdate, update.config_update, "ConfigUpdate").channel_id
    except DecodeError:
        return None
    return channel_id if len(channel_id) <= MAX_NAME_CHARACTERS and CHANNEL_ID.fullmatch(channel_id) else None


def _check_capability_levels(root: ConfigGroup) -> None:
    orderer = root.groups.get("Orderer")
    if orderer is None or "Capabilities" in orderer.values:
        return
    application = root.groups.get("Application")
    if "Capabilities" in root.values or (application is not None and "Capabilities" in application.values):
        raise ConfigurationError(
            "/Channel/Orderer: no Capabilities, although the channel or its applications have them"
        )


def _values(group: ConfigGroup, path: str, known: Mapping[str, Any]) -> dict[str, Any]:
    """Read every value of a group, absent ones as empty messages."""
    for key in group.values:
        if key not in known:
            raise ConfigurationError(f"{path}: value {key} does not exist in this place")
    empty = ConfigValue(0, b"", "")
    return {key: parse(kind, group.values.get(key, empty).value, f"{path}/{key}") for key, kind in known.items()}


def _view(sequence: int, channel_id: str | None, root: ConfigGroup) -> ChannelConfiguration:
    channel = _values(root, "/Channel", _CHANNEL_VALUES)
    capabilities = _supported(channel["Capabilities"], _CHANNEL_CAPABILITIES, "/Channel")
    if channel["HashingAlgorithm"].name not in ("SHA256", "SHA3_256"):
        raise ConfigurationError("/Channel: unknown HashingAlgorithm")
    if channel["BlockDataHashingStructure"].width != _WHOLE_DATA_WIDTH:
        raise ConfigurationError("/Channel: BlockDataHashingStructure of another width than 4294967295")
    has_addresses = bool(channel["OrdererAddresses"].addresses)
    if has_addresses and "V3_0" in capabilities:
        raise ConfigurationError("/Channel: OrdererAddresses are not allowed with V3_0")
    if not has_addresses and not capabilities & _CAPABILITIES_WITH_ORGANIZATION_ENDPOINTS:
        raise ConfigurationError("/Channel: no OrdererAddresses")
    for name in root.groups:
        if name not in ("Application", "Orderer", "Consortiums"):
            raise ConfigurationError(f"/Channel: group {name} does not exist in this place")
    if "Orderer" not in root.groups or "Application" not in root.groups:
        raise ConfigurationError("/Channel: no Orderer group, or no Application group")

    orderer = _values(root.groups["Orderer"], "/Channel/Orderer", _ORDERER_VALUES)
    _check_batch(orderer["BatchSize"], orderer["BatchTimeout"])
    application = _values(root.groups["Application"], "/Channel/Application", _APPLICATION_VALUES)
    application_capabilities = _supported(
        application["Capabilities"], _APPLICATION_CAPABILITIES, "/Channel/Application"
    )
    if "ACLs" in root.groups["Application"].values and not application_capabilities & _CAPABILITIES_WITH_ACLS:
        raise ConfigurationError("/Channel/Application: ACLs without the capability for them")
    return ChannelConfiguration(
        sequence=sequence,
        channel_id=channel_id,
        root=root,
        channel_capabilities=capabilities,
        orderer_capabilities=frozenset(orderer["Capabilities"].capabilities),
        application_capabilities=application_capabilities,
        consensus_type=orderer["ConsensusType"].type,
        consensus_metadata=orderer["ConsensusType"].metadata,
        consensus_state=orderer["ConsensusType"].state,
        consenters=tuple(
            [Consenter(entry.id, entry.msp_id, entry.identity) for entry in orderer["Orderers"].consenter_mapping]
        ),
        orderer_organizations=_orderer_organizations(root.groups["Orderer"], capabilities),
        application_organizations=_organizations(
            root.groups["Application"], "/Channel/Application", _APPLICATION_ORGANIZATION_VALUES
        ),
        consortium_organizations=_consortium_organizations(root.groups.get("Consortiums")),
    )


def _supported(message: configuration_pb2.Capabilities, known: frozenset[str], path: str) -> frozenset[str]:
    names = frozenset(message.capabilities)
    for name in sorted(names - known):
        raise ConfigurationError(f"{path}: capability {name[:MAX_NAME_CHARACTERS]!r} is not supported")
    return names


def _check_batch(size: orderer_configuration_pb2.BatchSize, timeout: orderer_configuration_pb2.BatchTimeout) -> None:
    if not size.max_message_count or not 0 < size.preferred_max_bytes <= size.absolute_max_bytes:
        raise ConfigurationError("/Channel/Orderer: BatchSize that no orderer could keep to")
    try:
        duration = decode_duration(timeout.timeout)
    except DecodeError as error:
        raise ConfigurationError(f"/Channel/Orderer: BatchTimeout: {error}") from error
    if duration <= 0:
        raise ConfigurationError("/Channel/Orderer: BatchTimeout that is not positive")


def _organizations(group: ConfigGroup, path: str, known: Mapping[str, Any]) -> Mapping[str, Organization]:
    organizations = {}
    for name, child in group.groups.items():
        if child.groups:
            raise ConfigurationError(f"{path}/{name}: an organisation has no groups")
        values = _values(child, f"{path}/{name}", known)
        endpoints = tuple(values["Endpoints"].addresses) if "Endpoints" in known else ()
        organizations[name] = Organization(name, MspDefinition(values["MSP"].type, values["MSP"].config), endpoints)
    return MappingProxyType(organizations)


def _orderer_organizations(group: ConfigGroup, capabilities: frozenset[str]) -> Mapping[str, Organization]:
    organizations = _organizations(group, "/Channel/Orderer", _ORDERER_ORGANIZATION_VALUES)
    for name, organization in organizations.items():
        if "Endpoints" in group.groups[name].values and not capabilities & _CAPABILITIES_WITH_ORGANIZATION_ENDPOINTS:
            raise ConfigurationError(f"/Channel/Orderer/{name}: Endpoints without the capability for them")
        if "V3_0" in capabilities and not organization.endpoints:
            raise ConfigurationError(f"/Channel/Orderer/{name}: no Endpoints")
    return organizations


def _consortium_organizations(group: ConfigGroup | None) -> tuple[Organization, ...]:
    """Read what only the system channels of Fabric 1 and 2 have. Values of the group itself play no role there."""
    if group is None:
        return ()
    organizations: list[Organization] = []
    for name, consortium in group.groups.items():
        path = f"/Channel/Consortiums/{name}"
        _values(consortium, path, _CONSORTIUM_VALUES)
        organizations.extend(_organizations(consortium, path, _ORGANIZATION_VALUES).values())
    return tuple(organizations)
