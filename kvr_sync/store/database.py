"""Where rows go: the database that a URL names, checked and ready to connect to.

`postgresql://user:password@host:port/name` (also `postgres://`) and `sqlite:///relative.db`, `sqlite:////absolute.db`.
"""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Protocol

import psycopg
from sqlalchemy import Connection, Engine, NullPool, create_engine, event, make_url, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError

from kvr_sync.errors import ConfigurationError, SinkReadOnlyError, SinkUnavailableError
from kvr_sync.store.channel_name import check_channel_id, schema_name
from kvr_sync.store.database_error import driver_errors

CONNECT_SECONDS = 10
"""Longest wait for a PostgreSQL server to answer."""

LOCK_SECONDS = 10
"""Longest wait for another session's lock, in both databases."""

STATEMENT_SECONDS = 600
"""Longest time of one statement; the COPY of a whole run of blocks is one."""

OLDEST_POSTGRESQL, NEWEST_POSTGRESQL = 15, 18
"""Major versions that the tests have run on; older ones are refused."""

READING = "kvr_reading"
"""Execution option of a connection whose transactions only read."""

_SUPPORTED = "supported are postgresql://user@host:port/name and sqlite:///file.db"


class Database(Protocol):
    """One database, for one channel."""

    place: str
    """How messages name it: the URL without password."""
    schema: str | None
    """The SQL schema of the channel; None in SQLite, where the file is the channel's."""
    engine: Engine
    """Opens a fresh connection each time. In SQLite a transaction keeps other writers out from its beginning, unless
    the connection has the execution option `READING`."""

    def check(self, *, create: bool) -> None:
        """Raise unless the database can be reached, is what it should be, and takes writes.

        A file that does not exist yet is made where `create` allows it.
        """

    def lock_for_migration(self, connection: Connection) -> None:
        """Wait until no other process creates or migrates this channel's tables; ends with the transaction."""

    def lock_for_settling(self, connection: Connection) -> None:
        """Wait until no other session holds uncommitted changes of the checkpoint; ends with the transaction."""


def open_database(url: str, channel: str) -> Database:
    """Give the database of a URL for a channel; nothing is connected or created yet.

    Raises ConfigurationError for an unusable URL or channel id; its text never shows a password.
    """
    check_channel_id(channel)
    parsed = parse_url(url)
    if parsed.drivername in {"postgresql", "postgres", "postgresql+psycopg"}:
        return PostgresqlDatabase(parsed.set(drivername="postgresql+psycopg"), channel)
    if parsed.drivername in {"sqlite", "sqlite+pysqlite"}:
        return SqliteDatabase(parsed)
    raise ConfigurationError(f"databases of the kind {parsed.drivername!r} are not supported: {_SUPPORTED}")


def parse_url(url: str) -> URL:
    """Read a database URL; raises ConfigurationError, whose text shows nothing of it, when it cannot be read."""
    try:
        parsed = make_url(url)
        for port in parsed.normalized_query.get("port", ()):
            int(port)
    except (ArgumentError, ValueError):  # a ValueError of int() for a port would show parts of the URL
        raise ConfigurationError(f"the database URL cannot be read: {_SUPPORTED}") from None
    return parsed


def shown_url(url: URL) -> str:
    """Give a URL as messages show it: without password, also where it stands among the options."""
    options = {name: "***" if "password" in name.lower() else value for name, value in url.query.items()}
    return url.set(query=options).render_as_string(hide_password=True)


def refuse_old_server(version_number: int, place: str) -> None:
    """Raise ConfigurationError for a PostgreSQL that is not supported any more; `version_number` as 150004 for 15.4."""
    major = version_number // 10_000
    if major < OLDEST_POSTGRESQL:
        supported = f"supported are {OLDEST_POSTGRESQL} to {NEWEST_POSTGRESQL}"
        raise ConfigurationError(f"{place}: PostgreSQL {major} is too old; {supported}")


def undurable_settings(connection: Connection) -> list[str]:
    """Give the settings of a PostgreSQL server by which what was committed may be lost or torn when its machine fails.

    Not `synchronous_commit`: a session of the engine switches that on for itself.
    """
    settings = ("fsync", "full_page_writes")
    return [name for name in settings if connection.scalar(text(f"SHOW {name}")) == "off"]


class PostgresqlDatabase:
    """A PostgreSQL server's database, reached by psycopg; the channel has a schema in it."""

    def __init__(self, url: URL, channel: str) -> None:
        self.place = shown_url(url.set(drivername="postgresql"))
        self.schema: str | None = schema_name(channel)
        self.engine = create_engine(url, creator=self._connect, poolclass=NullPool, hide_parameters=True)
        self._url = url

    def check(self, *, create: bool) -> None:  # noqa: ARG002  a server's database is never made by us
        """Raise unless the server answers (SinkUnavailableError), is new enough, is UTF-8 and takes writes."""
        with driver_errors(self.place), self.engine.connect() as connection:
            encoding = connection.scalar(text("SHOW server_encoding"))
            if encoding != "UTF8":
                raise ConfigurationError(f"{self.place}: the database is encoded in {encoding}; create one in UTF8")
            refuse_old_server(int(connection.scalar(text("SHOW server_version_num")) or 0), self.place)
            if connection.scalar(text("SHOW transaction_read_only")) == "on":
                raise SinkReadOnlyError(f"{self.place}: the database takes no writes (a standby, or set read-only)")

    def lock_for_migration(self, connection: Connection) -> None:
        """Take an advisory lock named after the schema: there may be nothing else to lock yet."""
        lock = text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))")
        connection.execute(lock, {"name": f"kvr {self.schema}"})

    def lock_for_settling(self, connection: Connection) -> None:
        """Lock the table against writers: a session whose COMMIT is still on its way holds a lock that conflicts."""
        schema = connection.dialect.identifier_preparer.quote_schema(self.schema or "")
        connection.exec_driver_sql(f"LOCK TABLE {schema}.ledger_checkpoint IN SHARE ROW EXCLUSIVE MODE")

    def _connect(self) -> psycopg.Connection[tuple[object, ...]]:
        arguments, options = self.engine.dialect.create_connect_args(self._url)
        options = {"connect_timeout": CONNECT_SECONDS, "application_name": "kvr-sync", **options}
        try:
            connection = psycopg.connect(*arguments, **options)
        except psycopg.OperationalError:
            message = f"{self.place}: no connection (server down, database missing, or access refused)"
            raise SinkUnavailableError(message) from None
        except psycopg.Error:
            raise ConfigurationError(f"{self.place}: the URL has options that PostgreSQL does not know") from None
        # Set here and not by start-up options, which connection poolers between us and the server refuse.
        connection.execute(
            "SELECT set_config('TimeZone', 'UTC', false), set_config('client_encoding', 'UTF8', false),"
            " set_config('lock_timeout', %s, false), set_config('statement_timeout', %s, false),"
            # A COMMIT that was acknowledged must survive; a stricter setting than "on" stays.
            " CASE current_setting('synchronous_commit')"
            " WHEN 'off' THEN set_config('synchronous_commit', 'on', false) END",
            (f"{LOCK_SECONDS}s", f"{STATEMENT_SECONDS}s"),
        )
        connection.commit()
        return connection


class SqliteDatabase:
    """An SQLite file; it belongs to one channel."""

    def __init__(self, url: URL) -> None:
        self.place = shown_url(url.set(drivername="sqlite"))
        self.schema: str | None = None
        if "\0" in (url.database or ""):
            raise ConfigurationError(f"{self.place!r}: this cannot be the name of a file")
        if not url.database or url.database == ":memory:":
            raise ConfigurationError(f"{self.place}: name a file; tables in memory end with the process")
        self._name = url.database
        self._is_uri = url.database.startswith("file:")
        self._url = url
        self.engine = create_engine("sqlite://", creator=self._connect, poolclass=NullPool, hide_parameters=True)
        event.listen(self.engine, "begin", _begin_immediate)

    def check(self, *, create: bool) -> None:
        """Raise unless the file is, or can become, an SQLite database that takes writes."""
        path = Path(self._name.removeprefix("file:"))
        try:
            is_folder, is_there, has_folder = path.is_dir(), path.exists(), path.parent.is_dir()
        except OSError:  # too long, a loop of links, no right to look
            raise ConfigurationError(f"{self.place}: this cannot be the name of a file") from None
        if is_folder:
            raise ConfigurationError(f"{self.place}: this is a folder; name a file")
        if not has_folder:
            raise ConfigurationError(f"{self.place}: the folder {path.parent} does not exist")
        if not create and not is_there:
            raise ConfigurationError(f"{self.place}: there is no such file; nothing has been synced here yet")
        with driver_errors(self.place), self.engine.connect() as connection, closing(connection.begin()):
            # SQLite finds out that it may not write only when it does. The number is ours and unused; this is undone.
            connection.exec_driver_sql("PRAGMA user_version = 1")

    def lock_for_migration(self, connection: Connection) -> None:
        """BEGIN IMMEDIATE has locked already."""

    def lock_for_settling(self, connection: Connection) -> None:
        """BEGIN IMMEDIATE has locked already."""

    def _connect(self) -> sqlite3.Connection:
        name, is_uri = self._name, self._is_uri
        if is_uri:
            query = "&".join(f"{key}={value}" for key, value in self._url.query.items() if key != "uri")
            name = f"{name}?{query}" if query else name
        # Transactions are begun and ended by us alone (isolation_level None). A scheduler may use the sink from another
        # thread than the one that opened it, though never from two at once.
        connection = sqlite3.connect(
            name, timeout=LOCK_SECONDS, isolation_level=None, check_same_thread=False, uri=is_uri
        )
        try:
            for statement in (
                "PRAGMA journal_mode = WAL",  # readers go on while a run of blocks is written
                "PRAGMA synchronous = FULL",  # an acknowledged COMMIT survives loss of power
                "PRAGMA foreign_keys = OFF",
                "PRAGMA secure_delete = ON",  # what is purged leaves the pages of the file
            ):
                connection.execute(statement)
        except sqlite3.Error:
            connection.close()
            raise
        return connection


def _begin_immediate(connection: Connection) -> None:
    # A transaction that begins by reading cannot always become a writing one in SQLite; this one asks at its beginning.
    connection.exec_driver_sql("BEGIN" if connection.get_execution_options().get(READING) else "BEGIN IMMEDIATE")
