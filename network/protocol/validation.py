"""The whole judgement of a block by a committing peer: one validation code for each transaction, and the new state.

Rules: `core/committer/txvalidator/v20/validator.go`, `core/committer/txvalidator/v20/plugindispatcher/dispatcher.go`,
`core/ledger/kvledger/txmgmt/validation/{validator,batch_preparer}.go`. Where a real peer would stop instead of giving
a code, a code is given here (see `judge_block`).
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from network.protocol.commit_hash import StateKey
from network.protocol.endorsement_policy import ChannelRules
from network.protocol.state import StateReader, StateUpdate


class BlockJudgement(NamedTuple):
    """What a block comes to.

    `flags`: one validation code per envelope, as slot 2 of the metadata holds them. `reasons`: for each envelope why it
    is not valid, empty for a valid one; names and ids, never values. `updates`: the last state of every key that valid
    transactions touched, the configuration's own key included (`state.CONFIG_KEY`). `rules`: those in force for the
    next block. `tx_ids`: the ids that count as used from now on, one per envelope ("" where none can be read).
    """

    flags: bytes
    reasons: tuple[str, ...]
    updates: Mapping[StateKey, StateUpdate]
    rules: ChannelRules
    tx_ids: tuple[str, ...]


def judge_block(number: int, envelopes: Sequence[bytes], rules: ChannelRules, state: StateReader) -> BlockJudgement:
    """Judge block `number` (not 0) under `rules`, which is in force before it, on `state` as it was before it.

    Pure: nothing is applied; the caller writes `updates`, then lets private keys expire.
    """
    raise NotImplementedError
