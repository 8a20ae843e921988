"""What can be wrong with proposals, transactions and envelopes, by name; real nodes judge all of it.

A transaction that is wrong goes alone into its block.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from fabric_protos.common import common_pb2
from fabric_protos.peer import proposal_pb2, proposal_response_pb2, transaction_pb2

from tests.support.proposal_change import (
    as_init,
    created_by,
    header,
    named_elsewhere,
    replaced,
    without_input,
    without_nonce,
    without_time,
)
from tests.support.service_request import GARBAGE, EnvelopeParts

MINUTE: Final = 60 * 1_000_000_000
MAX_BYTES: Final = 10 * 1024 * 1024
_NOBODY: Final = b"nobody"


# --- proposals


PROPOSALS: Final[Mapping[str, Mapping[str, Any]]] = {
    "no proposal": {"change": replaced(content=GARBAGE)},
    "an empty proposal": {"change": replaced(content=b"")},
    "no header": {"change": replaced(header=GARBAGE)},
    "no channel header": {"change": replaced(channel_header=GARBAGE)},
    "a channel that is no text": {"change": replaced(channel_header=b"\x22\x01\xff")},
    "no signature header": {"change": replaced(signature_header=GARBAGE)},
    "no payload": {"change": replaced(payload=GARBAGE)},
    "no invocation": {"change": replaced(invocation=GARBAGE)},
    "no extension": {"change": replaced(extension=GARBAGE)},
    "an empty extension": {"change": replaced(extension=b"")},
    "no input": {"change": without_input},
    "no time": {"change": without_time},
    "sixteen minutes old": {"nanoseconds": -16 * MINUTE},
    "an hour early": {"nanoseconds": 60 * MINUTE},
    "type 1": {"change": header(type=1)},
    "type 2": {"change": header(type=2)},
    "type 77": {"change": header(type=77)},
    "an epoch": {"change": header(epoch=1)},
    "another id": {"change": header(tx_id="mine")},
    "no nonce": {"change": without_nonce},
    "no creator": {"change": created_by(b"")},
    "created by nobody": {"change": created_by(_NOBODY)},
    "unsigned": {"signature": b""},
    "signed with nothing": {"signature": GARBAGE},
    "named elsewhere": {"change": named_elsewhere},
    "as init": {"change": as_init},
}


# --- transactions, endorsed as they should be; then changed, and signed by their creator

Change = Callable[[Any], None]


def _channel_header(change: Change) -> Change:
    return lambda payload: _edit(payload.header, "channel_header", common_pb2.ChannelHeader, change)


def _signature_header(change: Change) -> Change:
    return lambda payload: _edit(payload.header, "signature_header", common_pb2.SignatureHeader, change)


def _transaction(change: Change) -> Change:
    return lambda payload: _edit(payload, "data", transaction_pb2.Transaction, change)


def _endorsed(change: Change) -> Change:
    def of_action(transaction: Any) -> None:
        _edit(transaction.actions[0], "payload", transaction_pb2.ChaincodeActionPayload, change)

    return _transaction(of_action)


def _action(change: Change) -> Change:
    def of_response(response: Any) -> None:
        _edit(response, "extension", proposal_pb2.ChaincodeAction, change)

    def of_payload(payload: Any) -> None:
        kind = proposal_response_pb2.ProposalResponsePayload
        _edit(payload.action, "proposal_response_payload", kind, of_response)

    return _endorsed(of_payload)


def _edit(message: Any, field: str, kind: Any, change: Change) -> None:
    inner = kind.FromString(getattr(message, field))
    change(inner)
    setattr(message, field, inner.SerializeToString(deterministic=True))


def _set(**fields: Any) -> Change:
    def change(message: Any) -> None:
        for name, content in fields.items():
            setattr(message, name, content)

    return change


def _flipped_signature(payload: Any) -> None:
    signature = bytearray(payload.action.endorsements[0].signature)
    signature[-1] ^= 1
    payload.action.endorsements[0].signature = bytes(signature)


def _no_endorsement(payload: Any) -> None:
    del payload.action.endorsements[:]


def _twice_endorsed(payload: Any) -> None:
    del payload.action.endorsements[1:]
    payload.action.endorsements.append(payload.action.endorsements[0])


def _two_actions(transaction: Any) -> None:
    transaction.actions.append(transaction.actions[0])


def _renamed(action: Any) -> None:
    action.chaincode_id.name = "nowhere"


def _versioned(action: Any) -> None:
    action.chaincode_id.version = "9.9"


def _another_answer(action: Any) -> None:
    action.response.message = "another answer"


TRANSACTIONS: Final[Mapping[str, Change]] = {
    "an endorsement that nobody signed": _endorsed(_flipped_signature),
    "no endorsement": _endorsed(_no_endorsement),
    "one endorsement twice": _endorsed(_twice_endorsed),
    "two actions": _transaction(_two_actions),
    "another answer": _action(_another_answer),
    "another chaincode": _action(_renamed),
    "another version": _action(_versioned),
    "another id": _channel_header(_set(tx_id="1234")),
    "an epoch": _channel_header(_set(epoch=1)),
    "type 77": _channel_header(_set(type=77)),
    "no extension": _channel_header(_set(extension=b"")),
    "another nonce": _signature_header(_set(nonce=b"n" * 24)),
}


# --- envelopes that orderers refuse


def _created_by_nobody(parts: EnvelopeParts) -> None:
    parts.signature_header.creator = _NOBODY


ENVELOPES: Final[Mapping[str, Mapping[str, Any]]] = {
    "nothing wrong": {},
    "no header": {"change": replaced(header=None)},
    "an empty channel header": {"change": replaced(channel_header=b"")},
    "no channel header": {"change": replaced(channel_header=GARBAGE)},
    "a channel that is no text": {"change": replaced(channel_header=b"\x22\x01\xff")},
    "no signature header": {"change": replaced(signature_header=GARBAGE)},
    "no channel": {"channel": ""},
    "a channel that nobody has": {"channel": "elsewhere"},
    "a configuration": {"kind": 1},
    "a configuration update that is none": {"kind": 2},
    "a type of old": {"kind": 4},
    "an empty signature header": {"change": replaced(signature_header=b"")},
    "signed with nothing": {"signature": b"none"},
    "unsigned": {"signature": b""},
    "created by nobody": {"change": _created_by_nobody},
    "too large": {"data": bytes(MAX_BYTES)},
}
SEEKS: Final[Mapping[str, Mapping[str, Any]]] = {
    "no header": {"change": replaced(header=None)},
    "no channel header": {"change": replaced(channel_header=GARBAGE)},
    "no signature header": {"change": replaced(signature_header=GARBAGE)},
    "no time": {"change": without_time},
    "sixteen minutes old": {"nanoseconds": -16 * MINUTE},
    "sixteen minutes early": {"nanoseconds": 16 * MINUTE},
    "no channel": {"channel": ""},
    "a channel that nobody has": {"channel": "elsewhere"},
    "garbage": {"data": GARBAGE},
    "no data": {"data": b""},
    "signed with nothing": {"signature": b"none"},
    "unsigned": {"signature": b""},
    "created by nobody": {"change": _created_by_nobody},
}
