"""The `map` stage: effective writes become rows of the tables that select their keys, or quarantine entries.

Pure: the same block and mapping give the same batch. The identity of a row is the ledger key; columns that repeat parts
of it are a view. A document is mapped whole or quarantined whole, per table.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
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
    ColumnMapping,
    ColumnType,
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
from kvr_sync.mapping.document import JsonValue, read_document
from kvr_sync.mapping.json_path import JsonPath, select, select_object
from kvr_sync.mapping.quarantine import UnfitValueError
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

_FactReader = Callable[[int, TransactionFacts], object]


class _Members(NamedTuple):
    """Columns that are members of one object of the document: text columns, and the others."""

    parent: JsonPath
    first_column: int
    texts: tuple[tuple[int, str, Converter], ...]
    others: tuple[tuple[int, str, Converter], ...]


class _TablePlan(NamedTuple):
    """A table, taken apart by where its values come from; each entry begins with the position of its column."""

    table: int
    column_names: tuple[str, ...]
    blank: tuple[None, ...]
    attribute_count: int
    attributes: tuple[tuple[int, int, Converter], ...]
    keys: tuple[tuple[int, int, Converter], ...]
    members: tuple[_Members, ...]
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

    def select(self, key: bytes) -> tuple[tuple[str, ...], Sequence[_TablePlan], Sequence[_TablePlan]]:
        """Give the key's attributes, the tables it feeds, and those of its type with another number of attributes."""
        if key[:1] != b"\x00":
            return (), [table for prefix, table in self.prefixes if key.startswith(prefix)], ()
        by_count = self.composites.get(key[1 : key.find(b"\x00", 1)])
        parts = split_composite_key(key) if by_count else None
        if by_count is None or parts is None:
            return (), (), ()
        tables = by_count.get(len(parts[1]), ())
        return parts[1], tables, () if tables else [table for found in by_count.values() for table in found]


class _CollectionPlan(NamedTuple):
    """The same for the keys of one private data collection."""

    tables: _NamespacePlan
    all_tables: tuple[_TablePlan, ...]


def map_block(replayed: ReplayedBlock, mapping: Mapping, private: PrivateChanges | None = None) -> RowBatch:
    """Convert the effective public writes of a block, in their order, and then the private ones where there are any.

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
        if write.effect is _DELETE or write.value is None:
            mapped += [_deleted(write, table) for table in tables]
            continue
        for table in tables:
            row = _map_value(write, write.value, table, attributes, block_number, transactions[write.tx_number])
            if isinstance(row, MappedRow):
                mapped.append(row)
            else:
                quarantined.append(row)
    batch = RowBatch(replayed, tuple(mapped), tuple(quarantined))
    return batch if private is None else _with_private(batch, private, mapping)


def _with_private(batch: RowBatch, private: PrivateChanges, mapping: Mapping) -> RowBatch:
    plans = _private_plan(mapping)
    changes = batch.block.changes
    mapped = list(batch.mapped)
    quarantined = list(batch.quarantined)
    for change in private.changes:
        plan = plans.get((change.key.namespace, change.key.collection))
        if plan is not None:
            facts = changes.transactions[change.tx_number]
            _map_private(change, plan, changes.header.number, facts, mapped, quarantined)
    return RowBatch(batch.block, tuple(mapped), tuple(quarantined), private)


def _map_private(
    change: PrivateChange,
    collection: "_CollectionPlan",
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
    if change.effect is _DELETE or change.private_key is None or change.value is None:
        mapped += [
            MappedRow(table.table, key, tx_number, write_number, _DELETE, None) for table in collection.all_tables
        ]
        return
    own_key = LedgerKey(key.namespace, key.collection, change.private_key)
    write = EffectiveWrite(tx_number, write_number, own_key, WriteKind.PUT, Effect.PUT, change.value, b"")
    attributes, tables, unfit = collection.tables.select(change.private_key)
    for table in tables:
        row = _map_value(write, change.value, table, attributes, block_number, facts)
        if isinstance(row, MappedRow):
            mapped.append(row._replace(key=key))
        else:
            quarantined.append(row._replace(key=key, value=b""))
            mapped.append(MappedRow(table.table, key, tx_number, write_number, _DELETE, None))
    for table in unfit:
        detail = f"a key of {table.attribute_count} attributes expected, {len(attributes)} found"
        found = _quarantined(write, b"", table, quarantine.KEY_ATTRIBUTES, None, detail)
        quarantined.append(found._replace(key=key))


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
    if write.effect is _DELETE or write.value is None:
        mapped += [_deleted(write, table) for table in tables]
        return
    for table in tables:
        detail = f"a key of {table.attribute_count} attributes expected, {count} found"
        quarantined.append(_quarantined(write, write.value, table, quarantine.KEY_ATTRIBUTES, None, detail))


def _quarantined(
    write: EffectiveWrite, value: bytes, table: _TablePlan, reason: str, column: int | None, detail: str
) -> QuarantinedWrite:
    sentence = detail if column is None else f"column {table.column_names[column]}: {detail}"
    return QuarantinedWrite(table.table, write.key, write.tx_number, write.write_number, reason, sentence, value)


def _map_value(
    write: EffectiveWrite,
    value: bytes,
    table: _TablePlan,
    attributes: tuple[str, ...],
    block_number: int,
    facts: TransactionFacts,
) -> MappedRow | QuarantinedWrite:
    values: list[object] = list(table.blank)
    try:
        _fill_from_write(values, table, write.key.key, value, attributes, block_number, facts)
        if table.reads_document:
            _fill_from_document(values, table, read_document(value))
        for column in table.required:
            if values[column] is None:
                return _quarantined(write, value, table, quarantine.MISSING, column, "a value expected, none found")
    except UnfitValueError as error:
        return _quarantined(write, value, table, error.reason, error.column, error.detail)
    return MappedRow(table.table, write.key, write.tx_number, write.write_number, write.effect, tuple(values))


def _fill_from_write(
    values: list[object],
    table: _TablePlan,
    key: bytes,
    value: bytes,
    attributes: tuple[str, ...],
    block_number: int,
    facts: TransactionFacts,
) -> None:
    column: int | None = None
    try:
        for column, position, convert in table.attributes:
            values[column] = convert(attributes[position])
        for column, start, convert in table.keys:
            values[column] = convert(key[start:])
        for column, convert in table.whole_values:
            values[column] = convert(value)
        for column, read in table.facts:
            values[column] = read(block_number, facts)
    except UnfitValueError as error:
        error.column = column
        raise


def _fill_from_document(values: list[object], table: _TablePlan, document: JsonValue) -> None:
    column: int | None = None
    try:
        for group in table.members:
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
        for column, path, convert in table.paths:
            member = select(document, path)
            if member is not None:
                values[column] = convert(member)
        for column, path, convert in table.repeats:
            _check_repeated(convert, select(document, path), values[column])
    except UnfitValueError as error:
        error.column = column
        raise


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
        if isinstance(table.key, CompositeSelector):
            by_count = composites.setdefault(table.key.object_type.encode(), {})
            count = len(table.key.attributes)
            by_count[count] = (*by_count.get(count, ()), plan)
        else:
            prefixes.append((table.key.prefix.encode(), plan))
    return _NamespacePlan(composites, tuple(prefixes), tuple({prefix for prefix, _ in prefixes}))


def _table_plan(number: int, table: TableMapping, collection: str = "") -> _TablePlan:
    columns = list(enumerate(table.columns))
    from_json = [(i, c.source.path, json_converter(c)) for i, c in columns if isinstance(c.source, FromJson)]
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
        members=_members(table),
        paths=tuple((i, path, convert) for i, path, convert in from_json if isinstance(path[-1], int)),
        repeats=tuple(repeats),
        reads_document=bool(from_json or repeats),
        whole_values=tuple((i, bytes_converter(c)) for i, c in columns if isinstance(c.source, FromValue)),
        facts=tuple(
            (i, _fact_reader(c.source.fact, c, collection)) for i, c in columns if isinstance(c.source, FromLedger)
        ),
        required=tuple(i for i, c in columns if c.required),
    )


def _members(table: TableMapping) -> tuple[_Members, ...]:
    groups: dict[JsonPath, tuple[list[tuple[int, str, Converter]], list[tuple[int, str, Converter]]]] = {}
    for number, column in enumerate(table.columns):
        if isinstance(column.source, FromJson) and isinstance(name := column.source.path[-1], str):
            texts, others = groups.setdefault(column.source.path[:-1], ([], []))
            chosen = texts if column.type is ColumnType.TEXT else others
            chosen.append((number, name, json_converter(column)))
    return tuple(
        _Members(parent, (texts or others)[0][0], tuple(texts), tuple(others))
        for parent, (texts, others) in groups.items()
    )


def _fact_reader(fact: LedgerFact, column: ColumnMapping, collection: str) -> _FactReader:
    match fact:
        case LedgerFact.COLLECTION:
            return lambda _block_number, _facts: collection
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
