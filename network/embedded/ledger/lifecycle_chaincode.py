"""The system chaincode `_lifecycle`: packages, approvals and definitions of chaincodes.

Rules: `core/chaincode/lifecycle/{scc,lifecycle}.go`. What makes an approval or a definition right, and what is written,
is `network.protocol.lifecycle`; here it is read from, and written to, a simulation.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, NoReturn, TypeVar

from fabric_protos.peer import collection_pb2
from fabric_protos.peer.lifecycle import lifecycle_pb2
from google.protobuf.message import Message

from network.embedded.ledger.access_control import AccessError
from network.embedded.ledger.chaincode import text_of
from network.embedded.ledger.package_store import PackageStore
from network.embedded.ledger.simulation import Simulation, SimulationError
from network.protocol.collection import implicit_collection_name
from network.protocol.endorsement_policy import ChannelRules
from network.protocol.errors import DecodeError, DefinitionError, NotDefinedError, PackageError
from network.protocol.lifecycle import (
    DEFAULT_POLICY,
    Approval,
    ChaincodeDefinition,
    Reader,
    approval_mismatches,
    approval_writes,
    approving_organizations,
    chaincode_of_metadata_key,
    check_agreed,
    check_definition,
    check_name_and_version,
    check_readiness,
    definition_writes,
    field_key,
    metadata_key,
    read_approval,
    read_committed_definition,
    read_definition,
    read_sequence,
    with_defaults,
)
from network.protocol.private_data import LIFECYCLE_NAMESPACE
from network.protocol.proposal import Response
from network.protocol.wire import parse, parse_in_words_of_go

OK: Final = 200
NOT_FOUND: Final = 404
FAILED: Final = 500
FUNCTION_AND_ARGUMENT: Final = 2
CAPABILITIES: Final = frozenset(("V2_0", "V2_5"))
"""A channel's applications have one of these, or nothing of this (`common/capabilities/application.go`)."""

LEGACY_NAMESPACE: Final = "lscc"
_RECEIVER: Final = "*lifecycle.Invocation"
_APPROVAL_NAME: Final = re.compile(r"(?P<chaincode>[^#]*)#(?P<sequence>[0-9]{1,18})")

_LAST: Final = "\x7f"
"""Where ranges over names end (`core/chaincode/lifecycle/ledger_shim.go`, GetStateRange): read sets hold the bound."""

M = TypeVar("M", bound=Message)
Check = Callable[[str], None]
"""Checks that the caller may use a resource; raises AccessError."""
References = Callable[[str], Mapping[str, list[tuple[str, str]]]]
"""Gives the chaincodes that run a package: channel to names and versions."""


@dataclass(frozen=True)
class LifecycleCall:
    """One call at a peer. `simulation` and `rules` are None for a call without channel."""

    msp_id: str
    packages: PackageStore
    references: References
    check: Check
    simulation: Simulation | None
    rules: ChannelRules | None
    tx_id: str = ""
    """Named by refusals of calls without channel."""


def invoke(arguments: tuple[bytes, ...], call: LifecycleCall) -> Response:
    """Run one function; never raises but for a defect of ours."""
    if not arguments:
        return _failed("lifecycle scc must be invoked with arguments")
    if len(arguments) != FUNCTION_AND_ARGUMENT:
        return _failed(f"lifecycle scc operations require exactly two arguments but received {len(arguments)}")
    name = text_of(arguments[0])
    if call.rules is not None and not call.rules.configuration.application_capabilities & CAPABILITIES:
        return _failed(
            f"cannot use new lifecycle for channel '{call.rules.channel_id}' as it does not have the required "
            "capabilities enabled"
        )
    try:
        call.check(f"{LIFECYCLE_NAMESPACE}/{name}")
    except AccessError as error:
        return _failed(f"Failed to authorize invocation due to failed ACL check: {error}")
    function = _FUNCTIONS.get(name)
    if function is None:
        return _failed(
            f"failed to invoke backing implementation of '{name}': receiver {_RECEIVER}.{name} does not exist"
        )
    try:
        result = function(call, arguments[1])
    except NotDefinedError as error:
        return Response(NOT_FOUND, str(error), b"")
    except (DefinitionError, DecodeError, PackageError, SimulationError) as error:
        return _failed(f"failed to invoke backing implementation of '{name}': {error}")
    return Response(OK, "", bytes(result.SerializeToString(deterministic=True)))


def _failed(message: str) -> Response:
    return Response(FAILED, message, b"")


# --- packages


def _install(call: LifecycleCall, content: bytes) -> lifecycle_pb2.InstallChaincodeResult:
    arguments = _parse(lifecycle_pb2.InstallChaincodeArgs, content)
    installed = call.packages.install(arguments.chaincode_install_package)
    return lifecycle_pb2.InstallChaincodeResult(package_id=installed.package_id, label=installed.label)


def _query_installed(call: LifecycleCall, content: bytes) -> lifecycle_pb2.QueryInstalledChaincodeResult:
    package_id = _parse(lifecycle_pb2.QueryInstalledChaincodeArgs, content).package_id
    found = next((it for it in call.packages.installed() if it.package_id == package_id), None)
    if found is None:
        raise PackageError(f"could not find chaincode with package id '{package_id}'")
    return lifecycle_pb2.QueryInstalledChaincodeResult(
        package_id=found.package_id,
        label=found.label,
        references={
            channel: lifecycle_pb2.QueryInstalledChaincodeResult.References(
                chaincodes=[
                    lifecycle_pb2.QueryInstalledChaincodeResult.Chaincode(name=name, version=version)
                    for name, version in chaincodes
                ]
            )
            for channel, chaincodes in call.references(package_id).items()
        },
    )


def _query_all_installed(call: LifecycleCall, content: bytes) -> lifecycle_pb2.QueryInstalledChaincodesResult:
    _parse(lifecycle_pb2.QueryInstalledChaincodesArgs, content)
    kinds = lifecycle_pb2.QueryInstalledChaincodesResult
    result = kinds()
    for found in call.packages.installed():
        references = {
            channel: kinds.References(
                chaincodes=[kinds.Chaincode(name=name, version=version) for name, version in chaincodes]
            )
            for channel, chaincodes in call.references(found.package_id).items()
        }
        result.installed_chaincodes.append(
            kinds.InstalledChaincode(package_id=found.package_id, label=found.label, references=references)
        )
    return result


def _get_package(call: LifecycleCall, content: bytes) -> lifecycle_pb2.GetInstalledChaincodePackageResult:
    package_id = _parse(lifecycle_pb2.GetInstalledChaincodePackageArgs, content).package_id
    package = call.packages.content(package_id)
    if package is None:
        raise PackageError(f"could not load cc install package: chaincode install package '{package_id}' not found")
    return lifecycle_pb2.GetInstalledChaincodePackageResult(chaincode_install_package=package)


# --- approvals


def _approve(call: LifecycleCall, content: bytes) -> lifecycle_pb2.ApproveChaincodeDefinitionForMyOrgResult:
    arguments = _parse(lifecycle_pb2.ApproveChaincodeDefinitionForMyOrgArgs, content)
    definition = _definition(arguments)
    if call.simulation is None:
        _refuse_without_channel(arguments.name, definition.version)
    simulation, rules = _on_channel(call)
    _check_definition(arguments.name, definition, simulation, rules)
    package_id = arguments.source.local_package.package_id
    approval = Approval(_with_defaults(definition, rules), package_id)
    own = implicit_collection_name(call.msp_id)
    for key, value in approval_writes(arguments.name, approval, _public(simulation), _private(simulation, own)).items():
        simulation.put_private(LIFECYCLE_NAMESPACE, own, key, value or b"")
    return lifecycle_pb2.ApproveChaincodeDefinitionForMyOrgResult()


def _query_approved(call: LifecycleCall, content: bytes) -> lifecycle_pb2.QueryApprovedChaincodeDefinitionResult:
    arguments = _parse(lifecycle_pb2.QueryApprovedChaincodeDefinitionArgs, content)
    if call.simulation is None:
        if not arguments.sequence:
            raise DefinitionError(
                "could not get current sequence: could not get state for key "
                f"{field_key(arguments.name, 'Sequence')}: {_no_context('GET_STATE', call)}"
            )
        name = f"{arguments.name}#{arguments.sequence}"
        raise DefinitionError(
            f"could not deserialize namespace metadata for {name}: could not query metadata for namespace "
            f"namespaces/{name}: {_no_context('GET_STATE', call)}"
        )
    simulation, _ = _on_channel(call)
    own = _private(simulation, implicit_collection_name(call.msp_id))
    wanted = [arguments.sequence]
    if not arguments.sequence:
        committed = read_sequence(arguments.name, _public(simulation))
        wanted = [committed + 1, committed]
    for sequence in wanted:
        approval = read_approval(arguments.name, sequence, own)
        if approval is not None:
            result = lifecycle_pb2.QueryApprovedChaincodeDefinitionResult(**_fields(approval.definition))
            result.source.CopyFrom(_source(approval))
            return result
    raise DefinitionError(
        f"could not fetch approved chaincode definition (name: '{arguments.name}', sequence: '{wanted[-1]}') on "
        f"channel '{simulation.channel.channel_id}'"
    )


def _query_all_approved(call: LifecycleCall, content: bytes) -> lifecycle_pb2.QueryApprovedChaincodeDefinitionsResult:
    _parse(lifecycle_pb2.QueryApprovedChaincodeDefinitionsArgs, content)
    if call.simulation is None:
        raise DefinitionError(
            "could not fetch metadatas: could not get state range for namespace namespaces: could not get state "
            f"iterator: {_no_context('GET_STATE_BY_RANGE', call)}"
        )
    simulation, _ = _on_channel(call)
    collection = implicit_collection_name(call.msp_id)
    cursor = simulation.open_private_range(LIFECYCLE_NAMESPACE, collection, metadata_key(""), metadata_key(_LAST))
    kinds = lifecycle_pb2.QueryApprovedChaincodeDefinitionsResult
    result = kinds()
    while (row := cursor.fetch()) is not None:
        name, sequence = _approval_of_key(row[0])
        approval = read_approval(name, sequence, _private(simulation, collection))
        if approval is not None:
            entry = kinds.ApprovedChaincodeDefinition(name=name, **_fields(approval.definition))
            entry.source.CopyFrom(_source(approval))
            result.approved_chaincode_definitions.append(entry)
    return result


def _approval_of_key(key: str) -> tuple[str, int]:
    named = chaincode_of_metadata_key(key) or ""
    found = _APPROVAL_NAME.fullmatch(named)
    if found is None:  # written by a transaction that was endorsed against these rules
        raise DefinitionError(f"could not extract chaincode name and sequence number from metadata: {named}")
    return found["chaincode"], int(found["sequence"])


def _source(approval: Approval) -> lifecycle_pb2.ChaincodeSource:
    if not approval.package_id:
        return lifecycle_pb2.ChaincodeSource(unavailable=lifecycle_pb2.ChaincodeSource.Unavailable())
    local = lifecycle_pb2.ChaincodeSource.Local(package_id=approval.package_id)
    return lifecycle_pb2.ChaincodeSource(local_package=local)


# --- definitions


def _check_commit_readiness(call: LifecycleCall, content: bytes) -> lifecycle_pb2.CheckCommitReadinessResult:
    arguments = _parse(lifecycle_pb2.CheckCommitReadinessArgs, content)
    simulation, rules = _on_channel(call)
    definition = _with_defaults(_definition(arguments), rules)
    mismatches = check_readiness(arguments.name, definition, _public(simulation), _hashes(simulation, rules))
    kinds = lifecycle_pb2.CheckCommitReadinessResult
    return kinds(
        approvals=approving_organizations(mismatches),
        mismatches={msp_id: kinds.Mismatches(items=differing) for msp_id, differing in mismatches.items() if differing},
    )


def _commit(call: LifecycleCall, content: bytes) -> lifecycle_pb2.CommitChaincodeDefinitionResult:
    arguments = _parse(lifecycle_pb2.CommitChaincodeDefinitionArgs, content)
    simulation, rules = _on_channel(call)
    definition = _definition(arguments)
    _check_definition(arguments.name, definition, simulation, rules)
    definition = _with_defaults(definition, rules)
    hashes = _hashes(simulation, rules)
    for key, value in definition_writes(arguments.name, definition, _public(simulation), hashes).items():
        simulation.put_state(LIFECYCLE_NAMESPACE, key, value or b"")
    check_agreed(arguments.name, definition, call.msp_id, hashes)
    return lifecycle_pb2.CommitChaincodeDefinitionResult()


def _query_definition(call: LifecycleCall, content: bytes) -> lifecycle_pb2.QueryChaincodeDefinitionResult:
    name = _parse(lifecycle_pb2.QueryChaincodeDefinitionArgs, content).name
    simulation, rules = _on_channel(call)
    definition = read_committed_definition(name, _public(simulation))
    approvals = {
        msp_id: not approval_mismatches(name, definition, read) for msp_id, read in _hashes(simulation, rules).items()
    }
    return lifecycle_pb2.QueryChaincodeDefinitionResult(approvals=approvals, **_fields(definition))


def _query_definitions(call: LifecycleCall, content: bytes) -> lifecycle_pb2.QueryChaincodeDefinitionsResult:
    _parse(lifecycle_pb2.QueryChaincodeDefinitionsArgs, content)
    simulation, _ = _on_channel(call)
    cursor = simulation.open_range(LIFECYCLE_NAMESPACE, metadata_key(""), metadata_key(_LAST))
    names = []
    while (row := cursor.fetch()) is not None:
        names.append(chaincode_of_metadata_key(row[0]) or "")
    kinds = lifecycle_pb2.QueryChaincodeDefinitionsResult
    result = kinds()
    for name in names:
        definition = read_definition(name, _public(simulation))
        if definition is not None:
            result.chaincode_definitions.append(kinds.ChaincodeDefinition(name=name, **_fields(definition)))
    return result


# --- reading and writing


def _refuse_without_channel(name: str, version: str) -> NoReturn:
    """Refuse an approval that names no channel: for its name or version first, as a peer does."""
    try:
        check_name_and_version(name, version)
    except DefinitionError as error:
        raise DefinitionError(f"error validating chaincode definition: {error}") from error
    raise DefinitionError("error validating chaincode definition: could not get channelconfig for channel ''")


def _no_context(request: str, call: LifecycleCall) -> str:
    return f"{request} failed: transaction ID: {call.tx_id}: no ledger context"


def _on_channel(call: LifecycleCall) -> tuple[Simulation, ChannelRules]:
    if call.simulation is None or call.rules is None:
        raise DefinitionError("no application config for channel ''")
    return call.simulation, call.rules


def _public(simulation: Simulation) -> Reader:
    return lambda key: simulation.get_state(LIFECYCLE_NAMESPACE, key)


def _private(simulation: Simulation, collection: str) -> Reader:
    return lambda key: simulation.get_private(LIFECYCLE_NAMESPACE, collection, key)


def _hash(simulation: Simulation, collection: str) -> Reader:
    return lambda key: simulation.get_private_hash(LIFECYCLE_NAMESPACE, collection, key)


def _hashes(simulation: Simulation, rules: ChannelRules) -> dict[str, Reader]:
    return {msp_id: _hash(simulation, implicit_collection_name(msp_id)) for msp_id in rules.application_msp_ids}


def _check_definition(name: str, definition: ChaincodeDefinition, simulation: Simulation, rules: ChannelRules) -> None:
    try:
        check_definition(name, definition, None, rules.msps)  # what is wrong in itself, before anything is read
        committed = read_definition(name, _public(simulation))
        if committed is None:
            # Real peers look among the chaincodes of Fabric 1 then, in vain, and all endorsers must read alike.
            simulation.get_state(LEGACY_NAMESPACE, name)
        check_definition(name, definition, committed, rules.msps)
    except DefinitionError as error:
        raise DefinitionError(f"error validating chaincode definition: {error}") from error


def _with_defaults(definition: ChaincodeDefinition, rules: ChannelRules) -> ChaincodeDefinition:
    if not definition.validation_parameter and DEFAULT_POLICY not in rules.trust.policies.by_path:
        channel = rules.channel_id
        raise DefinitionError(
            f"could not set defaults for chaincode definition in channel {channel}: policy '{DEFAULT_POLICY}' must be "
            f"defined for channel '{channel}' before chaincode operations can be attempted"
        )
    return with_defaults(definition)


def _definition(
    arguments: "lifecycle_pb2.ApproveChaincodeDefinitionForMyOrgArgs | lifecycle_pb2.CommitChaincodeDefinitionArgs",
) -> ChaincodeDefinition:
    collections = b""
    if arguments.HasField("collections"):
        collections = bytes(arguments.collections.SerializeToString(deterministic=True))
    return ChaincodeDefinition(
        arguments.sequence,
        arguments.version,
        arguments.validation_parameter,
        collections,
        arguments.init_required,
        arguments.endorsement_plugin,
        arguments.validation_plugin,
    )


def _fields(definition: ChaincodeDefinition) -> dict[str, object]:
    return {
        "sequence": definition.sequence,
        "version": definition.version,
        "endorsement_plugin": definition.endorsement_plugin,
        "validation_plugin": definition.validation_plugin,
        "validation_parameter": definition.validation_parameter,
        "init_required": definition.init_required,
        # There without any collections too, as it is kept: clients show it as an empty object.
        "collections": parse(collection_pb2.CollectionConfigPackage, definition.collections, "CollectionConfigPackage"),
    }


def _parse(kind: type[M], content: bytes) -> M:
    function = kind.DESCRIPTOR.name.removesuffix("Args")
    try:
        return parse_in_words_of_go(kind, content)
    except DecodeError as error:
        raise DecodeError(f"could not decode input arg for {_RECEIVER}.{function}: {error}") from error


_FUNCTIONS: Final[Mapping[str, Callable[[LifecycleCall, bytes], Message]]] = {
    "InstallChaincode": _install,
    "QueryInstalledChaincode": _query_installed,
    "QueryInstalledChaincodes": _query_all_installed,
    "GetInstalledChaincodePackage": _get_package,
    "ApproveChaincodeDefinitionForMyOrg": _approve,
    "QueryApprovedChaincodeDefinition": _query_approved,
    "QueryApprovedChaincodeDefinitions": _query_all_approved,
    "CheckCommitReadiness": _check_commit_readiness,
    "CommitChaincodeDefinition": _commit,
    "QueryChaincodeDefinition": _query_definition,
    "QueryChaincodeDefinitions": _query_definitions,
}
