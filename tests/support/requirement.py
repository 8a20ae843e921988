"""Prerequisites outside the packages that set-up installs: where one is missing its tests skip, unless it is required.

`KVR_REQUIRE` names what must be there, separated by commas: `postgres`, `fabric` and `fabric-lts` (the node programs of
Hyperledger Fabric 3.1 and 2.5), `node` and `go` (with what Fabric's own clients and shims need of their packages),
`hfc` (Hyperledger's older Python client). `make test` requires what its set-up installs (`postgres,hfc`), CI also `go`
and `node`, `make test-native` all of them. A test that cannot run for want of a required prerequisite fails, so that a
green run means what it says.
"""

import os
from typing import NoReturn

import pytest

KNOWN = frozenset({"fabric", "fabric-lts", "go", "hfc", "node", "postgres"})
"""The names that `KVR_REQUIRE` may hold; any other is refused, since a misspelt one would require nothing."""


def required() -> frozenset[str]:
    """Give the names in `KVR_REQUIRE`; raises pytest's usage error for a name that means nothing."""
    names = frozenset(name.strip() for name in os.environ.get("KVR_REQUIRE", "").split(",") if name.strip())
    unknown = sorted(names - KNOWN)
    if unknown:
        message = f"KVR_REQUIRE names {', '.join(unknown)}; known are: {', '.join(sorted(KNOWN))}"
        raise pytest.UsageError(message)
    return names


def missing(name: str, reason: str) -> NoReturn:
    """End the current test for want of a prerequisite: failed when it is required, skipped otherwise."""
    if name in required():
        pytest.fail(f"{name} is required (KVR_REQUIRE) and missing: {reason}", pytrace=False)
    pytest.skip(f"{name} is missing: {reason}")
