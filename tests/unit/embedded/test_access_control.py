"""Who may ask a peer for what: every resource, every reason to refuse."""

from typing import Any

import pytest

from network.embedded.ledger.access_control import (
    CHANNEL_RESOURCES,
    LOCAL_RESOURCES,
    AccessError,
    check_access,
    check_local_access,
)
from network.protocol.endorsement_policy import ChannelRules
from network.protocol.policy import SignedData
from tests.support.chain_factory import Signer, set_policy
from tests.support.credential import implicit_policy
from tests.support.embedded_channel import rules_of, signed_by, with_acls
from tests.support.judged_channel import JudgedChannel

CHANNEL = JudgedChannel()
RULES = rules_of(CHANNEL)
CLIENT = CHANNEL.enterprise.client
PEER = CHANNEL.enterprise.peer
ADMIN = CHANNEL.enterprise.issue("admin", "admin")
STRANGER = JudgedChannel(seed=1).enterprise.client
WITHOUT_ROLE = CHANNEL.enterprise.issue("nobody", "no role")
ENTERPRISE = CHANNEL.enterprise.msp_id
DURING = "during channelless check policy with policy"
NOT_HELD = (
    r"implicit policy evaluation failed - 0 sub-policies were satisfied, but this policy requires 1 of the '{}' "
    "sub-policies to be satisfied"
)


def refusal(resource: str, signed: SignedData, rules: ChannelRules = RULES) -> str:
    with pytest.raises(AccessError) as caught:
        check_access(resource, signed, rules)
    return str(caught.value)


def local_refusal(resource: str, signed: SignedData) -> str:
    with pytest.raises(AccessError) as caught:
        check_local_access(resource, signed, ENTERPRISE, RULES.msps)
    return str(caught.value)


@pytest.mark.parametrize("resource", sorted(CHANNEL_RESOURCES))
def test_clients_may_use_what_is_the_channels(resource: str) -> None:
    check_access(resource, signed_by(CLIENT), RULES)


@pytest.mark.parametrize("resource", sorted(CHANNEL_RESOURCES))
def test_peers_may_read_and_not_write(resource: str) -> None:
    policy = CHANNEL_RESOURCES[resource]
    if policy.endswith("/Readers"):
        check_access(resource, signed_by(PEER), RULES)
        return

    text = refusal(resource, signed_by(PEER))

    assert text == (
        "Failed evaluating policy on signed data during check policy on channel [consortium] with policy "
        f"[/Channel/Application/Writers]: [{NOT_HELD.format('Writers')}]"
    )


@pytest.mark.parametrize("resource", ["event/Block", "peer/Propose"])
@pytest.mark.parametrize(
    "signed",
    [
        pytest.param(signed_by(STRANGER), id="of another authority"),
        pytest.param(signed_by(WITHOUT_ROLE), id="without a role"),
        pytest.param(signed_by(CLIENT)._replace(data=b"other"), id="other data"),
        pytest.param(signed_by(CLIENT)._replace(signature=b""), id="no signature"),
        pytest.param(signed_by(CLIENT)._replace(identity=b"\xff"), id="no identity"),
    ],
)
def test_refuses_who_is_no_member_or_did_not_sign(resource: str, signed: SignedData) -> None:
    assert NOT_HELD.format(CHANNEL_RESOURCES[resource].rpartition("/")[2]) in refusal(resource, signed)


def test_a_policy_that_is_missing_lets_nobody_in() -> None:
    def without_readers(group: Any) -> None:
        del group.groups["Application"].policies["Readers"]

    assert refusal("event/Block", signed_by(CLIENT), rules_of(CHANNEL, without_readers)) == (
        "Failed evaluating policy on signed data during check policy on channel [consortium] with policy "
        "[/Channel/Application/Readers]: [no such policy: 'Application/Readers']"
    )


def test_refuses_a_resource_that_does_not_exist() -> None:
    assert refusal("qscc/GetEverything", signed_by(ADMIN)) == "Unmapped policy for qscc/GetEverything"


@pytest.mark.parametrize("reference", ["/Channel/Application/Enterprise/Admins", "Enterprise/Admins"])
def test_a_channel_names_another_policy_by_absolute_or_relative_path(reference: str) -> None:
    rules = rules_of(CHANNEL, with_acls({"event/Block": reference}))

    check_access("event/Block", signed_by(ADMIN), rules)
    check_access("event/FilteredBlock", signed_by(CLIENT), rules)
    text = refusal("event/Block", signed_by(CLIENT), rules)

    assert text == (
        "failed evaluating policy on signed data during check policy [/Channel/Application/Enterprise/Admins]: "
        "[signature set did not satisfy policy]"
    )


def test_a_channel_that_names_a_policy_it_does_not_have_lets_nobody_in() -> None:
    rules = rules_of(CHANNEL, with_acls({"event/Block": "Nothing"}))

    assert refusal("event/Block", signed_by(ADMIN), rules) == (
        "failed evaluating policy on signed data during check policy [/Channel/Application/Nothing]: "
        "[policy /Channel/Application/Nothing not found]"
    )


def test_a_channel_that_names_no_policy_for_a_resource_leaves_the_default() -> None:
    rules = rules_of(CHANNEL, with_acls({"event/Block": ""}))

    check_access("event/Block", signed_by(CLIENT), rules)
    assert "on channel [consortium]" in refusal("event/Block", signed_by(STRANGER), rules)


def test_a_channel_may_name_a_policy_for_a_resource_without_default() -> None:
    rules = rules_of(CHANNEL, with_acls({"qscc/GetEverything": "Readers"}))

    check_access("qscc/GetEverything", signed_by(CLIENT), rules)


@pytest.mark.parametrize("resource", sorted(LOCAL_RESOURCES))
def test_a_channel_cannot_give_away_what_is_the_peers_own(resource: str) -> None:
    rules = rules_of(CHANNEL, with_acls({resource: "Readers"}))

    assert refusal(resource, signed_by(CLIENT), rules) == f"Unmapped policy for {resource}"


def test_counts_the_organisations_that_a_policy_lacks() -> None:
    def needs_both(group: Any) -> None:
        set_policy(group.groups["Application"], "Readers", implicit_policy("Readers", 1))

    text = refusal("event/Block", signed_by(CLIENT), rules_of(CHANNEL, needs_both))

    assert "1 sub-policies were satisfied, but this policy requires 2 of the 'Readers'" in text


# --- the peer's own organisation


@pytest.mark.parametrize("resource", sorted(LOCAL_RESOURCES))
def test_admins_of_the_peers_organisation_may_use_what_is_its_own(resource: str) -> None:
    check_local_access(resource, signed_by(ADMIN), ENTERPRISE, RULES.msps)


@pytest.mark.parametrize("resource", sorted(LOCAL_RESOURCES))
def test_members_may_list_channels_and_nothing_else(resource: str) -> None:
    if resource == "cscc/GetChannels":
        check_local_access(resource, signed_by(CLIENT), ENTERPRISE, RULES.msps)
        return

    assert local_refusal(resource, signed_by(CLIENT)) == (
        f"Failed verifying that proposal's creator satisfies local MSP principal {DURING} [Admins]: [The identity is "
        "not an admin under this MSP [EnterpriseMSP]: The identity does not contain OU [ADMIN], MSP: [EnterpriseMSP]]"
    )


@pytest.mark.parametrize(("resource", "policy"), [("cscc/JoinChain", "Admins"), ("cscc/GetChannels", "Members")])
def test_refuses_an_admin_of_another_organisation(resource: str, policy: str) -> None:
    other = CHANNEL.customer.issue("admin", "admin")

    assert local_refusal(resource, signed_by(other)) == (
        f"Failed deserializing proposal creator {DURING} [{policy}]: [expected MSP ID EnterpriseMSP, received "
        "CustomerMSP]"
    )


@pytest.mark.parametrize(
    ("resource", "start"),
    [
        ("cscc/GetChannels", "[Members]: [identity "),
        ("cscc/JoinChain", "[Admins]: [The identity is not valid under this MSP [EnterpriseMSP]: identity "),
    ],
)
def test_refuses_an_identity_that_the_organisation_does_not_vouch_for(resource: str, start: str) -> None:
    text = local_refusal(resource, signed_by(WITHOUT_ROLE))

    assert text.startswith(f"Failed verifying that proposal's creator satisfies local MSP principal {DURING} {start}")


@pytest.mark.parametrize("signer", [STRANGER, None])
def test_refuses_an_identity_that_cannot_be_read(signer: Signer | None) -> None:
    signed = SignedData(b"\xff", b"proposal", b"") if signer is None else signed_by(signer)

    assert local_refusal("cscc/GetChannels", signed).startswith(
        f"Failed deserializing proposal creator {DURING} [Members]: ["
    )


@pytest.mark.parametrize(
    "signed", [signed_by(ADMIN)._replace(data=b"other"), signed_by(ADMIN)._replace(signature=CLIENT.sign(b"proposal"))]
)
def test_refuses_an_admin_who_did_not_sign(signed: SignedData) -> None:
    assert local_refusal("cscc/JoinChain", signed) == "The signature is invalid"


def test_what_is_the_channels_is_nobodys_without_a_channel() -> None:
    assert local_refusal("_lifecycle/QueryChaincodeDefinition", signed_by(ADMIN)) == (
        f"Failed getting local MSP principal {DURING} [/Channel/Application/Writers]: [MSP Principal role "
        "[/Channel/Application/Writers] not recognized]"
    )
    assert local_refusal("_lifecycle/Nothing", signed_by(ADMIN)) == "Unmapped policy for _lifecycle/Nothing"
