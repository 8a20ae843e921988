"""The chaincode packages that a peer holds, each a file (`core/chaincode/persistence/persistence.go`)."""

from pathlib import Path
from typing import Final, NamedTuple

from network.errors import LedgerError
from network.protocol.errors import PackageError
from network.protocol.package import (
    CONNECTION_FILE,
    SERVICE_TYPE,
    Package,
    check_code,
    package_id,
    read_code,
    read_package,
)
from network.running.atomic_file import write_file

SUFFIX: Final = ".tar.gz"
MAX_FILE_NAME: Final = 240
"""Characters: file systems take 255, and while a file is written its name is longer."""


class InstalledPackage(NamedTuple):
    """A package by its id, which is its label and its hash."""

    package_id: str
    label: str


class PackageStore:
    """The packages of one peer, kept in a folder; raises LedgerError for a file in it that is no installed package."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._connections: dict[str, bytes] = {}
        if folder.is_dir():
            for path in folder.glob(f"*{SUFFIX}"):
                self._open(path)

    @property
    def count(self) -> int:
        """Number of packages."""
        return len(self._connections)

    def install(self, content: bytes) -> InstalledPackage:
        """Keep a package; raises PackageError for one that is none, or installed, or of a type that is not run here."""
        try:
            package = read_package(content)
            check_code(package.code)
        except PackageError as error:
            raise PackageError(f"could not parse as a chaincode install package: {error}") from error
        name = package_id(package.metadata.label, content)
        if name in self._connections:
            raise PackageError(f"chaincode already successfully installed (package ID '{name}')")
        if len(self._path(name).name) > MAX_FILE_NAME:
            raise PackageError("could not save cc install package: the label is too long for the name of a file")
        try:
            connection = _connection(package)
        except PackageError as error:
            raise PackageError(f"could not build chaincode: {error}") from error
        write_file(self._path(name), content, mode=0o600)
        self._connections[name] = connection
        return InstalledPackage(name, package.metadata.label)

    def installed(self) -> list[InstalledPackage]:
        """Give every package, by id."""
        return [InstalledPackage(name, name.rpartition(":")[0]) for name in sorted(self._connections)]

    def has(self, name: str) -> bool:
        """Tell whether a package is installed."""
        return name in self._connections

    def content(self, name: str) -> bytes | None:
        """Give a package's bytes."""
        return self._path(name).read_bytes() if name in self._connections else None

    def connection(self, name: str) -> bytes | None:
        """Give the connection file of a package: where its chaincode listens."""
        return self._connections.get(name)

    def _open(self, path: Path) -> None:
        content = path.read_bytes()
        try:
            package = read_package(content)
            connection = _connection(package)
        except PackageError as error:
            raise LedgerError(f"{path}: {error}") from error
        name = package_id(package.metadata.label, content)
        if self._path(name) != path:
            raise LedgerError(f"{path}: holds another package than its name says")
        self._connections[name] = connection

    def _path(self, name: str) -> Path:
        label, _, digest = name.rpartition(":")
        return self._folder / f"{label}.{digest}{SUFFIX}"


def _connection(package: Package) -> bytes:
    """Give where the chaincode of a package listens; raises PackageError for any that is no server of its own."""
    kind = package.metadata.chaincode_type
    if kind != SERVICE_TYPE:
        raise PackageError(f"the embedded network runs chaincode of type '{SERVICE_TYPE}', not '{kind}'")
    found = read_code(package.code).get(CONNECTION_FILE)
    if found is None:
        raise PackageError(f"{CONNECTION_FILE} not found")
    return found
