"""Whether one configuration of a channel may follow another: what every node checks, and what orderers check besides.

Rules: `common/channelconfig/bundle.go` ValidateNew (every node); `orderer/common/multichannel/ledger_resources.go`,
`orderer/common/msgprocessor/maintenancefilter.go`, `orderer/consensus/etcdraft/{chain,membership,util}.go`,
`orderer/consensus/smartbft/configverifier.go`, and the settings of SmartBFT (`pkg/types/config.go`), at which a real
orderer stops when the configuration is ordered already.

Organisations of consortiums are not compared: only system channels of Fabric 1 and 2 have them.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Final, NamedTuple

from fabric_protos.common import configuration_pb2
from fabric_protos.msp import msp_config_pb2
from fabric_protos.orderer.etcdraft import configuration_pb2 as raft_pb2
from fabric_protos.orderer.smartbft import configuration_pb2 as smartbft_pb2

from network.protocol.certificate import Certificate, decode_pem_certificate
from network.protocol.certificate_chain import CertificatePool, has_tls_chain
from network.protocol.config_group import ConfigGroup
from network.protocol.configuration import ChannelConfiguration, Organization
from network.protocol.duration import decode_duration
from network.protocol.errors import ConfigUpdateError, DecodeError
from network.protocol.identity import SerializedIdentity
from network.protocol.msp import TYPE_FABRIC, definition_name
from network.protocol.policy import TYPE_SIGNATURE
from network.protocol.quorum import block_validation_policy, raft_quorum
from network.protocol.wire import parse

RAFT: Final = "etcdraft"
BFT: Final = "BFT"
STATE_NORMAL: Final = 0
STATE_MAINTENANCE: Final = 1

_ORDERER_CAPABILITIES: Final = frozenset(("V1_1", "V1_4_2", "V2_0"))
_CAPABILITIES_WITH_MIGRATION: Final = frozenset(("V1_4_2", "V1_4_3", "V2_0", "V3_0"))


# --- every node


def check_successor(before: ChannelConfiguration, after: ChannelConfiguration) -> None:
    """Raise ConfigUpdateError unless `after` may follow `before`.

    That it still has orderers and applications, and endpoints where they must be, reading it has shown.
    """
    if not before.channel_capabilities & _CAPABILITIES_WITH_MIGRATION and before.consensus_type != after.consensus_type:
        raise ConfigUpdateError(
            f"attempted to change consensus type from {before.consensus_type} to {after.consensus_type}"
        )
    _check_msp_ids("orderer org", before.orderer_organizations, after.orderer_organizations)
    _check_msp_ids("application org", before.application_organizations, after.application_organizations)
    had, has = ("Consortiums" in configuration.root.groups for configuration in (before, after))
    if had and not has:
        raise ConfigUpdateError("current config has consortiums section, but new config does not")
    if has and not had:
        raise ConfigUpdateError("current config has no consortiums section, but new config does")


def _check_msp_ids(kind: str, before: Mapping[str, Organization], after: Mapping[str, Organization]) -> None:
    for name in sorted(before.keys() & after.keys()):
        old, new = definition_name(before[name].msp), definition_name(after[name].msp)
        if old != new:
            raise ConfigUpdateError(f"{kind} {name} attempted to change MSP ID from {old} to {new}")


# --- orderers


def check_orderable(
    before: ChannelConfiguration, after: ChannelConfiguration, *, running: Collection[int] | None, now: float
) -> None:
    """Raise ConfigUpdateError unless orderers under `before` can work under `after`.

    `running`: positions of the Raft consenters of `before` that run, None: all of them. `now`: seconds since 1970; a
    consenter's new certificate must not have expired. What `check_successor` says is not said again; BFT has rules of
    its own (`check_bft`).
    """
    unsupported = sorted(after.orderer_capabilities - _ORDERER_CAPABILITIES)
    if unsupported:
        raise ConfigUpdateError(
            f"config update is not compatible: config requires unsupported orderer capabilities: {unsupported[0][:249]}"
        )
    if after.consensus_type == RAFT:
        _check_raft(before, after, running, now)


def check_bft(configuration: ChannelConfiguration) -> None:
    """Raise ConfigUpdateError unless BFT orderers can work by this configuration.

    Its BlockValidation is a quorum of its consenters, they are distinct, and its settings make sense.
    """
    mapping = _consenter_mapping(configuration)
    identities = [SerializedIdentity(entry.msp_id, entry.identity) for entry in mapping]
    expected = block_validation_policy(identities)
    policy = configuration.root.groups["Orderer"].policies.get("BlockValidation")
    if policy is None:
        raise ConfigUpdateError("block validation policy is not found in the policies of 'Orderer' group")
    if not mapping or (policy.policy_type, policy.value) != (TYPE_SIGNATURE, expected):
        raise ConfigUpdateError(
            "block validation policy should be a signature policy of a quorum of the consenters, in their order"
        )
    ids = [entry.id for entry in mapping]
    if len(set(ids)) < len(ids) or not all(ids):
        raise ConfigUpdateError("two consenters with one id, or one with id 0")
    _check_bft_options(configuration)


def _consenter_mapping(configuration: ChannelConfiguration) -> Sequence[configuration_pb2.Consenter]:
    value = configuration.root.groups["Orderer"].values.get("Orderers")
    message = parse(configuration_pb2.Orderers, b"" if value is None else value.value, "Orderers")
    return list(message.consenter_mapping)


_DURATIONS: Final = (
    "request_batch_max_interval",
    "request_forward_timeout",
    "request_complain_timeout",
    "request_auto_remove_timeout",
    "view_change_resend_interval",
    "view_change_timeout",
    "leader_heartbeat_timeout",
    "collect_timeout",
)
_COUNTS: Final = ("incoming_message_buffer_size", "request_pool_size", "leader_heartbeat_count")
_ORDERED: Final = (
    ("request_forward_timeout", "request_complain_timeout"),
    ("request_complain_timeout", "request_auto_remove_timeout"),
    ("view_change_resend_interval", "view_change_timeout"),
)


def _check_bft_options(configuration: ChannelConfiguration) -> None:
    try:
        options = parse(smartbft_pb2.Options, configuration.consensus_metadata, "Options")
    except DecodeError as error:
        raise ConfigUpdateError(f"invalid options encoded in consensus metadata: {error}") from error
    if options.leader_rotation == smartbft_pb2.Options.ROTATION_ON:
        raise ConfigUpdateError("leader rotation must be turned off for this version or be unspecified")
    durations = {}
    for name in _DURATIONS:
        try:
            durations[name] = decode_duration(getattr(options, name))
        except DecodeError as error:
            raise ConfigUpdateError(f"bad config metadata option {name}: {error}") from error
        if durations[name] <= 0:
            raise ConfigUpdateError(f"bad config metadata option {name}: it should be greater than zero")
    for name in _COUNTS:
        if not getattr(options, name):
            raise ConfigUpdateError(f"bad config metadata option {name}: it should be greater than zero")
    for smaller, larger in _ORDERED:
        if durations[smaller] > durations[larger]:
            raise ConfigUpdateError(f"bad config metadata option {smaller}: it is bigger than {larger}")


# --- Raft


class RaftMembership(NamedTuple):
    """Who the consenters are, as the metadata of blocks tell it: ids in the order of the configuration."""

    consenter_ids: tuple[int, ...]
    next_consenter_id: int


class _MembershipChange(NamedTuple):
    membership: RaftMembership
    added: tuple[raft_pb2.Consenter, ...]
    removed: tuple[int, ...]
    """Positions among the consenters before."""


def raft_membership(
    membership: RaftMembership, before: ChannelConfiguration, after: ChannelConfiguration
) -> RaftMembership:
    """Give the ids after a change of the configuration; raises ConfigUpdateError for more than one at a time."""
    return _membership_change(membership, _raft_metadata(before), _raft_metadata(after)).membership


def first_raft_membership(configuration: ChannelConfiguration) -> RaftMembership:
    """Give the ids of a channel's first consenters; none where another consensus orders."""
    count = len(_raft_metadata(configuration).consenters) if configuration.consensus_type == RAFT else 0
    return RaftMembership(tuple(range(1, count + 1)), count + 1)


def _membership_change(
    membership: RaftMembership, before: raft_pb2.ConfigMetadata, after: raft_pb2.ConfigMetadata
) -> _MembershipChange:
    """Compare consenters by their client certificates; one that replaces one that goes inherits its id."""
    known = {
        consenter.client_tls_cert: consenter_id
        for consenter, consenter_id in zip(before.consenters, membership.consenter_ids, strict=False)
    }
    stays = {consenter.client_tls_cert for consenter in after.consenters}
    added = tuple([it for it in after.consenters if it.client_tls_cert not in known])
    removed = tuple([number for number, it in enumerate(before.consenters) if it.client_tls_cert not in stays])
    if len(added) > 1 or len(removed) > 1:
        raise _metadata_error(
            f"update of more than one consenter at a time is not supported, requested changes: "
            f"add {len(added)} node(s), remove {len(removed)} node(s)"
        )
    new_id = known[before.consenters[removed[0]].client_tls_cert] if removed else membership.next_consenter_id
    ids = tuple([known.get(consenter.client_tls_cert, new_id) for consenter in after.consenters])
    grows = bool(added) and not removed
    return _MembershipChange(RaftMembership(ids, membership.next_consenter_id + grows), added, removed)


def _raft_metadata(configuration: ChannelConfiguration) -> raft_pb2.ConfigMetadata:
    if configuration.consensus_type != RAFT:
        return raft_pb2.ConfigMetadata()
    return parse(raft_pb2.ConfigMetadata, configuration.consensus_metadata, "ConfigMetadata")


def _check_raft(
    before: ChannelConfiguration, after: ChannelConfiguration, running: Collection[int] | None, now: float
) -> None:
    try:
        metadata = _raft_metadata(after)
        authorities = _tls_authorities(after)
    except DecodeError as error:
        raise _metadata_error(str(error)) from error
    _check_raft_metadata(metadata, authorities)
    if before.consensus_type != RAFT:
        return
    change = _membership_change(first_raft_membership(before), _raft_metadata(before), metadata)
    for consenter in change.added:
        for pem in (consenter.client_tls_cert, consenter.server_tls_cert):
            if not _is_valid_at(decode_pem_certificate(pem), now):
                raise _metadata_error(
                    f"consenter {consenter.host}:{consenter.port} has invalid certificates: expired, or not valid yet"
                )
    count = len(_raft_metadata(before).consenters)
    alive = set(range(count)) if running is None else set(running)
    if _loses_quorum(change, len(metadata.consenters), alive):
        raise _metadata_error(f"{len(alive)} out of {count} nodes are alive, configuration will result in quorum loss")


def _metadata_error(text: str) -> ConfigUpdateError:
    return ConfigUpdateError(f"consensus metadata update for channel config update is invalid: {text}")


def _check_raft_metadata(metadata: raft_pb2.ConfigMetadata, authorities: "_TlsAuthorities") -> None:
    options = metadata.options
    if not metadata.HasField("options"):
        raise _metadata_error("invalid new config metadata: nil Raft config metadata options")
    if not (options.heartbeat_tick and options.election_tick and options.max_inflight_blocks):
        raise _metadata_error(
            f"invalid new config metadata: none of HeartbeatTick ({options.heartbeat_tick}), "
            f"ElectionTick ({options.election_tick}) and MaxInflightBlocks ({options.max_inflight_blocks}) can be zero"
        )
    if options.election_tick <= options.heartbeat_tick:
        raise _metadata_error(
            f"invalid new config metadata: ElectionTick ({options.election_tick}) must be greater "
            f"than HeartbeatTick ({options.heartbeat_tick})"
        )
    try:
        interval = decode_duration(options.tick_interval)
    except DecodeError as error:
        raise _metadata_error(
            f"invalid new config metadata: failed to parse TickInterval to time duration: {error}"
        ) from error
    if interval <= 0:
        raise _metadata_error("invalid new config metadata: TickInterval cannot be zero")
    if not metadata.consenters:
        raise _metadata_error("invalid new config metadata: empty consenter set")
    seen: set[bytes] = set()
    for consenter in metadata.consenters:
        certificates = {consenter.server_tls_cert, consenter.client_tls_cert}
        place = f"consenter {consenter.host}:{consenter.port}"
        defect = next((found for pem in certificates if (found := authorities.defect(pem)) is not None), None)
        if defect is not None:
            raise _metadata_error(f"invalid new config metadata: {place} has invalid certificate: {defect}")
        if certificates & seen:
            raise _metadata_error(f"invalid new config metadata: duplicate consenter: {place}")
        seen |= certificates


class _TlsAuthorities(NamedTuple):
    """The TLS CAs of the orderers' organisations."""

    roots: CertificatePool
    intermediates: CertificatePool

    def defect(self, pem: bytes) -> str | None:
        """Say what is wrong with a TLS certificate, None when it is one of an orderer's."""
        try:
            certificate = decode_pem_certificate(pem)
        except DecodeError as error:
            return str(error)
        return None if has_tls_chain(certificate, self.roots, self.intermediates) else "signed by unknown authority"


def _tls_authorities(configuration: ChannelConfiguration) -> _TlsAuthorities:
    roots: list[Certificate] = []
    intermediates: list[Certificate] = []
    for organization in configuration.orderer_organizations.values():
        if organization.msp.msp_type != TYPE_FABRIC:
            continue
        message = parse(msp_config_pb2.FabricMSPConfig, organization.msp.content, "FabricMSPConfig")
        roots += [decode_pem_certificate(pem) for pem in message.tls_root_certs]
        intermediates += [decode_pem_certificate(pem) for pem in message.tls_intermediate_certs]
    return _TlsAuthorities(CertificatePool(roots), CertificatePool(intermediates))


def _is_valid_at(certificate: Certificate, now: float) -> bool:
    return certificate.not_before <= now <= certificate.not_after


def _loses_quorum(change: _MembershipChange, count: int, running: set[int]) -> bool:
    """Tell whether too few of the consenters would be left running, where more could be started first."""
    if not change.added and not change.removed:
        return False
    tolerates_one = count > 2  # with fewer consenters quorum is lost with any of them, whatever one does
    left = len(running - set(change.removed))
    if change.added:
        return tolerates_one and left < raft_quorum(count)
    return left < raft_quorum(count)


# --- maintenance (migration from Raft to BFT)


def check_maintenance(before: ChannelConfiguration, after: ChannelConfiguration, write_set: ConfigGroup) -> None:
    """Raise ConfigUpdateError unless an update with this write set changes state and type of consensus as it may.

    The type changes from Raft to BFT, in maintenance, with the same consenters; the state, together with nothing else.
    """
    is_same = before.consensus_type == after.consensus_type
    if not before.orderer_capabilities & _CAPABILITIES_WITH_MIGRATION:
        if after.consensus_state != STATE_NORMAL:
            raise ConfigUpdateError("attempted to change ConsensusType.State, but capability is disabled")
        if not is_same:
            raise ConfigUpdateError("attempted to change ConsensusType.Type, but capability is disabled")
        return
    if before.consensus_state != after.consensus_state:
        _check_only_consensus(write_set)
        if not is_same or before.consensus_metadata != after.consensus_metadata:
            raise ConfigUpdateError("attempted to change ConsensusType, but ConsensusType.State is changing")
    if is_same:
        return
    change = f"attempted to change consensus type from {before.consensus_type} to {after.consensus_type}"
    if STATE_NORMAL in (before.consensus_state, after.consensus_state):
        raise ConfigUpdateError(f"{change}, but ConsensusType.State is not in maintenance mode")
    if after.consensus_type != BFT:
        raise ConfigUpdateError(f"{change}, transition not supported")
    _check_migrated_consenters(before, after)


def _check_only_consensus(write_set: ConfigGroup) -> None:
    orderer = write_set.groups.get("Orderer")
    if write_set.values or orderer is None or len(write_set.groups) > 1:
        raise ConfigUpdateError("config update contains changes outside of the Orderer group")
    if orderer.groups or set(orderer.values) != {"ConsensusType"}:
        raise ConfigUpdateError("config update contains more than the ConsensusType value in the Orderer group")


def _check_migrated_consenters(before: ChannelConfiguration, after: ChannelConfiguration) -> None:
    def parts(consenter: raft_pb2.Consenter | configuration_pb2.Consenter) -> tuple[object, ...]:
        return consenter.host, consenter.port, consenter.server_tls_cert, consenter.client_tls_cert

    old = [parts(consenter) for consenter in _raft_metadata(before).consenters]
    new = [parts(consenter) for consenter in _consenter_mapping(after)]
    if len(old) != len(new) or not set(old) <= set(new):
        raise ConfigUpdateError("invalid BFT consenter mapping configuration: other consenters than before")
