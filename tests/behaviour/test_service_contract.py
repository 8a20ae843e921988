"""The customer-service contract, called through the runtime over real sockets."""

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fabric_protos.peer import chaincode_shim_pb2 as shim

from chaincode.service import contract
from chaincode.shim.composite_key import create_composite_key
from tests.support.chaincode_peer import TIMESTAMP, Called, ChaincodePeer, RunningServer, issue_client
from tests.support.credential import root_authority

AUTHORITIES = {
    msp: root_authority(msp) for msp in ("ServiceMSP", "BillingMSP", "FieldMSP", "CustomerMSP", "AuditorMSP")
}
CUSTOMER = json.dumps({"kind": "household", "region": "栖霞", "tier": "A", "profile_ref": "ab" * 8})
REQUEST = {"customer": "C1", "category": "meter", "title": "电表: meter is loud", "priority": 4, "tags": ["urgent"]}
PROFILE = {"reference": "ab" * 8, "salt": "cd" * 8, "name": "张伟", "phone": "13900000000"}


def run(main: Coroutine[Any, Any, None]) -> None:
    asyncio.run(main)


class Desk:
    """People of all organisations before one peer."""

    def __init__(self, peer: ChaincodePeer) -> None:
        self.peer = peer
        self._number = 0

    async def call(self, who: str, function: str, *arguments: str, **options: Any) -> Called:
        msp, _, role = who.partition("/")
        creator = issue_client(AUTHORITIES[msp + "MSP"], role=role) if role else issue_client(AUTHORITIES[msp + "MSP"])
        return await self.peer.call(function, *arguments, creator=creator, **options)

    async def write(self, who: str, function: str, *arguments: str, **options: Any) -> Called:
        """Call with a new request key."""
        self._number += 1
        return await self.call(who, function, f"key-{self._number}", *arguments, **options)

    async def register(self) -> None:
        assert (await self.write("Customer/agent", "register_customer", "C1", CUSTOMER)).status == 200

    async def open(self, request_id: str = "R1", seconds: int = 0) -> Called:
        timestamp = TIMESTAMP + seconds * 10**9
        return await self.write("Customer/agent", "open_request", request_id, json.dumps(REQUEST), timestamp=timestamp)


@asynccontextmanager
async def desk(msp_id: str = "ServiceMSP", write_batch: int = 0) -> AsyncIterator[Desk]:
    async with RunningServer(contract, msp_id=msp_id, get_multiple=100, write_batch=write_batch) as peer:
        yield Desk(peer)


def test_a_function_asks_the_peer_as_seldom_as_it_can() -> None:
    async def main() -> None:
        async with desk(write_batch=100) as at:
            await at.register()
            opened = await at.open()
            assert opened.requests == ["GET_STATE_MULTIPLE", "WRITE_BATCH_STATE"]
            assert len(opened.writes) == 3
            assigned = await at.write("Field/supervisor", "assign_request", "R1", "field")
            assert assigned.requests == ["GET_STATE_MULTIPLE", "GET_STATE", "WRITE_BATCH_STATE"]

    run(main())


def test_what_is_refused_has_written_nothing() -> None:
    async def main() -> None:
        async with desk(write_batch=100) as at:
            refused = await at.open()
            assert refused.status == 404
            assert (refused.requests, refused.writes) == (["GET_STATE_MULTIPLE"], [])

    run(main())


def test_a_request_lives_from_opening_to_closing() -> None:
    async def main() -> None:
        async with desk() as at:
            await at.register()
            opened = await at.open()
            assert (opened.status, opened.json()["status"], opened.json()["queue"]) == (200, "open", "field")
            assert opened.json()["opened_at"] == "2026-09-21T14:13:20.123456+00:00"
            assert opened.event == ("request_open", b'{"id":"R1","status":"open"}')
            waiting = (await at.call("Field/agent", "list_open_requests", "field")).json()
            assert [record["id"] for record in waiting["records"]] == ["R1"]
            assert (await at.write("Field/agent", "assign_request", "R1", "field")).json()["department"] == "field"
            assert (await at.call("Field/agent", "list_open_requests", "field")).json()["records"] == []
            resolution = json.dumps({"resolution": "已更换", "minutes_spent": 30})
            assert (await at.write("Field/agent", "resolve_request", "R1", resolution)).status == 200
            assert (await at.write("Customer/agent", "close_request", "R1", '{"rating":5}')).status == 200
            record = (await at.call("Auditor", "read_request", "R1")).json()
            assert (record["status"], record["rating"], record["resolution"]) == ("closed", 5, "已更换")
            history = (await at.call("Auditor", "request_history", "R1")).json()
            assert [step["record"]["status"] for step in history["steps"]] == ["closed", "resolved", "assigned", "open"]

    run(main())


def test_every_key_that_is_written_was_read() -> None:
    async def main() -> None:
        async with desk() as at:
            await at.register()
            await at.open()
            await at.write("Field/agent", "assign_next", "field")
            await at.write("Field/agent", "resolve_request", "R1", '{"resolution":"done"}')
            await at.write("Customer/agent", "close_request", "R1", "{}")
            profile = {"profile": json.dumps(PROFILE).encode()}
            await at.write("Billing/dpo", "store_profile", "service-billing", transient=profile)
            read: dict[str, set[str]] = {}
            written: dict[str, set[str]] = {}
            for message in at.peer.received:
                keys_read, keys_written = keys_of(message)
                read.setdefault(message.txid, set()).update(keys_read)
                written.setdefault(message.txid, set()).update(keys_written)
            assert sum(map(len, written.values())) == 14
            assert all(written[tx_id] <= read[tx_id] for tx_id in written)

    run(main())


def keys_of(message: Any) -> tuple[list[str], list[str]]:
    """Give the keys that a message of the chaincode reads and writes."""
    kind = shim.ChaincodeMessage.Type.Name(message.type)
    if kind == "GET_STATE":
        return [shim.GetState.FromString(message.payload).key], []
    if kind == "GET_STATE_MULTIPLE":
        return list(shim.GetStateMultiple.FromString(message.payload).keys), []
    if kind == "PUT_STATE":
        return [], [shim.PutState.FromString(message.payload).key]
    if kind == "DEL_STATE":
        return [], [shim.DelState.FromString(message.payload).key]
    return [], []


def test_a_request_key_gives_the_first_result_and_refuses_other_content() -> None:
    async def main() -> None:
        async with desk() as at:
            first = await at.call("Customer/agent", "register_customer", "k", "C1", CUSTOMER)
            again = await at.call("Customer/agent", "register_customer", "k", "C1", CUSTOMER)
            assert (again.status, again.payload, again.writes) == (200, first.payload, [])
            other = await at.call("Customer/agent", "register_customer", "k", "C2", CUSTOMER)
            assert (other.status, other.writes) == (409, [])
            elsewhere = await at.call("Service/agent", "register_customer", "k", "C2", CUSTOMER)
            assert elsewhere.status == 200

    run(main())


def test_the_oldest_open_request_of_the_queue_is_assigned() -> None:
    async def main() -> None:
        async with desk() as at:
            await at.register()
            await at.open("R1", seconds=5)
            await at.open("R2", seconds=1)
            assigned = await at.write("Field/agent", "assign_next", "field")
            assert assigned.json()["id"] == "R2"
            assert "GET_STATE_BY_RANGE" in assigned.requests
            assert (await at.write("Field/agent", "assign_next", "field")).json()["id"] == "R1"
            assert (await at.write("Field/agent", "assign_next", "field")).status == 404

    run(main())


def test_no_step_is_left_out_or_taken_twice() -> None:
    async def main() -> None:
        async with desk() as at:
            await at.register()
            await at.open()
            assert (await at.open()).status == 409
            assert (await at.write("Customer/agent", "close_request", "R1", "{}")).status == 409
            assert (await at.write("Field/agent", "resolve_request", "R1", '{"resolution":"x"}')).status == 409
            await at.write("Field/agent", "assign_request", "R1", "field")
            again = await at.write("Field/agent", "assign_request", "R1", "field")
            assert (again.status, again.message) == (409, "request R1 is assigned and cannot become assigned")

    run(main())


@pytest.mark.parametrize(
    ("who", "function", "arguments"),
    [
        ("Billing/agent", "register_customer", ("C9", CUSTOMER)),
        ("Customer", "register_customer", ("C9", CUSTOMER)),
        ("Auditor/agent", "open_request", ("R9", json.dumps(REQUEST))),
        ("Customer/agent", "assign_request", ("R1", "field")),
        ("Billing/agent", "assign_request", ("R1", "field")),
        ("Billing/agent", "assign_next", ("field",)),
        ("Field/agent", "close_request", ("R1", "{}")),
        ("Customer/supervisor", "resolve_request", ("R1", '{"resolution":"x"}')),
        ("Billing/agent", "store_profile", ("service",)),
        ("Auditor/dpo", "store_profile", ("service",)),
    ],
)
def test_others_may_not(who: str, function: str, arguments: tuple[str, ...]) -> None:
    async def main() -> None:
        async with desk() as at:
            await at.register()
            await at.open()
            profile = {"profile": json.dumps(PROFILE).encode()}
            refused = await at.write(who, function, *arguments, transient=profile)
            assert (refused.status, refused.writes) == (403, [])

    run(main())


def test_agents_resolve_for_their_own_department_only() -> None:
    async def main() -> None:
        async with desk() as at:
            await at.register()
            await at.open()
            await at.write("Field/agent", "assign_request", "R1", "field")
            document = '{"resolution":"done"}'
            assert (await at.write("Billing/agent", "resolve_request", "R1", document)).status == 403
            assert (await at.write("Billing/supervisor", "resolve_request", "R1", document)).status == 200

    run(main())


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"title": ""}, "document.title"),
        ({"title": "a\u202eb"}, "document.title"),
        ({"title": "x" * 201}, "document.title"),
        ({"title": "\ud800"}, "document.title"),
        ({"priority": 6}, "document.priority"),
        ({"priority": True}, "document.priority"),
        ({"priority": 1.5}, "document"),
        ({"category": "gossip"}, "document.category"),
        ({"customer": "张"}, "document.customer"),
        ({"tags": ["a"] * 11}, "document.tags"),
        ({"tags": "a"}, "document.tags"),
        ({"amount_cents": 10**19}, "document.amount_cents"),
        ({"more": 1}, "document"),
    ],
)
def test_bad_documents_are_refused_by_field(change: dict[str, Any], field: str) -> None:
    async def main() -> None:
        async with desk() as at:
            await at.register()
            document = json.dumps(REQUEST | change)
            refused = await at.write("Customer/agent", "open_request", "R1", document)
            assert (refused.status, refused.writes) == (400, [])
            assert field in refused.message

    run(main())


def test_a_request_needs_a_registered_customer() -> None:
    async def main() -> None:
        async with desk() as at:
            refused = await at.open()
            assert (refused.status, refused.message) == (404, "there is no customer C1")

    run(main())


def test_a_profile_is_written_to_its_collection_and_nowhere_else() -> None:
    async def main() -> None:
        async with desk() as at:
            transient = {"profile": json.dumps(PROFILE).encode()}
            stored = await at.call("Service/agent", "store_profile", "k", "service-billing", transient=transient)
            assert stored.json() == {"collection": "service-billing", "stored": True}
            assert {record.collection for record in stored.writes} == {"service-billing"}
            assert stored.event is None
            again = await at.call("Service/agent", "store_profile", "k", "service-billing", transient=transient)
            assert (again.status, again.payload, again.writes) == (200, stored.payload, [])
            taken = await at.write("Service/agent", "store_profile", "service-billing", transient=transient)
            assert taken.status == 409
            read = await at.call("Billing/agent", "read_profile", "service-billing", "ab" * 8)
            assert read.json()["name"] == "张伟"
            digest = await at.call("Auditor", "read_profile_hash", "service-billing", "ab" * 8)
            assert len(digest.json()["sha256"]) == 64
            assert (await at.call("Field/agent", "read_profile", "service-billing", "ab" * 8)).status == 403

    run(main())


def test_a_profile_is_not_read_from_a_strangers_peer() -> None:
    async def main() -> None:
        async with desk("FieldMSP") as at:
            refused = await at.call("Billing/agent", "read_profile", "service-billing", "ab" * 8)
            assert (refused.status, refused.requests) == (403, [])

    run(main())


@pytest.mark.parametrize(
    "change", [{"salt": "ab"}, {"salt": PROFILE["reference"]}, {"reference": "not random"}, {"name": "a\nb"}]
)
def test_a_profile_needs_a_random_reference_and_salt(change: dict[str, str]) -> None:
    async def main() -> None:
        async with desk() as at:
            transient = {"profile": json.dumps(PROFILE | change).encode()}
            refused = await at.write("Service/agent", "store_profile", "service", transient=transient)
            assert (refused.status, refused.writes) == (400, [])
            assert not any(value in refused.message for value in PROFILE.values())

    run(main())


def test_listings_are_paged_and_keep_to_their_type() -> None:
    async def main() -> None:
        async with desk() as at:
            for number in range(3):
                await at.write("Service/agent", "register_customer", f"C{number}", CUSTOMER)
            await at.open("R1")
            first = (await at.call("Auditor", "list_customers", "2")).json()
            second = (await at.call("Auditor", "list_customers", "2", first["bookmark"])).json()
            assert [record["id"] for record in first["records"] + second["records"]] == ["C0", "C1", "C2"]
            assert second["bookmark"] == ""
            foreign = create_composite_key("request", ["R1"])
            assert (await at.call("Auditor", "list_customers", "2", foreign)).status == 400
            assert (await at.call("Auditor", "list_customers", "201")).status == 400

    run(main())


def test_records_are_the_same_bytes_on_every_peer() -> None:
    async def once(msp_id: str) -> list[bytes]:
        async with desk(msp_id) as at:
            await at.register()
            return [(await at.open()).payload, *at.peer.state.values()]

    assert asyncio.run(once("ServiceMSP")) == asyncio.run(once("CustomerMSP"))
