"""A long chain in the shapes of the recorded service week: its transactions over and over, each time with other ids.

One round repeats every chaincode transaction of the recorded week in its order: the same documents with ids, customers
and amounts of their own, the same number of public and hashed writes, events and reads, the same verdicts. Blocks are
packed full, as a busy network's are, where the recorded week has nearly one for each transaction.
"""

import os
import re
import struct
from collections.abc import Iterator
from dataclasses import replace
from itertools import count, islice
from pathlib import Path
from typing import NamedTuple

import zstandard

from network.protocol.decode import decode_block
from network.protocol.read_write_set import Version
from network.protocol.transaction import Transaction
from network.protocol.validation_code import VALID
from tests.support.chain_factory import ChainFactory, TransactionSpec, WriteSpec
from tests.support.recorded_chain import load_chain

GENERATOR_VERSION = 1
"""To be raised with every change of what is made from the same parameters; it names the cached file."""

WEEK = "fabric-3.1.5-service-week"
CHAINCODE = "ext"

_REQUEST = re.compile(rb"R-2026-(\d{4})")
_CUSTOMER = re.compile(rb"\bC(\d{4})\b")
_AMOUNT = re.compile(rb'("amount_cents": )(\d+)')


class Parameters(NamedTuple):
    """What a chain follows from: transactions besides the genesis block's one, and how many of them share a block."""

    transactions: int
    per_block: int

    @property
    def file_name(self) -> str:
        """Name of the cached file."""
        return f"service-week-v{GENERATOR_VERSION}-{self.transactions}-by-{self.per_block}.zst"


def cache_folder() -> Path:
    """Give the folder of generated chains: `$XDG_CACHE_HOME/kvr/bench`, by default below `~/.cache`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kvr" / "bench"


def cached_chain(parameters: Parameters, folder: Path) -> tuple[Path, bool]:
    """Give the file of a chain, as records in zstandard; say whether it had to be made now."""
    path = folder / parameters.file_name
    if path.exists():
        return path, False
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(f".{os.getpid()}.unfinished")
    try:
        with unfinished.open("wb") as file, zstandard.ZstdCompressor(level=3).stream_writer(file) as out:
            for content in blocks(parameters):
                out.write(struct.pack(">I", len(content)))
                out.write(content)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return path, True


def blocks(parameters: Parameters) -> Iterator[bytes]:
    """Make the blocks one by one; the same parameters give the same bytes."""
    factory = ChainFactory(seed=2026)
    yield factory.genesis()
    specs = islice(_transactions(), parameters.transactions)
    versions: dict[str, Version] = {}
    while chosen := list(islice(specs, parameters.per_block)):
        number = factory.height
        readied = []
        for tx_number, spec in enumerate(chosen):
            reads = [(key, versions.get(key)) for key, _ in spec.reads]
            readied.append(replace(spec, reads=reads))
            if spec.code == VALID:
                versions.update(
                    {write.key: Version(number, tx_number) for write in spec.writes if not write.collection}
                )
        yield factory.block(readied)
        factory.blocks[-1] = b""  # nobody asks for it again, and a long chain is larger than some memories


def _transactions() -> Iterator[TransactionSpec]:
    recorded = [
        (transaction, block.flags[transaction.tx_number])
        for block in map(decode_block, load_chain(WEEK).blocks)
        for transaction in block.transactions
        if transaction.action and transaction.action.chaincode and transaction.action.chaincode.name == CHAINCODE
    ]
    for number in count():
        for transaction, code in recorded:
            yield _repeat(transaction, code, number)


def _repeat(transaction: Transaction, code: int, number: int) -> TransactionSpec:
    """Make a transaction of the shape of a recorded one, with the ids of a round."""
    action = transaction.action
    if action is None:
        raise ValueError("only chaincode transactions can be repeated")
    writes = []
    for namespace, public, _, collections in action.writes:
        if namespace != CHAINCODE:
            continue
        for key, is_delete, value in public:
            repeated_key = _with_ids(key.encode(), number).decode()
            writes.append(WriteSpec(repeated_key, None if is_delete else _with_ids(value, number)))
        for collection in collections:
            # The recorded block has the hashes alone; any key and value stand behind ours.
            writes.extend(
                WriteSpec(
                    f"{hashed.key_hash.hex()}-{number}",
                    None if hashed.is_delete else f"{hashed.value_hash.hex()}-{number}".encode(),
                    collection.collection,
                    is_purge=hashed.is_purge,
                )
                for hashed in collection.writes
            )
    event = action.event
    arguments = [part for write in writes if not write.collection for part in (write.key.encode(), write.value or b"")]
    return TransactionSpec(
        writes,
        code,
        reads=[(write.key, None) for write in writes if action.function in (b"rmw", b"delete")],
        function=action.function or b"",
        arguments=arguments,
        event=(event.name, _with_ids(event.payload, number)) if event else None,
        organisation=int(b"CustomerMSP" in transaction.creator[:20]),
        endorsers=len(action.endorsements),
    )


def _with_ids(content: bytes, number: int) -> bytes:
    content = _REQUEST.sub(rb"R-%04d-\1" % (number + 1), content)
    content = _CUSTOMER.sub(rb"C%03d\1" % number, content)
    return _AMOUNT.sub(lambda match: match[1] + b"%d" % (int(match[2]) + number), content)
