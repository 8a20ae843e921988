"""An organisation as a channel knows it, from the MSP folder that it hands out: certificates, and no key.

Form of the folder: `msp/configbuilder.go`. What is in it and in the group: `internal/configtxgen/encoder/encoder.go`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml
from fabric_protos.msp import msp_config_pb2

from network.channel.change import Address, anchor_peers_message
from network.channel.update_file import read_bounded
from network.errors import UpdateFileError
from network.genesis import ADMINS, policy_message
from network.protocol.config_group import ConfigGroup, ConfigPolicy, ConfigValue, config_group
from network.protocol.errors import ConfigurationError
from network.protocol.msp import TYPE_FABRIC, Msp, MspVersion

MAX_FILE_BYTES: Final = 1024 * 1024
MAX_FILES: Final = 100
ROLES: Final = ("client", "peer", "admin", "orderer")


def read_msp_folder(msp_id: str, folder: Path) -> bytes:
    """Give the MSPConfig bytes of an organisation's MSP folder; raises UpdateFileError, naming file and reason.

    Read are cacerts, intermediatecerts, admincerts, crls, tlscacerts, tlsintermediatecerts and config.yaml; whatever
    else is there, a keystore above all, is not looked at.
    """
    settings = _settings(folder / "config.yaml")
    message = msp_config_pb2.FabricMSPConfig(
        name=msp_id,
        root_certs=_pems(folder / "cacerts"),
        intermediate_certs=_pems(folder / "intermediatecerts"),
        admins=_pems(folder / "admincerts"),
        revocation_list=_pems(folder / "crls"),
        tls_root_certs=_pems(folder / "tlscacerts"),
        tls_intermediate_certs=_pems(folder / "tlsintermediatecerts"),
        crypto_config=msp_config_pb2.FabricCryptoConfig(
            signature_hash_family="SHA2", identity_identifier_hash_function="SHA256"
        ),
    )
    units = settings.get("OrganizationalUnitIdentifiers") or []
    if not isinstance(units, list):
        raise UpdateFileError(f"{folder / 'config.yaml'}: OrganizationalUnitIdentifiers is no list")
    for unit in units:
        message.organizational_unit_identifiers.append(_unit(folder, unit, "OrganizationalUnitIdentifiers"))
    _set_node_units(folder, settings.get("NodeOUs"), message)
    content = bytes(message.SerializeToString(deterministic=True))
    try:
        Msp(content, MspVersion.V1_4_3)
    except ConfigurationError as error:
        raise UpdateFileError(f"{folder}: nodes would refuse it: {error}") from error
    return bytes(msp_config_pb2.MSPConfig(type=TYPE_FABRIC, config=content).SerializeToString(deterministic=True))


def member_group(
    msp_id: str, msp: bytes, anchor_peers: Sequence[Address] = (), policies: Mapping[str, str] | None = None
) -> ConfigGroup:
    """Make the group of a member of a channel; `msp` are MSPConfig bytes.

    `policies` are added to, or replace, those that organisations with NodeOUs usually have. Raises ConfigurationError
    for one that does not read.
    """
    texts = {**_default_policies(msp_id), **(policies or {})}
    entries = {}
    for name, text in texts.items():
        message = policy_message(text)
        entries[name] = ConfigPolicy(0, message.type, message.value, ADMINS)
    values = {"MSP": ConfigValue(0, msp, ADMINS)}
    if anchor_peers:
        message = anchor_peers_message(anchor_peers)
        values["AnchorPeers"] = ConfigValue(0, bytes(message.SerializeToString(deterministic=True)), ADMINS)
    return config_group(values=values, policies=entries, mod_policy=ADMINS)


def _default_policies(msp_id: str) -> dict[str, str]:
    return {
        "Readers": f"OR('{msp_id}.admin', '{msp_id}.peer', '{msp_id}.client')",
        "Writers": f"OR('{msp_id}.admin', '{msp_id}.client')",
        "Admins": f"OR('{msp_id}.admin')",
        "Endorsement": f"OR('{msp_id}.peer')",
    }


def _settings(file: Path) -> dict[str, Any]:
    if not file.exists():
        return {}
    try:
        content = yaml.safe_load(read_bounded(file, MAX_FILE_BYTES))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise UpdateFileError(f"{file}: not YAML") from error
    if not isinstance(content, dict):
        raise UpdateFileError(f"{file}: not a mapping")
    return content


def _set_node_units(folder: Path, units: object, message: msp_config_pb2.FabricMSPConfig) -> None:
    if units is None:
        return
    if not isinstance(units, dict) or not isinstance(units.get("Enable", False), bool):
        raise UpdateFileError(f"{folder / 'config.yaml'}: NodeOUs is no mapping with Enable: true or false")
    if not units.get("Enable", False):
        return
    message.fabric_node_ous.enable = True
    for role in ROLES:
        key = f"{role.capitalize()}OUIdentifier"
        if units.get(key) is not None:
            unit = _unit(folder, units[key], f"NodeOUs.{key}")
            getattr(message.fabric_node_ous, f"{role}_ou_identifier").CopyFrom(unit)


def _unit(folder: Path, unit: object, place: str) -> msp_config_pb2.FabricOUIdentifier:
    file = folder / "config.yaml"
    if not isinstance(unit, dict) or not isinstance(unit.get("OrganizationalUnitIdentifier"), str):
        raise UpdateFileError(f"{file}: {place} has no OrganizationalUnitIdentifier")
    named = unit.get("Certificate") or ""
    if not isinstance(named, str):
        raise UpdateFileError(f"{file}: {place}.Certificate is no path")
    path = folder / named
    if named and not path.resolve().is_relative_to(folder.resolve()):
        raise UpdateFileError(f"{file}: {place}.Certificate is outside of the folder")
    return msp_config_pb2.FabricOUIdentifier(
        certificate=read_bounded(path, MAX_FILE_BYTES) if named else b"",
        organizational_unit_identifier=unit["OrganizationalUnitIdentifier"],
    )


def _pems(folder: Path) -> list[bytes]:
    """Read every file of a folder; a folder that is not there is empty."""
    try:
        files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UpdateFileError(f"{folder}: {error.strerror}") from error
    if len(files) > MAX_FILES:
        raise UpdateFileError(f"{folder}: more than {MAX_FILES} files")
    contents = [(file, read_bounded(file, MAX_FILE_BYTES)) for file in files]
    for file, content in contents:
        if b"PRIVATE KEY" in content:
            raise UpdateFileError(f"{file}: a private key, which has no place in a channel")
        if b"-----BEGIN" not in content:
            raise UpdateFileError(f"{file}: not PEM")
    return [content for _, content in contents]
