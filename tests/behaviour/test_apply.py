"""A new mapping for filled tables: what `kvr sync plan` says of it, and what `kvr sync apply` does in place."""

import copy
import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml
from click.testing import Result
from sqlalchemy import make_url
from typer.testing import CliRunner

from kvr_sync import errors
from kvr_sync.doctor import examine
from kvr_sync.engine import Engine
from kvr_sync.jobs import SyncSettings, sync_once
from kvr_sync.main import audit, sync
from kvr_sync.mapping.definition import Mapping
from kvr_sync.mapping.validation import read_mapping
from kvr_sync.mapping_change import AppliedMapping, apply_mapping, plan_mapping, plan_script
from kvr_sync.read import open_tables
from kvr_sync.source.block_file import open_block_file
from kvr_sync.store.opening import open_store
from kvr_sync.store.operation_log import Operation
from kvr_sync.store.schema_change import Patience
from kvr_sync.table_operations import release_quarantine
from network.protocol.composite_key import encode_composite_key
from tests.support.chain_factory import ChainFactory, TransactionSpec, delete, put, set_metadata
from tests.support.comparison import check_tables
from tests.support.invariants import read_content
from tests.support.mapped_layer import CHANNEL, FeedReader, by_hand
from tests.support.oracle import read_ledger
from tests.support.oracle_tables import expected_tables
from tests.support.recorded_chain import write_records
from tests.support.tables import query, read_mapped

ASKED = Operation("apply", "a test")
Definition = dict[str, Any]
BASE: Definition = yaml.safe_load(
    """
kvr_mapping: 1
tables:
  request:
    namespace: ext
    key: {prefix: r}
    columns:
      id: {from: key.rest, type: text, required: true}
      status: {json: status, type: enum, values: [open, closed], required: true}
      amount: {json: amount, type: decimal}
    children:
      request_tag: {each: tags, columns: {tag: {json: name, type: text}}}
  note:
    namespace: ext
    key: {prefix: "n"}
    columns: {content: {from: value, type: bytes, required: true}}
"""
)


def chain() -> tuple[bytes, ...]:
    factory = ChainFactory()
    for writes in (
        [put("r1", b'{"status":"open","amount":1.50,"owner":"ann%","tags":[{"name":"a","n":1},{"name":"b"}]}')],
        [put("r2", b'{"status":"open","owner":"bob","tags":[{"name":"c","n":7}]}'), put("n1", b"\xff")],
        [put("r1", b'{"status":"closed","owner":"eva","visits":["2026-11-06"]}'), put("r3", b'{"status":"lost"}')],
        [
            set_metadata("r1", {"VALIDATION_PARAMETER": b"policy"}),
            put("r4", b'{"owner":"kim","hue":"red"}'),
            put("e1", b"event"),
        ],
        [delete("r2"), put("r5", b'{"status":"open","owner":17}'), put("e2", b"event")],
        [put("r6", b'{"status":"open","owner":"zoe","visits":["2026-11-06"]}'), delete("e1"), put("r1", b"{}")],
    ):
        factory.block([TransactionSpec([write]) for write in writes])
    return tuple(factory.blocks)


BLOCKS = chain()
BEFORE = 6
"""Blocks that are applied before the mapping changes; in the last of them a good value has another type of owner."""


def changed(*changes: Callable[[Definition], None]) -> Definition:
    definition = copy.deepcopy(BASE)
    for change in changes:
        change(definition["tables"])
    return definition


def new_column(tables: Definition) -> None:
    tables["request"]["columns"] = {"owner": {"json": "owner", "type": "json"}, **tables["request"]["columns"]}


def new_child_column(tables: Definition) -> None:
    tables["request"]["children"]["request_tag"]["columns"]["n"] = {"json": "n", "type": "integer"}


def new_table(tables: Definition) -> None:
    column = {"from": "value", "type": "text", "index": True, "comment": "It's 100% new; \\ and \""}
    tables["event"] = {"namespace": "ext", "key": {"prefix": "e"}, "columns": {"content": column}, "comment": "50% 'e'"}


def new_child(tables: Definition) -> None:
    day = {"from": "element", "type": "date"}
    tables["request"]["children"]["request_visit"] = {"each": "visits", "columns": {"day": day}}


def new_index(tables: Definition) -> None:
    tables["request"]["columns"]["id"]["index"] = True
    tables["request"]["indexes"] = [["status", "id"]]


def new_comments(tables: Definition) -> None:
    tables["note"]["comment"] = "What people noted: 'so'"
    tables["request"]["columns"]["status"]["comment"] = "100%"


def more_values(tables: Definition) -> None:
    tables["request"]["columns"]["status"]["values"].append("lost")


def not_required(tables: Definition) -> None:
    del tables["request"]["columns"]["status"]["required"]


ADDING = {
    "a column": changed(new_column),
    "a column of a child table": changed(new_child_column),
    "a table": changed(new_table),
    "a child table": changed(new_child),
    "indexes": changed(new_index),
    "comments": changed(new_comments),
    "all of it": changed(new_column, new_child_column, new_table, new_child, new_index, new_comments),
}
LOOSENING = {
    "a value of an enumeration": changed(more_values),
    "a column that may be empty": changed(not_required),
    "both, and a column": changed(more_values, not_required, new_column),
}


def mapping_of(definition: Definition) -> Mapping:
    return read_mapping(json.dumps(definition).encode(), "new")


def mapping_file(folder: Path, definition: Definition, name: str = "new") -> Path:
    path = folder / f"{name}.mapping.yaml"
    path.write_text(json.dumps(definition))
    return path


def bring(url: str, folder: Path, blocks: tuple[bytes, ...], mapping: Path | None = None) -> None:
    sync_once(SyncSettings(write_records(folder / "blocks", blocks), url, mapping))


@pytest.fixture
def synced(database_url: str, tmp_path: Path) -> str:
    bring(database_url, tmp_path, BLOCKS[:BEFORE], mapping_file(tmp_path, BASE, "base"))
    return database_url


def apply(url: str, definition: Definition, **options: Any) -> AppliedMapping:
    return apply_mapping(url, CHANNEL, mapping_of(definition), ASKED, **options)


@pytest.mark.parametrize("case", ADDING)
def test_what_adds_is_done_in_place_and_equals_a_replay_with_the_new_mapping(
    case: str, synced: str, tmp_path: Path
) -> None:
    definition = ADDING[case]
    reader = FeedReader(synced, "request").read()

    applied = apply(synced, definition)

    assert (applied.version, applied.quarantined) == (2, 2)
    check_tables(synced, read_ledger(BLOCKS[:BEFORE]), BEFORE, definition)
    assert len(reader.read().rows) == query(synced, "SELECT count(*) FROM request")[0][0]
    bring(synced, tmp_path, BLOCKS)
    check_tables(synced, read_ledger(BLOCKS), len(BLOCKS), definition)
    assert query(synced, "SELECT mapping_version FROM sync_status") == [(2,)]


@pytest.mark.parametrize("case", LOOSENING)
def test_what_is_loosened_waits_for_release_and_then_equals_a_replay(case: str, synced: str, tmp_path: Path) -> None:
    definition = LOOSENING[case]

    apply(synced, definition)
    release_quarantine(synced, CHANNEL, None, None, ASKED)

    for blocks in (BLOCKS[:BEFORE], BLOCKS):
        bring(synced, tmp_path, blocks)
        expected = expected_tables(read_ledger(blocks), definition)
        for name, found in read_mapped(synced, definition).items():
            assert (found.current, found.history) == (expected[name].current, expected[name].history)
            assert found.children == expected[name].children


def drop(*path: str) -> Callable[[Definition], None]:
    def change(tables: Definition) -> None:
        for name in path[:-1]:
            tables = tables[name]
        del tables[path[-1]]

    return change


def put_in(value: Any, *path: str) -> Callable[[Definition], None]:
    def change(tables: Definition) -> None:
        for name in path[:-1]:
            tables = tables[name]
        tables[path[-1]] = value

    return change


NOT_IN_PLACE = {
    "table note is gone": changed(drop("note")),
    "table request_tag is gone": changed(drop("request", "children")),
    "column request.amount is gone": changed(drop("request", "columns", "amount")),
    "the key of table note changes": changed(put_in({"prefix": "m"}, "note", "key")),
    "the type of column request.amount changes": changed(put_in("text", "request", "columns", "amount", "type")),
    "the source of column request.amount changes": changed(put_in("sum", "request", "columns", "amount", "json")),
    "whether a value is required of column request.amount changes": changed(
        put_in(True, "request", "columns", "amount", "required")
    ),
    "the enumeration of column request.status changes": changed(
        put_in(["open"], "request", "columns", "status", "values")
    ),
    "table note refuses unknown members now": changed(put_in("quarantine", "note", "unknown")),
    "the array of table request_tag changes": changed(put_in("words", "request", "children", "request_tag", "each")),
    "column request.owner is new and required": changed(
        put_in({"json": "owner", "type": "json", "required": True}, "request", "columns", "owner")
    ),
    "the sequence of table note changes": changed(put_in({"from": 2}, "note", "sequence")),
}


def test_a_plan_names_what_takes_tables_of_their_own_and_changes_nothing(synced: str) -> None:
    before = read_content(synced)

    with open_tables(synced) as tables:
        for obstacle, definition in NOT_IN_PLACE.items():
            plan = plan_mapping(tables, mapping_of(definition))
            assert (plan.is_beside, plan.new.api_version, obstacle in plan.obstacles) == (True, 2, True)

    assert read_content(synced) == before


def test_nothing_is_applied_that_would_take_rows_away(synced: str) -> None:
    before = read_content(synced)
    definition = changed(put_in({"json": "owner", "type": "text"}, "request", "columns", "owner"))

    with pytest.raises(
        errors.ConfigurationError, match=r"would not fit this mapping: 1 of table request \(wrong_type\)"
    ):
        apply(synced, definition)

    assert read_content(synced) == before


def test_a_row_that_came_by_release_is_not_taken_away_either(synced: str) -> None:
    apply(synced, changed(not_required))
    release_quarantine(synced, CHANNEL, None, None, ASKED)
    before = read_content(synced)
    hue = put_in({"json": "hue", "type": "integer"}, "request", "columns", "hue")

    with pytest.raises(
        errors.ConfigurationError, match=r"would not fit this mapping: 1 of table request \(wrong_type\)"
    ):
        apply(synced, changed(not_required, hue))

    assert read_content(synced) == before


def test_the_mapping_in_force_is_nothing_to_do(synced: str) -> None:
    before = read_content(synced)

    assert not apply(synced, BASE).is_new

    assert read_content(synced) == before


class BrokenOffError(Exception):
    """Ends an application at a step."""


def break_off(at: str) -> Callable[[str], None]:
    def on_step(step: str) -> None:
        if step == at:
            raise BrokenOffError

    return on_step


@pytest.mark.parametrize("case", ["all of it", "indexes"])
def test_an_application_that_broke_off_is_finished_by_the_same_mapping(case: str, synced: str, tmp_path: Path) -> None:
    definition = ADDING[case]
    with pytest.raises(BrokenOffError):
        apply(synced, definition, on_step=break_off("changed"))

    with pytest.raises(errors.MappingChangedError, match="run it again with the same mapping"):
        bring(synced, tmp_path, BLOCKS)
    assert [found.check for found in examine(synced, CHANNEL) if found.verdict == "fail"] == ["mapping"]
    with pytest.raises(errors.ConfigurationError, match="finish that one first"):
        apply(synced, ADDING["comments"])
    apply(synced, definition)

    bring(synced, tmp_path, BLOCKS)
    check_tables(synced, read_ledger(BLOCKS), len(BLOCKS), definition)


def test_an_application_that_broke_off_before_the_tables_changed_left_nothing(synced: str) -> None:
    before = read_content(synced)

    with pytest.raises(BrokenOffError):
        apply(synced, ADDING["all of it"], on_step=break_off("checked"))

    assert read_content(synced) == before


def test_a_running_engine_stops_at_the_new_mapping_and_a_new_run_takes_it_up(synced: str, tmp_path: Path) -> None:
    source = open_block_file(write_records(tmp_path / "blocks", BLOCKS))
    with closing(open_store(synced, CHANNEL)) as sink:
        engine = Engine(source, sink, sink.mapping, channel=CHANNEL)
        apply(synced, ADDING["a column"])
        before = read_content(synced)

        with pytest.raises(
            errors.MappingChangedError, match="is at version 2 now, and this engine began with version 1"
        ):
            engine.run()

    assert read_content(synced) == before
    with pytest.raises(errors.ConfigurationError, match="was made with another mapping"):
        bring(synced, tmp_path, BLOCKS, tmp_path / "base.mapping.yaml")
    bring(synced, tmp_path, BLOCKS, mapping_file(tmp_path, ADDING["a column"]))
    check_tables(synced, read_ledger(BLOCKS), len(BLOCKS), ADDING["a column"])


def plain_address(url: str) -> str:
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


@pytest.fixture
def served(postgresql_url: str, tmp_path: Path) -> str:
    """Give filled tables in PostgreSQL, with a view of somebody else's and a publication on them."""
    bring(postgresql_url, tmp_path, BLOCKS[:BEFORE], mapping_file(tmp_path, BASE, "base"))
    with psycopg.connect(plain_address(postgresql_url), autocommit=True) as owner:
        owner.execute("CREATE VIEW public.open_requests AS SELECT id FROM consortium.request WHERE status = 'open'")
        owner.execute("CREATE VIEW public.news AS SELECT kvr_change_id FROM consortium.request_changes")
        owner.execute("CREATE PUBLICATION requests FOR TABLE consortium.request")
    return postgresql_url


def test_nobody_waits_long_while_a_long_reader_is_waited_for(served: str) -> None:
    done = threading.Event()

    def read_all_the_time() -> int:
        queries = 0
        with psycopg.connect(plain_address(served), autocommit=True) as session:
            session.execute("SET lock_timeout = '200ms'")  # whoever waits longer gets an error
            while not done.is_set():
                for name in ("consortium.request", "consortium.request_changes", "public.open_requests"):
                    session.execute(f"SELECT count(*) FROM {name}")  # type: ignore[call-overload]  # noqa: S608
                    queries += 1
        return queries

    tries: list[float] = []
    with psycopg.connect(plain_address(served)) as long_reader, ThreadPoolExecutor(1) as others:
        long_reader.execute("SELECT count(*) FROM public.open_requests")

        def sleep(seconds: float) -> None:
            tries.append(seconds)
            if len(tries) == 3:
                long_reader.rollback()
            done.wait(0.05)

        reading = others.submit(read_all_the_time)
        try:
            apply(served, ADDING["all of it"], patience=Patience(sleep=sleep))
        finally:
            done.set()
        assert reading.result(timeout=50) > 0

    assert len(tries) >= 3
    check_tables(served, read_ledger(BLOCKS[:BEFORE]), BEFORE, ADDING["all of it"])
    assert query(served, "SELECT count(*) FROM public.open_requests") == [(1,)]
    assert query(served, "SELECT count(*) FROM public.news") != [(0,)]
    assert query(served, "SELECT tablename FROM pg_publication_tables") == [("request",)]


def test_without_a_moment_to_change_the_tables_nothing_is_changed(served: str) -> None:
    before = read_content(served)

    with psycopg.connect(plain_address(served)) as long_reader:
        long_reader.execute("SELECT count(*) FROM consortium.request")
        with pytest.raises(errors.SinkUnavailableError, match=r"without readers of .*consortium\.request"):
            apply(served, ADDING["a column"], patience=Patience(wait_seconds=0))

    assert read_content(served) == before


def test_a_plan_names_what_would_be_done_and_whose_views_depend(served: str, tmp_path: Path) -> None:
    before = read_content(served)
    told = run(served, "plan", "--mapping", str(mapping_file(tmp_path, ADDING["all of it"])), "--json")

    facts = {table["table"]: table for table in json.loads(told.stdout)["tables"]}
    assert {name: table["verdict"] for name, table in facts.items()} == {
        "request": "in place", "note": "in place", "event": "in place"
    }  # fmt: skip
    assert facts["request"]["views"] == ["public.news", "public.open_requests"]
    assert "new column request.owner" in facts["request"]["steps"]
    assert "new index of request over status, id" in facts["request"]["steps"]
    words = run(served, "plan", "--mapping", str(mapping_file(tmp_path, NOT_IN_PLACE["table note is gone"]))).stdout
    assert "note: new schema\n  not in place: table note is gone" in words
    assert "request: nothing" in words
    assert read_content(served) == before


def test_an_administrator_may_run_the_script_and_apply_fills_what_it_made(served: str, tmp_path: Path) -> None:
    mapping = ADDING["all of it"]
    with open_tables(served) as synced:
        script = plan_script(plan_mapping(synced, mapping_of(mapping)))
    with psycopg.connect(plain_address(served), autocommit=True) as owner:
        owner.execute(script)  # type: ignore[call-overload]

    told = run(served, "plan", "--mapping", str(mapping_file(tmp_path, mapping)))
    assert "version 2 of the mapping is recorded; `kvr sync apply` fills it" in told.stdout
    apply(served, mapping)

    check_tables(served, read_ledger(BLOCKS[:BEFORE]), BEFORE, mapping)
    assert query(served, "SELECT obj_description('consortium.event'::regclass, 'pg_class')") == [("50% 'e'",)]
    comment = "SELECT col_description('consortium.event'::regclass, ordinal_position) FROM information_schema.columns"
    found = query(served, f"{comment} WHERE table_name = 'event' AND column_name = 'content'")
    assert found == [("It's 100% new; \\ and \"",)]


def run(url: str, *arguments: str) -> Result:
    command = audit if arguments[0] == "operations" else sync
    return CliRunner().invoke(command, [*arguments, "--database", url])


def test_the_command_tells_what_it_did_and_leaves_an_entry(synced: str, tmp_path: Path) -> None:
    path = str(mapping_file(tmp_path, LOOSENING["both, and a column"]))

    refused = run(synced, "apply", "--mapping", path, "--environment", "production")
    done = run(synced, "apply", "--mapping", path, "--why", "owners are asked for")
    again = run(synced, "apply", "--mapping", path, "--json")
    (entry,) = json.loads(run(synced, "operations", "--json").stdout)

    assert (refused.exit_code, "in production say why" in refused.stderr) == (1, True)
    assert "version 2 of the mapping is in force" in done.stdout
    assert "request: made again" in done.stdout
    assert json.loads(again.stdout)["is_new"] is False
    assert (entry["operation"], entry["reason"]) == ("apply", "owners are asked for")
    assert entry["detail"]["version"] == 2


def test_tables_without_a_mapping_are_refused(database_url: str, tmp_path: Path) -> None:
    bring(database_url, tmp_path, BLOCKS[:BEFORE])

    with pytest.raises(errors.ConfigurationError, match="give the mapping at the first run"):
        apply(database_url, BASE)
    with by_hand(database_url) as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM sync_mapping").scalar() == 0


ITEMS: Definition = {
    "kvr_mapping": 1,
    "tables": {
        "item": {
            "namespace": "ext",
            "key": {"composite": "item", "attributes": ["id"]},
            "columns": {"id": {"from": "key.id", "type": "text"}},
        }
    },
}


def test_a_table_for_keys_that_another_one_refused_takes_them_out_of_its_quarantine(
    database_url: str, tmp_path: Path
) -> None:
    factory = ChainFactory()
    part = encode_composite_key("item", ["a", "b"]).decode()
    for write in (put(encode_composite_key("item", ["a"]).decode(), b"1"), put(part, b"2"), put(part, b"3")):
        factory.block([TransactionSpec([write])])
    factory.block([TransactionSpec([delete(part)])])
    bring(database_url, tmp_path, tuple(factory.blocks), mapping_file(tmp_path, ITEMS, "items"))
    assert query(database_url, "SELECT reason FROM ledger_quarantine") == [("key_attributes",)] * 2
    definition = copy.deepcopy(ITEMS)
    definition["tables"]["item_part"] = {
        "namespace": "ext",
        "key": {"composite": "item", "attributes": ["id", "part"]},
        "columns": {"part": {"from": "key.part", "type": "text"}},
    }

    apply(database_url, definition)

    check_tables(database_url, read_ledger(factory.blocks), len(factory.blocks), definition)
    assert query(database_url, "SELECT count(*) FROM ledger_quarantine") == [(0,)]
