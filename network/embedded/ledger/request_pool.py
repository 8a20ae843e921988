"""Which transactions BFT orderers know: those that wait, and those that they ordered a short while ago.

An update of the configuration needs no such memory: once it was applied it is of an older configuration.

Rules: SmartBFT's pool of requests; `orderer/consensus/smartbft/util.go` (what a request is known by).
"""

from hashlib import sha256
from typing import Final

from fabric_protos.common import common_pb2

from network.embedded.ledger.admission import SERVICE_UNAVAILABLE, AdmissionError
from network.protocol.wire import parse

REMEMBERED: Final = 1000
"""Requests that are still known after they were ordered."""


def transaction_request_id(envelope: common_pb2.Envelope) -> str:
    """Give what a transaction is known by: its nonce and creator."""
    header = parse(common_pb2.Payload, envelope.payload, "Payload").header
    signature_header = parse(common_pb2.SignatureHeader, header.signature_header, "SignatureHeader")
    return sha256(signature_header.nonce + signature_header.creator).hexdigest()


class RequestPool:
    """The requests of one channel, by their ids."""

    def __init__(self) -> None:
        self._waiting: set[str] = set()
        self._ordered: dict[str, None] = {}

    def add(self, request: str) -> None:
        """Note a request that waits; raises AdmissionError for one that is known."""
        if request in self._waiting:
            raise AdmissionError(SERVICE_UNAVAILABLE, "failed to submit request: request already exists")
        if request in self._ordered:
            raise AdmissionError(SERVICE_UNAVAILABLE, "failed to submit request: request already processed")
        self._waiting.add(request)

    def order(self, request: str) -> None:
        """Note that a request was ordered."""
        self._waiting.discard(request)
        self._ordered[request] = None
        while len(self._ordered) > REMEMBERED:
            del self._ordered[next(iter(self._ordered))]
