"""A channel in miniature whose blocks are judged: validly signed envelopes, to be broken in exactly one place."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from fabric_protos.common import common_pb2
from fabric_protos.ledger.rwset import rwset_pb2
from fabric_protos.ledger.rwset.kvrwset import kv_rwset_pb2
from fabric_protos.peer import chaincode_event_pb2, proposal_pb2, proposal_response_pb2, transaction_pb2

from network.protocol.collection import implicit_collection_name
from network.protocol.decode import decode_block
from network.protocol.lifecycle import (
    Approval,
    ChaincodeDefinition,
    Reader,
    approval_writes,
    definition_writes,
    with_defaults,
)
from network.protocol.private_data import LIFECYCLE_NAMESPACE
from network.protocol.range_query import encode_read
from network.protocol.read_write_set import KeyRead, MetadataEntry, RangeQuery, Version
from network.protocol.state import StateUpdate
from network.protocol.transaction import HEADER_ENDORSER_TRANSACTION
from network.protocol.validation import BlockJudgement, judge_block, judge_genesis
from tests.support.chain_factory import ChainFactory, Signer, serialize
from tests.support.memory_state import MemoryState

CHAINCODE = "ext"


@dataclass(frozen=True)
class SetSpec:
    """What a transaction does to one namespace, or to one collection of it (then keys and values stand hashed).

    A written value of None deletes; metadata of no entries is removed.
    """

    reads: Sequence[tuple[str, Version | None]] = ()
    ranges: Sequence[RangeQuery] = ()
    writes: Sequence[tuple[str, bytes | None]] = ()
    metadata: Sequence[tuple[str, Mapping[str, bytes]]] = ()
    collections: Mapping[str, "SetSpec"] = field(default_factory=dict)


def write_set(spec: SetSpec, namespace: str = CHAINCODE) -> bytes:
    """Make a TxReadWriteSet of one namespace."""
    return read_write_set([(namespace, spec)])


def read_write_set(namespaces: Iterable[tuple[str, SetSpec]]) -> bytes:
    """Make a TxReadWriteSet as asked, in the order given."""
    result = rwset_pb2.TxReadWriteSet()
    for namespace, spec in namespaces:
        entry = result.ns_rwset.add(namespace=namespace, rwset=serialize(_public(spec)))
        for collection, part in spec.collections.items():
            entry.collection_hashed_rwset.add(collection_name=collection, hashed_rwset=serialize(_hashed(part)))
    return serialize(result)


def _public(spec: SetSpec) -> Any:
    public = kv_rwset_pb2.KVRWSet()
    for key, version in spec.reads:
        encode_read(public.reads.add(), KeyRead(key, version))
    for query in spec.ranges:
        message = public.range_queries_info.add(
            start_key=query.start_key, end_key=query.end_key, itr_exhausted=query.exhausted
        )
        for read in query.raw_reads or ():
            encode_read(message.raw_reads.kv_reads.add(), read)
        if query.merkle_summary is not None:
            degree, level, hashes = query.merkle_summary
            message.reads_merkle_hashes.max_degree = degree
            message.reads_merkle_hashes.max_level = level
            message.reads_merkle_hashes.max_level_hashes.extend(hashes)
    for key, value in spec.writes:
        public.writes.add(key=key, is_delete=value is None, value=value or b"")
    for key, entries in spec.metadata:
        _add_entries(public.metadata_writes.add(key=key), entries)
    return public


def _hashed(spec: SetSpec) -> Any:
    hashed = kv_rwset_pb2.HashedRWSet()
    for key, version in spec.reads:
        read = hashed.hashed_reads.add(key_hash=key_hash(key))
        if version is not None:
            read.version.SetInParent()
            read.version.block_num, read.version.tx_num = version
    for key, value in spec.writes:
        value_hash = b"" if value is None else sha256(value).digest()
        hashed.hashed_writes.add(key_hash=key_hash(key), is_delete=value is None, value_hash=value_hash)
    for key, entries in spec.metadata:
        _add_entries(hashed.metadata_writes.add(key_hash=key_hash(key)), entries)
    return hashed


def _add_entries(message: Any, entries: Mapping[str, bytes]) -> None:
    for name, value in entries.items():
        message.entries.add(name=name, value=value)


def key_hash(key: str) -> bytes:
    """Hash a private key, as the public ledger holds it."""
    return sha256(key.encode()).digest()


Change = Callable[[Any], None]


@dataclass(frozen=True)
class EnvelopeSpec:
    """An envelope: valid unless a field says otherwise.

    `endorsers` None: a peer of each organisation. Each change gets the message named by it just before it is encoded,
    with everything above it still to follow from it; `change_endorsed` comes after the endorsers have signed.
    """

    results: bytes = b""
    chaincode: str = CHAINCODE
    endorsers: Sequence[Signer] | None = None
    creator: Signer | None = None
    nonce: bytes | None = None
    tx_id: str | None = None
    header_type: int = HEADER_ENDORSER_TRANSACTION
    channel: str | None = None
    event: str | None = None
    data: bytes | None = None
    change_channel_header: Change = lambda _: None
    change_signature_header: Change = lambda _: None
    change_action: Change = lambda _: None
    change_response: Change = lambda _: None
    change_endorsed: Change = lambda _: None
    change_transaction: Change = lambda _: None
    change_envelope: Change = lambda _: None


class JudgedChannel:
    """A channel of the organisations Enterprise and Customer, with its committed state."""

    def __init__(self, seed: int = 0) -> None:
        self.factory = ChainFactory(seed=seed)
        self.enterprise, self.customer = self.factory.organisations
        self.state = MemoryState()
        genesis = judge_genesis(decode_block(self.factory.genesis()).envelopes)
        self.state.apply(genesis)
        self.rules = genesis.rules
        self._envelopes = 0

    @property
    def height(self) -> int:
        return self.state.height

    def define(self, definition: ChaincodeDefinition, chaincode: str = CHAINCODE) -> ChaincodeDefinition:
        """Put a definition that every organisation has approved into the state; give it with its defaults."""
        definition = with_defaults(definition)
        version = Version(self.height, 0)
        for organisation in self.factory.organisations:
            collection = implicit_collection_name(organisation.msp_id)
            writes = approval_writes(
                chaincode, Approval(definition, "label:hash"), self.state.read_lifecycle, lambda _: None
            )
            for key, value in writes.items():
                assert value is not None
                update = StateUpdate(sha256(value).digest(), version)
                self.state.put((LIFECYCLE_NAMESPACE, collection, key_hash(key)), update)
        readers = {organisation.msp_id: self.hash_reader(organisation.msp_id) for organisation in self.organisations}
        writes = definition_writes(chaincode, definition, self.state.read_lifecycle, readers)
        for key, value in writes.items():
            self.state.put((LIFECYCLE_NAMESPACE, "", key.encode()), StateUpdate(value, version))
        return definition

    @property
    def organisations(self) -> tuple[Any, ...]:
        return self.factory.organisations

    def hash_reader(self, msp_id: str) -> Reader:
        """Read value hashes of an organisation's implicit collection of `_lifecycle`."""
        collection = implicit_collection_name(msp_id)
        return lambda key: self.state.read_hash(collection, key_hash(key))

    def put(
        self,
        key: str,
        value: bytes,
        version: Version,
        *,
        collection: str = "",
        metadata: Mapping[str, bytes] | None = None,
    ) -> None:
        """Put one key into the committed state."""
        entries = tuple(MetadataEntry(name, content) for name, content in (metadata or {}).items())
        if collection:
            update = StateUpdate(sha256(value).digest(), version, entries)
            self.state.put((CHAINCODE, collection, key_hash(key)), update)
        else:
            self.state.put((CHAINCODE, "", key.encode()), StateUpdate(value, version, entries))

    def judge(self, *envelopes: EnvelopeSpec | bytes) -> BlockJudgement:
        """Judge the next block; nothing is committed."""
        contents = [content if isinstance(content, bytes) else self.envelope(content) for content in envelopes]
        return judge_block(self.height, contents, self.rules, self.state)

    def commit(self, *envelopes: EnvelopeSpec | bytes) -> BlockJudgement:
        """Judge the next block and commit it."""
        judgement = self.judge(*envelopes)
        self.state.apply(judgement)
        self.rules = judgement.rules
        return judgement

    def envelope(self, spec: EnvelopeSpec) -> bytes:
        """Make an envelope with real signatures of its creator and its endorsers."""
        self._envelopes += 1
        creator = spec.creator or self.enterprise.client
        nonce = self._envelopes.to_bytes(24, "big") if spec.nonce is None else spec.nonce
        signature_header = common_pb2.SignatureHeader(creator=creator.identity, nonce=nonce)
        spec.change_signature_header(signature_header)
        extension = proposal_pb2.ChaincodeHeaderExtension()
        extension.chaincode_id.name = spec.chaincode
        channel_header = common_pb2.ChannelHeader(
            type=spec.header_type,
            channel_id=self.factory.channel if spec.channel is None else spec.channel,
            tx_id=sha256(nonce + creator.identity).hexdigest() if spec.tx_id is None else spec.tx_id,
            extension=serialize(extension),
        )
        spec.change_channel_header(channel_header)
        header = common_pb2.Header(
            channel_header=serialize(channel_header), signature_header=serialize(signature_header)
        )
        data = self._transaction(spec, header) if spec.data is None else spec.data
        payload = serialize(common_pb2.Payload(header=header, data=data))
        envelope = common_pb2.Envelope(payload=payload, signature=creator.sign(payload))
        spec.change_envelope(envelope)
        return serialize(envelope)

    def _transaction(self, spec: EnvelopeSpec, header: Any) -> bytes:
        action = proposal_pb2.ChaincodeAction(results=spec.results)
        action.chaincode_id.name, action.chaincode_id.version = spec.chaincode, "1.0"
        action.response.status = 200
        if spec.event is not None:
            event = chaincode_event_pb2.ChaincodeEvent(chaincode_id=spec.event, event_name="made")
            action.events = serialize(event)
        spec.change_action(action)
        proposal = b"\x0a\x04call"
        response = proposal_response_pb2.ProposalResponsePayload(
            proposal_hash=sha256(header.channel_header + header.signature_header + proposal).digest(),
            extension=serialize(action),
        )
        spec.change_response(response)
        content = serialize(response)
        peers = [organisation.peer for organisation in self.factory.organisations]
        endorsed = transaction_pb2.ChaincodeActionPayload(chaincode_proposal_payload=proposal)
        endorsed.action.proposal_response_payload = content
        for endorser in peers if spec.endorsers is None else spec.endorsers:
            signature = endorser.sign(content + endorser.identity)
            endorsed.action.endorsements.add(endorser=endorser.identity, signature=signature)
        spec.change_endorsed(endorsed)
        transaction = transaction_pb2.Transaction()
        transaction.actions.add(header=header.signature_header, payload=serialize(endorsed))
        spec.change_transaction(transaction)
        return serialize(transaction)
