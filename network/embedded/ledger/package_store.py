"""The chaincode packages that a peer holds, each a file (`core/chaincode/persistence/persistence.go`)."""

from pathlib import Path
from typing import Final, NamedTuple

from network.protocol.errors import PackageError
from network.protocol.package import CONNECTION_FILE, SERVICE_TYPE, package_id, read_code, read_package
from network.running.atomic_file import write_file

SUFFIX: Final = ".tar.gz"


class InstalledPackage(NamedTuple):
    """A package by its id, which is its label and its hash."""

    package_id: str
    label: str


class PackageStore:
    """The packages of one peer, kept in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._connections: dict[str, bytes] = {}
        if folder.is_dir():
            for path in folder.glob(f"*{SUFFIX}"):
                package = read_package(path.read_bytes())
                name = package_id(package.metadata.label, path.read_bytes())
                self._connections[name] = read_code(package.code)[CONNECTION_FILE]

    @property
    def count(self) -> int:
        """Number of packages."""
        return len(self._connections)

    def install(self, content: bytes) -> InstalledPackage:
        """Keep a package; raises PackageError for one that is none, or installed, or of a type that is not run here."""
        package = read_package(content)
        name = package_id(package.metadata.label, content)
        if name in self._connections:
            raise PackageError(f"chaincode already successfully installed (package ID '{name}')")
        if package.metadata.chaincode_type != SERVICE_TYPE:
            kind = package.metadata.chaincode_type
            raise PackageError(
                f"could not build chaincode: the embedded network runs chaincode of type '{SERVICE_TYPE}', not '{kind}'"
            )
        files = read_code(package.code)
        if CONNECTION_FILE not in files:
            raise PackageError(f"could not build chaincode: {CONNECTION_FILE} not found")
        write_file(self._path(name), content, mode=0o600)
        self._connections[name] = files[CONNECTION_FILE]
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

    def _path(self, name: str) -> Path:
        label, _, digest = name.rpartition(":")
        return self._folder / f"{label}.{digest}{SUFFIX}"
