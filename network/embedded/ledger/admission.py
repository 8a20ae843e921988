"""What an orderer takes: form, size, expiry and signature of an envelope, and updates that the configuration allows.

What is in a transaction, peers judge later. Rules: `orderer/common/broadcast/broadcast.go`,
`orderer/common/multichannel/{registrar,chainsupport}.go`,
`orderer/common/msgprocessor/{filter,sizefilter,expiration,sigfilter,standardchannel}.go`,
`orderer/consensus/smartbft/chain.go`.
"""

from collections.abc import Collection
from typing import Final, NamedTuple

from fabric_protos.common import common_pb2, configtx_pb2

from network.embedded.ledger.access_control import policy_defect
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
from network.protocol.errors import ConfigUpdateError, ConfigurationError, DecodeError
from network.protocol.policy import SignedData
from network.protocol.transaction import HEADER_CONFIG, HEADER_CONFIG_UPDATE, HEADER_ENDORSER_TRANSACTION
from network.protocol.wire import parse, parse_in_words_of_go

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
    return str(_channel_header(envelope).channel_id)


def is_config_update(envelope: common_pb2.Envelope) -> bool:
    """Tell whether an envelope is an update of the configuration; raises AdmissionError for what is never taken."""
    header = _channel_header(envelope)
    refused = _TYPE_REFUSALS.get(header.type)
    if refused is not None:
        raise AdmissionError(BAD_REQUEST, refused)
    return bool(header.type == HEADER_CONFIG_UPDATE)


def check_transaction(envelope: common_pb2.Envelope, rules: ChannelRules, max_bytes: int, now: float) -> None:
    """Raise AdmissionError unless an envelope that is no update may be ordered; `now` in seconds since 1970."""
    if rules.configuration.consensus_state == STATE_MAINTENANCE:
        raise AdmissionError(SERVICE_UNAVAILABLE, "normal transactions are rejected: maintenance mode")
    _filter(envelope, rules, max_bytes, now)
    if rules.configuration.consensus_type == BFT and _channel_header(envelope).type != HEADER_ENDORSER_TRANSACTION:
        # What the others would not agree to is refused before it is proposed.
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
    _check_readable(envelope, applying)
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


def _check_readable(envelope: common_pb2.Envelope, applying: str) -> None:
    """Refuse bytes that are no update, in the words of Go's parser (`common/configtx/validator.go`)."""
    payload = parse(common_pb2.Payload, envelope.payload, "Payload")
    words = "error converting envelope to config update: error unmarshalling message for type CONFIG_UPDATE"
    try:
        message = parse_in_words_of_go(configtx_pb2.ConfigUpdateEnvelope, payload.data)
        words = "error authorizing update"
        parse_in_words_of_go(configtx_pb2.ConfigUpdate, message.config_update)
    except DecodeError as error:
        raise AdmissionError(BAD_REQUEST, f"{applying}: {words}: {error}") from error


def check_wrapped(envelope: common_pb2.Envelope, rules: ChannelRules, max_bytes: int, now: float) -> None:
    """Raise AdmissionError unless a configuration, as an orderer signed it, may be ordered."""
    try:
        _filter(envelope, rules, max_bytes, now)
    except AdmissionError as error:
        raise error.after("config update for existing channel did not pass final checks") from error


def _filter(envelope: common_pb2.Envelope, rules: ChannelRules, max_bytes: int, now: float) -> None:
    size = len(envelope.payload) + len(envelope.signature)
    if size > max_bytes:
        words = f"message payload is {size} bytes and exceeds maximum allowed {max_bytes} bytes"
        raise AdmissionError(BAD_REQUEST, words)
    creator = _creator(envelope)
    if has_expired(creator, now):
        raise AdmissionError(BAD_REQUEST, "broadcast client identity expired")
    policy = ORDERER_WRITERS if rules.configuration.consensus_state == STATE_MAINTENANCE else WRITERS
    if policy not in rules.trust.policies.by_path:
        raise AdmissionError(BAD_REQUEST, f"could not find policy {policy}")
    defect = policy_defect(policy, SignedData(creator, envelope.payload, envelope.signature), rules)
    if defect is not None:
        raise AdmissionError(FORBIDDEN, f"{defect}: permission denied")


def _channel_header(envelope: common_pb2.Envelope) -> common_pb2.ChannelHeader:
    undetermined = "could not determine channel ID: "
    try:
        payload = parse_in_words_of_go(common_pb2.Payload, envelope.payload)
    except DecodeError as error:
        raise AdmissionError(BAD_REQUEST, f"{undetermined}error unmarshalling Payload: {error}") from error
    if not payload.HasField("header"):
        raise AdmissionError(BAD_REQUEST, f"{undetermined}header not set")
    if not payload.header.channel_header:
        raise AdmissionError(BAD_REQUEST, f"{undetermined}channel header not set")
    try:
        return parse_in_words_of_go(common_pb2.ChannelHeader, payload.header.channel_header)
    except DecodeError as error:
        words = f"{undetermined}error unmarshalling channel header: error unmarshalling ChannelHeader: {error}"
        raise AdmissionError(BAD_REQUEST, words) from error


def _creator(envelope: common_pb2.Envelope) -> bytes:
    header = parse_in_words_of_go(common_pb2.Payload, envelope.payload).header
    try:
        return bytes(parse_in_words_of_go(common_pb2.SignatureHeader, header.signature_header).creator)
    except DecodeError as error:
        words = f"could not convert message to signedData: GetSignatureHeaderFromBytes failed, err {error}"
        raise AdmissionError(BAD_REQUEST, words) from error
