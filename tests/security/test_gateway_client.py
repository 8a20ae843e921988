"""A gateway that lies gets no signature; nothing secret is in any text."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from fabric_protos.common import common_pb2
from fabric_protos.peer import proposal_pb2, proposal_response_pb2, transaction_pb2

from gateway.client.errors import ClientError, PreparedTransactionError
from tests.support.credential import of_no_version, root_authority
from tests.support.fake_fabric import RefusalError, connected, identity_of, key_pem

CANARY = "canary-5b1f"


class Forged:
    """A prepared transaction taken apart, to be changed in one place and put together again."""

    def __init__(self, response: Any) -> None:
        self.payload = common_pb2.Payload.FromString(response.prepared_transaction.payload)
        self.transaction = transaction_pb2.Transaction.FromString(self.payload.data)
        self.action = transaction_pb2.ChaincodeActionPayload.FromString(self.transaction.actions[0].payload)
        self.endorsed = proposal_response_pb2.ProposalResponsePayload.FromString(
            self.action.action.proposal_response_payload
        )

    def encode(self, response: Any) -> Any:
        self.transaction.actions[0].payload = self.action.SerializeToString()
        self.payload.data = self.transaction.SerializeToString()
        response.prepared_transaction.payload = self.payload.SerializeToString()
        return response


def other_channel(forged: Forged, _: Any) -> None:
    header = common_pb2.ChannelHeader.FromString(forged.payload.header.channel_header)
    header.channel_id = "other"
    forged.payload.header.channel_header = header.SerializeToString()


def other_creator(forged: Forged, _: Any) -> None:
    forged.payload.header.signature_header += b"\x12\x01x"


def other_action_header(forged: Forged, _: Any) -> None:
    forged.transaction.actions[0].header = b""


def second_action(forged: Forged, _: Any) -> None:
    forged.transaction.actions.add(header=b"", payload=b"")


def other_arguments(forged: Forged, _: Any) -> None:
    forged.action.chaincode_proposal_payload = b""


def _endorse_again(forged: Forged, fabric: Any) -> None:
    content = forged.endorsed.SerializeToString()
    endorsement = forged.action.action.endorsements[0]
    endorsement.signature = fabric.endorser.sign(content + endorsement.endorser)
    forged.action.action.proposal_response_payload = content


def other_proposal_hash(forged: Forged, fabric: Any) -> None:
    forged.endorsed.proposal_hash = b"\x00" * 32
    _endorse_again(forged, fabric)


def other_chaincode(forged: Forged, fabric: Any) -> None:
    outcome = proposal_pb2.ChaincodeAction.FromString(forged.endorsed.extension)
    outcome.chaincode_id.name = "_lifecycle"
    forged.endorsed.extension = outcome.SerializeToString()
    _endorse_again(forged, fabric)


def other_results(forged: Forged, _: Any) -> None:
    outcome = proposal_pb2.ChaincodeAction.FromString(forged.endorsed.extension)
    outcome.results = b"\x08\x00"
    forged.endorsed.extension = outcome.SerializeToString()
    forged.action.action.proposal_response_payload = forged.endorsed.SerializeToString()


def no_endorsement(forged: Forged, _: Any) -> None:
    del forged.action.action.endorsements[:]


def unnamed_organization(forged: Forged, _: Any) -> None:
    stranger = root_authority("OtherMSP").issue("peer0", ("peer",))
    endorsement = forged.action.action.endorsements[0]
    endorsement.endorser = stranger.serialized
    endorsement.signature = stranger.sign(forged.action.action.proposal_response_payload + stranger.serialized)


def certificate_of_no_version(forged: Forged, fabric: Any) -> None:
    endorsement = forged.action.action.endorsements[0]
    endorsement.endorser = fabric.endorser.serialized_as(of_no_version(fabric.endorser.der))


@pytest.mark.parametrize(
    ("lie", "text"),
    [
        (certificate_of_no_version, "did not sign"),
        (other_channel, "another channel header"),
        (other_creator, "another signature header"),
        (other_action_header, "another action header"),
        (second_action, "2 actions"),
        (other_arguments, "another proposal payload"),
        (other_proposal_hash, "of another proposal"),
        (other_chaincode, "another chaincode"),
        (other_results, "did not sign"),
        (no_endorsement, "no endorsement"),
        (unnamed_organization, "not named"),
    ],
)
def test_lying_gateway_gets_no_signature(lie: Callable[[Forged, Any], None], text: str) -> None:
    async def test() -> None:
        async with connected() as (fabric, gateway, _):

            def answer(request: Any) -> Any:
                response = fabric.prepared(request)
                forged = Forged(response)
                lie(forged, fabric)
                return forged.encode(response)

            fabric.answer("endorse", answer)
            with pytest.raises(PreparedTransactionError, match=text):
                await (
                    gateway.network("ch")
                    .contract("service")
                    .submit_transaction("open", endorsing_organizations=["OrgMSP"])
                )
            assert fabric.requests("submit") == []

    asyncio.run(test())


def test_bytes_that_are_no_transaction_get_no_signature() -> None:
    async def test() -> None:
        async with connected() as (fabric, gateway, _):

            def answer(request: Any) -> Any:
                response = fabric.prepared(request)
                response.prepared_transaction.payload = b"\xff"
                return response

            fabric.answer("endorse", answer)
            with pytest.raises(PreparedTransactionError):
                await gateway.network("ch").contract("service").endorse("open")

    asyncio.run(test())


def test_arguments_transient_data_and_words_of_chaincodes_are_in_no_text(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    async def test() -> None:
        async with connected() as (fabric, gateway, _):
            contract = gateway.network("ch").contract("service")
            refusal = RefusalError(grpc.StatusCode.ABORTED, CANARY, (("p:1", "OrgMSP", CANARY),))
            fabric.answer("endorse", refusal)
            transient = {"profile": CANARY.encode()}
            with pytest.raises(ClientError) as caught:
                await contract.endorse("open", CANARY, transient=transient, endorsing_organizations=["OrgMSP"])
            proposal = contract.proposal("open", CANARY, transient=transient, endorsing_organizations=["OrgMSP"])
            transaction = await contract.endorse("open", CANARY)
            for shown in (str(caught.value), repr(caught.value), repr(proposal), repr(transaction)):
                assert CANARY not in shown
            assert caught.value.details[0].message == CANARY

    asyncio.run(test())
    assert CANARY not in caplog.text


def test_key_is_in_no_text_and_does_not_travel() -> None:
    user = root_authority("OrgMSP").issue("user")
    identity = identity_of(user)
    secret = user.key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())

    assert secret.hex() not in repr(identity)
    assert key_pem(user).decode() not in repr(identity)
    assert repr(identity).startswith("SigningIdentity('OrgMSP', sha256=")
    with pytest.raises(TypeError, match="not serialised"):
        identity.__reduce__()
