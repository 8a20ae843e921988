"""A configuration as a JSON document that people edit: the form of Fabric's `configtxlator`, nested messages opened.

What a value's bytes say is shown by name, so that it can be edited; bytes that no message says to the last bit are
shown as {"raw": base64} and stay as they are. Bytes in messages, certificates above all, are base64.

Sources: `common/channelconfig/*.go` and protolator in Fabric's tools (which key is which message).
"""

import json
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from fabric_protos.common import configuration_pb2, policies_pb2
from fabric_protos.msp import identities_pb2, msp_config_pb2, msp_principal_pb2
from fabric_protos.orderer import configuration_pb2 as orderer_pb2
from fabric_protos.orderer.etcdraft import configuration_pb2 as raft_pb2
from fabric_protos.orderer.smartbft import configuration_pb2 as smartbft_pb2
from fabric_protos.peer import configuration_pb2 as peer_configuration_pb2
from google.protobuf import json_format
from google.protobuf.message import Message

from network.errors import UpdateFileError
from network.protocol import limits
from network.protocol.config_group import ConfigGroup, ConfigPolicy, ConfigValue, config_group, is_name
from network.protocol.errors import DecodeError
from network.protocol.policy import TYPE_IMPLICIT_META, TYPE_SIGNATURE
from network.protocol.wire import parse

MAX_DOCUMENT_BYTES: Final = 32 * 1024 * 1024
LARGEST_VERSION: Final = 2**64 - 1

_VALUES: Final[Mapping[str, type[Message]]] = {
    "ACLs": peer_configuration_pb2.ACLs,
    "AnchorPeers": peer_configuration_pb2.AnchorPeers,
    "BatchSize": orderer_pb2.BatchSize,
    "BatchTimeout": orderer_pb2.BatchTimeout,
    "BlockDataHashingStructure": configuration_pb2.BlockDataHashingStructure,
    "Capabilities": configuration_pb2.Capabilities,
    "ChannelRestrictions": orderer_pb2.ChannelRestrictions,
    "ConsensusType": orderer_pb2.ConsensusType,
    "Consortium": configuration_pb2.Consortium,
    "Endpoints": configuration_pb2.OrdererAddresses,
    "HashingAlgorithm": configuration_pb2.HashingAlgorithm,
    "MSP": msp_config_pb2.MSPConfig,
    "OrdererAddresses": configuration_pb2.OrdererAddresses,
    "Orderers": configuration_pb2.Orderers,
}
_POLICIES: Final[Mapping[int, type[Message]]] = {
    TYPE_SIGNATURE: policies_pb2.SignaturePolicyEnvelope,
    TYPE_IMPLICIT_META: policies_pb2.ImplicitMetaPolicy,
}
_PRINCIPALS: Final[Mapping[str, type[Message]]] = {
    "ROLE": msp_principal_pb2.MSPRole,
    "ORGANIZATION_UNIT": msp_principal_pb2.OrganizationUnit,
    "IDENTITY": identities_pb2.SerializedIdentity,
}
_CONSENSUS: Final[Mapping[str, type[Message]]] = {
    "etcdraft": raft_pb2.ConfigMetadata,
    "BFT": smartbft_pb2.Options,
}
_MSPS: Final[Mapping[int, type[Message]]] = {0: msp_config_pb2.FabricMSPConfig}
_RAW: Final = "raw"


class ConfigDocument(NamedTuple):
    """A configuration read from a document."""

    sequence: int
    root: ConfigGroup


# --- writing


def write_document(sequence: int, root: ConfigGroup) -> str:
    """Give the document of a configuration; it ends with a newline."""
    content = {"channel_group": group_fields(root), "sequence": str(sequence)}
    return json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def group_fields(group: ConfigGroup) -> dict[str, Any]:
    """Give a group as the document holds it."""
    return {
        "groups": {name: group_fields(child) for name, child in group.groups.items()},
        "mod_policy": group.mod_policy,
        "policies": {
            name: {
                "mod_policy": policy.mod_policy,
                "policy": {"type": policy.policy_type, "value": policy_fields(policy)},
                "version": str(policy.version),
            }
            for name, policy in group.policies.items()
        },
        "values": {
            name: {
                "mod_policy": value.mod_policy,
                "value": value_fields(name, value.value),
                "version": str(value.version),
            }
            for name, value in group.values.items()
        },
        "version": str(group.version),
    }


def value_fields(name: str, content: bytes) -> dict[str, Any]:
    """Give a value as the document holds it."""
    kind = _VALUES.get(name)
    return _raw(content) if kind is None else _faithful(content, kind, _opened_value)


def policy_fields(policy: ConfigPolicy) -> dict[str, Any]:
    """Give what a policy says as the document holds it."""
    kind = _POLICIES.get(policy.policy_type)
    return _raw(policy.value) if kind is None else _faithful(policy.value, kind, _opened_policy)


def _raw(content: bytes) -> dict[str, Any]:
    return {_RAW: b64encode(content).decode()}


def _faithful(content: bytes, kind: type[Message], opened: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Show a message if what is shown says the same as the bytes do."""
    try:
        message = parse(kind, content, kind.__name__)
        fields = _fields(message)
        opened(fields)
        again = _read_message(fields, kind, "")
    except (DecodeError, UpdateFileError):
        return _raw(content)
    # Maps have no order, so equal messages may differ in bytes, but not in how many; unknown fields add to them.
    is_whole = again == message and len(again.SerializeToString()) == len(content)
    return fields if is_whole else _raw(content)


def _fields(message: Message) -> dict[str, Any]:
    found: dict[str, Any] = json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return found


def _open(fields: dict[str, Any], name: str, kind: type[Message] | None) -> dict[str, Any] | None:
    """Show the message in a field of bytes; give its fields, None where it is of no known kind."""
    if kind is None:
        return None
    message = parse(kind, b64decode(fields[name]), kind.__name__)
    fields[name] = _fields(message)
    opened: dict[str, Any] = fields[name]
    return opened


def _opened_value(fields: dict[str, Any]) -> None:
    if "config" in fields and "type" in fields:  # MSPConfig
        _open(fields, "config", _MSPS.get(fields["type"]))
    elif "metadata" in fields:  # ConsensusType
        _open(fields, "metadata", _CONSENSUS.get(fields["type"]))


def _opened_policy(fields: dict[str, Any]) -> None:
    for principal in fields.get("identities", ()):
        _open(principal, "principal", _PRINCIPALS.get(principal["principal_classification"]))


# --- reading


def read_document(content: bytes, place: str) -> ConfigDocument:
    """Read a document; `place` names it in errors. Raises UpdateFileError with the place in the document."""
    if len(content) > MAX_DOCUMENT_BYTES:
        raise UpdateFileError(f"{place}: larger than {MAX_DOCUMENT_BYTES} bytes")
    try:
        document: Any = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UpdateFileError(f"{place}: not JSON") from error
    fields = _mapping(document, place)
    if not isinstance(fields.get("channel_group"), dict):
        raise UpdateFileError(f"{place}: no channel_group: it is no configuration")
    sequence = _number(fields.get("sequence", "0"), f"{place}: sequence")
    return ConfigDocument(sequence, _read_group(fields["channel_group"], f"{place}: /Channel", 0))


def _read_group(value: object, place: str, depth: int) -> ConfigGroup:
    if depth > limits.MAX_GROUP_DEPTH:
        raise UpdateFileError(f"{place}: nested too deep")
    fields = _mapping(value, place)
    _check_fields(fields, ("groups", "mod_policy", "policies", "values", "version"), place)
    return config_group(
        _number(fields.get("version", "0"), f"{place}: version"),
        groups={
            name: _read_group(child, f"{place}/{name}", depth + 1)
            for name, child in _members(fields.get("groups"), f"{place}: groups").items()
        },
        values={
            name: _read_value(name, value, f"{place}/{name}")
            for name, value in _members(fields.get("values"), f"{place}: values").items()
        },
        policies={
            name: _read_policy(policy, f"{place}/{name}")
            for name, policy in _members(fields.get("policies"), f"{place}: policies").items()
        },
        mod_policy=_text(fields.get("mod_policy", ""), f"{place}: mod_policy"),
    )


def _read_value(name: str, value: object, place: str) -> ConfigValue:
    fields = _mapping(value, place)
    _check_fields(fields, ("mod_policy", "value", "version"), place)
    content = _read_content(fields.get("value", {}), _VALUES.get(name), place)
    version = _number(fields.get("version", "0"), f"{place}: version")
    return ConfigValue(version, content, _text(fields.get("mod_policy", ""), f"{place}: mod_policy"))


def _read_policy(value: object, place: str) -> ConfigPolicy:
    fields = _mapping(value, place)
    _check_fields(fields, ("mod_policy", "policy", "version"), place)
    policy = _mapping(fields.get("policy"), f"{place}: policy")
    _check_fields(policy, ("type", "value"), f"{place}: policy")
    kind = _number(policy.get("type", 0), f"{place}: type")
    content = _read_content(policy.get("value", {}), _POLICIES.get(kind), place)
    version = _number(fields.get("version", "0"), f"{place}: version")
    return ConfigPolicy(version, kind, content, _text(fields.get("mod_policy", ""), f"{place}: mod_policy"))


def _read_content(value: object, kind: type[Message] | None, place: str) -> bytes:
    fields = _mapping({} if value is None else value, place)  # null is what Fabric's tools write for an empty message
    if set(fields) == {_RAW}:
        return _bytes(fields[_RAW], f"{place}: raw")
    if kind is None:
        raise UpdateFileError(f'{place}: of no known kind; it reads as {{"raw": base64}} only')
    return bytes(_read_message(fields, kind, place).SerializeToString(deterministic=True))


def _read_message(fields: dict[str, Any], kind: type[Message], place: str) -> Message:
    closed = _closed(fields, kind, place)
    try:
        return json_format.ParseDict(closed, kind())
    except (json_format.ParseError, ValueError, TypeError, RecursionError, AttributeError) as error:
        raise UpdateFileError(f"{place}: no {kind.__name__}: {str(error)[:200]}") from error


def _closed(fields: dict[str, Any], kind: type[Message], place: str) -> dict[str, Any]:
    """Put messages that were opened back into their fields of bytes."""
    if kind is msp_config_pb2.MSPConfig:
        msp_type = fields.get("type", 0)
        return _close(fields, "config", _MSPS.get(msp_type) if isinstance(msp_type, int) else None, place)
    if kind is orderer_pb2.ConsensusType:
        return _close(fields, "metadata", _CONSENSUS.get(str(fields.get("type"))), place)
    if kind is policies_pb2.SignaturePolicyEnvelope and isinstance(fields.get("identities"), list):
        identities = [
            _close(it, "principal", _PRINCIPALS.get(str(it.get("principal_classification"))), place)
            for it in (_mapping(identity, f"{place}: identities") for identity in fields["identities"])
        ]
        return {**fields, "identities": identities}
    return fields


def _close(fields: dict[str, Any], name: str, kind: type[Message] | None, place: str) -> dict[str, Any]:
    if kind is None or not isinstance(fields.get(name), dict):
        return fields
    content = _read_message(fields[name], kind, f"{place}: {name}").SerializeToString(deterministic=True)
    return {**fields, name: b64encode(content).decode()}


def _mapping(value: object, place: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UpdateFileError(f"{place}: no object")
    return value


def _members(value: object, place: str) -> dict[str, Any]:
    members = _mapping({} if value is None else value, place)
    for name in members:
        if not is_name(name):
            raise UpdateFileError(f"{place}: {name[:249]!r} is no name: letters, digits, '.' and '-'")
    return members


def _check_fields(fields: Mapping[str, Any], known: tuple[str, ...], place: str) -> None:
    for name in fields:
        if name not in known:
            raise UpdateFileError(f"{place}: unknown field {name[:100]!r}")


def _number(value: object, place: str) -> int:
    """Read a number that 64 bits hold; JSON of Fabric's tools has them as text."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= len(str(LARGEST_VERSION)):
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= LARGEST_VERSION:
        raise UpdateFileError(f"{place}: no whole number")
    return value


def _text(value: object, place: str) -> str:
    if not isinstance(value, str):
        raise UpdateFileError(f"{place}: no text")
    return value


def _bytes(value: object, place: str) -> bytes:
    try:
        return b64decode(_text(value, place), validate=True)
    except ValueError as error:
        raise UpdateFileError(f"{place}: not base64") from error
