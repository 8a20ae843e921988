"""The pinned requirement files: make them, and check that they hold what `pyproject.toml` asks for.

`locks.py compile [--upgrade]` resolves with pip-tools; versions already pinned stay unless they no longer fit, or
all move with `--upgrade`. `locks.py check` is offline and takes a second:

1. a file holds pins with SHA-256 hashes and comments, and nothing else: no index, no address, no path;
2. every requirement of `pyproject.toml`, and every requirement of what that installs, is met by a pin of the same file
   (needs the packages of `dev.txt` installed; files that are not are checked for the first level);
3. one package has one version in all files.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "requirements"
WITHOUT_DEPENDENCIES = {"fabric-sdk-py"}
"""Pinned by its own hash only: its requirements cannot be installed; `pyproject.toml` names what it really needs."""
PIN = re.compile(r"(?P<name>[a-z0-9][a-z0-9._-]*)==(?P<version>[A-Za-z0-9][A-Za-z0-9.+!_-]*)")
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")
HEADER = "# Made by `make lock` from pyproject.toml; not edited by hand.\n"


def main() -> int:
    """Run the command line; give the exit status."""
    parser = argparse.ArgumentParser(description="Make or check the pinned requirement files.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("compile").add_argument("--upgrade", action="store_true")
    commands.add_parser("check")
    arguments = parser.parse_args()
    if arguments.command == "compile":
        for name in wanted():
            compile_file(name, upgrade=arguments.upgrade)
    faults = check()
    for fault in faults:
        print(f"requirements: {fault}", file=sys.stderr)
    if not faults:
        print(f"requirements: {len(wanted())} files in step with pyproject.toml")
    return 1 if faults else 0


def wanted() -> dict[str, list[str]]:
    """Give, per requirement file, what `pyproject.toml` asks for; the first is a constraint of the others."""
    content = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    project, groups = content["project"], content["dependency-groups"]
    extras: dict[str, list[str]] = project["optional-dependencies"]
    build = [*content["build-system"]["requires"], *groups["build"]]
    runtime = [*project["dependencies"], *build]
    for name, requirements in extras.items():
        if name != "dev":
            runtime += requirements
    return {"runtime": runtime, "dev": [*runtime, *extras["dev"]], "hfc": [*groups["hfc"], *build]}


def compile_file(name: str, *, upgrade: bool) -> None:
    """Resolve one file, in a folder of its own so that its comments name no path of this machine."""
    target = FOLDER / f"{name}.txt"
    print(f"requirements: resolving {target.name}, waiting for the package index", flush=True)
    resolved: list[str] = []
    alone: list[str] = []
    for text in dict.fromkeys(wanted()[name]):
        (alone if canonicalize_name(Requirement(text).name) in WITHOUT_DEPENDENCIES else resolved).append(text)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        (work / "pyproject.toml").touch()  # pip-tools looks for its settings in the nearest one
        (work / f"{name}.in").write_text("\n".join(resolved) + "\n", encoding="utf-8")
        if target.exists() and not upgrade:
            pins = [line for line in target.read_text(encoding="utf-8").splitlines(keepends=True) if "http" not in line]
            (work / target.name).write_text("".join(pins), encoding="utf-8")
        command = [sys.executable, "-m", "piptools", "compile", "--quiet", "--generate-hashes", "--strip-extras"]
        command += ["--allow-unsafe", "--no-header", "--no-emit-index-url", "--no-emit-find-links"]
        command += ["--no-emit-trusted-host", "--output-file", target.name, f"{name}.in"]
        if name != "runtime":
            (work / "runtime.txt").write_bytes((FOLDER / "runtime.txt").read_bytes())
            command += ["--constraint", "runtime.txt"]
        environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
        subprocess.run(command, cwd=work, env=environment, check=True)
        text = (work / target.name).read_text(encoding="utf-8")
    text += "".join(pin_alone(requirement) for requirement in alone)
    target.write_text(HEADER + text, encoding="utf-8")


def pin_alone(requirement: str) -> str:
    """Give the pin of a package whose own requirements are not followed; the hash is that of the file pip takes."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--no-deps", "--ignore-installed"]
    command += ["--only-binary", ":all:", "--report", "-", requirement]
    report = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    (item,) = report["install"]
    pin = f"{canonicalize_name(item['metadata']['name'])}=={item['metadata']['version']}"
    digest = item["download_info"]["archive_info"]["hashes"]["sha256"]
    return f"{pin} \\\n    --hash=sha256:{digest}\n    # without its own requirements (pyproject.toml says why)\n"


def check() -> list[str]:
    """Give everything that is wrong with the files, in words; empty when they are in step."""
    faults: list[str] = []
    versions: dict[str, str] = {}
    for name, requirements in wanted().items():
        path = FOLDER / f"{name}.txt"
        if not path.exists():
            faults.append(f"{path.name} is missing: run `make lock`")
            continue
        text = path.read_text(encoding="utf-8")
        faults += [f"{path.name}:{number}: {fault}" for number, fault in check_form(text)]
        pins = {match["name"]: match["version"] for match in PIN.finditer(text)}
        faults += [f"{path.name}: {fault}" for fault in unmet(requirements, pins)]
        for package, version in pins.items():
            other = versions.setdefault(package, version)
            if other != version:
                faults.append(f"{path.name}: {package} {version}, but {other} in another file")
    return faults


def check_form(text: str) -> Iterator[tuple[int, str]]:
    """Find lines that are neither pin, hash nor harmless comment, and pins without hash; by line number."""
    lines = text.splitlines()
    for number, line in enumerate(lines, start=1):
        content = line.strip().removesuffix("\\").rstrip()
        following = lines[number].strip() if number < len(lines) else ""
        if "://" in line or re.search(r"(^|[\s=])(/|~|[A-Za-z]:\\)", line):
            yield number, "names an address or a path"
        elif PIN.fullmatch(content):
            if not following.startswith("--hash="):
                yield number, "a pin without hash"
        elif content and not content.startswith("#") and not HASH.fullmatch(content):
            yield number, "neither pin nor hash"


def unmet(requirements: list[str], pins: dict[str, str]) -> Iterator[str]:
    """Find requirements that no pin meets, following the requirements of installed packages of the pinned version."""
    queue = [(Requirement(text), "pyproject.toml") for text in requirements]
    seen: set[tuple[str, frozenset[str]]] = set()
    while queue:
        requirement, origin = queue.pop()
        name = canonicalize_name(requirement.name)
        version = pins.get(name)
        if version is None:
            yield f"{requirement} (asked for by {origin}) is not pinned: run `make lock`"
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            yield f"{requirement} (asked for by {origin}) is pinned to {version}: run `make lock`"
        visit = (name, frozenset(requirement.extras))
        if visit in seen or name in WITHOUT_DEPENDENCIES:
            continue
        seen.add(visit)
        queue += [(child, name) for child in own_requirements(name, version, requirement.extras)]


def own_requirements(name: str, version: str, extras: set[str]) -> Iterator[Requirement]:
    """Give what an installed package asks for on this Python; nothing when it is not installed in this version."""
    try:
        distribution = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return
    if distribution.version != version:
        return
    for text in distribution.requires or ():
        requirement = Requirement(text)
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            yield requirement


if __name__ == "__main__":
    sys.exit(main())
