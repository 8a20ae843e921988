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
from typing import NamedTuple

from fabric_protos.common import common_pb2

from gateway.client.identity import SigningIdentity
from network.embedded.ledger.clock import SystemClock
from network.embedded.ledger.network import EmbeddedLedger
from network.embedded.ledger.ordering import Orderer
from network.embedded.ledger.package_store import PackageStore
from network.embedded.ledger.peer import Node, Peer
from network.embedded.nodes import NodeEntry, Nodes, read_nodes
from network.embedded.services.contract_runner import ServedContracts
from network.embedded.services.node_server import ServerTls, serve_orderer, serve_peer, stop_servers
from network.errors import NetworkError

SEED_VARIABLE = "KVR_NETWORK_SEED"
"""Seeds the small differences between peers; without it they come from chance."""

logger = logging.getLogger("network.embedded")


class _Opened(NamedTuple):
    """The ledger with all its files open, and what runs the contracts of each peer."""

    ledger: EmbeddedLedger
    runners: list[ServedContracts]
    tls: dict[str, ServerTls]


def _open(folder: Path, nodes: Nodes, chance: Random) -> _Opened:
    ledger = EmbeddedLedger(SystemClock(), chance)
    runners = []
    for entry in nodes.entries:
        identity = SigningIdentity.from_msp_folder(entry.msp_id, Path(entry.msp))
        if entry.is_orderer:
            ledger.orderers.append(Orderer(entry.name, identity, folder / entry.name))
            continue
        packages = PackageStore(folder / entry.name / "packages")
        runners.append(ServedContracts(packages))
        ledger.peers.append(
            Peer(
                Node(entry.name, entry.msp_id, entry.address, identity),
                folder / entry.name,
                runner=runners[-1],
                packages=packages,
                distribute=ledger.dissemination.distribute,
                clock=ledger.clock,
            )
        )
    for channel_id, genesis in nodes.genesis_blocks.items():
        members = {entry.name for entry in nodes.entries if channel_id in entry.channels}
        block = common_pb2.Block.FromString(Path(genesis).read_bytes())
        ledger.open_channel(channel_id, block, [peer for peer in ledger.peers if peer.node.name in members])
    tls = {
        entry.name: ServerTls(Path(entry.tls_certificate).read_bytes(), Path(entry.tls_key).read_bytes())
        for entry in nodes.entries
    }
    return _Opened(ledger, runners, tls)


async def run(folder: Path) -> None:
    """Serve the nodes described in the folder until SIGTERM or SIGINT; raises NetworkError."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    nodes = read_nodes(folder)
    seed = os.environ.get(SEED_VARIABLE)
    chance = Random(secrets.randbits(64) if seed is None else seed)  # noqa: S311  # no secret depends on it
    opened = _open(folder, nodes, chance)
    try:
        await _serve(opened, nodes.entries, chance, stopping)
    finally:
        for runner in opened.runners:
            await runner.close()
        opened.ledger.close()


async def _serve(opened: _Opened, nodes: list[NodeEntry], chance: Random, stopping: asyncio.Event) -> None:
    ledger = opened.ledger
    servers = []
    orderers = [entry for entry in nodes if entry.is_orderer]
    peers = {peer.node.name: peer for peer in ledger.peers}
    running = asyncio.create_task(ledger.run())
    try:
        for entry in nodes:
            tls = opened.tls[entry.name]
            if entry.is_orderer:
                servers.append(await serve_orderer(entry.address, tls, ledger, orderers.index(entry)))
            else:
                servers.append(await serve_peer(entry.address, tls, peers[entry.name], ledger, chance))
        stopped = asyncio.create_task(stopping.wait())
        await asyncio.wait((stopped, running), return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if running.done():
            await running  # it ends by an error only
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await stop_servers(servers)


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
