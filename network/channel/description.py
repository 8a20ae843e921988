"""What a change of a configuration means, in words, for those who sign it and those who check it. Pure.

Nothing is left out: a value of any kind is compared field by field, certificates and revocation lists are named by what
is in them, and what no message says is named by its hash.
"""

from base64 import b64decode
from collections import Counter
from collections.abc import Iterator, Sequence
from hashlib import sha256
from typing import Any, Final, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from fabric_protos.common import policies_pb2

from network.channel.document import policy_fields, value_fields
from network.protocol.block_signature import ChannelTrust
from network.protocol.certificate import decode_revocation_list
from network.protocol.config_group import ConfigGroup, ConfigPolicy, ConfigValue
from network.protocol.config_update import (
    NO_SUCH_POLICY,
    ProposedConfiguration,
    SignedUpdate,
    signed_claims,
    unsatisfied_policies,
)
from network.protocol.errors import ConfigurationError, DecodeError, IdentityError
from network.protocol.identity import decode_serialized_identity
from network.protocol.policy import TYPE_IMPLICIT_META, TYPE_SIGNATURE, VerifiedSignature, verified_signatures
from network.protocol.policy_expression import decode_policy_expression
from network.protocol.wire import parse

_RULES: Final = ("ANY", "ALL", "MAJORITY")
_PEM: Final = b"-----BEGIN"
_SHOWN_SERIALS: Final = 20


# --- changes


def describe_change(before: ConfigGroup, after: ConfigGroup, path: str = "/Channel") -> list[str]:
    """Say what differs between two trees, a line for each difference; versions are none."""
    return list(_group_changes(before, after, path))


def _group_changes(before: ConfigGroup, after: ConfigGroup, path: str) -> Iterator[str]:
    if before.mod_policy != after.mod_policy:
        yield _governance(path, before.mod_policy, after.mod_policy)
    for name in sorted(before.policies.keys() | after.policies.keys()):
        yield from _policy_changes(before.policies.get(name), after.policies.get(name), f"{path}/{name}")
    for name in sorted(before.values.keys() | after.values.keys()):
        yield from _value_changes(name, before.values.get(name), after.values.get(name), f"{path}/{name}")
    for name in sorted(before.groups.keys() | after.groups.keys()):
        old, new = before.groups.get(name), after.groups.get(name)
        place = f"{path}/{name}"
        if new is None:
            yield f"{place} is removed, with all that is in it"
        elif old is None:
            yield f"{place} is added"
            yield from _group_changes(_EMPTY, new, place)
        else:
            yield from _group_changes(old, new, place)


_EMPTY: Final = ConfigGroup(0, {}, {}, {}, "")


def _governance(place: str, before: str, after: str) -> str:
    return f"who may change {place}: {before or '(nobody)'} -> {after or '(nobody)'}"


def _policy_changes(before: ConfigPolicy | None, after: ConfigPolicy | None, place: str) -> Iterator[str]:
    if after is None:
        yield f"policy {place} is removed"
    elif before is None:
        yield f"policy {place} is added: {policy_text(after)}"
        yield _governance(place, "", after.mod_policy)
    else:
        if (before.policy_type, before.value) != (after.policy_type, after.value):
            yield f"policy {place}: {policy_text(before)} -> {policy_text(after)}"
        if before.mod_policy != after.mod_policy:
            yield _governance(place, before.mod_policy, after.mod_policy)


def _value_changes(name: str, before: ConfigValue | None, after: ConfigValue | None, place: str) -> Iterator[str]:
    if after is None:
        yield f"{place} is removed"
        return
    old = {} if before is None else value_fields(name, before.value)
    differences = list(_field_changes(old, value_fields(name, after.value), ""))
    if before is None:
        yield f"{place} is added"
    elif before.value != after.value and not differences:
        yield f"{place}: written in another way, with the same meaning"
    for difference in differences:
        yield f"{place}: {difference}"
    governed = "" if before is None else before.mod_policy
    if governed != after.mod_policy:
        yield _governance(place, governed, after.mod_policy)


def _field_changes(before: object, after: object, path: str) -> Iterator[str]:
    """Compare what JSON shows of two messages."""
    if before == after:
        return
    if isinstance(before, dict) and isinstance(after, dict):
        for name in sorted(before.keys() | after.keys()):
            yield from _field_changes(before.get(name), after.get(name), f"{path}.{name}" if path else name)
    elif isinstance(before, dict | None) and isinstance(after, dict):
        yield from _field_changes({}, after, path)
    elif isinstance(before, list | None) and isinstance(after, list):
        yield from _list_changes(before or [], after, path)
    elif not (before is None and _is_nothing(after)):
        old = "nothing" if before is None else _leaf_text(before, path)
        new = "nothing" if after is None else _leaf_text(after, path)
        yield f"{path}: {old} -> {new}" if before is not None else f"{path}: {new}"


def _is_nothing(value: object) -> bool:
    return value in ("", 0, "0", False)


def _list_changes(before: list[Any], after: list[Any], path: str) -> Iterator[str]:
    old, new = {_key(it): it for it in before}, {_key(it): it for it in after}
    if None not in old and None not in new and len(old) == len(before) and len(new) == len(after):
        for key in sorted(old.keys() & new.keys(), key=str):
            yield from _field_changes(old[key], new[key], f"{path} {key}")
        before = [it for key, it in old.items() if key not in new]
        kept = [it for key, it in new.items() if key in old]
        after = [it for key, it in new.items() if key not in old]
        is_moved = [_key(it) for it in kept] != [key for key in old if key in new]
    else:
        is_moved = before != after and Counter(map(str, before)) == Counter(map(str, after))
    texts_before, texts_after = (Counter(_leaf_text(it, path) for it in items) for items in (before, after))
    for text, count in (texts_before - texts_after).items():
        yield f"{path}: removed: {text}" + (f" ({count} times)" if count > 1 else "")
    for text, count in (texts_after - texts_before).items():
        yield f"{path}: added: {text}" + (f" ({count} times)" if count > 1 else "")
    if is_moved:
        yield f"{path}: in another order"


def _key(item: object) -> str | None:
    """Give what tells an element of a list from others: where a node is."""
    return f"{item['host']}:{item['port']}" if isinstance(item, dict) and {"host", "port"} <= item.keys() else None


def _leaf_text(value: object, path: str) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_leaf_text(it, name)}" for name, it in value.items() if not _is_nothing(it))
    if isinstance(value, list):
        return "; ".join(_leaf_text(it, path) for it in value) or "nothing"
    if isinstance(value, str):
        return _bytes_text(value, path) or value or "nothing"
    return str(value)


def _bytes_text(text: str, path: str) -> str | None:
    """Name what is in a field of bytes, None for a text that is none."""
    name = path.rpartition(".")[2].partition(" ")[0]
    try:
        content = b64decode(text, validate=True)
    except ValueError:
        return None
    if name == "revocation_list" or content.startswith(b"-----BEGIN X509 CRL"):
        return revocation_list_text(content)
    if content.startswith(_PEM):
        return certificate_text(content)
    if name in ("raw", "principal", "config", "metadata"):
        return f"{len(content)} bytes with SHA-256 {sha256(content).hexdigest()}"
    return None


def certificate_text(pem: bytes) -> str:
    """Name a certificate by what is in it."""
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        return (
            f"certificate of {certificate.subject.rfc4514_string()}, issued by {certificate.issuer.rfc4514_string()}, "
            f"valid until {certificate.not_valid_after_utc:%Y-%m-%d}, SHA-256 {_fingerprint(certificate)}"
        )
    except ValueError:
        return f"(a certificate that does not read, SHA-256 {sha256(pem).hexdigest()})"


def _fingerprint(certificate: x509.Certificate) -> str:
    return sha256(certificate.public_bytes(Encoding.DER)).hexdigest()


def revocation_list_text(content: bytes) -> str:
    """Name a revocation list by whom it revokes: serial numbers of certificates, in hexadecimal."""
    try:
        revoked = sorted(decode_revocation_list(content).revoked)
    except DecodeError:
        return f"(a revocation list that does not read, SHA-256 {sha256(content).hexdigest()})"
    serials = ", ".join(f"{serial:x}" for serial in revoked[:_SHOWN_SERIALS])
    more = f" and {len(revoked) - _SHOWN_SERIALS} more" if len(revoked) > _SHOWN_SERIALS else ""
    return f"revocation list of {len(revoked)} certificates ({serials}{more})"


# --- policies


def policy_text(policy: ConfigPolicy) -> str:
    """Write a policy as people do; one that no text says is named by its hash."""
    try:
        if policy.policy_type == TYPE_SIGNATURE:
            return decode_policy_expression(policy.value)
        if policy.policy_type == TYPE_IMPLICIT_META:
            meta = parse(policies_pb2.ImplicitMetaPolicy, policy.value, "ImplicitMetaPolicy")
            return f"{_RULES[meta.rule]} {meta.sub_policy}"
    except (DecodeError, ConfigurationError, IndexError):
        pass
    fields = policy_fields(policy)
    identities = [_leaf_text(it, "identities") for it in fields.get("identities", ())]
    said = f" of {', '.join(identities)}" if identities else ""
    return f"(policy of type {policy.policy_type}{said}, SHA-256 {sha256(policy.value).hexdigest()})"


# --- signatures


class ShownSignature(NamedTuple):
    """A signature on an update: whose it claims to be, and whether the channel in force believes it."""

    msp_id: str
    subject: str
    is_good: bool


class UpdateReport(NamedTuple):
    """An update against the configuration in force.

    `policies` that it needs, by path, with what is missing or None; `rules`: what these policies say.
    """

    changes: list[str]
    dropped: list[str]
    policies: dict[str, str | None]
    rules: dict[str, str]
    signatures: list[ShownSignature]

    @property
    def is_allowed(self) -> bool:
        """Whether the signatures suffice."""
        return not any(self.policies.values())


def report_update(signed: SignedUpdate, proposed: ProposedConfiguration, trust: ChannelTrust) -> UpdateReport:
    """Say what an update changes, what it needs, and who has signed; raises DecodeError for unreadable signatures."""
    claims = signed_claims(signed)
    missing = unsatisfied_policies(proposed, claims, trust)
    needed = sorted({change.policy for change in proposed.changes if change.policy is not None})
    good = {verified.position for verified in verified_signatures(claims, trust.msps) if _is_valid(verified, trust)}
    return UpdateReport(
        describe_change(trust.configuration.root, proposed.root),
        list(proposed.dropped),
        {path: missing.get(path) for path in needed},
        {path: _rule_at(trust.configuration.root, path) for path in needed},
        [ShownSignature(*_signer(claim.identity), is_good=position in good) for position, claim in enumerate(claims)],
    )


def _rule_at(root: ConfigGroup, path: str) -> str:
    *steps, name = path.removeprefix("/Channel/").split("/")
    for step in steps:
        if step not in root.groups:
            return NO_SUCH_POLICY
        root = root.groups[step]
    return policy_text(root.policies[name]) if name in root.policies else NO_SUCH_POLICY


def _is_valid(verified: VerifiedSignature, trust: ChannelTrust) -> bool:
    try:
        trust.msps.verify_identity(verified.identity)
    except IdentityError:
        return False
    return True


def _signer(identity: bytes) -> tuple[str, str]:
    try:
        named = decode_serialized_identity(identity)
        return named.msp_id, x509.load_pem_x509_certificate(named.id_bytes).subject.rfc4514_string()
    except (DecodeError, ValueError):
        return "", "(an identity that does not read)"


def report_lines(report: UpdateReport) -> Sequence[str]:
    """Put a report into lines."""
    lines = ["changes:", *[f"  {line}" for line in report.changes]]
    if report.dropped:
        lines += ["written, but without effect:", *[f"  {element}" for element in report.dropped]]
    lines.append("signatures:" if report.signatures else "signatures: none")
    for signature in report.signatures:
        mark = "" if signature.is_good else " - NOT GOOD: of a stranger, or not of this update"
        lines.append(f"  {signature.msp_id}: {signature.subject}{mark}")
    lines.append("policies that the signers must satisfy:")
    for path, missing in report.policies.items():
        lines.append(f"  {path} ({report.rules[path]}): {'satisfied' if missing is None else f'not yet, {missing}'}")
    return lines
