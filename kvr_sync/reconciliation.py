"""Private values that did not come with their blocks, asked for again from the organisation's peers.

Peers find what they lack by and by (`gossip/privdata/reconcile.go`) and tell nobody. So blocks with missing values are
read again with private data, from one peer after the other; a value counts if it has the hash that the chain holds, is
applied at its own version, and announced as late. What nobody has is asked for less and less often.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from gateway.client.channel import Endpoint
from gateway.client.identity import SigningIdentity
from kvr_sync.errors import CommitOutcomeUnknownError, SourceError
from kvr_sync.model import LateValue, MissingValue
from kvr_sync.private_data import match_missing
from kvr_sync.source.peer_source import PeerSettings, read_peers
from kvr_sync.source.private_data_reader import read_private_sets
from kvr_sync.store.ledger_sink import LedgerSink

logger = logging.getLogger(__name__)

PAGE_VALUES = 1_000
"""Missing values that are looked for at once; a scheduled run asks for no more."""
BATCH_VALUES = 200
BATCH_BYTES = 8 * 1024 * 1024
"""Values that are applied in one transaction, unless one block brings more."""


class Reconciliation(NamedTuple):
    """What came of asking: values asked for, arrived, refused (not those of the chain), and those missing now."""

    asked: int
    arrived: int
    refused: int
    missing: int


def reconcile(
    sink: LedgerSink,
    settings: PeerSettings,
    *,
    due: bool,
    on_progress: Callable[[int, int], None] = lambda _asked, _arrived: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Reconciliation:
    """Ask for missing values, oldest first: one page of those that are `due`, or all there are.

    Raises ConfigurationError (profile or credential), SinkError, and SourceError where no peer could be read; what had
    arrived by then is applied.
    """
    identity, endpoints = read_peers(settings)
    asked = arrived = refused = 0
    after: MissingValue | None = None
    while not should_stop():
        missing = sink.read_missing(due=due, after=after, limit=PAGE_VALUES)
        if not missing:
            break
        after = missing[-1]
        page = _Page(sink, settings.channel, missing, should_stop)
        page.ask(identity, endpoints)
        asked, arrived, refused = asked + len(missing), arrived + page.arrived, refused + page.refused
        on_progress(asked, arrived)
        if due:
            break
    return Reconciliation(asked, arrived, refused, sink.count_private().missing)


class _Page:
    """Missing values that are asked for together."""

    def __init__(
        self, sink: LedgerSink, channel: str, missing: Sequence[MissingValue], should_stop: Callable[[], bool]
    ) -> None:
        self.arrived = self.refused = 0
        self._sink = sink
        self._channel = channel
        self._should_stop = should_stop
        self._missing: dict[int, dict[tuple[int, int], MissingValue]] = {}
        for one in missing:
            self._missing.setdefault(one.block_number, {})[one.key_id, one.tx_number] = one
        self._answered: set[int] = set()
        """Blocks that were asked for, and given or refused."""
        self._given: set[int] = set()
        """Blocks that the present peer gave."""
        self._found: list[LateValue] = []
        self._peer = ""

    def ask(self, identity: SigningIdentity, endpoints: Sequence[Endpoint]) -> None:
        """Ask the peers in turn; each for what those before it did not have."""
        failure: SourceError | None = None
        served: set[str] = set()
        for endpoint in endpoints:
            numbers = sorted(number for number, missing in self._missing.items() if missing)
            if not numbers or self._should_stop():
                break
            self._peer = endpoint.address
            self._given.clear()
            try:
                read_private_sets(identity, endpoint, self._channel, numbers, self._take)
                served.add(endpoint.address)
            except SourceError as error:
                failure = error
                if self._given:
                    served.add(endpoint.address)
                # Perhaps it is this block that cannot be handed over: its turn comes again after those that can.
                self._answered.update(next(([n] for n in numbers if n not in self._given), []))
                facts = {"channel": self._channel, "peer": endpoint.address, "code": error.code, "reason": str(error)}
                logger.warning("private_data_not_read", extra=facts)
        self._apply()
        vain = [one for number in sorted(self._answered) for one in self._missing[number].values()]
        self._sink.note_asked(vain)
        if failure is not None and not served:
            raise failure

    def _take(self, number: int, private_sets: Mapping[int, bytes]) -> bool:
        missing = self._missing[number]
        self._answered.add(number)
        self._given.add(number)
        data = match_missing(missing.values(), private_sets)
        if data.refused:
            self.refused += data.refused
            facts = {"channel": self._channel, "peer": self._peer, "block_number": number, "values": data.refused}
            logger.error("private_values_refused", extra=facts)
        for value in data.values:
            del missing[value.missing.key_id, value.missing.tx_number]
        self._found += data.values
        size = sum(len(value.value) for value in self._found)
        if len(self._found) >= BATCH_VALUES or size >= BATCH_BYTES:
            self._apply()
        return not self._should_stop()

    def _apply(self) -> None:
        if not self._found:
            return
        found, self._found = self._found, []
        try:
            self.arrived += self._sink.apply_late(found).arrived
        except CommitOutcomeUnknownError:
            # Looked up, not guessed: this applies what is still missing; the rest came with the answer that was lost.
            self._sink.apply_late(found)
            self.arrived += len(found)
