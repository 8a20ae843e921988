"""The transactions of the recorded service week, over and over, each time with ids, customers and amounts of its own.

A round repeats every chaincode transaction of the recorded week in its order: the same documents, number of public and
hashed writes, events and reads. Where one lost a race or had too few endorsements, its repetition does so again: it
reads the version before the last, or has one endorsement.

Nobody can read what was written in the same block. So a busy block has one transaction each of many rounds that go on
side by side, which began at different moments of the week. Each follows from its place alone, whatever was made before
it: any number of processes can make them.
"""

import re
from dataclasses import replace
from functools import cache
from typing import NamedTuple

from network.protocol.decode import decode_block
from network.protocol.read_write_set import Version
from network.protocol.transaction import Transaction
from network.protocol.validation_code import MVCC_READ_CONFLICT, VALID
from tests.support.chain_factory import TransactionSpec, WriteSpec
from tests.support.recorded_chain import load_chain

WEEK = "fabric-3.1.5-service-week"
CHAINCODE = "ext"
CUSTOMER = b"CustomerMSP"

_REQUEST = re.compile(rb"R-2026-(\d{4})")
_CUSTOMER = re.compile(rb"\bC(\d{4})\b")
_AMOUNT = re.compile(rb'("amount_cents": )(\d+)')
_READING = (b"rmw", b"delete")


class _Writer(NamedTuple):
    """A valid transaction that wrote a key, by its place in the week."""

    place: int
    is_delete: bool


class _Recorded(NamedTuple):
    transaction: Transaction
    code: int
    writers: dict[str, _Writer | None]
    """Of every key read, by its name in the recorded week: who wrote what was read."""


def transaction(block: int, lane: int, lanes: int, first_block: int) -> TransactionSpec:
    """Make a transaction, with the verdict it is bound to get.

    `block` counts from 0 where the week begins, at number `first_block` of the chain; `lane`: its place in the block,
    of `lanes`.
    """
    week = recorded_week()
    begins = _beginnings()[lane * len(_beginnings()) // lanes]
    rounds, place = divmod(begins + block, len(week))
    number = rounds * lanes + lane
    recorded = week[place]
    reads: list[tuple[str, Version | None]] = []
    for key, writer in recorded.writers.items():
        written = -1 if writer is None or writer.is_delete else block - (place - writer.place)
        version = Version(first_block + written, lane) if written >= 0 else None
        reads.append((_key_with_ids(key, number), version))
    return replace(_repeat(recorded.transaction, recorded.code, number), reads=reads)


@cache
def recorded_week() -> tuple[_Recorded, ...]:
    """Give the chaincode transactions of the recorded week, and who wrote what they read."""
    found = [
        (transaction, block.flags[transaction.tx_number])
        for block in map(decode_block, load_chain(WEEK).blocks)
        for transaction in block.transactions
        if transaction.action and transaction.action.chaincode and transaction.action.chaincode.name == CHAINCODE
    ]
    written: dict[str, list[_Writer]] = {}
    week = []
    for place, (transaction, code) in enumerate(found):
        week.append(_Recorded(transaction, code, _writers(transaction, code, written)))
        for key, is_delete in _public_writes(transaction) if code == VALID else ():
            written.setdefault(key, []).append(_Writer(place, is_delete))
    return tuple(week)


@cache
def _beginnings() -> tuple[int, ...]:
    """Give the places at which a round may begin: before any but those that lost a race, which follow who won it."""
    return tuple([place for place, recorded in enumerate(recorded_week()) if recorded.code != MVCC_READ_CONFLICT])


def _writers(transaction: Transaction, code: int, written: dict[str, list[_Writer]]) -> dict[str, _Writer | None]:
    """Find out whom a transaction reads: who wrote last, or, for one that lost a race, who wrote before that."""
    if transaction.action is None or transaction.action.function not in _READING:
        return {}
    nth = 2 if code == MVCC_READ_CONFLICT else 1
    found = {key: written.get(key, []) for key, _ in _public_writes(transaction)}
    return {key: writers[-nth] if len(writers) >= nth else None for key, writers in found.items()}


def _public_writes(transaction: Transaction) -> list[tuple[str, bool]]:
    """Give the keys that a transaction writes, and whether it deletes them."""
    entries = () if transaction.action is None else transaction.action.writes
    return [(key, delete) for name, public, *_ in entries if name == CHAINCODE for key, delete, _ in public]


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
            writes.append(WriteSpec(_key_with_ids(key, number), None if is_delete else _with_ids(value, number)))
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
        function=action.function or b"",
        arguments=arguments,
        event=(event.name, _with_ids(event.payload, number)) if event else None,
        organisation=int(CUSTOMER in transaction.creator[:20]),
        endorsers=len(action.endorsements),
    )


def _key_with_ids(key: str, number: int) -> str:
    return _with_ids(key.encode(), number).decode()


def _with_ids(content: bytes, number: int) -> bytes:
    content = _REQUEST.sub(rb"R-%04d-\1" % (number + 1), content)
    content = _CUSTOMER.sub(rb"C%03d\1" % number, content)
    return _AMOUNT.sub(lambda match: match[1] + b"%d" % (int(match[2]) + number), content)
