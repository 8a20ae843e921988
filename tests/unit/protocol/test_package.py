import gzip
import io
import json
import tarfile
import zlib
from collections.abc import Callable
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from network.protocol import limits
from network.protocol.errors import PackageError
from network.protocol.package import (
    PackageMetadata,
    build_package,
    build_service_package,
    check_code,
    package_id,
    read_code,
    read_package,
)

METADATA = b'{"path":"","type":"ccaas","label":"ext_1.0"}'
FILES = {"connection.json": b'{"address":"localhost:9999"}'}
Entry = tuple[str, bytes] | tarfile.TarInfo


def packed(*entries: Entry, form: int = tarfile.PAX_FORMAT, headers: dict[str, str] | None = None) -> bytes:
    """A package as any tar and gzip would write it."""
    return gzip.compress(archive(*entries, form=form, headers=headers))


def archive(*entries: Entry, form: int = tarfile.PAX_FORMAT, headers: dict[str, str] | None = None) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form, pax_headers=headers) as tar:
        for entry in entries:
            if isinstance(entry, tarfile.TarInfo):
                tar.addfile(entry)
            else:
                info = tarfile.TarInfo(entry[0])
                info.size = len(entry[1])
                tar.addfile(info, io.BytesIO(entry[1]))
    return out.getvalue()


GOOD: tuple[Entry, ...] = (("metadata.json", METADATA), ("code.tar.gz", b"code"))


def special(kind: bytes, name: str = "else") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.linkname = "target" if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
    return info


def refusal(content: bytes) -> str:
    with pytest.raises(PackageError) as refused:
        read_package(content)
    return str(refused.value)


# --- building


def test_a_package_is_the_same_bytes_whenever_and_wherever_it_is_built() -> None:
    content = build_package("ext_1.0", "ccaas", {"b": b"2", "a": b"1"})

    assert content == build_package("ext_1.0", "ccaas", {"a": b"1", "b": b"2"})
    assert sha256(content).hexdigest() == "2f4a7cfd7946e1193877a1abd5b64015a30935ed6a10740713fcf90a3e832b06"


def test_a_package_is_read_as_it_was_built() -> None:
    package = read_package(build_package("ext_1.0", "golang", {"src/main.go": b"package main", "go.mod": b""}))

    assert package.metadata == PackageMetadata("golang", "", "ext_1.0")
    assert read_code(package.code) == {"go.mod": b"", "src/main.go": b"package main"}


@pytest.mark.parametrize("size", [0, 0xFFFF - 1, 0xFFFF, 0xFFFF + 1, 3 * 0xFFFF])
def test_other_programs_can_unpack_what_was_built(size: int) -> None:
    content = build_package("ext", "golang", {"large": bytes(size)})

    with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as outer:
        assert outer.getnames() == ["metadata.json", "code.tar.gz"]
        assert all((entry.mtime, entry.uid, entry.gid, entry.mode) == (0, 0, 0, 0o644) for entry in outer)
        code = outer.extractfile("code.tar.gz")
        assert code is not None
        inner = gzip.decompress(code.read())
    with tarfile.open(fileobj=io.BytesIO(inner)) as files:
        large = files.extractfile("large")
        assert large is not None
        assert large.read() == bytes(size)


def test_a_service_package_holds_its_connection_and_nothing_else() -> None:
    package = read_package(build_service_package("ext_1.0", {"dial_timeout": "10s", "address": "localhost:9999"}))

    assert package.metadata.chaincode_type == "ccaas"
    assert read_code(package.code) == {"connection.json": b'{"address":"localhost:9999","dial_timeout":"10s"}'}


def test_a_package_is_named_by_its_label_and_its_bytes() -> None:
    assert package_id("ext_1.0", b"content") == "ext_1.0:" + sha256(b"content").hexdigest()


@pytest.mark.parametrize("label", ["", "-ext", "_ext", ".ext", "ext 1", "ext/1", "éxt", "ext\n", "ext:1"])
def test_a_label_that_fabric_refuses_is_neither_built_nor_read(label: str) -> None:
    text = f"invalid label '{label}'. Label must be non-empty, can only consist of alphanumerics, symbols from '.+-_'"
    metadata = json.dumps({"type": "ccaas", "label": label}).encode()

    with pytest.raises(PackageError) as refused:
        build_package(label, "ccaas", {})

    assert str(refused.value).startswith(text)
    assert refusal(packed(("metadata.json", metadata), ("code.tar.gz", b"code"))) == str(refused.value)


@pytest.mark.parametrize("label", ["e", "9", "Ext_1.0+build-7", "a" * 300])
def test_labels_that_fabric_takes_are_taken(label: str) -> None:
    assert read_package(build_package(label, "ccaas", {})).metadata.label == label


@pytest.mark.parametrize("path", ["/etc/passwd", "../outside", "inside/../../outside", ".."])
def test_paths_that_lead_outside_are_neither_built_nor_read(path: str) -> None:
    with pytest.raises(PackageError, match="absolute or escaping path"):
        build_package("ext", "golang", {path: b""})
    with pytest.raises(PackageError, match="absolute or escaping path"):
        read_code(packed((path, b"")))


# --- reading


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_packages_of_every_tar_are_read(form: int) -> None:
    package = read_package(packed(("unknown", b"x" * 1000), *GOOD, ("else", b"y"), form=form))

    assert package.metadata == PackageMetadata("ccaas", "", "ext_1.0")
    assert package.code == b"code"


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_are_read_and_do_not_stick(form: int) -> None:
    long_name = "folder/" + "n" * 200

    assert read_code(packed((long_name, b"1"), ("é" * 60, b"2"), ("short", b"3"), form=form)) == {
        long_name: b"1",
        "é" * 60: b"2",
        "short": b"3",
    }


def test_a_long_target_of_a_link_names_nothing() -> None:
    link = special(tarfile.SYMTYPE, "link")
    link.linkname = "t" * 200

    with pytest.raises(PackageError, match="invalid file type '50' contained in archive for file 'link'"):
        read_code(packed(link, form=tarfile.GNU_FORMAT))


def test_a_size_in_an_extended_header_counts() -> None:
    info = tarfile.TarInfo("name")
    info.pax_headers = {"size": "3"}
    content = archive(info)
    assert content.count(b"size=3") == 1
    end = content.rindex(b"name\0") + 512
    content = content[:end] + b"abc".ljust(512, b"\0") + content[end:]

    assert read_code(gzip.compress(content)) == {"name": b"abc"}


def test_the_last_of_two_entries_counts() -> None:
    content = packed(("code.tar.gz", b"first"), ("metadata.json", b'{"label":"first"}'), *GOOD)

    assert read_package(content) == read_package(packed(*GOOD))


@pytest.mark.parametrize(
    ("kind", "number"),
    [
        (tarfile.DIRTYPE, 53),
        (tarfile.SYMTYPE, 50),
        (tarfile.LNKTYPE, 49),
        (tarfile.FIFOTYPE, 54),
        (tarfile.CHRTYPE, 51),
        (tarfile.BLKTYPE, 52),
        (tarfile.CONTTYPE, 55),
        (tarfile.GNUTYPE_SPARSE, 83),
        (b"Z", 90),
    ],
)
def test_an_entry_that_is_no_regular_file_is_refused_wherever_it_stands(kind: bytes, number: int) -> None:
    text = f"tar entry else is not a regular file, type {number}"

    assert refusal(packed(*GOOD, special(kind))) == text
    assert refusal(packed(special(kind))) == text


def test_a_global_header_is_no_regular_file() -> None:
    assert refusal(packed(*GOOD, headers={"comment": "made by a version control"})).endswith(
        "is not a regular file, type 103"
    )


def test_an_old_folder_is_no_regular_file() -> None:
    assert "type 53" in refusal(packed(*GOOD, special(tarfile.AREGTYPE, "folder/")))


def test_a_sparse_file_of_a_later_kind_is_refused() -> None:
    info = tarfile.TarInfo("metadata.json")
    info.pax_headers = {"GNU.sparse.major": "1"}

    assert refusal(packed(info)) == "a sparse file in a package"


def test_missing_code_is_reported_before_missing_metadata_before_a_bad_label() -> None:
    assert refusal(packed()) == "did not find a code package inside the package"
    assert refusal(packed(("metadata.json", b'{"label":"-"}'))) == "did not find a code package inside the package"
    assert refusal(packed(("code.tar.gz", b""))) == "did not find any package metadata (missing metadata.json)"
    assert refusal(packed(("code.tar.gz", b""), ("metadata.json", b"{}"))).startswith("invalid label ''")


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        (b'{"Type":"a","PATH":"b","lAbEl":"c"}', PackageMetadata("a", "b", "c")),
        (b'{"label":"a","label":"c"}', PackageMetadata("", "", "c")),
        (b'{"label":"c","type":null,"other":{"label":[7]}}', PackageMetadata("", "", "c")),
        (b'{"label":"c","type":"\xff"}', PackageMetadata("\ufffd", "", "c")),
        (b'{"label":"c","path":"\\ud800"}', PackageMetadata("", "\ufffd", "c")),
    ],
)
def test_metadata_is_read_as_go_reads_it(metadata: bytes, expected: PackageMetadata) -> None:
    assert read_package(packed(("code.tar.gz", b""), ("metadata.json", metadata))).metadata == expected


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b'{"label":NaN}', "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "no object"),
        (b'"text"', "no object"),
        (b'{"label":7}', "label is no text"),
        (b'{"type":{}}', "type is no text"),
        (b" " * (limits.MAX_PACKAGE_METADATA_BYTES + 1), f"more than {limits.MAX_PACKAGE_METADATA_BYTES} bytes"),
    ],
    ids=str,
)
def test_metadata_that_go_cannot_read_is_refused(metadata: bytes, reason: str) -> None:
    text = f"could not unmarshal metadata.json as json: {reason}"

    assert refusal(packed(("metadata.json", metadata), ("code.tar.gz", b""))) == text


def test_metadata_that_is_null_has_no_label() -> None:
    assert refusal(packed(("metadata.json", b"null"), ("code.tar.gz", b""))).startswith("invalid label ''")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "error reading as gzip stream: EOF"),
        (b"PK\x03\x04", "error reading as gzip stream: unexpected EOF"),
        (b"PK\x03\x04" + bytes(6), "error reading as gzip stream: gzip: invalid header"),
        (archive(*GOOD), "error reading as gzip stream: gzip: invalid header"),
    ],
    ids=["nothing", "the start of a zip", "zip", "tar"],
)
def test_what_is_not_gzipped_is_refused(content: bytes, text: str) -> None:
    assert refusal(content) == text


def test_every_cut_of_a_package_is_refused() -> None:
    content = packed(*GOOD)

    for end in range(len(content)):
        with pytest.raises(PackageError):
            read_package(content[:end])


def test_every_cut_of_the_archive_inside_is_refused() -> None:
    content = archive(*GOOD)
    last = content.index(b"code.tar.gz") + 512 + len(b"code")

    for end in range(1, last):
        with pytest.raises(PackageError):
            read_package(gzip.compress(content[:end], 1))


def test_a_broken_header_is_not_taken_for_the_end() -> None:
    content = archive(*GOOD)
    third = content.index(b"code.tar.gz") + 1024

    broken = content[:third] + b"\1" * 512 + content[third + 512 :]

    assert refusal(gzip.compress(broken)) == "error inspecting next tar header: archive/tar: invalid tar header"


def test_one_empty_block_is_no_end() -> None:
    content = archive(*GOOD)
    third = content.index(b"code.tar.gz") + 1024

    assert "invalid tar header" in refusal(gzip.compress(content[:third] + bytes(512) + content))
    assert read_package(gzip.compress(content[:third] + bytes(1024) + content)) == read_package(packed(*GOOD))
    assert read_package(gzip.compress(content[:third])) == read_package(packed(*GOOD))


def test_a_name_without_its_entry_is_refused() -> None:
    content = archive(("n" * 200, b""), form=tarfile.GNU_FORMAT)

    with pytest.raises(PackageError, match="unexpected EOF"):
        read_code(gzip.compress(content[:1024]))


@pytest.mark.parametrize(
    "records",
    [
        b"7 path=",
        b"99 path=a\n",
        b"path=a\n",
        b"0 \n",
        b"9 path=ab",
        b"11 size=-1\n",
        b"11 size=1x\n",
        b"9" * 30 + b" a=b\n",
    ],
)
def test_extended_headers_that_are_none_are_refused(records: bytes) -> None:
    with pytest.raises(PackageError, match="invalid tar header"):
        read_code(with_extended_header(records))


def with_extended_header(records: bytes) -> bytes:
    header = tarfile.TarInfo("PaxHeader")
    header.type, header.size = tarfile.XHDTYPE, len(records)
    padded = records + bytes(-len(records) % 512)
    return gzip.compress(header.tobuf(tarfile.USTAR_FORMAT) + padded + archive(("name", b"")), 1)


def test_an_extended_header_is_read_once_from_end_to_end_and_no_larger_than_go_reads() -> None:
    records = b"6 a=b\n" * (1024 * 1024 // 6)

    assert read_code(with_extended_header(records)) == {"name": b""}
    with pytest.raises(PackageError, match="header field too long"):
        read_code(with_extended_header(records + b"6 a=b\n"))


def test_a_negative_size_is_refused() -> None:
    info = tarfile.TarInfo("name")
    info.size = -512

    with pytest.raises(PackageError, match="unexpected EOF"):
        read_code(gzip.compress(info.tobuf(tarfile.GNU_FORMAT)))


def test_all_members_of_a_gzip_stream_count() -> None:
    content = archive(*GOOD)

    assert read_package(gzip.compress(content[:700]) + gzip.compress(content[700:])) == read_package(packed(*GOOD))


def test_what_follows_the_stream_is_refused() -> None:
    assert "invalid data" in refusal(packed(*GOOD) + b"more")


def test_a_damaged_stream_is_refused() -> None:
    content = bytearray(packed(*GOOD))
    content[-5] ^= 1  # its checksum

    assert "invalid data" in refusal(bytes(content))


def test_a_bomb_is_refused_before_it_goes_off() -> None:
    bomb = zlib.compressobj(9, wbits=31)
    zeros = bytes(1024 * 1024)
    content = b"".join([bomb.compress(zeros) for _ in range(64)]) + bomb.flush()

    with pytest.raises(PackageError, match="package of more than 1000000 bytes when unpacked"):
        read_package(content, max_unpacked_bytes=1_000_000)
    with pytest.raises(PackageError, match="more than 1000000 bytes"):
        read_code(content, max_unpacked_bytes=1_000_000)


def test_the_limit_is_what_still_fits() -> None:
    content = archive(*GOOD)

    assert read_package(gzip.compress(content), max_unpacked_bytes=len(content)).code == b"code"
    with pytest.raises(PackageError, match="bytes when unpacked"):
        read_package(gzip.compress(content), max_unpacked_bytes=len(content) - 1)


def test_entries_without_end_are_refused() -> None:
    header = tarfile.TarInfo("name").tobuf(tarfile.USTAR_FORMAT)

    with pytest.raises(PackageError, match=f"more than {limits.MAX_PACKAGE_ENTRIES} entries"):
        read_code(gzip.compress(header * (limits.MAX_PACKAGE_ENTRIES + 1)))


def test_a_folder_has_no_content_whatever_size_it_claims() -> None:
    folder = special(tarfile.DIRTYPE, "src")
    folder.size = 5000

    assert read_code(gzip.compress(folder.tobuf() + archive(("name", b"1")))) == {"name": b"1"}


def test_code_that_a_peer_could_not_unpack_is_found_out() -> None:
    check_code(packed(("META-INF/statedb/index.json", b"{}"), special(tarfile.SYMTYPE)))

    for content, reason in {
        b"": "EOF",
        b"plain": "unexpected EOF",
        b"plain text": "gzip: invalid header",
        packed(("name", b"1"))[:-9]: "unexpected EOF",
        gzip.compress(b"\1" * 512): "archive/tar: invalid tar header",
    }.items():
        with pytest.raises(PackageError) as refused:
            check_code(content)
        assert str(refused.value) == f"error retrieving DB artifacts from code package: {reason}"
    with pytest.raises(PackageError, match="package of more than 100 bytes when unpacked"):
        check_code(packed(), max_unpacked_bytes=100)


def test_folders_of_a_code_package_are_passed_over() -> None:
    assert read_code(packed(special(tarfile.DIRTYPE, "src"), ("./src//main.go", b"main"))) == {"src/main.go": b"main"}


@given(st.binary(max_size=2000), st.sampled_from([bytes, gzip.compress]))
def test_any_bytes_are_refused_with_an_error_of_ours(content: bytes, form: Callable[[bytes], bytes]) -> None:
    for read in (read_package, read_code):
        try:
            found = read(form(content))
        except PackageError:
            continue
        assert found == {}  # an archive of nothing


@given(st.integers(0, 3 * 512 - 1), st.integers(1, 255))
def test_one_changed_byte_is_noticed_or_harmless(position: int, change: int) -> None:
    content = bytearray(archive(*GOOD))
    content[position] ^= change

    try:
        read_package(gzip.compress(bytes(content), 1))
    except PackageError:
        return
