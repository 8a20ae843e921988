"""The packages of a peer: kept whole or not at all, by their id, and only what can run."""

import json
import tarfile
from hashlib import sha256
from io import BytesIO
from pathlib import Path

import pytest

from network.embedded.ledger.package_store import PackageStore
from network.errors import LedgerError
from network.protocol.errors import PackageError
from network.protocol.package import build_package, build_service_package

PACKAGE = build_service_package("service_1.0", {"address": "127.0.0.1:9999"})
PACKAGE_ID = f"service_1.0:{sha256(PACKAGE).hexdigest()}"


def refusal(store: PackageStore, content: bytes) -> str:
    with pytest.raises(PackageError) as caught:
        store.install(content)
    assert store.installed() == []
    return str(caught.value)


def test_an_installed_package_is_found_by_its_id_and_kept(tmp_path: Path) -> None:
    installed = PackageStore(tmp_path / "packages").install(PACKAGE)

    store = PackageStore(tmp_path / "packages")

    assert installed == (PACKAGE_ID, "service_1.0")
    assert store.installed() == [installed]
    assert store.content(PACKAGE_ID) == PACKAGE
    assert json.loads(store.connection(PACKAGE_ID) or b"") == {"address": "127.0.0.1:9999"}
    assert store.has(PACKAGE_ID)
    assert store.count == 1


def test_a_peer_without_packages_has_none(tmp_path: Path) -> None:
    store = PackageStore(tmp_path / "packages")

    assert (store.installed(), store.count) == ([], 0)
    assert (store.has(PACKAGE_ID), store.content(PACKAGE_ID), store.connection(PACKAGE_ID)) == (False, None, None)


def test_packages_are_listed_by_id_and_told_apart_by_content(tmp_path: Path) -> None:
    store = PackageStore(tmp_path)
    other = build_service_package("service_1.0", {"address": "127.0.0.1:9998"})

    ids = {store.install(content).package_id for content in (PACKAGE, other)}

    assert [package.package_id for package in store.installed()] == sorted(ids)
    assert len(ids) == 2


def test_refuses_a_package_that_is_installed_already_also_after_a_restart(tmp_path: Path) -> None:
    store = PackageStore(tmp_path)
    store.install(PACKAGE)

    for again in (store, PackageStore(tmp_path)):
        with pytest.raises(PackageError) as caught:
            again.install(PACKAGE)

        assert str(caught.value) == f"chaincode already successfully installed (package ID '{PACKAGE_ID}')"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "error reading as gzip stream: EOF"),
        (b"no package", "error reading as gzip stream: gzip: invalid header"),
        (PACKAGE[:-100], "error inspecting next tar header: unexpected EOF"),
    ],
)
def test_refuses_what_is_no_package(tmp_path: Path, content: bytes, reason: str) -> None:
    text = refusal(PackageStore(tmp_path), content)

    assert text == f"could not parse as a chaincode install package: {reason}"


def archive(files: dict[str, bytes]) -> bytes:
    out = BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as made:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            made.addfile(entry, BytesIO(content))
    return out.getvalue()


def package_of(code: bytes) -> bytes:
    return archive({"metadata.json": b'{"type": "ccaas", "label": "basic"}', "code.tar.gz": code})


def test_refuses_code_that_cannot_be_unpacked(tmp_path: Path) -> None:
    assert refusal(PackageStore(tmp_path), package_of(b"no archive")) == (
        "could not parse as a chaincode install package: error retrieving DB artifacts from code package: "
        "gzip: invalid header"
    )


def test_refuses_code_that_leads_outside(tmp_path: Path) -> None:
    assert refusal(PackageStore(tmp_path), package_of(archive({"../connection.json": b"{}"}))) == (
        "could not build chaincode: tar contains the absolute or escaping path '../connection.json'"
    )


def test_refuses_chaincode_of_a_type_that_does_not_run_here(tmp_path: Path) -> None:
    content = build_package("basic", "golang", {"connection.json": b"{}"})

    assert refusal(PackageStore(tmp_path), content) == (
        "could not build chaincode: the embedded network runs chaincode of type 'ccaas', not 'golang'"
    )
    assert list(tmp_path.iterdir()) == []


def test_refuses_a_server_that_does_not_say_where_it_listens(tmp_path: Path) -> None:
    content = build_package("basic", "ccaas", {"README": b""})

    assert refusal(PackageStore(tmp_path), content) == "could not build chaincode: connection.json not found"


def test_refuses_a_label_too_long_for_a_file(tmp_path: Path) -> None:
    content = build_service_package("l" * 200, {"address": "127.0.0.1:9999"})

    assert refusal(PackageStore(tmp_path), content) == (
        "could not save cc install package: the label is too long for the name of a file"
    )


def test_takes_the_longest_label_that_a_file_can_have(tmp_path: Path) -> None:
    label = "l" * (240 - 1 - 64 - len(".tar.gz"))

    installed = PackageStore(tmp_path).install(build_service_package(label, {"address": "127.0.0.1:9999"}))

    assert PackageStore(tmp_path).installed() == [installed]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (PACKAGE[:-100], "unexpected EOF"),
        (build_package("service_1.0", "golang", {}), "not 'golang'"),
        (build_service_package("service_1.0", {"address": "127.0.0.1:1"}), "holds another package than its name says"),
    ],
)
def test_does_not_open_a_damaged_folder(tmp_path: Path, content: bytes, reason: str) -> None:
    PackageStore(tmp_path).install(PACKAGE)
    (file,) = tmp_path.iterdir()
    file.write_bytes(content)

    with pytest.raises(LedgerError, match=reason) as caught:
        PackageStore(tmp_path)

    assert str(file) in str(caught.value)
