"""The `map` stage: effective writes become rows of the tables that select their keys, or quarantine entries.

Pure: the same block and mapping give the same batch. The identity of a row is the ledger key; columns that repeat parts
of it are a view. A document is mapped whole or quarantined whole, per table.
"""

from collections.abc import Mapping as Lookup
from collections.abc import Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import NamedTuple

from kvr_sync.mapping import quarantine
from kvr_sync.mapping.definition import (
    ColumnMapping,
    CompositeSelector,
    Mapping,
    PatternSelector,
    PrefixSelector,
    SequenceRange,
    TableMapping,
)
from kvr_sync.mapping.document import JsonValue
from kvr_sync.mapping.external_id import external_id
from kvr_sync.mapping.json_path import JsonPath, select
from kvr_sync.mapping.key_pattern import match_pattern
from kvr_sync.mapping.limits import MAX_ELEMENTS
from kvr_sync.mapping.quarantine import UnfitValueError
from kvr_sync.mapping.row_function import ElementsFunction, RowFunction, elements_function, row_function
from kvr_sync.model import (
    Effect,
    EffectiveWrite,
    LedgerKey,
    MappedRow,
    PrivateChange,
    PrivateChanges,
    QuarantinedWrite,
    ReplayedBlock,
    RowBatch,
    TransactionFacts,
    WriteKind,
)
from network.protocol.composite_key import split_composite_key

_NONE = Effect.NONE
_DELETE = Effect.DELETE

NO_SEQUENCES: Lookup[str, int] = MappingProxyType({})


class _ChildPlan(NamedTuple):
    """A child table: where its array is, and what makes its rows."""

    name: str
    each: JsonPath
    columns: tuple[ColumnMapping, ...]
    rows: ElementsFunction


class _TablePlan(NamedTuple):
    """A table: which keys it takes, and what becomes of their values."""

    table: int
    columns: tuple[ColumnMapping, ...]
    row: RowFunction
    children: tuple[_ChildPlan, ...]
    attribute_count: int
    pattern: tuple[str, ...] | None
    sequences: SequenceRange | None
    collection: str
    """Which is part of a row's id, where a table takes the keys of several; "" elsewhere."""

    def takes(self, sequence: int) -> bool:
        """Whether values written under a definition of this sequence are for this table."""
        wanted = self.sequences
        return wanted is None or (wanted.first <= sequence and (wanted.last is None or sequence <= wanted.last))

    def external_id(self, key: bytes, attributes: tuple[str, ...]) -> str:
        """Give the readable id of a key of this table."""
        return external_id(key, attributes if self.attribute_count and self.pattern is None else (), self.collection)


class _Selection(NamedTuple):
    """What a key feeds: its attributes, the tables, and those of its object type with another number of attributes."""

    attributes: tuple[str, ...]
    tables: Sequence[_TablePlan]
    unfit: Sequence[_TablePlan]


_NOTHING_SELECTED = _Selection((), (), ())


class _NamespacePlan(NamedTuple):
    """Which tables a key of one namespace feeds. Composite: by object type, then by number of attributes."""

    composites: dict[bytes, dict[int, tuple[_TablePlan, ...]]]
    prefixes: tuple[tuple[bytes, _TablePlan], ...]
    any_prefix: tuple[bytes, ...]

    def simple(self, key: bytes) -> list[_TablePlan]:
        """Give the tables that a simple key feeds."""
        if not key.startswith(self.any_prefix):
            return []
        return [
            table
            for prefix, table in self.prefixes
            if key.startswith(prefix) and (table.pattern is None or _pattern_attributes(table.pattern, key) is not None)
        ]

    def select(self, key: bytes) -> _Selection:
        """Give the tables that a key feeds, or would with another number of attributes."""
        if key[:1] != b"\x00":
            return _Selection((), self.simple(key), ())
        by_count = self.composites.get(key[1 : key.find(b"\x00", 1)])
        parts = split_composite_key(key) if by_count else None
        if by_count is None or parts is None:
            return _NOTHING_SELECTED
        tables = by_count.get(len(parts[1]), ())
        unfit = () if tables else [table for found in by_count.values() for table in found]
        return _Selection(parts[1], tables, unfit)


class _CollectionPlan(NamedTuple):
    """The same for the keys of one private data collection."""

    tables: _NamespacePlan
    all_tables: tuple[_TablePlan, ...]


def map_block(
    replayed: ReplayedBlock,
    mapping: Mapping,
    private: PrivateChanges | None = None,
    sequences: Lookup[str, int] = NO_SEQUENCES,
) -> RowBatch:
    """Convert the effective public writes of a block, in their order, and then the private ones where there are any.

    `sequences`: of the chaincode definitions in force below the block, by name of the chaincode; one that is not there
    counts as 0. A table that takes other sequences has no row of a key after such a write.

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
        if namespace is None or ledger_key.collection or write.effect is _NONE:
            continue
        selection = namespace.select(ledger_key.key)
        if write.effect is _DELETE or write.value is None:
            mapped += [_deleted(write, table, selection.attributes) for table in (*selection.tables, *selection.unfit)]
            continue
        sequence = sequences.get(ledger_key.namespace, 0)
        facts = transactions[write.tx_number]
        for row in _map_selected(write, write.value, selection, sequence, block_number, facts):
            if isinstance(row, MappedRow):
                mapped.append(row)
            else:
                quarantined.append(row)
    batch = RowBatch(replayed, tuple(mapped), tuple(quarantined))
    return batch if private is None else _with_private(batch, private, mapping, sequences)


def _with_private(batch: RowBatch, private: PrivateChanges, mapping: Mapping, sequences: Lookup[str, int]) -> RowBatch:
    plans = _private_plan(mapping)
    changes = batch.block.changes
    mapped = list(batch.mapped)
    quarantined = list(batch.quarantined)
    for change in private.changes:
        plan = plans.get((change.key.namespace, change.key.collection))
        if plan is not None:
            facts = changes.transactions[change.tx_number]
            sequence = sequences.get(change.key.namespace, 0)
            _map_private(change, plan, sequence, changes.header.number, facts, mapped, quarantined)
    return RowBatch(batch.block, tuple(mapped), tuple(quarantined), private)


def map_private_change(
    change: PrivateChange, mapping: Mapping, sequence: int, block_number: int, facts: TransactionFacts
) -> tuple[list[MappedRow], list[QuarantinedWrite]]:
    """Convert one private change as `map_block` does: of a value that came after its block."""
    mapped: list[MappedRow] = []
    quarantined: list[QuarantinedWrite] = []
    plan = _private_plan(mapping).get((change.key.namespace, change.key.collection))
    if plan is not None:
        _map_private(change, plan, sequence, block_number, facts, mapped, quarantined)
    return mapped, quarantined


def _map_private(
    change: PrivateChange,
    collection: "_CollectionPlan",
    sequence: int,
    block_number: int,
    facts: TransactionFacts,
    mapped: list[MappedRow],
    quarantined: list[QuarantinedWrite],
) -> None:
    """Map one private change. Rows of what is gone, missing or unfit go, and no value is kept in the quarantine.

    A moved version leaves the row with the facts of the write that gave its value.
    """
    tx_number, write_number, key = change.tx_number, change.write_number, change.key
    if change.effect is Effect.VERSION:
        return
    if change.private_key is None or change.value is None:
        mapped += [
            MappedRow(table.table, key, tx_number, write_number, change.effect, None, None)
            for table in collection.all_tables
        ]
        return
    own_key = LedgerKey(key.namespace, key.collection, change.private_key)
    write = EffectiveWrite(tx_number, write_number, own_key, WriteKind.PUT, Effect.PUT, change.value, b"")
    selection = collection.tables.select(change.private_key)
    rows = _map_selected(write, change.value, selection, sequence, block_number, facts)
    for table, row in zip((*selection.tables, *selection.unfit), rows, strict=True):
        if isinstance(row, MappedRow):
            mapped.append(row._replace(key=key))
        else:
            quarantined.append(row._replace(key=key, value=b""))
            if row.reason != quarantine.KEY_ATTRIBUTES:  # a key that no table takes never had a row
                mapped.append(_deleted(write, table, selection.attributes)._replace(key=key))


def _deleted(write: EffectiveWrite, table: _TablePlan, attributes: tuple[str, ...]) -> MappedRow:
    name = table.external_id(write.key.key, attributes)
    return MappedRow(table.table, write.key, write.tx_number, write.write_number, Effect.DELETE, None, name)


def _map_selected(
    write: EffectiveWrite,
    value: bytes,
    selection: _Selection,
    sequence: int,
    block_number: int,
    facts: TransactionFacts,
) -> list[MappedRow | QuarantinedWrite]:
    """Map a value for each table of a selection, fit or not; one that takes other sequences has no row of it.

    A key of a mapped object type whose number of attributes no table has is told of, not lost in silence.
    """
    attributes = selection.attributes
    rows: list[MappedRow | QuarantinedWrite] = []
    for table in selection.tables:
        if table.sequences is not None and not table.takes(sequence):
            rows.append(_deleted(write, table, attributes))
        else:
            rows.append(_map_value(write, value, table, attributes, block_number, facts))
    for table in selection.unfit:
        if table.takes(sequence):
            detail = f"a key of {table.attribute_count} attributes expected, {len(attributes)} found"
            rows.append(_quarantined(write, value, table, quarantine.KEY_ATTRIBUTES, detail))
        else:
            rows.append(_deleted(write, table, attributes))
    return rows


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
    tx_number, write_number, ledger_key, _, effect, _, _, _, _ = write
    key = ledger_key.key
    name = table.external_id(key, attributes)
    if table.pattern is not None:
        attributes = _pattern_attributes(table.pattern, key) or ()
    children: tuple[tuple[tuple[object, ...], ...], ...] = ()
    try:
        document, values = table.row(key, value, attributes, block_number, write_number, facts)
    except UnfitValueError as error:
        return _quarantined(write, value, table, error.reason, _with_column(error, table.columns))
    if table.children:
        try:
            children = tuple(
                [
                    _child_rows(child, document, key, value, attributes, block_number, write_number, facts)
                    for child in table.children
                ]
            )
        except UnfitValueError as error:
            return _quarantined(write, value, table, error.reason, error.detail)
    return MappedRow(table.table, ledger_key, tx_number, write_number, effect, values, name, children)


def _child_rows(
    child: _ChildPlan,
    document: JsonValue,
    key: bytes,
    value: bytes,
    attributes: tuple[str, ...],
    block_number: int,
    write_number: int,
    facts: TransactionFacts,
) -> tuple[tuple[object, ...], ...]:
    """Give the rows of a child table; raises `UnfitValueError` that names it, and the first element that is unfit."""
    try:
        array = select(document, child.each)
        if array is None or array == []:
            return ()
        if type(array) is list and len(array) <= MAX_ELEMENTS:
            return tuple(child.rows(key, value, attributes, block_number, write_number, facts, array))
    except UnfitValueError as error:
        detail = f"child {child.name}, element {error.element}: {_with_column(error, child.columns)}"
        raise UnfitValueError(error.reason, detail) from None
    if type(array) is not list:
        raise UnfitValueError(quarantine.WRONG_TYPE, f"child {child.name}: an array expected")
    raise UnfitValueError(quarantine.TOO_LARGE, f"child {child.name}: at most {MAX_ELEMENTS} elements expected")


def _with_column(error: UnfitValueError, columns: Sequence[ColumnMapping]) -> str:
    return error.detail if error.column is None else f"column {columns[error.column].name}: {error.detail}"


@lru_cache(maxsize=8)
def _plan(mapping: Mapping) -> dict[str, _NamespacePlan]:
    namespaces: dict[str, list[tuple[TableMapping, _TablePlan]]] = {}
    for number, table in enumerate(mapping.tables):
        if not table.collections:
            namespaces.setdefault(table.namespace, []).append((table, _table_plan(number, table)))
    return {namespace: _namespace_plan(tables) for namespace, tables in namespaces.items()}


@lru_cache(maxsize=8)
def _private_plan(mapping: Mapping) -> dict[tuple[str, str], _CollectionPlan]:
    collections: dict[tuple[str, str], list[tuple[TableMapping, _TablePlan]]] = {}
    for number, table in enumerate(mapping.tables):
        for collection in table.collections:
            plan = _table_plan(number, table, collection)
            collections.setdefault((table.namespace, collection), []).append((table, plan))
    return {
        place: _CollectionPlan(_namespace_plan(tables), tuple(plan for _, plan in tables))
        for place, tables in collections.items()
    }


def _namespace_plan(tables: list[tuple[TableMapping, _TablePlan]]) -> _NamespacePlan:
    composites: dict[bytes, dict[int, tuple[_TablePlan, ...]]] = {}
    prefixes: list[tuple[bytes, _TablePlan]] = []
    for table, plan in tables:
        match table.key:
            case CompositeSelector(object_type, attributes):
                by_count = composites.setdefault(object_type.encode(), {})
                by_count[len(attributes)] = (*by_count.get(len(attributes), ()), plan)
            case PrefixSelector(prefix):
                prefixes.append((prefix.encode(), plan))
            case PatternSelector(literals, _):
                prefixes.append((literals[0].encode(), plan))
    return _NamespacePlan(composites, tuple(prefixes), tuple({prefix for prefix, _ in prefixes}))


_MAX_REMEMBERED_KEY = 256
"""Bytes; keys can be of any size."""


def _pattern_attributes(literals: tuple[str, ...], key: bytes) -> tuple[str, ...] | None:
    # Asked for twice of one key at least: when its tables are chosen, and when its columns are filled.
    return _known_attributes(literals, key) if len(key) <= _MAX_REMEMBERED_KEY else _match(literals, key)


def _match(literals: tuple[str, ...], key: bytes) -> tuple[str, ...] | None:
    try:
        return match_pattern(literals, key.decode())
    except UnicodeDecodeError:
        return None


_known_attributes = lru_cache(maxsize=1024)(_match)


def _table_plan(number: int, table: TableMapping, collection: str = "") -> _TablePlan:
    return _TablePlan(
        table=number,
        columns=table.columns,
        row=row_function(table, collection),
        children=tuple(
            _ChildPlan(child.name, child.each, child.columns, elements_function(child, table, collection))
            for child in table.children
        ),
        attribute_count=0 if isinstance(table.key, PrefixSelector) else len(table.key.attributes),
        pattern=table.key.literals if isinstance(table.key, PatternSelector) else None,
        sequences=table.sequences,
        collection=collection if len(table.collections) > 1 else "",
    )
