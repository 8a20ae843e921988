"""Chaincode definitions: how `_lifecycle` keeps them, how organisations approve them, what may be committed.

Messages: `peer/lifecycle/{db,chaincode_definition}.proto`. Rules and texts: `core/chaincode/lifecycle/{serializer,
lifecycle,scc}.go`. Every record is a metadata key that lists the record's fields, and one key for each field; only
keys whose bytes change are written. Organisations approve by writing the same record, without its sequence, to their
implicit collection under the name `<chaincode>#<sequence>`; others compare hashes, so encoding is byte for byte.

Readers are functions from key to value, so that whoever calls decides what is recorded of the reads: over the public
namespace `_lifecycle`, over one implicit collection of it, or over that collection's value hashes.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Final, NamedTuple, TypeVar

from fabric_protos.peer import collection_pb2, policy_pb2
from fabric_protos.peer.lifecycle import chaincode_definition_pb2, db_pb2

from network.protocol.collection import CollectionConfig, check_collections, decode_collections
from network.protocol.errors import DecodeError, DefinitionError, NotDefinedError
from network.protocol.msp import ChannelMsps
from network.protocol.wire import parse, varint

DEFAULT_ENDORSEMENT_PLUGIN: Final = "escc"
DEFAULT_VALIDATION_PLUGIN: Final = "vscc"
DEFAULT_POLICY: Final = "/Channel/Application/Endorsement"
LIFECYCLE_POLICY: Final = "/Channel/Application/LifecycleEndorsement"

MAX_SEQUENCE: Final = 2**63 - 1

_NAMESPACES: Final = "namespaces"
_SOURCES: Final = "chaincode-sources"
_DEFINITION: Final = "ChaincodeDefinition"
_PARAMETERS: Final = "ChaincodeParameters"
_LOCAL_PACKAGE: Final = "ChaincodeLocalPackage"

CHAINCODE_NAME = re.compile(r"[a-zA-Z0-9]+([-_][a-zA-Z0-9]+)*")
CHAINCODE_VERSION = re.compile(r"[A-Za-z0-9_.+-]+")
SYSTEM_CHAINCODES: Final = frozenset(("cscc", "escc", "lscc", "qscc", "vscc"))
_METADATA_PREFIX: Final = f"{_NAMESPACES}/metadata/"
_FIELD_PREFIX: Final = f"{_NAMESPACES}/fields/"

T = TypeVar("T", int, bytes, str)

Reader = Callable[[str], bytes | None]
"""Gives the value of a key, or the SHA-256 of its value where that is asked for; None: there is no such key."""

Writes = dict[str, bytes | None]
"""Keys to write with their new values, in no order that matters; None: delete."""


@dataclass(frozen=True, slots=True)
class ChaincodeDefinition:
    """What the organisations of a channel agree on about a chaincode.

    `validation_parameter`: ApplicationPolicy bytes (`signature_policy`, `policy_reference`). `collections`:
    CollectionConfigPackage bytes, empty for none. Both are compared as bytes: two policies that mean the same but are
    written differently are two different definitions. Empty plugins and an empty parameter ask for the channel's
    defaults (`with_defaults`).
    """

    sequence: int
    version: str
    validation_parameter: bytes = b""
    collections: bytes = b""
    init_required: bool = False
    endorsement_plugin: str = ""
    validation_plugin: str = ""

    def collection_configs(self) -> tuple[CollectionConfig, ...]:
        """Read the explicit collections; raises DecodeError."""
        return decode_collections(self.collections)


class Approval(NamedTuple):
    """What an organisation approved; `package_id` "" : it approves, but cannot run the chaincode itself."""

    definition: ChaincodeDefinition
    package_id: str


def signature_policy(envelope: bytes) -> bytes:
    """Write the ApplicationPolicy that is a signature policy, from its SignaturePolicyEnvelope bytes."""
    # Embedded as it stands: reading and writing it again could change bytes that organisations compare.
    return b"\x0a" + varint(len(envelope)) + envelope


def policy_reference(path: str) -> bytes:
    """Write the ApplicationPolicy that refers to a policy of the channel, such as DEFAULT_POLICY."""
    return bytes(policy_pb2.ApplicationPolicy(channel_config_policy_reference=path).SerializeToString())


def with_defaults(definition: ChaincodeDefinition) -> ChaincodeDefinition:
    """Fill in what is left empty, in the order and with the values of Fabric's own defaults.

    That the channel has the policy DEFAULT_POLICY is the caller's to check.
    """
    return replace(
        definition,
        endorsement_plugin=definition.endorsement_plugin or DEFAULT_ENDORSEMENT_PLUGIN,
        validation_plugin=definition.validation_plugin or DEFAULT_VALIDATION_PLUGIN,
        validation_parameter=definition.validation_parameter or policy_reference(DEFAULT_POLICY),
    )


# --- StateData and StateMetadata


def encode_state_data(value: int | bytes | str) -> bytes:
    """Write the value of one field; a zero and an empty value are written too."""
    if isinstance(value, int):
        message = db_pb2.StateData(Int64=value)
    elif isinstance(value, bytes):
        message = db_pb2.StateData(Bytes=value)
    else:
        message = db_pb2.StateData(String=value)
    return bytes(message.SerializeToString(deterministic=True))


def decode_state_data(content: bytes) -> int | bytes | str | None:
    """Read the value of one field, None for a message without a value; raises DecodeError."""
    message = parse(db_pb2.StateData, content, "StateData")
    kind = message.WhichOneof("Type")
    return None if kind is None else getattr(message, kind)


class StateMetadata(NamedTuple):
    """What kind of record a name stands for, and the record's fields in their order."""

    datatype: str
    fields: tuple[str, ...]


def encode_state_metadata(metadata: StateMetadata) -> bytes:
    """Write the metadata of a record."""
    message = db_pb2.StateMetadata(datatype=metadata.datatype, fields=metadata.fields)
    return bytes(message.SerializeToString(deterministic=True))


def decode_state_metadata(content: bytes) -> StateMetadata:
    """Read the metadata of a record; raises DecodeError."""
    message = parse(db_pb2.StateMetadata, content, "StateMetadata")
    return StateMetadata(message.datatype, tuple(message.fields))


# --- keys


def metadata_key(name: str) -> str:
    """Name the metadata key of a definition (`name` a chaincode) or of an approval (`approval_name`)."""
    return f"{_NAMESPACES}/metadata/{name}"


def field_key(name: str, field: str) -> str:
    """Name the key of one field of a definition or approval."""
    return f"{_NAMESPACES}/fields/{name}/{field}"


def approval_name(chaincode: str, sequence: int) -> str:
    """Name an approval in an organisation's implicit collection."""
    return f"{chaincode}#{sequence}"


def source_metadata_key(name: str) -> str:
    """Name the metadata key of the package that belongs to an approval."""
    return f"{_SOURCES}/metadata/{name}"


def package_id_key(name: str) -> str:
    """Name the key of the package id that belongs to an approval."""
    return f"{_SOURCES}/fields/{name}/PackageID"


# --- records


class _Record(NamedTuple):
    prefix: str
    name: str
    datatype: str
    fields: Mapping[str, int | bytes | str]

    def metadata_key(self) -> str:
        return f"{self.prefix}/metadata/{self.name}"

    def field_key(self, field: str) -> str:
        return f"{self.prefix}/fields/{self.name}/{field}"

    def metadata(self) -> StateMetadata:
        return StateMetadata(self.datatype, tuple(self.fields))

    def encoded_fields(self) -> dict[str, bytes]:
        return {self.field_key(field): encode_state_data(value) for field, value in self.fields.items()}


def _parameters(definition: ChaincodeDefinition) -> dict[str, int | bytes | str]:
    endorsement = chaincode_definition_pb2.ChaincodeEndorsementInfo(
        version=definition.version,
        init_required=definition.init_required,
        endorsement_plugin=definition.endorsement_plugin,
    )
    validation = chaincode_definition_pb2.ChaincodeValidationInfo(
        validation_plugin=definition.validation_plugin, validation_parameter=definition.validation_parameter
    )
    return {
        "EndorsementInfo": bytes(endorsement.SerializeToString(deterministic=True)),
        "ValidationInfo": bytes(validation.SerializeToString(deterministic=True)),
        "Collections": definition.collections,
    }


def _definition_record(chaincode: str, definition: ChaincodeDefinition) -> _Record:
    fields = {"Sequence": definition.sequence, **_parameters(definition)}
    return _Record(_NAMESPACES, chaincode, _DEFINITION, fields)


def _approval_record(chaincode: str, definition: ChaincodeDefinition) -> _Record:
    name = approval_name(chaincode, definition.sequence)
    return _Record(_NAMESPACES, name, _PARAMETERS, _parameters(definition))


def _source_record(chaincode: str, approval: Approval) -> _Record:
    name = approval_name(chaincode, approval.definition.sequence)
    return _Record(_SOURCES, name, _LOCAL_PACKAGE, {"PackageID": approval.package_id})


def _changes(record: _Record, read: Reader) -> Writes:
    """Give the writes that bring a record into state: keys whose bytes change, nothing else."""
    before = read(record.metadata_key())
    metadata = StateMetadata("", ()) if before is None else decode_state_metadata(before)
    existing = {record.field_key(field): read(record.field_key(field)) for field in metadata.fields}
    fields = record.encoded_fields()
    writes: Writes = {key: value for key, value in fields.items() if existing.get(key) != value}
    surplus = [key for key in existing if key not in fields]
    if surplus or metadata.datatype != record.datatype or len(metadata.fields) != len(fields):
        writes[record.metadata_key()] = encode_state_metadata(record.metadata())
    return writes | dict.fromkeys(surplus)


# --- reading


def read_sequence(chaincode: str, read: Reader) -> int:
    """Give the committed sequence of a chaincode, 0 when none is committed; raises DecodeError."""
    return _read_field(read, field_key(chaincode, "Sequence"), int) or 0


def read_definition(chaincode: str, read: Reader) -> ChaincodeDefinition | None:
    """Give the committed definition of a chaincode, None when there is none.

    Raises DecodeError when what is there is no definition.
    """
    content = read(metadata_key(chaincode))
    if content is None:
        return None
    metadata = decode_state_metadata(content)
    if metadata.datatype != _DEFINITION:
        raise DecodeError(f"StateMetadata of {chaincode}: not a chaincode type: {metadata.datatype[:100]}")
    sequence = read_sequence(chaincode, read)
    return _read_parameters(chaincode, sequence, read)


def read_committed_definition(chaincode: str, read: Reader) -> ChaincodeDefinition:
    """Give the committed definition; raises NotDefinedError when there is none, DecodeError as `read_definition`."""
    definition = read_definition(chaincode, read)
    if definition is None:
        raise NotDefinedError(f"namespace {chaincode} is not defined")
    return definition


def read_approval(chaincode: str, sequence: int, read: Reader) -> Approval | None:
    """Give what an organisation approved, read from its own implicit collection; None: nothing for this sequence.

    Raises DecodeError when what is there is no approval.
    """
    name = approval_name(chaincode, sequence)
    content = read(metadata_key(name))
    if content is None:
        return None
    datatype = decode_state_metadata(content).datatype
    if datatype != _PARAMETERS:
        raise DecodeError(f"StateMetadata of {name}: not a chaincode parameters type: {datatype[:100]}")
    parameters = _read_parameters(name, sequence, read)
    read(source_metadata_key(name))  # as real peers do first: all endorsers must read alike
    return Approval(parameters, _read_field(read, package_id_key(name), str) or "")


def chaincode_of_metadata_key(key: str) -> str | None:
    """Give the chaincode whose definition a public key of `_lifecycle` announces, None for any other key."""
    return key[len(_METADATA_PREFIX) :] if key.startswith(_METADATA_PREFIX) else None


def chaincode_of_key(key: str) -> str | None:
    """Give the chaincode to whose definition a public key of `_lifecycle` belongs, None for any other key."""
    for prefix in (_METADATA_PREFIX, _FIELD_PREFIX):
        if key.startswith(prefix):
            return key[len(prefix) :].partition("/")[0]
    return None


def _read_parameters(name: str, sequence: int, read: Reader) -> ChaincodeDefinition:
    endorsement = parse(
        chaincode_definition_pb2.ChaincodeEndorsementInfo,
        _read_field(read, field_key(name, "EndorsementInfo"), bytes) or b"",
        "ChaincodeEndorsementInfo",
    )
    validation = parse(
        chaincode_definition_pb2.ChaincodeValidationInfo,
        _read_field(read, field_key(name, "ValidationInfo"), bytes) or b"",
        "ChaincodeValidationInfo",
    )
    collections = _read_field(read, field_key(name, "Collections"), bytes) or b""
    parse(collection_pb2.CollectionConfigPackage, collections, "CollectionConfigPackage")
    return ChaincodeDefinition(
        sequence=sequence,
        version=endorsement.version,
        validation_parameter=validation.validation_parameter,
        collections=collections,
        init_required=endorsement.init_required,
        endorsement_plugin=endorsement.endorsement_plugin,
        validation_plugin=validation.validation_plugin,
    )


def _read_field(read: Reader, key: str, kind: type[T]) -> T | None:
    content = read(key)
    if content is None:
        return None
    value = decode_state_data(content)
    if value is not None and not isinstance(value, kind):
        raise DecodeError(f"StateData of a field: holds another type than {kind.__name__}")
    return value


# --- approving


def check_definition(
    chaincode: str, definition: ChaincodeDefinition, committed: ChaincodeDefinition | None, msps: ChannelMsps
) -> None:
    """Check name, version and collections of a definition to be approved or committed (`scc.go` validateInput).

    Raises DefinitionError with Fabric's text, DecodeError when the collections are no message.
    """
    check_name_and_version(chaincode, definition.version)
    check_collections(definition.collections, b"" if committed is None else committed.collections, msps)


def check_name_and_version(chaincode: str, version: str) -> None:
    """Check what a chaincode and its version may be called; raises DefinitionError with Fabric's text."""
    if not CHAINCODE_NAME.fullmatch(chaincode):
        raise DefinitionError(
            f"invalid chaincode name '{chaincode}'. Names can only consist of alphanumerics, '_', and '-' and can only "
            "begin with alphanumerics"
        )
    if chaincode in SYSTEM_CHAINCODES:
        raise DefinitionError(f"chaincode name '{chaincode}' is the name of a system chaincode")
    if not CHAINCODE_VERSION.fullmatch(version):
        raise DefinitionError(
            f"invalid chaincode version '{version}'. Versions can only consist of alphanumerics, '_', '-', '+', and '.'"
        )


def approval_writes(chaincode: str, approval: Approval, read_public: Reader, read_private: Reader) -> Writes:
    """Give the writes to the approving organisation's implicit collection; the definition has its defaults already.

    Raises DefinitionError with Fabric's text: wrong sequence, another content than the committed sequence has, or
    nothing new.
    """
    requested, current = approval.definition.sequence, read_sequence(chaincode, read_public)
    if requested == current == 0:
        raise DefinitionError("requested sequence is 0, but first definable sequence number is 1")
    if requested < current:
        raise DefinitionError(f"currently defined sequence {current} is larger than requested sequence {requested}")
    if requested > current + 1:
        raise DefinitionError(
            f"requested sequence {requested} is larger than the next available sequence number {current + 1}"
        )
    if requested == current:
        committed = read_definition(chaincode, read_public)
        if committed is None:
            raise DefinitionError(f"missing metadata for currently committed sequence number ({current})")
        difference = _difference(committed, approval.definition)
        if difference is not None:
            raise DefinitionError(
                f"attempted to redefine the current committed sequence ({current}) for namespace {chaincode} with "
                f"different parameters: {difference}"
            )
    before = read_approval(chaincode, requested, read_private)
    if before is not None and before == approval:
        if requested == current:
            raise DefinitionError(
                f"attempted to redefine the current committed sequence ({current}) for namespace {chaincode}"
            )
        raise DefinitionError(
            f"attempted to redefine uncommitted sequence ({requested}) for namespace {chaincode} with unchanged content"
        )
    parameters = _changes(_approval_record(chaincode, approval.definition), read_private)
    return parameters | _changes(_source_record(chaincode, approval), read_private)


def _difference(expected: ChaincodeDefinition, passed: ChaincodeDefinition) -> str | None:
    pairs: list[tuple[str, str, str]] = [
        ("Version", expected.version, passed.version),
        ("EndorsementPlugin", expected.endorsement_plugin, passed.endorsement_plugin),
        ("InitRequired", str(expected.init_required).lower(), str(passed.init_required).lower()),
        ("ValidationPlugin", expected.validation_plugin, passed.validation_plugin),
        ("ValidationParameter", expected.validation_parameter.hex(), passed.validation_parameter.hex()),
    ]
    for name, before, now in pairs:
        if before != now:
            return f"expected {name} '{before}' does not match passed {name} '{now}'"
    return "Collections do not match" if expected.collections != passed.collections else None


# --- committing


def approval_mismatches(chaincode: str, definition: ChaincodeDefinition, read_hash: Reader) -> tuple[str, ...]:
    """Name what of a definition an organisation has not approved, by the hashes in its implicit collection.

    Empty: it has approved exactly this. `ChaincodeParameters`: it has approved nothing for this sequence; otherwise
    the fields that differ.
    """
    record = _approval_record(chaincode, definition)
    metadata_hash = read_hash(record.metadata_key())
    # All keys are read whatever the first says, as in Fabric: the reads are part of what endorsers must agree on.
    differing = [
        field
        for field, value in record.fields.items()
        if read_hash(record.field_key(field)) != sha256(encode_state_data(value)).digest()
    ]
    if metadata_hash != sha256(encode_state_metadata(record.metadata())).digest():
        return (record.datatype,)
    return tuple(differing)


def check_readiness(
    chaincode: str, definition: ChaincodeDefinition, read_public: Reader, read_hashes: Mapping[str, Reader]
) -> dict[str, tuple[str, ...]]:
    """Give what each organisation has not approved (empty: approved); `read_hashes` has a reader for each MSP ID.

    The definition has its defaults already. Raises DefinitionError when its sequence is not the next one.
    """
    following = read_sequence(chaincode, read_public) + 1
    if definition.sequence != following:
        raise DefinitionError(
            f"requested sequence is {definition.sequence}, but new definition must be sequence {following}"
        )
    return {msp_id: approval_mismatches(chaincode, definition, read) for msp_id, read in read_hashes.items()}


def definition_writes(
    chaincode: str,
    definition: ChaincodeDefinition,
    read_public: Reader,
    read_hashes: Mapping[str, Reader],
) -> Writes:
    """Give the public writes of a commit. Raises DefinitionError as `check_readiness`.

    A peer writes them before it looks whether its own organisation has approved (`check_agreed`), so they are in the
    read-write set of its refusal. Whether enough others have is for the policy LIFECYCLE_POLICY to say.
    """
    check_readiness(chaincode, definition, read_public, read_hashes)
    return _changes(_definition_record(chaincode, definition), read_public)


def check_agreed(
    chaincode: str, definition: ChaincodeDefinition, msp_id: str, read_hashes: Mapping[str, Reader]
) -> None:
    """Check that the organisation of an endorser has approved what is to be committed; raises DefinitionError."""
    read = read_hashes.get(msp_id)
    if read is None or approval_mismatches(chaincode, definition, read):
        raise DefinitionError(f"chaincode definition not agreed to by this org ({msp_id})")


# --- asking


def check_endorsable(
    chaincode: str, definition: ChaincodeDefinition, channel: str, *, is_approved: bool, is_installed: bool
) -> None:
    """Check that a peer may run a chaincode: its organisation approved the committed definition and has the package.

    Raises DefinitionError with the text of `endorsement_info.go`.
    """
    if not is_approved:
        raise DefinitionError(
            f"chaincode definition for '{chaincode}' at sequence {definition.sequence} on channel '{channel}' has not "
            "yet been approved by this org"
        )
    if not is_installed:
        raise DefinitionError(f"chaincode definition for '{chaincode}' exists, but chaincode is not installed")


def approving_organizations(mismatches: Mapping[str, Sequence[str]]) -> dict[str, bool]:
    """Give the answer of CheckCommitReadiness: MSP ID to whether it has approved."""
    return {msp_id: not differing for msp_id, differing in mismatches.items()}
