"""Results that come in batches: asynchronous iteration, closed at the end, on an error, or when the block is left."""

from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import Any, Generic, NamedTuple, Self, TypeVar

from fabric_protos.ledger.queryresult import kv_query_result_pb2
from fabric_protos.peer import chaincode_shim_pb2

Row = TypeVar("Row")
Ask = Callable[[int, bytes], Awaitable[bytes]]
"""One request to the peer: its type and payload to the payload of the response."""
Message = chaincode_shim_pb2.ChaincodeMessage


class StateEntry(NamedTuple):
    """A key and its value."""

    key: str
    value: bytes


class KeyModification(NamedTuple):
    """A past write of a key; `timestamp` is nanoseconds since 1970 (UTC) as claimed; value None is a delete."""

    tx_id: str
    value: bytes | None
    timestamp: int


class StatePage(NamedTuple):
    """One page of a range; `bookmark` asks for the next one and is empty at the end."""

    entries: list[StateEntry]
    bookmark: str
    fetched: int


class ResultIterator(Generic[Row]):
    """Rows of one query. Use it in `async with`, or read it to its end; both close it at the peer."""

    def __init__(self, ask: Ask, first: bytes, decode: Callable[[bytes], Row]) -> None:
        self._ask = ask
        self._decode = decode
        self._response = chaincode_shim_pb2.QueryResponse.FromString(first)
        self._position = 0
        # A peer closes an iterator by itself when it says that there is no more.
        self._open = bool(self._response.has_more)

    async def __aenter__(self) -> Self:
        """Give itself."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the iterator, also after an exception."""
        await self.aclose()

    def __aiter__(self) -> AsyncIterator[Row]:
        """Give itself."""
        return self

    async def __anext__(self) -> Row:
        """Give the next row; with the last one of a batch the next batch is fetched.

        What was fetched counts as read, so when to fetch is part of the result: as Go's shim does, not when needed.
        """
        while self._position >= len(self._response.results):
            if not self._open:
                raise StopAsyncIteration
            await self._fetch()  # a batch without rows
        content = self._response.results[self._position].resultBytes
        self._position += 1
        if self._position == len(self._response.results) and self._open:
            await self._fetch()
        return self._decode(content)

    async def _fetch(self) -> None:
        self._open = False  # whatever happens to the request, there is nothing left to close
        request = chaincode_shim_pb2.QueryStateNext(id=self._response.id).SerializeToString()
        content = await self._ask(Message.QUERY_STATE_NEXT, request)
        self._response = chaincode_shim_pb2.QueryResponse.FromString(content)
        self._position = 0
        self._open = bool(self._response.has_more)

    async def aclose(self) -> None:
        """Close the iterator; a second time is nothing. What was not read stays unread."""
        query_id, self._position = self._response.id, len(self._response.results)
        if self._open:
            self._open = False
            request = chaincode_shim_pb2.QueryStateClose(id=query_id).SerializeToString()
            await self._ask(Message.QUERY_STATE_CLOSE, request)


def decode_state_entry(content: bytes) -> StateEntry:
    """Read one row of a range."""
    row: Any = kv_query_result_pb2.KV.FromString(content)
    return StateEntry(row.key, bytes(row.value))


def decode_key_modification(content: bytes) -> KeyModification:
    """Read one row of a key's history."""
    row: Any = kv_query_result_pb2.KeyModification.FromString(content)
    timestamp = row.timestamp.seconds * 1_000_000_000 + row.timestamp.nanos
    return KeyModification(row.tx_id, None if row.is_delete else bytes(row.value), timestamp)
