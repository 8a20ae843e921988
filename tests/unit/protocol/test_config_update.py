"""Updates of a configuration: what they say, and which of them a channel takes."""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from fabric_protos.common import common_pb2, configtx_pb2
from fabric_protos.orderer import configuration_pb2 as orderer_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

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
    Change,
    ConfigSignature,
    ConfigUpdate,
    SignedUpdate,
    apply_update,
    authorize_update,
    compute_update,
    decode_signed_update,
    decode_update,
    encode_signed_update,
    encode_update,
    next_configuration,
    read_update_envelope,
    signed_bytes,
)
from network.protocol.configuration import decode_config_envelope
from network.protocol.errors import ConfigUpdateError, DecodeError, ProtocolError
from tests.support.chain_factory import ChainFactory, Signer, serialize, set_policy
from tests.support.credential import any_of, role

FACTORY = ChainFactory()
ENTERPRISE, CUSTOMER = FACTORY.organisations
ORDERER = FACTORY.orderer_organisation
ADMINS = (ENTERPRISE.admin, CUSTOMER.admin, ORDERER.admin)
ROOT = decode_group(FACTORY.configuration.channel_group, "/Channel")
CHANNEL = FACTORY.channel

Edit = Callable[[Any], None]


def edited(change: Edit, root: ConfigGroup = ROOT) -> ConfigGroup:
    message = encode_group(root)
    change(message)
    return decode_group(message, "/Channel")


def trust_in(root: ConfigGroup = ROOT) -> ChannelTrust:
    config = configtx_pb2.Config(sequence=4, channel_group=encode_group(root))
    return ChannelTrust(decode_config_envelope(serialize(configtx_pb2.ConfigEnvelope(config=config))))


def set_timeout(group: Any) -> None:
    group.groups["Orderer"].values["BatchTimeout"].value = serialize(orderer_pb2.BatchTimeout(timeout="3s"))


def add_policy(group: Any) -> None:
    set_policy(group.groups["Application"], "Auditors", any_of(role("CustomerMSP", 1)))


def remove_customer(group: Any) -> None:
    del group.groups["Application"].groups["Customer"]


TIMEOUT = compute_update(CHANNEL, ROOT, edited(set_timeout))
TIMEOUT_ELEMENT = "[Value]  /Channel/Orderer/BatchTimeout"


def signature_on(content: bytes, signer: Signer) -> ConfigSignature:
    header = serialize(common_pb2.SignatureHeader(creator=signer.identity, nonce=b"n" * 24))
    return ConfigSignature(header, signer.sign(signed_bytes(content, header)))


def signed(update: ConfigUpdate, signers: Sequence[Signer] = ADMINS) -> SignedUpdate:
    content = encode_update(update)
    return SignedUpdate(content, tuple([signature_on(content, signer) for signer in signers]))


def refused(update: ConfigUpdate | SignedUpdate, root: ConfigGroup = ROOT) -> str:
    """Give the reason why an update is refused, all administrators having signed it."""
    with pytest.raises(ConfigUpdateError) as caught:
        authorize_update(update if isinstance(update, SignedUpdate) else signed(update), CHANNEL, trust_in(root))
    return str(caught.value)


# --- computing


def test_a_changed_value_comes_with_its_next_version_and_the_path_to_it() -> None:
    orderer = TIMEOUT.write_set.groups["Orderer"]

    assert TIMEOUT.read_set == config_group(groups={"Orderer": config_group()})
    assert TIMEOUT.write_set == config_group(groups={"Orderer": orderer})
    assert dict(orderer.values) == {"BatchTimeout": ConfigValue(1, b"\n\x023s", "Admins")}
    assert not orderer.groups
    assert not orderer.policies


def test_a_new_element_bumps_its_group_and_names_every_other_member() -> None:
    update = compute_update(CHANNEL, ROOT, edited(add_policy))
    before, after = update.read_set.groups["Application"], update.write_set.groups["Application"]
    members = ROOT.groups["Application"]

    assert (before.version, after.version, after.mod_policy) == (0, 1, "Admins")
    assert set(before.policies) == set(members.policies)
    assert set(after.policies) == {*members.policies, "Auditors"}
    assert after.policies["Auditors"].version == 0
    assert after.policies["Admins"] == ConfigPolicy(0, 0, b"", "")
    assert after.values["Capabilities"] == ConfigValue(0, b"", "")
    assert after.groups["Customer"] == config_group()


def test_a_removed_element_is_in_neither_set() -> None:
    update = compute_update(CHANNEL, ROOT, edited(remove_customer))

    assert set(update.read_set.groups["Application"].groups) == {"Enterprise"}
    assert set(update.write_set.groups["Application"].groups) == {"Enterprise"}
    assert update.write_set.groups["Application"].version == 1


def test_another_mod_policy_is_a_change() -> None:
    def change(group: Any) -> None:
        group.groups["Application"].mod_policy = "/Channel/Orderer/Admins"

    update = compute_update(CHANNEL, ROOT, edited(change))

    assert update.write_set.groups["Application"].mod_policy == "/Channel/Orderer/Admins"
    assert update.write_set.groups["Application"].version == 1


def test_versions_of_the_wanted_configuration_play_no_role() -> None:
    def change(group: Any) -> None:
        set_timeout(group)
        group.version = 7
        group.groups["Orderer"].values["BatchTimeout"].version = 9

    assert compute_update(CHANNEL, ROOT, edited(change)) == TIMEOUT


def test_no_difference_is_no_update() -> None:
    with pytest.raises(ConfigUpdateError, match="no differences detected"):
        compute_update(CHANNEL, ROOT, ROOT)


NAMES = st.sampled_from("abc")
POLICIES = st.sampled_from(["Admins", "Writers", "/Channel/Admins"])
VALUES = st.builds(ConfigValue, st.just(0), st.binary(max_size=2), POLICIES)
RULES = st.builds(ConfigPolicy, st.just(0), st.sampled_from([1, 3]), st.binary(max_size=2), POLICIES)


def groups_of(children: st.SearchStrategy[dict[str, ConfigGroup]]) -> st.SearchStrategy[ConfigGroup]:
    return st.builds(
        lambda groups, values, policies, mod_policy: config_group(
            groups=groups, values=values, policies=policies, mod_policy=mod_policy
        ),
        children,
        st.dictionaries(NAMES, VALUES, max_size=2),
        st.dictionaries(NAMES, RULES, max_size=2),
        POLICIES,
    )


TREES = groups_of(
    st.dictionaries(NAMES, groups_of(st.dictionaries(NAMES, groups_of(st.just({})), max_size=1)), max_size=2)
)


def without_versions(group: ConfigGroup) -> ConfigGroup:
    return config_group(
        groups={name: without_versions(child) for name, child in group.groups.items()},
        values={name: value._replace(version=0) for name, value in group.values.items()},
        policies={name: policy._replace(version=0) for name, policy in group.policies.items()},
        mod_policy=group.mod_policy,
    )


@settings(max_examples=60, deadline=None)
@given(TREES, TREES)
def test_a_computed_update_makes_what_was_wanted(before: ConfigGroup, after: ConfigGroup) -> None:
    if without_versions(before) == without_versions(after):
        return

    update = decode_update(encode_update(compute_update(CHANNEL, before, after)))
    proposed = apply_update(update, CHANNEL, before)

    assert without_versions(proposed.root) == after
    assert proposed.dropped == ()
    # What that made can be changed back, which its versions must allow.
    again = compute_update(CHANNEL, proposed.root, before)
    assert without_versions(apply_update(again, CHANNEL, proposed.root).root) == before


# --- who may


def test_administrators_of_every_policy_that_is_asked_make_it_so() -> None:
    proposed = authorize_update(signed(TIMEOUT, [ORDERER.admin]), CHANNEL, trust_in())

    assert proposed.root == edited(set_timeout_once)
    assert proposed.changes == (Change(TIMEOUT_ELEMENT, "/Channel/Orderer/Admins"),)


def set_timeout_once(group: Any) -> None:
    set_timeout(group)
    group.groups["Orderer"].values["BatchTimeout"].version = 1


def test_what_nobody_has_signed_is_refused() -> None:
    assert refused(signed(TIMEOUT, [])) == (
        f"error validating DeltaSet: policy for {TIMEOUT_ELEMENT} not satisfied: implicit policy evaluation failed - 0 "
        "sub-policies were satisfied, but this policy requires 1 of the 'Admins' sub-policies to be satisfied"
    )


@pytest.mark.parametrize("signer", [ENTERPRISE.admin, ORDERER.client], ids=["admin of others", "no admin"])
def test_what_others_have_signed_is_refused(signer: Signer) -> None:
    assert "policy for [Value]  /Channel/Orderer/BatchTimeout not satisfied" in refused(signed(TIMEOUT, [signer]))


def test_a_signature_is_on_these_very_bytes_with_its_header() -> None:
    content = encode_update(TIMEOUT)
    good = signature_on(content, ORDERER.admin)
    other = serialize(common_pb2.SignatureHeader(creator=ORDERER.admin.identity, nonce=b"other"))

    assert "not satisfied" in refused(SignedUpdate(content, (replace_header(good, other),)))
    assert "not satisfied" in refused(SignedUpdate(content, (signature_on(content + b" ", ORDERER.admin),)))


def replace_header(signature: ConfigSignature, header: bytes) -> ConfigSignature:
    return signature._replace(signature_header=header)


def test_a_majority_of_organisations_is_two_of_two() -> None:
    update = compute_update(CHANNEL, ROOT, edited(add_policy))

    assert "not satisfied" in refused(signed(update, [ENTERPRISE.admin, ENTERPRISE.admin]))
    assert authorize_update(signed(update, [ENTERPRISE.admin, CUSTOMER.admin]), CHANNEL, trust_in()).root


def test_every_element_that_is_written_needs_its_own_policy() -> None:
    def both(group: Any) -> None:
        set_timeout(group)
        add_policy(group)

    update = compute_update(CHANNEL, ROOT, edited(both))

    assert f"policy for {TIMEOUT_ELEMENT} not satisfied" in refused(signed(update, [ENTERPRISE.admin, CUSTOMER.admin]))
    assert "policy for [Group]  /Channel/Application not satisfied" in refused(signed(update, [ORDERER.admin]))


@pytest.mark.parametrize(
    ("mod_policy", "path"),
    [
        ("Admins", "/Channel/Application/Enterprise/Admins"),
        ("/Channel/Orderer/Admins", "/Channel/Orderer/Admins"),
        ("Writers", "/Channel/Application/Enterprise/Writers"),
    ],
)
def test_the_policy_of_a_value_is_looked_for_in_its_group(mod_policy: str, path: str) -> None:
    def rule(group: Any) -> None:
        group.groups["Application"].groups["Enterprise"].values["MSP"].mod_policy = mod_policy

    def change(group: Any) -> None:
        group.groups["Application"].groups["Enterprise"].values["MSP"].value += b"\x9a\x3f\x01x"

    root = edited(rule)
    update = compute_update(CHANNEL, root, edited(change, root))

    assert apply_update(update, CHANNEL, root).changes == (
        Change("[Value]  /Channel/Application/Enterprise/MSP", path),
    )


def test_the_policy_of_a_group_is_looked_for_in_itself() -> None:
    def change(group: Any) -> None:
        del group.groups["Application"].groups["Enterprise"].policies["Writers"]

    update = compute_update(CHANNEL, ROOT, edited(change))

    assert apply_update(update, CHANNEL, ROOT).changes == (
        Change("[Group]  /Channel/Application/Enterprise", "/Channel/Application/Enterprise/Admins"),
    )


def test_it_is_the_policy_in_force_that_rules_and_not_the_one_that_is_written() -> None:
    def take_over(group: Any) -> None:
        group.groups["Orderer"].values["BatchTimeout"].mod_policy = "/Channel/Application/Enterprise/Admins"

    update = compute_update(CHANNEL, ROOT, edited(take_over))

    assert f"policy for {TIMEOUT_ELEMENT} not satisfied" in refused(signed(update, [ENTERPRISE.admin]))


def test_a_policy_that_does_not_exist_lets_nobody_through() -> None:
    def rule(group: Any) -> None:
        group.groups["Orderer"].values["BatchTimeout"].mod_policy = "Nobody"

    root = edited(rule)

    reason = refused(compute_update(CHANNEL, root, edited(set_timeout, root)), root)

    assert "unexpected missing policy /Channel/Orderer/Nobody for item [Value]  /Channel/Orderer/BatchTimeout" in reason


# --- what fits


def write(change: Callable[[Any], None], update: ConfigUpdate = TIMEOUT) -> ConfigUpdate:
    """Change the write set of an update."""
    message = encode_group(update.write_set, is_update=True)
    change(message)
    return update._replace(write_set=decode_group(message, "", is_update=True))


def read(change: Callable[[Any], None], update: ConfigUpdate = TIMEOUT) -> ConfigUpdate:
    """Change the read set of an update."""
    message = encode_group(update.read_set, is_update=True)
    change(message)
    return update._replace(read_set=decode_group(message, "", is_update=True))


def test_an_update_of_another_channel_is_refused() -> None:
    assert refused(TIMEOUT._replace(channel_id="other")) == (
        "ConfigUpdate for channel 'other' but envelope for channel 'consortium'"
    )


def test_what_was_read_is_still_of_that_version() -> None:
    def other(group: Any) -> None:
        group.groups["Orderer"].version = 1

    assert refused(read(other)) == (
        "error validating ReadSet: proposed update requires that key [Group]  /Channel/Orderer be at version 1, but it "
        "is currently at version 0"
    )


def test_what_was_read_is_still_there() -> None:
    def other(group: Any) -> None:
        group.groups["Orderer"].values["Nothing"].version = 0

    assert refused(read(other)) == (
        "error validating ReadSet: existing config does not contain element for [Value]  /Channel/Orderer/Nothing but "
        "was in the read set"
    )


@pytest.mark.parametrize("version", [0, 2, 2**63])
def test_an_element_is_written_with_its_next_version(version: int) -> None:
    def other(group: Any) -> None:
        group.groups["Orderer"].values["BatchTimeout"].version = version

    assert refused(write(other)) == (
        f"error validating DeltaSet: attempt to set key {TIMEOUT_ELEMENT} to version {version}, but key is at version 0"
    )


def test_a_new_element_begins_at_version_0() -> None:
    def other(group: Any) -> None:
        group.groups["Orderer"].values["New"].version = 1
        group.groups["Orderer"].values["New"].mod_policy = "Admins"

    assert "attempted to set key [Value]  /Channel/Orderer/New to version 1, but key does not exist" in refused(
        write(other)
    )


def test_an_update_that_writes_nothing_is_refused() -> None:
    def nothing(group: Any) -> None:
        group.groups["Orderer"].values.clear()

    assert refused(write(nothing)).endswith("delta set was empty -- update would have no effect")


@pytest.mark.parametrize("mod_policy", ["", "/", "a//b", "no name", "..", "x" * 250])
def test_what_is_written_says_who_may_change_it_next(mod_policy: str) -> None:
    def other(group: Any) -> None:
        group.groups["Orderer"].values["BatchTimeout"].mod_policy = mod_policy

    assert f"invalid mod_policy for element {TIMEOUT_ELEMENT}" in refused(write(other))


def test_a_new_element_of_a_group_that_is_not_written_is_left_out_without_a_word() -> None:
    def sneak(group: Any) -> None:
        group.groups["Orderer"].values["New"].mod_policy = "Admins"

    proposed = authorize_update(signed(write(sneak)), CHANNEL, trust_in())

    assert "New" not in proposed.root.groups["Orderer"].values
    assert proposed.dropped == ("[Value]  /Channel/Orderer/New",)
    assert proposed.root == edited(set_timeout_once)


def test_a_member_that_a_written_group_does_not_list_is_removed() -> None:
    proposed = authorize_update(signed(compute_update(CHANNEL, ROOT, edited(remove_customer))), CHANNEL, trust_in())

    assert set(proposed.root.groups["Application"].groups) == {"Enterprise"}


@pytest.mark.parametrize("kind", ["group", "value", "policy"])
def test_a_member_that_a_written_group_lists_exists(kind: str) -> None:
    def invent(group: Any) -> None:
        members = {"group": "groups", "value": "values", "policy": "policies"}[kind]
        getattr(group.groups["Application"], members)["Invented"].version = 0

    update = compute_update(CHANNEL, ROOT, edited(add_policy))
    read_as_well = read(invent, write(invent, update))

    # Named as read, it must be there; named as written only, it is new, and needs what every new element needs.
    assert "existing config does not contain element" in refused(read_as_well)
    assert "invalid mod_policy" in refused(write(invent, update))


def test_elements_of_old_channels_without_a_policy_get_one() -> None:
    def forget(group: Any) -> None:
        group.groups["Application"].mod_policy = ""
        group.groups["Application"].values["Capabilities"].mod_policy = ""
        group.groups["Application"].policies["Writers"].mod_policy = ""

    root = edited(forget)
    proposed = authorize_update(
        signed(compute_update(CHANNEL, root, edited(set_timeout, root))), CHANNEL, trust_in(root)
    )
    application = proposed.root.groups["Application"]

    assert application.mod_policy == "Admins"
    assert application.values["Capabilities"].mod_policy == "Admins"
    assert application.policies["Writers"].mod_policy == "Admins"


def test_elements_without_a_policy_stay_so_where_orderers_have_no_capabilities() -> None:
    def forget(group: Any) -> None:
        for part in (group, group.groups["Orderer"], group.groups["Application"]):
            del part.values["Capabilities"]
        group.groups["Application"].policies["Writers"].mod_policy = ""

    root = edited(forget)
    proposed = apply_update(compute_update(CHANNEL, root, edited(set_timeout, root)), CHANNEL, root)

    assert proposed.root.groups["Application"].policies["Writers"].mod_policy == ""


# --- what a committing peer takes


def next_content(spoil: Callable[[Any], None] = lambda _: None) -> bytes:
    envelope = FACTORY.config_envelope(set_timeout)
    spoil(envelope)
    return serialize(envelope)


def test_a_configuration_that_its_update_makes_of_the_one_in_force_comes_into_force() -> None:
    configuration = next_configuration(next_content(), CHANNEL, genesis_trust())

    assert configuration.sequence == 1
    assert configuration.root == edited(set_timeout_once)
    assert configuration.channel_id == CHANNEL


def genesis_trust() -> ChannelTrust:
    config = configtx_pb2.ConfigEnvelope(config=FACTORY.configuration)
    return ChannelTrust(decode_config_envelope(serialize(config)))


def of_other_sequence(envelope: Any) -> None:
    envelope.config.sequence = 2


def of_more_than_its_update(envelope: Any) -> None:
    envelope.config.channel_group.groups["Application"].mod_policy = "Writers"


def without_its_update(envelope: Any) -> None:
    envelope.ClearField("last_update")


def unsigned(envelope: Any) -> None:
    payload = common_pb2.Payload.FromString(envelope.last_update.payload)
    payload.data = encode_signed_update(decode_signed_update(payload.data)._replace(signatures=()))
    envelope.last_update.payload = serialize(payload)


def of_another_kind(envelope: Any) -> None:
    payload = common_pb2.Payload.FromString(envelope.last_update.payload)
    payload.header.channel_header = serialize(common_pb2.ChannelHeader(type=3, channel_id=CHANNEL))
    envelope.last_update.payload = serialize(payload)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (of_other_sequence, "sequence 2, expected 1"),
        (of_more_than_its_update, "LastUpdate did not produce the supplied config result"),
        (without_its_update, "no header"),
        (unsigned, "not satisfied"),
        (of_another_kind, "type 3 instead of CONFIG_UPDATE"),
    ],
)
def test_any_other_configuration_stops_a_peer(spoil: Callable[[Any], None], reason: str) -> None:
    with pytest.raises(ProtocolError, match=reason):
        next_configuration(next_content(spoil), CHANNEL, genesis_trust())


def test_a_configuration_that_may_not_follow_stops_a_peer() -> None:
    def rename(group: Any) -> None:
        group.groups["Application"].groups["Customer"].values["MSP"].CopyFrom(
            group.groups["Application"].groups["Enterprise"].values["MSP"]
        )

    content = serialize(FACTORY.config_envelope(rename))

    with pytest.raises(ConfigUpdateError, match="application org Customer attempted to change MSP ID"):
        next_configuration(content, CHANNEL, genesis_trust())


# --- bytes


def test_an_update_and_its_signatures_are_read_as_they_were_written() -> None:
    update = signed(TIMEOUT)

    assert decode_update(update.content) == TIMEOUT
    assert decode_signed_update(encode_signed_update(update)) == update
    assert read_update_envelope(FACTORY.config_envelope(set_timeout).last_update).content == update.content


def test_a_policy_of_an_update_may_be_a_version_alone() -> None:
    message = configtx_pb2.ConfigUpdate.FromString(encode_update(compute_update(CHANNEL, ROOT, edited(add_policy))))

    assert not message.write_set.groups["Application"].policies["Admins"].HasField("policy")
    assert message.write_set.groups["Application"].policies["Auditors"].HasField("policy")


def test_keys_that_are_no_names_are_refused() -> None:
    message = configtx_pb2.ConfigUpdate.FromString(encode_update(TIMEOUT))
    message.write_set.groups["no name"].version = 1
    content = serialize(message)

    assert "a key that is no name" in refused(
        SignedUpdate(content, tuple([signature_on(content, admin) for admin in ADMINS]))
    )


def test_nesting_has_an_end() -> None:
    group = configtx_pb2.ConfigGroup()
    inner = group
    for _ in range(41):
        inner = inner.groups["a"]

    with pytest.raises(DecodeError, match="nested more than 40 deep"):
        decode_update(serialize(configtx_pb2.ConfigUpdate(write_set=group)))


def test_a_signature_whose_header_does_not_read_spoils_the_update() -> None:
    update = signed(TIMEOUT)
    spoiled = replace_header(update.signatures[0], b"\xff")

    with pytest.raises(DecodeError):
        authorize_update(update._replace(signatures=(*update.signatures, spoiled)), CHANNEL, trust_in())


TRUST = genesis_trust()
NEXT = next_content()


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200), st.lists(st.tuples(st.binary(max_size=50), st.binary(max_size=50)), max_size=3))
def test_any_bytes_as_an_update_are_judged(content: bytes, signatures: list[tuple[bytes, bytes]]) -> None:
    update = SignedUpdate(content, tuple([ConfigSignature(*signature) for signature in signatures]))

    with contextlib.suppress(ProtocolError):
        authorize_update(update, CHANNEL, TRUST)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_configuration_with_a_changed_byte_never_comes_into_force_unnoticed(data: st.DataObject) -> None:
    content = bytearray(NEXT)
    position = data.draw(st.integers(0, len(content) - 1))
    content[position] ^= data.draw(st.integers(1, 255))

    with contextlib.suppress(ProtocolError):
        # What is signed by nobody here (header of the update's own envelope, order of map entries) may change.
        found = next_configuration(bytes(content), CHANNEL, TRUST)
        assert found.root == edited(set_timeout_once)
