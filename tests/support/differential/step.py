"""The steps of the differential run, as plain values: what is asked of a network, without any network."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from tests.support.judged_network import BILLING, CHANNEL, ORGANIZATIONS, SERVICE

JUDGE = "judge"


class Who(NamedTuple):
    """A user of an organisation; besides those of the topology `expired`, `stranger` and `nobody` (of no MSP)."""

    msp_id: str
    user: str = "agent"


AGENT = Who(SERVICE)


class TransactionOf(NamedTuple):
    """In place of an argument: the id of the transaction that a step ordered first."""

    step: str


class HeaderHashOf(NamedTuple):
    """In place of an argument: the header hash of the block that a step made."""

    step: str


class Package(NamedTuple):
    """In place of an argument: `InstallChaincodeArgs` with the package of a chaincode, spoilt if asked for."""

    chaincode: str
    spoilt: bool = False


class PackageId(NamedTuple):
    """In place of an argument: a message of `_lifecycle` that names the package of a chaincode."""

    message: str
    chaincode: str


class Approval(NamedTuple):
    """In place of an argument: an approval of a definition; `definition` is the message that commits it."""

    chaincode: str
    definition: bytes


Argument = bytes | TransactionOf | HeaderHashOf | Package | PackageId | Approval


@dataclass(frozen=True)
class Call:
    """A proposal. `change`: what is wrong with it, by name (`changes.PROPOSALS`)."""

    arguments: tuple[Argument, ...]
    chaincode: str = JUDGE
    who: Who = AGENT
    transient: Mapping[str, bytes] = field(default_factory=dict)
    channel: str = CHANNEL
    change: str = ""


@dataclass(frozen=True)
class Propose:
    """The same proposal to the Endorser service of each of these peers."""

    name: str
    call: Call
    peers: tuple[str, ...] = ORGANIZATIONS


class Write(NamedTuple):
    """A transaction: endorsed by these peers, all of whom are asked before anything of its step is ordered.

    `spoilt`: what is wrong with its envelope, by name (`changes.TRANSACTIONS`). `copies` are ordered one after the
    other.
    """

    call: Call
    peers: tuple[str, ...] = ORGANIZATIONS
    spoilt: str = ""
    copies: int = 1


@dataclass(frozen=True)
class Order:
    """Transactions that go into one block, in this order; one that peers do not endorse is left out."""

    name: str
    writes: tuple[Write, ...]


@dataclass(frozen=True)
class Again:
    """The envelope of an earlier step is ordered once more."""

    name: str
    step: str


@dataclass(frozen=True)
class Through:
    """A call through the Gateway service of an organisation's peer; `submits`, or evaluates alone."""

    name: str
    call: Call
    peer: str = SERVICE
    organizations: tuple[str, ...] = ()
    submits: bool = False


@dataclass(frozen=True)
class Send:
    """An envelope that an orderer refuses, sent to its Broadcast service; `change` by name (`changes.ENVELOPES`)."""

    name: str
    change: str
    who: Who = AGENT


@dataclass(frozen=True)
class Configure:
    """An update of the channel's configuration, by name (`configuration.UPDATES`), signed and handed to an orderer."""

    name: str
    update: str
    signers: tuple[Who, ...]
    number: int = 0
    who: Who = Who(SERVICE, "admin")  # noqa: RUF009  # frozen


Place = int | str | None


@dataclass(frozen=True)
class Seek:
    """A request for blocks; `start` and `stop` as in `service_request.seek`, numbers from the run's first block on."""

    name: str
    service: str
    start: Place
    stop: Place
    who: Who = AGENT
    change: str = ""
    waits: bool = True


@dataclass(frozen=True)
class Status:
    """A question for how a transaction stands, at the Gateway service of each peer."""

    name: str
    tx_id: TransactionOf
    who: Who = AGENT
    channel: str = CHANNEL


@dataclass(frozen=True)
class Outlines:
    """All blocks of the run, as DeliverFiltered gives them at each peer; as the last steps."""

    name: str


@dataclass(frozen=True)
class Events:
    """The events of a chaincode in the whole run, from the Gateway service of each peer; as the last steps."""

    name: str
    chaincode: str


Step = Propose | Order | Again | Through | Send | Configure | Seek | Status | Outlines | Events
PAIR = (SERVICE, BILLING)
