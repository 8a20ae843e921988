"""Which peers a Gateway service asks: those that run a chaincode, and those whose endorsements suffice.

Rules: `internal/pkg/gateway/{registry,endorse,evaluate}.go`, `discovery/endorsement/endorsement.go`. Peers of the
process know each other without gossip.
"""

from collections.abc import Sequence
from random import Random
from typing import Final

import grpc
from fabric_protos.peer import proposal_response_pb2

from network.embedded.ledger.endorsable import NotEndorsableError
from network.embedded.ledger.network import EmbeddedLedger
from network.embedded.ledger.peer import SYSTEM_CHAINCODES, Peer
from network.embedded.ledger.peer_channel import PeerChannel
from network.embedded.services.endorsement_planner import (
    Candidate,
    Combinations,
    EndorsementPlan,
    PlanError,
    combinations_of,
    is_plannable,
)
from network.embedded.services.gateway_request import Proposed
from network.embedded.services.rpc import RpcError
from network.protocol.collection import is_member
from network.protocol.errors import ConfigurationError, DecodeError
from network.protocol.interest import ChaincodeCall, decode_interest
from network.protocol.lifecycle import signature_policy
from network.protocol.policy import Policy
from network.protocol.transaction import Endorsement

_PROTECT: Final = (
    "no endorsers found in the gateway's organization; retry specifying {} organization(s) to protect transient data"
)
_NO_COMBINATION: Final = "no combination of peers can be derived which satisfy the endorsement policy"

Interest = tuple[ChaincodeCall, ...]


class PeerChoice:
    """Chooses for the gateway of one peer; `chance` breaks ties."""

    def __init__(self, peer: Peer, ledger: EmbeddedLedger, chance: Random) -> None:
        self._peer = peer
        self._ledger = ledger
        self._chance = chance

    def at(self, address: str) -> Peer:
        """Give the peer of an address."""
        return next(peer for peer in self._ledger.peers if peer.node.address == address)

    def evaluators(self, proposed: Proposed, organizations: Sequence[str]) -> list[Peer]:
        """Give the peers that may evaluate, best first; raises RpcError when there is none."""
        own = self._peer.node.msp_id
        protects = proposed.has_transient and not organizations
        wanted = [own] if protects else organizations
        peers = self._advertising(proposed)
        if wanted:
            peers = [peer for peer in peers if peer.node.msp_id in wanted]
        if not peers:
            words = f"no peers available to evaluate chaincode {proposed.chaincode} in channel {proposed.channel_id}"
            if protects:
                words = f"{_PROTECT.format('target')}: {words}"
            raise RpcError(grpc.StatusCode.FAILED_PRECONDITION, words)
        return peers

    def plan_for_organizations(self, proposed: Proposed, organizations: Sequence[str]) -> EndorsementPlan:
        """Plan one peer of each organisation named; whether that satisfies the policy is the client's affair.

        Raises RpcError when one of them has no peer that runs the chaincode.
        """
        groups, missing = self._by_organization(proposed, organizations)
        if missing:
            words = f"failed to find any endorsing peers for org(s): {', '.join(missing)}"
            raise RpcError(grpc.StatusCode.UNAVAILABLE, words)
        return EndorsementPlan(groups, [dict.fromkeys(range(len(groups)), 1)])

    def first_plan(self, proposed: Proposed) -> EndorsementPlan:
        """Plan whom to ask for a first endorsement: the own organisation, or whoever runs the chaincode.

        Raises RpcError when nobody may be asked.
        """
        groups, missing = self._by_organization(proposed, [self._peer.node.msp_id])
        if not missing:
            return EndorsementPlan(groups, [{0: 1}])
        if proposed.has_transient:
            raise RpcError(grpc.StatusCode.FAILED_PRECONDITION, _PROTECT.format("endorsing"))
        try:
            combinations = self._satisfying(proposed, (ChaincodeCall(proposed.chaincode),), protects=False)
        except PlanError as error:
            raise RpcError(grpc.StatusCode.FAILED_PRECONDITION, f"{_NO_COMBINATION}: {error}") from error
        return self._plan(combinations, None)

    def plan_from(
        self, proposed: Proposed, first: Candidate, answer: proposal_response_pb2.ProposalResponse
    ) -> EndorsementPlan:
        """Plan the other endorsements by what the first one says that the transaction touches; raises RpcError.

        Whoever is asked sees the transient data, so only peers that may see all that is touched are asked then.
        """
        interest = decode_interest(answer.interest) or (ChaincodeCall(proposed.chaincode),)
        try:
            combinations = self._satisfying(proposed, interest, protects=proposed.has_transient)
        except PlanError as error:
            if proposed.has_transient:
                self._raise_protected(proposed, interest)
            raise RpcError(grpc.StatusCode.FAILED_PRECONDITION, f"{_NO_COMBINATION}: {error}") from error
        plan = self._plan(combinations, first)
        plan.credit(first, answer.payload, Endorsement(answer.endorsement.endorser, answer.endorsement.signature))
        return plan

    def _plan(self, combinations: Combinations, first: Candidate | None) -> EndorsementPlan:
        """Have the layouts with the group of the first endorser come first, in any order among themselves."""
        groups = list(combinations.groups)
        preferred = next((number for number, group in enumerate(groups) if first in group), None)
        layouts = list(combinations.layouts)
        self._chance.shuffle(layouts)
        layouts.sort(key=lambda layout: preferred not in layout)
        return EndorsementPlan(groups, layouts)

    def _raise_protected(self, proposed: Proposed, interest: Interest) -> None:
        """Raise RpcError when only the protection of transient data stands in the way."""
        protected = [name for call in interest if call.no_private_reads for name in call.collections]
        if not protected:
            return
        try:
            self._satisfying(proposed, interest, protects=False)
        except PlanError:
            return
        words = (
            "requires endorsement from organisation(s) that are not in the distribution policy of the private data "
            f"collection(s): [{' '.join(protected)}]; retry specifying trusted endorsing organizations to protect "
            "transient data"
        )
        raise RpcError(grpc.StatusCode.FAILED_PRECONDITION, words)

    def _satisfying(self, proposed: Proposed, interest: Interest, *, protects: bool) -> Combinations:
        """Find the combinations of peers that satisfy every call; raises PlanError."""
        channel = self._peer.channels.get(proposed.channel_id)
        if channel is None:
            raise PlanError(_no_metadata(interest[0].chaincode, proposed.channel_id))
        policies = [policy for call in interest for policy in _policies(channel, call)]
        chaincodes = [call.chaincode for call in interest]
        candidates = []
        for peer in self._ledger.peers:
            if proposed.channel_id not in peer.channels:
                continue
            if not all(_may_see(peer, channel, call) for call in interest if protects or not call.no_private_reads):
                continue
            runs = all(_runs(peer, proposed.channel_id, chaincode) for chaincode in chaincodes)
            candidates.append(_candidate(peer, proposed.channel_id)._replace(has_chaincodes=runs))
        candidates.sort(key=lambda candidate: -self.at(candidate.address).channels[proposed.channel_id].height)
        return combinations_of(candidates, policies, channel.rules.msps)

    def _advertising(self, proposed: Proposed) -> list[Peer]:
        """Give the peers that run a chaincode: the own organisation's first, then by height, this one before others."""
        channel_id = proposed.channel_id
        peers = [peer for peer in self._ledger.peers if _runs(peer, channel_id, proposed.chaincode)]
        return sorted(
            peers,
            key=lambda peer: (
                peer.node.msp_id != self._peer.node.msp_id,
                -peer.channels[channel_id].height,
                peer is not self._peer,
            ),
        )

    def _by_organization(
        self, proposed: Proposed, organizations: Sequence[str]
    ) -> tuple[list[list[Candidate]], list[str]]:
        """Give the peers that run the chaincode by organisation, and the organisations that have none."""
        groups: dict[str, list[Candidate]] = {name: [] for name in organizations}
        for peer in self._advertising(proposed):
            if peer.node.msp_id in groups:
                groups[peer.node.msp_id].append(_candidate(peer, proposed.channel_id))
        return list(groups.values()), [name for name, found in groups.items() if not found]


def _policies(channel: PeerChannel, call: ChaincodeCall) -> list[Policy]:
    """Give the policies that one call has to satisfy; raises PlanError."""
    rules = channel.rules
    definition = channel.definition(call.chaincode)
    contents = [signature_policy(policy) for policy in call.key_policies]
    own = rules.chaincode_policy(call.chaincode, definition)
    planned = None if own is None else rules.policy(own)
    if own is None or (planned is not None and not is_plannable(planned)):
        raise PlanError(_no_metadata(call.chaincode, channel.channel_id))
    if call.collections:
        try:
            contents += [rules.collection_policy(name, definition, own) for name in call.collections]
        except ConfigurationError as error:
            words = f"collection {call.collections[0]} doesn't exist in collection config for chaincode"
            raise PlanError(f"{words} {call.chaincode}") from error
    elif not call.disregard_namespace_policy:
        contents.append(own)
    policies = []
    for content in contents:
        policy = rules.policy(content)
        if policy is None:
            raise PlanError("policy not found")
        policies.append(policy)
    return policies


def _may_see(peer: Peer, channel: PeerChannel, call: ChaincodeCall) -> bool:
    """Tell whether a peer is a member of every collection of a call."""
    for name in call.collections:
        config = channel.collection(call.chaincode, name)
        if config is None or not is_member(config, peer.identity_in(channel), channel.rules.msps):
            return False
    return True


def _runs(peer: Peer, channel_id: str, chaincode: str) -> bool:
    channel = peer.channels.get(channel_id)
    if channel is None:
        return False
    if chaincode in SYSTEM_CHAINCODES:
        return True
    try:
        peer.endorsable(channel, chaincode)
    except (NotEndorsableError, DecodeError):
        return False
    return True


def _candidate(peer: Peer, channel_id: str) -> Candidate:
    return Candidate(peer.node.address, peer.node.msp_id, peer.identity_in(peer.channels[channel_id]))


def _no_metadata(chaincode: str, channel_id: str) -> str:
    return f"No metadata was found for chaincode {chaincode} in channel {channel_id}"
