"""Tables against oracle: the one comparison that every test of the line ends with."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.support.oracle import Ledger, read_ledger
from tests.support.oracle_tables import ExpectedTable, expected_tables
from tests.support.tables import one_session, query, read_as_of, read_mapped, read_validity, read_writes, sql_name


def assert_tables_equal_oracle(url: str, blocks: Sequence[bytes], mapping: Path) -> Ledger:
    """Check that a database holds exactly blocks 0..N once: ledger layer, mapped layer, quarantine, checkpoint."""
    ledger = read_ledger(blocks)
    check_tables(url, ledger, len(blocks), yaml.safe_load(mapping.read_text()))
    return ledger


def check_tables(url: str, ledger: Ledger, height: int, definition: dict[str, Any], *, api_version: int = 1) -> None:
    """Do the same for blocks and mapping that were read; `api_version`: that its tables are of."""
    with one_session(url, api_version=api_version):
        _check_tables(url, ledger, height, definition, api_version)


def _check_tables(url: str, ledger: Ledger, height: int, definition: dict[str, Any], api_version: int) -> None:
    _check_chain(url, height)
    _check_transactions(url, ledger)
    _check_writes(url, ledger)
    _check_definitions(url, ledger)
    expected = expected_tables(ledger, definition)
    found = read_mapped(url, definition, api_version)
    assert found.keys() == expected.keys()
    for name, table in expected.items():
        assert found[name].current == table.current, name
        assert found[name].history == table.history, name
        assert found[name].quarantined == table.quarantined, name
        assert found[name].names == {key: table.names[key] for key, _ in table.history}, name
        for child, rows in table.children.items():
            assert found[name].children[child].current == rows.current, child
            assert found[name].children[child].history == rows.history, child
        assert read_validity(url, sql_name(url, name, api_version)) == table.validity(), name
        if height and not url.startswith("sqlite"):
            for block in sorted({0, height // 3, height // 2, height - 1}):
                _check_as_of(url, definition, name, table, block)


def _check_as_of(url: str, definition: dict[str, Any], name: str, table: ExpectedTable, block: int) -> None:
    rows, children = read_as_of(url, definition, name, block)
    expected = table.as_of(block)
    assert rows == expected, (name, block)
    versions = {(key, version[2][:3]) for key, version in expected.items()}
    for child, expected_child in table.children.items():
        history = expected_child.history.items()
        assert children[child] == {
            (key, place): row for (key, position, place), row in history if (key, position) in versions
        }, (child, block)


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
        " t.claimed_seconds, t.claimed_nanos, t.endorser_set_id FROM ledger_transaction t"
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
            entry.endorsers,
        )
        for entry in ledger.transactions
    ]
    endorsers: dict[int | None, list[bytes]] = {None: []}
    for number, content in query(
        url,
        "SELECT e.endorser_set_id, i.content FROM ledger_endorser e JOIN ledger_identity i USING (identity_id)"
        " ORDER BY e.endorser_set_id, e.position",
    ):
        endorsers.setdefault(number, []).append(bytes(content))
    assert [(*row[:9], tuple(endorsers[row[9]])) for row in rows] == expected
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
    entries = query(
        url,
        "SELECT m.block_number, m.tx_number, m.write_number, k.namespace, k.collection, k.key, m.name, m.value"
        " FROM ledger_key_metadata m JOIN ledger_key k USING (key_id)"
        " ORDER BY m.block_number, m.tx_number, m.write_number, m.position",
    )
    assert [(*row[:5], bytes(row[5]), row[6], bytes(row[7])) for row in entries] == [
        (write.block, write.tx, write.number, *write.key, name, value)
        for write in ledger.writes
        for name, value in write.entries
    ]


def _check_definitions(url: str, ledger: Ledger) -> None:
    rows = query(
        url,
        "SELECT chaincode, block_number, sequence, version, init_required, endorsement_plugin, validation_plugin,"
        " validation_parameter FROM ledger_chaincode_definition ORDER BY block_number, chaincode",
    )
    collections: dict[tuple[str, int], list[tuple[Any, ...]]] = {}
    for chaincode, block, *terms in query(
        url,
        "SELECT chaincode, block_number, collection, member_policy, required_peer_count, maximum_peer_count,"
        " block_to_live, member_only_read, member_only_write, endorsement_policy FROM ledger_collection_definition",
    ):
        collections.setdefault((chaincode, block), []).append(tuple(map(_plain, terms)))
    found = {
        (row[0], row[1]): None
        if row[2] is None
        else (*map(_plain, row[2:]), frozenset(collections.pop((row[0], row[1]), ())))
        for row in rows
    }
    assert not collections
    assert found == {
        place: None if definition is None else (*definition[:-1], frozenset(definition[-1]))
        for place, definition in ledger.definitions.items()
    }


def _plain(value: Any) -> Any:
    return bytes(value) if isinstance(value, memoryview) else value
