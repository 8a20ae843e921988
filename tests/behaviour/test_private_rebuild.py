"""Mapped tables of private data made again, or given a new mapping: they are what the line writes.

`bring` checks after every run of it that making the tables again changes nothing, and that rows that were taken out
come back as they were; so do the scenarios of the other tests of private data.
"""

import copy
import json
import random
import re
from collections.abc import Callable, Sequence
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import yaml

from kvr_sync import errors
from kvr_sync.doctor import examine
from kvr_sync.mapping.validation import read_mapping
from kvr_sync.mapping_change import AppliedMapping, apply_mapping
from kvr_sync.reconciliation import reconcile
from kvr_sync.store.opening import open_store
from kvr_sync.store.operation_log import Operation
from kvr_sync.table_operations import TableOperation, rebuild_tables, release_quarantine
from network.protocol.composite_key import encode_composite_key
from network.protocol.lifecycle import StateMetadata, encode_state_data, encode_state_metadata
from tests.support.chain_factory import TransactionSpec, WriteSpec, delete, private_set, purge, put, set_metadata
from tests.support.mapped_layer import CHANNEL, FeedReader, by_hand, check_made_again
from tests.support.private_chain import Chain, bring, missing_rows
from tests.support.recorded_peer import peer_settings, recorded_peer
from tests.support.tables import FACTS, Columns, check_feed, one_session, query, recorded_name, sql_name

MEMBER, OTHER = "EnterpriseMSP", "CustomerMSP"
ASKED = Operation("apply", "a test")
COLLECTIONS = ("secrets", "shared")
CANARY = "canary-4711"
Definition = dict[str, Any]
BASE: Definition = yaml.safe_load(
    """
kvr_mapping: 1
tables:
  note:
    namespace: ext
    collections: [secrets]
    key: {prefix: "n"}
    columns:
      reference: {from: key, type: text, required: true}
      text: {json: text, type: text, required: true}
      status: {json: status, type: enum, values: [open, closed]}
      amount: {json: amount, type: decimal}
      seen_at: {from: ledger.claimed_at, type: timestamp}
    children:
      note_tag: {each: tags, columns: {tag: {json: name, type: text}}}
  document:
    namespace: ext
    collections: [secrets, shared]
    key: {prefix: ""}
    columns:
      held_in: {from: ledger.collection, type: text, required: true}
      content: {from: value, type: bytes, required: true}
  item:
    namespace: ext
    collections: [shared, secrets]
    key: {composite: item, attributes: [id]}
    sequence: {from: 2}
    columns: {id: {from: key.id, type: text}, text: {json: text, type: text}}
"""
)
ITEM, PART = (encode_composite_key("item", parts).decode() for parts in (["i"], ["i", "j"]))


def note(text: str, **others: Any) -> bytes:
    tags = [{"name": f"{text}-tag", "n": len(text)}, {"name": "x"}]
    return json.dumps({"text": text, "amount": 1.5, "tags": tags, "visits": ["2026-11-06"], **others}).encode()


def secret(key: str, value: bytes, collection: str = "secrets") -> WriteSpec:
    return put(key, value, collection=collection)


def gone(key: str) -> WriteSpec:
    return delete(key, collection="secrets")


def purged(key: str) -> WriteSpec:
    return purge(key, collection="secrets")


def defined(sequence: int) -> TransactionSpec:
    """Define the chaincode anew, but for its collections."""
    fields = {"Sequence": encode_state_data(sequence), "EndorsementInfo": encode_state_data(b"\x0a\x031.0")}
    metadata = encode_state_metadata(StateMetadata("ChaincodeDefinition", tuple(fields)))
    writes = [put(f"namespaces/fields/ext/{name}", value, namespace="_lifecycle") for name, value in fields.items()]
    writes.append(put("namespaces/metadata/ext", metadata, namespace="_lifecycle"))
    return TransactionSpec(writes, chaincode="_lifecycle")


LATE = [secret("n-late", note("late")), secret("nl", b"[]")]


def scenario() -> Chain:
    """Make a chain with every kind of private version, in every kind of place."""
    chain = Chain(block_to_live=9, members=(MEMBER, OTHER), collections=COLLECTIONS)
    early = [secret("na", note(CANARY)), secret("n-gone", note(CANARY)), secret(ITEM, note(CANARY))]
    chain.write(*early, secret("x", CANARY.encode()), secret("nq", b"[]"))  # block 2, until 12
    chain.write(secret("na", note("newer", status="open")), secret("nb", b'{"text": 17}'))
    chain.factory.block([defined(2)])
    unfit = [secret("n-missing", b"{}"), secret("nl", b"{}")]
    chain.write(secret(ITEM, note("item")), secret(PART, b"{}"), secret("s", b"shared", "shared"), *unfit)
    chain.write(secret("n-missing", note("m")), *LATE, handed_over=False)  # block 6
    chain.write(gone("n-gone"), secret("nc", note(CANARY)), secret("nb", note("fits")))
    chain.write(secret("nc", f'{{"text": ["{CANARY}"]}}'.encode()), secret("nb", b'{"text": 18}'))
    policy = set_metadata("na", {"VALIDATION_PARAMETER": b"policy"}, collection="secrets")
    chain.write(purged("nc"), policy)
    chain.define(OTHER)
    chain.write(secret("nd", note("of others")), secret("nx", note("of others")), handed_over=False)  # block 11
    chain.define(MEMBER, OTHER)
    chain.write(secret("nq", note("anew")))
    chain.add(
        TransactionSpec([secret("ne", note("lost one", status="lost"))]), TransactionSpec([secret("nf", note("f"))])
    )
    return chain


def arrive(chain: Chain, folder: Path, url: str) -> None:
    """Let some of the missing values come, one of them from before the organisation joined."""
    come = {6: {0: private_set(TransactionSpec(LATE))}}
    come[11] = {0: private_set(TransactionSpec([secret("nd", note("of others"))]))}
    with (
        recorded_peer(chain.blocks, come) as peer,
        closing(open_store(url, CHANNEL, private_member=MEMBER)) as sink,
    ):
        assert reconcile(sink, peer_settings(folder, [peer], private_data=True), due=False).arrived == 3
    check_made_again(url)


def mapping_file(folder: Path, definition: Definition, name: str = "base") -> Path:
    path = folder / f"{name}.mapping.yaml"
    path.write_text(json.dumps(definition))
    return path


@pytest.fixture
def synced(database_url: str, tmp_path: Path) -> str:
    chain = scenario()
    mapping = mapping_file(tmp_path, BASE)
    bring(tmp_path, database_url, chain.blocks, chain.private, mapping=mapping, checked=False)
    arrive(chain, tmp_path, database_url)
    return database_url


def rebuild(url: str, *names: str) -> TableOperation:
    return rebuild_tables(url, CHANNEL, names, Operation("rebuild", "a test"))


Contents = dict[str, list[tuple[Any, ...]]]


def contents(url: str, definition: Definition, api_version: int = 1) -> Contents:
    """Give the rows of all mapped tables and the quarantine in the oracle's form, without the numbers of changes."""
    found: Contents = {}
    with one_session(url, api_version=api_version):
        rows = query(url, "SELECT key_id, collection, key FROM ledger_key")
        keys = {row[0]: (row[1], bytes(row[2])) for row in rows}
        for name, table in definition["tables"].items():
            parts = {name: (table, "external_id", "external_id, kvr_kind, kvr_erased_block, kvr_erased_by")}
            parts |= {child: (one, "kvr_position", "kvr_position") for child, one in table.get("children", {}).items()}
            for part, (one, own, own_of_history) in parts.items():
                columns = Columns(one["columns"])
                for place, others in ((part, own), (f"{part}_history", own_of_history)):
                    source = sql_name(url, place, api_version)
                    select = f"SELECT kvr_key_id, {FACTS}, {others}, {columns.listed} FROM {source}"  # noqa: S608
                    cut = -len(one["columns"])
                    rows = [(keys[row[0]], *row[1:cut], *columns.values(row)) for row in query(url, select)]
                    found[place] = sorted(rows, key=repr)
        select = (
            "SELECT key_id, table_name, block_number, reason, value, closed_block, closed_by FROM ledger_quarantine"
        )
        tables = {recorded_name(name, api_version): name for name in definition["tables"]}
        entries = [
            (keys[row[0]], tables[row[1]], *row[2:4], bytes(row[4]), *row[5:])
            for row in query(url, select)
            if row[1] in tables
        ]
        found["ledger_quarantine"] = sorted(entries, key=repr)
    return found


@pytest.mark.parametrize("cuts", [(), (9, 13)], ids=["at once", "in parts"])
def test_making_tables_again_changes_nothing_whatever_happened_to_their_values(
    cuts: Sequence[int], database_url: str, tmp_path: Path
) -> None:
    chain = scenario()
    for cut in (*cuts, len(chain.blocks)):
        bring(tmp_path, database_url, chain.blocks[:cut], chain.private, mapping=mapping_file(tmp_path, BASE))
    arrive(chain, tmp_path, database_url)

    kinds = {(row[0], row[1]) for row in query(database_url, "SELECT kvr_kind, kvr_erased_by FROM note_history")}
    kinds |= {("joined", "missing")} if missing_rows(database_url) else set()
    assert kinds >= {("put", None), ("delete", None), ("purge", None), ("missing", None), ("joined", "missing")}
    assert kinds >= {("erased", "purge"), ("erased", "expiry"), ("delete", "purge"), ("delete", "expiry")}
    before = contents(database_url, BASE)
    assert before == replay(database_url, tmp_path / "replayed", BASE, erased=True)
    feeds = query(database_url, "SELECT * FROM sync_change ORDER BY table_id, change_id")

    done = rebuild(database_url)

    assert [(one.table, *one[1:5]) for one in done.tables] == [(name, 0, 0, 0, 0) for name in BASE["tables"]]
    assert contents(database_url, BASE) == before
    assert query(database_url, "SELECT * FROM sync_change ORDER BY table_id, change_id") == feeds
    for name in BASE["tables"]:
        check_feed(database_url, name, children=list(BASE["tables"][name].get("children", {})))


SHORT = {
    "ERASED": "kvr_kind = 'erased'",
    "FACTS": FACTS,
    "PUT_BACK": "text = 'canary-4711', reference = 'canary-4711', external_id = 'canary-4711'",
}
DAMAGES = {
    "of living values": {
        "a value of a current row": "UPDATE note SET text = 'other'",
        "the id of a current row": "UPDATE note SET external_id = reference || '!'",
        "a current row taken out": "DELETE FROM note",
        "a version taken out": "DELETE FROM note_history WHERE kvr_kind = 'put'",
        "a value of a version": "UPDATE document_history SET held_in = 'other' WHERE kvr_kind = 'put'",
        "a living value that says erased": "UPDATE note_history SET kvr_erased_block = 3, kvr_erased_by = 'purge'"
        " WHERE kvr_kind = 'put'",
        "a child row": "UPDATE note_tag SET tag = 'other'",
        "child rows taken out": "DELETE FROM note_tag",
        "child rows of versions taken out": "DELETE FROM note_tag_history",
    },
    "of values that are not there": {
        "a delete taken out": "DELETE FROM note_history WHERE kvr_kind = 'delete' AND kvr_erased_block IS NULL",
        "a purge that says delete": "UPDATE note_history SET kvr_kind = 'delete' WHERE kvr_kind = 'purge'",
        "a missing value taken out": "DELETE FROM item_history WHERE kvr_kind = 'missing'",
        "a missing value that says delete": "UPDATE note_history SET kvr_kind = 'delete' WHERE kvr_kind = 'missing'",
        "a missing value put there": "UPDATE note_history SET kvr_kind = 'put', PUT_BACK WHERE kvr_kind = 'missing'",
    },
    "of erased values": {
        "an erased value put back": "UPDATE note_history SET PUT_BACK WHERE ERASED",
        "an erased version that says put": "UPDATE note_history SET kvr_kind = 'put', PUT_BACK, kvr_erased_by = NULL,"
        " kvr_erased_block = NULL WHERE ERASED",
        "an erased version that says missing": "UPDATE document_history SET kvr_kind = 'missing' WHERE ERASED",
        "an erased version without a row that says erased": "UPDATE note_history SET kvr_kind = 'erased'"
        " WHERE kvr_kind = 'delete' AND kvr_erased_by IS NOT NULL",
        "when and why it was erased": "UPDATE note_history SET kvr_erased_block = 1, kvr_erased_by = 'x' WHERE ERASED",
        "who wrote an erased value": "UPDATE note_history SET kvr_creator_msp_id = 'x', kvr_tx_id = 'x' WHERE ERASED",
        "child rows of an erased value": "INSERT INTO note_tag_history (kvr_key_id, kvr_position, tag, FACTS)"
        " SELECT kvr_key_id, 0, 'canary-4711', FACTS FROM note_history WHERE ERASED",
        "a current row of an erased value": "INSERT INTO note (kvr_key_id, external_id, reference, text, FACTS,"
        " kvr_change_id) SELECT kvr_key_id, 'canary-4711', 'canary-4711', 'canary-4711', FACTS, 1 FROM note_history"
        " WHERE kvr_kind = 'delete' AND kvr_erased_by = 'purge'",
    },
    "of the quarantine": {
        "an open entry taken out": "DELETE FROM ledger_quarantine WHERE closed_by IS NULL",
        "an open entry closed": "UPDATE ledger_quarantine SET closed_by = 'deleted', closed_block = 3"
        " WHERE closed_by IS NULL",
        "entries opened": "UPDATE ledger_quarantine SET closed_by = NULL, closed_block = NULL"
        " WHERE closed_by = 'erased'",
        "an entry of a missing value": "INSERT INTO ledger_quarantine"
        " (table_name, key_id, block_number, tx_number, write_number, reason, detail, value) SELECT 'note', kvr_key_id,"
        " kvr_block_number, kvr_tx_number, kvr_write_number, 'x', 'x', CAST('x' AS BLOB) FROM note_history"
        " WHERE kvr_kind = 'missing'",
        "bytes in quarantine": "UPDATE ledger_quarantine SET value = CAST('canary-4711' AS BLOB)",
    },
}


@pytest.mark.parametrize("damages", DAMAGES)
def test_what_was_changed_by_hand_is_put_right_and_announced_and_nothing_erased_comes_back(
    damages: str, synced: str
) -> None:
    before = contents(synced, BASE)
    assert CANARY not in repr(before)
    early = FeedReader(synced, "note").read()
    for case, damage in DAMAGES[damages].items():
        with by_hand(synced) as connection:
            statement = re.sub("|".join(SHORT), lambda found: SHORT[found[0]], damage)
            if connection.dialect.name == "postgresql":
                statement = statement.replace("AS BLOB", "AS bytea")
            connection.exec_driver_sql(statement)
        assert contents(synced, BASE) != before, case
        misled = FeedReader(synced, "note").read()

        done = rebuild(synced)

        assert contents(synced, BASE) == before, case
        for reader in (early, misled):
            assert reader.read().rows == reader.table(), case
        assert any(one.versions or one.rows for one in done.tables) == (damages != "of the quarantine"), case
    assert {one[1:5] for one in rebuild(synced).tables} == {(0, 0, 0, 0)}


def test_a_reader_of_the_feed_learns_of_what_is_put_right(synced: str) -> None:
    reader = FeedReader(synced, "note").read()
    with by_hand(synced) as connection:
        connection.exec_driver_sql("UPDATE note_history SET amount = '7' WHERE reference = 'na'")

    done = rebuild(synced, "note")

    assert reader.read().kinds == ["update"]
    assert [(one.table, one.versions, one.rows, one.changes) for one in done.tables] == [("note", 2, 2, 1)]


def test_a_reader_that_was_not_told_of_an_erasure_is_told_by_a_rebuild(synced: str) -> None:
    is_erasure = "kind = 6 AND table_id = (SELECT table_id FROM sync_table WHERE name = 'note')"
    with by_hand(synced) as connection:
        changed = connection.exec_driver_sql(f"UPDATE sync_change SET kind = 2 WHERE {is_erasure}")  # noqa: S608
        assert changed.rowcount == 1
        connection.exec_driver_sql(
            "UPDATE sync_change SET kind = 1, block_number = 8 WHERE kind = 2 AND block_number = 9"
        )
    reader = FeedReader(synced, "note").read()

    rebuild(synced, "note")

    assert reader.read().kinds == ["erasure"]
    assert reader.rows == reader.table()


def test_the_row_of_an_erased_version_that_was_taken_out_stays_out(synced: str) -> None:
    with by_hand(synced) as connection:
        connection.exec_driver_sql("DELETE FROM note_history WHERE kvr_kind = 'erased'")
    before = contents(synced, BASE)

    done = rebuild(synced)

    assert {one[1:5] for one in done.tables} == {(0, 0, 0, 0)}
    assert contents(synced, BASE) == before


def changed(*changes: Callable[[Definition], None]) -> Definition:
    definition = copy.deepcopy(BASE)
    for change in changes:
        change(definition["tables"])
    return definition


def new_columns(tables: Definition) -> None:
    tables["note"]["columns"] = {"due": {"json": "visits", "type": "json"}, **tables["note"]["columns"]}
    tables["note"]["children"]["note_tag"]["columns"]["n"] = {"json": "n", "type": "integer"}
    tables["document"]["columns"]["held_in"]["index"] = True


def new_child(tables: Definition) -> None:
    day = {"from": "element", "type": "date"}
    tables["note"]["children"]["note_visit"] = {"each": "visits", "columns": {"day": day}}


def new_tables(tables: Definition) -> None:
    text = {"text": {"json": "text", "type": "text"}}
    tables["part"] = {
        "namespace": "ext",
        "collections": ["secrets"],
        "key": {"composite": "item", "attributes": ["id", "part"]},
        "columns": text,
    }
    tables["late_note"] = {"namespace": "ext", "collections": ["secrets"], "key": {"prefix": "n-"}, "columns": text}


def more_values(tables: Definition) -> None:
    tables["note"]["columns"]["status"]["values"].append("lost")


def apply(url: str, definition: Definition, **options: Any) -> AppliedMapping:
    return apply_mapping(url, CHANNEL, read_mapping(json.dumps(definition).encode(), "new"), ASKED, **options)


def replay(url: str, folder: Path, definition: Definition, *, erased: bool, chain: Chain | None = None) -> Contents:
    """Bring the same chain into other tables of this mapping, from a peer that hands over what is held in a database.

    `erased`: and what was erased there.
    """
    chain = chain or scenario()
    lacking = "p.value IS NULL AND p.erased_block IS NULL" if erased else "p.value IS NULL"
    rows = query(
        url,
        "SELECT k.collection, k.key, p.block_number, p.tx_number FROM ledger_private_value p"  # noqa: S608
        f" JOIN ledger_key k ON k.key_id = p.key_id WHERE {lacking}",
    )
    lacks = {(row[0], bytes(row[1]), row[2], row[3]) for row in rows}

    def held(spec: TransactionSpec, number: int, tx: int) -> TransactionSpec:
        places = [(write.collection, sha256(write.key.encode()).digest(), number, tx) for write in spec.writes]
        return TransactionSpec([write for write, place in zip(spec.writes, places, strict=True) if place not in lacks])

    private = {
        number: {tx: private_set(held(spec, number, tx)) for tx, spec in enumerate(specs)}
        for number, specs in chain.specs.items()
    }
    folder.mkdir()
    replayed = f"sqlite:///{folder / 'replayed.db'}"
    bring(folder, replayed, chain.blocks, private, mapping=mapping_file(folder, definition), checked=False)
    return contents(replayed, definition)


ADDING = {
    "columns and an index": changed(new_columns),
    "a child table": changed(new_child),
    "all of it": changed(new_columns, new_child, new_tables),
}


@pytest.mark.parametrize("case", ADDING)
def test_what_a_mapping_adds_equals_a_replay_with_it(case: str, synced: str, tmp_path: Path) -> None:
    definition = ADDING[case]
    reader = FeedReader(synced, "note").read()

    apply(synced, definition)

    found = contents(synced, definition)
    expected = replay(synced, tmp_path / "all", definition, erased=True)
    if case == "all of it":
        # What was erased before there was such a table could have been of it; as a replay from a real peer has it.
        later = replay(synced, tmp_path / "later", definition, erased=False)
        for name in ("part", "part_history", "late_note", "late_note_history"):
            expected[name] = later[name]
        kinds = query(synced, "SELECT DISTINCT kvr_kind FROM late_note_history")
        assert {row[0] for row in kinds} == {"put", "missing", "erased", "delete", "purge"}
    assert found == expected
    assert reader.read().rows == reader.table()
    check_made_again(synced)
    assert [one.text for one in examine(synced, CHANNEL) if one.verdict == "fail"] == []


def test_private_tables_beside_others_equal_a_replay_and_hold_nothing_that_was_erased_meanwhile(
    synced: str, tmp_path: Path
) -> None:
    def other_type(tables: Definition) -> None:
        tables["note"]["columns"]["amount"] = {"json": "tags", "type": "json"}

    definition, chain = changed(other_type, new_child), scenario()
    chain.write(purged("nf"))
    held: list[int] = []

    def arrive(step: str) -> None:
        if step == "building" and not held:
            with one_session(synced, api_version=2):
                held.extend(query(synced, f"SELECT count(*) FROM {sql_name(synced, 'note_history', 2)}")[0])  # noqa: S608
            bring(tmp_path, synced, chain.blocks, chain.private, checked=False)

    applied = apply(synced, definition, on_step=arrive)

    assert (applied.api_version, applied.is_beside, applied.block_number, held) == (
        2,
        True,
        chain.factory.height - 1,
        [0],
    )
    expected = replay(synced, tmp_path / "later", definition, erased=False, chain=chain)
    assert contents(synced, definition, 2) == expected
    chain.write(secret("na", note("after")), purged("nd"))
    bring(tmp_path, synced, chain.blocks, chain.private)
    with one_session(synced, api_version=2):
        check_feed(synced, "note", children=["note_tag", "note_visit"], api_version=2)
    assert [one.text for one in examine(synced, CHANNEL) if one.verdict == "fail"] == []


def test_a_value_that_fits_a_looser_mapping_is_released_at_its_version(synced: str, tmp_path: Path) -> None:
    definition = changed(more_values)
    reader = FeedReader(synced, "note").read()
    apply(synced, definition)
    key = query(synced, "SELECT key_id FROM ledger_quarantine WHERE reason = 'not_in_enumeration'")[0][0]

    done = release_quarantine(synced, CHANNEL, "note", str(key), ASKED)

    assert [(one.table, one.released, one.changes) for one in done.tables] == [("note", 1, 1)]
    assert reader.read().kinds == ["release"]
    assert reader.rows == reader.table()
    found, expected = contents(synced, definition), replay(synced, tmp_path / "replayed", definition, erased=True)
    last = scenario().factory.height - 1
    entries = found.pop("ledger_quarantine")
    assert [entry[1:3] + entry[4:] for entry in entries if entry[-1] == "released"] == [
        ("note", last, b"", last, "released")
    ]
    assert [entry for entry in entries if entry[-1] != "released"] == expected.pop("ledger_quarantine")
    assert found == expected
    check_made_again(synced)


def test_values_that_would_lose_their_rows_are_not_taken_away(synced: str) -> None:
    def hue(tables: Definition) -> None:
        tables["note"]["columns"]["hue"] = {"json": "text", "type": "integer"}

    before = contents(synced, BASE)
    with pytest.raises(errors.ConfigurationError, match=r"would not fit this mapping: \d of table note \(wrong_type\)"):
        apply(synced, changed(hue))

    assert contents(synced, BASE) == before


@pytest.mark.parametrize("seed", range(2))
def test_any_order_of_writes_late_values_and_memberships_can_be_made_again(
    seed: int, database_url: str, tmp_path: Path
) -> None:
    choose = random.Random(seed)  # noqa: S311  writes, not secrets
    chain = Chain(block_to_live=choose.choice((0, 3, 6)), members=(MEMBER, OTHER), collections=COLLECTIONS)
    values = [note("a"), note("b", status="lost"), b'{"text": 1}', b"no json", note("c", tags=[])]
    for _ in range(15):
        kind = choose.random()
        if kind < 0.15:
            chain.define(*choose.choice(((OTHER,), (MEMBER, OTHER))))
        elif kind < 0.2:
            chain.factory.block([defined(choose.randint(1, 3))])
        else:
            # The factory does not know which keys have expired, and metadata of these is no write.
            writes = _writes(choose, values, moves=not chain.block_to_live)
            chain.write(*writes, handed_over=choose.random() < 0.6)
        if choose.random() < 0.2:
            bring(tmp_path, database_url, chain.blocks, chain.private, mapping=mapping_file(tmp_path, BASE))
            if choose.random() < 0.5:
                with (
                    recorded_peer(chain.blocks, chain.withheld | chain.private) as peer,
                    closing(open_store(database_url, CHANNEL, private_member=MEMBER)) as sink,
                ):
                    reconcile(sink, peer_settings(tmp_path, [peer], private_data=True), due=False)
                check_made_again(database_url)
    bring(tmp_path, database_url, chain.blocks, chain.private, mapping=mapping_file(tmp_path, BASE))

    for name in BASE["tables"]:
        check_feed(database_url, name, children=list(BASE["tables"][name].get("children", {})))


def _writes(choose: random.Random, values: Sequence[bytes], *, moves: bool) -> list[WriteSpec]:
    writes = []
    for key in choose.sample(("na", "nb", ITEM, PART, "x"), choose.randint(1, 3)):
        collection, kind = choose.choice(("secrets", "secrets", "shared")), choose.random()
        if kind < 0.6:
            writes.append(secret(key, choose.choice(values), collection))
        elif kind < 0.7 and moves:
            writes.append(set_metadata(key, {"VALIDATION_PARAMETER": b"policy"}, collection=collection))
        else:
            writes.append((purge if kind > 0.85 else delete)(key, collection=collection))
    return writes
