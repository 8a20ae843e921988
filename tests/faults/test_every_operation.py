"""S-09: every operation of a database fails once, in a whole run of twenty blocks; each time the tables end right.

Statements, COPYs, begins, commits and rollbacks, of the reads too. The first run has no fault and is held to the
oracle; every other one must leave the same rows, all of them, by the numbers of its keys.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from kvr_sync import errors
from kvr_sync.engine import Engine, RunLimits
from kvr_sync.mapping.mapping_file import read_mapping_file
from kvr_sync.source.block_file import open_block_file
from tests.support.database_fault import SQLITE_MODES, Faults, Mode, faulty_sink
from tests.support.emptied_store import EmptiedPostgresql, EmptiedSqlite
from tests.support.invariants import check_invariants, read_content
from tests.support.recorded_chain import load_chain, write_records

ROOT = Path(__file__).parents[2]
OUTCOMES = ROOT / "tests" / "support" / "outcomes.mapping.yaml"
MAPPING = read_mapping_file(OUTCOMES)
BLOCKS = load_chain("fabric-3.1.5-raft").blocks[:20]
BLOCKS_PER_COMMIT = 7


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_records(tmp_path_factory.mktemp("source") / "blocks", BLOCKS)


def run(url: str, source: Path, faults: Faults) -> None:
    """Take the chain; where a run ends with an error, another one goes on as a new process would."""
    for _ in range(2):
        sink = faulty_sink(url, "consortium", MAPPING, faults)
        limits = RunLimits(blocks=BLOCKS_PER_COMMIT)
        engine = Engine(
            open_block_file(source), sink, MAPPING, channel="consortium", limits=limits, sleep=lambda _: None
        )
        try:
            engine.run()
        except (errors.SinkUnavailableError, errors.CommitOutcomeUnknownError):
            assert faults.failed
            faults.n = 0
        else:
            return
        finally:
            sink.close()
    pytest.fail("a run without a fault did not end")


def take_every_operation(begin: Callable[[], str], mode: Mode, source: Path) -> None:
    url = begin()
    run(url, source, Faults())
    check_invariants(url, BLOCKS, yaml.safe_load(OUTCOMES.read_text()))
    expected = read_content(url)

    names = []
    while True:
        begin()
        faults = Faults(len(names) + 1, mode)
        run(url, source, faults)
        assert read_content(url) == expected, f"operation {len(names) + 1}, {faults.failed}"
        if not faults.failed:
            break
        names.append(faults.failed[0])

    assert names.count("COMMIT") >= 3
    assert len(names) > 60
    assert any("sync_change" in name for name in names)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("mode", SQLITE_MODES)
def test_any_operation_of_sqlite_may_fail(mode: Mode, source: Path, tmp_path: Path) -> None:
    take_every_operation(EmptiedSqlite(tmp_path, MAPPING), mode, source)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("mode", list(Mode))
def test_any_operation_of_postgresql_may_fail(mode: Mode, postgresql_url: str, source: Path) -> None:
    take_every_operation(EmptiedPostgresql(postgresql_url, MAPPING), mode, source)
