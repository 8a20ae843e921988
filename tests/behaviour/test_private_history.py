"""The past of private tables: every version while it may be known, and "erased" where it was known once."""

import json
import random
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url

from kvr_sync.doctor import examine
from kvr_sync.read import SyncedTables, TableQuery, open_tables, read_table
from kvr_sync.reconciliation import reconcile
from kvr_sync.store.opening import open_store
from tests.support.chain_factory import TransactionSpec, WriteSpec, delete, purge, put, set_metadata
from tests.support.command import kvr
from tests.support.mapped_layer import check_made_again
from tests.support.private_chain import Chain, bring, missing_rows
from tests.support.recorded_peer import peer_settings, recorded_peer
from tests.support.tables import check_feed, one_session, query

CHANNEL, MEMBER = "consortium", "EnterpriseMSP"
MAPPING = """\
kvr_mapping: 1
tables:
  notes:
    namespace: ext
    collections: [secrets]
    key: {prefix: ""}
    columns:
      reference: {from: key, type: text, required: true}
      text: {json: text, type: text, required: true}
      amount: {json: amount, type: decimal}
      due: {json: due, type: timestamp}
    children:
      note_tags:
        each: tags
        columns:
          tag: {from: element, type: text, required: true}
"""


@pytest.fixture
def mapping(tmp_path: Path) -> Path:
    path = tmp_path / "notes.yaml"
    path.write_text(MAPPING)
    return path


def note(text: str) -> bytes:
    document = {"text": text, "amount": 1.5, "due": "2026-01-02T03:04:05Z", "tags": [f"{text}-tag", "x"]}
    return json.dumps(document).encode()


def secret(key: str, text: str) -> WriteSpec:
    return put(key, note(text), collection="secrets")


def gone(key: str) -> WriteSpec:
    return delete(key, collection="secrets")


def purged(key: str) -> WriteSpec:
    return purge(key, collection="secrets")


def history(url: str) -> list[tuple[Any, ...]]:
    return query(
        url,
        "SELECT kvr_block_number, kvr_kind, reference, text, kvr_erased_block, kvr_erased_by FROM notes_history"
        " ORDER BY kvr_block_number, kvr_tx_number, kvr_write_number, kvr_key_id",
    )


def as_of(url: str, block: int) -> list[tuple[Any, ...]]:
    """Give kind and text of the rows as of a block: by the reader, the view and, on PostgreSQL, the function alike."""
    with open_tables(url, CHANNEL) as synced:
        return read_as_of(url, synced, block)


def read_as_of(url: str, synced: SyncedTables, block: int) -> list[tuple[Any, ...]]:
    page = read_table(synced, TableQuery("notes", as_of=block))
    rows = sorted(((row["kvr_kind"], row["text"]) for row in page.rows), key=repr)
    if make_url(url).drivername.startswith("postgresql"):
        found = query(url, "SELECT kvr_kind, text FROM notes_asof(?)", [block])
        assert sorted(map(tuple, found), key=repr) == rows
    valid = query(
        url,
        "SELECT kvr_kind, text FROM notes_validity WHERE kvr_valid_from_block <= ?"
        " AND (kvr_valid_to_block IS NULL OR kvr_valid_to_block > ?)",
        [block, block],
    )
    assert sorted(map(tuple, valid), key=repr) == rows
    return rows


def everything(url: str) -> str:
    """Give all that stands in any table or view, as text."""
    if make_url(url).drivername.startswith("sqlite"):
        names = [row[0] for row in query(url, "SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")]
    else:
        listed = "SELECT table_name FROM information_schema.tables WHERE table_schema = current_schema()"
        names = [row[0] for row in query(url, listed)]
    assert "notes_history" in names
    rows = [row for name in names for row in query(url, f'SELECT * FROM "{name}"')]  # noqa: S608  # names of ours
    return "\n".join(repr([bytes(v) if isinstance(v, memoryview) else v for v in row]) for row in rows)


def findings(url: str) -> list[str]:
    return [f"{one.check}: {one.text}" for one in examine(url, CHANNEL, is_production=False) if one.verdict == "fail"]


@pytest.mark.parametrize("at_once", [True, False])
def test_the_past_of_a_private_table_is_that_of_a_public_one(
    *, at_once: bool, database_url: str, mapping: Path, tmp_path: Path
) -> None:
    chain = Chain()
    steps: list[Sequence[WriteSpec]] = [[secret("a", "one"), secret("b", "two")], [secret("a", "three")], [gone("b")]]
    for writes in steps:
        chain.write(*writes)
        if not at_once:
            bring(tmp_path, database_url, chain.blocks, chain.private, mapping=mapping)
    bring(tmp_path, database_url, chain.blocks, chain.private, mapping=mapping)

    assert as_of(database_url, 1) == []
    assert as_of(database_url, 2) == [("put", "one"), ("put", "two")]
    assert as_of(database_url, 3) == [("put", "three"), ("put", "two")]
    assert as_of(database_url, 4) == [("put", "three")]
    tags = "SELECT kvr_block_number, tag FROM note_tags_history WHERE tag <> 'x' ORDER BY kvr_block_number, tag"
    assert query(database_url, tags) == [(2, "one-tag"), (2, "two-tag"), (3, "three-tag")]
    check_feed(database_url, "notes", children=["note_tags"])
    assert findings(database_url) == []


@pytest.mark.parametrize("at_once", [True, False])
def test_a_purge_takes_every_version_from_every_table_and_leaves_its_record(
    *, at_once: bool, database_url: str, mapping: Path, tmp_path: Path
) -> None:
    chain = Chain()
    chain.write(secret("canary-key", "canary-one"), secret("b", "other"))
    chain.write(secret("canary-key", "canary-two"))
    chain.write(put("canary-key", b'{"text": "canary-unfit", "amount": "x"}', collection="secrets"))
    chain.write(secret("canary-key", "canary-three"))
    if not at_once:
        bring(tmp_path, database_url, chain.blocks, chain.private, mapping=mapping)
        assert "canary-two" in everything(database_url)
        assert "canary-key" in everything(database_url)
    chain.write(purged("canary-key"))

    bring(tmp_path, database_url, chain.blocks, chain.private, mapping=mapping)

    assert "canary" not in everything(database_url)
    assert history(database_url) == [
        (2, "erased", None, None, 6, "purge"),
        (2, "put", "b", "other", None, None),
        (3, "erased", None, None, 6, "purge"),
        (4, "delete", None, None, 6, "purge"),
        (5, "erased", None, None, 6, "purge"),
        (6, "purge", None, None, None, None),
    ]
    assert as_of(database_url, 5) == [("erased", None), ("put", "other")]
    assert as_of(database_url, 6) == [("put", "other")]
    changes = query(database_url, "SELECT kvr_change, text FROM notes_changes ORDER BY kvr_change_id")
    assert changes[-1] == ("erasure", None)
    assert {row[1] for row in changes} == {None, "other"}
    check_feed(database_url, "notes", children=["note_tags"])
    kept = query(database_url, "SELECT count(*), count(value_hash), count(erased_by) FROM ledger_private_value")
    assert kept == [(5, 5, 4)]
    assert findings(database_url) == []


def test_a_purge_of_a_key_that_was_deleted_before_is_told_to_those_who_kept_it(
    database_url: str, mapping: Path, tmp_path: Path
) -> None:
    chain = Chain()
    chain.write(secret("a", "canary"))
    chain.write(gone("a"))
    bring(tmp_path, database_url, chain.blocks, chain.private, mapping=mapping)
    chain.write(purged("a"))
    chain.write(secret("a", "anew"))

    bring(tmp_path, database_url, chain.blocks, chain.private, mapping=mapping)

    assert "canary" not in everything(database_url)
    assert query(database_url, "SELECT kvr_change FROM notes_changes ORDER BY kvr_change_id") == [
        ("insert",),
        ("delete",),
        ("erasure",),
        ("insert",),
    ]
    assert as_of(database_url, 2) == [("erased", None)]
    assert as_of(database_url, 5) == [("put", "anew")]
    check_feed(database_url, "notes", children=["note_tags"])


@pytest.mark.parametrize("at_once", [True, False])
def test_each_version_expires_for_itself(*, at_once: bool, database_url: str, mapping: Path, tmp_path: Path) -> None:
    chain = Chain(block_to_live=2)
    chain.write(secret("a", "canary"), secret("b", "canary"))  # block 2, until 5
    chain.write(secret("a", "newer"))  # block 3, until 6
    chain.pad(1)
    if not at_once:
        bring(tmp_path, database_url, chain.blocks, chain.private, mapping=mapping)
    chain.pad(1)

    bring(tmp_path, database_url, chain.blocks, chain.private, mapping=mapping)

    assert "canary" not in everything(database_url)
    assert query(database_url, "SELECT text FROM notes") == [("newer",)]
    assert as_of(database_url, 2) == [("erased", None), ("erased", None)]
    assert as_of(database_url, 4) == [("erased", None), ("put", "newer")]
    assert as_of(database_url, 5) == [("put", "newer")]
    chain.pad(1)
    bring(tmp_path, database_url, chain.blocks, chain.private, mapping=mapping)
    assert as_of(database_url, 5) == [("erased", None)]
    assert as_of(database_url, 6) == []
    assert {row[4:] for row in history(database_url)} == {(5, "expiry"), (6, "expiry")}
    check_feed(database_url, "notes", children=["note_tags"])


def test_a_past_that_is_missing_says_so_until_it_comes(database_url: str, mapping: Path, tmp_path: Path) -> None:
    chain = Chain()
    chain.write(secret("a", "late"), handed_over=False)
    chain.write(secret("a", "newer"))
    bring(tmp_path, database_url, chain.blocks, chain.private, mapping=mapping)
    assert as_of(database_url, 2) == [("missing", None)]
    assert as_of(database_url, 3) == [("put", "newer")]

    late(chain, database_url, tmp_path)

    assert as_of(database_url, 2) == [("put", "late")]
    assert query(database_url, "SELECT tag FROM note_tags ORDER BY kvr_position") == [("newer-tag",), ("x",)]
    check_feed(database_url, "notes", children=["note_tags"])
    assert findings(database_url) == []


@pytest.mark.parametrize("at_once", [True, False])
def test_values_stay_when_the_organisation_leaves_the_collection_and_a_purge_still_takes_them(
    *, at_once: bool, database_url: str, mapping: Path, tmp_path: Path
) -> None:
    chain = Chain(members=(MEMBER, "CustomerMSP"))
    chain.write(secret("a", "canary"), secret("b", "kept"))
    chain.define("CustomerMSP")
    chain.write(secret("a", "of others"), handed_over=False)
    if not at_once:
        bring(tmp_path, database_url, chain.blocks, chain.private, mapping=mapping)
        assert query(database_url, "SELECT text FROM notes") == [("kept",)]
        assert as_of(database_url, 2) == [("put", "canary"), ("put", "kept")]
        assert missing_rows(database_url) == []
    chain.write(purged("a"), handed_over=False)

    bring(tmp_path, database_url, chain.blocks, chain.private, mapping=mapping)

    assert "canary" not in everything(database_url)
    assert as_of(database_url, 2) == [("erased", None), ("put", "kept")]
    check_feed(database_url, "notes", children=["note_tags"])
    assert findings(database_url) == []


def late(chain: Chain, url: str, folder: Path) -> None:
    with (
        recorded_peer(chain.blocks, chain.withheld | chain.private) as peer,
        closing(open_store(url, CHANNEL, private_member=MEMBER)) as sink,
    ):
        reconcile(sink, peer_settings(folder, [peer], private_data=True), due=False)
    check_made_again(url)


def test_the_command_reads_the_past_by_pages_and_says_what_was_erased(
    sqlite_url: str, mapping: Path, tmp_path: Path
) -> None:
    chain = Chain()
    chain.write(*(secret(f"k{number}", f"t{number}") for number in range(5)))
    chain.write(purged("k1"), purged("k3"))
    bring(tmp_path, sqlite_url, chain.blocks, chain.private, mapping=mapping)

    found: list[tuple[Any, ...]] = []
    after: list[str] = []
    while True:
        done = kvr("sync", "query", "notes", "--database", sqlite_url, "--as-of", "2", "--limit", "2", "--json", *after)
        assert done.returncode == 0, done.stderr
        page = json.loads(done.stdout)
        found += [(row["kvr_kind"], row["external_id"], row["text"]) for row in page["rows"]]
        if page["next_after"] is None:
            break
        after = ["--after", page["next_after"]]

    erased = ("erased", None, None)
    assert found == [erased, erased, ("put", "k0", "t0"), ("put", "k2", "t2"), ("put", "k4", "t4")]


class Model:
    """What the tables should tell of a chain of random private writes, from plain lists."""

    def __init__(self, block_to_live: int) -> None:
        self.live = block_to_live
        self.versions: dict[str, list[dict[str, Any]]] = {}
        self.ends: dict[str, list[tuple[tuple[int, int], str]]] = {}

    def put(self, key: str, at: tuple[int, int], text: str, *, came: bool) -> None:
        expiring = at[0] + self.live + 1 if self.live else None
        version = {"at": at, "text": text, "came": came, "expiring": expiring, "purged": None}
        self.versions.setdefault(key, []).append(version)

    def end(self, key: str, at: tuple[int, int], kind: str) -> None:
        self.ends.setdefault(key, []).append((at, kind))
        for version in self.versions.get(key, []) if kind == "purge" else ():
            if version["at"] <= at and not self._erased(version, at[0]) and version["purged"] is None:
                version["purged"] = at[0]

    def move(self, key: str, block: int) -> None:
        """Only what is in force moves."""
        newest = self.newest(key, block)
        if newest is not None and self.live:
            newest["expiring"] = block + self.live + 1

    def _erased(self, version: dict[str, Any], height: int) -> bool:
        expired = version["expiring"] is not None and version["expiring"] <= height
        return expired or (version["purged"] is not None and version["purged"] <= height)

    def newest(self, key: str, block: int) -> dict[str, Any] | None:
        """Give the version in force after a block."""
        events: list[tuple[tuple[int, int], dict[str, Any] | None]] = [
            *((version["at"], version) for version in self.versions.get(key, [])),
            *((at, None) for at, _ in self.ends.get(key, [])),
        ]
        newest = max((event for event in events if event[0][0] <= block), key=lambda event: event[0], default=None)
        version = None if newest is None else newest[1]
        return None if version is None or self._erased(version, block) else version

    def as_of(self, block: int, height: int) -> list[tuple[str, str | None]]:
        rows: list[tuple[str, str | None]] = []
        for key in self.versions:
            version = self.newest(key, block)
            if version is None:
                continue
            if self._erased(version, height):
                rows.append(("erased", None))
            else:
                rows.append(("put", version["text"]) if version["came"] else ("missing", None))
        return sorted(rows, key=repr)


@pytest.mark.parametrize("seed", range(3))
def test_any_order_of_writes_ends_and_late_values_gives_the_past_of_the_rules(
    seed: int, database_url: str, mapping: Path, tmp_path: Path
) -> None:
    choose = random.Random(seed)  # noqa: S311  # writes, not secrets
    live = choose.choice((0, 2, 4))
    chain, model = Chain(block_to_live=live), Model(live)
    texts = 0
    for _ in range(16):
        number = chain.factory.height
        specs, handed = [], choose.random() < 0.7
        for _ in range(choose.randint(1, 3)):
            tx = len(specs)
            key, kind = choose.choice("abc"), choose.random()
            if kind < 0.6:
                texts += 1
                specs.append(TransactionSpec([secret(key, f"t{texts}")]))
                model.put(key, (number, tx), f"t{texts}", came=handed)
            elif kind < 0.7:
                if model.newest(key, number) is None:
                    continue  # metadata of a key that is not there is no write
                specs.append(TransactionSpec([set_metadata(key, {"VALIDATION_PARAMETER": b"p"}, collection="secrets")]))
                model.move(key, number)
            else:
                is_purge = kind > 0.85
                specs.append(TransactionSpec([purged(key) if is_purge else gone(key)]))
                model.end(key, (number, tx), "purge" if is_purge else "delete")
        if specs:
            chain.add(*specs, handed_over=handed)
        if choose.random() < 0.3:
            bring(tmp_path, database_url, chain.blocks, chain.private, mapping=mapping)
        if choose.random() < 0.15:
            bring(tmp_path, database_url, chain.blocks, chain.private, mapping=mapping)
            late(chain, database_url, tmp_path)
            for versions in model.versions.values():
                for version in versions:
                    version["came"] = True
    bring(tmp_path, database_url, chain.blocks, chain.private, mapping=mapping)

    height = chain.factory.height - 1
    with open_tables(database_url, CHANNEL) as synced, one_session(database_url):
        for block in range(height + 1):
            found = read_as_of(database_url, synced, block)
            assert found == model.as_of(block, height), f"seed {seed}, as of block {block}"
    current = [("put", row[0]) for row in query(database_url, "SELECT text FROM notes")]
    assert sorted(current) == [row for row in model.as_of(height, height) if row[0] == "put"]
    check_feed(database_url, "notes", children=["note_tags"])
    assert findings(database_url) == []
