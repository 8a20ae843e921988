"""A client of a recorded network: proposals to the peers it names, envelopes to the orderers, every block seen."""

import asyncio
import contextlib
import json
import secrets
import sys
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from hashlib import sha256
from typing import Any, Final, Self

import grpc
from fabric_protos.common import common_pb2
from fabric_protos.orderer import ab_pb2_grpc
from fabric_protos.peer import peer_pb2_grpc, proposal_pb2

from gateway.client.blocks import BlockStream, ReceivedBlock
from gateway.client.channel import Endpoint, NodeChannel
from gateway.client.endorser import Endorser
from gateway.client.errors import EndorserError
from gateway.client.identity import SigningIdentity
from network.creation import CreatedNetwork
from network.protocol.block import Block
from network.protocol.decode import decode_block
from network.protocol.proposal import (
    build_proposal,
    decode_proposal,
    encode_envelope,
    prepared_transaction,
    sign_proposal,
)
from network.protocol.transaction import Endorsement
from network.protocol.validation_code import validation_code_name
from tests.support.recorder.envelope import Change, Parts
from tests.support.recorder.topology import CHAINCODE, CHANNEL, CUSTOMER, ENTERPRISE

WAIT_SECONDS: Final = 150.0
POLL_SECONDS: Final = 0.02
TWO: Final = (ENTERPRISE, CUSTOMER)
_PRIVATE_WRITES: Final = ("pput", "pput_transient", "pdel", "ppurge")
Operation = Sequence[object]


class Refused(Exception):  # noqa: N818  # an answer
    """What an orderer, or an endorser, did not take."""


class Session:
    """Connections to all nodes of a network; an async context manager.

    `labels` says what each envelope was to show, by its hash, as often as it was ordered. `refused`: what orderers did
    not take. `sizes`: how many transactions each block has. `down`: organisations whose peer is not waited for.
    """

    def __init__(self, network: CreatedNetwork) -> None:
        self.network = network
        self.labels: dict[str, list[str]] = {}
        self.refused: list[dict[str, str]] = []
        self.private_keys: set[tuple[str, str]] = set()
        self.sizes: list[int] = []
        self.down: set[str] = set()
        self._stack = AsyncExitStack()
        self.peers: dict[str, NodeChannel] = {}
        self.orderers: list[NodeChannel] = []

    async def __aenter__(self) -> Self:
        """Connect."""
        for organization in self.network.topology.all_organizations:
            for node in organization.nodes:
                root = self.network.credentials.tls_ca_pem(organization.msp_id)
                endpoint = Endpoint(self.network.address(node.name), root)
                channel = await self._stack.enter_async_context(NodeChannel(endpoint))
                if organization.is_orderer:
                    self.orderers.append(channel)
                else:
                    self.peers[organization.msp_id] = channel
        self._blocks = self._stream(0)
        await self.settle()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the connections."""
        await self._blocks.aclose()
        await self._stack.aclose()

    def _stream(self, start: int) -> AsyncGenerator[ReceivedBlock, None]:
        self.height = start
        stream = BlockStream(self.identity(ENTERPRISE, "admin"), self.peers[ENTERPRISE], CHANNEL)
        return stream.blocks(start, idle_seconds=WAIT_SECONDS)

    def identity(self, msp_id: str, user: str = "agent") -> SigningIdentity:
        """Give a user of an organisation."""
        return SigningIdentity.from_msp_folder(msp_id, self.network.credentials.user_msp(msp_id, user))

    def node(self, msp_id: str) -> SigningIdentity:
        """Give what an organisation's first node signs with."""
        organization = self.network.topology.organization(msp_id)
        return SigningIdentity.from_msp_folder(
            msp_id, self.network.credentials.node_msp(msp_id, organization.nodes[0].name)
        )

    # --- endorsing

    async def endorse(
        self,
        operations: Sequence[Operation],
        peers: Sequence[str] = TWO,
        *,
        transient: Mapping[str, bytes] | None = None,
        chaincode: str = CHAINCODE,
        by: tuple[str, str] = (ENTERPRISE, "agent"),
        signer: SigningIdentity | None = None,
    ) -> bytes:
        """Have peers endorse a script; gives the envelope. Raises Refused."""
        self.private_keys.update((str(it[1]), str(it[2])) for it in operations if it[0] in _PRIVATE_WRITES)
        identity = signer or self.identity(*by)
        script = json.dumps(operations, separators=(",", ":")).encode()
        built = build_proposal(
            channel_id=CHANNEL,
            chaincode=chaincode,
            arguments=(b"run", script),
            creator=identity.creator,
            nonce=secrets.token_bytes(24),
            nanoseconds=time.time_ns(),
            transient=transient,
        )
        signed = proposal_pb2.SignedProposal(proposal_bytes=built.content, signature=identity.sign(built.content))
        answers = await asyncio.gather(
            *[peer_pb2_grpc.EndorserStub(self.peers[peer].grpc).ProcessProposal(signed, timeout=60) for peer in peers]
        )
        for answer in answers:
            if not 200 <= answer.response.status < 400:
                raise Refused(answer.response.message)
            if b'{"error"' in answer.response.payload:
                raise Refused(answer.response.payload.decode())
        payloads = {answer.payload for answer in answers}
        if len(payloads) != 1:
            raise Refused("endorsers disagree")
        endorsements = [Endorsement(it.endorsement.endorser, it.endorsement.signature) for it in answers]
        proposal = decode_proposal(sign_proposal(built.content, signed.signature))
        prepared = prepared_transaction(proposal, endorsements, payloads.pop())
        return encode_envelope(prepared, identity.sign(prepared))

    async def ask(self, operations: Sequence[Operation], msp_id: str, chaincode: str = CHAINCODE) -> Any:
        """Give what an organisation's own peer answers its own agent."""
        endorser = Endorser(self.identity(msp_id), self.peers[msp_id])
        answer = await endorser.call(chaincode, [b"texts", json.dumps(operations).encode()], channel_name=CHANNEL)
        return json.loads(answer)

    def altered(self, envelope: bytes, *changes: Change, by: tuple[str, str] = (ENTERPRISE, "agent")) -> bytes:
        """Give an endorsed transaction after changes, signed by its creator."""
        parts = Parts.of(envelope)
        for change in changes:
            change(parts)
        return parts.envelope(self.identity(*by))

    # --- ordering

    async def order(
        self,
        *labelled: tuple[str, bytes],
        orderers: Sequence[NodeChannel] = (),
        meanwhile: Callable[[], Awaitable[None]] | None = None,
    ) -> list[str]:
        """Hand envelopes to the orderers together, and wait until they are in blocks of all peers; gives the codes."""
        sys.stdout.write(f"  {self.height}: {labelled[0][0]}{'; ...' if len(labelled) > 1 else ''}\n")
        sys.stdout.flush()
        digests = []
        for label, envelope in labelled:
            digests.append(sha256(envelope).hexdigest())
            self.labels.setdefault(digests[-1], []).append(label)
        await self.submit([envelope for _, envelope in labelled], orderers)
        if meanwhile is not None:
            await meanwhile()
        return await self.committed(digests)

    async def submit(self, envelopes: Sequence[bytes], orderers: Sequence[NodeChannel] = ()) -> None:
        """Hand envelopes to orderers, each to all of them where more than one organisation orders."""
        chosen = orderers or (self.orderers if len(self.orderers) > 3 else self.orderers[:1])
        answers = await asyncio.gather(*[_broadcast(channel, envelopes) for channel in chosen])
        for taken in zip(*answers, strict=True):
            if not any(answer is not None and answer.status == common_pb2.SUCCESS for answer in taken):
                raise Refused(str(taken[0]))

    async def offer(self, label: str, envelope: bytes) -> None:
        """Hand an envelope to an orderer that has to refuse it."""
        (answer,) = await _broadcast(self.orderers[0], [envelope])
        if answer.status == common_pb2.SUCCESS:
            raise AssertionError(f"{label}: an orderer takes it")
        self.refused.append({"label": label, "broadcast": common_pb2.Status.Name(answer.status), "info": answer.info})

    async def committed(self, digests: Sequence[str]) -> list[str]:
        """Wait until envelopes are in blocks of all peers; gives their codes."""
        wanted = Counter(digests)
        seen: dict[str, list[str]] = {}
        while any(len(seen.get(digest, ())) < count for digest, count in wanted.items()):
            block = await self._next_block()
            for envelope, flag in zip(block.envelopes, block.flags, strict=True):
                seen.setdefault(sha256(envelope).hexdigest(), []).append(validation_code_name(flag))
        await self.settle()
        return [seen[digest].pop(0) for digest in digests]

    async def next_configuration(self, label: str) -> None:
        """Wait until a change of the channel is in a block of all peers."""
        sys.stdout.write(f"  {self.height}: {label}\n")
        sys.stdout.flush()
        block = await self._next_block()
        while block.transactions[0].config is None:
            block = await self._next_block()
        self.labels[sha256(block.envelopes[0]).hexdigest()] = [label]
        await self.settle()

    async def _next_block(self) -> Block:
        received = await anext(self._blocks)
        block = decode_block(received.content)
        self.height = received.number + 1
        self.sizes.append(len(block.envelopes))
        return block

    async def settle(self) -> None:
        """Wait until all peers have the block seen last."""
        async with asyncio.timeout(WAIT_SECONDS):
            for msp_id, channel in self.peers.items():
                endorser = Endorser(self.identity(msp_id, "admin"), channel)
                while msp_id not in self.down and await _height(endorser) < self.height:  # noqa: ASYNC110  # nobody tells
                    await asyncio.sleep(POLL_SECONDS)

    async def valid(self, label: str, operations: Sequence[Operation], *peers: str, **options: Any) -> None:
        """Have a script endorsed and ordered, alone in its block; it has to be VALID."""
        await self.becomes("VALID", label, await self.endorse(operations, peers or TWO, **options))

    async def becomes(self, code: str, label: str, envelope: bytes) -> None:
        """Order an envelope, alone in its block; it has to get this code."""
        (found,) = await self.order((label, envelope))
        if found != code:
            raise AssertionError(f"{label}: {found}, not {code}")


async def _height(endorser: Endorser) -> int:
    try:
        return await endorser.height(CHANNEL)
    except EndorserError:  # it begins
        return 0


async def _broadcast(channel: NodeChannel, envelopes: Sequence[bytes]) -> list[Any]:
    """Give an orderer's answers; None behind a refusal, which ends the stream, and where nobody answers."""
    call = ab_pb2_grpc.AtomicBroadcastStub(channel.grpc).Broadcast(timeout=WAIT_SECONDS)
    messages = [common_pb2.Envelope.FromString(envelope) for envelope in envelopes]

    async def write() -> None:
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            for message in messages:
                await call.write(message)

    writing = asyncio.create_task(write())
    try:
        answers: list[Any] = []
        with contextlib.suppress(grpc.aio.AioRpcError):
            for _ in messages:
                answer = await call.read()
                if answer is grpc.aio.EOF:
                    break
                answers.append(answer)
        return answers + [None] * (len(messages) - len(answers))
    finally:
        writing.cancel()
        call.cancel()
