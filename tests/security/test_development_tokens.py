"""Development tokens: everything but a token of ours, in time, is refused without a reason; the key stays secret."""

import base64
import json
import stat
from pathlib import Path
from typing import Any

import jwt
import pytest

from gateway.api.errors import AuthenticationError, SettingsError
from gateway.api.token import AUDIENCE, ISSUER, LEEWAY_SECONDS, MAXIMUM_LIFE_SECONDS, TokenKey

SECRET = bytes(range(32))
HOUR = 3600
FAR = 4_000_000_000
"""A time that has not come while these tests run: tokens that end then count now."""
CLAIMS = {"iss": ISSUER, "aud": AUDIENCE, "sub": "agent", "iat": 1_000_000_000, "nbf": 1_000_000_000, "exp": FAR}


def signed(claims: dict[str, Any], *, key: bytes = SECRET, algorithm: str = "HS256") -> str:
    return jwt.encode(claims, key, algorithm=algorithm)


def test_a_token_names_its_user() -> None:
    assert TokenKey(SECRET).subject(signed(CLAIMS)) == "agent"


def test_an_issued_token_counts_from_its_moment_for_its_life(tmp_path: Path) -> None:
    key = TokenKey.read_or_create(tmp_path / "key")
    now = 2_500_000_000

    claims = jwt.decode(key.issue("agent", now=now, life_seconds=HOUR), options={"verify_signature": False})

    assert (claims["sub"], claims["nbf"], claims["exp"]) == ("agent", now, now + HOUR)
    with pytest.raises(AuthenticationError):
        key.subject(key.issue("agent", now=now, life_seconds=HOUR))  # not yet
    with pytest.raises(AuthenticationError):
        key.subject(key.issue("agent", now=1_000_000_000, life_seconds=HOUR))  # long over


WRONG: dict[str, str] = {
    "nothing": "",
    "no token": "agent",
    "another key": signed(CLAIMS, key=bytes(32)),
    "another issuer": signed(CLAIMS | {"iss": "other"}),
    "another audience": signed(CLAIMS | {"aud": "other"}),
    "another algorithm": signed(CLAIMS, key=SECRET * 2, algorithm="HS512"),
    "over": signed(CLAIMS | {"exp": 1_000_000_000 + LEEWAY_SECONDS}),
    "not yet": signed(CLAIMS | {"nbf": FAR - 1}),
    "no end": signed({name: value for name, value in CLAIMS.items() if name != "exp"}),
    "no beginning": signed({name: value for name, value in CLAIMS.items() if name != "nbf"}),
    "nobody": signed({name: value for name, value in CLAIMS.items() if name != "sub"}),
    "a path": signed(CLAIMS | {"sub": "../admin"}),
    "an absolute path": signed(CLAIMS | {"sub": "/etc"}),
    "a capital letter": signed(CLAIMS | {"sub": "Agent"}),
    "a look-alike": signed(CLAIMS | {"sub": "\u0430gent"}),
    "a NUL": signed(CLAIMS | {"sub": "agent\x00"}),
    "a very long one": signed(CLAIMS | {"sub": "a" * 5000}),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_other_tokens_are_refused_without_a_reason(wrong: str) -> None:
    with pytest.raises(AuthenticationError) as refused:
        TokenKey(SECRET).subject(WRONG[wrong])

    assert refused.value.detail == ""
    assert refused.value.__cause__ is None


def test_a_token_without_signature_is_refused() -> None:
    def part(content: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(content).encode()).rstrip(b"=").decode()

    for algorithm in ("none", "None", "NONE", "HS256"):
        with pytest.raises(AuthenticationError):
            TokenKey(SECRET).subject(f"{part({'alg': algorithm, 'typ': 'JWT'})}.{part(CLAIMS)}.")


@pytest.mark.parametrize("user", ["", "Agent", "../x", "a/b", ".a", "a.", "a" * 65, "a b"])
def test_no_token_is_made_for_a_name_that_no_user_has(user: str) -> None:
    with pytest.raises(SettingsError, match="named by"):
        TokenKey(SECRET).issue(user, now=0, life_seconds=HOUR)


@pytest.mark.parametrize("life", [0, -1, MAXIMUM_LIFE_SECONDS + 1])
def test_a_token_lives_for_a_day_at_most(life: int) -> None:
    with pytest.raises(SettingsError, match="lives"):
        TokenKey(SECRET).issue("agent", now=0, life_seconds=life)


def test_the_key_file_is_its_owner_s_alone_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "token.key"

    first, second = TokenKey.read_or_create(path), TokenKey.read_or_create(path)

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert first.issue("agent", now=1, life_seconds=1) == second.issue("agent", now=1, life_seconds=1)
    content = path.read_text().strip()
    assert len(bytes.fromhex(content)) == 32
    assert content not in repr(first)


def test_a_key_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "token.key"
    TokenKey.read_or_create(path)
    path.chmod(0o640)

    with pytest.raises(SettingsError, match="can be read by others"):
        TokenKey.read_or_create(path)


@pytest.mark.parametrize("content", ["", "00", "zz" * 32, "00" * 33])
def test_a_key_file_of_another_kind_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "token.key"
    path.write_text(content)
    path.chmod(0o600)

    with pytest.raises(SettingsError, match="not one of ours"):
        TokenKey.read(path)


def test_a_key_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"nothing\.key"):
        TokenKey.read(tmp_path / "nothing.key")
