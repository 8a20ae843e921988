import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import create_engine, event

from kvr_sync.errors import (
    ConfigurationError,
    KvrSyncError,
    SinkFullError,
    SinkReadOnlyError,
    SinkUnavailableError,
)
from kvr_sync.store.database import open_database
from kvr_sync.store.mapped_table import mapped_tables
from kvr_sync.store.opening import open_store
from kvr_sync.store.schema import ledger_tables
from tests.support.row_batch import RowChain, checkpoint_after, key, put, request_mapping

CHANNEL = "consortium"
SECRET = "Tr0ub4dor"  # noqa: S105  looked for in messages


@pytest.mark.parametrize(
    "url",
    [
        f"mysql://u:{SECRET}@h/db",
        f"postgresql+psycopg2://u:{SECRET}@h/db",
        f"u:{SECRET}",
        "",
        "sqlite://",
        "sqlite:///:memory:",
    ],
)
def test_rejects_unsupported_url(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        open_store(url, CHANNEL)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg"])
def test_unreachable_server_is_named_without_password(scheme: str) -> None:
    with pytest.raises(SinkUnavailableError, match=re.escape("postgresql://u:***@127.0.0.1:1/db")) as caught:
        open_store(f"{scheme}://u:{SECRET}@127.0.0.1:1/db", CHANNEL)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None


def test_rejects_unknown_option_in_url() -> None:
    with pytest.raises(ConfigurationError, match="options"):
        open_store(f"postgresql://u:{SECRET}@127.0.0.1:1/db?no_such_option=1", CHANNEL)


def test_rejects_folder_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="does not exist"):
        open_store(f"sqlite:///{tmp_path}/missing/kvr.db", CHANNEL)


def test_rejects_folder_instead_of_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="name a file"):
        open_store(f"sqlite:///{tmp_path}", CHANNEL)


def test_rejects_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "blocks.zst"
    path.write_bytes(b"\x28\xb5\x2f\xfd" * 2000)

    with pytest.raises(ConfigurationError, match="not an SQLite database"):
        open_store(f"sqlite:///{path}", CHANNEL)

    assert path.read_bytes() == b"\x28\xb5\x2f\xfd" * 2000


def test_rejects_read_only_file(tmp_path: Path) -> None:
    open_store(f"sqlite:///{tmp_path}/kvr.db", CHANNEL).close()

    with pytest.raises(SinkReadOnlyError):
        open_store(f"sqlite:///file:{tmp_path}/kvr.db?mode=ro&uri=true", CHANNEL)


def test_rejects_file_of_another_channel_naming_both(sqlite_url: str) -> None:
    with closing(open_store(sqlite_url, CHANNEL)) as sink:
        block = RowChain().block()
        sink.commit(None, [block], checkpoint_after(block), anchor="unpinned")

    with pytest.raises(ConfigurationError, match="belongs to channel consortium, not to other"):
        open_store(sqlite_url, "other")


def test_full_file_applies_nothing_and_goes_on_when_there_is_room(sqlite_url: str) -> None:
    with closing(open_store(sqlite_url, CHANNEL)) as sink:
        chain = RowChain()
        first = chain.block(writes=[put(key("a"), b"1")])
        large = chain.block(writes=[put(key("b"), b"x" * 1_000_000)])
        sink.commit(None, [first], checkpoint_after(first), anchor="unpinned")

        def limit(connection: sqlite3.Connection, _record: object) -> None:
            (pages,) = connection.execute("PRAGMA page_count").fetchone()
            connection.execute(f"PRAGMA max_page_count = {pages}")

        event.listen(sink.database.engine, "connect", limit)
        sink.close()
        with pytest.raises(SinkFullError):
            sink.commit(checkpoint_after(first), [large], checkpoint_after(large), anchor="unpinned")
        assert sink.checkpoint() == checkpoint_after(first)

        event.remove(sink.database.engine, "connect", limit)
        sink.close()
        sink.commit(checkpoint_after(first), [large], checkpoint_after(large), anchor="unpinned")
        assert sink.checkpoint() == checkpoint_after(large)


def test_file_locked_by_another_is_unavailable(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kvr_sync.store.database.LOCK_SECONDS", 0.05)
    open_store(sqlite_url, CHANNEL).close()
    with open_database(sqlite_url, CHANNEL).engine.begin(), pytest.raises(SinkUnavailableError) as caught:
        open_store(sqlite_url, CHANNEL)
    assert caught.value.retryable


def test_reading_goes_on_while_another_writes(sqlite_url: str) -> None:
    with closing(open_store(sqlite_url, CHANNEL)) as sink, open_database(sqlite_url, CHANNEL).engine.begin():
        assert sink.status().codes == {}


def test_every_open_error_is_ours(tmp_path: Path) -> None:
    for url in (f"sqlite:///{tmp_path}/a\0b.db", "sqlite:///" + "a" * 5000, "postgresql://[::1", "postgresql:///%00"):
        with pytest.raises(KvrSyncError):
            open_store(url, CHANNEL)


def test_no_name_needs_quotes() -> None:
    tables = ledger_tables(None)
    mapped_tables(request_mapping(), tables)
    names = {table.name for table in tables.metadata.sorted_tables}
    names |= {column.name for table in tables.metadata.sorted_tables for column in table.columns}
    preparer = create_engine("postgresql+psycopg://").dialect.identifier_preparer

    assert {name for name in names if preparer.quote(name) != name} == set()
    with closing(sqlite3.connect(":memory:")) as connection:  # SQLAlchemy quotes more there than SQLite wants
        for name in sorted(names):
            connection.execute(f"CREATE TABLE {name} ({name} TEXT)")
            connection.execute(f"SELECT {name}, {name}.{name} AS {name} FROM {name}")  # noqa: S608  our own names


def test_mapped_table_with_a_name_that_is_taken_is_refused() -> None:
    tables = ledger_tables(None)
    mapped_tables(request_mapping(), tables)

    with pytest.raises(ConfigurationError, match="table request"):
        mapped_tables(request_mapping(), tables)
