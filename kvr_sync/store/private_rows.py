"""What a run of blocks does to the private values that there are, as SQL, inside the run's transaction.

First `end_outdated`, then the run's own values are inserted, then `mark_purged` and `add_missing`; what is due for
erasure is erased at the very end (`kvr_sync.store.erasure`).
"""

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    and_,
    bindparam,
    cast,
    exists,
    func,
    insert,
    literal,
    null,
    or_,
    select,
    tuple_,
    update,
)

from kvr_sync.model import CollectionMembership, Effect
from kvr_sync.store.rows import PrivateRows
from kvr_sync.store.schema import LedgerTables
from kvr_sync.store.storable import storable_text

PURGE, EXPIRY = "purge", "expiry"
"""What erases a value, as `erased_by` tells it."""


def end_outdated(
    connection: Connection, tables: LedgerTables, rows: PrivateRows, keys: Sequence[int], is_old: Callable[[int], bool]
) -> None:
    """Bring up the values in force before the run: those whose expiry moved, and those that the run ended.

    `keys`: numbers by position; `is_old`: whether a number was given before the run.
    """
    table = tables.private_value
    in_force = update(table).where(table.c.key_id == bindparam("number"), table.c.ended_block.is_(None))
    for changed, column in ((rows.moved, "expiring_block"), (rows.ended, "ended_block")):
        values = [{"number": keys[place], "block": block} for place, block in changed.items() if is_old(keys[place])]
        if values:
            connection.execute(in_force.values({column: bindparam("block")}), values)


def mark_purged(connection: Connection, tables: LedgerTables, rows: PrivateRows, keys: Sequence[int]) -> None:
    """Make every value of a purged key, up to its purge, due for erasure with that block."""
    table = tables.private_value
    lives = or_(table.c.expiring_block.is_(None), table.c.expiring_block > bindparam("block"))
    position = tuple_(table.c.block_number, table.c.tx_number)
    due = update(table).where(
        table.c.key_id == bindparam("number"),
        position <= tuple_(bindparam("block"), bindparam("tx")),
        table.c.erased_block.is_(None),
        lives,
    )
    values = [{"number": keys[place], "block": block, "tx": tx} for place, block, tx in rows.purges]
    if values:
        connection.execute(due.values(expiring_block=bindparam("block"), erased_by=PURGE), values)


def add_missing(
    connection: Connection,
    tables: LedgerTables,
    membership: CollectionMembership,
    joined: int,
    last_block: int,
    due_at: object,
) -> None:
    """Add what a member that joins with block `joined` misses: keys that lived by then and live at the end of the run.

    What was written afterwards has a row already, unless the organisation was no member any more.
    """
    table = tables.private_value
    names = [column.name for column in table.columns]
    missing = _missing(tables, membership, joined, last_block, due_at)
    connection.execute(insert(table).from_select(names, missing))


def _missing(
    tables: LedgerTables, membership: CollectionMembership, joined: int, last_block: int, due_at: object
) -> Select[Any]:
    key, history, table = tables.key, tables.private_hash, tables.private_value
    later, moved = history.alias("later"), history.alias("moved")
    conditions: list[ColumnElement[bool]] = [
        key.c.namespace == storable_text(membership.namespace),
        key.c.collection == storable_text(membership.collection),
        history.c.effect == int(Effect.PUT),
        history.c.block_number <= joined,
        ~exists().where(
            later.c.key_id == history.c.key_id,
            later.c.effect.in_([int(Effect.PUT), int(Effect.DELETE)]),
            tuple_(later.c.block_number, later.c.tx_number, later.c.write_number)
            > tuple_(history.c.block_number, history.c.tx_number, history.c.write_number),
        ),
        ~exists().where(and_(*(table.c[name] == history.c[name] for name in _POSITION))),
    ]
    expiring: ColumnElement[Any] = cast(null(), table.c.expiring_block.type)
    if membership.block_to_live:
        newest = select(func.max(moved.c.block_number)).where(
            moved.c.key_id == history.c.key_id, moved.c.effect.in_([int(Effect.PUT), int(Effect.VERSION)])
        )
        expiring = newest.scalar_subquery() + membership.block_to_live + 1
        conditions.append(expiring > last_block)
    given = {
        **{name: history.c[name] for name in (*_POSITION, "value_hash")},
        "expiring_block": expiring,
        "attempts": literal(0),
        "due_at": literal(due_at, table.c.due_at.type),
    }
    columns = [given.get(column.name, cast(null(), column.type)) for column in table.columns]
    return select(*columns).join(key, key.c.key_id == history.c.key_id).where(*conditions)


_POSITION = ("key_id", "block_number", "tx_number", "write_number")
