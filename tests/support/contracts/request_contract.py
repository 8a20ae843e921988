"""A contract that asks its peer whatever it is told to, and answers with all that the peer answered."""

import json
from typing import Any

from fabric_protos.peer import chaincode_shim_pb2

from chaincode.contract import Contract
from chaincode.contract.context import Context
from chaincode.errors import PeerRefusedError

contract = Contract("requests", "1.0")
Message = chaincode_shim_pb2.ChaincodeMessage


@contract.transaction
async def ask(context: Context, script: str) -> bytes:
    """Send requests one after the other, each a name and its payload in hex, or the place of an answer to go on from.

    Gives an answer in hex, or the words of the refusal, for each.
    """
    answers: list[dict[str, str]] = []
    for name, payload in json.loads(script):
        content = bytes.fromhex(payload) if isinstance(payload, str) else _iterator(answers[payload])
        try:
            # All that a peer can be asked, whether the stub would or not.
            answer = await context.stub._ask(Message.Type.Value(name), content)  # noqa: SLF001  # any request at all
        except PeerRefusedError as error:
            answers.append({"refused": error.text})
        else:
            answers.append({"answer": answer.hex()})
    return json.dumps(answers).encode()


def _iterator(answer: dict[str, Any]) -> bytes:
    found = chaincode_shim_pb2.QueryResponse.FromString(bytes.fromhex(answer["answer"]))
    return bytes(chaincode_shim_pb2.QueryStateNext(id=found.id).SerializeToString())


@contract.transaction
async def put_many(context: Context, prefix: str, count: int, collection: str = "") -> None:
    """Write keys of a prefix together, with their numbers as values, to a collection where one is named."""
    async with context.stub.write_batch():
        for number in range(count):
            key, value = f"{prefix}{number:04d}", b"%d" % number
            if collection:
                await context.stub.put_private_data(collection, key, value)
            else:
                await context.stub.put_state(key, value)


@contract.query
async def sum_many(context: Context, prefix: str, count: int, collection: str = "") -> int:
    """Read keys of a prefix together, and give the sum of their values."""
    keys = [f"{prefix}{number:04d}" for number in range(count)]
    if collection:
        values = await context.stub.get_multiple_private_data(collection, keys)
    else:
        values = await context.stub.get_states(keys)
    return sum(int(value) for value in values if value is not None)
