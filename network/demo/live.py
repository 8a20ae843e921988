"""The command `kvr demo`: a week of customer service on a live network, through its REST service, as tables.

Every command it uses is one that a user types, and is shown; what is printed as a result was just read, by SQL or from
a peer. It ends with status 0 only when everything went as it should: every call answered as the script expects, the
tables hold what the peer's own range query gives, and what is private is where it belongs and nowhere else.
"""

import asyncio
import json
import shlex
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, NamedTuple

import httpx2
from rich.console import Console

from gateway.client.channel import Endpoint, NodeChannel
from gateway.client.gateway import Gateway
from gateway.client.identity import SigningIdentity
from network.creation import CreatedNetwork
from network.demo.console import (
    DemoError,
    group_entry,
    heading,
    open_database,
    question,
    read,
    run_kvr,
    say,
    show,
    show_next_commands,
)
from network.demo.week import BILLING, CUSTOMER, FIELD, PROFILE_COLLECTION, SERVICE, Call, Week, scripted_week
from network.errors import NetworkError
from network.operation import destroy, down, is_network, up
from network.running.interruption import uninterrupted
from network.running.ports import LOOPBACK, choose_ports
from network.running.process import ProcessTable
from network.running.root import NetworkKind, NetworkRoot
from network.topology.topology_file import shipped_topology

CHANNEL: Final = "consortium"
AGENT: Final = "agent"
IN_FLIGHT: Final = 64
START_SECONDS: Final = 30.0
FOLLOW_SECONDS: Final = 30.0
POLL_SECONDS: Final = 0.05
PAGE: Final = 100
SERVED: Final = (SERVICE, BILLING, FIELD, CUSTOMER)
FOLLOWING: Final = (SERVICE, CUSTOMER)
OK: Final = 200
SERVICE_MODULES: Final = (
    *("gateway.main", "uvicorn", "gateway.api.app", "gateway.api.fabric_ledger", "gateway.client.profile"),
    "gateway.wallet.folder_wallet",
)
"""What a REST service imports; the services of the organisations share it."""
INTENTION: Final = """\
  1. a Fabric network of four organisations with peers, and auditors; a Python contract on it
  2. a week of customer service through the REST service of each organisation
  3. what two organisations see of it, as SQL tables that followed the blocks as they came"""


class _Answered(NamedTuple):
    call: Call
    status: int
    document: dict[str, Any]


def show_live_demo(directory: Path, console: Console, *, is_native: bool) -> None:
    """Show the demo in a folder; raises DemoError."""
    root = NetworkRoot(directory / "network")
    kind = NetworkKind.NATIVE if is_native else NetworkKind.EMBEDDED
    say(console, "A week of customer service on a Hyperledger Fabric network, as tables:", style="bold")
    say(console, INTENTION)
    say(console, f"Everything is written into {directory}/, nothing anywhere else.")
    started = time.monotonic()
    try:
        _clear(directory, root)
        heading(console, "1. The network")
        flags = " --native" if is_native else ""
        say(console, f"$ kvr network up --root {shlex.quote(str(root.path))}{flags}", style="cyan")
        network = up(root, shipped_topology("dev"), kind, lambda step: say(console, f"  {step}"))
        say(console, f"ready after {time.monotonic() - started:.1f} s: {kind.value} network, {root.path}")
        try:
            _show_week(console, directory, network)
        finally:
            with uninterrupted():
                down(root)
    except NetworkError as error:
        raise DemoError(f"{error.code}: {error}") from error
    heading(console, f"All as it should be, in {time.monotonic() - started:.0f} s. What to try next")
    _suggest(console, directory, root)


def _show_week(console: Console, directory: Path, network: CreatedNetwork) -> None:
    table = ProcessTable(network.root.processes, network.state.network_id)
    heading(console, "2. A week of customer service")
    ports = choose_ports({f"gateway.{name}": 0 for name in SERVED})
    with table.forking(*SERVICE_MODULES):
        tokens = {name: _token(console, directory, name) for name in SERVED}
        for name in SERVED:
            _start_gateway(console, directory, network, table, name, ports[f"gateway.{name}"])
        followers = {name: _start_follower(console, directory, network, table, name) for name in FOLLOWING}
    week = scripted_week()
    answers = asyncio.run(_work(console, week, {name: ports[f"gateway.{name}"] for name in SERVED}, tokens))
    _show_answers(console, answers)

    heading(console, "3. The tables")
    height, records = asyncio.run(_ask_peer(network))
    for name, database in followers.items():
        _wait_for(database, height, table, name)
    table.end([f"sync.{name}" for name in FOLLOWING])
    with closing(open_database(followers[SERVICE])) as service, closing(open_database(followers[CUSTOMER])) as customer:
        _show_tables(console, service)
        _check_rows(console, service, records)
        _show_private(console, service, customer, week)


# The network's surroundings


def _clear(directory: Path, root: NetworkRoot) -> None:
    """Remove what an earlier demo made here; a folder of somebody else's is left alone."""
    if is_network(root):
        destroy(root)
    elif root.path.exists() and any(path != root.lock_file for path in root.path.iterdir()):
        raise DemoError(f"{root.path} was not made by this demo and is left alone; name another --directory")
    for name in FOLLOWING:
        for suffix in ("", "-wal", "-shm", "-journal"):
            Path(f"{_database(directory, name)}{suffix}").unlink(missing_ok=True)


def _database(directory: Path, msp_id: str) -> Path:
    return directory / f"{msp_id}.db"


def _kvr(console: Console, table: ProcessTable, name: str, network: CreatedNetwork, arguments: Sequence[str]) -> None:
    """Start a command of ours as a process of the network, so that it ends with it."""
    say(console, f"$ kvr {shlex.join(arguments)} &", style="cyan")
    table.start_python(name, group_entry(arguments[0]), arguments[1:], folder=network.root.path)


def _start_follower(
    console: Console, directory: Path, network: CreatedNetwork, table: ProcessTable, msp_id: str
) -> Path:
    database = _database(directory, msp_id)
    pin = sha256(network.genesis(network.topology.channel(CHANNEL))).hexdigest()
    arguments = [
        *("sync", "follow", "--profile", str(network.root.profile(msp_id)), "--msp-id", msp_id),
        *("--identity", str(network.credentials.user_msp(msp_id, AGENT)), "--channel", CHANNEL, "--private-data"),
        *("--mapping", "service", "--pin", pin, "--into", f"sqlite:///{database.absolute()}"),
    ]
    _kvr(console, table, f"sync.{msp_id}", network, arguments)
    return database


def _start_gateway(  # what a service is started with
    console: Console, directory: Path, network: CreatedNetwork, table: ProcessTable, msp_id: str, port: int
) -> None:
    arguments = [
        *("gateway", "serve", "--profile", str(network.root.profile(msp_id)), "--channel", CHANNEL),
        *("--wallet", str(network.credentials.user_msp(msp_id, AGENT).parents[1])),
        *("--token-key", str(_token_key(directory, msp_id)), "--port", str(port)),
        *("--collection", f"{PROFILE_COLLECTION}={SERVICE},{BILLING}"),
    ]
    _kvr(console, table, f"gateway.{msp_id}", network, arguments)


def _token_key(directory: Path, msp_id: str) -> Path:
    return (directory / "network" / "tokens" / f"{msp_id}.key").absolute()


def _token(console: Console, directory: Path, msp_id: str) -> str:
    key = _token_key(directory, msp_id)
    key.parent.mkdir(parents=True, exist_ok=True)
    ended = run_kvr(console, "gateway", "token", AGENT, "--token-key", str(key))
    if ended.exit_status != 0:
        raise DemoError(f"no token for {AGENT} of {msp_id}: {ended.errors}")
    return ended.output.strip()


# The week


async def _work(console: Console, week: Week, ports: dict[str, int], tokens: dict[str, str]) -> list[_Answered]:
    """Make all calls of the week; give what was answered."""
    answers: list[_Answered] = []
    limit = asyncio.Semaphore(IN_FLIGHT)
    async with httpx2.AsyncClient(trust_env=False, timeout=60) as client:

        async def made(call: Call) -> _Answered:
            url = f"http://{LOOPBACK}:{ports[call.organization]}{call.path}"
            async with limit:
                headers = {"Authorization": f"Bearer {tokens[call.organization]}"}
                answer = await client.post(url, json=call.body, headers=headers)
            return _Answered(call, answer.status_code, answer.json())

        await asyncio.gather(*[_serving(client, port, name) for name, port in ports.items()])
        for day, waves in week.days():
            began, count = time.monotonic(), len(answers)
            for wave in waves:
                answers += await asyncio.gather(*[made(call) for call in wave])
            say(console, f"  {day}: {len(answers) - count} calls in {time.monotonic() - began:.1f} s")
    return answers


async def _serving(client: httpx2.AsyncClient, port: int, name: str) -> None:
    """Wait until a REST service answers."""
    try:
        async with asyncio.timeout(START_SECONDS):
            while True:
                try:
                    answer = await client.get(f"http://{LOOPBACK}:{port}/health/live")
                except httpx2.TransportError:
                    await asyncio.sleep(POLL_SECONDS)
                else:
                    if answer.status_code == OK:
                        return
    except TimeoutError as error:
        raise DemoError(f"the REST service of {name} did not answer in {START_SECONDS:.0f} s") from error


def _show_answers(console: Console, answers: Sequence[_Answered]) -> None:
    """Show what the calls came to; raises DemoError where the script expected something else."""
    counted = Counter((answer.status, _reason(answer)) for answer in answers)
    say(console, "\nWhat the REST service answered:", style="bold")
    for (status, reason), count in sorted(counted.items()):
        say(console, f"  {count:4} x {status} {reason}")
    for answer in answers:
        if answer.call.status not in (None, answer.status):
            raise DemoError(
                f"{answer.call.organization} POST {answer.call.path}: {answer.status} instead of {answer.call.status}, "
                f"{_reason(answer)}"
            )
    if not any(answer.call.status is None and answer.status >= 400 for answer in answers):  # HTTP's
        raise DemoError("no two calls collided, although they were sent at the same moment")


def _reason(answer: _Answered) -> str:
    """Give a problem's title and detail in one line, and for a success what was done."""
    if answer.status < 300:  # HTTP's
        return "written, with transaction id and block"
    detail = str(answer.document.get("detail", ""))
    return f"{answer.document.get('title', '')}: {detail}" if detail else str(answer.document.get("title", ""))


async def _ask_peer(network: CreatedNetwork) -> tuple[int, dict[str, dict[str, Any]]]:
    """Give the channel's height, and all requests by the contract's own range query at the customers' peer."""
    organization = network.topology.organization(CUSTOMER)
    endpoint = Endpoint(network.address(organization.nodes[0].name), network.credentials.tls_ca_pem(CUSTOMER))
    identity = SigningIdentity.from_msp_folder(CUSTOMER, network.credentials.user_msp(CUSTOMER, AGENT))
    async with NodeChannel(endpoint) as channel:
        gateway = Gateway(identity, channel).network(CHANNEL)
        records: dict[str, dict[str, Any]] = {}
        bookmark = ""
        while True:
            answer = await gateway.contract("service").evaluate("list_requests", str(PAGE), bookmark)
            page = json.loads(answer)
            records |= {record["id"]: record for record in page["records"]}
            bookmark = page["bookmark"]
            if not bookmark:
                return await gateway.height(), records


# The tables


def _wait_for(database: Path, height: int, table: ProcessTable, msp_id: str) -> None:
    """Wait until an engine has applied every block below the height."""
    deadline = time.monotonic() + FOLLOW_SECONDS
    name = f"sync.{msp_id}"
    at = None
    while time.monotonic() < deadline:
        if table.recorded(name) is None:
            raise DemoError(f"the engine of {msp_id} ended: {table.log_tail(name)}")
        with _looked_into(database) as connection:
            at = None if connection is None else _last_block(connection)
        if at is not None and at >= height - 1:
            return
        asyncio.run(asyncio.sleep(POLL_SECONDS))
    raise DemoError(f"the engine of {msp_id} stands at block {at}, the channel at {height - 1}")


@contextmanager
def _looked_into(database: Path) -> Iterator[sqlite3.Connection | None]:
    if not database.exists():
        yield None
        return
    with closing(open_database(database)) as connection:
        yield connection


def _last_block(connection: sqlite3.Connection) -> int | None:
    try:
        row = connection.execute("SELECT max(block_number) FROM ledger_checkpoint").fetchone()
    except sqlite3.OperationalError:
        return None  # the tables are being made
    return None if row is None else row[0]


def _show_tables(console: Console, connection: sqlite3.Connection) -> None:
    show(console, connection, question("state"))
    show(console, connection, question("live-open-requests"))
    for eventful in show(console, connection, question("live-eventful-request")):
        show(console, connection, question("live-request-history"), request=eventful["request"])
    show(console, connection, question("verdicts"))
    refused = show(console, connection, question("live-refused"))
    if not refused:
        raise DemoError("the tables know of no refused transaction, although calls collided")


def _check_rows(console: Console, connection: sqlite3.Connection, records: dict[str, dict[str, Any]]) -> None:
    """Compare every request of the tables with the peer's own range query; raises DemoError."""
    rows = {row["id"]: row["status"] for row in read(connection, question("live-all-requests"))}
    if rows != {request: record["status"] for request, record in records.items()}:
        raise DemoError(f"the tables hold {len(rows)} requests, the peer gives {len(records)}, or their states differ")
    say(console, "\nThe same by the peer's own range query (CustomerMSP's peer, contract function list_requests):")
    say(console, f"  {len(records)} requests, each in the state that the tables say")


def _show_private(console: Console, service: sqlite3.Connection, customer: sqlite3.Connection, week: Week) -> None:
    """Show who holds the private profiles; raises DemoError when it is not the members alone."""
    say(console, f"\nIn the database of {SERVICE}, a member of {PROFILE_COLLECTION}:", style="bold")
    held = show(console, service, question("live-profiles"))
    say(console, f"\nIn the database of {CUSTOMER}, which is none:", style="bold")
    absent = show(console, customer, question("live-profiles"))
    counted = sum(row["profiles"] for row in held)
    if counted != len(week.profiles) or absent:
        raise DemoError(
            f"{SERVICE} holds {counted} profiles of {len(week.profiles)}, {CUSTOMER} {len(absent)} kinds of them"
        )
    public = [connection.execute("SELECT count(*) FROM customers").fetchone()[0] for connection in (service, customer)]
    say(console, f"  customers without names: {public[0]} and {public[1]} rows")
    if public != [week.customers, week.customers]:
        raise DemoError(f"{week.customers} customers were registered; the tables hold {public}")


def _suggest(console: Console, directory: Path, root: NetworkRoot) -> None:
    database = f"sqlite:///{_database(directory, SERVICE)}"
    commands = {
        "The network again, with everything that is on it:": ("kvr", "network", "up", "--root", str(root.path)),
        "Where do the tables stand?": ("kvr", "sync", "status", "--database", database),
        "Everything of it away:": ("kvr", "network", "destroy", "--root", str(root.path)),
        "A recorded week of a real network, and forgeries:": ("kvr", "demo", "recorded"),
    }
    show_next_commands(console, commands)
