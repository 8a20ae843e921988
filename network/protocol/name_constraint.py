"""Name constraints of CA certificates, as Go and Fabric apply them.

Rules: RFC 5280, 4.2.1.10; `crypto/x509/constraints.go` (checkChainConstraints); `msp/mspimpl.go`
verifyLegacyNameConstraints. Constraints on other kinds of names cannot be applied: Go refuses the certificate if they
are critical, we always do.
"""

import re
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from network.protocol.certificate import Certificate
from network.protocol.der import SEQUENCE, DerReader
from network.protocol.errors import DecodeError

_EMAIL, _DNS, _URI, _ADDRESS = 0x81, 0x82, 0x86, 0x87
_HOST_PART = re.compile(r"[A-Za-z0-9_:][A-Za-z0-9_:-]*")
_DOMAIN = re.compile(r"([\x21-\x2d\x2f-\x7e]+(\.[\x21-\x2d\x2f-\x7e]+)*)?")
_LOCAL_PART = re.compile(r"[0-9A-Za-z!#$%&'*+\-/=?^_`{|}~]+(\.[0-9A-Za-z!#$%&'*+\-/=?^_`{|}~]+)*")
_IP_LITERAL: Final = re.compile(r"\[.*\]|[0-9.]+|.*:.*", re.DOTALL)


class _Subtrees(NamedTuple):
    permitted: tuple[tuple[int, bytes], ...]
    excluded: tuple[tuple[int, bytes], ...]


def satisfies_name_constraints(chain: tuple[Certificate, ...]) -> bool:
    """Tell whether every certificate's names keep to the constraints of the CAs above it."""
    try:
        for position, certificate in enumerate(chain):
            if certificate.name_constraints is None:
                continue
            subtrees = _decode_subtrees(certificate.name_constraints)
            if not all(_keeps_to(below, subtrees) for below in chain[:position]):
                return False
    except DecodeError:
        return False
    return True


def is_host_name_unchecked(chain: tuple[Certificate, ...]) -> bool:
    """Tell whether the leaf hides a host name in its common name, where name constraints above it do not look.

    Fabric keeps this rule of Go 1.14 and refuses such a certificate.
    """
    leaf, above = chain[0], chain[1:]
    if _has_alternative_name(leaf) or not _is_host_name(leaf.common_name):
        return False
    return any(certificate.name_constraints is not None for certificate in above)


def _has_alternative_name(certificate: Certificate) -> bool:
    return certificate.alternative_name is not None


def _is_host_name(name: str) -> bool:
    parts = name.removesuffix(".").split(".")
    return all(_HOST_PART.fullmatch(part) or (part == "*" and i == 0) for i, part in enumerate(parts))


def _decode_subtrees(content: bytes) -> _Subtrees:
    reader = DerReader(content, "certificate: name constraints").inside(SEQUENCE)
    permitted, excluded = _decode_names(reader.read_optional(0xA0)), _decode_names(reader.read_optional(0xA1))
    if not reader.empty() or not (permitted or excluded):
        raise reader.fail("neither permitted nor excluded names")
    return _Subtrees(permitted, excluded)


def _decode_names(content: bytes | None) -> tuple[tuple[int, bytes], ...]:
    names = []
    reader = DerReader(content or b"", "certificate: name constraints")
    while not reader.empty():
        tag, value = reader.inside(SEQUENCE).read_any()
        if tag == _ADDRESS:
            mask = int.from_bytes(value[len(value) // 2 :], "big") ^ ((1 << len(value) * 4) - 1)
            if len(value) not in (8, 32) or mask & (mask + 1):
                raise reader.fail("an address range that is none")
        elif tag not in (_EMAIL, _DNS, _URI) or not value.isascii():
            raise reader.fail("a kind of name that cannot be checked")
        names.append((tag, value))
    return tuple(names)


def _keeps_to(certificate: Certificate, subtrees: _Subtrees) -> bool:
    names = certificate.alternative_names
    constrained = {tag for tag, _ in subtrees.permitted + subtrees.excluded}
    hosts = [_uri_host(uri) for uri in names.uris] if _has_alternative_name(certificate) else []
    if any(not _DOMAIN.fullmatch(name) for name in names.dns):
        return False
    candidates = [(_DNS, name) for name in names.dns] + [(_URI, host) for host in hosts]
    candidates += [(_EMAIL, _normalised_mailbox(email)) for email in names.emails]
    for tag, name in candidates:
        if tag not in constrained:
            continue
        permitted = [value.decode("ascii") for kind, value in subtrees.permitted if kind == tag]
        excluded = [value.decode("ascii") for kind, value in subtrees.excluded if kind == tag]
        if permitted and not any(_is_below(name, value) for value in permitted):
            return False
        if any(_is_below(name, value) or _wildcard_covers(name, value) for value in excluded):
            return False
    return all(_address_keeps_to(address, subtrees) for address in names.addresses)


def _uri_host(uri: str) -> str:
    try:
        host = urlsplit(uri).netloc.rpartition("@")[2].lower()
    except ValueError as error:
        raise DecodeError("certificate: a URI that cannot be held against name constraints") from error
    if ":" in host and not host.endswith("]"):
        host = host.rpartition(":")[0]
    if not host or _IP_LITERAL.fullmatch(host) or not _DOMAIN.fullmatch(host):
        raise DecodeError("certificate: a URI that cannot be held against name constraints")
    return host


def _normalised_mailbox(email: str) -> str:
    # Quoted local parts, which Go takes, do not occur in certificates that anybody issues for Fabric.
    local, _, domain = email.rpartition("@")
    if not _LOCAL_PART.fullmatch(local) or not domain or not _DOMAIN.fullmatch(domain):
        raise DecodeError("certificate: a mail address that cannot be held against name constraints")
    return f"{local}@{domain.lower()}"


def _is_below(name: str, constraint: str) -> bool:
    if "@" in constraint:
        local, _, domain = constraint.rpartition("@")
        return name == f"{local}@{domain.lower()}"
    if not constraint:
        return True
    domain, suffix = name.rpartition("@")[2].lower(), constraint.lower()
    return domain == suffix or domain.endswith(suffix if suffix.startswith(".") else f".{suffix}")


def _wildcard_covers(name: str, excluded: str) -> bool:
    # "*.example.com" may stand for an excluded "a.example.com".
    return name.startswith("*.") and "." in excluded and name[1:].lower() == excluded[excluded.index(".") :].lower()


def _address_keeps_to(address: bytes, subtrees: _Subtrees) -> bool:
    def in_range(value: bytes) -> bool:
        half = len(value) // 2
        network, mask = int.from_bytes(value[:half], "big"), int.from_bytes(value[half:], "big")
        return len(address) == half and int.from_bytes(address, "big") & mask == network & mask

    permitted = [value for tag, value in subtrees.permitted if tag == _ADDRESS]
    excluded = [value for tag, value in subtrees.excluded if tag == _ADDRESS]
    if permitted and not any(in_range(value) for value in permitted):
        return False
    return not any(in_range(value) for value in excluded)
