"""Gateway and Network: one identity at one peer's Gateway service (`gateway/gateway.proto`)."""

import asyncio
import random
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from fabric_protos.common import ledger_pb2
from fabric_protos.gateway import gateway_pb2_grpc

from gateway.client.channel import NodeChannel
from gateway.client.contract import Contract
from gateway.client.events import EventStream
from gateway.client.identity import SigningIdentity
from gateway.client.transaction import Commit
from network.protocol.wire import parse


@dataclass(frozen=True, slots=True)
class Chance:
    """Where time and randomness come from; a test hands in its own.

    `nanoseconds`: time since 1970. `monotonic`: seconds that only grow. `nonce`: 24 bytes. `jitter`: in [0, 1).
    """

    nanoseconds: Callable[[], int] = time.time_ns
    monotonic: Callable[[], float] = time.monotonic
    nonce: Callable[[], bytes] = lambda: secrets.token_bytes(24)
    jitter: Callable[[], float] = random.random
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds a call may take. A commit status waits in vain for an unknown transaction, so it always has an end."""

    evaluate: float = 30.0
    endorse: float = 45.0
    submit: float = 30.0
    commit_status: float = 60.0


MAX_ENVELOPE_BYTES: Final = 10 * 1024 * 1024
"""AbsoluteMaxBytes of the shipped channel configurations; the orderers of a channel may allow less."""


@dataclass(frozen=True, slots=True)
class Gateway:
    """One identity at one peer. The channel stays the caller's to close."""

    identity: SigningIdentity
    channel: NodeChannel
    timeouts: Timeouts = field(default_factory=Timeouts)
    chance: Chance = field(default_factory=Chance)
    max_envelope_bytes: int = MAX_ENVELOPE_BYTES

    @property
    def service(self) -> gateway_pb2_grpc.GatewayStub:
        """Give the service's stub."""
        return self.channel.stub(gateway_pb2_grpc.GatewayStub)

    def network(self, channel_name: str) -> "Network":
        """Give a channel of Fabric's, by name; nothing is sent."""
        return Network(self, channel_name)


@dataclass(frozen=True, slots=True)
class Network:
    """A channel of Fabric's, as one identity sees it."""

    gateway: Gateway
    channel_name: str

    def contract(self, chaincode: str) -> Contract:
        """Give a chaincode, by name; nothing is sent."""
        return Contract(self.gateway, self.channel_name, chaincode)

    def commit(self, tx_id: str) -> Commit:
        """Give a transaction by its id, to ask how it stands; nothing is sent."""
        return Commit(self.gateway, self.channel_name, tx_id)

    def events(self, chaincode: str) -> EventStream:
        """Give the events of a chaincode, by name; nothing is sent."""
        return EventStream(self.gateway, self.channel_name, chaincode)

    async def height(self) -> int:
        """Give the number of blocks that a peer of the organisation has (`qscc.GetChainInfo`); raises EvaluateError."""
        answer = await self.contract("qscc").evaluate("GetChainInfo", self.channel_name)
        info = parse(ledger_pb2.BlockchainInfo, answer, "BlockchainInfo")
        return int(info.height)
