"""Whom a gateway asks: named organisations, its own one, and those who may see what is private.

Measured on peers of 3.1.5; sources: internal/pkg/gateway/{evaluate,endorse,registry}.go.
"""

from collections.abc import Sequence
from typing import Any

import pytest
from fabric_protos.gateway import gateway_pb2, gateway_pb2_grpc

from tests.support.live_network import BILLING, CUSTOMER, FIELD, SERVICE, LiveNetwork
from tests.support.service_request import Detail, ProposalSpec, Refused, called, signed_proposal

SECRET = {"secret": b"not to be shown"}
PROTECT = (
    "no endorsers found in the gateway's organization; retry specifying {} organization(s) to protect transient data"
)


def evaluate(network: LiveNetwork, spec: ProposalSpec, organizations: Sequence[str] = ()) -> Any:
    async def story() -> Any:
        proposal = signed_proposal(network.identity(SERVICE, "agent"), spec)
        request = gateway_pb2.EvaluateRequest(proposed_transaction=proposal, target_organizations=organizations)
        async with network.channel(SERVICE) as channel:
            return await called(network, gateway_pb2_grpc.GatewayStub(channel.grpc).Evaluate(request, timeout=30))

    return network.run(story)


def endorse(network: LiveNetwork, spec: ProposalSpec, organizations: Sequence[str] = ()) -> Any:
    async def story() -> Any:
        proposal = signed_proposal(network.identity(SERVICE, "agent"), spec)
        request = gateway_pb2.EndorseRequest(proposed_transaction=proposal, endorsing_organizations=organizations)
        async with network.channel(SERVICE) as channel:
            return await called(network, gateway_pb2_grpc.GatewayStub(channel.grpc).Endorse(request, timeout=30))

    return network.run(story)


def noting(network: LiveNetwork, function: bytes = b"disagree_once", **fields: Any) -> tuple[str, ProposalSpec]:
    """Give a proposal that leaves a mark at each organisation asked, and the name of the mark."""
    name = network.fresh("asked")
    return name, ProposalSpec(arguments=(function, name.encode()), **fields)


@pytest.mark.parametrize("organizations", [[CUSTOMER], [FIELD], [SERVICE]])
def test_one_of_the_named_organisations_evaluates(network: LiveNetwork, organizations: list[str]) -> None:
    name, spec = noting(network)

    assert evaluate(network, spec, organizations).result.status == 200
    assert network.probed(name) == set(organizations)


def test_the_own_organisation_evaluates_unless_others_are_named(network: LiveNetwork) -> None:
    name, spec = noting(network)

    assert evaluate(network, spec).result.status == 200
    assert network.probed(name) == {SERVICE}


def test_of_several_named_the_own_organisation_evaluates(network: LiveNetwork) -> None:
    name, spec = noting(network)

    assert evaluate(network, spec, [CUSTOMER, SERVICE]).result.status == 200
    assert network.probed(name) == {SERVICE}


@pytest.mark.parametrize("organizations", [["NowhereMSP"], ["AuditorMSP", "NowhereMSP"]])
def test_nobody_evaluates_where_no_peer_is(network: LiveNetwork, organizations: list[str]) -> None:
    assert evaluate(network, ProposalSpec(), organizations) == Refused(
        "FAILED_PRECONDITION", "no peers available to evaluate chaincode probe in channel consortium"
    )


def test_each_named_organisation_endorses_and_no_other(network: LiveNetwork) -> None:
    name, spec = noting(network, b"note_private", transient=SECRET)

    assert not isinstance(endorse(network, spec, [BILLING, SERVICE]), Refused)
    assert network.probed(name) == {BILLING, SERVICE}


def test_organisations_without_peers_are_named(network: LiveNetwork) -> None:
    assert endorse(network, ProposalSpec(), [SERVICE, "AuditorMSP", "NowhereMSP"]) == Refused(
        "UNAVAILABLE", "failed to find any endorsing peers for org(s): AuditorMSP, NowhereMSP"
    )


def test_what_each_named_organisation_said_is_told(network: LiveNetwork) -> None:
    refusal = "chaincode response 403, not today"

    found = endorse(network, ProposalSpec(arguments=(b"refuse", b"403", b"not today")), [SERVICE, CUSTOMER])

    assert isinstance(found, Refused)
    assert (found.code, found.words) == (
        "ABORTED",
        "failed to collect enough transaction endorsements, see attached details for more info",
    )
    assert set(found.details) == {Detail("peer0.service", refusal), Detail("peer0.customer", refusal)}


def test_endorsers_that_disagree_are_named(network: LiveNetwork) -> None:
    _, spec = noting(network)

    found = endorse(network, spec, [SERVICE, CUSTOMER])

    assert isinstance(found, Refused)
    assert found.code == "ABORTED"
    (detail,) = found.details
    assert detail.node in {"peer0.service", "peer0.customer"}
    assert detail.words == "ProposalResponsePayloads do not match"


def test_transient_data_stays_at_home_unless_others_are_named(network: LiveNetwork) -> None:
    name, spec = noting(network, transient=SECRET)

    assert evaluate(network, spec).result.status == 200
    assert network.probed(name) == {SERVICE}


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            evaluate,
            f"{PROTECT.format('target')}: no peers available to evaluate chaincode nowhere in channel consortium",
        ),
        (endorse, PROTECT.format("endorsing")),
    ],
    ids=["evaluate", "endorse"],
)
def test_transient_data_is_not_sent_away_where_nobody_at_home_runs_the_chaincode(
    network: LiveNetwork, call: Any, words: str
) -> None:
    spec = ProposalSpec(chaincode="nowhere", transient=SECRET)

    assert call(network, spec) == Refused("FAILED_PRECONDITION", words)


def test_transient_data_goes_to_members_of_the_collections_that_are_written(network: LiveNetwork) -> None:
    name, spec = noting(network, b"note_private", transient=SECRET)

    assert not isinstance(endorse(network, spec), Refused)
    assert network.probed(name) == {SERVICE, BILLING}


def test_transient_data_that_others_would_have_to_see_is_kept_back(network: LiveNetwork) -> None:
    name, spec = noting(network, b"note_both", transient=SECRET)

    assert endorse(network, spec) == Refused(
        "FAILED_PRECONDITION",
        "requires endorsement from organisation(s) that are not in the distribution policy of the private data "
        "collection(s): [pair]; retry specifying trusted endorsing organizations to protect transient data",
    )
    assert network.probed(name) == {SERVICE}
