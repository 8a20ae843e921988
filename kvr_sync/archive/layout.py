"""Where things are: `DIR/<channel>/<first number>-<header hash>.segment`, and who holds it."""

import errno
import fcntl
import json
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple

from kvr_sync.archive.limits import MAX_HOLDER_BYTES
from kvr_sync.errors import (
    ArchiveDamagedError,
    ArchiveError,
    ArchiveFullError,
    ArchiveInUseError,
    ArchiveUnavailableError,
    ConfigurationError,
)
from kvr_sync.store.channel_name import check_channel_id

LOCK_FILE: Final = ".lock"
_SEGMENT: Final = re.compile(r"([0-9]{20})-([0-9a-f]{16})\.segment")
_FULL: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_REFUSED: Final = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG}


class SegmentFile(NamedTuple):
    """A segment as its name says: number and the first 16 hex digits of the header hash of its first block."""

    path: Path
    first_number: int
    hash_prefix: str


def channel_folder(directory: Path, channel: str) -> Path:
    """Give the folder of a channel.

    A channel id that Fabric accepts is a safe file name as it stands: small letters, digits, "-" and ".", a letter
    first, shorter than any file system's limit. Raises ConfigurationError for any other.
    """
    check_channel_id(channel)
    return directory / channel


def segment_path(folder: Path, first_number: int, header_hash: bytes) -> Path:
    """Give the file of a segment that begins with this block."""
    return folder / f"{first_number:020d}-{header_hash.hex()[:16]}.segment"


def list_segments(folder: Path) -> list[SegmentFile]:
    """Give the segments of a channel's folder by number; other files are none of ours.

    Raises ArchiveDamagedError for two that begin with the same block.
    """
    found = []
    with file_errors(folder):
        for entry in os.scandir(folder):
            match = _SEGMENT.fullmatch(entry.name)
            if match is not None and entry.is_file():
                found.append(SegmentFile(Path(entry.path), int(match[1]), match[2]))
    found.sort(key=lambda segment: segment.first_number)
    for segment, following in pairwise(found):
        if segment.first_number == following.first_number:
            raise ArchiveDamagedError(
                f"{following.path}: begins with the same block as {segment.path.name}; one of the two does not"
                " belong here"
            )
    return found


def list_channels(directory: Path) -> list[Path]:
    """Give the folders of a directory that hold segments, by name; a disk of its own may have others in it."""
    with file_errors(directory):
        folders = [Path(entry.path) for entry in os.scandir(directory) if entry.is_dir() and _is_channel(entry.name)]
    return sorted(folder for folder in folders if list_segments(folder))


def _is_channel(name: str) -> bool:
    try:
        check_channel_id(name)
    except ConfigurationError:
        return False
    return True


def find_archive(path: Path) -> Path | None:
    """Give the channel's folder that a path means: itself, or the only one in it; None where no archive is.

    Raises ConfigurationError where a directory holds several channels.
    """
    if list_segments(path):
        return path
    folders = list_channels(path)
    if len(folders) > 1:
        names = ", ".join(folder.name for folder in folders)
        raise ConfigurationError(f"{path} is the archive of several channels; name one of these folders in it: {names}")
    return folders[0] if folders else None


@contextmanager
def file_errors(place: Path) -> Iterator[None]:
    """Translate what the file system refuses; `place` begins the message."""
    try:
        yield
    except OSError as error:
        kind: type[ArchiveError | ConfigurationError] = ArchiveUnavailableError
        if error.errno in _FULL:
            kind = ArchiveFullError
        elif error.errno in _REFUSED:
            kind = ConfigurationError
        raise kind(f"{place}: {error.strerror or 'the file system failed'}") from error


def lock(folder: Path) -> int:
    """Take the lock of a channel's folder, which is the kernel's and ends with the process; give its descriptor.

    Raises ArchiveInUseError, with what the holder wrote of itself.
    """
    path = folder / LOCK_FILE
    with file_errors(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(descriptor, 0)
            os.write(descriptor, json.dumps({"process": os.getpid(), "host": socket.gethostname()}).encode())
        except BlockingIOError:
            holder = _holder(descriptor)
            os.close(descriptor)
            raise ArchiveInUseError(f"{folder}: the archive is in use by {holder}") from None
        except BaseException:
            os.close(descriptor)
            raise
    return descriptor


def holder_of(folder: Path) -> str | None:
    """Say who holds the lock of a channel's folder; None: nobody."""
    path = folder / LOCK_FILE
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _holder(descriptor)
    finally:
        os.close(descriptor)
    return None


def _holder(descriptor: int) -> str:
    try:
        told = json.loads(os.pread(descriptor, MAX_HOLDER_BYTES, 0))
        return f"process {int(told['process'])} on {str(told['host'])[:100]!r}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
