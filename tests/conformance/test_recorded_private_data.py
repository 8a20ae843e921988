"""Private data as real peers handed it over, matched to the hashes on the recorded chains."""

import base64
from collections.abc import Callable, Mapping
from hashlib import sha256

import pytest
from fabric_protos.ledger.rwset import rwset_pb2
from fabric_protos.ledger.rwset.kvrwset import kv_rwset_pb2

from kvr_sync.changes import extract_changes
from kvr_sync.decode import decode_block
from kvr_sync.model import BlockChanges, LedgerKey
from kvr_sync.private_data import PrivateData, match_private_data
from kvr_sync.verify import ChainVerifier
from tests.support.recorded_chain import ALL_CHAINS, CHAINS, load_chain
from tests.support.recorded_private_data import ORGANIZATIONS, read_private_sets

PRIVATE = [(chain, organization) for chain in ALL_CHAINS for organization in ORGANIZATIONS]


def changes_of(chain: str) -> list[BlockChanges]:
    recorded = load_chain(chain)
    verifier = ChainVerifier(channel=recorded.expected["channel"], pin=None)
    return [extract_changes(verifier.verify(decode_block(content), content)) for content in recorded.blocks]


@pytest.mark.parametrize(("chain", "organization"), PRIVATE)
def test_every_private_value_of_a_real_peer_is_proved_by_the_chain(chain: str, organization: str) -> None:
    sets = read_private_sets(chain, organization)
    assert sets

    found = {
        changes.header.number: match_private_data(changes, sets[changes.header.number])
        for changes in changes_of(chain)
        if changes.header.number in sets
    }

    assert set(found) == set(sets)
    assert sum(len(block.values) for block in found.values()) > 0
    assert {number for number, block in found.items() if block.rejected} == with_refused_sets(chain, sets)


def with_refused_sets(chain: str, sets: Mapping[int, Mapping[int, bytes]]) -> set[int]:
    """Name the blocks with private data of transactions that were refused: peers keep and hand out those too."""
    return {
        number
        for number, block in enumerate(map(decode_block, load_chain(chain).blocks))
        if any(block.flags[tx_number] != 0 for tx_number in sets.get(number, ()))
    }


@pytest.mark.parametrize("chain", ALL_CHAINS)
def test_the_newest_values_are_what_the_peers_answered(chain: str) -> None:
    """Values that a peer still answers; what it no longer does (purged, expired, deleted) is another test's matter."""
    answers = load_chain(chain).expected["private_state_as_each_peer_answers"]
    compared = 0
    for organization in ORGANIZATIONS:
        sets = read_private_sets(chain, organization)
        newest: dict[tuple[str, bytes], bytes] = {}
        for changes in changes_of(chain):
            for value in match_private_data(changes, sets.get(changes.header.number, {})).values:
                newest[value.key.collection, value.private_key] = value.value
        for name, answer in answers.items():
            told_by, collection, key = name.split("/", 2)
            if told_by == organization and answer is not None and not answer.startswith(("error", "sha256:")):
                held = newest.get((collection, key.encode()))
                if held is not None:
                    assert held == base64.b64decode(answer), name
                    compared += 1

    assert compared > 0


Change = Callable[[Mapping[int, bytes]], dict[int, bytes]]


def _rewrite(change: Callable[[kv_rwset_pb2.KVRWSet, rwset_pb2.CollectionPvtReadWriteSet], None]) -> Change:
    def rewritten(sets: Mapping[int, bytes]) -> dict[int, bytes]:
        result = {}
        for number, content in sets.items():
            message = rwset_pb2.TxPvtReadWriteSet.FromString(content)
            for namespace in message.ns_pvt_rwset:
                for part in namespace.collection_pvt_rwset:
                    private = kv_rwset_pb2.KVRWSet.FromString(part.rwset)
                    change(private, part)
                    part.rwset = private.SerializeToString()
            result[number] = message.SerializeToString()
        return result

    return rewritten


def _other_value(private: kv_rwset_pb2.KVRWSet, _part: rwset_pb2.CollectionPvtReadWriteSet) -> None:
    for write in private.writes:
        write.value += b"!"


def _other_key(private: kv_rwset_pb2.KVRWSet, _part: rwset_pb2.CollectionPvtReadWriteSet) -> None:
    for write in private.writes:
        write.key += "!"


def _other_collection(_private: kv_rwset_pb2.KVRWSet, part: rwset_pb2.CollectionPvtReadWriteSet) -> None:
    part.collection_name += "X"


def _deleted(private: kv_rwset_pb2.KVRWSet, _part: rwset_pb2.CollectionPvtReadWriteSet) -> None:
    for write in private.writes:
        write.is_delete = True


FORGERIES: dict[str, Change] = {
    "another value": _rewrite(_other_value),
    "another key": _rewrite(_other_key),
    "another collection": _rewrite(_other_collection),
    "a delete instead of a value": _rewrite(_deleted),
    "another transaction": lambda sets: {number + 1: content for number, content in sets.items()},
    "no message at all": lambda sets: dict.fromkeys(sets, b"\xff"),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_what_the_chain_does_not_vouch_for_is_dropped(forgery: str) -> None:
    changes, sets = _block_with_one_value()
    assert len(match_private_data(changes, sets).values) == 1

    found = match_private_data(changes, FORGERIES[forgery](sets))

    assert found == PrivateData((), {}, rejected=1)


def test_a_forged_write_beside_a_good_one_costs_only_itself() -> None:
    changes, sets = _block_with_one_value()

    def add(private: kv_rwset_pb2.KVRWSet, _part: rwset_pb2.CollectionPvtReadWriteSet) -> None:
        private.writes.add(key="invented", value=b"value")

    found = match_private_data(changes, _rewrite(add)(sets))

    assert len(found.values) == 1
    assert found.rejected == 1


def test_a_private_set_of_a_refused_transaction_is_dropped() -> None:
    changes, sets = _block_with_one_value()

    found = match_private_data(changes._replace(writes=(), refused=changes.writes), sets)

    assert found == PrivateData((), {}, rejected=1)


def test_a_value_names_the_write_that_vouches_for_it() -> None:
    changes, sets = _block_with_one_value()

    (value,) = match_private_data(changes, sets).values

    write = next(write for write in changes.writes if write.key == value.key)
    assert (value.tx_number, value.write_number) == (write.tx_number, write.write_number)
    assert value.key == LedgerKey(write.key.namespace, write.key.collection, sha256(value.private_key).digest())
    assert sha256(value.value).digest() == write.value


def _block_with_one_value() -> tuple[BlockChanges, dict[int, bytes]]:
    """A recorded block of application data whose private sets hold exactly one written value."""
    chain = CHAINS[2]
    sets = read_private_sets(chain, "Enterprise")
    for changes in changes_of(chain):
        block_sets = sets.get(changes.header.number, {})
        found = match_private_data(changes, block_sets)
        if len(found.values) == 1 and found.values[0].key.namespace != "_lifecycle" and len(found.private_keys) == 1:
            return changes, block_sets
    raise AssertionError("the recorded chain holds no such block")
