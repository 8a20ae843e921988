"""Messages as plain data, every layer opened: dictionaries by field name, texts, numbers.

Nothing is left out. Bytes that are known to hold a message are shown as it, and whether they are in its one form; other
bytes as text where they are one, otherwise in hex behind "0x", or escaped where texts are among them; beyond 4096
bytes, texts beyond 100,000, as their SHA-256.
"""

import re
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any, Final

from fabric_protos.common import common_pb2, configtx_pb2, configuration_pb2, policies_pb2
from fabric_protos.ledger.rwset import rwset_pb2
from fabric_protos.ledger.rwset.kvrwset import kv_rwset_pb2
from fabric_protos.msp import identities_pb2, msp_config_pb2, msp_principal_pb2
from fabric_protos.orderer import configuration_pb2 as orderer_pb2
from fabric_protos.orderer.etcdraft import configuration_pb2 as raft_pb2
from fabric_protos.orderer.etcdraft import metadata_pb2
from fabric_protos.peer import (
    chaincode_event_pb2,
    chaincode_pb2,
    policy_pb2,
    proposal_pb2,
    proposal_response_pb2,
    transaction_pb2,
)
from fabric_protos.peer import configuration_pb2 as peer_configuration_pb2
from google.protobuf.message import DecodeError

LONGEST: Final = 4096
LONGEST_TEXT: Final = 100_000
_READABLE: Final = re.compile(rb"[ -~]{24}")
_NANOSECONDS: Final = 1_000_000_000
ENDORSER_TRANSACTION: Final = 3
"""The header type whose data is a Transaction."""

NESTED: Final[Mapping[str, Any]] = {
    "Envelope.payload": common_pb2.Payload,
    "Header.channel_header": common_pb2.ChannelHeader,
    "Header.signature_header": common_pb2.SignatureHeader,
    "SignatureHeader.creator": identities_pb2.SerializedIdentity,
    "TransactionAction.header": common_pb2.SignatureHeader,
    "TransactionAction.payload": transaction_pb2.ChaincodeActionPayload,
    "ChaincodeActionPayload.chaincode_proposal_payload": proposal_pb2.ChaincodeProposalPayload,
    "ChaincodeProposalPayload.input": chaincode_pb2.ChaincodeInvocationSpec,
    "ChaincodeEndorsedAction.proposal_response_payload": proposal_response_pb2.ProposalResponsePayload,
    "ProposalResponsePayload.extension": proposal_pb2.ChaincodeAction,
    "ChaincodeAction.results": rwset_pb2.TxReadWriteSet,
    "ChaincodeAction.events": chaincode_event_pb2.ChaincodeEvent,
    "Endorsement.endorser": identities_pb2.SerializedIdentity,
    "NsReadWriteSet.rwset": kv_rwset_pb2.KVRWSet,
    "CollectionHashedReadWriteSet.hashed_rwset": kv_rwset_pb2.HashedRWSet,
    "CollectionPvtReadWriteSet.rwset": kv_rwset_pb2.KVRWSet,
    "MetadataSignature.signature_header": common_pb2.SignatureHeader,
    "ConfigSignature.signature_header": common_pb2.SignatureHeader,
    "ConfigUpdateEnvelope.config_update": configtx_pb2.ConfigUpdate,
    "MSPConfig.config": msp_config_pb2.FabricMSPConfig,
    "ConsensusType.metadata": raft_pb2.ConfigMetadata,
    "QueryChaincodeDefinitionResult.validation_parameter": policy_pb2.ApplicationPolicy,
}
CONFIG_VALUES: Final[Mapping[str, Any]] = {
    "ACLs": peer_configuration_pb2.ACLs,
    "AnchorPeers": peer_configuration_pb2.AnchorPeers,
    "BatchSize": orderer_pb2.BatchSize,
    "BatchTimeout": orderer_pb2.BatchTimeout,
    "BlockDataHashingStructure": configuration_pb2.BlockDataHashingStructure,
    "Capabilities": configuration_pb2.Capabilities,
    "ChannelRestrictions": orderer_pb2.ChannelRestrictions,
    "ConsensusType": orderer_pb2.ConsensusType,
    "Endpoints": configuration_pb2.OrdererAddresses,
    "HashingAlgorithm": configuration_pb2.HashingAlgorithm,
    "MSP": msp_config_pb2.MSPConfig,
    "OrdererAddresses": configuration_pb2.OrdererAddresses,
    "Orderers": configuration_pb2.Orderers,
}
_POLICIES: Final = {1: policies_pb2.SignaturePolicyEnvelope, 3: policies_pb2.ImplicitMetaPolicy}
_PRINCIPALS: Final = {
    0: msp_principal_pb2.MSPRole,
    1: msp_principal_pb2.OrganizationUnit,
    2: identities_pb2.SerializedIdentity,
}
SIGNATURES, LAST_CONFIG, FILTER, ORDERER, COMMIT_HASH = range(5)


def shown(message: Any) -> Any:
    """Give a message as plain data."""
    special = _SPECIAL.get(message.DESCRIPTOR.name)
    return _fields(message) if special is None else special(message)


def parsed(content: bytes, kind: Any) -> Any:
    """Give bytes that should be a message as that message; other bytes as bytes. Go writes maps in no order."""
    try:
        return shown(kind.FromString(content))
    except DecodeError:
        return shown_bytes(content)


def opened(content: bytes, kind: Any) -> Any:
    """As `parsed`, and tell of a message whose bytes are not in its one form."""
    try:
        message = kind.FromString(content)
    except DecodeError:
        return shown_bytes(content)
    if message.SerializeToString(deterministic=True) != content:
        return {"in another form": shown(message)}
    return shown(message)


def shown_bytes(content: bytes) -> str:
    """Give bytes as text: theirs, hex, or their digest."""
    try:
        text = content.decode()
    except UnicodeDecodeError:
        text = ""
    is_short = len(content) <= LONGEST_TEXT
    if text and is_short and not text.startswith(("0x", "sha256 ")) and all(map(_is_shown, text)):
        return text
    if len(content) > LONGEST:
        return f"sha256 0x{sha256(content).hexdigest()}"
    if _READABLE.search(content):
        return "".join(
            chr(byte) if " " <= chr(byte) <= "~" and byte != ord("\\") else f"\\x{byte:02x}" for byte in content
        )
    return f"0x{content.hex()}"


def _is_shown(char: str) -> bool:
    return char != "\\" and (char.isprintable() or char in "\n\t\0\U0010ffff")


def shown_block(block: Any) -> dict[str, Any]:
    """Give a block with its metadata; the digests of its header are hex."""
    return {"header": _fields(block.header), "data": _envelopes(block.data.data), "metadata": _metadata(block.metadata)}


def _envelopes(contents: Any) -> list[Any]:
    return [opened(content, common_pb2.Envelope) for content in contents]


def _metadata(metadata: Any) -> dict[str, Any]:
    slots = list(metadata.metadata)
    if len(slots) <= FILTER:
        return {"slots": [shown_bytes(slot) for slot in slots]}
    signatures = common_pb2.Metadata.FromString(slots[SIGNATURES])
    found = {
        "signatures": {
            **_fields(signatures),
            "value": _orderer_metadata(signatures.value),
        },
        "last config": slots[LAST_CONFIG].hex(),
        "codes": list(slots[FILTER]),
    }
    if len(slots) > ORDERER:
        found["orderer"] = _raft_metadata(slots[ORDERER])
    if len(slots) > COMMIT_HASH:
        commit_hash = common_pb2.Metadata.FromString(slots[COMMIT_HASH])
        found["commit hash"] = {**_fields(commit_hash), "value": f"0x{commit_hash.value.hex()}"}
    return found | {"slots": len(slots)}


def _orderer_metadata(content: bytes) -> Any:
    message = common_pb2.OrdererBlockMetadata.FromString(content)
    return {**_fields(message), "consenter_metadata": _raft_metadata(message.consenter_metadata)}


def _raft_metadata(content: bytes) -> Any:
    message = common_pb2.Metadata.FromString(content)
    return {**_fields(message), "value": opened(message.value, metadata_pb2.BlockMetadata)}


def _fields(message: Any) -> dict[str, Any]:
    name = message.DESCRIPTOR.name
    return {field.name: _field(f"{name}.{field.name}", field, value) for field, value in message.ListFields()}


def _field(path: str, field: Any, value: Any) -> Any:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return {str(key): _value(path, value[key]) for key in sorted(value)}
    if field.label == field.LABEL_REPEATED:
        return [_value(path, element) for element in value]
    return _value(path, value)


def _value(path: str, value: Any) -> Any:
    if isinstance(value, bytes):
        kind = NESTED.get(path)
        return shown_bytes(value) if kind is None else opened(value, kind)
    return shown(value) if hasattr(value, "DESCRIPTOR") else value


def _timestamp(message: Any) -> str:
    return str(message.seconds * _NANOSECONDS + message.nanos)


def _payload(message: Any) -> Any:
    header = common_pb2.ChannelHeader.FromString(message.header.channel_header)
    kinds: dict[int, Any] = {
        1: configtx_pb2.ConfigEnvelope,
        2: configtx_pb2.ConfigUpdateEnvelope,
    }
    if (kind := kinds.get(header.type)) is not None:
        data = parsed(message.data, kind)
    else:
        data = opened(message.data, transaction_pb2.Transaction)
    return {"header": shown(message.header), "data": data}


def _channel_header(message: Any) -> Any:
    found = _fields(message)
    if message.type == ENDORSER_TRANSACTION:
        found["extension"] = opened(message.extension, proposal_pb2.ChaincodeHeaderExtension)
    return found


def _addressed(message: Any) -> Any:
    """Show host and port as other messages hold them."""
    found = _fields(message)
    host, port = found.pop("host", ""), found.pop("port", 0)
    return {"address": f"{host}:{port}", **found}


def _config_group(message: Any) -> Any:
    found = _fields(message)
    for name, value in message.values.items():
        if (kind := CONFIG_VALUES.get(name)) is not None:
            found["values"][name]["value"] = opened(value.value, kind)
    return found


def _policy(message: Any) -> Any:
    found = _fields(message)
    if (kind := _POLICIES.get(message.type)) is not None:
        found["value"] = opened(message.value, kind)
    return found


def _principal(message: Any) -> Any:
    found = _fields(message)
    if (kind := _PRINCIPALS.get(message.principal_classification)) is not None:
        found["principal"] = opened(message.principal, kind)
    return found


_SPECIAL: Final[Mapping[str, Callable[[Any], Any]]] = {
    "AnchorPeer": _addressed,
    "Block": shown_block,
    "ChannelHeader": _channel_header,
    "ConfigGroup": _config_group,
    "Consenter": _addressed,
    "MSPPrincipal": _principal,
    "Payload": _payload,
    "Policy": _policy,
    "Timestamp": _timestamp,
}
