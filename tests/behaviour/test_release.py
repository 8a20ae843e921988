"""Values released from the quarantine once the mapping fits them: as if they never had been there."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result
from sqlalchemy import text
from typer.testing import CliRunner

from kvr_sync import errors
from kvr_sync.jobs import SyncSettings, sync_once
from kvr_sync.main import audit, sync
from kvr_sync.mapping.definition import to_json
from kvr_sync.mapping.validation import read_mapping
from kvr_sync.store.operation_log import Operation
from kvr_sync.table_operations import TableOperation, release_quarantine
from tests.support.chain_factory import ChainFactory, TransactionSpec, WriteSpec, delete, put, set_metadata
from tests.support.mapped_layer import CHANNEL, FeedReader, by_hand
from tests.support.oracle import read_ledger
from tests.support.oracle_tables import expected_tables
from tests.support.recorded_chain import write_records
from tests.support.tables import check_feed, columns_of, query, read_mapped

ASKED = Operation("release", "a test")
DEFINITION = yaml.safe_load(
    """
kvr_mapping: 1
tables:
  request:
    namespace: ext
    key: {prefix: r}
    columns:
      id: {from: key.rest, type: text, required: true}
      status: {json: status, type: enum, values: [open, closed]}
      amount: {json: amount, type: integer}
    children:
      request_tag: {each: tags, columns: {tag: {from: element, type: text, required: true}}}
  number:
    namespace: ext
    key: {prefix: "n"}
    columns: {content: {from: value, type: integer}}
"""
)
CANARY = "canary-4711"


def chain(*more: list[WriteSpec]) -> tuple[bytes, ...]:
    """Make a chain, which begins in the same way whatever comes after."""
    factory = ChainFactory()
    for writes in (
        [put("r1", b'{"status":"open","tags":["a"]}'), put("r2", b'{"status":"lost","tags":["b"]}'), put("n1", b"x")],
        [put("r1", b'{"status":"lost","tags":["c","d"]}'), put("r3", b'{"status":"lost"}')],
        [put("r3", b'{"status":"closed"}'), put("r4", b'{"status":"lost"}')],
        [delete("r4"), put("r5", f'{{"status":"lost","amount":"{CANARY}"}}'.encode())],
        [put("r6", b'{"status":"lost","amount":1}'), set_metadata("r2", {"VALIDATION_PARAMETER": b"policy"})],
        [put("r6", f'{{"status":"lost","amount":"{CANARY}"}}'.encode())],
        *more,
    ):
        factory.block([TransactionSpec([write]) for write in writes])
    return tuple(factory.blocks)


BLOCKS = chain()
LAST = len(BLOCKS) - 1


def definition(values: tuple[str, ...]) -> dict[str, Any]:
    """Give the mapping with these values of the enumeration."""
    changed: dict[str, Any] = copy.deepcopy(DEFINITION)
    changed["tables"]["request"]["columns"]["status"]["values"] = list(values)
    return changed


@pytest.fixture
def synced(database_url: str, tmp_path: Path) -> str:
    mapping = tmp_path / "narrow.mapping.yaml"
    mapping.write_text(json.dumps(DEFINITION))
    sync_once(SyncSettings(write_records(tmp_path / "blocks", BLOCKS), database_url, mapping))
    return database_url


@pytest.fixture
def mended(synced: str) -> str:
    """Give the same tables under a mapping that has one more value of the enumeration."""
    mapping = read_mapping(json.dumps(definition(("open", "closed", "lost"))).encode(), "wide")
    with by_hand(synced) as connection:
        statement = text("UPDATE sync_mapping SET digest = :digest, content = :content")
        connection.execute(statement, {"digest": mapping.digest, "content": to_json(mapping)})
    return synced


def release(url: str, table: str | None = None, key: str | None = None) -> TableOperation:
    return release_quarantine(url, CHANNEL, table, key, ASKED)


def mapped_rows(url: str) -> dict[str, list[tuple[Any, ...]]]:
    """Give the rows of all mapped tables, but for the numbers of changes."""
    found = {}
    for name in ("request", "request_tag", "number", "request_history", "request_tag_history", "number_history"):
        listed = ", ".join(f'"{column}"' for column in columns_of(url, name) if column != "kvr_change_id")
        found[name] = sorted(query(url, f"SELECT {listed} FROM {name}"), key=repr)  # noqa: S608
    return found


def entries(url: str) -> dict[tuple[str, int], tuple[str | None, int | None]]:
    """Give how and when each entry was closed, by key and block."""
    rows = query(
        url,
        "SELECT k.key, q.block_number, q.closed_by, q.closed_block FROM ledger_quarantine q"
        " JOIN ledger_key k ON k.key_id = q.key_id",
    )
    return {(bytes(row[0]).decode(), row[1]): (row[2], row[3]) for row in rows}


def test_what_fits_now_is_applied_as_if_it_never_had_been_in_quarantine(mended: str) -> None:
    before = entries(mended)
    reader = FeedReader(mended, "request").read()

    done = release(mended)

    expected = expected_tables(read_ledger(BLOCKS), definition(("open", "closed", "lost")))
    for name, found in read_mapped(mended, DEFINITION).items():
        assert (found.current, found.history) == (expected[name].current, expected[name].history)
        assert found.children == expected[name].children
    assert sorted(query(mended, "SELECT id, status FROM request")) == [
        ("1", "lost"), ("2", "lost"), ("3", "closed"), ("6", "lost"),
    ]  # fmt: skip
    released = ("released", LAST)
    assert before == {
        ("r2", 1): (None, None), ("n1", 1): (None, None), ("r1", 2): (None, None), ("r3", 2): ("overwritten", 3),
        ("r4", 3): ("deleted", 4), ("r5", 4): (None, None), ("r6", 5): (None, None), ("r2", 5): (None, None),
        ("r6", 6): (None, None),
    }  # fmt: skip
    assert entries(mended) == {
        ("r2", 1): released, ("n1", 1): (None, None), ("r1", 2): released, ("r3", 2): released,
        ("r4", 3): released, ("r5", 4): (None, None), ("r6", 5): released, ("r2", 5): released,
        ("r6", 6): (None, None),
    }  # fmt: skip
    assert reader.read().rows == reader.table()
    assert set(reader.kinds) == {"release"}
    assert [one.released for one in done.tables] == [6, 0]
    assert done.quarantined == {("request", "wrong_type"): 2, ("number", "wrong_type"): 1}


def test_a_second_release_finds_nothing_to_do(mended: str) -> None:
    release(mended)
    reader = FeedReader(mended, "request").read()
    before = (mapped_rows(mended), entries(mended))

    done = release(mended)

    assert [(one.released, one.changes, one.rows, one.versions) for one in done.tables] == [(0, 0, 0, 0)] * 2
    assert (mapped_rows(mended), entries(mended)) == before
    assert reader.read().kinds == []


def test_one_key_is_released_and_the_others_stay(mended: str) -> None:
    release(mended, "request", "r2")

    assert sorted(query(mended, "SELECT id, status FROM request")) == [("1", "open"), ("2", "lost"), ("3", "closed")]
    assert [place for place, (by, _) in entries(mended).items() if by == "released"] == [("r2", 1), ("r2", 5)]
    check_feed(mended, "request", children=["request_tag"])


def test_nothing_is_released_while_the_mapping_is_what_it_was(synced: str) -> None:
    before = (mapped_rows(synced), entries(synced))

    assert [one.released for one in release(synced).tables] == [0, 0]

    assert (mapped_rows(synced), entries(synced)) == before


def test_a_later_write_finds_the_released_row(mended: str, tmp_path: Path) -> None:
    release(mended)

    longer = chain([put("r2", b'{"status":"closed"}'), put("r6", b'{"status":"open"}'), delete("r1")])
    sync_once(SyncSettings(write_records(tmp_path / "blocks", longer), mended))

    assert sorted(query(mended, "SELECT id, status FROM request")) == [("2", "closed"), ("3", "closed"), ("6", "open")]
    assert entries(mended)["r6", 6] == ("overwritten", LAST + 1)
    check_feed(mended, "request", children=["request_tag"])


def told(url: str, *arguments: str) -> Result:
    command = audit if arguments[0] == "operations" else sync
    return CliRunner().invoke(command, [*arguments, "--database", url])


def test_the_command_counts_what_left_and_what_stays_without_showing_values(mended: str) -> None:
    refused = told(mended, "quarantine", "release", "--environment", "production")
    strange = told(mended, "quarantine", "release", "request", "r77")
    done = told(mended, "quarantine", "release", "request", "--why", "one status more")
    again = told(mended, "quarantine", "release", "--json")
    logged = json.loads(told(mended, "operations", "--json").stdout)

    assert (refused.exit_code, "in production say why" in refused.stderr) == (1, True)
    assert (strange.exit_code, "nothing of key 'r77' of table 'request'" in strange.stderr) == (1, True)
    assert f"6 values released, at block {LAST}" in done.stdout
    assert "request: 6 released, 4 changes announced" in done.stdout
    assert "request: 2 in quarantine: a value is of another type than its column" in done.stdout
    facts = json.loads(again.stdout)
    assert [one["released"] for one in facts["tables"]] == [0, 0]
    assert {(one["table"], one["open"]) for one in facts["quarantined"]} == {("request", 2), ("number", 1)}
    assert [(entry["operation"], entry["reason"]) for entry in logged] == [
        ("release", None),
        ("release", "one status more"),
    ]
    assert logged[1]["detail"]["tables"] == {"request": {"changes": 4, "released": 6}}
    for output in (done, again, strange):
        assert CANARY not in output.output


def test_a_key_that_never_was_in_quarantine_is_refused(mended: str) -> None:
    with pytest.raises(errors.ConfigurationError, match="was ever in quarantine"):
        release(mended, "request", "r99")
