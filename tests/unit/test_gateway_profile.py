import json
from pathlib import Path
from typing import Any

import pytest

from gateway.client.errors import ProfileError
from gateway.client.profile import read_profile

PEM = "-----BEGIN CERTIFICATE-----\n"


def document() -> dict[str, Any]:
    return {
        "name": "test-network-org1",
        "client": {"organization": "Org1", "connection": {"timeout": {"peer": {"endorser": "300"}}}},
        "organizations": {"Org1": {"mspid": "Org1MSP", "peers": ["peer0"], "certificateAuthorities": ["ca"]}},
        "peers": {
            "peer0": {
                "url": "grpcs://localhost:7051",
                "tlsCACerts": {"pem": PEM},
                "grpcOptions": {"ssl-target-name-override": "peer0.org1", "hostnameOverride": "peer0.org1"},
            }
        },
        "orderers": {"o1": {"url": "grpcs://127.0.0.1:7050", "tlsCACerts": {"path": "tls/ca.pem"}}},
    }


def write(folder: Path, content: object) -> Path:
    path = folder / "connection.json"
    path.write_text(json.dumps(content))
    (folder / "tls").mkdir(exist_ok=True)
    (folder / "tls" / "ca.pem").write_text(PEM)
    return path


def test_profile_of_a_sample_network_is_read(tmp_path: Path) -> None:
    profile = read_profile(write(tmp_path, document()))

    (peer,) = profile.own_peers("Org1MSP")
    assert (profile.organization, peer.address, peer.server_name) == ("Org1MSP", "localhost:7051", "peer0.org1")
    assert peer.tls_roots == PEM.encode()
    assert [(node.address, node.tls_roots) for node in profile.orderers] == [("127.0.0.1:7050", PEM.encode())]


def test_organisation_without_peers_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="no peer of OtherMSP"):
        read_profile(write(tmp_path, document())).own_peers("OtherMSP")


@pytest.mark.parametrize(
    ("place", "value", "field"),
    [
        (("peers", "peer0", "url"), "grpc://localhost:7051", "peers.peer0.url: not grpcs"),
        (("peers", "peer0", "url"), "grpcs://localhost", "peers.peer0.url: not of the form"),
        (("peers", "peer0", "url"), "grpcs://localhost:99999", "peers.peer0.url: not of the form"),
        (("peers", "peer0", "url"), None, "peers.peer0.url: missing"),
        (("peers", "peer0", "tlsCACerts"), None, "peers.peer0.tlsCACerts: missing"),
        (("peers", "peer0", "tlsCACerts"), {"path": "no"}, "peers.peer0.tlsCACerts.path: .*cannot be read"),
        (("organizations", "Org1", "mspid"), 5, "organizations.Org1.mspid: not text"),
        (("organizations", "Org1", "peers"), ["peer9"], "organizations.Org1.peers: 'peer9'"),
        (("organizations", "Org1", "peers"), "peer0", "organizations.Org1.peers: not a list"),
        (("client", "organization"), "Org2", "client.organization"),
        (("client", "organization"), ["Org1"], "client.organization"),
        (("organizations",), None, "organizations: missing"),
    ],
)
def test_wrong_field_is_named_with_its_file(tmp_path: Path, place: tuple[str, ...], value: object, field: str) -> None:
    content = document()
    inner = content
    for name in place[:-1]:
        inner = inner[name]
    inner[place[-1]] = value
    with pytest.raises(ProfileError, match=rf"connection.json: {field}"):
        read_profile(write(tmp_path, content))


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"a: [", b"[]", b"", b"[" * 5000], ids=range(5))
def test_what_is_no_profile_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "connection.yaml"
    path.write_bytes(content)
    with pytest.raises(ProfileError, match=r"connection\.yaml"):
        read_profile(path)
