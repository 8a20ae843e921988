from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from typing import Any

import pytest
from fabric_protos.common import common_pb2
from fabric_protos.peer import chaincode_event_pb2, chaincode_pb2, proposal_pb2, proposal_response_pb2, transaction_pb2
from hypothesis import given
from hypothesis import strategies as st

from network.protocol.errors import DecodeError, ProposalError
from network.protocol.interest import ChaincodeCall
from network.protocol.msp import ChannelMsps, MspDefinition, MspVersion
from network.protocol.proposal import (
    Proposal,
    Response,
    build_proposal,
    check_proposal,
    decode_proposal,
    encode_envelope,
    encode_proposal_response,
    endorsed_bytes,
    prepared_transaction,
    proposal_hash,
    response_payload,
    sign_proposal,
    transaction_id,
    without_transient,
)
from network.protocol.transaction import ChaincodeEvent, Endorsement
from tests.support.credential import Credential, high_s, msp_config, root_authority

CA = root_authority("OrgMSP")
CLIENT = CA.issue()
REVOKED = CA.issue()
STRANGER = root_authority("OtherMSP").issue()
NONCE = b"n" * 24
MSPS = ChannelMsps(
    [MspDefinition(0, msp_config("OrgMSP", [CA], revocation_lists=[CA.revoke(REVOKED)]).SerializeToString())],
    MspVersion.V3_0,
)


def proposal_of(credential: Credential = CLIENT, **changes: Any) -> bytes:
    fields: dict[str, Any] = {
        "channel_id": "consortium",
        "chaincode": "ext",
        "arguments": [b"put", b"key", b"value"],
        "creator": credential.serialized,
        "nonce": NONCE,
        "nanoseconds": 1_700_000_000_000_000_007,
        "transient": {"secret": b"hidden"},
    }
    return build_proposal(**fields | changes).content


def signed(content: bytes, credential: Credential = CLIENT) -> bytes:
    return sign_proposal(content, credential.sign(content))


def read(content: bytes, credential: Credential = CLIENT) -> Proposal:
    return decode_proposal(signed(content, credential))


# --- reading


def test_a_proposal_is_read_as_it_was_written() -> None:
    content = proposal_of(is_init=True)

    proposal = read(content)

    assert (proposal.channel_id, proposal.chaincode, proposal.planned_chaincode) == ("consortium", "ext", "ext")
    assert proposal.arguments == (b"put", b"key", b"value")
    assert (proposal.is_init, proposal.decorations, proposal.transient) == (True, {}, {"secret": b"hidden"})
    assert (proposal.creator, proposal.nonce) == (CLIENT.serialized, NONCE)
    assert proposal.tx_id == transaction_id(NONCE, CLIENT.serialized)
    assert (proposal.header_type, proposal.epoch) == (3, 0)
    assert (proposal.seconds, proposal.nanos) == (1_700_000_000, 7)
    assert proposal.content == content
    assert check_proposal(proposal, MSPS).msp_id == "OrgMSP"


def test_a_proposal_is_known_as_it_will_be_read() -> None:
    built = build_proposal(
        channel_id="consortium",
        chaincode="ext",
        arguments=[b"put"],
        creator=CLIENT.serialized,
        nonce=NONCE,
        nanoseconds=1_700_000_000_000_000_007,
        transient={"secret": b"hidden", "another": b"one"},
        is_init=True,
    )
    signature = CLIENT.sign(built.content)

    assert built.signature == b""
    assert decode_proposal(sign_proposal(built.content, signature)) == replace(built, signature=signature)


def test_the_hash_covers_headers_and_input_and_no_transient_data() -> None:
    proposal = read(proposal_of())
    message = proposal_pb2.Proposal.FromString(proposal.content)
    bare = proposal_pb2.ChaincodeProposalPayload.FromString(message.payload)
    bare.ClearField("TransientMap")
    expected = sha256(proposal.channel_header + proposal.signature_header + bare.SerializeToString()).digest()

    assert proposal.payload == without_transient(message.payload) == bare.SerializeToString()
    assert proposal.hash == expected
    assert proposal_hash(proposal.channel_header, proposal.signature_header, message.payload) == expected


def test_nothing_said_by_the_client_is_shown() -> None:
    assert not any(text in repr(read(proposal_of())) for text in ("hidden", "value", "put", "secret"))


def test_the_chaincode_called_and_the_one_planned_for_may_differ() -> None:
    def rename(parts: dict[str, Any]) -> None:
        parts["invocation"].chaincode_spec.chaincode_id.name = "other"

    proposal = read(changed(rename))

    assert (proposal.chaincode, proposal.planned_chaincode) == ("ext", "other")


def test_a_proposal_without_time_and_with_decorations_is_read() -> None:
    def change(parts: dict[str, Any]) -> None:
        parts["channel_header"].ClearField("timestamp")
        parts["invocation"].chaincode_spec.input.decorations["name"] = b"decoration"

    proposal = read(changed(change))

    assert (proposal.seconds, proposal.nanos) == (None, None)
    assert proposal.decorations == {"name": b"decoration"}


def changed(change: Callable[[dict[str, Any]], None]) -> bytes:
    """A proposal of which any part was changed, put together again."""
    proposal = proposal_pb2.Proposal.FromString(proposal_of())
    header = common_pb2.Header.FromString(proposal.header)
    channel_header = common_pb2.ChannelHeader.FromString(header.channel_header)
    payload = proposal_pb2.ChaincodeProposalPayload.FromString(proposal.payload)
    parts: dict[str, Any] = {
        "channel_header": channel_header,
        "signature_header": common_pb2.SignatureHeader.FromString(header.signature_header),
        "extension": proposal_pb2.ChaincodeHeaderExtension.FromString(channel_header.extension),
        "invocation": chaincode_pb2.ChaincodeInvocationSpec.FromString(payload.input),
    }
    change(parts)
    written = {
        name: part if isinstance(part, bytes) else part.SerializeToString()
        for name, part in parts.items()
        if name != "channel_header"
    }
    if isinstance(parts["channel_header"], bytes):
        header.channel_header = parts["channel_header"]
    else:
        parts["channel_header"].extension = written["extension"]
        header.channel_header = parts["channel_header"].SerializeToString()
    header.signature_header = written["signature_header"]
    payload.input = written["invocation"]
    proposal.header = written.get("header", header.SerializeToString())
    proposal.payload = written.get("payload", payload.SerializeToString())
    return bytes(proposal.SerializeToString())


def put(name: str, content: Any) -> Callable[[dict[str, Any]], None]:
    def change(parts: dict[str, Any]) -> None:
        parts[name] = content

    return change


def clear(name: str, *path: str) -> Callable[[dict[str, Any]], None]:
    def change(parts: dict[str, Any]) -> None:
        message = parts[name]
        for step in path[:-1]:
            message = getattr(message, step)
        message.ClearField(path[-1])

    return change


UNREADABLE = "proto: cannot parse invalid wire-format data"


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (put("header", b"\xff"), f"error unmarshalling Header: {UNREADABLE}"),
        (put("channel_header", b"\xff"), f"error unmarshalling ChannelHeader: {UNREADABLE}"),
        (put("signature_header", b"\xff"), f"error unmarshalling SignatureHeader: {UNREADABLE}"),
        (put("extension", b"\xff"), f"error unmarshalling ChaincodeHeaderExtension: {UNREADABLE}"),
        (clear("extension", "chaincode_id"), "ChaincodeHeaderExtension.ChaincodeId is nil"),
        (clear("extension", "chaincode_id", "name"), "ChaincodeHeaderExtension.ChaincodeId.Name is empty"),
        (put("payload", b"\xff"), f"error unmarshalling ChaincodeProposalPayload: {UNREADABLE}"),
        (put("invocation", b"\xff"), f"error unmarshalling ChaincodeInvocationSpec: {UNREADABLE}"),
        (clear("invocation", "chaincode_spec"), "chaincode invocation spec did not contain chaincode spec"),
        (clear("invocation", "chaincode_spec", "input"), "chaincode input did not contain any input"),
    ],
)
def test_says_what_a_peer_says_of_a_proposal_it_cannot_read(
    change: Callable[[dict[str, Any]], None], text: str
) -> None:
    with pytest.raises(ProposalError) as refused:
        read(changed(change))

    assert str(refused.value) == text


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"\xff", "SignedProposal"), (sign_proposal(b"\xff", b"signature"), "Proposal")],
)
def test_bytes_that_are_no_proposal_are_refused(content: bytes, message: str) -> None:
    with pytest.raises(ProposalError, match=f"^error unmarshalling {message}: {UNREADABLE}$"):
        decode_proposal(content)


def test_the_chaincode_is_missed_before_its_input() -> None:
    def change(parts: dict[str, Any]) -> None:
        parts["extension"].ClearField("chaincode_id")
        parts["invocation"] = b"\xff"

    with pytest.raises(ProposalError, match="ChaincodeId is nil"):
        read(changed(change))


@given(st.binary(max_size=200))
def test_any_bytes_are_a_proposal_or_an_error_of_ours(content: bytes) -> None:
    for attempt in (content, sign_proposal(content, b"signature")):
        try:
            check_proposal(decode_proposal(attempt), MSPS)
        except ProposalError:
            continue
        raise AssertionError("found a signed proposal by chance")


# --- checking


def assign(name: str, field: str, content: Any) -> Callable[[dict[str, Any]], None]:
    def change(parts: dict[str, Any]) -> None:
        setattr(parts[name], field, content)

    return change


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (assign("channel_header", "type", 2), "invalid header type CONFIG_UPDATE"),
        (assign("channel_header", "type", 77), "invalid header type 77"),
        (assign("channel_header", "epoch", 1), "epoch is non-zero"),
        (assign("signature_header", "nonce", b""), "nonce is empty"),
        (assign("signature_header", "creator", b""), "creator is empty"),
        (
            assign("channel_header", "tx_id", "else"),
            f"incorrectly computed txid 'else' -- expected '{transaction_id(NONCE, CLIENT.serialized)}'",
        ),
    ],
)
def test_says_what_a_peer_says_of_headers_it_refuses(change: Callable[[dict[str, Any]], None], text: str) -> None:
    proposal = read(changed(change))

    with pytest.raises(ProposalError) as refused:
        check_proposal(proposal, MSPS)

    assert str(refused.value) == f"error validating proposal: {text}"


def test_a_configuration_passes_as_it_does_at_a_peer() -> None:
    proposal = read(changed(assign("channel_header", "type", 1)))

    assert check_proposal(proposal, MSPS).msp_id == "OrgMSP"


def test_checks_come_in_the_order_of_a_peer() -> None:
    """Each defect is reported although all later ones are there too."""
    steps = [
        (assign("channel_header", "type", 9), "invalid header type"),
        (assign("channel_header", "epoch", 1), "epoch"),
        (assign("signature_header", "nonce", b""), "nonce"),
        (assign("signature_header", "creator", b""), "creator is empty"),
    ]
    for position, (_, text) in enumerate(steps):

        def change(parts: dict[str, Any], position: int = position) -> None:
            for step, _ in steps[position:]:
                step(parts)

        with pytest.raises(ProposalError, match=text):
            check_proposal(decode_proposal(sign_proposal(changed(change), b"")), MSPS)


def test_an_unsigned_proposal_is_refused_before_anybody_asks_who_sent_it() -> None:
    with pytest.raises(ProposalError, match=r"^error validating proposal: empty signature bytes$"):
        check_proposal(decode_proposal(sign_proposal(proposal_of(STRANGER), b"")), MSPS)


@pytest.mark.parametrize(
    "creator",
    [b"\xff", STRANGER.serialized, CLIENT.serialized_as(b"no certificate")],
    ids=["no identity", "unknown organisation", "no certificate"],
)
def test_a_creator_that_cannot_be_read_is_refused_without_detail(creator: bytes) -> None:
    proposal = read(proposal_of(creator=creator))

    with pytest.raises(ProposalError) as refused:
        check_proposal(proposal, MSPS)

    assert str(refused.value) == (
        "error validating proposal: access denied: channel [consortium] creator org unknown, creator is malformed"
    )


def refused_as_member(content: bytes) -> bool:
    try:
        check_proposal(decode_proposal(content), MSPS)
    except ProposalError as error:
        return str(error) == "error validating proposal: access denied: channel [consortium] creator org [OrgMSP]"
    return False


def test_an_invalid_identity_and_a_wrong_signature_look_the_same() -> None:
    content = proposal_of()
    good = CLIENT.sign(content)

    assert not refused_as_member(sign_proposal(content, good))
    assert refused_as_member(signed(proposal_of(REVOKED), REVOKED))
    assert refused_as_member(sign_proposal(content, CLIENT.sign(content + b"!")))
    assert refused_as_member(sign_proposal(content, REVOKED.sign(content)))
    assert refused_as_member(sign_proposal(content, high_s(good, CLIENT.key.curve)))  # type: ignore[union-attr]


def test_a_proposal_for_the_peer_itself_names_no_channel() -> None:
    proposal = read(proposal_of(STRANGER, channel_id=""), STRANGER)

    with pytest.raises(ProposalError, match=r"access denied: channel \[\] creator org unknown"):
        check_proposal(proposal, MSPS)


# --- answering

EVENT = ChaincodeEvent("ext", "tx", "changed", b"event payload")


def test_the_response_payload_says_what_was_proposed_and_what_came_of_it() -> None:
    proposal = read(proposal_of())

    content = response_payload(
        proposal, version="1.0", response=Response(200, "fine", b"result"), results=b"set", event=EVENT
    )

    message = proposal_response_pb2.ProposalResponsePayload.FromString(content)
    action = proposal_pb2.ChaincodeAction.FromString(message.extension)
    assert message.proposal_hash == proposal.hash
    assert action.chaincode_id == chaincode_pb2.ChaincodeID(name="ext", version="1.0")
    assert action.response == proposal_response_pb2.Response(status=200, message="fine", payload=b"result")
    assert action.results == b"set"
    assert chaincode_event_pb2.ChaincodeEvent.FromString(action.events) == chaincode_event_pb2.ChaincodeEvent(
        chaincode_id="ext", tx_id="tx", event_name="changed", payload=b"event payload"
    )


def test_no_event_is_no_bytes() -> None:
    content = response_payload(
        read(proposal_of()), version="1.0", response=Response(200, "", b""), results=b"", event=None
    )

    message = proposal_response_pb2.ProposalResponsePayload.FromString(content)
    assert proposal_pb2.ChaincodeAction.FromString(message.extension).events == b""


def test_an_endorsed_answer_has_a_version_and_others_have_none() -> None:
    response = Response(200, "", b"result")
    calls = [ChaincodeCall("ext", ("deals",))]
    kind = proposal_response_pb2.ProposalResponse

    endorsed = kind.FromString(
        encode_proposal_response(
            response, payload=b"payload", endorsement=Endorsement(b"endorser", b"signature"), interest=calls
        )
    )
    answered = kind.FromString(encode_proposal_response(response))

    assert endorsed == kind(
        version=1,
        response=proposal_response_pb2.Response(status=200, payload=b"result"),
        payload=b"payload",
        endorsement=proposal_response_pb2.Endorsement(endorser=b"endorser", signature=b"signature"),
        interest=proposal_response_pb2.ChaincodeInterest(
            chaincodes=[proposal_response_pb2.ChaincodeCall(name="ext", collection_names=["deals"])]
        ),
    )
    assert answered == kind(response=proposal_response_pb2.Response(status=200, payload=b"result"))


def test_an_interest_in_a_key_policy_that_is_none_is_refused() -> None:
    with pytest.raises(DecodeError, match="SignaturePolicyEnvelope of a key"):
        encode_proposal_response(Response(200, "", b""), interest=[ChaincodeCall("ext", key_policies=(b"\xff",))])


def test_an_endorser_signs_the_payload_and_who_it_is() -> None:
    assert endorsed_bytes(b"payload", b"endorser") == b"payloadendorser"


# --- preparing


def test_the_prepared_transaction_is_the_proposal_without_its_secrets() -> None:
    proposal = read(proposal_of())
    endorsements = [Endorsement(b"first", b"1"), Endorsement(b"second", b"2"), Endorsement(b"first", b"3")]

    content = prepared_transaction(proposal, endorsements, b"endorsed payload")

    payload = common_pb2.Payload.FromString(content)
    (action,) = transaction_pb2.Transaction.FromString(payload.data).actions
    inner = transaction_pb2.ChaincodeActionPayload.FromString(action.payload)
    assert payload.header.channel_header == proposal.channel_header
    assert payload.header.signature_header == action.header == proposal.signature_header
    assert inner.chaincode_proposal_payload == proposal.payload
    assert inner.action.proposal_response_payload == b"endorsed payload"
    assert [(e.endorser, e.signature) for e in inner.action.endorsements] == [(b"first", b"1"), (b"second", b"2")]
    assert b"hidden" not in content


def test_nothing_is_prepared_without_an_endorsement() -> None:
    with pytest.raises(ProposalError, match="no endorsements"):
        prepared_transaction(read(proposal_of()), [], b"payload")


def test_an_envelope_is_a_payload_and_its_signature() -> None:
    message = common_pb2.Envelope.FromString(encode_envelope(b"payload", b"signature"))

    assert message == common_pb2.Envelope(payload=b"payload", signature=b"signature")
