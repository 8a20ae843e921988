"""Topology files: read once, checked as a whole, every default filled in.

Rules of Fabric's that are checked here, so that no node has to find them broken: names
(`common/configtx/validator.go`, `core/chaincode/lifecycle/scc.go`), policies that a channel needs
(`internal/configtxgen/encoder/encoder.go`), BFT's (`orderer/consensus/smartbft/util.go`), collections (`scc.go`).
Defaults are those of `sampleconfig/configtx.yaml`; an organisation's policies are by NodeOU, as in Fabric's samples.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from network.errors import TopologyError
from network.protocol.collection import COLLECTION_NAME
from network.protocol.config_group import CONFIGURATION_NAME, MAX_NAME_CHARACTERS
from network.protocol.configuration import CHANNEL_ID
from network.protocol.lifecycle import CHAINCODE_NAME, CHAINCODE_VERSION, MAX_SEQUENCE, SYSTEM_CHAINCODES
from network.protocol.limits import MAX_BLOCK_NUMBER
from network.topology.definition import (
    Batch,
    Capabilities,
    Chaincode,
    Channel,
    Collection,
    ConsensusType,
    Node,
    Organization,
    Topology,
    User,
    UserRole,
)
from network.topology.document import Entry, Section, read_document, shown
from network.topology.policy_text import group_policy, member_policy, policies, signature_policy

LARGEST_PORT: Final = 65_535
LARGEST_BATCH_BYTES: Final = 49 * 1024 * 1024
"""What `sampleconfig/configtx.yaml` recommends, since nodes take messages of 100 MiB."""
LARGEST_BATCH_MESSAGES: Final = 100_000
LONGEST_TIMEOUT_MS: Final = 60 * 60 * 1000
SMALLEST_BFT_NETWORK: Final = 4
LARGEST_PEER_COUNT: Final = 2**31 - 1

# A certificate's common name has 64 characters: names of people and nodes are kept below it here.
LONGEST_COMMON_NAME: Final = 64
LONGEST_DOMAIN: Final = LONGEST_COMMON_NAME - len("tlsca.")
LONGEST_CHAINCODE: Final = LONGEST_COMMON_NAME - len(" client")

CAPABILITIES: Final = {"channel": ("V2_0", "V3_0"), "orderer": ("V2_0",), "application": ("V2_0", "V2_5")}
"""Of Fabric 2.5 and 3: older levels know neither this lifecycle of chaincodes nor admins by NodeOU."""

DEFAULT_BATCH: Final = Batch(
    timeout_ms=2000, max_messages=500, preferred_max_bytes=2 * 1024 * 1024, absolute_max_bytes=10 * 1024 * 1024
)
DEFAULT_RAFT_TICK_MS: Final = 500
DEFAULT_CAPABILITIES: Final = Capabilities(channel="V3_0", orderer="V2_0", application="V2_5")
DEFAULT_POLICIES: Final = {"Readers": "ANY Readers", "Writers": "ANY Writers", "Admins": "MAJORITY Admins"}
DEFAULT_ORDERER_POLICIES: Final = DEFAULT_POLICIES | {"BlockValidation": "ANY Writers"}
DEFAULT_APPLICATION_POLICIES: Final = DEFAULT_POLICIES | {
    "Endorsement": "MAJORITY Endorsement",
    "LifecycleEndorsement": "MAJORITY Endorsement",
}

RESOURCES: Final = tuple(
    [
        f"{service}/{call}"
        for service, calls in {
            "_lifecycle": (
                "InstallChaincode QueryInstalledChaincode GetInstalledChaincodePackage QueryInstalledChaincodes"
                " ApproveChaincodeDefinitionForMyOrg QueryApprovedChaincodeDefinition QueryApprovedChaincodeDefinitions"
                " CommitChaincodeDefinition QueryChaincodeDefinition QueryChaincodeDefinitions CheckCommitReadiness"
            ),
            "snapshot": "submitrequest cancelrequest listpending",
            "lscc": (
                "Install Deploy Upgrade ChaincodeExists GetDeploymentSpec GetChaincodeData GetInstantiatedChaincodes"
                " GetInstalledChaincodes GetCollectionsConfig"
            ),
            "qscc": "GetChainInfo GetBlockByNumber GetBlockByHash GetTransactionByID GetBlockByTxID",
            "cscc": ("JoinChain JoinChainBySnapshot JoinBySnapshotStatus GetConfigBlock GetChannelConfig GetChannels"),
            "peer": "Propose ChaincodeToChaincode",
            "event": "Block FilteredBlock",
            "gateway": "CommitStatus ChaincodeEvents",
        }.items()
        for call in calls.split()
    ]
)
"""What access can be set for (`core/aclmgmt/resources/resources.go`)."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_HOST_NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
_SERVED_BY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*:[A-Za-z_][A-Za-z0-9_]*")
_DURATION = re.compile(r"([1-9][0-9]{0,8})(ms|s|m)")
_MILLISECONDS: Final = {"ms": 1, "s": 1000, "m": 60_000}


def read_topology(path: Path) -> Topology:
    """Read and check a topology file; raises TopologyError that names file, line and reason."""
    entry = read_document(path)
    root = entry.section(
        (
            *("name", "certificates", "consensus", "raft_tick", "batch"),
            *("orderer_organizations", "organizations", "channels"),
        )
    )
    if (certificates := root.get("certificates")) is not None:
        certificates.choice(("generated",))
    return _Reader(root).topology()


def shipped_topology(name: str) -> Path:
    """Give the file of a topology that comes with this package; raises TopologyError that lists them."""
    files = {file.stem: file for file in Path(__file__).parent.glob("*.yaml")}
    if name not in files:
        raise TopologyError(f"no topology {shown(name)} is shipped; there are: {', '.join(sorted(files))}")
    return files[name]


class _Reader:
    """Reads one file; what an entry may refer to was read before it."""

    def __init__(self, root: Section) -> None:
        self._root = root
        self._lines: dict[tuple[str, str | int], int] = {}
        self._consensus = ConsensusType(root["consensus"].choice([kind.value for kind in ConsensusType]))
        self._orderers = self._organizations("orderer_organizations", is_orderer=True)
        self._members = self._organizations("organizations", is_orderer=False)
        self._by_id = {organization.msp_id: organization for organization in self._members}

    def topology(self) -> Topology:
        root = self._root
        count = sum(len(organization.nodes) for organization in self._orderers)
        if self._consensus is ConsensusType.BFT and count < SMALLEST_BFT_NETWORK:
            raise root["orderer_organizations"].mistake(
                f"bft needs at least {SMALLEST_BFT_NETWORK} orderers, not {count}"
            )
        return Topology(
            name=root["name"].matching(_NAME, "a name of letters, digits, '.', '_' and '-'", longest=64),
            organizations=self._members,
            orderer_organizations=self._orderers,
            consensus=self._consensus,
            raft_tick_ms=self._raft_tick(),
            batch=_batch(root.get("batch")),
            channels=tuple([self._channel(entry) for entry in root["channels"].some()]),
        )

    def _raft_tick(self) -> int:
        given = self._root.get("raft_tick")
        if given is None:
            return DEFAULT_RAFT_TICK_MS
        if self._consensus is not ConsensusType.RAFT:
            raise given.mistake("only raft has one")
        return _milliseconds(given)

    def _take(self, entry: Entry, kind: str, name: str | int) -> None:
        """Refuse what the file says for the second time."""
        line = self._lines.get((kind, name))
        if line is not None:
            raise entry.mistake(f"the same {kind} as in line {line}")
        self._lines[kind, name] = entry.line

    # --- organisations

    def _organizations(self, key: str, *, is_orderer: bool) -> tuple[Organization, ...]:
        return tuple([self._organization(entry, is_orderer=is_orderer) for entry in self._root[key].some()])

    def _organization(self, entry: Entry, *, is_orderer: bool) -> Organization:
        nodes_key = "orderers" if is_orderer else "peers"
        section = entry.section(("msp_id", "domain", nodes_key, "users", "policies"))
        msp_id = _configuration_name(section["msp_id"], "an MSP id of letters, digits, '.' and '-'")
        self._take(section["msp_id"], "MSP id", msp_id)
        domain = section["domain"].matching(_HOST_NAME, "a domain in lower case", longest=LONGEST_DOMAIN)
        self._take(section["domain"], "domain", domain)
        nodes = section[nodes_key].some() if is_orderer else section.items(nodes_key)
        return Organization(
            msp_id=msp_id,
            domain=domain,
            nodes=tuple([self._node(node) for node in nodes]),
            users=self._users(section["users"], msp_id, domain),
            policies=_organization_policies(section.get("policies"), msp_id, is_orderer=is_orderer),
            is_orderer=is_orderer,
        )

    def _node(self, entry: Entry) -> Node:
        section = entry.section(("name", "port"))
        name = section["name"].matching(_HOST_NAME, "a host name in lower case", longest=LONGEST_COMMON_NAME)
        self._take(section["name"], "name of a process", name)
        port_entry = section.get("port")
        port = port_entry.number(0, LARGEST_PORT) if port_entry else 0
        if port_entry and port:
            self._take(port_entry, "port", port)
        return Node(name, port)

    def _users(self, entry: Entry, msp_id: str, domain: str) -> tuple[User, ...]:
        users = []
        for item in entry.items():
            section = item.section(("name", "role", "attributes"))
            longest = LONGEST_COMMON_NAME - len(f"@{domain}")
            name = section["name"].matching(_NAME, "a name of letters, digits, '.', '_' and '-'", longest=longest)
            self._take(section["name"], f"user of {msp_id}", name)
            role = UserRole(section["role"].choice([role.value for role in UserRole]))
            attributes = section.get("attributes")
            found = attributes.mapping() if attributes else {}
            users.append(User(name, role, {key: value.text() for key, value in found.items()}))
        if all(user.role is not UserRole.ADMIN for user in users):
            raise entry.mistake("an organisation needs a user with role admin")
        return tuple(users)

    # --- channels

    def _channel(self, entry: Entry) -> Channel:
        section = entry.section((
            "name", "members", "capabilities", "channel_policies", "orderer_policies", "application_policies", "acls",
            "chaincodes",
        ))  # fmt: skip
        rule = "a channel's name: lower-case letters, digits, '.' and '-', a letter first"
        name = section["name"].matching(CHANNEL_ID, rule, longest=MAX_NAME_CHARACTERS)
        self._take(section["name"], "channel", name)
        members = self._channel_members(section["members"], name)
        groups = self._group_policies(section, members)
        acls = section.get("acls")
        return Channel(
            name=name,
            members=tuple([member.msp_id for member in members]),
            capabilities=self._capabilities(section.get("capabilities")),
            channel_policies=groups["/Channel"],
            orderer_policies=groups["/Channel/Orderer"],
            application_policies=groups["/Channel/Application"],
            acls=_acls(acls, groups) if acls else {},
            chaincodes=tuple([self._chaincode(item, members) for item in section.items("chaincodes")]),
        )

    def _channel_members(self, entry: Entry, channel: str) -> list[Organization]:
        members = []
        for item in entry.some():
            msp_id = item.choice(list(self._by_id))
            self._take(item, f"member of {channel}", msp_id)
            members.append(self._by_id[msp_id])
        if not any(member.nodes for member in members):
            raise entry.mistake("no member has a peer")
        return members

    def _capabilities(self, entry: Entry | None) -> Capabilities:
        if entry is None:
            return DEFAULT_CAPABILITIES
        section = entry.section(tuple(CAPABILITIES))
        given = {level: section[level].choice(known) for level, known in CAPABILITIES.items()}
        if self._consensus is ConsensusType.BFT and given["channel"] != "V3_0":
            raise section["channel"].mistake("bft needs V3_0")
        return Capabilities(**given)

    def _group_policies(self, section: Section, members: list[Organization]) -> dict[str, Mapping[str, str]]:
        """Give the policies of every group of a channel by the group's path."""
        msp_ids = [organization.msp_id for organization in (*members, *self._orderers)]
        orderer_defaults = DEFAULT_ORDERER_POLICIES
        if self._consensus is ConsensusType.BFT:
            orderer_defaults = DEFAULT_POLICIES
            given = section.get("orderer_policies")
            if given and (block_validation := given.mapping().get("BlockValidation")):
                raise block_validation.mistake("with bft it is a quorum of the orderers; leave it out")
        orderers, applications = (
            {organization.msp_id: organization.policies for organization in organizations}
            for organizations in (self._orderers, members)
        )

        def read(key: str, defaults: Mapping[str, str], children: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
            given = section.get(key)
            # What is wrong with a default is wrong with the channel.
            place = given or replace(section.entry, path=f"{section.entry.path}.{key}")
            found = policies(given, defaults) if given else dict.fromkeys(defaults, place)
            return {
                name: group_policy(policy, policy.text() if given else defaults[name], msp_ids, list(children.values()))
                for name, policy in found.items()
            }

        orderer = read("orderer_policies", orderer_defaults, orderers)
        application = read("application_policies", DEFAULT_APPLICATION_POLICIES, applications)
        channel = read("channel_policies", DEFAULT_POLICIES, {"Orderer": orderer, "Application": application})
        return {
            "/Channel": channel,
            "/Channel/Orderer": orderer,
            "/Channel/Application": application,
            **{f"/Channel/Orderer/{msp_id}": names for msp_id, names in orderers.items()},
            **{f"/Channel/Application/{msp_id}": names for msp_id, names in applications.items()},
        }

    def _chaincode(self, entry: Entry, members: list[Organization]) -> Chaincode:
        section = entry.section((
            "name", "version", "sequence", "served_by", "init_required", "endorsement", "collections",
        ))  # fmt: skip
        rule = "a chaincode's name: letters, digits, single '-' and '_' between them"
        name = section["name"].matching(CHAINCODE_NAME, rule, longest=LONGEST_CHAINCODE)
        if name in SYSTEM_CHAINCODES:
            raise section["name"].mistake(f"{shown(name)} is the name of a system chaincode")
        self._take(section["name"], "chaincode", name)
        for member in members:
            self._take(section["name"], "name of a process", f"{name}.{member.msp_id}")
        rule = "a version of letters, digits, '_', '.', '+' and '-'"
        sequence, init = section.get("sequence"), section.get("init_required")
        msp_ids = [organization.msp_id for organization in (*members, *self._orderers)]
        return Chaincode(
            name=name,
            version=section["version"].matching(CHAINCODE_VERSION, rule, longest=64),
            sequence=sequence.number(1, MAX_SEQUENCE) if sequence else 1,
            served_by=section["served_by"].matching(_SERVED_BY, "of the form package.module:object", longest=200),
            init_required=init.flag() if init else False,
            endorsement=signature_policy(section["endorsement"], msp_ids),
            collections=tuple(
                [
                    self._collection(item, name, [member.msp_id for member in members])
                    for item in section.items("collections")
                ]
            ),
        )

    def _collection(self, entry: Entry, chaincode: str, msp_ids: list[str]) -> Collection:
        section = entry.section((
            "name", "members", "endorsement", "required_peer_count", "max_peer_count", "block_to_live",
            "member_only_read", "member_only_write",
        ))  # fmt: skip
        rule = "a collection's name: letters, digits, '_' and '-', no '_' first"
        name = section["name"].matching(COLLECTION_NAME, rule, longest=MAX_NAME_CHARACTERS)
        self._take(section["name"], f"collection of {chaincode}", name)

        def count(key: str, largest: int) -> int:
            given = section.get(key)
            return given.number(0, largest) if given else 0

        def flag(key: str) -> bool:
            given = section.get(key)
            return given.flag() if given else True

        required, maximum = (count(key, LARGEST_PEER_COUNT) for key in ("required_peer_count", "max_peer_count"))
        if required > maximum:
            raise section["required_peer_count"].mistake(f"{required} is more than max_peer_count, which is {maximum}")
        endorsement = section.get("endorsement")
        return Collection(
            name=name,
            members=member_policy(section["members"], msp_ids),
            endorsement=signature_policy(endorsement, msp_ids) if endorsement else "",
            required_peer_count=required,
            max_peer_count=maximum,
            block_to_live=count("block_to_live", MAX_BLOCK_NUMBER),
            member_only_read=flag("member_only_read"),
            member_only_write=flag("member_only_write"),
        )


def _configuration_name(entry: Entry, expected: str) -> str:
    name = entry.matching(CONFIGURATION_NAME, expected, longest=MAX_NAME_CHARACTERS)
    if name in (".", ".."):
        raise entry.mistake(f"{shown(name)} is not {expected}")
    return name


def _organization_policies(entry: Entry | None, msp_id: str, *, is_orderer: bool) -> Mapping[str, str]:
    if entry is not None:
        # Channels differ in their members: nobody but the organisation itself is sure to be there.
        return {name: signature_policy(policy, [msp_id]) for name, policy in policies(entry, ("Admins",)).items()}
    admins = f"OR('{msp_id}.admin')"
    if is_orderer:
        return {"Readers": f"OR('{msp_id}.member')", "Writers": f"OR('{msp_id}.member')", "Admins": admins}
    return {
        "Readers": f"OR('{msp_id}.admin', '{msp_id}.peer', '{msp_id}.client')",
        "Writers": f"OR('{msp_id}.admin', '{msp_id}.client')",
        "Admins": admins,
        "Endorsement": f"OR('{msp_id}.peer')",
    }


def _acls(entry: Entry, groups: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    paths = {f"{group}/{name}" for group, names in groups.items() for name in names}
    references = {}
    for resource, reference in entry.section(RESOURCES).entries.items():
        text = reference.text()
        if (text if text.startswith("/") else f"/Channel/Application/{text}") not in paths:
            raise reference.mistake(f"the channel has no policy {shown(text)}")
        references[resource] = text
    return references


def _batch(entry: Entry | None) -> Batch:
    if entry is None:
        return DEFAULT_BATCH
    section = entry.section(("timeout", "max_messages", "preferred_max_bytes", "absolute_max_bytes"))

    def number(key: str, default: int, largest: int) -> int:
        given = section.get(key)
        return given.number(1, largest) if given else default

    preferred = number("preferred_max_bytes", DEFAULT_BATCH.preferred_max_bytes, LARGEST_BATCH_BYTES)
    absolute = number("absolute_max_bytes", DEFAULT_BATCH.absolute_max_bytes, LARGEST_BATCH_BYTES)
    if preferred > absolute:
        raise entry.mistake(f"preferred_max_bytes, {preferred}, is more than absolute_max_bytes, {absolute}")
    timeout = section.get("timeout")
    return Batch(
        timeout_ms=_milliseconds(timeout) if timeout else DEFAULT_BATCH.timeout_ms,
        max_messages=number("max_messages", DEFAULT_BATCH.max_messages, LARGEST_BATCH_MESSAGES),
        preferred_max_bytes=preferred,
        absolute_max_bytes=absolute,
    )


def _milliseconds(entry: Entry) -> int:
    match = _DURATION.fullmatch(entry.text())
    found = int(match[1]) * _MILLISECONDS[match[2]] if match else 0
    if not 0 < found <= LONGEST_TIMEOUT_MS:
        raise entry.mistake("a time such as 200ms, 2s or 1m was expected, of at most an hour")
    return found
