"""Many envelopes at once: where the parts of ordinary endorser transactions stand, found column by column with numpy.

Reading one field of a thousand envelopes takes a dozen operations on arrays of a thousand numbers; reading it a
thousand times one by one takes a hundred times as long. What is found is positions in the joined bytes, no values.

Only the plain form is read, the one that every client writes: each message with its known fields in ascending order,
each at most once unless repeated, lengths and numbers in their shortest form, nothing after them; one action; no range
query, no metadata write, no transient map. An envelope in any other form is left to `network.protocol.decode`, whatever
may be wrong with it or not, so its reading never depends on this module. In the plain form there is nothing to decide:
no field that a later one replaces, no message to merge with another, no unknown field, no text that is not UTF-8. So
every reader that follows protobuf gives what is found here, and Fabric's form check passes too: re-encoding an envelope
that is payload and signature, once each, with shortest lengths and nothing else gives its very bytes.

Messages: `common/common.proto`, `peer/transaction.proto`, `peer/proposal.proto`, `peer/proposal_response.proto`,
`peer/chaincode.proto`, `peer/chaincode_event.proto`, `ledger/rwset/rwset.proto`, `ledger/rwset/kvrwset/kv_rwset.proto`.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from network.protocol.transaction import HEADER_ENDORSER_TRANSACTION

Numbers: TypeAlias = NDArray[np.int64]
Marks: TypeAlias = NDArray[np.bool_]

_MAX_REPEATED: Final = 64
"""Elements of one repeated field that are read here; each costs some operations, however few envelopes have so many."""

_MAX_VARINT_BYTES: Final = 9
"""63 bits: no number read here becomes negative."""

_MARK_BYTES: Final = 4
_MARK_FROM_END: Final = 36

_MAX_INT32: Final = 2**31 - 1


class Span(NamedTuple):
    """Where a field's content stands: from `start` to before `stop`; an absent field has nothing in it."""

    present: Marks
    start: Numbers
    stop: Numbers


IS_DELETE, IS_PURGE, IS_HASHED = 1, 2, 4
"""Flags of a write, as they stand: a write without value deletes, flagged or not."""


class Columns(NamedTuple):
    """What is found in the envelopes; those that no transaction is of are to be read one by one.

    A row begins with the number of its envelope. Places are start and stop in `content`, the joined envelopes. A mark
    tells an identity from most others, and from all of another length.
    """

    content: bytes
    transactions: list[list[int]]
    """Envelope, places of channel id, transaction id and creator, mark of the creator, places of ChaincodeID and
    function, seconds, nanos. The ChaincodeID is not looked into: whoever reads it finds out whether it is one."""
    endorsers: list[list[int]]
    """In order: envelope, place, mark."""
    events: list[list[int]]
    """Envelope, places of chaincode id, event name and payload."""
    writes: list[list[int]]
    """In ledger order: envelope, number of the write, places of namespace, collection, key and value, flags."""


def read_columns(envelopes: Sequence[bytes]) -> Columns:
    """Find the parts of all envelopes that are in plain form; total."""
    content = b"".join((*envelopes, b"\x00"))  # no message ends where the bytes do
    lengths = np.fromiter(map(len, envelopes), np.int64, len(envelopes))
    ends = np.cumsum(lengths)
    walk = _Walk(np.frombuffer(content, np.uint8), len(envelopes))
    return walk.read(_Messages(walk, ends - lengths, ends, np.arange(len(envelopes), dtype=np.int64)), content)


class _Messages:
    """Messages of one type: reading goes on at `at`, `end` is the end of the message, `owner` its envelope."""

    __slots__ = ("at", "end", "owner", "walk")

    def __init__(self, walk: "_Walk", at: Numbers, end: Numbers, owner: Numbers) -> None:
        self.walk = walk
        self.at = at
        self.end = end
        self.owner = owner

    def field(self, number: int, *, required: bool = False) -> Span:
        """Read a field of bytes, text or a message."""
        at = self.at
        present = self._has(number << 3 | 2)
        start, length = self._lengths(at + 1)
        stop = start + length
        if required:
            self.refuse(~present | (stop > self.end))
        elif present.all():
            self.refuse(stop > self.end)
        else:
            self.refuse(present & (stop > self.end))
            start, stop = np.where(present, start, at), np.where(present, stop, at)
        self.at = stop
        return Span(present, start, stop)

    def text(self, number: int) -> Span:
        """Read a field of text."""
        span = self.field(number)
        self.walk.texts.append((span.start, span.stop, self.owner))
        return span

    def number(self, number: int) -> Numbers:
        """Read a field of a number that is not negative; 0 where it is absent."""
        present = self._has(number << 3)
        value = np.zeros(len(self.at), np.int64)
        at = self.at + 1
        more = present
        for position in range(_MAX_VARINT_BYTES):
            octet = self.walk.octets(at).astype(np.int64)
            value += np.where(more, octet & 0x7F, 0) << (7 * position)
            if position:
                self.refuse(more & (octet == 0))  # not the shortest form
            at = at + more
            more = more & (octet >= 0x80)
            if not more.any():
                break
        self.refuse(more | (present & (at > self.end)))
        self.at = np.where(present, at, self.at)
        return value

    def flag(self, number: int) -> Marks:
        """Read a field that is true or absent."""
        present = self._has(number << 3)
        self.refuse(present & (self.walk.octets(self.at + 1) != 1))
        self.at = self.at + 2 * present
        self.refuse(self.at > self.end)
        return present

    def inside(self, span: Span) -> "_Messages":
        """Give the messages that fields hold; an absent one is an empty one."""
        return _Messages(self.walk, span.start, span.stop, self.owner)

    def inside_present(self, span: Span) -> tuple["_Messages", Numbers]:
        """Give the messages of the fields that are there, and the rows that hold them."""
        rows = np.flatnonzero(span.present)
        return _Messages(self.walk, span.start[rows], span.stop[rows], self.owner[rows]), rows

    def repeated(self, number: int) -> tuple["_Messages", Numbers]:
        """Give the elements of a repeated field, in order, and the row that holds each."""
        tag = number << 3 | 2
        rows = np.flatnonzero(self._has(tag))
        found = []
        reached = self.at.copy()
        at = reached[rows]
        for _ in range(_MAX_REPEATED):
            if not len(rows):
                break
            start, length = self._lengths(at + 1, rows)
            stop = start + length
            fits = stop <= self.end[rows]
            if not fits.all():
                self.walk.plain[self.owner[rows[~fits]]] = False
                rows, start, stop = rows[fits], start[fits], stop[fits]
            found.append((rows, start, stop))
            reached[rows] = stop
            again = (self.walk.octets(stop) == tag) & (stop < self.end[rows])
            rows, at = rows[again], stop[again]
        self.walk.plain[self.owner[rows]] = False
        self.at = reached
        if not found:
            nothing = np.zeros(0, np.int64)
            return _Messages(self.walk, nothing, nothing, nothing), nothing
        holders, starts, stops = (np.concatenate(column) for column in zip(*found, strict=True))
        if len(found) > 1:
            order = np.argsort(starts, kind="stable")
            holders, starts, stops = holders[order], starts[order], stops[order]
        return _Messages(self.walk, starts, stops, self.owner[holders]), holders

    def finish(self) -> None:
        """Refuse the messages that hold anything that was not read."""
        self.refuse(self.at != self.end)

    def refuse(self, bad: Marks) -> None:
        """Leave the envelopes of these messages to others."""
        if bad.any():
            self.walk.plain[self.owner[bad]] = False

    def _has(self, tag: int) -> Marks:
        found: Marks = (self.walk.octets(self.at) == tag) & (self.at < self.end)
        return found

    def _lengths(self, at: Numbers, rows: Numbers | None = None) -> tuple[Numbers, Numbers]:
        """Read lengths of up to three bytes in shortest form; give where their content starts, and the lengths."""
        octets = self.walk.octets
        first = octets(at)
        two = first >= 0x80
        if not two.any():
            return at + 1, first.astype(np.int64)
        second = octets(at + 1)
        three = two & (second >= 0x80)
        bad = two & (second == 0)
        length = np.where(two, first - 0x80 + second.astype(np.int64) * 0x80, first)
        if three.any():
            third = octets(at + 2).astype(np.int64)
            length = np.where(three, length + (third - 1) * 0x4000, length)
            bad |= three & ((third == 0) | (third >= 0x80))
        if bad.any():
            owner = self.owner if rows is None else self.owner[rows]
            self.walk.plain[owner[bad]] = False
        return at + 1 + two + three, length


class _Walk:
    """The way through all envelopes, outside in; `plain` says which of them are so far."""

    def __init__(self, content: NDArray[np.uint8], envelopes: int) -> None:
        self._content = content
        self.plain = np.ones(envelopes, np.bool_)
        self.texts: list[tuple[Numbers, Numbers, Numbers]] = []

    def octets(self, at: Numbers) -> NDArray[np.uint8]:
        """Give the bytes at positions; beyond the end, where only envelopes that are refused lead, the last one."""
        return self._content.take(at, mode="clip")

    def read(self, envelope: _Messages, content: bytes) -> Columns:
        """Read envelopes."""
        payload = envelope.field(1, required=True)
        signature = envelope.field(2, required=True)
        envelope.refuse((payload.start == payload.stop) | (signature.start == signature.stop))
        envelope.finish()
        message = envelope.inside(payload)
        header, data = message.field(1, required=True), message.field(2, required=True)
        message.finish()
        headers = message.inside(header)
        channel_header, signature_header = headers.field(1, required=True), headers.field(2, required=True)
        headers.finish()
        channel, tx_id, seconds, nanos = self._channel_header(headers.inside(channel_header))
        signer = headers.inside(signature_header)
        creator = signer.field(1)
        signer.field(2)
        signer.finish()
        transaction = message.inside(data)
        action = transaction.field(1, required=True)
        transaction.finish()  # a second action is something else
        actions = transaction.inside(action)
        actions.field(1)
        action_payload = actions.field(2, required=True)
        actions.finish()
        parts = actions.inside(action_payload)
        proposal, endorsed_action = parts.field(1, required=True), parts.field(2, required=True)
        parts.finish()
        function = self._function(parts.inside(proposal))
        endorsed = parts.inside(endorsed_action)
        response_payload = endorsed.field(1, required=True)
        endorsements, _ = endorsed.repeated(2)
        endorsed.finish()
        endorser = endorsements.field(1)
        endorsements.field(2)
        endorsements.finish()
        response = endorsed.inside(response_payload)
        response.field(1)
        extension = response.field(2, required=True)
        response.finish()
        chaincode, events, writes = self._chaincode_action(response.inside(extension))
        self._check_texts()

        places = (*channel[1:], *tx_id[1:], *creator[1:], self._marks(creator), *chaincode[1:], *function[1:])
        transactions = np.stack((envelope.owner, *places, seconds, nanos), axis=1)
        endorsers = np.stack((endorsements.owner, *endorser[1:], self._marks(endorser)), axis=1)
        return Columns(
            content,
            transactions[self.plain].tolist(),
            endorsers[self.plain[endorsements.owner]].tolist(),
            events[self.plain[events[:, 0]]].tolist(),
            _numbered(writes[self.plain[writes[:, 0]]]).tolist(),
        )

    def _marks(self, identity: Span) -> Numbers:
        """Make a number of the length and of some bytes before the end, where a certificate has its signature."""
        mark = identity.stop - identity.start
        for position in range(_MARK_BYTES):
            mark = mark << 8 | self.octets(identity.stop - _MARK_FROM_END + position)
        return mark

    def _channel_header(self, message: _Messages) -> tuple[Span, Span, Numbers, Numbers]:
        message.refuse(message.number(1) != HEADER_ENDORSER_TRANSACTION)
        message.number(2)  # version
        timestamp = message.field(3, required=True)
        channel, tx_id = message.text(4), message.text(5)
        message.field(7)  # extension
        message.field(8)  # hash of a TLS certificate
        message.finish()  # an epoch is not in use
        moment = message.inside(timestamp)
        seconds, nanos = moment.number(1), moment.number(2)
        moment.refuse(nanos > _MAX_INT32)
        moment.finish()
        return channel, tx_id, seconds, nanos

    def _function(self, proposal: _Messages) -> Span:
        """Read the first argument of the call out of a ChaincodeProposalPayload."""
        invocation = proposal.field(1, required=True)
        proposal.finish()
        invocations = proposal.inside(invocation)
        specification = invocations.field(1, required=True)
        invocations.finish()
        specifications = invocations.inside(specification)
        specifications.number(1)  # language
        chaincode, call = specifications.field(2), specifications.field(3, required=True)
        specifications.finish()
        self._chaincode_id(specifications.inside(chaincode))
        calls = specifications.inside(call)
        function = calls.field(1, required=True)
        calls.repeated(1)
        calls.finish()
        return function

    def _chaincode_id(self, message: _Messages) -> None:
        for number in (1, 2, 3):  # path, name, version
            message.text(number)
        message.finish()

    def _chaincode_action(self, action: _Messages) -> tuple[Span, Numbers, Numbers]:
        """Give the ChaincodeID, and the rows of events and writes."""
        results, event, response = action.field(1), action.field(2), action.field(3)
        chaincode = action.field(4, required=True)
        action.finish()
        answers = action.inside(response)
        answers.number(1)  # status
        answers.text(2)
        answers.field(3)
        answers.finish()
        events, _ = action.inside_present(event)
        events.refuse(events.at == events.end)  # no bytes, no event
        source = events.text(1)
        events.text(2)  # transaction id
        name = events.text(3)
        payload = events.field(4)
        events.finish()
        event_rows = np.stack((events.owner, *source[1:], *name[1:], *payload[1:]), axis=1)
        return chaincode, event_rows, self._writes(action.inside(results))

    def _writes(self, results: _Messages) -> Numbers:
        """Give the rows of the writes of TxReadWriteSets, without their numbers, in ledger order."""
        namespaces, _ = results.repeated(2)
        results.finish()
        name, public = namespaces.text(1), namespaces.field(2)
        collections, holders = namespaces.repeated(3)
        namespaces.finish()
        sets, set_holders = namespaces.inside_present(public)
        reads, _ = sets.repeated(1)
        writes, places = sets.repeated(3)
        sets.finish()
        self._reads(reads, is_hashed=False)
        key, is_delete, value = writes.text(1), writes.flag(2), writes.field(3)
        writes.finish()
        rows = set_holders[places]
        nothing = np.zeros(len(rows), np.int64)
        public_rows = np.stack(
            (writes.owner, name.start[rows], name.stop[rows], nothing, nothing, *key[1:], *value[1:], 1 * is_delete),
            axis=1,
        )
        if not len(collections.at):
            return public_rows
        hashed_rows = self._hashed_writes(collections, name.start[holders], name.stop[holders])
        every = np.concatenate((public_rows, hashed_rows))
        return every[np.argsort(every[:, 5], kind="stable")]  # the collections of a namespace stand after its writes

    def _hashed_writes(self, collections: _Messages, name_start: Numbers, name_stop: Numbers) -> Numbers:
        collection = collections.text(1)
        hashed_set = collections.field(2)
        collections.field(3)  # hash of the private set
        collections.finish()
        sets, set_holders = collections.inside_present(hashed_set)
        reads, _ = sets.repeated(1)
        writes, places = sets.repeated(2)
        sets.finish()
        self._reads(reads, is_hashed=True)
        key, is_delete, value, is_purge = writes.field(1), writes.flag(2), writes.field(3), writes.flag(4)
        writes.finish()
        rows = set_holders[places]
        flags = IS_HASHED + IS_DELETE * is_delete + IS_PURGE * is_purge
        names = (name_start[rows], name_stop[rows], collection.start[rows], collection.stop[rows])
        return np.stack((writes.owner, *names, *key[1:], *value[1:], flags), axis=1)

    def _reads(self, reads: _Messages, *, is_hashed: bool) -> None:
        """Look at the form of reads."""
        if is_hashed:
            reads.field(1)
        else:
            reads.text(1)
        version = reads.field(2)
        reads.finish()
        versions = reads.inside(version)
        versions.number(1)
        versions.number(2)
        versions.finish()

    def _check_texts(self) -> None:
        """Refuse what is not UTF-8; only text that is not ASCII is looked at one by one."""
        starts, stops, owners = (np.concatenate(column) for column in zip(*self.texts, strict=True))
        plain = self.plain[owners]
        starts, stops, owners = starts[plain], stops[plain], owners[plain]
        lengths = stops - starts
        ends = np.cumsum(lengths)
        places = np.arange(ends[-1] if len(ends) else 0) + np.repeat(stops - ends, lengths)
        beyond_ascii = np.flatnonzero(self._content[places] >= 0x80)
        for row in np.unique(np.searchsorted(ends, beyond_ascii, side="right")):
            try:
                self._content[starts[row] : stops[row]].tobytes().decode()
            except UnicodeDecodeError:
                self.plain[owners[row]] = False


def _numbered(writes: Numbers) -> Numbers:
    """Put the number of each write within its transaction after the envelope."""
    owners = writes[:, 0]
    first = np.searchsorted(owners, owners)
    return np.insert(writes, 1, np.arange(len(owners)) - first, axis=1)
