"""Verbs on a live channel, the same on embedded and on real nodes: configuration, chaincodes, nodes under load."""

import asyncio
import json
import shutil
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from gateway.client.channel import NodeChannel
from gateway.client.endorser import Endorser
from gateway.client.errors import ClientError, EndorseError, EndorserError, EvaluateError
from gateway.client.gateway import Gateway
from network.channel.submission import fetch_configuration
from network.commands import network as commands
from network.creation import read_network
from network.credentials.credential_folder import msp_certificate, msp_key
from network.protocol.block import Block
from network.protocol.validation_code import VALID
from network.running.plan import served_chaincodes
from tests.support.authority import new_node, new_tls, revoked_users
from tests.support.command import kvr
from tests.support.guest import GUEST, guest_peer, make_guest, start_guest_chaincode
from tests.support.live_network import (
    BILLING,
    CHANNEL,
    CUSTOMER,
    FIELD,
    PEERS,
    POLL_SECONDS,
    PROBE,
    SERVICE,
    START_SECONDS,
    LiveNetwork,
    NetworkName,
    live_network,
    on,
    programs,
    write_facts,
)

BFT_ORDERERS = ("EnterpriseOrdererMSP", "CustomerOrdererMSP", "RegulatorOrdererMSP", "NotaryOrdererMSP")
BOTH_KINDS = (NetworkName.EMBEDDED, NetworkName.NATIVE)
BOTH_OF_BFT = (NetworkName.EMBEDDED_BFT, NetworkName.NATIVE_BFT)


@pytest.fixture(scope="session", params=BOTH_KINDS, ids=str)
def network(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveNetwork]:
    """Give a network whose channel, chaincodes and nodes the tests here may change."""
    name: NetworkName = request.param
    with live_network(name, tmp_path_factory.mktemp(f"live-{name.value}")) as made:
        yield made
        write_facts(made)


# --- commands as administrators give them


def who(network: LiveNetwork, msp_id: str, user: str = "admin") -> list[str]:
    return ["--msp-id", msp_id, "--identity", str(network.created.credentials.user_msp(msp_id, user))]


def at(network: LiveNetwork, msp_id: str) -> list[str]:
    return ["--profile", str(network.root.profile(msp_id)), *who(network, msp_id)]


def command(*arguments: str, **variables: str) -> tuple[int, str, str]:
    """Give a command: in this process, unless it starts processes of a network; gives status, output and errors."""
    if not variables:
        result = CliRunner().invoke(commands, arguments[1:])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result.exit_code, result.stdout, result.stderr
    finished = kvr(*arguments, seconds=START_SECONDS, **variables)
    return finished.returncode, finished.stdout, finished.stderr


def done(*arguments: str, **variables: str) -> str:
    """Give what a command printed that has to succeed."""
    status, output, errors = command(*arguments, **variables)
    assert status == 0, (arguments, output, errors)
    return output


def refused(*arguments: str) -> str:
    """Give what a command said that has to fail by an error of ours."""
    status, output, errors = command(*arguments)
    assert status == 1, (arguments, output, errors)
    assert errors.startswith("error["), errors
    return errors


def update(network: LiveNetwork, verb: str, *arguments: str, msp_id: str = SERVICE) -> list[str]:
    return ["network", "channel", "update", verb, *arguments, *at(network, msp_id), "--channel", CHANNEL]


def orderers(network: LiveNetwork) -> tuple[str, ...]:
    """Give the organisations whose admins together rule the orderers' settings."""
    return BFT_ORDERERS[:3] if network.name.is_bft else ("OrdererMSP",)


def change_together(network: LiveNetwork, folder: Path, signers: tuple[str, ...], *words: str) -> str:
    """Make an update as ServiceMSP, have others sign the file, submit it; gives what submitting printed."""
    file = folder / network.fresh("update")
    done(*update(network, *words), "--out", str(file))
    for msp_id in signers:
        done("network", "channel", "update", "sign", str(file), *who(network, msp_id))
    return done("network", "channel", "update", "submit", str(file), *at(network, SERVICE))


async def configuration(network: LiveNetwork, msp_id: str = SERVICE) -> Any:
    async with network.channel(msp_id) as channel:
        fetched = await fetch_configuration(Gateway(network.identity(msp_id, "admin"), channel).network(CHANNEL))
        return fetched.configuration


def sequence(network: LiveNetwork) -> int:
    return int(network.run(lambda: configuration(network)).sequence)


async def put(network: LiveNetwork, key: str, value: str, msp_id: str = SERVICE, user: str = "agent") -> int:
    """Commit one value; gives the number of its block."""
    async with network.contract(msp_id, user, PROBE) as contract:
        committed = await contract.submit_transaction("put", key, value)
        assert committed.status.code == "VALID"
        return int(committed.status.block_number)


# --- configuration


@on(*BOTH_KINDS, *BOTH_OF_BFT)
def test_the_size_of_batches_is_changed_by_several_admins(network: LiveNetwork, tmp_path: Path) -> None:
    before = sequence(network)
    shown = change_together(network, tmp_path, orderers(network), "batch", "--max-messages", "1")

    async def together() -> set[int]:
        return set(await asyncio.gather(*[put(network, network.fresh("b"), "1") for _ in range(4)]))

    try:
        assert sequence(network) == before + 1
        assert "/Channel/Orderer/BatchSize: max_message_count: 100 -> 1" in shown
        assert "is in force, by block" in shown
        assert len(network.run(together)) == 4
    finally:
        change_together(network, tmp_path, orderers(network), "batch", "--max-messages", "100")


def test_one_signature_that_suffices_is_submitted_at_once(network: LiveNetwork) -> None:
    before = sequence(network)
    own = network.endpoint(SERVICE).address

    try:
        printed = done(*update(network, "anchor-peers", "127.0.0.1:9", own, "--organization", SERVICE))
        again = refused(*update(network, "anchor-peers", "127.0.0.1:9", own, "--organization", SERVICE))
    finally:  # peers that come later hear of the others by anchors
        done(*update(network, "anchor-peers", own, "--organization", SERVICE))

    assert sequence(network) == before + 2
    assert "host 127.0.0.1, port 9" in printed
    assert "nothing would change" in again


def test_an_update_that_the_policies_do_not_allow_is_refused(network: LiveNetwork, tmp_path: Path) -> None:
    """Here before anything is sent; and by the orderers, as Fabric's own words say, when it is sent all the same."""
    before = sequence(network)
    file = tmp_path / "update"
    early = refused(*update(network, "batch", "--max-messages", "3"))
    done(*update(network, "batch", "--max-messages", "3"), "--out", str(file))
    for msp_id in (BILLING, FIELD):
        done("network", "channel", "update", "sign", str(file), *who(network, msp_id))
    refused("network", "channel", "update", "submit", str(file), *at(network, SERVICE))

    assert "/Channel/Orderer/Admins" in early
    assert sequence(network) == before


def test_a_document_is_edited_signed_and_submitted(network: LiveNetwork, tmp_path: Path) -> None:
    current, wanted, file = tmp_path / "current.json", tmp_path / "wanted.json", tmp_path / "update"
    done(*update(network, "fetch", "--out", str(current)))
    document = json.loads(current.read_text())
    acls = document["channel_group"]["groups"]["Application"]["values"]["ACLs"]["value"]["acls"]
    acls["qscc/GetTransactionByID"] = {"policy_ref": "/Channel/Application/Writers"}
    wanted.write_text(json.dumps(document))

    printed = done(
        *("network", "channel", "update", "compute", "--channel", CHANNEL, "--current", str(current)),
        *("--wanted", str(wanted), "--out", str(file)),
    )
    for msp_id in (CUSTOMER, SERVICE):
        done("network", "channel", "update", "sign", str(file), *who(network, msp_id))
    shown = json.loads(done("network", "channel", "update", "show", str(file), "--current", str(current), "--json"))
    done("network", "channel", "update", "submit", str(file), *at(network, SERVICE))

    async def ask(user: str) -> None:
        async with network.channel(SERVICE) as channel:
            lookup = Gateway(network.identity("AuditorMSP", user), channel).network(CHANNEL).contract("qscc")
            await lookup.evaluate("GetTransactionByID", CHANNEL, "none")

    assert "acls.qscc/GetTransactionByID.policy_ref: /Channel/Application/Writers" in printed
    assert shown["allowed"] is True
    assert [signature["msp_id"] for signature in shown["signatures"]] == [CUSTOMER, SERVICE]
    with pytest.raises(EvaluateError) as denied:
        network.run(lambda: ask("auditor"))
    assert any("access denied" in detail.message for detail in denied.value.details) or "access denied" in str(
        denied.value.message
    )


def test_a_revoked_client_is_nobody_from_the_next_block_on(network: LiveNetwork, tmp_path: Path) -> None:
    revoked = tmp_path / "revoked.pem"
    now = datetime.fromtimestamp(tmp_path.stat().st_mtime, UTC)
    revoked.write_bytes(revoked_users(network.created.credentials, BILLING, "supervisor", now=now))
    publish = update(network, "crl", str(revoked), "--organization", BILLING, msp_id=BILLING)

    async def story() -> tuple[str, ClientError]:
        async with network.contract(BILLING, "supervisor", PROBE) as contract:
            await contract.submit_transaction("put", network.fresh("r"), "1")
            endorsed = await contract.endorse("put", network.fresh("r"), "2")
            printed = await asyncio.to_thread(done, *publish)
            await network.settled_height()
            with pytest.raises(EndorseError):
                await contract.endorse("put", network.fresh("r"), "3")
            with pytest.raises(ClientError) as late:
                await endorsed.submit()
        return printed, late.value

    printed, late = network.run(story)

    assert "revocation list of 1 certificates" in printed
    assert late.outcome == "not_applied"
    network.run(lambda: put(network, network.fresh("r"), "4", BILLING, "agent"))


# --- an organisation


@contextmanager
def guest_let_in(network: LiveNetwork, folder: Path) -> Iterator[Any]:
    """Let an organisation in, and have it leave again: others find the channel as it was."""
    guest = add_guest(network, folder)
    try:
        yield guest
    finally:
        remove_guest(network, folder)


def add_guest(network: LiveNetwork, folder: Path) -> Any:
    """Let an organisation in: what it hands out is its MSP folder without keys, and its own admin signs as well."""
    guest = make_guest(folder / "guest")
    handed = folder / "handed"
    shutil.copytree(guest.admin_msp, handed, ignore=shutil.ignore_patterns("keystore", "signcerts"))
    file = folder / "add.update"
    done(*update(network, "add-organization", str(handed), "--organization", GUEST), "--out", str(file))
    sign = ("network", "channel", "update", "sign", str(file))
    done(*sign, *who(network, CUSTOMER))
    done(*sign, "--msp-id", GUEST, "--identity", str(guest.admin_msp))
    printed = done("network", "channel", "update", "submit", str(file), *at(network, SERVICE))
    assert "/Channel/Application/GuestMSP is added" in printed
    assert f"{GUEST}: CN=admin@guest.kvr.test,OU=admin - NOT GOOD" in printed  # it is no member yet
    return guest


def remove_guest(network: LiveNetwork, folder: Path) -> None:
    current, wanted, file = folder / "before.json", folder / "after.json", folder / "remove.update"
    done(*update(network, "fetch", "--out", str(current)))
    document = json.loads(current.read_text())
    del document["channel_group"]["groups"]["Application"]["groups"][GUEST]
    wanted.write_text(json.dumps(document))
    compute = ("network", "channel", "update", "compute", "--channel", CHANNEL, "--current", str(current))
    done(*compute, "--wanted", str(wanted), "--out", str(file))
    for msp_id in (CUSTOMER, SERVICE):
        done("network", "channel", "update", "sign", str(file), *who(network, msp_id))
    done("network", "channel", "update", "submit", str(file), *at(network, SERVICE))


def test_an_organisation_is_let_in_and_its_clients_transact_until_it_leaves(
    network: LiveNetwork, tmp_path: Path
) -> None:
    async def transact(guest: Any) -> str:
        async with network.channel(SERVICE) as channel:
            contract = Gateway(guest.identity("agent"), channel).network(CHANNEL).contract(PROBE)
            committed = await contract.submit_transaction("put", network.fresh("g"), "1")
            return str(committed.status.code)

    stranger = make_guest(tmp_path / "stranger")
    with pytest.raises(EndorseError):
        network.run(lambda: transact(stranger))
    with guest_let_in(network, tmp_path) as guest:
        network.run(network.settled_height)
        assert network.run(lambda: transact(guest)) == "VALID"
    network.run(network.settled_height)
    with pytest.raises(ClientError):
        network.run(lambda: transact(guest))


@pytest.mark.timeout(300)
@on(NetworkName.NATIVE)
def test_the_peer_of_an_organisation_that_was_let_in_joins_and_endorses(network: LiveNetwork, tmp_path: Path) -> None:
    binaries = programs(network.name)
    assert binaries is not None
    with guest_let_in(network, tmp_path) as guest:
        version = next(it for it in chaincodes(network) if it["name"] == PROBE)
        genesis, package = tmp_path / "genesis.block", tmp_path / "probe.tar.gz"
        mine = ["--profile", str(guest.profile), "--msp-id", GUEST, "--identity", str(guest.admin_msp)]
        definition = [
            "--version",
            version["version"],
            "--sequence",
            str(version["sequence"]),
            "--policy",
            version["policy"],
        ]
        collections = tmp_path / "collections.json"
        collections.write_text(json.dumps(collections_of(network)))
        done("network", "channel", "block", "0", "--out", str(genesis), *at(network, SERVICE), "--channel", CHANNEL)
        with guest_peer(guest, network, binaries) as table:
            network.run(lambda: join_when_it_answers(genesis, mine))
            package.write_bytes(guest.package(version["version"]))
            installed = start_guest_chaincode(guest, network, table, version["version"])
            done("network", "chaincode", "install", str(package), *mine)

            async def caught_up() -> None:
                height = await network.height(SERVICE)
                async with asyncio.timeout(120), NodeChannel(guest.endpoint) as channel:
                    endorser = Endorser(guest.identity("admin"), channel)
                    while True:
                        try:
                            if await endorser.height(CHANNEL) >= height:
                                return
                        except EndorserError as error:  # until it has the block that lets its organisation in
                            if "creator org unknown" not in error.message:
                                raise
                        await asyncio.sleep(POLL_SECONDS)

            network.run(caught_up)
            approve = ("network", "chaincode", "approve", PROBE, "--channel", CHANNEL, "--package-id", installed)
            network.run(
                lambda: approve_when_orderers_know(*approve, *mine, *definition, "--collections", str(collections))
            )

            async def endorse() -> tuple[str, int]:
                """Have its own peer endorse together with those that the policy asks for."""
                async with asyncio.timeout(120), NodeChannel(guest.endpoint) as channel:
                    contract = Gateway(guest.identity("agent"), channel).network(CHANNEL).contract(PROBE)
                    while True:
                        try:
                            transaction = await contract.endorse(
                                "put", network.fresh("g"), "1", endorsing_organizations=[GUEST, CUSTOMER, SERVICE]
                            )
                            break
                        except EndorseError:  # others hear of the new peer, and it of the definition, by gossip
                            await asyncio.sleep(POLL_SECONDS)
                    status = await (await transaction.submit()).status()
                    return status.code, status.block_number

            code, number = network.run(endorse)
            assert code == "VALID"
            block = network.run(lambda: network.block(number))
            endorsers = {
                endorsement.endorser.partition(b"MSP")[0][2:] + b"MSP"
                for transaction in block.transactions
                if transaction.action is not None
                for endorsement in transaction.action.endorsements
            }
            assert {b"Guest", b"Customer", b"Service"} <= {name.removesuffix(b"MSP") for name in endorsers}


async def approve_when_orderers_know(*arguments: str) -> None:
    """Approve as soon as the orderers take it: one that has not the newest configuration yet knows no new member."""
    async with asyncio.timeout(START_SECONDS):
        while True:
            status, _, errors = await asyncio.to_thread(command, *arguments)
            if status == 0:
                return
            assert errors.startswith("error[submit]"), errors
            await asyncio.sleep(POLL_SECONDS)


async def join_when_it_answers(genesis: Path, mine: list[str]) -> None:
    """Join as soon as the peer, which has only just begun, is there."""
    async with asyncio.timeout(START_SECONDS):
        while True:
            status, _, errors = await asyncio.to_thread(command, "network", "channel", "join", str(genesis), *mine)
            if status == 0:
                return
            assert "dial" in errors or "UNAVAILABLE" in errors, errors
            await asyncio.sleep(POLL_SECONDS)


def chaincodes(network: LiveNetwork) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(
        done("network", "chaincode", "status", *at(network, SERVICE), "--channel", CHANNEL, "--json")
    )
    return found


# --- orderers


def rotate(network: LiveNetwork, folder: Path, orderer: str, msp_id: str) -> None:
    """Replace an orderer's certificates in the channel, then in its files, and restart it."""
    credentials = network.created.credentials
    now = datetime.fromtimestamp(folder.stat().st_mtime, UTC)
    tls, signing = new_tls(credentials, msp_id, orderer, now), new_node(credentials, msp_id, orderer, now)
    tls_file, signing_file = folder / "tls.crt", folder / "signing.crt"
    tls_file.write_bytes(tls.certificate_pem)
    signing_file.write_bytes(signing.certificate_pem)
    words = ["orderer-certificate", network.created.address(orderer), "--tls", str(tls_file)]
    if network.name.is_bft:
        words += ["--signing", str(signing_file)]
    printed = change_together(network, folder, orderers(network), *words)
    assert "certificate of" in printed
    files = credentials.node_tls(msp_id, orderer)
    files.certificate.write_bytes(tls.certificate_pem)
    files.key.write_bytes(tls.key_pem)
    if network.name.is_bft:
        msp = credentials.node_msp(msp_id, orderer)
        msp_certificate(msp).write_bytes(signing.certificate_pem)
        msp_key(msp).write_bytes(signing.key_pem)
    done("network", "node", "restart", orderer, "--root", str(network.root.path), **network.settings)


@on(*BOTH_KINDS, *BOTH_OF_BFT)
def test_an_orderer_with_rotated_certificates_counts_again_after_its_restart(
    network: LiveNetwork, tmp_path: Path
) -> None:
    msp_id = "CustomerOrdererMSP" if network.name.is_bft else "OrdererMSP"
    rotate(network, tmp_path, "orderer1", msp_id)
    root = ["--root", str(network.root.path)]

    # With another one down the rotated one is needed for the quorum.
    done("network", "node", "kill", "orderer2", *root)
    try:
        network.run(lambda: put_in_time(network, network.fresh("o")))
    finally:
        done("network", "node", "restart", "orderer2", *root, **network.settings)
    network.run(lambda: put_in_time(network, network.fresh("o")))


async def put_in_time(network: LiveNetwork, key: str) -> None:
    """Commit a value; a new leader may have to be found first, which BFT orderers take 20 seconds for."""
    async with asyncio.timeout(90), network.contract(SERVICE, "agent", PROBE) as contract:
        while True:
            try:
                await contract.submit_transaction("put", key, "1")
            except ClientError:
                await asyncio.sleep(POLL_SECONDS)
            else:
                return


def test_two_consenters_at_once_are_refused(network: LiveNetwork, tmp_path: Path) -> None:
    before = sequence(network)
    now = datetime.fromtimestamp(tmp_path.stat().st_mtime, UTC)
    stranger = tmp_path / "stranger.crt"
    stranger.write_bytes(make_guest(tmp_path / "g").credentials.node_tls_pem(GUEST, "peer0.guest"))
    first, second = tmp_path / "a.crt", tmp_path / "b.crt"
    for file in (first, second):
        file.write_bytes(new_tls(network.created.credentials, "OrdererMSP", "orderer0", now).certificate_pem)

    address = network.created.address("orderer0")
    strange = refused(*update(network, "orderer-certificate", address, "--tls", str(stranger)))
    nowhere = refused(*update(network, "orderer-certificate", "127.0.0.1:1", "--tls", str(first)))

    assert "signed by unknown authority" in strange
    assert "no consenter at 127.0.0.1:1" in nowhere
    assert sequence(network) == before


# --- chaincodes


def collections_of(network: LiveNetwork) -> list[dict[str, Any]]:
    """Give the collections of `probe` in the form of Fabric's tools."""
    topology = read_network(network.root).topology
    (probe,) = [it for it in topology.channel(CHANNEL).chaincodes if it.name == PROBE]
    return [
        {
            "name": it.name,
            "policy": it.members,
            "requiredPeerCount": it.required_peer_count,
            "maxPeerCount": it.max_peer_count,
            "blockToLive": it.block_to_live,
            "memberOnlyRead": it.member_only_read,
            "memberOnlyWrite": it.member_only_write,
            "endorsementPolicy": {"signaturePolicy": it.endorsement},
        }
        for it in probe.collections
    ]


def edited_topology(network: LiveNetwork, folder: Path, **changes: Any) -> Path:
    """Write the network's topology with changes to `probe`, at its next sequence."""
    document = yaml.safe_load(network.root.topology_file.read_text())
    (probe,) = [it for it in document["channels"][0]["chaincodes"] if it["name"] == PROBE]
    probe["sequence"] += 1
    probe.update(changes)
    file = folder / f"topology-{network.fresh('t')}.yaml"
    file.write_text(yaml.safe_dump(document, sort_keys=False, allow_unicode=True))
    return file


def upgrade(network: LiveNetwork, file: Path) -> list[str]:
    return ["network", "chaincode", "upgrade", str(file), "--root", str(network.root.path)]


def test_a_chaincode_is_upgraded_and_keeps_its_state(network: LiveNetwork, tmp_path: Path) -> None:
    key, version = network.fresh("u"), network.fresh("2")
    network.run(lambda: put(network, key, "kept"))
    before = next(it for it in chaincodes(network) if it["name"] == PROBE)["sequence"]

    printed = done(*upgrade(network, edited_topology(network, tmp_path, version=version)), **network.settings)
    after = next(it for it in chaincodes(network) if it["name"] == PROBE)

    async def read() -> bytes:
        async with network.contract(FIELD, "agent", PROBE) as contract:
            return await contract.evaluate("get", key)

    assert "upgraded: probe" in printed
    assert (after["sequence"], after["version"]) == (before + 1, version)
    assert network.run(read) == b"kept"
    network.run(lambda: put(network, network.fresh("u"), "1"))
    assert "nothing would change" in refused(*upgrade(network, network.root.topology_file))


def test_a_transaction_endorsed_before_an_upgrade_and_ordered_after_it_is_a_conflict(
    network: LiveNetwork, tmp_path: Path
) -> None:
    async def story() -> str:
        async with network.contract(SERVICE, "agent", PROBE) as contract:
            transaction = await contract.endorse("put", network.fresh("u"), "1")
            await asyncio.to_thread(done, *upgrade(network, edited_topology(network, tmp_path)), **network.settings)
            status = await (await transaction.submit()).status()
            return str(status.code)

    assert network.run(story) == "MVCC_READ_CONFLICT"


def test_a_collection_gets_a_member_that_reads_what_is_written_from_then_on(
    network: LiveNetwork, tmp_path: Path
) -> None:
    members = "OR('ServiceMSP.member', 'BillingMSP.member', 'FieldMSP.member')"
    wider = [{**current_collection(network), "members": members, "max_peer_count": 2}]

    async def write(name: str) -> None:
        async with network.contract(SERVICE, "agent", PROBE) as contract:
            await contract.submit_transaction(
                "note_private", name, transient={"secret": b"value"}, endorsing_organizations=[SERVICE, BILLING]
            )

    async def read(name: str) -> bytes:
        async with network.contract(FIELD, "agent", PROBE) as contract:
            return await contract.evaluate("get_private", name, target_organizations=[FIELD])

    before, after = network.fresh("p"), network.fresh("p")
    network.run(lambda: write(before))
    with pytest.raises(EvaluateError):
        network.run(lambda: read(before))
    done(*upgrade(network, edited_topology(network, tmp_path, collections=wider)), **network.settings)
    network.run(lambda: write(after))
    network.run(network.settled_height)

    assert network.run(lambda: read(after)) == b"value"


def current_collection(network: LiveNetwork) -> dict[str, Any]:
    document = yaml.safe_load(network.root.topology_file.read_text())
    (probe,) = [it for it in document["channels"][0]["chaincodes"] if it["name"] == PROBE]
    found: dict[str, Any] = probe["collections"][0]
    return found


@pytest.mark.parametrize(
    ("collections", "reason"),
    [
        ([], "does not contain previously defined collections"),
        ([{"block_to_live": 5}], "the BlockToLive in an existing collection [pair] modified"),
    ],
    ids=["dropped", "lives shorter"],
)
def test_what_no_peer_lets_change_is_refused_with_what_is_possible(
    network: LiveNetwork, tmp_path: Path, collections: list[dict[str, Any]], reason: str
) -> None:
    wanted = [{**current_collection(network), **change} for change in collections]
    error = refused(*upgrade(network, edited_topology(network, tmp_path, collections=wanted)))
    file = tmp_path / "collections.json"
    file.write_text(json.dumps([{**it, "blockToLive": 5} for it in collections_of(network)] if collections else []))
    current = next(it for it in chaincodes(network) if it["name"] == PROBE)
    by_hand = refused(
        *("network", "chaincode", "approve", PROBE, *at(network, SERVICE), "--channel", CHANNEL),
        *("--version", "x", "--sequence", str(current["sequence"] + 1), "--collections", str(file)),
    )

    for text in (error, by_hand):
        assert reason in text
        assert "add a collection with another name" in text


def test_a_package_with_renewed_tls_is_installed_and_approved_again(network: LiveNetwork, tmp_path: Path) -> None:
    """No commit is needed; from then on the peers reach the chaincode with what the new package holds."""
    current = next(it for it in chaincodes(network) if it["name"] == PROBE)
    tls = network.created.credentials.chaincode_tls(SERVICE, PROBE)
    package, collections = tmp_path / "renewed.tar.gz", tmp_path / "collections.json"
    collections.write_text(json.dumps(collections_of(network)))
    made = done(
        *("network", "chaincode", "package", "--label", network.fresh("probe"), "--out", str(package)),
        *("--address", network.created.address(f"{PROBE}.{SERVICE}")),
        *("--root-cert", str(tls.client.ca_certificate), "--client-cert", str(tls.client.certificate)),
        *("--client-key", str(tls.client.key)),
    ).strip()
    definition = ["--version", current["version"], "--sequence", str(current["sequence"])]
    definition += ["--policy", current["policy"], "--collections", str(collections)]
    done("network", "chaincode", "install", str(package), *at(network, SERVICE))
    approve = ("network", "chaincode", "approve", PROBE, *at(network, SERVICE), "--channel", CHANNEL, *definition)

    assert f"sequence {current['sequence']}" in done(*approve, "--package-id", made)
    assert next(it for it in chaincodes(network) if it["name"] == PROBE)["sequence"] == current["sequence"]
    # Back to the package that its process serves.
    served = next(it for it in served_packages(network) if it.startswith(PROBE))
    done(*approve, "--package-id", served)
    network.run(lambda: put_in_time(network, network.fresh("k")))


def served_packages(network: LiveNetwork) -> list[str]:
    now = read_network(network.root)
    return [now.package_id(it) for it in served_chaincodes(now.topology) if it.organization.msp_id == SERVICE]


# --- nodes


@on(*BOTH_KINDS, *BOTH_OF_BFT)
def test_the_orderers_quorum_is_kept(network: LiveNetwork) -> None:
    root = ["--root", str(network.root.path)]
    try:
        assert "orderer0 killed" in done("network", "node", "kill", "orderer0", *root)
        for verb in ("kill", "pause", "restart"):
            assert refused("network", "node", verb, "orderer1", *root).startswith("error[quorum]")
        assert "makes no difference" in refused("network", "node", "kill", "orderer0", *root)
        assert "no node 'orderer9'" in refused("network", "node", "kill", "orderer9", *root)
        status = json.loads(command("network", "status", *root, "--json")[1])
        assert status["up"] is False
        assert "orderer0" in status["missing"] or status["stopped"] == {"orderer0": "ended"}
    finally:
        assert "orderer0 restarted" in done("network", "node", "restart", "orderer0", *root, **network.settings)
    network.run(lambda: put_in_time(network, network.fresh("n")))


def test_a_paused_peer_hangs_and_a_killed_one_is_gone(network: LiveNetwork) -> None:
    root = ["--root", str(network.root.path)]

    async def ask() -> None:
        async with NodeChannel(network.endpoint(FIELD)) as channel:
            contract = Gateway(network.identity(FIELD, "agent"), channel).network(CHANNEL).contract(PROBE)
            async with asyncio.timeout(2):
                await contract.evaluate("get", "none")

    done("network", "node", "pause", "peer0.field", *root)
    try:
        with pytest.raises((TimeoutError, ClientError)):
            network.run(ask)
        assert "makes no difference" in refused("network", "node", "pause", "peer0.field", *root)
        # The others go on without it.
        network.run(lambda: put_in_time(network, network.fresh("n")))
    finally:
        done("network", "node", "continue", "peer0.field", *root)
    assert "makes no difference" in refused("network", "node", "continue", "peer0.field", *root)
    done("network", "node", "kill", "peer0.field", *root)
    try:
        with pytest.raises(ClientError):
            network.run(ask)
    finally:
        done("network", "node", "restart", "peer0.field", *root, **network.settings)
    network.run(network.settled_height)


class Load:
    """Clients that write one value after the other, whatever happens; `written` gives the block of each key."""

    def __init__(self, network: LiveNetwork) -> None:
        self.written: dict[str, int] = {}
        self._network = network

    async def run(self, steps: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Write until the steps are done."""
        writers = [asyncio.create_task(self._write(number)) for number in range(3)]
        try:
            await steps()
        finally:
            for writer in writers:
                writer.cancel()
            await asyncio.gather(*writers, return_exceptions=True)

    async def wait_for(self, more: int) -> None:
        """Return when so many more values have been written."""
        wanted = len(self.written) + more
        await until(lambda: len(self.written) >= wanted)

    async def _write(self, writer: int) -> None:
        async with self._network.contract(SERVICE, "agent", PROBE) as contract:
            while True:
                key = f"{self._network.fresh('load')}-{writer}"
                try:
                    committed = await contract.submit_transaction("put", key, "1")
                except ClientError:
                    await asyncio.sleep(POLL_SECONDS)
                else:
                    self.written[key] = committed.status.block_number


async def until(is_true: Callable[[], bool], seconds: float = 240.0) -> None:
    async with asyncio.timeout(seconds):
        while True:
            if is_true():
                return
            await asyncio.sleep(POLL_SECONDS)


DISTURBANCES = (
    ("kill", "orderer2"),
    ("restart", "orderer2"),
    ("pause", "orderer1"),
    ("continue", "orderer1"),
    ("restart", "orderer0"),
    ("kill", "peer0.billing"),
    ("restart", "peer0.billing"),
    ("pause", "peer0.field"),
    ("continue", "peer0.field"),
)


@pytest.mark.timeout(600)  # BFT orderers take 20 seconds to replace a leader, several times
@on(*BOTH_KINDS, *BOTH_OF_BFT)
def test_nothing_is_lost_while_nodes_are_killed_paused_and_restarted(network: LiveNetwork) -> None:
    root = ["--root", str(network.root.path)]
    load = Load(network)

    async def disturb() -> None:
        for verb, name in DISTURBANCES:
            await asyncio.to_thread(done, "network", "node", verb, name, *root, **network.settings)
            await load.wait_for(3)

    async def story() -> None:
        await load.run(disturb)
        await network.settled_height()

    start = network.run(lambda: network.height(SERVICE))
    network.run(story)

    assert len(load.written) >= 3 * len(DISTURBANCES)
    for msp_id in PEERS:
        blocks = network.run(partial(network.blocks, start, msp_id))
        assert {key: number for key, number in valid_writes(blocks).items() if key in load.written} == load.written


def valid_writes(blocks: list[Block]) -> dict[str, int]:
    """Give the block of every key that a valid transaction wrote."""
    return {
        write.key: block.header.number
        for block in blocks
        for transaction, code in zip(block.transactions, block.metadata[2], strict=True)
        if transaction.action is not None and code == VALID
        for entry in transaction.action.writes
        for write in entry.writes
    }


def test_up_brings_back_what_was_killed_and_paused(network: LiveNetwork) -> None:
    root = ["--root", str(network.root.path)]
    done("network", "node", "kill", "peer0.customer", *root)
    done("network", "node", "pause", "orderer2", *root)

    done("network", "up", *root, *(["--native"] if network.is_native else []), **network.settings)

    assert json.loads(done("network", "status", *root, "--json"))["up"] is True
