"""Private data that a real peer handed out after purges and expiry, and after another organisation had joined.

The recorded peers were asked at the end, so purged values are missing from what they gave: a peer that commits the
chain with it cannot take those write sets with their blocks, and takes what is left of them later.
"""

import asyncio
import base64
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import pytest

from network.embedded.ledger.peer_channel import PeerChannel
from network.embedded.ledger.private_ledger import Pull
from network.protocol.read_write_set import Version
from tests.support.recorded_chain import CHAINS, load_chain
from tests.support.recorded_commit import ordered, pull_from
from tests.support.recorded_private_data import ORGANIZATIONS, read_collection_sets

PEERS = [(name, organization) for name in CHAINS for organization in ORGANIZATIONS]
NOT_AVAILABLE = "private data matching public hash version is not available"

Place = tuple[int, int, str, str]
"""Block, transaction, namespace, collection."""


class Held(NamedTuple):
    """A private key as a peer has it, and the version of its hash."""

    value: bytes | None
    version: Version | None
    hash_version: Version | None


class Replayed(NamedTuple):
    """A peer that has committed a recorded chain: its private keys then, and what it keeps after looking again."""

    keys: dict[tuple[str, str], Held]
    kept: dict[Place, bytes]
    found: int
    missing: list[tuple[int, int, str, str]]
    keys_after: dict[tuple[str, str], Held]


def answers(name: str, organization: str) -> dict[tuple[str, str], str | None]:
    """Give what the recorded peer answered, by collection and key."""
    found = {}
    for place, answer in load_chain(name).expected["private_state_as_each_peer_answers"].items():
        told_by, collection, key = place.split("/", 2)
        if told_by == organization:
            found[collection, key] = answer
    return found


@contextmanager
def committed(name: str, organization: str, pull: Pull) -> Iterator[PeerChannel]:
    """Give a peer of an organisation that has committed the chain."""
    chain = load_chain(name)

    async def commit() -> None:
        for content in chain.blocks[1:]:
            await channel.commit(ordered(content), pull)

    with TemporaryDirectory() as folder:
        channel = PeerChannel(chain.expected["channel"], f"{organization}MSP", Path(folder))
        try:
            channel.join(ordered(chain.blocks[0]))
            asyncio.run(commit())
            yield channel
        finally:
            channel.close()


def keys_of(channel: PeerChannel, name: str) -> dict[tuple[str, str], Held]:
    chaincode = load_chain(name).expected["chaincode"]
    found = {}
    for collection, key in {place for organization in ORGANIZATIONS for place in answers(name, organization)}:
        held = channel.store.private_value(chaincode, collection, key)
        hashed = channel.store.value((chaincode, collection, sha256(key.encode()).digest()))
        value, version = (None, None) if held is None else held
        found[collection, key] = Held(value, version, None if hashed is None else hashed.version)
    return found


@cache
def replayed(name: str, organization: str, asked: str) -> Replayed:
    """Commit a chain as a peer of one organisation, which then asks the recorded peer of another."""
    with committed(name, organization, pull_from(name, organization)) as channel:
        keys = keys_of(channel, name)
        found = asyncio.run(channel.reconcile(pull_from(name, asked)))
        kept = {
            (number, writes.tx_number, writes.namespace, writes.collection): writes.content
            for number in range(channel.height)
            for writes in channel.store.private_writes(number)
        }
        return Replayed(keys, kept, found, channel.store.missing(is_member=True), keys_of(channel, name))


@pytest.mark.parametrize(("name", "organization"), PEERS)
def test_a_peer_ends_with_the_private_data_that_the_real_one_handed_out(name: str, organization: str) -> None:
    peer = replayed(name, organization, organization)

    assert peer.kept == read_collection_sets(name, organization)
    assert organization == "Partner" or (peer.found, peer.missing) == (2, [])


@pytest.mark.parametrize(("name", "organization"), PEERS)
def test_a_peer_answers_private_reads_as_the_real_one_did(name: str, organization: str) -> None:
    keys = replayed(name, organization, organization).keys

    expected = answers(name, organization)
    assert expected
    for place, answer in expected.items():
        value, version, hash_version = keys[place]
        if answer is None:
            assert (value, hash_version) == (None, None), place
        elif NOT_AVAILABLE in answer:
            assert version != hash_version, place
        elif not answer.startswith("ERROR"):
            assert (value, version) == (base64.b64decode(answer), hash_version), place


@pytest.mark.parametrize("name", CHAINS[:2])
def test_a_member_that_joined_later_is_given_what_was_before_it(name: str) -> None:
    peer = replayed(name, "Partner", "Customer")

    before = {place: it for place, it in read_collection_sets(name, "Customer").items() if place[3] == "entCust"}
    assert (peer.found, peer.missing) == (9, [])
    assert len(before) > 0
    assert before.items() <= peer.kept.items()
    assert b"" in before.values()  # the rest of a write set whose only key was purged
    values = {place: answer for place, answer in answers(name, "Customer").items() if place[0] == "entCust" and answer}
    assert len(values) > 1
    for place, answer in values.items():
        value, version, hash_version = peer.keys_after[place]
        assert (value, version) == (base64.b64decode(answer), hash_version)
