"""The whole judgement of a block by a committing peer: one validation code for each transaction, and the new state.

Rules: `core/committer/txvalidator/v20/validator.go`, `core/committer/txvalidator/v20/plugindispatcher/dispatcher.go`,
`core/ledger/kvledger/txmgmt/validation/{validator,batch_preparer}.go`, `core/peer/configtx_processor.go`.

First every transaction by itself and against the state before the block: form and creator (`envelope_check`), id new to
the ledger, definition and endorsement policy of every namespace written (`endorsement_policy`). Then ids within the
block. Then, in the block's order, what was read (`mvcc`); only valid transactions change what later ones see.

Where several namespaces fail, real peers visit them in random order; here the chaincode called comes first, then the
others in the order of the read-write set. Where the rules give no code, the nearest one is given here, and
`no_verdict` says so.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from network.protocol.commit_hash import StateKey
from network.protocol.config_update import next_configuration
from network.protocol.decode import decode_transaction
from network.protocol.endorsement_policy import ChannelRules, EndorsementCheck, NamespaceRules, channel_rules
from network.protocol.envelope_check import (
    ConfigTransaction,
    EndorsedAction,
    EndorserTransaction,
    Refusal,
    check_envelope,
    read_action,
)
from network.protocol.errors import ConfigUpdateError, ConfigurationError, DecodeError
from network.protocol.identity import Identity
from network.protocol.lifecycle import DEFAULT_VALIDATION_PLUGIN, read_definition
from network.protocol.mvcc import apply_writes, judge_reads
from network.protocol.no_verdict import NoVerdict, NoVerdictCheck, NoVerdictReason
from network.protocol.policy import verified_signatures
from network.protocol.private_data import LIFECYCLE_NAMESPACE
from network.protocol.read_write_set import NamespaceSet, Version
from network.protocol.state import CONFIG_KEY, BlockState, StateReader, StateUpdate
from network.protocol.transaction import HEADER_CONFIG
from network.protocol.validation_code import (
    DUPLICATE_TXID,
    ENDORSEMENT_POLICY_FAILURE,
    INVALID_CHAINCODE,
    INVALID_CONFIG_TRANSACTION,
    VALID,
    reason,
    validation_code_name,
)


class BlockJudgement(NamedTuple):
    """What a block comes to.

    `flags`: one validation code per envelope, as slot 2 of the metadata holds them. `reasons`: for each envelope why it
    is not valid, empty for a valid one; names and ids, never values. `updates`: the last state of every key that valid
    transactions touched, the configuration's own key included (`state.CONFIG_KEY`). `rules`: those in force for the
    next block. `tx_ids`: the ids that count as used from now on, one per envelope ("" where none can be read).
    `without_verdict`: what in the block Fabric's rules give no code for.
    """

    flags: bytes
    reasons: tuple[str, ...]
    updates: Mapping[StateKey, StateUpdate]
    rules: ChannelRules
    tx_ids: tuple[str, ...]
    without_verdict: tuple[NoVerdict, ...] = ()

    def hashed_updates(self) -> dict[StateKey, tuple[bytes | None, Version]]:
        """Give the updates as `commit_hash.commit_hash` takes them: value and version, no metadata."""
        return {key: (update.value, update.version) for key, update in self.updates.items()}


def judge_genesis(envelopes: Sequence[bytes]) -> BlockJudgement:
    """Take block 0 as it stands: it is trusted by whoever joins the channel with it, and judged by nobody.

    Raises ConfigurationError or DecodeError when it is no channel's first block or cannot be used.
    """
    if len(envelopes) != 1:
        raise ConfigurationError(f"genesis block: {len(envelopes)} envelopes instead of one")
    first = decode_transaction(0, envelopes[0])
    if first.header_type != HEADER_CONFIG or first.config is None or not first.channel_id:
        raise ConfigurationError("genesis block: no configuration of a channel")
    rules = channel_rules(first.channel_id, first.config)
    updates = {CONFIG_KEY: StateUpdate(first.config, Version(0, 0))}
    return BlockJudgement(bytes((VALID,)), ("",), updates, rules, (check_envelope(envelopes[0], rules).tx_id,))


def judge_block(number: int, envelopes: Sequence[bytes], rules: ChannelRules, state: StateReader) -> BlockJudgement:
    """Judge block `number` (not 0) under `rules`, which is in force before it, on `state` as it was before it.

    Pure: nothing is applied; the caller writes `updates`, then lets private keys expire.
    """
    return _BlockCase(number, rules, state).judge(envelopes)


class _BlockCase:
    """One block while it is judged."""

    def __init__(self, number: int, rules: ChannelRules, state: StateReader) -> None:
        self._number = number
        self._rules = rules
        self._next_rules = rules
        self._committed = state
        self._state = BlockState(state)
        self._endorsement = EndorsementCheck(rules, self._state)
        self._namespaces: dict[str, NamespaceRules | None] = {}
        self._unusable: dict[str, NoVerdictReason] = {}
        self._without_verdict = NoVerdictCheck(self._has_collection)

    def judge(self, envelopes: Sequence[bytes]) -> BlockJudgement:
        tx_ids: list[str] = []
        verdicts: list[ConfigTransaction | EndorsedAction | Refusal] = []
        seen: set[str] = set()
        for tx_number, envelope in enumerate(envelopes):
            check = check_envelope(envelope, self._rules)
            verdict = self._judge_alone(tx_number, envelope, check.content)
            if isinstance(verdict, EndorsedAction):
                # Of several the first that is valid so far stays so, even if its reads do not hold in the end.
                if check.tx_id in seen:
                    verdict = Refusal(DUPLICATE_TXID, "a transaction with this id stands before it in the block")
                seen.add(check.tx_id)
            tx_ids.append(check.tx_id)
            verdicts.append(verdict)
        refusals = [self._apply(tx_number, verdict) for tx_number, verdict in enumerate(verdicts)]
        return BlockJudgement(
            bytes([VALID if refusal is None else refusal.code for refusal in refusals]),
            tuple(["" if refusal is None else refusal.reason for refusal in refusals]),
            self._state.updates,
            self._next_rules,
            tuple(tx_ids),
            self._without_verdict.reasons,
        )

    def _judge_alone(
        self, tx_number: int, envelope: bytes, content: EndorserTransaction | ConfigTransaction | Refusal
    ) -> EndorsedAction | ConfigTransaction | Refusal:
        """Judge a transaction by what was there before the block, and by its endorsers."""
        if isinstance(content, ConfigTransaction):
            verdict = self._judge_configuration(content)
            if isinstance(verdict, Refusal):
                self._without_verdict.add(tx_number, NoVerdictReason.CONFIGURATION)
            return verdict
        action = self._read_action(content)
        if isinstance(action, Refusal):
            self._without_verdict.refused(tx_number, envelope, action.code)
            return action
        return self._judge_endorsements(tx_number, action) or action

    def _read_action(self, content: EndorserTransaction | Refusal) -> EndorsedAction | Refusal:
        if isinstance(content, Refusal):
            return content
        if self._committed.has_transaction(content.tx_id):
            return Refusal(DUPLICATE_TXID, "a transaction with this id is on the ledger")
        return read_action(content)

    def _judge_configuration(self, transaction: ConfigTransaction) -> ConfigTransaction | Refusal:
        """Take a configuration into force, when its update is authorised by the one in force until now."""
        channel_id = self._rules.channel_id
        try:
            configuration = next_configuration(transaction.config, channel_id, self._next_rules.trust)
            self._next_rules = ChannelRules(channel_id, configuration)
        except (ConfigurationError, ConfigUpdateError, DecodeError) as error:
            return Refusal(INVALID_CONFIG_TRANSACTION, str(error))
        return transaction

    def _judge_endorsements(self, tx_number: int, action: EndorsedAction) -> Refusal | None:
        identities: tuple[Identity, ...] | None = None
        judged: list[str] = []
        refusal = None
        for name, entry in _written_namespaces(action):
            namespace = self._namespace(name)
            if namespace is None:
                refusal = Refusal(INVALID_CHAINCODE, "a chaincode that is not committed on the channel")
                if name in self._unusable:
                    self._without_verdict.add(tx_number, self._unusable[name])
                break
            if identities is None:
                verified = verified_signatures(action.endorsements, self._rules.msps)
                identities = tuple([signature.identity for signature in verified])
            judged.append(name)
            defect = self._endorsement.defect(namespace, entry, identities)
            if defect is not None:
                refusal = Refusal(ENDORSEMENT_POLICY_FAILURE, defect.reason)
                if defect.has_no_verdict:
                    self._without_verdict.add(tx_number, NoVerdictReason.KEY_POLICY)
                break
        self._without_verdict.judged(tx_number, action.read_write_set, frozenset(judged))
        return refusal

    def _has_collection(self, namespace: str, collection: str) -> bool:
        """Tell whether a collection is defined before the block; in a namespace without definition none is."""
        rules = self._namespace(namespace)
        if rules is None:
            return False
        try:
            rules.collection_policy(collection)
        except (ConfigurationError, DecodeError):
            return False
        return True

    def _namespace(self, name: str) -> NamespaceRules | None:
        """Give the rules of a namespace, by its definition before the block; None: no chaincode can write there."""
        if name not in self._namespaces:
            self._namespaces[name] = self._read_namespace(name)
        return self._namespaces[name]

    def _read_namespace(self, name: str) -> NamespaceRules | None:
        definition = None
        if name != LIFECYCLE_NAMESPACE:
            try:
                definition = read_definition(name, self._read_lifecycle)
            except DecodeError:
                self._unusable[name] = NoVerdictReason.DEFINITION
                return None
        rules = NamespaceRules(name, definition, self._rules)
        if definition is not None and definition.validation_plugin != DEFAULT_VALIDATION_PLUGIN:
            self._unusable[name] = NoVerdictReason.PLUGIN
        return None if rules.policy is None else rules

    def _read_lifecycle(self, key: str) -> bytes | None:
        found = self._state.committed((LIFECYCLE_NAMESPACE, "", key.encode()))
        return None if found is None else found.value

    def _apply(self, tx_number: int, verdict: EndorsedAction | ConfigTransaction | Refusal) -> Refusal | None:
        """Judge the reads of a transaction that is valid so far, and lay its writes over the state."""
        if isinstance(verdict, Refusal):
            return verdict
        version = Version(self._number, tx_number)
        if isinstance(verdict, ConfigTransaction):
            self._state.update(CONFIG_KEY, StateUpdate(verdict.config, version))
            return None
        code = judge_reads(verdict.read_write_set, self._state)
        if code != VALID:
            return Refusal(code, reason(validation_code_name(code)))
        if apply_writes(verdict.read_write_set, version, self._state):
            self._without_verdict.add(tx_number, NoVerdictReason.METADATA_OF_DELETED)
        return None


def _written_namespaces(action: EndorsedAction) -> Iterator[tuple[str, NamespaceSet | None]]:
    """Give the chaincode called, whether it wrote or not, then every other namespace that is written."""
    called = next((entry for entry in action.read_write_set if entry.namespace == action.chaincode), None)
    yield action.chaincode, called
    for entry in action.read_write_set:
        if entry.namespace != action.chaincode and _writes(entry):
            yield entry.namespace, entry


def _writes(entry: NamespaceSet) -> bool:
    if entry.writes or entry.metadata_writes:
        return True
    return any(part.writes or part.metadata_writes for part in entry.collections)
