from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from gateway.client.errors import CredentialError
from gateway.client.identity import SigningIdentity
from network.protocol.identity import decode_serialized_identity
from tests.support.credential import START, YEAR, of_no_version, root_authority
from tests.support.fake_fabric import NOW, identity_of, key_pem

ROOT = root_authority("OrgMSP")
USER = ROOT.issue("user")


def test_signatures_verify_and_are_never_high_s() -> None:
    identity = identity_of(USER)
    key = USER.certificate.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)

    for number in range(64):  # half of all unforced signatures are high
        signature = identity.sign(bytes([number]))
        key.verify(signature, bytes([number]), ec.ECDSA(hashes.SHA256()))
        assert decode_dss_signature(signature)[1] <= key.curve.group_order // 2


def test_creator_is_msp_id_and_certificate() -> None:
    assert decode_serialized_identity(identity_of(USER).creator) == ("OrgMSP", USER.pem)


def test_key_of_another_certificate_is_refused() -> None:
    with pytest.raises(CredentialError, match="does not belong"):
        SigningIdentity.from_pem("OrgMSP", USER.pem, key_pem(ROOT.issue("other")), clock=lambda: NOW)


@pytest.mark.parametrize(
    ("moment", "text"),
    [(START + YEAR + timedelta(seconds=1), "expired at"), (START - timedelta(days=1), "not valid before")],
    ids=["expired", "early"],
)
def test_certificate_outside_its_time_is_refused(moment: datetime, text: str) -> None:
    with pytest.raises(CredentialError, match=text):
        SigningIdentity.from_pem("OrgMSP", USER.pem, key_pem(USER), clock=moment.timestamp)


@pytest.mark.parametrize(
    ("msp_id", "certificate", "key", "text"),
    [
        ("", USER.pem, key_pem(USER), "MSP id"),
        ("OrgMSP", b"nothing", key_pem(USER), "not a certificate"),
        ("OrgMSP", of_no_version(USER.der), key_pem(USER), "not a certificate"),
        ("OrgMSP", USER.pem, b"nothing", "not an unencrypted private key"),
    ],
    ids=["msp-id", "certificate", "version", "key"],
)
def test_what_is_no_credential_is_named(msp_id: str, certificate: bytes, key: bytes, text: str) -> None:
    with pytest.raises(CredentialError, match=text):
        SigningIdentity.from_pem(msp_id, certificate, key, clock=lambda: NOW)


def test_other_kinds_of_keys_are_refused() -> None:
    other = ROOT.issue("ed", key=ed25519.Ed25519PrivateKey.generate())
    with pytest.raises(CredentialError, match="ECDSA"):
        SigningIdentity.from_pem("OrgMSP", other.pem, key_pem(other), clock=lambda: NOW)


def test_msp_folder_is_read(tmp_path: Path) -> None:
    for folder, name, content in (("signcerts", "cert.pem", USER.pem), ("keystore", "priv_sk", key_pem(USER))):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_bytes(content)
    assert SigningIdentity.from_msp_folder("OrgMSP", tmp_path, clock=lambda: NOW).creator == USER.serialized

    (tmp_path / "keystore" / "second_sk").write_bytes(key_pem(USER))
    with pytest.raises(CredentialError, match="keystore: 2 files"):
        SigningIdentity.from_msp_folder("OrgMSP", tmp_path, clock=lambda: NOW)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CredentialError, match=r"absent\.pem"):
        SigningIdentity.from_files("OrgMSP", tmp_path / "absent.pem", tmp_path / "key.pem", clock=lambda: NOW)
