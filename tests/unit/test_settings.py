"""Settings of a service: file, then environment, then options; wrong ones named, secrets never shown."""

import json
from pathlib import Path
from typing import Any

import pytest

from kvr_sync.errors import ConfigurationError
from kvr_sync.interval import seconds_of
from kvr_sync.settings import MAX_FILE_BYTES, ServiceSettings, read_settings
from kvr_sync.source.peer_source import PeerSettings

PEERS = """\
  - channel: one
    profile: net/profile.json
    msp_id: ServiceMSP
    identity: msp
    mapping: one.yaml
    pin: "PIN"
""".replace("PIN", "ab" * 32)
PASSWORD = "open-sesame"  # noqa: S105
TWO = f"""\
database: postgresql://kvr:{PASSWORD}@host/name?sslpassword={PASSWORD}
metrics:
  port: 9090
channels:
{PEERS}  - file: blocks.bin
    database: sqlite:///two.db
    mapping: service
    every: 500ms
    keep_runs: 5
"""
PRODUCTION = f"environment: production\ndatabase: sqlite:///a.db\nmetrics: {{port: 9090}}\nchannels:\n{PEERS}"


def written(folder: Path, text: str) -> Path:
    path = folder / "kvr.yaml"
    path.write_text(text)
    return path


def read(folder: Path, text: str, environment: dict[str, str] | None = None, **options: Any) -> ServiceSettings:
    return read_settings(written(folder, text), environment or {}, options)


def test_a_file_names_channels_with_their_sources_and_databases(tmp_path: Path) -> None:
    settings = read(tmp_path, TWO)

    one, two = (settings.sync_settings(channel) for channel in settings.channels)
    assert one.source == PeerSettings(tmp_path / "net/profile.json", "ServiceMSP", tmp_path / "msp", "one")
    assert (one.mapping, one.pin, one.growing) == (tmp_path / "one.yaml", bytes.fromhex("ab" * 32), False)
    assert one.database.startswith("postgresql://kvr:")
    assert (two.source, two.mapping, two.pin, two.growing) == (tmp_path / "blocks.bin", Path("service"), None, True)
    assert two.database == "sqlite:///two.db"
    assert [channel.every for channel in settings.channels] == ["10s", "500ms"]
    assert [channel.label for channel in settings.channels] == ["one", str(tmp_path / "blocks.bin")]


def test_the_environment_replaces_the_file_and_options_the_environment(tmp_path: Path) -> None:
    environment = {"KVR_DATABASE": "sqlite:///environment.db", "KVR_METRICS_PORT": "9191", "KVR_DATABASE_FILE": ""}

    by_environment = read(tmp_path, TWO, environment)
    by_options = read_settings(
        written(tmp_path, TWO), environment, {"database": "sqlite:///option.db"}, {"port": 0, "host": None}
    )

    assert by_environment.database_url(by_environment.channels[0]) == "sqlite:///environment.db"
    assert by_environment.metrics.port == 9191
    assert by_options.database_url(by_options.channels[0]) == "sqlite:///option.db"
    assert (by_options.metrics.port, by_options.metrics.host) == (0, "127.0.0.1")
    assert by_options.database_url(by_options.channels[1]) == "sqlite:///two.db"  # a channel's own stays its own


def test_a_secret_comes_from_its_file(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(f"postgresql://kvr:{PASSWORD}@host/name\n")
    settings = read(tmp_path, f"database_file: secret\nchannels:\n{PEERS}")

    assert settings.database_url(settings.channels[0]) == f"postgresql://kvr:{PASSWORD}@host/name"
    assert PASSWORD not in json.dumps(settings.shown())


def test_an_option_replaces_a_secret_file(tmp_path: Path) -> None:
    settings = read(tmp_path, f"database_file: missing\nchannels:\n{PEERS}", {"KVR_DATABASE": "sqlite:///a.db"})

    assert settings.database_url(settings.channels[0]) == "sqlite:///a.db"


@pytest.mark.parametrize("content", [None, b"", b"  \n", b"\xff\xfe", b"x" * 10_000])
def test_a_secret_that_is_none_is_refused_by_path(content: bytes | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "secret").write_bytes(content)
    settings = read(tmp_path, f"database_file: secret\nchannels:\n{PEERS}")

    with pytest.raises(ConfigurationError, match="secret"):
        settings.database_url(settings.channels[0])


def test_no_database_is_no_silent_default(tmp_path: Path) -> None:
    settings = read(tmp_path, f"channels:\n{PEERS}")

    with pytest.raises(ConfigurationError, match="no database for one"):
        settings.sync_settings(settings.channels[0])


def test_settings_are_shown_without_passwords(tmp_path: Path) -> None:
    shown = json.dumps(read(tmp_path, TWO).shown())

    assert PASSWORD not in shown
    assert "host/name" in shown
    assert "ServiceMSP" in shown


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("channels: []", "kvr.yaml: channels: "),
        ("database: sqlite:///a.db", "kvr.yaml: channels: Field required"),
        (f"channels:\n{PEERS}surprise: 1", "kvr.yaml: surprise: Extra inputs are not permitted"),
        (f"channels:\n{PEERS}environment: prod", "kvr.yaml: environment: "),
        (f"channels:\n{PEERS}metrics: {{port: 70000}}", "kvr.yaml: metrics.port: "),
        ("channels:\n  - file: a\n    msp_id: b", "kvr.yaml: channels.0: either file, or all of profile"),
        ("channels:\n  - channel: a", "kvr.yaml: channels.0: either file, or all of profile"),
        ("channels:\n  - file: a\n    every: soon", "kvr.yaml: channels.0.every: "),
        ("channels:\n  - file: a\n    every: 0s", "kvr.yaml: channels.0: every: more than nothing"),
        ("channels:\n  - file: a\n    pin: abc", "kvr.yaml: channels.0.pin: "),
        ("channels:\n  - file: a\n    keep_runs: 0", "kvr.yaml: channels.0.keep_runs: "),
        ("- a\n- b", "settings are a mapping"),
        ("a: [", "kvr.yaml:1"),
        ("x" * (MAX_FILE_BYTES + 1), "are no settings"),
    ],
)
def test_what_is_wrong_is_named(text: str, fault: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as refused:
        read(tmp_path, text)

    assert fault in str(refused.value)


def test_a_wrong_value_is_not_shown(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as refused:
        read(tmp_path, f"database: [{PASSWORD}]\nchannels:\n  - file: [{PASSWORD}]\n    pin: {PASSWORD}")

    assert PASSWORD not in str(refused.value)
    for setting in ("database", "channels.0.file", "channels.0.pin"):  # all mistakes at once
        assert f"kvr.yaml: {setting}: " in str(refused.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"missing\.yaml: the settings cannot be read"):
        read_settings(tmp_path / "missing.yaml", {})


@pytest.mark.parametrize("name", ["pin", "mapping"])
def test_production_leaves_nothing_that_matters_to_a_default(name: str, tmp_path: Path) -> None:
    assert read(tmp_path, PRODUCTION).is_production
    without = "\n".join(line for line in PRODUCTION.splitlines() if not line.strip().startswith(f"{name}:"))

    with pytest.raises(ConfigurationError, match=rf"channels\.0: in production say {name}"):
        read(tmp_path, without)


def test_production_says_where_metrics_are_and_which_channel_a_file_is_of(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"in production say metrics\.port"):
        read(tmp_path, PRODUCTION.replace("metrics: {port: 9090}\n", ""))
    of_file = PRODUCTION.replace("channel: one", "file: a").replace("    profile: net/profile.json\n", "")
    of_file = of_file.replace("    msp_id: ServiceMSP\n", "").replace("    identity: msp\n", "")
    with pytest.raises(ConfigurationError, match=r"in production say channel"):
        read(tmp_path, of_file)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("500ms", 0.5), ("10s", 10.0), ("5m", 300.0), ("1h", 3600.0), ("", 0.0), ("10", 0.0), ("-1s", 0.0), ("٣s", 0.0)],
)
def test_intervals_are_a_number_and_a_unit(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds
