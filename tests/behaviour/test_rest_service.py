"""The REST service on a ledger that tests script: tokens, one form of every error, one answer for each outcome."""

import json
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.testclient import TestClient

from gateway.api.app import BODY_BYTES, create_app
from gateway.api.errors import (
    AccessDeniedError,
    ConflictError,
    EndorsementError,
    NotFoundError,
    UpstreamUnavailableError,
)
from gateway.api.ledger import Ledger, Outcome, WriteResult
from gateway.api.tables import RequestTables
from gateway.api.token import TokenKey
from kvr_sync.jobs import SyncSettings, sync_once
from tests.support.recorded_chain import load_chain

TX_ID = "ab" * 32
REQUEST = {"request_id": "R-1", "customer": "C-1", "category": "billing", "title": "账单有误"}
WEEK = Path(__file__).parents[2] / "network" / "demo_data" / "service-week.mapping.yaml"


class ScriptedLedger:
    """A ledger that answers as it is told and remembers what it was asked."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.answer: WriteResult | Exception = WriteResult(Outcome.COMMITTED, TX_ID, "VALID", 7, b'{"id":"R-1"}')
        self.value: bytes | Exception = b'{"id":"R-1","status":"open"}'

    async def evaluate(self, user: str, function: str, arguments: Sequence[str]) -> bytes:
        self.calls.append((user, function, *arguments))
        if isinstance(self.value, Exception):
            raise self.value
        return self.value

    async def submit(
        self,
        user: str,
        function: str,
        arguments: Sequence[str],
        *,
        transient: Mapping[str, bytes] | None = None,
        endorsing_organizations: Sequence[str] = (),
    ) -> WriteResult:
        self.calls.append((user, function, *arguments))
        self.transient, self.organizations = transient, endorsing_organizations
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    async def transaction(self, user: str, tx_id: str) -> WriteResult:
        self.calls.append((user, "transaction", tx_id))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def ledger() -> ScriptedLedger:
    return ScriptedLedger()


@pytest.fixture
def key(tmp_path: Path) -> TokenKey:
    return TokenKey.read_or_create(tmp_path / "token.key")


def client_of(ledger: Ledger, key: TokenKey, tables: RequestTables | None = None) -> TestClient:
    @asynccontextmanager
    async def connect() -> AsyncIterator[Ledger]:
        yield ledger

    app = create_app(connect, key, tables=tables, collections={"billing": ("BillingMSP",)})
    token = key.issue("agent", now=int(time.time()), life_seconds=600)
    return TestClient(app, headers={"Authorization": f"Bearer {token}"}, raise_server_exceptions=False)


@pytest.fixture
def client(ledger: ScriptedLedger, key: TokenKey) -> Iterator[TestClient]:
    with client_of(ledger, key) as client:
        yield client


def assert_problem(response: httpx2.Response, status: int, code: str) -> dict[str, Any]:
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    content: dict[str, Any] = response.json()
    assert content["status"] == status
    assert content["code"] == code
    assert content["type"] == f"urn:kvr:problem:{code}"
    assert content["title"]
    return content


def test_a_committed_write_says_block_and_verdict(client: TestClient, ledger: ScriptedLedger) -> None:
    response = client.post("/v1/requests", json=REQUEST, headers={"Idempotency-Key": "key-0001"})

    assert response.status_code == 201
    assert response.json() == {
        "transaction": {
            "tx_id": TX_ID,
            "outcome": "committed",
            "validation_code": "VALID",
            "reason": "accepted",
            "block_number": 7,
            "href": f"/v1/transactions/{TX_ID}",
        },
        "result": {"id": "R-1"},
    }
    user, function, request_key, request_id, document = ledger.calls[0]
    assert (user, function, request_key, request_id) == ("agent", "open_request", "key-0001", "R-1")
    assert json.loads(document) == {
        "customer": "C-1",
        "category": "billing",
        "title": "账单有误",
        "priority": 3,
        "tags": [],
    }


def test_an_unknown_outcome_is_accepted_with_a_place_to_ask(client: TestClient, ledger: ScriptedLedger) -> None:
    ledger.answer = WriteResult(Outcome.UNKNOWN, TX_ID)

    response = client.post("/v1/requests", json=REQUEST)

    assert response.status_code == 202
    assert response.headers["location"] == f"/v1/transactions/{TX_ID}"
    assert response.json()["transaction"]["outcome"] == "unknown"
    assert response.json()["result"] is None


@pytest.mark.parametrize(
    ("code", "status", "problem"),
    [
        ("MVCC_READ_CONFLICT", 409, "commit_rejected"),
        ("PHANTOM_READ_CONFLICT", 409, "commit_rejected"),
        ("ENDORSEMENT_POLICY_FAILURE", 502, "commit_refused"),
    ],
)
def test_a_rejected_write_says_code_block_and_transaction(
    client: TestClient, ledger: ScriptedLedger, code: str, status: int, problem: str
) -> None:
    ledger.answer = WriteResult(Outcome.REJECTED, TX_ID, code, 9)

    content = assert_problem(client.post("/v1/requests", json=REQUEST), status, problem)

    assert (content["tx_id"], content["validation_code"], content["block_number"]) == (TX_ID, code, 9)


def test_writes_without_a_key_are_each_their_own(client: TestClient, ledger: ScriptedLedger) -> None:
    for _ in range(2):
        client.post("/v1/requests", json=REQUEST)

    assert ledger.calls[0][2] != ledger.calls[1][2]


@pytest.mark.parametrize(
    ("path", "body", "function", "arguments"),
    [
        ("/v1/requests/R-1/assignment", {"department": "field"}, "assign_request", ["R-1", "field"]),
        ("/v1/requests/next/assignment", {"department": "field"}, "assign_next", ["field"]),
        ("/v1/requests/R-1/resolution", {"resolution": "done"}, "resolve_request", ["R-1", '{"resolution": "done"}']),
        ("/v1/requests/R-1/closing", {"rating": 5}, "close_request", ["R-1", '{"rating": 5}']),
        (
            "/v1/customers",
            {"customer_id": "C-1", "kind": "household", "region": "鼓楼"},
            "register_customer",
            ["C-1", '{"kind": "household", "region": "\\u9f13\\u697c"}'],
        ),
    ],
)
def test_every_write_calls_its_function(  # a table
    client: TestClient,
    ledger: ScriptedLedger,
    path: str,
    body: dict[str, Any],
    function: str,
    arguments: list[str],
) -> None:
    response = client.post(path, json=body, headers={"Idempotency-Key": "key-0001"})

    assert response.status_code in (200, 201)
    assert ledger.calls == [("agent", function, "key-0001", *arguments)]


def test_a_profile_goes_as_transient_data_to_the_members_alone(client: TestClient, ledger: ScriptedLedger) -> None:
    body = {"collection": "billing", "reference": "ab" * 8, "name": "张伟"}

    assert client.post("/v1/customers/profiles", json=body).status_code == 201

    assert ledger.transient is not None
    profile = json.loads(ledger.transient["profile"])
    assert (profile["name"], profile["reference"], len(profile["salt"])) == ("张伟", "ab" * 8, 32)
    assert ledger.organizations == ("BillingMSP",)
    assert "张伟" not in str(ledger.calls)
    assert_problem(client.post("/v1/customers/profiles", json={**body, "collection": "other"}), 400, "invalid_request")


def test_reads_come_from_the_ledger(client: TestClient, ledger: ScriptedLedger) -> None:
    assert client.get("/v1/requests/R-1").json() == {"id": "R-1", "status": "open"}
    assert client.get("/v1/customers/C-1").status_code == 200
    assert ledger.calls == [("agent", "read_request", "R-1"), ("agent", "read_customer", "C-1")]


@pytest.mark.parametrize(
    ("result", "outcome"),
    [
        (WriteResult(Outcome.COMMITTED, TX_ID, "VALID", 3), "committed"),
        (WriteResult(Outcome.REJECTED, TX_ID, "MVCC_READ_CONFLICT", 3), "rejected"),
        (WriteResult(Outcome.UNKNOWN, TX_ID), "unknown"),
    ],
)
def test_a_transaction_has_one_of_three_outcomes(
    client: TestClient, ledger: ScriptedLedger, result: WriteResult, outcome: str
) -> None:
    ledger.answer = result

    content = client.get(f"/v1/transactions/{TX_ID}").json()

    assert (content["outcome"], content["block_number"]) == (outcome, result.block_number)


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (AccessDeniedError("no"), 403, "access_denied"),
        (NotFoundError("there is no request R-1"), 404, "not_found"),
        (ConflictError("it is open"), 409, "conflict"),
        (EndorsementError(tx_id=TX_ID), 502, "endorsement"),
        (UpstreamUnavailableError(), 503, "upstream_unavailable"),
        (ZeroDivisionError("secret 4711"), 500, "internal"),
    ],
)
def test_every_failure_has_one_form(
    client: TestClient, ledger: ScriptedLedger, error: Exception, status: int, code: str
) -> None:
    ledger.answer = ledger.value = error

    for response in (client.post("/v1/requests", json=REQUEST), client.get("/v1/requests/R-1")):
        assert_problem(response, status, code)
        assert "4711" not in response.text
    if status == 503:
        assert response.headers["retry-after"]


@pytest.mark.parametrize("path", ["/v1/nothing", "/v1/requests/../../etc/passwd", "/v2/requests"])
def test_unknown_paths_have_the_same_form(client: TestClient, path: str) -> None:
    assert_problem(client.get(path), 404, "not_found")


def test_a_method_that_is_not_there_has_the_same_form(client: TestClient) -> None:
    assert_problem(client.delete("/v1/requests/R-1"), 405, "method_not_allowed")


@pytest.mark.parametrize(
    "change",
    [
        {"owner": "me"},
        {"request_id": "../R"},
        {"request_id": "R\x00"},
        {"title": ""},
        {"title": "x" * 201},
        {"title": "line\nbreak"},
        {"priority": 0},
        {"priority": "high"},
        {"amount_cents": -1},
        {"tags": ["t"] * 11},
        {"customer": None},
    ],
)
def test_what_a_route_does_not_take_is_refused_without_repeating_it(
    client: TestClient, ledger: ScriptedLedger, change: dict[str, Any]
) -> None:
    content = assert_problem(client.post("/v1/requests", json=REQUEST | change), 400, "invalid_request")

    assert [fault["where"] for fault in content["errors"]] == [f"body.{next(iter(change))}"]
    assert "owner" not in str(content["errors"][0]["reason"])
    assert ledger.calls == []


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b'{"request_id": 1e999}'])
def test_a_body_that_is_no_object_is_refused(client: TestClient, ledger: ScriptedLedger, content: bytes) -> None:
    response = client.post("/v1/requests", content=content, headers={"Content-Type": "application/json"})

    assert_problem(response, 400, "invalid_request")
    assert ledger.calls == []


@pytest.mark.parametrize("request_key", ["short", "x" * 65, "has space", "new\tline"])
def test_an_idempotency_key_has_a_form(client: TestClient, ledger: ScriptedLedger, request_key: str) -> None:
    assert_problem(
        client.post("/v1/requests", json=REQUEST, headers={"Idempotency-Key": request_key}), 400, "invalid_request"
    )
    assert ledger.calls == []


def test_a_body_beyond_the_limit_is_refused(client: TestClient, ledger: ScriptedLedger) -> None:
    def chunks() -> Iterator[bytes]:  # without a length in the header
        yield b'{"title": "'
        for _ in range(BODY_BYTES // 1000 + 1):
            yield b"x" * 1000

    response = client.post("/v1/requests", content=chunks(), headers={"Content-Type": "application/json"})

    assert_problem(response, 413, "payload_too_large")
    assert ledger.calls == []


@pytest.mark.parametrize("method", ["get", "post"])
@pytest.mark.parametrize("token", ["", "x", "Bearer", "Bearer x.y.z"])
def test_nothing_is_done_without_a_token_that_counts(
    client: TestClient, ledger: ScriptedLedger, method: str, token: str
) -> None:
    path = "/v1/requests/R-1" if method == "get" else "/v1/requests/R-1/closing"

    response = client.request(
        method.upper(), path, headers={"Authorization": token}, json={} if method == "post" else None
    )

    assert_problem(response, 401, "authentication")
    assert response.headers["www-authenticate"] == "Bearer"
    assert ledger.calls == []


def test_every_route_but_health_asks_for_a_token(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    open_routes = {
        path for path, methods in paths.items() for operation in methods.values() if "security" not in operation
    }

    assert open_routes == {"/health/live"}
    assert len(paths) > 8


def test_lists_and_rows_come_from_the_synced_tables(ledger: ScriptedLedger, key: TokenKey, sqlite_url: str) -> None:
    chain = load_chain("fabric-3.1.5-service-week")
    sync_once(SyncSettings(chain.path, sqlite_url, WEEK))
    with client_of(ledger, key, RequestTables(sqlite_url, "consortium")) as client:
        page = client.get("/v1/requests", params={"status": "closed", "limit": 3}).json()
        following = client.get("/v1/requests", params={"status": "closed", "after": page["next_after"]}).json()
        row = client.get("/v1/requests/R-2026-0002", params={"source": "tables"}).json()
        missing = client.get("/v1/requests/R-0", params={"source": "tables"})

    assert [record["status"] for record in page["records"]] == ["closed"] * 3
    assert page["block_number"] == chain.expected["height"] - 1
    assert following["records"][0]["id"] > page["records"][-1]["id"] == page["next_after"]
    assert (row["id"], row["title"], row["block_number"]) == ("R-2026-0002", "过户", page["block_number"])
    assert_problem(missing, 404, "not_found")
    assert ledger.calls == []


def test_rows_can_be_asked_for_as_of_a_block_and_from_a_block_on(
    ledger: ScriptedLedger, key: TokenKey, sqlite_url: str
) -> None:
    sync_once(SyncSettings(load_chain("fabric-3.1.5-service-week").path, sqlite_url, WEEK))
    with client_of(ledger, key, RequestTables(sqlite_url, "consortium")) as client:
        newest = client.get("/v1/requests", params={"limit": 1}).json()["block_number"]

        before = client.get("/v1/requests", params={"as_of": 0}).json()
        ahead = client.get("/v1/requests", params={"minimum_block": newest + 1})
        reached = client.get("/v1/requests", params={"minimum_block": newest, "limit": 1})

    assert (before["records"], before["block_number"]) == ([], 0)
    assert_problem(ahead, 503, "upstream_unavailable")
    assert reached.status_code == 200


def test_a_service_without_tables_says_so(client: TestClient) -> None:
    assert_problem(client.get("/v1/requests"), 503, "upstream_unavailable")
