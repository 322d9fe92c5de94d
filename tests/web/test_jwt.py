from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import jwt
import pytest

from riwoa.errors import InputError
from riwoa.web.jwt import JwtVerifier

SECRET = b"0123456789abcdef0123456789abcdef"


def token(key: Any = SECRET, algorithm: str = "HS256", **claims: Any) -> str:
    given = {"aud": "riwoa", "sub": "eva", "exp": time.time() + 60, "scope": "read control", **claims}
    return jwt.encode({k: v for k, v in given.items() if v is not None}, key, algorithm)


def test_a_token_that_the_key_signed_says_who_may_what() -> None:
    found = JwtVerifier(SECRET, "riwoa").find(token())
    assert found is not None
    assert (found.name, found.scopes) == ("eva", ("read", "control"))
    reader = JwtVerifier(SECRET, "riwoa").find(token(scope="read admin"))
    assert reader is not None
    assert reader.scopes == ("read",)


@pytest.mark.parametrize(
    "text",
    [
        token(exp=time.time() - 60),
        token(exp=None),
        token(sub=None),
        token(aud="another"),
        token(aud=None),
        token(nbf=time.time() + 600),
        token(key=SECRET[::-1]),
        token(key=None, algorithm="none"),
        token()[:-4] + "AAAA",
        "a.b.c",
        "",
    ],
)
def test_any_other_token_opens_nothing(text: str) -> None:
    assert JwtVerifier(SECRET, "riwoa").find(text) is None


@pytest.mark.parametrize("content", [b"short", b"-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIA\n", None])
def test_a_key_that_is_none_is_refused(content: bytes | None, tmp_path: Path) -> None:
    file = tmp_path / "key"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InputError):
        JwtVerifier.read(file, "riwoa")
