"""From groups of keys and what their values look like to the text of a mapping. Pure.

The text is YAML with remarks for the person who reads it, and it is a mapping: it was read back before it is given.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from kvr_sync.inference.key_groups import KeyShapes
from kvr_sync.inference.limits import MAX_MEMBERS, MAX_STRAY_SHARE, MIN_FOR_CONTRADICTION
from kvr_sync.inference.value_shape import Place, Scalar, Values, walk
from kvr_sync.mapping.definition import (
    ColumnType,
    CompositeSelector,
    KeySelector,
    PatternSelector,
    PrefixSelector,
    format_pattern,
)
from kvr_sync.mapping.json_path import format_json_path
from kvr_sync.mapping.key_pattern import match_pattern
from kvr_sync.mapping.sql_name import propose_column_names, propose_table_names
from kvr_sync.mapping.validation import read_mapping
from network.protocol.composite_key import split_composite_key

_INDEXABLE_ID = ("id", "status", "state", "type")


class Group:
    """Keys that one table is to take, and their values."""

    def __init__(self, namespace: str, selector: KeySelector) -> None:
        self.namespace = namespace
        self.selector = selector
        self.values = Values()
        self.has_bytes_as_keys = False
        count = 0 if isinstance(selector, PrefixSelector) else len(selector.attributes)
        self.attributes = [Scalar() for _ in range(count)]
        self.simple_keys = Scalar()
        """Simple keys that are texts, as a whole."""
        self._repeats: list[Counter[str]] = [Counter() for _ in range(count)]
        """By attribute: in how many documents a member repeated it."""
        self._key_repeats: Counter[str] = Counter()
        """The same for a simple key as a whole."""

    def attributes_of(self, key: bytes) -> tuple[str, ...] | None:
        """Give the attributes of a key of this group, None for any other key."""
        match self.selector:
            case CompositeSelector(object_type, attributes):
                parts = split_composite_key(key)
                fits = parts is not None and parts[0] == object_type and len(parts[1]) == len(attributes)
                return parts[1] if parts is not None and fits else None
            case PrefixSelector(prefix):
                return () if key[:1] != b"\x00" and key.startswith(prefix.encode()) else None
            case PatternSelector(literals, _):
                try:
                    return match_pattern(literals, key.decode())
                except UnicodeDecodeError:
                    return None

    def add(self, key: bytes, attributes: tuple[str, ...], value: bytes) -> None:
        """Take a version of a key, with its attributes."""
        if isinstance(self.selector, PrefixSelector) and not self.has_bytes_as_keys:
            try:
                self.has_bytes_as_keys = "\x00" in key.decode()
            except UnicodeDecodeError:
                self.has_bytes_as_keys = True
        document = self.values.add(value)
        members = document if isinstance(document, dict) else {}
        for number, attribute in enumerate(attributes):
            self.attributes[number].add_text(attribute)
            _count_repeats(self._repeats[number], members, attribute)
        if not isinstance(self.selector, CompositeSelector):
            try:
                text = key.decode()
            except UnicodeDecodeError:
                return
            self.simple_keys.remember(text)
            _count_repeats(self._key_repeats, members, text)

    def repeated_by(self, attribute: int) -> str | None:
        """Name a member that repeats an attribute in the documents, if there are enough to say so."""
        return self._most_repeated(self._repeats[attribute])

    def key_repeated_by(self) -> str | None:
        """Name a member that repeats a simple key as a whole, if there are enough documents to say so."""
        return self._most_repeated(self._key_repeats)

    def _most_repeated(self, repeats: Counter[str]) -> str | None:
        documents = self.values.count - self.values.not_documents
        if documents < MIN_FOR_CONTRADICTION or not self.values.are_documents:
            return None
        least = documents * (1 - MAX_STRAY_SHARE)
        names = [name for name, count in repeats.items() if count >= least]
        return min(names, key=lambda name: (name.lower() not in ("id", "key"), len(name), name), default=None)


def _count_repeats(repeats: Counter[str], members: Mapping[str, object], text: str) -> None:
    repeats.update(
        name
        for name, member in members.items()
        if isinstance(member, str) and member == text and (name in repeats or len(repeats) < MAX_MEMBERS)
    )


class _Column(NamedTuple):
    name: str
    options: dict[str, object]
    scalar: Scalar | None = None


class Inference:
    """What a channel holds, seen in two passes: keys first, then values."""

    def __init__(self) -> None:
        self._shapes: dict[str, KeyShapes] = {}
        self._groups: dict[str, list[Group]] = {}

    def add_key(self, namespace: str, key: bytes) -> None:
        """First pass: take a public key that was written."""
        self._shapes.setdefault(namespace, KeyShapes()).add(key)

    def add_value(self, namespace: str, key: bytes, value: bytes) -> None:
        """Second pass: take a value that was written."""
        if namespace not in self._groups:
            shapes = self._shapes.get(namespace)
            selectors = shapes.selectors() if shapes else []
            self._groups[namespace] = [Group(namespace, selector) for selector in selectors]
        for group in self._groups[namespace]:
            attributes = group.attributes_of(key)
            if attributes is not None:
                group.add(key, attributes, value)
                return

    def groups(self) -> list[Group]:
        """Give the groups that have values."""
        return [group for groups in self._groups.values() for group in groups if group.values.count]


def write_mapping(name: str, groups: Sequence[Group]) -> str:
    """Write the mapping of these groups, with remarks. Raises ValueError where there is nothing to map."""
    if not groups:
        raise ValueError("nothing to map")
    table_names = _table_names(groups)
    tables = [(table_names[number], group, _Table(table_names[number], group)) for number, group in enumerate(groups)]
    references = _references(tables)
    lines = [
        "# Proposed from what the channel holds; read it, name things as your people do, and keep it as your own.",
        "# Format: kvr_sync/mapping/README.md",
        "kvr_mapping: 1",
        f"name: {quoted(name[:100])}",
        "tables:",
    ]
    for _, _, table in tables:
        lines += ["", *table.lines(references)]
    text = "\n".join(lines) + "\n"
    read_mapping(text.encode(), "proposal")
    return text


def _table_names(groups: Sequence[Group]) -> list[str]:
    raw = [_title(group) for group in groups]
    namespaces = {group.namespace for group in groups}
    full = [
        f"{group.namespace} {title}" if len(namespaces) > 1 and raw.count(title) > 1 else title
        for group, title in zip(groups, raw, strict=True)
    ]
    counted = [
        f"{title} by {len(group.attributes)} attributes" if full.count(title) > 1 else title
        for group, title in zip(groups, full, strict=True)
    ]
    unique = [title if counted.index(title) == n else f"{title} {n}" for n, title in enumerate(counted)]
    proposed = propose_table_names(unique)
    return [proposed[title] for title in unique]


def _title(group: Group) -> str:
    match group.selector:
        case CompositeSelector(object_type, _):
            return object_type or group.namespace
        case PrefixSelector(prefix):
            return prefix.strip("-_:/.~#|") or f"{group.namespace} entries"
        case PatternSelector(literals, _):
            words = [literal.strip("-_:/.~#| ") for literal in literals]
            return " ".join(word for word in words if word) or f"{group.namespace} entries"


class _Table:
    """One table of the proposal."""

    def __init__(self, name: str, group: Group) -> None:
        self.name = name
        self.group = group
        self.attribute_names: list[str] = []
        self.is_named_by_one = len(group.attributes) == 1 or group.key_repeated_by() is not None
        """Whether its first column is the id of a row."""
        self.columns: list[_Column] = []
        self.children: list[tuple[str, tuple[str, ...], list[_Column]]] = []
        self._fill()

    def _fill(self) -> None:
        group = self.group
        repeated = [group.repeated_by(number) for number in range(len(group.attributes))]
        whole = group.key_repeated_by()
        # Where the documents repeat the whole key, its only part says nothing more.
        parts = [] if whole is not None and len(repeated) == 1 and repeated[0] is None else repeated
        places = dict(walk(group.values.document)) if group.values.are_documents else {}
        taken = {(name,) for name in (*repeated, whole) if name is not None}
        members = {path: " ".join(path) for path in places if path not in taken}
        is_id = len(parts) == 1 and whole is None and "id" not in {label.lower() for label in members.values()}
        wanted = [member or ("id" if is_id else f"key {n + 1}") for n, member in enumerate(parts)]
        has_key = isinstance(group.selector, PrefixSelector) and whole is None
        labels = [*wanted, *members.values()]
        if whole is not None:
            labels = [whole, *labels]
        if has_key:
            labels.append("ledger key")
        if not group.values.are_documents:
            labels.append("value")
        labels = list(dict.fromkeys(labels))
        names = propose_column_names([*labels, "other members"])
        if whole is not None:
            options: dict[str, object] = {"from": "key", "type": "text", "index": True}
            options["equals_json"] = format_json_path((whole,))
            self.columns.append(_Column(names[whole], options, group.simple_keys))
        for number, (label, member) in enumerate(zip(wanted, parts, strict=True)):
            column = names[label]
            options = {"from": f"key.{column}", "type": "text", "index": True}
            if member is not None:
                options["equals_json"] = format_json_path((member,))
            self.columns.append(_Column(column, options, group.attributes[number]))
        self.attribute_names = [names[label] for label in wanted] or [f"key_{n + 1}" for n in range(len(repeated))]
        if has_key:
            kind = "bytes" if group.has_bytes_as_keys else "text"
            self.columns.append(_Column(names["ledger key"], {"from": "key", "type": kind}))
        if not group.values.are_documents:
            self.columns.append(_Column(names["value"], {"from": "value", "type": _type_of_values(group.values)}))
            return
        for path, label in members.items():
            self._take(names[label], path, places[path])
        self.columns.append(_Column(names["other members"], {"from": "unknown", "type": "json"}))

    def _take(self, name: str, path: tuple[str, ...], place: Place) -> None:
        json_path = format_json_path(path)
        if place.is_array and place.element is not None:
            self.children.append((name, path, list(_element_columns(place.element))))
            return
        kind = None if place.objects or place.arrays else place.scalar.type
        options: dict[str, object] = {"json": json_path, "type": (kind or ColumnType.JSON).value}
        if kind is ColumnType.TEXT and name.endswith(_INDEXABLE_ID) and place.scalar.values is not None:
            options["index"] = True
        self.columns.append(_Column(name, options, place.scalar if kind is ColumnType.TEXT else None))

    def lines(self, references: Mapping[tuple[str, str], str]) -> Iterator[str]:
        """Yield the lines of the table."""
        group = self.group
        everything = group.selector == PrefixSelector("")
        remark = "; takes every simple key, also those of other tables" if everything else ""
        yield f"  # {group.values.count:,} values seen{remark}"
        if group.values.are_documents and group.values.not_documents:
            yield f"  # {group.values.not_documents:,} of them are no JSON objects, and would go to quarantine"
        yield f"  {self.name}:"
        yield f"    namespace: {quoted(group.namespace)}"
        yield f"    key: {_selector_text(group.selector, self.attribute_names)}"
        yield "    columns:"
        for column in self.columns:
            target = references.get((self.name, column.name))
            options = {**column.options, "references": target} if target else column.options
            yield f"      {column.name}: {{{_options(options)}}}"
        if self.children:
            yield "    children:"
            child_names = propose_table_names([f"{self.name} {name}" for name, _, _ in self.children])
            for name, path, columns in self.children:
                yield f"      {child_names[f'{self.name} {name}']}:"
                yield f"        each: {quoted(format_json_path(path))}"
                yield "        columns:"
                for column in columns:
                    yield f"          {column.name}: {{{_options(column.options)}}}"


def _element_columns(element: Place) -> Iterator[_Column]:
    if not element.objects:
        of_scalars = element.scalar.type or ColumnType.JSON
        yield _Column("element", {"from": "element", "type": of_scalars.value})
        return
    places = dict(walk(element))
    names = propose_column_names([" ".join(path) for path in places] or ["element"])
    if not places:
        yield _Column("element", {"from": "element", "type": "json"})
    for path, place in places.items():
        kind = None if place.objects or place.arrays else place.scalar.type
        options: dict[str, object] = {"json": format_json_path(path), "type": (kind or ColumnType.JSON).value}
        yield _Column(names[" ".join(path)], options)


def _references(tables: Sequence[tuple[str, Group, _Table]]) -> dict[tuple[str, str], str]:
    """Find columns all of whose values are ids of another table."""
    ids = {
        f"{name}.{table.columns[0].name}": table.columns[0].scalar.values
        for name, _, table in tables
        if table.is_named_by_one and table.columns[0].scalar
    }
    found = {}
    for name, group, table in tables:
        if group.values.count < MIN_FOR_CONTRADICTION:
            continue
        for column in table.columns:
            values = column.scalar.values if column.scalar and "json" in column.options else None
            if not values:
                continue
            for target, known in ids.items():
                if known and values <= known and not target.startswith(f"{name}."):
                    found[name, column.name] = target
                    break
    return found


def _type_of_values(values: Values) -> str:
    if values.not_text or values.document.objects:
        return "bytes" if values.not_text else "text"
    return (values.text.type or ColumnType.TEXT).value


def _selector_text(selector: KeySelector, names: Sequence[str]) -> str:
    match selector:
        case CompositeSelector(object_type, _):
            return f"{{composite: {quoted(object_type)}, attributes: [{', '.join(names)}]}}"
        case PrefixSelector(prefix):
            return f"{{prefix: {quoted(prefix)}}}"
        case PatternSelector(literals, _):
            return f"{{pattern: {quoted(format_pattern(literals, names))}}}"


def _options(options: Mapping[str, object]) -> str:
    return ", ".join(
        f"{name}: {'true' if value is True else value if _is_plain(name, value) else quoted(str(value))}"
        for name, value in options.items()
    )


def _is_plain(name: str, value: object) -> bool:
    return name in ("from", "type", "references") and isinstance(value, str)


def quoted(text: str) -> str:
    """Write a text as YAML takes it, in double quotes: JSON, but for characters outside the first plane."""
    return "".join(
        character if character.isprintable() else f"\\U{ord(character):08X}"
        for character in json.dumps(text, ensure_ascii=False)
    )
