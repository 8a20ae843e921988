"""The script contract on our runtime: what go_shim/ does on Fabric's Go shim, operation by operation."""

import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

from chaincode.contract.codec import encode_json
from chaincode.contract.context import Context
from chaincode.contract.registration import Contract
from chaincode.errors import InvalidArgumentError, PeerRefusedError, ShimError
from chaincode.shim.composite_key import create_composite_key, split_composite_key
from chaincode.shim.handler import Answer
from chaincode.shim.iterator import ResultIterator, StateEntry, StatePage
from chaincode.shim.key_policy import peers_policy
from chaincode.shim.stub import Stub

contract = Contract("judge", "1.0")
_Step = list[Any]


async def chaincode(stub: Stub) -> Answer:
    """Answer as given when `status` is called, below the contract layer; everything else is the contract's."""
    if stub.arguments[:1] != (b"status",):
        return await contract(stub)
    status, message, payload, event = (argument.decode() for argument in stub.arguments[1:])
    if event:
        stub.set_event(event, f"payload of {event}".encode())
    return Answer(int(status), payload.encode(), message)


@contract.transaction
async def run(context: Context, script: str) -> bytes:
    """Run the operations of a script; one that fails is told as such, and the next one runs."""
    return encode_json(await _Script(context, texts=False).run(_decoded(script)))


@contract.transaction
async def texts(context: Context, script: str) -> bytes:
    """Run a script, telling what failures say."""
    return encode_json(await _Script(context, texts=True).run(_decoded(script)))


def _decoded(script: str) -> list[_Step]:
    try:
        steps: list[_Step] = json.loads(script)
    except ValueError as error:
        raise InvalidArgumentError("no script") from error
    return steps


class _Script:
    def __init__(self, context: Context, *, texts: bool) -> None:
        self._context = context
        self._stub = context.stub
        self._texts = texts

    async def run(self, steps: Sequence[_Step]) -> list[object]:
        return [await self._result(step) for step in steps]

    async def _result(self, step: _Step) -> object:
        name, *arguments = step
        try:
            operation = getattr(self, f"do_{name}")
        except AttributeError:
            return self._failure("no such operation")
        try:
            return await operation(*arguments)
        except PeerRefusedError as error:
            return self._failure(error.text)
        except ShimError as error:
            return self._failure(str(error))

    def _failure(self, text: str) -> object:
        return {"error": text if self._texts else True}

    # --- public state

    async def do_get(self, key: str) -> object:
        return _value(await self._stub.get_state(key))

    async def do_gets(self, keys: list[str]) -> object:
        return [_value(value) for value in await self._stub.get_states(keys)]

    async def do_put(self, key: str, value: str) -> object:
        await self._stub.put_state(key, value.encode())
        return True

    async def do_del(self, key: str) -> object:
        await self._stub.delete_state(key)
        return True

    async def do_put_many(self, prefix: str, count: int, value: str) -> object:
        for number in range(count):
            await self._stub.put_state(f"{prefix}{number:04d}", value.encode())
        return True

    async def do_range(self, start: str, end: str, limit: int = 0) -> object:
        return await _rows(await self._stub.get_state_by_range(start, end), limit)

    async def do_page(self, start: str, end: str, size: int, bookmark: str) -> object:
        return _page(await self._stub.get_state_page(start, end, size, bookmark))

    async def do_put_composite(self, object_type: str, attributes: list[str], value: str) -> object:
        await self._stub.put_state(create_composite_key(object_type, attributes), value.encode())
        return True

    async def do_split(self, object_type: str, attributes: list[str]) -> object:
        found = split_composite_key(create_composite_key(object_type, attributes))
        return {
            "type": found.object_type.encode().hex(),
            "attributes": [attribute.encode().hex() for attribute in found.attributes],
        }

    async def do_partial(self, object_type: str, attributes: list[str], limit: int = 0) -> object:
        return await _rows(await self._stub.get_state_by_partial_composite_key(object_type, attributes), limit)

    async def do_partial_page(self, object_type: str, attributes: list[str], size: int, bookmark: str) -> object:
        return _page(await self._stub.get_composite_key_page(object_type, attributes, size, bookmark))

    async def do_all_composite_page(self, size: int, bookmark: str) -> object:
        return _page(await self._stub.get_all_composite_keys_page(size, bookmark))

    async def do_history(self, key: str) -> object:
        async with await self._stub.get_history_for_key(key) as rows:
            return [[row.tx_id, _value(row.value, deleted=row.value is None), row.timestamp] async for row in rows]

    async def do_query(self, query: str) -> object:
        return await _rows(await self._stub.get_query_result(query), 0)

    async def do_query_page(self, query: str, size: int, bookmark: str) -> object:
        return _page(await self._stub.get_query_page(query, size, bookmark))

    # --- private data

    async def do_pget(self, collection: str, key: str) -> object:
        return _value(await self._stub.get_private_data(collection, key))

    async def do_pgets(self, collection: str, keys: list[str]) -> object:
        return [_value(value) for value in await self._stub.get_multiple_private_data(collection, keys)]

    async def do_phash(self, collection: str, key: str) -> object:
        return _value(await self._stub.get_private_data_hash(collection, key))

    async def do_pput(self, collection: str, key: str, value: str) -> object:
        await self._stub.put_private_data(collection, key, value.encode())
        return True

    async def do_pput_transient(self, collection: str, key: str, name: str) -> object:
        await self._stub.put_private_data(collection, key, self._stub.transient.get(name, b""))
        return True

    async def do_pdel(self, collection: str, key: str) -> object:
        await self._stub.delete_private_data(collection, key)
        return True

    async def do_ppurge(self, collection: str, key: str) -> object:
        await self._stub.purge_private_data(collection, key)
        return True

    async def do_prange(self, collection: str, start: str, end: str, limit: int = 0) -> object:
        return await _rows(await self._stub.get_private_data_by_range(collection, start, end), limit)

    async def do_ppartial(self, collection: str, object_type: str, attributes: list[str], limit: int = 0) -> object:
        rows = await self._stub.get_private_data_by_partial_composite_key(collection, object_type, attributes)
        return await _rows(rows, limit)

    async def do_pquery(self, collection: str, query: str) -> object:
        return await _rows(await self._stub.get_private_data_query_result(collection, query), 0)

    # --- policies of keys

    async def do_policy(self, key: str) -> object:
        return _value(await self._stub.get_state_validation_parameter(key))

    async def do_set_policy(self, key: str, policy: list[str] | str) -> object:
        await self._stub.set_state_validation_parameter(key, _policy(policy))
        return True

    async def do_ppolicy(self, collection: str, key: str) -> object:
        return _value(await self._stub.get_private_data_validation_parameter(collection, key))

    async def do_set_ppolicy(self, collection: str, key: str, policy: list[str] | str) -> object:
        await self._stub.set_private_data_validation_parameter(collection, key, _policy(policy))
        return True

    # --- the rest

    async def do_event(self, name: str, payload: str) -> object:
        self._stub.set_event(name, payload.encode())
        return True

    async def do_invoke(self, name: str, arguments: list[str], channel: str) -> object:
        response = await self._stub.invoke_chaincode(name, [argument.encode() for argument in arguments], channel)
        return {"status": response.status, "message": response.message, "payload": response.payload.hex()}

    async def do_batch(self, steps: list[_Step]) -> object:
        async with self._stub.write_batch():
            return await self.run(steps)

    async def do_peer(self) -> object:
        return self._stub.peer_msp_id

    async def do_facts(self) -> object:
        stub = self._stub
        return {
            "arguments": [argument.hex() for argument in stub.arguments],
            "binding": stub.binding.hex(),
            "channel": stub.channel_id,
            "creator": sha256(stub.creator).hexdigest(),
            "timestamp": stub.timestamp,
            "transient": _by_name(stub.transient),
            "tx_id": stub.tx_id,
        }

    async def do_input(self) -> object:
        proposal = self._stub.signed_proposal
        return {
            "decorations": _by_name(self._stub.decorations),
            "proposal": sha256(proposal.proposal_bytes).hexdigest(),
            "signature": sha256(proposal.signature).hexdigest(),
        }

    async def do_client(self, attribute: str) -> object:
        client = self._context.client
        written = b64encode(client.id.encode()).decode()
        return {"id": written, "msp_id": client.msp_id, "attribute": client.attributes.get(attribute)}


def _policy(given: list[str] | str) -> bytes:
    return peers_policy(given) if isinstance(given, list) else bytes.fromhex(given)


def _value(value: bytes | None, *, deleted: bool = False) -> str | None:
    return None if deleted or not value else value.hex()


async def _rows(iterator: ResultIterator[StateEntry], limit: int) -> object:
    found: list[list[str]] = []
    async with iterator as entries:
        async for entry in entries:
            found.append(_entry(entry))
            if len(found) == limit:
                break
    return found


def _page(page: StatePage) -> object:
    rows = [_entry(entry) for entry in page.entries]
    return {"rows": rows, "bookmark": page.bookmark.encode().hex(), "fetched": page.fetched}


def _entry(entry: StateEntry) -> list[str]:
    return [entry.key.encode().hex(), entry.value.hex()]


def _by_name(contents: Mapping[str, bytes]) -> dict[str, str]:
    return {name: content.hex() for name, content in contents.items()}
