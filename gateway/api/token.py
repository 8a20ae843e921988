"""Development tokens: who calls, signed with one key file that the service and `kvr gateway token` share.

For trying things. A deployment takes its tokens from an identity provider; the check of one is the same function with
other keys.
"""

import os
import re
import secrets
from pathlib import Path
from typing import Final

import jwt

from gateway.api.errors import AuthenticationError, SettingsError

ALGORITHM: Final = "HS256"
ISSUER: Final = "kvr-development"
AUDIENCE: Final = "kvr-gateway"
KEY_BYTES: Final = 32
MAXIMUM_LIFE_SECONDS: Final = 24 * 3600
LEEWAY_SECONDS: Final = 30
"""Clocks of caller and service may differ by this much."""
TOKEN_BYTES: Final = 4096
SUBJECT: Final = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?")
"""Names of users: what a folder of the wallet may be called on every system."""


class TokenKey:
    """The secret of the development tokens of one service."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def __repr__(self) -> str:
        """Show that there is a key, and nothing of it."""
        return "TokenKey(...)"

    @classmethod
    def read(cls, path: Path) -> "TokenKey":
        """Read a key file; raises SettingsError when it is absent, open to others or of another size."""
        try:
            with path.open("rb") as file:
                mode = os.fstat(file.fileno()).st_mode
                content = file.read(KEY_BYTES * 2 + 2)
        except OSError as error:
            raise SettingsError(f"token key {path}: {error.strerror}") from error
        if mode & 0o077:
            raise SettingsError(f"token key {path} can be read by others; allow it to its owner alone (chmod 600)")
        try:
            key = bytes.fromhex(content.decode("ascii").strip())
        except ValueError:
            key = b""
        if len(key) != KEY_BYTES:
            raise SettingsError(f"token key {path} is not one of ours: it holds {KEY_BYTES} bytes in hexadecimal")
        return cls(key)

    @classmethod
    def read_or_create(cls, path: Path) -> "TokenKey":
        """Read the key file; make it, for its owner alone, when there is none yet."""
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            return cls.read(path)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(secrets.token_hex(KEY_BYTES) + "\n")
        return cls.read(path)

    def issue(self, subject: str, *, now: int, life_seconds: int) -> str:
        """Give a token, valid from `now` (seconds since 1970); raises SettingsError for a bad name or life."""
        if SUBJECT.fullmatch(subject) is None:
            raise SettingsError(
                "a user is named by 1 to 64 of a-z, 0-9, '.', '_', '-', with a letter or digit at both ends"
            )
        if not 0 < life_seconds <= MAXIMUM_LIFE_SECONDS:
            raise SettingsError(f"a development token lives 1 to {MAXIMUM_LIFE_SECONDS} seconds")
        claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": subject, "iat": now, "nbf": now, "exp": now + life_seconds}
        return jwt.encode(claims, self._key, algorithm=ALGORITHM)

    def subject(self, token: str) -> str:
        """Give the user a token speaks for; raises AuthenticationError, without saying what is wrong with it."""
        if len(token) > TOKEN_BYTES:
            raise AuthenticationError
        try:
            claims = jwt.decode(
                token,
                self._key,
                algorithms=[ALGORITHM],
                issuer=ISSUER,
                audience=AUDIENCE,
                leeway=LEEWAY_SECONDS,
                options={"require": ["exp", "nbf", "iat", "sub"]},
            )
        except jwt.InvalidTokenError:
            raise AuthenticationError from None
        subject = claims["sub"]
        if not isinstance(subject, str) or SUBJECT.fullmatch(subject) is None:
            raise AuthenticationError
        return subject
