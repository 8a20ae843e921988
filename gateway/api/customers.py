"""`/v1/customers`: customers as every member of the channel sees them, and their private profiles."""

import json
import secrets
from typing import Annotated, Any

from fastapi import APIRouter, Path, Response, status
from pydantic import Field

from gateway.api.access import LedgerOfService, Organizations, User
from gateway.api.document import Document, Identifier, Line, Reference, Written
from gateway.api.idempotency import RequestKey
from gateway.api.writing import write

router = APIRouter(prefix="/v1/customers", tags=["customers"])

SALT_BYTES = 16
CustomerId = Annotated[Identifier, Path()]


class NewCustomer(Document):
    """The public part: nothing in it may identify a person."""

    customer_id: Identifier = Field(description="A random id, made by the caller.")
    kind: Line = Field(description="household or company")
    region: Line
    tier: Line | None = None
    profile_ref: Reference | None = Field(None, description="Random reference of the private profile.")


class NewProfile(Document):
    """The private part. It goes to the members of one collection and never into a block."""

    collection: Identifier
    reference: Reference = Field(description="The customer's `profile_ref`.")
    name: Line
    phone: Line | None = None
    address: Line | None = None


@router.post("", status_code=status.HTTP_201_CREATED, responses={202: {"model": Written}})
async def register_customer(
    user: User, ledger: LedgerOfService, key: RequestKey, body: NewCustomer, response: Response
) -> Written:
    """Register a customer."""
    document = body.model_dump(exclude_none=True, exclude={"customer_id"})
    return await write(ledger, user, response, "register_customer", [key, body.customer_id, json.dumps(document)])


@router.get("/{customer_id}")
async def read_customer(user: User, ledger: LedgerOfService, customer_id: CustomerId) -> dict[str, Any]:
    """Read a customer's public part from the ledger."""
    document: dict[str, Any] = json.loads(await ledger.evaluate(user, "read_customer", [customer_id]))
    return document


@router.post("/profiles", status_code=status.HTTP_201_CREATED, responses={202: {"model": Written}})
async def store_profile(
    user: User,
    ledger: LedgerOfService,
    organizations: Organizations,
    key: RequestKey,
    body: NewProfile,
    response: Response,
) -> Written:
    """Store a private profile: transient data, endorsed by the organisations of its collection and nobody else."""
    profile = {**body.model_dump(exclude_none=True, exclude={"collection"}), "salt": secrets.token_hex(SALT_BYTES)}
    return await write(
        ledger,
        user,
        response,
        "store_profile",
        [key, body.collection],
        transient={"profile": json.dumps(profile).encode()},
        endorsing_organizations=organizations(body.collection),
    )
