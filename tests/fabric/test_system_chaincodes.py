"""The peers' own chaincodes, asked through the Endorser service: qscc, cscc and _lifecycle, in the words of real peers.

Measured on peers of 3.1.5; sources: core/scc/{qscc/query,cscc/configure}.go,
core/chaincode/lifecycle/{scc,lifecycle}.go.
"""

import gzip
import io
import json
import tarfile
from collections.abc import Callable
from hashlib import sha256
from typing import Any, Final, NamedTuple

import pytest
from fabric_protos.common import common_pb2, configtx_pb2, ledger_pb2
from fabric_protos.peer import collection_pb2, peer_pb2_grpc, query_pb2, transaction_pb2
from fabric_protos.peer.lifecycle import lifecycle_pb2

from network.protocol.block import BlockHeader, header_hash
from network.protocol.package import build_service_package
from tests.support.lifecycle_functions import FOR_WRITERS, LIFECYCLE_FUNCTIONS
from tests.support.live_network import BILLING, CHANNEL, PROBE, SERVICE, LiveNetwork
from tests.support.service_request import (
    GARBAGE,
    NO_TEXT,
    UNREADABLE,
    ProposalSpec,
    Refused,
    called,
    signed_proposal,
    words_of,
)

ON: Final = CHANNEL.encode()
NEWEST: Final = str(2**64 - 1).encode()
ADMIN, AGENT = "admin", "agent"
NO_ADMIN: Final = (
    "Failed verifying that proposal's creator satisfies local MSP principal during channelless check policy with "
    "policy [Admins]: [The identity is not an admin under this MSP [ServiceMSP]: The identity does not contain OU "
    "[ADMIN], MSP: [ServiceMSP]]"
)
STRANGER: Final = (
    "Failed deserializing proposal creator during channelless check policy with policy [Admins]: [expected MSP ID "
    "ServiceMSP, received BillingMSP]"
)
NO_ROLE: Final = (
    "Failed getting local MSP principal during channelless check policy with policy [/Channel/Application/{0}]: [MSP "
    "Principal role [/Channel/Application/{0}] not recognized]"
)
NO_READER: Final = (
    "Failed evaluating policy on signed data during check policy on channel [consortium] with policy "
    "[/Channel/Application/Readers]: [implicit policy evaluation failed - 0 sub-policies were satisfied, but this "
    "policy requires 1 of the 'Readers' sub-policies to be satisfied]"
)
UNWRITABLE: Final = f"error in simulation: transaction returned with failure: failed to marshal response: {NO_TEXT}"


class Asked(NamedTuple):
    """A response: status, message, whether anything was given and whether it was endorsed."""

    status: int
    message: str
    gives: bool
    is_endorsed: bool


def failed(message: str) -> Asked:
    return Asked(500, message, gives=False, is_endorsed=False)


async def ask(
    network: LiveNetwork, who: tuple[str, str], chaincode: str, arguments: tuple[bytes, ...], channel: str
) -> Any:
    """Give the ProposalResponse of the service department's peer, or how the call failed."""
    spec = ProposalSpec(channel, chaincode, arguments)
    async with network.channel(SERVICE) as opened:
        stub = peer_pb2_grpc.EndorserStub(opened.grpc)
        return await called(network, stub.ProcessProposal(signed_proposal(network.identity(*who), spec), timeout=30))


def answer(
    network: LiveNetwork,
    chaincode: str,
    arguments: tuple[bytes, ...],
    *,
    user: str = ADMIN,
    msp_id: str = SERVICE,
    channel: str = CHANNEL,
) -> Asked | Refused:
    found = network.run(lambda: ask(network, (msp_id, user), chaincode, arguments, channel))
    if isinstance(found, Refused):
        return found
    response = found.response
    return Asked(
        response.status,
        words_of(network, response.message),
        bool(response.payload),
        found.HasField("endorsement"),
    )


def given(network: LiveNetwork, chaincode: str, *arguments: bytes, channel: str = CHANNEL) -> bytes:
    found = network.run(lambda: ask(network, (SERVICE, ADMIN), chaincode, arguments, channel))
    assert found.response.status == 200, found.response.message
    return bytes(found.response.payload)


# --- qscc

PARSING: Final = "Failed to parse block number with error strconv.ParseUint: parsing "
QUERIES: Final[dict[str, tuple[tuple[bytes, ...], str]]] = {
    "nothing": ((), "Incorrect number of arguments, 0"),
    "no channel": ((b"GetChainInfo",), "Incorrect number of arguments, 1"),
    "another channel": ((b"GetChainInfo", b"elsewhere"), "Invalid chain ID, elsewhere"),
    "no number": ((b"GetBlockByNumber", ON), "missing 3rd argument for GetBlockByNumber"),
    "an empty number": ((b"GetBlockByNumber", ON, b""), f'{PARSING}"": invalid syntax'),
    "a sign": ((b"GetBlockByNumber", ON, b"+1"), f'{PARSING}"+1": invalid syntax'),
    "a negative": ((b"GetBlockByNumber", ON, b"-1"), f'{PARSING}"-1": invalid syntax'),
    "an underscore": ((b"GetBlockByNumber", ON, b"1_0"), f'{PARSING}"1_0": invalid syntax'),
    "what has to be quoted": (
        (b"GetBlockByNumber", ON, b'a"\n\x01\xff\xc2\x85'),
        f'{PARSING}"a\\"\\n\\x01\\xff\\u0085": invalid syntax',
    ),
    "a number too large": ((b"GetBlockByNumber", ON, b"9" * 30), f'{PARSING}"{"9" * 30}": value out of range'),
    "a block that is not there": (
        (b"GetBlockByNumber", ON, str(2**64 - 2).encode()),
        f"Failed to get block number {2**64 - 2}, error no such block number [{2**64 - 2}] in index",
    ),
    "a hash of nothing": (
        (b"GetBlockByHash", ON, b"xyz"),
        "Failed to get block hash xyz, error no such block hash [78797a] in index",
    ),
    "an empty hash": ((b"GetBlockByHash", ON, b""), "Failed to get block hash , error no such block hash [] in index"),
    "no transaction": (
        (b"GetTransactionByID", ON, b"none"),
        "Failed to get transaction with id none, error no such transaction ID [none] in index",
    ),
    "no transaction's block": (
        (b"GetBlockByTxID", ON, b"none"),
        "Failed to get block for txID none, error no such transaction ID [none] in index",
    ),
    "no function": (
        (b"Nothing", ON, b"1"),
        f"access denied for [Nothing][{CHANNEL}]: [Unmapped policy for qscc/Nothing]",
    ),
    "no function nor argument": ((b"Nothing", ON), "missing 3rd argument for Nothing"),
    "empty texts": ((b"", b"", b""), "Invalid chain ID, "),
}


@pytest.mark.parametrize("channel", [CHANNEL, ""], ids=["on the channel", "without"])
@pytest.mark.parametrize("case", QUERIES)
def test_a_query_is_refused_in_the_same_words(network: LiveNetwork, case: str, channel: str) -> None:
    arguments, words = QUERIES[case]

    assert answer(network, "qscc", arguments, user=AGENT, channel=channel) == failed(words)


@pytest.mark.parametrize("arguments", [(b"GetBlockByHash", ON, GARBAGE), (b"GetTransactionByID", ON, GARBAGE)])
def test_bytes_that_are_no_text_cannot_be_quoted(network: LiveNetwork, arguments: tuple[bytes, ...]) -> None:
    assert answer(network, "qscc", arguments) == failed(UNWRITABLE)


def test_queries_give_what_is_in_the_blocks(network: LiveNetwork) -> None:
    block = given(network, "qscc", b"GetBlockByNumber", ON, b"1")
    header = common_pb2.Block.FromString(block).header
    digest = header_hash(BlockHeader(header.number, header.previous_hash, header.data_hash))
    by_hash = given(network, "qscc", b"GetBlockByHash", ON, digest)
    envelope = common_pb2.Envelope.FromString(common_pb2.Block.FromString(block).data.data[0])
    tx_id = common_pb2.ChannelHeader.FromString(
        common_pb2.Payload.FromString(envelope.payload).header.channel_header
    ).tx_id.encode()
    found = transaction_pb2.ProcessedTransaction.FromString(given(network, "qscc", b"GetTransactionByID", ON, tx_id))
    info = ledger_pb2.BlockchainInfo.FromString(given(network, "qscc", b"GetChainInfo", ON))
    newest = common_pb2.Block.FromString(given(network, "qscc", b"GetBlockByNumber", ON, NEWEST))

    assert block == by_hash == given(network, "qscc", b"GetBlockByTxID", ON, tx_id)
    assert (found.transactionEnvelope, found.validationCode) == (envelope, 0)
    assert newest.header.number == info.height - 1
    assert newest.header.previous_hash == info.previousBlockHash


def test_queries_are_answered_to_readers_and_endorsed_on_a_channel(network: LiveNetwork) -> None:
    arguments = (b"GetChainInfo", ON)

    auditor = answer(network, "qscc", arguments, msp_id="AuditorMSP", user="auditor")
    without = answer(network, "qscc", arguments, channel="")
    orderer = answer(network, "qscc", arguments, msp_id="OrdererMSP")

    assert auditor == Asked(200, "", gives=True, is_endorsed=True)
    assert without == Asked(200, "", gives=True, is_endorsed=False)
    assert orderer == failed(f"access denied for [GetChainInfo][consortium]: [{NO_READER}]")


# --- cscc

CONFIGURATIONS: Final[dict[str, tuple[tuple[bytes, ...], str]]] = {
    "nothing": ((), "Incorrect number of arguments, 0"),
    "no block's channel": ((b"GetConfigBlock",), "Incorrect number of arguments, 1"),
    "an empty name": ((b"GetChannelConfig", b""), "empty channel name provided"),
    "an empty name for a block": (
        (b"GetConfigBlock", b""),
        f"access denied for [GetConfigBlock][]: {NO_ROLE.format('Readers')}",
    ),
    "another channel's block": (
        (b"GetConfigBlock", b"elsewhere"),
        "access denied for [GetConfigBlock][elsewhere]: Failed to get policy manager for channel [elsewhere]",
    ),
    "another channel": (
        (b"GetChannelConfig", b"elsewhere"),
        "access denied for [GetChannelConfig][elsewhere]: Failed to get policy manager for channel [elsewhere]",
    ),
    "no function": ((b"Nothing", b"x"), "Requested function Nothing not found."),
    "no function nor argument": ((b"Nothing",), "Incorrect number of arguments, 1"),
    "a function of Fabric 1": ((b"GetConfigTree", ON), "Requested function GetConfigTree not found."),
    "nothing to join": ((b"JoinChain",), "Incorrect number of arguments, 1"),
}


@pytest.mark.parametrize("channel", [CHANNEL, ""], ids=["on the channel", "without"])
@pytest.mark.parametrize("case", CONFIGURATIONS)
def test_a_configuration_is_refused_in_the_same_words(network: LiveNetwork, case: str, channel: str) -> None:
    arguments, words = CONFIGURATIONS[case]

    assert answer(network, "cscc", arguments, user=AGENT, channel=channel) == failed(words)


def test_the_configuration_in_force_is_the_last_configuration_blocks(network: LiveNetwork) -> None:
    block = common_pb2.Block.FromString(given(network, "cscc", b"GetConfigBlock", ON))
    config = configtx_pb2.Config.FromString(given(network, "cscc", b"GetChannelConfig", ON, channel=""))

    payload = common_pb2.Payload.FromString(common_pb2.Envelope.FromString(block.data.data[0]).payload)
    assert configtx_pb2.ConfigEnvelope.FromString(payload.data).config == config


def test_channels_are_listed_to_members(network: LiveNetwork) -> None:
    found = query_pb2.ChannelQueryResponse.FromString(given(network, "cscc", b"GetChannels", channel=""))

    assert CHANNEL in {channel.channel_id for channel in found.channels}
    assert answer(network, "cscc", (b"GetChannels",), user=AGENT) == Asked(200, "", gives=True, is_endorsed=True)


def test_no_snapshot_is_being_joined_by(network: LiveNetwork) -> None:
    arguments = (b"JoinBySnapshotStatus",)

    assert answer(network, "cscc", arguments) == Asked(200, "", gives=False, is_endorsed=True)
    assert answer(network, "cscc", arguments, user=AGENT) == failed(
        f"access denied for [JoinBySnapshotStatus]: {NO_ADMIN}"
    )


@pytest.mark.parametrize("chaincode", ["cscc", "qscc", "_lifecycle", PROBE])
def test_without_a_channel_a_peer_knows_its_own_organisation_alone(network: LiveNetwork, chaincode: str) -> None:
    assert answer(network, chaincode, (b"GetChannels",), msp_id=BILLING, channel="") == Refused(
        "UNKNOWN", "error validating proposal: access denied: channel [] creator org unknown, creator is malformed"
    )


# --- joining


def first_block(network: LiveNetwork, channel: str, **changes: Callable[[Any], None] | int) -> Any:
    """Give the channel's first block under another name; `config` changes its ConfigEnvelope, `kind` its type."""
    block = common_pb2.Block.FromString(network.root.genesis_block(CHANNEL).read_bytes())
    envelope = common_pb2.Envelope.FromString(block.data.data[0])
    payload = common_pb2.Payload.FromString(envelope.payload)
    header = common_pb2.ChannelHeader.FromString(payload.header.channel_header)
    header.channel_id = channel
    kind, config = changes.get("kind"), changes.get("config")
    if isinstance(kind, int):
        header.type = kind
    payload.header.channel_header = header.SerializeToString()
    if callable(config):
        message = configtx_pb2.ConfigEnvelope.FromString(payload.data)
        config(message)
        payload.data = message.SerializeToString()
    envelope.payload = payload.SerializeToString()
    block.data.data[0] = envelope.SerializeToString()
    block.header.data_hash = sha256(block.data.data[0]).digest()
    return block


def without_applications(message: Any) -> None:
    del message.config.channel_group.groups["Application"]


def without_groups(message: Any) -> None:
    message.config.channel_group.groups.clear()


UNUSABLE: Final = '"JoinChain" for channelID = {} failed because of validation of configuration block, because of {}'
NAME: Final = "initializing configtx manager failed: bad channel ID: "
UNJOINABLE: Final[dict[str, tuple[Callable[[LiveNetwork], Any], str]]] = {
    "no block": (
        lambda _: GARBAGE,
        f"Failed to reconstruct the genesis block, error unmarshalling Block: {UNREADABLE}",
    ),
    "an empty one": (
        lambda _: b"",
        (
            '"JoinChain" request failed to extract channel id from the block due to [failed to retrieve channel id - '
            "block is empty]"
        ),
    ),
    "another type": (
        lambda network: first_block(network, "new", kind=3),
        UNUSABLE.format("new", "Bad configuration envelope: invalid type ENDORSER_TRANSACTION, expected CONFIG"),
    ),
    "no configuration": (
        lambda network: first_block(network, "new", config=lambda it: it.ClearField("config")),
        UNUSABLE.format("new", "Nil config envelope Config"),
    ),
    "no group": (
        lambda network: first_block(network, "new", config=lambda it: it.config.ClearField("channel_group")),
        UNUSABLE.format("new", "Nil channel group"),
    ),
    "no groups": (
        lambda network: first_block(network, "new", config=without_groups),
        UNUSABLE.format("new", "No channel configuration groups are available"),
    ),
    "no applications": (
        lambda network: first_block(network, "new", config=without_applications),
        UNUSABLE.format("new", "Invalid configuration block, missing Application configuration group"),
    ),
    "no name": (lambda network: first_block(network, ""), f"{NAME}channel ID illegal, cannot be empty"),
    "a path": (lambda network: first_block(network, "../x"), f"{NAME}'../x' contains illegal characters"),
    "capitals": (lambda network: first_block(network, "New"), f"{NAME}'New' contains illegal characters"),
    "a name too long": (
        lambda network: first_block(network, "a" * 250),
        f"{NAME}channel ID illegal, cannot be longer than 249",
    ),
    "one that it joined": (
        lambda network: first_block(network, CHANNEL),
        "cannot create ledger from genesis block: ledger [consortium] already exists with state [ACTIVE]",
    ),
}


@pytest.mark.parametrize("case", UNJOINABLE)
def test_a_block_that_begins_no_channel_is_not_joined(network: LiveNetwork, case: str) -> None:
    make, words = UNJOINABLE[case]
    block = make(network)
    content = block if isinstance(block, bytes) else block.SerializeToString()

    assert answer(network, "cscc", (b"JoinChain", content), channel="") == failed(words)


def test_joining_is_for_admins(network: LiveNetwork) -> None:
    content = first_block(network, "unwanted").SerializeToString()

    assert answer(network, "cscc", (b"JoinChain", content), user=AGENT, channel="") == failed(
        f"access denied for [JoinChain][unwanted]: [{NO_ADMIN}]"
    )
    assert answer(network, "cscc", (b"JoinChain", content), msp_id=BILLING) == failed(
        f"access denied for [JoinChain][unwanted]: [{STRANGER}]"
    )


def test_a_peer_joins_a_channel_once_and_has_its_first_block(network: LiveNetwork) -> None:
    name = network.fresh("joined")
    block = first_block(network, name)
    later = common_pb2.Block()
    later.CopyFrom(block)
    later.header.number = 5

    too_late = answer(network, "cscc", (b"JoinChain", later.SerializeToString()), channel="")
    joined = answer(network, "cscc", (b"JoinChain", block.SerializeToString()), channel="")
    again = answer(network, "cscc", (b"JoinChain", block.SerializeToString()), channel="")
    channels = query_pb2.ChannelQueryResponse.FromString(given(network, "cscc", b"GetChannels", channel=""))
    info = ledger_pb2.BlockchainInfo.FromString(given(network, "qscc", b"GetChainInfo", name.encode(), channel=""))

    assert too_late == failed(
        "cannot create ledger from genesis block: expected block number=0, received block number=5"
    )
    assert joined == Asked(200, "", gives=False, is_endorsed=False)
    assert again == failed(
        f"cannot create ledger from genesis block: ledger [{name}] already exists with state [ACTIVE]"
    )
    assert name in {channel.channel_id for channel in channels.channels}
    header = BlockHeader(0, block.header.previous_hash, block.header.data_hash)
    assert (info.height, info.currentBlockHash) == (1, header_hash(header))


# --- _lifecycle

ACL: Final = "Failed to authorize invocation due to failed ACL check: "


def not_done(function: str, why: str) -> str:
    return f"failed to invoke backing implementation of '{function}': {why}"


@pytest.mark.parametrize("function", LIFECYCLE_FUNCTIONS)
def test_an_argument_of_the_lifecycle_that_is_none_is_refused(network: LiveNetwork, function: str) -> None:
    words = not_done(function, f"could not decode input arg for *lifecycle.Invocation.{function}: {UNREADABLE}")

    assert answer(network, "_lifecycle", (function.encode(), GARBAGE)) == failed(words)


@pytest.mark.parametrize("function", LIFECYCLE_FUNCTIONS)
def test_the_lifecycle_is_for_admins_of_the_peer_or_writers_of_the_channel(network: LiveNetwork, function: str) -> None:
    found = answer(network, "_lifecycle", (function.encode(), GARBAGE), user=AGENT)
    without = answer(network, "_lifecycle", (function.encode(), GARBAGE), channel="")
    stranger = answer(network, "_lifecycle", (function.encode(), GARBAGE), msp_id=BILLING)

    decoded = not_done(function, f"could not decode input arg for *lifecycle.Invocation.{function}: {UNREADABLE}")
    if function in FOR_WRITERS:
        assert found == stranger == failed(decoded)
        assert without == failed(f"{ACL}{NO_ROLE.format('Writers')}")
    else:
        assert found == failed(f"{ACL}{NO_ADMIN}")
        assert stranger == failed(f"{ACL}{STRANGER}")
        assert without == failed(decoded)


@pytest.mark.parametrize("channel", [CHANNEL, ""], ids=["on the channel", "without"])
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "lifecycle scc must be invoked with arguments"),
        ((b"x",), "lifecycle scc operations require exactly two arguments but received 1"),
        ((b"x", b"y", b"z"), "lifecycle scc operations require exactly two arguments but received 3"),
        ((b"Nothing", b""), f"{ACL}Unmapped policy for _lifecycle/Nothing"),
        ((b"", b""), f"{ACL}Unmapped policy for _lifecycle/"),
        ((GARBAGE, b""), UNWRITABLE),
    ],
    ids=["nothing", "one", "three", "no function", "an empty one", "no text"],
)
def test_the_lifecycle_is_asked_with_a_function_and_its_argument(
    network: LiveNetwork, arguments: tuple[bytes, ...], words: str, channel: str
) -> None:
    assert answer(network, "_lifecycle", arguments, channel=channel) == failed(words)


def collections(*fields: dict[str, Any]) -> Any:
    package = collection_pb2.CollectionConfigPackage()
    for given_fields in fields:
        package.config.add().static_collection_config.CopyFrom(collection_pb2.StaticCollectionConfig(**given_fields))
    return package


NEW: Final = {"name": "fresh", "version": "1", "sequence": 1}
LETTERS: Final = "Names can only consist of alphanumerics, '_', and '-' and can only begin with alphanumerics"
DEFINITIONS: Final[dict[str, tuple[dict[str, Any], str]]] = {
    "no name": ({"name": ""}, f"invalid chaincode name ''. {LETTERS}"),
    "a bad name": ({"name": "a b"}, f"invalid chaincode name 'a b'. {LETTERS}"),
    "a peer's own name": ({"name": "qscc"}, "chaincode name 'qscc' is the name of a system chaincode"),
    "no version": (
        {"version": ""},
        "invalid chaincode version ''. Versions can only consist of alphanumerics, '_', '-', '+', and '.'",
    ),
    "a bad version": (
        {"version": "1 0"},
        "invalid chaincode version '1 0'. Versions can only consist of alphanumerics, '_', '-', '+', and '.'",
    ),
}


@pytest.mark.parametrize("function", ["ApproveChaincodeDefinitionForMyOrg", "CommitChaincodeDefinition"])
@pytest.mark.parametrize("case", DEFINITIONS)
def test_a_definition_of_wrong_form_is_refused(network: LiveNetwork, case: str, function: str) -> None:
    fields, why = DEFINITIONS[case]
    argument = getattr(lifecycle_pb2, f"{function}Args")(**{**NEW, **fields}).SerializeToString()

    assert answer(network, "_lifecycle", (function.encode(), argument)) == failed(
        not_done(function, f"error validating chaincode definition: {why}")
    )


@pytest.mark.parametrize(
    ("package", "why"),
    [
        (
            collections({"name": ""}),
            "invalid collection name ''. Names can only consist of alphanumerics, '_', and '-'",
        ),
        (
            collections({"name": "a b"}),
            "invalid collection name 'a b'. Names can only consist of alphanumerics, '_', and '-'",
        ),
    ],
    ids=["no name", "a bad name"],
)
def test_a_collection_of_wrong_form_is_refused(network: LiveNetwork, package: Any, why: str) -> None:
    function = "ApproveChaincodeDefinitionForMyOrg"
    argument = lifecycle_pb2.ApproveChaincodeDefinitionForMyOrgArgs(**NEW, collections=package).SerializeToString()

    found = answer(network, "_lifecycle", (function.encode(), argument))

    assert isinstance(found, Asked)
    assert found.message.startswith(not_done(function, f"error validating chaincode definition: {why}"))


SEQUENCES: Final[dict[str, tuple[str, dict[str, Any], str]]] = {
    "approve no sequence": (
        "ApproveChaincodeDefinitionForMyOrg",
        {"sequence": 0},
        "requested sequence is 0, but first definable sequence number is 1",
    ),
    "approve too early": (
        "ApproveChaincodeDefinitionForMyOrg",
        {"sequence": 2},
        "requested sequence 2 is larger than the next available sequence number 1",
    ),
    "commit no sequence": (
        "CommitChaincodeDefinition",
        {"sequence": 0},
        "requested sequence is 0, but new definition must be sequence 1",
    ),
    "commit too early": (
        "CommitChaincodeDefinition",
        {"sequence": 2},
        "requested sequence is 2, but new definition must be sequence 1",
    ),
    "check too early": (
        "CheckCommitReadiness",
        {"sequence": 2},
        "requested sequence is 2, but new definition must be sequence 1",
    ),
    "check what is there": (
        "CheckCommitReadiness",
        {"name": PROBE},
        "requested sequence is 1, but new definition must be sequence 2",
    ),
    "commit what nobody approved": (
        "CommitChaincodeDefinition",
        {},
        "chaincode definition not agreed to by this org (ServiceMSP)",
    ),
}


@pytest.mark.parametrize("case", SEQUENCES)
def test_definitions_come_one_after_the_other(network: LiveNetwork, case: str) -> None:
    function, fields, why = SEQUENCES[case]
    argument = getattr(lifecycle_pb2, f"{function}Args")(**{**NEW, **fields}).SerializeToString()

    assert answer(network, "_lifecycle", (function.encode(), argument)) == failed(not_done(function, why))


def test_what_is_not_defined_is_not_found(network: LiveNetwork) -> None:
    argument = lifecycle_pb2.QueryChaincodeDefinitionArgs(name="nowhere").SerializeToString()

    assert answer(network, "_lifecycle", (b"QueryChaincodeDefinition", argument)) == Asked(
        404, "namespace nowhere is not defined", gives=False, is_endorsed=False
    )


@pytest.mark.parametrize(("name", "sequence", "shown"), [("nowhere", 0, 0), ("nowhere", 1, 1), (PROBE, 7, 7)])
def test_what_is_not_approved_cannot_be_fetched(network: LiveNetwork, name: str, sequence: int, shown: int) -> None:
    function = "QueryApprovedChaincodeDefinition"
    argument = lifecycle_pb2.QueryApprovedChaincodeDefinitionArgs(name=name, sequence=sequence).SerializeToString()

    assert answer(network, "_lifecycle", (function.encode(), argument)) == failed(
        not_done(
            function,
            f"could not fetch approved chaincode definition (name: '{name}', sequence: '{shown}') on channel "
            "'consortium'",
        )
    )


@pytest.mark.parametrize(
    ("function", "fields", "why"),
    [
        (
            "QueryApprovedChaincodeDefinition",
            {"name": "a"},
            (
                "could not get current sequence: could not get state for key namespaces/fields/a/Sequence: GET_STATE "
                "failed: transaction ID: <id>: no ledger context"
            ),
        ),
        (
            "QueryApprovedChaincodeDefinition",
            {"name": "a", "sequence": 1},
            (
                "could not deserialize namespace metadata for a#1: could not query metadata for namespace "
                "namespaces/a#1: GET_STATE failed: transaction ID: <id>: no ledger context"
            ),
        ),
        (
            "QueryApprovedChaincodeDefinitions",
            {},
            (
                "could not fetch metadatas: could not get state range for namespace namespaces: could not get state "
                "iterator: GET_STATE_BY_RANGE failed: transaction ID: <id>: no ledger context"
            ),
        ),
        (
            "ApproveChaincodeDefinitionForMyOrg",
            NEW,
            "error validating chaincode definition: could not get channelconfig for channel ''",
        ),
    ],
    ids=["by name", "by sequence", "all", "approve"],
)
def test_approvals_are_asked_for_on_a_channel(
    network: LiveNetwork, function: str, fields: dict[str, Any], why: str
) -> None:
    argument = getattr(lifecycle_pb2, f"{function}Args")(**fields).SerializeToString()

    assert answer(network, "_lifecycle", (function.encode(), argument), channel="") == failed(not_done(function, why))


def archive(**files: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as opened:
        for name, content in files.items():
            entry = tarfile.TarInfo({"metadata": "metadata.json", "code": "code.tar.gz"}.get(name, name))
            entry.size = len(content)
            opened.addfile(entry, io.BytesIO(content))
    return out.getvalue()


def described(kind: str, label: str) -> bytes:
    return json.dumps({"path": "", "type": kind, "label": label}).encode()


PARSED: Final = "could not parse as a chaincode install package: "
PACKAGES: Final[dict[str, tuple[bytes, str]]] = {
    "nothing": (b"", f"{PARSED}error reading as gzip stream: EOF"),
    "a byte": (b"x", f"{PARSED}error reading as gzip stream: unexpected EOF"),
    "a text": (b"no package at all", f"{PARSED}error reading as gzip stream: gzip: invalid header"),
    "no archive": (gzip.compress(b"garbage"), f"{PARSED}error inspecting next tar header: unexpected EOF"),
    "an empty archive": (archive(), f"{PARSED}did not find a code package inside the package"),
    "no metadata": (
        archive(code=b"x"),
        f"{PARSED}did not find any package metadata (missing metadata.json)",
    ),
    "no code": (archive(metadata=described("ccaas", "a")), f"{PARSED}did not find a code package inside the package"),
    "a bad label": (
        archive(metadata=described("ccaas", "a b"), code=b"x"),
        (
            f"{PARSED}invalid label 'a b'. Label must be non-empty, can only consist of alphanumerics, symbols from "
            "'.+-_', and can only begin with alphanumerics"
        ),
    ),
    "code that cannot be unpacked": (
        archive(metadata=described("ccaas", "a"), code=b"x"),
        f"{PARSED}error retrieving DB artifacts from code package: unexpected EOF",
    ),
}


@pytest.mark.parametrize("case", PACKAGES)
def test_what_is_no_package_is_not_installed(network: LiveNetwork, case: str) -> None:
    content, why = PACKAGES[case]
    argument = lifecycle_pb2.InstallChaincodeArgs(chaincode_install_package=content).SerializeToString()

    assert answer(network, "_lifecycle", (b"InstallChaincode", argument), channel="") == failed(
        not_done("InstallChaincode", why)
    )


def test_a_package_is_installed_once_and_given_back(network: LiveNetwork) -> None:
    label = network.fresh("label")
    content = build_service_package(label, {"address": "127.0.0.1:9"})
    package_id = f"{label}:{sha256(content).hexdigest()}"
    argument = lifecycle_pb2.InstallChaincodeArgs(chaincode_install_package=content).SerializeToString()

    installed = lifecycle_pb2.InstallChaincodeResult.FromString(
        given(network, "_lifecycle", b"InstallChaincode", argument, channel="")
    )
    again = answer(network, "_lifecycle", (b"InstallChaincode", argument), channel="")
    wanted = lifecycle_pb2.QueryInstalledChaincodeArgs(package_id=package_id).SerializeToString()
    queried = lifecycle_pb2.QueryInstalledChaincodeResult.FromString(
        given(network, "_lifecycle", b"QueryInstalledChaincode", wanted, channel="")
    )
    fetched = lifecycle_pb2.GetInstalledChaincodePackageResult.FromString(
        given(network, "_lifecycle", b"GetInstalledChaincodePackage", wanted, channel="")
    )

    assert (installed.package_id, installed.label) == (package_id, label)
    assert (queried.package_id, queried.label, len(queried.references)) == (package_id, label, 0)
    assert fetched.chaincode_install_package == content
    assert again == failed(
        not_done(
            "InstallChaincode",
            f"chaincode already successfully installed (package ID '{label}:<id>')",
        )
    )


@pytest.mark.parametrize(
    ("function", "why"),
    [
        ("QueryInstalledChaincode", "could not find chaincode with package id 'none:00'"),
        (
            "GetInstalledChaincodePackage",
            "could not load cc install package: chaincode install package 'none:00' not found",
        ),
    ],
)
def test_a_package_that_is_not_there_is_named(network: LiveNetwork, function: str, why: str) -> None:
    argument = getattr(lifecycle_pb2, f"{function}Args")(package_id="none:00").SerializeToString()

    assert answer(network, "_lifecycle", (function.encode(), argument), channel="") == failed(not_done(function, why))


def test_definitions_tell_who_approved_them(network: LiveNetwork) -> None:
    argument = lifecycle_pb2.QueryChaincodeDefinitionArgs(name=PROBE).SerializeToString()
    found = lifecycle_pb2.QueryChaincodeDefinitionResult.FromString(
        given(network, "_lifecycle", b"QueryChaincodeDefinition", argument)
    )
    every = lifecycle_pb2.QueryChaincodeDefinitionsResult.FromString(
        given(network, "_lifecycle", b"QueryChaincodeDefinitions", b"")
    )
    approved = lifecycle_pb2.QueryApprovedChaincodeDefinitionsResult.FromString(
        given(network, "_lifecycle", b"QueryApprovedChaincodeDefinitions", b"")
    )
    readiness = lifecycle_pb2.CheckCommitReadinessResult.FromString(
        given(
            network,
            "_lifecycle",
            b"CheckCommitReadiness",
            lifecycle_pb2.CheckCommitReadinessArgs(**NEW).SerializeToString(),
        )
    )

    assert (found.sequence, found.version, found.endorsement_plugin, found.validation_plugin) == (
        1,
        "1.0",
        "escc",
        "vscc",
    )
    assert found.approvals[SERVICE]
    assert not found.approvals["AuditorMSP"]
    assert {PROBE, "service"} <= {it.name for it in every.chaincode_definitions}
    assert {PROBE, "service"} <= {it.name for it in approved.approved_chaincode_definitions}
    assert not any(readiness.approvals.values())
