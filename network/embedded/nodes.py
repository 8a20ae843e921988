"""What the process of an embedded network is told of its nodes, in one file."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from network.running.atomic_file import write_file

PROCESS_NAME: Final = "embedded"
NODES_FILE: Final = "nodes.json"
READY_FILE: Final = "ready"
"""Holds the pid of the process that serves them, from when it does."""


class NodeEntry(NamedTuple):
    """One node; paths are text."""

    name: str
    msp_id: str
    address: str
    msp: str
    tls_certificate: str
    tls_key: str
    channels: list[str]
    is_orderer: bool


class Nodes(NamedTuple):
    """All nodes, and the file with the first block of each channel."""

    entries: list[NodeEntry]
    genesis_blocks: dict[str, str]


def write_nodes(folder: Path, entries: Iterable[NodeEntry], genesis_blocks: Mapping[str, str]) -> None:
    """Write the file into the folder of the embedded network, anew at every start."""
    content = {"nodes": [entry._asdict() for entry in entries], "genesis_blocks": dict(genesis_blocks)}
    write_file(folder / NODES_FILE, json.dumps(content, indent=1).encode(), is_lasting=False)


def read_nodes(folder: Path) -> Nodes:
    """Read the file."""
    content: Any = json.loads((folder / NODES_FILE).read_bytes())
    return Nodes([NodeEntry(**entry) for entry in content["nodes"]], content["genesis_blocks"])
