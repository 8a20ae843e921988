"""What the tables must hold, worked out a second time.

Plain dictionaries, Fabric's own messages, nothing of the engine.

Written from the rules (`validation/tx_ops.go`, `rwset_proto_util.go`), not from the engine, and slow on purpose. A
test that compares tables with it fails when either of the two is wrong.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from fabric_protos.common import common_pb2
from fabric_protos.ledger.rwset import rwset_pb2
from fabric_protos.ledger.rwset.kvrwset import kv_rwset_pb2
from fabric_protos.msp import identities_pb2
from fabric_protos.peer import (
    chaincode_event_pb2,
    chaincode_pb2,
    collection_pb2,
    proposal_pb2,
    proposal_response_pb2,
    transaction_pb2,
)
from fabric_protos.peer.lifecycle import chaincode_definition_pb2, db_pb2
from google.protobuf.message import DecodeError

Key = tuple[str, str, bytes]
"""Namespace, collection, key bytes (in a collection: the key's hash)."""

NOTHING = hashlib.sha256(b"").digest()


@dataclass(frozen=True)
class WriteFact:
    """One write of a valid transaction.

    `effect`: put, delete, version (the value stayed, its version moved) or none. `entries`: of a metadata write.
    """

    block: int
    tx: int
    number: int
    key: Key
    kind: str
    effect: str
    written: bytes | None
    value: bytes | None
    tx_id: str
    msp_id: str
    entries: tuple[tuple[str, bytes], ...] = ()


@dataclass(frozen=True)
class TransactionFact:
    """One transaction, whatever its verdict; what cannot be read of it is None. `endorsers`: serialised identities."""

    block: int
    tx: int
    tx_id: str
    code: int
    msp_id: str | None
    chaincode: str | None
    function: bytes | None
    seconds: int | None
    nanos: int | None
    endorsers: tuple[bytes, ...] = ()


Definition = tuple[int, str, bool, str, str, bytes, tuple[tuple[Any, ...], ...]]
"""Sequence, version, whether initialisation is required, plugins of endorsement and validation, validation parameter,
and the collections: name, member policy, required and maximum peers, blocks to live, member-only reads and writes,
endorsement policy or None."""


@dataclass
class Ledger:
    """Everything the ledger layer must hold."""

    transactions: list[TransactionFact] = field(default_factory=list)
    writes: list[WriteFact] = field(default_factory=list)
    events: list[tuple[int, int, str, str, bytes]] = field(default_factory=list)
    state: dict[Key, bytes] = field(default_factory=dict)
    configs: list[int] = field(default_factory=list)
    definitions: dict[tuple[str, int], Definition | None] = field(default_factory=dict)
    """By chaincode and the block that brought it; None: what was written there is no definition."""

    def sequence(self, chaincode: str, block: int) -> int:
        """Give the sequence in force for the transactions of a block: definitions rule the blocks above their own."""
        known = [number for name, number in self.definitions if name == chaincode and number < block]
        definition = self.definitions[chaincode, max(known)] if known else None
        return definition[0] if definition else 0


def read_ledger(blocks: Iterable[bytes]) -> Ledger:
    """Apply blocks 0..N once, in order."""
    ledger = Ledger()
    for content in blocks:
        block = common_pb2.Block.FromString(content)
        for tx, (envelope, code) in enumerate(zip(block.data.data, block.metadata.metadata[2], strict=True)):
            _apply(ledger, block.header.number, tx, envelope, code)
        _define(ledger, block.header.number)
    return ledger


def _define(ledger: Ledger, block: int) -> None:
    """Read the definitions that a block changed (`core/chaincode/lifecycle/serializer.go`)."""
    prefixes = ("namespaces/metadata/", "namespaces/fields/")
    for write in ledger.writes:
        namespace, collection, key = write.key
        name = key.decode(errors="replace")
        if write.block == block and namespace == "_lifecycle" and not collection and name.startswith(prefixes):
            chaincode = name.split("/")[2]
            ledger.definitions[chaincode, block] = _definition(ledger.state, chaincode)


def _definition(state: dict[Key, bytes], chaincode: str) -> Definition | None:
    def stored(place: str) -> bytes | None:
        return state.get(("_lifecycle", "", f"namespaces/{place}".encode()))

    metadata = stored(f"metadata/{chaincode}")
    if metadata is None or db_pb2.StateMetadata.FromString(metadata).datatype != "ChaincodeDefinition":
        return None

    def value(name: str) -> Any:
        return db_pb2.StateData.FromString(stored(f"fields/{chaincode}/{name}") or b"")

    endorsement = chaincode_definition_pb2.ChaincodeEndorsementInfo.FromString(value("EndorsementInfo").Bytes)
    validation = chaincode_definition_pb2.ChaincodeValidationInfo.FromString(value("ValidationInfo").Bytes)
    package = collection_pb2.CollectionConfigPackage.FromString(value("Collections").Bytes)
    collections = [
        (
            entry.name,
            entry.member_orgs_policy.signature_policy.SerializeToString(deterministic=True),
            entry.required_peer_count,
            entry.maximum_peer_count,
            entry.block_to_live,
            entry.member_only_read,
            entry.member_only_write,
            entry.endorsement_policy.SerializeToString(deterministic=True)
            if entry.HasField("endorsement_policy")
            else None,
        )
        for entry in (config.static_collection_config for config in package.config)
    ]
    return (
        value("Sequence").Int64,
        endorsement.version,
        endorsement.init_required,
        endorsement.endorsement_plugin,
        validation.validation_plugin,
        validation.validation_parameter,
        tuple(collections),
    )


def _apply(ledger: Ledger, block: int, tx: int, envelope: bytes, code: int) -> None:
    payload = common_pb2.Payload.FromString(common_pb2.Envelope.FromString(envelope).payload)
    channel = common_pb2.ChannelHeader.FromString(payload.header.channel_header)
    creator = common_pb2.SignatureHeader.FromString(payload.header.signature_header).creator
    msp_id = identities_pb2.SerializedIdentity.FromString(creator).mspid if creator else None
    action, function, endorsers = _action(payload) if channel.type == 3 else (None, None, ())
    if channel.type == 1 and code == 0:
        ledger.configs.append(block)
    ledger.transactions.append(
        TransactionFact(
            block,
            tx,
            channel.tx_id,
            code,
            msp_id,
            action.chaincode_id.name if action is not None and action.HasField("chaincode_id") else None,
            function,
            channel.timestamp.seconds if channel.HasField("timestamp") else None,
            channel.timestamp.nanos if channel.HasField("timestamp") else None,
            endorsers,
        )
    )
    if code != 0 or action is None:
        return
    if action.events:
        event = chaincode_event_pb2.ChaincodeEvent.FromString(action.events)
        ledger.events.append((block, tx, event.chaincode_id, event.event_name, event.payload))
    operations = _operations(action.results)
    by_key: dict[Key, list[int]] = {}
    for number, (key, *_) in enumerate(operations):
        by_key.setdefault(key, []).append(number)
    outcome: dict[int, tuple[str, bytes | None]] = {}
    for key, numbers in by_key.items():
        carrier, effect, value = _merge(ledger.state.get(key), [(n, *operations[n][1:3]) for n in numbers])
        outcome[carrier] = (effect, value)
        if effect == "delete":
            ledger.state.pop(key, None)
        elif effect != "none" and value is not None:
            ledger.state[key] = value
    for number, (key, kind, written, entries) in enumerate(operations):
        effect, value = outcome.get(number, ("none", None))
        ledger.writes.append(
            WriteFact(block, tx, number, key, kind, effect, written, value, channel.tx_id, msp_id or "", entries)
        )


def _action(payload: Any) -> tuple[Any, bytes | None, tuple[bytes, ...]]:
    try:
        transaction = transaction_pb2.Transaction.FromString(payload.data)
        if len(transaction.actions) != 1:
            return None, None, ()
        inner = transaction_pb2.ChaincodeActionPayload.FromString(transaction.actions[0].payload)
        response = proposal_response_pb2.ProposalResponsePayload.FromString(inner.action.proposal_response_payload)
        proposal = proposal_pb2.ChaincodeProposalPayload.FromString(inner.chaincode_proposal_payload)
        call = chaincode_pb2.ChaincodeInvocationSpec.FromString(proposal.input).chaincode_spec.input
        action = proposal_pb2.ChaincodeAction.FromString(response.extension)
        rwset_pb2.TxReadWriteSet.FromString(action.results)
        chaincode_event_pb2.ChaincodeEvent.FromString(action.events)
        endorsers = tuple([endorsement.endorser for endorsement in inner.action.endorsements])
        return action, call.args[0] if call.args else None, endorsers
    except DecodeError:
        return None, None, ()


Entries = tuple[tuple[str, bytes], ...]


def _entries(change: Any) -> Entries:
    return tuple([(entry.name, entry.value) for entry in change.entries])


def _operations(results: bytes) -> list[tuple[Key, str, bytes | None, Entries]]:
    operations: list[tuple[Key, str, bytes | None, Entries]] = []
    for entry in rwset_pb2.TxReadWriteSet.FromString(results).ns_rwset:
        public = kv_rwset_pb2.KVRWSet.FromString(entry.rwset)
        for write in public.writes:
            key = (entry.namespace, "", write.key.encode())
            gone = write.is_delete or write.value == b""
            operations.append((key, "delete", None, ()) if gone else (key, "put", write.value, ()))
        for change in public.metadata_writes:
            key = (entry.namespace, "", change.key.encode())
            operations.append((key, "metadata" if len(change.entries) else "metadata removed", None, _entries(change)))
        for part in entry.collection_hashed_rwset:
            hashed = kv_rwset_pb2.HashedRWSet.FromString(part.hashed_rwset)
            for write in hashed.hashed_writes:
                key = (entry.namespace, part.collection_name, write.key_hash)
                if write.is_delete or write.value_hash in (b"", NOTHING):
                    operations.append((key, "purge" if write.is_purge else "delete", None, ()))
                else:
                    operations.append((key, "put", write.value_hash, ()))
            for change in hashed.metadata_writes:
                key = (entry.namespace, part.collection_name, change.key_hash)
                operations.append(
                    (key, "metadata" if len(change.entries) else "metadata removed", None, _entries(change))
                )
    return operations


FLAGS = {"put": 1, "metadata": 2, "metadata removed": 4, "delete": 8, "purge": 8}


def _merge(before: bytes | None, operations: list[tuple[int, str, bytes | None]]) -> tuple[int, str, bytes | None]:
    """Merge all writes of one key in one transaction.

    Gives the number of the write that tells the effect, the effect, and the value afterwards.
    """
    flag = sum(FLAGS[kind] for _, kind, _ in operations) % 256
    last = operations[-1][0]
    if flag & 8:
        return max([n for n, kind, _ in operations if kind in ("delete", "purge")], default=last), "delete", None
    writes_value = flag in (0, 1) or (flag & 1 and flag & 6)
    if writes_value:
        number, value = max((n, written) for n, kind, written in operations if kind == "put")
        return number, "put", value
    if before is None:
        return last, "none", None
    return last, "version", before
