"""Reading the synced tables of the service's own organisation: lists and single rows, as of one checkpoint."""

from collections.abc import Mapping
from typing import Any

from gateway.api.errors import NotFoundError, UpstreamUnavailableError
from gateway.api.reading import NEWEST, Freshness, Page
from kvr_sync.read import KvrSyncError, TableQuery, TablesBehindError, open_tables, read_table

PAGE_SIZE = 100
"""Most rows of one page."""

_OWN = frozenset(
    {"external_id", "kvr_block_number", "kvr_tx_number", "kvr_write_number", "kvr_tx_id", "kvr_creator_msp_id"}
)
"""Columns of every synced table that are not the record's."""


class RequestTables:
    """The mapped tables of one channel in one database, read-only."""

    def __init__(self, database_url: str, channel: str) -> None:
        self._url = database_url
        self._channel = channel

    def row(self, table: str, key: str, freshness: Freshness = NEWEST) -> tuple[dict[str, Any], int]:
        """Give the row with this id, and the block it is as of; raises NotFoundError."""
        page = self._rows(table, {"external_id": key}, after=None, limit=1, freshness=freshness)
        if not page.rows:
            raise NotFoundError
        return page.rows[0], page.block_number

    def page(
        self,
        table: str,
        wanted: Mapping[str, str],
        *,
        after: str | None,
        limit: int,
        freshness: Freshness = NEWEST,
    ) -> Page:
        """Give rows that have the wanted values, by id, from the one after `after` on."""
        return self._rows(table, wanted, after=after, limit=limit, freshness=freshness)

    def _rows(
        self, table: str, wanted: Mapping[str, str], *, after: str | None, limit: int, freshness: Freshness
    ) -> Page:
        query = TableQuery(
            table,
            wanted,
            as_of=freshness.as_of,
            minimum_block=freshness.minimum_block,
            after=after,
            limit=min(limit, PAGE_SIZE),
        )
        try:
            with open_tables(self._url, self._channel) as synced:
                page = read_table(synced, query)
        except TablesBehindError as error:
            raise UpstreamUnavailableError("the synced tables do not reach that block yet") from error
        except KvrSyncError as error:
            raise UpstreamUnavailableError("the synced tables cannot be read") from error
        rows = [{name: value for name, value in row.items() if name not in _OWN} for row in page.rows]
        return Page(rows, page.next_after, page.block_number)
