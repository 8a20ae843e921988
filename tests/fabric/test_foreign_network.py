"""Networks that others created, with Fabric's own programs and their own first block: a profile and an identity do.

An enterprise deploys a contract of ours on its channel, organisation by organisation, looks at the channel, and has its
blocks as tables.
"""

import asyncio
import json
import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from gateway.client.channel import NodeChannel
from gateway.client.gateway import Gateway
from gateway.client.identity import SigningIdentity
from gateway.client.profile import read_profile
from tests.support.command import COMMAND, kvr
from tests.support.foreign_network import CHANNEL, ORGANIZATIONS, ForeignNetwork, foreign_network
from tests.support.live_network import START_SECONDS, NetworkName
from tests.support.tables import query

POLICY = "AND('ServiceMSP.peer', 'CustomerMSP.peer')"
DEFINITION = ("--channel", CHANNEL, "--version", "1.0", "--sequence", "1", "--policy", POLICY)
CONTRACTS = Path(__file__).parents[1] / "support" / "contracts"


@pytest.fixture(scope="module", params=[NetworkName.NATIVE], ids=str)
def others(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForeignNetwork]:
    with foreign_network(tmp_path_factory.mktemp("others")) as network:
        yield network


def administration(network: ForeignNetwork, msp_id: str) -> list[str]:
    """Give the options by which an admin of an organisation says who and where."""
    identity = network.user(ORGANIZATIONS[msp_id], "Admin") / "msp"
    return ["--profile", str(network.profile(msp_id)), "--msp-id", msp_id, "--identity", str(identity)]


def command(*arguments: str) -> str:
    done = kvr("network", *arguments, seconds=100)
    assert done.returncode == 0, done.stderr
    return done.stdout


def package(network: ForeignNetwork, msp_id: str) -> tuple[Path, str]:
    tls = network.node(ORGANIZATIONS[msp_id]) / "tls"
    file = network.folder / f"{msp_id}.tar.gz"
    printed = command(
        *("chaincode", "package", "--label", "probe_1", "--out", str(file)),
        *("--address", network.address(f"{msp_id}/contract"), "--root-cert", str(tls / "ca.crt")),
        *("--client-cert", str(tls / "server.crt"), "--client-key", str(tls / "server.key")),
    )
    return file, printed.strip()


def serve(network: ForeignNetwork, msp_id: str, package_id: str) -> None:
    tls = network.node(ORGANIZATIONS[msp_id]) / "tls"
    arguments = [
        *COMMAND,
        *("chaincode", "serve", "probe_contract:contract", "--msp-id", msp_id, "--package-id", package_id),
        *("--address", network.address(f"{msp_id}/contract")),
        *(
            "--tls-cert",
            str(tls / "server.crt"),
            "--tls-key",
            str(tls / "server.key"),
            "--client-ca",
            str(tls / "ca.crt"),
        ),
    ]
    assert arguments[0] == sys.executable
    marks = network.folder / "probe"
    marks.mkdir(exist_ok=True)
    environment = {"PYTHONPATH": str(CONTRACTS), "KVR_TEST_PROBE_FOLDER": str(marks)}
    network.table.start(f"probe.{msp_id}", arguments, environment=environment, folder=network.folder)


@pytest.fixture(scope="module")
def deployed(others: ForeignNetwork) -> ForeignNetwork:
    """Deploy the chaincode `probe` by the commands that an operator types."""
    for msp_id in ORGANIZATIONS:
        file, package_id = package(others, msp_id)
        assert package_id == f"probe_1:{sha256(file.read_bytes()).hexdigest()}"
        serve(others, msp_id, package_id)
        said = command("chaincode", "install", str(file), *administration(others, msp_id))
        assert package_id in said
        assert command("chaincode", "install", str(file), *administration(others, msp_id)) == said
        said = command(
            *("chaincode", "approve", "probe", *administration(others, msp_id), *DEFINITION),
            *("--package-id", package_id),
        )
        assert f"{msp_id}: approved" in said
    command("chaincode", "commit", "probe", *administration(others, "ServiceMSP"), *DEFINITION)
    return others


@pytest.mark.timeout(2 * START_SECONDS)
def test_a_contract_is_deployed_organisation_by_organisation(deployed: ForeignNetwork) -> None:
    async def story() -> bytes:
        endpoint = read_profile(deployed.profile("CustomerMSP")).own_peers("CustomerMSP")[0]
        user = deployed.user(ORGANIZATIONS["CustomerMSP"], "User1") / "msp"
        async with NodeChannel(endpoint) as channel:
            identity = SigningIdentity.from_msp_folder("CustomerMSP", user)
            contract = Gateway(identity, channel).network(CHANNEL).contract("probe")
            committed = await contract.submit_transaction("put", "key", "值")
            assert committed.status.code == "VALID"
            return await contract.evaluate("get", "key")

    assert asyncio.run(story()).decode() == "值"


def test_status_says_what_is_committed_and_who_approved(deployed: ForeignNetwork) -> None:
    said = command("chaincode", "status", *administration(deployed, "CustomerMSP"), "--channel", CHANNEL, "--json")

    (found,) = json.loads(said)
    assert (found["name"], found["version"], found["sequence"]) == ("probe", "1.0", 1)
    assert found["policy"] == POLICY
    assert found["approvals"] == {"ServiceMSP": True, "CustomerMSP": True}


def test_an_approval_that_differs_is_shown_and_not_committed(deployed: ForeignNetwork) -> None:
    differing = ("--channel", CHANNEL, "--version", "2.0", "--sequence", "2", "--policy", POLICY)
    command("chaincode", "approve", "probe", *administration(deployed, "ServiceMSP"), *differing)

    done = kvr("network", "chaincode", "commit", "probe", *administration(deployed, "ServiceMSP"), *differing)

    assert done.returncode == 1
    assert "error[endorse]" in done.stderr
    assert "CustomerMSP" in done.stderr


def test_the_channel_is_shown_as_it_is(deployed: ForeignNetwork) -> None:
    arguments = ("channel", "show", *administration(deployed, "ServiceMSP"), "--channel", CHANNEL)
    facts = json.loads(command(*arguments, "--json"))

    assert facts["organizations"] == ["CustomerMSP", "ServiceMSP"]
    assert facts["consensus"] == "etcdraft"
    assert facts["orderers"] == {"OrdererMSP": [deployed.address("orderer/service")]}
    assert facts["capabilities"] == {"Channel": ["V3_0"], "Orderer": ["V2_0"], "Application": ["V2_5"]}
    assert facts["policies"]["/Channel/Application/Admins"] == "MAJORITY Admins"
    assert facts["policies"]["/Channel/Application/ServiceMSP/Endorsement"] == "OR('ServiceMSP.peer')"
    purposes = {(entry["organization"], entry["purpose"]) for entry in facts["certificates"]}
    assert {("ServiceMSP", "CA"), ("CustomerMSP", "TLS CA"), ("OrdererMSP", "CA")} <= purposes
    assert all(entry["days_left"] > 300 for entry in facts["certificates"])
    assert "organisations: CustomerMSP, ServiceMSP" in command(*arguments)


def test_its_blocks_become_tables(deployed: ForeignNetwork, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'others.db'}"
    identity = deployed.user(ORGANIZATIONS["ServiceMSP"], "User1") / "msp"
    pin = sha256((deployed.folder / "others.block").read_bytes()).hexdigest()
    done = kvr(
        *("sync", "run", "--profile", str(deployed.profile("ServiceMSP")), "--msp-id", "ServiceMSP"),
        *("--identity", str(identity), "--channel", CHANNEL, "--into", url, "--pin", pin, "--json"),
    )

    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert (facts["channel"], facts["anchor"]) == (CHANNEL, "pinned")
    assert query(url, "SELECT count(*) FROM ledger_block WHERE NOT commit_hash_verified") == [(1,)]


def test_a_user_who_is_no_admin_is_refused_by_name(deployed: ForeignNetwork) -> None:
    file = deployed.folder / "ServiceMSP.tar.gz"
    identity = deployed.user(ORGANIZATIONS["ServiceMSP"], "User1") / "msp"
    arguments = ("--profile", str(deployed.profile("ServiceMSP")), "--msp-id", "ServiceMSP")

    done = kvr("network", "chaincode", "install", str(file), *arguments, "--identity", str(identity))

    assert done.returncode == 1
    assert done.stderr.startswith("error[endorser]")
