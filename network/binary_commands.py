"""The commands `kvr network binaries`: where the programs of Fabric are on this machine.

Exit status as of `kvr network`.
"""

import json
from pathlib import Path
from typing import Annotated

import typer

from network.command_options import AsJson, reported_errors
from network.native.binary import program_folders, register_folder

binaries = typer.Typer(no_args_is_help=True, help="Where the programs of Hyperledger Fabric are.")


@binaries.command("add")
def add_command(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Holds the programs peer and orderer.")],
) -> None:
    """Use the programs of a folder from now on; their version is read and checked."""
    with reported_errors():
        found = register_folder(folder)
    typer.echo(f"registered {found.peer.parent}: Fabric {'.'.join(map(str, found.version))}")


@binaries.command("list")
def list_command(as_json: AsJson = False) -> None:
    """List where programs are looked for; the first folder without a problem is used."""
    with reported_errors():
        found = program_folders()
    if as_json:
        facts = [{"folder": str(it.path), "version": it.version, "problem": it.problem} for it in found]
        typer.echo(json.dumps(facts, indent=1))
        return
    used = next((it for it in found if not it.problem), None)
    for entry in found:
        mark = "used" if entry is used else ""
        typer.echo(f"{entry.path}: {f'Fabric {entry.version}' if entry.version else entry.problem} {mark}".rstrip())
    if not found:
        typer.echo("no folder is known; register one: kvr network binaries add FOLDER")
