"""The functions of `_lifecycle`, as Fabric names them (`core/chaincode/lifecycle/scc.go`)."""

from typing import Final

LIFECYCLE_FUNCTIONS: Final = (
    "InstallChaincode",
    "QueryInstalledChaincode",
    "QueryInstalledChaincodes",
    "GetInstalledChaincodePackage",
    "ApproveChaincodeDefinitionForMyOrg",
    "QueryApprovedChaincodeDefinition",
    "QueryApprovedChaincodeDefinitions",
    "CheckCommitReadiness",
    "CommitChaincodeDefinition",
    "QueryChaincodeDefinition",
    "QueryChaincodeDefinitions",
)
FOR_WRITERS: Final = LIFECYCLE_FUNCTIONS[7:]
"""Those that the channel's writers may call; the others are for the organisation's own admins."""
