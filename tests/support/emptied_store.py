"""One store whose tables are made once and emptied again and again: making them costs more than filling them."""

import shutil
from pathlib import Path

from kvr_sync.mapping.definition import Mapping
from kvr_sync.store.opening import open_store
from tests.support.postgresql import empty_tables


class EmptiedSqlite:
    """Gives the address of a file with empty tables, again and again."""

    def __init__(self, folder: Path, mapping: Mapping) -> None:
        self._template = folder / "template.db"
        self._path = folder / "kvr.db"
        open_store(f"sqlite:///{self._template}", "consortium", mapping=mapping).close()

    def __call__(self) -> str:
        for path in self._path.parent.glob("kvr.db*"):
            path.unlink()
        shutil.copy(self._template, self._path)
        return f"sqlite:///{self._path}"


class EmptiedPostgresql:
    """Gives the address of a database with empty tables, again and again."""

    def __init__(self, url: str, mapping: Mapping) -> None:
        self._url = url
        open_store(url, "consortium", mapping=mapping).close()

    def __call__(self) -> str:
        empty_tables(self._url)
        return self._url
