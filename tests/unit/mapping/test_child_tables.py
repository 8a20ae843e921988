"""Child tables: one row for each element of an array, all of them or none, and the whole document with them."""

import json
from typing import Any

import pytest

from kvr_sync.mapping import quarantine
from kvr_sync.mapping.definition import Mapping
from kvr_sync.mapping.limits import MAX_ELEMENTS
from kvr_sync.mapping.map import map_block
from kvr_sync.mapping.validation import read_mapping
from kvr_sync.model import Effect, MappedRow
from tests.support.mapped_block import composite, map_value, replayed, write

KEY = composite("item", "1")


def mapping_of(children: str, *, unknown: str = "", columns: str = "id: {from: key.id, type: text}") -> Mapping:
    text = (
        "kvr_mapping: 1\ntables:\n  items:\n    namespace: ext\n    key: {composite: item, attributes: [id]}\n"
        f"    columns:\n      {columns}\n{unknown}    children:\n{children}"
    )
    return read_mapping(text.encode(), "test.yaml")


PARTS = """\
      item_parts:
        each: a.parts
        columns:
          item: {from: key.id, type: text}
          name: {json: name, type: text, required: true}
          size: {json: dim.size, type: integer}
          first: {json: 'list[0]', type: text}
          whole: {from: element, type: json}
          block: {from: ledger.block_number, type: integer}
"""
TAGS = """\
      item_tags:
        each: tags
        columns:
          tag: {from: element, type: text}
"""


def only_row(mapping: Mapping, document: Any) -> MappedRow:
    batch = map_value(mapping, json.dumps(document).encode(), key=KEY)
    assert batch.quarantined == ()
    (row,) = batch.mapped
    return row


def reason(mapping: Mapping, document: Any) -> tuple[str, str]:
    batch = map_value(mapping, json.dumps(document).encode(), key=KEY)
    assert batch.mapped == ()
    (entry,) = batch.quarantined
    return entry.reason, entry.detail


def test_each_element_makes_a_row_with_its_own_paths_and_what_the_document_has_in_common() -> None:
    parts = [{"name": "x", "dim": {"size": 3}, "list": ["l", "m"]}, {"name": "y"}]

    row = only_row(mapping_of(PARTS + TAGS), {"a": {"parts": parts}, "tags": ["t", None]})

    assert row.children == (
        (
            ("1", "x", 3, "l", '{"name":"x","dim":{"size":3},"list":["l","m"]}', 7),
            ("1", "y", None, None, '{"name":"y"}', 7),
        ),
        (("t",), (None,)),
    )


@pytest.mark.parametrize("document", [{}, {"a": None}, {"a": {}}, {"a": {"parts": None}}, {"a": {"parts": []}}])
def test_a_missing_array_null_and_an_empty_one_give_no_rows(document: Any) -> None:
    assert only_row(mapping_of(PARTS), document).children == ((),)


@pytest.mark.parametrize("array", ["x", 1, True, {"0": "x"}])
def test_what_is_no_array_quarantines_the_document(array: Any) -> None:
    assert reason(mapping_of(TAGS), {"tags": array}) == (quarantine.WRONG_TYPE, "child item_tags: an array expected")


def test_a_way_through_something_else_quarantines_the_document() -> None:
    found, detail = reason(mapping_of(PARTS), {"a": [1]})

    assert found == quarantine.WRONG_TYPE
    assert "child item_parts" in detail


@pytest.mark.parametrize(
    ("element", "expected"),
    [
        ({"name": 1}, (quarantine.WRONG_TYPE, "element 1: column name: ")),
        ({}, (quarantine.MISSING, "element 1: column name: ")),
        ({"name": "x", "dim": 3}, (quarantine.WRONG_TYPE, "element 1: column size: ")),
        ({"name": "x", "dim": {"size": 2**63}}, (quarantine.OUT_OF_RANGE, "element 1: column size: ")),
        ({"name": "x", "list": {}}, (quarantine.WRONG_TYPE, "element 1: column first: ")),
        ("x", (quarantine.NOT_AN_OBJECT, "element 1: ")),
        (None, (quarantine.NOT_AN_OBJECT, "element 1: ")),
        ([], (quarantine.NOT_AN_OBJECT, "element 1: ")),
        ({"name": "a\x00"}, (quarantine.NOT_STORABLE, "element 1: column whole: ")),
    ],
)
def test_one_element_that_does_not_fit_quarantines_the_whole_document(element: Any, expected: tuple[str, str]) -> None:
    found, detail = reason(mapping_of(TAGS + PARTS), {"tags": ["t"], "a": {"parts": [{"name": "good"}, element]}})

    assert found == expected[0]
    assert detail.startswith(f"child item_parts, {expected[1]}")


def test_a_detail_names_no_value() -> None:
    private = "4711-private"

    _, detail = reason(mapping_of(TAGS.replace("type: text", "type: integer")), {"tags": [1, private]})

    assert detail == "child item_tags, element 1: column tag: an integer expected, text found"


def test_a_required_element_may_not_be_null() -> None:
    found, detail = reason(mapping_of(TAGS.replace("type: text", "type: text, required: true")), {"tags": ["t", None]})

    assert (found, detail) == (
        quarantine.MISSING,
        "child item_tags, element 1: column tag: a value expected, none found",
    )


def test_as_many_elements_as_allowed_are_rows_and_one_more_is_too_large() -> None:
    mapping = mapping_of(TAGS)

    assert len(only_row(mapping, {"tags": ["t"] * MAX_ELEMENTS}).children[0]) == MAX_ELEMENTS
    assert reason(mapping, {"tags": ["t"] * (MAX_ELEMENTS + 1)}) == (
        quarantine.TOO_LARGE,
        f"child item_tags: at most {MAX_ELEMENTS} elements expected",
    )


@pytest.mark.parametrize("value", [b"[]", b"17", b"null", b'"x"'])
def test_a_document_that_is_no_object_is_quarantined_though_no_column_reads_it(value: bytes) -> None:
    batch = map_value(mapping_of(TAGS), value, key=KEY)

    assert [entry.reason for entry in batch.quarantined] == [quarantine.NOT_AN_OBJECT]
    assert batch.mapped == ()


def test_a_moved_version_has_the_rows_again_and_a_delete_has_none() -> None:
    mapping = mapping_of(TAGS)
    value = b'{"tags": ["t"]}'

    batch = map_block(
        replayed(write(KEY, value), write(KEY, value, effect=Effect.VERSION), write(KEY, None, effect=Effect.DELETE)),
        mapping,
    )

    assert [row.children for row in batch.mapped] == [((("t",),),), ((("t",),),), ()]


def test_elements_of_arrays_in_arrays_are_taken_whole() -> None:
    mapping = mapping_of(TAGS.replace("type: text", "type: json"))

    row = only_row(mapping, {"tags": [[1, 2], {"a": []}, "x", 1.50]})

    assert row.children == ((("[1,2]",), ('{"a":[]}',), ('"x"',), ("1.5",)),)


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        ("integer", 1, "1"),
        ("decimal", 1, "1"),
        ("boolean", True, "true"),
        ("date", "2024-02-29", "2023-02-29"),
        ("timestamp", "2024-02-29T00:00:00Z", "2024-02-29"),
        ("uuid", "0B6E6A8E-0A4B-4C1D-9F5E-0123456789AB", "0b6e"),
        ("enum, values: [a]", "a", "b"),
    ],
)
def test_elements_are_converted_like_members(kind: str, good: Any, bad: Any) -> None:
    mapping = mapping_of(TAGS.replace("type: text", f"type: {kind}"))

    assert len(only_row(mapping, {"tags": [good, good]}).children[0]) == 2
    assert reason(mapping, {"tags": [good, bad]})[1].startswith("child item_tags, element 1: column tag: ")
