"""Running a network: up, down, status, destroy. The same for embedded and native networks.

What runs is never guessed from files: processes are found by what they carry in their environment, so whatever was
interrupted, and whenever, the next command finds what is left of it.
"""

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

from network import chaincode_process
from network.chaincode_process import start_chaincodes
from network.creation import CreatedNetwork, begin_network, complete_network, destroy_files, read_network
from network.deployment import deploy
from network.embedded import start as embedded
from network.embedded.nodes import PROCESS_NAME
from network.embedded.start import start_process, wait_for_ports
from network.errors import NetworkError, ProcessStartError, RootError
from network.native.binary import find_binaries
from network.native.nodes import join_channels, start_nodes
from network.node import NodeCondition, node_conditions, resume_stopped
from network.running.interruption import uninterrupted
from network.running.plan import served_chaincodes
from network.running.ports import check_free
from network.running.process import ProcessTable, RunningProcess
from network.running.root import NetworkKind, NetworkRoot
from network.topology.definition import Topology

WATCH_SECONDS: Final = 0.2
Progress = Callable[[str], None]


class NetworkStatus(NamedTuple):
    """What a root holds and what of it runs.

    `missing`: names of processes that should run and do not; `stopped`: nodes that a command paused, or ended in a
    process that runs, with their condition.
    """

    network: CreatedNetwork
    running: list[RunningProcess]
    missing: list[str]
    stopped: dict[str, str]

    @property
    def is_up(self) -> bool:
        """Whether every process runs, and every node in it."""
        return not self.missing and not self.stopped


def up(
    root: NetworkRoot,
    topology_file: Path | None,
    kind: NetworkKind,
    progress: Progress,
    announce: Callable[[CreatedNetwork], None] | None = None,
) -> CreatedNetwork:
    """Make the network if there is none, start what does not run, and return when it is ready.

    `announce` is called with the network that is ready. Whatever this call started is ended again when it fails or is
    interrupted (KeyboardInterrupt), by then too. Raises NetworkError.
    """
    with root.claim():
        binaries = find_binaries() if kind is NetworkKind.NATIVE else None
        begun = begin_network(root, topology_file, kind)
        table = ProcessTable(root.processes, begun.state.network_id)
        before = table.adopt()
        names = _process_names(begun.topology, kind)
        missing = [name for name in names if name not in before]
        with _ended_on_failure(table, before), _forking(table, kind, missing):
            # Beside it, those processes import what they need.
            network = complete_network(begun, now=datetime.fromtimestamp(time.time(), UTC), randomness=os.urandom)
            check_free(network.state.ports, _uses_of(network, missing))
            progress(f"{kind.value} network: starting {len(missing)} of {len(names)} processes")
            if binaries is None:
                start_process(network, table)
            else:
                start_nodes(network, binaries, table)
            for name in resume_stopped(network, table):
                progress(f"{name}: goes on")
            asyncio.run(_make_ready(network, table, before, progress))
            if announce is not None:
                announce(network)
    return network


def down(root: NetworkRoot) -> list[str]:
    """End every process of the network; give the names of those that had to be killed. Raises NetworkError."""
    with root.claim():
        return _table(root).end()


def destroy(root: NetworkRoot) -> None:
    """End every process and remove everything of the network; raises NetworkError."""
    with root.claim():
        _table(root).end()
        destroy_files(root)


def status(root: NetworkRoot) -> NetworkStatus:
    """Say what runs; raises NetworkError when there is no network here."""
    network = read_network(root)
    table = ProcessTable(root.processes, network.state.network_id)
    running = table.running()
    names = {process.name for process in running}
    missing = [name for name in _process_names(network.topology, network.state.kind) if name not in names]
    conditions = node_conditions(network, table)
    stopped = {
        name: condition.value
        for name, condition in conditions.items()
        if condition is not NodeCondition.RUNNING and name not in missing and PROCESS_NAME not in missing
    }
    return NetworkStatus(network, running, missing, stopped)


def log_files(root: NetworkRoot) -> dict[str, Path]:
    """Give the log of each process; raises NetworkError when there is no network here."""
    network = read_network(root)
    table = ProcessTable(root.processes, network.state.network_id)
    return {name: table.log_path(name) for name in _process_names(network.topology, network.state.kind)}


def _table(root: NetworkRoot) -> ProcessTable:
    """Give the processes of a root; its state alone says whose they are, whatever else of it is damaged."""
    state = root.state()
    if state is None:
        raise RootError(f"{root.path} holds no network")
    return ProcessTable(root.processes, state.network_id)


def _process_names(topology: Topology, kind: NetworkKind) -> list[str]:
    if kind is NetworkKind.EMBEDDED:
        nodes = [PROCESS_NAME]
    else:
        nodes = [node.name for organization in topology.all_organizations for node in organization.nodes]
    return nodes + [served.name for served in served_chaincodes(topology)]


def _forking(table: ProcessTable, kind: NetworkKind, missing: list[str]) -> AbstractContextManager[None]:
    """Fork the Python processes of the network from one, if any is to start; it imports first what starts first."""
    module = embedded.MODULE if kind is NetworkKind.EMBEDDED else chaincode_process.MODULE
    return table.forking(module) if missing else nullcontext()


def _uses_of(network: CreatedNetwork, processes: list[str]) -> list[str]:
    """Give the ports that processes which do not run yet are about to open."""
    served = {it.name for it in served_chaincodes(network.topology)}
    owners = {use: use.rpartition("/")[0] for use in network.state.ports}
    if network.state.kind is NetworkKind.EMBEDDED:
        owners = {use: owner if owner in served else PROCESS_NAME for use, owner in owners.items()}
    return [use for use, owner in owners.items() if owner in processes]


async def _make_ready(network: CreatedNetwork, table: ProcessTable, before: set[str], progress: Progress) -> None:
    """Start the chaincodes, join, deploy and wait; ends at once when a process of the network does."""
    work = asyncio.create_task(_join_and_deploy(network, table, progress))
    watch = asyncio.create_task(_watch(network, table, before))
    try:
        await asyncio.wait((work, watch), return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            await watch
        await work
    finally:
        for task in (work, watch):
            task.cancel()
        await asyncio.gather(work, watch, return_exceptions=True)


async def _join_and_deploy(network: CreatedNetwork, table: ProcessTable, progress: Progress) -> None:
    # In a thread: it waits until what the chaincodes' processes share is imported.
    chaincodes = asyncio.create_task(asyncio.to_thread(start_chaincodes, network, table))
    if network.state.kind is NetworkKind.NATIVE:
        progress("nodes: join their channels")
        await join_channels(network)
    else:
        await wait_for_ports(network)
    await chaincodes
    await deploy(network, progress)


async def _watch(network: CreatedNetwork, table: ProcessTable, before: set[str]) -> None:
    """Raise ProcessStartError when a process of the network ends that ran before or was started since."""
    names = set(_process_names(network.topology, network.state.kind))
    while True:
        for name in names & (before | table.started):
            if not table.is_alive(name):
                tail = table.log_tail(name)
                raise ProcessStartError(f"{name} ended before the network was ready; {table.log_path(name)}:\n{tail}")
        await asyncio.sleep(WATCH_SECONDS)


@contextmanager
def _ended_on_failure(table: ProcessTable, before: set[str]) -> Iterator[None]:
    try:
        yield
    except BaseException:
        with uninterrupted():
            table.close(keeping=before)
        raise


def is_network(root: NetworkRoot) -> bool:
    """Tell whether the root holds a network that can be read."""
    try:
        return root.state() is not None
    except NetworkError:
        return False
