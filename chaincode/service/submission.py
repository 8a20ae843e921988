"""Request keys: whoever sends the same request twice gets the first answer, and nothing is written twice.

The record of a request key stands beside what it guards: in public state, or in the collection of a private write, as
a private-only transaction must not touch public state. Keys of one organisation do not meet those of another.
"""

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from functools import wraps
from typing import Any

from chaincode.contract.codec import encode_json
from chaincode.contract.context import Context
from chaincode.errors import ConflictError
from chaincode.service.record import SCHEMA, Document, check_identifier, decode_record, encode_record
from chaincode.shim.composite_key import create_composite_key


def written_at_once(function: Callable[..., Awaitable[Document]]) -> Callable[..., Awaitable[Document]]:
    """Have all that a function writes go to the peer in one request, when it has returned."""

    @wraps(function)
    async def written(context: Context, *arguments: Any) -> Document:  # noqa: ANN401  # of the function's own types
        async with context.stub.write_batch():
            return await function(context, *arguments)

    return written


class Submission:
    """One use of a request key. `read`: the values of the keys that were read with it, None where there is none."""

    def __init__(  # what a use consists of
        self,
        context: Context,
        key: str,
        collection: str,
        first: Document | None,
        digest: str,
        read: Sequence[bytes | None] = (),
    ) -> None:
        self._context = context
        self._key = key
        self._collection = collection
        self._digest = digest
        self.first_result: Any = None if first is None else first["result"]
        self.is_repeated = first is not None
        self.read = tuple(read)

    async def finish(self, result: Document) -> Document:
        """Record the result under the request key and give it."""
        record = encode_record({"digest": self._digest, "result": result, "schema": SCHEMA})
        stub = self._context.stub
        if self._collection:
            await stub.put_private_data(self._collection, self._key, record)
        else:
            await stub.put_state(self._key, record)
        return result


async def begin_submission(
    context: Context, request_key: str, content: list[Any], *, reads: Sequence[str] = ()
) -> Submission:
    """Look the request key up, and in the same request the public keys `reads`, whose values the function goes by.

    Raises ConflictError when the request key was used with other content.
    """
    key, digest = _key(context, request_key), _digest(context, content)
    found, *read = await context.stub.get_states([key, *reads])
    return Submission(context, key, "", _first(found, digest), digest, read)


async def begin_private_submission(
    context: Context, request_key: str, content: list[Any], collection: str
) -> Submission:
    """Look the request key of a private write up in its collection; raises as `begin_submission`."""
    key, digest = _key(context, request_key), _digest(context, content)
    found = await context.stub.get_private_data(collection, key)
    return Submission(context, key, collection, _first(found, digest), digest)


def _key(context: Context, request_key: str) -> str:
    check_identifier(request_key, "request_key")
    return create_composite_key("submission", [context.client.msp_id, request_key])


def _digest(context: Context, content: list[Any]) -> str:
    return hashlib.sha256(encode_json([context.function, *content])).hexdigest()


def _first(found: bytes | None, digest: str) -> Document | None:
    first = None if found is None else decode_record(found)
    if first is not None and first["digest"] != digest:
        raise ConflictError("this request key was used for another request")
    return first
