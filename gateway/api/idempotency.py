"""The key under which a write counts once, however often it is sent.

The contract keeps it on the ledger with what was written: a second request with the same key and content gets the
first answer, one with other content is refused. It comes as the header `Idempotency-Key`; without one each request is
one of its own.
"""

import secrets
from typing import Annotated

from fastapi import Depends, Header
from pydantic import StringConstraints

KEY_BYTES = 16
Key = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{7,63}$")]


async def _request_key(
    idempotency_key: Annotated[Key | None, Header(description="8 to 64 of A-Z, a-z, 0-9, '.', '_', '-'.")] = None,
) -> str:
    return idempotency_key or secrets.token_hex(KEY_BYTES)


RequestKey = Annotated[str, Depends(_request_key)]
