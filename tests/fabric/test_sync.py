"""From live networks to tables: followed through kills, private values with members alone, equal to the peers' own."""

import asyncio
import json
import re
import secrets
import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager
from hashlib import sha256
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import yaml

from gateway.client.blocks import BlockStream, Stop
from gateway.client.contract import Contract
from tests.support.archived import archived_contents
from tests.support.command import kvr, kvr_running
from tests.support.comparison import assert_tables_equal_oracle, check_tables
from tests.support.evidence import wait_until
from tests.support.live_network import BILLING, CHANNEL, CUSTOMER, FIELD, SERVICE, LiveNetwork, NetworkName, on
from tests.support.oracle import read_ledger
from tests.support.tables import applied, query

MAPPING = Path(__file__).parents[2] / "kvr_sync" / "mapping" / "service.mapping.yaml"
PAGE = "200"


def options(network: LiveNetwork, msp_id: str) -> list[str]:
    """Give what `kvr sync` is told of an organisation's peer."""
    return [
        *("--profile", str(network.root.profile(msp_id)), "--msp-id", msp_id, "--channel", CHANNEL),
        *("--identity", str(network.created.credentials.user_msp(msp_id, "agent")), "--mapping", "service"),
    ]


def pin(network: LiveNetwork) -> str:
    genesis = network.created.genesis(network.created.topology.channel(CHANNEL))
    return sha256(genesis).hexdigest()


@contextmanager
def following(network: LiveNetwork, msp_id: str, url: str, folder: Path) -> Iterator[Any]:
    log = folder / f"{msp_id}.log"
    with kvr_running(
        log, "sync", "follow", *options(network, msp_id), "--private-data", "--pin", pin(network), "--into", url
    ) as process:
        yield process


async def work(network: LiveNetwork, count: int) -> list[str]:
    """Have departments and customers work on so many requests, some of which lose a race; give their ids."""
    async with network.contracts(SERVICE, CUSTOMER, FIELD) as (service, customers, field):
        return await asyncio.gather(*[handle(network, service, customers, field, number) for number in range(count)])


async def handle(network: LiveNetwork, service: Contract, customers: Contract, field: Contract, number: int) -> str:
    customer, request = network.fresh("C"), network.fresh("R")
    household = json.dumps({"kind": "household", "region": ("北区", "Süd")[number % 2]})
    done = await service.submit_transaction("register_customer", network.fresh("key"), customer, household)
    await network.wait_for_block(done.status.block_number, CUSTOMER)
    document = {"customer": customer, "category": "meter", "title": "电表不走", "tags": ["急", "VIP"], "priority": 2}
    done = await customers.submit_transaction("open_request", network.fresh("key"), request, json.dumps(document))
    if number % 3 == 0:
        return request
    await network.wait_for_block(done.status.block_number, FIELD)
    first, second = [await field.endorse("assign_request", network.fresh("key"), request, "field") for _ in range(2)]
    statuses = [await (await transaction.submit()).status() for transaction in (first, second)]
    assert [status.code for status in statuses] == ["VALID", "MVCC_READ_CONFLICT"]
    resolution = json.dumps({"resolution": "已上门维修", "minutes_spent": 35})
    await field.submit_transaction("resolve_request", network.fresh("key"), request, resolution)
    return request


async def listed(network: LiveNetwork, msp_id: str, function: str) -> dict[str, Any]:
    """Give all records of a range query of the organisation's own peer, by id."""
    found: dict[str, Any] = {}
    bookmark = ""
    async with network.contract(msp_id) as contract:
        while True:
            page = json.loads(await contract.evaluate(function, PAGE, bookmark))
            found |= {record["id"]: record for record in page["records"]}
            bookmark = page["bookmark"]
            if not bookmark:
                return found


async def raw_blocks(network: LiveNetwork, msp_id: str) -> list[bytes]:
    async with network.channel(msp_id) as channel:
        stream = BlockStream(network.identity(msp_id, "agent"), channel, CHANNEL)
        return [block.content async for block in stream.blocks(0, stop=Stop.NEWEST, idle_seconds=30)]


@on(*NetworkName)
def test_tables_followed_through_kills_equal_the_peers_own_records(
    network: LiveNetwork, database_url: str, tmp_path: Path
) -> None:
    with following(network, SERVICE, database_url, tmp_path) as process:
        network.run(lambda: work(network, 4))
        wait_until(lambda: applied(database_url) > 0, "the first blocks", seconds=40)
        process.send_signal(signal.SIGKILL)
        process.wait()
    network.run(lambda: work(network, 4))
    with following(network, SERVICE, database_url, tmp_path) as process:
        requests = network.run(lambda: work(network, 2))
        height = network.run(network.settled_height)
        wait_until(lambda: applied(database_url) >= height, f"{height} blocks are applied", seconds=40)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=40) == 0

    blocks = network.run(lambda: raw_blocks(network, SERVICE))
    assert_tables_equal_oracle(database_url, blocks, MAPPING)
    assert query(database_url, "SELECT anchor FROM ledger_checkpoint") == [("pinned",)]
    assert query(database_url, "SELECT count(*) FROM ledger_block WHERE NOT commit_hash_verified") == [(1,)]
    for table, function in (("service_requests", "list_requests"), ("customers", "list_customers")):
        records = network.run(lambda function=function: listed(network, SERVICE, function))
        rows = query(database_url, f"SELECT id FROM {table}")  # noqa: S608  # a name of ours
        assert sorted(str(row[0]) for row in rows) == sorted(records)
    states = {
        str(row[0]): row[1:] for row in query(database_url, "SELECT id, status, title, tags FROM service_requests")
    }
    for request in requests:
        status, title, tags = states[request]
        assert (status, title) == (records_status(network, request), "电表不走")
        assert (json.loads(tags) if isinstance(tags, str) else tags) == ["急", "VIP"]


def settings_file(network: LiveNetwork, url: str, folder: Path) -> Path:
    """Write the settings of a service that reads as the service organisation, keeps an archive and gives metrics."""
    identity = network.created.credentials.user_msp(SERVICE, "agent")
    channel = {"channel": CHANNEL, "profile": str(network.root.profile(SERVICE)), "msp_id": SERVICE, "every": "1s"}
    given = {"identity": str(identity), "mapping": "service", "pin": pin(network), "archive": str(folder / "archive")}
    content = {
        "database": url,
        "metrics": {"port": 0, "ready_lag": "60s"},
        "channels": [{**channel, **given, "private_data": True}],
    }
    path = folder / "settings.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def asked(log: Path, path: str) -> tuple[int, str]:
    """Ask the port that a service says it has opened."""
    told = re.search(r'"address": "(127\.0\.0\.1:\d+)"', log.read_text())
    assert told, log.read_text()
    with closing(HTTPConnection(told[1], timeout=10)) as connection:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


@on(NetworkName.EMBEDDED, NetworkName.NATIVE)
def test_a_service_keeps_an_archive_gives_metrics_and_takes_up_a_new_mapping(
    network: LiveNetwork, database_url: str, tmp_path: Path
) -> None:
    settings = settings_file(network, database_url, tmp_path)
    definition = yaml.safe_load(MAPPING.read_text())
    definition["tables"]["customers"]["columns"]["area"] = definition["tables"]["customers"]["columns"].pop("region")
    other = tmp_path / "other.mapping.yaml"
    other.write_text(yaml.safe_dump(definition, sort_keys=False))
    log = tmp_path / "service.log"
    with kvr_running(log, "sync", "serve", "--settings", str(settings)) as process:
        network.run(lambda: work(network, 3))
        wait_until(lambda: applied(database_url) > 0, "the first blocks", seconds=40)
        changed = kvr(
            *("sync", "apply", "--mapping", str(other), "--database", database_url, "--why", "areas, not regions")
        )
        assert changed.returncode == 0, changed.stderr
        network.run(lambda: work(network, 2))
        height = network.run(network.settled_height)
        wait_until(lambda: applied(database_url) >= height, f"{height} blocks are applied", seconds=40)
        wait_until(lambda: asked(log, "/ready")[0] == 200, "the service says it is ready", seconds=40)
        metrics = asked(log, "/metrics")[1]
        assert asked(log, "/live")[0] == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=40) == 0

    blocks = network.run(lambda: raw_blocks(network, SERVICE))
    heights = {float(line.split()[-1]) for line in metrics.splitlines() if line.startswith("kvr_sync_source_height{")}
    assert max(heights) <= len(blocks)
    assert f'kvr_sync_checkpoint_block{{channel="{CHANNEL}"}} ' in metrics
    archive = tmp_path / "archive" / CHANNEL
    assert archived_contents(archive)[:height] == blocks[:height]
    again = f"sqlite:///{tmp_path / 'again.db'}"
    done = kvr("sync", "replay", str(archive), "--database", again, "--mapping", "service", "--pin", pin(network))
    assert done.returncode == 0, done.stderr
    kept = applied(again)
    assert kept == applied(database_url)
    for url in (database_url, again):
        assert_tables_equal_oracle(url, blocks[:kept], MAPPING)
    check_tables(database_url, read_ledger(blocks[:kept]), kept, definition, api_version=2)


def records_status(network: LiveNetwork, request: str) -> str:
    async def asked() -> str:
        async with network.contract(CUSTOMER) as contract:
            record = json.loads(await contract.evaluate("read_request", request))
        return str(record["status"])

    return network.run(asked)


def test_private_profiles_are_rows_of_members_alone(network: LiveNetwork, tmp_path: Path) -> None:
    canary = network.fresh("黄杰")
    reference = secrets.token_hex(16)

    async def store() -> None:
        profile = {"reference": reference, "salt": secrets.token_hex(16), "name": canary, "phone": "+49 30 1"}
        async with network.contract(SERVICE) as contract:
            await contract.submit_transaction(
                "store_profile",
                network.fresh("key"),
                "service-billing",
                transient={"profile": json.dumps(profile).encode()},
                endorsing_organizations=[SERVICE, BILLING],
            )

    network.run(store)
    network.run(network.settled_height)
    rows = {}
    for msp_id in (SERVICE, BILLING, CUSTOMER, FIELD):
        url = f"sqlite:///{tmp_path / f'{msp_id}.db'}"
        done = kvr("sync", "run", *options(network, msp_id), "--private-data", "--into", url, "--json", seconds=100)
        assert done.returncode == 0, done.stderr
        rows[msp_id] = query(url, "SELECT name, held_in FROM customer_profiles WHERE reference = ?", [reference])
        content = b"".join(path.read_bytes() for path in tmp_path.glob(f"{msp_id}.db*"))
        assert (canary.encode() in content) is (msp_id in (SERVICE, BILLING))
    assert rows == {
        SERVICE: [(canary, "service-billing")],
        BILLING: [(canary, "service-billing")],
        CUSTOMER: [],
        FIELD: [],
    }


def test_a_reader_of_another_organisation_is_refused_by_name(network: LiveNetwork, tmp_path: Path) -> None:
    stranger = network.created.topology.orderer_organizations[0].msp_id
    identity = network.created.credentials.user_msp(stranger, "admin")
    url = f"sqlite:///{tmp_path / 'stranger.db'}"
    arguments = [
        *("--profile", str(network.root.profile(SERVICE)), "--msp-id", SERVICE, "--channel", CHANNEL),
        *("--identity", str(identity), "--mapping", "service", "--into", url),
    ]

    done = kvr("sync", "run", *arguments)

    assert done.returncode == 1
    assert "access_denied" in done.stderr
    assert query(url, "SELECT count(*) FROM ledger_block") == [(0,)]
