"""A chaincode server that dies: nobody waits for its answer, and the next transaction finds the one that came back."""

import asyncio
import json
from typing import Any

import pytest
from fabric_protos.peer import chaincode_pb2, chaincode_shim_pb2

from network.embedded.ledger.chaincode import ChaincodeCall, ChaincodeError
from network.embedded.services.chaincode_connection import decode_connection
from network.embedded.services.chaincode_stream import ChaincodeLauncher
from tests.support.scripted_chaincode import Answered, RunningTransaction, ScriptedChaincode

Message = chaincode_shim_pb2.ChaincodeMessage
PACKAGE_ID = "service_1:" + "cd" * 32


class Silence:
    """A conversation whose requests are answered when the test says so."""

    def __init__(self) -> None:
        self.arrivals: asyncio.Queue[int] = asyncio.Queue()
        self.go_on = asyncio.Event()

    async def answer(self, message_type: int, payload: bytes) -> bytes:
        del payload
        self.arrivals.put_nowait(message_type)
        await self.go_on.wait()
        return b""


async def execute(launcher: ChaincodeLauncher, server: ScriptedChaincode, tx_id: str, conversation: Any) -> Any:
    connection = decode_connection(json.dumps({"address": server.address}).encode())
    call = ChaincodeCall("ch", tx_id, chaincode_pb2.ChaincodeInput(args=[b"f"]), None)
    return await launcher.execute(PACKAGE_ID, connection, call, conversation)


async def asking(transaction: RunningTransaction) -> Answered:
    await transaction.get("k")
    return Answered()


async def answering(transaction: RunningTransaction) -> Answered:
    return Answered(payload=transaction.tx_id.encode())


def test_every_waiting_transaction_is_told_at_once_and_the_next_one_reconnects() -> None:
    async def test() -> None:
        launcher = ChaincodeLauncher()
        silence = Silence()
        async with ScriptedChaincode(PACKAGE_ID, asking) as server:
            waiting = [asyncio.create_task(execute(launcher, server, f"tx{n}", silence)) for n in range(5)]
            for _ in waiting:
                await silence.arrivals.get()
            await server.stop()
            async with asyncio.timeout(5):  # far below the 30 s that an answer may take
                failures = await asyncio.gather(*waiting, return_exceptions=True)
        async with ScriptedChaincode(PACKAGE_ID, answering, address=server.address) as again:
            result = await execute(launcher, again, "tx9", silence)
            await launcher.close()

        assert [str(failure) for failure in failures] == ["error sending: chaincode stream terminated"] * 5
        assert b"tx9" in result.payload

    asyncio.run(test())


def test_while_the_server_is_down_each_transaction_fails_by_its_own_dial() -> None:
    async def test() -> None:
        launcher = ChaincodeLauncher()
        silence = Silence()
        async with ScriptedChaincode(PACKAGE_ID, asking) as server:
            waiting = asyncio.create_task(execute(launcher, server, "tx1", silence))
            await silence.arrivals.get()
        # Until the peer has noticed, a transaction fails by the old stream, as on a real peer; this one tells when.
        with pytest.raises(ChaincodeError, match="chaincode stream terminated"):
            await waiting
        for tx_id in ("tx2", "tx3"):
            with pytest.raises(ChaincodeError, match="could not launch chaincode"):
                await execute(launcher, server, tx_id, Silence())
        await launcher.close()

    asyncio.run(test())


def test_closing_the_peer_ends_what_waits() -> None:
    async def test() -> None:
        launcher = ChaincodeLauncher()
        silence = Silence()
        async with ScriptedChaincode(PACKAGE_ID, asking) as server:
            waiting = asyncio.create_task(execute(launcher, server, "tx1", silence))
            await silence.arrivals.get()
            await launcher.close()
            with pytest.raises(ChaincodeError, match="chaincode stream terminated"):
                await waiting

    asyncio.run(test())
