"""Private data that a member missed is found later; what purges, block-to-live and changes of members make of it.

`pair` is of Service and Billing. Where Service withholds what it has, Billing misses it.
"""

from hashlib import sha256

import pytest

from network.embedded.ledger.faults import PeerFaults
from network.embedded.ledger.network import RECONCILE_SECONDS
from network.protocol.collection import CollectionConfig, encode_collections
from network.protocol.validation_code import MVCC_READ_CONFLICT, VALID
from tests.support.embedded_ledger import (
    BILLING,
    CHAINCODE,
    CHANNEL,
    COLLECTIONS,
    CUSTOMER,
    FIELD,
    SERVICE,
    Behaviour,
    LedgerNetwork,
    Stub,
    collection,
    definition,
    get,
    put,
)

SECRET = b"a value that only members know"


@pytest.fixture
def keeper(network: LedgerNetwork) -> PeerFaults:
    """Give the faults of the peer of Service, who withholds what it has."""
    faults = PeerFaults(network.peers[SERVICE], CHANNEL, network.clock)
    faults.withhold_private_data()
    return faults


def held(network: LedgerNetwork, peer: str, key: str = "key", name: str = "pair") -> bytes | None:
    found = network.channel(peer).store.private_value(CHAINCODE, name, key)
    return None if found is None else found.value


def missing(network: LedgerNetwork, peer: str = BILLING) -> int:
    """Count what a peer is to hold and does not."""
    return len(network.channel(peer).store.missing(is_member=True))


async def given(network: LedgerNetwork, value: bytes = SECRET, name: str = "pair", key: str = "key") -> None:
    """Commit a private value that the peer of Service endorses."""
    assert await network.commit(put(key, value, name), [SERVICE]) == VALID


def delete(key: str, name: str = "pair") -> Behaviour:
    async def behave(stub: Stub) -> None:
        await stub.delete(key, name)

    return behave


async def purge_key(stub: Stub) -> None:
    await stub.purge("key", "pair")


async def reconciled(network: LedgerNetwork) -> None:
    await network.clock.sleep(RECONCILE_SECONDS + 1)


async def change_collections(network: LedgerNetwork, *changed: CollectionConfig) -> None:
    """Commit the chaincode's definition with some of its collections changed."""
    names = {config.name: config for config in (*COLLECTIONS, *changed)}
    wanted = definition(2, "2.0", collections=encode_collections(tuple(names.values())))
    await network.deploy(CHAINCODE, wanted)


# --- found later


def test_what_was_missed_is_looked_for_each_minute(network: LedgerNetwork, keeper: PeerFaults) -> None:
    async def story() -> None:
        began = network.clock.now()
        await given(network)
        await reconciled(network)
        assert missing(network) == 1
        keeper.mend()
        assert held(network, BILLING) is None
        committed = network.clock.now()
        while missing(network):
            await network.clock.sleep(1)
        assert network.clock.now() - committed <= RECONCILE_SECONDS
        assert network.clock.now() - began >= 2 * RECONCILE_SECONDS
        assert await network.evaluate(get("key", "pair"), BILLING) == SECRET

    network.run(story())

    assert network.channel(BILLING).store.private_writes(network.channel(BILLING).height - 1) != []


def test_values_found_late_do_not_undo_what_came_after(network: LedgerNetwork, keeper: PeerFaults) -> None:
    async def story() -> None:
        await given(network, b"first")
        await given(network, b"other", key="other")
        keeper.mend()
        await given(network, b"second")
        assert held(network, BILLING) == b"second"
        await reconciled(network)

    network.run(story())

    assert (held(network, BILLING), held(network, BILLING, "other")) == (b"second", b"other")
    assert missing(network) == 0


def test_what_is_deleted_by_a_transaction_that_was_missed_stays_until_it_is_found(
    network: LedgerNetwork, keeper: PeerFaults
) -> None:
    keeper.mend()

    async def story() -> None:
        await given(network)
        written = network.channel(BILLING).height - 1
        keeper.withhold_private_data()
        assert await network.commit(delete("key"), [SERVICE]) == VALID
        assert held(network, BILLING) == SECRET
        assert (await network.refusal(get("key", "pair"), BILLING)).endswith(
            "private data matching public hash version is not available. Public hash version = <nil>, "
            f"Private data version = {{BlockNum: {written}, TxNum: 0}}"
        )
        keeper.mend()
        await reconciled(network)
        assert await network.evaluate(get("key", "pair"), BILLING) == b""

    network.run(story())

    assert held(network, BILLING) is None


def test_a_value_whose_successor_was_missed_cannot_be_read_until_it_is_found(
    network: LedgerNetwork, keeper: PeerFaults
) -> None:
    keeper.mend()

    async def story() -> None:
        await given(network, b"first")
        first = network.channel(BILLING).height - 1
        keeper.withhold_private_data()
        await given(network, b"second")
        refused = await network.refusal(get("key", "pair"), BILLING)
        assert refused.endswith(
            "private data matching public hash version is not available. Public hash version = "
            f"{{BlockNum: {first + 1}, TxNum: 0}}, Private data version = {{BlockNum: {first}, TxNum: 0}}"
        )
        keeper.mend()
        await reconciled(network)
        assert await network.evaluate(get("key", "pair"), BILLING) == b"second"

    network.run(story())


def test_a_value_whose_metadata_changed_since_has_the_version_of_its_hash(
    network: LedgerNetwork, keeper: PeerFaults
) -> None:
    async def note(stub: Stub) -> None:
        await stub.put_metadata("key", b"1", "pair")

    async def story() -> None:
        await given(network)
        assert await network.commit(note, [SERVICE]) == VALID
        keeper.mend()
        await reconciled(network)
        assert await network.evaluate(get("key", "pair"), BILLING) == SECRET

    network.run(story())

    found = network.channel(BILLING).store.private_value(CHAINCODE, "pair", "key")
    assert found is not None
    assert found.version.block_number == network.channel(BILLING).height - 1


def test_what_nobody_gives_any_more_stays_missing_and_harms_nothing(network: LedgerNetwork) -> None:
    async def story() -> None:
        endorsed = await network.endorse(put("key", SECRET, "pulled"), [SERVICE])
        network.channel(SERVICE).store.forget_transient([endorsed.proposal.tx_id], 0)
        await network.order(endorsed)
        assert await network.wait(endorsed.proposal.tx_id) == VALID
        for _ in range(5):
            await reconciled(network)
        assert await network.commit(put("a", b"1")) == VALID

    network.run(story())

    assert (missing(network, SERVICE), missing(network, BILLING)) == (1, 1)


# --- purges


def test_a_purged_value_is_not_found_later(network: LedgerNetwork, keeper: PeerFaults) -> None:
    async def story() -> None:
        await given(network)
        await given(network, b"kept", key="kept")
        assert await network.commit(purge_key, [SERVICE]) == VALID
        keeper.mend()
        await reconciled(network)
        assert await network.evaluate(get("key", "pair"), BILLING) == b""
        assert await network.evaluate(get("kept", "pair"), BILLING) == b"kept"

    network.run(story())

    assert missing(network) == 0
    assert nowhere(network, BILLING, SECRET)


def test_a_member_that_has_not_seen_the_purge_gives_nothing_away(network: LedgerNetwork, keeper: PeerFaults) -> None:
    """Who asks knows of the purge, who is asked does not: what is given is taken without the purged key."""
    lagging = PeerFaults(network.peers[SERVICE], CHANNEL, network.clock)

    async def two(stub: Stub) -> None:
        await stub.put("key", SECRET, "pair")
        await stub.put("kept", b"kept", "pair")

    async def story() -> None:
        assert await network.commit(two, [SERVICE]) == VALID
        height = network.channel(BILLING).height
        endorsed = await network.endorse(purge_key, [SERVICE])
        keeper.mend()
        lagging.stall()
        await network.order(endorsed)
        await network.channel(BILLING).wait_for_height(height)
        assert held(network, SERVICE) == SECRET
        await reconciled(network)
        assert held(network, BILLING) is None
        assert held(network, BILLING, "kept") == b"kept"
        lagging.mend()
        await network.channel(SERVICE).wait_for_height(height)

    network.run(story())

    assert nowhere(network, BILLING, SECRET)
    assert nowhere(network, SERVICE, SECRET)


def nowhere(network: LedgerNetwork, peer: str, value: bytes) -> bool:
    """Tell whether a peer has a value in no column of its store, the freed pages of the file apart."""
    connection = network.channel(peer).store._connection  # noqa: SLF001  # every table, which the product never asks for
    tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    rows = [row for table in tables for row in connection.execute(f"SELECT * FROM {table}")]  # noqa: S608  # its own names
    cells = [cell for row in rows for cell in row]
    return not any(isinstance(cell, bytes) and value in cell for cell in cells)


# --- block-to-live


def test_what_expired_is_no_longer_missing(network: LedgerNetwork, keeper: PeerFaults) -> None:
    long = collection("long", "ServiceMSP", "BillingMSP", block_to_live=20)

    async def story() -> list[int]:
        keeper.mend()
        await change_collections(network, long)
        keeper.withhold_private_data()
        await given(network, name="long")
        counted = [missing(network)]
        for number in range(21):
            assert await network.commit(put("a", b"%d" % number)) == VALID
            counted.append(missing(network))
        return counted

    assert network.run(story()) == [*[1] * 21, 0]
    assert held(network, SERVICE, "key", "long") is None


def test_what_expires_soon_is_not_asked_for_and_not_missing(network: LedgerNetwork, keeper: PeerFaults) -> None:
    """`brief` lives for two blocks; real peers ask for nothing that has fewer than ten to live."""

    async def story() -> None:
        await given(network, name="brief")
        assert held(network, SERVICE, "key", "brief") == SECRET
        keeper.mend()
        await reconciled(network)

    network.run(story())

    assert missing(network) == 0
    assert held(network, BILLING, "key", "brief") is None


# --- members


def test_a_member_that_joins_a_collection_is_given_what_was_before(network: LedgerNetwork) -> None:
    wider = collection("pair", "ServiceMSP", "BillingMSP", "CustomerMSP")

    async def story() -> None:
        await given(network)
        assert missing(network, CUSTOMER) == 0
        await change_collections(network, wider)
        assert missing(network, CUSTOMER) == 1
        assert held(network, CUSTOMER) is None
        await reconciled(network)
        assert await network.evaluate(get("key", "pair"), CUSTOMER) == SECRET

    network.run(story())

    assert missing(network, CUSTOMER) == 0
    assert held(network, FIELD) is None


def test_an_organisation_that_leaves_a_collection_keeps_what_it_has_and_gets_no_more(network: LedgerNetwork) -> None:
    alone = collection("pair", "ServiceMSP")

    async def story() -> None:
        await given(network)
        await change_collections(network, alone)
        await given(network, b"second", key="second")
        await reconciled(network)

    network.run(story())

    assert held(network, BILLING) == SECRET
    assert held(network, BILLING, "second") is None
    assert held(network, SERVICE, "second") == b"second"
    assert missing(network) == 0


def test_a_collection_changes_with_the_next_block(network: LedgerNetwork) -> None:
    """In the block that commits the definition the old members count, and what read the old definition is invalid."""
    wider = collection("pair", "ServiceMSP", "BillingMSP", "CustomerMSP")

    async def story() -> tuple[int, int]:
        before = await network.endorse(put("key", SECRET, "pair"), [SERVICE])
        late = await network.endorse(put("late", SECRET, "pair"), [SERVICE])
        names = {config.name: config for config in (*COLLECTIONS, wider)}
        wanted = definition(2, collections=encode_collections(tuple(names.values())))
        for peer in (SERVICE, BILLING, CUSTOMER):
            assert await network.approve(peer, CHAINCODE, wanted) == VALID
        await network.order(before)
        await network.commit_definition(CHAINCODE, wanted, (SERVICE, BILLING, CUSTOMER))
        await network.order(late)
        codes = await network.wait(before.proposal.tx_id), await network.wait(late.proposal.tx_id)
        places = [network.channel(CUSTOMER).transaction_place(it.proposal.tx_id) for it in (before, late)]
        assert places[0] is not None
        assert places[1] is not None
        assert places[1].block_number == places[0].block_number + 1
        return codes

    assert network.run(story()) == (VALID, MVCC_READ_CONFLICT)
    hashed = network.channel(CUSTOMER).store.value((CHAINCODE, "pair", sha256(b"key").digest()))
    assert hashed is not None
    assert missing(network, CUSTOMER) == 1  # of the block before: it was no member yet
