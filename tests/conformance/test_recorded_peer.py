"""A peer of the embedded network commits the chains of real networks: same flags, commit hashes, state, private data.

Each block comes as orderers give it, without flags and commit hash; private writes come from what real peers handed out
at the end, so values that were purged or expired by then are missing here from the start.
"""

import asyncio
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from fabric_protos.common import common_pb2

from network.embedded.ledger.block_file import BlockFiles
from network.embedded.ledger.peer_channel import PeerChannel
from network.embedded.ledger.private_data import PrivatePart
from network.errors import LedgerError
from tests.support.recorded_chain import ALL_CHAINS, CHAINS, RecordedChain, load_chain
from tests.support.recorded_commit import ordered, pull_from

ENTERPRISE = "EnterpriseMSP"


def committed(chain: RecordedChain, folder: Path, count: int | None = None) -> PeerChannel:
    channel = PeerChannel(chain.expected["channel"], ENTERPRISE, folder)
    channel.join(ordered(chain.blocks[0]))
    pull = pull_from(chain.name, "Enterprise")

    async def commit() -> None:
        for content in chain.blocks[channel.height : count]:
            await channel.commit(ordered(content), pull)

    asyncio.run(commit())
    return channel


@pytest.mark.parametrize("name", ALL_CHAINS)
def test_every_block_comes_out_as_the_real_peer_had_it(name: str, tmp_path: Path) -> None:
    chain = load_chain(name)

    channel = committed(chain, tmp_path)

    assert channel.height == len(chain.blocks) > 50
    assert [channel.files.content(number) for number in range(channel.height)] == [
        bytes(common_pb2.Block.FromString(content).SerializeToString()) for content in chain.blocks
    ]
    channel.close()


@pytest.mark.parametrize("name", ALL_CHAINS)
def test_public_state_is_what_the_real_peer_answered(name: str, tmp_path: Path) -> None:
    chain = load_chain(name)

    channel = committed(chain, tmp_path)

    chaincode = chain.expected["chaincode"]
    compared = 0
    for key, expected in chain.state.items():
        found = channel.store.value((chaincode, "", key))
        if found is None or expected is None:
            assert (found, expected) == (None, None)
        elif isinstance(expected, str):
            assert f"sha256:{sha256(found.value).hexdigest()}" == expected[: len("sha256:") + 64]
        else:
            assert found.value == expected
        compared += 1
    assert compared > 20
    channel.close()


@pytest.mark.parametrize("name", ALL_CHAINS)
def test_every_private_value_has_the_hash_and_version_of_its_key(name: str, tmp_path: Path) -> None:
    chain = load_chain(name)

    channel = committed(chain, tmp_path)

    rows = channel.store._connection.execute(  # noqa: SLF001  # all of them, which the product never asks for
        "SELECT namespace, collection, key, value, block, tx FROM private_state"
    ).fetchall()
    assert rows
    for namespace, collection, key, value, block, tx in rows:
        hashed = channel.store.value((namespace, collection, sha256(key.encode()).digest()))
        assert hashed is not None
        assert (sha256(value).digest(), hashed.version) == (hashed.value, (block, tx))
    channel.close()


def test_a_peer_that_is_no_member_holds_no_private_value(tmp_path: Path) -> None:
    chain = load_chain(CHAINS[2])
    channel = PeerChannel(chain.expected["channel"], "StrangerMSP", tmp_path)
    channel.join(ordered(chain.blocks[0]))
    asked = []

    def offer(part: PrivatePart, block_number: int) -> bytes:
        asked.append((part, block_number))
        return b"anything"

    async def commit() -> None:
        for content in chain.blocks[1:]:
            await channel.commit(ordered(content), offer)

    asyncio.run(commit())

    assert not asked
    assert not channel.store.missing(is_member=True)
    assert channel.store.missing(is_member=False)
    assert not [writes for number in range(channel.height) for writes in channel.store.private_writes(number)]
    channel.close()


@pytest.mark.parametrize("name", CHAINS[:1])
def test_a_store_that_is_behind_its_block_files_catches_up(name: str, tmp_path: Path) -> None:
    chain = load_chain(name)
    half = len(chain.blocks) // 2
    committed(chain, tmp_path, half).close()
    whole = tmp_path / "whole"
    committed(chain, whole).close()
    files = "chains/" + chain.expected["channel"]
    (tmp_path / files / "blockfile_000000").write_bytes((whole / files / "blockfile_000000").read_bytes())

    channel = PeerChannel(chain.expected["channel"], ENTERPRISE, tmp_path)
    behind = channel.height
    channel.catch_up()

    assert (behind, channel.height) == (half, len(chain.blocks))
    again = PeerChannel(chain.expected["channel"], ENTERPRISE, whole)
    assert channel.store.commit_hash == again.store.commit_hash is not None
    channel.close()
    again.close()


def test_block_files_without_their_last_bytes_lose_only_the_last_block(tmp_path: Path) -> None:
    chain = load_chain(CHAINS[0])
    files = BlockFiles(tmp_path)
    for content in chain.blocks[:5]:
        files.append(common_pb2.Block.FromString(content))
    files.close()
    path = tmp_path / "blockfile_000000"
    path.write_bytes(path.read_bytes()[:-3])

    again = BlockFiles(tmp_path)

    assert again.height == 4
    again.append(common_pb2.Block.FromString(chain.blocks[4]))
    assert [again.content(number) for number in range(5)] == list(chain.blocks[:5])
    again.close()


def test_block_files_that_are_damaged_in_the_middle_say_so(tmp_path: Path) -> None:
    chain = load_chain(CHAINS[0])
    files = BlockFiles(tmp_path)
    for content in chain.blocks[:3]:
        files.append(common_pb2.Block.FromString(content))
    place = files._places[1]  # noqa: SLF001  # where to damage it
    files.close()
    path = tmp_path / "blockfile_000000"
    spoilt = bytearray(path.read_bytes())
    spoilt[place.offset + 1] = 0xFF  # the length of the data hash
    path.write_bytes(spoilt)

    again = BlockFiles(tmp_path)

    with pytest.raises(LedgerError, match=r"block 1 in .* is damaged"):
        again.block(1)
    again.close()


WRONG: dict[str, tuple[Callable[[Any], object], str]] = {
    "number": (lambda block: setattr(block.header, "number", 9), "1 comes next"),
    "previous hash": (lambda block: setattr(block.header, "previous_hash", bytes(32)), "does not follow block 0"),
    "transactions": (lambda block: block.data.data.append(b"x"), "not the hash of its transactions"),
    "signature": (lambda block: block.metadata.metadata.__setitem__(0, b""), "BlockValidation"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_block_that_no_orderer_made_is_refused(case: str, tmp_path: Path) -> None:
    chain = load_chain(CHAINS[0])
    spoil, words = WRONG[case]
    channel = PeerChannel(chain.expected["channel"], ENTERPRISE, tmp_path)
    channel.join(ordered(chain.blocks[0]))
    block = ordered(chain.blocks[1])
    spoil(block)

    with pytest.raises(LedgerError, match=words):
        asyncio.run(channel.commit(block))

    assert channel.height == 1
    asyncio.run(channel.commit(ordered(chain.blocks[1])))
    assert channel.height == 2
    channel.close()


def test_another_first_block_than_the_one_joined_is_refused(tmp_path: Path) -> None:
    chain = load_chain(CHAINS[0])
    other = ordered(load_chain(CHAINS[1]).blocks[0])
    channel = PeerChannel(chain.expected["channel"], ENTERPRISE, tmp_path)
    channel.join(ordered(chain.blocks[0]))
    channel.join(ordered(chain.blocks[0]))

    with pytest.raises(LedgerError, match="another first block"):
        channel.join(other)
    channel.close()
