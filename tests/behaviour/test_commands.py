"""The commands `kvr sync` and `kvr audit`: what they print, for people and for machines, and how they end."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer
from typer.testing import CliRunner

from kvr_sync.jobs import SyncSettings, sync_once
from kvr_sync.main import audit, sync
from tests.support.chain_factory import ChainFactory, TransactionSpec, put
from tests.support.command import kvr
from tests.support.comparison import assert_tables_equal_oracle
from tests.support.recorded_chain import load_chain, write_records
from tests.support.tables import query

ROOT = Path(__file__).parents[2]
OUTCOMES = ROOT / "tests" / "support" / "outcomes.mapping.yaml"
SERVICE_WEEK = ROOT / "network" / "demo_data" / "service-week.mapping.yaml"
CHAIN = load_chain("fabric-3.1.5-raft")
WEEK = load_chain("fabric-3.1.5-service-week")
PIN = CHAIN.expected["genesis_sha256"]


class Answer(NamedTuple):
    status: int
    output: str
    errors: str

    @property
    def facts(self) -> Any:
        return json.loads(self.output)


def run(app: typer.Typer, *arguments: str | Path, **variables: str) -> Answer:
    result = CliRunner().invoke(app, [*map(str, arguments)], env={"COLUMNS": "200", **variables})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Answer(result.exit_code, result.stdout, result.stderr)


def codes_of(transactions: Sequence[dict[str, Any]]) -> dict[str, int]:
    names = [entry["code"] for entry in transactions]
    return {name: names.count(name) for name in names}


@pytest.fixture(scope="module")
def week_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    url = f"sqlite:///{tmp_path_factory.mktemp('commands')}/week.db"
    sync_once(SyncSettings(WEEK.path, url, SERVICE_WEEK))
    return url


# --- kvr sync replay


def test_replay_tells_in_words_what_it_did(database_url: str) -> None:
    answer = run(sync, "replay", CHAIN.path, "--database", database_url, "--mapping", OUTCOMES, "--pin", PIN)

    assert (answer.status, answer.errors) == (0, "")
    lines = answer.output.splitlines()
    assert lines[0].startswith("channel consortium: block 74, header hash ")
    assert lines[1] == "anchor: pinned"
    assert lines[2].startswith("75 blocks, 79 transactions in ")
    assert lines[2].endswith(" per second); 74 commit hashes verified")
    assert f"{58:>10}  VALID: accepted" in lines
    assert f"{3:>10}  MVCC_READ_CONFLICT: somebody else changed a key this transaction had read" in lines
    assert_tables_equal_oracle(database_url, CHAIN.blocks, OUTCOMES)


def test_replay_tells_machines_the_same(database_url: str) -> None:
    answer = run(sync, "replay", CHAIN.path, "--database", database_url, "--mapping", OUTCOMES, "--json")

    facts = answer.facts
    assert (answer.status, answer.errors) == (0, "")
    assert set(facts) == {
        "channel",
        "anchor",
        "checkpoint",
        "blocks",
        "transactions",
        "codes",
        "quarantined",
        "commit_hashes_verified",
        "seconds",
        "transactions_per_second",
    }
    assert (facts["channel"], facts["anchor"]) == ("consortium", "unpinned")
    assert (facts["blocks"], facts["transactions"], facts["commit_hashes_verified"]) == (75, 79, 74)
    assert facts["codes"] == codes_of(CHAIN.expected["transactions"])
    stored = query(database_url, "SELECT block_number, header_hash, commit_hash FROM ledger_checkpoint")
    assert [(row[0], bytes(row[1]).hex(), bytes(row[2]).hex()) for row in stored] == [
        tuple(facts["checkpoint"][name] for name in ("block_number", "header_hash", "commit_hash"))
    ]
    assert facts["quarantined"] == query(database_url, "SELECT count(*) FROM ledger_quarantine")[0][0]
    assert facts["seconds"] > 0
    assert facts["transactions_per_second"] == pytest.approx(79 / facts["seconds"], rel=0.1)


def test_replay_says_when_there_is_nothing_new(sqlite_url: str) -> None:
    run(sync, "replay", CHAIN.path, "--database", sqlite_url)

    words = run(sync, "replay", CHAIN.path, "--database", sqlite_url)
    facts = run(sync, "replay", CHAIN.path, "--database", sqlite_url, "--json").facts

    assert words.output.splitlines()[2:] == ["nothing new"]
    assert (facts["blocks"], facts["transactions"], facts["codes"], facts["checkpoint"]["block_number"]) == (
        0,
        0,
        {},
        74,
    )


def test_replay_counts_values_that_did_not_fit(week_url: str, sqlite_url: str) -> None:
    answer = run(sync, "replay", WEEK.path, "--database", sqlite_url, "--mapping", SERVICE_WEEK)

    assert answer.output.splitlines()[-1] == "4 values did not fit the mapping: see ledger_quarantine"
    assert query(week_url, "SELECT count(*) FROM ledger_quarantine") == [(4,)]


@pytest.mark.parametrize("form", [str.upper, str.lower])
def test_the_pin_may_be_written_in_capitals(form: Any, sqlite_url: str) -> None:
    facts = run(sync, "replay", CHAIN.path, "--database", sqlite_url, "--pin", form(PIN), "--json").facts

    assert facts["anchor"] == "pinned"


@pytest.mark.parametrize("pin", ["", "12", PIN[:-1], PIN + "00", "g" * 64, f"0x{PIN}", f" {PIN}", f"{PIN}\n"])
def test_a_pin_in_another_form_is_refused_before_anything_is_made(pin: str, sqlite_url: str) -> None:
    answer = run(sync, "replay", CHAIN.path, "--database", sqlite_url, "--pin", pin)

    assert answer == (1, "", "error[configuration_error]: --pin: a SHA-256 is 64 hexadecimal digits\n")
    assert not Path(sqlite_url.removeprefix("sqlite:///")).exists()


def test_an_error_in_words_goes_to_stderr_and_as_json_to_stdout(sqlite_url: str, tmp_path: Path) -> None:
    source = write_records(tmp_path / "blocks", CHAIN.blocks[1:3])

    words = run(sync, "replay", source, "--database", sqlite_url)
    machine = run(sync, "replay", source, "--database", sqlite_url, "--json")

    message = "block 0 was expected, block 1 came"
    assert words == (1, "", f"error[block_number]: {message}\n")
    assert (machine.status, machine.errors) == (1, "")
    assert machine.facts == {"error": {"code": "block_number", "message": message, "outcome": "not_applied"}}


# --- the database's address


def test_the_database_may_be_named_in_the_environment(sqlite_url: str) -> None:
    first = run(sync, "replay", CHAIN.path, "--json", KVR_DATABASE=sqlite_url)
    second = run(sync, "status", "--json", KVR_DATABASE=sqlite_url)
    third = run(audit, "history", "sbe", "--json", KVR_DATABASE=sqlite_url)

    assert [answer.status for answer in (first, second, third)] == [0, 0, 0]
    assert second.facts["checkpoint"] == first.facts["checkpoint"]


def test_the_option_counts_more_than_the_environment(sqlite_url: str, tmp_path: Path) -> None:
    other = tmp_path / "other.db"

    run(sync, "replay", CHAIN.path, "--database", sqlite_url, KVR_DATABASE=f"sqlite:///{other}")

    assert not other.exists()
    assert query(sqlite_url, "SELECT count(*) FROM ledger_block") == [(75,)]


@pytest.mark.parametrize(
    ("app", "arguments"),
    [(sync, ("replay", "blocks")), (sync, ("serve", "blocks")), (sync, ("status",)), (audit, ("history", "key"))],
    ids=["replay", "serve", "status", "history"],
)
def test_without_a_database_it_is_asked_for(app: typer.Typer, arguments: tuple[str, ...]) -> None:
    answer = run(app, *arguments)

    assert (answer.status, answer.output) == (2, "")
    assert "--database" in answer.errors
    assert "KVR_DATABASE" in answer.errors


# --- kvr sync serve (more in test_service.py)


@pytest.mark.parametrize("every", ["", "10", "0s", "0ms", "-1s", "1.5s", "s", "1d", "10 s", "9999999s"])
def test_an_interval_in_another_form_is_refused(every: str, sqlite_url: str) -> None:
    answer = run(sync, "serve", CHAIN.path, "--database", sqlite_url, f"--every={every}")

    message = "--every: a number and a unit, such as 500ms, 10s, 5m or 1h"
    assert answer == (1, "", f"error[configuration_error]: {message}\n")


# --- kvr sync status


def test_status_tells_where_the_tables_stand(database_url: str, tmp_path: Path) -> None:
    run(sync, "replay", write_records(tmp_path / "blocks", CHAIN.blocks[:30]), "--database", database_url, "--pin", PIN)
    summary = run(sync, "replay", CHAIN.path, "--database", database_url, "--json").facts

    facts = run(sync, "status", "--database", database_url, "--json").facts

    assert (facts["channel"], facts["anchor"]) == ("consortium", "pinned")
    assert facts["checkpoint"] == summary["checkpoint"]
    assert facts["codes"] == codes_of(CHAIN.expected["transactions"])
    assert facts["quarantined"] == 0
    assert [(run["run_id"], run["outcome"], run["first_block"], run["last_block"]) for run in facts["runs"]] == [
        (2, "ok", 30, 74),
        (1, "ok", 0, 29),
    ]
    first_header = query(database_url, "SELECT header_hash FROM ledger_block WHERE block_number = 0")
    assert facts["genesis_hash"] == bytes(first_header[0][0]).hex()


def test_status_tells_it_in_words(week_url: str) -> None:
    answer = run(sync, "status", "--database", week_url)

    lines = answer.output.splitlines()
    assert (answer.status, answer.errors) == (0, "")
    assert lines[0] == f"{week_url}, channel consortium"
    assert lines[1].startswith("block 498, header hash ")
    assert lines[2].startswith("anchor: unpinned, block 0 has header hash ")
    assert lines[3] == "510 transactions"
    assert f"{499:>10}  VALID: accepted" in lines
    assert "4 values in quarantine" in lines
    assert lines[-1].startswith("run 1 ok (")


def test_status_shows_a_run_that_failed_and_why(sqlite_url: str, tmp_path: Path) -> None:
    source = write_records(tmp_path / "blocks", [*CHAIN.blocks[:3], CHAIN.blocks[4]])
    run(sync, "replay", source, "--database", sqlite_url)

    (newest,) = run(sync, "status", "--database", sqlite_url, "--json").facts["runs"]
    words = run(sync, "status", "--database", sqlite_url).output

    assert (newest["outcome"], newest["error_code"]) == ("failed", "block_number")
    assert newest["error_text"] == "block 3 was expected, block 4 came"
    assert "3 blocks, " in words.splitlines()[-1]
    assert words.splitlines()[-1].endswith(": block_number: block 3 was expected, block 4 came")


def test_status_of_a_place_where_nothing_is_says_so(tmp_path: Path) -> None:
    path = tmp_path / "missing.db"

    answer = run(sync, "status", "--database", f"sqlite:///{path}")

    assert answer == (1, "", f"error[configuration_error]: sqlite:///{path}: there is no such file\n")
    assert not path.exists()


def test_a_database_of_several_channels_asks_which(postgresql_url: str, tmp_path: Path) -> None:
    for channel in ("first", "second"):
        factory = ChainFactory(channel=channel)
        factory.block([TransactionSpec([put("k", channel.encode())])])
        run(sync, "replay", write_records(tmp_path / channel, factory.blocks), "--database", postgresql_url)

    undecided = run(sync, "status", "--database", postgresql_url)
    missing = run(sync, "status", "--database", postgresql_url, "--channel", "third")
    chosen = run(audit, "history", "k", "--database", postgresql_url, "--channel", "second", "--json")

    assert undecided.status == 1
    assert undecided.errors.endswith("choose one with --channel: first, second\n")
    assert missing.status == 1
    assert "holds no blocks of channel third" in missing.errors
    assert [entry["value"] for entry in chosen.facts[0]["history"]] == ["second"]


# --- kvr audit history (more in test_history.py)


def test_history_tells_people_and_machines_the_same(week_url: str) -> None:
    words = run(audit, "history", "request/R-2026-0040", "--database", week_url)
    machine = run(audit, "history", "request/R-2026-0040", "--database", week_url, "--json")

    (found,) = machine.facts
    assert (words.status, words.errors, machine.status, machine.errors) == (0, "", 0, "")
    assert set(found) == {"key", "namespace", "collection", "key_hex", "history"}
    assert (found["key"], found["namespace"], found["collection"]) == ("request/R-2026-0040 in ext", "ext", None)
    assert bytes.fromhex(found["key_hex"]) == b"\0request\0R-2026-0040\0"
    lines = words.output.splitlines()
    assert lines[0] == f"Key {found['key']}: {len(found['history'])} writes"
    assert len(lines) == 1 + 2 * len(found["history"])
    for entry, line in zip(found["history"], lines[1::2], strict=True):
        assert f"block {entry['block_number']}, transaction {entry['tx_number']}, {entry['claimed_time']}" in line
        assert f"{entry['msp_id']} ({entry['subject']})" in line


def test_history_of_a_key_that_nobody_wrote_says_so_without_the_key(week_url: str) -> None:
    answer = run(audit, "history", "nobody's secret key", "--database", week_url, "--namespace", "ext")

    assert (answer.status, answer.output) == (1, "")
    assert answer.errors.startswith("error[configuration_error]: no transaction on channel consortium")
    assert "in namespace 'ext'" in answer.errors
    assert "secret" not in answer.errors


# --- help


@pytest.mark.parametrize(
    ("app", "arguments", "words"),
    [
        (sync, ("--help",), ("replay", "serve", "status")),
        (sync, ("replay", "--help"), ("FILE", "--database", "KVR_DATABASE", "--mapping", "--pin", "--json")),
        (sync, ("serve", "-h"), ("FILE", "--every", "500ms, 10s, 5m, 1h", "SIGTERM", "--pin")),
        (sync, ("status", "-h"), ("--database", "--channel", "--json")),
        (audit, ("--help",), ("history",)),
        (audit, ("history", "--help"), ("KEY", "--namespace", "--channel", "--json")),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_help_names_everything_there_is(app: typer.Typer, arguments: tuple[str, ...], words: tuple[str, ...]) -> None:
    answer = run(app, *arguments)

    assert answer.status == 0
    assert [word for word in words if word not in answer.output] == []


@pytest.mark.parametrize("arguments", [("frobnicate",), ("replay",), ("replay", "blocks", "--frobnicate")])
def test_wrong_usage_is_status_2(arguments: tuple[str, ...]) -> None:
    answer = run(sync, *arguments, KVR_DATABASE="sqlite:///never.db")

    assert (answer.status, answer.output) == (2, "")
    assert answer.errors


# --- as processes


def test_the_installed_command_replays_reports_and_audits(sqlite_url: str) -> None:
    replayed = kvr("sync", "replay", str(CHAIN.path), "--json", KVR_DATABASE=sqlite_url)
    reported = kvr("sync", "status", KVR_DATABASE=sqlite_url)
    audited = kvr("audit", "history", "sbe", KVR_DATABASE=sqlite_url)

    assert [(done.returncode, done.stderr) for done in (replayed, reported, audited)] == [(0, "")] * 3
    assert json.loads(replayed.stdout)["blocks"] == 75
    assert reported.stdout.startswith(f"{sqlite_url}, channel consortium\n")
    assert audited.stdout.startswith("Key sbe in ext: 4 writes\n")


def test_the_installed_command_ends_with_status_1_on_an_error(sqlite_url: str, tmp_path: Path) -> None:
    failed = kvr("sync", "replay", str(tmp_path / "missing"), "--database", sqlite_url)

    assert (failed.returncode, failed.stdout) == (1, "")
    assert failed.stderr == f"error[source_unavailable]: {tmp_path / 'missing'}: no such file or folder\n"
