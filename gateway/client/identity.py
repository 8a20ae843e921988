"""Who signs: certificate, private key and MSP id.

Signatures are low-S ECDSA over SHA-256 in DER, the only form Fabric accepts (`bccsp/utils/ecdsa.go`). They are
deterministic (RFC 6979): a weak source of randomness cannot give the key away.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NoReturn

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from gateway.client.errors import CredentialError
from network.protocol.identity import SerializedIdentity, encode_serialized_identity

_ECDSA: Final = ec.ECDSA(hashes.SHA256(), deterministic_signing=True)
_MAX_FILE_BYTES: Final = 1024 * 1024


class SigningIdentity:
    """An MSP id with a certificate and its key. `creator` is the serialised identity that messages carry.

    The key is in no attribute that is shown: `repr` names the MSP id and the certificate's fingerprint.
    """

    __slots__ = ("_key", "certificate", "creator", "msp_id")

    def __init__(self, msp_id: str, certificate: x509.Certificate, pem: bytes, key: ec.EllipticCurvePrivateKey) -> None:
        self.msp_id = msp_id
        self.certificate = certificate
        self.creator = encode_serialized_identity(SerializedIdentity(msp_id, pem))
        self._key = key

    @classmethod
    def from_pem(
        cls, msp_id: str, certificate: bytes, key: bytes, *, clock: Callable[[], float] = time.time
    ) -> "SigningIdentity":
        """Make an identity from PEM bytes.

        Raises CredentialError: unreadable, no ECDSA key, key of another certificate, expired, not yet valid.
        """
        if not msp_id:
            raise CredentialError("MSP id is empty")
        try:
            parsed = x509.load_pem_x509_certificate(certificate)
            public = parsed.public_key()
        except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion):
            raise CredentialError(f"certificate of {msp_id}: not a certificate in PEM") from None
        try:
            private = load_pem_private_key(key, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise CredentialError(f"private key of {msp_id}: not an unencrypted private key in PEM") from None
        if not isinstance(private, ec.EllipticCurvePrivateKey):
            raise CredentialError(f"private key of {msp_id}: not an ECDSA key")
        if private.public_key() != public:
            raise CredentialError(f"private key of {msp_id} does not belong to the certificate")
        now = clock()
        if parsed.not_valid_after_utc.timestamp() < now:
            raise CredentialError(f"certificate of {msp_id} expired at {parsed.not_valid_after_utc.isoformat()}")
        if parsed.not_valid_before_utc.timestamp() > now:
            start = parsed.not_valid_before_utc.isoformat()
            raise CredentialError(f"certificate of {msp_id} is not valid before {start}")
        return cls(msp_id, parsed, certificate, private)

    @classmethod
    def from_files(
        cls, msp_id: str, certificate: Path, key: Path, *, clock: Callable[[], float] = time.time
    ) -> "SigningIdentity":
        """Make an identity from PEM files; raises CredentialError."""
        return cls.from_pem(msp_id, _read(certificate), _read(key), clock=clock)

    @classmethod
    def from_msp_folder(cls, msp_id: str, folder: Path, *, clock: Callable[[], float] = time.time) -> "SigningIdentity":
        """Make an identity from an MSP folder: one file in `signcerts/`, one in `keystore/`; raises CredentialError."""
        return cls.from_files(msp_id, _only_file(folder / "signcerts"), _only_file(folder / "keystore"), clock=clock)

    def sign(self, data: bytes) -> bytes:
        """Sign data: low-S ECDSA over its SHA-256, in DER."""
        r, s = decode_dss_signature(self._key.sign(data, _ECDSA))
        order = self._key.curve.group_order
        return encode_dss_signature(r, min(s, order - s))

    def __repr__(self) -> str:
        """Name the identity, without its key."""
        return f"SigningIdentity({self.msp_id!r}, sha256={self.certificate.fingerprint(hashes.SHA256()).hex()[:16]})"

    def __reduce__(self) -> NoReturn:
        """Refuse to be copied or pickled: a key would travel unseen."""
        raise TypeError("a signing identity is not serialised")


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise CredentialError(f"{path}: {error.strerror}") from error
    if len(content) > _MAX_FILE_BYTES:
        raise CredentialError(f"{path}: larger than {_MAX_FILE_BYTES} bytes")
    return content


def _only_file(folder: Path) -> Path:
    try:
        files = [path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")]
    except OSError as error:
        raise CredentialError(f"{folder}: {error.strerror}") from error
    if len(files) != 1:
        raise CredentialError(f"{folder}: {len(files)} files instead of one")
    return files[0]
