"""Range queries in a read set: what a transaction records of a range, and whether the record still holds.

Up to `MAX_DEGREE` results are recorded as they are; more are condensed, while they come, to a Merkle summary that
keeps at most `MAX_DEGREE` hashes of one level.

Rules: `core/ledger/kvledger/txmgmt/rwsetutil/query_results_helper.go` (summary),
`core/ledger/kvledger/txmgmt/txmgr/query_executor.go` (record),
`core/ledger/kvledger/txmgmt/validation/rangequery_validator.go` (check).
"""

from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import NamedTuple

from fabric_protos.ledger.rwset.kvrwset import kv_rwset_pb2

from network.protocol.read_write_set import KeyRead, RangeQuery

MAX_DEGREE = 50
"""Results recorded as they are, and hashes kept on one level (`query_executor.go`, maxDegreeQueryReadsHashing)."""

_SMALLEST_DEGREE = 2
_LEAF_LEVEL = 1


class MerkleSummary(NamedTuple):
    """Degree, highest level and the hashes of that level, as `RangeQuery.merkle_summary` holds them."""

    max_degree: int
    max_level: int
    hashes: tuple[bytes, ...]


class RangeReads:
    """The results of one range, recorded one by one in the order of their keys; holds few hashes, not all results.

    Raises ValueError for a degree below 2, as Fabric does.
    """

    def __init__(self, max_degree: int = MAX_DEGREE) -> None:
        if max_degree < _SMALLEST_DEGREE:
            message = f"degree {max_degree} of a Merkle summary is below {_SMALLEST_DEGREE}"
            raise ValueError(message)
        self._max_degree = max_degree
        self._pending: list[KeyRead] = []
        self._levels: dict[int, list[bytes]] = {}
        self._max_level = _LEAF_LEVEL

    def add(self, read: KeyRead) -> None:
        """Record the next result of the range."""
        self._pending.append(read)
        if len(self._pending) > self._max_degree:
            self._hash_pending()

    def summary_so_far(self) -> MerkleSummary:
        """Give the highest level as it is now: later results append to it or replace it by a higher level."""
        return MerkleSummary(self._max_degree, self._max_level, tuple(self._levels.get(self._max_level, ())))

    def finish(self) -> tuple[tuple[KeyRead, ...] | None, MerkleSummary | None]:
        """Give what is recorded: the reads, or their summary; neither when there was no result. To be called once."""
        if not self._levels:
            return tuple(self._pending) or None, None
        if self._pending:
            self._hash_pending()
        self._close_levels()
        return None, self.summary_so_far()

    def _hash_pending(self) -> None:
        leaf = sha256(_encode_reads(self._pending)).digest()
        self._pending = []
        self._append(_LEAF_LEVEL, leaf)
        level = _LEAF_LEVEL
        while len(self._levels[level]) > self._max_degree:
            self._append(level + 1, _combine(self._levels.pop(level)))
            level += 1

    def _append(self, level: int, value: bytes) -> None:
        self._levels.setdefault(level, []).append(value)
        self._max_level = max(self._max_level, level)

    def _close_levels(self) -> None:
        """Lift what is left on lower levels: one hash as it is, several as one."""
        for level in range(_LEAF_LEVEL, self._max_level):
            left = self._levels.pop(level, [])
            if left:
                self._append(level + 1, left[0] if len(left) == 1 else _combine(left))
        if len(self._levels[self._max_level]) > self._max_degree:
            self._append(self._max_level + 1, _combine(self._levels.pop(self._max_level)))


def record_range_query(start_key: str, end_key: str, *, exhausted: bool, reads: Iterable[KeyRead]) -> RangeQuery:
    """Make the record of a range from everything that was fetched of it.

    `end_key` is the end as asked when the range ran dry (`exhausted`), else the last key fetched.
    """
    results = RangeReads()
    for read in reads:
        results.add(read)
    raw_reads, summary = results.finish()
    return RangeQuery(start_key, end_key, exhausted, raw_reads, summary)


def includes_end_key(recorded: RangeQuery) -> bool:
    """Tell whether the range to read again ends with `end_key` (it was fetched) or before it (it was asked for).

    An exhausted range with an empty end key has no end (`core/ledger/kvledger/txmgmt/validation/validator.go`,
    validateRangeQuery).
    """
    return not recorded.exhausted


def range_query_holds(recorded: RangeQuery, results: Iterable[KeyRead]) -> bool:
    """Tell whether reading the range again finds what was recorded: same keys, same versions, none more, none less.

    `results` are the keys now in the range with their versions, in the order of their keys; bounds as
    `includes_end_key` says, deleted keys left out. They are consumed only until the answer is known.
    A record that Fabric's own check could not handle (degree below 2, a result without version) does not hold.
    """
    if recorded.merkle_summary is not None:
        return _summary_holds(MerkleSummary(*recorded.merkle_summary), results)
    remaining = iter(recorded.raw_reads or ())
    for result in results:
        read = next(remaining, None)
        if read is None or read.version is None or read != result:
            return False
    return next(remaining, None) is None


def _summary_holds(recorded: MerkleSummary, results: Iterable[KeyRead]) -> bool:
    if recorded.max_degree < _SMALLEST_DEGREE:
        return False
    again = RangeReads(recorded.max_degree)
    for result in results:
        again.add(result)
        now = again.summary_so_far()
        if now.max_level > recorded.max_level:
            return False
        if now.max_level == recorded.max_level and now.hashes != recorded.hashes[: len(now.hashes)]:
            return False
    return again.finish()[1] == recorded


def _encode_reads(reads: Sequence[KeyRead]) -> bytes:
    message = kv_rwset_pb2.QueryReads()
    for read in reads:
        encode_read(message.kv_reads.add(), read)
    return bytes(message.SerializeToString())


def encode_read(message: kv_rwset_pb2.KVRead, read: KeyRead) -> None:
    """Fill a KVRead; no version: the key did not exist."""
    message.key = read.key
    if read.version is not None:
        message.version.SetInParent()  # version 0.0 is a version
        message.version.block_num, message.version.tx_num = read.version


def _combine(hashes: Sequence[bytes]) -> bytes:
    return sha256(b"".join(hashes)).digest()
