"""What is known of a recorded chain besides its blocks, as `expected.json`: written from blocks and answers of peers.

The form is that of the chains that others recorded (`tests/vectors/README.md`).
"""

import base64
import json
from collections import Counter
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import zstandard
from fabric_protos.common import common_pb2

from network.protocol.decode import decode_block
from network.protocol.validation_code import VALID, validation_code_name
from tests.support.recorder.session import Session
from tests.support.recorder.topology import CALLED, CHAINCODE, ENTERPRISE, PEERS

LONG_VALUE_BYTES: Final = 1000
PRIVATE_KEYS: Final = 100
KEYS_AT_ONCE: Final = 200


async def write_expected(session: Session, folder: Path) -> None:
    """Ask the peers for every key that was ever written, and add what they say to a recording."""
    blocks = read_records(folder / "blocks.zst")
    answers: dict[str, Any] = json.loads((folder / "answers.json").read_text(encoding="utf-8"))
    transactions = list(_transactions(session, blocks))
    written = _written(blocks)
    expected = {
        "fabric": answers["fabric"],
        "consensus": answers["consensus"],
        "channel": answers["channel"],
        "chaincode": CHAINCODE,
        "height": answers["height"],
        "codes": dict(sorted(Counter(entry["code"] for entry in transactions).items())),
        "genesis_sha256": sha256(blocks[0]).hexdigest(),
        "transactions": transactions,
        "refused_by_the_orderer": session.refused,
        "state_base64": await _state(session, CHAINCODE, written.get(CHAINCODE, set())),
        "state_of_called_base64": await _state(session, CALLED, written.get(CALLED, set())),
        "private_state_as_each_peer_answers": await _private_state(session),
    }
    content = json.dumps(expected, ensure_ascii=False, indent=0)
    (folder / "expected.json").write_text(content + "\n", encoding="utf-8")


def read_records(path: Path) -> list[bytes]:
    """Read a file of records."""
    content = zstandard.ZstdDecompressor().stream_reader(path.read_bytes()).read()
    blocks, position = [], 0
    while position < len(content):
        length = int.from_bytes(content[position : position + 4], "big")
        blocks.append(content[position + 4 : position + 4 + length])
        position += 4 + length
    return blocks


def _transactions(session: Session, blocks: list[bytes]) -> Any:
    labels = {digest: list(found) for digest, found in session.labels.items()}
    for number, content in enumerate(blocks):
        block = common_pb2.Block.FromString(content)
        for position, envelope in enumerate(block.data.data):
            payload = common_pb2.Payload.FromString(common_pb2.Envelope.FromString(envelope).payload)
            header = common_pb2.ChannelHeader.FromString(payload.header.channel_header)
            known = labels.get(sha256(envelope).hexdigest())
            yield {
                "block": number,
                "tx": position,
                "tx_id": header.tx_id,
                "header_type": header.type,
                "code": validation_code_name(block.metadata.metadata[2][position]),
                "label": known.pop(0) if known else "",
            }


def _written(blocks: list[bytes]) -> dict[str, set[str]]:
    """Give the public keys that valid transactions wrote, by chaincode."""
    found: dict[str, set[str]] = {}
    for block in map(decode_block, blocks):
        for transaction, flag in zip(block.transactions, block.flags, strict=True):
            if transaction.action is not None and flag == VALID:
                for entry in transaction.action.writes:
                    found.setdefault(entry.namespace, set()).update(write.key for write in entry.writes)
    return found


async def _state(session: Session, chaincode: str, keys: set[str]) -> dict[str, str | None]:
    state: dict[str, str | None] = {}
    ordered = sorted(keys)
    for start in range(0, len(ordered), KEYS_AT_ONCE):
        some = ordered[start : start + KEYS_AT_ONCE]
        found = await session.ask([["get", key] for key in some], ENTERPRISE, chaincode)
        for key, value in zip(some, found, strict=True):
            state[base64.b64encode(key.encode()).decode()] = None if value is None else _shown(bytes.fromhex(value))
    return state


def _shown(value: bytes) -> str:
    if len(value) > LONG_VALUE_BYTES:
        return f"sha256:{sha256(value).hexdigest()}"
    return base64.b64encode(value).decode()


async def _private_state(session: Session) -> dict[str, str | None]:
    answers = {}
    for msp_id in PEERS:
        keys = sorted(session.private_keys)
        found = await session.ask([["pget", *key] for key in keys], msp_id)
        for (collection, key), value in zip(keys, found, strict=True):
            answer = value
            if isinstance(value, dict):
                answer = f"ERROR {value['error']}"
            elif value is not None:
                answer = base64.b64encode(bytes.fromhex(value)).decode()
            answers[f"{msp_id.removesuffix('MSP')}/{collection}/{key}"] = answer
    return answers
