"""Bytes of blocks to decoded blocks: total, bounded, and quick where transactions have the form that all clients write.

What a block and a transaction are is said by `network.protocol.decode`, and everything that is not plain is read by it.
Plain transactions, many at once, are found by `kvr_sync.envelope_columns`, and give exactly what it would give.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from hashlib import sha256
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

from fabric_protos.msp import identities_pb2
from fabric_protos.peer import chaincode_pb2

from kvr_sync.model import DecodedBlock, DecodedTransaction, EventFacts, LedgerKey, TransactionFacts, Write, WriteKind
from network.protocol.block import BlockFrame
from network.protocol.decode import decode_frame, decode_transaction
from network.protocol.errors import DecodeError
from network.protocol.limits import MAX_REMEMBERED_IDENTITY_BYTES
from network.protocol.read_write_set import HashedWrite, MetadataEntry, NamespaceWrites
from network.protocol.transaction import HEADER_ENDORSER_TRANSACTION, ChaincodeId, Transaction
from network.protocol.validation_code import NOT_VALIDATED
from network.protocol.wire import envelope_defect, parse

if TYPE_CHECKING:  # numpy starts a thread, and takes time; who decodes a block now and then does without
    from kvr_sync.envelope_columns import Columns

_BATCH_BYTES: Final = 4 * 1024 * 1024
"""Of blocks, and of envelopes, that are read together: the more, the less each costs, up to some thousand envelopes."""

_WORTH_COLUMNS: Final = 250
"""Envelopes; fewer are read sooner one by one."""

_make: Final[Any] = tuple.__new__
"""A named tuple made by its own name passes its fields through a call in Python, which takes twice as long."""

_HASH_OF_NOTHING: Final = sha256(b"").digest()
_PUT, _DELETE, _PURGE = WriteKind.PUT, WriteKind.DELETE, WriteKind.PURGE


def decode_block(content: bytes) -> DecodedBlock:
    """Decode a serialised `common.Block` with everything in it.

    Raises DecodeError when the bytes are no block, LimitExceededError beyond `network.protocol.limits`, both of
    `network.protocol.errors`.
    """
    return _decoded([decode_frame(content)])[0]


def decode_blocks(contents: Iterable[bytes]) -> Iterator[DecodedBlock]:
    """Decode blocks one after the other, some of them at once; raises as `decode_block` at the first that is none."""
    frames: list[BlockFrame] = []
    size = 0
    failure = None
    for content in contents:
        try:
            frames.append(decode_frame(content))
        except DecodeError as error:
            failure = error
            break
        size += len(content)
        if size >= _BATCH_BYTES:
            yield from _decoded(frames)
            frames, size = [], 0
    yield from _decoded(frames)
    if failure is not None:
        raise failure


def _decoded(frames: Sequence[BlockFrame]) -> list[DecodedBlock]:
    places = [
        (number, frame.flags[number] if len(frame.flags) == len(frame.envelopes) else NOT_VALIDATED)
        for frame in frames
        for number in range(len(frame.envelopes))
    ]
    envelopes = list(chain.from_iterable(frame.envelopes for frame in frames))
    found: list[DecodedTransaction | None] = []
    for first, end in _batches(envelopes):
        if end - first < _WORTH_COLUMNS:
            found += [None] * (end - first)
        else:
            found += decode_plain(envelopes[first:end], places[first:end])
    blocks = []
    first = 0
    for header, frame_envelopes, metadata, flags, commit_hash in frames:
        end = first + len(frame_envelopes)
        transactions = tuple(
            [
                decode_by_itself(*place, envelope) if transaction is None else transaction
                for transaction, place, envelope in zip(
                    found[first:end], places[first:end], frame_envelopes, strict=True
                )
            ]
        )
        blocks.append(DecodedBlock(header, frame_envelopes, metadata, transactions, flags, commit_hash))
        first = end
    return blocks


def _batches(envelopes: Sequence[bytes]) -> Iterator[tuple[int, int]]:
    """Cut a sequence where enough bytes have come together."""
    first = size = 0
    for end, envelope in enumerate(envelopes, start=1):
        size += len(envelope)
        if size >= _BATCH_BYTES:
            yield first, end
            first, size = end, 0
    if first < len(envelopes):
        yield first, len(envelopes)


# --- many at once


class _Known:
    """What the transactions of a batch have in common, made once."""

    def __init__(self) -> None:
        self.texts: dict[bytes, str] = {}
        self.identities: dict[int, tuple[bytes, str]] = {}
        """Serialised identity and its MSP id, by mark."""

    def text(self, encoded: bytes) -> str:
        text = self.texts[encoded] = encoded.decode()
        return text

    def identity(self, mark: int, serialized: bytes) -> tuple[bytes, str]:
        identity = self.identities[mark] = (serialized, msp_id_of(serialized))
        return identity


def decode_plain(envelopes: Sequence[bytes], places: Sequence[tuple[int, int]]) -> list[DecodedTransaction | None]:
    """Decode those of many envelopes that are in plain form, as `decode_by_itself` does; None for the others.

    `places`: for each envelope the number in its block, and its verdict. Never raises.
    """
    from kvr_sync.envelope_columns import read_columns  # noqa: PLC0415  see above

    found: list[DecodedTransaction | None] = [None] * len(envelopes)
    columns = read_columns(envelopes)
    content, known = columns.content, _Known()
    writes = _plain_writes(columns, places, known)
    endorsers = _plain_endorsers(columns, known)
    events = {
        envelope: EventFacts(
            places[envelope][0],
            content[source:source_stop].decode(),
            content[name:name_stop].decode(),
            content[payload:payload_stop],
        )
        for envelope, source, source_stop, name, name_stop, payload, payload_stop in columns.events
    }
    find_text, find_identity = known.texts.get, known.identities.get
    chaincodes: dict[bytes, ChaincodeId | None] = {}
    functions: dict[bytes, bytes] = {}
    for (
        envelope,
        channel,
        channel_stop,
        tx_id,
        tx_id_stop,
        creator,
        creator_stop,
        mark,
        chaincode,
        chaincode_stop,
        function,
        function_stop,
        seconds,
        nanos,
    ) in columns.transactions:
        identity = find_identity(mark)
        if identity is None or not content.startswith(identity[0], creator):
            identity = known.identity(mark, content[creator:creator_stop])
        encoded = content[chaincode:chaincode_stop]
        if encoded not in chaincodes:
            chaincodes[encoded] = _chaincode_id(encoded)
        chaincode_id = chaincodes[encoded]
        if chaincode_id is None:
            continue
        called = content[function:function_stop]
        encoded = content[channel:channel_stop]
        tx_number, code = places[envelope]
        facts = _make(
            TransactionFacts,
            (
                tx_number,
                content[tx_id:tx_id_stop].decode(),
                HEADER_ENDORSER_TRANSACTION,
                code,
                *identity,
                chaincode_id,
                functions.setdefault(called, called),
                seconds,
                nanos,
                None,
                tuple(endorsers.get(envelope, ())),
            ),
        )
        found[envelope] = _make(
            DecodedTransaction,
            (
                facts,
                find_text(encoded) or known.text(encoded),
                tuple(writes.get(envelope, ())),
                events.get(envelope),
                None,
                None,
            ),
        )
    return found


def _plain_writes(columns: "Columns", places: Sequence[tuple[int, int]], known: _Known) -> dict[int, list[Write]]:
    from kvr_sync.envelope_columns import IS_DELETE, IS_PURGE  # noqa: PLC0415  see above

    content = columns.content
    find_text, make_text = known.texts.get, known.text
    found: dict[int, list[Write]] = {}
    for envelope, number, name, name_stop, part, part_stop, key, key_stop, value, value_stop, flags in columns.writes:
        encoded = content[name:name_stop]
        namespace = find_text(encoded) or make_text(encoded)
        written = content[value:value_stop]
        collection = ""
        is_delete = not written
        if flags:
            encoded = content[part:part_stop]
            collection = find_text(encoded) or make_text(encoded)
            is_delete = is_delete or bool(flags & IS_DELETE) or (written == _HASH_OF_NOTHING)
        kind = _PUT
        if is_delete:
            kind, written = _PURGE if flags & IS_PURGE else _DELETE, b""
        ledger_key = _make(LedgerKey, (namespace, collection, content[key:key_stop]))
        write = _make(Write, (places[envelope][0], number, ledger_key, kind, written, ()))
        if number:
            found[envelope].append(write)
        else:
            found[envelope] = [write]
    return found


def _plain_endorsers(columns: "Columns", known: _Known) -> dict[int, list[bytes]]:
    content = columns.content
    find_identity = known.identities.get
    found: dict[int, list[bytes]] = {}
    last = -1
    for envelope, start, stop, mark in columns.endorsers:
        identity = find_identity(mark)
        if identity is None or not content.startswith(identity[0], start):
            identity = known.identity(mark, content[start:stop])
        if envelope == last:
            found[envelope].append(identity[0])
        else:
            found[envelope] = [identity[0]]
            last = envelope
    return found


def _chaincode_id(content: bytes) -> ChaincodeId | None:
    try:
        message = parse(chaincode_pb2.ChaincodeID, content, "ChaincodeID")
    except DecodeError:
        return None
    return ChaincodeId(message.name, message.version)


# --- one by one


def decode_by_itself(tx_number: int, code: int, envelope: bytes) -> DecodedTransaction:
    """Decode one envelope in whatever form as far as it goes; never raises. `code`: the verdict that the flags show."""
    transaction = decode_transaction(tx_number, envelope)
    malformed = envelope_defect(envelope)
    facts = _facts(transaction, code)
    action = transaction.action
    if action is None:
        return DecodedTransaction(facts, transaction.channel_id, (), None, transaction.config, malformed)
    event = action.event
    return DecodedTransaction(
        facts,
        transaction.channel_id,
        tuple(_writes(tx_number, action.writes)),
        None if event is None else EventFacts(tx_number, event.chaincode, event.name, event.payload),
        None,
        malformed,
    )


def _facts(transaction: Transaction, code: int) -> TransactionFacts:
    action = transaction.action
    defect = transaction.defect
    return TransactionFacts(
        transaction.tx_number,
        transaction.tx_id,
        transaction.header_type,
        code,
        transaction.creator,
        msp_id_of(transaction.creator),
        action.chaincode if action else None,
        action.function if action else None,
        transaction.seconds,
        transaction.nanos,
        f"{defect.place}: {defect.reason}" if defect else None,
        tuple([endorsement.endorser for endorsement in action.endorsements]) if action else (),
    )


def msp_id_of(creator: bytes) -> str:
    """Read the MSP id that a creator claims; "" when the creator of an invalid transaction is no identity."""
    # Creators of refused transactions can be anything, of any size, and never the same again.
    return _known_msp_id(creator) if len(creator) <= MAX_REMEMBERED_IDENTITY_BYTES else _read_msp_id(creator)


def _read_msp_id(creator: bytes) -> str:
    try:
        identity = parse(identities_pb2.SerializedIdentity, creator, "SerializedIdentity")
    except DecodeError:
        return ""
    return str(identity.mspid)


_known_msp_id = lru_cache(maxsize=4096)(_read_msp_id)


def _writes(tx_number: int, namespaces: tuple[NamespaceWrites, ...]) -> list[Write]:
    """Give one transaction's writes; `write_number` counts them in the order of the read-write set."""
    writes: list[Write] = []
    for namespace, public, metadata, collections in namespaces:
        for key, is_delete, value in public:
            writes.append(
                Write(
                    tx_number,
                    len(writes),
                    LedgerKey(namespace, "", key.encode()),
                    _DELETE if is_delete else _PUT,
                    b"" if is_delete else value,
                )
            )
        for key, entries in metadata:
            ledger_key = LedgerKey(namespace, "", key.encode())
            writes.append(Write(tx_number, len(writes), ledger_key, _metadata_kind(entries), b"", entries))
        for collection in collections:
            for hashed in collection.writes:
                ledger_key = LedgerKey(namespace, collection.collection, hashed.key_hash)
                kind = _hashed_kind(hashed)
                value = hashed.value_hash if kind == WriteKind.PUT else b""
                writes.append(Write(tx_number, len(writes), ledger_key, kind, value))
            for key_hash, entries in collection.metadata_writes:
                ledger_key = LedgerKey(namespace, collection.collection, key_hash)
                writes.append(Write(tx_number, len(writes), ledger_key, _metadata_kind(entries), b"", entries))
    return writes


def _metadata_kind(entries: tuple[MetadataEntry, ...]) -> WriteKind:
    return WriteKind.METADATA if entries else WriteKind.METADATA_REMOVED


def _hashed_kind(write: HashedWrite) -> WriteKind:
    if not write.is_delete:
        return WriteKind.PUT  # A purge flag on a write with a value hash does not make it a delete (`tx_ops.go`).
    return WriteKind.PURGE if write.is_purge else WriteKind.DELETE
