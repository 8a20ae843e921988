"""Names of tables and columns: no quotes needed in PostgreSQL and SQLite, no collision with names of ours or theirs."""

import re
from collections import Counter
from collections.abc import Callable, Iterable
from hashlib import sha256

MAX_TABLE_NAME = 48
"""Characters; leaves room for `_history` and the like, and for names of indexes, within PostgreSQL's 63 bytes."""

MAX_COLUMN_NAME = 63
"""Characters; PostgreSQL cuts longer names silently."""

_WORD_START = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_RESERVED_TABLE_PREFIXES = ("kvr_", "ledger_", "sync_", "alembic_", "pg_", "sqlite_")
_RESERVED_COLUMN_PREFIXES = ("kvr_",)
_RESERVED_COLUMNS = frozenset({"external_id"})
"""Columns that every mapped table has."""
_RESERVED_TABLE_SUFFIXES = ("_history", "_changes", "_validity", "_asof", "_idx", "_pkey", "_external_id_key")
"""Names of what belongs to another table: indexes share the names of tables in both databases."""

SYSTEM_COLUMNS = frozenset({"cmax", "cmin", "ctid", "oid", "rowid", "tableoid", "xmax", "xmin"})
"""Columns that PostgreSQL ("System Columns") or SQLite ("ROWIDs and the INTEGER PRIMARY KEY") already has."""

RESERVED_WORDS = frozenset(  # a text, since a hundred quoted words on a hundred lines read worse
    """
    add all alter analyse analyze and any array as asc asymmetric authorization autoincrement between binary both
    case cast check collate collation column commit concurrently constraint create cross current_catalog
    current_date current_role current_schema current_time current_timestamp current_user default deferrable delete
    desc distinct do drop else end escape except exists false fetch for foreign freeze from full grant group
    having if ilike in index initially inner insert intersect into is isnull join lateral leading left like limit
    localtime localtimestamp natural not nothing notnull null offset on only or order outer overlaps placing
    primary raise references returning right select session_user set similar some symmetric system_user table
    tablesample then to trailing transaction true union unique update user using values variadic verbose when
    where window with
    """.split()  # noqa: SIM905 - see above
)
"""Words that cannot name a table or column without quotes.

PostgreSQL 18: `pg_get_keywords()` with category R or T. SQLite 3.40: the words of "SQLite Keywords"
(lang_keywords.html) that its parser refuses as the name of a table, a column or a result.
"""


def table_name_mistake(name: str) -> str | None:
    """Say what is wrong with a table name and what is allowed; None: nothing."""
    mistake = _mistake("table", name, MAX_TABLE_NAME, _RESERVED_TABLE_PREFIXES)
    if mistake is None and name.endswith(_RESERVED_TABLE_SUFFIXES):
        return f"table name {name!r} must not end in {_listed(_RESERVED_TABLE_SUFFIXES)}: every table has such"
    return mistake


def column_name_mistake(name: str) -> str | None:
    """Say what is wrong with a column name and what is allowed; None: nothing."""
    mistake = _mistake("column", name, MAX_COLUMN_NAME, _RESERVED_COLUMN_PREFIXES)
    if mistake is None and name in _RESERVED_COLUMNS:
        return f"column name {name!r}: every table has such a column already"
    if mistake is None and name in SYSTEM_COLUMNS:
        return f"column name {name!r} is a system column of PostgreSQL or SQLite; choose another name"
    return mistake


def propose_table_names(names: Iterable[str]) -> dict[str, str]:
    """Give a table name that is allowed for each of the distinct `names`; see `_propose`."""
    return _propose(names, table_name_mistake, MAX_TABLE_NAME)


def propose_column_names(names: Iterable[str]) -> dict[str, str]:
    """Give a column name that is allowed for each of the distinct `names`; see `_propose`."""
    return _propose(names, column_name_mistake, MAX_COLUMN_NAME)


def _propose(names: Iterable[str], mistake: Callable[[str], str | None], limit: int) -> dict[str, str]:
    """Make names fit: deterministic, no two alike, whatever their order.

    `assetID` becomes `asset_id`. Names that would come out alike, or are too long, end in eight digits of the SHA-256
    of what they were; what is reserved gets a word more.
    """
    readable = {name: _readable(name) for name in names}
    counts = Counter(readable.values())
    proposed: dict[str, str] = {}
    for name, words in readable.items():
        fit = words
        if mistake(fit[:limit]) is not None:
            fit = f"{fit}_entry" if mistake(f"{fit}_entry"[:limit]) is None else f"entry_{fit}"
        if counts[words] > 1 or len(fit) > limit or (fit != words and fit in counts):
            tag = sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
            fit = f"{fit[: limit - 9]}_{tag}"
        proposed[name] = fit
    return proposed


def _readable(name: str) -> str:
    words = _WORD_START.sub("_", name)
    words = re.sub(r"[^a-z0-9]+", "_", words.lower()).strip("_")
    return words if words and words[0].isalpha() else f"n_{words}".rstrip("_")


def _mistake(kind: str, name: str, limit: int, reserved_prefixes: tuple[str, ...]) -> str | None:
    if len(name) > limit:
        return f"{kind} name of {len(name)} characters; at most {limit} are allowed"
    if not _NAME.fullmatch(name):
        return f"{kind} name {name!r} must be a small letter a-z, then small letters, digits 0-9 and underscores"
    if name.startswith(reserved_prefixes):
        return f"{kind} name {name!r} must not begin with {_listed(reserved_prefixes)}: reserved"
    if name in RESERVED_WORDS:
        return f"{kind} name {name!r} is a reserved word of SQL; choose another name"
    return None


def _listed(words: tuple[str, ...]) -> str:
    return " or ".join(repr(word) for word in words)
