"""The steps taken on one network, and what came of each, as plain data.

After every step that ordered something all peers have committed its block before the next step begins, so that the same
steps meet the same heights on every network.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import singledispatchmethod
from hashlib import sha256
from typing import Any, Final, NamedTuple

import grpc
from cryptography.hazmat.primitives.serialization import Encoding
from fabric_protos.common import common_pb2, configtx_pb2, ledger_pb2
from fabric_protos.gateway import gateway_pb2, gateway_pb2_grpc
from fabric_protos.ledger.rwset import rwset_pb2
from fabric_protos.ledger.rwset.kvrwset import kv_rwset_pb2
from fabric_protos.orderer import ab_pb2, ab_pb2_grpc
from fabric_protos.peer import (
    events_pb2_grpc,
    peer_pb2_grpc,
    proposal_pb2,
    proposal_response_pb2,
    query_pb2,
    transaction_pb2,
)
from fabric_protos.peer.lifecycle import lifecycle_pb2

from gateway.client.blocks import BlockStream
from gateway.client.call import call_error
from gateway.client.channel import NodeChannel
from gateway.client.errors import CallError
from gateway.client.gateway import Gateway
from gateway.client.identity import SigningIdentity
from network.channel.submission import FetchedConfiguration, fetch_configuration
from network.channel.update_file import sign_update, update_envelope
from network.protocol.block import BlockHeader, header_hash
from network.protocol.config_update import SignedUpdate
from network.protocol.errors import ProposalError
from network.protocol.package import package_id
from network.protocol.proposal import Proposal, decode_proposal, prepared_transaction
from network.protocol.transaction import Endorsement
from network.running.ports import LOOPBACK
from tests.support.authority import authority, revocation_list
from tests.support.differential import changes
from tests.support.differential.comparison import Own, Record
from tests.support.differential.configuration import UPDATES
from tests.support.differential.message import opened, parsed, shown, shown_bytes
from tests.support.differential.step import (
    Again,
    Approval,
    Argument,
    Call,
    Configure,
    Events,
    HeaderHashOf,
    Order,
    Outlines,
    Package,
    PackageId,
    Propose,
    Seek,
    Send,
    Status,
    Step,
    Through,
    TransactionOf,
    Who,
    Write,
)
from tests.support.expiring_identity import expiring_identity, whole_second
from tests.support.judged_network import CHANNEL, ORGANIZATIONS, POLL_SECONDS, SERVICE, JudgedNetwork
from tests.support.service_request import (
    ENDORSER_TRANSACTION,
    ProposalSpec,
    answers_of,
    seek,
    signed_envelope,
    signed_proposal,
)
from tests.support.tls_credential import TlsAuthority

ORDERER: Final = "OrdererMSP"
CALL_SECONDS: Final = 30
SPOILT_BYTES: Final = 40
DAY_SECONDS: Final = 24 * 60 * 60
CONFIGURATION: Final = 1
PAYLOADS: Final[dict[tuple[str, bytes], Any]] = {
    ("qscc", b"GetChainInfo"): ledger_pb2.BlockchainInfo,
    ("qscc", b"GetBlockByNumber"): common_pb2.Block,
    ("qscc", b"GetBlockByHash"): common_pb2.Block,
    ("qscc", b"GetBlockByTxID"): common_pb2.Block,
    ("qscc", b"GetTransactionByID"): transaction_pb2.ProcessedTransaction,
    ("cscc", b"GetChannels"): query_pb2.ChannelQueryResponse,
    ("cscc", b"GetConfigBlock"): common_pb2.Block,
    ("cscc", b"GetChannelConfig"): configtx_pb2.Config,
    **{
        ("_lifecycle", name.encode()): getattr(lifecycle_pb2, f"{name}Result")
        for name in (
            "InstallChaincode",
            "QueryInstalledChaincode",
            "QueryInstalledChaincodes",
            "GetInstalledChaincodePackage",
            "QueryApprovedChaincodeDefinition",
            "CheckCommitReadiness",
            "QueryChaincodeDefinition",
            "QueryChaincodeDefinitions",
        )
    },
}
"""Which message the peers' own chaincodes answer with."""


class Run:
    """A network that steps are taken on, and what it alone has."""

    def __init__(self, network: JudgedNetwork, channels: dict[str, NodeChannel]) -> None:
        self.own = Own()
        self._network = network
        self._channels = channels
        self._identities: dict[Who, SigningIdentity] = {}
        self._tx_ids: dict[str, str] = {}
        self._envelopes: dict[str, Any] = {}
        self._header_hashes: dict[str, bytes] = {}
        self._height = 0
        self._first = 0
        self._events: dict[str, int] = {}
        self._revoked = b""
        self.header_hash = b""

    @property
    def height(self) -> int:
        """How many blocks the chain has."""
        return self._height

    async def start(self) -> None:
        """Note what the network alone has, and where its chain stands."""
        created = self._network.created
        for file in sorted(path for path in created.credentials.path.rglob("*") if path.is_file()):
            text = file.read_bytes()
            if text.startswith(b"-----BEGIN CERTIFICATE"):
                self.own.add("certificate", text.decode(), str(file.relative_to(created.credentials.path)))
        ports = {f"{LOOPBACK}:{port}": name for name, port in created.state.ports.items()}
        for address, name in (ports | self._network.addresses).items():
            self.own.add("port", address, name)
        for chaincode, package in self._network.packages.items():
            self.own.add("id", sha256(package).hexdigest(), f"package of {chaincode}")
            self.own.add("id", sha256(_spoilt(package)).hexdigest(), f"spoilt package of {chaincode}")
        for msp_id in ORGANIZATIONS:
            self._height = self._first = await self._height_at(msp_id)
        self._note_block(await self._block(self._height - 1, SERVICE), "the chain before")
        self._note_block(await self._block(0, SERVICE), "the first block")

    async def check_end(self) -> None:
        """Check that no block came that no step accounts for."""
        for msp_id in ORGANIZATIONS:
            assert await self._height_at(msp_id) == self._height

    async def take(self, step: Step) -> Record:
        """Take a step; gives its record, not normalised."""
        return {"step": step.name, "kind": type(step).__name__, "found": await self._take(step)}

    @singledispatchmethod
    async def _take(self, step: Step) -> Any:
        raise NotImplementedError(step)

    # --- proposals

    @_take.register
    async def _propose(self, step: Propose) -> Any:
        signed = self._proposal(step.call, step.name)
        return {msp_id: self._answer(step.call, await self._endorse(signed, msp_id)) for msp_id in step.peers}

    def _proposal(self, call: Call, name: str) -> Any:
        changed = dict(changes.PROPOSALS[call.change]) if call.change else {}
        if "nanoseconds" in changed:
            changed["nanoseconds"] += time.time_ns()
        spec = ProposalSpec(call.channel, call.chaincode, tuple(map(self._argument, call.arguments)), call.transient)
        signed = signed_proposal(self._identity(call.who), replace(spec, **changed))
        try:
            proposal = decode_proposal(signed.SerializeToString())
        except ProposalError:
            return signed
        self._note_proposal(proposal, name)
        return signed

    def _note_proposal(self, proposal: Proposal, name: str) -> None:
        self.own.add("id", sha256(proposal.nonce + proposal.creator).hexdigest(), name)
        self.own.add("nonce", proposal.nonce.hex(), name)
        self.own.add("id", proposal.hash.hex(), f"what endorsers of {name} were asked")
        if proposal.seconds is not None and proposal.nanos is not None:
            self.own.add("time", str(proposal.seconds * 10**9 + proposal.nanos), name)

    def _argument(self, argument: Argument) -> bytes:
        match argument:
            case TransactionOf(step):
                return self._tx_ids.get(step, "none").encode()
            case HeaderHashOf(step):
                return self._header_hashes[step]
            case Package(chaincode, spoilt):
                package = self._network.packages[chaincode]
                content = _spoilt(package) if spoilt else package
                message = lifecycle_pb2.InstallChaincodeArgs(chaincode_install_package=content)
            case PackageId(kind, chaincode):
                message = getattr(lifecycle_pb2, kind)(package_id=self._package_id(chaincode))
            case Approval(chaincode, definition):
                message = lifecycle_pb2.ApproveChaincodeDefinitionForMyOrgArgs.FromString(definition)
                message.source.local_package.package_id = self._package_id(chaincode)
            case bytes():
                return argument
        return bytes(message.SerializeToString(deterministic=True))

    def _package_id(self, chaincode: str) -> str:
        return package_id(chaincode, self._network.packages[chaincode])

    async def _endorse(self, signed: Any, msp_id: str) -> Any:
        stub = peer_pb2_grpc.EndorserStub(self._channels[msp_id].grpc)
        return await _called(stub.ProcessProposal(signed, timeout=CALL_SECONDS))

    def _answer(self, call: Call, answer: Any) -> Any:
        if isinstance(answer, CallError):
            return _refusal(answer)
        first = call.arguments[0] if call.arguments else b""
        kind = PAYLOADS.get((call.chaincode, first)) if isinstance(first, bytes) else None
        found = shown(answer)
        if "interest" in found:
            found["interest"] = _interest(found["interest"])
        found["response"] = self._response(answer.response, kind)
        if answer.payload:
            found["payload"] = self._response_payload(answer, kind)
        return found

    def _response(self, response: Any, kind: Any) -> Any:
        return {
            "status": response.status,
            "message": response.message,
            "payload": sorted_lists(parsed(response.payload, kind)) if kind else shown_bytes(response.payload),
        }

    def _response_payload(self, answer: Any, kind: Any) -> Any:
        """Give what was endorsed; the response in it, where it is the one answered with, is not shown twice."""
        found = opened(answer.payload, proposal_response_pb2.ProposalResponsePayload)
        payload = proposal_response_pb2.ProposalResponsePayload.FromString(answer.payload)
        if kind is not None and proposal_pb2.ChaincodeAction.FromString(payload.extension).response == answer.response:
            found["extension"]["response"] = "(as answered)"
        return found

    # --- transactions

    @_take.register
    async def _order(self, step: Order) -> Any:
        answers, envelopes = [], []
        for number, write in enumerate(step.writes):
            found, envelope = await self._transaction(write, step.name if not number else f"{step.name} {number}")
            answers.append(found)
            envelopes += [envelope] * write.copies if envelope is not None else []
        return {"answers": answers, **await self._ordered(step.name, envelopes)}

    async def _transaction(self, write: Write, name: str) -> tuple[Any, Any]:
        signed = self._proposal(write.call, name)
        responses = {msp_id: await self._endorse(signed, msp_id) for msp_id in write.peers}
        answers = {msp_id: self._answer(write.call, response) for msp_id, response in responses.items()}
        endorsed = [it for it in responses.values() if not isinstance(it, CallError) and it.HasField("endorsement")]
        if len(endorsed) < len(write.peers) or len({response.payload for response in endorsed}) > 1:
            return answers, None
        proposal = decode_proposal(signed.SerializeToString())
        endorsements = [Endorsement(it.endorsement.endorser, it.endorsement.signature) for it in endorsed]
        payload = common_pb2.Payload.FromString(prepared_transaction(proposal, endorsements, endorsed[0].payload))
        if write.spoilt:
            changes.TRANSACTIONS[write.spoilt](payload)
        return answers, self._signed(payload.SerializeToString(deterministic=True), write.call.who)

    def _signed(self, payload: bytes, who: Who) -> Any:
        return common_pb2.Envelope(payload=payload, signature=self._identity(who).sign(payload))

    @_take.register
    async def _again(self, step: Again) -> Any:
        return await self._ordered(step.name, [self._envelopes[step.step]])

    async def _ordered(self, name: str, envelopes: Sequence[Any]) -> Any:
        """Send envelopes and wait for the block of those that were taken."""
        if not envelopes:
            return {"ordered": []}
        self._envelopes[name] = envelopes[0]
        answers = await self._broadcast(envelopes)
        statuses = [shown(answer) for answer in answers]
        taken = [it for it, answer in zip(envelopes, answers, strict=False) if answer.status == common_pb2.SUCCESS]
        if not taken:
            return {"ordered": statuses}
        return {"ordered": statuses, **await self._committed(name, taken)}

    async def _broadcast(self, envelopes: Sequence[Any]) -> list[Any]:
        """Send envelopes one after the other; gives the answers, the last of which may be a refusal."""
        answers: list[Any] = []
        for envelope in envelopes:
            self._note_size(envelope)
        call = ab_pb2_grpc.AtomicBroadcastStub(self._channels[ORDERER].grpc).Broadcast(timeout=CALL_SECONDS)
        try:
            for envelope in envelopes:
                await call.write(envelope)
            while len(answers) < len(envelopes) and (answer := await call.read()) is not grpc.aio.EOF:
                answers.append(answer)
        finally:
            call.cancel()
        return answers

    def _note_size(self, envelope: Any) -> None:
        self.own.add("size", str(len(envelope.payload) + len(envelope.signature)), "an envelope")

    async def _committed(self, name: str, envelopes: Sequence[Any]) -> Any:
        tx_ids = [_tx_id(envelope) for envelope in envelopes]
        self._tx_ids[name] = tx_ids[0]
        found = await asyncio.gather(*[self._status(msp_id, tx_ids[-1], SERVICE) for msp_id in ORGANIZATIONS])
        number, self._height = self._height, self._height + 1
        blocks = await self._blocks(name, number)
        count = len(blocks["block"]["data"])
        assert count == len(envelopes), f"{name}: the orderer cut a block of {count} instead of {len(envelopes)}"
        return {"statuses": dict(zip(ORGANIZATIONS, found, strict=True)), **blocks}

    async def _blocks(self, name: str, number: int) -> Any:
        """Give the block of a number, and where a peer has another one."""
        blocks = {msp_id: await self._block(number, msp_id) for msp_id in ORGANIZATIONS}
        self._header_hashes[name] = self.header_hash = self._note_block(blocks[SERVICE], name)
        self._count_events(blocks[SERVICE].block)
        first = shown(blocks[SERVICE].block)
        return {
            "number": blocks[SERVICE].block.header.number,
            "block": first,
            "another block": {msp_id: it for msp_id in ORGANIZATIONS if (it := shown(blocks[msp_id].block)) != first},
            "private data": {msp_id: self._private(it.private_data_map, name) for msp_id, it in blocks.items()},
        }

    def _private(self, found: Any, name: str) -> Any:
        for number in found:
            for namespace in found[number].ns_pvt_rwset:
                for part in namespace.collection_pvt_rwset:
                    self._note_private(part.rwset, f"{name} {number} {part.collection_name}")
        return {str(number): opened_private(found[number]) for number in sorted(found)}

    def _note_private(self, content: bytes, name: str) -> None:
        """Hashes of private values that hold ids differ as these do; they are known by the values themselves."""
        private = kv_rwset_pb2.KVRWSet.FromString(content)
        held = {write.key: shown_bytes(write.value) for write in private.writes}
        same = {key: text for key, text in held.items() if self.own.normalised(text) == text}
        if same == held:
            return
        self.own.add("id", sha256(content).hexdigest(), f"what is in {name}")
        for number, write in enumerate(private.writes):
            if write.key not in same:
                self.own.add("id", sha256(write.value).hexdigest(), f"value {number} in {name}")

    async def _block(self, number: int, msp_id: str) -> Any:
        """Give a block and its private data from a peer that has it or is about to."""
        request = signed_envelope(self._identity(Who(msp_id)), seek(number, number))
        call = events_pb2_grpc.DeliverStub(self._channels[msp_id].grpc).DeliverWithPrivateData(timeout=CALL_SECONDS)
        try:
            async for answer in answers_of(call, request):
                assert answer.WhichOneof("Type") == "block_and_private_data", answer
                return answer.block_and_private_data
        finally:
            call.cancel()
        raise AssertionError(number)

    def _note_block(self, found: Any, name: str) -> bytes:
        """Note the hashes of a block and what its orderer made up; gives its header hash."""
        block = found.block
        digest = header_hash(BlockHeader(block.header.number, block.header.previous_hash, block.header.data_hash))
        self.own.add("id", digest.hex(), f"header of {name}")
        self.own.add("id", sha256(b"".join(block.data.data)).hexdigest(), f"data of {name}")
        slots = [*block.metadata.metadata, b"", b""]
        for signature in common_pb2.Metadata.FromString(slots[0]).signatures:
            header = common_pb2.SignatureHeader.FromString(signature.signature_header)
            self.own.add("nonce", header.nonce.hex(), f"orderer of {name}")
        for content in block.data.data:
            self._note_configuration(content, name)
        commit_hash = common_pb2.Metadata.FromString(slots[4]).value
        self.own.add("id", commit_hash.hex(), f"commit of {name}")
        return digest

    def _note_configuration(self, content: bytes, name: str) -> None:
        """Note what whoever made a configuration block made up: an orderer, or the network's maker."""
        header = common_pb2.Payload.FromString(common_pb2.Envelope.FromString(content).payload).header
        channel_header = shown(common_pb2.ChannelHeader.FromString(header.channel_header))
        if channel_header["type"] != CONFIGURATION:
            return
        self.own.add("id", channel_header.get("tx_id", ""), name)
        self.own.add("time", channel_header["timestamp"], "a configuration")  # whole seconds: several may share one
        nonce = common_pb2.SignatureHeader.FromString(header.signature_header).nonce
        self.own.add("nonce", nonce.hex(), name)

    def _count_events(self, block: Any) -> None:
        for content, code in zip(block.data.data, block.metadata.metadata[2], strict=True):
            name = _event_chaincode(content) if code == 0 else ""
            if name:
                self._events[name] = self._events.get(name, 0) + 1

    async def _status(self, msp_id: str, tx_id: str, who: str | Who, channel: str = CHANNEL) -> Any:
        identity = self._identity(Who(who) if isinstance(who, str) else who)
        request = gateway_pb2.CommitStatusRequest(
            transaction_id=tx_id, channel_id=channel, identity=identity.creator
        ).SerializeToString()
        signed = gateway_pb2.SignedCommitStatusRequest(request=request, signature=identity.sign(request))
        stub = gateway_pb2_grpc.GatewayStub(self._channels[msp_id].grpc)
        answer = await _called(stub.CommitStatus(signed, timeout=CALL_SECONDS))
        return _refusal(answer) if isinstance(answer, CallError) else shown(answer)

    @_take.register
    async def _stands(self, step: Status) -> Any:
        tx_id = self._tx_ids.get(step.tx_id.step)
        if tx_id is None:
            return "never ordered"
        return {msp_id: await self._status(msp_id, tx_id, step.who, step.channel) for msp_id in ORGANIZATIONS}

    # --- the Gateway service

    @_take.register
    async def _through(self, step: Through) -> Any:
        signed = self._proposal(step.call, step.name)
        stub = gateway_pb2_grpc.GatewayStub(self._channels[step.peer].grpc)
        fields = {"channel_id": step.call.channel, "proposed_transaction": signed}
        if not step.submits:
            request = gateway_pb2.EvaluateRequest(target_organizations=step.organizations, **fields)
            answer = await _called(stub.Evaluate(request, timeout=CALL_SECONDS))
            return _refusal(answer) if isinstance(answer, CallError) else shown(answer)
        request = gateway_pb2.EndorseRequest(endorsing_organizations=step.organizations, **fields)
        endorsed = await _called(stub.Endorse(request, timeout=CALL_SECONDS))
        if isinstance(endorsed, CallError):
            return {"endorsed": _refusal(endorsed)}
        payload = endorsed.prepared_transaction.payload
        envelope = self._signed(payload, step.call.who)
        submitting = gateway_pb2.SubmitRequest(
            transaction_id=_tx_id(envelope), channel_id=step.call.channel, prepared_transaction=envelope
        )
        answer = await _called(stub.Submit(submitting, timeout=CALL_SECONDS))
        are_named = bool(step.organizations)
        found = {"prepared": without_choice(opened(payload, common_pb2.Payload), are_named=are_named)}
        if isinstance(answer, CallError):
            return {**found, "submitted": _refusal(answer)}
        committed = await self._committed(step.name, [envelope])
        block = without_choice(committed["block"], are_named=are_named)
        return {**found, "submitted": shown(answer), **committed, "block": block}

    # --- configurations

    @_take.register
    async def _configure(self, step: Configure) -> Any:
        before = await self._configuration(SERVICE)
        root, revocations = before.configuration.root, self._revocations()
        content = UPDATES[step.update](root, step.number, revocations)
        signed = SignedUpdate(content, ())
        for number, signer in enumerate(step.signers):
            signed = sign_update(signed, self._identity(signer), self._nonce(f"signature {number} of {step.name}"))
        microseconds = time.time_ns() // 1000
        now = datetime.fromtimestamp(0, UTC) + timedelta(microseconds=microseconds)
        self.own.add("time", str(microseconds * 1000), step.name)
        envelope = update_envelope(CHANNEL, signed, self._identity(step.who), self._nonce(step.name), now)
        self._envelopes[step.name] = envelope
        answers = await self._broadcast([envelope])
        found = {"ordered": [shown(answer) for answer in answers]}
        if [answer.status for answer in answers] != [common_pb2.SUCCESS]:
            return found
        number, self._height = self._height, self._height + 1
        async with asyncio.timeout(CALL_SECONDS):
            waiting = list(ORGANIZATIONS)
            while waiting:
                waiting = [it for it in waiting if (await self._configuration(it)).block_number < number]
                await asyncio.sleep(POLL_SECONDS if waiting else 0)
        return {**found, **await self._blocks(step.name, number)}

    async def _configuration(self, msp_id: str) -> FetchedConfiguration:
        identity = self._identity(Who(msp_id, "admin"))
        return await fetch_configuration(Gateway(identity, self._channels[msp_id]).network(CHANNEL))

    def _nonce(self, name: str) -> bytes:
        nonce = secrets.token_bytes(24)
        self.own.add("nonce", nonce.hex(), name)
        return nonce

    def _revocations(self) -> bytes:
        """Make the list that names the user `revoked`, once."""
        if not self._revoked:
            authority_file = self._network.created.credentials.ca_certificate(SERVICE)
            serial = self._identity(Who(SERVICE, "revoked")).certificate.serial_number
            self._revoked = revocation_list(
                authority(authority_file), [serial], datetime.fromtimestamp(time.time(), UTC)
            )
            self.own.add("certificate", self._revoked.decode(), "revocations")
        return self._revoked

    # --- orderers, and blocks

    @_take.register
    async def _send(self, step: Send) -> Any:
        fields = {"data": b"content", "kind": ENDORSER_TRANSACTION, **changes.ENVELOPES[step.change]}
        envelope = signed_envelope(self._identity(step.who), **fields)
        self._note_size(envelope)
        call = ab_pb2_grpc.AtomicBroadcastStub(self._channels[ORDERER].grpc).Broadcast(timeout=CALL_SECONDS)
        return await _told(call, envelope)

    @_take.register
    async def _seek(self, step: Seek) -> Any:
        changed = dict(changes.SEEKS[step.change]) if step.change else {}
        if "nanoseconds" in changed:
            changed["nanoseconds"] += time.time_ns()
        behaviour = {} if step.waits else {"behavior": ab_pb2.SeekInfo.FAIL_IF_NOT_READY}
        start, stop = (self._first + it if isinstance(it, int) else it for it in (step.start, step.stop))
        fields = {"data": seek(start, stop, **behaviour), **changed}
        return await _told(self._stream(step.service), signed_envelope(self._identity(step.who), **fields))

    def _stream(self, service: str) -> Any:
        if service == "orderer":
            return ab_pb2_grpc.AtomicBroadcastStub(self._channels[ORDERER].grpc).Deliver(timeout=CALL_SECONDS)
        return getattr(events_pb2_grpc.DeliverStub(self._channels[SERVICE].grpc), service)(timeout=CALL_SECONDS)

    @_take.register
    async def _outlines(self, _: Outlines) -> Any:
        found = {}
        for msp_id in ORGANIZATIONS:
            request = signed_envelope(self._identity(Who(msp_id)), seek(self._first, self._height - 1))
            call = events_pb2_grpc.DeliverStub(self._channels[msp_id].grpc).DeliverFiltered(timeout=CALL_SECONDS)
            found[msp_id] = await _told(call, request)
        return found

    @_take.register
    async def _told_events(self, step: Events) -> Any:
        return {msp_id: await self._events_at(msp_id, step.chaincode) for msp_id in ORGANIZATIONS}

    async def _events_at(self, msp_id: str, chaincode: str) -> Any:
        identity = self._identity(Who(msp_id))
        content = gateway_pb2.ChaincodeEventsRequest(
            channel_id=CHANNEL,
            chaincode_id=chaincode,
            identity=identity.creator,
            start_position=ab_pb2.SeekPosition(specified=ab_pb2.SeekSpecified(number=self._first)),
        ).SerializeToString()
        signed = gateway_pb2.SignedChaincodeEventsRequest(request=content, signature=identity.sign(content))
        call = gateway_pb2_grpc.GatewayStub(self._channels[msp_id].grpc).ChaincodeEvents(signed, timeout=CALL_SECONDS)
        left = self._events.get(chaincode, 0)
        found = []
        try:
            while left > 0:
                response = await call.read()
                assert response is not grpc.aio.EOF
                left -= len(response.events)
                found.append(shown(response))
        finally:
            call.cancel()
        return found

    async def _height_at(self, msp_id: str) -> int:
        channel = self._channels[msp_id]
        content = await BlockStream(self._identity(Who(msp_id)), channel, CHANNEL).newest(idle_seconds=CALL_SECONDS)
        return int(common_pb2.Block.FromString(content).header.number) + 1

    def _identity(self, who: Who) -> SigningIdentity:
        if who not in self._identities:
            self._identities[who] = identity = self._made(who)
            pem = identity.certificate.public_bytes(Encoding.PEM).decode()
            self.own.add("certificate", pem, f"{who.msp_id}/{who.user}")
        return self._identities[who]

    def _made(self, who: Who) -> SigningIdentity:
        if who.user == "expired":
            return expiring_identity(self._network.created, who.msp_id, whole_second(-2))
        if who.user == "revoked":
            return expiring_identity(self._network.created, who.msp_id, whole_second(DAY_SECONDS))
        if who.user in ("stranger", "nobody"):
            credential = TlsAuthority("strangers").issue(who.user)
            return SigningIdentity.from_pem(who.msp_id, credential.certificate, credential.key)
        return self._network.identity(who.msp_id, who.user)


@asynccontextmanager
async def running(network: JudgedNetwork) -> AsyncIterator[Run]:
    """Connect to all nodes of a network; for the time of a run."""
    async with AsyncExitStack() as stack:
        channels = {
            msp_id: await stack.enter_async_context(NodeChannel(network.endpoint(msp_id)))
            for msp_id in (*ORGANIZATIONS, ORDERER)
        }
        run = Run(network, channels)
        await run.start()
        yield run


class Taken(NamedTuple):
    """All steps taken on a network: their records as they came, what of them is its own, where its chain ended."""

    records: list[Record]
    own: Own
    height: int
    header_hash: str

    def normalised(self) -> list[Record]:
        """Give the records as they compare."""
        return [self.own.normalised(record) for record in self.records]


async def take(network: JudgedNetwork, steps: Sequence[Step]) -> Taken:
    """Take all steps."""
    async with running(network) as run:
        records = [await run.take(step) for step in steps]
        await run.check_end()
        return Taken(records, run.own, run.height, run.header_hash.hex())


# --- what came of a call


async def _called(call: Awaitable[Any]) -> Any:
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        return call_error(CallError, error)


def _refusal(error: CallError) -> Record:
    details = [detail._asdict() for detail in error.details]
    details[1:] = sorted(details[1:], key=lambda it: it["msp_id"])  # its own peer first, the others in no order
    return {"code": error.grpc_code, "message": error.message, "details": details}


async def _told(call: Any, request: Any) -> Any:
    """Give all that a stream answers to one request, and how it ends."""
    found: list[Any] = []
    try:
        async for answer in answers_of(call, request):
            found.append(shown(answer))  # noqa: PERF401  # what came before an error is wanted
        return {"answers": found, "code": (await call.code()).name, "message": await call.details()}
    except grpc.aio.AioRpcError as error:
        return {"answers": found, **_refusal(call_error(CallError, error))}
    finally:
        call.cancel()


def _spoilt(package: bytes) -> bytes:
    """Cut a package behind the end of its archive."""
    return package[:-SPOILT_BYTES]


def _interest(tree: Record) -> Record:
    """Sort an interest; a peer gives it in no order."""
    parts = tree.get("chaincodes", ())
    for part in parts:
        for field in part.keys() & {"key_policies", "collection_names"}:
            part[field] = sorted(part[field], key=str)
    return {**tree, "chaincodes": sorted(parts, key=str)}


def _tx_id(envelope: Any) -> str:
    header = common_pb2.Payload.FromString(envelope.payload).header
    return str(common_pb2.ChannelHeader.FromString(header.channel_header).tx_id)


def _event_chaincode(content: bytes) -> str:
    """Name the chaincode whose event a transaction holds, if it holds one."""
    tree = opened(content, common_pb2.Envelope)
    try:
        action = tree["payload"]["data"]["actions"][0]["payload"]["action"]["proposal_response_payload"]["extension"]
        return str(action["events"]["chaincode_id"])
    except KeyError:
        return ""


def sorted_lists(tree: Any) -> Any:
    """Sort what a peer lists in no order."""
    if not isinstance(tree, dict):
        return tree
    return {
        key: sorted(value, key=str) if key in ("chaincode_definitions", "installed_chaincodes") else value
        for key, value in tree.items()
    }


def opened_private(message: Any) -> Any:
    """Give the private data of a transaction; its namespaces and collections come in no order."""
    assert isinstance(message, rwset_pb2.TxPvtReadWriteSet)
    return shown(message)


def without_choice(tree: Any, *, are_named: bool) -> Any:
    """Leave out who endorsed, as a gateway chooses; of those it was told, leave out the order alone."""
    if isinstance(tree, list):
        return [without_choice(value, are_named=are_named) for value in tree]
    if not isinstance(tree, dict):
        return tree
    found = {key: without_choice(value, are_named=are_named) for key, value in tree.items() if key != "endorsements"}
    if are_named and "endorsements" in tree:
        found["endorsements"] = sorted(tree["endorsements"], key=lambda it: str(it["endorser"]["mspid"]))
    return found
