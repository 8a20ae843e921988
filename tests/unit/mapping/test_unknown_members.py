"""Members that a mapping does not know: ignored, collected, or a reason to quarantine the document."""

import json
from typing import Any

import pytest

from kvr_sync.mapping import quarantine
from kvr_sync.mapping.definition import Mapping
from kvr_sync.mapping.validation import read_mapping
from tests.support.mapped_block import composite, map_value

KEY = composite("item", "1")


def mapping_of(columns: str = "", option: str = "") -> Mapping:
    text = f"""\
kvr_mapping: 1
tables:
  items:
    namespace: ext
    key: {{composite: item, attributes: [id]}}
    columns:
      id: {{from: key.id, type: text, equals_json: id}}
      city: {{json: home.city, type: text}}
      zip: {{json: home.code.zip, type: text}}
      first: {{json: 'list[0].a', type: text}}
      whole: {{json: whole, type: json}}
{columns}    children:
      item_tags:
        each: more.tags
        columns:
          tag: {{json: t, type: text}}
{option}"""
    return read_mapping(text.encode(), "test.yaml")


IGNORE = mapping_of()
COLLECT = mapping_of("      rest: {from: unknown, type: json}\n")
REFUSE = mapping_of(option="    unknown: quarantine\n")

KNOWN: Any = {
    "id": "1",
    "home": {"city": "c", "code": {"zip": "z"}},
    "list": [{"a": "f", "b": 1}, 2],
    "whole": {"any": {"thing": 1}},
    "more": {"tags": [{"t": "x", "u": 1}]},
}


def mapped(mapping: Mapping, document: Any) -> tuple[object, ...]:
    batch = map_value(mapping, json.dumps(document).encode(), key=KEY)
    assert batch.quarantined == ()
    values = batch.mapped[0].values
    assert values is not None
    return values


def test_what_is_read_whole_or_in_arrays_is_known_with_all_that_is_in_it() -> None:
    assert mapped(COLLECT, KNOWN)[-1] is None
    assert mapped(REFUSE, KNOWN) == mapped(IGNORE, KNOWN)


@pytest.mark.parametrize(
    ("changes", "unknown"),
    [
        ({"x": None}, '{"x":null}'),
        ({"b": 1.50, "a": [1]}, '{"b":1.5,"a":[1]}'),
        ({"home": {"city": "c", "street": "s"}}, '{"home":{"street":"s"}}'),
        ({"home": {"code": {"zip": "z", "plus": {}}}}, '{"home":{"code":{"plus":{}}}}'),
        ({"more": {"tags": [], "x": 1}, "y": 2}, '{"more":{"x":1},"y":2}'),
        ({"home": {}}, None),
        ({"home": None}, None),
        ({"City": "other spelling"}, '{"City":"other spelling"}'),
        ({"home.city": "a name with a dot"}, '{"home.city":"a name with a dot"}'),
        ({"": 1}, '{"":1}'),
    ],
)
def test_unknown_members_are_ignored_collected_or_refused(changes: dict[str, Any], unknown: str | None) -> None:
    document = {**KNOWN, **changes}

    ignored = mapped(IGNORE, document)
    collected = mapped(COLLECT, document)
    refused = map_value(REFUSE, json.dumps(document).encode(), key=KEY)

    assert collected == (*ignored, unknown)
    assert [entry.reason for entry in refused.quarantined] == ([quarantine.UNKNOWN_MEMBER] if unknown else [])
    assert len(refused.mapped) == (0 if unknown else 1)


def test_the_detail_of_a_refusal_names_no_member() -> None:
    batch = map_value(REFUSE, json.dumps({**KNOWN, "4711-secret": "4712-secret"}).encode(), key=KEY)

    assert "secret" not in batch.quarantined[0].detail


def test_what_no_database_holds_is_not_collected() -> None:
    batch = map_value(COLLECT, json.dumps({**KNOWN, "x": "a\x00"}).encode(), key=KEY)

    assert [(entry.reason, entry.detail) for entry in batch.quarantined] == [
        (quarantine.NOT_STORABLE, "column rest: JSON without U+0000 expected")
    ]


ONLY_REST = """\
kvr_mapping: 1
tables:
  items:
    namespace: ext
    key: {composite: item, attributes: [id]}
    columns: {rest: {from: unknown, type: json OPTION}}
"""


def test_a_table_may_collect_everything() -> None:
    mapping = read_mapping(ONLY_REST.replace("OPTION", "").encode(), "test.yaml")

    assert mapped(mapping, {"a": {"b": [1]}}) == ('{"a":{"b":[1]}}',)
    assert mapped(mapping, {}) == (None,)


@pytest.mark.parametrize("value", [b"[1]", b"17", b"null", b'"x"'])
def test_a_value_that_is_no_object_is_not_lost_as_one_without_members(value: bytes) -> None:
    mapping = read_mapping(ONLY_REST.replace("OPTION", "").encode(), "test.yaml")

    batch = map_value(mapping, value, key=KEY)

    assert [entry.reason for entry in batch.quarantined] == [quarantine.NOT_AN_OBJECT]
    assert batch.mapped == ()


def test_unknown_members_may_be_required() -> None:
    mapping = read_mapping(ONLY_REST.replace("OPTION", ", required: true").encode(), "test.yaml")

    batch = map_value(mapping, b"{}", key=KEY)

    assert [entry.reason for entry in batch.quarantined] == [quarantine.MISSING]
