"""`kvr sync plan` and `kvr sync apply`: a new mapping for tables that are filled, where they stand.

Applying has three steps. First every stored value is mapped, and nothing begins where one that has a row would lose
it. Then the tables get their columns, empty as yet, and the new mapping is recorded as not filled: in one transaction
that waits for readers a tenth of a second at the most, and is tried again. Last, under the fence of the checkpoint and
in one transaction, everything that comes out differently is made again. What breaks off is finished by applying the
same mapping again; until then no engine writes.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any, NamedTuple

from sqlalchemy import Connection, or_, select, tuple_, update
from sqlalchemy.schema import CreateIndex

from kvr_sync.errors import ConfigurationError, SinkUnavailableError
from kvr_sync.mapping.comparison import TableChange, compare_mappings
from kvr_sync.mapping.definition import Mapping, to_json
from kvr_sync.mapping.validation import from_json
from kvr_sync.quarantine_report import count_quarantine
from kvr_sync.read import SyncedTables, open_tables
from kvr_sync.store.database import Database, open_database
from kvr_sync.store.database_error import driver_errors
from kvr_sync.store.encoding import DatabaseKind, encoding_for
from kvr_sync.store.ledger_layer import LayerPart, LedgerLayer
from kvr_sync.store.ledger_sink import LOOKUP_SIZE, Store, chunks
from kvr_sync.store.mapped_layer import KEPT_CLOSINGS, MappedLayer, Mended, Report
from kvr_sync.store.mapped_table import mapped_tables
from kvr_sync.store.mapping_ddl import Dependent, SchemaStep, dependents, missing_indexes, schema_step
from kvr_sync.store.migration import refuse_without_ddl
from kvr_sync.store.opening import check_collations, sink_for
from kvr_sync.store.operation_log import Operation, append_operation
from kvr_sync.store.schema import LedgerTables, ledger_tables
from kvr_sync.store.status import (
    NO_MAPPING,
    is_mapping_unfinished,
    mapping_version,
    recorded_mapping,
)

LOCK_MILLISECONDS = 50
"""Longest wait for one lock: for as long readers that come later wait behind us."""
LOCKING_MILLISECONDS = 100
"""Longest wait for all locks of a statement."""
WAIT_SECONDS = 300.0
"""How long a moment is looked for when nobody reads the tables."""
PAUSE_SECONDS = 0.5


class MappingPlan(NamedTuple):
    """What a new mapping asks for. `is_unfinished`: it is recorded already, and only has to be filled."""

    channel: str
    version: int
    changes: tuple[TableChange, ...]
    step: SchemaStep
    dependents: list[Dependent]
    is_unfinished: bool

    @property
    def obstacles(self) -> list[str]:
        """What cannot be done in place."""
        return [obstacle for change in self.changes for obstacle in change.obstacles]


class AppliedMapping(NamedTuple):
    """What was done: the version the mapping has now, and what came of the tables that were made again."""

    channel: str
    version: int
    is_new: bool
    block_number: int | None
    tables: list[Mended]
    new_tables: list[str]
    quarantined: int


def plan_mapping(synced: SyncedTables, mapping: Mapping) -> MappingPlan:
    """Compare the recorded mapping with a new one; nothing is changed.

    Raises ConfigurationError where there are no mapped tables, or another mapping waits to be filled.
    """
    return _plan(synced.connection, synced.tables.metadata.schema, synced.channel, synced.place, mapping)


def _plan(connection: Connection, schema: str | None, channel: str, place: str, mapping: Mapping) -> MappingPlan:
    tables = ledger_tables(schema)
    recorded = recorded_mapping(connection, tables, place)
    if recorded is NO_MAPPING:
        raise ConfigurationError(f"{place}: channel {channel} has no mapped tables; give the mapping at the first run")
    version = mapping_version(connection, tables)
    is_same = to_json(recorded) == to_json(mapping)
    if is_mapping_unfinished(connection, tables):
        if not is_same:
            raise ConfigurationError(f"{place}: another mapping is being applied, or broke off; finish that one first")
        before = _mapping_before(connection, tables, place)
        changes = compare_mappings(before, mapping)
        indexes = [str(CreateIndex(index)) for index in missing_indexes(connection, mapped_tables(mapping, tables))]
        return MappingPlan(channel, version, changes, SchemaStep([], [], [], indexes), [], is_unfinished=True)
    changes = compare_mappings(recorded, mapping)
    step = SchemaStep([], [], [], [])
    if not is_same and not any(change.obstacles for change in changes):
        step = schema_step(connection, tables, changes, mapping, version + 1)
    touched = [part.name for change in changes if change.verdict != "nothing" for part in change.parts]
    views = dependents(connection, schema, touched)
    return MappingPlan(channel, version + (not is_same), changes, step, views, is_unfinished=False)


def _mapping_before(connection: Connection, tables: LedgerTables, place: str) -> Mapping:
    """Give the newest mapping but one."""
    version = tables.mapping.c.version
    content = connection.scalar(select(tables.mapping.c.content).order_by(version.desc()).limit(1).offset(1))
    return from_json(str(content), f"{place}: the mapping before")


def apply_mapping(  # noqa: PLR0913  one parameter per option of the command
    url: str,
    channel: str | None,
    mapping: Mapping,
    operation: Operation,
    *,
    report: Report = lambda _done, _all: None,
    wait_seconds: float = WAIT_SECONDS,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,  # noqa: TID251  the sleeper that is handed in by default
    on_step: Callable[[str], None] = lambda _: None,
) -> AppliedMapping:
    """Give filled tables a new mapping, as far as that can be done where they stand; by the owner of the tables.

    `on_step` is told "checked", "changed" and "filled" as each step is done. Raises ConfigurationError: what cannot be
    done in place, by name; values that would lose their rows; no mapped tables. SinkUnavailableError (retryable):
    there was no moment without a long reader in `wait_seconds`; nothing was changed.
    """
    with open_tables(url, channel) as synced:
        plan = plan_mapping(synced, mapping)
        _refuse_obstacles(plan, synced.place)
        if not plan.is_unfinished:
            if not plan.step.first:
                return AppliedMapping(plan.channel, plan.version, False, None, [], [], 0)  # noqa: FBT003
            _refuse_losses(synced, plan, mapping)
    on_step("checked")
    database = open_database(url, plan.channel)
    database.check(create=False)
    if not plan.is_unfinished:
        _change_tables(database, plan, mapping, clock() + wait_seconds, clock, sleep)
    on_step("changed")
    applied = _fill(database, plan, mapping, operation, report)
    on_step("filled")
    return applied


def _refuse_obstacles(plan: MappingPlan, place: str) -> None:
    if plan.obstacles:
        raise ConfigurationError(
            f"{place}: this mapping cannot be applied to the tables where they stand: {'; '.join(plan.obstacles)}."
            " It takes tables of their own: for now another database, filled by `kvr sync replay` from an archive"
        )


def _refuse_losses(synced: SyncedTables, plan: MappingPlan, mapping: Mapping) -> None:
    """Map every value of the tables that are made again, and refuse where one that has a row would not fit any more."""
    before = {table.name for table in recorded_mapping(synced.connection, synced.tables, synced.place).tables}
    chosen = [number for number in _made_again(plan, mapping) if mapping.tables[number].name in before]
    if not chosen:
        return
    kind = DatabaseKind(synced.connection.dialect.name)
    layer = LedgerLayer(synced.connection, synced.tables, mapping, encoding_for(kind, mapping), chosen)
    lost: Counter[tuple[str, str]] = Counter()
    for part in layer.parts():
        lost.update(_lost(synced, part))
    if lost:
        told = ", ".join(f"{count:,} of table {table} ({why})" for (table, why), count in sorted(lost.items()))
        raise ConfigurationError(f"{synced.place}: values that have rows would not fit this mapping: {told}")


def _lost(synced: SyncedTables, part: LayerPart) -> Iterator[tuple[str, str]]:
    """Yield table and reason of the values of a part that would go to quarantine and are not there now."""
    entry = synced.tables.quarantine
    columns = (entry.c.table_name, entry.c.key_id, entry.c.block_number, entry.c.tx_number, entry.c.write_number)
    unfit = {
        (table, part.keys[position], block, tx, write): why
        for position, table, block, tx, write, why, *_ in part.rows.ledger.quarantine
    }
    without_row = or_(entry.c.closed_by.is_(None), entry.c.closed_by.not_in(KEPT_CLOSINGS))
    for chunk in chunks(list(unfit), LOOKUP_SIZE):
        there = select(*columns).where(tuple_(*columns).in_(chunk), without_row)
        known = {tuple(row) for row in synced.connection.execute(there)}
        yield from ((place[0], unfit[place]) for place in chunk if place not in known)


def _made_again(plan: MappingPlan, mapping: Mapping) -> list[int]:
    wanted = {change.table for change in plan.changes if change.is_made_again}
    return [number for number, table in enumerate(mapping.tables) if table.name in wanted]


def _change_tables(
    database: Database,
    plan: MappingPlan,
    mapping: Mapping,
    deadline: float,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
) -> None:
    """Run the quick statements as soon as nobody is in the way."""
    while True:
        try:
            with driver_errors(database.place), database.engine.begin() as connection:
                _change_once(connection, database, plan, mapping)
        except SinkUnavailableError as error:
            if clock() >= deadline:
                names = ", ".join(plan.step.locked)
                raise SinkUnavailableError(f"{error}; waited in vain for a moment without readers of {names}") from None
            sleep(PAUSE_SECONDS)
        else:
            return


def _change_once(connection: Connection, database: Database, plan: MappingPlan, mapping: Mapping) -> None:
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{LOCK_MILLISECONDS}ms'")
    database.lock_for_migration(connection)
    # Planned again: another one may have been quicker.
    again = _plan(connection, database.schema, plan.channel, database.place, mapping)
    if again.version != plan.version or again.is_unfinished:
        raise ConfigurationError(f"{database.place}: another mapping was applied meanwhile; plan again")
    what = "changed for the mapping"
    refuse_without_ddl(connection, database.schema, place=database.place, what=what, command="apply")
    check_collations(connection, database, mapping)
    as_it_stands = {"no_parameters": True}  # a percent sign is one
    for statement in again.step.first:
        connection.exec_driver_sql(statement, execution_options=as_it_stands)
    if again.step.locked:
        connection.exec_driver_sql(f"SET LOCAL statement_timeout = '{LOCKING_MILLISECONDS}ms'")
        connection.exec_driver_sql(f"LOCK TABLE {', '.join(again.step.locked)} IN ACCESS EXCLUSIVE MODE")
        # From here on readers wait: all at once.
        connection.exec_driver_sql("; ".join(again.step.under_locks), execution_options=as_it_stands)
    else:
        for statement in again.step.under_locks:
            connection.exec_driver_sql(statement, execution_options=as_it_stands)


def _fill(
    database: Database, plan: MappingPlan, mapping: Mapping, operation: Operation, report: Report
) -> AppliedMapping:
    tables = ledger_tables(database.schema)
    mapped = mapped_tables(mapping, tables)
    store = Store(plan.channel, database, tables, mapping, mapped, plan.version)
    with closing(sink_for(store)) as sink, sink.fenced() as (connection, checkpoint):
        number = checkpoint.block_number if checkpoint else None
        chosen = _made_again(plan, mapping)
        mended = MappedLayer(sink, connection, number).make_again(chosen, report=report) if chosen else []
        for index in list(missing_indexes(connection, mapped)):
            connection.execute(CreateIndex(index))
        newest = tables.mapping.c.version == plan.version
        connection.execute(update(tables.mapping).where(newest).values(applied_at_block=number or 0))
        detail = {**operation.detail, "version": plan.version, "digest": mapping.digest}
        append_operation(connection, tables, operation._replace(detail=detail), checkpoint)
        quarantined = sum(count_quarantine(connection, tables).values())
    new_tables = [part.name for change in plan.changes for part in change.parts if part.is_new]
    return AppliedMapping(plan.channel, plan.version, True, number, mended, new_tables, quarantined)  # noqa: FBT003


def plan_facts(plan: MappingPlan) -> dict[str, Any]:
    """Give a plan for machines."""
    return {
        "channel": plan.channel,
        "version": plan.version,
        "unfinished": plan.is_unfinished,
        "tables": [
            {
                "table": change.table,
                "verdict": change.verdict,
                "steps": _steps(change),
                "obstacles": list(change.obstacles),
                "made_again": change.is_made_again,
                "views": [one.view for one in plan.dependents if one.table in {part.name for part in change.parts}],
            }
            for change in plan.changes
        ],
        "sql": _statements(plan),
    }


def describe_plan(plan: MappingPlan) -> Iterator[str]:
    """Tell a plan in words, with the statements."""
    if plan.is_unfinished:
        yield f"channel {plan.channel}: version {plan.version} of the mapping is recorded; `kvr sync apply` fills it"
    for table in plan_facts(plan)["tables"]:
        yield f"{table['table']}: {table['verdict']}"
        yield from (f"  not in place: {obstacle}" for obstacle in table["obstacles"])
        yield from (f"  {step}" for step in table["steps"])
        yield from (f"  read by view {view}, which stays as it is" for view in table["views"])
    yield from (f"{statement};" for statement in _statements(plan))


def plan_script(plan: MappingPlan) -> str:
    """Give the statements as a script for an administrator; `kvr sync apply` then fills what they made."""
    lines = ["BEGIN;", *(f"{statement};" for statement in plan.step.first)]
    if plan.step.locked:
        lines.append(f"SET LOCAL lock_timeout = '{LOCK_MILLISECONDS}ms';")
        lines.append(f"LOCK TABLE {', '.join(plan.step.locked)} IN ACCESS EXCLUSIVE MODE;")
    lines += [f"{statement};" for statement in plan.step.under_locks]
    lines += ["COMMIT;", *(f"{statement};" for statement in plan.step.afterwards)]
    return "\n".join([*lines, "-- then: kvr sync apply, with the same mapping"])


def _statements(plan: MappingPlan) -> list[str]:
    return [*plan.step.first, *plan.step.under_locks, *plan.step.afterwards]


def _steps(change: TableChange) -> list[str]:
    steps: list[str] = []
    for part in change.parts:
        steps += [f"new table {part.name}"] if part.is_new else []
        steps += [f"new column {part.name}.{name}" for name in part.columns]
        steps += [f"new index of {part.name} over {', '.join(columns)}" for columns in part.indexes]
        steps += [f"new comment of {part.name if name is None else f'{part.name}.{name}'}" for name in part.comments]
        steps += [f"{part.name}: {rule}" for rule in part.rules]
    if change.is_made_again:
        steps.append("rows made again from the ledger layer")
    return steps


def applied_facts(applied: AppliedMapping) -> dict[str, Any]:
    """Give what was applied, for machines."""
    return {**applied._asdict(), "tables": [one._asdict() for one in applied.tables]}


def describe_applied(applied: AppliedMapping) -> Iterator[str]:
    """Tell in words what was applied, and what may be left to do."""
    if not applied.is_new:
        yield f"channel {applied.channel}: this is the mapping in force, version {applied.version}; nothing to do"
        return
    yield f"channel {applied.channel}: version {applied.version} of the mapping is in force"
    for one in applied.tables:
        yield f"  {one.table}: made again, {one.changes:,} changes announced"
    if applied.new_tables:
        yield "who may read and write new tables: kvr sync roles"
    if applied.quarantined:
        yield f"{applied.quarantined:,} values are in quarantine; those that fit now: kvr sync quarantine release"
