"""A whole envelope in one parse: Fabric's messages, with the bytes that hold a message declared as that message.

A field of bytes and a field of a message look the same on the wire, so the protobuf library can read an envelope down
to its writes in one call instead of thirteen. In two things it then differs from reading part by part: of bytes that
occur twice the last ones count, where two messages are merged; and one unreadable part spoils the whole. So a view is
given only where writing it gives the very bytes it was read from, as it does for what every client writes: each field
once, in order, in its plain form. All else is read part by part (`network.protocol.decode`).
"""

from typing import Any, Final

from fabric_protos.common import common_pb2
from fabric_protos.ledger.rwset import rwset_pb2
from fabric_protos.ledger.rwset.kvrwset import kv_rwset_pb2
from fabric_protos.peer import chaincode_event_pb2, chaincode_pb2, proposal_pb2, proposal_response_pb2, transaction_pb2
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.message import DecodeError as ProtobufDecodeError

_PACKAGE: Final = "kvr.view"

_HELD: Final = {
    common_pb2.Envelope: {"payload": common_pb2.Payload},
    common_pb2.Payload: {"data": transaction_pb2.Transaction},
    common_pb2.Header: {
        "channel_header": common_pb2.ChannelHeader,
        "signature_header": common_pb2.SignatureHeader,
    },
    transaction_pb2.Transaction: {},
    transaction_pb2.TransactionAction: {"payload": transaction_pb2.ChaincodeActionPayload},
    transaction_pb2.ChaincodeActionPayload: {"chaincode_proposal_payload": proposal_pb2.ChaincodeProposalPayload},
    transaction_pb2.ChaincodeEndorsedAction: {
        "proposal_response_payload": proposal_response_pb2.ProposalResponsePayload
    },
    proposal_pb2.ChaincodeProposalPayload: {"input": chaincode_pb2.ChaincodeInvocationSpec},
    proposal_response_pb2.ProposalResponsePayload: {"extension": proposal_pb2.ChaincodeAction},
    proposal_pb2.ChaincodeAction: {
        "results": rwset_pb2.TxReadWriteSet,
        "events": chaincode_event_pb2.ChaincodeEvent,
    },
    rwset_pb2.TxReadWriteSet: {},
    rwset_pb2.NsReadWriteSet: {"rwset": kv_rwset_pb2.KVRWSet},
    rwset_pb2.CollectionHashedReadWriteSet: {"hashed_rwset": kv_rwset_pb2.HashedRWSet},
}
"""Messages that the view has a form of its own of: those with bytes that hold a message, and those around them."""


def _envelope_type() -> Any:  # noqa: ANN401  a message type made at run time has no static type
    views = {f".{kind.DESCRIPTOR.full_name}": f".{_PACKAGE}.{kind.DESCRIPTOR.name}" for kind in _HELD}
    file = FileDescriptorProto(name="kvr/envelope_view.proto", package=_PACKAGE, syntax="proto3")
    used = {kind.DESCRIPTOR.file.name for held in _HELD.values() for kind in held.values()}
    file.dependency.extend(sorted(used))
    for kind, held in _HELD.items():
        view = file.message_type.add()
        kind.DESCRIPTOR.CopyToProto(view)
        for field in view.field:
            if field.name in held:
                field.type = FieldDescriptorProto.TYPE_MESSAGE
                field.type_name = f".{held[field.name].DESCRIPTOR.full_name}"
            own = f".{kind.DESCRIPTOR.full_name}."
            if field.type_name.startswith(own):  # the entries of a map
                field.type_name = f".{_PACKAGE}.{view.name}.{field.type_name.removeprefix(own)}"
            elif field.type_name in views:
                field.type_name = views[field.type_name]
    described = descriptor_pool.Default().AddSerializedFile(file.SerializeToString())  # type: ignore[no-untyped-call]  # protobuf has no types here
    return message_factory.GetMessageClass(described.message_types_by_name["Envelope"])


_Envelope: Final = _envelope_type()


def view_envelope(content: bytes) -> Any | None:  # noqa: ANN401  # a message
    """Give the view of an envelope, None where it has to be read part by part; never raises."""
    try:
        view = _Envelope.FromString(content)
    except ProtobufDecodeError:
        return None
    return view if view.SerializeToString() == content else None
