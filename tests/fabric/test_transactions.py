"""Transactions over real sockets: what the ledger says of each, what a client does about it, and who sees what."""

import asyncio
import json
from hashlib import sha256
from pathlib import Path

import pytest

from gateway.client.broadcast import broadcast
from gateway.client.contract import Contract
from gateway.client.errors import BroadcastError, CommitError, CommitStatusError, EndorseError, EvaluateError
from gateway.client.retry import ONCE
from gateway.client.transaction import Status, Transaction
from tests.support.live_network import (
    BILLING,
    CUSTOMER,
    FIELD,
    PROBE,
    SERVICE,
    LiveNetwork,
    NetworkName,
    on,
    verdicts,
)

HOUSEHOLD = json.dumps({"kind": "household", "region": "北区"})


async def register(network: LiveNetwork, contract: Contract) -> str:
    """Register a customer that every peer knows then, and give its id."""
    customer = network.fresh("C")
    done = await contract.submit_transaction("register_customer", network.fresh("key"), customer, HOUSEHOLD)
    await network.wait_for_block(done.status.block_number)
    return customer


async def open_request(network: LiveNetwork, contract: Contract, customer: str, category: str = "meter") -> str:
    """Open a request and give its id."""
    request = network.fresh("R")
    document = json.dumps({"customer": customer, "category": category, "title": "电表不走"})
    await contract.submit_transaction("open_request", network.fresh("key"), request, document)
    return request


async def ordered(transaction: Transaction) -> Status:
    """Submit a transaction and give the ledger's verdict, whatever it is."""
    commit = await transaction.submit()
    return await commit.status()


@on(*NetworkName)
def test_a_request_is_opened_and_read_by_another_organisation(network: LiveNetwork) -> None:
    async def story() -> None:
        async with network.contracts(SERVICE, CUSTOMER) as (service, customers):
            customer = await register(network, service)
            committed = await customers.submit_transaction(
                "open_request",
                network.fresh("key"),
                request := network.fresh("R"),
                json.dumps({"customer": customer, "category": "billing", "title": "账单有误"}),
            )
            assert committed.status.code == "VALID"
            await network.wait_for_block(committed.status.block_number)
            found = json.loads(await service.evaluate("read_request", request))
        assert (found["title"], found["status"], found["changed_by"]) == ("账单有误", "open", CUSTOMER)
        block = await network.block(committed.status.block_number, CUSTOMER)
        assert verdicts(block)[committed.status.tx_id] == ["VALID"]

    network.run(story)


@on(*NetworkName)
def test_of_two_that_read_the_same_version_the_second_is_refused(network: LiveNetwork) -> None:
    async def story() -> None:
        async with network.contracts(FIELD) as (field,), network.contracts(SERVICE) as (service,):
            request = await open_request(network, service, await register(network, service))
            await network.wait_for_block(await network.height(SERVICE) - 1)
            first, second = [
                await field.endorse("assign_request", network.fresh("key"), request, "field") for _ in range(2)
            ]
            statuses = [await ordered(first), await ordered(second)]
        assert [status.code for status in statuses] == ["VALID", "MVCC_READ_CONFLICT"]
        block = await network.block(statuses[1].block_number)
        assert verdicts(block)[second.tx_id] == ["MVCC_READ_CONFLICT"]

    network.run(story)


def test_a_client_that_may_not_repeat_is_told_of_the_conflict(network: LiveNetwork) -> None:
    async def story() -> None:
        async with network.contract(SERVICE, chaincode=PROBE) as probe:
            key = network.fresh("k")
            outcomes = await asyncio.gather(
                *[probe.submit_transaction("put", key, str(number), retry=ONCE) for number in range(4)],
                return_exceptions=True,
            )
        conflicts = [it for it in outcomes if isinstance(it, CommitError)]
        assert 1 <= len(conflicts) <= 3, outcomes
        assert {it.validation_code for it in conflicts} == {"MVCC_READ_CONFLICT"}

    network.run(story)


def test_conflicts_are_proposed_anew_until_all_are_in(network: LiveNetwork) -> None:
    async def story() -> None:
        async with network.contract(SERVICE, chaincode=PROBE) as probe:
            key = network.fresh("k")
            done = await asyncio.gather(*[probe.submit_transaction("put", key, str(number)) for number in range(4)])
        assert all(it.status.code == "VALID" for it in done)
        assert max(len(it.attempts) for it in done) > 1

    network.run(story)


@on(*NetworkName)
def test_a_transaction_endorsed_by_too_few_is_refused_by_the_ledger(network: LiveNetwork) -> None:
    async def story() -> None:
        async with network.contract(SERVICE, chaincode=PROBE) as probe:
            key = network.fresh("k")
            transaction = await probe.endorse("put", key, "by one side", endorsing_organizations=[SERVICE])
            status = await ordered(transaction)
            assert status.code == "ENDORSEMENT_POLICY_FAILURE"
            assert await probe.evaluate("get", key) == b""

    network.run(story)


@on(*NetworkName)
def test_a_range_that_something_entered_is_refused(network: LiveNetwork) -> None:
    async def story() -> None:
        async with network.contracts(SERVICE, BILLING) as (service, billing):
            customer = await register(network, service)
            await open_request(network, service, customer, "billing")
            await network.wait_for_block(await network.height(SERVICE) - 1)
            next_one = await billing.endorse("assign_next", network.fresh("key"), "billing")
            await open_request(network, service, customer, "billing")
            status = await ordered(next_one)
        assert status.code == "PHANTOM_READ_CONFLICT"

    network.run(story)


@on(NetworkName.EMBEDDED, NetworkName.NATIVE, NetworkName.NATIVE_LTS)
def test_the_same_envelope_twice_counts_once(network: LiveNetwork) -> None:
    async def story() -> None:
        async with network.contract(SERVICE, chaincode=PROBE) as probe:
            transaction = await probe.endorse("put", network.fresh("k"), "once")
            first = await ordered(transaction)
            height = await network.height(SERVICE)
            await transaction.submit()
            await network.wait_for_block(height)
            assert (await transaction.commit.status()) == first
        found = verdicts(await network.block(height))
        assert found[transaction.tx_id] == ["DUPLICATE_TXID"]

    network.run(story)


@on(NetworkName.NATIVE_BFT)
def test_bft_orderers_do_not_take_an_envelope_twice(network: LiveNetwork) -> None:
    async def story() -> None:
        async with network.contract(SERVICE, chaincode=PROBE) as probe:
            transaction = await probe.endorse("put", network.fresh("k"), "once")
            await ordered(transaction)
            organization = network.created.topology.orderer_organizations[0].msp_id
            words = "request already exists"
            async with asyncio.timeout(30), network.channel(organization) as orderer:
                while "already exists" in words:  # this orderer may be a block behind the one that told the peer
                    with pytest.raises(BroadcastError) as refused:
                        await broadcast(orderer, transaction.envelope)
                    words = refused.value.info
        assert "already processed" in words

    network.run(story)


@on(*NetworkName)
def test_endorsers_that_disagree_are_asked_again(network: LiveNetwork) -> None:
    async def story() -> None:
        async with network.contract(SERVICE, chaincode=PROBE) as probe:
            name = network.fresh("d")
            committed = await probe.submit_transaction("disagree_once", name)
            assert committed.result == b"agreed"
            assert len(committed.attempts) > 1
            assert await probe.evaluate("get", name) == b"agreed"

    network.run(story)


def test_endorsers_that_disagree_are_named_to_a_client_that_does_not_ask_again(network: LiveNetwork) -> None:
    async def story() -> None:
        async with network.contract(SERVICE, chaincode=PROBE) as probe:
            with pytest.raises(EndorseError) as refused:
                await probe.submit_transaction("disagree_once", network.fresh("d"), retry=ONCE)
        assert refused.value.grpc_code == "ABORTED"
        assert "ProposalResponsePayloads do not match" in {detail.message for detail in refused.value.details}
        assert {detail.msp_id for detail in refused.value.details} <= {SERVICE, BILLING, FIELD, CUSTOMER}

    network.run(story)


def test_a_contract_refusal_orders_nothing(network: LiveNetwork) -> None:
    async def story() -> None:
        async with network.contract(FIELD) as field:
            height = await network.settled_height()
            with pytest.raises(EndorseError) as refused:
                await field.submit_transaction("register_customer", network.fresh("key"), network.fresh("C"), HOUSEHOLD)
            assert refused.value.grpc_code == "ABORTED"
            assert any("403" in detail.message for detail in refused.value.details), refused.value.details
            assert await network.height(SERVICE) == height

    network.run(story)


@on(*NetworkName)
def test_transient_data_reaches_the_named_organisations_alone(network: LiveNetwork) -> None:
    async def story() -> None:
        async with network.contract(SERVICE, chaincode=PROBE) as probe:
            name, secret = network.fresh("p"), network.fresh("canary")
            committed = await probe.submit_transaction(
                "note_private",
                name,
                transient={"secret": secret.encode()},
                endorsing_organizations=[SERVICE, BILLING],
            )
            assert await probe.evaluate("get_private", name) == secret.encode()
        assert network.probed(name) == {SERVICE, BILLING}
        await network.wait_for_block(committed.status.block_number)
        async with network.contract(BILLING, chaincode=PROBE) as member:
            assert await member.evaluate("get_private", name) == secret.encode()
        async with network.contract(CUSTOMER, chaincode=PROBE) as outside:
            with pytest.raises(EvaluateError) as refused:
                await outside.evaluate("get_private", name)
            assert "403" in refused.value.message
            assert await outside.evaluate("get_private_hash", name) == sha256(secret.encode()).digest()
        # Reached by a member's client, a peer that is none has nothing to give.
        async with network.contract(SERVICE, chaincode=PROBE, peer=FIELD) as elsewhere:
            with pytest.raises(EvaluateError):
                await elsewhere.evaluate("get_private", name, target_organizations=[FIELD])
        for folder in non_member_folders(network):
            files = [path for path in folder.rglob("*") if path.is_file()]
            assert len(files) > 1
            assert not [path for path in files if secret.encode() in path.read_bytes()]

    network.run(story)


def non_member_folders(network: LiveNetwork) -> list[Path]:
    base = network.root.nodes if network.is_native else network.root.embedded
    return [base / "peer0.field", base / "peer0.customer"]


def test_unknown_transactions_are_waited_for_and_no_longer(network: LiveNetwork) -> None:
    async def story() -> None:
        async with network.contract(SERVICE, chaincode=PROBE) as probe:
            transaction = await probe.endorse("put", network.fresh("k"), "never submitted")
            with pytest.raises(CommitStatusError) as unknown:
                await transaction.commit.status(0.5)
        assert (unknown.value.timed_out, unknown.value.outcome) == (True, "unknown")

    network.run(story)
