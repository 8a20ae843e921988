"""Strict JSON: exact or refused with a reason, in bounded time, and never with a foreign exception."""

import json
import time
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kvr_sync.mapping import quarantine
from kvr_sync.mapping.document import read_document, write_document
from kvr_sync.mapping.limits import MAX_DOCUMENT_BYTES, MAX_DOCUMENT_DEPTH
from kvr_sync.mapping.quarantine import REASONS, UnfitValueError

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
NUMBERS = st.integers() | st.decimals(allow_nan=False, allow_infinity=False)
VALUES: Any = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


def reason(content: bytes) -> str:
    with pytest.raises(UnfitValueError) as caught:
        read_document(content)
    assert caught.value.reason in REASONS
    return caught.value.reason


def text_of(value: Any) -> str:
    """JSON text made without the code under test."""
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(name)} : {text_of(member)}" for name, member in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",\n".join(text_of(member) for member in value) + "]"
    return json.dumps(value)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'{"a":1}', {"a": 1}),
        (b' \t\r\n{"a" : [true,false,null]}\n', {"a": [True, False, None]}),
        (b'{"a":"\xe6\xb5\xa6"}', {"a": "浦"}),
        (b'{"\\u0061":"\\ud83d\\ude00"}', {"a": "😀"}),
        (b"0.1", Decimal("0.1")),
        (b"-0.00", Decimal("-0.00")),
        (b"1E400", Decimal("1E+400")),
        (b"123456789012345678901234567890", 123456789012345678901234567890),
        (b'{"a":"bidi \xe2\x80\xae and \\u0007 stay"}', {"a": "bidi \u202e and \x07 stay"}),
        (b'{"A":1,"a":2}', {"A": 1, "a": 2}),
        ('{"é":1,"e\u0301":2}'.encode(), {"é": 1, "e\u0301": 2}),
    ],
)
def test_reads_exactly(content: bytes, expected: object) -> None:
    found = read_document(content)

    assert found == expected
    assert str(found) == str(expected)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", quarantine.NOT_JSON),
        (b"   ", quarantine.NOT_JSON),
        (b"not json", quarantine.NOT_JSON),
        (b'{"a":1} {"b":2}', quarantine.NOT_JSON),
        (b'{"a":1}x', quarantine.NOT_JSON),
        (b'{"a":1,}', quarantine.NOT_JSON),
        (b"{'a':1}", quarantine.NOT_JSON),
        (b'{"a":01}', quarantine.NOT_JSON),
        (b'{"a":.5}', quarantine.NOT_JSON),
        (b'{"a":+1}', quarantine.NOT_JSON),
        (b'{"a":NaN}', quarantine.NOT_JSON),
        (b'{"a":Infinity}', quarantine.NOT_JSON),
        (b'{"a":-Infinity}', quarantine.NOT_JSON),
        ('{"a":\u0661}'.encode(), quarantine.NOT_JSON),
        ("{}\u00a0".encode(), quarantine.NOT_JSON),
        (b'{"a":"line\nbreak"}', quarantine.NOT_JSON),
        (b'{"a":"\x00"}', quarantine.NOT_JSON),
        (b'{"a":"\\x41"}', quarantine.NOT_JSON),
        (b'\xef\xbb\xbf{"a":1}', quarantine.NOT_JSON),
        ('{"a":1}'.encode("utf-16"), quarantine.NOT_UTF8),
        ('{"a":1}'.encode("utf-16-le"), quarantine.NOT_JSON),
        ('{"a":1}'.encode("utf-32"), quarantine.NOT_UTF8),
        (b'{"a":"\xff"}', quarantine.NOT_UTF8),
        (b'{"a":"\xc0\xaf"}', quarantine.NOT_UTF8),
        (b'{"a":"\xe6\xb5"}', quarantine.NOT_UTF8),
        (b'{"a":"\xed\xa0\x80"}', quarantine.NOT_UTF8),
        (b'{"a":"\\ud800"}', quarantine.LONE_SURROGATE),
        (b'{"a":"\\udc00\\ud800"}', quarantine.LONE_SURROGATE),
        (b'{"\\ud800":1}', quarantine.LONE_SURROGATE),
        (b'[[{"x":["\\ud800"]}]]', quarantine.LONE_SURROGATE),
        (b'{"a":1,"a":1}', quarantine.DUPLICATE_NAME),
        (b'{"a":1,"\\u0061":2}', quarantine.DUPLICATE_NAME),
        (b'{"x":[{"a":{"b":1,"b":2}}]}', quarantine.DUPLICATE_NAME),
        (b"1e99999999999999999999999", quarantine.OUT_OF_RANGE),
        (b'{"a":1E-99999999999999999999999}', quarantine.OUT_OF_RANGE),
    ],
)
def test_refuses_with_the_reason(content: bytes, expected: str) -> None:
    assert reason(content) == expected


def test_refusals_name_no_value() -> None:
    with pytest.raises(UnfitValueError) as caught:
        read_document(b'{"name": canary}')

    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'[{"a":'])
def test_depth_is_refused_before_it_can_exhaust_the_stack(opening: bytes) -> None:
    assert reason(opening * 100_000) == quarantine.TOO_DEEP


def test_depth_counts_nesting_and_not_brackets() -> None:
    deepest = b"[" * MAX_DOCUMENT_DEPTH + b"]" * MAX_DOCUMENT_DEPTH
    in_text = b'{"a":"' + b"[{" * 1000 + b'\\""}'

    assert read_document(b"[" + b"{}," * 1000 + b"{}]") == [{}] * 1001
    assert read_document(in_text) == {"a": "[{" * 1000 + '"'}
    assert read_document(deepest)
    assert reason(b"[" + deepest + b"]") == quarantine.TOO_DEEP


@pytest.mark.parametrize(
    "content",
    [
        b'"' + b'\\"' * 500_000,
        b"[" * 1_000_000,
        b"{" * 1_000_000 + b'"' * 999_999,
        b"9" * 1_000_000,
        b'{"a":0.' + b"1" * 1_000_000 + b"}",
        b"[" + b"0," * 300_000 + b"0]",
        b"{" + b",".join(b'"%d":0' % number for number in range(100_000)) + b"}",
        b"\\" * 1_000_000,
        b"x" * (MAX_DOCUMENT_BYTES + 1),
    ],
    ids=["quotes", "arrays", "objects", "digits", "fraction", "elements", "members", "backslashes", "size"],
)
def test_hostile_sizes_end_within_seconds(content: bytes) -> None:
    before = time.process_time()

    try:
        read_document(content)
    except UnfitValueError as error:
        assert error.reason in REASONS  # noqa: PT017 - either outcome is right, the time is what counts

    assert time.process_time() - before < 5


def test_integers_beyond_the_interpreters_digit_limit_are_exact() -> None:
    digits = "1234567890" * 1_000

    assert read_document(f'{{"a":{digits}}}'.encode()) == {"a": Decimal(digits)}


@given(VALUES)
def test_what_was_written_is_what_is_read_whatever_the_layout(value: Any) -> None:
    assert read_document(text_of(value).encode()) == value
    assert read_document(write_without_nul(value).encode()) == without_nul(value)


NAMES = st.sampled_from(["a", "b", "", ":", "é", "{", "a b"])
RAW: Any = st.recursive(
    st.sampled_from(["1", "-0", "1.50", "1e5", "null", "true", '""', '":"', '"a"', '"é{["', "1" * 25, "01", "x"]),
    lambda inner: (
        st.lists(inner, max_size=4).map(lambda parts: f"[{','.join(parts)}]")
        | st.lists(st.tuples(NAMES, st.sampled_from(["", " "]), inner), max_size=4).map(
            lambda members: "{" + ", ".join(f'"{name}"{space}:{value}' for name, space, value in members) + "}"
        )
    ),
    max_leaves=12,
)
"""JSON as it may be written: with names that stand twice, with texts that look like its signs, and with mistakes."""


def outcome(content: bytes) -> str:
    try:
        return repr(read_document(content))
    except UnfitValueError as error:
        return error.reason


@given(RAW)
@example('{"a" :1,"a":":"}')
@example('{"a":{"b":1,"b":"":""},"c":"x"}'.replace("\\", ""))
def test_what_is_read_does_not_depend_on_the_way_it_is_read(text: str) -> None:
    content = text.encode()

    # Nothing as long as this takes the fast path.
    assert outcome(content) == outcome(content + b" " * 65_536)


@pytest.mark.parametrize(
    "value", [["a", 1, True, None, -(10**2000)], ["\u2028\x7f/\b\f\t\x1f", '"\\'], [], [[1]], [{}]]
)
def test_an_array_is_written_as_json_writes_it(value: Any) -> None:
    assert write_document(value) == json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def without_nul(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("\x00", "")
    if isinstance(value, dict):
        return {name.replace("\x00", ""): without_nul(member) for name, member in value.items()}
    return [without_nul(member) for member in value] if isinstance(value, list) else value


def write_without_nul(value: Any) -> str:
    return write_document(without_nul(value))


@given(VALUES.filter(lambda value: isinstance(value, dict | list)))
def test_written_json_is_compact_and_read_by_others(value: Any) -> None:
    text = write_without_nul(value)

    assert json.loads(text, parse_float=Decimal) == without_nul(value)
    assert text == write_document(read_document(text.encode()))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'{"b": [1, 31.943209, 12345678901234567890], "a": {}}', '{"b":[1,31.943209,12345678901234567890],"a":{}}'),
        (b'[0.10, 1E400, [], {"x": 1e-7}]', '[0.10,1E+400,[],{"x":1E-7}]'),
        ('{"标签": "\\u6d66\\n\\""}'.encode(), '{"标签":"浦\\n\\""}'),
        (b'"\\\\u0000"', '"\\\\u0000"'),
        (b'{"n":0.5,"t":"\xe6\xb5\xa6"}', '{"n":0.5,"t":"浦"}'),
    ],
)
def test_writes_numbers_as_they_were_and_names_in_their_order(content: bytes, expected: str) -> None:
    assert write_document(read_document(content)) == expected


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'["a\\u0000b"]', quarantine.NOT_STORABLE),
        (b'{"a\\u0000b":0.5}', quarantine.NOT_STORABLE),
        (b"[1e131072]", quarantine.OUT_OF_RANGE),
        (b"[1e-16384]", quarantine.OUT_OF_RANGE),
        (b"[" + b"1" * 131_073 + b"]", quarantine.OUT_OF_RANGE),
    ],
)
def test_refuses_to_write_what_jsonb_cannot_hold(content: bytes, expected: str) -> None:
    document = read_document(content)

    with pytest.raises(UnfitValueError) as caught:
        write_document(document)

    assert caught.value.reason == expected


@given(st.binary(max_size=60) | st.text('{}[]",:\\u0d8e1.-truefalsn \n').map(lambda text: text.encode()))
@example(b'{"a":"\\')
@example(b"-")
def test_any_bytes_give_a_value_or_our_own_error(content: bytes) -> None:
    try:
        document = read_document(content)
    except UnfitValueError as error:
        assert error.reason in REASONS  # noqa: PT017 - both outcomes are legal, others are not
    else:
        assert document == json.loads(content, parse_float=Decimal)
