"""Changes of a configuration by name: what they do to the tree, and which of them make no sense."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from fabric_protos.common import configuration_pb2
from fabric_protos.msp import msp_config_pb2
from fabric_protos.orderer import configuration_pb2 as orderer_pb2
from fabric_protos.orderer.etcdraft import configuration_pb2 as raft_pb2
from fabric_protos.peer import configuration_pb2 as peer_configuration_pb2

from network.channel.change import (
    Address,
    BatchChange,
    OrdererCertificates,
    add_organization,
    publish_revocations,
    read_address,
    rotate_orderer,
    set_acls,
    set_anchor_peers,
    set_batch,
    set_policy,
)
from network.channel.description import describe_change
from network.channel.organization import member_group
from network.channel.proposal import propose
from network.errors import ChannelChangeError
from network.protocol.block_signature import ChannelTrust
from network.protocol.config_group import ConfigGroup
from network.protocol.configuration import view_configuration
from network.protocol.errors import ConfigUpdateError
from tests.support.authority import authority, new_node, new_tls, revocation_list, revoked_users
from tests.support.embedded_ledger import generate_dev
from tests.support.generated_network import START, GeneratedNetwork

CHANNEL = "consortium"


@pytest.fixture(scope="module")
def raft(tmp_path_factory: pytest.TempPathFactory) -> GeneratedNetwork:
    return generate_dev(tmp_path_factory.mktemp("raft") / "credentials")


@pytest.fixture(scope="module")
def bft(tmp_path_factory: pytest.TempPathFactory) -> GeneratedNetwork:
    return generate_dev(tmp_path_factory.mktemp("bft") / "credentials", "bft")


def root(network: GeneratedNetwork) -> ConfigGroup:
    return network.configuration().root


def trust(network: GeneratedNetwork) -> ChannelTrust:
    return ChannelTrust(view_configuration(0, CHANNEL, root(network)))


def lines(network: GeneratedNetwork, edit: Callable[[ConfigGroup], ConfigGroup]) -> list[str]:
    """Make a change as far as an update that nodes would take; say what it changes."""
    proposal = propose(CHANNEL, trust(network), edit, START.timestamp() + 60)
    assert describe_change(root(network), proposal.proposed.root) == describe_change(root(network), edit(root(network)))
    return describe_change(root(network), proposal.proposed.root)


def test_no_difference_is_no_proposal(raft: GeneratedNetwork) -> None:
    with pytest.raises(ChannelChangeError, match="nothing would change"):
        propose(CHANNEL, trust(raft), lambda before: before, START.timestamp())


# --- settings


def test_limits_of_blocks_change_one_by_one(raft: GeneratedNetwork) -> None:
    size = "/Channel/Orderer/BatchSize"

    assert lines(raft, lambda it: set_batch(it, BatchChange(max_messages=7))) == [
        f"{size}: max_message_count: 100 -> 7"
    ]
    assert lines(raft, lambda it: set_batch(it, BatchChange(timeout="2s"))) == [
        "/Channel/Orderer/BatchTimeout: timeout: 200ms -> 2s"
    ]
    assert lines(raft, lambda it: set_batch(it, BatchChange(preferred_max_bytes=5, absolute_max_bytes=6))) == [
        f"{size}: absolute_max_bytes: 10485760 -> 6",
        f"{size}: preferred_max_bytes: 2097152 -> 5",
    ]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (BatchChange(max_messages=0), "max_message_count: 0 is not between"),
        (BatchChange(max_messages=2**32), "is not between"),
        (BatchChange(absolute_max_bytes=1), "preferred_max_bytes 2097152 is above absolute_max_bytes 1"),
        (BatchChange(timeout="soon"), "timeout 'soon'"),
        (BatchChange(timeout="0s"), "the timeout is not positive"),
    ],
)
def test_limits_that_no_orderer_could_keep_to_are_refused(
    raft: GeneratedNetwork, change: BatchChange, reason: str
) -> None:
    with pytest.raises(ChannelChangeError, match=reason):
        set_batch(root(raft), change)


def test_access_rules_come_change_and_go(raft: GeneratedNetwork) -> None:
    acls = "/Channel/Application/ACLs"

    assert lines(raft, lambda it: set_acls(it, {"qscc/GetChainInfo": "Writers", "peer/Propose": "Writers"})) == [
        f"{acls}: acls.peer/Propose.policy_ref: /Channel/Application/Readers -> Writers",
        f"{acls}: acls.qscc/GetChainInfo.policy_ref: Writers",
    ]
    after = set_acls(root(raft), {"peer/Propose": ""})
    value = after.groups["Application"].values["ACLs"].value
    assert not peer_configuration_pb2.ACLs.FromString(value).acls
    with pytest.raises(ChannelChangeError, match="no rule of its own for qscc/GetChainInfo"):
        set_acls(root(raft), {"qscc/GetChainInfo": ""})


def test_a_channel_without_access_rules_gets_them_with_a_policy_to_change_them(raft: GeneratedNetwork) -> None:
    application = root(raft).groups["Application"]
    values = {name: value for name, value in application.values.items() if name != "ACLs"}
    bare = root(raft)._replace(groups={**root(raft).groups, "Application": application._replace(values=values)})

    added = set_acls(bare, {"peer/Propose": "Readers"}).groups["Application"].values["ACLs"]

    assert added.mod_policy == "Admins"


def test_policies_are_written_and_removed(raft: GeneratedNetwork) -> None:
    path = "/Channel/Application/Endorsement"

    (line,) = lines(raft, lambda it: set_policy(it, path, "MAJORITY Endorsement"))
    assert line.startswith(f"policy {path}: AND(")
    assert line.endswith(" -> MAJORITY Endorsement")
    assert lines(raft, lambda it: set_policy(it, "/Channel/Application/New", "OR('ServiceMSP.admin')")) == [
        "policy /Channel/Application/New is added: OR('ServiceMSP.admin')",
        "who may change /Channel/Application/New: (nobody) -> Admins",
    ]
    assert lines(raft, lambda it: set_policy(it, path, "")) == [f"policy {path} is removed"]


@pytest.mark.parametrize(
    ("path", "text", "reason"),
    [
        ("Application/Admins", "ANY Admins", "is no path of a policy"),
        ("/Channel", "ANY Admins", "is no path of a policy"),
        ("/Channel/no name", "ANY Admins", "is no path of a policy"),
        ("/Channel/Nowhere/Admins", "ANY Admins", "no group"),
        ("/Channel/Admins", "OR(", "column"),
        ("/Channel/Nothing", "", "there is no policy"),
    ],
)
def test_policies_that_make_no_sense_are_refused(raft: GeneratedNetwork, path: str, text: str, reason: str) -> None:
    with pytest.raises(ChannelChangeError, match=reason):
        set_policy(root(raft), path, text)


def test_anchor_peers_are_replaced(raft: GeneratedNetwork) -> None:
    after = set_anchor_peers(root(raft), "ServiceMSP", [Address("a.example", 7051)])
    value = after.groups["Application"].groups["ServiceMSP"].values["AnchorPeers"].value

    (peer,) = peer_configuration_pb2.AnchorPeers.FromString(value).anchor_peers
    assert (peer.host, peer.port) == ("a.example", 7051)
    with pytest.raises(ChannelChangeError, match="no organisation StrangerMSP"):
        set_anchor_peers(root(raft), "StrangerMSP", [])
    with pytest.raises(ChannelChangeError, match="OrdererMSP is no member"):
        set_anchor_peers(root(raft), "OrdererMSP", [])


@pytest.mark.parametrize("text", ["", "host", "host:", ":1", "host:0", "host:65536", "host:٣", "host:1x"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ChannelChangeError, match="is not host:port"):
        read_address(text)


def test_addresses_are_read() -> None:
    assert read_address("127.0.0.1:7050") == Address("127.0.0.1", 7050)


# --- organisations


def guest(raft: GeneratedNetwork) -> ConfigGroup:
    msp = root(raft).groups["Application"].groups["FieldMSP"].values["MSP"].value
    wrapped = msp_config_pb2.MSPConfig.FromString(msp)
    config = msp_config_pb2.FabricMSPConfig.FromString(wrapped.config)
    config.name = "GuestMSP"
    wrapped.config = config.SerializeToString()
    return member_group("GuestMSP", wrapped.SerializeToString(), [Address("guest", 7051)])


def test_an_organisation_is_let_in(raft: GeneratedNetwork) -> None:
    found = lines(raft, lambda it: add_organization(it, "Guest", guest(raft)))

    assert found[0] == "/Channel/Application/Guest is added"
    assert any("anchor_peers: added: host guest, port 7051" in line for line in found)
    assert "policy /Channel/Application/Guest/Admins is added: OR('GuestMSP.admin')" in found
    assert any("root_certs: added: certificate of" in line for line in found)


def test_an_organisation_is_let_in_once(raft: GeneratedNetwork) -> None:
    once = add_organization(root(raft), "Guest", guest(raft))

    for name in ("Guest", "Other"):
        with pytest.raises(ChannelChangeError, match="the channel has GuestMSP already, as Guest"):
            add_organization(once, name, guest(raft))
    with pytest.raises(ChannelChangeError, match="is no name of a group"):
        add_organization(root(raft), "no_name", guest(raft))


def test_a_revocation_list_replaces_the_older_one_of_its_ca(raft: GeneratedNetwork) -> None:
    first = revoked_users(raft.credentials, "ServiceMSP", "agent", now=START)
    second = revoked_users(raft.credentials, "ServiceMSP", "agent", "supervisor", now=START)

    once = publish_revocations(root(raft), "ServiceMSP", [first])
    twice = publish_revocations(once, "ServiceMSP", [second])
    (before,) = lines(raft, lambda it: publish_revocations(it, "ServiceMSP", [first]))
    after = describe_change(once, twice)

    assert "revocation_list: added: revocation list of 1 certificates (" in before
    assert len(after) == 2
    assert "revocation_list: removed: revocation list of 1 certificates (" in after[0]
    assert "revocation_list: added: revocation list of 2 certificates (" in after[1]


def test_a_revocation_list_of_another_ca_is_refused(raft: GeneratedNetwork) -> None:
    others = revoked_users(raft.credentials, "BillingMSP", "agent", now=START)

    with pytest.raises(ChannelChangeError, match="no CA of ServiceMSP has signed"):
        publish_revocations(root(raft), "ServiceMSP", [others])


def test_a_revocation_list_signed_by_another_key_is_refused(raft: GeneratedNetwork) -> None:
    own = authority(raft.credentials.ca_certificate("ServiceMSP"))
    stranger = authority(raft.credentials.ca_certificate("BillingMSP"))
    content = revocation_list(own, [1], START)
    forged = revocation_list(type(own)(own.certificate, stranger.key), [1], START)

    publish_revocations(root(raft), "ServiceMSP", [content])
    with pytest.raises(ChannelChangeError, match="no CA of ServiceMSP has signed"):
        publish_revocations(root(raft), "ServiceMSP", [forged])


@pytest.mark.parametrize("content", [b"", b"-----BEGIN X509 CRL-----\n", b"\x30\x00"])
def test_what_is_no_revocation_list_is_refused(raft: GeneratedNetwork, content: bytes) -> None:
    with pytest.raises(ChannelChangeError, match="does not read"):
        publish_revocations(root(raft), "ServiceMSP", [content])


def test_no_revocation_list_is_no_change(raft: GeneratedNetwork) -> None:
    with pytest.raises(ChannelChangeError, match="no revocation list was given"):
        publish_revocations(root(raft), "ServiceMSP", [])


# --- orderers


def address(network: GeneratedNetwork, node: str) -> Address:
    endpoint = network.endpoints[node]
    return Address(endpoint.host, endpoint.port)


def test_a_raft_orderer_gets_another_tls_certificate(raft: GeneratedNetwork) -> None:
    tls = new_tls(raft.credentials, "OrdererMSP", "orderer1", START).certificate_pem
    change = OrdererCertificates(server_tls=tls, client_tls=tls)

    found = lines(raft, lambda it: rotate_orderer(it, address(raft, "orderer1"), change))
    after = rotate_orderer(root(raft), address(raft, "orderer1"), change)
    value = after.groups["Orderer"].values["ConsensusType"].value
    metadata = raft_pb2.ConfigMetadata.FromString(orderer_pb2.ConsensusType.FromString(value).metadata)

    place = f"metadata.consenters {address(raft, 'orderer1').host}:{address(raft, 'orderer1').port}"
    for name, line in zip(("client", "server"), found, strict=True):
        assert f"{place}.{name}_tls_cert: certificate of" in line
    assert [consenter.server_tls_cert == tls for consenter in metadata.consenters] == [False, True, False]


def test_a_bft_orderer_gets_other_certificates_and_a_quorum_with_them(bft: GeneratedNetwork) -> None:
    msp_id = "CustomerOrdererMSP"
    tls = new_tls(bft.credentials, msp_id, "orderer1", START).certificate_pem
    signing = new_node(bft.credentials, msp_id, "orderer1", START).certificate_pem

    after = propose(
        CHANNEL,
        trust(bft),
        lambda it: rotate_orderer(it, address(bft, "orderer1"), OrdererCertificates(tls, tls, signing)),
        START.timestamp() + 60,
    ).proposed.root
    mapping = configuration_pb2.Orderers.FromString(after.groups["Orderer"].values["Orderers"].value).consenter_mapping

    assert [entry.identity == signing for entry in mapping] == [False, True, False, False]
    assert [entry.client_tls_cert == tls for entry in mapping] == [False, True, False, False]
    assert signing in after.groups["Orderer"].policies["BlockValidation"].value


def test_what_a_rotation_asks_for_must_exist(raft: GeneratedNetwork) -> None:
    tls = new_tls(raft.credentials, "OrdererMSP", "orderer1", START).certificate_pem

    with pytest.raises(ChannelChangeError, match=r"no consenter at nowhere:1; there are: 127\.0\.0\.1:"):
        rotate_orderer(root(raft), Address("nowhere", 1), OrdererCertificates(tls, tls))
    with pytest.raises(ChannelChangeError, match="signing certificate is not in the configuration"):
        rotate_orderer(root(raft), address(raft, "orderer1"), OrdererCertificates(identity=tls))
    with pytest.raises(ChannelChangeError, match="a certificate that does not read"):
        rotate_orderer(root(raft), address(raft, "orderer1"), OrdererCertificates(b"nothing"))


def test_a_certificate_that_has_expired_is_refused_before_anybody_signs(raft: GeneratedNetwork) -> None:
    tls = new_tls(raft.credentials, "OrdererMSP", "orderer1", START).certificate_pem
    late = (START + timedelta(days=6 * 365)).timestamp()

    with pytest.raises(ConfigUpdateError, match="expired, or not valid yet"):
        propose(
            CHANNEL,
            trust(raft),
            lambda it: rotate_orderer(it, address(raft, "orderer1"), OrdererCertificates(tls, tls)),
            late,
        )
