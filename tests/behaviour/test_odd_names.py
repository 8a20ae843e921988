"""Columns called like what views, functions and statements of ours are made with, and several indexes over them."""

import json
from pathlib import Path

import pytest
from sqlalchemy import make_url

from kvr_sync.errors import ConfigurationError
from kvr_sync.jobs import SyncSettings, sync_once
from kvr_sync.read import open_tables, read_table
from kvr_sync.table_query import TableQuery
from tests.support.chain_factory import ChainFactory, TransactionSpec, put
from tests.support.mapped_layer import CHANNEL
from tests.support.recorded_chain import write_records
from tests.support.tables import check_feed, query

NAMES = ("block", "h", "v", "c", "later", "p", "kind", "change_id", "key_id", "excluded", "lives", "block_number")


@pytest.fixture
def mapping(tmp_path: Path) -> Path:
    columns = {name: {"json": name, "type": "integer", "index": True} for name in NAMES}
    parts = {name: {"json": name, "type": "integer"} for name in NAMES}
    table = {
        "namespace": "ext",
        "key": {"prefix": ""},
        "columns": columns,
        "indexes": [["block", "h"], ["h", "block"]],
        "children": {"parts": {"each": "parts", "columns": parts}},
    }
    path = tmp_path / "odd.mapping.yaml"
    path.write_text(json.dumps({"kvr_mapping": 1, "tables": {"things": table}}), encoding="utf-8")
    return path


def document(first: int) -> bytes:
    members = {name: first + number for number, name in enumerate(NAMES)}
    return json.dumps({**members, "parts": [members]}).encode()


def test_they_mean_the_columns_of_the_mapping_everywhere(database_url: str, mapping: Path, tmp_path: Path) -> None:
    factory = ChainFactory()
    for first in (100, 200, 300):
        factory.block([TransactionSpec([put("k", document(first))])])
    sync_once(SyncSettings(write_records(tmp_path / "chain", factory.blocks), database_url, mapping))
    listed = ", ".join(f'"{name}"' for name in NAMES)
    rows = [tuple(first + number for number in range(len(NAMES))) for first in (100, 200, 300)]
    heights = [number for (number,) in query(database_url, "SELECT kvr_block_number FROM things_history ORDER BY 1")]

    assert query(database_url, f"SELECT {listed} FROM things") == rows[-1:]  # noqa: S608  names of ours
    assert query(database_url, f"SELECT {listed} FROM parts") == rows[-1:]  # noqa: S608
    assert query(database_url, f"SELECT {listed} FROM things_changes ORDER BY kvr_change_id") == rows  # noqa: S608
    assert query(database_url, f"SELECT {listed} FROM things_validity ORDER BY kvr_valid_from_block") == rows  # noqa: S608
    with open_tables(database_url, CHANNEL) as tables:
        for height, row in zip(heights, rows, strict=True):
            (found,) = read_table(tables, TableQuery("things", as_of=height)).rows
            assert tuple(found[name] for name in NAMES) == row
    if make_url(database_url).drivername.startswith("postgresql"):
        for height, row in zip(heights, rows, strict=True):
            assert query(database_url, f"SELECT {listed} FROM things_asof(?)", [height]) == [row]  # noqa: S608
            assert query(database_url, f"SELECT {listed} FROM parts_asof(?)", [height]) == [row]  # noqa: S608
    check_feed(database_url, "things")


def test_a_locale_that_the_database_does_not_have_is_named(postgresql_url: str, tmp_path: Path) -> None:
    mapping = tmp_path / "locale.mapping.yaml"
    column = {"json": "name", "type": "text", "collation": "tlh-QO"}
    table = {"namespace": "ext", "key": {"prefix": ""}, "columns": {"name": column}}
    mapping.write_text(json.dumps({"kvr_mapping": 1, "tables": {"people": table}}), encoding="utf-8")
    chain = write_records(tmp_path / "chain", ChainFactory().blocks)

    with pytest.raises(ConfigurationError, match=r"locale 'tlh-QO' of column people\.name"):
        sync_once(SyncSettings(chain, postgresql_url, mapping))

    assert query(postgresql_url, "SELECT tablename FROM pg_tables WHERE tablename = 'people'") == []
