"""What the nodes of an embedded network keep, as one number each: whatever was written changes it."""

import sqlite3
from hashlib import sha256
from pathlib import Path
from typing import Final

TRANSIENT: Final = "transient"
"""Private writes that were endorsed and wait for their block: proposals alone bring them."""


def digests(folder: Path) -> dict[str, str]:
    """Give the digest of each file under a folder, of a database's tables by name, without what waits for a block."""
    found: dict[str, str] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.suffix == ".sqlite":
            found.update({f"{name}/{table}": digest for table, digest in _tables(path).items()})
        elif path.is_file() and ".sqlite" not in path.name:
            found[name] = sha256(path.read_bytes()).hexdigest()
    return found


def _tables(path: Path) -> dict[str, str]:
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {
            name: sha256(repr(sorted(connection.execute(f'SELECT * FROM "{name}"'), key=repr)).encode()).hexdigest()  # noqa: S608  # names of the database's own
            for name in names
            if name != TRANSIENT
        }
    finally:
        connection.close()
