"""How many orderers it takes, and the policy by which BFT orderers sign blocks.

Rules: `common/policies/bft.go`, `orderer/consensus/etcdraft/membership.go`.
"""

from collections.abc import Sequence

from fabric_protos.common import policies_pb2
from fabric_protos.msp import msp_principal_pb2

from network.protocol.identity import SerializedIdentity, encode_serialized_identity
from network.protocol.msp import CLASSIFICATION_IDENTITY


def raft_quorum(orderers: int) -> int:
    """Give how many of so many Raft orderers must run: more than half."""
    return orderers // 2 + 1


def bft_quorum(orderers: int) -> int:
    """Give how many of so many BFT orderers must agree and sign: of n, f = (n - 1) // 3 may fail or lie."""
    faulty = (orderers - 1) // 3
    return (orderers + faulty + 2) // 2


def block_validation_policy(consenters: Sequence[SerializedIdentity]) -> bytes:
    """Give the SignaturePolicyEnvelope of BFT's BlockValidation: a quorum of these very identities, in this order."""
    rules = [policies_pb2.SignaturePolicy(signed_by=position) for position in range(len(consenters))]
    quorum = policies_pb2.SignaturePolicy.NOutOf(n=bft_quorum(len(consenters)), rules=rules)
    identities = [
        msp_principal_pb2.MSPPrincipal(
            principal_classification=CLASSIFICATION_IDENTITY, principal=encode_serialized_identity(consenter)
        )
        for consenter in consenters
    ]
    rule = policies_pb2.SignaturePolicy(n_out_of=quorum)
    envelope = policies_pb2.SignaturePolicyEnvelope(version=0, rule=rule, identities=identities)
    return bytes(envelope.SerializeToString(deterministic=True))
