"""What one transaction can ask of its peer.

Names are Fabric's. The ledger answers with committed state: a transaction does not read what it wrote itself. A key
that is not there reads as None. Every refusal of the peer is raised where it was asked. Source of the rules:
fabric-chaincode-go `shim/stub.go`, Fabric `core/chaincode/handler.go`.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol

from fabric_protos.peer import chaincode_pb2, chaincode_shim_pb2, proposal_response_pb2

from chaincode.errors import InvalidKeyError, PeerRefusedError, ReadOnlyError, ShimError
from chaincode.shim.composite_key import ALL_COMPOSITE_KEYS, check_key, check_simple_range, composite_range
from chaincode.shim.iterator import (
    Ask,
    KeyModification,
    ResultIterator,
    StateEntry,
    StatePage,
    decode_key_modification,
    decode_state_entry,
)
from chaincode.shim.proposal import Proposal

Message = chaincode_shim_pb2.ChaincodeMessage
Record = chaincode_shim_pb2.WriteRecord
VALIDATION_PARAMETER = "VALIDATION_PARAMETER"
MAX_PAGE_SIZE = 1000


class Parameters(Protocol):
    """What the peer offers; 0 is: not offered."""

    @property
    def write_batch_size(self) -> int:
        """Most records of one write batch."""

    @property
    def get_multiple_size(self) -> int:
        """Most keys of one request."""


class Stub:
    """One transaction. Requests of one transaction go to the peer one after the other, however they are awaited."""

    def __init__(self, proposal: Proposal, ask: Ask, parameters: Parameters, peer_msp_id: str) -> None:
        self._proposal = proposal
        self._ask = ask
        self._parameters = parameters
        self._batch: list[Any] | None = None
        self.peer_msp_id = peer_msp_id
        """The organisation this chaincode process runs for."""
        self.event: tuple[str, bytes] | None = None
        """Name and payload of the event, the last that was set."""
        self.is_read_only = False
        """Refuse every write with ReadOnlyError."""

    @property
    def tx_id(self) -> str:
        """The transaction's id."""
        return self._proposal.tx_id

    @property
    def channel_id(self) -> str:
        """The channel's name."""
        return self._proposal.channel_id

    @property
    def timestamp(self) -> int:
        """Time that the client claimed in the proposal, the same on every peer; nanoseconds since 1970 (UTC)."""
        return self._proposal.timestamp

    @property
    def arguments(self) -> tuple[bytes, ...]:
        """All arguments as they came; the first is the function's name."""
        return self._proposal.arguments

    @property
    def transient(self) -> Mapping[str, bytes]:
        """Data that goes to endorsing peers and into no block."""
        return self._proposal.transient

    @property
    def creator(self) -> bytes:
        """Serialised identity of the client."""
        return self._proposal.creator

    @property
    def binding(self) -> bytes:
        """SHA-256 of nonce, creator and epoch: ties what the client signs elsewhere to this proposal."""
        return self._proposal.binding

    @property
    def decorations(self) -> Mapping[str, bytes]:
        """What the peer added to the input."""
        return self._proposal.decorations

    @property
    def is_init(self) -> bool:
        """Tell whether the proposal asks for initialisation."""
        return self._proposal.is_init

    @property
    def signed_proposal(self) -> Any:  # noqa: ANN401  # a SignedProposal, generated without types
        """The proposal with the client's signature."""
        return self._proposal.signed_proposal

    # State

    async def get_state(self, key: str) -> bytes | None:
        """Read a key; None when it is not there."""
        return await self._get("", key)

    async def get_states(self, keys: Sequence[str]) -> list[bytes | None]:
        """Read keys, in their order: in few requests when the peer offers it, else one by one."""
        return await self._get_many("", keys)

    async def put_state(self, key: str, value: bytes) -> None:
        """Write a key. An empty value is refused: to the ledger it would be a delete."""
        await self._put("", key, value)

    async def delete_state(self, key: str) -> None:
        """Delete a key; one that is not there is no error."""
        await self._write(Record(type=Record.DEL_STATE, key=check_key(key)))

    async def get_state_validation_parameter(self, key: str) -> bytes | None:
        """Give the endorsement policy of a key (a serialised SignaturePolicyEnvelope); None without one."""
        return await self._get_metadata("", key)

    async def set_state_validation_parameter(self, key: str, policy: bytes) -> None:
        """Set the endorsement policy of a key."""
        await self._put_metadata("", key, policy)

    # Private data

    async def get_private_data(self, collection: str, key: str) -> bytes | None:
        """Read a private key; None when it is not there."""
        return await self._get(_check_collection(collection), key)

    async def get_multiple_private_data(self, collection: str, keys: Sequence[str]) -> list[bytes | None]:
        """Read private keys one by one: a peer checks no hash versions when it is asked for several at once."""
        _check_collection(collection)
        return [await self._get(collection, key) for key in keys]

    async def put_private_data(self, collection: str, key: str, value: bytes) -> None:
        """Write a private key; an empty value is refused."""
        await self._put(_check_collection(collection), key, value)

    async def delete_private_data(self, collection: str, key: str) -> None:
        """Delete a private key; its past values stay with members."""
        await self._write(Record(type=Record.DEL_STATE, key=check_key(key), collection=_check_collection(collection)))

    async def purge_private_data(self, collection: str, key: str) -> None:
        """Delete a private key and all its past values."""
        await self._write(
            Record(type=Record.PURGE_PRIVATE_DATA, key=check_key(key), collection=_check_collection(collection))
        )

    async def get_private_data_hash(self, collection: str, key: str) -> bytes | None:
        """Give SHA-256 of a private value, which peers of non-members know too; None when it is not there."""
        request = chaincode_shim_pb2.GetState(key=check_key(key), collection=_check_collection(collection))
        return await self._ask(Message.GET_PRIVATE_DATA_HASH, request.SerializeToString()) or None

    async def get_private_data_validation_parameter(self, collection: str, key: str) -> bytes | None:
        """Give the endorsement policy of a private key; None without one."""
        return await self._get_metadata(_check_collection(collection), key)

    async def set_private_data_validation_parameter(self, collection: str, key: str, policy: bytes) -> None:
        """Set the endorsement policy of a private key."""
        await self._put_metadata(_check_collection(collection), key, policy)

    # Ranges and history

    async def get_state_by_range(self, start: str, end: str) -> ResultIterator[StateEntry]:
        """Read simple keys from start (inclusive) to end (exclusive); an empty bound is open. No composite keys."""
        return await self._range("", *check_simple_range(start, end))

    async def get_state_by_partial_composite_key(
        self, object_type: str, attributes: Sequence[str]
    ) -> ResultIterator[StateEntry]:
        """Read the composite keys that begin with these parts."""
        return await self._range("", *composite_range(object_type, attributes))

    async def get_state_page(self, start: str, end: str, page_size: int, bookmark: str = "") -> StatePage:
        """Read one page of simple keys. After it the transaction may not write: the peer refuses."""
        return await self._page(*check_simple_range(start, end), page_size, bookmark)

    async def get_composite_key_page(
        self, object_type: str, attributes: Sequence[str], page_size: int, bookmark: str = ""
    ) -> StatePage:
        """Read one page of composite keys. After it the transaction may not write: the peer refuses."""
        return await self._page(*composite_range(object_type, attributes), page_size, bookmark)

    async def get_all_composite_keys_page(self, page_size: int, bookmark: str = "") -> StatePage:
        """Read one page of all composite keys. After it the transaction may not write: the peer refuses."""
        return await self._page(*ALL_COMPOSITE_KEYS, page_size, bookmark)

    async def get_private_data_by_range(self, collection: str, start: str, end: str) -> ResultIterator[StateEntry]:
        """Read private simple keys. After it the transaction may not write: the peer refuses."""
        return await self._range(_check_collection(collection), *check_simple_range(start, end))

    async def get_private_data_by_partial_composite_key(
        self, collection: str, object_type: str, attributes: Sequence[str]
    ) -> ResultIterator[StateEntry]:
        """Read private composite keys. After it the transaction may not write: the peer refuses."""
        return await self._range(_check_collection(collection), *composite_range(object_type, attributes))

    async def get_query_result(self, query: str) -> ResultIterator[StateEntry]:
        """Read what a query of a CouchDB peer finds, as JSON; other peers refuse.

        A committing peer does not run it again: keys that another transaction added meanwhile are not noticed.
        """
        return await self._query("", query)

    async def get_query_page(self, query: str, page_size: int, bookmark: str = "") -> StatePage:
        """Read one page of what a query finds. After it the transaction may not write: the peer refuses."""
        request = chaincode_shim_pb2.GetQueryResult(query=query, metadata=_page_metadata(page_size, bookmark))
        return _read_page(await self._ask(Message.GET_QUERY_RESULT, request.SerializeToString()))

    async def get_private_data_query_result(self, collection: str, query: str) -> ResultIterator[StateEntry]:
        """Read what a query finds in a collection. After it the transaction may not write: the peer refuses."""
        return await self._query(_check_collection(collection), query)

    async def get_history_for_key(self, key: str) -> ResultIterator[KeyModification]:
        """Read the past of a public key, newest first, valid transactions only."""
        request = chaincode_shim_pb2.GetHistoryForKey(key=check_key(key))
        first = await self._ask(Message.GET_HISTORY_FOR_KEY, request.SerializeToString())
        return ResultIterator(self._ask, first, decode_key_modification)

    # The rest

    def set_event(self, name: str, payload: bytes = b"") -> None:
        """Set the one event of the transaction; a later one replaces it. It leaves with an endorsed answer only."""
        if not name:
            raise InvalidKeyError("an event needs a name")
        if self.is_read_only:
            raise ReadOnlyError("a query has no event")
        self.event = (name, _check_bytes(payload, "payload of an event"))

    async def invoke_chaincode(self, name: str, arguments: Sequence[bytes], channel: str = "") -> Any:  # noqa: ANN401
        """Call another chaincode; gives its Response (status, message, payload), also when it refuses.

        On another channel its writes are discarded and its reads are not validated. Raises PeerRefusedError when the
        call failed in the peer or the other chaincode answered no Response.
        """
        if self.is_read_only and channel in ("", self.channel_id):
            # The callee would write into this transaction. A query of ours is promised to leave nothing behind.
            raise ReadOnlyError("a query calls no chaincode on its own channel")
        if not name:
            raise InvalidKeyError("the name of a chaincode must not be empty")
        request = chaincode_pb2.ChaincodeSpec(
            chaincode_id=chaincode_pb2.ChaincodeID(name=f"{name}/{channel}" if channel else name),
            input=chaincode_pb2.ChaincodeInput(args=arguments),
        )
        content = await self._ask(Message.INVOKE_CHAINCODE, request.SerializeToString())
        called = Message.FromString(content)
        if called.type != Message.COMPLETED:
            raise PeerRefusedError("INVOKE_CHAINCODE", called.payload.decode(errors="replace"))
        return proposal_response_pb2.Response.FromString(called.payload)

    @asynccontextmanager
    async def write_batch(self) -> AsyncIterator[None]:
        """Hold the writes of a block back and send them together when the peer offers it; else they go one by one.

        A refusal of the peer is then raised at the end of the block. A block left by an exception sends nothing.
        """
        if self._batch is not None:
            raise ShimError("a write batch is open already")
        if not self._parameters.write_batch_size:
            yield
            return
        self._batch = []
        try:
            yield
            records = self._batch
        finally:
            self._batch = None
        size = self._parameters.write_batch_size
        for start in range(0, len(records), size):
            batch = chaincode_shim_pb2.WriteBatchState(rec=records[start : start + size])
            await self._ask(Message.WRITE_BATCH_STATE, batch.SerializeToString())

    async def _get(self, collection: str, key: str) -> bytes | None:
        request = chaincode_shim_pb2.GetState(key=check_key(key), collection=collection)
        return await self._ask(Message.GET_STATE, request.SerializeToString()) or None

    async def _get_many(self, collection: str, keys: Sequence[str]) -> list[bytes | None]:
        size = self._parameters.get_multiple_size
        if not size:
            return [await self._get(collection, key) for key in keys]
        values: list[bytes | None] = []
        for key in keys:
            check_key(key)
        for start in range(0, len(keys), size):
            asked = keys[start : start + size]
            request = chaincode_shim_pb2.GetStateMultiple(keys=asked, collection=collection)
            content = await self._ask(Message.GET_STATE_MULTIPLE, request.SerializeToString())
            found = chaincode_shim_pb2.GetStateMultipleResult.FromString(content).values
            if len(found) != len(asked):  # a peer whose database failed answers with an empty list, not with ERROR
                raise PeerRefusedError("GET_STATE_MULTIPLE", "fewer values than keys")
            values += [bytes(value) or None for value in found]
        return values

    async def _put(self, collection: str, key: str, value: bytes) -> None:
        check_key(key)
        if not _check_bytes(value, "value"):
            raise InvalidKeyError("an empty value would be a delete; ask for a delete instead")
        await self._write(Record(type=Record.PUT_STATE, key=key, value=value, collection=collection))

    async def _get_metadata(self, collection: str, key: str) -> bytes | None:
        request = chaincode_shim_pb2.GetStateMetadata(key=check_key(key), collection=collection)
        content = await self._ask(Message.GET_STATE_METADATA, request.SerializeToString())
        for entry in chaincode_shim_pb2.StateMetadataResult.FromString(content).entries:
            if entry.metakey == VALIDATION_PARAMETER:
                return bytes(entry.value)
        return None

    async def _put_metadata(self, collection: str, key: str, policy: bytes) -> None:
        check_key(key)
        metadata = chaincode_shim_pb2.StateMetadata(metakey=VALIDATION_PARAMETER, value=_check_bytes(policy, "policy"))
        await self._write(Record(type=Record.PUT_STATE_METADATA, key=key, collection=collection, metadata=metadata))

    async def _write(self, record: Any) -> None:  # noqa: ANN401  # a WriteRecord, generated without types
        if self.is_read_only:
            raise ReadOnlyError("a query does not write")
        if self._batch is not None:
            self._batch.append(record)
            return
        if record.type == Record.PUT_STATE:
            kind = Message.PUT_STATE
            request = chaincode_shim_pb2.PutState(key=record.key, value=record.value, collection=record.collection)
        elif record.type == Record.PUT_STATE_METADATA:
            kind = Message.PUT_STATE_METADATA
            request = chaincode_shim_pb2.PutStateMetadata(
                key=record.key, collection=record.collection, metadata=record.metadata
            )
        else:
            kind = Message.DEL_STATE if record.type == Record.DEL_STATE else Message.PURGE_PRIVATE_DATA
            request = chaincode_shim_pb2.DelState(key=record.key, collection=record.collection)
        await self._ask(kind, request.SerializeToString())

    async def _range(self, collection: str, start: str, end: str) -> ResultIterator[StateEntry]:
        request = chaincode_shim_pb2.GetStateByRange(startKey=start, endKey=end, collection=collection)
        first = await self._ask(Message.GET_STATE_BY_RANGE, request.SerializeToString())
        return ResultIterator(self._ask, first, decode_state_entry)

    async def _page(self, start: str, end: str, page_size: int, bookmark: str) -> StatePage:
        if bookmark and (
            bookmark < start or (end and bookmark >= end)
        ):  # it replaces the start: it would show other keys
            raise InvalidKeyError("the bookmark is none of this range")
        metadata = _page_metadata(page_size, bookmark)
        request = chaincode_shim_pb2.GetStateByRange(startKey=start, endKey=end, metadata=metadata)
        return _read_page(await self._ask(Message.GET_STATE_BY_RANGE, request.SerializeToString()))

    async def _query(self, collection: str, query: str) -> ResultIterator[StateEntry]:
        request = chaincode_shim_pb2.GetQueryResult(query=query, collection=collection)
        first = await self._ask(Message.GET_QUERY_RESULT, request.SerializeToString())
        return ResultIterator(self._ask, first, decode_state_entry)


def _page_metadata(page_size: int, bookmark: str) -> bytes:
    if not 1 <= page_size <= MAX_PAGE_SIZE:
        raise InvalidKeyError(f"a page has 1 to {MAX_PAGE_SIZE} rows")
    return bytes(chaincode_shim_pb2.QueryMetadata(pageSize=page_size, bookmark=bookmark).SerializeToString())


def _read_page(content: bytes) -> StatePage:
    response = chaincode_shim_pb2.QueryResponse.FromString(content)
    facts = chaincode_shim_pb2.QueryResponseMetadata.FromString(response.metadata)
    entries = [decode_state_entry(row.resultBytes) for row in response.results]
    return StatePage(entries, facts.bookmark, facts.fetched_records_count)


def _check_collection(collection: str) -> str:
    if not collection:
        raise InvalidKeyError("the name of a collection must not be empty")
    return collection


def _check_bytes(value: object, what: str) -> bytes:
    if not isinstance(value, bytes):
        raise InvalidKeyError(f"a {what} is bytes, not {type(value).__name__}")
    return value
