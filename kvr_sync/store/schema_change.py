"""Statements that change tables which are being read, run in a moment in which nobody is in their way.

A statement that waits for a lock makes all later readers wait behind it, so none waits long: what does not get its
locks at once is undone as a whole and tried again.
"""

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

from sqlalchemy import Connection

from kvr_sync.errors import SinkUnavailableError
from kvr_sync.store.database import Database
from kvr_sync.store.database_error import driver_errors
from kvr_sync.store.mapping_ddl import SchemaStep

T = TypeVar("T")

LOCK_MILLISECONDS = 50
"""Longest wait for one lock: for as long readers that come later wait behind us."""
LOCKING_MILLISECONDS = 100
"""Longest wait for all locks of a statement."""
WAIT_SECONDS = 300.0
"""How long a moment is looked for when nobody reads the tables."""
PAUSE_SECONDS = 0.5


class Patience(NamedTuple):
    """How long a moment is waited for."""

    wait_seconds: float = WAIT_SECONDS
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep  # noqa: TID251  the sleeper that is handed in by default


PATIENCE = Patience()


def change_tables(
    database: Database, change: Callable[[Connection], T], locked: Sequence[str], patience: Patience
) -> T:
    """Call `change` with a transaction of short waits, until one goes through; give what that call gave.

    `locked`: tables that it needs for itself, for the error: SinkUnavailableError where there was no moment for it.
    """
    deadline = patience.clock() + patience.wait_seconds
    while True:
        try:
            with driver_errors(database.place), database.engine.begin() as connection:
                if connection.dialect.name == "postgresql":
                    connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{LOCK_MILLISECONDS}ms'")
                database.lock_for_migration(connection)
                done = change(connection)
        except SinkUnavailableError as error:
            if patience.clock() >= deadline:
                message = f"{error}; waited in vain for a moment without readers of {', '.join(locked)}"
                raise SinkUnavailableError(message) from None
            patience.sleep(PAUSE_SECONDS)
        else:
            return done


def run_step(connection: Connection, step: SchemaStep) -> None:
    """Run the statements of a step but those that come afterwards, inside such a transaction."""
    as_it_stands = {"no_parameters": True}  # a percent sign is one
    for statement in step.first:
        connection.exec_driver_sql(statement, execution_options=as_it_stands)
    if step.locked:
        connection.exec_driver_sql(f"SET LOCAL statement_timeout = '{LOCKING_MILLISECONDS}ms'")
        connection.exec_driver_sql(f"LOCK TABLE {', '.join(step.locked)} IN ACCESS EXCLUSIVE MODE")
        # From here on readers wait: all at once.
        connection.exec_driver_sql("; ".join(step.under_locks), execution_options=as_it_stands)
    else:
        for statement in step.under_locks:
            connection.exec_driver_sql(statement, execution_options=as_it_stands)
