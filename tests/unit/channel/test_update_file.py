"""Files with an update and its signatures: passed on unchanged, signed once by each, and total on what is no update."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from fabric_protos.common import common_pb2, configtx_pb2
from fabric_protos.msp import identities_pb2

from gateway.client.identity import SigningIdentity
from network.channel import update_file
from network.channel.change import BatchChange, set_batch
from network.channel.update_file import (
    MAX_SIGNATURES,
    read_update_file,
    sign_update,
    update_envelope,
    write_update_file,
)
from network.errors import ChannelChangeError, UpdateFileError
from network.protocol.block_signature import ChannelTrust
from network.protocol.config_update import (
    ConfigSignature,
    SignedUpdate,
    authorize_update,
    compute_update,
    encode_update,
    read_update_envelope,
)
from network.protocol.errors import ConfigUpdateError
from network.protocol.policy import SignedData, verified_signatures
from network.protocol.transaction import HEADER_CONFIG_UPDATE
from tests.support.generated_network import GeneratedNetwork

CHANNEL = "consortium"
NONCE = bytes(24)
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def unsigned(generated: GeneratedNetwork) -> SignedUpdate:
    root = generated.configuration().root
    return SignedUpdate(encode_update(compute_update(CHANNEL, root, set_batch(root, BatchChange(max_messages=7)))), ())


def admin(generated: GeneratedNetwork, msp_id: str) -> SigningIdentity:
    return SigningIdentity.from_msp_folder(msp_id, generated.credentials.user_msp(msp_id, "admin"))


def test_a_file_gives_back_what_was_written_and_counts_for_the_channel(
    generated: GeneratedNetwork, tmp_path: Path
) -> None:
    signed = sign_update(unsigned(generated), admin(generated, "OrdererMSP"), NONCE)
    write_update_file(tmp_path / "update", CHANNEL, signed)

    read = read_update_file(tmp_path / "update")

    assert read.signed == signed
    assert read.update.channel_id == CHANNEL
    trust = ChannelTrust(generated.configuration())
    assert authorize_update(read.signed, CHANNEL, trust).root != trust.configuration.root
    with pytest.raises(ConfigUpdateError):
        authorize_update(unsigned(generated), CHANNEL, trust)


def test_a_file_holds_no_key(generated: GeneratedNetwork, tmp_path: Path) -> None:
    write_update_file(
        tmp_path / "update", CHANNEL, sign_update(unsigned(generated), admin(generated, "OrdererMSP"), NONCE)
    )

    assert b"PRIVATE" not in (tmp_path / "update").read_bytes()


def test_the_form_is_that_of_fabrics_tools(generated: GeneratedNetwork, tmp_path: Path) -> None:
    signed = sign_update(unsigned(generated), admin(generated, "OrdererMSP"), NONCE)
    write_update_file(tmp_path / "update", CHANNEL, signed)

    envelope = common_pb2.Envelope.FromString((tmp_path / "update").read_bytes())
    payload = common_pb2.Payload.FromString(envelope.payload)
    header = common_pb2.ChannelHeader.FromString(payload.header.channel_header)
    content = configtx_pb2.ConfigUpdateEnvelope.FromString(payload.data)
    assert (header.type, header.channel_id) == (HEADER_CONFIG_UPDATE, CHANNEL)
    assert (envelope.signature, payload.header.signature_header) == (b"", b"")
    assert content.config_update == signed.content
    creator = common_pb2.SignatureHeader.FromString(content.signatures[0].signature_header).creator
    assert identities_pb2.SerializedIdentity.FromString(creator).mspid == "OrdererMSP"


def test_a_certificate_signs_once(generated: GeneratedNetwork) -> None:
    once = sign_update(unsigned(generated), admin(generated, "ServiceMSP"), NONCE)

    with pytest.raises(ChannelChangeError, match="ServiceMSP has signed this update"):
        sign_update(once, admin(generated, "ServiceMSP"), bytes([1]) * 24)
    assert len(sign_update(once, admin(generated, "FieldMSP"), NONCE).signatures) == 2


def test_what_goes_to_an_orderer_is_signed_by_who_submits(generated: GeneratedNetwork) -> None:
    signed = sign_update(unsigned(generated), admin(generated, "OrdererMSP"), NONCE)

    envelope = update_envelope(CHANNEL, signed, admin(generated, "ServiceMSP"), NONCE, NOW)

    payload = common_pb2.Payload.FromString(envelope.payload)
    header = common_pb2.ChannelHeader.FromString(payload.header.channel_header)
    creator = common_pb2.SignatureHeader.FromString(payload.header.signature_header).creator
    assert header.timestamp.ToDatetime(UTC) == NOW
    assert creator == admin(generated, "ServiceMSP").creator
    assert read_update_envelope(envelope) == signed
    claim = SignedData(creator, envelope.payload, envelope.signature)
    assert len(verified_signatures([claim], ChannelTrust(generated.configuration()).msps)) == 1


def envelope(header_type: int = HEADER_CONFIG_UPDATE, data: bytes = b"") -> bytes:
    header = common_pb2.ChannelHeader(type=header_type, channel_id=CHANNEL).SerializeToString()
    payload = common_pb2.Payload(header=common_pb2.Header(channel_header=header), data=data)
    return bytes(common_pb2.Envelope(payload=payload.SerializeToString()).SerializeToString())


def with_signature(header: bytes) -> bytes:
    signature = configtx_pb2.ConfigSignature(signature_header=header, signature=b"s")
    return bytes(configtx_pb2.ConfigUpdateEnvelope(signatures=[signature]).SerializeToString())


HOSTILE = {
    "text": b"not an update",
    "cut": b"\x0a\xff\xff\xff\xff\x0f",
    "payload is no payload": bytes(common_pb2.Envelope(payload=b"\xff\xff").SerializeToString()),
    "another header type": envelope(header_type=3),
    "data is no envelope": envelope(data=b"\x0a\xff"),
    "update does not decode": envelope(
        data=bytes(configtx_pb2.ConfigUpdateEnvelope(config_update=b"\xff\xff").SerializeToString())
    ),
    "signature header does not decode": envelope(data=with_signature(b"\xff\xff")),
    "creator is no identity": envelope(
        data=with_signature(bytes(common_pb2.SignatureHeader(creator=b"\xff\xff").SerializeToString()))
    ),
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE.keys())
def test_what_is_no_update_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "update").write_bytes(content)

    with pytest.raises(UpdateFileError, match="no update of a configuration"):
        read_update_file(tmp_path / "update")


def test_every_cut_of_a_file_is_read_or_refused(generated: GeneratedNetwork, tmp_path: Path) -> None:
    signed = sign_update(unsigned(generated), admin(generated, "OrdererMSP"), NONCE)
    write_update_file(tmp_path / "update", CHANNEL, signed)
    whole = (tmp_path / "update").read_bytes()

    for length in range(1, len(whole)):
        (tmp_path / "cut").write_bytes(whole[:length])
        with pytest.raises(UpdateFileError):
            read_update_file(tmp_path / "cut")


def test_more_signatures_than_any_channel_has_members_are_refused(generated: GeneratedNetwork, tmp_path: Path) -> None:
    creator = generated.user("ServiceMSP", "admin")
    header = common_pb2.SignatureHeader(
        creator=identities_pb2.SerializedIdentity(mspid=creator.msp_id, id_bytes=b"x").SerializeToString()
    ).SerializeToString()
    signature = ConfigSignature(header, b"s")
    many = unsigned(generated)._replace(signatures=(signature,) * (MAX_SIGNATURES + 1))
    write_update_file(tmp_path / "update", CHANNEL, many)

    with pytest.raises(UpdateFileError, match="more than 1000 signatures"):
        read_update_file(tmp_path / "update")


def test_a_file_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(update_file, "MAX_FILE_BYTES", 10)
    (tmp_path / "update").write_bytes(bytes(11))

    with pytest.raises(UpdateFileError, match="larger than 10 bytes"):
        read_update_file(tmp_path / "update")


def test_files_that_are_not_there_are_named(generated: GeneratedNetwork, tmp_path: Path) -> None:
    with pytest.raises(UpdateFileError, match=r"nothing: No such file"):
        read_update_file(tmp_path / "nothing")
    (tmp_path / "file").write_text("")
    with pytest.raises(UpdateFileError, match=r"file/update"):
        write_update_file(tmp_path / "file" / "update", CHANNEL, unsigned(generated))
