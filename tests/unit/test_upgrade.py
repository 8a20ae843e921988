"""What counts as an upgrade of chaincodes between two topologies, and what is said about one that is none."""

from dataclasses import replace
from typing import Any

import pytest

from network.errors import ChannelChangeError
from network.topology.definition import Chaincode, Topology
from network.topology.topology_file import read_topology, shipped_topology
from network.upgrade import check_upgrade


@pytest.fixture(scope="module")
def before() -> Topology:
    return read_topology(shipped_topology("dev"))


def with_chaincodes(topology: Topology, *chaincodes: Chaincode) -> Topology:
    channel = replace(topology.channels[0], chaincodes=chaincodes)
    return replace(topology, channels=(channel, *topology.channels[1:]))


def with_first(topology: Topology, **fields: Any) -> Topology:
    """Change the first chaincode, which has collections."""
    first, *others = topology.channels[0].chaincodes
    assert first.collections
    return with_chaincodes(topology, replace(first, **fields), *others)


def with_collection(topology: Topology, **fields: Any) -> Topology:
    first, *others = topology.channels[0].chaincodes[0].collections
    sequence = topology.channels[0].chaincodes[0].sequence + 1
    return with_first(topology, sequence=sequence, collections=(replace(first, **fields), *others))


def test_the_chaincodes_that_change_are_named(before: Topology) -> None:
    first = before.channels[0].chaincodes[0]

    assert check_upgrade(before, with_first(before, version="1.1", sequence=first.sequence + 1)) == [first.name]


def test_members_of_a_collection_change_with_the_next_sequence(before: Topology) -> None:
    name = before.channels[0].chaincodes[0].name

    assert check_upgrade(before, with_collection(before, members="OR('ServiceMSP.member')")) == [name]


def test_a_collection_is_added_with_the_next_sequence(before: Topology) -> None:
    first = before.channels[0].chaincodes[0]
    collections = (*first.collections, replace(first.collections[0], name="another", block_to_live=3))

    after = with_first(before, sequence=first.sequence + 1, collections=collections)

    assert check_upgrade(before, after) == [first.name]


def test_the_same_topology_is_no_upgrade(before: Topology) -> None:
    with pytest.raises(ChannelChangeError, match="nothing would change"):
        check_upgrade(before, before)


def test_other_nodes_are_no_upgrade(before: Topology) -> None:
    with pytest.raises(ChannelChangeError, match="more than its chaincodes"):
        check_upgrade(before, replace(with_first(before, sequence=2), organizations=before.organizations[:-1]))


def test_chaincodes_are_neither_added_nor_dropped(before: Topology) -> None:
    first, *others = before.channels[0].chaincodes

    with pytest.raises(ChannelChangeError, match=f"{first.name}: a chaincode that is on a channel stays there"):
        check_upgrade(before, with_chaincodes(before, *others))
    with pytest.raises(ChannelChangeError, match="added: a chaincode"):
        check_upgrade(before, with_chaincodes(before, first, *others, replace(first, name="added")))


@pytest.mark.parametrize("step", [-1, 0, 2])
def test_a_change_has_the_next_sequence(before: Topology, step: int) -> None:
    first = before.channels[0].chaincodes[0]

    with pytest.raises(ChannelChangeError, match=f"the next one is {first.sequence + 1}"):
        check_upgrade(before, with_first(before, version="9", sequence=first.sequence + step))


def test_a_collection_is_not_dropped_and_what_is_possible_is_said(before: Topology) -> None:
    first = before.channels[0].chaincodes[0]

    with pytest.raises(ChannelChangeError, match=f"{first.collections[0].name}.*add a collection with another name"):
        check_upgrade(before, with_first(before, sequence=2, collections=first.collections[1:]))


def test_the_block_to_live_of_a_collection_stays_and_what_is_possible_is_said(before: Topology) -> None:
    first = before.channels[0].chaincodes[0].collections[0]

    with pytest.raises(ChannelChangeError, match="One that exists stays, and so does its blockToLive"):
        check_upgrade(before, with_collection(before, block_to_live=first.block_to_live + 1))
