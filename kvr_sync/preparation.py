"""A range of blocks, verified and turned into rows without the database: what worker processes do while catching up.

Only the plain case is prepared. A range ends before the first block that needs more than its own content and the rules
in force: a new configuration or chaincode definition, a write whose effect depends on older state, or anything that is
wrong. From there the engine goes on by itself, block by block, so that every error comes from one place.

What the preparation had to assume, the engine checks before it uses the result (`accept_range`): that the range follows
the checkpoint, under the configuration and the definitions in force there, and that every commit hash is what the peer
recorded.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from kvr_sync.changes import extract_changes
from kvr_sync.decode import decode_blocks
from kvr_sync.definitions import is_definition_write
from kvr_sync.errors import KvrSyncError
from kvr_sync.mapping.definition import Mapping as TableMapping
from kvr_sync.mapping.map import map_block
from kvr_sync.model import BlockChanges, Checkpoint, DecodedBlock, LedgerKey, ReplayedBlock
from kvr_sync.replay_state import StateReplay
from kvr_sync.store.encoding import DatabaseKind, encoding_for
from kvr_sync.store.rows import BlockRow, CopyTypes, Encoding, Row, Rows, RunBuilder, RunRows, list_builder
from kvr_sync.verify import ChainVerifier
from network.protocol.commit_hash import commit_hash_of, encode_updates
from network.protocol.errors import ProtocolError

if TYPE_CHECKING:
    from kvr_sync.store.copy_rows import RunPacker


class RangeContext(NamedTuple):
    """What a range is prepared under."""

    channel: str
    config_block: int
    config: bytes
    """ConfigEnvelope in force, which block `config_block` brought."""
    sequences: Mapping[str, int]
    """Of the chaincode definitions in force, of the chaincodes where the mapping asks for it."""
    definitions: int
    """How many definitions the engine has met; with each, the context is another one."""
    mapping: TableMapping
    kind: DatabaseKind
    copy_types: CopyTypes | None = None
    """Where the rows are to be packed."""


class PreparedBlock(NamedTuple):
    """What the engine needs to know of a prepared block."""

    number: int
    header_hash: bytes
    previous_hash: bytes
    data_hash: bytes
    flags: bytes
    encoded_updates: bytes
    recorded_commit_hash: bytes | None


class PreparedRange(NamedTuple):
    """The blocks of a range up to the first that is not plain, and their rows."""

    config_block: int
    definitions: int
    blocks: tuple[PreparedBlock, ...]
    rows: RunRows[Rows]
    quarantined: dict[str, int]
    """Values that go there, by reason."""


class RangePreparation:
    """Prepares ranges under one context."""

    def __init__(self, context: RangeContext) -> None:
        """Take the context; raises ConfigurationError when its configuration cannot be used."""
        start = Checkpoint(context.config_block, b"", None)
        self._verifier = ChainVerifier.resume(context.channel, start, context.config, context.config_block)
        self._context = context
        self._encoding = encoding_for(context.kind, context.mapping)

    def prepare(self, contents: Sequence[bytes]) -> PreparedRange:
        """Prepare serialised blocks as far as they are plain; total."""
        rows = _builder(self._encoding, self._context.copy_types)
        quarantined: Counter[str] = Counter()
        blocks: list[PreparedBlock] = []
        replay = StateReplay(_need_state, None)
        for block, changes in self._plain_blocks(contents):
            try:
                writes, updates = replay.effects(changes)
            except _StateNeededError:
                break
            if any(is_definition_write(write) for write in writes):
                break
            replayed = ReplayedBlock(changes, writes, None, commit_hash_verified=False)
            batch = map_block(replayed, self._context.mapping, sequences=self._context.sequences)
            rows.add(batch)
            quarantined.update(entry.reason for entry in batch.quarantined)
            header = block.header
            blocks.append(
                PreparedBlock(
                    header.number,
                    changes.header_hash,
                    header.previous_hash,
                    header.data_hash,
                    block.flags,
                    encode_updates(updates),
                    block.commit_hash,
                )
            )
        return PreparedRange(
            self._context.config_block,
            self._context.definitions,
            tuple(blocks),
            rows.run(),
            dict(quarantined),
        )

    def _plain_blocks(self, contents: Sequence[bytes]) -> Iterator[tuple[DecodedBlock, BlockChanges]]:
        """Decode and verify as far as nothing is wrong and no configuration is new."""
        verifier: ChainVerifier | None = None
        blocks = decode_blocks(contents)
        for content in contents:
            try:
                block = next(blocks)
                if verifier is None:
                    # That this is the position of the chain is looked at in `accept_range`.
                    before = Checkpoint(block.header.number - 1, block.header.previous_hash, None)
                    verifier = self._verifier.moved_to(before)
                verified = verifier.verify(block, content)
            except (KvrSyncError, ProtocolError):
                return
            if verified.config is not None:
                return
            yield block, extract_changes(verified)


def _builder(encoding: Encoding, types: CopyTypes | None) -> "RunBuilder[list[Row]] | RunPacker":
    if types is None:
        return list_builder(encoding)
    from kvr_sync.store.copy_rows import RunPacker  # noqa: PLC0415  who writes to SQLite does not wait for psycopg

    return RunPacker(encoding, types)


def accept_range(
    prepared: PreparedRange, position: Checkpoint, config_block: int, definitions: int, first_seen: Sequence[int]
) -> list[BlockRow] | None:
    """Give the rows of `ledger_block` for a range that follows `position`; None when it cannot be used as it is.

    `config_block` and `definitions` are those in force there; `first_seen` has an entry for each block. Derives the
    commit hash of every block and compares it with the recorded one.
    """
    if (prepared.config_block, prepared.definitions) != (config_block, definitions) or not prepared.blocks:
        return None
    number, header_hash, commit_hash = position
    rows = []
    for block, seen in zip(prepared.blocks, first_seen[: len(prepared.blocks)], strict=True):
        if block.number != number + 1 or block.previous_hash != header_hash:
            return None
        commit_hash = commit_hash_of(block.flags, block.encoded_updates, commit_hash)
        recorded = block.recorded_commit_hash
        if recorded is not None and recorded != commit_hash:
            return None
        number, header_hash = block.number, block.header_hash
        rows.append(
            BlockRow(
                number,
                header_hash,
                block.previous_hash,
                block.data_hash,
                commit_hash,
                recorded is not None,
                len(block.flags),
                seen,
            )
        )
    return rows


class _StateNeededError(Exception):
    pass


def _need_state(_keys: Iterable[LedgerKey]) -> NoReturn:
    raise _StateNeededError
