import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from network.protocol.duration import decode_duration
from network.protocol.errors import DecodeError


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("0", 0),
        ("+0", 0),
        ("2s", 2_000_000_000),
        ("200ms", 200_000_000),
        ("1h2m3.5s", 3_723_500_000_000),
        ("-1.5h", -5_400_000_000_000),
        (".5s", 500_000_000),
        ("1.s", 1_000_000_000),
        ("3us", 3000),
        ("3µs", 3000),
        ("3μs", 3000),
        ("1ns", 1),
        ("0.4ns", 0),
    ],
)
def test_reads_what_go_writes(text: str, nanoseconds: int) -> None:
    assert decode_duration(text) == nanoseconds


@pytest.mark.parametrize(
    "text", ["", "-", "5", "s", ".s", "2 s", "2s ", "2d", "1e3s", "--1s", "99999999999h", "1s" * 60]
)
def test_refuses_what_is_no_duration(text: str) -> None:
    with pytest.raises(DecodeError, match="duration"):
        decode_duration(text)


@given(st.text(max_size=30))
def test_any_text_is_judged(text: str) -> None:
    with contextlib.suppress(DecodeError):
        assert isinstance(decode_duration(text), int)
