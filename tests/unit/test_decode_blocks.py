"""Decoding many transactions at once gives exactly what decoding them one by one gives, whatever they are."""

import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvr_sync.decode import decode_block, decode_blocks, decode_by_itself, decode_plain
from kvr_sync.model import DecodedTransaction
from network.protocol.decode import decode_frame
from network.protocol.errors import DecodeError
from network.protocol.validation_code import NOT_VALIDATED
from network.protocol.wire import envelope_defect, scan_fields, varint
from tests.support.chain_factory import ChainFactory, TransactionSpec, delete, purge, put, set_metadata
from tests.support.envelope import CHANGES, PLACES, change_inside
from tests.support.recorded_chain import ALL_CHAINS, change_block, load_chain


def by_themselves(envelopes: Sequence[bytes]) -> list[DecodedTransaction]:
    return [decode_by_itself(number, 7, envelope) for number, envelope in enumerate(envelopes)]


def at_once(envelopes: Sequence[bytes]) -> list[DecodedTransaction | None]:
    return decode_plain(envelopes, [(number, 7) for number in range(len(envelopes))])


def assert_never_otherwise(envelopes: Sequence[bytes]) -> int:
    """Compare, and count the envelopes that were read at once."""
    plain = 0
    for envelope, found, expected in zip(envelopes, at_once(envelopes), by_themselves(envelopes), strict=True):
        if found is not None:
            assert found == expected, envelope.hex()
            plain += 1
    return plain


def recorded(chain: str) -> list[bytes]:
    return [envelope for content in load_chain(chain).blocks for envelope in decode_frame(content).envelopes]


FACTORY = ChainFactory()
MADE = [
    FACTORY.envelope(TransactionSpec(*arguments, **more))  # type: ignore[arg-type]  # keywords of several types
    for arguments, more in [
        (([put("a", b"1")],), {}),
        (([put("a", b"v" * 20_000), delete("b"), put("c", b"")],), {"event": ("opened", b"payload")}),
        (
            (
                [
                    put("secret", b"2", collection="second"),
                    put("secret", b"3", collection="first"),
                    delete("secret", collection="third"),
                    purge("secret", collection="fourth"),
                    put("empty", b"", collection="first"),
                    put("far", b"4", namespace="another"),
                    put("z", b"5"),
                ],
            ),
            {"reads": [("a", None), ("b", None)], "endorsers": 3},
        ),
        (([put("schlüssel", b"1"), put("钥匙", b"2", namespace="命名空间")],), {"function": b""}),
        (((),), {}),
    ]
]
ORDINARY = decode_frame(load_chain("fabric-3.1.5-raft").blocks[17]).envelopes[0]
"""With public and private writes, an event and two endorsements."""
ODD = [
    FACTORY.envelope(TransactionSpec([put("a", b"1"), set_metadata("a", {"VALIDATION_PARAMETER": b"policy"})])),
    FACTORY.envelope(TransactionSpec([set_metadata("a", {"x": b"y"}, collection="first")])),
    FACTORY.envelope(TransactionSpec([put(str(number), b"1") for number in range(100)])),
]
"""Read one by one."""


@pytest.mark.parametrize("chain", ALL_CHAINS)
def test_transactions_of_real_networks_are_the_same_and_most_are_plain(chain: str) -> None:
    envelopes = recorded(chain)

    plain = assert_never_otherwise(envelopes)

    assert plain > len(envelopes) * 0.8


def test_made_transactions_are_the_same_and_plain() -> None:
    assert assert_never_otherwise(MADE) == len(MADE)
    assert assert_never_otherwise(MADE + ODD) == len(MADE)
    assert [len(found.writes) for found in at_once(MADE) if found] == [1, 3, 7, 2, 0]


def test_no_envelopes_are_no_transactions() -> None:
    assert at_once([]) == []


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("is_made", [False, True], ids=["recorded", "made"])
def test_an_odd_form_anywhere_is_never_read_otherwise(place: str, is_made: bool) -> None:
    original = MADE[1] if is_made else ORDINARY
    odd = [change_inside(original, PLACES[place], change) for change in CHANGES.values()]

    assert_never_otherwise([original, *odd, original])

    assert at_once([original, *odd])[0] is not None


def long_length(content: bytes, path: tuple[int, ...]) -> bytes:
    """Write the length of the message at a path in one byte more than it needs."""
    (*outer, number) = path

    def change(message: bytes) -> bytes:
        out = b""
        for field in scan_fields(message):
            head = varint(field.number << 3 | field.wire_type)
            if field.number == number and field.wire_type == 2:
                length = bytearray(varint(len(field.content)))
                length[-1] |= 0x80
                out += head + bytes(length) + b"\x00" + field.content
            else:
                out += head + field.raw
        return out

    return change_inside(content, tuple(outer), change)


def swapped(message: bytes) -> bytes:
    fields = sorted(scan_fields(message), key=lambda field: -field.number)
    return b"".join([varint(field.number << 3 | field.wire_type) + field.raw for field in fields])


# The bytes of a ChaincodeID are given to the protobuf library, in whatever form they are.
@pytest.mark.parametrize("place", [place for place, path in PLACES.items() if path and place != "chaincode id"])
def test_lengths_that_are_not_the_shortest_and_fields_in_another_order_are_left_alone(place: str) -> None:
    original, path = MADE[1], PLACES[place]
    odd = [long_length(original, path)]
    if (other := change_inside(original, path, swapped)) != original:
        odd.append(other)

    assert at_once(odd) == [None] * len(odd)


SPOILT: dict[str, Callable[[bytes, int], bytes]] = {
    "lowest bit flipped": lambda content, at: content[:at] + bytes((content[at] ^ 1,)) + content[at + 1 :],
    "highest bit flipped": lambda content, at: content[:at] + bytes((content[at] ^ 0x80,)) + content[at + 1 :],
    "another field": lambda content, at: content[:at] + bytes((content[at] ^ 8,)) + content[at + 1 :],
    "zero": lambda content, at: content[:at] + b"\x00" + content[at + 1 :],
    "all bits": lambda content, at: content[:at] + b"\xff" + content[at + 1 :],
    "cut": lambda content, at: content[:at],
    "byte missing": lambda content, at: content[:at] + content[at + 1 :],
    "byte twice": lambda content, at: content[: at + 1] + content[at:],
    "zero inserted": lambda content, at: content[:at] + b"\x00" + content[at:],
}


@pytest.mark.parametrize("kind", SPOILT)
@pytest.mark.parametrize("envelope", [0, 2])
def test_any_single_byte_spoilt_is_never_read_otherwise(kind: str, envelope: int) -> None:
    original = MADE[envelope]

    assert_never_otherwise([SPOILT[kind](original, at) for at in range(len(original))])


@settings(max_examples=100)
@given(st.randoms(use_true_random=False), st.sampled_from(MADE))
def test_many_bytes_spoilt_are_never_read_otherwise(chance: random.Random, original: bytes) -> None:
    envelopes = []
    for _ in range(20):
        content = original
        for _ in range(chance.randint(1, 4)):
            content = chance.choice(list(SPOILT.values()))(content, chance.randrange(len(content))) or b"\x00"
        envelopes.append(content)

    assert_never_otherwise(envelopes)


@given(st.lists(st.binary(max_size=60), max_size=6))
def test_any_bytes_are_never_read_otherwise(envelopes: list[bytes]) -> None:
    assert_never_otherwise(envelopes)


def test_what_is_plain_has_the_form_that_fabric_accepts() -> None:
    envelopes = [SPOILT[kind](MADE[0], at) for kind in SPOILT for at in (0, 1, 2, len(MADE[0]) - 72, len(MADE[0]) - 73)]
    envelopes += [MADE[0] + b"\x12\x00", MADE[0] + b"\x1a\x00", MADE[0] + MADE[0], *MADE]

    defects = [
        envelope_defect(envelope) for envelope, found in zip(envelopes, at_once(envelopes), strict=True) if found
    ]

    assert len(defects) >= len(MADE)
    assert set(defects) == {None}


def test_neighbours_that_are_spoilt_change_nothing() -> None:
    chance = random.Random(7)  # noqa: S311  # the same each time
    spoilt = [bytes(chance.randbytes(chance.randrange(200))) for _ in range(300)]
    mixed = [envelope for pair in zip(MADE * 60, spoilt, strict=True) for envelope in pair]

    assert assert_never_otherwise(mixed) == 300


# --- blocks


@pytest.mark.parametrize("chain", ALL_CHAINS)
def test_blocks_together_are_the_blocks_one_by_one(chain: str) -> None:
    contents = load_chain(chain).blocks

    assert list(decode_blocks(contents)) == [decode_block(content) for content in contents]


def test_a_block_with_more_bytes_than_are_read_at_once_is_the_same() -> None:
    envelopes = (MADE + ODD) * 400
    content = change_block(FACTORY.genesis(), lambda block: block.data.data.__setitem__(slice(None), envelopes))

    block = decode_block(content)

    assert sum(map(len, envelopes)) > 8 * 1024 * 1024
    assert block.transactions == tuple(
        [decode_by_itself(number, NOT_VALIDATED, envelope) for number, envelope in enumerate(envelopes)]
    )


def test_the_blocks_before_one_that_is_none_are_given() -> None:
    contents = load_chain("fabric-3.1.5-raft").blocks
    blocks = decode_blocks([*contents[:5], b"no block", contents[5]])

    assert [next(blocks).header.number for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(DecodeError):
        next(blocks)


def test_verdicts_are_those_of_the_flags_and_none_where_flags_are_missing() -> None:
    content = load_chain("fabric-3.1.5-raft").blocks[6]

    def shorten(block: Any) -> None:
        block.metadata.metadata[2] = b""

    assert [it.facts.validation_code for it in decode_block(content).transactions] == list(decode_block(content).flags)
    short = decode_block(change_block(content, shorten))
    assert {it.facts.validation_code for it in short.transactions} == {NOT_VALIDATED}
