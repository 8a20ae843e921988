"""How long after a peer gives a block out its rows can be seen, at the network's full rate and at half.

    python -m tests.benchmarks.lag [--native] [--transactions 2000] [--in-flight 64] [--json]

README.md beside this file says what each line means and leaves out.
"""

import argparse
import asyncio
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import psycopg
from sqlalchemy import URL

from gateway.client.blocks import BlockStream
from gateway.client.channel import Endpoint, NodeChannel
from gateway.client.contract import Contract
from gateway.client.gateway import Gateway
from gateway.client.identity import SigningIdentity
from kvr_sync.store.postgresql_sink import NOTIFY_CHANNEL
from network.creation import CreatedNetwork
from network.operation import destroy, status, up
from network.running.root import NetworkKind, NetworkRoot
from network.topology.topology_file import shipped_topology
from tests.benchmarks.network import CHANNEL, CUSTOMER, SENDERS
from tests.support.postgresql import fresh_database, running_server

READER = "ServiceMSP"
SETTLE_SECONDS = 60.0


class Seen(NamedTuple):
    """When each block was given out, and when its rows could be seen; `time.perf_counter` by number."""

    given: dict[int, float]
    visible: dict[int, float]

    def lags(self, first: int) -> list[float]:
        """Give the milliseconds between, of the blocks from a number on."""
        numbers = sorted(number for number in self.given if number >= first)
        return [(self.visible[number] - self.given[number]) * 1000 for number in numbers]


async def watch_peer(stream: BlockStream, start: int, seen: Seen) -> None:
    """Note every block as the peer gives it out to a reader like the engine."""
    async for block in stream.blocks(start):
        seen.given[block.number] = time.perf_counter()


async def watch_database(database: URL, seen: Seen) -> None:
    """Note every block when it is announced; several that were committed together, at once."""
    address = database.set(drivername="postgresql").render_as_string(hide_password=False)
    last = -1
    async with await psycopg.AsyncConnection.connect(address, autocommit=True) as session:
        await session.execute(f"LISTEN {NOTIFY_CHANNEL}")
        async for note in session.notifies():
            now, number = time.perf_counter(), json.loads(note.payload)["block"]
            seen.visible.update(dict.fromkeys(range(last + 1, number + 1), now))
            last = number


async def load(contracts: Sequence[Contract], transactions: int, in_flight: int, rate: float | None) -> float:
    """Open requests, so many at once, at a rate or as fast as it goes; give committed transactions per second."""
    limit = asyncio.Semaphore(in_flight)

    async def open_request(number: int, began: float) -> None:
        if rate is not None:
            await asyncio.sleep(max(0.0, began + number / rate - time.perf_counter()))
        request = {"customer": CUSTOMER, "category": "meter", "title": "Meter reading", "tags": ["night"]}
        arguments = (secrets.token_hex(8), f"R{secrets.token_hex(6)}", json.dumps(request))
        async with limit:
            await contracts[number % len(contracts)].submit_transaction("open_request", *arguments)

    began = time.perf_counter()
    await asyncio.gather(*[open_request(number, began) for number in range(transactions)])
    return transactions / (time.perf_counter() - began)


async def measure_lag(
    network: CreatedNetwork, database: URL, log: Path, transactions: int, in_flight: int
) -> dict[str, dict[str, float]]:
    """Follow the channel while it is worked on; give rate, number of blocks and percentiles of the lag."""
    seen = Seen({}, {})
    results = {}
    async with AsyncExitStack() as stack:
        contracts = [
            (await _gateway(stack, network, msp_id, "agent")).network(CHANNEL).contract("service") for msp_id in SENDERS
        ]
        document = json.dumps({"kind": "household", "region": "north"})
        await contracts[0].submit_transaction("register_customer", secrets.token_hex(8), CUSTOMER, document)
        reader = await _gateway(stack, network, READER, "agent")
        stream = BlockStream(reader.identity, reader.channel, CHANNEL)
        group = await stack.enter_async_context(asyncio.TaskGroup())
        watching = [group.create_task(watch_peer(stream, 0, seen)), group.create_task(watch_database(database, seen))]
        stack.enter_context(_following(network, database, log))
        await _caught_up(seen)
        full: float | None = None
        for name in ("full rate", "half rate"):
            first = max(seen.given) + 1
            rate = await load(contracts, transactions, in_flight, None if full is None else full / 2)
            full = full or rate
            await _caught_up(seen)
            lags = sorted(seen.lags(first))
            results[name] = {
                "transactions per second": rate,
                "blocks": len(lags),
                "p50 ms": median(lags),
                "p99 ms": lags[min(len(lags) - 1, round(len(lags) * 0.99))],
                "largest ms": lags[-1],
            }
        for task in watching:
            task.cancel()
    return results


async def _caught_up(seen: Seen) -> None:
    async with asyncio.timeout(SETTLE_SECONDS):
        quiet_since, known = time.perf_counter(), -1
        while time.perf_counter() - quiet_since < 3 or not seen.given or seen.given.keys() - seen.visible.keys():
            if max(seen.given, default=-1) != known:
                quiet_since, known = time.perf_counter(), max(seen.given, default=-1)
            await asyncio.sleep(0.05)


async def _gateway(stack: AsyncExitStack, network: CreatedNetwork, msp_id: str, user: str) -> Gateway:
    node = network.topology.organization(msp_id).nodes[0]
    endpoint = Endpoint(network.address(node.name), network.credentials.tls_ca_pem(msp_id))
    channel = await stack.enter_async_context(NodeChannel(endpoint))
    return Gateway(SigningIdentity.from_msp_folder(msp_id, network.credentials.user_msp(msp_id, user)), channel)


@contextmanager
def _following(network: CreatedNetwork, database: URL, log: Path) -> Iterator[None]:
    """Run the command as an operator does."""
    arguments = [
        *("sync", "follow", "--profile", str(network.root.profile(READER)), "--msp-id", READER),
        *("--identity", str(network.credentials.user_msp(READER, "agent")), "--channel", CHANNEL),
        *("--into", database.render_as_string(hide_password=False), "--mapping", "service"),
    ]
    with log.open("w") as file:
        command = [str(Path(sys.executable).parent / "kvr"), *arguments]
        process = subprocess.Popen(command, stdout=file, stderr=file)
        try:
            yield
        finally:
            process.terminate()
            process.wait(30)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="From a peer's block to visible rows.")
    parser.add_argument("--native", action="store_true", help="real peers and orderers")
    parser.add_argument("--transactions", type=int, default=2000, help="at each rate")
    parser.add_argument("--in-flight", type=int, default=64)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    kind = NetworkKind.NATIVE if options.native else NetworkKind.EMBEDDED
    with tempfile.TemporaryDirectory() as name, running_server(durable=True) as server:
        folder = Path(name)
        root = NetworkRoot(folder / "network")
        root.path.mkdir()
        with fresh_database(server) as database:
            try:
                up(root, shipped_topology("dev"), kind, lambda step: print(f"  {step}", file=sys.stderr))
                measured = measure_lag(
                    status(root).network, database, folder / "follow.log", options.transactions, options.in_flight
                )
                results: dict[str, Any] = asyncio.run(measured)
            except BaseException:
                log = folder / "follow.log"
                print(log.read_text() if log.exists() else "", file=sys.stderr)
                raise
            finally:
                destroy(root)
    facts = {"kind": kind.value, "cores": os.cpu_count(), "in flight": options.in_flight}
    if options.json:
        print(json.dumps({**facts, "lag": results}, indent=1))
        return
    print(", ".join(f"{name} {value}" for name, value in facts.items()))
    for name, figures in results.items():
        print(f"{name}: " + ", ".join(f"{what} {value:.1f}" for what, value in figures.items()))


if __name__ == "__main__":
    main()
