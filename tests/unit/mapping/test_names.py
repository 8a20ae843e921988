"""Names of tables and columns, and paths into documents."""

import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvr_sync.mapping import quarantine
from kvr_sync.mapping.json_path import format_json_path, parse_json_path, select
from kvr_sync.mapping.quarantine import UnfitValueError
from kvr_sync.mapping.sql_name import RESERVED_WORDS, column_name_mistake, table_name_mistake

NAME = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


@pytest.mark.parametrize("name", ["a", "customers", "service_requests", "a1_", "x" * 48, "status", "comment", "key"])
def test_plain_names_are_allowed(name: str) -> None:
    assert table_name_mistake(name) is None
    assert column_name_mistake(name) is None


@pytest.mark.parametrize(
    "name",
    [
        "",
        "A",
        "1a",
        "_a",
        "a-b",
        "a b",
        "a.b",
        'a"b',
        "a;--",
        "é",
        "\uff41",
        "a\n",
        "a\x00",
        "😀",
        "x" * 200,
        "select",
        "kvr_a",
    ],
)
def test_other_names_are_refused(name: str) -> None:
    assert table_name_mistake(name)
    assert column_name_mistake(name)


@pytest.mark.parametrize("name", sorted(RESERVED_WORDS))
def test_reserved_words_are_refused(name: str) -> None:
    assert "reserved word" in (table_name_mistake(name) or "")
    assert "reserved word" in (column_name_mistake(name) or "")


@given(st.from_regex(r"[a-z][a-z0-9_]{0,9}", fullmatch=True))
def test_allowed_names_need_no_quotes_in_sqlite(name: str) -> None:
    if table_name_mistake(name) is None and column_name_mistake(name) is None:
        database = sqlite3.connect(":memory:")
        database.execute(f"CREATE TABLE {name} ({name} TEXT, other TEXT)")
        database.execute(f"SELECT {name} FROM {name} WHERE {name} = ''")  # noqa: S608 - the point of the test
        database.close()


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("a", ("a",)),
        ("a.b.c", ("a", "b", "c")),
        ("items[0].name", ("items", 0, "name")),
        ("m[1][2]", ("m", 1, 2)),
        ('"odd name".x', ("odd name", "x")),
        ('a."b.c"', ("a", "b.c")),
        ('"say \\"hi\\""', ('say "hi"',)),
        ('"\\u0041"', ("A",)),
        ("标签", ("标签",)),
        ("$-@", ("$-@",)),
        ('""', ("",)),
    ],
)
def test_paths_are_read(text: str, path: tuple[str | int, ...]) -> None:
    assert parse_json_path(text) == path


@pytest.mark.parametrize(
    "text",
    [
        "", ".", ".a", "a.", "a..b", "a b", " a", "[0]", "a[", "a[]", "a[-1]", "a[01]", "a[x]", "a.[0]", "a[0]b",
        '"', '"a', '"a"b', 'a"b"', '"\\x"', '"\\ud800"', "a]", "a[99999999]", ".".join("a" * 33),
    ],
)  # fmt: skip
def test_texts_that_are_no_path_are_refused(text: str) -> None:
    assert parse_json_path(text) is None


@given(NAME, st.lists(NAME | st.integers(0, 9_999_999), max_size=6))
def test_the_canonical_form_of_a_path_gives_it_back(first: str, rest: list[str | int]) -> None:
    path = (first, *rest)

    assert parse_json_path(format_json_path(path)) == path


@given(st.text(max_size=20))
def test_any_text_gives_a_path_or_none(text: str) -> None:
    path = parse_json_path(text)

    assert path is None or parse_json_path(format_json_path(path)) == path


def test_what_is_missing_or_null_on_the_way_gives_none() -> None:
    document = {"a": {"b": None}, "items": [{"x": 1}], "n": None}

    assert select(document, ("items", 0, "x")) == 1
    assert select(document, ("items", 1, "x")) is None
    assert select(document, ("a", "b", "c")) is None
    assert select(document, ("n", "c")) is None
    assert select(document, ("missing", 3)) is None


@pytest.mark.parametrize("path", [("a", "b"), ("a", 0), ("o", 0), ("l", "b")])
def test_a_path_through_another_kind_of_value_does_not_fit(path: tuple[str | int, ...]) -> None:
    with pytest.raises(UnfitValueError) as caught:
        select({"a": "text", "o": {}, "l": []}, path)

    assert caught.value.reason == quarantine.WRONG_TYPE
