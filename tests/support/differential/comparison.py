"""What two networks cannot share, in one table; and the records of two runs compared without it.

A value of a run is replaced only where the run itself knows it for its own: an id it made, a certificate of its own
organisations, an address it listens at. Everything else has to be equal, and what is not is listed in `KNOWN`.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

Record = dict[str, Any]


class Shape(NamedTuple):
    """A kind of value that no two networks share. `text`: how it looks; `is_known`: replaced only if a run's own."""

    kind: str
    text: str
    is_known: bool = True

    @property
    def pattern(self) -> re.Pattern[str]:
        """How it looks, compiled."""
        return re.compile(self.text)


REPLACED: Final = (
    Shape("certificate", r"-----BEGIN (?:CERTIFICATE|X509 CRL)-----[^-]+-----END (?:CERTIFICATE|X509 CRL)-----\n?"),
    Shape("id", r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])"),  # and hashes of what holds an id, each known exactly
    Shape("nonce", r"(?<![0-9a-f])[0-9a-f]{48}(?![0-9a-f])"),
    Shape("time", r"(?<!\d)\d{19}(?!\d)"),  # claimed by a proposal, in nanoseconds
    Shape("time", r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?( ?[+-]\d\d:?\d\d| UTC|Z)?", is_known=False),
    Shape("port", r"127\.0\.0\.1:\d+"),
    Shape("size", r"(?<=payload is )\d+(?= bytes)"),  # of an envelope: certificates and signatures differ in length
    # Go's protobuf writes one of two spaces, by the build of a program, so that nobody compares its words.
    Shape("space", "\N{NO-BREAK SPACE}", is_known=False),
)
SIGNATURES: Final = frozenset({"signature"})
"""Fields that hold a signature: it is one, and no two are equal."""
_PATTERN: Final = re.compile("|".join(f"(?P<s{number}>{shape.text})" for number, shape in enumerate(REPLACED)))


class Own:
    """What a network alone has: by its text what stands for it, which is the same on every network."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}

    def add(self, kind: str, value: str, name: str) -> None:
        """Note a value of a kind of the table; the first name stays."""
        assert any(shape.kind == kind and shape.is_known for shape in REPLACED), kind
        self._names.setdefault(value, f"({kind} of {name})")

    def __contains__(self, value: object) -> bool:
        """Whether a text is one of the network's own."""
        return value in self._names

    def normalised(self, tree: Any, field: str = "") -> Any:
        """Give a record with names in place of what is in the table."""
        if isinstance(tree, dict):
            return {key: self.normalised(value, key) for key, value in tree.items()}
        if isinstance(tree, list):
            return [self.normalised(value, field) for value in tree]
        if isinstance(tree, str):
            if field in SIGNATURES and tree.startswith("0x30"):
                return "(signature)"
            return _PATTERN.sub(self._name, tree)
        return tree

    def _name(self, found: re.Match[str]) -> str:
        text = found[0]
        shape = REPLACED[int(str(found.lastgroup)[1:])]
        if shape.kind == "space":
            return " "
        return self._names.get(text, text) if shape.is_known else f"({shape.kind})"


class Difference(NamedTuple):
    """A place where two records differ."""

    step: str
    path: str
    embedded: Any
    native: Any

    def __str__(self) -> str:
        """Say it on three lines."""
        return f"{self.step}: {self.path}\n  embedded: {self.embedded!r}\n  native:   {self.native!r}"


class Known(NamedTuple):
    """Differences of one step that stay. `row`: the first column of the list in network/README.md, which says why.

    `values`: by path what each network gives, as regular expressions on its text. All of them occur in every run: one
    that is mended leaves the list.
    """

    step: str
    row: str
    values: Mapping[str, tuple[str, str]]

    def is_it(self, found: Difference) -> bool:
        """Whether a difference is listed here."""
        if found.step != self.step or found.path not in self.values:
            return False
        texts = str(found.embedded), str(found.native)
        return all(map(re.fullmatch, self.values[found.path], texts))


KNOWN: Final[tuple[Known, ...]] = (
    Known(
        "lscc",
        "`lscc`",
        {
            "/found/ServiceMSP/response/message": (
                r".* package 'lscc\.syscc': no such file or directory",
                r".* package 'lscc\.syscc': open \S+/data/chaincodes/lscc\.syscc: no such file or directory",
            )
        },
    ),
    Known(
        "an update: another consensus",
        "a configuration update to a consensus type that no orderer has",
        {"/found/ordered (length)": (r"\[\{'status': 400, 'info': '.* not in maintenance mode'\}\]", r"\[\]")},
    ),
    Known(
        "a spoilt package",
        "InstallChaincode",
        {
            "/found/ServiceMSP/payload": (r"\{'proposal_hash': .*\}", r"\(absent\)"),
            "/found/ServiceMSP/response/status": ("500", "200"),
            "/found/ServiceMSP/response/message": (".* unexpected EOF", ""),
            "/found/ServiceMSP/response/payload/label": (r"\(absent\)", "changing"),
            "/found/ServiceMSP/response/payload/package_id": (
                r"\(absent\)",
                r"changing:\(id of spoilt package of changing\)",
            ),
        },
    ),
)
"""The differences that remain."""


def differences(embedded: Sequence[Record], native: Sequence[Record]) -> Iterator[Difference]:
    """Give every place where normalised records differ."""
    names = [record["step"] for record in embedded], [record["step"] for record in native]
    if names[0] != names[1]:
        yield Difference("all", "step", *names)
        return
    for mine, theirs in zip(embedded, native, strict=True):
        for path, left, right in _unequal(mine, theirs, ""):
            yield Difference(mine["step"], path, left, right)


def unexplained(found: Iterable[Difference], known: Sequence[Known] = KNOWN) -> list[str]:
    """Say which differences are not listed, and which listed ones were not met."""
    met: set[tuple[str, str]] = set()
    words = []
    for difference in found:
        if any(it.is_it(difference) for it in known):
            met.add((difference.step, difference.path))
        else:
            words.append(str(difference))
    listed = [(it, path) for it in known for path in it.values]
    return words + [f"no longer so: {it.step}: {path} ({it.row})" for it, path in listed if (it.step, path) not in met]


_ABSENT: Final = "(absent)"


def _unequal(mine: Any, theirs: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    if type(mine) is not type(theirs):
        yield path, mine, theirs
    elif isinstance(mine, dict):
        for key in sorted(mine.keys() | theirs.keys()):
            yield from _unequal(mine.get(key, _ABSENT), theirs.get(key, _ABSENT), f"{path}/{key}")
    elif isinstance(mine, list):
        if len(mine) != len(theirs):
            yield f"{path} (length)", mine, theirs
        for number, (left, right) in enumerate(zip(mine, theirs, strict=False)):
            yield from _unequal(left, right, f"{path}/{number}")
    elif mine != theirs:
        yield path, mine, theirs
