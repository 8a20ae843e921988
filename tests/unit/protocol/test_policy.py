import contextlib
from collections.abc import Sequence

import pytest
from fabric_protos.common import policies_pb2
from fabric_protos.msp import identities_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from network.protocol import limits
from network.protocol.config_group import ConfigGroup, ConfigPolicy
from network.protocol.errors import ConfigurationError, DecodeError, LimitExceededError, PolicyError
from network.protocol.msp import TYPE_FABRIC, ChannelMsps, MspDefinition, MspVersion
from network.protocol.policy import (
    ChannelPolicies,
    SignedData,
    decode_signature_policy,
    is_satisfied,
    verified_signatures,
)
from tests.support.credential import (
    Credential,
    any_of,
    high_s,
    identity_principal,
    implicit_policy,
    msp_config,
    out_of,
    role,
    root_authority,
    signature_policy,
    signed_by,
)

MEMBER, ADMIN, CLIENT, PEER = 0, 1, 2, 3
CAS = {msp_id: root_authority(msp_id) for msp_id in ("AMSP", "BMSP", "CMSP")}
MSPS = ChannelMsps(
    [MspDefinition(TYPE_FABRIC, msp_config(msp_id, [ca]).SerializeToString()) for msp_id, ca in CAS.items()],
    MspVersion.V3_0,
)
A, B, C = (ca.issue(units=("client",)) for ca in CAS.values())
A_PEER, A_ADMIN = CAS["AMSP"].issue(units=("peer",)), CAS["AMSP"].issue(units=("admin",))


def signed(*credentials: Credential, data: bytes = b"data") -> list[SignedData]:
    return [SignedData(credential.serialized, data, credential.sign(data)) for credential in credentials]


def satisfies(policy: policies_pb2.Policy, *credentials: Credential) -> bool:
    identities = [found.identity for found in verified_signatures(signed(*credentials), MSPS)]
    return is_satisfied(decode_signature_policy(policy.value), identities, MSPS)


def group(
    policies: dict[str, policies_pb2.Policy] | None = None, groups: dict[str, ConfigGroup] | None = None
) -> ConfigGroup:
    entries = {key: ConfigPolicy(0, value.type, value.value, "") for key, value in (policies or {}).items()}
    return ConfigGroup(0, groups or {}, {}, entries, "")


# --- which signatures count


def test_counts_each_identity_once() -> None:
    assert [found.position for found in verified_signatures(signed(A, A, B, A), MSPS)] == [0, 2]


def test_counts_two_wrappings_of_one_certificate_once() -> None:
    data = b"data"
    high, low = A.in_form(high=True), A.in_form(high=False)
    claims = [SignedData(form.serialized, data, A.sign(data)) for form in (low, high)]

    assert len(verified_signatures(claims, MSPS)) == 1


def test_wrong_signature_does_not_spend_its_identity() -> None:
    good, bad = signed(A)[0], SignedData(A.serialized, b"data", A.sign(b"other"))

    assert [found.position for found in verified_signatures([bad, good], MSPS)] == [1]


def test_second_signature_of_an_identity_is_not_looked_at() -> None:
    good, bad = signed(A)[0], SignedData(A.serialized, b"data", b"garbage")

    assert [found.position for found in verified_signatures([good, bad], MSPS)] == [0]


@pytest.mark.parametrize(
    "claim",
    [
        SignedData(b"", b"data", A.sign(b"data")),
        SignedData(b"\xff\xff", b"data", A.sign(b"data")),
        SignedData(identities_pb2.SerializedIdentity(mspid="NoMSP", id_bytes=A.pem).SerializeToString(), b"data", b""),
        SignedData(A.serialized_as(b"no certificate"), b"data", A.sign(b"data")),
        SignedData(Credential("BMSP", A.certificate, A.key).serialized, b"data", A.sign(b"data")),
        SignedData(A.serialized, b"data", high_s(A.sign(b"data"), A.key.curve)),  # type: ignore[union-attr]  # P-256
        SignedData(A.serialized, b"data", b""),
    ],
    ids=["no identity", "no message", "no such MSP", "no certificate", "another MSP", "high S", "no signature"],
)
def test_leaves_out_signatures_that_do_not_check_out(claim: SignedData) -> None:
    assert [found.position for found in verified_signatures([claim, *signed(B)], MSPS)] == [1]


# --- signature policies


def test_threshold_counts_rules() -> None:
    two_of_three = signature_policy(
        out_of(2, *map(signed_by, range(3))), role("AMSP", MEMBER), role("BMSP", MEMBER), role("CMSP", MEMBER)
    )

    assert satisfies(two_of_three, A, C)
    assert satisfies(two_of_three, A, B, C)
    assert not satisfies(two_of_three, B)
    assert not satisfies(two_of_three, A, A_PEER)


def test_threshold_of_nothing_is_satisfied_and_of_too_much_never() -> None:
    principal = role("AMSP", MEMBER)

    assert satisfies(signature_policy(out_of(0, signed_by(0)), principal))
    assert satisfies(signature_policy(out_of(0)))
    assert satisfies(signature_policy(out_of(-1)))
    assert not satisfies(signature_policy(out_of(2, signed_by(0)), principal), A, A_PEER)


def test_one_identity_serves_one_leaf() -> None:
    both = signature_policy(out_of(2, signed_by(0), signed_by(0)), role("AMSP", MEMBER))

    assert not satisfies(both, A)
    assert satisfies(both, A, A_PEER)


def test_greedy_leaf_uses_up_what_a_later_leaf_needs() -> None:
    member_then_peer = signature_policy(out_of(2, signed_by(0), signed_by(1)), role("AMSP", MEMBER), role("AMSP", PEER))
    peer_then_member = signature_policy(out_of(2, signed_by(1), signed_by(0)), role("AMSP", MEMBER), role("AMSP", PEER))

    assert not satisfies(member_then_peer, A_PEER, A)
    assert satisfies(member_then_peer, A, A_PEER)
    assert satisfies(peer_then_member, A_PEER, A)


def test_gate_goes_on_using_up_identities_when_it_has_enough() -> None:
    any_member_twice_then_client = signature_policy(
        out_of(2, out_of(1, signed_by(0), signed_by(1)), signed_by(1)), role("AMSP", PEER), role("AMSP", CLIENT)
    )

    assert not satisfies(any_member_twice_then_client, A_PEER, A)
    assert satisfies(any_member_twice_then_client, A_PEER, A, CAS["AMSP"].issue(units=("client",)))


def test_failed_gate_gives_back_what_it_took() -> None:
    rule = out_of(1, out_of(2, signed_by(0), signed_by(1)), out_of(1, signed_by(0)))
    policy = signature_policy(rule, role("AMSP", CLIENT), role("BMSP", CLIENT))

    assert satisfies(policy, A)


def test_identity_principal_demands_that_very_certificate() -> None:
    policy = any_of(identity_principal(A))

    assert satisfies(policy, A)
    assert satisfies(policy, A.in_form(high=True))
    assert not satisfies(policy, A_PEER, A_ADMIN)


@pytest.mark.parametrize(
    "envelope",
    [
        policies_pb2.SignaturePolicyEnvelope(version=1, rule=out_of(0)),
        policies_pb2.SignaturePolicyEnvelope(),
        policies_pb2.SignaturePolicyEnvelope(rule=signed_by(0)),
        policies_pb2.SignaturePolicyEnvelope(rule=signed_by(-1), identities=[role("AMSP", 0)]),
        policies_pb2.SignaturePolicyEnvelope(rule=out_of(1, policies_pb2.SignaturePolicy())),
    ],
    ids=["version", "no rule", "index too large", "index negative", "empty rule"],
)
def test_refuses_signature_policy_that_fabric_does_not_compile(envelope: policies_pb2.SignaturePolicyEnvelope) -> None:
    with pytest.raises(ConfigurationError):
        decode_signature_policy(envelope.SerializeToString())


def test_bounds_size_and_depth_of_signature_policies() -> None:
    deep = signed_by(0)
    for _ in range(limits.MAX_POLICY_DEPTH + 1):
        deep = out_of(1, deep)
    wide = out_of(1, *[signed_by(0)] * limits.MAX_POLICY_RULES)

    for rule in (deep, wide):
        with pytest.raises(LimitExceededError):
            decode_signature_policy(signature_policy(rule, role("AMSP", 0)).value)


# --- implicit meta policies


def implicit_root(rule: int, children: Sequence[str], *, missing: Sequence[str] = ()) -> ChannelPolicies:
    groups = {
        msp_id: group({} if msp_id in missing else {"Writers": any_of(role(msp_id, MEMBER))}) for msp_id in children
    }
    return ChannelPolicies(group({"Writers": implicit_policy("Writers", rule)}, groups), MSPS)


def holds(policies: ChannelPolicies, *credentials: Credential, path: str = "/Channel/Writers") -> bool:
    try:
        policies.evaluate_signed_data(path, signed(*credentials))
    except PolicyError:
        return False
    return True


ALL = ("AMSP", "BMSP", "CMSP")


@pytest.mark.parametrize(
    ("rule", "children", "needed"),
    [(0, ALL, 1), (1, ALL, 3), (2, ALL, 2), (0, ALL[:2], 1), (1, ALL[:2], 2), (2, ALL[:2], 2), (2, ALL[:1], 1)],
)
def test_implicit_policy_needs_any_all_or_majority(rule: int, children: Sequence[str], needed: int) -> None:
    policies = implicit_root(rule, children)
    signers = [A, B, C][: len(children)]

    assert [holds(policies, *signers[:count]) for count in range(len(signers) + 1)] == [
        count >= needed for count in range(len(signers) + 1)
    ]


@pytest.mark.parametrize("rule", [0, 1, 2])
def test_implicit_policy_over_no_groups_is_satisfied_by_nothing(rule: int) -> None:
    assert holds(implicit_root(rule, ()))


def test_child_without_the_policy_counts_as_one_that_never_holds() -> None:
    assert not holds(implicit_root(1, ALL, missing=["CMSP"]), A, B, C)
    assert not holds(implicit_root(2, ALL, missing=["BMSP", "CMSP"]), A, B, C)
    assert holds(implicit_root(2, ALL, missing=["CMSP"]), A, B)
    assert not holds(implicit_root(0, ALL[:1], missing=["AMSP"]), A)


def test_rule_that_does_not_exist_never_holds() -> None:
    policies = implicit_root(7, ALL)

    assert not holds(policies)
    assert not holds(policies, A, B, C)


def test_every_child_is_judged_with_all_identities() -> None:
    shared = {name: group({"Writers": any_of(role("AMSP", MEMBER))}) for name in ("One", "Two")}
    policies = ChannelPolicies(group({"Writers": implicit_policy("Writers", 1)}, shared), MSPS)

    assert holds(policies, A)


def test_policies_are_found_by_absolute_path_on_every_level() -> None:
    organization = group({"Writers": any_of(role("AMSP", MEMBER))})
    policies = ChannelPolicies(
        group(groups={"Orderer": group({"Gate": implicit_policy("Writers", 0)}, {"Org": organization})}), MSPS
    )

    assert set(policies.by_path) == {"/Channel/Orderer/Gate", "/Channel/Orderer/Org/Writers"}
    assert holds(policies, A, path="/Channel/Orderer/Org/Writers")
    assert holds(policies, A, path="/Channel/Orderer/Gate")


def test_implicit_policy_may_name_a_policy_by_its_absolute_path() -> None:
    organization = group({"Writers": any_of(role("AMSP", MEMBER))})
    root = group({"W": implicit_policy("/Channel/Org/Writers", 0)}, {"Org": organization})

    assert holds(ChannelPolicies(root, MSPS), A, path="/Channel/W")


def test_missing_policy_is_refused_by_path() -> None:
    with pytest.raises(PolicyError, match="/Channel/Nothing: no such policy"):
        ChannelPolicies(group(), MSPS).evaluate_signed_data("/Channel/Nothing", signed(A))


def test_error_names_path_and_counts() -> None:
    policies = implicit_root(1, ALL)

    with pytest.raises(PolicyError, match=r"^/Channel/Writers: not satisfied by 2 good of 4 signatures$"):
        policies.evaluate_signed_data("/Channel/Writers", [*signed(A, B, A), SignedData(C.serialized, b"data", b"")])


def test_remembered_verdict_is_not_given_for_other_identities() -> None:
    policies = implicit_root(2, ALL)

    assert [holds(policies, A, B), holds(policies, A), holds(policies, B, C), holds(policies)] == [
        True,
        False,
        True,
        False,
    ]


@pytest.mark.parametrize(
    "policy",
    [
        policies_pb2.Policy(type=0),
        policies_pb2.Policy(type=2),
        policies_pb2.Policy(type=9),
        policies_pb2.Policy(type=1, value=b"\xff"),
        policies_pb2.Policy(type=3, value=b"\xff"),
    ],
    ids=["unknown", "MSP", "of the future", "no signature policy", "no implicit policy"],
)
def test_refuses_tree_with_a_policy_that_fabric_does_not_build(policy: policies_pb2.Policy) -> None:
    with pytest.raises(ConfigurationError, match="/Channel/Org/Odd"):
        ChannelPolicies(group(groups={"Org": group({"Odd": policy})}), MSPS)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=120))
def test_random_bytes_are_a_policy_or_raise_our_error(content: bytes) -> None:
    with contextlib.suppress(DecodeError, ConfigurationError):
        is_satisfied(decode_signature_policy(content), [], MSPS)
    claims = [SignedData(content, content, content)]
    assert verified_signatures(claims, MSPS) == []
