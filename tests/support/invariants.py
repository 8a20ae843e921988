"""What is true of a database after every run, however it ended (the invariants I1 to I6, I8; I9 by `read_content`).

I1 checkpoint and blocks are one chain. I2 mapped tables equal the oracle. I3 the state by key history equals that of
the oracle. I4 a write of a valid transaction is in a mapped table, in quarantine, or of a key that no table takes. I5
nothing comes from an invalid transaction. I6 stored commit hashes are those of the blocks. I8 nobody holds a
transaction or a lock. I9 what is there does not change when the same blocks are run again.
"""

import sqlite3
from collections.abc import Collection, Sequence
from typing import Any

from fabric_protos.common import common_pb2
from sqlalchemy import make_url

from tests.support.comparison import check_tables
from tests.support.oracle import Ledger, read_ledger
from tests.support.oracle_tables import ExpectedTable, expected_tables
from tests.support.tables import columns_of, one_session, query

TIMES = {"ledger_checkpoint": {"updated_at"}, "ledger_block": {"first_seen_at"}}
"""Columns that tell when something happened here, and differ from run to run."""
RUNS = frozenset({"sync_run", "alembic_version"})


def check_invariants(url: str, blocks: Sequence[bytes], definition: dict[str, Any]) -> Ledger:
    """Check that a database holds exactly these blocks, once, and that all invariants hold."""
    ledger = read_ledger(blocks)
    check_tables(url, ledger, len(blocks), definition)
    with one_session(url):
        _check_state(url, ledger)
        _check_every_write(ledger, definition)
        _check_verdicts(url)
        _check_commit_hashes(url, blocks)
    _check_nothing_held(url)
    return ledger


def _check_state(url: str, ledger: Ledger) -> None:
    """I3: the newest effect of each key, and the value of its newest put."""
    state: dict[tuple[str, str, bytes], bytes] = {}
    for history, value in (("ledger_key_history", "value"), ("ledger_private_hash", "value_hash")):
        held: dict[int, bytes] = {}
        rows = query(
            url,
            f"SELECT key_id, effect, {value} FROM {history} ORDER BY block_number, tx_number, write_number",  # noqa: S608
        )
        for key_id, effect, content in rows:
            if effect == 1:
                held[key_id] = bytes(content)
            elif effect == 2:
                held.pop(key_id, None)
        keys = query(url, "SELECT key_id, namespace, collection, key FROM ledger_key")
        state |= {(row[1], row[2], bytes(row[3])): held[row[0]] for row in keys if row[0] in held}
    assert state == ledger.state


def _check_every_write(ledger: Ledger, definition: dict[str, Any]) -> None:
    """I4, of the oracle's tables, to which those of the database are equal: a write is in one place of each table."""
    tables = expected_tables(ledger, definition)
    written = {(write.key[2], (write.block, write.tx, write.number)) for write in ledger.writes if not write.key[1]}
    for table in tables.values():
        assert not table.history.keys() & table.quarantined.keys()
        assert table.history.keys() | table.quarantined.keys() <= written
        _check_current(table)


def _check_current(table: ExpectedTable) -> None:
    for key, (values, facts) in table.current.items():
        kind, row, _ = table.history[key, facts[:3]]
        assert kind != "delete"
        assert row == values


def _check_verdicts(url: str) -> None:
    """I5: whatever was applied is of a valid transaction."""
    for table in ("ledger_key_history", "ledger_private_hash", "ledger_event", "ledger_key_metadata"):
        strangers = query(
            url,
            f"SELECT count(*) FROM {table} h JOIN ledger_transaction t ON t.block_number = h.block_number"  # noqa: S608
            " AND t.tx_number = h.tx_number WHERE t.validation_code <> 0",
        )
        assert strangers == [(0,)], table


def _check_commit_hashes(url: str, blocks: Sequence[bytes]) -> None:
    """I6: the commit hash after each block is the one that its peer recorded."""
    stored = query(url, "SELECT commit_hash, commit_hash_verified FROM ledger_block ORDER BY block_number")
    for content, (commit_hash, is_verified) in zip(blocks, stored, strict=True):
        recorded = common_pb2.Metadata.FromString(common_pb2.Block.FromString(content).metadata.metadata[4]).value
        assert (bytes(commit_hash or b""), bool(is_verified)) == (recorded, bool(recorded))


def _check_nothing_held(url: str) -> None:
    """I8: the database is free for others."""
    parsed = make_url(url)
    if parsed.drivername.startswith("sqlite"):
        connection = sqlite3.connect(str(parsed.database), timeout=0, isolation_level=None)
        try:
            connection.execute("BEGIN EXCLUSIVE")
            connection.execute("ROLLBACK")
        finally:
            connection.close()
        return
    sessions = query(
        url,
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'kvr-sync'"
        " AND state LIKE 'idle in transaction%'",
    )
    assert sessions == [(0,)]


COUNTERS = frozenset({"kvr_change_id", "last_change_id"})
"""Columns with numbers of the change feed."""
OWN_HISTORY = frozenset({"operation_log", "sync_change"})
"""Tables that tell what was done here, whatever the chain is."""
NUMBERED_ONCE = frozenset(
    {"ledger_key", "ledger_identity", "ledger_chaincode", "ledger_endorser_set", "ledger_endorser"}
)
"""Tables that keep what they have when others are brought back."""


def read_content(url: str, *, without: Collection[str] = ()) -> dict[str, list[tuple[Any, ...]]]:
    """Read every row of every table of a channel, without the times of our own doings, and some columns or tables."""
    with one_session(url):
        if url.startswith("sqlite"):
            names = query(url, "SELECT name FROM sqlite_master WHERE type = 'table'")
        else:
            names = query(url, "SELECT tablename FROM pg_tables WHERE schemaname = current_schema()")
        return {name: _rows(url, name, without) for (name,) in sorted(names) if name not in {*RUNS, *without}}


def as_replayed(url: str) -> dict[str, list[tuple[Any, ...]]]:
    """Read every row that follows from the chain alone, as any replay of the same blocks makes it."""
    return read_content(url, without=COUNTERS | OWN_HISTORY)


def assert_as_replayed(url: str, replayed: dict[str, list[tuple[Any, ...]]]) -> None:
    """Check that a database that was brought back holds what `as_replayed` gave of a replay that stopped there."""
    found = as_replayed(url)
    for name, rows in replayed.items():
        if name in NUMBERED_ONCE:
            assert set(rows) <= set(found[name]), name
        else:
            assert found[name] == rows, name


def _rows(url: str, name: str, without: Collection[str]) -> list[tuple[Any, ...]]:
    left_out = {*TIMES.get(name, ()), *without}
    listed = ", ".join(f'"{column}"' for column in columns_of(url, name) if column not in left_out)
    return sorted(query(url, f"SELECT {listed} FROM {name}"), key=repr)  # noqa: S608
