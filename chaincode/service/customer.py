"""Customers as every member of the channel sees them: nothing here may identify a person."""

from dataclasses import asdict, dataclass
from typing import Any

from chaincode.contract.context import Context
from chaincode.errors import ConflictError, NotFoundError
from chaincode.service.access import require_access
from chaincode.service.listing import list_page
from chaincode.service.record import (
    SCHEMA,
    Document,
    check_choice,
    check_identifier,
    check_line,
    check_reference,
    customer_key,
    decode_record,
    encode_record,
    written_time,
)
from chaincode.service.submission import begin_submission

KINDS = ("household", "company")


@dataclass(frozen=True)
class NewCustomer:
    """The public part. `profile_ref` is the random reference of the private profile, where there is one."""

    kind: str
    region: str
    tier: str | None = None
    profile_ref: str | None = None


async def register_customer(context: Context, request_key: str, customer_id: str, document: NewCustomer) -> Document:
    """Register a customer under a random id that the caller made."""
    require_access(context)
    check_identifier(customer_id, "customer_id")
    check_choice(document.kind, KINDS, "document.kind")
    check_line(document.region, "document.region", 40)
    if document.tier is not None:
        check_line(document.tier, "document.tier", 20)
    if document.profile_ref is not None:
        check_reference(document.profile_ref, "document.profile_ref")
    key = customer_key(customer_id)
    submission = await begin_submission(context, request_key, [customer_id, asdict(document)], reads=[key])
    (existing,) = submission.read
    if submission.is_repeated:
        return dict(submission.first_result)
    if existing is not None:
        raise ConflictError(f"customer {customer_id} is registered already")
    now = written_time(context.stub)
    record = {"id": customer_id, **asdict(document), "since": now[:10], "consents": [], "schema": SCHEMA}
    await context.stub.put_state(key, encode_record(record))
    context.stub.set_event("customer_registered", encode_record({"id": customer_id}))
    return await submission.finish(record)


async def read_customer(context: Context, customer_id: str) -> Document:
    """Read a customer's public record."""
    require_access(context)
    found = await context.stub.get_state(customer_key(check_identifier(customer_id, "customer_id")))
    if found is None:
        raise NotFoundError(f"there is no customer {customer_id}")
    return decode_record(found)


async def list_customers(context: Context, page_size: int = 50, bookmark: str = "") -> dict[str, Any]:
    """List customers by id."""
    require_access(context)
    return await list_page(context, "customer", [], page_size, bookmark)
