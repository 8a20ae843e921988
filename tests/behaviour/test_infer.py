"""`kvr sync infer` on recorded chains: what it proposes maps what the chain holds."""

from contextlib import closing
from pathlib import Path

import pytest

from kvr_sync.engine import Engine
from kvr_sync.mapping.validation import read_mapping
from kvr_sync.source.block_file import open_block_file
from kvr_sync.store.opening import open_store
from tests.support.command import kvr
from tests.support.recorded_chain import CHAINS, load_chain
from tests.support.tables import query


@pytest.mark.parametrize("name", CHAINS)
def test_a_proposal_maps_nearly_every_value_of_its_chain(name: str, tmp_path: Path) -> None:
    proposed = kvr("sync", "infer", str(load_chain(name).path))
    assert proposed.returncode == 0, proposed.stderr
    mapping = read_mapping(proposed.stdout.encode(), "proposal")
    url = f"sqlite:///{tmp_path / 'k.db'}"

    with closing(open_store(url, "consortium", mapping=mapping)) as sink:
        Engine(open_block_file(load_chain(name).path), sink, mapping, channel="consortium").run()

    mapped = sum(query(url, f"SELECT count(*) FROM {table.name}_history")[0][0] for table in mapping.tables)  # noqa: S608
    ((quarantined,),) = query(url, "SELECT count(*) FROM ledger_quarantine")
    assert mapped
    assert quarantined <= 0.02 * mapped
