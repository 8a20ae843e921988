"""The system chaincodes that answer from blocks and configuration: `qscc` and `cscc`.

Rules and texts: `core/scc/qscc/query.go`, `core/scc/cscc/configure.go`. There are no snapshots to join a channel by.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Final, NamedTuple

from fabric_protos.common import common_pb2, configtx_pb2, ledger_pb2
from fabric_protos.peer import query_pb2, transaction_pb2

from network.embedded.ledger.access_control import AccessError, check_access, check_channel_access
from network.embedded.ledger.chaincode import is_text, text_of
from network.embedded.ledger.channel_join import JoinError
from network.embedded.ledger.peer_channel import PeerChannel
from network.errors import BlockNotHeldError
from network.protocol.block import header_hash
from network.protocol.block_signature import last_config_index
from network.protocol.policy import SignedData
from network.protocol.proposal import Response
from network.protocol.state import CONFIG_KEY
from network.protocol.wire import parse

OK: Final = 200
FAILED: Final = 500
NEWEST: Final = 2**64 - 1
_ESCAPES: Final = {
    "\a": "\\a",
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    "\v": "\\v",
    "\\": "\\\\",
    '"': '\\"',
}
_FIRST_ESCAPED: Final = 0xDC00
"""Where `text_of` puts bytes that are no text (PEP 383)."""
CHANNEL_INFO: Final = "GetChainInfo"

Channels = Mapping[str, PeerChannel]
_WITHOUT_ARGUMENT: Final = ("GetChannels", "JoinBySnapshotStatus")

_REJECTED: Final = {
    "qscc": "Rejecting invoke of QSCC from another chaincode because of potential for deadlocks",
    "cscc": "Rejecting invoke of CSCC from another chaincode",
}


class _QueryError(Exception):
    """Nothing to answer with; the text is Fabric's."""


def reject_call(chaincode: str, arguments: tuple[bytes, ...], invoked: str) -> Response | None:
    """Answer a chaincode that calls `qscc` or `cscc`, which they do not want; None for any other name.

    `invoked`: the chaincode that the proposal names.
    """
    rejected = _REJECTED.get(chaincode)
    if rejected is None:
        return None
    needed = 1 if chaincode == "cscc" and arguments[:1] == (b"GetChannels",) else len(("function", "channel"))
    if len(arguments) < needed:
        return _failed(f"Incorrect number of arguments, {len(arguments)}")
    return _failed(f"{rejected}, original invocation for '{invoked}'")


def query_ledger(arguments: tuple[bytes, ...], channels: Channels, signed: SignedData) -> Response:
    """Answer `qscc`: its first argument names the function, its second the channel."""
    if len(arguments) < len(("function", "channel")):
        return _failed(f"Incorrect number of arguments, {len(arguments)}")
    function, channel_id = (text_of(argument) for argument in arguments[:2])
    if function != CHANNEL_INFO and len(arguments) < len(("function", "channel", "argument")):
        return _failed(f"missing 3rd argument for {function}")
    channel = channels.get(channel_id)
    if channel is None:
        return _failed(f"Invalid chain ID, {channel_id}")
    try:
        check_access(f"qscc/{function}", signed, channel.rules)
    except AccessError as error:
        return _failed(f"access denied for [{function}][{channel_id}]: [{error}]")
    answer = _LEDGER_FUNCTIONS.get(function)
    if answer is None:  # a channel can name a policy for it all the same
        return _failed(f"Requested function {function} not found.")
    try:
        return Response(OK, "", answer(channel, b"" if function == CHANNEL_INFO else arguments[2]))
    except _QueryError as error:
        return _failed(str(error))
    except BlockNotHeldError as error:
        first = f"First available block = [{error.first_block}]"
        return _failed(_NOT_HELD[function].format(arguments[2].decode("utf-8", "replace"), first, error))


def _chain_info(channel: PeerChannel, argument: bytes) -> bytes:
    del argument
    header = channel.header(channel.height - 1)
    info = ledger_pb2.BlockchainInfo(
        height=channel.height, currentBlockHash=header_hash(header), previousBlockHash=header.previous_hash
    )
    return bytes(info.SerializeToString())


def _block_by_number(channel: PeerChannel, argument: bytes) -> bytes:
    number = _parse_number(text_of(argument))
    if number == NEWEST:
        number = channel.height - 1
    if number >= channel.height:
        raise _QueryError(f"Failed to get block number {number}, error no such block number [{number}] in index")
    return channel.files.content(number)


def _parse_number(text: str) -> int:
    digits = text.lstrip("0")
    if not (text.isascii() and text.isdigit()):
        defect = "invalid syntax"
    elif len(digits) > len(str(NEWEST)) or int(digits or "0") > NEWEST:
        defect = "value out of range"
    else:
        return int(digits or "0")
    raise _QueryError(f"Failed to parse block number with error strconv.ParseUint: parsing {_quoted(text)}: {defect}")


def _quoted(text: str) -> str:
    """Write text as Go's `strconv.Quote` does."""
    return f'"{"".join([_quoted_character(character) for character in text])}"'


def _quoted_character(character: str) -> str:
    code = ord(character)
    if character in _ESCAPES:
        return _ESCAPES[character]
    if character.isprintable():
        return character
    if _FIRST_ESCAPED <= code < _FIRST_ESCAPED + 0x100:  # a byte that is no text
        return f"\\x{code - _FIRST_ESCAPED:02x}"
    if code < 0x80:  # ASCII
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _block_by_hash(channel: PeerChannel, argument: bytes) -> bytes:
    number = channel.store.block_number(argument)
    if number is None:
        words = f"Failed to get block hash {text_of(argument)}, error no such block hash [{argument.hex()}] in index"
        raise _QueryError(words)
    return channel.files.content(number)


def _transaction_by_id(channel: PeerChannel, argument: bytes) -> bytes:
    tx_id = text_of(argument)
    place = channel.transaction_place(tx_id) if is_text(tx_id) else None
    if place is None:
        raise _QueryError(f"Failed to get transaction with id {tx_id}, error no such transaction ID [{tx_id}] in index")
    envelope = channel.files.block(place.block_number).data.data[place.tx_number]
    processed = transaction_pb2.ProcessedTransaction(
        transactionEnvelope=common_pb2.Envelope.FromString(envelope), validationCode=place.code
    )
    return bytes(processed.SerializeToString())


def _block_by_tx_id(channel: PeerChannel, argument: bytes) -> bytes:
    tx_id = text_of(argument)
    place = channel.transaction_place(tx_id) if is_text(tx_id) else None
    if place is None:
        raise _QueryError(f"Failed to get block for txID {tx_id}, error no such transaction ID [{tx_id}] in index")
    return channel.files.content(place.block_number)


_LEDGER_FUNCTIONS: Final[Mapping[str, Callable[[PeerChannel, bytes], bytes]]] = {
    CHANNEL_INFO: _chain_info,
    "GetBlockByNumber": _block_by_number,
    "GetBlockByHash": _block_by_hash,
    "GetTransactionByID": _transaction_by_id,
    "GetBlockByTxID": _block_by_tx_id,
}
_TX_NOT_HELD: Final = "details for the TXID [{0}] not available. Ledger bootstrapped from a snapshot. {1}"
_NOT_HELD: Final = {
    "GetBlockByNumber": "Failed to get block number {0}, error {2}",
    "GetBlockByHash": "Failed to get block hash {0}, error {2}",
    "GetTransactionByID": f"Failed to get transaction with id {{0}}, error {_TX_NOT_HELD}",
    "GetBlockByTxID": f"Failed to get block for txID {{0}}, error {_TX_NOT_HELD}",
}


class ConfigurationCall(NamedTuple):
    """What `cscc` needs of a peer. `authorize` checks a resource without a channel; both functions raise.

    `join` is given a block and what checks the caller; it raises JoinError.
    """

    channels: Channels
    authorize: Callable[[str], None]
    signed: SignedData
    join: Callable[[bytes, Callable[[], None]], None]


def invoke_configuration(arguments: tuple[bytes, ...], call: ConfigurationCall) -> Response:
    """Answer `cscc`: its first argument names the function."""
    if not arguments:
        return _failed("Incorrect number of arguments, 0")
    function = text_of(arguments[0])
    if function not in _WITHOUT_ARGUMENT and len(arguments) < len(("function", "argument")):
        return _failed(f"Incorrect number of arguments, {len(arguments)}")
    if function == "GetChannels":
        return _channels(call.channels, call.authorize)
    if function == "JoinChain":
        return _join(arguments[1], call)
    if function == "JoinChainBySnapshot":
        return _join_by_snapshot(arguments[1], call)
    if function == "JoinBySnapshotStatus":
        return _snapshot_status(call)
    if function in ("GetConfigBlock", "GetChannelConfig"):
        return _configuration(function, text_of(arguments[1]), call)
    return _failed(f"Requested function {function} not found.")


def _join(block: bytes, call: ConfigurationCall) -> Response:
    try:
        call.join(block, partial(call.authorize, "cscc/JoinChain"))
    except JoinError as error:
        return _failed(str(error))
    return Response(OK, "", b"")


def _join_by_snapshot(folder: bytes, call: ConfigurationCall) -> Response:
    if not folder:
        return _failed("Cannot join the channel, no snapshot directory provided")
    try:
        call.authorize("cscc/JoinChainBySnapshot")
    except AccessError as error:
        return _failed(f"access denied for [JoinChainBySnapshot]: [{error}]")
    return _failed("the embedded network joins no channel by snapshot")


def _snapshot_status(call: ConfigurationCall) -> Response:
    """Say that no snapshot is being joined by: an empty JoinBySnapshotStatus."""
    try:
        call.authorize("cscc/JoinBySnapshotStatus")
    except AccessError as error:
        return _failed(f"access denied for [JoinBySnapshotStatus]: {error}")
    return Response(OK, "", b"")


def _configuration(function: str, channel_id: str, call: ConfigurationCall) -> Response:
    if function == "GetChannelConfig" and not channel_id:
        return _failed("empty channel name provided")
    resource = f"cscc/{function}"
    channel = call.channels.get(channel_id)
    try:
        if channel_id:
            check_channel_access(resource, call.signed, channel_id, None if channel is None else channel.rules)
        else:
            call.authorize(resource)
    except AccessError as error:
        return _failed(f"access denied for [{function}][{channel_id}]: {error}")
    if channel is None:
        return _failed(f"Unknown channel ID, {channel_id}")
    return _config_block(channel) if function == "GetConfigBlock" else Response(OK, "", _channel_config(channel))


def _channels(channels: Channels, authorize: Callable[[str], None]) -> Response:
    try:
        authorize("cscc/GetChannels")
    except AccessError as error:
        return _failed(f"access denied for [GetChannels]: {error}")
    answer = query_pb2.ChannelQueryResponse(
        channels=[query_pb2.ChannelInfo(channel_id=channel_id) for channel_id in channels]
    )
    return Response(OK, "", bytes(answer.SerializeToString()))


def _config_block(channel: PeerChannel) -> Response:
    last = channel.files.block(channel.height - 1)
    try:
        return Response(OK, "", channel.files.content(last_config_index(tuple(last.metadata.metadata))))
    except BlockNotHeldError as error:
        return _failed(str(error))


def _channel_config(channel: PeerChannel) -> bytes:
    found = channel.store.value(CONFIG_KEY)
    if found is None:
        return b""
    envelope = parse(configtx_pb2.ConfigEnvelope, found.value, "ConfigEnvelope")
    return bytes(envelope.config.SerializeToString())


def _failed(message: str) -> Response:
    return Response(FAILED, message, b"")
