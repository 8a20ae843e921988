"""Tables brought back to an earlier block: equal to those of a replay that stopped there, and gone on from.

Readers of the change feed, engines that are at work and an archive that is ahead go on with it.
"""

import json
import random
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
import yaml
from click.testing import Result
from sqlalchemy import make_url
from typer.testing import CliRunner

from kvr_sync import errors
from kvr_sync.doctor import examine
from kvr_sync.engine import Engine, RunLimits
from kvr_sync.follower import SyncFollower
from kvr_sync.jobs import SyncSettings, sync_once
from kvr_sync.main import audit, sync
from kvr_sync.mapping.mapping_file import read_mapping_file
from kvr_sync.mapping_change import apply_mapping
from kvr_sync.model import RawBlock
from kvr_sync.rewinding import Rewound, rewind_sink, rewind_tables
from kvr_sync.source.block_file import open_block_file
from kvr_sync.store.opening import open_store
from kvr_sync.store.operation_log import Operation
from kvr_sync.store.postgresql_sink import NOTIFY_CHANNEL
from kvr_sync.store.sink import AFTER_COMMIT, BEFORE_COMMIT
from kvr_sync.table_operations import release_quarantine
from tests.support.archived import archived_contents
from tests.support.chain_factory import delete, put
from tests.support.comparison import assert_tables_equal_oracle
from tests.support.database_fault import Faults, Mode, faulty_sink
from tests.support.evidence import wait_until
from tests.support.in_thread import in_thread
from tests.support.invariants import as_replayed, assert_as_replayed, read_content
from tests.support.killed_rewind import LEDGER_LAYER_TAKEN_OUT, MAPPED_LAYER_MADE
from tests.support.mapped_layer import CHANNEL, FeedReader, nobody_writes
from tests.support.recorded_chain import ALL_CHAINS, load_chain, write_records
from tests.support.recorded_peer import peer_settings, recorded_peer
from tests.support.small_chain import MAPPING, small_chain
from tests.support.tables import applied, query

ROOT = Path(__file__).parents[2]
SERVICE_WEEK = ROOT / "network" / "demo_data" / "service-week.mapping.yaml"
OUTCOMES = ROOT / "tests" / "support" / "outcomes.mapping.yaml"
KILLED_REWIND = ROOT / "tests" / "support" / "killed_rewind.py"
ASKED = Operation("rewind", "a test")
CHAIN = small_chain()
LAST = len(CHAIN) - 1


@pytest.fixture
def mapping(tmp_path: Path) -> Path:
    path = tmp_path / "small.mapping.yaml"
    path.write_text(MAPPING)
    return path


@pytest.fixture
def synced(database_url: str, mapping: Path, tmp_path: Path) -> str:
    replay(database_url, CHAIN, mapping, tmp_path)
    return database_url


def replay(url: str, blocks: Sequence[bytes], mapping: Path | None, folder: Path) -> None:
    sync_once(SyncSettings(write_records(folder / "blocks", tuple(blocks)), url, mapping, workers=0))


def rewind(url: str, block_number: int) -> Rewound:
    return rewind_tables(url, CHANNEL, block_number, ASKED)


@pytest.mark.parametrize("name", ["small", *ALL_CHAINS])
def test_any_block_is_come_back_to_and_gone_on_from(
    name: str, database_url: str, mapping: Path, tmp_path: Path
) -> None:
    blocks = CHAIN
    if name != "small":
        blocks = load_chain(name).blocks
        mapping = SERVICE_WEEK if name.endswith("week") else OUTCOMES
    last = len(blocks) - 1
    seed = random.randrange(2**32)  # noqa: S311  which blocks, no secret
    chosen = range(last) if name == "small" else sorted(random.Random(seed).sample(range(last), 1))  # noqa: S311  as above
    replayed = {}
    for number in (*chosen, last):
        replay(database_url, blocks[: number + 1], mapping, tmp_path)
        replayed[number] = as_replayed(database_url)
    definition = yaml.safe_load(mapping.read_text())
    readers = [FeedReader(database_url, table).read() for table in definition["tables"]]

    for number in reversed(chosen):
        done = rewind(database_url, number)

        assert (done.before_block, done.block_number, done.blocks) == (last, number, last - number), f"seed {seed}"
        assert_as_replayed(database_url, replayed[number])
        assert_tables_equal_oracle(database_url, blocks[: number + 1], mapping)
        for reader in readers[::2]:
            assert reader.read().rows == reader.table(), f"seed {seed}"
        replay(database_url, blocks, None, tmp_path)
        assert_as_replayed(database_url, replayed[last])
    assert_tables_equal_oracle(database_url, blocks, mapping)
    for reader in readers:
        assert reader.read().rows == reader.table(), f"seed {seed}"
    assert {finding.verdict for finding in examine(database_url, CHANNEL)} <= {"ok", "warn"}


def test_a_step_back_at_a_time_ends_at_the_first_block(synced: str, mapping: Path) -> None:
    reader = FeedReader(synced, "request")
    for number in range(LAST - 1, -1, -1):
        rewind(synced, number)

        assert_tables_equal_oracle(synced, CHAIN[: number + 1], mapping)
        assert reader.read().rows == reader.table()
    assert reader.rows == {}


def test_readers_of_the_feed_are_told_of_what_went_what_came_back_and_what_changed(synced: str) -> None:
    reader = FeedReader(synced, "request").read()
    before = query(synced, "SELECT external_id, kvr_change_id FROM request ORDER BY external_id")

    done = rewind(synced, 2)

    reader.read()
    kinds = query(
        synced,
        "SELECT kvr_change, key FROM request_changes JOIN ledger_key ON key_id = kvr_key_id"
        " WHERE kvr_change_id > ? ORDER BY key",
        [max(number for _, number in before)],
    )
    assert [(kind, bytes(key)) for kind, key in kinds] == [
        ("update", b"r1"),
        ("insert", b"r2"),
        ("delete", b"r3"),
        ("delete", b"r5"),
    ]
    assert {one.table: one.changes for one in done.tables} == {"request": 4, "note": 0}
    assert reader.rows == reader.table()


def test_entries_of_the_quarantine_go_and_are_open_again(synced: str) -> None:
    entries = "SELECT block_number, closed_block, closed_by FROM ledger_quarantine ORDER BY 1"
    assert query(synced, entries) == [(2, 5, "overwritten"), (4, None, None)]

    rewind(synced, 3)

    assert query(synced, entries) == [(2, None, None)]


def test_what_was_released_stays_released(synced: str, tmp_path: Path) -> None:
    looser = tmp_path / "looser.mapping.yaml"
    looser.write_text(MAPPING.replace("[open, closed]", "[open, closed, never, odd]"))
    apply_mapping(synced, CHANNEL, read_mapping_file(looser), ASKED)
    release_quarantine(synced, CHANNEL, None, None, ASKED)

    rewind(synced, 3)

    assert query(synced, "SELECT block_number, closed_block, closed_by FROM ledger_quarantine") == [(2, 3, "released")]
    assert query(synced, "SELECT external_id FROM request WHERE status = 'never'") == [("r3",)]
    replay(synced, CHAIN, None, tmp_path)
    assert query(synced, "SELECT external_id FROM request WHERE status = 'odd'") == [("r4",)]


def test_another_chain_from_the_same_block_on_is_taken_after_a_rewind(
    synced: str, mapping: Path, tmp_path: Path
) -> None:
    shared = 4
    other = small_chain(
        (put("r5", b'{"status":"closed"}'), delete("n1")),
        (put("r6", b'{"status":"open","tags":["q"]}'), put("r3", b'{"status":"closed"}')),
        (put("r5", b'{"status":"open"}'),),
        shared=shared - 1,
    )
    assert (other[:shared], other[shared] == CHAIN[shared]) == (CHAIN[:shared], False)
    readers = [FeedReader(synced, name).read() for name in ("request", "note")]
    with pytest.raises(errors.VerificationError):
        replay(synced, other, None, tmp_path)

    rewind(synced, shared - 1)
    replay(synced, other, None, tmp_path)

    assert_tables_equal_oracle(synced, other, mapping)
    for reader in readers:
        assert reader.read().rows == reader.table()


def test_without_a_mapping_there_is_the_ledger_layer_to_bring_back(database_url: str, tmp_path: Path) -> None:
    replay(database_url, CHAIN[:3], None, tmp_path)
    replayed = as_replayed(database_url)
    replay(database_url, CHAIN, None, tmp_path)

    assert rewind(database_url, 2).tables == []

    assert_as_replayed(database_url, replayed)


# --- what is refused, and what needs nothing


def test_a_block_that_is_not_applied_is_refused_by_name(synced: str) -> None:
    before = read_content(synced)

    for number in (LAST + 1, -1):
        with pytest.raises(
            errors.ConfigurationError,
            match=f"consortium holds {LAST + 1} blocks, from 0 on: block {number} is none of them",
        ):
            rewind(synced, number)

    assert read_content(synced) == before


def test_tables_without_a_block_are_refused(database_url: str, mapping: Path) -> None:
    open_store(database_url, CHANNEL, mapping=read_mapping_file(mapping)).close()

    with pytest.raises(errors.ConfigurationError, match="holds no blocks of channel consortium"):
        rewind(database_url, 0)


def test_where_the_tables_stand_already_nothing_is_done(synced: str) -> None:
    before = read_content(synced)

    done = rewind(synced, LAST)

    assert (done.before_block, done.block_number, done.blocks, done.tables) == (LAST, LAST, 0, [])
    assert read_content(synced) == before


def test_a_database_of_private_data_is_refused(database_url: str, tmp_path: Path) -> None:
    chain = load_chain("fabric-3.1.5-service-week")
    with recorded_peer(chain.blocks[:20]) as peer:
        source = peer_settings(tmp_path, [peer], private_data=True)
        sync_once(SyncSettings(source, database_url, SERVICE_WEEK))
    before = read_content(database_url)

    with pytest.raises(errors.ConfigurationError, match="holds the private data of EnterpriseMSP, and values that"):
        rewind(database_url, 3)

    assert read_content(database_url) == before


def told(url: str, *arguments: str) -> Result:
    command = audit if arguments[0] == "operations" else sync
    return CliRunner().invoke(command, [*arguments, "--database", url])


def test_the_command_tells_what_it_did_and_leaves_an_entry(synced: str) -> None:
    before = read_content(synced)
    unexplained = told(synced, "rewind", "--to-block", "3", "--environment", "production")
    assert read_content(synced) == before

    done = told(synced, "rewind", "--to-block", "3", "--environment", "production", "--why", "a fork")
    again = told(synced, "rewind", "--to-block", "3")
    further = told(synced, "rewind", "--to-block", "1", "--json")
    above = told(synced, "rewind", "--to-block", "9", "--json")
    newest, first = json.loads(told(synced, "operations", "--json").stdout)

    assert (unexplained.exit_code, "in production say why" in unexplained.stderr) == (1, True)
    assert done.stdout.splitlines() == [
        f"channel {CHANNEL}: brought back from block {LAST} to block 3",
        "  3 blocks with 7 transactions taken out",
        "  request: 19 rows put right, 4 changes announced",
        "  note: 2 rows put right, 0 changes announced",
        "the next run goes on with block 4",
    ]
    assert again.stdout == f"channel {CHANNEL}: stands at block 3; nothing to do\n"
    facts = json.loads(further.stdout)
    assert (facts["before_block"], facts["block_number"], facts["blocks"], facts["transactions"]) == (3, 1, 2, 3)
    assert facts["tables"][0]["table"] == "request"
    assert (above.exit_code, json.loads(above.stdout)["error"]["code"]) == (1, "configuration_error")
    assert (first["operation"], first["reason"]) == ("rewind", "a fork")
    assert (first["before_block"], first["after_block"]) == (LAST, 3)
    assert first["detail"]["blocks"] == 3
    assert first["detail"]["tables"] == {
        "request": {"changes": 4, "released": 0},
        "note": {"changes": 0, "released": 0},
    }
    assert (newest["before_block"], newest["after_block"]) == (3, 1)


# --- all or nothing


@pytest.mark.parametrize("point", [LEDGER_LAYER_TAKEN_OUT, MAPPED_LAYER_MADE, BEFORE_COMMIT, AFTER_COMMIT])
def test_a_kill_leaves_the_tables_of_before_or_those_of_afterwards(point: str, synced: str, mapping: Path) -> None:
    before = read_content(synced)

    killed = subprocess.run([sys.executable, str(KILLED_REWIND), synced, "2", point], check=False, timeout=50)

    assert killed.returncode == -signal.SIGKILL
    if point == AFTER_COMMIT:
        assert query(synced, "SELECT operation FROM operation_log") == [("rewind",)]
    else:
        wait_until(lambda: nobody_writes(synced), "the end of the killed session")
        assert read_content(synced) == before
        rewind(synced, 2)
    assert_tables_equal_oracle(synced, CHAIN[:3], mapping)


@pytest.mark.parametrize(
    ("kind", "mode"),
    [("sqlite", Mode.BEFORE), ("sqlite", Mode.AFTER), ("postgresql", Mode.AFTER), ("postgresql", Mode.CLOSED)],
)
def test_an_operation_of_a_database_that_fails_leaves_all_or_nothing(
    kind: str, mode: Mode, mapping: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue(f"{kind}_url")
    replay(url, CHAIN, mapping, tmp_path)
    faults = Faults()
    rewind_failing(url, mapping, faults)
    afterwards, commit = as_replayed(url), faults.count - 1  # the last one resets the session
    replay(url, CHAIN, None, tmp_path)
    before = read_content(url)
    seed = random.randrange(2**32)  # noqa: S311  which operations, no secret
    sample = random.Random(seed).sample(range(1, commit), 6)  # noqa: S311  as above

    for number in (*sample, commit):
        faults = Faults(number, mode)
        with pytest.raises((errors.SinkUnavailableError, errors.CommitOutcomeUnknownError)):
            rewind_failing(url, mapping, faults)
        assert faults.failed, f"the fault fired; seed {seed}"
        assert number != commit or faults.failed[0] == "COMMIT"  # there are others: of what only reads
        if number != commit or mode is Mode.BEFORE:
            assert read_content(url) == before, f"{faults.failed}, seed {seed}"

    rewind(url, 2)  # does nothing where the answer alone was lost
    assert as_replayed(url) == afterwards
    assert query(url, "SELECT count(*) FROM operation_log") == [(2,)]


def rewind_failing(url: str, mapping: Path, faults: Faults) -> None:
    with closing(faulty_sink(url, CHANNEL, read_mapping_file(mapping), faults)) as sink:
        rewind_sink(sink, CHANNEL, 2, ASKED)


# --- beside others


def test_an_engine_at_work_is_told_and_a_new_run_goes_on(database_url: str, mapping: Path, tmp_path: Path) -> None:
    source = open_block_file(write_records(tmp_path / "blocks", CHAIN))
    tables = read_mapping_file(mapping)

    with closing(open_store(database_url, CHANNEL, mapping=tables)) as sink:

        class Interrupted:
            """Gives the blocks, and brings the tables back before the fifth of them."""

            name = source.name

            def blocks(self, first: int) -> Iterator[RawBlock]:
                for number, raw in enumerate(source.blocks(first), first):
                    if number == 5 and first == 0:
                        rewind(database_url, 1)
                    yield raw

            def progress(self) -> float | None:
                return None

        engine = Engine(Interrupted(), sink, tables, channel=CHANNEL, limits=RunLimits(blocks=1))
        with pytest.raises(errors.TablesRewoundError, match=r"brought back from block 4 \(.*\) to block 1 \(") as told:
            engine.run()
        assert told.value.may_run_again
        assert_tables_equal_oracle(database_url, CHAIN[:2], mapping)
        assert engine.run().blocks == LAST - 1

    assert_tables_equal_oracle(database_url, CHAIN, mapping)


def test_an_engine_that_finds_its_checkpoint_again_takes_nothing_for_granted(
    database_url: str, mapping: Path, tmp_path: Path
) -> None:
    tables = read_mapping_file(mapping)
    with closing(open_store(database_url, CHANNEL, mapping=tables)) as sink:
        first = open_block_file(write_records(tmp_path / "first", CHAIN[:5]))
        Engine(first, sink, tables, channel=CHANNEL).run()
        rewind(database_url, 1)
        replay(database_url, CHAIN[:5], None, tmp_path)

        Engine(open_block_file(write_records(tmp_path / "all", CHAIN)), sink, tables, channel=CHANNEL).run()

    assert_tables_equal_oracle(database_url, CHAIN, mapping)


def test_a_follower_begins_anew_by_itself(database_url: str, tmp_path: Path) -> None:
    chain = load_chain("fabric-3.1.5-raft")
    with recorded_peer(chain.blocks[:30]) as peer:
        source = peer_settings(tmp_path, [peer])
        archive = tmp_path / "archive"
        settings = SyncSettings(source, database_url, OUTCOMES, growing=True, workers=0, archive=archive)
        follower = SyncFollower(settings)
        with in_thread(follower.follow, follower.stop):
            wait_until(lambda: applied(database_url) == 30, "the first blocks")
            rewind(database_url, 9)
            peer.append(*chain.blocks[30:])
            wait_until(lambda: applied(database_url) == len(chain.blocks), "the whole chain")

    assert_tables_equal_oracle(database_url, chain.blocks, OUTCOMES)
    failed = query(database_url, "SELECT error_code FROM sync_run WHERE outcome = 'failed'")
    assert failed == [("tables_rewound",)]
    assert archived_contents(archive / CHANNEL) == list(chain.blocks)


def test_an_archive_that_is_ahead_stays_as_it_is_and_is_gone_on_with(
    database_url: str, mapping: Path, tmp_path: Path
) -> None:
    archive = tmp_path / "archive"
    settings = SyncSettings(write_records(tmp_path / "blocks", CHAIN[:6]), database_url, mapping, archive=archive)
    sync_once(settings)

    rewind(database_url, 2)
    assert archived_contents(archive / CHANNEL) == list(CHAIN[:6])
    write_records(tmp_path / "blocks", CHAIN)
    sync_once(settings)

    assert_tables_equal_oracle(database_url, CHAIN, mapping)
    assert archived_contents(archive / CHANNEL) == list(CHAIN)


def test_readers_go_on_and_listeners_are_told(postgresql_url: str, mapping: Path, tmp_path: Path) -> None:
    replay(postgresql_url, CHAIN, mapping, tmp_path)
    address = make_url(postgresql_url).set(drivername="postgresql").render_as_string(hide_password=False)
    rows = "SELECT id, status FROM consortium.request ORDER BY id"
    with psycopg.connect(address) as reader, psycopg.connect(address, autocommit=True) as listener:
        listener.execute("CREATE VIEW public.open_requests AS SELECT id FROM consortium.request WHERE status = 'open'")
        listener.execute(f"LISTEN {NOTIFY_CHANNEL}")
        reader.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        before = reader.execute(rows).fetchall()  # and holds its locks on, under which nothing is truncated or dropped

        rewind(postgresql_url, 1)

        assert reader.execute(rows).fetchall() == before
        assert listener.execute("SELECT id FROM public.open_requests").fetchall() == [("1",)]
        told = [json.loads(note.payload) for note in listener.notifies(timeout=5, stop_after=1)]
    assert told == [{"channel": CHANNEL, "block": 1}]
