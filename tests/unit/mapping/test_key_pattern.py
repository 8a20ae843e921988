"""Patterns of simple keys: what they select, what they give, and that no key makes matching slow."""

import time
import tracemalloc
from itertools import chain, zip_longest

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kvr_sync.mapping.definition import PatternSelector, format_pattern
from kvr_sync.mapping.key_pattern import match_pattern, parse_pattern
from kvr_sync.mapping.limits import MAX_KEY_ATTRIBUTES
from tests.support.mapped_block import cell, map_value, one_column

LITERALS = st.text("ab/-{}é", min_size=1, max_size=3)


@st.composite
def patterns(draw: st.DrawFn) -> PatternSelector:
    """Any pattern that can be written: literals between attributes are not empty, the outer ones may be."""
    inner = draw(st.lists(LITERALS, max_size=4))
    outer = st.just("") | LITERALS
    literals = (draw(outer), *inner, draw(outer))
    return PatternSelector(literals, tuple(f"a{number}" for number in range(len(literals) - 1)))


def joined(literals: tuple[str, ...], attributes: tuple[str, ...]) -> str:
    return "".join(chain.from_iterable(zip_longest(literals, attributes, fillvalue="")))


@pytest.mark.parametrize(
    ("pattern", "key", "attributes"),
    [
        ("order-{id}/line-{line}", "order-7/line-3", ("7", "3")),
        ("order-{id}/line-{line}", "order-7/line-3/line-4", ("7", "3/line-4")),
        ("order-{id}/line-{line}", "order-/line-3", None),
        ("order-{id}/line-{line}", "order-7/line-", None),
        ("order-{id}/line-{line}", "order-7", None),
        ("order-{id}/line-{line}", "Order-7/line-3", None),
        ("order-{id}/line-{line}", "order-/line-/line-3", ("/line-", "3")),
        ("{id}", "anything at all", ("anything at all",)),
        ("{id}", "", None),
        ("{id}:end", "x:end:end", ("x:end",)),
        ("{id}:end", ":end", None),
        ("{a}.{b}", "..x", (".", "x")),
        ("{a}.{b}", "x..", ("x", ".")),
        ("{a}aa{b}", "aaaa", ("a", "a")),
        ("{{{a}}}", "{x}", ("x",)),
        ("a{b}a", "aa", None),
        ("a{b}a", "aba", ("b",)),
        ("ab{x}ba", "aba", None),
    ],
)
def test_an_attribute_ends_where_the_next_text_is_found_first(
    pattern: str, key: str, attributes: tuple[str, ...] | None
) -> None:
    selector = parse_pattern(pattern)

    assert isinstance(selector, PatternSelector)
    assert match_pattern(selector.literals, key) == attributes


@given(patterns())
@example(PatternSelector(("{", "}{", "}"), ("a0", "a1")))
def test_a_pattern_that_is_written_is_read_back(pattern: PatternSelector) -> None:
    assert parse_pattern(format_pattern(pattern.literals, pattern.attributes)) == pattern


@given(patterns(), st.text("ab/-{}é", max_size=20))
def test_what_is_matched_makes_the_key_again(pattern: PatternSelector, key: str) -> None:
    attributes = match_pattern(pattern.literals, key)

    if attributes is not None:
        assert len(attributes) == len(pattern.attributes)
        assert all(attributes)
        assert joined(pattern.literals, attributes) == key


@given(patterns(), st.data())
def test_every_key_of_the_form_is_matched(pattern: PatternSelector, data: st.DataObject) -> None:
    """Whatever stands in the attributes; they may be split in another place where a text of the pattern is in them."""
    values = tuple(data.draw(st.text("ab/-é", min_size=1, max_size=4)) for _ in pattern.attributes)
    key = joined(pattern.literals, values)

    attributes = match_pattern(pattern.literals, key)

    assert attributes is not None
    if not any(literal[:1] in value for literal in pattern.literals[1:] for value in values if literal):
        assert attributes == values


@pytest.mark.parametrize(
    ("pattern", "key"),
    [
        ("{a}" + "".join(f"aaaaaaab{{b{n}}}" for n in range(20)), "a" * 200_000),
        ("{a}b{b}b{c}c", "b" * 500_000),
        ("{a}" + "".join(f"x{{b{n}}}" for n in range(40)) + "y", "x" * 500_000),
        ("{a}" + "ab" * 100 + "{b}", "ab" * 99 + "a" * 300_000),
    ],
)
def test_hostile_keys_are_refused_or_matched_in_linear_time(pattern: str, key: str) -> None:
    selector = parse_pattern(pattern)
    assert isinstance(selector, PatternSelector)
    before = time.process_time()

    match_pattern(selector.literals, key)

    assert time.process_time() - before < 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", f"1 to {MAX_KEY_ATTRIBUTES} attributes"),
        ("no attribute", "1 to"),
        ("{{a}}", "1 to"),
        ("{a}{b}", "a text between 'a' and 'b'"),
        ("{a}-{a}", "'a' stands twice"),
        ("{a", "not a pattern"),
        ("a}", "not a pattern"),
        ("{}", "not a pattern"),
        ("{A}", "not a pattern"),
        ("{a b}", "not a pattern"),
        ("{1a}", "not a pattern"),
        (f"{{{'a' * 64}}}", "not a pattern"),
        ("\x00{a}", "does not begin with U+0000"),
        ("-".join(f"{{a{number}}}" for number in range(MAX_KEY_ATTRIBUTES + 1)), "1 to"),
    ],
)
def test_what_is_no_pattern_is_told_why(text: str, words: str) -> None:
    mistake = parse_pattern(text)

    assert isinstance(mistake, str)
    assert words in mistake


@given(st.text(max_size=30))
def test_any_text_is_a_pattern_or_a_mistake(text: str) -> None:
    found = parse_pattern(text)

    if isinstance(found, PatternSelector):
        assert parse_pattern(format_pattern(found.literals, found.attributes)) == found
    else:
        assert found


def test_columns_take_attributes_of_a_pattern_by_name_and_convert_them() -> None:
    mapping = one_column("from: key.line, type: integer", '{pattern: "o-{id}/{line}"}')

    assert cell(mapping, b"v", key=b"o-7/12") == 12
    assert map_value(mapping, b"v", key=b"o-7/x").quarantined[0].reason == "wrong_type"


@pytest.mark.parametrize("key", [b"o-\xff/1", b"\x00o-1/1", b"o-/1", b"o-1/", b"p-1/1"])
def test_keys_that_are_not_of_the_form_make_no_row_and_no_complaint(key: bytes) -> None:
    batch = map_value(one_column("from: key.id, type: text", '{pattern: "o-{id}/{line}"}'), b"v", key=key)

    assert (batch.mapped, batch.quarantined) == ((), ())


def test_keys_of_any_size_are_matched_and_long_ones_are_not_kept() -> None:
    mapping = one_column("from: key.id, type: text", '{pattern: "o-{id}"}')
    tracemalloc.start()
    try:
        for number in range(8):
            batch = map_value(mapping, b"v", key=b"o-" + b"x" * 1_000_000 + b"%d" % number)
            assert len(batch.mapped) == 1
        del batch
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert kept < 1_000_000
