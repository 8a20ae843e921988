"""Killing, pausing, continuing and restarting one node of a network that runs, or one of its chaincode processes.

Native nodes are processes. Nodes of an embedded network share one: there an ended node's port is closed, a paused one
accepts calls and answers none, and neither commits or orders anything, which is what clients see of a dead or a hung
node.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Final

from gateway.client.channel import Endpoint, NodeChannel
from gateway.client.errors import DialError
from network.chaincode_process import start_chaincodes
from network.creation import CreatedNetwork, read_network
from network.embedded.control import NodeVerb, Request, read_answer, write_request
from network.embedded.nodes import PROCESS_NAME, READY_FILE
from network.errors import NodeError, QuorumError, ReadinessError
from network.native.binary import find_binaries
from network.native.nodes import start_nodes
from network.protocol.quorum import bft_quorum, raft_quorum
from network.running.plan import served_chaincodes
from network.running.process import ProcessTable
from network.running.root import NetworkKind, NetworkRoot
from network.topology.definition import ConsensusType, Organization

ANSWER_SECONDS: Final = 30.0
POLL_SECONDS: Final = 0.05


class NodeCondition(StrEnum):
    """How a node, or a chaincode process, is."""

    RUNNING = "running"
    PAUSED = "paused"
    ENDED = "ended"


_NEEDED: Final = {
    NodeVerb.KILL: (NodeCondition.RUNNING, NodeCondition.PAUSED),
    NodeVerb.PAUSE: (NodeCondition.RUNNING,),
    NodeVerb.CONTINUE: (NodeCondition.PAUSED,),
    NodeVerb.RESTART: tuple(NodeCondition),
}
_DONE: Final = {
    NodeVerb.KILL: "killed",
    NodeVerb.PAUSE: "paused",
    NodeVerb.CONTINUE: "goes on",
    NodeVerb.RESTART: "restarted",
}


def act_on_node(root: NetworkRoot, verb: NodeVerb, name: str, *, force: bool = False) -> str:
    """Do something to a node; give the words that say what was done and what runs now.

    Raises NodeError for a node that does not exist, or for which it makes no difference; QuorumError, without `force`,
    when the orderers would lose their quorum, if only for a moment; ReadinessError when one does not answer in time.
    """
    with root.claim():
        network = read_network(root)
        table = ProcessTable(root.processes, network.state.network_id)
        conditions = node_conditions(network, table)
        if name not in conditions:
            raise NodeError(f"no node {name!r}; there are: {', '.join(conditions)}")
        if conditions[name] not in _NEEDED[verb]:
            raise NodeError(f"{name} is {conditions[name].value}: {verb.value} makes no difference")
        if not force:
            _check_quorum(network, conditions, verb, name)
        _do(network, table, verb, name)
        words = f"{name} {_DONE[verb]}"
        orderers = _orderers(network)
        if name in orderers:
            after = node_conditions(network, table)
            count = sum(after[orderer] is NodeCondition.RUNNING for orderer in orderers)
            words += f"; {count} of {len(orderers)} orderers run, {_quorum(network)} are needed"
        return words


def resume_stopped(network: CreatedNetwork, table: ProcessTable) -> list[str]:
    """Have every node go on that a command has paused or, in a process that runs, ended; give their names."""
    conditions = node_conditions(network, table)
    processes = {process.name for process in table.running()}
    resumed = []
    for name, condition in conditions.items():
        if condition is NodeCondition.PAUSED:
            _do(network, table, NodeVerb.CONTINUE, name)
            resumed.append(name)
        elif condition is NodeCondition.ENDED and _is_embedded_node(network, name) and PROCESS_NAME in processes:
            _do(network, table, NodeVerb.RESTART, name)
            resumed.append(name)
    return resumed


def node_conditions(network: CreatedNetwork, table: ProcessTable) -> dict[str, NodeCondition]:
    """Say how each node and each chaincode process is, by name."""
    nodes = [node.name for organization in network.topology.all_organizations for node in organization.nodes]
    processes = {
        process.name: NodeCondition.PAUSED if process.is_paused else NodeCondition.RUNNING
        for process in table.running()
    }
    found = {}
    stopped: Mapping[str, str] = {}
    if network.state.kind is NetworkKind.EMBEDDED:
        stopped = read_answer(network.root.embedded).stopped
    for name in nodes:
        process = PROCESS_NAME if network.state.kind is NetworkKind.EMBEDDED else name
        found[name] = processes.get(process, NodeCondition.ENDED)
        if found[name] is NodeCondition.RUNNING and name in stopped:
            found[name] = NodeCondition(stopped[name])
    for served in served_chaincodes(network.topology):
        found[served.name] = processes.get(served.name, NodeCondition.ENDED)
    return found


# --- quorum


def _orderers(network: CreatedNetwork) -> list[str]:
    return [node.name for organization in network.topology.orderer_organizations for node in organization.nodes]


def _quorum(network: CreatedNetwork) -> int:
    needed = bft_quorum if network.topology.consensus is ConsensusType.BFT else raft_quorum
    return needed(len(_orderers(network)))


def _check_quorum(network: CreatedNetwork, conditions: Mapping[str, NodeCondition], verb: NodeVerb, name: str) -> None:
    orderers = _orderers(network)
    if verb is NodeVerb.CONTINUE or name not in orderers or conditions[name] is not NodeCondition.RUNNING:
        return
    left = sum(conditions[orderer] is NodeCondition.RUNNING for orderer in orderers) - 1
    if left < _quorum(network):
        raise QuorumError(
            f"{verb.value} {name} would leave {left} of {len(orderers)} orderers, and {_quorum(network)} are needed to "
            "order anything; --force does it all the same"
        )


# --- doing


def _is_embedded_node(network: CreatedNetwork, name: str) -> bool:
    served = {it.name for it in served_chaincodes(network.topology)}
    return network.state.kind is NetworkKind.EMBEDDED and name not in served


def _do(network: CreatedNetwork, table: ProcessTable, verb: NodeVerb, name: str) -> None:
    if _is_embedded_node(network, name):
        _ask(network, table, verb, name)
    elif verb is NodeVerb.KILL:
        table.kill(name)
    elif verb is NodeVerb.PAUSE:
        table.pause(name)
        _wait_until(lambda: node_conditions(network, table)[name] is NodeCondition.PAUSED, f"{name} does not stop")
    elif verb is NodeVerb.CONTINUE:
        table.resume(name)
    else:
        table.end([name])
        if name in {served.name for served in served_chaincodes(network.topology)}:
            start_chaincodes(network, table, [name])
        else:
            start_nodes(network, find_binaries(), table, [name])
            asyncio.run(_answers(network, name))


def _ask(network: CreatedNetwork, table: ProcessTable, verb: NodeVerb, name: str) -> None:
    """Have the process of an embedded network do it."""
    folder = network.root.embedded
    process = table.recorded(PROCESS_NAME)
    try:
        ready = (folder / READY_FILE).read_text()
    except OSError:
        ready = ""
    if process is None or ready != str(process.pid):
        raise NodeError("the process of the embedded network does not run, or has only just begun")
    number = read_answer(folder).number + 1
    write_request(folder, Request(number, verb, name))
    table.nudge(PROCESS_NAME)
    _wait_until(lambda: read_answer(folder).number >= number, f"the embedded network does not {verb.value} {name}")
    error = read_answer(folder).error
    if error:
        raise NodeError(f"{name}: {error}")


def _wait_until(is_done: Callable[[], bool], words: str) -> None:
    async def wait() -> None:
        async with asyncio.timeout(ANSWER_SECONDS):
            while True:
                if is_done():
                    return
                await asyncio.sleep(POLL_SECONDS)

    try:
        asyncio.run(wait())
    except TimeoutError as error:
        raise ReadinessError(f"{words} in {ANSWER_SECONDS:.0f} s") from error


async def _answers(network: CreatedNetwork, name: str) -> None:
    """Return when a node that was started answers at its port."""
    organization = next(it for it in network.topology.all_organizations if name in _names(it))
    endpoint = Endpoint(network.address(name), network.credentials.tls_ca_pem(organization.msp_id))
    deadline = time.monotonic() + ANSWER_SECONDS
    while True:
        try:
            async with NodeChannel(endpoint) as channel:
                await channel.dial(1.0)
        except DialError as error:
            if time.monotonic() > deadline:
                raise ReadinessError(f"{name} does not answer in {ANSWER_SECONDS:.0f} s: {error}") from error
            await asyncio.sleep(POLL_SECONDS)
        else:
            return


def _names(organization: Organization) -> list[str]:
    return [node.name for node in organization.nodes]
