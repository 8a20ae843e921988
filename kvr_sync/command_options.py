"""Options that several commands have, and how a command ends: with an answer, or with an error of ours."""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from kvr_sync.errors import KvrSyncError

Database = Annotated[
    str,
    typer.Option(
        "--database",
        envvar="KVR_DATABASE",
        metavar="URL",
        help="sqlite:///file.db or postgresql://user@host/name. A password is better kept in the environment.",
    ),
]
MappingFile = Annotated[
    Path | None,
    typer.Option(
        "--mapping",
        metavar="FILE",
        help="Mapping of keys to tables, or the name of a shipped one (service); without it, the database's own.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
Channel = Annotated[str | None, typer.Option("--channel", help="Channel, where a database holds more than one.")]
Environment = Annotated[
    str,
    typer.Option(
        "--environment",
        envvar="KVR_ENVIRONMENT",
        metavar="NAME",
        help="production: commands that change what operators rely on ask for --why.",
    ),
]
Why = Annotated[str | None, typer.Option("--why", metavar="TEXT", help="Why, kept in operation_log.")]
OwnChannel = Annotated[str, typer.Option("--channel", metavar="NAME", help="Channel whose tables are meant.")]


@contextmanager
def errors_reported(*, as_json: bool) -> Iterator[None]:
    """Turn an error of ours into a message and exit status 1; anything else is a defect and shows as it is."""
    try:
        yield
    except KvrSyncError as error:
        if as_json:
            typer.echo(json.dumps({"error": {"code": error.code, "message": str(error), "outcome": error.outcome}}))
        else:
            typer.echo(f"error[{error.code}]: {error}", err=True)
        raise typer.Exit(1) from error


def answer(facts: Mapping[str, Any], lines: Iterable[str], *, as_json: bool) -> None:
    """Print what a command did: its facts as one JSON object, or the same in words."""
    if as_json:
        typer.echo(json.dumps(facts))
        return
    for line in lines:
        typer.echo(line)
