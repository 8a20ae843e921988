"""A contract for tests of networks: it says who was asked, and can answer differently at different organisations.

What it is asked leaves a mark in a folder that all processes of the contract share; a real contract has no such thing.
"""

import os
from pathlib import Path

from chaincode.contract import Contract
from chaincode.contract.context import Context
from chaincode.errors import ContractError

contract = Contract("probe", "1.0")
FOLDER = Path(os.environ["KVR_TEST_PROBE_FOLDER"])


def _mark(name: str, msp_id: str) -> bool:
    """Note that this organisation's process was asked under a name; tell whether it had been before."""
    folder = FOLDER / name
    folder.mkdir(exist_ok=True)
    try:
        (folder / msp_id).touch(exist_ok=False)
    except FileExistsError:
        return True
    return False


@contract.transaction
async def put(context: Context, key: str, value: str) -> None:
    """Write a public key that was read before."""
    await context.stub.get_state(key)
    await context.stub.put_state(key, value.encode())


@contract.query
async def get(context: Context, key: str) -> bytes:
    """Read a public key."""
    return await context.stub.get_state(key) or b""


@contract.transaction
async def disagree_once(context: Context, name: str) -> bytes:
    """Write what differs between organisations when they are asked for the first time, and is the same later."""
    known = _mark(name, context.stub.peer_msp_id)
    value = b"agreed" if known else context.stub.peer_msp_id.encode()
    await context.stub.get_state(name)
    await context.stub.put_state(name, value)
    return value


@contract.transaction
async def note_private(context: Context, name: str) -> None:
    """Write the transient value `secret` to the collection `pair`, noting which organisations saw the proposal."""
    _mark(name, context.stub.peer_msp_id)
    await context.stub.get_private_data_hash("pair", name)
    await context.stub.put_private_data("pair", name, context.stub.transient["secret"])


@contract.query
async def get_private(context: Context, name: str) -> bytes:
    """Read a key of the collection `pair`."""
    return await context.stub.get_private_data("pair", name) or b""


@contract.query
async def get_private_hash(context: Context, name: str) -> bytes:
    """Read the hash of a value of the collection `pair`, which every peer has."""
    return await context.stub.get_private_data_hash("pair", name) or b""


class ProbeRefusalError(ContractError):
    """A refusal with the status that was asked for."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status  # type: ignore[misc]  # refusals of real contracts have one status per class


@contract.transaction
async def refuse(context: Context, status: int, message: str) -> None:
    """Answer with a status and a text."""
    del context
    raise ProbeRefusalError(status, message)


@contract.transaction
async def emit(context: Context, key: str, name: str, payload: str) -> None:
    """Write a key and set an event."""
    await context.stub.get_state(key)
    await context.stub.put_state(key, payload.encode())
    context.stub.set_event(name, payload.encode())


@contract.transaction
async def note_both(context: Context, name: str) -> None:
    """Write a public key, and the transient value `secret` to the collection `pair`."""
    _mark(name, context.stub.peer_msp_id)
    await context.stub.put_state(name, b"noted")
    await context.stub.put_private_data("pair", name, context.stub.transient["secret"])


@contract.transaction
async def keep_private(context: Context, collection: str, name: str) -> None:
    """Write the transient value `secret` to a collection."""
    await context.stub.put_private_data(collection, name, context.stub.transient["secret"])


@contract.transaction
async def purge_private(context: Context, collection: str, name: str) -> None:
    """Purge a key of a collection."""
    await context.stub.purge_private_data(collection, name)


@contract.query
async def read_private(context: Context, collection: str, name: str) -> bytes:
    """Read a key of a collection."""
    return await context.stub.get_private_data(collection, name) or b""
