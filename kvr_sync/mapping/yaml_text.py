"""YAML as far as a mapping needs it: one document of mappings, lists and plain values, with the line of everything.

Stricter than YAML where YAML surprises: no anchors and aliases (so no expansion), no tags, no duplicate keys, no `yes`
or `off`, no sexagesimal or octal numbers (as in YAML 1.2's core schema: text, integers, true, false, null).
"""

import re
from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

import yaml

from kvr_sync.mapping.limits import MAX_MAPPING_BYTES, MAX_MAPPING_DEPTH

Plain: TypeAlias = "dict[str, Plain] | list[Plain] | str | int | bool | None"
Path: TypeAlias = tuple[str | int, ...]

_INTEGER = re.compile(r"[-+]?[0-9]{1,18}")
_CONSTANTS: dict[str, bool | None] = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True,
    "false": False, "False": False, "FALSE": False,
}  # fmt: skip


class Mistake(NamedTuple):
    """What is wrong at a line (from 1), and what is allowed."""

    line: int
    text: str


class YamlText(NamedTuple):
    """The value of a text and the line of every entry by its path; after a `fatal` mistake the value is None."""

    value: Plain
    lines: dict[Path, int]
    mistakes: tuple[Mistake, ...]
    fatal: bool


class _FatalError(Exception):
    def __init__(self, line: int, text: str) -> None:
        super().__init__(text)
        self.mistake = Mistake(line, text)


class _Open:
    """A mapping or list that is being read."""

    def __init__(self, path: Path, content: "dict[str, Plain] | list[Plain]") -> None:
        self.path = path
        self.content = content
        self.key: str | None = None
        """Key read, value awaited."""
        self.is_duplicate = False


def read_yaml(content: bytes) -> YamlText:
    """Read a text of at most `MAX_MAPPING_BYTES`; total: every input gives a value or mistakes."""
    if len(content) > MAX_MAPPING_BYTES:
        return _failed(Mistake(1, f"the file is too large; a mapping has at most {MAX_MAPPING_BYTES} bytes"))
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return _failed(Mistake(content.count(b"\n", 0, error.start) + 1, "not UTF-8 text"))
    reader = _Reader()
    try:
        for event in _events(text):
            reader.take(event)
    except _FatalError as error:
        return _failed(error.mistake)
    return YamlText(reader.value, reader.lines, tuple(reader.mistakes), fatal=False)


def _failed(mistake: Mistake) -> YamlText:
    return YamlText(None, {(): mistake.line}, (mistake,), fatal=True)


def _events(text: str) -> Iterator[yaml.Event]:
    line = 1
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            line = _line(event)
            yield event
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise _FatalError(mark.line + 1 if mark else line, f"not YAML: {error.problem or 'malformed'}") from None
    except yaml.reader.ReaderError as error:
        found = text.count("\n", 0, error.position) + 1
        raise _FatalError(found, "not YAML: special characters are not allowed") from None
    except (yaml.YAMLError, ValueError, OverflowError):
        # PyYAML lets int() and chr() speak for themselves in escapes and directives.
        raise _FatalError(line, "not YAML: malformed number or escape") from None


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 1


class _Reader:
    """Builds values from events with a stack of its own: nesting cannot exhaust Python's."""

    def __init__(self) -> None:
        self.value: Plain = None
        self.lines: dict[Path, int] = {(): 1}
        self.mistakes: list[Mistake] = []
        self._stack: list[_Open] = []
        self._documents = 0

    def take(self, event: yaml.Event) -> None:
        line = _line(event)
        match event:
            case yaml.DocumentStartEvent():
                self._documents += 1
                if self._documents > 1:
                    raise _FatalError(line, "a second YAML document; one mapping per file is allowed")
                if event.version or event.tags:
                    raise _FatalError(line, "YAML directives (%) are not allowed")
            case yaml.AliasEvent():
                raise _FatalError(line, "YAML aliases (*) are not allowed; write the content out")
            case yaml.ScalarEvent():
                self._refuse_extras(event, line)
                self._take_scalar(event, line)
            case yaml.MappingStartEvent():
                self._refuse_extras(event, line)
                self._open({}, line)
            case yaml.SequenceStartEvent():
                self._refuse_extras(event, line)
                self._open([], line)
            case yaml.CollectionEndEvent():
                self._stack.pop()
            case _:
                pass  # begin and end of stream and document carry nothing

    def _refuse_extras(self, event: yaml.NodeEvent, line: int) -> None:
        if event.anchor is not None:
            raise _FatalError(line, "YAML anchors (&) are not allowed; write the content out")
        if getattr(event, "tag", None) is not None:
            raise _FatalError(line, "YAML tags (!) are not allowed")

    def _take_scalar(self, event: yaml.ScalarEvent, line: int) -> None:
        text: str = event.value
        if "\x00" in text or any("\ud800" <= character <= "\udfff" for character in text):
            raise _FatalError(line, "text with U+0000 or half a character is not allowed")
        top = self._stack[-1] if self._stack else None
        if top is not None and isinstance(top.content, dict) and top.key is None:
            top.key = text
            top.is_duplicate = text in top.content
            if top.is_duplicate:
                first = self.lines[(*top.path, text)]
                self.mistakes.append(
                    Mistake(line, f"{text!r} stands here twice, first in line {first}; once is allowed")
                )
            else:
                self.lines[(*top.path, text)] = line
            return
        is_plain = event.style is None or event.style == ""
        self._place(_resolve(text) if is_plain else text, line)

    def _open(self, content: "dict[str, Plain] | list[Plain]", line: int) -> None:
        if len(self._stack) >= MAX_MAPPING_DEPTH:
            raise _FatalError(line, f"nested deeper than {MAX_MAPPING_DEPTH} levels")
        top = self._stack[-1] if self._stack else None
        if top is not None and isinstance(top.content, dict) and top.key is None:
            raise _FatalError(line, "a key must be text")
        self._stack.append(_Open(self._place(content, line), content))

    def _place(self, value: Plain, line: int) -> Path:
        """Put a value where it belongs; give its path."""
        if not self._stack:
            self.value = value
            self.lines[()] = line
            return ()
        top = self._stack[-1]
        if isinstance(top.content, list):
            path: Path = (*top.path, len(top.content))
            self.lines[path] = line
            top.content.append(value)
            return path
        key = top.key or ""
        top.key = None
        if not top.is_duplicate:  # the first one stays, the second is told of and read without being kept
            top.content[key] = value
        return (*top.path, key)


def _resolve(text: str) -> Plain:
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    return int(text) if _INTEGER.fullmatch(text) else text
