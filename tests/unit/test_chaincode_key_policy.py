import pytest

from chaincode.errors import InvalidKeyError
from chaincode.shim.key_policy import members_policy, peers_policy
from network.protocol.policy_expression import encode_policy_expression


def test_every_organisation_named_has_to_endorse() -> None:
    policy = peers_policy(["ServiceMSP", "CustomerMSP"])

    assert policy == encode_policy_expression("AND('CustomerMSP.peer', 'ServiceMSP.peer')")


def test_any_member_will_do_where_members_are_asked() -> None:
    assert members_policy(["ServiceMSP"]) == encode_policy_expression("OR('ServiceMSP.member')")


def test_order_and_repetition_change_no_byte() -> None:
    assert peers_policy(["B", "A", "B"]) == peers_policy(["A", "B"])
    assert peers_policy(["A", "B"]) != peers_policy(["A", "C"]) != members_policy(["A", "C"])


@pytest.mark.parametrize("names", [[], [""], ["A", ""]])
def test_a_policy_that_nobody_could_satisfy_is_refused(names: list[str]) -> None:
    with pytest.raises(InvalidKeyError, match="MSP id"):
        peers_policy(names)
