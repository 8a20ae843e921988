"""S-122: every operation of a database fails once while late values are applied; the next attempt ends with all rows.

S-03: the process that asks for them is killed. Nothing of a transaction that broke off is there, and nothing comes
twice, the numbers of the feed among it.
"""

import json
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from kvr_sync import errors
from kvr_sync.mapping.definition import Mapping
from kvr_sync.mapping.mapping_file import read_mapping_file
from kvr_sync.model import LateValue
from kvr_sync.source.peer_source import PeerSettings
from tests.support.command import kvr
from tests.support.database_fault import SQLITE_MODES, Faults, Mode, faulty_sink
from tests.support.evidence import wait_until
from tests.support.killed_backfill import BATCH_VALUES, COMMIT, backfill
from tests.support.mapped_layer import nobody_writes
from tests.support.postgresql import fresh_database
from tests.support.private_chain import PROFILES, Chain, bring, secret
from tests.support.recorded_peer import command_options, peer_settings, recorded_peer
from tests.support.tables import check_feed, query

KILLED_BACKFILL = Path(__file__).parents[1] / "support" / "killed_backfill.py"
VALUES = {b"a": b'{"name": "late"}', b"b": b'{"name": 17}', b"c": b'{"name": "outdated"}'}
BY_HASH = {sha256(value).digest(): (key, value) for key, value in VALUES.items()}
TABLES = ("ledger_private_value", "customer_profiles", "customer_profiles_history", "ledger_quarantine", "sync_change")


def content(url: str) -> dict[str, list[tuple[Any, ...]]]:
    return {name: sorted(query(url, f"SELECT * FROM {name}"), key=repr) for name in TABLES}  # noqa: S608  # ours


def arrive(url: str, mapping: Mapping, faults: Faults) -> int:
    """Apply what is missing, in a second attempt where the first one fails; give how many values the last one took."""
    for _ in range(2):
        with closing(faulty_sink(url, "consortium", mapping, faults)) as sink:
            try:
                missing = sink.read_missing(due=False, limit=9)
                return sink.apply_late([LateValue(one, *BY_HASH[one.value_hash]) for one in missing]).arrived
            except (errors.SinkUnavailableError, errors.CommitOutcomeUnknownError):
                assert faults.failed
                faults.n = 0
    raise AssertionError(faults.failed)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("mode", SQLITE_MODES)
def test_any_operation_may_fail_while_late_values_are_applied(mode: Mode, tmp_path: Path) -> None:
    path, template = tmp_path / "kvr.db", tmp_path / "template.db"
    file = tmp_path / "profiles.yaml"
    file.write_text(PROFILES.replace("entCust", "secrets"))
    mapping = read_mapping_file(file)
    chain = Chain()
    chain.write(*(secret(key.decode(), value) for key, value in VALUES.items()), handed_over=False)
    chain.write(secret("c", b'{"name": "newer"}'))
    bring(tmp_path, f"sqlite:///{template}", chain.blocks, chain.private, mapping=file)
    url = f"sqlite:///{path}"

    def begin() -> None:
        for old in tmp_path.glob("kvr.db*"):
            old.unlink()
        shutil.copy(template, path)

    begin()
    assert arrive(url, mapping, Faults()) == 3
    expected = content(url)
    check_feed(url, "customer_profiles")
    names: list[str] = []
    while True:
        begin()
        faults = Faults(len(names) + 1, mode)
        arrive(url, mapping, faults)
        assert content(url) == expected, f"operation {len(names) + 1}, {faults.failed}"
        if not faults.failed:
            break
        names.append(faults.failed[0])

    assert names.count("COMMIT") >= 1
    assert any("sync_change" in name for name in names)
    assert any("customer_profiles_history" in name for name in names)


@pytest.fixture
def undisturbed(database_url: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """Give a second database of the same kind."""
    if database_url.startswith("sqlite"):
        yield f"sqlite:///{tmp_path / 'undisturbed.db'}"
        return
    with fresh_database(request.getfixturevalue("postgresql_server")) as url:
        yield url.render_as_string(hide_password=False)


@pytest.mark.timeout(180)
def test_a_backfill_that_is_killed_is_done_by_the_next_one(
    database_url: str, undisturbed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kvr_sync.reconciliation.BATCH_VALUES", BATCH_VALUES)
    file = tmp_path / "profiles.yaml"
    file.write_text(PROFILES.replace("entCust", "secrets"))
    chain = Chain()
    for block in range(2):
        values = (secret(f"{block}-{number}", b'{"name": "late"}') for number in range(BATCH_VALUES))
        chain.write(*values, handed_over=False)
    chain.write(secret("0-0", b'{"name": "newer"}'))
    for url in (undisturbed, database_url):
        bring(tmp_path, url, chain.blocks, chain.private, mapping=file)
    seed = random.randrange(2**32)  # noqa: S311  moments, no secret

    with recorded_peer(chain.blocks, chain.withheld | chain.private) as peer:
        settings = peer_settings(tmp_path, [peer], private_data=True)
        operations: list[str] = []
        assert backfill(undisturbed, settings, operations.append).arrived == 2 * BATCH_VALUES
        first = next(place for place, name in enumerate(operations, 1) if "UPDATE" in name and "ledger_private" in name)
        commit = operations.index(COMMIT, first) + 1
        inside = random.Random(seed).randrange(first, commit)  # noqa: S311  as above
        # The last one finds the first batch there, and is killed in the second.
        for number, batches in ((inside, 0), (commit, 0), (commit + 1, 1), (inside, 1)):
            assert kill_backfill(database_url, settings, number) == -signal.SIGKILL, f"{number}, seed {seed}"
            wait_until(lambda: nobody_writes(database_url), "the end of the killed session")
            held = query(database_url, "SELECT count(value) FROM ledger_private_value WHERE block_number < 4")
            assert held == [(batches * BATCH_VALUES,)], f"operation {number}, seed {seed}"
            check_feed(database_url, "customer_profiles")
        done = kvr("sync", "backfill", *command_options(settings)[:-1], "--into", database_url, "--json")

    assert json.loads(done.stdout) == {"asked": BATCH_VALUES, "arrived": BATCH_VALUES, "refused": 0, "missing": 0}
    assert content(database_url) == content(undisturbed)
    check_feed(database_url, "customer_profiles")


def kill_backfill(url: str, settings: PeerSettings, number: int) -> int:
    arguments = [url, str(settings.profile), settings.msp_id, str(settings.identity), str(number)]
    return subprocess.run([sys.executable, str(KILLED_BACKFILL), *arguments], check=False, timeout=50).returncode
