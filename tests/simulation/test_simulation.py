"""Whatever a seed draws (chain, mapping, cuts, faults of the database, restarts), tables end as the oracle has them.

Brought back to an earlier block they are as if the chain had ended there, and go on; made again from the ledger layer
alone they are the same.

A round draws a mapping and takes it through several chains. `KVR_SIMULATION_ROUNDS=5000` takes more rounds than those
of every run. A round that failed once is kept in NOTABLE.
"""

import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kvr_sync import errors
from kvr_sync.engine import Engine, RunLimits
from kvr_sync.mapping.definition import Mapping
from kvr_sync.mapping.validation import read_mapping
from kvr_sync.rewinding import rewind_sink
from kvr_sync.source.block_file import open_block_file
from kvr_sync.store.ledger_sink import LedgerSink
from kvr_sync.store.operation_log import Operation
from tests.support.database_fault import SQLITE_MODES, Faults, Mode, faulty_sink
from tests.support.emptied_store import EmptiedPostgresql, EmptiedSqlite
from tests.support.invariants import check_invariants, read_content
from tests.support.mapped_layer import empty_mapped_layer, make_again
from tests.support.random_sync import random_chain, random_mapping
from tests.support.recorded_chain import write_records

ROUNDS = int(os.environ.get("KVR_SIMULATION_ROUNDS", "50"))
NOTABLE: tuple[int, ...] = ()
"""Rounds that found something once, whatever the count."""
SEEDS = 4
"""Chains of a round: 200 in every run."""
ON_POSTGRESQL = 10
"""Every tenth round; the others are on SQLite, where a database costs nothing."""
MOST_FAULTS = 4
"""Runs of one chain that have a fault."""
REWOUND = 0.3
"""Part of the chains that are also brought back to an earlier block."""


@pytest.mark.parametrize("number", [*range(ROUNDS), *(number for number in NOTABLE if number >= ROUNDS)])
def test_tables_end_as_the_oracle_has_them(number: int, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    definition = random_mapping(random.Random(number))  # noqa: S311  a seed that gives the same run again
    mapping = read_mapping(json.dumps(definition).encode(), f"round {number}")
    begin: Callable[[], str] = EmptiedSqlite(tmp_path, mapping)
    if number % ON_POSTGRESQL == 0:
        begin = EmptiedPostgresql(request.getfixturevalue("postgresql_url"), mapping)
    triggered = 0
    for seed in range(number * SEEDS, (number + 1) * SEEDS):
        try:
            triggered += simulate(random.Random(seed), begin(), definition, mapping, tmp_path / "blocks")  # noqa: S311  as above
        except Exception as error:
            error.add_note(f"round {number}, seed {seed}; again: .venv/bin/pytest '{request.node.nodeid}'")
            raise
    assert triggered, "no fault was met"


def simulate(choose: random.Random, url: str, definition: dict[str, Any], mapping: Mapping, path: Path) -> int:
    """Take one chain into an empty database; give the number of operations that failed."""
    blocks = random_chain(choose)
    modes = SQLITE_MODES if url.startswith("sqlite") else tuple(Mode)
    faults_left = MOST_FAULTS if choose.random() < 0.8 else 0
    given = applied = failed = 0
    sink: LedgerSink | None = None
    faults = Faults()
    while applied < len(blocks):
        given = max(given, choose.randint(1, len(blocks)))
        source = open_block_file(write_records(path, blocks[:given]))
        if sink is None or choose.random() < 0.3:
            if sink is not None:
                sink.close()
            faults = Faults()
            sink = faulty_sink(url, "consortium", mapping, faults)
        if faults_left:
            faults_left -= 1
            # A run has at least five operations, and more with each block; the first fault is always met.
            most = 5 if faults_left == MOST_FAULTS - 1 else 40
            faults.n, faults.mode = faults.count + choose.randint(1, most), choose.choice(modes)
        limits = RunLimits(blocks=choose.choice((1, 2, 3, 100)))
        engine = Engine(source, sink, mapping, channel="consortium", limits=limits, sleep=lambda _: None)
        try:
            engine.run()
            applied = given
        except (errors.SinkUnavailableError, errors.CommitOutcomeUnknownError):
            assert faults.failed, "an error without a fault"
        failed += len(faults.failed)
        faults.clear()
    assert sink is not None

    check_invariants(url, blocks, definition)

    before = read_content(url)
    Engine(open_block_file(path), sink, mapping, channel="consortium").run()
    assert read_content(url) == before, "the same blocks again"

    if choose.random() < REWOUND:
        earlier = choose.randrange(len(blocks))
        rewind_sink(sink, "consortium", earlier, Operation("rewind", "a test"))
        check_invariants(url, blocks[: earlier + 1], definition)
        Engine(open_block_file(path), sink, mapping, channel="consortium").run()
        check_invariants(url, blocks, definition)

    empty_mapped_layer(url, definition)
    make_again(sink)
    sink.close()
    check_invariants(url, blocks, definition)
    return failed
