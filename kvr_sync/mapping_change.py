"""`kvr sync plan` and `kvr sync apply`: a new mapping for tables that are filled.

What adds is done where the tables stand. For anything else the mapping gets tables of its own, of a new version of the
API, beside the old ones (`kvr_sync.mapping_build`), which are kept up until they are retired.

Where the tables stand, applying has three steps. First every stored value is mapped, and nothing begins where one that
has a row would lose it. Then the tables get their columns, empty as yet, and the new mapping is recorded as not filled:
in one transaction that waits for readers a tenth of a second at the most, and is tried again. Last, under the fence of
the checkpoint and in one transaction, everything that comes out differently is made again. What breaks off is finished
by applying the same mapping again; until then no engine writes.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any, NamedTuple

from sqlalchemy import Connection, or_, select, tuple_, update
from sqlalchemy.schema import CreateIndex

from kvr_sync.errors import ConfigurationError
from kvr_sync.mapping.api_version import FIRST_API, qualify
from kvr_sync.mapping.comparison import TableChange, compare_mappings
from kvr_sync.mapping.definition import Mapping, to_json
from kvr_sync.mapping.validation import from_json
from kvr_sync.mapping_build import fill_beside
from kvr_sync.quarantine_report import count_quarantine
from kvr_sync.read import SyncedTables, open_tables
from kvr_sync.store.database import Database, open_database
from kvr_sync.store.encoding import DatabaseKind, encoding_for
from kvr_sync.store.ledger_layer import LayerPart, LedgerLayer
from kvr_sync.store.ledger_sink import LOOKUP_SIZE, Store, chunks
from kvr_sync.store.mapped_layer import MappedLayer, Mended, Report
from kvr_sync.store.mapped_table import mapped_tables
from kvr_sync.store.mapping_ddl import (
    Dependent,
    SchemaStep,
    beside_step,
    dependents,
    missing_indexes,
    schema_step,
)
from kvr_sync.store.migration import refuse_without_ddl, refuse_without_schema
from kvr_sync.store.opening import check_collations, sink_for
from kvr_sync.store.operation_log import Operation, append_operation
from kvr_sync.store.quarantine_closing import KEPT_CLOSINGS
from kvr_sync.store.roles import grant_on_new_tables
from kvr_sync.store.schema import LedgerTables, ledger_tables
from kvr_sync.store.schema_change import LOCK_MILLISECONDS, PATIENCE, Patience, change_tables, run_step
from kvr_sync.store.sink import Hook, no_hook
from kvr_sync.store.status import (
    BUILDING,
    UNFINISHED,
    RecordedMapping,
    RecordedMappings,
    is_mapping_unfinished,
    recorded_mapping,
    recorded_mappings,
)


class MappingPlan(NamedTuple):
    """What a new mapping asks for. `is_unfinished`: it is recorded already, and only has to be filled.

    `new`: what is recorded of it. `is_beside`: it gets tables of its own, beside those that it is compared with.
    """

    channel: str
    new: RecordedMapping
    changes: tuple[TableChange, ...]
    step: SchemaStep
    dependents: list[Dependent]
    is_unfinished: bool
    is_beside: bool

    @property
    def version(self) -> int:
        """Version of the mapping, once it is recorded."""
        return self.new.version

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
    api_version: int = FIRST_API
    is_beside: bool = False


def plan_mapping(synced: SyncedTables, mapping: Mapping, *, beside: bool = False) -> MappingPlan:
    """Compare the newest recorded mapping with a new one; nothing is changed.

    `beside`: it is to have tables of its own even where the others could take it. Raises ConfigurationError where there
    are no mapped tables, or another mapping waits to be filled.
    """
    schema = synced.tables.metadata.schema
    return _plan(synced.connection, schema, synced.channel, synced.place, mapping, beside=beside)


def _plan(
    connection: Connection, schema: str | None, channel: str, place: str, mapping: Mapping, *, beside: bool
) -> MappingPlan:
    tables = ledger_tables(schema)
    recorded = recorded_mappings(connection, tables, place)
    if not recorded.in_force:
        raise ConfigurationError(f"{place}: channel {channel} has no mapped tables; give the mapping at the first run")
    if recorded.building is not None:
        return _plan_of_building(recorded, recorded.building, channel, place, mapping)
    same = next((one for one in recorded.in_force if to_json(one.mapping) == to_json(mapping)), None)
    if is_mapping_unfinished(connection, tables):
        if same is None or same.applied_at_block != UNFINISHED:
            raise ConfigurationError(f"{place}: another mapping is being applied, or broke off; finish that one first")
        before = qualify(_mapping_before(connection, tables, same, place), same.api_version)
        changes = compare_mappings(before, same.qualified)
        made = mapped_tables(same.qualified, tables)
        indexes = [str(CreateIndex(index)) for index in missing_indexes(connection, made)]
        step = SchemaStep([], [], [], indexes)
        return MappingPlan(channel, same, changes, step, [], is_unfinished=True, is_beside=False)
    old = recorded.in_force[-1] if same is None else same
    changes = compare_mappings(old.qualified, qualify(mapping, old.api_version))
    is_beside = same is None and (beside or any(change.obstacles for change in changes))
    step = SchemaStep([], [], [], [])
    if same is not None:
        new = same
    elif is_beside:
        new = RecordedMapping(recorded.newest_version + 1, recorded.newest_api + 1, BUILDING, mapping)
        for one in recorded.in_force:  # so that a name that two would have is found
            mapped_tables(one.qualified, tables)
        step = beside_step(connection, tables, new)
    else:
        new = RecordedMapping(recorded.newest_version + 1, old.api_version, UNFINISHED, mapping)
        step = schema_step(connection, tables, changes, new)
    touched = {part.name for change in changes if change.verdict != "nothing" for part in change.parts}
    views = dependents(connection, mapped_tables(old.qualified, ledger_tables(schema)), touched)
    return MappingPlan(channel, new, changes, step, views, is_unfinished=False, is_beside=is_beside)


def _plan_of_building(
    recorded: RecordedMappings, building: RecordedMapping, channel: str, place: str, mapping: Mapping
) -> MappingPlan:
    if to_json(building.mapping) != to_json(mapping):
        raise ConfigurationError(
            f"{place}: another mapping is being built beside the others, or broke off: finish that one first, or take"
            f" it back with `kvr sync retire {building.api_version}`"
        )
    old = recorded.in_force[-1]
    changes = compare_mappings(old.qualified, qualify(mapping, old.api_version))
    step = SchemaStep([], [], [], [])
    return MappingPlan(channel, building, changes, step, [], is_unfinished=True, is_beside=True)


def _mapping_before(connection: Connection, tables: LedgerTables, newest: RecordedMapping, place: str) -> Mapping:
    """Give the mapping that a newer one of the same version of the API follows."""
    table = tables.mapping
    before = (table.c.api_version == newest.api_version) & (table.c.version < newest.version)
    content = connection.scalar(select(table.c.content).where(before).order_by(table.c.version.desc()).limit(1))
    return from_json(str(content), f"{place}: the mapping before")


def apply_mapping(  # noqa: PLR0913  one parameter per option of the command
    url: str,
    channel: str | None,
    mapping: Mapping,
    operation: Operation,
    *,
    beside: bool = False,
    report: Report = lambda _done, _all: None,
    patience: Patience = PATIENCE,
    on_step: Callable[[str], None] = lambda _: None,
    hook: Hook = no_hook,
) -> AppliedMapping:
    """Give filled tables a new mapping: where they stand, or by tables of its own beside them; by their owner.

    `on_step` is told "checked", "changed" and "filled" as each step is done, and "building" after each part of tables
    beside others. Raises ConfigurationError: values that would lose their rows where they stand; no mapped tables.
    SinkUnavailableError (retryable): there was no moment without a long reader; nothing was changed.
    """
    with open_tables(url, channel) as synced:
        plan = plan_mapping(synced, mapping, beside=beside)
        if not plan.is_unfinished:
            if not plan.step.first:
                return AppliedMapping(plan.channel, plan.version, False, None, [], [], 0, plan.new.api_version)  # noqa: FBT003
            if not plan.is_beside:
                _refuse_losses(synced, plan)
    on_step("checked")
    database = open_database(url, plan.channel)
    database.check(create=False)
    if not plan.is_unfinished:
        change_tables(database, lambda connection: _change(connection, database, plan), plan.step.locked, patience)
    on_step("changed")
    if plan.is_beside:
        applied = _fill_beside(database, plan, operation, report, on_step, hook)
    else:
        applied = _fill(database, plan, operation, report, hook)
    on_step("filled")
    return applied


def _refuse_losses(synced: SyncedTables, plan: MappingPlan) -> None:
    """Map every value of the tables that are made again, and refuse where one that has a row would not fit any more."""
    mapping = plan.new.qualified
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
        raise ConfigurationError(
            f"{synced.place}: values that have rows would not fit this mapping: {told}."
            " With --beside it gets tables of its own, and they keep theirs"
        )


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


def _change(connection: Connection, database: Database, plan: MappingPlan) -> None:
    # Planned again: another one may have been quicker.
    mapping = plan.new.mapping
    again = _plan(connection, database.schema, plan.channel, database.place, mapping, beside=plan.is_beside)
    if (again.version, again.is_beside) != (plan.version, plan.is_beside) or again.is_unfinished:
        raise ConfigurationError(f"{database.place}: another mapping was applied meanwhile; plan again")
    what = "changed for the mapping"
    refuse_without_ddl(connection, database.schema, place=database.place, what=what, command="apply")
    check_collations(connection, database, mapping)
    if again.is_beside:
        refuse_without_schema(connection, again.new.schema(database.schema), place=database.place)
    run_step(connection, again.step)
    if again.is_beside:
        grant_on_new_tables(connection, database, again.new)


def _fill_beside(
    database: Database,
    plan: MappingPlan,
    operation: Operation,
    report: Report,
    on_step: Callable[[str], None],
    hook: Hook,
) -> AppliedMapping:
    new = plan.new
    built = fill_beside(
        database, plan.channel, new, operation, report=report, on_part=lambda: on_step("building"), hook=hook
    )
    names = [part.name for part in new.qualified.parts()]
    return AppliedMapping(
        plan.channel,
        new.version,
        is_new=True,
        block_number=built.block_number,
        tables=built.tables,
        new_tables=names,
        quarantined=built.quarantined,
        api_version=new.api_version,
        is_beside=True,
    )


def _fill(database: Database, plan: MappingPlan, operation: Operation, report: Report, hook: Hook) -> AppliedMapping:
    tables = ledger_tables(database.schema)
    mapping = plan.new.qualified
    mapped = mapped_tables(mapping, tables)
    store = Store(plan.channel, database, tables, mapping, mapped, plan.version)
    with closing(sink_for(store, hook=hook)) as sink, sink.fenced() as (connection, checkpoint):
        number = checkpoint.block_number if checkpoint else None
        chosen = _made_again(plan, mapping)
        made = {change.table for change in plan.changes if change.parts[0].is_new}
        fresh = {place for place in chosen if mapping.tables[place].name in made}
        layer = MappedLayer(sink, connection, number)
        mended = layer.make_again(chosen, fresh=fresh, report=report) if chosen else []
        for index in list(missing_indexes(connection, mapped)):
            connection.execute(CreateIndex(index))
        newest = tables.mapping.c.version == plan.version
        connection.execute(update(tables.mapping).where(newest).values(applied_at_block=number or 0))
        detail = {**operation.detail, "version": plan.version, "digest": plan.new.mapping.digest}
        append_operation(connection, tables, operation._replace(detail=detail), checkpoint)
        quarantined = sum(count_quarantine(connection, tables).values())
    new_tables = [part.name for change in plan.changes for part in change.parts if part.is_new]
    return AppliedMapping(
        plan.channel,
        plan.version,
        is_new=True,
        block_number=number,
        tables=mended,
        new_tables=new_tables,
        quarantined=quarantined,
        api_version=plan.new.api_version,
    )


def plan_facts(plan: MappingPlan) -> dict[str, Any]:
    """Give a plan for machines."""
    return {
        "channel": plan.channel,
        "version": plan.version,
        "api_version": plan.new.api_version,
        "beside": plan.is_beside,
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
    if plan.is_beside:
        yield (
            f"channel {plan.channel}: the mapping gets tables of its own, as version {plan.new.api_version} of the API;"
            " those there stay, and are kept up, until `kvr sync retire`"
        )
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
    if applied.is_beside:
        where = "before the first block" if applied.block_number is None else f"at block {applied.block_number}"
        yield f"channel {applied.channel}: version {applied.api_version} of the API is there, {where}"
        yield f"  tables {', '.join(applied.new_tables)}"
        yield "  the older ones are kept up beside them, until `kvr sync retire`"
    else:
        yield f"channel {applied.channel}: version {applied.version} of the mapping is in force"
    for one in applied.tables:
        yield f"  {one.table}: made again, {one.changes:,} changes announced"
    if applied.new_tables and not applied.is_beside:
        yield "who may read and write new tables: kvr sync roles"
    if applied.quarantined:
        yield f"{applied.quarantined:,} values are in quarantine; those that fit now: kvr sync quarantine release"
