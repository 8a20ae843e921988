"""A client of an organisation whose certificate ends at a moment that a test chooses."""

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from gateway.client.identity import SigningIdentity
from network.creation import CreatedNetwork


def expiring_identity(created: CreatedNetwork, msp_id: str, end: datetime) -> SigningIdentity:
    """Issue a client certificate that ends at `end` (whole seconds, UTC), also in the past."""
    authority_file = created.credentials.ca_certificate(msp_id)
    authority = x509.load_pem_x509_certificate(authority_file.read_bytes())
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "client"),
            x509.NameAttribute(NameOID.COMMON_NAME, "brief"),
        ]
    )
    start = min(authority.not_valid_before_utc, end - timedelta(seconds=1))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(authority.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(_key(authority_file).public_key()), critical=False
        )
        .sign(_key(authority_file), hashes.SHA256())
    )
    return SigningIdentity.from_pem(
        msp_id,
        certificate.public_bytes(Encoding.PEM),
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        clock=start.timestamp,
    )


def _key(certificate: Path) -> ec.EllipticCurvePrivateKey:
    """Give the key of an authority, which is beside its certificate."""
    found = load_pem_private_key(certificate.with_suffix(".key").read_bytes(), password=None)
    assert isinstance(found, ec.EllipticCurvePrivateKey)
    return found


def whole_second(seconds_from_now: float) -> datetime:
    """Give a moment from now, in whole seconds as certificates write them."""
    return datetime.fromtimestamp(int(time.time() + seconds_from_now), UTC)
