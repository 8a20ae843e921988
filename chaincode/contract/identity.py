"""Who proposed a transaction: organisation, name in the certificate, and the attributes its CA wrote into it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType

from cryptography import x509
from cryptography.x509.oid import NameOID, ObjectIdentifier
from fabric_protos.msp import identities_pb2
from google.protobuf.message import DecodeError

from chaincode.errors import AccessDeniedError, InvalidArgumentError

_ATTRIBUTES = ObjectIdentifier("1.2.3.4.5.6.7.8.1")  # as Fabric CA writes them
# In this order does Go write the parts of a name it has read, last first; kinds it does not know are left out. Of a
# common name and a serial number the last one counts. Source: crypto/x509/pkix and fabric-chaincode-go pkg/cid.
_PARTS = (
    ("SERIALNUMBER", NameOID.SERIAL_NUMBER),
    ("CN", NameOID.COMMON_NAME),
    ("POSTALCODE", NameOID.POSTAL_CODE),
    ("STREET", NameOID.STREET_ADDRESS),
    ("ST", NameOID.STATE_OR_PROVINCE_NAME),
    ("L", NameOID.LOCALITY_NAME),
    ("OU", NameOID.ORGANIZATIONAL_UNIT_NAME),
    ("O", NameOID.ORGANIZATION_NAME),
    ("C", NameOID.COUNTRY_NAME),
)
_SINGLE = frozenset({"CN", "SERIALNUMBER"})
_LARGEST_REMEMBERED = 16 * 1024
"""Bytes of a serialised identity beyond which nothing of it is kept."""


@dataclass(frozen=True)
class ClientIdentity:
    """The creator of the proposal, whose signature the peer has checked. Also in calls from other chaincodes."""

    msp_id: str
    id: str = field(repr=False)
    """`x509::subject::issuer`; Go's GetID gives the same text in base64."""
    attributes: Mapping[str, str] = field(repr=False)

    @property
    def role(self) -> str | None:
        """The attribute `role`."""
        return self.attributes.get("role")

    def require_msp(self, *msp_ids: str) -> None:
        """Raise AccessDeniedError unless the client belongs to one of the organisations."""
        if self.msp_id not in msp_ids:
            raise AccessDeniedError(f"clients of {self.msp_id} may not do this")

    def require_role(self, *roles: str) -> None:
        """Raise AccessDeniedError unless the certificate names one of the roles."""
        if self.role not in roles:
            raise AccessDeniedError(f"this needs one of the roles: {', '.join(sorted(roles))}")


def decode_identity(creator: bytes) -> ClientIdentity:
    """Read a serialised identity; raises InvalidArgumentError when it is none or holds no X.509 certificate."""
    return (_decode if len(creator) > _LARGEST_REMEMBERED else _decode_remembered)(creator)


def _decode(creator: bytes) -> ClientIdentity:
    try:
        identity = identities_pb2.SerializedIdentity.FromString(creator)
        certificate = x509.load_pem_x509_certificate(identity.id_bytes)
        text = f"x509::{_name(certificate.subject)}::{_name(certificate.issuer)}"
        attributes = _attributes(certificate)
    except (DecodeError, ValueError) as error:
        raise InvalidArgumentError("the creator is no X.509 identity") from error
    return ClientIdentity(identity.mspid, text, MappingProxyType(attributes))


_decode_remembered = lru_cache(256)(_decode)
"""The same clients come again and again; what is read of one cannot be changed."""


def _attributes(certificate: x509.Certificate) -> dict[str, str]:
    try:
        extension = certificate.extensions.get_extension_for_oid(_ATTRIBUTES)
    except x509.ExtensionNotFound:
        return {}
    if not isinstance(extension.value, x509.UnrecognizedExtension):
        raise ValueError("the extension of attributes has another form")  # noqa: TRY004  # a bad value, as all here
    try:
        content = json.loads(extension.value.value)
    except RecursionError as error:
        raise ValueError("the attributes are nested too deep") from error
    attributes = content.get("attrs", {}) if isinstance(content, dict) else None
    if not isinstance(attributes, dict) or not all(isinstance(value, str) for value in attributes.values()):
        raise ValueError("the attributes of the certificate are no texts by name")
    return attributes


def _name(name: x509.Name) -> str:
    written = []
    for label, oid in _PARTS:
        values = [str(attribute.value) for attribute in name.get_attributes_for_oid(oid)]
        if label in _SINGLE:
            values = values[-1:]
        if values:
            written.append("+".join(f"{label}={_escape(value)}" for value in values))
    return ",".join(written)


def _escape(value: str) -> str:
    escaped = "".join("\\" + character if character in ',+"\\<>;' else character for character in value)
    if value[:1] in (" ", "#") and value:
        escaped = "\\" + escaped
    if value.endswith(" ") and len(value) > 1:
        escaped = escaped[:-1] + "\\ "
    return escaped
