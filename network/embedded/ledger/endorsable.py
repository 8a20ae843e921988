"""Whether a peer may run a chaincode: committed, approved by its organisation in this very form, and installed.

All of it is read from the peer's own `_lifecycle` state. Rules: `core/chaincode/lifecycle/endorsement_info.go`.
"""

from typing import NamedTuple

from network.embedded.ledger.package_store import PackageStore
from network.embedded.ledger.peer_channel import PeerChannel
from network.protocol.errors import DecodeError, DefinitionError
from network.protocol.lifecycle import (
    ChaincodeDefinition,
    approval_mismatches,
    check_endorsable,
    read_approval,
)


class NotEndorsableError(Exception):
    """The peer cannot run this chaincode now; the text is Fabric's. `is_unknown`: there is no such definition."""

    def __init__(self, text: str, *, is_unknown: bool = False) -> None:
        super().__init__(text)
        self.is_unknown = is_unknown


class EndorsableChaincode(NamedTuple):
    """A chaincode that a peer runs: its definition, and the package its organisation runs it by."""

    definition: ChaincodeDefinition
    package_id: str


def endorsable_chaincode(channel: PeerChannel, chaincode: str, packages: PackageStore) -> EndorsableChaincode:
    """Give what is needed to run a chaincode; raises NotEndorsableError."""
    try:
        definition = channel.definition(chaincode)
        if definition is None:
            raise NotEndorsableError(f"chaincode {chaincode} not found", is_unknown=True)
        is_approved = not approval_mismatches(chaincode, definition, channel.read_approval_hash)
        approval = read_approval(chaincode, definition.sequence, channel.read_approval)
        package_id = "" if approval is None else approval.package_id
        check_endorsable(
            chaincode,
            definition,
            channel.channel_id,
            is_approved=is_approved,
            is_installed=packages.has(package_id),
        )
    except (DefinitionError, DecodeError) as error:
        raise NotEndorsableError(str(error)) from error
    return EndorsableChaincode(definition, package_id)
