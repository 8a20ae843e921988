"""A session of Fabric's Node client (`node_gateway/session.cjs`), on an embedded network and on a native one.

The session checks each of its steps itself. Here the two networks are compared: results, status codes, classes of
errors, what each peer said, messages. What no two networks share is in one table: `REPLACED`.
"""

import json
import re
import subprocess
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import pytest

from network.credentials.credential_folder import msp_certificate, msp_key
from tests.support.judge_programs import NODE_GATEWAY, node_command
from tests.support.judged_network import (
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
from tests.support.tls_credential import TlsAuthority

SESSION_SECONDS: Final = 120
pytestmark = pytest.mark.timeout(START_SECONDS + SESSION_SECONDS)

NETWORKS: Final = [NetworkName.EMBEDDED, NetworkName.NATIVE]
CONTRACT: Final = (Path(__file__).parent / "python_shim", "script_contract:chaincode")
BOTH_SIDES: Final = "AND('CustomerMSP.peer', OutOf(1, 'ServiceMSP.peer', 'BillingMSP.peer'))"
TIME: Final = r"\d+\.\d+s"
PARTS_OF_A_CALL: Final = ("name resolution", "metadata filters", "time to current attempt start", "LB pick")
"""What a call was busy with before its deadline: told by Node's gRPC if it took a millisecond."""
REPLACED: Final = (
    (r"\b[0-9a-f]{64}\b", "(hash or id)"),
    (rf"after {TIME}(,({'|'.join(PARTS_OF_A_CALL)}): {TIME})*", "after (time)"),
)
"""What stands for a text that is another one on every network; addresses are replaced by names as well."""


def definitions() -> list[Definition]:
    own = {msp_id: python_program(*CONTRACT, f"python-{msp_id}") for msp_id in ORGANIZATIONS}
    shared = python_program(*CONTRACT)
    pair = collection("pair", (SERVICE, BILLING))
    return [
        Definition("session", own, BOTH_SIDES, [pair]),
        Definition("dead", dict.fromkeys(ORGANIZATIONS), BOTH_SIDES),
        Definition("half", {SERVICE: None, BILLING: shared, CUSTOMER: shared}, BOTH_SIDES),
        Definition("away", {SERVICE: shared}, "OR('ServiceMSP.peer')"),
    ]


def session_settings(network: JudgedNetwork, folder: Path) -> dict[str, Any]:
    """Tell the session what it needs to know."""
    credentials = network.created.credentials
    identities = {}
    for organization in network.created.topology.organizations:
        for user in organization.users:
            msp = credentials.user_msp(organization.msp_id, user.name)
            identities[f"{organization.msp_id}/{user.name}"] = {
                "msp_id": organization.msp_id,
                "certificate": msp_certificate(msp).read_text(),
                "key": msp_key(msp).read_text(),
            }
    stranger = TlsAuthority().issue("stranger")
    texts = {"certificate": stranger.certificate.decode(), "key": stranger.key.decode()}
    identities["stranger"] = {"msp_id": SERVICE, **texts}
    endpoints = {msp_id: network.endpoint(msp_id) for msp_id in ORGANIZATIONS}
    peers = {msp_id: {"address": it.address, "tls_root": it.tls_roots.decode()} for msp_id, it in endpoints.items()}
    return {"channel": CHANNEL, "peers": peers, "identities": identities, "folder": str(folder)}


@cache
def session(name: NetworkName) -> tuple[list[dict[str, Any]], str]:
    """Run the session on a network of its own; gives its steps, with names for addresses, and what it complains of."""
    command = node_command(NODE_GATEWAY, NODE_GATEWAY.folder / "session.cjs")
    with TemporaryDirectory() as folder, judged_network(name, Path(folder)) as network:
        for definition in definitions():
            network.deploy(definition)
        settings = Path(folder) / "session.json"
        settings.write_text(json.dumps(session_settings(network, Path(folder))))
        done = subprocess.run(
            [*command, str(settings)], capture_output=True, text=True, timeout=SESSION_SECONDS, check=False
        )
        complaints = done.stderr if done.returncode else ""
        output = done.stdout
        for address, node in network.addresses.items():
            output = output.replace(address, node)
        return [json.loads(line) for line in output.splitlines()], complaints


@pytest.mark.parametrize("name", NETWORKS, ids=str)
def test_every_step_is_as_the_session_expects(name: NetworkName, record_property: Any) -> None:
    record_property("network", name.value)
    steps, complaints = session(name)

    assert not complaints, complaints
    assert len(steps) > 80


def test_both_networks_answer_alike() -> None:
    (embedded, _), (native, _) = (session(name) for name in NETWORKS)

    assert [step["step"] for step in embedded] == [step["step"] for step in native]
    different = [
        f"{mine['step']}:\n  embedded: {mine}\n  native:   {theirs}"
        for mine, theirs in zip(map(normalised, embedded), map(normalised, native), strict=True)
        if mine != theirs
    ]
    assert not different, "\n".join(different)


def test_a_difference_is_seen() -> None:
    steps, _ = session(NetworkName.EMBEDDED)
    for step in steps:
        for field, value in step.items():
            changed = {**step, field: f"{value}?"}

            assert normalised(changed) != normalised(step)


def normalised(step: dict[str, Any]) -> Any:
    text = json.dumps(step, sort_keys=True)
    for pattern, name in REPLACED:
        text = re.sub(pattern, name, text)
    return json.loads(text)
