"""Processes forked from one that has their imports: each stands for itself, and nothing is left of what forked them."""

import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from network import chaincode_process
from network.demo.live import SERVICE_MODULES
from network.embedded import start as embedded
from network.errors import ProcessStartError
from network.running import fork_server
from network.running.process import FORK_SERVER, MARK, ProcessTable
from tests.support.evidence import wait_until

PROGRAM = """
import gc, json, os, signal, subprocess, sys
imported_by = os.getpid()

def main():
    show = "import os; print(os.environ['KVR_NETWORK_PROCESS'])"
    told = {
        "pid": os.getpid(), "imported_by": imported_by, "arguments": sys.argv[1:], "folder": os.getcwd(),
        "session": os.getsid(0), "collects": gc.isenabled(), "input": sys.stdin.read(),
        "descriptors": sorted(os.listdir("/proc/self/fd")),
        "child": subprocess.check_output([sys.executable, "-c", show], text=True).strip(),
    }
    print(json.dumps(told), flush=True)
    signal.pause()

def fail():
    sys.exit("this is why")
"""


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ProcessTable]:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "forked_program.py").write_text(PROGRAM)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "code"))
    table = ProcessTable(tmp_path / "processes", secrets.token_hex(8))
    yield table
    table.end(timeout_seconds=0.1)
    assert table.running() == []


def told(table: ProcessTable, name: str) -> dict[str, Any]:
    """Give what a process says of itself."""
    answer: dict[str, Any] = json.loads(wait_until(lambda: table.log_tail(name), f"the first line of {name}"))
    return answer


def test_each_has_arguments_a_log_a_session_and_a_mark_of_its_own(table: ProcessTable, tmp_path: Path) -> None:
    long = "n" * 230
    with table.forking("forked_program"):
        first = table.start_python("first", "forked_program:main", ["--port", "1"], folder=tmp_path)
        second = table.start_python(long, "forked_program:main", [], folder=tmp_path / "processes")

    one, two = told(table, "first"), told(table, long)
    assert (one["pid"], two["pid"]) == (first, second)
    assert (one["session"], two["session"]) == (first, second)
    assert (one["arguments"], two["arguments"]) == (["--port", "1"], [])
    assert (one["folder"], two["folder"]) == (str(tmp_path), str(tmp_path / "processes"))
    assert one["child"].endswith("/first")
    assert two["child"].endswith(f"/{long}")
    assert one["input"] == ""
    assert one["collects"] is True
    assert len(one["descriptors"]) == 4  # the three of any process, and the listing itself
    assert [(process.name, process.pid) for process in table.running()] == [("first", first), (long, second)]


@pytest.mark.skipif(not fork_server.IS_POSSIBLE, reason="processes are not forked on this system")
def test_imports_are_shared(table: ProcessTable, tmp_path: Path) -> None:
    with table.forking("forked_program"):
        table.start_python("first", "forked_program:main", [], folder=tmp_path)
        table.start_python("second", "forked_program:main", [], folder=tmp_path)

    one, two = told(table, "first"), told(table, "second")
    assert one["imported_by"] == two["imported_by"] not in (one["pid"], two["pid"])


def test_one_is_found_and_ended_without_its_record(table: ProcessTable, tmp_path: Path) -> None:
    with table.forking("forked_program"):
        pid = table.start_python("lost", "forked_program:main", [], folder=tmp_path)
        kept = table.start_python("kept", "forked_program:main", [], folder=tmp_path)
    told(table, "kept")
    (tmp_path / "processes" / "lost.json").unlink()

    table.end(["lost"])

    assert [(process.name, process.pid) for process in table.running()] == [("kept", kept)]
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_what_forked_them_ends_with_the_block(table: ProcessTable, tmp_path: Path) -> None:
    with table.forking("forked_program"):
        table.start_python("first", "forked_program:main", [], folder=tmp_path)
        during = {process.name for process in table.running()}

    assert during == {"first", FORK_SERVER}
    assert {process.name for process in table.running()} == {"first"}


def test_what_forked_them_ends_when_the_command_is_killed(tmp_path: Path, table: ProcessTable) -> None:
    network_id = secrets.token_hex(8)
    code = f"""
import os, signal
from pathlib import Path
from network.running.process import ProcessTable
table = ProcessTable(Path({str(tmp_path / "processes")!r}), {network_id!r})
with table.forking():
    table.start_python("first", "forked_program:main", [], folder=Path({str(tmp_path)!r}))
    os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", code], check=False)

    assert killed.returncode == -signal.SIGKILL
    left = ProcessTable(tmp_path / "processes", network_id)
    wait_until(lambda: [process.name for process in left.running()] == ["first"], "the end of what forked it")
    left.end()
    assert table.running() == []


def test_one_that_cannot_run_says_why_in_its_own_log(table: ProcessTable, tmp_path: Path) -> None:
    with table.forking("no_such_module"):
        table.start_python("absent", "no_such_module:main", [], folder=tmp_path)
        table.start_python("failing", "forked_program:fail", [], folder=tmp_path)
        wait_until(lambda: not table.is_alive("absent") and not table.is_alive("failing"), "the end of both")

    assert "No module named 'no_such_module'" in table.log_tail("absent")
    assert table.log_tail("failing") == "this is why"


@pytest.mark.skipif(not fork_server.IS_POSSIBLE, reason="processes are not forked on this system")
def test_a_start_fails_by_name_when_nothing_can_be_forked_any_more(table: ProcessTable, tmp_path: Path) -> None:
    with table.forking():
        table.start_python("first", "forked_program:main", [], folder=tmp_path)
        (server,) = [process for process in table.running() if process.name == FORK_SERVER]
        os.kill(server.pid, signal.SIGKILL)

        with pytest.raises(ProcessStartError, match=r"forked_program:main cannot be started; .*fork-server\.log"):
            table.start_python("second", "forked_program:main", [], folder=tmp_path)


def test_without_it_a_process_imports_for_itself(
    table: ProcessTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fork_server, "IS_POSSIBLE", False)
    with table.forking("forked_program"):
        pid = table.start_python("first", "forked_program:main", ["--port", "1"], folder=tmp_path)

    answer = told(table, "first")
    assert (answer["pid"], answer["imported_by"], answer["arguments"]) == (pid, pid, ["--port", "1"])


def test_what_is_imported_for_them_starts_no_thread() -> None:
    # A fork has one thread: what others held or did at that moment would be lost to it.
    modules = (embedded.MODULE, chaincode_process.MODULE, *SERVICE_MODULES, "kvr_sync.main")
    code = f"import os, {', '.join(modules)}; print(len(os.listdir('/proc/self/task')))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert ended.stdout.strip() == "1"


def test_the_mark_is_where_the_system_shows_it(table: ProcessTable, tmp_path: Path) -> None:
    with table.forking():
        pid = table.start_python("first", "forked_program:main", [], folder=tmp_path)
    told(table, "first")

    environment = psutil.Process(pid).environ()
    assert environment[MARK].endswith("/first")
    assert environment["PYTHONPATH"] == str(tmp_path / "code")  # nothing beside it was written over
