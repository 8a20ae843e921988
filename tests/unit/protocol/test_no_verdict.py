"""What has no verdict is said, and judged all the same; everything else is not said."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from fabric_protos.common import configtx_pb2

from network.protocol.collection import CollectionConfig, encode_collections, members_policy
from network.protocol.lifecycle import ChaincodeDefinition, field_key, signature_policy
from network.protocol.no_verdict import NoVerdictReason
from network.protocol.policy_expression import encode_policy_expression
from network.protocol.private_data import LIFECYCLE_NAMESPACE
from network.protocol.read_write_set import Version
from network.protocol.state import StateUpdate
from network.protocol.validation import BlockJudgement
from network.protocol.validation_code import validation_code_name
from tests.support.chain_factory import serialize
from tests.support.judged_channel import CHAINCODE, EnvelopeSpec, JudgedChannel, SetSpec, read_write_set, write_set

ENTERPRISE = encode_policy_expression("OR('EnterpriseMSP.peer')")
KEY_POLICY = {"VALIDATION_PARAMETER": ENTERPRISE}
NOTE = {"note": b"1"}
WRITE = EnvelopeSpec(write_set(SetSpec(writes=[("a", b"1")])))
WRITE_PRIVATE = EnvelopeSpec(write_set(SetSpec(collections={"own": SetSpec(writes=[("p", b"1")])})))
READ = EnvelopeSpec(write_set(SetSpec(reads=[("a", None)])))
CHANGE_POLICY = EnvelopeSpec(write_set(SetSpec(writes=[("a", b"1")], metadata=[("a", KEY_POLICY)])))
METADATA = EnvelopeSpec(write_set(SetSpec(metadata=[("old", NOTE)])))
NO_SIGNATURE = "BAD_CREATOR_SIGNATURE"


def drop_actions(message: Any) -> None:
    del message.actions[:]


def garbage_payload(message: Any) -> None:
    message.actions[0].payload = b"\xff"


def clear(field: str) -> Callable[[Any], None]:
    return lambda message: message.ClearField(field)


NO_ACTIONS = replace(WRITE, change_transaction=drop_actions)
NO_ACTION = replace(WRITE, change_endorsed=clear("action"))
GARBAGE = replace(WRITE, change_transaction=garbage_payload)


@pytest.fixture
def channel() -> JudgedChannel:
    channel = JudgedChannel()
    both = signature_policy(encode_policy_expression("AND('EnterpriseMSP.peer', 'CustomerMSP.peer')"))
    own = CollectionConfig("own", members_policy("EnterpriseMSP"))
    channel.define(ChaincodeDefinition(1, "1.0", both, encode_collections([own])))
    channel.define(ChaincodeDefinition(1, "1.0", both), "second")
    channel.commit(EnvelopeSpec(write_set(SetSpec())))
    return channel


def told(judgement: BlockJudgement) -> list[tuple[int, NoVerdictReason]]:
    return [(stop.tx_number, stop.reason) for stop in judgement.without_verdict]


def codes(judgement: BlockJudgement) -> list[str]:
    return [validation_code_name(code) for code in judgement.flags]


def unsigned(spec: EnvelopeSpec) -> EnvelopeSpec:
    """Give a transaction that nobody gets to judge."""
    return replace(spec, change_envelope=clear("signature"))


REASONS: list[tuple[Sequence[EnvelopeSpec | bytes], Sequence[str], list[tuple[int, NoVerdictReason]]]] = [
    (
        [NO_ACTIONS, READ],
        ["INVALID_ENDORSER_TRANSACTION", "VALID"],
        [(1, NoVerdictReason.NO_ACTIONS)],
    ),
    ([NO_ACTION], ["INVALID_ENDORSER_TRANSACTION"], [(0, NoVerdictReason.NO_ACTION)]),
    (
        [unsigned(NO_ACTION), READ],
        [NO_SIGNATURE, "VALID"],
        [(1, NoVerdictReason.NO_ACTIONS)],
    ),
    ([b""], ["BAD_COMMON_HEADER"], [(0, NoVerdictReason.NO_HEADER)]),
    ([b"\xff", WRITE], ["INVALID_OTHER_REASON", "VALID"], [(1, NoVerdictReason.NOT_READABLE)]),
    (
        [GARBAGE, WRITE_PRIVATE],
        ["INVALID_ENDORSER_TRANSACTION", "VALID"],
        [(1, NoVerdictReason.NOT_READABLE)],
    ),
    ([unsigned(CHANGE_POLICY), WRITE], [NO_SIGNATURE, "VALID"], [(1, NoVerdictReason.NEVER_JUDGED)]),
    (
        [EnvelopeSpec(write_set(SetSpec(collections={"none": SetSpec(writes=[("p", b"1")])})))],
        ["ENDORSEMENT_POLICY_FAILURE"],
        [(0, NoVerdictReason.UNDEFINED_COLLECTION)],
    ),
    (
        [unsigned(EnvelopeSpec(write_set(SetSpec(collections={"none": SetSpec(metadata=[("p", NOTE)])}))))],
        [NO_SIGNATURE],
        [(0, NoVerdictReason.UNDEFINED_COLLECTION)],
    ),
    (
        [EnvelopeSpec(read_write_set([("none", SetSpec(collections={"own": SetSpec(writes=[("p", b"1")])}))]))],
        ["INVALID_CHAINCODE"],
        [(0, NoVerdictReason.UNDEFINED_COLLECTION)],
    ),
    (
        [
            EnvelopeSpec(write_set(SetSpec(writes=[("old", None)]))),
            METADATA,
        ],
        ["VALID", "VALID"],
        [(1, NoVerdictReason.METADATA_OF_DELETED)],
    ),
]


@pytest.mark.parametrize(("block", "given", "expected"), REASONS, ids=range(len(REASONS)))
def test_what_stops_a_peer_is_said_and_gets_a_code(
    channel: JudgedChannel, block: Sequence[EnvelopeSpec | bytes], given: Sequence[str], expected: object
) -> None:
    channel.put("old", b"1", Version(1, 0))

    judgement = channel.judge(*block)

    assert codes(judgement) == given
    assert told(judgement) == expected


HARMLESS: list[Sequence[EnvelopeSpec | bytes]] = [
    [READ, NO_ACTIONS],
    [NO_ACTIONS],
    [NO_ACTIONS, unsigned(WRITE)],
    [WRITE, GARBAGE],
    [GARBAGE, READ],
    [b"\xff"],
    [WRITE, unsigned(CHANGE_POLICY)],
    [unsigned(CHANGE_POLICY), EnvelopeSpec(write_set(SetSpec(writes=[("b", b"1")])))],
    [CHANGE_POLICY, WRITE],
    [EnvelopeSpec(write_set(SetSpec(collections={"none": SetSpec(reads=[("p", None)])})))],
    [WRITE_PRIVATE, WRITE, READ],
    [EnvelopeSpec(b"\xff"), WRITE],
    [
        EnvelopeSpec(write_set(SetSpec(metadata=[("old", NOTE)]))),
        EnvelopeSpec(write_set(SetSpec(writes=[("old", None)]))),
    ],
    [EnvelopeSpec(write_set(SetSpec(metadata=[("absent", NOTE)])))],
    [EnvelopeSpec(write_set(SetSpec(writes=[("old", None)], metadata=[("old", NOTE)])))],
]


@pytest.mark.parametrize("block", HARMLESS, ids=range(len(HARMLESS)))
def test_what_stops_nobody_is_not_said(channel: JudgedChannel, block: Sequence[EnvelopeSpec | bytes]) -> None:
    channel.put("old", b"1", Version(1, 0))

    assert told(channel.judge(*block)) == []


def test_a_policy_of_a_key_that_cannot_be_read_stops_whoever_writes_the_key(channel: JudgedChannel) -> None:
    channel.put("a", b"1", Version(1, 0), metadata={"VALIDATION_PARAMETER": b"\xff"})

    judgement = channel.judge(READ, WRITE)

    assert codes(judgement) == ["MVCC_READ_CONFLICT", "ENDORSEMENT_POLICY_FAILURE"]
    assert told(judgement) == [(1, NoVerdictReason.KEY_POLICY)]


def test_a_policy_that_nobody_can_satisfy_stops_nobody(channel: JudgedChannel) -> None:
    channel.put("a", b"1", Version(1, 0), metadata={"VALIDATION_PARAMETER": b"\x08\x00"})

    judgement = channel.judge(WRITE)

    assert codes(judgement) == ["ENDORSEMENT_POLICY_FAILURE"]
    assert told(judgement) == []


def test_a_second_namespace_that_is_never_judged_is_noticed(channel: JudgedChannel) -> None:
    """The first one fails, so a peer never says what became of the second one's metadata."""
    first = SetSpec(writes=[("a", b"1")])
    both = read_write_set([(CHAINCODE, first), ("second", SetSpec(metadata=[("b", NOTE)]))])
    failing = EnvelopeSpec(both, endorsers=[channel.enterprise.peer])
    later = EnvelopeSpec(read_write_set([("second", SetSpec(writes=[("b", b"1")]))]), chaincode="second")

    judgement = channel.judge(failing, later)

    assert codes(judgement) == ["ENDORSEMENT_POLICY_FAILURE", "VALID"]
    assert told(judgement) == [(1, NoVerdictReason.NEVER_JUDGED)]


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("ValidationInfo", b"\xff", NoVerdictReason.DEFINITION),
        ("ValidationInfo", b"\x12\x09\x0a\x05other\x12\x00", NoVerdictReason.PLUGIN),
    ],
)
def test_a_definition_that_no_peer_can_use_stops_them(
    channel: JudgedChannel, field: str, value: bytes, reason: NoVerdictReason
) -> None:
    key = (LIFECYCLE_NAMESPACE, "", field_key(CHAINCODE, field).encode())
    channel.state.put(key, StateUpdate(value, Version(1, 0)))

    judgement = channel.judge(WRITE)

    assert codes(judgement) == ["INVALID_CHAINCODE"]
    assert told(judgement) == [(0, reason)]


def test_a_configuration_that_does_not_follow_stops_a_peer(channel: JudgedChannel) -> None:
    content = configtx_pb2.ConfigEnvelope(config=channel.factory.configuration)
    spec = EnvelopeSpec(header_type=1, tx_id="", data=serialize(content))

    judgement = channel.judge(spec)

    assert codes(judgement) == ["INVALID_CONFIG_TRANSACTION"]
    assert told(judgement) == [(0, NoVerdictReason.CONFIGURATION)]


def test_a_reason_names_neither_key_nor_value(channel: JudgedChannel) -> None:
    secret = SetSpec(collections={"none": SetSpec(writes=[("a secret key", b"a secret value")])})

    (stop,) = channel.judge(EnvelopeSpec(write_set(secret))).without_verdict

    assert "secret" not in str(stop)
