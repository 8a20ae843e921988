"""Reading commands refuse an unusable address as the writing ones do."""

from pathlib import Path

import pytest

from kvr_sync import errors
from kvr_sync.read import open_tables


@pytest.mark.parametrize(
    "url",
    ["postgresql://[::1", "postgresql://user:secret@host:port/name", "mysql://user:secret@host/name", "no address", ""],
)
def test_an_unusable_address_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(errors.ConfigurationError, match="cannot be read") as refused, open_tables(url):
        pass

    assert "secret" not in str(refused.value)
    assert refused.value.__cause__ is None


def test_a_file_that_is_not_there_is_named_and_not_made(tmp_path: Path) -> None:
    path = tmp_path / "absent.db"

    with pytest.raises(errors.ConfigurationError, match="no such file"), open_tables(f"sqlite:///{path}"):
        pass

    assert not path.exists()
