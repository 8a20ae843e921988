"""Who may ask a peer for what: policies of the channel by resource, and the peer's own organisation.

Rules and texts: `core/aclmgmt/{defaultaclprovider,resourceprovider}.go`, `core/policy/policy.go`. A channel's ACLs
overrule the defaults; what asks for the peer's own organisation cannot be overruled.
"""

from typing import Final

from fabric_protos.msp import msp_principal_pb2
from fabric_protos.peer import configuration_pb2

from network.embedded.ledger.chaincode import is_text
from network.protocol.endorsement_policy import ChannelRules
from network.protocol.errors import DecodeError, IdentityError
from network.protocol.identity import Identity, decode_serialized_identity
from network.protocol.msp import CLASSIFICATION_ROLE, ChannelMsps, Principal, Role
from network.protocol.policy import SignedData, verified_signatures
from network.protocol.wire import parse

CHANNEL: Final = "/Channel/"
APPLICATION: Final = f"{CHANNEL}Application/"
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
    "cscc/JoinChainBySnapshot": ADMINS,
    "cscc/JoinBySnapshotStatus": ADMINS,
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
    if named is not None:
        failed = f"failed evaluating policy on signed data during check policy [{named}]"
        _evaluate(named, signed, rules, failed, missing=f"policy {named} not found")
        return
    path = CHANNEL_RESOURCES.get(resource)
    if path is None:
        raise AccessError(f"Unmapped policy for {resource}")
    failed = (
        f"Failed evaluating policy on signed data during check policy on channel [{rules.channel_id}] with policy "
        f"[{path}]"
    )
    _evaluate(path, signed, rules, failed)


def check_channel_access(resource: str, signed: SignedData, channel_id: str, rules: ChannelRules | None) -> None:
    """Check access to a channel that somebody named; `rules` None: the peer has not joined it. Raises AccessError."""
    if not channel_id:
        raise AccessError(
            "Invalid channel ID name during check policy on signed data. Name must be different from nil."
        )
    if rules is None:
        raise AccessError(f"Failed to get policy manager for channel [{channel_id}]")
    check_access(resource, signed, rules)


def _evaluate(path: str, signed: SignedData, rules: ChannelRules, failed: str, missing: str | None = None) -> None:
    if missing is not None and path not in rules.trust.policies.by_path:
        raise AccessError(f"{failed}: [{missing}]")
    defect = policy_defect(path, signed, rules)
    if defect is not None:
        raise AccessError(f"{failed}: [{defect}]")


def policy_defect(path: str, signed: SignedData, rules: ChannelRules) -> str | None:
    """Say why a signature does not satisfy a policy of the channel, None when it does."""
    policies = rules.trust.policies
    if path not in policies.by_path:
        return f"no such policy: '{path.removeprefix(CHANNEL)}'"
    identities = tuple([verified.identity for verified in verified_signatures((signed,), rules.msps)])
    return policies.refusal(path, identities)


def _acl(resource: str, rules: ChannelRules) -> str | None:
    """Give the path of the policy that the channel names for a resource, None where it leaves the default.

    Naming none at all leaves it too; what asks for the peer's own organisation is not the channel's to name.
    """
    if resource in LOCAL_RESOURCES or not is_text(resource):
        return None
    application = rules.configuration.root.groups.get("Application")
    value = None if application is None else application.values.get("ACLs")
    if value is None:
        return None
    found = parse(configuration_pb2.ACLs, value.value, "ACLs").acls
    reference: str = found[resource].policy_ref if resource in found else ""
    if not reference:
        return None
    return reference if reference.startswith("/") else f"{APPLICATION}{reference}"


def check_local_access(resource: str, signed: SignedData, msp_id: str, msps: ChannelMsps) -> None:
    """Check that the signer is of the peer's own organisation, and its admin where the resource asks for one.

    Of the signer's role and signature, the signature is looked at last, as in Fabric. The resource of a channel, asked
    for without a channel, is nobody's.

    `msps`: any with the peer's own. Raises AccessError.
    """
    policy = LOCAL_RESOURCES.get(resource) or CHANNEL_RESOURCES.get(resource)
    if policy is None:
        raise AccessError(f"Unmapped policy for {resource}")
    during = f"during channelless check policy with policy [{policy}]"
    unknown = f"Failed deserializing proposal creator {during}"
    try:
        serialized = decode_serialized_identity(signed.identity)
        if serialized.msp_id != msp_id:
            raise AccessError(f"{unknown}: [expected MSP ID {msp_id}, received {serialized.msp_id}]")
        identity = msps.identity(serialized)
    except (DecodeError, IdentityError) as error:
        raise AccessError(f"{unknown}: [{error}]") from error
    role = {ADMINS: Role.ADMIN, MEMBERS: Role.MEMBER}.get(policy)
    if role is None:  # a channel's resource, asked for without a channel
        raise AccessError(
            f"Failed getting local MSP principal {during}: [MSP Principal role [{policy}] not recognized]"
        )
    principal = msp_principal_pb2.MSPRole(msp_identifier=msp_id, role=int(role)).SerializeToString()
    if not msps.satisfies_principal(identity, Principal(CLASSIFICATION_ROLE, principal)):
        raise AccessError(
            f"Failed verifying that proposal's creator satisfies local MSP principal {during}: "
            f"[{_role_defect(identity, role, msps)}]"
        )
    if not identity.has_signed(signed.data, signed.signature):
        raise AccessError("The signature is invalid")


def _role_defect(identity: Identity, role: Role, msps: ChannelMsps) -> str:
    """Say why an identity does not have a role: it is not valid, or it is no admin."""
    msp_id = identity.msp_id
    try:
        msps.verify_identity(identity)
    except IdentityError as error:
        return f"The identity is not valid under this MSP [{msp_id}]: {error}" if role == Role.ADMIN else str(error)
    return (
        f"The identity is not an admin under this MSP [{msp_id}]: The identity does not contain OU [ADMIN], MSP: "
        f"[{msp_id}]"
    )
