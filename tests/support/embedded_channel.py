"""A channel at one peer of an embedded network, fed with validly signed blocks and nothing else running."""

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fabric_protos.common import common_pb2, configtx_pb2
from fabric_protos.peer import configuration_pb2

from network.embedded.ledger.access_control import LOCAL_RESOURCES, check_access, check_local_access
from network.embedded.ledger.lifecycle_chaincode import LifecycleCall, invoke
from network.embedded.ledger.package_store import PackageStore
from network.embedded.ledger.peer_channel import PeerChannel
from network.embedded.ledger.simulation import Simulation
from network.protocol.configuration import decode_config_envelope
from network.protocol.decode import decode_transaction
from network.protocol.endorsement_policy import ChannelRules
from network.protocol.identity import decode_serialized_identity
from network.protocol.policy import SignedData
from network.protocol.private_data import LIFECYCLE_NAMESPACE
from network.protocol.proposal import Response
from network.protocol.read_write_set import NamespaceSet, decode_read_write_set
from network.protocol.validation_code import VALID
from tests.support.chain_factory import Organisation, Signer, TransactionSpec, serialize
from tests.support.judged_channel import EnvelopeSpec, JudgedChannel

Change = Callable[[Any], None]


def with_acls(acls: Mapping[str, str]) -> Change:
    """Make the change that names policies for resources."""

    def change(group: Any) -> None:
        message = configuration_pb2.ACLs()
        for resource, reference in acls.items():
            message.acls[resource].policy_ref = reference
        value = group.groups["Application"].values["ACLs"]
        value.value, value.mod_policy = serialize(message), "Admins"

    return change


def rules_of(channel: JudgedChannel, *changes: Change) -> ChannelRules:
    """Give a channel's first configuration after changes to its group."""
    configuration = configtx_pb2.Config()
    configuration.CopyFrom(channel.factory.configuration)
    for change in changes:
        change(configuration.channel_group)
    envelope = configtx_pb2.ConfigEnvelope(config=configuration)
    return ChannelRules(channel.factory.channel, decode_config_envelope(serialize(envelope)))


def signed_by(signer: Signer, data: bytes = b"proposal") -> SignedData:
    """Sign something."""
    return SignedData(signer.identity, data, signer.sign(data))


class EmbeddedChannel:
    """A channel of Enterprise and Customer at a peer of Enterprise; `admin` is its admin."""

    def __init__(self, folder: Path) -> None:
        self.judged = JudgedChannel()
        self.factory = self.judged.factory
        self.enterprise, self.customer = self.factory.organisations
        self.admin = self.enterprise.admin
        self.client = self.enterprise.client
        self.packages = PackageStore(folder / "packages")
        self.references: dict[str, list[tuple[str, str]]] = {}
        self.channel = PeerChannel(self.factory.channel, self.enterprise.msp_id, folder)
        self.channel.join(common_pb2.Block.FromString(self.factory.genesis()))
        self._calls = 0
        self.simulated: tuple[NamespaceSet, ...] = ()
        """What the last call that was not committed read and wrote."""

    def close(self) -> None:
        self.channel.close()

    def configure(self, change: Change | None = None) -> None:
        """Commit a new configuration."""
        self._commit(self.factory.config_block(change))

    def call(
        self,
        function: str,
        argument: Any,
        *,
        organisation: Organisation | None = None,
        signer: Signer | None = None,
        commit: bool = False,
    ) -> Response:
        """Call `_lifecycle` at a peer of an organisation; commit what it wrote where asked to."""
        content = argument if isinstance(argument, bytes) else serialize(argument)
        return self.invoke(
            (function.encode(), content), organisation=organisation, signer=signer or self.admin, commit=commit
        )

    def invoke(
        self,
        arguments: tuple[bytes, ...],
        *,
        signer: Signer,
        organisation: Organisation | None = None,
        commit: bool = False,
    ) -> Response:
        """Call `_lifecycle` with any arguments."""
        organisation = organisation or self.enterprise
        self._calls += 1
        creator = self.channel.rules.msps.identity(decode_serialized_identity(signer.identity))
        simulation = Simulation(self.channel, f"tx{self._calls}", creator)
        call = LifecycleCall(
            organisation.msp_id,
            self.packages,
            lambda _: self.references,
            self._check(signer, organisation.msp_id),
            simulation,
            self.channel.rules,
        )
        response = invoke(arguments, call)
        if commit:
            assert response.status == 200, response
            self.commit_result(simulation, organisation)
        else:
            self.simulated = decode_read_write_set(simulation.result().public)
        return response

    def commit_result(self, simulation: Simulation, *endorsers: Organisation) -> None:
        """Commit what a simulation wrote, endorsed by peers of these organisations and, for a commit, by all."""
        result = simulation.result()
        peers = [organisation.peer for organisation in (endorsers if result.private else self.factory.organisations)]
        envelope = self.judged.envelope(
            EnvelopeSpec(results=result.public, chaincode=LIFECYCLE_NAMESPACE, endorsers=peers)
        )
        tx_id = decode_transaction(0, envelope).tx_id
        if result.private is not None and self.enterprise in endorsers:
            self.channel.store.add_transient(tx_id, result.private, self.channel.height)
        self._commit(self.factory.block([TransactionSpec(envelope=envelope)]))
        place = self.channel.transaction_place(tx_id)
        assert place is not None
        assert place.code == VALID

    def without_channel(self, function: str, argument: Any, *, signer: Signer | None = None) -> Response:
        """Call `_lifecycle` without a channel, as for packages."""
        check = self._check(signer or self.admin, self.enterprise.msp_id)
        call = LifecycleCall(self.enterprise.msp_id, self.packages, lambda _: self.references, check, None, None)
        return invoke((function.encode(), serialize(argument)), call)

    def _check(self, signer: Signer, msp_id: str) -> Callable[[str], None]:
        def check(resource: str) -> None:
            if resource in LOCAL_RESOURCES:
                check_local_access(resource, signed_by(signer), msp_id, self.channel.rules.msps)
            else:
                check_access(resource, signed_by(signer), self.channel.rules)

        return check

    def _commit(self, block: bytes) -> None:
        message = common_pb2.Block.FromString(block)
        asyncio.run(self.channel.commit(message))
