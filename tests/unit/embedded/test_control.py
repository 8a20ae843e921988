"""Requests to the process of an embedded network, and its answers: given back as written, refused when damaged."""

from collections.abc import Callable
from pathlib import Path

import pytest

from network.embedded.control import (
    ANSWER_FILE,
    REQUEST_FILE,
    Answer,
    NodeVerb,
    Request,
    forget,
    read_answer,
    read_request,
    write_answer,
    write_request,
)
from network.errors import NodeError

DAMAGED = {
    "empty": "",
    "no JSON": "{",
    "deep": "[" * 100_000,
    "a list": "[]",
    "nothing in it": "{}",
    "another number": '{"number": "1", "verb": "kill", "node": "a", "error": "", "stopped": {}}',
    "a number that is none": '{"number": true, "verb": "kill", "node": "a", "error": "", "stopped": {}}',
    "no node and no error": '{"number": 1, "verb": "kill", "node": 7, "error": null, "stopped": {}}',
    "unknown words": '{"number": 1, "verb": "erase", "node": "a", "error": "", "stopped": {"a": "asleep"}}',
}


def test_a_request_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_request(tmp_path, Request(3, NodeVerb.PAUSE, "peer0"))

    assert read_request(tmp_path) == Request(3, NodeVerb.PAUSE, "peer0")


def test_an_answer_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_answer(tmp_path, Answer(3, "no such node", {"peer0": "paused"}))

    assert read_answer(tmp_path) == Answer(3, "no such node", {"peer0": "paused"})


def test_before_the_first_request_every_node_runs(tmp_path: Path) -> None:
    assert read_request(tmp_path) is None
    assert read_answer(tmp_path) == Answer(0, "", {})


def test_a_process_that_begins_forgets_both(tmp_path: Path) -> None:
    write_request(tmp_path, Request(3, NodeVerb.KILL, "peer0"))
    write_answer(tmp_path, Answer(3, "", {"peer0": "ended"}))

    forget(tmp_path)
    forget(tmp_path)

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED.keys())
@pytest.mark.parametrize(("read", "name"), [(read_request, REQUEST_FILE), (read_answer, ANSWER_FILE)])
def test_a_damaged_file_is_refused_by_name(
    tmp_path: Path, read: Callable[[Path], object], name: str, content: str
) -> None:
    (tmp_path / name).write_text(content)

    with pytest.raises(NodeError, match=name):
        read(tmp_path)
