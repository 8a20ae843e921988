"""Readable ids: no two keys of a table have the same, whoever chose the keys; each fits and can be stored."""

import random
import re
from collections.abc import Callable, Iterator, Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kvr_sync.mapping.external_id import external_id
from kvr_sync.mapping.limits import MAX_EXTERNAL_ID_BYTES
from network.protocol.composite_key import encode_composite_key, split_composite_key

ROUND = 50_000
"""Keys of each kind."""
PIECES = (
    *"ab/~%\x00\x1f\x7f\x85 é漢\u2028\ufeff\U0001f600",
    "%00",
    "%2F",
    "%25",
    "%7E",
    "%C2%85",
    "//",
    "%%",
    "~" + "0" * 64,
)
"""What encoding and cutting are made of, so that keys imitate the encoding of others."""
BAD_BYTES = (b"\xff", b"\x80", b"\xc2", b"\xed\xa0\x80", b"\xe2\x80", b"\xc0\x80", b"\xf4\x90\x80\x80")


def check(text: str) -> None:
    """An id fits its column and its index, is no less readable than promised, and PostgreSQL's text takes it."""
    content = text.encode()  # no lone surrogate
    assert len(content) <= MAX_EXTERNAL_ID_BYTES
    assert not re.search(r"[\x00-\x1f\x7f-\x9f]", text)


def simple_keys(choose: random.Random) -> Iterator[bytes]:
    """Keys of a table of simple keys, unlike each other, and those that repeat the ids of others."""
    while True:
        key = b"".join(
            choose.choice(BAD_BYTES) if choose.random() < 0.1 else choose.choice(PIECES).encode()
            for _ in range(choose.randint(0, 8))
        )
        yield key
        yield external_id(key, ()).encode()
        if choose.random() < 0.05:
            long = key + b"x" * choose.choice((440, 446, 447, 448, 503, 510, 512, 513, 600))
            yield long
            yield long + b"\x00"
            yield external_id(long, ()).encode()


def composite_keys(choose: random.Random, attributes: int) -> Iterator[bytes]:
    """Composite keys of one type and number of attributes."""
    while True:
        values = [
            "".join(choose.choice(PIECES) for _ in range(choose.randint(0, 4))).replace("\x00", "")
            for _ in range(attributes)
        ]
        if choose.random() < 0.05:
            values[choose.randrange(attributes)] += "y" * choose.choice((200, 440, 447, 510, 600))
        yield encode_composite_key("t", values)
        readable = external_id(b"", values)
        parts = readable.split("/", attributes - 1)
        if len(parts) == attributes:
            yield encode_composite_key("t", parts)


def of_simple(key: bytes) -> str:
    return external_id(key, ())


def of_composite(key: bytes) -> str:
    parts = split_composite_key(key)
    assert parts is not None
    return external_id(key, parts[1])


@pytest.mark.parametrize(
    ("keys", "name"),
    [
        (simple_keys, of_simple),
        *[(lambda choose, n=count: composite_keys(choose, n), of_composite) for count in (1, 3)],
    ],
    ids=["simple", "one attribute", "three attributes"],
)
def test_no_two_of_many_keys_made_to_clash_have_one_id(
    keys: Callable[[random.Random], Iterator[bytes]], name: Callable[[bytes], str]
) -> None:
    found: dict[str, bytes] = {}
    for key, _ in zip(keys(random.Random(6)), range(ROUND), strict=False):  # noqa: S311  a seed that gives the same keys
        text = name(key)
        check(text)
        assert found.setdefault(text, key) == key, (key, found[text])
    assert len(found) > ROUND // 5


ATTRIBUTES = st.text(st.characters(exclude_characters="\x00\U0010ffff", codec="utf-8")) | st.sampled_from(
    [piece for piece in PIECES if "\x00" not in piece]
)


@given(st.lists(ATTRIBUTES, min_size=1, max_size=3), st.lists(ATTRIBUTES, min_size=1, max_size=3))
@example(["a", "b/c"], ["a/b", "c"])
@example(["a", ""], ["", "a"])
@example(["%2F"], ["/"])
def test_composite_keys_of_a_table_differ_in_their_ids(first: list[str], second: list[str]) -> None:
    count = min(len(first), len(second))
    one, other = tuple(first[:count]), tuple(second[:count])
    ids = [external_id(encode_composite_key("t", parts), parts) for parts in (one, other)]

    for text in ids:
        check(text)
    assert (ids[0] == ids[1]) == (one == other)


@given(st.binary(max_size=700) | st.text().map(str.encode), st.binary(max_size=700) | st.text().map(str.encode))
@example(b"\xff", b"%FF")
@example(b"\xc2\x85", b"%C2%85")
@example(b"a" * 512, b"a" * 511)
def test_simple_keys_differ_in_their_ids(first: bytes, second: bytes) -> None:
    ids = [external_id(key, ()) for key in (first, second)]

    for text in ids:
        check(text)
    assert (ids[0] == ids[1]) == (first == second)


@given(
    st.lists(st.sampled_from(["a", "b", "a/b", "a%2Fb", "~", "a~"]), min_size=2, max_size=2), st.binary(max_size=600)
)
def test_one_key_in_two_collections_of_a_table_has_two_ids(collections: Sequence[str], key: bytes) -> None:
    ids = [external_id(key, (), collection) for collection in collections]

    for text in ids:
        check(text)
    assert (ids[0] == ids[1]) == (collections[0] == collections[1])


def test_a_collection_and_a_key_are_told_apart() -> None:
    pairs = [
        ("a", b"b/c"),
        ("a/b", b"c"),
        ("a%2Fb", b"c"),
        ("a", b"b%2Fc"),
        ("a~", b"x" * 600),
        ("a", b"~" + b"x" * 600),
    ]

    assert len({external_id(key, (), collection) for collection, key in pairs}) == len(pairs)


@pytest.mark.parametrize(
    ("key", "attributes", "collection", "expected"),
    [
        (b"meter 7/b", (), "", "meter 7/b"),
        ("Zähler-漢".encode(), (), "", "Zähler-漢"),
        (encode_composite_key("request", ["r-1"]), ("r-1",), "", "r-1"),
        (encode_composite_key("visit", ["r-1", "2"]), ("r-1", "2"), "", "r-1/2"),
        (encode_composite_key("visit", ["r/1", ""]), ("r/1", ""), "", "r%2F1/"),
        (encode_composite_key("settings", []), (), "", "%00settings%00"),
        (b"100% ~\n\xff", (), "", "100%25 %7E%0A%FF"),
        (b"k", (), "billing", "billing/k"),
        (b"", (), "", ""),
    ],
)
def test_ids_read_as_people_would_write_them(
    key: bytes, attributes: tuple[str, ...], collection: str, expected: str
) -> None:
    assert external_id(key, attributes, collection) == expected


def test_long_ids_keep_their_beginning_and_end_in_a_digest_of_the_key() -> None:
    longest = external_id(b"a" * MAX_EXTERNAL_ID_BYTES, ())
    cut = external_id(b"a" * (MAX_EXTERNAL_ID_BYTES + 1), ())

    assert longest == "a" * MAX_EXTERNAL_ID_BYTES
    assert re.fullmatch(r"a{447}~[0-9a-f]{64}", cut)
    assert external_id(cut.encode(), ()) != cut


def test_a_cut_id_never_ends_inside_a_character() -> None:
    text = external_id(("漢" * 400).encode(), ())

    assert re.fullmatch(r"漢{149}~[0-9a-f]{64}", text)
