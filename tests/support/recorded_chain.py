"""The chains recorded from real Fabric networks, read without any code of the product, and ways to spoil them."""

import base64
import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import zstandard
from fabric_protos.common import common_pb2

VECTORS = Path(__file__).parents[1] / "vectors"
CHAINS = ("fabric-3.1.5-raft", "fabric-3.1.5-bft", "fabric-3.1.5-service-week")
"""Recorded by others."""
OWN_CHAINS = ("kvr-3.1.5-raft", "kvr-3.1.5-bft", "kvr-2.5.16-raft")
"""Recorded by `make record-chains`."""
ALL_CHAINS = (*CHAINS, *OWN_CHAINS)


@dataclass(frozen=True)
class RecordedChain:
    """One recorded chain: its blocks as bytes, and what the real network answered about it."""

    name: str
    blocks: tuple[bytes, ...]
    expected: dict[str, Any]

    @property
    def path(self) -> Path:
        return VECTORS / self.name / "blocks.zst"

    @property
    def state(self) -> dict[bytes, bytes | str | None]:
        """What the peer answered for every public key ever written.

        Long values as `sha256:...` text, absent ones None.
        """
        return {base64.b64decode(key): _state_value(value) for key, value in self.expected["state_base64"].items()}


def _state_value(value: str | None) -> bytes | str | None:
    if value is None or value.startswith("sha256:"):
        return value
    return base64.b64decode(value)


@cache
def load_chain(name: str) -> RecordedChain:
    """Read a chain by its folder name."""
    content = zstandard.ZstdDecompressor().stream_reader((VECTORS / name / "blocks.zst").read_bytes()).read()
    blocks = []
    position = 0
    while position < len(content):
        (length,) = struct.unpack_from(">I", content, position)
        blocks.append(content[position + 4 : position + 4 + length])
        position += 4 + length
    return RecordedChain(name, tuple(blocks), json.loads((VECTORS / name / "expected.json").read_text()))


def change_block(content: bytes, change: Callable[[Any], None]) -> bytes:
    """Give the block's bytes after a change to its message."""
    block = common_pb2.Block.FromString(content)
    change(block)
    return bytes(block.SerializeToString())


def without_commit_hash(content: bytes) -> bytes:
    """Give the block without what its peer recorded as commit hash."""

    def clear(block: Any) -> None:
        block.metadata.metadata[4] = b""

    return change_block(content, clear)


def write_records(path: Path, blocks: list[bytes] | tuple[bytes, ...]) -> Path:
    """Write blocks as a file of records, uncompressed."""
    path.write_bytes(b"".join(struct.pack(">I", len(block)) + block for block in blocks))
    return path
