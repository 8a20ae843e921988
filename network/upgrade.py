"""Upgrading the chaincodes of a network that runs to what an edited topology says; the same on every kind of network.

The new topology becomes the root's before anything else is done: after an interruption `kvr network up` does the rest.
While a chaincode's processes are exchanged, which takes a second or two, its transactions are refused at endorsement;
those that were endorsed before the commit and ordered after it are MVCC_READ_CONFLICT, as on every Fabric network.
"""

import asyncio
import os
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from network.chaincode_process import start_chaincodes
from network.collection_change import check_collection_change
from network.creation import begin_network, complete_network, read_network
from network.deployment import deploy
from network.errors import ChannelChangeError, NodeError
from network.lifecycle import definition_of
from network.node import NodeCondition, node_conditions
from network.running.atomic_file import write_file
from network.running.process import ProcessTable
from network.running.root import NetworkRoot
from network.topology.definition import Chaincode, Channel, Topology
from network.topology.topology_file import read_topology

Progress = Callable[[str], None]


def upgrade_chaincodes(root: NetworkRoot, topology_file: Path, progress: Progress) -> list[str]:
    """Bring every chaincode to what the topology says; give the names of those that were upgraded.

    Raises TopologyError for a file that is wrong; ChannelChangeError when it differs in more than chaincodes, in what
    no peer lets change, or in nothing; NodeError when not every node runs; ReadinessError when a step fails.
    """
    with root.claim():
        network = read_network(root)
        wanted = read_topology(topology_file)
        upgraded = check_upgrade(network.topology, wanted)
        table = ProcessTable(root.processes, network.state.network_id)
        conditions = node_conditions(network, table)
        stopped = [name for name, condition in conditions.items() if condition is not NodeCondition.RUNNING]
        if stopped:
            raise NodeError(f"not running: {', '.join(stopped)}; bring the network up first")
        write_file(root.topology_file, topology_file.read_bytes())
        now = datetime.fromtimestamp(time.time(), UTC)
        begun = begin_network(root, None, network.state.kind)
        made = complete_network(begun, now=now, randomness=os.urandom)
        asyncio.run(deploy(made, progress, lambda: start_chaincodes(made, table)))
        start_chaincodes(made, table)
    return upgraded


def check_upgrade(before: Topology, after: Topology) -> list[str]:
    """Name the chaincodes that change. Pure; raises ChannelChangeError for a topology that is no upgrade of another."""
    if _without_chaincodes(before) != _without_chaincodes(after):
        raise ChannelChangeError(
            "the topology differs in more than its chaincodes; a channel is changed by `kvr network channel update`, "
            "nodes and organisations by making the network anew"
        )
    changed = []
    for old, new in zip(before.channels, after.channels, strict=True):
        changed += _check_channel(old, new)
    if not changed:
        raise ChannelChangeError("the topology says what the network was made from: nothing would change")
    return changed


def _without_chaincodes(topology: Topology) -> Topology:
    return replace(topology, channels=tuple([replace(channel, chaincodes=()) for channel in topology.channels]))


def _check_channel(before: Channel, after: Channel) -> list[str]:
    old, new = ({it.name: it for it in channel.chaincodes} for channel in (before, after))
    if old.keys() != new.keys():
        names = ", ".join(sorted(old.keys() ^ new.keys()))
        raise ChannelChangeError(
            f"{names}: a chaincode that is on a channel stays there, and a new one needs a network made with it, or "
            "`kvr network chaincode package, install, approve, commit`"
        )
    changed = [name for name in old if old[name] != new[name]]
    for name in changed:
        _check_chaincode(old[name], new[name])
    return changed


def _check_chaincode(before: Chaincode, after: Chaincode) -> None:
    if after.sequence != before.sequence + 1:
        raise ChannelChangeError(
            f"chaincode {after.name} changes with sequence {after.sequence}; the next one is {before.sequence + 1}"
        )
    check_collection_change(definition_of(after).collection_configs(), definition_of(before).collection_configs())
