"""Who has to endorse: the combinations of peers that satisfy every policy a transaction touches, and a walk over them.

Pure. Rules: `discovery/endorsement/endorsement.go` (which combinations there are),
`internal/pkg/gateway/{endorsement,registry}.go` (which one is tried, and who replaces a peer that fails).

Fabric derives the combinations from the text of the policies; here the policies themselves are asked about groups of
peers that none of them tells apart. What one finds the other finds, but for policies whose greedy evaluation refuses a
set that would suffice in another order: that set is not planned here, since the committing peers would refuse it too.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from math import prod
from typing import Final, NamedTuple

from network.protocol.identity import Identity
from network.protocol.msp import ChannelMsps, Principal
from network.protocol.policy import ImplicitMetaPolicy, Policy, SignedBy, is_satisfied
from network.protocol.transaction import Endorsement

MAX_COMBINATIONS: Final = 10_000
"""Sets of peers looked at for one transaction; Fabric bounds its own search by the same number (`common/graph`)."""
MAX_REMEMBERED_PLANS: Final = 256

NO_COMBINATION: Final = "no peer combination can satisfy the endorsement policy"
NOT_INSTALLED: Final = "required chaincodes are not installed on sufficient peers"


class PlanError(Exception):
    """No set of peers satisfies the policies; the text is Fabric's."""


class Candidate(NamedTuple):
    """A peer that may be asked. `has_chaincodes`: it runs every chaincode of the transaction at its sequence."""

    address: str
    msp_id: str
    identity: Identity
    has_chaincodes: bool = True


@dataclass(frozen=True, slots=True)
class Combinations:
    """Groups of peers that no policy tells apart, and how many of which group suffice (`layouts`, by group number)."""

    groups: tuple[tuple[Candidate, ...], ...]
    layouts: tuple[Mapping[int, int], ...]


def combinations_of(candidates: Sequence[Candidate], policies: Iterable[Policy], msps: ChannelMsps) -> Combinations:
    """Give the minimal combinations of peers that satisfy all policies.

    Raises PlanError when there is none: NO_COMBINATION when not even peers without the chaincode would do,
    NOT_INSTALLED when only those are missing. Within a group, peers stay in the order given.
    """
    return _combinations(tuple(candidates), tuple(dict.fromkeys(policies)), msps)


@lru_cache(MAX_REMEMBERED_PLANS)
def _combinations(candidates: tuple[Candidate, ...], policies: tuple[Policy, ...], msps: ChannelMsps) -> Combinations:
    if not _minimal_layouts(_grouped(candidates, policies, msps), policies, msps):
        raise PlanError(NO_COMBINATION)
    groups = _grouped([candidate for candidate in candidates if candidate.has_chaincodes], policies, msps)
    layouts = _minimal_layouts(groups, policies, msps)
    if not layouts:
        raise PlanError(NOT_INSTALLED)
    return Combinations(groups, layouts)


def is_plannable(policy: Policy) -> bool:
    """Tell whether real peers can plan for a policy: not when a child group lacks it (`common/policies/convert.go`)."""
    if isinstance(policy, ImplicitMetaPolicy):
        return all(child is not None and is_plannable(child) for child in policy.children)
    return True


def _grouped(
    candidates: Sequence[Candidate], policies: Sequence[Policy], msps: ChannelMsps
) -> tuple[tuple[Candidate, ...], ...]:
    principals = tuple(dict.fromkeys([principal for policy in policies for principal in _principals(policy)]))
    groups: dict[tuple[bool, ...], list[Candidate]] = {}
    for candidate in candidates:
        profile = tuple([msps.satisfies_principal(candidate.identity, principal) for principal in principals])
        if any(profile):
            groups.setdefault(profile, []).append(candidate)
    return tuple([tuple(group) for group in groups.values()])


def _principals(policy: Policy) -> Iterable[Principal]:
    if isinstance(policy, SignedBy):
        yield policy.principal
    elif isinstance(policy, ImplicitMetaPolicy):
        for child in policy.children:
            if child is not None:
                yield from _principals(child)
    else:
        for rule in policy.rules:
            yield from _principals(rule)


def _minimal_layouts(
    groups: Sequence[Sequence[Candidate]], policies: Sequence[Policy], msps: ChannelMsps
) -> tuple[Mapping[int, int], ...]:
    if prod([len(group) + 1 for group in groups]) > MAX_COMBINATIONS:
        raise PlanError(f"more than {MAX_COMBINATIONS} combinations of peers to look at")
    found: list[tuple[int, ...]] = []
    for quantities in sorted(product(*[range(len(group) + 1) for group in groups]), key=sum):
        if any(all(need <= has for need, has in zip(layout, quantities, strict=True)) for layout in found):
            continue  # more than enough
        identities = [
            candidate.identity
            for group, quantity in zip(groups, quantities, strict=True)
            for candidate in group[:quantity]
        ]
        if identities and all(is_satisfied(policy, identities, msps) for policy in policies):
            found.append(quantities)
    return tuple([{number: quantity for number, quantity in enumerate(layout) if quantity} for layout in found])


class EndorsementPlan:
    """A walk over layouts: whom to ask next, and when the endorsements of a layout are complete.

    `groups` are the peers that may be asked, by group number, best first; `layouts` say how many of which group
    suffice, in the order in which they are tried. `endorsements` is None until a layout is complete. All payloads
    have to be equal; the first one sets what the others have to be.
    """

    def __init__(self, groups: Sequence[Sequence[Candidate]], layouts: Iterable[Mapping[int, int]]) -> None:
        self.payload: bytes | None = None
        self.endorsements: tuple[Endorsement, ...] | None = None
        self._waiting = [list(group) for group in groups]
        self._group = {candidate.address: number for number, group in enumerate(groups) for candidate in group}
        self._layouts = [_OpenLayout(dict(layout), []) for layout in layouts]

    def next_round(self) -> list[Candidate]:
        """Give the peers that the next possible layout still needs; none when no layout is possible any more."""
        while self._layouts and self.endorsements is None:
            needed = self._layouts[0].needed
            if all(quantity <= len(self._waiting[number]) for number, quantity in needed.items()):
                chosen = []
                for number, quantity in needed.items():
                    chosen += self._waiting[number][:quantity]
                    del self._waiting[number][:quantity]
                return chosen
            del self._layouts[0]
        return []

    def credit(self, candidate: Candidate, payload: bytes, endorsement: Endorsement) -> bool:
        """Count an endorsement for every layout that can use it; False when its payload differs from the first."""
        number = self._group.get(candidate.address)
        if number is not None and candidate in self._waiting[number]:
            self._waiting[number].remove(candidate)
        if self.payload is None:
            self.payload = payload
        elif payload != self.payload:
            return False
        for layout in self._layouts:
            if number is None or number not in layout.needed:
                continue
            layout.needed[number] -= 1
            layout.endorsements.append(endorsement)
            if not layout.needed[number]:
                del layout.needed[number]
            if not layout.needed and self.endorsements is None:
                self.endorsements = tuple({e.endorser: e for e in layout.endorsements}.values())
        return True

    def replacement(self, candidate: Candidate) -> Candidate | None:
        """Give the next peer of the group of one that failed; None drops every layout that still needs the group."""
        number = self._group[candidate.address]
        if self._waiting[number]:
            return self._waiting[number].pop(0)
        self._layouts = [layout for layout in self._layouts if number not in layout.needed]
        return None


class _OpenLayout(NamedTuple):
    needed: dict[int, int]
    endorsements: list[Endorsement]
