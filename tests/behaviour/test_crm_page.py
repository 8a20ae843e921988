"""The queries of the page for CRM teams run as they stand there, on both databases, and find something."""

import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from sqlalchemy import URL

from kvr_sync.jobs import SyncSettings, sync_once
from tests.support.postgresql import fresh_database
from tests.support.recorded_chain import load_chain
from tests.support.tables import query

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "kvr_sync" / "CRM.md").read_text()
WEEK = ROOT / "network" / "demo_data" / "service-week.mapping.yaml"
QUERIES = re.findall(r"^(\d+)\. [^\n]+\n\n```sql( postgresql)?\n(.*?);\n```", PAGE, re.MULTILINE | re.DOTALL)


DATABASES = ("sqlite", "postgresql")


@pytest.fixture(scope="module", params=DATABASES)
def filled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with ExitStack() as stack:
        if request.param == "sqlite":
            url = f"sqlite:///{tmp_path_factory.mktemp('crm') / 'kvr.db'}"
        else:
            server: URL = request.getfixturevalue("postgresql_server")
            url = stack.enter_context(fresh_database(server)).render_as_string(hide_password=False)
        sync_once(SyncSettings(load_chain("fabric-3.1.5-service-week").path, url, WEEK))
        yield url


def test_the_page_has_ten_queries() -> None:
    assert [int(number) for number, _, _ in QUERIES] == list(range(1, 11))


@pytest.mark.parametrize(
    ("filled", "number", "statement"),
    [
        (database, number, statement)
        for number, only, statement in QUERIES
        for database in DATABASES
        if only.strip() in ("", database)
    ],
    indirect=["filled"],
)
def test_a_query_of_the_page_runs_and_finds_something(filled: str, number: str, statement: str) -> None:
    rows = query(filled, statement)

    # Every customer of this week is there; the query that looks for others has nothing to find.
    assert bool(rows) == (number != "8")


def test_both_ways_to_a_past_block_give_the_same(filled: str) -> None:
    statements = {number: statement for number, _, statement in QUERIES}
    if filled.startswith("postgresql"):
        assert query(filled, statements["4"]) == query(filled, statements["5"])
    else:
        assert query(filled, statements["5"])
