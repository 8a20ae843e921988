"""What a worker prepares, and what the engine demands before it uses it."""

from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from kvr_sync.mapping.mapping_file import read_mapping_file
from kvr_sync.model import Checkpoint
from kvr_sync.preparation import PreparedRange, RangeContext, RangePreparation, accept_range
from kvr_sync.store.encoding import DatabaseKind
from kvr_sync.store.mapped_table import mapped_tables
from kvr_sync.store.postgresql_sink import copy_types
from kvr_sync.store.rows import BlockRow, PackedRows
from kvr_sync.store.schema import ledger_tables
from kvr_sync.worker import Request, decode_range, encode_range, read_request, write_request
from network.protocol.block import header_hash
from network.protocol.decode import decode_block
from tests.support.recorded_chain import change_block, load_chain

SERVICE_WEEK = Path(__file__).parents[2] / "network" / "demo_data" / "service-week.mapping.yaml"
CHAIN = load_chain("fabric-3.1.5-service-week")
BLOCKS = [decode_block(content) for content in CHAIN.blocks[:60]]
DEFINED = 4
"""The block that commits the definition of the chaincode: no range goes across it."""
BEFORE = Checkpoint(DEFINED, header_hash(BLOCKS[DEFINED].header), BLOCKS[DEFINED].commit_hash)
GENESIS = Checkpoint(0, header_hash(BLOCKS[0].header), None)


def accept(
    prepared: PreparedRange, position: Checkpoint, config_block: int, definitions: int = 3
) -> list[BlockRow] | None:
    return accept_range(prepared, position, config_block, definitions, [7] * len(prepared.blocks))


def preparation(chain: Any = CHAIN, kind: DatabaseKind = DatabaseKind.SQLITE) -> RangePreparation:
    config = decode_block(chain.blocks[0]).transactions[0].config
    assert config is not None
    mapping, tables = read_mapping_file(SERVICE_WEEK), ledger_tables("consortium")
    types = copy_types(tables, mapped_tables(mapping, tables)) if kind is DatabaseKind.POSTGRESQL else None
    return RangePreparation(RangeContext("consortium", 0, config, {}, 3, mapping, kind, types))


@pytest.fixture(scope="module")
def prepared() -> PreparedRange:
    return preparation().prepare(CHAIN.blocks[5:40])


def test_a_plain_range_is_prepared_whole_and_accepted(prepared: PreparedRange) -> None:
    rows = accept(prepared, BEFORE, 0)

    assert rows is not None
    assert [row.block_number for row in rows] == list(range(5, 40))
    assert [row.header_hash for row in rows] == [header_hash(block.header) for block in BLOCKS[5:40]]
    assert [row.commit_hash for row in rows] == [block.commit_hash for block in BLOCKS[5:40]]
    assert all(row.commit_hash_verified for row in rows)


@pytest.mark.parametrize(("kind", "form"), [(DatabaseKind.SQLITE, list), (DatabaseKind.POSTGRESQL, PackedRows)])
def test_a_range_crosses_between_processes_unchanged(kind: DatabaseKind, form: type) -> None:
    prepared = preparation(kind=kind).prepare(CHAIN.blocks[5:40])

    assert decode_range(encode_range(prepared)) == prepared
    assert isinstance(prepared.rows.ledger.key_history, form)
    assert any(isinstance(table.history, form) for table in prepared.rows.mapped)


def test_a_range_prepared_under_another_configuration_is_not_used(prepared: PreparedRange) -> None:
    assert accept(prepared, BEFORE, 1) is None


def test_a_range_that_does_not_follow_is_not_used(prepared: PreparedRange) -> None:
    assert accept(prepared, BEFORE._replace(block_number=1), 0) is None
    assert accept(prepared, BEFORE._replace(header_hash=bytes(32)), 0) is None


def test_a_range_whose_commit_hashes_are_not_the_recorded_ones_is_not_used(prepared: PreparedRange) -> None:
    assert accept(prepared, BEFORE._replace(commit_hash=bytes(32)), 0) is None
    changed = [
        block._replace(encoded_updates=b"\x0a\x00") if block.number == 20 else block for block in prepared.blocks
    ]
    assert accept(prepared._replace(blocks=tuple(changed)), BEFORE, 0) is None


def test_a_gap_inside_a_range_is_not_used(prepared: PreparedRange) -> None:
    assert accept(prepared._replace(blocks=prepared.blocks[:5] + prepared.blocks[6:]), BEFORE, 0) is None


def test_nothing_prepared_is_nothing_to_use(prepared: PreparedRange) -> None:
    assert accept(prepared._replace(blocks=()), BEFORE, 0) is None


def test_a_range_without_recorded_commit_hashes_is_marked_so() -> None:
    def clear(block: Any) -> None:
        block.metadata.metadata[4] = b""

    rows = accept(preparation().prepare([change_block(b, clear) for b in CHAIN.blocks[1:4]]), GENESIS, 0)

    assert rows is not None
    assert [row.commit_hash_verified for row in rows] == [False, False, False]
    assert [row.commit_hash for row in rows] == [block.commit_hash for block in BLOCKS[1:4]]


def test_a_range_ends_before_a_block_that_is_wrong() -> None:
    def spoil(block: Any) -> None:
        block.data.data[0] += b"\x00"

    contents = [*CHAIN.blocks[5:10], change_block(CHAIN.blocks[10], spoil), *CHAIN.blocks[11:20]]

    assert [block.number for block in preparation().prepare(contents).blocks] == list(range(5, 10))


def test_a_range_ends_before_a_new_chaincode_definition() -> None:
    assert [block.number for block in preparation().prepare(CHAIN.blocks[1:20]).blocks] == list(range(1, DEFINED))


@pytest.mark.parametrize("content", [b"", b"\xff", CHAIN.blocks[5]])
def test_a_range_ends_before_bytes_that_are_not_the_next_block(content: bytes) -> None:
    found = preparation().prepare([CHAIN.blocks[1], content, CHAIN.blocks[2]])

    assert [block.number for block in found.blocks] == [1]


def test_a_range_ends_before_a_new_configuration() -> None:
    chain = load_chain("fabric-3.1.5-raft")
    config_blocks = [
        number
        for number, content in enumerate(chain.blocks)
        if number and decode_block(content).transactions[0].config is not None
    ]

    found = preparation(chain).prepare(chain.blocks[config_blocks[0] - 1 : config_blocks[0] + 2])

    assert [block.number for block in found.blocks] == [config_blocks[0] - 1]


def test_a_range_prepared_under_other_definitions_is_not_used(prepared: PreparedRange) -> None:
    assert accept(prepared, BEFORE, 0, definitions=4) is None


def test_each_block_keeps_the_time_it_was_first_seen(prepared: PreparedRange) -> None:
    times = list(range(100, 100 + len(prepared.blocks)))

    rows = accept_range(prepared, BEFORE, 0, 3, times)

    assert rows is not None
    assert [row.first_seen for row in rows] == times


def test_a_request_comes_whole_or_not_at_all() -> None:
    request = Request(None, [b"first", b"", b"third" * 100])
    stream = BytesIO()
    write_request(stream, request)
    whole = stream.getvalue()

    assert read_request(BytesIO(whole)) == request
    assert [read_request(BytesIO(whole[:length])) for length in range(len(whole))] == [None] * len(whole)
