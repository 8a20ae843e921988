"""Endorsement policies of single keys: every organisation named has to endorse a change of the key.

Byte for byte what Go's package makes. Source: fabric-chaincode-go `pkg/statebased`.
"""

from collections.abc import Iterable
from typing import Any

from fabric_protos.common import policies_pb2
from fabric_protos.msp import msp_principal_pb2

from chaincode.errors import InvalidKeyError

_Role = msp_principal_pb2.MSPRole


def peers_policy(msp_ids: Iterable[str]) -> bytes:
    """Ask for a peer of each organisation; raises InvalidKeyError when none is named: nobody could satisfy that."""
    return _policy(msp_ids, _Role.PEER)


def members_policy(msp_ids: Iterable[str]) -> bytes:
    """Ask for any member of each organisation; raises InvalidKeyError when none is named."""
    return _policy(msp_ids, _Role.MEMBER)


def _policy(msp_ids: Iterable[str], role: int) -> bytes:
    names = sorted(set(msp_ids))
    if not names or "" in names:
        raise InvalidKeyError("the policy of a key names at least one organisation, each by its MSP id")
    envelope: Any = policies_pb2.SignaturePolicyEnvelope()
    rule = envelope.rule.n_out_of
    rule.n = len(names)
    for number, name in enumerate(names):
        rule.rules.add(signed_by=number)
        principal = _Role(msp_identifier=name, role=role).SerializeToString()
        envelope.identities.add(principal_classification=msp_principal_pb2.MSPPrincipal.ROLE, principal=principal)
    return bytes(envelope.SerializeToString())
