"""The command `kvr gateway`.

Exit status: 0 done, 1 an error of ours (printed as `error[code]: what and where`), 2 wrong usage.
"""

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.api.errors import GatewayServiceError, SettingsError
from gateway.api.token import TokenKey
from gateway.client.errors import ClientError

if TYPE_CHECKING:
    from gateway.api.reading import Tables

gateway = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # they can show what variables held
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Serve applications over HTTP on a Fabric network.",
)

_COLLECTION = re.compile(r"([A-Za-z0-9-][A-Za-z0-9_-]*)=([A-Za-z0-9.-]+(?:,[A-Za-z0-9.-]+)*)")

TokenKeyFile = Annotated[
    Path,
    typer.Option("--token-key", metavar="FILE", help="Secret of the development tokens; made when it is not there."),
]


@gateway.callback()
def _group() -> None:
    """Keep `gateway` a group of commands."""


@gateway.command()
def serve(  # noqa: PLR0913, PLR0917  # one parameter per option
    profile: Annotated[Path, typer.Option(metavar="FILE", help="Connection profile of the organisation.")],
    wallet: Annotated[Path, typer.Option(metavar="FOLDER", help="Users: one folder <user>/msp each.")],
    channel: Annotated[str, typer.Option(metavar="NAME")],
    token_key: TokenKeyFile,
    chaincode: Annotated[str, typer.Option(metavar="NAME")] = "service",
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535)] = 8080,
    collection: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=MSP,MSP", help="Who endorses private writes to a collection; repeat for each."),
    ] = None,
    tables: Annotated[
        str | None,
        typer.Option(envvar="KVR_DATABASE", metavar="URL", help="Database of the synced tables, for lists."),
    ] = None,
) -> None:
    """Serve until SIGTERM or Ctrl-C. HTTP without TLS: put it behind a proxy that has some."""
    # Loaded by the service alone: a token is printed at once, and lists are not for those who ask for none.
    import uvicorn  # noqa: PLC0415

    from gateway.api.app import create_app  # noqa: PLC0415
    from gateway.api.fabric_ledger import FabricLedger  # noqa: PLC0415
    from gateway.client.profile import read_profile  # noqa: PLC0415
    from gateway.wallet.folder_wallet import FolderWallet  # noqa: PLC0415

    try:
        organizations = read_profile(profile)
        peers = organizations.own_peers(organizations.organization)
        if not peers:
            raise SettingsError(f"{profile}: organisation {organizations.organization} has no peer")
        users = FolderWallet(wallet, organizations.organization)
        app = create_app(
            lambda: FabricLedger.connect(peers[0], users, channel, chaincode),
            TokenKey.read_or_create(token_key),
            tables=_tables(tables, channel) if tables else None,
            collections=_collections(collection or []),
        )
    except (GatewayServiceError, ClientError) as error:
        typer.echo(f"error[{error.code}]: {error}", err=True)
        raise typer.Exit(1) from error
    uvicorn.run(app, host=host, port=port, log_level="warning", access_log=False, server_header=False)


@gateway.command()
def token(
    user: Annotated[str, typer.Argument(help="Name of a user of the wallet.")],
    token_key: TokenKeyFile,
    hours: Annotated[float, typer.Option(help="How long it counts, at most 24.")] = 8,
) -> None:
    """Print a development token that speaks for a user."""
    try:
        key = TokenKey.read_or_create(token_key)
        typer.echo(key.issue(user, now=int(time.time()), life_seconds=round(hours * 3600)))
    except GatewayServiceError as error:
        typer.echo(f"error[{error.code}]: {error}", err=True)
        raise typer.Exit(1) from error


def _tables(url: str, channel: str) -> "Tables":
    from gateway.api.tables import RequestTables  # noqa: PLC0415  # it takes a database's libraries

    return RequestTables(url, channel)


def _collections(named: list[str]) -> dict[str, tuple[str, ...]]:
    found = {}
    for entry in named:
        match = _COLLECTION.fullmatch(entry)
        if match is None:
            raise SettingsError(f"--collection {entry}: expected NAME=MSP,MSP")
        found[match[1]] = tuple(match[2].split(","))
    return found
