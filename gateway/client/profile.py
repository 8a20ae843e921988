"""Connection profiles: the YAML or JSON file in which Fabric's clients are told where nodes are.

Fields read: `organizations.<name>.{mspid,peers}`, `client.organization`, and of `peers` and `orderers`:
`url`, `tlsCACerts.{path,pem}`, `grpcOptions.{ssl-target-name-override,hostnameOverride}`. Others are ignored.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import yaml

from gateway.client.channel import Endpoint
from gateway.client.errors import ProfileError

_MAX_FILE_BYTES: Final = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class ConnectionProfile:
    """Who is where. `peers` of an MSP id are in the file's order."""

    organization: str
    """MSP id of the organisation the profile is for; "" when the file does not say."""
    peers: Mapping[str, tuple[Endpoint, ...]]
    orderers: tuple[Endpoint, ...]

    def own_peers(self, msp_id: str) -> tuple[Endpoint, ...]:
        """Give the peers of an organisation; raises ProfileError when there are none."""
        found = self.peers.get(msp_id, ())
        if not found:
            raise ProfileError(f"the profile names no peer of {msp_id}")
        return found


def read_profile(path: Path) -> ConnectionProfile:
    """Read a profile; paths in it are relative to its folder. Raises ProfileError with file and field."""
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ProfileError(f"{path}: {error.strerror}") from error
    if len(content) > _MAX_FILE_BYTES:
        raise ProfileError(f"{path}: larger than {_MAX_FILE_BYTES} bytes")
    try:
        document = yaml.safe_load(content)  # JSON is YAML
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f" at line {mark.line + 1}" if mark is not None else ""
        raise ProfileError(f"{path}: neither YAML nor JSON{line}") from None
    return _Reader(path).profile(document)


@dataclass(frozen=True, slots=True)
class _Reader:
    path: Path

    def profile(self, document: object) -> ConnectionProfile:
        root = self._mapping(document, "the file")
        nodes = {
            name: self._endpoint(node, f"peers.{name}")
            for name, node in self._mapping(root.get("peers", {}), "peers").items()
        }
        peers: dict[str, tuple[Endpoint, ...]] = {}
        msp_ids: dict[str, str] = {}
        for name, value in self._mapping(root.get("organizations"), "organizations").items():
            place = f"organizations.{name}"
            organization = self._mapping(value, place)
            msp_ids[name] = msp_id = self._text(organization.get("mspid"), f"{place}.mspid")
            names = organization.get("peers", [])
            if not isinstance(names, list):
                raise self._error(f"{place}.peers", "not a list")
            unknown = [peer for peer in names if not isinstance(peer, str) or peer not in nodes]
            if unknown:
                raise self._error(f"{place}.peers", f"{unknown[0]!r} is not under peers")
            peers[msp_id] = tuple(nodes[peer] for peer in names)
        client = self._mapping(root.get("client") or {}, "client")
        own = client.get("organization") or ""
        if own and (not isinstance(own, str) or own not in msp_ids):
            raise self._error("client.organization", "not under organizations")
        orderers = self._mapping(root.get("orderers") or {}, "orderers").items()
        return ConnectionProfile(
            msp_ids[str(own)] if own else "",
            peers,
            tuple(self._endpoint(node, f"orderers.{name}") for name, node in orderers),
        )

    def _endpoint(self, value: object, place: str) -> Endpoint:
        node = self._mapping(value, place)
        url = self._text(node.get("url"), f"{place}.url")
        try:
            parts = urlsplit(url)
            address = f"{parts.hostname}:{parts.port}" if ":" not in (parts.hostname or "") else parts.netloc
            complete = bool(parts.hostname and parts.port)
        except ValueError:
            complete = False
        if not complete:
            raise self._error(f"{place}.url", "not of the form grpcs://host:port")
        if parts.scheme != "grpcs":
            raise self._error(f"{place}.url", "not grpcs: connections without TLS are refused")
        options = self._mapping(node.get("grpcOptions") or {}, f"{place}.grpcOptions")
        name = options.get("ssl-target-name-override") or options.get("hostnameOverride") or ""
        if not isinstance(name, str):
            raise self._error(f"{place}.grpcOptions.ssl-target-name-override", "not text")
        return Endpoint(address, self._tls_roots(node.get("tlsCACerts"), f"{place}.tlsCACerts"), name)

    def _tls_roots(self, value: object, place: str) -> bytes:
        source = self._mapping(value, place)
        pem = source.get("pem")
        if pem:
            parts = pem if isinstance(pem, list) else [pem]
            return "\n".join(self._text(part, f"{place}.pem") for part in parts).encode()
        path = self.path.parent / self._text(source.get("path"), f"{place}.path")
        try:
            return path.read_bytes()
        except (OSError, ValueError) as error:
            raise self._error(f"{place}.path", f"{path} cannot be read") from error

    def _mapping(self, value: object, place: str) -> dict[str, object]:
        if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
            raise self._error(place, "missing" if value is None else "not a mapping with names")
        return value

    def _text(self, value: object, place: str) -> str:
        if not isinstance(value, str) or not value:
            raise self._error(place, "missing" if value is None else "not text")
        return value

    def _error(self, place: str, reason: str) -> ProfileError:
        return ProfileError(f"{self.path}: {place}: {reason}")
