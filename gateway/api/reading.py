"""Lists and single rows for the routes, whoever holds them."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol


class Page(NamedTuple):
    """Rows of one table at one block; `next_after` is the id to continue after, None at the end."""

    rows: list[dict[str, Any]]
    next_after: str | None
    block_number: int


class Freshness(NamedTuple):
    """How new rows must be.

    `as_of`: as they stood after that block; None: as they stand. `minimum_block`: the tables must reach it.
    """

    as_of: int | None = None
    minimum_block: int | None = None


NEWEST = Freshness()


class Tables(Protocol):
    """The synced tables of the service's own organisation, read-only; each answer is as of one block."""

    def row(self, table: str, key: str, freshness: Freshness = NEWEST) -> tuple[dict[str, Any], int]:
        """Give the row with this id, and the block it is as of; raises NotFoundError."""

    def page(
        self,
        table: str,
        wanted: Mapping[str, str],
        *,
        after: str | None,
        limit: int,
        freshness: Freshness = NEWEST,
    ) -> Page:
        """Give rows that have the wanted values, by id, from the one after `after` on.

        Both raise UpstreamUnavailableError where the tables are not there, or do not reach the block asked for.
        """
