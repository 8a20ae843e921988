"""The commands that change tables beside following the chain."""

import json
from pathlib import Path
from typing import Annotated

import typer

from kvr_sync.command_options import Channel, Database, Environment, Json, Why, answer, errors_reported
from kvr_sync.mapping.mapping_file import read_mapping_file
from kvr_sync.progress import ProgressDisplay
from kvr_sync.read import open_tables

NewMapping = Annotated[
    Path, typer.Option("--mapping", metavar="FILE", help="The new mapping: a file, or the name of a shipped one.")
]


def rebuild(  # one parameter per option
    database: Database,
    tables: Annotated[
        list[str] | None, typer.Argument(metavar="[TABLE]...", help="Mapped tables; without one, all of them.")
    ] = None,
    channel: Channel = None,
    why: Why = None,
    environment: Environment = "development",
    as_json: Json = False,
) -> None:
    """Make mapped tables again from the ledger layer, and put right what differs: no peer and no archive is needed.

    One transaction. No block is applied meanwhile; readers go on. The change feed tells which rows were put right.
    """
    from kvr_sync.store.operation_log import asked_operation  # noqa: PLC0415  other commands do not wait for it
    from kvr_sync.table_operations import describe_rebuilt, operation_facts, rebuild_tables  # noqa: PLC0415

    with errors_reported(as_json=as_json):
        operation = asked_operation("rebuild", why, is_production=environment == "production")
        with ProgressDisplay("rebuild") as display:
            done = rebuild_tables(database, channel, tables or (), operation, report=display.share)
        answer(operation_facts(done), describe_rebuilt(done), as_json=as_json)


def release(  # one parameter per option
    database: Database,
    table: Annotated[str | None, typer.Argument(metavar="[TABLE]", help="Of this mapped table alone.")] = None,
    key: Annotated[
        str | None, typer.Argument(metavar="[KEY]", help="Of this key alone, as the list shows it, or its number.")
    ] = None,
    channel: Channel = None,
    why: Why = None,
    environment: Environment = "development",
    as_json: Json = False,
) -> None:
    """Apply values in quarantine that fit the mapping now in force, each at its own version; the others stay."""
    from kvr_sync.store.operation_log import asked_operation  # noqa: PLC0415  other commands do not wait for it
    from kvr_sync.table_operations import describe_released, operation_facts, release_quarantine  # noqa: PLC0415

    with errors_reported(as_json=as_json):
        asked_for = {name: value for name, value in (("table", table), ("key", key)) if value is not None}
        is_production = environment == "production"
        operation = asked_operation("release", why, is_production=is_production, detail={"asked_for": asked_for})
        with ProgressDisplay("release") as display:
            done = release_quarantine(database, channel, table, key, operation, report=display.share)
        answer(operation_facts(done), describe_released(done), as_json=as_json)


Beside = Annotated[
    bool, typer.Option("--beside", help="As tables of their own, even where those that are there could take it.")
]


def plan(  # one parameter per option
    database: Database,
    mapping: NewMapping,
    channel: Channel = None,
    beside: Beside = False,
    sql: Annotated[bool, typer.Option("--sql", help="Print the statements alone, as a script.")] = False,
    as_json: Json = False,
) -> None:
    """Tell what a new mapping would change, table by table, with the statements and the views of others that depend."""
    from kvr_sync.mapping_change import describe_plan, plan_facts, plan_mapping, plan_script  # noqa: PLC0415

    with errors_reported(as_json=as_json):
        wanted = read_mapping_file(mapping)
        with open_tables(database, channel) as synced:
            planned = plan_mapping(synced, wanted, beside=beside)
        if sql:
            typer.echo(plan_script(planned))
        elif as_json:
            typer.echo(json.dumps(plan_facts(planned), ensure_ascii=False))
        else:
            for line in describe_plan(planned):
                typer.echo(line)


def apply(  # one parameter per option
    database: Database,
    mapping: NewMapping,
    channel: Channel = None,
    beside: Beside = False,
    why: Why = None,
    environment: Environment = "development",
    as_json: Json = False,
) -> None:
    """Give filled tables a new mapping; for the owner.

    Where the tables stand: new tables, columns and indexes, looser rules. Anything else by tables of its own beside
    them, as a new version of the API (schema `<schema>_v2`; in SQLite tables `v2_...`), filled while blocks go on
    arriving; the old ones are kept up until `retire`. Readers wait a fifth of a second at the most. Engines begin anew.
    """
    from kvr_sync.mapping_change import applied_facts, apply_mapping, describe_applied  # noqa: PLC0415
    from kvr_sync.store.operation_log import asked_operation  # noqa: PLC0415

    with errors_reported(as_json=as_json):
        operation = asked_operation("apply", why, is_production=environment == "production")
        wanted = read_mapping_file(mapping)
        with ProgressDisplay("apply") as display:
            applied = apply_mapping(database, channel, wanted, operation, beside=beside, report=display.share)
        answer(applied_facts(applied), describe_applied(applied), as_json=as_json)


def retire(  # one parameter per option
    database: Database,
    api_version: Annotated[int, typer.Argument(metavar="VERSION", min=1, help="The version of the API: 1, 2 ...")],
    channel: Channel = None,
    why: Why = None,
    environment: Environment = "development",
    as_json: Json = False,
) -> None:
    """Take the tables of one version of the API away, where another one is in force beside it; for the owner.

    An old one whose readers have gone, or a new one that is not wanted, built or half built. Where views of others read
    the tables, they are named and nothing is done. Engines begin anew.
    """
    from kvr_sync.retirement import describe_retired, retire_api, retired_facts  # noqa: PLC0415
    from kvr_sync.store.operation_log import asked_operation  # noqa: PLC0415

    with errors_reported(as_json=as_json):
        operation = asked_operation("retire", why, is_production=environment == "production")
        retired = retire_api(database, channel, api_version, operation)
        answer(retired_facts(retired), describe_retired(retired), as_json=as_json)


def rewind(  # one parameter per option
    database: Database,
    block_number: Annotated[
        int, typer.Option("--to-block", min=0, metavar="BLOCK", help="The last block that the tables then hold.")
    ],
    channel: Channel = None,
    why: Why = None,
    environment: Environment = "development",
    as_json: Json = False,
) -> None:
    """Bring all tables of a channel back to what they were after a block: the rows of every later one are taken out.

    One transaction. Stop the engine first, or it goes on from there at once. The change feed tells what was put right.
    """
    from kvr_sync.rewinding import describe_rewound, rewind_tables, rewound_facts  # noqa: PLC0415  as above
    from kvr_sync.store.operation_log import asked_operation  # noqa: PLC0415  other commands do not wait for it

    with errors_reported(as_json=as_json):
        operation = asked_operation("rewind", why, is_production=environment == "production")
        with ProgressDisplay("rewind") as display:
            done = rewind_tables(database, channel, block_number, operation, report=display.tell)
        answer(rewound_facts(done), describe_rewound(done), as_json=as_json)
