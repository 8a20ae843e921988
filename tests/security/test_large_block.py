"""Blocks of 10 MB, as large as Fabric's default lets them become: all of it is applied, in bounded memory."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.chain_factory import ChainFactory, TransactionSpec, put
from tests.support.comparison import assert_tables_equal_oracle
from tests.support.recorded_chain import write_records

MEBIBYTE = 1024 * 1024
MOST_MEBIBYTES = {"one transaction of many writes": 300, "many transactions": 300, "documents of many parts": 500}
"""The last has 270,000 rows of child tables, which are what takes the room."""
MAPPING = """\
kvr_mapping: 1
tables:
  documents:
    namespace: ext
    key: {prefix: "d"}
    columns:
      id: {from: key, type: text, index: true}
      name: {json: name, type: text}
    children:
      document_parts:
        each: parts
        columns:
          part: {from: element, type: text}
"""
REPLAY = """
import sys
from pathlib import Path
from kvr_sync.jobs import SyncSettings, sync_once
blocks, url, mapping = sys.argv[1:]
sync_once(SyncSettings(Path(blocks), url, Path(mapping)))
print(Path("/proc/self/status").read_text())
"""
"""Prints what Linux tells of the process: its peak memory as `getrusage` gives it may be its parent's."""


def document(number: int, parts: int, length: int) -> bytes:
    return json.dumps({"name": f"n{number}", "parts": ["x" * length] * parts}).encode()


LARGE = {
    "one transaction of many writes": [
        TransactionSpec([put(f"d{n:05}", document(n, 2, 1250)) for n in range(3_500)]),
    ],
    "many transactions": [TransactionSpec([put(f"d{n:05}", document(n, 1, 1000))]) for n in range(3_000)],
    "documents of many parts": [TransactionSpec([put(f"d{n}", document(n, 90_000, 30)) for n in range(3)])],
}


@pytest.mark.timeout(180)
@pytest.mark.parametrize("shape", LARGE)
def test_a_block_of_ten_megabytes_is_applied_in_bounded_memory(shape: str, database_url: str, tmp_path: Path) -> None:
    factory = ChainFactory()
    large = factory.block(LARGE[shape])
    factory.block([TransactionSpec([put("d1", document(1, 1, 1))])])
    blocks = write_records(tmp_path / "blocks", factory.blocks)
    mapping = tmp_path / "mapping.yaml"
    mapping.write_text(MAPPING)

    done = subprocess.run(
        [sys.executable, "-c", REPLAY, str(blocks), database_url, str(mapping)],
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    )

    assert len(large) > 8 * MEBIBYTE
    peak = re.search(r"VmHWM:\s+(\d+) kB", done.stdout)
    assert peak is not None
    assert int(peak[1]) / 1024 < MOST_MEBIBYTES[shape]
    assert_tables_equal_oracle(database_url, factory.blocks, mapping)
