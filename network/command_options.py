"""What the commands for networks that others created have in common: options, errors, and working as an admin.

Exit status as of `kvr network`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from gateway.client.errors import BroadcastError, ClientError
from network.administration import Administrator, administrator
from network.errors import NetworkError
from network.protocol.errors import ProtocolError

Profile = Annotated[Path, typer.Option("--profile", metavar="FILE", help="Connection profile that names the peers.")]
MspId = Annotated[str, typer.Option("--msp-id", metavar="ID", help="Your organisation.")]
Identity = Annotated[
    Path, typer.Option("--identity", metavar="FOLDER", help="MSP folder of its admin: signcerts/ and keystore/.")
]
ChannelName = Annotated[str, typer.Option("--channel", metavar="NAME")]
AsJson = Annotated[bool, typer.Option("--json", help="As one JSON object.")]


def run_as_admin(profile: Path, msp_id: str, identity: Path, work: Callable[[Administrator], Awaitable[None]]) -> None:
    """Connect as an organisation's admin, work, and print an error of ours as `kvr network` does."""

    async def connected() -> None:
        async with administrator(profile, msp_id, identity) as admin:
            await work(admin)

    with reported_errors():
        asyncio.run(connected())


@contextmanager
def reported_errors() -> Iterator[None]:
    """Print an error of ours with its code and what each node said, and exit."""
    try:
        yield
    except (NetworkError, ProtocolError) as error:
        typer.echo(f"error[{error.code}]: {error}", err=True)
        raise typer.Exit(1) from error
    except ClientError as error:
        typer.echo(f"error[{error.code}]: {error}", err=True)
        if isinstance(error, BroadcastError) and error.info:
            typer.echo(f"  {error.info}", err=True)
        for detail in getattr(error, "details", ()):
            typer.echo(f"  {detail.address} ({detail.msp_id}): {detail.message}", err=True)
        raise typer.Exit(1) from error


def file_bytes(file: Path) -> bytes:
    """Read a file that an option names."""
    try:
        return file.read_bytes()
    except OSError as error:
        raise typer.BadParameter(f"{file}: {error.strerror}") from error
