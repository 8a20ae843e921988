"""The whole line, from a file of recorded blocks to tables, on both databases, against the oracle."""

from pathlib import Path

import pytest

from kvr_sync import errors
from kvr_sync.jobs import SyncSettings, sync_once
from tests.support.comparison import assert_tables_equal_oracle
from tests.support.recorded_chain import ALL_CHAINS, RecordedChain, load_chain, write_records
from tests.support.tables import query

ROOT = Path(__file__).parents[2]
SERVICE_WEEK = ROOT / "network" / "demo_data" / "service-week.mapping.yaml"
OUTCOMES = ROOT / "tests" / "support" / "outcomes.mapping.yaml"


def mapping_of(chain: RecordedChain) -> Path:
    return SERVICE_WEEK if chain.name.endswith("week") else OUTCOMES


@pytest.fixture(params=ALL_CHAINS)
def chain(request: pytest.FixtureRequest) -> RecordedChain:
    return load_chain(request.param)


def test_a_recorded_chain_becomes_the_tables_that_the_oracle_expects(chain: RecordedChain, database_url: str) -> None:
    settings = SyncSettings(
        chain.path, database_url, mapping_of(chain), bytes.fromhex(chain.expected["genesis_sha256"])
    )

    summary = sync_once(settings)

    assert_tables_equal_oracle(database_url, chain.blocks, mapping_of(chain))
    assert dict(summary.codes) == chain.expected["codes"] | {
        code: sum(entry["code"] == code for entry in chain.expected["transactions"]) for code in summary.codes
    }
    assert summary.blocks == chain.expected["height"]
    assert summary.transactions == len(chain.expected["transactions"])
    assert summary.commit_hashes_verified == chain.expected["height"] - 1
    assert summary.anchor == "pinned"


def test_a_second_run_changes_nothing(chain: RecordedChain, database_url: str) -> None:
    settings = SyncSettings(chain.path, database_url, mapping_of(chain))
    sync_once(settings)

    summary = sync_once(settings)

    assert (summary.blocks, summary.transactions, summary.anchor) == (0, 0, "unpinned")
    assert_tables_equal_oracle(database_url, chain.blocks, mapping_of(chain))


@pytest.mark.parametrize("cuts", [(1, 6, 30), (7, 8, 9, 26, 65, 66)])
def test_a_chain_that_comes_in_parts_gives_the_same_tables(
    cuts: tuple[int, ...], database_url: str, tmp_path: Path
) -> None:
    chain = load_chain("fabric-3.1.5-raft")
    for cut in (*cuts, len(chain.blocks)):
        part = write_records(tmp_path / "blocks", chain.blocks[:cut])
        sync_once(SyncSettings(part, database_url, OUTCOMES))

        assert_tables_equal_oracle(database_url, chain.blocks[:cut], OUTCOMES)


def test_exported_block_files_in_a_folder_give_the_same_tables(database_url: str, tmp_path: Path) -> None:
    chain = load_chain("fabric-3.1.5-bft")
    for number, content in enumerate(chain.blocks):
        (tmp_path / f"consortium_{number}.block").write_bytes(content)

    sync_once(SyncSettings(tmp_path, database_url, OUTCOMES))

    assert_tables_equal_oracle(database_url, chain.blocks, OUTCOMES)


def test_a_later_run_takes_the_mapping_that_the_tables_were_made_with(database_url: str, tmp_path: Path) -> None:
    chain = load_chain("fabric-3.1.5-service-week")
    sync_once(SyncSettings(write_records(tmp_path / "blocks", chain.blocks[:100]), database_url, SERVICE_WEEK))

    sync_once(SyncSettings(chain.path, database_url))

    assert_tables_equal_oracle(database_url, chain.blocks, SERVICE_WEEK)


def test_writes_of_refused_transactions_are_kept_apart_and_never_applied(database_url: str) -> None:
    chain = load_chain("fabric-3.1.5-service-week")

    sync_once(SyncSettings(chain.path, database_url, SERVICE_WEEK))

    refused = {
        (row[0], row[1]) for row in query(database_url, "SELECT block_number, tx_number FROM ledger_refused_write")
    }
    invalid = {(entry["block"], entry["tx"]) for entry in chain.expected["transactions"] if entry["code"] != "VALID"}
    applied = {
        (row[0], row[1]) for row in query(database_url, "SELECT block_number, tx_number FROM ledger_key_history")
    }
    assert refused == invalid
    assert not refused & applied


def test_a_bad_block_stops_the_channel_and_the_good_ones_before_it_stay(database_url: str, tmp_path: Path) -> None:
    chain = load_chain("fabric-3.1.5-raft")
    spoiled = bytearray(chain.blocks[40])
    spoiled[len(spoiled) // 2] ^= 1
    source = write_records(tmp_path / "blocks", [*chain.blocks[:40], bytes(spoiled), *chain.blocks[41:]])

    with pytest.raises(errors.VerificationError) as refused:
        sync_once(SyncSettings(source, database_url, OUTCOMES))

    assert refused.value.block_number == 40
    assert_tables_equal_oracle(database_url, chain.blocks[:40], OUTCOMES)
    sync_once(SyncSettings(chain.path, database_url, OUTCOMES))
    assert_tables_equal_oracle(database_url, chain.blocks, OUTCOMES)


def test_the_pin_may_be_given_later(database_url: str) -> None:
    chain = load_chain("fabric-3.1.5-bft")
    pin = bytes.fromhex(chain.expected["genesis_sha256"])
    sync_once(SyncSettings(chain.path, database_url, OUTCOMES))

    summary = sync_once(SyncSettings(chain.path, database_url, OUTCOMES, pin))

    assert summary.anchor == "pinned"


def test_another_pin_is_refused_before_anything_is_written(database_url: str) -> None:
    chain = load_chain("fabric-3.1.5-bft")

    with pytest.raises(errors.ConfigurationError, match="not the pinned one"):
        sync_once(SyncSettings(chain.path, database_url, OUTCOMES, bytes(32)))

    assert_tables_equal_oracle(database_url, [], OUTCOMES)


def test_another_pin_is_refused_on_a_filled_database(database_url: str) -> None:
    chain = load_chain("fabric-3.1.5-bft")
    sync_once(SyncSettings(chain.path, database_url, OUTCOMES))

    with pytest.raises(errors.ConfigurationError, match="pinned"):
        sync_once(SyncSettings(chain.path, database_url, OUTCOMES, bytes(32)))


def test_another_chain_of_the_same_channel_is_refused(database_url: str) -> None:
    sync_once(SyncSettings(load_chain("fabric-3.1.5-bft").path, database_url, OUTCOMES))

    with pytest.raises(errors.PreviousHashError, match="another chain"):
        sync_once(SyncSettings(load_chain("fabric-3.1.5-raft").path, database_url, OUTCOMES))


def test_a_source_that_ends_below_the_checkpoint_is_told_from_a_fork(database_url: str, tmp_path: Path) -> None:
    chain = load_chain("fabric-3.1.5-raft")
    sync_once(SyncSettings(chain.path, database_url, OUTCOMES))

    with pytest.raises(errors.SourceBehindError):
        sync_once(SyncSettings(write_records(tmp_path / "blocks", chain.blocks[:20]), database_url, OUTCOMES))


def test_a_source_that_begins_above_the_checkpoint_is_refused(database_url: str, tmp_path: Path) -> None:
    chain = load_chain("fabric-3.1.5-raft")
    sync_once(SyncSettings(write_records(tmp_path / "low", chain.blocks[:20]), database_url, OUTCOMES))

    with pytest.raises(errors.BlocksNotHeldError, match="begins at block 22, block 20 is needed"):
        sync_once(SyncSettings(write_records(tmp_path / "high", chain.blocks[22:]), database_url, OUTCOMES))


def test_a_single_exported_block_extends_the_chain(database_url: str, tmp_path: Path) -> None:
    chain = load_chain("fabric-3.1.5-raft")
    sync_once(SyncSettings(write_records(tmp_path / "low", chain.blocks[:20]), database_url, OUTCOMES))
    single = tmp_path / "20.block"
    single.write_bytes(chain.blocks[20])

    sync_once(SyncSettings(single, database_url, OUTCOMES))

    assert_tables_equal_oracle(database_url, chain.blocks[:21], OUTCOMES)
