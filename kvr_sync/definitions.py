"""Chaincode definitions by height: what the `_lifecycle` namespace says after each block. Pure.

A definition rules the blocks above the one that committed it. Peers keep it as one key for each field, of which only
those are written that change (`core/chaincode/lifecycle/serializer.go`), so the rest is read from the state before.
"""

from collections.abc import Iterable, Mapping

from kvr_sync.model import DefinitionFacts, Effect, EffectiveWrite, LedgerKey, ReplayedBlock
from kvr_sync.replay_state import KeyReader
from network.protocol.collection import CollectionConfig
from network.protocol.errors import DecodeError
from network.protocol.lifecycle import ChaincodeDefinition, chaincode_of_key, read_definition
from network.protocol.private_data import LIFECYCLE_NAMESPACE


class Definitions:
    """The chaincode definitions of one channel, block by block."""

    def __init__(self, read_keys: KeyReader) -> None:
        """`read_keys` gives the public state before the first block that `derive` is given."""
        self._read_keys = read_keys
        self._written: dict[str, bytes | None] = {}
        """Fields that blocks since then wrote; None: deleted."""
        self._sequences: dict[str, int] = {}
        self.changes = 0
        """How many blocks brought a definition; whoever keeps `sequences` apart compares it."""

    def sequences(self, chaincodes: Iterable[str]) -> Mapping[str, int]:
        """Give the sequences in force below the next block, 0 where there is no definition that can be read."""
        for chaincode in chaincodes:
            if chaincode not in self._sequences:
                self._sequences[chaincode] = _sequence(self._definition(chaincode))
        return self._sequences

    def derive(self, replayed: ReplayedBlock) -> tuple[DefinitionFacts, ...]:
        """Give the definitions that the next block brings, in the order of their names."""
        written = {write.key.key: write for write in replayed.writes if is_definition_write(write)}
        if not written:
            return ()
        self.changes += 1
        changed = set()
        for key, write in written.items():
            name = key.decode("utf-8", "surrogateescape")
            self._written[name] = write.value if write.effect is not Effect.DELETE else None
            chaincode = chaincode_of_key(name)
            if chaincode is not None:
                changed.add(chaincode)
        facts = []
        for chaincode in sorted(changed):
            definition = self._definition(chaincode)
            self._sequences[chaincode] = _sequence(definition)
            facts.append(DefinitionFacts(chaincode, definition, _collections(definition)))
        return tuple(facts)

    def _definition(self, chaincode: str) -> ChaincodeDefinition | None:
        try:
            return read_definition(chaincode, self._read)
        except DecodeError:
            return None  # Peers cannot use what they cannot read either.

    def _read(self, name: str) -> bytes | None:
        if name in self._written:
            return self._written[name]
        key = LedgerKey(LIFECYCLE_NAMESPACE, "", name.encode("utf-8", "surrogateescape"))
        state = self._read_keys([key]).get(key)
        return None if state is None else state.value


def is_definition_write(write: EffectiveWrite) -> bool:
    """Whether a write changes public state of `_lifecycle`."""
    key = write.key
    return key.namespace == LIFECYCLE_NAMESPACE and not key.collection and write.effect is not Effect.NONE


def _sequence(definition: ChaincodeDefinition | None) -> int:
    return 0 if definition is None else definition.sequence


def _collections(definition: ChaincodeDefinition | None) -> tuple[CollectionConfig, ...]:
    if definition is None:
        return ()
    try:
        return definition.collection_configs()
    except DecodeError:
        return ()
