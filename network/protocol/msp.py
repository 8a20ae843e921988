"""Membership service providers: which identities an organisation vouches for, and in which roles.

Messages: `msp/msp_config.proto`, `msp/msp_principal.proto`. Rules:
`msp/{mspimpl,mspimplsetup,mspimplvalidate,mspmgrimpl}.go`, in the version that the channel's capabilities ask for
(`common/capabilities/channel.go` MSPVersion).

Deliberately absent: TLS certificates (no signature on a ledger depends on them), signing identities (a channel has
none).
"""

from collections.abc import Iterable, Mapping
from enum import IntEnum
from functools import lru_cache
from hashlib import new
from typing import Final, NamedTuple

from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from fabric_protos.msp import msp_config_pb2, msp_principal_pb2

from network.protocol import limits
from network.protocol.certificate import (
    Certificate,
    RevocationList,
    decode_pem_certificate,
    decode_revocation_list,
    is_list_signed_by,
    is_signature_from,
    is_signed_with_ecdsa,
    with_low_s,
)
from network.protocol.certificate_chain import CertificatePool, Chain, only_chain
from network.protocol.errors import ConfigurationError, DecodeError, IdentityError
from network.protocol.identity import (
    HASH_FUNCTIONS,
    Identity,
    SerializedIdentity,
    decode_serialized_identity,
)
from network.protocol.wire import parse

TYPE_FABRIC: Final = 0
TYPE_IDEMIX: Final = 1

CLASSIFICATION_ROLE: Final = 0
CLASSIFICATION_ORGANIZATION_UNIT: Final = 1
CLASSIFICATION_IDENTITY: Final = 2
CLASSIFICATION_ANONYMITY: Final = 3
CLASSIFICATION_COMBINED: Final = 4

_NOMINAL: Final = 0


class Role(IntEnum):
    """Roles that a principal can ask for."""

    MEMBER = 0
    ADMIN = 1
    CLIENT = 2
    PEER = 3
    ORDERER = 4


class MspVersion(IntEnum):
    """Rule sets, by the Fabric release that brought them."""

    V1_0 = 0
    V1_1 = 1
    V1_3 = 2
    V1_4_3 = 3
    V3_0 = 4


class MspDefinition(NamedTuple):
    """An MSP as a channel configuration holds it: its type and the bytes that this type reads."""

    msp_type: int
    content: bytes


class Principal(NamedTuple):
    """What a leaf of a signature policy asks of an identity; how `content` reads depends on `classification`."""

    classification: int
    content: bytes


class _OrganizationalUnit(NamedTuple):
    name: str
    certifiers_id: bytes


def definition_name(definition: MspDefinition) -> str:
    """Give the MSP ID of a definition; raises DecodeError, and ConfigurationError for a type that does not exist."""
    if definition.msp_type == TYPE_FABRIC:
        return str(parse(msp_config_pb2.FabricMSPConfig, definition.content, "FabricMSPConfig").name)
    if definition.msp_type == TYPE_IDEMIX:
        return str(parse(msp_config_pb2.IdemixMSPConfig, definition.content, "IdemixMSPConfig").name)
    raise ConfigurationError(f"MSP of unknown type {definition.msp_type}")


class Msp:
    """One organisation's rules for X.509 identities. Answers are remembered for each certificate, within bounds.

    Raises ConfigurationError when Fabric could not set this MSP up.
    """

    def __init__(self, content: bytes, version: MspVersion) -> None:
        try:
            configuration = parse(msp_config_pb2.FabricMSPConfig, content, "FabricMSPConfig")
        except DecodeError as error:
            raise ConfigurationError(str(error)) from error
        self.name: str = configuration.name
        self.version = version
        crypto = configuration.crypto_config
        self._signature_hash: str = crypto.signature_hash_family or "SHA2"
        self._id_hash: str = crypto.identity_identifier_hash_function or "SHA256"
        try:
            self._set_up(configuration)
        except (DecodeError, IdentityError) as error:
            raise ConfigurationError(f"MSP {self.name}: {error}") from error
        self._remembered_reading = lru_cache(limits.MAX_REMEMBERED_IDENTITIES)(self._read)
        self._remembered_defect = lru_cache(limits.MAX_REMEMBERED_IDENTITIES)(self._defect)
        self._remembered_answer = lru_cache(limits.MAX_REMEMBERED_ANSWERS)(self._principal_defect)

    # --- setting up (`mspimplsetup.go`), in Fabric's order

    def _set_up(self, configuration: msp_config_pb2.FabricMSPConfig) -> None:
        if self._id_hash not in HASH_FUNCTIONS:
            raise ConfigurationError(f"MSP {self.name}: unknown hash function for identities")
        self._set_up_authorities(configuration)
        self._revocations: tuple[RevocationList, ...] = tuple(
            [decode_revocation_list(content) for content in configuration.revocation_list]
        )
        self._admins: frozenset[Certificate] = frozenset()
        if self.version < MspVersion.V1_4_3:
            self._admins = self._read_admins(configuration)
        self._check_authorities()
        self._identifiers = {
            (unit.organizational_unit_identifier, self.certifiers_id(unit.certificate))
            for unit in configuration.organizational_unit_identifiers
        }
        self._set_up_node_units(configuration)
        if self.version >= MspVersion.V1_4_3:
            self._admins = self._read_admins(configuration)
            if not self._admins and not (self._enforces_node_units and Role.ADMIN in self._node_units):
                raise ConfigurationError(f"MSP {self.name}: neither administrators nor an OU for them")
        self._check_admins()

    def _set_up_authorities(self, configuration: msp_config_pb2.FabricMSPConfig) -> None:
        if not configuration.root_certs:
            raise ConfigurationError(f"MSP {self.name}: no root certificate")
        roots = [decode_pem_certificate(content) for content in configuration.root_certs]
        intermediates = [decode_pem_certificate(content) for content in configuration.intermediate_certs]
        # A CA's own signature may be high-S. Chains to normalise it by are found among the certificates as they came,
        # chains of identities among the normalised ones.
        self._roots, self._intermediates = CertificatePool(roots), CertificatePool(intermediates)
        self._root_certificates = tuple([self._in_low_s(certificate) for certificate in roots])
        self._intermediate_certificates = tuple([self._in_low_s(certificate) for certificate in intermediates])
        self._roots = CertificatePool(self._root_certificates)
        self._intermediates = CertificatePool(self._intermediate_certificates)

    def _in_low_s(self, certificate: Certificate) -> Certificate:
        if certificate.public_key is None:
            raise DecodeError("certificate: a key that no identity can have")
        if not is_signed_with_ecdsa(certificate.algorithm):
            return certificate
        if certificate.is_ca and is_signature_from(certificate, certificate):
            root = with_low_s(certificate, certificate)
            only_chain(root, CertificatePool((root,)), self._intermediates)
            return root
        chain = only_chain(certificate, self._roots, self._intermediates)
        if len(chain) < 2:
            raise IdentityError("a root that is not self-signed")
        return with_low_s(certificate, chain[1])

    def _check_authorities(self) -> None:
        for certificate in self._root_certificates + self._intermediate_certificates:
            if not certificate.is_ca or not certificate.has_subject_key_id:
                raise IdentityError(f"CA certificate {certificate.fingerprint()} without CA flag or subject key id")
            chain = only_chain(certificate, self._roots, self._intermediates)
            if len(chain) > 1:
                self._check_not_revoked(certificate, chain[1])
        # Only the last CA of a branch may issue identities: those above it are no parents.
        self._inner_authorities: set[Certificate] = set()
        for certificate in self._intermediate_certificates:
            self._inner_authorities.update(only_chain(certificate, self._roots, self._intermediates)[1:])

    def certifiers_id(self, pem: bytes) -> bytes:
        """Give the id by which OUs name the CA that certifies them: the hash of its chain.

        Raises DecodeError or IdentityError when the certificate is not one of this MSP's CAs.
        """
        certificate = self._in_low_s(decode_pem_certificate(pem))
        if certificate in self._root_certificates:
            return self._chain_id((certificate,))
        if certificate not in self._intermediate_certificates:
            raise IdentityError("an OU whose certificate is not one of its CAs")
        chain = only_chain(certificate, self._roots, self._intermediates)
        if certificate in self._inner_authorities:
            raise IdentityError("an OU whose CA issues other CAs")
        return self._chain_id(chain)

    def _set_up_node_units(self, configuration: msp_config_pb2.FabricMSPConfig) -> None:
        self._node_units: dict[Role, _OrganizationalUnit] = {}
        self._enforces_node_units = False
        if not configuration.HasField("fabric_node_ous") or self.version == MspVersion.V1_0:
            return
        units = configuration.fabric_node_ous
        kinds = {Role.CLIENT: "client", Role.PEER: "peer"}
        if self.version >= MspVersion.V1_4_3:
            kinds |= {Role.ADMIN: "admin", Role.ORDERER: "orderer"}
        for role, kind in kinds.items():
            field = f"{kind}_ou_identifier"
            unit = getattr(units, field)
            if self.version < MspVersion.V1_4_3 and not unit.organizational_unit_identifier:
                raise ConfigurationError(f"MSP {self.name}: NodeOUs without an OU for {kind}s")
            if units.HasField(field):
                certifiers_id = self.certifiers_id(unit.certificate) if unit.certificate else b""
                self._node_units[role] = _OrganizationalUnit(unit.organizational_unit_identifier, certifiers_id)
        self._enforces_node_units = units.enable and bool(self._node_units)

    def _read_admins(self, configuration: msp_config_pb2.FabricMSPConfig) -> frozenset[Certificate]:
        return frozenset([self._in_low_s(decode_pem_certificate(pem)) for pem in configuration.admins])

    def _check_admins(self) -> None:
        for certificate in self._admins:
            identity = self._identity(certificate)
            if not self._enforces_node_units:
                defect = self._defect(identity)
            elif self.version < MspVersion.V1_4_3:
                defect = self._defect(identity) or self._role_defect(identity, Role.CLIENT)
            else:
                # With NodeOUs a listed administrator is not validated, and so may be revoked: as in Fabric.
                defect = self._role_defect(identity, Role.CLIENT) and self._role_defect(identity, Role.ADMIN)
            if defect is not None:
                raise IdentityError(f"administrator {identity.identity_id}: {defect}")

    # --- reading identities

    def identity(self, id_bytes: bytes) -> Identity:
        """Give the identity of a PEM certificate. It need not be valid, but its issuer must be known to normalise it.

        Raises IdentityError.
        """
        large = len(id_bytes) > limits.MAX_REMEMBERED_IDENTITY_BYTES
        reading = (self._read if large else self._remembered_reading)(id_bytes)
        if isinstance(reading, str):
            raise IdentityError(f"MSP {self.name}: {reading}")
        return reading

    def _read(self, id_bytes: bytes) -> Identity | str:
        try:
            return self._identity(self._in_low_s(decode_pem_certificate(id_bytes)))
        except (DecodeError, IdentityError) as error:
            return str(error)

    def _identity(self, certificate: Certificate) -> Identity:
        return Identity.of(self.name, certificate, self._id_hash, self._signature_hash)

    # --- validity (`mspimplvalidate.go`)

    def verify_identity(self, identity: Identity) -> None:
        """Check that this MSP vouches for the identity, as of the certificate's own first second.

        Checked: key type, no CA, exactly one chain, issued by a CA at the end of its branch, not revoked, OUs. Expiry
        is not: Fabric does not look at it where ledgers are validated. Raises IdentityError.
        """
        large = len(identity.certificate.raw) > limits.MAX_REMEMBERED_IDENTITY_BYTES
        defect = (self._defect if large else self._remembered_defect)(identity)
        if defect is not None:
            raise IdentityError(f"identity {identity.identity_id} of MSP {self.name}: {defect}")

    def _defect(self, identity: Identity) -> str | None:
        certificate = identity.certificate
        takes_ed25519 = self.version >= MspVersion.V3_0
        if not isinstance(certificate.public_key, ec.EllipticCurvePublicKey) and not (
            takes_ed25519 and isinstance(certificate.public_key, ed25519.Ed25519PublicKey)
        ):
            return "a key of a kind that the channel does not take"
        try:
            chain = self._chain(certificate)
            self._check_not_revoked(certificate, chain[1])
        except IdentityError as error:
            return str(error)
        return self._unit_defect(certificate, self._chain_id(chain[1:]))

    def _chain(self, certificate: Certificate) -> Chain:
        if certificate.is_ca:
            raise IdentityError("a CA, which is nobody's identity")
        chain = only_chain(certificate, self._roots, self._intermediates)
        if len(chain) < 2:
            raise IdentityError("no CA above it")
        if chain[1] in self._inner_authorities:
            raise IdentityError("issued by a CA that issues CAs")
        return chain

    def _chain_id(self, chain: Chain) -> bytes:
        return new(HASH_FUNCTIONS[self._id_hash], b"".join([certificate.raw for certificate in chain])).digest()

    def _check_not_revoked(self, certificate: Certificate, issuer: Certificate) -> None:
        # Dates of revocation and of the list play no role: a list acts as soon as the configuration carries it.
        if not issuer.has_subject_key_id:
            raise IdentityError("issued by a CA without subject key id")
        for revocations in self._revocations:
            if revocations.authority_key_id is None:
                raise IdentityError("a revocation list of its MSP names no issuer")
            if revocations.authority_key_id != issuer.subject_key_id:
                continue
            if certificate.serial_number in revocations.revoked and is_list_signed_by(revocations, issuer):
                raise IdentityError("revoked")

    def _unit_defect(self, certificate: Certificate, certifiers_id: bytes) -> str | None:
        units = certificate.organizational_units
        if self._identifiers and not any((unit, certifiers_id) in self._identifiers for unit in units):
            return "in none of the OUs of its MSP"
        if not self._enforces_node_units:
            return None
        by_name = {unit.name: unit for unit in self._node_units.values()}
        roles = 0
        for name in units:
            unit = by_name.get(name)
            if unit is None:
                continue
            if unit.certifiers_id and unit.certifiers_id != certifiers_id:
                return "an OU for a role, certified by another CA than its MSP says"
            roles += 1
            if roles > 1:
                break
        return None if roles == 1 else f"{'several OUs' if roles else 'no OU'} for a role"

    def _role_defect(self, identity: Identity, role: Role) -> str | None:
        if not self._enforces_node_units:
            return "no NodeOUs to tell roles by"
        unit = self._node_units.get(role)
        if unit is None:
            return f"no NodeOU for {role.name}"
        if unit.name not in identity.certificate.organizational_units:
            return f"not in the OU of {role.name}"
        try:
            self._chain(identity.certificate)
        except IdentityError as error:
            return str(error)
        return None

    # --- principals (`mspimpl.go` SatisfiesPrincipal)

    def verify_principal(self, identity: Identity, principal: Principal) -> None:
        """Check that the identity is what the principal asks for; raises IdentityError with the reason."""
        defect = self._answer(identity, principal)
        if defect is not None:
            raise IdentityError(f"identity {identity.identity_id} of MSP {self.name}: {defect}")

    def satisfies_principal(self, identity: Identity, principal: Principal) -> bool:
        """Tell whether the identity is what the principal asks for."""
        return self._answer(identity, principal) is None

    def _answer(self, identity: Identity, principal: Principal) -> str | None:
        large = len(identity.certificate.raw) + len(principal.content) > limits.MAX_REMEMBERED_IDENTITY_BYTES
        return (self._principal_defect if large else self._remembered_answer)(identity, principal)

    def _principal_defect(self, identity: Identity, principal: Principal) -> str | None:
        try:
            for single in self._single_principals(principal, 0):
                self._check_principal(identity, single)
        except (DecodeError, IdentityError) as error:
            return str(error)
        return None

    def _single_principals(self, principal: Principal, depth: int) -> Iterable[Principal]:
        if principal.classification != CLASSIFICATION_COMBINED:
            return (principal,)
        if self.version <= MspVersion.V1_1 or depth >= limits.MAX_PRINCIPAL_DEPTH:
            raise IdentityError("a combined principal, or one nested deeper than we follow")
        combined = parse(msp_principal_pb2.CombinedPrincipal, principal.content, "CombinedPrincipal")
        if not combined.principals:
            raise IdentityError("a combined principal of nothing")
        return [
            single
            for part in combined.principals
            for single in self._single_principals(Principal(part.principal_classification, part.principal), depth + 1)
        ]

    def _check_principal(self, identity: Identity, principal: Principal) -> None:
        if principal.classification == CLASSIFICATION_ROLE:
            self._check_role(identity, principal.content)
        elif principal.classification == CLASSIFICATION_ORGANIZATION_UNIT:
            self._check_unit(identity, principal.content)
        elif principal.classification == CLASSIFICATION_IDENTITY:
            self._check_same(identity, principal.content)
        elif principal.classification == CLASSIFICATION_ANONYMITY and self.version >= MspVersion.V1_3:
            anonymity = parse(msp_principal_pb2.MSPIdentityAnonymity, principal.content, "MSPIdentityAnonymity")
            if anonymity.anonymity_type != _NOMINAL:
                raise IdentityError("an X.509 identity is not anonymous")
        else:
            raise IdentityError(f"principal of unknown classification {principal.classification}")

    def _check_role(self, identity: Identity, content: bytes) -> None:
        message = parse(msp_principal_pb2.MSPRole, content, "MSPRole")
        self._check_asked(message.msp_identifier)
        role: int = message.role
        by_unit = self._enforces_node_units and self.version >= MspVersion.V1_4_3
        if role == Role.ADMIN:
            if identity.certificate in self._admins:
                return
            if not by_unit:
                raise IdentityError("not a listed administrator")
        elif role not in (Role.MEMBER, Role.CLIENT, Role.PEER) and not (role == Role.ORDERER and by_unit):
            raise IdentityError(f"role {role} does not exist in this version of the MSP's rules")
        self.verify_identity(identity)
        if role != Role.MEMBER:
            defect = self._role_defect(identity, Role(role))
            if defect is not None:
                raise IdentityError(defect)

    def _check_unit(self, identity: Identity, content: bytes) -> None:
        message = parse(msp_principal_pb2.OrganizationUnit, content, "OrganizationUnit")
        self._check_asked(message.msp_identifier)
        self.verify_identity(identity)
        certifiers_id = self._chain_id(self._chain(identity.certificate)[1:])
        asked = message.organizational_unit_identifier
        if message.certifiers_identifier != certifiers_id or asked not in identity.certificate.organizational_units:
            raise IdentityError("not in the OU that the principal names")

    def _check_same(self, identity: Identity, content: bytes) -> None:
        named = decode_serialized_identity(content)
        self._check_asked(named.msp_id)
        other = self.identity(named.id_bytes)
        if other.certificate != identity.certificate:
            raise IdentityError("not the identity that the principal names")
        self.verify_identity(other)

    def _check_asked(self, msp_id: str) -> None:
        if msp_id != self.name:
            raise IdentityError("the principal asks for another MSP")


class ChannelMsps:
    """The MSPs of a channel by MSP ID.

    Idemix MSPs are known by name and vouch for nobody here: their anonymous credentials are not checked by this code,
    so a policy that only they can satisfy is not satisfied. Raises ConfigurationError when Fabric could not set one
    of them up.
    """

    def __init__(self, definitions: Iterable[MspDefinition], version: MspVersion) -> None:
        unique: dict[str, MspDefinition] = {}
        for definition in definitions:
            try:
                name = definition_name(definition)
            except DecodeError as error:
                raise ConfigurationError(str(error)) from error
            if not name:
                raise ConfigurationError("an organisation's MSP has no MSP ID")
            if unique.setdefault(name, definition) != definition:
                raise ConfigurationError(f"MSP {name} is defined in two ways")
            if definition.msp_type == TYPE_IDEMIX and not MspVersion.V1_1 <= version <= MspVersion.V1_4_3:
                raise ConfigurationError(f"MSP {name}: Idemix does not exist at the channel's capability level")
        self.by_id: Mapping[str, Msp] = {
            name: Msp(definition.content, version)
            for name, definition in unique.items()
            if definition.msp_type == TYPE_FABRIC
        }

    def identity(self, serialized: SerializedIdentity) -> Identity:
        """Give the identity, valid or not; raises IdentityError for an MSP that the channel does not have."""
        return self._msp(serialized.msp_id).identity(serialized.id_bytes)

    def verify_identity(self, identity: Identity) -> None:
        """Check that the identity's MSP vouches for it; raises IdentityError."""
        self._msp(identity.msp_id).verify_identity(identity)

    def satisfies_principal(self, identity: Identity, principal: Principal) -> bool:
        """Tell whether the identity is what the principal asks for, by the rules of its own MSP."""
        return self._msp(identity.msp_id).satisfies_principal(identity, principal)

    def _msp(self, msp_id: str) -> Msp:
        msp = self.by_id.get(msp_id)
        if msp is None:
            raise IdentityError("an MSP ID that the channel does not have")
        return msp
