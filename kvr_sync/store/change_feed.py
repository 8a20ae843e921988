"""The change feed: what happened to the current rows of a mapped table, numbered without gaps. Pure.

Numbers are given while the checkpoint row is locked, in the order of the versions, so that the order of numbers is the
order of commits. A version that changes no row (a delete of what is not there) gets none.
"""

from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

from kvr_sync.store.rows import KEPT, PURGED, MappedRows, Row, Rows


class ChangeKind(IntEnum):
    """What happened to a row, as `sync_change.kind` has it."""

    INSERT = 1
    UPDATE = 2
    DELETE = 3
    LATE = 4
    """A private value that was missing came after all."""
    RELEASE = 5
    """A value left the quarantine."""
    ERASURE = 6
    """A private value was purged or expired; its columns are NULL wherever they stood."""


_INSERT, _UPDATE, _DELETE = int(ChangeKind.INSERT), int(ChangeKind.UPDATE), int(ChangeKind.DELETE)
_ERASURE = int(ChangeKind.ERASURE)


class NumberedChanges(NamedTuple):
    """The changes that a run makes to one table."""

    rows: list[Row]
    """Of `sync_change`, in its order of columns."""
    last_of_key: dict[int, int]
    """The last change by position of the key, of those that have a row now."""
    last: int


def number_changes(
    table_id: int, rows: MappedRows[Rows], keys: Sequence[int], existing: set[int], last: int
) -> NumberedChanges:
    """Number the changes of a run, from `last` on.

    `keys`: numbers by position; `existing`: those that have a current row before the run; it is brought up to date.
    """
    changes: list[Row] = []
    last_of_key: dict[int, int] = {}
    fields = iter(rows.steps)
    for position, gone, block_number, tx_number, write_number in zip(
        fields, fields, fields, fields, fields, strict=True
    ):
        key = keys[position]
        if gone != KEPT:
            # A purge is told also where no row is left: who keeps older versions has to learn of it.
            if gone != PURGED and key not in existing:
                continue
            existing.discard(key)
            kind = _ERASURE if gone == PURGED else _DELETE
        elif key in existing:
            kind = _UPDATE
        else:
            existing.add(key)
            kind = _INSERT
        last += 1
        last_of_key[position] = last
        changes.append((table_id, last, kind, key, block_number, tx_number, write_number))
    return NumberedChanges(changes, last_of_key, last)
