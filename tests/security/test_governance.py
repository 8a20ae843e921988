"""Who governs the shipped consortium: the departments of the enterprise never without the customers' side.

Signatures are made with the keys of the network and judged by the rules that judge blocks, under the configuration of
the channel's first block.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from network.credentials.credential_folder import msp_certificate, msp_key
from network.lifecycle import definition_of
from network.protocol.config_group import ConfigGroup
from network.protocol.endorsement_policy import ChannelRules
from network.protocol.identity import SerializedIdentity, encode_serialized_identity
from network.protocol.lifecycle import policy_reference, with_defaults
from network.protocol.policy import SignedData, verified_signatures
from network.topology.definition import Channel, UserRole
from network.topology.topology_file import read_topology, shipped_topology
from tests.support.credential import low_s
from tests.support.generated_network import GeneratedNetwork, generate_network

DEPARTMENTS = ("ServiceMSP", "BillingMSP", "FieldMSP")
CUSTOMERS, AUDITORS, ORDERERS = "CustomerMSP", "AuditorMSP", "OrdererMSP"
DATA = b"what is asked for"


def chaincode_policy(rules: ChannelRules) -> bytes:
    (chaincode,) = read_topology(shipped_topology("dev")).channels[0].chaincodes
    policy = rules.chaincode_policy(chaincode.name, with_defaults(definition_of(chaincode)))
    assert policy is not None
    return policy


GOVERNED = {
    "approving and committing chaincodes": lambda rules: rules.lifecycle_policy(),
    "writing public state": chaincode_policy,
    "writing state of chaincodes without a policy": lambda _: policy_reference("/Channel/Application/Endorsement"),
    "changing the channel": lambda _: policy_reference("/Channel/Admins"),
    "changing its members": lambda _: policy_reference("/Channel/Application/Admins"),
}
every_governed = pytest.mark.parametrize("rule", list(GOVERNED.values()), ids=list(GOVERNED))
Rule = Callable[[ChannelRules], bytes]


def channel_of(network: GeneratedNetwork) -> Channel:
    (channel,) = network.topology.channels
    return channel


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> GeneratedNetwork:
    folder = tmp_path_factory.mktemp("consortium") / "credentials"
    return generate_network(read_topology(shipped_topology("dev")), folder)


@pytest.fixture(scope="module")
def rules(network: GeneratedNetwork) -> ChannelRules:
    return ChannelRules("consortium", network.configuration())


def signed(msp_id: str, msp: Path) -> SignedData:
    identity = SerializedIdentity(msp_id, msp_certificate(msp).read_bytes())
    key = load_pem_private_key(msp_key(msp).read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    signature = low_s(key.sign(DATA, ec.ECDSA(hashes.SHA256())), key.curve)
    return SignedData(encode_serialized_identity(identity), DATA, signature)


def everybody(network: GeneratedNetwork, msp_ids: Iterable[str]) -> list[SignedData]:
    """Give the signature of every peer, orderer, admin and user of these organisations."""
    folder = network.credentials
    found = []
    for organization in [network.topology.organization(msp_id) for msp_id in msp_ids]:
        msp_id = organization.msp_id
        found += [signed(msp_id, folder.node_msp(msp_id, node.name)) for node in organization.nodes]
        found += [signed(msp_id, folder.user_msp(msp_id, user.name)) for user in organization.users]
    return found


def is_satisfied(rules: ChannelRules, policy: bytes, claims: list[SignedData]) -> bool:
    return rules.is_satisfied(policy, tuple([found.identity for found in verified_signatures(claims, rules.msps)]))


@every_governed
def test_the_departments_together_cannot(network: GeneratedNetwork, rules: ChannelRules, rule: Rule) -> None:
    assert not is_satisfied(rules, rule(rules), everybody(network, DEPARTMENTS))


@every_governed
def test_nor_with_the_orderers_and_the_auditors(network: GeneratedNetwork, rules: ChannelRules, rule: Rule) -> None:
    assert not is_satisfied(rules, rule(rules), everybody(network, (*DEPARTMENTS, ORDERERS, AUDITORS)))


@every_governed
@pytest.mark.parametrize("others", [(), (AUDITORS, ORDERERS)], ids=["alone", "with auditors and orderers"])
def test_the_customers_side_cannot_without_a_department(
    network: GeneratedNetwork, rules: ChannelRules, rule: Rule, others: tuple[str, ...]
) -> None:
    assert not is_satisfied(rules, rule(rules), everybody(network, (CUSTOMERS, *others)))


@every_governed
@pytest.mark.parametrize("department", DEPARTMENTS)
def test_the_customers_side_and_one_department_can(
    network: GeneratedNetwork, rules: ChannelRules, rule: Rule, department: str
) -> None:
    assert is_satisfied(rules, rule(rules), everybody(network, (CUSTOMERS, department)))


def test_no_agent_endorses_in_the_place_of_a_peer(network: GeneratedNetwork, rules: ChannelRules) -> None:
    agents = [signed(msp_id, network.credentials.user_msp(msp_id, "agent")) for msp_id in (CUSTOMERS, *DEPARTMENTS)]

    assert not is_satisfied(rules, rules.lifecycle_policy(), agents)


def test_a_department_cannot_sign_for_the_customers_side(network: GeneratedNetwork, rules: ChannelRules) -> None:
    service = signed("ServiceMSP", network.credentials.node_msp("ServiceMSP", "peer0.service"))
    customer = signed(CUSTOMERS, network.credentials.node_msp(CUSTOMERS, "peer0.customer"))

    assert is_satisfied(rules, rules.lifecycle_policy(), [service, customer])
    assert not is_satisfied(rules, rules.lifecycle_policy(), [service, customer._replace(signature=service.signature)])


def governing_policies(path: str, group: ConfigGroup) -> Iterator[str]:
    """Give the policies that a change of each thing in a group asks for, as Fabric resolves it."""
    items: list[Any] = [group, *group.values.values(), *group.policies.values()]
    for item in items:
        yield item.mod_policy if item.mod_policy.startswith("/") else f"{path}/{item.mod_policy}"


def test_everything_of_the_channel_and_its_members_is_changed_by_those_admins_alone(network: GeneratedNetwork) -> None:
    root = network.configuration().root

    assert set(governing_policies("/Channel", root)) == {"/Channel/Admins"}
    application = root.groups["Application"]
    assert set(governing_policies("/Channel/Application", application)) == {"/Channel/Application/Admins"}


def test_orderers_keep_their_own_settings_from_the_members(network: GeneratedNetwork, rules: ChannelRules) -> None:
    orderer = network.configuration().root.groups["Orderer"]

    (path,) = set(governing_policies("/Channel/Orderer", orderer))
    assert is_satisfied(rules, policy_reference(path), everybody(network, (ORDERERS,)))
    assert not is_satisfied(rules, policy_reference(path), everybody(network, (*DEPARTMENTS, CUSTOMERS, AUDITORS)))


def test_an_organisation_changes_its_own_part_and_no_other(network: GeneratedNetwork, rules: ChannelRules) -> None:
    application = network.configuration().root.groups["Application"]

    for msp_id, group in application.groups.items():
        (path,) = set(governing_policies(f"/Channel/Application/{msp_id}", group))
        others = [other for other in application.groups if other != msp_id]
        assert is_satisfied(rules, policy_reference(path), everybody(network, (msp_id,)))
        assert not is_satisfied(rules, policy_reference(path), everybody(network, (*others, ORDERERS)))


@pytest.mark.parametrize("role", [UserRole.CLIENT, UserRole.ADMIN])
@pytest.mark.parametrize("level", ["/Channel", "/Channel/Application"])
def test_auditors_read_and_never_write(
    network: GeneratedNetwork, rules: ChannelRules, level: str, role: UserRole
) -> None:
    users = network.topology.organization(AUDITORS).users
    claims = [signed(AUDITORS, network.credentials.user_msp(AUDITORS, u.name)) for u in users if u.role is role]

    assert len(claims) == 1
    assert is_satisfied(rules, policy_reference(f"{level}/Readers"), claims)
    assert not is_satisfied(rules, policy_reference(f"{level}/Writers"), claims)


def test_agents_of_members_read_and_write(network: GeneratedNetwork, rules: ChannelRules) -> None:
    for msp_id in (*DEPARTMENTS, CUSTOMERS):
        claims = [signed(msp_id, network.credentials.user_msp(msp_id, "agent"))]
        for name in ("Readers", "Writers"):
            assert is_satisfied(rules, policy_reference(f"/Channel/Application/{name}"), claims)


def test_a_peer_answers_whoever_may_read(network: GeneratedNetwork) -> None:
    assert channel_of(network).acls["peer/Propose"] == "/Channel/Application/Readers"


# --- that the questions above would be answered otherwise by other policies


def judged_with(network: GeneratedNetwork, **policies: str) -> ChannelRules:
    """Give the rules of the same network with other policies of the channel and of its applications."""
    channel = channel_of(network)
    changed = replace(
        channel,
        channel_policies={**channel.channel_policies, "Admins": policies["Admins"]},
        application_policies={**channel.application_policies, **policies},
    )
    topology = replace(network.topology, channels=(changed,))
    return ChannelRules("consortium", GeneratedNetwork(topology, network.credentials).configuration())


GOVERNED_BY_NAME = {name: rule for name, rule in GOVERNED.items() if name != "writing public state"}


@pytest.mark.parametrize("rule", list(GOVERNED_BY_NAME.values()), ids=list(GOVERNED_BY_NAME))
@pytest.mark.parametrize("how", ["MAJORITY", "ANY"])
def test_with_fabrics_own_majority_the_departments_could(network: GeneratedNetwork, rule: Rule, how: str) -> None:
    endorsement = f"{how} Endorsement"
    rules = judged_with(network, Admins="MAJORITY Admins", Endorsement=endorsement, LifecycleEndorsement=endorsement)
    # Of the channel itself, the orderers are the other half of the groups.
    needed = (*DEPARTMENTS, ORDERERS) if rule is GOVERNED["changing the channel"] else DEPARTMENTS

    assert is_satisfied(rules, rule(rules), everybody(network, needed))


@every_governed
def test_each_pair_of_departments_is_refused_too(network: GeneratedNetwork, rules: ChannelRules, rule: Rule) -> None:
    for pair in combinations(DEPARTMENTS, 2):
        assert not is_satisfied(rules, rule(rules), everybody(network, pair))
