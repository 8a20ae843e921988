"""Changes of a channel's configuration that people ask for by name. Pure: a tree in, a tree out.

Versions stay as they are: the update that is computed from both trees knows them. Messages and rules are those of
`network.genesis` and `network.protocol.config_transition`. Every function raises ChannelChangeError for what does not
exist or would make no sense.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeVar

from fabric_protos.common import configuration_pb2
from fabric_protos.msp import msp_config_pb2
from fabric_protos.orderer import configuration_pb2 as orderer_pb2
from fabric_protos.orderer.etcdraft import configuration_pb2 as raft_pb2
from fabric_protos.peer import configuration_pb2 as peer_configuration_pb2
from google.protobuf.message import Message

from network.errors import ChannelChangeError
from network.genesis import ADMINS, policy_message
from network.protocol.certificate import (
    RevocationList,
    decode_pem_certificate,
    decode_revocation_list,
    is_list_signed_by,
)
from network.protocol.config_group import ConfigGroup, ConfigPolicy, ConfigValue, config_group, is_name
from network.protocol.config_transition import BFT, RAFT
from network.protocol.duration import decode_duration
from network.protocol.errors import ConfigurationError, DecodeError
from network.protocol.identity import SerializedIdentity
from network.protocol.msp import TYPE_FABRIC
from network.protocol.policy import TYPE_SIGNATURE
from network.protocol.quorum import block_validation_policy
from network.protocol.wire import parse

LARGEST_COUNT: Final = 2**32 - 1
LARGEST_PORT: Final = 65535

M = TypeVar("M", bound=Message)


class Address(NamedTuple):
    """Where a node is reached."""

    host: str
    port: int


def read_address(text: str) -> Address:
    """Read host:port; raises ChannelChangeError."""
    host, _, port = text.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) <= LARGEST_PORT:
        raise ChannelChangeError(f"{text!r} is not host:port")
    return Address(host, int(port))


# --- settings


@dataclass(frozen=True, slots=True)
class BatchChange:
    """What to change of the limits of blocks; None leaves a limit as it is."""

    max_messages: int | None = None
    preferred_max_bytes: int | None = None
    absolute_max_bytes: int | None = None
    timeout: str | None = None


def set_batch(root: ConfigGroup, change: BatchChange) -> ConfigGroup:
    """Change the limits of blocks. BFT orderers have their timeout among the settings of their consensus."""
    size = _value(root, ("Orderer",), "BatchSize", orderer_pb2.BatchSize)
    for field, number in (
        ("max_message_count", change.max_messages),
        ("preferred_max_bytes", change.preferred_max_bytes),
        ("absolute_max_bytes", change.absolute_max_bytes),
    ):
        if number is not None:
            if not 0 < number <= LARGEST_COUNT:
                raise ChannelChangeError(f"{field}: {number} is not between 1 and {LARGEST_COUNT}")
            setattr(size, field, number)
    if size.preferred_max_bytes > size.absolute_max_bytes:
        raise ChannelChangeError(
            f"preferred_max_bytes {size.preferred_max_bytes} is above absolute_max_bytes {size.absolute_max_bytes}"
        )
    changed = _with_value(root, ("Orderer",), "BatchSize", size)
    if change.timeout is None:
        return changed
    try:
        duration = decode_duration(change.timeout)
    except DecodeError as error:
        raise ChannelChangeError(f"timeout {change.timeout!r}: {error}") from error
    if duration <= 0:
        raise ChannelChangeError("the timeout is not positive")
    return _with_value(changed, ("Orderer",), "BatchTimeout", orderer_pb2.BatchTimeout(timeout=change.timeout))


def set_acls(root: ConfigGroup, acls: Mapping[str, str]) -> ConfigGroup:
    """Say by which policy each resource is used; an empty reference takes the channel's own rule away again."""
    message = _value(root, ("Application",), "ACLs", peer_configuration_pb2.ACLs)
    for resource, reference in acls.items():
        if reference:
            message.acls[resource].policy_ref = reference
        elif resource in message.acls:
            del message.acls[resource]
        else:
            raise ChannelChangeError(f"the channel has no rule of its own for {resource}")
    return _with_value(root, ("Application",), "ACLs", message)


def set_policy(root: ConfigGroup, path: str, text: str) -> ConfigGroup:
    """Write a policy at its path, such as /Channel/Application/Admins; an empty text removes it."""
    steps = path.split("/")
    if steps[:2] != ["", "Channel"] or len(steps) < 3 or not all(is_name(step) for step in steps[2:]):
        raise ChannelChangeError(f"{path!r} is no path of a policy, such as /Channel/Application/Admins")
    name = steps[-1]

    def change(group: ConfigGroup) -> ConfigGroup:
        if not text:
            if name not in group.policies:
                raise ChannelChangeError(f"there is no policy {path}")
            return _replaced(group, policies={key: it for key, it in group.policies.items() if key != name})
        try:
            message = policy_message(text)
        except ConfigurationError as error:
            raise ChannelChangeError(str(error)) from error
        old = group.policies.get(name, ConfigPolicy(0, 0, b"", ADMINS))
        policy = old._replace(policy_type=message.type, value=message.value)
        return _replaced(group, policies={**group.policies, name: policy})

    return _changed(root, tuple(steps[2:-1]), change)


def set_anchor_peers(root: ConfigGroup, msp_id: str, addresses: Sequence[Address]) -> ConfigGroup:
    """Say which peers of an organisation others turn to first; none is allowed."""
    name = _organization_named(root, msp_id)
    return _with_value(root, ("Application", name), "AnchorPeers", anchor_peers_message(addresses))


def anchor_peers_message(addresses: Sequence[Address]) -> peer_configuration_pb2.AnchorPeers:
    """Give the message that names the peers that others turn to first."""
    peers = [peer_configuration_pb2.AnchorPeer(host=address.host, port=address.port) for address in addresses]
    return peer_configuration_pb2.AnchorPeers(anchor_peers=peers)


# --- organisations


def add_organization(root: ConfigGroup, name: str, group: ConfigGroup) -> ConfigGroup:
    """Let an organisation in; `name` is the key of its group, usually its MSP id."""
    if not is_name(name):
        raise ChannelChangeError(f"{name!r} is no name of a group: letters, digits, '.' and '-'")
    added = _msp(group)
    for other, existing in _group(root, ("Application",)).groups.items():
        if other == name or _msp(existing).name == added.name:
            raise ChannelChangeError(f"the channel has {added.name} already, as {other}")

    def change(application: ConfigGroup) -> ConfigGroup:
        return _replaced(application, groups={**application.groups, name: group})

    return _changed(root, ("Application",), change)


def publish_revocations(root: ConfigGroup, msp_id: str, lists: Sequence[bytes]) -> ConfigGroup:
    """Publish revocation lists (PEM or DER) of an organisation, wherever the channel has its MSP.

    A list replaces the older one of the same CA. Each must be signed by a CA of the organisation.
    """
    places = _places_of(root, msp_id)
    if not lists:
        raise ChannelChangeError("no revocation list was given")
    for place in places:
        root = _changed(root, place, lambda group: _with_lists(group, msp_id, lists))
    return root


def _with_lists(group: ConfigGroup, msp_id: str, lists: Sequence[bytes]) -> ConfigGroup:
    msp = _msp(group)
    authorities = [decode_pem_certificate(pem) for pem in (*msp.root_certs, *msp.intermediate_certs)]
    kept = {_decoded_list(content).authority_key_id: content for content in msp.revocation_list}
    for content in lists:
        found = _decoded_list(content)
        if found.authority_key_id is None:
            # Fabric would take no certificate of the organisation any more.
            raise ChannelChangeError("a revocation list that does not name its issuer's key")
        if not any(
            authority.subject_key_id == found.authority_key_id and is_list_signed_by(found, authority)
            for authority in authorities
        ):
            raise ChannelChangeError(f"a revocation list that no CA of {msp_id} has signed")
        kept[found.authority_key_id] = content
    del msp.revocation_list[:]
    msp.revocation_list.extend(kept.values())
    return _with_msp(group, msp)


def _decoded_list(content: bytes) -> RevocationList:
    try:
        return decode_revocation_list(content)
    except DecodeError as error:
        raise ChannelChangeError(f"a revocation list that does not read: {error}") from error


# --- orderers


@dataclass(frozen=True, slots=True)
class OrdererCertificates:
    """New certificates of an orderer, PEM; None leaves one as it is. `identity` is what a BFT orderer signs with."""

    server_tls: bytes | None = None
    client_tls: bytes | None = None
    identity: bytes | None = None


def rotate_orderer(root: ConfigGroup, address: Address, certificates: OrdererCertificates) -> ConfigGroup:
    """Replace certificates of one consenter: of its TLS, and with BFT the one that it signs blocks with.

    A Raft orderer signs blocks as any member of its organisation: its own certificate is not in the configuration.
    """
    for pem in (certificates.server_tls, certificates.client_tls, certificates.identity):
        if pem is not None:
            _checked_certificate(pem)
    consensus = _value(root, ("Orderer",), "ConsensusType", orderer_pb2.ConsensusType)
    if consensus.type == RAFT:
        if certificates.identity is not None:
            raise ChannelChangeError(
                "a Raft orderer's signing certificate is not in the configuration: give it to the orderer alone"
            )
        metadata = parse(raft_pb2.ConfigMetadata, consensus.metadata, "ConfigMetadata")
        _rotate(metadata.consenters, address, certificates)
        consensus.metadata = _encoded(metadata)
        return _with_value(root, ("Orderer",), "ConsensusType", consensus)
    if consensus.type != BFT:
        raise ChannelChangeError(f"the channel orders by {consensus.type}, which has no consenters here")
    orderers = _value(root, ("Orderer",), "Orderers", configuration_pb2.Orderers)
    _rotate(orderers.consenter_mapping, address, certificates)
    root = _with_value(root, ("Orderer",), "Orderers", orderers)
    identities = [SerializedIdentity(entry.msp_id, entry.identity) for entry in orderers.consenter_mapping]
    return _with_block_validation(root, block_validation_policy(identities))


def _with_block_validation(root: ConfigGroup, quorum: bytes) -> ConfigGroup:
    def change(group: ConfigGroup) -> ConfigGroup:
        old = group.policies.get("BlockValidation", ConfigPolicy(0, 0, b"", ADMINS))
        policy = old._replace(policy_type=TYPE_SIGNATURE, value=quorum)
        return _replaced(group, policies={**group.policies, "BlockValidation": policy})

    return _changed(root, ("Orderer",), change)


def _rotate(
    consenters: Sequence[raft_pb2.Consenter | configuration_pb2.Consenter],
    address: Address,
    certificates: OrdererCertificates,
) -> None:
    found = [consenter for consenter in consenters if (consenter.host, consenter.port) == address]
    if not found:
        known = ", ".join(f"{consenter.host}:{consenter.port}" for consenter in consenters)
        raise ChannelChangeError(f"no consenter at {address.host}:{address.port}; there are: {known}")
    for consenter in found:
        if certificates.server_tls is not None:
            consenter.server_tls_cert = certificates.server_tls
        if certificates.client_tls is not None:
            consenter.client_tls_cert = certificates.client_tls
        if certificates.identity is not None:
            consenter.identity = certificates.identity


def _checked_certificate(pem: bytes) -> None:
    try:
        decode_pem_certificate(pem)
    except DecodeError as error:
        raise ChannelChangeError(f"a certificate that does not read: {error}") from error


# --- trees


def _group(root: ConfigGroup, path: tuple[str, ...]) -> ConfigGroup:
    for name in path:
        if name not in root.groups:
            raise ChannelChangeError(f"the configuration has no group {'/'.join(path)}")
        root = root.groups[name]
    return root


def _changed(root: ConfigGroup, path: tuple[str, ...], change: Callable[[ConfigGroup], ConfigGroup]) -> ConfigGroup:
    """Give the tree with one group changed."""
    if not path:
        return change(root)
    below = _changed(_group(root, path[:1]), path[1:], change)
    return _replaced(root, groups={**root.groups, path[0]: below})


def _replaced(
    group: ConfigGroup,
    *,
    groups: Mapping[str, ConfigGroup] | None = None,
    values: Mapping[str, ConfigValue] | None = None,
    policies: Mapping[str, ConfigPolicy] | None = None,
) -> ConfigGroup:
    return config_group(
        group.version,
        groups=group.groups if groups is None else groups,
        values=group.values if values is None else values,
        policies=group.policies if policies is None else policies,
        mod_policy=group.mod_policy,
    )


def _value(root: ConfigGroup, path: tuple[str, ...], key: str, kind: type[M]) -> M:
    """Read a value; one that is not there is empty."""
    value = _group(root, path).values.get(key)
    try:
        return parse(kind, b"" if value is None else value.value, key)
    except DecodeError as error:
        raise ChannelChangeError(f"the configuration in force does not read: {error}") from error


def _with_value(root: ConfigGroup, path: tuple[str, ...], key: str, message: Message) -> ConfigGroup:
    return _changed(root, path, lambda group: _set(group, key, message))


def _set(group: ConfigGroup, key: str, message: Message) -> ConfigGroup:
    old = group.values.get(key, ConfigValue(0, b"", ADMINS))
    return _replaced(group, values={**group.values, key: old._replace(value=_encoded(message))})


def _encoded(message: Message) -> bytes:
    return bytes(message.SerializeToString(deterministic=True))


def _msp(group: ConfigGroup) -> msp_config_pb2.FabricMSPConfig:
    """Read the MSP of an organisation's group; one of another kind than X.509 is empty."""
    wrapped = _value(group, (), "MSP", msp_config_pb2.MSPConfig)
    if wrapped.type != TYPE_FABRIC:
        return msp_config_pb2.FabricMSPConfig()
    return parse(msp_config_pb2.FabricMSPConfig, wrapped.config, "FabricMSPConfig")


def _with_msp(group: ConfigGroup, msp: msp_config_pb2.FabricMSPConfig) -> ConfigGroup:
    return _set(group, "MSP", msp_config_pb2.MSPConfig(type=TYPE_FABRIC, config=_encoded(msp)))


def _places_of(root: ConfigGroup, msp_id: str) -> list[tuple[str, ...]]:
    """Give the groups of an organisation, among members and orderers: both must have the same MSP."""
    places = [
        (level, name)
        for level in ("Application", "Orderer")
        if level in root.groups
        for name, group in root.groups[level].groups.items()
        if _msp(group).name == msp_id
    ]
    if not places:
        raise ChannelChangeError(f"the channel has no organisation {msp_id}")
    return list(places)


def _organization_named(root: ConfigGroup, msp_id: str) -> str:
    for level, name in _places_of(root, msp_id):
        if level == "Application":
            return name
    raise ChannelChangeError(f"{msp_id} is no member of the channel")
