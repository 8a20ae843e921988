"""What the judges run: Fabric's Node packages and the contract on Fabric's Go shim, fetched and built into a cache.

`python -m tests.support.judge_programs` (`make setup-judges`) makes what is missing, outside the checkout, in
`$XDG_CACHE_HOME/kvr/judges` (`~/.cache`); each part is in a folder named by the digest of what it is made from. Without
Node, or Go, their part is left out and said so. Tests take a part that is there, and never make one.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

from tests.support import requirement
from tests.support.judged_network import Program

SOURCES: Final = Path(__file__).parents[1] / "conformance" / "judges"
REPORT_SECONDS: Final = 5.0


@dataclass(frozen=True)
class Part:
    """A folder of sources and what it becomes: `command` runs in a copy of them."""

    folder: Path
    needs: tuple[str, ...]
    command: tuple[str, ...]
    waits_for: str
    files: tuple[str, ...]

    @property
    def made(self) -> Path:
        """Where it is once it is made."""
        digest = sha256()
        for name in (*self.command, *self.files):
            digest.update(f"{name}\0".encode())
        for name in self.files:
            digest.update(sha256((self.folder / name).read_bytes()).digest())
        return cache() / f"{self.folder.name}-{digest.hexdigest()[:16]}"

    def missing(self) -> str:
        """Say why it cannot be made here; empty when it can."""
        absent = [name for name in self.needs if shutil.which(name) is None]
        return f"no {' and no '.join(absent)} on PATH" if absent else ""


_NPM: Final = ("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier", "--loglevel=error")
_PACKAGES: Final = ("package.json", "package-lock.json")
GO_SHIM: Final = Part(
    SOURCES / "go_shim",
    ("go",),
    ("go", "build", "-mod=readonly", "-buildvcs=false", "-o", "judge", "."),
    "Go's modules and compiler",
    ("go.mod", "go.sum", "main.go", "script.go"),
)
NODE_SHIM: Final = Part(SOURCES / "node_shim", ("node", "npm"), _NPM, "the npm registry", _PACKAGES)
NODE_GATEWAY: Final = Part(SOURCES / "node_gateway", ("node", "npm"), _NPM, "the npm registry", _PACKAGES)
PARTS: Final = (GO_SHIM, NODE_SHIM, NODE_GATEWAY)


def cache() -> Path:
    """Give the folder of everything that is made here."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kvr" / "judges"


def go_program() -> Program:
    """Serve the script contract on Fabric's Go shim; without Go, or before set-up, the test ends here."""
    return Program("go", (str(_made(GO_SHIM) / "judge"),), Path("/"))


def node_program() -> Program:
    """Serve the script contract on Fabric's Node shim; without Node, or before set-up, the test ends here."""
    return Program("node", node_command(NODE_SHIM, NODE_SHIM.folder / "contract.cjs"), Path("/"))


def node_command(part: Part, script: Path) -> Sequence[str]:
    """Run a script with the packages of a part; without Node, or before set-up, the test ends here."""
    return ("env", f"NODE_PATH={_made(part) / 'node_modules'}", "node", str(script))


def _made(part: Part) -> Path:
    name = part.needs[0]
    if reason := part.missing():
        requirement.missing(name, reason)
    if not part.made.is_dir():
        requirement.missing(name, f"{part.folder.name} is not made yet: run `make setup-judges`")
    return part.made


def make(part: Part) -> str:
    """Make a part, unless it is there, and show progress; gives what went wrong, empty when it is there now."""
    if part.made.is_dir():
        return ""
    part.made.parent.mkdir(parents=True, exist_ok=True)
    name = part.folder.name
    print(f"judges: making {name}, waiting for {part.waits_for}", flush=True)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(dir=part.made.parent, prefix=".unfinished-") as folder:
        work = Path(folder) / name
        work.mkdir()
        for file in part.files:
            shutil.copy(part.folder / file, work / file)
        log = Path(folder) / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(part.command, cwd=work, stdout=output, stderr=subprocess.STDOUT)
        try:
            while process.poll() is None:
                try:
                    process.wait(REPORT_SECONDS)
                except subprocess.TimeoutExpired:
                    print(f"        {time.monotonic() - started:3.0f} s", flush=True)
        finally:
            process.kill()
            process.wait()
        if process.returncode != 0:
            words = log.read_text("utf-8", "replace")[-4000:]
            return f"{words}\n{' '.join(part.command)} ended with status {process.returncode}"
        try:
            work.rename(part.made)
        except OSError:  # another checkout was quicker
            if not part.made.is_dir():
                raise
    print(f"judges: {name} is ready ({time.monotonic() - started:.0f} s)", flush=True)
    return ""


def main() -> int:
    """Make every part that can be made here, and name the others; gives 1 when one that is required fails.

    Without KVR_REQUIRE all are. That Node or Go is not there at all is for the tests to say.
    """
    required = requirement.required() if "KVR_REQUIRE" in os.environ else requirement.KNOWN
    failed = False
    for part in PARTS:
        if reason := part.missing() or make(part):
            print(f"judges: {part.folder.name} is left out: {reason}", flush=True)
            failed |= not part.missing() and part.needs[0] in required
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
