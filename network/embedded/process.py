"""The process of an embedded network: all its nodes, until it is told to end.

    python -m network.embedded.process ROOT

What the nodes are is in `ROOT/embedded/nodes.json`; which chaincodes there are, every peer knows from its own state.
"""

import asyncio
import logging
import os
import secrets
import signal
import sys
from pathlib import Path
from random import Random

import grpc
from fabric_protos.common import common_pb2

from gateway.client.errors import ClientError
from gateway.client.identity import SigningIdentity
from network.embedded.control import Answer, NodeVerb, forget, read_answer, read_request, write_answer
from network.embedded.ledger.clock import SystemClock
from network.embedded.ledger.network import EmbeddedLedger
from network.embedded.ledger.ordering import Orderer
from network.embedded.ledger.package_store import PackageStore
from network.embedded.ledger.peer import Node, Peer
from network.embedded.local_msp import read_local_msp
from network.embedded.nodes import READY_FILE, NodeEntry, Nodes, read_nodes
from network.embedded.services.contract_runner import ServedContracts
from network.embedded.services.node_server import STOP_SECONDS, ServerTls, serve_orderer, serve_peer
from network.errors import NetworkError, NodeError
from network.running.atomic_file import write_file

SEED_VARIABLE = "KVR_NETWORK_SEED"
"""Seeds the small differences between peers; without it they come from chance."""

logger = logging.getLogger("network.embedded")


class _Nodes:
    """All nodes of the process: their ledger with its files open, their ports, and what runs contracts of each peer."""

    def __init__(self, folder: Path, nodes: Nodes, chance: Random) -> None:
        self.ledger = EmbeddedLedger(SystemClock(), chance)
        self.entries = {entry.name: entry for entry in nodes.entries}
        self._runners: list[ServedContracts] = []
        self._servers: dict[str, grpc.aio.Server] = {}
        self._chance = chance
        try:
            self._open(folder, nodes)
        except BaseException:
            self.ledger.close()
            raise

    def _open(self, folder: Path, nodes: Nodes) -> None:
        for entry in nodes.entries:
            if entry.is_orderer:
                self.ledger.orderers.append(Orderer(entry.name, _identity(entry), folder / entry.name))
                continue
            packages = PackageStore(folder / entry.name / "packages")
            self._runners.append(ServedContracts(packages))
            self.ledger.peers.append(
                Peer(
                    _node(entry),
                    folder / entry.name,
                    runner=self._runners[-1],
                    packages=packages,
                    distribute=self.ledger.dissemination.distribute,
                    clock=self.ledger.clock,
                    joined=self.ledger.joined,
                )
            )
        for channel_id, genesis in nodes.genesis_blocks.items():
            members = {entry.name for entry in nodes.entries if channel_id in entry.channels}
            block = common_pb2.Block.FromString(Path(genesis).read_bytes())
            self.ledger.open_channel(channel_id, block, [it for it in self.ledger.peers if it.node.name in members])
        self.ledger.reopen_joined()

    @property
    def stopped(self) -> dict[str, str]:
        """Nodes that do not run: "paused" or "ended", by name."""
        states = {name: self.ledger.node_state(name) for name in self.entries}
        return {
            name: "paused" if state.is_paused else "ended" for name, state in states.items() if not state.is_running
        }

    async def serve(self, name: str) -> None:
        """Open a node's port, with the certificates that its files hold now; raises PortTakenError."""
        entry = self.entries[name]
        tls = _tls(entry)
        for position, orderer in enumerate(self.ledger.orderers):
            if orderer.name == name:
                self._servers[name] = await serve_orderer(entry.address, tls, self.ledger, position)
        for peer in self.ledger.peers:
            if peer.node.name == name:
                self._servers[name] = await serve_peer(entry.address, tls, peer, self.ledger, self._chance)

    async def do(self, verb: NodeVerb, name: str) -> None:
        """Do to a node what was asked; raises NetworkError, and ClientError for credentials that do not read."""
        if verb is NodeVerb.PAUSE:
            self.ledger.node_state(name).pause()
        elif verb is NodeVerb.CONTINUE:
            await self.ledger.resume_node(name)
        else:
            await self._end(name)
        if verb is NodeVerb.RESTART:
            self._reload(name)
            await self.serve(name)
            await self.ledger.resume_node(name)

    async def _end(self, name: str) -> None:
        self.ledger.node_state(name).end()
        server = self._servers.pop(name, None)
        if server is not None:
            await server.stop(None)

    def _reload(self, name: str) -> None:
        """Give a node the identity that its files hold now."""
        entry = self.entries[name]
        for orderer in self.ledger.orderers:
            if orderer.name == name:
                orderer.identity = _identity(entry)
        for peer in self.ledger.peers:
            if peer.node.name == name:
                peer.node = _node(entry)

    async def close(self) -> None:
        """Close ports and files; calls under way get a moment to end."""
        for server in self._servers.values():
            await server.stop(STOP_SECONDS)
        for runner in self._runners:
            await runner.close()
        self.ledger.close()


def _identity(entry: NodeEntry) -> SigningIdentity:
    return SigningIdentity.from_msp_folder(entry.msp_id, Path(entry.msp))


def _tls(entry: NodeEntry) -> ServerTls:
    return ServerTls(Path(entry.tls_certificate).read_bytes(), Path(entry.tls_key).read_bytes())


def _node(entry: NodeEntry) -> Node:
    local_msp = read_local_msp(entry.msp_id, Path(entry.msp))
    return Node(entry.name, entry.msp_id, entry.address, _identity(entry), local_msp)


async def run(folder: Path) -> None:
    """Serve the nodes described in the folder until SIGTERM or SIGINT; raises NetworkError."""
    stopping, asked = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    loop.add_signal_handler(signal.SIGHUP, asked.set)
    forget(folder)
    seed = os.environ.get(SEED_VARIABLE)
    chance = Random(secrets.randbits(64) if seed is None else seed)  # noqa: S311  # no secret depends on it
    nodes = _Nodes(folder, read_nodes(folder), chance)
    running = asyncio.create_task(nodes.ledger.run())
    obeying = asyncio.create_task(_obey(folder, nodes, asked))
    try:
        for name in nodes.entries:
            await nodes.serve(name)
        write_file(folder / READY_FILE, str(os.getpid()).encode())
        stopped = asyncio.create_task(stopping.wait())
        await asyncio.wait((stopped, running, obeying), return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        for task in (running, obeying):
            if task.done():
                await task  # it ends by an error only
    finally:
        running.cancel()
        obeying.cancel()
        await asyncio.gather(running, obeying, return_exceptions=True)
        await nodes.close()


async def _obey(folder: Path, nodes: _Nodes, asked: asyncio.Event) -> None:
    """Do what commands ask of single nodes, one request after the other; ends by being cancelled."""
    while True:
        await asked.wait()
        asked.clear()
        try:
            request = read_request(folder)
            answered = read_answer(folder).number
        except NodeError as failure:
            logger.warning("node_request_ignored error[%s]: %s", failure.code, failure)
            continue
        if request is None or request.number <= answered:
            continue
        error = ""
        try:
            await nodes.do(request.verb, request.node)
        except (NetworkError, ClientError, OSError) as failure:
            error = str(failure)
        logger.info("node_%s node=%s error=%s", request.verb.value, request.node, error or "none")
        write_answer(folder, Answer(request.number, error, nodes.stopped))


def main() -> None:
    """Run the process; exit status 1 when the network cannot go on, with the reason in the log."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        asyncio.run(run(Path(sys.argv[1]) / "embedded"))
    except NetworkError as error:
        logger.error("network_failed error[%s]: %s", error.code, error)  # noqa: TRY400  # the reason is the text
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
