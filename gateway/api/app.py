"""The application: routes, limits and the one form of every error, on a ledger that is handed in."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from fastapi import FastAPI

from gateway import __version__
from gateway.api import customers, health, problem, requests, transactions
from gateway.api.errors import PayloadTooLargeError
from gateway.api.ledger import Ledger
from gateway.api.reading import Tables
from gateway.api.token import TokenKey

BODY_BYTES = 1024 * 1024
"""Largest body; a transaction holds each argument twice, and Fabric's own limit is 10 MB."""

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


def create_app(
    open_ledger: Callable[[], AbstractAsyncContextManager[Ledger]],
    token_key: TokenKey,
    *,
    tables: Tables | None = None,
    collections: Mapping[str, tuple[str, ...]] | None = None,
) -> FastAPI:
    """Give the service on a ledger.

    `tables`: the synced tables of the same organisation; `collections`: the organisations that endorse private writes,
    by collection.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_ledger() as ledger:
            app.state.ledger = ledger
            yield

    app = FastAPI(
        title="kvr gateway",
        version=__version__,
        description="Customer service on Hyperledger Fabric: every write ends as committed, rejected or unknown.",
        lifespan=lifespan,
    )
    app.state.token_key = token_key
    app.state.tables = tables
    app.state.collections = collections or {}
    problem.install(app)
    for routes in (customers, requests, transactions, health):
        app.include_router(routes.router)
    app.add_middleware(BodyLimit)
    return app


class BodyLimit:
    """Refuses a body that is too large before it is read whole, whatever its header says of its length."""

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]]) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count what comes in."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        seen = 0

        async def counted() -> MutableMapping[str, Any]:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > BODY_BYTES:
                raise PayloadTooLargeError
            return message

        async def answered(message: MutableMapping[str, Any]) -> None:
            if seen <= BODY_BYTES:  # else what the framework makes of the failed reading is not said
                await send(message)

        await self._app(scope, counted, answered)
        if seen > BODY_BYTES:
            error = PayloadTooLargeError(f"at most {BODY_BYTES} bytes")
            response = problem.problem(error.status, error.code, error.title, error.detail)
            await response(scope, receive, send)
