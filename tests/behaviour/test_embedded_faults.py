"""Faults of the embedded ledger's peers, and what a reader of their blocks makes of each.

What one peer alone can say without being contradicted by its own blocks is said here too: it takes a second peer.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from fabric_protos.common import common_pb2
from fabric_protos.peer import proposal_response_pb2

from kvr_sync import errors
from kvr_sync.engine import RunSummary
from kvr_sync.jobs import SyncSettings, sync_once
from network.embedded.ledger.chaincode import ChaincodeResult
from network.embedded.ledger.faults import (
    Alteration,
    Fork,
    PeerFaults,
    no_signatures,
    signed_by,
    wrong_commit_hash,
    wrong_flag,
    wrong_flags,
    wrong_signature,
)
from network.embedded.ledger.system_chaincode import query_ledger
from network.errors import BlockNotHeldError, LedgerError
from network.protocol.policy import SignedData
from network.protocol.validation_code import MVCC_READ_CONFLICT, NOT_VALIDATED, VALID
from tests.support.embedded_ledger import (
    AGENT,
    BILLING,
    BOTH,
    CHANNEL,
    CUSTOMER,
    PEERS,
    SERVICE,
    LedgerNetwork,
    Stub,
    get,
    get_and_put,
    put,
)
from tests.support.recorded_chain import write_records


def faults(network: LedgerNetwork, peer: str = SERVICE) -> PeerFaults:
    return PeerFaults(network.peers[peer], CHANNEL, network.clock)


def sync(network: LedgerNetwork, peer: str, folder: Path) -> RunSummary:
    """Bring a database in `folder` up to what a peer hands out."""
    channel = network.channel(peer)
    contents = []
    for number in range(channel.height):
        try:
            contents.append(channel.files.content(number))
        except BlockNotHeldError:
            assert not contents
    source = write_records(folder / f"{peer}.blocks", contents)
    return sync_once(SyncSettings(source, f"sqlite:///{folder / 'copy.sqlite'}", workers=0))


async def commit_one(network: LedgerNetwork, key: str = "a") -> int:
    """Commit a transaction; gives the number of its block."""
    assert await network.commit(put(key, b"1")) == VALID
    return network.channel(SERVICE).height - 1


# --- time


def test_a_peer_that_lags_comes_later_and_is_not_taken_for_another_chain(
    network: LedgerNetwork, tmp_path: Path
) -> None:
    faults(network, BILLING).lag(30.0)
    behind = network.channel(BILLING)

    async def story() -> None:
        began, height = network.clock.now(), behind.height
        await network.submit(put("a", b"1"))
        await network.channel(SERVICE).wait_for_height(height)
        assert behind.height == height
        sync(network, SERVICE, tmp_path)
        with pytest.raises(errors.SourceBehindError):
            sync(network, BILLING, tmp_path)
        await behind.wait_for_height(height)
        assert network.clock.now() - began > 30

    network.run(story())

    assert sync(network, BILLING, tmp_path).blocks == 0


def test_a_peer_that_stalls_answers_from_what_it_has_until_it_is_mended(network: LedgerNetwork) -> None:
    stalled, still = network.channel(BILLING), faults(network, BILLING)

    async def story() -> None:
        height = stalled.height
        still.stall()
        for value in (b"1", b"2"):
            await network.submit(put("a", value))
            await network.channel(SERVICE).wait_for_height(network.channel(SERVICE).height)
        await network.clock.sleep(3600)
        assert stalled.height == height
        assert await network.evaluate(get("a"), BILLING) == b""
        assert await network.evaluate(get("a"), SERVICE) == b"2"
        still.mend()
        await stalled.wait_for_height(height + 1)
        assert await network.evaluate(get("a"), BILLING) == b"2"

    network.run(story())


# --- blocks that are handed out


def test_a_peer_that_was_pruned_says_so_and_another_is_needed(network: LedgerNetwork, tmp_path: Path) -> None:
    sync(network, SERVICE, tmp_path)
    network.run(commit_one(network))
    number = network.run(commit_one(network))
    faults(network).prune(number)

    with pytest.raises(BlockNotHeldError, match=rf"First available block = \[{number}\]"):
        network.channel(SERVICE).files.content(number - 1)
    with pytest.raises(errors.BlocksNotHeldError):
        sync(network, SERVICE, tmp_path)
    assert sync(network, CUSTOMER, tmp_path).checkpoint.block_number == number


def test_a_peer_that_was_pruned_answers_qscc_as_a_real_one(network: LedgerNetwork) -> None:
    """Texts: `common/ledger/blkstorage/blockfile_mgr.go`."""

    async def early() -> tuple[str, int]:
        tx_id = await network.submit(put("a", b"1"))
        assert await network.wait(tx_id) == VALID
        return tx_id, await commit_one(network)

    tx_id, number = network.run(early())
    faults(network).prune(number)
    client = network.client(*AGENT)
    signed = SignedData(client.creator, b"data", client.sign(b"data"))

    def ask(function: str, argument: bytes) -> str:
        channels = {CHANNEL: network.channel(SERVICE)}
        return query_ledger((function.encode(), CHANNEL.encode(), argument), channels, signed).message

    first = f"First available block = [{number}]"
    assert ask("GetBlockByNumber", str(number - 1).encode()) == (
        f"Failed to get block number {number - 1}, error cannot serve block [{number - 1}]. The ledger is bootstrapped "
        f"from a snapshot. {first}"
    )
    assert ask("GetTransactionByID", tx_id.encode()) == (
        f"Failed to get transaction with id {tx_id}, error details for the TXID [{tx_id}] not available. Ledger "
        f"bootstrapped from a snapshot. {first}"
    )
    assert ask("GetBlockByTxID", tx_id.encode()) == (
        f"Failed to get block for txID {tx_id}, error details for the TXID [{tx_id}] not available. Ledger "
        f"bootstrapped from a snapshot. {first}"
    )


@pytest.mark.parametrize(
    ("alteration", "refusal"),
    [
        (wrong_flag(0, MVCC_READ_CONFLICT), errors.CommitHashError),
        (wrong_flag(0, NOT_VALIDATED), errors.ValidationFlagsError),
        (wrong_flag(0, 200), errors.CommitHashError),
        (wrong_flags(b""), errors.ValidationFlagsError),
        (wrong_flags(bytes(2)), errors.ValidationFlagsError),
        (wrong_commit_hash(bytes(32)), errors.CommitHashError),
        (wrong_signature, errors.BlockSignatureError),
        (no_signatures, errors.BlockSignatureError),
    ],
    ids=["flag", "flag-254", "flag-unknown", "no-flags", "flags-too-long", "hash", "signature", "no-signatures"],
)
def test_an_altered_block_is_refused_and_the_honest_one_taken(
    network: LedgerNetwork, tmp_path: Path, alteration: Alteration, refusal: type[errors.KvrSyncError]
) -> None:
    number = network.run(commit_one(network))
    faults(network).alter(number, alteration)

    with pytest.raises(refusal) as caught:
        sync(network, SERVICE, tmp_path)

    assert f"{number}" in str(caught.value)
    summary = sync(network, CUSTOMER, tmp_path)
    assert (summary.checkpoint.block_number, summary.blocks) == (number, 1)


def test_a_block_that_members_who_are_no_orderers_signed_is_refused(network: LedgerNetwork, tmp_path: Path) -> None:
    number = network.run(commit_one(network))
    faults(network).alter(number, signed_by(network.client("ServiceMSP", "admin")))

    with pytest.raises(errors.BlockSignatureError):
        sync(network, SERVICE, tmp_path)


def test_a_block_that_an_orderer_signed_is_taken(network: LedgerNetwork, tmp_path: Path) -> None:
    """It is the signer that the test above refuses, not the form."""
    number = network.run(commit_one(network))
    faults(network).alter(number, signed_by(network.ledger.orderers[1].identity))

    assert sync(network, SERVICE, tmp_path).checkpoint.block_number == number


def test_a_block_without_commit_hash_is_taken_and_counted_as_unverified(network: LedgerNetwork, tmp_path: Path) -> None:
    honest = sync(network, CUSTOMER, tmp_path / folder(tmp_path, "honest"))
    number = network.channel(SERVICE).height - 1
    faults(network).alter(number, wrong_commit_hash(b""))

    summary = sync(network, SERVICE, tmp_path / folder(tmp_path, "without"))

    assert summary.checkpoint.block_number == number
    assert summary.commit_hashes_verified == honest.commit_hashes_verified - 1


def folder(path: Path, name: str) -> str:
    (path / name).mkdir()
    return name


def test_what_a_peer_hands_out_is_no_business_of_its_own_state(network: LedgerNetwork) -> None:
    number = network.run(commit_one(network))
    mended = faults(network)
    honest = network.channel(SERVICE).files.content(number)
    mended.alter(number, wrong_flag(0, MVCC_READ_CONFLICT))
    assert network.channel(SERVICE).files.content(number) != honest

    assert network.run(network.evaluate(get("a"))) == b"1"
    mended.mend()
    assert network.channel(SERVICE).files.content(number) == honest


# --- verdicts


def test_a_peer_that_judges_wrongly_is_consistent_with_itself_and_contradicted_by_another(
    network: LedgerNetwork, tmp_path: Path
) -> None:
    """What one peer alone can make a reader believe: the verdicts are its word, and its commit hashes follow them."""
    liar = network.channel(SERVICE)

    async def story() -> int:
        assert await network.commit(put("a", b"1")) == VALID
        stale = await network.endorse(get_and_put("a", b"stale"))
        assert await network.commit(put("a", b"2")) == VALID
        number = liar.height
        faults(network).misjudge({(number, 0): VALID})
        await network.order(stale)
        for channel in (liar, network.channel(CUSTOMER)):
            await channel.wait_for_height(number)
        assert liar.transaction_place(stale.proposal.tx_id).code == VALID  # type: ignore[union-attr]
        code = network.channel(CUSTOMER).transaction_place(stale.proposal.tx_id).code  # type: ignore[union-attr]
        assert code == MVCC_READ_CONFLICT
        assert await network.evaluate(get("a"), SERVICE) == b"stale"
        assert await network.evaluate(get("a"), CUSTOMER) == b"2"
        return number

    number = network.run(story())

    assert sync(network, SERVICE, tmp_path).checkpoint.block_number == number  # alone, it is believed
    other = network.channel(CUSTOMER)
    assert liar.header(number) == other.header(number)
    assert liar.store.commit_hash != other.store.commit_hash
    # The next honest block does not go on from what it recorded.
    network.run(commit_one_at(network, CUSTOMER, "b"))
    with pytest.raises(errors.CommitHashError):
        sync(network, CUSTOMER, tmp_path)


async def commit_one_at(network: LedgerNetwork, peer: str, key: str) -> None:
    height = network.channel(peer).height
    await network.submit(put(key, b"1"))
    await network.channel(peer).wait_for_height(height)


def test_a_wrong_verdict_has_to_be_about_a_block_to_come(network: LedgerNetwork) -> None:
    """A verdict about what is committed changes nothing; one about an invalid transaction takes its writes away."""
    number = network.run(commit_one(network))
    wrong = faults(network)
    wrong.misjudge({(number, 0): MVCC_READ_CONFLICT, (number + 1, 0): MVCC_READ_CONFLICT})

    async def story() -> None:
        assert await network.evaluate(get("a")) == b"1"
        tx_id = await network.submit(put("b", b"1"))
        for peer in PEERS:
            await network.channel(peer).wait_for_height(number + 1)
        assert network.channel(SERVICE).transaction_place(tx_id).code == MVCC_READ_CONFLICT  # type: ignore[union-attr]
        assert await network.evaluate(get("b")) == b""
        assert await network.evaluate(get("b"), CUSTOMER) == b"1"
        wrong.mend()
        assert await network.commit(put("c", b"1")) == VALID

    network.run(story())


# --- answers


def test_a_peer_that_lies_about_values_endorses_what_no_other_endorses(network: LedgerNetwork) -> None:
    liar = faults(network)

    async def raised(stub: Stub) -> bytes:
        value = int(await stub.get("a") or b"0") + 1
        await stub.put("a", b"%d" % value)
        return b"%d" % value

    async def story() -> None:
        assert await network.commit(put("a", b"1")) == VALID
        liar.lie(values={"a": b"99"})
        assert await network.evaluate(get("a"), SERVICE) == b"99"
        assert await network.evaluate(get("a"), CUSTOMER) == b"1"
        endorsed = await network.endorse(raised)
        assert len(endorsed.payloads) == 2
        # Assembled all the same, with one of the two results: the other signature is one over something else.
        assert await network.wait(await ordered(network, endorsed)) != VALID
        liar.mend()
        assert await network.commit(raised) == VALID
        assert await network.evaluate(get("a"), SERVICE) == b"2"

    network.run(story())


async def ordered(network: LedgerNetwork, endorsed: Any) -> str:
    await network.order(endorsed)
    return str(endorsed.proposal.tx_id)


def test_a_peer_that_changes_answers_signs_them(network: LedgerNetwork) -> None:
    def forged(result: ChaincodeResult) -> ChaincodeResult:
        response = proposal_response_pb2.Response.FromString(result.payload)
        response.payload = b"forged"
        return result._replace(payload=response.SerializeToString())

    faults(network).lie(answer=forged)

    async def story() -> Sequence[bytes]:
        assert await network.commit(put("a", b"1"), [CUSTOMER, BILLING]) == VALID
        endorsed = await network.endorse(get("a"))
        return [response.response.payload for response in endorsed.responses]

    assert network.run(story()) == [b"forged", b"1"]


# --- private data


def test_withheld_private_data_is_given_to_no_member_and_no_client(network: LedgerNetwork) -> None:
    keeper = faults(network)

    async def story() -> None:
        keeper.withhold_private_data()
        for name in ("pair", "pulled"):
            assert await network.commit(put("key", b"secret", name), [SERVICE]) == VALID
        assert await network.evaluate(get("key", "pair"), SERVICE) == b"secret"
        assert "is not available" in await network.refusal(get("key", "pair"), BILLING)
        assert "is not available" in await network.refusal(get("key", "pulled"), BILLING)
        assert network.channel(SERVICE).private_writes(network.channel(SERVICE).height - 1) == []
        await network.clock.sleep(600)
        assert len(network.channel(BILLING).store.missing(is_member=True)) == 2
        keeper.mend()
        await network.clock.sleep(61)
        assert await network.evaluate(get("key", "pair"), BILLING) == b"secret"
        assert await network.evaluate(get("key", "pulled"), BILLING) == b"secret"

    network.run(story())


# --- forks


def test_a_fork_is_validly_signed_and_no_reader_passes_from_one_side_to_the_other(
    network: LedgerNetwork, tmp_path: Path
) -> None:
    channel = network.channel(CUSTOMER)
    sync(network, CUSTOMER, tmp_path)
    height = channel.height

    async def story() -> None:
        fork = Fork(network.ledger, CHANNEL, [network.peers[CUSTOMER]], tmp_path / "fork")
        twice = network.envelope(await network.endorse(put("a", b"1")))
        endorsed = await network.endorse(put("b", b"1"))
        await network.order(endorsed)
        await network.channel(SERVICE).wait_for_height(height)
        block = await fork.extend(twice)
        other = network.channel(SERVICE).files.block(height)
        assert block.header.number == other.header.number == height
        assert block.header.previous_hash == other.header.previous_hash
        assert block.header.data_hash != other.header.data_hash
        assert await network.evaluate(get("a"), CUSTOMER) == b"1"
        assert await network.evaluate(get("a"), SERVICE) == b""

        # Each side is good for whoever knows nothing of the other, and refused by whoever does.
        (tmp_path / "other").mkdir()
        sync(network, CUSTOMER, tmp_path)
        sync(network, SERVICE, tmp_path / "other")
        await fork.extend(network.envelope(await network.endorse(put("c", b"1"), [CUSTOMER, SERVICE])))
        await commit_one_at(network, SERVICE, "c")
        with pytest.raises(errors.PreviousHashError):
            sync(network, SERVICE, tmp_path)
        with pytest.raises(errors.PreviousHashError):
            sync(network, CUSTOMER, tmp_path / "other")

        fork.close()
        await network.channel(CUSTOMER).wait_for_height(height)
        assert await network.evaluate(get("b"), CUSTOMER) == b"1"
        assert await network.evaluate(get("a"), CUSTOMER) == b""

    network.run(story())


def test_a_fork_begins_at_the_tip(network: LedgerNetwork, tmp_path: Path) -> None:
    faults(network, CUSTOMER).stall()

    async def story() -> None:
        await commit_one_at(network, SERVICE, "a")
        with pytest.raises(LedgerError, match="does not stand at the tip"):
            Fork(network.ledger, CHANNEL, [network.peers[CUSTOMER]], tmp_path / "fork")

    network.run(story())


def test_a_fork_with_the_same_transactions_differs_in_its_signatures_alone(
    network: LedgerNetwork, tmp_path: Path
) -> None:
    async def story() -> tuple[common_pb2.Block, common_pb2.Block]:
        height = network.channel(SERVICE).height
        fork = Fork(network.ledger, CHANNEL, [network.peers[CUSTOMER]], tmp_path / "fork")
        envelope = network.envelope(await network.endorse(put("a", b"1"), BOTH))
        await network.ledger.broadcast(envelope)
        await network.channel(SERVICE).wait_for_height(height)
        block = await fork.extend(envelope)
        fork.close()
        return block, network.ledger.channels[CHANNEL].block(0, height)

    forked, honest = network.run(story())

    assert forked.header == honest.header
    assert forked.metadata != honest.metadata
