"""How a demo shows things: commands as a user types them, questions as SQL, and rows as they were just read."""

import json
import shlex
import shutil
import sqlite3
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from importlib import metadata, resources
from io import StringIO, TextIOWrapper
from pathlib import Path
from typing import Any, NamedTuple

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

DATA = resources.files("network") / "demo_data"
PLAIN_COLUMNS = 150
"""Width of the output where there is no terminal to ask; fixed, so that the output is the same everywhere."""


class DemoError(Exception):
    """The demo cannot go on, or something was not as it should be; the text says what and where."""


class Question(NamedTuple):
    """One question: in words, and as one statement of SQLite."""

    words: str
    sql: str


class Ended(NamedTuple):
    """What a `kvr` command said."""

    exit_status: int
    output: str
    errors: str


def open_console() -> Console:
    """Give a console on standard output: colours and live progress on a terminal, elsewhere plain text."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # A terminal of another encoding shows "?" where it has no character.
    # The file is named so that the console stays where it is while the output of a command is caught.
    console = Console(file=sys.stdout, highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = PLAIN_COLUMNS
    return console


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


def show_next_commands(console: Console, commands: Mapping[str, Sequence[str]]) -> None:
    """Show what each command is for and how to type it, also where `kvr` is not on the PATH."""
    for words, (program, *arguments) in commands.items():
        say(console, words)
        say(console, f"  {shlex.join((_this_kvr() if program == 'kvr' else program, *arguments))}", style="cyan")


def _this_kvr() -> str:
    """Give what starts this installation's `kvr` from here: the name, or its path where the name would not find it."""
    beside = Path(sys.executable).with_name("kvr")
    found = shutil.which("kvr")
    if not beside.is_file() or (found is not None and Path(found).samefile(beside)):
        return "kvr"
    return str(beside.relative_to(Path.cwd())) if beside.is_relative_to(Path.cwd()) else str(beside)


def group_entry(group: str) -> str:
    """Give where a group of commands is (module:name); DemoError when it is not installed."""
    for entry_point in metadata.entry_points(group="kvr.commands", name=group):
        return str(entry_point.value)
    raise DemoError(f"this installation has no command kvr {group}")


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
