"""A mapping as frozen values: which keys become which table, and what stands in its columns.

The format for people is described in `kvr_sync/mapping/README.md` and, for editors, in `mapping.schema.json`.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256
from typing import TypeAlias

from kvr_sync.mapping.json_path import JsonPath, format_json_path

FORMAT_VERSION = 1


class ColumnType(StrEnum):
    """Type of a column, and the Python type of its values."""

    TEXT = "text"
    """str without U+0000."""
    INTEGER = "integer"
    """int of 64 bits, signed."""
    DECIMAL = "decimal"
    """Decimal, exact, finite, within PostgreSQL's numeric."""
    BOOLEAN = "boolean"
    """bool."""
    DATE = "date"
    """date of the years 1 to 9999."""
    TIMESTAMP = "timestamp"
    """datetime in UTC, with microseconds."""
    UUID = "uuid"
    """UUID."""
    ENUM = "enum"
    """str: one of the column's `values`."""
    JSON = "json"
    """str: compact JSON text."""
    BYTES = "bytes"
    """bytes."""


class LedgerFact(StrEnum):
    """What the ledger itself says about a write."""

    BLOCK_NUMBER = "block_number"
    TX_NUMBER = "tx_number"
    WRITE_NUMBER = "write_number"
    TX_ID = "tx_id"
    CREATOR_MSP_ID = "creator_msp_id"
    CLAIMED_AT = "claimed_at"
    CLAIMED_NANOS = "claimed_nanos"
    CHAINCODE = "chaincode"
    FUNCTION = "function"
    COLLECTION = "collection"


@dataclass(frozen=True, slots=True)
class FromKeyAttribute:
    """An attribute of the composite key, or a part of a key of a pattern, by its position (from 0)."""

    position: int
    name: str


@dataclass(frozen=True, slots=True)
class FromKey:
    """The whole key."""


@dataclass(frozen=True, slots=True)
class FromKeyRest:
    """The key after the prefix of its table."""


@dataclass(frozen=True, slots=True)
class FromValue:
    """The whole value."""


@dataclass(frozen=True, slots=True)
class FromLedger:
    """A fact of the ledger about the write."""

    fact: LedgerFact


@dataclass(frozen=True, slots=True)
class FromJson:
    """What stands at a path in the JSON document that is the value."""

    path: JsonPath


@dataclass(frozen=True, slots=True)
class FromElement:
    """The whole element of the array that a child table is made of."""


@dataclass(frozen=True, slots=True)
class FromUnknown:
    """The members of the document that no column reads, as one JSON object."""


Source: TypeAlias = (
    FromKeyAttribute | FromKey | FromKeyRest | FromValue | FromLedger | FromJson | FromElement | FromUnknown
)


@dataclass(frozen=True, slots=True)
class CompositeSelector:
    """Composite keys of one object type with exactly these attributes."""

    object_type: str
    attributes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PrefixSelector:
    """Simple keys (not beginning with U+0000) that begin with this text; "" selects every simple key."""

    prefix: str


@dataclass(frozen=True, slots=True)
class PatternSelector:
    """Simple keys made of literal texts with one attribute between each two: `literals` has one more than `attributes`.

    An attribute is not empty and ends where the next literal begins first; the last one may take all the rest.
    """

    literals: tuple[str, ...]
    attributes: tuple[str, ...]


KeySelector: TypeAlias = CompositeSelector | PrefixSelector | PatternSelector


@dataclass(frozen=True, slots=True)
class Reference:
    """A column of another table, or of the same, whose values this column should repeat. Nothing enforces it."""

    table: str
    column: str


@dataclass(frozen=True, slots=True)
class ColumnMapping:
    """One column. `precision` and `scale` are set for decimals only, both or neither; `values` for enumerations.

    `equals_json`: the document must repeat the column's value at this path, or it is quarantined. `collation`: a
    locale by whose rules texts sort; None: by their bytes.
    """

    name: str
    source: Source
    type: ColumnType
    required: bool = False
    index: bool = False
    precision: int | None = None
    scale: int | None = None
    equals_json: JsonPath | None = None
    comment: str | None = None
    values: tuple[str, ...] = ()
    collation: str | None = None
    references: Reference | None = None
    index_share: int = 0
    """How many columns the widest index has that this column is in; 0: it is in none. Bounds its values."""

    def __post_init__(self) -> None:
        """An index of its own is one of a single column."""
        if self.index and not self.index_share:
            object.__setattr__(self, "index_share", 1)


@dataclass(frozen=True, slots=True)
class ChildMapping:
    """A table with one row for each element of an array of the document; the rows belong to the document's row."""

    name: str
    each: JsonPath
    columns: tuple[ColumnMapping, ...]
    comment: str | None = None
    indexes: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class SequenceRange:
    """Sequences of a chaincode definition, both ends included; `last` None: all later ones."""

    first: int
    last: int | None


@dataclass(frozen=True, slots=True)
class TableMapping:
    """One table: rows are identified by their ledger key, never by a column.

    `collections`: the private data collections whose keys and values these are; none: public state. `sequences`: the
    table takes values written while such a definition was in force; None: all. `refuses_unknown`: a document with a
    member that no column and no child table reads is quarantined. `indexes`: names of the columns of each.
    """

    name: str
    namespace: str
    key: KeySelector
    columns: tuple[ColumnMapping, ...]
    comment: str | None = None
    collections: tuple[str, ...] = ()
    children: tuple[ChildMapping, ...] = ()
    indexes: tuple[tuple[str, ...], ...] = ()
    sequences: SequenceRange | None = None
    refuses_unknown: bool = False


@dataclass(frozen=True)
class Mapping:
    """All tables made from one channel's state.

    `digest` is the SHA-256 (64 hex digits) of everything that decides tables and rows, in canonical form: layout of the
    file, `name` and the comments of tables and columns do not count. Order of tables and columns does.
    """

    name: str
    tables: tuple[TableMapping, ...]
    version: int = FORMAT_VERSION
    digest: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Fix the digest once; equal mappings have equal digests."""
        canonical = _compact(_as_object(self, comments=False))
        object.__setattr__(self, "digest", sha256(canonical.encode()).hexdigest())

    def parts(self) -> Iterator[TableMapping | ChildMapping]:
        """Yield every table with its child tables after it."""
        for table in self.tables:
            yield table
            yield from table.children

    def __hash__(self) -> int:
        """Hash in constant time: `map_block` looks a mapping up once per block."""
        return hash(self.digest)


def to_json(mapping: Mapping) -> str:
    """Write the canonical form, comments and name included; `kvr_sync.mapping.validation.from_json` reads it.

    Store it as text: PostgreSQL's jsonb would lose the order of tables and columns.
    """
    return _compact(_as_object(mapping, comments=True))


def _compact(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _as_object(mapping: Mapping, *, comments: bool) -> dict[str, object]:
    content: dict[str, object] = {"kvr_mapping": mapping.version}
    if comments:
        content["name"] = mapping.name
    content["tables"] = {table.name: _table_object(table, comments=comments) for table in mapping.tables}
    return content


def _table_object(table: TableMapping, *, comments: bool) -> dict[str, object]:
    key: dict[str, object]
    match table.key:
        case CompositeSelector(object_type, attributes):
            key = {"composite": object_type, "attributes": list(attributes)}
        case PrefixSelector(prefix):
            key = {"prefix": prefix}
        case PatternSelector(literals, attributes):
            key = {"pattern": format_pattern(literals, attributes)}
    content: dict[str, object] = {"namespace": table.namespace, "key": key}
    if table.collections:
        content["collections"] = list(table.collections)
    if comments and table.comment is not None:
        content["comment"] = table.comment
    if table.sequences is not None:
        last = {} if table.sequences.last is None else {"to": table.sequences.last}
        content["sequence"] = {"from": table.sequences.first, **last}
    if table.refuses_unknown:
        content["unknown"] = "quarantine"
    content |= _columns_object(table, comments=comments)
    if table.children:
        content["children"] = {child.name: _child_object(child, comments=comments) for child in table.children}
    return content


def _child_object(child: ChildMapping, *, comments: bool) -> dict[str, object]:
    content: dict[str, object] = {"each": format_json_path(child.each)}
    if comments and child.comment is not None:
        content["comment"] = child.comment
    return content | _columns_object(child, comments=comments)


def _columns_object(table: TableMapping | ChildMapping, *, comments: bool) -> dict[str, object]:
    content: dict[str, object] = {
        "columns": {column.name: _column_object(column, comments=comments) for column in table.columns}
    }
    if table.indexes:
        content["indexes"] = [list(columns) for columns in table.indexes]
    return content


def format_pattern(literals: Sequence[str], attributes: Sequence[str]) -> str:
    """Write a pattern as a mapping has it: attributes in braces, braces of literals doubled."""
    doubled = [literal.replace("{", "{{").replace("}", "}}") for literal in literals]
    named = [f"{{{name}}}" for name in attributes] + [""]
    return "".join(text for pair in zip(doubled, named, strict=True) for text in pair)


def _column_object(column: ColumnMapping, *, comments: bool) -> dict[str, object]:
    options: dict[str, object] = {
        "required": column.required,
        "index": column.index,
        "precision": column.precision,
        "scale": column.scale,
        "equals_json": column.equals_json and format_json_path(column.equals_json),
        "values": list(column.values),
        "collation": column.collation,
        "references": column.references and f"{column.references.table}.{column.references.column}",
        "comment": column.comment if comments else None,
    }
    given = {name: value for name, value in options.items() if value is not None and value is not False and value != []}
    return {**_source_object(column.source), "type": column.type.value, **given}


def _source_object(source: Source) -> dict[str, object]:
    match source:
        case FromJson(path):
            return {"json": format_json_path(path)}
        case FromKeyAttribute(_, name):
            return {"from": f"key.{name}"}
        case FromLedger(fact):
            return {"from": f"ledger.{fact.value}"}
        case _:
            return {"from": _SOURCE_WORDS[type(source)]}


_SOURCE_WORDS: dict[type, str] = {
    FromKey: "key",
    FromKeyRest: "key.rest",
    FromValue: "value",
    FromElement: "element",
    FromUnknown: "unknown",
}
