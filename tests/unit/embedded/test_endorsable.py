"""When a peer may run a chaincode: committed, approved in this very form, installed."""

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from fabric_protos.peer.lifecycle import lifecycle_pb2 as messages

from network.embedded.ledger.endorsable import NotEndorsableError, endorsable_chaincode
from network.protocol.lifecycle import field_key
from network.protocol.package import build_service_package
from network.protocol.private_data import LIFECYCLE_NAMESPACE
from network.protocol.read_write_set import Version
from network.protocol.state import StateUpdate
from tests.support.embedded_channel import EmbeddedChannel

PACKAGE = build_service_package("service_1.0", {"address": "127.0.0.1:9999"})
PACKAGE_ID = f"service_1.0:{sha256(PACKAGE).hexdigest()}"


@pytest.fixture
def network(tmp_path: Path) -> Iterator[EmbeddedChannel]:
    made = EmbeddedChannel(tmp_path)
    yield made
    made.close()


def approve(network: EmbeddedChannel, package_id: str = PACKAGE_ID, version: str = "1.0", sequence: int = 1) -> None:
    arguments = messages.ApproveChaincodeDefinitionForMyOrgArgs(name="service", version=version, sequence=sequence)
    arguments.source.local_package.package_id = package_id
    network.call("ApproveChaincodeDefinitionForMyOrg", arguments, commit=True)


def commit(network: EmbeddedChannel) -> None:
    arguments = messages.CommitChaincodeDefinitionArgs(name="service", version="1.0", sequence=1)
    network.call("CommitChaincodeDefinition", arguments, signer=network.client, commit=True)


def commit_of_another(network: EmbeddedChannel) -> None:
    """Have the other organisation approve and commit."""
    admin = network.customer.issue("admin", "admin")
    approval = messages.ApproveChaincodeDefinitionForMyOrgArgs(name="service", version="1.0", sequence=1)
    network.call(
        "ApproveChaincodeDefinitionForMyOrg", approval, organisation=network.customer, signer=admin, commit=True
    )
    arguments = messages.CommitChaincodeDefinitionArgs(name="service", version="1.0", sequence=1)
    network.call(
        "CommitChaincodeDefinition",
        arguments,
        organisation=network.customer,
        signer=network.customer.client,
        commit=True,
    )


def refusal(network: EmbeddedChannel) -> str:
    with pytest.raises(NotEndorsableError) as caught:
        endorsable_chaincode(network.channel, "service", network.packages)
    return str(caught.value)


def test_runs_what_is_committed_approved_and_installed(network: EmbeddedChannel) -> None:
    network.packages.install(PACKAGE)
    approve(network)
    commit(network)

    found = endorsable_chaincode(network.channel, "service", network.packages)

    assert (found.definition.sequence, found.definition.version, found.package_id) == (1, "1.0", PACKAGE_ID)


def test_does_not_run_what_is_only_approved(network: EmbeddedChannel) -> None:
    network.packages.install(PACKAGE)
    approve(network)

    assert refusal(network) == "chaincode service not found"


def test_does_not_run_what_its_organisation_has_not_approved(network: EmbeddedChannel) -> None:
    network.packages.install(PACKAGE)
    commit_of_another(network)

    assert refusal(network) == (
        "chaincode definition for 'service' at sequence 1 on channel 'consortium' has not yet been approved by this org"
    )


def test_does_not_run_what_its_organisation_approved_otherwise(network: EmbeddedChannel) -> None:
    network.packages.install(PACKAGE)
    approve(network, version="2.0")
    commit_of_another(network)

    assert "has not yet been approved by this org" in refusal(network)


@pytest.mark.parametrize("package_id", ["", "service_1.0:00"])
def test_does_not_run_what_it_has_not_installed(network: EmbeddedChannel, package_id: str) -> None:
    network.packages.install(PACKAGE)
    approve(network, package_id)
    commit(network)

    assert refusal(network) == "chaincode definition for 'service' exists, but chaincode is not installed"


def test_does_not_run_by_a_definition_that_cannot_be_read(network: EmbeddedChannel) -> None:
    approve(network)
    commit(network)
    broken = (LIFECYCLE_NAMESPACE, "", field_key("service", "ValidationInfo").encode())
    with network.channel.store.transaction():
        network.channel.store.write_state([(broken, StateUpdate(b"\xff", Version(9, 0)))])

    assert refusal(network).startswith("StateData")
