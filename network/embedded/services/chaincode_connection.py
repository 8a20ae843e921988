"""Where a chaincode server listens and what it takes to be let in: the `connection.json` of an installed package.

Rules: `core/container/externalbuilder/instance.go`, `core/chaincode/extcc/extcc_handler.go`,
`ccaas_builder/cmd/{detect,release}`. Pure.
"""

import json
import re
from functools import lru_cache
from typing import Any, Final, NamedTuple

DEFAULT_DIAL_TIMEOUT_SECONDS: Final = 3.0
MAX_DIAL_TIMEOUT_SECONDS: Final = 60.0
_REMEMBERED: Final = 64
"""Every transaction reads the file of its chaincode."""
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
_UNIT_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


class ConnectionFileError(ValueError):
    """The connection file cannot be used; the text says which field, never what it holds."""


class ChaincodeConnection(NamedTuple):
    """A chaincode server. Without TLS the three PEM fields are empty; key and certificate only with client auth."""

    address: str
    dial_timeout_seconds: float
    tls_required: bool
    root_certificates: bytes
    client_certificate: bytes
    client_key: bytes

    def __repr__(self) -> str:
        """Name the address; a private key is never shown."""
        return f"ChaincodeConnection({self.address!r})"


@lru_cache(_REMEMBERED)
def decode_connection(content: bytes) -> ChaincodeConnection:
    """Read a connection file; raises ConnectionFileError."""
    try:
        fields: Any = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ConnectionFileError("connection.json is not JSON") from error
    if not isinstance(fields, dict):
        raise ConnectionFileError("connection.json is no object")
    address = _text(fields, "address")
    if not address:
        raise ConnectionFileError("chaincode address not provided")
    if "{{" in address:
        raise ConnectionFileError("chaincode address is a template, which this network does not fill in")
    tls_required = fields.get("tls_required") is True
    client_auth = tls_required and fields.get("client_auth_required") is True
    root, key, certificate = (_text(fields, name) for name in ("root_cert", "client_key", "client_cert"))
    if tls_required and not root:
        raise ConnectionFileError("chaincode tls root cert not provided")
    if client_auth and not key:
        raise ConnectionFileError("chaincode tls key not provided")
    if client_auth and not certificate:
        raise ConnectionFileError("chaincode tls cert not provided")
    return ChaincodeConnection(
        address,
        _seconds(_text(fields, "dial_timeout")),
        tls_required,
        root.encode() if tls_required else b"",
        certificate.encode() if client_auth else b"",
        key.encode() if client_auth else b"",
    )


def _text(fields: dict[str, Any], name: str) -> str:
    value = fields.get(name, "")
    if not isinstance(value, str):
        raise ConnectionFileError(f"{name} of connection.json is no text")
    return value


def _seconds(text: str) -> float:
    """Read a duration as Go writes them, "1m30s"; absent: the peer's default."""
    if not text:
        return DEFAULT_DIAL_TIMEOUT_SECONDS
    parts = _DURATION_PART.findall(text)
    if "".join(number + unit for number, unit in parts) != text:
        raise ConnectionFileError("dial_timeout of connection.json is no duration")
    return min(sum(float(number) * _UNIT_SECONDS[unit] for number, unit in parts), MAX_DIAL_TIMEOUT_SECONDS)
