"""Where the programs of Fabric are on this machine, and whether their version is supported.

Looked for in the folder that `KVR_FABRIC_BIN` names, on `PATH`, and in the folders `fabric/<version>/bin` of the user's
data folder (`~/.local/share/kvr`), newest version first. Nothing here downloads or builds Fabric.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

from network.errors import BinaryError

FOLDER_VARIABLE = "KVR_FABRIC_BIN"
PROGRAMS = ("peer", "orderer")
SUPPORTED = ((2, 5), (3, 1))
DOCUMENTATION = "https://hyperledger-fabric.readthedocs.io/en/latest/install.html"
VERSION_TIMEOUT_SECONDS = 20
_VERSION = re.compile(r"^\s*Version:\s*v?(\d+)\.(\d+)\.(\d+)", re.MULTILINE)


class Binaries(NamedTuple):
    """The two node programs, of one version."""

    peer: Path
    orderer: Path
    version: tuple[int, int, int]


def find_binaries(release: tuple[int, int] | None = None) -> Binaries:
    """Give the node programs of this machine, those of one release if that is asked for.

    Raises BinaryError saying what is missing and where it was looked for.
    """
    looked_in = []
    for folder in _folders():
        programs = [_program(folder, name) for name in PROGRAMS]
        if all(programs):
            found = _checked(*(program for program in programs if program))
            if release in (None, found.version[:2]):
                return found
        looked_in.append(str(folder))
    wanted = f"{_text(release)} of " if release else ""
    raise BinaryError(
        f"the programs peer and orderer of {wanted}Hyperledger Fabric were not found in "
        f"{', '.join(looked_in) or 'PATH'}; "
        f"set {FOLDER_VARIABLE} to their folder. Fabric's releases: {DOCUMENTATION}"
    )


def _folders() -> list[Path]:
    if named := os.environ.get(FOLDER_VARIABLE):
        return [Path(named)]
    folders = []
    if found := shutil.which(PROGRAMS[0]):
        folders.append(Path(found).parent)
    data = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    installed = [path for path in (data / "kvr" / "fabric").glob("*/bin") if path.is_dir()]
    return folders + sorted(installed, key=lambda path: _release(path.parent.name), reverse=True)


def _release(name: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", name)]


def _program(folder: Path, name: str) -> Path | None:
    found = shutil.which(name, path=str(folder))
    return Path(found) if found else None


def _checked(peer: Path, orderer: Path) -> Binaries:
    version, other = program_version(peer), program_version(orderer)
    if version != other:
        raise BinaryError(f"{peer} is of version {_text(version)} and {orderer} of version {_text(other)}")
    if version[:2] not in SUPPORTED:
        known = ", ".join(_text(release) for release in SUPPORTED)
        raise BinaryError(f"{peer} is of version {_text(version)}; supported are {known}")
    return Binaries(peer, orderer, version)


def program_version(program: Path) -> tuple[int, int, int]:
    """Ask a program of Fabric's for its version; raises BinaryError when it does not answer as one."""
    try:
        answer = subprocess.run(  # noqa: S603  # the program that the user named
            [str(program), "version"], capture_output=True, timeout=VERSION_TIMEOUT_SECONDS, check=False, text=True
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BinaryError(f"{program} cannot be run: {error}") from error
    found = _VERSION.search(answer.stdout)
    if found is None:
        raise BinaryError(f"{program} does not tell its version as a program of Fabric does")
    major, minor, patch = (int(part) for part in found.groups())
    return major, minor, patch


def _text(version: tuple[int, ...]) -> str:
    return ".".join(str(part) for part in version)
