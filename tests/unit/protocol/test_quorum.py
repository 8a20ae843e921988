import pytest

from network.protocol.configuration import decode_config_envelope
from network.protocol.decode import decode_block
from network.protocol.identity import SerializedIdentity
from network.protocol.quorum import bft_quorum, block_validation_policy, raft_quorum
from tests.support.recorded_chain import load_chain


@pytest.mark.parametrize(
    ("orderers", "raft", "bft"),
    [(1, 1, 1), (2, 2, 2), (3, 2, 2), (4, 3, 3), (5, 3, 4), (6, 4, 4), (7, 4, 5), (10, 6, 7)],
)
def test_how_many_it_takes(orderers: int, raft: int, bft: int) -> None:
    assert (raft_quorum(orderers), bft_quorum(orderers)) == (raft, bft)


def test_the_policy_of_bft_blocks_is_the_one_of_a_real_channel() -> None:
    (genesis,) = decode_block(load_chain("fabric-3.1.5-bft").blocks[0]).transactions
    assert genesis.config is not None
    configuration = decode_config_envelope(genesis.config)

    policy = block_validation_policy(
        [SerializedIdentity(it.msp_id, it.certificate_pem) for it in configuration.consenters]
    )

    assert policy == configuration.root.groups["Orderer"].policies["BlockValidation"].value
