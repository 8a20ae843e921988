"""Deploying a chaincode on a channel: install, approve, commit, by the client of Fabric; the same on every network.

Each step is idempotent: what is installed, approved or committed already in this very form stays. The calls
are those of core/chaincode/lifecycle/scc.go.
"""

from collections.abc import Mapping
from hashlib import sha256

from fabric_protos.peer import collection_pb2
from fabric_protos.peer.lifecycle import lifecycle_pb2

from gateway.client.endorser import Endorser
from gateway.client.errors import EndorseError, EndorserError, EvaluateError
from gateway.client.gateway import Network
from network.protocol.collection import CollectionConfig, encode_collections
from network.protocol.lifecycle import ChaincodeDefinition, signature_policy, with_defaults
from network.protocol.policy_expression import encode_policy_expression
from network.protocol.wire import parse
from network.topology.definition import Chaincode

LIFECYCLE = "_lifecycle"
INSTALL_SECONDS = 300.0
_INSTALLED_ALREADY = "chaincode already successfully installed"
_APPROVED_ALREADY = "attempted to redefine"
_UNCHANGED = "with unchanged content"
_NOT_DEFINED = "is not defined"


def definition_of(chaincode: Chaincode) -> ChaincodeDefinition:
    """Give the definition that a topology describes, every default filled in: organisations compare its bytes."""
    collections = [
        CollectionConfig(
            collection.name,
            encode_policy_expression(collection.members),
            collection.required_peer_count,
            collection.max_peer_count,
            collection.block_to_live,
            collection.member_only_read,
            collection.member_only_write,
            signature_policy(encode_policy_expression(collection.endorsement)) if collection.endorsement else None,
        )
        for collection in chaincode.collections
    ]
    return with_defaults(
        ChaincodeDefinition(
            chaincode.sequence,
            chaincode.version,
            signature_policy(encode_policy_expression(chaincode.endorsement)),
            encode_collections(collections) if collections else b"",
            chaincode.init_required,
        )
    )


async def install(peer: Endorser, package: bytes, label: str) -> str:
    """Install a package on a peer, as an admin of its organisation; give the package id. Raises EndorserError."""
    arguments = lifecycle_pb2.InstallChaincodeArgs(chaincode_install_package=package)
    try:
        answer = await peer.call(
            LIFECYCLE, [b"InstallChaincode", arguments.SerializeToString()], seconds=INSTALL_SECONDS
        )
    except EndorserError as error:
        if _INSTALLED_ALREADY not in error.message:
            raise
        return f"{label}:{sha256(package).hexdigest()}"
    return str(parse(lifecycle_pb2.InstallChaincodeResult, answer, "InstallChaincodeResult").package_id)


async def committed_sequence(network: Network, chaincode: str) -> int:
    """Give the sequence of the committed definition, 0 when there is none. Raises EvaluateError."""
    arguments = lifecycle_pb2.QueryChaincodeDefinitionArgs(name=chaincode)
    try:
        answer = await network.contract(LIFECYCLE).evaluate("QueryChaincodeDefinition", arguments.SerializeToString())
    except EvaluateError as error:
        if _NOT_DEFINED in _texts(error):
            return 0
        raise
    result = parse(lifecycle_pb2.QueryChaincodeDefinitionResult, answer, "QueryChaincodeDefinitionResult")
    return int(result.sequence)


async def approve(
    network: Network, msp_id: str, chaincode: str, definition: ChaincodeDefinition, package_id: str
) -> None:
    """Approve a definition for the organisation whose admin `network` signs as; only its own peers are asked.

    Raises EndorseError, SubmitError, CommitStatusError, CommitError.
    """
    arguments = lifecycle_pb2.ApproveChaincodeDefinitionForMyOrgArgs(**_parameters(chaincode, definition))
    arguments.source.local_package.package_id = package_id
    try:
        await network.contract(LIFECYCLE).submit_transaction(
            "ApproveChaincodeDefinitionForMyOrg",
            arguments.SerializeToString(),
            endorsing_organizations=[msp_id],
        )
    except EndorseError as error:
        if not (_APPROVED_ALREADY in _texts(error) and _is_same(_texts(error), definition)):
            raise


async def approvals(network: Network, chaincode: str, definition: ChaincodeDefinition) -> Mapping[str, bool]:
    """Say which organisations have approved the next definition. Raises EvaluateError."""
    arguments = lifecycle_pb2.CheckCommitReadinessArgs(**_parameters(chaincode, definition))
    answer = await network.contract(LIFECYCLE).evaluate("CheckCommitReadiness", arguments.SerializeToString())
    return dict(parse(lifecycle_pb2.CheckCommitReadinessResult, answer, "CheckCommitReadinessResult").approvals)


async def commit(network: Network, chaincode: str, definition: ChaincodeDefinition) -> None:
    """Commit a definition that enough organisations approved.

    Raises EndorseError, SubmitError, CommitStatusError, CommitError.
    """
    arguments = lifecycle_pb2.CommitChaincodeDefinitionArgs(**_parameters(chaincode, definition))
    await network.contract(LIFECYCLE).submit_transaction("CommitChaincodeDefinition", arguments.SerializeToString())


def _parameters(chaincode: str, definition: ChaincodeDefinition) -> dict[str, object]:
    parameters: dict[str, object] = {
        "sequence": definition.sequence,
        "name": chaincode,
        "version": definition.version,
        "endorsement_plugin": definition.endorsement_plugin,
        "validation_plugin": definition.validation_plugin,
        "validation_parameter": definition.validation_parameter,
        "init_required": definition.init_required,
    }
    if definition.collections:
        parameters["collections"] = parse(
            collection_pb2.CollectionConfigPackage, definition.collections, "CollectionConfigPackage"
        )
    return parameters


def _is_same(text: str, definition: ChaincodeDefinition) -> bool:
    """Whether the refusal says that this very definition was approved before, not that another one was."""
    return _UNCHANGED in text or (
        f"current committed sequence ({definition.sequence})" in text and "with different parameters" not in text
    )


def _texts(error: EvaluateError | EndorseError) -> str:
    return "\n".join((error.message, *(detail.message for detail in error.details)))
