"""Policies: which sets of signatures suffice.

Messages: `common/policies.proto`. Rules: `common/cauthdsl/{cauthdsl,policy}.go` (signature policies),
`common/policies/{policy,implicitmeta}.go` (tree of policies, identities behind signatures). Nothing here is
particular to orderers: endorsement policies are judged by `verified_signatures` and `is_satisfied` as well.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NamedTuple

from fabric_protos.common import policies_pb2

from network.protocol import limits
from network.protocol.config_group import ConfigGroup, ConfigPolicy
from network.protocol.errors import ConfigurationError, DecodeError, IdentityError, LimitExceededError, PolicyError
from network.protocol.identity import Identity, decode_serialized_identity
from network.protocol.msp import ChannelMsps, Principal
from network.protocol.wire import parse

TYPE_SIGNATURE: Final = 1
TYPE_IMPLICIT_META: Final = 3

_ANY, _ALL, _MAJORITY = 0, 1, 2
_NEVER: Final = -1


class SignedData(NamedTuple):
    """A claim to be checked: that the serialised identity made this signature over these bytes."""

    identity: bytes
    data: bytes
    signature: bytes


class VerifiedSignature(NamedTuple):
    """A signature that checks out: its position among those given, and whose it is (valid in its MSP or not)."""

    position: int
    identity: Identity


@dataclass(frozen=True, slots=True)
class SignedBy:
    """Leaf of a signature policy: one identity that satisfies the principal and served no other leaf."""

    principal: Principal


@dataclass(frozen=True, slots=True)
class Threshold:
    """Gate of a signature policy: at least `needed` of the rules."""

    needed: int
    rules: tuple["SignedBy | Threshold", ...]


@dataclass(frozen=True, slots=True)
class ImplicitMetaPolicy:
    """At least `needed` of the policies of one name in the direct child groups; a child without it never holds.

    `needed` is 0 when there are no child groups: then the policy is satisfied by nothing at all. It is negative for a
    rule that does not exist, which never holds here (Fabric would take it for satisfied when *no* child's policy is).
    """

    needed: int
    children: tuple["Policy | None", ...]
    sub_policy: str = ""
    """Name of the children's policies, for people."""


Policy = SignedBy | Threshold | ImplicitMetaPolicy


def decode_signature_policy(content: bytes) -> SignedBy | Threshold:
    """Read a SignaturePolicyEnvelope.

    Raises DecodeError when it is none, LimitExceededError beyond our bounds (Fabric sets none on size),
    ConfigurationError when Fabric would not compile it.
    """
    envelope = parse(policies_pb2.SignaturePolicyEnvelope, content, "SignaturePolicyEnvelope")
    if envelope.version != 0:
        raise ConfigurationError(f"signature policy of version {envelope.version}")
    principals = [Principal(p.principal_classification, p.principal) for p in envelope.identities]
    rules = 0

    def compiled(rule: policies_pb2.SignaturePolicy, depth: int) -> SignedBy | Threshold:
        nonlocal rules
        rules += 1
        if rules > limits.MAX_POLICY_RULES or depth > limits.MAX_POLICY_DEPTH:
            raise LimitExceededError("signature policy with too many rules, or nested too deep")
        kind = rule.WhichOneof("Type")
        if kind == "signed_by":
            if not 0 <= rule.signed_by < len(principals):
                raise ConfigurationError("signature policy that names a principal it does not have")
            return SignedBy(principals[rule.signed_by])
        if kind == "n_out_of":
            return Threshold(rule.n_out_of.n, tuple([compiled(part, depth + 1) for part in rule.n_out_of.rules]))
        raise ConfigurationError("signature policy with an empty rule")

    return compiled(envelope.rule, 0)


def verified_signatures(signed: Iterable[SignedData], msps: ChannelMsps) -> list[VerifiedSignature]:
    """Give the signatures that check out, each identity once.

    In Fabric's order: an identity that does not read is left out; one that is already in is left out before its
    signature is looked at; a wrong signature is left out and does not mark its identity as seen
    (`SignatureSetToValidIdentities`).
    """
    seen: set[tuple[str, str]] = set()
    found = []
    for position, claim in enumerate(signed):
        try:
            identity = msps.identity(decode_serialized_identity(claim.identity))
        except (DecodeError, IdentityError):
            continue
        key = (identity.msp_id, identity.identity_id)
        if key not in seen and identity.has_signed(claim.data, claim.signature):
            seen.add(key)
            found.append(VerifiedSignature(position, identity))
    return found


def is_satisfied(policy: Policy, identities: Sequence[Identity], msps: ChannelMsps) -> bool:
    """Tell whether these distinct identities, in this order, satisfy the policy.

    Greedy as in Fabric: a leaf takes the first identity that fits and is free; a gate tries *all* its rules, also
    when it has enough, and a rule that fails gives back what it took. So identities can be used up that a later leaf
    would have needed.
    """
    if isinstance(policy, ImplicitMetaPolicy):
        holding = sum(child is not None and is_satisfied(child, identities, msps) for child in policy.children)
        return 0 <= policy.needed <= holding
    return _take(policy, identities, frozenset(), msps) is not None


def _take(
    rule: SignedBy | Threshold, identities: Sequence[Identity], used: frozenset[int], msps: ChannelMsps
) -> frozenset[int] | None:
    """Give what is used up after the rule held; None when it does not hold."""
    if isinstance(rule, SignedBy):
        for index, identity in enumerate(identities):
            if index not in used and msps.satisfies_principal(identity, rule.principal):
                return used | {index}
        return None
    held = 0
    for part in rule.rules:
        after = _take(part, identities, used, msps)
        if after is not None:
            held, used = held + 1, after
    return used if held >= rule.needed else None


class ChannelPolicies:
    """Every policy of a configuration tree by its absolute path, such as "/Channel/Orderer/BlockValidation".

    Raises ConfigurationError when one of them could not be set up by Fabric: then it would refuse the whole
    configuration.
    """

    def __init__(self, root: ConfigGroup, msps: ChannelMsps) -> None:
        self._msps = msps
        self.by_path: Mapping[str, Policy] = {
            f"/Channel/{path}": policy for path, policy in _compiled_group("Channel", root).items()
        }
        self._remembered_verdict = lru_cache(limits.MAX_REMEMBERED_ANSWERS)(self._is_satisfied)

    def evaluate_signed_data(self, path: str, signed: Sequence[SignedData]) -> list[VerifiedSignature]:
        """Check that signatures satisfy the policy at `path`; give those that check out, in the order given.

        Raises PolicyError, naming the path and how many signatures counted, also when there is no such policy.
        """
        verified = verified_signatures(signed, self._msps)
        if not self._remembered_verdict(path, tuple([signature.identity for signature in verified])):
            raise PolicyError(f"{path}: not satisfied by {len(verified)} good of {len(signed)} signatures")
        return verified

    def refusal(self, path: str, identities: tuple[Identity, ...]) -> str | None:
        """Say, in Fabric's words, why distinct identities do not satisfy the policy at `path`; None: they do.

        `identities` have signed (`verified_signatures`). Raises PolicyError when there is no such policy.
        """
        if self._remembered_verdict(path, identities):
            return None
        policy = self._policy(path)
        if not isinstance(policy, ImplicitMetaPolicy):
            return "signature set did not satisfy policy"
        holding = sum(child is not None and is_satisfied(child, identities, self._msps) for child in policy.children)
        return (
            f"implicit policy evaluation failed - {holding} sub-policies were satisfied, but this policy requires "
            f"{policy.needed} of the '{policy.sub_policy}' sub-policies to be satisfied"
        )

    def _is_satisfied(self, path: str, identities: tuple[Identity, ...]) -> bool:
        return is_satisfied(self._policy(path), identities, self._msps)

    def _policy(self, path: str) -> Policy:
        policy = self.by_path.get(path)
        if policy is None:
            raise PolicyError(f"{path}: no such policy in the configuration")
        return policy


def _compiled_group(path: str, group: ConfigGroup) -> dict[str, Policy]:
    """Compile the policies of a group and below, by path relative to the group."""
    children = {name: _compiled_group(f"{path}/{name}", child) for name, child in group.groups.items()}
    policies: dict[str, Policy] = {}
    for name, policy in group.policies.items():
        try:
            policies[name] = _compiled_policy(policy, children, path)
        except LimitExceededError:
            raise
        except DecodeError as error:
            raise ConfigurationError(f"policy /{path}/{name}: {error}") from error
        except ConfigurationError as error:
            raise ConfigurationError(f"policy /{path}/{name}: {error}") from error
    for child_name, below in children.items():
        policies |= {f"{child_name}/{name}": policy for name, policy in below.items()}
    return policies


def _compiled_policy(policy: ConfigPolicy, children: Mapping[str, Mapping[str, Policy]], path: str) -> Policy:
    if policy.policy_type == TYPE_SIGNATURE:
        return decode_signature_policy(policy.value)
    if policy.policy_type != TYPE_IMPLICIT_META:
        raise ConfigurationError(f"type {policy.policy_type}, which does not exist")
    definition = parse(policies_pb2.ImplicitMetaPolicy, policy.value, "ImplicitMetaPolicy")
    count = len(children)
    needed = {_ANY: 1, _ALL: count, _MAJORITY: count // 2 + 1}.get(definition.rule, _NEVER) if count else 0
    return ImplicitMetaPolicy(
        needed,
        tuple([below.get(_name_below(definition.sub_policy, f"{path}/{name}")) for name, below in children.items()]),
        definition.sub_policy,
    )


def _name_below(name: str, path: str) -> str:
    """Give a policy's name relative to a group, of which the absolute form is also allowed (`policy.go` GetPolicy)."""
    absolute = f"/{path}"
    return name[len(absolute) + 1 :] if name.startswith(absolute) else name
