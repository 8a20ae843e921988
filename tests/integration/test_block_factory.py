"""Long chains for benchmarks: in the shapes of the recorded week, signed by whom they name, judged as they say."""

from collections import Counter
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from fabric_protos.common import common_pb2
from fabric_protos.peer import transaction_pb2

from kvr_sync.jobs import SyncSettings, sync_once
from network.protocol.decode import decode_block
from network.protocol.transaction import Transaction
from network.protocol.validation import BlockJudgement, judge_block, judge_genesis
from network.protocol.validation_code import (
    BAD_CREATOR_SIGNATURE,
    ENDORSEMENT_POLICY_FAILURE,
    MVCC_READ_CONFLICT,
    VALID,
)
from tests.benchmarks import block_factory
from tests.benchmarks.block_factory import blocks, cached_chain
from tests.benchmarks.service_week import CHAINCODE, WEEK, transaction
from tests.benchmarks.signed_week import FIRST_BLOCK, SEED, MadeBlock, Parameters, make_block
from tests.support.chain_factory import ChainFactory
from tests.support.memory_state import MemoryState
from tests.support.recorded_chain import load_chain, write_records

ROUND = 505
"""Chaincode transactions of the recorded week."""
BUSY = Parameters(800, 20)
"""Forty full blocks, of twenty rounds side by side."""

Shape = tuple[object, ...]


@pytest.fixture(scope="module")
def busy() -> list[bytes]:
    return list(blocks(BUSY))


def shape(transaction: Transaction, code: int) -> Shape:
    action = transaction.action
    assert action is not None
    writes = [entry for entry in action.writes if entry.namespace == CHAINCODE]
    return (
        action.function,
        code,
        [(len(entry.writes), [w.is_delete for w in entry.writes], len(entry.collections)) for entry in writes],
        [(w.is_delete, w.is_purge) for entry in writes for part in entry.collections for w in part.writes],
        len(action.endorsements),
        action.event and action.event.name,
    )


def shapes(contents: tuple[bytes, ...] | list[bytes]) -> Counter[str]:
    return Counter(
        repr(shape(transaction, block.flags[transaction.tx_number]))
        for block in map(decode_block, contents)
        for transaction in block.transactions
        if transaction.action and transaction.action.chaincode and transaction.action.chaincode.name == CHAINCODE
    )


def judged(contents: list[bytes], state: MemoryState) -> list[BlockJudgement]:
    """Judge a chain anew, without its verdicts."""
    judgements = [judge_genesis(decode_block(contents[0]).envelopes)]
    state.apply(judgements[0])
    for number, content in enumerate(contents[1:], start=1):
        judgements.append(judge_block(number, decode_block(content).envelopes, judgements[-1].rules, state))
        state.apply(judgements[-1])
    return judgements


def test_one_round_has_the_shapes_of_the_recorded_week() -> None:
    recorded = shapes(load_chain(WEEK).blocks)
    assert recorded.total() == ROUND

    assert shapes(list(blocks(Parameters(ROUND, 1)))) == recorded


def test_rounds_differ_in_their_keys() -> None:
    first, second = (
        {write.key for block in range(ROUND) for write in transaction(block, lane, 2, FIRST_BLOCK).writes}
        for lane in (0, 1)
    )

    assert {key for key in first & second if key.startswith("\x00")} == set()
    assert len(first) > 100


def test_verdicts_and_commit_hashes_are_those_of_a_peer(busy: list[bytes]) -> None:
    found = [decode_block(content) for content in busy]
    state = MemoryState()

    for block, judgement in zip(found, judged(busy, state), strict=True):
        assert block.flags == judgement.flags
        assert judgement.without_verdict == ()
    assert state.commit_hash == found[-1].commit_hash
    codes = Counter(code for block in found[FIRST_BLOCK:] for code in block.flags)
    assert set(codes) == {VALID, MVCC_READ_CONFLICT, ENDORSEMENT_POLICY_FAILURE}
    assert codes[VALID] > 750


def test_the_line_takes_it_whole_and_verifies_every_commit_hash(busy: list[bytes], tmp_path: Path) -> None:
    source = write_records(tmp_path / "blocks", busy)

    summary = sync_once(
        SyncSettings(source, f"sqlite:///{tmp_path / 'copy.sqlite'}", pin=sha256(busy[0]).digest(), workers=0)
    )

    assert summary.checkpoint.block_number == len(busy) - 1
    assert summary.commit_hashes_verified == len(busy) - 1
    assert sum(summary.codes.values()) == BUSY.transactions + FIRST_BLOCK + 1


def spoil(content: bytes, change: Callable[[Any, Any], None]) -> bytes:
    """Change an envelope or its endorsements; its client signs whatever comes of that."""
    envelope = common_pb2.Envelope.FromString(content)
    payload = common_pb2.Payload.FromString(envelope.payload)
    transaction = transaction_pb2.Transaction.FromString(payload.data)
    action = transaction_pb2.ChaincodeActionPayload.FromString(transaction.actions[0].payload)
    creator = common_pb2.SignatureHeader.FromString(payload.header.signature_header).creator
    clients = [organisation.client for organisation in ChainFactory(seed=SEED).organisations]
    change(envelope, action.action.endorsements)
    transaction.actions[0].payload = action.SerializeToString()
    payload.data = transaction.SerializeToString()
    if payload.SerializeToString() != envelope.payload:
        envelope.payload = payload.SerializeToString()
        envelope.signature = next(client for client in clients if client.identity == creator).sign(envelope.payload)
    return bytes(envelope.SerializeToString())


def of_another_client(envelope: Any, endorsements: Any) -> None:
    del endorsements
    envelope.signature = envelope.signature[:-1] + bytes([envelope.signature[-1] ^ 1])


def of_another_peer(envelope: Any, endorsements: Any) -> None:
    del envelope
    endorsements[1].signature = endorsements[0].signature


@pytest.mark.parametrize(
    ("change", "code"),
    [(of_another_client, BAD_CREATOR_SIGNATURE), (of_another_peer, ENDORSEMENT_POLICY_FAILURE)],
    ids=["client", "peer"],
)
def test_every_signature_counts(busy: list[bytes], change: Callable[[Any, Any], None], code: int) -> None:
    state = MemoryState()
    rules = judged(busy[:FIRST_BLOCK], state)[-1].rules
    envelopes = decode_block(busy[FIRST_BLOCK]).envelopes

    honest = judge_block(FIRST_BLOCK, envelopes, rules, state)
    spoilt = judge_block(FIRST_BLOCK, [spoil(envelopes[0], change), *envelopes[1:]], rules, state)

    assert honest.flags[0] == VALID
    assert spoilt.flags[0] == code
    assert spoilt.flags[1:] == honest.flags[1:]


def test_a_transaction_that_gets_another_verdict_than_it_was_made_for_stops_the_factory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def mistaken(parameters: Parameters, number: int) -> MadeBlock:
        return make_block(parameters, number)._replace(flags=bytes([MVCC_READ_CONFLICT] * parameters.per_block))

    monkeypatch.setattr(block_factory, "make_block", mistaken)

    with pytest.raises(ValueError, match="block 3, transaction 0: made to get code 11, judged as 0"):
        list(blocks(Parameters(4, 2)))


def test_processes_make_the_same_bytes(busy: list[bytes]) -> None:
    assert list(blocks(BUSY, workers=2)) == busy


def test_a_chain_is_made_once(tmp_path: Path) -> None:
    seen: list[int] = []
    path, is_new = cached_chain(Parameters(25, 10), tmp_path, on_progress=seen.append)
    content = path.read_bytes()

    assert is_new
    assert seen == [10, 20, 25]
    assert cached_chain(Parameters(25, 10), tmp_path) == (path, False)
    path.unlink()
    assert cached_chain(Parameters(25, 10), tmp_path)[0].read_bytes() == content
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_a_chain_that_was_not_finished_leaves_nothing(tmp_path: Path) -> None:
    def stop(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached_chain(Parameters(25, 10), tmp_path, on_progress=stop)

    assert list(tmp_path.iterdir()) == []


def test_the_command_makes_a_chain_and_says_how_fast(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    arguments = ["--transactions", "30", "--per-block", "10", "--workers", "2"]

    block_factory.main(arguments)
    first = capsys.readouterr().out
    block_factory.main(arguments)

    assert "30 transactions in " in first
    assert "/s" in first
    again = capsys.readouterr().out
    assert "-30-by-10.zst" in again
    assert " in " not in again
