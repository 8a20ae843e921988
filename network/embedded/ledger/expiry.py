"""Whether somebody's certificate has expired: what services ask, and validation never does.

Rule: `common/crypto/expiration.go`: an identity that holds no X.509 certificate does not expire.
"""

from datetime import datetime
from functools import lru_cache
from typing import Final

from cryptography import x509

from network.protocol.errors import DecodeError
from network.protocol.identity import decode_serialized_identity

_REMEMBERED: Final = 1024


def has_expired(identity: bytes, now: float) -> bool:
    """Tell whether the certificate of a serialised identity is over; `now` in seconds since 1970."""
    end = _not_after(identity)
    return end is not None and end.timestamp() < now


@lru_cache(_REMEMBERED)
def _not_after(identity: bytes) -> datetime | None:
    try:
        return x509.load_pem_x509_certificate(decode_serialized_identity(identity).id_bytes).not_valid_after_utc
    except (DecodeError, ValueError, x509.InvalidVersion):
        return None
