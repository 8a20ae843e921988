"""The commands `kvr network chaincode`, for networks that others created too.

Exit status as of `kvr network`.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from network.administration import (
    Administrator,
    committed_chaincodes,
    committed_collections,
    definition,
)
from network.collection_change import check_collection_change
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
from network.lifecycle import approvals, approve, commit, committed_sequence, install
from network.protocol.package import build_service_package, package_id, read_package
from network.running.atomic_file import write_file
from network.running.root import NetworkRoot
from network.upgrade import upgrade_chaincodes

chaincode = typer.Typer(no_args_is_help=True, help="Deploy chaincodes on channels, each organisation for itself.")

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
    """Write a package for a chaincode that runs as a service, and print its id. The same input gives the same id.

    The package holds the certificates, and the client key, that your peers reach the chaincode with. So renewing them
    means a new package: install it, and approve the same definition again with its id; no commit is needed.
    """
    with reported_errors():
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
        content = file_bytes(file)
        label = read_package(content).metadata.label
        for peer in admin.peers:
            installed = await install(peer, content, label)
            typer.echo(f"{peer.channel.address}: {installed}")

    run_as_admin(profile, msp_id, identity, work)


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
    """Approve a definition for your organisation; every organisation has to give the very same.

    An upgrade is the next sequence, approved and committed again. Of collections that exist, members, peer counts and
    policies may change; none may be left out, and blockToLive stays.
    """

    async def work(admin: Administrator) -> None:
        wanted = definition(
            sequence=sequence, version=version, policy=policy, collections=collections, init_required=init_required
        )
        network = admin.network(channel_name)
        check_collection_change(wanted.collection_configs(), await committed_collections(network, name))
        await approve(network, admin.msp_id, name, wanted, package)
        typer.echo(f"{admin.msp_id} approves {name} {version}, sequence {sequence}, on {channel_name}")
        if await committed_sequence(network, name) < sequence:
            _show_approvals(await approvals(network, name, wanted))
        else:
            typer.echo("  it is committed already; from now on your peers run it by this package")

    run_as_admin(profile, msp_id, identity, work)


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

    run_as_admin(profile, msp_id, identity, work)


@chaincode.command("upgrade")
def upgrade_command(
    topology: Annotated[
        Path, typer.Argument(metavar="FILE", help="The network's topology with new sequences of its chaincodes.")
    ],
    root: Annotated[
        Path, typer.Option("--root", envvar="KVR_NETWORK_ROOT", metavar="FOLDER", help="The network's folder.")
    ] = Path("kvr-network"),
) -> None:
    """Upgrade the chaincodes of a network of ours: install, approve and commit at every organisation, and serve."""
    with reported_errors():
        upgraded = upgrade_chaincodes(NetworkRoot(root), topology, lambda step: typer.echo(f"  {step}"))
        typer.echo(f"upgraded: {', '.join(upgraded)}")


@chaincode.command("status")
def status_command(  # one parameter per option
    profile: Profile,
    msp_id: MspId,
    identity: Identity,
    channel_name: ChannelName,
    as_json: AsJson = False,
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
            _show_approvals(entry.approvals)

    run_as_admin(profile, msp_id, identity, work)


def _show_approvals(given: Mapping[str, bool]) -> None:
    for organization, approved in sorted(given.items()):
        typer.echo(f"  {organization}: {'approved' if approved else 'not approved'}")


def _text(file: Path) -> str:
    return file_bytes(file).decode("utf-8", "replace")
