"""Hyperledger's older Python client, hfc, without discovery, on an embedded network and on a native one.

Its own calls (invoke, query, events of every kind) as far as they work on current networks, and our transport on it.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import pytest

from gateway.client.errors import ClientError, CommitError, EndorseError, EvaluateError, SubmitError
from gateway.client.hfc_transport import HfcTransport, open_hfc_transport
from tests.support.judged_network import (
    AUDITOR,
    BILLING,
    CHANNEL,
    CUSTOMER,
    ORGANIZATIONS,
    SERVICE,
    Definition,
    JudgedNetwork,
    collection,
    judged_network,
    python_program,
)
from tests.support.live_network import START_SECONDS, NetworkName
from tests.support.older_client import hfc_modules

pytestmark = pytest.mark.timeout(START_SECONDS + 60)

NETWORKS: Final = [NetworkName.EMBEDDED, NetworkName.NATIVE]
CONTRACT: Final = python_program(Path(__file__).parent / "python_shim", "script_contract:chaincode")
BOTH_SIDES: Final = "AND('CustomerMSP.peer', OutOf(1, 'ServiceMSP.peer', 'BillingMSP.peer'))"
CHAINCODE: Final = "session"
WAIT_SECONDS: Final = 30

Step = Callable[["Session"], Awaitable[object]]
STEPS: Final[list[Step]] = []


def step(function: Step) -> Step:
    STEPS.append(function)
    return function


class Session:
    """The transports of two identities, and the id of the last transaction."""

    def __init__(self, agent: HfcTransport, auditor: HfcTransport) -> None:
        self.agent = agent
        self.auditor = auditor
        self.client = agent.client
        self.tx_id = ""
        self.block_number = 0

    async def invoke(
        self, *operations: list[object], peers: tuple[str, ...] = (SERVICE, CUSTOMER), **named: Any
    ) -> Any:
        """Call hfc's own invoke."""
        return await self.client.chaincode_invoke(
            self.agent.user,
            CHANNEL,
            list(peers),
            [json.dumps(operations)],
            CHAINCODE,
            fcn="run",
            wait_for_event=True,
            **named,
        )

    async def query(self, function: str, *arguments: str) -> Any:
        """Call hfc's own query."""
        return await self.client.chaincode_query(
            self.agent.user, CHANNEL, [SERVICE], list(arguments), CHAINCODE, fcn=function
        )

    def hub(self) -> Any:
        """Give a hub of events."""
        return self.client.get_channel(CHANNEL).newChannelEventHub(self.client.get_peer(SERVICE), self.agent.user)


# --- its own calls


@step
async def query_of_what_is_not_there(session: Session) -> object:
    return await session.query("run", '[["get","a"]]')


@step
async def invoke_by_two_organisations(session: Session) -> object:
    return await session.invoke(["get", "a"], ["put", "a", "1"])


@step
async def query_of_what_was_written(session: Session) -> object:
    return await session.query("run", '[["get","a"]]')


@step
async def invoke_that_waits_for_a_chaincode_event(session: Session) -> object:
    return await session.invoke(["put", "b", "1"], ["event", "changed", "b"], cc_pattern="^changed$")


@step
async def invoke_with_transient_data(session: Session) -> object:
    operations = ["pput_transient", "pair", "p", "secret"]
    done = await session.invoke(operations, peers=(SERVICE, BILLING), transient_map={"secret": b"salted"})
    return [done, await session.query("run", '[["pget","pair","p"]]')]


@step
async def invoke_that_the_contract_refuses(session: Session) -> object:
    return await session.client.chaincode_invoke(
        session.agent.user,
        CHANNEL,
        [SERVICE, CUSTOMER],
        ["404", "not here", "", ""],
        CHAINCODE,
        fcn="status",
        wait_for_event=True,
    )


@step
async def invoke_by_too_few(session: Session) -> object:
    return await session.invoke(["put", "a", "2"], peers=(SERVICE,))


@step
async def query_that_the_contract_refuses(session: Session) -> object:
    return await session.query("status", "404", "not here", "", "")


@step
async def facts_of_the_channel(session: Session) -> object:
    info = await session.client.query_info(session.agent.user, CHANNEL, [SERVICE])
    return [info.height, len(info.currentBlockHash), len(info.previousBlockHash)]


@step
async def a_block_by_number_and_its_transaction(session: Session) -> object:
    info = await session.client.query_info(session.agent.user, CHANNEL, [SERVICE])
    block = await session.client.query_block(session.agent.user, CHANNEL, [SERVICE], str(info.height - 1))
    (envelope,) = block["data"]["data"]
    tx_id = envelope["payload"]["header"]["channel_header"]["tx_id"]
    found = await session.client.query_transaction(session.agent.user, CHANNEL, [SERVICE], tx_id)
    by_id = await session.client.query_block_by_txid(session.agent.user, CHANNEL, [SERVICE], tx_id)
    return [shown(block), by_id["header"]["number"], found["validation_code"]]


@step
async def the_configuration(session: Session) -> object:
    (envelope,) = await session.client.get_channel_config(session.agent.user, CHANNEL, [SERVICE])
    application = envelope.config.channel_group.groups["Application"]
    return [envelope.config.sequence, sorted(application.groups), sorted(application.policies)]


@step
async def blocks_from_the_first(session: Session) -> object:
    blocks: list[Any] = []
    hub = session.hub()
    hub.registerBlockEvent(start=0, stop=3, unregister=False, onEvent=blocks.append)
    await asyncio.wait_for(ended(hub.connect(filtered=False)), WAIT_SECONDS)
    return [shown(block) for block in blocks]


@step
async def filtered_blocks_from_the_first(session: Session) -> object:
    blocks: list[Any] = []
    hub = session.hub()
    hub.registerBlockEvent(start=0, stop=8, unregister=False, onEvent=blocks.append)
    await asyncio.wait_for(ended(hub.connect(filtered=True)), WAIT_SECONDS)
    return [
        [
            block["number"],
            block["channel_id"],
            [(tx["type"], tx["tx_validation_code"]) for tx in block["filtered_transactions"]],
        ]
        for block in blocks
    ]


@step
async def chaincode_events_from_the_first_block(session: Session) -> object:
    events: list[Any] = []

    def seen(event: Any, block_number: int, _: str, code: str) -> None:
        events.append([event["chaincode_id"], event["event_name"], event["payload"].decode(), block_number, code])

    hub = session.hub()
    hub.registerChaincodeEvent(CHAINCODE, ".*", start=0, stop=8, onEvent=seen)
    await asyncio.wait_for(ended(hub.connect(filtered=False)), WAIT_SECONDS)
    return events


# --- our transport


@step
async def evaluate(session: Session) -> object:
    found = await session.agent.evaluate(CHAINCODE, "run", '[["get","a"]]', peer=CUSTOMER)
    refused = await session.auditor.evaluate(CHAINCODE, "run", '[["get","a"]]', peer=SERVICE)
    return [found.decode(), refused.decode()]


@step
async def submit(session: Session) -> object:
    done = await session.agent.submit_transaction(CHAINCODE, "run", '[["put","c","1"]]', peers=[BILLING, CUSTOMER])
    assert done.status.tx_id == done.attempts[0]
    return [done.result.decode(), done.status.code, done.status.block_number]


@step
async def submit_with_transient_data(session: Session) -> object:
    operations = '[["pput_transient","pair","q","secret"]]'
    done = await session.agent.submit_transaction(
        CHAINCODE, "run", operations, peers=[BILLING, SERVICE], transient={"secret": b"salted"}
    )
    return [
        done.status.code,
        (await session.agent.evaluate(CHAINCODE, "run", '[["pget","pair","q"]]', peer=BILLING)).decode(),
    ]


@step
async def submit_by_too_few(session: Session) -> object:
    return await session.agent.submit_transaction(CHAINCODE, "run", '[["put","c","2"]]', peers=[SERVICE])


@step
async def evaluate_what_is_refused(session: Session) -> object:
    return await session.agent.evaluate(CHAINCODE, "status", "404", "not here", "", "", peer=SERVICE)


@step
async def evaluate_what_is_not_there(session: Session) -> object:
    return await session.agent.evaluate("unknown", "run", "[]", peer=SERVICE)


@step
async def submit_what_is_refused(session: Session) -> object:
    return await session.agent.submit_transaction(
        CHAINCODE, "status", "403", "not you", "", "", peers=[SERVICE, CUSTOMER]
    )


@step
async def submit_what_orderers_refuse(session: Session) -> object:
    return await session.auditor.submit_transaction(CHAINCODE, "run", '[["put","c","3"]]', peers=[SERVICE, CUSTOMER])


EXPECTED: Final[dict[Step, object]] = {
    query_of_what_is_not_there: "[null]",
    invoke_by_two_organisations: "[null,true]",
    query_of_what_was_written: '["31"]',
    invoke_that_waits_for_a_chaincode_event: "[true,true]",
    invoke_with_transient_data: ["[true]", '["73616c746564"]'],
    invoke_that_the_contract_refuses: "not here",
    invoke_by_too_few: {"error": "Exception", "facts": ["['ENDORSEMENT_POLICY_FAILURE']"]},
    chaincode_events_from_the_first_block: [[CHAINCODE, "changed", "b", 6, "VALID"]],
    evaluate: ['["31"]', '["31"]'],
    submit: ["[true]", "VALID", 9],
    submit_with_transient_data: ["VALID", '["73616c746564"]'],
}
FAILURES: Final[dict[Step, tuple[type[ClientError], str]]] = {
    submit_by_too_few: (CommitError, "ENDORSEMENT_POLICY_FAILURE"),
    evaluate_what_is_refused: (EvaluateError, "UNKNOWN"),
    evaluate_what_is_not_there: (EvaluateError, "ABORTED"),
    submit_what_is_refused: (EndorseError, "ABORTED"),
    submit_what_orderers_refuse: (SubmitError, "ABORTED"),
}


def shown(block: Any) -> object:
    """Give what two networks share of a block as hfc decodes it."""
    transactions = []
    for envelope in block["data"]["data"]:
        header = envelope["payload"]["header"]["channel_header"]
        actions = envelope["payload"]["data"].get("actions", [])
        chaincodes = [
            it["payload"]["action"]["proposal_response_payload"]["extension"]["chaincode_id"] for it in actions
        ]
        transactions.append([header["type"], header["channel_id"], header["version"], chaincodes])
    return [block["header"]["number"], list(block["metadata"]["metadata"][2]), transactions]


async def ended(stream: Awaitable[None]) -> None:
    """Wait for the end of a stream; a hub that has seen its last block cancels it."""
    try:
        await asyncio.ensure_future(stream)
    except asyncio.CancelledError:
        current = asyncio.current_task()
        if current is not None and current.cancelling():
            raise


def described(error: Exception) -> dict[str, object]:
    """Say what a step failed with."""
    if not isinstance(error, ClientError):
        return {"error": type(error).__name__, "facts": [str(error)]}
    facts = [getattr(error, name, None) for name in ("grpc_code", "validation_code", "message")]
    details = [detail._asdict() for detail in getattr(error, "details", ())]
    return {"error": type(error).__name__, "facts": [*facts, error.outcome, details]}


@cache
def results(name: NetworkName) -> dict[str, object]:
    """Take all steps on a network of its own; gives what came of each, by its name."""
    hfc_modules()
    pair = collection("pair", (SERVICE, BILLING))
    with TemporaryDirectory() as folder, judged_network(name, Path(folder)) as network:
        network.deploy(Definition(CHAINCODE, dict.fromkeys(ORGANIZATIONS, CONTRACT), BOTH_SIDES, [pair]))
        return asyncio.run(take(network))


async def take(network: JudgedNetwork) -> dict[str, object]:
    nodes = {
        "peers": {msp_id: network.endpoint(msp_id) for msp_id in ORGANIZATIONS},
        "orderers": {"orderer0": network.endpoint("OrdererMSP")},
    }
    found: dict[str, object] = {}
    async with (
        open_hfc_transport(network.identity(SERVICE), CHANNEL, **nodes) as agent,
        open_hfc_transport(network.identity(AUDITOR, "auditor"), CHANNEL, **nodes) as auditor,
    ):
        session = Session(agent, auditor)
        for function in STEPS:
            try:
                found[function.__name__] = await function(session)
            except Exception as error:  # noqa: BLE001  # hfc has no errors of its own
                found[function.__name__] = described(error)
    return found


@pytest.mark.parametrize("name", NETWORKS, ids=str)
def test_every_step_gives_what_it_has_to(name: NetworkName, record_property: Any) -> None:
    record_property("network", name.value)
    found = results(name)

    assert {function.__name__: found[function.__name__] for function in EXPECTED} == {
        function.__name__: value for function, value in EXPECTED.items()
    }
    for function, (kind, code) in FAILURES.items():
        result: Any = found[function.__name__]
        assert result["error"] == kind.__name__, function.__name__
        assert code in result["facts"], function.__name__
    failed = {name for name, result in found.items() if isinstance(result, dict)}
    assert failed == {function.__name__ for function in (*FAILURES, invoke_by_too_few, query_that_the_contract_refuses)}


def test_both_networks_answer_alike() -> None:
    assert results(NetworkName.EMBEDDED) == results(NetworkName.NATIVE)
