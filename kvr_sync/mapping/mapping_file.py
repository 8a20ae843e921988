"""The one place of this package that touches a file."""

from importlib import resources
from pathlib import Path

from kvr_sync.errors import ConfigurationError
from kvr_sync.mapping.definition import Mapping
from kvr_sync.mapping.limits import MAX_MAPPING_BYTES
from kvr_sync.mapping.validation import read_mapping

SHIPPED = ("service",)
"""Names of the mappings that come with the package."""


def read_mapping_file(path: Path) -> Mapping:
    """Read a mapping from a YAML file, or the shipped one of that name where there is no such file (`service`).

    Raises `ConfigurationError`: the file cannot be read, or it has mistakes (`FILE:LINE: ...`, all of them).
    """
    if path.name in SHIPPED and path == Path(path.name) and not path.exists():
        content = resources.files("kvr_sync.mapping").joinpath(f"{path.name}.mapping.yaml").read_bytes()
        return read_mapping(content, f"shipped mapping {path.name}")
    try:
        with path.open("rb") as file:
            content = file.read(MAX_MAPPING_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a path with U+0000
        reason = getattr(error, "strerror", None) or "not a path"
        raise ConfigurationError(f"{path}: the mapping cannot be read: {reason}") from error
    return read_mapping(content, str(path))
