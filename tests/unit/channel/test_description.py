"""What changes, in words: everything, certificates and lists by what is in them, and who has signed."""

from collections.abc import Callable
from typing import Any

import pytest
from fabric_protos.common import common_pb2, configuration_pb2
from fabric_protos.orderer import configuration_pb2 as orderer_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from network.channel.description import (
    certificate_text,
    describe_change,
    policy_text,
    report_lines,
    report_update,
    revocation_list_text,
)
from network.protocol.block_signature import ChannelTrust
from network.protocol.config_group import (
    ConfigGroup,
    ConfigPolicy,
    ConfigValue,
    config_group,
    decode_group,
    encode_group,
)
from network.protocol.config_update import (
    ConfigSignature,
    SignedUpdate,
    apply_update,
    compute_update,
    encode_update,
    signed_bytes,
)
from network.protocol.configuration import view_configuration
from tests.support.chain_factory import ChainFactory, Organisation, Randomness, Signer, serialize, set_policy
from tests.support.credential import any_of, implicit_policy, role

FACTORY, BFT = ChainFactory(), ChainFactory(consensus="bft")
ENTERPRISE, CUSTOMER = FACTORY.organisations
ROOT = decode_group(FACTORY.configuration.channel_group, "/Channel")

Edit = Callable[[Any], object]


def edited(edit: Edit, root: ConfigGroup = ROOT) -> ConfigGroup:
    message = encode_group(root)
    edit(message)
    return decode_group(message, "/Channel")


def change(edit: Edit, root: ConfigGroup = ROOT) -> list[str]:
    return describe_change(root, edited(edit, root))


def test_nothing_is_said_of_nothing() -> None:
    assert describe_change(ROOT, ROOT) == []


def test_versions_are_no_change() -> None:
    assert change(lambda it: setattr(it, "version", 7)) == []


def test_a_number_is_said_before_and_after() -> None:
    def edit(group: Any) -> None:
        size = orderer_pb2.BatchSize(max_message_count=9, absolute_max_bytes=10 << 20, preferred_max_bytes=2 << 20)
        group.groups["Orderer"].values["BatchSize"].value = serialize(size)

    assert change(edit) == ["/Channel/Orderer/BatchSize: max_message_count: 500 -> 9"]


def test_who_may_change_something_is_said() -> None:
    def edit(group: Any) -> None:
        group.mod_policy = "/Channel/Application/Admins"
        group.groups["Orderer"].values["BatchSize"].mod_policy = "Writers"
        group.groups["Orderer"].policies["Readers"].mod_policy = ""

    assert change(edit) == [
        "who may change /Channel: Admins -> /Channel/Application/Admins",
        "who may change /Channel/Orderer/Readers: Admins -> (nobody)",
        "who may change /Channel/Orderer/BatchSize: Admins -> Writers",
    ]


def test_policies_are_said_as_people_write_them() -> None:
    def edit(group: Any) -> None:
        set_policy(group.groups["Application"], "Admins", any_of(role("CustomerMSP", 1)))
        set_policy(group.groups["Application"], "New", implicit_policy("Readers", 0))
        del group.groups["Application"].policies["Endorsement"]

    assert change(edit) == [
        "policy /Channel/Application/Admins: MAJORITY Admins -> OR('CustomerMSP.admin')",
        "policy /Channel/Application/Endorsement is removed",
        "policy /Channel/Application/New is added: ANY Readers",
        "who may change /Channel/Application/New: (nobody) -> Admins",
    ]


def test_an_organisation_that_goes_and_one_that_comes() -> None:
    stranger = Organisation("Stranger", Randomness("stranger"))

    def edit(group: Any) -> None:
        del group.groups["Application"].groups["Customer"]
        group.groups["Application"].groups["Stranger"].values["MSP"].value = stranger.msp()

    found = change(edit)

    assert found[0] == "/Channel/Application/Customer is removed, with all that is in it"
    assert found[1] == "/Channel/Application/Stranger is added"
    assert any("config.name: StrangerMSP" in line for line in found)
    assert any("config.root_certs: added: certificate of" in line for line in found)


def test_a_certificate_authority_that_is_exchanged_is_named() -> None:
    other = Organisation("Enterprise", Randomness("other"))

    found = change(
        lambda it: setattr(it.groups["Application"].groups["Enterprise"].values["MSP"], "value", other.msp())
    )

    place = "/Channel/Application/Enterprise/MSP: config."
    assert [line for line in found if line.startswith(f"{place}root_certs: removed: certificate of ")]
    assert [line for line in found if line.startswith(f"{place}root_certs: added: certificate of ")]
    assert [line for line in found if line.startswith(f"{place}tls_root_certs: added: certificate of ")]


def consenters(edit: Callable[[Any], object]) -> Edit:
    def apply(group: Any) -> None:
        value = group.groups["Orderer"].values["Orderers"]
        message = configuration_pb2.Orderers.FromString(value.value)
        edit(message.consenter_mapping)
        value.value = serialize(message)

    return apply


BFT_ROOT = decode_group(BFT.configuration.channel_group, "/Channel")


def test_consenters_are_told_apart_by_where_they_are() -> None:
    pem = BFT.orderer_organisation.tls.issue("new", "orderer").pem

    (line,) = change(consenters(lambda it: setattr(it[1], "client_tls_cert", pem)), BFT_ROOT)

    place = "/Channel/Orderer/Orderers: consenter_mapping 127.0.0.1:7051.client_tls_cert: "
    assert line.startswith(f"{place}certificate of ")
    assert " -> certificate of " in line


def test_consenters_that_come_go_or_stand_in_another_order() -> None:
    assert change(consenters(lambda it: it.reverse()), BFT_ROOT) == [
        "/Channel/Orderer/Orderers: consenter_mapping: in another order"
    ]
    (removed,) = change(consenters(lambda it: it.pop()), BFT_ROOT)
    assert removed.startswith("/Channel/Orderer/Orderers: consenter_mapping: removed: id 4, host 127.0.0.1, port 7053")


def test_values_that_come_and_go() -> None:
    def edit(group: Any) -> None:
        group.values["OrdererAddresses"].value = serialize(configuration_pb2.OrdererAddresses(addresses=["a:1", "a:1"]))
        del group.values["Capabilities"]

    assert change(edit) == [
        "/Channel/Capabilities is removed",
        "/Channel/OrdererAddresses is added",
        "/Channel/OrdererAddresses: addresses: added: a:1 (2 times)",
    ]


def test_bytes_of_no_known_kind_are_named_by_their_hash() -> None:
    def edit(group: Any) -> None:
        group.values["Custom"].value = b"abc"

    found = change(edit)

    assert found[0] == "/Channel/Custom is added"
    assert "raw: 3 bytes with SHA-256 ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" in found[1]


def test_the_same_said_in_other_bytes_is_said() -> None:
    def edit(group: Any) -> None:
        value = group.groups["Orderer"].values["BatchTimeout"]
        value.value = value.value.replace(b"\x0a", b"\x8a\x00", 1)  # an over-long tag

    assert change(edit) == ["/Channel/Orderer/BatchTimeout: written in another way, with the same meaning"] or any(
        "bytes with SHA-256" in line for line in change(edit)
    )


NAMES = st.sampled_from(["MSP", "BatchSize", "ConsensusType", "Orderers", "Other"])
TREES = st.builds(
    lambda values, policies, groups, mod_policy: config_group(
        values=values, policies=policies, groups=groups, mod_policy=mod_policy
    ),
    st.dictionaries(NAMES, st.builds(ConfigValue, st.just(0), st.binary(max_size=12), st.just("Admins")), max_size=3),
    st.dictionaries(
        st.sampled_from("PQ"),
        st.builds(ConfigPolicy, st.just(0), st.integers(0, 4), st.binary(max_size=12), st.just("Admins")),
        max_size=2,
    ),
    st.dictionaries(
        st.sampled_from("ab"),
        st.builds(lambda name: config_group(mod_policy=name), st.sampled_from(["Admins", "Writers"])),
        max_size=2,
    ),
    st.sampled_from(["Admins", "Writers"]),
)


@settings(max_examples=200, deadline=None)
@given(TREES, TREES)
def test_no_difference_goes_without_a_word(before: ConfigGroup, after: ConfigGroup) -> None:
    assert bool(describe_change(before, after)) == (before != after)


# --- what is in it


def test_a_certificate_is_named_by_subject_issuer_end_and_hash() -> None:
    text = certificate_text(ENTERPRISE.admin.pem)

    assert "certificate of " in text
    assert "CN=admin" in text
    assert "issued by CN=ca.Enterprise" in text
    assert "valid until 20" in text
    assert certificate_text(b"-----BEGIN nothing").startswith("(a certificate that does not read")


def test_what_is_no_revocation_list_says_so() -> None:
    assert revocation_list_text(b"x").startswith("(a revocation list that does not read")


def test_a_policy_that_no_text_says_names_whom_it_asks_for() -> None:
    quorum = BFT_ROOT.groups["Orderer"].policies["BlockValidation"]

    assert "mspid OrdererMSP" in policy_text(quorum)
    assert "SHA-256" in policy_text(quorum)
    assert policy_text(ConfigPolicy(0, 9, b"x", "")).startswith("(policy of type 9")
    assert policy_text(ConfigPolicy(0, 3, b"\x10\x09", "")).startswith("(policy of type 3")


# --- signatures


def timeout(group: Any) -> None:
    group.groups["Orderer"].values["BatchTimeout"].value = serialize(orderer_pb2.BatchTimeout(timeout="3s"))


UPDATE = compute_update(FACTORY.channel, ROOT, edited(timeout))


def signed(*signers: Signer, over: bytes | None = None) -> SignedUpdate:
    content = encode_update(UPDATE)
    signatures = []
    for signer in signers:
        header = serialize(common_pb2.SignatureHeader(creator=signer.identity, nonce=b"n"))
        signatures.append(ConfigSignature(header, signer.sign(signed_bytes(over or content, header))))
    return SignedUpdate(content, tuple(signatures))


def report(update: SignedUpdate) -> Any:
    trust = ChannelTrust(view_configuration(0, FACTORY.channel, ROOT))
    return report_update(update, apply_update(UPDATE, FACTORY.channel, ROOT), trust)


def test_what_is_missing_is_said_with_the_policy_that_asks_for_it() -> None:
    found = report(signed(ENTERPRISE.admin))

    assert not found.is_allowed
    assert [(it.msp_id, it.is_good) for it in found.signatures] == [("EnterpriseMSP", True)]
    lines = report_lines(found)
    assert "  /Channel/Orderer/BatchTimeout: timeout: 200ms -> 3s" in lines
    assert lines[-1].startswith(
        "  /Channel/Orderer/Admins (MAJORITY Admins): not yet, implicit policy evaluation failed"
    )


def test_enough_signatures_are_enough() -> None:
    found = report(signed(FACTORY.orderer_organisation.admin))

    assert found.is_allowed
    assert report_lines(found)[-1] == "  /Channel/Orderer/Admins (MAJORITY Admins): satisfied"


@pytest.mark.parametrize(
    "update",
    [
        signed(Organisation("Orderer", Randomness("stranger")).admin),
        signed(FACTORY.orderer_organisation.admin, over=b"another update"),
    ],
    ids=["a stranger's", "of another update"],
)
def test_a_signature_that_counts_for_nothing_is_marked(update: SignedUpdate) -> None:
    found = report(update)

    assert not found.is_allowed
    assert [it.is_good for it in found.signatures] == [False]
    assert any("NOT GOOD" in line for line in report_lines(found))


def test_what_is_written_without_effect_is_said() -> None:
    message = encode_group(UPDATE.write_set, is_update=True)
    message.groups["Orderer"].values["Sneaked"].mod_policy = "Admins"
    update = UPDATE._replace(write_set=decode_group(message, "", is_update=True))
    trust = ChannelTrust(view_configuration(0, FACTORY.channel, ROOT))

    found = report_update(SignedUpdate(encode_update(update), ()), apply_update(update, FACTORY.channel, ROOT), trust)

    assert found.dropped == ["[Value]  /Channel/Orderer/Sneaked"]
    assert "  [Value]  /Channel/Orderer/Sneaked" in report_lines(found)
    assert "signatures: none" in report_lines(found)
