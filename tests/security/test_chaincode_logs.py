"""What a chaincode server logs, and answers on failure: no payload, key, value, transient data or proposal."""

import asyncio
import logging
from typing import Any

import pytest

from chaincode.contract import Context, Contract
from tests.support.chaincode_peer import RunningServer, issue_client
from tests.support.credential import root_authority

CANARY = "canary-7f3a"


def make_contract() -> Contract:
    contract = Contract("c", "1")

    @contract.transaction
    async def spread(context: Context, key: str, kind: str) -> str:
        stub = context.stub
        await stub.put_state(key, stub.transient["value"])
        await stub.put_private_data("service", key, stub.transient["value"])
        await stub.get_state(key)
        stub.set_event(key, stub.transient["value"])
        if kind == "raise":
            raise ValueError(key, stub.transient)
        return key

    return contract


@pytest.mark.parametrize("kind", ["return", "raise"])
@pytest.mark.parametrize("refused", [None, "GET_STATE", "PUT_STATE"])
def test_no_content_in_any_log(caplog: pytest.LogCaptureFixture, kind: str, refused: str | None) -> None:
    async def main() -> Any:
        async with RunningServer(make_contract()) as peer:
            if refused:
                peer.refuse[refused] = f"the peer names {CANARY}"
            creator = issue_client(root_authority("ServiceMSP"), CANARY, role=CANARY)
            await peer.call(f"{CANARY}-function", creator=creator)
            transient = {"value": CANARY.encode()}
            return await peer.call(
                "spread", CANARY, kind, creator=creator, transient=transient, tx_id="0123456789abcdef"
            )

    caplog.set_level(logging.DEBUG)
    answer = asyncio.run(main())

    # Texts as they were formatted when written, and the facts beside them that are plain values.
    facts = [str(value) for record in caplog.records for value in vars(record).values() if isinstance(value, str | int)]
    written = caplog.text + "\n".join(facts)
    assert "01234567" in written
    assert "0123456789abcdef" not in written
    assert CANARY not in written
    if answer.status >= 400:
        assert CANARY not in answer.message
        assert answer.payload == b""
    assert (answer.status == 200) == (kind == "return" and refused is None)


def test_the_log_names_function_status_and_time(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with RunningServer(make_contract()) as peer:
            await peer.call("spread", creator=issue_client(root_authority("ServiceMSP")))

    caplog.set_level(logging.INFO, logger="chaincode")
    asyncio.run(main())

    (record,) = [record for record in caplog.records if record.getMessage() == "transaction"]
    assert vars(record)["function"] == "spread"
    assert vars(record)["status"] == 400
    assert vars(record)["duration_ms"] >= 0
