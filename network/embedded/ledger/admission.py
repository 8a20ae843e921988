"""What an orderer takes: form, size, expiry and signature of an envelope, and updates that the configuration allows.

What is in a transaction, peers judge later. Rules: `orderer/common/broadcast/broadcast.go`,
`orderer/common/multichannel/{registrar,chainsupport}.go`,
`orderer/common/msgprocessor/{filter,sizefilter,expiration,sigfilter,standardchannel}.go`,
`orderer/consensus/smartbft/chain.go`.
"""

from collections.abc import Collection
from typing import Final, NamedTuple

from fabric_protos.common import common_pb2, configtx_pb2

from network.embedded.ledger.expiry import has_expired
from network.protocol.config_group import encode_group
from network.protocol.config_transition import (
    BFT,
    STATE_MAINTENANCE,
    check_bft,
    check_maintenance,
    check_orderable,
    check_successor,
)
from network.protocol.config_update import authorize_update, decode_update, read_update_envelope
from network.protocol.configuration import view_configuration
from network.protocol.endorsement_policy import ChannelRules
from network.protocol.errors import ConfigUpdateError, ConfigurationError, DecodeError, PolicyError
from network.protocol.policy import SignedData, verified_signatures
from network.protocol.transaction import HEADER_CONFIG, HEADER_CONFIG_UPDATE, HEADER_ENDORSER_TRANSACTION
from network.protocol.wire import parse

BAD_REQUEST: Final = 400
FORBIDDEN: Final = 403
SERVICE_UNAVAILABLE: Final = 503

HEADER_ORDERER_TRANSACTION: Final = 4
WRITERS: Final = "/Channel/Writers"
ORDERER_WRITERS: Final = "/Channel/Orderer/Writers"

_TYPE_REFUSALS: Final = {
    HEADER_CONFIG: "message is of type that cannot be processed directly",
    HEADER_ORDERER_TRANSACTION: "message is of type that is no longer supported",
}


class AdmissionError(Exception):
    """The envelope is refused: a status of `common.Status`, and why."""

    def __init__(self, status: int, info: str) -> None:
        super().__init__(info)
        self.status = status
        self.info = info

    def after(self, words: str) -> "AdmissionError":
        """Give the same refusal with words that say where it happened."""
        return AdmissionError(self.status, f"{words}: {self.info}")


class NextConfiguration(NamedTuple):
    """A configuration that an update makes: ready to be ordered, and ready to be in force."""

    content: bytes
    rules: ChannelRules


def read_channel_id(envelope: common_pb2.Envelope) -> str:
    """Give the channel that an envelope is for; raises AdmissionError."""
    return str(_headers(envelope)[0].channel_id)


def is_config_update(envelope: common_pb2.Envelope) -> bool:
    """Tell whether an envelope is an update of the configuration; raises AdmissionError for what is never taken."""
    header, _ = _headers(envelope)
    refused = _TYPE_REFUSALS.get(header.type)
    if refused is not None:
        raise AdmissionError(BAD_REQUEST, refused)
    return bool(header.type == HEADER_CONFIG_UPDATE)


def check_transaction(envelope: common_pb2.Envelope, rules: ChannelRules, max_bytes: int, now: float) -> None:
    """Raise AdmissionError unless an envelope that is no update may be ordered; `now` in seconds since 1970."""
    if rules.configuration.consensus_state == STATE_MAINTENANCE:
        raise AdmissionError(SERVICE_UNAVAILABLE, "normal transactions are rejected: maintenance mode")
    _filter(envelope, rules, max_bytes, now)
    if rules.configuration.consensus_type == BFT and _headers(envelope)[0].type != HEADER_ENDORSER_TRANSACTION:
        # A real orderer takes it, and BFT stumbles over it: the leader proposes what the others refuse.
        raise AdmissionError(BAD_REQUEST, "BFT orders transactions and configurations, and nothing else")


def propose_configuration(
    envelope: common_pb2.Envelope,
    rules: ChannelRules,
    max_bytes: int,
    now: float,
    running: Collection[int] | None,
) -> NextConfiguration:
    """Make the configuration that an update asks for; raises AdmissionError unless it is allowed and can be ordered.

    `running` as in `config_transition.check_orderable`.
    """
    channel_id = rules.channel_id
    try:
        _filter(envelope, rules, max_bytes, now)
    except AdmissionError as error:
        raise error.after("config update for existing channel did not pass initial checks") from error
    applying = f"error applying config update to existing channel '{channel_id}'"
    try:
        signed = read_update_envelope(envelope)
        proposed = authorize_update(signed, channel_id, rules.trust)
    except (ConfigUpdateError, DecodeError) as error:
        raise AdmissionError(BAD_REQUEST, f"{applying}: error authorizing update: {error}") from error
    sequence = rules.configuration.sequence + 1
    before, write_set = rules.configuration, decode_update(signed.content).write_set
    try:
        after = view_configuration(sequence, channel_id, proposed.root)
        next_rules = ChannelRules(channel_id, after)
        check_successor(before, after)
        check_orderable(before, after, running=running, now=now)
    except (ConfigurationError, ConfigUpdateError, DecodeError) as error:
        raise AdmissionError(BAD_REQUEST, f"{applying}: {error}") from error
    try:
        check_maintenance(before, after, write_set)
    except ConfigUpdateError as error:
        words = (
            "config update for existing channel did not pass maintenance checks: config transaction inspection failed"
        )
        raise AdmissionError(BAD_REQUEST, f"{words}: {error}") from error
    if after.consensus_type == BFT:
        try:
            check_bft(after)
        except (ConfigUpdateError, DecodeError) as error:
            raise AdmissionError(SERVICE_UNAVAILABLE, str(error)) from error
    config = configtx_pb2.Config(sequence=sequence, channel_group=encode_group(proposed.root))
    message = configtx_pb2.ConfigEnvelope(config=config, last_update=envelope)
    return NextConfiguration(message.SerializeToString(deterministic=True), next_rules)


def check_wrapped(envelope: common_pb2.Envelope, rules: ChannelRules, max_bytes: int, now: float) -> None:
    """Raise AdmissionError unless a configuration, as an orderer signed it, may be ordered."""
    try:
        _filter(envelope, rules, max_bytes, now)
    except AdmissionError as error:
        raise error.after("config update for existing channel did not pass final checks") from error


def _filter(envelope: common_pb2.Envelope, rules: ChannelRules, max_bytes: int, now: float) -> None:
    _, signature_header = _headers(envelope)
    size = len(envelope.payload) + len(envelope.signature)
    if size > max_bytes:
        words = f"message payload is {size} bytes and exceeds maximum allowed {max_bytes} bytes"
        raise AdmissionError(BAD_REQUEST, words)
    if has_expired(signature_header.creator, now):
        raise AdmissionError(BAD_REQUEST, "broadcast client identity expired")
    signed = SignedData(signature_header.creator, envelope.payload, envelope.signature)
    policy = ORDERER_WRITERS if rules.configuration.consensus_state == STATE_MAINTENANCE else WRITERS
    identities = tuple([verified.identity for verified in verified_signatures((signed,), rules.msps)])
    try:
        reason = rules.trust.policies.refusal(policy, identities)
    except PolicyError as error:
        raise AdmissionError(BAD_REQUEST, f"could not find policy {policy}") from error
    if reason is not None:
        raise AdmissionError(FORBIDDEN, f"{reason}: permission denied")


def _headers(envelope: common_pb2.Envelope) -> tuple[common_pb2.ChannelHeader, common_pb2.SignatureHeader]:
    try:
        header = parse(common_pb2.Payload, envelope.payload, "Payload").header
        channel_header = parse(common_pb2.ChannelHeader, header.channel_header, "ChannelHeader")
        signature_header = parse(common_pb2.SignatureHeader, header.signature_header, "SignatureHeader")
    except DecodeError as error:
        raise AdmissionError(BAD_REQUEST, f"could not determine channel ID: {error}") from error
    if not header.channel_header:
        raise AdmissionError(BAD_REQUEST, "could not determine channel ID: header not set")
    return channel_header, signature_header
