"""The commands `kvr network node`: kill, pause, continue and restart one node of a network of ours.

Exit status as of `kvr network`.
"""

from pathlib import Path
from typing import Annotated

import typer

from network.command_options import reported_errors
from network.embedded.control import NodeVerb
from network.node import act_on_node
from network.running.root import NetworkRoot

node = typer.Typer(no_args_is_help=True, help="Kill, pause, continue and restart single nodes.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="A node, or a chaincode process, as `status` names it.")]
Root = Annotated[
    Path,
    typer.Option("--root", envvar="KVR_NETWORK_ROOT", metavar="FOLDER", help="Everything of the network is in here."),
]
Force = Annotated[bool, typer.Option("--force", help="Also when the orderers lose their quorum.")]
DEFAULT_ROOT = Path("kvr-network")


@node.command("kill")
def kill_command(name: Name, root: Root = DEFAULT_ROOT, force: Force = False) -> None:
    """End a node at once, as a crash would. `restart` brings it back, and so does `kvr network up`."""
    _act(NodeVerb.KILL, name, root, force=force)


@node.command("pause")
def pause_command(name: Name, root: Root = DEFAULT_ROOT, force: Force = False) -> None:
    """Stop a node where it stands: it is reached, and does not answer."""
    _act(NodeVerb.PAUSE, name, root, force=force)


@node.command("continue")
def continue_command(name: Name, root: Root = DEFAULT_ROOT) -> None:
    """Let a node that was paused go on."""
    _act(NodeVerb.CONTINUE, name, root, force=False)


@node.command("restart")
def restart_command(name: Name, root: Root = DEFAULT_ROOT, force: Force = False) -> None:
    """End a node and start it again, with the certificates that its files hold now."""
    _act(NodeVerb.RESTART, name, root, force=force)


def _act(verb: NodeVerb, name: str, root: Path, *, force: bool) -> None:
    with reported_errors():
        typer.echo(act_on_node(NetworkRoot(root), verb, name, force=force))
