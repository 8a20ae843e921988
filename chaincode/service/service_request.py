"""Service requests: opened for a customer, assigned to a department, resolved, closed.

An open request also stands under its department's queue, oldest first, until it is assigned.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any, Final

from chaincode.contract.context import Context
from chaincode.errors import ConflictError, NotFoundError
from chaincode.service.access import DEPARTMENTS, require_access, require_department
from chaincode.service.listing import list_page
from chaincode.service.record import (
    SCHEMA,
    Document,
    check_choice,
    check_identifier,
    check_line,
    check_range,
    customer_key,
    decode_record,
    encode_record,
    open_request_key,
    written_time,
)
from chaincode.service.record import (
    request_key as key_of,
)
from chaincode.service.submission import begin_submission

QUEUES: Final = MappingProxyType(
    {
        "connection": "service",
        "complaint": "service",
        "billing": "billing",
        "meter": "field",
        "outage": "field",
        "inspection": "field",
    }
)
"""Which department's queue a request of a category waits in."""
TRANSITIONS: Final = MappingProxyType({"open": "assigned", "assigned": "resolved", "resolved": "closed"})
"""The life of a request; there is no other way through it."""
_LARGEST_AMOUNT = 10**12
_HISTORY_LIMIT = 200


@dataclass(frozen=True)
class NewRequest:
    """What is asked for. `title` is public: the caller keeps names and addresses out of it. Amounts are in cents."""

    customer: str
    category: str
    title: str
    priority: int = 3
    amount_cents: int | None = None
    tags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Resolution:
    """What was done, and the minutes it took."""

    resolution: str
    minutes_spent: int | None = None


@dataclass(frozen=True)
class Closing:
    """What the customer says of it; rating 1 (poor) to 5."""

    rating: int | None = None
    note: str | None = None


async def open_request(context: Context, request_key: str, request_id: str, document: NewRequest) -> Document:
    """Open a request for a registered customer; it waits in the queue of the department in charge of its category."""
    require_access(context)
    check_identifier(request_id, "request_id")
    _check_new(document)
    now = written_time(context.stub)
    record = {
        "id": request_id,
        **_content(document),
        "queue": QUEUES[document.category],
        "department": None,
        "status": "open",
        "opened_at": now,
        "changed_at": now,
        "changed_by": context.client.msp_id,
        "schema": SCHEMA,
    }
    key, waiting = key_of(request_id), open_request_key(record)
    submission = await begin_submission(
        context, request_key, [request_id, _content(document)], reads=[key, customer_key(document.customer), waiting]
    )
    existing, customer, _ = submission.read
    if submission.is_repeated:
        return dict(submission.first_result)
    if existing is not None:
        raise ConflictError(f"request {request_id} exists already")
    if customer is None:
        raise NotFoundError(f"there is no customer {document.customer}")
    await context.stub.put_state(key, encode_record(record))
    await context.stub.put_state(waiting, encode_record({"id": request_id}))
    _announce(context, record)
    return await submission.finish(record)


async def assign_request(context: Context, request_key: str, request_id: str, department: str) -> Document:
    """Assign an open request: agents to their own department, supervisors to any."""
    require_access(context)
    require_department(context, department)
    check_identifier(request_id, "request_id")
    submission = await begin_submission(context, request_key, [request_id, department], reads=[key_of(request_id)])
    if submission.is_repeated:
        return dict(submission.first_result)
    return await submission.finish(await _assign(context, _found(submission.read[0], request_id), department))


async def assign_next(context: Context, request_key: str, department: str) -> Document:
    """Assign the oldest open request of a department's queue; NotFoundError when none waits.

    The range is part of the transaction's reads: when another request enters it first, the peers refuse this one
    (PHANTOM_READ_CONFLICT) and it is sent again.
    """
    require_access(context)
    require_department(context, department)
    submission = await begin_submission(context, request_key, [department])
    if submission.is_repeated:
        return dict(submission.first_result)
    oldest = None
    async with await context.stub.get_state_by_partial_composite_key("open_request", [department]) as waiting:
        async for entry in waiting:
            oldest = decode_record(entry.value)["id"]
            break
    if oldest is None:
        raise NotFoundError(f"no open request waits for {department}")
    return await submission.finish(await _assign(context, await _read(context, oldest), department))


async def resolve_request(context: Context, request_key: str, request_id: str, document: Resolution) -> Document:
    """Resolve a request that is assigned to the client's department."""
    require_access(context)
    check_identifier(request_id, "request_id")
    check_line(document.resolution, "document.resolution", 500)
    if document.minutes_spent is not None:
        check_range(document.minutes_spent, 0, 100_000, "document.minutes_spent")
    submission = await begin_submission(
        context, request_key, [request_id, asdict(document)], reads=[key_of(request_id)]
    )
    if submission.is_repeated:
        return dict(submission.first_result)
    record = _found(submission.read[0], request_id)
    if record["department"] is not None:
        require_department(context, record["department"])
    return await submission.finish(await _advance(context, record, "resolved", asdict(document)))


async def close_request(context: Context, request_key: str, request_id: str, document: Closing) -> Document:
    """Close a resolved request, with the customer's rating."""
    require_access(context)
    check_identifier(request_id, "request_id")
    if document.rating is not None:
        check_range(document.rating, 1, 5, "document.rating")
    if document.note is not None:
        check_line(document.note, "document.note", 500)
    submission = await begin_submission(
        context, request_key, [request_id, asdict(document)], reads=[key_of(request_id)]
    )
    if submission.is_repeated:
        return dict(submission.first_result)
    record = _found(submission.read[0], request_id)
    return await submission.finish(await _advance(context, record, "closed", asdict(document)))


async def read_request(context: Context, request_id: str) -> Document:
    """Read a request as it stands."""
    require_access(context)
    return await _read(context, check_identifier(request_id, "request_id"))


async def list_requests(context: Context, page_size: int = 50, bookmark: str = "") -> dict[str, Any]:
    """List requests by id."""
    require_access(context)
    return await list_page(context, "request", [], page_size, bookmark)


async def list_open_requests(
    context: Context, department: str, page_size: int = 50, bookmark: str = ""
) -> dict[str, Any]:
    """List the open requests of a department's queue, oldest first, as they stand."""
    require_access(context)
    check_choice(department, tuple(DEPARTMENTS), "department")
    page = await list_page(context, "open_request", [department], page_size, bookmark)
    found = await context.stub.get_states([key_of(entry["id"]) for entry in page["records"]])
    return {**page, "records": [decode_record(value) for value in found if value is not None]}


async def request_history(context: Context, request_id: str) -> dict[str, Any]:
    """Give the past of a request, newest first, at most 200 steps."""
    require_access(context)
    steps: list[Document] = []
    key = key_of(check_identifier(request_id, "request_id"))
    async with await context.stub.get_history_for_key(key) as past:
        async for step in past:
            steps.append({"tx_id": step.tx_id, "record": decode_record(step.value) if step.value else None})
            if len(steps) == _HISTORY_LIMIT:
                break
    if not steps:
        raise NotFoundError(f"there is no request {request_id}")
    return {"id": request_id, "steps": steps}


TRANSACTIONS = (open_request, assign_request, assign_next, resolve_request, close_request)
QUERIES = (read_request, list_requests, list_open_requests, request_history)


def _check_new(document: NewRequest) -> None:
    check_identifier(document.customer, "document.customer")
    check_choice(document.category, tuple(QUEUES), "document.category")
    check_line(document.title, "document.title")
    check_range(document.priority, 1, 5, "document.priority")
    if document.amount_cents is not None:
        check_range(document.amount_cents, 0, _LARGEST_AMOUNT, "document.amount_cents")
    check_range(len(document.tags), 0, 10, "number of document.tags")
    for tag in document.tags:
        check_line(tag, "document.tags", 40)


def _content(document: NewRequest) -> Document:
    return {**asdict(document), "tags": list(document.tags)}


async def _read(context: Context, request_id: str) -> Document:
    return _found(await context.stub.get_state(key_of(request_id)), request_id)


def _found(content: bytes | None, request_id: str) -> Document:
    if content is None:
        raise NotFoundError(f"there is no request {request_id}")
    return decode_record(content)


async def _assign(context: Context, record: Document, department: str) -> Document:
    waiting = open_request_key(record)
    await context.stub.get_state(waiting)
    changed = await _advance(context, record, "assigned", {"department": department})
    await context.stub.delete_state(waiting)
    return changed


async def _advance(context: Context, record: Document, status: str, changes: Mapping[str, Any]) -> Document:
    """Take a request that was read in this transaction one step further."""
    if TRANSITIONS.get(record["status"]) != status:
        raise ConflictError(f"request {record['id']} is {record['status']} and cannot become {status}")
    changed = {
        **record,
        **changes,
        "status": status,
        "changed_at": written_time(context.stub),
        "changed_by": context.client.msp_id,
    }
    await context.stub.put_state(key_of(record["id"]), encode_record(changed))
    _announce(context, changed)
    return changed


def _announce(context: Context, record: Document) -> None:
    event = encode_record({"id": record["id"], "status": record["status"]})
    context.stub.set_event(f"request_{record['status']}", event)
