"""The history of one key: who wrote what, when, in which block and transaction, valid or why not."""

import base64
import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from hashlib import sha256
from typing import Any

from cryptography import x509
from cryptography.x509.oid import NameOID
from fabric_protos.msp import identities_pb2
from sqlalchemy import Column, Row, Select, Table, and_, or_, select

from kvr_sync.model import Effect, WriteKind
from kvr_sync.read import SyncedTables
from network.protocol.composite_key import encode_composite_key, split_composite_key
from network.protocol.errors import CompositeKeyError, DecodeError
from network.protocol.validation_code import reason, validation_code_name
from network.protocol.wire import parse

_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001  UTC, and shown as such
_SHOWN_CHARACTERS = 60
_KIND_WORDS = {
    WriteKind.PUT: "write",
    WriteKind.DELETE: "delete",
    WriteKind.PURGE: "purge",
    WriteKind.METADATA: "set its key-level policy",
    WriteKind.METADATA_REMOVED: "remove its key-level policy",
}


@dataclass(frozen=True)
class FoundKey:
    """A key of the ledger that a search found. In a collection only the SHA-256 of the key is on the ledger."""

    key_id: int
    namespace: str
    collection: str
    key: bytes

    @property
    def shown(self) -> str:
        """The key as people write it: parts of a composite key joined by "/"."""
        place = f"{self.namespace}/{self.collection}" if self.collection else self.namespace
        return f"{key_text(self.key) if not self.collection else 'hash ' + self.key.hex()} in {place}"


@dataclass(frozen=True)
class HistoryEntry:
    """One write of the key, valid or refused.

    `claimed_time` is what the submitter's clock said, with nanoseconds. `is_hashed`: the key is in a collection, and
    `value` is the SHA-256 of the value.
    """

    block_number: int
    tx_number: int
    write_number: int
    tx_id: str
    claimed_time: str | None
    msp_id: str | None
    subject: str | None
    chaincode: str | None
    function: str | None
    validation_code: str
    reason: str
    kind: str
    effect: str
    value: bytes | None
    is_hashed: bool

    def as_json(self) -> dict[str, Any]:
        """Give the entry for machines.

        The value is text where it is UTF-8, else base64 as `value_base64`; of a private one there is `value_hash`.
        """
        facts = {name: value for name, value in vars(self).items() if name not in {"value", "is_hashed"}}
        if self.value is None:
            return facts
        if self.is_hashed:
            return facts | {"value_hash": self.value.hex()}
        try:
            return facts | {"value": self.value.decode()}
        except UnicodeDecodeError:
            return facts | {"value_base64": base64.b64encode(self.value).decode()}


def key_text(key: bytes) -> str:
    """Show a public key: composite ones as type/attribute/..., others as text, bytes that are no text as 0x..."""
    composite = split_composite_key(key)
    if composite is not None:
        return "/".join((composite[0], *composite[1]))
    try:
        return key.decode()
    except UnicodeDecodeError:
        return "0x" + key.hex()


def find_keys(synced: SyncedTables, text: str, *, namespace: str | None = None) -> list[FoundKey]:
    """Find the keys that `text` can mean.

    The key itself, a composite key written type/attribute/..., 0x and hex digits, or a private key, which is on the
    ledger as its hash.
    """
    candidates = _candidates(text)
    hashes = [sha256(candidate).digest() for candidate in candidates] + [c for c in candidates if len(c) == 32]
    key = synced.tables.key
    condition = or_(
        and_(key.c.collection == "", key.c.key.in_(candidates)), and_(key.c.collection != "", key.c.key.in_(hashes))
    )
    if namespace is not None:
        condition = and_(condition, key.c.namespace == namespace)
    query = select(key.c.key_id, key.c.namespace, key.c.collection, key.c.key).where(condition).order_by(key.c.key_id)
    return [FoundKey(*row) for row in synced.connection.execute(query)]


def _candidates(text: str) -> list[bytes]:
    candidates = [text.encode("utf-8", "surrogateescape")]
    if "/" in text:
        object_type, *attributes = text.split("/")
        with suppress(CompositeKeyError):  # Then it is no composite key, and may still be an ordinary one.
            candidates.append(encode_composite_key(object_type, attributes))
    if text.startswith("0x"):
        with suppress(ValueError):  # "0x" may begin an ordinary key, too.
            candidates.append(bytes.fromhex(text[2:]))
    return candidates


def read_history(synced: SyncedTables, found: FoundKey) -> list[HistoryEntry]:
    """Read every write of a key in ledger order, those of refused transactions among them."""
    tables = synced.tables
    applied = tables.private_hash if found.collection else tables.key_history
    value_column = "value_hash" if found.collection else "value"
    is_hashed = bool(found.collection)
    entries = [
        *_entries(synced, applied, applied.c.effect, value_column, found.key_id, is_hashed=is_hashed),
        *_entries(synced, tables.refused_write, None, "value", found.key_id, is_hashed=is_hashed),
    ]
    return sorted(entries, key=lambda entry: (entry.block_number, entry.tx_number, entry.write_number))


def _entries(
    synced: SyncedTables,
    writes: Table,
    effect: Column[Any] | None,
    value_column: str,
    key_id: int,
    *,
    is_hashed: bool,
) -> Iterator[HistoryEntry]:
    tables = synced.tables
    transaction, identity, chaincode = tables.transaction, tables.identity, tables.chaincode
    columns = [
        writes.c.block_number,
        writes.c.tx_number,
        writes.c.write_number,
        writes.c.kind,
        writes.c[value_column].label("written"),
        transaction.c.tx_id,
        transaction.c.validation_code,
        transaction.c.claimed_seconds,
        transaction.c.claimed_nanos,
        transaction.c.function,
        identity.c.msp_id,
        identity.c.content,
        chaincode.c.name.label("chaincode"),
    ]
    if effect is not None:
        columns.append(effect.label("effect"))
    joined = (
        writes.join(
            transaction,
            and_(transaction.c.block_number == writes.c.block_number, transaction.c.tx_number == writes.c.tx_number),
        )
        .outerjoin(identity, identity.c.identity_id == transaction.c.creator_id)
        .outerjoin(chaincode, chaincode.c.chaincode_id == transaction.c.chaincode_id)
    )
    query: Select[Any] = select(*columns).select_from(joined).where(writes.c.key_id == key_id)
    for row in synced.connection.execute(query):
        yield _entry(row, Effect(row.effect) if effect is not None else None, is_hashed=is_hashed)


def _entry(row: Row[Any], effect: Effect | None, *, is_hashed: bool) -> HistoryEntry:
    code = validation_code_name(row.validation_code)
    return HistoryEntry(
        row.block_number,
        row.tx_number,
        row.write_number,
        row.tx_id,
        _claimed_time(row.claimed_seconds, row.claimed_nanos),
        row.msp_id,
        _subject(row.content) if row.content is not None else None,
        row.chaincode,
        row.function,
        code,
        reason(code),
        WriteKind(row.kind).name.lower(),
        effect.name.lower() if effect is not None else "refused",
        row.written if WriteKind(row.kind) == WriteKind.PUT else None,
        is_hashed,
    )


def _claimed_time(seconds: int | None, nanos: int | None) -> str | None:
    """Show a time as the submitter wrote it; no rule of Fabric makes it one that a calendar has."""
    if seconds is None:
        return None
    fraction = nanos or 0
    try:
        moment = (_EPOCH + timedelta(seconds=seconds)).isoformat()
    except OverflowError:
        return f"{seconds} s and {fraction} ns after 1970"
    if not 0 <= fraction < 1_000_000_000:
        return f"{seconds} s and {fraction} ns after 1970"
    return f"{moment}.{fraction:09d}Z"


@lru_cache(maxsize=1024)
def _subject(creator: bytes) -> str | None:
    """Read the common name in a creator's certificate; None when there is none to read."""
    try:
        identity = parse(identities_pb2.SerializedIdentity, creator, "SerializedIdentity")
        certificate = x509.load_pem_x509_certificate(identity.id_bytes)
        names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    except (DecodeError, ValueError, x509.InvalidVersion):
        return None
    return str(names[0].value) if names else None


def describe_history(found: FoundKey, entries: list[HistoryEntry]) -> Iterator[str]:
    """Tell a history in words: a line for the key, two for each write, made of printable characters alone."""
    yield printable(f"Key {found.shown}: {len(entries)} writes")
    before: bytes | None = None
    for entry in entries:
        who = entry.msp_id or "an unreadable submitter"
        if entry.subject:
            who += f" ({entry.subject})"
        call = f" by {entry.chaincode}.{entry.function}" if entry.function else ""
        when = entry.claimed_time or "no time"
        yield printable(f"  block {entry.block_number}, transaction {entry.tx_number}, {when}: {who}{call}")
        change = _change(before, entry)
        if entry.effect == "refused":
            kind = _KIND_WORDS[WriteKind[entry.kind.upper()]]
            yield printable(f"    REFUSED, {entry.validation_code} ({entry.reason}): would {kind}{change}")
            continue
        yield printable(f"    {_effect_words(entry)}{change}")
        if entry.effect == "put":
            before = entry.value
        elif entry.effect == "delete":
            before = None


def printable(text: str) -> str:
    r"""Show what is no printable character as Python writes it, such as \n or \x1b.

    Names and values come from whoever wrote to the ledger: a line end in one could pass for another line of a report,
    and control characters could rewrite what a terminal shows.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _effect_words(entry: HistoryEntry) -> str:
    if entry.effect == "put":
        return "wrote"
    if entry.effect == "delete":
        return "purged the key" if entry.kind == "purge" else "deleted the key"
    done = {"metadata": "set its key-level policy", "metadata_removed": "removed its key-level policy"}
    rest = "the value stays" if entry.effect == "version" else "no effect by itself"
    return f"{done.get(entry.kind, entry.kind)}; {rest}"


def _change(before: bytes | None, entry: HistoryEntry) -> str:
    after = entry.value
    if after is None:
        return ""
    if entry.is_hashed:
        return f": a value with SHA-256 {after.hex()}"
    old, new = _json_object(before), _json_object(after)
    if new is None:
        return f": {_short(after)}"
    changed = [
        f"{name}: {_compact(old[name])} -> {_compact(value)}" if old and name in old else f"{name}: {_compact(value)}"
        for name, value in new.items()
        if old is None or name not in old or old[name] != value
    ]
    changed += [f"{name} removed" for name in old or {} if name not in new]
    return ": " + ("; ".join(changed) if changed else "the same value again")


def _json_object(content: bytes | None) -> dict[str, Any] | None:
    if content is None:
        return None
    try:
        value = json.loads(content.decode())
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _compact(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "..."


def _short(content: bytes) -> str:
    try:
        text = content.decode()
    except UnicodeDecodeError:
        text = "0x" + content.hex()
    if len(text) <= _SHOWN_CHARACTERS and text.isprintable():
        return text
    return f"{len(content)} bytes"
