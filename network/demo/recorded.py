"""The command `kvr demo recorded`: a recorded week of customer service, from the blocks of a real network to tables.

It runs the commands that a user types, by their entry points as the root command does, and reads the resulting SQLite
file with plain SQL. What it asks is data (`demo_data/*.sql`), so this module knows no table of the ledger or of the
business: every row it prints was just read. It ends with status 0 only when everything went as it should, and the two
forged copies of the chain that it makes were refused.
"""

import shutil
import sqlite3
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import zstandard
from rich.console import Console

from network.demo.console import (
    DATA,
    DemoError,
    Ended,
    describe_error,
    first,
    heading,
    json_object,
    open_database,
    question,
    run_kvr,
    say,
    show,
    show_next_commands,
    show_output,
)

MARKER = ".made-by-kvr-demo"
BLOCKS = "service-week.blocks.zst"
MAPPING = "service-week.mapping.yaml"
DATABASE = "service-week.db"
MADE = (
    BLOCKS,
    MAPPING,
    DATABASE,
    "forged-amount.blocks",
    "forged-amount.db",
    "forged-verdict.blocks",
    "forged-verdict.db",
)
"""Every file the demo makes in its folder; nothing else is ever deleted there."""
SQLITE_COMPANIONS = ("-wal", "-shm", "-journal")
INTENTION = """\
  1. verify the recorded blocks and turn them into tables of one SQLite file
  2. ask the tables what an enterprise, its customers and an auditor would ask
  3. forge the recording, twice, and see that it is refused"""
ABOUT_THE_PIN = """\
--pin names block 0 by its SHA-256: it says who may sign blocks, so all trust rests on it. Here it came
with the demo; in earnest another member of the network tells it."""
ABOUT_VERIFICATION = """\
Checked before a block counts: its number, the hashes that chain it to the one before, the orderers' signatures,
and that its verdicts and writes give the commit hash that the peer recorded"""
LENGTH_BYTES = 4
"""Recorded blocks stand in their file one after another, each after its length in big-endian order."""


class Refusal(NamedTuple):
    """The refusal of a forged copy that there has to be. `code`: error code of `kvr sync replay`."""

    code: str
    block_number: int


class Forgery(NamedTuple):
    """A forged copy of the recording, and the refusal that there has to be.

    `name`: its files without their endings. `asked`: the question to the true tables whose answer was worth forging.
    `change`: what was changed, in words.
    """

    name: str
    asked: str
    change: str
    refusal: Refusal


def show_demo(directory: Path, console: Console) -> None:
    """Show everything. Raises DemoError."""
    say(console, "A recorded week of customer service on a real Hyperledger Fabric network, as tables:", style="bold")
    say(console, INTENTION)
    say(console, f"Everything is written into {directory}/, nothing anywhere else.")
    make_folder(directory)
    pin = (DATA / "service-week.genesis.sha256").read_text(encoding="ascii").strip()

    heading(console, "1. From blocks to tables")
    say(console, ABOUT_THE_PIN)
    show_replay(console, run_kvr(console, *replay_arguments(directory, BLOCKS, DATABASE, pin)))

    with closing(open_database(directory / DATABASE)) as connection:
        heading(console, "2. Questions to the tables")
        show_tables(console, connection)
        key = first(connection, "eventful-request")["ledger key"]
        say(console, "\nThe history of that request for an auditor, refused attempts included:", style="bold")
        show_output(console, run_kvr(console, "audit", "history", key, "--database", url(directory, DATABASE)))

        heading(console, "3. Forgeries")
        for forgery in forge(directory, connection):
            show(console, connection, question(forgery.asked))
            say(console, forgery.change)
            arguments = replay_arguments(directory, f"{forgery.name}.blocks", f"{forgery.name}.db", pin)
            show_refusal(console, forgery.refusal, run_kvr(console, *arguments))
            with closing(open_database(directory / f"{forgery.name}.db")) as stopped:
                check_nothing_applied(forgery.refusal, show(console, stopped, question("last-block")))

    heading(console, "All as it should be. What to try next")
    suggest(console, directory, key, pin)


# The folder


def make_folder(directory: Path) -> None:
    """Make the folder with the recording and its mapping in it, after deleting what an earlier demo made there.

    A folder that is neither empty nor marked as the demo's is not touched. Raises DemoError.
    """
    if "?" in str(directory) or str(directory).startswith("-"):
        raise DemoError(f"{directory}: the name must neither begin with '-' nor hold '?', which mean more in a command")
    marker = directory / MARKER
    try:
        if directory.exists():
            if not marker.is_file() and any(directory.iterdir()):
                raise DemoError(
                    f"{directory} was not made by this demo and is left alone; remove it, or name another --directory"
                )
        else:
            directory.mkdir()
        marker.write_text(
            "Made by `kvr demo recorded`, which deletes the files it made here when it runs again.\n", "utf-8"
        )
        for name in MADE:
            for suffix in ("", *SQLITE_COMPANIONS):
                (directory / f"{name}{suffix}").unlink(missing_ok=True)
        for name in (BLOCKS, MAPPING):
            (directory / name).write_bytes((DATA / name).read_bytes())
    except OSError as error:
        raise DemoError(f"{error.filename or directory} cannot be written: {error.strerror}") from error


def url(directory: Path, name: str) -> str:
    """Give the address of a database in the folder, as `kvr sync` takes it."""
    return f"sqlite:///{directory / name}"


# Commands


def replay_arguments(directory: Path, blocks: str, database: str, pin: str) -> tuple[str, ...]:
    """Give the arguments of `kvr` that replay a file of the folder into a database of the folder."""
    place = ("--database", url(directory, database), "--mapping", str(directory / MAPPING))
    return ("sync", "replay", str(directory / blocks), *place, "--pin", pin, "--json")


def show_replay(console: Console, ended: Ended) -> None:
    """Show the summary of a run; DemoError when it failed, or did not rest on the pin."""
    report = json_object(ended.output)
    if ended.exit_status != 0:
        raise DemoError(f"the recording was not accepted: {describe_error(report, ended)}")
    if report.get("anchor") != "pinned" or not report.get("blocks"):
        raise DemoError("the replay did not begin at the pinned block 0")
    say(
        console,
        f"{report['blocks']} blocks with {report['transactions']} transactions in {report['seconds']:.2f} s "
        f"({report['transactions_per_second']:,.0f} transactions per second), anchor: {report['anchor']}",
    )
    say(console, f"{ABOUT_VERIFICATION} ({report['commit_hashes_verified']} compared).")


# Questions


def show_tables(console: Console, connection: sqlite3.Connection) -> None:
    """Show what the tables answer to each question."""
    show(console, connection, question("state"))
    show(console, connection, question("open-requests"))
    show(console, connection, question("busiest-customers"))
    show(console, connection, question("tags"))
    for eventful in show(console, connection, question("eventful-request")):
        show(console, connection, question("request-history"), request=eventful["request"])
    show(console, connection, question("verdicts"))
    show(console, connection, question("refused"))
    show(console, connection, question("quarantined"))


# Forgeries


def forge(directory: Path, connection: sqlite3.Connection) -> Iterator[Forgery]:
    """Write the forged copies of the recording.

    What is worth forging is asked of the tables; where it stands is searched in the bytes. Raises DemoError.
    """
    records = read_records((directory / BLOCKS).read_bytes())

    amount = first(connection, "largest-amount")
    forged, new_amount = forge_number(records[amount["block"]], amount["document"], amount["amount"])
    write_records(directory / "forged-amount.blocks", records, amount["block"], forged)
    change = f"In the copy one byte is changed: {amount['amount']} in block {amount['block']} becomes {new_amount}."
    yield Forgery("forged-amount", "largest-amount", change, Refusal("data_hash", amount["block"]))

    refused = first(connection, "newest-refusal")
    codes = bytes(int(code) for code in refused["verdicts"].split(","))
    forged = forge_verdict(records[refused["block"]], codes, refused["tx"], refused["commit hash"])
    write_records(directory / "forged-verdict.blocks", records, refused["block"], forged)
    change = (
        f"In the copy one byte is changed: transaction {refused['tx']} of block {refused['block']} counts as accepted. "
        "No signature covers a verdict; the commit hash does."
    )
    yield Forgery("forged-verdict", "newest-refusal", change, Refusal("commit_hash", refused["block"]))


def read_records(content: bytes) -> list[bytes]:
    """Cut the compressed recording into the bytes of its blocks; block 0 is the first."""
    plain = zstandard.ZstdDecompressor().stream_reader(content).read()
    records = []
    position = 0
    while position < len(plain):
        end = position + LENGTH_BYTES + int.from_bytes(plain[position : position + LENGTH_BYTES], "big")
        records.append(plain[position + LENGTH_BYTES : end])
        position = end
    return records


def write_records(path: Path, records: Sequence[bytes], forged_number: int, forged: bytes) -> None:
    """Write the recording, uncompressed, with one block forged. Raises DemoError."""
    blocks = (*records[:forged_number], forged, *records[forged_number + 1 :])
    try:
        path.write_bytes(b"".join(len(block).to_bytes(LENGTH_BYTES, "big") + block for block in blocks))
    except OSError as error:
        raise DemoError(f"{path} cannot be written: {error.strerror}") from error


def forge_number(record: bytes, document: bytes, number: int) -> tuple[bytes, int]:
    """Change the first digit of a number in a document of a block; give the block and the new number.

    The document stands in the block as it was written, more than once perhaps; the last is among the writes. One byte
    takes the place of another, so that the block is well formed as before.
    """
    digits = str(number)
    forged_digits = ("9" if digits[0] == "1" else "1") + digits[1:]
    start = record.rfind(document)
    offset = document.find(digits.encode())
    if start < 0 or offset < 0:
        raise DemoError("the recording does not hold the document that the tables were made from")
    place = start + offset
    return record[:place] + forged_digits.encode() + record[place + len(digits) :], int(forged_digits)


def forge_verdict(record: bytes, codes: bytes, tx_number: int, commit_hash: bytes) -> bytes:
    """Turn a verdict of a block into "accepted".

    A peer writes the verdicts behind the block, one byte for each transaction, and its commit hash after them; that is
    how they are found here.
    """
    field = bytes((0x0A, len(codes))) + codes  # a field of bytes: tag and length before the content
    start = record.rfind(field, 0, max(record.rfind(commit_hash), 0))
    if start < 0:
        raise DemoError("the recording does not hold the verdicts that the tables were made from")
    place = start + 2 + tx_number
    return record[:place] + b"\x00" + record[place + 1 :]


def show_refusal(console: Console, refusal: Refusal, ended: Ended) -> None:
    """Show that a forged copy was refused. Raises DemoError unless it was, at its block and for its cause."""
    report = json_object(ended.output)
    error = report.get("error")
    message = describe_error(report, ended)
    if ended.exit_status == 0 or not isinstance(error, dict):
        raise DemoError(f"the forged copy was not refused as it has to be: {message}")
    if error.get("code") != refusal.code or f"block {refusal.block_number}:" not in message:
        raise DemoError(
            f"the forged copy was refused, but not for {refusal.code} at block {refusal.block_number}: {message}"
        )
    say(console, f"REFUSED: {message}", style="bold red")


def check_nothing_applied(refusal: Refusal, stands_at: Sequence[sqlite3.Row]) -> None:
    """Raise DemoError unless the database of a forged copy stands at the last block before the forged one."""
    found = [row["last block"] for row in stands_at]
    if found != [refusal.block_number - 1]:
        raise DemoError(f"after block {refusal.block_number} was refused, the database stands at block {found}")


# Words


def suggest(console: Console, directory: Path, key: str, pin: str) -> None:
    """Show commands that go on from here."""
    asked = question("requests-by-status")
    database = directory / DATABASE
    statement = " ".join(asked.sql.split())
    if shutil.which("sqlite3"):
        query = ("sqlite3", str(database), statement)
    else:
        script = f"import sqlite3; print(*sqlite3.connect({str(database)!r}).execute({statement!r}), sep='\\n')"
        query = (sys.executable, "-c", script)
    postgresql = ("--database", "postgresql://user@host/name", "--mapping", str(directory / MAPPING), "--pin", pin)
    commands = {
        "Where do the tables stand?": ("kvr", "sync", "status", "--database", url(directory, DATABASE)),
        "Who wrote a key, and what?": ("kvr", "audit", "history", key, "--database", url(directory, DATABASE)),
        asked.words: query,
        "The same into PostgreSQL:": ("kvr", "sync", "replay", str(directory / BLOCKS), *postgresql),
    }
    show_next_commands(console, commands)
