"""The CAs of a generated network, used after it was made: revocation lists and new certificates."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from secrets import token_bytes

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from network.credentials.credential_folder import CredentialFolder, msp_certificate
from network.credentials.issuing import LOOPBACK_NAMES, Credential, Issuing


def authority(certificate: Path) -> Credential:
    """Read a CA of a network: its certificate, with the key beside it."""
    key = load_pem_private_key(certificate.with_suffix(".key").read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return Credential(x509.load_pem_x509_certificate(certificate.read_bytes()), key)


def serial_number(credentials: CredentialFolder, msp_id: str, user: str) -> int:
    """Give the serial number of a user's certificate."""
    pem = msp_certificate(credentials.user_msp(msp_id, user)).read_bytes()
    return x509.load_pem_x509_certificate(pem).serial_number


def revocation_list(ca: Credential, serials: Sequence[int], now: datetime) -> bytes:
    """Make a revocation list in PEM."""
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(ca.certificate.subject)
        .last_update(now)
        .next_update(now + timedelta(days=365))
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca.key.public_key()), critical=False)
        .add_extension(x509.CRLNumber(1), critical=False)
    )
    for serial in serials:
        revoked = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now).build()
        builder = builder.add_revoked_certificate(revoked)
    return builder.sign(ca.key, hashes.SHA256()).public_bytes(Encoding.PEM)


def revoked_users(credentials: CredentialFolder, msp_id: str, *users: str, now: datetime) -> bytes:
    """Make the revocation list of an organisation's CA that names some of its users."""
    serials = [serial_number(credentials, msp_id, user) for user in users]
    return revocation_list(authority(credentials.ca_certificate(msp_id)), serials, now)


def new_tls(credentials: CredentialFolder, msp_id: str, node: str, start: datetime) -> Credential:
    """Issue another TLS certificate for a node."""
    ca = authority(credentials.tls_ca_certificate(msp_id))
    return Issuing(start.replace(microsecond=0), token_bytes).tls(ca, node, (*LOOPBACK_NAMES, node))


def new_node(credentials: CredentialFolder, msp_id: str, node: str, start: datetime) -> Credential:
    """Issue another signing certificate for an orderer."""
    ca = authority(credentials.ca_certificate(msp_id))
    return Issuing(start.replace(microsecond=0), token_bytes).identity(ca, node, "orderer")
