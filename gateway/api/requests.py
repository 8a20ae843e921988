"""`/v1/requests`: service requests, from opening to closing; read from the ledger or from the synced tables."""

import json
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Response, status
from pydantic import Field
from starlette.concurrency import run_in_threadpool

from gateway.api.access import LedgerOfService, TablesOfService, User
from gateway.api.document import Document, Identifier, Line, Paragraph, Written
from gateway.api.idempotency import RequestKey
from gateway.api.reading import Freshness
from gateway.api.writing import write

router = APIRouter(prefix="/v1/requests", tags=["service requests"])

TABLE = "service_requests"
RequestId = Annotated[Identifier, Path()]
MAX_BLOCK = 2**63 - 1
AsOf = Annotated[int | None, Query(ge=0, le=MAX_BLOCK, description="As it stood after this block; tables only.")]
MinimumBlock = Annotated[
    int | None, Query(ge=0, le=MAX_BLOCK, description="The tables must reach this block, else 503; tables only.")
]


class NewRequest(Document):
    """What is asked for. `title` is public: names and addresses do not belong into it. Amounts are in cents."""

    request_id: Identifier
    customer: Identifier
    category: Line
    title: Line
    priority: int = Field(3, ge=1, le=5)
    amount_cents: int | None = Field(None, ge=0, le=10**12)
    tags: list[Line] = Field(default_factory=list, max_length=10)


class Assignment(Document):
    """Which department takes a request; without one, the oldest open request of `queue` is taken."""

    department: Line


class Resolution(Document):
    """What was done, and the minutes it took."""

    resolution: Paragraph
    minutes_spent: int | None = Field(None, ge=0, le=100_000)


class Closing(Document):
    """What the customer says of it."""

    rating: int | None = Field(None, ge=1, le=5)
    note: Paragraph | None = None


class RequestPage(Document):
    """Rows of the synced tables as of one block; `after` of the next page is `next_after`."""

    records: list[dict[str, Any]]
    next_after: str | None
    block_number: int


@router.post("", status_code=status.HTTP_201_CREATED, responses={202: {"model": Written}})
async def open_request(
    user: User, ledger: LedgerOfService, key: RequestKey, body: NewRequest, response: Response
) -> Written:
    """Open a request; it waits in the queue of the department in charge of its category."""
    document = json.dumps(body.model_dump(exclude_none=True, exclude={"request_id"}))
    return await write(ledger, user, response, "open_request", [key, body.request_id, document])


@router.post("/next/assignment", responses={202: {"model": Written}})
async def assign_next(
    user: User, ledger: LedgerOfService, key: RequestKey, body: Assignment, response: Response
) -> Written:
    """Assign the oldest open request of a department's queue."""
    return await write(ledger, user, response, "assign_next", [key, body.department])


@router.post("/{request_id}/assignment", responses={202: {"model": Written}})
async def assign_request(
    user: User, ledger: LedgerOfService, key: RequestKey, request_id: RequestId, body: Assignment, response: Response
) -> Written:
    """Assign an open request to a department."""
    return await write(ledger, user, response, "assign_request", [key, request_id, body.department])


@router.post("/{request_id}/resolution", responses={202: {"model": Written}})
async def resolve_request(
    user: User, ledger: LedgerOfService, key: RequestKey, request_id: RequestId, body: Resolution, response: Response
) -> Written:
    """Resolve an assigned request."""
    document = json.dumps(body.model_dump(exclude_none=True))
    return await write(ledger, user, response, "resolve_request", [key, request_id, document])


@router.post("/{request_id}/closing", responses={202: {"model": Written}})
async def close_request(
    user: User, ledger: LedgerOfService, key: RequestKey, request_id: RequestId, body: Closing, response: Response
) -> Written:
    """Close a resolved request, with the customer's rating."""
    document = json.dumps(body.model_dump(exclude_none=True))
    return await write(ledger, user, response, "close_request", [key, request_id, document])


@router.get("/{request_id}")
async def read_request(
    user: User,
    ledger: LedgerOfService,
    tables: TablesOfService,
    request_id: RequestId,
    source: Annotated[Literal["ledger", "tables"], Query(description="Where to read.")] = "ledger",
    as_of: AsOf = None,
    minimum_block: MinimumBlock = None,
) -> dict[str, Any]:
    """Read a request: from the ledger, as it stands now, or from the synced tables, as of their last block."""
    if source == "tables":
        freshness = Freshness(as_of, minimum_block)
        row, block_number = await run_in_threadpool(tables().row, TABLE, request_id, freshness)
        return {**row, "block_number": block_number}
    document: dict[str, Any] = json.loads(await ledger.evaluate(user, "read_request", [request_id]))
    return document


@router.get("")
async def list_requests(
    _user: User,
    tables: TablesOfService,
    status: Annotated[Line | None, Query()] = None,
    department: Annotated[Line | None, Query()] = None,
    after: Annotated[Identifier | None, Query(description="Id to continue after.")] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 50,
    as_of: AsOf = None,
    minimum_block: MinimumBlock = None,
) -> RequestPage:
    """List requests by id, out of the synced tables."""
    wanted = {name: value for name, value in (("status", status), ("department", department)) if value is not None}
    freshness = Freshness(as_of, minimum_block)
    page = await run_in_threadpool(lambda: tables().page(TABLE, wanted, after=after, limit=limit, freshness=freshness))
    return RequestPage(records=page.rows, next_after=page.next_after, block_number=page.block_number)
