"""Mappings proposed from values: types, nesting, arrays, references; and that they are mappings which fit."""

import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvr_sync.errors import ConfigurationError
from kvr_sync.inference.contract_metadata import infer_from_metadata
from kvr_sync.inference.proposal import Inference, write_mapping
from kvr_sync.mapping.definition import (
    ColumnType,
    FromJson,
    FromKey,
    FromKeyAttribute,
    Mapping,
    Reference,
    TableMapping,
)
from kvr_sync.mapping.map import map_block
from kvr_sync.mapping.validation import read_mapping
from network.protocol.composite_key import encode_composite_key
from tests.support.mapped_block import replayed, write


def propose(values: Iterable[tuple[bytes, bytes]]) -> Mapping:
    pairs = list(values)
    inference = Inference()
    for key, _ in pairs:
        inference.add_key("ext", key)
    for key, value in pairs:
        inference.add_value("ext", key, value)
    return read_mapping(write_mapping("test", inference.groups()).encode(), "proposal")


def documents(make: Any, count: int = 20, prefix: str = "asset") -> list[tuple[bytes, bytes]]:
    return [(f"{prefix}{n}".encode(), json.dumps(make(n)).encode()) for n in range(count)]


def types(table: TableMapping) -> dict[str, str]:
    return {column.name: column.type.value for column in table.columns}


def test_members_get_the_narrowest_type_that_takes_them_all() -> None:
    mapping = propose(
        documents(
            lambda n: {
                "count": n,
                "price": n + 0.5,
                "isOpen": n % 2 == 0,
                "openedAt": f"2026-11-06T18:59:{n:02}Z",
                "day": f"2026-11-{n + 1:02}",
                "ref": f"0b6e6a8e-0a4b-4c1d-9f5e-{n:012x}",
                "name": f"n{n}",
                "mixed": n if n % 2 else {"a": n},
                "order": "x",
            }
        )
    )

    (table,) = mapping.tables
    assert types(table) == {
        "id": "text",
        "count": "integer",
        "price": "decimal",
        "is_open": "boolean",
        "opened_at": "timestamp",
        "day": "date",
        "ref": "uuid",
        "name": "text",
        "mixed": "json",
        "order_entry": "text",
        "other_members": "json",
    }


def test_nested_objects_become_columns_and_arrays_child_tables() -> None:
    mapping = propose(
        documents(lambda n: {"place": {"lat": n / 7, "lon": 1}, "tags": ["a", "b"], "lines": [{"sku": "x", "n": 1}]})
    )

    (table,) = mapping.tables
    assert [column.name for column in table.columns] == ["id", "place_lat", "place_lon", "other_members"]
    assert {child.name: [column.name for column in child.columns] for child in table.children} == {
        "asset_tags": ["element"],
        "asset_lines": ["sku", "n"],
    }


def test_a_member_that_repeats_the_key_is_said_to() -> None:
    mapping = propose(
        (encode_composite_key("asset", (f"A{n}",)), json.dumps({"assetID": f"A{n}", "size": n}).encode())
        for n in range(20)
    )

    column = mapping.tables[0].columns[0]
    assert (column.name, column.source, column.equals_json) == (
        "asset_id",
        FromKeyAttribute(0, "asset_id"),
        ("assetID",),
    )


def test_a_member_that_repeats_a_simple_key_is_its_id_and_referred_to() -> None:
    mapping = propose(
        documents(lambda n: {"ID": f"asset{n}", "Size": n})
        + documents(lambda n: {"asset": f"asset{n % 3}", "n": n}, prefix="lease")
    )

    tables = {table.name: table for table in mapping.tables}
    column = tables["asset"].columns[0]
    assert (column.name, column.source, column.equals_json) == ("id", FromKey(), ("ID",))
    assert [column.name for column in tables["asset"].columns] == ["id", "size", "other_members"]
    leased = next(column for column in tables["lease"].columns if column.name == "asset")
    assert leased.references == Reference("asset", "id")


def test_a_column_whose_values_are_ids_of_another_table_refers_to_it() -> None:
    mapping = propose(
        documents(lambda n: {"size": n}, prefix="owner")
        + documents(lambda n: {"ownedBy": f"{n % 5}", "size": n}, prefix="asset")
    )

    tables = {table.name: table for table in mapping.tables}
    owned = next(column for column in tables["asset"].columns if column.name == "owned_by")
    assert owned.references == Reference("owner", "id")


def test_a_stray_value_decides_no_type() -> None:
    mapping = propose(documents(lambda n: {"size": "big" if n == 77 else n}, count=200))

    assert types(mapping.tables[0])["size"] == "integer"


def test_values_that_are_no_documents_get_one_column() -> None:
    mapping = propose([(f"hot{n}".encode(), str(n).encode()) for n in range(5)])

    assert types(mapping.tables[0]) == {"id": "text", "value": "integer"}


def test_names_that_would_come_out_alike_are_told_apart() -> None:
    mapping = propose(documents(lambda n: {"a b": n, "a_b": n, "aB": n, "select": n, "x" * 80: n, "y" * 90: n}))

    names = [column.name for column in mapping.tables[0].columns]
    assert len(set(names)) == len(names) == 8
    assert all(len(name) <= 63 for name in names)


def test_nothing_to_map_is_said() -> None:
    with pytest.raises(ValueError, match="nothing"):
        write_mapping("empty", [])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.decimals(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.text(st.sampled_from("aZ9-_"), min_size=1, max_size=6), JSON), min_size=1, max_size=12))
def test_whatever_the_values_are_the_proposal_is_a_mapping_that_takes_each_key(values: list[tuple[str, Any]]) -> None:
    pairs = [(key.encode(), json.dumps(value, default=str).encode()) for key, value in values]

    mapping = propose(pairs)

    for key, value in pairs:
        batch = map_block(replayed(write(key, value)), mapping)
        assert batch.mapped or batch.quarantined


METADATA = {
    "components": {
        "schemas": {
            "Asset": {
                "type": "object",
                "description": "A thing that is owned.",
                "properties": {
                    "id": {"type": "string"},
                    "value": {"type": "integer"},
                    "since": {"type": "string", "format": "date-time"},
                    "owner": {"$ref": "#/components/schemas/Owner"},
                    "tags": {"type": "array", "items": {"type": "string"}},
                    "parts": {"type": "array", "items": {"$ref": "#/components/schemas/Owner"}},
                },
            },
            "Owner": {"type": "object", "properties": {"name": {"type": "string"}, "share": {"type": "number"}}},
            "Empty": {"type": "object"},
        }
    },
    "contracts": {},
}


def test_metadata_of_a_contract_gives_its_types_as_tables() -> None:
    mapping = read_mapping(infer_from_metadata(json.dumps(METADATA).encode(), "basic").encode(), "proposal")

    asset, owner = mapping.tables
    assert (asset.name, asset.comment) == ("asset", "A thing that is owned.")
    assert types(asset) == {
        "id": "text",
        "value": "integer",
        "since": "timestamp",
        "owner": "json",
        "other_members": "json",
    }
    assert [(child.name, child.each) for child in asset.children] == [
        ("asset_tags", ("tags",)),
        ("asset_parts", ("parts",)),
    ]
    assert [column.type for column in asset.children[1].columns] == [ColumnType.TEXT, ColumnType.DECIMAL]
    assert [column.source for column in owner.columns][1] == FromJson(("name",))


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b'{"components": {"schemas": {"A": {"type": "object"}}}}', b"\xff"]
)
def test_metadata_without_types_is_refused(content: bytes) -> None:
    with pytest.raises(ConfigurationError, match="metadata"):
        infer_from_metadata(content, "basic")
