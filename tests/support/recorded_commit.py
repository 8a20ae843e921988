"""What a peer that commits a recorded chain again is given: blocks as orderers made them, private data of others."""

from fabric_protos.common import common_pb2

from network.embedded.ledger.private_data import PrivatePart
from network.embedded.ledger.private_ledger import Pull
from tests.support.recorded_private_data import read_collection_sets


def ordered(content: bytes) -> common_pb2.Block:
    """Give a block as an orderer hands it out, without flags and commit hash."""
    block = common_pb2.Block.FromString(content)
    block.metadata.metadata[2] = b""
    block.metadata.metadata[4] = b""
    return block


def pull_from(chain: str, organization: str) -> Pull:
    """Ask the recorded peer of an organisation, which answers as it did at the end of its chain."""
    sets = read_collection_sets(chain, organization)

    def pull(part: PrivatePart, block_number: int) -> bytes | None:
        return sets.get((block_number, part.tx_number, part.namespace, part.collection))

    return pull
