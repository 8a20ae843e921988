"""Tables of private data collections: how they are written down, and which private keys become their rows."""

import pytest

from kvr_sync.errors import ConfigurationError
from kvr_sync.mapping.definition import Mapping, to_json
from kvr_sync.mapping.map import map_block
from kvr_sync.mapping.validation import from_json, read_mapping
from kvr_sync.model import Effect, LedgerKey, PrivateChange, PrivateChanges, RowBatch
from tests.support.mapped_block import composite, replayed, write

TEXT = """\
kvr_mapping: 1
tables:
  profiles:
    namespace: service
    collections: [billing, field]
    key: {composite: profile, attributes: [reference]}
    columns:
      reference: {from: key.reference, type: text, required: true}
      held_in: {from: ledger.collection, type: text}
      name: {json: name, type: text, required: true}
  notes:
    namespace: service
    collections: [billing]
    key: {prefix: note}
    columns:
      text: {from: value, type: text}
"""
HASH = bytes(range(32))


def mapping() -> Mapping:
    return read_mapping(TEXT.encode(), "m.yaml")


def change(
    key: bytes | None, value: bytes | None, *, collection: str = "billing", effect: Effect = Effect.PUT
) -> PrivateChange:
    return PrivateChange(0, 0, LedgerKey("service", collection, HASH), effect, key, value, b"", None)


def mapped(*changes: PrivateChange) -> RowBatch:
    return map_block(replayed(), mapping(), PrivateChanges(changes, ()))


PROFILE = composite("profile", "r1")


def test_the_canonical_form_keeps_the_collections() -> None:
    assert from_json(to_json(mapping())) == mapping()
    assert '"collections":["billing","field"]' in to_json(mapping())
    assert mapping().digest != read_mapping(TEXT.replace("[billing, field]", "[billing]").encode(), "m").digest


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("[billing, field]", "[]", "m.yaml:5: "),
        ("[billing, field]", "billing", "m.yaml:5: table 'profiles', option 'collections' must be a list"),
        ("[billing, field]", "[billing, billing]", "m.yaml:5: "),
        (
            "    collections: [billing, field]\n",
            "",
            "m.yaml:8: table 'profiles', column 'held_in': 'ledger.collection' is allowed",
        ),
        ("ledger.collection, type: text", "ledger.collection, type: integer", "not type integer"),
    ],
)
def test_mistakes_are_told_with_their_line(old: str, new: str, told: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read_mapping(TEXT.replace(old, new).encode(), "m.yaml")

    assert told in str(caught.value)


def test_a_private_value_becomes_a_row_under_the_hash_of_its_key() -> None:
    batch = mapped(change(PROFILE, b'{"name": "Zoe"}'), change(PROFILE, b'{"name": "Li"}', collection="field"))

    assert [(row.table, row.key.collection, row.key.key, row.values) for row in batch.mapped] == [
        (0, "billing", HASH, ("r1", "billing", "Zoe")),
        (0, "field", HASH, ("r1", "field", "Li")),
    ]
    assert batch.quarantined == ()


def test_simple_keys_are_selected_by_prefix() -> None:
    batch = mapped(change(b"note1", b"text"), change(b"other", b"text"), change(b"\x00", b"text"))

    assert [(row.table, row.values) for row in batch.mapped] == [(1, ("text",))]


def test_public_keys_of_the_same_name_feed_no_private_table() -> None:
    public = replayed(write(PROFILE, b'{"name": "Zoe"}', namespace="service"))

    assert map_block(public, mapping(), PrivateChanges((), ())).mapped == ()


def test_a_collection_that_no_table_reads_is_passed_over() -> None:
    assert mapped(change(PROFILE, b"{}", collection="service")).mapped == ()


@pytest.mark.parametrize("effect", [Effect.DELETE, Effect.PURGE, Effect.MISSING])
def test_what_is_gone_or_missing_leaves_every_table_of_the_collection(effect: Effect) -> None:
    batch = mapped(change(None, None, effect=effect))

    assert [(row.table, row.effect, row.values) for row in batch.mapped] == [(0, effect, None), (1, effect, None)]


def test_a_moved_version_leaves_the_row_as_it_is() -> None:
    assert mapped(change(None, None, effect=Effect.VERSION)).mapped == ()


def test_an_unfit_value_is_quarantined_without_its_bytes_and_takes_the_row() -> None:
    batch = mapped(change(PROFILE, b"no json"))

    assert [(entry.reason, entry.key.key, entry.value) for entry in batch.quarantined] == [("not_json", HASH, b"")]
    assert [(row.table, row.effect) for row in batch.mapped] == [(0, Effect.DELETE)]


def test_a_key_with_other_attributes_is_quarantined() -> None:
    batch = mapped(change(composite("profile", "r1", "r2"), b"{}"))

    (entry,) = batch.quarantined
    assert (entry.reason, entry.key.key, entry.value) == ("key_attributes", HASH, b"")
    assert entry.detail == "a key of 1 attributes expected, 2 found"


def test_of_a_number_of_attributes_only_tables_complain_that_take_the_sequence() -> None:
    text = TEXT.replace("  profiles:\n", "  profiles:\n    sequence: {from: 2}\n")
    unfit = PrivateChanges((change(composite("profile", "r1", "more"), b"{}"),), ())

    older, newer = (
        map_block(replayed(), read_mapping(text.encode(), "m"), unfit, {"service": sequence}) for sequence in (1, 2)
    )

    assert older.quarantined == ()
    assert [entry.reason for entry in newer.quarantined] == ["key_attributes"]
