"""The `map` stage: effective writes become rows of the tables that select their keys, or quarantine entries.

Pure: the same block and mapping give the same batch. The identity of a row is the ledger key; columns that repeat parts
of it are a view. A document is mapped whole or quarantined whole, per table.
"""

from collections.abc import Callable, Sequence
from collections.abc import Mapping as Lookup
from functools import lru_cache
from types import MappingProxyType
from typing import NamedTuple

from kvr_sync.mapping import quarantine
from kvr_sync.mapping.conversion import (
    MAX_PLAIN_TEXT,
    Converter,
    bytes_converter,
    claimed_time,
    json_converter,
    text_converter,
)
from kvr_sync.mapping.definition import (
    ChildMapping,
    ColumnMapping,
    ColumnType,
    CompositeSelector,
    FromElement,
    FromJson,
    FromKey,
    FromKeyAttribute,
    FromKeyRest,
    FromLedger,
    FromUnknown,
    FromValue,
    LedgerFact,
    Mapping,
    PatternSelector,
    PrefixSelector,
    SequenceRange,
    TableMapping,
)
from kvr_sync.mapping.document import JsonValue, read_document, write_document
from kvr_sync.mapping.external_id import external_id
from kvr_sync.mapping.json_path import JsonPath, select, select_object
from kvr_sync.mapping.key_pattern import match_pattern
from kvr_sync.mapping.limits import MAX_ELEMENTS
from kvr_sync.mapping.quarantine import UnfitValueError
from kvr_sync.mapping.unknown_members import KnownMembers, known_members, unknown_members
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
from kvr_sync.store.storable import storable_function, storable_text
from network.protocol.composite_key import split_composite_key

_NONE = Effect.NONE
_DELETE = Effect.DELETE

_FactReader = Callable[[int, int, TransactionFacts], object]
"""From block number, write number and transaction."""

NO_SEQUENCES: Lookup[str, int] = MappingProxyType({})


class _Members(NamedTuple):
    """Columns that are members of one object of the document: text columns, and the others."""

    parent: JsonPath
    first_column: int
    texts: tuple[tuple[int, str, Converter], ...]
    others: tuple[tuple[int, str, Converter], ...]


class _ColumnsPlan(NamedTuple):
    """Columns taken apart by where their values come from; each entry begins with the position of its column."""

    column_names: tuple[str, ...]
    blank: tuple[None, ...]
    attributes: tuple[tuple[int, int, Converter], ...]
    keys: tuple[tuple[int, int, Converter], ...]
    members: tuple[_Members, ...]
    paths: tuple[tuple[int, JsonPath, Converter], ...]
    repeats: tuple[tuple[int, JsonPath, Converter], ...]
    whole_values: tuple[tuple[int, Converter], ...]
    elements: tuple[tuple[int, Converter], ...]
    facts: tuple[tuple[int, _FactReader], ...]
    required: tuple[int, ...]


class _ChildPlan(NamedTuple):
    """A child table: where its array is, and the columns of its rows."""

    name: str
    each: JsonPath
    columns: _ColumnsPlan


class _TablePlan(NamedTuple):
    """A table: which keys it takes, and what becomes of their values."""

    table: int
    columns: _ColumnsPlan
    children: tuple[_ChildPlan, ...]
    attribute_count: int
    pattern: tuple[str, ...] | None
    sequences: SequenceRange | None
    reads_document: bool
    known: "KnownMembers | None"
    """Where unknown members count; None: they are ignored."""
    unknown_column: int | None
    """Where they go; None: a document that has some is refused."""
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


class _Written(NamedTuple):
    """What the columns of one document take from outside it."""

    key: bytes
    value: bytes
    attributes: tuple[str, ...]
    block_number: int
    write_number: int
    facts: TransactionFacts


def _map_value(
    write: EffectiveWrite,
    value: bytes,
    table: _TablePlan,
    attributes: tuple[str, ...],
    block_number: int,
    facts: TransactionFacts,
) -> MappedRow | QuarantinedWrite:
    key = write.key.key
    name = table.external_id(key, attributes)
    if table.pattern is not None:
        attributes = _pattern_attributes(table.pattern, key) or ()
    written = _Written(key, value, attributes, block_number, write.write_number, facts)
    children: tuple[tuple[tuple[object, ...], ...], ...] = ()
    document: JsonValue = None
    try:
        values = _values_of_write(table.columns, written)
        if table.reads_document:
            document = _read_object(value)
            _fill_from_document(values, table.columns, document)
            if table.known is not None:
                _take_unknown(values, table, document, table.known)
        _check_required(values, table.columns)
    except UnfitValueError as error:
        return _quarantined(write, value, table, error.reason, _with_column(error, table.columns))
    if table.children:
        rows = _child_rows(table, document, written)
        if isinstance(rows, UnfitValueError):
            return _quarantined(write, value, table, rows.reason, rows.detail)
        children = rows
    return MappedRow(
        table.table, write.key, write.tx_number, write.write_number, write.effect, tuple(values), name, children
    )


def _read_object(value: bytes) -> dict[str, JsonValue]:
    document = read_document(value)
    if type(document) is not dict:
        raise UnfitValueError(quarantine.NOT_AN_OBJECT, "a JSON object expected")
    return document


def _with_column(error: UnfitValueError, columns: _ColumnsPlan) -> str:
    return error.detail if error.column is None else f"column {columns.column_names[error.column]}: {error.detail}"


def _values_of_write(columns: _ColumnsPlan, written: _Written) -> list[object]:
    values: list[object] = list(columns.blank)
    column: int | None = None
    try:
        for column, position, convert in columns.attributes:
            values[column] = convert(written.attributes[position])
        for column, start, convert in columns.keys:
            values[column] = convert(written.key[start:])
        for column, convert in columns.whole_values:
            values[column] = convert(written.value)
        for column, read in columns.facts:
            values[column] = read(written.block_number, written.write_number, written.facts)
    except UnfitValueError as error:
        error.column = column
        raise
    return values


def _check_required(values: list[object], columns: _ColumnsPlan) -> None:
    if None not in values:
        return
    for column in columns.required:
        if values[column] is None:
            error = UnfitValueError(quarantine.MISSING, "a value expected, none found")
            error.column = column
            raise error


def _fill_from_document(values: list[object], columns: _ColumnsPlan, document: JsonValue) -> None:
    column: int | None = None
    try:
        for group in columns.members:
            column = group.first_column if group.parent else None
            parent = select_object(document, group.parent)
            if parent is not None:
                for column, name, convert in group.texts:
                    member = parent.get(name)
                    if type(member) is str and len(member) <= MAX_PLAIN_TEXT and "\x00" not in member:
                        values[column] = member  # what `convert` gives for most texts, without the call
                    elif member is not None:
                        values[column] = convert(member)
                for column, name, convert in group.others:
                    member = parent.get(name)
                    if member is not None:
                        values[column] = convert(member)
        for column, path, convert in columns.paths:
            member = select(document, path)
            if member is not None:
                values[column] = convert(member)
        for column, path, convert in columns.repeats:
            _check_repeated(convert, select(document, path), values[column])
    except UnfitValueError as error:
        error.column = column
        raise


def _take_unknown(values: list[object], table: _TablePlan, document: JsonValue, known: KnownMembers) -> None:
    unknown = unknown_members(document, known)
    if unknown is None:
        return
    if table.unknown_column is None:
        raise UnfitValueError(quarantine.UNKNOWN_MEMBER, "no members expected that the mapping does not know")
    try:
        values[table.unknown_column] = write_document(unknown)
    except UnfitValueError as error:
        error.column = table.unknown_column
        raise


def _child_rows(
    table: _TablePlan, document: JsonValue, written: _Written
) -> tuple[tuple[tuple[object, ...], ...], ...] | UnfitValueError:
    """Give the rows of each child table; an error of the first element that does not fit."""
    children = []
    for child in table.children:
        rows: list[tuple[object, ...]] = []
        try:
            array = select(document, child.each)
            if array is not None:
                if type(array) is not list:
                    return UnfitValueError(quarantine.WRONG_TYPE, f"child {child.name}: an array expected")
                if len(array) > MAX_ELEMENTS:
                    return UnfitValueError(
                        quarantine.TOO_LARGE, f"child {child.name}: at most {MAX_ELEMENTS} elements expected"
                    )
                given = _values_of_write(child.columns, written)
                for element in array:
                    rows.append(tuple(_element_values(list(given), child.columns, element)))  # noqa: PERF401  the count of those made names the element that does not fit
        except UnfitValueError as error:
            detail = f"child {child.name}, element {len(rows)}: {_with_column(error, child.columns)}"
            return UnfitValueError(error.reason, detail)
        children.append(tuple(rows))
    return tuple(children)


def _element_values(values: list[object], columns: _ColumnsPlan, element: JsonValue) -> list[object]:
    column: int | None = None
    try:
        for column, convert in columns.elements:
            if element is not None:
                values[column] = convert(element)
    except UnfitValueError as error:
        error.column = column
        raise
    if columns.members or columns.paths:
        _fill_from_document(values, columns, element)
    _check_required(values, columns)
    return values


def _check_repeated(convert: Converter, member: JsonValue, value: object) -> None:
    if member is None or convert(member) != value:
        raise UnfitValueError(quarantine.KEY_CONTRADICTION, "the same value in the document expected")


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
    columns = _columns_plan(table, table, collection)
    unknown_column = next((i for i, c in enumerate(table.columns) if isinstance(c.source, FromUnknown)), None)
    counts_unknown = table.refuses_unknown or unknown_column is not None
    return _TablePlan(
        table=number,
        columns=columns,
        children=tuple(
            _ChildPlan(child.name, child.each, _columns_plan(child, table, collection)) for child in table.children
        ),
        attribute_count=0 if isinstance(table.key, PrefixSelector) else len(table.key.attributes),
        pattern=table.key.literals if isinstance(table.key, PatternSelector) else None,
        sequences=table.sequences,
        reads_document=bool(columns.members or columns.paths or columns.repeats or table.children or counts_unknown),
        known=known_members(table) if counts_unknown else None,
        unknown_column=unknown_column,
        collection=collection if len(table.collections) > 1 else "",
    )


def _columns_plan(part: TableMapping | ChildMapping, table: TableMapping, collection: str) -> _ColumnsPlan:
    columns = list(enumerate(part.columns))
    from_json = [(i, c.source.path, json_converter(c)) for i, c in columns if isinstance(c.source, FromJson)]
    prefix_length = len(table.key.prefix.encode()) if isinstance(table.key, PrefixSelector) else 0
    return _ColumnsPlan(
        column_names=tuple(column.name for column in part.columns),
        blank=(None,) * len(columns),
        attributes=tuple(
            (i, c.source.position, text_converter(c)) for i, c in columns if isinstance(c.source, FromKeyAttribute)
        ),
        keys=tuple(
            (i, prefix_length if isinstance(c.source, FromKeyRest) else 0, bytes_converter(c))
            for i, c in columns
            if isinstance(c.source, FromKey | FromKeyRest)
        ),
        members=_members(part.columns),
        paths=tuple((i, path, convert) for i, path, convert in from_json if isinstance(path[-1], int)),
        repeats=tuple((i, c.equals_json, json_converter(c)) for i, c in columns if c.equals_json is not None),
        whole_values=tuple((i, bytes_converter(c)) for i, c in columns if isinstance(c.source, FromValue)),
        elements=tuple((i, json_converter(c)) for i, c in columns if isinstance(c.source, FromElement)),
        facts=tuple(
            (i, _fact_reader(c.source.fact, c, collection)) for i, c in columns if isinstance(c.source, FromLedger)
        ),
        required=tuple(i for i, c in columns if c.required),
    )


def _members(columns: Sequence[ColumnMapping]) -> tuple[_Members, ...]:
    groups: dict[JsonPath, tuple[list[tuple[int, str, Converter]], list[tuple[int, str, Converter]]]] = {}
    for number, column in enumerate(columns):
        if isinstance(column.source, FromJson) and isinstance(name := column.source.path[-1], str):
            texts, others = groups.setdefault(column.source.path[:-1], ([], []))
            chosen = texts if column.type is ColumnType.TEXT and column.index_share <= 1 else others
            chosen.append((number, name, json_converter(column)))
    return tuple(
        _Members(parent, (texts or others)[0][0], tuple(texts), tuple(others))
        for parent, (texts, others) in groups.items()
    )


_NUMBERS: dict[LedgerFact, _FactReader] = {
    LedgerFact.BLOCK_NUMBER: lambda block_number, _write_number, _facts: block_number,
    LedgerFact.TX_NUMBER: lambda _block_number, _write_number, facts: facts.tx_number,
    LedgerFact.WRITE_NUMBER: lambda _block_number, write_number, _facts: write_number,
    LedgerFact.CLAIMED_AT: lambda _block_number, _write_number, facts: claimed_time(facts.seconds, facts.nanos),
    LedgerFact.CLAIMED_NANOS: lambda _block_number, _write_number, facts: facts.nanos,
}


def _fact_reader(fact: LedgerFact, column: ColumnMapping, collection: str) -> _FactReader:
    match fact:
        case LedgerFact.COLLECTION:
            return lambda _block_number, _write_number, _facts: collection
        # Texts as the ledger layer stores them: rows can be made again from there.
        case LedgerFact.TX_ID:
            return _present(text_converter(column), lambda facts: storable_text(facts.tx_id))
        case LedgerFact.CREATOR_MSP_ID:
            return _present(text_converter(column), lambda facts: storable_text(facts.msp_id))
        case LedgerFact.CHAINCODE:
            return _present(
                text_converter(column), lambda facts: storable_text(facts.chaincode.name) if facts.chaincode else None
            )
        case LedgerFact.FUNCTION:
            return _present(text_converter(column), lambda facts: storable_function(facts.function))
        case _:
            return _NUMBERS[fact]


def _present(convert: Converter, read: Callable[[TransactionFacts], object]) -> _FactReader:
    def converted(_block_number: int, _write_number: int, facts: TransactionFacts) -> object:
        value = read(facts)
        return None if value is None else convert(value)

    return converted
