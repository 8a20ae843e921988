"""Private values between real peers: one that a member's peer really lacked, a purge, an expiry; and their tables.

The network is this file's own, since peers are killed in it.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.client.errors import ClientError
from tests.support.command import kvr
from tests.support.evidence import wait_until
from tests.support.live_network import (
    BILLING,
    CHANNEL,
    CUSTOMER,
    PROBE,
    SERVICE,
    LiveNetwork,
    NetworkName,
    live_network,
)
from tests.support.tables import check_feed, query

BLOCKS_TO_LIVE = 3
COLLECTIONS = f"""\
          - name: loose
            members: OR('ServiceMSP.member', 'BillingMSP.member')
            endorsement: OR('ServiceMSP.peer', 'BillingMSP.peer')
          - name: brief
            members: OR('ServiceMSP.member', 'BillingMSP.member')
            endorsement: OR('ServiceMSP.peer', 'BillingMSP.peer')
            block_to_live: {BLOCKS_TO_LIVE}
"""
"""Nobody is sent anything at endorsement (max_peer_count 0): the other member's peer asks for it when it commits."""
SHORT_WAITS = {
    "CORE_PEER_GOSSIP_PVTDATA_PULLRETRYTHRESHOLD": "2s",
    "CORE_PEER_GOSSIP_PVTDATA_RECONCILESLEEPINTERVAL": "2s",
}
"""Of real peers; 60 seconds otherwise, as in the embedded network."""
MAPPING = """\
kvr_mapping: 1
tables:
  secrets:
    namespace: probe
    collections: [loose, brief]
    key: {prefix: ""}
    columns:
      name: {from: key, type: text, required: true}
      secret: {from: value, type: text, required: true}
"""
RECONCILED_SECONDS = 90.0


@pytest.fixture(scope="module", params=[NetworkName.EMBEDDED, NetworkName.NATIVE], ids=str)
def network(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveNetwork]:
    """Give a network of these tests alone."""
    name: NetworkName = request.param
    with live_network(name, tmp_path_factory.mktemp(name.value), collections=COLLECTIONS, **SHORT_WAITS) as network:
        yield network


class Tables:
    """The tables of one member, brought up by the command."""

    def __init__(self, network: LiveNetwork, msp_id: str, folder: Path) -> None:
        self.url = f"sqlite:///{folder / f'{msp_id}.db'}"
        self.files = f"{msp_id}.db*"
        mapping = folder / "mapping.yaml"
        mapping.write_text(MAPPING, encoding="utf-8")
        identity = network.created.credentials.user_msp(msp_id, "agent")
        self._peers = (
            *("--profile", str(network.root.profile(msp_id)), "--msp-id", msp_id, "--channel", CHANNEL),
            *("--identity", str(identity), "--into", self.url, "--json"),
        )
        self._mapping = ("--mapping", str(mapping), "--private-data")

    def run(self) -> dict[str, Any]:
        return self._kvr("run", *self._mapping)

    def backfill(self) -> dict[str, Any]:
        return self._kvr("backfill")

    def _kvr(self, verb: str, *options: str) -> dict[str, Any]:
        done = kvr("sync", verb, *self._peers, *options, seconds=100)
        assert done.returncode == 0, done.stderr + done.stdout
        facts: dict[str, Any] = json.loads(done.stdout)
        return facts

    def as_of(self, block: int, name: str) -> list[tuple[Any, ...]]:
        done = kvr("sync", "query", "secrets", "--database", self.url, "--as-of", str(block), "--json")
        assert done.returncode == 0, done.stderr
        return [
            (row["kvr_kind"], row["secret"])
            for row in json.loads(done.stdout)["rows"]
            if row["name"] in (name, None) and row["kvr_block_number"] == block
        ]

    def secret(self, name: str) -> list[tuple[Any, ...]]:
        return query(self.url, "SELECT secret, kvr_block_number FROM secrets WHERE name = ?", [name])


def keep(network: LiveNetwork, collection: str, name: str, secret: str) -> int:
    """Have the service department's peer alone endorse a private value; give its block."""

    async def story() -> int:
        async with network.contract(SERVICE, chaincode=PROBE) as probe:
            done = await probe.submit_transaction(
                "keep_private",
                collection,
                name,
                transient={"secret": secret.encode()},
                endorsing_organizations=[SERVICE],
            )
        return done.status.block_number

    return network.run(story)


def purge(network: LiveNetwork, collection: str, name: str) -> int:
    async def story() -> int:
        async with network.contract(SERVICE, chaincode=PROBE) as probe:
            done = await probe.submit_transaction("purge_private", collection, name, endorsing_organizations=[SERVICE])
        return done.status.block_number

    return network.run(story)


def pad(network: LiveNetwork, count: int) -> int:
    """Write public blocks; give the last."""

    async def story() -> int:
        number = -1
        async with network.contract(SERVICE, chaincode=PROBE) as probe:
            for _ in range(count):
                done = await probe.submit_transaction("put", network.fresh("k"), "v")
                number = done.status.block_number
        await network.wait_for_block(number, SERVICE, BILLING, CUSTOMER)
        return number

    return network.run(story)


def has(network: LiveNetwork, msp_id: str, name: str, secret: str) -> bool:
    """Whether an organisation's own peer answers a private read with the value."""

    async def story() -> bool:
        async with network.contract(msp_id, chaincode=PROBE) as probe:
            return await probe.evaluate("read_private", "loose", name) == secret.encode()

    try:
        return network.run(story)
    except ClientError:
        return False


def node(network: LiveNetwork, verb: str, msp_id: str) -> None:
    name = network.created.topology.organization(msp_id).nodes[0].name
    done = kvr("network", "node", verb, name, "--root", str(network.root.path), seconds=100, **network.settings)
    assert done.returncode == 0, done.stderr


def height_reached(network: LiveNetwork, msp_id: str, number: int) -> bool:
    try:
        return network.run(lambda: network.height(msp_id)) > number
    except ClientError:
        return False


@pytest.mark.timeout(420)
def test_a_value_that_the_peer_lacked_is_missing_until_it_has_come_and_gone_when_it_is_purged(
    network: LiveNetwork, tmp_path: Path
) -> None:
    name, canary = network.fresh("name"), network.fresh("canary")
    billing = Tables(network, BILLING, tmp_path)
    node(network, "kill", BILLING)
    number = keep(network, "loose", name, canary)
    node(network, "kill", SERVICE)
    node(network, "restart", BILLING)
    wait_until(lambda: height_reached(network, BILLING, number), "the block is there, its value nowhere", seconds=90)
    assert not has(network, BILLING, name, canary)

    lacking = billing.run()
    assert lacking["private"]["missing"] == 1
    assert billing.backfill() == {"asked": 1, "arrived": 0, "refused": 0, "missing": 1}
    assert billing.as_of(number, name) == [("missing", None)]
    node(network, "restart", SERVICE)
    wait_until(lambda: has(network, BILLING, name, canary), "the peer has found it", seconds=RECONCILED_SECONDS)
    assert billing.backfill() == {"asked": 1, "arrived": 1, "refused": 0, "missing": 0}

    assert billing.secret(name) == [(canary, number)]
    assert billing.as_of(number, name) == [("put", canary)]
    changes = "SELECT kvr_change FROM secrets_changes WHERE kvr_block_number = ?"
    assert query(billing.url, changes, [number]) == [("late",)]

    purged = purge(network, "loose", name)
    network.run(lambda: network.wait_for_block(purged, SERVICE, BILLING))
    billing.run()
    assert billing.secret(name) == []
    assert billing.as_of(number, name) == [("erased", None)]
    assert query(billing.url, changes, [purged]) == [("erasure",)]
    check_feed(billing.url, "secrets")
    content = b"".join(path.read_bytes() for path in tmp_path.glob(billing.files))
    assert canary.encode() not in content
    assert name.encode() not in content
    (tmp_path / "anew").mkdir()
    anew = Tables(network, BILLING, tmp_path / "anew")
    assert anew.run()["private"]["missing"] == 0
    assert (anew.secret(name), anew.as_of(number, name)) == ([], [("erased", None)])


@pytest.mark.timeout(420)
def test_a_value_is_erased_with_the_block_of_its_expiry_as_it_is_at_the_peer(
    network: LiveNetwork, tmp_path: Path
) -> None:
    name, canary = network.fresh("name"), network.fresh("canary")
    service = Tables(network, SERVICE, tmp_path)
    number = keep(network, "brief", name, canary)
    service.run()
    assert service.secret(name) == [(canary, number)]

    assert pad(network, BLOCKS_TO_LIVE) == number + BLOCKS_TO_LIVE
    service.run()
    assert service.secret(name) == [(canary, number)]
    pad(network, 1)
    service.run()

    assert service.secret(name) == []
    assert service.as_of(number, name) == [("erased", None)]
    erased = "SELECT kvr_erased_block - kvr_block_number, kvr_erased_by FROM secrets_history WHERE kvr_block_number = ?"
    assert query(service.url, erased, [number]) == [(BLOCKS_TO_LIVE + 1, "expiry")]
    assert canary.encode() not in b"".join(path.read_bytes() for path in tmp_path.glob(service.files))
