"""Administering chaincodes and reading channels of networks that others created: a profile and an identity suffice."""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

from cryptography import x509
from fabric_protos.msp import msp_config_pb2
from fabric_protos.orderer.etcdraft import configuration_pb2 as raft_pb2
from fabric_protos.peer import configuration_pb2, policy_pb2
from fabric_protos.peer.lifecycle import lifecycle_pb2

from gateway.client.channel import Endpoint, NodeChannel
from gateway.client.endorser import Endorser
from gateway.client.gateway import Gateway, Network
from gateway.client.identity import SigningIdentity
from gateway.client.profile import read_profile
from network.channel.description import policy_text
from network.errors import DefinitionFileError
from network.lifecycle import LIFECYCLE, committed_sequence
from network.protocol.collection import CollectionConfig, decode_collections, encode_collections
from network.protocol.config_group import ConfigGroup
from network.protocol.configuration import ChannelConfiguration
from network.protocol.errors import ConfigurationError, DecodeError
from network.protocol.lifecycle import ChaincodeDefinition, policy_reference, signature_policy, with_defaults
from network.protocol.msp import TYPE_FABRIC
from network.protocol.policy_expression import decode_policy_expression, encode_policy_expression
from network.protocol.wire import parse

MAX_FILE_BYTES: Final = 1024 * 1024
_COLLECTION_FIELDS: Final = frozenset(
    (
        "name",
        "policy",
        "requiredPeerCount",
        "maxPeerCount",
        "blockToLive",
        "memberOnlyRead",
        "memberOnlyWrite",
        "endorsementPolicy",
    )
)
RAFT: Final = "etcdraft"


@dataclass(frozen=True)
class Administrator:
    """An organisation's admin at its peers."""

    msp_id: str
    identity: SigningIdentity
    peers: Sequence[Endorser]
    orderers: Sequence[Endpoint] = ()
    """Those that the profile names."""

    def network(self, channel: str) -> Network:
        """Give a channel as the first peer's Gateway service shows it."""
        return Gateway(self.identity, self.peers[0].channel).network(channel)


@asynccontextmanager
async def administrator(profile: Path, msp_id: str, identity: Path) -> AsyncIterator[Administrator]:
    """Connect to an organisation's peers; raises ClientError (profile, credential, dial)."""
    read = read_profile(profile)
    endpoints = read.own_peers(msp_id)
    signer = SigningIdentity.from_msp_folder(msp_id, identity)
    async with AsyncExitStack() as stack:
        peers = []
        for endpoint in endpoints:
            channel = await stack.enter_async_context(NodeChannel(endpoint))
            await channel.dial()
            peers.append(Endorser(signer, channel))
        yield Administrator(msp_id, signer, peers, read.orderers)


# --- definitions


def definition(  # the parts of a definition
    *, sequence: int, version: str, policy: str, collections: Path | None, init_required: bool
) -> ChaincodeDefinition:
    """Make a definition; `policy` is a signature policy, a path of the channel's, or empty for the channel's default.

    Raises DefinitionFileError, ConfigurationError (a policy that does not read; the text names the column).
    """
    parameter = b""
    if policy.startswith("/"):
        parameter = policy_reference(policy)
    elif policy:
        parameter = signature_policy(encode_policy_expression(policy))
    configs = [] if collections is None else read_collections(collections)
    content = encode_collections(configs) if configs else b""
    return with_defaults(ChaincodeDefinition(sequence, version, parameter, content, init_required))


def read_collections(file: Path) -> list[CollectionConfig]:
    """Read a collection configuration in the form of Fabric's own tools: a JSON list. Raises DefinitionFileError."""
    try:
        with file.open("rb") as opened:
            content = opened.read(MAX_FILE_BYTES + 1)
        entries: Any = json.loads(content)
    except OSError as error:
        raise DefinitionFileError(f"{file}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise DefinitionFileError(f"{file}: not JSON") from error
    if len(content) > MAX_FILE_BYTES or not isinstance(entries, list):
        raise DefinitionFileError(f"{file}: no list of collections")
    return [_collection(f"{file}: collection {number}", entry) for number, entry in enumerate(entries)]


def _collection(place: str, entry: object) -> CollectionConfig:
    if (
        not isinstance(entry, dict)
        or not isinstance(entry.get("name"), str)
        or not isinstance(entry.get("policy"), str)
    ):
        raise DefinitionFileError(f"{place}: no object with name and policy")
    place = f"{place} ({entry['name']})"
    unknown = sorted(str(name) for name in entry.keys() - _COLLECTION_FIELDS)
    if unknown:
        raise DefinitionFileError(f"{place}: unknown field {unknown[0]}")
    counts = [entry.get(name, 0) for name in ("requiredPeerCount", "maxPeerCount", "blockToLive")]
    flags = (entry.get("memberOnlyRead", False), entry.get("memberOnlyWrite", False))
    if not all(type(count) is int and count >= 0 for count in counts):
        raise DefinitionFileError(f"{place}: a count that is no whole number")
    if not all(isinstance(flag, bool) for flag in flags):
        raise DefinitionFileError(f"{place}: a flag that is neither true nor false")
    try:
        endorsement = _endorsement(place, entry.get("endorsementPolicy"))
        members = encode_policy_expression(entry["policy"])
    except ConfigurationError as error:
        raise DefinitionFileError(f"{place}: {error}") from error
    required, maximum, live = counts
    return CollectionConfig(entry["name"], members, required, maximum, live, flags[0], flags[1], endorsement)


def _endorsement(place: str, policy: object) -> bytes | None:
    if policy is None:
        return None
    if isinstance(policy, dict) and len(policy) == 1:
        ((kind, text),) = policy.items()
        if kind == "signaturePolicy" and isinstance(text, str):
            return signature_policy(encode_policy_expression(text))
        if kind == "channelConfigPolicy" and isinstance(text, str):
            return policy_reference(text)
    raise DefinitionFileError(f"{place}: endorsementPolicy has neither signaturePolicy nor channelConfigPolicy")


class CommittedChaincode(NamedTuple):
    """A definition as the channel has it; `approvals` by MSP id."""

    name: str
    version: str
    sequence: int
    policy: str
    collections: list[str]
    init_required: bool
    approvals: dict[str, bool]


async def committed_chaincodes(network: Network) -> list[CommittedChaincode]:
    """Give every committed definition of a channel, with who has approved it. Raises EvaluateError."""
    lifecycle = network.contract(LIFECYCLE)
    answer = await lifecycle.evaluate("QueryChaincodeDefinitions", b"")
    names = parse(lifecycle_pb2.QueryChaincodeDefinitionsResult, answer, "QueryChaincodeDefinitionsResult")
    found = []
    for entry in names.chaincode_definitions:
        arguments = lifecycle_pb2.QueryChaincodeDefinitionArgs(name=entry.name).SerializeToString()
        answer = await lifecycle.evaluate("QueryChaincodeDefinition", arguments)
        result = parse(lifecycle_pb2.QueryChaincodeDefinitionResult, answer, "QueryChaincodeDefinitionResult")
        found.append(
            CommittedChaincode(
                entry.name,
                result.version,
                result.sequence,
                application_policy_text(result.validation_parameter),
                [config.static_collection_config.name for config in result.collections.config],
                result.init_required,
                dict(result.approvals),
            )
        )
    return found


async def committed_collections(network: Network, chaincode: str) -> tuple[CollectionConfig, ...]:
    """Give the collections of a committed definition; none when there is no definition. Raises EvaluateError."""
    if await committed_sequence(network, chaincode) == 0:
        return ()
    arguments = lifecycle_pb2.QueryChaincodeDefinitionArgs(name=chaincode).SerializeToString()
    answer = await network.contract(LIFECYCLE).evaluate("QueryChaincodeDefinition", arguments)
    result = parse(lifecycle_pb2.QueryChaincodeDefinitionResult, answer, "QueryChaincodeDefinitionResult")
    return decode_collections(result.collections.SerializeToString())


def application_policy_text(content: bytes) -> str:
    """Write an ApplicationPolicy as people do; one that does not read is named so."""
    try:
        message = parse(policy_pb2.ApplicationPolicy, content, "ApplicationPolicy")
        if message.WhichOneof("Type") == "channel_config_policy_reference":
            return str(message.channel_config_policy_reference)
        return decode_policy_expression(message.signature_policy.SerializeToString())
    except (DecodeError, ConfigurationError):
        return "(a policy that does not read)"


# --- channels


class ShownCertificate(NamedTuple):
    """A certificate that a channel's configuration names, and the days until it ends (negative: over)."""

    organization: str
    purpose: str
    subject: str
    days_left: int


class ShownChannel(NamedTuple):
    """What a channel's configuration says, in words."""

    sequence: int
    consensus: str
    capabilities: dict[str, list[str]]
    organizations: list[str]
    orderers: dict[str, list[str]]
    policies: dict[str, str]
    acls: dict[str, str]
    certificates: list[ShownCertificate]


def describe_channel(configuration: ChannelConfiguration, now: datetime) -> ShownChannel:
    """Put a configuration into words; `now` in UTC."""
    root = configuration.root
    return ShownChannel(
        configuration.sequence,
        configuration.consensus_type,
        {
            "Channel": sorted(configuration.channel_capabilities),
            "Orderer": sorted(configuration.orderer_capabilities),
            "Application": sorted(configuration.application_capabilities),
        },
        sorted(configuration.application_organizations),
        {name: list(it.endpoints) for name, it in sorted(configuration.orderer_organizations.items())},
        dict(_policies("/Channel", root)),
        _acls(root),
        _certificates(configuration, now),
    )


def _policies(path: str, group: ConfigGroup) -> list[tuple[str, str]]:
    found = [(f"{path}/{name}", policy_text(policy)) for name, policy in sorted(group.policies.items())]
    for name, child in sorted(group.groups.items()):
        found += _policies(f"{path}/{name}", child)
    return found


def _acls(root: ConfigGroup) -> dict[str, str]:
    application = root.groups.get("Application")
    value = None if application is None else application.values.get("ACLs")
    if value is None:
        return {}
    found = parse(configuration_pb2.ACLs, value.value, "ACLs").acls
    return {resource: found[resource].policy_ref for resource in sorted(found)}


def _certificates(configuration: ChannelConfiguration, now: datetime) -> list[ShownCertificate]:
    found = []
    organizations = {**configuration.application_organizations, **configuration.orderer_organizations}
    for name, organization in sorted(organizations.items()):
        if organization.msp.msp_type != TYPE_FABRIC:
            continue
        msp = parse(msp_config_pb2.FabricMSPConfig, organization.msp.content, "FabricMSPConfig")
        for purpose, pems in (
            ("CA", msp.root_certs),
            ("intermediate CA", msp.intermediate_certs),
            ("TLS CA", msp.tls_root_certs),
            ("admin", msp.admins),
        ):
            found += [_shown(name, purpose, pem, now) for pem in pems]
    if configuration.consensus_type == RAFT:
        metadata = parse(raft_pb2.ConfigMetadata, configuration.consensus_metadata, "ConfigMetadata")
        for raft_consenter in metadata.consenters:
            place = f"{raft_consenter.host}:{raft_consenter.port}"
            found.append(_shown(place, "consenter TLS", raft_consenter.server_tls_cert, now))
    for consenter in configuration.consenters:
        found.append(_shown(consenter.msp_id, "consenter", consenter.certificate_pem, now))
    return sorted(found, key=lambda certificate: certificate.days_left)


def _shown(organization: str, purpose: str, pem: bytes, now: datetime) -> ShownCertificate:
    try:
        certificate = x509.load_pem_x509_certificate(pem)
    except ValueError:
        return ShownCertificate(organization, purpose, "(a certificate that does not read)", 0)
    left = (certificate.not_valid_after_utc - now).days
    return ShownCertificate(organization, purpose, certificate.subject.rfc4514_string(), left)
