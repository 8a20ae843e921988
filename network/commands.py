"""The commands `kvr network`.

Exit status: 0 done, 1 an error of ours (printed as `error[code]: what and where`), 2 wrong usage, 3 `status` of a
network that is not up, 130 interrupted.
"""

import json
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final

import typer

from network.administration_commands import chaincode
from network.binary_commands import binaries
from network.channel_commands import channel
from network.creation import CreatedNetwork
from network.errors import NetworkError
from network.node_commands import node
from network.operation import NetworkStatus, destroy, down, is_network, log_files, status, up
from network.recording_command import record_command
from network.running.interruption import interruptible
from network.running.root import NetworkKind, NetworkRoot
from network.topology.topology_file import shipped_topology

NOT_UP: Final = 3
INTERRUPTED: Final = 130
DEFAULT_LINES: Final = 20
MEBIBYTE: Final = 1024 * 1024
EMBEDDED_MEANS = (
    "This is the embedded network: one process holds every key, there is no consensus and no gossip. It is for\n"
    "developing, showing and testing. What it accepts real nodes accept too; keep real data on real Fabric."
)

network = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # they can show what variables held
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Run a Fabric network from one topology file.",
)

network.add_typer(chaincode, name="chaincode")
network.add_typer(channel, name="channel")
network.add_typer(node, name="node")
network.add_typer(binaries, name="binaries")
network.command("record")(record_command)

Root = Annotated[
    Path,
    typer.Option("--root", envvar="KVR_NETWORK_ROOT", metavar="FOLDER", help="Everything of the network is in here."),
]
DEFAULT_ROOT = Path("kvr-network")


@network.command("up")
def up_command(
    root: Root = DEFAULT_ROOT,
    topology: Annotated[
        str | None,
        typer.Option(
            "--topology", metavar="FILE|NAME", help="A topology file, or a shipped one by name. [default: dev]"
        ),
    ] = None,
    native: Annotated[
        bool, typer.Option("--native", help="Real peers and orderers, whose programs are found on this machine.")
    ] = False,
) -> None:
    """Make the network if there is none, start it, and return when it is ready."""
    started = time.monotonic()
    kind = NetworkKind.NATIVE if native else NetworkKind.EMBEDDED

    def announce(made: CreatedNetwork) -> None:
        seconds = time.monotonic() - started
        typer.echo(f"ready in {seconds:.1f} s: {made.topology.name}, {kind.value}, in {made.root.path}")
        for line in _places(made):
            typer.echo(line)
        if kind is NetworkKind.EMBEDDED:
            typer.echo(EMBEDDED_MEANS)

    with _errors(), interruptible():
        place = NetworkRoot(root)
        up(place, _topology_file(topology, place), kind, lambda step: typer.echo(f"  {step}"), announce)


@network.command("down")
def down_command(root: Root = DEFAULT_ROOT) -> None:
    """End every process of the network; its data stay."""
    with _errors():
        killed = down(NetworkRoot(root))
    typer.echo("down" + (f"; killed after waiting: {', '.join(killed)}" if killed else ""))


@network.command("status")
def status_command(
    root: Root = DEFAULT_ROOT,
    as_json: Annotated[bool, typer.Option("--json", help="As one JSON object.")] = False,
) -> None:
    """Say what runs. Exit status 3 when not all of it does."""
    with _errors():
        found = status(NetworkRoot(root))
    if as_json:
        typer.echo(json.dumps(_facts(found), indent=1))
    else:
        stopped = [f"{name} {condition}" for name, condition in found.stopped.items()]
        down_parts = [f"{', '.join(found.missing)} not running"] if found.missing else []
        state = "up" if found.is_up else f"not up: {'; '.join(down_parts + stopped)}"
        typer.echo(f"{found.network.topology.name}, {found.network.state.kind.value}: {state}")
        for process in found.running:
            typer.echo(f"  {process.name}: pid {process.pid}, {process.memory_bytes // MEBIBYTE} MiB")
        for line in _places(found.network):
            typer.echo(line)
        if found.network.state.kind is NetworkKind.EMBEDDED:
            typer.echo(EMBEDDED_MEANS)
    if not found.is_up:
        raise typer.Exit(NOT_UP)


@network.command("logs")
def logs_command(
    process: Annotated[
        str | None, typer.Argument(help="Name of a process, as `status` gives it. [default: all]")
    ] = None,
    root: Root = DEFAULT_ROOT,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="Last lines of each.")] = DEFAULT_LINES,
) -> None:
    """Show what the processes wrote."""
    with _errors():
        files = log_files(NetworkRoot(root))
        if process is not None and process not in files:
            raise typer.BadParameter(f"no process {process!r}; there are: {', '.join(files)}")
        for name, file in files.items():
            if process in (None, name) and file.exists():
                typer.echo(f"== {name} ({file})")
                with file.open(encoding="utf-8", errors="replace") as content:
                    for line in deque(content, maxlen=lines):
                        typer.echo(line.rstrip("\n"))


@network.command("destroy")
def destroy_command(
    root: Root = DEFAULT_ROOT,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """End every process and remove everything of the network: keys, certificates, blocks."""
    with _errors():
        place = NetworkRoot(root)
        if not yes and is_network(place):
            typer.confirm(f"Remove the network in {place.path} with its keys and blocks?", abort=True)
        destroy(place)
    typer.echo(f"destroyed the network in {place.path}")


def _topology_file(named: str | None, root: NetworkRoot) -> Path | None:
    """Give the file that is named, the shipped one of that name, or what an empty root is made of."""
    if named is None:
        return None if root.state_file.exists() else shipped_topology("dev")
    is_file = "/" in named or named.endswith((".yaml", ".yml"))
    return Path(named) if is_file else shipped_topology(named)


def _places(network: CreatedNetwork) -> Iterator[str]:
    for organization in network.topology.organizations:
        profile = network.root.profile(organization.msp_id)
        peers = ", ".join(f"{node.name} {network.address(node.name)}" for node in organization.nodes)
        yield f"  {organization.msp_id}: {peers or 'clients only'}; profile {profile}"


def _facts(found: NetworkStatus) -> dict[str, object]:
    return {
        "topology": found.network.topology.name,
        "kind": found.network.state.kind.value,
        "up": found.is_up,
        "missing": found.missing,
        "stopped": found.stopped,
        "processes": [process._asdict() for process in found.running],
        "ports": dict(found.network.state.ports),
    }


@contextmanager
def _errors() -> Iterator[None]:
    """Print an error of ours with its code, and exit."""
    try:
        yield
    except NetworkError as error:
        typer.echo(f"error[{error.code}]: {error}", err=True)
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        typer.echo("interrupted; what was started is ended", err=True)
        sys.exit(INTERRUPTED)
