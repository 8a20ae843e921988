"""Processes of a network: started in groups of their own, recorded, found again and ended without leaving orphans.

Two things name a process of ours: the record written beside its log, and a variable in its environment. The record is
quick to read; the environment finds what a killed `up` could not record any more. A pid alone is never believed, since
the kernel gives it to others: the start time of the process goes with it.
"""

import json
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import psutil

from network.errors import ProcessStartError
from network.running.atomic_file import write_file

MARK = "KVR_NETWORK_PROCESS"
"""Environment variable of every process of a network: `<network id>/<name>`."""
END_TIMEOUT_SECONDS = 10.0
"""How long a process has to end by itself after SIGTERM before its group is killed."""
LOG_TAIL_BYTES = 2000


class RunningProcess(NamedTuple):
    """A process of the network that is alive."""

    name: str
    pid: int
    """Also its process group: every process leads a group and a session of its own."""
    memory_bytes: int
    is_paused: bool
    """Whether it was stopped where it stands (SIGSTOP)."""


class ProcessTable:
    """The processes of one network.

    `folder` holds `<name>.json` (pid and start time) and `<name>.log` per process; `network_id` is the random name of
    the network that its processes carry in their environment.
    """

    def __init__(self, folder: Path, network_id: str) -> None:
        self._folder = folder
        self._network_id = network_id
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def log_path(self, name: str) -> Path:
        """Give the file that both outputs of the process are appended to."""
        return self._folder / f"{name}.log"

    def start(self, name: str, arguments: Sequence[str], *, environment: Mapping[str, str], folder: Path) -> int:
        """Start a process in a session of its own, so that Ctrl-C in a terminal does not reach it, and record it.

        Gives its pid. `environment` is added to ours. Raises ProcessStartError when the program cannot be started.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        with self.log_path(name).open("ab") as log:
            try:
                child = subprocess.Popen(  # noqa: S603  # the arguments are ours, no shell reads them
                    list(arguments),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=folder,
                    env={**os.environ, **environment, MARK: self._mark(name)},
                    start_new_session=True,
                )
            except OSError as error:
                raise ProcessStartError(f"{name}: {arguments[0]} cannot be started: {error.strerror}") from error
        self._reap(name)
        self._children[name] = child
        self._write_record(name, psutil.Process(child.pid))
        return child.pid

    def adopt(self) -> set[str]:
        """Record what runs without a record, as its starter was killed before it wrote one; give the names of all."""
        names = set()
        for name, process in self._marked():
            try:
                # Of several with one name the one that leads the group was started here, the others by it.
                if self.recorded(name) is None and os.getpgid(process.pid) == process.pid:
                    self._write_record(name, process)
            except (psutil.Error, ProcessLookupError):
                continue  # it ended while we looked
            names.add(name)
        return names

    def running(self) -> list[RunningProcess]:
        """Give the processes of the network that are alive, by name; none of them has to be recorded."""
        found = {}
        for name, process in self._marked():
            try:
                found[name, process.pid] = _running(name, process)
            except psutil.Error:
                continue  # it ended while we looked
        return [found[key] for key in sorted(found)]

    def recorded(self, name: str) -> RunningProcess | None:
        """Give one process if its record names a process that is alive: quick, for those who wait for it."""
        try:
            record = json.loads(self._record(name).read_bytes())
            process = psutil.Process(record["pid"])
            if process.create_time() != record["started"] or process.status() == psutil.STATUS_ZOMBIE:
                return None
            return _running(name, process)
        except (OSError, ValueError, KeyError, TypeError, psutil.Error):
            return None

    def arguments(self, name: str) -> list[str] | None:
        """Give the arguments that a recorded process was started with, None when it does not run."""
        process = self.recorded(name)
        try:
            return None if process is None else psutil.Process(process.pid).cmdline()
        except psutil.Error:
            return None

    def log_tail(self, name: str) -> str:
        """Give the end of a process's log, for the error of a start that failed."""
        try:
            with self.log_path(name).open("rb") as log:
                log.seek(0, os.SEEK_END)
                log.seek(max(0, log.tell() - LOG_TAIL_BYTES))
                return log.read().decode("utf-8", "replace").strip()
        except FileNotFoundError:
            return ""

    def end(self, names: Sequence[str] | None = None, *, timeout_seconds: float = END_TIMEOUT_SECONDS) -> list[str]:
        """End the named processes, or all; give the names of those that had to be killed.

        Each group gets SIGTERM, then SIGKILL after the timeout. Returns when none is left.
        """
        ending = [(name, process) for name, process in self._marked() if names is None or name in names]
        for _, process in ending:
            _signal_group(process, signal.SIGTERM)
            _signal_group(process, signal.SIGCONT)  # one that is paused hears nothing else
        _, alive = psutil.wait_procs([process for _, process in ending], timeout=timeout_seconds)
        for process in alive:
            _signal_group(process, signal.SIGKILL)
        psutil.wait_procs(alive, timeout=timeout_seconds)
        for name in list(self._children):
            self._reap(name)
        for name in {name for name, _ in ending}:
            self._record(name).unlink(missing_ok=True)
        return sorted(name for name, process in ending if process in alive)

    def kill(self, name: str) -> None:
        """End a process at once, whatever it does; return when it is gone."""
        killed = [process for marked, process in self._marked() if marked == name]
        for process in killed:
            _signal_group(process, signal.SIGKILL)
        psutil.wait_procs(killed, timeout=END_TIMEOUT_SECONDS)
        self._reap(name)
        self._record(name).unlink(missing_ok=True)

    def pause(self, name: str) -> None:
        """Stop a process where it stands."""
        self._signal(name, signal.SIGSTOP)

    def resume(self, name: str) -> None:
        """Let a process that was paused go on."""
        self._signal(name, signal.SIGCONT)

    def nudge(self, name: str) -> None:
        """Tell a process of ours to look at what it was asked (SIGHUP)."""
        self._signal(name, signal.SIGHUP)

    def _signal(self, name: str, number: signal.Signals) -> None:
        for marked, process in self._marked():
            if marked == name:
                _signal_group(process, number)

    def _marked(self) -> Iterator[tuple[str, psutil.Process]]:
        prefix = f"{self._network_id}/"
        for process in psutil.process_iter():
            try:
                mark = process.environ().get(MARK, "")
                if mark.startswith(prefix) and process.status() != psutil.STATUS_ZOMBIE:
                    yield mark.removeprefix(prefix), process
            except psutil.Error:
                continue  # of another user, or ended while we looked

    def _write_record(self, name: str, process: psutil.Process) -> None:
        started = process.create_time()  # a child that ended is a zombie, and has one too
        write_file(self._record(name), json.dumps({"pid": process.pid, "started": started}).encode())

    def _reap(self, name: str) -> None:
        """Take the exit status of an ended child of ours; one that lives on is nobody's child once we end."""
        child = self._children.get(name)
        if child is not None and child.poll() is not None:
            del self._children[name]

    def _record(self, name: str) -> Path:
        return self._folder / f"{name}.json"

    def _mark(self, name: str) -> str:
        return f"{self._network_id}/{name}"


def _running(name: str, process: psutil.Process) -> RunningProcess:
    is_paused = process.status() == psutil.STATUS_STOPPED
    return RunningProcess(name, process.pid, process.memory_info().rss, is_paused)


def _signal_group(process: psutil.Process, number: signal.Signals) -> None:
    """Signal the group that a process leads; a child that a process of ours started belongs to the same group."""
    try:
        os.killpg(os.getpgid(process.pid), number)
    except (ProcessLookupError, PermissionError):
        return
