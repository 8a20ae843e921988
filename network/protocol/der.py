"""DER, read as strictly and as leniently as the two readers of Go that Fabric goes through.

`DerReader` follows `golang.org/x/crypto/cryptobyte` (what `crypto/x509` parses certificates with): definite, minimal
lengths and single-byte tags only. `decode_ecdsa_signature` follows `encoding/asn1`, through which every signature
over a message goes (`bccsp/utils/ecdsa.go`): the same strictness inside, but bytes after the two numbers, or after
the sequence, are ignored.
"""

import re
from datetime import UTC, datetime, timedelta
from typing import Final

from network.protocol.errors import DecodeError

BOOLEAN: Final = 0x01
INTEGER: Final = 0x02
BIT_STRING: Final = 0x03
OCTET_STRING: Final = 0x04
OBJECT_IDENTIFIER: Final = 0x06
UTC_TIME: Final = 0x17
GENERALIZED_TIME: Final = 0x18
SEQUENCE: Final = 0x30
SET: Final = 0x31

_TIME = re.compile(rb"(\d{2}|\d{4})(\d{2})(\d{2})(\d{2})(\d{2})(\d{2})?(?:Z|([+-])(\d{2})(\d{2}))", re.ASCII)


def encode_element(tag: int, content: bytes) -> bytes:
    """Encode one element with a minimal definite length."""
    length = len(content)
    if length < 0x80:
        return bytes((tag, length)) + content
    octets = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(octets))) + octets + content


class DerReader:
    """A position in DER content; each `read_*` moves on or raises DecodeError, which names `place`."""

    __slots__ = ("_content", "_place", "_position")

    def __init__(self, content: bytes, place: str) -> None:
        self._content = content
        self._place = place
        self._position = 0

    def fail(self, reason: str) -> DecodeError:
        """Give the error for this place, to be raised."""
        return DecodeError(f"{self._place}: {reason}")

    def empty(self) -> bool:
        """Tell whether everything has been read."""
        return self._position >= len(self._content)

    def next_is(self, tag: int) -> bool:
        """Tell whether the next element has this tag."""
        return self._position < len(self._content) and self._content[self._position] == tag

    def _header(self) -> tuple[int, int, int]:
        content, position = self._content, self._position
        if len(content) - position < 2:
            raise self.fail("ends inside an element")
        tag, length = content[position], content[position + 1]
        start = position + 2
        if tag & 0x1F == 0x1F:
            raise self.fail("tag of more than one byte")
        if length & 0x80:
            count = length & 0x7F
            octets = content[start : start + count]
            if not 1 <= count <= 4 or len(octets) < count:
                raise self.fail("length that DER does not allow")
            length = int.from_bytes(octets, "big")
            if length < 0x80 or octets[0] == 0:
                raise self.fail("length that is not minimal")
            start += count
        end = start + length
        if end > len(content):
            raise self.fail("ends inside an element")
        return tag, start, end

    def read_any(self) -> tuple[int, bytes]:
        """Read one element; give its tag and content."""
        tag, start, end = self._header()
        self._position = end
        return tag, self._content[start:end]

    def read(self, tag: int) -> bytes:
        """Read one element of this tag; give its content."""
        found, start, end = self._header()
        if found != tag:
            raise self.fail(f"tag {found:#04x} instead of {tag:#04x}")
        self._position = end
        return self._content[start:end]

    def read_whole(self, tag: int) -> bytes:
        """Read one element of this tag; give it with its header."""
        position = self._position
        self.read(tag)
        return self._content[position : self._position]

    def read_optional(self, tag: int) -> bytes | None:
        """Read one element when its tag is the next one; else give None."""
        return self.read(tag) if self.next_is(tag) else None

    def inside(self, tag: int) -> "DerReader":
        """Read one element of this tag; give a reader of its content."""
        return DerReader(self.read(tag), self._place)

    def read_integer(self) -> int:
        """Read a minimally encoded signed INTEGER."""
        content = self.read(INTEGER)
        if not content or (len(content) > 1 and content[0] in (0, 0xFF) and (content[0] ^ content[1]) < 0x80):
            raise self.fail("INTEGER that is not minimal")
        return int.from_bytes(content, "big", signed=True)

    def read_boolean(self) -> bool:
        """Read a BOOLEAN in its DER form."""
        content = self.read(BOOLEAN)
        if content not in (b"\x00", b"\xff"):
            raise self.fail("BOOLEAN that is neither 00 nor ff")
        return content == b"\xff"

    def read_object_identifier(self) -> bytes:
        """Read an OBJECT IDENTIFIER; give its content bytes."""
        content = self.read(OBJECT_IDENTIFIER)
        starts = [index for index in range(len(content)) if index == 0 or content[index - 1] < 0x80]
        if not content or content[-1] >= 0x80 or any(content[index] == 0x80 for index in starts):
            raise self.fail("malformed OBJECT IDENTIFIER")
        return content

    def read_bit_string(self) -> tuple[bytes, int]:
        """Read a BIT STRING; give its bytes and the number of unused bits at their end."""
        content = self.read(BIT_STRING)
        unused = content[0] if content else 8
        octets = content[1:]
        if unused > 7 or (unused and (not octets or octets[-1] & ((1 << unused) - 1))):
            raise self.fail("malformed BIT STRING")
        return octets, unused

    def read_time(self) -> int:
        """Read a UTCTime or GeneralizedTime; give it in whole seconds since 1970."""
        tag, content = self.read_any()
        match = _TIME.fullmatch(content)
        if tag not in (UTC_TIME, GENERALIZED_TIME) or match is None:
            raise self.fail("malformed time")
        year_digits, month, day, hour, minute, second, sign, offset_hour, offset_minute = match.groups()
        # Go takes a UTCTime without seconds as well (golang issue 8854), a GeneralizedTime not; and no offset of zero
        # but Z.
        if len(year_digits) != (2 if tag == UTC_TIME else 4) or (second is None and tag != UTC_TIME):
            raise self.fail("malformed time")
        year = int(year_digits)
        if tag == UTC_TIME:
            year += 1900 if year >= 50 else 2000  # RFC 5280, 4.1.2.5.1
        try:
            moment = datetime(year, int(month), int(day), int(hour), int(minute), int(second or 0), tzinfo=UTC)
        except ValueError as error:
            raise self.fail("malformed time") from error
        seconds = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(seconds=1)
        if sign is None:
            return seconds
        offset = int(offset_hour) * 3600 + int(offset_minute) * 60
        if offset == 0 or int(offset_hour) > 24 or int(offset_minute) > 59:
            raise self.fail("malformed time")
        return seconds - offset if sign == b"+" else seconds + offset


def right_align(octets: bytes, unused: int) -> bytes:
    """Shift the bits of a BIT STRING so that the unused ones fall off its end."""
    return (int.from_bytes(octets, "big") >> unused).to_bytes(len(octets), "big") if unused else octets


def decode_ecdsa_signature(signature: bytes) -> tuple[int, int]:
    """Read the numbers r and s of a signature; raises DecodeError unless both are positive.

    Source: `bccsp/utils/ecdsa.go` UnmarshalECDSASignature, which ignores what follows the numbers and the sequence.
    """
    reader = DerReader(signature, "ECDSA signature").inside(SEQUENCE)
    r, s = reader.read_integer(), reader.read_integer()
    if r <= 0 or s <= 0:
        raise reader.fail("a number that is not positive")
    return r, s


def encode_ecdsa_signature(r: int, s: int) -> bytes:
    """Encode a signature in its only DER form."""
    numbers = [encode_element(INTEGER, number.to_bytes(number.bit_length() // 8 + 1, "big")) for number in (r, s)]
    return encode_element(SEQUENCE, b"".join(numbers))
