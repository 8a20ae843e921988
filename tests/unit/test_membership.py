"""Who should hold which private value, as the chain's own definitions say."""

from collections.abc import Iterable

import pytest
from fabric_protos.peer.lifecycle import db_pb2

from kvr_sync.membership import Membership
from kvr_sync.model import (
    BlockChanges,
    CollectionMembership,
    Effect,
    EffectiveWrite,
    LedgerKey,
    PrivateChange,
    ReplayedBlock,
    StateValue,
    WriteKind,
)
from kvr_sync.private_data import NO_PRIVATE_DATA, PrivateData, PrivateValue
from network.protocol.block import BlockHeader
from network.protocol.collection import CollectionConfig, encode_collections, implicit_collection_name, members_policy
from network.protocol.private_data import collections_field_key
from network.protocol.read_write_set import Version

FIELD = LedgerKey("_lifecycle", "", collections_field_key("ext"))
HASH = bytes(32)


def definition(*members: str, block_to_live: int = 0) -> bytes:
    config = CollectionConfig("secrets", members_policy(*members), block_to_live=block_to_live)
    return bytes(db_pb2.StateData(Bytes=encode_collections([config])).SerializeToString())


def membership(state: bytes | None = None, asked: list[LedgerKey] | None = None) -> Membership:
    def read(keys: Iterable[LedgerKey]) -> dict[LedgerKey, StateValue]:
        wanted = list(keys)
        if asked is not None:
            asked.extend(wanted)
        return {} if state is None else {key: StateValue(state, Version(1, 0)) for key in wanted if key == FIELD}

    return Membership("OwnMSP", read)


def block(*writes: EffectiveWrite, number: int = 7) -> ReplayedBlock:
    changes = BlockChanges(BlockHeader(number, b"", b""), b"", b"\x00", (), (), (), (), None)
    return ReplayedBlock(changes, writes, None, commit_hash_verified=False)


def private(effect: Effect = Effect.PUT, collection: str = "secrets", write_number: int = 0) -> EffectiveWrite:
    value = None if effect in (Effect.DELETE, Effect.NONE) else b"hash"
    return EffectiveWrite(0, write_number, LedgerKey("ext", collection, HASH), WriteKind.PUT, effect, value, b"")


def define(content: bytes | None, key: LedgerKey = FIELD) -> EffectiveWrite:
    effect = Effect.DELETE if content is None else Effect.PUT
    return EffectiveWrite(0, 0, key, WriteKind.PUT, effect, content, content or b"")


def effects(of: Membership, *writes: EffectiveWrite, data: PrivateData = NO_PRIVATE_DATA) -> list[tuple[object, ...]]:
    changes = of.derive(block(*writes), data).changes
    return [(change.effect, change.value, change.expiring_block) for change in changes]


def test_a_value_that_was_handed_over_is_held() -> None:
    write = private()
    data = PrivateData((PrivateValue(0, 0, write.key, b"key", b"value"),), {}, 0)

    (change,) = membership(definition("OwnMSP")).derive(block(write), data).changes

    assert change == PrivateChange(0, 0, write.key, Effect.PUT, b"key", b"value", b"hash", None)


def test_a_member_misses_what_was_not_handed_over_and_others_hold_nothing() -> None:
    assert effects(membership(definition("OtherMSP", "OwnMSP")), private()) == [(Effect.MISSING, None, None)]
    assert effects(membership(definition("OtherMSP")), private()) == [(Effect.DELETE, None, None)]


@pytest.mark.parametrize("state", [None, b"\xff", definition("OwnMSP")[:-1]])
def test_a_collection_without_a_readable_definition_has_no_members(state: bytes | None) -> None:
    assert effects(membership(state), private()) == [(Effect.DELETE, None, None)]


def test_an_implicit_collection_belongs_to_its_organisation() -> None:
    own, other = implicit_collection_name("OwnMSP"), implicit_collection_name("OtherMSP")

    assert effects(membership(), private(collection=own), private(collection=other)) == [
        (Effect.MISSING, None, None),
        (Effect.DELETE, None, None),
    ]


def test_block_to_live_tells_the_block_of_expiry() -> None:
    of = membership(definition("OwnMSP", block_to_live=3))

    assert effects(of, private(), private(Effect.VERSION)) == [(Effect.MISSING, None, 11), (Effect.VERSION, None, 11)]


def test_writes_without_effect_and_public_ones_change_nothing() -> None:
    public = EffectiveWrite(0, 0, LedgerKey("ext", "", b"k"), WriteKind.PUT, Effect.PUT, b"v", b"v")

    assert effects(membership(definition("OwnMSP")), private(Effect.NONE), public) == []


def test_a_definition_is_asked_for_once_and_then_followed() -> None:
    asked: list[LedgerKey] = []
    of = membership(definition("OtherMSP"), asked)
    assert effects(of, private()) == [(Effect.DELETE, None, None)]
    assert effects(of, private()) == [(Effect.DELETE, None, None)]
    assert asked == [FIELD]

    told = of.derive(block(define(definition("OtherMSP", "OwnMSP", block_to_live=2))), NO_PRIVATE_DATA).memberships

    assert told == (CollectionMembership("ext", "secrets", 2),)
    assert effects(of, private()) == [(Effect.MISSING, None, 10)]
    assert of.derive(block(define(None)), NO_PRIVATE_DATA).memberships == ()
    assert effects(of, private()) == [(Effect.DELETE, None, None)]
    assert asked == [FIELD]


@pytest.mark.parametrize(
    "key",
    [
        LedgerKey("ext", "", FIELD.key),
        LedgerKey("_lifecycle", "", b"namespaces/fields/ext/Sequence"),
        LedgerKey("_lifecycle", "", b"namespaces/fields/\xff/Collections"),
        LedgerKey("_lifecycle", implicit_collection_name("OwnMSP"), FIELD.key),
    ],
)
def test_other_keys_are_no_definitions(key: LedgerKey) -> None:
    told = membership().derive(block(define(definition("OwnMSP"), key)), NO_PRIVATE_DATA)

    assert told.memberships == ()
