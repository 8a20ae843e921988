"""The folder with all certificates and keys of a network, in the forms that nodes of Fabric read.

    <MSP id>/ca/, <MSP id>/tlsca/                   ca.crt, ca.key
    <MSP id>/nodes/<node>/, <MSP id>/users/<user>/  msp/ and tls/
    <MSP id>/chaincodes/<chaincode>/tls/            server of the chaincode, client of the organisation's peers

Form of an MSP folder: `msp/configbuilder.go`. Folders are for their owner only, and so are keys.
"""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import NameOID

from network.credentials.issuing import ATTRIBUTES, LOOPBACK_NAMES, Credential, Issuing, Randomness
from network.errors import CredentialError
from network.topology.definition import Organization, Topology

NODE_UNITS: Final = ("client", "peer", "admin", "orderer")
FOLDER_MODE: Final = 0o700
KEY_MODE: Final = 0o600
MAX_FILE_BYTES: Final = 64 * 1024

_CERTIFICATE_AUTHORITY_FILE: Final = "cacerts/ca.pem"


class TlsFiles(NamedTuple):
    """PEM files of one end of TLS connections; `ca_certificate` is that of its own organisation."""

    certificate: Path
    key: Path
    ca_certificate: Path


class ChaincodeTls(NamedTuple):
    """TLS between a chaincode's process and the peers of its organisation."""

    server: TlsFiles
    client: TlsFiles


class CredentialFolder:
    """Where each file is; that they are there and right is what `create_credentials` promises."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def ca_certificate(self, msp_id: str) -> Path:
        """Give the certificate of the CA that issues identities."""
        return self.path / msp_id / "ca" / "ca.crt"

    def tls_ca_certificate(self, msp_id: str) -> Path:
        """Give the certificate of the CA that issues TLS certificates."""
        return self.path / msp_id / "tlsca" / "ca.crt"

    def node_msp(self, msp_id: str, node: str) -> Path:
        """Give the MSP folder of a peer or orderer."""
        return self._node(msp_id, node) / "msp"

    def node_tls(self, msp_id: str, node: str) -> TlsFiles:
        """Give what a peer or orderer listens with; towards other nodes it is the client's as well."""
        return _tls_files(self._node(msp_id, node) / "tls", "server")

    def node_certificate(self, msp_id: str, node: str) -> Path:
        """Give the certificate that a node signs with."""
        return msp_certificate(self.node_msp(msp_id, node))

    def user_msp(self, msp_id: str, user: str) -> Path:
        """Give the MSP folder of a user; `msp_certificate` and `msp_key` name the files in it."""
        return self._user(msp_id, user) / "msp"

    def user_tls(self, msp_id: str, user: str) -> TlsFiles:
        """Give a user's client certificate: the admin port of an orderer asks for one of its organisation's."""
        return _tls_files(self._user(msp_id, user) / "tls", "client")

    def chaincode_tls(self, msp_id: str, chaincode: str) -> ChaincodeTls:
        """Give both ends of the connection between an organisation's peers and its process of a chaincode."""
        folder = self.path / msp_id / "chaincodes" / chaincode / "tls"
        return ChaincodeTls(_tls_files(folder, "server"), _tls_files(folder, "client"))

    def ca_pem(self, msp_id: str) -> bytes:
        """Read the certificate of the CA that issues identities; raises CredentialError, as all reading here."""
        return _read(self.ca_certificate(msp_id))

    def tls_ca_pem(self, msp_id: str) -> bytes:
        """Read the certificate of the CA that issues TLS certificates."""
        return _read(self.tls_ca_certificate(msp_id))

    def node_pem(self, msp_id: str, node: str) -> bytes:
        """Read the certificate that a node signs with."""
        return _read(self.node_certificate(msp_id, node))

    def node_tls_pem(self, msp_id: str, node: str) -> bytes:
        """Read the TLS certificate of a node."""
        return _read(self.node_tls(msp_id, node).certificate)

    def _node(self, msp_id: str, node: str) -> Path:
        return self.path / msp_id / "nodes" / node

    def _user(self, msp_id: str, user: str) -> Path:
        return self.path / msp_id / "users" / user


def msp_certificate(msp: Path) -> Path:
    """Give the file of the certificate in an MSP folder."""
    return msp / "signcerts" / "cert.pem"


def msp_key(msp: Path) -> Path:
    """Give the file of the private key in an MSP folder."""
    return msp / "keystore" / "priv_sk"


def create_credentials(
    topology: Topology, folder: Path, *, start: datetime, randomness: Randomness
) -> CredentialFolder:
    """Make the credentials of a network, or check those that are there; `start` is the present, in UTC.

    All of them come at once: after an interruption the folder is absent, and the next call makes it. Existing ones
    are kept. Raises CredentialError, naming the file, when one is missing, unreadable, not valid at `start`, not of the
    topology's user or node, not issued by its organisation's CA, or has another's key.
    """
    if not folder.is_dir() or not any(folder.iterdir()):
        _create(topology, folder, Issuing(start.replace(microsecond=0), randomness))
    else:
        for organization in topology.all_organizations:
            _check(CredentialFolder(folder), topology, organization, start)
    return CredentialFolder(folder)


@dataclass(frozen=True, slots=True)
class _Issued:
    """A certificate that an organisation's CA, or TLS CA, issues."""

    files: tuple[Path, Path]
    common_name: str
    unit: str | None
    """NodeOU; None: a certificate for TLS."""
    attributes: Mapping[str, str]
    names: tuple[str, ...] = ()


def _issued(folder: CredentialFolder, topology: Topology, organization: Organization) -> Iterator[_Issued]:
    msp_id, domain = organization.msp_id, organization.domain
    for node in organization.nodes:
        msp, tls = folder.node_msp(msp_id, node.name), folder.node_tls(msp_id, node.name)
        unit = "orderer" if organization.is_orderer else "peer"
        yield _Issued((msp_certificate(msp), msp_key(msp)), node.name, unit, {})
        yield _Issued(tls[:2], node.name, None, {}, (*LOOPBACK_NAMES, node.name))
    for user in organization.users:
        msp, tls = folder.user_msp(msp_id, user.name), folder.user_tls(msp_id, user.name)
        name = f"{user.name}@{domain}"
        yield _Issued((msp_certificate(msp), msp_key(msp)), name, user.role.value, user.attributes)
        yield _Issued(tls[:2], name, None, {}, LOOPBACK_NAMES)
    for chaincode in _chaincodes(topology, organization):
        both = folder.chaincode_tls(msp_id, chaincode)
        yield _Issued(both.server[:2], chaincode, None, {}, (*LOOPBACK_NAMES, f"{chaincode}.{domain}"))
        yield _Issued(both.client[:2], f"{chaincode} client", None, {}, LOOPBACK_NAMES)


def _chaincodes(topology: Topology, organization: Organization) -> list[str]:
    """Give the chaincodes that an organisation runs a process of."""
    if not organization.nodes:
        return []
    return [
        chaincode.name
        for channel in topology.channels
        if organization.msp_id in channel.members
        for chaincode in channel.chaincodes
    ]


def _copies(
    folder: CredentialFolder, topology: Topology, organization: Organization, ca: bytes, tls_ca: bytes
) -> Iterator[tuple[Path, bytes]]:
    """Give the files that say the same everywhere: what is trusted, and how roles are told."""
    msp_id = organization.msp_id
    holders = [(folder.node_msp(msp_id, node.name), folder.node_tls(msp_id, node.name)) for node in organization.nodes]
    holders += [(folder.user_msp(msp_id, user.name), folder.user_tls(msp_id, user.name)) for user in organization.users]
    for msp, tls in holders:
        yield msp / _CERTIFICATE_AUTHORITY_FILE, ca
        yield msp / "tlscacerts" / "tlsca.pem", tls_ca
        yield msp / "config.yaml", _msp_settings()
        yield tls.ca_certificate, tls_ca
    for chaincode in _chaincodes(topology, organization):
        yield folder.chaincode_tls(msp_id, chaincode).server.ca_certificate, tls_ca


def _msp_settings() -> bytes:
    """Give an MSP's `config.yaml`, in JSON, which is YAML."""
    units = {
        f"{unit.capitalize()}OUIdentifier": {
            "Certificate": _CERTIFICATE_AUTHORITY_FILE,
            "OrganizationalUnitIdentifier": unit,
        }
        for unit in NODE_UNITS
    }
    return json.dumps({"NodeOUs": {"Enable": True, **units}}, indent=1).encode()


def _tls_files(folder: Path, end: str) -> TlsFiles:
    return TlsFiles(folder / f"{end}.crt", folder / f"{end}.key", folder / "ca.crt")


def _authority_key(certificate: Path) -> Path:
    return certificate.with_suffix(".key")


def _create(topology: Topology, path: Path, issuing: Issuing) -> None:
    unfinished = path.with_name(f".{path.name}.unfinished")
    if unfinished.exists():
        shutil.rmtree(unfinished)  # nobody was ever given anything of it
    folder = CredentialFolder(unfinished)
    made: set[Path] = set()
    for organization in topology.all_organizations:
        for file, content, mode in _files(folder, topology, organization, issuing):
            _make_folder(file.parent, made)
            _write_new(file, content, mode)
    unfinished.rename(path)


def _make_folder(path: Path, made: set[Path]) -> None:
    if path in made:
        return
    if not path.exists():
        _make_folder(path.parent, made)
        path.mkdir(mode=FOLDER_MODE)
    made.add(path)


def _write_new(path: Path, content: bytes, mode: int) -> None:
    """Write a file that nobody sees yet.

    Hundreds of them are not forced to the disk one by one: what a power cut in the first seconds of a network leaves
    of them damaged, the check of the next command names.
    """
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)


def _files(
    folder: CredentialFolder, topology: Topology, organization: Organization, issuing: Issuing
) -> Iterator[tuple[Path, bytes, int]]:
    ca_file, tls_ca_file = folder.ca_certificate(organization.msp_id), folder.tls_ca_certificate(organization.msp_id)
    ca, tls_ca = issuing.authority(f"ca.{organization.domain}"), issuing.authority(f"tlsca.{organization.domain}")
    made = [((ca_file, _authority_key(ca_file)), ca), ((tls_ca_file, _authority_key(tls_ca_file)), tls_ca)]
    for wanted in _issued(folder, topology, organization):
        if wanted.unit is None:
            made.append((wanted.files, issuing.tls(tls_ca, wanted.common_name, wanted.names)))
        else:
            made.append((wanted.files, issuing.identity(ca, wanted.common_name, wanted.unit, wanted.attributes)))
    for (certificate, key), credential in made:
        yield certificate, credential.certificate_pem, 0o644
        yield key, credential.key_pem, KEY_MODE
    for file, content in _copies(folder, topology, organization, ca.certificate_pem, tls_ca.certificate_pem):
        yield file, content, 0o644


def _check(folder: CredentialFolder, topology: Topology, organization: Organization, now: datetime) -> None:
    ca_file, tls_ca_file = folder.ca_certificate(organization.msp_id), folder.tls_ca_certificate(organization.msp_id)
    ca = _checked(ca_file, _authority_key(ca_file), None, now)
    tls_ca = _checked(tls_ca_file, _authority_key(tls_ca_file), None, now)
    for wanted in _issued(folder, topology, organization):
        issuer = tls_ca if wanted.unit is None else ca
        certificate = _checked(*wanted.files, issuer.certificate, now).certificate
        if not _is_for(certificate, wanted):
            raise CredentialError(f"{wanted.files[0]}: a certificate of somebody else, or with another role")
    for file, content in _copies(folder, topology, organization, ca.certificate_pem, tls_ca.certificate_pem):
        if _read(file) != content:
            raise CredentialError(f"{file}: changed, or of another network")


def _checked(certificate_file: Path, key_file: Path, issuer: x509.Certificate | None, now: datetime) -> Credential:
    try:
        certificate = x509.load_pem_x509_certificate(_read(certificate_file))
    except ValueError as error:
        raise CredentialError(f"{certificate_file}: no certificate in PEM") from error
    try:
        key = load_pem_private_key(_read(key_file), None)
    except (ValueError, TypeError) as error:
        raise CredentialError(f"{key_file}: no private key in PEM") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise CredentialError(f"{key_file}: not the key of {certificate_file}")
    try:
        certificate.verify_directly_issued_by(issuer or certificate)
    except (ValueError, TypeError, InvalidSignature) as error:
        raise CredentialError(f"{certificate_file}: not issued by the CA of its organisation") from error
    if not certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc:
        raise CredentialError(
            f"{certificate_file}: valid from {certificate.not_valid_before_utc:%Y-%m-%d %H:%M:%S}"
            f" to {certificate.not_valid_after_utc:%Y-%m-%d %H:%M:%S} UTC only"
        )
    return Credential(certificate, key)


def _is_for(certificate: x509.Certificate, wanted: _Issued) -> bool:
    subject = certificate.subject
    names = [attribute.value for attribute in subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    units = [attribute.value for attribute in subject.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME)]
    attributes: Mapping[str, str] = {}
    for extension in certificate.extensions:
        if extension.oid == ATTRIBUTES and isinstance(extension.value, x509.UnrecognizedExtension):
            attributes = json.loads(extension.value.value)["attrs"]
    return (names, units, attributes) == (
        [wanted.common_name],
        [wanted.unit] if wanted.unit else [],
        dict(wanted.attributes),
    )


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise CredentialError(f"{path}: {error.strerror}. Make the network anew, or restore the file") from error
    if len(content) > MAX_FILE_BYTES:
        raise CredentialError(f"{path}: larger than any certificate or key")
    return content
