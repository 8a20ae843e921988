"""The page for operators names errors, metrics and commands that exist."""

import inspect
import re
from pathlib import Path

import pytest
from typer.main import get_command

from kvr_sync import errors
from kvr_sync.main import sync
from kvr_sync.metrics import Metrics

PAGE = (Path(__file__).parents[2] / "kvr_sync" / "OPERATOR.md").read_text(encoding="utf-8")
CODES = {error.code for _, error in inspect.getmembers(errors, inspect.isclass) if hasattr(error, "code")}


def named(section: str, pattern: str) -> list[str]:
    text = PAGE.partition(f"## {section}\n")[2].partition("\n## ")[0]
    return sorted(set(re.findall(pattern, text)))


@pytest.mark.parametrize("code", named("When a channel has stopped", r"`([a-z]+(?:_[a-z]+)*)`(?=[^|]*\|[^|\n]*\|\n)"))
def test_an_error_of_the_page_exists(code: str) -> None:
    assert code in CODES


@pytest.mark.parametrize("metric", named("What to watch", r"`(kvr_sync_[a-z_]+)`"))
def test_a_metric_of_the_page_is_exposed(metric: str) -> None:
    metrics = Metrics()
    families = {family.name for family in metrics.registry.collect()}

    assert metric.removesuffix("_total") in families


@pytest.mark.parametrize("name", sorted(set(re.findall(r"kvr sync ([a-z]+)", PAGE))))
def test_a_command_of_the_page_exists(name: str) -> None:
    assert name in get_command(sync).commands  # type: ignore[attr-defined]  # it is a group
