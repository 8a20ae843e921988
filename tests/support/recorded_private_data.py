"""Private data as the peers of the recorded networks handed it over at the end."""

import struct
from functools import cache

import zstandard
from fabric_protos.ledger.rwset import rwset_pb2
from fabric_protos.peer import events_pb2

from tests.support.recorded_chain import VECTORS

ORGANIZATIONS = ("Enterprise", "Customer", "Partner")


@cache
def read_private_sets(chain: str, organization: str) -> dict[int, dict[int, bytes]]:
    """Give, by block and transaction number, the private sets that an organisation's peer answered at the end."""
    (path,) = (VECTORS / chain).glob(f"private-{organization}*.zst")
    content = zstandard.ZstdDecompressor().stream_reader(path.read_bytes()).read()
    found = {}
    position = 0
    while position < len(content):
        (length,) = struct.unpack_from(">I", content, position)
        message = events_pb2.BlockAndPrivateData.FromString(content[position + 4 : position + 4 + length])
        found[message.block.header.number] = {
            int(number): private.SerializeToString() for number, private in message.private_data_map.items()
        }
        position += 4 + length
    return found


@cache
def read_collection_sets(chain: str, organization: str) -> dict[tuple[int, int, str, str], bytes]:
    """Give the same by block, transaction number, namespace and collection: KVRWSet bytes."""
    return {
        (number, tx_number, entry.namespace, part.collection_name): part.rwset
        for number, sets in read_private_sets(chain, organization).items()
        for tx_number, content in sets.items()
        for entry in rwset_pb2.TxPvtReadWriteSet.FromString(content).ns_pvt_rwset
        for part in entry.collection_pvt_rwset
    }
