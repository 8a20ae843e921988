"""X.509 certificates and revocation lists, read as Go's `crypto/x509` reads them, because Fabric's peers do.

An identity is valid for us exactly when it is valid for every peer, so the parser follows Go's (`parser.go`, `x509.go`,
`encoding/pem`) and not another library's idea of X.509; keys and signatures are left to `cryptography`.

Not judged, since nothing that Fabric decides depends on it: the inside of policy, distribution point and authority
information extensions. Not known: RSA-PSS signatures, DSA and X25519 keys.
"""

import base64
import binascii
import re
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, NamedTuple

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from network.protocol.der import (
    BIT_STRING,
    BOOLEAN,
    INTEGER,
    OCTET_STRING,
    SEQUENCE,
    SET,
    DerReader,
    decode_ecdsa_signature,
    encode_ecdsa_signature,
    encode_element,
    right_align,
)
from network.protocol.errors import DecodeError

PublicKey = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey

KEY_USAGE_CERT_SIGN: Final = 1 << 5

_CURVES: Final = {
    bytes.fromhex("2b81040021"): ec.SECP224R1(),
    bytes.fromhex("2a8648ce3d030107"): ec.SECP256R1(),
    bytes.fromhex("2b81040022"): ec.SECP384R1(),
    bytes.fromhex("2b81040023"): ec.SECP521R1(),
}
_CURVE_ORDERS: Final = {
    "secp224r1": 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFF16A2E0B8F03E13DD29455C5C2A3D,
    "secp256r1": 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
    "secp384r1": 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973,
    "secp521r1": 2**521 - 0x5AE79787C40D069948033FEB708F65A2FC44A36477663B851449048E16EC79BF7,
}
_KEY_EC: Final = bytes.fromhex("2a8648ce3d0201")
_KEY_RSA: Final = bytes.fromhex("2a864886f70d010101")
_KEY_ED25519: Final = bytes.fromhex("2b6570")

_SHA1: Final = hashes.SHA1()  # noqa: S303  # judged only where Go does: revocation lists
_EC, _RSA, _ED25519 = "EC", "RSA", "Ed25519"
_SIGNATURE_ALGORITHMS: Final[dict[bytes, tuple[str, hashes.HashAlgorithm | None]]] = {
    bytes.fromhex("2a8648ce3d0401"): (_EC, _SHA1),
    bytes.fromhex("2a8648ce3d040302"): (_EC, hashes.SHA256()),
    bytes.fromhex("2a8648ce3d040303"): (_EC, hashes.SHA384()),
    bytes.fromhex("2a8648ce3d040304"): (_EC, hashes.SHA512()),
    bytes.fromhex("2a864886f70d010105"): (_RSA, _SHA1),
    bytes.fromhex("2b0e03021d"): (_RSA, _SHA1),
    bytes.fromhex("2a864886f70d01010b"): (_RSA, hashes.SHA256()),
    bytes.fromhex("2a864886f70d01010c"): (_RSA, hashes.SHA384()),
    bytes.fromhex("2a864886f70d01010d"): (_RSA, hashes.SHA512()),
    _KEY_ED25519: (_ED25519, None),
}

_ATTRIBUTE_COMMON_NAME: Final = bytes.fromhex("550403")
_ATTRIBUTE_ORGANIZATIONAL_UNIT: Final = bytes.fromhex("55040b")

_EXTENSION_PREFIX: Final = bytes.fromhex("551d")
_SUBJECT_KEY_ID, _KEY_USAGE, _ALTERNATIVE_NAME, _BASIC_CONSTRAINTS, _NAME_CONSTRAINTS = 14, 15, 17, 19, 30
_POLICY_MAPPINGS, _AUTHORITY_KEY_ID, _POLICY_CONSTRAINTS, _EXTENDED_KEY_USAGE = 33, 35, 36, 37
_KNOWN_EXTENSIONS: Final = frozenset((14, 15, 17, 19, 30, 31, 32, 33, 35, 36, 37, 54))
_AUTHORITY_INFO_ACCESS: Final = bytes.fromhex("2b06010505070101")
_ANY_USAGE: Final = bytes.fromhex("551d2500")
_USAGES_FOR_SERVERS: Final = frozenset((bytes.fromhex("2b06010505070301"), _ANY_USAGE))
_USAGES_FOR_CLIENTS: Final = frozenset((bytes.fromhex("2b06010505070302"), _ANY_USAGE))

_NAME_EMAIL, _NAME_DNS, _NAME_URI, _NAME_IP = 0x81, 0x82, 0x86, 0x87

_PRINTABLE = re.compile(rb"[A-Za-z0-9'()+,\-./ :=?*&]*")  # with * and &, which Go lets pass
_NUMERIC = re.compile(rb"[0-9 ]*")


class PemBlock(NamedTuple):
    """Type line and content of one PEM block."""

    label: str
    content: bytes


class AlternativeNames(NamedTuple):
    """The names of a subjectAltName extension that name constraints apply to."""

    dns: tuple[str, ...]
    emails: tuple[str, ...]
    uris: tuple[str, ...]
    addresses: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Certificate:
    """A parsed certificate. Names and keys are raw DER; times are seconds since 1970; two are equal when `raw` is.

    `key_usage` is 0 and `max_path_length` is -1 when absent, `subject_key_id` and `authority_key_id` are b"".
    `public_key` is None for keys that nobody in Fabric can sign with.
    """

    raw: bytes
    signed: bytes
    version: int
    serial_number: int
    issuer: bytes
    subject: bytes
    common_name: str
    organizational_units: tuple[str, ...]
    not_before: int
    not_after: int
    public_key_info: bytes
    public_key: PublicKey | None
    algorithm: bytes
    signature: bytes
    is_ca: bool
    has_basic_constraints: bool
    max_path_length: int
    key_usage: int
    has_subject_key_id: bool
    subject_key_id: bytes
    authority_key_id: bytes
    allows_server_auth: bool
    allows_client_auth: bool
    has_unknown_critical_extension: bool
    alternative_name: bytes | None
    alternative_names: AlternativeNames
    name_constraints: bytes | None
    has_policy_rules: bool

    def __eq__(self, other: object) -> bool:
        """Compare by the bytes."""
        return isinstance(other, Certificate) and self.raw == other.raw

    def __hash__(self) -> int:
        """Hash the bytes."""
        return hash(self.raw)

    def fingerprint(self) -> str:
        """SHA-256 of the bytes in hex: a name for messages."""
        return sha256(self.raw).hexdigest()


def decode_pem(content: bytes) -> PemBlock | None:
    """Give the first PEM block as Go's `pem.Decode` finds it, of any type, with any text around it; None: none."""
    position = 0
    while (end := content.find(b"\n-----END ", position)) >= 0:
        begin = content.rfind(b"-----BEGIN ", position, end)
        searched_from, position = position, end + 10
        if begin < 0 or (begin > searched_from and content[begin - 1] != 0x0A):
            continue
        line_end = content.find(b"\n", begin)
        type_line = _trimmed(content[begin + 11 : line_end])
        trailer_end = content.find(b"\n", position)
        trailer = _trimmed(content[position : trailer_end if trailer_end >= 0 else len(content)])
        if not type_line.endswith(b"-----") or trailer != type_line:
            continue
        body = _body_after_headers(content, line_end + 1, end)
        decoded = None if body is None else _decode_base64(body)
        if decoded is not None:
            return PemBlock(type_line[:-5].decode("utf-8", "replace"), decoded)
    return None


def _trimmed(line: bytes) -> bytes:
    return line.removesuffix(b"\r").rstrip(b" \t")


def _body_after_headers(content: bytes, start: int, end: int) -> bytes | None:
    while start < end:
        line_end = content.find(b"\n", start, end)
        colon = content.find(b":", start, line_end if line_end >= 0 else end)
        if colon < 0:
            return content[start:end]
        if line_end < 0:
            return None  # a header runs into the end line
        start = line_end + 1
    return b""


def _decode_base64(body: bytes) -> bytes | None:
    digits = body.translate(None, b" \t\r\n")
    if len(digits) % 4:
        return None
    try:
        return base64.b64decode(digits, validate=True)
    except binascii.Error:
        return None


def decode_pem_certificate(content: bytes) -> Certificate:
    """Read the certificate in the first PEM block, whatever its type line says (`msp/mspimpl.go` getCertFromPem).

    Raises DecodeError.
    """
    block = decode_pem(content)
    if block is None:
        raise DecodeError("certificate: no PEM block")
    return decode_certificate(block.content)


def decode_certificate(content: bytes) -> Certificate:
    """Read one DER certificate (`crypto/x509/parser.go` parseCertificate); raises DecodeError."""
    outer = DerReader(content, "certificate")
    whole = outer.read_whole(SEQUENCE)
    if not outer.empty():
        raise outer.fail("bytes after the certificate")
    outer = DerReader(whole, "certificate").inside(SEQUENCE)
    signed = outer.read_whole(SEQUENCE)
    body = DerReader(signed, "certificate").inside(SEQUENCE)

    version_field = body.read_optional(0xA0)
    version = 1 + (0 if version_field is None else DerReader(version_field, "certificate: version").read_integer())
    serial_number = body.read_integer()
    if not 1 <= version <= 3 or serial_number < 0:
        raise body.fail("version or serial number out of range")
    algorithm = body.read(SEQUENCE)
    if outer.read(SEQUENCE) != algorithm:
        raise body.fail("two signature algorithms")
    issuer = body.read_whole(SEQUENCE)
    _decode_name(issuer)
    validity = body.inside(SEQUENCE)
    not_before, not_after = validity.read_time(), validity.read_time()
    subject = body.read_whole(SEQUENCE)
    attributes = _decode_name(subject)
    public_key_info = body.read_whole(SEQUENCE)
    public_key = _decode_public_key(public_key_info)
    extensions: dict[bytes, tuple[bool, bytes]] = {}
    if version > 1:
        body.read_optional(0x81)
        body.read_optional(0x82)
    if version == 3:
        extensions = _decode_extensions(body.read_optional(0xA3))
    octets, unused = outer.read_bit_string()
    known = _known_extensions(extensions)
    return Certificate(
        raw=whole,
        signed=signed,
        version=version,
        serial_number=serial_number,
        issuer=issuer,
        subject=subject,
        common_name=next((value for kind, value in reversed(attributes) if kind == _ATTRIBUTE_COMMON_NAME), ""),
        organizational_units=tuple([value for kind, value in attributes if kind == _ATTRIBUTE_ORGANIZATIONAL_UNIT]),
        not_before=not_before,
        not_after=not_after,
        public_key_info=public_key_info,
        public_key=public_key,
        algorithm=DerReader(algorithm, "certificate: signature algorithm").read_object_identifier(),
        signature=right_align(octets, unused),
        is_ca=known.is_ca,
        has_basic_constraints=known.has_basic_constraints,
        max_path_length=known.max_path_length,
        key_usage=known.key_usage,
        has_subject_key_id=known.subject_key_id is not None,
        subject_key_id=known.subject_key_id or b"",
        authority_key_id=known.authority_key_id,
        allows_server_auth=known.allows_server_auth,
        allows_client_auth=known.allows_client_auth,
        has_unknown_critical_extension=known.has_unknown_critical,
        alternative_name=known.alternative_name,
        alternative_names=known.alternative_names,
        name_constraints=known.name_constraints,
        has_policy_rules=known.has_policy_rules,
    )


def _decode_name(content: bytes) -> list[tuple[bytes, str]]:
    reader = DerReader(content, "certificate: name").inside(SEQUENCE)
    attributes = []
    while not reader.empty():
        relative = reader.inside(SET)
        while not relative.empty():
            attribute = relative.inside(SEQUENCE)
            kind = attribute.read_object_identifier()
            tag, value = attribute.read_any()
            attributes.append((kind, _decode_text(tag, value)))
    return attributes


def _decode_text(tag: int, value: bytes) -> str:
    try:
        if tag == 0x0C:
            return value.decode("utf-8")
        if tag == 0x13 and _PRINTABLE.fullmatch(value):
            return value.decode("ascii")
        if tag == 0x16:
            return value.decode("ascii")
        if tag == 0x14:
            return value.decode("latin-1")
        if tag == 0x12 and _NUMERIC.fullmatch(value):
            return value.decode("ascii")
        if tag == 0x1E:
            return _decode_basic_plane(value)
    except UnicodeDecodeError as error:
        raise DecodeError("certificate: name: text that its type does not allow") from error
    raise DecodeError("certificate: name: text that its type does not allow")


def _decode_basic_plane(value: bytes) -> str:
    text = value.removesuffix(b"\x00\x00") if len(value) % 2 == 0 else value
    decoded = text.decode("utf-16-be")
    if any(ord(c) > 0xFFFF or ord(c) in (0xFFFE, 0xFFFF) or 0xFDD0 <= ord(c) <= 0xFDEF for c in decoded):
        raise DecodeError("certificate: name: text that its type does not allow")
    return decoded


def _decode_public_key(content: bytes) -> PublicKey | None:
    reader = DerReader(content, "certificate: public key").inside(SEQUENCE)
    algorithm = reader.inside(SEQUENCE)
    kind = algorithm.read_object_identifier()
    has_parameters = not algorithm.empty()
    octets, unused = reader.read_bit_string()
    key = right_align(octets, unused)
    try:
        if kind == _KEY_EC:
            curve = _CURVES.get(algorithm.read_object_identifier())
            if curve is None or key[:1] != b"\x04":
                raise reader.fail("curve or point form that Go does not take")
            return ec.EllipticCurvePublicKey.from_encoded_point(curve, key)
        if kind == _KEY_ED25519:
            if has_parameters:
                raise reader.fail("Ed25519 with parameters")
            return ed25519.Ed25519PublicKey.from_public_bytes(key)
        if kind == _KEY_RSA:
            return _decode_rsa_key(algorithm, key)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise reader.fail("not a key of its kind") from error
    return None


def _decode_rsa_key(parameters: DerReader, content: bytes) -> PublicKey | None:
    if parameters.read_any() != (0x05, b""):
        raise parameters.fail("RSA without NULL parameters")
    reader = DerReader(content, "certificate: RSA key").inside(SEQUENCE)
    modulus, exponent = reader.read_integer(), reader.read_integer()
    if modulus <= 0 or exponent <= 0:
        raise reader.fail("a number that is not positive")
    try:
        return rsa.RSAPublicNumbers(exponent, modulus).public_key()
    except ValueError:
        return None  # Go takes the certificate and then refuses what such a key signs


def _decode_extensions(content: bytes | None) -> dict[bytes, tuple[bool, bytes]]:
    extensions: dict[bytes, tuple[bool, bytes]] = {}
    if content is None:
        return extensions
    reader = DerReader(content, "certificate: extensions").inside(SEQUENCE)
    while not reader.empty():
        extension = reader.inside(SEQUENCE)
        kind = extension.read_object_identifier()
        critical = extension.read_boolean() if extension.next_is(BOOLEAN) else False
        if kind in extensions:
            raise extension.fail("one extension twice")
        extensions[kind] = (critical, extension.read(OCTET_STRING))
    return extensions


class _KnownExtensions(NamedTuple):
    is_ca: bool
    has_basic_constraints: bool
    max_path_length: int
    key_usage: int
    subject_key_id: bytes | None
    authority_key_id: bytes
    allows_server_auth: bool
    allows_client_auth: bool
    has_unknown_critical: bool
    alternative_name: bytes | None
    alternative_names: AlternativeNames
    name_constraints: bytes | None
    has_policy_rules: bool


def _known_extensions(extensions: dict[bytes, tuple[bool, bytes]]) -> _KnownExtensions:
    values: dict[int, bytes] = {}
    critical_numbers, has_unknown_critical = set(), False
    for kind, (critical, content) in extensions.items():
        number = kind[2] if len(kind) == 3 and kind[:2] == _EXTENSION_PREFIX else -1
        if critical and (kind == _AUTHORITY_INFO_ACCESS or number in (_SUBJECT_KEY_ID, _AUTHORITY_KEY_ID)):
            raise DecodeError("certificate: an extension marked critical that must not be")
        if number in _KNOWN_EXTENSIONS:
            values[number] = content
            if critical:
                critical_numbers.add(number)
        elif critical:
            has_unknown_critical = True

    basic = values.get(_BASIC_CONSTRAINTS)
    is_ca, max_path_length = (False, -1) if basic is None else _decode_basic_constraints(basic)
    names = _decode_alternative_names(values.get(_ALTERNATIVE_NAME))
    if _ALTERNATIVE_NAME in critical_numbers and not any(names):
        has_unknown_critical = True
    subject_key_id = values.get(_SUBJECT_KEY_ID)
    return _KnownExtensions(
        is_ca,
        basic is not None,
        max_path_length,
        _decode_key_usage(values.get(_KEY_USAGE)),
        None if subject_key_id is None else DerReader(subject_key_id, "certificate: subject key").read(OCTET_STRING),
        _decode_authority_key_id(values.get(_AUTHORITY_KEY_ID)),
        *_decode_allowed_authentications(values.get(_EXTENDED_KEY_USAGE)),
        has_unknown_critical,
        values.get(_ALTERNATIVE_NAME),
        names,
        values.get(_NAME_CONSTRAINTS),
        _POLICY_MAPPINGS in values or _POLICY_CONSTRAINTS in values,
    )


def _decode_basic_constraints(content: bytes) -> tuple[bool, int]:
    reader = DerReader(content, "certificate: basic constraints").inside(SEQUENCE)
    is_ca = reader.read_boolean() if reader.next_is(BOOLEAN) else False
    max_path_length = reader.read_integer() if reader.next_is(INTEGER) else -1
    if not -1 <= max_path_length < 2**63:
        raise reader.fail("path length out of range")
    return is_ca, max_path_length


def _decode_key_usage(content: bytes | None) -> int:
    if content is None:
        return 0
    octets, _ = DerReader(content, "certificate: key usage").read_bit_string()
    bits = int.from_bytes(octets[:2].ljust(2, b"\x00"), "big")
    return sum(1 << index for index in range(9) if bits >> (15 - index) & 1)


def _decode_authority_key_id(content: bytes | None) -> bytes:
    if content is None:
        return b""
    return DerReader(content, "certificate: authority key").inside(SEQUENCE).read_optional(0x80) or b""


def _decode_allowed_authentications(content: bytes | None) -> tuple[bool, bool]:
    """Tell whether the key may authenticate a server, and a client: a list of extended usages limits it."""
    # Fabric leaves the wanted usages of an identity empty, which for Go means serverAuth
    # (`crypto/x509/verify.go` checkChainForKeyUsage).
    if content is None:
        return True, True
    reader = DerReader(content, "certificate: extended key usage").inside(SEQUENCE)
    usages = set()
    while not reader.empty():
        usages.add(reader.read_object_identifier())
    return not usages or bool(usages & _USAGES_FOR_SERVERS), not usages or bool(usages & _USAGES_FOR_CLIENTS)


def _decode_alternative_names(content: bytes | None) -> AlternativeNames:
    names: dict[int, list[str]] = {_NAME_DNS: [], _NAME_EMAIL: [], _NAME_URI: []}
    addresses = []
    if content is not None:
        reader = DerReader(content, "certificate: alternative names").inside(SEQUENCE)
        while not reader.empty():
            tag, value = reader.read_any()
            if tag in names:
                if not value.isascii():
                    raise reader.fail("a name that is not ASCII")
                names[tag].append(value.decode("ascii"))
            elif tag == _NAME_IP:
                if len(value) not in (4, 16):
                    raise reader.fail("an address that is neither IPv4 nor IPv6")
                addresses.append(value)
    return AlternativeNames(
        tuple(names[_NAME_DNS]), tuple(names[_NAME_EMAIL]), tuple(names[_NAME_URI]), tuple(addresses)
    )


def is_signed_with_ecdsa(algorithm: bytes) -> bool:
    """Tell whether a signature algorithm (OID content) is one of ECDSA's."""
    return _SIGNATURE_ALGORITHMS.get(algorithm, ("", None))[0] == _EC


def is_signature_from(child: Certificate, parent: Certificate) -> bool:
    """Tell whether `parent` may sign certificates and did sign this one (`crypto/x509` CheckSignatureFrom).

    High-S signatures are as good as low-S ones here: Go's X.509 does not tell them apart.
    """
    if (parent.version == 3 and not parent.has_basic_constraints) or (
        parent.has_basic_constraints and not parent.is_ca
    ):
        return False
    if parent.key_usage and not parent.key_usage & KEY_USAGE_CERT_SIGN:
        return False
    return _is_signed(child.algorithm, child.signed, child.signature, parent.public_key, allow_sha1=False)


def _is_signed(algorithm: bytes, signed: bytes, signature: bytes, key: PublicKey | None, *, allow_sha1: bool) -> bool:
    family, digest = _SIGNATURE_ALGORITHMS.get(algorithm, ("", None))
    if digest is _SHA1 and not allow_sha1:
        return False
    try:
        if family == _EC and isinstance(key, ec.EllipticCurvePublicKey) and digest is not None:
            key.verify(signature, signed, ec.ECDSA(digest))
        elif family == _RSA and isinstance(key, rsa.RSAPublicKey) and digest is not None:
            key.verify(signature, signed, padding.PKCS1v15(), digest)
        elif family == _ED25519 and isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(signature, signed)
        else:
            return False
    except (InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def curve_order(key: ec.EllipticCurvePublicKey) -> int:
    """Order of the key's curve."""
    return _CURVE_ORDERS[key.curve.name]


def with_low_s(certificate: Certificate, parent: Certificate) -> Certificate:
    """Give the certificate with its own signature in the one low-S form that Fabric hashes and compares.

    Raises DecodeError when the signature has no such form. Source: `msp/cert.go` sanitizeECDSASignedCert.
    """
    if not isinstance(parent.public_key, ec.EllipticCurvePublicKey):
        raise DecodeError("certificate: an ECDSA signature by a key of another kind")
    r, s = decode_ecdsa_signature(certificate.signature)
    order = curve_order(parent.public_key)
    if s > order // 2:
        s = order - s
    if s <= 0:
        raise DecodeError("certificate: signature beyond the order of its curve")
    signature = encode_ecdsa_signature(r, s)
    if signature == certificate.signature:
        return certificate
    outer = DerReader(certificate.raw, "certificate").inside(SEQUENCE)
    content = outer.read_whole(SEQUENCE) + outer.read_whole(SEQUENCE) + encode_element(BIT_STRING, b"\x00" + signature)
    return decode_certificate(encode_element(SEQUENCE, content))


class RevocationList(NamedTuple):
    """What Fabric looks at in a revocation list. `authority_key_id` None: the list names no issuer's key."""

    signed: bytes
    algorithm: bytes
    signature: bytes
    revoked: frozenset[int]
    authority_key_id: bytes | None


def decode_revocation_list(content: bytes) -> RevocationList:
    """Read a revocation list, DER or PEM (`crypto/x509` ParseCRL); raises DecodeError."""
    if content.startswith(b"-----BEGIN X509 CRL"):
        block = decode_pem(content)
        if block is not None and block.label == "X509 CRL":
            content = block.content
    outer = DerReader(content, "revocation list")
    reader = outer.inside(SEQUENCE)
    if not outer.empty():
        raise outer.fail("bytes after the list")
    signed = reader.read_whole(SEQUENCE)
    algorithm = reader.inside(SEQUENCE).read_object_identifier()
    octets, unused = reader.read_bit_string()
    signature = right_align(octets, unused)
    if is_signed_with_ecdsa(algorithm):
        signature = encode_ecdsa_signature(*decode_ecdsa_signature(signature))  # `msp/mspimplsetup.go` setupCRLs

    body = DerReader(signed, "revocation list").inside(SEQUENCE)
    if body.next_is(INTEGER):
        body.read_integer()
    body.read(SEQUENCE)
    body.read(SEQUENCE)
    body.read_time()
    if not body.empty() and not body.next_is(SEQUENCE) and not body.next_is(0xA0):
        body.read_time()
    revoked = set()
    entries = DerReader(body.read_optional(SEQUENCE) or b"", "revocation list")
    while not entries.empty():
        entry = entries.inside(SEQUENCE)
        revoked.add(entry.read_integer())
        entry.read_time()
    extensions = _decode_extensions(body.read_optional(0xA0))
    return RevocationList(
        signed,
        algorithm,
        signature,
        frozenset(revoked),
        _list_authority_key_id(extensions),
    )


def _list_authority_key_id(extensions: dict[bytes, tuple[bool, bytes]]) -> bytes | None:
    _, content = extensions.get(_EXTENSION_PREFIX + bytes((_AUTHORITY_KEY_ID,)), (False, None))
    if content is None:
        return None
    try:
        return _decode_authority_key_id(content)
    except DecodeError:
        return None  # Fabric takes such a list too, and then no identity of its MSP is valid


def is_list_signed_by(revocations: RevocationList, issuer: Certificate) -> bool:
    """Tell whether the key of this certificate signed the list (`crypto/x509` CheckCRLSignature)."""
    return _is_signed(
        revocations.algorithm, revocations.signed, revocations.signature, issuer.public_key, allow_sha1=True
    )
