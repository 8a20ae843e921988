"""The rows that a mapping must give, worked out a second time from the oracle's ledger; nothing of the engine.

Reads the YAML of a mapping plainly (the mapping's own tests prove its checks), converts values by the rules that
`kvr_sync/mapping/README.md` promises, and gives dictionaries.
"""

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import yaml

from tests.support.oracle import Ledger, TransactionFact, WriteFact

Position = tuple[int, int, int]
Facts = tuple[int, int, int, str, str]
"""Block, transaction, write, transaction id, MSP of the creator."""


class Misfit(Exception):  # noqa: N818 - a verdict about a value, not an error
    """The value does not fit the mapping."""


@dataclass
class ExpectedTable:
    """By key: the current row with its facts.

    By key and position: every version with its kind; quarantined positions.
    """

    current: dict[bytes, tuple[tuple[Any, ...], Facts]] = field(default_factory=dict)
    history: dict[tuple[bytes, Position], tuple[str, tuple[Any, ...] | None, Facts]] = field(default_factory=dict)
    quarantined: dict[tuple[bytes, Position], bytes] = field(default_factory=dict)


def read_tables(ledger: Ledger, mapping_path: Path) -> dict[str, ExpectedTable]:
    """Apply every write that had an effect to every table of public state that wants its key."""
    definition = yaml.safe_load(mapping_path.read_text())
    public = {name: table for name, table in definition["tables"].items() if "collections" not in table}
    facts = {(entry.block, entry.tx): entry for entry in ledger.transactions}
    tables = {name: ExpectedTable() for name in public}
    for write in ledger.writes:
        if write.effect == "none" or write.key[1]:
            continue
        for name, table in public.items():
            parts = _key_parts(table, write.key)
            if parts is not None:
                _apply(tables[name], table["columns"], parts, write, facts[write.block, write.tx])
    return tables


def _key_parts(table: dict[str, Any], key: tuple[str, str, bytes]) -> dict[str, str] | None:
    if key[0] != table["namespace"]:
        return None
    selector, content = table["key"], key[2]
    if "composite" in selector:
        pieces = content.split(b"\0")
        if content[:1] != b"\0" or pieces[-1] != b"" or len(pieces) != len(selector["attributes"]) + 3:
            return None
        if pieces[1].decode() != selector["composite"]:
            return None
        return {f"key.{name}": piece.decode() for name, piece in zip(selector["attributes"], pieces[2:-1], strict=True)}
    prefix = selector["prefix"].encode()
    if content[:1] == b"\0" or not content.startswith(prefix):
        return None
    return {"key": content.decode(), "key.rest": content[len(prefix) :].decode()}


def _apply(
    table: ExpectedTable, columns: dict[str, Any], parts: dict[str, str], write: WriteFact, transaction: TransactionFact
) -> None:
    key, position = write.key[2], (write.block, write.tx, write.number)
    facts = (*position, write.tx_id, write.msp_id)
    if write.effect == "delete":
        table.current.pop(key, None)
        table.history[key, position] = ("delete", None, facts)
        return
    assert write.value is not None
    try:
        row = _row(columns, parts, write.value, transaction)
    except Misfit:
        table.quarantined[key, position] = write.value
        return
    table.current[key] = (row, facts)
    table.history[key, position] = ("metadata" if write.effect == "version" else "put", row, facts)


def _row(columns: dict[str, Any], parts: dict[str, str], value: bytes, transaction: TransactionFact) -> tuple[Any, ...]:
    document: Any = None
    if any("json" in column or "equals_json" in column for column in columns.values()):
        try:
            document = json.loads(value.decode(), parse_float=Decimal)
        except ValueError as error:
            raise Misfit from error
        if not isinstance(document, dict):
            raise Misfit
    row = []
    for column in columns.values():
        source = column.get("from")
        if source is None:
            found = _path(document, column["json"])
        elif source == "value":
            found = value
        elif source.startswith("ledger."):
            found = _ledger_fact(source, transaction)
        else:
            found = parts[source]
        if found is None and column.get("required"):
            raise Misfit
        row.append(None if found is None else _convert(found, column))
        if "equals_json" in column and _path(document, column["equals_json"]) != found:
            raise Misfit
    return tuple(row)


def _path(document: Any, path: str) -> Any:
    for name in path.split("."):
        if document is None:
            return None
        if not isinstance(document, dict):
            raise Misfit
        document = document.get(name)
    return document


def _ledger_fact(source: str, transaction: TransactionFact) -> Any:
    if source == "ledger.claimed_at":
        assert transaction.seconds is not None
        assert transaction.nanos is not None
        return datetime.fromtimestamp(transaction.seconds, UTC) + timedelta(microseconds=transaction.nanos // 1000)
    return {
        "ledger.block_number": transaction.block,
        "ledger.tx_number": transaction.tx,
        "ledger.tx_id": transaction.tx_id,
        "ledger.creator_msp_id": transaction.msp_id,
        "ledger.chaincode": transaction.chaincode,
        "ledger.function": (transaction.function or b"").decode(),
    }[source]


def _convert(found: Any, column: dict[str, Any]) -> Any:
    kind = column["type"]
    if kind == "bytes":
        return found if isinstance(found, bytes) else str(found).encode()
    if kind == "json":
        return json.loads(found, parse_float=Decimal) if isinstance(found, bytes) else found
    if isinstance(found, bytes):
        found = found.decode()
        if kind == "integer":
            if not found.isascii() or not found.lstrip("-").isdigit():
                raise Misfit
            found = int(found)
    allowed: dict[str, tuple[type, ...]] = {
        "text": (str,),
        "integer": (int,),
        "decimal": (int, Decimal),
        "boolean": (bool,),
        "timestamp": (str, datetime),
    }
    if type(found) not in allowed[kind]:
        raise Misfit
    if kind == "decimal":
        return _decimal(Decimal(found), column)
    if kind == "timestamp":
        return found if isinstance(found, datetime) else _timestamp(found)
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
