"""The networks that the tests of this folder run on: every test once on each network it names.

Without a choice of its own a test runs on an embedded network and on real nodes. Another choice:
`@on(NetworkName.NATIVE_BFT)` (tests/support/live_network.py). Where Fabric's programs are missing the tests on real
nodes are reported as not exercised, and fail when `KVR_REQUIRE` names them.
"""

from collections.abc import Iterator

import pytest

from tests.support.live_network import START_SECONDS, LiveNetwork, NetworkName, live_network, write_facts


@pytest.fixture(scope="session", params=[NetworkName.EMBEDDED, NetworkName.NATIVE], ids=str)
def network(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveNetwork]:
    """Give a network that all tests of the session share; ended afterwards."""
    name: NetworkName = request.param
    with live_network(name, tmp_path_factory.mktemp(name.value)) as network:
        yield network
        write_facts(network)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Note in the reports of a test which network it ran on."""
    for item in items:
        callspec = getattr(item, "callspec", None)
        name = callspec.params.get("network") if callspec is not None else None
        if isinstance(name, NetworkName):
            item.user_properties.append(("network", name.value))
            item.add_marker(pytest.mark.timeout(START_SECONDS + 60))  # the first one of a network waits for its start
