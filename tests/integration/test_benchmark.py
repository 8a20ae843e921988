"""The benchmark measures what it says: its chain has the shapes of the recorded week, and each measurement runs."""

import json
from collections import Counter
from pathlib import Path

import pytest

from network.protocol.decode import decode_block
from network.protocol.transaction import Transaction
from tests.benchmarks import sync
from tests.benchmarks.service_week_chain import CHAINCODE, WEEK, Parameters, blocks, cached_chain
from tests.support.recorded_chain import load_chain

ROUND = 505
"""Chaincode transactions of the recorded week."""

Shape = tuple[object, ...]


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


def test_one_round_has_the_shapes_of_the_recorded_week() -> None:
    recorded = shapes(load_chain(WEEK).blocks)
    assert recorded.total() == ROUND

    assert shapes(list(blocks(Parameters(ROUND, 100)))) == recorded


def test_rounds_differ_in_their_keys() -> None:
    made = [decode_block(content) for content in blocks(Parameters(2 * ROUND, ROUND))]

    first, second = (
        {write.key for t in block.transactions if t.action for ns in t.action.writes for write in ns.writes}
        for block in made[1:]
    )
    assert {key for key in first & second if key.startswith("\x00")} == set()


def test_a_chain_is_made_once(tmp_path: Path) -> None:
    path, is_new = cached_chain(Parameters(20, 10), tmp_path)
    content = path.read_bytes()

    assert is_new
    assert cached_chain(Parameters(20, 10), tmp_path) == (path, False)
    path.unlink()
    assert cached_chain(Parameters(20, 10), tmp_path)[0].read_bytes() == content
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.usefixtures("postgresql_server")
def test_every_measurement_runs_and_both_bounds_write_the_same_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    sync.main(["--transactions", "120", "--per-block", "50", "--repeat", "1", "--json"])

    result = json.loads(capsys.readouterr().out)
    assert set(result["measurements"]) == set(sync.TITLES)
    bounds = ("sqlite bulk", "postgresql rows", "postgresql copy")
    assert set(result["ratios"]) == {f"{bound.split()[0]} / {bound}" for bound in bounds}
    rows = [result["measurements"][bound]["rows_per_transaction"] for bound in bounds]
    assert rows[0] == rows[1] == rows[2] > 2
