"""Tables against oracle: the one comparison that every test of the line ends with."""

from collections.abc import Sequence
from pathlib import Path

from tests.support.oracle import Ledger, read_ledger
from tests.support.oracle_tables import read_tables
from tests.support.tables import query, read_mapped, read_writes


def assert_tables_equal_oracle(url: str, blocks: Sequence[bytes], mapping: Path) -> Ledger:
    """Check that a database holds exactly blocks 0..N once: ledger layer, mapped layer, quarantine, checkpoint."""
    ledger = read_ledger(blocks)
    _check_chain(url, len(blocks))
    _check_transactions(url, ledger)
    _check_writes(url, ledger)
    expected = read_tables(ledger, mapping)
    found = read_mapped(url, mapping)
    for name, table in expected.items():
        assert found[name].current == table.current, name
        assert found[name].history == table.history, name
        assert found[name].quarantined == table.quarantined, name
    return ledger


def _check_chain(url: str, height: int) -> None:
    blocks = query(url, "SELECT block_number, header_hash, previous_hash FROM ledger_block ORDER BY block_number")
    assert [row[0] for row in blocks] == list(range(height))
    previous = b""
    for _, header_hash, previous_hash in blocks:
        assert bytes(previous_hash) == previous
        previous = bytes(header_hash)
    checkpoint = query(url, "SELECT block_number, header_hash FROM ledger_checkpoint")
    assert [(row[0], bytes(row[1])) for row in checkpoint] == ([(height - 1, previous)] if height else [])


def _check_transactions(url: str, ledger: Ledger) -> None:
    rows = query(
        url,
        "SELECT t.block_number, t.tx_number, t.tx_id, t.validation_code, i.msp_id, c.name, t.function,"
        " t.claimed_seconds, t.claimed_nanos FROM ledger_transaction t"
        " LEFT JOIN ledger_identity i ON i.identity_id = t.creator_id"
        " LEFT JOIN ledger_chaincode c ON c.chaincode_id = t.chaincode_id"
        " ORDER BY t.block_number, t.tx_number",
    )
    expected = [
        (
            entry.block,
            entry.tx,
            entry.tx_id,
            entry.code,
            entry.msp_id,
            entry.chaincode,
            None if entry.function is None else entry.function.decode(),
            entry.seconds,
            entry.nanos,
        )
        for entry in ledger.transactions
    ]
    assert rows == expected
    events = query(url, "SELECT block_number, tx_number, chaincode, name, payload FROM ledger_event ORDER BY 1, 2")
    assert [(*row[:4], bytes(row[4])) for row in events] == ledger.events
    assert [row[0] for row in query(url, "SELECT block_number FROM ledger_config ORDER BY 1")] == ledger.configs


def _check_writes(url: str, ledger: Ledger) -> None:
    expected = {
        (write.block, write.tx, write.number, write.key, write.kind, write.effect, write.written)
        for write in ledger.writes
    }
    assert len(expected) == len(ledger.writes)
    assert read_writes(url) == expected
