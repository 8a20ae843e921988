"""What a running contract sees of the ledger and does to it, request by request."""

from collections.abc import Awaitable, Callable
from hashlib import sha256
from typing import Any

import pytest
from fabric_protos.ledger.queryresult import kv_query_result_pb2
from fabric_protos.peer import chaincode_shim_pb2, proposal_pb2, proposal_response_pb2

from network.embedded.ledger.chaincode import RequestRefusedError
from network.embedded.ledger.simulation import TOTAL_QUERY_LIMIT
from network.protocol.errors import DecodeError
from network.protocol.lifecycle import field_key
from network.protocol.policy_expression import encode_policy_expression
from network.protocol.read_write_set import MetadataEntry, NamespaceSet, Version, decode_read_write_set
from network.protocol.state import StateUpdate
from network.protocol.validation_code import ENDORSEMENT_POLICY_FAILURE, MVCC_READ_CONFLICT, VALID
from tests.support.embedded_ledger import (
    CUSTOMER,
    SERVICE,
    Behaviour,
    LedgerNetwork,
    Stub,
    put,
)

PAGED = (
    "unsuppored transaction. Transaction has already performed a paginated query. Writes are not allowed",
    "unsuppored transaction. Paginated queries are supported only in a read-only transaction",
)
PRIVATE = (
    "unsuppored transaction. Transaction has already performed queries on pvt data. Writes are not allowed",
    "unsuppored transaction. Queries on pvt data is supported only in a read-only transaction",
)


def sets_of(response: Any) -> dict[str, NamespaceSet]:
    """Read the read-write set of an endorsement, by namespace."""
    payload = proposal_response_pb2.ProposalResponsePayload.FromString(response.payload)
    action = proposal_pb2.ChaincodeAction.FromString(payload.extension)
    return {found.namespace: found for found in decode_read_write_set(action.results)}


def simulated(network: LedgerNetwork, behaviour: Behaviour, **fields: Any) -> dict[str, NamespaceSet]:
    """Give the read-write set that a behaviour comes to."""

    async def story() -> Any:
        response = await network.propose(SERVICE, behaviour, **fields)
        assert response.response.status == 200, response.response.message
        return response

    return sets_of(network.run(story()))


def fill(network: LedgerNetwork, count: int) -> None:
    """Give the peer of Service keys that no block wrote: it endorses, and nobody commits."""
    rows = [(("asset", "", b"k%06d" % number), StateUpdate(b"%d" % number, Version(1, 0))) for number in range(count)]
    store = network.channel(SERVICE).store
    with store.transaction():
        store.write_state(rows)


def committed(network: LedgerNetwork, *behaviours: Behaviour) -> None:
    async def story() -> None:
        for behaviour in behaviours:
            assert await network.commit(behaviour) == VALID

    network.run(story())


# --- keys


def test_a_write_is_not_read_back(network: LedgerNetwork) -> None:
    committed(network, put("a", b"before"))

    async def behave(stub: Stub) -> None:
        await stub.put("a", b"after")
        assert await stub.get("a") == b"before"
        await stub.delete("a")
        assert await stub.get("a") == b"before"
        await stub.put("new", b"1")
        assert await stub.get("new") == b""
        found = await stub.range("", "")
        assert [kv_query_result_pb2.KV.FromString(row.resultBytes).key for row in found.results] == ["a"]

    sets = simulated(network, behave)

    assert sets["asset"].writes == (("a", True, b""), ("new", False, b"1"))


def test_a_key_is_read_once_with_the_version_of_the_last_block(network: LedgerNetwork) -> None:
    committed(network, put("a", b"1"))
    height = network.channel(SERVICE).height

    async def behave(stub: Stub) -> None:
        for key in ("b", "a", "a", "b"):
            await stub.get(key)

    sets = simulated(network, behave)

    assert sets["asset"].reads == (("a", (height - 1, 0)), ("b", None))
    # That the chaincode was looked up is a read as well: a new definition makes the transaction invalid.
    assert [read.key for read in sets["_lifecycle"].reads] == [field_key("asset", "Sequence")]


def test_several_keys_are_read_in_the_order_asked_for(network: LedgerNetwork) -> None:
    committed(network, put("a", b"1"), put("b", b"2"))

    async def behave(stub: Stub) -> None:
        request = chaincode_shim_pb2.GetStateMultiple(keys=["b", "none", "a"])
        found = await stub.ask("GET_STATE_MULTIPLE", request, chaincode_shim_pb2.GetStateMultipleResult)
        assert list(found.values) == [b"2", b"", b"1"]

    assert [read.key for read in simulated(network, behave)["asset"].reads] == ["a", "b", "none"]


def test_several_private_keys_are_read_without_looking_at_their_hashes(network: LedgerNetwork) -> None:
    """As on a real peer: what this one lacks looks absent, and validation finds out."""
    network.run(network.commit(put("p", b"1", "pair"), [SERVICE]))
    network.channel(SERVICE).store.delete_private("asset", "pair", sha256(b"p").digest())

    async def one(stub: Stub) -> None:
        await stub.get("p", "pair")

    async def several(stub: Stub) -> None:
        request = chaincode_shim_pb2.GetStateMultiple(keys=["p", "none"], collection="pair")
        found = await stub.ask("GET_STATE_MULTIPLE", request, chaincode_shim_pb2.GetStateMultipleResult)
        assert list(found.values) == [b"", b""]

    (part,) = simulated(network, several)["asset"].collections
    assert {read.version for read in part.reads} == {None}
    assert "is not available" in network.run(network.refusal(one))
    assert network.run(network.commit(several, [SERVICE])) == ENDORSEMENT_POLICY_FAILURE
    assert network.run(network.commit(several)) == MVCC_READ_CONFLICT


def test_private_keys_that_are_there_come_in_the_order_asked_for(network: LedgerNetwork) -> None:
    async def write(stub: Stub) -> None:
        await stub.put("p", b"1", "pair")
        await stub.put("q", b"2", "pair")

    async def behave(stub: Stub) -> None:
        request = chaincode_shim_pb2.GetStateMultiple(keys=["q", "none", "p"], collection="pair")
        found = await stub.ask("GET_STATE_MULTIPLE", request, chaincode_shim_pb2.GetStateMultipleResult)
        assert list(found.values) == [b"2", b"", b"1"]
        refused = chaincode_shim_pb2.GetStateMultiple(keys=["q"], collection="none")
        with pytest.raises(RequestRefusedError, match="collection consortium/asset/none could not be found"):
            await stub.ask("GET_STATE_MULTIPLE", refused)

    network.run(network.commit(write, [SERVICE]))
    assert network.run(network.evaluate(behave)) == b""


def test_a_batch_of_writes_is_the_writes_one_by_one(network: LedgerNetwork) -> None:
    kinds = chaincode_shim_pb2.WriteRecord
    note = chaincode_shim_pb2.StateMetadata(metakey="note", value=b"1")

    async def behave(stub: Stub) -> None:
        records = [
            kinds(key="a", value=b"1", type=kinds.PUT_STATE),
            kinds(key="b", type=kinds.DEL_STATE),
            kinds(key="c", metadata=note, type=kinds.PUT_STATE_METADATA),
            kinds(key="p", value=b"1", collection="pair", type=kinds.PUT_STATE),
            kinds(key="q", collection="pair", type=kinds.PURGE_PRIVATE_DATA),
        ]
        await stub.ask("WRITE_BATCH_STATE", chaincode_shim_pb2.WriteBatchState(rec=records))

    found = simulated(network, behave)["asset"]

    assert found.writes == (("a", False, b"1"), ("b", True, b""))
    assert found.metadata_writes == (("c", (MetadataEntry("note", b"1"),)),)
    (part,) = found.collections
    assert sorted(write.is_purge for write in part.writes) == [False, True]


def test_what_a_failing_batch_wrote_before_stays(network: LedgerNetwork) -> None:
    kinds = chaincode_shim_pb2.WriteRecord

    async def behave(stub: Stub) -> None:
        records = [
            kinds(key="a", value=b"1", type=kinds.PUT_STATE),
            kinds(key="b", type=kinds.PURGE_PRIVATE_DATA),
            kinds(key="c", value=b"1", type=kinds.PUT_STATE),
        ]
        with pytest.raises(RequestRefusedError, match="only applicable for private data"):
            await stub.ask("WRITE_BATCH_STATE", chaincode_shim_pb2.WriteBatchState(rec=records))
        with pytest.raises(RequestRefusedError, match="unknown operation type"):
            await stub.ask("WRITE_BATCH_STATE", chaincode_shim_pb2.WriteBatchState(rec=[kinds(key="d", type=99)]))

    assert simulated(network, behave)["asset"].writes == (("a", False, b"1"),)


def test_metadata_takes_the_place_of_all_metadata(network: LedgerNetwork) -> None:
    async def note(stub: Stub) -> None:
        await stub.put_metadata("a", b"1", name="first")

    async def note_again(stub: Stub) -> None:
        await stub.put_metadata("a", b"2", name="second")

    async def ask(stub: Stub) -> list[tuple[str, bytes]]:
        request = chaincode_shim_pb2.GetStateMetadata(key="a")
        found = await stub.ask("GET_STATE_METADATA", request, chaincode_shim_pb2.StateMetadataResult)
        return [(entry.metakey, entry.value) for entry in found.entries]

    async def look(stub: Stub) -> bytes:
        assert await ask(stub) == [("second", b"2")]
        return await stub.get("a")

    committed(network, put("a", b"value"), note, note_again)

    sets = simulated(network, look)
    assert sets["asset"].reads == (("a", (network.channel(SERVICE).height - 1, 0)),)
    assert network.run(network.evaluate(look)) == b"value"


def test_a_key_can_have_a_policy_of_its_own(network: LedgerNetwork) -> None:
    """From then on its endorsers are others than the chaincode's."""
    policy = encode_policy_expression("OR('BillingMSP.peer')")

    async def protect(stub: Stub) -> None:
        await stub.put_metadata("a", policy, name="VALIDATION_PARAMETER")

    async def story() -> list[int]:
        codes = [await network.commit(put("a", b"1")), await network.commit(protect)]
        codes.append(await network.commit(put("a", b"2")))
        codes.append(await network.commit(put("a", b"3"), ["peer0.billing"]))
        answer = await network.propose(SERVICE, put("a", b"4"))
        assert [list(call.key_policies) != [] for call in answer.interest.chaincodes] == [True]
        return codes

    assert network.run(story()) == [VALID, VALID, ENDORSEMENT_POLICY_FAILURE, VALID]


@pytest.mark.parametrize("private", ["", "pair"])
@pytest.mark.parametrize("content", [b"\xff", b"\x12", b"no policy"])
def test_a_policy_of_a_key_that_nobody_could_judge_by_is_refused(
    network: LedgerNetwork, content: bytes, private: str
) -> None:
    kinds = chaincode_shim_pb2.WriteRecord
    metadata = chaincode_shim_pb2.StateMetadata(metakey="VALIDATION_PARAMETER", value=content)
    record = kinds(key="a", metadata=metadata, collection=private, type=kinds.PUT_STATE_METADATA)
    words = "VALIDATION_PARAMETER is no SignaturePolicyEnvelope"

    async def behave(stub: Stub) -> None:
        with pytest.raises(RequestRefusedError, match=f"^{words}.*: nobody could judge writes") as raised:
            await stub.put_metadata("a", content, private, name="VALIDATION_PARAMETER")
        assert "no policy" not in str(raised.value)
        with pytest.raises(RequestRefusedError, match=words):
            await stub.ask("WRITE_BATCH_STATE", chaincode_shim_pb2.WriteBatchState(rec=[record]))
        await stub.put_metadata("a", content, private)

    found = simulated(network, behave)["asset"]
    names = [entry.name for change in found.metadata_writes for entry in change.entries]
    names += [e.name for part in found.collections for change in part.metadata_writes for e in change.entries]
    assert names == ["note"]


@pytest.mark.parametrize("content", [b"", b"\x08\x00", encode_policy_expression("OR('BillingMSP.peer')")])
def test_a_policy_of_a_key_that_real_peers_can_read_is_taken(network: LedgerNetwork, content: bytes) -> None:
    async def behave(stub: Stub) -> None:
        await stub.put("a", b"1")
        await stub.put_metadata("a", content, name="VALIDATION_PARAMETER")

    (change,) = simulated(network, behave)["asset"].metadata_writes
    assert change.entries == (MetadataEntry("VALIDATION_PARAMETER", content),)


def test_metadata_that_is_not_there_is_refused_as_by_a_real_peer(network: LedgerNetwork) -> None:
    async def behave(stub: Stub) -> None:
        with pytest.raises(RequestRefusedError, match=r"^panic during execution$"):
            await stub.ask("PUT_STATE_METADATA", chaincode_shim_pb2.PutStateMetadata(key="a"))

    assert network.run(network.evaluate(behave)) == b""


def test_a_private_key_has_a_policy_of_its_own(network: LedgerNetwork) -> None:
    """From then on its endorsers are others than the collection's; everybody is told so who plans endorsements."""
    policy = encode_policy_expression("OR('CustomerMSP.peer')")

    async def protect(stub: Stub) -> None:
        await stub.put("p", b"1", "pair")
        await stub.put_metadata("p", policy, "pair", name="VALIDATION_PARAMETER")

    async def story() -> list[int]:
        codes = [await network.commit(protect, [SERVICE])]
        codes += [await network.commit(put("p", b"2", "pair"), [peer]) for peer in (SERVICE, CUSTOMER)]
        codes.append(await network.commit(put("q", b"1", "pair"), [CUSTOMER]))
        answer = await network.propose(SERVICE, put("p", b"3", "pair"))
        (call,) = answer.interest.chaincodes
        assert [it.SerializeToString(deterministic=True) for it in call.key_policies] == [policy]
        return codes

    assert network.run(story()) == [VALID, ENDORSEMENT_POLICY_FAILURE, VALID, ENDORSEMENT_POLICY_FAILURE]


@pytest.mark.parametrize("private", ["", "pair"])
def test_a_key_whose_policy_changes_in_a_block_is_not_written_again_in_it(network: LedgerNetwork, private: str) -> None:
    peers = [SERVICE] if private else [SERVICE, CUSTOMER]
    policy = encode_policy_expression("OR('ServiceMSP.peer', 'BillingMSP.peer')")

    async def protect(stub: Stub) -> None:
        await stub.put("a", b"1", private)
        await stub.put_metadata("a", policy, private, name="VALIDATION_PARAMETER")

    async def story() -> list[int]:
        endorsed = [
            await network.endorse(behaviour, peers)
            for behaviour in (protect, put("a", b"2", private), put("b", b"1", private))
        ]
        for it in endorsed:
            await network.order(it)
        codes = [await network.wait(it.proposal.tx_id) for it in endorsed]
        heights = {network.channel(SERVICE).transaction_place(it.proposal.tx_id).block_number for it in endorsed}
        assert len(heights) == 1
        return [*codes, await network.commit(put("a", b"3", private), ["peer0.billing"])]

    assert network.run(story()) == [VALID, ENDORSEMENT_POLICY_FAILURE, VALID, VALID]


# --- ranges


async def all_rows(stub: Stub, found: Any) -> list[str]:
    keys = []
    while True:
        keys += [kv_query_result_pb2.KV.FromString(row.resultBytes).key for row in found.results]
        if not found.has_more:
            return keys
        found = await stub.next(found.id)


def test_a_range_has_its_start_and_not_its_end(network: LedgerNetwork) -> None:
    fill(network, 5)

    async def behave(stub: Stub) -> None:
        assert await all_rows(stub, await stub.range("k000001", "k000003")) == ["k000001", "k000002"]

    (query,) = simulated(network, behave)["asset"].range_queries
    assert (query.start_key, query.end_key, query.exhausted) == ("k000001", "k000003", True)
    assert query.raw_reads is not None
    assert [read.key for read in query.raw_reads] == ["k000001", "k000002"]


@pytest.mark.parametrize("count", [100, 101])
def test_rows_come_by_hundreds_and_the_next_one_is_read_already(network: LedgerNetwork, count: int) -> None:
    fill(network, count)

    async def behave(stub: Stub) -> None:
        found = await stub.range("", "")
        assert (len(found.results), found.has_more) == (100, count > 100)

    (query,) = simulated(network, behave)["asset"].range_queries
    assert (query.end_key, query.exhausted) == (("k000100", False) if count > 100 else ("", True))
    assert query.raw_reads is None
    assert query.merkle_summary is not None


def test_every_row_comes_once(network: LedgerNetwork) -> None:
    fill(network, 250)

    async def behave(stub: Stub) -> None:
        found = await stub.range("", "")
        assert await all_rows(stub, found) == [f"k{number:06d}" for number in range(250)]
        with pytest.raises(RequestRefusedError, match="query iterator not found"):
            await stub.next(found.id)

    (query,) = simulated(network, behave)["asset"].range_queries
    assert query.exhausted


def test_rows_beyond_the_limit_are_left_out_without_a_word(network: LedgerNetwork) -> None:
    fill(network, TOTAL_QUERY_LIMIT + 5)

    async def behave(stub: Stub) -> None:
        assert len(await all_rows(stub, await stub.range("", ""))) == TOTAL_QUERY_LIMIT == 100_000

    (query,) = simulated(network, behave)["asset"].range_queries
    assert (query.end_key, query.exhausted) == (f"k{TOTAL_QUERY_LIMIT - 1:06d}", False)


def test_a_page_comes_whole_with_the_bookmark_behind_it(network: LedgerNetwork) -> None:
    fill(network, 300)

    async def behave(stub: Stub) -> None:
        bookmark, pages = "", []
        while True:
            found = await stub.range("k000010", "", page=150, bookmark=bookmark)
            facts = chaincode_shim_pb2.QueryResponseMetadata.FromString(found.metadata)
            assert not found.has_more
            pages.append((len(found.results), facts.fetched_records_count, facts.bookmark))
            bookmark = facts.bookmark
            if not bookmark:
                break
        assert pages == [(150, 150, "k000160"), (140, 140, "")]

    queries = simulated(network, behave)["asset"].range_queries
    assert [(query.start_key, query.end_key, query.exhausted) for query in queries] == [
        ("k000010", "k000159", False),
        ("k000160", "", True),
    ]


@pytest.mark.parametrize(("page_size", "count"), [(0, 290), (-5, 290), (10, 10), (290, 290), (291, 290)])
def test_a_page_of_any_size_ends_where_it_should(network: LedgerNetwork, page_size: int, count: int) -> None:
    """A bookmark alone asks for pages too; what is no size is none."""
    fill(network, 300)

    async def behave(stub: Stub) -> None:
        found = await stub.range("", "", page=page_size, bookmark="k000010")
        facts = chaincode_shim_pb2.QueryResponseMetadata.FromString(found.metadata)
        assert (len(found.results), facts.fetched_records_count) == (count, count)
        assert facts.bookmark == ("" if count == 290 else "k000020")

    (query,) = simulated(network, behave)["asset"].range_queries
    assert (query.start_key, query.exhausted) == ("k000010", page_size not in (10, 290))


def closed(stub: Stub, iterator: str) -> Awaitable[Any]:
    request = chaincode_shim_pb2.QueryStateClose(id=iterator)
    return stub.ask("QUERY_STATE_CLOSE", request, chaincode_shim_pb2.QueryResponse)


def test_a_closed_iterator_is_gone_and_an_unknown_one_may_be_closed(network: LedgerNetwork) -> None:
    fill(network, 200)

    async def behave(stub: Stub) -> None:
        found = await stub.range("", "")
        assert (await closed(stub, found.id)).id == found.id
        assert (await closed(stub, "unknown")).id == "unknown"
        with pytest.raises(RequestRefusedError, match="query iterator not found"):
            await stub.next(found.id)

    assert simulated(network, behave)["asset"].range_queries


def test_iterators_are_bounded(network: LedgerNetwork) -> None:
    fill(network, 101)

    async def behave(stub: Stub) -> None:
        for _ in range(1000):
            found = await stub.range("", "")
        with pytest.raises(RequestRefusedError, match="more than 1000 open iterators"):
            await stub.range("", "")
        await closed(stub, found.id)
        await stub.range("", "")

    assert network.run(network.evaluate(behave)) == b""


async def page(stub: Stub) -> None:
    await stub.range("", "", page=10)


async def private_range(stub: Stub) -> None:
    await stub.range("", "", collection="pair")


async def write(stub: Stub) -> None:
    await stub.put("a", b"1")


async def write_private(stub: Stub) -> None:
    await stub.put("a", b"1", "pair")


async def write_metadata(stub: Stub) -> None:
    await stub.put_metadata("a", b"1")


@pytest.mark.parametrize("writing", [write, write_private, write_metadata])
@pytest.mark.parametrize(("query", "words"), [(page, PAGED), (private_range, PRIVATE)])
def test_such_queries_and_writes_exclude_each_other(
    network: LedgerNetwork,
    query: Callable[[Stub], Awaitable[None]],
    words: tuple[str, str],
    writing: Callable[[Stub], Awaitable[None]],
) -> None:
    async def query_first(stub: Stub) -> None:
        await query(stub)
        await writing(stub)

    async def write_first(stub: Stub) -> None:
        await writing(stub)
        await query(stub)

    async def story() -> list[str]:
        return [await network.refusal(query_first), await network.refusal(write_first)]

    found = network.run(story())

    assert [text.partition("]: ")[2] for text in found] == list(words)


def test_private_ranges_are_not_recorded(network: LedgerNetwork) -> None:
    committed_private = put("p", b"1", "pair")

    async def story() -> None:
        assert await network.commit(committed_private, [SERVICE]) == VALID

    async def behave(stub: Stub) -> None:
        assert await all_rows(stub, await stub.range("", "", collection="pair")) == ["p"]

    network.run(story())
    assert "asset" not in simulated(network, behave)


def test_rich_queries_are_refused_as_by_leveldb(network: LedgerNetwork) -> None:
    metadata = chaincode_shim_pb2.QueryMetadata(pageSize=5).SerializeToString()

    async def behave(stub: Stub) -> None:
        with pytest.raises(RequestRefusedError, match=r"^ExecuteQuery not supported for leveldb$"):
            await stub.ask("GET_QUERY_RESULT", chaincode_shim_pb2.GetQueryResult(query="{}"))
        with pytest.raises(RequestRefusedError, match=r"^ExecuteQueryWithMetadata not supported for leveldb$"):
            await stub.ask("GET_QUERY_RESULT", chaincode_shim_pb2.GetQueryResult(query="{}", metadata=metadata))

    assert network.run(network.evaluate(behave)) == b""


# --- history


def test_history_is_newest_first_and_of_valid_transactions(network: LedgerNetwork) -> None:
    async def delete(stub: Stub) -> None:
        await stub.delete("a")

    async def note(stub: Stub) -> None:
        await stub.put_metadata("a", b"1")

    async def story() -> list[str]:
        tx_ids = []
        for behaviour, peers in (
            (put("a", b"1"), ["peer0.billing", "peer0.customer"]),
            (put("a", b"2"), [SERVICE]),  # not endorsed by enough
            (put("a", b"3"), ["peer0.service", "peer0.customer"]),
            (note, ["peer0.service", "peer0.customer"]),
            (delete, ["peer0.service", "peer0.customer"]),
        ):
            tx_ids.append(await network.submit(behaviour, peers))
            await network.wait(tx_ids[-1])
        return tx_ids

    async def behave(stub: Stub) -> None:
        request = chaincode_shim_pb2.GetHistoryForKey(key="a")
        found = await stub.ask("GET_HISTORY_FOR_KEY", request, chaincode_shim_pb2.QueryResponse)
        rows = [kv_query_result_pb2.KeyModification.FromString(row.resultBytes) for row in found.results]
        assert [(row.tx_id, row.value, row.is_delete) for row in rows] == [
            (tx_ids[4], b"", True),
            (tx_ids[2], b"3", False),
            (tx_ids[0], b"1", False),
        ]
        assert rows[0].timestamp.seconds >= rows[2].timestamp.seconds > 1_700_000_000

    tx_ids = network.run(story())
    assert "asset" not in simulated(network, behave)


# --- requests that are none


REQUESTS = (
    "GET_STATE",
    "GET_STATE_MULTIPLE",
    "PUT_STATE",
    "DEL_STATE",
    "PURGE_PRIVATE_DATA",
    "GET_PRIVATE_DATA_HASH",
    "GET_STATE_METADATA",
    "PUT_STATE_METADATA",
    "WRITE_BATCH_STATE",
    "GET_STATE_BY_RANGE",
    "GET_QUERY_RESULT",
    "GET_HISTORY_FOR_KEY",
    "QUERY_STATE_NEXT",
    "QUERY_STATE_CLOSE",
    "INVOKE_CHAINCODE",
)


def test_a_payload_that_is_none_is_refused(network: LedgerNetwork) -> None:
    async def behave(stub: Stub) -> bytes:
        for name in REQUESTS:
            with pytest.raises(DecodeError):
                await stub.ask(name, b"\xff")
        request = chaincode_shim_pb2.GetStateByRange(metadata=b"\xff")
        with pytest.raises(DecodeError):
            await stub.ask("GET_STATE_BY_RANGE", request)
        return b"done"

    assert network.run(network.evaluate(behave)) == b"done"


@pytest.mark.parametrize("name", ["REGISTER", "TRANSACTION", "COMPLETED", "KEEPALIVE", "UNDEFINED"])
def test_what_is_no_request_is_refused(network: LedgerNetwork, name: str) -> None:
    async def behave(stub: Stub) -> None:
        await stub.ask(name)

    assert network.run(network.refusal(behave)).startswith("unknown request ")


def test_a_public_key_is_not_purged(network: LedgerNetwork) -> None:
    async def behave(stub: Stub) -> None:
        await stub.purge("a", "")

    assert network.run(network.refusal(behave)) == "only applicable for private data"
