"""The configuration files of real nodes, rendered from what Fabric's programs read.

Settings that a program reads one by one may be left out where its default is meant; those it reads as a group need the
group in the file (`peer.BCCSP`, `chaincode.externalBuilders`, `peer.limits`, `chaincode.runtimeParams`). Files are
JSON, which is YAML. Sources: core/peer/config.go, internal/peer/node/start.go, orderer/common/localconfig/config.go.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

LOOPBACK = "127.0.0.1"
FIRST_WITH_TIME_WINDOW = (3, 0, 0)
MESSAGE_BYTES = 100 * 1024 * 1024
CRYPTOGRAPHY = {"Default": "SW", "SW": {"Hash": "SHA2", "Security": 256}}


class NodeFiles(NamedTuple):
    """Where a node finds its identity and its TLS material, and where it keeps its data."""

    msp: Path
    tls_certificate: Path
    tls_key: Path
    tls_ca_certificates: tuple[Path, ...]
    """Of its own organisation first; a node that calls others trusts those of all."""
    data: Path


class PeerNode(NamedTuple):
    """What the configuration of one peer says."""

    name: str
    msp_id: str
    files: NodeFiles
    port: int
    chaincode_port: int
    """Opened by every peer, although chaincode runs as a service here."""
    operations_port: int
    gossip_bootstrap: str
    builder: Path
    """Folder of the external builder for packages of type `ccaas`."""
    version: tuple[int, int, int]
    """Of the program: what an older one does not know, it does not start with."""


class OrdererNode(NamedTuple):
    """What the configuration of one orderer says."""

    name: str
    msp_id: str
    files: NodeFiles
    port: int
    admin_port: int
    operations_port: int


def peer_configuration(peer: PeerNode) -> str:
    """Give the text of a peer's `core.yaml`.

    Two intervals of gossip are short: by them peers come back to those that were not there yet, and tell what has
    changed of the chaincodes they run. With Fabric's own (25 and 4 seconds) a new network refuses its first
    transactions that long. The others stay: they are traffic of a network at rest.
    """
    address = f"{LOOPBACK}:{peer.port}"
    chaincode_address = f"{LOOPBACK}:{peer.chaincode_port}"
    content: dict[str, Any] = {
        "peer": {
            "id": peer.name,
            "networkId": "kvr",
            "listenAddress": address,
            "address": address,
            "chaincodeListenAddress": chaincode_address,
            "chaincodeAddress": chaincode_address,
            "localMspId": peer.msp_id,
            "localMspType": "bccsp",
            "mspConfigPath": str(peer.files.msp),
            "fileSystemPath": str(peer.files.data),
            "BCCSP": CRYPTOGRAPHY,
            "tls": {
                "enabled": True,
                "clientAuthRequired": False,
                "cert": {"file": str(peer.files.tls_certificate)},
                "key": {"file": str(peer.files.tls_key)},
                "rootcert": {"file": str(peer.files.tls_ca_certificates[0])},
            },
            "gateway": {
                "enabled": True,
                "endorsementTimeout": "30s",
                "broadcastTimeout": "30s",
                "dialTimeout": "30s",
            },
            "keepalive": {
                "interval": "7200s",
                "timeout": "20s",
                "minInterval": "60s",
                "client": {"interval": "60s", "timeout": "20s"},
                "deliveryClient": {"interval": "60s", "timeout": "20s"},
            },
            "gossip": {
                "bootstrap": peer.gossip_bootstrap,
                "endpoint": address,
                "externalEndpoint": address,
                "useLeaderElection": False,
                "orgLeader": True,
                "reconnectInterval": "300ms",
                "maxConnectionAttempts": 1000,
                "publishStateInfoInterval": "300ms",
                "pvtData": {
                    "pullRetryThreshold": "60s",
                    "transientstoreMaxBlockRetention": 20000,
                    "pushAckTimeout": "3s",
                    "btlPullMargin": 10,
                    "reconcileBatchSize": 10,
                    "reconcileSleepInterval": "1m",
                    "reconciliationEnabled": True,
                    "skipPullingInvalidTransactionsDuringCommit": False,
                    "implicitCollectionDisseminationPolicy": {"requiredPeerCount": 0, "maxPeerCount": 1},
                },
                "state": {"enabled": False},
            },
            "authentication": {"timewindow": "15m"},
            "client": {"connTimeout": "3s"},
            "deliveryclient": {
                "blockGossipEnabled": False,
                "reconnectTotalTimeThreshold": "3600s",
                "connTimeout": "3s",
                "reConnectBackoffThreshold": "500ms",
                "minimalReconnectInterval": "100ms",
                "blockCensorshipTimeoutKey": "30s",
                "policy": "cluster",
            },
            "handlers": {
                "authFilters": [{"name": name} for name in _filters(peer.version)],
                "decorators": [{"name": "DefaultDecorator"}],
                "endorsers": {"escc": {"name": "DefaultEndorsement"}},
                "validators": {"vscc": {"name": "DefaultValidation"}},
            },
            "discovery": {
                "enabled": True,
                "authCacheEnabled": True,
                "authCacheMaxSize": 1000,
                "authCachePurgeRetentionRatio": 0.75,
                "orgMembersAllowedAccess": False,
            },
            "limits": {
                "concurrency": {"endorserService": 2500, "deliverService": 2500, "gatewayService": 500},
            },
            "maxRecvMsgSize": MESSAGE_BYTES,
            "maxSendMsgSize": MESSAGE_BYTES,
        },
        "vm": {"endpoint": ""},
        "chaincode": {
            "mode": "net",
            "executetimeout": "30s",
            "startuptimeout": "300s",
            "installTimeout": "300s",
            "keepalive": 0,
            "externalBuilders": [{"name": "ccaas", "path": str(peer.builder)}],
            "system": {"_lifecycle": "enable", "cscc": "enable", "qscc": "enable"},
            "runtimeParams": {
                "useWriteBatch": True,
                "maxSizeWriteBatch": 1000,
                "useGetMultipleKeys": True,
                "maxSizeGetMultipleKeys": 1000,
            },
            "logging": {"level": "info", "shim": "warning"},
        },
        "ledger": {
            "state": {"stateDatabase": "goleveldb", "totalQueryLimit": 100000},
            "history": {"enableHistoryDatabase": True},
            "pvtdataStore": {
                "collElgProcMaxDbBatchSize": 5000,
                "collElgProcDbBatchesInterval": 1000,
                "deprioritizedDataReconcilerInterval": "60m",
                "purgeInterval": 100,
                "purgedKeyAuditLogging": True,
            },
            "snapshots": {"rootDir": str(peer.files.data / "snapshots")},
        },
        "operations": {"listenAddress": f"{LOOPBACK}:{peer.operations_port}", "tls": {"enabled": False}},
        "metrics": {"provider": "prometheus"},
    }
    return json.dumps(content, indent=1)


def _filters(version: tuple[int, int, int]) -> tuple[str, ...]:
    """Name what a proposal passes first; 2.5 does not look at its time."""
    filters = ("DefaultAuth", "ExpirationCheck")
    return (*filters, "TimeWindowCheck") if version >= FIRST_WITH_TIME_WINDOW else filters


def orderer_configuration(orderer: OrdererNode) -> str:
    """Give the text of an orderer's `orderer.yaml`: no channel at start, channels joined through the admin port."""
    files = orderer.files
    authorities = [str(path) for path in files.tls_ca_certificates]
    server = {"Enabled": True, "PrivateKey": str(files.tls_key), "Certificate": str(files.tls_certificate)}
    content: dict[str, Any] = {
        "General": {
            "ListenAddress": LOOPBACK,
            "ListenPort": orderer.port,
            "LocalMSPID": orderer.msp_id,
            "LocalMSPDir": str(files.msp),
            "BootstrapMethod": "none",
            "TLS": {**server, "RootCAs": authorities, "ClientAuthRequired": False},
            "Cluster": {
                "SendBufferSize": 100,
                "ClientCertificate": str(files.tls_certificate),
                "ClientPrivateKey": str(files.tls_key),
                "RootCAs": authorities,
            },
            "Keepalive": {"ServerMinInterval": "60s", "ServerInterval": "7200s", "ServerTimeout": "20s"},
            "MaxRecvMsgSize": MESSAGE_BYTES,
            "MaxSendMsgSize": MESSAGE_BYTES,
            "BCCSP": CRYPTOGRAPHY,
            "Authentication": {"TimeWindow": "15m"},
        },
        "FileLedger": {"Location": str(files.data / "ledger")},
        "Consensus": {
            "WALDir": str(files.data / "etcdraft" / "wal"),
            "SnapDir": str(files.data / "etcdraft" / "snapshot"),
        },
        "ChannelParticipation": {"Enabled": True, "MaxRequestBodySize": "1 MB"},
        "Admin": {
            "ListenAddress": f"{LOOPBACK}:{orderer.admin_port}",
            "TLS": {
                **server,
                "RootCAs": authorities,
                "ClientAuthRequired": True,
                "ClientRootCAs": [authorities[0]],
            },
        },
        "Operations": {"ListenAddress": f"{LOOPBACK}:{orderer.operations_port}", "TLS": {"Enabled": False}},
        "Metrics": {"Provider": "prometheus"},
    }
    return json.dumps(content, indent=1)
