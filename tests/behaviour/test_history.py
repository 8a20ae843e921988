"""`kvr audit history`: who wrote a key, what, when, where, and why a write counts or does not."""

import base64
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from fabric_protos.msp import identities_pb2

from kvr_sync.audit.history import FoundKey, HistoryEntry, describe_history, find_keys, read_history
from kvr_sync.jobs import SyncSettings, sync_once
from kvr_sync.read import SyncedTables, open_tables
from tests.support.chain_factory import ChainFactory, TransactionSpec, put
from tests.support.envelope import change_headers
from tests.support.oracle import Key, Ledger, read_ledger
from tests.support.recorded_chain import load_chain, write_records

SERVICE_WEEK = load_chain("fabric-3.1.5-service-week")
OUTCOMES = load_chain("fabric-3.1.5-raft")
BAD_CREATOR_SIGNATURE = 4


@pytest.fixture(scope="module")
def week_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    url = f"sqlite:///{tmp_path_factory.mktemp('history')}/week.db"
    sync_once(SyncSettings(SERVICE_WEEK.path, url))
    return url


@pytest.fixture
def week(week_url: str) -> Iterator[SyncedTables]:
    with open_tables(week_url) as synced:
        yield synced


@pytest.fixture
def outcomes(database_url: str) -> Iterator[SyncedTables]:
    sync_once(SyncSettings(OUTCOMES.path, database_url))
    with open_tables(database_url) as synced:
        yield synced


def history_of(synced: SyncedTables, text: str) -> list[HistoryEntry]:
    (found,) = find_keys(synced, text)
    return read_history(synced, found)


def words(synced: SyncedTables, text: str) -> list[str]:
    (found,) = find_keys(synced, text)
    return list(describe_history(found, read_history(synced, found)))


# --- against the oracle


def test_the_history_of_every_key_is_what_the_oracle_says(outcomes: SyncedTables) -> None:
    ledger = read_ledger(OUTCOMES.blocks)
    keys = sorted({write.key for write in ledger.writes})

    found = {key: read_history(outcomes, _find(outcomes, key)) for key in keys}

    assert len(keys) > 40
    for key in keys:
        applied = [entry for entry in found[key] if entry.effect != "refused"]
        assert [facts(entry) for entry in applied] == expected(ledger, key)
    refused = {(entry.block_number, entry.tx_number) for entries in found.values() for entry in entries} - {
        (write.block, write.tx) for write in ledger.writes
    }
    codes = {(fact.block, fact.tx): fact.code for fact in ledger.transactions}
    assert refused
    assert 0 not in {codes[position] for position in refused}


def _find(synced: SyncedTables, key: Key) -> FoundKey:
    (found,) = [each for each in find_keys(synced, "0x" + key[2].hex(), namespace=key[0]) if each.collection == key[1]]
    return found


def facts(entry: HistoryEntry) -> tuple[Any, ...]:
    return (
        entry.block_number,
        entry.tx_number,
        entry.write_number,
        entry.kind.replace("_", " "),
        entry.effect,
        entry.value,
        entry.tx_id,
        entry.msp_id,
        entry.validation_code,
        entry.chaincode,
        entry.function,
        entry.claimed_time,
    )


def expected(ledger: Ledger, key: Key) -> list[tuple[Any, ...]]:
    transactions = {(fact.block, fact.tx): fact for fact in ledger.transactions}
    rows = []
    for write in ledger.writes:
        if write.key != key:
            continue
        fact = transactions[write.block, write.tx]
        assert fact.seconds is not None
        moment = datetime.fromtimestamp(fact.seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        rows.append(
            (
                write.block,
                write.tx,
                write.number,
                write.kind,
                write.effect,
                write.written,
                write.tx_id,
                write.msp_id,
                "VALID",
                fact.chaincode,
                None if fact.function is None else fact.function.decode(),
                f"{moment}.{fact.nanos:09d}Z",
            )
        )
    return rows


# --- what people ask


def test_a_request_that_two_clerks_took_at_once_shows_both_attempts(week: SyncedTables) -> None:
    entries = history_of(week, "request/R-2026-0040")

    refused = [entry for entry in entries if entry.effect == "refused"]
    assert [(entry.block_number, entry.tx_number) for entry in refused] == [(203, 1)]
    assert refused[0].validation_code == "MVCC_READ_CONFLICT"
    assert refused[0].reason == "somebody else changed a key this transaction had read"
    first, second = (entry for entry in entries if entry.block_number == 203)
    assert (first.effect, first.validation_code) == ("put", "VALID")
    assert first.tx_id != second.tx_id
    recorded = {
        (entry["block"], entry["tx"]): (entry["tx_id"], entry["code"])
        for entry in SERVICE_WEEK.expected["transactions"]
    }
    assert [(entry.tx_id, entry.validation_code) for entry in entries] == [
        recorded[entry.block_number, entry.tx_number] for entry in entries
    ]
    assert all(entry.value is not None for entry in (first, second))


def test_in_words_it_says_who_when_where_what_and_why_not(week: SyncedTables) -> None:
    lines = words(week, "request/R-2026-0040")

    assert lines[0].startswith("Key request/R-2026-0040 in ext: ")
    assert lines[0].endswith(f" {(len(lines) - 1) // 2} writes")
    at = next(number for number, line in enumerate(lines) if line.startswith("  block 203, transaction 1, 2026-"))
    assert "EnterpriseMSP (User2@enterprise.local)" in lines[at]
    assert lines[at].endswith(" by ext.rmw")
    assert lines[at + 1].startswith(
        "    REFUSED, MVCC_READ_CONFLICT (somebody else changed a key this transaction had read): would write: "
    )
    assert " -> " in lines[at + 1]


def test_a_key_level_policy_is_an_entry_of_its_own_kind(outcomes: SyncedTables) -> None:
    entries = history_of(outcomes, "sbe")

    assert [(entry.block_number, entry.kind, entry.effect, entry.validation_code) for entry in entries] == [
        (61, "put", "put", "VALID"),
        (62, "metadata", "version", "VALID"),
        (63, "put", "refused", "ENDORSEMENT_POLICY_FAILURE"),
        (64, "put", "put", "VALID"),
    ]
    assert [entry.value for entry in entries] == [b"1", None, b"2", b"3"]
    lines = words(outcomes, "sbe")
    assert lines[4] == "    set its key-level policy; the value stays"
    assert lines[6].startswith("    REFUSED, ENDORSEMENT_POLICY_FAILURE (")


def test_a_private_key_is_found_by_its_name_and_shows_hashes(outcomes: SyncedTables) -> None:
    (found,) = find_keys(outcomes, "deal0")

    entries = read_history(outcomes, found)

    assert (found.namespace, found.collection) == ("ext", "entCust")
    assert found.key == sha256(b"deal0").digest()
    assert [entry.block_number for entry in entries] == [45, 49]
    assert entries[1].value == sha256(b"second").digest()
    assert entries[1].as_json()["value_hash"] == sha256(b"second").hexdigest()
    assert not {"value", "value_base64"} & set(entries[1].as_json())
    assert words(outcomes, "deal0")[-1] == f"    wrote: a value with SHA-256 {sha256(b'second').hexdigest()}"


def test_a_private_key_is_found_by_its_hash(outcomes: SyncedTables) -> None:
    assert find_keys(outcomes, "0x" + sha256(b"deal0").hexdigest()) == find_keys(outcomes, "deal0")


def test_deletes_and_purges_are_told_apart(outcomes: SyncedTables) -> None:
    assert [(entry.kind, entry.effect) for entry in history_of(outcomes, "deal1")][-1] == ("delete", "delete")
    assert [(entry.kind, entry.effect) for entry in history_of(outcomes, "deal2")][-1] == ("purge", "delete")
    assert words(outcomes, "deal1")[-1] == "    deleted the key"
    assert words(outcomes, "deal2")[-1] == "    purged the key"


def test_a_withdrawn_request_ends_with_a_delete(week: SyncedTables) -> None:
    deleted = [key for key, value in SERVICE_WEEK.state.items() if value is None and key.startswith(b"\0request\0")]

    entries = read_history(week, _find(week, ("ext", "", deleted[0])))

    assert (entries[-1].kind, entries[-1].effect, entries[-1].value) == ("delete", "delete", None)


@pytest.mark.parametrize(
    "text", ["request/R-2026-0040", "\0request\0R-2026-0040\0", "0x" + b"\0request\0R-2026-0040\0".hex()]
)
def test_a_composite_key_may_be_written_in_three_ways(text: str, week: SyncedTables) -> None:
    (found,) = find_keys(week, text)

    assert found.key == b"\0request\0R-2026-0040\0"
    assert found.shown == "request/R-2026-0040 in ext"


def test_a_simple_key_that_looks_like_something_else_is_found_as_it_is(database_url: str, tmp_path: Path) -> None:
    factory = ChainFactory()
    factory.block([TransactionSpec([put("a/b", b"1"), put("0x12", b"2"), put("\0a\0b\0", b"3"), put("\x12", b"4")])])
    sync_once(SyncSettings(write_records(tmp_path / "blocks", factory.blocks), database_url))

    with open_tables(database_url) as synced:
        slashed = {found.key for found in find_keys(synced, "a/b")}
        hexadecimal = {found.key for found in find_keys(synced, "0x12")}

    assert slashed == {b"a/b", b"\0a\0b\0"}
    assert hexadecimal == {b"0x12", b"\x12"}


def test_a_key_of_several_chaincodes_can_be_narrowed_down(database_url: str, tmp_path: Path) -> None:
    factory = ChainFactory()
    factory.block([TransactionSpec([put("k", b"1"), put("k", b"2", namespace="other")])])
    sync_once(SyncSettings(write_records(tmp_path / "blocks", factory.blocks), database_url))

    with open_tables(database_url) as synced:
        assert {found.namespace for found in find_keys(synced, "k")} == {"ext", "other"}
        (found,) = find_keys(synced, "k", namespace="other")
        assert [entry.value for entry in read_history(synced, found)] == [b"2"]
        assert find_keys(synced, "k", namespace="third") == []


@pytest.mark.parametrize(
    "text", ["no such key", "request/R-1999-0001", "0x", "0xzz", "", "/", "caf\udce9", "0x" + "00" * 32]
)
def test_a_key_that_nobody_wrote_is_not_found(text: str, week: SyncedTables) -> None:
    assert find_keys(week, text) == []


# --- the JSON form


def test_the_json_form_says_everything(week: SyncedTables) -> None:
    entries = history_of(week, "request/R-2026-0040")

    found = json.loads(json.dumps([entry.as_json() for entry in entries]))

    assert all(
        set(entry)
        == {
            "block_number",
            "tx_number",
            "write_number",
            "tx_id",
            "claimed_time",
            "msp_id",
            "subject",
            "chaincode",
            "function",
            "validation_code",
            "reason",
            "kind",
            "effect",
            "value",
        }
        for entry in found
    )
    assert [json.loads(entry["value"])["id"] for entry in found] == ["R-2026-0040"] * len(found)
    assert {entry["msp_id"] for entry in found} <= {"EnterpriseMSP", "CustomerMSP", "PartnerMSP"}
    assert {entry["subject"] for entry in found} >= {"User1@customer.local", "User2@enterprise.local"}


def test_a_value_that_is_no_text_is_given_in_base64() -> None:
    assert entry_with(value=b"\xff\x00").as_json()["value_base64"] == "/wA="
    assert "value" not in entry_with(value=b"\xff\x00").as_json()


# --- hostile content


def entry_with(**changed: Any) -> HistoryEntry:
    usual: dict[str, Any] = {
        "block_number": 1,
        "tx_number": 0,
        "write_number": 0,
        "tx_id": "t",
        "claimed_time": "2026-11-06T10:00:00.000000000Z",
        "msp_id": "EnterpriseMSP",
        "subject": "User1",
        "chaincode": "ext",
        "function": "put",
        "validation_code": "VALID",
        "reason": "accepted",
        "kind": "put",
        "effect": "put",
        "value": b"1",
        "is_hashed": False,
    }
    return HistoryEntry(**(usual | changed))


HOSTILE = "x\n  block 9, transaction 9: AuditorMSP\x1b[2J\x9b31m\u202e\r"


@pytest.mark.parametrize(
    "entry",
    [
        entry_with(function=HOSTILE),
        entry_with(subject=HOSTILE),
        entry_with(msp_id=HOSTILE),
        entry_with(chaincode=HOSTILE),
        entry_with(value=json.dumps({HOSTILE: 1}).encode()),
        entry_with(value=json.dumps({"a": HOSTILE}).encode()),
        entry_with(value=HOSTILE[:20].encode()),
    ],
    ids=["function", "subject", "msp", "chaincode", "name in a document", "text in a document", "value"],
)
def test_nothing_on_the_ledger_can_forge_a_line_or_steer_the_terminal(entry: HistoryEntry) -> None:
    found = FoundKey(1, "ext", "", b"k")

    lines = list(describe_history(found, [entry]))

    assert len(lines) == 3
    assert all(line.isprintable() for line in lines)


def test_a_key_cannot_forge_a_line_either() -> None:
    for key in (HOSTILE.encode(), b"\0" + HOSTILE.encode() + b"\0a\0"):
        lines = list(describe_history(FoundKey(1, HOSTILE, "", key), []))

        assert len(lines) == 1
        assert lines[0].isprintable()


def test_chinese_and_accents_are_shown_as_they_are() -> None:
    entry = entry_with(value='{"客户": "Zoë 浦口"}'.encode(), subject="王芳")

    lines = list(describe_history(FoundKey(1, "ext", "", "客户".encode()), [entry]))

    assert lines[0] == "Key 客户 in ext: 1 writes"
    assert "(王芳)" in lines[1]
    assert lines[2] == '    wrote: 客户: "Zoë 浦口"'


@pytest.mark.parametrize("depth", [*range(100, 1000, 50), 100_000])
def test_values_nested_without_end_are_described_all_the_same(depth: int) -> None:
    nested = b'{"a":' + b"[" * depth + b"]" * depth + b"}"

    lines = list(describe_history(FoundKey(1, "ext", "", b"k"), [entry_with(value=nested)]))

    assert len(lines) == 3
    assert len(lines[2]) < 200


def certificate_of_version(version: int) -> bytes:
    """Give a certificate whose version number no library knows."""
    identity = identities_pb2.SerializedIdentity.FromString(ChainFactory().organisations[0].client.identity)
    content = bytearray(x509.load_pem_x509_certificate(identity.id_bytes).public_bytes(Encoding.DER))
    content[content.index(b"\xa0\x03\x02\x01\x02") + 4] = version
    return b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(bytes(content)) + b"-----END CERTIFICATE-----\n"


def sync_refused_envelope(url: str, folder: Path, change: Callable[[Any, Any], None]) -> None:
    """Sync a chain with a refused write of the key `k`, whose headers were changed."""
    factory = ChainFactory()
    envelope = change_headers(factory.envelope(TransactionSpec([put("k", b"1")])), change)
    factory.block([TransactionSpec(envelope=envelope, code=BAD_CREATOR_SIGNATURE)])
    sync_once(SyncSettings(write_records(folder / "blocks", factory.blocks), url))


@pytest.mark.parametrize("pem", [certificate_of_version(9), b"no certificate", b""], ids=["version", "text", "nothing"])
def test_a_submitter_whose_certificate_cannot_be_read_is_named_by_msp_alone(
    pem: bytes, sqlite_url: str, tmp_path: Path
) -> None:
    def change(_: Any, signature_header: Any) -> None:
        identity = identities_pb2.SerializedIdentity(mspid="StrangerMSP", id_bytes=pem)
        signature_header.creator = identity.SerializeToString()

    sync_refused_envelope(sqlite_url, tmp_path, change)

    with open_tables(sqlite_url) as synced:
        (entry,) = history_of(synced, "k")
        lines = words(synced, "k")
    assert (entry.msp_id, entry.subject, entry.effect) == ("StrangerMSP", None, "refused")
    assert ": StrangerMSP by ext.put" in lines[1]


@pytest.mark.parametrize(
    ("seconds", "nanos", "shown"),
    [
        (0, 5, "1970-01-01T00:00:00.000000005Z"),
        (-62135596800, 0, "0001-01-01T00:00:00.000000000Z"),
        (2**62, 0, f"{2**62} s and 0 ns after 1970"),
        (0, -1, "0 s and -1 ns after 1970"),
        (1, 2_000_000_000, "1 s and 2000000000 ns after 1970"),
    ],
)
def test_times_that_no_clock_shows_are_told_all_the_same(
    seconds: int, nanos: int, shown: str, sqlite_url: str, tmp_path: Path
) -> None:
    def change(channel_header: Any, _: Any) -> None:
        channel_header.timestamp.seconds, channel_header.timestamp.nanos = seconds, nanos

    sync_refused_envelope(sqlite_url, tmp_path, change)

    with open_tables(sqlite_url) as synced:
        (entry,) = history_of(synced, "k")
    assert entry.claimed_time == shown
