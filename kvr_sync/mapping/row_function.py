"""The function that makes the values of one table's rows, written out for its columns as Python source and compiled.

`dataclasses` does the same, for the same reason: what is known of a table is not asked again for every row. Nothing of
the mapping stands in the source: names, paths and converters are values that it is given.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeAlias, cast

from kvr_sync.mapping import quarantine
from kvr_sync.mapping.conversion import (
    MAX_PLAIN_TEXT,
    bytes_converter,
    claimed_time,
    json_converter,
    text_converter,
)
from kvr_sync.mapping.definition import (
    ChildMapping,
    ColumnMapping,
    ColumnType,
    FromElement,
    FromJson,
    FromKey,
    FromKeyAttribute,
    FromKeyRest,
    FromLedger,
    FromUnknown,
    FromValue,
    LedgerFact,
    PrefixSelector,
    TableMapping,
)
from kvr_sync.mapping.document import JsonValue, read_document, write_document
from kvr_sync.mapping.json_path import JsonPath, select, select_object
from kvr_sync.mapping.quarantine import UnfitValueError
from kvr_sync.mapping.unknown_members import KnownMembers, known_members, unknown_members
from kvr_sync.model import TransactionFacts
from kvr_sync.store.storable import storable_function, storable_text

Values: TypeAlias = tuple[object, ...]
"""Of the columns of a row, in their order."""

RowFunction: TypeAlias = Callable[[bytes, bytes, tuple[str, ...], int, int, TransactionFacts], tuple[JsonValue, Values]]
"""From key, value, attributes, block number, write number and transaction to the document that was read and a row.

Raises `UnfitValueError`, with its column where it is one's.
"""

ElementsFunction: TypeAlias = Callable[
    [bytes, bytes, tuple[str, ...], int, int, TransactionFacts, list[JsonValue]], list[Values]
]
"""The same and the elements of an array, to a row of each. The error says at which element, too."""

_ARGUMENTS: Final = "key, value, attributes, block_number, write_number, facts"


def row_function(table: TableMapping, collection: str = "") -> RowFunction:
    """Give the function of a table; `collection` is the one it is for, where the table takes private data."""
    source = _Source(table, table.columns, collection)
    counts_unknown = table.refuses_unknown or any(isinstance(column.source, FromUnknown) for column in table.columns)
    reads_document = counts_unknown or bool(table.children) or source.reads_json
    source.write(f"def row({_ARGUMENTS}):", "    column = document = None", "    try:")
    source.write_given("        ")
    if reads_document:
        source.write("        column = None", "        document = read_object(value)")
        source.write_members("        ", "document")
        if counts_unknown:
            source.write_unknown("        ", known_members(table))
    source.write_required("        ")
    source.write(
        "    except UnfitValueError as error:",
        "        error.column = column",
        "        raise",
        f"    return document, {source.values}",
    )
    return cast("RowFunction", source.compiled("row"))


def elements_function(child: ChildMapping, table: TableMapping, collection: str = "") -> ElementsFunction:
    """Give the function of a child table."""
    source = _Source(table, child.columns, collection)
    source.write(f"def rows({_ARGUMENTS}, elements):", "    made = []", "    column = None", "    try:")
    source.write_given("        ")
    source.write("        for element in elements:")
    source.write_elements("            ")
    if source.reads_json:
        source.write_members("            ", "element")
    source.write_required("            ")
    source.write(
        f"            made.append({source.values})",
        "    except UnfitValueError as error:",
        "        error.column = column",
        "        error.element = len(made)",
        "        raise",
        "    return made",
    )
    return cast("ElementsFunction", source.compiled("rows"))


class _Source:
    """Collects the lines of a function and the values that they name. Column `i` is the variable `v{i}`."""

    def __init__(self, table: TableMapping, columns: Sequence[ColumnMapping], collection: str) -> None:
        self._table = table
        self._columns = list(enumerate(columns))
        self._collection = collection
        self._lines: list[str] = []
        self._names: dict[str, object] = {
            "UnfitValueError": UnfitValueError,
            "claimed_time": claimed_time,
            "check_repeated": _check_repeated,
            "missing": _missing,
            "read_object": _read_object,
            "select": select,
            "select_object": select_object,
            "storable_function": storable_function,
            "storable_text": storable_text,
            "unknown_text": _unknown_text,
        }

    @property
    def reads_json(self) -> bool:
        """Whether columns read something inside a document."""
        return any(isinstance(column.source, FromJson) or column.equals_json for _, column in self._columns)

    @property
    def values(self) -> str:
        """The row, as an expression."""
        return f"({''.join(f'v{number}, ' for number, _ in self._columns)})"

    def write(self, *lines: str) -> None:
        """Add lines."""
        self._lines += lines

    def compiled(self, name: str) -> object:
        """Give the function of this name."""
        code = compile("\n".join(self._lines), f"<rows of {self._table.name}>", "exec")
        exec(code, self._names)  # noqa: S102  made here, and without any text of the mapping
        return self._names[name]

    def write_given(self, indent: str) -> None:
        """Fill the columns that take nothing out of a document: from key, value and ledger, in this order."""
        for number, expression in [*self._of_key(), *self._of_value(), *self._of_ledger()]:
            self.write(f"{indent}column = {number}", f"{indent}v{number} = {expression}")

    def write_elements(self, indent: str) -> None:
        """Fill the columns that are a whole element."""
        for number, column in self._columns:
            if isinstance(column.source, FromElement):
                self.write(f"{indent}column = {number}", f"{indent}v{number} = element")
                self._write_converted(indent, number, json_converter(column))

    def write_members(self, indent: str, document: str) -> None:
        """Fill the columns that stand at a path in the document, and look at what has to be repeated in it."""
        for parent, members in self._members():
            first = members[0][0] if parent else None
            self.write(f"{indent}column = {first}", f"{indent}parent = {self._object(document, parent)}")
            blank = "".join(f"v{number} = " for number, _, _ in members)
            self.write(f"{indent}if parent is None:", f"{indent}    {blank}None", f"{indent}else:")
            self.write(f"{indent}    get = parent.get")
            for number, name, column in members:
                self.write(f"{indent}    column = {number}", f"{indent}    v{number} = get({self._bound(name)})")
                # What the converter gives for most texts, without the call.
                plain = (
                    f" and (type(v{number}) is not str or len(v{number}) > {MAX_PLAIN_TEXT} or '\\0' in v{number})"
                    if _is_plain(column)
                    else ""
                )
                self._write_converted(f"{indent}    ", number, json_converter(column), plain)
        for number, column in self._columns:
            if isinstance(column.source, FromJson) and isinstance(column.source.path[-1], int):
                found = self._at(document, column.source.path)
                self.write(f"{indent}column = {number}", f"{indent}v{number} = {found}")
                self._write_converted(indent, number, json_converter(column))
        for number, column in self._columns:
            if column.equals_json is not None:
                convert = self._bound(json_converter(column))
                self.write(f"{indent}column = {number}", f"{indent}member = {self._at(document, column.equals_json)}")
                # A text that is the same is what the converter gives for it.
                differs = f"member is None or member != v{number}" if column.type is ColumnType.TEXT else "True"
                self.write(f"{indent}if {differs}:", f"{indent}    check_repeated({convert}, member, v{number})")

    def write_unknown(self, indent: str, known: KnownMembers) -> None:
        """Fill the column of what no other reads, or refuse the document for it."""
        target = next((number for number, column in self._columns if isinstance(column.source, FromUnknown)), None)
        assigned = "" if target is None else f"v{target} = "
        arguments = f"document, {self._bound(known)}, is_refused={target is None}"
        self.write(f"{indent}column = {target}", f"{indent}{assigned}unknown_text({arguments})")

    def write_required(self, indent: str) -> None:
        """Refuse the row where a required column has no value."""
        for number, column in self._columns:
            if column.required:
                self.write(f"{indent}if v{number} is None:", f"{indent}    column = {number}", f"{indent}    missing()")

    def _of_key(self) -> Iterator[tuple[int, str]]:
        selector = self._table.key
        prefix = len(selector.prefix.encode()) if isinstance(selector, PrefixSelector) else 0
        for number, column in self._columns:
            if isinstance(column.source, FromKeyAttribute):
                yield number, f"{self._bound(text_converter(column))}(attributes[{column.source.position}])"
        for number, column in self._columns:
            if isinstance(column.source, FromKey | FromKeyRest):
                start = prefix if isinstance(column.source, FromKeyRest) else 0
                yield number, f"{self._bound(bytes_converter(column))}(key[{start}:])"

    def _of_value(self) -> Iterator[tuple[int, str]]:
        for number, column in self._columns:
            if isinstance(column.source, FromValue):
                yield number, f"{self._bound(bytes_converter(column))}(value)"

    def _of_ledger(self) -> Iterator[tuple[int, str]]:
        for number, column in self._columns:
            if isinstance(column.source, FromLedger):
                yield number, self._fact(column.source.fact, column)

    def _fact(self, fact: LedgerFact, column: ColumnMapping) -> str:
        match fact:
            case LedgerFact.COLLECTION:
                return self._bound(self._collection)
            # Texts as the ledger layer stores them: rows can be made again from there.
            case LedgerFact.TX_ID:
                return f"{self._bound(text_converter(column))}(storable_text(facts.tx_id))"
            case LedgerFact.CREATOR_MSP_ID:
                return f"{self._bound(text_converter(column))}(storable_text(facts.msp_id))"
            case LedgerFact.CHAINCODE:
                convert = self._bound(text_converter(column))
                return f"{convert}(storable_text(facts.chaincode.name)) if facts.chaincode else None"
            case LedgerFact.FUNCTION:
                convert = self._bound(_unless_none(text_converter(column)))
                return f"{convert}(storable_function(facts.function))"
            case _:
                return _NUMBERS[fact]

    def _members(self) -> list[tuple[JsonPath, list[tuple[int, str, ColumnMapping]]]]:
        """Group the columns that are members by the object they are in; texts come first in each."""
        groups: dict[JsonPath, list[tuple[int, str, ColumnMapping]]] = {}
        for number, column in self._columns:
            if isinstance(column.source, FromJson) and isinstance(name := column.source.path[-1], str):
                groups.setdefault(column.source.path[:-1], []).append((number, name, column))
        return [
            (parent, sorted(members, key=lambda member: not _is_plain(member[2]))) for parent, members in groups.items()
        ]

    def _at(self, document: str, path: JsonPath) -> str:
        if document == "document" and len(path) == 1 and isinstance(path[0], str):
            return f"document.get({self._bound(path[0])})"
        return f"select({document}, {self._bound(path)})"

    def _object(self, document: str, parent: JsonPath) -> str:
        # The document itself is an object already, an element may be anything.
        return (
            document if document == "document" and not parent else f"select_object({document}, {self._bound(parent)})"
        )

    def _write_converted(
        self, indent: str, number: int, convert: Callable[[JsonValue], object], condition: str = ""
    ) -> None:
        name = self._bound(convert)
        self.write(f"{indent}if v{number} is not None{condition}:", f"{indent}    v{number} = {name}(v{number})")

    def _bound(self, value: object) -> str:
        name = f"b{len(self._names)}"
        self._names[name] = value
        return name


_NUMBERS: Final = {
    LedgerFact.BLOCK_NUMBER: "block_number",
    LedgerFact.TX_NUMBER: "facts.tx_number",
    LedgerFact.WRITE_NUMBER: "write_number",
    LedgerFact.CLAIMED_AT: "claimed_time(facts.seconds, facts.nanos)",
    LedgerFact.CLAIMED_NANOS: "facts.nanos",
}


def _is_plain(column: ColumnMapping) -> bool:
    """Whether a text of at most MAX_PLAIN_TEXT characters without U+0000 is the column's value as it is."""
    return column.type is ColumnType.TEXT and column.index_share <= 1


def _unless_none(convert: Callable[[str], object]) -> Callable[[str | None], object]:
    return lambda value: None if value is None else convert(value)


def _read_object(value: bytes) -> dict[str, JsonValue]:
    document = read_document(value)
    if type(document) is not dict:
        raise UnfitValueError(quarantine.NOT_AN_OBJECT, "a JSON object expected")
    return document


def _missing() -> None:
    raise UnfitValueError(quarantine.MISSING, "a value expected, none found")


def _check_repeated(convert: Callable[[JsonValue], object], member: JsonValue, value: object) -> None:
    if member is None or convert(member) != value:
        raise UnfitValueError(quarantine.KEY_CONTRADICTION, "the same value in the document expected")


def _unknown_text(document: JsonValue, known: KnownMembers, *, is_refused: bool) -> str | None:
    unknown = unknown_members(document, known)
    if unknown is None:
        return None
    if is_refused:
        raise UnfitValueError(quarantine.UNKNOWN_MEMBER, "no members expected that the mapping does not know")
    return write_document(unknown)
