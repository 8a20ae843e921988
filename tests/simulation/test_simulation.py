"""Whatever a seed draws (chain, mapping, cuts, faults of the database, restarts), tables end as the oracle has them.

`KVR_SIMULATION_SEEDS=5000` takes more seeds than those of every run. A seed that failed once is kept in NOTABLE.
"""

import json
import os
import random
import shutil
from pathlib import Path

import pytest

from kvr_sync import errors
from kvr_sync.engine import Engine, RunLimits
from kvr_sync.mapping.validation import read_mapping
from kvr_sync.source.block_file import open_block_file
from kvr_sync.store.ledger_sink import LedgerSink
from kvr_sync.store.opening import open_store
from tests.support.database_fault import SQLITE_MODES, Faults, Mode, faulty_sink
from tests.support.invariants import check_invariants, read_content
from tests.support.random_sync import random_sync
from tests.support.recorded_chain import write_records

COUNT = int(os.environ.get("KVR_SIMULATION_SEEDS", "200"))
NOTABLE: tuple[int, ...] = ()
"""Seeds that found something once, whatever the count."""
ON_POSTGRESQL = 8
"""Every eighth seed; the others are on SQLite, where a database costs nothing."""
MOST_ATTEMPTS = 12
"""Runs that one chain is taken in, faults included."""


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give an SQLite file that has the ledger layer."""
    path = tmp_path_factory.mktemp("template") / "kvr.db"
    open_store(f"sqlite:///{path}", "consortium").close()
    return path


@pytest.mark.parametrize("seed", [*range(COUNT), *(seed for seed in NOTABLE if seed >= COUNT)])
def test_tables_end_as_the_oracle_has_them(
    seed: int, template: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if seed % ON_POSTGRESQL == 0:
        url = request.getfixturevalue("postgresql_url")
    else:
        shutil.copy(template, tmp_path / "kvr.db")
        url = f"sqlite:///{tmp_path / 'kvr.db'}"
    try:
        simulate(seed, url, tmp_path)
    except Exception as error:
        error.add_note(f"seed {seed}; again: .venv/bin/pytest '{request.node.nodeid}'")
        raise


def simulate(seed: int, url: str, folder: Path) -> None:
    choose = random.Random(seed)  # noqa: S311  a seed that gives the same run again
    case = random_sync(choose)
    mapping = read_mapping(json.dumps(case.definition).encode(), f"seed {seed}")
    open_store(url, "consortium", mapping=mapping).close()
    with_faults = choose.random() < 0.75
    modes = SQLITE_MODES if url.startswith("sqlite") else tuple(Mode)
    given = applied = attempts = 0
    sink: LedgerSink | None = None
    faults = Faults()
    while applied < len(case.blocks):
        attempts += 1
        given = max(given, choose.randint(1, len(case.blocks)))
        source = open_block_file(write_records(folder / "blocks", case.blocks[:given]))
        if sink is None or choose.random() < 0.3:
            if sink is not None:
                sink.close()
            faults = Faults()
            sink = faulty_sink(url, "consortium", mapping, faults)
        if with_faults and attempts < MOST_ATTEMPTS:
            faults.n, faults.mode = faults.count + choose.randint(1, 60), choose.choice(modes)
        limits = RunLimits(blocks=choose.choice((1, 2, 3, 100)))
        engine = Engine(source, sink, mapping, channel="consortium", limits=limits, sleep=lambda _: None)
        try:
            engine.run()
            applied = given
        except (errors.SinkUnavailableError, errors.CommitOutcomeUnknownError):
            assert faults.failed, "an error without a fault"
        faults.clear()
        faults.failed.clear()
    assert sink is not None
    sink.close()

    check_invariants(url, case.blocks, case.definition)

    before = read_content(url)
    again = open_store(url, "consortium")
    Engine(open_block_file(folder / "blocks"), again, mapping, channel="consortium").run()
    again.close()
    assert read_content(url) == before
