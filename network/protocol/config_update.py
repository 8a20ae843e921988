"""Updates of a channel's configuration: computed, signed, and authorised against the configuration in force.

Messages: `common/configtx.proto`. Rules: `internal/configtxlator/update/update.go` (computing),
`common/configtx/{update,configmap,validator}.go` (authorising), `protoutil/signeddata.go` (what is signed),
`core/peer/channel.go` (what a peer does with the result).

An update names what it read (elements with their versions) and what it writes. What it writes anew, the delta, is laid
over a flat map of the configuration in force; the tree is then rebuilt from the root by the members that each group of
that map lists. So a new element below a group that was not written anew is left out, without a word, and an element
that a group written anew does not list any more is removed.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, NamedTuple, TypeVar

from fabric_protos.common import common_pb2, configtx_pb2

from network.protocol.block_signature import ChannelTrust
from network.protocol.config_group import (
    ROOT,
    ConfigGroup,
    ConfigPolicy,
    ConfigValue,
    config_group,
    decode_group,
    encode_group,
    is_name,
)
from network.protocol.config_transition import check_successor
from network.protocol.configuration import ChannelConfiguration, decode_config_envelope
from network.protocol.errors import ConfigUpdateError, ConfigurationError, DecodeError, PolicyError
from network.protocol.policy import SignedData, verified_signatures
from network.protocol.transaction import HEADER_CONFIG_UPDATE
from network.protocol.wire import parse

NO_SUCH_POLICY: Final = "no such policy"
_ADMINS: Final = "Admins"
_ORDERER_CAPABILITIES: Final = f"[Value]  /{ROOT}/Orderer/Capabilities"

_KINDS: Final = {ConfigGroup: "group", ConfigValue: "value", ConfigPolicy: "policy"}

ConfigElement = ConfigGroup | ConfigValue | ConfigPolicy
T = TypeVar("T", ConfigGroup, ConfigValue, ConfigPolicy)
E = TypeVar("E", ConfigValue, ConfigPolicy)


class ConfigUpdate(NamedTuple):
    """What an update read, and what it writes: trees from the root, with versions, filled only where it writes."""

    channel_id: str
    read_set: ConfigGroup
    write_set: ConfigGroup


class ConfigSignature(NamedTuple):
    """One signature on an update; `signature_header` tells whose, and is signed with it."""

    signature_header: bytes
    signature: bytes


class SignedUpdate(NamedTuple):
    """An update with its signatures so far; `content` are the very bytes that were signed."""

    content: bytes
    signatures: tuple[ConfigSignature, ...]


# --- messages


def encode_update(update: ConfigUpdate) -> bytes:
    """Give the ConfigUpdate bytes of an update; the same update gives the same bytes."""
    message = configtx_pb2.ConfigUpdate(
        channel_id=update.channel_id,
        read_set=encode_group(update.read_set, is_update=True),
        write_set=encode_group(update.write_set, is_update=True),
    )
    return bytes(message.SerializeToString(deterministic=True))


def decode_update(content: bytes) -> ConfigUpdate:
    """Read a ConfigUpdate; raises DecodeError, ConfigurationError for keys that are no names."""
    message = parse(configtx_pb2.ConfigUpdate, content, "ConfigUpdate")
    return ConfigUpdate(
        message.channel_id,
        decode_group(message.read_set, "ReadSet", is_update=True),
        decode_group(message.write_set, "WriteSet", is_update=True),
    )


def signed_bytes(update: bytes, signature_header: bytes) -> bytes:
    """Give what a signature on an update (ConfigUpdate bytes) covers."""
    return signature_header + update


def encode_signed_update(signed: SignedUpdate) -> bytes:
    """Give the ConfigUpdateEnvelope bytes of an update with its signatures."""
    message = configtx_pb2.ConfigUpdateEnvelope(
        config_update=signed.content, signatures=[signature._asdict() for signature in signed.signatures]
    )
    return bytes(message.SerializeToString())


def decode_signed_update(content: bytes) -> SignedUpdate:
    """Read a ConfigUpdateEnvelope; raises DecodeError."""
    message = parse(configtx_pb2.ConfigUpdateEnvelope, content, "ConfigUpdateEnvelope")
    signatures = [ConfigSignature(entry.signature_header, entry.signature) for entry in message.signatures]
    return SignedUpdate(message.config_update, tuple(signatures))


def read_update_envelope(envelope: common_pb2.Envelope) -> SignedUpdate:
    """Read the update in an envelope of type CONFIG_UPDATE; its own signature is not looked at. Raises DecodeError."""
    payload = parse(common_pb2.Payload, envelope.payload, "Payload")
    if not payload.HasField("header"):
        raise DecodeError("Payload: no header")
    header = parse(common_pb2.ChannelHeader, payload.header.channel_header, "ChannelHeader")
    if header.type != HEADER_CONFIG_UPDATE:
        raise DecodeError(f"ChannelHeader: type {header.type} instead of CONFIG_UPDATE")
    return decode_signed_update(payload.data)


# --- computing


def compute_update(channel_id: str, before: ConfigGroup, after: ConfigGroup) -> ConfigUpdate:
    """Give the update that makes `after` of `before`; versions in `after` play no role.

    Raises ConfigUpdateError when there is no difference.
    """
    update = _group_update(before, after)
    if update is None:
        raise ConfigUpdateError("no differences detected between original and updated config")
    return ConfigUpdate(channel_id, *update)


def _group_update(before: ConfigGroup, after: ConfigGroup) -> tuple[ConfigGroup, ConfigGroup] | None:
    """Give read and write set of a group, None when nothing in it changes."""
    read: dict[str, ConfigGroup] = {}
    written: dict[str, ConfigGroup] = {}
    unchanged: dict[str, ConfigGroup] = {}
    for name, group in after.groups.items():
        if name not in before.groups:
            written[name] = _new_group(group)
            continue
        update = _group_update(before.groups[name], group)
        if update is None:
            unchanged[name] = config_group(before.groups[name].version)
        else:
            read[name], written[name] = update
    values, same_values = _written(before.values, after.values)
    policies, same_policies = _written(before.policies, after.policies)
    if after.mod_policy == before.mod_policy and _members(after) == _members(before):
        if not (read or values or policies):
            return None
        return (
            config_group(before.version, groups=read),
            config_group(before.version, groups=written, values=values, policies=policies),
        )
    return (
        config_group(before.version, groups=read | unchanged, values=same_values, policies=same_policies),
        config_group(
            before.version + 1,
            groups=written | unchanged,
            values=values | same_values,
            policies=policies | same_policies,
            mod_policy=after.mod_policy,
        ),
    )


def _members(group: ConfigGroup) -> tuple[frozenset[str], ...]:
    return frozenset(group.groups), frozenset(group.values), frozenset(group.policies)


def _written(before: Mapping[str, E], after: Mapping[str, E]) -> tuple[dict[str, E], dict[str, E]]:
    """Give the elements that are new or changed, with their versions, and the others as versions alone."""
    written: dict[str, E] = {}
    unchanged: dict[str, E] = {}
    for name, element in after.items():
        old = before.get(name)
        if old is None:
            written[name] = element._replace(version=0)
        elif element._replace(version=old.version) == old:
            unchanged[name] = _version_alone(old)
        else:
            written[name] = element._replace(version=old.version + 1)
    return written, unchanged


def _version_alone(element: E) -> E:
    if isinstance(element, ConfigValue):
        return ConfigValue(element.version, b"", "")
    return ConfigPolicy(element.version, 0, b"", "")


def _new_group(group: ConfigGroup) -> ConfigGroup:
    return config_group(
        groups={name: _new_group(child) for name, child in group.groups.items()},
        values={name: value._replace(version=0) for name, value in group.values.items()},
        policies={name: policy._replace(version=0) for name, policy in group.policies.items()},
        mod_policy=group.mod_policy,
    )


# --- applying


class Change(NamedTuple):
    """An element that an update writes; `policy` is the path of the policy its signers must satisfy, None: new."""

    element: str
    policy: str | None


@dataclass(frozen=True, slots=True)
class ProposedConfiguration:
    """What an update makes of the configuration it was applied to: `root`, and what changes, by element.

    `dropped` are the elements that it writes and that are nowhere in `root`.
    """

    root: ConfigGroup
    changes: tuple[Change, ...]
    dropped: tuple[str, ...]


def apply_update(update: ConfigUpdate, channel_id: str, root: ConfigGroup) -> ProposedConfiguration:
    """Lay an update over the configuration in force of its channel, whoever signed it.

    Raises ConfigUpdateError, with Fabric's text, when it was made for another configuration than this one.
    """
    if update.channel_id != channel_id:
        raise ConfigUpdateError(
            f"ConfigUpdate for channel '{update.channel_id}' but envelope for channel '{channel_id}'"
        )
    existing = _elements(root)
    read_set = _elements(update.read_set)
    for key, element in read_set.items():
        _check_read(key, element, existing)
    delta = {
        key: element
        for key, element in _elements(update.write_set).items()
        if key not in read_set or read_set[key].version != element.version
    }
    if not delta:
        raise ConfigUpdateError("error validating DeltaSet: delta set was empty -- update would have no effect")
    changes = [Change(key, _policy_of(key, element, existing)) for key, element in delta.items()]
    # What is written and not in the delta was read, so it is there: Fabric's last check of the write set never fails.
    result = existing | delta
    rebuilt = _rebuilt(f"/{ROOT}", result, fills_policies=_ORDERER_CAPABILITIES in result)
    kept = _elements(rebuilt)
    return ProposedConfiguration(rebuilt, tuple(changes), tuple([key for key in delta if key not in kept]))


def _elements(root: ConfigGroup) -> dict[str, ConfigElement]:
    """Give every element of a tree by Fabric's names for them, such as "[Value]  /Channel/Orderer/BatchSize"."""

    def below(path: str, group: ConfigGroup) -> Iterator[tuple[str, ConfigElement]]:
        yield f"[Group]  {path}", group
        for name, value in group.values.items():
            yield f"[Value]  {path}/{name}", value
        for name, policy in group.policies.items():
            yield f"[Policy] {path}/{name}", policy
        for name, child in group.groups.items():
            yield from below(f"{path}/{name}", child)

    return dict(sorted(below(f"/{ROOT}", root)))


def _check_read(key: str, element: ConfigElement, existing: Mapping[str, ConfigElement]) -> None:
    if key not in existing:
        raise ConfigUpdateError(
            f"error validating ReadSet: existing config does not contain element for {key} but was in the read set"
        )
    if existing[key].version != element.version:
        raise ConfigUpdateError(
            f"error validating ReadSet: proposed update requires that key {key} be at version {element.version}, "
            f"but it is currently at version {existing[key].version}"
        )


def _policy_of(key: str, element: ConfigElement, existing: Mapping[str, ConfigElement]) -> str | None:
    """Check the version of an element that is written; give the policy that rules it, None for a new one."""
    if not _is_policy_path(element.mod_policy):
        reason = "a step of it is no name" if element.mod_policy else "mod_policy not set"
        raise ConfigUpdateError(f"error validating DeltaSet: invalid mod_policy for element {key}: {reason}")
    old = existing.get(key)
    if old is None:
        if element.version != 0:
            raise ConfigUpdateError(
                f"error validating DeltaSet: attempted to set key {key} to version {element.version}, "
                "but key does not exist"
            )
        return None  # the group that lists it is written with it, and its policy rules both
    if element.version != old.version + 1:
        raise ConfigUpdateError(
            f"error validating DeltaSet: attempt to set key {key} to version {element.version}, "
            f"but key is at version {old.version}"
        )
    if old.mod_policy.startswith("/"):
        return old.mod_policy
    path = key[len("[Group]  ") :]
    place = path if isinstance(old, ConfigGroup) else path.rpartition("/")[0]
    return f"{place}/{old.mod_policy}"


def _is_policy_path(text: str) -> bool:
    return all(is_name(step) for step in text.removeprefix("/").split("/"))


def _rebuilt(path: str, elements: Mapping[str, ConfigElement], *, fills_policies: bool) -> ConfigGroup:
    """Build a group from what it lists; `fills_policies`: elements without a mod_policy get one, as in Fabric."""
    group = _member(f"[Group]  {path}", elements, ConfigGroup)

    def filled(element: E) -> E:
        return element._replace(mod_policy=element.mod_policy or _ADMINS) if fills_policies else element

    return ConfigGroup(
        group.version,
        MappingProxyType(
            {name: _rebuilt(f"{path}/{name}", elements, fills_policies=fills_policies) for name in group.groups}
        ),
        MappingProxyType(
            {name: filled(_member(f"[Value]  {path}/{name}", elements, ConfigValue)) for name in group.values}
        ),
        MappingProxyType(
            {name: filled(_member(f"[Policy] {path}/{name}", elements, ConfigPolicy)) for name in group.policies}
        ),
        group.mod_policy or (_ADMINS if fills_policies else ""),
    )


def _member(key: str, elements: Mapping[str, ConfigElement], kind: type[T]) -> T:
    element = elements.get(key)
    if not isinstance(element, kind):
        raise ConfigUpdateError(f"missing {_KINDS[kind]} at path: {key}")
    return element


# --- authorising


def authorize_update(signed: SignedUpdate, channel_id: str, trust: ChannelTrust) -> ProposedConfiguration:
    """Apply a signed update to the configuration in force, as its policies allow.

    Raises ConfigUpdateError, with Fabric's text, when that is refused, DecodeError for bytes that are no update.
    """
    try:
        proposed = apply_update(decode_update(signed.content), channel_id, trust.configuration.root)
    except ConfigurationError as error:
        raise ConfigUpdateError(f"error mapping the update: {error}") from error
    unsatisfied = unsatisfied_policies(proposed, signed_claims(signed), trust)
    for change in proposed.changes:
        reason = unsatisfied.get(change.policy or "")
        if reason == NO_SUCH_POLICY:
            raise ConfigUpdateError(
                f"error validating DeltaSet: unexpected missing policy {change.policy} for item {change.element}"
            )
        if reason is not None:
            raise ConfigUpdateError(f"error validating DeltaSet: policy for {change.element} not satisfied: {reason}")
    return proposed


def signed_claims(signed: SignedUpdate) -> tuple[SignedData, ...]:
    """Give what the signatures on an update claim; raises DecodeError when one does not say whose it is."""
    return tuple(
        [
            SignedData(
                parse(common_pb2.SignatureHeader, signature.signature_header, "SignatureHeader").creator,
                signed_bytes(signed.content, signature.signature_header),
                signature.signature,
            )
            for signature in signed.signatures
        ]
    )


def unsatisfied_policies(
    proposed: ProposedConfiguration, claims: Sequence[SignedData], trust: ChannelTrust
) -> dict[str, str]:
    """Say which policies the good ones of these signatures do not satisfy, with the reason in Fabric's words."""
    identities = tuple([verified.identity for verified in verified_signatures(claims, trust.msps)])
    unsatisfied = {}
    for path in sorted({change.policy for change in proposed.changes if change.policy is not None}):
        try:
            reason = trust.policies.refusal(path, identities)
        except PolicyError:
            reason = NO_SUCH_POLICY
        if reason is not None:
            unsatisfied[path] = reason
    return unsatisfied


def next_configuration(content: bytes, channel_id: str, trust: ChannelTrust) -> ChannelConfiguration:
    """Judge the configuration (ConfigEnvelope bytes) of a configuration transaction as a committing peer does.

    It must be what its last update, authorised again, makes of the one in force (`trust`), and may follow that one.
    Raises DecodeError, ConfigurationError or ConfigUpdateError; a real peer stops its channel then.
    """
    configuration = decode_config_envelope(content)
    expected = trust.configuration.sequence + 1
    if configuration.sequence != expected:
        raise ConfigUpdateError(f"configuration sequence {configuration.sequence}, expected {expected}")
    update = parse(configtx_pb2.ConfigEnvelope, content, "ConfigEnvelope").last_update
    proposed = authorize_update(read_update_envelope(update), channel_id, trust)
    if proposed.root != configuration.root:
        raise ConfigUpdateError("ConfigEnvelope LastUpdate did not produce the supplied config result")
    check_successor(trust.configuration, configuration)
    return configuration
