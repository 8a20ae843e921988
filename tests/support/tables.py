"""The tables as any SQL client reads them, made comparable across the two databases; nothing of the engine."""

import json
import sqlite3
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import yaml
from sqlalchemy import make_url

from tests.support.oracle_tables import ExpectedTable

NO_TABLES = (sqlite3.OperationalError, psycopg.errors.UndefinedTable)
"""What `query` raises where the file or the tables are not there yet."""

KINDS = {1: "put", 2: "delete", 3: "metadata", 4: "purge", 5: "metadata removed"}
EFFECTS = {0: "none", 1: "put", 2: "delete", 3: "version"}


def query(
    url: str, statement: str, parameters: Sequence[Any] = (), *, channel: str = "consortium"
) -> list[tuple[Any, ...]]:
    """Run one statement with plain drivers and give its rows; in PostgreSQL the channel's schema is on the path."""
    parsed = make_url(url)
    if parsed.drivername.startswith("sqlite"):
        connection = sqlite3.connect(f"file:{parsed.database}?mode=ro", uri=True)
        try:
            return connection.execute(statement, parameters).fetchall()
        finally:
            connection.close()
    address = parsed.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(address, options=f"-c search_path={channel} -c timezone=UTC") as session:
        return session.execute(statement.replace("?", "%s"), parameters).fetchall()


def read_mapped(url: str, mapping_path: Path) -> dict[str, ExpectedTable]:
    """Read all mapped tables of public state of a mapping into the oracle's form."""
    definition = yaml.safe_load(mapping_path.read_text())
    keys = {row[0]: bytes(row[1]) for row in query(url, "SELECT key_id, key FROM ledger_key WHERE collection = ''")}
    facts = "kvr_block_number, kvr_tx_number, kvr_write_number, kvr_tx_id, kvr_creator_msp_id"
    tables = {}
    for name, table in definition["tables"].items():
        if "collections" in table:
            continue  # private state has no history
        columns = list(table["columns"])
        kinds = [table["columns"][column]["type"] for column in columns]
        listed = ", ".join(f'"{column}"' for column in columns)
        found = ExpectedTable()
        for row in query(url, f"SELECT kvr_key_id, {facts}, {listed} FROM {name}"):  # noqa: S608
            found.current[keys[row[0]]] = (_values(row[6:], kinds), tuple(row[1:6]))
        for row in query(url, f"SELECT kvr_key_id, {facts}, kvr_kind, {listed} FROM {name}_history"):  # noqa: S608
            values = None if row[6] == "delete" else _values(row[7:], kinds)
            if values is None:
                assert set(row[7:]) == {None}
            found.history[keys[row[0]], (row[1], row[2], row[3])] = (row[6], values, tuple(row[1:6]))
        quarantined = query(
            url,
            "SELECT key_id, block_number, tx_number, write_number, value FROM ledger_quarantine WHERE table_name = ?",
            [name],
        )
        for row in quarantined:
            found.quarantined[keys[row[0]], (row[1], row[2], row[3])] = bytes(row[4])
        tables[name] = found
        check_feed(url, name)
    return tables


def check_feed(url: str, name: str) -> None:
    """Assert that a reader of the change feed, who knows nothing but its last number, has the table as it is."""
    columns = _columns(url, name)
    values = [column for column in columns if column not in ("kvr_key_id", "kvr_change_id")]
    listed = ", ".join(f'"{column}"' for column in values)
    followed: dict[int, tuple[Any, ...]] = {}
    last = 0
    while True:
        page = query(
            url,
            f"SELECT kvr_change_id, kvr_change, kvr_key_id, {listed} FROM {name}_changes"  # noqa: S608
            " WHERE kvr_change_id > ? ORDER BY kvr_change_id LIMIT 1000",
            [last],
        )
        for change_id, kind, key_id, *row in page:
            assert change_id == last + 1, f"{name}: change {last + 1} is missing"
            last = change_id
            assert kind in ("delete", "erasure") or (kind == "insert") == (key_id not in followed), f"{name}: {kind}"
            if kind in ("delete", "erasure"):
                del followed[key_id]
            elif any(value is not None for value in row[:1]):  # a private value that is outdated stands there no more
                followed[key_id] = (change_id, *row)
            else:
                followed.setdefault(key_id, ())
        if not page:
            break
    current = {
        row[0]: row[1:]
        for row in query(url, f"SELECT kvr_key_id, kvr_change_id, {listed} FROM {name}")  # noqa: S608
    }
    assert followed == current, f"{name}: the feed tells another story"
    recorded = query(url, "SELECT last_change_id FROM sync_table WHERE name = ?", [name])
    assert recorded == [(last,)]


def _columns(url: str, name: str) -> list[str]:
    if make_url(url).drivername.startswith("sqlite"):
        return [row[1] for row in query(url, f"PRAGMA table_info({name})")]
    return [
        row[0]
        for row in query(
            url,
            "SELECT column_name FROM information_schema.columns"
            " WHERE table_name = ? AND table_schema = current_schema() ORDER BY ordinal_position",
            [name],
        )
    ]


def _values(row: Sequence[Any], kinds: Sequence[str]) -> tuple[Any, ...]:
    return tuple(None if value is None else _value(value, kind) for value, kind in zip(row, kinds, strict=True))


def _value(value: Any, kind: str) -> Any:
    if kind == "decimal":
        return Decimal(value)
    if kind == "timestamp":
        return value if isinstance(value, datetime) else datetime.fromisoformat(value).astimezone(UTC)
    if kind == "json":
        text = value if isinstance(value, str) else json.dumps(value)
        return json.loads(text, parse_float=Decimal)
    if kind == "bytes":
        return bytes(value)
    if kind == "boolean":
        return bool(value)
    return value


def read_writes(url: str) -> set[tuple[Any, ...]]:
    """Read key history and private hashes as (block, tx, write, key, kind, effect, written bytes)."""
    keys = {
        row[0]: (row[1], row[2], bytes(row[3]))
        for row in query(url, "SELECT key_id, namespace, collection, key FROM ledger_key")
    }
    rows = query(
        url, "SELECT key_id, block_number, tx_number, write_number, kind, effect, value FROM ledger_key_history"
    )
    rows += query(
        url, "SELECT key_id, block_number, tx_number, write_number, kind, effect, value_hash FROM ledger_private_hash"
    )
    return {
        (*row[1:4], keys[row[0]], KINDS[row[4]], EFFECTS[row[5]], None if row[6] is None else bytes(row[6]))
        for row in rows
    }
