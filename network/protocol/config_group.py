"""The tree of a channel configuration: groups, and the values and policies in them.

Messages: `common/configtx.proto`. Rules: `common/configtx/{validator,configmap}.go` (names, paths).

A group of an *update* may have gaps that a group in force may not: where nothing changes there is a version alone.
"""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from fabric_protos.common import configtx_pb2, policies_pb2

from network.protocol import limits
from network.protocol.errors import ConfigurationError, LimitExceededError

MAX_NAME_CHARACTERS: Final = 249
CONFIGURATION_NAME = re.compile(r"[a-zA-Z0-9.-]+")
ROOT: Final = "Channel"


class ConfigValue(NamedTuple):
    """A value of a group: raw bytes of the message that its key stands for."""

    version: int
    value: bytes
    mod_policy: str


class ConfigPolicy(NamedTuple):
    """A policy of a group; `value` reads by `policy_type` (1 signature policy, 3 implicit meta policy)."""

    version: int
    policy_type: int
    value: bytes
    mod_policy: str


class ConfigGroup(NamedTuple):
    """A group of the configuration tree."""

    version: int
    groups: Mapping[str, "ConfigGroup"]
    values: Mapping[str, ConfigValue]
    policies: Mapping[str, ConfigPolicy]
    mod_policy: str


def config_group(
    version: int = 0,
    *,
    groups: Mapping[str, ConfigGroup] | None = None,
    values: Mapping[str, ConfigValue] | None = None,
    policies: Mapping[str, ConfigPolicy] | None = None,
    mod_policy: str = "",
) -> ConfigGroup:
    """Make a group that nobody can change."""
    return ConfigGroup(
        version,
        MappingProxyType(dict(groups or {})),
        MappingProxyType(dict(values or {})),
        MappingProxyType(dict(policies or {})),
        mod_policy,
    )


def is_name(text: str) -> bool:
    """Tell whether a text can be the key of an element, or a step of a policy's path."""
    return len(text) <= MAX_NAME_CHARACTERS and text not in (".", "..") and bool(CONFIGURATION_NAME.fullmatch(text))


def decode_group(
    message: configtx_pb2.ConfigGroup, path: str, *, is_update: bool = False, depth: int = 0
) -> ConfigGroup:
    """Read a group and all below it; `path` names it in errors, `is_update`: policies may be empty.

    Raises LimitExceededError beyond our limits of depth, ConfigurationError for keys that are no names and for empty
    policies.
    """
    deepest = limits.MAX_UPDATE_GROUP_DEPTH if is_update else limits.MAX_GROUP_DEPTH
    if depth > deepest:
        raise LimitExceededError(f"configuration groups nested more than {deepest} deep")
    for names in (message.groups, message.values, message.policies):
        if not all(is_name(name) for name in names):
            raise ConfigurationError(f"{path}: a key that is no name")
    for name, policy in message.policies.items():
        if not is_update and not policy.HasField("policy"):
            raise ConfigurationError(f"{path}: policy {name} is empty")
    return config_group(
        message.version,
        groups={
            name: decode_group(child, f"{path}/{name}", is_update=is_update, depth=depth + 1)
            for name, child in message.groups.items()
        },
        values={
            name: ConfigValue(value.version, value.value, value.mod_policy) for name, value in message.values.items()
        },
        policies={
            name: ConfigPolicy(policy.version, policy.policy.type, policy.policy.value, policy.mod_policy)
            for name, policy in message.policies.items()
        },
        mod_policy=message.mod_policy,
    )


def encode_group(group: ConfigGroup, *, is_update: bool = False) -> configtx_pb2.ConfigGroup:
    """Give the message of a group; in an update a policy without a type is written as a version alone."""
    return configtx_pb2.ConfigGroup(
        version=group.version,
        groups={name: encode_group(child, is_update=is_update) for name, child in group.groups.items()},
        values={
            name: configtx_pb2.ConfigValue(version=value.version, value=value.value, mod_policy=value.mod_policy)
            for name, value in group.values.items()
        },
        policies={name: _policy_message(policy, is_update=is_update) for name, policy in group.policies.items()},
        mod_policy=group.mod_policy,
    )


def _policy_message(policy: ConfigPolicy, *, is_update: bool) -> configtx_pb2.ConfigPolicy:
    message = configtx_pb2.ConfigPolicy(version=policy.version, mod_policy=policy.mod_policy)
    if policy.policy_type or policy.value or not is_update:
        message.policy.CopyFrom(policies_pb2.Policy(type=policy.policy_type, value=policy.value))
    return message
