"""Small chains and mappings drawn from a seed: every feature of the format, values that fit and values that do not."""

import json
import random
from typing import Any

from network.protocol.composite_key import encode_composite_key
from network.protocol.lifecycle import ChaincodeDefinition, StateMetadata, encode_state_data, encode_state_metadata
from network.protocol.validation_code import VALID
from tests.support.chain_factory import ChainFactory, TransactionSpec, WriteSpec, delete, purge, put, set_metadata

NAMESPACES = ("ext", "other")
WORDS = ("1", "2", "a", "b/c", "100%", "~", "Zähler", "\u2028", "x" * 30)
UUIDS = ("0b6e6a8e-0a4b-4c1d-9f5e-0123456789ab", "0B6E6A8E-0A4B-4C1D-9F5E-0123456789AC")
SCALARS: tuple[str, ...] = (
    "null",
    "1",
    "-7",
    "9223372036854775807",
    "9223372036854775808",
    "1.50",
    "-0.125",
    "true",
    '"text"',
    '""',
    '"open"',
    '"closed"',
    '"2024-02-29"',
    '"2023-02-29"',
    '"2026-11-06T18:59:00.123456+08:00"',
    '"2026-11-06T18:59:00"',
    f'"{UUIDS[0]}"',
    f'"{UUIDS[1]}"',
    '"a\\u0000b"',
    '"\\u00e9\\u6f22\\ud83d\\ude00"',
    "[]",
    "{}",
    '[1,"x"]',
    '{"deep":{"er":1.0}}',
)
ODD_VALUES = (
    b"not json",
    b"[1]",
    b"17",
    b"null",
    b'{"a":1,"a":2}',
    b'{"a":NaN}',
    b"\xff\xfe",
    b'{"a":"\\ud800"}',
    b" {} ",
)
TYPES: tuple[dict[str, Any], ...] = (
    {"type": "text"},
    {"type": "text", "index": True},
    {"type": "integer"},
    {"type": "decimal"},
    {"type": "decimal", "precision": 6, "scale": 3},
    {"type": "boolean"},
    {"type": "date"},
    {"type": "timestamp"},
    {"type": "uuid"},
    {"type": "enum", "values": ["open", "closed"]},
    {"type": "json"},
)
MEMBERS = ("a", "b", "n.c", "n.d", "list[0]", "list[1].a", '"odd name".x')
FACTS = (
    ("block_number", "integer"),
    ("tx_number", "integer"),
    ("write_number", "integer"),
    ("tx_id", "text"),
    ("creator_msp_id", "text"),
    ("chaincode", "text"),
    ("function", "text"),
    ("claimed_at", "timestamp"),
    ("claimed_nanos", "integer"),
)
SELECTORS: tuple[tuple[dict[str, Any], tuple[str, ...]], ...] = (
    ({"composite": "item", "attributes": ["id"]}, ("key.id",)),
    ({"composite": "item", "attributes": ["id", "part"]}, ("key.id", "key.part")),
    ({"composite": "settings", "attributes": []}, ()),
    ({"prefix": ""}, ("key", "key.rest")),
    ({"prefix": "p"}, ("key", "key.rest")),
    ({"pattern": "o-{id}/{line}"}, ("key", "key.id", "key.line")),
    ({"pattern": "{{{id}}}"}, ("key", "key.id")),
)


def random_mapping(choose: random.Random) -> dict[str, Any]:
    """Draw a mapping, as YAML has it."""
    count = choose.randint(1, 5)
    return {"kvr_mapping": 1, "tables": {f"t{number}": _table(choose, number) for number in range(count)}}


# --- mappings


def _table(choose: random.Random, number: int) -> dict[str, Any]:
    selector, parts = choose.choice(SELECTORS)
    columns = _key_columns(choose, parts)
    for place in range(choose.randint(0, 4)):
        columns[f"j{place}"] = {"json": choose.choice(MEMBERS), **choose.choice(TYPES)}
        if choose.random() < 0.15:
            columns[f"j{place}"]["required"] = True
    if choose.random() < 0.3:
        kind = choose.choice(("bytes", "bytes", "json", "text", "integer"))
        columns["whole"] = {"from": "value", "type": kind}
    for name, kind in choose.sample(FACTS, choose.randint(0, 2)):
        columns[f"f_{name}"] = {"from": f"ledger.{name}", "type": kind}
    table: dict[str, Any] = {"namespace": choose.choice(NAMESPACES[:1] * 3 + NAMESPACES), "key": selector}
    unknown = choose.random()
    if unknown < 0.2 or not columns:
        columns["rest"] = {"from": "unknown", "type": "json"}
    elif unknown < 0.35:
        table["unknown"] = choose.choice(("ignore", "quarantine"))
    table["columns"] = columns
    if choose.random() < 0.25:
        table["sequence"] = {"from": choose.randint(0, 2)} | ({"to": 2} if choose.random() < 0.5 else {})
    for child in range(choose.choice((0, 0, 0, 1, 2))):
        table.setdefault("children", {})[f"t{number}_c{child}"] = _child(choose, parts)
    indexed = [name for name, column in columns.items() if column["type"] not in ("json", "bytes")]
    if len(indexed) > 1 and choose.random() < 0.4:
        table["indexes"] = [choose.sample(indexed, 2)]
    return table


def _key_columns(choose: random.Random, parts: tuple[str, ...]) -> dict[str, Any]:
    if not parts or choose.random() < 0.2:
        return {}
    column: dict[str, Any] = {"from": choose.choice(parts), **choose.choice(TYPES[:-1])}
    if choose.random() < 0.2:
        column["equals_json"] = "a"
    if column["from"] == "key" and choose.random() < 0.5:
        column = {"from": "key", "type": "bytes"}
    return {"k0": column}


def _child(choose: random.Random, parts: tuple[str, ...]) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    if choose.random() < 0.5:
        columns["element"] = {"from": "element", **choose.choice(TYPES)}
    if parts and choose.random() < 0.5:
        columns["k"] = {"from": choose.choice(parts), "type": "text"}
    if not columns or choose.random() < 0.3:
        columns["a"] = {"json": choose.choice(("a", "n.c")), **choose.choice(TYPES)}
    if choose.random() < 0.3:
        columns["block"] = {"from": "ledger.block_number", "type": "integer"}
    return {"each": choose.choice(("list", "n.list")), "columns": columns}


# --- chains


def random_chain(choose: random.Random) -> tuple[bytes, ...]:
    """Draw a chain, whose keys and values fit the mappings now and then."""
    factory = ChainFactory(seed=choose.randrange(4))
    sequence = 0
    for _ in range(choose.randint(2, 8)):
        kind = choose.random()
        if kind < 0.06:
            factory.config_block()
            continue
        transactions = [_transaction(choose) for _ in range(choose.randint(1, 4))]
        if kind < 0.3:
            sequence += choose.randint(1, 2)
            place = choose.randint(0, len(transactions))
            transactions.insert(place, TransactionSpec(_lifecycle_writes(choose, sequence), chaincode="_lifecycle"))
        factory.block(transactions)
    return tuple(factory.blocks)


def _transaction(choose: random.Random) -> TransactionSpec:
    writes = [_write(choose) for _ in range(choose.choice((0, 1, 1, 1, 2, 3, 5)))]
    return TransactionSpec(
        writes,
        code=VALID if choose.random() < 0.85 else choose.choice((10, 11, 12)),
        function=choose.choice((b"put", b"open", "Ä".encode())),
        event=("e", b"payload") if choose.random() < 0.1 else None,
        organisation=choose.randrange(2),
        endorsers=choose.choice((1, 2, 2, 3)),
    )


def _write(choose: random.Random) -> WriteSpec:
    kind = choose.random()
    if kind < 0.06:
        key = f"private{choose.randrange(3)}"
        made = put(key, b"v%d" % choose.randrange(3), collection="pair")
        return choose.choice((made, made, delete(key, collection="pair"), purge(key, collection="pair")))
    key = _key(choose)
    if kind < 0.2:
        return delete(key)
    if kind < 0.28:
        return set_metadata(key, choose.choice(({"VALIDATION_PARAMETER": b"policy"}, {})))
    return put(key, _value(choose), namespace=choose.choice(("", "", "", "other")))


def _key(choose: random.Random) -> str:
    words = [choose.choice(WORDS[:4] * 2 + WORDS) for _ in range(3)]
    return choose.choice(
        (
            encode_composite_key("item", words[:1]).decode(),
            encode_composite_key("item", words[:1]).decode(),
            encode_composite_key("item", words[:2]).decode(),
            encode_composite_key("item", words).decode(),
            encode_composite_key("settings", []).decode(),
            encode_composite_key("stranger", words[:1]).decode(),
            f"p{words[0]}",
            f"o-{words[0]}/{words[1]}",
            f"o-/{words[1]}",
            f"{{{words[0]}}}",
            words[0],
            f"p{'y' * 520}{words[0]}",
            "\x00not a composite key",
        )
    )


def _value(choose: random.Random) -> bytes:
    if choose.random() < 0.12:
        return choose.choice(ODD_VALUES)
    members = {name: _scalar(choose) for name in choose.sample("abxy", choose.randint(0, 3))}
    if choose.random() < 0.6:
        elements = ",".join(_element(choose) for _ in range(choose.randint(0, 4)))
        members["list"] = f"[{elements}]"
    if choose.random() < 0.6:
        inner = {name: _scalar(choose) for name in choose.sample("cdz", choose.randint(0, 3))}
        if choose.random() < 0.4:
            inner["list"] = choose.choice(('["open"]', "[1,2,3]", '[{"a":1}]', "null", "7"))
        members["n"] = _object(inner)
    if choose.random() < 0.2:
        members["odd name"] = choose.choice(('{"x":1}', '{"x":"open","y":2}', "1"))
    return _object(members).encode()


def _element(choose: random.Random) -> str:
    return _object({"a": _scalar(choose)}) if choose.random() < 0.5 else _scalar(choose)


def _scalar(choose: random.Random) -> str:
    return choose.choice(SCALARS[:3] + SCALARS)


def _object(members: dict[str, str]) -> str:
    return "{" + ",".join(f"{json.dumps(name)}:{value}" for name, value in members.items()) + "}"


def _lifecycle_writes(choose: random.Random, sequence: int) -> list[WriteSpec]:
    """Write the fields of a definition, as `_lifecycle` does; once in a while half of one, or none at all."""
    definition = ChaincodeDefinition(sequence, f"{sequence}.0")
    chaincode = choose.choice(NAMESPACES)
    fields = {"Sequence": encode_state_data(definition.sequence), "EndorsementInfo": encode_state_data(b"\x0a\x031.0")}
    writes = [
        put(f"namespaces/fields/{chaincode}/{name}", content, namespace="_lifecycle")
        for name, content in fields.items()
    ]
    metadata = encode_state_metadata(StateMetadata("ChaincodeDefinition", tuple(fields)))
    if choose.random() < 0.85:
        writes.append(put(f"namespaces/metadata/{chaincode}", metadata, namespace="_lifecycle"))
    elif choose.random() < 0.5:
        writes.append(delete(f"namespaces/metadata/{chaincode}", namespace="_lifecycle"))
    return writes
