"""S-122: every operation of a database fails once while late values are applied; the next attempt ends with all rows.

Nothing of a transaction that broke off is there, and nothing comes twice, the numbers of the feed among it.
"""

import shutil
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from kvr_sync import errors
from kvr_sync.mapping.definition import Mapping
from kvr_sync.mapping.mapping_file import read_mapping_file
from kvr_sync.model import LateValue
from tests.support.database_fault import SQLITE_MODES, Faults, Mode, faulty_sink
from tests.support.private_chain import PROFILES, Chain, bring, secret
from tests.support.tables import check_feed, query

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
