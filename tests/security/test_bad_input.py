"""Whatever is given to the command: one clear message, exit status 1, and the database as it was."""

import os
import shutil
import socket
import sqlite3
import struct
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import zstandard
from fabric_protos.common import common_pb2
from psycopg import sql
from sqlalchemy import URL, Engine, event, make_url
from typer.testing import CliRunner

from kvr_sync import errors
from kvr_sync.changes import extract_changes
from kvr_sync.decode import decode_block
from kvr_sync.jobs import SyncSettings, sync_once
from kvr_sync.main import sync
from kvr_sync.model import Checkpoint
from kvr_sync.replay_state import StateReplay, check_commit_hash
from kvr_sync.store import database
from kvr_sync.verify import ChainVerifier
from network.protocol.errors import DecodeError
from network.protocol.limits import MAX_BLOCK_BYTES, MAX_METADATA_SLOTS, MAX_TRANSACTIONS_PER_BLOCK
from tests.support import requirement
from tests.support.archived import archived_contents, write_archive
from tests.support.chain_factory import ChainFactory
from tests.support.command import kvr_running
from tests.support.comparison import assert_tables_equal_oracle
from tests.support.evidence import wait_until
from tests.support.postgresql import connect, fresh_database
from tests.support.recorded_chain import change_block, load_chain, write_records
from tests.support.recorded_peer import command_options, peer_settings, recorded_peer
from tests.support.tables import query

ROOT = Path(__file__).parents[2]
OUTCOMES = ROOT / "tests" / "support" / "outcomes.mapping.yaml"
SERVICE_WEEK = ROOT / "network" / "demo_data" / "service-week.mapping.yaml"
CHAIN = load_chain("fabric-3.1.5-raft")
APPLIED = 20
NEXT = CHAIN.blocks[APPLIED]


def refusal(*arguments: str | Path) -> str:
    """Run `kvr sync replay`, which must refuse; give its message."""
    result = CliRunner().invoke(sync, ["replay", *map(str, arguments)])

    assert isinstance(result.exception, SystemExit), result.exception  # not an exception of anybody else
    assert result.exit_code == 1
    assert result.stdout == ""
    return result.stderr.removesuffix("\n")


def contents(url: str) -> dict[str, list[str]]:
    """Give every row of every table, but for the record of runs; nothing where there is no database yet."""
    parsed = make_url(url)
    if parsed.drivername == "sqlite":
        if not Path(str(parsed.database)).exists():
            return {}
        with closing(sqlite3.connect(f"file:{parsed.database}?mode=ro", uri=True)) as connection:
            names = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            tables = {name: connection.execute(f"SELECT * FROM {name}").fetchall() for name in names}  # noqa: S608
    else:
        with connect(parsed) as session:
            found = session.execute(
                "SELECT schemaname, tablename FROM pg_tables"
                # Temporary tables are a session's own, and go while it ends.
                " WHERE schemaname NOT IN ('pg_catalog', 'information_schema') AND schemaname !~ '^pg_temp_'"
            ).fetchall()
            tables = {
                ".".join(name): session.execute(sql.SQL("SELECT * FROM {}").format(sql.Identifier(*name))).fetchall()
                for name in found
            }
    return {name: sorted(map(repr, rows)) for name, rows in tables.items() if not name.endswith("sync_run")}


@pytest.fixture(scope="module")
def filled_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("filled")
    path = folder / "kvr.db"
    settings = SyncSettings(write_records(folder / "blocks", CHAIN.blocks[:APPLIED]), f"sqlite:///{path}", OUTCOMES)
    sync_once(settings)
    return path


@pytest.fixture
def filled_sqlite(filled_file: Path, tmp_path: Path) -> str:
    """Give an SQLite file with the first blocks in it."""
    return f"sqlite:///{shutil.copy(filled_file, tmp_path / 'kvr.db')}"


@pytest.fixture
def filled_postgresql(postgresql_url: str, tmp_path: Path) -> str:
    """Give a PostgreSQL database with the first blocks in it."""
    sync_once(SyncSettings(write_records(tmp_path / "first", CHAIN.blocks[:APPLIED]), postgresql_url, OUTCOMES))
    return postgresql_url


# --- files


def damaged(position: int) -> Callable[[bytes], bytes]:
    return lambda content: content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :]


def with_metadata(slot: int, change: Callable[[bytes], bytes]) -> bytes:
    def apply(block: Any) -> None:
        block.metadata.metadata[slot] = change(block.metadata.metadata[slot])

    return change_block(NEXT, apply)


def with_header(**fields: Any) -> bytes:
    def apply(block: Any) -> None:
        for name, value in fields.items():
            setattr(block.header, name, value)

    return change_block(NEXT, apply)


def without_metadata() -> bytes:
    return change_block(NEXT, lambda block: block.ClearField("metadata"))


def other_channel() -> bytes:
    return ChainFactory(channel="other").genesis()


def many_transactions() -> bytes:
    header = NEXT[: 2 + NEXT[1]]
    data = b"\x0a\x00" * (MAX_TRANSACTIONS_PER_BLOCK + 1)
    return header + b"\x12" + common_pb2.BlockData().SerializeToString() + _varint(len(data)) + data


def many_slots() -> bytes:
    return change_block(NEXT, lambda block: block.metadata.metadata.extend([b""] * MAX_METADATA_SLOTS))


def _varint(number: int) -> bytes:
    low, rest = number & 0x7F, number >> 7
    return bytes([low | 0x80]) + _varint(rest) if rest else bytes([low])


def _records(*blocks: bytes) -> bytes:
    return b"".join(struct.pack(">I", len(block)) + block for block in blocks)


BEFORE = CHAIN.blocks[:APPLIED]
BAD_FILES: dict[str, tuple[Callable[[], bytes], str, str]] = {
    # name: content, code, words
    "empty": (lambda: b"", "decode_error", "the file is empty"),
    "truncated": (lambda: _records(*BEFORE, NEXT)[:-9], "decode_error", f"ends inside record {APPLIED},"),
    "truncated and compressed": (
        lambda: zstandard.compress(_records(*BEFORE, NEXT))[:-900],
        "decode_error",
        "compressed data ends too early",
    ),
    "damaged compression": (
        lambda: zstandard.compress(_records(*BEFORE)) + b"\xff" * 99,
        "decode_error",
        "damaged compressed data",
    ),
    "of another kind": (lambda: b"%PDF-1.7\n" * 9, "decode_error", "neither recorded blocks nor an exported block"),
    "oversized record": (
        lambda: _records(*BEFORE) + struct.pack(">I", MAX_BLOCK_BYTES + 1) + bytes(99),
        "decode_error",
        f"record {APPLIED} at byte {len(_records(*BEFORE))} claims {MAX_BLOCK_BYTES + 1} bytes",
    ),
    "a record that is no block": (lambda: _records(*BEFORE, b"\x0a\xff\xff"), "decode_error", f"record {APPLIED}"),
    "too many transactions": (lambda: _records(*BEFORE, many_transactions()), "decode_error", f"record {APPLIED}"),
    "too many metadata slots": (lambda: _records(*BEFORE, many_slots()), "decode_error", f"record {APPLIED}"),
    "a block missing": (lambda: _records(*BEFORE, CHAIN.blocks[APPLIED + 1]), "block_number", "block 20 was expected"),
    "a block twice": (lambda: _records(*BEFORE, BEFORE[-1]), "block_number", "block 20 was expected, block 19 came"),
    "re-ordered": (
        lambda: _records(*BEFORE, CHAIN.blocks[APPLIED + 1], NEXT),
        "block_number",
        "block 20 was expected, block 21 came",
    ),
    "a block of another channel": (
        lambda: _records(*BEFORE, other_channel()),
        "channel_mismatch",
        "of channel 'other'",
    ),
    "another chain": (
        lambda: _records(*load_chain("fabric-3.1.5-bft").blocks[: APPLIED + 2]),
        "previous_hash",
        "this is another chain",
    ),
    "another number": (lambda: _records(*BEFORE, with_header(number=APPLIED + 5)), "block_number", "block 25 came"),
    "another previous hash": (
        lambda: _records(*BEFORE, with_header(previous_hash=bytes(32))),
        "previous_hash",
        "block 20 does not extend our chain",
    ),
    "a bit of the content": (lambda: _records(*BEFORE, damaged(len(NEXT) // 2)(NEXT)), "data_hash", "block 20"),
    "another data hash": (lambda: _records(*BEFORE, with_header(data_hash=bytes(32))), "data_hash", "block 20"),
    "a bit of the signature": (
        lambda: _records(*BEFORE, with_metadata(0, lambda slot: damaged(len(slot) - 1)(slot))),
        "block_signature",
        "block 20",
    ),
    "no metadata": (lambda: _records(*BEFORE, without_metadata()), "block_signature", "block 20 has 0 metadata slots"),
    "no flags": (
        lambda: _records(*BEFORE, with_metadata(2, lambda _: b"")),
        "validation_flags",
        "block 20 has 0 validation flags",
    ),
    "a flag too many": (
        lambda: _records(*BEFORE, with_metadata(2, lambda slot: slot + b"\0")),
        "validation_flags",
        "block 20",
    ),
    "no verdict": (lambda: _records(*BEFORE, with_metadata(2, lambda _: b"\xfe")), "validation_flags", "transaction 0"),
    "another verdict": (
        lambda: _records(*BEFORE, with_metadata(2, lambda slot: bytes([slot[0] ^ 11]) + slot[1:])),
        "commit_hash",
        "block 20",
    ),
    "another commit hash": (
        lambda: _records(*BEFORE, with_metadata(4, lambda slot: damaged(len(slot) - 1)(slot))),
        "commit_hash",
        "block 20",
    ),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_is_refused_by_name_and_nothing_of_it_is_applied(
    name: str, filled_sqlite: str, tmp_path: Path
) -> None:
    make, code, words = BAD_FILES[name]
    path = tmp_path / "bad"
    path.write_bytes(make())
    before = contents(filled_sqlite)

    message = refusal(path, "--database", filled_sqlite)

    assert message.startswith(f"error[{code}]: ")
    assert words in message
    assert "\n" not in message
    assert contents(filled_sqlite) == before


@pytest.mark.parametrize("name", ["truncated", "re-ordered", "a bit of the content", "another verdict"])
def test_a_bad_file_leaves_a_server_s_database_as_it_was_too(name: str, filled_postgresql: str, tmp_path: Path) -> None:
    make, code, words = BAD_FILES[name]
    path = tmp_path / "bad"
    path.write_bytes(make())
    before = contents(filled_postgresql)

    message = refusal(path, "--database", filled_postgresql)

    assert message.startswith(f"error[{code}]: ")
    assert words in message
    assert len(before) > 10
    assert contents(filled_postgresql) == before


def test_a_path_where_nothing_is_and_a_folder_without_blocks(filled_sqlite: str, tmp_path: Path) -> None:
    before = contents(filled_sqlite)
    folder = tmp_path / "folder"
    folder.mkdir()

    missing = refusal(tmp_path / "missing", "--database", filled_sqlite)
    without = refusal(folder, "--database", filled_sqlite)

    assert missing == f"error[source_unavailable]: {tmp_path / 'missing'}: no such file or folder"
    assert without == f"error[source_unavailable]: {folder}: the folder holds no .block file"
    assert contents(filled_sqlite) == before


def test_a_chain_of_another_channel_does_not_get_into_a_channel_s_file(filled_sqlite: str, tmp_path: Path) -> None:
    path = write_records(tmp_path / "blocks", [other_channel()])
    before = contents(filled_sqlite)

    message = refusal(path, "--database", filled_sqlite)

    assert message.startswith("error[configuration_error]: ")
    assert message.endswith("belongs to channel consortium, not to other; use another place")
    assert contents(filled_sqlite) == before


# --- databases


@pytest.mark.parametrize(
    ("url", "code", "words"),
    [
        ("nonsense", "configuration_error", "the database URL cannot be read"),
        ("", "configuration_error", "the database URL cannot be read"),
        ("postgresql://host:port/name", "configuration_error", "the database URL cannot be read"),
        ("mysql://host/name", "configuration_error", "databases of the kind 'mysql' are not supported"),
        ("sqlite://", "configuration_error", "name a file"),
        ("sqlite:////no/such/folder/kvr.db", "configuration_error", "the folder /no/such/folder does not exist"),
        ("postgresql://u:canary@127.0.0.1:1/kvr", "sink_unavailable", "postgresql://u:***@127.0.0.1:1/kvr: no conn"),
        ("postgresql:///kvr?host=/no/such/folder", "sink_unavailable", "no connection"),
    ],
)
def test_an_unusable_database_address_is_named_without_its_password(url: str, code: str, words: str) -> None:
    message = refusal(CHAIN.path, "--database", url)

    assert message.startswith(f"error[{code}]: ")
    assert words in message
    assert "canary" not in message


def test_a_server_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "CONNECT_SECONDS", 2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]

        message = refusal(CHAIN.path, "--database", f"postgresql://u@127.0.0.1:{port}/kvr")

    assert message.startswith("error[sink_unavailable]: ")


def test_a_database_that_is_not_there_is_named(postgresql_url: str) -> None:
    url = make_url(postgresql_url).set(drivername="postgresql", database="no_such_database")

    message = refusal(CHAIN.path, "--database", url.render_as_string(hide_password=False))

    assert message.startswith("error[sink_unavailable]: ")
    assert "no_such_database" in message


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_a_database_that_is_not_in_utf8_is_refused(encoding: str, postgresql_server: URL) -> None:
    with fresh_database(postgresql_server, encoding=encoding) as url:
        address = url.render_as_string(hide_password=False)

        message = refusal(CHAIN.path, "--database", address)

        assert message.startswith("error[configuration_error]: ")
        assert f"the database is encoded in {encoding}; create one in UTF8" in message
        assert contents(address) == {}


def test_a_file_that_is_no_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "letter.txt"
    path.write_text("Dear customer, " * 100)

    message = refusal(CHAIN.path, "--database", f"sqlite:///{path}")

    assert message == f"error[configuration_error]: sqlite:///{path}: the file is not an SQLite database"
    assert path.read_text() == "Dear customer, " * 100


READ_ONLY = """
import os, sys
from pathlib import Path
from kvr_sync.errors import KvrSyncError
from kvr_sync.jobs import SyncSettings, sync_once

source, writable, locked = sys.argv[1:]
sync_once(SyncSettings(Path(source), writable))  # whatever is imported on the way is imported now
if os.getuid() == 0:  # root may write anything
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
try:
    sync_once(SyncSettings(Path(source), locked))
except KvrSyncError as error:
    print(f"error[{error.code}]: {error}")
"""


def test_a_database_file_that_may_only_be_read_is_refused(filled_file: Path, tmp_path: Path) -> None:
    # Another user than root must get to it, and gets into no folder of pytest's.
    with tempfile.TemporaryDirectory(prefix="kvr-") as name:
        folder = Path(name)
        locked = Path(shutil.copy(filled_file, folder / "kvr.db"))
        source = shutil.copy(CHAIN.path, folder / "blocks.zst")
        locked.chmod(0o444)
        folder.chmod(0o555)
        url = f"sqlite:///{locked}"
        before = contents(url)

        found = subprocess.run(
            [sys.executable, "-c", READ_ONLY, source, f"sqlite:///{tmp_path / 'writable.db'}", url],
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )

        assert found.stdout.startswith(f"error[sink_read_only]: {url}: "), found.stderr
        assert contents(url) == before
        folder.chmod(0o755)


def test_a_server_that_takes_no_writes_is_refused(filled_postgresql: str) -> None:
    parsed = make_url(filled_postgresql)
    before = contents(filled_postgresql)
    with connect(parsed) as session:
        name = sql.Identifier(str(parsed.database))
        session.execute(sql.SQL("ALTER DATABASE {} SET default_transaction_read_only = on").format(name))

    message = refusal(CHAIN.path, "--database", filled_postgresql)

    assert message.startswith("error[sink_read_only]: ")
    assert contents(filled_postgresql) == before


def test_a_user_without_rights_is_refused(filled_postgresql: str, postgresql_server: URL) -> None:
    parsed = make_url(filled_postgresql)
    role = f"kvr_reader_{parsed.database}"
    before = contents(filled_postgresql)
    with connect(postgresql_server) as session:
        session.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(role), sql.Literal(role)))
        try:
            url = parsed.set(username=role, password=role).render_as_string(hide_password=False)

            message = refusal(CHAIN.path, "--database", url)
        finally:
            session.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))

    assert message.startswith("error[sink_read_only]: ")
    assert contents(filled_postgresql) == before


def change_sqlite(url: str, statement: str) -> None:
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection, connection:
        connection.execute(statement)


@pytest.mark.parametrize(
    ("statement", "code", "words"),
    [
        ("UPDATE alembic_version SET version_num = 'r9999'", "schema_drift", "r9999"),
        ("ALTER TABLE ledger_block ADD COLUMN extra INTEGER", "schema_drift", "ledger_block.extra"),
        ("DROP TABLE ledger_event", "schema_drift", "ledger_event"),
        ("DELETE FROM ledger_checkpoint", "checkpoint_conflict", "there are rows up to block 19 but no checkpoint"),
        ("DELETE FROM ledger_block WHERE block_number = 19", "checkpoint_conflict", "the checkpoint is at block 19"),
        ("UPDATE ledger_checkpoint SET channel = 'other'", "configuration_error", "belongs to channel other"),
        ("UPDATE ledger_config SET content = x'ff'", "configuration_error", "the stored configuration of channel"),
        ("DELETE FROM ledger_config", "schema_drift", "no configuration"),
    ],
)
def test_a_database_of_a_newer_version_or_changed_by_hand_is_refused(
    statement: str, code: str, words: str, filled_sqlite: str
) -> None:
    change_sqlite(filled_sqlite, statement)
    before = contents(filled_sqlite)

    message = refusal(CHAIN.path, "--database", filled_sqlite)

    assert message.startswith(f"error[{code}]: ")
    assert words in message
    assert contents(filled_sqlite) == before


@contextmanager
def room_for(pages: int) -> Iterator[None]:
    """Limit how large SQLite files may become, as the library itself enforces it."""

    def limit(connection: sqlite3.Connection, _: object) -> None:
        if isinstance(connection, sqlite3.Connection):
            connection.execute(f"PRAGMA max_page_count = {pages}")

    event.listen(Engine, "connect", limit)
    try:
        yield
    finally:
        event.remove(Engine, "connect", limit)


def test_a_full_database_file_is_named_and_work_goes_on_when_there_is_room(filled_sqlite: str) -> None:
    before = contents(filled_sqlite)
    pages = Path(filled_sqlite.removeprefix("sqlite:///")).stat().st_size // 4096

    with room_for(pages + 10):
        message = refusal(CHAIN.path, "--database", filled_sqlite)

    assert message.startswith(f"error[sink_full]: {filled_sqlite}: ")
    assert contents(filled_sqlite) == before
    sync_once(SyncSettings(CHAIN.path, filled_sqlite))
    assert_tables_equal_oracle(filled_sqlite, CHAIN.blocks, OUTCOMES)


@contextmanager
def small_volume(mebibytes: int) -> Iterator[Path]:
    """Mount a small file system; the test ends here as not exercised where that is not allowed."""
    folder = Path(tempfile.mkdtemp(prefix="kvr-volume-"))
    try:
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "tmpfs", str(folder)], capture_output=True, check=False
        )
        if mounted.returncode:
            requirement.missing("tmpfs", "a small volume to fill up cannot be mounted (needs root)")
        try:
            yield folder
        finally:
            subprocess.run(["umount", str(folder)], check=True)
    finally:
        folder.rmdir()


def test_a_full_volume_of_a_server_is_named_and_work_goes_on_when_there_is_room(
    postgresql_server: URL, tmp_path: Path
) -> None:
    chain = load_chain("fabric-3.1.5-service-week")
    with small_volume(32) as folder, connect(postgresql_server) as session:
        (data,) = session.execute("SHOW data_directory").fetchone() or ("",)
        if not Path(data).exists():
            requirement.missing("tmpfs", "the PostgreSQL server is on another machine")
        os.chown(folder, Path(data).stat().st_uid, Path(data).stat().st_gid)
        session.execute(sql.SQL("CREATE TABLESPACE small LOCATION {}").format(sql.Literal(str(folder))))
        session.execute("CREATE DATABASE kvr_test_full TEMPLATE template0 ENCODING 'UTF8' TABLESPACE small")
        try:
            url = postgresql_server.set(database="kvr_test_full").render_as_string(hide_password=False)
            sync_once(SyncSettings(write_records(tmp_path / "blocks", chain.blocks[:30]), url, SERVICE_WEEK))
            before = contents(url)
            filler = folder / "filler"
            filler.write_bytes(bytes(shutil.disk_usage(folder).free - (256 << 10)))

            message = refusal(chain.path, "--database", url)

            assert message.startswith("error[sink_full]: ")
            assert contents(url) == before
            filler.unlink()
            sync_once(SyncSettings(chain.path, url))
            assert_tables_equal_oracle(url, chain.blocks, SERVICE_WEEK)
        finally:
            session.execute("DROP DATABASE kvr_test_full WITH (FORCE)")
            session.execute("DROP TABLESPACE small")


def test_a_full_volume_of_an_archive_is_named_and_work_goes_on_when_there_is_room(
    filled_sqlite: str,
) -> None:
    before = contents(filled_sqlite)
    with small_volume(1) as archive:
        folder = write_archive(archive, CHAIN.blocks[:APPLIED])
        files = {path: path.read_bytes() for path in folder.glob("*.segment")}
        filler = archive / "filler"
        filler.write_bytes(bytes(shutil.disk_usage(archive).free))

        message = refusal(CHAIN.path, "--database", filled_sqlite, "--archive", archive)

        assert message == f"error[archive_full]: {folder}: No space left on device"
        assert contents(filled_sqlite) == before
        assert {path: path.read_bytes() for path in folder.glob("*.segment")} == files
        filler.unlink()
        sync_once(SyncSettings(CHAIN.path, filled_sqlite, archive=archive))
        assert archived_contents(folder) == list(CHAIN.blocks)
    assert_tables_equal_oracle(filled_sqlite, CHAIN.blocks, OUTCOMES)


def test_a_follower_waits_for_room_in_its_archive(sqlite_url: str, tmp_path: Path) -> None:
    with small_volume(1) as archive, recorded_peer(CHAIN.blocks) as peer:
        filler = archive / "filler"
        filler.write_bytes(bytes(shutil.disk_usage(archive).free - 4096))
        log = tmp_path / "log"
        options = ("--into", sqlite_url, "--mapping", str(OUTCOMES), "--archive", str(archive))
        with kvr_running(log, "sync", "follow", *command_options(peer_settings(tmp_path, [peer])), *options) as process:
            wait_until(lambda: log.read_text().count('"archive_full"') > 1, "it has tried twice")
            assert process.poll() is None
            assert query(sqlite_url, "SELECT count(*) FROM ledger_block") == [(0,)]
            filler.unlink()
            wait_until(
                lambda: query(sqlite_url, "SELECT count(*) FROM ledger_block") == [(len(CHAIN.blocks),)],
                f"every block is applied: {log.read_text()}",
            )
            process.terminate()
            assert process.wait(30) == 0
        assert archived_contents(archive / "consortium") == list(CHAIN.blocks)


# --- mappings

GOOD_MAPPING = OUTCOMES.read_text()
ITEMS = """\
kvr_mapping: 1
tables:
  items:
    namespace: ext
    key: {prefix: a}
    columns:
      id: {from: key, type: text}
"""
BAD_MAPPINGS: dict[str, tuple[bytes, str]] = {
    # name: content, words (after the file's name)
    "empty": (b"", ":1: "),
    "no YAML": (b"tables: [", ":1: "),
    "not UTF-8": (b"kvr_mapping: 1\n# \xff\n", ":2: "),
    "a list": (b"- a\n- b\n", ":1: "),
    "another version": (b"kvr_mapping: 99\ntables: {}\n", ":1: "),
    "an unknown word": (b"kvr_mapping: 1\ntabels: {}\n", ":2: "),
    "a key twice": (b"kvr_mapping: 1\ntables:\n  a: {}\n  a: {}\n", ":4: "),
    "an alias": (b"kvr_mapping: 1\ntables: &a\n  b: *a\n", ":2: "),
    "an unknown type": (ITEMS.replace("text", "varchar").encode(), ":7: "),
    "a reserved name": (ITEMS.replace("items", "ledger_block").encode(), ":3: "),
    "too large": (b"# " + b"x" * (4 << 20), ":1: "),
}


@pytest.mark.parametrize("name", BAD_MAPPINGS)
def test_a_bad_mapping_is_refused_by_file_and_line_before_anything_is_made(
    name: str, sqlite_url: str, tmp_path: Path
) -> None:
    content, words = BAD_MAPPINGS[name]
    path = tmp_path / "bad.mapping.yaml"
    path.write_bytes(content)

    message = refusal(CHAIN.path, "--database", sqlite_url, "--mapping", path)

    assert message.startswith("error[configuration_error]: ")
    lines = message.removeprefix("error[configuration_error]: ").splitlines()
    assert all(line.startswith(f"{path}:") for line in lines), lines
    assert f"{path}{words}" in message
    assert not Path(sqlite_url.removeprefix("sqlite:///")).exists()


def test_a_mapping_that_is_not_there_or_a_folder_is_named(sqlite_url: str, tmp_path: Path) -> None:
    for path in (tmp_path / "missing.yaml", tmp_path):
        message = refusal(CHAIN.path, "--database", sqlite_url, "--mapping", path)

        assert message.startswith(f"error[configuration_error]: {path}: ")
        assert "\n" not in message


def test_another_mapping_than_the_recorded_one_is_refused(filled_sqlite: str) -> None:
    before = contents(filled_sqlite)

    message = refusal(CHAIN.path, "--database", filled_sqlite, "--mapping", SERVICE_WEEK)

    assert message.startswith("error[configuration_error]: ")
    assert "was made with another mapping" in message
    assert contents(filled_sqlite) == before


# --- every byte

PROBED_BLOCK = 25
"""Three transactions, two of them refused."""
STEP = 2
"""One byte in so many is flipped, and from byte to byte another bit."""


def parts(content: bytes) -> list[str]:
    """Name the part of a block that each byte is in: header fields, data, metadata slots, and the frames of these."""
    names = ["frame"] * len(content)
    for field, start, end in fields(content, 0, len(content)):
        if field == 1:
            for inner, first, last in fields(content, start, end):
                names[first:last] = [f"header[{inner}]"] * (last - first)
        elif field == 2:
            names[start:end] = ["data"] * (end - start)
        else:
            for slot, (_, first, last) in enumerate(fields(content, start, end)):
                names[first:last] = [f"metadata[{slot}]"] * (last - first)
    return names


def fields(content: bytes, position: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Give number, beginning and end of each field of a message."""
    while position < end:
        number, kind = content[position] >> 3, content[position] & 7
        position += 1
        length, shift, start = 0, 0, position
        while content[position] & 0x80:
            length |= (content[position] & 0x7F) << shift
            position, shift = position + 1, shift + 7
        length |= content[position] << shift
        position += 1
        if kind == 0:
            yield number, start, position
        else:
            yield number, position, position + length
            position += length


def state_before(number: int) -> tuple[Checkpoint, bytes]:
    """Give the checkpoint before a block, and the configuration in force, which is that of block 0."""
    verifier, replay, config = ChainVerifier(), StateReplay(lambda _: {}, None), b""
    for content in CHAIN.blocks[:number]:
        verified = verifier.verify(decode_block(content), content)
        changes = extract_changes(verified)
        replayed = check_commit_hash(replay.replay(changes), verified.block.commit_hash)
        if changes.config is not None:
            config = changes.config.envelope
    return Checkpoint(number - 1, changes.header_hash, replayed.commit_hash), config


def test_no_flipped_bit_of_a_block_gets_through() -> None:
    """Every part is covered by a hash, a signature, the commit hash or the form of a block.

    Two parts that nothing covers are empty in blocks of Fabric 3, so that their bytes cannot be flipped: the metadata
    slots LAST_CONFIG (its content is in SIGNATURES too, signed) and ORDERER. Nothing of ours reads them.
    """
    content = CHAIN.blocks[PROBED_BLOCK]
    checkpoint, config = state_before(PROBED_BLOCK)
    verifier = ChainVerifier.resume("consortium", checkpoint, config, 0)
    names = parts(content)
    refused: Counter[str] = Counter()

    for position in range(0, len(content), STEP):
        flipped = bytearray(content)
        flipped[position] ^= 1 << position % 8
        try:
            check_block(verifier, checkpoint, bytes(flipped))
        except errors.CommitHashError:  # found after the verifier let it pass, and went on
            verifier = ChainVerifier.resume("consortium", checkpoint, config, 0)
        except (DecodeError, errors.VerificationError):
            pass
        else:
            pytest.fail(f"bit {position % 8} of byte {position} ({names[position]}) can be flipped")
        refused[names[position]] += 1

    check_block(verifier, checkpoint, content)
    assert set(refused) >= {"data", "metadata[0]", "metadata[2]", "metadata[4]", "header[2]", "header[3]", "frame"}


def check_block(verifier: ChainVerifier, checkpoint: Checkpoint, content: bytes) -> None:
    """Put a block through every check."""
    verified = verifier.verify(decode_block(content), content)
    replayed = StateReplay(lambda _: {}, checkpoint.commit_hash).replay(extract_changes(verified))
    check_commit_hash(replayed, verified.block.commit_hash)
