"""What happens on a recorded channel later: changes of the channel, nodes that stop, 500 transactions in one block."""

import asyncio
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import yaml

from network.credentials.credential_folder import CredentialFolder, msp_certificate, msp_key
from network.running.process import ProcessTable
from network.running.root import NetworkRoot
from tests.support.authority import new_node, new_tls, revoked_users
from tests.support.command import kvr
from tests.support.guest import GUEST, make_guest
from tests.support.recorder.session import POLL_SECONDS, WAIT_SECONDS, Session
from tests.support.recorder.topology import (
    BFT_ORDERERS,
    BURST,
    CHAINCODE,
    CHANNEL,
    CUSTOMER,
    ENTERPRISE,
    PAIR,
    PARTNER,
    PEERS,
    RAFT_ORDERER,
    short,
)

LATER: Final = "later"
COMMAND_SECONDS: Final = 180.0
STOPPED: Final = f"peer0.{short(PARTNER)}"
TOGETHER: Final = 20
"""Proposals at a time."""
BURST_KEYS: Final = 40


@dataclass(frozen=True)
class Operator:
    """Commands on a network, as its administrators give them; `settings` are the environment of its processes."""

    session: Session
    folder: Path
    settings: Mapping[str, str]

    @property
    def root(self) -> NetworkRoot:
        return self.session.network.root

    @property
    def credentials(self) -> CredentialFolder:
        return self.session.network.credentials

    @property
    def is_bft(self) -> bool:
        return len(self.session.orderers) > 3

    @property
    def orderer_admins(self) -> Sequence[str]:
        """Organisations whose admins together change the orderers' settings."""
        return BFT_ORDERERS[:3] if self.is_bft else (RAFT_ORDERER,)

    async def command(self, *arguments: str) -> str:
        done = await asyncio.to_thread(kvr, "network", *arguments, seconds=COMMAND_SECONDS, **self.settings)
        if done.returncode != 0:
            raise AssertionError(f"{' '.join(arguments)}: {done.stdout}{done.stderr}")
        return done.stdout

    async def node(self, verb: str, name: str, *options: str) -> None:
        await self.command("node", verb, name, "--root", str(self.root.path), *options)

    async def change(self, label: str, signers: Sequence[str | Sequence[str]], *words: str) -> None:
        """Make an update as the enterprise's admin, have others sign its file, submit it; alone in its block."""
        file = self.folder / "change.update"
        at = ("--profile", str(self.root.profile(ENTERPRISE)), *self.who(ENTERPRISE))
        await self.command("channel", "update", *words, *at, "--channel", CHANNEL, "--out", str(file))
        for signer in signers:
            who = self.who(signer) if isinstance(signer, str) else signer
            await self.command("channel", "update", "sign", str(file), *who)
        await self.command("channel", "update", "submit", str(file), *at)
        file.unlink()
        await self.session.next_configuration(label)

    async def resume(self) -> None:
        """Have paused orderers go on."""
        if self.is_bft:
            for name in ("orderer2", "orderer3"):
                await self.node("continue", name)

    def who(self, msp_id: str) -> Sequence[str]:
        return ("--msp-id", msp_id, "--identity", str(self.credentials.user_msp(msp_id, "admin")))


async def stop_a_peer(operator: Operator, store: Path) -> None:
    """End a peer as a crash does, keep what it has stored, and let it catch up later."""
    session = operator.session
    await operator.node("kill", STOPPED)
    (files,) = operator.root.nodes.glob(f"{STOPPED}/**/chains/chains/{CHANNEL}/blockfile_000000")
    store.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(files, store)
    session.down.add(PARTNER)
    await session.valid("while a peer is stopped", [["put", "stopped", "1"]])
    await session.valid("private put while a peer is stopped", [["pput", PAIR, "stopped", "1"]])
    await operator.node("restart", STOPPED)
    session.down.clear()
    await session.settle()
    await session.valid("the peer is back", [["put", "stopped", "2"]], ENTERPRISE, PARTNER)


async def change_channel(operator: Operator) -> None:
    """Take every step."""
    session = operator.session
    await operator.change("a longer batch timeout", operator.orderer_admins, "batch", "--timeout", "3s")
    await burst(operator)
    await operator.change("the batch timeout as before", operator.orderer_admins, "batch", "--timeout", "200ms")
    await operator.change("an access rule", [CUSTOMER], "acl", "qscc/GetChainInfo=Readers")
    await operator.change("a policy", [CUSTOMER], "policy", "/Channel/Application/Noted", "ANY Readers")
    anchors = [session.network.address(f"peer0.{short(msp_id)}") for msp_id in (ENTERPRISE, CUSTOMER)]
    await operator.change("anchor peers", [], "anchor-peers", *anchors, "--organization", ENTERPRISE)
    await revoke(operator)
    await orderers(operator)
    await let_in(operator)
    await upgrade(operator)
    await session.valid("after all of it", [["get", "a"], ["put", "a", "last"]], *PEERS)


async def burst(operator: Operator) -> None:
    """Fill the largest block. The scripts meet each other's keys, so that many are refused."""
    session = operator.session
    await session.valid("keys of the large block", [["put", f"large{n:02d}", "0"] for n in range(0, BURST_KEYS, 2)])
    envelopes: list[bytes] = []
    for start in range(0, BURST, TOGETHER):
        scripts = [large_script(number) for number in range(start, start + TOGETHER)]
        envelopes += await asyncio.gather(*[session.endorse(script) for script in scripts])
    labelled = [(f"one of {BURST}: {n}", envelope) for n, envelope in enumerate(envelopes)]
    if operator.is_bft:
        await hold_orderers(operator)
    before = session.height
    await session.order(*labelled, orderers=session.orderers[:2] if operator.is_bft else (), meanwhile=operator.resume)
    if BURST not in session.sizes[before:]:
        raise AssertionError(f"no block of {BURST} transactions, but {session.sizes[before:]}")


def large_script(number: int) -> list[list[Any]]:
    key = f"large{number % BURST_KEYS:02d}"
    return (
        [["put", key, str(number)]],
        [["get", key], ["put", key, str(number)]],
        [["del", key]],
        [["range", "large00", "large05"], ["put", key, "seen"]],
        [["phash", PAIR, key], ["pput", PAIR, key, str(number)]],
    )[number // BURST_KEYS % 5]


async def hold_orderers(operator: Operator) -> None:
    """Leave BFT orderers without quorum, with one block begun: what comes meanwhile is taken together afterwards."""
    session = operator.session
    table = ProcessTable(operator.root.processes, session.network.state.network_id)
    logs = [table.log_path(f"orderer{number}") for number in range(2)]

    def begun() -> int:
        return sum(log.read_bytes().count(b"Processed proposal with seq") for log in logs)

    for name in ("orderer2", "orderer3"):
        await operator.node("pause", name, "--force")
    before = begun()
    await session.submit([await session.endorse([["put", "held", "1"]])], session.orderers[:2])
    async with asyncio.timeout(WAIT_SECONDS):
        while begun() == before:  # noqa: ASYNC110  # a file tells nobody
            await asyncio.sleep(POLL_SECONDS)


async def revoke(operator: Operator) -> None:
    session = operator.session
    leaver = (CUSTOMER, "leaver")
    await session.valid("by one who is revoked next", [["put", "leaver", "1"]], by=leaver)
    late = await session.endorse([["put", "leaver", "2"]], by=leaver)
    file = operator.folder / "revoked.pem"
    now = datetime.fromtimestamp(operator.folder.stat().st_mtime, UTC)
    file.write_bytes(revoked_users(operator.credentials, CUSTOMER, "leaver", now=now))
    await operator.change("a revocation list", [CUSTOMER], "crl", str(file), "--organization", CUSTOMER)
    await session.offer("BAD_CREATOR_SIGNATURE: of one who is revoked, endorsed before", late)
    endorsed = await session.endorse([["put", "leaver", "3"]])
    revoked = [session.node(ENTERPRISE), session.identity(*leaver)]

    def by_revoked(parts: Any) -> None:
        parts.colluders = revoked

    await session.becomes(
        "ENDORSEMENT_POLICY_FAILURE", "endorsed by one who is revoked", session.altered(endorsed, by_revoked)
    )


async def orderers(operator: Operator) -> None:
    """Give an orderer other certificates, then do without another one."""
    session = operator.session
    msp_id, node = operator.orderer_admins[-1 if not operator.is_bft else 1], "orderer1"
    now = datetime.fromtimestamp(operator.folder.stat().st_mtime, UTC)
    tls, signing = (make(operator.credentials, msp_id, node, now) for make in (new_tls, new_node))
    tls_file, signing_file = operator.folder / "tls.crt", operator.folder / "signing.crt"
    tls_file.write_bytes(tls.certificate_pem)
    signing_file.write_bytes(signing.certificate_pem)
    words = ["orderer-certificate", session.network.address(node), "--tls", str(tls_file)]
    if operator.is_bft:
        words += ["--signing", str(signing_file)]
    await operator.change("other certificates of an orderer", operator.orderer_admins, *words)
    files = operator.credentials.node_tls(msp_id, node)
    files.certificate.write_bytes(tls.certificate_pem)
    files.key.write_bytes(tls.key_pem)
    if operator.is_bft:
        msp = operator.credentials.node_msp(msp_id, node)
        msp_certificate(msp).write_bytes(signing.certificate_pem)
        msp_key(msp).write_bytes(signing.key_pem)
    await operator.node("restart", node)
    await operator.node("kill", "orderer2")
    await session.valid("one orderer stopped, one with other certificates", [["put", "orderers", "1"]])
    await operator.node("restart", "orderer2")
    await operator.node("pause", f"peer0.{short(PARTNER)}")
    session.down.add(PARTNER)
    await session.valid("while a peer is paused", [["put", "orderers", "2"]])
    await operator.node("continue", f"peer0.{short(PARTNER)}")
    session.down.clear()
    await session.settle()


async def let_in(operator: Operator) -> None:
    """Let an organisation in, whose own admin signs as well."""
    guest = make_guest(operator.folder / "guest")
    handed = operator.folder / "handed"
    shutil.copytree(guest.admin_msp, handed, ignore=shutil.ignore_patterns("keystore", "signcerts"))
    own = ("--msp-id", GUEST, "--identity", str(guest.admin_msp))
    words = ("add-organization", str(handed), "--organization", GUEST)
    await operator.change("another organisation", [CUSTOMER, own], *words)
    agent = guest.identity("agent")
    await operator.session.valid("by the other organisation's client", [["put", "guest", "1"]], signer=agent)


async def upgrade(operator: Operator) -> None:
    """Upgrade the chaincode: another member of a collection, and another collection."""
    session = operator.session
    late = await session.endorse([["get", "a"], ["put", "a", "late"]])
    document = yaml.safe_load(operator.root.topology_file.read_text(encoding="utf-8"))
    (edited,) = [it for it in document["channels"][0]["chaincodes"] if it["name"] == CHAINCODE]
    edited |= {"version": "2.0", "sequence": 2}
    pair = edited["collections"][0]
    pair |= {"members": f"OR({', '.join(repr(f'{msp_id}.member') for msp_id in PEERS)})", "max_peer_count": 2}
    edited["collections"].append(
        {
            "name": LATER,
            "members": f"OR('{CUSTOMER}.member', '{PARTNER}.member')",
            "block_to_live": 1000,
            "max_peer_count": 1,
        }
    )
    file = operator.folder / "upgraded.yaml"
    file.write_text(yaml.safe_dump(document, sort_keys=False, allow_unicode=True), encoding="utf-8")
    await operator.command("chaincode", "upgrade", str(file), "--root", str(operator.root.path))
    await session.becomes("MVCC_READ_CONFLICT", "endorsed before the upgrade, ordered after it", late)
    await session.valid("private put of three members", [["pput", PAIR, "deal9", "三"]])
    await session.valid("private read by the new member", [["pget", PAIR, "deal9"]], *PEERS)
    members: dict[str, Any] = {"by": (CUSTOMER, "agent")}
    await session.valid("the new collection", [["pput", LATER, "first", "1"]], CUSTOMER, PARTNER, **members)
    await session.valid("purge in the new collection", [["ppurge", LATER, "first"]], CUSTOMER, PARTNER, **members)
    await session.valid("private put that the new member endorses", [["pput", PAIR, "deal9", "四"]], *PEERS)
