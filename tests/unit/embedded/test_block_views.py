"""Blocks in outline and the events of a block: what real peers make of right and of malformed transactions."""

from collections.abc import Callable
from typing import Any

import pytest
from fabric_protos.common import common_pb2
from fabric_protos.peer import (
    chaincode_event_pb2,
    proposal_pb2,
    proposal_response_pb2,
    transaction_pb2,
)

from network.embedded.services.chaincode_events import EventFilter, block_events
from network.embedded.services.filtered_block import filtered_block
from network.protocol.errors import DecodeError
from network.protocol.validation_code import MVCC_READ_CONFLICT, VALID

GARBAGE = b"\xff"
ENDORSER_TRANSACTION, CONFIG = 3, 1
UNREADABLE = "proto: cannot parse invalid wire-format data"

Change = Callable[[dict[str, Any]], None]


def event(tx_id: str = "a", name: str = "opened", chaincode: str = "service", payload: bytes = b"content") -> Any:
    return chaincode_event_pb2.ChaincodeEvent(chaincode_id=chaincode, tx_id=tx_id, event_name=name, payload=payload)


def envelope(tx_id: str = "a", kind: int = ENDORSER_TRANSACTION, **layers: Any) -> bytes:
    """Give an envelope of one action with one event; a layer that is given takes the place of the right one."""

    def made(name: str, right: Any) -> bytes:
        layer = layers.get(name, right)
        return layer if isinstance(layer, bytes) else bytes(layer.SerializeToString())

    action = proposal_pb2.ChaincodeAction(events=made("event", event(tx_id)))
    response = proposal_response_pb2.ProposalResponsePayload(extension=made("action", action))
    endorsed = transaction_pb2.ChaincodeEndorsedAction(proposal_response_payload=made("response", response))
    payload = transaction_pb2.ChaincodeActionPayload(action=endorsed)
    transaction = transaction_pb2.Transaction(
        actions=[transaction_pb2.TransactionAction(payload=made("action_payload", payload))]
    )
    header = common_pb2.ChannelHeader(type=kind, channel_id="ch", tx_id=tx_id)
    message = common_pb2.Payload(
        header=common_pb2.Header(channel_header=made("channel_header", header)),
        data=made("transaction", transaction),
    )
    return bytes(common_pb2.Envelope(payload=made("payload", message), signature=b"s").SerializeToString())


def block(*envelopes: bytes, flags: bytes | None = None) -> Any:
    flags = bytes(len(envelopes)) if flags is None else flags
    return common_pb2.Block(
        header=common_pb2.BlockHeader(number=7),
        data=common_pb2.BlockData(data=envelopes),
        metadata=common_pb2.BlockMetadata(metadata=[b"", b"", flags, b"", b""]),
    )


WITHOUT_HEADER = common_pb2.Payload(data=b"x")
NO_ACTION = transaction_pb2.ChaincodeActionPayload()


# --- outlines


def test_an_outline_has_all_transactions_and_events_without_payload() -> None:
    outline = filtered_block(
        block(envelope("a"), envelope("b"), envelope("c", CONFIG), flags=bytes((VALID, MVCC_READ_CONFLICT, VALID)))
    )

    assert (outline.number, outline.channel_id) == (7, "ch")
    assert [(it.txid, it.type, it.tx_validation_code) for it in outline.filtered_transactions] == [
        ("a", ENDORSER_TRANSACTION, VALID),
        ("b", ENDORSER_TRANSACTION, MVCC_READ_CONFLICT),
        ("c", CONFIG, VALID),
    ]
    assert [it.WhichOneof("Data") for it in outline.filtered_transactions] == ["transaction_actions"] * 2 + [None]
    (action,) = outline.filtered_transactions[1].transaction_actions.chaincode_actions
    assert action.chaincode_event == event("b", payload=b"")


@pytest.mark.parametrize("content", [GARBAGE, b"", envelope(payload=WITHOUT_HEADER)], ids=["no", "empty", "headless"])
def test_what_has_no_header_is_left_out_of_an_outline(content: bytes) -> None:
    outline = filtered_block(block(content, envelope("b"), flags=bytes((1, 2))))

    assert [(it.txid, it.tx_validation_code) for it in outline.filtered_transactions] == [("b", 2)]


@pytest.mark.parametrize(
    "layers",
    [
        {"payload": GARBAGE},
        {"channel_header": GARBAGE},
        {"transaction": GARBAGE},
        {"action_payload": GARBAGE},
        {"response": GARBAGE},
        {"action": GARBAGE},
        {"event": GARBAGE},
    ],
    ids=lambda layers: next(iter(layers)),
)
def test_there_is_no_outline_of_a_block_with_a_transaction_that_cannot_be_read(layers: dict[str, bytes]) -> None:
    with pytest.raises(DecodeError):
        filtered_block(block(envelope("a"), envelope("b", **layers)))


@pytest.mark.parametrize("layers", [{"action_payload": NO_ACTION}, {"event": b""}, {"event": event(chaincode="")}])
def test_an_action_without_event_is_left_out_of_an_outline(layers: dict[str, Any]) -> None:
    (transaction,) = filtered_block(block(envelope("a", **layers))).filtered_transactions

    assert transaction.WhichOneof("Data") == "transaction_actions"
    assert len(transaction.transaction_actions.chaincode_actions) == 0


def test_what_is_not_read_of_a_configuration_spoils_no_outline() -> None:
    (transaction,) = filtered_block(block(envelope("a", CONFIG, transaction=GARBAGE))).filtered_transactions

    assert transaction.txid == "a"


# --- events


def test_events_are_those_of_valid_transactions_in_order() -> None:
    found = block_events(
        block(
            envelope("a"),
            envelope("b"),
            envelope("c"),
            envelope("d", CONFIG),
            flags=bytes((VALID, MVCC_READ_CONFLICT, VALID, VALID)),
        )
    )

    assert found == [event("a"), event("c")]


@pytest.mark.parametrize(
    "layers",
    [
        {"event": event(name="")},
        {"event": event(chaincode="")},
        {"event": event(tx_id="")},
        {"event": GARBAGE},
        {"action": GARBAGE},
        {"response": GARBAGE},
        {"action_payload": GARBAGE},
        {"action_payload": NO_ACTION},
    ],
    ids=["no name", "no chaincode", "no id", "no event", "no action", "no response", "no payload", "nothing endorsed"],
)
def test_an_event_that_is_none_is_passed_over(layers: dict[str, Any]) -> None:
    assert block_events(block(envelope("a", **layers), envelope("b"))) == [event("b")]


@pytest.mark.parametrize(
    "content",
    [GARBAGE, envelope(payload=GARBAGE), envelope(channel_header=GARBAGE)],
    ids=["no envelope", "no payload", "no header"],
)
def test_headers_that_cannot_be_read_end_the_stream_also_of_invalid_transactions(content: bytes) -> None:
    with pytest.raises(DecodeError, match=f"^{UNREADABLE}$"):
        block_events(block(envelope("a"), content, flags=bytes((VALID, MVCC_READ_CONFLICT))))


def test_what_an_invalid_transaction_holds_is_not_read() -> None:
    assert block_events(block(envelope(transaction=GARBAGE), flags=bytes((MVCC_READ_CONFLICT,)))) == []
    with pytest.raises(DecodeError):
        block_events(block(envelope(transaction=GARBAGE)))


@pytest.mark.parametrize(
    ("after", "passing"),
    [
        ("", ["a", "b", "d"]),
        ("a", ["b", "d"]),
        ("c", ["d"]),
        ("d", []),
        ("e", []),
    ],
)
def test_behind_a_transaction_events_pass_once_one_of_its_own_came(after: str, passing: list[str]) -> None:
    events = [event("a"), event("b"), event("c", chaincode="other"), event("d")]
    asked = EventFilter("service", after)

    assert [it.tx_id for it in events if asked.passes(it)] == passing
