"""One column at a time: which values fit which type, exactly, and which are quarantined."""

import json
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from hashlib import sha256
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvr_sync.mapping import quarantine
from kvr_sync.mapping.definition import Mapping
from kvr_sync.mapping.limits import MAX_INDEXED_DIGITS, MAX_INDEXED_TEXT_BYTES
from kvr_sync.mapping.validation import read_mapping
from tests.support.mapped_block import FACTS, cell, composite, map_value, one_column, refusal

STORABLE = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"))
SIMPLE = "{prefix: ''}"

TEXT = one_column("json: v, type: text")
INDEXED_TEXT = one_column("json: v, type: text, index: true")
INTEGER = one_column("json: v, type: integer")
DECIMAL = one_column("json: v, type: decimal")
MONEY = one_column("json: v, type: decimal, precision: 5, scale: 2")
INDEXED_DECIMAL = one_column("json: v, type: decimal, index: true")
BOOLEAN = one_column("json: v, type: boolean")
TIMESTAMP = one_column("json: v, type: timestamp")
DATE = one_column("json: v, type: date")
UUID_COLUMN = one_column("json: v, type: uuid")
ENUM = one_column('json: v, type: enum, values: [open, "Offen ä", "17"]')
JSON = one_column("json: v, type: json")
BY_TYPE = {
    "text": TEXT,
    "integer": INTEGER,
    "decimal": DECIMAL,
    "boolean": BOOLEAN,
    "timestamp": TIMESTAMP,
    "date": DATE,
    "uuid": UUID_COLUMN,
    "enum": ENUM,
}


def doc(value: str) -> bytes:
    return f'{{"v": {value}}}'.encode()


@pytest.mark.parametrize(
    ("mapping", "value", "expected"),
    [
        (TEXT, '"x"', "x"),
        (TEXT, '""', ""),
        (TEXT, '"\\u0001\\u202e \\\\N \\\\. %s {} ; DROP TABLE--"', "\x01\u202e \\N \\. %s {} ; DROP TABLE--"),
        (INTEGER, "0", 0),
        (INTEGER, "-0", 0),
        (INTEGER, "9223372036854775807", 2**63 - 1),
        (INTEGER, "-9223372036854775808", -(2**63)),
        (DECIMAL, "31.943209", Decimal("31.943209")),
        (DECIMAL, "12345678901234567890", Decimal(12345678901234567890)),
        (DECIMAL, "0.10", Decimal("0.10")),
        (DECIMAL, "1e400", Decimal("1E+400")),
        (DECIMAL, "-0.0", Decimal("0.0")),
        (DECIMAL, "0e999999", Decimal(0)),
        (DECIMAL, "1e131071", Decimal("1E+131071")),
        (DECIMAL, "1e-16383", Decimal("1E-16383")),
        (MONEY, "123.45", Decimal("123.45")),
        (MONEY, "-999.99", Decimal("-999.99")),
        (MONEY, "7", Decimal("7.00")),
        (MONEY, "1.5000", Decimal("1.50")),
        (MONEY, "1e2", Decimal("100.00")),
        (MONEY, "-0.000", Decimal("0.00")),
        (BOOLEAN, "true", True),
        (BOOLEAN, "false", False),
        (JSON, '{"b": [1, 2.50], "a": "浦"}', '{"b":[1,2.50],"a":"浦"}'),
        (JSON, "[]", "[]"),
        (JSON, "false", "false"),
        (JSON, '"text"', '"text"'),
        (JSON, "12345678901234567890", "12345678901234567890"),
    ],
)
def test_a_fitting_value_is_kept_exactly(mapping: Any, value: str, expected: object) -> None:
    found = cell(mapping, doc(value))

    assert (type(found), str(found)) == (type(expected), str(expected))


@pytest.mark.parametrize("name", sorted(BY_TYPE))
@pytest.mark.parametrize("document", [b'{"v": null}', b"{}", b'{"other": {"v": 1}}'])
def test_missing_and_null_are_null(name: str, document: bytes) -> None:
    assert cell(BY_TYPE[name], document) is None


def test_json_null_in_a_json_column_is_null() -> None:
    assert cell(JSON, b'{"v": null}') is None
    assert cell(one_column("from: value, type: json"), b"null") is None
    assert refusal(one_column("from: value, type: json, required: true"), b"null").reason == quarantine.MISSING


@pytest.mark.parametrize("document", [b'{"v": null}', b"{}"])
def test_a_required_column_without_value_is_quarantined(document: bytes) -> None:
    entry = refusal(one_column("json: v, type: text, required: true"), document)

    assert (entry.reason, entry.detail) == (quarantine.MISSING, "column c: a value expected, none found")
    assert entry.value == document


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("text", ["1", "1.5", "true", "{}", "[]"]),
        ("integer", ['"1"', "1.0", "1e3", "1.5", "true", "{}", "[]"]),
        ("decimal", ['"1.5"', "true", "{}", "[]"]),
        ("boolean", ['"true"', "1", "0", "1.0", "{}", "[]"]),
        ("timestamp", ["1", "1.5", "true", "{}", "[]"]),
    ],
)
def test_a_value_of_another_type_is_quarantined_and_never_named(name: str, values: list[str]) -> None:
    for value in values:
        entry = refusal(BY_TYPE[name], doc(value))

        assert entry.reason == quarantine.WRONG_TYPE
        assert entry.detail.startswith("column c: ")
        assert "expected" in entry.detail
        assert "found" in entry.detail


@pytest.mark.parametrize(
    ("mapping", "value", "reason"),
    [
        (TEXT, '"a\\u0000b"', quarantine.NOT_STORABLE),
        (TEXT, '"\\ud800"', quarantine.LONE_SURROGATE),
        (JSON, '["a\\u0000b"]', quarantine.NOT_STORABLE),
        (JSON, "[1e131072]", quarantine.OUT_OF_RANGE),
        (INTEGER, "9223372036854775808", quarantine.OUT_OF_RANGE),
        (INTEGER, "-9223372036854775809", quarantine.OUT_OF_RANGE),
        (INTEGER, "9" * 700, quarantine.OUT_OF_RANGE),
        (INTEGER, "9" * 5000, quarantine.OUT_OF_RANGE),
        (DECIMAL, "1e131072", quarantine.OUT_OF_RANGE),
        (DECIMAL, "1" * 131_073, quarantine.OUT_OF_RANGE),
        (DECIMAL, "1e-16384", quarantine.OUT_OF_RANGE),
        (DECIMAL, "1e999999999", quarantine.OUT_OF_RANGE),
        (DECIMAL, "1e-999999999", quarantine.OUT_OF_RANGE),
        (DECIMAL, "NaN", quarantine.NOT_JSON),
        (DECIMAL, "Infinity", quarantine.NOT_JSON),
        (MONEY, "1000", quarantine.OUT_OF_RANGE),
        (MONEY, "999.999", quarantine.OUT_OF_RANGE),
        (MONEY, "0.001", quarantine.OUT_OF_RANGE),
        (MONEY, "1e999999999", quarantine.OUT_OF_RANGE),
        (MONEY, "1e-999999999", quarantine.OUT_OF_RANGE),
        (INDEXED_DECIMAL, "1e1000", quarantine.OUT_OF_RANGE),
        (INDEXED_DECIMAL, "1e-1001", quarantine.OUT_OF_RANGE),
        (INDEXED_TEXT, '"' + "x" * (MAX_INDEXED_TEXT_BYTES + 1) + '"', quarantine.OUT_OF_RANGE),
        (INDEXED_TEXT, '"' + "浦" * (MAX_INDEXED_TEXT_BYTES // 3 + 1) + '"', quarantine.OUT_OF_RANGE),
    ],
)
def test_a_value_the_databases_cannot_hold_exactly_is_quarantined(mapping: Any, value: str, reason: str) -> None:
    entry = refusal(mapping, doc(value))

    assert entry.reason == reason
    assert value not in entry.detail


def test_values_at_the_bounds_of_an_index_fit() -> None:
    text = "x" * MAX_INDEXED_TEXT_BYTES

    assert cell(INDEXED_TEXT, doc(f'"{text}"')) == text
    assert cell(TEXT, doc(f'"{text}{text}"')) == text + text
    assert cell(INDEXED_DECIMAL, doc("1e999")) == Decimal("1E+999")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-06T18:59:00+08:00", datetime(2026, 11, 6, 10, 59, tzinfo=UTC)),
        ("2026-11-06T18:59:00Z", datetime(2026, 11, 6, 18, 59, tzinfo=UTC)),
        ("2026-11-06t18:59:00z", datetime(2026, 11, 6, 18, 59, tzinfo=UTC)),
        ("2026-11-06T18:59:00.5Z", datetime(2026, 11, 6, 18, 59, 0, 500_000, tzinfo=UTC)),
        ("2026-11-06T18:59:00.123456-03:30", datetime(2026, 11, 6, 22, 29, 0, 123_456, tzinfo=UTC)),
        ("2026-11-06T18:59:00.123456000Z", datetime(2026, 11, 6, 18, 59, 0, 123_456, tzinfo=UTC)),
        ("2026-11-06T18:59:00.000000000+00:00", datetime(2026, 11, 6, 18, 59, tzinfo=UTC)),
        ("2024-02-29T00:00:00-00:00", datetime(2024, 2, 29, tzinfo=UTC)),
        ("0001-01-01T00:00:00Z", datetime(1, 1, 1, tzinfo=UTC)),
        ("9999-12-31T23:59:59.999999Z", datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)),
    ],
)
def test_timestamps_become_utc(text: str, expected: datetime) -> None:
    found = cell(TIMESTAMP, doc(f'"{text}"'))

    assert isinstance(found, datetime)
    assert found == expected
    assert found.utcoffset() == timedelta(0)


@pytest.mark.parametrize(
    "text",
    [
        "", "yesterday", "2026-11-06", "2026-11-06T18:59:00", "2026-11-06T18:59Z", "2026-11-06 18:59:00Z",
        "20261106T185900Z", "2026-W45-5T18:59:00Z", "2026-02-29T00:00:00Z", "2026-04-31T00:00:00Z",
        "2026-13-01T00:00:00Z", "2026-00-01T00:00:00Z", "2026-01-00T00:00:00Z", "2026-01-01T24:00:00Z",
        "2026-01-01T00:60:00Z", "2016-12-31T23:59:60Z", "0000-01-01T00:00:00Z", "99999-01-01T00:00:00Z",
        "-001-01-01T00:00:00Z", "0001-01-01T00:00:00+00:01", "9999-12-31T23:59:59-00:01",
        "2026-11-06T18:59:00.1234567Z", "2026-11-06T18:59:00.Z", "2026-11-06T18:59:00,5Z", "2026-11-06T18:59:00+8",
        "2026-11-06T18:59:00+0800", "2026-11-06T18:59:00+24:00", "2026-11-06T18:59:00+08:60", "2026-11-06T18:59:00ZZ",
        "2026-11-06T18:59:00Z\\n", " 2026-11-06T18:59:00Z", "٢٠٢٦-11-06T18:59:00Z", "2026-11-06T18:59:00+08:00:00",
        "9" * 10_000,
    ],
)  # fmt: skip
def test_texts_that_are_no_possible_timestamp_are_quarantined(text: str) -> None:
    entry = refusal(TIMESTAMP, doc(f'"{text}"'))

    assert entry.reason == quarantine.NOT_A_TIMESTAMP
    assert not text or text not in entry.detail


@given(st.integers(-(10**16), 2 * 10**17), st.integers(-1439, 1439))
def test_any_timestamp_python_writes_is_read_as_the_same_moment(microseconds: int, offset_minutes: int) -> None:
    zone = timezone(timedelta(minutes=offset_minutes))
    moment = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)).astimezone(zone)

    assert cell(TIMESTAMP, doc(f'"{moment.isoformat()}"')) == moment


@given(st.integers(-(2**63), 2**63 - 1))
def test_integers_survive(number: int) -> None:
    assert cell(INTEGER, doc(str(number))) == number


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=Decimal("-1e30"), max_value=Decimal("1e30")))
def test_decimals_survive_in_value_and_in_their_digits(number: Decimal) -> None:
    found = cell(DECIMAL, doc(str(number)))

    assert str(found) == str(number or abs(number)) or found == number == 0


@given(STORABLE, st.booleans())
def test_texts_survive(text: str, escaped: bool) -> None:
    assert cell(TEXT, json.dumps({"v": text}, ensure_ascii=escaped).encode()) == text


@pytest.mark.parametrize(
    ("options", "attribute", "expected"),
    [
        ("type: text", "浦口", "浦口"),
        ("type: text", "", ""),
        ("type: text", "x'; DROP TABLE--\t\\N", "x'; DROP TABLE--\t\\N"),
        ("type: integer", "-42", -42),
        ("type: decimal", "0.50", Decimal("0.50")),
        ("type: decimal, precision: 4, scale: 1", "12", Decimal("12.0")),
        ("type: boolean", "true", True),
        ("type: timestamp", "2026-11-06T18:59:00Z", datetime(2026, 11, 6, 18, 59, tzinfo=UTC)),
    ],
)
def test_key_attributes_convert(options: str, attribute: str, expected: object) -> None:
    found = cell(one_column(f"from: key.id, {options}"), b"not json", key=composite("item", attribute))

    assert (type(found), str(found)) == (type(expected), str(expected))


@pytest.mark.parametrize(
    ("options", "attribute", "reason"),
    [
        ("type: integer", "", quarantine.WRONG_TYPE),
        ("type: integer", "007", quarantine.WRONG_TYPE),
        ("type: integer", " 7", quarantine.WRONG_TYPE),
        ("type: integer", "1_000", quarantine.WRONG_TYPE),
        ("type: integer", "\u0667", quarantine.WRONG_TYPE),
        ("type: integer", "9" * 19, quarantine.OUT_OF_RANGE),
        ("type: integer", "9" * 9000, quarantine.OUT_OF_RANGE),
        ("type: decimal", "NaN", quarantine.WRONG_TYPE),
        ("type: decimal", "inf", quarantine.WRONG_TYPE),
        ("type: decimal", "1e99999999999999999999", quarantine.OUT_OF_RANGE),
        ("type: decimal", "1e200000", quarantine.OUT_OF_RANGE),
        ("type: boolean", "True", quarantine.WRONG_TYPE),
        ("type: timestamp", "today", quarantine.NOT_A_TIMESTAMP),
        ("type: text, index: true", "x" * 10_000, quarantine.OUT_OF_RANGE),
    ],
)
def test_a_key_attribute_that_does_not_convert_is_quarantined(options: str, attribute: str, reason: str) -> None:
    entry = refusal(one_column(f"from: key.id, {options}"), b"x", key=composite("item", attribute))

    assert entry.reason == reason
    assert not attribute or attribute not in entry.detail


@pytest.mark.parametrize(
    ("options", "key", "expected"),
    [
        ("from: key, type: text", "ev/浦".encode(), "ev/浦"),
        ("from: key, type: bytes", b"ev\x00\x01", b"ev\x00\x01"),
        ("from: key.rest, type: text", b"ev17", "17"),
        ("from: key.rest, type: integer", b"ev17", 17),
        ("from: key.rest, type: bytes", b"ev", b""),
    ],
)
def test_simple_keys_convert(options: str, key: bytes, expected: object) -> None:
    assert cell(one_column(options, "{prefix: ev}"), b"\xff\x00", key=key) == expected


def test_a_whole_composite_key_is_bytes() -> None:
    assert cell(one_column("from: key, type: bytes"), b"x") == composite("item", "1")


@pytest.mark.parametrize(("key", "reason"), [(b"ev\xff", quarantine.NOT_UTF8), (b"ev\x00", quarantine.NOT_STORABLE)])
def test_a_key_that_is_no_storable_text_is_quarantined(key: bytes, reason: str) -> None:
    assert refusal(one_column("from: key, type: text", "{prefix: ev}"), b"x", key=key).reason == reason


@pytest.mark.parametrize(
    ("options", "value", "expected"),
    [
        ("type: bytes", b"\x00\xff", b"\x00\xff"),
        ("type: text", "电费".encode(), "电费"),
        ("type: integer", b"17", 17),
        ("type: decimal", b"1.50", Decimal("1.50")),
        ("type: boolean", b"false", False),
        ("type: json", b' [1, {"a": 0.5}] ', '[1,{"a":0.5}]'),
        ("type: json", b"1", "1"),
    ],
)
def test_whole_values_convert(options: str, value: bytes, expected: object) -> None:
    found = cell(one_column(f"from: value, {options}"), value)

    assert (type(found), found) == (type(expected), expected)


@pytest.mark.parametrize(
    ("options", "value", "reason"),
    [
        ("type: text", b"\xff", quarantine.NOT_UTF8),
        ("type: text", b"a\x00", quarantine.NOT_STORABLE),
        ("type: integer", b"1\n", quarantine.WRONG_TYPE),
        ("type: json", b"not json", quarantine.NOT_JSON),
    ],
)
def test_a_whole_value_that_does_not_convert_is_quarantined(options: str, value: bytes, reason: str) -> None:
    assert refusal(one_column(f"from: value, {options}"), value).reason == reason


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("ledger.block_number, type: integer", 7),
        ("ledger.tx_number, type: integer", 0),
        ("ledger.tx_id, type: text", "ab" * 32),
        ("ledger.creator_msp_id, type: text", "ServiceMSP"),
        ("ledger.chaincode, type: text", "service"),
        ("ledger.function, type: text", "open"),
        ("ledger.claimed_at, type: timestamp", datetime(2026, 11, 22, 22, 22, 35, 920_004, tzinfo=UTC)),
    ],
)
def test_facts_of_the_ledger_need_no_document(options: str, expected: object) -> None:
    assert cell(one_column(f"from: {options}"), b"\xff not json") == expected


def test_facts_that_a_transaction_lacks_are_null_or_quarantined_when_required() -> None:
    bare = FACTS._replace(chaincode=None, function=None, seconds=None, nanos=None)

    for fact in ("chaincode, type: text", "function, type: text", "claimed_at, type: timestamp"):
        assert cell(one_column(f"from: ledger.{fact}"), b"x", facts=bare) is None
        entry = refusal(one_column(f"from: ledger.{fact}, required: true"), b"x", facts=bare)
        assert entry.reason == quarantine.MISSING


@pytest.mark.parametrize(("seconds", "nanos"), [(2**62, 0), (-(2**62), 0), (0, -1), (0, 10**9), (253_402_300_800, 0)])
def test_a_claimed_time_of_no_calendar_is_quarantined(seconds: int, nanos: int) -> None:
    facts = FACTS._replace(seconds=seconds, nanos=nanos)

    entry = refusal(one_column("from: ledger.claimed_at, type: timestamp"), b"x", facts=facts)

    assert entry.reason == quarantine.OUT_OF_RANGE


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (-62_135_596_800, datetime(1, 1, 1, tzinfo=UTC)),
        (253_402_300_799, datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)),
    ],
)
def test_claimed_times_at_the_ends_of_the_calendar_are_exact(seconds: int, expected: datetime) -> None:
    nanos = 999_999_999 if seconds > 0 else 0
    facts = FACTS._replace(seconds=seconds, nanos=nanos)

    assert cell(one_column("from: ledger.claimed_at, type: timestamp"), b"x", facts=facts) == expected


@pytest.mark.parametrize(
    ("function", "expected"),
    [(b"\xff", None), (b"f" * 300, f"sha256:{sha256(b'f' * 300).hexdigest()}"), (None, None)],
)
def test_a_function_name_is_what_the_ledger_layer_has(function: bytes | None, expected: str | None) -> None:
    facts = FACTS._replace(function=function)

    assert cell(one_column("from: ledger.function, type: text"), b"x", facts=facts) == expected


@pytest.mark.parametrize("text", ["0001-01-01", "1582-10-10", "2024-02-29", "2000-02-29", "9999-12-31"])
def test_possible_dates_are_dates(text: str) -> None:
    assert cell(DATE, doc(f'"{text}"')) == date.fromisoformat(text)
    assert cell(one_column("from: key.id, type: date"), b"v", key=composite("item", text)) == date.fromisoformat(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0000-01-01",
        "2023-02-29",
        "1900-02-29",
        "2024-04-31",
        "2024-13-01",
        "2024-00-01",
        "2024-01-00",
        "10000-01-01",
        "2024-1-1",
        "20240101",
        "2024-W01-1",
        "2024-001",
        "2024-01-01T00:00:00Z",
        " 2024-01-01",
        "2024-01-01\\n",
        "-2024-01-01",
        "+2024-01-01",
        "\uff12024-01-01",
        "\u0662024-01-01",
    ],
)
def test_other_texts_are_no_dates(text: str) -> None:
    assert refusal(DATE, doc(f'"{text}"')).reason == quarantine.NOT_A_DATE


@given(st.dates())
def test_every_date_is_read_as_it_is_written(day: date) -> None:
    assert cell(DATE, doc(f'"{day.isoformat()}"')) == day


@given(st.uuids(), st.booleans())
def test_every_uuid_is_read_in_either_case(value: UUID, capitals: bool) -> None:
    text = str(value).upper() if capitals else str(value)

    assert cell(UUID_COLUMN, doc(f'"{text}"')) == value
    assert cell(one_column("from: key.id, type: uuid"), b"v", key=composite("item", text)) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0b6e6a8e0a4b4c1d9f5e0123456789ab",
        "{0b6e6a8e-0a4b-4c1d-9f5e-0123456789ab}",
        "urn:uuid:0b6e6a8e-0a4b-4c1d-9f5e-0123456789ab",
        "0b6e6a8e-0a4b-4c1d-9f5e-0123456789a",
        "0b6e6a8e-0a4b-4c1d-9f5e-0123456789abc",
        "0b6e6a8e-0a4b4-c1d-9f5e-0123456789ab",
        "0b6e6a8g-0a4b-4c1d-9f5e-0123456789ab",
        " 0b6e6a8e-0a4b-4c1d-9f5e-0123456789ab",
        "0b6e6a8e-0a4b-4c1d-9f5e-0123456789ab\\n",
        "\uff10b6e6a8e-0a4b-4c1d-9f5e-0123456789ab",
    ],
)
def test_other_texts_are_no_uuids(text: str) -> None:
    assert refusal(UUID_COLUMN, doc(f'"{text}"')).reason == quarantine.NOT_A_UUID


@pytest.mark.parametrize("text", ["open", "Offen ä", "17"])
def test_an_enumeration_takes_its_texts(text: str) -> None:
    assert cell(ENUM, json.dumps({"v": text}).encode()) == text
    assert cell(one_column(f"from: value, type: enum, values: ['{text}']", SIMPLE), text.encode(), key=b"k") == text


@pytest.mark.parametrize("text", ["", "Open", "open ", "Offen a\u0308", "offen ä", "17.0"])
def test_an_enumeration_takes_no_other_text(text: str) -> None:
    entry = refusal(ENUM, json.dumps({"v": text}).encode())

    assert (entry.reason, entry.detail) == (quarantine.NOT_IN_ENUMERATION, "column c: one of 3 texts expected")


@pytest.mark.parametrize("mapping", [DATE, UUID_COLUMN, ENUM], ids=["date", "uuid", "enum"])
@pytest.mark.parametrize("value", ["17", "true", "[]", "{}", "1.5"])
def test_dates_uuids_and_enumerations_are_texts_in_json(mapping: Mapping, value: str) -> None:
    assert refusal(mapping, doc(value)).reason == quarantine.WRONG_TYPE


def one_of(columns: int, kind: str) -> Mapping:
    """A mapping whose column `c` is in an index of so many columns."""
    others = "".join(f"      o{number}: {{json: o, type: {kind}}}\n" for number in range(columns - 1))
    names = ", ".join(["c", *(f"o{number}" for number in range(columns - 1))])
    return read_mapping(
        (
            "kvr_mapping: 1\ntables:\n  items:\n    namespace: ext\n    key: {composite: item, attributes: [id]}\n"
            f"    columns:\n      c: {{json: v, type: {kind}, index: true}}\n{others}    indexes: [[{names}]]\n"
        ).encode(),
        "test.yaml",
    )


@pytest.mark.parametrize("columns", [1, 2, 3, 10])
def test_texts_of_an_index_of_several_columns_share_its_limit(columns: int) -> None:
    mapping = one_of(columns, "text")
    most = MAX_INDEXED_TEXT_BYTES // columns

    for character, size in (("x", 1), ("é", 2), ("漢", 3), ("😀", 4)):
        fitting = character * (most // size)
        row = map_value(mapping, json.dumps({"v": fitting}).encode()).mapped[0]
        assert row.values is not None
        assert row.values[0] == fitting
        entry = refusal(mapping, json.dumps({"v": character * (most // size + 1)}).encode())
        assert (entry.reason, entry.detail) == (
            quarantine.OUT_OF_RANGE,
            f"column c: text of at most {most} bytes expected (index)",
        )


@pytest.mark.parametrize("columns", [1, 2, 10])
def test_decimals_of_an_index_of_several_columns_share_its_limit(columns: int) -> None:
    mapping = one_of(columns, "decimal")
    most = MAX_INDEXED_DIGITS // columns

    for fitting in ("9" * most, f"1e{most - 1}", f"1e-{most}", "1." + "5" * (most - 1)):
        assert map_value(mapping, doc(fitting)).mapped
    for too_long in ("9" * (most + 1), f"1e{most}", f"1e-{most + 1}", "1." + "5" * most):
        assert refusal(mapping, doc(too_long)).reason == quarantine.OUT_OF_RANGE
