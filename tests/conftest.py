"""Fixtures and rules of the whole suite; README.md beside this file tells what the folders are."""

import json
import os
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

import pytest
from sqlalchemy import URL

from kvr_sync.jobs import SyncSettings, sync_once
from tests.support import leak, requirement
from tests.support.embedded_ledger import deployed, generate_dev
from tests.support.generated_network import GeneratedNetwork
from tests.support.live_network import FACTS_VARIABLE
from tests.support.postgresql import ServerMissingError, fresh_database, running_server
from tests.support.recorded_chain import load_chain
from tests.support.scheduling import ByNetwork

TESTS = Path(__file__).parent
SERVICE_WEEK_MAPPING = TESTS.parent / "network" / "demo_data" / "service-week.mapping.yaml"


def pytest_configure(config: pytest.Config) -> None:
    """Refuse a KVR_REQUIRE that requires nothing, before any test runs; make the file of facts about networks."""
    requirement.required()
    if not hasattr(config, "workerinput"):
        descriptor, os.environ[FACTS_VARIABLE] = tempfile.mkstemp(prefix="kvr-networks-")
        os.close(descriptor)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove the file of facts."""
    if not hasattr(config, "workerinput"):
        Path(os.environ.pop(FACTS_VARIABLE)).unlink()


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByNetwork:
    """Deal the tests out to worker processes."""
    return ByNetwork(config, log)


@pytest.fixture(scope="session", autouse=True)
def no_leaks() -> Iterator[None]:
    """Fail at the end of the session when threads, processes or descriptors of tests are still there."""
    before = leak.held()
    yield
    found = leak.leaks(before)
    if found:
        pytest.fail("left behind by the tests of this session: " + "; ".join(found), pytrace=False)


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[URL]:
    """Give the maintenance database of a real PostgreSQL."""
    try:
        with running_server() as url:
            yield url
    except ServerMissingError as error:
        requirement.missing("postgres", str(error))


@pytest.fixture
def postgresql_url(postgresql_server: URL) -> Iterator[str]:
    """Give the address of a new empty database in UTF-8, as SQLAlchemy reads it; dropped afterwards."""
    with fresh_database(postgresql_server) as url:
        yield url.render_as_string(hide_password=False)


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """Give the address of an SQLite file that is not there yet, in a folder of this test."""
    return f"sqlite:///{tmp_path / 'kvr.db'}"


@pytest.fixture(scope="session")
def generated(tmp_path_factory: pytest.TempPathFactory) -> GeneratedNetwork:
    """Give credentials and first blocks of the shipped topology `dev`; nothing changes them."""
    return generate_dev(tmp_path_factory.mktemp("generated") / "credentials")


@pytest.fixture
def network(generated: GeneratedNetwork, tmp_path: Path) -> Iterator[Any]:
    """Give an embedded ledger with all chaincodes, without sockets; folders with other networks have their own."""
    with deployed(generated, tmp_path / "network") as made:
        yield made


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """Give the address of an empty database, once of each kind: one behaviour, two databases."""
    kind: Literal["sqlite", "postgresql"] = request.param
    url: str = request.getfixturevalue(f"{kind}_url")
    return url


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def service_week(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Give the address of a database of each kind that holds the recorded service week; a module's tests read it."""
    with ExitStack() as stack:
        if request.param == "sqlite":
            url = f"sqlite:///{tmp_path_factory.mktemp('week') / 'kvr.db'}"
        else:
            server: URL = request.getfixturevalue("postgresql_server")
            url = stack.enter_context(fresh_database(server)).render_as_string(hide_password=False)
        sync_once(SyncSettings(load_chain("fabric-3.1.5-service-week").path, url, SERVICE_WEEK_MAPPING))
        yield url


class Folders:
    """Counts and times of each folder and network, and what was not exercised, for the tables that close a run."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.outcomes: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self.networks: Counter[str] = Counter()
        self.not_exercised: Counter[tuple[str, str]] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count one phase of one test; under xdist the reports of all workers come here."""
        folder = "/".join(report.nodeid.split("::")[0].split("/")[:2])
        self.seconds[folder] += report.duration
        if report.when == "call" or not report.passed:
            self.outcomes[folder][report.outcome] += 1
        if report.when == "call" and report.passed:
            self.networks.update(value for name, value in report.user_properties if name == "network")
        if report.skipped:
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
            self.not_exercised[folder, reason.removeprefix("Skipped: ")] += 1

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the tables, unless the run was asked to end without."""
        if terminalreporter.no_summary:
            return
        write = terminalreporter.write_line
        terminalreporter.section("by folder")
        write(f"{'folder':<24}{'passed':>8}{'failed':>8}{'skipped':>9}{'seconds':>9}")
        for folder in sorted(self.outcomes):
            counts = self.outcomes[folder]
            figures = f"{counts['passed']:>8}{counts['failed']:>8}{counts['skipped']:>9}{self.seconds[folder]:>9.1f}"
            write(f"{folder:<24}{figures}")
        self._write_networks(terminalreporter)
        terminalreporter.section("not exercised")
        for (folder, reason), count in sorted(self.not_exercised.items()):
            write(f"{folder:<24}{count:>8}  {reason}")
        if not self.not_exercised:
            write("nothing: every test that was chosen ran")

    def _write_networks(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Tell how many tests passed on which network, and where the chains of those networks stood at their end."""
        if not self.networks:
            return
        terminalreporter.section("by network")
        for name, count in sorted(self.networks.items()):
            terminalreporter.write_line(f"{name:<24}{count:>8} passed")
        for line in Path(os.environ[FACTS_VARIABLE]).read_text(encoding="utf-8").splitlines():
            facts: dict[str, Any] = json.loads(line)
            words = f"ended at height {facts['height']}, last header hash {facts['header_hash']}"
            terminalreporter.write_line(f"{facts['network']:<24}{words}")


@pytest.hookimpl(trylast=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Keep the tables where the reports of all workers arrive."""
    if not hasattr(session.config, "workerinput"):
        session.config.pluginmanager.register(Folders(), "kvr-folders")
