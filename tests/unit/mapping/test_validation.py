"""Reading mappings: every mistake is told with file, line and what is allowed; nothing else ever comes out."""

import time
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kvr_sync.errors import ConfigurationError
from kvr_sync.mapping.definition import (
    ColumnMapping,
    ColumnType,
    CompositeSelector,
    FromJson,
    FromKeyAttribute,
    FromLedger,
    LedgerFact,
    Mapping,
    PrefixSelector,
    to_json,
)
from kvr_sync.mapping.limits import MAX_MAPPING_BYTES
from kvr_sync.mapping.mapping_file import read_mapping_file
from kvr_sync.mapping.validation import from_json, read_mapping

ROOT = Path(__file__).parents[3]
SHIPPED = (
    ROOT / "network" / "demo_data" / "service-week.mapping.yaml",
    ROOT / "tests" / "support" / "outcomes.mapping.yaml",
    ROOT / "kvr_sync" / "mapping" / "service.mapping.yaml",
)

GOOD = """\
kvr_mapping: 1
tables:
  items:
    namespace: ext
    key: {composite: item, attributes: [id]}
    comment: things
    columns:
      id: {from: key.id, type: text, required: true, index: true, equals_json: id}
      price: {json: price.net, type: decimal, precision: 9, scale: 2}
      sent_at: {from: ledger.claimed_at, type: timestamp}
"""


def mistakes(text: str | bytes) -> list[str]:
    content = text.encode() if isinstance(text, str) else text
    with pytest.raises(ConfigurationError) as caught:
        read_mapping(content, "m.yaml")
    return str(caught.value).splitlines()


def changed(old: str, new: str) -> list[str]:
    assert old in GOOD
    return mistakes(GOOD.replace(old, new, 1))


def test_a_mapping_becomes_frozen_values() -> None:
    mapping = read_mapping(GOOD.encode(), "m.yaml")

    (table,) = mapping.tables
    assert (mapping.version, table.name, table.namespace, table.comment) == (1, "items", "ext", "things")
    assert table.key == CompositeSelector("item", ("id",))
    assert table.columns == (
        ColumnMapping("id", FromKeyAttribute(0, "id"), ColumnType.TEXT, required=True, index=True, equals_json=("id",)),
        ColumnMapping("price", FromJson(("price", "net")), ColumnType.DECIMAL, precision=9, scale=2),
        ColumnMapping("sent_at", FromLedger(LedgerFact.CLAIMED_AT), ColumnType.TIMESTAMP),
    )


def test_a_prefix_may_be_empty() -> None:
    text = GOOD.replace("{composite: item, attributes: [id]}", "{prefix: ''}").replace("key.id", "key.rest")

    assert read_mapping(text.encode(), "m.yaml").tables[0].key == PrefixSelector("")


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("kvr_mapping: 1", "kvr_mapping: 2", 1, ["not supported", "1 is"]),
        ("kvr_mapping: 1", "kvr_mapping: '1'", 1, ["not supported"]),
        ("kvr_mapping: 1", "kvr_mapping: true", 1, ["not supported"]),
        ("kvr_mapping: 1", "version: 1", 1, ["kvr_mapping: 1"]),
        ("kvr_mapping: 1", "kvr_mapping: 1\nextra: 2", 2, ["unknown option 'extra'", "kvr_mapping, name, tables"]),
        ("kvr_mapping: 1", "kvr_mapping: 1\nname: 7", 2, ["name", "must be text"]),
        ("kvr_mapping: 1", "kvr_mapping: 1\nname: ''", 2, ["at least 1 characters"]),
        ("  items:", "  Items:", 3, ["'Items'", "a-z"]),
        ("  items:", "  9items:", 3, ["a-z"]),
        ("  items:", '  "items\\n":', 3, ["a-z"]),
        ("  items:", "  '':", 3, ["a-z"]),
        ("  items:", "  标签:", 3, ["a-z"]),
        ("  items:", f"  {'a' * 49}:", 3, ["49", "at most 48"]),
        ("  items:", "  kvr_items:", 3, ["reserved", "kvr_"]),
        ("  items:", "  ledger_items:", 3, ["reserved"]),
        ("  items:", "  sync_items:", 3, ["reserved"]),
        ("  items:", "  pg_items:", 3, ["reserved"]),
        ("  items:", "  sqlite_items:", 3, ["reserved"]),
        ("  items:", "  items_history:", 3, ["_history"]),
        ("  items:", "  items_changes:", 3, ["_changes"]),
        ("  items:", "  order:", 3, ["reserved word"]),
        ("    namespace: ext\n", "", 3, ["'namespace' is missing"]),
        ("    namespace: ext", "    namespace: ''", 4, ["namespace", "at least 1"]),
        ("    namespace: ext", "    namespace: [ext]", 4, ["must be text"]),
        ("    namespace: ext", "    namespace: 12", 4, ["must be text"]),
        ("    namespace: ext", "    namespase: ext", 4, ["'namespase'", "did you mean 'namespace'?"]),
        ("    comment: things", "    comment: {a: 1}", 6, ["comment", "must be text"]),
        ("    key: {composite: item, attributes: [id]}", "    key: item", 5, ["key", "a mapping of names"]),
        ("{composite: item, attributes: [id]}", "{}", 5, ["either 'composite' and 'attributes', or 'prefix'"]),
        ("{composite: item, attributes: [id]}", "{composite: item}", 5, ["either"]),
        ("{composite: item, attributes: [id]}", "{attributes: [id]}", 5, ["either"]),
        ("attributes: [id]}", "attributes: [id], prefix: x}", 5, ["either"]),
        ("attributes: [id]}", "atributes: [id]}", 5, ["did you mean 'attributes'?"]),
        ("attributes: [id]}", "attributes: [id, id]}", 5, ["each name once"]),
        ("attributes: [id]}", "attributes: [id, Id]}", 5, ["a-z"]),
        ("attributes: [id]}", "attributes: [id, 4]}", 5, ["must be text"]),
        ("attributes: [id]}", "attributes: id}", 5, ["must be a list"]),
        ("composite: item", 'composite: "\\U0010ffff"', 5, ["U+10FFFF"]),
        ("      id: {", "      ID: {", 8, ["'items'", "'ID'", "a-z"]),
        ("      id: {", "      kvr_id: {", 8, ["reserved", "kvr_"]),
        ("      id: {", "      user: {", 8, ["reserved word"]),
        ("      id: {", "      xmin: {", 8, ["system column"]),
        ("      id: {", "      rowid: {", 8, ["system column"]),
        ("      id: {", f"      {'a' * 64}: {{", 8, ["at most 63"]),
        ("      price: {", "      id: {", 9, ["'id' stands here twice", "line 8"]),
        (
            "from: key.id",
            "from: key.nr",
            8,
            ["unknown source 'key.nr'", "key, key.id, value, unknown, ledger.block_number"],
        ),
        ("from: key.id", "from: key.rest", 8, ["unknown source"]),
        ("from: key.id", "from: vaule", 8, ["did you mean 'value'?"]),
        ("from: key.id", "from: key", 8, ["whole composite key", "bytes"]),
        ("from: key.id, ", "", 8, ["exactly one of 'from' and 'json'"]),
        ("from: key.id", "from: key.id, json: id", 8, ["exactly one of"]),
        ("from: key.id", "form: key.id", 8, ["did you mean 'from'?"]),
        ("from: key.id", "from: 3", 8, ["must be text"]),
        ("from: key.id, type: text", "from: key.id", 8, ["'type' is missing"]),
        ("from: key.id, type: text", "from: key.id, type: txt", 8, ["did you mean 'text'?", "decimal, boolean"]),
        ("from: key.id, type: text", "from: key.id, type: 1", 8, ["allowed are text, integer"]),
        ("from: key.id, type: text", "from: key.id, type: json", 8, ["not type json"]),
        ("required: true", "required: yes", 8, ["required", "true or false"]),
        ("required: true", "required: 1", 8, ["true or false"]),
        ("index: true", "index: maybe", 8, ["true or false"]),
        ("equals_json: id", "equals_json: 'a..b'", 8, ["not a JSON path"]),
        ("json: price.net", "json: ''", 9, ["not a JSON path", "items[0].name"]),
        ("json: price.net", "json: '[0]'", 9, ["not a JSON path"]),
        ("json: price.net", "json: a.b.", 9, ["not a JSON path"]),
        ("json: price.net", "json: 'a b'", 9, ["not a JSON path"]),
        ("json: price.net", f"json: {'.'.join('a' * 33)}", 9, ["not a JSON path"]),
        ("json: price.net, type: decimal", "json: price.net, type: text", 9, ["'precision'", "decimal only"]),
        ("type: decimal, precision: 9, scale: 2", "type: bytes", 9, ["not type bytes"]),
        ("type: decimal, precision: 9, scale: 2", "type: json, index: true", 9, ["cannot have an index"]),
        ("type: decimal, precision: 9, scale: 2", "type: text, equals_json: x", 9, ["'equals_json' compares"]),
        ("precision: 9, scale: 2", "precision: 9", 9, ["stand together"]),
        ("precision: 9, scale: 2", "precision: 9, scale: 10", 9, ["up to the precision"]),
        ("precision: 9, scale: 2", "precision: 0, scale: 0", 9, ["1 or more"]),
        ("precision: 9, scale: 2", "precision: 1001, scale: 0", 9, ["1000 or less"]),
        ("precision: 9, scale: 2", "precision: 9, scale: -1", 9, ["0 or more"]),
        ("precision: 9, scale: 2", "precision: '9', scale: 2", 9, ["must be an integer"]),
        ("ledger.claimed_at", "ledger.claimed", 10, ["did you mean 'ledger.claimed_at'?"]),
        ("type: timestamp", "type: text", 10, ["not type text", "timestamp allowed"]),
        ("sent_at: {from", "sent_at: [from]\n      other: {from", 10, ["a mapping of names"]),
    ],
)
def test_each_mistake_is_told_with_its_line(old: str, new: str, line: int, words: list[str]) -> None:
    told = changed(old, new)

    assert any(text.startswith(f"m.yaml:{line}: ") and all(word in text for word in words) for text in told), told


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("", 1, ["kvr_mapping: 1"]),
        ("# only a comment\n", 1, ["kvr_mapping: 1"]),
        ("- a\n- b\n", 1, ["kvr_mapping: 1"]),
        ("kvr_mapping: 1\n", 1, ["'tables' is missing"]),
        ("kvr_mapping: 1\ntables:\n", 2, ["a mapping of names"]),
        ("kvr_mapping: 1\ntables: {}\n", 2, ["at least 1 entry"]),
        ("kvr_mapping: 1\ntables:\n  a: {namespace: x, key: {prefix: p}, columns: {}}\n", 3, ["at least 1 entry"]),
        ("kvr_mapping: 1\ntables:\n  a:\n", 3, ["a mapping of names"]),
        ("kvr_mapping: 1\ntables: &a {}\n", 2, ["anchors"]),
        ("kvr_mapping: 1\ntables: *a\n", 2, ["aliases"]),
        ("kvr_mapping: 1\n<<: *a\n", 2, ["aliases"]),
        ("kvr_mapping: !!int 1\n", 1, ["tags"]),
        ("kvr_mapping: !!python/object/apply:os.system [x]\n", 1, ["tags"]),
        ("%YAML 1.2\n---\nkvr_mapping: 1\n", 1, ["directives"]),
        ("kvr_mapping: 1\n---\nkvr_mapping: 1\n", 2, ["second YAML document"]),
        ("kvr_mapping: 1\n? [a]\n: 2\n", 2, ["a key must be text"]),
        ("kvr_mapping: 1\ntables:\n\tx: 1\n", 3, ["not YAML"]),
        ("kvr_mapping: 1\ntables: {a: 1\n", 3, ["not YAML"]),
        ("kvr_mapping: 1\nname: a\x07b\n", 2, ["special characters"]),
        ('kvr_mapping: 1\nname: "\\0"\n', 2, ["U+0000"]),
        ('kvr_mapping: 1\nname: "\\ud800"\n', 2, ["half a character"]),
        ('kvr_mapping: 1\nname: "\\U99999999"\n', 2, ["not YAML"]),
        (f"%YAML 1.{'9' * 5000}\n---\n", 1, ["not YAML"]),
        ("kvr_mapping: 1\nname: " + "[" * 50, 2, ["nested deeper"]),
        ("kvr_mapping: 1\nkvr_mapping: 1\ntables: {}\n", 2, ["twice"]),
    ],
)
def test_texts_that_are_no_mapping_are_refused_with_a_line(text: str, line: int, words: list[str]) -> None:
    told = mistakes(text)

    assert any(entry.startswith(f"m.yaml:{line}: ") and all(word in entry for word in words) for entry in told), told


def test_bytes_that_are_no_text_are_refused_with_a_line() -> None:
    assert mistakes(b"kvr_mapping: 1\nname: \xff\n") == ["m.yaml:2: not UTF-8 text"]


def test_a_file_beyond_the_limit_is_refused_unread() -> None:
    (told,) = mistakes(b"#" * (MAX_MAPPING_BYTES + 1))

    assert f"at most {MAX_MAPPING_BYTES}" in told


def test_all_mistakes_are_told_in_the_order_of_lines() -> None:
    text = GOOD.replace("items:", "Items:").replace("type: text", "type: txt").replace("scale: 2", "scale: 12")

    told = mistakes(text)

    assert [line.split(":")[1] for line in told] == ["3", "8", "9"]


def test_a_flood_of_mistakes_is_cut_and_counted() -> None:
    columns = "".join(f"      C{number}: {{json: a, type: text}}\n" for number in range(80))

    told = mistakes(GOOD + columns)

    assert len(told) == 51
    assert told[-1] == "m.yaml: and 30 mistakes more"


@pytest.mark.parametrize(
    "content", [b"[" * 200_000, b"- " * 100_000, b"a:\n" * 20_000, b"{a: " * 60_000, b"\n" * 50_000]
)
def test_hostile_mappings_end_within_seconds(content: bytes) -> None:
    before = time.process_time()

    mistakes(content)

    assert time.process_time() - before < 20


@given(st.text(max_size=80) | st.text("kvr_mapping:1 \n{}[]-#&*!|>'\"%@,?\t", max_size=60))
@example("kvr_mapping: 1\ntables: {a: {columns: {b: 1}}}")
@example("kvr_mapping: 1\ntables: {a: {namespace: x, key: {prefix: p}, columns: {b: {from: key.x, type: text}}}}")
def test_any_text_gives_a_mapping_or_a_configuration_error(text: str) -> None:
    content = text.encode(errors="surrogatepass")
    try:
        read_mapping(content, "m.yaml")
    except ConfigurationError as error:
        assert all(line.startswith("m.yaml:") for line in str(error).splitlines())  # noqa: PT017 - both are legal


@given(st.binary(max_size=60))
def test_any_bytes_give_a_configuration_error(content: bytes) -> None:
    assert mistakes(content)


@given(st.integers(0, len(GOOD) - 1), st.sampled_from("\n\t :-{}[]&*!|'\"%#,x9\x00é"))
def test_a_spoilt_mapping_gives_a_mapping_or_a_configuration_error(position: int, character: str) -> None:
    spoilt = GOOD[:position] + character + GOOD[position + 1 :]
    try:
        assert isinstance(read_mapping(spoilt.encode(), "m.yaml"), Mapping)
    except ConfigurationError as error:
        assert str(error).startswith("m.yaml:")  # noqa: PT017 - both outcomes are legal, others are not


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_the_canonical_form_gives_the_same_mapping_back(path: Path) -> None:
    mapping = read_mapping_file(path)

    again = from_json(to_json(mapping))

    assert again == mapping
    assert again.digest == mapping.digest
    assert to_json(again) == to_json(mapping)


SHIPPED_DIGESTS = {
    "service-week.mapping.yaml": "f1e5f6f47fc8c53895600552e405f9717b28ed36dd9f71eb133f54367500f0a5",
    "outcomes.mapping.yaml": "7c424992fc6204fe5bdf4ef3ff9865b547422785a6bd091656512c2bfa29decf",
    "service.mapping.yaml": "02bb070a90a2d1c8687351e4cdce24d8b4bb7b5338f810be15a3eb3693340316",
}
"""Of these files as the first version of the format read them: databases have them recorded.

A file that is changed gets a new one here; one that changes by itself would make every database refuse its mapping.
"""


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_mappings_that_use_nothing_new_keep_the_digests_that_databases_have_recorded(path: Path) -> None:
    assert read_mapping_file(path).digest == SHIPPED_DIGESTS[path.name]


COMPLETE = """\
kvr_mapping: 1
tables:
  orders:
    namespace: ext
    key: {pattern: "o-{id}{{x}}{line}"}
    sequence: {from: 2, to: 4}
    columns:
      id: {from: key.id, type: uuid, required: true}
      line: {from: key.line, type: integer}
      status: {json: status, type: enum, values: [open, "closed, so"]}
      day: {json: day, type: date}
      name: {json: name, type: text, collation: zh-Hans}
      other: {json: other, type: uuid, references: orders.id}
      rest: {from: unknown, type: json}
    children:
      order_parts:
        each: 'a."b c"'
        comment: parts
        columns:
          part: {from: element, type: json}
          order_id: {from: key.id, type: uuid, references: orders.id}
          size: {json: size, type: decimal}
        indexes: [[order_id, size]]
    indexes: [[status, day], [name]]
  notes:
    namespace: ext
    key: {prefix: n}
    sequence: {from: 0}
    unknown: quarantine
    columns:
      text: {json: text, type: text}
"""


def changed_complete(old: str, new: str) -> str:
    assert old in COMPLETE
    return COMPLETE.replace(old, new, 1)


def test_the_canonical_form_has_everything_that_a_mapping_can_say() -> None:
    mapping = read_mapping(COMPLETE.encode(), "m.yaml")

    again = from_json(to_json(mapping))

    assert again == mapping
    assert (again.digest, to_json(again)) == (mapping.digest, to_json(mapping))
    orders, _ = again.tables
    assert [column.index_share for column in orders.columns] == [0, 0, 2, 2, 1, 0, 0]
    assert [column.index_share for column in orders.children[0].columns] == [0, 2, 2]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("o-{id}{{x}}{line}", "o-{id}{{y}}{line}"),
        ("{from: 2, to: 4}", "{from: 2, to: 5}"),
        ("{from: 2, to: 4}", "{from: 2}"),
        ("    sequence: {from: 0}\n", ""),
        ("    unknown: quarantine\n", ""),
        ('open, "closed, so"', '"closed, so", open'),
        (", collation: zh-Hans", ""),
        ("json: other, type: uuid, references: orders.id", "json: other, type: uuid"),
        ("each: 'a.\"b c\"'", "each: a.b"),
        ("from: element, type: json", "json: x, type: json"),
        ("        indexes: [[order_id, size]]\n", ""),
        ("[[status, day], [name]]", "[[day, status], [name]]"),
        ("      rest: {from: unknown, type: json}\n", ""),
    ],
)
def test_every_option_that_changes_tables_or_rows_changes_the_digest(old: str, new: str) -> None:
    changed = read_mapping(changed_complete(old, new).encode(), "m")

    assert changed.digest != read_mapping(COMPLETE.encode(), "m").digest
    assert from_json(to_json(changed)) == changed


def test_comments_of_child_tables_and_what_is_the_default_do_not_change_the_digest() -> None:
    plain = read_mapping(COMPLETE.encode(), "m").digest

    assert read_mapping(changed_complete("comment: parts", "comment: other").encode(), "m").digest == plain
    explicit = changed_complete("    unknown: quarantine\n", "    unknown: ignore\n")
    without = changed_complete("    unknown: quarantine\n", "")
    assert read_mapping(explicit.encode(), "m").digest == read_mapping(without.encode(), "m").digest


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ('{pattern: "o-{id}{{x}}{line}"}', '{pattern: "o-{id}{line}"}', 5, ["option 'key'", "a text between"]),
        ('{pattern: "o-{id}{{x}}{line}"}', '{pattern: "o"}', 5, ["1 to 50 attributes"]),
        ('{pattern: "o-{id}{{x}}{line}"}', '{pattern: "{id}{{x}}{line}", prefix: x}', 5, ["'pattern' alone"]),
        ('{pattern: "o-{id}{{x}}{line}"}', "{pattern: 7}", 5, ["must be text"]),
        ("{from: 2, to: 4}", "{from: 2, to: 1}", 6, ["'to' is not below 'from'"]),
        ("{from: 2, to: 4}", "{to: 1}", 6, ["'from' is missing"]),
        ("{from: 2, to: 4}", "{from: -1}", 6, ["0 or more"]),
        ("{from: 2, to: 4}", "{from: 2, until: 4}", 6, ["unknown option 'until'"]),
        ("{from: 2, to: 4}", "2", 6, ["a mapping of names"]),
        ("from: key.id, type: uuid, required", "from: key.nr, type: uuid, required", 8, ["unknown source 'key.nr'"]),
        ("from: key.id, type: uuid, required", "from: element, type: uuid, required", 8, ["unknown source 'element'"]),
        ("from: key.line, type: integer", "from: key.line, type: bytes", 9, ["not type bytes"]),
        (', values: [open, "closed, so"]', "", 10, ["'values' are what type enum needs"]),
        ('values: [open, "closed, so"]', "values: [open, open]", 10, ["each name once"]),
        ('values: [open, "closed, so"]', "values: []", 10, ["at least 1 entry"]),
        ('values: [open, "closed, so"]', "values: ['']", 10, ["at least 1 characters"]),
        ('values: [open, "closed, so"]', 'values: ["a\\0"]', 10, ["U+0000"]),
        ('values: [open, "closed, so"]', 'values: ["\\ud800"]', 10, ["half a character"]),
        ("day: {json: day, type: date}", "day: {json: day, type: date, values: [a]}", 11, ["no other type has"]),
        ("type: date", "type: day", 11, ["not allowed", "date, timestamp, uuid, enum"]),
        ("collation: zh-Hans", "collation: 'C'", 12, ["letter"]),
        ("collation: zh-Hans", "collation: 'de;x'", 12, ["letter"]),
        ("type: text, collation: zh-Hans", "type: date, collation: de", 12, ["type text only"]),
        ("references: orders.id}\n      rest", "references: orders.nr}\n      rest", 13, ["no column 'orders.nr'"]),
        ("references: orders.id}\n      rest", "references: ordres.id}\n      rest", 13, ["did you mean 'orders.id'"]),
        (
            "references: orders.id}\n      rest",
            "references: orders.line}\n      rest",
            13,
            ["type integer is referred"],
        ),
        ("references: orders.id}\n      rest", "references: orders}\n      rest", 13, ["TABLE.COLUMN"]),
        ("from: unknown, type: json", "from: unknown, type: text", 14, ["not type text"]),
        (
            "from: unknown, type: json}",
            "from: unknown, type: json}\n      rest2: {from: unknown, type: json}",
            15,
            ["takes the unknown members already"],
        ),
        (
            "from: unknown, type: json}",
            "from: unknown, type: json}\n    unknown: quarantine",
            15,
            ["leave one of the two out"],
        ),
        ("    children:\n", "    children: {}\n    childs:\n", 15, ["at least 1 entry"]),
        ("  order_parts:", "  orders:", 16, ["another table has this name"]),
        ("  order_parts:", "  notes:", 16, ["another table has this name"]),
        ("  order_parts:", "  order_parts_asof:", 16, ["_asof"]),
        ("  order_parts:", "  kvr_parts:", 16, ["reserved"]),
        ("        each: 'a.\"b c\"'\n", "", 16, ["'each' is missing"]),
        ("each: 'a.\"b c\"'", "each: 'a..b'", 17, ["child 'order_parts'", "not a JSON path"]),
        (
            "part: {from: element, type: json}",
            "part: {from: value, type: json}",
            20,
            ["unknown source 'value'", "element"],
        ),
        ("part: {from: element, type: json}", "part: {from: unknown, type: json}", 20, ["unknown source 'unknown'"]),
        ("part: {from: element, type: json}", "part: {from: element, type: bytes}", 20, ["not type bytes"]),
        ("part: {from: element, type: json}", "external_id: {from: element, type: json}", 20, ["every table has"]),
        (
            "from: key.id, type: uuid, references",
            "from: key.id, type: uuid, equals_json: x, references",
            21,
            ["not allowed in a child"],
        ),
        ("[[order_id, size]]", "[[order_id, part]]", 23, ["type json cannot have an index"]),
        ("[[order_id, size]]", "[[order_id, id]]", 23, ["no column 'id'"]),
        ("[[order_id, size]]", "[[size, size]]", 23, ["each name once"]),
        ("[[status, day], [name]]", "[[status, days]]", 24, ["no column 'days'; did you mean 'day'?"]),
        ("[[status, day], [name]]", "[[name], [name]]", 24, ["each name once"]),
        ("[[status, day], [name]]", "[[]]", 24, ["at least 1 entry"]),
        ("[[status, day], [name]]", "[name]", 24, ["must be a list"]),
        ("  notes:", "  notes_idx:", 25, ["_idx"]),
        ("  notes:", "  orders_pkey:", 25, ["_pkey"]),
        ("  notes:", "  orders_external_id_key:", 25, ["_external_id_key"]),
        ("unknown: quarantine", "unknown: refuse", 29, ["ignore, quarantine"]),
        ("text: {json: text, type: text}", "external_id: {json: text, type: text}", 31, ["every table has"]),
    ],
)
def test_each_mistake_in_the_newer_options_is_told_with_its_line(
    old: str, new: str, line: int, words: list[str]
) -> None:
    told = mistakes(changed_complete(old, new))

    assert not any("no column 'order_id'" in text for text in told), "what is wrong elsewhere is told there"
    assert any(text.startswith(f"m.yaml:{line}: ") and all(word in text for word in words) for text in told), told


def wide_index(kind: str, columns: int) -> str:
    listed = "".join(f"      c{number}: {{json: c, {kind}}}\n" for number in range(columns))
    names = ", ".join(f"c{number}" for number in range(columns))
    return (
        "kvr_mapping: 1\ntables:\n  t:\n    namespace: x\n    key: {prefix: ''}\n"
        f"    columns:\n{listed}    indexes: [[{names}]]\n"
    )


@pytest.mark.parametrize(
    ("kind", "columns", "too_many", "words"),
    [
        (f"type: enum, values: ['{'漢' * 200}', a]", 4, 5, "'values' of at most 500 bytes"),
        ("type: decimal, precision: 300, scale: 2", 3, 4, "a precision of at most 250"),
    ],
)
def test_an_index_whose_entries_could_be_too_large_is_refused(
    kind: str, columns: int, too_many: int, words: str
) -> None:
    assert read_mapping(wide_index(kind, columns).encode(), "m")

    told = mistakes(wide_index(kind, too_many))

    assert len(told) == too_many
    assert all(words in line for line in told)


def test_all_tables_and_child_tables_together_are_limited() -> None:
    children = "".join(
        f"      c{{0}}_{number}: {{{{each: a, columns: {{{{e: {{{{from: element, type: text}}}}}}}}}}}}\n"
        for number in range(20)
    )
    table = (
        "  t{0}:\n    namespace: x\n    key: {{prefix: ''}}\n"
        "    columns: {{a: {{json: a, type: text}}}}\n    children:\n"
    )
    text = "kvr_mapping: 1\ntables:\n" + "".join((table + children).format(number) for number in range(9))

    assert read_mapping(text.encode(), "m")
    text += (table + children).format(9)

    assert mistakes(text) == ["m.yaml:2: at most 200 tables, child tables included, are allowed"]


def test_layout_comments_and_spelled_out_defaults_do_not_change_the_digest() -> None:
    other = """\
# another layout
"tables":
    items:
        columns:
            id:
                type: text
                from: 'key.id'
                index: true
                required: true
                equals_json: '"id"'
            price: {scale: 2, precision: 9, type: decimal, json: '"price".net', required: false, index: false}
            sent_at: {from: ledger.claimed_at, type: timestamp, comment: when}
        key:
            attributes:
            - id
            composite: "item"
        namespace: ext
name: renamed
kvr_mapping: 1
"""

    assert read_mapping(other.encode(), "o.yaml").digest == read_mapping(GOOD.encode(), "m.yaml").digest


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("items:", "things:"),
        ("namespace: ext", "namespace: other"),
        ("composite: item", "composite: thing"),
        ("index: true, ", ""),
        ("required: true, ", ""),
        (", equals_json: id", ""),
        ("scale: 2", "scale: 3"),
        ("json: price.net", "json: '\"price.net\"'"),
        ("ledger.claimed_at, type: timestamp", "ledger.tx_id, type: text"),
        ("      price: ", "      cost: "),
    ],
)
def test_whatever_changes_tables_or_rows_changes_the_digest(old: str, new: str) -> None:
    assert old in GOOD
    before, after = read_mapping(GOOD.encode(), "m"), read_mapping(GOOD.replace(old, new, 1).encode(), "m")

    assert before.digest != after.digest


def test_the_order_of_columns_changes_the_digest() -> None:
    lines = GOOD.splitlines(keepends=True)
    reordered = "".join([*lines[:8], lines[9], lines[8]])

    assert read_mapping(reordered.encode(), "m").digest != read_mapping(GOOD.encode(), "m").digest


@pytest.mark.parametrize(
    "text",
    ["", "null", "[]", "{", '{"kvr_mapping":2,"tables":{}}', '{"kvr_mapping":1,"tables":{}}', "\ud800", "[" * 5000],
)
def test_a_stored_mapping_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="stored mapping"):
        from_json(text)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"none\.yaml: the mapping cannot be read"):
        read_mapping_file(tmp_path / "none.yaml")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_mapping_file(tmp_path)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_mapping_file(Path("a\x00b"))


def test_a_file_with_mistakes_is_named_with_its_lines(tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(GOOD.replace("type: text", "type: txt"), encoding="utf-8-sig")

    with pytest.raises(ConfigurationError) as caught:
        read_mapping_file(path)

    assert str(caught.value).startswith(f"{path}:8: ")


def test_the_example_of_the_readme_is_a_mapping_and_its_mistakes_are_told_as_shown() -> None:
    readme = (ROOT / "kvr_sync" / "mapping" / "README.md").read_text(encoding="utf-8")
    example = readme.split("```yaml\n")[1].split("```")[0]
    shown = [line for line in readme.splitlines() if line.startswith("desk.yaml:")]
    broken = """\
kvr_mapping: 1
tables:
  service_requests:
    namespace: service
    key: {composite: request, atributes: [id]}
    comment: Requests of customers
    columns:
      id:     {json: id, type: text}
      status: {json: status, type: txt}
"""

    with pytest.raises(ConfigurationError) as caught:
        read_mapping(broken.encode(), "desk.yaml")

    assert len(read_mapping(example.encode(), "readme").tables[0].columns) == 7
    assert str(caught.value).splitlines() == shown
