"""Definitions and channels of networks that others created: what is read, what is refused, and in which words."""

import json
from datetime import timedelta
from pathlib import Path

import pytest

from network.administration import application_policy_text, definition, describe_channel, read_collections
from network.errors import DefinitionFileError
from network.lifecycle import definition_of
from network.protocol.errors import ConfigurationError
from network.protocol.lifecycle import DEFAULT_POLICY, policy_reference, signature_policy
from network.protocol.policy_expression import encode_policy_expression
from network.topology.topology_file import read_topology, shipped_topology
from tests.support.generated_network import START, generate_network

MEMBERS = "OR('AMSP.member', 'BMSP.member')"


def written(folder: Path, content: object) -> Path:
    file = folder / "collections.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return file


def test_collections_in_the_form_of_fabrics_tools_are_those_of_a_topology(tmp_path: Path) -> None:
    chaincode = read_topology(shipped_topology("dev")).channels[0].chaincodes[0]
    entries = [
        {
            "name": collection.name,
            "policy": collection.members,
            "requiredPeerCount": collection.required_peer_count,
            "maxPeerCount": collection.max_peer_count,
            "blockToLive": collection.block_to_live,
            "memberOnlyRead": collection.member_only_read,
            "memberOnlyWrite": collection.member_only_write,
            "endorsementPolicy": {"signaturePolicy": collection.endorsement},
        }
        for collection in chaincode.collections
    ]

    made = definition(
        sequence=chaincode.sequence,
        version=chaincode.version,
        policy=chaincode.endorsement,
        collections=written(tmp_path, entries),
        init_required=False,
    )

    assert made == definition_of(chaincode)


def test_what_a_collection_leaves_out_is_what_fabric_takes(tmp_path: Path) -> None:
    (found,) = read_collections(written(tmp_path, [{"name": "a", "policy": MEMBERS}]))

    assert found[1:] == (encode_policy_expression(MEMBERS), 0, 0, 0, False, False, None)


def test_a_collection_may_be_endorsed_by_a_policy_of_the_channel(tmp_path: Path) -> None:
    entry = {
        "name": "a",
        "policy": MEMBERS,
        "endorsementPolicy": {"channelConfigPolicy": "/Channel/Application/Admins"},
    }

    (found,) = read_collections(written(tmp_path, [entry]))

    assert found.endorsement_policy == policy_reference("/Channel/Application/Admins")


REFUSED: dict[str, tuple[object, str]] = {
    "no JSON": ("{", "not JSON"),
    "no list": ({"name": "a"}, "no list of collections"),
    "no object": (["a"], "collection 0: no object with name and policy"),
    "no name": ([{"policy": MEMBERS}], "collection 0: no object with name and policy"),
    "no policy": ([{"name": "a"}], "collection 0: no object with name and policy"),
    "unknown field": ([{"name": "a", "policy": MEMBERS, "btl": 1}], r"collection 0 \(a\): unknown field btl"),
    "negative count": ([{"name": "a", "policy": MEMBERS, "maxPeerCount": -1}], "a count that is no whole number"),
    "count as text": ([{"name": "a", "policy": MEMBERS, "blockToLive": "3"}], "a count that is no whole number"),
    "count as truth": ([{"name": "a", "policy": MEMBERS, "blockToLive": True}], "a count that is no whole number"),
    "flag as text": ([{"name": "a", "policy": MEMBERS, "memberOnlyRead": "yes"}], "a flag that is neither"),
    "policy": ([{"name": "a", "policy": "OR("}], r"collection 0 \(a\): "),
    "endorsement": ([{"name": "a", "policy": MEMBERS, "endorsementPolicy": {}}], "endorsementPolicy has neither"),
    "second of two": ([{"name": "a", "policy": MEMBERS}, {}], "collection 1: no object"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_wrong_file_of_collections_is_refused_with_its_place(case: str, tmp_path: Path) -> None:
    content, words = REFUSED[case]
    file = written(tmp_path, content)

    with pytest.raises(DefinitionFileError, match=words) as raised:
        read_collections(file)

    assert str(raised.value).startswith(str(file))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DefinitionFileError, match=r"none\.json: No such file"):
        read_collections(tmp_path / "none.json")


def test_a_definition_takes_the_channels_policy_unless_one_is_given() -> None:
    def parameter(policy: str) -> bytes:
        return definition(
            sequence=1, version="1", policy=policy, collections=None, init_required=False
        ).validation_parameter

    assert parameter("") == policy_reference(DEFAULT_POLICY)
    assert parameter("/Channel/Application/Admins") == policy_reference("/Channel/Application/Admins")
    assert parameter(MEMBERS) == signature_policy(encode_policy_expression(MEMBERS))
    with pytest.raises(ConfigurationError):
        parameter("OR(")


def test_policies_are_shown_as_people_write_them() -> None:
    assert application_policy_text(policy_reference("/Channel/X")) == "/Channel/X"
    assert application_policy_text(signature_policy(encode_policy_expression(MEMBERS))) == (
        "OR('AMSP.member', 'BMSP.member')"
    )
    assert application_policy_text(b"\xff") == "(a policy that does not read)"


def test_a_channel_is_shown_with_what_decides_in_it(tmp_path: Path) -> None:
    network = generate_network(read_topology(shipped_topology("dev")), tmp_path)

    shown = describe_channel(network.configuration(), START + timedelta(days=1))

    assert shown.consensus == "etcdraft"
    assert shown.organizations == ["AuditorMSP", "BillingMSP", "CustomerMSP", "FieldMSP", "ServiceMSP"]
    assert shown.capabilities == {"Channel": ["V3_0"], "Orderer": ["V2_0"], "Application": ["V2_5"]}
    assert shown.acls == {"peer/Propose": "/Channel/Application/Readers"}
    assert shown.policies["/Channel/Orderer/BlockValidation"] == "ANY Writers"
    assert shown.policies["/Channel/Admins"] == (
        "AND('CustomerMSP.admin', OR('ServiceMSP.admin', 'BillingMSP.admin', 'FieldMSP.admin'))"
    )
    assert len(shown.orderers["OrdererMSP"]) == 3
    purposes: dict[str, int] = {}
    for certificate in shown.certificates:
        purposes[certificate.purpose] = purposes.get(certificate.purpose, 0) + 1
    assert purposes == {"CA": 6, "TLS CA": 6, "consenter TLS": 3}
    assert [certificate.days_left for certificate in shown.certificates] == sorted(
        certificate.days_left for certificate in shown.certificates
    )
    assert shown.certificates[0].days_left == 5 * 365 - 2  # begins a little before, one day has passed


def test_days_left_are_negative_for_what_is_over(tmp_path: Path) -> None:
    network = generate_network(read_topology(shipped_topology("dev")), tmp_path)

    shown = describe_channel(network.configuration(), START + timedelta(days=6 * 365))

    assert {certificate.purpose for certificate in shown.certificates if certificate.days_left < 0} == {"consenter TLS"}
