"""The one place of this package that touches a file."""

from pathlib import Path

from kvr_sync.errors import ConfigurationError
from kvr_sync.mapping.definition import Mapping
from kvr_sync.mapping.limits import MAX_MAPPING_BYTES
from kvr_sync.mapping.validation import read_mapping


def read_mapping_file(path: Path) -> Mapping:
    """Read a mapping from a YAML file.

    Raises `ConfigurationError`: the file cannot be read, or it has mistakes (`FILE:LINE: ...`, all of them).
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_MAPPING_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a path with U+0000
        reason = getattr(error, "strerror", None) or "not a path"
        raise ConfigurationError(f"{path}: the mapping cannot be read: {reason}") from error
    return read_mapping(content, str(path))
