"""Processes of a network: ended with all they started, found again without a record, never mistaken for another's."""

import json
import os
import secrets
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from network.errors import ProcessStartError
from network.running.process import ProcessTable
from tests.support.evidence import wait_until

STUBBORN = (
    "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True)\n"
    "while True: signal.pause()"
)
WITH_CHILD = (
    "import subprocess, sys, signal; child = subprocess.Popen([sys.executable, '-c', 'import signal; signal.pause()']);"
    " print(child.pid, flush=True); signal.pause()"
)
PATIENT = "import signal; print('ready', flush=True); signal.pause()"


@pytest.fixture
def table(tmp_path: Path) -> Iterator[ProcessTable]:
    table = ProcessTable(tmp_path / "processes", secrets.token_hex(8))
    yield table
    table.end(timeout_seconds=0.1)
    assert table.running() == []


@pytest.fixture
def start(table: ProcessTable, tmp_path: Path) -> Callable[[str, str], int]:
    def start(name: str, program: str) -> int:
        pid = table.start(name, [sys.executable, "-c", program], environment={}, folder=tmp_path)
        wait_until(lambda: table.log_tail(name), "its first line", seconds=20)
        return pid

    return start


def test_a_started_process_is_found_and_ended(table: ProcessTable, start: Callable[[str, str], int]) -> None:
    pid = start("peer0", PATIENT)

    found = table.recorded("peer0")
    assert found is not None
    assert (found.name, found.pid) == ("peer0", pid)
    assert found.memory_bytes > 1_000_000
    assert [process.pid for process in table.running()] == [pid]

    assert table.end() == []
    assert table.running() == []
    assert table.recorded("peer0") is None


def test_a_process_that_does_not_end_by_itself_is_killed_and_said(
    table: ProcessTable, start: Callable[[str, str], int]
) -> None:
    start("stubborn", STUBBORN)

    assert table.end(timeout_seconds=0.3) == ["stubborn"]
    assert table.running() == []


def test_what_a_process_started_ends_with_it(table: ProcessTable, start: Callable[[str, str], int]) -> None:
    start("parent", WITH_CHILD)
    child = int(table.log_tail("parent"))
    assert psutil.pid_exists(child)

    table.end()

    wait_until(lambda: not _alive(child), "the end of the child", seconds=20)


def test_a_process_whose_record_was_never_written_is_found(
    table: ProcessTable, start: Callable[[str, str], int], tmp_path: Path
) -> None:
    pid = start("lost", PATIENT)
    (tmp_path / "processes" / "lost.json").unlink()

    assert table.recorded("lost") is None
    assert [process.pid for process in table.running()] == [pid]
    table.end()
    assert not _alive(pid)


def test_a_process_whose_record_was_never_written_is_adopted(
    table: ProcessTable, start: Callable[[str, str], int], tmp_path: Path
) -> None:
    pid = start("lost", PATIENT)
    start("kept", PATIENT)
    (tmp_path / "processes" / "lost.json").unlink()

    assert table.adopt() == {"lost", "kept"}

    found = table.recorded("lost")
    assert found is not None
    assert found.pid == pid


def test_a_pid_that_another_process_has_now_is_not_ours(
    table: ProcessTable, start: Callable[[str, str], int], tmp_path: Path
) -> None:
    start("peer0", PATIENT)
    record = tmp_path / "processes" / "peer0.json"
    record.write_text(json.dumps({"pid": os.getpid(), "started": 1.0}))

    assert table.recorded("peer0") is None


def test_processes_of_another_network_are_left_alone(start: Callable[[str, str], int], tmp_path: Path) -> None:
    pid = start("peer0", PATIENT)
    other = ProcessTable(tmp_path / "other", secrets.token_hex(8))

    assert other.running() == []
    other.end()
    assert _alive(pid)


def test_only_the_named_processes_end(table: ProcessTable, start: Callable[[str, str], int]) -> None:
    start("first", PATIENT)
    kept = start("second", PATIENT)

    table.end(["first"])

    assert [process.pid for process in table.running()] == [kept]


def test_once_closed_nothing_is_started_any_more(
    table: ProcessTable, start: Callable[[str, str], int], tmp_path: Path
) -> None:
    kept = start("kept", PATIENT)
    start("first", PATIENT)

    table.close(keeping={"kept"})

    with pytest.raises(ProcessStartError, match="late is not started any more"):
        table.start("late", [sys.executable, "-c", PATIENT], environment={}, folder=tmp_path)
    with pytest.raises(ProcessStartError, match="late is not started any more"), table.forking():
        table.start_python("late", "os:abort", [], folder=tmp_path)
    assert [process.pid for process in table.running()] == [kept]


def test_ctrl_c_in_the_terminal_does_not_reach_it(start: Callable[[str, str], int]) -> None:
    pid = start("peer0", PATIENT)

    assert os.getpgid(pid) == pid != os.getpgrp()
    assert os.getsid(pid) == pid


def test_a_program_that_is_not_there_is_named(table: ProcessTable, tmp_path: Path) -> None:
    with pytest.raises(ProcessStartError, match=r"peer0: .*no-such-program"):
        table.start("peer0", [str(tmp_path / "no-such-program")], environment={}, folder=tmp_path)


def test_the_log_keeps_what_an_earlier_process_said(
    table: ProcessTable, start: Callable[[str, str], int], tmp_path: Path
) -> None:
    os.kill(start("peer0", PATIENT), signal.SIGKILL)
    wait_until(lambda: table.recorded("peer0") is None, "the end of the first", seconds=20)
    table.start("peer0", [sys.executable, "-c", "print('again')"], environment={}, folder=tmp_path)
    wait_until(lambda: "again" in table.log_tail("peer0"), "the second one's line", seconds=20)

    assert table.log_tail("peer0") == "ready\nagain"


def _alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
