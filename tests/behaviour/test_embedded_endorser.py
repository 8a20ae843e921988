"""What peers of the embedded network answer to proposals, in the words of real peers."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from fabric_protos.common import common_pb2
from fabric_protos.peer import chaincode_event_pb2, chaincode_pb2, proposal_pb2, proposal_response_pb2

from network.embedded.ledger.chaincode import ChaincodeError
from network.embedded.ledger.request_filter import EndorserError, RequestFilterError
from network.protocol.collection import encode_collections
from network.protocol.identity import decode_serialized_identity
from network.protocol.proposal import Proposal, transaction_id
from network.protocol.validation_code import ENDORSEMENT_POLICY_FAILURE, MVCC_READ_CONFLICT, VALID
from tests.support.embedded_ledger import (
    AGENT,
    BOTH,
    CHANNEL,
    COLLECTIONS,
    CUSTOMER,
    FIELD,
    SERVICE,
    Endorsed,
    LedgerNetwork,
    Stub,
    definition,
    get,
    put,
)

FOREVER = timedelta(days=365 * 100).total_seconds()
AGAIN = "make sure the chaincode {} has been successfully defined on channel consortium and try again: "


def failing(network: LedgerNetwork, make: Callable[[], Proposal], client: tuple[str, str] = AGENT) -> EndorserError:
    with pytest.raises(EndorserError) as caught:
        network.run(network.ask(SERVICE, make(), client))
    return caught.value


# --- refusals of the call


def changed(proposal: Proposal, change: Callable[[Any, Any, Any], None]) -> Proposal:
    """Change a proposal's headers and extension; whoever sends it signs it as it is then."""
    message = proposal_pb2.Proposal.FromString(proposal.content)
    header = common_pb2.Header.FromString(message.header)
    channel_header = common_pb2.ChannelHeader.FromString(header.channel_header)
    signature_header = common_pb2.SignatureHeader.FromString(header.signature_header)
    change(message, channel_header, signature_header)
    header.channel_header = channel_header.SerializeToString()
    header.signature_header = signature_header.SerializeToString()
    message.header = header.SerializeToString()
    return replace(proposal, content=message.SerializeToString())


def input_of(specification: Any) -> bytes:
    payload = proposal_pb2.ChaincodeProposalPayload(input=specification.SerializeToString())
    return bytes(payload.SerializeToString())


def of_nobody(message: Any, channel_header: Any, signature_header: Any) -> None:
    del message
    signature_header.creator = b"nobody"
    channel_header.tx_id = transaction_id(signature_header.nonce, signature_header.creator)


NAMELESS = proposal_pb2.ChaincodeHeaderExtension(chaincode_id=chaincode_pb2.ChaincodeID()).SerializeToString()
SPECIFIED = chaincode_pb2.ChaincodeInvocationSpec(chaincode_spec=chaincode_pb2.ChaincodeSpec())
VALIDATING = "error validating proposal: "
REFUSED: dict[str, tuple[Callable[[Any, Any, Any], Any], str]] = {
    "no chaincode": (
        lambda _, header, __: setattr(header, "extension", b""),
        "ChaincodeHeaderExtension.ChaincodeId is nil",
    ),
    "no name": (
        lambda _, header, __: setattr(header, "extension", NAMELESS),
        "ChaincodeHeaderExtension.ChaincodeId.Name is empty",
    ),
    "no specification": (
        lambda message, _, __: setattr(message, "payload", b""),
        "chaincode invocation spec did not contain chaincode spec",
    ),
    "no input": (
        lambda message, _, __: setattr(message, "payload", input_of(SPECIFIED)),
        "chaincode input did not contain any input",
    ),
    "a type": (lambda _, header, __: setattr(header, "type", 2), f"{VALIDATING}invalid header type CONFIG_UPDATE"),
    "an unknown type": (lambda _, header, __: setattr(header, "type", 77), f"{VALIDATING}invalid header type 77"),
    "an epoch": (lambda _, header, __: setattr(header, "epoch", 1), f"{VALIDATING}epoch is non-zero"),
    "no nonce": (lambda _, __, signature: setattr(signature, "nonce", b""), f"{VALIDATING}nonce is empty"),
    "no creator": (lambda _, __, signature: setattr(signature, "creator", b""), f"{VALIDATING}creator is empty"),
    "an id": (lambda _, header, __: setattr(header, "tx_id", "0"), f"{VALIDATING}incorrectly computed txid '0' -- "),
    "nobody": (
        of_nobody,
        f"{VALIDATING}access denied: channel [consortium] creator org unknown, creator is malformed",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_proposal_of_wrong_form_is_refused(network: LedgerNetwork, case: str) -> None:
    change, words = REFUSED[case]

    error = failing(network, lambda: changed(network.proposal([b"any"]), change))

    assert str(error).startswith(words)
    assert not isinstance(error, RequestFilterError)


def test_bytes_that_are_no_proposal_are_refused(network: LedgerNetwork) -> None:
    signed = proposal_pb2.SignedProposal(proposal_bytes=b"\xff")

    with pytest.raises(EndorserError, match="error unmarshalling Proposal"):
        network.run(network.peers[SERVICE].process_proposal(signed))


def test_a_proposal_signed_by_nobody_or_another_is_refused(network: LedgerNetwork) -> None:
    proposal = network.proposal([b"any"])
    unsigned = proposal_pb2.SignedProposal(proposal_bytes=proposal.content)

    with pytest.raises(EndorserError, match=r"^error validating proposal: empty signature bytes$"):
        network.run(network.peers[SERVICE].process_proposal(unsigned))
    error = failing(network, lambda: proposal, ("BillingMSP", "agent"))
    assert str(error) == f"{VALIDATING}access denied: channel [consortium] creator org [ServiceMSP]"


def test_an_expired_client_is_refused_before_anything_else(network: LedgerNetwork) -> None:
    network.clock.offset += FOREVER

    error = failing(network, lambda: network.proposal([b"any"], channel_id="elsewhere"))

    assert str(error) == "proposal client identity expired"
    assert isinstance(error, RequestFilterError)


@pytest.mark.parametrize(("seconds", "is_refused"), [(-901, True), (-899, False), (899, False), (901, True)])
def test_a_proposal_of_another_time_is_refused(network: LedgerNetwork, seconds: int, is_refused: bool) -> None:
    nanoseconds = int((network.clock.now() + seconds) * 1e9)
    proposal = network.proposal([network.behaviours.add(get("a"))], nanoseconds=nanoseconds)

    if not is_refused:
        assert network.run(network.ask(SERVICE, proposal)).response.status == 200
        return
    error = failing(network, lambda: proposal)
    assert isinstance(error, RequestFilterError)
    assert str(error).startswith("request unauthorized due to incorrect timestamp 2026-01-02T")
    assert str(error).endswith(", peer.authentication.timewindow 15m0s")


def test_a_committed_transaction_is_not_endorsed_again(network: LedgerNetwork) -> None:
    proposal = network.proposal([network.behaviours.add(put("a", b"1"))])

    async def story() -> None:
        response = await network.ask(SERVICE, proposal)
        assert (await network.ask(SERVICE, proposal)).payload == response.payload
        await network.order(Endorsed(proposal, [response]))
        assert await network.wait(proposal.tx_id) == ENDORSEMENT_POLICY_FAILURE

    network.run(story())

    error = failing(network, lambda: proposal)
    assert str(error) == f"duplicate transaction found [{proposal.tx_id}]. Creator [{proposal.creator.hex()}]"


# --- answers of the peer


def answer(network: LedgerNetwork, behaviour: Any, peer: str = SERVICE, **fields: Any) -> Any:
    return network.run(network.propose(peer, behaviour, **fields))


def assert_failed(response: Any, words: str) -> None:
    """Check that the peer failed, not the chaincode: status 500 and no payload."""
    assert (response.response.status, response.response.message) == (500, words)
    assert (response.payload, response.version, response.HasField("endorsement")) == (b"", 0, False)


def test_an_unknown_channel_is_named(network: LedgerNetwork) -> None:
    assert_failed(answer(network, [b"any"], channel_id="elsewhere"), "channel 'elsewhere' not found")


def test_an_unknown_chaincode_is_named(network: LedgerNetwork) -> None:
    assert_failed(answer(network, [b"any"], chaincode="none"), f"{AGAIN.format('none')}chaincode none not found")


def test_a_system_chaincode_of_fabric_1_does_not_run(network: LedgerNetwork) -> None:
    response = answer(network, [b"any"], chaincode="lscc")

    assert (response.response.status, response.payload) == (500, b"")
    assert "could not launch chaincode lscc.syscc: error building chaincode: " in response.response.message


def test_no_chaincode_runs_without_a_channel(network: LedgerNetwork) -> None:
    response = answer(network, [b"any"], channel_id="")

    assert_failed(
        response,
        "make sure the chaincode asset has been successfully defined on channel  and try again: could not get channel "
        "config for channel ''",
    )


def test_a_chaincode_that_fails_is_quoted(network: LedgerNetwork) -> None:
    async def fail(stub: Stub) -> None:
        del stub
        raise ChaincodeError("could not launch chaincode asset")

    words = answer(network, fail).response.message
    assert words.startswith("error in simulation: failed to execute transaction ")
    assert words.endswith(": could not launch chaincode asset")


def test_a_peer_that_did_not_approve_or_install_does_not_endorse(network: LedgerNetwork) -> None:
    async def install() -> str:
        return await network.install(FIELD, "asset_1.0")

    async def approve(package_id: str) -> int:
        wanted = definition(collections=encode_collections(COLLECTIONS))
        return await network.approve(FIELD, "asset", wanted, package_id)

    first = answer(network, get("a"), FIELD).response.message
    assert first == (
        f"{AGAIN.format('asset')}chaincode definition for 'asset' at sequence 1 on channel 'consortium' "
        "has not yet been approved by this org"
    )
    package_id = network.run(install())
    assert answer(network, get("a"), FIELD).response.message == first
    assert network.run(approve(package_id)) == VALID
    assert answer(network, get("a"), FIELD).response.status == 200
    assert network.behaviours.executed[-1] == package_id


def test_an_upgrade_is_endorsed_by_those_who_approved_it(network: LedgerNetwork) -> None:
    upgraded = definition(2, "2.0")

    async def story() -> None:
        before = await network.endorse(put("a", b"1"), chaincode="other")
        await network.deploy("other", upgraded, (SERVICE, CUSTOMER))
        assert (await network.propose("peer0.billing", get("a"), chaincode="other")).response.status == 500
        # What was endorsed under the old definition has read it.
        await network.order(before)
        assert await network.wait(before.proposal.tx_id) == MVCC_READ_CONFLICT
        assert await network.commit(put("a", b"2"), chaincode="other") == VALID

    network.run(story())

    assert network.behaviours.executed[-1].startswith("other_2.0:")


# --- answers by status


def response_of(status: int, *, private: bool = False) -> Any:
    async def behave(stub: Stub) -> proposal_response_pb2.Response:
        await stub.put("a", b"1")
        if private:
            await stub.put("p", b"secret", "pair")
        stub.event = ("happened", b"event")
        return proposal_response_pb2.Response(status=status, message="words", payload=b"content")

    return behave


@pytest.mark.parametrize(
    ("status", "has_payload", "is_endorsed", "has_interest"),
    [
        (100, True, True, True),
        (200, True, True, True),
        (399, True, True, True),
        (400, False, False, False),
        (499, False, False, False),
        (500, True, False, True),
        (599, True, False, True),
    ],
)
def test_the_status_decides_what_is_endorsed(
    network: LedgerNetwork, status: int, has_payload: bool, is_endorsed: bool, has_interest: bool
) -> None:
    found = answer(network, response_of(status))

    assert found.response == proposal_response_pb2.Response(status=status, message="words", payload=b"content")
    assert (bool(found.payload), found.HasField("endorsement"), found.HasField("interest"), found.version) == (
        has_payload,
        is_endorsed,
        has_interest,
        int(is_endorsed),
    )
    if not has_payload:
        return
    payload = proposal_response_pb2.ProposalResponsePayload.FromString(found.payload)
    action = proposal_pb2.ChaincodeAction.FromString(payload.extension)
    assert (action.chaincode_id.name, action.chaincode_id.version) == ("asset", "1.0")
    assert action.results
    event = chaincode_event_pb2.ChaincodeEvent.FromString(action.events)
    assert event.event_name == ("happened" if status < 400 else "")
    if status < 400:
        assert (event.chaincode_id, event.payload, len(event.tx_id)) == ("asset", b"event", 64)


def test_an_endorsement_is_the_peers_signature_over_payload_and_itself(network: LedgerNetwork) -> None:
    found = answer(network, put("a", b"1"))

    endorsement = found.endorsement
    assert endorsement.endorser == network.peers[SERVICE].node.identity.creator
    channel = network.channel(SERVICE)
    endorser = channel.rules.msps.identity(decode_serialized_identity(endorsement.endorser))
    assert endorser.has_signed(found.payload + endorsement.endorser, endorsement.signature)
    assert network.peers[SERVICE].identity_in(channel).identity_id == endorser.identity_id


@pytest.mark.parametrize("status", [400, 500])
def test_private_writes_are_kept_also_where_the_chaincode_refuses(network: LedgerNetwork, status: int) -> None:
    proposal = network.proposal([network.behaviours.add(response_of(status, private=True))])

    network.run(network.ask(SERVICE, proposal))

    assert [len(network.channel(peer).store.transient(proposal.tx_id)) for peer in (*BOTH, "peer0.billing")] == [
        1,
        0,
        1,
    ]


def test_a_peers_own_answers_are_endorsed_on_a_channel_only(network: LedgerNetwork) -> None:
    on_channel = answer(network, [b"GetChainInfo", CHANNEL.encode()], chaincode="qscc")
    without = answer(network, [b"GetChainInfo", CHANNEL.encode()], chaincode="qscc", channel_id="")
    refused = answer(network, [b"none", CHANNEL.encode(), b""], chaincode="qscc", channel_id="")

    assert on_channel.response == without.response
    assert on_channel.response.status == 200
    assert (on_channel.HasField("endorsement"), without.HasField("endorsement")) == (True, False)
    payload = proposal_response_pb2.ProposalResponsePayload.FromString(on_channel.payload)
    action = proposal_pb2.ChaincodeAction.FromString(payload.extension)
    assert (action.results, action.chaincode_id.version) == (b"", "syscc")
    assert without.payload == b""
    assert (refused.response.status, bool(refused.payload)) == (500, True)


def test_transient_values_reach_the_contract_and_no_block(network: LedgerNetwork) -> None:
    async def behave(stub: Stub) -> None:
        proposal = proposal_pb2.Proposal.FromString(stub.call.proposal.proposal_bytes)  # type: ignore[union-attr]
        payload = proposal_pb2.ChaincodeProposalPayload.FromString(proposal.payload)
        assert payload.TransientMap == {"key": b"a transient secret"}

    async def story() -> None:
        assert await network.commit(behave, transient={"key": b"a transient secret"}) == VALID

    network.run(story())

    files = [path for path in network.folder.rglob("*") if path.is_file()]
    assert len(files) > 10
    assert not [path for path in files if b"a transient secret" in path.read_bytes()]


def test_peers_agree_byte_for_byte(network: LedgerNetwork) -> None:
    async def behave(stub: Stub) -> bytes:
        for key in ("b", "a"):
            await stub.get(key)
            await stub.put(key, b"1")
        await stub.range("a", "z")
        await stub.put("p", b"1", "pair")
        return b"done"

    async def story() -> set[bytes]:
        assert await network.commit(put("a", b"0")) == VALID
        return (await network.endorse(behave, [SERVICE, "peer0.billing", CUSTOMER])).payloads

    assert len(network.run(story())) == 1


def test_a_chaincode_that_another_plugin_endorses_is_not_endorsed(network: LedgerNetwork) -> None:
    network.run(network.deploy("special", definition(endorsement_plugin="mine")))

    async def refuse(stub: Stub) -> Any:
        del stub
        return proposal_response_pb2.Response(status=400, message="no")

    assert_failed(
        answer(network, get("key"), chaincode="special"),
        "endorsing with plugin failed: plugin with name mine could not be used: plugin with name mine wasn't found",
    )
    assert answer(network, refuse, chaincode="special").response.message == "no"
