"""The peer's half of the chaincode stream, with a ledger in memory: judges a chaincode server over real sockets.

As a real peer it answers one request per transaction and drops a second one, sends rows in batches, and ends iterators
with their transaction. Writes of an endorsed transaction are committed when its answer is.
"""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import grpc
from cryptography import x509
from fabric_protos.common import common_pb2
from fabric_protos.ledger.queryresult import kv_query_result_pb2
from fabric_protos.peer import (
    chaincode_pb2,
    chaincode_shim_pb2,
    chaincode_shim_pb2_grpc,
    proposal_pb2,
    proposal_response_pb2,
)

from chaincode.shim.handler import Invoke
from chaincode.shim.server import ChaincodeServer, ServerSettings
from tests.support.credential import Authority

Message = chaincode_shim_pb2.ChaincodeMessage
Record = chaincode_shim_pb2.WriteRecord
BATCH = 100
MAX_BYTES = 100 * 1024 * 1024
CHANNEL = "consortium"
TIMESTAMP = 1_790_000_000_123_456_789
DEADLINE_SECONDS = 20.0


def attributes_extension(attributes: Mapping[str, str]) -> tuple[x509.ExtensionType, bool]:
    """Give the extension in which Fabric CA writes attributes."""
    content = json.dumps({"attrs": dict(attributes)}).encode()
    return x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4.5.6.7.8.1"), content), False


def issue_client(authority: Authority, common_name: str = "user", **attributes: str) -> bytes:
    """Give the serialised identity of a new client with these attributes."""
    return authority.issue(common_name, extensions=[attributes_extension(attributes)]).serialized


@dataclass
class Called:
    """What a transaction was answered with."""

    status: int
    payload: bytes
    message: str
    event: tuple[str, bytes] | None
    writes: list[Any]
    requests: list[str]

    def json(self) -> Any:  # what the contract gave
        """Read the payload."""
        return json.loads(self.payload)


@dataclass
class Simulation:
    """One transaction under way."""

    answer: asyncio.Future[Any]
    writes: list[Any] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    iterators: dict[str, list[bytes]] = field(default_factory=dict)
    busy: bool = False


class ChaincodePeer:
    """A peer with one stream to a chaincode server. Use it as an asynchronous context."""

    def __init__(
        self,
        address: str,
        *,
        credentials: grpc.ChannelCredentials | None = None,
        write_batch: int = 0,
        get_multiple: int = 0,
    ) -> None:
        self.state: dict[tuple[str, str], bytes] = {}
        self.metadata: dict[tuple[str, str], bytes] = {}
        self.history: dict[str, list[tuple[str, bytes]]] = {}
        self.received: list[Any] = []
        self.open_iterators: set[str] = set()
        self.refuse: dict[str, str] = {}
        """Text of the ERROR that answers requests of a type."""
        self.hold: set[str] = set()
        """Types of requests that get no answer until they are released."""
        self.held: asyncio.Queue[Any] = asyncio.Queue()
        self.dropped = 0
        """Requests that came while another of the same transaction was not answered."""
        self.keepalives: asyncio.Queue[Any] = asyncio.Queue()
        self.other_chaincode: Callable[[str, Sequence[bytes]], Any] | None = None
        self.ended = asyncio.Event()
        self.address = address
        self._credentials = credentials
        self._sizes = (write_batch, get_multiple)
        self._outgoing: asyncio.Queue[Any] = asyncio.Queue()
        self._registered: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._simulations: dict[tuple[str, str], Simulation] = {}
        self._number = 0

    async def __aenter__(self) -> Self:
        """Connect, and say READY when the chaincode has registered."""
        options = [("grpc.max_receive_message_length", MAX_BYTES), ("grpc.max_send_message_length", MAX_BYTES)]
        if self._credentials is None:
            self._channel = grpc.aio.insecure_channel(self.address, options=options)
        else:
            self._channel = grpc.aio.secure_channel(self.address, self._credentials, options=options)
        self._call = chaincode_shim_pb2_grpc.ChaincodeStub(self._channel).Connect(self._messages())
        self._reader = asyncio.create_task(self._read())
        try:
            self.package_id = await asyncio.wait_for(self._registered, DEADLINE_SECONDS)
        except BaseException:
            await self.cut()
            raise
        offered = chaincode_pb2.ChaincodeAdditionalParams(
            use_write_batch=bool(self._sizes[0]),
            max_size_write_batch=self._sizes[0],
            use_get_multiple_keys=bool(self._sizes[1]),
            max_size_get_multiple_keys=self._sizes[1],
        )
        self.send(Message(type=Message.REGISTERED))
        self.send(Message(type=Message.READY, payload=offered.SerializeToString()))
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Break the stream."""
        await self.cut()

    async def cut(self) -> None:
        """Break the stream."""
        self._call.cancel()
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)
        await self._channel.close()

    def send(self, message: Any) -> None:  # generated without types
        """Send any message."""
        self._outgoing.put_nowait(message)

    def propose(
        self,
        *arguments: str | bytes,
        creator: bytes = b"",
        transient: Mapping[str, bytes] | None = None,
        tx_id: str | None = None,
        timestamp: int = TIMESTAMP,
        spoil: Callable[[Any], None] | None = None,
    ) -> asyncio.Future[Any]:
        """Send a transaction; gives what its answer will be."""
        self._number += 1
        tx_id = tx_id or hashlib.sha256(str(self._number).encode()).hexdigest()
        given = chaincode_pb2.ChaincodeInput(
            args=[argument.encode() if isinstance(argument, str) else argument for argument in arguments],
            decorations={"decoration": b"of the peer"},
        )
        message = proposed(given, tx_id, creator, transient or {}, timestamp)
        if spoil is not None:
            spoil(message)
        self.send(message)
        simulation = Simulation(asyncio.get_running_loop().create_future())
        self._simulations[CHANNEL, tx_id] = simulation
        return simulation.answer

    async def call(self, *arguments: str | bytes, **options: Any) -> Called:  # see `propose`
        """Run a transaction and commit what it wrote when it is endorsed."""
        called: Called = await asyncio.wait_for(self.propose(*arguments, **options), DEADLINE_SECONDS)
        return called

    def release(self, message: Any) -> None:  # generated without types
        """Answer a request that was held."""
        self._respond(message)

    async def _messages(self) -> AsyncIterator[Any]:
        while True:
            yield await self._outgoing.get()

    async def _read(self) -> None:
        try:
            async for message in self._call:
                self._take(message)
        except (grpc.aio.AioRpcError, asyncio.CancelledError) as error:
            if not self._registered.done():
                self._registered.set_exception(ConnectionError(type(error).__name__))
        finally:
            self.ended.set()
            for simulation in self._simulations.values():
                if not simulation.answer.done():
                    simulation.answer.cancel()

    def _take(self, message: Any) -> None:
        self.received.append(message)
        if message.type == Message.REGISTER:
            self._registered.set_result(chaincode_pb2.ChaincodeID.FromString(message.payload).name)
        elif message.type == Message.KEEPALIVE:
            self.keepalives.put_nowait(message)
        elif message.type in (Message.COMPLETED, Message.ERROR):
            self._finish(message)
        else:
            simulation = self._simulations.get((message.channel_id, message.txid))
            if simulation is None:
                return
            if simulation.busy:
                self.dropped += 1
                return
            simulation.busy = True
            simulation.requests.append(Message.Type.Name(message.type))
            if Message.Type.Name(message.type) in self.hold:
                self.held.put_nowait(message)
            else:
                self._respond(message)

    def _respond(self, message: Any) -> None:
        kind = Message.Type.Name(message.type)
        reply = Message(type=Message.RESPONSE, txid=message.txid, channel_id=message.channel_id)
        simulation = self._simulations.get((message.channel_id, message.txid))
        if simulation is None:
            return
        if kind in self.refuse:
            reply.type, reply.payload = Message.ERROR, self.refuse[kind].encode()
        else:
            try:
                reply.payload = getattr(self, f"_{kind.lower()}")(message, simulation)
            except LookupError:
                reply.type, reply.payload = Message.ERROR, f"{kind} failed: not found".encode()
        simulation.busy = False
        self.send(reply)

    def _finish(self, message: Any) -> None:
        simulation = self._simulations.pop((message.channel_id, message.txid), None)
        if simulation is None or simulation.answer.done():
            return
        self.open_iterators -= set(simulation.iterators)
        event = None
        if message.type == Message.ERROR:
            response = proposal_response_pb2.Response(status=500, message=message.payload.decode())
        else:
            response = proposal_response_pb2.Response.FromString(message.payload)
            if message.HasField("chaincode_event"):
                event = (message.chaincode_event.event_name, message.chaincode_event.payload)
        if response.status < 400:
            for record in simulation.writes:
                self._commit(record, message.txid)
        simulation.answer.set_result(
            Called(response.status, response.payload, response.message, event, simulation.writes, simulation.requests)
        )

    def _commit(self, record: Any, tx_id: str) -> None:
        place = (record.collection, record.key)
        if record.type == Record.PUT_STATE_METADATA:
            self.metadata[place] = record.metadata.value
            return
        value = record.value if record.type == Record.PUT_STATE else b""
        if not record.collection:
            self.history.setdefault(record.key, []).append((tx_id, value))
        if value:
            self.state[place] = value
        else:
            self.state.pop(place, None)

    # Answers to requests

    def _get_state(self, message: Any, _: Simulation) -> bytes:
        request = chaincode_shim_pb2.GetState.FromString(message.payload)
        return self.state.get((request.collection, request.key), b"")

    def _get_private_data_hash(self, message: Any, simulation: Simulation) -> bytes:
        value = self._get_state(message, simulation)
        return hashlib.sha256(value).digest() if value else b""

    def _get_state_multiple(self, message: Any, _: Simulation) -> bytes:
        request = chaincode_shim_pb2.GetStateMultiple.FromString(message.payload)
        values = [self.state.get((request.collection, key), b"") for key in request.keys]
        return bytes(chaincode_shim_pb2.GetStateMultipleResult(values=values).SerializeToString())

    def _put_state(self, message: Any, simulation: Simulation) -> bytes:
        put = chaincode_shim_pb2.PutState.FromString(message.payload)
        simulation.writes.append(Record(type=Record.PUT_STATE, key=put.key, value=put.value, collection=put.collection))
        return b""

    def _del_state(self, message: Any, simulation: Simulation) -> bytes:
        request = chaincode_shim_pb2.DelState.FromString(message.payload)
        simulation.writes.append(Record(type=Record.DEL_STATE, key=request.key, collection=request.collection))
        return b""

    def _purge_private_data(self, message: Any, simulation: Simulation) -> bytes:
        request = chaincode_shim_pb2.DelState.FromString(message.payload)
        simulation.writes.append(Record(type=Record.PURGE_PRIVATE_DATA, key=request.key, collection=request.collection))
        return b""

    def _put_state_metadata(self, message: Any, simulation: Simulation) -> bytes:
        put = chaincode_shim_pb2.PutStateMetadata.FromString(message.payload)
        simulation.writes.append(
            Record(type=Record.PUT_STATE_METADATA, key=put.key, collection=put.collection, metadata=put.metadata)
        )
        return b""

    def _get_state_metadata(self, message: Any, _: Simulation) -> bytes:
        request = chaincode_shim_pb2.GetStateMetadata.FromString(message.payload)
        value = self.metadata.get((request.collection, request.key))
        result = chaincode_shim_pb2.StateMetadataResult()
        if value is not None:
            result.entries.add(metakey="VALIDATION_PARAMETER", value=value)
        return bytes(result.SerializeToString())

    def _write_batch_state(self, message: Any, simulation: Simulation) -> bytes:
        simulation.writes += chaincode_shim_pb2.WriteBatchState.FromString(message.payload).rec
        return b""

    def _get_state_by_range(self, message: Any, simulation: Simulation) -> bytes:
        request = chaincode_shim_pb2.GetStateByRange.FromString(message.payload)
        page = chaincode_shim_pb2.QueryMetadata.FromString(request.metadata)
        start = (page.bookmark or request.startKey).encode()
        rows = [
            kv_query_result_pb2.KV(namespace="service", key=key, value=value).SerializeToString()
            for (collection, key), value in sorted(self.state.items(), key=lambda item: item[0][1].encode())
            if collection == request.collection
            and start <= key.encode()
            and (not request.endKey or key.encode() < request.endKey.encode())
        ]
        if not request.metadata:
            return self._rows(rows, simulation)
        page_rows, rest = rows[: page.pageSize], rows[page.pageSize :]
        bookmark = kv_query_result_pb2.KV.FromString(rest[0]).key if rest else ""
        facts = chaincode_shim_pb2.QueryResponseMetadata(fetched_records_count=len(page_rows), bookmark=bookmark)
        response = chaincode_shim_pb2.QueryResponse(metadata=facts.SerializeToString())
        for row in page_rows:
            response.results.add(resultBytes=row)
        return bytes(response.SerializeToString())

    def _get_query_result(self, message: Any, simulation: Simulation) -> bytes:
        """Find values that begin as the query does: nobody asks for more here."""
        request = chaincode_shim_pb2.GetQueryResult.FromString(message.payload)
        rows = [
            kv_query_result_pb2.KV(namespace="service", key=key, value=value).SerializeToString()
            for (collection, key), value in sorted(self.state.items())
            if collection == request.collection and value.startswith(request.query.encode())
        ]
        page = chaincode_shim_pb2.QueryMetadata.FromString(request.metadata)
        if not request.metadata:
            return self._rows(rows, simulation)
        first = int(page.bookmark or "0")
        found = rows[first : first + page.pageSize]
        facts = chaincode_shim_pb2.QueryResponseMetadata(
            fetched_records_count=len(found), bookmark=str(first + len(found))
        )
        response = chaincode_shim_pb2.QueryResponse(metadata=facts.SerializeToString())
        for row in found:
            response.results.add(resultBytes=row)
        return bytes(response.SerializeToString())

    def _get_history_for_key(self, message: Any, simulation: Simulation) -> bytes:
        key = chaincode_shim_pb2.GetHistoryForKey.FromString(message.payload).key
        rows = []
        for tx_id, value in reversed(self.history.get(key, [])):
            row = kv_query_result_pb2.KeyModification(tx_id=tx_id, value=value, is_delete=not value)
            row.timestamp.seconds, row.timestamp.nanos = divmod(TIMESTAMP, 10**9)
            rows.append(row.SerializeToString())
        return self._rows(rows, simulation)

    def _query_state_next(self, message: Any, simulation: Simulation) -> bytes:
        query_id = chaincode_shim_pb2.QueryStateNext.FromString(message.payload).id
        return self._rows(simulation.iterators.pop(query_id), simulation, query_id)

    def _query_state_close(self, message: Any, simulation: Simulation) -> bytes:
        query_id = chaincode_shim_pb2.QueryStateClose.FromString(message.payload).id
        simulation.iterators.pop(query_id, None)
        self.open_iterators.discard(query_id)
        return bytes(chaincode_shim_pb2.QueryResponse(id=query_id).SerializeToString())

    def _rows(self, rows: list[bytes], simulation: Simulation, query_id: str = "") -> bytes:
        self._number += 1
        query_id = query_id or f"query-{self._number}"
        response = chaincode_shim_pb2.QueryResponse(id=query_id, has_more=len(rows) > BATCH)
        for row in rows[:BATCH]:
            response.results.add(resultBytes=row)
        if response.has_more:
            simulation.iterators[query_id] = rows[BATCH:]
            self.open_iterators.add(query_id)
        else:
            self.open_iterators.discard(query_id)
        return bytes(response.SerializeToString())

    def _invoke_chaincode(self, message: Any, _: Simulation) -> bytes:
        spec = chaincode_pb2.ChaincodeSpec.FromString(message.payload)
        if self.other_chaincode is None:
            raise LookupError
        return bytes(self.other_chaincode(spec.chaincode_id.name, list(spec.input.args)).SerializeToString())


def proposed(given: Any, tx_id: str, creator: bytes, transient: Mapping[str, bytes], timestamp: int) -> Any:
    """Give the TRANSACTION message: the input, and the whole proposal around it."""
    channel_header = common_pb2.ChannelHeader(type=3, channel_id=CHANNEL, tx_id=tx_id)
    channel_header.timestamp.seconds, channel_header.timestamp.nanos = divmod(timestamp, 10**9)
    signature_header = common_pb2.SignatureHeader(creator=creator, nonce=b"nonce")
    header = common_pb2.Header(
        channel_header=channel_header.SerializeToString(), signature_header=signature_header.SerializeToString()
    )
    payload = proposal_pb2.ChaincodeProposalPayload(TransientMap=transient)
    proposal = proposal_pb2.Proposal(header=header.SerializeToString(), payload=payload.SerializeToString())
    message = Message(type=Message.TRANSACTION, payload=given.SerializeToString(), txid=tx_id, channel_id=CHANNEL)
    message.proposal.proposal_bytes = proposal.SerializeToString()
    return message


class RunningServer:
    """A chaincode server in plaintext on a port of the kernel's choice, with one peer connected to it."""

    def __init__(
        self,
        invoke: Invoke,
        *,
        msp_id: str = "ServiceMSP",
        seconds: float = 10.0,
        write_batch: int = 0,
        get_multiple: int = 0,
    ) -> None:
        settings = ServerSettings(
            "127.0.0.1:0", "service:0a1b", msp_id, None, grace_seconds=5.0, transaction_seconds=seconds
        )
        self.server = ChaincodeServer(invoke, settings)
        self._sizes = (write_batch, get_multiple)

    async def __aenter__(self) -> ChaincodePeer:
        """Start, and give the peer."""
        port = await self.server.start()
        self.peer = ChaincodePeer(f"127.0.0.1:{port}", write_batch=self._sizes[0], get_multiple=self._sizes[1])
        return await self.peer.__aenter__()

    async def __aexit__(self, *exc_info: object) -> None:
        """Break the stream."""
        await self.peer.cut()
        await self.server.stop()
