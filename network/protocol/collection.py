"""Collections of private data: their configurations, who is a member, and the implicit collection of each organisation.

Messages: `peer/collection.proto`, `peer/policy.proto`. Rules: `core/chaincode/lifecycle/scc.go` (what a configuration
must be, and the texts), `core/chaincode/lifecycle/deployedcc_infoprovider.go` and
`core/chaincode/implicitcollection/name.go` (implicit collections), `core/common/privdata/collection.go` (members).
"""

import re
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from fabric_protos.common import policies_pb2
from fabric_protos.msp import msp_principal_pb2
from fabric_protos.peer import collection_pb2, policy_pb2

from network.protocol.errors import ConfigurationError, DecodeError, DefinitionError, IdentityError
from network.protocol.identity import Identity, decode_serialized_identity
from network.protocol.msp import (
    CLASSIFICATION_IDENTITY,
    CLASSIFICATION_ORGANIZATION_UNIT,
    CLASSIFICATION_ROLE,
    ChannelMsps,
    Role,
)
from network.protocol.policy import decode_signature_policy, is_satisfied
from network.protocol.wire import parse

IMPLICIT_PREFIX: Final = "_implicit_org_"

COLLECTION_NAME = re.compile(r"[A-Za-z0-9-][A-Za-z0-9_-]*")  # the language of Fabric's, without its backtracking


class CollectionConfig(NamedTuple):
    """A collection of one chaincode.

    `member_policy`: SignaturePolicyEnvelope bytes. `block_to_live` in blocks, 0: for ever. `endorsement_policy`:
    ApplicationPolicy bytes, None: the chaincode's own policy rules.
    """

    name: str
    member_policy: bytes
    required_peer_count: int = 0
    maximum_peer_count: int = 0
    block_to_live: int = 0
    member_only_read: bool = False
    member_only_write: bool = False
    endorsement_policy: bytes | None = None


def encode_collections(configs: Iterable[CollectionConfig]) -> bytes:
    """Write a CollectionConfigPackage; none give no bytes. Raises DecodeError for a policy that is no policy."""
    package = collection_pb2.CollectionConfigPackage()
    for config in configs:
        static = package.config.add().static_collection_config
        static.name = config.name
        policy = parse(policies_pb2.SignaturePolicyEnvelope, config.member_policy, "SignaturePolicyEnvelope")
        static.member_orgs_policy.signature_policy.CopyFrom(policy)
        static.required_peer_count = config.required_peer_count
        static.maximum_peer_count = config.maximum_peer_count
        static.block_to_live = config.block_to_live
        static.member_only_read = config.member_only_read
        static.member_only_write = config.member_only_write
        if config.endorsement_policy is not None:
            application = parse(policy_pb2.ApplicationPolicy, config.endorsement_policy, "ApplicationPolicy")
            static.endorsement_policy.CopyFrom(application)
    return bytes(package.SerializeToString(deterministic=True))


def decode_collections(content: bytes) -> tuple[CollectionConfig, ...]:
    """Read a CollectionConfigPackage as the committed state holds it; entries of an unknown kind are left out.

    Raises DecodeError when the bytes are none.
    """
    package = parse(collection_pb2.CollectionConfigPackage, content, "CollectionConfigPackage")
    return tuple([_config(entry.static_collection_config) for entry in package.config if _is_static(entry)])


def _is_static(entry: collection_pb2.CollectionConfig) -> bool:
    return bool(entry.WhichOneof("payload") == "static_collection_config")


def _config(static: collection_pb2.StaticCollectionConfig) -> CollectionConfig:
    endorsement_policy = None
    if static.HasField("endorsement_policy"):
        endorsement_policy = bytes(static.endorsement_policy.SerializeToString(deterministic=True))
    return CollectionConfig(
        static.name,
        static.member_orgs_policy.signature_policy.SerializeToString(deterministic=True),
        static.required_peer_count,
        static.maximum_peer_count,
        static.block_to_live,
        static.member_only_read,
        static.member_only_write,
        endorsement_policy,
    )


def find_collection(configs: Iterable[CollectionConfig], name: str) -> CollectionConfig | None:
    """Give a collection by name: an explicit one among `configs`, or the implicit one that the name stands for."""
    msp_id = implicit_collection_owner(name)
    if msp_id is not None:
        return implicit_collection(msp_id)
    return next((config for config in configs if config.name == name), None)


# --- implicit collections


def implicit_collection_name(msp_id: str) -> str:
    """Name the collection that every chaincode has for an organisation without asking for it."""
    return IMPLICIT_PREFIX + msp_id


def implicit_collection_owner(name: str) -> str | None:
    """Give the MSP ID that an implicit collection belongs to, None for any other collection."""
    return name[len(IMPLICIT_PREFIX) :] if name.startswith(IMPLICIT_PREFIX) else None


def implicit_collection(msp_id: str) -> CollectionConfig:
    """Give the configuration of an organisation's implicit collection: any member of it, for ever, no flags.

    Its endorsement policy is the organisation's own in the channel, which is not part of a collection
    (`endorsement_policy.ChannelRules`).
    """
    return CollectionConfig(implicit_collection_name(msp_id), members_policy(msp_id))


def members_policy(*msp_ids: str) -> bytes:
    """Write the SignaturePolicyEnvelope of any member of any of these organisations, in the order given."""
    return role_policy(1, Role.MEMBER, msp_ids)


def role_policy(needed: int, role: Role, msp_ids: Sequence[str]) -> bytes:
    """Write the SignaturePolicyEnvelope of `needed` of the organisations, each by an identity in the role."""
    rule = policies_pb2.SignaturePolicy()
    rule.n_out_of.n = needed
    envelope = policies_pb2.SignaturePolicyEnvelope(version=0)
    for position, msp_id in enumerate(msp_ids):
        rule.n_out_of.rules.add().signed_by = position
        principal = msp_principal_pb2.MSPRole(msp_identifier=msp_id, role=int(role))
        envelope.identities.add(
            principal_classification=CLASSIFICATION_ROLE, principal=principal.SerializeToString(deterministic=True)
        )
    envelope.rule.CopyFrom(rule)
    return bytes(envelope.SerializeToString(deterministic=True))


# --- members


def is_member(config: CollectionConfig, identity: Identity, msps: ChannelMsps) -> bool:
    """Tell whether an identity satisfies the collection's member policy, by itself.

    Its signature is the caller's to check. A policy that cannot be read has no members.
    """
    try:
        policy = decode_signature_policy(config.member_policy)
    except (DecodeError, ConfigurationError):
        return False
    return is_satisfied(policy, [identity], msps)


def member_msp_ids(config: CollectionConfig) -> frozenset[str]:
    """Name the organisations in the member policy: their peers hold the private data.

    Raises DecodeError when the policy cannot be read.
    """
    envelope = parse(policies_pb2.SignaturePolicyEnvelope, config.member_policy, "SignaturePolicyEnvelope")
    return frozenset([_msp_id(principal) for principal in envelope.identities])


def _msp_id(principal: msp_principal_pb2.MSPPrincipal) -> str:
    kind, content = principal.principal_classification, principal.principal
    if kind == CLASSIFICATION_ROLE:
        return str(parse(msp_principal_pb2.MSPRole, content, "MSPRole").msp_identifier)
    if kind == CLASSIFICATION_ORGANIZATION_UNIT:
        return str(parse(msp_principal_pb2.OrganizationUnit, content, "OrganizationUnit").msp_identifier)
    if kind == CLASSIFICATION_IDENTITY:
        return decode_serialized_identity(content).msp_id
    raise DecodeError(f"principal of classification {kind}, which names no organisation")


# --- what a definition may ask for


def check_collections(content: bytes, committed: bytes, msps: ChannelMsps) -> None:
    """Check the CollectionConfigPackage of a proposed definition; `committed`: that of the committed one, b"": none.

    Raises DefinitionError with Fabric's text, DecodeError when one of the two is no package.
    """
    package = parse(collection_pb2.CollectionConfigPackage, content, "CollectionConfigPackage")
    for entry in package.config:
        if not _is_static(entry):
            raise DefinitionError("collection config contains unexpected payload type: <nil>")
    names: set[str] = set()
    for entry in package.config:
        _check_config(entry.static_collection_config, names, msps)
        names.add(entry.static_collection_config.name)
    check_against_committed(
        [_config(entry.static_collection_config) for entry in package.config], decode_collections(committed)
    )


def _check_config(config: collection_pb2.StaticCollectionConfig, names: set[str], msps: ChannelMsps) -> None:
    name = config.name
    required, maximum = config.required_peer_count, config.maximum_peer_count
    if not COLLECTION_NAME.fullmatch(name):
        raise DefinitionError(
            f"invalid collection name '{name}'. Names can only consist of alphanumerics, '_', and '-' and cannot "
            "begin with '_'"
        )
    if name in names:
        raise DefinitionError(f"collection-name: {name} -- found duplicate in collection configuration")
    if maximum < required:
        raise DefinitionError(
            f"collection-name: {name} -- maximum peer count ({maximum}) cannot be less than the required peer count "
            f"({required})"
        )
    if required < 0:
        raise DefinitionError(f"collection-name: {name} -- requiredPeerCount ({required}) cannot be less than zero")
    if not config.HasField("member_orgs_policy"):
        raise DefinitionError(f"collection member policy is not set for collection '{name}'")
    if not config.member_orgs_policy.HasField("signature_policy"):
        raise DefinitionError(f"collection member org policy is empty for collection '{name}'")
    policy = config.member_orgs_policy.signature_policy
    try:
        decode_signature_policy(policy.SerializeToString())
    except (DecodeError, ConfigurationError) as error:
        raise DefinitionError(f"invalid member org policy for collection '{name}': {error}") from error
    needed = _gate_that_is_no_or(policy.rule)
    if needed is not None:
        raise DefinitionError(
            f"collection-name: {name} -- error in member org policy: signature policy is not an OR concatenation, "
            f"NOutOf {needed}"
        )
    for principal in policy.identities:
        _check_principal(name, principal, msps)


def _gate_that_is_no_or(rule: policies_pb2.SignaturePolicy) -> int | None:
    """Give the number that a gate other than OR asks for; the nesting was bounded when the policy was read."""
    if rule.WhichOneof("Type") != "n_out_of":
        return None
    if rule.n_out_of.n != 1:
        return int(rule.n_out_of.n)
    return next((needed for part in rule.n_out_of.rules if (needed := _gate_that_is_no_or(part)) is not None), None)


def _check_principal(name: str, principal: msp_principal_pb2.MSPPrincipal, msps: ChannelMsps) -> None:
    kind, place = principal.principal_classification, f"collection-name: {name} --"
    if kind == CLASSIFICATION_IDENTITY:
        try:
            msps.identity(decode_serialized_identity(principal.principal))
        except (DecodeError, IdentityError) as error:
            raise DefinitionError(f"{place} contains an identity that is not part of the channel") from error
        return
    if kind not in (CLASSIFICATION_ROLE, CLASSIFICATION_ORGANIZATION_UNIT):
        raise DefinitionError(f"{place} principal type {kind} is not supported")
    try:
        msp_id = _msp_id(principal)
    except DecodeError as error:
        message = "MSPRole" if kind == CLASSIFICATION_ROLE else "OrganizationUnit"
        raise DefinitionError(f"{place} cannot unmarshal identity bytes into {message}") from error
    if msp_id not in msps.by_id:
        raise DefinitionError(f"{place} collection member '{msp_id}' is not part of the channel")


def check_against_committed(proposed: Sequence[CollectionConfig], committed: Sequence[CollectionConfig]) -> None:
    """Check what may not change of collections that exist; raises DefinitionError with Fabric's text."""
    if committed and not proposed:
        raise DefinitionError("the proposed collection config does not contain previously defined collections")
    by_name = {config.name: config for config in proposed}
    for before in committed:
        now = by_name.get(before.name)
        if now is None:
            raise DefinitionError(
                f"existing collection [{before.name}] missing in the proposed collection configuration"
            )
        if now.block_to_live != before.block_to_live:
            raise DefinitionError(
                f"the BlockToLive in an existing collection [{before.name}] modified. Existing value "
                f"[{before.block_to_live}]"
            )
