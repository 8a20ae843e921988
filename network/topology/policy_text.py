"""Policies of a topology file: texts that read, name organisations that are there, and can be satisfied at all."""

from collections.abc import Collection, Iterator, Sequence
from typing import Final

from fabric_protos.common import policies_pb2
from fabric_protos.msp import msp_principal_pb2

from network.protocol.config_group import is_name
from network.protocol.errors import ConfigurationError
from network.protocol.policy_expression import encode_policy_expression
from network.protocol.wire import parse
from network.topology.definition import IMPLICIT_META
from network.topology.document import Entry, shown

LONGEST_POLICY: Final = 10_000
"""Characters of a policy's text; those of whole consortiums have hundreds."""


def signature_policy(entry: Entry, msp_ids: Collection[str]) -> str:
    """Read a signature policy that names no organisation but these; raises TopologyError."""
    text = entry.text()
    for msp_id in _msp_ids(_envelope(entry, text)):
        if msp_id not in msp_ids:
            raise entry.mistake(f"{shown(msp_id)} is no organisation here; known: {', '.join(msp_ids)}")
    return text


def member_policy(entry: Entry, msp_ids: Collection[str]) -> str:
    """Read a collection's member policy: as a signature policy, but of OR alone."""
    text = signature_policy(entry, msp_ids)
    if not _is_or(_envelope(entry, text).rule):
        raise entry.mistake("members are joined by OR alone")
    return text


def policies(entry: Entry, required: Collection[str]) -> dict[str, Entry]:
    """Read policies by name; raises TopologyError for a missing one, and for what is no name."""
    found = entry.mapping()
    for name, policy in found.items():
        if not is_name(name):
            raise policy.mistake("a policy's name has letters, digits, '.' and '-'")
    for name in required:
        if name not in found:
            raise entry.mistake(f"{name} is missing")
    return found


def group_policy(entry: Entry, text: str, msp_ids: Collection[str], children: Sequence[Collection[str]]) -> str:
    """Check a policy of a group of the channel; `children` are the names of the policies of each group inside it."""
    implicit = IMPLICIT_META.fullmatch(text)
    if implicit is None:
        return signature_policy(entry, msp_ids)
    rule, name = implicit[1], implicit[2]
    needed = {"ANY": 1, "ALL": len(children), "MAJORITY": len(children) // 2 + 1}[rule]
    holding = sum(name in child for child in children)
    if holding < needed:
        raise entry.mistake(
            f"can never be satisfied: {needed} of {len(children)} groups need a policy {shown(name)}, {holding} have it"
        )
    return text


def _envelope(entry: Entry, text: str) -> policies_pb2.SignaturePolicyEnvelope:
    if len(text) > LONGEST_POLICY:
        raise entry.mistake(f"longer than {LONGEST_POLICY} characters")
    try:
        content = encode_policy_expression(text)
    except ConfigurationError as error:
        raise entry.mistake(str(error)) from error
    return parse(policies_pb2.SignaturePolicyEnvelope, content, "SignaturePolicyEnvelope")


def _msp_ids(envelope: policies_pb2.SignaturePolicyEnvelope) -> Iterator[str]:
    for principal in envelope.identities:
        yield parse(msp_principal_pb2.MSPRole, principal.principal, "MSPRole").msp_identifier


def _is_or(rule: policies_pb2.SignaturePolicy) -> bool:
    if rule.WhichOneof("Type") == "signed_by":
        return True
    return bool(rule.n_out_of.n == 1) and all(_is_or(part) for part in rule.n_out_of.rules)
