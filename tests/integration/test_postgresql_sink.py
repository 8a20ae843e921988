"""What only a server can do wrong: links that break, sessions that end, settings that do not fit."""

import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import URL, make_url

from kvr_sync.errors import (
    CommitOutcomeUnknownError,
    ConfigurationError,
    SinkError,
    SinkReadOnlyError,
    SinkUnavailableError,
)
from kvr_sync.store.opening import open_store
from kvr_sync.store.sink import AFTER_ROWS, BEFORE_COMMIT
from tests.support.postgresql import connect, fresh_database
from tests.support.row_batch import RowChain, checkpoint_after, key, put

CHANNEL = "consortium"
PORT = 5432


class ReplySwallower:
    """Stands between client and server; once armed it hands a COMMIT on and cuts the link when the reply comes."""

    def __init__(self, folder: Path, server: URL) -> None:
        self.folder = folder
        self.swallowed = threading.Event()
        self.armed = threading.Event()
        self._target = server
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(folder / f".s.PGSQL.{PORT}"))
        self._listener.listen()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(10)

    def _accept(self) -> None:
        with suppress(OSError):  # the listener was closed
            while True:
                client, _ = self._listener.accept()
                thread = threading.Thread(target=self._serve, args=(client,))
                self._threads.append(thread)
                thread.start()

    def _serve(self, client: socket.socket) -> None:
        committing = threading.Event()
        with client, self._to_server() as server:
            upward = threading.Thread(target=self._pump, args=(client, server, committing))
            upward.start()
            with suppress(OSError):
                while reply := server.recv(65536):
                    if committing.is_set() and b"COMMIT\0" in reply:
                        self.swallowed.set()
                        break
                    client.sendall(reply)
            for end in (client, server):
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
            upward.join(10)

    def _pump(self, client: socket.socket, server: socket.socket, committing: threading.Event) -> None:
        with suppress(OSError):
            while request := client.recv(65536):
                if self.armed.is_set() and b"COMMIT\0" in request:
                    committing.set()
                server.sendall(request)
            server.shutdown(socket.SHUT_WR)

    def _to_server(self) -> socket.socket:
        host, port = self._target.query.get("host") or self._target.host or "localhost", self._target.port or PORT
        if str(host).startswith("/"):
            server = socket.socket(socket.AF_UNIX)
            server.connect(f"{host}/.s.PGSQL.{port}")
            return server
        return socket.create_connection((str(host), port))


@contextmanager
def swallower(tmp_path: Path, url: str) -> Iterator[tuple[ReplySwallower, str]]:
    """Give a proxy and the address that leads through it."""
    parsed = make_url(url)
    with closing(ReplySwallower(tmp_path, parsed)) as proxy:
        through = URL.create(
            "postgresql", parsed.username, parsed.password, None, None, parsed.database, {"host": str(tmp_path)}
        )
        yield proxy, through.render_as_string(hide_password=False)


def end_sessions(url: str) -> None:
    """End the sinks' sessions, as an operator or a crash of their server process would."""
    with connect(make_url(url)) as connection:
        ended = connection.execute(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
            " WHERE application_name = 'kvr-sync' AND datname = current_database()"
        ).fetchall()
    assert ended == [(True,)]


def test_swallowed_reply_to_commit_is_settled_as_applied(tmp_path: Path, postgresql_url: str) -> None:
    chain = RowChain()
    genesis, block = chain.block(), chain.block(writes=[put(key("a"), b"1")])
    with swallower(tmp_path, postgresql_url) as (proxy, url), closing(open_store(url, CHANNEL)) as sink:
        sink.commit(None, [genesis], checkpoint_after(genesis), anchor="unpinned")
        proxy.armed.set()
        with pytest.raises(CommitOutcomeUnknownError):
            sink.commit(checkpoint_after(genesis), [block], checkpoint_after(block), anchor="unpinned")
        assert proxy.swallowed.is_set()
        proxy.armed.clear()

        assert sink.settle(checkpoint_after(genesis), checkpoint_after(block))
        assert sink.checkpoint() == checkpoint_after(block)


def test_session_ended_before_commit_is_settled_as_not_applied(postgresql_url: str) -> None:
    armed = False

    def hook(point: str) -> None:
        if armed and point == BEFORE_COMMIT:
            end_sessions(postgresql_url)

    chain = RowChain()
    genesis, block = chain.block(), chain.block(writes=[put(key("a"), b"1")])
    with closing(open_store(postgresql_url, CHANNEL, hook=hook)) as sink:
        sink.commit(None, [genesis], checkpoint_after(genesis), anchor="unpinned")
        armed = True
        with pytest.raises(CommitOutcomeUnknownError):
            sink.commit(checkpoint_after(genesis), [block], checkpoint_after(block), anchor="unpinned")
        armed = False

        assert not sink.settle(checkpoint_after(genesis), checkpoint_after(block))
        sink.commit(checkpoint_after(genesis), [block], checkpoint_after(block), anchor="unpinned")
        assert sink.checkpoint() == checkpoint_after(block)


def test_session_ended_between_commits_is_unavailable_and_then_works(postgresql_url: str) -> None:
    chain = RowChain()
    genesis, block = chain.block(), chain.block()
    with closing(open_store(postgresql_url, CHANNEL)) as sink:
        sink.commit(None, [genesis], checkpoint_after(genesis), anchor="unpinned")
        end_sessions(postgresql_url)

        with pytest.raises(SinkUnavailableError):
            sink.commit(checkpoint_after(genesis), [block], checkpoint_after(block), anchor="unpinned")
        sink.commit(checkpoint_after(genesis), [block], checkpoint_after(block), anchor="unpinned")


def test_settling_waits_for_the_lost_session(postgresql_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kvr_sync.store.database.LOCK_SECONDS", 0.2)
    chain = RowChain()
    genesis, block = chain.block(), chain.block()
    outcome = []

    def hook(point: str) -> None:
        if point == AFTER_ROWS:
            with pytest.raises(SinkUnavailableError) as caught:
                other.settle(None, checkpoint_after(genesis))
            outcome.append(caught.value.retryable)

    with (
        closing(open_store(postgresql_url, CHANNEL)) as other,
        closing(open_store(postgresql_url, CHANNEL, hook=hook)) as sink,
    ):
        sink.commit(None, [genesis], checkpoint_after(genesis), anchor="unpinned")
        assert other.settle(None, checkpoint_after(genesis))
        other.commit(checkpoint_after(genesis), [block], checkpoint_after(block), anchor="unpinned")
    assert outcome == [True]


def test_second_writer_waits_only_so_long_for_the_first(postgresql_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kvr_sync.store.database.LOCK_SECONDS", 0.2)
    genesis = RowChain().block()
    position = checkpoint_after(genesis)
    refused = []

    def hook(point: str) -> None:
        if point == BEFORE_COMMIT:
            with pytest.raises(SinkUnavailableError) as caught:
                second.commit(None, [genesis], position, anchor="unpinned")
            refused.append(caught.value)

    with (
        closing(open_store(postgresql_url, CHANNEL)) as second,
        closing(open_store(postgresql_url, CHANNEL, hook=hook)) as sink,
    ):
        sink.commit(None, [genesis], position, anchor="unpinned")
        assert sink.checkpoint() == position
    assert len(refused) == 1


def test_rejects_database_in_another_encoding(postgresql_server: URL) -> None:
    with (
        fresh_database(postgresql_server, encoding="SQL_ASCII") as url,
        pytest.raises(ConfigurationError, match="SQL_ASCII"),
    ):
        open_store(url.render_as_string(hide_password=False), CHANNEL)


def test_rejects_database_that_takes_no_writes(postgresql_url: str) -> None:
    url = make_url(postgresql_url).update_query_dict({"options": "-c default_transaction_read_only=on"})

    with pytest.raises(SinkReadOnlyError):
        open_store(url.render_as_string(hide_password=False), CHANNEL)


def test_rejects_user_without_rights(postgresql_url: str) -> None:
    parsed = make_url(postgresql_url)
    role = f"reader_{parsed.database}"
    with connect(parsed) as connection:
        connection.execute(psycopg.sql.SQL("CREATE ROLE {}").format(psycopg.sql.Identifier(role)))
        try:
            url = parsed.update_query_dict({"options": f"-c role={role}"})
            with pytest.raises(ConfigurationError, match="may not; their owner runs `kvr sync migrate`"):
                open_store(url.render_as_string(hide_password=False), CHANNEL)
        finally:
            connection.execute(psycopg.sql.SQL("DROP ROLE {}").format(psycopg.sql.Identifier(role)))


def test_database_that_does_not_exist_is_unavailable(postgresql_server: URL) -> None:
    url = postgresql_server.set(database="no_such_database")

    with pytest.raises(SinkUnavailableError, match="no connection"):
        open_store(url.render_as_string(hide_password=False), CHANNEL)


def test_asynchronous_commit_is_switched_on_again(postgresql_url: str) -> None:
    url = make_url(postgresql_url).update_query_dict({"options": "-c synchronous_commit=off"})

    with (
        closing(open_store(url.render_as_string(hide_password=False), CHANNEL)) as sink,
        sink.database.engine.connect() as connection,
    ):
        settings = [
            connection.exec_driver_sql(f"SHOW {name}").scalar_one()
            for name in ("synchronous_commit", "application_name", "timezone", "lock_timeout")
        ]
    assert settings == ["on", "kvr-sync", "UTC", "10s"]


def test_staging_tables_hold_nothing_between_commits_and_go_with_the_session(postgresql_url: str) -> None:
    chain = RowChain()
    with closing(open_store(postgresql_url, CHANNEL)) as sink:
        block = chain.block(writes=[put(key("a"), b"1")])
        sink.commit(None, [block], checkpoint_after(block), anchor="unpinned")
    with connect(make_url(postgresql_url)) as connection:
        left = connection.execute("SELECT count(*) FROM pg_class WHERE relname LIKE 'kvr_stage_%'").fetchone()
    assert left == (0,)


def test_messages_hold_no_value(postgresql_url: str) -> None:
    value = "4111-1111-1111-1111"
    chain = RowChain()
    block = chain.block(writes=[put(key("a"), b"1")])
    with closing(open_store(postgresql_url, CHANNEL)) as sink:
        with connect(make_url(postgresql_url)) as connection:
            connection.execute(
                "ALTER TABLE consortium.ledger_key_history ADD CONSTRAINT mine CHECK (length(value) < 5)"
            )
        bad = chain.block(writes=[put(key("a"), value.encode())])
        sink.commit(None, [block], checkpoint_after(block), anchor="unpinned")
        with pytest.raises(SinkError) as caught:
            sink.commit(checkpoint_after(block), [bad], checkpoint_after(bad), anchor="unpinned")

    assert "CheckViolation" in str(caught.value)
    assert value not in str(caught.value)
    assert caught.value.__cause__ is None
