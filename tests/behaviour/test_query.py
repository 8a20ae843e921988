"""Rows of mapped tables by `kvr_sync.read` and `kvr sync query`: now, after any block, by page, new enough."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL

from kvr_sync.engine import Engine
from kvr_sync.errors import ConfigurationError, TablesBehindError
from kvr_sync.mapping.mapping_file import read_mapping_file
from kvr_sync.read import TablePage, TableQuery, open_tables, read_table
from kvr_sync.source.block_file import open_block_file
from kvr_sync.store.opening import open_store
from tests.support.command import kvr
from tests.support.oracle import read_ledger
from tests.support.oracle_tables import read_tables
from tests.support.postgresql import fresh_database
from tests.support.recorded_chain import load_chain

MAPPING = Path(__file__).parents[2] / "network" / "demo_data" / "service-week.mapping.yaml"
CHAIN = load_chain("fabric-3.1.5-service-week")
LAST = len(CHAIN.blocks) - 1


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def filled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    mapping = read_mapping_file(MAPPING)
    with ExitStack() as stack:
        if request.param == "sqlite":
            url = f"sqlite:///{tmp_path_factory.mktemp('query') / 'kvr.db'}"
        else:
            server: URL = request.getfixturevalue("postgresql_server")
            url = stack.enter_context(fresh_database(server)).render_as_string(hide_password=False)
        with closing(open_store(url, "consortium", mapping=mapping)) as sink:
            Engine(open_block_file(CHAIN.path), sink, mapping, channel="consortium").run()
        yield url


def read(url: str, table: str = "service_requests", **options: Any) -> TablePage:
    with open_tables(url) as synced:
        return read_table(synced, TableQuery(table, **options))


@pytest.mark.parametrize("block", [5, 40, 80, LAST])
def test_rows_as_of_a_block_are_those_of_a_chain_that_ends_there(filled: str, block: int) -> None:
    expected = read_tables(read_ledger(CHAIN.blocks[: block + 1]), MAPPING)["service_requests"].current

    page = read(filled, as_of=block, limit=1000)

    assert page.block_number == block
    found = {row["external_id"]: (row["kvr_block_number"], row["kvr_tx_number"]) for row in page.rows}
    assert found == {key.split(b"\x00")[2].decode(): (facts[0], facts[1]) for key, (_, facts) in expected.items()}


def test_pages_together_are_the_table(filled: str) -> None:
    whole = read(filled, limit=1000)
    pages = [read(filled, limit=7)]
    while pages[-1].next_after is not None:
        pages.append(read(filled, limit=7, after=pages[-1].next_after))

    assert [row for page in pages for row in page.rows] == whole.rows
    assert all(len(page.rows) == 7 for page in pages[:-1])


def test_rows_are_chosen_by_values_and_have_types_of_their_own(filled: str) -> None:
    first = read(filled, limit=1).rows[0]

    found = read(filled, wanted={"id": first["id"], "status": first["status"]}).rows

    assert found == [first]
    assert isinstance(first["opened_at"], datetime)
    assert first["opened_at"].tzinfo in (UTC, first["opened_at"].tzinfo)
    assert isinstance(first["location_lat"], Decimal | None)
    assert isinstance(first["tags"], list | None)


def test_tables_that_do_not_reach_a_block_say_so(filled: str) -> None:
    with pytest.raises(TablesBehindError, match=f"reach block {LAST}, block {LAST + 1} is asked for"):
        read(filled, minimum_block=LAST + 1)
    with pytest.raises(TablesBehindError):
        read(filled, as_of=LAST + 1)
    assert read(filled, minimum_block=LAST, limit=1).block_number == LAST


@pytest.mark.parametrize(
    ("table", "options", "words"),
    [
        ("service_request", {}, "did you mean 'service_requests'"),
        ("ledger_block", {}, "no mapped table"),
        ("service_requests", {"wanted": {"stat": "open"}}, "did you mean 'status'"),
        ("service_requests", {"wanted": {"priority": "high"}}, "an integer expected"),
        ("service_requests", {"wanted": {"tags": "[]"}}, "cannot be compared"),
    ],
)
def test_what_cannot_be_asked_is_refused_by_name(filled: str, table: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        read(filled, table, **options)


def test_the_command_gives_the_same_rows(filled: str) -> None:
    page = read(filled, as_of=40, limit=3)

    told = kvr("sync", "query", "service_requests", "--as-of", "40", "--limit", "3", "--json", KVR_DATABASE=filled)

    assert told.returncode == 0, told.stderr
    answer = json.loads(told.stdout)
    assert [row["external_id"] for row in answer["rows"]] == [row["external_id"] for row in page.rows]
    assert (answer["block_number"], answer["next_after"]) == (40, page.next_after)
