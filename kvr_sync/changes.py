"""A verified block to its changes: who did what, and the writes of the valid transactions in ledger order. Pure.

Only transactions with the verdict VALID have writes and events here; every transaction has its facts. Reads, range
queries and responses change no state and are left where they are.
"""

from kvr_sync.model import BlockChanges, EventFacts, Write
from kvr_sync.verify import VerifiedBlock
from network.protocol.validation_code import VALID


def extract_changes(verified: VerifiedBlock) -> BlockChanges:
    """Give everything a verified block says, in ledger order; total: a verified block always has changes."""
    block = verified.block
    writes: list[Write] = []
    refused: list[Write] = []
    events: list[EventFacts] = []
    for transaction, code in zip(block.transactions, block.flags, strict=True):
        if code != VALID:
            refused += transaction.writes
            continue
        writes += transaction.writes
        if transaction.event is not None:
            events.append(transaction.event)
    return BlockChanges(
        block.header,
        verified.header_hash,
        block.flags,
        tuple([transaction.facts for transaction in block.transactions]),
        tuple(writes),
        tuple(refused),
        tuple(events),
        verified.config,
    )
