"""The commands `kvr network channel`, for networks that others created too; those that change one are in `update`.

Exit status as of `kvr network`.
"""

import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

import typer
from fabric_protos.common import common_pb2

from network.administration import Administrator, describe_channel
from network.channel.submission import fetch_configuration
from network.channel_update_commands import update
from network.command_options import AsJson, ChannelName, Identity, MspId, Profile, file_bytes, run_as_admin
from network.errors import ChannelChangeError
from network.protocol.decode import decode_block
from network.protocol.wire import parse
from network.running.atomic_file import write_file

SOON_DAYS: Final = 60

channel = typer.Typer(no_args_is_help=True, help="Look at channels, change them, and have peers join them.")
channel.add_typer(update, name="update")


@channel.command("show")
def show_command(
    profile: Profile,
    msp_id: MspId,
    identity: Identity,
    channel_name: ChannelName,
    as_json: AsJson = False,
) -> None:
    """Show a channel's configuration: organisations, orderers, policies, capabilities, certificates with days left."""

    async def work(admin: Administrator) -> None:
        fetched = await fetch_configuration(admin.network(channel_name))
        shown = describe_channel(fetched.configuration, datetime.fromtimestamp(time.time(), UTC))
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

    run_as_admin(profile, msp_id, identity, work)


@channel.command("block")
def block_command(
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The block to write.")],
    profile: Profile,
    msp_id: MspId,
    identity: Identity,
    channel_name: ChannelName,
    number: Annotated[int, typer.Argument(metavar="NUMBER", min=0, help="Its number.")] = 0,
) -> None:
    """Write a block as your peer has it. An organisation that is let in needs block 0 for its peers to join."""

    async def work(admin: Administrator) -> None:
        arguments = [b"GetBlockByNumber", channel_name.encode(), str(number).encode()]
        content = await admin.peers[0].call("qscc", arguments, channel_name=channel_name)
        block = decode_block(content)
        write_file(out, content)
        typer.echo(f"block {block.header.number} of {channel_name}: {len(content)} bytes in {out}")

    run_as_admin(profile, msp_id, identity, work)


@channel.command("join")
def join_command(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Block 0 of the channel.")],
    profile: Profile,
    msp_id: MspId,
    identity: Identity,
) -> None:
    """Have every peer of your organisation that the profile names join a channel."""

    async def work(admin: Administrator) -> None:
        content = file_bytes(file)
        block = decode_block(content)
        if block.header.number != 0 or len(block.transactions) != 1 or not block.transactions[0].channel_id:
            raise ChannelChangeError(f"{file}: not the first block of a channel")
        # A peer's own verdict on it has no place in what another peer joins with.
        message = parse(common_pb2.Block, content, "Block")
        for peer in admin.peers:
            await peer.join(message.SerializeToString())
            typer.echo(f"{peer.channel.address}: joined {block.transactions[0].channel_id}")

    run_as_admin(profile, msp_id, identity, work)
