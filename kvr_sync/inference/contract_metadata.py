"""A mapping proposed from what a contract says of itself: the answer of `org.hyperledger.fabric:GetMetadata`. Pure.

The metadata of Fabric's contract APIs names the types of assets with a JSON schema each
(`contract-schema.json` of fabric-chaincode-node); it does not say how keys are made. So each key line carries a remark.
"""

from collections.abc import Iterator, Mapping

from kvr_sync.errors import ConfigurationError
from kvr_sync.inference.proposal import quoted
from kvr_sync.mapping.document import JsonValue, read_document
from kvr_sync.mapping.json_path import format_json_path
from kvr_sync.mapping.quarantine import UnfitValueError
from kvr_sync.mapping.sql_name import propose_column_names, propose_table_names
from kvr_sync.mapping.validation import read_mapping

_TYPES = {"string": "text", "integer": "integer", "number": "decimal", "boolean": "boolean"}
_FORMATS = {"date": "date", "date-time": "timestamp", "uuid": "uuid"}
_REFERENCE = "#/components/schemas/"


def infer_from_metadata(content: bytes, chaincode: str) -> str:
    """Propose a mapping from metadata. Raises ConfigurationError where it is none, or names no types of assets."""
    try:
        document = read_document(content)
    except UnfitValueError as error:
        raise ConfigurationError(f"the contract metadata cannot be read: {error.detail}") from None
    components = _object(_object(document).get("components"))
    schemas = {name: _object(schema) for name, schema in _object(components.get("schemas")).items()}
    assets = {name: schema for name, schema in schemas.items() if _object(schema.get("properties"))}
    if not assets:
        raise ConfigurationError("the contract metadata names no types with properties (components.schemas)")
    names = propose_table_names(assets)
    lines = [
        "# Proposed from the contract's metadata, which does not say how keys are made: mend every line `key`.",
        "kvr_mapping: 1",
        f"name: {quoted(chaincode[:100])}",
        "tables:",
    ]
    for name, schema in assets.items():
        lines += ["", *_table(names[name], name, schema, chaincode, schemas)]
    text = "\n".join(lines) + "\n"
    read_mapping(text.encode(), "proposal")
    return text


def _object(value: JsonValue) -> dict[str, JsonValue]:
    return value if isinstance(value, dict) else {}


def _table(
    table: str,
    name: str,
    schema: dict[str, JsonValue],
    chaincode: str,
    schemas: Mapping[str, dict[str, JsonValue]],
) -> Iterator[str]:
    properties = {member: _resolved(_object(kind), schemas) for member, kind in _object(schema["properties"]).items()}
    columns = propose_column_names([*(member for member in properties if member != "id"), "id", "other members"])
    yield f"  {table}:"
    yield f"    namespace: {quoted(chaincode)}"
    yield f"    key: {{composite: {quoted(name)}, attributes: [id]}}  # check: how does the contract make its keys?"
    if isinstance(description := schema.get("description"), str):
        yield f"    comment: {quoted(description[:1000])}"
    yield "    columns:"
    yield f"      {columns['id']}: {{from: key.id, type: text, index: true}}"
    children = []
    for member, kind in properties.items():
        path = quoted(format_json_path((member,)))
        if kind.get("type") == "array":
            children.append((columns[member], path, _resolved(_object(kind.get("items")), schemas)))
        elif member != "id":
            yield f"      {columns[member]}: {{json: {path}, type: {_type(kind)}}}"
    yield f"      {columns['other members']}: {{from: unknown, type: json}}"
    if children:
        yield "    children:"
        child_names = propose_table_names([f"{table} {column}" for column, _, _ in children])
        for column, path, items in children:
            yield f"      {child_names[f'{table} {column}']}:"
            yield f"        each: {path}"
            yield "        columns:"
            members = _object(items.get("properties"))
            element_columns = propose_column_names(members)
            if not members:
                yield f"          element: {{from: element, type: {_type(items)}}}"
            for member, inner in members.items():
                resolved = _resolved(_object(inner), schemas)
                options = f"json: {quoted(format_json_path((member,)))}, type: {_type(resolved)}"
                yield f"          {element_columns[member]}: {{{options}}}"


def _resolved(kind: dict[str, JsonValue], schemas: Mapping[str, dict[str, JsonValue]]) -> dict[str, JsonValue]:
    reference = kind.get("$ref")
    if isinstance(reference, str) and reference.startswith(_REFERENCE):
        return schemas.get(reference[len(_REFERENCE) :], {})
    return kind


def _type(kind: Mapping[str, JsonValue]) -> str:
    word, form = kind.get("type"), kind.get("format")
    if word == "string" and isinstance(form, str) and form in _FORMATS:
        return _FORMATS[form]
    return _TYPES.get(word, "json") if isinstance(word, str) else "json"
