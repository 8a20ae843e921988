"""Envelope form and parsing: exactly what Go accepts."""

import pytest
from fabric_protos.common import common_pb2
from google.protobuf.message import DecodeError as ProtobufDecodeError
from hypothesis import given
from hypothesis import strategies as st

from network.protocol.errors import DecodeError
from network.protocol.wire import envelope_defect, parse, parse_in_words_of_go, read_varint, scan_fields, varint

PAYLOAD, SIGNATURE = b"payload", b"signature"
PLAIN = b"\x0a\x07" + PAYLOAD + b"\x12\x09" + SIGNATURE


def tag(number: int, wire_type: int) -> bytes:
    return varint(number << 3 | wire_type)


UNKNOWN_VARINT = tag(15, 0) + b"\x2a"
UNKNOWN_BYTES = tag(99, 2) + b"\x03abc"
UNKNOWN_FIXED = tag(7, 1) + bytes(8) + tag(8, 5) + bytes(4)
DEEP_GROUPS = tag(99, 3) * 150 + tag(99, 4) * 150


@pytest.mark.parametrize(
    "envelope",
    [
        pytest.param(PLAIN, id="as orderers write it"),
        pytest.param(PLAIN + UNKNOWN_VARINT, id="unknown varint at the end"),
        pytest.param(PLAIN + UNKNOWN_BYTES, id="unknown bytes at the end"),
        pytest.param(PLAIN + UNKNOWN_FIXED, id="unknown fixed-size fields"),
        pytest.param(PLAIN + DEEP_GROUPS, id="groups deeper than Python's parser takes"),
        pytest.param(PLAIN + tag(15, 0) + b"\x80\x00", id="unknown value that is not minimal stays as it stands"),
        pytest.param(PLAIN + tag(1, 0) + b"\x05", id="a known number with another wire type is unknown to Go"),
        pytest.param(b"\x0a" + varint(300) + bytes(300) + b"\x12\x09" + SIGNATURE, id="two-byte length"),
    ],
)
def test_accepts_the_envelope_forms_that_go_accepts(envelope: bytes) -> None:
    assert envelope_defect(envelope) is None


@pytest.mark.parametrize(
    ("envelope", "reason"),
    [
        pytest.param(b"", "no payload", id="empty"),
        pytest.param(b"\x12\x09" + SIGNATURE, "no payload", id="signature alone"),
        pytest.param(b"\x0a\x07" + PAYLOAD, "no signature", id="payload alone"),
        pytest.param(b"\x0a\x00\x12\x09" + SIGNATURE, "no payload", id="empty payload"),
        pytest.param(b"\x0a\x07" + PAYLOAD + b"\x12\x00", "no signature", id="empty signature"),
        pytest.param(b"\x12\x09" + SIGNATURE + b"\x0a\x07" + PAYLOAD, "canonical", id="fields swapped"),
        pytest.param(b"\x0a\x01x" + PLAIN, "trailing bytes", id="payload twice"),
        pytest.param(PLAIN + b"\x12\x09" + SIGNATURE, "trailing bytes", id="signature twice"),
        pytest.param(UNKNOWN_VARINT + PLAIN, "canonical", id="unknown field before known ones"),
        pytest.param(b"\x0a\x87\x00" + PAYLOAD + b"\x12\x09" + SIGNATURE, "trailing bytes", id="length not minimal"),
        pytest.param(PLAIN + b"\xf8\x80\x00\x2a", "trailing bytes", id="unknown tag not minimal"),
        pytest.param(PLAIN[:-1], "past the end", id="cut"),
        pytest.param(PLAIN + b"\x80", "inside a varint", id="stray byte"),
        pytest.param(PLAIN + tag(99, 4), "never started", id="end of no group"),
        pytest.param(PLAIN + tag(99, 3), "unexpected end", id="group without end"),
        pytest.param(PLAIN + tag(99, 3) + tag(98, 4), "another group", id="groups crossed"),
        pytest.param(PLAIN + b"\x00\x00", "field number", id="field number 0"),
        pytest.param(PLAIN + tag(15, 6) + b"\x00", "wire type", id="reserved wire type"),
        pytest.param(PLAIN + tag(2**29, 0) + b"\x00", "field number", id="field number too large"),
        pytest.param(PLAIN + tag(15, 0) + b"\xff" * 9 + b"\x02", "64 bits", id="varint overflow"),
    ],
)
def test_refuses_the_envelope_forms_that_go_refuses(envelope: bytes, reason: str) -> None:
    defect = envelope_defect(envelope)

    assert defect is not None
    assert reason in defect


@given(st.binary(max_size=200))
def test_form_check_agrees_with_reencoding_by_a_protobuf_library(content: bytes) -> None:
    """Where the library parses at all and knows every field, canonical means: it re-encodes to the same bytes."""
    try:
        envelope = common_pb2.Envelope.FromString(content)
    except ProtobufDecodeError:
        return
    present = bool(envelope.payload) and bool(envelope.signature)
    if envelope_defect(content) is None:
        assert present
        assert envelope.SerializeToString() == content


@given(st.binary(min_size=1, max_size=50), st.binary(min_size=1, max_size=50), st.binary(min_size=1, max_size=50))
def test_recut_envelopes_are_refused(payload: bytes, signature: bytes, other: bytes) -> None:
    """The data hash covers joined envelopes only: the same bytes cut elsewhere must not pass."""
    first = common_pb2.Envelope(payload=payload, signature=signature).SerializeToString()
    second = common_pb2.Envelope(payload=other, signature=signature).SerializeToString()
    joined = first + second

    verdicts = [
        (envelope_defect(joined[:cut]), envelope_defect(joined[cut:]))
        for cut in range(1, len(joined))
        if cut != len(first)
    ]

    assert all(any(defects) for defects in verdicts)
    assert envelope_defect(joined) is not None


def test_reads_a_message_that_only_go_would_read() -> None:
    envelope = parse(common_pb2.Envelope, PLAIN + DEEP_GROUPS, "Envelope")

    assert envelope.payload == PAYLOAD
    assert envelope.signature == SIGNATURE


def test_reads_an_overlong_tag_inside_a_nested_message() -> None:
    header = b"\x8a\x80\x80\x80\x80\x00\x03abc"  # field 1 with a six-byte tag: refused by upb, taken by Go
    payload = parse(common_pb2.Payload, b"\x0a" + varint(len(header)) + header, "Payload")

    assert payload.header.channel_header == b"abc"


def test_names_the_message_it_cannot_read() -> None:
    with pytest.raises(DecodeError, match=r"^Envelope: field runs past the end"):
        parse(common_pb2.Envelope, PLAIN[:-1], "Envelope")


def test_rejects_text_that_is_not_utf8_as_go_does() -> None:
    with pytest.raises(DecodeError, match="ChannelHeader"):
        parse(common_pb2.ChannelHeader, b"\x22\x01\xff", "ChannelHeader")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        pytest.param(b"\x22\x01\xff", "string field contains invalid UTF-8", id="text that is not UTF-8"),
        pytest.param(b"\x22\x05ab", "proto: cannot parse invalid wire-format data", id="cut"),
        pytest.param(b"\x22\x05ab\xff", "proto: cannot parse invalid wire-format data", id="cut, and not UTF-8"),
        pytest.param(b"\x22\x01\xff\x80", "string field contains invalid UTF-8", id="not UTF-8 before a stray byte"),
        pytest.param(b"\x80\x22\x01\xff", "proto: cannot parse invalid wire-format data", id="no field number"),
        pytest.param(b"\x1a\x02\x10\x80", "proto: cannot parse invalid wire-format data", id="defect one level down"),
    ],
)
def test_refuses_in_the_words_of_go(content: bytes, text: str) -> None:
    with pytest.raises(DecodeError) as refused:
        parse_in_words_of_go(common_pb2.ChannelHeader, content)

    assert str(refused.value) == text


@given(st.integers(min_value=0, max_value=2**64 - 1))
def test_varints_round_trip(value: int) -> None:
    encoded = varint(value)

    assert read_varint(encoded, 0) == (value, len(encoded))


@given(st.binary(max_size=300))
def test_scanning_any_bytes_ends_in_fields_or_our_error(content: bytes) -> None:
    try:
        fields = list(scan_fields(content))
    except DecodeError:
        return
    assert sum(len(field.raw) for field in fields) <= len(content)
