"""Validly signed chains made at run time, in Fabric's exact form, for tests that then break exactly one thing.

`ChainFactory` is a network in miniature: an orderer organisation that signs blocks (one Raft orderer's signature, or a
quorum of four BFT orderers), two application organisations, and a peer that writes verdicts and commit hashes into the
blocks. The same seed gives the same bytes, keys and certificates included.

What is real: the configuration tree, MSPs and certificates, envelopes down to the write sets, data hashes, header
hashes, orderers' signatures (low-S), flags, commit hashes. What is not: signatures of creators and endorsers have the
right form and size but verify against nothing (those of administrators on updates do verify), nothing was simulated or
validated, and a transaction has whatever verdict its `TransactionSpec` asks for.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import Any, Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from fabric_protos.common import common_pb2, configtx_pb2, configuration_pb2
from fabric_protos.ledger.rwset import rwset_pb2
from fabric_protos.ledger.rwset.kvrwset import kv_rwset_pb2
from fabric_protos.msp import msp_config_pb2
from fabric_protos.orderer import configuration_pb2 as orderer_pb2
from fabric_protos.orderer.etcdraft import configuration_pb2 as raft_pb2
from fabric_protos.orderer.etcdraft import metadata_pb2 as raft_metadata_pb2
from fabric_protos.orderer.smartbft import configuration_pb2 as smartbft_pb2
from fabric_protos.peer import (
    chaincode_event_pb2,
    chaincode_pb2,
    proposal_pb2,
    proposal_response_pb2,
    transaction_pb2,
)

from network.protocol.block import BlockHeader, header_bytes
from network.protocol.commit_hash import StateKey, commit_hash
from network.protocol.config_group import decode_group, encode_group
from network.protocol.config_update import (
    ConfigSignature,
    SignedUpdate,
    apply_update,
    compute_update,
    encode_signed_update,
    encode_update,
    signed_bytes,
)
from network.protocol.msp import Role
from network.protocol.private_data import LIFECYCLE_NAMESPACE
from network.protocol.read_write_set import MetadataEntry, Version
from network.protocol.state_update import Operation, merge_operations
from network.protocol.transaction import HEADER_CONFIG, HEADER_CONFIG_UPDATE, HEADER_ENDORSER_TRANSACTION
from network.protocol.validation import BlockJudgement
from network.protocol.validation_code import VALID
from network.protocol.wire import varint
from tests.support.credential import (
    START,
    YEAR,
    Credential,
    any_of,
    identity_principal,
    implicit_policy,
    low_s,
    msp_config,
    name,
    out_of,
    role,
    signature_policy,
    signed_by,
)

ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
"""Of the curve P-256."""
BEGINNING = 1_793_000_000
"""Claimed time of the first transaction, in seconds since 1970; each later one comes a second after."""
ANY, MAJORITY = 0, 2
"""Rules of implicit meta policies."""


class Randomness:
    """As many bytes as anybody wants, the same ones for the same seed."""

    def __init__(self, seed: str) -> None:
        self._seed = sha256(seed.encode()).digest()
        self._count = 0

    def give(self, length: int) -> bytes:
        given = b""
        while len(given) < length:
            self._count += 1
            given += sha256(self._seed + self._count.to_bytes(8, "big")).digest()
        return given[:length]


# --- credentials that follow from a seed


class Signer(Credential):
    """A credential that signs the same data alike each time."""

    @cached_property
    def identity(self) -> bytes:
        """Serialised, as creators, endorsers and signers are written."""
        return self.serialized

    def sign(self, data: bytes) -> bytes:
        """Sign as Fabric signs: ECDSA over SHA-256, s in the lower half."""
        if not isinstance(self.key, ec.EllipticCurvePrivateKey):
            raise TypeError("only ECDSA can be made to sign alike each time")
        return low_s(self.key.sign(data, ec.ECDSA(hashes.SHA256(), deterministic_signing=True)), self.key.curve)


class Authority:
    """A certificate authority whose keys, serial numbers and signatures follow from the randomness given."""

    def __init__(self, msp_id: str, common_name: str, randomness: Randomness) -> None:
        self._msp_id = msp_id
        self._randomness = randomness
        self._subject = name(common_name)
        self._key = self._new_key()
        self.root = self._certify(self._subject, self._key, is_ca=True)

    def issue(self, common_name: str, unit: str) -> Signer:
        """Give a new identity with a NodeOU."""
        return self._certify(name(common_name, [unit]), self._new_key(), is_ca=False)

    def _new_key(self) -> ec.EllipticCurvePrivateKey:
        secret = int.from_bytes(self._randomness.give(40), "big") % (ORDER - 1) + 1
        return ec.derive_private_key(secret, ec.SECP256R1())

    def _certify(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, *, is_ca: bool) -> Signer:
        usage = x509.KeyUsage(
            digital_signature=True,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            key_cert_sign=is_ca,
            crl_sign=is_ca,
            encipher_only=False,
            decipher_only=False,
        )
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._subject)
            .public_key(key.public_key())
            .serial_number(int.from_bytes(self._randomness.give(16), "big") >> 1)
            .not_valid_before(START)
            .not_valid_after(START + 10 * YEAR)
            .add_extension(usage, critical=True)
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256(), ecdsa_deterministic=True)
        )
        return Signer(self._msp_id, certificate, key)


class Organisation:
    """An organisation with its MSP: one authority for identities, one for TLS."""

    def __init__(self, organisation: str, randomness: Randomness) -> None:
        self.name = organisation
        self.msp_id = f"{organisation}MSP"
        self._authority = Authority(self.msp_id, f"ca.{organisation}", randomness)
        self.tls = Authority(self.msp_id, f"tlsca.{organisation}", randomness)
        self.client = self.issue("user", "client")
        self.peer = self.issue("peer0", "peer")
        self.admin = self.issue("admin", "admin")

    def issue(self, common_name: str, unit: str) -> Signer:
        """Give a new identity of this organisation."""
        return self._authority.issue(common_name, unit)

    def msp(self) -> bytes:
        """Make the MSP value of a channel configuration."""
        root = self._authority.root
        configuration = msp_config(self.msp_id, [root], node_unit_certificate=root.pem)
        configuration.tls_root_certs.append(self.tls.root.pem)
        return serialize(msp_config_pb2.MSPConfig(type=0, config=serialize(configuration)))


# --- what a test asks for


@dataclass(frozen=True)
class WriteSpec:
    """One write: a value (None: delete), or `metadata` (then the value is not touched; no entries remove it).

    In a `collection` the block holds the hashes of key and value. An empty `namespace` is the transaction's chaincode.
    """

    key: str
    value: bytes | None = None
    collection: str = ""
    namespace: str = ""
    metadata: Mapping[str, bytes] | None = None
    is_purge: bool = False


def put(key: str, value: bytes, *, collection: str = "", namespace: str = "") -> WriteSpec:
    """Write a value."""
    return WriteSpec(key, value, collection, namespace)


def delete(key: str, *, collection: str = "", namespace: str = "") -> WriteSpec:
    """Delete a key."""
    return WriteSpec(key, None, collection, namespace)


def purge(key: str, *, collection: str) -> WriteSpec:
    """Purge a private key."""
    return WriteSpec(key, None, collection, is_purge=True)


def set_metadata(key: str, entries: Mapping[str, bytes], *, collection: str = "") -> WriteSpec:
    """Set the metadata of a key, or remove it."""
    return WriteSpec(key, None, collection, metadata=entries)


@dataclass(frozen=True)
class TransactionSpec:
    """A transaction and the verdict it gets, valid and complete unless a field says otherwise.

    `reads` are keys with the version read (None: absent). `envelope`: these bytes stand in the block instead of
    anything made from the other fields, `code` apart. `organisation` is the creator's, by its place in
    `ChainFactory.organisations`.
    """

    writes: Sequence[WriteSpec] = ()
    code: int = VALID
    reads: Sequence[tuple[str, Version | None]] = ()
    chaincode: str = "ext"
    function: bytes = b"put"
    arguments: Sequence[bytes] = ()
    event: tuple[str, bytes] | None = None
    organisation: int = 0
    endorsers: int = 2
    header_type: int = HEADER_ENDORSER_TRANSACTION
    channel: str | None = None
    tx_id: str | None = None
    envelope: bytes | None = None


# --- the factory


class ChainFactory:
    """Makes one chain, block by block; `blocks` are those made so far, beginning with the genesis block.

    `orderers` sign the next block: the first of them in a Raft channel, as many as make a quorum in a BFT channel.
    `configuration` is the configuration in force, `configured_by` the number of the block that brought it.
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        consensus: Literal["raft", "bft"] = "raft",
        channel: str = "consortium",
    ) -> None:
        self.channel = channel
        self.consensus = consensus
        self._randomness = Randomness(f"chain {seed}")
        self.organisations = tuple([Organisation(name, self._randomness) for name in ("Enterprise", "Customer")])
        self.orderer_organisation, self.orderers = self._new_orderers()
        self.configuration = configtx_pb2.Config(sequence=0, channel_group=self._channel_group())
        self.configured_by = 0
        self.blocks: list[bytes] = []
        self._previous_hash = b""
        self._commit_hash: bytes | None = None
        self._state: dict[StateKey, tuple[bytes, Version]] = {}
        self._transactions = 0
        self._append([self._genesis_envelope()], bytes(1))

    @property
    def height(self) -> int:
        """Number of the next block."""
        return len(self.blocks)

    def genesis(self) -> bytes:
        """Give block 0."""
        return self.blocks[0]

    def block(self, transactions: Sequence[TransactionSpec]) -> bytes:
        """Make the next block."""
        envelopes = [spec.envelope or self.envelope(spec) for spec in transactions]
        updates: dict[StateKey, tuple[bytes | None, Version]] = {}
        for tx_number, spec in enumerate(transactions):
            if spec.code == VALID and spec.envelope is None and spec.header_type == HEADER_ENDORSER_TRANSACTION:
                self._apply(spec, Version(self.height, tx_number), updates)
        return self._append(envelopes, bytes([spec.code for spec in transactions]), updates)

    def judged_block(self, envelopes: Sequence[bytes], judgement: BlockJudgement) -> bytes:
        """Make the next block of these envelopes, with the verdicts and the commit hash that their judgement gives."""
        return self._append(envelopes, judgement.flags, judgement.hashed_updates())

    def config_block(
        self,
        change: Callable[[Any], None] | None = None,
        *,
        sequence: int | None = None,
        code: int = VALID,
        spoil: Callable[[Any], None] = lambda _: None,
    ) -> bytes:
        """Make the next block of a new configuration: today's after a `change` to its channel group.

        It is signed under the configuration in force until now. `spoil` is given the ConfigEnvelope that is ready.
        Without VALID as `code` it does not come into force.
        """
        envelope = self.config_envelope(change)
        if sequence is not None:
            envelope.config.sequence = sequence
        spoil(envelope)
        number = self.height
        wrapped = serialize(self._signed_envelope(HEADER_CONFIG, serialize(envelope), self.orderers[0]))
        content = self._append([wrapped], bytes([code]), config_block=number)
        if code == VALID:
            self.configuration, self.configured_by = envelope.config, number
        return content

    def config_envelope(self, change: Callable[[Any], None] | None = None, *, before: Any = None) -> Any:
        """Make a ConfigEnvelope: a configuration (None: that in force) after a `change`, and the update that made it.

        The update is signed by the administrators of every organisation. None changes a number that nobody reads.
        """
        old = self.configuration if before is None else before
        after = configtx_pb2.ConfigGroup()
        after.CopyFrom(old.channel_group)
        (change or _change_little)(after)
        root = decode_group(old.channel_group, "/Channel")
        update = compute_update(self.channel, root, decode_group(after, "/Channel"))
        group = encode_group(apply_update(update, self.channel, root).root)
        signed = SignedUpdate(encode_update(update), self._signatures_on(encode_update(update)))
        reason = self._signed_envelope(HEADER_CONFIG_UPDATE, encode_signed_update(signed), self.organisations[0].admin)
        configuration = configtx_pb2.Config(sequence=old.sequence + 1, channel_group=group)
        return configtx_pb2.ConfigEnvelope(config=configuration, last_update=reason)

    def _signatures_on(self, update: bytes) -> tuple[ConfigSignature, ...]:
        signatures = []
        for organisation in (*self.organisations, self.orderer_organisation):
            header = common_pb2.SignatureHeader(creator=organisation.admin.identity, nonce=self._randomness.give(24))
            content = serialize(header)
            signatures.append(ConfigSignature(content, organisation.admin.sign(signed_bytes(update, content))))
        return tuple(signatures)

    def rotate_orderers(self) -> bytes:
        """Make a configuration block that replaces the orderers and their authority; the new ones sign what follows."""
        organisation, orderers = self._new_orderers()
        content = self.config_block(lambda group: self._set_orderers(group, organisation, orderers))
        self.orderer_organisation, self.orderers = organisation, orderers
        return content

    def resign(self, block: Any, *, signers: Sequence[Signer] | None = None, config_block: int | None = None) -> None:
        """Sign the header of a block message as it stands now, whatever was changed in it.

        `config_block` is the configuration that the signers claim to know; without it, what the block says already.
        """
        slots = block.metadata.metadata
        if config_block is None:
            value = common_pb2.Metadata.FromString(slots[0]).value
            config_block = common_pb2.OrdererBlockMetadata.FromString(value).last_config.index
        header = BlockHeader(block.header.number, block.header.previous_hash, block.header.data_hash)
        slots[0] = self._signatures(header, config_block, self._quorum() if signers is None else signers)

    def envelope(self, spec: TransactionSpec) -> bytes:
        """Make the envelope of a transaction."""
        creator = self.organisations[spec.organisation].client.identity
        nonce = self._randomness.give(24)
        tx_id = sha256(nonce + creator).hexdigest() if spec.tx_id is None else spec.tx_id
        signature_header = serialize(common_pb2.SignatureHeader(creator=creator, nonce=nonce))
        extension = proposal_pb2.ChaincodeHeaderExtension(chaincode_id=chaincode_pb2.ChaincodeID(name=spec.chaincode))
        channel_header = common_pb2.ChannelHeader(
            type=spec.header_type,
            channel_id=self.channel if spec.channel is None else spec.channel,
            tx_id=tx_id,
            extension=serialize(extension),
        )
        self._stamp(channel_header)
        payload = common_pb2.Payload(
            header=common_pb2.Header(channel_header=serialize(channel_header), signature_header=signature_header),
            data=self._transaction(spec, tx_id, signature_header),
        )
        return serialize(common_pb2.Envelope(payload=serialize(payload), signature=self._placeholder_signature()))

    # --- transactions

    def _stamp(self, channel_header: Any) -> None:
        channel_header.timestamp.seconds = BEGINNING + self._transactions
        channel_header.timestamp.nanos = (123_456_789 + 7_654_321 * self._transactions) % 1_000_000_000
        self._transactions += 1

    def _placeholder_signature(self) -> bytes:
        r, s = self._randomness.give(32), self._randomness.give(32)
        return encode_dss_signature(int.from_bytes(r, "big"), int.from_bytes(s, "big") >> 1)

    def _transaction(self, spec: TransactionSpec, tx_id: str, signature_header: bytes) -> bytes:
        action = proposal_pb2.ChaincodeAction(
            results=read_write_set(spec),
            response=proposal_response_pb2.Response(status=200),
            chaincode_id=chaincode_pb2.ChaincodeID(name=spec.chaincode, version="1.0"),
        )
        if spec.event is not None:
            event_name, content = spec.event
            event = chaincode_event_pb2.ChaincodeEvent(
                chaincode_id=spec.chaincode, tx_id=tx_id, event_name=event_name, payload=content
            )
            action.events = serialize(event)
        response = proposal_response_pb2.ProposalResponsePayload(
            proposal_hash=self._randomness.give(32), extension=serialize(action)
        )
        call = chaincode_pb2.ChaincodeSpec(
            type=chaincode_pb2.ChaincodeSpec.GOLANG,
            chaincode_id=chaincode_pb2.ChaincodeID(name=spec.chaincode),
            input=chaincode_pb2.ChaincodeInput(args=[spec.function, *spec.arguments]),
        )
        proposal = proposal_pb2.ChaincodeProposalPayload(
            input=serialize(chaincode_pb2.ChaincodeInvocationSpec(chaincode_spec=call))
        )
        endorsements = [
            proposal_response_pb2.Endorsement(
                endorser=self.organisations[number % len(self.organisations)].peer.identity,
                signature=self._placeholder_signature(),
            )
            for number in range(spec.endorsers)
        ]
        payload = transaction_pb2.ChaincodeActionPayload(
            chaincode_proposal_payload=serialize(proposal),
            action=transaction_pb2.ChaincodeEndorsedAction(
                proposal_response_payload=serialize(response), endorsements=endorsements
            ),
        )
        actions = [transaction_pb2.TransactionAction(header=signature_header, payload=serialize(payload))]
        return serialize(transaction_pb2.Transaction(actions=actions))

    def _apply(
        self, spec: TransactionSpec, version: Version, updates: dict[StateKey, tuple[bytes | None, Version]]
    ) -> None:
        by_key: dict[StateKey, list[tuple[Operation, bytes | tuple[MetadataEntry, ...]]]] = {}
        # In a write set metadata comes after values, whatever the order in which a chaincode called for them.
        for write in sorted(spec.writes, key=lambda write: write.metadata is not None):
            by_key.setdefault(_state_key(spec, write), []).append(_operation(write))
        for key, operations in by_key.items():
            update = merge_operations(operations)
            if update.is_delete:
                updates[key] = (None, version)
                self._state.pop(key, None)
                continue
            value = update.value
            if value is None:
                if key not in self._state:
                    continue
                value = self._state[key][0]
            updates[key] = self._state[key] = (value, version)

    # --- blocks

    def _append(
        self,
        envelopes: Sequence[bytes],
        flags: bytes,
        updates: Mapping[StateKey, tuple[bytes | None, Version]] | None = None,
        *,
        config_block: int | None = None,
    ) -> bytes:
        number = self.height
        claimed = self.configured_by if config_block is None else config_block
        header = BlockHeader(number, self._previous_hash, sha256(b"".join(envelopes)).digest())
        last_config = common_pb2.Metadata(value=serialize(common_pb2.LastConfig(index=claimed)))
        slots = [b"", serialize(last_config), flags, b"", b""]
        if number == 0:
            slots[0] = serialize(common_pb2.Metadata(value=_orderer_metadata(0, b"")))
        else:
            slots[0] = self._signatures(header, claimed, self._quorum())
            self._commit_hash = commit_hash(flags, updates or {}, self._commit_hash)
            slots[4] = serialize(common_pb2.Metadata(value=self._commit_hash))
        block = common_pb2.Block(
            header=common_pb2.BlockHeader(
                number=number, previous_hash=header.previous_hash, data_hash=header.data_hash
            ),
            data=common_pb2.BlockData(data=envelopes),
            metadata=common_pb2.BlockMetadata(metadata=slots),
        )
        self._previous_hash = sha256(header_bytes(header)).digest()
        self.blocks.append(serialize(block))
        return self.blocks[-1]

    def _quorum(self) -> Sequence[Signer]:
        if self.consensus == "raft":
            return self.orderers[:1]
        return self.orderers[: quorum_size(len(self.orderers))]

    def _signatures(self, header: BlockHeader, config_block: int, signers: Sequence[Signer]) -> bytes:
        """Make slot 0."""
        if self.consensus == "raft":
            count = len(self.orderers)
            consenters = raft_metadata_pb2.BlockMetadata(
                consenter_ids=range(1, count + 1), next_consenter_id=count + 1, raft_index=header.number + count + 1
            )
            consenter_metadata = serialize(common_pb2.Metadata(value=serialize(consenters)))
        else:  # smartbft's ViewMetadata: latest sequence, decisions in view
            number = header.number
            consenter_metadata = b"\x10" + varint(number) + (b"\x18" + varint(number - 1) if number > 1 else b"")
        value = _orderer_metadata(config_block, consenter_metadata)
        slot = common_pb2.Metadata(value=value)
        for signer in signers:
            nonce = self._randomness.give(24)
            signature = slot.signatures.add()
            if self.consensus == "bft" and signer in self.orderers:
                identifier = self.orderers.index(signer) + 1
                named = serialize(common_pb2.IdentifierHeader(identifier=identifier, nonce=nonce))
                signature.identifier_header = named
            else:
                named = serialize(common_pb2.SignatureHeader(creator=signer.identity, nonce=nonce))
                signature.signature_header = named
            signature.signature = signer.sign(value + named + header_bytes(header))
        return serialize(slot)

    # --- configuration (`internal/configtxgen/encoder/encoder.go`)

    def _genesis_envelope(self) -> bytes:
        nonce = self._randomness.give(24)
        channel_header = common_pb2.ChannelHeader(
            type=HEADER_CONFIG, version=1, channel_id=self.channel, tx_id=sha256(nonce).hexdigest()
        )
        channel_header.timestamp.seconds = BEGINNING
        header = common_pb2.Header(
            channel_header=serialize(channel_header),
            signature_header=serialize(common_pb2.SignatureHeader(nonce=nonce)),
        )
        data = serialize(configtx_pb2.ConfigEnvelope(config=self.configuration))
        return serialize(common_pb2.Envelope(payload=serialize(common_pb2.Payload(header=header, data=data))))

    def _signed_envelope(self, header_type: int, data: bytes, signer: Signer) -> Any:
        channel_header = common_pb2.ChannelHeader(type=header_type, channel_id=self.channel)
        self._stamp(channel_header)
        channel_header.timestamp.nanos = 0
        signature_header = common_pb2.SignatureHeader(creator=signer.identity, nonce=self._randomness.give(24))
        header = common_pb2.Header(
            channel_header=serialize(channel_header), signature_header=serialize(signature_header)
        )
        payload = serialize(common_pb2.Payload(header=header, data=data))
        return common_pb2.Envelope(payload=payload, signature=signer.sign(payload))

    def _new_orderers(self) -> tuple[Organisation, tuple[Signer, ...]]:
        organisation = Organisation("Orderer", self._randomness)
        count = 3 if self.consensus == "raft" else 4
        return organisation, tuple([organisation.issue(f"orderer{number}", "orderer") for number in range(count)])

    def _channel_group(self) -> Any:
        group = _group(
            HashingAlgorithm=configuration_pb2.HashingAlgorithm(name="SHA256"),
            BlockDataHashingStructure=configuration_pb2.BlockDataHashingStructure(width=2**32 - 1),
            Capabilities=_capabilities("V3_0"),
        )
        application = _group(Capabilities=_capabilities("V2_5"))
        for policy in ("Endorsement", "LifecycleEndorsement"):
            set_policy(application, policy, implicit_policy("Endorsement", MAJORITY))
        for organisation in self.organisations:
            application.groups[organisation.name].CopyFrom(_application_group(organisation))
        group.groups["Application"].CopyFrom(application)
        group.groups["Orderer"].CopyFrom(
            _group(
                ConsensusType=orderer_pb2.ConsensusType(),
                BatchSize=orderer_pb2.BatchSize(
                    max_message_count=500, absolute_max_bytes=10 << 20, preferred_max_bytes=2 << 20
                ),
                BatchTimeout=orderer_pb2.BatchTimeout(timeout="200ms"),
                ChannelRestrictions=orderer_pb2.ChannelRestrictions(),
                Capabilities=_capabilities("V2_0"),
            )
        )
        self._set_orderers(group, self.orderer_organisation, self.orderers)
        return group

    def _set_orderers(self, channel_group: Any, organisation: Organisation, orderers: Sequence[Signer]) -> None:
        """Write who orders into a configuration."""
        group = channel_group.groups["Orderer"]
        addresses = [("127.0.0.1", 7050 + number) for number in range(len(orderers))]
        tls = [organisation.tls.issue(host, "orderer").pem for host, _ in addresses]
        if self.consensus == "raft":
            kind, metadata = "etcdraft", _raft_metadata(addresses, tls)
            set_policy(group, "BlockValidation", implicit_policy("Writers", ANY))
        else:
            kind, metadata = "BFT", _bft_options()
            mapping = [
                configuration_pb2.Consenter(
                    id=number + 1,
                    host=host,
                    port=port,
                    msp_id=orderers[number].msp_id,
                    identity=orderers[number].pem,
                    client_tls_cert=tls[number],
                    server_tls_cert=tls[number],
                )
                for number, (host, port) in enumerate(addresses)
            ]
            _set_value(group, "Orderers", configuration_pb2.Orderers(consenter_mapping=mapping))
            set_policy(group, "BlockValidation", quorum_policy(orderers))
        _set_value(group, "ConsensusType", orderer_pb2.ConsensusType(type=kind, metadata=metadata))
        group.groups[organisation.name].CopyFrom(_orderer_group(organisation, addresses))


def _change_little(group: Any) -> None:
    value = group.groups["Orderer"].values["ChannelRestrictions"]
    count = orderer_pb2.ChannelRestrictions.FromString(value.value).max_count
    value.value = serialize(orderer_pb2.ChannelRestrictions(max_count=count + 1))


def serialize(message: Any) -> bytes:
    """Serialise a message; the same message gives the same bytes, its maps included."""
    return bytes(message.SerializeToString(deterministic=True))


def rehash(block: Any) -> None:
    """Make a block message's data hash that of its envelopes as they stand now; signatures stay as they are."""
    block.header.data_hash = sha256(b"".join(block.data.data)).digest()


def quorum_size(orderers: int) -> int:
    """How many BFT orderers must sign: all but those that may fail, and more than half of the rest."""
    faulty = (orderers - 1) // 3
    return (orderers + faulty + 2) // 2


def _orderer_metadata(config_block: int, consenter_metadata: bytes) -> bytes:
    last_config = common_pb2.LastConfig(index=config_block)
    metadata = common_pb2.OrdererBlockMetadata(last_config=last_config, consenter_metadata=consenter_metadata)
    return serialize(metadata)


# --- read-write sets


FIRST_DEFINED = Version(1, 0)


def read_write_set(spec: TransactionSpec, defined: Version | None = FIRST_DEFINED) -> bytes:
    """Make the TxReadWriteSet of a transaction: namespaces and collections in order of their names.

    As every endorser does, it reads the chaincode's definition first; `defined`: the version of it. None: it has none.
    """
    sets = {}
    if defined is not None:
        read = _read(f"namespaces/fields/{spec.chaincode}/Sequence", defined)
        sets[LIFECYCLE_NAMESPACE] = kv_rwset_pb2.KVRWSet(reads=[read])
    for namespace in {write.namespace or spec.chaincode for write in spec.writes} | {spec.chaincode}:
        sets.setdefault(namespace, kv_rwset_pb2.KVRWSet())
    sets[spec.chaincode].reads.extend([_read(key, version) for key, version in spec.reads])
    result = rwset_pb2.TxReadWriteSet(data_model=rwset_pb2.TxReadWriteSet.KV)
    for namespace, public in sorted(sets.items()):
        writes = [write for write in spec.writes if (write.namespace or spec.chaincode) == namespace]
        _append_public(public, [write for write in writes if not write.collection])
        entry = result.ns_rwset.add(namespace=namespace, rwset=serialize(public))
        for collection in sorted({write.collection for write in writes} - {""}):
            hashed, private = _private([write for write in writes if write.collection == collection])
            entry.collection_hashed_rwset.add(
                collection_name=collection,
                hashed_rwset=serialize(hashed),
                pvt_rwset_hash=sha256(serialize(private)).digest(),
            )
    return serialize(result)


def private_set(spec: TransactionSpec) -> bytes:
    """Make the TxPvtReadWriteSet of a transaction: what the members of its collections hold beside the block."""
    result = rwset_pb2.TxPvtReadWriteSet(data_model=rwset_pb2.TxReadWriteSet.KV)
    written = [write for write in spec.writes if write.collection]
    for namespace in sorted({write.namespace or spec.chaincode for write in written}):
        entry = result.ns_pvt_rwset.add(namespace=namespace)
        own = [write for write in written if (write.namespace or spec.chaincode) == namespace]
        for collection in sorted({write.collection for write in own}):
            private = _private([write for write in own if write.collection == collection])[1]
            entry.collection_pvt_rwset.add(collection_name=collection, rwset=serialize(private))
    return serialize(result)


def _read(key: str, version: Version | None) -> Any:
    read = kv_rwset_pb2.KVRead(key=key)
    if version is not None:
        read.version.CopyFrom(kv_rwset_pb2.Version(block_num=version.block_number, tx_num=version.tx_number))
    return read


def _append_public(result: Any, writes: Sequence[WriteSpec]) -> None:
    for write in writes:
        if write.metadata is None:
            result.writes.add(key=write.key, is_delete=write.value is None, value=write.value or b"")
        else:
            result.metadata_writes.add(key=write.key, entries=_entries(write.metadata))


def _private(writes: Sequence[WriteSpec]) -> tuple[Any, Any]:
    """Give the hashed set, which is in the block, and the private one, whose hash is."""
    hashed, private = kv_rwset_pb2.HashedRWSet(), kv_rwset_pb2.KVRWSet()
    _append_public(private, writes)
    for write in writes:
        key_hash = sha256(write.key.encode()).digest()
        if write.metadata is not None:
            hashed.metadata_writes.add(key_hash=key_hash, entries=_entries(write.metadata))
            continue
        value_hash = b"" if write.value is None else sha256(write.value).digest()
        hashed.hashed_writes.add(
            key_hash=key_hash, is_delete=write.value is None, value_hash=value_hash, is_purge=write.is_purge
        )
    return hashed, private


def _entries(metadata: Mapping[str, bytes]) -> list[Any]:
    return [kv_rwset_pb2.KVMetadataEntry(name=name, value=value) for name, value in metadata.items()]


def _state_key(spec: TransactionSpec, write: WriteSpec) -> StateKey:
    key = write.key.encode()
    return write.namespace or spec.chaincode, write.collection, sha256(key).digest() if write.collection else key


def _operation(write: WriteSpec) -> tuple[Operation, bytes | tuple[MetadataEntry, ...]]:
    if write.metadata is not None:
        entries = tuple([MetadataEntry(name, value) for name, value in write.metadata.items()])
        return (Operation.METADATA_UPDATE if entries else Operation.METADATA_DELETE), entries
    if not write.value:  # an empty value deletes
        return Operation.DELETE, b""
    return Operation.UPSERT, sha256(write.value).digest() if write.collection else write.value


# --- parts of a configuration


def _group(**values: Any) -> Any:
    """Make a group with its values and the three policies that every group has."""
    group = configtx_pb2.ConfigGroup(mod_policy="Admins")
    for key, value in values.items():
        _set_value(group, key, value)
    for policy, rule in (("Readers", ANY), ("Writers", ANY), ("Admins", MAJORITY)):
        set_policy(group, policy, implicit_policy(policy, rule))
    return group


def _set_value(group: Any, name: str, value: Any) -> None:
    content = value if isinstance(value, bytes) else serialize(value)
    group.values[name].CopyFrom(configtx_pb2.ConfigValue(value=content, mod_policy="Admins"))


def set_policy(group: Any, name: str, policy: Any) -> None:
    """Write a policy into a group of a configuration."""
    group.policies[name].CopyFrom(configtx_pb2.ConfigPolicy(policy=policy, mod_policy="Admins"))


def quorum_policy(orderers: Sequence[Signer]) -> Any:
    """Make the block validation policy of BFT orderers."""
    rules = [signed_by(number) for number in range(len(orderers))]
    principals = [identity_principal(orderer) for orderer in orderers]
    return signature_policy(out_of(quorum_size(len(orderers)), *rules), *principals)


def _role_policy(msp_id: str, *roles: int) -> Any:
    return any_of(*[role(msp_id, number) for number in roles])


def _orderer_group(organisation: Organisation, addresses: Sequence[tuple[str, int]]) -> Any:
    endpoints = [f"{host}:{port}" for host, port in addresses]
    group = _group(MSP=organisation.msp(), Endpoints=configuration_pb2.OrdererAddresses(addresses=endpoints))
    set_policy(group, "Readers", _role_policy(organisation.msp_id, Role.MEMBER))
    set_policy(group, "Writers", _role_policy(organisation.msp_id, Role.MEMBER))
    set_policy(group, "Admins", _role_policy(organisation.msp_id, Role.ADMIN))
    return group


def _application_group(organisation: Organisation) -> Any:
    group = _group(MSP=organisation.msp())
    msp_id = organisation.msp_id
    set_policy(group, "Readers", _role_policy(msp_id, Role.ADMIN, Role.PEER, Role.CLIENT))
    set_policy(group, "Writers", _role_policy(msp_id, Role.ADMIN, Role.CLIENT))
    set_policy(group, "Admins", _role_policy(msp_id, Role.ADMIN))
    set_policy(group, "Endorsement", _role_policy(msp_id, Role.PEER))
    return group


def _capabilities(name: str) -> Any:
    capabilities = configuration_pb2.Capabilities()
    capabilities.capabilities[name].SetInParent()
    return capabilities


def _raft_metadata(addresses: Sequence[tuple[str, int]], tls: Sequence[bytes]) -> bytes:
    consenters = [
        raft_pb2.Consenter(host=host, port=port, client_tls_cert=certificate, server_tls_cert=certificate)
        for (host, port), certificate in zip(addresses, tls, strict=True)
    ]
    options = raft_pb2.Options(
        tick_interval="500ms",
        election_tick=10,
        heartbeat_tick=1,
        max_inflight_blocks=5,
        snapshot_interval_size=16 << 20,
    )
    return serialize(raft_pb2.ConfigMetadata(consenters=consenters, options=options))


def _bft_options() -> bytes:
    options = smartbft_pb2.Options(
        request_batch_max_interval="200ms",
        incoming_message_buffer_size=200,
        request_pool_size=100_000,
        request_forward_timeout="5s",
        request_complain_timeout="20s",
        request_auto_remove_timeout="3m0s",
        view_change_resend_interval="5s",
        view_change_timeout="20s",
        leader_heartbeat_timeout="1m0s",
        leader_heartbeat_count=10,
        collect_timeout="1s",
    )
    return serialize(options)
