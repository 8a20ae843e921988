"""The first block of a channel, as a peer that is asked to join it reads it. Pure.

Rules and texts: `core/scc/cscc/configure.go` (JoinChain, validateConfigBlock), `protoutil/blockutils.go`
(GetChannelIDFromBlock), `common/configtx/validator.go` (channel names). A block without metadata is refused.
"""

import re
from typing import Final, NamedTuple, TypeVar

from fabric_protos.common import common_pb2, configtx_pb2
from google.protobuf.message import Message

from network.protocol.block import SLOTS
from network.protocol.errors import DecodeError
from network.protocol.transaction import HEADER_CONFIG
from network.protocol.wire import parse_in_words_of_go

MAX_CHANNEL_NAME: Final = 249
APPLICATION: Final = "Application"
_CHANNEL_NAME: Final = re.compile(r"[a-z][a-z0-9.-]*")

M = TypeVar("M", bound=Message)


class JoinError(Exception):
    """The peer does not join; the text is Fabric's."""


class FirstBlock(NamedTuple):
    """A block that says it is the first of a channel; its configuration is still to be judged."""

    channel_id: str
    block: common_pb2.Block


def read_first_block(content: bytes) -> FirstBlock:
    """Read the block that JoinChain was given; raises JoinError."""
    try:
        block = _read(common_pb2.Block, content)
    except DecodeError as error:
        raise JoinError(f"Failed to reconstruct the genesis block, {error}") from error
    try:
        channel_id = _channel_id(block)
    except DecodeError as error:
        words = f'"JoinChain" request failed to extract channel id from the block due to [{error}]'
        raise JoinError(words) from error
    try:
        _check_configuration(block)
    except DecodeError as error:
        raise JoinError(unusable(channel_id, str(error))) from error
    return FirstBlock(channel_id, block)


def unusable(channel_id: str, why: str) -> str:
    """Say that a channel cannot be joined because of its configuration."""
    return (
        f'"JoinChain" for channelID = {channel_id} failed because of validation of configuration block, because of '
        f"{why}"
    )


def check_joinable(first: FirstBlock) -> None:
    """Check what a peer looks at when it begins the channel's ledger; raises JoinError."""
    bad = "initializing configtx manager failed: bad channel ID: "
    if not first.channel_id:
        raise JoinError(f"{bad}channel ID illegal, cannot be empty")
    if len(first.channel_id) > MAX_CHANNEL_NAME:
        raise JoinError(f"{bad}channel ID illegal, cannot be longer than {MAX_CHANNEL_NAME}")
    if not _CHANNEL_NAME.fullmatch(first.channel_id):
        raise JoinError(f"{bad}'{first.channel_id}' contains illegal characters")
    number = first.block.header.number
    if number:
        words = f"expected block number=0, received block number={number}"
        raise JoinError(f"cannot create ledger from genesis block: {words}")


def _channel_id(block: common_pb2.Block) -> str:
    if not block.data.data:
        raise DecodeError("failed to retrieve channel id - block is empty")
    payload = _payload(block)
    if not payload.HasField("header"):
        raise DecodeError("failed to retrieve channel id - payload header is empty")
    return str(_read(common_pb2.ChannelHeader, payload.header.channel_header).channel_id)


def _check_configuration(block: common_pb2.Block) -> None:
    """Check that the block carries a channel's configuration with applications; raises DecodeError."""
    bad = "Bad configuration envelope: "
    payload = _payload(block)
    kind = _read(common_pb2.ChannelHeader, payload.header.channel_header).type
    if kind != HEADER_CONFIG:
        known = common_pb2.HeaderType.DESCRIPTOR.values_by_number.get(kind)
        raise DecodeError(f"{bad}invalid type {kind if known is None else known.name}, expected CONFIG")
    try:
        envelope = parse_in_words_of_go(configtx_pb2.ConfigEnvelope, payload.data)
    except DecodeError as error:
        raise DecodeError(f"{bad}error unmarshalling message for type CONFIG: {error}") from error
    if not envelope.HasField("config"):
        raise DecodeError("Nil config envelope Config")
    if not envelope.config.HasField("channel_group"):
        raise DecodeError("Nil channel group")
    groups = envelope.config.channel_group.groups
    if not groups:
        raise DecodeError("No channel configuration groups are available")
    if APPLICATION not in groups:
        raise DecodeError(f"Invalid configuration block, missing {APPLICATION} configuration group")
    if len(block.metadata.metadata) != SLOTS:
        raise DecodeError(f"Block metadata has {len(block.metadata.metadata)} entries instead of {SLOTS}")


def _payload(block: common_pb2.Block) -> common_pb2.Payload:
    return _read(common_pb2.Payload, _read(common_pb2.Envelope, block.data.data[0]).payload)


def _read(kind: type[M], content: bytes) -> M:
    try:
        return parse_in_words_of_go(kind, content)
    except DecodeError as error:
        raise DecodeError(f"error unmarshalling {kind.DESCRIPTOR.name}: {error}") from error
