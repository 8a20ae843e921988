from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvr_sync.store.storable import MAX_NAME_BYTES, storable_function, storable_text


@pytest.mark.parametrize("text", ["", "Requests:open", "é" * 128, "a" * 256, "\n\t\x01\u202e", "sha256:not one"])
def test_text_that_fits_is_kept(text: str) -> None:
    assert storable_text(text) == text


@pytest.mark.parametrize("text", ["a" * 257, "é" * 129, "a\0", "\0"])
def test_text_that_does_not_fit_becomes_its_digest(text: str) -> None:
    assert storable_text(text) == "sha256:" + sha256(text.encode()).hexdigest()


@given(st.text(st.characters(codec=None, categories=["Cs", "Cc", "L"]), max_size=300))
def test_every_text_becomes_storable_and_stays_so(text: str) -> None:
    stored = storable_text(text)

    assert len(stored.encode()) <= MAX_NAME_BYTES
    assert "\0" not in stored
    assert storable_text(stored) == stored


def test_function_that_is_no_utf8_is_absent() -> None:
    assert storable_function(b"\xff") is None
    assert storable_function(None) is None
    assert storable_function(b"open") == "open"
    assert storable_function(b"o\0") == "sha256:" + sha256(b"o\0").hexdigest()
