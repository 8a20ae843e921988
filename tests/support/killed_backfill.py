"""A backfill that kills itself: run as a program by the fault tests.

Arguments: database URL, connection profile, MSP id, MSP folder of the reader, number of the operation of the database
before which the process sends itself SIGKILL.
"""

import os
import signal
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from sqlalchemy import event

from kvr_sync import reconciliation
from kvr_sync.reconciliation import Reconciliation, reconcile
from kvr_sync.source.peer_source import PeerSettings
from kvr_sync.store.opening import open_store

CHANNEL = "consortium"
COMMIT = "COMMIT"
BATCH_VALUES = 20
"""Values of one transaction: a tenth of those that the product takes."""


def backfill(url: str, settings: PeerSettings, on_operation: Callable[[str], None]) -> Reconciliation:
    """Ask for what is missing, and tell of each statement and each COMMIT before it."""
    with closing(open_store(url, CHANNEL, private_member=settings.msp_id)) as sink:

        def on_statement(_connection: object, _cursor: object, statement: str, *_: object) -> None:
            on_operation(statement)

        event.listen(sink.database.engine, "before_cursor_execute", on_statement)
        event.listen(sink.database.engine, "commit", lambda _: on_operation(COMMIT))
        return reconcile(sink, settings, due=False)


def main() -> None:
    """Do it until then."""
    url, profile, msp_id, identity, number = sys.argv[1:]
    reconciliation.BATCH_VALUES = BATCH_VALUES
    remaining = int(number)

    def on_operation(_: str) -> None:
        nonlocal remaining
        remaining -= 1
        if remaining == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    backfill(url, PeerSettings(Path(profile), msp_id, Path(identity), CHANNEL, private_data=True), on_operation)


if __name__ == "__main__":
    main()
