"""The command `kvr network record`: a channel as files, for tests and for looking at it later.

Exit status as of `kvr network`.
"""

import asyncio
from pathlib import Path
from typing import Annotated

import psutil
import typer

from network.administration import administrator
from network.command_options import reported_errors
from network.creation import CreatedNetwork, read_network
from network.errors import RecordingError
from network.native.binary import program_version
from network.operation import status
from network.recording import Recording, connected_members, record_channel
from network.running.root import NetworkKind, NetworkRoot

DEFAULT_ROOT = Path("kvr-network")


def record_command(  # one parameter per option
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where to; an empty folder, or none yet.")],
    channel_name: Annotated[
        str | None, typer.Option("--channel", metavar="NAME", help="[default: the only one of a network of ours]")
    ] = None,
    root: Annotated[
        Path,
        typer.Option("--root", envvar="KVR_NETWORK_ROOT", metavar="FOLDER", help="A network of ours, all its members."),
    ] = DEFAULT_ROOT,
    profile: Annotated[
        Path | None,
        typer.Option(
            "--profile", metavar="FILE", help="A network that others created: connection profile that names the peers."
        ),
    ] = None,
    msp_id: Annotated[
        str | None, typer.Option("--msp-id", metavar="ID", help="With --profile: your organisation, which is recorded.")
    ] = None,
    identity: Annotated[
        Path | None, typer.Option("--identity", metavar="FOLDER", help="With --profile: MSP folder of its admin.")
    ] = None,
) -> None:
    """Record a channel: its blocks as a peer delivers them, private data of members, what peers say of both.

    The folder holds the private values that the members have, and no key: who may read them may read the folder.
    """
    with reported_errors():
        if profile is None:
            if msp_id is not None or identity is not None:
                raise typer.BadParameter("--msp-id and --identity go with --profile")
            done = asyncio.run(_record_own(NetworkRoot(root), channel_name, folder))
        elif msp_id is None or identity is None or channel_name is None:
            raise typer.BadParameter("--profile needs --msp-id, --identity and --channel")
        else:
            done = asyncio.run(_record_others(profile, msp_id, identity, channel_name, folder))
    private = ", ".join(f"{name} {count}" for name, count in done.private.items())
    typer.echo(f"{done.channel}: height {done.height}, last header hash {done.header_hash.hex()}")
    typer.echo(f"blocks with private data: {private}")
    typer.echo(f"recorded in {folder}; it holds these private values")


async def _record_own(root: NetworkRoot, channel_name: str | None, folder: Path) -> Recording:
    network = read_network(root)
    names = [channel.name for channel in network.topology.channels]
    if channel_name is None and len(names) != 1:
        raise RecordingError(f"{root.path} has the channels {', '.join(names)}; name one with --channel")
    async with connected_members(network, channel_name or names[0]) as peers:
        return await record_channel(peers, channel_name or names[0], folder, _progress, _facts(network))


async def _record_others(profile: Path, msp_id: str, identity: Path, channel_name: str, folder: Path) -> Recording:
    async with administrator(profile, msp_id, identity) as admin:
        return await record_channel(admin.peers, channel_name, folder, _progress)


def _facts(network: CreatedNetwork) -> dict[str, object]:
    """Say what the nodes are: what runs, not what would be started now."""
    facts: dict[str, object] = {
        "network": network.state.kind.value,
        "topology": network.root.topology_file.read_text(encoding="utf-8"),
    }
    if network.state.kind is NetworkKind.NATIVE:
        nodes = {node.name for organization in network.topology.all_organizations for node in organization.nodes}
        programs = {
            Path(psutil.Process(process.pid).exe()) for process in status(network.root).running if process.name in nodes
        }
        versions = {".".join(map(str, program_version(program))) for program in programs}
        facts["fabric"] = ", ".join(sorted(versions))
    return facts


def _progress(step: str) -> None:
    typer.echo(f"  {step}")
