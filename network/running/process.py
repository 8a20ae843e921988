"""Processes of a network: started in groups of their own, recorded, found again and ended without leaving orphans.

Programs of others are started directly, Python processes of ours forked from one that imported what they need.

Two things name a process of ours: the record written beside its log, and a variable in its environment. The record is
quick to read; the environment finds what a killed `up` could not record any more. A pid alone is never believed, since
the kernel gives it to others: the start time of the process goes with it.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple

import psutil

from network.errors import ProcessStartError
from network.running import fork_server
from network.running.atomic_file import write_file

MARK = "KVR_NETWORK_PROCESS"
"""Environment variable of every process of a network: `<network id>/<name>`."""
END_TIMEOUT_SECONDS = 10.0
"""How long a process has to end by itself after SIGTERM before its group is killed."""
LOOK_SECONDS = 0.01
LOG_TAIL_BYTES = 2000
FORK_SERVER: Final = "fork-server"
LONGEST_NAME: Final = 255
"""Bytes; a process has a log of its name, and no file's name is longer."""


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
        self._fork_server: subprocess.Popen[bytes] | None = None
        self._starting = threading.Lock()
        self._is_closed = False
        self.started: frozenset[str] = frozenset()
        """Names of what was started here so far."""

    def log_path(self, name: str) -> Path:
        """Give the file that both outputs of the process are appended to."""
        return self._folder / f"{name}.log"

    def start(self, name: str, arguments: Sequence[str], *, environment: Mapping[str, str], folder: Path) -> int:
        """Start a process in a session of its own, so that Ctrl-C in a terminal does not reach it, and record it.

        Gives its pid. `environment` is added to ours. Raises ProcessStartError when the program cannot be started.
        """
        return self._start(name, arguments, arguments, environment=environment, folder=folder)

    def _start(
        self,
        name: str,
        program: Sequence[str],
        arguments: Sequence[str],
        *,
        environment: Mapping[str, str],
        folder: Path,
    ) -> int:
        """Start `program`, and note `arguments` as what it was started with."""
        with self._start_allowed(name):
            child = self._popen(name, program, environment=environment, folder=folder)
            self._reap(name)
            self._children[name] = child
            self._note_start(name, child.pid, arguments)
        return child.pid

    @contextmanager
    def _start_allowed(self, name: str) -> Iterator[None]:
        with self._starting:
            if self._is_closed:
                raise ProcessStartError(f"{name} is not started any more: the processes of its network were ended")
            yield

    @contextmanager
    def forking(self, *modules: str) -> Iterator[None]:
        """Have the Python processes that are started inside the block share their imports, `modules` among them.

        The modules are imported from now on, beside what the block does. Where that is not possible each process
        imports for itself.
        """
        if not fork_server.IS_POSSIBLE:
            yield
            return
        arguments = [sys.executable, "-P", "-m", fork_server.MODULE, *modules]
        environment = {fork_server.ROOM: " " * LONGEST_NAME}
        self._fork_server = self._popen(
            FORK_SERVER, arguments, environment=environment, folder=self._folder, pipe=subprocess.PIPE
        )
        try:
            yield
        finally:
            server, self._fork_server = self._fork_server, None
            server.terminate()
            server.communicate()

    def start_python(self, name: str, entry: str, arguments: Sequence[str], *, folder: Path) -> int:
        """Start a process that calls a function (`entry`, module:function) with these arguments; else as `start`."""
        server = self._fork_server  # another thread may end the block
        if server is None:
            module, _, function = entry.partition(":")
            code = f"from {module} import {function}; {function}()"
            program = [sys.executable, "-P", "-c", code, *arguments]
            return self._start(name, program, arguments, environment={}, folder=folder)
        log = str(self.log_path(name))
        request = fork_server.ForkRequest(entry, arguments, MARK, self._mark(name), log, str(folder), os.getpid())
        with self._start_allowed(name):
            pid = self._fork(server, request)
            self._note_start(name, pid, arguments)
        return pid

    def _fork(self, server: subprocess.Popen[bytes], request: fork_server.ForkRequest) -> int:
        assert server.stdin is not None  # noqa: S101  # it was started with pipes
        assert server.stdout is not None  # noqa: S101
        try:
            server.stdin.write(request.encode())
            server.stdin.flush()
            return int(server.stdout.readline())
        except (OSError, ValueError) as error:
            tail = self.log_tail(FORK_SERVER)
            raise ProcessStartError(
                f"{request.entry} cannot be started; {self.log_path(FORK_SERVER)}:\n{tail}"
            ) from error

    def _popen(
        self,
        name: str,
        arguments: Sequence[str],
        *,
        environment: Mapping[str, str],
        folder: Path,
        pipe: int | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start a program; `pipe` is for its input and output in place of nothing and the log."""
        self._folder.mkdir(parents=True, exist_ok=True)
        inherited = {key: value for key, value in os.environ.items() if key != MARK}
        with self.log_path(name).open("ab") as log:
            try:
                return subprocess.Popen(  # noqa: S603  # the arguments are ours, no shell reads them
                    list(arguments),
                    stdin=subprocess.DEVNULL if pipe is None else pipe,
                    stdout=log if pipe is None else pipe,
                    stderr=log,
                    cwd=folder,
                    env={**inherited, MARK: self._mark(name), **environment},
                    start_new_session=True,
                )
            except OSError as error:
                raise ProcessStartError(f"{name}: {arguments[0]} cannot be started: {error.strerror}") from error

    def adopt(self) -> set[str]:
        """Record what runs without a record, as its starter was killed before it wrote one; give the names of all."""
        names = set()
        for name, process in self._marked():
            if name == FORK_SERVER:
                continue  # of a command that was killed, and about to end
            try:
                # Of several with one name the one that leads the group was started here, the others by it.
                if not self.is_alive(name) and os.getpgid(process.pid) == process.pid:
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
        process = self._recorded(name)
        try:
            return None if process is None else _running(name, process)
        except psutil.Error:
            return None  # it ended while we looked

    def is_alive(self, name: str) -> bool:
        """Tell whether its record names a process that is alive; quicker still."""
        return self._recorded(name) is not None

    def _recorded(self, name: str) -> psutil.Process | None:
        try:
            record = json.loads(self._record(name).read_bytes())
            process = psutil.Process(record["pid"])
            is_it = process.create_time() == record["started"] and process.status() != psutil.STATUS_ZOMBIE
        except (OSError, ValueError, KeyError, TypeError, psutil.Error):
            return None
        return process if is_it else None

    def arguments(self, name: str) -> list[str] | None:
        """Give the arguments that a process was started with, None when it does not run, or nobody noted them."""
        if not self.is_alive(name):
            return None
        found: list[str] | None = json.loads(self._record(name).read_bytes()).get("arguments")
        return found

    def log_tail(self, name: str) -> str:
        """Give the end of a process's log, for the error of a start that failed."""
        try:
            with self.log_path(name).open("rb") as log:
                log.seek(0, os.SEEK_END)
                log.seek(max(0, log.tell() - LOG_TAIL_BYTES))
                return log.read().decode("utf-8", "replace").strip()
        except FileNotFoundError:
            return ""

    def end(
        self,
        names: Sequence[str] | None = None,
        *,
        keeping: Collection[str] = (),
        timeout_seconds: float = END_TIMEOUT_SECONDS,
    ) -> list[str]:
        """End the named processes, or all but some; give the names of those that had to be killed.

        Each group gets SIGTERM, then SIGKILL after the timeout. Returns when none is left.
        """
        ending = [
            (name, process)
            for name, process in self._marked()
            if (names is None or name in names) and name not in keeping
        ]
        for _, process in ending:
            _signal_group(process, signal.SIGTERM)
            _signal_group(process, signal.SIGCONT)  # one that is paused hears nothing else
        alive = _left_after([process for _, process in ending], timeout_seconds)
        for process in alive:
            _signal_group(process, signal.SIGKILL)
        _left_after(alive, timeout_seconds)
        ended = {name for name, _ in ending}
        for name in list(self._children):
            self._reap(name, is_ended=name in ended)
        for name in ended:
            self._record(name).unlink(missing_ok=True)
        return sorted(name for name, process in ending if process in alive)

    def close(self, *, keeping: Collection[str]) -> None:
        """End all but some and refuse every later start here, so one that another thread is about to make is not left.

        A thread outlives the interruption of the event loop that waited for it.
        """
        with self._starting:
            self._is_closed = True
        self.end(keeping=keeping)

    def kill(self, name: str) -> None:
        """End a process at once, whatever it does; return when it is gone."""
        killed = [process for marked, process in self._marked() if marked == name]
        for process in killed:
            _signal_group(process, signal.SIGKILL)
        psutil.wait_procs(killed, timeout=END_TIMEOUT_SECONDS)
        self._reap(name, is_ended=True)
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

    def _note_start(self, name: str, pid: int, arguments: Sequence[str]) -> None:
        self._write_record(name, psutil.Process(pid), arguments)
        self.started |= {name}

    def _write_record(self, name: str, process: psutil.Process, arguments: Sequence[str] | None = None) -> None:
        started = process.create_time()  # a child that ended is a zombie, and has one too
        content = {"pid": process.pid, "started": started, "arguments": arguments}
        write_file(self._record(name), json.dumps(content).encode(), is_lasting=False)

    def _reap(self, name: str, *, is_ended: bool = False) -> None:
        """Take the exit status of an ended child of ours; one that lives on is nobody's child once we end.

        The status is there when the last thread has ended, a moment after the process counts as a zombie.
        """
        child = self._children.get(name)
        if child is None:
            return
        if is_ended:
            with suppress(subprocess.TimeoutExpired):
                child.wait(END_TIMEOUT_SECONDS)
        if child.poll() is not None:
            del self._children[name]

    def _record(self, name: str) -> Path:
        return self._folder / f"{name}.json"

    def _mark(self, name: str) -> str:
        return f"{self._network_id}/{name}"


def _running(name: str, process: psutil.Process) -> RunningProcess:
    is_paused = process.status() == psutil.STATUS_STOPPED
    return RunningProcess(name, process.pid, process.memory_info().rss, is_paused)


def _left_after(processes: Sequence[psutil.Process], timeout_seconds: float) -> list[psutil.Process]:
    """Wait until they have ended, at most so long; give those that have not.

    A zombie has ended: whose child it is, and when that one looks after it, is not for us to wait for.
    """
    deadline = time.monotonic() + timeout_seconds
    while left := [process for process in processes if _is_alive(process)]:
        if time.monotonic() >= deadline:
            break
        psutil.wait_procs(left, timeout=LOOK_SECONDS)
    return left


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _signal_group(process: psutil.Process, number: signal.Signals) -> None:
    """Signal the group that a process leads; a child that a process of ours started belongs to the same group."""
    try:
        os.killpg(os.getpgid(process.pid), number)
    except (ProcessLookupError, PermissionError):
        return
