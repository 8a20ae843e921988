"""Hyperledger's older Python client, hfc, mended as our transport mends it."""

from typing import Any

from gateway.client.errors import TransportMissingError
from gateway.client.hfc_transport import import_hfc
from tests.support import requirement


def hfc_modules() -> Any:
    """Give its modules by what they hold; where it is not installed the test ends here."""
    try:
        return import_hfc()
    except TransportMissingError as error:
        requirement.missing("hfc", str(error))
