"""The processes that serve a network's chaincodes: one for each chaincode and organisation."""

from collections.abc import Collection
from typing import Final

from network.creation import CreatedNetwork
from network.running.plan import served_chaincodes
from network.running.process import ProcessTable

MODULE: Final = "chaincode.main"


def start_chaincodes(network: CreatedNetwork, table: ProcessTable, names: Collection[str] | None = None) -> None:
    """Start every chaincode process, or those of these names, that does not run as the topology says.

    One that serves what the topology said before an upgrade is ended first. Raises ProcessStartError.
    """
    running = {process.name for process in table.running()}
    for served in served_chaincodes(network.topology):
        if names is not None and served.name not in names:
            continue
        tls = network.credentials.chaincode_tls(served.organization.msp_id, served.chaincode.name)
        arguments = [
            *("serve", served.chaincode.served_by),
            *("--address", network.address(served.name), "--package-id", network.package_id(served)),
            *("--msp-id", served.organization.msp_id),
            *("--tls-cert", str(tls.server.certificate), "--tls-key", str(tls.server.key)),
            *("--client-ca", str(tls.server.ca_certificate)),
        ]
        if served.name in running:
            if table.arguments(served.name) == arguments:
                continue
            table.end([served.name])
        table.start_python(served.name, f"{MODULE}:chaincode", arguments, folder=network.root.path)
