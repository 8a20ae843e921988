"""Certificates and keys of a network: what an organisation's two CAs issue. Pure but for the keys' own randomness.

ECDSA P-256 throughout, certificates signed in low-S form. Key usages are those of `internal/cryptogen/ca/ca.go`.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import ip_address
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CA_YEARS: Final = 10
CERTIFICATE_YEARS: Final = 5
SERIAL_BYTES: Final = 16
ATTRIBUTES: Final = x509.ObjectIdentifier("1.2.3.4.5.6.7.8.1")
LOOPBACK_NAMES: Final = ("localhost", "127.0.0.1", "::1")

_YEAR: Final = timedelta(days=365)

Randomness = Callable[[int], bytes]
"""Gives so many random bytes."""


@dataclass(frozen=True, slots=True, repr=False)
class Credential:
    """A certificate with its private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def certificate_pem(self) -> bytes:
        """The certificate in PEM."""
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        """The private key in PEM (PKCS #8, not encrypted), as nodes of Fabric read it."""
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@dataclass(frozen=True, slots=True, repr=False)
class Issuing:
    """When certificates begin (UTC, whole seconds), and where serial numbers come from."""

    start: datetime
    randomness: Randomness

    def authority(self, common_name: str) -> Credential:
        """Make a self-signed CA."""
        key = ec.generate_private_key(ec.SECP256R1())
        return self._certified(_name(common_name, None), key, None, CA_YEARS, ())

    def identity(
        self, authority: Credential, common_name: str, unit: str, attributes: Mapping[str, str] | None = None
    ) -> Credential:
        """Issue an enrolment certificate; `unit` is its NodeOU: peer, orderer, client or admin."""
        extensions: list[x509.ExtensionType] = []
        if attributes:
            content = json.dumps({"attrs": dict(attributes)}, separators=(",", ":"), sort_keys=True).encode()
            extensions.append(x509.UnrecognizedExtension(ATTRIBUTES, content))
        key = ec.generate_private_key(ec.SECP256R1())
        return self._certified(_name(common_name, unit), key, authority, CERTIFICATE_YEARS, extensions)

    def tls(self, authority: Credential, common_name: str, names: Sequence[str] = LOOPBACK_NAMES) -> Credential:
        """Issue a TLS certificate, for server and client, that is valid for DNS names and addresses."""
        usages = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
        alternatives = x509.SubjectAlternativeName([_alternative(name) for name in names])
        key = ec.generate_private_key(ec.SECP256R1())
        return self._certified(_name(common_name, None), key, authority, CERTIFICATE_YEARS, (usages, alternatives))

    def _certified(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        issuer: Credential | None,
        years: int,
        extensions: Sequence[x509.ExtensionType],
    ) -> Credential:
        signing = issuer.key if issuer else key
        is_ca = issuer is None
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer.certificate.subject if issuer else subject)
            .public_key(key.public_key())
            .serial_number(int.from_bytes(self.randomness(SERIAL_BYTES)) or 1)
            .not_valid_before(self.start)
            .not_valid_after(self.start + years * _YEAR)
            .add_extension(x509.BasicConstraints(is_ca, None), critical=True)
            .add_extension(_key_usage(is_ca=is_ca), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signing.public_key()), critical=False)
        )
        for extension in extensions:
            builder = builder.add_extension(extension, critical=False)
        return Credential(_signed_in_low_s(builder, signing), key)


def _signed_in_low_s(builder: x509.CertificateBuilder, key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    """Sign until s is in the lower half, as it is every other time: nodes see one form of each certificate then."""
    while True:
        certificate = builder.sign(key, hashes.SHA256())
        _, s = decode_dss_signature(certificate.signature)
        if s <= key.curve.group_order // 2:
            return certificate


def _name(common_name: str, unit: str | None) -> x509.Name:
    units = [x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, unit)] if unit else []
    return x509.Name([*units, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _key_usage(*, is_ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=is_ca,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_ca,
        crl_sign=is_ca,
        encipher_only=False,
        decipher_only=False,
    )
