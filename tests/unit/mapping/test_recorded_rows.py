"""The shipped mappings against the recorded chains: what becomes rows, what is quarantined and why."""

import json
from collections import Counter
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from kvr_sync.changes import extract_changes
from kvr_sync.decode import decode_block
from kvr_sync.mapping import quarantine
from kvr_sync.mapping.definition import Mapping
from kvr_sync.mapping.map import map_block
from kvr_sync.mapping.mapping_file import read_mapping_file
from kvr_sync.model import Effect, LedgerKey, RowBatch, StateValue
from kvr_sync.replay_state import StateReplay
from kvr_sync.verify import ChainVerifier
from network.protocol.composite_key import encode_composite_key, split_composite_key
from tests.support.recorded_chain import load_chain

ROOT = Path(__file__).parents[3]
WEEK = "fabric-3.1.5-service-week"


@pytest.fixture(scope="module")
def week() -> tuple[Mapping, list[RowBatch]]:
    mapping = read_mapping_file(ROOT / "network" / "demo_data" / "service-week.mapping.yaml")
    return mapping, map_chain(WEEK, mapping)


def map_chain(name: str, mapping: Mapping) -> list[RowBatch]:
    verifier = ChainVerifier()
    state: dict[LedgerKey, StateValue] = {}
    replay = StateReplay(lambda keys: {key: state[key] for key in keys if key in state}, None)
    blocks = [(decode_block(content), content) for content in load_chain(name).blocks]
    return [map_block(replay.replay(extract_changes(verifier.verify(*block))), mapping) for block in blocks]


def current_rows(mapping: Mapping, batches: list[RowBatch], table: str) -> dict[bytes, dict[str, Any]]:
    """The newest good values of every key of a table, by column name."""
    rows: dict[bytes, dict[str, Any]] = {}
    for batch in batches:
        for row in batch.mapped:
            if mapping.tables[row.table].name != table:
                continue
            if row.values is None:
                rows.pop(row.key.key, None)
            else:
                names = [column.name for column in mapping.tables[row.table].columns]
                rows[row.key.key] = dict(zip(names, row.values, strict=True))
    return rows


def plain(value: Any) -> Any:
    """What a column says, in the form that a document says it."""
    return float(value) if isinstance(value, Decimal) else value


def test_four_documents_of_the_week_fit_no_sensible_mapping(week: tuple[Mapping, list[RowBatch]]) -> None:
    found = [(entry.key.key, entry.reason, entry.detail) for batch in week[1] for entry in batch.quarantined]

    assert found == [
        (
            encode_composite_key("request", ["R-2026-9001"]),
            quarantine.WRONG_TYPE,
            "column priority: an integer expected, text found",
        ),
        (encode_composite_key("request", ["R-2026-9002"]), quarantine.NOT_JSON, "JSON expected"),
        (
            encode_composite_key("request", ["R-2026-9003"]),
            quarantine.KEY_CONTRADICTION,
            "column id: the same value in the document expected",
        ),
        (
            encode_composite_key("request", ["R-2026-9004"]),
            quarantine.OUT_OF_RANGE,
            "column amount_cents: a 64-bit integer expected",
        ),
    ]


@pytest.mark.parametrize(("table", "object_type"), [("customers", "customer"), ("service_requests", "request")])
def test_current_rows_say_what_the_peer_answers(
    week: tuple[Mapping, list[RowBatch]], table: str, object_type: str
) -> None:
    mapping, batches = week
    refused = {entry.key.key for batch in batches for entry in batch.quarantined}
    answers = {
        key: json.loads(value)
        for key, value in load_chain(WEEK).state.items()
        if isinstance(value, bytes) and (split_composite_key(key) or "")[:1] == (object_type,) and key not in refused
    }

    rows = current_rows(mapping, batches, table)

    assert rows.keys() == answers.keys()
    for key, document in answers.items():
        row = rows[key]
        location = document.pop("location", {})
        document |= {f"location_{name}": value for name, value in location.items()}
        for name, expected in document.items():
            value = row[name]
            if isinstance(value, datetime):
                assert value == datetime.fromisoformat(expected)
            elif isinstance(value, date):
                assert value == date.fromisoformat(expected)
            elif name in ("tags", "consents"):
                assert json.loads(value) == expected
            else:
                assert plain(value) == expected
        assert all(row[name] is None for name in row.keys() - document.keys() - {"written_at"})
        assert isinstance(row["written_at"], datetime)


def test_every_good_write_of_the_week_is_a_version_in_order(week: tuple[Mapping, list[RowBatch]]) -> None:
    mapping, batches = week

    counts = Counter((mapping.tables[row.table].name, row.effect) for batch in batches for row in batch.mapped)

    assert counts == {
        ("customers", Effect.PUT): 20,
        ("service_requests", Effect.PUT): 434,
        ("service_requests", Effect.DELETE): 2,
    }


@pytest.mark.parametrize("name", ["fabric-3.1.5-raft", "fabric-3.1.5-bft"])
def test_every_table_of_the_outcomes_is_fed(name: str) -> None:
    mapping = read_mapping_file(ROOT / "tests" / "support" / "outcomes.mapping.yaml")

    batches = map_chain(name, mapping)

    counts = Counter((mapping.tables[row.table].name, row.effect.name) for batch in batches for row in batch.mapped)
    refused = Counter((mapping.tables[q.table].name, q.reason) for batch in batches for q in batch.quarantined)
    assert counts == {
        ("requests", "PUT"): 2,
        ("event_sources", "PUT"): 1,
        ("bulk_items", "PUT"): 80,
        ("counters", "PUT"): 2,
        ("everything", "PUT"): 102,
        ("everything", "DELETE"): 3,
        ("everything", "VERSION"): 1,
        ("misfits", "DELETE"): 1,
    }
    assert refused == {("misfits", quarantine.WRONG_TYPE): 3}


def test_a_number_beyond_64_bits_and_chinese_key_parts_survive() -> None:
    mapping = read_mapping_file(ROOT / "tests" / "support" / "outcomes.mapping.yaml")

    rows = current_rows(mapping, map_chain("fabric-3.1.5-raft", mapping), "requests")

    assert rows == {
        encode_composite_key("request", ["south", "0001"]): {
            "area": "south",
            "number": "0001",
            "status": "open",
            "n": Decimal(12345678901234567890),
            "document": '{"status":"open","n":12345678901234567890}',
            "creator": "EnterpriseMSP",
        },
        encode_composite_key("request", ["南方", "0002"]): {
            "area": "南方",
            "number": "0002",
            "status": "关闭",
            "n": None,
            "document": '{"status":"关闭"}',
            "creator": "EnterpriseMSP",
        },
    }
