"""Which configuration may follow which: at every node, and at the orderers before they order it."""

from collections.abc import Callable, Collection
from typing import Any

import pytest
from fabric_protos.common import configtx_pb2, configuration_pb2
from fabric_protos.orderer import configuration_pb2 as orderer_pb2
from fabric_protos.orderer.etcdraft import configuration_pb2 as raft_pb2
from fabric_protos.orderer.smartbft import configuration_pb2 as smartbft_pb2

from network.protocol.config_group import ConfigGroup, config_group
from network.protocol.config_transition import (
    RaftMembership,
    check_bft,
    check_maintenance,
    check_orderable,
    check_successor,
    first_raft_membership,
    raft_membership,
)
from network.protocol.config_update import compute_update
from network.protocol.configuration import ChannelConfiguration, decode_config_envelope
from network.protocol.errors import ConfigUpdateError
from tests.support.chain_factory import ChainFactory, Organisation, Randomness, quorum_policy, serialize, set_policy
from tests.support.credential import START, YEAR

RAFT, BFT = ChainFactory(), ChainFactory(consensus="bft")
NOW = (START + YEAR).timestamp()

Edit = Callable[[Any], None]


def configuration(factory: ChainFactory = RAFT, *edits: Edit) -> ChannelConfiguration:
    config = configtx_pb2.Config()
    config.CopyFrom(factory.configuration)
    for edit in edits:
        edit(config.channel_group)
    return decode_config_envelope(serialize(configtx_pb2.ConfigEnvelope(config=config)))


def keep(group: Any) -> None:
    """Change nothing."""


# --- every node


def test_the_same_configuration_may_follow() -> None:
    check_successor(configuration(), configuration())


@pytest.mark.parametrize(("level", "kind"), [("Application", "application org"), ("Orderer", "orderer org")])
def test_an_organisation_keeps_its_msp_id(level: str, kind: str) -> None:
    name = "Customer" if level == "Application" else "Orderer"

    def rename(group: Any) -> None:
        other = Organisation("Stranger", Randomness("stranger"))
        group.groups[level].groups[name].values["MSP"].value = other.msp()

    with pytest.raises(ConfigUpdateError, match=f"{kind} {name} attempted to change MSP ID from .* to StrangerMSP"):
        check_successor(configuration(), configuration(RAFT, rename))


def test_organisations_come_and_go() -> None:
    def replace(group: Any) -> None:
        del group.groups["Application"].groups["Customer"]
        other = Organisation("Stranger", Randomness("stranger"))
        group.groups["Application"].groups["Stranger"].values["MSP"].value = other.msp()

    check_successor(configuration(), configuration(RAFT, replace))


def old_capabilities(group: Any) -> None:
    message = configuration_pb2.Capabilities()
    message.capabilities["V1_3"].SetInParent()
    group.values["Capabilities"].value = serialize(message)
    group.values["OrdererAddresses"].value = serialize(configuration_pb2.OrdererAddresses(addresses=["o:1"]))
    del group.groups["Orderer"].groups["Orderer"].values["Endpoints"]


def other_consensus(group: Any) -> None:
    group.groups["Orderer"].values["ConsensusType"].value = serialize(orderer_pb2.ConsensusType(type="BFT"))


def test_the_consensus_of_an_old_channel_stays() -> None:
    before = configuration(RAFT, old_capabilities)

    with pytest.raises(ConfigUpdateError, match="attempted to change consensus type from etcdraft to BFT"):
        check_successor(before, configuration(RAFT, old_capabilities, other_consensus))
    check_successor(configuration(), configuration(RAFT, other_consensus))  # orderers decide on that


def with_consortiums(group: Any) -> None:
    group.groups["Consortiums"].version = 0


def test_consortiums_neither_come_nor_go() -> None:
    with pytest.raises(ConfigUpdateError, match="has no consortiums section, but new config does"):
        check_successor(configuration(), configuration(RAFT, with_consortiums))
    with pytest.raises(ConfigUpdateError, match="has consortiums section, but new config does not"):
        check_successor(configuration(RAFT, with_consortiums), configuration())


# --- orderers


def orderable(
    *edits: Edit,
    before: ChannelConfiguration | None = None,
    running: Collection[int] | None = None,
    now: float = NOW,
) -> None:
    old = configuration() if before is None else before
    check_orderable(old, configuration(RAFT, *edits), running=running, now=now)
    check_maintenance(old, configuration(RAFT, *edits), written(old, *edits))


def written(before: ChannelConfiguration, *edits: Edit) -> ConfigGroup:
    """Give the write set of the update that makes these changes."""
    after = configuration(RAFT, *edits).root
    return config_group() if after == before.root else compute_update("consortium", before.root, after).write_set


def not_orderable(reason: str, *edits: Edit, **settings: Any) -> None:
    with pytest.raises(ConfigUpdateError, match=reason):
        orderable(*edits, **settings)


def test_orderers_take_a_change_that_is_none_of_theirs() -> None:
    orderable(lambda group: set_policy(group.groups["Application"], "New", quorum_policy(RAFT.orderers)))


def test_orderers_know_their_capabilities() -> None:
    def later(group: Any) -> None:
        message = configuration_pb2.Capabilities()
        message.capabilities["V9_0"].SetInParent()
        group.groups["Orderer"].values["Capabilities"].value = serialize(message)

    not_orderable("unsupported orderer capabilities: V9_0", later)


# --- Raft


def raft(change: Callable[[raft_pb2.ConfigMetadata], object]) -> Edit:
    def edit(group: Any) -> None:
        value = group.groups["Orderer"].values["ConsensusType"]
        consensus = orderer_pb2.ConsensusType.FromString(value.value)
        metadata = raft_pb2.ConfigMetadata.FromString(consensus.metadata)
        change(metadata)
        consensus.metadata = serialize(metadata)
        value.value = serialize(consensus)

    return edit


def new_certificate(number: int = 0) -> bytes:
    return RAFT.orderer_organisation.tls.issue(f"new{number}", "orderer").pem


def rotate(position: int, pem: bytes | None = None) -> Edit:
    certificate = pem or new_certificate()

    def change(metadata: raft_pb2.ConfigMetadata) -> None:
        metadata.consenters[position].client_tls_cert = certificate
        metadata.consenters[position].server_tls_cert = certificate

    return raft(change)


def add(number: int = 0) -> Edit:
    certificate = new_certificate(number)
    return raft(
        lambda metadata: metadata.consenters.add(
            host="127.0.0.1", port=9, client_tls_cert=certificate, server_tls_cert=certificate
        )
    )


def remove(position: int = 0) -> Edit:
    return raft(lambda metadata: metadata.consenters.pop(position))


@pytest.mark.parametrize("edit", [rotate(1), add(), remove()], ids=["rotate", "add", "remove"])
def test_one_consenter_changes_at_a_time(edit: Edit) -> None:
    orderable(edit)


@pytest.mark.parametrize(
    "edits",
    [(rotate(0), rotate(1)), (add(1), add(2)), (remove(), remove()), (rotate(0), add(3))],
    ids=["rotate two", "add two", "remove two", "rotate and add"],
)
def test_two_consenters_do_not_change_at_once(edits: tuple[Edit, ...]) -> None:
    not_orderable("update of more than one consenter at a time is not supported", *edits)


def test_members_keep_their_ids_and_new_ones_get_the_next() -> None:
    first = first_raft_membership(configuration())

    assert first == RaftMembership((1, 2, 3), 4)
    assert raft_membership(first, configuration(), configuration(RAFT, rotate(1))) == RaftMembership((1, 2, 3), 4)
    assert raft_membership(first, configuration(), configuration(RAFT, remove(1))) == RaftMembership((1, 3), 4)
    grown = raft_membership(RaftMembership((1, 3, 7), 8), configuration(), configuration(RAFT, add()))
    assert grown == RaftMembership((1, 3, 7, 8), 9)


def test_consenters_are_compared_by_their_client_certificate() -> None:
    def reverse(metadata: raft_pb2.ConfigMetadata) -> None:
        consenters = list(metadata.consenters)[::-1]
        del metadata.consenters[:]
        metadata.consenters.extend(consenters)

    membership = raft_membership(RaftMembership((1, 2, 3), 4), configuration(), configuration(RAFT, raft(reverse)))

    assert membership == RaftMembership((3, 2, 1), 4)


@pytest.mark.parametrize(
    ("edit", "running", "is_taken"),
    [
        (rotate(0), [0, 1, 2], True),
        (rotate(0), [0, 1], False),  # one would be left of two that it takes
        (rotate(2), [0, 1], True),
        (add(), [0, 1], False),  # of four, three must run
        (add(), [0, 1, 2], True),
        (remove(2), [0, 1], True),
        (remove(0), [0, 1], False),
    ],
)
def test_a_change_of_consenters_leaves_a_quorum(edit: Edit, running: list[int], is_taken: bool) -> None:
    if is_taken:
        orderable(edit, running=running)
    else:
        not_orderable(
            f"{len(running)} out of 3 nodes are alive, configuration will result in quorum loss", edit, running=running
        )


def test_a_change_that_touches_no_consenter_needs_no_quorum() -> None:
    orderable(raft(lambda metadata: setattr(metadata.options, "election_tick", 12)), running=[])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda it: it.ClearField("options"), "nil Raft config metadata options"),
        (lambda it: setattr(it.options, "heartbeat_tick", 0), r"none of HeartbeatTick \(0\)"),
        (lambda it: setattr(it.options, "election_tick", 0), r"ElectionTick \(0\) and MaxInflightBlocks \(5\) can"),
        (lambda it: setattr(it.options, "max_inflight_blocks", 0), r"MaxInflightBlocks \(0\) can be zero"),
        (lambda it: setattr(it.options, "heartbeat_tick", 10), "must be greater than HeartbeatTick"),
        (lambda it: setattr(it.options, "tick_interval", "soon"), "failed to parse TickInterval"),
        (lambda it: setattr(it.options, "tick_interval", "0s"), "TickInterval cannot be zero"),
        (lambda it: it.ClearField("consenters"), "empty consenter set"),
        (lambda it: setattr(it.consenters[1], "server_tls_cert", it.consenters[0].client_tls_cert), "duplicate"),
        (lambda it: setattr(it.consenters[0], "server_tls_cert", b"no certificate"), "has invalid certificate"),
        (lambda it: setattr(it.consenters[0], "client_tls_cert", b"no certificate"), "127.0.0.1:7050 has invalid"),
    ],
)
def test_raft_metadata_makes_sense(change: Callable[[Any], object], reason: str) -> None:
    not_orderable(f"invalid new config metadata: .*{reason}", raft(change))


def test_metadata_that_does_not_read_is_refused() -> None:
    def spoil(group: Any) -> None:
        consensus = orderer_pb2.ConsensusType(type="etcdraft", metadata=b"\xff")
        group.groups["Orderer"].values["ConsensusType"].value = serialize(consensus)

    not_orderable("consensus metadata update for channel config update is invalid", spoil)


def test_consenters_have_certificates_of_their_organisation() -> None:
    stranger = Organisation("Stranger", Randomness("stranger")).tls.issue("orderer", "orderer")

    not_orderable("signed by unknown authority", rotate(0, stranger.pem))


@pytest.mark.parametrize("now", [(START + 11 * YEAR).timestamp(), START.timestamp() - 1], ids=["late", "early"])
def test_only_a_new_certificate_must_be_valid_today(now: float) -> None:
    not_orderable("expired, or not valid yet", rotate(0), now=now)
    orderable(keep, now=now)


# --- BFT


def test_a_configuration_of_bft_orderers_makes_sense() -> None:
    check_bft(configuration(BFT))


def bft_options(change: Callable[[smartbft_pb2.Options], object]) -> Edit:
    def edit(group: Any) -> None:
        value = group.groups["Orderer"].values["ConsensusType"]
        consensus = orderer_pb2.ConsensusType.FromString(value.value)
        options = smartbft_pb2.Options.FromString(consensus.metadata)
        change(options)
        consensus.metadata = serialize(options)
        value.value = serialize(consensus)

    return edit


def mapping(change: Callable[[Any], object]) -> Edit:
    def edit(group: Any) -> None:
        value = group.groups["Orderer"].values["Orderers"]
        orderers = configuration_pb2.Orderers.FromString(value.value)
        change(orderers.consenter_mapping)
        value.value = serialize(orderers)

    return edit


def without_orderers(group: Any) -> None:
    del group.groups["Orderer"].values["Orderers"]


def without_block_validation(group: Any) -> None:
    del group.groups["Orderer"].policies["BlockValidation"]


def spoiled_options(group: Any) -> None:
    consensus = orderer_pb2.ConsensusType(type="BFT", metadata=b"\xff")
    group.groups["Orderer"].values["ConsensusType"].value = serialize(consensus)


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (without_block_validation, "block validation policy is not found"),
        (mapping(lambda it: it.pop()), "block validation policy should be"),
        (mapping(lambda it: it.reverse()), "of the consenters, in their order"),
        (without_orderers, "block validation policy should be"),
        (mapping(lambda it: setattr(it[0], "id", 2)), "two consenters with one id"),
        (mapping(lambda it: setattr(it[0], "id", 0)), "one with id 0"),
        (spoiled_options, "invalid options encoded in consensus metadata"),
        (bft_options(lambda it: setattr(it, "leader_rotation", 2)), "leader rotation must be turned off"),
        (bft_options(lambda it: setattr(it, "collect_timeout", "soon")), "collect_timeout"),
        (bft_options(lambda it: setattr(it, "collect_timeout", "0s")), "collect_timeout: it should be greater"),
        (bft_options(lambda it: setattr(it, "request_pool_size", 0)), "request_pool_size: it should be greater"),
        (bft_options(lambda it: setattr(it, "request_forward_timeout", "21s")), "bigger than request_complain_timeout"),
    ],
)
def test_a_configuration_at_which_bft_orderers_would_stop_is_refused(edit: Edit, reason: str) -> None:
    with pytest.raises(ConfigUpdateError, match=reason):
        check_bft(configuration(BFT, edit))


# --- maintenance and migration


def consensus(**fields: Any) -> Edit:
    def edit(group: Any) -> None:
        value = group.groups["Orderer"].values["ConsensusType"]
        message = orderer_pb2.ConsensusType.FromString(value.value)
        for name, content in fields.items():
            setattr(message, name, content)
        value.value = serialize(message)

    return edit


MAINTENANCE = consensus(state=1)


def migrated(group: Any) -> None:
    """Write BFT consenters in place of the Raft ones."""
    metadata = raft_pb2.ConfigMetadata.FromString(configuration().consensus_metadata)
    entries = [
        configuration_pb2.Consenter(
            id=number,
            host=consenter.host,
            port=consenter.port,
            client_tls_cert=consenter.client_tls_cert,
            server_tls_cert=consenter.server_tls_cert,
        )
        for number, consenter in enumerate(metadata.consenters, 1)
    ]
    group.groups["Orderer"].values["Orderers"].value = serialize(configuration_pb2.Orderers(consenter_mapping=entries))
    consensus(type="BFT", metadata=b"")(group)


def test_maintenance_begins_and_ends() -> None:
    orderable(MAINTENANCE)
    check_maintenance(configuration(RAFT, MAINTENANCE), configuration(), written(configuration(), MAINTENANCE))

    assert (configuration().consensus_state, configuration(RAFT, MAINTENANCE).consensus_state) == (0, 1)


def timeout(group: Any) -> None:
    group.groups["Orderer"].values["BatchTimeout"].value = b"\n\x023s"


def application(group: Any) -> None:
    set_policy(group.groups["Application"], "New", quorum_policy(RAFT.orderers))


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (timeout, "contains more than the ConsensusType value"),
        (application, "contains changes outside of the Orderer group"),
        (raft(lambda it: setattr(it.options, "election_tick", 12)), "but ConsensusType.State is changing"),
    ],
)
def test_maintenance_begins_with_no_other_change(edit: Edit, reason: str) -> None:
    not_orderable(reason, MAINTENANCE, edit)


def test_orderers_without_the_capability_know_no_maintenance() -> None:
    def old(group: Any) -> None:
        message = configuration_pb2.Capabilities()
        message.capabilities["V1_1"].SetInParent()
        group.groups["Orderer"].values["Capabilities"].value = serialize(message)

    not_orderable("change ConsensusType.State, but capability", old, MAINTENANCE, before=configuration(RAFT, old))
    not_orderable("change ConsensusType.Type, but capability", old, migrated, before=configuration(RAFT, old))


def test_orderers_migrate_to_bft_in_maintenance_with_the_same_consenters() -> None:
    before = configuration(RAFT, MAINTENANCE)

    orderable(MAINTENANCE, migrated, before=before)
    not_orderable("other consenters than before", MAINTENANCE, migrated, mapping(lambda it: it.pop()), before=before)
    not_orderable("not in maintenance mode", migrated)
    not_orderable("transition not supported", MAINTENANCE, consensus(type="solo"), before=before)
