"""Lists and single rows for the routes, whoever holds them."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol


class Page(NamedTuple):
    """Rows of one table at one block; `next_after` is the id to continue after, None at the end."""

    rows: list[dict[str, Any]]
    next_after: str | None
    block_number: int


class Tables(Protocol):
    """The synced tables of the service's own organisation, read-only; each answer is as of one block."""

    def row(self, table: str, key: str) -> tuple[dict[str, Any], int]:
        """Give the row with this id, and the block it is as of; raises NotFoundError."""

    def page(self, table: str, wanted: Mapping[str, str], *, after: str | None, limit: int) -> Page:
        """Give rows that have the wanted values, by id, from the one after `after` on."""
