"""The shipped mapping `service` on what the customer-service contract really writes."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from fabric_protos.peer import chaincode_shim_pb2
from fabric_protos.peer.lifecycle import db_pb2

from chaincode.service import contract
from chaincode.service.access import COLLECTIONS
from kvr_sync.jobs import SyncSettings, sync_once
from kvr_sync.mapping.mapping_file import read_mapping_file
from network.protocol.collection import CollectionConfig, encode_collections, members_policy
from network.protocol.private_data import collections_field_key
from tests.support.chain_factory import ChainFactory, TransactionSpec, WriteSpec, private_set, put
from tests.support.chaincode_peer import Called, RunningServer, issue_client
from tests.support.credential import root_authority
from tests.support.recorded_peer import peer_settings, recorded_peer
from tests.support.tables import query

SERVICE = Path("service")
REFERENCE, SALT = "ab" * 8, "cd" * 8
CUSTOMER = {"kind": "household", "region": "栖霞", "tier": "A", "profile_ref": REFERENCE}
REQUEST = {"customer": "C1", "category": "meter", "title": "电表: meter is loud", "priority": 4, "tags": ["urgent"]}
PROFILE = {"reference": REFERENCE, "salt": SALT, "name": "张伟", "phone": "13900000000"}


async def week() -> list[Called]:
    """Call every writing function of the contract once."""
    authorities = {msp: root_authority(msp) for msp in ("BillingMSP", "FieldMSP", "CustomerMSP")}

    async with RunningServer(contract, msp_id="BillingMSP", get_multiple=100) as peer:

        async def call(msp: str, role: str, *arguments: str, **options: Any) -> Called:
            done = await peer.call(*arguments, creator=issue_client(authorities[msp], role=role), **options)
            assert done.status == 200, done.message
            return done

        profile = {"profile": json.dumps(PROFILE).encode()}
        return [
            await call("CustomerMSP", "agent", "register_customer", "k1", "C1", json.dumps(CUSTOMER)),
            await call("CustomerMSP", "agent", "open_request", "k2", "R1", json.dumps(REQUEST)),
            await call("CustomerMSP", "agent", "open_request", "k3", "R2", json.dumps(REQUEST)),
            await call("FieldMSP", "agent", "assign_request", "k4", "R1", "field"),
            await call(
                "FieldMSP", "agent", "resolve_request", "k5", "R1", '{"resolution":"已更换","minutes_spent":30}'
            ),
            await call("CustomerMSP", "agent", "close_request", "k6", "R1", '{"rating":5,"note":"好"}'),
            await call("BillingMSP", "dpo", "store_profile", "k7", "billing", transient=profile),
            await call("BillingMSP", "dpo", "store_profile", "k8", "service-billing", transient=profile),
        ]


def specs_of(calls: list[Called]) -> list[TransactionSpec]:
    record = chaincode_shim_pb2.WriteRecord
    specs = []
    for called in calls:
        writes = [
            WriteSpec(write.key, write.value if write.type == record.PUT_STATE else None, write.collection)
            for write in called.writes
        ]
        specs.append(TransactionSpec(writes, chaincode="service"))
    return specs


def definition() -> TransactionSpec:
    configs = [CollectionConfig(name, members_policy(*sorted(members))) for name, members in COLLECTIONS.items()]
    state = db_pb2.StateData(Bytes=encode_collections(configs)).SerializeToString()
    return TransactionSpec([put(collections_field_key("service").decode(), state, namespace="_lifecycle")])


def test_records_of_the_contract_become_rows(database_url: str, tmp_path: Path) -> None:
    factory = ChainFactory()
    factory.block([definition()])
    private = {}
    for spec in specs_of(asyncio.run(week())):
        private[factory.height] = {0: private_set(spec)}
        factory.block([spec])

    with recorded_peer(factory.blocks, private) as peer:
        source = peer_settings(tmp_path, [peer], private_data=True, msp_id="BillingMSP")
        summary = sync_once(SyncSettings(source, database_url, SERVICE))

    assert summary.quarantined == 0
    assert query(database_url, "SELECT id, kind, region, tier, profile_ref FROM customers") == [
        ("C1", "household", "栖霞", "A", REFERENCE)
    ]
    columns = "id, customer, category, queue, department, status, priority, resolution, minutes_spent, rating, note"
    assert query(database_url, f"SELECT {columns} FROM service_requests ORDER BY id") == [  # noqa: S608
        ("R1", "C1", "meter", "field", "field", "closed", 4, "已更换", 30, 5, "好"),
        ("R2", "C1", "meter", "field", None, "open", 4, None, None, None, None),
    ]
    steps = "SELECT status FROM service_requests_history WHERE id = 'R1' ORDER BY kvr_block_number"
    assert [row[0] for row in query(database_url, steps)] == ["open", "assigned", "resolved", "closed"]
    profiles = "SELECT reference, held_in, name, phone, address FROM customer_profiles ORDER BY held_in"
    assert query(database_url, profiles) == [
        (REFERENCE, "billing", "张伟", "13900000000", None),
        (REFERENCE, "service-billing", "张伟", "13900000000", None),
    ]


def test_every_collection_of_the_contract_is_mapped() -> None:
    mapping = read_mapping_file(SERVICE)

    (profiles,) = [table for table in mapping.tables if table.collections]
    assert set(profiles.collections) == set(COLLECTIONS)


def test_a_file_of_that_name_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = read_mapping_file(SERVICE)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "service").write_text(
        "kvr_mapping: 1\ntables: {t: {namespace: a, key: {prefix: x}, columns: {id: {from: key, type: text}}}}\n"
    )

    assert [table.name for table in read_mapping_file(SERVICE).tables] == ["t"]
    assert shipped.name == "service"
