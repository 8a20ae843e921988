"""What `kvr demo` promises: a live week becomes tables of two organisations, and nothing is left running."""

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest

from network.demo.week import CUSTOMER, DAYS, SERVICE, scripted_week
from network.running.process import MARK

KVR = "from network.main import main; main()"
SECONDS = 120


class Shown(NamedTuple):
    home: Path
    output: str
    status: int

    def ask(self, msp_id: str, statement: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.home / "demo-live" / f"{msp_id}.db")) as connection:
            return connection.execute(statement).fetchall()


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Shown:
    home = tmp_path_factory.mktemp("live-demo")
    # In a group of its own: whatever it leaves running is found by the mark, not taken for a child of the test.
    ended = subprocess.run(
        [sys.executable, "-P", "-c", KVR, "demo"],
        cwd=home,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
        env={**os.environ, "PYTHONWARNINGS": "error"},
    )
    return Shown(home, ended.stdout + ended.stderr, ended.returncode)


def test_it_ends_well(shown: Shown) -> None:
    assert shown.status == 0, shown.output
    assert "=== All as it should be" in shown.output


def test_both_organisations_hold_every_customer_and_request_of_the_script(shown: Shown) -> None:
    week = scripted_week()
    list(week.days())

    for msp_id in (SERVICE, CUSTOMER):
        assert shown.ask(msp_id, "SELECT count(*) FROM customers") == [(week.customers,)]
        assert shown.ask(msp_id, "SELECT count(*) FROM service_requests") == [(week.requests,)]
    assert shown.ask(SERVICE, "SELECT max(block_number) FROM ledger_block") == shown.ask(
        CUSTOMER, "SELECT max(block_number) FROM ledger_block"
    )


def test_every_block_is_verified_and_pinned(shown: Shown) -> None:
    ((blocks, verified),) = shown.ask(SERVICE, "SELECT count(*), sum(commit_hash_verified) FROM ledger_block")

    assert isinstance(blocks, int)
    assert verified == blocks - 1 > 10
    assert shown.ask(SERVICE, "SELECT anchor FROM ledger_checkpoint") == [("pinned",)]


def test_private_profiles_are_with_their_members_alone(shown: Shown) -> None:
    week = scripted_week()
    list(week.days())

    names = {str(name) for (name,) in shown.ask(SERVICE, "SELECT name FROM customer_profiles")}
    assert shown.ask(SERVICE, "SELECT count(*) FROM customer_profiles") == [(len(week.profiles),)]
    assert shown.ask(CUSTOMER, "SELECT count(*) FROM customer_profiles") == [(0,)]
    assert len(names) > 3
    for path in (shown.home / "demo-live").glob(f"{CUSTOMER}.db*"):
        content = path.read_bytes()
        assert not [name for name in names if name.encode() in content]
    customers_peer = shown.home / "demo-live" / "network" / "embedded" / "peer0.customer"
    files = [path for path in customers_peer.rglob("*") if path.is_file()]
    assert len(files) > 1
    for path in files:
        content = path.read_bytes()
        assert not [name for name in names if name.encode() in content], path


def test_conflicts_were_recorded_and_changed_nothing(shown: Shown) -> None:
    refused = shown.ask(
        SERVICE,
        "SELECT v.name, count(*) FROM ledger_transaction t JOIN ledger_validation_code v ON v.code = t.validation_code "
        "WHERE v.name <> 'VALID' GROUP BY v.name",
    )

    assert dict(refused).keys() == {"MVCC_READ_CONFLICT"}
    assert f"{dict(refused)['MVCC_READ_CONFLICT']} x 409" in shown.output


def test_wrong_department_and_bad_input_are_refused_each_day(shown: Shown) -> None:
    assert f"{len(DAYS)} x 400" in shown.output
    assert f"{len(DAYS)} x 403" in shown.output


def test_nothing_is_left_running(shown: Shown) -> None:
    root = str(shown.home)
    left = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) and root in " ".join([process.cwd(), *process.cmdline()]):
                left.append(process.pid)
        except psutil.Error:
            continue
    assert not left


def test_the_week_is_the_same_for_the_same_seed() -> None:
    assert list(scripted_week().days()) == list(scripted_week().days())
    assert list(scripted_week().days()) != list(scripted_week(8).days())
