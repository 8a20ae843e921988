"""Private values matched to the hashes that the chain holds of them. Pure.

What a peer hands over beside a block is proved key by key: SHA-256 of key and value must be those of a write of the
same valid transaction, namespace and collection. The hash of the whole private set is not asked for, since a purge
takes single keys out of it and the others stay good. What matches nothing is counted and dropped.
"""

from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import NamedTuple

from kvr_sync.model import BlockChanges, LateValue, LedgerKey, MissingValue, Write, WriteKind
from kvr_sync.store.storable import storable_text
from network.protocol.errors import DecodeError
from network.protocol.private_read_write_set import decode_private_writes


class PrivateValue(NamedTuple):
    """A private value that the chain vouches for.

    `key` is the ledger's (its `key` is the hash), `private_key` what was hashed; the position is that of the write.
    """

    tx_number: int
    write_number: int
    key: LedgerKey
    private_key: bytes
    value: bytes


class PrivateData(NamedTuple):
    """What came with one block: the values that match, and how many private writes matched nothing."""

    values: tuple[PrivateValue, ...]
    private_keys: Mapping[LedgerKey, bytes]
    """The keys themselves, as far as this block's private sets tell them: of deletes too."""
    rejected: int


NO_PRIVATE_DATA = PrivateData((), {}, 0)


def match_private_data(changes: BlockChanges, private_sets: Mapping[int, bytes]) -> PrivateData:
    """Match the private sets of a block, serialised TxPvtReadWriteSet by transaction number, to its hashed writes.

    Total: sets of refused or unknown transactions, of other collections, with other values, and sets that do not parse
    are counted in `rejected`, one for each private write (one for a whole set that does not parse).
    """
    hashed = {
        (write.tx_number, write.key): write
        for write in changes.writes
        if write.key.collection and write.kind in {WriteKind.PUT, WriteKind.DELETE, WriteKind.PURGE}
    }
    values: list[PrivateValue] = []
    private_keys: dict[LedgerKey, bytes] = {}
    rejected = 0
    for tx_number, content in sorted(private_sets.items()):
        try:
            parts = decode_private_writes(content)
        except DecodeError:
            rejected += 1
            continue
        for part in parts:
            for private_key, is_delete, value in part.writes:
                key = private_key.encode()
                ledger_key = LedgerKey(part.namespace, part.collection, sha256(key).digest())
                write = hashed.get((tx_number, ledger_key))
                if write is None or not _is_proved(write, value, is_delete=is_delete):
                    rejected += 1
                    continue
                private_keys[ledger_key] = key
                if write.kind == WriteKind.PUT:
                    values.append(PrivateValue(tx_number, write.write_number, ledger_key, key, value))
    values.sort(key=lambda found: (found.tx_number, found.write_number))
    return PrivateData(tuple(values), private_keys, rejected)


class LateData(NamedTuple):
    """What a peer holds of the missing values of one block, and how many values it gave that are not those."""

    values: tuple[LateValue, ...]
    refused: int


def match_missing(missing: Iterable[MissingValue], private_sets: Mapping[int, bytes]) -> LateData:
    """Match private sets, as in `match_private_data`, to missing values of their block by the hashes of the chain.

    Total. What nobody misses is passed over. `refused` counts wrong values of keys that are missing, and sets that do
    not parse though a value of their transaction is missing.
    """
    wanted = {(one.tx_number, one.key): one for one in missing}
    transactions = {tx_number for tx_number, _ in wanted}
    values: list[LateValue] = []
    refused = 0
    for tx_number, content in sorted(private_sets.items()):
        if tx_number not in transactions:
            continue
        try:
            parts = decode_private_writes(content)
        except DecodeError:
            refused += 1
            continue
        for part in parts:
            namespace, collection = storable_text(part.namespace), storable_text(part.collection)
            for private_key, is_delete, value in part.writes:
                key = private_key.encode()
                ledger_key = LedgerKey(namespace, collection, sha256(key).digest())
                one = wanted.get((tx_number, ledger_key))
                if one is None:
                    continue
                if is_delete or sha256(value).digest() != one.value_hash:
                    refused += 1
                    continue
                del wanted[tx_number, ledger_key]
                values.append(LateValue(one, key, value))
    return LateData(tuple(values), refused)


def _is_proved(write: Write, value: bytes, *, is_delete: bool) -> bool:
    if write.kind == WriteKind.PUT:
        return not is_delete and sha256(value).digest() == write.value
    return is_delete
