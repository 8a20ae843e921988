"""The commands `kvr network channel update`: change a live channel, alone or with the signatures of several admins.

Each says in words what changes before anything is signed. Where the own signature suffices and no file was asked for,
the update is submitted at once; otherwise it goes into a file that is passed on (`sign`, then `submit`).
Exit status as of `kvr network`.
"""

import json
import secrets
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple

import typer

from gateway.client.identity import SigningIdentity
from network.administration import Administrator
from network.channel.change import (
    BatchChange,
    OrdererCertificates,
    add_organization,
    publish_revocations,
    read_address,
    rotate_orderer,
    set_acls,
    set_anchor_peers,
    set_batch,
    set_policy,
)
from network.channel.description import UpdateReport, report_lines, report_update
from network.channel.document import read_document, write_document
from network.channel.organization import member_group, read_msp_folder
from network.channel.proposal import Edit, check_proposed, propose
from network.channel.submission import fetch_configuration, orderer_endpoints, submit_update
from network.channel.update_file import (
    read_bounded,
    read_update_file,
    sign_update,
    update_envelope,
    write_update_file,
)
from network.command_options import (
    AsJson,
    ChannelName,
    Identity,
    MspId,
    Profile,
    file_bytes,
    reported_errors,
    run_as_admin,
)
from network.errors import ChannelChangeError, UpdateFileError
from network.protocol.block_signature import ChannelTrust
from network.protocol.config_group import ConfigGroup
from network.protocol.config_update import (
    ProposedConfiguration,
    SignedUpdate,
    apply_update,
    compute_update,
    encode_update,
)
from network.protocol.configuration import view_configuration
from network.protocol.errors import ConfigUpdateError
from network.running.atomic_file import write_file

NONCE_BYTES: Final = 24

update = typer.Typer(no_args_is_help=True, help="Change the configuration of a live channel.")

Out = Annotated[
    Path | None,
    typer.Option("--out", metavar="FILE", help="Write the update, signed by you, to pass on; nothing is submitted."),
]
UpdateFile = Annotated[Path, typer.Argument(metavar="FILE", help="The update.")]
Organization = Annotated[
    str, typer.Option("--organization", metavar="ID", help="MSP id of the organisation that it is about.")
]
Current = Annotated[
    Path, typer.Option("--current", metavar="FILE", help="The configuration in force, as `fetch` wrote it.")
]


# --- the steps one by one


@update.command("fetch")
def fetch_command(
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="JSON document to write.")],
    profile: Profile,
    msp_id: MspId,
    identity: Identity,
    channel_name: ChannelName,
) -> None:
    """Write the configuration in force as a JSON document, to be edited or kept."""

    async def work(admin: Administrator) -> None:
        found = await fetch_configuration(admin.network(channel_name))
        document = write_document(found.configuration.sequence, found.configuration.root)
        write_file(out, document.encode())
        typer.echo(
            f"{channel_name}: configuration {found.configuration.sequence} of block {found.block_number} in {out}"
        )

    run_as_admin(profile, msp_id, identity, work)


@update.command("compute")
def compute_command(
    channel_name: ChannelName,
    current: Current,
    wanted: Annotated[Path, typer.Option("--wanted", metavar="FILE", help="The same document, edited.")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The update to write; nobody has signed it.")],
) -> None:
    """Make an update of two documents: what is in force, and what shall be. Needs no network."""
    with reported_errors():
        trust, before = _trust_of(current)
        after = read_document(read_bounded(wanted), str(wanted)).root
        try:
            computed = compute_update(channel_name, before, after)
        except ConfigUpdateError as error:
            raise ChannelChangeError(f"{wanted} says the same as {current}: nothing would change") from error
        proposed = apply_update(computed, channel_name, before)
        check_proposed(channel_name, trust, computed, proposed, time.time())
        signed = SignedUpdate(encode_update(computed), ())
        _echo(report_update(signed, proposed, trust))
        write_update_file(out, channel_name, signed)
        typer.echo(f"the update is in {out}; let the admins sign it")


@update.command("show")
def show_command(file: UpdateFile, current: Current, as_json: AsJson = False) -> None:
    """Say in words what an update changes in the configuration in force, who has signed, and what is missing."""
    with reported_errors():
        report = _report_of_file(file, current)
        if as_json:
            typer.echo(json.dumps(_report_facts(report), indent=1))
        else:
            _echo(report)


@update.command("sign")
def sign_command(
    file: UpdateFile,
    msp_id: MspId,
    identity: Identity,
    current: Annotated[
        Path | None,
        typer.Option("--current", metavar="FILE", help="The configuration in force: says first what would change."),
    ] = None,
) -> None:
    """Add your signature to an update. The file holds no secret; hand it to the next admin, or submit it."""
    with reported_errors():
        read = read_update_file(file)
        if current is not None:
            _echo(_report_of_file(file, current))
        signer = SigningIdentity.from_msp_folder(msp_id, identity)
        signed = sign_update(read.signed, signer, secrets.token_bytes(NONCE_BYTES))
        write_update_file(file, read.update.channel_id, signed)
        count = len(signed.signatures)
        typer.echo(f"{msp_id} has signed {file} for {read.update.channel_id}; signatures in it: {count}")


@update.command("submit")
def submit_command(file: UpdateFile, profile: Profile, msp_id: MspId, identity: Identity) -> None:
    """Hand a signed update to the orderers, and wait until it is in force at your peer."""

    async def work(admin: Administrator) -> None:
        read = read_update_file(file)
        fetched = await fetch_configuration(admin.network(read.update.channel_id))
        trust = ChannelTrust(fetched.configuration)
        proposed = apply_update(read.update, read.update.channel_id, fetched.configuration.root)
        check_proposed(read.update.channel_id, trust, read.update, proposed, time.time())
        report = report_update(read.signed, proposed, trust)
        _echo(report)
        _check_allowed(report)
        await _submit(admin, read.update.channel_id, _Proposed(trust, proposed, read.signed))

    run_as_admin(profile, msp_id, identity, work)


# --- changes by name


@update.command("crl")
def crl_command(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Revocation lists, PEM or DER.")],
    organization: Organization,
    profile: Profile,
    msp_id: MspId,
    identity: Identity,
    channel_name: ChannelName,
    out: Out = None,
) -> None:
    """Publish revocation lists of an organisation: whom they name is nobody from the next block on."""
    lists = [file_bytes(file) for file in files]
    _change(profile, msp_id, identity, channel_name, out, lambda root: publish_revocations(root, organization, lists))


@update.command("orderer-certificate")
def orderer_certificate_command(  # noqa: PLR0913, PLR0917  # one parameter per option
    address: Annotated[str, typer.Argument(metavar="HOST:PORT", help="The consenter, as the configuration names it.")],
    profile: Profile,
    msp_id: MspId,
    identity: Identity,
    channel_name: ChannelName,
    tls: Annotated[
        Path | None, typer.Option("--tls", metavar="FILE", help="New TLS certificate, for server and client.")
    ] = None,
    client_tls: Annotated[
        Path | None, typer.Option("--client-tls", metavar="FILE", help="New TLS certificate of the client, if another.")
    ] = None,
    signing: Annotated[
        Path | None,
        typer.Option("--signing", metavar="FILE", help="New certificate that a BFT orderer signs blocks with."),
    ] = None,
    out: Out = None,
) -> None:
    """Replace certificates of one orderer in the channel. Then give it the new ones and restart it, one at a time."""
    server = None if tls is None else file_bytes(tls)
    certificates = OrdererCertificates(
        server,
        server if client_tls is None else file_bytes(client_tls),
        None if signing is None else file_bytes(signing),
    )
    _change(
        profile,
        msp_id,
        identity,
        channel_name,
        out,
        lambda root: rotate_orderer(root, read_address(address), certificates),
    )


@update.command("add-organization")
def add_organization_command(  # noqa: PLR0913, PLR0917  # one parameter per option
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Its MSP folder, without any key.")],
    organization: Organization,
    profile: Profile,
    msp_id: MspId,
    identity: Identity,
    channel_name: ChannelName,
    group: Annotated[str, typer.Option("--group", metavar="NAME", help="Key of its group. [default: the MSP id]")] = "",
    anchor_peer: Annotated[
        list[str] | None, typer.Option("--anchor-peer", metavar="HOST:PORT", help="May be given several times.")
    ] = None,
    policy: Annotated[
        list[str] | None,
        typer.Option("--policy", metavar="NAME=TEXT", help="A policy of its group, such as Writers=OR('A.admin')."),
    ] = None,
    out: Out = None,
) -> None:
    """Let an organisation in, with the policies that organisations with NodeOUs usually have."""
    with reported_errors():
        msp = read_msp_folder(organization, folder)
        addresses = [read_address(text) for text in anchor_peer or ()]
        added = member_group(organization, msp, addresses, dict(_pairs(policy or (), "--policy")))
    _change(
        profile,
        msp_id,
        identity,
        channel_name,
        out,
        lambda root: add_organization(root, group or organization, added),
    )


@update.command("anchor-peers")
def anchor_peers_command(
    organization: Organization,
    profile: Profile,
    msp_id: MspId,
    identity: Identity,
    channel_name: ChannelName,
    peers: Annotated[list[str] | None, typer.Argument(metavar="HOST:PORT...", help="None: it has none.")] = None,
    out: Out = None,
) -> None:
    """Say which peers of an organisation those of others turn to first."""
    with reported_errors():
        addresses = [read_address(text) for text in peers or ()]
    _change(profile, msp_id, identity, channel_name, out, lambda root: set_anchor_peers(root, organization, addresses))


@update.command("batch")
def batch_command(  # noqa: PLR0913, PLR0917  # one parameter per option
    profile: Profile,
    msp_id: MspId,
    identity: Identity,
    channel_name: ChannelName,
    max_messages: Annotated[int | None, typer.Option("--max-messages", metavar="N")] = None,
    preferred_bytes: Annotated[int | None, typer.Option("--preferred-bytes", metavar="N")] = None,
    absolute_bytes: Annotated[int | None, typer.Option("--absolute-bytes", metavar="N")] = None,
    timeout: Annotated[str | None, typer.Option("--timeout", metavar="TEXT", help="Such as 2s or 200ms.")] = None,
    out: Out = None,
) -> None:
    """Change when orderers cut a block: at so many messages, at so many bytes, after so long."""
    wanted = BatchChange(max_messages, preferred_bytes, absolute_bytes, timeout)
    _change(profile, msp_id, identity, channel_name, out, lambda root: set_batch(root, wanted))


@update.command("acl")
def acl_command(
    rules: Annotated[
        list[str],
        typer.Argument(metavar="RESOURCE=POLICY...", help="Such as peer/Propose=Writers; without a policy: no rule."),
    ],
    profile: Profile,
    msp_id: MspId,
    identity: Identity,
    channel_name: ChannelName,
    out: Out = None,
) -> None:
    """Say by which policy a resource of the peers is used."""
    with reported_errors():
        acls = dict(_pairs(rules, "RESOURCE=POLICY"))
    _change(profile, msp_id, identity, channel_name, out, lambda root: set_acls(root, acls))


@update.command("policy")
def policy_command(
    path: Annotated[str, typer.Argument(metavar="PATH", help="Such as /Channel/Application/Admins.")],
    profile: Profile,
    msp_id: MspId,
    identity: Identity,
    channel_name: ChannelName,
    text: Annotated[
        str,
        typer.Argument(metavar="POLICY", help="Such as MAJORITY Admins, or OR('A.admin', 'B.admin'); none removes it."),
    ] = "",
    out: Out = None,
) -> None:
    """Write a policy of the channel."""
    _change(profile, msp_id, identity, channel_name, out, lambda root: set_policy(root, path, text))


# --- how


class _Proposed(NamedTuple):
    trust: ChannelTrust
    proposed: ProposedConfiguration
    signed: SignedUpdate


def _change(profile: Path, msp_id: str, identity: Path, channel_name: str, out: Path | None, edit: Edit) -> None:
    """Compute the update of an edit, sign it, and submit it or write it."""

    async def work(admin: Administrator) -> None:
        fetched = await fetch_configuration(admin.network(channel_name))
        trust = ChannelTrust(fetched.configuration)
        proposal = propose(channel_name, trust, edit, time.time())
        signed = sign_update(proposal.signed, admin.identity, secrets.token_bytes(NONCE_BYTES))
        report = report_update(signed, proposal.proposed, trust)
        _echo(report)
        if out is not None:
            write_update_file(out, channel_name, signed)
            typer.echo(f"the update, signed by {admin.msp_id}, is in {out}")
            return
        _check_allowed(report)
        await _submit(admin, channel_name, _Proposed(trust, proposal.proposed, signed))

    run_as_admin(profile, msp_id, identity, work)


def _check_allowed(report: UpdateReport) -> None:
    if not report.is_allowed:
        missing = ", ".join(path for path, reason in report.policies.items() if reason is not None)
        raise ChannelChangeError(
            f"these signatures do not satisfy {missing}; nothing was submitted. Write the update with --out, and let "
            "other admins sign it"
        )


async def _submit(admin: Administrator, channel_name: str, what: _Proposed) -> None:
    before = what.trust.configuration
    now = datetime.fromtimestamp(time.time(), UTC)
    envelope = update_envelope(channel_name, what.signed, admin.identity, secrets.token_bytes(NONCE_BYTES), now)
    orderers = orderer_endpoints(admin.orderers, before)
    found = await submit_update(admin.network(channel_name), orderers, envelope, before, what.proposed.root)
    typer.echo(
        f"{channel_name}: configuration {found.configuration.sequence} is in force, by block {found.block_number}"
    )


def _echo(report: UpdateReport) -> None:
    for line in report_lines(report):
        typer.echo(line)


def _report_facts(report: UpdateReport) -> dict[str, Any]:
    return {
        "changes": report.changes,
        "without_effect": report.dropped,
        "policies": report.policies,
        "signatures": [signature._asdict() for signature in report.signatures],
        "allowed": report.is_allowed,
    }


def _report_of_file(file: Path, current: Path) -> UpdateReport:
    read = read_update_file(file)
    trust, root = _trust_of(current)
    return report_update(read.signed, apply_update(read.update, read.update.channel_id, root), trust)


def _trust_of(current: Path) -> tuple[ChannelTrust, ConfigGroup]:
    document = read_document(read_bounded(current), str(current))
    return ChannelTrust(view_configuration(document.sequence, None, document.root)), document.root


def _pairs(texts: Sequence[str], place: str) -> list[tuple[str, str]]:
    pairs = []
    for text in texts:
        name, separator, value = text.partition("=")
        if not name or not separator:
            raise UpdateFileError(f"{place}: {text!r} is not NAME=TEXT")
        pairs.append((name, value))
    return pairs
