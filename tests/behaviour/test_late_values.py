"""Private values that come after their block: asked for again, proved by the chain, applied once at their version."""

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from fabric_protos.ledger.rwset import rwset_pb2

from kvr_sync import errors
from kvr_sync.follower import SyncFollower
from kvr_sync.jobs import SyncSettings, sync_once
from kvr_sync.model import LateValue
from kvr_sync.reconciliation import Reconciliation, reconcile
from kvr_sync.service import ScheduledChannel, SyncService
from kvr_sync.store.late_values import FIRST_PAUSE, LONGEST_PAUSE
from kvr_sync.store.ledger_sink import LedgerSink
from kvr_sync.store.opening import open_store
from tests.support.chain_factory import TransactionSpec, delete, private_set, purge
from tests.support.command import kvr
from tests.support.evidence import wait_until
from tests.support.in_thread import in_thread
from tests.support.mapped_layer import check_made_again
from tests.support.private_chain import PROFILES, Chain, bring, missing_rows, private_rows, secret
from tests.support.recorded_peer import Fault, RecordedPeer, command_options, peer_settings, recorded_peer
from tests.support.tables import NO_TABLES, check_feed, query

CHANNEL, MEMBER = "consortium", "EnterpriseMSP"
TEXT = PROFILES.replace("entCust", "secrets")
HELD = "SELECT reference, name, kvr_block_number FROM customer_profiles ORDER BY reference"
FEED = "SELECT kvr_change, kvr_block_number FROM customer_profiles_changes ORDER BY kvr_change_id"


def named(name: str) -> bytes:
    return json.dumps({"name": name}).encode()


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2026, 5, 6, 7, 8, 9, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def mapping(tmp_path: Path) -> Path:
    path = tmp_path / "secrets.yaml"
    path.write_text(TEXT)
    return path


def forms(chain: Chain) -> dict[int, dict[int, bytes]]:
    """Give the private sets of every block, as if all had been handed over."""
    return dict(chain.withheld) | dict(chain.private)


@contextmanager
def opened(url: str, clock: Clock | None = None) -> Iterator[LedgerSink]:
    with closing(open_store(url, CHANNEL, private_member=MEMBER, clock=clock or Clock())) as sink:
        yield sink


def ask(
    folder: Path, url: str, peers: list[RecordedPeer], *, due: bool = False, clock: Clock | None = None
) -> Reconciliation:
    settings = peer_settings(folder, peers, private_data=True)
    with opened(url, clock) as sink:
        done = reconcile(sink, settings, due=due)
    if done.arrived:
        check_made_again(url)
    return done


def unreadable(content: bytes) -> bytes:
    message = rwset_pb2.TxPvtReadWriteSet.FromString(content)
    message.ns_pvt_rwset[0].collection_pvt_rwset[0].rwset = b"\xff"
    return bytes(message.SerializeToString())


@pytest.mark.parametrize("at_once", [True, False])
def test_a_late_value_is_applied_at_its_own_version_and_announced_as_late(
    *, at_once: bool, database_url: str, mapping: Path, tmp_path: Path
) -> None:
    chain = Chain()
    chain.write(secret("a", named("first")))
    late = chain.write(secret("b", named("late")), handed_over=False)
    if not at_once:
        bring(tmp_path, database_url, chain.blocks, chain.private, mapping=mapping)
    chain.write(secret("c", named("third")))
    bring(tmp_path, database_url, chain.blocks, chain.private, mapping=mapping)
    assert missing_rows(database_url) == [("secrets", sha256(b"b").digest())]

    with recorded_peer(chain.blocks, forms(chain)) as peer:
        first = ask(tmp_path, database_url, [peer])
        again = ask(tmp_path, database_url, [peer])

    assert first == Reconciliation(asked=1, arrived=1, refused=0, missing=0)
    assert again == Reconciliation(asked=0, arrived=0, refused=0, missing=0)
    assert peer.asked == [("DeliverWithPrivateData", late)]
    assert private_rows(database_url)["secrets", b"b"] == (named("late"), late, 0, None)
    assert query(database_url, HELD) == [("a", "first", late - 1), ("b", "late", late), ("c", "third", late + 1)]
    assert query(database_url, FEED) == [("insert", late - 1), ("insert", late + 1), ("late", late)]
    check_feed(database_url, "customer_profiles")
    later = chain.write(secret("b", named("newer")))
    bring(tmp_path, database_url, chain.blocks, chain.private, mapping=mapping)
    assert query(database_url, FEED)[-1] == ("update", later)
    check_feed(database_url, "customer_profiles")


@pytest.mark.parametrize("end", ["newer", "deleted"])
def test_a_late_value_that_is_outdated_changes_no_current_row(
    end: str, database_url: str, mapping: Path, tmp_path: Path
) -> None:
    chain = Chain()
    chain.write(secret("a", named("late")), handed_over=False)
    chain.write(secret("a", named("newer")) if end == "newer" else delete("a", collection="secrets"))
    bring(tmp_path, database_url, chain.blocks, chain.private, mapping=mapping)
    before = query(database_url, HELD), query(database_url, FEED), private_rows(database_url)

    with recorded_peer(chain.blocks, forms(chain)) as peer:
        done = ask(tmp_path, database_url, [peer])

    assert done == Reconciliation(asked=1, arrived=1, refused=0, missing=0)
    assert (query(database_url, HELD), query(database_url, FEED), private_rows(database_url)) == before
    held = query(database_url, "SELECT value, ended_block FROM ledger_private_value ORDER BY block_number")
    assert (bytes(held[0][0]), held[0][1]) == (named("late"), 3)
    check_feed(database_url, "customer_profiles")


def test_a_value_that_is_not_the_one_on_the_chain_is_refused_and_those_beside_it_are_taken(
    database_url: str, mapping: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    chain = Chain()
    number = chain.write(secret("a", named("late")), secret("b", named("other")), handed_over=False)
    unread = chain.write(secret("c", named("third")), handed_over=False)
    bring(tmp_path, database_url, chain.blocks, chain.private, mapping=mapping)
    wrong = TransactionSpec([secret("a", named("wrong-canary")), secret("b", named("other")), secret("x", b"{}")])

    with recorded_peer(
        chain.blocks, {number: {0: private_set(wrong)}, unread: {0: unreadable(chain.withheld[unread][0])}}
    ) as peer:
        done = ask(tmp_path, database_url, [peer])

    assert done == Reconciliation(asked=3, arrived=1, refused=2, missing=2)
    assert query(database_url, HELD) == [("b", "other", number)]
    assert "canary" not in caplog.text
    assert {record.__dict__["block_number"] for record in caplog.records if "refused" in record.message} == {
        number,
        unread,
    }


def test_a_value_of_another_transaction_of_the_block_is_not_taken(sqlite_url: str, tmp_path: Path) -> None:
    chain = Chain()
    number = chain.add(TransactionSpec([secret("a", b"1")]), TransactionSpec([secret("b", b"2")]), handed_over=False)
    bring(tmp_path, sqlite_url, chain.blocks, chain.private)

    with recorded_peer(chain.blocks, {number: {1: private_set(TransactionSpec([secret("a", b"1")]))}}) as peer:
        done = ask(tmp_path, sqlite_url, [peer])

    assert done == Reconciliation(asked=2, arrived=0, refused=0, missing=2)


def test_what_one_peer_lacks_another_is_asked_for(sqlite_url: str, tmp_path: Path) -> None:
    chain = Chain()
    first = chain.write(secret("a", b"1"), handed_over=False)
    second = chain.write(secret("b", b"2"), handed_over=False)
    bring(tmp_path, sqlite_url, chain.blocks, chain.private)

    with (
        recorded_peer(chain.blocks, {first: chain.withheld[first]}) as one,
        recorded_peer(chain.blocks, {second: chain.withheld[second]}) as other,
    ):
        done = ask(tmp_path, sqlite_url, [one, other])

    assert done == Reconciliation(asked=2, arrived=2, refused=0, missing=0)
    assert one.asked == [("DeliverWithPrivateData", first)]
    assert other.asked == [("DeliverWithPrivateData", second)]


def test_a_peer_that_fails_and_one_that_began_with_a_snapshot_do_not_end_the_search(
    sqlite_url: str, tmp_path: Path
) -> None:
    chain = Chain()
    chain.write(secret("a", b"1"), handed_over=False)
    bring(tmp_path, sqlite_url, chain.blocks, chain.private)

    with (
        recorded_peer(chain.blocks, forms(chain)) as broken,
        recorded_peer(chain.blocks, forms(chain)) as young,
        recorded_peer(chain.blocks, forms(chain)) as whole,
    ):
        broken.faults.append(Fault(0, "cut"))
        young.first = 3
        assert ask(tmp_path, sqlite_url, [broken, young, whole]).arrived == 1


def test_a_block_that_cannot_be_handed_over_holds_up_the_others_once(sqlite_url: str, tmp_path: Path) -> None:
    chain = Chain()
    for key in ("a", "b", "c"):
        chain.write(secret(key, b"1"), handed_over=False)
    bring(tmp_path, sqlite_url, chain.blocks, chain.private)
    with recorded_peer(chain.blocks, forms(chain)) as peer:
        peer.faults.append(Fault(1, "cut"))  # before block 3
        first = ask(tmp_path, sqlite_url, [peer], due=True)
        second = ask(tmp_path, sqlite_url, [peer], due=True)

    assert (first.arrived, second.arrived) == (1, 1)
    assert query(sqlite_url, "SELECT block_number FROM ledger_private_value WHERE value IS NULL") == [(3,)]


def test_an_error_names_the_peer_where_none_can_be_read(sqlite_url: str, tmp_path: Path) -> None:
    chain = Chain()
    chain.write(secret("a", b"1"), handed_over=False)
    bring(tmp_path, sqlite_url, chain.blocks, chain.private)
    with recorded_peer(chain.blocks) as peer:
        address = peer.address

    with pytest.raises(errors.SourceUnavailableError, match=address):
        ask(tmp_path, sqlite_url, [peer])


def test_what_nobody_has_is_asked_for_less_and_less_often(database_url: str, tmp_path: Path) -> None:
    chain = Chain()
    chain.write(secret("a", b"1"), handed_over=False)
    bring(tmp_path, database_url, chain.blocks, chain.private)
    clock = Clock()
    pauses = []

    with recorded_peer(chain.blocks) as peer:
        for _ in range(13):
            assert ask(tmp_path, database_url, [peer], due=True, clock=clock).asked == 1
            assert ask(tmp_path, database_url, [peer], due=True, clock=clock).asked == 0
            ((due_at,),) = query(database_url, "SELECT due_at FROM ledger_private_value")
            due = datetime.fromisoformat(due_at) if isinstance(due_at, str) else due_at
            pause, clock.now = due - clock.now, due
            pauses.append(pause)
        assert ask(tmp_path, database_url, [peer]).asked == 1, "the command asks whatever the schedule says"

    assert pauses[:4] == [FIRST_PAUSE * factor for factor in (1, 2, 4, 8)]
    assert pauses[-1] == LONGEST_PAUSE


def test_a_clock_that_was_wrong_holds_nothing_back_for_ever(sqlite_url: str, tmp_path: Path) -> None:
    chain = Chain()
    chain.write(secret("a", b"1"), handed_over=False)
    bring(tmp_path, sqlite_url, chain.blocks, chain.private)
    clock = Clock()
    with recorded_peer(chain.blocks) as peer:
        clock.now += timedelta(days=400)
        ask(tmp_path, sqlite_url, [peer], due=True, clock=clock)
        clock.now -= timedelta(days=400)

        assert ask(tmp_path, sqlite_url, [peer], due=True, clock=clock).asked == 1


@pytest.mark.parametrize("end", ["purge", "expiry"])
def test_what_was_erased_while_it_was_missing_is_never_brought_back(
    end: str, database_url: str, mapping: Path, tmp_path: Path
) -> None:
    chain = Chain(block_to_live=2 if end == "expiry" else 0)
    chain.write(secret("a", named("late")), handed_over=False)
    bring(tmp_path, database_url, chain.blocks, chain.private, mapping=mapping)
    if end == "purge":
        chain.write(purge("a", collection="secrets"), handed_over=False)
    else:
        chain.pad(3)
    with opened(database_url) as sink:
        known = sink.read_missing(due=False, limit=9)
    bring(tmp_path, database_url, chain.blocks, chain.private, mapping=mapping)

    with recorded_peer(chain.blocks, forms(chain)) as peer:
        assert ask(tmp_path, database_url, [peer]) == Reconciliation(asked=0, arrived=0, refused=0, missing=0)
    with opened(database_url) as sink:  # asked for before, and come after
        assert sink.apply_late([LateValue(known[0], b"a", named("late"))]) == (0, 1)

    assert private_rows(database_url) == {}
    assert query(database_url, "SELECT key, value, erased_by FROM ledger_private_value") == [(None, None, end)]
    assert query(database_url, HELD) == []
    check_feed(database_url, "customer_profiles")


def test_a_late_value_that_does_not_fit_goes_to_quarantine_without_its_bytes(
    database_url: str, mapping: Path, tmp_path: Path
) -> None:
    chain = Chain()
    chain.write(secret("a", b'{"name": 17}'), secret("b", b"[]"), handed_over=False)
    chain.write(secret("b", named("newer")))
    bring(tmp_path, database_url, chain.blocks, chain.private, mapping=mapping)

    with recorded_peer(chain.blocks, forms(chain)) as peer:
        assert ask(tmp_path, database_url, [peer]).arrived == 2

    found = query(
        database_url, "SELECT reason, value, closed_block, closed_by FROM ledger_quarantine ORDER BY closed_block"
    )
    assert sorted((row[0], bytes(row[1]), *row[2:]) for row in found) == [
        ("not_an_object", b"", 3, "overwritten"),
        ("wrong_type", b"", None, None),
    ]
    chain.write(secret("a", named("mended")))
    bring(tmp_path, database_url, chain.blocks, chain.private, mapping=mapping)
    assert query(database_url, "SELECT count(*) FROM ledger_quarantine WHERE closed_block IS NULL") == [(0,)]
    check_feed(database_url, "customer_profiles")


def test_an_engine_that_is_open_meanwhile_goes_on_with_the_feed(
    database_url: str, mapping: Path, tmp_path: Path
) -> None:
    chain = Chain()
    chain.write(secret("a", named("late")), handed_over=False)
    with recorded_peer(chain.blocks, chain.private) as peer:
        source = peer_settings(tmp_path, [peer], private_data=True)
        follower = SyncFollower(SyncSettings(source, database_url, mapping, growing=True))
        with in_thread(follower.follow, follower.stop):
            wait_until(lambda: len(missing_rows_or_none(database_url)) == 1, "the value is missing")
            peer.private_sets = forms(chain)
            assert ask(tmp_path, database_url, [peer]).arrived == 1
            chain.write(secret("b", named("next")))
            peer.private_sets = forms(chain)
            peer.append(chain.blocks[-1])
            wait_until(lambda: len(query(database_url, HELD)) == 2, "the next block is applied")

    assert query(database_url, FEED) == [("late", 2), ("insert", 3)]
    check_feed(database_url, "customer_profiles")


def missing_rows_or_none(url: str) -> list[Any]:
    try:
        return missing_rows(url)
    except NO_TABLES:
        return []


def test_the_service_asks_on_its_schedule(sqlite_url: str, mapping: Path, tmp_path: Path) -> None:
    chain = Chain()
    chain.write(secret("a", named("late")), handed_over=False)
    with recorded_peer(chain.blocks, chain.private) as peer:
        settings = SyncSettings(peer_settings(tmp_path, [peer], private_data=True), sqlite_url, mapping)
        sync_once(settings)
        peer.private_sets = forms(chain)
        service = SyncService([ScheduledChannel(settings, every_seconds=0.2)], due_seconds=0.2)
        with in_thread(service.serve, service.stop):
            wait_until(lambda: query(sqlite_url, HELD) == [("a", "late", 2)], "the value has come")

    assert query(sqlite_url, "SELECT job, error_code FROM sync_job WHERE job = 'private_data'") == [
        ("private_data", None)
    ]


def test_a_follower_asks_while_its_channel_is_quiet(database_url: str, mapping: Path, tmp_path: Path) -> None:
    chain = Chain()
    chain.write(secret("a", named("late")), handed_over=False)
    with recorded_peer(chain.blocks, chain.private) as peer:
        settings = SyncSettings(peer_settings(tmp_path, [peer], private_data=True), database_url, mapping, growing=True)
        sync_once(replace(settings, growing=False))
        peer.private_sets = forms(chain)
        follower = SyncFollower(settings, due_seconds=0.2)
        with in_thread(follower.follow, follower.stop):
            wait_until(lambda: query(database_url, HELD) == [("a", "late", 2)], "the value has come")

    jobs = query(database_url, "SELECT job, error_code FROM sync_job ORDER BY job")
    assert jobs == [("private_data", None), ("retention", None)]
    assert query(database_url, FEED) == [("late", 2)]


def test_the_command_tells_what_came(sqlite_url: str, mapping: Path, tmp_path: Path) -> None:
    chain = Chain()
    chain.write(secret("a", named("late")), secret("b", named("other")), handed_over=False)
    bring(tmp_path, sqlite_url, chain.blocks, chain.private, mapping=mapping)
    only = {2: {0: private_set(TransactionSpec([secret("a", named("late"))]))}}
    with recorded_peer(chain.blocks, only) as peer:
        options = command_options(peer_settings(tmp_path, [peer]))
        told = kvr("sync", "backfill", *options, "--into", sqlite_url)
        as_json = kvr("sync", "backfill", *options, "--into", sqlite_url, "--json")
        public = f"sqlite:///{tmp_path / 'public.db'}"
        sync_once(SyncSettings(peer_settings(tmp_path, [peer]), public))
        refused = kvr("sync", "backfill", *options, "--into", public)

    assert told.stdout == "2 missing values asked for, 1 arrived, 1 missing\n", told.stderr
    assert json.loads(as_json.stdout) == {"asked": 1, "arrived": 0, "refused": 0, "missing": 1}
    assert (refused.returncode, "hold no private data of EnterpriseMSP" in refused.stderr) == (1, True)
