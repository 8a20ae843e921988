"""Blocks of the service week as clients and peers sign them, before anybody judges them.

    python -m tests.benchmarks.signed_week TRANSACTIONS PER_BLOCK FIRST STEP

writes every STEPth block from FIRST on to standard output: so several processes share the work (`block_factory`).
"""

import pickle
import sys
from collections.abc import Sequence
from functools import cache
from hashlib import sha256
from typing import Final, NamedTuple

from network.protocol.private_data import LIFECYCLE_NAMESPACE
from network.protocol.proposal import (
    Response,
    build_proposal,
    encode_envelope,
    endorsed_bytes,
    prepared_transaction,
    response_payload,
)
from network.protocol.read_write_set import Version
from network.protocol.transaction import ChaincodeEvent, Endorsement
from tests.benchmarks import service_week
from tests.support.chain_factory import BEGINNING, ChainFactory, Organisation, TransactionSpec, read_write_set

SEED: Final = 2026
CHANNEL: Final = "consortium"
VERSION: Final = "1.0"
FIRST_BLOCK: Final = 3
"""Of the week: below are the genesis block, the approvals and the definition of the chaincode."""
DEFINED: Final = Version(FIRST_BLOCK - 1, 0)

_NANOSECONDS_APART: Final = 1_007_654_321


class Parameters(NamedTuple):
    """What a chain follows from: transactions of the week, and how many of them share a block."""

    transactions: int
    per_block: int

    @property
    def blocks(self) -> int:
        """Number of the week's blocks."""
        return -(-self.transactions // self.per_block)


class MadeBlock(NamedTuple):
    """The nth block of the week before it is judged: its envelopes, and the verdicts that they were made for."""

    envelopes: Sequence[bytes]
    flags: bytes


def make_block(parameters: Parameters, number: int) -> MadeBlock:
    """Make and sign the transactions of the nth block of the week."""
    count = min(parameters.per_block, parameters.transactions - number * parameters.per_block)
    specs = [service_week.transaction(number, lane, parameters.per_block, FIRST_BLOCK) for lane in range(count)]
    organisations = _organisations()
    envelopes = [
        signed_envelope(number * parameters.per_block + lane, spec, organisations, organisations[: spec.endorsers])
        for lane, spec in enumerate(specs)
    ]
    return MadeBlock(envelopes, bytes([spec.code for spec in specs]))


@cache
def _organisations() -> tuple[Organisation, ...]:
    return ChainFactory(seed=SEED).organisations


def signed_envelope(
    number: int, spec: TransactionSpec, organisations: Sequence[Organisation], endorsers: Sequence[Organisation]
) -> bytes:
    """Make the envelope of a transaction: proposed by a client, endorsed by peers, signed by the client."""
    client = organisations[spec.organisation].client
    proposal = build_proposal(
        channel_id=CHANNEL,
        chaincode=spec.chaincode,
        arguments=[spec.function, *spec.arguments],
        creator=client.identity,
        nonce=sha256(f"transaction {SEED} {number}".encode()).digest()[:24],
        nanoseconds=BEGINNING * 1_000_000_000 + number * _NANOSECONDS_APART,
    )
    event = None if spec.event is None else ChaincodeEvent(spec.chaincode, proposal.tx_id, *spec.event)
    results = read_write_set(spec, None if spec.chaincode == LIFECYCLE_NAMESPACE else DEFINED)
    answer = Response(200, "", b"")
    payload = response_payload(proposal, version=VERSION, response=answer, results=results, event=event)
    peers = [organisation.peer for organisation in endorsers]
    endorsements = [Endorsement(peer.identity, peer.sign(endorsed_bytes(payload, peer.identity))) for peer in peers]
    content = prepared_transaction(proposal, endorsements, payload)
    return encode_envelope(content, client.sign(content))


def main(arguments: Sequence[str]) -> None:
    """Write blocks, pickled, until there are no more."""
    transactions, per_block, first, step = map(int, arguments)
    parameters = Parameters(transactions, per_block)
    for number in range(first, parameters.blocks, step):
        pickle.dump(tuple(make_block(parameters, number)), sys.stdout.buffer)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
