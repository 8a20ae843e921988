"""What a running contract asks its peer, answered from its simulation: the messages of the chaincode protocol.

Rules: `core/chaincode/handler.go` (requests), `core/chaincode/query_response_generator.go` (batches of results).
"""

from collections.abc import Awaitable, Callable, Iterable
from typing import Final, NamedTuple

from fabric_protos.ledger.queryresult import kv_query_result_pb2
from fabric_protos.peer import chaincode_pb2, chaincode_shim_pb2
from google.protobuf.message import Message

from network.embedded.ledger.chaincode import RequestRefusedError
from network.embedded.ledger.simulation import TOTAL_QUERY_LIMIT, RangeCursor, Simulation, SimulationError
from network.protocol.decode import decode_transaction
from network.protocol.read_write_set import Version
from network.protocol.wire import parse

BATCH_RESULTS: Final = 100
MAX_ITERATORS: Final = 1000
"""Open at once in one transaction; Fabric has no bound."""

_Kind = chaincode_shim_pb2.ChaincodeMessage

Call = Callable[[str, chaincode_pb2.ChaincodeInput], Awaitable[bytes]]
"""Calls another chaincode; gives its ChaincodeMessage."""


class _Iterator(NamedTuple):
    fetch: Callable[[], bytes | None]
    ahead: list[bytes]


class LedgerConversation:
    """The requests of one transaction of one chaincode."""

    def __init__(self, simulation: Simulation, chaincode: str, *, is_init: bool, call: Call) -> None:
        self._simulation = simulation
        self._chaincode = chaincode
        self._is_init = is_init
        self._call = call
        self._iterators: dict[str, _Iterator] = {}
        self._opened = 0
        self._requests: dict[int, Callable[[bytes], bytes]] = {
            _Kind.GET_STATE: self._get_state,
            _Kind.GET_STATE_MULTIPLE: self._get_state_multiple,
            _Kind.PUT_STATE: self._put_state,
            _Kind.DEL_STATE: self._del_state,
            _Kind.PURGE_PRIVATE_DATA: self._purge,
            _Kind.GET_PRIVATE_DATA_HASH: self._get_private_hash,
            _Kind.GET_STATE_METADATA: self._get_metadata,
            _Kind.PUT_STATE_METADATA: self._put_metadata,
            _Kind.WRITE_BATCH_STATE: self._write_batch,
            _Kind.GET_STATE_BY_RANGE: self._get_range,
            _Kind.GET_QUERY_RESULT: self._query,
            _Kind.GET_HISTORY_FOR_KEY: self._get_history,
            _Kind.QUERY_STATE_NEXT: self._next,
            _Kind.QUERY_STATE_CLOSE: self._close,
        }

    async def answer(self, message_type: int, payload: bytes) -> bytes:
        """Give the payload of the RESPONSE; raises RequestRefusedError, DecodeError for a payload that is none."""
        try:
            if message_type == _Kind.INVOKE_CHAINCODE:
                specification = parse(chaincode_pb2.ChaincodeSpec, payload, "ChaincodeSpec")
                return await self._call(specification.chaincode_id.name, specification.input)
            request = self._requests.get(message_type)
            if request is None:
                raise RequestRefusedError(f"unknown request {message_type}")
            return request(payload)
        except SimulationError as error:
            raise RequestRefusedError(str(error)) from error

    # --- keys

    def _get_state(self, payload: bytes) -> bytes:
        request = parse(chaincode_shim_pb2.GetState, payload, "GetState")
        if not request.collection:
            return self._simulation.get_state(self._chaincode, request.key) or b""
        self._check_not_init()
        return self._simulation.get_private(self._chaincode, request.collection, request.key) or b""

    def _get_state_multiple(self, payload: bytes) -> bytes:
        request = parse(chaincode_shim_pb2.GetStateMultiple, payload, "GetStateMultiple")
        if request.collection:
            self._check_not_init()
            found = self._simulation.get_several_private(self._chaincode, request.collection, request.keys)
        else:
            found = [self._simulation.get_state(self._chaincode, key) for key in request.keys]
        return _encoded(chaincode_shim_pb2.GetStateMultipleResult(values=[value or b"" for value in found]))

    def _put_state(self, payload: bytes) -> bytes:
        request = parse(chaincode_shim_pb2.PutState, payload, "PutState")
        self._put(request.collection, request.key, request.value)
        return b""

    def _del_state(self, payload: bytes) -> bytes:
        request = parse(chaincode_shim_pb2.DelState, payload, "DelState")
        self._put(request.collection, request.key, b"")
        return b""

    def _put(self, collection: str, key: str, value: bytes) -> None:
        if not collection:
            self._simulation.put_state(self._chaincode, key, value)
            return
        self._check_not_init()
        self._simulation.put_private(self._chaincode, collection, key, value)

    def _purge(self, payload: bytes) -> bytes:
        request = parse(chaincode_shim_pb2.DelState, payload, "DelState")
        self._purge_key(request.collection, request.key)
        return b""

    def _purge_key(self, collection: str, key: str) -> None:
        if not collection:
            raise RequestRefusedError("only applicable for private data")
        self._check_not_init()
        self._simulation.purge_private(self._chaincode, collection, key)

    def _get_private_hash(self, payload: bytes) -> bytes:
        request = parse(chaincode_shim_pb2.GetState, payload, "GetState")
        self._check_not_init()
        return self._simulation.get_private_hash(self._chaincode, request.collection, request.key) or b""

    def _get_metadata(self, payload: bytes) -> bytes:
        request = parse(chaincode_shim_pb2.GetStateMetadata, payload, "GetStateMetadata")
        if request.collection:
            self._check_not_init()
            found = self._simulation.get_private_metadata(self._chaincode, request.collection, request.key)
        else:
            found = self._simulation.get_metadata(self._chaincode, request.key)
        result = chaincode_shim_pb2.StateMetadataResult()
        for entry in found:
            result.entries.add(metakey=entry.name, value=entry.value)
        return _encoded(result)

    def _put_metadata(self, payload: bytes) -> bytes:
        request = parse(chaincode_shim_pb2.PutStateMetadata, payload, "PutStateMetadata")
        if not request.HasField("metadata"):
            raise RequestRefusedError("panic during execution")  # a real peer reads it all the same
        self._put_key_metadata(request.collection, request.key, request.metadata)
        return b""

    def _put_key_metadata(self, collection: str, key: str, metadata: chaincode_shim_pb2.StateMetadata) -> None:
        if not collection:
            self._simulation.put_metadata(self._chaincode, key, metadata.metakey, metadata.value)
            return
        self._check_not_init()
        self._simulation.put_private_metadata(self._chaincode, collection, key, metadata.metakey, metadata.value)

    def _write_batch(self, payload: bytes) -> bytes:
        """Apply the records in order; those before the first failure stay, as on a real peer."""
        kinds = chaincode_shim_pb2.WriteRecord
        for record in parse(chaincode_shim_pb2.WriteBatchState, payload, "WriteBatchState").rec:
            if record.type == kinds.PUT_STATE:
                self._put(record.collection, record.key, record.value)
            elif record.type == kinds.DEL_STATE:
                self._put(record.collection, record.key, b"")
            elif record.type == kinds.PURGE_PRIVATE_DATA:
                self._purge_key(record.collection, record.key)
            elif record.type == kinds.PUT_STATE_METADATA:
                self._put_key_metadata(record.collection, record.key, record.metadata)
            else:
                raise RequestRefusedError("unknown operation type")
        return b""

    def _check_not_init(self) -> None:
        if self._is_init:
            raise RequestRefusedError("private data APIs are not allowed in chaincode Init()")

    # --- queries

    def _get_range(self, payload: bytes) -> bytes:
        request = parse(chaincode_shim_pb2.GetStateByRange, payload, "GetStateByRange")
        if request.collection:
            self._check_not_init()
            cursor = self._simulation.open_private_range(
                self._chaincode, request.collection, request.startKey, request.endKey
            )
            return self._first_batch(lambda: self._row(cursor))
        metadata = parse(chaincode_shim_pb2.QueryMetadata, request.metadata, "QueryMetadata")
        if metadata.pageSize or metadata.bookmark:
            return self._page(request.startKey, request.endKey, metadata)
        cursor = self._simulation.open_range(self._chaincode, request.startKey, request.endKey)
        return self._first_batch(lambda: self._row(cursor))

    def _page(self, start_key: str, end_key: str, metadata: chaincode_shim_pb2.QueryMetadata) -> bytes:
        """Answer one page whole; the bookmark is the key after it."""
        start = metadata.bookmark or start_key
        cursor = self._simulation.open_page(self._chaincode, start, end_key, metadata.pageSize)
        rows = []
        while (row := self._row(cursor)) is not None:
            rows.append(row)
        facts = chaincode_shim_pb2.QueryResponseMetadata(
            fetched_records_count=len(rows), bookmark=self._simulation.key_after(self._chaincode, cursor, end_key)
        )
        return _encoded(_response(rows, has_more=False, iterator_id=self._new_id(), metadata=_encoded(facts)))

    def _query(self, payload: bytes) -> bytes:
        request = parse(chaincode_shim_pb2.GetQueryResult, payload, "GetQueryResult")
        metadata = parse(chaincode_shim_pb2.QueryMetadata, request.metadata, "QueryMetadata")
        is_paged = not request.collection and (metadata.pageSize or metadata.bookmark)
        if request.collection:
            self._check_not_init()
            self._simulation.begin_private_query(self._chaincode, request.collection)
        elif is_paged:
            self._simulation.begin_page()
        raise RequestRefusedError(f"ExecuteQuery{'WithMetadata' if is_paged else ''} not supported for leveldb")

    def _get_history(self, payload: bytes) -> bytes:
        request = parse(chaincode_shim_pb2.GetHistoryForKey, payload, "GetHistoryForKey")
        channel, chaincode = self._simulation.channel, self._chaincode
        versions = iter(channel.store.history(chaincode, request.key, TOTAL_QUERY_LIMIT))

        def fetch() -> bytes | None:
            version = next(versions, None)
            if version is None:
                return None
            return _modification(channel.envelope(version), chaincode, request.key, version)

        return self._first_batch(fetch)

    def _row(self, cursor: RangeCursor) -> bytes | None:
        found = cursor.fetch()
        if found is None:
            return None
        return _encoded(kv_query_result_pb2.KV(namespace=self._chaincode, key=found[0], value=found[1]))

    def _first_batch(self, fetch: Callable[[], bytes | None]) -> bytes:
        if len(self._iterators) >= MAX_ITERATORS:
            raise RequestRefusedError(f"more than {MAX_ITERATORS} open iterators")
        iterator_id = self._new_id()
        self._iterators[iterator_id] = _Iterator(fetch, [])
        return self._batch(iterator_id)

    def _batch(self, iterator_id: str) -> bytes:
        """Give the next batch; the row after it is fetched already, and so part of what was read."""
        iterator = self._iterators[iterator_id]
        rows = list(iterator.ahead)
        iterator.ahead.clear()
        while len(rows) <= BATCH_RESULTS:
            row = iterator.fetch()
            if row is None:
                del self._iterators[iterator_id]
                return _encoded(_response(rows, has_more=False, iterator_id=iterator_id))
            rows.append(row)
        iterator.ahead.append(rows.pop())
        return _encoded(_response(rows, has_more=True, iterator_id=iterator_id))

    def _next(self, payload: bytes) -> bytes:
        request = parse(chaincode_shim_pb2.QueryStateNext, payload, "QueryStateNext")
        if request.id not in self._iterators:
            raise RequestRefusedError("query iterator not found")
        return self._batch(request.id)

    def _close(self, payload: bytes) -> bytes:
        request = parse(chaincode_shim_pb2.QueryStateClose, payload, "QueryStateClose")
        self._iterators.pop(request.id, None)
        return _encoded(chaincode_shim_pb2.QueryResponse(id=request.id))

    def _new_id(self) -> str:
        self._opened += 1
        return str(self._opened)


def _response(
    rows: Iterable[bytes], *, has_more: bool, iterator_id: str, metadata: bytes = b""
) -> chaincode_shim_pb2.QueryResponse:
    results = [chaincode_shim_pb2.QueryResultBytes(resultBytes=row) for row in rows]
    return chaincode_shim_pb2.QueryResponse(results=results, has_more=has_more, id=iterator_id, metadata=metadata)


def _modification(envelope: bytes, chaincode: str, key: str, version: Version) -> bytes:
    """Say what one transaction did to a key; of two writes in one set the first counts, as on a real peer."""
    transaction = decode_transaction(version.tx_number, envelope)
    message = kv_query_result_pb2.KeyModification(tx_id=transaction.tx_id)
    if transaction.seconds is not None:
        message.timestamp.seconds, message.timestamp.nanos = transaction.seconds, transaction.nanos or 0
    for namespace in () if transaction.action is None else transaction.action.writes:
        if namespace.namespace != chaincode:
            continue
        for write in namespace.writes:
            if write.key == key:
                message.value, message.is_delete = write.value, write.is_delete
                return _encoded(message)
    return _encoded(message)


def _encoded(message: Message) -> bytes:
    return bytes(message.SerializeToString())
