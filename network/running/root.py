"""The one folder that holds everything of a network: every path in it is named here and nowhere else."""

import fcntl
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

from network.errors import RootError, RootInUseError
from network.running.atomic_file import write_file

FORMAT = 1
ID_BYTES = 8


class NetworkKind(StrEnum):
    """How the nodes of a network run."""

    EMBEDDED = "embedded"
    NATIVE = "native"


class NetworkState(NamedTuple):
    """What the root remembers between commands."""

    network_id: str
    """Random; processes carry it in their environment, so that they are found again."""
    kind: NetworkKind
    ports: Mapping[str, int]
    """By `<node>/<use>`; chosen once and kept, so that certificates, blocks and clients stay right."""


class NetworkRoot:
    """A network's folder."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.state_file = self.path / "network.json"
        self.lock_file = self.path / ".lock"
        self.topology_file = self.path / "topology.yaml"
        self.credentials = self.path / "credentials"
        self.profiles = self.path / "profiles"
        self.processes = self.path / "processes"
        self.packages = self.path / "packages"
        self.nodes = self.path / "nodes"
        self.embedded = self.path / "embedded"
        self.builder = self.path / "builder"

    def genesis_block(self, channel: str) -> Path:
        """Give the file of a channel's first block."""
        return self.path / "channels" / f"{channel}.genesis.block"

    def profile(self, msp_id: str) -> Path:
        """Give the connection profile of an organisation."""
        return self.profiles / f"{msp_id}.yaml"

    @contextmanager
    def claim(self) -> Iterator[None]:
        """Hold the root for one command; raises RootInUseError when another holds it.

        The lock is the kernel's: it ends with the process, however that ends.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise RootInUseError(f"another command works on {self.path}; wait for it or end it") from error
            yield
        finally:
            os.close(descriptor)

    def state(self) -> NetworkState | None:
        """Give what the root remembers, None when no network was made here; raises RootError when it is damaged."""
        try:
            content: Any = json.loads(self.state_file.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise RootError(f"{self.state_file} cannot be read as the state of a network") from error
        try:
            if content["format"] != FORMAT:
                raise RootError(f"{self.state_file} is of format {content['format']}; this version reads {FORMAT}")
            ports = {str(name): int(port) for name, port in content["ports"].items()}
            return NetworkState(str(content["network_id"]), NetworkKind(content["kind"]), ports)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise RootError(f"{self.state_file} cannot be read as the state of a network") from error

    def create_state(self, kind: NetworkKind, ports: Mapping[str, int]) -> NetworkState:
        """Make a new network here; raises RootError when the folder holds other things, not to mix with them."""
        strangers = sorted(path.name for path in self.path.iterdir() if path != self.lock_file)
        if strangers:
            raise RootError(
                f"{self.path} is not empty and holds no network ({', '.join(strangers[:5])}); name another root"
            )
        state = NetworkState(secrets.token_hex(ID_BYTES), kind, dict(ports))
        content = {"format": FORMAT, "network_id": state.network_id, "kind": state.kind.value, "ports": state.ports}
        write_file(self.state_file, json.dumps(content, indent=1).encode())
        return state
