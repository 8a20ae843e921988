"""The networks that the tests of this folder run on: every test once on each network it names.

Without a choice of its own a test runs on an embedded network and on real nodes. Another choice:
`@on(NetworkName.NATIVE_BFT)` (tests/support/live_network.py). Where Fabric's programs are missing the tests on real
nodes are reported as not exercised, and fail when `KVR_REQUIRE` names them.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.live_network import START_SECONDS, LiveNetwork, NetworkName, live_network, write_facts
from tests.support.small_network import TOPOLOGY, SmallNetwork

FOLDER = Path(__file__).parent


@pytest.fixture(scope="session", params=[NetworkName.EMBEDDED, NetworkName.NATIVE], ids=str)
def network(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveNetwork]:
    """Give a network that all tests of the session share; ended afterwards."""
    name: NetworkName = request.param
    with live_network(name, tmp_path_factory.mktemp(name.value)) as network:
        yield network
        write_facts(network)


@pytest.fixture(params=[NetworkName.EMBEDDED, NetworkName.NATIVE], ids=str)
def small(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SmallNetwork]:
    """Give a network of this test alone, not made yet; whatever is left of it afterwards is ended."""
    network = SmallNetwork(request.param, tmp_path)
    network.topology.write_text(TOPOLOGY, encoding="utf-8")
    assert network.variables is not None  # missing programs end the test here
    yield network
    network.kvr("destroy", "--yes")
    assert network.processes() == {}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Note in the reports of a test which network it ran on, and let it wait for a network's start."""
    for item in items:
        if not item.path.is_relative_to(FOLDER):
            continue
        item.add_marker(pytest.mark.timeout(START_SECONDS + 60))
        callspec = getattr(item, "callspec", None)
        for value in callspec.params.values() if callspec is not None else ():
            if isinstance(value, NetworkName):
                item.user_properties.append(("network", value.value))
