"""A reader of logical replication, as Debezium and its kind are: PostgreSQL's own `pgoutput`, decoded here.

It knows nothing of kvr: it keeps the rows of published tables by what the server calls their key, from messages alone.
Form: PostgreSQL's manual, "Logical Replication Message Formats" (protocol version 1).
"""

from collections.abc import Iterator, Mapping
from io import BytesIO
from typing import NamedTuple

import psycopg
from psycopg import sql

Row = dict[str, str | None]


class Relation(NamedTuple):
    """A published table: its name, columns, and which of them are its key."""

    name: str
    columns: tuple[str, ...]
    keys: tuple[str, ...]


class LogicalReplica:
    """Tables kept up to date from a replication slot. `session` is in autocommit mode."""

    def __init__(self, session: psycopg.Connection, publication: str, slot: str) -> None:
        """Make the slot; what was there before is the caller's to copy (`start_with`)."""
        self._session = session
        self._publication = publication
        self._slot = slot
        self._relations: dict[int, Relation] = {}
        self.rows: dict[str, dict[tuple[str | None, ...], Row]] = {}
        self.counts = {"I": 0, "U": 0, "D": 0}
        session.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (slot,))

    def start_with(self, table: str, keys: tuple[str, ...], rows: list[Row]) -> None:
        """Take the rows that a table had when the slot was made."""
        self.rows[table] = {tuple(row[key] for key in keys): row for row in rows}

    def read(self) -> int:
        """Apply what was committed since the last time; gives the number of transactions."""
        found = self._session.execute(
            "SELECT data FROM pg_logical_slot_get_binary_changes"
            "(%s, NULL, NULL, 'proto_version', '1', 'publication_names', %s)",
            (self._slot, self._publication),
        ).fetchall()
        transactions = 0
        for (message,) in found:
            transactions += self._apply(BytesIO(message))
        return transactions

    def end(self) -> None:
        """Give the slot up."""
        self._session.execute("SELECT pg_drop_replication_slot(%s)", (self._slot,))

    def _apply(self, message: BytesIO) -> int:
        kind = message.read(1).decode()
        match kind:
            case "R":
                number = _number(message, 4)
                self._relations[number] = _relation(message)
            case "I" | "U" | "D":
                self.counts[kind] += 1
                self._change(kind, self._relations[_number(message, 4)], message)
            case "C":
                return 1
            case "B" | "Y" | "O":
                pass
            case _:
                raise AssertionError(f"a message that nobody reading these tables can follow: {kind}")
        return 0

    def _change(self, kind: str, relation: Relation, message: BytesIO) -> None:
        rows = self.rows.setdefault(relation.name, {})
        before: dict[str, str | bytes | None] = {}
        part = message.read(1)
        if part in (b"K", b"O"):
            before = dict(_values(relation, message))
            part = message.read(1)
        after = dict(_values(relation, message)) if part == b"N" else {}
        key = tuple(_text((before or after)[name]) for name in relation.keys)
        if kind == "D":
            del rows[key]
            return
        old = rows.pop(key) if kind == "U" else {}
        # What was too large for the row and did not change is not sent again.
        new = {name: old[name] if value == _UNCHANGED else _text(value) for name, value in after.items()}
        assert kind == "U" or key not in rows
        rows[tuple(new[name] for name in relation.keys)] = new


_UNCHANGED = b"u"


def _text(value: str | bytes | None) -> str | None:
    assert not isinstance(value, bytes)
    return value


def _relation(message: BytesIO) -> Relation:
    _string(message)
    name = _string(message)
    message.read(1)
    columns, keys = [], []
    for _ in range(_number(message, 2)):
        is_key = message.read(1) == b"\x01"
        columns.append(_string(message))
        message.read(8)
        if is_key:
            keys.append(columns[-1])
    return Relation(name, tuple(columns), tuple(keys))


def _values(relation: Relation, message: BytesIO) -> Iterator[tuple[str, str | bytes | None]]:
    count = _number(message, 2)
    assert count == len(relation.columns)
    for column in relation.columns:
        match message.read(1):
            case b"n":
                yield column, None
            case b"u":
                yield column, _UNCHANGED
            case _:
                yield column, message.read(_number(message, 4)).decode()


def _number(message: BytesIO, size: int) -> int:
    return int.from_bytes(message.read(size), "big")


def _string(message: BytesIO) -> str:
    content = bytearray()
    while (byte := message.read(1)) not in (b"\x00", b""):
        content += byte
    return content.decode()


def texts(session: psycopg.Connection, schema: str, table: str) -> list[Row]:
    """Read a table as the server writes its values."""
    with session.cursor(binary=False) as cursor:
        names = [
            name
            for (name,) in cursor.execute(
                "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped"
                " ORDER BY attnum",
                (f"{schema}.{table}",),
            ).fetchall()
        ]
        columns = sql.SQL(", ").join(sql.SQL("{}::text").format(sql.Identifier(name)) for name in names)
        statement = sql.SQL("SELECT {} FROM {}").format(columns, sql.Identifier(schema, table))
        return [dict(zip(names, row, strict=True)) for row in cursor.execute(statement).fetchall()]


def keys_of(session: psycopg.Connection, schema: str, table: str) -> tuple[str, ...]:
    """Name the columns of the primary key."""
    found = session.execute(
        "SELECT a.attname FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY(i.indkey)"
        " WHERE i.indrelid = %s::regclass AND i.indisprimary ORDER BY a.attnum",
        (f"{schema}.{table}",),
    ).fetchall()
    return tuple(name for (name,) in found)


def by_key(rows: list[Row], keys: tuple[str, ...]) -> Mapping[tuple[str | None, ...], Row]:
    """Give rows by their key."""
    return {tuple(row[key] for key in keys): row for row in rows}
