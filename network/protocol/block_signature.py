"""Orderers' signatures on blocks, judged under the configuration in force.

Rules: `protoutil/blockutils.go` (BlockSignatureVerifier, GetLastConfigIndexFromBlock),
`common/deliverclient/verifier_assembler.go`. Messages: `common/common.proto` Metadata, OrdererBlockMetadata.
"""

from typing import Final, NamedTuple

from fabric_protos.common import common_pb2

from network.protocol import limits
from network.protocol.block import SLOT_LAST_CONFIG, SLOT_SIGNATURES, BlockHeader, header_bytes
from network.protocol.configuration import ChannelConfiguration
from network.protocol.errors import ConfigurationError, DecodeError, LimitExceededError
from network.protocol.identity import SerializedIdentity, encode_serialized_identity
from network.protocol.msp import ChannelMsps
from network.protocol.policy import ChannelPolicies, SignedData
from network.protocol.wire import parse

BLOCK_VALIDATION: Final = "/Channel/Orderer/BlockValidation"


class MetadataSignature(NamedTuple):
    """One orderer's signature, by the certificate in `signature_header` or the consenter id in `identifier_header`."""

    signature_header: bytes
    identifier_header: bytes
    signature: bytes


class SignedMetadata(NamedTuple):
    """Slot 0 of a block's metadata: the value that signatures cover, and the signatures."""

    value: bytes
    signatures: tuple[MetadataSignature, ...]


class Signer(NamedTuple):
    """Who signed: MSP ID, identity id (hex hash of the certificate), consenter id where the block gives one."""

    msp_id: str
    identity_id: str
    consenter_id: int | None


class BlockAttestation(NamedTuple):
    """The signers whose signatures check out, each once, in the block's order; together they satisfy the policy."""

    signers: tuple[Signer, ...]


def decode_signed_metadata(metadata: tuple[bytes, ...]) -> SignedMetadata:
    """Read slot 0.

    Raises DecodeError when it is missing or unreadable, LimitExceededError beyond MAX_BLOCK_SIGNATURES.
    """
    if len(metadata) <= SLOT_SIGNATURES:
        raise DecodeError("block metadata: no slot for signatures")
    message = parse(common_pb2.Metadata, metadata[SLOT_SIGNATURES], "Metadata")
    if len(message.signatures) > limits.MAX_BLOCK_SIGNATURES:
        raise LimitExceededError(f"Metadata: more than {limits.MAX_BLOCK_SIGNATURES} signatures")
    return SignedMetadata(
        message.value,
        tuple([MetadataSignature(s.signature_header, s.identifier_header, s.signature) for s in message.signatures]),
    )


def last_config_index(metadata: tuple[bytes, ...]) -> int:
    """Give the number of the last configuration block as the orderers signed it.

    Falls back to the unsigned slot 1 where slot 0 has no value, as in chains begun before Fabric 1.4.1. Raises
    DecodeError.
    """
    value = decode_signed_metadata(metadata).value
    if value:
        message = parse(common_pb2.OrdererBlockMetadata, value, "OrdererBlockMetadata")
        if not message.HasField("last_config"):
            raise DecodeError("OrdererBlockMetadata: no last config")
        return int(message.last_config.index)
    if len(metadata) <= SLOT_LAST_CONFIG:
        raise DecodeError("block metadata: no slot for the last config")
    unsigned = parse(common_pb2.Metadata, metadata[SLOT_LAST_CONFIG], "Metadata")
    return int(parse(common_pb2.LastConfig, unsigned.value, "LastConfig").index)


class ChannelTrust:
    """A configuration made ready to judge signatures: its MSPs and policies, built once, with what they remember.

    Raises ConfigurationError when Fabric could not build it, LimitExceededError for policies beyond our bounds.
    """

    def __init__(self, configuration: ChannelConfiguration) -> None:
        self.configuration = configuration
        self.msps = ChannelMsps(configuration.msp_definitions, configuration.msp_version)
        self.policies = ChannelPolicies(configuration.root, self.msps)
        if BLOCK_VALIDATION not in self.policies.by_path:
            raise ConfigurationError(f"no policy {BLOCK_VALIDATION}")
        self._consenter_identities: dict[int, bytes] = {}
        for consenter in configuration.consenters:
            identity = SerializedIdentity(consenter.msp_id, consenter.certificate_pem)
            self._consenter_identities.setdefault(consenter.consenter_id, encode_serialized_identity(identity))

    def verify_block(self, header: BlockHeader, metadata: tuple[bytes, ...]) -> BlockAttestation:
        """Check the signatures of a block that this configuration is in force for; tell who signed.

        Raises PolicyError when they do not satisfy BlockValidation, DecodeError when slot 0 does not read. Block 0
        carries no signatures and is trusted by its hash, not here.
        """
        slot = decode_signed_metadata(metadata)
        signed, consenter_ids = [], []
        covered_header = header_bytes(header)
        for entry in slot.signatures:
            consenter_id = None
            if self._is_named_by_id(entry):
                identifier = parse(common_pb2.IdentifierHeader, entry.identifier_header, "IdentifierHeader")
                consenter_id = int(identifier.identifier)
                signer, signer_header = self._consenter_identities.get(consenter_id), entry.identifier_header
                if not signer:
                    continue  # no error in Fabric either: others may suffice
            else:
                signature_header = parse(common_pb2.SignatureHeader, entry.signature_header, "SignatureHeader")
                signer, signer_header = signature_header.creator, entry.signature_header
            signed.append(SignedData(signer, slot.value + signer_header + covered_header, entry.signature))
            consenter_ids.append(consenter_id)
        verified = self.policies.evaluate_signed_data(BLOCK_VALIDATION, signed)
        return BlockAttestation(
            tuple([Signer(v.identity.msp_id, v.identity.identity_id, consenter_ids[v.position]) for v in verified])
        )

    def _is_named_by_id(self, entry: MetadataSignature) -> bool:
        by_id = self.configuration.names_consenters_by_id
        return by_id and not entry.signature_header and bool(entry.identifier_header)
