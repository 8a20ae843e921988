"""On PostgreSQL readers need not poll: a NOTIFY with each COMMIT, and a function that waits for a block."""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import psycopg
import pytest
from psycopg import errors as postgresql_errors
from sqlalchemy import make_url

from kvr_sync.store.channel_name import schema_name
from kvr_sync.store.ledger_sink import LedgerSink
from kvr_sync.store.opening import open_store
from kvr_sync.store.postgresql_sink import NOTIFY_CHANNEL
from kvr_sync.store.sink import BEFORE_COMMIT
from tests.support.evidence import wait_until
from tests.support.row_batch import RowChain, checkpoint_after

CHANNEL = "service-channel"
SCHEMA = schema_name(CHANNEL)


class BreakError(Exception):
    """What a hook raises to end a transaction."""


@pytest.fixture
def chain() -> RowChain:
    return RowChain()


@pytest.fixture
def sink(postgresql_url: str) -> Iterator[LedgerSink]:
    with closing(open_store(postgresql_url, CHANNEL)) as opened:
        yield opened


def apply(sink: LedgerSink, chain: RowChain) -> None:
    before = chain.position
    batch = chain.block()
    sink.commit(before, [batch], checkpoint_after(batch), anchor="unpinned")


def session(url: str, **options: Any) -> "psycopg.Connection[Any]":
    address = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    return psycopg.connect(address, **options)


def listening(url: str) -> "psycopg.Connection[Any]":
    listener = session(url, autocommit=True)
    listener.execute(f"LISTEN {NOTIFY_CHANNEL}")
    return listener


def heard(listener: "psycopg.Connection[Any]", seconds: float, *, count: int = 100) -> list[Any]:
    return [json.loads(notice.payload) for notice in listener.notifies(timeout=seconds, stop_after=count)]


def test_each_commit_is_announced_to_who_listens(sink: LedgerSink, chain: RowChain, postgresql_url: str) -> None:
    with listening(postgresql_url) as listener:
        apply(sink, chain)
        apply(sink, chain)

        found = heard(listener, 10, count=2)

    assert found == [{"channel": CHANNEL, "block": 0}, {"channel": CHANNEL, "block": 1}]


def test_a_transaction_that_does_not_commit_is_not_announced(postgresql_url: str, chain: RowChain) -> None:
    def break_off(point: str) -> None:
        if point == BEFORE_COMMIT:
            raise BreakError

    with listening(postgresql_url) as listener:
        with closing(open_store(postgresql_url, CHANNEL, hook=break_off)) as sink, pytest.raises(BreakError):
            apply(sink, chain)
        with closing(open_store(postgresql_url, CHANNEL)) as sink:
            apply(sink, RowChain())

        found = heard(listener, 10, count=1)

    assert found == [{"channel": CHANNEL, "block": 0}]  # once, of the transaction that did


def test_it_is_announced_when_it_can_be_seen_and_no_earlier(postgresql_url: str, chain: RowChain) -> None:
    with listening(postgresql_url) as listener:
        before: list[Any] = []

        def listen(point: str) -> None:
            if point == BEFORE_COMMIT:
                before.extend(heard(listener, 0.2))

        with closing(open_store(postgresql_url, CHANNEL, hook=listen)) as sink:
            apply(sink, chain)
        (found,) = heard(listener, 10, count=1)
        seen = listener.execute(f"SELECT block_number FROM {SCHEMA}.ledger_checkpoint").fetchall()  # noqa: S608

    assert before == []
    assert seen == [(found["block"],)]


WAIT = f"SELECT {SCHEMA}.kvr_wait_for_block(%s, %s::interval)"


def wait_for(connection: "psycopg.Connection[Any]", block: int | None, timeout: str | None) -> Any:
    row = connection.execute(WAIT, (block, timeout)).fetchone()
    assert row is not None
    return row[0]


def test_waiting_ends_when_the_block_is_there(sink: LedgerSink, chain: RowChain, postgresql_url: str) -> None:
    apply(sink, chain)
    with session(postgresql_url) as reader:
        assert wait_for(reader, 0, "0s") is True


@pytest.mark.parametrize("in_transaction", [False, True], ids=["autocommit", "inside a transaction"])
def test_a_block_committed_while_waiting_is_seen(
    in_transaction: bool, sink: LedgerSink, chain: RowChain, postgresql_url: str
) -> None:
    apply(sink, chain)
    with session(postgresql_url, autocommit=not in_transaction) as reader, ThreadPoolExecutor(1) as pool:
        reader.execute(f"SELECT count(*) FROM {SCHEMA}.ledger_block")  # noqa: S608  a transaction begins before the block
        waiting = pool.submit(wait_for, reader, 1, "20s")
        wait_until(lambda: waits(postgresql_url), "the function is waiting")
        assert not waiting.done()

        apply(sink, chain)

        assert waiting.result(20) is True
        seen = reader.execute(f"SELECT max(block_number) FROM {SCHEMA}.ledger_block").fetchone()  # noqa: S608
    assert seen == (1,)


def waits(url: str) -> bool:
    with session(url) as other:
        found = other.execute("SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'").fetchall()
    return bool(found)


def test_waiting_in_vain_ends_in_time(sink: LedgerSink, postgresql_url: str) -> None:
    assert sink.checkpoint() is None
    with session(postgresql_url) as reader:
        started = time.monotonic()

        assert wait_for(reader, 0, "0.3s") is False

        assert 0.3 <= time.monotonic() - started < 5


@pytest.mark.parametrize("level", [psycopg.IsolationLevel.REPEATABLE_READ, psycopg.IsolationLevel.SERIALIZABLE])
def test_waiting_where_nothing_new_can_be_seen_is_refused(
    level: psycopg.IsolationLevel, sink: LedgerSink, postgresql_url: str
) -> None:
    assert sink.checkpoint() is None
    with session(postgresql_url) as reader:
        reader.isolation_level = level

        with pytest.raises(postgresql_errors.InvalidTransactionState, match="cannot see new blocks under"):
            wait_for(reader, 0, "10s")


def test_waiting_for_ever_is_refused(sink: LedgerSink, postgresql_url: str) -> None:
    assert sink.checkpoint() is None
    with session(postgresql_url) as reader, pytest.raises(postgresql_errors.InvalidParameterValue):
        wait_for(reader, 0, "2 hours")


def test_no_block_and_no_time_give_no_answer(sink: LedgerSink, postgresql_url: str) -> None:
    assert sink.checkpoint() is None
    with session(postgresql_url) as reader:
        assert wait_for(reader, None, "1s") is None
        assert wait_for(reader, 0, None) is None
