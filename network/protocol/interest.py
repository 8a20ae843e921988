"""The interest of a transaction: which chaincodes, collections and keys say who has to endorse it.

A peer derives it from one simulation and sends it along with its endorsement; who plans further endorsements asks for
exactly that. Message: `peer/proposal_response.proto` (ChaincodeInterest). Rules: `core/endorser/endorser.go`
(buildChaincodeInterest, parseWritesetMetadata).
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

from fabric_protos.common import policies_pb2
from fabric_protos.peer import proposal_response_pb2

from network.protocol.wire import parse

SYSTEM_NAMESPACES: Final = frozenset(("_lifecycle", "cscc", "lscc", "qscc"))
"""What a system chaincode reads or writes asks for nobody's endorsement (`internal/peer/node/start.go`)."""

_PUBLIC = ""


class WrittenKey(NamedTuple):
    """A key that was written, or its metadata; `collection` "": public.

    `key_policy`: the committed `VALIDATION_PARAMETER` of the key, SignaturePolicyEnvelope bytes; None: it has none.
    """

    namespace: str
    collection: str
    key_policy: bytes | None


class ChaincodeCall(NamedTuple):
    """One part of an interest: a chaincode's public data with policies of keys, or one of its collections.

    `no_private_reads`: members need not be asked, since nothing private was read. `disregard_namespace_policy`: the
    policies of the keys alone decide.
    """

    chaincode: str
    collections: tuple[str, ...] = ()
    no_private_reads: bool = False
    disregard_namespace_policy: bool = False
    key_policies: tuple[bytes, ...] = ()


def interest_of(
    namespaces: Iterable[str], written: Iterable[WrittenKey], private_reads: Iterable[tuple[str, str]]
) -> tuple[ChaincodeCall, ...]:
    """Give the interest of one simulation, in the order of names (a peer gives it in no order).

    `namespaces`: those in its public read-write set. `private_reads`: (namespace, collection) of which values were read
    and not hashes alone.
    """
    required: dict[str, dict[str, bool]] = {}
    key_policies: dict[str, list[bytes]] = {}
    read = frozenset(private_reads)
    for namespace, collection, key_policy in written:
        parts = required.setdefault(namespace, {_PUBLIC: False})
        if key_policy is None:
            parts[collection] = True
        else:
            key_policies.setdefault(namespace, []).append(key_policy)
    for namespace in namespaces:
        required.setdefault(namespace, {_PUBLIC: True})
    for namespace, collection in read:
        required.setdefault(namespace, {})[collection] = True
    calls = []
    for namespace in sorted(required.keys() - SYSTEM_NAMESPACES):
        for collection, is_required in sorted(required[namespace].items()):
            if collection != _PUBLIC:
                calls.append(
                    ChaincodeCall(namespace, (collection,), no_private_reads=(namespace, collection) not in read)
                )
            elif is_required or namespace in key_policies:
                policies = tuple(key_policies.get(namespace, ()))
                calls.append(
                    ChaincodeCall(namespace, disregard_namespace_policy=not is_required, key_policies=policies)
                )
    return tuple(calls)


def encode_interest(calls: Iterable[ChaincodeCall]) -> proposal_response_pb2.ChaincodeInterest:
    """Write a ChaincodeInterest; raises DecodeError for a policy of a key that is none."""
    interest = proposal_response_pb2.ChaincodeInterest()
    for call in calls:
        message = interest.chaincodes.add(
            name=call.chaincode,
            collection_names=call.collections,
            no_private_reads=call.no_private_reads,
            disregard_namespace_policy=call.disregard_namespace_policy,
        )
        for policy in call.key_policies:
            message.key_policies.append(
                parse(policies_pb2.SignaturePolicyEnvelope, policy, "SignaturePolicyEnvelope of a key")
            )
    return interest


def decode_interest(message: proposal_response_pb2.ChaincodeInterest) -> tuple[ChaincodeCall, ...]:
    """Read a ChaincodeInterest, as a ProposalResponse or an EndorseRequest carries it."""
    return tuple(
        ChaincodeCall(
            call.name,
            tuple(call.collection_names),
            call.no_private_reads,
            call.disregard_namespace_policy,
            tuple([policy.SerializeToString(deterministic=True) for policy in call.key_policies]),
        )
        for call in message.chaincodes
    )
