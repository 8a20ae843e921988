"""Who calls: the bearer token of a request becomes the name of a user, or the request ends with 401."""

from collections.abc import Callable, Mapping
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from gateway.api.errors import AuthenticationError, InvalidRequestError, UpstreamUnavailableError
from gateway.api.ledger import Ledger
from gateway.api.reading import Tables
from gateway.api.token import TokenKey

_bearer = HTTPBearer(auto_error=False, description="A token of `kvr gateway token`.")


async def current_user(
    request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> str:
    """Give the user whose token came with the request; the token alone decides, nothing else in the request."""
    if credentials is None:
        raise AuthenticationError
    key: TokenKey = request.app.state.token_key
    return key.subject(credentials.credentials)


async def current_ledger(request: Request) -> Ledger:
    """Give the ledger that the application was made with."""
    ledger: Ledger = request.app.state.ledger
    return ledger


async def current_tables(request: Request) -> Callable[[], Tables]:
    """Give what gives the synced tables, or ends the request where the service was started without them."""

    def tables() -> Tables:
        found: Tables | None = request.app.state.tables
        if found is None:
            raise UpstreamUnavailableError("this service was started without synced tables")
        return found

    return tables


async def current_organizations(request: Request) -> Callable[[str], tuple[str, ...]]:
    """Give what tells the endorsing organisations of a private data collection."""
    collections: Mapping[str, tuple[str, ...]] = request.app.state.collections

    def organizations(collection: str) -> tuple[str, ...]:
        if collection not in collections:
            raise InvalidRequestError("the service knows no such collection")
        return collections[collection]

    return organizations


User = Annotated[str, Depends(current_user)]
LedgerOfService = Annotated[Ledger, Depends(current_ledger)]
TablesOfService = Annotated[Callable[[], Tables], Depends(current_tables)]
Organizations = Annotated[Callable[[str], tuple[str, ...]], Depends(current_organizations)]
