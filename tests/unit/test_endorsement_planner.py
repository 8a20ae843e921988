"""Which peers have to endorse: minimal combinations for every policy together, and the walk over them."""

import itertools

import pytest
from fabric_protos.common import policies_pb2

from network.embedded.services.endorsement_planner import (
    NO_COMBINATION,
    NOT_INSTALLED,
    Candidate,
    EndorsementPlan,
    PlanError,
    combinations_of,
    is_plannable,
)
from network.protocol.identity import decode_serialized_identity
from network.protocol.msp import ChannelMsps, MspDefinition, MspVersion
from network.protocol.policy import ImplicitMetaPolicy, Policy, decode_signature_policy
from network.protocol.transaction import Endorsement
from tests.support.credential import msp_config, out_of, role, root_authority, signature_policy, signed_by

ORGS = ("ServiceMSP", "BillingMSP", "FieldMSP", "CustomerMSP")
PEER = 3
"""`MSPRole.PEER`"""
AUTHORITIES = {org: root_authority(org) for org in ORGS}
MSPS = ChannelMsps(
    [MspDefinition(0, msp_config(org, [authority]).SerializeToString()) for org, authority in AUTHORITIES.items()],
    MspVersion.V3_0,
)


def candidate(msp_id: str, number: int = 0, *, unit: str = "peer", has_chaincodes: bool = True) -> Candidate:
    credential = AUTHORITIES[msp_id].issue(f"{unit}{number}", units=[unit])
    identity = MSPS.identity(decode_serialized_identity(credential.serialized))
    return Candidate(f"{unit}{number}.{msp_id}", msp_id, identity, has_chaincodes)


ALL = [candidate(org) for org in ORGS]


def policy(rule: policies_pb2.SignaturePolicy, *orgs: str) -> Policy:
    envelope = signature_policy(rule, *[role(org, PEER) for org in orgs])
    return decode_signature_policy(envelope.value)


DEPARTMENTS = out_of(1, signed_by(1), signed_by(2), signed_by(3))
PUBLIC = policy(out_of(2, signed_by(0), DEPARTMENTS), "CustomerMSP", "ServiceMSP", "BillingMSP", "FieldMSP")
"""AND('CustomerMSP.peer', OutOf(1, departments))"""


def named(candidates: list[Candidate], *policies: Policy) -> set[frozenset[tuple[str, int]]]:
    """Give the layouts with groups named after the organisation of their first peer."""
    found = combinations_of(candidates, policies, MSPS)
    return {
        frozenset((found.groups[number][0].msp_id, quantity) for number, quantity in layout.items())
        for layout in found.layouts
    }


def test_the_public_policy_needs_the_customers_and_any_one_department() -> None:
    assert named(ALL, PUBLIC) == {
        frozenset({("CustomerMSP", 1), (department, 1)}) for department in ("ServiceMSP", "BillingMSP", "FieldMSP")
    }


def test_policies_of_two_collections_are_satisfied_together() -> None:
    billing = policy(signed_by(0), "BillingMSP")
    field = policy(signed_by(0), "FieldMSP")

    assert named(ALL, billing, field) == {frozenset({("BillingMSP", 1), ("FieldMSP", 1)})}


def test_one_endorsement_serves_every_policy_it_fits() -> None:
    billing = policy(signed_by(0), "BillingMSP")

    assert named(ALL, PUBLIC, billing) == {frozenset({("CustomerMSP", 1), ("BillingMSP", 1)})}


def test_two_of_one_organisation_need_two_peers() -> None:
    twice = policy(out_of(2, signed_by(0), signed_by(0)), "ServiceMSP")

    assert named([*ALL, candidate("ServiceMSP", 1)], twice) == {frozenset({("ServiceMSP", 2)})}
    with pytest.raises(PlanError, match=NO_COMBINATION):
        named(ALL, twice)


def test_an_implicit_policy_counts_organisations() -> None:
    rule = ImplicitMetaPolicy(3, tuple([policy(signed_by(0), org) for org in ORGS]))

    assert named(ALL, rule) == {frozenset((org, 1) for org in three) for three in itertools.combinations(ORGS, 3)}


def test_no_plan_is_made_for_a_policy_that_an_organisation_lacks() -> None:
    # A real peer does not turn such a policy into signatures, though it can be satisfied. (Executed on Fabric 3.1.5.)
    whole = ImplicitMetaPolicy(1, (PUBLIC, policy(signed_by(0), "ServiceMSP")))

    assert is_plannable(PUBLIC)
    assert is_plannable(whole)
    assert not is_plannable(ImplicitMetaPolicy(1, (PUBLIC, None)))
    assert not is_plannable(ImplicitMetaPolicy(1, (whole, ImplicitMetaPolicy(1, (None,)))))


def test_clients_endorse_nothing() -> None:
    with pytest.raises(PlanError, match=NO_COMBINATION):
        named([candidate("ServiceMSP", unit="client"), *ALL[1:3]], PUBLIC)


def test_a_peer_without_the_chaincode_is_in_no_layout() -> None:
    without = [candidate("ServiceMSP", has_chaincodes=False), *ALL[1:]]

    assert named(without, PUBLIC) == {
        frozenset({("CustomerMSP", 1), (department, 1)}) for department in ("BillingMSP", "FieldMSP")
    }


def test_missing_chaincodes_are_told_apart_from_missing_peers() -> None:
    with pytest.raises(PlanError, match=NOT_INSTALLED):
        named([*ALL[:3], candidate("CustomerMSP", has_chaincodes=False)], PUBLIC)
    with pytest.raises(PlanError, match=NO_COMBINATION):
        named(ALL[:3], PUBLIC)


def test_peers_that_no_policy_tells_apart_are_one_group_in_the_order_given() -> None:
    peers = [candidate("ServiceMSP", number) for number in (2, 0, 1)]

    found = combinations_of([*peers, ALL[3]], [PUBLIC], MSPS)

    assert [c.address for c in found.groups[0]] == [c.address for c in peers]


def test_a_search_without_end_is_refused() -> None:
    many = [candidate(org, number) for org in ORGS for number in range(12)]

    with pytest.raises(PlanError, match="more than 10000 combinations"):
        named(many, PUBLIC)


def endorsement(name: str) -> Endorsement:
    return Endorsement(name.encode(), b"signature of " + name.encode())


def plan() -> EndorsementPlan:
    """Service and Customer, or else Billing and Customer; two peers of Service."""
    service = [candidate("ServiceMSP", number) for number in (0, 1)]
    return EndorsementPlan([service, [ALL[1]], [ALL[3]]], [{0: 1, 2: 1}, {1: 1, 2: 1}])


def credit(walk: EndorsementPlan, asked: Candidate, payload: bytes = b"same") -> bool:
    return walk.credit(asked, payload, endorsement(asked.address))


def test_the_first_layout_is_complete_when_each_of_its_peers_agreed() -> None:
    walk = plan()

    asked = walk.next_round()
    results = [credit(walk, one) for one in asked]

    assert [one.msp_id for one in asked] == ["ServiceMSP", "CustomerMSP"]
    assert results == [True, True]
    assert walk.endorsements == tuple([endorsement(one.address) for one in asked])
    assert walk.next_round() == []


def test_a_failed_peer_is_replaced_from_its_group() -> None:
    walk = plan()
    service, customer = walk.next_round()

    other = walk.replacement(service)

    assert other is not None
    assert other.address == "peer1.ServiceMSP"
    assert credit(walk, other)
    assert credit(walk, customer)
    assert walk.endorsements is not None


def test_a_group_without_peers_ends_its_layouts_and_the_next_one_keeps_what_is_there() -> None:
    walk = plan()
    service, customer = walk.next_round()
    credit(walk, customer)
    other = walk.replacement(service)
    assert other is not None
    assert walk.replacement(other) is None

    second = walk.next_round()

    assert [one.msp_id for one in second] == ["BillingMSP"]
    assert credit(walk, second[0])
    assert walk.endorsements == (endorsement("peer0.CustomerMSP"), endorsement("peer0.BillingMSP"))


def test_an_endorsement_made_before_the_plan_counts_in_every_layout() -> None:
    walk = plan()
    credit(walk, ALL[3])

    assert [one.msp_id for one in walk.next_round()] == ["ServiceMSP"]


def test_a_peer_that_endorsed_already_is_not_asked_again() -> None:
    twice = EndorsementPlan([[ALL[0], candidate("ServiceMSP", 1)]], [{0: 2}])
    credit(twice, ALL[0])

    assert [one.address for one in twice.next_round()] == ["peer1.ServiceMSP"]


def test_a_payload_that_differs_from_the_first_is_no_endorsement() -> None:
    walk = plan()
    service, customer = walk.next_round()
    assert credit(walk, service)

    assert not credit(walk, customer, b"other")
    assert walk.endorsements is None


def test_layouts_that_cannot_be_filled_are_passed_over() -> None:
    walk = EndorsementPlan([[ALL[0]], [ALL[1]]], [{0: 2}, {1: 1}])

    assert [one.msp_id for one in walk.next_round()] == ["BillingMSP"]


def test_an_endorser_counts_once() -> None:
    walk = EndorsementPlan([[ALL[0], candidate("ServiceMSP", 1)]], [{0: 2}])
    for asked in walk.next_round():
        walk.credit(asked, b"same", endorsement("one"))

    assert walk.endorsements == (endorsement("one"),)
