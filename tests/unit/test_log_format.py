"""One log line is one JSON object, whatever is logged."""

import io
import json
import logging
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from kvr_sync.log_format import JsonFormatter, log_to_stderr


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def logger(stream: io.StringIO) -> Iterator[logging.Logger]:
    """Give a logger of its own that writes JSON lines into `stream`."""
    made = logging.Logger("kvr_sync.test", logging.DEBUG)  # noqa: LOG001 - unknown to the rest of the process
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    made.addHandler(handler)
    yield made
    handler.close()


def only_line(stream: io.StringIO) -> dict[str, Any]:
    text = stream.getvalue()
    assert text.endswith("\n")
    assert text.count("\n") == 1
    found = json.loads(text)
    assert isinstance(found, dict)
    return found


def test_a_line_holds_time_level_logger_event_and_the_facts(logger: logging.Logger, stream: io.StringIO) -> None:
    logger.info("blocks_committed", extra={"channel": "consortium", "block_number": 12})

    line = only_line(stream)
    assert line.pop("time").endswith("+00:00")
    assert line == {
        "level": "INFO",
        "logger": "kvr_sync.test",
        "event": "blocks_committed",
        "channel": "consortium",
        "block_number": 12,
    }


def test_line_ends_and_other_characters_stay_inside_the_line(logger: logging.Logger, stream: io.StringIO) -> None:
    logger.warning("run_failed", extra={"reason": 'two\nlines, "quotes", 客户\u2028'})

    assert only_line(stream)["reason"] == 'two\nlines, "quotes", 客户\u2028'


def test_facts_that_json_does_not_know_are_shown_as_text(logger: logging.Logger, stream: io.StringIO) -> None:
    logger.info("service_started", extra={"source": Path("blocks"), "started_at": datetime(2026, 5, 4, tzinfo=UTC)})

    line = only_line(stream)
    assert (line["source"], line["started_at"]) == ("blocks", "2026-05-04 00:00:00+00:00")


def test_of_a_traceback_only_the_class_is_logged(logger: logging.Logger, stream: io.StringIO) -> None:
    try:
        _ = {"secret key": 1}["secret value"]
    except KeyError:
        logger.exception("run_crashed")

    line = only_line(stream)
    assert line["error_class"] == "KeyError"
    assert "secret" not in stream.getvalue()


def test_a_file_name_that_is_no_text_does_not_break_the_log() -> None:
    """Python hands such a name on with surrogates, which no UTF-8 stream takes as they are."""
    written = io.BytesIO()
    stderr = io.TextIOWrapper(written, encoding="utf-8", errors=sys.__stderr__.errors if sys.__stderr__ else None)
    handler = logging.StreamHandler(stderr)
    handler.setFormatter(JsonFormatter())

    handler.handle(logging.makeLogRecord({"name": "kvr_sync.test", "msg": "run_failed", "source": "caf\udce9"}))
    stderr.flush()

    assert json.loads(written.getvalue())["source"] == "caf\udce9"


@pytest.fixture
def logging_restored() -> Iterator[None]:
    """Put the process's logging back as the tests need it."""
    names = ("", "alembic", "apscheduler")
    root = logging.getLogger()
    handlers, levels = root.handlers[:], {name: logging.getLogger(name).level for name in names}
    yield
    root.handlers[:] = handlers
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


@pytest.mark.usefixtures("logging_restored")
def test_a_process_that_logs_to_stderr_logs_our_events_and_others_errors_as_json(
    capsys: pytest.CaptureFixture[str],
) -> None:
    log_to_stderr()

    logging.getLogger("kvr_sync.jobs").info("run_done")
    logging.getLogger("kvr_sync.jobs").debug("blocks_committed")
    logging.getLogger("alembic.runtime.migration").info("Context impl SQLiteImpl.")
    logging.getLogger("apscheduler.scheduler").warning("Execution of job skipped")
    logging.getLogger("apscheduler.executors.default").error("Job raised an exception")

    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["event"] for line in lines] == ["run_done", "Job raised an exception"]
