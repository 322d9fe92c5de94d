"""JSON Web Tokens that another service signs: accepted where ``riwoactl web --jwt-key`` names the key.

The key decides the algorithm, never the token: a PEM public key is for EdDSA, ES256 and RS256, any other file is a
secret for HS256. A token must name its audience, its subject, when it ends, and its scopes.
"""

from __future__ import annotations

from pathlib import Path

from jwt import PyJWT
from jwt.exceptions import PyJWTError

from riwoa.errors import InputError
from riwoa.files.ownership import opened_file
from riwoa.web.tokens import SCOPES, Token

_LEAST_SECRET_BYTES = 32
_MOST_KEY_BYTES = 16_384
_LEEWAY_S = 10.0  # between two clocks
_MOST_NAME = 40


class JwtVerifier:
    """Tells which tokens a key signed for an audience."""

    def __init__(self, key: bytes, audience: str) -> None:
        is_public = key.lstrip().startswith(b"-----BEGIN PUBLIC KEY")
        self._key = key if is_public else key.strip()
        self._algorithms = ["EdDSA", "ES256", "RS256"] if is_public else ["HS256"]
        self._audience = audience
        self._jwt = PyJWT()

    @staticmethod
    def read(file: Path, audience: str) -> JwtVerifier:
        """The verifier of a key file.

        Raises:
            InputError: it cannot be read, or is too short a secret.
        """
        try:
            with opened_file(file) as stream:
                key = stream.read(_MOST_KEY_BYTES)
        except OSError as error:
            raise InputError(f"cannot read {file} ({error.strerror}); name the key's file") from None
        if len(key.strip()) < _LEAST_SECRET_BYTES:
            raise InputError(f"{file} holds less than {_LEAST_SECRET_BYTES} bytes; make a longer secret")
        if b"PRIVATE KEY" in key:
            raise InputError(f"{file} holds a private key; name the public one, which is enough to verify")
        return JwtVerifier(key, audience)

    def find(self, text: str) -> Token | None:
        """What a token allows, and whom; None where the key did not sign it for this audience, or its time is over."""
        try:
            claims = self._jwt.decode(
                text,
                self._key,
                algorithms=self._algorithms,
                audience=self._audience,
                leeway=_LEEWAY_S,
                options={"require": ["exp", "aud", "sub"]},
            )
        except (PyJWTError, ValueError, TypeError):
            return None
        given = str(claims.get("scope", "")).split()
        scopes = tuple(scope for scope in SCOPES if scope in given)
        return Token("jwt", str(claims["sub"])[:_MOST_NAME], scopes, "", 0.0, float(claims["exp"]))
