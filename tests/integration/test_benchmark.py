"""The benchmark measures what it says: each measurement runs."""

import json
from pathlib import Path

import pytest

from tests.benchmarks import sync


@pytest.mark.timeout(180)  # it starts a process for each measurement, one after the other
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
