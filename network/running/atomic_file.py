"""Files that are whole or absent, whatever happens while they are written."""

import os
import tempfile
from pathlib import Path


def write_file(path: Path, content: bytes, *, mode: int = 0o644, is_lasting: bool = True) -> None:
    """Replace a file in one step: a reader, or a crash, sees the old content or the new one.

    One that is not lasting may be damaged by a power cut: what it says of running processes is void then anyway.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            if is_lasting:
                os.fsync(file.fileno())
        Path(name).chmod(mode)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink()
        raise
