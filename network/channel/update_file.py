"""Files that hold an update and its signatures, passed from one administrator to the next; no secret is in them.

The form is that of Fabric's own tools: an Envelope of type CONFIG_UPDATE that nobody has signed, with the update and
the signatures inside (`internal/peer/channel/signconfigtx.go`): `peer channel signconfigtx` and we sign the same file.
"""

from datetime import datetime
from pathlib import Path
from typing import Final, NamedTuple

from fabric_protos.common import common_pb2

from gateway.client.identity import SigningIdentity
from network.errors import ChannelChangeError, UpdateFileError
from network.protocol.config_update import (
    ConfigSignature,
    ConfigUpdate,
    SignedUpdate,
    decode_update,
    encode_signed_update,
    read_update_envelope,
    signed_bytes,
    signed_claims,
)
from network.protocol.errors import ConfigurationError, DecodeError
from network.protocol.identity import decode_serialized_identity
from network.protocol.transaction import HEADER_CONFIG_UPDATE
from network.protocol.wire import parse
from network.running.atomic_file import write_file

MAX_FILE_BYTES: Final = 32 * 1024 * 1024
MAX_SIGNATURES: Final = 1000


class ReadUpdate(NamedTuple):
    """An update file that was read."""

    signed: SignedUpdate
    update: ConfigUpdate


def read_update_file(path: Path) -> ReadUpdate:
    """Read an update file; raises UpdateFileError."""
    content = read_bounded(path)
    try:
        signed = read_update_envelope(parse(common_pb2.Envelope, content, "Envelope"))
        update = decode_update(signed.content)
        for claim in signed_claims(signed):
            decode_serialized_identity(claim.identity)
    except (ConfigurationError, DecodeError) as error:
        raise UpdateFileError(f"{path}: no update of a configuration: {error}") from error
    if len(signed.signatures) > MAX_SIGNATURES:
        raise UpdateFileError(f"{path}: more than {MAX_SIGNATURES} signatures")
    return ReadUpdate(signed, update)


def write_update_file(path: Path, channel_id: str, signed: SignedUpdate) -> None:
    """Write an update file, whole or not at all; raises UpdateFileError."""
    header = common_pb2.ChannelHeader(type=HEADER_CONFIG_UPDATE, channel_id=channel_id)
    payload = common_pb2.Payload(
        header=common_pb2.Header(channel_header=header.SerializeToString()), data=encode_signed_update(signed)
    )
    content = common_pb2.Envelope(payload=payload.SerializeToString()).SerializeToString()
    try:
        write_file(path, content)
    except OSError as error:
        raise UpdateFileError(f"{path}: {error.strerror}") from error


def read_bounded(path: Path, max_bytes: int | None = None) -> bytes:
    """Read a file of so many bytes at most, by default as an update or a configuration; raises UpdateFileError."""
    max_bytes = MAX_FILE_BYTES if max_bytes is None else max_bytes
    try:
        with path.open("rb") as file:
            content = file.read(max_bytes + 1)
    except OSError as error:
        raise UpdateFileError(f"{path}: {error.strerror}") from error
    if len(content) > max_bytes:
        raise UpdateFileError(f"{path}: larger than {max_bytes} bytes")
    return content


def sign_update(signed: SignedUpdate, identity: SigningIdentity, nonce: bytes) -> SignedUpdate:
    """Add a signature; `nonce` is 24 random bytes. Raises ChannelChangeError when the identity has signed already."""
    own = decode_serialized_identity(identity.creator)
    for claim in signed_claims(signed):
        if decode_serialized_identity(claim.identity) == own:
            raise ChannelChangeError(f"{identity.msp_id} has signed this update with this very certificate already")
    header = common_pb2.SignatureHeader(creator=identity.creator, nonce=nonce).SerializeToString()
    signature = ConfigSignature(header, identity.sign(signed_bytes(signed.content, header)))
    return signed._replace(signatures=(*signed.signatures, signature))


def update_envelope(
    channel_id: str, signed: SignedUpdate, identity: SigningIdentity, nonce: bytes, now: datetime
) -> common_pb2.Envelope:
    """Make the envelope that goes to an orderer, signed by whoever submits it; `now` in UTC."""
    header = common_pb2.ChannelHeader(type=HEADER_CONFIG_UPDATE, channel_id=channel_id)
    header.timestamp.FromDatetime(now.replace(tzinfo=None))
    signature_header = common_pb2.SignatureHeader(creator=identity.creator, nonce=nonce)
    payload = common_pb2.Payload(
        header=common_pb2.Header(
            channel_header=header.SerializeToString(), signature_header=signature_header.SerializeToString()
        ),
        data=encode_signed_update(signed),
    ).SerializeToString()
    return common_pb2.Envelope(payload=payload, signature=identity.sign(payload))
