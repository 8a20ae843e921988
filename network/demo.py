"""The command `kvr demo`: a recorded week of customer service, from the blocks of a real Fabric network to tables.

It runs the commands that a user types, by their entry points as the root command does, and reads the resulting SQLite
file with plain SQL. What it asks is data (`demo_data/*.sql`), so this module knows no table of the ledger or of the
business: every row it prints was just read. It ends with status 0 only when everything went as it should, and the two
forged copies of the chain that it makes were refused.
"""

import json
import shlex
import shutil
import sqlite3
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, redirect_stderr, redirect_stdout
from importlib import metadata, resources
from io import StringIO, TextIOWrapper
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer
import zstandard
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

DATA = resources.files("network") / "demo_data"
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
PLAIN_COLUMNS = 150
"""Width of the output where there is no terminal to ask; fixed, so that the output is the same everywhere."""
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

demo = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


class DemoError(Exception):
    """The demo cannot go on, or something was not as it should be; the text says what and where."""


class Question(NamedTuple):
    """One question: in words, and as one statement of SQLite."""

    words: str
    sql: str


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


class Ended(NamedTuple):
    """What a `kvr` command said."""

    exit_status: int
    output: str
    errors: str


@demo.command()
def run(
    directory: Annotated[
        Path, typer.Option("--directory", metavar="FOLDER", help="Where to put everything; made afresh each time.")
    ] = Path("demo-data"),
) -> None:
    """Replay a recorded week of customer service and look at it as tables; then forge it, and see it refused."""
    try:
        show_demo(directory, open_console())
    except DemoError as error:
        typer.echo(f"error[demo]: {error}", err=True)
        raise typer.Exit(1) from error


def open_console() -> Console:
    """Give a console on standard output: colours and live progress on a terminal, elsewhere plain text."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # A terminal of another encoding shows "?" where it has no character.
    # The file is named so that the console stays where it is while the output of a command is caught.
    console = Console(file=sys.stdout, highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = PLAIN_COLUMNS
    return console


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
    show_next_commands(console, directory, key, pin)


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
        marker.write_text("Made by `kvr demo`, which deletes the files it made here when it runs again.\n", "utf-8")
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


def run_kvr(console: Console, group: str, *arguments: str) -> Ended:
    """Show a command and run it. Raises DemoError when it is not installed.

    It runs in this process: starting Python and loading the libraries again would take longer than replaying the week.
    """
    say(console, f"$ {shlex.join(('kvr', group, *arguments))}", style="cyan")
    output, errors = StringIO(), StringIO()
    with console.status(f"kvr {group} is at work ..."), redirect_stdout(output), redirect_stderr(errors):
        command = load_group(group)
        try:
            command(args=arguments, prog_name=f"kvr {group}")
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
        else:
            status = 0
    return Ended(status, output.getvalue(), errors.getvalue())


def load_group(group: str) -> typer.Typer:
    """Load a group of commands; DemoError when it, or something it needs, is not installed."""
    for entry_point in metadata.entry_points(group="kvr.commands", name=group):
        try:
            loaded: object = entry_point.load()
        except ImportError as error:
            raise DemoError(
                f"kvr {group}: {error.name or 'a library'} is not installed; it comes with kvr-fabric[network,sync]"
            ) from error
        if isinstance(loaded, typer.Typer):
            return loaded
    raise DemoError(f"this installation has no command kvr {group}")


def show_output(console: Console, ended: Ended) -> None:
    """Show what a command printed; DemoError when it failed."""
    if ended.exit_status != 0:
        raise DemoError(f"the command failed: {one_line(ended.errors or ended.output)}")
    for line in ended.output.splitlines():
        say(console, line)


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


def json_object(text: str) -> dict[str, Any]:
    """Read the report of a command; empty when it is none."""
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def describe_error(report: dict[str, Any], ended: Ended) -> str:
    """Give the error of a command as it prints it for people."""
    error = report.get("error")
    if isinstance(error, dict):
        return one_line(f"error[{error.get('code')}]: {error.get('message')}")
    return one_line(ended.errors or ended.output) or f"exit status {ended.exit_status}"


# Questions


def question(name: str) -> Question:
    """Read a question of `demo_data`."""
    lines = (DATA / f"{name}.sql").read_text(encoding="utf-8").splitlines()
    words = [line.removeprefix("-- ") for line in lines if line.startswith("-- ")]
    return Question(" ".join(words), "\n".join(line for line in lines if not line.startswith("-- ")))


def open_database(path: Path) -> sqlite3.Connection:
    """Open a database for reading only; DemoError when it is not there."""
    try:
        connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
    except sqlite3.Error as error:
        raise DemoError(f"{path} cannot be opened: {error}") from error
    connection.row_factory = sqlite3.Row
    return connection


def read(connection: sqlite3.Connection, asked: Question, **parameters: str) -> list[sqlite3.Row]:
    """Put a question to the tables. Raises DemoError when they cannot answer it."""
    try:
        return connection.execute(asked.sql, parameters).fetchall()
    except sqlite3.Error as error:
        raise DemoError(f"the tables cannot answer {asked.words!r}: {error}") from error


def first(connection: sqlite3.Connection, name: str) -> sqlite3.Row:
    """Give the first row of the answer to a question; DemoError when there is none."""
    rows = read(connection, question(name))
    if not rows:
        raise DemoError(f"the tables have no answer to {question(name).words!r}")
    return rows[0]


def show(console: Console, connection: sqlite3.Connection, asked: Question, **parameters: str) -> list[sqlite3.Row]:
    """Put a question to the tables and show it, its SQL and the rows, as they come."""
    rows = read(connection, asked, **parameters)
    say(console, f"\n{asked.words}", style="bold")
    for line in (*asked.sql.splitlines(), *(f"-- :{name} = {value}" for name, value in parameters.items())):
        say(console, f"  {line}", style="dim")
    if not rows:
        say(console, "  (no rows)")
        return rows
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for number, name in enumerate(rows[0].keys()):
        numeric = all(isinstance(row[number], int | float | None) for row in rows)
        table.add_column(Text(name), justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(shown(value)) for value in row))
    console.print(table)
    return rows


def show_tables(console: Console, connection: sqlite3.Connection) -> None:
    """Show what the tables answer to each question."""
    show(console, connection, question("state"))
    show(console, connection, question("open-requests"))
    show(console, connection, question("busiest-customers"))
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


def show_next_commands(console: Console, directory: Path, key: str, pin: str) -> None:
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
    for words, command in commands.items():
        say(console, f"{words}")
        say(console, f"  {shlex.join(command)}", style="cyan")


def heading(console: Console, text: str) -> None:
    """Begin a part."""
    say(console, f"\n=== {text}", style="bold green")


def say(console: Console, line: str, *, style: str = "") -> None:
    """Print a line as it is, never folded or cut, so that commands and SQL can be copied."""
    console.print(Text(line, style=style), soft_wrap=True)


def shown(value: object) -> str:
    """Show a value of a row; text from the chain moves no cursor and changes no colour."""
    if value is None:
        return ""
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in str(value))


def one_line(text: str) -> str:
    """Put an error of several lines on one."""
    return shown(" ".join(text.split()))
