"""The rules that keep a green run honest: required prerequisites fail, and what tests leave behind is seen."""

import os
import subprocess
import sys
import threading

import pytest

from tests.support import leak, requirement


def test_a_missing_prerequisite_skips_where_nobody_requires_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KVR_REQUIRE", "")

    with pytest.raises(pytest.skip.Exception, match="postgres is missing: no server"):
        requirement.missing("postgres", "no server")


def test_a_missing_prerequisite_fails_where_it_is_required(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KVR_REQUIRE", "postgres")

    with pytest.raises(pytest.fail.Exception, match="postgres is required"):
        requirement.missing("postgres", "no server")


def test_requiring_what_nobody_knows_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KVR_REQUIRE", "postgres,postgers")

    with pytest.raises(pytest.UsageError, match="postgers; known are: fabric, fabric-lts, go, hfc, node, postgres"):
        requirement.required()


def test_sees_a_descriptor_a_thread_and_a_process_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leak, "PATIENCE_SECONDS", 0.0)
    before = leak.held()
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait, name="left-behind")
    descriptor = os.open(os.devnull, os.O_RDONLY)
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        thread.start()

        found = leak.leaks(before)
    finally:
        stop.set()
        thread.join()
        os.close(descriptor)
        process.communicate(b"\n")

    assert "thread left-behind" in found
    assert f"process {process.pid}" in found
    assert f"descriptor {descriptor} ({os.devnull})" in found
    assert leak.leaks(before) == []
