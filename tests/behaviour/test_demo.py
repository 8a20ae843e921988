"""What `kvr demo recorded` promises: true tables, both forgeries refused, nothing of others touched."""

import json
import os
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from rich.cells import cell_len
from rich.console import Console

from network.demo import console
from network.demo import recorded as demo
from tests.support.recorded_chain import RecordedChain, load_chain

CLOSED = {"resolved", "closed"}
RUN_SECONDS = 150
"""Deadline of one demo on a machine that is busy with other tests; alone it takes a few seconds."""

pytestmark = pytest.mark.timeout(RUN_SECONDS + 30)


class Shown(NamedTuple):
    """A finished demo: where it ran, and what it printed."""

    home: Path
    output: str

    @property
    def database(self) -> Path:
        return self.home / "demo-data" / "service-week.db"


def run_kvr(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    plain = {name: value for name, value in os.environ.items() if name not in {"FORCE_COLOR", "TTY_COMPATIBLE"}}
    return subprocess.run(
        [sys.executable, "-P", "-m", "network.main", *arguments],
        cwd=home,
        env={**plain, "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        encoding="utf-8",
        timeout=RUN_SECONDS,
        check=False,
    )


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Shown:
    home = tmp_path_factory.mktemp("demo")
    ended = run_kvr(home, "demo", "recorded")
    assert (ended.returncode, ended.stderr) == (0, "")
    return Shown(home, ended.stdout)


@pytest.fixture(scope="module")
def week() -> RecordedChain:
    return load_chain("fabric-3.1.5-service-week")


def table_after(output: str, words: str) -> list[str]:
    """Give header, rule and rows of the table that follows a question."""
    after = output.split(words, 1)[1].splitlines()
    rule = next(number for number, line in enumerate(after) if line.strip() and not line.strip().strip("─"))
    end = next(number for number, line in enumerate(after) if number > rule and not line.strip())
    return after[rule - 1 : end]


def rows_after(output: str, words: str) -> list[list[str]]:
    """Give the cells of the table that follows a question; cells stand at least three spaces apart."""
    return [re.split(r" {3,}", row.strip()) for row in table_after(output, words)[2:]]


def documents(week: RecordedChain, kind: str) -> list[dict[str, Any]]:
    """Give the peer's own answers for the keys of a kind, as far as they are documents of the usual form."""
    found = []
    for key, value in week.state.items():
        if key.startswith(f"\0{kind}\0".encode()) and isinstance(value, bytes) and value.startswith(b"{"):
            document = json.loads(value)
            if kind != "request" or "location" in document:
                found.append(document)
    return found


def test_counts_transactions_by_code_as_the_peer_did(shown: Shown, week: RecordedChain) -> None:
    rows = rows_after(shown.output, "How did the network judge the transactions?")

    assert {row[0]: int(row[-1]) for row in rows} == week.expected["codes"]


def test_shows_open_requests_by_category_and_region_as_the_peers_state_has_them(
    shown: Shown, week: RecordedChain
) -> None:
    rows = rows_after(shown.output, "Which requests are still open, by category and region?")

    expected = Counter(
        (document["category"], document["location"]["region"])
        for document in documents(week, "request")
        if document["status"] not in CLOSED
    )
    assert {(row[0], row[1]): int(row[2]) for row in rows} == expected


def test_shows_the_customers_with_most_requests(shown: Shown, week: RecordedChain) -> None:
    rows = rows_after(shown.output, "Which customers have the most requests?")

    regions = {document["id"]: document["region"] for document in documents(week, "customer")}
    requests = Counter(document["customer"] for document in documents(week, "request"))
    ranking = sorted(requests, key=lambda customer: (-requests[customer], customer))
    assert [(row[0], row[2], int(row[3])) for row in rows] == [
        (customer, regions[customer], requests[customer]) for customer in ranking[: len(rows)]
    ]


def test_shows_every_refused_transaction_with_its_reason(shown: Shown, week: RecordedChain) -> None:
    rows = rows_after(shown.output, "Which transactions were refused?")

    refused = [(entry["block"], entry["tx"]) for entry in week.expected["transactions"] if entry["code"] != "VALID"]
    assert [(int(row[0]), int(row[1])) for row in rows] == refused
    assert {row[-1] for row in rows} == {
        "somebody else changed a key this transaction had read",
        "the endorsements do not satisfy the endorsement policy",
    }


def test_shows_what_was_quarantined_and_why(shown: Shown) -> None:
    rows = rows_after(shown.output, "do not fit the tables?")

    assert [row[3] for row in rows] == ["wrong_type", "not_json", "key_contradiction", "out_of_range"]


def test_tells_the_history_of_a_request_with_its_refused_attempts(shown: Shown) -> None:
    steps = rows_after(shown.output, "What happened to that request: who, when, in which block?")
    told = shown.output.split("$ kvr audit history ", 1)[1].split("\n===", 1)[0]

    assert steps[0][3] == "entered as open"
    assert [row[0] for row in steps] == re.findall(r"block (\d+), .*\n +wrote", told)
    assert "REFUSED, MVCC_READ_CONFLICT" in told


@pytest.mark.parametrize(("name", "code"), [("forged-amount", "data_hash"), ("forged-verdict", "commit_hash")])
def test_forged_copy_differs_in_one_byte_and_is_refused_by_block_and_cause(
    shown: Shown, week: RecordedChain, name: str, code: str
) -> None:
    found = re.search(rf"^REFUSED: error\[{code}\]: block (\d+): ", shown.output, re.MULTILINE)

    assert found is not None
    block = int(found[1])
    original = b"".join(len(content).to_bytes(4, "big") + content for content in week.blocks)
    forged = (shown.home / "demo-data" / f"{name}.blocks").read_bytes()
    changed = [place for place, (a, b) in enumerate(zip(original, forged, strict=True)) if a != b]
    assert len(changed) == 1
    start = sum(4 + len(content) for content in week.blocks[:block])
    assert start < changed[0] < start + 4 + len(week.blocks[block])
    with closing(sqlite3.connect(shown.home / "demo-data" / f"{name}.db")) as connection:
        assert connection.execute("SELECT block_number FROM ledger_checkpoint").fetchall() == [(block - 1,)]


def test_rests_on_the_recorded_genesis_block(shown: Shown, week: RecordedChain) -> None:
    assert f"--pin {week.expected['genesis_sha256']}" in shown.output
    assert "anchor: pinned" in shown.output


def test_ships_the_chain_that_was_recorded(week: RecordedChain) -> None:
    assert (console.DATA / demo.BLOCKS).read_bytes() == week.path.read_bytes()


def test_second_run_prints_the_same_but_for_the_speed(shown: Shown) -> None:
    ended = run_kvr(shown.home, "demo", "recorded")

    def without_speed(text: str) -> str:
        return re.sub(r"in [\d.]+ s \([\d,]+ transactions per second\)", "in X s", text)

    assert (ended.returncode, ended.stderr) == (0, "")
    assert without_speed(ended.stdout) == without_speed(shown.output)
    assert without_speed(ended.stdout) != ended.stdout


@pytest.mark.parametrize("group", ["sync status", "audit history"])
def test_ends_with_commands_that_work(shown: Shown, group: str) -> None:
    ending = shown.output.split("=== ")[-1].splitlines()
    command = next(line.strip() for line in ending if f"kvr {group}" in line)

    # As it is shown: no virtual environment need be active.
    ended = subprocess.run(
        shlex.split(command), cwd=shown.home, capture_output=True, encoding="utf-8", timeout=RUN_SECONDS, check=False
    )

    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout


def test_output_that_is_no_terminal_is_plain(shown: Shown) -> None:
    assert {character for character in shown.output if not character.isprintable()} == {"\n"}


def test_columns_align_across_chinese_and_latin_text(shown: Shown) -> None:
    table = table_after(shown.output, "Which customers have the most requests?")

    assert len({cell_len(line) for line in table}) == 1
    assert len({len(line) for line in table}) > 1


@pytest.fixture
def changeable(shown: Shown, tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """Give a copy of the demo's database, open for changes and as the demo reads it."""
    with closing(sqlite3.connect(shutil.copy(shown.database, tmp_path))) as connection:
        connection.row_factory = sqlite3.Row
        yield connection


def tables_of(connection: sqlite3.Connection) -> str:
    screen = StringIO()
    plain = Console(file=screen, width=console.PLAIN_COLUMNS, highlight=False, markup=False)
    demo.show_tables(plain, connection)
    return screen.getvalue()


@pytest.mark.parametrize(
    "change",
    [
        """UPDATE customers SET region = 'Elsewhere' WHERE id =
           (SELECT customer FROM service_requests GROUP BY customer ORDER BY count(*) DESC, customer LIMIT 1)""",
        """UPDATE service_requests SET location_region = 'Elsewhere' WHERE kvr_key_id =
           (SELECT min(kvr_key_id) FROM service_requests WHERE status = 'open')""",
        "UPDATE ledger_validation_code SET reason = 'Elsewhere' WHERE name = 'MVCC_READ_CONFLICT'",
        "UPDATE ledger_quarantine SET detail = 'Elsewhere' WHERE reason = 'not_json'",
        "UPDATE ledger_checkpoint SET anchor = 'Elsewhere'",
    ],
    ids=["customer", "request", "reason", "quarantine", "anchor"],
)
def test_changing_one_stored_value_changes_what_is_shown(changeable: sqlite3.Connection, change: str) -> None:
    before = tables_of(changeable)

    changeable.execute(change)

    assert "Elsewhere" not in before
    assert "Elsewhere" in tables_of(changeable)


def test_shows_control_characters_from_the_chain_as_harmless(changeable: sqlite3.Connection) -> None:
    changeable.execute("UPDATE ledger_quarantine SET detail = 'a\x1b[2Jb\nc' WHERE reason = 'not_json'")

    assert "a\ufffd[2Jb\ufffdc" in tables_of(changeable)


def test_neither_program_nor_questions_hold_what_was_recorded(shown: Shown) -> None:
    sources = [Path(demo.__file__), *Path(demo.__file__).parents[1].joinpath("demo_data").glob("*.sql")]
    text = "\n".join(source.read_text("utf-8") for source in sources)
    with closing(sqlite3.connect(shown.database)) as connection:
        recorded = {
            str(value)
            for query in (
                "SELECT id FROM customers UNION SELECT region FROM customers UNION SELECT msp_id FROM ledger_identity",
                "SELECT id FROM service_requests UNION SELECT title FROM service_requests",
                "SELECT resolution FROM service_requests WHERE resolution IS NOT NULL",
                "SELECT location_region FROM service_requests",
                "SELECT max(amount_cents) FROM service_requests",
                "SELECT tx_id FROM ledger_transaction UNION SELECT lower(hex(header_hash)) FROM ledger_block",
            )
            for (value,) in connection.execute(query)
        }

    assert len(recorded) > 1_000
    assert {value for value in recorded if value in text} == set()


def test_refuses_a_folder_that_it_did_not_make(tmp_path: Path) -> None:
    (tmp_path / "demo-data").mkdir()
    (tmp_path / "demo-data" / "service-week.db").write_text("mine")

    ended = run_kvr(tmp_path, "demo", "recorded")

    assert ended.returncode == 1
    assert ended.stderr.startswith("error[demo]: demo-data was not made by this demo and is left alone")
    assert [path.name for path in tmp_path.rglob("*")] == ["demo-data", "service-week.db"]
    assert (tmp_path / "demo-data" / "service-week.db").read_text() == "mine"


def test_deletes_only_what_it_made_itself(tmp_path: Path) -> None:
    demo.make_folder(tmp_path / "demo")
    (tmp_path / "demo" / "service-week.db-wal").write_text("old")
    (tmp_path / "demo" / "letter.txt").write_text("mine")

    demo.make_folder(tmp_path / "demo")

    assert sorted(path.name for path in (tmp_path / "demo").iterdir()) == sorted(
        [demo.MARKER, demo.BLOCKS, demo.MAPPING, "letter.txt"]
    )


def test_takes_an_empty_folder(tmp_path: Path) -> None:
    demo.make_folder(tmp_path)

    assert (tmp_path / demo.BLOCKS).is_file()


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("file/demo", "file/demo.* cannot be written: Not a directory"),
        ("missing/demo", "missing/demo cannot be written: No such file or directory"),
        ("what?", "must neither begin with '-' nor hold '?'"),
        ("file", "cannot be written: Not a directory"),
    ],
)
def test_names_the_folder_that_cannot_be_used(tmp_path: Path, name: str, told: str) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(console.DemoError, match=told):
        demo.make_folder(tmp_path / name)


def refused_output(code: str, message: str) -> str:
    return json.dumps({"error": {"code": code, "message": message, "outcome": "not_applied"}})


@pytest.mark.parametrize(
    ("ended", "told"),
    [
        (console.Ended(0, '{"anchor": "pinned", "blocks": 9}', ""), "not refused"),
        (console.Ended(1, "", "Traceback"), "not refused as it has to be: Traceback"),
        (console.Ended(1, refused_output("sink_full", "block 7: no space"), ""), "not for data_hash"),
        (console.Ended(1, refused_output("data_hash", "block 77: wrong"), ""), "not for data_hash at block 7:"),
    ],
    ids=["accepted", "crashed", "another-cause", "another-block"],
)
def test_fails_unless_a_forged_copy_is_refused_for_its_cause(ended: console.Ended, told: str) -> None:
    with pytest.raises(console.DemoError, match=told):
        demo.show_refusal(Console(file=StringIO()), demo.Refusal("data_hash", 7), ended)


@pytest.mark.parametrize("stands_at", [7, 5])
def test_fails_unless_the_forged_copy_stopped_right_before_the_forged_block(stands_at: int) -> None:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.row_factory = sqlite3.Row
        rows = connection.execute('SELECT ? AS "last block"', (stands_at,)).fetchall()

    with pytest.raises(console.DemoError, match="after block 7 was refused, the database stands at block"):
        demo.check_nothing_applied(demo.Refusal("data_hash", 7), rows)


def test_fails_when_the_recording_is_not_accepted() -> None:
    ended = console.Ended(1, refused_output("block_signature", "block 3: nobody signed"), "")

    with pytest.raises(console.DemoError, match=r"the recording was not accepted: error\[block_signature\]: block 3"):
        demo.show_replay(Console(file=StringIO()), ended)


def test_fails_when_the_replay_rests_on_no_pin() -> None:
    report = {"anchor": "unpinned", "blocks": 3, "transactions": 3, "seconds": 1.0, "transactions_per_second": 3.0}

    with pytest.raises(console.DemoError, match="pinned block 0"):
        demo.show_replay(Console(file=StringIO()), console.Ended(0, json.dumps(report), ""))


def test_names_the_command_that_is_not_installed() -> None:
    with pytest.raises(console.DemoError, match="this installation has no command kvr nonsense"):
        console.load_group("nonsense")
