"""The map stage: which writes become rows of which tables, whole or not at all, in their order."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvr_sync.mapping import quarantine
from kvr_sync.mapping.map import map_block
from kvr_sync.mapping.quarantine import REASONS
from kvr_sync.mapping.validation import read_mapping
from kvr_sync.model import Effect, LedgerKey, RowBatch
from tests.support.mapped_block import cell, composite, map_value, one_column, refusal, replayed, write

MAPPING = read_mapping(
    b"""\
kvr_mapping: 1
tables:
  people:
    namespace: ext
    key: {composite: person, attributes: [id]}
    columns:
      id: {from: key.id, type: text, equals_json: id}
      city: {json: home.city, type: text}
      street: {json: home.street, type: text}
      first_tag: {json: 'tags[0]', type: text}
      age: {json: age, type: integer}
  person_values:
    namespace: ext
    key: {composite: person, attributes: [id]}
    columns:
      content: {from: value, type: bytes}
  pets:
    namespace: ext
    key: {composite: person, attributes: [id, pet]}
    columns:
      owner: {from: key.id, type: text}
      pet: {from: key.pet, type: text}
  singles:
    namespace: ext
    key: {composite: single, attributes: []}
    columns:
      content: {from: value, type: text}
  events:
    namespace: ext
    key: {prefix: ev}
    columns:
      name: {from: key, type: text}
  big_events:
    namespace: ext
    key: {prefix: ev-big}
    columns:
      rest: {from: key.rest, type: text}
  others:
    namespace: other
    key: {composite: person, attributes: [id]}
    columns:
      id: {from: key.id, type: text}
""",
    "m.yaml",
)
PERSON = b'{"id":"p1","home":{"city":"\xe6\xb5\xa6","street":"s"},"tags":["t","u"],"age":3}'


def rows(batch: RowBatch) -> list[tuple[str, Effect, Any]]:
    return [(MAPPING.tables[row.table].name, row.effect, row.values) for row in batch.mapped]


def reasons(batch: RowBatch) -> list[tuple[str, str]]:
    return [(MAPPING.tables[entry.table].name, entry.reason) for entry in batch.quarantined]


def test_a_document_becomes_one_row_of_every_table_that_selects_its_key() -> None:
    block = replayed(write(composite("person", "p1"), PERSON))

    batch = map_block(block, MAPPING)

    assert batch.block is block
    assert rows(batch) == [
        ("people", Effect.PUT, ("p1", "浦", "s", "t", 3)),
        ("person_values", Effect.PUT, (PERSON,)),
    ]
    assert batch.mapped[0].key == LedgerKey("ext", "", composite("person", "p1"))


def test_a_version_carries_the_retained_value() -> None:
    batch = map_block(replayed(write(composite("person", "p1"), PERSON, effect=Effect.VERSION)), MAPPING)

    assert rows(batch)[0] == ("people", Effect.VERSION, ("p1", "浦", "s", "t", 3))


def test_a_delete_is_a_row_without_values() -> None:
    batch = map_block(replayed(write(composite("person", "p1"), None, effect=Effect.DELETE)), MAPPING)

    assert rows(batch) == [("people", Effect.DELETE, None), ("person_values", Effect.DELETE, None)]


def test_writes_without_effect_private_writes_and_other_namespaces_are_passed_over() -> None:
    batch = map_block(
        replayed(
            write(composite("person", "p1"), PERSON, effect=Effect.NONE),
            write(composite("person", "p1"), PERSON, collection="secret"),
            write(composite("person", "p1"), PERSON, namespace="unmapped"),
            write(composite("unmapped", "p1"), PERSON),
            write(b"unmapped", PERSON),
        ),
        MAPPING,
    )

    assert (batch.mapped, batch.quarantined) == ((), ())


def test_the_namespace_tells_equal_keys_apart() -> None:
    batch = map_block(replayed(write(composite("person", "p9"), b"x", namespace="other")), MAPPING)

    assert rows(batch) == [("others", Effect.PUT, ("p9",))]


def test_the_number_of_attributes_tells_tables_of_one_type_apart() -> None:
    batch = map_block(replayed(write(composite("person", "p1", "rex"), b"x")), MAPPING)

    assert rows(batch) == [("pets", Effect.PUT, ("p1", "rex"))]


def test_a_key_with_a_number_of_attributes_that_no_table_has_is_quarantined_and_its_delete_told() -> None:
    key = composite("person", "a", "b", "c")

    put = map_block(replayed(write(key, PERSON)), MAPPING)
    deleted = map_block(replayed(write(key, None, effect=Effect.DELETE)), MAPPING)

    assert put.mapped == ()
    assert reasons(put) == [(name, quarantine.KEY_ATTRIBUTES) for name in ("people", "person_values", "pets")]
    assert put.quarantined[0].detail == "a key of 1 attributes expected, 3 found"
    assert {effect for _, effect, _ in rows(deleted)} == {Effect.DELETE}


def test_prefixes_select_simple_keys_by_their_bytes() -> None:
    batch = map_block(replayed(write(b"ev1", b"x"), write(b"ev-big-2", b"x"), write(b"e", b"x")), MAPPING)

    assert rows(batch) == [
        ("events", Effect.PUT, ("ev1",)),
        ("events", Effect.PUT, ("ev-big-2",)),
        ("big_events", Effect.PUT, ("-2",)),
    ]


@pytest.mark.parametrize(
    "key",
    [
        b"",
        b"\x00",
        b"\x00\x00",
        b"\x00person",
        b"\x00person\x00p1",
        b"\x00person\x00\xff\x00",
        b"\x00person\x00\xf4\x8f\xbf\xbf\x00",
        b"person\x00p1\x00",
        b"\x00Person\x00p1\x00",
        b"\x00ev1\x00",
    ],
)
def test_keys_that_only_look_like_selected_ones_do_no_harm(key: bytes) -> None:
    batch = map_block(replayed(write(key, PERSON)), MAPPING)

    assert (batch.mapped, batch.quarantined) == ((), ())


def test_a_composite_key_without_attributes_is_selected() -> None:
    assert rows(map_block(replayed(write(composite("single"), b"v")), MAPPING)) == [("singles", Effect.PUT, ("v",))]


def test_an_empty_prefix_selects_every_simple_key_and_no_composite_one() -> None:
    mapping = one_column("from: key, type: bytes", "{prefix: ''}")
    keys = [b"", b"a", b"\xff", b"a\x00", b"x" * 10_000]

    batch = map_block(replayed(*(write(key, b"v") for key in [*keys, b"\x00", composite("item", "1")])), mapping)

    assert [row.values for row in batch.mapped] == [(key,) for key in keys]


@pytest.mark.parametrize(
    ("document", "reason", "column"),
    [
        (b'{"id":"p2"}', quarantine.KEY_CONTRADICTION, "id"),
        (b'{"id":null}', quarantine.KEY_CONTRADICTION, "id"),
        (b"{}", quarantine.KEY_CONTRADICTION, "id"),
        (b'{"id":7}', quarantine.WRONG_TYPE, "id"),
        (b'{"id":"p1","age":"3"}', quarantine.WRONG_TYPE, "age"),
        (b'{"id":"p1","home":"here"}', quarantine.WRONG_TYPE, "city"),
        (b'{"id":"p1","home":[]}', quarantine.WRONG_TYPE, "city"),
        (b'{"id":"p1","home":{"city":1}}', quarantine.WRONG_TYPE, "city"),
        (b'{"id":"p1","home":{"street":1}}', quarantine.WRONG_TYPE, "street"),
        (b'{"id":"p1","tags":{"0":"t"}}', quarantine.WRONG_TYPE, "first_tag"),
        (b'{"id":"p1","tags":[1]}', quarantine.WRONG_TYPE, "first_tag"),
    ],
)
def test_a_document_is_mapped_whole_or_not_at_all(document: bytes, reason: str, column: str) -> None:
    batch = map_block(replayed(write(composite("person", "p1"), document)), MAPPING)

    assert rows(batch) == [("person_values", Effect.PUT, (document,))]  # another table, which needs no document
    assert reasons(batch) == [("people", reason)]
    assert batch.quarantined[0].detail.startswith(f"column {column}: ")
    assert batch.quarantined[0].value == document


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"not json", quarantine.NOT_JSON),
        (b"  ", quarantine.NOT_JSON),
        (b"17", quarantine.NOT_AN_OBJECT),
        (b'"text"', quarantine.NOT_AN_OBJECT),
        (b"[]", quarantine.NOT_AN_OBJECT),
        (b"null", quarantine.NOT_AN_OBJECT),
        (b"\xff", quarantine.NOT_UTF8),
        (b'{"id":"p1","id":"p1"}', quarantine.DUPLICATE_NAME),
    ],
)
def test_a_value_that_is_no_object_is_quarantined_and_the_next_write_goes_on(value: bytes, reason: str) -> None:
    batch = map_block(
        replayed(write(composite("person", "p1"), value), write(composite("person", "p1"), PERSON)), MAPPING
    )

    assert reasons(batch) == [("people", reason)]
    assert rows(batch)[-2][0] == "people"


def test_type_drift_of_one_member_is_quarantined_only_while_it_lasts() -> None:
    mapping = one_column("json: v, type: text")
    drift = [b'{"v":"a"}', b'{"v":1}', b'{"v":{}}', b"{}", b'{"v":null}', b'{"v":"b"}']

    batch = map_block(replayed(*(write(composite("item", "1"), value) for value in drift)), mapping)

    assert [row.values for row in batch.mapped] == [("a",), (None,), (None,), ("b",)]
    assert [entry.reason for entry in batch.quarantined] == [quarantine.WRONG_TYPE] * 2


@pytest.mark.parametrize("options", ["type: integer", "type: decimal", "type: boolean"])
def test_repeated_values_compare_as_values(options: str) -> None:
    mapping = one_column(f"from: key.id, {options}, equals_json: n")
    text = "true" if "boolean" in options else "12"

    assert cell(mapping, f'{{"n": {text}}}'.encode(), key=composite("item", text)) is not None
    entry = refusal(mapping, b'{"n": false}' if text == "true" else b'{"n": 13}', key=composite("item", text))
    assert entry.reason == quarantine.KEY_CONTRADICTION


def test_hostile_text_in_key_and_value_stays_data() -> None:
    nasty = '\'; DROP TABLE x; -- \\. \\N %s {0} "${x}" /* */ \t\r\n\x7f'
    mapping = one_column("from: key.id, type: text")

    assert cell(mapping, b"x", key=composite("item", nasty)) == nasty


def test_the_same_block_gives_the_same_batch() -> None:
    block = replayed(write(composite("person", "p1"), PERSON), write(composite("person", "p1"), b"bad"))

    assert map_block(block, MAPPING) == map_block(block, MAPPING)


@given(
    st.binary(max_size=30) | st.binary(max_size=20).map(lambda rest: b"\x00person\x00" + rest + b"\x00"), st.binary()
)
def test_any_key_and_value_give_rows_or_quarantine_entries(key: bytes, value: bytes) -> None:
    batch = map_block(replayed(write(key, value or b"0")), MAPPING)

    assert {entry.reason for entry in batch.quarantined} <= REASONS.keys()


@given(st.recursive(st.sampled_from(['"p1"', "1", "0.5", "null", "true", '"\\u0000"', '"\\ud800"']), lambda inner: (
    st.lists(inner, max_size=3).map(lambda items: "[" + ",".join(items) + "]")
    | st.dictionaries(st.sampled_from(["id", "home", "city", "street", "tags", "age"]), inner, max_size=5).map(
        lambda members: "{" + ",".join(f'"{name}":{member}' for name, member in members.items()) + "}"
    )
)))  # fmt: skip
def test_any_document_gives_one_row_or_one_quarantine_entry_per_table(document: str) -> None:
    batch = map_value(MAPPING, document.encode(), key=composite("person", "p1"))

    tables = [row.table for row in batch.mapped] + [entry.table for entry in batch.quarantined]
    assert sorted(tables) == [0, 1]
    assert {entry.reason for entry in batch.quarantined} <= REASONS.keys()


@pytest.mark.parametrize(
    "name", ["'); raise SystemExit('", 'a"b', "back\\slash", "new\nline", "v0", "#", "{}", "\U0001d4b3", "document"]
)
def test_a_member_may_have_any_name(name: str) -> None:
    member = json.dumps(name, ensure_ascii=False)
    path, within, parts = (json.dumps(prefix + member, ensure_ascii=False) for prefix in ("", "inner.", "parts."))
    mapping = f"""\
kvr_mapping: 1
tables:
  things:
    namespace: ext
    key: {{prefix: ""}}
    columns:
      plain: {{json: {path}, type: text}}
      within: {{json: {within}, type: integer}}
      unread: {{from: unknown, type: json}}
    children:
      parts:
        each: {parts}
        columns:
          part: {{json: {path}, type: text, required: true}}
"""
    document = {name: "found", "inner": {name: 7}, "parts": {name: [{name: "p"}]}, "other": None}

    batch = map_block(
        replayed(write(b"k", json.dumps(document).encode())), read_mapping(mapping.encode(), "things.yaml")
    )

    (row,) = batch.mapped
    assert row.values == ("found", 7, '{"other":null}')
    assert row.children == ((("p",),),)
