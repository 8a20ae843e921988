import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvr_sync.errors import ConfigurationError
from kvr_sync.store.channel_name import schema_name

CHANNEL_IDS = st.from_regex(r"[a-z][a-z0-9.-]{0,248}", fullmatch=True)


def test_plain_id_is_its_own_name() -> None:
    assert schema_name("consortium") == "consortium"
    assert schema_name("a" * 63) == "a" * 63


@pytest.mark.parametrize("channel", ["a-b", "a.b", "a" * 64, "public", "pg-catalog", "information-schema", "a" * 249])
def test_changed_id_gets_a_tag(channel: str) -> None:
    name = schema_name(channel)

    assert name != channel
    assert name.rpartition("_")[2].isalnum()
    assert len(name.rpartition("_")[2]) == 16


def test_ids_that_look_alike_get_different_names() -> None:
    names = {schema_name(channel) for channel in ("a-b", "a.b", "a-.b", "ab", "a" * 63 + "b", "a" * 63 + "c")}
    assert len(names) == 6


@given(CHANNEL_IDS, CHANNEL_IDS)
def test_names_fit_and_differ(one: str, other: str) -> None:
    name = schema_name(one)

    assert len(name.encode()) <= 63
    assert not name.startswith("pg_")
    assert (name == schema_name(other)) == (one == other)


@pytest.mark.parametrize("channel", ["", "A", "1a", "a_b", "a b", "a\n", "é", "a" * 250])
def test_rejects_what_is_no_channel_id(channel: str) -> None:
    with pytest.raises(ConfigurationError):
        schema_name(channel)
