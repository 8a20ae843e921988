"""A transaction as it stands in a block: everything that can be read of it, and where reading had to stop.

Messages: `common/common.proto`, `peer/transaction.proto`, `peer/proposal.proto`, `peer/proposal_response.proto`.
"""

from typing import NamedTuple

from network.protocol.read_write_set import NamespaceWrites

HEADER_CONFIG = 1
HEADER_CONFIG_UPDATE = 2
HEADER_ENDORSER_TRANSACTION = 3


class ChaincodeId(NamedTuple):
    """Name and version of the chaincode that an action says it ran."""

    name: str
    version: str


class ChaincodeEvent(NamedTuple):
    """The one event a transaction may carry."""

    chaincode: str
    tx_id: str
    name: str
    payload: bytes


class Endorsement(NamedTuple):
    """One endorsement; `endorser` is a serialised identity."""

    endorser: bytes
    signature: bytes


class Defect(NamedTuple):
    """Where reading a transaction had to stop: `place` names the message, `reason` says why, neither holds a value."""

    place: str
    reason: str


class Action(NamedTuple):
    """The one action of an endorser transaction.

    `writes` are what its read-write set changes. `function` is the first argument of the call, None where the proposal
    does not show one: nothing in Fabric's validation looks at it.
    """

    chaincode: ChaincodeId | None
    function: bytes | None
    writes: tuple[NamespaceWrites, ...]
    event: ChaincodeEvent | None
    endorsements: tuple[Endorsement, ...]


class Transaction(NamedTuple):
    """One envelope of a block, decoded as far as it goes.

    Fields beyond the place of `defect` hold their empty value. `creator` is a serialised identity, `seconds` and
    `nanos` the claimed time of the channel header (None: absent). `action` is set for endorser transactions without
    defect, `config` (ConfigEnvelope bytes) for configuration transactions.
    """

    tx_number: int
    header_type: int | None
    channel_id: str
    tx_id: str
    seconds: int | None
    nanos: int | None
    creator: bytes
    action: Action | None
    config: bytes | None
    defect: Defect | None
