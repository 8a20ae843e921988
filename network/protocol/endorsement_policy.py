"""Endorsement policies: which policy rules a write, and whether the endorsements of a transaction satisfy it.

Messages: `peer/policy.proto`. Rules: `core/policy/application.go`,
`core/common/validation/statebased/{validator_keylevel,v20,vpmanagerimpl}.go`,
`core/chaincode/lifecycle/{lifecycle,deployedcc_infoprovider}.go`.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import Final, NamedTuple

from fabric_protos.common import policies_pb2
from fabric_protos.peer import policy_pb2

from network.protocol import limits
from network.protocol.block_signature import ChannelTrust
from network.protocol.collection import implicit_collection_owner, members_policy, role_policy
from network.protocol.commit_hash import StateKey
from network.protocol.configuration import ChannelConfiguration, decode_config_envelope
from network.protocol.errors import ConfigurationError, DecodeError
from network.protocol.identity import Identity
from network.protocol.lifecycle import (
    DEFAULT_VALIDATION_PLUGIN,
    LIFECYCLE_POLICY,
    ChaincodeDefinition,
    policy_reference,
    signature_policy,
)
from network.protocol.msp import TYPE_FABRIC, MspDefinition, Role, definition_name
from network.protocol.policy import Policy, decode_signature_policy, is_satisfied
from network.protocol.private_data import LIFECYCLE_NAMESPACE
from network.protocol.read_write_set import NamespaceSet
from network.protocol.state import BlockState
from network.protocol.wire import parse

VALIDATION_PARAMETER: Final = "VALIDATION_PARAMETER"
"""Name of the metadata entry of a key that holds the key's own endorsement policy, a SignaturePolicyEnvelope."""


@lru_cache(limits.MAX_REMEMBERED_CONFIGURATIONS)
def channel_rules(channel_id: str, config: bytes) -> "ChannelRules":
    """Make a configuration (ConfigEnvelope) ready to judge by, once for all who ask in this process.

    Rules never change, but for what they remember of their own answers, so peers may share them. Raises as
    `decode_config_envelope` and `ChannelRules`.
    """
    return ChannelRules(channel_id, decode_config_envelope(config))


class ChannelRules:
    """A configuration made ready to judge transactions of one channel, with what evaluating remembers.

    Raises as `block_signature.ChannelTrust`.
    """

    def __init__(self, channel_id: str, configuration: ChannelConfiguration) -> None:
        self.channel_id = channel_id
        self.configuration = configuration
        self.trust = ChannelTrust(configuration)
        self.msps = self.trust.msps
        self._groups: dict[str, str] = {}
        for name, organization in configuration.application_organizations.items():
            if organization.msp.msp_type == TYPE_FABRIC:
                self._groups.setdefault(_msp_id(organization.msp), name)
        self._remembered_policy = lru_cache(limits.MAX_REMEMBERED_ANSWERS)(self._policy)
        self._remembered_verdict = lru_cache(limits.MAX_REMEMBERED_ANSWERS)(self._is_satisfied)

    @property
    def application_msp_ids(self) -> tuple[str, ...]:
        """MSP IDs of the organisations that run peers in the channel."""
        return tuple(self._groups)

    def lifecycle_policy(self) -> bytes:
        """Give the policy (ApplicationPolicy) of writes to `_lifecycle`.

        Where the channel has none of its own: a member of each of more than half of the organisations.
        """
        if LIFECYCLE_POLICY in self.trust.policies.by_path:
            return policy_reference(LIFECYCLE_POLICY)
        msp_ids = self.application_msp_ids
        return signature_policy(role_policy(len(msp_ids) // 2 + 1, Role.MEMBER, msp_ids))

    def chaincode_policy(self, chaincode: str, definition: ChaincodeDefinition | None) -> bytes | None:
        """Give the policy of a chaincode's public state, None when nothing can be valid in that namespace.

        That is so without a definition, or when it names no plugin, another plugin than `vscc` or no policy. (With
        another plugin a real peer that does not have it stops.)
        """
        if chaincode == LIFECYCLE_NAMESPACE:
            return self.lifecycle_policy()
        if definition is None or definition.validation_plugin != DEFAULT_VALIDATION_PLUGIN:
            return None
        return definition.validation_parameter or None

    def collection_policy(self, collection: str, definition: ChaincodeDefinition | None, chaincode: bytes) -> bytes:
        """Give the policy of a collection; `chaincode` is that of the chaincode itself, for collections without own.

        Raises ConfigurationError when there is no such collection, or no such organisation behind an implicit one.
        """
        msp_id = implicit_collection_owner(collection)
        if msp_id is not None:
            group = self._groups.get(msp_id)
            if group is None:
                raise ConfigurationError(f"no org found in channel with MSPID '{msp_id}'")
            path = f"/Channel/Application/{group}/Endorsement"
            if path in self.trust.policies.by_path:
                return policy_reference(path)
            return signature_policy(members_policy(msp_id))
        for config in () if definition is None else definition.collection_configs():
            if config.name == collection:
                return chaincode if config.endorsement_policy is None else config.endorsement_policy
        raise ConfigurationError(f"no such collection '{collection}'")

    def is_satisfied(self, policy: bytes, identities: tuple[Identity, ...]) -> bool:
        """Tell whether verified, distinct identities, in the order of their endorsements, satisfy a policy.

        `policy`: ApplicationPolicy bytes. One that cannot be read, or refers to nothing, is never satisfied.
        """
        large = len(policy) > limits.MAX_REMEMBERED_IDENTITY_BYTES
        return (self._is_satisfied if large else self._remembered_verdict)(policy, identities)

    def _is_satisfied(self, policy: bytes, identities: tuple[Identity, ...]) -> bool:
        compiled = self.policy(policy)
        return compiled is not None and is_satisfied(compiled, identities, self.msps)

    def policy(self, content: bytes) -> Policy | None:
        """Compile a policy (ApplicationPolicy bytes), None for one that cannot be read or refers to nothing."""
        large = len(content) > limits.MAX_REMEMBERED_IDENTITY_BYTES
        return (self._policy if large else self._remembered_policy)(content)

    def _policy(self, content: bytes) -> Policy | None:
        try:
            message = parse(policy_pb2.ApplicationPolicy, content, "ApplicationPolicy")
            kind = message.WhichOneof("Type")
            if kind == "signature_policy":
                return decode_signature_policy(message.signature_policy.SerializeToString())
        except (DecodeError, ConfigurationError):
            return None
        if kind != "channel_config_policy_reference":
            return None
        path: str = message.channel_config_policy_reference
        return self.trust.policies.by_path.get(path if path.startswith("/") else f"/Channel/{path}")


def _msp_id(definition: MspDefinition) -> str:
    try:
        return definition_name(definition)
    except DecodeError as error:
        raise ConfigurationError(str(error)) from error


class NamespaceRules:
    """What rules the writes of one namespace in one block, as committed before it."""

    def __init__(self, namespace: str, definition: ChaincodeDefinition | None, rules: ChannelRules) -> None:
        self.namespace = namespace
        self.definition = definition
        self.policy = rules.chaincode_policy(namespace, definition)
        self._rules = rules
        self._collections: dict[str, bytes] = {}

    def collection_policy(self, collection: str) -> bytes:
        """Give the policy of a collection; raises ConfigurationError when there is none."""
        found = self._collections.get(collection)
        if found is None:
            found = self._rules.collection_policy(collection, self.definition, self.policy or b"")
            self._collections[collection] = found
        return found


class EndorsementDefect(NamedTuple):
    """Why endorsements do not suffice; `has_no_verdict`: Fabric gives no code for this."""

    reason: str
    has_no_verdict: bool = False


class EndorsementCheck:
    """The endorsement policies of one block, transaction by transaction in the block's order.

    A key whose metadata an earlier transaction of the block changed, and was endorsed to, cannot be written again in
    the block: nobody knows yet which policy will rule it.
    """

    def __init__(self, rules: ChannelRules, state: BlockState) -> None:
        self._rules = rules
        self._state = state
        self._changed: set[StateKey] = set()

    def defect(
        self, namespace: NamespaceRules, entry: NamespaceSet | None, identities: tuple[Identity, ...]
    ) -> EndorsementDefect | None:
        """Say why these endorsers do not suffice for what a transaction does to one namespace, None when they do.

        `entry`: its part of the read-write set, None when it has none. `identities`: as `ChannelRules.is_satisfied`.
        """
        defect = self._defect(namespace, entry, identities)
        if defect is None and entry is not None:
            self._changed.update(key for key, is_metadata in _written_keys(entry) if is_metadata)
        return defect

    def _defect(
        self, namespace: NamespaceRules, entry: NamespaceSet | None, identities: tuple[Identity, ...]
    ) -> EndorsementDefect | None:
        policy = namespace.policy
        if policy is None:
            return EndorsementDefect(f"no policy for chaincode {namespace.namespace}")
        evaluated: set[str] = set()
        has_evaluated = False
        for key, _ in () if entry is None else _written_keys(entry):
            if key in self._changed:
                return EndorsementDefect("the policy of a key was changed earlier in this block")
            collection = key[1]
            try:
                own = self._key_policy(key)
                if own is None and collection in evaluated:
                    continue
                needed = own or (namespace.collection_policy(collection) if collection else policy)
            except (DecodeError, ConfigurationError) as error:
                return EndorsementDefect(str(error), has_no_verdict=isinstance(error, DecodeError))
            if not self._rules.is_satisfied(needed, identities):
                return _unsatisfied(namespace.namespace, collection, is_key=own is not None)
            has_evaluated = True
            if own is None:
                evaluated.add(collection)
        if not has_evaluated and not self._rules.is_satisfied(policy, identities):
            return _unsatisfied(namespace.namespace, "", is_key=False)
        return None

    def _key_policy(self, key: StateKey) -> bytes | None:
        """Give a key's own policy as an ApplicationPolicy; raises DecodeError for what no peer could go on with."""
        found = self._state.committed(key)
        if found is None or not found.metadata:
            return None
        own = dict(found.metadata).get(VALIDATION_PARAMETER)
        if not own:
            return None
        parse(policies_pb2.SignaturePolicyEnvelope, own, "SignaturePolicyEnvelope of a key")
        return signature_policy(own)


def _written_keys(entry: NamespaceSet) -> Iterator[tuple[StateKey, bool]]:
    """Give the keys of a namespace that are written, in the order in which policies are looked for."""
    namespace = entry.namespace
    for write in entry.writes:
        yield (namespace, "", write.key.encode()), False
    for change in entry.metadata_writes:
        yield (namespace, "", change.key.encode()), True
    for part in entry.collections:
        for hashed in part.writes:
            yield (namespace, part.collection, hashed.key_hash), False
    for part in entry.collections:
        for hashed_change in part.metadata_writes:
            yield (namespace, part.collection, hashed_change.key_hash), True


def _unsatisfied(namespace: str, collection: str, *, is_key: bool) -> EndorsementDefect:
    place = f"collection {collection} of chaincode {namespace}" if collection else f"chaincode {namespace}"
    return EndorsementDefect(f"endorsements do not satisfy the policy of {'a key in ' if is_key else ''}{place}")
