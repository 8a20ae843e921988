"""Each rule of judging a block: what breaks it gets the code that Fabric gives, and all else stays as it is."""

from collections.abc import Callable
from hashlib import sha256
from typing import Any

import pytest
from fabric_protos.common import common_pb2, configtx_pb2

from network.protocol.collection import CollectionConfig, encode_collections, implicit_collection_name, members_policy
from network.protocol.commit_hash import StateKey
from network.protocol.decode import decode_block
from network.protocol.errors import ConfigurationError
from network.protocol.lifecycle import (
    LIFECYCLE_POLICY,
    ChaincodeDefinition,
    field_key,
    policy_reference,
    signature_policy,
)
from network.protocol.policy_expression import encode_policy_expression
from network.protocol.private_data import LIFECYCLE_NAMESPACE
from network.protocol.read_write_set import MetadataEntry, RangeQuery, Version
from network.protocol.state import CONFIG_KEY, StateUpdate, StateValue
from network.protocol.validation import BlockJudgement, judge_genesis
from network.protocol.validation_code import VALID, validation_code_name
from tests.support.chain_factory import ChainFactory, serialize, set_policy
from tests.support.credential import any_of, role
from tests.support.judged_channel import CHAINCODE, EnvelopeSpec, JudgedChannel, SetSpec, read_write_set, write_set

BOTH = signature_policy(encode_policy_expression("AND('EnterpriseMSP.peer', 'CustomerMSP.peer')"))
ENTERPRISE = encode_policy_expression("OR('EnterpriseMSP.peer')")
CUSTOMER = encode_policy_expression("OR('CustomerMSP.peer')")
KEY: StateKey = (CHAINCODE, "", b"a")
WRITE = write_set(SetSpec(writes=[("a", b"1")]))


@pytest.fixture
def channel() -> JudgedChannel:
    channel = JudgedChannel()
    collections = encode_collections(
        [
            CollectionConfig("own", members_policy("EnterpriseMSP"), endorsement_policy=signature_policy(ENTERPRISE)),
            CollectionConfig("plain", members_policy("EnterpriseMSP", "CustomerMSP")),
        ]
    )
    channel.define(ChaincodeDefinition(1, "1.0", BOTH, collections))
    channel.commit(EnvelopeSpec(write_set(SetSpec())))
    return channel


def codes(judgement: BlockJudgement) -> list[str]:
    return [validation_code_name(code) for code in judgement.flags]


def code(channel: JudgedChannel, spec: EnvelopeSpec | bytes) -> str:
    judgement = channel.judge(spec)
    assert bool(judgement.reasons[0]) == (judgement.flags[0] != VALID)
    return codes(judgement)[0]


def test_a_good_transaction_is_valid_and_changes_state(channel: JudgedChannel) -> None:
    height = channel.height
    judgement = channel.judge(EnvelopeSpec(WRITE))

    assert codes(judgement) == ["VALID"]
    assert judgement.updates == {KEY: StateUpdate(b"1", Version(height, 0))}
    assert channel.state.value(KEY) is None


def test_an_invalid_transaction_changes_nothing_but_uses_its_id(channel: JudgedChannel) -> None:
    judgement = channel.judge(EnvelopeSpec(WRITE, endorsers=[channel.enterprise.peer]))

    assert judgement.updates == {}
    assert len(judgement.tx_ids[0]) == 64


# --- form of the envelope


def clear(field: str) -> Callable[[Any], None]:
    return lambda message: message.ClearField(field)


def put(field: str, value: object) -> Callable[[Any], None]:
    return lambda message: setattr(message, field, value)


def drop_actions(message: Any) -> None:
    del message.actions[:]


def double_action(message: Any) -> None:
    message.actions.append(message.actions[0])


def clear_action_nonce(message: Any) -> None:
    header = common_pb2.SignatureHeader.FromString(message.actions[0].header)
    header.ClearField("nonce")
    message.actions[0].header = serialize(header)


def clear_action_creator(message: Any) -> None:
    header = common_pb2.SignatureHeader.FromString(message.actions[0].header)
    header.ClearField("creator")
    message.actions[0].header = serialize(header)


def garbage_action_header(message: Any) -> None:
    message.actions[0].header = b"\xff"


def garbage_action_payload(message: Any) -> None:
    message.actions[0].payload = b"\xff"


def garbage_response(message: Any) -> None:
    message.action.proposal_response_payload = b"\xff"


def with_header(**fields: bytes) -> bytes:
    """Make an envelope whose header has these bytes."""
    header = common_pb2.Header(**fields)
    return serialize(common_pb2.Envelope(payload=serialize(common_pb2.Payload(header=header)), signature=b"s"))


def other_chaincode(message: Any) -> None:
    message.chaincode_id.name = "other"


def no_version(message: Any) -> None:
    message.chaincode_id.version = ""


def other_transaction(message: Any) -> None:
    message.chaincode_proposal_payload = b"\x0a\x04mine"


MALFORMED = {
    "no envelope": (b"\xff", "INVALID_OTHER_REASON"),
    "empty": (b"", "BAD_COMMON_HEADER"),
    "no payload": (b"\x0a\x01\xff\x12\x01s", "BAD_PAYLOAD"),
    "channel header garbage": (with_header(channel_header=b"\xff"), "BAD_COMMON_HEADER"),
    "signature header garbage": (
        with_header(channel_header=b"\x08\x03", signature_header=b"\xff"),
        "BAD_COMMON_HEADER",
    ),
    "type MESSAGE": (EnvelopeSpec(WRITE, header_type=0), "BAD_COMMON_HEADER"),
    "type 77": (EnvelopeSpec(WRITE, header_type=77), "BAD_COMMON_HEADER"),
    "epoch": (EnvelopeSpec(WRITE, change_channel_header=put("epoch", 1)), "BAD_COMMON_HEADER"),
    "no nonce": (EnvelopeSpec(WRITE, change_signature_header=clear("nonce")), "BAD_COMMON_HEADER"),
    "no creator": (EnvelopeSpec(WRITE, change_signature_header=clear("creator")), "BAD_COMMON_HEADER"),
    "creator of nobody": (
        EnvelopeSpec(WRITE, change_signature_header=put("creator", b"\x0a\x05NoMSP")),
        "BAD_CREATOR_SIGNATURE",
    ),
    "another channel": (EnvelopeSpec(WRITE, channel="other"), "BAD_CREATOR_SIGNATURE"),
    "no signature": (EnvelopeSpec(WRITE, change_envelope=clear("signature")), "BAD_CREATOR_SIGNATURE"),
    "signature of another": (EnvelopeSpec(WRITE, change_envelope=put("signature", b"0")), "BAD_CREATOR_SIGNATURE"),
    "config update": (EnvelopeSpec(WRITE, header_type=2), "UNSUPPORTED_TX_PAYLOAD"),
    "empty configuration": (EnvelopeSpec(header_type=1, data=b""), "INVALID_CONFIG_TRANSACTION"),
    "id of another": (EnvelopeSpec(WRITE, tx_id="0" * 64), "BAD_PROPOSAL_TXID"),
    "no transaction": (EnvelopeSpec(data=b"\xff"), "INVALID_ENDORSER_TRANSACTION"),
    "no action": (EnvelopeSpec(WRITE, change_transaction=drop_actions), "INVALID_ENDORSER_TRANSACTION"),
    "two actions": (EnvelopeSpec(WRITE, change_transaction=double_action), "INVALID_ENDORSER_TRANSACTION"),
    "action without nonce": (
        EnvelopeSpec(WRITE, change_transaction=clear_action_nonce),
        "INVALID_ENDORSER_TRANSACTION",
    ),
    "action without creator": (
        EnvelopeSpec(WRITE, change_transaction=clear_action_creator),
        "INVALID_ENDORSER_TRANSACTION",
    ),
    "action header garbage": (
        EnvelopeSpec(WRITE, change_transaction=garbage_action_header),
        "INVALID_ENDORSER_TRANSACTION",
    ),
    "action garbage": (EnvelopeSpec(WRITE, change_transaction=garbage_action_payload), "INVALID_ENDORSER_TRANSACTION"),
    "endorsed garbage": (EnvelopeSpec(WRITE, change_endorsed=garbage_response), "INVALID_ENDORSER_TRANSACTION"),
    "another proposal": (EnvelopeSpec(WRITE, change_endorsed=other_transaction), "INVALID_ENDORSER_TRANSACTION"),
    "no endorsed action": (EnvelopeSpec(WRITE, change_endorsed=clear("action")), "INVALID_ENDORSER_TRANSACTION"),
    "extension garbage": (
        EnvelopeSpec(WRITE, change_channel_header=put("extension", b"\xff")),
        "BAD_HEADER_EXTENSION",
    ),
    "response without action": (EnvelopeSpec(WRITE, change_response=clear("extension")), "BAD_RESPONSE_PAYLOAD"),
    "response garbage": (EnvelopeSpec(WRITE, change_response=put("extension", b"\xff")), "BAD_RESPONSE_PAYLOAD"),
    "results garbage": (EnvelopeSpec(b"\xff"), "BAD_RWSET"),
    "nested results garbage": (EnvelopeSpec(b"\x12\x08\x0a\x03ext\x12\x01\xff"), "BAD_RWSET"),
    "hashed results garbage": (
        EnvelopeSpec(b"\x12\x10\x0a\x03ext\x1a\x09\x0a\x04coll\x12\x01\xff"),
        "BAD_RWSET",
    ),
    "no header extension": (
        EnvelopeSpec(WRITE, change_channel_header=clear("extension")),
        "INVALID_OTHER_REASON",
    ),
    "action without chaincode": (EnvelopeSpec(WRITE, change_action=clear("chaincode_id")), "INVALID_OTHER_REASON"),
    "two chaincodes": (EnvelopeSpec(WRITE, change_action=other_chaincode), "INVALID_CHAINCODE"),
    "no chaincode name": (EnvelopeSpec(WRITE, chaincode=""), "INVALID_CHAINCODE"),
    "no chaincode version": (EnvelopeSpec(WRITE, change_action=no_version), "INVALID_CHAINCODE"),
    "event garbage": (EnvelopeSpec(WRITE, change_action=put("events", b"\xff")), "INVALID_OTHER_REASON"),
    "event of another chaincode": (EnvelopeSpec(WRITE, event="other"), "INVALID_OTHER_REASON"),
    "namespace twice": (
        EnvelopeSpec(read_write_set([(CHAINCODE, SetSpec()), (CHAINCODE, SetSpec())])),
        "ILLEGAL_WRITESET",
    ),
}


@pytest.mark.parametrize(("spec", "expected"), MALFORMED.values(), ids=MALFORMED)
def test_malformed_envelope_gets_the_code_of_the_first_check_it_fails(
    channel: JudgedChannel, spec: EnvelopeSpec | bytes, expected: str
) -> None:
    assert code(channel, spec) == expected


def test_malformed_envelope_does_not_disturb_its_neighbours(channel: JudgedChannel) -> None:
    judgement = channel.judge(*[spec for spec, _ in MALFORMED.values()], EnvelopeSpec(WRITE))

    assert codes(judgement) == [*[expected for _, expected in MALFORMED.values()], "VALID"]


def test_event_of_the_chaincode_itself_is_fine(channel: JudgedChannel) -> None:
    assert code(channel, EnvelopeSpec(WRITE, event=CHAINCODE)) == "VALID"


def test_creator_whose_certificate_is_not_valid_in_its_msp_is_refused(channel: JudgedChannel) -> None:
    stranger = channel.enterprise.issue("stranger", "nothing that is a role")

    assert code(channel, EnvelopeSpec(WRITE, creator=stranger)) == "BAD_CREATOR_SIGNATURE"


def test_creator_may_be_anybody_valid_in_the_channel(channel: JudgedChannel) -> None:
    assert code(channel, EnvelopeSpec(WRITE, creator=channel.factory.orderers[0])) == "VALID"


# --- ids


def test_id_on_the_ledger_is_a_duplicate(channel: JudgedChannel) -> None:
    envelope = channel.envelope(EnvelopeSpec(WRITE))
    channel.commit(envelope)

    assert code(channel, envelope) == "DUPLICATE_TXID"


def test_id_of_an_invalid_transaction_on_the_ledger_is_used_too(channel: JudgedChannel) -> None:
    nonce = b"n" * 24
    tx_id = sha256(nonce + channel.enterprise.client.identity).hexdigest()
    burnt = channel.commit(EnvelopeSpec(WRITE, creator=channel.customer.client, tx_id=tx_id))

    assert codes(burnt) == ["BAD_PROPOSAL_TXID"]
    assert burnt.tx_ids == (tx_id,)
    assert code(channel, EnvelopeSpec(WRITE, nonce=nonce)) == "DUPLICATE_TXID"


def test_second_of_one_id_in_a_block_is_a_duplicate(channel: JudgedChannel) -> None:
    same = [EnvelopeSpec(write_set(SetSpec(writes=[(key, b"1")])), nonce=b"n" * 24) for key in "ab"]

    assert codes(channel.judge(*same)) == ["VALID", "DUPLICATE_TXID"]


def test_an_invalid_first_one_does_not_make_the_second_a_duplicate(channel: JudgedChannel) -> None:
    nonce = b"n" * 24
    bad = EnvelopeSpec(WRITE, nonce=nonce, endorsers=[])

    assert codes(channel.judge(bad, EnvelopeSpec(WRITE, nonce=nonce))) == ["ENDORSEMENT_POLICY_FAILURE", "VALID"]


def test_first_of_one_id_keeps_it_even_when_its_reads_do_not_hold(channel: JudgedChannel) -> None:
    nonce = b"n" * 24
    stale = EnvelopeSpec(write_set(SetSpec(reads=[("a", Version(0, 0))])), nonce=nonce)

    judgement = channel.judge(stale, EnvelopeSpec(WRITE, nonce=nonce))

    assert codes(judgement) == ["MVCC_READ_CONFLICT", "DUPLICATE_TXID"]


# --- namespaces and definitions


def test_unknown_chaincode_is_refused(channel: JudgedChannel) -> None:
    assert code(channel, EnvelopeSpec(chaincode="other")) == "INVALID_CHAINCODE"


@pytest.mark.parametrize("namespace", ["other", "lscc", "qscc", "cscc", ""])
def test_writing_where_no_chaincode_is_defined_is_refused(channel: JudgedChannel, namespace: str) -> None:
    results = read_write_set([(namespace, SetSpec(writes=[("a", b"1")]))])

    assert code(channel, EnvelopeSpec(results)) == "INVALID_CHAINCODE"


@pytest.mark.parametrize(
    "spec",
    [
        SetSpec(metadata=[("a", {})]),
        SetSpec(collections={"c": SetSpec(writes=[("a", b"1")])}),
        SetSpec(collections={"c": SetSpec(metadata=[("a", {})])}),
    ],
    ids=["metadata", "private", "private metadata"],
)
def test_every_kind_of_write_needs_a_definition(channel: JudgedChannel, spec: SetSpec) -> None:
    assert code(channel, EnvelopeSpec(read_write_set([("other", spec)]))) == "INVALID_CHAINCODE"


def test_reading_another_namespace_needs_no_definition(channel: JudgedChannel) -> None:
    results = read_write_set([("lscc", SetSpec(reads=[("a", None)])), (CHAINCODE, SetSpec(writes=[("a", b"1")]))])

    assert code(channel, EnvelopeSpec(results)) == "VALID"


def test_chaincode_is_unknown_to_the_block_that_defines_it(channel: JudgedChannel) -> None:
    other = JudgedChannel()

    assert code(other, EnvelopeSpec(WRITE)) == "INVALID_CHAINCODE"
    other.define(ChaincodeDefinition(1, "1.0", BOTH))
    assert code(other, EnvelopeSpec(WRITE)) == "VALID"
    assert code(channel, EnvelopeSpec(WRITE)) == "VALID"


@pytest.mark.parametrize("field", ["metadata", "ValidationInfo"])
def test_definition_that_cannot_be_read_defines_nothing(channel: JudgedChannel, field: str) -> None:
    key = f"namespaces/metadata/{CHAINCODE}" if field == "metadata" else field_key(CHAINCODE, field)
    channel.state.put((LIFECYCLE_NAMESPACE, "", key.encode()), StateUpdate(b"\xff", Version(1, 0)))

    assert code(channel, EnvelopeSpec(WRITE)) == "INVALID_CHAINCODE"


def test_definition_with_another_validation_plugin_defines_nothing() -> None:
    channel = JudgedChannel()
    channel.define(ChaincodeDefinition(1, "1.0", BOTH, validation_plugin="mine"))

    assert code(channel, EnvelopeSpec(WRITE)) == "INVALID_CHAINCODE"


# --- endorsement policies


def test_missing_endorsement_is_refused(channel: JudgedChannel) -> None:
    assert code(channel, EnvelopeSpec(WRITE, endorsers=[channel.enterprise.peer])) == "ENDORSEMENT_POLICY_FAILURE"


def test_read_only_transaction_needs_the_chaincodes_policy_too(channel: JudgedChannel) -> None:
    read = EnvelopeSpec(write_set(SetSpec(reads=[("a", None)])), endorsers=[])

    assert code(channel, read) == "ENDORSEMENT_POLICY_FAILURE"


def test_one_endorser_counts_once(channel: JudgedChannel) -> None:
    twice = signature_policy(encode_policy_expression("OutOf(2, 'EnterpriseMSP.peer', 'EnterpriseMSP.peer')"))
    channel.define(ChaincodeDefinition(1, "1.0", twice), "two")
    peer, second = channel.enterprise.peer, channel.enterprise.issue("peer1", "peer")

    assert code(channel, EnvelopeSpec(chaincode="two", endorsers=[peer, peer])) == "ENDORSEMENT_POLICY_FAILURE"
    assert code(channel, EnvelopeSpec(chaincode="two", endorsers=[peer, second])) == "VALID"


def test_evaluation_is_greedy_so_the_order_of_endorsements_decides(channel: JudgedChannel) -> None:
    """The leaf for any member takes the first endorser: if that is the peer, the leaf that needs a peer gets none."""
    policy = signature_policy(encode_policy_expression("AND('EnterpriseMSP.member', 'EnterpriseMSP.peer')"))
    channel.define(ChaincodeDefinition(1, "1.0", policy), "greedy")
    peer, client = channel.enterprise.peer, channel.enterprise.client

    assert code(channel, EnvelopeSpec(chaincode="greedy", endorsers=[client, peer])) == "VALID"
    assert code(channel, EnvelopeSpec(chaincode="greedy", endorsers=[peer, client])) == "ENDORSEMENT_POLICY_FAILURE"


def test_signature_over_other_bytes_does_not_count(channel: JudgedChannel) -> None:
    def spoil(endorsed: Any) -> None:
        endorsed.action.endorsements[1].signature = endorsed.action.endorsements[0].signature

    assert code(channel, EnvelopeSpec(WRITE, change_endorsed=spoil)) == "ENDORSEMENT_POLICY_FAILURE"


def test_superfluous_bad_endorsement_does_no_harm(channel: JudgedChannel) -> None:
    def add(endorsed: Any) -> None:
        endorsed.action.endorsements.add(endorser=b"nobody", signature=b"nothing")

    assert code(channel, EnvelopeSpec(WRITE, change_endorsed=add)) == "VALID"


def test_every_namespace_written_has_its_own_policy(channel: JudgedChannel) -> None:
    channel.define(ChaincodeDefinition(1, "1.0", signature_policy(ENTERPRISE)), "loose")
    called = EnvelopeSpec(chaincode="loose", endorsers=[channel.enterprise.peer])
    writes = read_write_set([(CHAINCODE, SetSpec(writes=[("a", b"1")])), ("loose", SetSpec())])

    assert code(channel, called) == "VALID"
    assert (
        code(channel, EnvelopeSpec(writes, chaincode="loose", endorsers=[channel.enterprise.peer]))
        == "ENDORSEMENT_POLICY_FAILURE"
    )
    assert code(channel, EnvelopeSpec(writes, chaincode="loose")) == "VALID"


@pytest.mark.parametrize(
    ("parameter", "expected"),
    [
        (policy_reference("/Channel/Application/Endorsement"), "VALID"),
        (policy_reference("Application/Endorsement"), "VALID"),
        (policy_reference("/Channel/Application/Missing"), "ENDORSEMENT_POLICY_FAILURE"),
        (policy_reference("Endorsement"), "ENDORSEMENT_POLICY_FAILURE"),
        (b"\xff", "ENDORSEMENT_POLICY_FAILURE"),
        (b"\x0a\x00", "ENDORSEMENT_POLICY_FAILURE"),
        (b"\x1a\x00", "ENDORSEMENT_POLICY_FAILURE"),
    ],
    ids=["reference", "relative", "dangling", "wrong place", "garbage", "empty policy", "neither"],
)
def test_policy_may_refer_to_the_channels(parameter: bytes, expected: str) -> None:
    channel = JudgedChannel()
    channel.define(ChaincodeDefinition(1, "1.0", parameter))

    assert code(channel, EnvelopeSpec(WRITE)) == expected


def test_reference_to_a_majority_needs_a_majority() -> None:
    channel = JudgedChannel()
    channel.define(ChaincodeDefinition(1, "1.0"))

    assert code(channel, EnvelopeSpec(WRITE, endorsers=[channel.customer.peer])) == "ENDORSEMENT_POLICY_FAILURE"
    assert code(channel, EnvelopeSpec(WRITE)) == "VALID"


# --- collections


def private(collection: str) -> bytes:
    return write_set(SetSpec(collections={collection: SetSpec(writes=[("p", b"secret")])}))


def test_collection_with_its_own_policy_needs_that_one_only(channel: JudgedChannel) -> None:
    enterprise, customer = [channel.enterprise.peer], [channel.customer.peer]

    assert code(channel, EnvelopeSpec(private("own"), endorsers=enterprise)) == "VALID"
    assert code(channel, EnvelopeSpec(private("own"), endorsers=customer)) == "ENDORSEMENT_POLICY_FAILURE"


def test_collection_without_policy_needs_the_chaincodes(channel: JudgedChannel) -> None:
    assert code(channel, EnvelopeSpec(private("plain"))) == "VALID"
    assert (
        code(channel, EnvelopeSpec(private("plain"), endorsers=[channel.enterprise.peer]))
        == "ENDORSEMENT_POLICY_FAILURE"
    )


def test_private_metadata_alone_needs_the_collections_policy(channel: JudgedChannel) -> None:
    results = write_set(SetSpec(collections={"own": SetSpec(metadata=[("p", {})])}))

    assert code(channel, EnvelopeSpec(results, endorsers=[channel.customer.peer])) == "ENDORSEMENT_POLICY_FAILURE"
    assert code(channel, EnvelopeSpec(results, endorsers=[channel.enterprise.peer])) == "VALID"


def test_public_and_private_writes_need_both_policies(channel: JudgedChannel) -> None:
    both = SetSpec(writes=[("a", b"1")], collections={"own": SetSpec(writes=[("p", b"secret")])})

    assert (
        code(channel, EnvelopeSpec(write_set(both), endorsers=[channel.enterprise.peer]))
        == "ENDORSEMENT_POLICY_FAILURE"
    )
    assert code(channel, EnvelopeSpec(write_set(both))) == "VALID"


def test_unknown_collection_is_refused(channel: JudgedChannel) -> None:
    judgement = channel.judge(EnvelopeSpec(private("unknown")))

    assert codes(judgement) == ["ENDORSEMENT_POLICY_FAILURE"]
    assert judgement.reasons == ("no such collection 'unknown'",)


def test_implicit_collection_needs_its_organisation(channel: JudgedChannel) -> None:
    results = private(implicit_collection_name("CustomerMSP"))

    assert code(channel, EnvelopeSpec(results, endorsers=[channel.customer.peer])) == "VALID"
    assert code(channel, EnvelopeSpec(results, endorsers=[channel.customer.client])) == "ENDORSEMENT_POLICY_FAILURE"
    assert code(channel, EnvelopeSpec(results, endorsers=[channel.enterprise.peer])) == "ENDORSEMENT_POLICY_FAILURE"
    assert code(channel, EnvelopeSpec(private("_implicit_org_NoMSP"))) == "ENDORSEMENT_POLICY_FAILURE"


def test_implicit_collection_of_an_organisation_without_policy_takes_any_member(channel: JudgedChannel) -> None:
    def drop(group: Any) -> None:
        del group.groups["Application"].groups["Customer"].policies["Endorsement"]

    channel.commit(config_transaction(channel, drop))
    results = private(implicit_collection_name("CustomerMSP"))

    assert code(channel, EnvelopeSpec(results, endorsers=[channel.customer.client])) == "VALID"
    assert code(channel, EnvelopeSpec(results, endorsers=[channel.enterprise.client])) == "ENDORSEMENT_POLICY_FAILURE"


# --- `_lifecycle` itself


def lifecycle(spec: SetSpec) -> bytes:
    return read_write_set([(LIFECYCLE_NAMESPACE, spec)])


def test_writes_to_lifecycle_need_its_own_policy(channel: JudgedChannel) -> None:
    channel.define(ChaincodeDefinition(1, "1.0", signature_policy(ENTERPRISE)), "loose")
    results = read_write_set([("loose", SetSpec()), (LIFECYCLE_NAMESPACE, SetSpec(writes=[("a", b"1")]))])
    alone = [channel.enterprise.peer]

    assert code(channel, EnvelopeSpec(results, chaincode="loose", endorsers=alone)) == "ENDORSEMENT_POLICY_FAILURE"
    assert code(channel, EnvelopeSpec(results, chaincode="loose")) == "VALID"


def test_approval_needs_the_approving_organisation_only(channel: JudgedChannel) -> None:
    approval = SetSpec(collections={implicit_collection_name("CustomerMSP"): SetSpec(writes=[("a", b"1")])})
    spec = EnvelopeSpec(lifecycle(approval), chaincode=LIFECYCLE_NAMESPACE, endorsers=[channel.customer.peer])

    assert code(channel, spec) == "VALID"


def test_explicit_collections_do_not_exist_in_lifecycle(channel: JudgedChannel) -> None:
    spec = SetSpec(collections={"own": SetSpec(writes=[("a", b"1")])})

    assert code(channel, EnvelopeSpec(lifecycle(spec), chaincode=LIFECYCLE_NAMESPACE)) == "ENDORSEMENT_POLICY_FAILURE"


def test_without_a_policy_lifecycle_needs_a_member_of_more_than_half(channel: JudgedChannel) -> None:
    def drop(group: Any) -> None:
        del group.groups["Application"].policies[LIFECYCLE_POLICY.rpartition("/")[2]]

    channel.commit(config_transaction(channel, drop))
    results = lifecycle(SetSpec(writes=[("a", b"1")]))
    clients = [channel.enterprise.client, channel.customer.client]

    assert code(channel, EnvelopeSpec(results, chaincode=LIFECYCLE_NAMESPACE, endorsers=clients)) == "VALID"
    assert (
        code(channel, EnvelopeSpec(results, chaincode=LIFECYCLE_NAMESPACE, endorsers=clients[:1]))
        == "ENDORSEMENT_POLICY_FAILURE"
    )


# --- policies of keys


def own_policy(policy: bytes) -> dict[str, bytes]:
    return {"VALIDATION_PARAMETER": policy}


def test_key_with_its_own_policy_needs_that_one_instead(channel: JudgedChannel) -> None:
    channel.put("a", b"0", Version(1, 0), metadata=own_policy(CUSTOMER))

    assert code(channel, EnvelopeSpec(WRITE, endorsers=[channel.customer.peer])) == "VALID"
    assert code(channel, EnvelopeSpec(WRITE, endorsers=[channel.enterprise.peer])) == "ENDORSEMENT_POLICY_FAILURE"


def test_other_keys_beside_it_still_need_the_chaincodes_policy(channel: JudgedChannel) -> None:
    channel.put("a", b"0", Version(1, 0), metadata=own_policy(CUSTOMER))
    both = EnvelopeSpec(write_set(SetSpec(writes=[("a", b"1"), ("b", b"1")])), endorsers=[channel.customer.peer])

    assert code(channel, both) == "ENDORSEMENT_POLICY_FAILURE"


def test_private_key_has_its_policy_by_hash(channel: JudgedChannel) -> None:
    channel.put("p", b"0", Version(1, 0), collection="own", metadata=own_policy(CUSTOMER))

    assert code(channel, EnvelopeSpec(private("own"), endorsers=[channel.customer.peer])) == "VALID"
    assert (
        code(channel, EnvelopeSpec(private("own"), endorsers=[channel.enterprise.peer])) == "ENDORSEMENT_POLICY_FAILURE"
    )


@pytest.mark.parametrize("policy", [b"\xff", b"\x12\x00"], ids=["no message", "no rule"])
def test_key_with_a_policy_that_nobody_can_satisfy_is_locked(channel: JudgedChannel, policy: bytes) -> None:
    channel.put("a", b"0", Version(1, 0), metadata=own_policy(policy))

    assert code(channel, EnvelopeSpec(WRITE)) == "ENDORSEMENT_POLICY_FAILURE"


@pytest.mark.parametrize("metadata", [{"other": b"x"}, {"VALIDATION_PARAMETER": b""}], ids=["other", "empty"])
def test_metadata_without_policy_changes_nothing(channel: JudgedChannel, metadata: dict[str, bytes]) -> None:
    channel.put("a", b"0", Version(1, 0), metadata=metadata)

    assert code(channel, EnvelopeSpec(WRITE)) == "VALID"
    assert code(channel, EnvelopeSpec(WRITE, endorsers=[channel.customer.peer])) == "ENDORSEMENT_POLICY_FAILURE"


def test_key_whose_policy_changes_in_a_block_cannot_be_written_later_in_it(channel: JudgedChannel) -> None:
    channel.put("a", b"0", Version(1, 0))
    change = EnvelopeSpec(write_set(SetSpec(metadata=[("a", own_policy(CUSTOMER))])))

    assert codes(channel.judge(change, EnvelopeSpec(WRITE))) == ["VALID", "ENDORSEMENT_POLICY_FAILURE"]
    assert codes(channel.judge(EnvelopeSpec(WRITE), change)) == ["VALID", "VALID"]


def test_a_change_of_policy_that_was_not_endorsed_locks_nothing(channel: JudgedChannel) -> None:
    change = EnvelopeSpec(write_set(SetSpec(metadata=[("a", own_policy(CUSTOMER))])), endorsers=[])

    assert codes(channel.judge(change, EnvelopeSpec(WRITE))) == ["ENDORSEMENT_POLICY_FAILURE", "VALID"]


def test_a_change_of_policy_whose_reads_do_not_hold_locks_all_the_same(channel: JudgedChannel) -> None:
    stale = SetSpec(reads=[("b", Version(0, 0))], metadata=[("a", own_policy(CUSTOMER))])

    judgement = channel.judge(EnvelopeSpec(write_set(stale)), EnvelopeSpec(WRITE))

    assert codes(judgement) == ["MVCC_READ_CONFLICT", "ENDORSEMENT_POLICY_FAILURE"]


def test_policy_that_a_key_got_rules_from_the_next_block_on(channel: JudgedChannel) -> None:
    channel.commit(EnvelopeSpec(WRITE))
    channel.commit(EnvelopeSpec(write_set(SetSpec(metadata=[("a", own_policy(CUSTOMER))]))))

    assert channel.state.value(KEY) == StateValue(
        b"1", Version(channel.height - 1, 0), (MetadataEntry("VALIDATION_PARAMETER", CUSTOMER),)
    )
    assert code(channel, EnvelopeSpec(WRITE, endorsers=[channel.enterprise.peer])) == "ENDORSEMENT_POLICY_FAILURE"
    assert code(channel, EnvelopeSpec(WRITE, endorsers=[channel.customer.peer])) == "VALID"


# --- reads, in the order of the block


def test_two_that_read_and_write_one_key_conflict(channel: JudgedChannel) -> None:
    one = EnvelopeSpec(write_set(SetSpec(reads=[("a", None)], writes=[("a", b"1")])))

    assert codes(channel.judge(one, one)) == ["VALID", "MVCC_READ_CONFLICT"]


def test_an_invalid_writer_conflicts_with_nobody(channel: JudgedChannel) -> None:
    spec = write_set(SetSpec(reads=[("a", None)], writes=[("a", b"1")]))

    judgement = channel.judge(EnvelopeSpec(spec, endorsers=[]), EnvelopeSpec(spec))

    assert codes(judgement) == ["ENDORSEMENT_POLICY_FAILURE", "VALID"]


def test_phantom_gets_its_own_code(channel: JudgedChannel) -> None:
    ranged = SetSpec(ranges=[RangeQuery("a", "z", exhausted=True, raw_reads=None, merkle_summary=None)])

    judgement = channel.judge(EnvelopeSpec(write_set(ranged)), EnvelopeSpec(WRITE), EnvelopeSpec(write_set(ranged)))

    assert codes(judgement) == ["VALID", "VALID", "PHANTOM_READ_CONFLICT"]


# --- configurations


def config_transaction(
    channel: JudgedChannel, change: Callable[[Any], None] | None = None, *, step: int = 1
) -> EnvelopeSpec:
    """Make the configuration in force, changed, as an orderer would put it into a block."""
    stored = channel.state.value(CONFIG_KEY)
    assert stored is not None
    before = configtx_pb2.ConfigEnvelope.FromString(stored.value).config
    envelope = channel.factory.config_envelope(change, before=before)
    envelope.config.sequence += step - 1
    orderer = channel.factory.orderers[0]
    return EnvelopeSpec(data=serialize(envelope), header_type=1, creator=orderer, tx_id="")


def require_customer(group: Any) -> None:
    set_policy(group.groups["Application"], "Endorsement", any_of(role("CustomerMSP", 3)))


def test_configuration_rules_from_the_next_block_on(channel: JudgedChannel) -> None:
    channel.define(ChaincodeDefinition(1, "1.0"), "referring")
    spec = EnvelopeSpec(chaincode="referring", endorsers=[channel.customer.peer])
    before = channel.rules
    configuration = config_transaction(channel, require_customer)

    judgement = channel.commit(configuration, spec)

    assert codes(judgement) == ["VALID", "ENDORSEMENT_POLICY_FAILURE"]
    assert channel.rules is not before
    assert channel.rules.configuration.sequence == 1
    assert code(channel, spec) == "VALID"
    assert judgement.updates[CONFIG_KEY] == StateUpdate(configuration.data, Version(channel.height - 1, 0))


@pytest.mark.parametrize("step", [-1, 0, 2])
def test_configuration_of_another_sequence_than_the_next_is_refused(channel: JudgedChannel, step: int) -> None:
    channel.commit(config_transaction(channel))
    before = channel.rules

    judgement = channel.judge(config_transaction(channel, step=step))

    assert codes(judgement) == ["INVALID_CONFIG_TRANSACTION"]
    assert judgement.rules is before
    assert judgement.updates == {}


def test_configuration_that_cannot_be_used_is_refused(channel: JudgedChannel) -> None:
    def drop(group: Any) -> None:
        del group.groups["Orderer"]

    assert code(channel, config_transaction(channel, drop)) == "INVALID_CONFIG_TRANSACTION"
    assert code(channel, EnvelopeSpec(data=b"\xff", header_type=1)) == "INVALID_CONFIG_TRANSACTION"


def test_organisation_that_left_endorses_and_creates_no_more(channel: JudgedChannel) -> None:
    def leave(group: Any) -> None:
        del group.groups["Application"].groups["Customer"]

    channel.commit(config_transaction(channel, leave))

    assert code(channel, EnvelopeSpec(WRITE)) == "ENDORSEMENT_POLICY_FAILURE"
    assert code(channel, EnvelopeSpec(WRITE, creator=channel.customer.client)) == "BAD_CREATOR_SIGNATURE"


def test_id_of_a_configuration_is_computed(channel: JudgedChannel) -> None:
    nonce = b"c" * 24
    spec = EnvelopeSpec(
        data=config_transaction(channel).data, header_type=1, creator=channel.factory.orderers[0], nonce=nonce, tx_id=""
    )

    judgement = channel.judge(spec)

    assert judgement.tx_ids == (sha256(nonce + channel.factory.orderers[0].identity).hexdigest(),)


# --- the first block


def test_genesis_block_is_taken_as_it_stands() -> None:
    factory = ChainFactory()
    judgement = judge_genesis(decode_block(factory.genesis()).envelopes)

    assert codes(judgement) == ["VALID"]
    assert judgement.rules.channel_id == factory.channel
    assert set(judgement.updates) == {CONFIG_KEY}
    assert judgement.updates[CONFIG_KEY].version == Version(0, 0)


@pytest.mark.parametrize("count", [0, 2])
def test_first_block_of_more_or_less_than_one_configuration_is_refused(count: int) -> None:
    genesis = decode_block(ChainFactory().genesis()).envelopes

    with pytest.raises(ConfigurationError, match="envelopes instead of one"):
        judge_genesis(genesis * count)


def test_first_block_without_configuration_is_refused(channel: JudgedChannel) -> None:
    with pytest.raises(ConfigurationError, match="no configuration of a channel"):
        judge_genesis([channel.envelope(EnvelopeSpec(WRITE))])
