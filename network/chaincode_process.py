"""The processes that serve a network's chaincodes: one for each chaincode and organisation."""

from typing import Final

from network.creation import CreatedNetwork
from network.running.plan import served_chaincodes
from network.running.process import ProcessTable

MODULE: Final = "chaincode.main"


def start_chaincodes(network: CreatedNetwork, table: ProcessTable) -> None:
    """Start every chaincode process that does not run; raises ProcessStartError."""
    running = {process.name for process in table.running()}
    for served in served_chaincodes(network.topology):
        if served.name in running:
            continue
        tls = network.credentials.chaincode_tls(served.organization.msp_id, served.chaincode.name)
        arguments = [
            *("serve", served.chaincode.served_by),
            *("--address", network.address(served.name), "--package-id", network.package_id(served)),
            *("--msp-id", served.organization.msp_id),
            *("--tls-cert", str(tls.server.certificate), "--tls-key", str(tls.server.key)),
            *("--client-ca", str(tls.server.ca_certificate)),
        ]
        table.start_python(served.name, f"{MODULE}:chaincode", arguments, folder=network.root.path)
