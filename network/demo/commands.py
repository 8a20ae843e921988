"""The command `kvr demo`.

Exit status: 0 everything was as it should be, 1 something was not (printed as `error[demo]: ...`), 2 wrong usage.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from network.demo.console import DemoError, open_console
from network.running.interruption import interruptible

demo = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Watch a week of customer service on a Fabric network become tables.",
)

Directory = Annotated[
    Path, typer.Option("--directory", metavar="FOLDER", help="Where to put everything; made afresh each time.")
]


@demo.callback(invoke_without_command=True)
def live_command(
    context: typer.Context,
    directory: Directory = Path("demo-live"),
    native: Annotated[
        bool, typer.Option("--native", help="On real peers and orderers, whose programs are found on this machine.")
    ] = False,
) -> None:
    """Start a network, let departments and customers work on it through its REST service, and read the tables."""
    if context.invoked_subcommand is not None:
        return
    from network.demo.live import show_live_demo  # noqa: PLC0415  # the recorded demo needs none of it

    with _errors(), interruptible():
        show_live_demo(directory, open_console(), is_native=native)


@demo.command("recorded")
def recorded_command(directory: Directory = Path("demo-data")) -> None:
    """Replay a recorded week of a real network and look at it as tables; then forge it, and see it refused."""
    from network.demo.recorded import show_demo  # noqa: PLC0415  # the live demo needs none of it

    with _errors():
        show_demo(directory, open_console())


@contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except DemoError as error:
        typer.echo(f"error[demo]: {error}", err=True)
        raise typer.Exit(1) from error
