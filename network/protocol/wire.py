"""Protobuf wire format exactly as Go reads and writes it, where that differs from what a Python parser does.

Two uses. `is_canonical_envelope` is the form check that keeps envelope boundaries honest (`protoutil/blockutils.go`,
VerifyTransactionsAreWellFormed): accept what Go accepts, no less and no more. `parse` reads a message with the
protobuf library and, where that refuses something Go takes (deep unknown groups, over-long tags), brings the bytes
into plain form first, so that nobody can stop our reader with a transaction that every peer finds valid.

Rules: `google.golang.org/protobuf/encoding/protowire` and `internal/impl/decode.go`.
"""

from collections.abc import Iterator
from typing import NamedTuple, TypeVar

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError as ProtobufDecodeError
from google.protobuf.message import Message

from network.protocol.errors import DecodeError

_VARINT, _FIXED64, _BYTES, _START_GROUP, _END_GROUP, _FIXED32 = range(6)
_MAX_FIELD_NUMBER = 2**29 - 1
_MAX_GROUP_DEPTH = 10_000
"""`protowire.DefaultRecursionLimit`"""
_MAX_MESSAGE_DEPTH = 64
"""Deepest known message in Fabric's protocol, with room; guards our own recursion, not Go's."""

_SHORT_VARINTS = tuple(bytes((value,)) for value in range(0x80))

M = TypeVar("M", bound=Message)


class Field(NamedTuple):
    """One field as it stands: its value without the tag (`raw`), and for length-delimited fields the content."""

    number: int
    wire_type: int
    raw: bytes
    content: bytes


def append_varint(out: bytearray, value: int) -> None:
    """Append the minimal varint of a non-negative integer."""
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)


def varint(value: int) -> bytes:
    """Give the minimal varint of a non-negative integer."""
    if value < 0x80:
        return _SHORT_VARINTS[value]
    if value < 0x4000:
        return bytes((value & 0x7F | 0x80, value >> 7))
    out = bytearray()
    append_varint(out, value)
    return bytes(out)


def read_varint(content: bytes, position: int) -> tuple[int, int]:
    """Read a varint as Go does: up to ten bytes, the tenth at most 1; give the value and the position after it.

    Raises DecodeError at the end of the bytes and on overflow.
    """
    value = 0
    for index in range(10):
        if position >= len(content):
            message = "unexpected end of message inside a varint"
            raise DecodeError(message)
        octet = content[position]
        position += 1
        value |= (octet & 0x7F) << (7 * index)
        if octet < 0x80:
            if index == 9 and octet > 1:
                break
            return value, position
    message = "varint of more than 64 bits"
    raise DecodeError(message)


def _read_tag(content: bytes, position: int) -> tuple[int, int, int]:
    tag, position = read_varint(content, position)
    number = tag >> 3
    if not 1 <= number <= _MAX_FIELD_NUMBER:
        message = "field number out of range"
        raise DecodeError(message)
    return number, tag & 7, position


def _skip_scalar(content: bytes, position: int, wire_type: int) -> int:
    if wire_type == _VARINT:
        return read_varint(content, position)[1]
    if wire_type == _FIXED64:
        end = position + 8
    elif wire_type == _FIXED32:
        end = position + 4
    elif wire_type == _BYTES:
        length, position = read_varint(content, position)
        end = position + length
    else:
        message = "reserved wire type"
        raise DecodeError(message)
    if end > len(content):
        message = "field runs past the end of its message"
        raise DecodeError(message)
    return end


def _skip_group(content: bytes, position: int, number: int) -> int:
    open_groups = [number]
    while open_groups:
        if len(open_groups) > _MAX_GROUP_DEPTH:
            message = "groups nested too deep"
            raise DecodeError(message)
        inner, wire_type, position = _read_tag(content, position)
        if wire_type == _START_GROUP:
            open_groups.append(inner)
        elif wire_type == _END_GROUP:
            if open_groups.pop() != inner:
                message = "end of another group"
                raise DecodeError(message)
        else:
            position = _skip_scalar(content, position, wire_type)
    return position


def scan_fields(content: bytes) -> Iterator[Field]:
    """Yield the fields of one message in order, in time linear in its length.

    Raises DecodeError where Go's parser refuses the bytes.
    """
    position = 0
    while position < len(content):
        number, wire_type, start = _read_tag(content, position)
        if wire_type == _START_GROUP:
            position = _skip_group(content, start, number)
        elif wire_type == _END_GROUP:
            message = "end of a group that never started"
            raise DecodeError(message)
        else:
            position = _skip_scalar(content, start, wire_type)
        inner = b""
        if wire_type == _BYTES:
            _, inner_start = read_varint(content, start)
            inner = content[inner_start:position]
        yield Field(number, wire_type, content[start:position], inner)


def envelope_defect(content: bytes) -> str | None:
    """Say why Go would refuse an envelope's form, None when it accepts it.

    Accepted: payload and signature present, and re-encoding (known fields in order, then unknown fields with a
    minimal tag and their value as it stands) gives the same bytes. So one unknown field at the end passes, and a
    re-cut of the block's data into other envelopes does not.
    """
    if _is_plain_envelope(content):
        return None
    payload = signature = b""
    unknown = bytearray()
    try:
        for field in scan_fields(content):
            if field.wire_type == _BYTES and field.number == 1:
                payload = field.content
            elif field.wire_type == _BYTES and field.number == 2:
                signature = field.content
            else:
                append_varint(unknown, field.number << 3 | field.wire_type)
                unknown += field.raw
    except DecodeError as error:
        return str(error)
    if not payload:
        return "no payload"
    if not signature:
        return "no signature"
    expected = b"\x0a" + varint(len(payload)) + payload + b"\x12" + varint(len(signature)) + signature + bytes(unknown)
    if len(expected) < len(content):
        return "trailing bytes"
    if expected != content:
        return "not in canonical form"
    return None


def _is_plain_envelope(content: bytes) -> bool:
    """Recognise the form every honest orderer writes without looking at each byte: payload, signature, nothing else."""
    if content[:1] != b"\x0a":
        return False
    try:
        length, start = read_varint(content, 1)
    except DecodeError:
        return False
    end = start + length
    signature_length = len(content) - end - 2
    return (
        length > 0
        and start == 1 + _varint_size(length)
        and 0 < signature_length < 0x80  # as every signature by an elliptic curve
        and content[end] == 0x12
        and content[end + 1] == signature_length
    )


def _varint_size(value: int) -> int:
    return (value.bit_length() + 6) // 7


def parse(message_type: type[M], content: bytes, place: str) -> M:
    """Read one message as Go would; `place` names it in the error.

    Raises DecodeError where Go refuses, apart from limits of our own on the nesting of known messages.
    """
    try:
        return message_type.FromString(content)
    except ProtobufDecodeError:
        pass
    try:
        return message_type.FromString(_plain_form(content, message_type.DESCRIPTOR, 0))
    except (ProtobufDecodeError, DecodeError) as error:
        reason = str(error) if isinstance(error, DecodeError) else "not a message of this type"
        message = f"{place}: {reason}"
        raise DecodeError(message) from None


def parse_in_words_of_go(message_type: type[M], content: bytes) -> M:
    """Read one message as `parse` does; the text of the DecodeError is the one that Go's parser gives.

    Go writes the first space of one of its texts as a no-break space in some builds; here it is always a space.
    Sources: `internal/impl/decode.go` (errDecode), `internal/impl/codec_field.go` (errInvalidUTF8).
    """
    try:
        return parse(message_type, content, message_type.DESCRIPTOR.name)
    except DecodeError:
        pass
    try:
        defect = _text_defect(content, message_type.DESCRIPTOR, 0)
    except DecodeError:
        defect = None
    raise DecodeError(defect or "proto: cannot parse invalid wire-format data")


def _text_defect(content: bytes, descriptor: Descriptor, depth: int) -> str | None:
    """Look for text that is not UTF-8; raises DecodeError where the form is wrong before that."""
    if depth > _MAX_MESSAGE_DEPTH:
        return None
    for field in scan_fields(content):
        known = descriptor.fields_by_number.get(field.number)
        if known is None or field.wire_type != _BYTES:
            continue
        if known.message_type is not None:
            defect = _text_defect(field.content, known.message_type, depth + 1)
            if defect is not None:
                return defect
        elif known.type == FieldDescriptor.TYPE_STRING:
            try:
                field.content.decode()
            except UnicodeDecodeError:
                return "string field contains invalid UTF-8"
    return None


def _plain_form(content: bytes, descriptor: Descriptor, depth: int) -> bytes:
    """Re-encode known fields with minimal tags and drop unknown ones; repeated and merged messages keep their order."""
    if depth > _MAX_MESSAGE_DEPTH:
        message = "messages nested too deep"
        raise DecodeError(message)
    out = bytearray()
    for field in scan_fields(content):
        known = descriptor.fields_by_number.get(field.number)
        if known is None or field.wire_type not in _wire_types(known):
            continue
        append_varint(out, field.number << 3 | field.wire_type)
        if known.message_type is not None:
            inner = _plain_form(field.content, known.message_type, depth + 1)
            append_varint(out, len(inner))
            out += inner
        elif field.wire_type == _BYTES:
            append_varint(out, len(field.content))
            out += field.content
        else:
            out += field.raw
    return bytes(out)


_SCALAR_WIRE_TYPES = {
    FieldDescriptor.TYPE_DOUBLE: _FIXED64,
    FieldDescriptor.TYPE_FIXED64: _FIXED64,
    FieldDescriptor.TYPE_SFIXED64: _FIXED64,
    FieldDescriptor.TYPE_FLOAT: _FIXED32,
    FieldDescriptor.TYPE_FIXED32: _FIXED32,
    FieldDescriptor.TYPE_SFIXED32: _FIXED32,
    FieldDescriptor.TYPE_STRING: _BYTES,
    FieldDescriptor.TYPE_BYTES: _BYTES,
    FieldDescriptor.TYPE_MESSAGE: _BYTES,
}


def _wire_types(field: FieldDescriptor) -> tuple[int, ...]:
    plain = _SCALAR_WIRE_TYPES.get(field.type, _VARINT)
    packable = plain != _BYTES and field.label == FieldDescriptor.LABEL_REPEATED
    return (plain, _BYTES) if packable else (plain,)
