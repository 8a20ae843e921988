"""Private data in the embedded ledger: who holds it, how it comes there, and how it goes.

`pair`: Service and Billing, pushed to one other member. `pulled`: pushed to nobody. `lonely`: wants more members than
there are. `guarded`: for members alone. `brief`: for two blocks. Field and Customer are no members of any.
"""

import sqlite3
from collections.abc import Awaitable, Callable
from hashlib import sha256

import pytest

from network.embedded.ledger.chaincode import RequestRefusedError
from network.embedded.ledger.private_data import PrivatePart
from network.protocol.collection import implicit_collection_name
from network.protocol.validation_code import ENDORSEMENT_POLICY_FAILURE, MVCC_READ_CONFLICT, VALID
from tests.support.embedded_ledger import (
    BILLING,
    CUSTOMER,
    FIELD,
    PEERS,
    SERVICE,
    LedgerNetwork,
    Stub,
    get,
    put,
)


def try_to_get(key: str, collection: str) -> Callable[[Stub], Awaitable[None]]:
    async def behave(stub: Stub) -> None:
        with pytest.raises(RequestRefusedError):
            await stub.get(key, collection)

    return behave


SECRET = b"a value that only members know"
MEMBERS = (SERVICE, BILLING)
STRANGERS = (FIELD, CUSTOMER)


def holders(network: LedgerNetwork, value: bytes = SECRET) -> set[str]:
    """Name the peers that have a value in any file or in any cell of any table."""
    found = set()
    for peer in PEERS:
        folder = network.folder / peer
        connection = sqlite3.connect(folder / "state" / "consortium.sqlite")
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        assert "transient" in tables
        cells = [cell for table in tables for row in connection.execute(f"SELECT * FROM {table}") for cell in row]  # noqa: S608
        connection.close()
        if any(isinstance(cell, bytes) and value in cell for cell in cells):
            found.add(peer)
        if any(value in path.read_bytes() for path in (folder / "chains").rglob("*") if path.is_file()):
            found.add(f"{peer} in its blocks")
    return found


def held(network: LedgerNetwork, peer: str, key: str, collection: str) -> bytes | None:
    found = network.channel(peer).store.private_value("asset", collection, key)
    return None if found is None else found.value


def transients(network: LedgerNetwork, peer: str) -> int:
    connection = network.channel(peer).store._connection  # noqa: SLF001  # all of them, which the product never asks for
    return int(connection.execute("SELECT count(*) FROM transient").fetchone()[0])


def test_members_hold_a_value_and_nobody_else_ever_does(network: LedgerNetwork) -> None:
    async def story() -> None:
        endorsed = await network.endorse(put("key", SECRET, "pair"), [SERVICE])
        assert [transients(network, peer) for peer in PEERS] == [1, 1, 0, 0]
        assert holders(network) == set(MEMBERS)
        await network.order(endorsed)
        assert await network.wait(endorsed.proposal.tx_id) == VALID

    network.run(story())

    assert holders(network) == set(MEMBERS)
    assert [held(network, peer, "key", "pair") for peer in PEERS] == [SECRET, SECRET, None, None]
    assert [transients(network, peer) for peer in PEERS] == [0, 0, 0, 0]
    for peer in PEERS:
        hashed = network.channel(peer).store.value(("asset", "pair", sha256(b"key").digest()))
        assert hashed is not None
        assert hashed.value == sha256(SECRET).digest()
        missing = [place[2:] for place in network.channel(peer).store.missing(is_member=False)]
        assert (("asset", "pair") in missing) is (peer in STRANGERS)
        assert not network.channel(peer).store.missing(is_member=True)


def test_a_peer_that_is_no_member_endorses_a_write_and_keeps_nothing(network: LedgerNetwork) -> None:
    async def story() -> int:
        endorsed = await network.endorse(put("key", SECRET, "pair"), [CUSTOMER])
        assert holders(network) < set(MEMBERS)
        await network.order(endorsed)
        return await network.wait(endorsed.proposal.tx_id)

    assert network.run(story()) == ENDORSEMENT_POLICY_FAILURE  # a peer of Service has to endorse
    assert not holders(network) & set(STRANGERS)


def test_values_that_were_pushed_to_nobody_are_pulled_at_commit(network: LedgerNetwork) -> None:
    async def story() -> None:
        endorsed = await network.endorse(put("key", SECRET, "pulled"), [SERVICE])
        assert [transients(network, peer) for peer in PEERS] == [1, 0, 0, 0]
        await network.order(endorsed)
        assert await network.wait(endorsed.proposal.tx_id) == VALID

    network.run(story())

    assert holders(network) == set(MEMBERS)
    assert held(network, BILLING, "key", "pulled") == SECRET


def test_what_nobody_has_is_missing_and_cannot_be_read(network: LedgerNetwork) -> None:
    async def story() -> str:
        endorsed = await network.endorse(put("key", SECRET, "pulled"), [SERVICE])
        network.channel(SERVICE).store.forget_transient([endorsed.proposal.tx_id], 0)
        await network.order(endorsed)
        assert await network.wait(endorsed.proposal.tx_id) == VALID
        answer = await network.propose(BILLING, try_to_get("key", "pulled"))
        assert not [call for call in answer.interest.chaincodes if call.collection_names]
        return await network.refusal(get("key", "pulled"), BILLING)

    words = network.run(story())

    assert holders(network) == set()
    for peer in MEMBERS:
        (missing,) = network.channel(peer).store.missing(is_member=True)
        assert missing[2:] == ("asset", "pulled")
    height = network.channel(SERVICE).height
    assert words.endswith(
        "private data matching public hash version is not available. Public hash version = "
        f"{{BlockNum: {height - 1}, TxNum: 0}}, Private data version = <nil>"
    )


def test_what_does_not_have_the_hash_of_the_block_is_not_taken(network: LedgerNetwork) -> None:
    """Whoever is asked gives something else; the peer asks nobody again and holds nothing."""

    def forged(channel: object, part: PrivatePart, block_number: int) -> bytes:
        del channel, part, block_number
        return SECRET

    async def story() -> None:
        endorsed = await network.endorse(put("key", b"another", "pulled"), [SERVICE])
        network.ledger.dissemination.pull = forged  # type: ignore[method-assign]
        await network.order(endorsed)
        assert await network.wait(endorsed.proposal.tx_id) == VALID

    network.run(story())

    assert held(network, SERVICE, "key", "pulled") == b"another"
    assert held(network, BILLING, "key", "pulled") is None
    assert holders(network) == set()
    assert len(network.channel(BILLING).store.missing(is_member=True)) == 1


def test_endorsed_writes_of_another_transaction_are_not_taken(network: LedgerNetwork) -> None:
    async def story() -> None:
        first = await network.endorse(put("key", b"another", "pulled"), [SERVICE])
        second = await network.endorse(put("key", SECRET, "pulled"), [SERVICE])
        store = network.channel(SERVICE).store
        (content,) = store.transient(second.proposal.tx_id)
        store.forget_transient([first.proposal.tx_id], 0)
        store.add_transient(first.proposal.tx_id, content, 0)
        await network.order(first)
        assert await network.wait(first.proposal.tx_id) == VALID

    network.run(story())

    assert [held(network, peer, "key", "pulled") for peer in MEMBERS] == [None, None]


def test_too_few_members_refuse_the_endorsement(network: LedgerNetwork) -> None:
    async def story() -> str:
        return await network.refusal(put("key", SECRET, "lonely"))

    words = network.run(story())

    assert words.startswith("error in simulation: failed to distribute private collection, txID ")
    assert words.endswith(
        "channel consortium: could not build private data dissemination plan for chaincode asset and collection "
        "lonely: required to disseminate to at least 2 peers, but know of only 1 eligible peers"
    )
    assert holders(network) == set()


def test_who_is_no_member_may_neither_read_nor_write_what_is_for_members(network: LedgerNetwork) -> None:
    stranger = ("CustomerMSP", "agent")

    async def purge(stub: Stub) -> None:
        await stub.purge("key", "guarded")

    async def note(stub: Stub) -> None:
        await stub.put_metadata("key", b"1", "guarded")

    async def read_range(stub: Stub) -> None:
        await stub.range(collection="guarded")

    async def story() -> None:
        write = "tx creator does not have write access permission on privatedata in chaincodeName:asset "
        read = "tx creator does not have read access permission on privatedata in chaincodeName:asset "
        for behaviour, expected in (
            (put("key", SECRET, "guarded"), write),
            (purge, write),
            (note, write),
            (get("key", "guarded"), read),
            (read_range, read),
        ):
            answer = await network.propose(SERVICE, behaviour, client=stranger)
            assert (answer.response.status, answer.response.message) == (500, f"{expected}collectionName: guarded")
        assert await network.commit(put("key", SECRET, "guarded"), [SERVICE]) == VALID
        assert await network.evaluate(get("key", "guarded"), client=("BillingMSP", "agent")) == SECRET
        # Without the flags anybody may, wherever the value is.
        assert await network.commit(put("key", SECRET, "pair"), [SERVICE]) == VALID
        assert await network.evaluate(get("key", "pair"), client=stranger) == SECRET

    network.run(story())


def test_everybody_may_read_the_hash(network: LedgerNetwork) -> None:
    async def story() -> None:
        assert await network.commit(put("key", SECRET, "guarded"), [SERVICE]) == VALID

        async def read_hash(stub: Stub) -> bytes:
            assert await stub.get_hash("none", "guarded") == b""
            return await stub.get_hash("key", "guarded")

        found = await network.evaluate(read_hash, CUSTOMER, client=("CustomerMSP", "agent"))
        assert found == sha256(SECRET).digest()

    network.run(story())


@pytest.mark.parametrize(
    ("collection", "words"),
    [
        ("none", "collection consortium/asset/none could not be found"),
        (implicit_collection_name("StrangerMSP"), "collection consortium/asset/_implicit_org_StrangerMSP could not "),
    ],
)
def test_a_collection_that_does_not_exist_is_refused(network: LedgerNetwork, collection: str, words: str) -> None:
    async def read_hash(stub: Stub) -> bytes:
        return await stub.get_hash("key", collection)

    async def story() -> None:
        assert words in await network.refusal(get("key", collection))
        assert words in await network.refusal(put("key", SECRET, collection))
        assert await network.refusal(read_hash) == (
            f"collection [{collection}] not defined in the collection config for chaincode [asset]"
        )

    network.run(story())


def test_every_organisation_has_a_collection_of_its_own(network: LedgerNetwork) -> None:
    own = implicit_collection_name("CustomerMSP")

    async def story() -> None:
        endorsed = await network.endorse(put("key", SECRET, own), [CUSTOMER])
        assert holders(network) == {CUSTOMER}
        await network.order(endorsed)
        assert await network.wait(endorsed.proposal.tx_id) == VALID
        assert await network.evaluate(get("key", own), CUSTOMER) == SECRET

    network.run(story())

    assert holders(network) == {CUSTOMER}


def test_a_deleted_value_is_gone_from_the_state_and_stays_in_its_transaction(network: LedgerNetwork) -> None:
    async def delete(stub: Stub) -> None:
        await stub.delete("key", "pair")

    async def story() -> None:
        assert await network.commit(put("key", SECRET, "pair"), [SERVICE]) == VALID
        assert await network.commit(delete, [SERVICE]) == VALID
        assert await network.evaluate(get("key", "pair"), BILLING) == b""

    network.run(story())

    assert [held(network, peer, "key", "pair") for peer in MEMBERS] == [None, None]
    assert holders(network) == set(MEMBERS)


def test_a_purged_value_is_nowhere(network: LedgerNetwork) -> None:
    async def two(stub: Stub) -> None:
        await stub.put("key", SECRET, "pair")
        await stub.put("kept", b"another", "pair")

    async def purge(stub: Stub) -> None:
        await stub.purge("key", "pair")

    async def story() -> None:
        assert await network.commit(two, [SERVICE]) == VALID
        assert holders(network) == set(MEMBERS)
        assert await network.commit(purge, [SERVICE]) == VALID
        assert await network.evaluate(get("kept", "pair"), BILLING) == b"another"
        assert await network.evaluate(get("key", "pair"), BILLING) == b""

    network.run(story())

    assert holders(network) == set()
    assert holders(network, b"another") == set(MEMBERS)


def test_a_value_for_two_blocks_is_gone_with_the_third_after_it(network: LedgerNetwork) -> None:
    async def story() -> list[tuple[bytes | None, int]]:
        assert await network.commit(put("key", SECRET, "brief"), [SERVICE]) == VALID
        found = []
        for number in range(4):
            found.append((held(network, BILLING, "key", "brief"), len(holders(network))))
            assert await network.commit(put("a", b"%d" % number)) == VALID
        hashed = network.channel(CUSTOMER).store.value(("asset", "brief", sha256(b"key").digest()))
        assert hashed is None
        return found

    assert network.run(story()) == [(SECRET, 2), (SECRET, 2), (SECRET, 2), (None, 0)]


def test_a_value_written_again_lives_on(network: LedgerNetwork) -> None:
    async def story() -> list[bytes | None]:
        found = []
        for number in range(5):
            if number in (0, 2):
                assert await network.commit(put("key", b"%d" % number, "brief"), [SERVICE]) == VALID
            else:
                assert await network.commit(put("a", b"%d" % number)) == VALID
            found.append(held(network, BILLING, "key", "brief"))
        assert await network.commit(put("a", b"last")) == VALID
        return [*found, held(network, BILLING, "key", "brief")]

    assert network.run(story()) == [b"0", b"0", b"2", b"2", b"2", None]


def test_private_data_of_an_invalid_transaction_is_kept_and_not_applied(network: LedgerNetwork) -> None:
    async def conflicting(stub: Stub) -> None:
        await stub.get("a")
        await stub.put("key", SECRET, "pair")

    async def story() -> int:
        endorsed = await network.endorse(conflicting, [SERVICE])
        assert await network.commit(put("a", b"1")) == VALID
        await network.order(endorsed)
        return await network.wait(endorsed.proposal.tx_id)

    assert network.run(story()) == MVCC_READ_CONFLICT
    for peer in MEMBERS:
        channel = network.channel(peer)
        assert held(network, peer, "key", "pair") is None
        assert [SECRET in writes.content for writes in channel.store.private_writes(channel.height - 1)] == [True]
        assert transients(network, peer) == 0
    assert holders(network) == set(MEMBERS)


def test_metadata_of_a_private_key_leaves_its_value(network: LedgerNetwork) -> None:
    async def note(stub: Stub) -> None:
        await stub.put_metadata("key", b"1", "pair")

    async def story() -> None:
        assert await network.commit(put("key", SECRET, "pair"), [SERVICE]) == VALID
        assert await network.commit(note, [SERVICE]) == VALID
        for peer in MEMBERS:
            assert await network.evaluate(get("key", "pair"), peer) == SECRET

    network.run(story())
