"""Keys, values and passwords appear in no log, not even at DEBUG, and in no message."""

import base64
import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from fabric_protos.peer.lifecycle import db_pb2
from sqlalchemy import make_url
from typer.testing import CliRunner

from kvr_sync.jobs import SyncSettings, sync_once
from kvr_sync.log_format import log_to_stderr
from kvr_sync.main import audit, sync
from kvr_sync.service import ScheduledChannel, SyncService
from network.protocol.collection import CollectionConfig, encode_collections, members_policy
from network.protocol.private_data import collections_field_key
from tests.support.chain_factory import ChainFactory, TransactionSpec, private_set, put, rehash
from tests.support.postgresql import connect
from tests.support.recorded_chain import change_block, write_records
from tests.support.recorded_peer import Fault, command_options, peer_settings, recorded_peer
from tests.support.tables import query

ON_THE_LEDGER = ("key", "value", "argument", "event", "refused-key", "refused-value")
CANARIES = {
    name: f"canary-{name}-{sha256(name.encode()).hexdigest()[:12]}"
    for name in (*ON_THE_LEDGER, "private-key", "private-value", "password")
}
MAPPING = """\
kvr_mapping: 1
tables:
  items:
    namespace: ext
    key: {prefix: canary}
    columns:
      id: {from: key, type: text}
      amount: {json: amount, type: integer, required: true}
"""


def forms(canary: str) -> Iterator[str]:
    """Give the ways in which a value may be written: as text, in hexadecimal digits, in base64 at any offset."""
    content = canary.encode()
    yield canary
    yield content.hex()
    yield content.hex().upper()
    yield from (base64.b64encode(content[cut:])[:-4].decode() for cut in range(3))


def leaked(text: str) -> list[str]:
    return [name for name, canary in CANARIES.items() if any(form in text for form in forms(canary))]


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """Give everything that this process logs, at DEBUG, in the form of the service's log."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in ("alembic", "apscheduler", "sqlalchemy")}
    log_to_stderr(logging.DEBUG)
    stream = io.StringIO()
    (handler,) = root.handlers
    assert isinstance(handler, logging.StreamHandler)
    handler.setStream(stream)
    yield stream
    root.handlers[:], root.level = before
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


@pytest.fixture
def mapping(tmp_path: Path) -> Path:
    path = tmp_path / "items.mapping.yaml"
    path.write_text(MAPPING)
    return path


def chain() -> ChainFactory:
    """Make a chain with a canary wherever somebody's data can be."""
    factory = ChainFactory()
    factory.block([transaction(), transaction(code=11), TransactionSpec([put("plain", b"1")])])
    factory.block([transaction()])
    return factory


def transaction(code: int = 0) -> TransactionSpec:
    refused = "refused-" if code else ""
    return TransactionSpec(
        [
            put(CANARIES[f"{refused}key"], CANARIES[f"{refused}value"].encode()),
            put(CANARIES["private-key"], CANARIES["private-value"].encode(), collection="secrets"),
        ],
        code=code,
        arguments=[CANARIES["argument"].encode()],
        event=("opened", CANARIES["event"].encode()),
    )


def spoilt(change: Callable[[Any], None]) -> list[bytes]:
    """Give the chain with its last block changed."""
    *good, last = chain().blocks
    return [*good, change_block(last, change)]


def unreadable(block: Any) -> None:
    """Make what is flagged VALID unreadable; the envelope keeps its form, and its content."""
    content = block.data.data[0]
    at = content.index(CANARIES["value"].encode()) - 2
    block.data.data[0] = content[:at] + b"\xff\xff" + content[at + 2 :]
    rehash(block)


def another_value(block: Any) -> None:
    block.data.data[0] = block.data.data[0].replace(CANARIES["value"].encode(), CANARIES["value"].upper().encode())


def another_verdict(block: Any) -> None:
    block.metadata.metadata[2] = b"\x0b"


def signed_otherwise(block: Any) -> None:
    block.metadata.metadata[0] = block.metadata.metadata[0][:-1] + b"\0"


CHANGES = (unreadable, another_value, another_verdict, signed_otherwise)


def test_a_canary_can_be_found_at_all() -> None:
    value = CANARIES["value"]

    assert leaked(f"a {value} b") == ["value"]
    assert leaked(json.dumps(base64.b64encode(f"xy{value}z".encode()).decode())) == ["value"]
    assert leaked(value.encode().hex()) == ["value"]
    content = b"".join(chain().blocks)
    assert all(CANARIES[name].encode() in content for name in ON_THE_LEDGER)


def test_a_run_logs_no_keys_and_no_values(database_url: str, mapping: Path, tmp_path: Path, log: io.StringIO) -> None:
    source = write_records(tmp_path / "blocks", chain().blocks)

    summary = sync_once(SyncSettings(source, database_url, mapping))

    assert summary.quarantined == 2  # the canaries are no JSON documents
    assert "blocks_committed" in log.getvalue()
    assert leaked(log.getvalue()) == []


@pytest.mark.parametrize("is_forged", [False, True])
def test_private_values_from_a_peer_are_not_logged(
    *, is_forged: bool, database_url: str, mapping: Path, tmp_path: Path, log: io.StringIO
) -> None:
    factory = ChainFactory()
    config = CollectionConfig("secrets", members_policy("EnterpriseMSP"))
    state = db_pb2.StateData(Bytes=encode_collections([config])).SerializeToString()
    factory.block([TransactionSpec([put(collections_field_key("ext").decode(), state, namespace="_lifecycle")])])
    factory.block([transaction()])
    handed_over = TransactionSpec([put("canary-other", CANARIES["private-value"].encode(), collection="secrets")])
    private = {2: {0: private_set(handed_over if is_forged else transaction())}}
    mapping.write_text(MAPPING.replace("    key:", "    collections: [secrets]\n    key:"))

    with recorded_peer(factory.blocks, private) as peer:
        peer.faults.append(Fault(1, "cut"))
        options = command_options(peer_settings(tmp_path, [peer], private_data=True))
        form = ["--into", database_url, "--mapping", str(mapping)]
        result = CliRunner().invoke(sync, ["run", *options, *form])

    assert result.exit_code == is_forged, result.output
    assert ("error[private_data_hash]" in result.output) is is_forged
    assert ("1 values did not fit" in result.output) is not is_forged  # the canary is no JSON document
    assert "peer_left" in log.getvalue()
    assert leaked(result.output + log.getvalue()) == []
    if not is_forged:
        content = query(database_url, "SELECT value FROM ledger_private_value")
        assert [bytes(row[0]) for row in content] == [CANARIES["private-value"].encode()]


def test_a_second_run_and_what_it_reads_back_is_not_logged(
    database_url: str, mapping: Path, tmp_path: Path, log: io.StringIO
) -> None:
    factory = chain()
    sync_once(SyncSettings(write_records(tmp_path / "blocks", factory.blocks), database_url, mapping))
    log.truncate(0)
    factory.block([TransactionSpec([put(CANARIES["key"], b"{}")])])

    sync_once(SyncSettings(write_records(tmp_path / "blocks", factory.blocks), database_url))

    assert leaked(log.getvalue()) == []


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_refused_block_is_named_without_its_content(
    change: Callable[[Any], None], sqlite_url: str, mapping: Path, tmp_path: Path, log: io.StringIO
) -> None:
    source = write_records(tmp_path / "blocks", spoilt(change))

    for form in ([], ["--json"]):
        result = CliRunner().invoke(
            sync, ["replay", str(source), "--database", sqlite_url, "--mapping", str(mapping), *form]
        )

        assert result.exit_code == 1
        assert "block 2" in result.output
        assert leaked(result.output + log.getvalue()) == []


def test_what_a_database_says_of_a_row_is_not_passed_on(
    postgresql_url: str, mapping: Path, tmp_path: Path, log: io.StringIO
) -> None:
    """PostgreSQL quotes the row that breaks a rule: "Failing row contains ..."."""
    factory = chain()
    sync_once(SyncSettings(write_records(tmp_path / "first", factory.blocks[:1]), postgresql_url, mapping))
    with connect(make_url(postgresql_url)) as session:
        session.execute("ALTER TABLE consortium.ledger_key_history ADD CHECK (octet_length(value) < 4)")

    result = CliRunner().invoke(
        sync, ["replay", str(write_records(tmp_path / "blocks", factory.blocks)), "--database", postgresql_url]
    )

    assert result.exit_code == 1
    assert result.stderr.startswith("error[sink_error]: ")
    assert "ledger_key_history" in result.stderr
    assert leaked(result.output + log.getvalue()) == []


def test_a_service_logs_no_content_when_it_ends_in_an_error(
    sqlite_url: str, mapping: Path, tmp_path: Path, log: io.StringIO
) -> None:
    source = write_records(tmp_path / "blocks", spoilt(another_value))
    service = SyncService([ScheduledChannel(SyncSettings(source, sqlite_url, mapping, growing=True), 60)])

    with pytest.raises(Exception, match="block 2") as ended:
        service.serve()

    assert "run_stopped" in log.getvalue()
    assert leaked(log.getvalue() + str(ended.value)) == []


# --- passwords


def with_password(url: str) -> str:
    return make_url(url).set(password=CANARIES["password"]).render_as_string(hide_password=False)


def test_a_database_password_is_in_no_log_and_no_output(postgresql_url: str, tmp_path: Path, log: io.StringIO) -> None:
    url = with_password(postgresql_url)
    source = str(write_records(tmp_path / "blocks", chain().blocks))
    key = CANARIES["key"]

    outputs = [
        CliRunner().invoke(app, [*arguments, "--database", url]).output
        for app, arguments in (
            (sync, ["replay", source]),
            (sync, ["replay", source, "--json"]),
            (sync, ["status"]),
            (sync, ["status", "--json"]),
            (audit, ["history", key]),
            (audit, ["history", "nothing"]),
        )
    ]

    assert all(outputs)
    assert "password" not in leaked("".join(outputs) + log.getvalue())


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://user:{}@127.0.0.1:1/kvr",
        "postgresql://user:{}@host:port/kvr",
        "postgresql://user:{}@[::1/kvr",
        "mysql://user:{}@host/kvr",
        "user:{}@host",
        "postgresql://user@127.0.0.1:1/kvr?password={}",
        "postgresql://user@127.0.0.1:1/kvr?sslPassword={}&sslcert=x",
        "postgresql://user:{}@host/kvr?port=none",
    ],
)
def test_an_unusable_address_is_refused_without_its_password(address: str, tmp_path: Path, log: io.StringIO) -> None:
    source = str(write_records(tmp_path / "blocks", chain().blocks))

    for arguments in (["replay", source], ["status"]):
        result = CliRunner().invoke(sync, [*arguments, "--database", address.format(CANARIES["password"])])

        assert isinstance(result.exception, SystemExit), result.exception
        assert result.exit_code == 1
        assert result.stderr.startswith("error[")
        assert leaked(result.output + log.getvalue()) == []


DEFECT = """
import kvr_sync.main

def broken(settings, **_):
    url = settings.database
    raise RuntimeError("defect")

kvr_sync.main.sync_once = broken
kvr_sync.main.sync()
"""


def test_a_defect_of_ours_shows_no_password_on_the_terminal() -> None:
    """What is no error of ours is shown with its traceback; what variables held is not shown."""
    url = f"postgresql://user:{CANARIES['password']}@host/kvr"

    found = subprocess.run(
        [sys.executable, "-c", DEFECT, "replay", "blocks", "--database", url],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env={**os.environ, "COLUMNS": "300"},
    )

    assert found.returncode == 1
    assert "RuntimeError: defect" in found.stderr
    assert "─" not in found.stderr  # no traceback that a library made up: some versions add what variables held
    assert leaked(found.stdout + found.stderr) == []
