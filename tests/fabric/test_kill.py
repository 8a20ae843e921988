"""kill -9 of every node of a network under load: what was committed is there afterwards, and the chain goes on."""

import asyncio
import os
import random
import signal
from contextlib import suppress
from itertools import pairwise

import psutil
import pytest

from gateway.client.blocks import BlockStream, Stop
from gateway.client.channel import NodeChannel
from gateway.client.errors import ClientError
from gateway.client.gateway import Gateway
from gateway.client.retry import ONCE
from gateway.client.transaction import Status
from network.protocol.block import Block, header_hash
from network.protocol.decode import decode_block
from tests.support.live_network import CHANNEL, verdicts
from tests.support.small_network import SmallNetwork

DOCUMENT = '{"kind": "household", "region": "north"}'
IN_FLIGHT = 4
ROUNDS = 3


async def register_until_it_dies(small: SmallNetwork, prefix: str, first: asyncio.Event) -> list[Status]:
    """Register customers, some at once, until the network is gone; give what was said to be committed."""
    committed: list[Status] = []

    async def worker(number: int) -> None:
        for count in range(10_000):
            name = f"{prefix}-{number}-{count}"
            done = await contract.submit_transaction("register_customer", f"key-{name}", name, DOCUMENT, retry=ONCE)
            committed.append(done.status)
            first.set()

    async with NodeChannel(small.endpoint) as channel:
        contract = Gateway(small.identity("agent"), channel).network(CHANNEL).contract("service")
        workers = [asyncio.create_task(worker(number)) for number in range(IN_FLIGHT)]
        with suppress(ClientError):
            await asyncio.gather(*workers)
        for task in workers:
            task.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
    return committed


async def killed_under_load(small: SmallNetwork, prefix: str, seconds: float) -> list[Status]:
    """Kill every process of the network so many seconds after the first commit."""
    first = asyncio.Event()
    load = asyncio.create_task(register_until_it_dies(small, prefix, first))
    began = asyncio.create_task(first.wait())
    await asyncio.wait((began, load), timeout=40, return_when=asyncio.FIRST_COMPLETED)
    began.cancel()
    assert first.is_set(), "nothing was committed"
    await asyncio.sleep(seconds)
    processes = list(small.processes().values())
    for process in processes:
        os.kill(process.pid, signal.SIGKILL)
    psutil.wait_procs(processes, timeout=20)
    return await load


async def read_blocks(small: SmallNetwork) -> list[Block]:
    async with NodeChannel(small.endpoint) as channel:
        stream = BlockStream(small.identity("agent"), channel, CHANNEL)
        return [decode_block(block.content) async for block in stream.blocks(0, stop=Stop.NEWEST, idle_seconds=30)]


@pytest.mark.parametrize("seed", [1])
def test_no_committed_transaction_is_lost_by_a_kill(small: SmallNetwork, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311  # moments, no secret
    committed: list[Status] = []
    blocks: list[Block] = []
    for number in range(ROUNDS):
        done = small.up()
        assert done.returncode == 0, done.stderr
        before = blocks
        blocks = asyncio.run(read_blocks(small))
        assert [header_hash(block.header) for block in blocks[: len(before)]] == [
            header_hash(block.header) for block in before
        ]
        more = asyncio.run(killed_under_load(small, f"round-{number}", chance.uniform(0.0, 1.5)))
        assert more
        committed += more
    done = small.up()
    assert done.returncode == 0, done.stderr

    blocks = asyncio.run(read_blocks(small))
    assert [block.header.number for block in blocks] == list(range(len(blocks)))
    for earlier, later in pairwise(blocks):
        assert later.header.previous_hash == header_hash(earlier.header)
    for status in committed:
        assert verdicts(blocks[status.block_number])[status.tx_id] == [status.code]
