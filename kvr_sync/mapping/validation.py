"""From text to `Mapping`: the JSON schema first, then what a schema cannot say; all mistakes are told at once."""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from typing import Any, NoReturn

from kvr_sync.errors import ConfigurationError
from kvr_sync.mapping.definition import (
    FORMAT_VERSION,
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
    KeySelector,
    LedgerFact,
    Mapping,
    PatternSelector,
    PrefixSelector,
    Reference,
    SequenceRange,
    Source,
    TableMapping,
)
from kvr_sync.mapping.document import read_document
from kvr_sync.mapping.json_path import JsonPath, parse_json_path
from kvr_sync.mapping.key_pattern import parse_pattern
from kvr_sync.mapping.limits import MAX_INDEXED_DIGITS, MAX_INDEXED_TEXT_BYTES, MAX_MISTAKES, MAX_TABLES
from kvr_sync.mapping.quarantine import UnfitValueError
from kvr_sync.mapping.schema_check import MappingMistake, place, schema_mistakes, suggestion
from kvr_sync.mapping.sql_name import column_name_mistake, table_name_mistake
from kvr_sync.mapping.yaml_text import Path, Plain, read_yaml
from network.protocol.composite_key import encode_composite_key
from network.protocol.errors import CompositeKeyError

DEFAULT_NAME = "mapping"

_READ_FROM_TEXT = frozenset(ColumnType) - {ColumnType.JSON, ColumnType.BYTES}
_FACT_TYPES = {
    LedgerFact.BLOCK_NUMBER: {ColumnType.INTEGER},
    LedgerFact.TX_NUMBER: {ColumnType.INTEGER},
    LedgerFact.WRITE_NUMBER: {ColumnType.INTEGER},
    LedgerFact.CLAIMED_NANOS: {ColumnType.INTEGER},
    LedgerFact.TX_ID: {ColumnType.TEXT},
    LedgerFact.CREATOR_MSP_ID: {ColumnType.TEXT},
    LedgerFact.CLAIMED_AT: {ColumnType.TIMESTAMP},
    LedgerFact.CHAINCODE: {ColumnType.TEXT},
    LedgerFact.COLLECTION: {ColumnType.TEXT},
    LedgerFact.FUNCTION: {ColumnType.TEXT},
}
_UNINDEXED = frozenset({ColumnType.JSON, ColumnType.BYTES})


def read_mapping(content: bytes, origin: str) -> Mapping:
    """Read a mapping from YAML bytes; `origin` (a file name) begins each line of an error.

    Raises `ConfigurationError` whose text has one line `ORIGIN:LINE: what is wrong and what is allowed` per mistake.
    """
    text = read_yaml(content)
    told = [(mistake.line, mistake.text) for mistake in text.mistakes]
    if text.fatal:
        _refuse(told, origin)

    checked = _Checked(text.value)
    told += [(text.lines.get(mistake.path, 1), mistake.text) for mistake in checked.mistakes]
    if told or checked.mapping is None:
        _refuse(told, origin)
    return checked.mapping


def from_json(text: str, origin: str = "stored mapping") -> Mapping:
    """Read the canonical form that `definition.to_json` writes, with all checks of `read_mapping`.

    Raises `ConfigurationError`, one line per mistake; canonical JSON is a single line, so none is named.
    """
    value: Any
    try:
        value = read_document(text.encode())
    except (UnfitValueError, UnicodeEncodeError):
        raise ConfigurationError(f"{origin}: not a mapping in canonical form: not JSON") from None
    checked = _Checked(value)
    if checked.mapping is None:
        lines = [f"{origin}: {mistake.text}" for mistake in checked.mistakes[:MAX_MISTAKES]]
        raise ConfigurationError("\n".join(lines))
    return checked.mapping


def _refuse(told: list[tuple[int, str]], origin: str) -> NoReturn:
    lines = [f"{origin}:{line}: {text}" for line, text in sorted(set(told))]
    if len(lines) > MAX_MISTAKES:
        lines[MAX_MISTAKES:] = [f"{origin}: and {len(lines) - MAX_MISTAKES} mistakes more"]
    raise ConfigurationError("\n".join(lines))


class _Checked:
    """A value of unknown shape, checked: `mapping` is set exactly when there is no mistake.

    Parts that do not fit the schema are told of by it and looked at no further; all others are checked in full, so that
    one run tells every mistake.
    """

    def __init__(self, value: Plain) -> None:
        self.mistakes: list[MappingMistake] = []
        self.mapping: Mapping | None = None
        self._broken: frozenset[Path] = frozenset()
        if not isinstance(value, dict) or "kvr_mapping" not in value:
            self._tell((), f"not a mapping; one begins with 'kvr_mapping: {FORMAT_VERSION}' and has 'tables'")
            return
        version = value["kvr_mapping"]
        if type(version) is not int or version != FORMAT_VERSION:
            self._tell(("kvr_mapping",), f"this version of the mapping format is not supported; {FORMAT_VERSION} is")
            return
        self.mistakes, self._broken = schema_mistakes(value)
        tables: Any = value.get("tables")
        found = [self._table(name, table) for name, table in tables.items()] if isinstance(tables, dict) else []
        whole = tuple(table for table in found if table is not None)
        if not self.mistakes:
            self._check_names(whole)
            self._check_references(whole)
        if not self.mistakes:
            name: Any = value.get("name", DEFAULT_NAME)
            self.mapping = Mapping(name=name, tables=whole)

    def _tell(self, path: Path, text: str) -> None:
        self.mistakes.append(MappingMistake(path, text))

    def _fits(self, path: Path) -> bool:
        """Whether the schema found nothing wrong at or below a path."""
        return not any(broken[: len(path)] == path for broken in self._broken)

    def _table(self, name: str, table: Any) -> TableMapping | None:  # noqa: ANN401 - shape is what is being checked
        path: Path = ("tables", name)
        mistake = table_name_mistake(name)
        if mistake is not None:
            self._tell(path, mistake)
        if not isinstance(table, dict):
            return None
        key_path: Path = (*path, "key")
        selector = self._selector(key_path, table["key"]) if "key" in table and self._fits(key_path) else None
        of_collection = "collections" in table
        columns, indexes = self._columns(path, table, selector, of_collection=of_collection, of_child=False)
        self._check_unknown(path, table, columns)
        entries = table.get("children")
        children = [
            self._child((*path, "children", child_name), child_name, child, selector, of_collection=of_collection)
            for child_name, child in (entries.items() if isinstance(entries, dict) else ())
        ]
        sequences = self._sequences((*path, "sequence"), table)
        if selector is None or not self._fits(path):
            return None
        return TableMapping(
            name=name,
            namespace=table["namespace"],
            key=selector,
            columns=columns,
            comment=table.get("comment"),
            collections=tuple(table.get("collections", ())),
            children=tuple(child for child in children if child is not None),
            indexes=indexes,
            sequences=sequences,
            refuses_unknown=table.get("unknown") == "quarantine",
        )

    def _child(
        self,
        path: Path,
        name: str,
        child: Any,  # noqa: ANN401 - shape is what is being checked
        selector: KeySelector | None,
        *,
        of_collection: bool,
    ) -> ChildMapping | None:
        mistake = table_name_mistake(name)
        if mistake is not None:
            self._tell(path, mistake)
        if not isinstance(child, dict):
            return None
        columns, indexes = self._columns(path, child, selector, of_collection=of_collection, of_child=True)
        each_path: Path = (*path, "each")
        each = self._json_path(each_path, child["each"]) if "each" in child and self._fits(each_path) else None
        if each is None or not self._fits(path):
            return None
        return ChildMapping(name, each, columns, child.get("comment"), indexes)

    def _columns(
        self, path: Path, table: dict[str, Any], selector: KeySelector | None, *, of_collection: bool, of_child: bool
    ) -> tuple[tuple[ColumnMapping, ...], tuple[tuple[str, ...], ...]]:
        """Give the columns of a table or child table that are right, and its indexes."""
        columns: list[ColumnMapping] = []
        entries = table.get("columns")
        for name, column in entries.items() if isinstance(entries, dict) else ():
            column_path: Path = (*path, "columns", name)
            mistake = column_name_mistake(name)
            if mistake is not None:
                self._tell(column_path, f"{place(path)}: {mistake}")
            if self._fits(column_path):
                found = self._column(column_path, name, column, selector, of_child=of_child)
                columns += found if of_collection else self._public(column_path, found)
        indexes: tuple[tuple[str, ...], ...] = ()
        if "indexes" in table and isinstance(entries, dict) and self._fits((*path, "indexes")):
            indexes = tuple(tuple(names) for names in table["indexes"])
            self._check_indexes((*path, "indexes"), indexes, entries, {column.name: column for column in columns})
        widest = {name: max(len(names) for names in indexes if name in names) for names in indexes for name in names}
        shared = (replace(c, index_share=max(c.index_share, widest.get(c.name, 0))) for c in columns)
        return tuple(shared), indexes

    def _check_indexes(
        self,
        path: Path,
        indexes: tuple[tuple[str, ...], ...],
        named: Collection[str],
        columns: dict[str, ColumnMapping],
    ) -> None:
        """`named`: all columns of the table, `columns`: those that are right."""
        for number, names in enumerate(indexes):
            for position, name in enumerate(names):
                column = columns.get(name)
                if name not in named:
                    text = f"{place(path)}: no column {name!r}{suggestion(name, named)}"
                    self._tell((*path, number, position), text)
                elif column is None:
                    continue
                elif column.type in _UNINDEXED:
                    self._tell(
                        (*path, number, position),
                        f"{place(path)}: columns of type {column.type.value} cannot have an index",
                    )
                else:
                    self._check_share((*path, number, position), column, len(names))

    def _check_share(self, path: Path, column: ColumnMapping, count: int) -> None:
        """Texts and numbers of any size are bounded when they are mapped; these by what the mapping declares."""
        most_bytes, most_digits = MAX_INDEXED_TEXT_BYTES // count, MAX_INDEXED_DIGITS // count
        where = f"{place(path)}: column {column.name!r} of an index of {count} columns"
        if any(len(value.encode()) > most_bytes for value in column.values):
            self._tell(path, f"{where}: 'values' of at most {most_bytes} bytes in UTF-8 are allowed")
        if column.precision is not None and column.precision > most_digits:
            self._tell(path, f"{where}: a precision of at most {most_digits} is allowed")

    def _check_unknown(self, path: Path, table: dict[str, Any], columns: tuple[ColumnMapping, ...]) -> None:
        """Unknown members have one place to go to."""
        takers = [column.name for column in columns if isinstance(column.source, FromUnknown)]
        for name in takers[1:]:
            column_path: Path = (*path, "columns", name, "from")
            self._tell(column_path, f"{place(column_path)}: column {takers[0]!r} takes the unknown members already")
        if takers and "unknown" in table:
            option: Path = (*path, "unknown")
            self._tell(
                option, f"{place(option)}: column {takers[0]!r} takes the unknown members; leave one of the two out"
            )

    def _sequences(self, path: Path, table: dict[str, Any]) -> SequenceRange | None:
        if "sequence" not in table or not self._fits(path):
            return None
        first, last = table["sequence"]["from"], table["sequence"].get("to")
        if last is not None and last < first:
            self._tell((*path, "to"), f"{place(path)}: 'to' is not below 'from'")
        return SequenceRange(first, last)

    def _check_names(self, tables: tuple[TableMapping, ...]) -> None:
        """Two tables of one name; as names of children stand in other places than those of tables, YAML allows it."""
        if len(tables) + sum(len(table.children) for table in tables) > MAX_TABLES:
            self._tell(("tables",), f"at most {MAX_TABLES} tables, child tables included, are allowed")
        names = {table.name for table in tables}
        for table in tables:
            for child in table.children:
                if child.name in names:
                    path: Path = ("tables", table.name, "children", child.name)
                    self._tell(path, f"{place(path)}: another table has this name")
                names.add(child.name)

    def _check_references(self, tables: tuple[TableMapping, ...]) -> None:
        types = {(table.name, column.name): column.type for table in tables for column in table.columns}
        for table in tables:
            parts: list[tuple[Path, TableMapping | ChildMapping]] = [(("tables", table.name), table)]
            parts += [(("tables", table.name, "children", child.name), child) for child in table.children]
            for path, part in parts:
                for column in part.columns:
                    if column.references is not None:
                        at: Path = (*path, "columns", column.name, "references")
                        self._check_reference(at, column, column.references, types)

    def _check_reference(
        self, path: Path, column: ColumnMapping, target: Reference, types: dict[tuple[str, str], ColumnType]
    ) -> None:
        found = types.get((target.table, target.column))
        if found is None:
            known = [".".join(pair) for pair in types]
            word = f"{target.table}.{target.column}"
            self._tell(path, f"{place(path)}: there is no column {word!r}{suggestion(word, known)}")
        elif found is not column.type:
            text = f"{place(path)}: a column of type {found.value} is referred to, not {column.type.value}"
            self._tell(path, text)

    def _selector(self, path: Path, key: dict[str, Any]) -> KeySelector | None:
        where = place(path)
        if key.keys() == {"prefix"}:
            return PrefixSelector(key["prefix"])
        if key.keys() == {"pattern"}:
            pattern = parse_pattern(key["pattern"])
            if isinstance(pattern, str):
                self._tell((*path, "pattern"), f"{where}: {pattern}")
                return None
            return pattern
        if key.keys() != {"composite", "attributes"}:
            self._tell(
                path, f"{where}: either 'composite' and 'attributes', or 'prefix' or 'pattern' alone, is allowed"
            )
            return None
        try:
            encode_composite_key(key["composite"], ())
        except CompositeKeyError:
            self._tell((*path, "composite"), f"{where}: a type without U+0000 and U+10FFFF is allowed")
            return None
        return CompositeSelector(key["composite"], tuple(key["attributes"]))

    def _column(
        self, path: Path, name: str, column: dict[str, Any], selector: KeySelector | None, *, of_child: bool
    ) -> Iterator[ColumnMapping]:
        """Yield the column, or nothing after a mistake."""
        before = len(self.mistakes)
        column_type = ColumnType(column["type"])
        source = self._source(path, column, selector, of_child=of_child)
        if source is not None:
            self._check_type(path, source, column_type)
        self._check_decimal(path, column, column_type)
        if column.get("index") and column_type in _UNINDEXED:
            self._tell((*path, "index"), f"{place(path)}: columns of type {column_type.value} cannot have an index")
        if ("values" in column) != (column_type is ColumnType.ENUM):
            self._tell(path, f"{place(path)}: 'values' are what type enum needs, and no other type has")
        if "collation" in column and column_type is not ColumnType.TEXT:
            self._tell((*path, "collation"), f"{place(path)}: 'collation' is allowed for type text only")
        equals_json = self._equals_json(path, column, column_type, of_child=of_child)
        references = self._reference(path, column, column_type)
        if source is not None and len(self.mistakes) == before:
            yield ColumnMapping(
                name=name,
                source=source,
                type=column_type,
                required=column.get("required", False),
                index=column.get("index", False),
                precision=column.get("precision"),
                scale=column.get("scale"),
                equals_json=equals_json,
                comment=column.get("comment"),
                values=tuple(column.get("values", ())),
                collation=column.get("collation"),
                references=references,
            )

    def _reference(self, path: Path, column: dict[str, Any], column_type: ColumnType) -> Reference | None:
        if "references" not in column:
            return None
        option: Path = (*path, "references")
        table, point, name = column["references"].partition(".")
        if not point or column_type in _UNINDEXED:
            self._tell(option, f"{place(path)}: 'references' is TABLE.COLUMN, for columns of types that compare")
            return None
        return Reference(table, name)

    def _public(self, path: Path, columns: Iterable[ColumnMapping]) -> Iterator[ColumnMapping]:
        """Pass on the columns of a table of public state, of which no collection can be told."""
        for column in columns:
            if column.source == FromLedger(LedgerFact.COLLECTION):
                self._tell(
                    (*path, "from"), f"{place(path)}: 'ledger.collection' is allowed in tables with 'collections' only"
                )
            else:
                yield column

    def _source(
        self, path: Path, column: dict[str, Any], selector: KeySelector | None, *, of_child: bool
    ) -> Source | None:
        if ("from" in column) == ("json" in column):
            self._tell(path, f"{place(path)}: exactly one of 'from' and 'json' is allowed")
            return None
        if "json" in column:
            json_path = self._json_path((*path, "json"), column["json"])
            return None if json_path is None else FromJson(json_path)
        sources = _sources(selector, of_child=of_child)
        source = sources.get(column["from"])
        if source is None and (selector is not None or not column["from"].startswith("key.")):
            close = suggestion(column["from"], sources)
            text = f"{place(path)}: unknown source {column['from']!r}{close}; allowed are {', '.join(sources)}"
            self._tell((*path, "from"), text)
        elif isinstance(source, FromKey) and isinstance(selector, CompositeSelector) and column["type"] != "bytes":
            self._tell((*path, "from"), f"{place(path)}: a whole composite key is of type bytes; or name an attribute")
            return None
        return source

    def _json_path(self, path: Path, text: str) -> JsonPath | None:
        json_path = parse_json_path(text)
        if json_path is None:
            self._tell(path, f'{place(path)}: not a JSON path; allowed are a.b, items[0].name, "odd name".x')
        return json_path

    def _check_type(self, path: Path, source: Source, column_type: ColumnType) -> None:
        match source:
            case FromJson() | FromElement():
                allowed = frozenset(ColumnType) - {ColumnType.BYTES}
            case FromUnknown():
                allowed = frozenset({ColumnType.JSON})
            case FromKeyAttribute():
                allowed = _READ_FROM_TEXT
            case FromKey() | FromKeyRest():
                allowed = _READ_FROM_TEXT | {ColumnType.BYTES}
            case FromValue():
                allowed = frozenset(ColumnType)
            case FromLedger(fact):
                allowed = frozenset(_FACT_TYPES[fact])
        if column_type not in allowed:
            listed = ", ".join(kind.value for kind in ColumnType if kind in allowed)
            self._tell(
                (*path, "type"), f"{place(path)}: not type {column_type.value}; from this source {listed} allowed"
            )

    def _check_decimal(self, path: Path, column: dict[str, Any], column_type: ColumnType) -> None:
        given = [option for option in ("precision", "scale") if option in column]
        if not given:
            return
        if column_type is not ColumnType.DECIMAL:
            self._tell((*path, given[0]), f"{place(path)}: {given[0]!r} is allowed for type decimal only")
        elif len(given) == 1:
            self._tell((*path, given[0]), f"{place(path)}: 'precision' and 'scale' stand together or not at all")
        elif column["scale"] > column["precision"]:
            self._tell((*path, "scale"), f"{place(path)}: a scale up to the precision is allowed")

    def _equals_json(
        self, path: Path, column: dict[str, Any], column_type: ColumnType, *, of_child: bool
    ) -> JsonPath | None:
        if "equals_json" not in column:
            return None
        option: Path = (*path, "equals_json")
        if of_child:
            self._tell(option, f"{place(path)}: 'equals_json' is not allowed in a child table")
        elif "json" in column or column_type not in _READ_FROM_TEXT:
            self._tell(
                option, f"{place(path)}: 'equals_json' compares a column from the key or the ledger, not json or bytes"
            )
        return self._json_path(option, column["equals_json"])


def _sources(selector: KeySelector | None, *, of_child: bool) -> dict[str, Source]:
    """Every word that `from` may be in a table with this selector."""
    sources: dict[str, Source] = {"key": FromKey()}
    if isinstance(selector, CompositeSelector | PatternSelector):
        sources |= {f"key.{name}": FromKeyAttribute(i, name) for i, name in enumerate(selector.attributes)}
    elif isinstance(selector, PrefixSelector):
        sources["key.rest"] = FromKeyRest()
    sources |= {"element": FromElement()} if of_child else {"value": FromValue(), "unknown": FromUnknown()}
    return sources | {f"ledger.{fact.value}": FromLedger(fact) for fact in LedgerFact}
