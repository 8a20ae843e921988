"""Made chains with a private data collection, brought into tables from a peer that hands over what a test says."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fabric_protos.peer.lifecycle import db_pb2

from kvr_sync.engine import RunSummary
from kvr_sync.jobs import SyncSettings, sync_once
from network.protocol.collection import CollectionConfig, encode_collections, members_policy
from network.protocol.private_data import collections_field_key
from tests.support.chain_factory import ChainFactory, TransactionSpec, WriteSpec, private_set, put
from tests.support.mapped_layer import check_made_again
from tests.support.recorded_peer import peer_settings, recorded_peer
from tests.support.tables import query

PROFILES = """\
kvr_mapping: 1
tables:
  customer_profiles:
    namespace: ext
    collections: [entCust]
    key: {prefix: ""}
    columns:
      reference: {from: key, type: text, required: true, index: true}
      name: {json: name, type: text, required: true}
      tx_id: {from: ledger.tx_id, type: text}
      held_in: {from: ledger.collection, type: text, required: true}
"""
EVERY = "SELECT k.namespace, k.collection, p.key, p.value, p.block_number, p.tx_number, p.expiring_block"
FROM = " FROM ledger_private_value p JOIN ledger_key k ON k.key_id = p.key_id"


def private_rows(url: str, namespace: str = "ext") -> dict[tuple[str, bytes | None], Any]:
    """Give the values in force by collection and key: value, block, transaction and block of expiry."""
    rows = query(url, f"{EVERY}{FROM} WHERE k.namespace = ? AND p.ended_block IS NULL", [namespace])
    return {(row[1], row[2] and bytes(row[2])): (None if row[3] is None else bytes(row[3]), *row[4:]) for row in rows}


def missing_rows(url: str) -> list[tuple[str, bytes]]:
    """Give collection and hash of the key of every missing value."""
    rows = query(url, f"SELECT k.collection, k.key{FROM} WHERE p.due_at IS NOT NULL")
    return sorted((row[0], bytes(row[1])) for row in rows)


def bring(
    folder: Path,
    url: str,
    blocks: Sequence[bytes],
    private: Mapping[int, Mapping[int, bytes]],
    *,
    mapping: Path | None = None,
    msp_id: str = "EnterpriseMSP",
    checked: bool = True,
) -> RunSummary:
    """Bring what is new into tables; with `checked` they must be what they would be if they were made again."""
    with recorded_peer(blocks, private) as peer:
        source = peer_settings(folder, [peer], private_data=True, msp_id=msp_id)
        summary = sync_once(SyncSettings(source, url, mapping))
    if checked:
        check_made_again(url)
    return summary


class Chain:
    """A made chain with private data collections, and what a member's peer hands over beside it."""

    def __init__(
        self,
        *,
        block_to_live: int = 0,
        members: Sequence[str] = ("EnterpriseMSP",),
        collections: Sequence[str] = ("secrets",),
    ) -> None:
        self.factory = ChainFactory()
        self.private: dict[int, dict[int, bytes]] = {}
        self.specs: dict[int, tuple[TransactionSpec, ...]] = {}
        self.withheld: dict[int, dict[int, bytes]] = {}
        """Private sets that the peer does not hand over."""
        self.block_to_live = block_to_live
        self.collections = collections
        self.define(*members)

    @property
    def blocks(self) -> list[bytes]:
        return self.factory.blocks

    def define(self, *members: str) -> None:
        policy = members_policy(*members)
        configs = [CollectionConfig(name, policy, block_to_live=self.block_to_live) for name in self.collections]
        state = db_pb2.StateData(Bytes=encode_collections(configs)).SerializeToString()
        field = collections_field_key("ext").decode()
        self.factory.block([TransactionSpec([put(field, state, namespace="_lifecycle")])])

    def add(self, *specs: TransactionSpec, handed_over: bool = True) -> int:
        number = self.factory.height
        self.factory.block(specs)
        self.specs[number] = specs
        sets = self.private if handed_over else self.withheld
        sets[number] = {tx: private_set(spec) for tx, spec in enumerate(specs)}
        return number

    def write(self, *writes: WriteSpec, handed_over: bool = True) -> int:
        return self.add(TransactionSpec(writes), handed_over=handed_over)

    def pad(self, blocks: int) -> None:
        for _ in range(blocks):
            self.factory.block([TransactionSpec([put("public", b"1")])])


def secret(key: str, value: bytes) -> WriteSpec:
    return put(key, value, collection="secrets")
