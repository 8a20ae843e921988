"""Signature policies as text, such as AND('A.peer', OutOf(1, 'B.peer', 'C.peer')), and back.

Rules: `common/policydsl/policyparser.go`. Principals are numbered when their gate closes, without de-duplication: those
of inner gates come before those that stand directly in the outer one, wherever they are written.
"""

import re
from typing import Final

from fabric_protos.common import policies_pb2
from fabric_protos.msp import msp_principal_pb2

from network.protocol import limits
from network.protocol.errors import ConfigurationError, DecodeError
from network.protocol.msp import CLASSIFICATION_ROLE, Role
from network.protocol.wire import parse

MAX_EXPRESSION_CHARACTERS: Final = 100_000

_TOKEN = re.compile(r"\s*(?:([A-Za-z]+)|([0-9]{1,9})|'([^']*)'|\"([^\"]*)\"|([(),]))")
_PRINCIPAL = re.compile(r"([A-Za-z0-9.-]+)\.(admin|member|client|peer|orderer)")
_GATES: Final = {form: gate for gate in ("And", "Or", "OutOf") for form in (gate, gate.lower(), gate.upper())}


def encode_policy_expression(text: str) -> bytes:
    """Give the SignaturePolicyEnvelope of a text; raises ConfigurationError that names the column (from 1)."""
    if len(text) > MAX_EXPRESSION_CHARACTERS:
        raise ConfigurationError(f"policy: longer than {MAX_EXPRESSION_CHARACTERS} characters")
    reader = _Reader(text)
    rule = reader.gate(0)
    if text[reader.position :].strip():
        raise reader.mistake("nothing more was expected")
    envelope = policies_pb2.SignaturePolicyEnvelope(version=0, rule=rule, identities=reader.principals)
    return bytes(envelope.SerializeToString(deterministic=True))


def decode_policy_expression(content: bytes) -> str:
    """Give the text of a SignaturePolicyEnvelope, with AND and OR where they say it.

    Raises DecodeError where no text does.
    """
    envelope = parse(policies_pb2.SignaturePolicyEnvelope, content, "SignaturePolicyEnvelope")

    def text(rule: policies_pb2.SignaturePolicy, depth: int) -> str:
        if depth > limits.MAX_POLICY_DEPTH:
            raise DecodeError("signature policy nested too deep")
        kind = rule.WhichOneof("Type")
        if kind == "n_out_of" and rule.n_out_of.rules:
            parts = [text(part, depth + 1) for part in rule.n_out_of.rules]
            usual = {1: "OR(", len(parts): "AND("} if len(parts) > 1 else {1: "OR("}
            return usual.get(rule.n_out_of.n, f"OutOf({rule.n_out_of.n}, ") + ", ".join(parts) + ")"
        if kind == "signed_by" and 0 <= rule.signed_by < len(envelope.identities):
            return _principal_text(envelope.identities[rule.signed_by])
        raise DecodeError("signature policy with a rule that no text says")

    if envelope.rule.WhichOneof("Type") != "n_out_of":
        raise DecodeError("signature policy without a gate")
    return text(envelope.rule, 0)


def _principal_text(principal: msp_principal_pb2.MSPPrincipal) -> str:
    if principal.principal_classification != CLASSIFICATION_ROLE:
        raise DecodeError("signature policy with a principal that is no role")
    role = parse(msp_principal_pb2.MSPRole, principal.principal, "MSPRole")
    if role.role not in Role.__members__.values():
        raise DecodeError("signature policy with a role that does not exist")
    name = f"{role.msp_identifier}.{Role(role.role).name.lower()}"
    if not _PRINCIPAL.fullmatch(name):
        raise DecodeError("signature policy with an MSP id that no text says")
    return f"'{name}'"


class _Reader:
    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0
        self.start = 0
        self.principals: list[msp_principal_pb2.MSPPrincipal] = []
        self.rules = 0

    def mistake(self, reason: str) -> ConfigurationError:
        rest = self.text[self.position :]
        return ConfigurationError(f"policy, column {self.position + len(rest) - len(rest.lstrip()) + 1}: {reason}")

    def take(self, group: int, expected: str) -> str:
        """Read the next token, which must be of the kind of `group`."""
        match = _TOKEN.match(self.text, self.position)
        if match is None or match[group] is None:
            raise self.mistake(f"{expected} was expected")
        self.start, self.position = match.start(group), match.end()
        return match[group]

    def next_group(self) -> int:
        match = _TOKEN.match(self.text, self.position)
        return 0 if match is None else match.lastindex or 0

    def punctuation(self, allowed: str) -> str:
        before = self.position
        found = self.take(5, " or ".join(allowed))
        if found not in allowed:
            self.position = before
            raise self.mistake(f"{' or '.join(allowed)} was expected")
        return found

    def gate(self, depth: int) -> policies_pb2.SignaturePolicy:
        if depth > limits.MAX_POLICY_DEPTH:
            raise self.mistake("nested too deep")
        before = self.position
        name = self.take(1, "AND, OR or OutOf")
        if name not in _GATES:
            self.position = before
            raise self.mistake("AND, OR or OutOf was expected")
        self.punctuation("(")
        needed = int(self.take(2, "a number")) if _GATES[name] == "OutOf" else None
        separator = self.punctuation(",") if needed is not None else ","
        parts: list[policies_pb2.SignaturePolicy | msp_principal_pb2.MSPPrincipal] = []
        while separator == ",":
            self.rules += 1
            if self.rules >= limits.MAX_POLICY_RULES:
                raise self.mistake("too many rules")
            parts.append(self.gate(depth + 1) if self.next_group() == 1 else self.principal())
            separator = self.punctuation(",)")
        if needed is None:
            needed = len(parts) if _GATES[name] == "And" else 1
        if needed > len(parts):
            self.position = before
            raise self.mistake(f"{needed} of {len(parts)} can never be satisfied")
        return policies_pb2.SignaturePolicy(
            n_out_of=policies_pb2.SignaturePolicy.NOutOf(n=needed, rules=[self._numbered(part) for part in parts])
        )

    def principal(self) -> msp_principal_pb2.MSPPrincipal:
        before = self.position
        text = self.take(4 if self.next_group() == 4 else 3, "a gate or 'MSP.role'")
        match = _PRINCIPAL.fullmatch(text)
        if match is None:
            self.position = before
            raise self.mistake("'MSP.role' was expected, with role admin, member, client, peer or orderer")
        role = msp_principal_pb2.MSPRole(msp_identifier=match[1], role=Role[match[2].upper()])
        return msp_principal_pb2.MSPPrincipal(
            principal_classification=CLASSIFICATION_ROLE, principal=role.SerializeToString()
        )

    def _numbered(
        self, part: policies_pb2.SignaturePolicy | msp_principal_pb2.MSPPrincipal
    ) -> policies_pb2.SignaturePolicy:
        if isinstance(part, policies_pb2.SignaturePolicy):
            return part
        self.principals.append(part)
        return policies_pb2.SignaturePolicy(signed_by=len(self.principals) - 1)
