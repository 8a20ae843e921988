"""A YAML text as a tree in which everything knows its line. Stricter than YAML where YAML surprises.

One document; no anchors, aliases or merges (so no expansion), no tags, no duplicate keys; booleans are true and false,
numbers are decimal, and text that YAML would take for something else has to be quoted.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Final

import yaml

from network.errors import TopologyError

MAX_DOCUMENT_BYTES: Final = 1024 * 1024
MAX_DOCUMENT_DEPTH: Final = 20
"""Nesting of mappings and lists; a topology needs seven."""

MAX_DOCUMENT_VALUES: Final = 20_000
"""Keys and values; an organisation needs some thirty."""

_SHOWN_CHARACTERS: Final = 60
_NUMBER = re.compile(r"0|[1-9][0-9]{0,18}")
_TAGS: Final = "tag:yaml.org,2002:"
_KINDS: Final = {
    "bool": "true or false",
    "int": "a number",
    "float": "a number",
    "null": "nothing",
    "timestamp": "a date",
    "merge": "a merge",
    "value": "a default value",
    "map": "a mapping",
    "seq": "a list",
}


@dataclass(frozen=True, slots=True)
class Entry:
    """A value of the document.

    `path` is how errors name it, such as `channels[0].members[2]`; `line`, from 1, is that of its key, or its own.
    """

    file: Path
    node: yaml.Node
    path: str
    line: int

    def mistake(self, reason: str) -> TopologyError:
        """Give the error that names file, line, entry and reason."""
        return _mistake(self.file, self.line, f"{self.path}: {reason}" if self.path else reason)

    def section(self, known: Collection[str]) -> "Section":
        """Read a mapping with these keys and no others."""
        entries = self.mapping()
        for key, entry in entries.items():
            if key not in known:
                raise entry.mistake(f"not known here; {_nearest(key, known)}")
        return Section(self, entries)

    def mapping(self) -> dict[str, "Entry"]:
        """Read a mapping from text to anything."""
        if not isinstance(self.node, yaml.MappingNode):
            raise self._unexpected("a mapping")
        entries: dict[str, Entry] = {}
        for key_node, node in self.node.value:
            line = _line(key_node)
            name = Entry(self.file, key_node, self.path, line).text()
            path = name if len(name) <= _SHOWN_CHARACTERS else name[:_SHOWN_CHARACTERS] + "..."
            entry = Entry(self.file, node, f"{self.path}.{path}" if self.path else path, line)
            if name in entries:
                raise entry.mistake("here for the second time")
            entries[name] = entry
        return entries

    def items(self) -> list["Entry"]:
        """Read a list."""
        if not isinstance(self.node, yaml.SequenceNode):
            raise self._unexpected("a list")
        return [
            Entry(self.file, node, f"{self.path}[{index}]", _line(node)) for index, node in enumerate(self.node.value)
        ]

    def some(self) -> list["Entry"]:
        """Read a list of at least one entry."""
        items = self.items()
        if not items:
            raise self.mistake("at least one is needed")
        return items

    def text(self) -> str:
        """Read text of at least one character, all of them printable."""
        if self._kind() != "str":
            raise self._unexpected("text")
        text = str(self.node.value)
        if not text or not text.replace("\n", " ").isprintable():
            raise self.mistake("text was expected, without control characters" if text else "text was expected")
        return text

    def matching(self, pattern: re.Pattern[str], expected: str, *, longest: int) -> str:
        """Read text of a form; `expected` says which, for the error."""
        text = self.text()
        if len(text) > longest:
            raise self.mistake(f"longer than {longest} characters")
        if not pattern.fullmatch(text):
            raise self.mistake(f"{shown(text)} is not {expected}")
        return text

    def choice(self, known: Collection[str]) -> str:
        """Read one of some words."""
        text = self.text()
        if text not in known:
            raise self.mistake(f"{shown(text)} is not known; {_nearest(text, known)}")
        return text

    def number(self, smallest: int, largest: int) -> int:
        """Read a whole number, both bounds included."""
        is_number = self._kind() == "int" and _NUMBER.fullmatch(self.node.value)
        if not is_number or not smallest <= int(self.node.value) <= largest:
            raise self.mistake(f"a whole number from {smallest} to {largest} was expected")
        return int(self.node.value)

    def flag(self) -> bool:
        """Read true or false."""
        if self._kind() != "bool" or self.node.value not in ("true", "false"):
            raise self.mistake("true or false was expected")
        return bool(self.node.value == "true")

    def _kind(self) -> str:
        return str(self.node.tag).removeprefix(_TAGS)

    def _unexpected(self, expected: str) -> TopologyError:
        found = _KINDS.get(self._kind(), "text")
        hint = "; quote it" if expected == "text" and isinstance(self.node, yaml.ScalarNode) and self.node.value else ""
        return self.mistake(f"{expected} was expected, not {found}{hint}")


@dataclass(frozen=True, slots=True)
class Section:
    """A mapping whose keys were checked."""

    entry: Entry
    entries: dict[str, Entry]

    def __getitem__(self, key: str) -> Entry:
        """Give what must be there."""
        if key not in self.entries:
            raise self.entry.mistake(f"{key} is missing")
        return self.entries[key]

    def get(self, key: str) -> Entry | None:
        """Give what may be there."""
        return self.entries.get(key)

    def items(self, key: str) -> list[Entry]:
        """Give the entries of a list that may be missing."""
        return self.entries[key].items() if key in self.entries else []


def read_document(file: Path) -> Entry:
    """Read a file; raises TopologyError, which names the line unless the file itself cannot be read."""
    try:
        with file.open("rb") as stream:
            content = stream.read(MAX_DOCUMENT_BYTES + 1)
    except OSError as error:
        raise TopologyError(f"{file}: cannot be read: {error.strerror}") from error
    if len(content) > MAX_DOCUMENT_BYTES:
        raise _mistake(file, 1, f"larger than {MAX_DOCUMENT_BYTES} bytes")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _mistake(file, content.count(b"\n", 0, error.start) + 1, "not UTF-8 text") from error
    root = _root(file, text)
    return Entry(file, root, "", _line(root))


class _Loader(yaml.SafeLoader):
    """Composes nodes, and refuses what would make them more, or other, than what is written."""

    depth = 0
    values = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]  # without types in its stubs
        if event.anchor is not None:
            raise yaml.MarkedYAMLError(problem="anchors and aliases are not known here", problem_mark=event.start_mark)
        if event.tag is not None:
            raise yaml.MarkedYAMLError(problem="tags are not known here", problem_mark=event.start_mark)
        if self.depth == MAX_DOCUMENT_DEPTH:
            raise yaml.MarkedYAMLError(problem="nested too deep", problem_mark=event.start_mark)
        if self.values == MAX_DOCUMENT_VALUES:
            raise yaml.MarkedYAMLError(problem="too many values", problem_mark=event.start_mark)
        self.values += 1
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def _root(file: Path, text: str) -> yaml.Node:
    try:
        loader = _Loader(text)
    except yaml.reader.ReaderError as error:
        raise _mistake(file, text.count("\n", 0, error.position) + 1, "a character that YAML does not allow") from error
    try:
        node = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise _mistake(file, mark.line + 1 if mark else 1, error.problem or "not YAML") from error
    except (ValueError, OverflowError) as error:  # the loader lets out what Python says of escapes and version numbers
        raise _mistake(file, loader.line + 1, "not YAML") from error
    finally:
        loader.dispose()
    if node is None:
        raise _mistake(file, 1, "the document is empty")
    return node


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def shown(text: str) -> str:
    """Quote a text for an error, at most its beginning."""
    return repr(text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "...")


def _nearest(text: str, known: Collection[str]) -> str:
    near = get_close_matches(text[:_SHOWN_CHARACTERS], known, n=1, cutoff=0.7)
    return f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"


def _mistake(file: Path, line: int, reason: str) -> TopologyError:
    return TopologyError(f"{file}:{line}: {reason}")
