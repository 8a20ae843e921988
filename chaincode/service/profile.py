"""Private profiles: who a customer is, for the members of one collection.

Written by a transaction that touches nothing but the collection, whose members alone endorse it. The public record and
the profile share a random reference and nothing else. The salt keeps the hash on the chain from being guessed.
"""

from dataclasses import asdict, dataclass
from typing import Any

from chaincode.contract.codec import MAX_ARGUMENT_BYTES, decode_document
from chaincode.contract.context import Context
from chaincode.errors import ConflictError, InvalidArgumentError, LimitExceededError, NotFoundError
from chaincode.service.access import COLLECTIONS, require_access, require_member
from chaincode.service.record import (
    SCHEMA,
    Document,
    check_line,
    check_reference,
    decode_record,
    encode_record,
    profile_key,
)
from chaincode.service.submission import begin_private_submission

TRANSIENT = "profile"
"""Name of the transient data."""


@dataclass(frozen=True)
class Profile:
    """What is kept of a person; `reference` and `salt` are random, 16 to 64 hexadecimal digits."""

    reference: str
    salt: str
    name: str
    phone: str | None = None
    address: str | None = None


async def store_profile(context: Context, request_key: str, collection: str) -> Document:
    """Store the profile of the transient data in a collection; a reference is used once."""
    require_access(context)
    require_member(context, collection)
    profile = _decode_profile(context)
    submission = await begin_private_submission(context, request_key, [collection, asdict(profile)], collection)
    key = profile_key(profile.reference)
    existing = await context.stub.get_private_data(collection, key)
    # The answer goes into the block with the transaction: it holds nothing of the profile.
    result = {"collection": collection, "stored": True}
    if submission.is_repeated:
        return dict(submission.first_result)
    if existing is not None:
        raise ConflictError("the reference is in use")
    await context.stub.put_private_data(collection, key, encode_record({**asdict(profile), "schema": SCHEMA}))
    return await submission.finish(result)


async def read_profile(context: Context, collection: str, reference: str) -> Document:
    """Read a private profile, for members at a member's peer; evaluate it, an endorsed answer would enter a block."""
    require_access(context)
    require_member(context, collection)
    check_reference(reference, "reference")
    found = await context.stub.get_private_data(collection, profile_key(reference))
    if found is None:
        raise NotFoundError("there is no such profile")
    return decode_record(found)


async def read_profile_hash(context: Context, collection: str, reference: str) -> dict[str, Any]:
    """Give SHA-256 of a profile as the chain holds it, for any member of the channel to compare."""
    require_access(context)
    if collection not in COLLECTIONS:
        raise InvalidArgumentError(f"'collection' is one of: {', '.join(sorted(COLLECTIONS))}")
    check_reference(reference, "reference")
    digest = await context.stub.get_private_data_hash(collection, profile_key(reference))
    if digest is None:
        raise NotFoundError("there is no such profile")
    return {"collection": collection, "sha256": digest.hex()}


QUERIES = (read_profile, read_profile_hash)


def _decode_profile(context: Context) -> Profile:
    content = context.stub.transient.get(TRANSIENT)
    if content is None or len(context.stub.transient) != 1:
        raise InvalidArgumentError(f"the transient data is exactly {TRANSIENT!r}")
    if len(content) > MAX_ARGUMENT_BYTES:
        raise LimitExceededError(f"{TRANSIENT!r} is larger than {MAX_ARGUMENT_BYTES} bytes")
    profile: Profile = decode_document(content, Profile, TRANSIENT)
    check_reference(profile.reference, "profile.reference")
    check_reference(profile.salt, "profile.salt")
    if profile.salt == profile.reference:
        raise InvalidArgumentError("'profile.salt' must not be the reference")
    check_line(profile.name, "profile.name", 100)
    if profile.phone is not None:
        check_line(profile.phone, "profile.phone", 40)
    if profile.address is not None:
        check_line(profile.address, "profile.address")
    return profile
