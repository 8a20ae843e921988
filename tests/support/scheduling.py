"""How tests are dealt out to worker processes: one by one, but those of one network go to one process together."""

from xdist.scheduler import LoadScopeScheduling

from tests.support.live_network import NetworkName

FOLDER = "tests/fabric/"
JUDGES = "tests/conformance/judges/"


def network_of(nodeid: str) -> NetworkName | None:
    """Tell which network a test runs on, by the ids of its parameters."""
    if FOLDER not in nodeid:
        return None
    parameters = f"-{nodeid.partition('[')[2].rstrip(']')}-"
    names = [name for name in NetworkName if f"-{name.value}-" in parameters]
    return max(names, key=len, default=None)


class ByNetwork(LoadScopeScheduling):  # type: ignore[misc]  # its module has no types
    """The scopes of the base class: a network's tests, those of one judge, or one test. Large scopes go first."""

    def _split_scope(self, nodeid: str) -> str:
        if JUDGES in nodeid:  # a module takes its steps on networks of its own, once
            return nodeid.partition("::")[0]
        network = network_of(nodeid)
        return nodeid if network is None else network.value
