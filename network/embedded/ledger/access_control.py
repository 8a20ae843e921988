"""Who may ask a peer for what: policies of the channel by resource, and the peer's own organisation.

Rules and texts: `core/aclmgmt/{defaultaclprovider,resourceprovider}.go`, `core/policy/policy.go`. A channel's ACLs
overrule the defaults; what asks for the peer's own organisation cannot be overruled.
"""

from typing import Final

from fabric_protos.msp import msp_principal_pb2
from fabric_protos.peer import configuration_pb2

from network.protocol.endorsement_policy import ChannelRules
from network.protocol.errors import DecodeError, IdentityError, PolicyError
from network.protocol.identity import decode_serialized_identity
from network.protocol.msp import CLASSIFICATION_ROLE, ChannelMsps, Principal, Role
from network.protocol.policy import SignedData
from network.protocol.wire import parse

APPLICATION: Final = "/Channel/Application/"
READERS: Final = f"{APPLICATION}Readers"
WRITERS: Final = f"{APPLICATION}Writers"
ADMINS: Final = "Admins"
MEMBERS: Final = "Members"

CHANNEL_RESOURCES: Final = {
    "peer/Propose": WRITERS,
    "peer/ChaincodeToChaincode": WRITERS,
    "event/Block": READERS,
    "event/FilteredBlock": READERS,
    "gateway/CommitStatus": READERS,
    "gateway/ChaincodeEvents": READERS,
    "qscc/GetChainInfo": READERS,
    "qscc/GetBlockByNumber": READERS,
    "qscc/GetBlockByHash": READERS,
    "qscc/GetTransactionByID": READERS,
    "qscc/GetBlockByTxID": READERS,
    "cscc/GetConfigBlock": READERS,
    "cscc/GetChannelConfig": READERS,
    "_lifecycle/CommitChaincodeDefinition": WRITERS,
    "_lifecycle/CheckCommitReadiness": WRITERS,
    "_lifecycle/QueryChaincodeDefinition": WRITERS,
    "_lifecycle/QueryChaincodeDefinitions": WRITERS,
}
LOCAL_RESOURCES: Final = {
    "cscc/JoinChain": ADMINS,
    "cscc/GetChannels": MEMBERS,
    "_lifecycle/InstallChaincode": ADMINS,
    "_lifecycle/QueryInstalledChaincode": ADMINS,
    "_lifecycle/QueryInstalledChaincodes": ADMINS,
    "_lifecycle/GetInstalledChaincodePackage": ADMINS,
    "_lifecycle/ApproveChaincodeDefinitionForMyOrg": ADMINS,
    "_lifecycle/QueryApprovedChaincodeDefinition": ADMINS,
    "_lifecycle/QueryApprovedChaincodeDefinitions": ADMINS,
}


class AccessError(Exception):
    """The signer may not do this, or did not sign; the text is Fabric's."""


def check_access(resource: str, signed: SignedData, rules: ChannelRules) -> None:
    """Check that the signer satisfies the policy of a resource of a channel; raises AccessError."""
    named = _acl(resource, rules)
    path = named or CHANNEL_RESOURCES.get(resource)
    if path is None:
        raise AccessError(f"Unmapped policy for {resource}")
    try:
        rules.trust.policies.evaluate_signed_data(path, (signed,))
    except PolicyError as error:
        words = (
            f"check policy [{path}]"
            if named
            else (f"check policy on channel [{rules.channel_id}] with policy [{path}]")
        )
        start = "failed" if named else "Failed"
        raise AccessError(f"{start} evaluating policy on signed data during {words}: [{error}]") from error


def _acl(resource: str, rules: ChannelRules) -> str | None:
    """Give the path of the policy that the channel names for a resource, None where it leaves the default."""
    application = rules.configuration.root.groups.get("Application")
    value = None if application is None else application.values.get("ACLs")
    if value is None:
        return None
    found = parse(configuration_pb2.ACLs, value.value, "ACLs").acls
    if resource not in found:
        return None
    reference: str = found[resource].policy_ref
    return reference if reference.startswith("/") else f"{APPLICATION}{reference}"


def check_local_access(resource: str, signed: SignedData, msp_id: str, msps: ChannelMsps) -> None:
    """Check that the signer is of the peer's own organisation, and its admin where the resource asks for one.

    `msps`: any with the peer's own. Raises AccessError.
    """
    policy = LOCAL_RESOURCES.get(resource)
    if policy is None:
        raise AccessError(f"Unmapped policy for {resource}")
    during = f"during channelless check policy with policy [{policy}]"
    unknown = f"Failed deserializing proposal creator {during}"
    try:
        serialized = decode_serialized_identity(signed.identity)
        if serialized.msp_id != msp_id:
            raise AccessError(f"{unknown}: [expected MSP ID {msp_id}, received {serialized.msp_id}]")
        identity = msps.identity(serialized)
        msps.verify_identity(identity)
    except (DecodeError, IdentityError) as error:
        raise AccessError(f"{unknown}: [{error}]") from error
    role = Role.ADMIN if policy == ADMINS else Role.MEMBER
    principal = msp_principal_pb2.MSPRole(msp_identifier=msp_id, role=int(role)).SerializeToString()
    if not msps.satisfies_principal(identity, Principal(CLASSIFICATION_ROLE, principal)):
        raise AccessError(
            f"Failed verifying that proposal's creator satisfies local MSP principal {during}: [The identity is not an "
            f"admin under this MSP [{msp_id}]: The identity does not contain OU [ADMIN], MSP: [{msp_id}]]"
        )
    if not identity.has_signed(signed.data, signed.signature):
        raise AccessError(f"Failed verifying proposal signature {during}: [The signature is invalid]")
