"""The embedded ledger after its process ended, or died at the worst moment: the same network goes on."""

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from shutil import copytree, rmtree
from typing import Any

import pytest
from fabric_protos.common import common_pb2

from network.embedded.ledger.block_file import BlockFiles
from network.embedded.ledger.peer_store import FORMAT
from network.errors import LedgerError
from network.protocol.block import header_hash
from network.protocol.validation_code import VALID
from tests.support.embedded_ledger import (
    BILLING,
    BOTH,
    CHANNEL,
    CUSTOMER,
    FIELD,
    PEERS,
    SERVICE,
    LedgerNetwork,
    deployed,
    generate_dev,
    get,
    put,
)
from tests.support.generated_network import GeneratedNetwork

ORDERERS = ("orderer0", "orderer1", "orderer2")


@pytest.fixture
def folder(generated: GeneratedNetwork, tmp_path: Path) -> Path:
    """Give the folder of a network that has ended, with some public and private values."""
    with deployed(generated, tmp_path / "network") as network:

        async def story() -> None:
            assert await network.commit(put("a", b"1")) == VALID
            assert await network.commit(put("p", b"secret", "pair"), [SERVICE]) == VALID

        network.run(story())
    return tmp_path / "network"


@pytest.fixture
def opened(generated: GeneratedNetwork) -> Iterator[Callable[[Path], LedgerNetwork]]:
    """Open networks, and close them in the end."""
    made: list[LedgerNetwork] = []

    def open_one(folder: Path) -> LedgerNetwork:
        made.append(LedgerNetwork(generated, folder))
        return made[-1]

    yield open_one
    for network in made:
        network.close()


Open = Callable[[Path], LedgerNetwork]


def content(folder: Path, name: str) -> bytes:
    return (folder / name / "chains" / CHANNEL / "blockfile_000000").read_bytes()


def state(folder: Path, peer: str) -> list[Any]:
    connection = sqlite3.connect(folder / peer / "state" / f"{CHANNEL}.sqlite")
    tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY 1")]
    rows = [(table, sorted(map(repr, connection.execute(f"SELECT * FROM {table}")))) for table in tables]  # noqa: S608
    connection.close()
    return rows


def test_an_ended_network_goes_on_as_it_was(folder: Path, opened: Open) -> None:
    before = {name: content(folder, name) for name in (*PEERS, *ORDERERS)}
    states = {peer: state(folder, peer) for peer in PEERS}

    network = opened(folder)

    assert {name: content(folder, name) for name in before} == before
    assert {peer: state(folder, peer) for peer in PEERS} == states
    assert all(len(states[peer]) > 10 for peer in PEERS)
    assert network.peers[SERVICE].packages.count == 3

    async def story() -> None:
        assert await network.evaluate(get("a")) == b"1"
        assert await network.evaluate(get("p", "pair"), BILLING) == b"secret"
        assert await network.commit(put("a", b"2")) == VALID
        assert await network.evaluate(get("a"), CUSTOMER) == b"2"

    network.run(story())
    service = network.ledger.channels[CHANNEL]
    assert [network.channel(peer).height for peer in PEERS] == [service.height] * len(PEERS)


def test_a_committed_transaction_is_known_after_a_restart(generated: GeneratedNetwork, tmp_path: Path) -> None:
    with deployed(generated, tmp_path / "network") as network:

        async def story() -> str:
            tx_id = await network.submit(put("a", b"1"))
            assert await network.wait(tx_id) == VALID
            return tx_id

        tx_id = network.run(story())
        place = network.channel(FIELD).transaction_place(tx_id)
        definition = network.channel(FIELD).definition("asset")
    again = LedgerNetwork(generated, tmp_path / "network")
    try:
        assert again.channel(FIELD).transaction_place(tx_id) == place is not None
        assert again.channel(FIELD).definition("asset") == definition is not None
    finally:
        again.close()


# --- killed between two writes


class _KilledError(Exception):
    pass


def die_in(network: LedgerNetwork, peer: str, method: str) -> None:
    """Have a peer's store die when a block calls this method, as a killed process does: nothing of it is kept."""
    store = network.channel(peer).store

    def die(*arguments: object, **fields: object) -> None:
        del arguments, fields
        raise _KilledError

    setattr(store, method, die)


@pytest.mark.parametrize("method", ["write_state", "add_block", "set_tip"])
def test_a_peer_killed_between_file_and_store_catches_up_with_private_data(
    generated: GeneratedNetwork, folder: Path, opened: Open, method: str
) -> None:
    network = LedgerNetwork(generated, folder)
    die_in(network, BILLING, method)
    with pytest.RaisesGroup(_KilledError, flatten_subgroups=True):
        network.run(network.commit(put("p", b"newer", "pair"), [SERVICE]))
    channel = network.channel(BILLING)
    assert (channel.files.height, channel.store.height) == (channel.height + 1, channel.height)
    network.close()

    again = opened(folder)

    async def story() -> None:
        for peer in (SERVICE, BILLING):
            await again.channel(peer).wait_for_height(again.ledger.channels[CHANNEL].height - 1)
            assert await again.evaluate(get("p", "pair"), peer) == b"newer"
        for peer in PEERS:
            await again.channel(peer).wait_for_height(again.ledger.channels[CHANNEL].height - 1)

    again.run(story())
    (commit_hash,) = {again.channel(peer).store.commit_hash for peer in PEERS}
    assert commit_hash
    assert again.channel(BILLING).store.missing(is_member=True) == []


def test_a_torn_last_block_is_taken_again(folder: Path, opened: Open) -> None:
    """A peer that has lost its newest block, file and store, has it from the orderers."""
    chain = folder / CUSTOMER / "chains" / CHANNEL / "blockfile_000000"
    lost = folder / ".." / "lost"
    whole = opened(folder)
    height = whole.channel(CUSTOMER).height
    whole.close()
    copytree(folder, lost)
    rmtree(lost / CUSTOMER / "chains")
    rmtree(lost / CUSTOMER / "state")

    again = opened(lost)
    again.run(again.channel(CUSTOMER).wait_for_height(height - 1))

    assert again.channel(CUSTOMER).height == height
    assert again.channel(CUSTOMER).store.commit_hash == again.channel(SERVICE).store.commit_hash
    read = common_pb2.Block.FromString(again.channel(CUSTOMER).files.content(height - 1))
    assert read.metadata.metadata[4]
    assert chain.stat().st_size > 0


def shorten(folder: Path, name: str, count: int) -> None:
    """Take the last blocks from the file of an orderer."""
    chain = folder / name / "chains" / CHANNEL
    files = BlockFiles(chain)
    blocks = [files.block(number) for number in range(files.height - count)]
    files.close()
    (chain / "blockfile_000000").unlink()
    files = BlockFiles(chain)
    for block in blocks:
        files.append(block)
    files.close()


def test_orderers_that_died_at_different_heights_are_brought_level(folder: Path, opened: Open) -> None:
    shorten(folder, "orderer0", 2)
    rmtree(folder / "orderer2" / "chains")

    network = opened(folder)

    service = network.ledger.channels[CHANNEL]
    last = [service.block(number, service.height - 1) for number in range(3)]
    assert len({block.header.SerializeToString() for block in last}) == 1
    for index, orderer in enumerate(network.ledger.orderers):
        for number in range(1, service.height):
            block = service.block(index, number)
            metadata = common_pb2.Metadata.FromString(block.metadata.metadata[0])
            header = common_pb2.SignatureHeader.FromString(metadata.signatures[0].signature_header)
            assert header.creator == orderer.identity.creator
            service.rules.trust.verify_block(block.header, tuple(block.metadata.metadata))

    async def story() -> None:
        assert await network.commit(put("a", b"2")) == VALID

    network.run(story())


def test_peers_that_have_more_than_the_orderers_do_not_start(folder: Path, opened: Open) -> None:
    for name in ORDERERS:
        shorten(folder, name, 1)

    with pytest.raises(LedgerError, match=r"peer0\.service has 15 blocks of consortium, the orderers fewer"):
        opened(folder)


# --- damaged


def damage_store(folder: Path) -> str:
    (folder / FIELD / "state" / f"{CHANNEL}.sqlite").write_bytes(b"no database at all" * 100)
    return r"peer0\.field/state/consortium\.sqlite cannot be read as a peer's store"


def damage_format(folder: Path) -> str:
    connection = sqlite3.connect(folder / FIELD / "state" / f"{CHANNEL}.sqlite")
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    return rf"peer0\.field/state/consortium\.sqlite is of format 99; this version reads {FORMAT}"


def lose_blocks(folder: Path) -> str:
    rmtree(folder / FIELD / "chains")
    return "consortium: the store has 15 blocks, the files 0"


def take_store_of_another(folder: Path) -> str:
    """Leave a store that is behind its files, whose next block is damaged."""
    (folder / FIELD / "state" / f"{CHANNEL}.sqlite").unlink()
    file = folder / FIELD / "chains" / CHANNEL / "blockfile_000000"
    spoilt = bytearray(file.read_bytes())
    spoilt[len(spoilt) // 2] ^= 1
    file.write_bytes(spoilt)
    return "block [0-9]+ "


@pytest.mark.parametrize("damage", [damage_store, damage_format, lose_blocks, take_store_of_another])
def test_a_damaged_peer_is_refused_by_name(folder: Path, opened: Open, damage: Callable[[Path], str]) -> None:
    words = damage(folder)

    with pytest.raises(LedgerError, match=words):
        opened(folder)


def test_another_networks_first_block_is_refused(folder: Path, tmp_path: Path) -> None:
    other = generate_dev(tmp_path / "other")

    with pytest.raises(LedgerError, match="the orderers have joined consortium with another first block"):
        LedgerNetwork(other, folder)


def test_the_chain_goes_on_with_the_hash_of_its_last_block(folder: Path, opened: Open) -> None:
    network = opened(folder)
    last = network.channel(SERVICE).header(network.channel(SERVICE).height - 1)
    network.run(network.commit(put("a", b"2"), BOTH))
    network.close()
    again = LedgerNetwork(network.generated, folder)
    try:
        assert again.channel(SERVICE).header(last.number + 1).previous_hash == header_hash(last)
    finally:
        again.close()
