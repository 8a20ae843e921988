"""The commands `kvr sync` and `kvr audit`.

Exit status: 0 done, 1 an error of ours (printed as `error[code]: what and where`), 2 wrong usage.
"""

import json
import os
import re
import signal
from base64 import b64encode
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer

from kvr_sync.archive.verification import (
    archive_facts,
    describe_archive,
    describe_verified,
    find_archives,
    read_archive_status,
    verified_facts,
    verify_archive,
)
from kvr_sync.audit.history import FoundKey, HistoryEntry, describe_history, find_keys, read_history
from kvr_sync.command_options import (
    Channel,
    Database,
    Environment,
    Json,
    MappingFile,
    OwnChannel,
    Why,
    errors_reported,
)
from kvr_sync.engine import RunSummary
from kvr_sync.errors import ConfigurationError
from kvr_sync.garbage_collection import collect_seldom, keep_what_is_there
from kvr_sync.inference.chain import infer_from_source, infer_from_tables
from kvr_sync.inference.contract_metadata import infer_from_metadata
from kvr_sync.interval import seconds_of
from kvr_sync.jobs import SyncSettings, sync_once
from kvr_sync.log_format import log_to_stderr
from kvr_sync.mapping.limits import MAX_DOCUMENT_BYTES
from kvr_sync.mapping.mapping_file import read_mapping_file
from kvr_sync.mapping.quarantine import REASONS
from kvr_sync.progress import ProgressDisplay
from kvr_sync.quarantine_report import count_quarantine, describe_entry, explain_quarantine, read_quarantine
from kvr_sync.read import TableQuery, describe_status, open_tables, read_table, status_facts
from kvr_sync.reference_check import check_references
from kvr_sync.source.block_file import open_block_file
from kvr_sync.source.peer_source import PeerSettings
from kvr_sync.store.opening import open_store, recorded_member
from kvr_sync.table_commands import apply, plan, rebuild, release, retire, rewind
from kvr_sync.table_query import MAX_PAGE_SIZE
from network.protocol.validation_code import reason


def _group(purpose: str) -> typer.Typer:
    return typer.Typer(
        no_args_is_help=True,
        add_completion=False,
        # A defect is shown with Python's own traceback: the made-up one can show what variables held, passwords too.
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        help=purpose,
    )


sync = _group("Turn the blocks of a channel into verified relational tables.")
archive_group = _group("Look at archives of blocks (--archive).")
sync.add_typer(archive_group, name="archive")
audit = _group("Ask the tables what happened on the ledger, and what that rests on.")


@sync.callback(help=sync.info.help)
def _sync() -> None:
    collect_seldom()


Source = Annotated[
    Path,
    typer.Argument(metavar="FILE", help="Recorded blocks, an exported .block file, a folder of them, or an archive."),
]
Pin = Annotated[
    str | None,
    typer.Option(
        "--pin",
        metavar="SHA256",
        help="The genesis block you trust: SHA-256 of its file, or its header hash. Without it, block 0 is believed.",
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        min=0,
        max=64,
        metavar="N",
        help="Processes that prepare blocks in a long run; 0: none. Without it, one for each core, at most 4.",
    ),
]
Into = Annotated[
    str,
    typer.Option(
        "--into",
        "--database",
        envvar="KVR_DATABASE",
        metavar="URL",
        help="sqlite:///file.db or postgresql://user@host/name. A password is better kept in the environment.",
    ),
]
Profile = Annotated[Path, typer.Option("--profile", metavar="FILE", help="Connection profile that names the peers.")]
MspId = Annotated[str, typer.Option("--msp-id", metavar="ID", help="Organisation whose peers are read.")]
Identity = Annotated[
    Path, typer.Option("--identity", metavar="FOLDER", help="MSP folder of the reader: signcerts/ and keystore/.")
]
ChannelRead = Annotated[str, typer.Option("--channel", metavar="NAME", help="Channel to read.")]
Peer = Annotated[
    str | None,
    typer.Option("--peer", metavar="NAME", help="Address, host or name of the one peer; without it, all in turn."),
]
PrivateData = Annotated[
    bool,
    typer.Option("--private-data", help="Also the private data that the organisation's peer holds for this identity."),
]
Archive = Annotated[
    Path | None,
    typer.Option(
        "--archive", metavar="DIR", help="Keep the blocks there, compressed, before their rows are committed."
    ),
]
Archives = Annotated[
    Path, typer.Argument(metavar="DIR", help="An archive of blocks, or the folder of a channel in it.")
]
MetricsPort = Annotated[
    int | None,
    typer.Option(
        "--metrics-port",
        envvar="KVR_METRICS_PORT",
        min=0,
        max=65535,
        metavar="N",
        help="Port for /metrics (Prometheus), /live and /ready; without it none is opened. 0: a free one.",
    ),
]
MetricsHost = Annotated[
    str,
    typer.Option(
        "--metrics-host",
        envvar="KVR_METRICS_HOST",
        metavar="ADDRESS",
        help="Address for that port; other machines reach it only if this says so.",
    ),
]
ReadyLag = Annotated[
    str,
    typer.Option("--ready-lag", metavar="INTERVAL", help="Lag behind the peers up to which /ready says yes: 30s, 5m."),
]


@sync.callback()
def _sync_group() -> None:
    """Keep `sync` a group of commands."""


@audit.callback()
def _audit_group() -> None:
    """Keep `audit` a group of commands."""


@sync.command()
def replay(
    file: Source,
    database: Database,
    mapping: MappingFile = None,
    pin: Pin = None,
    archive: Archive = None,
    workers: Workers = None,
    as_json: Json = False,
) -> None:
    """Verify the blocks of a file and bring the tables up to its end; a second time it goes on where it stopped."""
    with errors_reported(as_json=as_json):
        settings = SyncSettings(file, database, mapping, _pin(pin), workers=workers, archive=archive)
        _sync_and_tell(settings, f"replay {file.name}", as_json=as_json)


@sync.command()
def run(  # noqa: PLR0913, PLR0917  # one parameter per option
    profile: Profile,
    msp_id: MspId,
    identity: Identity,
    channel: ChannelRead,
    database: Into,
    peer: Peer = None,
    private_data: PrivateData = False,
    mapping: MappingFile = None,
    pin: Pin = None,
    archive: Archive = None,
    workers: Workers = None,
    as_json: Json = False,
) -> None:
    """Verify the blocks of a peer and bring the tables up to its tip; a second time it goes on where it stopped."""
    with errors_reported(as_json=as_json):
        source = PeerSettings(profile, msp_id, identity, channel, peer, private_data)
        settings = SyncSettings(source, database, mapping, _pin(pin), workers=workers, archive=archive)
        _sync_and_tell(settings, f"run {channel}", as_json=as_json)


@sync.command()
def backfill(
    profile: Profile,
    msp_id: MspId,
    identity: Identity,
    channel: ChannelRead,
    database: Into,
    peer: Peer = None,
    as_json: Json = False,
) -> None:
    """Ask the organisation's peers for private values that are missing, and put what has come in its place."""
    from kvr_sync.reconciliation import reconcile  # noqa: PLC0415  other commands do not wait for it

    with errors_reported(as_json=as_json):
        source = PeerSettings(profile, msp_id, identity, channel, peer, private_data=True)
        if recorded_member(database, channel) != msp_id:
            message = f"the tables of channel {channel} hold no private data of {msp_id}"
            raise ConfigurationError(message)
        opened = open_store(database, channel, private_member=msp_id, create=False)
        with closing(opened) as sink, ProgressDisplay(f"backfill {channel}") as display:
            missing = sink.count_private().missing

            def show(asked: int, arrived: int) -> None:
                display.tell(f"{asked:,} values asked for, {arrived:,} arrived", asked / max(asked, missing))

            done = reconcile(sink, source, due=False, on_progress=show)
        if as_json:
            typer.echo(json.dumps(done._asdict()))
            return
        typer.echo(f"{done.asked:,} missing values asked for, {done.arrived:,} arrived, {done.missing:,} missing")
        if done.refused:
            typer.echo(f"{done.refused:,} values refused: not those that the chain holds the hashes of")


@sync.command()
def follow(  # noqa: PLR0913, PLR0917  # one parameter per option
    profile: Profile,
    msp_id: MspId,
    identity: Identity,
    channel: ChannelRead,
    database: Into,
    peer: Peer = None,
    private_data: PrivateData = False,
    mapping: MappingFile = None,
    pin: Pin = None,
    archive: Archive = None,
    metrics_port: MetricsPort = None,
    metrics_host: MetricsHost = "127.0.0.1",
    ready_lag: ReadyLag = "60s",
) -> None:
    """Apply the blocks of a peer as they come, until SIGTERM or Ctrl-C; logs are JSON lines on stderr.

    A second signal ends the process at once.
    """
    from kvr_sync.follower import SyncFollower  # noqa: PLC0415  short commands do not wait for it
    from kvr_sync.metrics import ChannelWatch, Metrics  # noqa: PLC0415
    from kvr_sync.probe import probes  # noqa: PLC0415

    with errors_reported(as_json=False):
        source = PeerSettings(profile, msp_id, identity, channel, peer, private_data)
        metrics = Metrics()
        watch = ChannelWatch(channel, metrics)
        settings = SyncSettings(source, database, mapping, _pin(pin), growing=True, workers=0, archive=archive)
        follower = SyncFollower(settings, observer=watch, on_open=keep_what_is_there)
        log_to_stderr()
        _stop_on_signals(follower.stop)
        seconds = _seconds(ready_lag, "--ready-lag")
        with probes(metrics, [watch], host=metrics_host, port=metrics_port, ready_lag_seconds=seconds):
            follower.follow()


@sync.command()
def serve(  # noqa: PLR0913, PLR0917  # one parameter per option
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="Growing file of recorded blocks; or name peers by options.")
    ] = None,
    settings: Annotated[
        Path | None,
        typer.Option("--settings", metavar="FILE", help="Settings in YAML, for several channels; instead of options."),
    ] = None,
    database: Annotated[
        str | None,
        typer.Option(
            "--into",
            "--database",
            metavar="URL",
            help="sqlite:///file.db or postgresql://user@host/name; or KVR_DATABASE, or KVR_DATABASE_FILE.",
        ),
    ] = None,
    every: Annotated[
        str | None, typer.Option("--every", metavar="INTERVAL", help="Pause between runs: 500ms, 10s, 5m, 1h.")
    ] = None,
    mapping: MappingFile = None,
    pin: Pin = None,
    archive: Archive = None,
    profile: Annotated[Path | None, typer.Option("--profile", metavar="FILE", help="Connection profile.")] = None,
    msp_id: Annotated[str | None, typer.Option("--msp-id", metavar="ID", help="Organisation of the peers.")] = None,
    identity: Annotated[
        Path | None, typer.Option("--identity", metavar="FOLDER", help="MSP folder of the reader.")
    ] = None,
    channel: Annotated[str | None, typer.Option("--channel", metavar="NAME", help="Channel to read.")] = None,
    peer: Peer = None,
    private_data: PrivateData = False,
    metrics_port: Annotated[
        int | None,
        typer.Option("--metrics-port", metavar="N", help="Port for /metrics, /live and /ready; or KVR_METRICS_PORT."),
    ] = None,
    metrics_host: Annotated[str | None, typer.Option("--metrics-host", metavar="ADDRESS", help="Its address.")] = None,
    ready_lag: Annotated[
        str | None, typer.Option("--ready-lag", metavar="INTERVAL", help="Lag up to which /ready says yes.")
    ] = None,
    environment: Annotated[
        str | None, typer.Option("--environment", metavar="NAME", help="production: nothing is left to a default.")
    ] = None,
) -> None:
    """Keep the tables up with a growing file or with peers, on a schedule, until SIGTERM or Ctrl-C.

    Logs are JSON lines on stderr. A second signal ends the process at once.
    """
    from kvr_sync.service_command import serve_channels  # noqa: PLC0415  short commands do not wait for it

    if not (settings or database or os.environ.get("KVR_DATABASE") or os.environ.get("KVR_DATABASE_FILE")):
        raise typer.BadParameter("give a URL, or set KVR_DATABASE or KVR_DATABASE_FILE", param_hint="--database")
    with errors_reported(as_json=False):
        _pin(pin)
        entry: dict[str, object] = {
            "file": file,
            "profile": profile,
            "msp_id": msp_id,
            "identity": identity,
            "channel": channel,
            "peer": peer,
            "private_data": private_data or None,
            "mapping": mapping,
            "pin": pin,
            "archive": archive,
            "every": every,
        }
        if every is not None:
            _seconds(every, "--every")
        if ready_lag is not None:
            _seconds(ready_lag, "--ready-lag")
        metrics = {"port": metrics_port, "host": metrics_host, "ready_lag": ready_lag}
        common = {"database": database, "environment": environment}
        serve_channels(settings, entry, metrics, common, on_signals=_stop_on_signals)


@sync.command()
def status(database: Database, channel: Channel = None, as_json: Json = False) -> None:
    """Show where the tables stand: checkpoint, verdicts, quarantine, last runs."""
    with errors_reported(as_json=as_json), open_tables(database, channel) as synced:
        if as_json:
            typer.echo(json.dumps(status_facts(synced)))
            return
        for line in describe_status(synced):
            typer.echo(line)


@sync.command()
def query(  # noqa: PLR0913, PLR0917  # one parameter per option
    table: Annotated[str, typer.Argument(metavar="TABLE", help="A table of the mapping.")],
    database: Database,
    channel: Channel = None,
    wanted: Annotated[
        list[str] | None,
        typer.Option("--where", metavar="COLUMN=VALUE", help="Rows with this value; more than once: with all of them."),
    ] = None,
    as_of: Annotated[
        int | None, typer.Option("--as-of", min=0, metavar="BLOCK", help="Rows as they stood after this block.")
    ] = None,
    minimum_block: Annotated[
        int | None, typer.Option("--minimum-block", min=0, metavar="BLOCK", help="Fail if the tables are older.")
    ] = None,
    after: Annotated[str | None, typer.Option("--after", metavar="ID", help="Go on after this external_id.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=MAX_PAGE_SIZE, help="Most rows.")] = 100,
    as_json: Json = False,
) -> None:
    """Read rows of a table, as they are or as they were after a block."""
    with errors_reported(as_json=as_json):
        conditions = dict(_condition(text) for text in wanted or ())
        with open_tables(database, channel) as synced:
            page = read_table(synced, TableQuery(table, conditions, as_of, minimum_block, after, limit))
        if as_json:
            typer.echo(json.dumps(page._asdict(), indent=2, ensure_ascii=False, default=_json_value))
            return
        for row in page.rows:
            shown = (f"{name}={_shown(value)}" for name, value in row.items() if not name.startswith("kvr_"))
            typer.echo("  ".join(shown))
        more = f"; more after --after {page.next_after}" if page.next_after is not None else ""
        typer.echo(f"{len(page.rows)} rows as of block {page.block_number}{more}", err=True)


def _condition(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not sign:
        raise typer.BadParameter("COLUMN=VALUE is expected", param_hint="--where")
    return name, value


def _json_value(value: object) -> object:
    """Turn a value of a row into what JSON has: exact decimals, times and identifiers as text, bytes in base64."""
    return b64encode(value).decode() if isinstance(value, bytes) else str(value)


def _shown(value: object) -> str:
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False, default=str)
    text = value.hex() if isinstance(value, bytes) else "" if value is None else str(value)
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


@sync.command()
def references(database: Database, channel: Channel = None, as_json: Json = False) -> None:
    """Count the rows that refer to what is not there. A record may come before its counterpart: nothing waits."""
    with errors_reported(as_json=as_json):
        with open_tables(database, channel) as synced:
            checked = check_references(synced.connection, synced.tables, place=synced.place)
        if as_json:
            typer.echo(json.dumps({"references": [found._asdict() for found in checked]}, indent=2))
            return
        if not checked:
            typer.echo("the mapping has no references")
        for found in checked:
            examples = f": {', '.join(found.examples)}" if found.examples else ""
            typer.echo(
                f"{found.table}.{found.column} -> {found.target}: {found.missing:,} without counterpart{examples}"
            )


quarantine_group = _group("Look at values that did not fit their mapping, and release them.")
sync.add_typer(quarantine_group, name="quarantine")
quarantine_group.command()(release)
sync.command()(rebuild)
sync.command()(plan)
sync.command()(apply)
sync.command()(retire)
sync.command()(rewind)


@quarantine_group.command("list")
def list_quarantine(
    database: Database,
    channel: Channel = None,
    table: Annotated[str | None, typer.Option("--table", metavar="TABLE", help="Of this table alone.")] = None,
    closed: Annotated[bool, typer.Option("--closed", help="Those that are closed, too.")] = False,
    limit: Annotated[int, typer.Option("--limit", min=1, max=100_000, help="Most entries.")] = 100,
    as_json: Json = False,
) -> None:
    """List the values in quarantine, oldest first; the values themselves are not shown."""
    with errors_reported(as_json=as_json):
        with open_tables(database, channel) as synced:
            counts = count_quarantine(synced.connection, synced.tables)
            entries = read_quarantine(synced.connection, synced.tables, table=table, closed=closed, limit=limit)
        if as_json:
            by_reason = [{"table": name, "reason": why, "open": count} for (name, why), count in counts.items()]
            answer = {"open": by_reason, "entries": [entry._asdict() for entry in entries]}
            typer.echo(json.dumps(answer, indent=2, ensure_ascii=False))
            return
        for (name, why), count in counts.items():
            typer.echo(f"{count:>8,}  {name}: {REASONS.get(why, why)}")
        for entry in entries:
            typer.echo("\n".join(describe_entry(entry)))


@quarantine_group.command("explain")
def explain(
    table: Annotated[str, typer.Argument(metavar="TABLE", help="Mapped table.")],
    key: Annotated[str, typer.Argument(metavar="KEY", help="The key as the list shows it, or its number.")],
    database: Database,
    channel: Channel = None,
    as_json: Json = False,
) -> None:
    """Tell everything about the values of one key that were ever in quarantine."""
    with errors_reported(as_json=as_json):
        with open_tables(database, channel) as synced:
            entries = explain_quarantine(synced.connection, synced.tables, table, key)
        if as_json:
            answer = {"entries": [entry._asdict() for entry in entries]}
            typer.echo(json.dumps(answer, indent=2, ensure_ascii=False))
            return
        for entry in entries:
            typer.echo("\n".join(describe_entry(entry)))


@sync.command()
def infer(  # one parameter per option
    source: Annotated[
        Path | None,
        typer.Argument(metavar="[FILE]", help="Recorded blocks, a .block file, a folder of them, or an archive."),
    ] = None,
    database: Annotated[
        str | None,
        typer.Option("--database", envvar="KVR_DATABASE", metavar="URL", help="Instead: a database that is filled."),
    ] = None,
    metadata: Annotated[
        Path | None,
        typer.Option("--metadata", metavar="FILE", help="Instead: a contract's metadata (GetMetadata), as JSON."),
    ] = None,
    chaincode: Annotated[
        str, typer.Option("--chaincode", metavar="NAME", help="With --metadata: name of the chaincode.")
    ] = "chaincode",
    channel: Channel = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write it there; an existing file is kept.")
    ] = None,
) -> None:
    """Propose a mapping from what a channel holds, or from what a contract says of itself."""
    with errors_reported(as_json=False):
        if metadata is not None:
            text = infer_from_metadata(_read_metadata(metadata), chaincode)
        elif source is not None:
            blocks = open_block_file(source)
            with ProgressDisplay("reading") as shown:
                text = infer_from_source(blocks, shown.count)
        elif database is not None:
            with open_tables(database, channel) as synced, ProgressDisplay("reading") as shown:
                text = infer_from_tables(synced, shown.count)
        else:
            raise ConfigurationError("give a FILE of blocks, --database URL, or --metadata FILE")
        if output is None:
            typer.echo(text, nl=False)
        else:
            _write_new(output, text)


def _read_metadata(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_DOCUMENT_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from error


def _write_new(path: Path, text: str) -> None:
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise ConfigurationError(f"{path} exists already; nothing was written") from error
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be written: {error.strerror}") from error
    typer.echo(f"wrote {path}")


@archive_group.command("verify")
def verify_archives(directory: Archives, as_json: Json = False) -> None:
    """Read all of an archive and check frames, numbers and the chain of hashes; a replay checks signatures as well."""
    with errors_reported(as_json=as_json):
        found = []
        for folder in find_archives(directory):
            with ProgressDisplay(f"verify {folder.name}") as display:
                found.append(verify_archive(folder, display.update))
        if as_json:
            typer.echo(json.dumps([verified_facts(verified) for verified in found]))
            return
        for verified in found:
            for line in describe_verified(verified):
                typer.echo(line)


@archive_group.command("status")
def archive_status(directory: Archives, as_json: Json = False) -> None:
    """Show what an archive holds and who writes to it, by its files' names and the end of the last one."""
    with errors_reported(as_json=as_json):
        found = [read_archive_status(folder) for folder in find_archives(directory)]
        if as_json:
            typer.echo(json.dumps([archive_facts(status) for status in found]))
            return
        for status in found:
            typer.echo(describe_archive(status))


@sync.command()
def migrate(
    database: Database,
    channel: OwnChannel,
    mapping: MappingFile = None,
    private_data_of: Annotated[
        str | None,
        typer.Option("--private-data-of", metavar="ID", help="Organisation whose private data the tables will hold."),
    ] = None,
) -> None:
    """Make the tables of a channel, or bring them to this version: for their owner, where the engine may not."""
    with errors_reported(as_json=False):
        member = private_data_of or recorded_member(database, channel)
        tables = read_mapping_file(mapping) if mapping else None
        with closing(open_store(database, channel, mapping=tables, private_member=member)) as sink:
            count = len(sink.mapping.tables)
        typer.echo(f"channel {channel}: the tables are those of this version, {count} of them mapped")
        if sink.database.schema is not None:
            typer.echo("who may read and write them: kvr sync roles")


@sync.command()
def roles(  # noqa: PLR0913, PLR0917  # one parameter per option
    database: Database,
    channel: OwnChannel,
    writer: Annotated[str, typer.Option("--writer", metavar="ROLE", help="The engine: rows, no DDL.")] = "kvr_writer",
    reader: Annotated[
        str, typer.Option("--reader", metavar="ROLE", help="Mapped tables of public state.")
    ] = "kvr_reader",
    auditor: Annotated[
        str, typer.Option("--auditor", metavar="ROLE", help="Everything public and the operation log; writes nothing.")
    ] = "kvr_auditor",
    private_reader: Annotated[
        str, typer.Option("--private-reader", metavar="ROLE", help="Private values and their mapped tables.")
    ] = "kvr_private_reader",
    sql: Annotated[bool, typer.Option("--sql", help="Print the statements instead of running them.")] = False,
    why: Why = None,
    environment: Environment = "development",
) -> None:
    """Give roles of PostgreSQL their rights on a channel's tables, and take all others from them; for the owner."""
    from kvr_sync.store.operation_log import asked_operation  # noqa: PLC0415  other commands do not wait for it
    from kvr_sync.store.roles import RoleNames, grant_rights  # noqa: PLC0415

    with errors_reported(as_json=False):
        names = RoleNames(writer, reader, auditor, private_reader)
        is_production = environment == "production"
        operation = None if sql else asked_operation("roles", why, is_production=is_production)
        statements = grant_rights(database, channel, names, operation)
        if sql:
            typer.echo("BEGIN;\n" + "".join(f"{statement};\n" for statement in statements) + "COMMIT;")
        else:
            typer.echo(f"channel {channel}: rights given to {', '.join(names)}")


@sync.command()
def doctor(
    database: Database, channel: Channel = None, environment: Environment = "development", as_json: Json = False
) -> None:
    """Look whether the database is as the engine needs it and the tables hold together; say what to do.

    Nothing is written. Exit status 1 where something fails.
    """
    from kvr_sync.doctor import examine  # noqa: PLC0415  other commands do not wait for it

    findings = []
    for finding in examine(database, channel, is_production=environment == "production"):
        findings.append(finding)
        if not as_json:
            advice = f"; {finding.advice}" if finding.advice else ""
            typer.echo(f"{finding.verdict:<4} {finding.check}: {finding.text}{advice}")
    if as_json:
        typer.echo(json.dumps([finding._asdict() for finding in findings]))
    if any(finding.verdict == "fail" for finding in findings):
        raise typer.Exit(1)


@audit.command()
def operations(database: Database, channel: Channel = None, as_json: Json = False) -> None:
    """Tell what operators did to the tables, newest first: who, when, why, and the checkpoint before and after."""
    from kvr_sync.store.operation_log import read_operations  # noqa: PLC0415  other commands do not wait for it

    with errors_reported(as_json=as_json), open_tables(database, channel) as synced:
        entries = read_operations(synced.connection, synced.tables)
        if as_json:
            facts = [entry._asdict() | {"logged_at": entry.logged_at.isoformat()} for entry in entries]
            typer.echo(json.dumps(facts, ensure_ascii=False))
            return
        for entry in entries:
            why = entry.reason or "no reason given"
            typer.echo(f"{entry.logged_at:%Y-%m-%d %H:%M:%S}Z {entry.operation} by {entry.operator}: {why}")
            typer.echo(f"  checkpoint before: {_block(entry.before_block)}, after: {_block(entry.after_block)}")


def _block(number: int | None) -> str:
    return "none" if number is None else f"block {number}"


@audit.command()
def history(
    key: Annotated[
        str, typer.Argument(metavar="KEY", help="A key, a composite key as type/attribute/..., or 0x and hex digits.")
    ],
    database: Database,
    channel: Channel = None,
    namespace: Annotated[
        str | None, typer.Option("--namespace", help="Chaincode, where several have this key.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Tell who wrote a key, what, when, in which block and transaction, and why a write did or did not count."""
    with errors_reported(as_json=as_json), open_tables(database, channel) as synced:
        found = find_keys(synced, key, namespace=namespace)
        if not found:
            place = f" in namespace {namespace!r}" if namespace else ""
            message = f"no transaction on channel {synced.channel} that is applied so far wrote this key{place}"
            raise ConfigurationError(message)
        histories = [(entry, read_history(synced, entry)) for entry in found]
        if as_json:
            typer.echo(json.dumps([_history_facts(*each) for each in histories], ensure_ascii=False))
            return
        for entry, writes in histories:
            for line in describe_history(entry, writes):
                typer.echo(line)


def _history_facts(found: FoundKey, entries: list[HistoryEntry]) -> dict[str, Any]:
    return {
        "key": found.shown,
        "namespace": found.namespace,
        "collection": found.collection or None,
        "key_hex": found.key.hex(),
        "history": [entry.as_json() for entry in entries],
    }


def _sync_and_tell(settings: SyncSettings, label: str, *, as_json: bool) -> None:
    with ProgressDisplay(label) as display:
        summary = sync_once(settings, on_progress=display.update)
    if as_json:
        typer.echo(json.dumps(_summary_facts(summary)))
    else:
        _print_summary(summary)


def _summary_facts(summary: RunSummary) -> dict[str, Any]:
    private = {} if summary.private is None else {"private": summary.private._asdict()}
    return private | {
        "channel": summary.channel,
        "anchor": summary.anchor,
        "checkpoint": {
            "block_number": summary.checkpoint.block_number,
            "header_hash": summary.checkpoint.header_hash.hex(),
            "commit_hash": summary.checkpoint.commit_hash.hex() if summary.checkpoint.commit_hash else None,
        },
        "blocks": summary.blocks,
        "transactions": summary.transactions,
        "codes": dict(summary.codes),
        "quarantined": summary.quarantined,
        "commit_hashes_verified": summary.commit_hashes_verified,
        "seconds": round(summary.seconds, 3),
        "transactions_per_second": round(summary.transactions_per_second, 1),
    }


def _print_summary(summary: RunSummary) -> None:
    checkpoint = summary.checkpoint
    typer.echo(
        f"channel {summary.channel}: block {checkpoint.block_number}, header hash {checkpoint.header_hash.hex()}"
    )
    typer.echo(f"anchor: {summary.anchor}")
    if not summary.blocks:
        typer.echo("nothing new")
        return
    typer.echo(
        f"{summary.blocks} blocks, {summary.transactions} transactions in {summary.seconds:.2f} s "
        f"({summary.transactions_per_second:,.0f} per second); {summary.commit_hashes_verified} commit hashes verified"
    )
    for name, count in sorted(summary.codes.items(), key=lambda item: (-item[1], item[0])):
        typer.echo(f"  {count:>8,}  {name}: {reason(name)}")
    if summary.private is not None:
        held, missing = summary.private
        typer.echo(f"private values: {held:,} held, {missing:,} missing (not handed over by the peer)")
    if summary.quarantined:
        typer.echo(f"{summary.quarantined} values did not fit the mapping: see ledger_quarantine")


def _pin(text: str | None) -> bytes | None:
    if text is None:
        return None
    if not re.fullmatch(r"[0-9a-fA-F]{64}", text):
        message = "--pin: a SHA-256 is 64 hexadecimal digits"
        raise ConfigurationError(message)
    return bytes.fromhex(text)


def _stop_on_signals(stop: Callable[[], None]) -> None:
    """Let the first SIGTERM or Ctrl-C stop in good order, and a second one end the process where it stands.

    What is not committed then is not applied: the database ends the transaction with the session.
    """
    asked = False

    def handle(number: int, _frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            os._exit(128 + number)
        asked = True
        stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, handle)


def _seconds(text: str, option: str) -> float:
    seconds = seconds_of(text)
    if seconds <= 0:
        message = f"{option}: a number and a unit, such as 500ms, 10s, 5m or 1h"
        raise ConfigurationError(message)
    return seconds
