"""`qscc` and `cscc` of an embedded peer: blocks and configurations as kept, every refusal."""

from collections.abc import Callable, Iterator
from functools import partial
from hashlib import sha256
from pathlib import Path

import pytest
from fabric_protos.common import common_pb2, configtx_pb2, ledger_pb2
from fabric_protos.peer import query_pb2, transaction_pb2
from fabric_protos.peer.lifecycle import lifecycle_pb2 as messages

from network.embedded.ledger.access_control import AccessError, check_local_access
from network.embedded.ledger.chaincode import ChaincodeError, writable
from network.embedded.ledger.channel_join import JoinError
from network.embedded.ledger.peer_channel import PeerChannel
from network.embedded.ledger.system_chaincode import ConfigurationCall, invoke_configuration, query_ledger
from network.protocol.block import header_hash
from network.protocol.decode import decode_transaction
from network.protocol.proposal import Response
from tests.support.chain_factory import ChainFactory, Signer
from tests.support.embedded_channel import EmbeddedChannel, signed_by, with_acls

CHANNEL = "consortium"
NEWEST = b"18446744073709551615"
QUERIES = ("GetChainInfo", "GetBlockByNumber", "GetBlockByHash", "GetTransactionByID", "GetBlockByTxID")
DENIED = "Failed evaluating policy on signed data during check policy on channel [consortium] with policy "


@pytest.fixture
def network(tmp_path: Path) -> Iterator[EmbeddedChannel]:
    """A channel of three blocks: the first, an approval, a configuration."""
    made = EmbeddedChannel(tmp_path)
    arguments = messages.ApproveChaincodeDefinitionForMyOrgArgs(name="service", version="1.0", sequence=1)
    made.call("ApproveChaincodeDefinitionForMyOrg", arguments, commit=True)
    made.configure()
    yield made
    made.close()


def ask(network: EmbeddedChannel, *arguments: bytes | str, signer: Signer | None = None) -> Response:
    texts = tuple(argument.encode() if isinstance(argument, str) else argument for argument in arguments)
    return query_ledger(texts, {CHANNEL: network.channel}, signed_by(signer or network.client))


def configure(network: EmbeddedChannel, *arguments: bytes | str, signer: Signer | None = None) -> Response:
    texts = tuple(argument.encode() if isinstance(argument, str) else argument for argument in arguments)
    signed = signed_by(signer or network.client)
    authorize = partial(
        check_local_access, signed=signed, msp_id=network.enterprise.msp_id, msps=network.channel.rules.msps
    )
    return invoke_configuration(texts, ConfigurationCall({CHANNEL: network.channel}, authorize, signed, refuse_to_join))


def refuse_to_join(block: bytes, authorize: Callable[[], None]) -> None:
    try:
        authorize()
    except AccessError as error:
        raise JoinError(str(error)) from error
    raise JoinError(f"not joined: {block!r}")


def payload(response: Response) -> bytes:
    assert (response.status, response.message) == (200, "")
    return response.payload


def failure(response: Response) -> str:
    assert (response.status, response.payload) == (500, b"")
    return response.message


def approval(network: EmbeddedChannel) -> tuple[str, bytes]:
    (envelope,) = network.channel.files.block(1).data.data
    return decode_transaction(0, envelope).tx_id, envelope


# --- qscc


def test_tells_the_height_and_the_newest_hashes(network: EmbeddedChannel) -> None:
    info = ledger_pb2.BlockchainInfo.FromString(payload(ask(network, "GetChainInfo", CHANNEL)))

    assert info.height == 3
    assert info.currentBlockHash == header_hash(network.channel.header(2))
    assert info.previousBlockHash == header_hash(network.channel.header(1))


@pytest.mark.parametrize(("text", "number"), [("0", 0), ("1", 1), ("02", 2), (NEWEST.decode(), 2)])
def test_gives_blocks_by_number(network: EmbeddedChannel, text: str, number: int) -> None:
    block = payload(ask(network, "GetBlockByNumber", CHANNEL, text))

    assert block == network.channel.files.content(number)
    assert common_pb2.Block.FromString(block).header.number == number


def test_gives_blocks_and_transactions_by_hash_and_id(network: EmbeddedChannel) -> None:
    tx_id, envelope = approval(network)
    block = network.channel.files.content(1)

    by_hash = payload(ask(network, "GetBlockByHash", CHANNEL, header_hash(network.channel.header(1))))
    by_id = payload(ask(network, "GetBlockByTxID", CHANNEL, tx_id))
    found = transaction_pb2.ProcessedTransaction.FromString(payload(ask(network, "GetTransactionByID", CHANNEL, tx_id)))

    assert by_hash == by_id == block
    assert found.transactionEnvelope.SerializeToString() == envelope
    assert found.validationCode == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("GetChainInfo",), "Incorrect number of arguments, 1"),
        ((), "Incorrect number of arguments, 0"),
        (("GetBlockByNumber", CHANNEL), "missing 3rd argument for GetBlockByNumber"),
        (("GetChainInfo", "other"), "Invalid chain ID, other"),
        (
            ("GetBlockByNumber", CHANNEL, "3"),
            "Failed to get block number 3, error no such block number [3] in index",
        ),
        (
            ("GetBlockByNumber", CHANNEL, "-1"),
            'Failed to parse block number with error strconv.ParseUint: parsing "-1": invalid syntax',
        ),
        (
            ("GetBlockByNumber", CHANNEL, ""),
            'Failed to parse block number with error strconv.ParseUint: parsing "": invalid syntax',
        ),
        (
            ("GetBlockByNumber", CHANNEL, b'a"\\\n\x01\x7f\xff\xc2\x85\xe2\x80\xa8\xf3\xa0\x80\x81\xe5\x8c\x97'),
            (
                "Failed to parse block number with error strconv.ParseUint: parsing "
                '"a\\"\\\\\\n\\x01\\x7f\\xff\\u0085\\u2028\\U000e0001\u5317": invalid syntax'
            ),
        ),
        (
            ("GetBlockByNumber", CHANNEL, "18446744073709551616"),
            (
                'Failed to parse block number with error strconv.ParseUint: parsing "18446744073709551616": value out '
                "of range"
            ),
        ),
        (
            ("GetBlockByHash", CHANNEL, b"\x01"),
            "Failed to get block hash \x01, error no such block hash [01] in index",
        ),
        (
            ("GetTransactionByID", CHANNEL, "none"),
            "Failed to get transaction with id none, error no such transaction ID [none] in index",
        ),
        (
            ("GetBlockByTxID", CHANNEL, "none"),
            "Failed to get block for txID none, error no such transaction ID [none] in index",
        ),
        (
            ("GetEverything", CHANNEL, ""),
            "access denied for [GetEverything][consortium]: [Unmapped policy for qscc/GetEverything]",
        ),
    ],
)
def test_refuses_queries_in_the_words_of_real_peers(
    network: EmbeddedChannel, arguments: tuple[bytes | str, ...], message: str
) -> None:
    assert failure(ask(network, *arguments)) == message


def test_a_number_of_any_length_is_refused(network: EmbeddedChannel) -> None:
    assert failure(ask(network, "GetBlockByNumber", CHANNEL, "9" * 10_000)).endswith(": value out of range")


@pytest.mark.parametrize("function", QUERIES)
def test_every_query_asks_who_reads(network: EmbeddedChannel, function: str) -> None:
    stranger = network.enterprise.issue("nobody", "no role")

    message = failure(ask(network, function, CHANNEL, "0", signer=stranger))

    assert message.startswith(f"access denied for [{function}][consortium]: [{DENIED}[/Channel/Application/Readers]: [")


def test_a_query_that_does_not_exist_does_not_run_by_a_policy_of_the_channel(network: EmbeddedChannel) -> None:
    network.configure(with_acls({"qscc/GetEverything": "Readers"}))

    assert failure(ask(network, "GetEverything", CHANNEL, "")) == "Requested function GetEverything not found."


# --- cscc


def test_lists_the_channels_to_members(network: EmbeddedChannel) -> None:
    answer = query_pb2.ChannelQueryResponse.FromString(payload(configure(network, "GetChannels")))
    refused = failure(configure(network, "GetChannels", signer=network.customer.client))

    assert [channel.channel_id for channel in answer.channels] == [CHANNEL]
    assert refused == (
        "access denied for [GetChannels]: Failed deserializing proposal creator during channelless check policy with "
        "policy [Members]: [expected MSP ID EnterpriseMSP, received CustomerMSP]"
    )


def test_gives_the_configuration_in_force(network: EmbeddedChannel) -> None:
    block = common_pb2.Block.FromString(payload(configure(network, "GetConfigBlock", CHANNEL)))
    config = configtx_pb2.Config.FromString(payload(configure(network, "GetChannelConfig", CHANNEL)))

    assert block.header.number == 2
    assert config == network.factory.configuration


def test_the_first_block_is_the_configuration_until_another_comes(tmp_path: Path) -> None:
    made = EmbeddedChannel(tmp_path)
    try:
        first = payload(configure(made, "GetConfigBlock", CHANNEL))
        arguments = messages.ApproveChaincodeDefinitionForMyOrgArgs(name="service", version="1.0", sequence=1)
        made.call("ApproveChaincodeDefinitionForMyOrg", arguments, commit=True)
        later = payload(configure(made, "GetConfigBlock", CHANNEL))
    finally:
        made.close()

    assert sha256(first).digest() == sha256(later).digest()
    assert common_pb2.Block.FromString(first).header.number == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "Incorrect number of arguments, 0"),
        (("GetConfigBlock",), "Incorrect number of arguments, 1"),
        (("Nothing", CHANNEL), "Requested function Nothing not found."),
        (("GetChannelConfig", ""), "empty channel name provided"),
        (
            ("GetConfigBlock", ""),
            (
                "access denied for [GetConfigBlock][]: Failed getting local MSP principal during channelless check "
                "policy with policy [/Channel/Application/Readers]: [MSP Principal role "
                "[/Channel/Application/Readers] not recognized]"
            ),
        ),
        (("JoinChain",), "Incorrect number of arguments, 1"),
        (("JoinChainBySnapshot", ""), "Cannot join the channel, no snapshot directory provided"),
        (
            ("GetConfigBlock", "other"),
            "access denied for [GetConfigBlock][other]: Failed to get policy manager for channel [other]",
        ),
        (
            ("GetChannelConfig", "other"),
            "access denied for [GetChannelConfig][other]: Failed to get policy manager for channel [other]",
        ),
    ],
)
def test_refuses_configurations_in_the_words_of_real_peers(
    network: EmbeddedChannel, arguments: tuple[str, ...], message: str
) -> None:
    assert failure(configure(network, *arguments)) == message


@pytest.mark.parametrize("function", ["JoinChain", "JoinChainBySnapshot", "JoinBySnapshotStatus"])
def test_joining_is_for_admins(network: EmbeddedChannel, function: str) -> None:
    refused = failure(configure(network, function, "block"))

    assert "The identity is not an admin under this MSP [EnterpriseMSP]" in refused
    if function == "JoinBySnapshotStatus":
        assert payload(configure(network, function, signer=network.admin)) == b""
    else:
        assert "not an admin" not in failure(configure(network, function, "block", signer=network.admin))


def test_bytes_that_are_no_text_are_quoted_by_no_answer(network: EmbeddedChannel) -> None:
    for arguments in [
        ("GetBlockByHash", CHANNEL, b"\xff"),
        ("GetTransactionByID", CHANNEL, b"\xff"),
        (b"\xff", CHANNEL, ""),
    ]:
        with pytest.raises(ChaincodeError, match="string field contains invalid UTF-8"):
            writable(ask(network, *arguments))


@pytest.mark.parametrize("function", ["GetConfigBlock", "GetChannelConfig"])
def test_configurations_are_for_readers(network: EmbeddedChannel, function: str) -> None:
    stranger = network.enterprise.issue("nobody", "no role")

    message = failure(configure(network, function, CHANNEL, signer=stranger))

    assert message.startswith(f"access denied for [{function}][consortium]: {DENIED}[/Channel/Application/Readers]: [")


def test_a_first_block_that_names_no_configuration_is_one(tmp_path: Path) -> None:
    factory = ChainFactory()
    genesis = common_pb2.Block.FromString(factory.genesis())
    genesis.metadata.metadata[0] = b""
    channel = PeerChannel(CHANNEL, "EnterpriseMSP", tmp_path)
    try:
        channel.join(genesis)
        signed = signed_by(factory.organisations[0].client)
        call = ConfigurationCall({CHANNEL: channel}, lambda _: None, signed, refuse_to_join)
        found = invoke_configuration((b"GetConfigBlock", CHANNEL.encode()), call)
    finally:
        channel.close()

    assert common_pb2.Block.FromString(payload(found)).header == genesis.header
