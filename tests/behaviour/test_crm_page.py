"""The queries of the page for CRM teams run as they stand there, on both databases, and find something."""

import re
from pathlib import Path

import pytest

from tests.support.tables import query

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "kvr_sync" / "CRM.md").read_text()
WEEK = ROOT / "network" / "demo_data" / "service-week.mapping.yaml"
QUERIES = re.findall(r"^(\d+)\. [^\n]+\n\n```sql( postgresql)?\n(.*?);\n```", PAGE, re.MULTILINE | re.DOTALL)


DATABASES = ("sqlite", "postgresql")


def test_the_page_has_ten_queries() -> None:
    assert [int(number) for number, _, _ in QUERIES] == list(range(1, 11))


@pytest.mark.parametrize(
    ("service_week", "number", "statement"),
    [
        (database, number, statement)
        for number, only, statement in QUERIES
        for database in DATABASES
        if only.strip() in ("", database)
    ],
    indirect=["service_week"],
)
def test_a_query_of_the_page_runs_and_finds_something(service_week: str, number: str, statement: str) -> None:
    rows = query(service_week, statement)

    # Every customer of this week is there; the query that looks for others has nothing to find.
    assert bool(rows) == (number != "8")


def test_both_ways_to_a_past_block_give_the_same(service_week: str) -> None:
    statements = {number: statement for number, _, statement in QUERIES}
    if service_week.startswith("postgresql"):
        assert query(service_week, statements["4"]) == query(service_week, statements["5"])
    else:
        assert query(service_week, statements["5"])
