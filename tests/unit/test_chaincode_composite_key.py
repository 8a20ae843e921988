"""Composite keys: one form, no two ways to the same key."""

import base64
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chaincode.errors import InvalidKeyError
from chaincode.shim.composite_key import (
    check_simple_range,
    composite_range,
    create_composite_key,
    split_composite_key,
)

PARTS = st.text(st.characters(codec="utf-8", exclude_characters="\x00\U0010ffff"), max_size=8)
EXPECTED = Path(__file__).parents[1] / "vectors" / "fabric-3.1.5-service-week" / "expected.json"


@given(PARTS, st.lists(PARTS, max_size=4))
def test_what_was_put_together_comes_apart(object_type: str, attributes: list[str]) -> None:
    assert split_composite_key(create_composite_key(object_type, attributes)) == (object_type, tuple(attributes))


def test_makes_the_keys_that_a_real_network_recorded() -> None:
    recorded = [base64.b64decode(key).decode() for key in json.loads(EXPECTED.read_text())["state_base64"]]
    composite = [key for key in recorded if key.startswith("\x00")]

    assert len(composite) > 100
    for key in composite:
        object_type, attributes = split_composite_key(key)
        assert create_composite_key(object_type, attributes) == key


@pytest.mark.parametrize("part", ["b\x00c", "\x00", "a\U0010ffff", "\ud800"])
def test_refuses_parts_that_make_keys_ambiguous(part: str) -> None:
    with pytest.raises(InvalidKeyError):
        create_composite_key("t", ["a", part])
    with pytest.raises(InvalidKeyError):
        create_composite_key(part, [])


@pytest.mark.parametrize("key", ["", "\x00", "plain", "\x00open", "open\x00"])
def test_refuses_to_take_other_keys_apart(key: str) -> None:
    with pytest.raises(InvalidKeyError):
        split_composite_key(key)


@given(PARTS, PARTS, PARTS)
def test_a_range_holds_the_keys_that_begin_so_and_no_other(first: str, second: str, other: str) -> None:
    start, end = composite_range("t", [first])

    assert start <= create_composite_key("t", [first, second]) < end
    if other != first:
        assert not start <= create_composite_key("t", [other, second]) < end


def test_an_open_start_leaves_composite_keys_out() -> None:
    assert check_simple_range("", "") == ("\x01", "")


@pytest.mark.parametrize("bounds", [("\x00a", ""), ("a", "\x00b")])
def test_refuses_bounds_among_composite_keys(bounds: tuple[str, str]) -> None:
    with pytest.raises(InvalidKeyError):
        check_simple_range(*bounds)
