"""Blocks: header, envelopes, metadata, and the hashes that chain them.

Rules: `protoutil/blockutils.go` (BlockHeaderBytes, BlockHeaderHash, ComputeBlockDataHash), `common/common.proto`.
"""

from hashlib import sha256
from typing import NamedTuple

from network.protocol.transaction import Transaction

SLOT_SIGNATURES = 0
SLOT_LAST_CONFIG = 1
SLOT_TRANSACTIONS_FILTER = 2
SLOT_ORDERER = 3
SLOT_COMMIT_HASH = 4
SLOTS = 5


class BlockHeader(NamedTuple):
    """Number and the two hashes that an orderer's signature covers."""

    number: int
    previous_hash: bytes
    data_hash: bytes


class BlockFrame(NamedTuple):
    """A block with its envelopes as bytes; what the fields hold is said at `Block`."""

    header: BlockHeader
    envelopes: tuple[bytes, ...]
    metadata: tuple[bytes, ...]
    flags: bytes
    commit_hash: bytes | None


class Block(NamedTuple):
    """A decoded block.

    `envelopes` are the raw bytes that `data_hash` covers, `metadata` the raw slots; `transactions` has one entry for
    each envelope, decoded as far as it goes. `flags` (one validation code each) and `commit_hash` are the *peer's*
    word and are covered by no orderer's signature; `commit_hash` None: the block carries none.
    """

    header: BlockHeader
    envelopes: tuple[bytes, ...]
    metadata: tuple[bytes, ...]
    transactions: tuple[Transaction, ...]
    flags: bytes
    commit_hash: bytes | None


def _der(tag: int, content: bytes) -> bytes:
    length = len(content)
    if length < 0x80:
        return bytes((tag, length)) + content
    octets = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(octets))) + octets + content


def header_bytes(header: BlockHeader) -> bytes:
    """Encode a header as orderers sign it.

    DER SEQUENCE{INTEGER number, OCTET STRING previous, OCTET STRING data hash}.
    """
    number = header.number.to_bytes(header.number.bit_length() // 8 + 1, "big")
    return _der(0x30, _der(0x02, number) + _der(0x04, header.previous_hash) + _der(0x04, header.data_hash))


def header_hash(header: BlockHeader) -> bytes:
    """SHA-256 of the header bytes: the `previous_hash` of the next block (32 bytes)."""
    return sha256(header_bytes(header)).digest()


def data_hash(envelopes: tuple[bytes, ...]) -> bytes:
    """SHA-256 of the plainly joined envelopes (32 bytes). It does not cover where one ends and the next begins."""
    joined = sha256()
    for envelope in envelopes:
        joined.update(envelope)
    return joined.digest()
