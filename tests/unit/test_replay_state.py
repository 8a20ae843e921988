"""Effects of writes on the world state, with the state before behind a reader and an overlay."""

import pytest
from fabric_protos.peer import collection_pb2
from fabric_protos.peer.lifecycle import db_pb2

from kvr_sync import errors
from kvr_sync.model import BlockChanges, Effect, LedgerKey, StateValue, Write, WriteKind
from kvr_sync.replay_state import StateReplay, check_commit_hash
from network.protocol.block import BlockHeader
from network.protocol.commit_hash import commit_hash
from network.protocol.read_write_set import MetadataEntry, Version

KEY = LedgerKey("cc", "", b"k")
OTHER = LedgerKey("cc", "", b"other")
HASHED = LedgerKey("cc", "coll", b"h" * 32)
COLLECTIONS = LedgerKey("_lifecycle", "", b"namespaces/fields/cc/Collections")


def block(number: int, *writes: tuple[int, LedgerKey, WriteKind, bytes]) -> BlockChanges:
    counts: dict[int, int] = {}
    numbered = []
    for tx_number, key, kind, value in writes:
        numbered.append(Write(tx_number, counts.get(tx_number, 0), key, kind, value))
        counts[tx_number] = counts.get(tx_number, 0) + 1
    flags = bytes(max(counts, default=0) + 1)
    return BlockChanges(BlockHeader(number, b"", b""), b"", flags, (), tuple(numbered), (), (), None)


def line(state: dict[LedgerKey, StateValue] | None = None) -> StateReplay:
    known = state or {}
    return StateReplay(lambda keys: {key: known[key] for key in keys if key in known}, None)


def effects(replay: StateReplay, changes: BlockChanges) -> list[tuple[Effect, bytes | None]]:
    return [(write.effect, write.value) for write in replay.replay(changes).writes]


def test_puts_and_deletes_say_their_effect_themselves() -> None:
    def unread(keys: object) -> dict[LedgerKey, StateValue]:
        raise AssertionError(keys)

    replayed = StateReplay(unread, None).replay(
        block(1, (0, KEY, WriteKind.PUT, b"a"), (0, OTHER, WriteKind.DELETE, b""), (1, KEY, WriteKind.PUT, b"b"))
    )

    assert [(write.effect, write.value) for write in replayed.writes] == [
        (Effect.PUT, b"a"),
        (Effect.DELETE, None),
        (Effect.PUT, b"b"),
    ]
    assert replayed.commit_hash == commit_hash(
        b"\0\0", {KEY: (b"b", Version(1, 1)), OTHER: (None, Version(1, 0))}, None
    )


def test_metadata_of_a_committed_key_moves_its_version_and_keeps_its_value() -> None:
    replay = line({KEY: StateValue(b"kept", Version(1, 0))})

    replayed = replay.replay(block(5, (0, KEY, WriteKind.METADATA, b"")))

    assert [(write.effect, write.value) for write in replayed.writes] == [(Effect.VERSION, b"kept")]
    assert replayed.commit_hash == commit_hash(b"\0", {KEY: (b"kept", Version(5, 0))}, None)


def test_metadata_of_a_missing_key_does_nothing() -> None:
    replayed = line().replay(block(5, (0, KEY, WriteKind.METADATA, b"")))

    assert [(write.effect, write.value) for write in replayed.writes] == [(Effect.NONE, None)]
    assert replayed.commit_hash == commit_hash(b"\0", {}, None)


def test_metadata_sees_the_value_of_an_earlier_transaction_of_the_same_block() -> None:
    replay = line({KEY: StateValue(b"old", Version(1, 0))})

    found = effects(replay, block(5, (0, KEY, WriteKind.PUT, b"new"), (1, KEY, WriteKind.METADATA, b"")))

    assert found == [(Effect.PUT, b"new"), (Effect.VERSION, b"new")]


def test_metadata_sees_the_value_of_an_uncommitted_block_of_the_run_and_its_deletion() -> None:
    replay = line({KEY: StateValue(b"old", Version(1, 0))})
    replay.replay(block(5, (0, KEY, WriteKind.PUT, b"new"), (0, OTHER, WriteKind.PUT, b"x")))
    replay.replay(block(6, (0, OTHER, WriteKind.DELETE, b"")))

    found = effects(replay, block(7, (0, KEY, WriteKind.METADATA, b""), (0, OTHER, WriteKind.METADATA, b"")))

    assert found == [(Effect.VERSION, b"new"), (Effect.NONE, None)]


def test_committed_blocks_leave_the_overlay_and_are_read_from_the_database() -> None:
    state = {KEY: StateValue(b"from the database", Version(5, 0))}
    replay = line(state)
    replay.replay(block(5, (0, KEY, WriteKind.PUT, b"from the overlay")))
    replay.replay(block(6, (0, OTHER, WriteKind.PUT, b"x")))

    replay.committed(1)

    assert effects(replay, block(7, (0, KEY, WriteKind.METADATA, b""), (1, OTHER, WriteKind.METADATA, b""))) == [
        (Effect.VERSION, b"from the database"),
        (Effect.VERSION, b"x"),
    ]


def test_the_write_that_holds_the_final_value_carries_the_effect() -> None:
    found = effects(
        line(),
        block(1, (0, KEY, WriteKind.PUT, b"v"), (0, OTHER, WriteKind.PUT, b"o"), (0, KEY, WriteKind.METADATA, b"")),
    )

    assert found == [(Effect.PUT, b"v"), (Effect.PUT, b"o"), (Effect.NONE, None)]


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        ((WriteKind.PUT, WriteKind.DELETE), [(Effect.NONE, None), (Effect.DELETE, None)]),
        ((WriteKind.DELETE, WriteKind.PUT), [(Effect.DELETE, None), (Effect.NONE, None)]),
        ((WriteKind.PUT, WriteKind.PUT), [(Effect.NONE, None), (Effect.VERSION, b"old")]),
        ((WriteKind.DELETE, WriteKind.DELETE), [(Effect.NONE, None), (Effect.VERSION, b"old")]),
        ((WriteKind.PUT,) * 3, [(Effect.NONE, None), (Effect.NONE, None), (Effect.PUT, b"2")]),
    ],
)
def test_a_key_written_twice_in_one_transaction_ends_as_in_fabric(
    kinds: tuple[WriteKind, ...], expected: list[tuple[Effect, bytes | None]]
) -> None:
    replay = line({KEY: StateValue(b"old", Version(1, 0))})

    found = effects(replay, block(2, *((0, KEY, kind, str(index).encode()) for index, kind in enumerate(kinds))))

    assert found == expected


POLICY, OTHER_POLICY = ((MetadataEntry("VALIDATION_PARAMETER", content),) for content in (b"policy", b"other"))


@pytest.mark.parametrize("key", [KEY, HASHED], ids=["public", "private"])
@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ([(WriteKind.METADATA, POLICY)], [(Effect.VERSION, POLICY)]),
        ([(WriteKind.METADATA_REMOVED, ())], [(Effect.VERSION, ())]),
        (
            [(WriteKind.METADATA, POLICY), (WriteKind.METADATA, OTHER_POLICY)],
            [(Effect.NONE, None), (Effect.VERSION, OTHER_POLICY)],
        ),
        ([(WriteKind.PUT, ())], [(Effect.PUT, None)]),
        ([(WriteKind.PUT, ()), (WriteKind.METADATA, POLICY)], [(Effect.PUT, POLICY), (Effect.NONE, None)]),
        ([(WriteKind.DELETE, ()), (WriteKind.METADATA, POLICY)], [(Effect.DELETE, None), (Effect.NONE, None)]),
        ([(WriteKind.PUT, ()), (WriteKind.PUT, ())], [(Effect.NONE, None), (Effect.VERSION, ())]),
    ],
    ids=[
        "set",
        "removed",
        "set twice",
        "value alone",
        "with a value",
        "with a delete",
        "lost by a value written twice",
    ],
)
def test_tells_what_the_metadata_of_a_key_became(
    key: LedgerKey,
    written: list[tuple[WriteKind, tuple[MetadataEntry, ...]]],
    expected: list[tuple[Effect, tuple[MetadataEntry, ...] | None]],
) -> None:
    changes = block(2, *((0, key, kind, b"new" if kind is WriteKind.PUT else b"") for kind, _ in written))
    writes = tuple(
        [write._replace(entries=entries) for write, (_, entries) in zip(changes.writes, written, strict=True)]
    )

    replayed = line({key: StateValue(b"old", Version(1, 0))}).replay(changes._replace(writes=writes))

    assert [write.entries for write in replayed.writes] == [entries for _, entries in written]
    assert [(write.effect, write.metadata) for write in replayed.writes] == expected


def lifecycle_collections(block_to_live: int) -> bytes:
    config = collection_pb2.CollectionConfig(
        static_collection_config=collection_pb2.StaticCollectionConfig(name="coll", block_to_live=block_to_live)
    )
    package = collection_pb2.CollectionConfigPackage(config=[config])
    return bytes(db_pb2.StateData(Bytes=package.SerializeToString()).SerializeToString())


@pytest.mark.parametrize(
    ("block_to_live", "at_block", "effect"),
    [(0, 999, Effect.VERSION), (3, 14, Effect.VERSION), (3, 15, Effect.NONE)],
)
def test_metadata_of_an_expired_private_key_does_nothing(block_to_live: int, at_block: int, effect: Effect) -> None:
    replay = line(
        {
            HASHED: StateValue(b"hash", Version(10, 0)),
            COLLECTIONS: StateValue(lifecycle_collections(block_to_live), Version(4, 0)),
        }
    )

    ((found, _),) = effects(replay, block(at_block, (0, HASHED, WriteKind.METADATA, b"")))

    assert found == effect


def test_a_recorded_commit_hash_that_does_not_follow_is_refused() -> None:
    replayed = line().replay(block(1, (0, KEY, WriteKind.PUT, b"a")))

    with pytest.raises(errors.CommitHashError, match="block 1"):
        check_commit_hash(replayed, bytes(32))


def test_a_missing_commit_hash_is_accepted_and_stays_visible() -> None:
    replayed = check_commit_hash(line().replay(block(1, (0, KEY, WriteKind.PUT, b"a"))), None)

    assert not replayed.commit_hash_verified


def test_block_zero_has_no_commit_hash() -> None:
    assert line().replay(block(0)).commit_hash is None
