"""The settings of a service: one validated model, from a file, then the environment, then options of the command.

Secrets stand in files of their own (`database_file`), or in the environment; what is shown of settings never has one.
With `environment: production` nothing that matters is left to a default.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from kvr_sync.due_jobs import KEPT_RUNS
from kvr_sync.errors import ConfigurationError
from kvr_sync.interval import seconds_of
from kvr_sync.jobs import SyncSettings
from kvr_sync.mapping.yaml_text import read_yaml
from kvr_sync.source.peer_source import PeerSettings
from kvr_sync.store.database import parse_url, shown_url

MAX_FILE_BYTES = 256 * 1024
MAX_SECRET_BYTES = 8 * 1024

ENVIRONMENT = {
    "KVR_ENVIRONMENT": ("environment",),
    "KVR_DATABASE": ("database",),
    "KVR_DATABASE_FILE": ("database_file",),
    "KVR_METRICS_HOST": ("metrics", "host"),
    "KVR_METRICS_PORT": ("metrics", "port"),
}
"""Variables, and the settings that they replace."""

Text = Annotated[str, StringConstraints(min_length=1, max_length=4096)]
Interval = Annotated[str, StringConstraints(pattern=r"^\d{1,6}(ms|s|m|h)$")]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class MetricsSettings(_Model):
    """The port for `/metrics`, `/live` and `/ready`; none is opened without `port`."""

    port: Annotated[int, Field(ge=0, le=65535)] | None = None
    host: Text = "127.0.0.1"
    ready_lag: Interval = "60s"


class ChannelSettings(_Model):
    """One channel: where its blocks come from, a file or peers, and where they go."""

    channel: Text | None = None
    file: Path | None = None
    profile: Path | None = None
    msp_id: Text | None = None
    identity: Path | None = None
    peer: Text | None = None
    private_data: bool = False
    mapping: Path | None = None
    pin: Annotated[str, StringConstraints(pattern=r"^[0-9a-fA-F]{64}$")] | None = None
    archive: Path | None = None
    database: Text | None = None
    database_file: Path | None = None
    every: Interval = "10s"
    keep_runs: Annotated[int, Field(ge=1, le=10_000_000)] = KEPT_RUNS

    @model_validator(mode="after")
    def _check_source(self) -> Self:
        peers = (self.profile, self.msp_id, self.identity, self.channel)
        if self.file is not None:
            if self.profile or self.msp_id or self.identity or self.peer or self.private_data:
                raise ValueError("either file, or all of profile, msp_id, identity and channel")
        elif not all(peers):
            raise ValueError("either file, or all of profile, msp_id, identity and channel")
        if seconds_of(self.every) <= 0:
            raise ValueError("every: more than nothing")
        return self

    @property
    def source(self) -> Path | PeerSettings:
        """The file, or the peers."""
        if self.file is not None:
            return self.file
        if self.profile is None or self.msp_id is None or self.identity is None or self.channel is None:
            raise ValueError("a channel without a file has peers")
        return PeerSettings(self.profile, self.msp_id, self.identity, self.channel, self.peer, self.private_data)

    @property
    def label(self) -> str:
        """What metrics call it: the channel, or the file where that tells which it is."""
        return self.channel or str(self.file)


class ServiceSettings(_Model):
    """All settings of a service."""

    environment: Literal["development", "production"] = "development"
    database: Text | None = None
    database_file: Path | None = None
    metrics: MetricsSettings = MetricsSettings()
    channels: Annotated[tuple[ChannelSettings, ...], Field(min_length=1, max_length=100)]

    @property
    def is_production(self) -> bool:
        """Whether nothing that matters may be left to a default."""
        return self.environment == "production"

    @model_validator(mode="after")
    def _check_production(self) -> Self:
        if not self.is_production:
            return self
        for number, channel in enumerate(self.channels):
            for name in ("channel", "pin", "mapping"):
                if getattr(channel, name) is None:
                    raise ValueError(f"channels.{number}: in production say {name}")
        if self.metrics.port is None:
            raise ValueError("in production say metrics.port")
        return self

    def sync_settings(self, channel: ChannelSettings) -> SyncSettings:
        """Give what one channel is brought up by. Raises ConfigurationError: no database, or a secret is missing."""
        is_file = channel.file is not None
        return SyncSettings(
            channel.source,
            self.database_url(channel),
            channel.mapping,
            bytes.fromhex(channel.pin) if channel.pin else None,
            growing=is_file,
            archive=channel.archive,
        )

    def database_url(self, channel: ChannelSettings) -> str:
        """Give the URL of a channel's database, its own or the common one."""
        for url, file in ((channel.database, channel.database_file), (self.database, self.database_file)):
            if url is not None:
                return url
            if file is not None:
                return _read_secret(file)
        raise ConfigurationError(f"settings: no database for {channel.label}: say database or database_file")

    def shown(self) -> dict[str, Any]:
        """Give the settings as they may be logged."""
        facts: dict[str, Any] = self.model_dump(mode="json", exclude_none=True)
        for part in (facts, *facts["channels"]):
            if "database" in part:
                part["database"] = shown_url(parse_url(part["database"]))
        return facts


def read_settings(
    path: Path | None,
    environment: Mapping[str, str],
    options: Mapping[str, object] | None = None,
    metrics: Mapping[str, object] | None = None,
) -> ServiceSettings:
    """Read settings from a YAML file, `environment` and options, a later one replacing what an earlier one says.

    `options` has settings by name, as the file has, and `metrics` those of its part `metrics`; None: not said. Paths in
    the file are relative to its folder. Raises ConfigurationError, which names every setting that is wrong and shows no
    value.
    """
    content = _read_file(path) if path is not None else {}
    if path is not None:
        content = _resolve_paths(content, path.parent)
    for variable, names in ENVIRONMENT.items():
        if environment.get(variable):
            content = _replaced(content, names, environment[variable])
    said: list[tuple[tuple[str, ...], object]] = [((name,), value) for name, value in (options or {}).items()]
    said += [(("metrics", name), value) for name, value in (metrics or {}).items()]
    for names, value in said:
        if value is not None:
            content = _replaced(content, names, value)
    try:
        return ServiceSettings.model_validate(content)
    except ValidationError as error:
        place = str(path) if path is not None else "settings"
        faults = [
            f"{place}: {'.'.join(map(str, fault['loc'])) or 'settings'}: {fault['msg'].removeprefix('Value error, ')}"
            for fault in error.errors(include_input=False, include_url=False)
        ]
        raise ConfigurationError("\n".join(faults)) from None


def _read_file(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a path with U+0000
        reason = getattr(error, "strerror", None) or "not a path"
        raise ConfigurationError(f"{path}: the settings cannot be read: {reason}") from None
    if len(content) > MAX_FILE_BYTES:
        raise ConfigurationError(f"{path}: more than {MAX_FILE_BYTES:,} bytes are no settings")
    found = read_yaml(content)
    if found.mistakes:
        raise ConfigurationError("\n".join(f"{path}:{mistake.line}: {mistake.text}" for mistake in found.mistakes))
    if not isinstance(found.value, dict):
        raise ConfigurationError(f"{path}: settings are a mapping of names to values")
    return found.value


PATHS = ("file", "profile", "identity", "mapping", "archive", "database_file")


def _resolve_paths(content: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Make paths of the file relative to its folder; the name of a shipped mapping stays a name."""
    resolved = {
        name: str(folder / value) if name in PATHS and isinstance(value, str) and value != "service" else value
        for name, value in content.items()
    }
    channels = resolved.get("channels")
    if isinstance(channels, list):
        resolved["channels"] = [_resolve_paths(each, folder) if isinstance(each, dict) else each for each in channels]
    return resolved


def _replaced(content: dict[str, Any], names: tuple[str, ...], value: object) -> dict[str, Any]:
    name, *rest = names
    if not rest:
        others = {"database": "database_file", "database_file": "database"}
        # One place that says where the database is replaces another that says it otherwise.
        return {key: kept for key, kept in content.items() if key != others.get(name)} | {name: value}
    inner = content.get(name)
    return content | {name: _replaced(inner if isinstance(inner, dict) else {}, tuple(rest), value)}


def _read_secret(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_SECRET_BYTES + 1)
        text = content.decode().strip()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a text"
        raise ConfigurationError(f"{path}: the secret cannot be read: {reason}") from None
    if not text or len(content) > MAX_SECRET_BYTES:
        raise ConfigurationError(f"{path}: a secret is one line of text")
    return text
