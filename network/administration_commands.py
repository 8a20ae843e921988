"""The commands `kvr network chaincode` and `kvr network channel`, for networks that others created too.

Exit status as of `kvr network`.
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

import typer

from gateway.client.errors import ClientError
from network.administration import (
    Administrator,
    administrator,
    committed_chaincodes,
    definition,
    describe_channel,
    read_configuration,
)
from network.errors import NetworkError
from network.lifecycle import approvals, approve, commit, install
from network.protocol.errors import ProtocolError
from network.protocol.lifecycle import ChaincodeDefinition
from network.protocol.package import build_service_package, package_id, read_package
from network.running.atomic_file import write_file

SOON_DAYS: Final = 60

chaincode = typer.Typer(no_args_is_help=True, help="Deploy chaincodes on channels, each organisation for itself.")
channel = typer.Typer(no_args_is_help=True, help="Look at channels.")

Profile = Annotated[Path, typer.Option("--profile", metavar="FILE", help="Connection profile that names the peers.")]
MspId = Annotated[str, typer.Option("--msp-id", metavar="ID", help="Your organisation.")]
Identity = Annotated[
    Path, typer.Option("--identity", metavar="FOLDER", help="MSP folder of its admin: signcerts/ and keystore/.")
]
ChannelName = Annotated[str, typer.Option("--channel", metavar="NAME")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the chaincode.")]
Version = Annotated[str, typer.Option("--version", metavar="TEXT")]
Sequence = Annotated[int, typer.Option("--sequence", min=1, help="The committed sequence plus one.")]
Policy = Annotated[
    str,
    typer.Option(
        "--policy",
        metavar="POLICY",
        help="Endorsement policy, such as OR('Org1MSP.peer', 'Org2MSP.peer'), or the path of one of the channel's. "
        "[default: the channel's own]",
    ),
]
Collections = Annotated[
    Path | None,
    typer.Option("--collections", metavar="FILE", help="Collections as JSON, in the form of Fabric's tools."),
]
InitRequired = Annotated[bool, typer.Option("--init-required", help="The first call has to be the initialisation.")]


@chaincode.command("package")
def package_command(
    label: Annotated[str, typer.Option("--label", metavar="TEXT", help="Label; it becomes part of the package id.")],
    address: Annotated[str, typer.Option("--address", metavar="HOST:PORT", help="Where the chaincode serves.")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The package to write.")],
    root_certificate: Annotated[
        Path | None,
        typer.Option("--root-cert", metavar="FILE", help="Who signed the server's certificate; no TLS without."),
    ] = None,
    client_certificate: Annotated[
        Path | None, typer.Option("--client-cert", metavar="FILE", help="What your peers show to the server.")
    ] = None,
    client_key: Annotated[Path | None, typer.Option("--client-key", metavar="FILE")] = None,
) -> None:
    """Write a package for a chaincode that runs as a service, and print its id. The same input gives the same id."""
    with _errors():
        if (client_certificate is None) is not (client_key is None):
            raise typer.BadParameter("--client-cert and --client-key go together")
        connection: dict[str, object] = {"address": address, "dial_timeout": "10s"}
        if root_certificate is not None:
            connection |= {"tls_required": True, "root_cert": _text(root_certificate)}
        if client_certificate is not None and client_key is not None:
            if root_certificate is None:
                raise typer.BadParameter("--client-cert needs --root-cert")
            connection |= {
                "client_auth_required": True,
                "client_cert": _text(client_certificate),
                "client_key": _text(client_key),
            }
        content = build_service_package(label, connection)
        write_file(out, content, mode=0o600)  # it holds the key
        typer.echo(package_id(label, content))


@chaincode.command("install")
def install_command(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The package.")],
    profile: Profile,
    msp_id: MspId,
    identity: Identity,
) -> None:
    """Install a package on every peer of your organisation that the profile names; installed already is fine."""

    async def work(admin: Administrator) -> None:
        content = _bytes(file)
        label = read_package(content).metadata.label
        for peer in admin.peers:
            installed = await install(peer, content, label)
            typer.echo(f"{peer.channel.address}: {installed}")

    _run(profile, msp_id, identity, work)


@chaincode.command("approve")
def approve_command(  # noqa: PLR0913, PLR0917  # one parameter per option
    name: Name,
    profile: Profile,
    msp_id: MspId,
    identity: Identity,
    channel_name: ChannelName,
    version: Version,
    sequence: Sequence,
    package: Annotated[
        str, typer.Option("--package-id", metavar="ID", help="What your peers run it by; without it they cannot.")
    ] = "",
    policy: Policy = "",
    collections: Collections = None,
    init_required: InitRequired = False,
) -> None:
    """Approve a definition for your organisation; every organisation has to give the very same."""

    async def work(admin: Administrator) -> None:
        wanted = definition(
            sequence=sequence, version=version, policy=policy, collections=collections, init_required=init_required
        )
        await approve(admin.network(channel_name), admin.msp_id, name, wanted, package)
        typer.echo(f"{admin.msp_id} approves {name} {version}, sequence {sequence}, on {channel_name}")
        await _show_approvals(admin, channel_name, name, wanted)

    _run(profile, msp_id, identity, work)


@chaincode.command("commit")
def commit_command(  # noqa: PLR0913, PLR0917  # one parameter per option
    name: Name,
    profile: Profile,
    msp_id: MspId,
    identity: Identity,
    channel_name: ChannelName,
    version: Version,
    sequence: Sequence,
    policy: Policy = "",
    collections: Collections = None,
    init_required: InitRequired = False,
) -> None:
    """Commit a definition that enough organisations have approved."""

    async def work(admin: Administrator) -> None:
        wanted = definition(
            sequence=sequence, version=version, policy=policy, collections=collections, init_required=init_required
        )
        await commit(admin.network(channel_name), name, wanted)
        typer.echo(f"{name} {version}, sequence {sequence}, is committed on {channel_name}")

    _run(profile, msp_id, identity, work)


@chaincode.command("status")
def status_command(  # one parameter per option
    profile: Profile,
    msp_id: MspId,
    identity: Identity,
    channel_name: ChannelName,
    as_json: Annotated[bool, typer.Option("--json", help="As one JSON object.")] = False,
) -> None:
    """Say which definitions are committed on a channel, and who has approved them."""

    async def work(admin: Administrator) -> None:
        found = await committed_chaincodes(admin.network(channel_name))
        if as_json:
            typer.echo(json.dumps([entry._asdict() for entry in found], indent=1))
            return
        if not found:
            typer.echo(f"no chaincode is committed on {channel_name}")
        for entry in found:
            typer.echo(f"{entry.name} {entry.version}, sequence {entry.sequence}")
            typer.echo(f"  policy: {entry.policy}")
            if entry.collections:
                typer.echo(f"  collections: {', '.join(entry.collections)}")
            for organization, approved in sorted(entry.approvals.items()):
                typer.echo(f"  {organization}: {'approved' if approved else 'not approved'}")

    _run(profile, msp_id, identity, work)


@channel.command("show")
def show_command(
    profile: Profile,
    msp_id: MspId,
    identity: Identity,
    channel_name: ChannelName,
    as_json: Annotated[bool, typer.Option("--json", help="As one JSON object.")] = False,
) -> None:
    """Show a channel's configuration: organisations, orderers, policies, capabilities, certificates with days left."""

    async def work(admin: Administrator) -> None:
        configuration = await read_configuration(admin.network(channel_name))
        shown = describe_channel(configuration, datetime.fromtimestamp(time.time(), UTC))
        if as_json:
            certificates = [certificate._asdict() for certificate in shown.certificates]
            typer.echo(json.dumps({**shown._asdict(), "certificates": certificates}, indent=1))
            return
        typer.echo(f"{channel_name}: configuration {shown.sequence}, consensus {shown.consensus}")
        typer.echo(f"organisations: {', '.join(shown.organizations)}")
        for name, endpoints in shown.orderers.items():
            typer.echo(f"orderers of {name}: {', '.join(endpoints)}")
        for level, names in shown.capabilities.items():
            typer.echo(f"capabilities of {level}: {', '.join(names)}")
        typer.echo("policies:")
        for path, text in shown.policies.items():
            typer.echo(f"  {path}: {text}")
        for resource, reference in shown.acls.items():
            typer.echo(f"access to {resource}: {reference}")
        typer.echo("certificates, the one that ends first above:")
        for certificate in shown.certificates:
            mark = " !" if certificate.days_left < SOON_DAYS else ""
            typer.echo(
                f"  {certificate.days_left:6} days{mark}: {certificate.purpose} of {certificate.organization} "
                f"({certificate.subject})"
            )

    _run(profile, msp_id, identity, work)


async def _show_approvals(admin: Administrator, channel_name: str, name: str, wanted: ChaincodeDefinition) -> None:
    given = await approvals(admin.network(channel_name), name, wanted)
    for organization, approved in sorted(given.items()):
        typer.echo(f"  {organization}: {'approved' if approved else 'not approved'}")


def _run(profile: Path, msp_id: str, identity: Path, work: Callable[[Administrator], Awaitable[None]]) -> None:
    async def connected() -> None:
        async with administrator(profile, msp_id, identity) as admin:
            await work(admin)

    with _errors():
        asyncio.run(connected())


def _bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise typer.BadParameter(f"{file}: {error.strerror}") from error


def _text(file: Path) -> str:
    return _bytes(file).decode("utf-8", "replace")


@contextmanager
def _errors() -> Iterator[None]:
    """Print an error of ours with its code and what each peer said, and exit."""
    try:
        yield
    except (NetworkError, ProtocolError) as error:
        typer.echo(f"error[{error.code}]: {error}", err=True)
        raise typer.Exit(1) from error
    except ClientError as error:
        typer.echo(f"error[{error.code}]: {error}", err=True)
        for detail in getattr(error, "details", ()):
            typer.echo(f"  {detail.address} ({detail.msp_id}): {detail.message}", err=True)
        raise typer.Exit(1) from error
