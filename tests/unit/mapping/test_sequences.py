"""Tables that take what was written under certain sequences of a chaincode definition."""

import pytest

from kvr_sync.mapping import quarantine
from kvr_sync.mapping.map import map_block
from kvr_sync.mapping.validation import read_mapping
from kvr_sync.model import Effect
from tests.support.mapped_block import composite, replayed, write

MAPPING = read_mapping(
    b"""\
kvr_mapping: 1
tables:
  first:
    namespace: ext
    key: {composite: item, attributes: [id]}
    sequence: {from: 0, to: 1}
    columns: {id: {from: key.id, type: text}}
  middle:
    namespace: ext
    key: {composite: item, attributes: [id]}
    sequence: {from: 2, to: 3}
    columns: {id: {from: key.id, type: text}}
  late:
    namespace: ext
    key: {composite: item, attributes: [id, part]}
    sequence: {from: 3}
    columns: {id: {from: key.id, type: text}}
  always:
    namespace: ext
    key: {prefix: p}
    columns: {id: {from: key, type: text}}
""",
    "test.yaml",
)
PUT, DELETE = Effect.PUT, Effect.DELETE
NAMES = ("first", "middle", "late", "always")


def effects(key: bytes, sequences: dict[str, int], value: bytes | None = b"v") -> dict[str, Effect]:
    effect = PUT if value else DELETE
    batch = map_block(replayed(write(key, value, effect=effect)), MAPPING, sequences=sequences)
    assert batch.quarantined == ()
    return {NAMES[row.table]: row.effect for row in batch.mapped}


@pytest.mark.parametrize(
    ("sequence", "takers"), [(0, {"first"}), (1, {"first"}), (2, {"middle"}), (3, {"middle"}), (4, set())]
)
def test_a_value_goes_to_the_tables_that_take_its_sequence_and_leaves_the_others(
    sequence: int, takers: set[str]
) -> None:
    found = effects(composite("item", "1"), {"ext": sequence, "other": 9})

    assert found == {name: PUT if name in takers else DELETE for name in ("first", "middle")}


def test_a_chaincode_without_a_definition_has_sequence_0() -> None:
    assert effects(composite("item", "1"), {"other": 2}) == {"first": PUT, "middle": DELETE}


def test_the_last_table_takes_all_later_sequences() -> None:
    assert effects(composite("item", "1", "a"), {"ext": 10**12}) == {"late": PUT}


def test_a_delete_reaches_every_table_whatever_the_sequence() -> None:
    assert effects(composite("item", "1"), {"ext": 4}, None) == {"first": DELETE, "middle": DELETE}


def test_a_table_without_sequences_takes_all() -> None:
    assert effects(b"p1", {"ext": 4}) == {"always": PUT}


def test_of_a_number_of_attributes_only_the_tables_complain_that_take_the_sequence() -> None:
    key = composite("item", "1", "a", "b")

    batch = map_block(replayed(write(key, b"v")), MAPPING, sequences={"ext": 2})

    assert [(NAMES[entry.table], entry.reason) for entry in batch.quarantined] == [
        ("middle", quarantine.KEY_ATTRIBUTES)
    ]
    assert {NAMES[row.table]: row.effect for row in batch.mapped} == {"first": DELETE, "late": DELETE}
