"""Who gets what from peers and orderers of the embedded network, asked as clients ask."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fabric_protos.peer import query_pb2
from fabric_protos.peer.lifecycle import lifecycle_pb2

from network.embedded.ledger.request_filter import EndorserError
from network.protocol.private_data import LIFECYCLE_NAMESPACE
from network.protocol.validation_code import VALID
from tests.support.embedded_ledger import (
    AGENT,
    CHANNEL,
    SERVICE,
    LedgerNetwork,
    Stub,
    definition,
    deployed,
    get,
    lifecycle_arguments,
    put,
)
from tests.support.generated_network import GeneratedNetwork, generate_network

ADMIN = ("ServiceMSP", "admin")
OTHER_ADMIN = ("BillingMSP", "admin")
AUDITOR = ("AuditorMSP", "auditor")
LOCAL_FUNCTIONS = (
    "InstallChaincode",
    "QueryInstalledChaincode",
    "QueryInstalledChaincodes",
    "GetInstalledChaincodePackage",
    "ApproveChaincodeDefinitionForMyOrg",
    "QueryApprovedChaincodeDefinition",
    "QueryApprovedChaincodeDefinitions",
)
CHANNEL_FUNCTIONS = (
    "CheckCommitReadiness",
    "CommitChaincodeDefinition",
    "QueryChaincodeDefinition",
    "QueryChaincodeDefinitions",
)
DENIED = "Failed to authorize invocation due to failed ACL check: "
READERS_ONLY = (
    "Failed evaluating policy on signed data during check policy on channel [consortium] with policy "
    "[/Channel/Application/Writers]: [implicit policy evaluation failed - 0 sub-policies were satisfied, but this "
    "policy requires 1 of the 'Writers' sub-policies to be satisfied]"
)


@pytest.fixture
def default(generated: GeneratedNetwork, tmp_path: Path) -> Iterator[LedgerNetwork]:
    """Give the same network whose channel names no policies for resources."""
    channels = tuple(replace(channel, acls={}) for channel in generated.topology.channels)
    made = generate_network(replace(generated.topology, channels=channels), tmp_path / "credentials")
    with deployed(made, tmp_path / "network") as opened:
        yield opened


def message(network: LedgerNetwork, arguments: list[bytes], client: tuple[str, str], **fields: Any) -> tuple[int, str]:
    found = network.run(network.propose(SERVICE, arguments, client=client, **fields)).response
    return found.status, found.message


# --- proposals


def test_auditors_evaluate_where_the_channel_says_so(network: LedgerNetwork) -> None:
    async def story() -> bytes:
        assert await network.commit(put("a", b"1")) == VALID
        return await network.evaluate(get("a"), client=AUDITOR)

    assert network.run(story()) == b"1"


def test_auditors_do_not_evaluate_by_default(default: LedgerNetwork) -> None:
    with pytest.raises(EndorserError) as caught:
        default.run(default.propose(SERVICE, get("a"), client=AUDITOR))

    assert str(caught.value) == READERS_ONLY
    assert default.behaviours.executed == []


def test_what_a_chaincode_calls_is_asked_for_by_itself(network: LedgerNetwork) -> None:
    """The channel lets auditors propose; calls between chaincodes it leaves to writers."""
    argument = network.behaviours.add(get("a"))

    async def call(stub: Stub) -> bytes:
        return bytes((await stub.call_chaincode("other", argument)).payload)

    async def story() -> tuple[bytes, str]:
        allowed = await network.evaluate(call)
        return allowed, await network.refusal(call, client=AUDITOR)

    assert network.run(story()) == (b"", READERS_ONLY)


def test_orderers_and_peers_of_others_are_no_clients(network: LedgerNetwork) -> None:
    """A stranger's certificate, of an organisation outside the channel's applications, proposes nothing."""
    with pytest.raises(EndorserError, match=r"peer/Propose|Readers"):
        network.run(network.propose(SERVICE, get("a"), client=("OrdererMSP", "admin")))


# --- system chaincodes


@pytest.mark.parametrize("function", LOCAL_FUNCTIONS)
@pytest.mark.parametrize(
    ("client", "words"),
    [
        (
            OTHER_ADMIN,
            (
                "Failed deserializing proposal creator during channelless check policy with policy [Admins]: "
                "[expected MSP ID ServiceMSP, received BillingMSP]"
            ),
        ),
        (
            AGENT,
            (
                "Failed verifying that proposal's creator satisfies local MSP principal during channelless check "
                "policy with policy [Admins]: [The identity is not an admin under this MSP [ServiceMSP]: The identity "
                "does not contain OU [ADMIN], MSP: [ServiceMSP]]"
            ),
        ),
    ],
    ids=["another admin", "no admin"],
)
def test_what_is_the_peers_own_is_for_its_admins(
    network: LedgerNetwork, function: str, client: tuple[str, str], words: str
) -> None:
    found = message(network, [function.encode(), b""], client, chaincode=LIFECYCLE_NAMESPACE)

    assert found == (500, f"{DENIED}{words}")
    status, allowed = message(network, [function.encode(), b""], ADMIN, chaincode=LIFECYCLE_NAMESPACE)
    assert status in (200, 500)
    assert not allowed.startswith(DENIED)


@pytest.mark.parametrize("function", CHANNEL_FUNCTIONS)
def test_definitions_are_for_writers(network: LedgerNetwork, function: str) -> None:
    arguments = [function.encode(), b""]

    assert message(network, arguments, AUDITOR, chaincode=LIFECYCLE_NAMESPACE) == (500, f"{DENIED}{READERS_ONLY}")
    _, allowed = message(network, arguments, AGENT, chaincode=LIFECYCLE_NAMESPACE)
    assert not allowed.startswith(DENIED)


def test_readers_read_blocks_and_configuration(network: LedgerNetwork) -> None:
    for chaincode, function in (("qscc", b"GetChainInfo"), ("cscc", b"GetConfigBlock"), ("cscc", b"GetChannelConfig")):
        arguments = [function, CHANNEL.encode()]
        assert message(network, arguments, AUDITOR, chaincode=chaincode) == (200, "")
        status, words = message(network, arguments, ("OrdererMSP", "admin"), chaincode=chaincode)
        assert status == 500
        assert words.startswith(f"access denied for [{function.decode()}][{CHANNEL}]: ")


def test_channels_are_listed_to_members_of_the_peers_organisation(network: LedgerNetwork) -> None:
    found = network.run(network.propose(SERVICE, [b"GetChannels"], chaincode="cscc", channel_id="")).response

    answer = query_pb2.ChannelQueryResponse.FromString(found.payload)
    assert [channel.channel_id for channel in answer.channels] == [CHANNEL]
    status, words = message(network, [b"GetChannels"], OTHER_ADMIN, chaincode="cscc")
    assert status == 500
    assert words.startswith("access denied for [GetChannels]: ")


def test_without_a_channel_a_peer_knows_its_own_organisation_alone(network: LedgerNetwork) -> None:
    with pytest.raises(EndorserError) as caught:
        message(network, [b"GetConfigBlock", CHANNEL.encode()], OTHER_ADMIN, chaincode="cscc", channel_id="")

    assert str(caught.value) == (
        "error validating proposal: access denied: channel [] creator org unknown, creator is malformed"
    )


# --- the lifecycle as it is used


def test_a_peer_lists_what_runs_by_a_package(network: LedgerNetwork) -> None:
    arguments = lifecycle_pb2.QueryInstalledChaincodesArgs().SerializeToString()
    found = network.run(
        network.propose(
            SERVICE,
            [b"QueryInstalledChaincodes", arguments],
            client=ADMIN,
            chaincode=LIFECYCLE_NAMESPACE,
            channel_id="",
        )
    ).response

    result = lifecycle_pb2.QueryInstalledChaincodesResult.FromString(found.payload)
    named = {
        entry.label: [(it.name, it.version) for it in entry.references[CHANNEL].chaincodes]
        for entry in result.installed_chaincodes
    }
    assert named == {
        "asset_1.0": [("asset", "1.0")],
        "other_1.0": [("other", "1.0")],
        "begun_1.0": [("begun", "1.0")],
    }


def test_an_approval_by_another_organisation_does_not_commit(network: LedgerNetwork) -> None:
    """A definition that Customer did not approve is endorsed by no peer of Customer."""
    wanted = definition()

    async def story() -> Any:
        assert await network.approve(SERVICE, "new", wanted) == VALID
        arguments = lifecycle_arguments(lifecycle_pb2.CommitChaincodeDefinitionArgs, "new", wanted)
        call = [b"CommitChaincodeDefinition", arguments]
        allowed = await network.propose(SERVICE, call, client=ADMIN, chaincode=LIFECYCLE_NAMESPACE)
        assert allowed.response.status == 200
        return await network.propose("peer0.customer", call, client=ADMIN, chaincode=LIFECYCLE_NAMESPACE)

    refused = network.run(story()).response

    assert refused.status == 500
    assert "chaincode definition not agreed to by this org (CustomerMSP)" in refused.message
