"""What in a block is so malformed that Fabric's rules give no code for it: there is no verdict to agree with.

No endorser and no orderer of ours lets such a thing through. Nothing here changes a verdict: where one is in a block
all the same, a peer of ours gives the code that the rules come nearest to and goes on, and says so.
"""

from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from typing import NamedTuple

from fabric_protos.common import common_pb2
from fabric_protos.peer import proposal_pb2, proposal_response_pb2, transaction_pb2

from network.protocol.commit_hash import StateKey
from network.protocol.errors import DecodeError
from network.protocol.read_write_set import NamespaceSet, decode_read_write_set
from network.protocol.validation_code import INVALID_ENDORSER_TRANSACTION
from network.protocol.wire import parse


class NoVerdictReason(StrEnum):
    """What is wrong."""

    NO_HEADER = "an envelope without header"
    NO_ACTION = "an action without endorsed part"
    NO_ACTIONS = "a transaction without actions"
    NOT_READABLE = "a transaction that cannot be read"
    NEVER_JUDGED = "a transaction that is never judged changes the metadata of a key that is written"
    UNDEFINED_COLLECTION = "writes to a collection that is not defined"
    KEY_POLICY = "the policy of a key cannot be read"
    DEFINITION = "the definition of a chaincode cannot be read"
    PLUGIN = "a chaincode with a validation plugin that the peer does not have"
    CONFIGURATION = "a configuration that does not follow from the one in force"
    METADATA_OF_DELETED = "metadata is written to a key that was deleted earlier in the block"


class NoVerdict(NamedTuple):
    """One reason, and the transaction that brings it about; it holds no key and no value."""

    tx_number: int
    reason: NoVerdictReason


class _Found(NamedTuple):
    """What looking for policies of keys finds in a transaction: what it writes, or why nothing can be seen."""

    read_write_set: tuple[NamespaceSet, ...]
    defect: NoVerdictReason | None = None


class NoVerdictCheck:
    """One block, transaction by transaction in its order; `has_collection` tells by namespace and name."""

    def __init__(self, has_collection: Callable[[str, str], bool]) -> None:
        self._has_collection = has_collection
        self._found: list[NoVerdict] = []
        self._defects: set[NoVerdictReason | None] = set()
        self._unjudged: set[StateKey] = set()

    @property
    def reasons(self) -> tuple[NoVerdict, ...]:
        """Everything found so far."""
        return tuple(self._found)

    def add(self, tx_number: int, reason: NoVerdictReason) -> None:
        """Note a reason that was found elsewhere."""
        self._found.append(NoVerdict(tx_number, reason))

    def refused(self, tx_number: int, envelope: bytes, code: int) -> None:
        """Look at a transaction that got a code before its endorsements were judged."""
        found = _look(envelope)
        self._defects.add(found.defect)
        if found.defect == NoVerdictReason.NO_HEADER or (
            found.defect == NoVerdictReason.NO_ACTION and code == INVALID_ENDORSER_TRANSACTION
        ):
            self.add(tx_number, found.defect)
        self._unjudged.update(key for entry in found.read_write_set for key in _changed_policies(entry))
        self._check_collections(tx_number, found.read_write_set)

    def judged(self, tx_number: int, read_write_set: Sequence[NamespaceSet], namespaces: frozenset[str]) -> None:
        """Look at a transaction whose endorsements were judged for some namespaces, with whatever result."""
        written = {key for entry in read_write_set if entry.namespace in namespaces for key in _written(entry)}
        if namespaces and not self._defects.isdisjoint((NoVerdictReason.NO_ACTIONS, NoVerdictReason.NO_ACTION)):
            self.add(tx_number, NoVerdictReason.NO_ACTIONS)
        if written and NoVerdictReason.NOT_READABLE in self._defects:
            self.add(tx_number, NoVerdictReason.NOT_READABLE)
        if not written.isdisjoint(self._unjudged):
            self.add(tx_number, NoVerdictReason.NEVER_JUDGED)
        self._unjudged.update(
            key for entry in read_write_set if entry.namespace not in namespaces for key in _changed_policies(entry)
        )
        self._check_collections(tx_number, read_write_set)

    def _check_collections(self, tx_number: int, entries: Sequence[NamespaceSet]) -> None:
        written = [
            (entry.namespace, part.collection)
            for entry in entries
            for part in entry.collections
            if part.writes or part.metadata_writes
        ]
        if not all(self._has_collection(*place) for place in written):
            self.add(tx_number, NoVerdictReason.UNDEFINED_COLLECTION)


def _look(content: bytes) -> _Found:
    """Read a transaction as far as a peer does that looks for policies of keys."""
    try:
        payload = parse(common_pb2.Payload, parse(common_pb2.Envelope, content, "Envelope").payload, "Payload")
        if not payload.HasField("header"):
            return _Found((), NoVerdictReason.NO_HEADER)
        actions = parse(transaction_pb2.Transaction, payload.data, "Transaction").actions
        if not actions:
            return _Found((), NoVerdictReason.NO_ACTIONS)
        endorsed = parse(transaction_pb2.ChaincodeActionPayload, actions[0].payload, "ChaincodeActionPayload")
        if not endorsed.HasField("action"):
            return _Found((), NoVerdictReason.NO_ACTION)
        response = parse(
            proposal_response_pb2.ProposalResponsePayload,
            endorsed.action.proposal_response_payload,
            "ProposalResponsePayload",
        )
        results = parse(proposal_pb2.ChaincodeAction, response.extension, "ChaincodeAction").results
    except DecodeError:
        return _Found((), NoVerdictReason.NOT_READABLE)
    try:
        return _Found(decode_read_write_set(results))
    except DecodeError:
        return _Found(())


def _written(entry: NamespaceSet) -> Iterator[StateKey]:
    for write in entry.writes:
        yield entry.namespace, "", write.key.encode()
    for part in entry.collections:
        for hashed in part.writes:
            yield entry.namespace, part.collection, hashed.key_hash
    yield from _changed_policies(entry)


def _changed_policies(entry: NamespaceSet) -> Iterator[StateKey]:
    for change in entry.metadata_writes:
        yield entry.namespace, "", change.key.encode()
    for part in entry.collections:
        for hashed in part.metadata_writes:
            yield entry.namespace, part.collection, hashed.key_hash
