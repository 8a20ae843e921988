"""The tables as any SQL client reads them, made comparable across the two databases; nothing of the engine."""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg
from psycopg.types.json import set_json_loads
from sqlalchemy import make_url

from tests.support.oracle_tables import ExpectedChild, ExpectedTable

Session = sqlite3.Connection | psycopg.Connection[tuple[Any, ...]]

NO_TABLES = (sqlite3.OperationalError, psycopg.errors.UndefinedTable)
"""What `query` raises where the file or the tables are not there yet."""

KINDS = {1: "put", 2: "delete", 3: "metadata", 4: "purge", 5: "metadata removed"}
EFFECTS = {0: "none", 1: "put", 2: "delete", 3: "version"}


def query(
    url: str, statement: str, parameters: Sequence[Any] = (), *, channel: str = "consortium"
) -> list[tuple[Any, ...]]:
    """Run one statement with plain drivers and give its rows; in PostgreSQL the channel's schema is on the path."""
    with one_session(url, channel=channel) as session:
        if isinstance(session, sqlite3.Connection):
            return session.execute(statement, parameters).fetchall()
        return session.execute(statement.replace("%", "%%").replace("?", "%s"), parameters).fetchall()


_OPEN: dict[tuple[str, str], Session] = {}


@contextmanager
def one_session(url: str, *, channel: str = "consortium", api_version: int = 1) -> Iterator[Session]:
    """Let every `query` inside read what was committed when the first of them began, by one session.

    `api_version`: in PostgreSQL its schema comes first on the path.
    """
    given = _OPEN.get((url, channel))
    if given is not None:
        yield given
        return
    path = channel if api_version == 1 else f"{channel}_v{api_version},{channel}"
    with closing(_connect(url, path)) as session:
        _OPEN[url, channel] = session
        try:
            yield session
        finally:
            del _OPEN[url, channel]


def _connect(url: str, path: str) -> Session:
    parsed = make_url(url)
    if parsed.drivername.startswith("sqlite"):
        connection = sqlite3.connect(f"file:{parsed.database}?mode=ro", uri=True, isolation_level=None)
        try:
            connection.execute("BEGIN")
        except sqlite3.Error:
            connection.close()
            raise
        return connection
    address = parsed.set(drivername="postgresql").render_as_string(hide_password=False)
    session = psycopg.connect(address, options=f"-c search_path={path} -c timezone=UTC")
    session.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    set_json_loads(_text, session)  # numbers in it stay exact
    return session


def _text(content: str | bytes) -> str:
    return content if isinstance(content, str) else content.decode()


FACTS = "kvr_block_number, kvr_tx_number, kvr_write_number, kvr_tx_id, kvr_creator_msp_id"


class Columns:
    """Columns of a mapped or child table, to be selected after others, and their values made comparable."""

    def __init__(self, columns: dict[str, Any]) -> None:
        self.listed = ", ".join(f'"{name}"' for name in columns)
        self._kinds = [column["type"] for column in columns.values()]

    def values(self, row: Sequence[Any]) -> tuple[Any, ...]:
        """Give the last values of a row in the oracle's form."""
        return _values(row[-len(self._kinds) :], self._kinds)


def applied(url: str) -> int:
    """Count the blocks that are there; -1 before the tables are."""
    try:
        return int(query(url, "SELECT count(*) FROM ledger_block")[0][0])
    except NO_TABLES:
        return -1


def holds(url: str, blocks: int) -> bool:
    """Tell whether so many blocks are there."""
    return applied(url) == blocks


def sql_name(url: str, name: str, api_version: int = 1) -> str:
    """Give the name that a table of a version of the API has inside `one_session` of it."""
    return name if api_version == 1 or not url.startswith("sqlite") else f"v{api_version}_{name}"


def read_mapped(url: str, definition: dict[str, Any], api_version: int = 1) -> dict[str, ExpectedTable]:
    """Read all mapped tables of public state of a mapping into the oracle's form, checking the feed of each."""
    keys = {row[0]: bytes(row[1]) for row in query(url, "SELECT key_id, key FROM ledger_key WHERE collection = ''")}
    tables = {}
    for name, table in definition["tables"].items():
        if "collections" in table:
            continue  # private state has no history
        columns = Columns(table["columns"])
        found = ExpectedTable()
        table_name = sql_name(url, name, api_version)
        for row in query(url, f"SELECT kvr_key_id, external_id, {FACTS}, {columns.listed} FROM {table_name}"):  # noqa: S608
            found.current[keys[row[0]]] = (columns.values(row), tuple(row[2:7]))
            found.names[keys[row[0]]] = row[1]
        history = f"SELECT kvr_key_id, external_id, {FACTS}, kvr_kind, {columns.listed} FROM {table_name}_history"  # noqa: S608
        for row in query(url, history):
            found.history[keys[row[0]], (row[2], row[3], row[4])] = _version(row, columns)
            assert found.names.setdefault(keys[row[0]], row[1]) == row[1]
        quarantined = query(
            url,
            "SELECT key_id, block_number, tx_number, write_number, value, closed_block, closed_by"
            " FROM ledger_quarantine WHERE table_name = ?",
            [recorded_name(name, api_version)],
        )
        for row in quarantined:
            found.quarantined[keys[row[0]], (row[1], row[2], row[3])] = (bytes(row[4]), row[5], row[6])
        for child, entry in table.get("children", {}).items():
            child_name = sql_name(url, child, api_version)
            found.children[child] = _read_child(url, child_name, Columns(entry["columns"]), keys)
        tables[name] = found
        check_feed(url, name, children=list(found.children), api_version=api_version)
    return tables


def _version(row: Sequence[Any], columns: Columns) -> tuple[str, tuple[Any, ...] | None, tuple[Any, ...]]:
    """Read key, name, facts, kind and columns of a version."""
    facts, kind = tuple(row[2:7]), row[7]
    if kind != "delete":
        return kind, columns.values(row), facts
    assert set(row[8:]) == {None}
    return kind, None, facts


def _read_child(url: str, name: str, columns: Columns, keys: dict[int, bytes]) -> ExpectedChild:
    found = ExpectedChild()
    select = f"SELECT kvr_key_id, kvr_position, {FACTS}, {columns.listed} FROM {name}"  # noqa: S608
    for row in query(url, select):
        found.current[keys[row[0]], row[1]] = (columns.values(row), tuple(row[2:7]))
    for row in query(url, f"{select}_history"):
        found.history[keys[row[0]], (row[2], row[3], row[4]), row[1]] = (columns.values(row), tuple(row[2:7]))
    return found


def read_validity(url: str, name: str) -> dict[tuple[bytes, tuple[int, int, int]], int | None]:
    """Read the block up to which each version of a table is valid."""
    rows = query(
        url,
        "SELECT k.key, v.kvr_valid_from_block, v.kvr_tx_number, v.kvr_write_number, v.kvr_valid_to_block"  # noqa: S608
        f" FROM {name}_validity v JOIN ledger_key k ON k.key_id = v.kvr_key_id",
    )
    found = {(bytes(row[0]), (row[1], row[2], row[3])): row[4] for row in rows}
    assert len(found) == len(rows)
    return found


def read_as_of(
    url: str, definition: dict[str, Any], name: str, block: int
) -> tuple[dict[bytes, Any], dict[str, dict[tuple[bytes, int], Any]]]:
    """Read a table and its child tables as of a block, in PostgreSQL."""
    keys = {row[0]: bytes(row[1]) for row in query(url, "SELECT key_id, key FROM ledger_key WHERE collection = ''")}
    table = definition["tables"][name]
    columns = Columns(table["columns"])
    rows = query(
        url,
        f"SELECT kvr_key_id, external_id, {FACTS}, kvr_kind, {columns.listed} FROM {name}_asof(?)",  # noqa: S608
        [block],
    )
    children = {}
    for child, entry in table.get("children", {}).items():
        child_columns = Columns(entry["columns"])
        select = f"SELECT kvr_key_id, kvr_position, {FACTS}, {child_columns.listed} FROM {child}_asof(?)"  # noqa: S608
        children[child] = {
            (keys[row[0]], row[1]): (child_columns.values(row), tuple(row[2:7])) for row in query(url, select, [block])
        }
    return {keys[row[0]]: _version(row, columns) for row in rows}, children


def recorded_name(name: str, api_version: int) -> str:
    """Give what our own tables call a table of a version of the API."""
    return name if api_version == 1 else f"v{api_version}.{name}"


def check_feed(url: str, name: str, *, children: Sequence[str] = (), api_version: int = 1) -> None:
    """Assert that a reader of the change feed, who knows nothing but its last number, has the table as it is.

    With the histories of the child tables that reader has these, too.
    """
    called = recorded_name(name, api_version)
    name, *children = (sql_name(url, one, api_version) for one in (name, *children))
    columns = columns_of(url, name)
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
            # The others are of a row that is there or not.
            is_change = kind in ("insert", "late", "update")
            assert not is_change or (kind != "update") == (key_id not in followed), f"{name}: {kind}"
            if kind == "delete":
                del followed[key_id]
            elif kind == "erasure":  # of older versions too, where no row was left
                followed.pop(key_id, None)
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
    recorded = query(url, "SELECT last_change_id FROM sync_table WHERE name = ?", [called])
    assert recorded == [(last,)]
    first = values.index("kvr_block_number") + 1  # after the number of the change
    versions = {(key_id, *row[first : first + 3]) for key_id, row in followed.items()}
    for child in children:
        own = ["kvr_key_id", "kvr_block_number", "kvr_tx_number", "kvr_write_number"]
        own += [f'"{column}"' for column in columns_of(url, child) if column not in own]
        select = f"SELECT {', '.join(own)} FROM {child}"  # noqa: S608
        rebuilt = [row for row in query(url, f"{select}_history") if row[:4] in versions]
        assert sorted(rebuilt, key=repr) == sorted(query(url, select), key=repr), f"{child}: its history tells another"


def columns_of(url: str, name: str) -> list[str]:
    if make_url(url).drivername.startswith("sqlite"):
        return [row[1] for row in query(url, f"PRAGMA table_info({name})")]
    return [
        row[0]
        for row in query(
            url,
            # The tenth part of the time that information_schema takes, and this is asked very often.
            "SELECT attname FROM pg_attribute WHERE attrelid ="
            " to_regclass(quote_ident(current_schema()) || '.' || quote_ident(?))"
            " AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
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
        return json.loads(value, parse_float=Decimal)
    if kind == "date":
        return value if isinstance(value, date) else date.fromisoformat(value)
    if kind == "uuid":
        return value if isinstance(value, UUID) else UUID(value)
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
