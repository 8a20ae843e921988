"""The table `sync_peer`: what peers were seen to have, for readers of the view `sync_status`.

Written on a connection and in transactions of their own, beside the engine's: a height that was seen stays true
whether a block commits or not, and must also be told while the engine is stuck.
"""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import datetime

from sqlalchemy import Connection, delete, func, insert, or_, select, update

from kvr_sync.lag import PeerSight
from kvr_sync.store.database import READING
from kvr_sync.store.database_error import DRIVER_ERRORS, driver_errors
from kvr_sync.store.encoding import stored_time
from kvr_sync.store.ledger_sink import LedgerSink
from kvr_sync.store.status import read_time


class PeerHeights:
    """The recorded heights of one channel, for one thread at a time; every call may raise `SinkError`."""

    def __init__(self, sink: LedgerSink) -> None:
        self._database = sink.database
        self._tables = sink.tables
        self._kind = sink.kind
        self._connection: Connection | None = None

    def behind_since(self) -> tuple[int, datetime] | None:
        """Give the greatest height recorded and since when the tables lack blocks of it; None: they lack none."""
        peer, checkpoint = self._tables.peer, self._tables.checkpoint
        applied = func.coalesce(select(checkpoint.c.block_number + 1).scalar_subquery(), 0)
        behind = select(func.max(peer.c.height), func.min(peer.c.behind_since)).where(
            peer.c.height > applied, peer.c.behind_since.is_not(None)
        )
        with driver_errors(self._database.place):
            connection = self._connected()
            connection.execution_options(**{READING: True})
            with connection.begin():
                height, since = connection.execute(behind).one()
        moment = read_time(since)
        return None if moment is None else (height, moment)

    def record(self, sights: Iterable[PeerSight], peers: Sequence[str]) -> None:
        """Write what was seen; rows of other peers than `peers` go, since nobody sees them any more."""
        table = self._tables.peer
        with driver_errors(self._database.place):
            connection = self._connected()
            connection.execution_options(**{READING: False})
            with connection.begin():
                connection.execute(delete(table).where(table.c.peer.not_in(peers)))
                for sight in sights:
                    values = {
                        "height": sight.height,
                        "seen_at": stored_time(self._kind, sight.seen_at),
                        "behind_since": stored_time(self._kind, sight.behind_since),
                    }
                    found = connection.execute(update(table).where(table.c.peer == sight.peer).values(**values))
                    if found.rowcount == 0:
                        connection.execute(insert(table).values(peer=sight.peer, **values))

    def expect_block(self, number: int) -> None:
        """Write down that private rows cannot be relied on before this block is applied."""
        table = self._tables.private_member
        is_further = or_(table.c.ready_block.is_(None), table.c.ready_block < number)
        with driver_errors(self._database.place):
            connection = self._connected()
            connection.execution_options(**{READING: False})
            with connection.begin():
                connection.execute(update(table).where(is_further).values(ready_block=number))

    def count_missing(self) -> int:
        """Count the private values that are missing."""
        table = self._tables.private_value
        with driver_errors(self._database.place):
            connection = self._connected()
            connection.execution_options(**{READING: True})
            with connection.begin():
                count = select(func.count()).select_from(table).where(table.c.due_at.is_not(None))
                return int(connection.scalar(count) or 0)

    def close(self) -> None:
        """Give the connection back; a later call opens a new one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(*DRIVER_ERRORS):  # a broken link cannot be closed properly, and need not be
                connection.close()

    def _connected(self) -> Connection:
        if self._connection is None:
            self._connection = self._database.engine.connect()
        return self._connection
