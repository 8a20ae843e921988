"""Reading the synced tables of the service's own organisation: lists and single rows, as of one checkpoint."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import MetaData, Table, select
from sqlalchemy.exc import NoSuchTableError

from gateway.api.errors import NotFoundError, UpstreamUnavailableError
from gateway.api.reading import Page
from kvr_sync.read import KvrSyncError, SyncedTables, open_tables

PAGE_SIZE = 100
"""Most rows of one page."""


class RequestTables:
    """The mapped tables of one channel in one database, read-only."""

    def __init__(self, database_url: str, channel: str) -> None:
        self._url = database_url
        self._channel = channel

    def row(self, table: str, key: str) -> tuple[dict[str, Any], int]:
        """Give the row with this id, and the block it is as of; raises NotFoundError."""
        page = self._rows(table, {"id": key}, after=None, limit=1)
        if not page.rows:
            raise NotFoundError
        return page.rows[0], page.block_number

    def page(self, table: str, wanted: Mapping[str, str], *, after: str | None, limit: int) -> Page:
        """Give rows that have the wanted values, by id, from the one after `after` on."""
        return self._rows(table, wanted, after=after, limit=limit)

    def _rows(self, table: str, wanted: Mapping[str, str], *, after: str | None, limit: int) -> Page:
        limit = min(limit, PAGE_SIZE)
        try:
            with open_tables(self._url, self._channel) as synced:
                mapped = _mapped_table(synced, table)
                columns = [column for column in mapped.c if not column.name.startswith("kvr_")]
                query = select(*columns).order_by(mapped.c.id).limit(limit + 1)
                for name, value in wanted.items():
                    query = query.where(mapped.c[name] == value)
                if after is not None:
                    query = query.where(mapped.c.id > after)
                rows = [dict(row._mapping) for row in synced.connection.execute(query)]  # noqa: SLF001  # SQLAlchemy's public name
                checkpoint = synced.tables.checkpoint
                block_number = synced.connection.scalar(
                    select(checkpoint.c.block_number).where(checkpoint.c.channel == synced.channel)
                )
        except KvrSyncError as error:
            raise UpstreamUnavailableError("the synced tables cannot be read") from error
        more = len(rows) > limit
        rows = rows[:limit]
        return Page(rows, str(rows[-1]["id"]) if more else None, int(block_number or 0))


def _mapped_table(synced: SyncedTables, name: str) -> Table:
    try:
        return Table(name, MetaData(schema=synced.tables.metadata.schema), autoload_with=synced.connection)
    except NoSuchTableError as error:
        raise UpstreamUnavailableError("the synced tables do not hold this kind of record yet") from error
