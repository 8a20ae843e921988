"""The log of what operators did: in one transaction with the deed, with who, why and the checkpoint around it."""

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime

import pytest
from sqlalchemy import delete

from kvr_sync.errors import ConfigurationError
from kvr_sync.store.ledger_sink import LedgerSink
from kvr_sync.store.opening import open_store
from kvr_sync.store.operation_log import (
    MAX_REASON_CHARACTERS,
    Operation,
    append_operation,
    asked_operation,
    read_operations,
)
from tests.support.row_batch import RowChain, checkpoint_after

NOW = datetime(2026, 5, 6, 7, 8, 9, 123456, tzinfo=UTC)
REWIND = Operation("rewind", "alice", "wrong channel", {"to_block": 0})


class BreakError(Exception):
    """Ends a transaction."""


@pytest.fixture
def sink(database_url: str) -> Iterator[LedgerSink]:
    with closing(open_store(database_url, "service-channel")) as opened:
        yield opened


def test_an_entry_says_who_why_what_and_between_which_checkpoints(sink: LedgerSink) -> None:
    chain = RowChain()
    batch = chain.block()
    sink.commit(None, [batch], checkpoint_after(batch), anchor="unpinned")

    with sink.database.engine.begin() as connection:
        connection.execute(delete(sink.tables.checkpoint))
        append_operation(connection, sink.tables, REWIND, checkpoint_after(batch), clock=lambda: NOW)
        append_operation(connection, sink.tables, Operation("apply", "bob"), None, clock=lambda: NOW)

    with sink.database.engine.connect() as connection:
        newest, first = read_operations(connection, sink.tables)
    assert (first.operation_id, first.logged_at, first.operation, first.reason) == (1, NOW, "rewind", "wrong channel")
    assert first.operator.startswith("alice")
    assert first.detail == {"to_block": 0}
    assert (first.before_block, first.after_block) == (0, None)
    assert (newest.operation, newest.reason, newest.detail, newest.before_block) == ("apply", None, {}, None)


def test_a_deed_that_is_undone_leaves_no_entry(sink: LedgerSink) -> None:
    def break_off() -> None:
        with sink.database.engine.begin() as connection:
            append_operation(connection, sink.tables, REWIND, None)
            raise BreakError

    with pytest.raises(BreakError):
        break_off()

    with sink.database.engine.connect() as connection:
        assert read_operations(connection, sink.tables) == []


@pytest.mark.parametrize("reason", [None, "", "  "])
def test_production_asks_why(reason: str | None) -> None:
    with pytest.raises(ConfigurationError, match="in production say why"):
        asked_operation("rewind", reason, is_production=True)

    assert asked_operation("rewind", reason, is_production=False).reason is None


@pytest.mark.parametrize("reason", ["x" * (MAX_REASON_CHARACTERS + 1), "a\0b"])
def test_reasons_that_do_not_fit_are_refused(reason: str) -> None:
    with pytest.raises(ConfigurationError, match="--why: at most"):
        asked_operation("rewind", reason, is_production=True)


def test_the_user_of_the_operating_system_is_who_asked() -> None:
    assert asked_operation("rewind", " because ", is_production=True) == Operation(
        "rewind", asked_operation("x", None, is_production=False).operator, "because"
    )
    assert asked_operation("rewind", "w", is_production=True).operator
