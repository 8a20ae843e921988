"""Set up `.venv`: the pinned packages of one requirement file, then this checkout itself (editable).

`python3 requirements/install.py dev` does nothing when that is already done: a stamp in `.venv` holds the digests of
what was installed. Standard library only, since it runs before anything is there.

Without resolver: every package is named with version and hashes (`--no-deps --require-hashes`), so what is installed
is what was locked, wherever pip fetches it from.
"""

import argparse
import hashlib
import importlib.util
import json
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "kvr-installed.json"
LOG = VENV / "install.log"
INCLUDES = {"runtime": ("runtime",), "dev": ("runtime", "dev"), "hfc": ("hfc",)}
"""What is there once a file is installed: `dev` holds every pin of `runtime`."""
REPORT_SECONDS = 5.0

PIP = [
    str(PYTHON),
    "-m",
    "pip",
    "--disable-pip-version-check",
    "--no-input",
    "install",
    "--no-compile",
    "--progress-bar",
    "off",
]
"""Without compiling: Python does that at first import, for the tenth of the files that anybody imports."""


def main() -> int:
    """Install what is asked for and not there; give the exit status."""
    parser = argparse.ArgumentParser(description="Set up .venv from a pinned requirement file.")
    parser.add_argument("requirements", choices=sorted(INCLUDES))
    name = parser.parse_args().requirements

    pinned = ROOT / "requirements" / f"{name}.txt"
    project = digest(ROOT / "pyproject.toml")
    installed = read_stamp()
    todo_pinned = installed.get(name) != digest(pinned)
    todo_project = installed.get("project") != project
    if not todo_pinned and not todo_project:
        return 0

    started = time.monotonic()
    if not installed:  # absent, or left by a set-up that never came to its end
        create_environment()
    if todo_pinned:
        count = sum("==" in line for line in pinned.read_text(encoding="utf-8").splitlines())
        text = f"installing {count} pinned packages ({pinned.relative_to(ROOT)}), waiting for the package index"
        run(text, [*PIP, "--no-deps", "--require-hashes", "--no-build-isolation", "-r", str(pinned)], expected=count)
        for included in INCLUDES[name]:
            installed[included] = digest(ROOT / "requirements" / f"{included}.txt")
        write_stamp(installed)
    if todo_project:
        editable = [*PIP, "--no-deps", "--no-build-isolation", "--no-index", "--editable", str(ROOT)]
        run("installing this checkout", editable)
        write_stamp({**installed, "project": project})
    say(f"set-up: .venv is ready ({time.monotonic() - started:.0f} s)")
    return 0


def create_environment() -> None:
    """Make `.venv` with this interpreter; a Python without venv or ensurepip is answered with what to install."""
    if importlib.util.find_spec("venv") is None or importlib.util.find_spec("ensurepip") is None:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        sys.exit(
            f"set-up: this Python {version} ({sys.executable}) cannot make virtual environments.\n"
            f"        On Debian and Ubuntu: apt-get install python3-venv (or python{version}-venv)"
        )
    VENV.mkdir(exist_ok=True)
    say(f"set-up: Python {sys.version.split()[0]}")
    run("making the virtual environment .venv", [sys.executable, "-m", "venv", "--clear", str(VENV)], log=None)


def run(text: str, command: list[str], *, expected: int = 0, log: Path | None = LOG) -> None:
    """Run one step and say every few seconds how it stands; on failure show its output and stop."""
    say(f"set-up: {text}")
    output = log if log is not None else ROOT / ".venv-install.log"  # `venv --clear` empties its folder
    started = time.monotonic()
    with output.open("wb") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, cwd=ROOT)
    try:
        while True:
            try:
                status = process.wait(timeout=REPORT_SECONDS)
                break
            except subprocess.TimeoutExpired:
                say(f"        {time.monotonic() - started:3.0f} s{progress(output, expected)}")
    finally:
        process.kill()  # nothing when it has ended; on an interrupt nothing stays behind
        process.wait()
    tail = output.read_text(encoding="utf-8", errors="replace")[-4000:]
    if log is None:
        output.unlink()
    if status != 0:
        sys.exit(f"{tail}\nset-up: {text}: failed with status {status}; what it said stands above")


def progress(output: Path, expected: int) -> str:
    """Say how far pip is, from what it has written."""
    if not expected:
        return ""
    lines = output.read_text(encoding="utf-8", errors="replace").splitlines()
    if any(line.startswith("Installing collected packages") for line in lines):
        return ": all fetched, unpacking"
    return f": {sum(line.startswith('Collecting ') for line in lines)} of {expected}"


def read_stamp() -> dict[str, str]:
    """Give what is installed, by name; nothing when `.venv` is absent, broken or of another time."""
    if not PYTHON.exists():
        return {}
    try:
        content = json.loads(STAMP.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {str(name): str(value) for name, value in content.items()} if isinstance(content, dict) else {}


def write_stamp(installed: dict[str, str]) -> None:
    """Record what is installed."""
    STAMP.write_text(json.dumps(installed, indent=1) + "\n", encoding="utf-8")


def digest(path: Path) -> str:
    """Give the SHA-256 of a file, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def say(text: str) -> None:
    """Print a line now, also into a pipe."""
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
