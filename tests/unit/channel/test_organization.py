"""MSP folders: what of them goes into a channel, and what is refused and where."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from fabric_protos.msp import msp_config_pb2

from network.channel import organization
from network.channel.change import Address
from network.channel.organization import member_group, read_msp_folder
from network.errors import UpdateFileError
from network.protocol.errors import ConfigurationError
from tests.support.authority import revoked_users
from tests.support.generated_network import START, GeneratedNetwork

MEMBER = "ServiceMSP"


@pytest.fixture
def folder(generated: GeneratedNetwork, tmp_path: Path) -> Path:
    """Give an MSP folder of an organisation that a test may spoil."""
    return Path(shutil.copytree(generated.credentials.user_msp(MEMBER, "admin"), tmp_path / "msp"))


def fields(content: bytes) -> msp_config_pb2.FabricMSPConfig:
    return msp_config_pb2.FabricMSPConfig.FromString(msp_config_pb2.MSPConfig.FromString(content).config)


def test_a_folder_gives_what_the_genesis_block_says_of_the_organisation(
    generated: GeneratedNetwork, folder: Path
) -> None:
    application = generated.configuration().root.groups["Application"]

    read = fields(read_msp_folder(MEMBER, folder))

    assert read == fields(application.groups[MEMBER].values["MSP"].value)


def test_a_revocation_list_of_the_folder_goes_in(generated: GeneratedNetwork, folder: Path) -> None:
    (folder / "crls").mkdir()
    (folder / "crls" / "one.pem").write_bytes(revoked_users(generated.credentials, MEMBER, "agent", now=START))

    assert len(fields(read_msp_folder(MEMBER, folder)).revocation_list) == 1


def test_a_keystore_is_not_looked_at(folder: Path) -> None:
    before = read_msp_folder(MEMBER, folder)
    for file in (folder / "keystore").iterdir():
        file.write_bytes(b"anything")

    assert read_msp_folder(MEMBER, folder) == before
    assert b"PRIVATE" not in before


def settings(change: Callable[[dict[str, object]], None]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        content = yaml.safe_load((folder / "config.yaml").read_text())
        change(content)
        (folder / "config.yaml").write_text(yaml.safe_dump(content))

    return spoil


def text(content: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        (folder / "config.yaml").write_text(content)

    return spoil


def move_key(folder: Path) -> None:
    (key,) = (folder / "keystore").iterdir()
    shutil.copy(key, folder / "cacerts" / "key.pem")


def no_pem(folder: Path) -> None:
    (folder / "tlscacerts" / "note.txt").write_text("hello")


def no_roots(folder: Path) -> None:
    shutil.rmtree(folder / "cacerts")
    (folder / "config.yaml").unlink()


def a_file_for_a_folder(folder: Path) -> None:
    shutil.rmtree(folder / "tlscacerts")
    (folder / "tlscacerts").write_text("x")


def outside(content: dict[str, object]) -> None:
    unit = {"Certificate": "../elsewhere.pem", "OrganizationalUnitIdentifier": "client"}
    content["NodeOUs"] = {"Enable": True, "ClientOUIdentifier": unit}


SPOILED: dict[str, tuple[Callable[[Path], None], str]] = {
    "a private key among certificates": (move_key, r"cacerts/key\.pem: a private key"),
    "a file that is no PEM": (no_pem, r"tlscacerts/note\.txt: not PEM"),
    "no root certificate": (no_roots, "nodes would refuse it"),
    "a file where a folder belongs": (a_file_for_a_folder, "tlscacerts: Not a directory"),
    "settings that are no YAML": (text("a: ["), r"config\.yaml: not YAML"),
    "settings that are no text": (
        lambda folder: (folder / "config.yaml").write_bytes(b"\x81\x00"),
        r"config\.yaml: not YAML",
    ),
    "settings that are a list": (text("- a"), r"config\.yaml: not a mapping"),
    "node units that are a list": (text("NodeOUs: []"), "NodeOUs is no mapping"),
    "node units neither on nor off": (text("NodeOUs: {Enable: often}"), "NodeOUs is no mapping with Enable"),
    "a unit without a name": (
        text("NodeOUs: {Enable: true, PeerOUIdentifier: {Certificate: a}}"),
        r"NodeOUs\.PeerOUIdentifier has no OrganizationalUnitIdentifier",
    ),
    "a unit whose certificate is no path": (
        text("NodeOUs: {Enable: true, PeerOUIdentifier: {Certificate: [1], OrganizationalUnitIdentifier: peer}}"),
        r"PeerOUIdentifier\.Certificate is no path",
    ),
    "a unit whose certificate lies elsewhere": (settings(outside), "Certificate is outside of the folder"),
    "a unit whose certificate is missing": (
        text("NodeOUs: {Enable: true, PeerOUIdentifier: {Certificate: no.pem, OrganizationalUnitIdentifier: peer}}"),
        r"no\.pem: No such file",
    ),
    "organisational units that are a mapping": (
        text("OrganizationalUnitIdentifiers: {a: 1}"),
        "OrganizationalUnitIdentifiers is no list",
    ),
    "an organisational unit that is text": (
        text("OrganizationalUnitIdentifiers: [a]"),
        "OrganizationalUnitIdentifiers has no OrganizationalUnitIdentifier",
    ),
}


@pytest.mark.parametrize(("spoil", "words"), SPOILED.values(), ids=SPOILED.keys())
def test_a_folder_that_is_wrong_is_refused_by_place_and_reason(
    folder: Path, spoil: Callable[[Path], None], words: str
) -> None:
    spoil(folder)

    with pytest.raises(UpdateFileError, match=words) as refusal:
        read_msp_folder(MEMBER, folder)
    assert "PRIVATE" not in str(refusal.value)


def test_files_are_bounded_in_size_and_number(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as limits:
        limits.setattr(organization, "MAX_FILE_BYTES", 10)
        with pytest.raises(UpdateFileError, match="larger than 10 bytes"):
            read_msp_folder(MEMBER, folder)
    for number in range(organization.MAX_FILES):
        (folder / "cacerts" / f"{number}.pem").write_text("x")
    with pytest.raises(UpdateFileError, match="more than 100 files"):
        read_msp_folder(MEMBER, folder)


def test_a_member_brings_its_own_policies_and_anchor_peers(folder: Path) -> None:
    msp = read_msp_folder(MEMBER, folder)

    group = member_group(
        MEMBER, msp, [Address("peer", 1)], {"Endorsement": f"OR('{MEMBER}.member')", "Other": "ANY Readers"}
    )

    assert set(group.policies) == {"Readers", "Writers", "Admins", "Endorsement", "Other"}
    assert set(group.values) == {"MSP", "AnchorPeers"}
    assert group.policies["Endorsement"] != member_group(MEMBER, msp).policies["Endorsement"]
    assert group.policies["Admins"] == member_group(MEMBER, msp).policies["Admins"]
    assert {entry.mod_policy for entry in (*group.policies.values(), *group.values.values(), group)} == {"Admins"}


def test_a_policy_that_does_not_read_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigurationError):
        member_group(MEMBER, read_msp_folder(MEMBER, folder), policies={"Readers": "OR("})
