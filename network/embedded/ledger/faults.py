"""Peers that misbehave, each in a way that a reader, a client or an auditor has to notice or survive.

    faults = PeerFaults(peer, "consortium", clock)
    faults.lag(5.0)                       commits each block so much later than it was made
    faults.stall()                        commits nothing more, though others go on
    faults.prune(10)                      holds no block below, as a peer that began with a snapshot
    faults.alter(7, wrong_flag(0, VALID)) hands out a block that was changed
    faults.misjudge({(7, 0): VALID})      takes another verdict into its state, and everything that follows from it
    faults.withhold_private_data()        gives no private data to anybody
    faults.lie(values={"k": b"1"})        shows contracts other values, and endorses what comes of it
    faults.mend()                         no more of it, but what it wrote into its state stays

    fork = Fork(ledger, "consortium", [peer], folder)
    await fork.extend(envelope)           a second, validly signed block for a number, which these peers have alone

Nothing of this is on unless it is asked for; what it changes is what peers hand out, never what others keep.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from shutil import copytree

from fabric_protos.common import common_pb2
from fabric_protos.peer import chaincode_shim_pb2

from gateway.client.identity import SigningIdentity
from network.embedded.ledger.block_file import BlockReader
from network.embedded.ledger.chaincode import ChaincodeCall, ChaincodeResult, ContractRunner, Conversation
from network.embedded.ledger.clock import Clock
from network.embedded.ledger.network import EmbeddedLedger
from network.embedded.ledger.ordering import Orderer, OrderingService
from network.embedded.ledger.peer import Peer
from network.embedded.ledger.peer_channel import PeerChannel
from network.errors import BlockNotHeldError, LedgerError
from network.protocol.block import (
    SLOT_COMMIT_HASH,
    SLOT_SIGNATURES,
    SLOT_TRANSACTIONS_FILTER,
    BlockHeader,
    header_bytes,
)
from network.protocol.endorsement_policy import ChannelRules
from network.protocol.envelope_check import EndorserTransaction, Refusal, check_envelope, read_action
from network.protocol.mvcc import apply_writes
from network.protocol.read_write_set import Version
from network.protocol.state import BlockState, StateReader
from network.protocol.validation import BlockJudgement, judge_block
from network.protocol.validation_code import VALID

Alteration = Callable[[common_pb2.Block], None]
"""Changes a copy of a block that is handed out."""


class PeerFaults:
    """The faults of one peer on one channel."""

    def __init__(self, peer: Peer, channel_id: str, clock: Clock) -> None:
        self._peer = peer
        self._channel = peer.channels[channel_id]
        self._clock = clock
        self._honest_blocks = self._channel.files
        self._honest_runner = peer.runner
        self._go_on = asyncio.Event()

    def lag(self, seconds: float) -> None:
        """Have the peer commit each block so much later than it would."""

        async def wait() -> None:
            await self._clock.sleep(seconds)

        self._channel.before_commit = wait

    def stall(self) -> None:
        """Have the peer commit nothing more, until it is mended; it answers as before."""
        self._go_on.clear()
        self._channel.before_commit = self._wait

    async def _wait(self) -> None:
        await self._go_on.wait()

    def prune(self, first_block: int) -> None:
        """Have the peer hold no block below `first_block`."""
        self._channel.files = _PrunedBlocks(self._channel.files, first_block)

    def alter(self, number: int, *alterations: Alteration) -> None:
        """Have the peer hand out a block that was changed; its own state stays honest."""
        self._channel.files = _AlteredBlocks(self._channel.files, number, alterations)

    def misjudge(self, verdicts: Mapping[tuple[int, int], int]) -> None:
        """Have the peer take other verdicts, by block and position, into its state; its commit hashes follow from them.

        For blocks that it has not committed yet. A transaction that cannot be read at all is VALID without effect.
        """
        self._channel.judge = _Misjudgement(verdicts)

    def withhold_private_data(self) -> None:
        """Have the peer give private data to nobody: no member, no client."""
        self._channel.discloses_private_data = False

    def lie(
        self,
        *,
        values: Mapping[str, bytes] | None = None,
        answer: Callable[[ChaincodeResult], ChaincodeResult] | None = None,
    ) -> None:
        """Have the peer show contracts other values for public keys, or change what they answer, and endorse that."""
        self._peer.runner = _LyingRunner(self._honest_runner, values or {}, answer or _unchanged)

    def mend(self) -> None:
        """End every fault; what a wrong verdict did to the peer's state stays."""
        self._channel.before_commit = _at_once
        self._go_on.set()
        self._channel.files = self._honest_blocks
        self._channel.judge = judge_block
        self._channel.discloses_private_data = True
        self._peer.runner = self._honest_runner


async def _at_once() -> None:
    pass


# --- blocks that are handed out


@dataclass(frozen=True)
class _PrunedBlocks:
    blocks: BlockReader
    first: int

    def block(self, number: int) -> common_pb2.Block:
        self._check(number)
        return self.blocks.block(number)

    def content(self, number: int) -> bytes:
        self._check(number)
        return self.blocks.content(number)

    def _check(self, number: int) -> None:
        if number < self.first:
            raise BlockNotHeldError(number, self.first)


@dataclass(frozen=True)
class _AlteredBlocks:
    blocks: BlockReader
    number: int
    alterations: tuple[Alteration, ...]

    def block(self, number: int) -> common_pb2.Block:
        block = self.blocks.block(number)
        if number == self.number:
            for alter in self.alterations:
                alter(block)
        return block

    def content(self, number: int) -> bytes:
        return bytes(self.block(number).SerializeToString())


def wrong_flag(tx_number: int, code: int) -> Alteration:
    """Give a transaction another validation code."""

    def alter(block: common_pb2.Block) -> None:
        flags = bytearray(block.metadata.metadata[SLOT_TRANSACTIONS_FILTER])
        flags[tx_number] = code
        block.metadata.metadata[SLOT_TRANSACTIONS_FILTER] = bytes(flags)

    return alter


def wrong_flags(flags: bytes) -> Alteration:
    """Give the block these validation codes, of whatever number."""

    def alter(block: common_pb2.Block) -> None:
        block.metadata.metadata[SLOT_TRANSACTIONS_FILTER] = flags

    return alter


def wrong_commit_hash(value: bytes) -> Alteration:
    """Give the block another commit hash; an empty one is none."""

    def alter(block: common_pb2.Block) -> None:
        slot = common_pb2.Metadata(value=value).SerializeToString() if value else b""
        block.metadata.metadata[SLOT_COMMIT_HASH] = slot

    return alter


def wrong_signature(block: common_pb2.Block) -> None:
    """Make every signature one over something else."""
    slot = common_pb2.Metadata.FromString(block.metadata.metadata[SLOT_SIGNATURES])
    for signature in slot.signatures:
        signature.signature = signature.signature[:-1] + bytes([signature.signature[-1] ^ 1])
    block.metadata.metadata[SLOT_SIGNATURES] = slot.SerializeToString()


def no_signatures(block: common_pb2.Block) -> None:
    """Take every signature away."""
    slot = common_pb2.Metadata.FromString(block.metadata.metadata[SLOT_SIGNATURES])
    slot.ClearField("signatures")
    block.metadata.metadata[SLOT_SIGNATURES] = slot.SerializeToString()


def signed_by(identity: SigningIdentity) -> Alteration:
    """Sign the block as it stands by somebody, in the form of Raft, in place of its orderers."""

    def alter(block: common_pb2.Block) -> None:
        slot = common_pb2.Metadata.FromString(block.metadata.metadata[SLOT_SIGNATURES])
        header = BlockHeader(block.header.number, block.header.previous_hash, block.header.data_hash)
        named = common_pb2.SignatureHeader(creator=identity.creator, nonce=bytes(24)).SerializeToString()
        slot.ClearField("signatures")
        signature = identity.sign(slot.value + named + header_bytes(header))
        slot.signatures.add(signature_header=named, signature=signature)
        block.metadata.metadata[SLOT_SIGNATURES] = slot.SerializeToString()

    return alter


# --- verdicts


@dataclass(frozen=True)
class _Misjudgement:
    verdicts: Mapping[tuple[int, int], int]

    def __call__(
        self, number: int, envelopes: Sequence[bytes], rules: ChannelRules, state: StateReader
    ) -> BlockJudgement:
        judgement = judge_block(number, envelopes, rules, state)
        flags = bytes([self.verdicts.get((number, place), code) for place, code in enumerate(judgement.flags)])
        if flags == judgement.flags:
            return judgement
        after = BlockState(state)
        for place, envelope in enumerate(envelopes):
            content = check_envelope(envelope, rules).content
            if flags[place] == VALID and isinstance(content, EndorserTransaction):
                action = read_action(content)
                if not isinstance(action, Refusal):
                    apply_writes(action.read_write_set, Version(number, place), after)
        return judgement._replace(flags=flags, updates=after.updates)


# --- lies


@dataclass(frozen=True)
class _LyingRunner:
    runner: ContractRunner
    values: Mapping[str, bytes]
    answer: Callable[[ChaincodeResult], ChaincodeResult]

    async def execute(self, package_id: str, call: ChaincodeCall, conversation: Conversation) -> ChaincodeResult:
        shown = _LyingConversation(conversation, self.values)
        return self.answer(await self.runner.execute(package_id, call, shown))


@dataclass(frozen=True)
class _LyingConversation:
    conversation: Conversation
    values: Mapping[str, bytes]

    async def answer(self, message_type: int, payload: bytes) -> bytes:
        answer = await self.conversation.answer(message_type, payload)
        if message_type == chaincode_shim_pb2.ChaincodeMessage.GET_STATE:
            request = chaincode_shim_pb2.GetState.FromString(payload)
            if not request.collection:
                return self.values.get(request.key, answer)
        return answer


def _unchanged(result: ChaincodeResult) -> ChaincodeResult:
    return result


# --- forks


class Fork:
    """A second chain of a channel from its next block on, made by the same orderers, that some peers have instead.

    Those peers stand where the channel stands when the fork begins, and follow it alone until it is closed; the block
    files and the state of both chains are real. `folder` keeps the second one.
    """

    def __init__(self, ledger: EmbeddedLedger, channel_id: str, peers: Sequence[Peer], folder: Path) -> None:
        """Begin; raises LedgerError for a peer that lags behind."""
        service = ledger.channels[channel_id]
        self._orderers = [Orderer(orderer.name, orderer.identity, folder / orderer.name) for orderer in ledger.orderers]
        for peer in peers:
            if peer.channels[channel_id].height != service.height:
                raise LedgerError(f"{peer.node.name} does not stand at the tip of {channel_id}")
        for position, orderer in enumerate(self._orderers):
            files = orderer.open_chain(channel_id)
            for number in range(service.height):
                files.append(service.block(position, number))
        # Other nonces than the channel's: the two chains differ even where they hold the same transactions.
        chance = Random(f"fork of {channel_id} at {service.height}")  # noqa: S311  # nothing secret rests on it
        self._service = OrderingService(channel_id, self._orderers, ledger.clock, chance)
        self._honest = {peer: peer.channels[channel_id] for peer in peers}
        self._channels = {peer: self._copied(channel, peer, folder) for peer, channel in self._honest.items()}
        for peer, channel in self._channels.items():
            peer.channels[channel_id] = channel

    def _copied(self, channel: PeerChannel, peer: Peer, folder: Path) -> PeerChannel:
        copytree(peer.folder, folder / peer.node.name)
        copy = PeerChannel(channel.channel_id, peer.node.msp_id, folder / peer.node.name)
        copy.before_commit = _never  # the channel's own blocks are none of this one's
        return copy

    @property
    def height(self) -> int:
        """Number of the next block of this chain."""
        return self._service.height

    async def extend(self, *envelopes: common_pb2.Envelope) -> common_pb2.Block:
        """Make the next block of this chain, and have its peers commit it; raises AdmissionError."""
        for envelope in envelopes:
            await self._service.broadcast(envelope)
        await self._service.cut()
        block = self._service.block(0, self.height - 1)
        for channel in self._channels.values():
            await channel.commit(common_pb2.Block.FromString(block.SerializeToString()))
        return block

    def close(self) -> None:
        """Give the peers the channel back that all others have."""
        for peer, channel in self._honest.items():
            peer.channels[channel.channel_id] = channel
        for channel in self._channels.values():
            channel.close()
        for orderer in self._orderers:
            orderer.close()


async def _never() -> None:
    await asyncio.Event().wait()
