"""`_lifecycle` of an embedded peer: a chaincode's way from package to definition, and every refusal on it."""

from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from fabric_protos.peer import collection_pb2
from fabric_protos.peer.lifecycle import lifecycle_pb2 as messages

from network.embedded.ledger.simulation import Simulation
from network.protocol.collection import CollectionConfig, encode_collections, implicit_collection_name, members_policy
from network.protocol.identity import decode_serialized_identity
from network.protocol.lifecycle import (
    DEFAULT_POLICY,
    ChaincodeDefinition,
    approval_name,
    metadata_key,
    policy_reference,
    read_definition,
    source_metadata_key,
)
from network.protocol.package import build_package, build_service_package
from network.protocol.private_data import LIFECYCLE_NAMESPACE
from network.protocol.proposal import Response
from network.protocol.read_write_set import NamespaceSet
from tests.support.embedded_channel import EmbeddedChannel, with_acls
from tests.support.lifecycle_functions import FOR_WRITERS, LIFECYCLE_FUNCTIONS

NAME = "service"
PACKAGE = build_service_package("service_1.0", {"address": "127.0.0.1:9999"})
PACKAGE_ID = f"service_1.0:{sha256(PACKAGE).hexdigest()}"
COLLECTIONS = encode_collections([CollectionConfig("secret", members_policy("EnterpriseMSP"))])
DEFINITION = ChaincodeDefinition(1, "1.0")


@pytest.fixture
def network(tmp_path: Path) -> Iterator[EmbeddedChannel]:
    made = EmbeddedChannel(tmp_path)
    yield made
    made.close()


def arguments_of(kind: Any, definition: ChaincodeDefinition, name: str = NAME) -> Any:
    message = kind(
        sequence=definition.sequence,
        name=name,
        version=definition.version,
        endorsement_plugin=definition.endorsement_plugin,
        validation_plugin=definition.validation_plugin,
        validation_parameter=definition.validation_parameter,
        init_required=definition.init_required,
    )
    if definition.collections:
        message.collections.MergeFromString(definition.collections)
    return message


def approve(
    network: EmbeddedChannel,
    definition: ChaincodeDefinition = DEFINITION,
    *,
    name: str = NAME,
    package_id: str = PACKAGE_ID,
    of_customer: bool = False,
    commit: bool = True,
) -> Response:
    arguments = arguments_of(messages.ApproveChaincodeDefinitionForMyOrgArgs, definition, name)
    if package_id:
        arguments.source.local_package.package_id = package_id
    else:
        arguments.source.unavailable.SetInParent()
    organisation, signer = network.enterprise, network.admin
    if of_customer:
        organisation = network.customer
        signer = organisation.issue("admin", "admin")
    return network.call(
        "ApproveChaincodeDefinitionForMyOrg", arguments, organisation=organisation, signer=signer, commit=commit
    )


def readiness(network: EmbeddedChannel, definition: ChaincodeDefinition = DEFINITION) -> Any:
    arguments = arguments_of(messages.CheckCommitReadinessArgs, definition)
    return answer(messages.CheckCommitReadinessResult, network.call("CheckCommitReadiness", arguments))


def commit_definition(
    network: EmbeddedChannel, definition: ChaincodeDefinition = DEFINITION, *, name: str = NAME, commit: bool = True
) -> Response:
    arguments = arguments_of(messages.CommitChaincodeDefinitionArgs, definition, name)
    return network.call("CommitChaincodeDefinition", arguments, signer=network.client, commit=commit)


def define(network: EmbeddedChannel, definition: ChaincodeDefinition = DEFINITION) -> None:
    approve(network, definition)
    approve(network, definition, of_customer=True)
    commit_definition(network, definition)


def query_approved(network: EmbeddedChannel, name: str = NAME, sequence: int = 0) -> Response:
    arguments = messages.QueryApprovedChaincodeDefinitionArgs(name=name, sequence=sequence)
    return network.call("QueryApprovedChaincodeDefinition", arguments)


def answer(kind: Any, response: Response) -> Any:
    assert (response.status, response.message) == (200, "")
    return kind.FromString(response.payload)


def failure(response: Response) -> str:
    assert response.status == 500
    assert response.payload == b""
    return response.message


def failed(function: str, reason: str) -> str:
    return f"failed to invoke backing implementation of '{function}': {reason}"


# --- packages


def test_a_package_is_installed_found_and_given_back(network: EmbeddedChannel) -> None:
    network.references = {"consortium": [(NAME, "1.0")]}

    installed = answer(
        messages.InstallChaincodeResult,
        network.without_channel("InstallChaincode", messages.InstallChaincodeArgs(chaincode_install_package=PACKAGE)),
    )
    one = answer(
        messages.QueryInstalledChaincodeResult,
        network.without_channel("QueryInstalledChaincode", messages.QueryInstalledChaincodeArgs(package_id=PACKAGE_ID)),
    )
    (listed,) = answer(
        messages.QueryInstalledChaincodesResult,
        network.without_channel("QueryInstalledChaincodes", messages.QueryInstalledChaincodesArgs()),
    ).installed_chaincodes
    given = answer(
        messages.GetInstalledChaincodePackageResult,
        network.without_channel(
            "GetInstalledChaincodePackage", messages.GetInstalledChaincodePackageArgs(package_id=PACKAGE_ID)
        ),
    )

    assert (installed.package_id, installed.label) == (PACKAGE_ID, "service_1.0")
    for found in (one, listed):
        assert (found.package_id, found.label) == (PACKAGE_ID, "service_1.0")
        (chaincode,) = found.references["consortium"].chaincodes
        assert (chaincode.name, chaincode.version) == (NAME, "1.0")
    assert given.chaincode_install_package == PACKAGE


def test_refuses_packages_in_the_words_of_real_peers(network: EmbeddedChannel) -> None:
    def install(content: bytes) -> Response:
        return network.without_channel(
            "InstallChaincode", messages.InstallChaincodeArgs(chaincode_install_package=content)
        )

    answer(messages.InstallChaincodeResult, install(PACKAGE))

    assert failure(install(PACKAGE)) == failed(
        "InstallChaincode", f"chaincode already successfully installed (package ID '{PACKAGE_ID}')"
    )
    assert failure(install(b"x")) == failed(
        "InstallChaincode",
        "could not parse as a chaincode install package: error reading as gzip stream: unexpected EOF",
    )
    assert failure(install(build_package("basic", "node", {}))).startswith(
        failed("InstallChaincode", "could not build chaincode: ")
    )


def test_names_the_package_that_is_not_installed(network: EmbeddedChannel) -> None:
    one = network.without_channel("QueryInstalledChaincode", messages.QueryInstalledChaincodeArgs(package_id="a:b"))
    given = network.without_channel(
        "GetInstalledChaincodePackage", messages.GetInstalledChaincodePackageArgs(package_id="a:b")
    )

    assert failure(one) == failed("QueryInstalledChaincode", "could not find chaincode with package id 'a:b'")
    assert failure(given) == failed(
        "GetInstalledChaincodePackage",
        "could not load cc install package: chaincode install package 'a:b' not found",
    )


# --- from approval to definition


def test_organisations_approve_and_commit_a_definition(network: EmbeddedChannel) -> None:
    definition = replace(DEFINITION, collections=COLLECTIONS, init_required=True)
    before = readiness(network, definition)
    approved = approve(network, definition)
    half = readiness(network, definition)
    approve(network, definition, of_customer=True, package_id="")
    ready = readiness(network, definition)
    committed = commit_definition(network, definition)
    found = answer(
        messages.QueryChaincodeDefinitionResult,
        network.call("QueryChaincodeDefinition", messages.QueryChaincodeDefinitionArgs(name=NAME)),
    )

    assert dict(before.approvals) == {"EnterpriseMSP": False, "CustomerMSP": False}
    assert {org: list(it.items) for org, it in before.mismatches.items()} == {
        "EnterpriseMSP": ["ChaincodeParameters"],
        "CustomerMSP": ["ChaincodeParameters"],
    }
    assert (approved.status, approved.payload) == (200, b"")
    assert dict(half.approvals) == {"EnterpriseMSP": True, "CustomerMSP": False}
    assert list(half.mismatches) == ["CustomerMSP"]
    assert dict(ready.approvals) == {"EnterpriseMSP": True, "CustomerMSP": True}
    assert not ready.mismatches
    assert (committed.status, committed.payload) == (200, b"")
    assert (found.sequence, found.version, found.init_required) == (1, "1.0", True)
    assert (found.endorsement_plugin, found.validation_plugin) == ("escc", "vscc")
    assert found.validation_parameter == policy_reference(DEFAULT_POLICY)
    assert found.collections.SerializeToString() == COLLECTIONS
    assert dict(found.approvals) == {"EnterpriseMSP": True, "CustomerMSP": True}


def test_names_what_an_organisation_has_approved_otherwise(network: EmbeddedChannel) -> None:
    approve(network)

    other = replace(DEFINITION, version="2.0", validation_parameter=b"other", collections=COLLECTIONS)

    assert list(readiness(network, other).mismatches["EnterpriseMSP"].items) == [
        "EndorsementInfo",
        "ValidationInfo",
        "Collections",
    ]


def test_lists_every_definition(network: EmbeddedChannel) -> None:
    define(network)
    approve(network, name="other")
    approve(network, name="other", of_customer=True)
    commit_definition(network, replace(DEFINITION), name="other")

    found = answer(
        messages.QueryChaincodeDefinitionsResult,
        network.call("QueryChaincodeDefinitions", messages.QueryChaincodeDefinitionsArgs()),
    ).chaincode_definitions

    assert [(it.name, it.sequence, it.version) for it in found] == [("other", 1, "1.0"), (NAME, 1, "1.0")]
    assert all(it.HasField("collections") and not it.collections.config for it in found)


def test_gives_back_what_the_own_organisation_approved(network: EmbeddedChannel) -> None:
    define(network)
    first = answer(messages.QueryApprovedChaincodeDefinitionResult, query_approved(network))
    second = replace(DEFINITION, sequence=2, version="2.0", collections=COLLECTIONS)
    approve(network, second, package_id="")
    newest = answer(messages.QueryApprovedChaincodeDefinitionResult, query_approved(network))
    asked = answer(messages.QueryApprovedChaincodeDefinitionResult, query_approved(network, sequence=1))
    listed = answer(
        messages.QueryApprovedChaincodeDefinitionsResult,
        network.call("QueryApprovedChaincodeDefinitions", messages.QueryApprovedChaincodeDefinitionsArgs()),
    ).approved_chaincode_definitions

    assert (first.sequence, first.version, first.source.local_package.package_id) == (1, "1.0", PACKAGE_ID)
    assert first.HasField("collections")
    assert (newest.sequence, newest.version) == (2, "2.0")
    assert newest.source.WhichOneof("Type") == "unavailable"
    assert newest.collections == collection_pb2.CollectionConfigPackage.FromString(COLLECTIONS)
    assert asked == first
    assert [(it.name, it.sequence, it.source.WhichOneof("Type")) for it in listed] == [
        (NAME, 1, "local_package"),
        (NAME, 2, "unavailable"),
    ]


def test_another_package_may_be_approved_later(network: EmbeddedChannel) -> None:
    approve(network, package_id="")
    approve(network, of_customer=True)
    commit_definition(network)

    approve(network, package_id=PACKAGE_ID)

    found = answer(messages.QueryApprovedChaincodeDefinitionResult, query_approved(network))
    assert found.source.local_package.package_id == PACKAGE_ID


def test_an_upgrade_writes_what_changes_only(network: EmbeddedChannel) -> None:
    define(network)
    second = replace(DEFINITION, sequence=2, version="2.0")
    define(network, second)

    definition = read_definition(NAME, network.channel.read_lifecycle)

    assert definition is not None
    assert (definition.sequence, definition.version) == (2, "2.0")


# --- refusals


def test_an_approval_needs_the_next_sequence_or_the_committed_one(network: EmbeddedChannel) -> None:
    function = "ApproveChaincodeDefinitionForMyOrg"

    def refused(sequence: int, version: str = "1.0") -> str:
        return failure(approve(network, ChaincodeDefinition(sequence, version), commit=False))

    assert refused(0) == failed(function, "requested sequence is 0, but first definable sequence number is 1")
    assert refused(2) == failed(function, "requested sequence 2 is larger than the next available sequence number 1")
    define(network)
    assert refused(0) == failed(function, "currently defined sequence 1 is larger than requested sequence 0")
    assert refused(1, "2.0") == failed(
        function,
        f"attempted to redefine the current committed sequence (1) for namespace {NAME} with different parameters: "
        "expected Version '1.0' does not match passed Version '2.0'",
    )
    assert refused(1) == failed(
        function, f"attempted to redefine the current committed sequence (1) for namespace {NAME}"
    )


def test_an_approval_that_changes_nothing_is_refused(network: EmbeddedChannel) -> None:
    approve(network)

    assert failure(approve(network, commit=False)) == failed(
        "ApproveChaincodeDefinitionForMyOrg",
        f"attempted to redefine uncommitted sequence (1) for namespace {NAME} with unchanged content",
    )


@pytest.mark.parametrize("function", ["CheckCommitReadiness", "CommitChaincodeDefinition"])
def test_a_commit_needs_the_next_sequence(network: EmbeddedChannel, function: str) -> None:
    arguments = arguments_of(messages.CommitChaincodeDefinitionArgs, replace(DEFINITION, sequence=2))

    assert failure(network.call(function, arguments)) == failed(
        function, "requested sequence is 2, but new definition must be sequence 1"
    )


def test_a_peer_commits_what_its_own_organisation_approved(network: EmbeddedChannel) -> None:
    approve(network, of_customer=True)

    assert failure(commit_definition(network, commit=False)) == failed(
        "CommitChaincodeDefinition", "chaincode definition not agreed to by this org (EnterpriseMSP)"
    )


# --- what is read and written, which all endorsers have to agree on, real peers included


def lifecycle_set(network: EmbeddedChannel) -> NamespaceSet | None:
    return next((it for it in network.simulated if it.namespace == LIFECYCLE_NAMESPACE), None)


def test_a_refused_commit_has_written_already(network: EmbeddedChannel) -> None:
    approve(network, of_customer=True)

    failure(commit_definition(network, commit=False))

    found = lifecycle_set(network)
    assert found is not None
    assert metadata_key(NAME) in {write.key for write in found.writes}


@pytest.mark.parametrize(
    ("name", "definition"),
    [
        ("a/b", DEFINITION),
        (NAME, replace(DEFINITION, version="a b")),
        (NAME, replace(DEFINITION, collections=encode_collections([CollectionConfig("a b", members_policy("A"))]))),
    ],
)
def test_what_is_wrong_in_itself_is_refused_before_anything_is_read(
    network: EmbeddedChannel, name: str, definition: ChaincodeDefinition
) -> None:
    failure(commit_definition(network, definition, name=name, commit=False))

    assert network.simulated == ()


def test_definitions_are_looked_for_as_far_as_real_peers_look(network: EmbeddedChannel) -> None:
    define(network)

    answer(
        messages.QueryChaincodeDefinitionsResult,
        network.call("QueryChaincodeDefinitions", messages.QueryChaincodeDefinitionsArgs()),
    )

    found = lifecycle_set(network)
    assert found is not None
    assert [(it.start_key, it.end_key) for it in found.range_queries] == [(metadata_key(""), metadata_key("\x7f"))]


def test_an_approval_is_read_with_the_kind_of_its_source(network: EmbeddedChannel) -> None:
    approve(network)

    answer(messages.QueryApprovedChaincodeDefinitionResult, query_approved(network, sequence=1))

    found = lifecycle_set(network)
    assert found is not None
    read = {it.key_hash for part in found.collections for it in part.reads}
    assert sha256(source_metadata_key(approval_name(NAME, 1)).encode()).digest() in read


@pytest.mark.parametrize("function", ["ApproveChaincodeDefinitionForMyOrg", "CommitChaincodeDefinition"])
@pytest.mark.parametrize(
    ("name", "definition", "reason"),
    [
        ("qscc", DEFINITION, "chaincode name 'qscc' is the name of a system chaincode"),
        (
            "-",
            DEFINITION,
            (
                "invalid chaincode name '-'. Names can only consist of alphanumerics, '_', and '-' and can only begin "
                "with alphanumerics"
            ),
        ),
        (
            NAME,
            replace(DEFINITION, version="1 0"),
            "invalid chaincode version '1 0'. Versions can only consist of alphanumerics, '_', '-', '+', and '.'",
        ),
        (
            NAME,
            replace(
                DEFINITION,
                collections=encode_collections([CollectionConfig("secret", members_policy("NobodyMSP"))]),
            ),
            "collection-name: secret -- collection member 'NobodyMSP' is not part of the channel",
        ),
    ],
)
def test_what_makes_no_definition_is_refused(
    network: EmbeddedChannel, function: str, name: str, definition: ChaincodeDefinition, reason: str
) -> None:
    arguments = arguments_of(messages.CommitChaincodeDefinitionArgs, definition, name)

    assert failure(network.call(function, arguments)) == failed(
        function, f"error validating chaincode definition: {reason}"
    )


def test_a_committed_collection_stays(network: EmbeddedChannel) -> None:
    define(network, replace(DEFINITION, collections=COLLECTIONS))

    assert failure(approve(network, replace(DEFINITION, sequence=2), commit=False)) == failed(
        "ApproveChaincodeDefinitionForMyOrg",
        "error validating chaincode definition: the proposed collection config does not contain previously defined "
        "collections",
    )


@pytest.mark.parametrize(
    "function", ["ApproveChaincodeDefinitionForMyOrg", "CheckCommitReadiness", "CommitChaincodeDefinition"]
)
def test_a_channel_without_the_default_policy_takes_no_default(network: EmbeddedChannel, function: str) -> None:
    def remove(group: Any) -> None:
        del group.groups["Application"].policies["Endorsement"]

    network.configure(remove)
    arguments = arguments_of(messages.CommitChaincodeDefinitionArgs, DEFINITION)
    own = replace(DEFINITION, validation_parameter=policy_reference("/Channel/Application/Writers"))

    assert failure(network.call(function, arguments)) == failed(
        function,
        "could not set defaults for chaincode definition in channel consortium: policy "
        "'/Channel/Application/Endorsement' must be defined for channel 'consortium' before chaincode operations can "
        "be attempted",
    )
    assert approve(network, own, commit=False).status == 200


def test_a_chaincode_that_is_not_defined_is_not_found(network: EmbeddedChannel) -> None:
    found = network.call("QueryChaincodeDefinition", messages.QueryChaincodeDefinitionArgs(name=NAME))

    assert found == Response(404, f"namespace {NAME} is not defined", b"")


@pytest.mark.parametrize(("sequence", "named"), [(0, 0), (3, 3)])
def test_names_the_approval_that_does_not_exist(network: EmbeddedChannel, sequence: int, named: int) -> None:
    assert failure(query_approved(network, sequence=sequence)) == failed(
        "QueryApprovedChaincodeDefinition",
        f"could not fetch approved chaincode definition (name: '{NAME}', sequence: '{named}') on channel 'consortium'",
    )


def test_an_approval_by_no_rule_does_not_break_the_list(network: EmbeddedChannel) -> None:
    creator = network.channel.rules.msps.identity(decode_serialized_identity(network.admin.identity))
    simulation = Simulation(network.channel, "tx", creator)
    collection = implicit_collection_name("EnterpriseMSP")
    simulation.put_private(LIFECYCLE_NAMESPACE, collection, metadata_key(approval_name(NAME, 1) + "x"), b"x")
    network.commit_result(simulation, network.enterprise)

    listed = network.call("QueryApprovedChaincodeDefinitions", messages.QueryApprovedChaincodeDefinitionsArgs())

    assert failure(listed) == failed(
        "QueryApprovedChaincodeDefinitions",
        f"could not extract chaincode name and sequence number from metadata: {NAME}#1x",
    )


# --- the call itself


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "lifecycle scc must be invoked with arguments"),
        ((b"one",), "lifecycle scc operations require exactly two arguments but received 1"),
        ((b"one", b"", b""), "lifecycle scc operations require exactly two arguments but received 3"),
    ],
)
def test_takes_a_function_and_one_argument(
    network: EmbeddedChannel, arguments: tuple[bytes, ...], message: str
) -> None:
    assert failure(network.invoke(arguments, signer=network.admin)) == message


def test_needs_a_capability_of_the_channel(network: EmbeddedChannel) -> None:
    def older(group: Any) -> None:
        value = group.groups["Application"].values["Capabilities"]
        value.value = value.value.replace(b"V2_5", b"V1_3")

    network.configure(older)

    assert failure(network.call("QueryChaincodeDefinitions", b"")) == (
        "cannot use new lifecycle for channel 'consortium' as it does not have the required capabilities enabled"
    )


@pytest.mark.parametrize("function", LIFECYCLE_FUNCTIONS)
def test_every_function_asks_who_calls(network: EmbeddedChannel, function: str) -> None:
    signer = network.enterprise.peer if function in FOR_WRITERS else network.client
    reason = (
        "Failed evaluating policy on signed data during check policy on channel [consortium]"
        if function in FOR_WRITERS
        else "Failed verifying that proposal's creator satisfies local MSP principal during channelless check policy"
    )

    message = failure(network.call(function, b"", signer=signer))

    assert message.startswith(f"Failed to authorize invocation due to failed ACL check: {reason}")


def test_a_function_that_does_not_exist_has_no_policy(network: EmbeddedChannel) -> None:
    assert failure(network.call("Nothing", b"")) == (
        "Failed to authorize invocation due to failed ACL check: Unmapped policy for _lifecycle/Nothing"
    )


def test_a_function_that_does_not_exist_does_not_run_by_a_policy_of_the_channel(network: EmbeddedChannel) -> None:
    network.configure(with_acls({"_lifecycle/Nothing": "Readers"}))

    assert failure(network.call("Nothing", b"")) == failed(
        "Nothing", "receiver *lifecycle.Invocation.Nothing does not exist"
    )


@pytest.mark.parametrize("function", LIFECYCLE_FUNCTIONS)
def test_an_argument_that_is_no_message_is_refused(network: EmbeddedChannel, function: str) -> None:
    assert failure(network.call(function, b"\xff")).startswith(
        failed(function, f"could not decode input arg for *lifecycle.Invocation.{function}: ")
    )


@pytest.mark.parametrize(
    ("function", "arguments", "words"),
    [
        (
            "ApproveChaincodeDefinitionForMyOrg",
            messages.ApproveChaincodeDefinitionForMyOrgArgs(name="a b"),
            (
                "error validating chaincode definition: invalid chaincode name 'a b'. Names can only consist of "
                "alphanumerics, '_', and '-' and can only begin with alphanumerics"
            ),
        ),
        (
            "ApproveChaincodeDefinitionForMyOrg",
            messages.ApproveChaincodeDefinitionForMyOrgArgs(name="a", version="1"),
            "error validating chaincode definition: could not get channelconfig for channel ''",
        ),
        (
            "QueryApprovedChaincodeDefinition",
            messages.QueryApprovedChaincodeDefinitionArgs(name="a"),
            (
                "could not get current sequence: could not get state for key namespaces/fields/a/Sequence: GET_STATE "
                "failed: transaction ID: : no ledger context"
            ),
        ),
        (
            "QueryApprovedChaincodeDefinition",
            messages.QueryApprovedChaincodeDefinitionArgs(name="a", sequence=1),
            (
                "could not deserialize namespace metadata for a#1: could not query metadata for namespace "
                "namespaces/a#1: GET_STATE failed: transaction ID: : no ledger context"
            ),
        ),
        (
            "QueryApprovedChaincodeDefinitions",
            messages.QueryApprovedChaincodeDefinitionsArgs(),
            (
                "could not fetch metadatas: could not get state range for namespace namespaces: could not get state "
                "iterator: GET_STATE_BY_RANGE failed: transaction ID: : no ledger context"
            ),
        ),
    ],
)
def test_what_is_a_channels_is_not_asked_for_without_one(
    network: EmbeddedChannel, function: str, arguments: Any, words: str
) -> None:
    assert failure(network.without_channel(function, arguments)) == failed(function, words)
