"""The networks that are recorded: three organisations and whatever orders, as topology files."""

from enum import StrEnum
from typing import Final

CHANNEL: Final = "consortium"
CHAINCODE, CALLED = "script", "called"
ENTERPRISE, CUSTOMER, PARTNER = "EnterpriseMSP", "CustomerMSP", "PartnerMSP"
PEERS: Final = (ENTERPRISE, CUSTOMER, PARTNER)
PAIR, BRIEF = "pair", "brief"
BFT_ORDERERS: Final = ("FirstOrdererMSP", "SecondOrdererMSP", "ThirdOrdererMSP", "FourthOrdererMSP")
RAFT_ORDERER: Final = "OrdererMSP"
BURST: Final = 500
"""Transactions of the largest block, and the most that orderers put into one."""


class RecordedName(StrEnum):
    """A chain that is recorded, by its folder in `tests/vectors`."""

    RAFT = "kvr-3.1.5-raft"
    BFT = "kvr-3.1.5-bft"
    LTS = "kvr-2.5.16-raft"

    @property
    def is_bft(self) -> bool:
        """Whether four organisations order."""
        return self is RecordedName.BFT

    @property
    def release(self) -> tuple[int, int]:
        """The release of Fabric that its nodes are of."""
        return (2, 5) if self is RecordedName.LTS else (3, 1)


def topology(name: RecordedName) -> str:
    """Write the topology file of a recorded network."""
    ordering = (
        [(msp_id, [f"orderer{number}"]) for number, msp_id in enumerate(BFT_ORDERERS)]
        if name.is_bft
        else [(RAFT_ORDERER, ["orderer0", "orderer1", "orderer2"])]
    )
    channel_capability = "V2_0" if name is RecordedName.LTS else "V3_0"
    orderers = "\n".join(
        f"""\
  - msp_id: {msp_id}
    domain: {msp_id.removesuffix("MSP").lower()}.kvr.test
    orderers: [{", ".join(f"{{name: {node}}}" for node in nodes)}]
    users: [{{name: admin, role: admin}}]"""
        for msp_id, nodes in ordering
    )
    organizations = "\n".join(
        f"""\
  - msp_id: {msp_id}
    domain: {short(msp_id)}.kvr.test
    peers: [{{name: peer0.{short(msp_id)}}}]
    users:
      - {{name: admin, role: admin}}
      - {{name: agent, role: client, attributes: {{role: agent}}}}
      - {{name: leaver, role: client}}"""
        for msp_id in PEERS
    )
    return f"""\
# Recorded for tests: every outcome of a transaction, and changes of the channel itself.
name: {name.value.replace(".", "-")}
consensus: {"bft" if name.is_bft else "raft"}
batch: {{timeout: 200ms, max_messages: {BURST}, preferred_max_bytes: 8388608, absolute_max_bytes: 10485760}}
orderer_organizations:
{orderers}
organizations:
{organizations}
channels:
  - name: {CHANNEL}
    members: [{", ".join(PEERS)}]
    capabilities: {{channel: {channel_capability}, orderer: V2_0, application: V2_5}}
    application_policies:
      Readers: ANY Readers
      Writers: ANY Writers
      Admins: MAJORITY Admins
      Endorsement: MAJORITY Endorsement
      LifecycleEndorsement: OutOf(2, 'EnterpriseMSP.peer', 'CustomerMSP.peer', 'PartnerMSP.peer')
    chaincodes:
      - name: {CHAINCODE}
        version: "1.0"
        sequence: 1
        served_by: script_contract:contract
        endorsement: OutOf(2, 'EnterpriseMSP.peer', 'CustomerMSP.peer', 'PartnerMSP.peer')
        collections:
          - name: {PAIR}
            members: OR('EnterpriseMSP.member', 'CustomerMSP.member')
            endorsement: AND('EnterpriseMSP.peer', 'CustomerMSP.peer')
            max_peer_count: 1
            member_only_read: true
          - name: {BRIEF}
            members: OR('EnterpriseMSP.member', 'CustomerMSP.member')
            block_to_live: 4
            max_peer_count: 1
            member_only_read: false
            member_only_write: false
      - name: {CALLED}
        version: "1.0"
        sequence: 1
        served_by: script_contract:contract
        endorsement: AND('EnterpriseMSP.peer', 'CustomerMSP.peer', 'PartnerMSP.peer')
"""


def short(msp_id: str) -> str:
    """Give the name of an organisation in names of its nodes."""
    return msp_id.removesuffix("MSP").lower()
