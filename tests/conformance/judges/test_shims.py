"""One contract on Fabric's Go shim, on Fabric's Node shim and on our runtime, on an embedded and on a native network.

The organisations of one chaincode run it on different shims, each of which gets the very same proposals: what they
endorse has to be equal byte for byte, or no transaction of theirs could satisfy a policy of two organisations. The same
steps on both networks have to give the same answers and the same read-write sets.
"""

import asyncio
import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, NamedTuple

import pytest

from network.protocol.read_write_set import decode_read_write_set
from tests.support.judge_programs import NODE_SHIM, go_program, node_program
from tests.support.judged_network import (
    BILLING,
    CUSTOMER,
    ORGANIZATIONS,
    SERVICE,
    Definition,
    JudgedNetwork,
    collection,
    judged_network,
    python_program,
)
from tests.support.judged_proposal import Endorsed, Trial
from tests.support.live_network import START_SECONDS, NetworkName
from tests.support.shim_steps import PAIR, STEPS, Step

pytestmark = pytest.mark.timeout(START_SECONDS + 180)

PYTHON: Final = python_program(Path(__file__).parent / "python_shim", "script_contract:chaincode")
EACH: Final = "AND('ServiceMSP.peer', 'BillingMSP.peer', 'CustomerMSP.peer')"
ANY: Final = "OR('ServiceMSP.peer', 'BillingMSP.peer', 'CustomerMSP.peer')"


class Taken(NamedTuple):
    """A step that was taken: what each peer answered, and what of it differs from network to network anyway."""

    step: Step
    answers: dict[str, Endorsed]
    tx_id: str
    nanoseconds: int


@cache
def taken(name: NetworkName) -> list[Taken]:
    """Take all steps on a network of its own."""
    customers = go_program() if NODE_SHIM.missing() else node_program()
    collections = [collection("shared", ORGANIZATIONS), collection("pair", PAIR)]
    served = {SERVICE: go_program(), BILLING: PYTHON, CUSTOMER: customers}
    with TemporaryDirectory() as folder, judged_network(name, Path(folder)) as network:
        network.deploy(Definition("callee", dict.fromkeys(ORGANIZATIONS, PYTHON), ANY))
        network.deploy(Definition("judge", served, EACH, collections))
        return asyncio.run(take(network))


async def take(network: JudgedNetwork) -> list[Taken]:
    found = []
    async with Trial(network, network.identity(SERVICE)) as trial:
        for step in STEPS:
            proposal = trial.proposal("judge", step.call, step.transient)
            answers = {msp_id: await trial.propose(proposal, msp_id) for msp_id in step.peers}
            assert proposal.seconds is not None
            assert proposal.nanos is not None
            found.append(Taken(step, answers, proposal.tx_id, proposal.seconds * 10**9 + proposal.nanos))
            if step.commits and len({answer.payload for answer in answers.values()}) == 1:
                verdicts = await trial.order(proposal, answers.values())
                assert {status.code for status in verdicts.values()} == {"VALID"}, step.name
    return found


# --- tests


NETWORKS: Final = [NetworkName.EMBEDDED, NetworkName.NATIVE]


@pytest.mark.parametrize("name", NETWORKS, ids=str)
def test_all_shims_endorse_the_same_bytes(name: NetworkName, record_property: Any) -> None:
    record_property("network", name.value)
    differences = [
        f"{step.name}: {words}" for step, answers, _, _ in taken(name) for words in differences_between(answers)
    ]

    assert not differences, "\n".join(differences)


@pytest.mark.parametrize("name", NETWORKS, ids=str)
def test_scripts_give_what_they_have_to(name: NetworkName, record_property: Any) -> None:
    record_property("network", name.value)
    wrong = [
        (step.name, msp_id, answer.answer)
        for step, answers, _, _ in taken(name)
        for msp_id, answer in answers.items()
        if step.gives is not None and json.loads(answer.answer or b"null") != step.gives
    ]

    assert not wrong


def test_the_embedded_network_gives_what_the_real_one_gives() -> None:
    embedded, native = (normalised(taken(name)) for name in NETWORKS)

    different = [
        f"{step} at {peer}:\n  embedded: {mine}\n  native:   {theirs}"
        for ((step, peer), mine), theirs in zip(embedded.items(), native.values(), strict=True)
        if mine != theirs
    ]
    assert embedded.keys() == native.keys()
    assert not different, "\n".join(different)


def test_the_node_shim_was_one_of_them() -> None:
    node_program()


def test_a_difference_is_seen() -> None:
    names = ("status", "message", "answer", "results", "event")
    steps = taken(NetworkName.EMBEDDED)
    right = normalised(steps)

    for number, name in enumerate(names):
        answer = steps[number].answers[SERVICE]
        value = getattr(answer, name)
        changed = answer._replace(**{name: value + 1 if name == "status" else value + type(value)(value[:1] or b"x")})

        assert normalised([*steps[:number], steps[number]._replace(answers={SERVICE: changed})]) != right


# --- comparing


def normalised(steps: Sequence[Taken]) -> dict[tuple[str, str], tuple[object, ...]]:
    """Give the answers by step and peer; ids and times, of this step and of those before it, by the step's name."""
    own: dict[bytes, bytes] = {}
    found = {}
    for number, (step, answers, tx_id, nanoseconds) in enumerate(steps):
        own[tx_id.encode()] = f"(id of {step.name})".encode()
        own[str(nanoseconds).encode()] = f"(time of {step.name})".encode()
        for peer, answer in answers.items():
            answered = b"" if step.tells_identity else replaced(answer.answer, own)
            event = replaced(answer.event, own)
            message = replaced(answer.message.encode(), own)
            found[f"{number} {step.name}", peer] = (answer.status, message, answered, answer.results, event)
    return found


def replaced(content: bytes, own: Mapping[bytes, bytes]) -> bytes:
    for value, name in own.items():
        content = content.replace(value, name)
    return content


def differences_between(answers: dict[str, Endorsed]) -> list[str]:
    """Say in what answers of several peers to one proposal differ from the first one."""
    (first_peer, first), *others = answers.items()
    found = []
    for peer, other in others:
        for part in ("status", "message", "answer", "event", "results", "payload"):
            mine, theirs = getattr(first, part), getattr(other, part)
            if mine != theirs:
                found.append(f"{part} at {first_peer} and {peer}:\n  {shown(part, mine)}\n  {shown(part, theirs)}")
                break
    return found


def shown(part: str, content: Any) -> Any:
    return decode_read_write_set(content) if part == "results" else content
