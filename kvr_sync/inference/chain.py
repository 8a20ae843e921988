"""A mapping proposed from the blocks of a chain, or from the ledger layer of a database that is filled already."""

from collections.abc import Callable, Iterator

from sqlalchemy import select

from kvr_sync.changes import extract_changes
from kvr_sync.decode import decode_block
from kvr_sync.engine import channel_of, first_block
from kvr_sync.errors import ConfigurationError
from kvr_sync.inference.proposal import Inference, write_mapping
from kvr_sync.model import Effect, LedgerKey, WriteKind
from kvr_sync.read import SyncedTables
from kvr_sync.source.block_source import BlockSource
from kvr_sync.verify import ChainVerifier

SYSTEM_NAMESPACES = frozenset({"_lifecycle", "lscc", "cscc", "qscc", "escc", "vscc", ""})
"""What Fabric itself writes; the ledger layer has it."""

Writes = Iterator[tuple[LedgerKey, bytes]]
Report = Callable[[int], None]
"""Called with the number of writes read so far."""


def infer_from_source(source: BlockSource, report: Report = lambda _: None) -> str:
    """Propose a mapping from the values that valid transactions of verified blocks wrote.

    Reads the source twice. Raises the errors of `kvr_sync.errors`; ConfigurationError where there is nothing to map.
    """
    _, block = first_block(source)
    channel = channel_of(block)
    return _infer(channel, lambda: _writes_of_source(source, channel), report)


def infer_from_tables(synced: SyncedTables, report: Report = lambda _: None) -> str:
    """Do the same from the ledger layer; verified is what the engine that filled it verified."""
    return _infer(synced.channel, lambda: _writes_of_tables(synced), report)


def _infer(channel: str, writes: Callable[[], Writes], report: Report) -> str:
    inference = Inference()
    read = 0
    for read, (key, _) in enumerate(writes(), start=1):
        inference.add_key(key.namespace, key.key)
        report(read)
    for number, (key, value) in enumerate(writes(), start=read + 1):
        inference.add_value(key.namespace, key.key, value)
        report(number)
    groups = inference.groups()
    if not groups:
        raise ConfigurationError(f"channel {channel}: no chaincode of it has written a public value yet")
    return write_mapping(channel, groups)


def _writes_of_source(source: BlockSource, channel: str) -> Writes:
    verifier = ChainVerifier(channel=channel)
    for raw in source.blocks(0):
        changes = extract_changes(verifier.verify(decode_block(raw.content), raw.content))
        for write in changes.writes:
            if write.kind is WriteKind.PUT and _is_wanted(write.key):
                yield write.key, write.value


def _writes_of_tables(synced: SyncedTables) -> Writes:
    key, history = synced.tables.key, synced.tables.key_history
    statement = (
        select(key.c.namespace, key.c.key, history.c.value)
        .join(key, key.c.key_id == history.c.key_id)
        .where(history.c.effect == int(Effect.PUT), key.c.collection == "")
        .order_by(history.c.block_number, history.c.tx_number, history.c.write_number)
        .execution_options(yield_per=1_000)
    )
    for namespace, name, value in synced.connection.execute(statement):
        ledger_key = LedgerKey(namespace, "", bytes(name))
        if _is_wanted(ledger_key):
            yield ledger_key, bytes(value)


def _is_wanted(key: LedgerKey) -> bool:
    return not key.collection and key.namespace not in SYSTEM_NAMESPACES
