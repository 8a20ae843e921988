"""The name of a channel's SQL schema. Pure."""

import re
from hashlib import sha256

from kvr_sync.errors import ConfigurationError

MAX_IDENTIFIER_BYTES = 63
"""PostgreSQL cuts longer identifiers silently (`NAMEDATALEN`)."""

MAX_CHANNEL_CHARACTERS = 249
"""`common/configtx/validator.go`, MaxLength."""

_CHANNEL_ID = re.compile(r"[a-z][a-z0-9.-]*")  # `common/configtx/validator.go`, validateChannelID
_TAG_DIGITS = 16


def schema_name(channel: str) -> str:
    """Give the PostgreSQL schema of a channel: at most 63 bytes, different for different channels, the same for ever.

    The id itself, with "-" and "." as "_". Where anything was replaced or cut, and for "public", "_" and 16 hex
    digits of the id's SHA-256 follow. A plain id has no "_", so the two forms never meet. A name that would begin
    with "pg_", which PostgreSQL keeps for itself, gets "channel_" before it.

    Raises ConfigurationError where `channel` is not a channel id that Fabric accepts.
    """
    check_channel_id(channel)
    name = channel.replace("-", "_").replace(".", "_")
    if name == channel and len(name) <= MAX_IDENTIFIER_BYTES and name != "public":
        return name
    if name.startswith("pg_"):
        name = f"channel_{name}"
    tag = sha256(channel.encode()).hexdigest()[:_TAG_DIGITS]
    return f"{name[: MAX_IDENTIFIER_BYTES - _TAG_DIGITS - 1]}_{tag}"


def api_schema_name(schema: str, api_version: int) -> str:
    """Give the schema of the mapped tables of a version of the API: that of the channel itself for the first.

    At most 63 bytes; it is no channel's, since no name of a channel's schema ends in "_v" and digits.
    """
    if api_version == 1:
        return schema
    ending = f"_v{api_version}"
    if len(schema) + len(ending) <= MAX_IDENTIFIER_BYTES:
        return f"{schema}{ending}"
    tag = sha256(schema.encode()).hexdigest()[:_TAG_DIGITS]
    return f"{schema[: MAX_IDENTIFIER_BYTES - _TAG_DIGITS - 1 - len(ending)]}_{tag}{ending}"


def check_channel_id(channel: str) -> None:
    """Raise ConfigurationError unless Fabric accepts `channel` as a channel id."""
    if len(channel) > MAX_CHANNEL_CHARACTERS or _CHANNEL_ID.fullmatch(channel) is None:
        raise ConfigurationError(
            f"{channel[:64]!r} is not a channel id: small letters, digits, '.' and '-', a letter first,"
            f" at most {MAX_CHANNEL_CHARACTERS} characters"
        )
