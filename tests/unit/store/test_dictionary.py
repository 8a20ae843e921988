from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from kvr_sync.store.dictionary import Dictionary, key_digest


class Stored:
    """A dictionary table; counts what it is asked."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}
        self.asked: list[list[str]] = []

    def find(self, keys: Sequence[str]) -> dict[str, int]:
        self.asked.append(list(keys))
        return {key: self.numbers[key] for key in keys if key in self.numbers}


def test_new_keys_are_numbered_after_the_last() -> None:
    dictionary: Dictionary[str] = Dictionary(10)
    dictionary.forget(41)

    resolved = dictionary.resolve(["a", "b"], Stored().find)

    assert resolved.ids == {"a": 42, "b": 43}
    assert resolved.fresh == ((42, "a"), (43, "b"))


def test_known_keys_are_not_asked_for_again() -> None:
    dictionary, stored = Dictionary[str](10), Stored()
    stored.numbers = {"old": 7}
    dictionary.forget(7)
    dictionary.resolve(["old", "new"], stored.find)

    resolved = dictionary.resolve(["old", "new"], stored.find)

    assert stored.asked == [["old", "new"]]
    assert resolved == ({"old": 7, "new": 8}, ())


def test_longest_unused_key_is_dropped_first() -> None:
    dictionary, stored = Dictionary[str](2), Stored()
    for key in ("a", "b", "a", "c"):
        stored.numbers.update(dictionary.resolve([key], stored.find).ids)
    stored.asked.clear()

    dictionary.resolve(["a"], stored.find)
    dictionary.resolve(["b"], stored.find)

    assert stored.asked == [["b"]]


def test_more_keys_than_it_remembers_are_all_resolved() -> None:
    resolved = Dictionary[str](2).resolve(["a", "b", "c", "d"], Stored().find)
    assert sorted(resolved.ids.values()) == [1, 2, 3, 4]


PARTS = st.tuples(st.text(max_size=4), st.text(max_size=4), st.binary(max_size=4))


@given(PARTS, PARTS)
def test_digest_tells_keys_apart(one: tuple[str, str, bytes], other: tuple[str, str, bytes]) -> None:
    assert (key_digest(*one) == key_digest(*other)) == (one == other)
