"""What a driver raises, as one of our own errors, in one place.

A driver's text may quote the values of a row ("Failing row contains ..."), so nothing of it is passed on: our
messages name the place, the condition and the table, and the driver's exception is not chained.
"""

import sqlite3
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import psycopg
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from kvr_sync.errors import (
    CommitOutcomeUnknownError,
    ConfigurationError,
    KvrSyncError,
    SchemaDriftError,
    SinkError,
    SinkFullError,
    SinkReadOnlyError,
    SinkUnavailableError,
)

DRIVER_ERRORS: Final = (SQLAlchemyError, psycopg.Error, sqlite3.Error)

# SQLSTATE codes and classes: PostgreSQL documentation, appendix A.
_POSTGRESQL_CODES: dict[str, type[SinkError]] = {
    "25006": SinkReadOnlyError,  # read_only_sql_transaction: also what a standby answers
    "42501": SinkReadOnlyError,  # insufficient_privilege
    "53100": SinkFullError,  # disk_full
    "40001": SinkUnavailableError,  # serialization_failure
    "40P01": SinkUnavailableError,  # deadlock_detected
    "55P03": SinkUnavailableError,  # lock_not_available
    "57014": SinkUnavailableError,  # query_canceled: statement timeout
    "42P01": SchemaDriftError,  # undefined_table
    "42703": SchemaDriftError,  # undefined_column
    "42804": SchemaDriftError,  # datatype_mismatch
    "22P03": SchemaDriftError,  # invalid_binary_representation: a column of another type takes no binary COPY
    "3F000": SchemaDriftError,  # invalid_schema_name
}
_POSTGRESQL_CLASSES: dict[str, type[SinkError]] = {
    "08": SinkUnavailableError,  # connection_exception
    "53": SinkUnavailableError,  # insufficient_resources
    "57": SinkUnavailableError,  # operator_intervention: shutdown, crash, cannot_connect_now
    "58": SinkUnavailableError,  # system_error
}

# Primary result codes: sqlite.org/rescode.html.
_SQLITE_CODES: dict[int, type[KvrSyncError]] = {
    sqlite3.SQLITE_BUSY: SinkUnavailableError,
    sqlite3.SQLITE_LOCKED: SinkUnavailableError,
    sqlite3.SQLITE_IOERR: SinkUnavailableError,
    sqlite3.SQLITE_NOMEM: SinkUnavailableError,
    sqlite3.SQLITE_CANTOPEN: SinkUnavailableError,
    sqlite3.SQLITE_FULL: SinkFullError,
    sqlite3.SQLITE_READONLY: SinkReadOnlyError,
    sqlite3.SQLITE_PERM: SinkReadOnlyError,
    sqlite3.SQLITE_AUTH: SinkReadOnlyError,
    sqlite3.SQLITE_SCHEMA: SchemaDriftError,
    sqlite3.SQLITE_NOTADB: ConfigurationError,
    sqlite3.SQLITE_CORRUPT: SinkError,
}
_SQLITE_DRIFT = ("no such table", "no such column", "has no column named")


@contextmanager
def driver_errors(place: str, *, committing: bool = False) -> Iterator[None]:
    """Translate what drivers raise inside; `place` begins the message, e.g. "the sink at sqlite:///a.db".

    With `committing`, an error that leaves open whether a COMMIT happened becomes CommitOutcomeUnknownError. A value
    that does not fit its column becomes SinkError. Other exceptions pass.
    """
    try:
        yield
    except DBAPIError as error:
        raise _translated(error.orig or error, place, committing=committing) from None
    except DRIVER_ERRORS as error:
        raise _translated(error, place, committing=committing) from None
    except (struct.error, OverflowError, UnicodeEncodeError) as error:
        raise SinkError(f"{place}: a value does not fit its column ({type(error).__name__})") from None


def _translated(error: BaseException, place: str, *, committing: bool) -> KvrSyncError:
    if isinstance(error, psycopg.Error):
        return _from_postgresql(error, place, committing=committing)
    if isinstance(error, sqlite3.Error):
        return _from_sqlite(error, place, committing=committing)
    return SinkError(f"{place}: {type(error).__name__}")


def _from_postgresql(error: psycopg.Error, place: str, *, committing: bool) -> KvrSyncError:
    code = error.sqlstate
    severity = error.diag.severity_nonlocalized
    link_lost = isinstance(error, psycopg.OperationalError) and code is None
    if committing and (link_lost or severity in {"FATAL", "PANIC"} or (code or "").startswith(("08", "57P"))):
        return CommitOutcomeUnknownError(f"{place}: the answer to COMMIT was lost")
    if link_lost:
        return SinkUnavailableError(f"{place}: the connection was lost")
    names = ".".join(name for name in (error.diag.table_name, error.diag.column_name) if name)
    condition = f"{type(error).__name__} ({code})" if code else type(error).__name__
    kind = _POSTGRESQL_CODES.get(code or "") or _POSTGRESQL_CLASSES.get((code or "")[:2], SinkError)
    return kind(f"{place}: PostgreSQL answered {condition}{f' on {names}' if names else ''}")


def _from_sqlite(error: sqlite3.Error, place: str, *, committing: bool) -> KvrSyncError:
    code = getattr(error, "sqlite_errorcode", None)  # absent where the module itself refuses, not the library
    if code is None:
        return SinkError(f"{place}: {type(error).__name__}")
    primary = code & 0xFF  # the rest of an extended code says more of the same
    if committing and primary == sqlite3.SQLITE_IOERR:
        condition = error.sqlite_errorname
        return CommitOutcomeUnknownError(f"{place}: SQLite could not say whether COMMIT happened ({condition})")
    if primary == sqlite3.SQLITE_NOTADB:
        return ConfigurationError(f"{place}: the file is not an SQLite database")
    kind = _SQLITE_CODES.get(primary, SinkError)
    if primary == sqlite3.SQLITE_ERROR and any(words in str(error) for words in _SQLITE_DRIFT):
        kind = SchemaDriftError
    return kind(f"{place}: SQLite answered {error.sqlite_errorname}")
