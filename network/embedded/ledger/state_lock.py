"""State stays as it is while a contract runs: many simulations at once, or one commit.

As on a real peer a slow contract delays the commit, and a waiting commit lets no new simulation start
(`core/ledger/kvledger/txmgmt/txmgr/lockbased_txmgr.go`).
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class StateLock:
    """Shared by simulations, exclusive for commits, first come first served between them."""

    def __init__(self) -> None:
        self._turnstile = asyncio.Lock()
        self._simulations = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @asynccontextmanager
    async def simulating(self) -> AsyncIterator[None]:
        """Hold the state as it is."""
        async with self._turnstile:
            self._simulations += 1
            self._idle.clear()
        try:
            yield
        finally:
            self._simulations -= 1
            if not self._simulations:
                self._idle.set()

    @asynccontextmanager
    async def committing(self) -> AsyncIterator[None]:
        """Wait until no simulation runs, and keep new ones out."""
        async with self._turnstile:
            await self._idle.wait()
            yield
