from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvr_sync.mapping.conversion import moment
from kvr_sync.store.encoding import time_text


def test_claimed_time_drops_what_is_below_a_microsecond() -> None:
    assert moment(1, 999_999_999) == datetime(1970, 1, 1, 0, 0, 1, 999_999, tzinfo=UTC)
    assert moment(-1, None) == datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC)


@pytest.mark.parametrize("nanos", [-1, 1_000_000_000])
def test_claimed_time_with_wrong_nanoseconds_is_none(nanos: int) -> None:
    assert moment(0, nanos) is None


@given(st.integers(-(2**63), 2**63 - 1), st.integers(-(2**31), 2**31 - 1) | st.none())
def test_claimed_time_is_total(seconds: int, nanos: int | None) -> None:
    found = moment(seconds, nanos)
    assert found is None or found.timestamp() >= seconds


@given(st.datetimes(), st.datetimes())
def test_time_text_sorts_as_time_does(one: datetime, other: datetime) -> None:
    texts = [time_text(moment.replace(tzinfo=UTC)) for moment in (one, other)]

    assert (texts[0] < texts[1]) == (one < other)
    assert {len(text) for text in texts} == {27}
    assert datetime.fromisoformat(texts[0]) == one.replace(tzinfo=UTC)
