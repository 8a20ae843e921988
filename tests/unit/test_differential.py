"""What of the differential run needs no network: the steps of a seed, what is replaced, what is a difference."""

import re
from pathlib import Path
from typing import Any

import pytest

from tests.support.differential.comparison import KNOWN, Difference, Known, Own, differences, unexplained
from tests.support.differential.message import shown_bytes
from tests.support.differential.step import Order, Through
from tests.support.differential.workload import steps

README = Path(__file__).parents[2] / "network" / "README.md"
ID, OTHER = "ab" * 32, "cd" * 32


def test_a_seed_gives_the_same_steps_each_time() -> None:
    assert steps(1, 700) == steps(1, 700)
    assert steps(1, 700) != steps(2, 700)


@pytest.mark.parametrize("count", [1000, 1500])
def test_there_are_as_many_steps_as_asked_for(count: int) -> None:
    assert len(steps(1, count)) == count


def test_a_wrong_transaction_is_alone_in_its_block() -> None:
    orders = [step for seed in range(5) for step in steps(seed, 1500) if isinstance(step, Order)]

    assert any(write.spoilt for order in orders for write in order.writes)
    assert all(len(order.writes) == 1 for order in orders if any(write.spoilt for write in order.writes))


def test_no_block_sets_the_policy_of_a_key_that_it_deletes() -> None:
    """A real peer stops there (`core/ledger/kvledger/txmgmt/statedb/statedb.go`)."""
    for step in (step for seed in range(5) for step in steps(seed, 1500)):
        if isinstance(step, Order) and len(step.writes) > 1:
            texts = [str(write.call.arguments) for write in step.writes]

            assert not (any('"set_policy"' in text for text in texts) and any('"del"' in text for text in texts))


def test_gateways_are_asked_of_every_kind_of_call() -> None:
    found = [step for step in steps(1, 1000) if isinstance(step, Through)]

    assert {step.submits for step in found} == {True, False}


# --- what is replaced


@pytest.fixture
def own() -> Own:
    found = Own()
    found.add("id", ID, "a step")
    found.add("port", "127.0.0.1:7051", "a peer")
    found.add("time", "1700000000000000001", "a step")
    found.add("size", "20", "an envelope")
    return found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"txid {ID} exists", "txid (id of a step) exists"),
        (f"0x{ID}", "0x(id of a step)"),
        (OTHER, OTHER),
        (f"{ID}00", f"{ID}00"),
        ("to 127.0.0.1:7051: refused", "to (port of a peer): refused"),
        ("to 127.0.0.1:7052", "to 127.0.0.1:7052"),
        ("[1700000000000000001]", "[(time of a step)]"),
        ("[1700000000000000002]", "[1700000000000000002]"),
        ("at 2026-01-02T03:04:05Z", "at (time)"),
        ("proto:\N{NO-BREAK SPACE}none", "proto: none"),
        ("message payload is 20 bytes", "message payload is (size of an envelope) bytes"),
        ("message payload is 21 bytes", "message payload is 21 bytes"),
        ("20 bytes", "20 bytes"),
        ("0x3045", "0x3045"),
    ],
)
def test_only_what_is_a_networks_own_is_replaced(own: Own, text: str, expected: str) -> None:
    assert own.normalised({"a": [text]}) == {"a": [expected]}


def test_a_signature_is_replaced_by_its_field(own: Own) -> None:
    assert own.normalised({"signature": "0x3045", "payload": "0x3045"}) == {
        "signature": "(signature)",
        "payload": "0x3045",
    }
    assert own.normalised({"signature": "none"}) == {"signature": "none"}


def test_a_value_of_no_kind_of_the_table_cannot_be_replaced(own: Own) -> None:
    with pytest.raises(AssertionError):
        own.add("status", "200", "a step")


# --- what is a difference


def record(found: Any) -> dict[str, Any]:
    return {"step": "s", "found": found}


@pytest.mark.parametrize(
    ("mine", "theirs", "path"),
    [
        ({"a": 1}, {"a": 2}, "/found/a"),
        ({"a": 1}, {"a": True}, "/found/a"),
        ({"a": 1}, {}, "/found/a"),
        ({}, {"a": None}, "/found/a"),
        ([1, 2], [1, 3], "/found/1"),
        ([1, 2], [1], "/found (length)"),
        ({"a": []}, {"a": {}}, "/found/a"),
    ],
)
def test_records_differ_where_they_differ(mine: Any, theirs: Any, path: str) -> None:
    assert [it.path for it in differences([record(mine)], [record(theirs)])] == [path]
    assert not list(differences([record(mine)], [record(mine)]))


def test_other_steps_are_a_difference() -> None:
    assert list(differences([record({})], []))


LISTED = Known("s", "here", {"/found/a": ("one", r"\d")})


def test_a_listed_difference_is_none() -> None:
    assert not unexplained([Difference("s", "/found/a", "one", 2)], [LISTED])


@pytest.mark.parametrize(
    "found",
    [
        Difference("t", "/found/a", "one", 2),
        Difference("s", "/found/b", "one", 2),
        Difference("s", "/found/a", "two", 2),
        Difference("s", "/found/a", "one", 22),
    ],
)
def test_a_difference_that_is_not_listed_exactly_is_one(found: Difference) -> None:
    assert unexplained([Difference("s", "/found/a", "one", 2), found], [LISTED]) == [str(found)]


def test_a_listed_difference_that_is_no_more_is_told() -> None:
    assert unexplained([], [LISTED]) == ["no longer so: s: /found/a (here)"]


@pytest.mark.parametrize("known", KNOWN, ids=lambda known: known.step)
def test_the_list_in_the_readme_is_this_one(known: Known) -> None:
    rows = re.findall(r"^\| (.+?) \|", README.read_text(encoding="utf-8"), re.MULTILINE)

    assert known.row in rows


# --- how bytes are shown


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"text", "text"),
        (b"", "0x"),
        (b"\xff", "0xff"),
        (b"\x00k\x00", "\0k\0"),
        (b"\xff" + b"a" * 24, "\\xff" + "a" * 24),
    ],
)
def test_bytes_are_shown_as_text_hex_or_both(content: bytes, expected: str) -> None:
    assert shown_bytes(content) == expected


def test_no_two_contents_are_shown_alike() -> None:
    contents = [b"\xff", b"0xff", b"\\xff" + b"a" * 24, b"\xff" + b"a" * 24, bytes(5000), bytes(5001)]

    assert len({shown_bytes(content) for content in contents}) == len(contents)
