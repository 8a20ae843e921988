"""Blocks to verified blocks: bytes-level trust, nothing else. Pure: no database, no network, no clock.

`ChainVerifier` holds the channel's position and the configuration in force and checks each block in this order, which
is Fabric's own (`common/deliverclient/block_verification.go`), with what a reader of a peer must check besides:

1. number: the one after the last (0 at the start), and the block is of our channel;
2. previous hash: the hash of the last header (block 0: empty, and its content is the pinned one, if a pin was given);
3. metadata: all five slots are there;
4. form: every envelope is in the one form Fabric accepts (`protoutil/blockutils.go`, VerifyTransactionsAreWellFormed);
5. data hash: header and envelopes agree;
6. signatures: the orderers' BlockValidation policy of the configuration *before* this block is satisfied, and the
   configuration they claim to know is the one in force. Block 0 has no signatures: only a pin anchors it;
7. flags: one verdict for each transaction, and none of them "not validated";
8. content: a transaction flagged VALID can be read and names our channel; one that is not VALID may be anything;
9. configuration: a valid one is what its update, authorised by the one in force, makes of that one, and can be used;
   it rules from the next block on.

Not checked here: that the verdicts are right. They are the peer's word; the commit hash (`kvr_sync.replay_state`)
shows that they and the writes agree with what the peer itself recorded.
"""

from hashlib import sha256
from typing import Final

from kvr_sync import errors
from kvr_sync.model import Checkpoint, ConfigFacts, DecodedBlock, DecodedTransaction
from network.protocol.block import SLOT_TRANSACTIONS_FILTER, SLOTS, data_hash, header_hash
from network.protocol.block_signature import ChannelTrust, last_config_index
from network.protocol.config_update import next_configuration
from network.protocol.configuration import decode_config_envelope
from network.protocol.errors import ConfigUpdateError, ProtocolError
from network.protocol.transaction import HEADER_CONFIG, HEADER_ENDORSER_TRANSACTION
from network.protocol.validation_code import NOT_VALIDATED, VALID
from network.protocol.wire import varint

_SEAL: Final = object()
_VALID_TYPES: Final = frozenset({HEADER_CONFIG, HEADER_ENDORSER_TRANSACTION})


class VerifiedBlock:
    """A block that passed every rule of `ChainVerifier`; only the verifier can make one."""

    __slots__ = ("block", "channel", "config", "header_hash")

    def __init__(
        self, seal: object, block: DecodedBlock, header_hash: bytes, channel: str, config: ConfigFacts | None
    ) -> None:
        if seal is not _SEAL:
            message = "a VerifiedBlock is made by ChainVerifier.verify alone"
            raise TypeError(message)
        self.block = block
        self.header_hash = header_hash
        self.channel = channel
        self.config = config


def matches_pin(content: bytes, block: DecodedBlock, pin: bytes) -> bool:
    """Tell whether a genesis block is the pinned one.

    A pin (32 bytes) is the SHA-256 of the block file as an administrator holds it (with or without a peer's flags in
    it), or the hash of its header, as `peer channel getinfo` shows it. All of them commit to the same configuration.
    """
    return pin in (sha256(content).digest(), sha256(_without_flags(block)).digest(), header_hash(block.header))


def _without_flags(block: DecodedBlock) -> bytes:
    """Encode block 0 as it was before a peer wrote its flags into it."""

    def field(tag: int, content: bytes) -> bytes:
        return bytes((tag,)) + varint(len(content)) + content

    header = field(0x1A, block.header.data_hash)  # number 0 and no previous hash: not on the wire
    slots = [b"" if slot == SLOT_TRANSACTIONS_FILTER else content for slot, content in enumerate(block.metadata)]
    data = b"".join(field(0x0A, envelope) for envelope in block.envelopes)
    return field(0x0A, header) + field(0x12, data) + field(0x1A, b"".join(field(0x0A, slot) for slot in slots))


class ChainVerifier:
    """The state machine of trust of one channel.

    Begins at nothing (block 0 comes next; `pin` may hold its hash) or at a stored checkpoint with the configuration in
    force then. `verify` moves on by one block when it succeeds and leaves everything as it was when it raises.
    """

    def __init__(self, *, channel: str | None = None, pin: bytes | None = None) -> None:
        self.channel = channel
        self._pin = pin
        self._next_number = 0
        self._previous_hash = b""
        self._config_block = 0
        self._trust: ChannelTrust | None = None

    @classmethod
    def resume(cls, channel: str, checkpoint: Checkpoint, config: bytes, config_block: int) -> "ChainVerifier":
        """Go on after a checkpoint. `config`: ConfigEnvelope bytes in force, from block `config_block`.

        Raises ConfigurationError when the stored configuration cannot be used.
        """
        verifier = cls(channel=channel)
        try:
            verifier._trust = ChannelTrust(decode_config_envelope(config))
        except ProtocolError as error:
            message = f"the stored configuration of channel {channel} (block {config_block}) cannot be used: {error}"
            raise errors.ConfigurationError(message) from error
        verifier._next_number = checkpoint.block_number + 1
        verifier._previous_hash = checkpoint.header_hash
        verifier._config_block = config_block
        return verifier

    def moved_to(self, checkpoint: Checkpoint) -> "ChainVerifier":
        """Give a verifier that goes on after another checkpoint under the same configuration."""
        verifier = ChainVerifier(channel=self.channel)
        verifier._trust = self._trust
        verifier._config_block = self._config_block
        verifier._next_number = checkpoint.block_number + 1
        verifier._previous_hash = checkpoint.header_hash
        return verifier

    @property
    def config_block(self) -> int:
        """The block that brought the configuration in force."""
        return self._config_block

    def verify(self, block: DecodedBlock, content: bytes) -> VerifiedBlock:
        """Check a block; `content` are the bytes it was decoded from (needed for a pin only).

        Raises the error of `kvr_sync.errors` that names the broken rule; ConfigurationError when block 0 is not the
        pinned one.
        """
        number = block.header.number
        self._check_number_and_channel(block)
        if block.header.previous_hash != self._previous_hash:
            message = (
                f"block {number} does not extend our chain: "
                f"its previous hash is {block.header.previous_hash.hex() or 'empty'}, "
                f"the hash of block {number - 1} is {self._previous_hash.hex() or 'empty'}"
            )
            raise errors.PreviousHashError(message, block_number=number)
        if number == 0 and self._pin is not None and not matches_pin(content, block, self._pin):
            message = (
                f"block 0 is not the pinned one: pinned {self._pin.hex()}, "
                f"found {sha256(content).hexdigest()} (header hash {header_hash(block.header).hex()})"
            )
            raise errors.ConfigurationError(message)
        if len(block.metadata) < SLOTS:
            message = f"block {number} has {len(block.metadata)} metadata slots instead of {SLOTS}"
            raise errors.BlockSignatureError(message, block_number=number)
        _check_form(block)
        if data_hash(block.envelopes) != block.header.data_hash:
            message = f"block {number}: the data hash in the header is not the hash of its envelopes"
            raise errors.DataHashError(message, block_number=number)
        self._check_signatures(block)
        _check_flags(block)
        channel = self._check_content(block)
        config, trust = self._next_configuration(block, channel)

        verified = VerifiedBlock(_SEAL, block, header_hash(block.header), channel, config)
        self.channel = channel
        self._next_number = number + 1
        self._previous_hash = verified.header_hash
        if trust is not None:
            self._trust, self._config_block = trust, number
        return verified

    def _check_number_and_channel(self, block: DecodedBlock) -> None:
        number = block.header.number
        named = {transaction.channel_id for transaction in block.transactions if transaction.channel_id}
        if self.channel is not None and named and self.channel not in named:
            other = ", ".join(sorted(named)[:3])
            message = f"block {number} is of channel {other[:300]!r}, not of {self.channel!r}"
            raise errors.ChannelMismatchError(message, block_number=number)
        if number != self._next_number:
            message = f"block {self._next_number} was expected, block {number} came"
            raise errors.BlockNumberError(message, block_number=number)

    def _check_signatures(self, block: DecodedBlock) -> None:
        number = block.header.number
        if self._trust is None:
            return  # Block 0: nothing before it could say who may sign; the pin is its only anchor.
        try:
            self._trust.verify_block(block.header, block.metadata)
            claimed = last_config_index(block.metadata)
        except ProtocolError as error:
            message = f"block {number}: {error}"
            raise errors.BlockSignatureError(message, block_number=number) from error
        in_force = number if _is_config_block(block) else self._config_block
        if claimed != in_force:
            message = (
                f"block {number}: signed under the configuration of block {claimed}, in force is that of {in_force}"
            )
            raise errors.BlockSignatureError(message, block_number=number)

    def _check_content(self, block: DecodedBlock) -> str:
        """Check what is flagged VALID; give the channel."""
        number = block.header.number
        channel = self.channel
        if number == 0:
            first = block.transactions[0]
            if len(block.transactions) != 1 or first.facts.header_type != HEADER_CONFIG or block.flags[0] != VALID:
                message = (
                    "block 0 is not a channel's genesis block: it must hold one valid configuration and nothing else"
                )
                raise errors.ConfigBlockError(message, block_number=0)
            channel = channel or first.channel_id
        for transaction, flag in zip(block.transactions, block.flags, strict=True):
            if flag != VALID:
                continue
            facts = transaction.facts
            is_readable = facts.defect is None and facts.header_type in _VALID_TYPES
            if not is_readable or transaction.channel_id != channel:
                raise _content_error(number, transaction)
        if not channel:
            message = f"block {number} names no channel"
            raise errors.ChannelMismatchError(message, block_number=number)
        return channel

    def _next_configuration(self, block: DecodedBlock, channel: str) -> tuple[ConfigFacts | None, ChannelTrust | None]:
        number = block.header.number
        facts, trust = None, None
        for transaction, flag in zip(block.transactions, block.flags, strict=True):
            if flag != VALID or transaction.config is None:
                continue
            before = trust or self._trust
            try:
                if before is None:
                    configuration = decode_config_envelope(transaction.config)
                else:
                    configuration = next_configuration(transaction.config, channel, before)
                trust = ChannelTrust(configuration)
            except ConfigUpdateError as error:
                message = f"block {number}: the configuration does not follow from the one in force: {error}"
                raise errors.ConfigBlockError(message, block_number=number) from error
            except ProtocolError as error:
                message = f"block {number}: the configuration cannot be used: {error}"
                raise errors.ConfigBlockError(message, block_number=number) from error
            if before is None and configuration.sequence != 0:
                message = f"block {number}: configuration sequence {configuration.sequence}, expected 0"
                raise errors.ConfigBlockError(message, block_number=number)
            facts = ConfigFacts(configuration.sequence, transaction.config)
        return facts, trust


def _is_config_block(block: DecodedBlock) -> bool:
    """Follow `protoutil/commonutils.go` HasConfigTx: exactly one envelope, of type CONFIG."""
    return len(block.transactions) == 1 and block.transactions[0].facts.header_type == HEADER_CONFIG


def _check_form(block: DecodedBlock) -> None:
    number = block.header.number
    if not block.envelopes:
        message = f"block {number} is empty"
        raise errors.MalformedEnvelopeError(message, block_number=number)
    if _is_config_block(block):
        return  # Fabric exempts a lone configuration: there is no other envelope whose bytes could have been re-cut.
    for transaction in block.transactions:
        if transaction.malformed is not None:
            place = f"block {number}, transaction {transaction.facts.tx_number}"
            message = f"{place}: envelope is malformed: {transaction.malformed}"
            raise errors.MalformedEnvelopeError(message, block_number=number)


def _check_flags(block: DecodedBlock) -> None:
    number = block.header.number
    if len(block.flags) != len(block.envelopes):
        message = f"block {number} has {len(block.flags)} validation flags for {len(block.envelopes)} transactions"
        if not block.flags:
            message += "; it may come from an orderer: take it from a peer"
        raise errors.ValidationFlagsError(message, block_number=number)
    if NOT_VALIDATED in block.flags:
        tx_number = block.flags.index(NOT_VALIDATED)
        message = f"block {number}, transaction {tx_number}: flag {NOT_VALIDATED} (not validated) is no verdict"
        raise errors.ValidationFlagsError(message, block_number=number)


def _content_error(number: int, transaction: DecodedTransaction) -> errors.VerificationError:
    """Say why a transaction cannot have been found VALID."""
    facts = transaction.facts
    place = f"block {number}, transaction {facts.tx_number}"
    if facts.defect is not None:
        message = f"{place} is flagged VALID but cannot be read: {facts.defect}"
        return errors.MalformedEnvelopeError(message, block_number=number)
    if facts.header_type not in _VALID_TYPES:
        message = f"{place} is flagged VALID but has header type {facts.header_type}"
        return errors.MalformedEnvelopeError(message, block_number=number)
    message = f"{place} is flagged VALID but is of another channel"
    return errors.ChannelMismatchError(message, block_number=number)
