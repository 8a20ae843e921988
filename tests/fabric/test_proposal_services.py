"""What a peer's Endorser and its Gateway answer to one proposal, right or wrong: codes, words, details.

Measured on peers of 3.1.5; sources: core/endorser/{msgvalidation,endorser}.go, core/handlers/auth/filter/*.go,
internal/pkg/gateway/{evaluate,endorse,apiutils}.go.
"""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from fabric_protos.gateway import gateway_pb2, gateway_pb2_grpc
from fabric_protos.peer import chaincode_pb2, peer_pb2_grpc

from network.protocol.proposal import decode_proposal
from tests.support.live_network import BILLING, SERVICE, LiveNetwork
from tests.support.proposal_change import (
    created_by,
    header,
    named_elsewhere,
    replaced,
    without_id,
    without_input,
    without_name,
    without_nonce,
    without_time,
)
from tests.support.service_request import (
    GARBAGE,
    NO_TEXT,
    UNREADABLE,
    Detail,
    ProposalSpec,
    Refused,
    called,
    signed_proposal,
    words_of,
)

OWN = "peer0.service"
OTHERS = ("peer0.billing", "peer0.customer", "peer0.field")
MINUTE = 60 * 1_000_000_000
NOBODY = b"nobody"
WRITERS = (
    "Failed evaluating policy on signed data during check policy on channel [consortium] with policy "
    "[/Channel/Application/Writers]: [implicit policy evaluation failed - 0 sub-policies were satisfied, but this "
    "policy requires 1 of the 'Writers' sub-policies to be satisfied]"
)
NO_READER = (
    "failed evaluating policy on signed data during check policy [/Channel/Application/Readers]: [implicit policy "
    "evaluation failed - 0 sub-policies were satisfied, but this policy requires 1 of the 'Readers' sub-policies to be "
    "satisfied]"
)


class Answered(NamedTuple):
    """A ProposalResponse: of the chaincode when it has a payload, and an endorsement when it is signed."""

    status: int
    message: str
    has_payload: bool
    is_endorsed: bool


class Expected(NamedTuple):
    """What the three calls come to. `evaluated` None: the response's status and message; `endorsed` None: prepared."""

    proposed: Answered | Refused
    evaluated: Refused | None
    endorsed: Refused | None


def endorsed(status: int = 200, message: str = "") -> Expected:
    return Expected(Answered(status, message, has_payload=True, is_endorsed=True), None, None)


def refused(words: str) -> Expected:
    """A client's mistake: no other peer is asked."""
    return Expected(
        Refused("UNKNOWN", words),
        Refused("FAILED_PRECONDITION", f"evaluate call to endorser returned error: {words}", (Detail(OWN, words),)),
        _not_endorsed(words),
    )


def filtered(words: str) -> Expected:
    """Refused before anything was looked at, which to a gateway looks as if the peer were gone: all are asked."""
    remote = f"rpc error: code = Unknown desc = {words}"
    return Expected(
        Refused("UNKNOWN", words),
        _not_evaluated("UNAVAILABLE", words, remote),
        _not_endorsed(words),
    )


def failed(words: str) -> Expected:
    """The peer failed, not the chaincode: all are asked."""
    answered = Answered(500, words, has_payload=False, is_endorsed=False)
    return Expected(answered, _not_evaluated("ABORTED", words, words), _not_endorsed(words))


def answered(status: int, message: str) -> Expected:
    """The chaincode refused: no other peer is asked."""
    words = f"chaincode response {status}, {message}"
    return Expected(
        Answered(status, message, has_payload=status >= 500, is_endorsed=False),
        Refused("UNKNOWN", f"evaluate call to endorser returned error: {words}", (Detail(OWN, words),)),
        _not_endorsed(words),
    )


def unread(proposed: Answered | Refused, evaluated: str, endorsed: Refused | str) -> Expected:
    """The gateway refuses without asking anybody."""
    if isinstance(endorsed, str):
        endorsed = Refused("INVALID_ARGUMENT", endorsed)
    refused = Refused("INVALID_ARGUMENT", f"failed to unpack transaction proposal: {evaluated}")
    return Expected(proposed, refused, endorsed)


def _not_evaluated(code: str, own: str, others: str) -> Refused:
    details = (Detail(OWN, own), *[Detail(node, others) for node in OTHERS])
    return Refused(code, "failed to evaluate transaction, see attached details for more info", details)


def _not_endorsed(words: str) -> Refused:
    return Refused(
        "ABORTED", "failed to endorse transaction, see attached details for more info", (Detail(OWN, words),)
    )


def no_metadata(chaincode: str, channel: str) -> Refused:
    return Refused(
        "FAILED_PRECONDITION",
        "no combination of peers can be derived which satisfy the endorsement policy: No metadata was found for "
        f"chaincode {chaincode} in channel {channel}",
    )


def unmarshalled(message: str, why: str = UNREADABLE) -> str:
    return f"error unmarshalling {message}: {why}"


VALIDATING = "error validating proposal: "
DENIED = f"{VALIDATING}access denied: channel [consortium] creator org"
DEFINED = "make sure the chaincode {} has been successfully defined on channel {} and try again: "
UNSTAMPED = "request unauthorized due to incorrect timestamp {}, peer time <time>, peer.authentication.timewindow 15m0s"

ENDORSED = Answered(200, "", has_payload=True, is_endorsed=True)
CASES: dict[str, tuple[ProposalSpec, Expected]] = {
    "a right one": (ProposalSpec(), endorsed()),
    "of type CONFIG": (ProposalSpec(change=header(type=1)), endorsed()),
    # --- layers
    "no proposal": (
        ProposalSpec(change=replaced(content=GARBAGE)),
        unread(
            Refused("UNKNOWN", f"failed parsing proposal: {unmarshalled('Proposal')}"),
            unmarshalled("Proposal"),
            unmarshalled("Proposal"),
        ),
    ),
    "an empty one": (
        ProposalSpec(change=replaced(content=b"")),
        unread(
            Refused("UNKNOWN", UNSTAMPED.format("<time>")),
            "a signed proposal is required",
            "the proposed transaction must contain a signed proposal",
        ),
    ),
    "no header": (
        ProposalSpec(change=replaced(header=GARBAGE)),
        unread(
            Refused("UNKNOWN", f"failed parsing header: {unmarshalled('Header')}"),
            unmarshalled("Header"),
            unmarshalled("Header"),
        ),
    ),
    "no channel header": (
        ProposalSpec(change=replaced(channel_header=GARBAGE)),
        unread(
            Refused("UNKNOWN", f"failed parsing channel header: {unmarshalled('ChannelHeader')}"),
            unmarshalled("ChannelHeader"),
            unmarshalled("ChannelHeader"),
        ),
    ),
    "a channel that is no text": (
        ProposalSpec(change=replaced(channel_header=b"\x22\x01\xff")),
        unread(
            Refused("UNKNOWN", f"failed parsing channel header: {unmarshalled('ChannelHeader', NO_TEXT)}"),
            unmarshalled("ChannelHeader", NO_TEXT),
            unmarshalled("ChannelHeader", NO_TEXT),
        ),
    ),
    "no signature header": (
        ProposalSpec(change=replaced(signature_header=GARBAGE)),
        filtered(f"failed parsing signature header: {unmarshalled('SignatureHeader')}"),
    ),
    "no payload": (
        ProposalSpec(change=replaced(payload=GARBAGE)),
        unread(
            Refused("UNKNOWN", unmarshalled("ChaincodeProposalPayload")),
            unmarshalled("ChaincodeProposalPayload"),
            unmarshalled("ChaincodeProposalPayload"),
        ),
    ),
    "no invocation": (
        ProposalSpec(change=replaced(invocation=GARBAGE)),
        unread(
            Refused("UNKNOWN", unmarshalled("ChaincodeInvocationSpec")),
            unmarshalled("ChaincodeInvocationSpec"),
            unmarshalled("ChaincodeInvocationSpec"),
        ),
    ),
    "no extension": (
        ProposalSpec(change=replaced(extension=GARBAGE)),
        refused(unmarshalled("ChaincodeHeaderExtension")),
    ),
    "an empty extension": (
        ProposalSpec(change=replaced(extension=b"")),
        refused("ChaincodeHeaderExtension.ChaincodeId is nil"),
    ),
    "an extension without name": (
        ProposalSpec(change=replaced(extension=b"\x12\x00")),
        refused("ChaincodeHeaderExtension.ChaincodeId.Name is empty"),
    ),
    "no specification": (
        ProposalSpec(change=replaced(invocation=chaincode_pb2.ChaincodeInvocationSpec())),
        unread(
            Refused("UNKNOWN", "chaincode invocation spec did not contain chaincode spec"),
            "no chaincode spec is provided, channel id [consortium]",
            no_metadata("", "consortium"),
        ),
    ),
    "no chaincode in the specification": (
        ProposalSpec(change=without_id),
        unread(ENDORSED, "no chaincode id is provided, channel id [consortium]", no_metadata("", "consortium")),
    ),
    "no name in the specification": (
        ProposalSpec(change=without_name),
        unread(ENDORSED, "no chaincode name is provided, channel id [consortium]", no_metadata("", "consortium")),
    ),
    "no input": (ProposalSpec(change=without_input), refused("chaincode input did not contain any input")),
    # --- time, channel, header
    "without time": (ProposalSpec(change=without_time), filtered(UNSTAMPED.format("<time>"))),
    "of sixteen minutes ago": (
        ProposalSpec(nanoseconds=time.time_ns() - 16 * MINUTE),
        filtered(UNSTAMPED.format("<time>")),
    ),
    "of an hour from now": (
        ProposalSpec(nanoseconds=time.time_ns() + 60 * MINUTE),
        filtered(UNSTAMPED.format("<time>")),
    ),
    "without channel": (
        ProposalSpec(channel=""),
        unread(
            Answered(
                500,
                f"{DEFINED.format('probe', '')}could not get channel config for channel ''",
                has_payload=False,
                is_endorsed=False,
            ),
            "no channel id provided",
            no_metadata("probe", ""),
        ),
    ),
    "of a channel that nobody has": (
        ProposalSpec(channel="elsewhere"),
        Expected(
            Answered(500, "channel 'elsewhere' not found", has_payload=False, is_endorsed=False),
            Refused(
                "UNAVAILABLE",
                "failed to get config for channel [elsewhere]: could not get last config for channel elsewhere",
            ),
            no_metadata("probe", "elsewhere"),
        ),
    ),
    "of another type": (ProposalSpec(change=header(type=2)), refused(f"{VALIDATING}invalid header type CONFIG_UPDATE")),
    "of no known type": (ProposalSpec(change=header(type=77)), refused(f"{VALIDATING}invalid header type 77")),
    "of an epoch": (ProposalSpec(change=header(epoch=1)), refused(f"{VALIDATING}epoch is non-zero")),
    "of another id": (
        ProposalSpec(change=header(tx_id="mine")),
        refused(f"{VALIDATING}incorrectly computed txid 'mine' -- expected '<id>'"),
    ),
    # --- who
    "without nonce": (ProposalSpec(change=without_nonce), refused(f"{VALIDATING}nonce is empty")),
    "without creator": (ProposalSpec(change=created_by(b"")), refused(f"{VALIDATING}creator is empty")),
    "of nobody": (ProposalSpec(change=created_by(NOBODY)), refused(f"{DENIED} unknown, creator is malformed")),
    "unsigned": (ProposalSpec(signature=b""), refused(f"{VALIDATING}empty signature bytes")),
    "signed with nothing": (ProposalSpec(signature=GARBAGE), refused(f"{DENIED} [ServiceMSP]")),
    # --- chaincodes
    "of no chaincode": (
        ProposalSpec(chaincode="nowhere"),
        Expected(
            Answered(
                500,
                f"{DEFINED.format('nowhere', 'consortium')}chaincode nowhere not found",
                has_payload=False,
                is_endorsed=False,
            ),
            Refused("FAILED_PRECONDITION", "no peers available to evaluate chaincode nowhere in channel consortium"),
            no_metadata("nowhere", "consortium"),
        ),
    ),
    "of no chaincode by its header": (
        ProposalSpec(change=named_elsewhere),
        failed(f"{DEFINED.format('nowhere', 'consortium')}chaincode nowhere not found"),
    ),
    "that a chaincode takes with 299": (ProposalSpec(arguments=(b"refuse", b"299", b"so")), endorsed(299, "so")),
    "that a chaincode takes with 399": (ProposalSpec(arguments=(b"refuse", b"399", b"so")), endorsed(399, "so")),
    "that a chaincode refuses with 400": (ProposalSpec(arguments=(b"refuse", b"400", b"no")), answered(400, "no")),
    "that a chaincode refuses with 499": (ProposalSpec(arguments=(b"refuse", b"499", b"no")), answered(499, "no")),
    "that a chaincode refuses with 500": (ProposalSpec(arguments=(b"refuse", b"500", b"no")), answered(500, "no")),
    "that a chaincode refuses with 501": (ProposalSpec(arguments=(b"refuse", b"501", b"no")), answered(501, "no")),
}


@pytest.mark.parametrize("case", CASES)
def test_a_proposal_is_answered_in_the_same_words(network: LiveNetwork, case: str) -> None:
    spec, expected = CASES[case]

    found = network.run(lambda: outcomes(network, SERVICE, "agent", spec))

    assert found == expected


def test_a_proposal_signed_by_another_is_denied(network: LiveNetwork) -> None:
    spec = ProposalSpec(signer=network.identity(BILLING, "agent"))

    assert network.run(lambda: outcomes(network, SERVICE, "agent", spec)) == refused(f"{DENIED} [ServiceMSP]")


@pytest.mark.parametrize(
    ("msp_id", "user", "expected"),
    [
        ("AuditorMSP", "auditor", endorsed),  # the channel's ACL lets readers propose
        ("CustomerMSP", "agent", endorsed),
        ("OrdererMSP", "admin", lambda: refused(NO_READER)),
    ],
)
def test_who_may_propose_is_the_channels_to_say(
    network: LiveNetwork, msp_id: str, user: str, expected: Callable[[], Expected]
) -> None:
    assert network.run(lambda: outcomes(network, msp_id, user, ProposalSpec())) == expected()


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (
            ProposalSpec(chaincode="_lifecycle", arguments=(b"QueryChaincodeDefinitions", b"")),
            answered(500, f"Failed to authorize invocation due to failed ACL check: {WRITERS}"),
        ),
        (
            ProposalSpec(chaincode="cscc", arguments=(b"GetChannels",)),
            answered(
                500,
                "access denied for [GetChannels]: Failed deserializing proposal creator during channelless check "
                "policy with policy [Members]: [expected MSP ID ServiceMSP, received AuditorMSP]",
            ),
        ),
        (
            ProposalSpec(chaincode="qscc", arguments=(b"GetChainInfo", b"consortium")),
            endorsed()._replace(endorsed=no_metadata("qscc", "consortium")),
        ),
    ],
    ids=["_lifecycle", "cscc", "qscc"],
)
def test_system_chaincodes_see_for_themselves_who_asks(
    network: LiveNetwork, spec: ProposalSpec, expected: Expected
) -> None:
    assert network.run(lambda: outcomes(network, "AuditorMSP", "auditor", spec)) == expected


def test_a_chaincode_of_fabric_1_is_known_and_does_not_run(network: LiveNetwork) -> None:
    spec = ProposalSpec(chaincode="lscc", arguments=(b"getid",))

    found = network.run(lambda: outcomes(network, SERVICE, "agent", spec))

    assert isinstance(found.proposed, Answered)
    assert found.proposed[0] == 500
    assert found.proposed.message.startswith(
        "error in simulation: failed to execute transaction <id>: could not launch chaincode lscc.syscc: "
    )
    assert [found.evaluated and found.evaluated.code, found.endorsed and found.endorsed.code] == ["ABORTED", "ABORTED"]


def test_a_committed_transaction_is_not_endorsed_again(network: LiveNetwork) -> None:
    async def story() -> Expected:
        spec = ProposalSpec(arguments=(b"put", network.fresh("key").encode(), b"1"))
        identity = network.identity(SERVICE, "agent")
        proposal = signed_proposal(identity, spec)
        async with network.channel(SERVICE) as channel:
            gateway = gateway_pb2_grpc.GatewayStub(channel.grpc)
            prepared = await gateway.Endorse(gateway_pb2.EndorseRequest(proposed_transaction=proposal))
            envelope = prepared.prepared_transaction
            envelope.signature = identity.sign(envelope.payload)
            await gateway.Submit(gateway_pb2.SubmitRequest(channel_id="consortium", prepared_transaction=envelope))
            asked = gateway_pb2.CommitStatusRequest(
                channel_id="consortium", transaction_id=id_of(proposal), identity=identity.creator
            ).SerializeToString()
            status = await gateway.CommitStatus(
                gateway_pb2.SignedCommitStatusRequest(request=asked, signature=identity.sign(asked)), timeout=30
            )
            assert status.result == 0
        return await outcomes_of(network, SERVICE, proposal)

    assert network.run(story) == refused("duplicate transaction found [<id>]. Creator [<id>]")


def id_of(proposal: Any) -> str:
    return decode_proposal(proposal.SerializeToString()).tx_id


async def outcomes(network: LiveNetwork, msp_id: str, user: str, spec: ProposalSpec) -> Expected:
    """Send the same kind of proposal to the three calls of the service department's peer."""
    identity = network.identity(msp_id, user)
    return await outcomes_of(network, SERVICE, *[signed_proposal(identity, spec) for _ in range(3)])


async def outcomes_of(network: LiveNetwork, msp_id: str, *proposals: Any) -> Expected:
    """Send one proposal to each call, or the same one to all."""
    first, second, third = proposals if len(proposals) > 1 else proposals * 3
    async with network.channel(msp_id) as channel:
        gateway = gateway_pb2_grpc.GatewayStub(channel.grpc)
        proposed = await called(network, peer_pb2_grpc.EndorserStub(channel.grpc).ProcessProposal(first, timeout=30))
        evaluated = await called(
            network, gateway.Evaluate(gateway_pb2.EvaluateRequest(proposed_transaction=second), timeout=30)
        )
        prepared = await called(
            network, gateway.Endorse(gateway_pb2.EndorseRequest(proposed_transaction=third), timeout=30)
        )
    if not isinstance(proposed, Refused):
        response = proposed.response
        is_endorsed = proposed.HasField("endorsement")
        assert proposed.version == is_endorsed
        proposed = Answered(response.status, words_of(network, response.message), bool(proposed.payload), is_endorsed)
        if not isinstance(evaluated, Refused):
            assert (evaluated.result.status, evaluated.result.message) == (response.status, response.message)
    return Expected(
        proposed,
        evaluated if isinstance(evaluated, Refused) else None,
        prepared if isinstance(prepared, Refused) else None,
    )
