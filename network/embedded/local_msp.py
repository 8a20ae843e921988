"""The MSP of a node's own organisation, from the node's MSP folder: what counts where no channel is named.

Rules: `msp/configbuilder.go` (the folder), `core/endorser/endorser.go` (proposals without a channel).
"""

from pathlib import Path
from typing import Any, Final

import yaml
from fabric_protos.msp import msp_config_pb2

from network.errors import CredentialError
from network.protocol.errors import ConfigurationError
from network.protocol.msp import TYPE_FABRIC, ChannelMsps, MspDefinition, MspVersion

_UNITS: Final = {
    "client_ou_identifier": "ClientOUIdentifier",
    "peer_ou_identifier": "PeerOUIdentifier",
    "admin_ou_identifier": "AdminOUIdentifier",
    "orderer_ou_identifier": "OrdererOUIdentifier",
}


def read_local_msp(msp_id: str, folder: Path) -> ChannelMsps:
    """Read an MSP folder: CA certificates, revocation lists and node OUs.

    Raises CredentialError when a file cannot be read, or when Fabric could not set this MSP up.
    """
    try:
        config = msp_config_pb2.FabricMSPConfig(
            name=msp_id,
            root_certs=_pem_files(folder / "cacerts"),
            intermediate_certs=_pem_files(folder / "intermediatecerts"),
            revocation_list=_pem_files(folder / "crls"),
            admins=_pem_files(folder / "admincerts"),
            crypto_config=msp_config_pb2.FabricCryptoConfig(
                signature_hash_family="SHA2", identity_identifier_hash_function="SHA256"
            ),
        )
        settings: Any = yaml.safe_load((folder / "config.yaml").read_bytes())
        units = settings["NodeOUs"]
        config.fabric_node_ous.enable = units["Enable"]
        for name, key in _UNITS.items():
            if key in units:
                unit = getattr(config.fabric_node_ous, name)
                unit.organizational_unit_identifier = units[key]["OrganizationalUnitIdentifier"]
                unit.certificate = (folder / units[key]["Certificate"]).read_bytes()
        definition = MspDefinition(TYPE_FABRIC, config.SerializeToString())
        return ChannelMsps([definition], MspVersion.V1_4_3)
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise CredentialError(f"{folder} is no MSP folder with node OUs ({type(error).__name__})") from error
    except ConfigurationError as error:
        raise CredentialError(f"{folder}: {error}") from error


def _pem_files(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(folder.glob("*"))]
