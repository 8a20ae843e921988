"""Numbers for things that many rows name: keys, identities, chaincodes."""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Sequence
from hashlib import sha256
from struct import Struct
from typing import Generic, NamedTuple, TypeVar

CACHED_KEYS = 100_000
"""Keys whose number is remembered; about 200 bytes each."""

CACHED_NAMES = 10_000
"""Identities, and chaincodes, whose number is remembered."""

_LENGTH = Struct(">I").pack

K = TypeVar("K", bound=Hashable)


class Resolved(NamedTuple, Generic[K]):
    """`ids` has every key asked for; `fresh` are those that got a number now and need a row, in that order."""

    ids: dict[K, int]
    fresh: tuple[tuple[int, K], ...]


class Dictionary(Generic[K]):
    """Gives numbers, remembers the `size` last used, and allocates the next.

    Its memory is only worth something at the checkpoint where it was filled: whoever holds the checkpoint row of the
    database locked may use it, and must `forget` whenever the checkpoint moved without it, or a transaction did not
    commit.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._ids: OrderedDict[K, int] = OrderedDict()
        self.last = 0
        """The highest number given so far."""

    def forget(self, last: int) -> None:
        """Start anew; `last` is the highest number in the database (0: none)."""
        self._ids.clear()
        self.last = last

    def resolve(self, keys: Iterable[K], find: Callable[[Sequence[K]], dict[K, int]]) -> Resolved[K]:
        """Give the number of each of the distinct `keys`: remembered, found in the database by `find`, or new."""
        cached, ids, missing = self._ids, {}, []
        for key in keys:
            number = cached.get(key)
            if number is None:
                missing.append(key)
            else:
                cached.move_to_end(key)
                ids[key] = number
        fresh = []
        if missing:
            found = find(missing)
            for key in missing:
                number = found.get(key)
                if number is None:
                    self.last = number = self.last + 1
                    fresh.append((number, key))
                ids[key] = cached[key] = number
            while len(cached) > self._size:
                cached.popitem(last=False)
        return Resolved(ids, tuple(fresh))


def key_digest(namespace: str, collection: str, key: bytes) -> bytes:
    """SHA-256 over the three parts of a key, each with its length (32 bytes): no two keys share it."""
    return key_digests([(namespace, collection, key)])[0]


def key_digests(keys: Iterable[tuple[str, str, bytes]]) -> list[bytes]:
    """`key_digest` of each of many keys; most share what their digests begin with, namespace and collection."""
    starts: dict[tuple[str, str], bytes] = {}
    digests = []
    for namespace, collection, key in keys:
        start = starts.get((namespace, collection))
        if start is None:
            parts = [part.encode("utf-8", "surrogatepass") for part in (namespace, collection)]
            start = starts[namespace, collection] = b"".join([_LENGTH(len(part)) + part for part in parts])
        digests.append(sha256(start + _LENGTH(len(key)) + key).digest())
    return digests
