"""The rows that a mapping must give, worked out a second time from the oracle's ledger; nothing of the engine.

Reads the YAML of a mapping plainly (the mapping's own tests prove its checks), converts values by the rules that
`kvr_sync/mapping/README.md` promises, and gives dictionaries.
"""

import hashlib
import json
import re
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import yaml

from tests.support.oracle import Ledger, TransactionFact, WriteFact

Position = tuple[int, int, int]
Facts = tuple[int, int, int, str, str]
"""Block, transaction, write, transaction id, MSP of the creator."""
Row = tuple[tuple[Any, ...], Facts]
Version = tuple[str, tuple[Any, ...] | None, Facts]
"""Kind, values (None: deleted), facts."""

MOST_ELEMENTS = 100_000
MOST_DEPTH = 100


class Misfit(Exception):  # noqa: N818 - a verdict about a value, not an error
    """The value does not fit the mapping."""


@dataclass
class ExpectedChild:
    """Rows of one child table, by key and place, and of every version by key, position and place."""

    current: dict[tuple[bytes, int], Row] = field(default_factory=dict)
    history: dict[tuple[bytes, Position, int], Row] = field(default_factory=dict)


@dataclass
class ExpectedTable:
    """By key: the current row with its facts.

    By key and position: every version with its kind; quarantined positions with value, and block and reason of their
    closing. By key: the readable id. By name: child tables.
    """

    current: dict[bytes, Row] = field(default_factory=dict)
    history: dict[tuple[bytes, Position], Version] = field(default_factory=dict)
    quarantined: dict[tuple[bytes, Position], tuple[bytes, int | None, str | None]] = field(default_factory=dict)
    names: dict[bytes, str] = field(default_factory=dict)
    children: dict[str, ExpectedChild] = field(default_factory=dict)

    def as_of(self, block: int) -> dict[bytes, Version]:
        """Give the newest version up to a block of each key that has one which is no delete."""
        versions = sorted(self.history, key=lambda version: version[1])
        newest = {key: position for key, position in versions if position[0] <= block}
        found = {key: self.history[key, position] for key, position in newest.items()}
        return {key: version for key, version in found.items() if version[0] != "delete"}

    def validity(self) -> dict[tuple[bytes, Position], int | None]:
        """Give for each version that is no delete the block of the next version of its key."""
        following: dict[bytes, int] = {}
        until: dict[tuple[bytes, Position], int | None] = {}
        for key, position in sorted(self.history, key=lambda version: version[1], reverse=True):
            if self.history[key, position][0] != "delete":
                until[key, position] = following.get(key)
            following[key] = position[0]
        return until


def read_tables(ledger: Ledger, mapping_path: Path) -> dict[str, ExpectedTable]:
    """Apply every write that had an effect to every table of public state that wants its key."""
    return expected_tables(ledger, yaml.safe_load(mapping_path.read_text()))


def expected_tables(ledger: Ledger, definition: dict[str, Any]) -> dict[str, ExpectedTable]:
    """Do the same for a mapping that was read."""
    public = {name: table for name, table in definition["tables"].items() if "collections" not in table}
    facts = {(entry.block, entry.tx): entry for entry in ledger.transactions}
    tables = {
        name: ExpectedTable(children={child: ExpectedChild() for child in table.get("children", {})})
        for name, table in public.items()
    }
    for write in ledger.writes:
        if write.effect == "none" or write.key[1]:
            continue
        for name, table in public.items():
            found = _key_parts(table, write.key)
            if found is None and _is_of_no_table(public, table, write.key):
                found = {}
            if found is not None:
                takes = _takes(table, ledger.sequence(write.key[0], write.block))
                _apply(tables[name], table, found, write, facts[write.block, write.tx], takes=takes)
    for expected in tables.values():
        _close(expected)
    return tables


def _takes(table: dict[str, Any], sequence: int) -> bool:
    wanted = table.get("sequence")
    return wanted is None or wanted["from"] <= sequence <= wanted.get("to", sequence)


def _split(content: bytes) -> list[str] | None:
    """Take a composite key apart: type, attributes."""
    if content[:1] != b"\0" or content[-1:] != b"\0" or len(content) < 2:
        return None
    try:
        return content[1:-1].decode().split("\0")
    except UnicodeDecodeError:
        return None


def _is_of_no_table(public: dict[str, Any], table: dict[str, Any], key: tuple[str, str, bytes]) -> bool:
    """Whether a key is of the object type of a table, and no table has its number of attributes."""
    pieces = _split(key[2])
    if pieces is None or key[0] != table["namespace"] or table["key"].get("composite") != pieces[0]:
        return False
    return not any(_key_parts(other, key) is not None for other in public.values())


def _key_parts(table: dict[str, Any], key: tuple[str, str, bytes]) -> dict[str, Any] | None:
    if key[0] != table["namespace"]:
        return None
    selector, content = table["key"], key[2]
    if "composite" in selector:
        pieces = _split(content)
        if pieces is None or pieces[0] != selector["composite"] or len(pieces) != len(selector["attributes"]) + 1:
            return None
        return {"key": content} | {
            f"key.{name}": piece for name, piece in zip(selector["attributes"], pieces[1:], strict=True)
        }
    if content[:1] == b"\0":
        return None
    if "pattern" in selector:
        return _pattern_parts(selector["pattern"], content)
    prefix = selector["prefix"].encode()
    if not content.startswith(prefix):
        return None
    return {"key": content, "key.rest": content[len(prefix) :]}


def _pattern_parts(pattern: str, content: bytes) -> dict[str, Any] | None:
    """Match by a regular expression: attributes as short as they can be, the last one as long as the key is."""
    names = []
    expression = ""
    for text in re.split(r"(\{\{|\}\}|\{\w+\})", pattern):
        if text in ("{{", "}}"):
            expression += re.escape(text[0])
        elif text.startswith("{"):
            names.append(text[1:-1])
            expression += "(.+?)"
        else:
            expression += re.escape(text)
    try:
        match = re.fullmatch(expression, content.decode(), re.DOTALL)
    except UnicodeDecodeError:
        return None
    if match is None:
        return None
    return {"key": content} | {f"key.{name}": value for name, value in zip(names, match.groups(), strict=True)}


def _name(table: dict[str, Any], content: bytes) -> str:
    """Write a key for people: attributes with slashes between them; what does not print as %XX; long ones cut."""
    pieces = _split(content) if "composite" in table["key"] and table["key"]["attributes"] else None
    special = "%~/" if pieces is not None else "%~"
    parts = [content] if pieces is None else [piece.encode() for piece in pieces[1:]]
    text = "/".join(_encoded(part, special) for part in parts)
    if len(text.encode()) > 512:
        text = text.encode()[:447].decode(errors="ignore") + "~" + hashlib.sha256(b"\0" + content).hexdigest()
    return text


def _encoded(part: bytes, special: str) -> str:
    written = ""
    while part:
        character = ""
        for size in range(1, 5):
            try:
                character = part[:size].decode()
                break
            except UnicodeDecodeError:
                continue
        hidden = not character or character in special or character in "\u2028\u2029\ufeff"
        if hidden or ord(character) < 0x20 or 0x7F <= ord(character) <= 0x9F:
            count = len(character.encode()) or 1
            written += "".join(f"%{byte:02X}" for byte in part[:count])
            part = part[count:]
        else:
            written += character
            part = part[len(character.encode()) :]
    return written


def _apply(
    table: ExpectedTable,
    definition: dict[str, Any],
    parts: dict[str, Any],
    write: WriteFact,
    transaction: TransactionFact,
    *,
    takes: bool,
) -> None:
    key, position = write.key[2], (write.block, write.tx, write.number)
    facts = (*position, write.tx_id, write.msp_id)
    table.names[key] = _name(definition, key)
    if write.effect == "delete" or not takes:
        _remove(table, key)
        table.history[key, position] = ("delete", None, facts)
        return
    assert write.value is not None
    try:
        row, children = _document_rows(definition, parts, write, transaction)
    except Misfit:
        table.quarantined[key, position] = (write.value, None, None)
        return
    _remove(table, key)
    table.current[key] = (row, facts)
    table.history[key, position] = ("metadata" if write.effect == "version" else "put", row, facts)
    for name, rows in children.items():
        for place, values in enumerate(rows):
            table.children[name].current[key, place] = (values, facts)
            table.children[name].history[key, position, place] = (values, facts)


def _remove(table: ExpectedTable, key: bytes) -> None:
    table.current.pop(key, None)
    for child in table.children.values():
        for other, place in list(child.current):
            if other == key:
                del child.current[other, place]


def _close(table: ExpectedTable) -> None:
    """Close each quarantined value with the first version of its key after it."""
    for (key, position), (value, _, _) in list(table.quarantined.items()):
        later = sorted(other for owner, other in table.history if owner == key and other > position)
        if later:
            kind = table.history[key, later[0]][0]
            table.quarantined[key, position] = (value, later[0][0], "deleted" if kind == "delete" else "overwritten")


def _document_rows(
    table: dict[str, Any], parts: dict[str, Any], write: WriteFact, transaction: TransactionFact
) -> tuple[tuple[Any, ...], dict[str, list[tuple[Any, ...]]]]:
    if not parts:  # a number of attributes that no table has
        raise Misfit
    assert write.value is not None
    columns, children = table["columns"], table.get("children", {})
    document: Any = None
    reads = [column for column in columns.values() if {"json", "equals_json"} & column.keys()]
    collects = any(column.get("from") == "unknown" for column in columns.values())
    if reads or children or collects or table.get("unknown") == "quarantine":
        document = read_json(write.value)
        if not isinstance(document, dict):
            raise Misfit
    unknown = _unknown(document, _known_paths(table)) if isinstance(document, dict) else {}
    if unknown and table.get("unknown") == "quarantine":
        raise Misfit
    parts = {**parts, "value": write.value, "unknown": unknown or None}
    parts |= _ledger_facts(transaction, write)
    row = _row(columns, parts, document)
    rows: dict[str, list[tuple[Any, ...]]] = {}
    for name, child in children.items():
        array = _path(document, child["each"])
        if array is not None and not isinstance(array, list):
            raise Misfit
        if len(array or ()) > MOST_ELEMENTS:
            raise Misfit
        rows[name] = [_row(child["columns"], {**parts, "element": element}, element) for element in array or ()]
    return row, rows


def _row(columns: dict[str, Any], parts: dict[str, Any], document: Any) -> tuple[Any, ...]:
    if any("json" in column for column in columns.values()) and not isinstance(document, dict):
        raise Misfit
    row = []
    for column in columns.values():
        source = column.get("from")
        found = _path(document, column["json"]) if source is None else parts[source]
        if isinstance(found, bytes) and column["type"] != "bytes":
            found = _text(found, column["type"])
        elif isinstance(found, str) and source is not None and source.startswith("key."):
            found = _text(found.encode(), column["type"])
        value = None if found is None else _convert(found, column)
        if value is None and column.get("required"):
            raise Misfit
        row.append(value)
        if "equals_json" in column:
            repeated = _path(document, column["equals_json"])
            if repeated is None or _convert(repeated, column) != value:
                raise Misfit
    return tuple(row)


def read_json(content: bytes) -> Any:
    """Read JSON as RFC 8259 has it, with unique names, whole characters and no more than 100 levels."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({name for name, _ in pairs}) != len(pairs):
            raise Misfit
        return dict(pairs)

    def refuse(_: str) -> Any:
        raise Misfit

    if content.startswith(b"\xef\xbb\xbf"):
        raise Misfit
    try:
        text = content.decode()
        document = json.loads(text, parse_float=Decimal, object_pairs_hook=unique, parse_constant=refuse)
        json.dumps(document, ensure_ascii=False, default=str).encode()
    except (ValueError, RecursionError) as error:
        raise Misfit from error
    if _depth(document) > MOST_DEPTH:
        raise Misfit
    return document


def _depth(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(_depth, inner), default=0)


def _steps(path: str) -> list[str | int]:
    found = re.findall(r'\[(\d+)\]|"((?:[^"\\]|\\.)*)"|([^.\[\]"]+)', path)
    return [int(index) if index else json.loads(f'"{quoted}"') if quoted else bare for index, quoted, bare in found]


def _path(document: Any, path: str) -> Any:
    for step in _steps(path):
        if document is None:
            return None
        if isinstance(step, str) and isinstance(document, dict):
            document = document.get(step)
        elif isinstance(step, int) and isinstance(document, list):
            document = document[step] if step < len(document) else None
        else:
            raise Misfit
    return document


def _known_paths(table: dict[str, Any]) -> list[list[str]]:
    """Give the paths that a table reads, up to the first array."""
    columns = table["columns"].values()
    paths = [column[option] for column in columns for option in ("json", "equals_json") if option in column]
    paths += [child["each"] for child in table.get("children", {}).values()]
    known = []
    for path in paths:
        steps = _steps(path)
        names = next((steps[:number] for number, step in enumerate(steps) if isinstance(step, int)), steps)
        known.append([str(name) for name in names])
    return known


def _unknown(document: dict[str, Any], known: list[list[str]]) -> dict[str, Any]:
    unknown: dict[str, Any] = {}
    for name, value in document.items():
        below = [path[1:] for path in known if path[0] == name]
        if not below:
            unknown[name] = value
        elif [] not in below and isinstance(value, dict):
            inner = _unknown(value, below)
            if inner:
                unknown[name] = inner
    return unknown


def _ledger_facts(transaction: TransactionFact, write: WriteFact) -> dict[str, Any]:
    claimed = None
    if transaction.seconds is not None:
        assert transaction.nanos is not None
        claimed = datetime.fromtimestamp(transaction.seconds, UTC) + timedelta(microseconds=transaction.nanos // 1000)
    return {
        "ledger.block_number": transaction.block,
        "ledger.tx_number": transaction.tx,
        "ledger.write_number": write.number,
        "ledger.tx_id": transaction.tx_id,
        "ledger.creator_msp_id": transaction.msp_id,
        "ledger.chaincode": transaction.chaincode,
        "ledger.function": transaction.function,
        "ledger.claimed_at": claimed,
        "ledger.claimed_nanos": transaction.nanos,
    }


def _text(content: bytes, kind: str) -> Any:
    """Read a text as a value of a type: as in JSON, where JSON has it without quotes."""
    if kind == "json":
        return read_json(content)
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise Misfit from error
    if kind not in ("integer", "decimal", "boolean"):
        return text
    forms = {
        "integer": r"-?(0|[1-9][0-9]*)",
        "decimal": r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?",
        "boolean": "true|false",
    }
    if not re.fullmatch(forms[kind], text, re.ASCII):
        raise Misfit
    return int(text) if kind == "integer" else Decimal(text) if kind == "decimal" else text == "true"


def _convert(found: Any, column: dict[str, Any]) -> Any:
    kind = column["type"]
    if kind == "bytes":
        return found if isinstance(found, bytes) else str(found).encode()
    if kind == "json":
        if "\\u0000" in json.dumps(found, default=str).replace("\\\\", ""):
            raise Misfit
        return found
    allowed: dict[str, tuple[type, ...]] = {
        "integer": (int,),
        "decimal": (int, Decimal),
        "boolean": (bool,),
        "timestamp": (str, datetime),
    }
    if type(found) not in allowed.get(kind, (str,)):
        raise Misfit
    if kind == "integer" and not -(2**63) <= found < 2**63:
        raise Misfit
    if kind == "text" and "\0" in found:
        raise Misfit
    if kind == "enum" and found not in column["values"]:
        raise Misfit
    if kind == "decimal":
        return _decimal(Decimal(found), column)
    if kind == "timestamp":
        return found if isinstance(found, datetime) else _timestamp(found)
    if kind == "date":
        return _date(found)
    if kind == "uuid":
        return _uuid(found)
    return found


def _decimal(value: Decimal, column: dict[str, Any]) -> Decimal:
    if "precision" in column:
        scaled = value.scaleb(column["scale"])
        if scaled != scaled.to_integral_value() or abs(scaled) >= 10 ** column["precision"]:
            raise Misfit
    return value


def _timestamp(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise Misfit from error
    if moment.tzinfo is None or "T" not in text:
        raise Misfit
    return moment.astimezone(UTC)


def _date(text: str) -> date:
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", text, re.ASCII):
        raise Misfit
    try:
        return date(*map(int, text.split("-")))
    except ValueError as error:
        raise Misfit from error


def _uuid(text: str) -> UUID:
    if [len(part) for part in text.split("-")] != [8, 4, 4, 4, 12]:
        raise Misfit
    if not re.fullmatch(r"[0-9a-f-]+", text.lower(), re.ASCII):
        raise Misfit
    return UUID(text)
