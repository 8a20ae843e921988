"""`kvr sync quarantine` and `kvr sync references`: what did not fit and what is not there, without showing values."""

import json
from contextlib import closing

import pytest

from kvr_sync.mapping.map import map_block
from kvr_sync.mapping.validation import read_mapping
from kvr_sync.model import Effect, EffectiveWrite, LedgerKey, RowBatch, WriteKind
from kvr_sync.store.opening import open_store
from network.protocol.composite_key import encode_composite_key
from tests.support.command import kvr
from tests.support.row_batch import RowChain, checkpoint_after, put

MAPPING = read_mapping(
    b"""
kvr_mapping: 1
tables:
  owner:
    namespace: service
    key: {composite: owner, attributes: [id]}
    columns: {id: {from: key.id, type: text}}
  asset:
    namespace: service
    key: {composite: asset, attributes: [id]}
    columns:
      id: {from: key.id, type: text}
      size: {json: size, type: integer}
      owner: {json: owner, type: text, references: owner.id}
    children:
      asset_part:
        each: parts
        columns:
          maker: {from: element, type: text, references: owner.id}
""",
    "test",
)
CANARY = "canary-4711"


def key(kind: str, name: str) -> LedgerKey:
    return LedgerKey("service", "", encode_composite_key(kind, (name,)))


@pytest.fixture
def filled(database_url: str) -> str:
    chain = RowChain()
    blocks = [
        [put(key("owner", "ann"), b"{}")],
        [put(key("asset", "a1"), f'{{"size": "{CANARY}"}}'.encode())],
        [put(key("asset", "a2"), b'{"size": 1, "owner": "bob", "parts": ["ann", "eva"]}')],
        [put(key("asset", "a3"), b'{"size": "big"}')],
        [put(key("asset", "a3"), b'{"size": 3, "owner": "ann"}')],
    ]
    with closing(open_store(database_url, "consortium", mapping=MAPPING)) as sink:
        position = None
        for writes in blocks:
            batch = mapped(chain.block(writes=writes))
            sink.commit(position, [batch], checkpoint_after(batch), anchor="unpinned")
            position = checkpoint_after(batch)
    return database_url


def mapped(batch: RowBatch) -> RowBatch:
    return map_block(batch.block, MAPPING)


def told(url: str, *arguments: str) -> str:
    done = kvr("sync", *arguments, KVR_DATABASE=url)
    assert done.returncode == 0, done.stderr
    assert CANARY not in done.stdout + done.stderr
    return done.stdout


def test_open_entries_are_listed_and_closed_ones_on_request(filled: str) -> None:
    listed = json.loads(told(filled, "quarantine", "list", "--json"))
    with_closed = json.loads(told(filled, "quarantine", "list", "--closed", "--json"))

    assert listed["open"] == [{"table": "asset", "reason": "wrong_type", "open": 1}]
    assert [(entry["key"], entry["closed_by"]) for entry in listed["entries"]] == [("a1", None)]
    assert [(entry["key"], entry["closed_by"], entry["closed_block"]) for entry in with_closed["entries"]] == [
        ("a1", None, None),
        ("a3", "overwritten", 4),
    ]


def test_an_entry_is_explained_in_words(filled: str) -> None:
    words = told(filled, "quarantine", "explain", "asset", "a1")

    assert "column size: an integer expected, text found" in words
    assert "open: a later good value of the key closes it" in words


def test_a_key_that_never_was_in_quarantine_is_said(filled: str) -> None:
    done = kvr("sync", "quarantine", "explain", "asset", "a2", KVR_DATABASE=filled)

    assert done.returncode == 1
    assert "nothing of key 'a2' of table 'asset' was ever in quarantine" in done.stderr


def test_references_without_counterpart_are_counted(filled: str) -> None:
    found = json.loads(told(filled, "references", "--json"))["references"]

    assert [(one["table"], one["column"], one["target"], one["missing"], one["examples"]) for one in found] == [
        ("asset", "owner", "owner.id", 1, ["a2"]),
        ("asset_part", "maker", "owner.id", 1, ["a2"]),
    ]


def test_a_delete_closes_an_entry_too(filled: str) -> None:
    gone = EffectiveWrite(0, 0, key("asset", "a1"), WriteKind.DELETE, Effect.DELETE, None, b"")
    with closing(open_store(filled, "consortium")) as sink:
        position = sink.checkpoint()
        assert position is not None
        chain = RowChain()
        chain.position = position
        batch = mapped(chain.block(writes=[gone]))
        sink.commit(position, [batch], checkpoint_after(batch), anchor="unpinned")

    entries = json.loads(told(filled, "quarantine", "list", "--closed", "--json"))["entries"]
    assert [entry["closed_by"] for entry in entries] == ["deleted", "overwritten"]
