"""The command `kvr`: it lists the groups of commands and hands over to the one that is named.

A group is a Typer application that a package registers under the entry points `kvr.commands`. It is imported when it is
called and not before: the list is there at once, and a package whose needs are not installed costs only its own group.
"""

from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer
from typer.core import TyperGroup

from network import __version__

DISTRIBUTION = "kvr-fabric"
ENTRY_POINTS = "kvr.commands"
PACKAGES = ("chaincode", "gateway", "kvr_sync", "network")


class Group(NamedTuple):
    """What the list says of a group without importing it."""

    summary: str
    extras: str
    """The extras of the distribution that it needs, as pip reads them."""


GROUPS = {
    "audit": Group("Ask the tables who wrote what, when, in which block, and why it counts or does not.", "sync"),
    "chaincode": Group("Serve contracts to the peers of one organisation.", "chaincode"),
    "demo": Group("Replay a recorded week of customer service and look at it as tables.", "network,sync"),
    "gateway": Group("Serve applications over HTTP on a Fabric network.", "gateway"),
    "network": Group("Run a Fabric network from one topology file.", "network,chaincode"),
    "sync": Group("Turn the blocks of a channel into verified relational tables.", "sync"),
}


class Commands(TyperGroup):
    """The groups; a name that is none of them is answered with those that are."""

    def resolve_command(  # type: ignore[override]  # typer declares the private base of the Context that it hands in
        self, ctx: typer.Context, args: list[str]
    ) -> tuple[str | None, Any, list[str]]:
        """Give the command of the first argument; raises a usage error that lists the groups."""
        name = args[0]
        if self.get_command(ctx, name) is None:
            ctx.fail(f"{name!r} is no group of commands; there are: {', '.join(self.list_commands(ctx))}")
        return super().resolve_command(ctx, args)


def main() -> None:
    """Run the command line."""
    for name, path in strangers():
        typer.echo(f"warning: package {name!r} is found at {path}, which is not part of this installation", err=True)
    application()(prog_name="kvr")


def application() -> typer.Typer:
    """Give the root command with one deferred command per registered group."""
    app = typer.Typer(
        cls=Commands,
        help="Trusted customer-service data on Hyperledger Fabric, readable as plain SQL.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(root)
    for entry_point in sorted(metadata.entry_points(group=ENTRY_POINTS)):
        defer(app, entry_point)
    return app


def show_version(asked: bool) -> None:
    """Print the version and end, when asked for."""
    if asked:
        typer.echo(f"kvr {__version__}")
        raise typer.Exit


def root(
    _version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=show_version, is_eager=True)
    ] = False,
) -> None:
    """Hold the options of the root command; its help is given in `application`."""


def defer(app: typer.Typer, entry_point: metadata.EntryPoint) -> None:
    """Add a command that takes all arguments as they are, loads the group and hands them over."""
    group = GROUPS.get(entry_point.name, Group(f"Provided by {entry_point.value}.", entry_point.name))

    @app.command(
        entry_point.name,
        help=group.summary,
        add_help_option=False,
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "allow_interspersed_args": False},
    )
    def run(ctx: typer.Context) -> None:
        load(entry_point, group)(args=ctx.args, prog_name=ctx.command_path)


def load(entry_point: metadata.EntryPoint, group: Group) -> typer.Typer:
    """Import a group; when a package of others is missing, exit with the command that installs it.

    A failed import of our own modules is a defect of the installation or of the code, and is shown as it is.
    """
    try:
        loaded: object = entry_point.load()
    except ImportError as error:
        missing = error.name or "a library"
        if missing.partition(".")[0] in PACKAGES:
            raise
        typer.echo(
            f"kvr {entry_point.name}: {missing} is not installed. It comes with:\n"
            f"    pip install '{DISTRIBUTION}[{group.extras}]'",
            err=True,
        )
        raise typer.Exit(2) from error
    if not isinstance(loaded, typer.Typer):
        message = f"entry point {entry_point.name} of {ENTRY_POINTS} is not a Typer application: {entry_point.value}"
        raise TypeError(message)
    return loaded


def strangers() -> list[tuple[str, Path]]:
    """Give our package names that resolve elsewhere than beside this package: another distribution shadows them.

    The four names are generic on purpose; what they resolve to is looked at, since metadata would not tell.
    """
    home = Path(__file__).resolve().parent.parent
    found = []
    for name in PACKAGES:
        spec = find_spec(name)
        origin = Path(spec.origin).resolve() if spec is not None and spec.origin is not None else Path()
        if origin != home / name / "__init__.py":
            found.append((name, origin))
    return found


if __name__ == "__main__":
    main()
