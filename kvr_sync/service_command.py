"""What `kvr sync serve` does, from its settings to its end."""

import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from kvr_sync.errors import ConfigurationError, KvrSyncError
from kvr_sync.interval import seconds_of
from kvr_sync.log_format import log_to_stderr
from kvr_sync.metrics import ChannelWatch, Metrics
from kvr_sync.probe import probes
from kvr_sync.read import open_place
from kvr_sync.service import ScheduledChannel, SyncService
from kvr_sync.settings import ServiceSettings, read_settings
from kvr_sync.store.database import undurable_settings

logger = logging.getLogger(__name__)


def serve_channels(
    path: Path | None,
    entry: Mapping[str, object],
    metrics: Mapping[str, object],
    common: Mapping[str, object],
    *,
    on_signals: Callable[[Callable[[], None]], None],
) -> None:
    """Serve the channels of a settings file, or the one that options name (`entry`), until stopped.

    In each mapping None means that nothing was said. `on_signals` lets signals call what it is given. Raises the errors
    of `kvr_sync.errors`.
    """
    options: dict[str, object] = {name: value for name, value in common.items() if value is not None}
    given = {name: value for name, value in entry.items() if value is not None}
    if path is not None and given:
        raise ConfigurationError(f"serve: --settings has the channels; leave out {', '.join(sorted(given))}")
    if path is None:
        if not _names_a_source(given):
            raise ConfigurationError(
                "serve: either FILE, or all of --profile, --msp-id, --identity and --channel, or --settings"
            )
        options["channels"] = [given]
    settings = read_settings(path, os.environ, options, metrics)
    registry = Metrics()
    channels, watches = [], []
    for channel in settings.channels:
        watch = ChannelWatch(channel.label, registry)
        scheduled = ScheduledChannel(
            settings.sync_settings(channel), seconds_of(channel.every), channel.keep_runs, watch
        )
        channels.append(scheduled)
        watches.append(watch)
    service = SyncService(channels)
    log_to_stderr()
    logger.info("service_settings", extra={"settings": settings.shown()})
    _check_durability(settings)
    on_signals(service.stop)
    lag = seconds_of(settings.metrics.ready_lag)
    host, port = settings.metrics.host, settings.metrics.port
    with probes(registry, watches, host=host, port=port, ready_lag_seconds=lag):
        service.serve()


def _names_a_source(entry: Mapping[str, object]) -> bool:
    peers = {"profile", "msp_id", "identity", "channel"}
    if "file" in entry:
        return not entry.keys() & (peers | {"peer", "private_data"})
    return peers <= entry.keys()


def _check_durability(settings: ServiceSettings) -> None:
    """Say, or in production refuse, that a server may lose what it acknowledged: every promise rests on that."""
    for url in sorted({settings.database_url(channel) for channel in settings.channels}):
        if url.startswith("sqlite"):
            continue  # its connections are set to wait for the disk
        try:
            with open_place(url) as place:
                off, name = undurable_settings(place.connection), place.name
        except KvrSyncError:
            if settings.is_production:
                raise
            continue  # the runs say that the server is away, and wait for it
        if not off:
            continue
        if settings.is_production:
            raise ConfigurationError(f"{name}: {', '.join(off)} off: what was acknowledged may be lost")
        logger.warning("database_not_durable", extra={"database": name, "settings": off})
