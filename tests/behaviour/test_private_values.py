"""Private values in the database of a member: proved by the chain, there while they live, gone with them."""

import base64
import json
import random
import signal
from hashlib import sha256
from pathlib import Path

import pytest
from fabric_protos.ledger.rwset import rwset_pb2
from fabric_protos.ledger.rwset.kvrwset import kv_rwset_pb2

from kvr_sync import errors
from kvr_sync.jobs import SyncSettings, sync_once
from kvr_sync.store.sink import PrivateCounts
from tests.support.chain_factory import (
    TransactionSpec,
    WriteSpec,
    delete,
    purge,
    set_metadata,
)
from tests.support.command import kvr, kvr_running
from tests.support.comparison import assert_tables_equal_oracle
from tests.support.evidence import wait_until
from tests.support.private_chain import PROFILES, Chain, bring, missing_rows, private_rows, secret
from tests.support.recorded_chain import load_chain, write_records
from tests.support.recorded_peer import Fault, command_options, peer_settings, recorded_peer
from tests.support.recorded_private_data import ORGANIZATIONS, read_private_sets
from tests.support.tables import NO_TABLES, query

ROOT = Path(__file__).parents[2]
OUTCOMES = ROOT / "tests" / "support" / "outcomes.mapping.yaml"
WEEK, RAFT, BFT = "fabric-3.1.5-service-week", "fabric-3.1.5-raft", "fabric-3.1.5-bft"


def answers(chain: str, organization: str) -> dict[tuple[str, bytes], bytes | None]:
    """Give what the organisation's own peer answered for each private key at the end; b"" for a refusal."""
    found: dict[tuple[str, bytes], bytes | None] = {}
    for name, answer in load_chain(chain).expected["private_state_as_each_peer_answers"].items():
        told_by, collection, key = name.split("/", 2)
        if told_by == organization:
            refused = answer is not None and answer.startswith("ERROR")
            found[collection, key.encode()] = b"" if refused else answer and base64.b64decode(answer)
    return found


@pytest.mark.parametrize("organization", ORGANIZATIONS)
@pytest.mark.parametrize("chain", [RAFT, BFT, WEEK])
def test_recorded_private_data_is_what_each_peer_answers(
    chain: str, organization: str, sqlite_url: str, tmp_path: Path
) -> None:
    summary = bring(
        tmp_path,
        sqlite_url,
        load_chain(chain).blocks,
        read_private_sets(chain, organization),
        msp_id=f"{organization}MSP",
    )

    expected = answers(chain, organization)
    held = {place: row[0] for place, row in private_rows(sqlite_url).items() if place[1] is not None}
    assert held == {place: value for place, value in expected.items() if value}
    # A peer that should have a value and has none refuses to answer; one that is no member refuses everything.
    joined = organization == "Partner" and chain != WEEK
    refused = [(collection, sha256(key).digest()) for (collection, key), value in expected.items() if value == b""]
    assert missing_rows(sqlite_url) == (sorted(refused) if joined else [])
    assert summary.private is not None
    assert summary.private.missing == (3 if joined else 0)


@pytest.mark.parametrize("organization", ["Enterprise", "Partner"])
def test_private_rows_come_out_the_same_whatever_the_runs(organization: str, database_url: str, tmp_path: Path) -> None:
    seed = random.randrange(2**32)  # noqa: S311  cuts, not secrets
    cuts = sorted(random.Random(seed).sample(range(1, len(load_chain(RAFT).blocks)), 4))  # noqa: S311
    blocks, private = load_chain(RAFT).blocks, read_private_sets(RAFT, organization)
    whole = f"sqlite:///{tmp_path / 'whole.db'}"
    bring(tmp_path, whole, blocks, private, msp_id=f"{organization}MSP", mapping=OUTCOMES)

    for cut in (*cuts, len(blocks)):
        bring(tmp_path, database_url, blocks[:cut], private, msp_id=f"{organization}MSP", mapping=OUTCOMES)

    assert private_rows(database_url) == private_rows(whole), f"seed {seed}"
    assert missing_rows(database_url) == missing_rows(whole), f"seed {seed}"
    assert_tables_equal_oracle(database_url, blocks, OUTCOMES)


def test_profiles_become_rows(database_url: str, tmp_path: Path) -> None:
    mapping = tmp_path / "profiles.yaml"
    mapping.write_text(PROFILES)
    bring(tmp_path, database_url, load_chain(WEEK).blocks, read_private_sets(WEEK, "Enterprise"), mapping=mapping)

    expected = {
        key.decode(): json.loads(value)["name"] for (_, key), value in answers(WEEK, "Enterprise").items() if value
    }
    rows = query(database_url, "SELECT reference, name, tx_id, kvr_tx_id, held_in FROM customer_profiles")
    assert {row[0]: row[1] for row in rows} == expected
    assert len(rows) == len(expected) > 10
    assert all(row[2:4] == (row[3], row[3]) and row[4] == "entCust" for row in rows)


def test_nothing_private_is_read_unless_it_is_asked_for(sqlite_url: str, tmp_path: Path) -> None:
    mapping = tmp_path / "profiles.yaml"
    mapping.write_text(PROFILES)
    with recorded_peer(load_chain(WEEK).blocks, read_private_sets(WEEK, "Enterprise")) as peer:
        summary = sync_once(SyncSettings(peer_settings(tmp_path, [peer]), sqlite_url, mapping))

    assert peer.asked == [("Deliver", 0)]
    assert summary.private is None
    assert private_rows(sqlite_url) == {}
    assert query(sqlite_url, "SELECT * FROM customer_profiles") == []


def test_the_command_tells_what_is_held_and_what_is_missing(sqlite_url: str, tmp_path: Path) -> None:
    with recorded_peer(load_chain(RAFT).blocks, read_private_sets(RAFT, "Partner")) as peer:
        options = command_options(peer_settings(tmp_path, [peer], private_data=True, msp_id="PartnerMSP"))
        done = kvr("sync", "run", *options, "--into", sqlite_url)
        again = kvr("sync", "run", *options, "--into", sqlite_url, "--json")

    assert done.returncode == 0, done.stderr
    assert json.loads(again.stdout)["private"]["missing"] == 3
    assert {service for service, _ in peer.asked} == {"DeliverWithPrivateData"}
    assert "3 missing (not handed over by the peer)" in done.stdout


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize(
    "end", [delete("a", collection="secrets"), purge("a", collection="secrets")], ids=["delete", "purge"]
)
def test_a_delete_and_a_purge_take_the_row(*, end: WriteSpec, at_once: bool, database_url: str, tmp_path: Path) -> None:
    chain = Chain()
    number = chain.write(secret("a", b"one"), secret("b", b"two"))
    if not at_once:
        bring(tmp_path, database_url, chain.blocks, chain.private)
        assert private_rows(database_url)["secrets", b"a"] == (b"one", number, 0, None)
    chain.write(end)

    summary = bring(tmp_path, database_url, chain.blocks, chain.private)

    assert private_rows(database_url) == {("secrets", b"b"): (b"two", number, 0, None)}
    assert summary.private == PrivateCounts(1, 0)


def test_a_newer_value_replaces_the_row_and_a_missing_one_takes_it(sqlite_url: str, tmp_path: Path) -> None:
    chain = Chain()
    chain.write(secret("a", b"one"), secret("b", b"one"))
    bring(tmp_path, sqlite_url, chain.blocks, chain.private)
    chain.write(secret("a", b"two"))
    number = chain.write(secret("b", b"two"), handed_over=False)

    summary = bring(tmp_path, sqlite_url, chain.blocks, chain.private)

    assert private_rows(sqlite_url) == {
        ("secrets", b"a"): (b"two", number - 1, 0, None),
        ("secrets", None): (None, number, 0, None),
    }
    assert missing_rows(sqlite_url) == [("secrets", sha256(b"b").digest())]
    assert summary.private == PrivateCounts(1, 1)


@pytest.mark.parametrize("at_once", [True, False])
def test_a_value_leaves_with_the_block_of_its_expiry(*, at_once: bool, database_url: str, tmp_path: Path) -> None:
    mapping = tmp_path / "secrets.yaml"
    mapping.write_text(PROFILES.replace("entCust", "secrets"))
    chain = Chain(block_to_live=2)
    number = chain.write(secret("a", b'{"name": "old"}'))
    chain.pad(1)
    chain.write(secret("b", b'{"name": "new"}'))
    held = "SELECT name FROM customer_profiles ORDER BY name"
    if not at_once:
        bring(tmp_path, database_url, chain.blocks, chain.private, mapping=mapping)
        assert private_rows(database_url)["secrets", b"a"] == (b'{"name": "old"}', number, 0, number + 3)
        assert query(database_url, held) == [("new",), ("old",)]
    chain.pad(1)

    bring(tmp_path, database_url, chain.blocks, chain.private, mapping=mapping)

    assert list(private_rows(database_url)) == [("secrets", b"b")]
    assert query(database_url, held) == [("new",)]


@pytest.mark.parametrize("at_once", [True, False])
def test_a_moved_version_lives_longer(*, at_once: bool, sqlite_url: str, tmp_path: Path) -> None:
    chain = Chain(block_to_live=2)
    first = chain.write(secret("a", b"one"), secret("b", b"one"))
    if not at_once:
        bring(tmp_path, sqlite_url, chain.blocks, chain.private)
    number = chain.write(set_metadata("a", {"VALIDATION_PARAMETER": b"policy"}, collection="secrets"))
    chain.pad(2)

    bring(tmp_path, sqlite_url, chain.blocks, chain.private)

    assert private_rows(sqlite_url) == {("secrets", b"a"): (b"one", first, 0, number + 3)}


def test_a_value_after_a_moved_version_has_its_own(sqlite_url: str, tmp_path: Path) -> None:
    chain = Chain(block_to_live=9)
    chain.write(secret("a", b"one"))
    bring(tmp_path, sqlite_url, chain.blocks, chain.private)
    chain.write(set_metadata("a", {"VALIDATION_PARAMETER": b"policy"}, collection="secrets"))
    number = chain.write(secret("a", b"two"))

    bring(tmp_path, sqlite_url, chain.blocks, chain.private)

    assert private_rows(sqlite_url) == {("secrets", b"a"): (b"two", number, 0, number + 10)}


@pytest.mark.parametrize("at_once", [True, False])
def test_a_member_that_joins_misses_what_it_was_not_there_for(
    *, at_once: bool, database_url: str, tmp_path: Path
) -> None:
    chain = Chain(members=("CustomerMSP",), block_to_live=4)
    chain.write(secret("expired", b"1"), handed_over=False)
    chain.pad(3)
    chain.write(secret("living", b"1"), secret("deleted", b"1"), handed_over=False)
    chain.write(delete("deleted", collection="secrets"), handed_over=False)
    summary = None if at_once else bring(tmp_path, database_url, chain.blocks, chain.private)
    assert summary is None or summary.private == PrivateCounts(0, 0)
    chain.define("CustomerMSP", "EnterpriseMSP")
    chain.write(secret("later", b"2"))

    summary = bring(tmp_path, database_url, chain.blocks, chain.private)

    assert missing_rows(database_url) == [("secrets", sha256(b"living").digest())]
    assert summary.private == PrivateCounts(1, 1)


def test_what_a_refused_transaction_would_have_written_is_passed_over(sqlite_url: str, tmp_path: Path) -> None:
    chain = Chain()
    number = chain.add(TransactionSpec([secret("a", b"good")]), TransactionSpec([secret("a", b"refused")], code=11))

    bring(tmp_path, sqlite_url, chain.blocks, chain.private)

    assert private_rows(sqlite_url) == {("secrets", b"a"): (b"good", number, 0, None)}


def _forge(content: bytes, *, readable: bool = True) -> bytes:
    message = rwset_pb2.TxPvtReadWriteSet.FromString(content)
    part = message.ns_pvt_rwset[0].collection_pvt_rwset[0]
    private = kv_rwset_pb2.KVRWSet.FromString(part.rwset)
    private.writes[0].value += b"!"
    part.rwset = private.SerializeToString() if readable else b"\xff"
    return bytes(message.SerializeToString())


@pytest.mark.parametrize("forgery", ["value", "transaction", "no message"])
def test_a_value_that_the_chain_does_not_vouch_for_stops_the_line_before_its_block(
    forgery: str, database_url: str, tmp_path: Path
) -> None:
    chain = Chain()
    chain.write(secret("a", b"one"))
    number = chain.write(secret("a", b"two-secret-word"))
    chain.write(secret("a", b"three"))
    good = dict(chain.private)
    content = chain.private[number][0]
    unreadable = _forge(content, readable=False)
    sets = {"value": {0: _forge(content)}, "transaction": {1: content}, "no message": {0: unreadable}}
    bad = chain.private | {number: sets[forgery]}

    with pytest.raises(errors.PrivateDataHashError, match=f"1 private writes of block {number}") as caught:
        bring(tmp_path, database_url, chain.blocks, bad)

    assert "secret" not in str(caught.value)
    assert query(database_url, "SELECT block_number FROM ledger_checkpoint") == [(number - 1,)]
    assert private_rows(database_url)["secrets", b"a"][0] == b"one"
    bring(tmp_path, database_url, chain.blocks, good)
    assert private_rows(database_url)["secrets", b"a"][0] == b"three"


def test_a_broken_connection_applies_private_values_once(sqlite_url: str, tmp_path: Path) -> None:
    chain, private = load_chain(WEEK), read_private_sets(WEEK, "Enterprise")
    with recorded_peer(chain.blocks, private) as peer:
        peer.faults.extend(Fault(after, "cut") for after in (8, 1, 2, 15, 7))
        summary = sync_once(SyncSettings(peer_settings(tmp_path, [peer], private_data=True), sqlite_url))

    assert len(peer.asked) == 6
    assert summary.blocks == len(chain.blocks)
    held = {place: row[0] for place, row in private_rows(sqlite_url).items()}
    assert held == {place: value for place, value in answers(WEEK, "Enterprise").items() if value}


def test_follow_applies_private_values_as_they_come(sqlite_url: str, tmp_path: Path) -> None:
    chain = Chain()
    chain.write(secret("a", b"one"))
    log = tmp_path / "follow.log"
    with recorded_peer(chain.blocks, chain.private) as peer:
        options = command_options(peer_settings(tmp_path, [peer], private_data=True))
        with kvr_running(log, "sync", "follow", *options, "--into", sqlite_url) as process:
            wait_until(lambda: _held(sqlite_url) == {b"one"}, "the first value is there")
            chain.write(secret("a", b"two"))
            peer.append(chain.blocks[-1])
            wait_until(lambda: _held(sqlite_url) == {b"two"}, "the second value is there")
            chain.write(purge("a", collection="secrets"))
            peer.append(chain.blocks[-1])
            wait_until(lambda: _held(sqlite_url) == set(), "the purge has come")
            process.send_signal(signal.SIGTERM)

            assert process.wait(20) == 0, log.read_text()


def _held(url: str) -> set[bytes] | None:
    try:
        return {row[0] for row in private_rows(url).values()}
    except NO_TABLES:
        return None


def test_an_unfit_value_is_quarantined_without_its_bytes_and_takes_the_row_before_it(
    database_url: str, tmp_path: Path
) -> None:
    mapping = tmp_path / "secrets.yaml"
    mapping.write_text(PROFILES.replace("entCust", "secrets"))
    chain = Chain()
    chain.write(secret("a", b'{"name": "good"}'))
    chain.write(secret("a", b'{"name": 17}'))

    bring(tmp_path, database_url, chain.blocks, chain.private, mapping=mapping)

    assert query(database_url, "SELECT * FROM customer_profiles") == []
    found = query(database_url, "SELECT table_name, reason, value FROM ledger_quarantine")
    assert [(row[0], row[1], bytes(row[2])) for row in found] == [("customer_profiles", "wrong_type", b"")]
    assert private_rows(database_url)["secrets", b"a"][0] == b'{"name": 17}'


def test_a_database_holds_private_data_from_its_first_block_or_never(sqlite_url: str, tmp_path: Path) -> None:
    chain = Chain()
    chain.write(secret("a", b"one"))
    file = write_records(tmp_path / "blocks", chain.blocks)
    bring(tmp_path, sqlite_url, chain.blocks, chain.private)

    with pytest.raises(errors.ConfigurationError, match="holds the private data of EnterpriseMSP"):
        sync_once(SyncSettings(file, sqlite_url))
    with pytest.raises(errors.ConfigurationError, match="holds the private data of EnterpriseMSP"):
        bring(tmp_path, sqlite_url, chain.blocks, chain.private, msp_id="CustomerMSP")

    public = f"sqlite:///{tmp_path / 'public.db'}"
    sync_once(SyncSettings(file, public))
    with pytest.raises(errors.ConfigurationError, match=r"was filled up to block 2 without private data"):
        bring(tmp_path, public, chain.blocks, chain.private)


def test_a_purged_value_leaves_the_file(sqlite_url: str, tmp_path: Path) -> None:
    value = b"purge-me-" * 2_000
    chain = Chain()
    chain.write(secret("a", value))
    bring(tmp_path, sqlite_url, chain.blocks, chain.private)
    file = tmp_path / "kvr.db"
    assert value[:90] in file.read_bytes()
    chain.write(purge("a", collection="secrets"))

    bring(tmp_path, sqlite_url, chain.blocks, chain.private)

    assert value[:90] not in file.read_bytes()
