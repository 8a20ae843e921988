import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from network.errors import TopologyError
from network.topology.definition import Batch, Capabilities, Chaincode, Collection, ConsensusType, Node, User, UserRole
from network.topology.document import MAX_DOCUMENT_BYTES, MAX_DOCUMENT_DEPTH, MAX_DOCUMENT_VALUES
from network.topology.topology_file import read_topology, shipped_topology

SMALL = """\
name: small
certificates: generated
consensus: raft
batch: {timeout: 1s, max_messages: 10}
orderer_organizations:
  - msp_id: OrdererMSP
    domain: orderer.test
    orderers:
      - {name: orderer0, port: 7050}
    users: [{name: admin, role: admin}]
organizations:
  - msp_id: OneMSP
    domain: one.test
    peers:
      - {name: peer0.one, port: 7051}
    users:
      - {name: admin, role: admin}
      - {name: agent, role: client, attributes: {role: agent}}
  - msp_id: TwoMSP
    domain: two.test
    users: [{name: admin, role: admin}]
    policies:
      Readers: OR('TwoMSP.member')
      Admins: OR('TwoMSP.admin')
channels:
  - name: trade
    members: [OneMSP, TwoMSP]
    capabilities: {channel: V2_0, orderer: V2_0, application: V2_5}
    application_policies:
      Readers: ANY Readers
      Writers: ANY Writers
      Admins: ALL Admins
      Endorsement: ANY Endorsement
      LifecycleEndorsement: OR('OneMSP.peer')
    acls:
      peer/Propose: Readers
      event/Block: /Channel/Orderer/OrdererMSP/Admins
    chaincodes:
      - name: deeds
        version: "1.0"
        served_by: deeds.contract:contract
        endorsement: OutOf(1, 'OneMSP.peer', 'TwoMSP.peer')
        collections:
          - name: secret
            members: OR('OneMSP.member', OutOf(1, 'TwoMSP.member'))
            max_peer_count: 2
"""
ROOT_KEYS = "name, certificates, consensus, raft_tick, batch, orderer_organizations, organizations, channels"
ORGANIZATION, CHANNEL = "organizations[0]", "channels[0]"
APPLICATION = f"{CHANNEL}.application_policies"
CHAINCODE, COLLECTION = f"{CHANNEL}.chaincodes[0]", f"{CHANNEL}.chaincodes[0].collections[0]"


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "topology.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def refusal(folder: Path, text: str | bytes) -> str:
    path = written(folder, text)
    with pytest.raises(TopologyError) as caught:
        read_topology(path)
    return str(caught.value).removeprefix(f"{path}:")


def changed(old: str, new: str) -> str:
    assert SMALL.count(old) == 1
    return SMALL.replace(old, new)


def before_policies(line: str) -> str:
    return changed("    application_policies:", f"    {line.strip()}\n    application_policies:")


def test_the_shipped_topology_is_the_consortium() -> None:
    topology = read_topology(shipped_topology("dev"))

    assert (topology.name, topology.consensus) == ("dev", ConsensusType.RAFT)
    assert topology.batch == Batch(200, 100, 2097152, 10485760)
    assert topology.raft_tick_ms == 200
    assert [organization.msp_id for organization in topology.organizations] == [
        "ServiceMSP",
        "BillingMSP",
        "FieldMSP",
        "CustomerMSP",
        "AuditorMSP",
    ]
    (orderers,) = topology.orderer_organizations
    assert orderers.is_orderer
    assert orderers.nodes == (Node("orderer0", 0), Node("orderer1", 0), Node("orderer2", 0))
    channel = topology.channel("consortium")
    assert channel.members == tuple([organization.msp_id for organization in topology.organizations])
    assert channel.capabilities == Capabilities("V3_0", "V2_0", "V2_5")
    assert channel.acls == {"peer/Propose": "/Channel/Application/Readers"}
    (chaincode,) = channel.chaincodes
    both_sides = "AND('CustomerMSP.peer', OutOf(1, 'ServiceMSP.peer', 'BillingMSP.peer', 'FieldMSP.peer'))"
    assert replace(chaincode, collections=()) == Chaincode(
        "service", "1.0", 1, "chaincode.service:contract", init_required=False, endorsement=both_sides, collections=()
    )
    assert [collection.name for collection in chaincode.collections] == [
        "service",
        "billing",
        "field",
        "service-billing",
        "service-field",
        "billing-field",
        "service-customer",
    ]


def test_auditors_have_no_policy_beyond_those_they_are_given() -> None:
    auditor = read_topology(shipped_topology("dev")).organization("AuditorMSP")

    assert set(auditor.policies) == {"Readers", "Admins"}
    assert auditor.nodes == ()
    assert auditor.users[1] == User("auditor", UserRole.CLIENT, {"role": "auditor"})


def test_what_is_left_out_is_filled_in(tmp_path: Path) -> None:
    text = changed("batch: {timeout: 1s, max_messages: 10}\n", "").replace(
        "    capabilities: {channel: V2_0, orderer: V2_0, application: V2_5}\n", ""
    )

    topology = read_topology(written(tmp_path, text))

    one, orderer, channel = (topology.organization("OneMSP"), topology.orderer_organizations[0], topology.channels[0])
    assert topology.batch == Batch(2000, 500, 2 * 1024 * 1024, 10 * 1024 * 1024)
    assert topology.raft_tick_ms == 500
    assert one.policies == {
        "Readers": "OR('OneMSP.admin', 'OneMSP.peer', 'OneMSP.client')",
        "Writers": "OR('OneMSP.admin', 'OneMSP.client')",
        "Admins": "OR('OneMSP.admin')",
        "Endorsement": "OR('OneMSP.peer')",
    }
    assert orderer.policies == {
        "Readers": "OR('OrdererMSP.member')",
        "Writers": "OR('OrdererMSP.member')",
        "Admins": "OR('OrdererMSP.admin')",
    }
    assert channel.capabilities == Capabilities("V3_0", "V2_0", "V2_5")
    assert channel.channel_policies == {"Readers": "ANY Readers", "Writers": "ANY Writers", "Admins": "MAJORITY Admins"}
    assert channel.orderer_policies == {**channel.channel_policies, "BlockValidation": "ANY Writers"}
    assert channel.chaincodes[0].sequence == 1
    assert channel.chaincodes[0].collections == (
        Collection(
            name="secret",
            members="OR('OneMSP.member', OutOf(1, 'TwoMSP.member'))",
            endorsement="",
            required_peer_count=0,
            max_peer_count=2,
            block_to_live=0,
            member_only_read=True,
            member_only_write=True,
        ),
    )


def test_what_is_given_is_taken(tmp_path: Path) -> None:
    text = changed("timeout: 1s", "timeout: 1s, preferred_max_bytes: 5, absolute_max_bytes: 6")
    text = text.replace('version: "1.0"', 'version: "1.0"\n        sequence: 3\n        init_required: true')
    text = text.replace(
        "max_peer_count: 2",
        "max_peer_count: 2\n            required_peer_count: 1\n            block_to_live: 7\n"
        "            member_only_read: false\n            member_only_write: false\n"
        "            endorsement: AND('OneMSP.peer')",
    )

    topology = read_topology(written(tmp_path, text))

    assert topology.batch == Batch(1000, 10, 5, 6)
    chaincode = topology.channels[0].chaincodes[0]
    assert (chaincode.version, chaincode.sequence, chaincode.init_required) == ("1.0", 3, True)
    (collection,) = chaincode.collections
    assert (collection.required_peer_count, collection.max_peer_count, collection.block_to_live) == (1, 2, 7)
    assert (collection.member_only_read, collection.member_only_write) == (False, False)
    assert collection.endorsement == "AND('OneMSP.peer')"
    assert topology.organizations[0].nodes == (Node("peer0.one", 7051),)


def test_the_choice_of_any_number_of_ports_may_be_left_open(tmp_path: Path) -> None:
    text = SMALL.replace("port: 7050", "port: 0").replace("port: 7051", "port: 0")

    topology = read_topology(written(tmp_path, text))

    assert [organization.nodes[0].port for organization in topology.all_organizations if organization.nodes] == [0, 0]


def test_bft_finds_block_validation_by_itself(tmp_path: Path) -> None:
    topology = read_topology(written(tmp_path, bft_text()))

    assert topology.consensus is ConsensusType.BFT
    assert set(topology.channels[0].orderer_policies) == {"Readers", "Writers", "Admins"}


def bft_text(orderers: int = 4) -> str:
    more = "".join(f"      - {{name: orderer{number}}}\n" for number in range(1, orderers))
    text = changed("consensus: raft", "consensus: bft").replace("port: 7050}\n", "port: 7050}\n" + more)
    return text.replace("channel: V2_0", "channel: V3_0")


def test_a_byte_order_mark_and_line_ends_of_windows_are_read(tmp_path: Path) -> None:
    path = written(tmp_path, b"\xef\xbb\xbf" + SMALL.replace("\n", "\r\n").encode())

    assert read_topology(path).name == "small"


WRONG = [
    # the document
    ("", "1: the document is empty"),
    ("# nothing\n", "1: the document is empty"),
    ("- name", "1: a mapping was expected, not a list"),
    ("name: small\n", "1: consensus is missing"),
    (SMALL + "---\na: 1\n", "47: but found another document"),
    (SMALL + "  : [\n", "47: expected <block end>, but found ':'"),
    (b"name: small\nconsensus: \xff\n", "2: not UTF-8 text"),
    ("name: small\nconsensus: \x00\n", "2: a character that YAML does not allow"),
    ('name: small\nconsensus: "\\UFFFFFFFF"\n', "2: not YAML"),
    ("%YAML 1." + "9" * 5000 + "\n--- {}\n", "1: not YAML"),
    (SMALL + "name: again\n", "47: name: here for the second time"),
    (changed("name: small", "name: &a small"), "1: anchors and aliases are not known here"),
    (changed("name: small", "name: *a"), "1: anchors and aliases are not known here"),
    (changed("name: small", "name: !!str small"), "1: tags are not known here"),
    (changed("name: small", "<<: {name: small}"), "1: text was expected, not a merge; quote it"),
    (changed("name: small", "name: small\n7: small"), "2: text was expected, not a number; quote it"),
    (f"name: {'[' * MAX_DOCUMENT_DEPTH}", "1: nested too deep"),
    ("- a\n" * MAX_DOCUMENT_VALUES, f"{MAX_DOCUMENT_VALUES}: too many values"),
    ("#" * (MAX_DOCUMENT_BYTES + 1), "1: larger than 1048576 bytes"),
    # the network
    (changed("consensus: raft", "concensus: raft"), "3: concensus: not known here; did you mean consensus?"),
    (
        changed("certificates: generated", "zzzz: generated"),
        f"2: zzzz: not known here; known: {ROOT_KEYS}",
    ),
    (
        changed("certificates: generated", "certificates: bought"),
        "2: certificates: 'bought' is not known; known: generated",
    ),
    (changed("consensus: raft", "consensus: kafka"), "3: consensus: 'kafka' is not known; known: raft, bft"),
    (
        changed("name: small", "name: ../small"),
        "1: name: '../small' is not a name of letters, digits, '.', '_' and '-'",
    ),
    (changed("name: small", "name:"), "1: name: text was expected, not nothing"),
    (changed("name: small", "name: yes"), "1: name: text was expected, not true or false; quote it"),
    (changed("name: small", "name: 2024-01-01"), "1: name: text was expected, not a date; quote it"),
    (changed("name: small", "name: [small]"), "1: name: text was expected, not a list"),
    (changed("name: small", 'name: ""'), "1: name: text was expected"),
    (changed("name: small", 'name: "a\\u0007"'), "1: name: text was expected, without control characters"),
    (changed("name: small", 'name: "a\\ud800"'), "1: name: text was expected, without control characters"),
    # consensus
    (
        changed("consensus: raft", "consensus: raft\nraft_tick: 0ms"),
        "4: raft_tick: a time such as 200ms, 2s or 1m was expected, of at most an hour",
    ),
    (
        changed("consensus: raft", "consensus: raft\nraft_tick: 5"),
        "4: raft_tick: text was expected, not a number; quote it",
    ),
    (bft_text().replace("consensus: bft", "consensus: bft\nraft_tick: 1s"), "4: raft_tick: only raft has one"),
    # batches
    (changed("timeout: 1s", "timeout: 1"), "4: batch.timeout: text was expected, not a number; quote it"),
    (
        changed("timeout: 1s", "timeout: 1h"),
        "4: batch.timeout: a time such as 200ms, 2s or 1m was expected, of at most an hour",
    ),
    (
        changed("timeout: 1s", "timeout: 61m"),
        "4: batch.timeout: a time such as 200ms, 2s or 1m was expected, of at most an hour",
    ),
    (
        changed("max_messages: 10", "max_messages: 0"),
        "4: batch.max_messages: a whole number from 1 to 100000 was expected",
    ),
    (
        changed("max_messages: 10", "max_messages: 0x10"),
        "4: batch.max_messages: a whole number from 1 to 100000 was expected",
    ),
    (
        changed("max_messages: 10", "max_messages: '10'"),
        "4: batch.max_messages: a whole number from 1 to 100000 was expected",
    ),
    (
        changed("max_messages: 10", "absolute_max_bytes: 51380225"),
        "4: batch.absolute_max_bytes: a whole number from 1 to 51380224 was expected",
    ),
    (
        changed("max_messages: 10", "preferred_max_bytes: 9, absolute_max_bytes: 8"),
        "4: batch: preferred_max_bytes, 9, is more than absolute_max_bytes, 8",
    ),
    # organisations
    (
        changed("msp_id: OneMSP", "msp_id: One MSP"),
        f"12: {ORGANIZATION}.msp_id: 'One MSP' is not an MSP id of letters, digits, '.' and '-'",
    ),
    (
        changed("msp_id: OneMSP", "msp_id: .."),
        f"12: {ORGANIZATION}.msp_id: '..' is not an MSP id of letters, digits, '.' and '-'",
    ),
    (changed("msp_id: TwoMSP", "msp_id: OneMSP"), "19: organizations[1].msp_id: the same MSP id as in line 12"),
    (changed("msp_id: OneMSP", "msp_id: OrdererMSP"), f"12: {ORGANIZATION}.msp_id: the same MSP id as in line 6"),
    (changed("  - msp_id: OneMSP\n    domain", "  - domain"), f"12: {ORGANIZATION}: msp_id is missing"),
    (changed("domain: two.test", "domain: one.test"), "20: organizations[1].domain: the same domain as in line 13"),
    (
        changed("domain: two.test", "domain: Two.test"),
        "20: organizations[1].domain: 'Two.test' is not a domain in lower case",
    ),
    (
        changed("domain: two.test", f"domain: {'a' * 59}"),
        "20: organizations[1].domain: longer than 58 characters",
    ),
    (
        changed("name: peer0.one,", "name: peer0_one,"),
        f"15: {ORGANIZATION}.peers[0].name: 'peer0_one' is not a host name in lower case",
    ),
    (
        changed("name: peer0.one,", "name: orderer0,"),
        f"15: {ORGANIZATION}.peers[0].name: the same name of a process as in line 9",
    ),
    (changed("port: 7051", "port: 7050"), f"15: {ORGANIZATION}.peers[0].port: the same port as in line 9"),
    (
        changed("port: 7051", "port: 65536"),
        f"15: {ORGANIZATION}.peers[0].port: a whole number from 0 to 65535 was expected",
    ),
    (
        changed("port: 7051", "port: -1"),
        f"15: {ORGANIZATION}.peers[0].port: a whole number from 0 to 65535 was expected",
    ),
    (changed("port: 7051", "prot: 7051"), f"15: {ORGANIZATION}.peers[0].prot: not known here; did you mean port?"),
    (
        changed("    orderers:\n      - {name: orderer0, port: 7050}\n", ""),
        "6: orderer_organizations[0]: orderers is missing",
    ),
    (
        changed("    orderers:\n      - {name: orderer0, port: 7050}\n", "    orderers: []\n"),
        "8: orderer_organizations[0].orderers: at least one is needed",
    ),
    (
        changed("    orderers:", "    peers:"),
        "8: orderer_organizations[0].peers: not known here; known: msp_id, domain, orderers, users, policies",
    ),
    (
        changed("{name: agent,", "{name: admin,"),
        f"18: {ORGANIZATION}.users[1].name: the same user of OneMSP as in line 17",
    ),
    (
        changed("{name: agent,", "{name: a/b,"),
        f"18: {ORGANIZATION}.users[1].name: 'a/b' is not a name of letters, digits, '.', '_' and '-'",
    ),
    (
        changed("role: client", "role: clerk"),
        f"18: {ORGANIZATION}.users[1].role: 'clerk' is not known; known: client, admin",
    ),
    (
        changed("attributes: {role: agent}", "attributes: {role: 1}"),
        f"18: {ORGANIZATION}.users[1].attributes.role: text was expected, not a number; quote it",
    ),
    (
        changed("attributes: {role: agent}", "attributes: [role]"),
        f"18: {ORGANIZATION}.users[1].attributes: a mapping was expected, not a list",
    ),
    (
        changed("      - {name: admin, role: admin}\n", ""),
        f"16: {ORGANIZATION}.users: an organisation needs a user with role admin",
    ),
    (
        changed("Admins: OR('TwoMSP.admin')", "Writers: OR('TwoMSP.admin')"),
        "22: organizations[1].policies: Admins is missing",
    ),
    (
        changed("Readers: OR('TwoMSP.member')", "Read ers: OR('TwoMSP.member')"),
        "23: organizations[1].policies.Read ers: a policy's name has letters, digits, '.' and '-'",
    ),
    (
        changed("Readers: OR('TwoMSP.member')", "Readers: OR('OneMSP.member')"),
        "23: organizations[1].policies.Readers: 'OneMSP' is no organisation here; known: TwoMSP",
    ),
    (
        changed("Readers: OR('TwoMSP.member')", "Readers: ANY Readers"),
        "23: organizations[1].policies.Readers: policy, column 1: AND, OR or OutOf was expected",
    ),
    # channels
    (
        changed("channels:\n  - name: trade", "channels: []\nother:\n  - name: trade"),
        f"26: other: not known here; known: {ROOT_KEYS}",
    ),
    (
        changed("name: trade", "name: Trade"),
        f"26: {CHANNEL}.name: 'Trade' is not a channel's name: lower-case letters, digits, '.' and '-', a letter first",
    ),
    (
        changed("members: [OneMSP, TwoMSP]", "members: [OneMSP, OneMSP]"),
        f"27: {CHANNEL}.members[1]: the same member of trade as in line 27",
    ),
    (
        changed("members: [OneMSP, TwoMSP]", "members: [OneMSP, OrdererMSP]"),
        f"27: {CHANNEL}.members[1]: 'OrdererMSP' is not known; known: OneMSP, TwoMSP",
    ),
    (changed("members: [OneMSP, TwoMSP]", "members: all"), f"27: {CHANNEL}.members: a list was expected, not text"),
    (changed("members: [OneMSP, TwoMSP]", "members: []"), f"27: {CHANNEL}.members: at least one is needed"),
    (changed("members: [OneMSP, TwoMSP]", "members: [TwoMSP]"), f"27: {CHANNEL}.members: no member has a peer"),
    (
        changed("channel: V2_0", "channel: V1_4_3"),
        f"28: {CHANNEL}.capabilities.channel: 'V1_4_3' is not known; known: V2_0, V3_0",
    ),
    (
        changed("application: V2_5", "application: V3_0"),
        f"28: {CHANNEL}.capabilities.application: 'V3_0' is not known; did you mean V2_0?",
    ),
    (changed(", application: V2_5", ""), f"28: {CHANNEL}.capabilities: application is missing"),
    (
        changed("      LifecycleEndorsement: OR('OneMSP.peer')\n", ""),
        f"29: {CHANNEL}.application_policies: LifecycleEndorsement is missing",
    ),
    (
        changed("Writers: ANY Writers", "Writers: ALL Writers"),
        f"31: {APPLICATION}.Writers: can never be satisfied: 2 of 2 groups need a policy 'Writers', 1 have it",
    ),
    (
        changed("Endorsement: ANY Endorsement", "Endorsement: MAJORITY Endorsement"),
        f"33: {APPLICATION}.Endorsement: can never be satisfied: 2 of 2 groups need a policy 'Endorsement', 1 have it",
    ),
    (
        changed("Admins: ALL Admins", "Admins: MOST Admins"),
        f"32: {APPLICATION}.Admins: policy, column 1: AND, OR or OutOf was expected",
    ),
    (
        changed("Admins: ALL Admins", "Admins: OR('ThreeMSP.admin')"),
        f"32: {APPLICATION}.Admins: 'ThreeMSP' is no organisation here; known: OneMSP, TwoMSP, OrdererMSP",
    ),
    (
        changed("Admins: ALL Admins", f"Admins: OR('OneMSP.admin'{' ' * 10_000})"),
        f"32: {APPLICATION}.Admins: longer than 10000 characters",
    ),
    (
        before_policies("    orderer_policies: {Readers: ANY Readers, Writers: ANY Writers, Admins: ANY Admins}"),
        f"29: {CHANNEL}.orderer_policies: BlockValidation is missing",
    ),
    (
        before_policies("    channel_policies: {Readers: ANY Readers, Writers: ANY Writers, Admins: ANY Own}"),
        f"29: {CHANNEL}.channel_policies.Admins: can never be satisfied: 1 of 2 groups need a policy 'Own', 0 have it",
    ),
    (
        changed("peer/Propose: Readers", "peer/Prepose: Readers"),
        f"36: {CHANNEL}.acls.peer/Prepose: not known here; did you mean peer/Propose?",
    ),
    (
        changed("peer/Propose: Readers", "peer/Propose: Readerz"),
        f"36: {CHANNEL}.acls.peer/Propose: the channel has no policy 'Readerz'",
    ),
    (
        changed("/Channel/Orderer/OrdererMSP/Admins", "/Channel/Orderer/OneMSP/Admins"),
        f"37: {CHANNEL}.acls.event/Block: the channel has no policy '/Channel/Orderer/OneMSP/Admins'",
    ),
    # chaincodes
    (
        changed("name: deeds", "name: deeds--x"),
        f"39: {CHAINCODE}.name: 'deeds--x' is not a chaincode's name: letters, digits, single '-' and '_' between them",
    ),
    (changed("name: deeds", "name: lscc"), f"39: {CHAINCODE}.name: 'lscc' is the name of a system chaincode"),
    (
        SMALL.replace("OneMSP", "one").replace("peer0.one", "deeds.one"),
        f"39: {CHAINCODE}.name: the same name of a process as in line 15",
    ),
    (changed("name: agent,", f"name: {'a' * 56},"), f"18: {ORGANIZATION}.users[1].name: longer than 55 characters"),
    (changed('version: "1.0"', "version: 1.0"), f"40: {CHAINCODE}.version: text was expected, not a number; quote it"),
    (
        changed('version: "1.0"', "version: v 1"),
        f"40: {CHAINCODE}.version: 'v 1' is not a version of letters, digits, '_', '.', '+' and '-'",
    ),
    (
        changed("served_by: deeds.contract:contract", "served_by: deeds/contract.py"),
        f"41: {CHAINCODE}.served_by: 'deeds/contract.py' is not of the form package.module:object",
    ),
    (
        changed("endorsement: OutOf", "sequence: 0\n        endorsement: OutOf"),
        f"42: {CHAINCODE}.sequence: a whole number from 1 to 9223372036854775807 was expected",
    ),
    (
        changed("endorsement: OutOf", "init_required: yes\n        endorsement: OutOf"),
        f"42: {CHAINCODE}.init_required: true or false was expected",
    ),
    (
        changed("endorsement: OutOf(1,", "endorsement: OutOf(3,"),
        f"42: {CHAINCODE}.endorsement: policy, column 1: 3 of 2 can never be satisfied",
    ),
    (
        changed("endorsement: OutOf(1, 'OneMSP.peer'", "endorsement: OutOf(1, 7"),
        f"42: {CHAINCODE}.endorsement: policy, column 10: a gate or 'MSP.role' was expected",
    ),
    (
        changed("name: secret", "name: _secret"),
        f"44: {COLLECTION}.name: '_secret' is not a collection's name: letters, digits, '_' and '-', no '_' first",
    ),
    (
        changed(
            "OR('OneMSP.member', OutOf(1, 'TwoMSP.member'))",
            "OR('OneMSP.member', OutOf(2, 'TwoMSP.member', 'TwoMSP.peer'))",
        ),
        f"45: {COLLECTION}.members: members are joined by OR alone",
    ),
    (
        changed("OutOf(1, 'TwoMSP.member')", "'OrdererMSP.member'"),
        f"45: {COLLECTION}.members: 'OrdererMSP' is no organisation here; known: OneMSP, TwoMSP",
    ),
    (
        changed("max_peer_count: 2", "required_peer_count: 1"),
        f"46: {COLLECTION}.required_peer_count: 1 is more than max_peer_count, which is 0",
    ),
    (
        changed("max_peer_count: 2", "block_to_live: -1"),
        f"46: {COLLECTION}.block_to_live: a whole number from 0 to 9223372036854775807 was expected",
    ),
    (
        changed("max_peer_count: 2", "member_only_read: 1"),
        f"46: {COLLECTION}.member_only_read: true or false was expected",
    ),
    (
        SMALL + "          - {name: secret, members: OR('OneMSP.member')}\n",
        "47: channels[0].chaincodes[0].collections[1].name: the same collection of deeds as in line 44",
    ),
]


@pytest.mark.parametrize(("text", "expected"), WRONG)
def test_a_refusal_names_line_place_and_reason(tmp_path: Path, text: str | bytes, expected: str) -> None:
    assert refusal(tmp_path, text) == expected


@pytest.mark.parametrize("orderers", [1, 3])
def test_bft_asks_for_four_orderers(tmp_path: Path, orderers: int) -> None:
    message = refusal(tmp_path, bft_text(orderers))

    assert message == f"5: orderer_organizations: bft needs at least 4 orderers, not {orderers}"


def test_bft_asks_for_the_capability_that_brought_it(tmp_path: Path) -> None:
    text = bft_text().replace("channel: V3_0", "channel: V2_0")

    assert refusal(tmp_path, text) == f"31: {CHANNEL}.capabilities.channel: bft needs V3_0"


def test_bft_lets_nobody_say_who_validates_blocks(tmp_path: Path) -> None:
    policies = "{Readers: ANY Readers, Writers: ANY Writers, Admins: ANY Admins, BlockValidation: ANY Writers}"
    text = bft_text().replace("    acls:", f"    orderer_policies: {policies}\n    acls:")

    assert refusal(tmp_path, text).startswith(
        f"38: {CHANNEL}.orderer_policies.BlockValidation: with bft it is a quorum"
    )


def test_a_chaincode_is_named_once_in_the_network(tmp_path: Path) -> None:
    second = SMALL[SMALL.index("  - name: trade") :].replace("name: trade", "name: other")

    assert refusal(tmp_path, SMALL + second) == "60: channels[1].chaincodes[0].name: the same chaincode as in line 39"


def test_channels_have_different_names(tmp_path: Path) -> None:
    second = "  - {name: trade, members: [OneMSP]}\n"

    assert refusal(tmp_path, SMALL + second) == "47: channels[1].name: the same channel as in line 26"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "none.yaml"

    with pytest.raises(TopologyError) as caught:
        read_topology(path)

    assert str(caught.value) == f"{path}: cannot be read: {os.strerror(2)}"


@pytest.mark.parametrize("name", ["prod", "../topology/dev", ""])
def test_only_shipped_topologies_are_given(name: str) -> None:
    with pytest.raises(TopologyError) as caught:
        shipped_topology(name)

    assert str(caught.value) == f"no topology {name!r} is shipped; there are: bft, dev, lts"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


def is_topology_or_refusal(path: Path) -> None:
    try:
        read_topology(path)
    except TopologyError as error:
        _, line, reason = str(error).removeprefix(str(path)).split(":", 2)
        assert int(line) >= 1
        assert reason.strip()


PIECES = st.sampled_from([
    *[line.strip() for line in SMALL.splitlines()],
    *("- ", "? ", "[", "]", "{", "}", "&a", "*a", "!!int", "!!python/none", "<<", "|", ">", "%YAML 1.1", "---", "..."),
    *("null", "-0", "1e9", "0o7", "1_000", "12:30:45", ".inf", "=", "~", "..", "/", "'", '"', "\t"),
])  # fmt: skip


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=80) | st.text(max_size=80).map(str.encode) | st.lists(PIECES).map(" ".join).map(str.encode))
@example(b'"\\ud800": 1')
@example(b"? [a]\n: 1")
@example(b"? ? a")
@example(b"!<%ff> a")
@example(b"key: |9\n")
def test_any_text_is_a_topology_or_a_refusal(folder: Path, content: bytes) -> None:
    is_topology_or_refusal(written(folder, content))


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, len(SMALL)), st.integers(0, 30), st.text(max_size=5) | PIECES)
def test_any_damage_to_a_topology_is_a_topology_or_a_refusal(folder: Path, start: int, length: int, new: str) -> None:
    text = SMALL[:start] + new + SMALL[start + length :]

    is_topology_or_refusal(written(folder, text.encode(errors="replace")))
