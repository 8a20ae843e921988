"""How fast a network of the shipped topology is: from an empty folder to the first transaction, and under load.

    python -m tests.benchmarks.network [--native] [--transactions 1000] [--in-flight 64] [--repeat 3] [--json]

README.md beside this file says what each line means and leaves out.
"""

import argparse
import asyncio
import json
import platform
import secrets
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median
from typing import Any

from gateway.client.channel import Endpoint, NodeChannel
from gateway.client.contract import Contract
from gateway.client.gateway import Gateway
from gateway.client.identity import SigningIdentity
from network.creation import CreatedNetwork
from network.operation import destroy, down, status, up
from network.running.root import NetworkKind, NetworkRoot
from network.topology.topology_file import shipped_topology

CHANNEL = "consortium"
SENDERS = ("ServiceMSP", "CustomerMSP")
CUSTOMER = "C0000"


def measure_start(root: NetworkRoot, kind: NetworkKind) -> dict[str, float]:
    """Start a network in an empty folder, end it, and start it again; seconds."""
    began = time.perf_counter()
    steps: dict[str, float] = {}

    def note(step: str) -> None:
        steps[step] = time.perf_counter() - began

    up(root, shipped_topology("dev"), kind, note)
    ready = time.perf_counter() - began
    down(root)
    began = time.perf_counter()
    up(root, None, kind, lambda _: None)
    again = time.perf_counter() - began
    answering = next(seconds for step, seconds in steps.items() if step.endswith("install and approve"))
    return {"network answers": answering, "first transaction": ready, "up again": again}


async def measure_load(network: CreatedNetwork, transactions: int, in_flight: int) -> dict[str, float]:
    """Open requests, so many at once; give committed transactions per second and the median of one, in milliseconds."""
    async with AsyncExitStack() as stack:
        contracts = [await _contract(stack, network, msp_id) for msp_id in SENDERS]
        document = json.dumps({"kind": "household", "region": "north"})
        await contracts[0].submit_transaction("register_customer", secrets.token_hex(8), CUSTOMER, document)
        limit = asyncio.Semaphore(in_flight)
        seconds: list[float] = []

        async def open_request(number: int) -> None:
            request = {"customer": CUSTOMER, "category": "meter", "title": "Meter reading"}
            arguments = (secrets.token_hex(8), f"R{number:06d}", json.dumps(request))
            async with limit:
                began = time.perf_counter()
                await contracts[number % len(contracts)].submit_transaction("open_request", *arguments)
                seconds.append(time.perf_counter() - began)

        began = time.perf_counter()
        await asyncio.gather(*[open_request(number) for number in range(transactions)])
        rate = transactions / (time.perf_counter() - began)
    return {"committed transactions per second": rate, "median of one, ms": median(seconds) * 1000}


async def _contract(stack: AsyncExitStack, network: CreatedNetwork, msp_id: str) -> Contract:
    node = network.topology.organization(msp_id).nodes[0]
    endpoint = Endpoint(network.address(node.name), network.credentials.tls_ca_pem(msp_id))
    channel = await stack.enter_async_context(NodeChannel(endpoint))
    identity = SigningIdentity.from_msp_folder(msp_id, network.credentials.user_msp(msp_id, "agent"))
    return Gateway(identity, channel).network(CHANNEL).contract("service")


def measure(kind: NetworkKind, transactions: int, in_flight: int) -> dict[str, float]:
    """Measure one network from its making to its end."""
    with tempfile.TemporaryDirectory() as folder:
        root = NetworkRoot(Path(folder) / "network")
        root.path.mkdir()
        try:
            result = measure_start(root, kind)
            found = status(root)
            result |= asyncio.run(measure_load(found.network, transactions, in_flight))
            processes = status(root).running
            result["memory of all processes, MiB"] = sum(process.memory_bytes for process in processes) / 2**20
            result["processes"] = len(processes)
            return result
        finally:
            destroy(root)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="How fast a network of the shipped topology is.")
    parser.add_argument("--native", action="store_true", help="real peers and orderers")
    parser.add_argument("--transactions", type=int, default=1000)
    parser.add_argument("--in-flight", type=int, default=64)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    kind = NetworkKind.NATIVE if options.native else NetworkKind.EMBEDDED
    runs = []
    for number in range(options.repeat):
        print(f"{kind.value} network, run {number + 1} of {options.repeat} ...", file=sys.stderr)
        runs.append(measure(kind, options.transactions, options.in_flight))
    medians = {name: median(run[name] for run in runs) for name in runs[0]}
    batch = shipped_topology("dev").read_text(encoding="utf-8").partition("batch: ")[2].partition("\n")[0]
    facts: dict[str, Any] = {
        "kind": kind.value,
        "batch": batch,
        "in flight": options.in_flight,
        "transactions": options.transactions,
        "python": platform.python_version(),
    }
    if options.json:
        print(json.dumps({**facts, "medians": medians, "runs": runs}, indent=1))
        return
    print(", ".join(f"{name} {value}" for name, value in facts.items()))
    for name, value in medians.items():
        print(f"{name:36} {value:10.2f}   ({', '.join(f'{run[name]:.2f}' for run in runs)})")


if __name__ == "__main__":
    main()
