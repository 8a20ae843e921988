"""The `map` stage: each effective write of a block becomes rows of the tables that select its key, or quarantine entries.

Pure: the same block and mapping give the same batch. The identity of a row is the ledger key; columns that repeat parts
of it are a view. A document is mapped whole or quarantined whole, per table.
"""

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import NamedTuple

from kvr_sync.mapping import quarantine
from kvr_sync.mapping.conversion import Converter, bytes_converter, claimed_time, json_converter, text_converter
from kvr_sync.mapping.definition import (
    ColumnMapping,
    CompositeSelector,
    FromJson,
    FromKey,
    FromKeyAttribute,
    FromKeyRest,
    FromLedger,
    FromValue,
    LedgerFact,
    Mapping,
    TableMapping,
)
from kvr_sync.mapping.document import read_document
from kvr_sync.mapping.json_path import JsonPath, select
from kvr_sync.mapping.quarantine import UnfitValueError
from kvr_sync.model import (
    Effect,
    EffectiveWrite,
    MappedRow,
    QuarantinedWrite,
    ReplayedBlock,
    RowBatch,
    TransactionFacts,
)
from network.protocol.composite_key import split_composite_key

_FactReader = Callable[[int, TransactionFacts], object]


class _TablePlan(NamedTuple):
    """A table, taken apart by where its values come from; each entry begins with the position of its column."""

    table: int
    column_names: tuple[str, ...]
    blank: tuple[None, ...]
    attribute_count: int
    attributes: tuple[tuple[int, int, Converter], ...]
    keys: tuple[tuple[int, int, Converter], ...]
    members: tuple[tuple[int, str, Converter], ...]
    paths: tuple[tuple[int, JsonPath, Converter], ...]
    repeats: tuple[tuple[int, JsonPath, Converter], ...]
    reads_document: bool
    whole_values: tuple[tuple[int, Converter], ...]
    facts: tuple[tuple[int, _FactReader], ...]
    required: tuple[int, ...]


class _NamespacePlan(NamedTuple):
    """Which tables a key of one namespace feeds. Composite: by object type, then by number of attributes."""

    composites: dict[bytes, dict[int, tuple[_TablePlan, ...]]]
    prefixes: tuple[tuple[bytes, _TablePlan], ...]
    any_prefix: tuple[bytes, ...]


def map_block(replayed: ReplayedBlock, mapping: Mapping) -> RowBatch:
    """Convert the effective public writes of a block, in their order.

    PUT and VERSION give the values of the value the key has afterwards, DELETE a row without values. Total: whatever
    does not fit becomes a `QuarantinedWrite`; keys that no table selects are passed over.
    """
    plan = _plan(mapping)
    block_number = replayed.changes.header.number
    transactions = replayed.changes.transactions
    mapped: list[MappedRow] = []
    quarantined: list[QuarantinedWrite] = []
    for write in replayed.writes:
        ledger_key = write.key
        namespace = plan.get(ledger_key.namespace)
        if namespace is None or ledger_key.collection or write.effect is Effect.NONE:
            continue
        key = ledger_key.key
        attributes: tuple[str, ...] = ()
        tables: Iterable[_TablePlan]
        if key[:1] == b"\x00":
            by_count = namespace.composites.get(key[1 : key.find(b"\x00", 1)])
            parts = split_composite_key(key) if by_count else None
            if by_count is None or parts is None:
                continue
            attributes = parts[1]
            tables = by_count.get(len(attributes), ())
            if not tables:
                _take_unselected(write, by_count, len(attributes), mapped, quarantined)
        elif key.startswith(namespace.any_prefix):
            tables = [table for prefix, table in namespace.prefixes if key.startswith(prefix)]
        else:
            continue
        if write.effect is Effect.DELETE or write.value is None:
            mapped += [_deleted(write, table) for table in tables]
            continue
        for table in tables:
            row = _map_value(write, write.value, table, attributes, block_number, transactions[write.tx_number])
            if isinstance(row, MappedRow):
                mapped.append(row)
            else:
                quarantined.append(row)
    return RowBatch(replayed, tuple(mapped), tuple(quarantined))


def _deleted(write: EffectiveWrite, table: _TablePlan) -> MappedRow:
    return MappedRow(table.table, write.key, write.tx_number, write.write_number, Effect.DELETE, None)


def _take_unselected(
    write: EffectiveWrite,
    by_count: dict[int, tuple[_TablePlan, ...]],
    count: int,
    mapped: list[MappedRow],
    quarantined: list[QuarantinedWrite],
) -> None:
    """A key of a mapped object type whose number of attributes no table has: told of, not lost in silence."""
    tables = [table for tables in by_count.values() for table in tables]
    if write.effect is Effect.DELETE or write.value is None:
        mapped += [_deleted(write, table) for table in tables]
        return
    for table in tables:
        detail = f"key: {table.attribute_count} attributes expected, {count} found"
        quarantined.append(_quarantined(write, write.value, table, quarantine.KEY_ATTRIBUTES, detail))


def _quarantined(write: EffectiveWrite, value: bytes, table: _TablePlan, reason: str, detail: str) -> QuarantinedWrite:
    return QuarantinedWrite(table.table, write.key, write.tx_number, write.write_number, reason, detail, value)


def _map_value(
    write: EffectiveWrite,
    value: bytes,
    table: _TablePlan,
    attributes: tuple[str, ...],
    block_number: int,
    facts: TransactionFacts,
) -> MappedRow | QuarantinedWrite:
    values: list[object] = list(table.blank)
    column = -1
    try:
        for column, position, convert in table.attributes:
            values[column] = convert(attributes[position])
        for column, start, convert in table.keys:
            values[column] = convert(write.key.key[start:])
        for column, convert in table.whole_values:
            values[column] = convert(value)
        for column, read in table.facts:
            values[column] = read(block_number, facts)
        if table.reads_document:
            column = -1
            document = read_document(value)
            if type(document) is not dict:
                raise UnfitValueError(quarantine.NOT_AN_OBJECT, "a JSON object expected")
            for column, name, convert in table.members:
                member = document.get(name)
                if member is not None:
                    values[column] = convert(member)
            for column, path, convert in table.paths:
                member = select(document, path)
                if member is not None:
                    values[column] = convert(member)
            for column, path, convert in table.repeats:
                member = select(document, path)
                if member is None or convert(member) != values[column]:
                    raise UnfitValueError(quarantine.KEY_CONTRADICTION, "the same value in the document expected")
        for column in table.required:
            if values[column] is None:
                raise UnfitValueError(quarantine.MISSING, "a value expected, none found")
    except UnfitValueError as error:
        place = "value" if column < 0 else f"column {table.column_names[column]}"
        return _quarantined(write, value, table, error.reason, f"{place}: {error.detail}")
    return MappedRow(table.table, write.key, write.tx_number, write.write_number, write.effect, tuple(values))


@lru_cache(maxsize=8)
def _plan(mapping: Mapping) -> dict[str, _NamespacePlan]:
    namespaces: dict[str, list[tuple[TableMapping, _TablePlan]]] = {}
    for number, table in enumerate(mapping.tables):
        namespaces.setdefault(table.namespace, []).append((table, _table_plan(number, table)))
    return {namespace: _namespace_plan(tables) for namespace, tables in namespaces.items()}


def _namespace_plan(tables: list[tuple[TableMapping, _TablePlan]]) -> _NamespacePlan:
    composites: dict[bytes, dict[int, tuple[_TablePlan, ...]]] = {}
    prefixes: list[tuple[bytes, _TablePlan]] = []
    for table, plan in tables:
        if isinstance(table.key, CompositeSelector):
            by_count = composites.setdefault(table.key.object_type.encode(), {})
            count = len(table.key.attributes)
            by_count[count] = (*by_count.get(count, ()), plan)
        else:
            prefixes.append((table.key.prefix.encode(), plan))
    return _NamespacePlan(composites, tuple(prefixes), tuple({prefix for prefix, _ in prefixes}))


def _table_plan(number: int, table: TableMapping) -> _TablePlan:
    columns = list(enumerate(table.columns))
    members = [(i, c.source.path, json_converter(c)) for i, c in columns if isinstance(c.source, FromJson)]
    repeats = [(i, c.equals_json, json_converter(c)) for i, c in columns if c.equals_json is not None]
    prefix_length = 0 if isinstance(table.key, CompositeSelector) else len(table.key.prefix.encode())
    return _TablePlan(
        table=number,
        column_names=tuple(column.name for column in table.columns),
        blank=(None,) * len(columns),
        attribute_count=len(table.key.attributes) if isinstance(table.key, CompositeSelector) else 0,
        attributes=tuple(
            (i, c.source.position, text_converter(c)) for i, c in columns if isinstance(c.source, FromKeyAttribute)
        ),
        keys=tuple(
            (i, prefix_length if isinstance(c.source, FromKeyRest) else 0, bytes_converter(c))
            for i, c in columns
            if isinstance(c.source, FromKey | FromKeyRest)
        ),
        members=tuple((i, path[0], convert) for i, path, convert in members if len(path) == 1 and isinstance(path[0], str)),
        paths=tuple((i, path, convert) for i, path, convert in members if len(path) > 1),
        repeats=tuple(repeats),
        reads_document=bool(members or repeats),
        whole_values=tuple((i, bytes_converter(c)) for i, c in columns if isinstance(c.source, FromValue)),
        facts=tuple((i, _fact_reader(c.source.fact, c)) for i, c in columns if isinstance(c.source, FromLedger)),
        required=tuple(i for i, c in columns if c.required),
    )


def _fact_reader(fact: LedgerFact, column: ColumnMapping) -> _FactReader:
    match fact:
        case LedgerFact.BLOCK_NUMBER:
            return lambda block_number, _facts: block_number
        case LedgerFact.TX_NUMBER:
            return lambda _block_number, facts: facts.tx_number
        case LedgerFact.CLAIMED_AT:
            return lambda _block_number, facts: claimed_time(facts.seconds, facts.nanos)
        case LedgerFact.TX_ID:
            return _present(text_converter(column), lambda facts: facts.tx_id)
        case LedgerFact.CREATOR_MSP_ID:
            return _present(text_converter(column), lambda facts: facts.msp_id)
        case LedgerFact.CHAINCODE:
            return _present(text_converter(column), lambda facts: facts.chaincode.name if facts.chaincode else None)
        case LedgerFact.FUNCTION:
            return _present(bytes_converter(column), lambda facts: facts.function)


def _present(convert: Converter, read: Callable[[TransactionFacts], object]) -> _FactReader:
    def converted(_block_number: int, facts: TransactionFacts) -> object:
        value = read(facts)
        return None if value is None else convert(value)

    return converted
