"""A COMMIT whose answer is lost: the checkpoint says what happened, on a link that really breaks."""

import resource
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import make_url

from kvr_sync import errors
from kvr_sync.engine import SETTLE_ATTEMPTS, Engine, RunLimits, RunSummary
from kvr_sync.mapping.mapping_file import read_mapping_file
from kvr_sync.source.block_file import open_block_file
from kvr_sync.store.opening import open_store
from kvr_sync.store.sink import AFTER_CHECKPOINT, AFTER_COMMIT, AFTER_ROWS, BEFORE_BEGIN, BEFORE_COMMIT, Hook, no_hook
from tests.support.comparison import assert_tables_equal_oracle
from tests.support.evidence import wait_until
from tests.support.postgresql import connect
from tests.support.postgresql_proxy import Fault, PostgresqlProxy, postgresql_proxy
from tests.support.recorded_chain import load_chain, write_records
from tests.support.tables import query

ROOT = Path(__file__).parents[2]
OUTCOMES = ROOT / "tests" / "support" / "outcomes.mapping.yaml"
CHAIN = load_chain("fabric-3.1.5-raft")
BLOCKS = CHAIN.blocks[:12]
BLOCKS_PER_COMMIT = 4
COMMITS = 3


class Watch:
    """Counts how often a sink passes each crash point, and acts at one of them."""

    def __init__(self, point: str = "", nth: int = 0, act: Callable[[], None] = lambda: None) -> None:
        self.seen: list[str] = []
        self._point = point
        self._nth = nth
        self._act = act

    def __call__(self, point: str) -> None:
        self.seen.append(point)
        if point == self._point and self.seen.count(point) == self._nth:
            self._act()

    @property
    def attempts(self) -> int:
        return self.seen.count(BEFORE_BEGIN)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_records(tmp_path / "blocks", BLOCKS)


@pytest.fixture
def proxy(postgresql_url: str) -> Iterator[PostgresqlProxy]:
    with postgresql_proxy(postgresql_url) as opened:
        yield opened


def run(url: str, source: Path, hook: Hook = no_hook, sleep: Callable[[float], None] = lambda _: None) -> RunSummary:
    mapping = read_mapping_file(OUTCOMES)
    limits = RunLimits(blocks=BLOCKS_PER_COMMIT)
    with closing(open_store(url, "consortium", mapping=mapping, hook=hook)) as sink:
        engine = Engine(open_block_file(source), sink, mapping, channel="consortium", limits=limits, sleep=sleep)
        return engine.run()


def sessions_waiting_for_a_lock(url: str) -> int:
    found = query(
        url,
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND application_name = 'kvr-sync' AND wait_event_type = 'Lock'",
    )
    return int(found[0][0])


@pytest.mark.parametrize("nth", [1, 2, 3])
def test_a_commit_whose_answer_is_swallowed_is_found_applied_and_not_repeated(
    nth: int, proxy: PostgresqlProxy, postgresql_url: str, source: Path
) -> None:
    watch = Watch(BEFORE_COMMIT, nth, lambda: proxy.break_commit(Fault.SWALLOW_ANSWER))

    summary = run(proxy.url, source, watch)

    assert proxy.fired == 1
    assert (watch.attempts, watch.seen.count(AFTER_COMMIT)) == (COMMITS, COMMITS - 1)
    assert summary.blocks == len(BLOCKS)
    assert_tables_equal_oracle(postgresql_url, BLOCKS, OUTCOMES)


@pytest.mark.parametrize("nth", [1, 2, 3])
def test_a_commit_that_never_arrived_is_found_missing_and_repeated(
    nth: int, proxy: PostgresqlProxy, postgresql_url: str, source: Path
) -> None:
    watch = Watch(BEFORE_COMMIT, nth, lambda: proxy.break_commit(Fault.CUT_BEFORE))

    summary = run(proxy.url, source, watch)

    assert proxy.fired == 1
    assert (watch.attempts, watch.seen.count(AFTER_COMMIT)) == (COMMITS + 1, COMMITS)
    assert summary.blocks == len(BLOCKS)
    assert_tables_equal_oracle(postgresql_url, BLOCKS, OUTCOMES)


@pytest.mark.parametrize("late", [True, False], ids=["the COMMIT arrives late", "the COMMIT never arrives"])
def test_a_session_that_still_holds_the_checkpoint_is_waited_for(
    late: bool, proxy: PostgresqlProxy, postgresql_url: str, source: Path
) -> None:
    watch = Watch(BEFORE_COMMIT, 2, lambda: proxy.break_commit(Fault.FREEZE))
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(run, proxy.url, source, watch)
        wait_until(lambda: sessions_waiting_for_a_lock(postgresql_url), "the settling session waits for the lost one")
        assert not running.done()
        if late:
            proxy.deliver_frozen()
        else:
            proxy.drop_frozen()
        running.result(30)

    assert proxy.fired == 1
    assert watch.attempts == COMMITS + (0 if late else 1)
    assert_tables_equal_oracle(postgresql_url, BLOCKS, OUTCOMES)


def test_a_link_cut_before_commit_ends_the_run_and_the_next_one_goes_on(
    proxy: PostgresqlProxy, postgresql_url: str, source: Path
) -> None:
    with pytest.raises(errors.SinkUnavailableError):
        run(proxy.url, source, Watch(AFTER_CHECKPOINT, 2, proxy.cut))

    assert_tables_equal_oracle(postgresql_url, BLOCKS[:BLOCKS_PER_COMMIT], OUTCOMES)
    run(proxy.url, source)
    assert_tables_equal_oracle(postgresql_url, BLOCKS, OUTCOMES)


def test_a_link_cut_after_the_rows_leaves_nothing_of_the_transaction(
    proxy: PostgresqlProxy, postgresql_url: str, source: Path
) -> None:
    watch = Watch(AFTER_ROWS, 2, proxy.cut)

    run(proxy.url, source, watch)

    assert watch.attempts == COMMITS + 1
    assert_tables_equal_oracle(postgresql_url, BLOCKS, OUTCOMES)


def test_settling_is_repeated_until_the_server_is_back(
    proxy: PostgresqlProxy, postgresql_url: str, source: Path
) -> None:
    pauses = []

    def go_down() -> None:
        proxy.break_commit(Fault.SWALLOW_ANSWER)
        proxy.refuse(True)

    def come_back_at_the_third(seconds: float) -> None:
        pauses.append(seconds)
        proxy.refuse(len(pauses) < 3)

    run(proxy.url, source, Watch(BEFORE_COMMIT, 2, go_down), come_back_at_the_third)

    assert (proxy.fired, len(pauses)) == (1, 3)
    assert_tables_equal_oracle(postgresql_url, BLOCKS, OUTCOMES)


@pytest.mark.parametrize(
    ("fault", "applied"), [(Fault.SWALLOW_ANSWER, 2 * BLOCKS_PER_COMMIT), (Fault.CUT_BEFORE, BLOCKS_PER_COMMIT)]
)
def test_a_server_that_stays_away_ends_the_run_without_a_guess(
    fault: Fault, applied: int, proxy: PostgresqlProxy, postgresql_url: str, source: Path
) -> None:
    pauses: list[float] = []

    def go_down() -> None:
        proxy.break_commit(fault)
        proxy.refuse(True)

    with pytest.raises(errors.SinkUnavailableError) as unavailable:
        run(proxy.url, source, Watch(BEFORE_COMMIT, 2, go_down), pauses.append)

    assert (proxy.fired, len(pauses), unavailable.value.retryable) == (1, SETTLE_ATTEMPTS - 1, True)
    assert_tables_equal_oracle(postgresql_url, BLOCKS[:applied], OUTCOMES)
    proxy.refuse(False)
    run(proxy.url, source)
    assert_tables_equal_oracle(postgresql_url, BLOCKS, OUTCOMES)


def test_whichever_commit_of_a_whole_run_is_lost_the_tables_end_right(postgresql_url: str, tmp_path: Path) -> None:
    """Every COMMIT in turn, those that open the store and read from it among them; ends with a run without a fault."""
    few = write_records(tmp_path / "few", BLOCKS[:2])
    lost = 0
    for nth in range(1, 40):
        fault = Fault.SWALLOW_ANSWER if nth % 2 else Fault.CUT_BEFORE
        with connect(make_url(postgresql_url)) as session:
            session.execute("DROP SCHEMA IF EXISTS consortium CASCADE")
        with postgresql_proxy(postgresql_url) as proxy:
            proxy.break_commit(fault, nth=nth)
            try:
                run(proxy.url, few)
            except (errors.SinkUnavailableError, errors.CommitOutcomeUnknownError):
                run(proxy.url, few)
            assert_tables_equal_oracle(postgresql_url, BLOCKS[:2], OUTCOMES)
            if not proxy.fired:
                break
            lost += 1
    else:
        pytest.fail("no run was without a fault")

    assert lost >= 5


# --- SQLite: the file is in this process, so what is lost is the answer of the file system


def test_a_commit_that_the_file_system_refused_is_found_missing_and_repeated(sqlite_url: str, source: Path) -> None:
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    wal = Path(sqlite_url.removeprefix("sqlite:///") + "-wal")
    refused = 0

    def hook(point: str) -> None:
        nonlocal refused
        watch(point)
        if point == BEFORE_COMMIT and watch.seen.count(point) == 2:
            refused += 1
            resource.setrlimit(resource.RLIMIT_FSIZE, (wal.stat().st_size, unlimited[1]))
        elif point == BEFORE_BEGIN:
            resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)

    watch = Watch()
    try:
        run(sqlite_url, source, hook)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)

    assert refused == 1
    assert (watch.attempts, watch.seen.count(AFTER_COMMIT)) == (COMMITS + 1, COMMITS)
    assert_tables_equal_oracle(sqlite_url, BLOCKS, OUTCOMES)


@pytest.mark.parametrize(("point", "attempts"), [(BEFORE_COMMIT, COMMITS + 1), (AFTER_COMMIT, COMMITS)])
def test_an_outcome_called_unknown_is_settled_from_the_file(
    point: str, attempts: int, sqlite_url: str, source: Path
) -> None:
    """The error is made by the test, at a point where the transaction is certainly not applied, or certainly is."""

    def lose_the_answer() -> None:
        message = "the answer to COMMIT was lost"
        raise errors.CommitOutcomeUnknownError(message)

    watch = Watch(point, 2, lose_the_answer)

    run(sqlite_url, source, watch)

    assert watch.attempts == attempts
    assert_tables_equal_oracle(sqlite_url, BLOCKS, OUTCOMES)
