"""Collections: both ways, members, implicit ones, and what a definition may ask for, in Fabric's words."""

from contextlib import suppress
from typing import Any

import pytest
from fabric_protos.common import policies_pb2
from fabric_protos.peer import collection_pb2, policy_pb2
from hypothesis import given
from hypothesis import strategies as st

from network.protocol.collection import (
    CollectionConfig,
    check_collections,
    decode_collections,
    encode_collections,
    find_collection,
    implicit_collection,
    implicit_collection_name,
    implicit_collection_owner,
    is_member,
    member_msp_ids,
    members_policy,
)
from network.protocol.errors import DecodeError, DefinitionError
from network.protocol.identity import SerializedIdentity
from network.protocol.lifecycle import policy_reference
from network.protocol.msp import TYPE_FABRIC, ChannelMsps, MspDefinition, MspVersion
from network.protocol.policy_expression import encode_policy_expression
from tests.support.credential import Credential, identity_principal, msp_config, role, root_authority

CAS = {msp_id: root_authority(msp_id) for msp_id in ("AMSP", "BMSP")}
MSPS = ChannelMsps(
    [MspDefinition(TYPE_FABRIC, msp_config(msp_id, [ca]).SerializeToString()) for msp_id, ca in CAS.items()],
    MspVersion.V3_0,
)
A, B = (ca.issue() for ca in CAS.values())
BOTH = members_policy("AMSP", "BMSP")
FULL = CollectionConfig(
    "deals",
    BOTH,
    required_peer_count=1,
    maximum_peer_count=2,
    block_to_live=10,
    member_only_read=True,
    member_only_write=True,
    endorsement_policy=policy_reference("/Channel/Application/Endorsement"),
)
PLAIN = CollectionConfig("plain", BOTH)


def identity(credential: Credential) -> Any:
    return MSPS.identity(SerializedIdentity(credential.msp_id, credential.pem))


def check(*configs: CollectionConfig, committed: tuple[CollectionConfig, ...] = ()) -> None:
    check_collections(encode_collections(configs), encode_collections(committed), MSPS)


# --- both ways


def test_configurations_come_back_as_they_were() -> None:
    assert decode_collections(encode_collections([FULL, PLAIN])) == (FULL, PLAIN)


def test_no_collections_are_no_bytes() -> None:
    assert encode_collections([]) == b""
    assert decode_collections(b"") == ()


def test_encoding_is_fabrics() -> None:
    static = collection_pb2.StaticCollectionConfig(
        name="deals",
        member_orgs_policy=collection_pb2.CollectionPolicyConfig(
            signature_policy=policies_pb2.SignaturePolicyEnvelope.FromString(BOTH)
        ),
        required_peer_count=1,
        maximum_peer_count=2,
        block_to_live=10,
        member_only_read=True,
        member_only_write=True,
        endorsement_policy=policy_pb2.ApplicationPolicy(
            channel_config_policy_reference="/Channel/Application/Endorsement"
        ),
    )
    package = collection_pb2.CollectionConfigPackage(
        config=[collection_pb2.CollectionConfig(static_collection_config=static)]
    )

    assert encode_collections([FULL]) == package.SerializeToString()


def test_entries_of_an_unknown_kind_are_left_out() -> None:
    assert decode_collections(encode_collections([PLAIN]) + b"\x0a\x00") == (PLAIN,)


@pytest.mark.parametrize("field", ["member_policy", "endorsement_policy"])
def test_policy_that_is_none_cannot_be_encoded(field: str) -> None:
    with pytest.raises(DecodeError):
        encode_collections([FULL._replace(**{field: b"\xff"})])


@given(st.binary(max_size=60))
def test_any_bytes_give_collections_or_our_error(content: bytes) -> None:
    with suppress(DecodeError, DefinitionError):
        decode_collections(content)
        check_collections(content, b"", MSPS)


# --- members


def test_member_is_who_satisfies_the_policy_alone() -> None:
    only_a = PLAIN._replace(member_policy=members_policy("AMSP"))

    assert is_member(only_a, identity(A), MSPS)
    assert not is_member(only_a, identity(B), MSPS)
    assert is_member(PLAIN, identity(B), MSPS)


def test_member_policy_may_ask_for_a_role() -> None:
    peers = PLAIN._replace(member_policy=encode_policy_expression("OR('AMSP.peer')"))

    assert is_member(peers, identity(CAS["AMSP"].issue(units=("peer",))), MSPS)
    assert not is_member(peers, identity(A), MSPS)


def test_policy_that_cannot_be_read_has_no_members() -> None:
    assert not is_member(PLAIN._replace(member_policy=b"\xff"), identity(A), MSPS)
    assert not is_member(PLAIN._replace(member_policy=b""), identity(A), MSPS)


def test_organisations_of_a_collection_are_those_its_policy_names() -> None:
    assert member_msp_ids(PLAIN) == {"AMSP", "BMSP"}
    named = policies_pb2.SignaturePolicyEnvelope(identities=[identity_principal(A)])
    assert member_msp_ids(PLAIN._replace(member_policy=named.SerializeToString())) == {"AMSP"}


# --- implicit collections


def test_implicit_collection_belongs_to_one_organisation_for_ever() -> None:
    config = implicit_collection("AMSP")

    assert config == CollectionConfig("_implicit_org_AMSP", members_policy("AMSP"))
    assert is_member(config, identity(A), MSPS)
    assert not is_member(config, identity(B), MSPS)


def test_names_of_implicit_collections_tell_their_owner() -> None:
    assert implicit_collection_owner(implicit_collection_name("AMSP")) == "AMSP"
    assert implicit_collection_owner("deals") is None


def test_collections_are_found_by_name() -> None:
    assert find_collection([PLAIN, FULL], "deals") == FULL
    assert find_collection([PLAIN], "_implicit_org_BMSP") == implicit_collection("BMSP")
    assert find_collection([PLAIN], "other") is None


# --- what a definition may ask for


def with_policy(content: bytes) -> CollectionConfig:
    return PLAIN._replace(member_policy=content)


def envelope(*principals: Any) -> bytes:
    rule = policies_pb2.SignaturePolicy(signed_by=0)
    return bytes(policies_pb2.SignaturePolicyEnvelope(rule=rule, identities=principals).SerializeToString())


def test_good_collections_pass() -> None:
    check()
    check(FULL, PLAIN)
    check(with_policy(envelope(role("AMSP", 3))))
    check(with_policy(envelope(identity_principal(A))))
    check(with_policy(encode_policy_expression("OR('AMSP.peer', OR('BMSP.peer', 'BMSP.admin'))")))


NAME_RULE = "Names can only consist of alphanumerics, '_', and '-' and cannot begin with '_'"
REFUSED = {
    "name": (
        [PLAIN._replace(name="_own")],
        f"invalid collection name '_own'. {NAME_RULE}",
    ),
    "empty name": (
        [PLAIN._replace(name="")],
        f"invalid collection name ''. {NAME_RULE}",
    ),
    "twice": ([PLAIN, PLAIN], "collection-name: plain -- found duplicate in collection configuration"),
    "too few peers": (
        [PLAIN._replace(required_peer_count=2, maximum_peer_count=1)],
        "collection-name: plain -- maximum peer count (1) cannot be less than the required peer count (2)",
    ),
    "negative": (
        [PLAIN._replace(required_peer_count=-1)],
        "collection-name: plain -- requiredPeerCount (-1) cannot be less than zero",
    ),
    "and": (
        [with_policy(encode_policy_expression("AND('AMSP.peer', 'BMSP.peer')"))],
        "collection-name: plain -- error in member org policy: signature policy is not an OR concatenation, NOutOf 2",
    ),
    "and inside": (
        [with_policy(encode_policy_expression("OR('AMSP.peer', AND('BMSP.peer', 'AMSP.peer'))"))],
        "collection-name: plain -- error in member org policy: signature policy is not an OR concatenation, NOutOf 2",
    ),
    "stranger": (
        [with_policy(members_policy("NoMSP"))],
        "collection-name: plain -- collection member 'NoMSP' is not part of the channel",
    ),
    "strange identity": (
        [with_policy(envelope(identity_principal(root_authority("NoMSP").issue())))],
        "collection-name: plain -- contains an identity that is not part of the channel",
    ),
    "kind": (
        [with_policy(b"\x12\x02\x08\x00\x1a\x02\x08\x03")],
        "collection-name: plain -- principal type 3 is not supported",
    ),
    "principal": (
        [with_policy(b"\x12\x02\x08\x00\x1a\x03\x12\x01\xff")],
        "collection-name: plain -- cannot unmarshal identity bytes into MSPRole",
    ),
}


@pytest.mark.parametrize(("configs", "text"), REFUSED.values(), ids=REFUSED)
def test_bad_collections_are_refused_in_fabrics_words(configs: list[CollectionConfig], text: str) -> None:
    with pytest.raises(DefinitionError) as refused:
        check(*configs)

    assert str(refused.value) == text


def test_policy_that_does_not_compile_is_refused() -> None:
    with pytest.raises(DefinitionError, match=r"^invalid member org policy for collection 'plain': "):
        check(with_policy(b""))


def package(static: collection_pb2.StaticCollectionConfig) -> bytes:
    entry = collection_pb2.CollectionConfig(static_collection_config=static)
    return bytes(collection_pb2.CollectionConfigPackage(config=[entry]).SerializeToString())


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (
            package(collection_pb2.StaticCollectionConfig(name="plain")),
            "collection member policy is not set for collection 'plain'",
        ),
        (
            package(
                collection_pb2.StaticCollectionConfig(
                    name="plain", member_orgs_policy=collection_pb2.CollectionPolicyConfig()
                )
            ),
            "collection member org policy is empty for collection 'plain'",
        ),
        (b"\x0a\x00", "collection config contains unexpected payload type: <nil>"),
    ],
    ids=["no policy", "empty policy", "no collection"],
)
def test_incomplete_collections_are_refused(content: bytes, text: str) -> None:
    with pytest.raises(DefinitionError) as refused:
        check_collections(content, b"", MSPS)

    assert str(refused.value) == text


def test_committed_collections_must_remain_with_their_block_to_live() -> None:
    check(FULL, PLAIN, committed=(FULL,))
    check(FULL._replace(member_policy=members_policy("AMSP")), committed=(FULL,))
    for configs, text in (
        ([], "the proposed collection config does not contain previously defined collections"),
        ([PLAIN], "existing collection [deals] missing in the proposed collection configuration"),
        (
            [FULL._replace(block_to_live=11)],
            "the BlockToLive in an existing collection [deals] modified. Existing value [10]",
        ),
    ):
        with pytest.raises(DefinitionError) as refused:
            check(*configs, committed=(FULL,))
        assert str(refused.value) == text


def test_long_names_are_judged_in_linear_time() -> None:
    with pytest.raises(DefinitionError, match="invalid collection name"):
        check(PLAIN._replace(name="a" * 50_000 + "!"))
