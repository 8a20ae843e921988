"""How every write of a route goes: submit, then one answer for each outcome."""

import json
from collections.abc import Mapping, Sequence

from fastapi import Response, status

from gateway.api.document import Written, refuse_rejected, transaction_document
from gateway.api.ledger import Ledger, Outcome


async def write(
    ledger: Ledger,
    user: str,
    response: Response,
    function: str,
    arguments: Sequence[str],
    *,
    transient: Mapping[str, bytes] | None = None,
    endorsing_organizations: Sequence[str] = (),
) -> Written:
    """Submit and answer: committed as the route says, 202 with the place to ask when unknown; rejected raises."""
    result = await ledger.submit(
        user, function, arguments, transient=transient, endorsing_organizations=endorsing_organizations
    )
    refuse_rejected(result)
    transaction = transaction_document(result)
    if result.outcome is Outcome.UNKNOWN:
        response.status_code = status.HTTP_202_ACCEPTED
        response.headers["Location"] = transaction.href
        return Written(transaction=transaction, result=None)
    return Written(transaction=transaction, result=json.loads(result.payload) if result.payload else None)
