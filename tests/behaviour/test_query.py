"""Rows of mapped tables by `kvr_sync.read` and `kvr sync query`: now, after any block, by page, new enough."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from kvr_sync.errors import ConfigurationError, TablesBehindError
from kvr_sync.read import TablePage, TableQuery, open_tables, read_table
from tests.support.command import kvr
from tests.support.oracle import read_ledger
from tests.support.oracle_tables import read_tables
from tests.support.recorded_chain import load_chain

MAPPING = Path(__file__).parents[2] / "network" / "demo_data" / "service-week.mapping.yaml"
CHAIN = load_chain("fabric-3.1.5-service-week")
LAST = len(CHAIN.blocks) - 1


def read(url: str, table: str = "service_requests", **options: Any) -> TablePage:
    with open_tables(url) as synced:
        return read_table(synced, TableQuery(table, **options))


@pytest.mark.parametrize("block", [5, 40, 80, LAST])
def test_rows_as_of_a_block_are_those_of_a_chain_that_ends_there(service_week: str, block: int) -> None:
    expected = read_tables(read_ledger(CHAIN.blocks[: block + 1]), MAPPING)["service_requests"].current

    page = read(service_week, as_of=block, limit=1000)

    assert page.block_number == block
    found = {row["external_id"]: (row["kvr_block_number"], row["kvr_tx_number"]) for row in page.rows}
    assert found == {key.split(b"\x00")[2].decode(): (facts[0], facts[1]) for key, (_, facts) in expected.items()}


def test_pages_together_are_the_table(service_week: str) -> None:
    whole = read(service_week, limit=1000)
    pages = [read(service_week, limit=7)]
    while pages[-1].next_after is not None:
        pages.append(read(service_week, limit=7, after=pages[-1].next_after))

    assert [row for page in pages for row in page.rows] == whole.rows
    assert all(len(page.rows) == 7 for page in pages[:-1])


def test_rows_are_chosen_by_values_and_have_types_of_their_own(service_week: str) -> None:
    first = read(service_week, limit=1).rows[0]

    found = read(service_week, wanted={"id": first["id"], "status": first["status"]}).rows

    assert found == [first]
    assert isinstance(first["opened_at"], datetime)
    assert first["opened_at"].tzinfo in (UTC, first["opened_at"].tzinfo)
    assert isinstance(first["location_lat"], Decimal | None)
    assert isinstance(first["tags"], list | None)


def test_tables_that_do_not_reach_a_block_say_so(service_week: str) -> None:
    with pytest.raises(TablesBehindError, match=f"reach block {LAST}, block {LAST + 1} is asked for"):
        read(service_week, minimum_block=LAST + 1)
    with pytest.raises(TablesBehindError):
        read(service_week, as_of=LAST + 1)
    assert read(service_week, minimum_block=LAST, limit=1).block_number == LAST


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
def test_what_cannot_be_asked_is_refused_by_name(
    service_week: str, table: str, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigurationError, match=words):
        read(service_week, table, **options)


def test_the_command_gives_the_same_rows(service_week: str) -> None:
    page = read(service_week, as_of=40, limit=3)

    told = kvr(
        "sync", "query", "service_requests", "--as-of", "40", "--limit", "3", "--json", KVR_DATABASE=service_week
    )

    assert told.returncode == 0, told.stderr
    answer = json.loads(told.stdout)
    assert [row["external_id"] for row in answer["rows"]] == [row["external_id"] for row in page.rows]
    assert (answer["block_number"], answer["next_after"]) == (40, page.next_after)
