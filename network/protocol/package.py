"""Chaincode packages: a gzipped tar of `metadata.json` and `code.tar.gz`, named by its label and hash.

Built packages are the same bytes for the same input on every machine: times and owners are zero, and nothing is
compressed, since what a compressor writes differs from one version of it to the next.

Rules: `core/chaincode/persistence/chaincode_package.go` (ParseChaincodePackage: what is a package, and the texts),
`core/chaincode/persistence/persistence.go` (PackageID), `core/container/externalbuilder/tar.go` (the code inside),
`archive/tar` and `compress/gzip` of Go (what can be read), `ccaas_builder` (`connection.json`).
"""

import json
import re
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from hashlib import sha256
from io import BytesIO
from posixpath import normpath
from struct import pack
from typing import Final, NamedTuple

from network.protocol import limits
from network.protocol.errors import PackageError

METADATA_FILE: Final = "metadata.json"
CODE_FILE: Final = "code.tar.gz"
CONNECTION_FILE: Final = "connection.json"
SERVICE_TYPE: Final = "ccaas"
"""Type of a chaincode that runs as a server of its own; its code is nothing but a `connection.json`."""

_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")
_SURROGATE = re.compile("[\ud800-\udfff]")
_REGULAR = (tarfile.REGTYPE, tarfile.AREGTYPE)
_BLOCK = tarfile.BLOCKSIZE
_GZIP_MAGIC = b"\x1f\x8b\x08"
_GZIP_HEADER_BYTES = 10
_RECORD = re.compile(rb"([0-9]{1,10}) ")
_NUMBER = re.compile(rb"[0-9]{1,18}")
_LINE_END = 0x0A
_MAX_EXTENDED_BYTES = 1024 * 1024
"""As Go's reader has it (`archive/tar`, maxSpecialFileSize)."""
_MAX_STORED = 0xFFFF
_MAX_SHOWN_NAME = 255


class PackageMetadata(NamedTuple):
    """What a package says of itself; `path` means something to some types of code only."""

    chaincode_type: str
    path: str
    label: str


class Package(NamedTuple):
    """A package, read; `code` is its code package as it stands."""

    metadata: PackageMetadata
    code: bytes


class _Extended(NamedTuple):
    """What stands in front of a header to replace parts of it."""

    name: str | None
    size: int | None


_NOT_EXTENDED = _Extended(None, None)


def package_id(label: str, content: bytes) -> str:
    """Name an installed package: its label and the SHA-256 of its bytes in hex."""
    return f"{label}:{sha256(content).hexdigest()}"


def check_label(label: str) -> None:
    """Check that a label can name a package; raises PackageError with Fabric's text."""
    if not _LABEL.fullmatch(label):
        raise PackageError(
            f"invalid label '{label[:_MAX_SHOWN_NAME]}'. Label must be non-empty, can only consist of alphanumerics, "
            "symbols from '.+-_', and can only begin with alphanumerics"
        )


# --- building


def build_package(label: str, chaincode_type: str, code_files: Mapping[str, bytes]) -> bytes:
    """Build a package; `code_files` by their path inside the code package.

    Raises PackageError for a label that Fabric refuses and for a path that is absolute or leads outside.
    """
    check_label(label)
    for name in code_files:
        _check_path(name)
    metadata = json.dumps({"path": "", "type": chaincode_type, "label": label}, separators=(",", ":"))
    return _archive({METADATA_FILE: metadata.encode(), CODE_FILE: _archive(dict(sorted(code_files.items())))})


def build_service_package(label: str, connection: Mapping[str, object]) -> bytes:
    """Build the package of a chaincode that runs as a server; `connection` as its `connection.json` is to hold it.

    Fields: `address` ("host:port"), and where needed `dial_timeout` ("10s"), `tls_required`, `client_auth_required`,
    `root_cert`, `client_cert`, `client_key` (PEM texts).
    """
    content = json.dumps(connection, separators=(",", ":"), sort_keys=True)
    return build_package(label, SERVICE_TYPE, {CONNECTION_FILE: content.encode()})


def _archive(files: Mapping[str, bytes]) -> bytes:
    out = BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, BytesIO(content))
    return _stored(out.getvalue())


def _stored(content: bytes) -> bytes:
    """Wrap bytes as gzip (RFC 1952) of uncompressed blocks (RFC 1951, 3.2.4); no name, no time, system unknown."""
    out = bytearray(b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff")
    for start in range(0, len(content), _MAX_STORED):
        part = content[start : start + _MAX_STORED]
        is_last = start + _MAX_STORED >= len(content)
        out += pack("<BHH", is_last, len(part), len(part) ^ _MAX_STORED) + part
    out += pack("<II", zlib.crc32(content), len(content) & 0xFFFFFFFF)
    return bytes(out)


# --- reading


def read_package(content: bytes, *, max_unpacked_bytes: int = limits.MAX_UNPACKED_PACKAGE_BYTES) -> Package:
    """Read a package; raises PackageError, with Fabric's text where Fabric refuses it too.

    Refused: any entry that is no regular file, in front of what is missing (code, then metadata), in front of the
    label. Tolerated, as Fabric does: entries with other names, and a name given twice (the last one counts). Stricter
    than Fabric: nothing may follow the archive in its gzip stream, and size and number of the entries are bounded
    (`network.protocol.limits`). The code is not looked into (`check_code`).
    """
    code = metadata = None
    for name, kind, entry in _entries(_unpack(content, max_unpacked_bytes)):
        if kind not in _REGULAR:
            raise PackageError(f"tar entry {name[:_MAX_SHOWN_NAME]} is not a regular file, type {kind[0]}")
        if name == METADATA_FILE:
            metadata = _read_metadata(entry)
        elif name == CODE_FILE:
            code = entry
    if code is None:
        raise PackageError("did not find a code package inside the package")
    if metadata is None:
        raise PackageError(f"did not find any package metadata (missing {METADATA_FILE})")
    check_label(metadata.label)
    return Package(metadata, code)


def read_code(content: bytes, *, max_unpacked_bytes: int = limits.MAX_UNPACKED_PACKAGE_BYTES) -> dict[str, bytes]:
    """Read the files of a code package by their path, as an external builder is given them.

    Raises PackageError where it cannot be read, and for an entry that is neither file nor folder or leads outside.
    """
    files = {}
    for name, kind, entry in _entries(_unpack(content, max_unpacked_bytes)):
        path = _check_path(name)
        if kind in _REGULAR:
            files[path] = entry
        elif kind != tarfile.DIRTYPE:
            shown = name[:_MAX_SHOWN_NAME]
            raise PackageError(f"invalid file type '{kind[0]}' contained in archive for file '{shown}'")
    return files


def check_code(content: bytes, *, max_unpacked_bytes: int = limits.MAX_UNPACKED_PACKAGE_BYTES) -> None:
    """Check that a code package can be unpacked, as a peer does before it installs one; what is inside does not matter.

    Raises PackageError with Fabric's text (`core/common/ccprovider/targzmetadataprovider.go`).
    """
    try:
        for _ in _entries(_unpack(content, max_unpacked_bytes)):
            pass
    except PackageError as error:
        text = str(error)
        reason = text.partition(": ")[2] or text
        raise PackageError(f"error retrieving DB artifacts from code package: {reason}") from error


def _check_path(name: str) -> str:
    path = normpath(name)
    if path.startswith(("/", "../")) or path == "..":
        raise PackageError(f"tar contains the absolute or escaping path '{name[:_MAX_SHOWN_NAME]}'")
    return path


def _unpack(content: bytes, max_bytes: int) -> bytes:
    """Undo gzip, all members of it, within a number of bytes."""
    if not content:
        raise PackageError("error reading as gzip stream: EOF")
    if len(content) < _GZIP_HEADER_BYTES:
        raise PackageError("error reading as gzip stream: unexpected EOF")
    if not content.startswith(_GZIP_MAGIC):
        raise PackageError("error reading as gzip stream: gzip: invalid header")
    out = bytearray()
    while content:
        member = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
        try:
            out += member.decompress(content, max_bytes + 1 - len(out))
        except zlib.error:
            raise _unreadable("gzip: invalid data") from None
        if len(out) > max_bytes:
            raise PackageError(f"package of more than {max_bytes} bytes when unpacked")
        if not member.eof:
            raise _unreadable("unexpected EOF")
        content = member.unused_data
    return bytes(out)


def _entries(archive: bytes) -> Iterator[tuple[str, bytes, bytes]]:
    """Give name, type flag and content of each entry of a tar, up to its end mark or the end of the bytes.

    `tarfile` reads single headers here: reading whole archives it takes a broken header for the end of the archive.
    """
    position = count = 0
    extended = _NOT_EXTENDED
    while position < len(archive):
        block = archive[position : position + _BLOCK]
        position += _BLOCK
        if len(block) < _BLOCK:
            raise _unreadable("unexpected EOF")
        if not any(block):
            if any(archive[position : position + _BLOCK]):
                raise _unreadable("archive/tar: invalid tar header")
            break
        count += 1
        if count > limits.MAX_PACKAGE_ENTRIES:
            raise PackageError(f"more than {limits.MAX_PACKAGE_ENTRIES} entries in a package")
        header = _read_header(block)
        kind = header.type
        size = header.size if extended.size is None else extended.size
        if kind == tarfile.DIRTYPE:
            size = 0
        content = archive[position : position + size]
        if size < 0 or len(content) < size:
            raise _unreadable("unexpected EOF")
        position += -(-size // _BLOCK) * _BLOCK
        if kind == tarfile.XHDTYPE:
            extended = _read_extended(content)
        elif kind == tarfile.GNUTYPE_LONGNAME:
            extended = extended._replace(name=content.split(b"\0", 1)[0].decode(errors="replace"))
        elif kind != tarfile.GNUTYPE_LONGLINK:
            yield extended.name or header.name, kind, content
            extended = _NOT_EXTENDED
    if extended != _NOT_EXTENDED:
        raise _unreadable("unexpected EOF")


def _read_header(block: bytes) -> tarfile.TarInfo:
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "replace")
    except tarfile.HeaderError:
        raise _unreadable("archive/tar: invalid tar header") from None


def _read_extended(content: bytes) -> _Extended:
    """Read the records "length name=value" of a pax header (POSIX.1-2001, pax, 3.2)."""
    if len(content) > _MAX_EXTENDED_BYTES:
        raise _unreadable("archive/tar: header field too long")
    found, position = _NOT_EXTENDED, 0
    while position < len(content):
        record = _RECORD.match(content, position)
        end = position + int(record[1]) if record else 0
        if record is None or not record.end() < end <= len(content) or content[end - 1] != _LINE_END:
            raise _unreadable("archive/tar: invalid tar header")
        name, _, value = content[record.end() : end - 1].partition(b"=")
        if name == b"path":
            found = found._replace(name=value.decode(errors="replace"))
        elif name == b"size":
            if not _NUMBER.fullmatch(value):
                raise _unreadable("archive/tar: invalid tar header")
            found = found._replace(size=int(value))
        elif name.startswith(b"GNU.sparse."):
            raise PackageError("a sparse file in a package")
        position = end
    return found


def _read_metadata(content: bytes) -> PackageMetadata:
    """Read metadata as Go does: names of fields in any case, the last of two counts, null changes nothing."""
    if len(content) > limits.MAX_PACKAGE_METADATA_BYTES:
        raise _no_metadata(f"more than {limits.MAX_PACKAGE_METADATA_BYTES} bytes")
    try:
        # Objects become tuples of pairs, so that they differ from arrays and no field hides another.
        fields = json.loads(content.decode(errors="replace"), object_pairs_hook=tuple, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise _no_metadata("not JSON") from None
    if fields is None:
        return PackageMetadata("", "", "")
    if not isinstance(fields, tuple):
        raise _no_metadata("no object")
    found = {"type": "", "path": "", "label": ""}
    for name, value in fields:
        known = name.lower()
        if known not in found or value is None:
            continue
        if not isinstance(value, str):
            raise _no_metadata(f"{known} is no text")
        found[known] = _SURROGATE.sub("\N{REPLACEMENT CHARACTER}", value)
    return PackageMetadata(found["type"], found["path"], found["label"])


def _no_constant(name: str) -> object:
    raise ValueError(name)


def _no_metadata(reason: str) -> PackageError:
    return PackageError(f"could not unmarshal {METADATA_FILE} as json: {reason}")


def _unreadable(reason: str) -> PackageError:
    return PackageError(f"error inspecting next tar header: {reason}")
