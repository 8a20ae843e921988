"""Every rule of the verifier, with validly signed chains in which exactly one thing is wrong."""

from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Any

import pytest
from fabric_protos.common import common_pb2, configtx_pb2

from kvr_sync import errors
from kvr_sync.decode import decode_block
from kvr_sync.model import Checkpoint
from kvr_sync.verify import ChainVerifier, VerifiedBlock
from tests.support.chain_factory import (
    ANY,
    ChainFactory,
    TransactionSpec,
    put,
    rehash,
    set_policy,
)
from tests.support.credential import implicit_policy
from tests.support.recorded_chain import change_block

ORDINARY = (TransactionSpec([put("a", b"1")]), TransactionSpec([put("b", b"2")]))


def verify(verifier: ChainVerifier, content: bytes) -> VerifiedBlock:
    return verifier.verify(decode_block(content), content)


def verifier_at_tip(factory: ChainFactory) -> ChainVerifier:
    """Give a verifier that has accepted every block made so far."""
    verifier = ChainVerifier()
    for content in factory.blocks:
        verify(verifier, content)
    return verifier


def refuse(
    verifier: ChainVerifier, content: bytes, error: type[errors.VerificationError], text: str | None = None
) -> errors.VerificationError:
    with pytest.raises(error, match=text) as refused:
        verify(verifier, content)
    assert type(refused.value) is error
    assert refused.value.block_number == decode_block(content).header.number
    return refused.value


class World:
    """A chain of three blocks that the verifier accepted, and the right fourth one."""

    def __init__(self, factory: ChainFactory, specs: Sequence[TransactionSpec] = ORDINARY) -> None:
        self.factory = factory
        for _ in range(2):
            factory.block(ORDINARY)
        self.verifier = verifier_at_tip(factory)
        self.right = factory.block(specs)

    def changed(self, change: Callable[[Any], None], *, resigned: bool = True) -> bytes:
        """Give the right block after a change, with a data hash that fits and the orderers' signatures on it."""

        def then_sign(block: Any) -> None:
            change(block)
            rehash(block)
            self.factory.resign(block)

        return change_block(self.right, then_sign if resigned else change)


@pytest.fixture
def world() -> World:
    return World(ChainFactory())


@pytest.fixture(params=["raft", "bft"])
def any_world(request: pytest.FixtureRequest) -> World:
    return World(ChainFactory(consensus=request.param))


def test_accepts_the_right_block_and_says_channel_hash_and_configuration(any_world: World) -> None:
    verified = verify(any_world.verifier, any_world.right)

    assert verified.channel == "consortium"
    assert verified.config is None
    assert verified.block.header.number == 3
    following = any_world.factory.block(ORDINARY)
    assert verified.header_hash == decode_block(following).header.previous_hash


def test_verifies_again_what_its_own_changes_leave_alone(world: World) -> None:
    """Nothing in how these tests change a block is itself a reason to refuse it."""
    verify(world.verifier, world.changed(lambda _: None))


# 1. Number and channel.


def test_rejects_a_first_block_other_than_0() -> None:
    factory = ChainFactory()

    refuse(ChainVerifier(), factory.block(ORDINARY), errors.BlockNumberError, "block 0 was expected, block 1 came")


def test_rejects_a_gap(world: World) -> None:
    refuse(world.verifier, world.factory.block(ORDINARY), errors.BlockNumberError, "block 3 was expected, block 4 came")


def test_rejects_a_repeated_block(world: World) -> None:
    refuse(world.verifier, world.factory.blocks[2], errors.BlockNumberError, "block 3 was expected, block 2 came")


def test_rejects_a_right_block_under_another_number(world: World) -> None:
    def renumber(block: Any) -> None:
        block.header.number = 5

    refuse(world.verifier, world.changed(renumber), errors.BlockNumberError)


def test_rejects_a_block_of_another_channel_naming_both(world: World) -> None:
    foreign = World(ChainFactory(channel="elsewhere")).right

    error = refuse(world.verifier, foreign, errors.ChannelMismatchError)

    assert "elsewhere" in str(error)
    assert "consortium" in str(error)


def test_rejects_a_genesis_block_of_another_channel_than_asked_for() -> None:
    verifier = ChainVerifier(channel="consortium")

    refuse(verifier, ChainFactory(channel="elsewhere").genesis(), errors.ChannelMismatchError)


# 2. Previous hash.


def test_rejects_a_block_that_follows_another_one(world: World) -> None:
    def follow_another(block: Any) -> None:
        block.header.previous_hash = sha256(b"another").digest()

    refuse(world.verifier, world.changed(follow_another), errors.PreviousHashError, "does not extend our chain")


def test_rejects_a_block_whose_previous_hash_is_empty(world: World) -> None:
    def follow_nothing(block: Any) -> None:
        block.header.previous_hash = b""

    refuse(world.verifier, world.changed(follow_nothing), errors.PreviousHashError, "is empty")


def test_rejects_block_0_with_a_previous_hash() -> None:
    def follow(block: Any) -> None:
        block.header.previous_hash = bytes(32)

    refuse(ChainVerifier(), change_block(ChainFactory().genesis(), follow), errors.PreviousHashError)


def test_rejects_a_validly_signed_fork_of_our_own_network() -> None:
    ours, theirs = ChainFactory(seed=4), ChainFactory(seed=4)
    ours.block([TransactionSpec([put("a", b"ours")])])
    theirs.block([TransactionSpec([put("a", b"theirs")])])
    verifier = verifier_at_tip(ours)

    refuse(verifier, theirs.block(ORDINARY), errors.PreviousHashError)


# 3. Metadata slots.


@pytest.mark.parametrize("slots", [0, 1, 4])
def test_rejects_a_block_with_fewer_than_five_slots(world: World, slots: int) -> None:
    def cut(block: Any) -> None:
        del block.metadata.metadata[slots:]

    refuse(world.verifier, change_block(world.right, cut), errors.BlockSignatureError, f"has {slots} metadata slots")


# 4. Form of envelopes.


def test_rejects_a_block_whose_envelopes_were_recut(world: World) -> None:
    """The data hash covers the joined bytes alone: where one envelope ends is kept honest by the form."""

    def join(block: Any) -> None:
        joined = b"".join(block.data.data)
        block.data.data[:] = [joined]
        block.metadata.metadata[2] = bytes(1)

    refuse(world.verifier, world.changed(join, resigned=False), errors.MalformedEnvelopeError, "transaction 0")


def test_rejects_a_block_whose_envelopes_were_cut_elsewhere(world: World) -> None:
    def shift(block: Any) -> None:
        first, second = block.data.data
        block.data.data[:] = [first[:-5], first[-5:] + second]

    refuse(world.verifier, world.changed(shift, resigned=False), errors.MalformedEnvelopeError)


def test_accepts_an_unknown_field_at_the_end_of_an_envelope(world: World) -> None:
    def extend(block: Any) -> None:
        block.data.data[1] += b"\x1a\x03new"

    verify(world.verifier, world.changed(extend))


def test_rejects_an_envelope_with_its_fields_swapped(world: World) -> None:
    def swap(block: Any) -> None:
        envelope = common_pb2.Envelope.FromString(block.data.data[1])
        payload = common_pb2.Envelope(payload=envelope.payload).SerializeToString()
        signature = common_pb2.Envelope(signature=envelope.signature).SerializeToString()
        block.data.data[1] = signature + payload

    refuse(world.verifier, world.changed(swap), errors.MalformedEnvelopeError, "transaction 1.*not in canonical form")


@pytest.mark.parametrize("field", ["payload", "signature"])
def test_rejects_an_envelope_without_payload_or_signature_whatever_its_flag(world: World, field: str) -> None:
    def clear(block: Any) -> None:
        envelope = common_pb2.Envelope.FromString(block.data.data[0])
        envelope.ClearField(field)
        block.data.data[0] = envelope.SerializeToString()
        block.metadata.metadata[2] = bytes([1, 0])

    refuse(world.verifier, world.changed(clear), errors.MalformedEnvelopeError, f"no {field}")


def test_rejects_an_empty_block(world: World) -> None:
    def empty(block: Any) -> None:
        del block.data.data[:]
        block.metadata.metadata[2] = b""

    refuse(world.verifier, world.changed(empty), errors.MalformedEnvelopeError, "empty")


def test_accepts_a_lone_configuration_in_another_form() -> None:
    """Fabric exempts it, as it must: the genesis envelope has no signature."""
    factory = ChainFactory()

    verified = verify(ChainVerifier(), factory.genesis())

    assert not common_pb2.Envelope.FromString(verified.block.envelopes[0]).signature


# 5. Data hash.


def test_rejects_changed_data(any_world: World) -> None:
    def change(block: Any) -> None:
        block.data.data[1] = any_world.factory.envelope(TransactionSpec([put("b", b"forged")]))

    refuse(any_world.verifier, any_world.changed(change, resigned=False), errors.DataHashError)


def test_rejects_removed_data(any_world: World) -> None:
    def remove(block: Any) -> None:
        del block.data.data[1]
        block.metadata.metadata[2] = bytes(1)

    refuse(any_world.verifier, any_world.changed(remove, resigned=False), errors.DataHashError)


# 6. Signatures.


def test_rejects_changed_data_whose_hash_was_made_to_fit(any_world: World) -> None:
    def change(block: Any) -> None:
        block.data.data[1] = any_world.factory.envelope(TransactionSpec([put("b", b"forged")]))
        rehash(block)

    refuse(any_world.verifier, any_world.changed(change, resigned=False), errors.BlockSignatureError)


def test_rejects_a_block_without_signatures(any_world: World) -> None:
    content = change_block(any_world.right, lambda block: any_world.factory.resign(block, signers=[]))

    refuse(any_world.verifier, content, errors.BlockSignatureError)


def test_rejects_an_unreadable_signature_slot(any_world: World) -> None:
    def spoil(block: Any) -> None:
        block.metadata.metadata[0] = b"\xff\xff"

    refuse(any_world.verifier, any_world.changed(spoil, resigned=False), errors.BlockSignatureError)


def test_rejects_a_signature_over_other_metadata(any_world: World) -> None:
    def change(block: Any) -> None:
        slot = common_pb2.Metadata.FromString(block.metadata.metadata[0])
        slot.value += b"\x1a\x01x"
        block.metadata.metadata[0] = slot.SerializeToString()

    refuse(any_world.verifier, any_world.changed(change, resigned=False), errors.BlockSignatureError)


def test_rejects_a_block_signed_by_a_member_of_an_application_organisation(any_world: World) -> None:
    outsiders = [any_world.factory.organisations[0].issue(f"orderer{n}", "orderer") for n in range(3)]
    content = change_block(any_world.right, lambda block: any_world.factory.resign(block, signers=outsiders))

    refuse(any_world.verifier, content, errors.BlockSignatureError)


def test_rejects_a_block_signed_by_the_orderers_of_another_network(any_world: World) -> None:
    foreign = ChainFactory(seed=99, consensus=any_world.factory.consensus).orderers
    content = change_block(any_world.right, lambda block: any_world.factory.resign(block, signers=foreign[:3]))

    refuse(any_world.verifier, content, errors.BlockSignatureError)


def test_rejects_a_bft_block_with_one_signature_less_than_a_quorum() -> None:
    world = World(ChainFactory(consensus="bft"))
    orderers = world.factory.orderers
    content = change_block(world.right, lambda block: world.factory.resign(block, signers=orderers[:2]))

    refuse(world.verifier, content, errors.BlockSignatureError)


def test_rejects_a_bft_quorum_of_one_orderer_signing_thrice() -> None:
    world = World(ChainFactory(consensus="bft"))
    orderers = world.factory.orderers
    content = change_block(
        world.right, lambda block: world.factory.resign(block, signers=[orderers[0], orderers[1], orderers[1]])
    )

    refuse(world.verifier, content, errors.BlockSignatureError)


def test_accepts_any_quorum_of_bft_orderers() -> None:
    world = World(ChainFactory(consensus="bft"))
    orderers = world.factory.orderers

    verify(
        world.verifier,
        change_block(
            world.right, lambda block: world.factory.resign(block, signers=[orderers[3], orderers[0], orderers[2]])
        ),
    )


@pytest.mark.parametrize("claimed", [1, 3, 7])
def test_rejects_a_block_whose_signers_claim_another_configuration(any_world: World, claimed: int) -> None:
    content = change_block(any_world.right, lambda block: any_world.factory.resign(block, config_block=claimed))

    refuse(any_world.verifier, content, errors.BlockSignatureError, f"configuration of block {claimed}")


def test_rejects_a_block_whose_signers_still_claim_the_configuration_before(any_world: World) -> None:
    factory = ChainFactory(seed=3, consensus=any_world.factory.consensus)
    factory.config_block()
    verifier = verifier_at_tip(factory)
    right = factory.block(ORDINARY)

    content = change_block(right, lambda block: factory.resign(block, config_block=0))

    refuse(verifier, content, errors.BlockSignatureError, "configuration of block 0, in force is that of 1")


def test_rejects_a_configuration_block_that_claims_the_configuration_before() -> None:
    factory = ChainFactory()
    verifier = verifier_at_tip(factory)
    right = factory.config_block()

    content = change_block(right, lambda block: factory.resign(block, config_block=0))

    refuse(verifier, content, errors.BlockSignatureError, "configuration of block 0, in force is that of 1")


# 7. Flags.


@pytest.mark.parametrize("flags", [b"\0", b"\0\0\0", bytes(1000)])
def test_rejects_a_block_without_one_flag_for_each_transaction(world: World, flags: bytes) -> None:
    def set_flags(block: Any) -> None:
        block.metadata.metadata[2] = flags

    error = refuse(world.verifier, world.changed(set_flags, resigned=False), errors.ValidationFlagsError)

    assert f"has {len(flags)} validation flags for 2 transactions" in str(error)
    assert "orderer" not in str(error)


def test_rejects_a_block_without_flags_and_says_that_orderers_give_such(world: World) -> None:
    def clear(block: Any) -> None:
        block.metadata.metadata[2] = b""

    refuse(world.verifier, world.changed(clear, resigned=False), errors.ValidationFlagsError, "orderer.*from a peer")


def test_rejects_a_flag_that_is_no_verdict(world: World) -> None:
    def set_flags(block: Any) -> None:
        block.metadata.metadata[2] = bytes([0, 254])

    refuse(world.verifier, world.changed(set_flags, resigned=False), errors.ValidationFlagsError, "transaction 1")


def test_accepts_an_unknown_verdict_as_not_valid() -> None:
    world = World(ChainFactory(), [TransactionSpec(envelope=b"\x0a\x01\xff\x12\x01s", code=99), ORDINARY[0]])

    verified = verify(world.verifier, world.right)

    assert verified.block.flags == bytes([99, 0])


# 8. Content of what is flagged VALID.

UNREADABLE = b"\x0a\x01\xff\x12\x01s"
MESSAGE = 0


def with_unreadable_data() -> bytes:
    """Make an envelope whose headers are in order and whose transaction is not."""
    envelope = common_pb2.Envelope.FromString(ChainFactory().envelope(TransactionSpec()))
    payload = common_pb2.Payload.FromString(envelope.payload)
    payload.data = b"\xff"
    envelope.payload = payload.SerializeToString()
    return bytes(envelope.SerializeToString())


@pytest.mark.parametrize(
    ("spec", "error"),
    [
        pytest.param(TransactionSpec(envelope=UNREADABLE), errors.MalformedEnvelopeError, id="unreadable"),
        pytest.param(
            TransactionSpec(envelope=with_unreadable_data()), errors.MalformedEnvelopeError, id="unreadable data"
        ),
        pytest.param(TransactionSpec(header_type=MESSAGE), errors.MalformedEnvelopeError, id="plain message"),
        pytest.param(TransactionSpec(header_type=2), errors.MalformedEnvelopeError, id="configuration update"),
        pytest.param(TransactionSpec(header_type=77), errors.MalformedEnvelopeError, id="unknown type"),
        pytest.param(TransactionSpec(channel="elsewhere"), errors.ChannelMismatchError, id="another channel"),
        pytest.param(TransactionSpec(channel=""), errors.ChannelMismatchError, id="no channel"),
        pytest.param(TransactionSpec(header_type=1), errors.ConfigBlockError, id="no configuration in it"),
    ],
)
class TestContent:
    def test_rejects_it_when_flagged_valid(self, spec: TransactionSpec, error: type[errors.VerificationError]) -> None:
        world = World(ChainFactory(), [ORDINARY[0], spec])

        refuse(world.verifier, world.right, error)

    def test_accepts_it_when_flagged_otherwise(
        self, spec: TransactionSpec, error: type[errors.VerificationError]
    ) -> None:
        def refuse_second(block: Any) -> None:
            block.metadata.metadata[2] = bytes([0, 1])

        world = World(ChainFactory(), [ORDINARY[0], spec])

        verified = verify(world.verifier, world.changed(refuse_second))

        assert verified.block.flags == bytes([0, 1]), error


def test_accepts_a_block_in_which_no_channel_can_be_read(world: World) -> None:
    """Its one transaction is refused and unreadable; the channel is known from the blocks before."""

    def spoil(block: Any) -> None:
        block.data.data[:] = [UNREADABLE]
        block.metadata.metadata[2] = bytes([2])

    assert verify(world.verifier, world.changed(spoil)).channel == "consortium"


# 9. Configuration.


@pytest.mark.parametrize("sequence", [0, 2, 7])
def test_rejects_a_configuration_that_does_not_follow_by_one(sequence: int) -> None:
    factory = ChainFactory()
    verifier = verifier_at_tip(factory)

    refuse(
        verifier, factory.config_block(sequence=sequence), errors.ConfigBlockError, f"sequence {sequence}.*expected 1"
    )


def without_orderer_group(group: Any) -> None:
    del group.groups["Orderer"]


def without_msp(group: Any) -> None:
    del group.groups["Orderer"].groups["Orderer"].values["MSP"]


def without_block_validation(group: Any) -> None:
    del group.groups["Orderer"].policies["BlockValidation"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (without_orderer_group, "cannot be used"),
        (without_block_validation, "cannot be used"),
        (without_msp, "does not follow.*change MSP ID"),
    ],
)
def test_rejects_a_configuration_that_cannot_be_used(change: Callable[[Any], None], reason: str) -> None:
    factory = ChainFactory()
    verifier = verifier_at_tip(factory)

    refuse(verifier, factory.config_block(change), errors.ConfigBlockError, reason)


def signed_by_nobody(envelope: Any) -> None:
    payload = common_pb2.Payload.FromString(envelope.last_update.payload)
    update = configtx_pb2.ConfigUpdateEnvelope.FromString(payload.data)
    del update.signatures[:]
    payload.data = update.SerializeToString()
    envelope.last_update.payload = payload.SerializeToString()


def of_more_than_its_update(envelope: Any) -> None:
    envelope.config.channel_group.groups["Application"].values["Capabilities"].version += 1


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [(signed_by_nobody, "policy for .* not satisfied"), (of_more_than_its_update, "did not produce")],
)
def test_rejects_a_configuration_that_nobody_was_allowed_to_make(spoil: Callable[[Any], None], reason: str) -> None:
    factory = ChainFactory()
    verifier = verifier_at_tip(factory)

    refuse(verifier, factory.config_block(spoil=spoil), errors.ConfigBlockError, f"does not follow.*{reason}")


def test_accepts_an_unusable_configuration_that_is_not_valid_and_keeps_the_one_in_force() -> None:
    """Refused configurations stand in real blocks. Their block claims itself as configuration and rules nothing."""
    factory = ChainFactory()
    verifier = verifier_at_tip(factory)

    verified = verify(verifier, factory.config_block(without_orderer_group, sequence=9, code=16))

    assert verified.config is None
    verify(verifier, factory.block(ORDINARY))


def test_a_configuration_rules_from_the_next_block_on(any_world: World) -> None:
    factory = any_world.factory
    verify(any_world.verifier, any_world.right)

    verified = verify(any_world.verifier, factory.rotate_orderers())

    assert verified.config is not None
    assert verified.config.sequence == 1
    verify(any_world.verifier, factory.block(ORDINARY))
    verify(any_world.verifier, factory.rotate_orderers())
    verify(any_world.verifier, factory.block(ORDINARY))


def test_rejects_a_block_signed_by_orderers_that_a_configuration_replaced(any_world: World) -> None:
    factory = any_world.factory
    verify(any_world.verifier, any_world.right)
    replaced = factory.orderers[:3]
    verify(any_world.verifier, factory.rotate_orderers())

    content = change_block(factory.block(ORDINARY), lambda block: factory.resign(block, signers=replaced))

    refuse(any_world.verifier, content, errors.BlockSignatureError)


def test_rejects_a_configuration_block_signed_by_the_orderers_it_brings(any_world: World) -> None:
    factory = any_world.factory
    verify(any_world.verifier, any_world.right)

    content = change_block(factory.rotate_orderers(), factory.resign)

    refuse(any_world.verifier, content, errors.BlockSignatureError)


def test_a_new_block_validation_policy_is_the_one_that_counts() -> None:
    factory = ChainFactory()

    def ask_for_an_admin(group: Any) -> None:
        set_policy(group.groups["Orderer"], "BlockValidation", implicit_policy("Admins", ANY))

    factory.config_block(ask_for_an_admin)
    verifier = verifier_at_tip(factory)
    content = factory.block(ORDINARY)
    admin = factory.orderer_organisation.issue("admin", "admin")

    refuse(verifier, content, errors.BlockSignatureError)
    verify(verifier, change_block(content, lambda block: factory.resign(block, signers=[admin])))


def test_rejects_a_genesis_block_that_names_no_channel() -> None:
    refuse(ChainVerifier(), ChainFactory(channel="").genesis(), errors.ChannelMismatchError, "names no channel")


def test_accepts_the_pinned_genesis_block_and_refuses_any_other() -> None:
    pinned, other = ChainFactory(seed=1).genesis(), ChainFactory(seed=2).genesis()
    pin = sha256(pinned).digest()

    assert verify(ChainVerifier(pin=pin), pinned).config is not None
    verifier = ChainVerifier(pin=pin)
    with pytest.raises(errors.ConfigurationError, match=pin.hex()):
        verify(verifier, other)
    verify(verifier, pinned)


def test_a_pin_covers_a_genesis_block_in_whatever_form_administrators_hold_it() -> None:
    factory = ChainFactory()
    content = factory.genesis()

    def clear_flags(block: Any) -> None:
        block.metadata.metadata[2] = b""

    first = decode_block(factory.block(ORDINARY)).header.previous_hash
    as_ordered = sha256(change_block(content, clear_flags)).digest()

    for pin in (first, as_ordered):
        verify(ChainVerifier(pin=pin), content)


def empty_genesis(block: Any) -> None:
    del block.data.data[:]
    rehash(block)


def two_configurations(block: Any) -> None:
    block.data.data.append(block.data.data[0])
    block.metadata.metadata[2] = bytes(2)
    rehash(block)


def refused_genesis(block: Any) -> None:
    block.metadata.metadata[2] = bytes([16])


def transaction_genesis(block: Any) -> None:
    block.data.data[:] = [ChainFactory().envelope(TransactionSpec())]
    rehash(block)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (empty_genesis, errors.MalformedEnvelopeError),
        (two_configurations, errors.MalformedEnvelopeError),
        (refused_genesis, errors.ConfigBlockError),
        (transaction_genesis, errors.ConfigBlockError),
    ],
)
def test_rejects_a_block_0_that_is_no_genesis_block(
    change: Callable[[Any], None], error: type[errors.VerificationError]
) -> None:
    refuse(ChainVerifier(), change_block(ChainFactory().genesis(), change), error)


# State.


def test_a_refused_block_leaves_the_verifier_as_it_was(any_world: World) -> None:
    factory = any_world.factory
    refused = [
        any_world.factory.blocks[1],
        any_world.changed(empty_genesis),
        any_world.changed(lambda block: block.data.data.__setitem__(0, UNREADABLE)),
        change_block(any_world.right, lambda block: factory.resign(block, signers=[])),
        change_block(any_world.right, lambda block: factory.resign(block, config_block=2)),
        change_block(any_world.right, lambda block: block.metadata.metadata.__setitem__(2, b"")),
    ]

    for content in refused:
        with pytest.raises(errors.VerificationError):
            verify(any_world.verifier, content)

    verify(any_world.verifier, any_world.right)


def test_a_refused_configuration_does_not_come_into_force() -> None:
    factory = ChainFactory()
    verifier = verifier_at_tip(factory)
    rotated = factory.rotate_orderers()

    def spoil(block: Any) -> None:
        block.metadata.metadata[2] = bytes(2)

    refuse(verifier, change_block(rotated, spoil), errors.ValidationFlagsError)

    verify(verifier, rotated)
    verify(verifier, factory.block(ORDINARY))


def test_a_refused_genesis_block_does_not_fix_the_channel() -> None:
    verifier = ChainVerifier()
    refuse(
        verifier,
        change_block(ChainFactory(channel="elsewhere").genesis(), refused_genesis),
        errors.ConfigBlockError,
    )

    assert verify(verifier, ChainFactory().genesis()).channel == "consortium"


def test_goes_on_after_a_checkpoint_with_the_same_verdicts(any_world: World) -> None:
    factory = any_world.factory
    verify(any_world.verifier, any_world.right)
    config = verify(any_world.verifier, factory.rotate_orderers()).config
    last = verify(any_world.verifier, factory.block(ORDINARY))
    right = factory.block(ORDINARY)
    assert config is not None
    stored = config.envelope

    def resumed() -> ChainVerifier:
        return ChainVerifier.resume("consortium", Checkpoint(5, last.header_hash, None), stored, 4)

    unsigned = change_block(right, lambda block: factory.resign(block, signers=[]))
    stale = change_block(right, lambda block: factory.resign(block, config_block=0))
    refuse(resumed(), factory.blocks[5], errors.BlockNumberError)
    refuse(resumed(), unsigned, errors.BlockSignatureError)
    refuse(resumed(), stale, errors.BlockSignatureError)
    refuse(resumed(), World(ChainFactory(channel="elsewhere")).right, errors.ChannelMismatchError)
    verify(resumed(), right)


def test_the_sequence_of_a_stored_configuration_counts_on() -> None:
    factory = ChainFactory()
    first = verify(verifier_at_tip(factory), factory.config_block())
    assert first.config is not None

    verifier = ChainVerifier.resume("consortium", Checkpoint(1, first.header_hash, None), first.config.envelope, 1)

    following = verify(verifier, factory.config_block()).config
    assert following is not None
    assert following.sequence == 2


def test_refuses_to_go_on_with_a_stored_configuration_that_cannot_be_used() -> None:
    with pytest.raises(errors.ConfigurationError, match=r"consortium \(block 4\)"):
        ChainVerifier.resume("consortium", Checkpoint(5, bytes(32), None), b"\xff", 4)


def test_nobody_else_can_make_a_verified_block() -> None:
    block = decode_block(ChainFactory().genesis())

    with pytest.raises(TypeError):
        VerifiedBlock(object(), block, bytes(32), "consortium", None)
