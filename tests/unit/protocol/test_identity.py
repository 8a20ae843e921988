import base64
import contextlib

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from network.protocol.certificate import (
    decode_certificate,
    decode_pem,
    decode_pem_certificate,
    decode_revocation_list,
)
from network.protocol.der import decode_ecdsa_signature, encode_ecdsa_signature
from network.protocol.errors import DecodeError
from network.protocol.identity import (
    Identity,
    SerializedIdentity,
    decode_serialized_identity,
    encode_serialized_identity,
)
from tests.support.credential import Credential, high_s, low_s, root_authority

CA = root_authority("OrgMSP")
DATA = b"what was signed"


def identity_of(credential: Credential, signature_hash: str = "SHA2") -> Identity:
    return Identity.of("OrgMSP", decode_pem_certificate(credential.pem), "SHA256", signature_hash)


def test_serialised_identity_is_written_as_it_was_read() -> None:
    serialized = CA.issue().serialized

    assert encode_serialized_identity(decode_serialized_identity(serialized)) == serialized


def test_serialised_identity_of_the_empty_message_names_nobody() -> None:
    assert decode_serialized_identity(b"") == SerializedIdentity("", b"")


@pytest.mark.parametrize(
    "curve", [ec.SECP224R1(), ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()], ids=lambda curve: curve.name
)
def test_accepts_low_s_and_rejects_high_s_of_every_curve(curve: ec.EllipticCurve) -> None:
    key = ec.generate_private_key(curve)
    identity = identity_of(CA.issue(key=key))
    signature = key.sign(DATA, ec.ECDSA(hashes.SHA256()))

    assert identity.has_signed(DATA, low_s(signature, curve))
    assert not identity.has_signed(DATA, high_s(signature, curve))


def test_what_is_remembered_of_a_signature_is_of_this_signer_these_data_and_this_signature_alone() -> None:
    first, second = CA.issue(), CA.issue()
    one, two = identity_of(first), identity_of(second)
    signature, other = first.sign(DATA), first.sign(DATA + b".")

    for _ in range(2):  # asked again, the answers are those that were given
        assert one.has_signed(DATA, signature)
        assert not one.has_signed(DATA + b".", signature)
        assert not one.has_signed(DATA, other)
        assert one.has_signed(DATA + b".", other)
        assert not two.has_signed(DATA, signature)
        assert two.has_signed(DATA, second.sign(DATA))
        assert not one.has_signed(DATA, other + bytes(300))  # too long to be remembered
        assert one.has_signed(DATA, signature + bytes(300))  # bytes behind a signature do not count


def test_rejects_signature_over_other_data() -> None:
    credential = CA.issue()

    assert not identity_of(credential).has_signed(b"other data", credential.sign(DATA))


def test_rejects_signature_of_the_same_subject_with_another_key() -> None:
    credential, impostor = CA.issue("orderer0"), CA.issue("orderer0")

    assert not identity_of(credential).has_signed(DATA, impostor.sign(DATA))


def test_rejects_signature_of_another_curve() -> None:
    other = CA.issue(key=ec.generate_private_key(ec.SECP384R1()))

    assert not identity_of(CA.issue()).has_signed(DATA, other.sign(DATA))


@pytest.mark.parametrize("garbage", [b"", b"\x30", b"\x30\x00", b"\x30\x06\x02\x01\x00\x02\x01\x00", bytes(72)])
def test_rejects_garbage_as_signature(garbage: bytes) -> None:
    assert not identity_of(CA.issue()).has_signed(DATA, garbage)


def test_accepts_bytes_behind_the_numbers_as_fabric_does() -> None:
    credential = CA.issue()
    r, s = decode_ecdsa_signature(credential.sign(DATA))
    inside = encode_ecdsa_signature(r, s)
    longer = bytes((0x30, inside[1] + 2)) + inside[2:] + b"\x05\x00"

    assert identity_of(credential).has_signed(DATA, inside + b"behind the sequence")
    assert identity_of(credential).has_signed(DATA, longer)


def test_rejects_ber_forms_that_go_rejects() -> None:
    credential = CA.issue()
    r, s = decode_ecdsa_signature(credential.sign(DATA))
    content = encode_ecdsa_signature(r, s)[2:]
    number = b"\x02" + bytes((len(content[2 : 2 + content[1]]) + 1,)) + b"\x00" + content[2 : 2 + content[1]]
    padded = number + content[2 + content[1] :]
    forms = [
        b"\x30\x81" + bytes((len(content),)) + content,  # length in more bytes than needed
        b"\x30\x80" + content + b"\x00\x00",  # indefinite length
        b"\x30" + bytes((len(padded),)) + padded,  # r with a leading zero too many
        b"\x31" + bytes((len(content),)) + content,
    ]

    assert [identity_of(credential).has_signed(DATA, form) for form in forms] == [False] * 4


def test_ed25519_signs_the_data_itself() -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    identity = identity_of(CA.issue(key=key))

    assert identity.has_signed(DATA, key.sign(DATA))
    assert not identity.has_signed(DATA + b".", key.sign(DATA))


def test_rsa_key_signs_nothing() -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    identity = identity_of(CA.issue(key=key))

    assert not identity.has_signed(DATA, bytes(256))


def test_hash_family_of_the_msp_decides_what_ecdsa_covers() -> None:
    credential = CA.issue()
    key = credential.key
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    over_sha3 = low_s(key.sign(DATA, ec.ECDSA(hashes.SHA3_256())), key.curve)

    assert identity_of(credential, "SHA3").has_signed(DATA, over_sha3)
    assert not identity_of(credential, "SHA2").has_signed(DATA, over_sha3)
    assert not identity_of(credential, "unknown").has_signed(DATA, over_sha3)


def test_pem_is_found_as_go_finds_it() -> None:
    pem = CA.pem
    lines = pem.split(b"\n")
    headed = b"\n".join([lines[0], b"Proc-Type: 4", b"", *lines[1:]])
    odd = pem.replace(b"CERTIFICATE", b"ANYTHING")

    for wrapped in (
        pem,
        b"text before\n" + pem,
        pem + b"text behind",
        pem.replace(b"\n", b"\r\n"),
        headed,
        b"-----BEGIN X-----\n" + pem,
        b"-----BEGIN X-----\nAAA\n-----END X-----\n" + pem,
        pem.replace(b"\n", b" \t\n"),
    ):
        block = decode_pem(wrapped)
        assert block is not None
        assert block == ("CERTIFICATE", CA.der)
    assert decode_pem(odd) == ("ANYTHING", CA.der)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"no certificate",
        b"x-----BEGIN A-----\nAAAA\n-----END A-----",
        b"-----BEGIN A-----\nAAAA\n-----END B-----",
        b"-----BEGIN A-----\nAAAA\n-----END A-----x",
        b"-----BEGIN A-----\nAAA\n-----END A-----",
        b"-----BEGIN A-----\nA?AA\n-----END A-----",
        b"-----BEGIN A-----\nKey: value\n-----END A-----",
        b"-----BEGIN A\nAAAA\n-----END A",
    ],
)
def test_rejects_pem_that_go_rejects(text: bytes) -> None:
    assert decode_pem(text) is None


def test_reading_pem_takes_linear_time() -> None:
    for hostile in (b"\n-----END " * 100_000, b"-----BEGIN A-----\n" + b"a:b\n" * 200_000, b"-----BEGIN " * 100_000):
        assert decode_pem(hostile) is None


def test_every_cut_of_a_certificate_is_refused() -> None:
    der = CA.issue().der

    for length in range(len(der)):
        with pytest.raises(DecodeError):
            decode_certificate(der[:length])
    with pytest.raises(DecodeError):
        decode_certificate(der + b"\x00")


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 255))
def test_changed_certificates_read_or_raise_our_error(position: int, value: int) -> None:
    der = bytearray(LEAF_DER)
    der[position % len(der)] = value

    with contextlib.suppress(DecodeError):
        decode_certificate(bytes(der))


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_random_bytes_read_or_raise_our_error(content: bytes) -> None:
    wrapped = b"-----BEGIN CERTIFICATE-----\n" + base64.b64encode(content) + b"\n-----END CERTIFICATE-----\n"
    for reader in (
        decode_serialized_identity,
        decode_certificate,
        decode_pem,
        decode_pem_certificate,
        decode_revocation_list,
        decode_ecdsa_signature,
    ):
        for form in (content, wrapped, b"\x30" + bytes((len(content) % 128,)) + content):
            with contextlib.suppress(DecodeError):
                reader(form)


LEAF_DER = CA.issue("leaf", ("client", "department1")).der
