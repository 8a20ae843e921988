"""What every sink promises, on both databases."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from hashlib import sha256
from typing import Any

import pytest
from sqlalchemy import Table, select

from kvr_sync.errors import CheckpointConflictError, ConfigurationError, SinkError
from kvr_sync.mapping.definition import Mapping
from kvr_sync.model import ConfigFacts, Effect, EventFacts, RowBatch, StateValue, Write, WriteKind
from kvr_sync.store.database import open_database
from kvr_sync.store.ledger_sink import LedgerSink
from kvr_sync.store.opening import open_store
from kvr_sync.store.sink import AFTER_COMMIT, AFTER_ROWS, CRASH_POINTS, RunResult
from network.protocol.read_write_set import Version
from network.protocol.transaction import ChaincodeId
from tests.support.row_batch import (
    REQUEST_VALUES,
    RowChain,
    checkpoint_after,
    delete,
    facts,
    key,
    mapped,
    metadata,
    put,
    quarantined,
    request_mapping,
)

CHANNEL = "service-channel"
NOW = datetime(2024, 5, 6, 7, 8, 9, 123456, tzinfo=UTC)
R1, R2 = key("r1"), key("r2")


class InjectedError(Exception):
    """Raised by a hook."""


@pytest.fixture
def sink(database_url: str) -> Iterator[LedgerSink]:
    with closing(open_store(database_url, CHANNEL, mapping=request_mapping(), clock=lambda: NOW)) as opened:
        yield opened


def apply(sink: LedgerSink, *batches: RowBatch) -> None:
    sink.commit(sink.checkpoint(), batches, checkpoint_after(batches[-1]), anchor="unpinned")


def rows(sink: LedgerSink, table: Table) -> list[dict[str, Any]]:
    with sink.database.engine.connect() as connection:
        found = connection.execute(select(table).order_by(*table.primary_key)).mappings().all()
    return [
        {name: bytes(value) if isinstance(value, memoryview) else value for name, value in row.items()} for row in found
    ]


def everything(sink: LedgerSink) -> dict[str, list[dict[str, Any]]]:
    return {table.name: rows(sink, table) for table in sink.tables.metadata.sorted_tables}


def table_named(sink: LedgerSink, name: str) -> Table:
    return next(table for table in sink.tables.metadata.sorted_tables if table.name == name)


def current(sink: LedgerSink) -> list[dict[str, Any]]:
    return rows(sink, table_named(sink, "request"))


def history(sink: LedgerSink) -> list[tuple[str, str | None]]:
    return [(row["kvr_kind"], row["title"]) for row in rows(sink, table_named(sink, "request_history"))]


def values(title: str) -> tuple[object, ...]:
    return (title, *REQUEST_VALUES[1:])


def test_new_store_has_no_checkpoint(sink: LedgerSink) -> None:
    assert sink.checkpoint() is None
    assert sink.read_config() is None
    with pytest.raises(CheckpointConflictError):
        sink.anchor()


def test_checkpoint_is_that_of_the_last_block_and_survives_reopening(sink: LedgerSink, database_url: str) -> None:
    chain = RowChain()
    apply(sink, chain.block(), chain.block())
    apply(sink, chain.block())

    with closing(open_store(database_url, CHANNEL)) as reopened:
        assert reopened.checkpoint() == chain.position
        assert reopened.mapping.digest == request_mapping().digest
        assert [row["block_number"] for row in rows(reopened, reopened.tables.block)] == [0, 1, 2]


def test_block_row_has_the_hashes_of_its_header(sink: LedgerSink) -> None:
    chain = RowChain()
    genesis, block = chain.block(), chain.block(transactions=[facts(0), facts(1, code=11)])
    apply(sink, genesis, block)

    changes = block.block.changes
    assert rows(sink, sink.tables.block)[1] == {
        "block_number": 1,
        "header_hash": changes.header_hash,
        "previous_hash": genesis.block.changes.header_hash,
        "data_hash": changes.header.data_hash,
        "commit_hash": block.block.commit_hash,
        "commit_hash_verified": True,
        "transaction_count": 2,
        "first_seen_at": None,
    }


def test_transaction_row_has_all_facts_whatever_the_verdict(sink: LedgerSink) -> None:
    apply(
        sink, RowChain().block(transactions=[facts(0, code=10, tx_id="ab" * 32, defect="ChaincodeAction: no results")])
    )

    (row,) = rows(sink, sink.tables.transaction)
    (identity,) = rows(sink, sink.tables.identity)
    (chaincode,) = rows(sink, sink.tables.chaincode)
    claimed = row.pop("claimed_at")
    assert claimed in (datetime(2023, 11, 14, 22, 13, 20, 123456, tzinfo=UTC), "2023-11-14T22:13:20.123456Z")
    assert row == {
        "block_number": 0,
        "tx_number": 0,
        "tx_id": "ab" * 32,
        "header_type": 3,
        "validation_code": 10,
        "creator_id": identity["identity_id"],
        "chaincode_id": chaincode["chaincode_id"],
        "function": "Requests:open",
        "claimed_seconds": 1_700_000_000,
        "claimed_nanos": 123_456_789,
        "defect": "ChaincodeAction: no results",
        "endorser_set_id": None,
    }
    assert (identity["msp_id"], identity["content"]) == ("ServiceMSP", b"identity of agent 7")
    assert (chaincode["name"], chaincode["version"]) == ("service", "1.0")


def test_identities_and_chaincodes_are_stored_once(sink: LedgerSink) -> None:
    chain = RowChain()
    apply(sink, chain.block(transactions=[facts(0), facts(1), facts(2, creator=b"other", msp_id="FieldMSP")]))
    apply(sink, chain.block(transactions=[facts(0), facts(1, chaincode=ChaincodeId("service", "2.0"))]))

    assert [row["content"] for row in rows(sink, sink.tables.identity)] == [b"identity of agent 7", b"other"]
    assert [row["version"] for row in rows(sink, sink.tables.chaincode)] == ["1.0", "2.0"]
    assert len({row["chaincode_id"] for row in rows(sink, sink.tables.transaction)}) == 2


def test_transaction_without_creator_chaincode_and_time(sink: LedgerSink) -> None:
    bare = facts(0, creator=b"", msp_id="", chaincode=None, function=None, seconds=None, nanos=None, header_type=None)
    apply(sink, RowChain().block(transactions=[bare]))

    (row,) = rows(sink, sink.tables.transaction)
    empty = ("creator_id", "chaincode_id", "function", "claimed_seconds", "claimed_nanos", "claimed_at", "header_type")
    assert {row[name] for name in empty} == {None}


@pytest.mark.parametrize("seconds", [2**63 - 1, -(2**63), 253_402_300_800])
def test_claimed_time_outside_of_dates_is_kept_as_seconds(sink: LedgerSink, seconds: int) -> None:
    apply(sink, RowChain().block(transactions=[facts(0, seconds=seconds, nanos=-(2**31))]))

    (row,) = rows(sink, sink.tables.transaction)
    assert (row["claimed_seconds"], row["claimed_nanos"], row["claimed_at"]) == (seconds, -(2**31), None)


def test_hostile_text_is_stored_as_its_digest(sink: LedgerSink) -> None:
    hostile = facts(
        0,
        code=8,
        tx_id="nul\0id",
        msp_id="M" * 5000,
        chaincode=ChaincodeId("c" * 3000, "v\0"),
        function=b"f" * 257,
        creator=b"x",
    )
    event = EventFacts(1, "service\0", "e" * 300, b"payload")
    write = put(key("k", namespace="n\0s"), b"v", tx_number=1)
    apply(
        sink, RowChain().block(transactions=[hostile, facts(1, function=b"\xff\xfe")], writes=[write], events=[event])
    )

    def digest(content: bytes) -> str:
        return f"sha256:{sha256(content).hexdigest()}"

    first, second = rows(sink, sink.tables.transaction)
    assert (first["tx_id"], first["function"], second["function"]) == (digest(b"nul\0id"), digest(b"f" * 257), None)
    assert rows(sink, sink.tables.identity)[0]["msp_id"] == digest(b"M" * 5000)
    assert rows(sink, sink.tables.chaincode)[0]["name"] == digest(b"c" * 3000)
    assert rows(sink, sink.tables.chaincode)[0]["version"] == digest(b"v\0")
    assert rows(sink, sink.tables.event)[0]["name"] == digest(b"e" * 300)
    assert rows(sink, sink.tables.key)[0]["namespace"] == digest(b"n\0s")


@pytest.mark.parametrize("text", ["'; DROP TABLE ledger_block; --", "%s %(a)s {0}", "\\.\n\\N\t", "\u202e\U0001f50c"])
def test_text_with_marks_of_sql_stays_data(sink: LedgerSink, text: str) -> None:
    write = put(key(text, namespace=text), text.encode())
    apply(
        sink, RowChain().block(transactions=[facts(0, tx_id=text)], writes=[write], rows=[mapped(write, values(text))])
    )

    assert rows(sink, sink.tables.transaction)[0]["tx_id"] == text
    assert rows(sink, sink.tables.key)[0]["key"] == text.encode()
    assert current(sink)[0]["title"] == text


def test_keys_are_raw_bytes_and_never_merge(sink: LedgerSink) -> None:
    keys = [
        key(b"\0request\0001\0"),
        key(b"a"),
        key(b"a\0"),
        key(b"a\0\0"),
        key(b""),
        key(b"\0"),
        key(b"\xff\xfe"),
        key(b"k" * 10_000),
        key(b"k" * 10_000 + b"\0"),
        key(b"a", namespace="ser"),
        key(b"viceA", namespace="ser"),
        key(b"a" * 32, collection="billing"),
        key(b"a" * 32, namespace="serviceb", collection="illing"),
    ]
    chain = RowChain()
    apply(sink, chain.block(writes=[put(one, b"v%d" % number, 0, number) for number, one in enumerate(keys)]))
    apply(sink, chain.block(writes=[put(one, b"w%d" % number, 0, number) for number, one in enumerate(keys)]))

    stored = [(row["namespace"], row["collection"], row["key"]) for row in rows(sink, sink.tables.key)]
    assert stored == [tuple(one) for one in keys]
    assert sink.read_values(keys) == {
        one: StateValue(b"w%d" % number, Version(1, 0)) for number, one in enumerate(keys)
    }


def test_key_numbers_go_on_after_reopening(database_url: str) -> None:
    chain = RowChain()
    for name in ("a", "b", "a"):
        with closing(open_store(database_url, CHANNEL)) as sink:
            apply(sink, chain.block(writes=[put(key(name), b"v"), put(key("c"), b"v", 0, 1)]))

    with closing(open_store(database_url, CHANNEL)) as sink:
        assert [(row["key_id"], row["key"]) for row in rows(sink, sink.tables.key)] == [(1, b"a"), (2, b"c"), (3, b"b")]


def test_history_keeps_every_write_as_written(sink: LedgerSink) -> None:
    chain = RowChain()
    secret = key(b"h" * 32, collection="billing")
    apply(
        sink,
        chain.block(writes=[put(R1, b"one"), put(secret, b"hash", 0, 1)]),
        chain.block(writes=[metadata(R1, b"one"), put(R1, b"two", 1), delete(R1, 2)]),
    )

    found = [
        (row["block_number"], row["tx_number"], WriteKind(row["kind"]), Effect(row["effect"]), row["value"])
        for row in rows(sink, sink.tables.key_history)
    ]
    assert found == [
        (0, 0, WriteKind.PUT, Effect.PUT, b"one"),
        (1, 0, WriteKind.METADATA, Effect.VERSION, None),
        (1, 1, WriteKind.PUT, Effect.PUT, b"two"),
        (1, 2, WriteKind.DELETE, Effect.DELETE, None),
    ]
    assert [row["value_hash"] for row in rows(sink, sink.tables.private_hash)] == [b"hash"]


def test_values_read_are_those_of_the_state_now(sink: LedgerSink) -> None:
    chain = RowChain()
    gone, kept, secret, never = key("gone"), key("kept"), key(b"h" * 32, collection="billing"), key("never")
    without_effect = put(kept, b"overridden", 2, 5)._replace(effect=Effect.NONE, value=None)
    apply(sink, chain.block(writes=[put(gone, b"a"), put(kept, b"b", 0, 1), put(secret, b"hash", 0, 2)]))
    apply(
        sink,
        chain.block(writes=[delete(gone), metadata(kept, b"b", 1), metadata(secret, b"hash", 1, 1), without_effect]),
    )

    assert sink.read_values([gone, kept, secret, never]) == {
        kept: StateValue(b"b", Version(1, 1)),
        secret: StateValue(b"hash", Version(1, 1)),
    }


def test_refused_writes_are_kept_apart(sink: LedgerSink) -> None:
    refused = [Write(0, 0, R1, WriteKind.PUT, b"never"), Write(0, 1, R2, WriteKind.DELETE, b"")]
    apply(sink, RowChain().block(transactions=[facts(0, code=11)], refused=refused))

    assert [(row["kind"], row["value"]) for row in rows(sink, sink.tables.refused_write)] == [(1, b"never"), (2, None)]
    assert rows(sink, sink.tables.key_history) == []
    assert sink.read_values([R1]) == {}


def test_events_and_configurations_are_kept(sink: LedgerSink) -> None:
    chain = RowChain()
    apply(sink, chain.block(config=ConfigFacts(0, b"first")))
    apply(
        sink,
        chain.block(events=[EventFacts(0, "service", "opened", b"\0\xff")]),
        chain.block(config=ConfigFacts(1, b"second")),
    )

    assert rows(sink, sink.tables.event) == [
        {"block_number": 1, "tx_number": 0, "chaincode": "service", "name": "opened", "payload": b"\0\xff"}
    ]
    assert sink.read_config() == (2, ConfigFacts(1, b"second"))


def test_mapped_row_has_values_and_facts(sink: LedgerSink) -> None:
    write = put(R1, b"{}", 1, 4)
    apply(
        sink, RowChain().block(transactions=[facts(0), facts(1)], writes=[write], rows=[mapped(write, REQUEST_VALUES)])
    )

    (row,) = current(sink)
    assert Decimal(row.pop("a_decimal")) == REQUEST_VALUES[2]
    assert row.pop("a_date") in (REQUEST_VALUES[4], "2024-02-29")
    assert row.pop("a_timestamp") in (REQUEST_VALUES[5], "2024-02-29T23:59:59.999999Z")
    assert str(row.pop("a_uuid")) == "0b6e6a8e-0a4b-4c1d-9f5e-0123456789ab"
    # PostgreSQL's jsonb gives parsed JSON and keeps the digits of numbers; SQLite keeps the text.
    assert row.pop("a_json") in (REQUEST_VALUES[8], {"tags": ["a"], "amount": 0.1})
    assert row == {
        "kvr_key_id": 1,
        "kvr_change_id": 1,
        "external_id": "r1",
        "title": "Meter broken",
        "a_enum": "open",
        "a_integer": 2**63 - 1,
        "a_boolean": True,
        "a_bytes": b"\x00\xff",
        "kvr_block_number": 0,
        "kvr_tx_number": 1,
        "kvr_write_number": 4,
        "kvr_tx_id": "tx-1",
        "kvr_creator_msp_id": "ServiceMSP",
    }


def test_last_write_of_a_run_decides_and_history_has_all(sink: LedgerSink) -> None:
    chain = RowChain()
    first, gone, again = put(R1, b"1"), delete(R1), put(R1, b"2")
    apply(
        sink,
        chain.block(writes=[first], rows=[mapped(first, values("one"))]),
        chain.block(writes=[gone], rows=[mapped(gone, None)]),
        chain.block(writes=[again], rows=[mapped(again, values("two"))]),
    )

    assert [(row["title"], row["kvr_block_number"]) for row in current(sink)] == [("two", 2)]
    assert history(sink) == [("put", "one"), ("delete", None), ("put", "two")]


def test_update_and_delete_of_rows_from_earlier_runs(sink: LedgerSink) -> None:
    chain = RowChain()
    one, two = put(R1, b"1"), put(R2, b"1", 0, 1)
    apply(sink, chain.block(writes=[one, two], rows=[mapped(one, values("one")), mapped(two, values("two"))]))
    changed, gone = put(R1, b"2"), delete(R2, 0, 1)
    apply(sink, chain.block(writes=[changed, gone], rows=[mapped(changed, values("changed")), mapped(gone, None)]))

    assert [(row["title"], row["kvr_block_number"]) for row in current(sink)] == [("changed", 1)]
    assert history(sink) == [("put", "one"), ("put", "changed"), ("put", "two"), ("delete", None)]


def test_delete_of_a_row_that_never_was(sink: LedgerSink) -> None:
    gone = delete(R1)
    apply(sink, RowChain().block(writes=[gone], rows=[mapped(gone, None)]))

    assert current(sink) == []
    assert history(sink) == [("delete", None)]


def test_metadata_write_moves_the_version_of_the_current_row(sink: LedgerSink) -> None:
    chain = RowChain()
    write, policy = put(R1, b"1"), metadata(R1, b"1")
    apply(sink, chain.block(writes=[write], rows=[mapped(write, values("one"))]))
    apply(sink, chain.block(writes=[policy], rows=[mapped(policy, values("one"))]))

    assert [(row["title"], row["kvr_block_number"]) for row in current(sink)] == [("one", 1)]
    assert history(sink) == [("put", "one"), ("metadata", "one")]


def test_quarantined_value_is_kept_with_its_reason(sink: LedgerSink) -> None:
    write = put(R1, b"\xffno json")
    apply(sink, RowChain().block(writes=[write], quarantine=[quarantined(write)]))

    assert rows(sink, sink.tables.quarantine) == [
        {
            "table_name": "request",
            "key_id": 1,
            "block_number": 0,
            "tx_number": 0,
            "write_number": 0,
            "reason": "not_json",
            "detail": "the value is no JSON document",
            "value": b"\xffno json",
            "closed_block": None,
            "closed_by": None,
        }
    ]
    assert sink.status().quarantined == 1


@pytest.mark.parametrize("point", CRASH_POINTS)
@pytest.mark.parametrize("first", [True, False])
def test_commit_that_breaks_off_leaves_whole_blocks(database_url: str, point: str, first: bool) -> None:
    armed = False

    def hook(name: str) -> None:
        if armed and name == point:
            raise InjectedError

    with closing(open_store(database_url, CHANNEL, mapping=request_mapping(), hook=hook)) as sink:
        chain = RowChain()
        if not first:
            apply(sink, chain.block(writes=[put(key("old"), b"v")]))
        expected, before = sink.checkpoint(), everything(sink)
        writes = [put(R1, b"1"), put(R2, b"1", 0, 1)]
        block = chain.block(writes=writes, rows=[mapped(write, values("t")) for write in writes])
        armed = True
        with pytest.raises(InjectedError):
            sink.commit(expected, [block], checkpoint_after(block), anchor="unpinned")
        armed = False

        if point == AFTER_COMMIT:
            assert sink.checkpoint() == checkpoint_after(block)
        else:
            assert everything(sink) == before
            sink.commit(expected, [block], checkpoint_after(block), anchor="unpinned")
        assert len(current(sink)) == 2
        assert len(rows(sink, sink.tables.key)) == (2 if first else 3)


def test_value_that_does_not_fit_its_column_applies_nothing_and_is_not_shown(sink: LedgerSink) -> None:
    chain = RowChain()
    write = put(R1, b"1")
    good = chain.block(writes=[write], rows=[mapped(write, REQUEST_VALUES)])
    bad = good._replace(mapped=(mapped(write, ("title", 2**70, *REQUEST_VALUES[2:])),))

    with pytest.raises(SinkError) as caught:
        apply(sink, bad)

    assert str(2**70) not in str(caught.value)
    assert sink.checkpoint() is None
    apply(sink, good)
    assert len(current(sink)) == 1


def test_second_writer_is_refused_before_it_writes(sink: LedgerSink, database_url: str) -> None:
    chain = RowChain()
    genesis, block = chain.block(writes=[put(R1, b"1")]), chain.block(writes=[put(R2, b"1")])
    reached = []
    with closing(open_store(database_url, CHANNEL, hook=reached.append)) as second:
        apply(sink, genesis)
        before = everything(sink)

        with pytest.raises(CheckpointConflictError):
            second.commit(None, [genesis], checkpoint_after(genesis), anchor="unpinned")

        assert reached == [CRASH_POINTS[0]]
        assert everything(sink) == before
        second.commit(checkpoint_after(genesis), [block], checkpoint_after(block), anchor="unpinned")
        with pytest.raises(CheckpointConflictError):
            sink.commit(checkpoint_after(genesis), [block], checkpoint_after(block), anchor="unpinned")


def test_writer_that_takes_over_numbers_keys_after_the_others(sink: LedgerSink, database_url: str) -> None:
    chain = RowChain()
    apply(sink, chain.block(writes=[put(key("a"), b"1")]))
    with closing(open_store(database_url, CHANNEL)) as second:
        apply(second, chain.block(writes=[put(key("b"), b"1")]))
    apply(sink, chain.block(writes=[put(key("c"), b"1"), put(key("b"), b"2", 0, 1)]))

    assert [(row["key_id"], row["key"]) for row in rows(sink, sink.tables.key)] == [(1, b"a"), (2, b"b"), (3, b"c")]


def test_same_header_number_with_another_hash_is_a_conflict(sink: LedgerSink) -> None:
    chain, other = RowChain(), RowChain()
    apply(sink, chain.block(writes=[put(R1, b"1")]))
    fork = other.block(writes=[put(R1, b"2")])
    block = other.block()

    with pytest.raises(CheckpointConflictError):
        sink.commit(checkpoint_after(fork), [block], checkpoint_after(block), anchor="unpinned")


def test_run_with_a_gap_is_refused(sink: LedgerSink) -> None:
    chain = RowChain()
    first, _, third = chain.block(), chain.block(), chain.block()

    with pytest.raises(CheckpointConflictError):
        sink.commit(None, [first, third], checkpoint_after(third), anchor="unpinned")
    with pytest.raises(CheckpointConflictError):
        sink.commit(None, [third], checkpoint_after(third), anchor="unpinned")
    with pytest.raises(CheckpointConflictError):
        sink.commit(None, [first], checkpoint_after(third), anchor="unpinned")


def test_settle_tells_applied_from_not_applied(sink: LedgerSink) -> None:
    chain = RowChain()
    genesis, block = chain.block(), chain.block()
    position, new = checkpoint_after(genesis), checkpoint_after(block)

    assert not sink.settle(None, position)
    apply(sink, genesis)
    assert sink.settle(None, position)
    assert not sink.settle(position, new)
    apply(sink, block)
    with pytest.raises(CheckpointConflictError):
        sink.settle(None, position)


def test_anchor_once_pinned_stays_pinned(sink: LedgerSink) -> None:
    chain = RowChain()
    blocks = [chain.block() for _ in range(3)]
    position = None
    names = []
    for block, anchor in zip(blocks, ("unpinned", "pinned", "unpinned"), strict=True):
        sink.commit(position, [block], checkpoint_after(block), anchor=anchor)
        position = checkpoint_after(block)
        names.append(sink.anchor().name)

    assert names == ["unpinned", "pinned", "pinned"]
    assert sink.anchor().genesis_hash == blocks[0].block.changes.header_hash


def test_status_counts_what_is_there(sink: LedgerSink) -> None:
    run_id = sink.begin_run()
    killed = sink.begin_run()
    apply(sink, RowChain().block(transactions=[facts(0), facts(1, code=11), facts(2, code=11)]))
    sink.end_run(run_id, RunResult("ok", 0, 0, 1, 3, None, None))

    status = sink.status()

    assert status.codes == {0: 1, 11: 2}
    assert status.updated_at == NOW
    assert [(run.run_id, run.result.outcome, run.ended_at) for run in status.runs] == [
        (killed, "running", None),
        (run_id, "ok", NOW),
    ]


def test_another_mapping_is_refused_and_the_recorded_one_is_used(database_url: str) -> None:
    (table,) = request_mapping().tables
    other = Mapping("requests", (replace(table, name="ticket"),))
    open_store(database_url, CHANNEL, mapping=request_mapping()).close()

    with pytest.raises(ConfigurationError, match="another mapping"):
        open_store(database_url, CHANNEL, mapping=other)
    with closing(open_store(database_url, CHANNEL)) as sink:
        assert sink.mapping == request_mapping()


def test_mapping_for_a_store_that_was_filled_without_one_is_refused(database_url: str) -> None:
    with closing(open_store(database_url, CHANNEL)) as sink:
        apply(sink, RowChain().block())

    with pytest.raises(ConfigurationError, match="up to block 0 without a mapping"):
        open_store(database_url, CHANNEL, mapping=request_mapping())


@pytest.mark.parametrize(
    "edit",
    [
        "UPDATE {checkpoint} SET block_number = 7",
        "DELETE FROM {checkpoint}",
        "UPDATE {block} SET header_hash = previous_hash WHERE block_number = 1",
        "DELETE FROM {block} WHERE block_number = 1",
    ],
)
def test_checkpoint_that_does_not_fit_the_rows_is_refused(database_url: str, edit: str) -> None:
    with closing(open_store(database_url, CHANNEL)) as sink:
        chain = RowChain()
        apply(sink, chain.block(), chain.block())
    with open_database(database_url, CHANNEL).engine.begin() as connection:
        quote = connection.dialect.identifier_preparer.format_table
        connection.exec_driver_sql(
            edit.format(checkpoint=quote(sink.tables.checkpoint), block=quote(sink.tables.block))
        )

    with pytest.raises(CheckpointConflictError):
        open_store(database_url, CHANNEL)


def test_store_is_not_created_where_that_was_not_asked(database_url: str) -> None:
    with pytest.raises(ConfigurationError, match="nothing has been synced here yet"):
        open_store(database_url, CHANNEL, create=False)
    open_store(database_url, CHANNEL).close()
    open_store(database_url, CHANNEL, create=False).close()


@pytest.mark.parametrize("channel", ["", "Upper", "1st", "a_b", "a" * 250, "a;b"])
def test_channel_ids_that_fabric_refuses_are_refused(database_url: str, channel: str) -> None:
    with pytest.raises(ConfigurationError, match="not a channel id"):
        open_store(database_url, channel)


def test_caches_are_forgotten_with_a_rolled_back_run(database_url: str) -> None:
    armed = False

    def hook(point: str) -> None:
        if armed and point == AFTER_ROWS:
            raise InjectedError

    with closing(open_store(database_url, CHANNEL, hook=hook)) as sink:
        chain = RowChain()
        apply(sink, chain.block(writes=[put(key("a"), b"1")]))
        position, lost = chain.position, chain.block(writes=[put(key("lost"), b"1")])
        armed = True
        with pytest.raises(InjectedError):
            apply(sink, lost)
        armed = False
        chain.position = position
        apply(sink, chain.block(writes=[put(key("b"), b"1")]))

        assert [(row["key_id"], row["key"]) for row in rows(sink, sink.tables.key)] == [(1, b"a"), (2, b"b")]
