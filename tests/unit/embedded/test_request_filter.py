"""What a peer looks at before a proposal: expiry and time, on any bytes."""

from datetime import timedelta
from typing import Any

import pytest
from fabric_protos.common import common_pb2
from fabric_protos.peer import proposal_pb2
from hypothesis import given
from hypothesis import strategies as st

from network.embedded.ledger.expiry import has_expired
from network.embedded.ledger.request_filter import RequestFilterError, check_request
from tests.support.credential import START, YEAR, of_no_version, root_authority

CLIENT = root_authority("OrgMSP").issue("client", ("client",))
END = (START + YEAR).timestamp()
NOW = START.timestamp() + 60


def proposal(seconds: int | None = int(NOW), creator: bytes = CLIENT.serialized) -> bytes:
    header: Any = common_pb2.ChannelHeader()
    if seconds is not None:
        header.timestamp.seconds = seconds
    message = common_pb2.Header(
        channel_header=header.SerializeToString(),
        signature_header=common_pb2.SignatureHeader(creator=creator).SerializeToString(),
    )
    return bytes(proposal_pb2.Proposal(header=message.SerializeToString()).SerializeToString())


def refusal(content: bytes, now: float = NOW) -> str:
    with pytest.raises(RequestFilterError) as caught:
        check_request(content, now)
    return str(caught.value)


def test_a_certificate_counts_to_its_last_second() -> None:
    assert not has_expired(CLIENT.serialized, END)
    assert has_expired(CLIENT.serialized, END + 1)
    assert refusal(proposal(int(END)), END + 1) == "proposal client identity expired"


@pytest.mark.parametrize(
    "identity",
    [b"", b"nobody", CLIENT.serialized_as(b"no certificate"), CLIENT.serialized_as(of_no_version(CLIENT.der))],
    ids=["nothing", "no identity", "no certificate", "a certificate of no version"],
)
def test_what_is_no_certificate_does_not_expire(identity: bytes) -> None:
    assert not has_expired(identity, END + timedelta(days=365 * 100).total_seconds())


def test_expiry_is_looked_at_before_time() -> None:
    assert refusal(proposal(0), END + 1) == "proposal client identity expired"


@pytest.mark.parametrize("seconds", [2**63 - 1, -(2**63), 2**40])
def test_a_time_that_no_calendar_has_is_refused(seconds: int) -> None:
    assert " seconds after 1970, peer time 20" in refusal(proposal(seconds))


def test_no_time_is_the_first_one() -> None:
    assert "incorrect timestamp 1970-01-01T00:00:00Z" in refusal(proposal(None))


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_by_an_error_of_ours(content: bytes) -> None:
    with pytest.raises(RequestFilterError):
        check_request(content, NOW)
