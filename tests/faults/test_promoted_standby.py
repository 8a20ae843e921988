"""S-12: a standby takes over that never got the last commits. The engine goes on from what is there."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest
from sqlalchemy import URL

from kvr_sync import errors
from kvr_sync.engine import Engine, RunLimits
from kvr_sync.jobs import SyncSettings, sync_once
from kvr_sync.mapping.mapping_file import read_mapping_file
from kvr_sync.source.block_file import open_block_file
from kvr_sync.store.opening import open_store
from kvr_sync.store.sink import AFTER_COMMIT, BEFORE_COMMIT
from tests.support.comparison import assert_tables_equal_oracle
from tests.support.evidence import wait_until
from tests.support.postgresql import Standby, own_server, standby_of, stop_at_once
from tests.support.recorded_chain import load_chain, write_records
from tests.support.tables import holds

ROOT = Path(__file__).parents[2]
OUTCOMES = ROOT / "tests" / "support" / "outcomes.mapping.yaml"
CHAIN = load_chain("fabric-3.1.5-raft")
REPLICATED, ACKNOWLEDGED = 30, 60
"""Blocks that the standby got, and blocks that the primary had committed when it was lost."""


class Pair(NamedTuple):
    """Two servers; `url` is the address of both, of which the engine gets whichever answers."""

    primary: URL
    standby: Standby

    @property
    def url(self) -> str:
        hosts = ",".join(str(server.query["host"]) for server in (self.primary, self.standby.url))
        return shown(self.primary.update_query_dict({"host": hosts, "target_session_attrs": "read-write"}))


def shown(url: URL) -> str:
    return url.render_as_string(hide_password=False)


@pytest.fixture
def pair() -> Iterator[Pair]:
    with own_server(durable=False) as primary, standby_of(primary) as standby:
        yield Pair(primary, standby)


def test_a_standby_is_refused_and_once_it_is_promoted_gone_on_from_its_own_checkpoint(
    pair: Pair, tmp_path: Path
) -> None:
    source, primary, standby = tmp_path / "blocks", shown(pair.primary), shown(pair.standby.url)
    sync_once(SyncSettings(write_records(source, CHAIN.blocks[:REPLICATED]), primary, OUTCOMES))
    wait_until(lambda: holds(standby, REPLICATED), "the standby has the blocks")
    pair.standby.cut_off()
    write_records(source, CHAIN.blocks)

    with pytest.raises(errors.SinkReadOnlyError, match="takes no writes"):
        sync_once(SyncSettings(source, standby))
    sync_once(SyncSettings(source, primary))
    assert holds(primary, len(CHAIN.blocks))
    stop_at_once(pair.primary)
    pair.standby.promote()

    assert_tables_equal_oracle(standby, CHAIN.blocks[:REPLICATED], OUTCOMES)
    assert sync_once(SyncSettings(source, standby)).blocks == len(CHAIN.blocks) - REPLICATED
    assert_tables_equal_oracle(standby, CHAIN.blocks, OUTCOMES)


def test_an_engine_whose_primary_is_lost_in_a_commit_goes_on_from_the_checkpoint_of_the_standby(
    pair: Pair, tmp_path: Path
) -> None:
    source = open_block_file(write_records(tmp_path / "blocks", CHAIN.blocks))
    mapping = read_mapping_file(OUTCOMES)
    standby = shown(pair.standby.url)
    passed: list[str] = []

    def hook(point: str) -> None:
        passed.append(point)
        if point == AFTER_COMMIT and passed.count(point) == REPLICATED // 10:
            wait_until(lambda: holds(standby, REPLICATED), "the standby has the blocks")
            pair.standby.cut_off()
        if point == BEFORE_COMMIT and passed.count(point) == ACKNOWLEDGED // 10 + 1:
            stop_at_once(pair.primary)
            pair.standby.promote()

    with closing(open_store(pair.url, "consortium", mapping=mapping, hook=hook)) as sink:
        engine = Engine(source, sink, mapping, channel="consortium", limits=RunLimits(blocks=10))
        with pytest.raises(errors.TablesRewoundError, match=r"brought back from block 59 \(.*\) to block 29 \("):
            engine.run()
        assert_tables_equal_oracle(standby, CHAIN.blocks[:REPLICATED], OUTCOMES)
        assert engine.run().blocks == len(CHAIN.blocks) - REPLICATED

    assert_tables_equal_oracle(standby, CHAIN.blocks, OUTCOMES)
