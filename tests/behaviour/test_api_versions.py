"""Mappings that the tables cannot take where they stand: tables of a new version of the API beside them, and back."""

import json
import os
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

from kvr_sync import errors
from kvr_sync.doctor import examine
from kvr_sync.engine import Engine
from kvr_sync.mapping_change import AppliedMapping
from kvr_sync.read import TableQuery, open_tables, read_table
from kvr_sync.retirement import Retired, retire_api
from kvr_sync.rewinding import rewind_tables
from kvr_sync.source.block_file import open_block_file
from kvr_sync.store.opening import open_store
from kvr_sync.store.operation_log import Operation
from kvr_sync.store.schema_change import Patience
from kvr_sync.store.sink import AFTER_COMMIT, BEFORE_COMMIT, CRASH_POINTS
from kvr_sync.table_operations import rebuild_tables
from tests.behaviour.test_apply import (
    ADDING,
    BASE,
    BEFORE,
    BLOCKS,
    BrokenOffError,
    Definition,
    apply,
    break_off,
    bring,
    changed,
    mapping_file,
    plain_address,
    put_in,
    run,
    served,
    synced,
)
from tests.support.comparison import check_tables
from tests.support.invariants import read_content
from tests.support.mapped_layer import CHANNEL, FeedReader, by_hand
from tests.support.oracle import read_ledger
from tests.support.recorded_chain import write_records
from tests.support.tables import query

__all__ = ["served", "synced"]

OTHER: Definition = yaml.safe_load(
    """
kvr_mapping: 1
tables:
  request:
    namespace: ext
    key: {prefix: r}
    columns:
      id: {from: key.rest, type: text, required: true, index: true}
      state: {json: status, type: text}
      amount: {json: amount, type: text}
      owner: {json: owner, type: text}
    children:
      request_tag: {each: tags, columns: {tag: {json: name, type: text, required: true}, n: {json: n, type: integer}}}
      request_visit: {each: visits, columns: {day: {from: element, type: date, index: true}}}
  event:
    namespace: ext
    key: {prefix: "e"}
    columns: {content: {from: value, type: text}, id: {from: key, type: text, references: request.id}}
"""
)
"""`note` is gone, columns have other types and names: none of it in place."""
ASKED = Operation("retire", "a test")
REWIND = Operation("rewind", "a test")


def retire(url: str, api_version: int, **options: Any) -> Retired:
    return retire_api(url, CHANNEL, api_version, ASKED, **options)


def check_both(url: str, blocks: tuple[bytes, ...], first: Definition = BASE, second: Definition = OTHER) -> None:
    ledger = read_ledger(blocks)
    check_tables(url, ledger, len(blocks), first)
    check_tables(url, ledger, len(blocks), second, api_version=2)


def test_tables_beside_the_others_equal_a_replay_and_both_are_kept_up(synced: str, tmp_path: Path) -> None:
    applied = apply(synced, OTHER)

    assert (applied.version, applied.api_version, applied.is_beside, applied.block_number) == (2, 2, True, BEFORE - 1)
    check_both(synced, BLOCKS[:BEFORE])
    bring(synced, tmp_path, BLOCKS)
    check_both(synced, BLOCKS)
    assert query(synced, "SELECT mapping_version FROM sync_status") == [(2,)]
    assert [found.text for found in examine(synced, CHANNEL) if found.verdict == "fail"] == []


@pytest.mark.parametrize("given", ["old", "new", "none"])
def test_an_engine_goes_on_with_either_mapping(given: str, synced: str, tmp_path: Path) -> None:
    apply(synced, OTHER)
    path = {"old": mapping_file(tmp_path, BASE, "old"), "new": mapping_file(tmp_path, OTHER), "none": None}[given]

    bring(synced, tmp_path, BLOCKS, path)

    check_both(synced, BLOCKS)


def test_what_was_there_stays_as_it_is_with_views_rights_and_publications_of_others(
    served: str, tmp_path: Path
) -> None:
    reader = FeedReader(served, "request").read()
    before = query(served, "SELECT * FROM request ORDER BY 1")

    apply(served, OTHER)

    assert query(served, "SELECT * FROM request ORDER BY 1") == before
    assert reader.read().kinds == []
    bring(served, tmp_path, BLOCKS)
    assert reader.read().rows == reader.table()
    assert query(served, "SELECT count(*) FROM public.open_requests") == [(2,)]
    assert query(served, "SELECT tablename FROM pg_publication_tables") == [("request",)]


def test_blocks_go_on_arriving_while_the_tables_are_filled(
    synced: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kvr_sync.mapping_build.PART_KEYS", 2)
    monkeypatch.setattr("kvr_sync.mapping_build.FEW_BLOCKS", 0)
    steps: list[str] = []

    def arrive(step: str) -> None:
        steps.append(step)
        if step == "building" and steps.count("building") in (1, 3):  # one key was made, and then more
            bring(synced, tmp_path, BLOCKS[: BEFORE + (1 if steps.count("building") == 3 else 0)])

    bring(synced, tmp_path, BLOCKS[:BEFORE])
    apply(synced, OTHER, on_step=arrive)

    assert steps.count("building") >= 4
    check_both(synced, BLOCKS[: BEFORE + 1])


def test_a_running_engine_begins_anew_with_the_tables_of_both(synced: str, tmp_path: Path) -> None:
    source = open_block_file(write_records(tmp_path / "blocks", BLOCKS))
    with closing(open_store(synced, CHANNEL)) as sink:
        engine = Engine(source, sink, sink.mapping, channel=CHANNEL)
        apply(synced, OTHER)

        with pytest.raises(errors.MappingChangedError, match="is at version 2 now"):
            engine.run()

    check_both(synced, BLOCKS[:BEFORE])


@pytest.mark.parametrize("at", ["changed", "building"])
def test_an_application_that_broke_off_leaves_the_old_tables_in_force_and_is_finished_by_the_same_mapping(
    at: str, synced: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kvr_sync.mapping_build.PART_KEYS", 3)
    with pytest.raises(BrokenOffError):
        apply(synced, OTHER, on_step=break_off(at))

    bring(synced, tmp_path, BLOCKS)
    check_tables(synced, read_ledger(BLOCKS), len(BLOCKS), BASE)
    assert [(one.check, one.verdict) for one in examine(synced, CHANNEL) if one.check == "mapping"] == [
        ("mapping", "warn")
    ]
    for other in (ADDING["a column"], changed(put_in("text", "request", "columns", "amount", "type"))):
        with pytest.raises(
            errors.ConfigurationError, match="finish that one first, or take it back with `kvr sync ret"
        ):
            apply(synced, other)
    assert apply(synced, OTHER).version == 2
    check_both(synced, BLOCKS)


POINTS = (BEFORE_COMMIT, AFTER_COMMIT)


KILLED_REPLAY = Path(__file__).parents[1] / "support" / "killed_replay.py"


@pytest.mark.parametrize("point", CRASH_POINTS)
def test_a_kill_in_the_first_block_after_the_switch_loses_and_doubles_nothing(
    point: str, synced: str, tmp_path: Path
) -> None:
    apply(synced, OTHER)
    records = write_records(tmp_path / "blocks", BLOCKS)
    old = mapping_file(tmp_path, BASE, "old")
    command = [sys.executable, str(KILLED_REPLAY), str(records), synced, str(old), "1", point, "0", "0"]
    assert subprocess.run(command, check=False, timeout=50).returncode == -signal.SIGKILL

    check_both(synced, BLOCKS[: BEFORE + (point == AFTER_COMMIT)])
    bring(synced, tmp_path, BLOCKS)
    check_both(synced, BLOCKS)


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("point", POINTS)
def test_a_kill_while_the_tables_are_filled_loses_nothing(point: str, count: int, synced: str, tmp_path: Path) -> None:
    path = mapping_file(tmp_path, OTHER)
    command = [sys.executable, "-m", "tests.support.killed_build", synced, str(path), point, str(count)]
    killed = subprocess.run(command, check=False, env=os.environ, timeout=50)
    assert killed.returncode == -signal.SIGKILL

    bring(synced, tmp_path, BLOCKS)
    check_tables(synced, read_ledger(BLOCKS), len(BLOCKS), BASE)
    apply(synced, OTHER)

    check_both(synced, BLOCKS)


def test_two_who_build_the_same_do_it_once(synced: str) -> None:
    applied: list[AppliedMapping] = []

    def another(step: str) -> None:
        if step == "building" and not applied:
            applied.append(apply(synced, OTHER))

    with pytest.raises(errors.MappingChangedError, match="somebody else finished it"):
        apply(synced, OTHER, on_step=another)

    assert applied[0].is_beside
    check_both(synced, BLOCKS[:BEFORE])


def test_the_tables_of_both_are_brought_back_to_an_earlier_block(synced: str, tmp_path: Path) -> None:
    apply(synced, OTHER)
    bring(synced, tmp_path, BLOCKS)
    readers = [FeedReader(synced, name).read() for name in ("request", "note")]

    for number in (BEFORE, 2):
        rewind_tables(synced, CHANNEL, number, REWIND)
        check_both(synced, BLOCKS[: number + 1])

    bring(synced, tmp_path, BLOCKS)
    check_both(synced, BLOCKS)
    for reader in readers:
        assert reader.read().rows == reader.table()


def test_tables_that_are_filled_while_the_others_are_brought_back_are_filled_again(synced: str, tmp_path: Path) -> None:
    rewound: list[str] = []

    def bring_back(step: str) -> None:
        if step == "building" and not rewound:
            rewind_tables(synced, CHANNEL, 2, REWIND)
            rewound.append(step)

    with pytest.raises(errors.MappingChangedError, match="the tables were rewound meanwhile: apply again"):
        apply(synced, OTHER, on_step=bring_back)

    check_tables(synced, read_ledger(BLOCKS[:3]), 3, BASE)
    apply(synced, OTHER)
    check_both(synced, BLOCKS[:3])
    bring(synced, tmp_path, BLOCKS)
    check_both(synced, BLOCKS)


def test_the_old_tables_are_taken_away_when_nobody_reads_them(synced: str, tmp_path: Path) -> None:
    apply(synced, OTHER)

    retired = retire(synced, 1)

    assert retired.tables == ("request", "request_tag", "note")
    check_tables(synced, read_ledger(BLOCKS[:BEFORE]), BEFORE, OTHER, api_version=2)
    bring(synced, tmp_path, BLOCKS)
    check_tables(synced, read_ledger(BLOCKS), len(BLOCKS), OTHER, api_version=2)
    names = {row[0] for row in query(synced, "SELECT name FROM sync_table")}
    assert names == {"v2.request", "v2.event"}
    assert query(
        synced, "SELECT count(*) FROM sync_change WHERE table_id NOT IN (SELECT table_id FROM sync_table)"
    ) == [(0,)]
    with pytest.raises(errors.ConfigurationError, match="was made with another mapping"):
        bring(synced, tmp_path, BLOCKS, tmp_path / "base.mapping.yaml")
    assert retire(synced, 1).tables == ()


def test_the_new_tables_are_taken_back_and_the_old_ones_go_on(synced: str, tmp_path: Path) -> None:
    apply(synced, OTHER)
    bring(synced, tmp_path, BLOCKS)

    retire(synced, 2)

    check_tables(synced, read_ledger(BLOCKS), len(BLOCKS), BASE)
    bring(synced, tmp_path, BLOCKS, tmp_path / "base.mapping.yaml")
    again = apply(synced, OTHER)
    assert (again.api_version, again.version) == (3, 4)
    check_tables(synced, read_ledger(BLOCKS), len(BLOCKS), OTHER, api_version=3)


def test_half_built_tables_are_taken_back(synced: str, tmp_path: Path) -> None:
    with pytest.raises(BrokenOffError):
        apply(synced, OTHER, on_step=break_off("building"))

    assert retire(synced, 2).tables == ("v2.request", "v2.request_tag", "v2.request_visit", "v2.event")

    bring(synced, tmp_path, BLOCKS)
    check_tables(synced, read_ledger(BLOCKS), len(BLOCKS), BASE)
    assert query(synced, "SELECT count(*) FROM ledger_quarantine WHERE table_name LIKE 'v2.%'") == [(0,)]
    apply(synced, ADDING["a column"])
    check_tables(synced, read_ledger(BLOCKS), len(BLOCKS), ADDING["a column"])


def test_the_only_tables_and_unknown_ones_are_not_taken_away(synced: str) -> None:
    before = read_content(synced)

    with pytest.raises(errors.ConfigurationError, match="version 1 of the API is the only one in force"):
        retire(synced, 1)
    with pytest.raises(errors.ConfigurationError, match="there is no version 2 of the API; in force: 1"):
        retire(synced, 2)

    assert read_content(synced) == before


def test_tables_that_others_read_are_not_taken_away(served: str) -> None:
    apply(served, OTHER)
    with psycopg.connect(plain_address(served), autocommit=True) as owner:
        owner.execute("CREATE VIEW public.new_news AS SELECT kvr_change_id FROM consortium_v2.request_changes")

    with pytest.raises(errors.ConfigurationError, match=r"public\.news \(of request\), public\.open_requests"):
        retire(served, 1)
    with pytest.raises(errors.ConfigurationError, match=r"public\.new_news \(of v2\.request\)"):
        retire(served, 2)

    check_both(served, BLOCKS[:BEFORE])


def test_a_long_reader_is_waited_for_and_then_the_tables_go(served: str) -> None:
    apply(served, OTHER)
    with psycopg.connect(plain_address(served), autocommit=True) as owner:
        owner.execute("DROP VIEW public.open_requests, public.news")
    with psycopg.connect(plain_address(served)) as long_reader:
        long_reader.execute("SELECT count(*) FROM consortium.note")
        with pytest.raises(errors.SinkUnavailableError, match="without readers of request, request_tag, note"):
            retire(served, 1, patience=Patience(wait_seconds=0))
        check_both(served, BLOCKS[:BEFORE])
        retire(served, 1, patience=Patience(sleep=lambda _: long_reader.rollback()))

    assert query(served, "SELECT table_name FROM information_schema.tables WHERE table_name = 'note'") == []


def test_what_adds_to_the_newest_is_done_in_place_and_leaves_the_older_alone(synced: str, tmp_path: Path) -> None:
    apply(synced, OTHER)
    more = json.loads(json.dumps(OTHER))
    more["tables"]["request"]["columns"]["hue"] = {"json": "hue", "type": "text"}
    more["tables"]["note"] = BASE["tables"]["note"]

    applied = apply(synced, more)

    assert (applied.version, applied.api_version, applied.is_beside) == (3, 2, False)
    check_both(synced, BLOCKS[:BEFORE], second=more)
    bring(synced, tmp_path, BLOCKS)
    check_both(synced, BLOCKS, second=more)


def test_beside_is_to_be_had_where_it_is_not_needed_too(synced: str) -> None:
    applied = apply(synced, ADDING["all of it"], beside=True)

    assert applied.is_beside
    check_both(synced, BLOCKS[:BEFORE], second=ADDING["all of it"])


def test_values_that_would_lose_their_rows_in_place_are_taken_beside(synced: str) -> None:
    definition = changed(put_in({"json": "owner", "type": "text"}, "request", "columns", "owner"))
    with pytest.raises(errors.ConfigurationError, match="With --beside it gets tables of its own"):
        apply(synced, definition)

    apply(synced, definition, beside=True)

    check_both(synced, BLOCKS[:BEFORE], second=definition)


def test_tables_of_a_version_are_read_rebuilt_and_released_by_their_names(synced: str) -> None:
    apply(synced, OTHER)

    def columns(name: str) -> set[str]:
        with open_tables(synced) as tables:
            return set(read_table(tables, TableQuery(name)).rows[0])

    assert "status" in columns("request") & columns("v1.request")
    assert {"state", "owner"} <= columns("v2.request")
    assert "content" in columns("event")
    with by_hand(synced) as connection:
        table = "v2_request" if connection.dialect.name == "sqlite" else "consortium_v2.request"
        connection.exec_driver_sql(f"UPDATE {table} SET owner = 'nobody'")  # noqa: S608  ours
    done = rebuild_tables(synced, CHANNEL, ["v2.request"], Operation("rebuild", "a test"))
    assert [(one.table, one.changes > 0) for one in done.tables] == [("v2.request", True)]
    check_both(synced, BLOCKS[:BEFORE])
    retire(synced, 1)
    assert "state" in columns("request")


def test_a_name_that_another_version_needs_is_refused(synced: str, tmp_path: Path, database_url: str) -> None:
    if not database_url.startswith("sqlite"):
        return  # there the versions have schemas of their own
    clash = changed(put_in({**BASE["tables"]["note"], "key": {"prefix": "x"}}, "v2_request"))
    apply(synced, clash)

    with pytest.raises(errors.ConfigurationError, match="the mapping needs a table v2_request, and another table has"):
        apply(synced, OTHER)

    bring(synced, tmp_path, BLOCKS)


def test_the_commands_tell_what_they_do_and_leave_entries(synced: str, tmp_path: Path) -> None:
    path = str(mapping_file(tmp_path, OTHER))

    planned = run(synced, "plan", "--mapping", path)
    facts = json.loads(run(synced, "plan", "--mapping", path, "--json").stdout)
    done = run(synced, "apply", "--mapping", path, "--why", "other columns")
    refused = run(synced, "retire", "1", "--environment", "production")
    gone = run(synced, "retire", "1", "--why", "nobody reads it", "--json")
    entries = json.loads(run(synced, "operations", "--json").stdout)

    assert "as version 2 of the API" in planned.stdout
    assert (facts["api_version"], facts["beside"]) == (2, True)
    assert "version 2 of the API is there, at block 5" in done.stdout
    assert "v2.request, v2.request_tag" in done.stdout
    assert (refused.exit_code, "in production say why" in refused.stderr) == (1, True)
    assert json.loads(gone.stdout)["tables"] == ["request", "request_tag", "note"]
    assert [(one["operation"], one["detail"]["api_version"]) for one in entries] == [("retire", 1), ("apply", 2)]
