"""Whether a node runs: it can be ended, as if its process were gone, and paused, as if its process were stopped."""

import asyncio


class NodeState:
    """The state of one node. A node that does not run does nothing; one that is paused answers when it goes on."""

    def __init__(self) -> None:
        self._running = asyncio.Event()
        self._running.set()
        self.is_paused = False

    @property
    def is_running(self) -> bool:
        """Whether the node runs."""
        return self._running.is_set()

    def pause(self) -> None:
        """Stop the node where it stands."""
        self._running.clear()
        self.is_paused = True

    def end(self) -> None:
        """End the node."""
        self._running.clear()
        self.is_paused = False

    def run(self) -> None:
        """Let the node go on."""
        self.is_paused = False
        self._running.set()

    async def wait_until_running(self) -> None:
        """Return when the node runs."""
        await self._running.wait()
