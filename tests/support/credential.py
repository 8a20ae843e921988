"""Certificate authorities, identities and channel configurations for tests, made at run time and never stored."""

from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from fabric_protos.common import common_pb2, configtx_pb2, configuration_pb2, policies_pb2
from fabric_protos.msp import identities_pb2, msp_config_pb2, msp_principal_pb2
from fabric_protos.orderer import configuration_pb2 as orderer_configuration_pb2

from network.protocol.der import BIT_STRING, SEQUENCE, DerReader, encode_element

PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey

START: Final = datetime(2024, 1, 1, tzinfo=UTC)
YEAR: Final = timedelta(days=365)


def high_s(signature: bytes, curve: ec.EllipticCurve) -> bytes:
    """Give the form of an ECDSA signature whose s is above half the curve's order."""
    r, s = decode_dss_signature(signature)
    return encode_dss_signature(r, max(s, curve.group_order - s))


def low_s(signature: bytes, curve: ec.EllipticCurve) -> bytes:
    """Give the form of an ECDSA signature that Fabric accepts."""
    r, s = decode_dss_signature(signature)
    return encode_dss_signature(r, min(s, curve.group_order - s))


def with_certificate_signature(der: bytes, signature: bytes) -> bytes:
    """Give a certificate with other signature bytes."""
    outer = DerReader(der, "certificate").inside(SEQUENCE)
    signed, algorithm = outer.read_whole(SEQUENCE), outer.read_whole(SEQUENCE)
    return encode_element(SEQUENCE, signed + algorithm + encode_element(BIT_STRING, b"\x00" + signature))


def of_no_version(der: bytes) -> bytes:
    """Give a certificate, in PEM, that says it is of a version of X.509 that does not exist."""
    changed = b64encode(der.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x07", 1))
    return b"-----BEGIN CERTIFICATE-----\n" + changed + b"\n-----END CERTIFICATE-----\n"


def to_pem(der: bytes) -> bytes:
    """Wrap a certificate in PEM."""
    return x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM)


def _hash_for(key: PrivateKey) -> hashes.SHA256 | None:
    return None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()


@dataclass(frozen=True)
class Credential:
    """A certificate with its key, in an MSP."""

    msp_id: str
    certificate: x509.Certificate
    key: PrivateKey

    @property
    def pem(self) -> bytes:
        """The certificate in PEM."""
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def der(self) -> bytes:
        """The certificate in DER."""
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def serialized(self) -> bytes:
        """The serialised identity."""
        return self.serialized_as(self.pem)

    def serialized_as(self, id_bytes: bytes) -> bytes:
        """Serialise with other certificate bytes."""
        return bytes(identities_pb2.SerializedIdentity(mspid=self.msp_id, id_bytes=id_bytes).SerializeToString())

    def sign(self, data: bytes) -> bytes:
        """Sign as Fabric does: low-S ECDSA over SHA-256, Ed25519 over the data."""
        if isinstance(self.key, ed25519.Ed25519PrivateKey):
            return self.key.sign(data)
        if not isinstance(self.key, ec.EllipticCurvePrivateKey):
            raise TypeError("an RSA key signs nothing in Fabric")
        return low_s(self.key.sign(data, ec.ECDSA(hashes.SHA256())), self.key.curve)

    def in_form(self, *, high: bool, curve: ec.EllipticCurve | None = None) -> "Credential":
        """Give the same certificate with its own signature in high-S or low-S form; `curve` is the issuer's."""
        form = high_s if high else low_s
        signature = form(self.certificate.signature, curve or ec.SECP256R1())
        der = with_certificate_signature(self.der, signature)
        return Credential(self.msp_id, x509.load_der_x509_certificate(der), self.key)


@dataclass(frozen=True)
class Authority(Credential):
    """A CA that can issue."""

    def issue(  # noqa: PLR0913  # what certificates can differ in
        self,
        common_name: str = "someone",
        units: Sequence[str] = ("client",),
        *,
        key: PrivateKey | None = None,
        start: datetime = START,
        end: datetime = START + YEAR,
        is_ca: bool = False,
        signs: bool | None = None,
        path_length: int | None = None,
        usages: Sequence[x509.ObjectIdentifier] = (),
        extensions: Iterable[tuple[x509.ExtensionType, bool]] = (),
        subject: x509.Name | None = None,
        serial_number: int | None = None,
    ) -> "Authority":
        """Issue a certificate, valid from `start` to `end`; `signs` certificates by default when it is a CA."""
        return _certify(
            self.msp_id,
            subject or name(common_name, units),
            key or ec.generate_private_key(ec.SECP256R1()),
            self,
            (start, end),
            is_ca=is_ca,
            signs=is_ca if signs is None else signs,
            path_length=path_length,
            usages=usages,
            extensions=extensions,
            serial_number=serial_number,
        )

    def intermediate(self, common_name: str = "intermediate", *, key: PrivateKey | None = None) -> "Authority":
        """Issue a CA below this one."""
        return self.issue(common_name, (), key=key, is_ca=True, end=START + 5 * YEAR)

    def revoke(self, *revoked: Credential, key_id: bool = True, signer: Credential | None = None) -> bytes:
        """Issue a revocation list in PEM; `signer`: whose key signs it instead of this CA's own."""
        signing = (signer or self).key
        builder = x509.CertificateRevocationListBuilder(self.certificate.subject, START, START + YEAR)
        for credential in revoked:
            builder = builder.add_revoked_certificate(
                x509.RevokedCertificateBuilder(credential.certificate.serial_number, START).build()
            )
        if key_id:
            identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
            builder = builder.add_extension(identifier, critical=False)
        return builder.sign(signing, _hash_for(signing)).public_bytes(Encoding.PEM)


def name(common_name: str, units: Sequence[str] = ()) -> x509.Name:
    """Make a distinguished name."""
    attributes = [x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, unit) for unit in units]
    return x509.Name([*attributes, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _certify(  # noqa: PLR0913  # as `Authority.issue`
    msp_id: str,
    subject: x509.Name,
    key: PrivateKey,
    issuer: Credential | None,
    window: tuple[datetime, datetime],
    *,
    is_ca: bool,
    signs: bool,
    path_length: int | None = None,
    usages: Sequence[x509.ObjectIdentifier] = (),
    extensions: Iterable[tuple[x509.ExtensionType, bool]] = (),
    serial_number: int | None = None,
) -> Authority:
    signing = issuer.key if issuer else key
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(serial_number or x509.random_serial_number())
        .not_valid_before(window[0])
        .not_valid_after(window[1])
        .add_extension(x509.BasicConstraints(is_ca, path_length), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signing.public_key()), critical=False)
        .add_extension(_key_usage(signs_certificates=signs), critical=True)
    )
    if usages:
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    return Authority(msp_id, builder.sign(signing, _hash_for(signing)), key)


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def root_authority(msp_id: str, common_name: str | None = None, *, key: PrivateKey | None = None) -> Authority:
    """Make a self-signed CA."""
    window = (START - YEAR, START + 10 * YEAR)
    key = key or ec.generate_private_key(ec.SECP256R1())
    return _certify(msp_id, name(common_name or f"ca.{msp_id}"), key, None, window, is_ca=True, signs=True)


CLIENT_AUTH: Final = ExtendedKeyUsageOID.CLIENT_AUTH
SERVER_AUTH: Final = ExtendedKeyUsageOID.SERVER_AUTH

NODE_UNITS: Final = ("client", "peer", "admin", "orderer")


def msp_config(  # noqa: PLR0913  # what MSPs can differ in
    msp_id: str,
    roots: Sequence[Credential],
    *,
    intermediates: Sequence[Credential] = (),
    admins: Sequence[Credential] = (),
    revocation_lists: Sequence[bytes] = (),
    node_units: bool = True,
    node_unit_certificate: bytes = b"",
    unit_identifiers: Sequence[tuple[str, bytes]] = (),
    signature_hash: str = "SHA2",
) -> msp_config_pb2.FabricMSPConfig:
    """Describe an MSP; `unit_identifiers` are pairs of OU and certifying CA in PEM."""
    config = msp_config_pb2.FabricMSPConfig(
        name=msp_id,
        root_certs=[root.pem for root in roots],
        intermediate_certs=[intermediate.pem for intermediate in intermediates],
        admins=[admin.pem for admin in admins],
        revocation_list=revocation_lists,
        crypto_config=msp_config_pb2.FabricCryptoConfig(
            signature_hash_family=signature_hash, identity_identifier_hash_function="SHA256"
        ),
    )
    for unit, certificate in unit_identifiers:
        config.organizational_unit_identifiers.add(organizational_unit_identifier=unit, certificate=certificate)
    if node_units:
        config.fabric_node_ous.enable = True
        for unit in NODE_UNITS:
            identifier = getattr(config.fabric_node_ous, f"{unit}_ou_identifier")
            identifier.organizational_unit_identifier = unit
            identifier.certificate = node_unit_certificate
    return config


def role(msp_id: str, number: int) -> msp_principal_pb2.MSPPrincipal:
    """Make a principal that asks for a role (0 member, 1 admin, 2 client, 3 peer, 4 orderer)."""
    content = msp_principal_pb2.MSPRole(msp_identifier=msp_id, role=number).SerializeToString()
    return msp_principal_pb2.MSPPrincipal(principal_classification=0, principal=content)


def identity_principal(credential: Credential) -> msp_principal_pb2.MSPPrincipal:
    """Make a principal that asks for one certificate."""
    return msp_principal_pb2.MSPPrincipal(principal_classification=2, principal=credential.serialized)


def signed_by(index: int) -> policies_pb2.SignaturePolicy:
    """Make a leaf of a signature policy."""
    return policies_pb2.SignaturePolicy(signed_by=index)


def out_of(needed: int, *rules: policies_pb2.SignaturePolicy) -> policies_pb2.SignaturePolicy:
    """Make a gate of a signature policy."""
    return policies_pb2.SignaturePolicy(n_out_of=policies_pb2.SignaturePolicy.NOutOf(n=needed, rules=rules))


def signature_policy(
    rule: policies_pb2.SignaturePolicy, *principals: msp_principal_pb2.MSPPrincipal
) -> policies_pb2.Policy:
    """Make a signature policy."""
    envelope = policies_pb2.SignaturePolicyEnvelope(version=0, rule=rule, identities=principals)
    return policies_pb2.Policy(type=1, value=envelope.SerializeToString())


def any_of(*principals: msp_principal_pb2.MSPPrincipal) -> policies_pb2.Policy:
    """Make a signature policy that any one of the principals satisfies."""
    return signature_policy(out_of(1, *[signed_by(index) for index in range(len(principals))]), *principals)


def implicit_policy(sub_policy: str, rule: int) -> policies_pb2.Policy:
    """Make an implicit meta policy (rule 0 any, 1 all, 2 majority)."""
    content = policies_pb2.ImplicitMetaPolicy(sub_policy=sub_policy, rule=rule).SerializeToString()
    return policies_pb2.Policy(type=3, value=content)


@dataclass
class ChannelDraft:
    """A channel configuration in the making; defaults are those of a small Raft channel."""

    orderer_msps: Mapping[str, msp_config_pb2.FabricMSPConfig]
    application_msps: Mapping[str, msp_config_pb2.FabricMSPConfig] = field(default_factory=dict)
    block_validation: policies_pb2.Policy = field(default_factory=lambda: implicit_policy("Writers", 0))
    channel_capability: str = "V3_0"
    consenters: Sequence[tuple[int, Credential]] = ()
    sequence: int = 0

    def config(self) -> configtx_pb2.Config:
        """Build the configuration tree."""
        config = configtx_pb2.Config(sequence=self.sequence)
        channel = config.channel_group
        _put(channel, "HashingAlgorithm", configuration_pb2.HashingAlgorithm(name="SHA256"))
        _put(channel, "BlockDataHashingStructure", configuration_pb2.BlockDataHashingStructure(width=2**32 - 1))
        _put(channel, "Capabilities", _capabilities(self.channel_capability))
        if self.channel_capability < "V1_4_2":
            _put(channel, "OrdererAddresses", configuration_pb2.OrdererAddresses(addresses=["orderer:7050"]))
        orderer, application = channel.groups["Orderer"], channel.groups["Application"]
        for group in (channel, orderer, application):
            for sub_policy, rule in (("Readers", 0), ("Writers", 0), ("Admins", 2)):
                group.policies[sub_policy].policy.CopyFrom(implicit_policy(sub_policy, rule))
        kind = "BFT" if self.consenters else "etcdraft"
        _put(orderer, "ConsensusType", orderer_configuration_pb2.ConsensusType(type=kind))
        size = orderer_configuration_pb2.BatchSize(
            max_message_count=10, absolute_max_bytes=2**20, preferred_max_bytes=2**19
        )
        _put(orderer, "BatchSize", size)
        _put(orderer, "BatchTimeout", orderer_configuration_pb2.BatchTimeout(timeout="2s"))
        _put(orderer, "Capabilities", _capabilities("V2_0"))
        _put(application, "Capabilities", _capabilities("V2_5"))
        orderer.policies["BlockValidation"].policy.CopyFrom(self.block_validation)
        if self.consenters:
            mapping = configuration_pb2.Orderers()
            for number, credential in self.consenters:
                mapping.consenter_mapping.add(id=number, msp_id=credential.msp_id, identity=credential.pem)
            _put(orderer, "Orderers", mapping)
        for group_name, msp in self.orderer_msps.items():
            organization = _put_organization(orderer, group_name, msp)
            if self.channel_capability >= "V1_4_2":
                _put(organization, "Endpoints", configuration_pb2.OrdererAddresses(addresses=["orderer:7050"]))
        for group_name, msp in self.application_msps.items():
            _put_organization(application, group_name, msp)
        return config

    def envelope(self) -> bytes:
        """Build the ConfigEnvelope bytes."""
        return config_envelope(self.config())


def config_envelope(config: configtx_pb2.Config) -> bytes:
    """Wrap a configuration."""
    return bytes(configtx_pb2.ConfigEnvelope(config=config).SerializeToString())


def _put(group: configtx_pb2.ConfigGroup, key: str, message: common_pb2.Metadata) -> None:
    group.values[key].value = message.SerializeToString()
    group.values[key].mod_policy = "Admins"


def _capabilities(capability: str) -> configuration_pb2.Capabilities:
    message = configuration_pb2.Capabilities()
    message.capabilities[capability].SetInParent()
    return message


def _put_organization(
    group: configtx_pb2.ConfigGroup, group_name: str, msp: msp_config_pb2.FabricMSPConfig
) -> configtx_pb2.ConfigGroup:
    organization = group.groups[group_name]
    _put(organization, "MSP", msp_config_pb2.MSPConfig(type=0, config=msp.SerializeToString()))
    for policy, number in (("Readers", 0), ("Writers", 0), ("Admins", 1), ("Endorsement", 3)):
        organization.policies[policy].policy.CopyFrom(any_of(role(msp.name, number)))
    return organization
