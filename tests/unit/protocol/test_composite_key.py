"""Composite keys: Fabric's form, split only when it is exactly that."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from network.protocol.composite_key import encode_composite_key, split_composite_key
from network.protocol.errors import CompositeKeyError
from tests.support.recorded_chain import ALL_CHAINS, CHAINS, load_chain

PARTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00\U0010ffff"))


def test_builds_the_form_of_the_shim() -> None:
    assert encode_composite_key("request", ["south", "0001"]) == b"\x00request\x00south\x000001\x00"
    assert encode_composite_key("", ()) == b"\x00\x00"
    assert encode_composite_key("t", ("", "")) == b"\x00t\x00\x00\x00"


@given(PARTS, st.lists(PARTS, max_size=4))
def test_splitting_gives_the_parts_back(object_type: str, attributes: list[str]) -> None:
    key = encode_composite_key(object_type, attributes)

    assert split_composite_key(key) == (object_type, tuple(attributes))


@given(st.binary(max_size=40) | st.binary(max_size=20).map(lambda middle: b"\x00" + middle + b"\x00"))
def test_whatever_splits_is_built_again_from_its_parts(key: bytes) -> None:
    parts = split_composite_key(key)

    assert parts is None or encode_composite_key(*parts) == key


@pytest.mark.parametrize(
    "key",
    [
        b"",
        b"\x00",
        b"simple",
        b"\x00simple key that begins like one",
        b"simple key that ends like one\x00",
        b"\x00type\x00attribute not closed",
        b"\x00type\x00\xff\x00",
        b"\x00type\x00\xed\xa0\x80\x00",
        b"\x00type\x00\xc0\x80\x00",
        b"\x00\xf4\x8f\xbf\xbf\x00",
        b"\x00type\x00a\xf4\x8f\xbf\xbfb\x00",
    ],
)
def test_what_is_no_composite_key_splits_into_nothing(key: bytes) -> None:
    assert split_composite_key(key) is None


def test_keys_that_differ_in_a_trailing_separator_stay_different() -> None:
    assert split_composite_key(b"\x00t\x00a\x00") == ("t", ("a",))
    assert split_composite_key(b"\x00t\x00a\x00\x00") == ("t", ("a", ""))


def test_a_key_of_ten_kilobytes_splits() -> None:
    assert split_composite_key(b"\x00t\x00" + b"x" * 10_000 + b"\x00") == ("t", ("x" * 10_000,))


@pytest.mark.parametrize("part", ["a\x00b", "\U0010ffff", "\ud800"])
def test_rejects_parts_that_no_composite_key_can_have(part: str) -> None:
    with pytest.raises(CompositeKeyError):
        encode_composite_key(part, ())
    with pytest.raises(CompositeKeyError):
        encode_composite_key("type", ("good", part))


@pytest.mark.parametrize("name", ALL_CHAINS)
def test_recorded_keys_split_exactly_when_they_begin_with_the_separator(name: str) -> None:
    keys = [base64.b64decode(key) for key in load_chain(name).expected["state_base64"]]

    split = {key: split_composite_key(key) for key in keys}

    assert {key for key, parts in split.items() if parts} == {key for key in keys if key.startswith(b"\x00")}
    assert {parts[0] for parts in split.values() if parts} <= {"customer", "request"}


def test_recorded_keys_have_the_parts_that_the_chaincode_gave() -> None:
    keys = [base64.b64decode(key) for key in load_chain(CHAINS[0]).expected["state_base64"]]

    found = {parts for parts in map(split_composite_key, keys) if parts}

    assert found == {("request", ("south", "0001")), ("request", ("南方", "0002"))}
