"""Asking the process of an embedded network to do something to one of its nodes, and what it answered.

Two files and a signal, so that nothing has to listen: the command writes the request and nudges the process (SIGHUP),
the process does it and writes the answer, in which every node that does not run is named. The root's claim keeps two
commands apart. A process that begins forgets both: all its nodes run.
"""

import json
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, NamedTuple

from network.errors import NodeError
from network.running.atomic_file import write_file

REQUEST_FILE: Final = "request.json"
ANSWER_FILE: Final = "answer.json"


class NodeVerb(StrEnum):
    """What may be asked."""

    KILL = "kill"
    PAUSE = "pause"
    CONTINUE = "continue"
    RESTART = "restart"


class Request(NamedTuple):
    """One thing to do; `number` grows with each."""

    number: int
    verb: NodeVerb
    node: str


class Answer(NamedTuple):
    """What became of the request of this number: `error` "" means done. `stopped`: "ended" or "paused", by node."""

    number: int
    error: str
    stopped: Mapping[str, str]


def write_request(folder: Path, request: Request) -> None:
    """Write a request into the folder of the embedded network."""
    write_file(folder / REQUEST_FILE, json.dumps(request._asdict()).encode())


def read_request(folder: Path) -> Request | None:
    """Read the request; None: there is none. Raises NodeError for a damaged file."""
    content = _read(folder / REQUEST_FILE, {"number": int, "verb": str, "node": str})
    if content is None:
        return None
    if content["verb"] not in {verb.value for verb in NodeVerb}:
        raise NodeError(f"{folder / REQUEST_FILE}: unknown verb {content['verb']!r}")
    return Request(content["number"], NodeVerb(content["verb"]), content["node"])


def write_answer(folder: Path, answer: Answer) -> None:
    """Write an answer."""
    write_file(folder / ANSWER_FILE, json.dumps({**answer._asdict(), "stopped": dict(answer.stopped)}).encode())


def read_answer(folder: Path) -> Answer:
    """Read the newest answer; before the first one every node runs. Raises NodeError for a damaged file."""
    content = _read(folder / ANSWER_FILE, {"number": int, "error": str, "stopped": dict})
    if content is None:
        return Answer(0, "", {})
    if not set(content["stopped"].values()) <= {"paused", "ended"}:
        raise NodeError(f"{folder / ANSWER_FILE}: unknown condition of a node")
    return Answer(content["number"], content["error"], content["stopped"])


def forget(folder: Path) -> None:
    """Remove both files."""
    for name in (REQUEST_FILE, ANSWER_FILE):
        (folder / name).unlink(missing_ok=True)


def _read(path: Path, fields: Mapping[str, type]) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise NodeError(f"{path} cannot be read; end the network and bring it up again") from error
    if not isinstance(content, dict) or not all(type(content.get(name)) is kind for name, kind in fields.items()):
        raise NodeError(f"{path} is damaged; end the network and bring it up again")
    return content
