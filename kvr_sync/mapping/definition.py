"""A mapping as frozen values: which keys become which table, and what stands in its columns.

The format for people is described in `kvr_sync/mapping/README.md` and, for editors, in `mapping.schema.json`.
"""

import json
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
    TIMESTAMP = "timestamp"
    """datetime in UTC, with microseconds."""
    JSON = "json"
    """str: compact JSON text."""
    BYTES = "bytes"
    """bytes."""


class LedgerFact(StrEnum):
    """What the ledger itself says about a write."""

    BLOCK_NUMBER = "block_number"
    TX_NUMBER = "tx_number"
    TX_ID = "tx_id"
    CREATOR_MSP_ID = "creator_msp_id"
    CLAIMED_AT = "claimed_at"
    CHAINCODE = "chaincode"
    FUNCTION = "function"
    COLLECTION = "collection"


@dataclass(frozen=True, slots=True)
class FromKeyAttribute:
    """An attribute of the composite key, by its position (from 0)."""

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


Source: TypeAlias = FromKeyAttribute | FromKey | FromKeyRest | FromValue | FromLedger | FromJson


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
class ColumnMapping:
    """One column. `precision` and `scale` are set for decimals only, both or neither.

    `equals_json`: the document must repeat the column's value at this path, or it is quarantined.
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


@dataclass(frozen=True, slots=True)
class TableMapping:
    """One table: rows are identified by their ledger key, never by a column.

    `collections`: the private data collections whose keys and values these are; none: public state.
    """

    name: str
    namespace: str
    key: CompositeSelector | PrefixSelector
    columns: tuple[ColumnMapping, ...]
    comment: str | None = None
    collections: tuple[str, ...] = ()


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
    content: dict[str, object] = {"namespace": table.namespace, "key": key}
    if table.collections:
        content["collections"] = list(table.collections)
    if comments and table.comment is not None:
        content["comment"] = table.comment
    content["columns"] = {column.name: _column_object(column, comments=comments) for column in table.columns}
    return content


def _column_object(column: ColumnMapping, *, comments: bool) -> dict[str, object]:
    content: dict[str, object] = {}
    match column.source:
        case FromJson(path):
            content["json"] = format_json_path(path)
        case FromKeyAttribute(_, name):
            content["from"] = f"key.{name}"
        case FromKey():
            content["from"] = "key"
        case FromKeyRest():
            content["from"] = "key.rest"
        case FromValue():
            content["from"] = "value"
        case FromLedger(fact):
            content["from"] = f"ledger.{fact.value}"
    content["type"] = column.type.value
    if column.required:
        content["required"] = True
    if column.index:
        content["index"] = True
    if column.precision is not None:
        content |= {"precision": column.precision, "scale": column.scale}
    if column.equals_json is not None:
        content["equals_json"] = format_json_path(column.equals_json)
    if comments and column.comment is not None:
        content["comment"] = column.comment
    return content
