"""One seeded workload on an embedded network and on real nodes: whatever a step comes to has to be equal.

Status, words and payloads, read-write sets, endorsed and ordered bytes, codes, events, and at the end state, private
state and history, as every peer answers. What no two networks share is in one table, `comparison.REPLACED`; the
differences that remain are in another, `comparison.KNOWN`.

`KVR_DIFFERENTIAL_SEED` and `KVR_DIFFERENTIAL_STEPS` (`make differential SEED=… STEPS=…`) choose the workload.
"""

import asyncio
import os
from collections.abc import Iterator
from copy import deepcopy
from functools import cache
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any, Final

import pytest

from network.protocol.validation_code import validation_code_name
from tests.support.differential.comparison import REPLACED, SIGNATURES, Own, Record, differences, unexplained
from tests.support.differential.run import Taken, take
from tests.support.differential.workload import BATCH_TIMEOUT, definitions, steps
from tests.support.judged_network import judged_network, python_program
from tests.support.live_network import START_SECONDS, NetworkName, note_chain

SEED: Final = int(os.environ.get("KVR_DIFFERENTIAL_SEED", "1"))
STEPS: Final = int(os.environ.get("KVR_DIFFERENTIAL_STEPS", "600"))
pytestmark = pytest.mark.timeout(2 * START_SECONDS + 120 + STEPS)

SHIM: Final = Path(__file__).parent / "python_shim"
NETWORKS: Final = (NetworkName.EMBEDDED, NetworkName.NATIVE)
CODES: Final = {
    "BAD_COMMON_HEADER",
    "BAD_PROPOSAL_TXID",
    "DUPLICATE_TXID",
    "ENDORSEMENT_POLICY_FAILURE",
    "INVALID_CHAINCODE",
    "INVALID_ENDORSER_TRANSACTION",
    "MVCC_READ_CONFLICT",
    "PHANTOM_READ_CONFLICT",
    "VALID",
}


@cache
def taken(name: NetworkName) -> Taken:
    """Take all steps on a network of its own."""
    judge = python_program(SHIM, "script_contract:chaincode")
    service = python_program(SHIM, "chaincode.service:contract", "service")
    with TemporaryDirectory() as folder, judged_network(name, Path(folder), BATCH_TIMEOUT) as network:
        for definition in definitions(judge, service):
            network.deploy(definition)
        found = asyncio.run(take(network, steps(SEED, STEPS)))
    note_chain(f"{name.value}, differential", found.height, found.header_hash)
    return found


@pytest.mark.parametrize("name", NETWORKS, ids=str)
def test_the_workload_meets_every_verdict(name: NetworkName, record_property: Any) -> None:
    record_property("network", name.value)
    records = taken(name).records
    blocks = [record["found"]["block"] for record in records if "block" in record["found"]]
    codes = {validation_code_name(code) for block in blocks for code in block["metadata"]["codes"]}

    assert len(records) >= STEPS
    assert len(blocks) > len(records) / 10
    assert codes >= CODES


def test_both_networks_come_to_the_same() -> None:
    embedded, native = (taken(name).normalised() for name in NETWORKS)

    wrong = unexplained(differences(embedded, native))

    assert not wrong, f"seed {SEED}, {STEPS} steps:\n" + "\n".join(wrong)


# --- the comparison itself, on a record of the embedded network


def test_whatever_else_is_altered_is_a_difference() -> None:
    """Every value of every record, each in a record of its own; one that stands in many places once."""
    found = taken(NetworkName.EMBEDDED)
    values = {
        (field, type(holder[key]), holder[key]) for record in found.records for holder, key, field in leaves_of(record)
    }
    unseen = []
    for field, _, value in values:
        right = [found.own.normalised({"step": "one", field: value})]
        for other in alterations(value, field):
            if other in found.own:  # orderers stamp whole seconds, which only the network tells apart
                continue
            altered = [found.own.normalised({"step": "one", field: other})]
            if not unexplained(differences(right, altered), known=()):
                unseen.append((field, value, other))

    assert not unseen
    assert len(values) > len(found.records) * 3


def test_an_altered_or_missing_value_is_a_difference_wherever_it_stands() -> None:
    """One value of each record, in the whole record."""
    found = taken(NetworkName.EMBEDDED)
    chance = Random(SEED)  # noqa: S311  # chooses values
    for record in deepcopy(found.records):
        right = [found.own.normalised(record)]
        holder, key, field = chance.choice([it for it in leaves_of(record) if it[2] not in SIGNATURES])
        value = holder[key]
        for other in alterations(value, field):
            holder[key] = other

            assert unexplained(differences(right, [found.own.normalised(record)]), known=())
        if holder is not record:
            holder.pop(key)

            assert unexplained(differences(right, [found.own.normalised(record)]), known=())


def leaves_of(tree: Any, field: str = "") -> Iterator[tuple[Any, Any, str]]:
    """Give every value that is no list and no dictionary: where it is, and the name of its field."""
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
        name = key if isinstance(tree, dict) else field
        if isinstance(value, dict | list):
            yield from leaves_of(value, name)
        else:
            yield tree, key, name


def alterations(value: Any, field: str) -> Iterator[Any]:
    """Give other values: longer, with another character in the middle, another number."""
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, int):
        yield value + 1
    elif value is None:
        yield "something"
    elif field not in SIGNATURES:
        yield f"{value}?"
        middle = len(value) // 2
        if value and not is_replaced_anyway(value, middle):
            yield value[:middle] + ("0" if value[middle] != "0" else "1") + value[middle + 1 :]


def is_replaced_anyway(text: str, place: int) -> bool:
    """Whether a place is in a text that the table replaces whatever it says: a time as nodes write it."""
    shapes = [shape for shape in REPLACED if not shape.is_known]
    return any(place in range(*found.span()) for shape in shapes for found in shape.pattern.finditer(text))


def test_a_record_of_another_network_is_not_normalised() -> None:
    """Values are replaced because they are a network's own, not because they look so."""
    found = taken(NetworkName.EMBEDDED)
    record: Record = next(record for record in found.records if "block" in record["found"])

    assert found.own.normalised(record) != Own().normalised(record)
    assert Own().normalised(record)["found"]["block"]["header"] == record["found"]["block"]["header"]
