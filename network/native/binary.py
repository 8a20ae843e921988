"""Where the programs of Fabric are on this machine, and whether their version is supported.

Looked for in the folder that `KVR_FABRIC_BIN` names and, without it, in the folders that the user has registered, the
last one first, on `PATH`, and in the folders `fabric/<version>/bin` of the user's data folder (`~/.local/share/kvr`),
newest version first. Nothing here downloads or builds Fabric.
"""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

from network.errors import BinaryError
from network.running.atomic_file import write_file

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

    The first folder with programs that can be used gives them; raises BinaryError when none has, saying why not.
    """
    problems = []
    for folder in _folders():
        try:
            found = _binaries_in(folder)
        except BinaryError as error:
            problems.append(str(error))
            continue
        if release in (None, found.version[:2]):
            return found
        problems.append(f"{folder} holds version {_text(found.version)}")
    wanted = f"{_text(release)} of " if release else ""
    raise BinaryError(
        f"the programs peer and orderer of {wanted}Hyperledger Fabric were not found "
        f"({'; '.join(problems) or 'not on PATH'}); "
        f"set {FOLDER_VARIABLE} to their folder, or register it: kvr network binaries add FOLDER. "
        f"Fabric's releases: {DOCUMENTATION}"
    )


class ProgramFolder(NamedTuple):
    """A folder where programs are looked for: their version, or why they cannot be used."""

    path: Path
    version: str
    problem: str


def program_folders() -> list[ProgramFolder]:
    """Give every folder in the order in which they are looked through; the first one without a problem is used."""
    found = []
    for folder in _folders():
        try:
            found.append(ProgramFolder(folder, _text(_binaries_in(folder).version), ""))
        except BinaryError as error:
            found.append(ProgramFolder(folder, "", str(error)))
    return found


def register_folder(folder: Path) -> Binaries:
    """Remember a folder for later runs, before all that were registered; raises BinaryError when it is of no use."""
    path = folder.absolute()
    binaries = _binaries_in(path)
    others = [other for other in _registered() if other != path]
    content = json.dumps([str(it) for it in (path, *others)], indent=1)
    try:
        write_file(_register_file(), content.encode())
    except OSError as error:
        raise BinaryError(f"{_register_file()}: {error.strerror}") from error
    return binaries


def _binaries_in(folder: Path) -> Binaries:
    programs = [_program(folder, name) for name in PROGRAMS]
    for name, program in zip(PROGRAMS, programs, strict=True):
        if program is None:
            raise BinaryError(f"{folder} holds no program {name} that can be run")
    return _checked(*(program for program in programs if program))


def _data_folder() -> Path:
    data = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return data / "kvr" / "fabric"


def _register_file() -> Path:
    return _data_folder() / "folders.json"


def _registered() -> list[Path]:
    try:
        content = json.loads(_register_file().read_bytes())
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise BinaryError(f"{_register_file()} cannot be read; remove it and register folders again") from error
    if not isinstance(content, list) or not all(isinstance(it, str) for it in content):
        raise BinaryError(f"{_register_file()} is no list of folders; remove it and register folders again")
    return [Path(it) for it in content]


def _folders() -> list[Path]:
    if named := os.environ.get(FOLDER_VARIABLE):
        return [Path(named)]
    folders = _registered()
    if found := shutil.which(PROGRAMS[0]):
        folders.append(Path(found).parent)
    installed = [path for path in _data_folder().glob("*/bin") if path.is_dir()]
    folders += sorted(installed, key=lambda path: _release(path.parent.name), reverse=True)
    return list(dict.fromkeys(folders))


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
