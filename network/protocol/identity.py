"""Identities: who a serialised identity names, and whether a signature is theirs.

Message: `msp/identities.proto`. Rules: `msp/identities.go`, `bccsp/sw/ecdsa.go`, `bccsp/sw/ed25519.go`.
"""

from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import new, sha3_256, sha256
from typing import Final, NamedTuple

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, decode_dss_signature
from fabric_protos.msp import identities_pb2

from network.protocol import limits
from network.protocol.certificate import Certificate, curve_order
from network.protocol.der import decode_ecdsa_signature, encode_ecdsa_signature
from network.protocol.errors import DecodeError
from network.protocol.wire import parse

HASH_FUNCTIONS: Final = {"SHA256": "sha256", "SHA384": "sha384", "SHA3_256": "sha3_256", "SHA3_384": "sha3_384"}
"""Names of hash functions in an MSP's configuration (`bccsp/hashopts.go`) and Python's names for them."""

SIGNATURE_HASHES: Final = {
    "SHA2": (sha256, ec.ECDSA(Prehashed(hashes.SHA256()))),
    "SHA3": (sha3_256, ec.ECDSA(Prehashed(hashes.SHA3_256()))),
}
"""Hash families for ECDSA signatures over messages; SHA-256 serves every curve (`msp/identities.go` getHashOpt)."""


class SerializedIdentity(NamedTuple):
    """What a creator, endorser or signer is written as: MSP ID and PEM certificate (or whatever its MSP reads)."""

    msp_id: str
    id_bytes: bytes


def decode_serialized_identity(content: bytes) -> SerializedIdentity:
    """Read a serialised identity, without judging it; raises DecodeError."""
    message = parse(identities_pb2.SerializedIdentity, content, "SerializedIdentity")
    return SerializedIdentity(message.mspid, message.id_bytes)


def encode_serialized_identity(identity: SerializedIdentity) -> bytes:
    """Write a serialised identity as Fabric does."""
    message = identities_pb2.SerializedIdentity(mspid=identity.msp_id, id_bytes=identity.id_bytes)
    return bytes(message.SerializeToString())


@dataclass(frozen=True, slots=True, eq=False)
class Identity:
    """A certificate in an MSP. Whether it is *valid* there, `network.protocol.msp.Msp.verify_identity` tells.

    `certificate` has its own signature in low-S form; `identity_id` is the hex hash of that certificate, so that both
    forms of one certificate, and every PEM wrapping of it, are the same identity. `signature_hash` is the MSP's hash
    family, `largest_s` half the order of the key's curve.
    """

    msp_id: str
    identity_id: str
    certificate: Certificate
    signature_hash: str
    largest_s: int = field(repr=False)

    @classmethod
    def of(cls, msp_id: str, certificate: Certificate, id_hash: str, signature_hash: str) -> "Identity":
        """Make the identity of a certificate that is already in low-S form; `id_hash` is a key of HASH_FUNCTIONS."""
        key = certificate.public_key
        return cls(
            msp_id,
            new(HASH_FUNCTIONS[id_hash], certificate.raw).hexdigest(),
            certificate,
            signature_hash,
            curve_order(key) // 2 if isinstance(key, ec.EllipticCurvePublicKey) else 0,
        )

    def has_signed(self, data: bytes, signature: bytes) -> bool:
        """Tell whether `signature` is this identity's over `data`.

        ECDSA: over the hash of the data, s at most half the curve's order; bytes after r and s are ignored, as in
        Fabric. Ed25519: over the data itself. Any other key has signed nothing (an RSA key can be a CA's, never a
        signer's).
        """
        key = self.certificate.public_key
        if isinstance(key, ec.EllipticCurvePublicKey):
            family = SIGNATURE_HASHES.get(self.signature_hash)
            if family is None:
                return False
            large = len(signature) > limits.MAX_REMEMBERED_SIGNATURE_BYTES
            return (_has_signed if large else _has_signed_remembered)(self, family[0](data).digest(), signature)
        if isinstance(key, ed25519.Ed25519PublicKey):
            try:
                key.verify(signature, data)
            except InvalidSignature:
                return False
            return True
        return False


def _has_signed(identity: Identity, digest: bytes, signature: bytes) -> bool:
    """Tell whether an ECDSA signature over a hash checks out."""
    key = identity.certificate.public_key
    try:
        r, s, canonical = _canonical_ecdsa(signature)
        if not 0 < r <= 2 * identity.largest_s or not 0 < s <= identity.largest_s:
            return False
        if not isinstance(key, ec.EllipticCurvePublicKey):
            return False
        key.verify(canonical, digest, SIGNATURE_HASHES[identity.signature_hash][1])
    except (InvalidSignature, UnsupportedAlgorithm, DecodeError):
        return False
    return True


_has_signed_remembered = lru_cache(limits.MAX_REMEMBERED_SIGNATURES)(_has_signed)
"""One signature is asked about again and again: by each policy, and by each peer of a process."""


def _canonical_ecdsa(signature: bytes) -> tuple[int, int, bytes]:
    try:
        return (*decode_dss_signature(signature), signature)  # strict DER, as nearly every signature is
    except ValueError:
        r, s = decode_ecdsa_signature(signature)
        return r, s, encode_ecdsa_signature(r, s)
