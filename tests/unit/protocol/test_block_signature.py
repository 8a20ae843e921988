import contextlib
from collections.abc import Sequence
from datetime import timedelta
from hashlib import sha256

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from fabric_protos.common import common_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from network.protocol import limits
from network.protocol.block import BlockHeader, header_bytes
from network.protocol.block_signature import (
    ChannelTrust,
    decode_signed_metadata,
    last_config_index,
)
from network.protocol.configuration import decode_config_envelope
from network.protocol.errors import DecodeError, LimitExceededError, PolicyError, ProtocolError
from tests.support.credential import (
    START,
    ChannelDraft,
    Credential,
    any_of,
    high_s,
    identity_principal,
    msp_config,
    out_of,
    role,
    root_authority,
    signature_policy,
    signed_by,
)

ORDERER = 4
CA, ORG_CA = root_authority("OrdererMSP"), root_authority("OrgMSP")
HEADER = BlockHeader(7, bytes(32), bytes(range(32)))
VALUE = common_pb2.OrdererBlockMetadata(last_config=common_pb2.LastConfig(index=3)).SerializeToString()


def orderer(name: str = "orderer0", **changes: object) -> Credential:
    return CA.issue(name, ("orderer",), **changes)  # type: ignore[arg-type]  # changes go through as they are


def signature_by(
    credential: Credential, *, header: BlockHeader = HEADER, value: bytes = VALUE, creator: bytes | None = None
) -> common_pb2.MetadataSignature:
    signature_header = common_pb2.SignatureHeader(
        creator=credential.serialized if creator is None else creator, nonce=bytes(24)
    ).SerializeToString()
    signature = credential.sign(value + signature_header + header_bytes(header))
    return common_pb2.MetadataSignature(signature_header=signature_header, signature=signature)


def signature_by_id(number: int, credential: Credential) -> common_pb2.MetadataSignature:
    identifier_header = common_pb2.IdentifierHeader(identifier=number, nonce=bytes(24)).SerializeToString()
    signature = credential.sign(VALUE + identifier_header + header_bytes(HEADER))
    return common_pb2.MetadataSignature(identifier_header=identifier_header, signature=signature)


def metadata(*signatures: common_pb2.MetadataSignature, value: bytes = VALUE) -> tuple[bytes, ...]:
    return (common_pb2.Metadata(value=value, signatures=signatures).SerializeToString(), b"", b"", b"", b"")


def trust_in(draft: ChannelDraft) -> ChannelTrust:
    return ChannelTrust(decode_config_envelope(draft.envelope()))


def raft_trust(revoked: Sequence[Credential] = (), *, role_number: int | None = None) -> ChannelTrust:
    draft = ChannelDraft(
        {"Orderers": msp_config("OrdererMSP", [CA], revocation_lists=[CA.revoke(*revoked)] if revoked else [])},
        {"Org": msp_config("OrgMSP", [ORG_CA])},
    )
    if role_number is not None:
        draft.block_validation = any_of(role("OrdererMSP", role_number))
    return trust_in(draft)


def rejected(trust: ChannelTrust, slots: tuple[bytes, ...]) -> str:
    with pytest.raises(PolicyError, match="/Channel/Orderer/BlockValidation") as caught:
        trust.verify_block(HEADER, slots)
    return str(caught.value)


# --- Raft form


def test_accepts_signature_of_an_orderer_and_tells_who_signed() -> None:
    credential = orderer()

    attestation = raft_trust().verify_block(HEADER, metadata(signature_by(credential)))

    assert [(signer.msp_id, signer.consenter_id) for signer in attestation.signers] == [("OrdererMSP", None)]
    assert attestation.signers[0].identity_id == sha256(credential.in_form(high=False).der).hexdigest()


def test_rejects_block_signed_by_nobody() -> None:
    assert "0 good of 0" in rejected(raft_trust(), metadata())


def test_rejects_empty_slot() -> None:
    rejected(raft_trust(), (b"",))


def test_rejects_member_of_another_organisation() -> None:
    assert "1 good of 1" in rejected(raft_trust(), metadata(signature_by(ORG_CA.issue(units=("orderer",)))))


def test_rejects_member_of_an_organisation_that_the_channel_does_not_have() -> None:
    stranger = root_authority("StrangeMSP").issue(units=("orderer",))

    assert "0 good of 1" in rejected(raft_trust(), metadata(signature_by(stranger)))


def test_accepts_any_member_of_the_orderer_organisation_where_the_policy_asks_for_members() -> None:
    raft_trust().verify_block(HEADER, metadata(signature_by(CA.issue(units=("client",)))))


def test_rejects_member_without_the_role_where_the_policy_asks_for_orderers() -> None:
    trust = raft_trust(role_number=ORDERER)

    trust.verify_block(HEADER, metadata(signature_by(orderer())))
    rejected(trust, metadata(signature_by(CA.issue(units=("client",)))))
    rejected(trust, metadata(signature_by(CA.issue(units=()))))


def test_rejects_orderer_of_another_channel_with_the_same_names() -> None:
    other = root_authority("OrdererMSP").issue("orderer0", ("orderer",))

    assert "0 good of 1" in rejected(raft_trust(), metadata(signature_by(other)))


def test_rejects_same_subject_with_another_key() -> None:
    credential = orderer()
    impostor = orderer()

    assert "0 good of 1" in rejected(raft_trust(), metadata(signature_by(impostor, creator=credential.serialized)))


@pytest.mark.parametrize(
    "header",
    [HEADER._replace(number=8), HEADER._replace(previous_hash=bytes(31)), HEADER._replace(data_hash=bytes(32))],
    ids=["number", "previous hash", "data hash"],
)
def test_rejects_right_orderer_over_another_header(header: BlockHeader) -> None:
    rejected(raft_trust(), metadata(signature_by(orderer(), header=header)))


def test_rejects_signature_over_another_value() -> None:
    rejected(raft_trust(), metadata(signature_by(orderer(), value=b""), value=VALUE))


def test_accepts_expired_and_not_yet_valid_certificates_as_fabric_does() -> None:
    day = timedelta(days=1)
    expired = orderer(start=START, end=START + day)
    future = orderer(start=START + 3000 * day, end=START + 3001 * day)

    for credential in (expired, future):
        assert raft_trust().verify_block(HEADER, metadata(signature_by(credential))).signers


def test_rejects_revoked_orderer() -> None:
    revoked = orderer()

    raft_trust().verify_block(HEADER, metadata(signature_by(revoked)))
    rejected(raft_trust([revoked]), metadata(signature_by(revoked)))


def test_rejects_high_s_signature() -> None:
    entry = signature_by(orderer())
    entry.signature = high_s(entry.signature, ec.SECP256R1())

    assert "0 good of 1" in rejected(raft_trust(), metadata(entry))


@pytest.mark.parametrize("garbage", [b"", b"garbage", b"\x30\x80\x00\x00", bytes(70)])
def test_rejects_garbage_signature(garbage: bytes) -> None:
    entry = signature_by(orderer())
    entry.signature = garbage

    assert "0 good of 1" in rejected(raft_trust(), metadata(entry))


def test_ed25519_orderer_needs_channel_capability_v3() -> None:
    credential = orderer(key=ed25519.Ed25519PrivateKey.generate())
    draft = ChannelDraft({"Orderers": msp_config("OrdererMSP", [CA])})

    trust_in(draft).verify_block(HEADER, metadata(signature_by(credential)))
    draft.channel_capability = "V2_0"
    rejected(trust_in(draft), metadata(signature_by(credential)))


def test_accepts_ca_certificates_with_high_s_signatures() -> None:
    intermediate = CA.intermediate()
    credential = intermediate.issue(units=("orderer",))
    config = msp_config("OrdererMSP", [CA.in_form(high=True)], intermediates=[intermediate.in_form(high=True)])

    attestations = [
        trust_in(ChannelDraft({"Orderers": config})).verify_block(HEADER, metadata(signature_by(form)))
        for form in (credential.in_form(high=True), credential.in_form(high=False))
    ]

    assert attestations[0] == attestations[1]


def test_wrong_signature_beside_a_good_one_does_not_harm() -> None:
    good, bad = signature_by(orderer()), signature_by(orderer("orderer1"))
    bad.signature = b"garbage"

    assert len(raft_trust().verify_block(HEADER, metadata(bad, good)).signers) == 1


def test_distinct_identities_are_needed_for_a_quorum() -> None:
    first, second = orderer("first"), orderer("second")
    two = signature_policy(out_of(2, signed_by(0), signed_by(0)), role("OrdererMSP", 0))
    trust = trust_in(ChannelDraft({"Orderers": msp_config("OrdererMSP", [CA])}, block_validation=two))
    twice = [signature_by(first), signature_by(first)]
    wrapped = signature_by(first, creator=first.serialized_as(b"other wrapping\n" + first.pem))

    assert "1 good of 2" in rejected(trust, metadata(*twice))
    assert "1 good of 2" in rejected(trust, metadata(signature_by(first), wrapped))
    assert len(trust.verify_block(HEADER, metadata(*twice, signature_by(second))).signers) == 2


# --- BFT form

CONSENTERS = [(number, orderer(f"orderer{number}")) for number in (1, 2, 3, 4)]
QUORUM = signature_policy(
    out_of(3, *map(signed_by, range(4))), *[identity_principal(credential) for _, credential in CONSENTERS]
)


def bft_trust(**changes: object) -> ChannelTrust:
    draft = ChannelDraft(
        {"Orderers": msp_config("OrdererMSP", [CA])},
        block_validation=QUORUM,
        consenters=CONSENTERS,
        **changes,  # type: ignore[arg-type]  # changes go through as they are
    )
    return trust_in(draft)


def test_accepts_quorum_named_by_consenter_ids() -> None:
    entries = [signature_by_id(number, credential) for number, credential in CONSENTERS[1:]]

    attestation = bft_trust().verify_block(HEADER, metadata(*entries))

    assert [signer.consenter_id for signer in attestation.signers] == [2, 3, 4]


def test_rejects_quorum_minus_one() -> None:
    entries = [signature_by_id(number, credential) for number, credential in CONSENTERS[:2]]

    assert "2 good of 2" in rejected(bft_trust(), metadata(*entries))


def test_rejects_quorum_reached_by_repeating_a_signer() -> None:
    entries = [signature_by_id(number, credential) for number, credential in CONSENTERS[:2]]

    assert "2 good of 4" in rejected(bft_trust(), metadata(*entries, *entries))


def test_skips_unknown_consenter_ids() -> None:
    unknown = signature_by_id(9, orderer("orderer9"))
    entries = [signature_by_id(number, credential) for number, credential in CONSENTERS[:3]]

    assert len(bft_trust().verify_block(HEADER, metadata(unknown, *entries)).signers) == 3
    assert "2 good of 2" in rejected(bft_trust(), metadata(unknown, *entries[:2]))


def test_rejects_signer_under_the_id_of_another() -> None:
    shifted = [signature_by_id(number % 4 + 1, credential) for number, credential in CONSENTERS]

    assert "0 good of 4" in rejected(bft_trust(), metadata(*shifted))


def test_rejects_orderer_that_was_removed_from_the_consenters() -> None:
    removed = orderer("orderer5")
    entries = [signature_by_id(number, credential) for number, credential in CONSENTERS[:2]]

    rejected(bft_trust(), metadata(*entries, signature_by(removed)))


def test_forms_may_be_mixed_in_one_block() -> None:
    entries = [signature_by_id(number, credential) for number, credential in CONSENTERS[:2]]

    attestation = bft_trust().verify_block(HEADER, metadata(*entries, signature_by(CONSENTERS[2][1])))

    assert [signer.consenter_id for signer in attestation.signers] == [1, 2, None]


def test_ids_mean_nothing_below_capability_v3() -> None:
    entries = [signature_by_id(number, credential) for number, credential in CONSENTERS]

    assert "0 good of 4" in rejected(bft_trust(channel_capability="V2_0"), metadata(*entries))


def test_malformed_headers_make_the_block_unreadable() -> None:
    by_id = common_pb2.MetadataSignature(identifier_header=b"\xff", signature=b"")
    by_certificate = common_pb2.MetadataSignature(signature_header=b"\xff", signature=b"")

    for entry in (by_id, by_certificate):
        with pytest.raises(DecodeError):
            bft_trust().verify_block(HEADER, metadata(entry))


# --- reading the slots


def test_reads_last_config_from_the_signed_value() -> None:
    assert last_config_index(metadata()) == 3


def test_reads_last_config_from_slot_one_where_nothing_is_signed() -> None:
    content = common_pb2.LastConfig(index=58).SerializeToString()
    slots = (b"", common_pb2.Metadata(value=content).SerializeToString())

    assert last_config_index(slots) == 58
    assert last_config_index((b"", b"")) == 0


@pytest.mark.parametrize(
    "slots",
    [(), (b"",), (b"\xff",), metadata(value=b"\x12\x00"), metadata(value=b"\xff"), (b"", b"\xff")],
    ids=["no slots", "no slot one", "no message", "no last config", "no value", "slot one no message"],
)
def test_refuses_to_guess_the_last_config(slots: tuple[bytes, ...]) -> None:
    with pytest.raises(DecodeError):
        last_config_index(slots)


def test_bounds_the_number_of_signatures() -> None:
    entries = [common_pb2.MetadataSignature(signature=b"x")] * (limits.MAX_BLOCK_SIGNATURES + 1)

    with pytest.raises(LimitExceededError):
        raft_trust().verify_block(HEADER, metadata(*entries))
    assert len(decode_signed_metadata(metadata(*entries[1:])).signatures) == limits.MAX_BLOCK_SIGNATURES


TRUST = bft_trust()


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=150))
def test_random_slots_raise_our_errors(content: bytes) -> None:
    for slots in ((content,), (content, content), (b"\x12" + bytes((len(content) % 128,)) + content,)):
        with contextlib.suppress(DecodeError):
            last_config_index(slots)
        with pytest.raises(ProtocolError):
            TRUST.verify_block(HEADER, slots)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 255))
def test_no_changed_slot_makes_a_smaller_quorum_do(position: int, mask: int) -> None:
    slot = bytearray(SLOT_OF_TWO)
    slot[position % len(slot)] ^= mask

    with pytest.raises(ProtocolError):
        TRUST.verify_block(HEADER, (bytes(slot),))


SLOT_OF_TWO = metadata(*[signature_by_id(number, credential) for number, credential in CONSENTERS[:2]])[0]
