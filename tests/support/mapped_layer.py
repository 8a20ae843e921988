"""The mapped layer of a database taken away, and a reader of a change feed that remembers rows and one number."""

from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any

from sqlalchemy import Connection, Table, delete, exists, or_, select

from kvr_sync.store.database import open_database
from kvr_sync.store.ledger_sink import LedgerSink
from kvr_sync.store.mapped_layer import MappedLayer, Mended
from kvr_sync.store.opening import open_store, recorded_member
from kvr_sync.store.quarantine_closing import KEPT_CLOSINGS
from tests.support.tables import columns_of, query

CHANNEL = "consortium"


@contextmanager
def by_hand(url: str) -> Iterator[Connection]:
    """Give a transaction for statements that somebody else would run, in the channel's schema."""
    database = open_database(url, CHANNEL)
    with database.engine.begin() as connection:
        if database.schema:
            connection.exec_driver_sql(f"SET LOCAL search_path TO {database.schema}")
        yield connection


def empty_mapped_layer(url: str, definition: dict[str, Any]) -> None:
    """Take out every row that mapping made: current rows, histories, child tables, feeds, quarantine."""
    with by_hand(url) as connection:
        for name, table in definition["tables"].items():
            for part in (name, *table.get("children", {})):
                connection.exec_driver_sql(f"DELETE FROM {part}")  # noqa: S608  names of a mapping
                if "collections" not in table:
                    connection.exec_driver_sql(f"DELETE FROM {part}_history")  # noqa: S608
        connection.exec_driver_sql("DELETE FROM ledger_quarantine")
        connection.exec_driver_sql("DELETE FROM sync_change")
        connection.exec_driver_sql("UPDATE sync_table SET last_change_id = 0")


def make_again(sink: LedgerSink) -> list[Mended]:
    """Make all mapped tables again from the ledger layer."""
    with sink.fenced() as (connection, checkpoint):
        layer = MappedLayer(sink, connection, checkpoint.block_number if checkpoint else None)
        return layer.make_again(range(len(sink.mapping.tables)))


class _TakenBackError(Exception):
    """Ends a transaction of which nothing is to stay."""


def check_made_again(url: str) -> None:
    """Check that the mapped tables are what the ledger layer gives, and what making them again leaves as it is.

    Made again as they stand, and once more after all rows were taken out that are known elsewhere: all but those of
    erased versions. Nothing of it stays.
    """
    with closing(open_store(url, CHANNEL, private_member=recorded_member(url, CHANNEL), create=False)) as sink:
        if not sink.mapping.tables:
            return
        with suppress(_TakenBackError), sink.fenced() as (connection, checkpoint):
            layer = MappedLayer(sink, connection, checkpoint.block_number if checkpoint else None)
            everything = range(len(sink.mapping.tables))
            before = _rows(sink, connection)
            untouched = layer.make_again(everything)
            assert {(one.versions, one.rows, one.changes, one.released) for one in untouched} == {(0, 0, 0, 0)}
            assert _rows(sink, connection) == before
            _take_out(sink, connection)
            layer.make_again(everything)
            assert _rows(sink, connection) == before
            raise _TakenBackError


def _rows(sink: LedgerSink, connection: Connection) -> dict[str, list[str]]:
    """Give the rows of all mapped tables and of the quarantine, but for the numbers of changes."""
    tables = [table for mapped in sink.mapped for table in mapped.tables]
    return {
        str(table): sorted(
            repr(tuple(row))
            for row in connection.execute(select(*(column for column in table.c if column.name != "kvr_change_id")))
        )
        for table in (*tables, sink.tables.quarantine)
    }


def _take_out(sink: LedgerSink, connection: Connection) -> None:
    value = sink.tables.private_value

    def is_erased(table: Table, prefix: str) -> Any:
        same = [table.c[prefix + name] == value.c[name] for name in value.primary_key.columns.keys()]  # noqa: SIM118
        return exists().where(*same, value.c.erased_block.is_not(None))

    for mapped in sink.mapped:
        for current, history in ((mapped.current, mapped.history), *mapped.children):
            connection.execute(delete(current))
            connection.execute(delete(history).where(~is_erased(history, "kvr_")))
    entry = sink.tables.quarantine
    is_derived = or_(entry.c.closed_by.is_(None), entry.c.closed_by.not_in(KEPT_CLOSINGS))
    connection.execute(delete(entry).where(is_derived, ~is_erased(entry, "")))


def nobody_writes(url: str) -> bool:
    """Tell whether no session of an engine or a command is left."""
    if url.startswith("sqlite"):
        return True
    return query(url, "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'kvr-sync'") == [(0,)]


class FeedReader:
    """Keeps a copy of a table by its change feed, and of the feed nothing but the last number."""

    def __init__(self, url: str, name: str) -> None:
        self._url = url
        self._name = name
        self._last = 0
        columns = [column for column in columns_of(url, name) if column not in ("kvr_key_id", "kvr_change_id")]
        self._listed = ", ".join(f'"{column}"' for column in columns)
        self.rows: dict[int, tuple[Any, ...]] = {}
        self.kinds: list[str] = []
        """Of the changes that the last reading found."""

    def read(self) -> "FeedReader":
        """Read on, and give this reader."""
        self.kinds = []
        for change_id, kind, key_id, *row in query(
            self._url,
            f"SELECT kvr_change_id, kvr_change, kvr_key_id, {self._listed} FROM {self._name}_changes"  # noqa: S608
            " WHERE kvr_change_id > ? ORDER BY kvr_change_id",
            [self._last],
        ):
            assert change_id == self._last + 1
            self._last = change_id
            self.kinds.append(kind)
            if kind in ("delete", "erasure"):
                self.rows.pop(key_id, None)
            else:
                self.rows[key_id] = tuple(row)
        return self

    def table(self) -> dict[int, tuple[Any, ...]]:
        """Give the table as it is."""
        rows = query(self._url, f"SELECT kvr_key_id, {self._listed} FROM {self._name}")  # noqa: S608
        return {row[0]: tuple(row[1:]) for row in rows}
