import pytest
from fabric_protos.common import policies_pb2

from network.protocol.errors import ConfigurationError, DecodeError
from network.protocol.policy_expression import decode_policy_expression, encode_policy_expression
from tests.support.credential import identity_principal, out_of, role, root_authority, signature_policy, signed_by

MEMBER, ADMIN, PEER = 0, 1, 3


def test_numbers_principals_in_order_of_appearance_without_deduplication() -> None:
    expected = signature_policy(out_of(2, signed_by(0), signed_by(1)), role("A", PEER), role("A", PEER))

    assert encode_policy_expression("AND('A.peer', 'A.peer')") == expected.value


def test_numbers_principals_of_an_inner_gate_before_those_of_the_outer_one() -> None:
    # As Fabric's own TestComplex1 in common/policydsl/policyparser_test.go has it.
    rule = out_of(1, signed_by(2), out_of(2, signed_by(0), signed_by(1)))
    expected = signature_policy(rule, role("B", MEMBER), role("C", MEMBER), role("A", MEMBER))

    assert encode_policy_expression("OR('A.member', AND('B.member', 'C.member'))") == expected.value


@pytest.mark.parametrize("gate", ["AND", "And", "and"])
def test_takes_the_three_spellings_of_a_gate(gate: str) -> None:
    assert encode_policy_expression(f"{gate}('A.peer')") == encode_policy_expression("OutOf(1, 'A.peer')")


@pytest.mark.parametrize(
    "text",
    [
        "AND('C.peer', OR('S-1.x.admin', 'B.orderer'), 'A.client')",
        "OutOf(2, 'A.peer', 'B.peer', OR('C.peer'))",
        "OR('A.member', AND('B.member', 'C.member'))",
    ],
)
def test_gives_the_text_that_was_encoded(text: str) -> None:
    assert decode_policy_expression(encode_policy_expression(text)) == text


@pytest.mark.parametrize(
    ("text", "column"),
    [
        ("", 1),
        ("'A.peer'", 1),
        ("XOR('A.peer')", 1),
        ("AND['A.peer']", 4),
        ("AND()", 5),
        ("AND('A.peer'", 13),
        ("AND('A.peer' 'B.peer')", 14),
        ("AND('A.peer', 'B.boss')", 15),
        ("AND('A_1.peer')", 5),
        ("OutOf('A.peer')", 7),
        ("OR('A.peer', OutOf(3, 'A.peer', 'B.peer'))", 14),
        ("AND('A.peer') x", 15),
    ],
)
def test_refuses_wrong_text_with_the_column(text: str, column: int) -> None:
    with pytest.raises(ConfigurationError, match=rf"column {column}: "):
        encode_policy_expression(text)


@pytest.mark.parametrize("text", ["OR(" * 5000, "OR(" + "'A.peer'," * 10_000 + "'A.peer')", " " * 100_001])
def test_refuses_text_beyond_the_bounds(text: str) -> None:
    with pytest.raises(ConfigurationError):
        encode_policy_expression(text)


@pytest.mark.parametrize(
    "content",
    [
        policies_pb2.SignaturePolicyEnvelope().SerializeToString(),
        signature_policy(out_of(1, signed_by(1)), role("A", PEER)).value,
        signature_policy(out_of(1, signed_by(0)), role("A'", PEER)).value,
        signature_policy(out_of(1, signed_by(0)), identity_principal(root_authority("A"))).value,
        signature_policy(signed_by(0), role("A", PEER)).value,
    ],
    ids=["empty", "no such principal", "quote in the MSP id", "identity", "no gate"],
)
def test_refuses_an_envelope_that_no_text_says(content: bytes) -> None:
    with pytest.raises(DecodeError):
        decode_policy_expression(content)
