"""Changes that some node of the channel would refuse or stop at: refused before anybody signs, one check each."""

from collections.abc import Callable

import pytest
from fabric_protos.common import configtx_pb2
from fabric_protos.msp import msp_config_pb2
from fabric_protos.orderer import configuration_pb2 as orderer_pb2

from network.channel.proposal import propose
from network.protocol.block_signature import ChannelTrust
from network.protocol.config_transition import RAFT
from network.protocol.configuration import decode_config_envelope
from network.protocol.errors import ConfigUpdateError, ConfigurationError
from tests.support.chain_factory import (
    ChainFactory,
    Organisation,
    Randomness,
    quorum_policy,
    serialize,
    set_policy,
)
from tests.support.credential import START, YEAR

FACTORIES = {"raft": ChainFactory(), "bft": ChainFactory(consensus="bft")}
NOW = (START + YEAR).timestamp()

Edit = Callable[[configtx_pb2.ConfigGroup], None]


def broken_msp(group: configtx_pb2.ConfigGroup) -> None:
    value = group.groups["Application"].groups["Customer"].values["MSP"]
    message = msp_config_pb2.MSPConfig.FromString(value.value)
    fields = msp_config_pb2.FabricMSPConfig.FromString(message.config)
    fields.root_certs[:] = [b"no certificate"]
    message.config = serialize(fields)
    value.value = serialize(message)


def other_msp_id(group: configtx_pb2.ConfigGroup) -> None:
    other = Organisation("Stranger", Randomness("stranger"))
    group.groups["Application"].groups["Customer"].values["MSP"].value = other.msp()


def no_consenters(group: configtx_pb2.ConfigGroup) -> None:
    group.groups["Orderer"].values["ConsensusType"].value = serialize(orderer_pb2.ConsensusType(type=RAFT))


def maintenance_and_more(group: configtx_pb2.ConfigGroup) -> None:
    consensus = orderer_pb2.ConsensusType.FromString(group.groups["Orderer"].values["ConsensusType"].value)
    consensus.state = orderer_pb2.ConsensusType.STATE_MAINTENANCE
    group.groups["Orderer"].values["ConsensusType"].value = serialize(consensus)
    group.groups["Orderer"].values["BatchTimeout"].value = serialize(orderer_pb2.BatchTimeout(timeout="9s"))


def too_few_signatures(group: configtx_pb2.ConfigGroup) -> None:
    set_policy(group.groups["Orderer"], "BlockValidation", quorum_policy(FACTORIES["bft"].orderers[:1]))


REFUSED: dict[str, tuple[str, Edit, type[Exception], str]] = {
    "an MSP that does not read": ("raft", broken_msp, ConfigurationError, "Customer"),
    "an organisation under another MSP id": ("raft", other_msp_id, ConfigUpdateError, "attempted to change MSP ID"),
    "consensus without its metadata": ("raft", no_consenters, ConfigUpdateError, "nil Raft config metadata"),
    "maintenance together with another change": (
        "raft",
        maintenance_and_more,
        ConfigUpdateError,
        "contains more than the ConsensusType value",
    ),
    "blocks that fewer orderers sign than a quorum": (
        "bft",
        too_few_signatures,
        ConfigUpdateError,
        "signature policy of a quorum of the consenters",
    ),
}


@pytest.mark.parametrize(("consensus", "edit", "error", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_what_a_node_would_refuse_is_not_proposed(
    consensus: str, edit: Edit, error: type[Exception], words: str
) -> None:
    factory = FACTORIES[consensus]
    config = configtx_pb2.Config()
    config.CopyFrom(factory.configuration)
    before = decode_config_envelope(serialize(configtx_pb2.ConfigEnvelope(config=config)))
    edit(config.channel_group)
    after = decode_config_envelope(serialize(configtx_pb2.ConfigEnvelope(config=config)))

    with pytest.raises(error, match=words):
        propose(factory.channel, ChannelTrust(before), lambda _: after.root, NOW)
