"""Keys of chains that nobody here designed, sorted into groups."""

from base64 import b64encode
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvr_sync.inference.key_groups import KeyShapes
from kvr_sync.inference.limits import MAX_SHAPES
from kvr_sync.inference.proposal import Group
from kvr_sync.mapping.definition import (
    CompositeSelector,
    KeySelector,
    PatternSelector,
    PrefixSelector,
    format_pattern,
)
from network.protocol.composite_key import encode_composite_key


def selectors(keys: Iterable[bytes]) -> list[KeySelector]:
    shapes = KeyShapes()
    for key in keys:
        shapes.add(key)
    return shapes.selectors()


def words(selector: KeySelector) -> str:
    match selector:
        case PatternSelector(literals, attributes):
            return format_pattern(literals, attributes)
        case PrefixSelector(prefix):
            return f"prefix {prefix}"
        case CompositeSelector(object_type, attributes):
            return f"{object_type}/{len(attributes)}"


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ([f"asset{n}" for n in range(1, 30)], ["asset{key_1}"]),
        ([f"CAR{n}" for n in range(20)], ["CAR{key_1}"]),
        ([f"order-{n}/line-{n % 3}" for n in range(30)], ["order-{key_1}/line-{key_2}"]),
        ([f"customer:{n}" for n in range(9)] + [f"meter:{n}" for n in range(9)], ["customer:{key_1}", "meter:{key_1}"]),
        ([f"user_{name}_profile" for name in ("ann", "bob", "eva", "max")], ["user_{key_1}_profile"]),
        (["ann", "bob", "eva", "max"], ["prefix "]),
        (["config"], ["prefix config"]),
        ([f"{n:032x}" for n in range(2**100, 2**100 + 20)], ["prefix "]),
        ([b64encode(f"x509::CN=user{n}::CN=ca".encode()).decode() for n in range(20)], ["prefix "]),
        ([f"tx/0b6e6a8e-0a4b-4c1d-9f5e-{n:012x}" for n in range(20)], ["tx/{key_1}"]),
    ],
)
def test_simple_keys_are_sorted_by_what_is_fixed_in_them(keys: list[str], expected: list[str]) -> None:
    assert sorted(words(selector) for selector in selectors(key.encode() for key in keys)) == sorted(expected)


def test_composite_keys_are_sorted_by_type_and_number_of_attributes() -> None:
    keys = [encode_composite_key("request", (str(n),)) for n in range(3)]
    keys += [encode_composite_key("request", ("a", str(n))) for n in range(3)]

    assert [words(selector) for selector in selectors(keys)] == ["request/1", "request/2"]


def test_keys_of_more_shapes_than_are_kept_apart_go_into_one_group() -> None:
    found = selectors(b"-" * n + b"x" for n in range(1, MAX_SHAPES + 50))

    assert PrefixSelector("") in found


@given(st.lists(st.binary(min_size=1, max_size=12), min_size=1, max_size=40))
def test_every_key_is_in_a_group(keys: list[bytes]) -> None:
    groups = [Group("ns", selector) for selector in selectors(keys)]

    for key in keys:
        if key[:1] != b"\x00":
            assert any(group.attributes_of(key) is not None for group in groups), key


@given(st.lists(st.text(st.sampled_from("ab1-/"), min_size=1, max_size=8), min_size=1, max_size=40))
def test_every_text_is_in_a_group(keys: list[str]) -> None:
    groups = [Group("ns", selector) for selector in selectors(key.encode() for key in keys)]

    for key in keys:
        assert any(group.attributes_of(key.encode()) is not None for group in groups), key
