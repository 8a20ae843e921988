import pytest
from fabric_protos.peer import proposal_response_pb2

from network.protocol.collection import members_policy
from network.protocol.errors import DecodeError
from network.protocol.interest import ChaincodeCall, WrittenKey, decode_interest, encode_interest, interest_of

POLICY = members_policy("OrgMSP")
OTHER = members_policy("OtherMSP")


def test_a_transaction_that_only_read_asks_for_the_chaincode_policy() -> None:
    names = ["e", "d", "c", "b", "a", "f"]

    assert interest_of(names, [], []) == tuple(ChaincodeCall(name) for name in sorted(names))


def test_a_public_write_asks_for_the_chaincode_policy() -> None:
    assert interest_of(["ext"], [WrittenKey("ext", "", None)], []) == (ChaincodeCall("ext"),)


def test_a_write_of_a_key_with_a_policy_asks_for_that_policy_alone() -> None:
    found = interest_of(["ext"], [WrittenKey("ext", "", POLICY), WrittenKey("ext", "", OTHER)], [])

    assert found == (ChaincodeCall("ext", disregard_namespace_policy=True, key_policies=(POLICY, OTHER)),)


def test_a_key_without_policy_beside_one_with_asks_for_both() -> None:
    found = interest_of(["ext"], [WrittenKey("ext", "", POLICY), WrittenKey("ext", "", None)], [])

    assert found == (ChaincodeCall("ext", key_policies=(POLICY,)),)


def test_a_private_write_asks_for_the_collection_alone_and_need_not_ask_members() -> None:
    found = interest_of(["ext"], [WrittenKey("ext", "deals", None)], [])

    assert found == (ChaincodeCall("ext", ("deals",), no_private_reads=True),)


def test_a_private_key_with_a_policy_asks_for_that_policy_and_no_collection() -> None:
    found = interest_of(["ext"], [WrittenKey("ext", "deals", POLICY)], [])

    assert found == (ChaincodeCall("ext", disregard_namespace_policy=True, key_policies=(POLICY,)),)


def test_a_private_read_asks_its_members_beside_the_chaincode() -> None:
    found = interest_of(["ext"], [], [("ext", "deals")])

    assert found == (ChaincodeCall("ext"), ChaincodeCall("ext", ("deals",)))


def test_each_collection_is_asked_for_by_itself() -> None:
    written = [WrittenKey("ext", "offers", None), WrittenKey("ext", "deals", None), WrittenKey("ext", "", None)]

    found = interest_of(["ext"], written, [("ext", "deals"), ("ext", "deals")])

    assert found == (
        ChaincodeCall("ext"),
        ChaincodeCall("ext", ("deals",)),
        ChaincodeCall("ext", ("offers",), no_private_reads=True),
    )


@pytest.mark.parametrize("system", ["_lifecycle", "cscc", "lscc", "qscc"])
def test_system_chaincodes_interest_nobody(system: str) -> None:
    found = interest_of([system, "ext"], [WrittenKey(system, "deals", None)], [(system, "deals")])

    assert found == (ChaincodeCall("ext"),)


def test_an_interest_is_read_as_it_was_written() -> None:
    calls = (
        ChaincodeCall("ext", disregard_namespace_policy=True, key_policies=(POLICY, OTHER)),
        ChaincodeCall("ext", ("deals",), no_private_reads=True),
    )

    message = encode_interest(calls)

    assert decode_interest(proposal_response_pb2.ChaincodeInterest.FromString(message.SerializeToString())) == calls
    assert [call.no_private_reads for call in message.chaincodes] == [False, True]


def test_a_key_policy_that_is_none_cannot_be_written() -> None:
    with pytest.raises(DecodeError, match="SignaturePolicyEnvelope of a key"):
        encode_interest([ChaincodeCall("ext", key_policies=(b"\xff",))])
